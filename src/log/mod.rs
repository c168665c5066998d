//! A lane's log: one append-only log on disk for all shards of the lane, so that one write makes a whole
//! batch durable, whatever shards it holds. Beside it, the identity of the data directory.
//!
//! # How an append becomes durable
//!
//! ```text
//!  shard ─ append ─► queue ─► [writer] one batch in flight ─► segment ─► index ─► completion ─► shard
//!                                │ full: goes on in the spare
//!                             [keeper] makes the next spare; releases the oldest segment
//! ```
//!
//! While one batch flies, everything that arrives joins the next: the slower the disk, the larger the batch.
//! A batch is one `O_DIRECT | O_DSYNC` write over blocks that were written before, which is the fastest
//! durable write that there is.
//!
//! # What is on disk
//!
//! ```text
//!  lane-0/manifest-a, manifest-b         which segments there are, with what salt, where each ends
//!  lane-0/seg-0000000000000001.log       a header block, then batches, each on blocks of its own
//!  lane-0/seg-0000000000000002.log
//!
//!  segment:  ├ header ┼ batch 1 ──────┼ batch 2 ┼ batch 3 (a seal) ┼ zeros, or an earlier use's bytes …
//!  batch:    ├ header, checksum over all ┼ record ┼ record ┼ … ┼ zeros to the end of the block
//!  record:   ├ kind, shard, index, term, length ┼ bytes ┤
//! ```
//!
//! # Why a crash is safe at any point
//!
//! - *In a batch write*: the batch fails its checksum, no later one exists, so it is a torn tail; nobody was
//!   told that it is durable. A block that holds acknowledged bytes is not part of the write.
//! - *In a change of the manifest*: see [`twin`]; the change takes effect when both copies are durable, and
//!   everything it names was durable before.
//! - *In recovery*: see [`recovery`]; it acts only on what it made durable, and records where the log ended.
//!   What lies past a recorded end is ignored for ever, and every start begins a fresh segment.
//! - *While a segment is made or released*: see `keeper`; a file counts from when both copies name it, and
//!   no longer.
//!
//! # How damage is told from a tear
//!
//! A batch says which batch was known durable when it was formed. So a bad position that any later batch knew
//! durable was acknowledged, and is damage. An idle lane and a clean end append an empty batch, so that the
//! last real one is covered too; until then it is the blind spot. What cannot be read at all is damage
//! without such a proof: it may have been the batch that is looked for, or the one that knew it.
//!
//! A cluster of one stops at damage, with file, offset and kind, and nothing is changed. Where shards have
//! peers the start goes round it: every shard of the lane that may have lost something is told what it still
//! knows (`index::missing`), and that is durable before the start ends. The damaged segment stays as it is
//! until all of them are whole again.
//!
//! Invariants:
//! - An append completes after a durable write of it and of all that came before it, never earlier.
//! - Recovery returns every append that completed, and nothing that was replaced before it completed.
//! - Damage is never cut, never answered for, never cleaned up.
//! - The first failed write is final.
//!
//! One lane lives on one core and is owned by that core's driver. The log deliberately does not cache
//! entries, does not know raft's rules, repairs nothing, and never tries a failed write again.

pub mod batch;
mod codec;
pub mod error;
pub mod identity;
pub mod index;
mod keeper;
mod lane;
pub mod manifest;
mod medium;
#[cfg(debug_assertions)]
mod planted;
mod queue;
mod reader;
mod recent;
pub mod record;
pub mod recovery;
mod scan;
mod scrub;
pub mod segment;
pub mod twin;
mod walk;
mod writer;

pub use error::{
    Damage, DamageKind, Disagreement, Doing, Full, LogFailure, NoteError, OpenError, ReadError, SettingsError,
};
pub use identity::{FreshIdentity, Identity, IdentityStore, LANE_DIR_PREFIX, Noted, RecoveredAt};
pub use index::Survivor;
pub use lane::{Append, Completed, DamageNews, Lane, LaneConfig, LaneStatus, OnDamage, Space};
pub use manifest::{TableRef, table_name, table_of_name};
pub use medium::MediumError;
#[cfg(debug_assertions)]
pub use planted::PlantedBug;
pub use recovery::{Cut, RecoveredShard, Recovery};
pub use scrub::{Looked, SegmentScrub};
