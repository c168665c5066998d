//! What a runner's turn takes in, and what it leaves for the other cores of its node.

use crate::ids::{CoreId, NodeId, ShardId};
use crate::kv::table::Block;
use crate::log;
use crate::raft::Entry;
use crate::route::parcel::Parcel;
use crate::shard::directory::News;
use crate::shard::status::CoreStatus;
use crate::shard::table::TableReadError;
use crate::shard::wanted::{SnapshotAnswer, SnapshotAsk};

/// Everything that happens to a runner, but the passing of time and the log's completions.
#[derive(Debug)]
pub(crate) enum Event {
    /// A parcel arrived, or was made here for a replica here.
    Parcel(Parcel),
    /// The link to a node went down: what was sent over it and not answered is lost.
    LinkDown(NodeId),
    /// Blocks read from a shard's table.
    BlocksRead {
        /// The shard.
        shard: ShardId,
        /// Who waits for them.
        waiter: BlocksFor,
        /// The blocks, or why they could not be read. Fewer than asked for where the table was replaced.
        result: Result<Vec<Block>, TableReadError>,
    },
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

/// What blocks are read from a table for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlocksFor {
    /// The entry that is to be applied next.
    Apply,
    /// A read, by its number.
    Read(u64),
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
    /// What a core keeps free of the disk that all of them share.
    Reserve {
        /// Who keeps it.
        from: CoreId,
        /// How much.
        bytes: u64,
    },
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
    /// A question for a table.
    SnapshotAsk(SnapshotAsk),
    /// The answer to it.
    SnapshotTold {
        /// The question's number.
        number: u64,
        /// The answer.
        answer: SnapshotAnswer,
    },
    /// A table of the other core was found to be damaged by one that read it for a backup.
    TableDamaged {
        /// The shard.
        shard: ShardId,
        /// What was found.
        source: TableReadError,
    },
}
