//! The Clerk: a client of the cluster that retries, follows leaders and writes exactly once.
//!
//! Two layers. [`policy`] decides what is sent where and what every outcome means; it is pure: time and
//! chance come in as arguments, what is to be sent goes out as data, so that the same rules run above tonic
//! and in the simulator. [`clerk`] drives it over gRPC under tokio.
//!
//! ```text
//! caller ─► Clerk ─► driver ── start ──► Policy ── Action::Send ──► rpc ─► node
//!                      ▲                   ▲                          │
//!                      └── Action::Finish ─┘ ◄──── Event ◄────────────┘
//! ```
//!
//! Invariants:
//! - A sending that ended without an answer may have been, or may yet be, executed. Once a write has one such
//!   sending it ends in its answer or in [`Error::CheckOutcome`], never in an error that says "not executed".
//! - A write with a stamp is sent again under the same session and sequence, until a node has said that its
//!   session does not exist and no sending of it was lost.
//! - `acknowledged` of a session only grows, and never passes a sequence whose caller still waits.
//! - A write without a stamp is sent again only after a node, or the connector, has said that it was not
//!   executed.
//!
//! What it deliberately does not do: cache values, order the calls of one caller (await one before the next),
//! batch, or withdraw a call whose future was dropped (such a call ends at its deadline).

pub mod backoff;
pub mod clerk;
pub mod error;
pub mod message;
pub mod policy;
pub mod routing;
pub mod status;
pub mod window;

mod calls;
mod channels;
mod driver;
mod maintenance;
mod nodes;
mod operation;
mod rpc;
mod sessions;
mod table_flow;

pub use clerk::{Clerk, EndpointFault, Options, Scan, Writes, range_of_prefix};
pub use error::{Cause, Error, Reason, Setback};
pub use maintenance::{BackupStream, NodeSnapshot};
pub use message::{
    Action, Answer, AttemptId, CallId, Event, Kind, Refusal, Request, Route, Spec, Stamp, Target,
};
pub use nodes::{NodeHealth, NodeStatus, Watch};
pub use policy::{Config, Policy};
pub use routing::{ShardPlace, Table, TableFault, slot_of};

#[cfg(debug_assertions)]
pub use policy::PlantedBug;

#[cfg(test)]
mod clerk_tests;
#[cfg(test)]
mod policy_tests;
