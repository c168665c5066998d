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
//! The `io-uring` crate makes a ring by the `syscall` function of the C library. The linker is told to have
//! `syscall` mean [`__wrap_syscall`] in `kvserver` (`--wrap`, see `src/build.rs`), which adds the flags to a
//! ring that is made within [`calmly`], and else does as it was asked. In other programs rings are as glommio
//! asks.

use std::cell::Cell;
use std::ffi::c_long;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// The words of the kernel's `struct io_uring_params`.
const PARAMS_WORDS: usize = 30;
/// Which of them has the flags.
const PARAMS_FLAGS_AT: usize = 2;
/// Completions are noted when the thread enters the kernel, not by interrupting it. Since Linux 5.19.
pub const SETUP_COOP_TASKRUN: u32 = 1 << 8;
/// One thread alone submits. Since Linux 6.0.
pub const SETUP_SINGLE_ISSUER: u32 = 1 << 12;

thread_local! {
    /// What is added to the flags of a ring that this thread makes.
    static ADDED_FLAGS: Cell<u32> = const { Cell::new(0) };
}

unsafe extern "C" {
    /// The C library's own `syscall`, as the linker calls it where that is wrapped.
    fn __real_syscall(number: c_long, ...) -> c_long;
}

/// Makes rings of this thread alone, for whoever does not look at them between two calls of the kernel; where
/// the kernel knows no such rings, others.
pub fn calmly<T>(make: impl FnOnce() -> T) -> T {
    let before = ADDED_FLAGS.replace(SETUP_COOP_TASKRUN | SETUP_SINGLE_ISSUER);
    let made = make();
    ADDED_FLAGS.set(before);
    made
}

/// What `syscall` is in `kvserver`: the C library's, but for the flags of a new ring.
///
/// # Safety
///
/// As for `syscall`: the arguments have to be what the kernel wants with this number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let added = ADDED_FLAGS.get();
    if number == libc::SYS_io_uring_setup && added != 0 {
        // SAFETY: the caller gives the kernel its struct of params here, which has this many words.
        let params = unsafe { &mut *(b as *mut [u32; PARAMS_WORDS]) };
        let asked = params[PARAMS_FLAGS_AT];
        // A ring with flags of its own, as one that is polled, is none of those that are meant.
        if asked == 0 {
            params[PARAMS_FLAGS_AT] = added;
            // SAFETY: as asked of the caller, and with flags that the kernel knows or refuses.
            let made = unsafe { __real_syscall(number, a, b) };
            if made >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
                return made;
            }
            params[PARAMS_FLAGS_AT] = asked;
        }
    }
    // SAFETY: the arguments are the caller's. Of one that gave fewer than six, registers and its own part of
    // the stack are read for the others, as the C library's function does; the kernel looks at none of those.
    unsafe { __real_syscall(number, a, b, c, d, e, f) }
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
