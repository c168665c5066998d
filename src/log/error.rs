//! What can go wrong with a lane's log or a node's identity, named by what the caller must do about it.
//!
//! Invariants: every error names the file and, where there is one, the offset; sources are kept, never turned
//! into text; damage is told apart from failure, since what failed may work after a restart and a damaged
//! file may not. What the disk does not give back when it is asked twice is damage.
//!
//! It deliberately has no catch-all variant and no error that asks to be tried again.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::ids::{ClusterId, Index, LaneId, NodeId, ShardId};

use super::batch::{BatchSequence, NotABatch};
use super::identity::Noted;
use super::medium::MediumError;
use super::record::RecordError;

/// The queue of a lane is full, or the lane failed or was closed: nothing was taken. The caller keeps the
/// append and tries again when the lane says that it made progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lane takes no more appends until some are written")
    }
}

impl std::error::Error for Full {}

/// What was being done when the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Writing a batch.
    WriteBatch,
    /// Making a segment: creating, filling, renaming, syncing.
    PrepareSegment,
    /// Removing a segment's file.
    RemoveSegment,
    /// Writing a copy of a manifest or an identity.
    WriteCopy,
    /// Reading.
    Read,
    /// Making what was read durable.
    Sync,
    /// Making or listing a directory.
    Directory,
}

/// A failure of the disk. Where it was a write or a sync, the process ends: nothing here is ever tried again.
#[derive(Clone, Debug)]
pub struct LogFailure {
    /// What was being done.
    pub doing: Doing,
    /// To which file or directory.
    pub file: PathBuf,
    /// At which byte of it.
    pub offset: u64,
    /// What the system said.
    pub source: Rc<io::Error>,
}

impl LogFailure {
    /// A failure at the start of a file, or of a directory.
    #[must_use]
    pub fn new(doing: Doing, file: &Path, source: io::Error) -> Self {
        Self::at(doing, file, 0, source)
    }

    /// A failure at a byte of a file.
    #[must_use]
    pub fn at(doing: Doing, file: &Path, offset: u64, source: io::Error) -> Self {
        Self { doing, file: file.to_path_buf(), offset, source: Rc::new(source) }
    }

    /// Whether the file merely found no room, which may pass: on the disk, in a quota, or within the process'
    /// own limit of file sizes. What is written short while a file is made is short of the same. A batch goes
    /// to blocks that are there: it is asked for nothing of the kind.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
        let kind = self.source.kind();
        let is_short = kind == WriteZero && self.doing != Doing::WriteBatch;
        is_short || matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
    }
}

impl fmt::Display for LogFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.doing {
            Doing::WriteBatch => "writing a batch to",
            Doing::PrepareSegment => "preparing",
            Doing::RemoveSegment => "removing",
            Doing::WriteCopy => "writing",
            Doing::Read => "reading",
            Doing::Sync => "syncing",
            Doing::Directory => "using the directory",
        };
        write!(f, "{doing} {} failed at byte {}: {}", self.file.display(), self.offset, self.source)
    }
}

impl std::error::Error for LogFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// Bytes on disk that are not what was acknowledged. Nothing was cut, removed or written: the files are as
/// they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: PathBuf,
    /// The byte at which it shows.
    pub offset: u64,
    /// What is wrong there.
    pub kind: DamageKind,
}

/// What is wrong with a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// Neither copy of a manifest or identity can be read.
    Copies,
    /// Both copies of a manifest or identity are gone, but files that it knew are there.
    CopiesMissing,
    /// The two copies have the same generation and different contents.
    CopiesDisagree,
    /// A good checksum over a manifest or identity that makes no sense.
    Content,
    /// A file that the manifest names is not there.
    SegmentMissing,
    /// A segment is shorter than it was made.
    SegmentLength {
        /// As it was made.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// The header of a segment is not what the manifest says.
    SegmentHeader,
    /// The disk does not give the file.
    BadFile(MediumError),
    /// The disk does not give back a block of the file, or a batch.
    BadBlock(MediumError),
    /// A durable batch that is read again and is no batch any more.
    Unreadable {
        /// What was found instead.
        found: NotABatch,
    },
    /// No batch where one must be: a later batch knew it durable.
    Batch {
        /// The batch that should be there.
        sequence: BatchSequence,
        /// The batch that proves it.
        covered_by: BatchSequence,
        /// What was found instead.
        found: NotABatch,
    },
    /// No batch where one must be: it is not past the recorded end of its segment.
    BeforeEnd {
        /// The batch that should be there.
        sequence: BatchSequence,
        /// The last one of the segment.
        end: BatchSequence,
        /// What was found instead.
        found: NotABatch,
    },
    /// A whole batch that does not belong there.
    OutOfOrder {
        /// The batch that should be there.
        expected: BatchSequence,
        /// The one that is.
        found: BatchSequence,
    },
    /// A batch that follows another batch than the one before it.
    Chain {
        /// Its number.
        sequence: BatchSequence,
    },
    /// A whole batch with an impossible record.
    Record(RecordError),
    /// Entries of a shard are missing between two others, or at the start.
    Gap {
        /// Whose.
        shard: ShardId,
        /// The last index before the hole.
        after: Index,
        /// The first one after it.
        found: Index,
    },
}

impl DamageKind {
    /// Whether this is what the disk says, rather than what it gave: it may say another thing later.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        matches!(self, Self::BadFile(_) | Self::BadBlock(_))
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copies => f.write_str("neither copy can be read"),
            Self::CopiesMissing => f.write_str("both copies are gone, but not the files that they knew"),
            Self::CopiesDisagree => f.write_str("the two copies have one generation and different contents"),
            Self::Content => f.write_str("the checksum is right, but the content makes no sense"),
            Self::SegmentMissing => f.write_str("the file is gone"),
            Self::SegmentLength { expected, found } => write!(f, "{found} bytes long instead of {expected}"),
            Self::SegmentHeader => f.write_str("the header is not what the manifest says"),
            Self::BadFile(error) => write!(f, "the disk does not give the file: {error}"),
            Self::BadBlock(error) => write!(f, "the disk does not give it back: {error}"),
            Self::Unreadable { found } => write!(f, "a durable batch cannot be read again: {found}"),
            Self::Batch { sequence, covered_by, found } => {
                write!(f, "batch {sequence} is damaged ({found}): batch {covered_by} knew it durable")
            }
            Self::BeforeEnd { sequence, end, found } => {
                write!(f, "batch {sequence} is damaged ({found}): the segment was whole up to batch {end}")
            }
            Self::OutOfOrder { expected, found } => {
                write!(f, "batch {found} in the place of batch {expected}")
            }
            Self::Chain { sequence } => write!(f, "batch {sequence} does not follow the batch before it"),
            Self::Record(error) => error.fmt(f),
            Self::Gap { shard, after, found } => {
                write!(f, "shard {shard}: entry {found} follows entry {after}")
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at byte {}: {}", self.file.display(), self.offset, self.kind)
    }
}

impl std::error::Error for Damage {}

/// What was kept on disk, and what this start asked for instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The directory belongs to another node.
    Node {
        /// On disk.
        kept: NodeId,
        /// Asked for.
        asked: NodeId,
    },
    /// The directory belongs to another cluster.
    Cluster {
        /// On disk.
        kept: ClusterId,
        /// Asked for.
        asked: ClusterId,
    },
    /// The cluster was made with another number of nodes.
    Nodes {
        /// On disk.
        kept: u32,
        /// Asked for.
        asked: u32,
    },
    /// The cluster was made with another number of shards.
    Shards {
        /// On disk.
        kept: u32,
        /// Asked for.
        asked: u32,
    },
    /// The files belong to another lane.
    Lane {
        /// On disk.
        kept: LaneId,
        /// Asked for.
        asked: LaneId,
    },
    /// The node was to be recovered, but this is the directory of one that may vote and lost nothing.
    NotLost,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { kept, asked } => write!(f, "it belongs to node {kept}, not to node {asked}"),
            Self::Cluster { kept, asked } => {
                write!(f, "it belongs to cluster {kept}, not to cluster {asked}")
            }
            Self::Nodes { kept, asked } => write!(f, "its cluster was made with {kept} nodes, not {asked}"),
            Self::Shards { kept, asked } => write!(f, "its cluster was made with {kept} shards, not {asked}"),
            Self::Lane { kept, asked } => write!(f, "it holds lane {kept}, not lane {asked}"),
            Self::NotLost => f.write_str(
                "--recover is for a node whose directory is lost, and this one is not: it knows what it has \
                 voted and acknowledged, and nothing was changed. Start without --recover; where the other \
                 nodes refuse this directory, move it away first",
            ),
        }
    }
}

/// Why a log or an identity was not opened. Each ends the start with one line and its own exit code.
#[derive(Clone, Debug)]
pub enum OpenError {
    /// A setting is out of its bounds: correct it.
    Settings(SettingsError),
    /// Damage: repair from the peers, or restore. Nothing was changed.
    Damaged(Damage),
    /// Written by a newer build: use that one.
    Format {
        /// The file.
        file: PathBuf,
        /// The version that it has.
        found: u16,
        /// The newest version that this build reads.
        known: u16,
    },
    /// The directory is not the one that was meant: correct the settings or the path.
    Disagrees {
        /// The directory.
        dir: PathBuf,
        /// What was kept and what was asked.
        what: Disagreement,
    },
    /// The disk is full: make room and start again.
    DiskFull(LogFailure),
    /// The disk failed: look at it before starting again.
    Failed(LogFailure),
}

impl From<LogFailure> for OpenError {
    fn from(failure: LogFailure) -> Self {
        if failure.is_full() { Self::DiskFull(failure) } else { Self::Failed(failure) }
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => error.fmt(f),
            Self::Damaged(damage) => write!(f, "{damage}; nothing was changed"),
            Self::Format { file, found, known } => {
                write!(f, "{} has format {found}, this build reads up to {known}", file.display())
            }
            Self::Disagrees { dir, what } => {
                write!(f, "{} is not the directory that was meant: {what}", dir.display())
            }
            Self::DiskFull(failure) | Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::DiskFull(failure) | Self::Failed(failure) => Some(failure),
            Self::Damaged(damage) => Some(damage),
            Self::Settings(error) => Some(error),
            Self::Format { .. } | Self::Disagrees { .. } => None,
        }
    }
}

/// A setting of a lane that is out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// Not a number of whole blocks.
    NotWholeBlocks {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
    },
    /// Below what it must hold.
    TooSmall {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// The least it may be.
        least: u64,
    },
    /// Above what the format allows.
    TooLarge {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// The most it may be.
        most: u64,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWholeBlocks { setting, value } => {
                write!(f, "{setting} is {value}, not a multiple of 4096")
            }
            Self::TooSmall { setting, value, least } => write!(f, "{setting} is {value}, below {least}"),
            Self::TooLarge { setting, value, most } => write!(f, "{setting} is {value}, above {most}"),
        }
    }
}

impl std::error::Error for SettingsError {}

/// Why durable entries were not read.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// They were released, up to before `first`: a snapshot holds them.
    Released {
        /// The first index that the log still holds.
        first: Index,
    },
    /// They are not durable yet, or do not exist.
    Beyond {
        /// The last durable index.
        last: Index,
    },
    /// They are damaged. The log goes on; the entries must come from a peer.
    Damaged(Damage),
    /// They could not be read, for a reason that says nothing of what is stored.
    Failed(LogFailure),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Released { first } => write!(f, "the log begins with entry {first}"),
            Self::Beyond { last } => write!(f, "the log ends with entry {last}"),
            Self::Damaged(damage) => damage.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a directory's id was not noted.
#[derive(Clone, Debug)]
pub enum NoteError {
    /// Another directory is known for that node, and not an older one than a recovered one.
    AnotherKnown {
        /// The one that is known.
        known: Noted,
    },
    /// No such node in this cluster.
    NoSuchNode,
    /// It could not be written: it is not noted.
    Failed(LogFailure),
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnotherKnown { known } => {
                write!(f, "the node is known with the directory {:016x}", known.directory.0)
            }
            Self::NoSuchNode => f.write_str("the cluster has no such node"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for NoteError {}
