//! What bounds a shard's state: sizes of keys and values, operations of a Txn, answers, sessions.
//!
//! Invariants:
//! - Every replica of a shard has the same limits: some are decided when an entry is applied, and a replica
//!   with another limit would decide otherwise. They belong to the settings that nodes compare when they
//!   meet.
//! - Every limit is above zero.
//!
//! It deliberately does not know of what bounds a connection or a queue: those are the edge's own.

use super::table::ENTRY_BYTES_MAX;

/// The bytes that a key and value in an answer count beyond their own: room for whatever frames them on the
/// wire.
pub const CARRIED_OVERHEAD_BYTES: usize = 64;

/// What bounds a shard's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The longest key, in bytes. The shortest is one byte. 4 KiB.
    pub key_bytes_max: usize,
    /// The longest value, in bytes, whether put or grown by appending. 1 MiB.
    pub value_bytes_max: usize,
    /// The most conditions of a Txn, and the most operations of each of its branches. 128.
    pub txn_operations_max: usize,
    /// The longest encoded command, in bytes: what the log has to hold as one entry. 4 MiB.
    pub command_bytes_max: usize,
    /// The most bytes of keys and values that one answer carries, each pair counting
    /// [`CARRIED_OVERHEAD_BYTES`] more. 4 MiB less 16 KiB, so that a message of 4 MiB holds it.
    pub answer_bytes_max: usize,
    /// The most keys in a page of a Scan. 4096, so that one page does not hold up a core.
    pub scan_keys_max: u32,
    /// The shortest time after which an idle session ends, in milliseconds. 1 s.
    pub session_ttl_ms_min: u64,
    /// The longest such time, in milliseconds. 1 h.
    pub session_ttl_ms_max: u64,
    /// The time that an Open with ttl 0 gets, in milliseconds. 60 s.
    pub session_ttl_ms_default: u64,
    /// The most sessions of one shard. 16384.
    pub sessions_max: usize,
    /// How far beyond `acknowledged` a sequence may be, which is also the most answers that a session keeps.
    /// 1024.
    pub session_unacknowledged_max: u64,
    /// A session whose stored answers have this many bytes is given no more. One answer may overshoot it. 4
    /// MiB.
    pub session_answer_bytes_max: usize,
    /// The same for all sessions of a shard together. 256 MiB.
    pub sessions_answer_bytes_max: usize,
}

impl Limits {
    /// The limits of a cluster that sets none.
    pub const DEFAULT: Self = Self {
        key_bytes_max: 4 << 10,
        value_bytes_max: 1 << 20,
        txn_operations_max: 128,
        command_bytes_max: 4 << 20,
        answer_bytes_max: (4 << 20) - (16 << 10),
        scan_keys_max: 4096,
        session_ttl_ms_min: 1000,
        session_ttl_ms_max: 3_600_000,
        session_ttl_ms_default: 60_000,
        sessions_max: 16_384,
        session_unacknowledged_max: 1024,
        session_answer_bytes_max: 4 << 20,
        sessions_answer_bytes_max: 256 << 20,
    };

    /// Whether one limit leaves room for what another allows: the largest key and value must fit into one
    /// command, into one answer and into a table, and the default ttl lie within its bounds.
    #[must_use]
    pub const fn is_consistent(&self) -> bool {
        let largest = self.key_bytes_max + self.value_bytes_max + CARRIED_OVERHEAD_BYTES;
        largest <= ENTRY_BYTES_MAX
            && self.key_bytes_max > 0
            && self.value_bytes_max > 0
            && self.txn_operations_max > 0
            && self.scan_keys_max > 0
            && self.sessions_max > 0
            && self.session_unacknowledged_max > 0
            && self.session_answer_bytes_max > 0
            && self.sessions_answer_bytes_max > 0
            && self.command_bytes_max >= largest
            && self.answer_bytes_max >= largest
            && self.session_ttl_ms_min > 0
            && self.session_ttl_ms_min <= self.session_ttl_ms_default
            && self.session_ttl_ms_default <= self.session_ttl_ms_max
    }
}

const _: () = assert!(Limits::DEFAULT.is_consistent(), "the defaults leave room for each other");

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
