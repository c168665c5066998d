//! Answers and refusals as bytes: what mesh and links carry, and what a session's stored answers are digested
//! by.
//!
//! ```text
//! applied   revision: u64 │ answer
//!
//! answer    1 │ succeeded: flag │ version: u64 │ previous: option kv             put
//!           2 │ succeeded: flag │ length: u64 │ version: u64                     append
//!           3 │ succeeded: flag │ existed: flag │ previous: option kv            delete
//!           4 │ succeeded: flag │ results: list                                  txn
//!           5 │ session: u64 │ ttl_ms: u64                                       session opened
//!           6 │ ttl_ms: u64                                                      kept alive
//!           7   session closed          8   expired          9   not expired
//!
//! result    1 │ kv: option                                                       get
//!           2 │ version: u64 │ previous: option kv                               put
//!           3 │ length: u64 │ version: u64                                       append
//!           4 │ existed: flag │ previous: option kv                              delete
//!
//! kv        create_revision: u64 │ mod_revision: u64 │ version: u64 │ key: blob │ value: blob
//!
//! refusal   1 session expired      2 sequence forgotten   3 sequence reused
//!           4 too many unacknowledged   5 too many answers   6 too many sessions
//!           7 │ limit: u8 │ value: u64 │ bound: u64
//!           8 │ malformed: u8
//!
//! outcome   1 │ applied
//!           2 │ refusal
//! ```
//!
//! Invariants: as in the module above.

use super::wire::{Length, Reader, Sink};
use super::{Body, DecodeError};
use crate::ids::{Revision, SessionId};
use crate::kv::answer::{Answer, Applied, KeyValue, LimitKind, Malformed, OperationResult, Refusal};

/// Writes what came of a command.
pub(in crate::kv) fn put_outcome<S: Sink>(outcome: &Result<Applied, Refusal>, sink: &mut S) {
    match outcome {
        Ok(applied) => {
            sink.u8(1);
            applied.put(sink);
        }
        Err(refusal) => {
            sink.u8(2);
            refusal.put(sink);
        }
    }
}

/// Reads what [`put_outcome`] wrote.
pub(super) fn take_outcome(reader: &mut Reader) -> Result<Result<Applied, Refusal>, DecodeError> {
    match reader.u8()? {
        1 => Applied::take(reader).map(Ok),
        2 => Refusal::take(reader).map(Err),
        tag => Err(DecodeError::Unknown { what: "outcome", tag }),
    }
}

/// The number of bytes that [`put_outcome`] writes.
pub(in crate::kv) fn outcome_len(outcome: &Result<Applied, Refusal>) -> usize {
    let mut length = Length(0);
    put_outcome(outcome, &mut length);
    length.0
}

impl Body for Applied {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.u64(self.revision.0);
        self.answer.put(sink);
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let revision = Revision(reader.u64()?);
        Ok(Self { revision, answer: Answer::take(reader)? })
    }
}

impl Body for Answer {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Put { succeeded, previous, version } => {
                sink.u8(1);
                sink.flag(*succeeded);
                sink.u64(*version);
                previous.put(sink);
            }
            Self::Append { succeeded, length, version } => {
                sink.u8(2);
                sink.flag(*succeeded);
                sink.u64(*length);
                sink.u64(*version);
            }
            Self::Delete { succeeded, existed, previous } => {
                sink.u8(3);
                sink.flag(*succeeded);
                sink.flag(*existed);
                previous.put(sink);
            }
            Self::Txn { succeeded, results } => {
                sink.u8(4);
                sink.flag(*succeeded);
                sink.list(results, |sink, result| result.put(sink));
            }
            Self::SessionOpened { session, ttl_ms } => {
                sink.u8(5);
                sink.u64(session.0);
                sink.u64(*ttl_ms);
            }
            Self::KeptAlive { ttl_ms } => {
                sink.u8(6);
                sink.u64(*ttl_ms);
            }
            Self::SessionClosed => sink.u8(7),
            Self::Expired => sink.u8(8),
            Self::NotExpired => sink.u8(9),
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => {
                let (succeeded, version) = (reader.flag()?, reader.u64()?);
                Self::Put { succeeded, previous: Body::take(reader)?, version }
            }
            2 => {
                let (succeeded, length) = (reader.flag()?, reader.u64()?);
                Self::Append { succeeded, length, version: reader.u64()? }
            }
            3 => {
                let (succeeded, existed) = (reader.flag()?, reader.flag()?);
                Self::Delete { succeeded, existed, previous: Body::take(reader)? }
            }
            4 => {
                let succeeded = reader.flag()?;
                Self::Txn { succeeded, results: reader.list(OperationResult::take)? }
            }
            5 => {
                let session = SessionId(reader.u64()?);
                Self::SessionOpened { session, ttl_ms: reader.u64()? }
            }
            6 => Self::KeptAlive { ttl_ms: reader.u64()? },
            7 => Self::SessionClosed,
            8 => Self::Expired,
            9 => Self::NotExpired,
            tag => return Err(DecodeError::Unknown { what: "answer", tag }),
        })
    }
}

impl Body for OperationResult {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Get(kv) => {
                sink.u8(1);
                kv.put(sink);
            }
            Self::Put { previous, version } => {
                sink.u8(2);
                sink.u64(*version);
                previous.put(sink);
            }
            Self::Append { length, version } => {
                sink.u8(3);
                sink.u64(*length);
                sink.u64(*version);
            }
            Self::Delete { existed, previous } => {
                sink.u8(4);
                sink.flag(*existed);
                previous.put(sink);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Get(Body::take(reader)?),
            2 => {
                let version = reader.u64()?;
                Self::Put { previous: Body::take(reader)?, version }
            }
            3 => {
                let length = reader.u64()?;
                Self::Append { length, version: reader.u64()? }
            }
            4 => {
                let existed = reader.flag()?;
                Self::Delete { existed, previous: Body::take(reader)? }
            }
            tag => return Err(DecodeError::Unknown { what: "result of an operation", tag }),
        })
    }
}

impl Body for KeyValue {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.u64(self.create_revision.0);
        sink.u64(self.mod_revision.0);
        sink.u64(self.version);
        sink.blob(&self.key);
        sink.blob(&self.value);
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (create_revision, mod_revision) = (Revision(reader.u64()?), Revision(reader.u64()?));
        let version = reader.u64()?;
        Ok(Self { key: reader.blob()?, value: reader.blob()?, create_revision, mod_revision, version })
    }
}

impl Body for Option<KeyValue> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.option(self.as_ref(), |sink, kv| kv.put(sink));
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.option(KeyValue::take)
    }
}

impl Body for Refusal {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::SessionExpired => sink.u8(1),
            Self::SequenceForgotten => sink.u8(2),
            Self::SequenceReused => sink.u8(3),
            Self::TooManyUnacknowledged => sink.u8(4),
            Self::TooManyAnswers => sink.u8(5),
            Self::TooManySessions => sink.u8(6),
            Self::Limit { limit, value, bound } => {
                sink.u8(7);
                limit.put(sink);
                sink.u64(*value);
                sink.u64(*bound);
            }
            Self::Malformed(malformed) => {
                sink.u8(8);
                malformed.put(sink);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::SessionExpired,
            2 => Self::SequenceForgotten,
            3 => Self::SequenceReused,
            4 => Self::TooManyUnacknowledged,
            5 => Self::TooManyAnswers,
            6 => Self::TooManySessions,
            7 => {
                let limit = LimitKind::take(reader)?;
                Self::Limit { limit, value: reader.u64()?, bound: reader.u64()? }
            }
            8 => Self::Malformed(Malformed::take(reader)?),
            tag => return Err(DecodeError::Unknown { what: "refusal", tag }),
        })
    }
}

impl Body for LimitKind {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.u8(match self {
            Self::KeyEmpty => 1,
            Self::KeyBytes => 2,
            Self::ValueBytes => 3,
            Self::TxnConditions => 4,
            Self::TxnOperations => 5,
            Self::CommandBytes => 6,
            Self::SessionTtlTooShort => 7,
            Self::SessionTtlTooLong => 8,
            Self::AppendedBytes => 9,
            Self::AnswerBytes => 10,
        });
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::KeyEmpty,
            2 => Self::KeyBytes,
            3 => Self::ValueBytes,
            4 => Self::TxnConditions,
            5 => Self::TxnOperations,
            6 => Self::CommandBytes,
            7 => Self::SessionTtlTooShort,
            8 => Self::SessionTtlTooLong,
            9 => Self::AppendedBytes,
            10 => Self::AnswerBytes,
            tag => return Err(DecodeError::Unknown { what: "limit", tag }),
        })
    }
}

impl Body for Malformed {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.u8(match self {
            Self::SequenceZero => 1,
            Self::AcknowledgesItself => 2,
            Self::KeyWrittenTwice => 3,
        });
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::SequenceZero,
            2 => Self::AcknowledgesItself,
            3 => Self::KeyWrittenTwice,
            tag => return Err(DecodeError::Unknown { what: "contradiction", tag }),
        })
    }
}
