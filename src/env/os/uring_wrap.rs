//! How the rings of `kvserver` come to their flags, and its executors to look before they sleep: what
//! `syscall` means there.
//!
//! The `io-uring` crate makes a ring, and enters it, by the `syscall` function of the C library. The linker
//! is told to have `syscall` mean [`__wrap_syscall`] (`--wrap`, see `src/build.rs`). It adds the flags of
//! [`uring::calmly`] to a ring that is made within it, waits for a ring as [`spin`] has it, and else does as
//! it was asked.
//!
//! It belongs to the program, whose linker is told so, and not to the library: in any other program there is
//! no `__real_syscall` to link with.

#![allow(unsafe_code, reason = "it takes the place of a function of the C library")]

use std::ffi::{c_int, c_long};
use std::io;

use distribkv::env::os::{spin, uring};

unsafe extern "C" {
    /// The C library's own `syscall`, as the linker calls it where that is wrapped.
    fn __real_syscall(number: c_long, ...) -> c_long;
}

/// What `syscall` is in `kvserver`: the C library's, but for the flags of a new ring and the wait for one.
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
    let added = uring::added_flags();
    if number == libc::SYS_io_uring_setup && added != 0 {
        // SAFETY: the caller gives the kernel its struct of params here, of which this is a word.
        let flags = unsafe { (b as *mut u32).add(uring::PARAMS_FLAGS_AT) };
        // SAFETY: as above.
        let asked = unsafe { flags.read() };
        // A ring with flags of its own, as one that is polled, is none of those that are meant.
        if asked == 0 {
            // SAFETY: as above; the caller has the kernel write there.
            unsafe { flags.write(added) };
            // SAFETY: as asked of the caller, and with flags that the kernel knows or refuses.
            let made = unsafe { __real_syscall(number, a, b) };
            if made >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
                return made;
            }
            // SAFETY: as above.
            unsafe { flags.write(asked) };
        }
    }
    // SAFETY: the arguments are the caller's. Of one that gave fewer than six, registers and its own part of
    // the stack are read for the others, as the C library's function does; the kernel looks at none of those.
    let as_asked = || unsafe { __real_syscall(number, a, b, c, d, e, f) };
    // With nothing to submit and a completion to wait for: an executor that goes to sleep.
    match c_int::try_from(a) {
        Ok(ring) if number == libc::SYS_io_uring_enter && (b, c) == (0, 1) => spin::wait(ring, as_asked),
        _ => as_asked(),
    }
}
