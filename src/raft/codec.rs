//! A message as bytes, little-endian, fixed widths.
//!
//! ```text
//!  0        1        2        3        4        8        12       20
//!  | kind u8| detail | voice  | zero u8| from   | to     | term   | body by kind
//!  |        | u8     | u8     |        | u32    | u32    | u64    |
//!
//!  kind                 detail                    body
//!  1 PreVote            0                         last_index u64, last_term u64
//!  2 PreVoteReply       0 refused, 1 granted      asked u64
//!  3 Vote               0 timeout, 1 transfer     last_index u64, last_term u64
//!  4 VoteReply          0 refused, 1 granted      -
//!  5 Append             0                         prev_index u64, prev_term u64, commit u64, count u32,
//!                                                 count × { term u64, len u32, len bytes }
//!  6 accepted append    0 to 3: willingness       matched u64
//!  7 rejected append    0 to 3: willingness       prev_index u64, conflict_index u64, conflict_term u64,
//!                                                 conflict_first u64
//!  8 Heartbeat          0                         commit u64, commit_term u64, round u64
//!  9 HeartbeatReply     0 to 3: willingness       round u64, verified u64, durable u64
//! 10 TimeoutNow         0                         -
//! 11 Outdated           0                         -
//! 12 Snapshot           0                         index u64, term u64
//! 13 TermAsk            0                         request u64
//! 14 TermTold           0                         request u64
//!
//! voice: 0 whole, 1 damaged, 2 healing, 3 forgetful
//! willingness: 0 willing, 1 draining, 2 short, 3 full
//! ```
//!
//! An entry's index is not sent: the first follows `prev_index`, each other the one before it. A message is
//! never kept on disk, so no crash can cut one short; the link that carries it has its own length, checksum
//! and format number.
//!
//! Invariants:
//! - Decoding what was encoded gives the same message, and encoding what was decoded the same bytes.
//! - A length is checked against what is there before anything is allocated for it.
//! - Entries' data are slices of the buffer that was decoded: no copy. They keep that buffer alive.
//!
//! Deliberately absent: whether the message makes sense. That is [`super::Raft::step`]'s to judge.

use bytes::{Buf, Bytes};

use crate::ids::{Index, NodeId, Term};

use super::message::{
    APPEND_ENTRIES_MAX, AppendOutcome, Ballot, Body, Campaign, ENTRY_BYTES_MAX, Entry, Message, Voice,
    Willingness,
};

/// The longest message: an append of one entry of the largest size.
pub const MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + 4096;

/// The bytes of an entry beside its data.
const ENTRY_HEADER_BYTES: usize = 12;

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const APPEND_ACCEPTED: u8 = 6;
const APPEND_REJECTED: u8 = 7;
const HEARTBEAT: u8 = 8;
const HEARTBEAT_REPLY: u8 = 9;
const TIMEOUT_NOW: u8 = 10;
const OUTDATED: u8 = 11;
const SNAPSHOT: u8 = 12;
const TERM_ASK: u8 = 13;
const TERM_TOLD: u8 = 14;

/// Why bytes are no message. The peer, or the way from it, is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends before it should.
    TooShort,
    /// Bytes are left over.
    TooLong,
    /// A kind of message that is not known.
    KindUnknown(u8),
    /// A detail that this kind does not have.
    DetailUnknown(u8),
    /// A voice that is not known.
    VoiceUnknown(u8),
    /// Bytes that must be zero are not.
    ReservedSet,
    /// More than a limit allows, or an index past the last number.
    OverLimit,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort => write!(f, "the message ends early"),
            Self::TooLong => write!(f, "the message has bytes left over"),
            Self::KindUnknown(kind) => write!(f, "no message has kind {kind}"),
            Self::DetailUnknown(detail) => write!(f, "a message of this kind has no detail {detail}"),
            Self::VoiceUnknown(voice) => write!(f, "no message has voice {voice}"),
            Self::ReservedSet => write!(f, "the message's reserved bytes are not zero"),
            Self::OverLimit => write!(f, "the message passes a limit"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl Message {
    /// Writes the message behind what is in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, detail) = head(&self.body);
        out.extend_from_slice(&[kind, detail, voice_code(self.voice), 0]);
        out.extend_from_slice(&self.from.0.to_le_bytes());
        out.extend_from_slice(&self.to.0.to_le_bytes());
        put(out, &[self.term.0]);
        match &self.body {
            Body::PreVote { last_index, last_term } | Body::Vote { last_index, last_term, cause: _ } => {
                put(out, &[last_index.0, last_term.0]);
            }
            Body::PreVoteReply { asked, ballot: _ } => put(out, &[asked.0]),
            Body::VoteReply { ballot: _ } | Body::TimeoutNow | Body::Outdated => {}
            Body::Append { prev_index, prev_term, commit, entries } => {
                put(out, &[prev_index.0, prev_term.0, commit.0]);
                encode_entries(entries, out);
            }
            Body::AppendReply { outcome, willing: _ } => encode_outcome(outcome, out),
            Body::Heartbeat { commit, commit_term, round } => put(out, &[commit.0, commit_term.0, *round]),
            Body::HeartbeatReply { round, verified, durable, willing: _ } => {
                put(out, &[*round, verified.0, durable.0]);
            }
            Body::Snapshot { index, term } => put(out, &[index.0, term.0]),
            Body::TermAsk { request } | Body::TermTold { request } => put(out, &[*request]),
        }
    }

    /// Reads a message that fills the buffer.
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::OverLimit);
        }
        let mut reader = Reader { bytes };
        let (kind, detail) = (reader.u8()?, reader.u8()?);
        let voice = voice_of(reader.u8()?)?;
        if reader.u8()? != 0 {
            return Err(DecodeError::ReservedSet);
        }
        let (from, to, term) = (NodeId(reader.u32()?), NodeId(reader.u32()?), reader.term()?);
        let body = decode_body(kind, detail, &mut reader)?;
        if !reader.bytes.is_empty() {
            return Err(DecodeError::TooLong);
        }
        Ok(Self { from, to, term, voice, body })
    }
}

/// Kind and detail of a body.
fn head(body: &Body) -> (u8, u8) {
    match body {
        Body::PreVote { .. } => (PRE_VOTE, 0),
        Body::PreVoteReply { ballot, .. } => (PRE_VOTE_REPLY, ballot_code(*ballot)),
        Body::Vote { cause: Campaign::Timeout, .. } => (VOTE, 0),
        Body::Vote { cause: Campaign::Transfer, .. } => (VOTE, 1),
        Body::VoteReply { ballot } => (VOTE_REPLY, ballot_code(*ballot)),
        Body::Append { .. } => (APPEND, 0),
        Body::AppendReply { outcome: AppendOutcome::Accepted { .. }, willing } => {
            (APPEND_ACCEPTED, willing_code(*willing))
        }
        Body::AppendReply { outcome: AppendOutcome::Rejected { .. }, willing } => {
            (APPEND_REJECTED, willing_code(*willing))
        }
        Body::Heartbeat { .. } => (HEARTBEAT, 0),
        Body::HeartbeatReply { willing, .. } => (HEARTBEAT_REPLY, willing_code(*willing)),
        Body::TimeoutNow => (TIMEOUT_NOW, 0),
        Body::Outdated => (OUTDATED, 0),
        Body::Snapshot { .. } => (SNAPSHOT, 0),
        Body::TermAsk { .. } => (TERM_ASK, 0),
        Body::TermTold { .. } => (TERM_TOLD, 0),
    }
}

fn voice_code(voice: Voice) -> u8 {
    match voice {
        Voice::Whole => 0,
        Voice::Damaged => 1,
        Voice::Healing => 2,
        Voice::Forgetful => 3,
    }
}

fn voice_of(code: u8) -> Result<Voice, DecodeError> {
    match code {
        0 => Ok(Voice::Whole),
        1 => Ok(Voice::Damaged),
        2 => Ok(Voice::Healing),
        3 => Ok(Voice::Forgetful),
        unknown => Err(DecodeError::VoiceUnknown(unknown)),
    }
}

fn ballot_code(ballot: Ballot) -> u8 {
    match ballot {
        Ballot::Refused => 0,
        Ballot::Granted => 1,
    }
}

fn willing_code(willing: Willingness) -> u8 {
    match willing {
        Willingness::Willing => 0,
        Willingness::Draining => 1,
        Willingness::Short => 2,
        Willingness::Full => 3,
    }
}

fn willing_of(code: u8) -> Result<Willingness, DecodeError> {
    match code {
        0 => Ok(Willingness::Willing),
        1 => Ok(Willingness::Draining),
        2 => Ok(Willingness::Short),
        3 => Ok(Willingness::Full),
        unknown => Err(DecodeError::DetailUnknown(unknown)),
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn encode_entries(entries: &[Entry], out: &mut Vec<u8>) {
    assert!(entries.len() <= APPEND_ENTRIES_MAX, "{} entries in one append", entries.len());
    let bytes: usize = entries.iter().map(|entry| ENTRY_HEADER_BYTES + entry.data.len()).sum();
    out.reserve(4 + bytes);
    out.extend_from_slice(&length(entries.len()));
    for entry in entries {
        assert!(entry.data.len() <= ENTRY_BYTES_MAX, "entry {} has {} bytes", entry.index, entry.data.len());
        put(out, &[entry.term.0]);
        out.extend_from_slice(&length(entry.data.len()));
        out.extend_from_slice(&entry.data);
    }
}

/// A length that its caller has checked, as it is written.
fn length(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

fn encode_outcome(outcome: &AppendOutcome, out: &mut Vec<u8>) {
    match outcome {
        AppendOutcome::Accepted { matched } => put(out, &[matched.0]),
        AppendOutcome::Rejected { prev_index, conflict_index, conflict_term, conflict_first } => {
            put(out, &[prev_index.0, conflict_index.0, conflict_term.0, conflict_first.0]);
        }
    }
}

fn decode_body(kind: u8, detail: u8, reader: &mut Reader) -> Result<Body, DecodeError> {
    let willing = || willing_of(detail);
    let ballot = || two(detail, Ballot::Refused, Ballot::Granted);
    let none = || if detail == 0 { Ok(()) } else { Err(DecodeError::DetailUnknown(detail)) };
    Ok(match kind {
        PRE_VOTE => {
            none().and(Ok(Body::PreVote { last_index: reader.index()?, last_term: reader.term()? }))?
        }
        PRE_VOTE_REPLY => Body::PreVoteReply { ballot: ballot()?, asked: reader.term()? },
        VOTE => Body::Vote {
            cause: two(detail, Campaign::Timeout, Campaign::Transfer)?,
            last_index: reader.index()?,
            last_term: reader.term()?,
        },
        VOTE_REPLY => Body::VoteReply { ballot: ballot()? },
        APPEND => none().and(decode_append(reader))?,
        APPEND_ACCEPTED => Body::AppendReply {
            willing: willing()?,
            outcome: AppendOutcome::Accepted { matched: reader.index()? },
        },
        APPEND_REJECTED => Body::AppendReply { willing: willing()?, outcome: decode_rejected(reader)? },
        HEARTBEAT => {
            none()?;
            let (commit, commit_term, round) = (reader.index()?, reader.term()?, reader.u64()?);
            Body::Heartbeat { commit, commit_term, round }
        }
        HEARTBEAT_REPLY => Body::HeartbeatReply {
            willing: willing()?,
            round: reader.u64()?,
            verified: reader.index()?,
            durable: reader.index()?,
        },
        TIMEOUT_NOW => none().and(Ok(Body::TimeoutNow))?,
        OUTDATED => none().and(Ok(Body::Outdated))?,
        SNAPSHOT => none().and(Ok(Body::Snapshot { index: reader.index()?, term: reader.term()? }))?,
        TERM_ASK => none().and(Ok(Body::TermAsk { request: reader.u64()? }))?,
        TERM_TOLD => none().and(Ok(Body::TermTold { request: reader.u64()? }))?,
        unknown => return Err(DecodeError::KindUnknown(unknown)),
    })
}

/// A detail that says one of two things.
fn two<T>(detail: u8, zero: T, one: T) -> Result<T, DecodeError> {
    match detail {
        0 => Ok(zero),
        1 => Ok(one),
        unknown => Err(DecodeError::DetailUnknown(unknown)),
    }
}

fn decode_rejected(reader: &mut Reader) -> Result<AppendOutcome, DecodeError> {
    Ok(AppendOutcome::Rejected {
        prev_index: reader.index()?,
        conflict_index: reader.index()?,
        conflict_term: reader.term()?,
        conflict_first: reader.index()?,
    })
}

fn decode_append(reader: &mut Reader) -> Result<Body, DecodeError> {
    let (prev_index, prev_term, commit) = (reader.index()?, reader.term()?, reader.index()?);
    let count = usize::try_from(reader.u32()?).map_err(|_| DecodeError::OverLimit)?;
    if count > APPEND_ENTRIES_MAX {
        return Err(DecodeError::OverLimit);
    }
    if count * ENTRY_HEADER_BYTES > reader.bytes.len() {
        return Err(DecodeError::TooShort);
    }
    let mut entries = Vec::with_capacity(count);
    let mut index = prev_index;
    for _ in 0..count {
        index = Index(index.0.checked_add(1).ok_or(DecodeError::OverLimit)?);
        let (term, len) = (reader.term()?, reader.u32()?);
        entries.push(Entry { index, term, data: reader.slice(len)? });
    }
    Ok(Body::Append { prev_index, prev_term, commit, entries })
}

/// What is left to read.
struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.bytes.try_get_u8().map_err(|_| DecodeError::TooShort)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.bytes.try_get_u32_le().map_err(|_| DecodeError::TooShort)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.bytes.try_get_u64_le().map_err(|_| DecodeError::TooShort)
    }

    fn term(&mut self) -> Result<Term, DecodeError> {
        self.u64().map(Term)
    }

    fn index(&mut self) -> Result<Index, DecodeError> {
        self.u64().map(Index)
    }

    fn slice(&mut self, len: u32) -> Result<Bytes, DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::OverLimit)?;
        if len > ENTRY_BYTES_MAX {
            return Err(DecodeError::OverLimit);
        }
        if len > self.bytes.len() {
            return Err(DecodeError::TooShort);
        }
        Ok(self.bytes.split_to(len))
    }
}
