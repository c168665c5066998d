//! io_uring: whether this process may use it.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// The words of the kernel's `struct io_uring_params`.
const PARAMS_WORDS: usize = 30;

/// Makes a ring of one entry, and lets it go.
///
/// # Errors
///
/// What the kernel says where it makes none: `EPERM` of its own setting or a filter's, `ENOSYS` of a kernel
/// that has none or a filter that says so.
pub fn probe() -> io::Result<()> {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_uring_works_where_executors_do() {
        probe().expect("the tests need it");
    }
}
