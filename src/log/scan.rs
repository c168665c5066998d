//! Reading a segment from front to back through one window, and looking for evidence in what follows a bad
//! place.
//!
//! What the disk does not give back as a whole is read block by block, so that of a bad sector its own block
//! alone is missing, and with it the batch that the block is of. A block that was tried in vain is not tried
//! again by the same scan: that may take the disk seconds.
//!
//! Invariants: memory is bounded by a window or the longest batch of the format, and a note for each bad
//! block of a segment; nothing is believed before its checksum; a scan writes nothing; a block that cannot be
//! read is told apart from one that holds no batch.
//!
//! It deliberately decides nothing: whether a bad place is torn or damaged is said by `walk`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::env::{BLOCK_BYTES, Env, File, OpenMode};

use super::batch::{BATCH_BYTES_LIMIT, Batch, BatchSequence, NotABatch, Place, peek_bytes};
use super::error::{Damage, DamageKind, Doing, LogFailure};
use super::manifest::SegmentMeta;
use super::medium::{BadBlock, MediumError, read_twice};
use super::segment::is_segment_header;

/// How much is read at once.
const WINDOW_BYTES: usize = 1 << 20;

const BLOCK: u64 = BLOCK_BYTES as u64;

const _: () = assert!(WINDOW_BYTES.is_multiple_of(BLOCK_BYTES) && WINDOW_BYTES <= BATCH_BYTES_LIMIT);

/// A batch and its bytes.
pub type Found<'a> = (Batch<'a>, &'a [u8]);

/// A segment's file, where there is one, and what is wrong with it at first sight.
pub type Opened<E> = (Option<SegmentScan<E>>, Option<Damage>);

/// Why no batch was read at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBatch {
    /// What is there is none.
    Not(NotABatch),
    /// A block cannot be read that is or may be of one.
    Bad(BadBlock),
}

/// What lies behind a place where a batch is expected.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// The first batch that knew the expected one durable.
    pub covered_by: Option<BatchSequence>,
    /// The first block before that which cannot be read: it may have been of such a batch.
    pub bad: Option<BadBlock>,
}

/// A segment that is being read.
pub struct SegmentScan<E: Env> {
    file: E::File,
    path: PathBuf,
    place: Place,
    bytes: u64,
    window: Vec<u8>,
    window_at: u64,
    /// The blocks that cannot be read, as far as is known; in the window they are zeros.
    bad: BTreeMap<u64, MediumError>,
}

impl<E: Env> SegmentScan<E> {
    /// Opens a segment, `None` where there is no such file or the disk does not give it, and looks at its
    /// length and header: damage there says nothing of the batches that can be read.
    pub async fn open(
        env: &E,
        path: &Path,
        place: Place,
        meta: &SegmentMeta,
    ) -> Result<Opened<E>, LogFailure> {
        let damage = |kind| Some(Damage { file: path.to_path_buf(), offset: 0, kind });
        let failed = |source| LogFailure::new(Doing::Read, path, source);
        let file = match read_twice(async || env.open(path, OpenMode::Read).await).await {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => return Ok((None, damage(DamageKind::BadFile(error)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((None, damage(DamageKind::SegmentMissing)));
            }
            Err(error) => return Err(failed(error)),
        };
        let found = match read_twice(async || file.len().await).await.map_err(failed)? {
            Ok(found) => found,
            Err(error) => return Ok((None, damage(DamageKind::BadFile(error)))),
        };
        let bytes = meta.bytes.min(found / BLOCK * BLOCK);
        let (path, window) = (path.to_path_buf(), Vec::new());
        let mut scan = Self { file, path, place, bytes, window, window_at: 0, bad: BTreeMap::new() };
        if found < meta.bytes {
            let kind = DamageKind::SegmentLength { expected: meta.bytes, found };
            return Ok((Some(scan), damage(kind)));
        }
        let found = match scan.slice(0, BLOCK_BYTES).await? {
            Ok(header) if is_segment_header(header, &place, meta.bytes) => None,
            Ok(_) => damage(DamageKind::SegmentHeader),
            Err(bad) => damage(DamageKind::BadBlock(bad.error)),
        };
        Ok((Some(scan), found))
    }

    /// The segment's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the file go.
    pub async fn close(self) -> Result<(), LogFailure> {
        let path = self.path;
        self.file.close().await.map_err(|source| LogFailure::new(Doing::Read, &path, source))
    }

    /// Makes what was read durable.
    pub async fn sync(&self) -> Result<(), LogFailure> {
        self.file.sync().await.map_err(|source| LogFailure::new(Doing::Sync, &self.path, source))
    }

    /// The batch at a block, if there is one, and its bytes, padding included.
    pub async fn batch_at(&mut self, offset: u64) -> Result<Result<Found<'_>, NoBatch>, LogFailure> {
        if offset + BLOCK > self.bytes {
            return Ok(Err(NoBatch::Not(NotABatch::Magic)));
        }
        let place = self.place;
        let len = match self.slice(offset, BLOCK_BYTES).await? {
            Ok(first) => peek_bytes(first, &place),
            Err(bad) => return Ok(Err(NoBatch::Bad(bad))),
        };
        let len = match len {
            Ok(len) if offset + len as u64 > self.bytes => {
                return Ok(Err(NoBatch::Not(NotABatch::Length)));
            }
            Ok(len) => len,
            Err(error) => return Ok(Err(NoBatch::Not(error))),
        };
        Ok(match self.slice(offset, len).await? {
            Ok(whole) => Batch::decode(whole, &place).map(|batch| (batch, whole)).map_err(NoBatch::Not),
            Err(bad) => Err(NoBatch::Bad(bad)),
        })
    }

    /// From here on the segment that the batch at this block says it is of is taken for this one: a planted
    /// bug.
    #[cfg(debug_assertions)]
    pub async fn claim(&mut self, offset: u64) -> Result<(), LogFailure> {
        let place = self.place;
        if offset + BLOCK <= self.bytes
            && let Ok(block) = self.slice(offset, BLOCK_BYTES).await?
        {
            self.place = place.as_claimed(block);
        }
        Ok(())
    }

    /// Whether nothing was ever written to a block: it holds the zeros that it was made with. Past the end
    /// nothing was.
    pub async fn is_blank(&mut self, offset: u64) -> Result<bool, LogFailure> {
        if offset + BLOCK > self.bytes {
            return Ok(true);
        }
        let block = self.slice(offset, BLOCK_BYTES).await?;
        Ok(block.is_ok_and(|block| block.iter().all(|byte| *byte == 0)))
    }

    /// What there is from a block on that says whether `sequence` was durable once.
    pub async fn evidence(&mut self, from: u64, sequence: BatchSequence) -> Result<Evidence, LogFailure> {
        let mut evidence = Evidence::default();
        for offset in (from..self.bytes).step_by(BLOCK_BYTES) {
            match self.batch_at(offset).await? {
                Ok((batch, _)) if batch.header.durable_through >= sequence => {
                    evidence.covered_by = Some(batch.header.sequence);
                    break;
                }
                Err(NoBatch::Bad(bad)) => {
                    evidence.bad.get_or_insert(bad);
                }
                Ok(_) | Err(NoBatch::Not(_)) => {}
            }
        }
        Ok(evidence)
    }

    /// The first batch from a block on that comes after `sequence`, and where it is.
    pub async fn later(&mut self, from: u64, sequence: BatchSequence) -> Result<Option<u64>, LogFailure> {
        for offset in (from..self.bytes).step_by(BLOCK_BYTES) {
            if let Ok((batch, _)) = self.batch_at(offset).await?
                && batch.header.sequence > sequence
            {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// Whole blocks, or the first of them that cannot be read.
    async fn slice(&mut self, at: u64, len: usize) -> Result<Result<&[u8], BadBlock>, LogFailure> {
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + len as u64 > window_end {
            let rest = usize::try_from(self.bytes - at).unwrap_or(usize::MAX);
            self.window = self.read(at, len.max(WINDOW_BYTES).min(rest)).await?;
            self.window_at = at;
        }
        if let Some((&offset, &error)) = self.bad.range(at..at + len as u64).next() {
            return Ok(Err(BadBlock { offset, error }));
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        // A file that ends early, though its length was right, reads as if nothing were there.
        Ok(Ok(self.window.get(start..start.saturating_add(len)).unwrap_or_default()))
    }

    /// Reads a part at once, or block by block where that fails: bad blocks are noted.
    async fn read(&mut self, at: u64, len: usize) -> Result<Vec<u8>, LogFailure> {
        let end = at + len as u64;
        if self.bad.range(at..end).next().is_none()
            && let Ok(bytes) = self.read_at(at, len).await?
        {
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(len);
        for offset in (at..end).step_by(BLOCK_BYTES) {
            let block = match self.bad.get(&offset) {
                Some(error) => Err(*error),
                None => self.read_at(offset, BLOCK_BYTES).await?,
            };
            match block {
                Ok(block) if block.len() < BLOCK_BYTES => break,
                Ok(block) => bytes.extend_from_slice(&block),
                Err(error) => {
                    self.bad.insert(offset, error);
                    bytes.resize(bytes.len() + BLOCK_BYTES, 0);
                }
            }
        }
        Ok(bytes)
    }

    async fn read_at(&self, at: u64, len: usize) -> Result<Result<Vec<u8>, MediumError>, LogFailure> {
        let read = read_twice(async || self.file.read_at(at, len).await).await;
        read.map_err(|source| LogFailure::at(Doing::Read, &self.path, at, source))
    }
}
