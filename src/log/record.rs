//! One record of a batch: an entry, a hard state, a standing, the mark up to which a shard's entries were
//! released, that its log begins anew, or where it ends after a part of the lane's log was lost. Its format
//! is its batch's, version 1.
//!
//! ```text
//!  0        1         4        8        16       24        28
//!  ├ kind 1 ┼ zeros 3 ┼ shard 4┼ index 8┼ term 8 ┼ length 4┼ bytes: length
//! ```
//!
//! | kind | index | term | bytes |
//! |---|---|---|---|
//! | 1 entry | the entry's | the entry's | its data |
//! | 2 hard state | commit | term | the node voted for, 4 bytes, 0 for none |
//! | 3 released | the last index released | that entry's term | none |
//! | 4 standing | 0 | 0 | raft's record of it, 24 bytes |
//! | 5 restart | the last index before the new beginning | that entry's term | none |
//! | 6 end | the last index that is left, 0 for none | that entry's term | none |
//!
//! Invariants: a record never reaches past its batch; what is zero stays zero, so that a later format can use
//! it; a decoder takes no length on trust.
//!
//! Pure. It deliberately has no checksum of its own: a batch is whole or it is nothing.

use std::fmt;

use crate::ids::{Index, NodeId, ShardId, Term};
use crate::raft::{HardState, STANDING_BYTES, Standing};

use super::codec::{Source, put_u32, put_u64};

/// The fixed part of a record, in bytes.
pub const RECORD_HEADER_BYTES: usize = 28;

/// The bytes of a hard state's record.
pub const HARD_STATE_BYTES: usize = RECORD_HEADER_BYTES + 4;

/// The bytes of a standing's record.
pub const STANDING_RECORD_BYTES: usize = RECORD_HEADER_BYTES + STANDING_BYTES;

/// The bytes of a restart's record.
pub const RESTART_BYTES: usize = RECORD_HEADER_BYTES;

/// The bytes of an end's record.
pub const END_BYTES: usize = RECORD_HEADER_BYTES;

/// The bytes of a released mark's record.
pub const RELEASED_BYTES: usize = RECORD_HEADER_BYTES;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_RELEASED: u8 = 3;
const KIND_STANDING: u8 = 4;
const KIND_RESTART: u8 = 5;
const KIND_END: u8 = 6;

/// The bytes that an entry's record takes.
#[must_use]
pub fn entry_bytes(data: usize) -> usize {
    RECORD_HEADER_BYTES + data
}

/// One record, its data still where it was read or where the caller holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An entry. It replaces everything of its shard at its index and above.
    Entry {
        /// Whose it is.
        shard: ShardId,
        /// Its place in the shard's log.
        index: Index,
        /// The term that it was proposed in.
        term: Term,
        /// What it says.
        data: &'a [u8],
    },
    /// Term, vote and commit index of a shard, replacing those before it.
    HardState {
        /// Whose it is.
        shard: ShardId,
        /// The state.
        state: HardState,
    },
    /// Everything of the shard up to here is held elsewhere and not needed from the log.
    Released {
        /// Whose entries.
        shard: ShardId,
        /// The last of them.
        index: Index,
        /// The term of the last of them.
        term: Term,
    },
    /// What a replica knows of its past, replacing what was said before it.
    Standing {
        /// Whose it is.
        shard: ShardId,
        /// What it knows.
        standing: Standing,
    },
    /// The shard's log begins anew behind this index: every entry before this record goes, also those behind
    /// the index.
    Restart {
        /// Whose log.
        shard: ShardId,
        /// The last entry that is held elsewhere.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// A part of the lane's log is lost. What is left of this shard's ends with this entry, and what earlier
    /// records say behind it does not count.
    End {
        /// Whose log.
        shard: ShardId,
        /// The last entry that is left.
        index: Index,
        /// Its term.
        term: Term,
    },
}

/// Why bytes under a good checksum are not a record: they were written by another format, or wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The batch ends inside a record, or goes on after its last one.
    Length,
    /// A kind that this format does not have.
    Kind(u8),
    /// A field that must be zero, must not be zero, or has a length of its own, is otherwise.
    Field,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("a record's length does not fit its batch"),
            Self::Kind(kind) => write!(f, "a record of the unknown kind {kind}"),
            Self::Field => f.write_str("a record's field holds what it must not"),
        }
    }
}

impl<'a> Record<'a> {
    /// The shard that the record belongs to.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        match *self {
            Self::Entry { shard, .. }
            | Self::HardState { shard, .. }
            | Self::Released { shard, .. }
            | Self::Standing { shard, .. }
            | Self::Restart { shard, .. }
            | Self::End { shard, .. } => shard,
        }
    }

    /// The bytes that it takes in a batch.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        match self {
            Self::Entry { data, .. } => entry_bytes(data.len()),
            Self::HardState { .. } => HARD_STATE_BYTES,
            Self::Released { .. } => RELEASED_BYTES,
            Self::Standing { .. } => STANDING_RECORD_BYTES,
            Self::Restart { .. } => RESTART_BYTES,
            Self::End { .. } => END_BYTES,
        }
    }

    /// Writes the record at `at`, and returns where it ends. There must be room for
    /// [`Record::encoded_bytes`].
    pub fn encode(&self, out: &mut [u8], at: usize) -> usize {
        let end = at + self.encoded_bytes();
        assert!(end <= out.len(), "a record to byte {end} of a buffer of {}", out.len());
        let (vote, known): ([u8; 4], [u8; STANDING_BYTES]);
        let (kind, shard, index, term, data) = match *self {
            Self::Entry { shard, index, term, data } => (KIND_ENTRY, shard, index, term, data),
            Self::HardState { shard, state } => {
                vote = state.vote.map_or(0, |node| node.0).to_le_bytes();
                (KIND_HARD_STATE, shard, state.commit, state.term, &vote[..])
            }
            Self::Released { shard, index, term } => (KIND_RELEASED, shard, index, term, &[][..]),
            Self::Standing { shard, standing } => {
                known = standing.encode();
                (KIND_STANDING, shard, Index(0), Term(0), &known[..])
            }
            Self::Restart { shard, index, term } => (KIND_RESTART, shard, index, term, &[][..]),
            Self::End { shard, index, term } => (KIND_END, shard, index, term, &[][..]),
        };
        let length =
            u32::try_from(data.len()).expect("a record is in a batch, and a batch is below 2^32 bytes");
        out[at..at + 4].copy_from_slice(&[kind, 0, 0, 0]);
        put_u32(out, at + 4, shard.0);
        put_u64(out, at + 8, index.0);
        put_u64(out, at + 16, term.0);
        put_u32(out, at + 24, length);
        out[at + RECORD_HEADER_BYTES..end].copy_from_slice(data);
        end
    }

    /// Takes the next record from the source.
    pub fn decode(source: &mut Source<'a>) -> Result<Self, RecordError> {
        let fixed = source.take(RECORD_HEADER_BYTES).ok_or(RecordError::Length)?;
        let mut fields = Source::new(fixed);
        let mut next_u32 = || fields.u32().ok_or(RecordError::Length);
        let [kind, zeros @ ..] = next_u32()?.to_le_bytes();
        let shard = ShardId(next_u32()?);
        let mut next_u64 = || fields.u64().ok_or(RecordError::Length);
        let index = Index(next_u64()?);
        let term = Term(next_u64()?);
        let length = fields.u32().ok_or(RecordError::Length)?;
        let data = source.take(length as usize).ok_or(RecordError::Length)?;
        if zeros != [0; 3] {
            return Err(RecordError::Field);
        }
        match kind {
            KIND_ENTRY if index == Index(0) || term == Term(0) => Err(RecordError::Field),
            KIND_ENTRY => Ok(Self::Entry { shard, index, term, data }),
            KIND_HARD_STATE => {
                let vote = <[u8; 4]>::try_from(data).map_err(|_| RecordError::Field)?;
                let vote = Some(NodeId(u32::from_le_bytes(vote))).filter(|node| *node != NodeId(0));
                Ok(Self::HardState { shard, state: HardState { term, vote, commit: index } })
            }
            KIND_RELEASED if data.is_empty() => Ok(Self::Released { shard, index, term }),
            KIND_STANDING if index == Index(0) && term == Term(0) => {
                let bytes = <&[u8; STANDING_BYTES]>::try_from(data).map_err(|_| RecordError::Field)?;
                let standing = Standing::decode(bytes).map_err(|_| RecordError::Field)?;
                Ok(Self::Standing { shard, standing })
            }
            KIND_RESTART if data.is_empty() && index > Index(0) && term > Term(0) => {
                Ok(Self::Restart { shard, index, term })
            }
            KIND_END if data.is_empty() => Ok(Self::End { shard, index, term }),
            KIND_RELEASED | KIND_STANDING | KIND_RESTART | KIND_END => Err(RecordError::Field),
            other => Err(RecordError::Kind(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record<'static>> {
        let state = HardState { term: Term(7), vote: Some(NodeId(2)), commit: Index(9) };
        vec![
            Record::Entry { shard: ShardId(3), index: Index(1), term: Term(1), data: b"" },
            Record::Entry { shard: ShardId(3), index: Index(u64::MAX), term: Term(u64::MAX), data: b"value" },
            Record::HardState { shard: ShardId(0), state },
            Record::HardState { shard: ShardId(u32::MAX), state: HardState { vote: None, ..state } },
            Record::Released { shard: ShardId(1), index: Index(5), term: Term(2) },
            Record::Standing { shard: ShardId(1), standing: Standing::Whole },
            Record::Standing {
                shard: ShardId(1),
                standing: Standing::Forgetful { episode: 9, told: Some(Term(4)) },
            },
            Record::Restart { shard: ShardId(1), index: Index(5), term: Term(2) },
            Record::End { shard: ShardId(1), index: Index(5), term: Term(2) },
            Record::End { shard: ShardId(1), index: Index(0), term: Term(0) },
        ]
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        for record in samples() {
            let mut bytes = vec![0xFF; record.encoded_bytes()];
            assert_eq!(record.encode(&mut bytes, 0), bytes.len());
            assert_eq!(Record::decode(&mut Source::new(&bytes)), Ok(record));
        }
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_refused() {
        for record in samples() {
            let mut bytes = vec![0; record.encoded_bytes()];
            record.encode(&mut bytes, 0);
            for len in 0..bytes.len() {
                assert_eq!(
                    Record::decode(&mut Source::new(&bytes[..len])),
                    Err(RecordError::Length),
                    "{record:?}"
                );
            }
        }
    }

    #[test]
    fn what_must_be_zero_is_checked() {
        let mut bytes = vec![0; RELEASED_BYTES];
        Record::Released { shard: ShardId(1), index: Index(5), term: Term(2) }.encode(&mut bytes, 0);
        bytes[2] = 1;
        assert_eq!(Record::decode(&mut Source::new(&bytes)), Err(RecordError::Field));
        bytes[2] = 0;
        bytes[0] = 9;
        assert_eq!(Record::decode(&mut Source::new(&bytes)), Err(RecordError::Kind(9)));
    }
}
