//! What a replica still knows of its own past, as a record.
//!
//! ```text
//!            votes   acknowledges   is counted   campaigns
//!  Whole      yes        yes           yes          yes
//!  Damaged    yes        yes           yes          no      knows its terms, votes and last entry
//!  Forgetful  ·          ·             no           no      may have forgotten any of them
//!    untold   no         no                                 asks the others for their terms
//!    told     in terms above those it was told; in those, see `recovering`
//!
//!  Whole ──── damage ────► Damaged ──── the log again as good as it was ────► Whole
//!    └── damage, or wiped ──► untold ── enough others told ──► told ── see `recovering` ──► Whole
//! ```
//!
//! A standing is written like a hard state, in the same order, and one that is not `Whole` is durable before
//! the replica answers anybody.
//!
//! ```text
//!  0       1         8                  16                 24
//!  ├ kind 1┼ zeros 7 ┼ first u64        ┼ second u64       ┤   little-endian
//!
//!  kind                 first        second
//!  1 whole              0            0
//!  2 damaged            last index   last term
//!  3 forgetful, untold  episode      0
//!  4 forgetful, told    episode      told
//! ```
//!
//! Invariants: decoding what was encoded gives the same standing, and encoding what was decoded the same
//! bytes. It has no checksum of its own: the batch that it is part of has.
//!
//! Deliberately absent: how a replica gets from one to another. That is `recovering`'s.

use crate::ids::{Index, Term};

use super::codec::DecodeError;

/// The bytes of a standing's record.
pub const STANDING_BYTES: usize = 24;

const WHOLE: u8 = 1;
const DAMAGED: u8 = 2;
const UNTOLD: u8 = 3;
const TOLD: u8 = 4;

/// See the module's docs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Nothing was lost.
    #[default]
    Whole,
    /// Entries were lost, but the hard state and the last entry are known: they lie behind the damage.
    Damaged {
        /// The last entry that the log held.
        last_index: Index,
        /// The term of it.
        last_term: Term,
    },
    /// Votes and acknowledged entries may have been lost, and nobody knows which. Also what a wiped node is.
    Forgetful {
        /// A number drawn at random when the loss was found, not 0: it tells answers to this replica from
        /// answers to one that it was before.
        episode: u64,
        /// The highest term that enough others told, once they have; 0 is none.
        told: Option<Term>,
    },
}

impl Standing {
    /// What is left of this standing when entries are lost, but the hard state and the last entry are known.
    /// Damage to one that was damaged keeps the better end of the two. One that was forgetful and took part
    /// again may have said anything since: it is as one that was wiped, under a new episode.
    #[must_use]
    pub fn after_damage(self, last_index: Index, last_term: Term, episode: u64) -> Self {
        assert!(episode != 0, "an episode is drawn at random, and is not 0");
        let (last_term, last_index) = match self {
            Self::Whole => (last_term, last_index),
            Self::Damaged { last_index: index, last_term: term } => {
                (term, index).max((last_term, last_index))
            }
            Self::Forgetful { .. } => return Self::Forgetful { episode, told: None },
        };
        Self::Damaged { last_index, last_term }
    }

    /// The record.
    #[must_use]
    pub fn encode(&self) -> [u8; STANDING_BYTES] {
        let (kind, first, second) = match *self {
            Self::Whole => (WHOLE, 0, 0),
            Self::Damaged { last_index, last_term } => (DAMAGED, last_index.0, last_term.0),
            Self::Forgetful { episode, told: None } => (UNTOLD, episode, 0),
            Self::Forgetful { episode, told: Some(told) } => (TOLD, episode, told.0),
        };
        let mut bytes = [0; STANDING_BYTES];
        bytes[0] = kind;
        bytes[8..16].copy_from_slice(&u64::to_le_bytes(first));
        bytes[16..].copy_from_slice(&u64::to_le_bytes(second));
        bytes
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are no standing.
    pub fn decode(bytes: &[u8; STANDING_BYTES]) -> Result<Self, DecodeError> {
        let [kind, zeros @ .., a, b, c, d, e, f, g, h] = bytes;
        let second = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        let [zeros @ .., a, b, c, d, e, f, g, h] = zeros;
        let first = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        if zeros != &[0; 7] {
            return Err(DecodeError::ReservedSet);
        }
        match *kind {
            WHOLE if first == 0 && second == 0 => Ok(Self::Whole),
            DAMAGED => Ok(Self::Damaged { last_index: Index(first), last_term: Term(second) }),
            UNTOLD if second == 0 => Ok(Self::Forgetful { episode: first, told: None }),
            TOLD => Ok(Self::Forgetful { episode: first, told: Some(Term(second)) }),
            WHOLE | UNTOLD => Err(DecodeError::ReservedSet),
            unknown => Err(DecodeError::KindUnknown(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standing_comes_back_and_nothing_else_is_one() {
        let episode = 0x0123_4567_89ab_cdef;
        let standings = [
            Standing::Whole,
            Standing::Damaged { last_index: Index(7), last_term: Term(3) },
            Standing::Forgetful { episode, told: None },
            Standing::Forgetful { episode, told: Some(Term(9)) },
        ];
        for standing in standings {
            let bytes = standing.encode();
            assert_eq!(Standing::decode(&bytes), Ok(standing));
            for place in 0..STANDING_BYTES {
                let mut other = bytes;
                other[place] ^= 0x40;
                if let Ok(decoded) = Standing::decode(&other) {
                    assert_eq!(decoded.encode(), other, "byte {place} of {standing:?}");
                    assert_ne!(decoded, standing);
                }
            }
        }
        assert_eq!(Standing::decode(&[0; STANDING_BYTES]), Err(DecodeError::KindUnknown(0)));
        let mut reserved = Standing::Whole.encode();
        reserved[7] = 1;
        assert_eq!(Standing::decode(&reserved), Err(DecodeError::ReservedSet));
    }
}
