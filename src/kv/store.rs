//! The live keys of a shard through all layers: counted, and summed up in a digest.
//!
//! ```text
//!  memtable      what changed since the last freeze                   written here
//!  frozen        what changed before it, while it becomes a table     never changed, and gone afterwards
//!  table         everything older, on disk                            resolved by the driver: a `Base`
//! ```
//!
//! Every key and value is copied when it comes in. A decoded command's bytes are slices of a network message
//! or a log batch, and `Bytes` does not tell how large that is: kept as they are, a value of ten bytes would
//! pin megabytes for as long as it lives. The copy is one pass over memory, beside the write to disk that
//! came before it.
//!
//! Invariants:
//! - `keys`, `bytes` and `digest` are those of the live keys over all layers, after every operation.
//! - A key of the table that a layer above knows is known there until the next table is installed: a delete
//!   leaves a tombstone wherever a layer below may have the key.
//! - A `Base` is used in the very state that it was made for: see [`Base`].
//!
//! Deliberately absent: limits and refusals. Whoever writes has decided before.

use std::ops::Bound;
use std::rc::Rc;

use bytes::Bytes;

use super::answer::KeyValue;
use super::layers::Walk;
use super::memtable::{Below, Entry, Held, Memtable, Slot};
use super::planted::planted;
use super::resolve::Base;
use super::state::Config;
use super::sums::{Summand, Sums};
use super::table::TableIndex;
use crate::ids::Revision;

/// The keys of a shard.
pub(super) struct Store {
    config: Config,
    memtable: Memtable,
    frozen: Option<Rc<Memtable>>,
    table: Option<Rc<TableIndex>>,
    sums: Sums,
}

/// What decides of a key above the table.
pub(super) enum Above<'a> {
    /// A memtable knows it: what it holds, if anything.
    Decided(Option<Held<'a>>),
    /// No memtable knows it, and there is a table that may have it.
    Table,
    /// No layer has it.
    Absent,
}

/// The keys as they can be read, the table's by what was resolved of it.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    store: &'a Store,
    base: &'a Base,
}

/// The keys as they can be written.
pub(super) struct KeysMut<'a> {
    store: &'a mut Store,
    base: &'a Base,
}

impl Store {
    /// No keys.
    pub(super) fn new(config: Config) -> Self {
        Self { config, memtable: Memtable::default(), frozen: None, table: None, sums: Sums::default() }
    }

    /// The keys of a table.
    pub(super) fn of_table(config: Config, table: Rc<TableIndex>) -> Self {
        Self { sums: table.meta().sums, table: Some(table), ..Self::new(config) }
    }

    pub(super) fn reading<'a>(&'a self, base: &'a Base) -> Keys<'a> {
        Keys { store: self, base }
    }

    pub(super) fn writing<'a>(&'a mut self, base: &'a Base) -> KeysMut<'a> {
        KeysMut { store: self, base }
    }

    /// What the live keys come to.
    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    pub(super) fn table(&self) -> Option<&Rc<TableIndex>> {
        self.table.as_ref()
    }

    /// About how much memory the memtable holds that is written to.
    pub(super) fn memtable_bytes(&self) -> usize {
        self.memtable.memory_bytes()
    }

    /// Begins a memtable above the one that was written to so far.
    pub(super) fn freeze(&mut self) -> Rc<Memtable> {
        assert!(self.frozen.is_none(), "a memtable is frozen while another is");
        let frozen = Rc::new(std::mem::take(&mut self.memtable));
        self.frozen = Some(Rc::clone(&frozen));
        frozen
    }

    /// Puts a table in the place of the frozen memtable and the table that it was merged from. That memtable.
    pub(super) fn install(&mut self, table: Rc<TableIndex>) -> Rc<Memtable> {
        let Some(frozen) = self.frozen.take() else { panic!("a table is installed and nothing is frozen") };
        self.table = Some(table);
        frozen
    }

    /// The memtables, to be let go of.
    pub(super) fn into_memtables(self) -> impl Iterator<Item = Rc<Memtable>> {
        self.frozen.into_iter().chain([Rc::new(self.memtable)])
    }

    /// What decides of a key above the table.
    pub(super) fn above(&self, key: &[u8]) -> Above<'_> {
        let slot = self.memtable.get(key);
        let slot = slot.or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.get(key)));
        match (slot, &self.table) {
            (Some(slot), _) => Above::Decided(slot.held()),
            (None, Some(table)) if table.may_contain(key) => Above::Table,
            (None, Some(_) | None) => Above::Absent,
        }
    }

    /// Sets the value of a key that holds something in the memtable: nothing below it counts. The version of
    /// the key afterwards; `None`: the memtable has nothing of it, and nothing was done.
    pub(super) fn overwrite(&mut self, key: &[u8], value: &[u8], at: Revision) -> Option<u64> {
        let replace = |entry: &mut Entry| changed(entry, |entry| entry.replace(key, value, at));
        let (before, after, version) = self.memtable.change(key, replace)?;
        self.sums.replace(before, after);
        Some(version)
    }

    /// Has the processor fetch what the memtables have of these keys, soon to be read or changed.
    pub(super) fn warm<'a>(&self, keys: impl Iterator<Item = &'a [u8]> + Clone) {
        if let Some(frozen) = &self.frozen {
            frozen.warm(keys.clone());
        }
        self.memtable.warm(keys);
    }

    /// Whether a memtable knows a key, so that what the table has of it does not count.
    pub(super) fn hides(&self, key: &[u8]) -> bool {
        let frozen = self.frozen.as_ref();
        self.memtable.get(key).is_some() || frozen.is_some_and(|frozen| frozen.get(key).is_some())
    }

    /// Whether a layer below the memtable may have a key, so that a delete has to be remembered.
    fn may_lie_below(&self, key: &[u8]) -> bool {
        let in_frozen = self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        match in_frozen {
            Some(slot) => slot.held().is_some(),
            None => self.table.as_ref().is_some_and(|table| table.may_contain(key)),
        }
    }
}

impl<'a> Keys<'a> {
    /// What a key holds.
    pub(super) fn find(self, key: &[u8]) -> Option<Held<'a>> {
        match self.store.above(key) {
            Above::Decided(held) => held,
            Above::Table => self.base.find(key),
            Above::Absent => None,
        }
    }

    /// A key and what it holds.
    pub(super) fn get(self, key: &[u8]) -> Option<KeyValue> {
        self.find(key).map(|held| held.key_value(key))
    }

    /// The length of a value in bytes.
    pub(super) fn length(self, key: &[u8]) -> Option<usize> {
        self.find(key).map(|held| held.value_bytes)
    }

    /// The version of a key; 0: there is no such key.
    pub(super) fn version(self, key: &[u8]) -> u64 {
        self.find(key).map_or(0, |held| held.version)
    }

    /// The revision that changed a key last; 0: there is no such key.
    pub(super) fn mod_revision(self, key: &[u8]) -> Revision {
        self.find(key).map_or(Revision(0), |held| held.mod_revision)
    }

    /// The keys between two bounds, deleted ones too, either way. Of the table it has what was resolved.
    pub(super) fn walk(self, start: Bound<&'a [u8]>, end: Bound<&'a [u8]>) -> Walk<'a> {
        let mut walk = Walk::new();
        for memtable in [Some(&self.store.memtable), self.store.frozen.as_deref()].into_iter().flatten() {
            walk.over(memtable.range(start, end).map(|(key, slot)| (key, slot.held())));
        }
        if self.store.table.is_some() {
            walk.over(self.base.run_entries(start, end));
        }
        walk
    }
}

impl KeysMut<'_> {
    pub(super) fn read(&self) -> Keys<'_> {
        self.store.reading(self.base)
    }

    /// Sets a value. The version of the key afterwards.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], at: Revision) -> u64 {
        let change = |entry: &mut Entry| entry.replace(key, value, at);
        let make = |before: Option<Held<'_>>| Entry::put(key, value, before, at);
        self.change_or_make(key, change, make).1
    }

    /// Adds to the end of a value. Its length and the version of the key afterwards.
    pub(super) fn append(&mut self, key: &[u8], piece: &[u8], at: Revision) -> (u64, u64) {
        let change = |entry: &mut Entry| entry.append(key, piece, at);
        let make = |before: Option<Held<'_>>| match before {
            Some(before) => Entry::appended(key, before, piece, at),
            None => Entry::put(key, piece, None, at),
        };
        let (after, version) = self.change_or_make(key, change, make);
        (after.value_bytes, version)
    }

    /// Changes what the memtable holds of a key, or has it hold an entry made over what lies below. What it
    /// then adds to the sums, and its version.
    fn change_or_make(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Entry),
        make: impl FnOnce(Option<Held<'_>>) -> Entry,
    ) -> (Summand, u64) {
        let Store { memtable, frozen, table, sums, .. } = &mut *self.store;
        let (before, after, version) = memtable.change_or_make(
            key,
            |entry| {
                let (before, after, version) = changed(entry, change);
                (Some(before), after, version)
            },
            |below| {
                let before = match below {
                    Below::Hidden => None,
                    Below::Counts => below_memtable(frozen.as_deref(), table.as_deref(), self.base, key),
                };
                let entry = make(before);
                let (after, version) = (entry.held().summand(), entry.held().version);
                (entry, (before.map(|before| before.summand()), after, version))
            },
        );
        match before {
            Some(before) => sums.replace(before, after),
            None => sums.add(key, after),
        }
        (after, version)
    }

    /// Removes a key. What it held.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<KeyValue> {
        let held = self.read().find(key)?;
        let (before, removed) = (held.summand(), held.key_value(key));
        let store = &mut *self.store;
        if store.may_lie_below(key) && !planted!(store.config, TombstoneDroppedEarly) {
            store.memtable.set(key, Slot::Tombstone);
        } else {
            store.memtable.forget(key);
        }
        let keeps_digest = planted!(store.config, DigestKeepsDeleted);
        store.sums.remove(key, if keeps_digest { Summand { digest: 0, ..before } } else { before });
        Some(removed)
    }
}

/// Changes an entry. What it added to the sums, what it adds now, and its version.
fn changed(entry: &mut Entry, change: impl FnOnce(&mut Entry)) -> (Summand, Summand, u64) {
    let before = entry.held().summand();
    change(entry);
    let after = entry.held();
    (before, after.summand(), after.version)
}

/// What a key holds that the memtable knows nothing of.
fn below_memtable<'a>(
    frozen: Option<&'a Memtable>,
    table: Option<&TableIndex>,
    base: &'a Base,
    key: &[u8],
) -> Option<Held<'a>> {
    if let Some(slot) = frozen.and_then(|frozen| frozen.get(key)) {
        return slot.held();
    }
    // What was resolved of the table is found without another look at its filter.
    match base.resolved(key) {
        Some(found) => found,
        None => {
            let is_known = table.is_some_and(|table| table.may_contain(key));
            assert!(!is_known, "key {key:?} was not resolved");
            None
        }
    }
}

impl<'a> Held<'a> {
    /// The value; it has to have been asked for.
    pub(super) fn value(&self) -> &'a Bytes {
        self.value.expect("whoever uses a value has resolved the whole entry")
    }

    fn summand(&self) -> Summand {
        Summand { value_bytes: self.value_bytes as u64, digest: self.digest }
    }

    /// As an answer has it: the key copied, the value shared.
    pub(super) fn key_value(&self, key: &[u8]) -> KeyValue {
        KeyValue { value: self.value().clone(), ..self.key_alone(key) }
    }

    /// The same without the value.
    pub(super) fn key_alone(&self, key: &[u8]) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key),
            value: Bytes::new(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }
}
