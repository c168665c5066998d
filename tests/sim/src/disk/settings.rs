//! How fast a disk is, how it tears, how much it holds.

use std::time::Duration;

use super::fate::Tearing;
use crate::random::{Chance, Random};

/// The kinds of operations, for faults and latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Opening, or creating.
    Open,
    /// Reading, and asking for a length.
    Read,
    /// Writing.
    Write,
    /// Syncing a file.
    Sync,
    /// Reserving space.
    Allocate,
    /// Listing a directory.
    List,
    /// Creating a directory, renaming, removing.
    Names,
    /// Syncing a directory.
    SyncDir,
    /// Closing.
    Close,
}

/// How long operations of a kind take: uniform, and now and then far longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The shortest, in microseconds.
    pub us_min: u64,
    /// The longest usual one, in microseconds.
    pub us_max: u64,
    /// How often one is slow.
    pub slow: Chance,
    /// The longest slow one, in microseconds.
    pub slow_us_max: u64,
}

impl Latency {
    /// Between two bounds, never slow.
    #[must_use]
    pub const fn between(us_min: u64, us_max: u64) -> Self {
        Self { us_min, us_max, slow: Chance::NEVER, slow_us_max: us_max }
    }

    /// How long this operation takes. As many numbers are drawn for a usual one as for a slow one.
    pub(super) fn draw(self, random: &mut Random) -> Duration {
        let usual = random.between(self.us_min, self.us_max);
        let slow = random.happens(self.slow);
        let tail = random.between(self.us_max, self.slow_us_max.max(self.us_max));
        Duration::from_micros(if slow { tail } else { usual })
    }
}

/// The latencies of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// Of reads and lists.
    pub read: Latency,
    /// Of writes, whether durable or not.
    pub write: Latency,
    /// Of syncs of files and directories.
    pub sync: Latency,
    /// Of everything that changes or looks up names, and of closing.
    pub names: Latency,
}

impl Latencies {
    /// Every operation takes this long.
    #[must_use]
    pub const fn exactly(us: u64) -> Self {
        let latency = Latency::between(us, us);
        Self { read: latency, write: latency, sync: latency, names: latency }
    }

    /// The latency of operations of a kind.
    pub(super) fn of(&self, kind: Kind) -> Latency {
        match kind {
            Kind::Read | Kind::List => self.read,
            Kind::Write => self.write,
            Kind::Sync | Kind::SyncDir => self.sync,
            Kind::Open | Kind::Allocate | Kind::Names | Kind::Close => self.names,
        }
    }
}

/// What becomes of cached data whose sync failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSync {
    /// It counts as clean, and no later sync writes it: what Linux does with buffered files.
    MarksClean,
    /// A later sync writes it.
    KeepsDirty,
}

/// Settings of a disk.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// How long operations take.
    pub latencies: Latencies,
    /// Whether a power cut may leave bytes that nobody wrote.
    pub tearing: Tearing,
    /// Neighbouring sectors that share their fate in a crash: 1 for the most, 8 for few enough to enumerate.
    pub tear_sectors: u64,
    /// How long after the crash of its process a write may land, in microseconds.
    pub late_us_max: u64,
    /// What becomes of cached data whose sync failed.
    pub failed_sync: FailedSync,
    /// Bytes that all files together may take, in whole blocks.
    pub capacity_bytes: u64,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            latencies: Latencies {
                read: Latency::between(20, 150),
                write: Latency::between(50, 300),
                sync: Latency::between(100, 500),
                names: Latency::between(5, 50),
            },
            tearing: Tearing::Sectors,
            tear_sectors: 1,
            late_us_max: 7_000,
            failed_sync: FailedSync::MarksClean,
            capacity_bytes: u64::MAX,
        }
    }
}
