//! Sessions as bytes: the section of a table that makes retries safe across a restart.
//!
//! ```text
//! sessions   format: u8, 1 │ count: u32 │ session …
//!
//! session    id: u64 │ ttl_ms: u64 │ last_active: u64 │ acknowledged: u64 │ answers: list
//!
//! answer     sequence: u64 │ request_hash: u64 │ outcome: blob, as answers are drawn
//! ```
//!
//! Ids and sequences are strictly ascending. Digests and counts of bytes are not written: they follow from
//! the rest.
//!
//! Invariants:
//! - As in the module above, but for one: what an outcome holds is a copy of its own bytes. A stored answer
//!   lives for as long as its client likes, and would pin the bytes of all sessions.

use bytes::Bytes;

use super::wire::{Reader, Sink};
use super::{DecodeError, FORMAT, answer, put_outcome};
use crate::ids::{Index, Sequence, SessionId};
use crate::kv::answer::{Applied, Refusal};

/// A session as it is written and read.
pub(in crate::kv) struct SessionImage {
    pub(in crate::kv) id: SessionId,
    pub(in crate::kv) ttl_ms: u64,
    pub(in crate::kv) last_active: Index,
    pub(in crate::kv) acknowledged: Sequence,
    pub(in crate::kv) answers: Vec<SessionAnswer>,
}

/// A stored answer of a session.
pub(in crate::kv) struct SessionAnswer {
    pub(in crate::kv) sequence: Sequence,
    pub(in crate::kv) request_hash: u64,
    pub(in crate::kv) outcome: Result<Applied, Refusal>,
}

/// Writes what comes before the sessions.
pub(in crate::kv) fn put_sessions_header(count: usize, sink: &mut impl Sink) {
    sink.u8(FORMAT);
    sink.count(count);
}

/// Writes a session.
pub(in crate::kv) fn put_session(session: &SessionImage, sink: &mut impl Sink) {
    sink.u64(session.id.0);
    sink.u64(session.ttl_ms);
    sink.u64(session.last_active.0);
    sink.u64(session.acknowledged.0);
    sink.list(&session.answers, |sink, answer| {
        sink.u64(answer.sequence.0);
        sink.u64(answer.request_hash);
        let mut outcome = Vec::new();
        put_outcome(&answer.outcome, &mut outcome);
        sink.blob(&outcome);
    });
}

/// Reads sessions one by one, all that were written; `keep` takes each.
pub(in crate::kv) fn take_sessions(
    bytes: Bytes,
    mut keep: impl FnMut(SessionImage),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let format = reader.u8()?;
    if format != FORMAT {
        return Err(DecodeError::Format(format));
    }
    let count = reader.u32()?;
    let mut last = None;
    for _ in 0..count {
        let session = take_session(&mut reader)?;
        if last.is_some_and(|last| last >= session.id) {
            return Err(DecodeError::Unordered { what: "session", number: session.id.0 });
        }
        last = Some(session.id);
        keep(session);
    }
    reader.end()
}

fn take_session(reader: &mut Reader) -> Result<SessionImage, DecodeError> {
    let (id, ttl_ms) = (SessionId(reader.u64()?), reader.u64()?);
    let (last_active, acknowledged) = (Index(reader.u64()?), Sequence(reader.u64()?));
    let answers = reader.list(take_answer)?;
    let mut last = acknowledged;
    for answer in &answers {
        if answer.sequence <= last {
            return Err(DecodeError::Unordered { what: "stored answer", number: answer.sequence.0 });
        }
        last = answer.sequence;
    }
    Ok(SessionImage { id, ttl_ms, last_active, acknowledged, answers })
}

fn take_answer(reader: &mut Reader) -> Result<SessionAnswer, DecodeError> {
    let (sequence, request_hash) = (Sequence(reader.u64()?), reader.u64()?);
    let mut own = Reader::new(Bytes::copy_from_slice(&reader.blob()?));
    let outcome = answer::take_outcome(&mut own)?;
    own.end()?;
    Ok(SessionAnswer { sequence, request_hash, outcome })
}
