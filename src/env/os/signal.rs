//! The signals that ask a process to stop, as something that a task waits for.
//!
//! ```text
//! main, before any thread   block()         every thread inherits it: no handler, no default action
//! one executor              StopSignals     the first signal is read from a descriptor, as ordinary IO
//! after the first           unblocked       the second one has its default action: the process ends at once
//! ```
//!
//! Invariants:
//! - No code of ours runs inside a signal handler.
//! - Whatever hangs while the process stops, a second signal ends it.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use glommio::signal::Signals;

/// The signals that ask to stop.
const STOP: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// Holds the signals back on this thread and on those that it starts from here on. To be called first in
/// `main`.
///
/// # Errors
///
/// What the kernel says; it has no reason to.
pub fn block() -> io::Result<()> {
    glommio::signal::block(&STOP).map_err(io::Error::from)
}

/// The signals that ask to stop, on one executor. One for each process: a signal is read once.
#[derive(Debug)]
pub struct StopSignals {
    signals: Signals,
}

impl StopSignals {
    /// Begins to watch, on the executor that runs on this thread. [`block`] was called before it was started.
    ///
    /// # Errors
    ///
    /// Where the kernel gives no descriptor.
    pub fn new() -> io::Result<Self> {
        Ok(Self { signals: Signals::new(&STOP).map_err(io::Error::from)? })
    }

    /// Waits for the first signal and says its number. From then on the next one ends the process.
    ///
    /// # Errors
    ///
    /// Where the descriptor cannot be read.
    pub async fn wait(self) -> io::Result<i32> {
        let signal = self.signals.recv().await.map_err(io::Error::from)?;
        drop(self.signals);
        unblock()?;
        Ok(signal)
    }
}

/// Lets the signals through on this thread: one is enough for their default action, which is the whole
/// process'.
fn unblock() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` makes the set that `sigaddset` and `pthread_sigmask` then read; the old mask is
    // not asked for.
    let result = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in STOP {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}
