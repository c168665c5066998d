//! A file mapped for reading, one byte at a time, and out of the page cache: what `benches/page_faults.rs`
//! measures to know what mapping tables would cost. No node maps anything; why is said at `shard::table`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr::NonNull;

/// A file that is mapped. It ends with the process (SIGBUS) where the file is made shorter and what is gone
/// is touched.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    /// Maps all of a file, for reads here and there: the kernel reads no pages around one that is touched.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened or mapped, or is empty.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory of ours, and is read
        // through `touch` alone, which makes no reference to it.
        let start = unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped at zero"))?;
        let mapping = Self { start, len };
        // SAFETY: advice on a mapping of ours, of its length, changes nothing that is read from it.
        match unsafe { libc::madvise(mapping.start.as_ptr(), len, libc::MADV_RANDOM) } {
            0 => Ok(mapping),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Reads a byte. Where its page is not in memory, this thread stops until it is.
    #[must_use]
    pub fn touch(&self, at: usize) -> u8 {
        assert!(at < self.len, "byte {at} of {} is touched", self.len);
        // SAFETY: the byte lies in the mapping, which lives as long as this. Whoever writes to the file
        // meanwhile changes a byte that is read once, as volatile.
        unsafe { self.start.cast::<u8>().add(at).read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr(), self.len) };
        assert!(result == 0, "munmap of a mapping of ours: {}", io::Error::last_os_error());
    }
}

/// Has the kernel forget the pages of a file that it keeps and that nobody has changed.
///
/// # Errors
///
/// Where it cannot be opened, or the kernel refuses.
pub fn forget_cached(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: posix_fadvise takes numbers and touches no memory of ours.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}
