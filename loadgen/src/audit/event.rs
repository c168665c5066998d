//! What is kept of an operation, and the history that they make up.

/// An operation on a key of the sample.
#[derive(Clone, Debug)]
pub struct Event {
    /// The key's place in the history.
    pub key: u32,
    /// What was asked.
    pub asked: Asked,
    /// When it was sent: not later than that.
    pub sent_ns: u64,
    /// When its answer came: not earlier than that. [`NEVER_NS`]: it never came.
    pub ended_ns: u64,
    /// What came of it.
    pub told: Told,
}

/// The end of what has none.
pub const NEVER_NS: u64 = u64::MAX;

/// What an operation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The value.
    Get,
    /// That this be the value.
    Put(Piece),
    /// That this be added to the value.
    Append(Piece),
    /// That there be none.
    Delete,
    /// That this be the value where the key has a revision; 0: where it does not exist.
    Swap(Piece, u64),
}

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Its mark.
    pub mark: u64,
    /// Its bytes.
    pub size: u32,
    /// Their checksum.
    pub crc: u32,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing that is known: it may have been executed, may yet be, or never.
    Unknown,
    /// It was certainly not executed, and never will be.
    NotDone,
    /// It wrote.
    Wrote {
        /// The revision that it made.
        at: Place,
        /// The key's version; 0: not told.
        version: u64,
        /// The length of the value; 0: not told.
        length: u64,
    },
    /// It deleted, at the revision that it made.
    Removed {
        /// That revision.
        at: Place,
    },
    /// It saw, and changed nothing: a read, a delete of nothing, a swap that was refused.
    Saw {
        /// The revision at which it was served.
        at: Place,
        /// What was there; `None`: no such key.
        value: Option<Seen>,
    },
}

/// A revision, and the shard that counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The shard; etcd is one.
    pub shard: u32,
    /// The revision.
    pub revision: u64,
}

/// A value as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The revision of the write that made it.
    pub made: u64,
    /// The revision at which the key came to be.
    pub created: u64,
    /// The key's version.
    pub version: u64,
    /// Its bytes.
    pub length: u32,
    /// Their checksum.
    pub crc: u32,
    /// The last piece in it that bears a mark of this run.
    pub last: Option<Tail>,
}

/// The last marked piece of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its mark.
    pub mark: u64,
    /// Where it begins.
    pub at: u32,
    /// The checksum of all from there on.
    pub crc: u32,
}

impl Asked {
    /// What it writes, where it does.
    pub fn piece(&self) -> Option<&Piece> {
        match self {
            Self::Put(piece) | Self::Append(piece) | Self::Swap(piece, _) => Some(piece),
            Self::Get | Self::Delete => None,
        }
    }

    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put(_) => "put",
            Self::Append(_) => "append",
            Self::Delete => "delete",
            Self::Swap(..) => "cas",
        }
    }
}

/// Everything that is known of the keys of a sample.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The keys.
    pub keys: Vec<Box<[u8]>>,
    /// The operations on them, in no order.
    pub events: Vec<Event>,
    /// The last value of each key, where it was read: all marks in it, in their order.
    pub finals: Vec<Final>,
    /// When recording ended before the run did.
    pub cut_ns: Option<u64>,
    /// Whether writes from before the run may take effect in it: they bear no mark.
    pub has_strays: bool,
}

/// The value of a key after the run.
#[derive(Clone, Debug)]
pub struct Final {
    /// The key's place.
    pub key: u32,
    /// The place of the read that saw it.
    pub event: usize,
    /// The marks in it.
    pub marks: Vec<u64>,
}
