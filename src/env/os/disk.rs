//! File systems and disks: how much room they have, who has a file open, and what a failed read says of what
//! they hold.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
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
    // SAFETY: the path ends with a zero.
    Ok(free_bytes_of(&unsafe { filled(|found| libc::statvfs(path.as_ptr(), found)) }?))
}

/// The same of the file system that an open file is on, whether or not it has a name.
///
/// # Errors
///
/// What the kernel says of the file.
pub fn free_bytes_beside(file: &File) -> io::Result<u64> {
    // SAFETY: the descriptor is open for as long as the file is borrowed.
    Ok(free_bytes_of(&unsafe { filled(|found| libc::fstatvfs(file.as_raw_fd(), found)) }?))
}

/// The number of the kind of file system that `dir` is on, as the kernel's `magic.h` has them.
///
/// # Errors
///
/// What the kernel says of the directory.
pub fn file_system_magic(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero.
    let found: libc::statfs = unsafe { filled(|found| libc::statfs(path.as_ptr(), found)) }?;
    // The kernel's numbers have 32 bits; where its word is wider they may come with their sign.
    #[allow(clippy::unnecessary_cast, reason = "its type differs between platforms")]
    Ok(found.f_type as u64 & 0xFFFF_FFFF)
}

fn free_bytes_of(found: &libc::statvfs) -> u64 {
    found.f_bavail.saturating_mul(found.f_frsize)
}

/// What a call of the kernel fills.
///
/// # Safety
///
/// The call fills what it is given, or returns something else than 0.
unsafe fn filled<T>(call: impl FnOnce(*mut T) -> libc::c_int) -> io::Result<T> {
    let mut found = MaybeUninit::uninit();
    if call(found.as_mut_ptr()) != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it is filled.
    Ok(unsafe { found.assume_init() })
}

/// Whether nobody else has a file open, in this process or another: only then the kernel grants a lease to
/// write it, which is given back at once. (What is mapped is open. On overlayfs a mapping may not count.)
///
/// # Errors
///
/// What the kernel says, where the file system has no leases or the file is another user's.
pub fn is_open_here_alone(file: &File) -> io::Result<bool> {
    // The kernel's number; the crate has it for some platforms alone.
    const F_SETSIG: libc::c_int = 10;
    // Who opens the file just then breaks the lease, which is told by a signal: SIGIO, which ends a process
    // that does not expect it. SIGURG is ignored where nobody asks for it.
    lease(file, F_SETSIG, libc::SIGURG)?;
    if let Err(error) = lease(file, libc::F_SETLEASE, libc::F_WRLCK) {
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
    }
    let held = lease(file, libc::F_GETLEASE, 0);
    lease(file, libc::F_SETLEASE, libc::F_UNLCK)?;
    // A lease that is being broken is another one already.
    Ok(held? == libc::F_WRLCK)
}

/// One of the calls of leases.
fn lease(file: &File, call: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for as long as the file is borrowed, and the calls take no pointers.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), call, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Whether an error of a read says that what is stored there cannot be had: a bad sector, or a checksum of
/// the device or of the file system that is wrong. Every other error says nothing of what is stored.
#[must_use]
pub fn is_bad_medium(error: &io::Error) -> bool {
    // A bad sector is EIO to a read through the page cache, ENODATA to a direct one.
    const NUMBERS: [i32; 6] =
        [libc::EIO, libc::ENODATA, libc::EREMOTEIO, libc::EILSEQ, libc::EBADMSG, libc::EUCLEAN];
    error.raw_os_error().is_some_and(|number| NUMBERS.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_sector_is_told_from_what_has_nothing_to_do_with_the_medium() {
        let is_bad = |number| is_bad_medium(&io::Error::from_raw_os_error(number));
        assert!(is_bad(libc::EIO) && is_bad(libc::ENODATA) && is_bad(libc::EUCLEAN));
        assert!(!is_bad(libc::ENOENT) && !is_bad(libc::EMFILE) && !is_bad(libc::ENOMEM));
        assert!(!is_bad_medium(&io::ErrorKind::UnexpectedEof.into()));
    }

    #[test]
    fn a_file_system_says_what_room_it_has() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(free_bytes(dir.path()).expect("it is there") > 0);
        assert_ne!(file_system_magic(dir.path()).expect("it is there"), 0);
        assert_eq!(file_system_magic(Path::new("/proc")).expect("this is Linux"), 0x9FA0);
        let missing = free_bytes(&dir.path().join("missing")).expect_err("there is no such directory");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let file = tempfile::tempfile().expect("a temporary file");
        assert!(free_bytes_beside(&file).expect("it is open") > 0);
    }
}
