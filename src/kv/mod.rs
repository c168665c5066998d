//! The state machine of a shard: what its replicas agree on, entry by entry.
//!
//! ```text
//!             Command::check           log, Raft            State::apply
//!   edge ───► refused by itself? ───► committed entry ───► session: seen before? window?
//!                                                              │ fresh
//!                                                              ▼
//!                                        comparison · limit · change · revision ───► stored, answered
//!
//!   edge ───► Query::check ───► (fresh enough: the driver's business) ───► State::query
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `command`, `query`, `answer` | what is asked and answered, as plain data |
//! | `limits`, `check` | what a request must satisfy by itself |
//! | `state` | [`State`]: the one that everything else serves |
//! | `write`, `txn` | deciding and carrying out a change |
//! | `sessions` | exactly-once |
//! | `memtable`, `layers`, `store` | the live keys: what changed in memory, over a table on disk |
//! | `resolve` | what the state has to know of the table, which it never reads by itself |
//! | `snapshot`, `merge` | a state frozen, and made into the next table |
//! | [`table`] | the format of a table |
//! | [`backup`] | the format of a backup: every shard's table in one file |
//! | `digest` | what replicas compare |
//! | `codec` | all of it as bytes, for logs and links |
//! | `planted` | bugs that tests plant |
//!
//! Invariants:
//! - Pure: no clock, no chance, no files, no order of a hash map. The same entries make the same state, the
//!   same answers and the same digest on every replica and in every run.
//! - A command is applied at most once for a request with an identity, however often the log has it.
//! - A refused command changed no key.
//!
//! It lives on the core of its shard's lane; the shard's driver owns the [`State`]. It deliberately knows
//! nothing of Raft, of who leads, of routing, or of the messages of the client contract.

mod answer;
pub mod backup;
mod check;
mod codec;
mod command;
mod digest;
mod layers;
mod limits;
mod memtable;
mod merge;
mod planted;
mod query;
mod resolve;
mod sessions;
mod snapshot;
mod state;
mod store;
mod sums;
pub mod table;
mod txn;
mod write;

#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod layers_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod strategies;

pub use answer::{Answer, Applied, KeyValue, LimitKind, Malformed, OperationResult, Refusal};
pub use codec::DecodeError;
pub use command::{
    Command, Comparison, Condition, Operation, Previous, RequestId, SESSION_SHARDS_MAX, Target, Txn, Write,
    session_id, session_shard,
};
pub use limits::{CARRIED_OVERHEAD_BYTES, Limits};
pub use merge::{Merge, MergeError, MergeStep};
#[cfg(debug_assertions)]
pub use planted::PlantedBug;
pub use query::{Query, QueryAnswer, ReadTxn, ScanKeys};
pub use resolve::{Base, BlockSource, NoBlocks, RUN_AHEAD_MAX, RUN_PASSED_MAX, Resolved, ScanRun};
pub use snapshot::{Frozen, RestoredAt, Retired};
pub use state::{Config, State};
pub use sums::Sums;
