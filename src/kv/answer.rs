//! Answers: what came of a command, and why one was refused.
//!
//! Invariants:
//! - A refused command changed no key and no revision. (It may have touched its session: it shows a client
//!   alive.)
//! - An answer holds bytes that the state owns, never a slice of the command's buffer, so that a stored
//!   answer or one that waits for a slow client pins no log or network buffer.

use std::fmt;

use bytes::Bytes;

use crate::ids::{Revision, SessionId};

/// A key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The revision that created it.
    pub create_revision: Revision,
    /// The revision that changed it last.
    pub mod_revision: Revision,
    /// 1 at creation, one more with every change, 1 again after a delete.
    pub version: u64,
}

/// What came of a command that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Applied {
    /// The revision that a write made; the shard's where nothing was written; a resend has that of the first
    /// time.
    pub revision: Revision,
    /// The answer.
    pub answer: Answer,
}

/// The answer to a command, of the command's own kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Of a Put.
    Put {
        /// Whether the comparison held; otherwise nothing was changed.
        succeeded: bool,
        /// Where it was asked for, and whenever the comparison failed: what was there before, if anything.
        previous: Option<KeyValue>,
        /// Of the key as it is afterwards; 0: there is no such key.
        version: u64,
    },
    /// Of an Append.
    Append {
        /// Whether the comparison held; otherwise nothing was changed.
        succeeded: bool,
        /// Of the value as it is afterwards, in bytes.
        length: u64,
        /// Of the key as it is afterwards; 0: there is no such key.
        version: u64,
    },
    /// Of a Delete.
    Delete {
        /// Whether the comparison held; otherwise nothing was changed. Removing nothing succeeds.
        succeeded: bool,
        /// Whether there was such a key.
        existed: bool,
        /// Where it was asked for, and whenever the comparison failed: what was there before, if anything.
        previous: Option<KeyValue>,
    },
    /// Of a Txn.
    Txn {
        /// Whether every condition held.
        succeeded: bool,
        /// One for each operation of the branch that was carried out.
        results: Vec<OperationResult>,
    },
    /// Of an Open.
    SessionOpened {
        /// The new session.
        session: SessionId,
        /// How long it outlives its last request, in milliseconds.
        ttl_ms: u64,
    },
    /// Of a KeepAlive.
    KeptAlive {
        /// As in [`Answer::SessionOpened`].
        ttl_ms: u64,
    },
    /// Of a Close.
    SessionClosed,
    /// Of an Expire: the session has ended.
    Expired,
    /// Of an Expire: the session was touched since, and lives on.
    NotExpired,
}

impl Answer {
    /// About how many bytes it holds, for the limits of queues.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.encoded_len()
    }
}

/// The answer to one operation of a Txn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OperationResult {
    /// Of a Get: `None` where there is no such key.
    Get(Option<KeyValue>),
    /// Of a Put.
    Put {
        /// Where it was asked for: what was there before, if anything.
        previous: Option<KeyValue>,
        /// Of the key as it is afterwards.
        version: u64,
    },
    /// Of an Append.
    Append {
        /// Of the value as it is afterwards, in bytes.
        length: u64,
        /// Of the key as it is afterwards.
        version: u64,
    },
    /// Of a Delete.
    Delete {
        /// Whether there was such a key.
        existed: bool,
        /// Where it was asked for: what was there before, if anything.
        previous: Option<KeyValue>,
    },
}

/// Why a command or a query was refused: no key was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such session, or no more.
    SessionExpired,
    /// The sequence is at or below what the client acknowledged, and its answer is gone.
    SequenceForgotten,
    /// The sequence was used for another request.
    SequenceReused,
    /// The sequence is too far beyond `acknowledged`, or the session's stored answers are too many bytes: the
    /// client has to acknowledge. Not stored, so that the same request may be applied later.
    TooManyUnacknowledged,
    /// The stored answers of all sessions of the shard are too many bytes. Not stored either.
    TooManyAnswers,
    /// The shard has as many sessions as it may have.
    TooManySessions,
    /// A size or a count is beyond its limit.
    Limit {
        /// Which limit.
        limit: LimitKind,
        /// What was asked for.
        value: u64,
        /// What is allowed: the most, or of [`LimitKind::KeyEmpty`] and [`LimitKind::SessionTtlTooShort`] the
        /// least.
        bound: u64,
    },
    /// The command contradicts itself.
    Malformed(Malformed),
}

/// Which limit a command or query is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// A key without bytes.
    KeyEmpty,
    /// A key's bytes.
    KeyBytes,
    /// The bytes of a value, as it was sent.
    ValueBytes,
    /// The conditions of a Txn.
    TxnConditions,
    /// The operations of a branch of a Txn.
    TxnOperations,
    /// The bytes of a whole command.
    CommandBytes,
    /// A session's ttl, in milliseconds: too short.
    SessionTtlTooShort,
    /// A session's ttl, in milliseconds: too long.
    SessionTtlTooLong,
    /// The bytes of a value as an Append would have left it. Decided when it is applied.
    AppendedBytes,
    /// The bytes of what a Txn would answer. Decided when it is applied.
    AnswerBytes,
}

impl LimitKind {
    /// Whether the state decides it, not the request alone: the same request may pass at another time.
    #[must_use]
    pub fn is_of_state(self) -> bool {
        match self {
            Self::AppendedBytes | Self::AnswerBytes => true,
            Self::KeyEmpty
            | Self::KeyBytes
            | Self::ValueBytes
            | Self::TxnConditions
            | Self::TxnOperations
            | Self::CommandBytes
            | Self::SessionTtlTooShort
            | Self::SessionTtlTooLong => false,
        }
    }
}

/// How a command contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// A request's sequence is 0: they count from 1.
    SequenceZero,
    /// A request acknowledges its own answer, or one after it.
    AcknowledgesItself,
    /// A branch of a Txn writes a key twice.
    KeyWrittenTwice,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionExpired => write!(f, "the session has ended, or was never opened on this shard"),
            Self::SequenceForgotten => write!(f, "the sequence was acknowledged and its answer is gone"),
            Self::SequenceReused => write!(f, "the sequence was used for another request"),
            Self::TooManyUnacknowledged => write!(f, "the session has too many answers not yet acknowledged"),
            Self::TooManyAnswers => {
                write!(f, "the shard's sessions have too many answers not yet acknowledged")
            }
            Self::TooManySessions => write!(f, "the shard has as many sessions as it may have"),
            Self::Limit { limit, value, bound } => limit.describe(f, *value, *bound),
            Self::Malformed(Malformed::SequenceZero) => write!(f, "a request's sequence counts from 1"),
            Self::Malformed(Malformed::AcknowledgesItself) => {
                write!(f, "a request acknowledges sequences below its own alone")
            }
            Self::Malformed(Malformed::KeyWrittenTwice) => {
                write!(f, "a branch of a Txn writes a key at most once")
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl LimitKind {
    /// One sentence for a person: what it was, and what it may be.
    fn describe(self, f: &mut fmt::Formatter<'_>, value: u64, bound: u64) -> fmt::Result {
        match self {
            Self::KeyEmpty => write!(f, "a key has at least {bound} byte"),
            Self::KeyBytes => write!(f, "a key of {value} bytes: at most {bound}"),
            Self::ValueBytes => write!(f, "a value of {value} bytes: at most {bound}"),
            Self::TxnConditions => write!(f, "a Txn of {value} conditions: at most {bound}"),
            Self::TxnOperations => write!(f, "a branch of {value} operations: at most {bound}"),
            Self::CommandBytes => write!(f, "a command of {value} bytes: at most {bound}"),
            Self::SessionTtlTooShort => write!(f, "a ttl of {value} ms: at least {bound}"),
            Self::SessionTtlTooLong => write!(f, "a ttl of {value} ms: at most {bound}"),
            Self::AppendedBytes => write!(f, "the value would have {value} bytes: at most {bound}"),
            Self::AnswerBytes => write!(f, "the answer would have {value} bytes: at most {bound}"),
        }
    }
}
