//! Processes: one that ends with its parent, asking another to end, and what this one may use.

use std::io;

/// Asks the kernel to end this process when the thread that started it ends. `parent` is the process id of
/// whoever started it: another one is found where that has ended already, and the error says so.
///
/// Whose child an orphan becomes says nothing: it is process 1, or any process that takes orphans in; and
/// process 1 of a container may well be the one that started this one.
///
/// # Errors
///
/// Where the parent is gone, or the kernel refuses.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getppid has no arguments and cannot fail.
    let found = unsafe { libc::getppid() };
    if u32::try_from(found) != Ok(parent) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the process that started this one has ended"));
    }
    Ok(())
}

/// Asks a process to end (SIGTERM). Nothing where there is none.
pub fn terminate(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    assert!(pid > 0, "process {pid} would be a whole group");
    // SAFETY: kill takes two numbers and touches no memory of ours.
    let result = unsafe { libc::kill(pid, libc::SIGTERM) };
    // It may have ended a moment ago: then there is nobody to ask.
    let _ = result;
}

/// Has a write beyond the process' limit of file sizes (`RLIMIT_FSIZE`) fail with `EFBIG`, or come back
/// short, where the signal for it (SIGXFSZ) would end the process without a word. Whoever writes decides what
/// the error means. To be called first in `main`; a process that this one starts inherits it.
///
/// # Errors
///
/// What the kernel says; it has no reason to.
pub fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: SIG_IGN is no handler: no code of ours runs inside the signal.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many bytes this process may lock in memory; `u64::MAX` where there is no limit.
///
/// # Errors
///
/// What the kernel says; it has no reason to.
pub fn lockable_bytes() -> io::Result<u64> {
    limit(libc::RLIMIT_MEMLOCK)
}

/// How many files this process may have open at a time.
///
/// # Errors
///
/// What the kernel says; it has no reason to.
pub fn open_files_max() -> io::Result<u64> {
    limit(libc::RLIMIT_NOFILE)
}

fn limit(of: libc::__rlimit_resource_t) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the struct, which lives through the call.
    let result = unsafe { libc::getrlimit(of, &raw mut limit) };
    if result == 0 { Ok(limit.rlim_cur) } else { Err(io::Error::last_os_error()) }
}
