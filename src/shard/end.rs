//! Why a runner ends without being asked to.

use std::fmt;

use crate::ids::{Index, LaneId, ShardId};
use crate::kv::{DecodeError, MergeError};
use crate::log::{Damage, LogFailure, ReadError};
use crate::shard::table::TableReadError;

/// Why a runner ended other than by being asked to. The process says it and ends.
#[derive(Debug)]
pub enum RunEnd {
    /// A log write failed: what the disk holds is no longer known.
    LogWrite(LogFailure),
    /// Entries that the log holds cannot be read.
    LogRead {
        /// The shard that they are of.
        shard: ShardId,
        /// Why.
        source: ReadError,
    },
    /// A lane's log is not what was written.
    LogDamaged {
        /// The lane.
        lane: LaneId,
        /// What is wrong, and where.
        source: Damage,
    },
    /// A shard's table cannot be read.
    Table {
        /// The shard.
        shard: ShardId,
        /// Why.
        source: TableReadError,
    },
    /// A shard's entries do not come to the state that they were counted as: its table is not what its
    /// checksums say.
    Merge {
        /// The shard.
        shard: ShardId,
        /// What does not agree.
        source: MergeError,
    },
    /// A shard's state is not what its replicas agree on, and there is no replica to have another one from.
    Digest {
        /// The shard.
        shard: ShardId,
        /// The entry after which the digests were taken.
        index: Index,
    },
    /// A committed entry is no command that this version knows: a newer version proposed it, or a peer's
    /// memory failed it. It can be neither applied nor left out.
    Command {
        /// The shard that it is of.
        shard: ShardId,
        /// The entry.
        index: Index,
        /// What makes no sense in it.
        source: DecodeError,
    },
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogWrite(failure) => failure.fmt(f),
            Self::LogRead { shard, source } => write!(f, "the log of shard {shard}: {source}"),
            Self::LogDamaged { lane, source } => write!(f, "the log of lane {lane}: {source}"),
            Self::Table { shard, source } => write!(f, "the table of shard {shard}: {source}"),
            Self::Merge { shard, source } => write!(f, "the table of shard {shard}: {source}"),
            Self::Digest { shard, index } => write!(f, "the state of shard {shard} at {index} is damaged"),
            Self::Command { shard, index, source } => {
                write!(f, "entry {index} of shard {shard} is no command of this version: {source}")
            }
        }
    }
}
