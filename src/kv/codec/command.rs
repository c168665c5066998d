//! Commands as bytes: the payload of the log's entries.
//!
//! ```text
//! command    1 │ write                                                          a write without identity
//!            2 │ session: u64 │ sequence: u64 │ acknowledged: u64 │ write        a write with one
//!            3 │ ttl_ms: u64                                                    open session
//!            4 │ session: u64 │ acknowledged: u64                               keep alive
//!            5 │ session: u64                                                   close session
//!            6 │ session: u64 │ last_active_index: u64                          expire
//!
//! write      1 │ return_previous: flag │ if_mod_revision: option u64 │ key: blob │ value: blob     put
//!            2 │ if_mod_revision: option u64 │ key: blob │ value: blob                             append
//!            3 │ return_previous: flag │ if_mod_revision: option u64 │ key: blob                   delete
//!            4 │ conditions: list │ then: list of operations │ otherwise: list of operations       txn
//!
//! operation  1 │ key: blob                                                      get
//!            2 │ return_previous: flag │ key: blob │ value: blob                put
//!            3 │ key: blob │ value: blob                                        append
//!            4 │ return_previous: flag │ key: blob                              delete
//!
//! condition  comparison: u8 (1 =, 2 ≠, 3 <, 4 >) │ target │ key: blob
//! target     1 │ version: u64
//!            2 │ create_revision: u64
//!            3 │ mod_revision: u64
//!            4 │ value: blob
//! ```
//!
//! Invariants: as in the module above. A write's body is what resends of a request are compared by, so it is
//! without the identity.

use super::wire::{Reader, Sink};
use super::{Body, DecodeError};
use crate::ids::{Index, Revision, Sequence, SessionId};
use crate::kv::command::{
    Command, Comparison, Condition, Operation, Previous, RequestId, Target, Txn, Write,
};

impl Body for Command {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Write { id: None, write } => {
                sink.u8(1);
                write.put(sink);
            }
            Self::Write { id: Some(id), write } => {
                sink.u8(2);
                id.put(sink);
                write.put(sink);
            }
            Self::OpenSession { ttl_ms } => {
                sink.u8(3);
                sink.u64(*ttl_ms);
            }
            Self::KeepAlive { session, acknowledged } => {
                sink.u8(4);
                sink.u64(session.0);
                sink.u64(acknowledged.0);
            }
            Self::CloseSession { session } => {
                sink.u8(5);
                sink.u64(session.0);
            }
            Self::Expire { session, last_active_index } => {
                sink.u8(6);
                sink.u64(session.0);
                sink.u64(last_active_index.0);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Write { id: None, write: Write::take(reader)? },
            2 => {
                let id = Some(RequestId::take(reader)?);
                Self::Write { id, write: Write::take(reader)? }
            }
            3 => Self::OpenSession { ttl_ms: reader.u64()? },
            4 => {
                let session = SessionId(reader.u64()?);
                Self::KeepAlive { session, acknowledged: Sequence(reader.u64()?) }
            }
            5 => Self::CloseSession { session: SessionId(reader.u64()?) },
            6 => {
                let session = SessionId(reader.u64()?);
                Self::Expire { session, last_active_index: Index(reader.u64()?) }
            }
            tag => return Err(DecodeError::Unknown { what: "command", tag }),
        })
    }
}

impl Body for RequestId {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.u64(self.session.0);
        sink.u64(self.sequence.0);
        sink.u64(self.acknowledged.0);
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let session = SessionId(reader.u64()?);
        let sequence = Sequence(reader.u64()?);
        Ok(Self { session, sequence, acknowledged: Sequence(reader.u64()?) })
    }
}

impl Body for Write {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Put { key, value, if_mod_revision, return_previous } => {
                sink.u8(1);
                return_previous.put(sink);
                put_revision(sink, *if_mod_revision);
                sink.blob(key);
                sink.blob(value);
            }
            Self::Append { key, value, if_mod_revision } => {
                sink.u8(2);
                put_revision(sink, *if_mod_revision);
                sink.blob(key);
                sink.blob(value);
            }
            Self::Delete { key, if_mod_revision, return_previous } => {
                sink.u8(3);
                return_previous.put(sink);
                put_revision(sink, *if_mod_revision);
                sink.blob(key);
            }
            Self::Txn(Txn { conditions, then, otherwise }) => {
                sink.u8(4);
                sink.list(conditions, |sink, condition| condition.put(sink));
                sink.list(then, |sink, operation| operation.put(sink));
                sink.list(otherwise, |sink, operation| operation.put(sink));
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => {
                let return_previous = Previous::take(reader)?;
                let if_mod_revision = take_revision(reader)?;
                Self::Put { key: reader.blob()?, value: reader.blob()?, if_mod_revision, return_previous }
            }
            2 => {
                let if_mod_revision = take_revision(reader)?;
                Self::Append { key: reader.blob()?, value: reader.blob()?, if_mod_revision }
            }
            3 => {
                let return_previous = Previous::take(reader)?;
                let if_mod_revision = take_revision(reader)?;
                Self::Delete { key: reader.blob()?, if_mod_revision, return_previous }
            }
            4 => {
                let conditions = reader.list(Condition::take)?;
                let then = reader.list(Operation::take)?;
                Self::Txn(Txn { conditions, then, otherwise: reader.list(Operation::take)? })
            }
            tag => return Err(DecodeError::Unknown { what: "write", tag }),
        })
    }
}

impl Body for Operation {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Get { key } => {
                sink.u8(1);
                sink.blob(key);
            }
            Self::Put { key, value, return_previous } => {
                sink.u8(2);
                return_previous.put(sink);
                sink.blob(key);
                sink.blob(value);
            }
            Self::Append { key, value } => {
                sink.u8(3);
                sink.blob(key);
                sink.blob(value);
            }
            Self::Delete { key, return_previous } => {
                sink.u8(4);
                return_previous.put(sink);
                sink.blob(key);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Get { key: reader.blob()? },
            2 => {
                let return_previous = Previous::take(reader)?;
                Self::Put { key: reader.blob()?, value: reader.blob()?, return_previous }
            }
            3 => Self::Append { key: reader.blob()?, value: reader.blob()? },
            4 => {
                let return_previous = Previous::take(reader)?;
                Self::Delete { key: reader.blob()?, return_previous }
            }
            tag => return Err(DecodeError::Unknown { what: "operation", tag }),
        })
    }
}

impl Body for Condition {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.u8(match self.comparison {
            Comparison::Equal => 1,
            Comparison::NotEqual => 2,
            Comparison::Less => 3,
            Comparison::Greater => 4,
        });
        self.target.put(sink);
        sink.blob(&self.key);
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let comparison = match reader.u8()? {
            1 => Comparison::Equal,
            2 => Comparison::NotEqual,
            3 => Comparison::Less,
            4 => Comparison::Greater,
            tag => return Err(DecodeError::Unknown { what: "comparison", tag }),
        };
        let target = Target::take(reader)?;
        Ok(Self { key: reader.blob()?, comparison, target })
    }
}

impl Body for Target {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Version(version) => {
                sink.u8(1);
                sink.u64(*version);
            }
            Self::CreateRevision(revision) => {
                sink.u8(2);
                sink.u64(revision.0);
            }
            Self::ModRevision(revision) => {
                sink.u8(3);
                sink.u64(revision.0);
            }
            Self::Value(value) => {
                sink.u8(4);
                sink.blob(value);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Version(reader.u64()?),
            2 => Self::CreateRevision(Revision(reader.u64()?)),
            3 => Self::ModRevision(Revision(reader.u64()?)),
            4 => Self::Value(reader.blob()?),
            tag => return Err(DecodeError::Unknown { what: "target of a condition", tag }),
        })
    }
}

impl Body for Previous {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.flag(*self == Self::Return);
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(if reader.flag()? { Self::Return } else { Self::Omit })
    }
}

fn put_revision<S: Sink>(sink: &mut S, revision: Option<Revision>) {
    sink.option(revision.as_ref(), |sink, revision| sink.u64(revision.0));
}

fn take_revision(reader: &mut Reader) -> Result<Option<Revision>, DecodeError> {
    reader.option(|reader| reader.u64().map(Revision))
}
