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
//! With a cluster on this machine (`cargo run --release -- local`):
//!
//! ```no_run
//! use distribkv::client::{Clerk, range_of_prefix};
//! use distribkv::wire::v1;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let clerk = Clerk::connect(["localhost:10001", "localhost:10002", "localhost:10003"])?;
//! clerk.put("greeting", "hello").await?;
//! clerk.append("greeting", ", world").await?;
//! let kv = clerk.get("greeting").await?.kv.ok_or("somebody else has removed it")?;
//! assert_eq!(kv.value, "hello, world");
//!
//! // Only if nobody has written it since, and only if nobody has made it yet.
//! let swapped = clerk.compare_and_swap("greeting", kv.mod_revision, "bye").await?;
//! let made = clerk.compare_and_swap("lock", 0, "mine").await?;
//! println!("swapped: {}, made: {}", swapped.succeeded, made.succeeded);
//!
//! // One step of one shard: the keys have the same {tag}.
//! let put = |key: &'static str, value: &'static str| v1::Operation {
//!     operation: Some(v1::operation::Operation::Put(v1::PutRequest {
//!         key: key.into(),
//!         value: value.into(),
//!         ..Default::default()
//!     })),
//! };
//! let then = vec![put("{order-7}state", "paid"), put("{order-7}by", "card")];
//! clerk.txn(v1::TxnRequest { then, ..Default::default() }).await?;
//!
//! let (start, end) = range_of_prefix(b"{order-7}");
//! let mut scan = clerk.scan(v1::ScanRequest { start, end, ..Default::default() });
//! while let Some(kvs) = scan.next().await? {
//!     kvs.iter().for_each(|kv| println!("{:?} = {:?}", kv.key, kv.value));
//! }
//!
//! let existed = clerk.delete("greeting").await?.existed;
//! assert!(existed);
//! clerk.close().await;
//! # Ok(())
//! # }
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
