//! What a core tells of its replicas and lanes.

use std::time::Duration;

use crate::env::Env;
use crate::env::stages::Tallies;
use crate::ids::{CoreId, Index, LaneId, NodeId, Revision, ShardId, Term};
use crate::log::{Lane, Space};
use crate::raft;
use crate::shard::progress::FetchProgress;
use crate::shard::replica::Replica;
use crate::shard::space::{Level, Room};

/// What one core knows of itself.
#[derive(Clone, Debug, Default)]
pub struct CoreStatus {
    /// Its replicas, by shard.
    pub replicas: Vec<ReplicaReport>,
    /// Its lanes.
    pub lanes: Vec<LaneReport>,
    /// Where the time of its requests went.
    pub stages: CoreStages,
}

/// Where the time of a core's requests went.
#[derive(Clone, Debug, Default)]
pub struct CoreStages {
    /// The core.
    pub core: CoreId,
    /// What each stage came to since the start.
    pub tallies: Box<Tallies>,
}

/// What a replica is in its shard's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
    /// It may have forgotten something, and is on its way back: it is not counted, or does not campaign.
    Recovering,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct ReplicaReport {
    /// Its shard.
    pub shard: ShardId,
    /// What it is.
    pub role: Role,
    /// Who leads, where that is known.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// The last index of its log.
    pub last_index: Index,
    /// What it knows to be committed.
    pub commit_index: Index,
    /// The term of the entry there, where it still knows it.
    pub commit_term: Option<Term>,
    /// How far its own disk holds its log.
    pub durable_index: Index,
    /// The entry that its table ends with; 0 without a table.
    pub snapshot_index: Index,
    /// What it has applied.
    pub applied_index: Index,
    /// The shard's revision at the applied index.
    pub revision: Revision,
    /// Live keys.
    pub keys: u64,
    /// Bytes of live keys and values.
    pub bytes: u64,
    /// The digest of the live state.
    pub state_digest: u64,
    /// The lane that its entries are in.
    pub lane: LaneId,
    /// Whether its log has all that it ever acknowledged.
    pub is_whole: bool,
    /// Whether its state is damaged and on its way from a peer.
    pub is_spoiled: bool,
    /// Bytes that are written of its next table; 0: none is being made.
    pub snapshot_bytes_written: u64,
    /// How far the table is that is fetched for it from a peer, where one is.
    pub fetch: Option<FetchProgress>,
    /// How often something was lost of its state or log since the start, and how often it had it again.
    pub damaged_and_repaired: (u64, u64),
}

/// One lane.
#[derive(Clone, Debug)]
pub struct LaneReport {
    /// Its number.
    pub lane: LaneId,
    /// The core that owns it.
    pub core: CoreId,
    /// Bytes of batches in its log.
    pub log_bytes: u64,
    /// Its segments.
    pub segments: u64,
    /// How long the last durable write took.
    pub last_write: Duration,
    /// The age of the oldest write that is not yet durable; zero: none.
    pub oldest_pending: Duration,
    /// Whether a batch write has failed.
    pub is_poisoned: bool,
    /// Whether the disk has no more room than the reserve, or not even that.
    pub is_disk_full: bool,
    /// Damages of its log and of its replicas found since the start, and those of them that are no more: see
    /// `repair`.
    pub damaged_and_repaired: (u64, u64),
}

impl ReplicaReport {
    pub(crate) fn of<E: Env>(replica: &Replica<E>, lane: LaneId, fetch: Option<FetchProgress>) -> Self {
        let raft = &replica.raft;
        Self {
            shard: replica.shard,
            role: match raft.role() {
                raft::Role::Leader => Role::Leader,
                raft::Role::Follower | raft::Role::PreCandidate | raft::Role::Candidate
                    if raft.standing() != raft::Standing::Whole || replica.repair.is_spoiled() =>
                {
                    Role::Recovering
                }
                raft::Role::Follower => Role::Follower,
                raft::Role::PreCandidate | raft::Role::Candidate => Role::Candidate,
            },
            leader: raft.leader(),
            term: raft.term(),
            last_index: raft.last_index(),
            commit_index: replica.committed,
            commit_term: raft.term_at(replica.committed),
            durable_index: raft.persisted_index(),
            snapshot_index: replica.state.table().map_or(Index(0), |table| table.meta().applied),
            applied_index: replica.state.applied(),
            revision: replica.state.revision(),
            keys: replica.state.keys(),
            bytes: replica.state.bytes(),
            state_digest: replica.state.digest(),
            lane,
            is_whole: raft.standing() == raft::Standing::Whole,
            is_spoiled: replica.repair.is_spoiled(),
            snapshot_bytes_written: replica.changes.written.get(),
            fetch,
            damaged_and_repaired: (replica.repair.damaged, replica.repair.repaired),
        }
    }
}

impl LaneReport {
    pub(crate) fn of<E: Env>(
        lane: &Lane<E>,
        (id, core): (LaneId, CoreId),
        room: Room,
        of_replicas: (u64, u64),
    ) -> Self {
        let status = lane.status();
        let (damaged, repaired) = of_replicas;
        Self {
            lane: id,
            core,
            log_bytes: status.log_bytes,
            segments: status.segments as u64,
            last_write: status.last_write,
            oldest_pending: status.oldest_pending,
            is_poisoned: status.poisoned,
            damaged_and_repaired: (status.damages_found + damaged, status.damages_ended + repaired),
            is_disk_full: status.space == Space::Short || room.level != Level::Enough,
        }
    }
}
