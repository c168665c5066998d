//! The files of a data directory, for reading alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The files of a data directory. Names are relative to it, with slashes; the empty name is the directory
/// itself.
pub trait Files {
    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// It cannot be read.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// The length of a file in bytes.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    fn len(&self, file: &str) -> io::Result<u64>;

    /// Reads `len` bytes from `at` on; fewer only where the file ends.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    fn read(&self, file: &str, at: u64, len: usize) -> io::Result<Vec<u8>>;
}

/// A directory on disk.
#[derive(Debug)]
pub struct DirFiles {
    root: PathBuf,
}

impl DirFiles {
    /// The files below a directory.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }
}

impl Files for DirFiles {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(dir))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn len(&self, file: &str) -> io::Result<u64> {
        let found = fs::metadata(self.root.join(file))?;
        if found.is_file() { Ok(found.len()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn read(&self, file: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.root.join(file))?;
        let left = usize::try_from(file.metadata()?.len().saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}
