//! What the standard library has no safe way for: the only place where `unsafe` is written.
//!
//! - [`disk`] asks a file system how much room it has, and sorts what failed reads say.
//! - [`map`] maps a file, to measure what that costs.
//! - [`net`] makes listening sockets that are first bound alone and then shared.
//! - [`process`] ends with its parent, and asks others to end.
//! - [`signal`] turns the signals that ask to stop into something that a task waits for.
//! - [`time`] is the local time of day.

#![allow(unsafe_code, reason = "this is the place for it: each block says why it is sound")]

pub mod disk;
pub mod map;
pub mod net;
pub mod process;
pub mod signal;
pub mod time;
