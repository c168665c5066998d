//! What goes into the policy and what comes out of it: plain data, of no transport.
//!
//! A *call* is what a caller asked for; an *attempt* is one sending of a call, or of something that the
//! policy sends on its own behalf (the routing table, sessions). The types are generic over the payload `P`
//! of a call and its answer `A`, so that a simulator can use its own.

use std::time::Duration;

use bytes::Bytes;

use crate::client::error::{Error, Reason};
use crate::client::routing::Table;
use crate::ids::{NodeId, Sequence, SessionId, ShardId};

/// Names a call for as long as its policy lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names one sending for as long as its policy lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// An address that things can be sent to, as the policy counts them; see `Policy::address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(pub u32);

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec<P> {
    /// What may be done when a sending is lost.
    pub kind: Kind,
    /// Whom it concerns.
    pub route: Route,
    /// What is sent.
    pub payload: P,
    /// How long the call may take in all.
    pub timeout: Duration,
}

/// What may be done when a sending is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes nothing: sent as often as it takes, to the leader where one is known.
    Read,
    /// Changes nothing, and any node's own state will do.
    ReadAnywhere,
    /// A change that must happen exactly once: stamped, and sent as often as it takes. Needs a
    /// [`Route::Key`].
    Write,
    /// A change without a stamp: one sending at most may end without an answer.
    WriteOnce,
}

/// Whom a call concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The shard of this key.
    Key(Bytes),
    /// This shard.
    Shard(ShardId),
    /// Any node.
    Anywhere,
}

/// What makes a write exactly-once: the contract's `RequestId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The session of the key's shard.
    pub session: SessionId,
    /// The number of the request within the session.
    pub sequence: Sequence,
    /// Every sequence up to this one is answered: what the node stored for it may go.
    pub acknowledged: Sequence,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<P> {
    /// A call's payload, with a stamp for [`Kind::Write`].
    Call {
        /// The caller's payload.
        payload: P,
        /// The request's id.
        stamp: Option<Stamp>,
    },
    /// Open a session on the shard of a key.
    Open {
        /// A key of that shard.
        key: Bytes,
        /// How long the session is to live untouched.
        ttl: Duration,
    },
    /// Touch a session.
    KeepAlive {
        /// Which one.
        session: SessionId,
        /// Every sequence up to this one is answered.
        acknowledged: Sequence,
    },
    /// End a session.
    Close {
        /// Which one.
        session: SessionId,
    },
    /// Ask for the routing table.
    Shards,
}

/// What the policy wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<P, A> {
    /// Send this, and report how it ended as an [`Event`].
    Send {
        /// What to report under.
        attempt: AttemptId,
        /// Where to.
        target: Target,
        /// What.
        request: Request<P>,
        /// How long the answer is waited for: the deadline that travels with it.
        timeout: Duration,
    },
    /// Tell the caller.
    Finish {
        /// The call.
        call: CallId,
        /// How it ended.
        result: Result<A, Error>,
    },
}

/// How a sending ended. A report on an attempt that the policy has given up on is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<A> {
    /// With an answer.
    Answered {
        /// Which sending.
        attempt: AttemptId,
        /// The answer.
        answer: Answer<A>,
    },
    /// A node said that this sending was certainly not executed.
    Refused {
        /// Which sending.
        attempt: AttemptId,
        /// What the node said.
        refusal: Refusal,
    },
    /// It never left, since no connection came about: certainly not executed.
    Unreached {
        /// Which sending.
        attempt: AttemptId,
        /// What the connector said.
        detail: String,
    },
    /// A node answered that it does not know whether this sending was, or will be, executed.
    Unknown {
        /// Which sending.
        attempt: AttemptId,
        /// The node to ask instead, where one was named.
        leader: Option<NodeId>,
        /// What the node said.
        detail: String,
    },
    /// It left and no node answered: it may have been, or may yet be, executed.
    Lost {
        /// Which sending.
        attempt: AttemptId,
        /// What the transport said.
        detail: String,
    },
}

/// An answer, by what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<A> {
    /// To [`Request::Call`].
    Call {
        /// What the caller gets.
        answer: A,
        /// The node that served it: for a linearizable call, the leader.
        served_by: Option<NodeId>,
    },
    /// To [`Request::Open`].
    Opened {
        /// The new session.
        session: SessionId,
        /// How long it lives untouched.
        ttl: Duration,
        /// The shard that it belongs to.
        shard: ShardId,
    },
    /// To [`Request::KeepAlive`].
    KeptAlive {
        /// How long the session lives untouched.
        ttl: Duration,
    },
    /// To [`Request::Close`].
    Closed,
    /// To [`Request::Shards`].
    Table(Table),
}

/// A node's word that a sending was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The node to ask instead, where one was named.
    pub leader: Option<NodeId>,
    /// How long to wait before the next sending, where that was said.
    pub retry_after: Option<Duration>,
    /// What the node said, for people.
    pub detail: String,
}

impl Refusal {
    /// A refusal that names neither a leader nor a time.
    #[must_use]
    pub fn of(reason: Reason) -> Self {
        Self { reason, leader: None, retry_after: None, detail: String::new() }
    }
}
