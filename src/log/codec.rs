//! Little-endian fields of fixed width: the few helpers that every format of the log is written and read
//! with.
//!
//! Invariants: reading never panics, whatever the bytes; writing panics where there is no room, which is a
//! fault of the caller, who sized the buffer.
//!
//! Pure. It deliberately knows no field, no checksum and no version.

use crate::env::BLOCK_BYTES;

/// Rounds up to whole blocks.
#[must_use]
pub const fn block_padded(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// Writes four bytes at `at`.
pub fn put_u32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes eight bytes at `at`.
pub fn put_u64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Bytes that are read from front to back.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    /// Reads from the first byte on.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether every byte was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes were not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes; `None` where there are fewer.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next four bytes, as a number.
    pub fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The next eight bytes, as a number.
    pub fn u64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_the_end_is_seen() {
        let mut bytes = [0; 12];
        put_u32(&mut bytes, 0, 0xA1B2_C3D4);
        put_u64(&mut bytes, 4, u64::MAX - 1);
        let mut source = Source::new(&bytes);
        assert_eq!((source.u32(), source.u64()), (Some(0xA1B2_C3D4), Some(u64::MAX - 1)));
        assert!(source.is_empty() && source.u32().is_none() && source.take(1).is_none());
    }
}
