//! The live keys of a shard in memory: sorted, counted, and summed up in a digest.
//!
//! A value is one contiguous, shared buffer, so a Get is a reference count and no copy. An Append takes the
//! buffer back where nobody else holds it and adds to its spare room: the cost is that of the piece,
//! amortized. Where an answer still holds the buffer (a Get being sent, a stored answer of a session), the
//! Append copies the value once into a buffer of its own; a key that is read between any two Appends
//! therefore pays one copy for each. A grown buffer may be up to twice as large as its value, until the next
//! Put of the key.
//!
//! Every key and value is copied when it comes in. A decoded command's bytes are slices of a network message
//! or a log batch, and `Bytes` does not tell how large that is: kept as they are, a value of ten bytes would
//! pin megabytes for as long as it lives. The copy is one pass over memory, beside the write to disk that
//! came before it.
//!
//! Invariants:
//! - `bytes` and `digest` are those of the entries, after every operation.
//! - A key's version is 1 at creation and steps by one; its create revision is at most its mod revision.
//!
//! Deliberately absent: limits and refusals. Whoever writes has decided before.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{Bytes, BytesMut};

use super::answer::KeyValue;
use super::codec::wire::Sink;
use super::digest::{self, Hasher, Kind};
use super::planted::planted;
use super::state::Config;
use crate::ids::Revision;

/// The live keys.
pub(super) struct Store {
    config: Config,
    entries: BTreeMap<Bytes, Entry>,
    bytes: u64,
    digest: u64,
}

/// What a key holds.
struct Entry {
    value: Bytes,
    create_revision: Revision,
    mod_revision: Revision,
    version: u64,
    /// This entry's part of the store's digest.
    digest: u64,
    /// Of a value that grew by appending: its hash so far, so that the next piece is all that has to be
    /// hashed.
    growth: Option<Box<Hasher>>,
}

impl Store {
    /// No keys.
    pub(super) fn new(config: Config) -> Self {
        Self { config, entries: BTreeMap::new(), bytes: 0, digest: 0 }
    }

    /// A key and what it holds.
    pub(super) fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.entries.get_key_value(key).map(|(key, entry)| entry.key_value(key))
    }

    /// The length of a value in bytes.
    pub(super) fn length(&self, key: &[u8]) -> Option<usize> {
        self.entries.get(key).map(|entry| entry.value.len())
    }

    /// The version of a key; 0: there is no such key.
    pub(super) fn version(&self, key: &[u8]) -> u64 {
        self.entries.get(key).map_or(0, |entry| entry.version)
    }

    /// The revision that changed a key last; 0: there is no such key.
    pub(super) fn mod_revision(&self, key: &[u8]) -> Revision {
        self.entries.get(key).map_or(Revision(0), |entry| entry.mod_revision)
    }

    /// The keys from `start`, inclusive, to `end`, exclusive; an empty `end` is that of the keyspace.
    pub(super) fn range(&self, start: &[u8], end: &[u8]) -> impl Iterator<Item = KeyValue> + '_ {
        let is_empty = !end.is_empty() && start >= end;
        let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let bounds = (Bound::Included(start), end);
        let entries = (!is_empty).then(|| self.entries.range::<[u8], _>(bounds));
        entries.into_iter().flatten().map(|(key, entry)| entry.key_value(key))
    }

    /// Sets a value. The version of the key afterwards.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], at: Revision) -> u64 {
        let value_hash = digest::of_value(value);
        let owned = Bytes::copy_from_slice(value);
        let Some(entry) = self.entries.get_mut(key) else {
            self.create(key, owned, value_hash, at);
            return 1;
        };
        self.bytes = self.bytes - entry.value.len() as u64 + value.len() as u64;
        entry.value = owned;
        entry.growth = None;
        self.digest = self.digest.wrapping_add(entry.changed(key, value_hash, at));
        entry.version
    }

    /// Adds to the end of a value. Its length and the version of the key afterwards.
    pub(super) fn append(&mut self, key: &[u8], piece: &[u8], at: Revision) -> (u64, u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return (piece.len() as u64, self.put(key, piece, at));
        };
        self.bytes += piece.len() as u64;
        let value_hash = entry.grow(piece);
        self.digest = self.digest.wrapping_add(entry.changed(key, value_hash, at));
        (entry.value.len() as u64, entry.version)
    }

    /// Removes a key. What it held.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<KeyValue> {
        let (key, entry) = self.entries.remove_entry(key)?;
        let bytes = (key.len() + entry.value.len()) as u64;
        assert!(self.bytes >= bytes, "{bytes} bytes are removed of {}", self.bytes);
        self.bytes -= bytes;
        assert!(!self.entries.is_empty() || self.bytes == 0, "no keys have {} bytes", self.bytes);
        if !planted!(self.config, DigestKeepsDeleted) {
            self.digest = self.digest.wrapping_sub(entry.digest);
        }
        Some(entry.key_value(&key))
    }

    /// The number of keys.
    pub(super) fn keys(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The bytes of all keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The wrapping sum of the hashes of all entries.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    fn create(&mut self, key: &[u8], value: Bytes, value_hash: u64, at: Revision) {
        let digest = digest::of_entry(key, value_hash, at, at, 1);
        self.bytes += (key.len() + value.len()) as u64;
        self.digest = self.digest.wrapping_add(digest);
        let entry = Entry { value, create_revision: at, mod_revision: at, version: 1, digest, growth: None };
        self.entries.insert(Bytes::copy_from_slice(key), entry);
    }
}

impl Entry {
    fn key_value(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }

    /// Steps the version after the value was changed at a revision. How the store's digest changes.
    fn changed(&mut self, key: &[u8], value_hash: u64, at: Revision) -> u64 {
        assert!(at >= self.mod_revision, "changed at {at} after {}", self.mod_revision);
        assert!(self.create_revision <= self.mod_revision, "created at {} later", self.create_revision);
        assert!(self.version > 0, "a live key has a version from 1");
        self.mod_revision = at;
        self.version += 1;
        let before = self.digest;
        self.digest = digest::of_entry(key, value_hash, self.create_revision, at, self.version);
        self.digest.wrapping_sub(before)
    }

    /// Adds to the end of the value. The hash of the whole.
    fn grow(&mut self, piece: &[u8]) -> u64 {
        let value = std::mem::take(&mut self.value);
        let growth = self.growth.get_or_insert_with(|| {
            let mut hasher = Hasher::new(Kind::Value);
            hasher.put(&value);
            Box::new(hasher)
        });
        growth.put(piece);
        let mut buffer = value.try_into_mut().unwrap_or_else(|shared| {
            let mut copy = BytesMut::with_capacity(2 * shared.len() + piece.len());
            copy.extend_from_slice(&shared);
            copy
        });
        buffer.extend_from_slice(piece);
        self.value = buffer.freeze();
        growth.digest()
    }
}
