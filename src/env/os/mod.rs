//! What the standard library has no safe way for: the only place where `unsafe` is written.
//!
//! - [`cpu`] asks which CPUs a thread may run on.
//! - [`disk`] asks a file system how much room it has and who has a file open, and sorts what failed reads
//!   say.
//! - [`map`] maps a file, to measure what that costs.
//! - [`net`] makes listening sockets that are first bound alone and then shared.
//! - [`process`] ends with its parent, asks others to end, and knows what this one may use.
//! - [`signal`] turns the signals that ask to stop into something that a task waits for.
//! - [`spin`] has an executor look for a while before it sleeps.
//! - [`time`] is the local time of day.
//! - [`uring`] asks whether io_uring may be used, and says how rings are set up.

#![allow(unsafe_code, reason = "this is the place for it: each block says why it is sound")]

pub mod cpu;
pub mod disk;
pub mod map;
pub mod net;
pub mod process;
pub mod signal;
pub mod spin;
pub mod time;
pub mod uring;
