//! The one seam between distribKV and the world: clock, chance, tasks and files.
//!
//! Production ([`glommio`]) and the simulator (`tests/sim`) implement [`Env`]; everything from the log to the
//! sessions runs unchanged above either. The network has no trait: messages are data, carried by links in
//! production and by a packet network in simulation. Nothing outside this module reads a clock or draws a
//! random number.
//!
//! Invariants:
//! - `write_at` is whole or an error; a short write is an error.
//! - `sync` covers the writes that had completed when it was called, no later ones.
//! - A file opened [`OpenMode::is_durable`] is durable, data and length, when its `write_at` returns.
//! - Nothing here retries: whoever calls decides what a failure means.
//! - Dropping a future of a write may cancel it in flight, so nobody puts one in a select or a timeout.

use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

pub mod signal;
pub mod stages;
pub mod glommio;
pub mod executor;
mod removal;
pub mod os;

/// The size and alignment of everything that is written to a log: a constant of the format.
pub const BLOCK_BYTES: usize = 4096;

/// A point of the environment's monotonic clock, in microseconds since some start of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to this, zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// A file that exists, for reading alone.
    Read,
    /// A new file (an error where one exists), for reading and writing; writes are durable after a `sync`.
    Create,
    /// A file that exists, for reading and writing; a write is durable when it returns (`O_DSYNC`).
    Durable,
    /// A new file (an error where one exists); a write is durable when it returns (`O_DSYNC`).
    CreateDurable,
}

impl OpenMode {
    /// Whether a write is durable when it returns.
    #[must_use]
    pub fn is_durable(self) -> bool {
        matches!(self, Self::Durable | Self::CreateDurable)
    }
}

/// Clock, chance, tasks and files of one core. Cloning is cheap: a handle.
#[allow(async_fn_in_trait, reason = "one thread a core: no future is ever sent to another")]
pub trait Env: Clone + 'static {
    /// Memory aligned to [`BLOCK_BYTES`], as direct IO wants it.
    type Buf: AsRef<[u8]> + AsMut<[u8]> + 'static;
    /// An open file.
    type File: File<Buf = Self::Buf>;

    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// A random number; in simulation, of the seed.
    fn random(&self) -> u64;
    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;
    /// Runs a task on this core until it ends.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
    /// A zeroed buffer of `len` bytes, a multiple of [`BLOCK_BYTES`].
    fn buf(&self, len: usize) -> Self::Buf;

    /// Opens or creates a file.
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;
    /// The names in a directory, sorted.
    async fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory and its parents, where they do not exist.
    async fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, over another where one exists. Durable after `sync_dir`.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir`.
    async fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    async fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The bytes that may yet be written to the file system that a directory is on. A look, not a promise.
    async fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. Positions and lengths of writes are multiples of [`BLOCK_BYTES`]; reads are of any kind.
#[allow(async_fn_in_trait, reason = "one thread a core: no future is ever sent to another")]
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait File: 'static {
    /// What is written from.
    type Buf;

    /// Writes the whole buffer at `pos`, or fails.
    async fn write_at(&self, buf: Rc<Self::Buf>, pos: u64) -> io::Result<()>;
    /// Reads `len` bytes at `pos`; fewer only where the file ends.
    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Makes every write that has completed durable, data and length.
    async fn sync(&self) -> io::Result<()>;
    /// Reserves space to `len` and makes the file that long; what was not written reads as zeros.
    async fn allocate(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    async fn len(&self) -> io::Result<u64>;
    /// Closes the file and says what closing said.
    async fn close(self) -> io::Result<()>;
}
