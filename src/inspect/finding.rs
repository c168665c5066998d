//! What can be found of a data directory that is not as it should be, or worth a word.

use std::fmt;
use std::io;

use crate::ids::{Index, LaneId, ShardId, Term};
use crate::kv::table::TableError;
use crate::log::batch::{BatchSequence, NotABatch};
use crate::log::record::RecordError;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As a crash leaves it, so that the next start takes care of it; or where nothing is read from.
    Note,
    /// Damage to one of two copies: the other one has it all.
    Copy,
    /// Damage to what the other nodes of the cluster hold too.
    Peers,
    /// Damage that nothing repairs, or a format that this build does not know.
    Fatal,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Copy | Self::Peers => "damage",
            Self::Fatal => "fatal",
        })
    }
}

/// Something that was found.
#[derive(Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which file or directory, relative to the data directory; the empty name is that itself.
    pub file: String,
    /// At which byte of it.
    pub offset: u64,
    /// Whose data is concerned. Empty: not that of some shards alone.
    pub shards: Vec<ShardId>,
    /// What it is.
    pub what: What,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.file.is_empty() { "." } else { &self.file };
        write!(f, "{}: {file}: byte {}: {}", self.severity, self.offset, self.what)?;
        match &self.shards[..] {
            [] => Ok(()),
            [shard] => write!(f, "; shard {shard}"),
            shards => {
                f.write_str("; shards")?;
                shards.iter().try_for_each(|shard| write!(f, " {shard}"))
            }
        }
    }
}

/// What proves that a batch was durable once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A later batch, which knew it durable.
    Batch(BatchSequence),
    /// The end of its segment, which the manifest records.
    End(BatchSequence),
}

/// What was found of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// Batches that were durable are not there any more.
    Lost {
        /// The first of them.
        first: BatchSequence,
        /// The last of them.
        last: BatchSequence,
        /// What is in the place of the first.
        found: NotABatch,
        /// How it is known.
        proof: Proof,
    },
    /// A whole batch in the place of another.
    Other {
        /// The one that should be there.
        expected: BatchSequence,
        /// The one that is.
        found: BatchSequence,
    },
    /// A batch that follows another one than that before it.
    Chain {
        /// Its number.
        sequence: BatchSequence,
    },
    /// A whole batch with an impossible record.
    Record {
        /// Its number.
        sequence: BatchSequence,
        /// What is wrong.
        error: RecordError,
    },
    /// A whole batch whose padding is not zeros, as it was written.
    Padding {
        /// Its number.
        sequence: BatchSequence,
    },
    /// What was written of a batch that nobody was told about.
    Torn {
        /// The number that it would have.
        sequence: BatchSequence,
        /// What was found.
        found: NotABatch,
    },
}

/// What was found.
#[derive(Debug)]
pub enum What {
    /// The file or directory cannot be read.
    Unreadable(io::Error),
    /// There is no identity.
    IdentityMissing,
    /// A lane that the identity knows has no directory.
    LaneMissing,
    /// A lane that has no manifest yet, and no files either.
    LaneEmpty,
    /// This copy is not there.
    CopyMissing,
    /// This copy is not there yet: a crash came between the two.
    CopyNotYet,
    /// This copy is there, but not whole.
    CopyDamaged,
    /// This copy is older than the other one.
    CopyOlder {
        /// The generation of this one.
        generation: u64,
        /// That of the other one.
        newest: u64,
    },
    /// Neither copy can be read.
    CopiesLost,
    /// Both copies are gone, but not the files that they knew.
    CopiesMissing,
    /// The two copies have one generation and different contents.
    CopiesDisagree,
    /// A good checksum over what makes no sense.
    Content,
    /// A version that this build does not know.
    Format {
        /// The version.
        found: u16,
        /// The newest one that is known.
        known: u16,
    },
    /// The files belong to another lane.
    LaneOther(LaneId),
    /// The file is gone.
    Missing,
    /// The file is shorter or longer than it was made.
    Length {
        /// As it was made.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// The header is not what the manifest says.
    SegmentHeader,
    /// A batch is not where or what it should be.
    Batch(BatchFault),
    /// Entries between two others, or before the first, are not in the log.
    Hole {
        /// The first of them.
        first: Index,
        /// The last of them.
        last: Index,
    },
    /// Entries that no table holds and that are not in the log.
    EntriesLost {
        /// The first of them.
        first: Index,
        /// The last of them.
        last: Index,
    },
    /// The log does not lead up to the table: it is begun anew behind it.
    LogApart {
        /// Where the table ends.
        table: (Index, Term),
    },
    /// The table is not the one that the manifest names.
    TableOther {
        /// In what it differs.
        what: &'static str,
    },
    /// A part of a table is damaged.
    Table(TableError),
    /// A key of a table is not what table, block or state say of it.
    Key {
        /// Which entry of the table, from 0.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More keys of the table are wrong.
    MoreKeys {
        /// How many.
        count: u64,
    },
    /// What the keys of a table come to is not what its footer says.
    Sums {
        /// Which of the numbers.
        what: &'static str,
        /// What the footer says.
        wanted: u64,
        /// What they come to.
        found: u64,
    },
    /// A file that the manifest does not name, left by a crash.
    Unnamed,
    /// A table that was on its way from another node.
    Part,
    /// A file that is none of a node's.
    Strange,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::IdentityMissing => f.write_str("there is no identity: this is no data directory"),
            Self::LaneMissing => f.write_str("the directory of a lane is gone"),
            Self::LaneEmpty => f.write_str("the lane was not begun yet"),
            Self::CopyMissing => f.write_str("this copy is gone"),
            Self::CopyNotYet => f.write_str("this copy was not made yet"),
            Self::CopyDamaged => f.write_str("this copy is damaged"),
            Self::CopyOlder { generation, newest } => {
                write!(f, "this copy is of generation {generation}, the other one of {newest}")
            }
            Self::CopiesLost => f.write_str("neither copy can be read"),
            Self::CopiesMissing => f.write_str("both copies are gone, but not the files that they knew"),
            Self::CopiesDisagree => f.write_str("the two copies have one generation and different contents"),
            Self::Content => f.write_str("the checksum is right, but the content makes no sense"),
            Self::Format { found, known } => write!(f, "format {found}; this build reads up to {known}"),
            Self::LaneOther(lane) => write!(f, "the files belong to lane {lane}"),
            Self::Missing => f.write_str("the file is gone"),
            Self::Length { expected, found } => write!(f, "{found} bytes long instead of {expected}"),
            Self::SegmentHeader => f.write_str("the header is not what the manifest says"),
            Self::Batch(fault) => fault.fmt(f),
            Self::Hole { first, last } => write!(f, "entries {first} to {last} are missing in the log"),
            Self::EntriesLost { first, last } => {
                write!(f, "entries {first} to {last} are in no table and not in the log")
            }
            Self::LogApart { table: (index, term) } => write!(
                f,
                "the log does not lead up to the table to entry {index} of term {term}: the next start \
                 begins it anew behind the table"
            ),
            Self::TableOther { what } => write!(f, "not the table that the manifest names: another {what}"),
            Self::Table(error) => write!(f, "{}: {}", error.part, error.kind),
            Self::Key { number, what } => write!(f, "entry {number} of the table: {what}"),
            Self::MoreKeys { count } => write!(f, "{count} more keys of the table are wrong"),
            Self::Sums { what, wanted, found } => {
                write!(f, "the footer says {what} {wanted}, the keys come to {found}")
            }
            Self::Unnamed => f.write_str("no manifest names it: the next start removes it"),
            Self::Part => f.write_str("a table that was on its way from another node"),
            Self::Strange => f.write_str("not a file of a node"),
        }
    }
}

impl fmt::Display for BatchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { first, last, found, proof } => {
                match last.0.saturating_sub(first.0) {
                    0 => write!(f, "batch {first} is lost ({found})")?,
                    _ => write!(f, "batches {first} to {last} are lost ({found})")?,
                }
                match proof {
                    Proof::Batch(by) => write!(f, ": batch {by} knew it durable"),
                    Proof::End(end) => write!(f, ": the segment was whole up to batch {end}"),
                }
            }
            Self::Other { expected, found } => write!(f, "batch {found} in the place of batch {expected}"),
            Self::Chain { sequence } => write!(f, "batch {sequence} does not follow the batch before it"),
            Self::Record { sequence, error } => write!(f, "batch {sequence}: {error}"),
            Self::Padding { sequence } => {
                write!(f, "the padding of batch {sequence} is not zeros: the batch is whole")
            }
            Self::Torn { sequence, found } => write!(
                f,
                "the torn tail of batch {sequence}, which nobody was told about ({found}): the next start \
                 cuts it"
            ),
        }
    }
}
