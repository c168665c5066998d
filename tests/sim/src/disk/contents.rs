//! What one file holds: what is durable, and what only the page cache or the disk's own cache knows.
//!
//! ```text
//! durable   [sector 0][sector 1][sector 2] ...          survives a power cut
//! cached              [ v3, v7 ]          [ v9 ]        the newest is read; a power cut leaves any, or none
//! lengths   durable_len, then each length set since     a power cut leaves any one
//! ```
//!
//! A durable sector may be bad: it is not read any more, until something else is stored there.
//!
//! Invariants:
//! - A read sees the newest version of each sector, whether it is durable or not.
//! - Versions of a sector are in the order of their sequence numbers, and at most [`VERSIONS_MAX`].
//! - After a power cut nothing is cached: what is read then is what stays.
//!
//! It knows nothing of names, time and faults: [`super`] has them.

use std::collections::{BTreeMap, BTreeSet};

use super::fate::{Fate, Fates};

/// The unit that a disk writes whole, as long as it does not tear.
pub const SECTOR_BYTES: usize = 512;
/// The same, to count positions with.
const SECTOR: u64 = SECTOR_BYTES as u64;

/// Versions of a cached sector that are told apart.
const VERSIONS_MAX: usize = 8;

/// The bytes of a file, for [`super::Disk`].
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// Whole sectors; beyond its end a file is zeros.
    durable: Vec<u8>,
    durable_len: u64,
    len: u64,
    /// Lengths set since the last sync, with the sequence number of what set them.
    lengths: Vec<(u64, u64)>,
    cached: BTreeMap<u64, Vec<Version>>,
    /// Durable sectors that cannot be read.
    bad: BTreeSet<u64>,
}

/// A sector as some write left it in the cache.
#[derive(Clone, Debug)]
struct Version {
    sequence: u64,
    bytes: Box<[u8; SECTOR_BYTES]>,
    writeback: Writeback,
}

/// Whether a sync still writes a cached version out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writeback {
    Pending,
    /// A sync of it failed, and the cache took it for clean.
    GivenUp,
}

impl Contents {
    /// The length that a reader sees.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes from `pos`, fewer than `len` only where the file ends.
    pub(super) fn read(&self, pos: u64, len: usize) -> Vec<u8> {
        let end = pos.saturating_add(len as u64).min(self.len);
        if pos >= end {
            return Vec::new();
        }
        let first = pos / SECTOR;
        let mut bytes = Vec::with_capacity(usize_of(end - pos) + 2 * SECTOR_BYTES);
        for sector in first..end.div_ceil(SECTOR) {
            bytes.extend_from_slice(&self.sector(sector));
        }
        let skipped = usize_of(pos - first * SECTOR);
        bytes.drain(..skipped);
        bytes.truncate(usize_of(end - pos));
        bytes
    }

    /// Whether a read of these bytes fails: the cache does not stand for all bad sectors among them.
    pub(super) fn is_bad(&self, pos: u64, len: usize) -> bool {
        let end = pos.saturating_add(len as u64).min(self.len);
        let sectors = pos / SECTOR..end.div_ceil(SECTOR);
        pos < end && self.bad.range(sectors).any(|sector| !self.cached.contains_key(sector))
    }

    /// Makes the sectors of these bytes bad.
    pub(super) fn spoil(&mut self, pos: u64, len: usize) {
        self.bad.extend(pos / SECTOR..pos.saturating_add(len as u64).div_ceil(SECTOR));
    }

    /// A sector as a reader sees it.
    fn sector(&self, sector: u64) -> [u8; SECTOR_BYTES] {
        match self.cached.get(&sector).and_then(|versions| versions.last()) {
            Some(version) => *version.bytes,
            None => self.durable_sector(sector),
        }
    }

    /// A sector as it is on the disk: zeros where none was ever stored.
    fn durable_sector(&self, sector: u64) -> [u8; SECTOR_BYTES] {
        let mut bytes = [0; SECTOR_BYTES];
        let start = usize_of(sector * SECTOR);
        if let Some(stored) = self.durable.get(start..start + SECTOR_BYTES) {
            bytes.copy_from_slice(stored);
        }
        bytes
    }

    /// Writes to the cache: durable after a sync.
    pub(super) fn write_cached(&mut self, sequence: u64, pos: u64, data: &[u8]) {
        self.write_cached_sectors(sequence, pos, data, |_| true);
    }

    /// Writes those sectors of the data to the cache that `lands` says, counted from 0.
    pub(super) fn write_cached_sectors(
        &mut self,
        sequence: u64,
        pos: u64,
        data: &[u8],
        mut lands: impl FnMut(usize) -> bool,
    ) {
        assert!(pos.is_multiple_of(SECTOR), "a write at {pos} is not at a sector");
        let mut end = 0;
        for (number, bytes) in data.chunks_exact(SECTOR_BYTES).enumerate() {
            if lands(number) {
                let sector = pos / SECTOR + number as u64;
                self.cache_sector(sequence, sector, bytes);
                end = (sector + 1) * SECTOR;
            }
        }
        self.set_len(sequence, end);
    }

    /// Adds a version of a sector, newer than all that are cached.
    fn cache_sector(&mut self, sequence: u64, sector: u64, data: &[u8]) {
        let mut bytes = Box::new([0; SECTOR_BYTES]);
        bytes.copy_from_slice(data);
        let versions = self.cached.entry(sector).or_default();
        let last = versions.last().map_or(0, |version| version.sequence);
        assert!(sequence >= last, "write {sequence} of sector {sector} comes after write {last}");
        versions.push(Version { sequence, bytes, writeback: Writeback::Pending });
        if versions.len() > VERSIONS_MAX {
            // The next one answers for the oldest: a cache may write out the newer bytes, never lose them to
            // a sync.
            let oldest = versions.remove(0);
            versions[0].sequence = oldest.sequence;
        }
    }

    /// Makes the file at least so long, in the cache.
    pub(super) fn set_len(&mut self, sequence: u64, len: u64) {
        if len > self.len {
            self.len = len;
            self.lengths.push((sequence, len));
        }
    }

    /// Writes through every cache: durable when this returns, data and length.
    pub(super) fn write_durable(&mut self, pos: u64, data: &[u8]) {
        assert!(pos.is_multiple_of(SECTOR), "a write at {pos} is not at a sector");
        for (number, bytes) in data.chunks_exact(SECTOR_BYTES).enumerate() {
            let sector = pos / SECTOR + number as u64;
            self.cached.remove(&sector);
            self.store_sector(sector, bytes);
        }
        let end = pos + data.len() as u64;
        self.len = self.len.max(end);
        self.set_durable_len(end);
    }

    /// Puts bytes onto the disk itself. A bad sector gives way to another one.
    fn store_sector(&mut self, sector: u64, bytes: &[u8]) {
        self.bad.remove(&sector);
        self.set_sector(sector, bytes);
    }

    fn set_sector(&mut self, sector: u64, bytes: &[u8]) {
        let start = usize_of(sector * SECTOR);
        if self.durable.len() < start + SECTOR_BYTES {
            self.durable.resize(start + SECTOR_BYTES, 0);
        }
        self.durable[start..start + SECTOR_BYTES].copy_from_slice(bytes);
    }

    /// The file is durably so long, at least: shorter lengths are no longer possible.
    fn set_durable_len(&mut self, len: u64) {
        self.durable_len = self.durable_len.max(len);
        assert!(self.durable_len <= self.len, "durable to {} of {} bytes", self.durable_len, self.len);
        let durable_len = self.durable_len;
        self.lengths.retain(|&(_, len)| len > durable_len);
    }

    /// Makes durable what was written up to a sequence number.
    pub(super) fn sync(&mut self, through: u64) {
        let mut stored = Vec::new();
        self.cached.retain(|&sector, versions| {
            let written =
                |version: &&Version| version.sequence <= through && version.writeback == Writeback::Pending;
            let newest = versions.iter().rfind(written);
            if let Some(version) = newest {
                stored.push((sector, version.bytes.clone()));
                let stored_at = version.sequence;
                versions.retain(|version| version.sequence > stored_at);
            }
            !versions.is_empty()
        });
        for (sector, bytes) in stored {
            self.store_sector(sector, &bytes[..]);
        }
        let lengths = self.lengths.iter().filter(|&&(sequence, _)| sequence <= through);
        if let Some(len) = lengths.map(|&(_, len)| len).max() {
            self.set_durable_len(len);
        }
    }

    /// A sync failed, and the cache takes for clean what it did not write: later syncs pass it over.
    pub(super) fn give_up(&mut self, through: u64) {
        for version in self.cached.values_mut().flatten() {
            if version.sequence <= through {
                version.writeback = Writeback::GivenUp;
            }
        }
    }

    /// Leaves what a power cut leaves, by choice.
    pub(super) fn power_cut(&mut self, fates: &mut Fates) {
        let lengths: Vec<u64> =
            std::iter::once(self.durable_len).chain(self.lengths.drain(..).map(|(_, len)| len)).collect();
        self.len = lengths[fates.length(lengths.len())];
        self.durable_len = self.len;
        fates.begin_file();
        for (sector, versions) in std::mem::take(&mut self.cached) {
            if sector * SECTOR >= self.len {
                continue;
            }
            match fates.sector(sector, versions.len()) {
                Fate::Lost => {}
                Fate::Kept(age) => {
                    let version = &versions[versions.len() - 1 - age];
                    self.store_sector(sector, &version.bytes[..]);
                }
                Fate::Garbage(bytes) => self.store_sector(sector, &bytes[..]),
            }
        }
        self.durable.truncate(usize_of(self.len.next_multiple_of(SECTOR)));
    }

    /// Turns one bit over, wherever a reader sees it from.
    pub(super) fn flip_bit(&mut self, at: u64, bit: u8) {
        assert!(at < self.len, "byte {at} of {} cannot rot", self.len);
        let (sector, within) = (at / SECTOR, usize_of(at % SECTOR));
        let mut bytes = self.sector(sector);
        bytes[within] ^= 1 << bit;
        match self.cached.get_mut(&sector).and_then(|versions| versions.last_mut()) {
            Some(version) => *version.bytes = bytes,
            None => self.set_sector(sector, &bytes),
        }
    }

    /// How many bytes are not durable.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached.len() as u64 * SECTOR
    }
}

/// A position as an index. Files of the simulator are held in memory whole.
fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("a position within a file in memory")
}
