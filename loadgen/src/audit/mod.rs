//! The audit: what the answers of a run said about a sample of the keys, and whether a store that is
//! linearizable and executes every write once can have said so.
//!
//! ```text
//! Recorder (one a thread) ─► History ─┐
//! Gathering (shared) ─────────────────┼─► check ─► Verdict ─► report
//! finals (a Get of each key) ─────────┘
//! ```
//! A server tells its order itself: every write with the revision that it made, every read with the revision
//! of its value and with that of the shard (of etcd's whole store) when it was served. That order is a
//! witness: where it agrees with the real time and with what each operation wrote and saw, the history is
//! linearizable; where it does not, the server has given a wrong answer. So no order is searched for, and the
//! check takes n log n.
//!
//! What is recorded is a whole history of each key of the sample: of every operation when it was sent, when
//! its answer came, what it wrote and what it was told. A written value begins with a mark of its own (see
//! [`mark`]), by which a read tells which write it sees.
//!
//! Invariants:
//! - A correct server is never accused: what ended without an answer may have happened, later too, or not;
//!   what a server said was not executed is held against it.
//! - At most `KEYS_WANTED` keys are wanted, and at most `EVENTS_MAX` operations are kept. Once these are
//!   full, the history ends at that moment: what was sent by then and not answered is unknown. That is told,
//!   and so is the share of the operations that was checked.
//!
//! What it does not do: check scans; check keys that somebody else writes to meanwhile (who may be accused
//! here).

mod check;
mod event;
mod finals;
mod gather;
mod keycheck;
mod mark;
mod order;
mod recorder;
mod seen;
mod verdict;

#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod simulated;

pub use finals::audited;
pub use gather::Gathering;
pub use mark::MARK_BYTES;
pub use recorder::Recorder;
pub use verdict::Verdict;

/// Keys that a sample is to have: fewer, where there are fewer.
const KEYS_WANTED: u64 = 4096;
/// Most operations that are kept, over all threads.
const EVENTS_MAX: usize = 1 << 19;
