//! Where a request goes: slots, shards, places, and the parcels that travel between them.
//!
//! Pure: data and arithmetic, no IO and no clock.
//!
//! - [`slot`] turns a key into a slot and a slot into a shard, by the client contract.
//! - [`place`] says on which lane and core of a node a shard lives.
//! - [`call`] is what an edge asks of a shard; [`parcel`] is what carries it, and raft's messages, between
//!   cores and nodes; [`codec`] is a parcel's form on a link.
//! - [`outbox`] holds the parcels that wait to leave a core, up to a limit.
//! - [`window`] recognises a call that arrives a second time.
//!
//! What it deliberately does not do: decide. Who leads, when to send again and what an outcome means is the
//! shard module's.

pub mod slot;
pub mod place;
pub mod call;
pub mod parcel;
pub mod codec;
pub mod outbox;
pub mod window;

#[cfg(test)]
mod codec_tests;
