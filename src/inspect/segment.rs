//! Reads a segment batch by batch, through a window.
//!
//! Where the window cannot be read, what is in it is read piece by piece: of a bad sector only the batch that
//! it is of is missing.

use std::io;

use crate::env::BLOCK_BYTES;
use crate::log::batch::{Batch, NotABatch, Place, peek_bytes};

use super::files::Files;

/// How much of a segment is read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// A batch and its bytes.
pub(super) type Found<'a> = (Batch<'a>, &'a [u8]);

/// A segment that is being read.
pub(super) struct SegmentReader<'a, F: Files> {
    files: &'a F,
    file: &'a str,
    place: Place,
    bytes: u64,
    window: Vec<u8>,
    window_at: u64,
    /// Up to here, something cannot be read.
    narrow_to: u64,
}

impl<'a, F: Files> SegmentReader<'a, F> {
    /// Reads this many bytes of a segment whose batches belong to `place`.
    pub(super) fn new(files: &'a F, file: &'a str, place: Place, bytes: u64) -> Self {
        Self { files, file, place, bytes, window: Vec::new(), window_at: 0, narrow_to: 0 }
    }

    /// The block at an offset; shorter only where the file ends.
    pub(super) fn block(&mut self, offset: u64) -> io::Result<&[u8]> {
        self.slice(offset, BLOCK_BYTES)
    }

    /// Whether nothing was ever written to the block at an offset, or there is none.
    pub(super) fn is_blank(&mut self, offset: u64) -> bool {
        let is_past = offset + BLOCK_BYTES as u64 > self.bytes;
        is_past || self.block(offset).is_ok_and(|block| block.iter().all(|byte| *byte == 0))
    }

    /// The batch at a block, if there is one, and its bytes, padding included.
    pub(super) fn batch_at(&mut self, offset: u64) -> io::Result<Result<Found<'_>, NotABatch>> {
        let place = self.place;
        let room = self.bytes.saturating_sub(offset);
        if room < BLOCK_BYTES as u64 {
            return Ok(Err(NotABatch::Magic));
        }
        let len = match peek_bytes(self.slice(offset, BLOCK_BYTES)?, &place) {
            Ok(len) if len as u64 > room => return Ok(Err(NotABatch::Length)),
            Ok(len) => len,
            Err(error) => return Ok(Err(error)),
        };
        let whole = self.slice(offset, len)?;
        Ok(Batch::decode(whole, &place).map(|batch| (batch, whole)))
    }

    fn slice(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + len as u64 > window_end {
            self.window = self.read(at, len)?;
            self.window_at = at;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let end = start.saturating_add(len).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }
    /// Reads what is asked for, and more where all of that can be read.
    fn read(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let wide = len.max(WINDOW_BYTES).min(rest);
        if at >= self.narrow_to && wide > len {
            match self.files.read(self.file, at, wide) {
                Ok(bytes) => return Ok(bytes),
                Err(_) => self.narrow_to = at + wide as u64,
            }
        }
        self.files.read(self.file, at, len)
    }
}
