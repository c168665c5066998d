//! What an edge asks of a shard, and what comes back: plain data, carried in place, by mesh or by link.

use std::time::Duration;

use crate::ids::{NodeId, Revision, ShardId, Term};
use crate::kv::{Answer, Command, Query, QueryAnswer, Refusal};

/// What a caller asks of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A read: nothing is logged.
    Query {
        /// What is read.
        query: Query,
        /// How fresh it has to be.
        consistency: Consistency,
    },
    /// A change: it goes through the log.
    Command(Command),
    /// Hand leadership over.
    Transfer {
        /// To whom; `None`: the best follower.
        to: Option<NodeId>,
    },
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every change that was acknowledged before it was asked for.
    Linearizable,
    /// Whatever the node that was asked has applied.
    Stale,
}

/// The answer to a [`Request`] that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The node that served it.
    pub node: NodeId,
    /// The shard that it was asked of.
    pub shard: ShardId,
    /// The term of the replica that served it.
    pub term: Term,
    /// A write: the revision that it made; else the shard's when served; a resend: as the first answer.
    pub revision: Revision,
    /// What was asked for.
    pub body: Body,
}

/// What an [`Answered`] request brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Of a [`Request::Query`].
    Query(QueryAnswer),
    /// Of a [`Request::Command`].
    Command(Answer),
    /// Of a [`Request::Transfer`].
    Transferred {
        /// The leader that it ended with.
        leader: NodeId,
    },
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, by what the client may do.
    pub kind: FailureKind,
    /// The node to ask instead, where one is known.
    pub leader: Option<NodeId>,
    /// How long to wait before the next try, where that is known.
    pub retry_after: Option<Duration>,
}

/// What went wrong, by what the client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The replica asked does not lead, or no longer in the term named: certainly not proposed.
    NotProposed,
    /// No leader was found in time: certainly not executed.
    NoLeader,
    /// The deadline passed and it may yet be applied.
    DeadlineExceeded,
    /// The way to the answer was lost: it may yet be applied.
    OutcomeUnknown,
    /// A bounded queue is full: certainly not executed.
    Overloaded,
    /// The leader's disk has no more room than it keeps for its own ends, and this would make the data grow:
    /// certainly not executed.
    DiskFull {
        /// Bytes that were free when it looked last.
        free: u64,
        /// Bytes that it keeps free.
        watermark: u64,
    },
    /// The same of so many of the shard's nodes that those with room are no quorum.
    QuorumDiskFull,
    /// The node is going away: certainly not executed.
    ShuttingDown,
    /// This replica found damage: certainly not executed.
    Damaged,
    /// The transfer of leadership asked for did not come about.
    TransferFailed,
    /// The state machine decided against it: applied nothing.
    Refused(Refusal),
}

impl Failure {
    /// A failure that knows nothing of a leader or of a time.
    #[must_use]
    pub fn of(kind: FailureKind) -> Self {
        Self { kind, leader: None, retry_after: None }
    }
}

impl Request {
    /// Whether it may change the state: then a lost answer leaves the outcome unknown.
    #[must_use]
    pub fn is_change(&self) -> bool {
        match self {
            Self::Query { .. } => false,
            Self::Command(_) | Self::Transfer { .. } => true,
        }
    }
}

impl Answered {
    /// About how many bytes the answer holds, for the limits of queues.
    #[must_use]
    pub fn weight(&self) -> usize {
        match &self.body {
            Body::Query(answer) => answer.weight(),
            Body::Command(answer) => answer.weight(),
            Body::Transferred { .. } => 0,
        }
    }
}

impl Failure {
    /// Whether the state machine decided it, when the entry was applied: the request was taken in and came to
    /// this.
    #[must_use]
    pub fn is_decision(&self) -> bool {
        matches!(self.kind, FailureKind::Refused(_))
    }
}
