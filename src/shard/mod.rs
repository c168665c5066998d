//! Replicas at work: raft's decisions driven into the log, the state machine and the network of one core.
//!
//! A [`Runner`] is all that one core owns: its lanes, the replicas whose log is in them, the calls that its
//! edge has in flight, and an outbox. It is one loop over one queue of events. A turn takes what has arrived,
//! hands it to the replicas, drives each replica that changed until it is quiet, and leaves parcels for other
//! places in the outbox:
//!
//! ```text
//!   edge ── call ──►┌───────────────────────────── runner ──┐
//!   link, mesh ────►│ inbox ─► replica: raft ─► persist ────┼─► lane log ─► durable ─► back into the inbox
//!   timer ─────────►│            │                          │
//!                   │            └► committed ─► kv.apply ──┼─► reply ─► edge, or outbox
//!                   │ outbox ◄── messages, calls, replies   │
//!                   └───────┬───────────────────────────────┘
//!                           └──► links and mesh, carried by whoever runs it
//! ```
//!
//! Who carries parcels is not its concern: in production links and the mesh do, in simulation a packet
//! network that loses, delays, repeats and reorders them.
//!
//! Invariants:
//! - An answer follows a quorum of durable writes: a reply to a change is made when its entry is applied, and
//!   from nothing else.
//! - A call is proposed at most once by one receiver, and only in the very term of leadership that it names.
//! - A change is sent a second time only where the first sending was refused unproposed, or where it bears a
//!   request id.
//! - Once any sending of a change ended without an answer, its caller never hears "not executed".
//! - No runner waits for a queue of another: what finds no room is dropped (raft's) or refused (calls).
//! - A turn never awaits; what takes time (reading the log, reading and making tables) is a task of its own
//!   that comes back as an event.
//! - What nobody asks for is looked at too, slowly: see `scrub`.
//! - Nothing of the log is released that no durable table of this node holds.
//!
//! What it deliberately does not do: speak gRPC, open sockets, or know what a key means.
//!
//! Everything here lives on the core that made it and is never shared, but for the counters of `permits`.

mod event;
mod end;
mod config;
mod runner;
mod replica;
mod serve;
mod apply;
mod table;
mod cache;
mod space;
mod load;
mod warm;
mod snapshot;
mod fetch;
mod progress;
mod permits;
mod install;
mod lend;
mod scrub;
mod repair;
mod digests;
mod wanted;
mod backup;
mod streams;
mod expiry;
mod spread;
mod calls;
mod pipeline;
mod directory;
mod status;
pub mod admission;

pub use backup::{Backup, BackupFacts, TableFailure};
pub use config::{Config, Limits, PlantedBug, Times};
pub use config::{Scrub, Snapshots};
pub use directory::{Directory, Known, News};
pub use end::RunEnd;
pub use event::MeshItem;
pub use permits::{NodePermits, Permits};
pub use pipeline::Pipeline;
pub use progress::FetchProgress;
pub use repair::Spoil;
pub use replica::{ReplicaStart, StartError, StartTable, Unreadable};
pub use runner::Runner;
pub(crate) use snapshot::membership_of;
pub use status::{CoreStatus, LaneReport, ReplicaReport, Role};
pub(crate) use table::footer_checksum;
pub use table::{OpenTable, TableFile, TableReadError, open_table};
pub use wanted::{SnapshotAnswer, SnapshotAsk, TablePlace, Wanted};
