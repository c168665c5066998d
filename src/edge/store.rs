//! What the edge serves from: the one trait between gRPC and the shards.
//!
//! The edge turns messages into [`Request`]s and [`Answered`] into messages; where a shard is, who leads it
//! and how a request gets there is behind [`Store`]. Tests serve from a map in memory.
//!
//! Invariants asked of an implementation:
//! - `call` and what `submit` returns end by their deadline, with a failure that tells the truth about the
//!   outcome.
//! - Dropping such a future drops the waiter alone, never a proposal that was made.
//! - Nothing waits without a limit: a full queue is
//!   [`Overloaded`](crate::route::call::FailureKind::Overloaded).

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::env::Instant;
use crate::env::stages::{Stages, Tallies};
use crate::ids::{ClusterId, CoreId, Index, LaneId, NodeId, Revision, ShardId, Term};
use crate::route::call::{Answered, Failure, Request};
use crate::shard::TableFailure;

/// What one core's edge serves from. Cloning is cheap: a handle.
#[allow(async_fn_in_trait, reason = "one thread a core: no future is ever sent to another")]
pub trait Store: Clone + 'static {
    /// The order of one Pipeline stream.
    type Pipeline: PipelineOrder;
    /// A backup that is being made.
    type Backup: BackupSource;

    /// Asks one shard, wherever it is led.
    async fn call(&self, shard: ShardId, request: Request, deadline: Instant) -> Result<Answered, Failure>;
    /// The order of a new Pipeline stream.
    fn pipeline(&self) -> Self::Pipeline;
    /// Who answers, and how many shards there are: what every request needs.
    fn identity(&self) -> Identity;
    /// Where every shard is, as this node knows it.
    fn routing(&self) -> Routing;
    /// What this node knows of itself.
    async fn status(&self) -> Status;
    /// Where the edge counts what the stages of a request cost it.
    fn stages(&self) -> &Stages;

    /// Begins a backup of every shard.
    fn backup(&self) -> Self::Backup;
    /// Waits until this node's tables of these shards hold, durably, what it has applied by now.
    async fn snapshot(&self, shards: Vec<ShardId>, deadline: Instant) -> Result<(), TableFailure>;

    /// Whether a service is served: "" for the whole node, a service's full name, or `shard/<id>`.
    /// `None`: no such service.
    fn health(&self, service: &str) -> Option<Serving>;
    /// Every name that `health` knows.
    fn health_names(&self) -> Vec<String>;
    /// A number that steps whenever an answer of `health` may have changed.
    fn health_version(&self) -> u64;
    /// Waits until `health_version` is another than `seen`, and says it. Any number of Watches wait at once;
    /// [`Changes`](super::changes::Changes) does it.
    async fn health_changed(&self, seen: u64) -> u64;
}

/// The order of one Pipeline stream: what it submits to one shard takes effect in the order submitted, reads
/// included; when one is refused, those after it on that shard are not applied before it is answered.
pub trait PipelineOrder: 'static {
    /// Asks one shard. The place in the order is taken by this call, not by polling what it returns.
    fn submit(
        &self,
        shard: ShardId,
        request: Request,
        deadline: Instant,
    ) -> impl Future<Output = Result<Answered, Failure>> + 'static;
}

/// A backup that is being made: one file, from its first byte to its last.
#[allow(async_fn_in_trait, reason = "one thread a core: no future is ever sent to another")]
pub trait BackupSource: 'static {
    /// The next bytes, a few hundred KiB or one entry; none of them: it is still at work. `None` after the
    /// last.
    async fn next(&mut self) -> Result<Option<Bytes>, TableFailure>;
}

/// Who answers, and how many shards there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The answering node.
    pub node: NodeId,
    /// How many shards the cluster has: 1 to 16384.
    pub shards: u32,
}

/// Where every shard is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// One for each shard, in order.
    pub shards: Vec<ShardRoute>,
    /// One for each node, in order.
    pub nodes: Vec<NodeAddress>,
}

/// Where one shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRoute {
    /// The shard.
    pub shard: ShardId,
    /// Who leads it, where that is known.
    pub leader: Option<NodeId>,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who follows without a vote.
    pub learners: Vec<NodeId>,
}

/// Where one node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node.
    pub node: NodeId,
    /// What a client dials: host and port.
    pub address: String,
}

/// What a node knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The set of defaults that it was started with, by name.
    pub profile: String,
    /// The time since it started.
    pub uptime: Duration,
    /// One for each replica, in order of shards.
    pub replicas: Vec<ReplicaStatus>,
    /// One for each lane, in order.
    pub lanes: Vec<LaneStatus>,
    /// One for each core, in order: what the stages of its requests came to.
    pub stages: Vec<(CoreId, Tallies)>,
}

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
    /// It follows without a vote.
    Learner,
    /// Damaged or wiped: it neither votes nor serves.
    Recovering,
}

/// One replica of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The shard.
    pub shard: ShardId,
    /// What it is.
    pub role: ReplicaRole,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// The last entry of its log.
    pub last_index: Index,
    /// The last entry that it knows committed.
    pub commit_index: Index,
    /// The last entry that it applied.
    pub applied_index: Index,
    /// The shard's revision at `applied_index`.
    pub revision: Revision,
    /// Live keys.
    pub keys: u64,
    /// Bytes of live keys and values.
    pub bytes: u64,
    /// The entry that its newest snapshot ends with.
    pub snapshot_index: Index,
    /// The digest of its state at `applied_index`.
    pub state_digest: u64,
    /// The lane that its log is in.
    pub lane: LaneId,
    /// How much is here of a table that is fetched from a peer; 0 also where none is.
    pub fetch_bytes_done: u64,
    /// The size of that table; 0: none is fetched.
    pub fetch_bytes_total: u64,
}

/// One lane's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane.
    pub lane: LaneId,
    /// The core that owns it.
    pub core: CoreId,
    /// Bytes of its segments on disk.
    pub log_bytes: u64,
    /// How many segments.
    pub segments: u64,
    /// How long the last durable write took.
    pub last_write: Duration,
    /// The age of the oldest write that is not durable yet; zero: none.
    pub oldest_pending: Duration,
    /// A write failed: the process ends.
    pub poisoned: bool,
    /// The disk has no more room than the reserve, or not even that.
    pub disk_full: bool,
    /// Damages found since the start: replicas that lost something of their log or state, and segments that
    /// nobody lost anything by. Each counts once.
    pub damaged_total: u64,
    /// Those of them that are no more: the replica is whole again, the segment is let go of.
    pub repaired_total: u64,
}

/// Whether a service is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// It is.
    Yes,
    /// It is not, for now.
    No,
}
