//! Makes a frozen memtable and the table below it into the next table, in steps.
//!
//! ```text
//!             ┌────────── feed(block) ◄── Block(handle): the driver reads it ──┐
//!             ▼                                                                │
//!  Merge ── step(budget) ──────────────────────────────────────────────────────┤
//!   ▲                                                                          ├─ Output: take_output, write
//!   └──────────────────────────────────────── Again: others have their turn ◄──┤
//!                                                                              └─ Done: read back, install
//! ```
//!
//! The blocks of the old table come in order, each once. A driver that wants to read ahead asks
//! [`Merge::next_blocks`].
//!
//! Invariants:
//! - A step passes about as many bytes of entries as its budget, one entry or one session more at most.
//! - What is finished has the keys, bytes and digest that the frozen state had, or is an error: a merge that
//!   lost or invented an entry becomes no table.
//! - Given up at any point, it leaves nothing behind but pages of a file that nothing refers to.
//!
//! Deliberately absent: files, salts, and when it has its turns.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Bound;
use std::rc::Rc;

use bytes::Bytes;

use super::codec::{put_session, put_sessions_header};
use super::memtable::Held;
use super::snapshot::Frozen;
use super::sums::Sums;
use super::table::{
    Block, BlockHandle, Chunk, EntryRef, Footer, TableId, TableIndex, TableMeta, TableWriter,
};

/// What an entry counts of a step's budget beyond its key and value.
const PASSED_BYTES: usize = 64;

/// A merge at work.
pub struct Merge {
    frozen: Frozen,
    table: Option<Rc<TableIndex>>,
    writer: TableWriter,
    /// The next of the old table's blocks.
    next_block: usize,
    /// The block that is being merged, and the next entry of it.
    block: Option<(Block, usize)>,
    /// The last key of the frozen memtable that was merged.
    last: Option<Bytes>,
    phase: Phase,
}

/// How far a merge has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Entries,
    /// The next session.
    Sessions(usize),
    Finished,
}

/// What a merge needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeStep {
    /// Another step: the budget is used up.
    Again,
    /// This block of the old table, by [`Merge::feed`].
    Block(BlockHandle),
    /// That [`Merge::take_output`] is called until it has no more, and each chunk is written.
    Output,
    /// Nothing: the table is whole, and [`Merge::footer`] is its last page.
    Done,
}

/// The entries that were merged are not those of the frozen state: the old table is not what its footer says,
/// in a way that its checksums do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeError {
    /// Of the frozen state.
    pub wanted: Sums,
    /// Of the entries that were merged.
    pub found: Sums,
}

/// Where the next entry comes from.
enum Source {
    Memory,
    Table,
    /// Both have the key: the memtable's counts.
    Both,
}

impl Merge {
    /// Merges a frozen state with the table that lies below it, which is the state's own, into a table with
    /// this salt.
    #[must_use]
    pub fn new(frozen: Frozen, table: Option<Rc<TableIndex>>, salt: u64) -> Self {
        let id = TableId { shard: frozen.shard(), salt };
        let old = table.as_ref().map(|table| table.salt());
        assert!(old != Some(salt), "the new table would have the salt of the old, {salt:016x}");
        let writer = TableWriter::new(id, frozen.meta().sums.keys);
        Self { frozen, table, writer, next_block: 0, block: None, last: None, phase: Phase::Entries }
    }

    /// Goes on, for about this many bytes of keys and values, until it needs something.
    pub fn step(&mut self, budget_bytes: usize) -> Result<MergeStep, MergeError> {
        if self.writer.has_output() {
            return Ok(MergeStep::Output);
        }
        match self.phase {
            Phase::Entries => match self.step_entries(budget_bytes) {
                Some(step) => return Ok(step),
                None => self.phase = Phase::Sessions(0),
            },
            Phase::Sessions(from) => self.step_sessions(from, budget_bytes)?,
            Phase::Finished if self.writer.footer().is_some() => return Ok(MergeStep::Done),
            Phase::Finished => return Ok(MergeStep::Output),
        }
        Ok(MergeStep::Again)
    }

    /// Gives the block that [`MergeStep::Block`] asked for.
    pub fn feed(&mut self, block: Block) {
        let wanted = self.next_blocks(1).next();
        assert!(wanted == Some(block.handle()), "{:?} comes where {wanted:?} has to", block.handle());
        assert!(self.block.is_none(), "{:?} comes before the one before it was merged", block.handle());
        self.next_block += 1;
        self.block = Some((block, 0));
    }

    /// The blocks that will be asked for next, at most this many: for reading ahead.
    pub fn next_blocks(&self, count: usize) -> impl Iterator<Item = BlockHandle> + '_ {
        let table = self.table.iter();
        let handles = table.flat_map(|table| (self.next_block..table.blocks()).map(|at| table.handle(at)));
        handles.take(count)
    }

    /// The next pages of the new table, if enough are finished. They are to be copied before the next call.
    pub fn take_output(&mut self) -> Option<Chunk<'_>> {
        self.writer.take_output()
    }

    /// The last page of the new table, when it is whole and all its output was taken.
    #[must_use]
    pub fn footer(&self) -> Option<&Footer> {
        self.writer.footer()
    }

    /// Merges entries. `None`: there are no more.
    fn step_entries(&mut self, budget_bytes: usize) -> Option<MergeStep> {
        let frozen = self.frozen.clone();
        let after = self.last.clone();
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut slots = frozen.memtable().range(start, Bound::Unbounded).peekable();
        let mut last: Option<&[u8]> = None;
        let mut passed = 0;
        let step = loop {
            if self.block.is_none()
                && let Some(handle) = self.next_blocks(1).next()
            {
                break Some(MergeStep::Block(handle));
            }
            if passed >= budget_bytes || self.writer.has_output() {
                break Some(MergeStep::Again);
            }
            let in_table = self.block.as_ref().map(|(block, at)| block.entry(*at));
            let in_memory = slots.peek().map(|(key, _)| *key);
            let Some(source) = Source::of(in_memory, in_table.map(|entry| entry.key)) else { break None };
            passed += match source {
                Source::Table => in_table.map_or(0, |entry| push(&mut self.writer, &entry)),
                Source::Memory | Source::Both => slots.next().map_or(0, |(key, slot)| {
                    last = Some(key);
                    slot.held().map_or(PASSED_BYTES, |held| push(&mut self.writer, &entry_of(key, held)))
                }),
            };
            match source {
                Source::Memory => {}
                Source::Table | Source::Both => self.pass_table_entry(),
            }
        };
        if let Some(last) = last {
            self.last = Some(Bytes::copy_from_slice(last));
        }
        step
    }

    /// The entry of the block was merged, or hidden.
    fn pass_table_entry(&mut self) {
        if let Some((block, at)) = &mut self.block {
            *at += 1;
            if *at == block.len() {
                self.block = None;
            }
        }
    }

    /// Merges sessions from this one on, and ends the table after the last.
    fn step_sessions(&mut self, from: usize, budget_bytes: usize) -> Result<(), MergeError> {
        let frozen = self.frozen.clone();
        let sessions = frozen.sessions();
        let mut piece = Vec::new();
        if from == 0 {
            put_sessions_header(sessions.len(), &mut piece);
        }
        let mut at = from;
        while at < sessions.len() && piece.len() < budget_bytes.max(1) {
            let (id, session) = &sessions[at];
            put_session(&session.image(*id), &mut piece);
            at += 1;
        }
        self.writer.push_session(&piece);
        self.phase = Phase::Sessions(at);
        if at < sessions.len() {
            return Ok(());
        }
        let meta = frozen.meta();
        let (wanted, found) = (meta.sums, self.writer.sums());
        if found != wanted {
            return Err(MergeError { wanted, found });
        }
        self.writer.finish(TableMeta::clone(meta));
        self.phase = Phase::Finished;
        Ok(())
    }
}

impl Source {
    /// Where the lower of two keys is; `None`: there is none.
    fn of(in_memory: Option<&[u8]>, in_table: Option<&[u8]>) -> Option<Self> {
        match (in_memory, in_table) {
            (None, None) => None,
            (Some(_), None) => Some(Self::Memory),
            (None, Some(_)) => Some(Self::Table),
            (Some(memory), Some(table)) => Some(match memory.cmp(table) {
                Ordering::Less => Self::Memory,
                Ordering::Equal => Self::Both,
                Ordering::Greater => Self::Table,
            }),
        }
    }
}

/// Gives an entry to the new table. What it counts of the budget.
fn push(writer: &mut TableWriter, entry: &EntryRef<'_>) -> usize {
    writer.push(entry);
    PASSED_BYTES + entry.key.len() + entry.value.len()
}

fn entry_of<'a>(key: &'a [u8], held: Held<'a>) -> EntryRef<'a> {
    let Held { create_revision, mod_revision, version, digest, .. } = held;
    EntryRef { key, value: held.value(), create_revision, mod_revision, version, digest }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, found } = self;
        write!(f, "the state was frozen with {wanted:?}, and its entries come to {found:?}")
    }
}

impl std::error::Error for MergeError {}
