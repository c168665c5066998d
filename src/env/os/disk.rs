//! File systems: how much room they have.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The bytes that a process without privileges may yet write to the file system that `dir` is on. Quotas of
/// users are not in it.
///
/// # Errors
///
/// What the kernel says of the directory.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the kernel fills the struct, which lives through the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the struct is filled.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_says_what_room_it_has() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(free_bytes(dir.path()).expect("it is there") > 0);
        let missing = free_bytes(&dir.path().join("missing")).expect_err("there is no such directory");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
