//! Commands: what goes through the log and changes a shard, and the identities that make retries safe.
//!
//! Invariants:
//! - A command is plain data and holds everything that its decision needs besides the state: applying it
//!   reads no clock, no chance and no setting but the limits that all replicas share.
//! - `Bytes` in a decoded command are slices of what it was decoded from; the state copies what it keeps.
//!
//! Deliberately absent: which shard a key belongs to. Routing was done before a command is made.

use bytes::Bytes;

use crate::ids::{Index, Revision, Sequence, SessionId, ShardId};

/// The bits of a [`SessionId`] that hold the log index of its Open entry; the shard is in those above.
const SESSION_INDEX_BITS: u32 = 48;

/// The shards that a [`SessionId`] can name: 65536, four times the number of slots.
pub const SESSION_SHARDS_MAX: u32 = 1 << (u64::BITS - SESSION_INDEX_BITS);

/// The id of the session opened by the entry at `index` of `shard`'s log.
///
/// ```text
///  63            48 47                                             0
/// ┌────────────────┬────────────────────────────────────────────────┐
/// │ shard          │ log index of the Open entry, from 1            │
/// └────────────────┴────────────────────────────────────────────────┘
/// ```
///
/// Unique, since a shard's log has one entry at an index; never zero, since there is no entry at index 0. At
/// a million entries a second the indexes last for nine years.
#[must_use]
pub fn session_id(shard: ShardId, index: Index) -> SessionId {
    assert!(shard.0 < SESSION_SHARDS_MAX, "shard {shard} does not fit into a session id");
    assert!(
        index.0 > 0 && index.0 >> SESSION_INDEX_BITS == 0,
        "index {index} does not fit into a session id"
    );
    SessionId(u64::from(shard.0) << SESSION_INDEX_BITS | index.0)
}

/// The shard that a session belongs to. A client may have made the number up: the shard need not exist.
#[must_use]
pub fn session_shard(session: SessionId) -> ShardId {
    let shard = u32::try_from(session.0 >> SESSION_INDEX_BITS).expect("16 bits are left after the shift");
    ShardId(shard)
}

/// What makes a request exactly-once: who asks, its how-many-eth request it is, and which answers it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// The session, of the shard of the keys that are written.
    pub session: SessionId,
    /// The request within the session, from 1.
    pub sequence: Sequence,
    /// The client has the answers of every sequence up to this one, which is below `sequence`.
    pub acknowledged: Sequence,
}

/// What is proposed to a shard's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// A change of keys.
    Write {
        /// With one, it is applied at most once however often it is in the log.
        id: Option<RequestId>,
        /// The change.
        write: Write,
    },
    /// Begins a session, named after this command's own place in the log.
    OpenSession {
        /// How long it outlives its last request, in milliseconds; 0: the default.
        ttl_ms: u64,
    },
    /// Says that a session's client is alive.
    KeepAlive {
        /// The session.
        session: SessionId,
        /// As in [`RequestId::acknowledged`].
        acknowledged: Sequence,
    },
    /// Ends a session at its client's wish.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// Ends a session whose client was silent for its ttl, by the clock of the leader that proposes this. It
    /// has no effect where an entry touched the session after `last_active_index`, the last one that the
    /// leader knew of.
    Expire {
        /// The session.
        session: SessionId,
        /// The entry that touched it last when the leader decided.
        last_active_index: Index,
    },
}

impl Command {
    /// The session that the command is of, where it names one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Write { id, .. } => id.map(|id| id.session),
            Self::OpenSession { .. } => None,
            Self::KeepAlive { session, .. }
            | Self::CloseSession { session }
            | Self::Expire { session, .. } => Some(*session),
        }
    }

    /// The key that the command changes, where it is just one.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        match self {
            Self::Write {
                write: Write::Put { key, .. } | Write::Append { key, .. } | Write::Delete { key, .. },
                ..
            } => Some(key),
            Self::Write { write: Write::Txn(_), .. }
            | Self::OpenSession { .. }
            | Self::KeepAlive { .. }
            | Self::CloseSession { .. }
            | Self::Expire { .. } => None,
        }
    }
}

/// A change of keys: one atomic step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Sets a value.
    Put {
        /// The key.
        key: Bytes,
        /// Its value from here on.
        value: Bytes,
        /// Only if the key's mod revision is this one; 0: only if there is no such key.
        if_mod_revision: Option<Revision>,
        /// Whether the answer carries what was there before.
        return_previous: Previous,
    },
    /// Adds to the end of a value; a missing key counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// What is added.
        value: Bytes,
        /// As in [`Write::Put`].
        if_mod_revision: Option<Revision>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
        /// As in [`Write::Put`].
        if_mod_revision: Option<Revision>,
        /// Whether the answer carries what was there before.
        return_previous: Previous,
    },
    /// Several operations, depending on conditions.
    Txn(Txn),
}

/// Whether an answer carries what a key held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Previous {
    /// It does not.
    Omit,
    /// It does.
    Return,
}

/// If every condition holds, `then` is carried out, otherwise `otherwise`: all of it or, refused, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Txn {
    /// What has to hold of the state before.
    pub conditions: Vec<Condition>,
    /// In this order, each seeing those before it.
    pub then: Vec<Operation>,
    /// The same, where a condition does not hold.
    pub otherwise: Vec<Operation>,
}

/// One operation of a [`Txn`]. A branch writes a key at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reads a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// As [`Write::Put`].
    Put {
        /// The key.
        key: Bytes,
        /// Its value from here on.
        value: Bytes,
        /// Whether the answer carries what was there before.
        return_previous: Previous,
    },
    /// As [`Write::Append`].
    Append {
        /// The key.
        key: Bytes,
        /// What is added.
        value: Bytes,
    },
    /// As [`Write::Delete`].
    Delete {
        /// The key.
        key: Bytes,
        /// Whether the answer carries what was there before.
        return_previous: Previous,
    },
}

impl Operation {
    /// The key that is read or written.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Get { key }
            | Self::Put { key, .. }
            | Self::Append { key, .. }
            | Self::Delete { key, .. } => key,
        }
    }
}

/// What has to hold of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The key.
    pub key: Bytes,
    /// How what the key has is compared with the target: `LESS` holds where it is below the target.
    pub comparison: Comparison,
    /// What is compared, and with what.
    pub target: Target,
}

/// How a [`Condition`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Below the target.
    Less,
    /// Above the target.
    Greater,
}

/// What of a key a [`Condition`] compares, and with what. A missing key has 0 for the numbers; a condition on
/// the value of a missing key does not hold, whatever the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// How often it was changed since its creation.
    Version(u64),
    /// When it was created.
    CreateRevision(Revision),
    /// When it was changed last.
    ModRevision(Revision),
    /// Its value, compared byte by byte.
    Value(Bytes),
}
