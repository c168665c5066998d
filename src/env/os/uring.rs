//! io_uring: whether this process may use it, and how an executor's rings are set up.
//!
//! glommio asks for its rings without flags, and has no setting for them. So each completion that comes while
//! an executor works makes the kernel interrupt it, from the other CPU where that is where it happened, to
//! note something that the executor looks at no sooner than in its next turn. With
//! `IORING_SETUP_COOP_TASKRUN` the kernel notes it when the executor enters the kernel next, which each of
//! its turns does; and with `IORING_SETUP_SINGLE_ISSUER` it knows that no other thread submits. In four
//! alternating fresh clusters the two gave 1.08 of the puts and 1.06 of the gets (io_uring_setup(2); netty,
//! libxev and eio do the same).
//!
//! In `kvserver` a ring that is made within [`calmly`] has them, see `uring_wrap.rs` beside this file. In
//! other programs rings are as glommio asks.

use std::cell::Cell;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// The words of the kernel's `struct io_uring_params`.
const PARAMS_WORDS: usize = 30;
/// Which of them has the flags.
pub const PARAMS_FLAGS_AT: usize = 2;
/// Completions are noted when the thread enters the kernel, not by interrupting it. Since Linux 5.19.
pub const SETUP_COOP_TASKRUN: u32 = 1 << 8;
/// One thread alone submits. Since Linux 6.0.
pub const SETUP_SINGLE_ISSUER: u32 = 1 << 12;

thread_local! {
    /// What is added to the flags of a ring that this thread makes.
    static ADDED_FLAGS: Cell<u32> = const { Cell::new(0) };
}

/// Makes rings of this thread alone, for whoever does not look at them between two calls of the kernel; where
/// the kernel knows no such rings, others.
pub fn calmly<T>(make: impl FnOnce() -> T) -> T {
    let before = ADDED_FLAGS.replace(SETUP_COOP_TASKRUN | SETUP_SINGLE_ISSUER);
    let made = make();
    ADDED_FLAGS.set(before);
    made
}

/// What is to be added to the flags of a ring that is being made.
#[must_use]
pub fn added_flags() -> u32 {
    ADDED_FLAGS.get()
}

/// Makes a ring of one entry, and lets it go. The flags that it was made with.
///
/// # Errors
///
/// What the kernel says where it makes none: `EPERM` of its own setting or a filter's, `ENOSYS` of a kernel
/// that has none or a filter that says so.
pub fn probe() -> io::Result<u32> {
    let mut params = [0_u32; PARAMS_WORDS];
    // SAFETY: the kernel reads and writes the struct of params, whose size the array has and which lives
    // through the call.
    let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    let fd = i32::try_from(made).expect("a descriptor or -1");
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the descriptor is open and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(params[PARAMS_FLAGS_AT])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_uring_works_where_executors_do() {
        assert_eq!(probe().expect("the tests need it"), 0, "none were asked for");
    }
}
