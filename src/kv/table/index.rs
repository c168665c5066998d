//! A table as it is kept open: its footer, its index and its filter, in memory. Its blocks are elsewhere.
//!
//! Invariants:
//! - The blocks of the index lie one behind the other from the header to the sessions, and their keys are
//!   strictly ascending.
//! - A key that the table has is never said to be absent, and is in the block that [`TableIndex::locate`]
//!   names.

use bytes::Bytes;

use super::block::BlockHandle;
use super::error::{Part, TableError, TableErrorKind};
use super::filter;
use super::footer::{Footer, TableMeta};
use super::layout::{BLOCK_BYTES_MAX, PAGE, same, u32_at, u64_at};

/// The bytes of an index entry before its key.
pub(super) const INDEX_ENTRY_HEADER_BYTES: usize = 16;

/// An open table.
#[derive(Debug)]
pub struct TableIndex {
    footer: Footer,
    /// As it is in the file.
    index: Bytes,
    /// Where the entry of each block begins in it.
    starts: Vec<usize>,
    filter: Bytes,
}

/// Where a key of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is not in the table.
    Absent,
    /// It is in this block, if it is in the table.
    Block(BlockHandle),
}

impl TableIndex {
    /// Opens a table of its footer and of the pages of the index and the filter that the footer names.
    pub fn open(footer: Footer, index: &Bytes, filter: &Bytes) -> Result<Self, TableError> {
        let salt = footer.header.salt;
        let index = footer.index.verify(salt, Part::Index, index)?;
        let filter = footer.filter.verify(salt, Part::Filter, filter)?;
        let starts = starts_of(&footer, &index)?;
        Ok(Self { footer, index, starts, filter })
    }

    /// The last page of the file.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The state that the table holds, in numbers.
    #[must_use]
    pub fn meta(&self) -> &TableMeta {
        &self.footer.meta
    }

    /// What tells this table from any other.
    #[must_use]
    pub fn salt(&self) -> u64 {
        self.footer.header.salt
    }

    /// Checks what was read of the sessions, all of their pages. Their own bytes, for
    /// [`State::from_table`](crate::kv::State::from_table).
    pub(in crate::kv) fn verify_sessions(&self, padded: &Bytes) -> Result<Bytes, TableError> {
        self.footer.sessions.verify(self.salt(), Part::Sessions, padded)
    }

    /// Where a key is, if anywhere.
    #[must_use]
    pub fn locate(&self, key: &[u8]) -> Place {
        if !self.may_contain(key) {
            return Place::Absent;
        }
        self.block_for(key).map_or(Place::Absent, |at| Place::Block(self.handle(at)))
    }

    /// Whether a key may be in the table, by the filter alone.
    #[must_use]
    pub fn may_contain(&self, key: &[u8]) -> bool {
        filter::may_contain(&self.filter, self.salt(), key)
    }

    /// The number of blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.starts.len()
    }

    /// Where a block is, of those counted from 0.
    #[must_use]
    pub fn handle(&self, block: usize) -> BlockHandle {
        let start = self.starts[block];
        let (offset, length) = (u64_at(&self.index, start), u32_at(&self.index, start + 8));
        BlockHandle { table: self.salt(), offset, length }
    }

    /// The number of the block that a byte of the file is in; the first or last one where it is before or
    /// behind all of them. `None`: there are no blocks.
    #[must_use]
    pub fn block_at(&self, offset: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.blocks());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.handle(middle).offset <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (self.blocks() > 0).then(|| low.saturating_sub(1))
    }

    /// The number of the block that a key would be in; `None`: there are no blocks.
    #[must_use]
    pub fn block_for(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.blocks());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.first_key(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }

    /// No key of the block before is as high, and none of this one is lower.
    pub(in crate::kv) fn first_key(&self, block: usize) -> &[u8] {
        key_at(&self.index, self.starts[block])
    }

    /// About how much memory it holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.index.len() + self.filter.len() + size_of_val(&self.starts[..])
    }
}

/// The key of the index entry at `start`, which is known to be whole.
fn key_at(index: &[u8], start: usize) -> &[u8] {
    &index[start + INDEX_ENTRY_HEADER_BYTES..][..u32_at(index, start + 12) as usize]
}

/// Where the entries of an index begin, each of which is whole, in order, and of a block that lies behind the
/// one before.
fn starts_of(footer: &Footer, index: &[u8]) -> Result<Vec<usize>, TableError> {
    let wrong = |kind| Part::Index.wrong(footer.index.offset, kind);
    let count = usize::try_from(footer.blocks).ok();
    let count = count.filter(|count| *count <= index.len() / INDEX_ENTRY_HEADER_BYTES);
    let count = count.expect("the footer's count was compared with the length of the index");
    let mut starts: Vec<usize> = Vec::with_capacity(count);
    let (mut at, mut offset) = (0_usize, PAGE);
    for number in 0..footer.blocks {
        let left = index.len() - at;
        let has_header = left >= INDEX_ENTRY_HEADER_BYTES;
        let key_length = if has_header { u32_at(index, at + 12) as usize } else { 0 };
        let wanted = INDEX_ENTRY_HEADER_BYTES.saturating_add(key_length);
        if wanted > left {
            return Err(wrong(TableErrorKind::Length { wanted: wanted as u64, found: left as u64 }));
        }
        same(Part::Index, footer.index.offset, "where a block is", offset, u64_at(index, at))?;
        offset = offset.saturating_add(block_length(u32_at(index, at + 8)).map_err(wrong)?);
        let is_in_order = match starts.last() {
            None => key_length == 0,
            Some(last) => key_at(index, *last) < key_at(index, at),
        };
        if !is_in_order {
            return Err(wrong(TableErrorKind::Order { at: number }));
        }
        starts.push(at);
        at += wanted;
    }
    same(Part::Index, footer.index.offset, "where the blocks end", footer.sessions.offset, offset)?;
    same(Part::Index, footer.index.offset, "its length", footer.index.length, at as u64)?;
    Ok(starts)
}

/// The length of a block, where it can be one.
fn block_length(length: u32) -> Result<u64, TableErrorKind> {
    let length = u64::from(length);
    if length == 0 || length > BLOCK_BYTES_MAX {
        return Err(TableErrorKind::Bound {
            what: "the length of a block",
            value: length,
            bound: BLOCK_BYTES_MAX,
        });
    }
    match length % PAGE {
        0 => Ok(length),
        found => Err(TableErrorKind::Mismatch { what: "a block's bytes in its last page", wanted: 0, found }),
    }
}
