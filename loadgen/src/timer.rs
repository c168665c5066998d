//! An alarm finer than tokio's: its wheel turns once a millisecond, which is longer than the calls that are
//! timed.
//!
//! The kernel's timer becomes readable when it goes off. tokio waits for that as it would for a pipe, whose
//! type it lends to any descriptor that is read in the same way: registering a bare descriptor would take
//! `unsafe`.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe;

/// A timer of the kernel that wakes the engine.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    /// The same timer, as tokio waits for it.
    readable: pipe::Receiver,
    /// The moment that it is set to, in nanoseconds of the run; already past: not set.
    set_ns: u64,
}

impl Alarm {
    /// An alarm that is not set. Has to be made inside a runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let readable = pipe::Receiver::from_owned_fd_unchecked(timer.try_clone()?)?;
        Ok(Self { timer, readable, set_ns: 0 })
    }

    /// Sees to it that the task is woken at `at_ns` at the latest, where it is `now_ns`.
    pub fn set(&mut self, at_ns: u64, now_ns: u64, context: &mut Context<'_>) -> io::Result<()> {
        if self.set_ns <= now_ns || at_ns < self.set_ns {
            let wait_ns = at_ns.saturating_sub(now_ns).max(1);
            let value = Timespec {
                tv_sec: (wait_ns / 1_000_000_000) as i64,
                tv_nsec: (wait_ns % 1_000_000_000) as i64,
            };
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = Itimerspec { it_interval: never, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
            self.set_ns = at_ns.max(now_ns + 1);
        }
        while let Poll::Ready(ready) = self.readable.poll_read_ready(context) {
            ready?;
            match self.readable.try_read(&mut [0; 8]) {
                // It went off since `now_ns` was read, perhaps for the moment that is asked for: whoever
                // slept now would sleep without an alarm.
                Ok(_) => {
                    self.set_ns = 0;
                    context.waker().wake_by_ref();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn wakes_again_and_again() {
        let start = Instant::now();
        let mut alarm = Alarm::new().expect("timers are there");
        for turn in 1..=20u64 {
            let at_ns = turn * 300_000;
            poll_fn(|context| {
                let now_ns = start.elapsed().as_nanos() as u64;
                if now_ns >= at_ns {
                    return Poll::Ready(());
                }
                alarm.set(at_ns, now_ns, context).expect("setting works");
                Poll::Pending
            })
            .await;
        }
        assert!(start.elapsed().as_micros() >= 6_000);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nobody_sleeps_without_an_alarm_that_went_off_just_before() {
        let mut alarm = Alarm::new().expect("timers are there");
        let at_ns = 1_000_000;
        poll_fn(|context| Poll::Ready(alarm.set(at_ns, 0, context))).await.expect("setting works");
        std::thread::sleep(Duration::from_millis(20));
        // Lets the runtime see that the timer is readable.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        alarm.set(at_ns, at_ns - 1, &mut Context::from_waker(&waker)).expect("setting works");
        assert!(woken.0.load(Ordering::Acquire), "the alarm was taken and nobody was woken");
    }
}
