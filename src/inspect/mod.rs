//! Looking into the data directory of a node that does not run: whether it is whole, and what is in it.
//!
//! ```text
//!             ┌─ identity ─┐   ┌─ manifest ─► segments ─► batches ─► entries of each shard ─┐
//!  directory ─┤            ├─ lane                                                          ├─► findings,
//!             └────────────┘   └─────────────► tables ──► blocks ──► keys ──────────────────┘   or facts
//! ```
//!
//! [`verify()`] says what is wrong, [`dump`](mod@dump) what is there. Both read with the codecs of the
//! formats themselves, through [`Files`], which cannot write: nothing that they do changes a byte.
//!
//! What damage is and what is merely torn, [`crate::log`] says; the same rule is held here, but for one
//! thing: a start stops or mends, this goes on, and looks for everything that is wrong.
//!
//! Invariants:
//! - Nothing is written, made, removed or cut; a file is opened for reading alone.
//! - Whatever bytes are there, the outcome is a finding, never a panic.
//! - Of a file no more is in memory than a window, a block of a table, or a table's index, filter and
//!   sessions.
//! - Findings and facts come in the order of the directory: the same bytes give the same lines.
//!
//! It deliberately repairs nothing, and does not know whether a node runs: whoever calls has seen to that.

pub mod files;
pub mod finding;
mod lane;
mod segment;
mod table;
mod twins;
pub mod verify;
pub mod dump;

pub use dump::{Fact, Selection, dump};
pub use files::{DirFiles, Files};
pub use finding::{BatchFault, Finding, Proof, Severity, What};
pub use verify::{Counts, Report, verify};
