//! What travels between cores and nodes.
//!
//! A parcel may be lost, repeated, late or overtaken by another. Raft's messages are made for that. A
//! [`Call`] is numbered by its origin so that its receiver drops a repeat, and names the term of leadership
//! that it is for so that nobody proposes it under a later one. A [`Reply`] to a call that nobody waits for
//! is dropped.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{CoreId, Index, NodeId, ShardId, Term};
use crate::raft::{Body, Entry, Message};
use crate::route::call::{self, Answered, Failure, FailureKind, Request};

/// One thing that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parcel {
    /// Raft's, between the replicas of one shard.
    Raft {
        /// The shard.
        shard: ShardId,
        /// What one replica says to another.
        message: Message,
    },
    /// A request, on its way to the replica that is to serve it.
    Call(Call),
    /// What became of one.
    Reply(Reply),
    /// A question for a part of a table.
    TableAsk(TableAsk),
    /// The answer to it.
    TablePart(TablePart),
    /// What a replica's state comes to.
    Digests(DigestsTold),
    /// A replica's state is not what the majority's comes to.
    Rebuild(Rebuild),
}

/// The most digests that one parcel tells.
pub const DIGESTS_MAX: usize = 8;

/// What a state came to after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The entry.
    pub index: Index,
    /// The digest of the state after it.
    pub digest: u64,
}

/// What a replica's state came to, after some entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestsTold {
    /// The shard.
    pub shard: ShardId,
    /// Whose replica.
    pub node: NodeId,
    /// At most [`DIGESTS_MAX`].
    pub digests: Vec<Digest>,
}

/// Word to a replica that its state is not what the majority's comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The shard.
    pub shard: ShardId,
    /// Who found out: the leader.
    pub from: NodeId,
    /// After which entry.
    pub index: Index,
    /// What the majority's state came to.
    pub digest: u64,
}

/// The most bytes of a table in one parcel.
pub const PART_BYTES_MAX: usize = 256 << 10;

/// A part is a multiple of this: files are written in whole blocks.
pub const PART_BLOCK_BYTES: usize = 4096;

/// A question for a part of a shard's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableAsk {
    /// The shard.
    pub shard: ShardId,
    /// Who asks.
    pub node: NodeId,
    /// The core that asks.
    pub core: CoreId,
    /// Counted by that core: the answer bears it.
    pub number: u64,
    /// Which of the shard's tables, by its salt; where the asked has another, it answers with that one, from
    /// its beginning.
    pub generation: u64,
    /// A table that ends before this entry is of no use.
    pub index_min: Index,
    /// Where the part begins.
    pub offset: u64,
}

/// A part of a shard's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePart {
    /// The shard.
    pub shard: ShardId,
    /// The core that asked.
    pub core: CoreId,
    /// The question's number.
    pub number: u64,
    /// The table that it is of.
    pub named: TableName,
    /// Where it begins in the file.
    pub offset: u64,
    /// Whole blocks of the file.
    pub data: Bytes,
}

/// What tells a table from every other, and what its bytes come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Its salt: what is in it is in no table of another. 0: there is none.
    pub generation: u64,
    /// The last entry that it stands for.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The size of its file.
    pub bytes: u64,
    /// The checksum of its footer.
    pub footer_checksum: u64,
}

/// The name of a call: no two calls ever made share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// The node that makes it.
    pub node: NodeId,
    /// Which life of that node's process.
    pub incarnation: u64,
    /// The core of that node.
    pub core: CoreId,
    /// Counted by that core: each sending has its own.
    pub number: u64,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name, which the reply bears.
    pub id: CallId,
    /// The shard that it is for.
    pub shard: ShardId,
    /// The term of leadership that it is for. A change is proposed in this very term or not at all. `None`
    /// for a read of whatever the receiver has applied.
    pub term: Option<Term>,
    /// How long the caller still waits. The remaining time travels, never a clock.
    pub remaining: Duration,
    /// Its place in a stream whose operations take effect in order.
    pub order: Option<Order>,
    /// What is asked.
    pub request: Request,
}

/// A call's place among those of one stream on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The stream, counted by the origin's core.
    pub stream: u64,
    /// Grows when an operation was refused or lost: what is left of the older epoch is refused too.
    pub epoch: u64,
    /// 0, 1, 2, … within the epoch.
    pub position: u64,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The call's name.
    pub id: CallId,
    /// The answer, or why there is none.
    pub outcome: Result<Answered, Failure>,
}

impl Reply {
    /// Replaces an answer that found no room on its way back by a few bytes that tell the truth: a read was
    /// not served, for there is too much load; of a change the outcome is unknown to whoever asked.
    pub fn shorten(&mut self) {
        let kind = match &self.outcome {
            Ok(Answered { body: call::Body::Query(_), .. }) => FailureKind::Overloaded,
            Ok(Answered { body: call::Body::Command(_) | call::Body::Transferred { .. }, .. }) => {
                FailureKind::OutcomeUnknown
            }
            Err(_) => return,
        };
        self.outcome = Err(Failure::of(kind));
    }
}

impl Parcel {
    /// About how many bytes it holds, for the limits of queues.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 128;
        FIXED
            + match self {
                Self::Raft { message, .. } => match &message.body {
                    Body::Append { entries, .. } => entries.iter().map(Entry::cost_bytes).sum(),
                    Body::PreVote { .. }
                    | Body::PreVoteReply { .. }
                    | Body::Vote { .. }
                    | Body::VoteReply { .. }
                    | Body::AppendReply { .. }
                    | Body::Heartbeat { .. }
                    | Body::HeartbeatReply { .. }
                    | Body::Snapshot { .. }
                    | Body::TermAsk { .. }
                    | Body::TermTold { .. }
                    | Body::TimeoutNow
                    | Body::Outdated => 0,
                },
                Self::Call(call) => match &call.request {
                    Request::Query { .. } | Request::Transfer { .. } => 0,
                    Request::Command(command) => command.encoded_len(),
                },
                Self::Reply(reply) => match &reply.outcome {
                    Ok(answered) => answered.weight(),
                    Err(_) => 0,
                },
                Self::TableAsk(_) | Self::Digests(_) | Self::Rebuild(_) => 0,
                Self::TablePart(part) => part.data.len(),
            }
    }
}
