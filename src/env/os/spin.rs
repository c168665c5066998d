//! How an executor waits: it looks for a while before it sleeps, where that pays.
//!
//! A thread that sleeps may leave its CPU with nothing to do, and such a CPU halts. To be woken then costs 20
//! to 30 µs in a virtual machine (an interrupt between CPUs, and a way in and out of the hypervisor), three
//! or four times in a put. A thread that keeps looking at its ring until something comes is spared that: on
//! two virtual cores a put of one client took 0.25 ms in place of 0.38 (medians of fresh clusters).
//!
//! ```text
//!                       one of the last waits was long
//!   the ring is empty ─────────────────────────────────────────────────► sleep until something comes
//!            │                                                       ▲
//!            └─► look, give way to other threads, look, … ───────────┘
//!                       something has come, the limit has passed, or another thread took the CPU
//! ```
//!
//! Invariants:
//! - It looks for no longer than the limit, and not at all unless the last waits, several in a row, were
//!   shorter than that: an idle node does not burn a core (Linux' `haltpoll` learns in a like way, for all
//!   of a machine).
//! - Between two looks it gives way to whatever else the CPU has to do (sched_yield(2)): the kernel's workers
//!   of the disk, a node beside it, the client. Where another thread has then worked for a while, it sleeps:
//!   a CPU with work to do does not halt, and who gives way again and again falls behind the others in the
//!   scheduler's account. (Linux 6.18. Without this, p99.9 of puts at half of the greatest rate was 22 to 52
//!   ms in four of nine runs.)
//! - No wake-up is missed: the thread is about to sleep when it begins, all that may wake it is a completion
//!   of the ring that it looks at, and the sleep is asked for at the end in any case.
//!
//! glommio's own `spin_before_park` does not serve: it looks at rings without entering the kernel, which is
//! where completions of rings as in [`super::uring`] are noted, and gives way to nobody.
//!
//! Lives on each executor's thread. In `kvserver`, whose calls of the kernel pass `uring_wrap.rs`; executors
//! of other programs sleep at once.

use std::cell::Cell;
use std::ffi::c_int;
use std::time::{Duration, Instant};

/// So many short waits in a row make it likely that the next one is short. A heartbeat and its answers, after
/// which an idle node has nothing to do for a while, are fewer.
const SHORT_WAITS_MIN: u32 = 4;

/// Who gives way and comes back no sooner has let another thread do more than look, or take a message: at 20
/// µs a put of one client lost half of what it gains from looking, at 60, 150 and 400 nothing.
const COMPANY_MIN: Duration = Duration::from_micros(60);

/// What a thread has learnt of its waits.
#[derive(Clone, Copy, Debug)]
struct Waits {
    /// How long it looks; zero for a thread that does not.
    limit: Duration,
    /// The last waits, one after the other, that were no longer than that.
    short: u32,
}

impl Waits {
    const fn new(limit: Duration) -> Self {
        Self { limit, short: 0 }
    }

    fn is_next_short(self) -> bool {
        self.short >= SHORT_WAITS_MIN
    }

    fn after(self, wait: Duration) -> Self {
        let short = if wait <= self.limit { self.short.saturating_add(1) } else { 0 };
        Self { short, ..self }
    }
}

/// What looking came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Something has come.
    Something,
    /// Nothing in time.
    Nothing,
    /// Another thread that needs the CPU.
    Company,
}

thread_local! {
    static WAITS: Cell<Waits> = const { Cell::new(Waits::new(Duration::ZERO)) };
    /// How often something came while this thread looked.
    static SPARED: Cell<u64> = const { Cell::new(0) };
}

/// From now on this thread looks for so long before it sleeps; zero: it sleeps at once.
pub fn set_limit(limit: Duration) {
    WAITS.set(Waits::new(limit));
}

/// How many sleeps this thread was spared, since something came while it looked.
#[must_use]
pub fn spared() -> u64 {
    SPARED.get()
}

/// Waits for a completion of a ring: looks, where that is likely to pay, and then lets the thread sleep.
///
/// `sleep` is to return at once where there is a completion.
pub fn wait<T>(ring: c_int, sleep: impl FnOnce() -> T) -> T {
    let waits = WAITS.get();
    if waits.limit.is_zero() {
        return sleep();
    }
    let begun = Instant::now();
    if waits.is_next_short() && look(ring, begun + waits.limit, give_way) == Found::Something {
        SPARED.set(SPARED.get() + 1);
    }
    let slept = sleep();
    WAITS.set(waits.after(begun.elapsed()));
    slept
}

/// Looks until there is a completion, until another thread has work, or until it is late.
fn look(ring: c_int, until: Instant, give_way: impl Fn()) -> Found {
    let mut ring = libc::pollfd { fd: ring, events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: the kernel reads and writes one `pollfd`, which lives through the call.
        if unsafe { libc::poll(&raw mut ring, 1, 0) } > 0 {
            return Found::Something;
        }
        let looked = Instant::now();
        if looked >= until {
            return Found::Nothing;
        }
        give_way();
        if looked.elapsed() >= COMPANY_MIN {
            return Found::Company;
        }
    }
}

fn give_way() {
    // SAFETY: it has no arguments, and does nothing but let others run.
    unsafe { libc::sched_yield() };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const LIMIT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(60);

    fn after_each(waits: &[Duration]) -> Waits {
        waits.iter().fold(Waits::new(LIMIT), |learnt, wait| learnt.after(*wait))
    }

    fn is_there(fd: c_int) -> bool {
        look(fd, Instant::now(), give_way) == Found::Something
    }

    #[test]
    fn a_run_of_short_waits_makes_the_next_one_likely_to_be_short() {
        let few = [LIMIT / 2; SHORT_WAITS_MIN as usize - 1];
        assert!(!after_each(&few).is_next_short());
        let enough = [&few[..], &[LIMIT]].concat();
        assert!(after_each(&enough).is_next_short());
        assert!(!after_each(&[&enough[..], &[LIMIT * 2]].concat()).is_next_short(), "one that was long");
        assert!(after_each(&[&[LIMIT * 2], &enough[..]].concat()).is_next_short(), "and forgotten");
    }

    #[test]
    fn a_thread_without_a_limit_sleeps_at_once() {
        let learnt = (0..100).fold(Waits::new(Duration::ZERO), |waits, _| waits.after(LIMIT));
        assert!(!learnt.is_next_short());
    }

    #[test]
    fn what_comes_while_it_looks_spares_a_sleep() {
        let (ours, theirs) = UnixStream::pair().expect("there are sockets");
        let fd = ours.as_raw_fd();
        let looks = Cell::new(0);
        let found = look(fd, Instant::now() + LONG, || {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                (&theirs).write_all(b"x").expect("it is open");
            }
        });
        // Where this thread was kept from its CPU for long at one of them, it has had company.
        assert!(found == Found::Something && looks.get() == 3 || found == Found::Company);
        (&theirs).write_all(b"x").expect("it is open");
        WAITS.set(Waits { limit: LIMIT, short: SHORT_WAITS_MIN });
        let before = spared();
        assert!(wait(fd, || is_there(fd)));
        assert_eq!(spared(), before + 1);
    }

    #[test]
    fn it_sleeps_where_nothing_comes_in_time() {
        let (ours, _theirs) = UnixStream::pair().expect("there are sockets");
        let fd = ours.as_raw_fd();
        let begun = Instant::now();
        let found = look(fd, begun + LIMIT, || {});
        assert!(found == Found::Nothing && begun.elapsed() >= LIMIT || found == Found::Company);
        WAITS.set(Waits { limit: LIMIT, short: SHORT_WAITS_MIN });
        let before = spared();
        assert!(!wait(fd, || {
            thread::sleep(LIMIT);
            is_there(fd)
        }));
        assert_eq!(spared(), before);
        assert!(!WAITS.get().is_next_short(), "it has learnt");
    }

    #[test]
    fn it_sleeps_where_another_thread_has_work() {
        let (ours, _theirs) = UnixStream::pair().expect("there are sockets");
        let looks = Cell::new(0);
        let found = look(ours.as_raw_fd(), Instant::now() + LONG, || {
            looks.set(looks.get() + 1);
            thread::sleep(COMPANY_MIN);
        });
        assert_eq!((found, looks.get()), (Found::Company, 1));
    }
}
