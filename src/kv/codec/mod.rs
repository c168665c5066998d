//! Everything of this module as bytes: commands for the log, the rest for mesh and links.
//!
//! ```text
//! ┌────────────┬──────────────────────────────┐
//! │ format: u8 │ body, drawn at its own codec │
//! └────────────┴──────────────────────────────┘
//! ```
//!
//! Numbers are little-endian and of fixed width. Within a body:
//!
//! ```text
//! blob    length: u32 │ bytes
//! option  0           │ (nothing)        1 │ the thing
//! list    count: u32  │ the things
//! flag    0: no, 1: yes; nothing else
//! ```
//!
//! Invariants:
//! - An encoded command is never empty: Raft's no-op is the empty entry.
//! - What was encoded decodes to the same; whatever else is decoded is an error and never a panic.
//! - A length or count is compared with what is left before anything is allocated for it.
//! - A decoded `Bytes` is a slice of what was decoded, not a copy.
//! - Another format gets another number; a body of this one never changes. Requests are compared, and states
//!   digested, by their bodies in this format.
//!
//! Crashes: a body has no checksum and no end of its own. The log's batch and the link's frame around it
//! have, so that a torn one never comes here.

mod answer;
mod command;
mod query;
mod session;
pub(super) mod wire;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

use super::answer::{Answer, Applied, Refusal};
use super::command::Command;
use super::query::{Query, QueryAnswer};
use wire::{Length, Reader, Sink};

pub(super) use answer::{outcome_len, put_outcome};
pub(super) use session::{SessionAnswer, SessionImage, put_session, put_sessions_header, take_sessions};

/// The format that is written, and the only one that is read.
const FORMAT: u8 = 1;

/// Why bytes are not what they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end early, or a length in them reaches beyond their end.
    Truncated {
        /// The bytes that were to follow.
        wanted: u64,
        /// Those that did.
        left: u64,
    },
    /// They are of a format that this version does not know.
    Format(u8),
    /// A byte that says what follows says nothing known.
    Unknown {
        /// What was to follow.
        what: &'static str,
        /// The byte.
        tag: u8,
    },
    /// Things that have to be in order are not.
    Unordered {
        /// Of what kind they are.
        what: &'static str,
        /// The number of the one that comes too late.
        number: u64,
    },
    /// More follows than belongs to it.
    Trailing {
        /// The bytes too many.
        bytes: u64,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { wanted, left } => write!(f, "{wanted} bytes were to follow, {left} did"),
            Self::Format(format) => write!(f, "format {format} is not known, only {FORMAT}"),
            Self::Unknown { what, tag } => write!(f, "{tag} is no {what}"),
            Self::Unordered { what, number } => write!(f, "{what} {number} is not above the one before it"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes too many follow"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A thing without its format byte, so that it can be part of another.
pub(super) trait Body: Sized {
    /// Writes it.
    fn put<S: Sink>(&self, sink: &mut S);
    /// Reads it.
    fn take(reader: &mut Reader) -> Result<Self, DecodeError>;
}

/// Gives a type with a [`Body`] its public face.
macro_rules! codec {
    ($type:ty) => {
        impl $type {
            /// Writes it to the end of `out`: [`Self::encoded_len`] bytes.
            pub fn encode(&self, out: &mut Vec<u8>) {
                out.reserve(self.encoded_len());
                out.u8(FORMAT);
                self.put(out);
            }

            /// The number of bytes that [`Self::encode`] writes: at least one.
            #[must_use]
            pub fn encoded_len(&self) -> usize {
                let mut length = Length(1);
                self.put(&mut length);
                length.0
            }

            /// Reads what [`Self::encode`] wrote, all of it; keys and values are slices of it.
            pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(bytes);
                let format = reader.u8()?;
                if format != FORMAT {
                    return Err(DecodeError::Format(format));
                }
                let decoded = Self::take(&mut reader)?;
                reader.end()?;
                Ok(decoded)
            }
        }
    };
}

codec!(Command);
codec!(Applied);
codec!(Answer);
codec!(Refusal);
codec!(Query);
codec!(QueryAnswer);
