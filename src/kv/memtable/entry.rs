//! What a key holds in memory.
//!
//! A value is one contiguous, shared buffer, so that a Get is a reference count and no copy. An Append takes
//! the buffer back where nobody else holds it and adds to its spare room: the cost is that of the piece,
//! amortized. Where an answer still holds the buffer (a Get being sent, a stored answer of a session), the
//! Append copies the value once into a buffer of its own; a key that is read between any two Appends
//! therefore pays one copy for each. A grown buffer may be up to twice as large as its value, until the next
//! Put of the key. A Put of the same length writes over a buffer that nobody else holds.
//!
//! Invariant: a key's version is 1 at creation and steps by one; its create revision is at most its mod
//! revision.

use std::num::NonZeroU64;

use bytes::{Bytes, BytesMut};

use crate::ids::Revision;
use crate::kv::codec::wire::Sink;
use crate::kv::digest::{self, Hasher, Kind};

/// What a key holds.
pub(in crate::kv) struct Entry {
    value: Value,
    create_revision: Revision,
    mod_revision: Revision,
    /// From 1; so a slot without an entry takes no more room.
    version: NonZeroU64,
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
pub(in crate::kv) struct Held<'a> {
    /// `None`: only its length was asked for.
    pub(in crate::kv) value: Option<&'a Bytes>,
    pub(in crate::kv) value_bytes: usize,
    pub(in crate::kv) create_revision: Revision,
    pub(in crate::kv) mod_revision: Revision,
    pub(in crate::kv) version: u64,
    pub(in crate::kv) digest: u64,
}

impl Entry {
    /// A value that was put at a revision, over what the key held before.
    pub(in crate::kv) fn put(key: &[u8], value: &[u8], before: Option<Held<'_>>, at: Revision) -> Self {
        let value_hash = digest::of_value(value);
        Self::over(key, Value::Put(Bytes::copy_from_slice(value)), value_hash, before, at)
    }

    /// What a key held below, with a piece added at a revision.
    pub(in crate::kv) fn appended(key: &[u8], before: Held<'_>, piece: &[u8], at: Revision) -> Self {
        let mut value = Value::Put(before.value().clone());
        let value_hash = value.grow(piece);
        Self::over(key, value, value_hash, Some(before), at)
    }

    fn over(key: &[u8], value: Value, value_hash: u64, before: Option<Held<'_>>, at: Revision) -> Self {
        let (create_revision, version) =
            before.map_or((at, 1), |before| (before.create_revision, before.version + 1));
        assert!(create_revision <= at, "created at {create_revision}, changed at {at}");
        let digest = digest::of_entry(key, value_hash, create_revision, at, version);
        let version = NonZeroU64::new(version).expect("a version is counted from 1");
        Self { value, create_revision, mod_revision: at, version, digest }
    }

    /// Sets the value in place.
    pub(in crate::kv) fn replace(&mut self, key: &[u8], value: &[u8], at: Revision) {
        let value_hash = digest::of_value(value);
        self.value.set(value);
        self.changed(key, value_hash, at);
    }

    /// Adds to the end of the value in place.
    pub(in crate::kv) fn append(&mut self, key: &[u8], piece: &[u8], at: Revision) {
        let value_hash = self.value.grow(piece);
        self.changed(key, value_hash, at);
    }

    /// What its value takes beside it.
    pub(in crate::kv) fn memory_bytes(&self) -> usize {
        self.value.memory_bytes()
    }

    /// What it is, whatever it lies in.
    pub(in crate::kv) fn held(&self) -> Held<'_> {
        let value = self.value.bytes();
        Held {
            value: Some(value),
            value_bytes: value.len(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version.get(),
            digest: self.digest,
        }
    }

    /// Steps the version after the value was changed at a revision.
    fn changed(&mut self, key: &[u8], value_hash: u64, at: Revision) {
        assert!(at >= self.mod_revision, "changed at {at} after {}", self.mod_revision);
        assert!(self.create_revision <= self.mod_revision, "created at {} later", self.create_revision);
        self.mod_revision = at;
        self.version = self.version.checked_add(1).expect("nobody changes a key 2^64 times");
        self.digest = digest::of_entry(key, value_hash, self.create_revision, at, self.version.get());
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

const _: () = assert!(size_of::<Entry>() == 64);

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
}
