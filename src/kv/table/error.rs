//! What can be wrong with the bytes of a table, and where.

use std::fmt;

use crate::kv::DecodeError;

/// A part of a table's file. Its number is part of the seed of its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first page.
    Header = 1,
    /// A block of entries.
    Block = 2,
    /// The sessions.
    Sessions = 3,
    /// The filter for point reads.
    Filter = 4,
    /// The index of the blocks.
    Index = 5,
    /// The last page.
    Footer = 6,
}

/// Bytes that are not what a table has there. The file is damaged, or is not the table that it was taken for;
/// whoever reads it repairs the shard from its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableError {
    /// Of what.
    pub part: Part,
    /// Where that part begins in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub kind: TableErrorKind,
}

/// What is wrong with a part of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableErrorKind {
    /// It was given as more or fewer bytes than it has.
    Length {
        /// The bytes that it has.
        wanted: u64,
        /// Those that were given.
        found: u64,
    },
    /// Its checksum is another.
    Checksum {
        /// What the file says.
        stored: u64,
        /// What its bytes come to.
        computed: u64,
    },
    /// It does not begin as a table does.
    Magic(u64),
    /// It is of a format that this version does not know.
    Format(u32),
    /// A number in it is beyond what it may be.
    Bound {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u64,
        /// What it is at most.
        bound: u64,
    },
    /// It contradicts another part, itself, or whoever asked for it.
    Mismatch {
        /// In what.
        what: &'static str,
        /// What it had to be.
        wanted: u64,
        /// What it is.
        found: u64,
    },
    /// Its things are not in order.
    Order {
        /// Which of them comes too late.
        at: u64,
    },
    /// Its body cannot be read.
    Body(DecodeError),
}

impl Part {
    /// The error that this part, at `offset`, is not what it has to be.
    pub(in crate::kv) fn wrong(self, offset: u64, kind: TableErrorKind) -> TableError {
        TableError { part: self, offset, kind }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Block => "block",
            Self::Sessions => "sessions",
            Self::Filter => "filter",
            Self::Index => "index",
            Self::Footer => "footer",
        })
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the table's {} at offset {}: {}", self.part, self.offset, self.kind)
    }
}

impl fmt::Display for TableErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { wanted, found } => write!(f, "{found} bytes where there have to be {wanted}"),
            Self::Checksum { stored, computed } => {
                write!(f, "its checksum is {stored:016x}, its bytes come to {computed:016x}")
            }
            Self::Magic(magic) => write!(f, "it begins with {magic:016x}, as no table does"),
            Self::Format(format) => write!(f, "format {format} is not known"),
            Self::Bound { what, value, bound } => write!(f, "{what} is {value}, at most {bound} can be"),
            Self::Mismatch { what, wanted, found } => write!(f, "{what} is {found} and has to be {wanted}"),
            Self::Order { at } => write!(f, "number {at} is not above the one before it"),
            Self::Body(_) => write!(f, "its body cannot be read"),
        }
    }
}

impl std::error::Error for TableError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            TableErrorKind::Body(error) => Some(error),
            TableErrorKind::Length { .. }
            | TableErrorKind::Checksum { .. }
            | TableErrorKind::Magic(_)
            | TableErrorKind::Format(_)
            | TableErrorKind::Bound { .. }
            | TableErrorKind::Mismatch { .. }
            | TableErrorKind::Order { .. } => None,
        }
    }
}
