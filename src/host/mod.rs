//! A node in production: its cores, what they say to each other, its links to other nodes, start-up and
//! shutdown.
//!
//! ```text
//!   process ── thread a core ── glommio executor ─┬─ runner (shard): lanes, replicas, calls
//!                                                 ├─ mesh: one bounded channel to each other core
//!                                                 └─ links: one connection to each node, parcels one way
//! ```
//!
//! - [`frame`] is the form of parcels on a link; [`link`] drives one link, either end, over any byte stream.
//! - [`mesh`] connects the cores of a node.
//! - [`peers`] is what core 0 knows of the other nodes, and says of them.
//! - [`node`] starts a core: identity, lanes, recovery, runner; and ends it.
//! - [`restore`] makes a data directory from a backup.
//! - [`found`] is what a core finds then, and how long it took.
//! - [`exit`] says what ends the process and with which code.
//!
//! Invariants:
//! - Nothing is shared between cores but messages: every value here lives on the core that made it.
//! - What finds no room on a link or in the mesh is dropped or refused, never waited for.
//!
//! What it deliberately does not do: speak gRPC. Who starts a process gives the accepted connections of peers
//! to [`link::serve_incoming`] and everything else to the edge.

pub mod exit;
pub mod found;
pub mod frame;
pub mod link;
pub mod mesh;
pub mod node;
pub mod peers;
pub mod restore;
