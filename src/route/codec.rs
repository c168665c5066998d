//! A parcel's form on a link: little-endian, fixed widths, lengths checked before anything is taken.
//!
//! ```text
//! parcel   kind u8                 1 raft, 2 call, 3 reply, 4 table ask, 5 table part
//! raft     shard u32 | message…                                     raft's own codec, to the end
//! call     id | shard u32 | term u64 (0: none) | remaining_us u64
//!          | ordered u8 (0, 1) [ stream u64 | epoch u64 | position u64 ]
//!          | request u8  1 query: consistency u8 (0 linearizable, 1 stale) | query…
//!                        2 command: command…
//!                        3 transfer: to u32 (0: the best follower)
//! reply    id | outcome u8
//!            0 answered: node u32 | shard u32 | term u64 | revision u64
//!                | body u8  1 query answer…  2 command answer…  3 transferred: leader u32
//!            1 failed: kind u8 | leader u32 (0: unknown) | retry_after_us u64 (0: unknown)
//!                | refusal… (kind 9 alone) | free u64 | watermark u64 (both of kind 10 alone)
//! ask      shard u32 | node u32 | core u32 | number u64 | generation u64 | offset u64
//! part     shard u32 | core u32 | number u64 | name | offset u64 | whole blocks of 4096 bytes…
//! name     generation u64 | index u64 | term u64 | bytes u64 | footer checksum u64
//! id       node u32 | incarnation u64 | core u32 | number u64
//! ```
//!
//! The last part of a parcel runs to its end, so that values are taken as slices and not copied. Parcels
//! carry no checksum of their own: the frame of the link that holds them has one.

use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::ids::{CoreId, Index, NodeId, Revision, ShardId, Term};
use crate::kv;
use crate::raft;
use crate::route::call::{Answered, Body, Consistency, Failure, FailureKind, Request};
use crate::route::parcel::{
    Call, CallId, DIGESTS_MAX, Digest, DigestsTold, Order, PART_BLOCK_BYTES, PART_BYTES_MAX, Parcel, Rebuild,
    Reply, TableAsk, TableName, TablePart,
};

/// Why bytes are no parcel. Whoever sent them does not speak this format: its link is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends before it is whole.
    Short,
    /// Bytes follow what is whole.
    Long {
        /// How many.
        bytes: usize,
    },
    /// A field holds what none of its meanings is.
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A message of raft's that cannot be read.
    Raft(raft::DecodeError),
    /// A command, query, answer or refusal that cannot be read.
    Kv(kv::DecodeError),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => write!(f, "the parcel ends early"),
            Self::Long { bytes } => write!(f, "{bytes} bytes follow the parcel's end"),
            Self::Unknown { field, value } => {
                write!(f, "the parcel's {field} is {value}, which means nothing")
            }
            Self::Raft(source) => write!(f, "the parcel's raft message: {source}"),
            Self::Kv(source) => write!(f, "the parcel's content: {source}"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<raft::DecodeError> for DecodeError {
    fn from(source: raft::DecodeError) -> Self {
        Self::Raft(source)
    }
}

impl From<kv::DecodeError> for DecodeError {
    fn from(source: kv::DecodeError) -> Self {
        Self::Kv(source)
    }
}

const RAFT: u8 = 1;
const CALL: u8 = 2;
const REPLY: u8 = 3;
const TABLE_ASK: u8 = 4;
const TABLE_PART: u8 = 5;
const DIGESTS: u8 = 6;
const REBUILD: u8 = 7;

impl Parcel {
    /// Writes the parcel behind what `out` holds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raft { shard, message } => {
                out.push(RAFT);
                out.extend_from_slice(&shard.0.to_le_bytes());
                message.encode(out);
            }
            Self::Call(call) => {
                out.push(CALL);
                encode_call(call, out);
            }
            Self::Reply(reply) => {
                out.push(REPLY);
                encode_reply(reply, out);
            }
            Self::TableAsk(ask) => {
                out.push(TABLE_ASK);
                encode_ask(ask, out);
            }
            Self::TablePart(part) => {
                out.push(TABLE_PART);
                encode_part(part, out);
            }
            Self::Digests(told) => {
                out.push(DIGESTS);
                encode_digests(told, out);
            }
            Self::Rebuild(told) => {
                out.push(REBUILD);
                encode_rebuild(told, out);
            }
        }
    }

    /// Reads one parcel that fills `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DecodeError> {
        match take_u8(&mut bytes)? {
            RAFT => {
                let shard = ShardId(take_u32(&mut bytes)?);
                Ok(Self::Raft { shard, message: raft::Message::decode(bytes)? })
            }
            CALL => Ok(Self::Call(decode_call(bytes)?)),
            REPLY => Ok(Self::Reply(decode_reply(bytes)?)),
            TABLE_ASK => Ok(Self::TableAsk(decode_ask(bytes)?)),
            TABLE_PART => Ok(Self::TablePart(decode_part(bytes)?)),
            DIGESTS => Ok(Self::Digests(decode_digests(bytes)?)),
            REBUILD => Ok(Self::Rebuild(decode_rebuild(bytes)?)),
            kind => Err(unknown("kind", kind)),
        }
    }
}

fn encode_ask(ask: &TableAsk, out: &mut Vec<u8>) {
    for field in [ask.shard.0, ask.node.0, ask.core.0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [ask.number, ask.generation, ask.index_min.0, ask.offset] {
        out.extend_from_slice(&field.to_le_bytes());
    }
}

fn decode_ask(mut bytes: Bytes) -> Result<TableAsk, DecodeError> {
    let ask = TableAsk {
        shard: ShardId(take_u32(&mut bytes)?),
        node: NodeId(take_u32(&mut bytes)?),
        core: CoreId(take_u32(&mut bytes)?),
        number: take_u64(&mut bytes)?,
        generation: take_u64(&mut bytes)?,
        index_min: Index(take_u64(&mut bytes)?),
        offset: take_u64(&mut bytes)?,
    };
    ended(&bytes)?;
    Ok(ask)
}

fn encode_digests(told: &DigestsTold, out: &mut Vec<u8>) {
    let count = told.digests.len();
    assert!(count <= DIGESTS_MAX, "{count} digests in a parcel");
    out.extend_from_slice(&told.shard.0.to_le_bytes());
    out.extend_from_slice(&told.node.0.to_le_bytes());
    out.push(u8::try_from(count).expect("it was compared with DIGESTS_MAX"));
    for Digest { index, digest } in &told.digests {
        out.extend_from_slice(&index.0.to_le_bytes());
        out.extend_from_slice(&digest.to_le_bytes());
    }
}

fn decode_digests(mut bytes: Bytes) -> Result<DigestsTold, DecodeError> {
    let (shard, node) = (ShardId(take_u32(&mut bytes)?), NodeId(take_u32(&mut bytes)?));
    let count = take_u8(&mut bytes)?;
    if usize::from(count) > DIGESTS_MAX {
        return Err(unknown("count of digests", count));
    }
    let mut digests = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (index, digest) = (Index(take_u64(&mut bytes)?), take_u64(&mut bytes)?);
        digests.push(Digest { index, digest });
    }
    ended(&bytes)?;
    Ok(DigestsTold { shard, node, digests })
}

fn encode_rebuild(told: &Rebuild, out: &mut Vec<u8>) {
    out.extend_from_slice(&told.shard.0.to_le_bytes());
    out.extend_from_slice(&told.from.0.to_le_bytes());
    out.extend_from_slice(&told.index.0.to_le_bytes());
    out.extend_from_slice(&told.digest.to_le_bytes());
}

fn decode_rebuild(mut bytes: Bytes) -> Result<Rebuild, DecodeError> {
    let told = Rebuild {
        shard: ShardId(take_u32(&mut bytes)?),
        from: NodeId(take_u32(&mut bytes)?),
        index: Index(take_u64(&mut bytes)?),
        digest: take_u64(&mut bytes)?,
    };
    ended(&bytes)?;
    Ok(told)
}

fn encode_part(part: &TablePart, out: &mut Vec<u8>) {
    let TableName { generation, index, term, bytes, footer_checksum } = part.named;
    out.extend_from_slice(&part.shard.0.to_le_bytes());
    out.extend_from_slice(&part.core.0.to_le_bytes());
    for field in [part.number, generation, index.0, term.0, bytes, footer_checksum, part.offset] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&part.data);
}

fn decode_part(mut bytes: Bytes) -> Result<TablePart, DecodeError> {
    let shard = ShardId(take_u32(&mut bytes)?);
    let core = CoreId(take_u32(&mut bytes)?);
    let number = take_u64(&mut bytes)?;
    let named = TableName {
        generation: take_u64(&mut bytes)?,
        index: Index(take_u64(&mut bytes)?),
        term: Term(take_u64(&mut bytes)?),
        bytes: take_u64(&mut bytes)?,
        footer_checksum: take_u64(&mut bytes)?,
    };
    let offset = take_u64(&mut bytes)?;
    if bytes.len() > PART_BYTES_MAX || !bytes.len().is_multiple_of(PART_BLOCK_BYTES) {
        return Err(DecodeError::Unknown { field: "length of a part", value: bytes.len() as u64 });
    }
    Ok(TablePart { shard, core, number, named, offset, data: bytes })
}

fn encode_call(call: &Call, out: &mut Vec<u8>) {
    encode_id(&call.id, out);
    out.extend_from_slice(&call.shard.0.to_le_bytes());
    out.extend_from_slice(&call.term.map_or(0, |term| term.0).to_le_bytes());
    out.extend_from_slice(&micros(call.remaining).to_le_bytes());
    match &call.order {
        None => out.push(0),
        Some(order) => {
            out.push(1);
            out.extend_from_slice(&order.stream.to_le_bytes());
            out.extend_from_slice(&order.epoch.to_le_bytes());
            out.extend_from_slice(&order.position.to_le_bytes());
        }
    }
    match &call.request {
        Request::Query { query, consistency } => {
            out.extend_from_slice(&[1, u8::from(*consistency == Consistency::Stale)]);
            query.encode(out);
        }
        Request::Command(command) => {
            out.push(2);
            command.encode(out);
        }
        Request::Transfer { to } => {
            out.push(3);
            out.extend_from_slice(&node_or_zero(*to).to_le_bytes());
        }
    }
}

fn decode_call(mut bytes: Bytes) -> Result<Call, DecodeError> {
    let id = decode_id(&mut bytes)?;
    let shard = ShardId(take_u32(&mut bytes)?);
    let term = Some(take_u64(&mut bytes)?).filter(|term| *term != 0).map(Term);
    let remaining = Duration::from_micros(take_u64(&mut bytes)?);
    let order = match take_u8(&mut bytes)? {
        0 => None,
        1 => Some(Order {
            stream: take_u64(&mut bytes)?,
            epoch: take_u64(&mut bytes)?,
            position: take_u64(&mut bytes)?,
        }),
        other => return Err(unknown("order", other)),
    };
    let request = match take_u8(&mut bytes)? {
        1 => {
            let consistency = match take_u8(&mut bytes)? {
                0 => Consistency::Linearizable,
                1 => Consistency::Stale,
                other => return Err(unknown("consistency", other)),
            };
            Request::Query { query: kv::Query::decode(bytes)?, consistency }
        }
        2 => Request::Command(kv::Command::decode(bytes)?),
        3 => {
            let to = some_node(take_u32(&mut bytes)?);
            ended(&bytes)?;
            Request::Transfer { to }
        }
        other => return Err(unknown("request", other)),
    };
    Ok(Call { id, shard, term, remaining, order, request })
}

fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    encode_id(&reply.id, out);
    match &reply.outcome {
        Ok(answered) => {
            out.push(0);
            out.extend_from_slice(&answered.node.0.to_le_bytes());
            out.extend_from_slice(&answered.shard.0.to_le_bytes());
            out.extend_from_slice(&answered.term.0.to_le_bytes());
            out.extend_from_slice(&answered.revision.0.to_le_bytes());
            encode_body(&answered.body, out);
        }
        Err(failure) => {
            out.extend_from_slice(&[1, failure_code(failure.kind)]);
            out.extend_from_slice(&node_or_zero(failure.leader).to_le_bytes());
            out.extend_from_slice(&failure.retry_after.map_or(0, micros).to_le_bytes());
            if let FailureKind::Refused(refusal) = failure.kind {
                refusal.encode(out);
            }
            if let FailureKind::DiskFull { free, watermark } = failure.kind {
                out.extend_from_slice(&free.to_le_bytes());
                out.extend_from_slice(&watermark.to_le_bytes());
            }
        }
    }
}

fn encode_body(body: &Body, out: &mut Vec<u8>) {
    match body {
        Body::Query(answer) => {
            out.push(1);
            answer.encode(out);
        }
        Body::Command(answer) => {
            out.push(2);
            answer.encode(out);
        }
        Body::Transferred { leader } => {
            out.push(3);
            out.extend_from_slice(&leader.0.to_le_bytes());
        }
    }
}

fn decode_reply(mut bytes: Bytes) -> Result<Reply, DecodeError> {
    let id = decode_id(&mut bytes)?;
    let outcome = match take_u8(&mut bytes)? {
        0 => Ok(Answered {
            node: NodeId(take_u32(&mut bytes)?),
            shard: ShardId(take_u32(&mut bytes)?),
            term: Term(take_u64(&mut bytes)?),
            revision: Revision(take_u64(&mut bytes)?),
            body: decode_body(bytes)?,
        }),
        1 => Err(decode_failure(bytes)?),
        other => return Err(unknown("outcome", other)),
    };
    Ok(Reply { id, outcome })
}

fn decode_body(mut bytes: Bytes) -> Result<Body, DecodeError> {
    match take_u8(&mut bytes)? {
        1 => Ok(Body::Query(kv::QueryAnswer::decode(bytes)?)),
        2 => Ok(Body::Command(kv::Answer::decode(bytes)?)),
        3 => {
            let leader = NodeId(take_u32(&mut bytes)?);
            ended(&bytes)?;
            Ok(Body::Transferred { leader })
        }
        other => Err(unknown("body", other)),
    }
}

const REFUSED: u8 = 9;
const DISK_FULL: u8 = 10;
const QUORUM_DISK_FULL: u8 = 11;

fn failure_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::NotProposed => 1,
        FailureKind::NoLeader => 2,
        FailureKind::DeadlineExceeded => 3,
        FailureKind::OutcomeUnknown => 4,
        FailureKind::Overloaded => 5,
        FailureKind::ShuttingDown => 6,
        FailureKind::Damaged => 7,
        FailureKind::TransferFailed => 8,
        FailureKind::Refused(_) => REFUSED,
        FailureKind::DiskFull { .. } => DISK_FULL,
        FailureKind::QuorumDiskFull => QUORUM_DISK_FULL,
    }
}

fn decode_failure(mut bytes: Bytes) -> Result<Failure, DecodeError> {
    let code = take_u8(&mut bytes)?;
    let leader = some_node(take_u32(&mut bytes)?);
    let retry_after = Some(take_u64(&mut bytes)?).filter(|us| *us != 0).map(Duration::from_micros);
    let kind = match code {
        1 => FailureKind::NotProposed,
        2 => FailureKind::NoLeader,
        3 => FailureKind::DeadlineExceeded,
        4 => FailureKind::OutcomeUnknown,
        5 => FailureKind::Overloaded,
        6 => FailureKind::ShuttingDown,
        7 => FailureKind::Damaged,
        8 => FailureKind::TransferFailed,
        REFUSED => FailureKind::Refused(kv::Refusal::decode(std::mem::take(&mut bytes))?),
        DISK_FULL => FailureKind::DiskFull { free: take_u64(&mut bytes)?, watermark: take_u64(&mut bytes)? },
        QUORUM_DISK_FULL => FailureKind::QuorumDiskFull,
        other => return Err(unknown("failure", other)),
    };
    ended(&bytes)?;
    Ok(Failure { kind, leader, retry_after })
}

fn encode_id(id: &CallId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.node.0.to_le_bytes());
    out.extend_from_slice(&id.incarnation.to_le_bytes());
    out.extend_from_slice(&id.core.0.to_le_bytes());
    out.extend_from_slice(&id.number.to_le_bytes());
}

fn decode_id(bytes: &mut Bytes) -> Result<CallId, DecodeError> {
    Ok(CallId {
        node: NodeId(take_u32(bytes)?),
        incarnation: take_u64(bytes)?,
        core: CoreId(take_u32(bytes)?),
        number: take_u64(bytes)?,
    })
}

fn take_u8(bytes: &mut Bytes) -> Result<u8, DecodeError> {
    bytes.try_get_u8().map_err(|_| DecodeError::Short)
}

fn take_u32(bytes: &mut Bytes) -> Result<u32, DecodeError> {
    bytes.try_get_u32_le().map_err(|_| DecodeError::Short)
}

fn take_u64(bytes: &mut Bytes) -> Result<u64, DecodeError> {
    bytes.try_get_u64_le().map_err(|_| DecodeError::Short)
}

/// Whether nothing is left: what is long enough may still be too long.
fn ended(bytes: &Bytes) -> Result<(), DecodeError> {
    if bytes.is_empty() { Ok(()) } else { Err(DecodeError::Long { bytes: bytes.len() }) }
}

fn unknown(field: &'static str, value: u8) -> DecodeError {
    DecodeError::Unknown { field, value: u64::from(value) }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn node_or_zero(node: Option<NodeId>) -> u32 {
    node.map_or(0, |node| node.0)
}

fn some_node(number: u32) -> Option<NodeId> {
    Some(NodeId(number)).filter(|node| node.0 != 0)
}
