//! Queries and their answers as bytes: what mesh and links carry.
//!
//! ```text
//! query   1 │ key: blob                                                                    get
//!         2 │ keys: u8 (1 keys only, 2 whole) │ limit: u32 │ bytes_max: u32
//!           │ start: blob │ end: blob                                                      scan
//!         3 │ conditions: list │ then: list of blobs │ otherwise: list of blobs            txn
//!
//! answer  1 │ kv: option                                                                   get
//!         2 │ kvs: list │ more: option blob                                                scan
//!         3 │ succeeded: flag │ results: list of option kv                                 txn
//! ```
//!
//! Conditions are drawn at the codec of commands, a kv at that of answers. Invariants: as in the module
//! above.

use super::wire::{Reader, Sink};
use super::{Body, DecodeError};
use crate::kv::answer::KeyValue;
use crate::kv::command::Condition;
use crate::kv::query::{Query, QueryAnswer, ReadTxn, ScanKeys};

impl Body for Query {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Get { key } => {
                sink.u8(1);
                sink.blob(key);
            }
            Self::Scan { start, end, limit, bytes_max, keys } => {
                sink.u8(2);
                keys.put(sink);
                sink.u32(*limit);
                sink.u32(*bytes_max);
                sink.blob(start);
                sink.blob(end);
            }
            Self::Txn(ReadTxn { conditions, then, otherwise }) => {
                sink.u8(3);
                sink.list(conditions, |sink, condition| condition.put(sink));
                sink.list(then, |sink, key| sink.blob(key));
                sink.list(otherwise, |sink, key| sink.blob(key));
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Get { key: reader.blob()? },
            2 => {
                let keys = ScanKeys::take(reader)?;
                let (limit, bytes_max) = (reader.u32()?, reader.u32()?);
                Self::Scan { start: reader.blob()?, end: reader.blob()?, limit, bytes_max, keys }
            }
            3 => {
                let conditions = reader.list(Condition::take)?;
                let then = reader.list(Reader::blob)?;
                Self::Txn(ReadTxn { conditions, then, otherwise: reader.list(Reader::blob)? })
            }
            tag => return Err(DecodeError::Unknown { what: "query", tag }),
        })
    }
}

impl Body for ScanKeys {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.u8(match self {
            Self::KeysOnly => 1,
            Self::Whole => 2,
        });
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::KeysOnly),
            2 => Ok(Self::Whole),
            tag => Err(DecodeError::Unknown { what: "part of a key to scan", tag }),
        }
    }
}

impl Body for QueryAnswer {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Get(kv) => {
                sink.u8(1);
                kv.put(sink);
            }
            Self::Scan { kvs, more } => {
                sink.u8(2);
                sink.list(kvs, |sink, kv| kv.put(sink));
                sink.option(more.as_ref(), |sink, key| sink.blob(key));
            }
            Self::Txn { succeeded, results } => {
                sink.u8(3);
                sink.flag(*succeeded);
                sink.list(results, |sink, kv| kv.put(sink));
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Get(Body::take(reader)?),
            2 => {
                let kvs = reader.list(KeyValue::take)?;
                Self::Scan { kvs, more: reader.option(Reader::blob)? }
            }
            3 => {
                let succeeded = reader.flag()?;
                Self::Txn { succeeded, results: reader.list(Body::take)? }
            }
            tag => return Err(DecodeError::Unknown { what: "answer to a query", tag }),
        })
    }
}
