//! What changed since the last table, in memory: sorted, found by hash, and small.
//!
//! ```text
//!  order: sorted   key (24 bytes) ─► cell's number ──┐
//!  index: hashed   32 bits of the hash ─► number ────┼─► cell: key │ value │ create, mod, version, digest
//!                                                    ┘            (24)  (32)   (8 each)   └► the value
//! ```
//!
//! A key is found by its hash: one step into the index, one to its cell, one to its value, each of which is
//! likely in no cache of the processor; the tree would add one for each of its levels. It is there for what
//! is asked in order, and is changed when a key comes or goes. What is about to be read or changed is best
//! said ahead, for many keys at once ([`Memtable::warm`]): their ways through memory then overlap, where one
//! by one each would wait for the one before. With a hundred thousand keys of 256 bytes a node under full
//! load spent a fifth of its time in such waits, and half as much since.
//!
//! With 1 M random keys of 16 bytes and values of 256 that is about 1.6 times their bytes, the unused room of
//! the tree and the index and the allocator's rounding included.
//!
//! The hash is keyed by chance: who chooses the keys cannot choose where they collide. Nothing goes through
//! the index in its own order, so what comes of a command depends on no chance.
//!
//! Invariants:
//! - Order, index and the cells in use have the same keys, each once.
//! - `memory_bytes` is the sum of what its keys take, after every operation.
//!
//! Deliberately absent: what lies below. Whoever changes a slot knows what was there before, here or there.

mod cells;
mod entry;
mod key;

use std::collections::{BTreeMap, btree_map};
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::ops::Bound;

use hashbrown::HashTable;

use self::cells::{CellId, Cells};
pub(super) use self::entry::{Entry, Held};
use self::key::Key;

/// What a key takes in order, index and cells, whose room is about two thirds full.
const KEY_BYTES: usize =
    (size_of::<Key>() + size_of::<CellId>() + size_of::<Place>()) * 3 / 2 + size_of::<Cell>();
/// How many keys are warmed at once: about as many as a processor waits for at a time.
const WARM_KEYS: usize = 16;
/// Of a value that is about to be read or written over, how much is warmed: what lies behind is fetched ahead
/// by the processor itself.
const WARM_VALUE_BYTES: usize = 512;
/// What memory comes in.
const CACHE_LINE_BYTES: usize = 64;

/// Keys, and what each holds: an entry, or the knowledge that it was deleted.
#[derive(Default)]
pub(super) struct Memtable {
    order: BTreeMap<Key, CellId>,
    index: HashTable<Place>,
    cells: Cells<Cell>,
    hasher: RandomState,
    memory_bytes: usize,
}

/// Where a key of this hash is.
#[derive(Clone, Copy)]
struct Place {
    hash: u32,
    cell: CellId,
}

/// A key and what is known of it.
struct Cell {
    key: Key,
    slot: Slot,
}

/// Whether what lies below a memtable counts for a key that holds nothing in it.
pub(super) enum Below {
    /// It does: the memtable knows nothing of the key.
    Counts,
    /// It does not: the key was deleted.
    Hidden,
}

/// What is known of a key.
pub(super) enum Slot {
    /// What it holds.
    Live(Entry),
    /// It was deleted: what lies below does not count.
    Tombstone,
}

impl Memtable {
    /// What is known of a key; `None`: nothing here.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.find(key, self.hash(key)).map(|cell| &self.cells.get(cell).slot)
    }

    /// Changes what a key holds here, or makes it hold what `make` comes to over what lies below it.
    pub(super) fn change_or_make<T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Entry) -> T,
        make: impl FnOnce(Below) -> (Entry, T),
    ) -> T {
        let hash = self.hash(key);
        let Some(cell) = self.find(key, hash) else {
            let (entry, made) = make(Below::Counts);
            self.insert(key, hash, Slot::Live(entry));
            return made;
        };
        match &mut self.cells.get_mut(cell).slot {
            Slot::Live(entry) => changed(entry, change, &mut self.memory_bytes),
            slot @ Slot::Tombstone => {
                let (entry, made) = make(Below::Hidden);
                *slot = Slot::Live(entry);
                self.memory_bytes += slot.memory_bytes();
                made
            }
        }
    }

    /// Changes what a key holds here; `None`: it holds nothing here.
    pub(super) fn change<T>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let cell = self.find(key, self.hash(key))?;
        match &mut self.cells.get_mut(cell).slot {
            Slot::Live(entry) => Some(changed(entry, change, &mut self.memory_bytes)),
            Slot::Tombstone => None,
        }
    }

    /// Sets what is known of a key.
    pub(super) fn set(&mut self, key: &[u8], slot: Slot) {
        let hash = self.hash(key);
        match self.find(key, hash) {
            Some(cell) => {
                let place = &mut self.cells.get_mut(cell).slot;
                self.memory_bytes = self.memory_bytes - place.memory_bytes() + slot.memory_bytes();
                *place = slot;
            }
            None => self.insert(key, hash, slot),
        }
    }

    /// Forgets what is known of a key.
    pub(super) fn forget(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        let is_it = |place: &Place| place.hash == hash && self.cells.get(place.cell).key.as_slice() == key;
        let Ok(place) = self.index.find_entry(spread(hash), is_it) else { return };
        let (Place { cell, .. }, _) = place.remove();
        let ordered = self.order.remove(key);
        assert!(ordered == Some(cell), "key {key:?} is in cell {cell:?}, and {ordered:?} in order");
        let empty = Cell { key: Key::new(b""), slot: Slot::Tombstone };
        let bytes = key_memory_bytes(key) + self.cells.take(cell, empty).slot.memory_bytes();
        assert!(self.memory_bytes >= bytes, "{bytes} bytes go of {}", self.memory_bytes);
        self.memory_bytes -= bytes;
        assert!(!self.order.is_empty() || self.memory_bytes == 0, "no keys: {} bytes", self.memory_bytes);
    }

    /// The slots within bounds, either way.
    pub(super) fn range(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &Slot)> {
        let cells = (!is_empty(start, end)).then(|| self.order.range::<[u8], _>((start, end)));
        cells.into_iter().flatten().map(|(key, cell)| (key.as_slice(), &self.cells.get(*cell).slot))
    }

    /// Has the processor fetch what these keys need, soon to be read or changed: for several at a time, so
    /// that they wait for memory together. It changes nothing.
    pub(super) fn warm<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut keys = keys.fuse();
        loop {
            // Step by step for all of them: within a step no load waits for another.
            let mut cells = [None; WARM_KEYS];
            let mut count = 0;
            for key in keys.by_ref().take(WARM_KEYS) {
                let hash = self.hash(key);
                let place = self.index.find(spread(hash), |place| place.hash == hash);
                cells[count] = place.map(|place| place.cell);
                count += 1;
            }
            let cells = cells.iter().flatten().map(|cell| self.cells.get(*cell));
            let fetched = cells.clone().map(|cell| cell.key.as_slice().len() + cell.slot.length());
            black_box(fetched.sum::<usize>());
            let values = cells.filter_map(|cell| cell.slot.held()?.value);
            let fetched = values.map(|value| {
                let lines = value.chunks(CACHE_LINE_BYTES).take(WARM_VALUE_BYTES / CACHE_LINE_BYTES);
                usize::from(value.is_unique()) + lines.map(|line| usize::from(line[0])).sum::<usize>()
            });
            black_box(fetched.sum::<usize>());
            if count < WARM_KEYS {
                return;
            }
        }
    }

    /// About how much memory it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Its slots one by one, so that a large one need not be let go of at once.
    pub(super) fn into_slots(self) -> Slots {
        Slots { order: self.order.into_iter(), cells: self.cells }
    }

    fn hash(&self, key: &[u8]) -> u32 {
        // Its upper half is as good as the lower one.
        (self.hasher.hash_one(key) >> u32::BITS) as u32
    }

    fn find(&self, key: &[u8], hash: u32) -> Option<CellId> {
        let is_it = |place: &Place| place.hash == hash && self.cells.get(place.cell).key.as_slice() == key;
        self.index.find(spread(hash), is_it).map(|place| place.cell)
    }

    /// A key that nothing was known of.
    fn insert(&mut self, key: &[u8], hash: u32, slot: Slot) {
        self.memory_bytes += key_memory_bytes(key) + slot.memory_bytes();
        let key = Key::new(key);
        let cell = self.cells.insert(Cell { key: key.clone(), slot });
        self.index.insert_unique(spread(hash), Place { hash, cell }, |place| spread(place.hash));
        let replaced = self.order.insert(key, cell);
        assert!(replaced.is_none(), "the key of cell {cell:?} was in {replaced:?}");
    }
}

/// What is left of a memtable that is let go of.
pub(super) struct Slots {
    order: btree_map::IntoIter<Key, CellId>,
    cells: Cells<Cell>,
}

impl Slots {
    /// Lets go of this many slots. Whether some are left.
    pub(super) fn drop_some(&mut self, count: usize) -> bool {
        self.order.by_ref().take(count).for_each(drop);
        let has_cells = self.cells.drop_some(count);
        has_cells || self.order.len() > 0
    }
}

/// A hash as the index takes it: it uses bits from either end.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << u32::BITS | u64::from(hash)
}

/// Changes an entry, and what the memtable takes with it.
fn changed<T>(entry: &mut Entry, change: impl FnOnce(&mut Entry) -> T, memory_bytes: &mut usize) -> T {
    let before = entry.memory_bytes();
    let changed = change(entry);
    *memory_bytes = *memory_bytes - before + entry.memory_bytes();
    changed
}

/// Whether nothing can lie between two bounds; a tree would panic.
fn is_empty(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
}

/// What a key takes, wherever it is.
fn key_memory_bytes(key: &[u8]) -> usize {
    KEY_BYTES + Key::shared_bytes(key)
}

impl Slot {
    /// What it holds; `None`: the key was deleted.
    pub(super) fn held(&self) -> Option<Held<'_>> {
        match self {
            Self::Live(entry) => Some(entry.held()),
            Self::Tombstone => None,
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Live(entry) => entry.memory_bytes(),
            Self::Tombstone => 0,
        }
    }

    /// The length of the value that it holds.
    fn length(&self) -> usize {
        self.held().map_or(0, |held| held.value_bytes)
    }
}

const _: () = assert!(size_of::<Cell>() == 88 && size_of::<Place>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;

    /// Few keys, some of them too long to lie in place, set and forgotten over and over.
    #[test]
    fn order_index_and_cells_have_the_same_keys() {
        let (mut memtable, mut model) = (Memtable::default(), BTreeMap::new());
        let mut random = 1_u64;
        for step in 1..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) % 700;
            let key = format!("{number:0width$}", width = if number.is_multiple_of(5) { 40 } else { 5 });
            let (key, value) = (key.into_bytes(), vec![b'v'; (random >> 50) as usize % 300]);
            match (random >> 45) % 4 {
                0 => {
                    memtable.forget(&key);
                    model.remove(&key);
                }
                1 => {
                    memtable.set(&key, Slot::Tombstone);
                    model.insert(key, None);
                }
                _ => {
                    let change = |entry: &mut Entry| entry.replace(&key, &value, Revision(step));
                    let make = |_: Below| (Entry::put(&key, &value, None, Revision(step)), ());
                    memtable.change_or_make(&key, change, make);
                    model.insert(key, Some(value));
                }
            }
            if step.is_multiple_of(500) {
                memtable.warm(model.keys().map(|key| &key[..]));
                assert_same(&memtable, &model);
            }
        }
        model.keys().for_each(|key| memtable.forget(key));
        assert_eq!(memtable.memory_bytes(), 0, "no key is left");
        assert!(!memtable.into_slots().drop_some(usize::MAX));
    }

    fn assert_same(memtable: &Memtable, model: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        let held = |slot: &Slot| slot.held().map(|held| held.value().to_vec());
        let all = memtable.range(Bound::Unbounded, Bound::Unbounded);
        let found: Vec<_> = all.map(|(key, slot)| (key.to_vec(), held(slot))).collect();
        assert!(found.iter().map(|(key, value)| (key, value)).eq(model), "in order");
        assert!(model.iter().all(|(key, value)| memtable.get(key).map(held).as_ref() == Some(value)));
        assert!(memtable.get(b"none of them").is_none());
        let of_model = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| {
            key_memory_bytes(key) + value.as_ref().map_or(0, Vec::len)
        };
        assert_eq!(memtable.memory_bytes(), model.iter().map(of_model).sum::<usize>());
    }
}
