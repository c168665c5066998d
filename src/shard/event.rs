//! What a runner's turn takes in, and what it leaves for the other cores of its node.

use crate::ids::{CoreId, NodeId, ShardId};
use crate::log;
use crate::raft::Entry;
use crate::route::parcel::Parcel;
use crate::shard::directory::News;
use crate::shard::status::CoreStatus;

/// Everything that happens to a runner, but the passing of time and the log's completions.
#[derive(Debug)]
pub(crate) enum Event {
    /// A parcel arrived, or was made here for a replica here.
    Parcel(Parcel),
    /// The link to a node went down: what was sent over it and not answered is lost.
    LinkDown(NodeId),
    /// Entries read from the log.
    LogRead {
        /// The shard that they are of.
        shard: ShardId,
        /// What they were read for.
        purpose: ReadPurpose,
        /// The entries, or why they could not be read.
        result: Result<Vec<Entry>, log::ReadError>,
    },
}

/// What entries are read from the log for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadPurpose {
    /// To be applied.
    Apply,
    /// To be sent to a follower that is far behind.
    Follower(NodeId),
}

/// What one core says to another of the same node.
#[derive(Clone, Debug)]
pub enum MeshItem {
    /// A parcel for, or from, a replica or caller there.
    Parcel(Parcel),
    /// Who leads a shard.
    News(News),
    /// A question for a core's status.
    StatusAsk {
        /// Who asks.
        from: CoreId,
        /// The question's number.
        number: u64,
    },
    /// The answer to it.
    StatusTold {
        /// The question's number.
        number: u64,
        /// The answer.
        status: CoreStatus,
    },
}
