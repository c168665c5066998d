//! What a command or a query has to know of the table, and how it comes to know it: the state reads no file.
//!
//! ```text
//!             ┌──────────────── load them ◄── Missing(handles) ──┐
//!             ▼                                                  │
//!  State::resolve(command, blocks at hand) ──────────────────────┴─► Done(base) ─► State::apply, at once
//! ```
//!
//! Usually nothing has to be known: a memtable knows the key, or the filter denies it. For the rest the
//! driver is told which blocks to load, loads them in its own time, and asks again, from the start: blocks
//! that are needed are few, and asking costs a look-up each.
//!
//! # Why a base is never stale
//!
//! A [`Base`] tells of the table alone, which never changes; but which of its keys a memtable hides changes
//! with every entry, and an installed table changes what there is to tell. So a base names the table and the
//! applied index that it was made for, and [`State::apply`](super::State::apply) and
//! [`State::query`](super::State::query) assert both: it is made when everything is at hand, and used before
//! anything else happens to the state. What was loaded meanwhile for a state that is no more stays in the
//! driver's cache, or is of a table that is no more, and a [`BlockHandle`] says which.
//!
//! A scan may need more blocks than there is memory, so a [`ScanRun`] gathers what the page needs and lets
//! the blocks go. It outlives entries that are applied meanwhile, since of one table this only grows: the
//! keys that memtables hide. What it passed over as hidden stays hidden; what it gathered and is hidden by
//! now loses to the memtable when the page is made. It does not outlive the table: a new one begins it anew.
//!
//! Invariants:
//! - A run gathers at most about one page, passes at most [`RUN_PASSED_MAX`] entries, and asks for at most
//!   [`RUN_AHEAD_MAX`] blocks at once. A page that ends there says where the next begins, be it without a
//!   key: pages always get on.
//! - What a base keeps of a block never pins more than about twice its own bytes: it becomes part of answers
//!   that wait for slow clients.
//!
//! Deliberately absent: caches and files. A [`BlockSource`] is the driver's.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use super::command::{Command, Condition, Operation, Previous, Txn, Write};
use super::layers::Decided;
use super::limits::CARRIED_OVERHEAD_BYTES;
use super::memtable::Held;
use super::query::{Query, ReadTxn, ScanKeys};
use super::state::State;
use super::store::{Above, Store};
use super::table::{Block, BlockHandle, EntryRef, TableIndex};
use crate::ids::{Index, Revision};

/// The most entries of the table that one page of a scan passes, hidden ones included: about 1 ms.
pub const RUN_PASSED_MAX: usize = 8192;
/// The most blocks that a scan asks for at once.
pub const RUN_AHEAD_MAX: usize = 8;

/// Blocks that are at hand, each checked when it was brought in.
pub trait BlockSource {
    /// A block, if it is at hand. What a [`Resolved::Missing`] named has to be, when it was loaded, until the
    /// question is asked again: a cache may not have let it go.
    fn block(&mut self, handle: &BlockHandle) -> Option<Block>;
}

/// No blocks: of a state without a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlocks;

impl BlockSource for NoBlocks {
    fn block(&mut self, _handle: &BlockHandle) -> Option<Block> {
        None
    }
}

/// What came of asking what a command or a query needs of the table.
#[derive(Debug)]
pub enum Resolved {
    /// All of it is here.
    Done(Base),
    /// These blocks have to be loaded first: at least one, each once.
    Missing(Vec<BlockHandle>),
}

/// Entries of the table that were resolved for a command or a query: see the module.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// The state that it was made for; `None`: one without a table.
    made_for: Option<(u64, Index)>,
    /// Of keys that the table may have, in order; `None`: it has not.
    keys: Vec<(Bytes, Option<TableEntry>)>,
    run: Run,
}

/// The entries of a stretch of the table that no memtable hides, in order.
#[derive(Clone, Debug, Default)]
struct Run {
    entries: Vec<TableEntry>,
    /// Where the stretch ends, exclusive; `None`: at the end of what was asked for.
    until: Option<Bytes>,
}

/// How far the gathering for a page of a scan has come. Kept by the driver beside the query, made by
/// `default`.
#[derive(Debug, Default)]
pub struct ScanRun {
    /// The table that it is of.
    table: Option<u64>,
    /// The first key that was not looked at yet.
    next: Bytes,
    run: Run,
    bytes: usize,
    passed: usize,
}

/// An entry of the table, apart from its block.
#[derive(Clone, Debug)]
struct TableEntry {
    key: Bytes,
    /// `None`: only its length is needed.
    value: Option<Bytes>,
    value_bytes: usize,
    create_revision: Revision,
    mod_revision: Revision,
    version: u64,
    digest: u64,
}

impl Base {
    /// Of a state without a table: every key is absent.
    #[must_use]
    pub fn of_absent(_keys: Vec<Bytes>) -> Self {
        Self::default()
    }

    /// Panics unless it was made for a state with this table, at this index.
    pub(super) fn assert_is_of(&self, table: Option<&TableIndex>, applied: Index) {
        let wanted = table.map(|table| (table.salt(), applied));
        assert!(self.made_for == wanted, "a base of {:?} is used at {wanted:?}", self.made_for);
    }

    /// What the table has of a key that it may have.
    pub(super) fn find(&self, key: &[u8]) -> Option<Held<'_>> {
        match self.resolved(key) {
            Some(found) => found,
            None => panic!("key {key:?} was not resolved"),
        }
    }

    /// What the table has of a key; `None`: the key was not resolved.
    pub(super) fn resolved(&self, key: &[u8]) -> Option<Option<Held<'_>>> {
        let at = self.keys.binary_search_by(|(of, _)| of[..].cmp(key)).ok()?;
        Some(self.keys[at].1.as_ref().map(TableEntry::held))
    }

    /// Where the page of a scan has to end at the latest, exclusive; `None`: where it was asked to.
    pub(super) fn run_until(&self) -> Option<&Bytes> {
        self.run.until.as_ref()
    }

    /// The entries that were gathered for a scan, between two bounds.
    pub(super) fn run_entries<'a>(
        &'a self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Decided<'a>> {
        let entries = &self.run.entries;
        let from = entries.partition_point(|entry| match start {
            Bound::Included(start) => entry.key < start,
            Bound::Excluded(start) => entry.key <= start,
            Bound::Unbounded => false,
        });
        let to = entries.partition_point(|entry| match end {
            Bound::Included(end) => entry.key <= end,
            Bound::Excluded(end) => entry.key < end,
            Bound::Unbounded => true,
        });
        entries[from..to.max(from)].iter().map(|entry| (&entry.key[..], Some(entry.held())))
    }
}

/// What is needed of a key's entry in the table.
#[derive(Clone, Copy)]
enum Needed {
    /// All of it.
    Whole,
    /// All but the value: it is written over unread. So it is not brought into the cache to be copied.
    Length,
}

impl TableEntry {
    fn new(key: Bytes, block: &Block, entry: EntryRef<'_>, needed: Needed) -> Self {
        let value = match needed {
            Needed::Whole => Some(block.detached(entry.value)),
            Needed::Length => None,
        };
        Self {
            key,
            value,
            value_bytes: entry.value.len(),
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            version: entry.version,
            digest: entry.digest,
        }
    }

    fn held(&self) -> Held<'_> {
        Held {
            value: self.value.as_ref(),
            value_bytes: self.value_bytes,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            digest: self.digest,
        }
    }
}

impl State {
    /// Gathers what [`State::apply`] of this command needs. It may be asked ahead of its turn, to have blocks
    /// loaded; the base that counts is made when all entries before it are applied.
    pub fn resolve(&self, command: &Command, source: &mut impl BlockSource) -> Resolved {
        match command {
            Command::Write { write, .. } => match write {
                // Without a comparison that may fail, nobody is told what was there.
                Write::Put { key, if_mod_revision: None, return_previous: Previous::Omit, .. } => {
                    self.resolve_key(key, Needed::Length, source)
                }
                Write::Put { key, .. } | Write::Append { key, .. } | Write::Delete { key, .. } => {
                    self.resolve_key(key, Needed::Whole, source)
                }
                Write::Txn(txn) => self.resolve_keys(unknown(&self.store, keys_of_txn(txn)), source),
            },
            Command::OpenSession { .. }
            | Command::KeepAlive { .. }
            | Command::CloseSession { .. }
            | Command::Expire { .. } => Resolved::Done(self.base()),
        }
    }

    /// Gathers what [`State::query`] of this query needs. Of a Scan, `run` has come so far; of any other
    /// query it is not used.
    pub fn resolve_query(&self, query: &Query, run: &mut ScanRun, source: &mut impl BlockSource) -> Resolved {
        match (query, self.store.table()) {
            (Query::Scan { start, end, limit, bytes_max, keys }, Some(table)) => {
                let (keys_max, bytes_max) = self.page_bounds(*limit, *bytes_max);
                let page = Page { start, end, keys_max, bytes_max, keys: *keys };
                match run.gather(&page, &self.store, table, source) {
                    Err(missing) => Resolved::Missing(missing),
                    Ok(()) => {
                        let run = std::mem::take(run).run;
                        Resolved::Done(Base { run, ..self.base() })
                    }
                }
            }
            (Query::Get { key }, _) => self.resolve_key(key, Needed::Whole, source),
            (Query::Txn(ReadTxn { conditions, then, otherwise }), _) => {
                let keys = conditions.iter().map(|condition| &condition.key);
                self.resolve_keys(unknown(&self.store, keys.chain(then).chain(otherwise)), source)
            }
            (Query::Scan { .. }, None) => Resolved::Done(self.base()),
        }
    }

    /// A base that knows nothing, for the state as it is.
    fn base(&self) -> Base {
        let made_for = self.store.table().map(|table| (table.salt(), self.applied()));
        Base { made_for, ..Base::default() }
    }

    /// Of one key, as most commands and queries are: with no list of what is needed.
    fn resolve_key(&self, key: &Bytes, needed: Needed, source: &mut impl BlockSource) -> Resolved {
        let mut base = self.base();
        if let Above::Table = self.store.above(key) {
            match self.look_up(key, needed, source) {
                Ok(found) => base.keys.push((key.clone(), found)),
                Err(missing) => return Resolved::Missing(vec![missing]),
            }
        }
        Resolved::Done(base)
    }

    fn resolve_keys(&self, keys: Vec<Bytes>, source: &mut impl BlockSource) -> Resolved {
        let mut base = self.base();
        let mut missing = BTreeSet::new();
        for key in keys {
            match self.look_up(&key, Needed::Whole, source) {
                Ok(found) => base.keys.push((key, found)),
                Err(handle) => drop(missing.insert(handle)),
            }
        }
        if missing.is_empty() {
            Resolved::Done(base)
        } else {
            Resolved::Missing(missing.into_iter().collect())
        }
    }

    /// What the table has of a key that no memtable knows and that the filter lets through; the block that is
    /// missing, otherwise.
    fn look_up(
        &self,
        key: &Bytes,
        needed: Needed,
        source: &mut impl BlockSource,
    ) -> Result<Option<TableEntry>, BlockHandle> {
        let table = self.store.table().expect("a key is needed of a table that there is");
        let Some(at) = table.block_for(key) else { return Ok(None) };
        let handle = table.handle(at);
        let block = source.block(&handle).ok_or(handle)?;
        Ok(block.get(key).map(|entry| TableEntry::new(key.clone(), &block, entry, needed)))
    }
}

/// What a page of a scan may hold.
struct Page<'a> {
    start: &'a Bytes,
    end: &'a Bytes,
    keys_max: usize,
    bytes_max: usize,
    keys: ScanKeys,
}

impl Page<'_> {
    fn is_beyond(&self, key: &[u8]) -> bool {
        !self.end.is_empty() && key >= &self.end[..]
    }
}

impl ScanRun {
    /// Goes on until the page has all that it needs of the table. The blocks that are missing, otherwise.
    fn gather(
        &mut self,
        page: &Page<'_>,
        store: &Store,
        table: &TableIndex,
        source: &mut impl BlockSource,
    ) -> Result<(), Vec<BlockHandle>> {
        if self.table != Some(table.salt()) {
            *self = Self { table: Some(table.salt()), next: page.start.clone(), ..Self::default() };
        }
        let Some(first) = table.block_for(&self.next) else { return Ok(()) };
        for at in first..table.blocks() {
            if at > first && page.is_beyond(table.first_key(at)) {
                return Ok(());
            }
            let Some(block) = source.block(&table.handle(at)) else {
                return Err(missing_from(at, page, table, source));
            };
            let ended =
                block.iter_from(&self.next.clone()).any(|entry| self.take(entry, page, store, &block));
            if ended {
                return Ok(());
            }
            if at + 1 < table.blocks() {
                self.next = Bytes::copy_from_slice(table.first_key(at + 1));
            }
        }
        Ok(())
    }

    /// Takes an entry, unless a memtable hides it. Whether the run ends before it.
    fn take(&mut self, entry: EntryRef<'_>, page: &Page<'_>, store: &Store, block: &Block) -> bool {
        if page.is_beyond(entry.key) {
            return true;
        }
        let value_bytes = match page.keys {
            ScanKeys::KeysOnly => 0,
            ScanKeys::Whole => entry.value.len(),
        };
        let bytes = self.bytes + CARRIED_OVERHEAD_BYTES + entry.key.len() + value_bytes;
        let gathered = self.run.entries.len();
        let is_full = gathered > 0 && (gathered >= page.keys_max || bytes > page.bytes_max);
        if is_full || self.passed >= RUN_PASSED_MAX {
            self.run.until = Some(Bytes::copy_from_slice(entry.key));
            return true;
        }
        self.passed += 1;
        if store.hides(entry.key) {
            return false;
        }
        self.bytes = bytes;
        let needed = match page.keys {
            ScanKeys::KeysOnly => Needed::Length,
            ScanKeys::Whole => Needed::Whole,
        };
        self.run.entries.push(TableEntry::new(Bytes::copy_from_slice(entry.key), block, entry, needed));
        false
    }
}

/// The blocks that a page may need from this one on and that are not at hand, some of them.
fn missing_from(
    first: usize,
    page: &Page<'_>,
    table: &TableIndex,
    source: &mut impl BlockSource,
) -> Vec<BlockHandle> {
    let last = table.blocks().min(first + RUN_AHEAD_MAX);
    let wanted = (first..last).take_while(|at| *at == first || !page.is_beyond(table.first_key(*at)));
    let handles = wanted.map(|at| table.handle(at));
    handles.filter(|handle| source.block(handle).is_none()).collect()
}

/// Those of some keys that no memtable knows and the table may have, each once.
fn unknown<'a>(store: &Store, keys: impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
    if store.table().is_none() {
        return Vec::new();
    }
    let unknown = keys.filter(|key| matches!(store.above(key), Above::Table));
    let mut unknown: Vec<Bytes> = unknown.cloned().collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

/// The keys that a Txn reads or changes, whichever branch is carried out.
fn keys_of_txn(txn: &Txn) -> impl Iterator<Item = &Bytes> {
    let of_conditions = txn.conditions.iter().map(|condition: &Condition| &condition.key);
    of_conditions.chain(txn.then.iter().chain(&txn.otherwise).map(Operation::key))
}
