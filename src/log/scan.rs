//! Reading a segment from front to back through one window, and looking for evidence in what follows a bad
//! place.
//!
//! Invariants: memory is bounded by a window or the longest batch of the format; nothing is believed before
//! its checksum; a scan writes nothing.
//!
//! It deliberately decides nothing: whether a bad place is torn or damaged is said by `recovery`.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::{BLOCK_BYTES, Env, File, OpenMode};

use super::batch::{BATCH_BYTES_LIMIT, Batch, BatchSequence, NotABatch, Place, peek_bytes};
use super::error::{Damage, DamageKind, Doing, LogFailure};
use super::manifest::SegmentMeta;
use super::segment::is_segment_header;

/// How much is read at once.
const WINDOW_BYTES: usize = 1 << 20;

const _: () = assert!(WINDOW_BYTES.is_multiple_of(BLOCK_BYTES) && WINDOW_BYTES <= BATCH_BYTES_LIMIT);

/// A batch and its bytes.
pub type Found<'a> = (Batch<'a>, &'a [u8]);

/// A segment's file, where there is one, and what is wrong with it at first sight.
pub type Opened<E> = (Option<SegmentScan<E>>, Option<Damage>);

/// A segment that is being read.
pub struct SegmentScan<E: Env> {
    file: E::File,
    path: PathBuf,
    place: Place,
    bytes: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<E: Env> SegmentScan<E> {
    /// Opens a segment, `None` where there is no such file, and looks at its length and header: damage there
    /// says nothing of the batches that can be read.
    pub async fn open(
        env: &E,
        path: &Path,
        place: Place,
        meta: &SegmentMeta,
    ) -> Result<Opened<E>, LogFailure> {
        let damage = |kind| Some(Damage { file: path.to_path_buf(), offset: 0, kind });
        let file = match env.open(path, OpenMode::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((None, damage(DamageKind::SegmentMissing)));
            }
            Err(error) => return Err(LogFailure::new(Doing::Read, path, error)),
        };
        let found = file.len().await.map_err(|source| LogFailure::new(Doing::Read, path, source))?;
        let bytes = meta.bytes.min(found / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
        let path = path.to_path_buf();
        let mut scan = Self { file, path: path.clone(), place, bytes, window: Vec::new(), window_at: 0 };
        if found < meta.bytes {
            let kind = DamageKind::SegmentLength { expected: meta.bytes, found };
            return Ok((Some(scan), Some(Damage { file: path, offset: 0, kind })));
        }
        let header = scan.slice(0, BLOCK_BYTES).await?;
        let is_right = is_segment_header(header, &place, meta.bytes);
        let found = (!is_right).then_some(Damage { file: path, offset: 0, kind: DamageKind::SegmentHeader });
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
    pub async fn batch_at(&mut self, offset: u64) -> Result<Result<Found<'_>, NotABatch>, LogFailure> {
        if offset + BLOCK_BYTES as u64 > self.bytes {
            return Ok(Err(NotABatch::Magic));
        }
        let place = self.place;
        let first = self.slice(offset, BLOCK_BYTES).await?;
        let len = match peek_bytes(first, &place) {
            Ok(len) if offset + len as u64 > self.bytes => return Ok(Err(NotABatch::Length)),
            Ok(len) => len,
            Err(error) => return Ok(Err(error)),
        };
        let whole = self.slice(offset, len).await?;
        Ok(Batch::decode(whole, &place).map(|batch| (batch, whole)))
    }

    /// The first batch from a block on that knew `sequence` durable, and where it is.
    pub async fn covering(
        &mut self,
        from: u64,
        sequence: BatchSequence,
    ) -> Result<Option<(u64, BatchSequence)>, LogFailure> {
        let mut offset = from;
        while offset < self.bytes {
            if let Ok((batch, _)) = self.batch_at(offset).await?
                && batch.header.durable_through >= sequence
            {
                return Ok(Some((offset, batch.header.sequence)));
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(None)
    }

    /// The first batch from a block on that comes after `sequence`, and where it is.
    pub async fn later(&mut self, from: u64, sequence: BatchSequence) -> Result<Option<u64>, LogFailure> {
        let mut offset = from;
        while offset < self.bytes {
            if let Ok((batch, _)) = self.batch_at(offset).await?
                && batch.header.sequence > sequence
            {
                return Ok(Some(offset));
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(None)
    }

    async fn slice(&mut self, at: u64, len: usize) -> Result<&[u8], LogFailure> {
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + len as u64 > window_end {
            let rest = usize::try_from(self.bytes - at).unwrap_or(usize::MAX);
            let wanted = len.max(WINDOW_BYTES).min(rest);
            let read = self.file.read_at(at, wanted).await;
            self.window = read.map_err(|source| LogFailure::at(Doing::Read, &self.path, at, source))?;
            self.window_at = at;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        // A file that ends early, though its length was right, reads as if nothing were there.
        Ok(self.window.get(start..start.saturating_add(len)).unwrap_or_default())
    }
}
