//! What a host should be like for a node to run well on it: found facts in, findings and settings out.
//!
//! ```text
//! facts: Host ─────────────┬─► findings ──► a table, warnings at a start, an exit code
//! measured: Disk, Pace ────┴─► advice ────► plain words, a profile to write
//! ```
//!
//! Invariants:
//! - Same facts, same text: everything here is pure. Who gathers the facts and measures is the
//!   binary `kvserver`.
//! - *Needed* is what a node does not start without, or does not keep its promises without. All else that
//!   could be better is *better*; what the host does not say is no fault of it.
//! - Every setting of a profile comes with its reason.
//!
//! It deliberately changes nothing on the host: each finding says how a person would.

pub mod facts;
pub mod disk;
pub mod pace;
pub mod finding;
mod checks;
mod memory;
pub mod advice;
pub mod page;

pub use advice::{Choice, advise};
pub use disk::{Cell, Disk};
pub use facts::Host;
pub use finding::{Finding, Measured, State, findings, matters_at_start};
pub use memory::memory_bytes_max;
pub use pace::Pace;
