//! What changed since the last table, in memory: sorted, and small.
//!
//! A key of up to 22 bytes lies in the tree itself, so that a search follows no pointer to compare it; what a
//! key holds is one allocation of 64 bytes beside its value:
//!
//! ```text
//!  tree node ── key: 24 bytes │ slot: 8 ──► entry: value (32) │ create, mod, version, digest ──► the value
//! ```
//!
//! With 1 M random keys of 16 bytes and values of 256 that is about 1.4 times their bytes, the tree's unused
//! room and the allocator's rounding included.
//!
//! A value is one contiguous, shared buffer, so that a Get is a reference count and no copy. An Append takes
//! the buffer back where nobody else holds it and adds to its spare room: the cost is that of the piece,
//! amortized. Where an answer still holds the buffer (a Get being sent, a stored answer of a session), the
//! Append copies the value once into a buffer of its own; a key that is read between any two Appends
//! therefore pays one copy for each. A grown buffer may be up to twice as large as its value, until the next
//! Put of the key. A Put of the same length writes over a buffer that nobody else holds.
//!
//! Invariants:
//! - `memory_bytes` is the sum of what its slots take, after every operation.
//! - A key's version is 1 at creation and steps by one; its create revision is at most its mod revision.
//!
//! Deliberately absent: what lies below. Whoever changes a slot knows what was there before, here or there.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use bytes::{Bytes, BytesMut};

use super::codec::wire::Sink;
use super::digest::{self, Hasher, Kind};
use crate::ids::Revision;

/// The longest key that lies in the tree itself.
const KEY_INLINE_BYTES_MAX: usize = 22;
/// What a key and slot take in the tree, whose nodes are about two thirds full.
const SLOT_BYTES: usize = 48;

/// Keys, and what each holds: an entry, or the knowledge that it was deleted.
#[derive(Default)]
pub(super) struct Memtable {
    slots: BTreeMap<Key, Slot>,
    memory_bytes: usize,
}

/// A key as the tree holds it.
enum Key {
    Inline { length: u8, bytes: [u8; KEY_INLINE_BYTES_MAX] },
    Boxed(Box<[u8]>),
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
    Live(Box<Entry>),
    /// It was deleted: what lies below does not count.
    Tombstone,
}

/// What a key holds.
pub(super) struct Entry {
    value: Value,
    create_revision: Revision,
    mod_revision: Revision,
    version: u64,
    /// This entry's part of the state's digest.
    digest: u64,
}

enum Value {
    /// It was put, and has no spare room.
    Put(Bytes),
    /// It grew by appending.
    Grown(Box<Grown>),
}

struct Grown {
    value: Bytes,
    /// Of the buffer that the value is in.
    capacity: usize,
    /// The value's hash so far, so that the next piece is all that has to be hashed.
    hasher: Hasher,
}

/// What a key holds, wherever it lies.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    /// `None`: only its length was asked for.
    pub(super) value: Option<&'a Bytes>,
    pub(super) value_bytes: usize,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) version: u64,
    pub(super) digest: u64,
}

impl Memtable {
    /// What is known of a key; `None`: nothing here.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Slot> {
        match Key::inline(key) {
            Some(key) => self.slots.get(&key),
            None => self.slots.get(key),
        }
    }

    /// Changes what a key holds here, or makes it hold what `make` comes to over what lies below it, in one
    /// search.
    pub(super) fn change_or_make<T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Entry) -> T,
        make: impl FnOnce(Below) -> (Entry, T),
    ) -> T {
        match self.slots.entry(Key::new(key)) {
            btree_map::Entry::Occupied(mut slot) => match slot.get_mut() {
                Slot::Live(entry) => changed(entry, change, &mut self.memory_bytes),
                Slot::Tombstone => {
                    let (slot_made, made) = made(make(Below::Hidden));
                    self.memory_bytes += slot_made.memory_bytes();
                    slot.insert(slot_made);
                    made
                }
            },
            btree_map::Entry::Vacant(place) => {
                let (slot, made) = made(make(Below::Counts));
                self.memory_bytes += key_memory_bytes(key) + slot.memory_bytes();
                place.insert(slot);
                made
            }
        }
    }

    /// Changes what a key holds here; `None`: it holds nothing here.
    pub(super) fn change<T>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let slot = match Key::inline(key) {
            Some(key) => self.slots.get_mut(&key),
            None => self.slots.get_mut(key),
        };
        match slot {
            Some(Slot::Live(entry)) => Some(changed(entry, change, &mut self.memory_bytes)),
            Some(Slot::Tombstone) | None => None,
        }
    }

    /// Sets what is known of a key.
    pub(super) fn set(&mut self, key: &[u8], slot: Slot) {
        self.memory_bytes += slot.memory_bytes();
        match self.slots.get_mut(key) {
            Some(place) => {
                self.memory_bytes -= place.memory_bytes();
                *place = slot;
            }
            None => {
                self.memory_bytes += key_memory_bytes(key);
                self.slots.insert(Key::new(key), slot);
            }
        }
    }

    /// Forgets what is known of a key.
    pub(super) fn forget(&mut self, key: &[u8]) {
        let Some(slot) = self.slots.remove(key) else { return };
        let bytes = key_memory_bytes(key) + slot.memory_bytes();
        assert!(self.memory_bytes >= bytes, "{bytes} bytes go of {}", self.memory_bytes);
        self.memory_bytes -= bytes;
        assert!(!self.slots.is_empty() || self.memory_bytes == 0, "no slots: {} bytes", self.memory_bytes);
    }

    /// The slots within bounds, either way.
    pub(super) fn range(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &Slot)> {
        let slots = (!is_empty(start, end)).then(|| self.slots.range::<[u8], _>((start, end)));
        slots.into_iter().flatten().map(|(key, slot)| (key.as_slice(), slot))
    }

    /// About how much memory it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Its slots one by one, so that a large one need not be let go of at once.
    pub(super) fn into_slots(self) -> Slots {
        Slots(self.slots.into_iter())
    }
}

/// What is left of a memtable that is let go of.
pub(super) struct Slots(btree_map::IntoIter<Key, Slot>);

impl Slots {
    /// Lets go of this many slots. Whether some are left.
    pub(super) fn drop_some(&mut self, count: usize) -> bool {
        self.0.by_ref().take(count).for_each(drop);
        self.0.len() > 0
    }
}

/// Changes an entry, and what the memtable takes with it.
fn changed<T>(entry: &mut Entry, change: impl FnOnce(&mut Entry) -> T, memory_bytes: &mut usize) -> T {
    let before = entry.value.memory_bytes();
    let changed = change(entry);
    *memory_bytes = *memory_bytes - before + entry.value.memory_bytes();
    changed
}

/// An entry that was made, as a slot.
fn made<T>((entry, with): (Entry, T)) -> (Slot, T) {
    (Slot::Live(Box::new(entry)), with)
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

impl Key {
    fn new(key: &[u8]) -> Self {
        Self::inline(key).unwrap_or_else(|| Self::Boxed(key.into()))
    }

    /// A key that lies in the tree itself; `None`: it is too long.
    fn inline(key: &[u8]) -> Option<Self> {
        let length = u8::try_from(key.len()).ok().filter(|_| key.len() <= KEY_INLINE_BYTES_MAX)?;
        let mut bytes = [0; KEY_INLINE_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Some(Self::Inline { length, bytes })
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

/// What a key and its slot take, in the tree and beside it.
fn key_memory_bytes(key: &[u8]) -> usize {
    let is_inline = key.len() <= KEY_INLINE_BYTES_MAX;
    SLOT_BYTES + if is_inline { 0 } else { key.len() }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    /// As their bytes. Two inline keys are compared a word at a time: behind their ends both have zeros, and
    /// where those are all that differs, the shorter one comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Inline { length, bytes }, Self::Inline { length: other_length, bytes: other }) => {
                words(bytes).cmp(&words(other)).then(length.cmp(other_length))
            }
            (Self::Inline { .. } | Self::Boxed(_), Self::Inline { .. } | Self::Boxed(_)) => {
                self.as_slice().cmp(other.as_slice())
            }
        }
    }
}

/// Bytes as numbers of the same order.
fn words(bytes: &[u8; KEY_INLINE_BYTES_MAX]) -> [u64; 3] {
    let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
    // The last word has the bytes of the second one's end again, which are the same where it matters.
    [word(0), word(8), word(KEY_INLINE_BYTES_MAX - 8)]
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
            Self::Live(entry) => size_of::<Entry>() + entry.value.memory_bytes(),
            Self::Tombstone => 0,
        }
    }
}

impl Entry {
    /// A value that was put at a revision, over what the key held before.
    pub(super) fn put(key: &[u8], value: &[u8], before: Option<Held<'_>>, at: Revision) -> Self {
        let value_hash = digest::of_value(value);
        Self::over(key, Value::Put(Bytes::copy_from_slice(value)), value_hash, before, at)
    }

    /// What a key held below, with a piece added at a revision.
    pub(super) fn appended(key: &[u8], before: Held<'_>, piece: &[u8], at: Revision) -> Self {
        let mut value = Value::Put(before.value().clone());
        let value_hash = value.grow(piece);
        Self::over(key, value, value_hash, Some(before), at)
    }

    fn over(key: &[u8], value: Value, value_hash: u64, before: Option<Held<'_>>, at: Revision) -> Self {
        let (create_revision, version) =
            before.map_or((at, 1), |before| (before.create_revision, before.version + 1));
        assert!(create_revision <= at, "created at {create_revision}, changed at {at}");
        let digest = digest::of_entry(key, value_hash, create_revision, at, version);
        Self { value, create_revision, mod_revision: at, version, digest }
    }

    /// Sets the value in place.
    pub(super) fn replace(&mut self, key: &[u8], value: &[u8], at: Revision) {
        let value_hash = digest::of_value(value);
        self.value.set(value);
        self.changed(key, value_hash, at);
    }

    /// Adds to the end of the value in place.
    pub(super) fn append(&mut self, key: &[u8], piece: &[u8], at: Revision) {
        let value_hash = self.value.grow(piece);
        self.changed(key, value_hash, at);
    }

    /// What it is, whatever it lies in.
    pub(super) fn held(&self) -> Held<'_> {
        let value = self.value.bytes();
        Held {
            value: Some(value),
            value_bytes: value.len(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            digest: self.digest,
        }
    }

    /// Steps the version after the value was changed at a revision.
    fn changed(&mut self, key: &[u8], value_hash: u64, at: Revision) {
        assert!(at >= self.mod_revision, "changed at {at} after {}", self.mod_revision);
        assert!(self.create_revision <= self.mod_revision, "created at {} later", self.create_revision);
        assert!(self.version > 0, "a live key has a version from 1");
        self.mod_revision = at;
        self.version += 1;
        self.digest = digest::of_entry(key, value_hash, self.create_revision, at, self.version);
    }
}

impl Value {
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Put(value) => value,
            Self::Grown(grown) => &grown.value,
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Grown(grown) => size_of::<Grown>() + grown.capacity,
        }
    }

    /// Becomes another value: in the room of what was there, where that is as long and nobody else holds it.
    fn set(&mut self, value: &[u8]) {
        let room = match std::mem::replace(self, Self::Put(Bytes::new())) {
            Self::Put(room) if room.len() == value.len() => room.try_into_mut().ok(),
            Self::Put(_) | Self::Grown(_) => None,
        };
        *self = Self::Put(match room {
            Some(mut room) => {
                room.copy_from_slice(value);
                room.freeze()
            }
            None => Bytes::copy_from_slice(value),
        });
    }

    /// Adds to the end. The hash of the whole.
    fn grow(&mut self, piece: &[u8]) -> u64 {
        let mut grown = match std::mem::replace(self, Self::Put(Bytes::new())) {
            Self::Grown(grown) => grown,
            Self::Put(value) => {
                let mut hasher = Hasher::new(Kind::Value);
                hasher.put(&value);
                Box::new(Grown { value, capacity: 0, hasher })
            }
        };
        grown.hasher.put(piece);
        let mut buffer = std::mem::take(&mut grown.value).try_into_mut().unwrap_or_else(|shared| {
            let mut copy = BytesMut::with_capacity(2 * shared.len() + piece.len());
            copy.extend_from_slice(&shared);
            copy
        });
        buffer.extend_from_slice(piece);
        grown.capacity = buffer.capacity();
        grown.value = buffer.freeze();
        let hash = grown.hasher.digest();
        *self = Self::Grown(grown);
        hash
    }
}

const _: () = assert!(size_of::<Key>() == 24 && size_of::<Slot>() == 8 && size_of::<Entry>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer holds is not written over.
    #[test]
    fn a_put_takes_the_room_of_a_value_that_nobody_holds() {
        let mut value = Value::Put(Bytes::copy_from_slice(b"first"));
        for (put, is_held) in [(&b"other"[..], false), (b"third", true), (b"again", false), (b"longer", true)]
        {
            let held = is_held.then(|| value.bytes().clone());
            let held_before = held.as_ref().map(|held| held.to_vec());
            value.set(put);
            assert_eq!(value.bytes(), put);
            assert!(held.as_ref().is_none_or(|held| held.as_ptr() != value.bytes().as_ptr()), "{put:?}");
            assert_eq!(held.map(|held| held.to_vec()), held_before, "{put:?}");
        }
        value.set(b"");
        assert!(value.bytes().is_empty());
        value.grow(b"grown");
        value.set(b"grown");
        assert_eq!((value.bytes(), value.memory_bytes()), (&Bytes::from_static(b"grown"), 5));
    }

    /// Around the ends of the words that are compared, with zeros at and behind the end.
    #[test]
    fn keys_are_ordered_as_their_bytes() {
        let mut keys: Vec<Vec<u8>> = vec![Vec::new(), vec![0], vec![0, 0], vec![255; 40]];
        for length in [1, 7, 8, 9, 13, 14, 15, 16, 17, 21, 22, 23, 24, 40] {
            for last in [0, 1, 127, 128, 255] {
                let mut key = vec![b'k'; length];
                key[length - 1] = last;
                keys.push(key.clone());
                key[length / 2] = 0;
                keys.push(key);
            }
        }
        for a in &keys {
            for b in &keys {
                assert_eq!(Key::new(a).cmp(&Key::new(b)), a.cmp(b), "{a:?} and {b:?}");
            }
        }
    }
}
