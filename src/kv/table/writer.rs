//! Makes a table: sorted entries in, pages out.
//!
//! ```text
//!  push … push ─► push_session … push_session ─► finish ─► take_output … None ─► footer
//!    │ blocks         │ their section               │ filter, index, footer: made as they are taken
//!    └────────────────┴──── take_output ────────────┘
//! ```
//!
//! What is finished is taken in chunks that follow each other in the file; whoever drives the writer takes
//! them between the calls, so that a table of any size passes through little memory. The filter and the index
//! are the exception: they are whole in memory until they are taken, and in the open table anyway.
//!
//! Invariants:
//! - A chunk is a whole number of pages and begins where the one before ended; the first begins at 0.
//! - No call does work for more than one entry, one session or one chunk.
//! - The bytes depend on the entries, the sessions, the numbers and the salt alone.

use super::block::{BlockHandle, EntryRef, seal};
use super::error::Part;
use super::filter::FilterBuilder;
use super::footer::{Footer, Header, Section, TableMeta};
use super::layout::{BLOCK_HEADER_BYTES, BLOCK_TARGET_BYTES, Checksum, PAGE, PAGE_BYTES, padded};
use crate::ids::ShardId;
use crate::kv::codec::wire::Sink;
use crate::kv::sums::{Summand, Sums};

/// The bytes of a chunk: what is written at once. One block may overshoot it.
pub const CHUNK_BYTES: usize = 256 << 10;
const _: () = assert!(CHUNK_BYTES.is_multiple_of(PAGE_BYTES));

/// What a table is made for.
#[derive(Clone, Copy, Debug)]
pub struct TableId {
    /// The shard.
    pub shard: ShardId,
    /// The salt: random, and never used for another table.
    pub salt: u64,
}

/// Pages that are finished. They lie in the writer, which goes on using the same memory: whoever writes them
/// copies them to where his device wants them.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Where they belong in the file.
    pub offset: u64,
    /// A whole number of pages.
    pub bytes: &'a [u8],
    /// The blocks that lie in them, each whole.
    pub blocks: &'a [BlockHandle],
}

impl Chunk<'_> {
    /// The pages of a block that lies in it.
    #[must_use]
    pub fn block_bytes(&self, block: &BlockHandle) -> &[u8] {
        let at = block.offset.checked_sub(self.offset).and_then(|at| usize::try_from(at).ok());
        let bytes = at.and_then(|at| self.bytes.get(at..)?.get(..block.length as usize));
        bytes.unwrap_or_else(|| panic!("{block:?} does not lie in a chunk at {}", self.offset))
    }
}

/// Makes a table.
pub struct TableWriter {
    id: TableId,
    /// Finished. The first `taken` bytes were taken.
    out: Vec<u8>,
    taken: usize,
    /// Where `out` begins in the file.
    out_offset: u64,
    /// The blocks in `out`. The first `sealed_taken` were taken.
    sealed: Vec<BlockHandle>,
    sealed_taken: usize,
    block: Vec<u8>,
    block_entries: u32,
    /// What the index will say of the block that is being filled.
    separator: Vec<u8>,
    last_key: Vec<u8>,
    index: Vec<u8>,
    filter: FilterBuilder,
    blocks: u64,
    sums: Sums,
    phase: Phase,
}

/// How far a table has come.
enum Phase {
    /// Its entries are coming in.
    Entries,
    /// Its sessions are.
    Sessions(Box<Growing>),
    /// All has come in; the parts that are made of it are being taken.
    Tail(Box<Tail>),
    /// The last page was made.
    Complete(Box<Footer>),
}

/// A section that is being written.
struct Growing {
    offset: u64,
    length: u64,
    checksum: Checksum,
}

/// What follows the sessions.
struct Tail {
    meta: TableMeta,
    sessions: Section,
    filter: Option<Section>,
    growing: Growing,
}

impl TableWriter {
    /// A table that will have about this many keys; the filter is made for them.
    #[must_use]
    pub fn new(id: TableId, keys: u64) -> Self {
        Self {
            id,
            out: Header { shard: id.shard, salt: id.salt }.encode(),
            taken: 0,
            out_offset: 0,
            sealed: Vec::new(),
            sealed_taken: 0,
            block: Vec::new(),
            block_entries: 0,
            separator: Vec::new(),
            last_key: Vec::new(),
            index: Vec::new(),
            filter: FilterBuilder::new(id.salt, keys),
            blocks: 0,
            sums: Sums::default(),
            phase: Phase::Entries,
        }
    }

    /// Adds an entry, above all before it.
    pub fn push(&mut self, entry: &EntryRef<'_>) {
        assert!(matches!(self.phase, Phase::Entries), "an entry comes after the sessions");
        let is_first = self.sums.keys == 0;
        assert!(
            is_first || entry.key > &self.last_key[..],
            "key {:?} comes after {:?}",
            entry.key,
            self.last_key
        );
        if self.block_entries > 0 && self.block.len() + entry.encoded_len() > BLOCK_TARGET_BYTES {
            self.seal_block();
        }
        if self.block_entries == 0 {
            self.separator.clear();
            if !is_first {
                self.separator.extend_from_slice(separator(&self.last_key, entry.key));
            }
            self.block.resize(BLOCK_HEADER_BYTES, 0);
        }
        entry.put(&mut self.block);
        self.block_entries += 1;
        self.filter.insert(entry.key);
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
        self.sums.add(entry.key, Summand { value_bytes: entry.value.len() as u64, digest: entry.digest });
    }

    /// What the entries so far come to.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// Adds a piece of the section of the sessions.
    pub(in crate::kv) fn push_session(&mut self, piece: &[u8]) {
        self.end_entries();
        let Phase::Sessions(growing) = &mut self.phase else {
            panic!("a session comes after the end");
        };
        growing.put(piece, &mut self.out);
    }

    /// All entries and sessions have come in: what is left is to take the output.
    ///
    /// The numbers have to be those of the entries: whoever drives the writer has compared [`Self::sums`].
    pub fn finish(&mut self, meta: TableMeta) {
        assert!(meta.sums == self.sums, "a table of {:?} is said to have {:?}", self.sums, meta.sums);
        self.end_entries();
        let Phase::Sessions(growing) = std::mem::replace(&mut self.phase, Phase::Entries) else {
            panic!("a table is finished twice");
        };
        let sessions = growing.finish(&mut self.out);
        let growing = Growing::new(self.id.salt, Part::Filter, self.end());
        self.phase = Phase::Tail(Box::new(Tail { meta, sessions, filter: None, growing }));
    }

    /// The next pages. `None`: there are none at the moment, and after [`Self::finish`] none any more.
    pub fn take_output(&mut self) -> Option<Chunk<'_>> {
        self.out.drain(..self.taken);
        self.out_offset += self.taken as u64;
        self.taken = 0;
        self.sealed.drain(..self.sealed_taken);
        self.sealed_taken = 0;
        while self.out.len() < CHUNK_BYTES && self.extend_tail() {}
        let is_whole = matches!(self.phase, Phase::Complete(_));
        if self.out.is_empty() || (self.out.len() < CHUNK_BYTES && !is_whole) {
            return None;
        }
        self.taken = self.out.len() / PAGE_BYTES * PAGE_BYTES;
        self.sealed_taken = self.sealed.len();
        Some(Chunk { offset: self.out_offset, bytes: &self.out[..self.taken], blocks: &self.sealed })
    }

    /// Whether there is enough to be taken that it should be, before more comes in.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.out.len() - self.taken >= CHUNK_BYTES
    }

    /// The last page, when all output was taken.
    #[must_use]
    pub fn footer(&self) -> Option<&Footer> {
        let is_taken = self.taken == self.out.len();
        match &self.phase {
            Phase::Complete(footer) if is_taken => Some(footer),
            Phase::Complete(_) | Phase::Entries | Phase::Sessions(_) | Phase::Tail(_) => None,
        }
    }

    /// Where all that is finished so far ends in the file.
    fn end(&self) -> u64 {
        self.out_offset + self.out.len() as u64
    }

    fn seal_block(&mut self) {
        let offset = self.end();
        assert!(offset.is_multiple_of(PAGE), "a block begins at {offset}");
        seal(&mut self.block, self.block_entries, self.id.salt, offset);
        self.index.u64(offset);
        self.index.count(self.block.len());
        self.index.blob(&self.separator);
        let length = u32::try_from(self.block.len()).expect("an entry, and so a block, is bounded far below");
        self.sealed.push(BlockHandle { table: self.id.salt, offset, length });
        self.out.extend_from_slice(&self.block);
        self.block.clear();
        self.block_entries = 0;
        self.blocks += 1;
    }

    /// The first session, or the end, ends the entries.
    fn end_entries(&mut self) {
        if !matches!(self.phase, Phase::Entries) {
            return;
        }
        if self.block_entries > 0 {
            self.seal_block();
        }
        self.phase = Phase::Sessions(Box::new(Growing::new(self.id.salt, Part::Sessions, self.end())));
    }

    /// Makes a piece of what follows the sessions. Whether there was one to make.
    fn extend_tail(&mut self) -> bool {
        let Phase::Tail(tail) = &mut self.phase else { return false };
        let whole = if tail.filter.is_none() { self.filter.bytes() } else { &self.index[..] };
        let done = usize::try_from(tail.growing.length).expect("it is a place in what is in memory");
        let piece = &whole[done..whole.len().min(done + CHUNK_BYTES)];
        if !piece.is_empty() {
            tail.growing.put(piece, &mut self.out);
            return true;
        }
        let after = Growing::new(self.id.salt, Part::Index, tail.growing.offset + padded(done as u64));
        let section = std::mem::replace(&mut tail.growing, after).finish(&mut self.out);
        match tail.filter {
            None => tail.filter = Some(section),
            Some(filter) => {
                let footer = Footer {
                    header: Header { shard: self.id.shard, salt: self.id.salt },
                    file_length: section.end() + PAGE,
                    meta: tail.meta.clone(),
                    blocks: self.blocks,
                    sessions: tail.sessions,
                    filter,
                    index: section,
                };
                assert!(section.end() == self.out_offset + self.out.len() as u64, "{footer:?} is elsewhere");
                self.out.extend_from_slice(&footer.encode());
                self.phase = Phase::Complete(Box::new(footer));
            }
        }
        true
    }
}

impl Growing {
    fn new(salt: u64, part: Part, offset: u64) -> Self {
        assert!(offset.is_multiple_of(PAGE), "a section begins at {offset}");
        Self { offset, length: 0, checksum: Checksum::new(salt, part, offset) }
    }

    fn put(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.checksum.update(piece);
        self.length += piece.len() as u64;
        out.extend_from_slice(piece);
    }

    /// Fills the last page.
    fn finish(mut self, out: &mut Vec<u8>) -> Section {
        let zeros = padded(self.length) - self.length;
        let zeros = &[0; PAGE_BYTES][..usize::try_from(zeros).expect("less than a page")];
        self.checksum.update(zeros);
        out.extend_from_slice(zeros);
        Section { offset: self.offset, length: self.length, checksum: self.checksum.value() }
    }
}

/// The shortest key above `before` and not above `key`, which is above it: a prefix of `key`.
fn separator<'a>(before: &[u8], key: &'a [u8]) -> &'a [u8] {
    let shared = before.iter().zip(key).take_while(|(one, other)| one == other).count();
    &key[..(shared + 1).min(key.len())]
}
