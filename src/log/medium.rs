//! What a disk does not give back: a block, or a whole file, that it fails to read more than once.
//!
//! Nobody can say any more what was there. So it is damage wherever it may have been a batch, or a batch that
//! knew another one durable, and never a tear: see `walk`.
//!
//! Invariants: nothing counts as unreadable that was read when it was tried once more; an error that says
//! nothing of what is stored, such as too many open files, is handed on as a failure.
//!
//! It deliberately does not wait between two tries: the kernel has tried again for seconds before it says so.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::env::os::disk::is_bad_medium;

use super::error::{Damage, DamageKind};

/// What the system says of what cannot be read: the number of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediumError(i32);

impl MediumError {
    /// `None` where the error says nothing of what is stored.
    fn of(error: &io::Error) -> Option<Self> {
        error.raw_os_error().filter(|_| is_bad_medium(error)).map(Self)
    }
}

impl fmt::Display for MediumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// A block that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBlock {
    /// Where it is in its file.
    pub offset: u64,
    /// What the system says.
    pub error: MediumError,
}

impl BadBlock {
    /// The damage that it is to its file.
    #[must_use]
    pub fn damage(self, file: PathBuf) -> Damage {
        Damage { file, offset: self.offset, kind: DamageKind::BadBlock(self.error) }
    }
}

/// Reads something, and once more where that could not be had.
pub async fn read_twice<T>(read: impl AsyncFn() -> io::Result<T>) -> io::Result<Result<T, MediumError>> {
    match read().await {
        Err(error) if is_bad_medium(&error) => {}
        result => return result.map(Ok),
    }
    match read().await {
        Ok(read) => Ok(Ok(read)),
        Err(error) => MediumError::of(&error).map(Err).ok_or(error),
    }
}
