//! A block of a table: some entries in order, read and checked together.
//!
//! A block is checked once, when it is brought in; whoever keeps it reads it from then on without a check.
//!
//! A key is found by its tag, a byte of its hash: of a block that is in no CPU cache, a search among the keys
//! themselves touches a line or two of memory for each of its steps, the tags of 64 entries are one line.
//!
//! Invariants:
//! - A [`Block`] that was decoded has at least one entry, its keys are strictly ascending, every length in it
//!   lies within it, and each entry has the tag of its key.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::error::{Part, TableError, TableErrorKind};
use super::layout::{
    BLOCK_HEADER_BYTES, ENTRY_BYTES_MAX, ENTRY_HEADER_BYTES, PAGE_BYTES, checksum, key_hash, u32_at, u64_at,
    verify_own, whole,
};
use crate::ids::Revision;
use crate::kv::codec::wire::Sink;
use crate::kv::digest;

/// The fewest bytes of a block: a page.
pub(super) const BLOCK_BYTES_MIN: u64 = PAGE_BYTES as u64;

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHandle {
    /// The table's salt: which of the shard's tables, since two are in use while one replaces the other.
    pub table: u64,
    /// Where the block begins in the file, on a page.
    pub offset: u64,
    /// The bytes of its pages.
    pub length: u32,
}

/// A block that was checked. A copy is another reference to it.
#[derive(Clone, Debug)]
pub struct Block(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: BlockHandle,
    bytes: Bytes,
    /// Where each entry begins.
    starts: Box<[u32]>,
    /// The tag of each entry's key.
    tags: Box<[u8]>,
}

/// An entry where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The revision that created it.
    pub create_revision: Revision,
    /// The revision that changed it last.
    pub mod_revision: Revision,
    /// 1 at creation, one more with every change.
    pub version: u64,
    /// Its part of the state's digest.
    pub digest: u64,
}

impl EntryRef<'_> {
    /// The bytes that it takes in a block.
    pub(super) fn encoded_len(&self) -> usize {
        ENTRY_HEADER_BYTES + self.key.len() + self.value.len()
    }

    /// Writes it to the end of a block.
    pub(super) fn put(&self, block: &mut Vec<u8>) {
        let length = self.encoded_len();
        assert!(length <= ENTRY_BYTES_MAX, "an entry of {length} bytes has no room in a table");
        block.reserve(length);
        block.count(self.key.len());
        block.count(self.value.len());
        block.u64(self.create_revision.0);
        block.u64(self.mod_revision.0);
        block.u64(self.version);
        block.u64(self.digest);
        block.put(self.key);
        block.put(self.value);
    }

    /// Whether its digest is that of its key and value: what a reader checks who trusts no writer.
    #[must_use]
    pub fn has_its_digest(&self) -> bool {
        let value_hash = digest::of_value(self.value);
        let computed =
            digest::of_entry(self.key, value_hash, self.create_revision, self.mod_revision, self.version);
        computed == self.digest
    }
}

impl Block {
    /// Checks a block and takes it apart.
    pub fn decode(handle: BlockHandle, bytes: Bytes) -> Result<Self, TableError> {
        let wrong = |kind| Part::Block.wrong(handle.offset, kind);
        whole(Part::Block, handle.offset, u64::from(handle.length), &bytes)?;
        if bytes.len() < BLOCK_HEADER_BYTES {
            let (wanted, found) = (BLOCK_BYTES_MIN, bytes.len() as u64);
            return Err(wrong(TableErrorKind::Length { wanted, found }));
        }
        verify_own(handle.table, Part::Block, handle.offset, &bytes)?;
        let (entries, used) = (u32_at(&bytes, 8), u32_at(&bytes, 12));
        let bound = |what, value: u32, bound: usize| {
            let bound = bound as u64;
            let is_within = (1..=bound).contains(&u64::from(value));
            if is_within { Ok(()) } else { Err(TableErrorKind::Bound { what, value: value.into(), bound }) }
        };
        bound("the number of used bytes", used, bytes.len()).map_err(wrong)?;
        bound("the number of entries", entries, used as usize / ENTRY_HEADER_BYTES).map_err(wrong)?;
        let (starts, tags) = taken_apart(handle.table, &bytes[..used as usize], entries).map_err(wrong)?;
        assert_eq!(starts.len(), tags.len(), "each entry of the block at {} has a tag", handle.offset);
        Ok(Self(Rc::new(Inner { handle, bytes, starts: starts.into(), tags: tags.into() })))
    }

    /// Where it is.
    #[must_use]
    pub fn handle(&self) -> BlockHandle {
        self.0.handle
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.starts.len()
    }

    /// Never: a block has an entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.starts.is_empty()
    }

    /// About how much memory it holds, for the limit of a cache.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let beside = size_of_val(&*self.0.starts) + size_of_val(&*self.0.tags);
        size_of::<Inner>() + self.0.bytes.len() + beside
    }

    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let tag = tag_of(self.0.handle.table, key);
        let tagged = self.0.tags.iter().enumerate().filter(|(_, found)| **found == tag);
        tagged.map(|(at, _)| self.entry(at)).find(|entry| entry.key == key)
    }

    /// Its entries in order, either way.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = EntryRef<'_>> {
        self.range(0..self.len())
    }

    /// Its entries from a key on, inclusive.
    pub fn iter_from<'a>(&'a self, key: &[u8]) -> impl DoubleEndedIterator<Item = EntryRef<'a>> + use<'a> {
        self.range(self.lower_bound(key)..self.len())
    }

    /// Its entries below a key, which a scan that goes backward takes from the end.
    pub fn iter_below<'a>(&'a self, key: &[u8]) -> impl DoubleEndedIterator<Item = EntryRef<'a>> + use<'a> {
        self.range(0..self.lower_bound(key))
    }

    /// The entry at a place, counted from 0.
    #[must_use]
    pub fn entry(&self, at: usize) -> EntryRef<'_> {
        let start = self.0.starts[at] as usize;
        let bytes = &self.0.bytes[..];
        let key_at = start + ENTRY_HEADER_BYTES;
        let value_at = key_at + u32_at(bytes, start) as usize;
        let end = value_at + u32_at(bytes, start + 4) as usize;
        EntryRef {
            key: &bytes[key_at..value_at],
            value: &bytes[value_at..end],
            create_revision: Revision(u64_at(bytes, start + 8)),
            mod_revision: Revision(u64_at(bytes, start + 16)),
            version: u64_at(bytes, start + 24),
            digest: u64_at(bytes, start + 32),
        }
    }

    /// The place of the first entry whose key is not below this one.
    pub(in crate::kv) fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle).key < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// A value of this block that lives on without the entry's borrow: a slice of the block where it is at
    /// least half of it, and otherwise a copy, so that what is kept of a block never pins more than about
    /// twice its own bytes.
    pub(in crate::kv) fn detached(&self, value: &[u8]) -> Bytes {
        let is_most = value.len() >= self.0.bytes.len() / 2;
        if is_most { self.0.bytes.slice_ref(value) } else { Bytes::copy_from_slice(value) }
    }

    fn range(&self, places: Range<usize>) -> impl DoubleEndedIterator<Item = EntryRef<'_>> {
        places.map(|at| self.entry(at))
    }
}

/// The tag of a key in the blocks of a table: another in each, so that nobody chooses keys of one tag.
fn tag_of(table: u64, key: &[u8]) -> u8 {
    (key_hash(table, key) & 0xff) as u8
}

/// Where the entries of a block begin, each of which lies within it and above the one before; and their tags.
fn taken_apart(table: u64, used: &[u8], entries: u32) -> Result<(Vec<u32>, Vec<u8>), TableErrorKind> {
    let mut starts = Vec::with_capacity(entries as usize);
    let mut tags = Vec::with_capacity(entries as usize);
    let mut at = BLOCK_HEADER_BYTES;
    let mut last: Option<&[u8]> = None;
    for number in 0..u64::from(entries) {
        let left = used.len().saturating_sub(at);
        if left < ENTRY_HEADER_BYTES {
            let (wanted, found) = (ENTRY_HEADER_BYTES as u64, left as u64);
            return Err(TableErrorKind::Length { wanted, found });
        }
        let (key_length, value_length) = (u32_at(used, at), u32_at(used, at + 4));
        let wanted = ENTRY_HEADER_BYTES as u64 + u64::from(key_length) + u64::from(value_length);
        if wanted > left as u64 {
            return Err(TableErrorKind::Length { wanted, found: left as u64 });
        }
        let key = &used[at + ENTRY_HEADER_BYTES..][..key_length as usize];
        if last.is_some_and(|last| last >= key) {
            return Err(TableErrorKind::Order { at: number });
        }
        let (create, modified, version) =
            (u64_at(used, at + 8), u64_at(used, at + 16), u64_at(used, at + 24));
        if create > modified {
            return Err(TableErrorKind::Bound { what: "a create revision", value: create, bound: modified });
        }
        if version == 0 {
            return Err(TableErrorKind::Mismatch { what: "a version", wanted: 1, found: 0 });
        }
        starts.push(u32::try_from(at).expect("it lies below a length that is a u32"));
        tags.push(tag_of(table, key));
        last = Some(key);
        at += ENTRY_HEADER_BYTES + key_length as usize + value_length as usize;
    }
    match used.len() - at {
        0 => Ok((starts, tags)),
        trailing => Err(TableErrorKind::Bound {
            what: "the bytes that no entry has",
            value: trailing as u64,
            bound: 0,
        }),
    }
}

/// Ends a block of this many entries that will be at `offset`: fills its last page, writes its header.
pub(super) fn seal(block: &mut Vec<u8>, entries: u32, salt: u64, offset: u64) {
    assert!(entries > 0, "a block at {offset} has no entries");
    let used = u32::try_from(block.len()).expect("an entry, and so a block, is bounded far below");
    block.resize(block.len().next_multiple_of(PAGE_BYTES), 0);
    block[8..12].copy_from_slice(&entries.to_le_bytes());
    block[12..16].copy_from_slice(&used.to_le_bytes());
    let own = checksum(salt, Part::Block, offset, &block[8..]);
    block[..8].copy_from_slice(&own.to_le_bytes());
}
