//! The signals that ask a process to stop: a thread of its own waits for them, a bell wakes an executor.
//!
//! ```text
//! main, before any thread   watch()         every later thread inherits the mask: no default action
//! thread "signals"          sigwait         the first signal: what was given to watch() is called
//! after the first           unblocked       the second one has its default action: the process ends at once
//! ```
//!
//! Why a thread and not a descriptor that an executor reads: a node is asked to stop while it reads a long
//! log, waits for its address or hangs, and then no executor would read it.
//!
//! Invariants:
//! - No code of ours runs inside a signal handler.
//! - Whatever hangs, from the start of the process to its end, a second signal ends it.

use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::{ptr, thread};

use glommio::io::PollableFd;

/// The signals that ask to stop.
const STOP: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// Calls `on_first` with the number of the first signal that asks to stop, on a thread of its own; the second
/// one ends the process. To be called first in `main`: threads that were started before it would still die of
/// the first.
///
/// # Errors
///
/// Where the kernel refuses the mask or the thread; it has no reason to.
pub fn watch(on_first: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    set_mask(libc::SIG_BLOCK)?;
    let waiting = move || {
        let signal = wait();
        if let Err(error) = set_mask(libc::SIG_UNBLOCK) {
            tracing::error!(%error, "a second signal will not be heard");
        }
        on_first(signal);
        // The mask is this thread's: without the thread nobody would take the second signal.
        loop {
            thread::park();
        }
    };
    thread::Builder::new().name("signals".into()).spawn(waiting)?;
    Ok(())
}

/// Sets whether this thread holds the signals back. One thread that lets them through is enough for their
/// default action, which is the whole process'.
fn set_mask(how: libc::c_int) -> io::Result<()> {
    let set = stop_set();
    // SAFETY: the set was initialised; the old mask is not asked for.
    let result = unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Waits for one of the signals, which this thread holds back.
fn wait() -> i32 {
    let set = stop_set();
    let mut signal = 0;
    // SAFETY: the set was initialised, and the number is written to a place that lives through the call.
    let result = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    assert_eq!(result, 0, "sigwait refuses two signals that every process has");
    signal
}

fn stop_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set, and both signals exist.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in STOP {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Rings a bell on another thread.
#[derive(Debug)]
pub struct Ringer {
    stream: UnixStream,
}

/// A bell that any thread rings once and one executor hears.
#[derive(Debug)]
pub struct Bell {
    stream: UnixStream,
}

/// A bell and what rings it.
///
/// # Errors
///
/// Where the kernel gives no descriptors.
pub fn bell() -> io::Result<(Ringer, Bell)> {
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    Ok((Ringer { stream: ours }, Bell { stream: theirs }))
}

impl Ringer {
    /// Rings it. Nothing where nobody listens any more.
    pub fn ring(mut self) {
        let _ = self.stream.write_all(&[1]);
    }
}

impl Bell {
    /// Waits until it was rung, on the executor that runs on this thread. A ringer that is gone has rung.
    ///
    /// # Errors
    ///
    /// Where the descriptor cannot be watched.
    pub async fn rung(self) -> io::Result<()> {
        let watched = PollableFd::new(self.stream).map_err(io::Error::from)?;
        loop {
            watched.readable().await.map_err(io::Error::from)?;
            let mut stream: &UnixStream = watched.get_ref();
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::executor::{CorePlacement, ExecutorOptions, start_executor};

    #[test]
    fn a_bell_is_heard_on_an_executor_rung_before_or_while_it_waits() {
        for pause in [std::time::Duration::ZERO, std::time::Duration::from_millis(20)] {
            let (ringer, bell) = bell().expect("two descriptors");
            let ringing = thread::spawn(move || {
                thread::sleep(pause);
                ringer.ring();
            });
            let options = ExecutorOptions::new("bell-test", CorePlacement::Anywhere, 1);
            let heard = start_executor(options, move || bell.rung()).expect("io_uring works here");
            heard.join().expect("no panic").expect("it was rung");
            ringing.join().expect("no panic");
        }
    }
}
