//! Queries: what is read without going through the log, and what comes of it.
//!
//! Invariants:
//! - A query cannot change anything: its Txn has reads alone.
//! - An answer is bounded: a page of a Scan by its limits, a Txn by refusal.
//! - Where a page says that there is more, that is beyond where the page began. It may have no key: many were
//!   deleted there, and what a page passes is bounded too.
//!
//! Deliberately absent: how fresh the state has to be. Whoever asks the state has waited for that.

use bytes::Bytes;

use super::answer::KeyValue;
use super::command::{Condition, Operation, Txn};

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// One key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// A page of keys in order.
    Scan {
        /// The first key, inclusive; empty: from the beginning.
        start: Bytes,
        /// Where it ends, exclusive; empty: at the end of the keyspace.
        end: Bytes,
        /// The most keys of the page; 0: as many as the other limits allow.
        limit: u32,
        /// The most bytes of the page, each key counting some more than its own; the first key that is found
        /// comes always.
        bytes_max: u32,
        /// What of each key is wanted.
        keys: ScanKeys,
    },
    /// Several keys, depending on conditions, at one moment.
    Txn(ReadTxn),
}

impl Query {
    /// The key that is read, where it is just one.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        match self {
            Self::Get { key } => Some(key),
            Self::Scan { .. } | Self::Txn(_) => None,
        }
    }
}

/// What a Scan brings of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScanKeys {
    /// Everything but the value, which is empty.
    KeysOnly,
    /// Everything.
    Whole,
}

/// A Txn that reads alone. If every condition holds, the keys of `then` are read, otherwise those of
/// `otherwise`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadTxn {
    /// What has to hold.
    pub conditions: Vec<Condition>,
    /// The keys to read, in this order.
    pub then: Vec<Bytes>,
    /// The same, where a condition does not hold.
    pub otherwise: Vec<Bytes>,
}

impl Txn {
    /// The same Txn as a query, or itself back where an operation of either branch writes.
    pub fn into_read(self) -> Result<ReadTxn, Self> {
        let reads = |branch: &[Operation]| -> Option<Vec<Bytes>> { branch.iter().map(read_key).collect() };
        match (reads(&self.then), reads(&self.otherwise)) {
            (Some(then), Some(otherwise)) => Ok(ReadTxn { conditions: self.conditions, then, otherwise }),
            (None, _) | (_, None) => Err(self),
        }
    }
}

/// The key of an operation that reads, `None` of one that writes.
fn read_key(operation: &Operation) -> Option<Bytes> {
    match operation {
        Operation::Get { key } => Some(key.clone()),
        Operation::Put { .. } | Operation::Append { .. } | Operation::Delete { .. } => None,
    }
}

/// What a [`Query`] found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum QueryAnswer {
    /// Of [`Query::Get`]: `None` where there is no such key.
    Get(Option<KeyValue>),
    /// Of [`Query::Scan`].
    Scan {
        /// In order of keys.
        kvs: Vec<KeyValue>,
        /// Where the next page starts: what was not looked at, or had no room. `None`: there is no more. A
        /// page that has it may be empty.
        more: Option<Bytes>,
    },
    /// Of [`Query::Txn`].
    Txn {
        /// Whether every condition held.
        succeeded: bool,
        /// One for each key read.
        results: Vec<Option<KeyValue>>,
    },
}

impl QueryAnswer {
    /// About how many bytes it holds, for the limits of queues.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.encoded_len()
    }
}
