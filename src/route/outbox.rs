//! The parcels that wait to leave a core: one queue for each place they go to, each with a limit.
//!
//! Invariants:
//! - A runner never waits for room: [`Outbox::push`] says at once that there is none and hands the parcel
//!   back. Raft's parcels are then dropped (raft sends again), calls are answered OVERLOADED.
//! - A short reply always has room: its place was reserved when the call was taken in, by the limit on calls
//!   in flight. A long one that has none is handed back, to be replaced by a short one.

use std::collections::{BTreeMap, VecDeque};

use crate::route::parcel::Parcel;

/// A reply of so many bytes is short: many times as many fit as calls are in flight.
const SHORT_REPLY_BYTES: usize = 1024;

/// Parcels by where they go. `P` is a node for links, a core for the mesh.
#[derive(Debug)]
pub struct Outbox<P: Ord + Copy> {
    queues: BTreeMap<P, Queue>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    parcels: VecDeque<Parcel>,
    bytes: usize,
}

impl<P: Ord + Copy> Outbox<P> {
    /// An outbox that holds up to `bytes_max` bytes for each place.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        assert!(bytes_max > 0, "an outbox of no bytes");
        Self { queues: BTreeMap::new(), bytes_max }
    }

    /// Leaves a parcel for `to`; hands it back where that queue is full.
    #[allow(clippy::result_large_err, reason = "the parcel goes back to where it came from")]
    pub fn push(&mut self, to: P, parcel: Parcel) -> Result<(), Parcel> {
        let queue = self.queues.entry(to).or_default();
        let weight = parcel.weight();
        let has_place = matches!(parcel, Parcel::Reply(_)) && weight <= SHORT_REPLY_BYTES;
        if !has_place && !queue.parcels.is_empty() && queue.bytes + weight > self.bytes_max {
            return Err(parcel);
        }
        queue.bytes += weight;
        queue.parcels.push_back(parcel);
        Ok(())
    }

    /// Takes everything that waits for `to`, in order.
    pub fn take(&mut self, to: P) -> VecDeque<Parcel> {
        match self.queues.get_mut(&to) {
            Some(queue) => {
                queue.bytes = 0;
                std::mem::take(&mut queue.parcels)
            }
            None => VecDeque::new(),
        }
    }

    /// The places that something waits for, in order.
    pub fn waiting(&self) -> impl Iterator<Item = P> + '_ {
        self.queues.iter().filter(|(_, queue)| !queue.parcels.is_empty()).map(|(place, _)| *place)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.parcels.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{CoreId, NodeId, Revision, ShardId, Term};
    use crate::kv::{KeyValue, QueryAnswer};
    use crate::route::call::{Answered, Body, Failure, FailureKind};
    use crate::route::parcel::{CallId, Reply};

    fn reply(bytes: usize) -> Reply {
        let found = KeyValue {
            key: Bytes::from_static(b"k"),
            value: vec![0; bytes].into(),
            create_revision: Revision(2),
            mod_revision: Revision(2),
            version: 1,
        };
        let (node, shard, term) = (NodeId(1), ShardId(0), Term(1));
        let body = Body::Query(QueryAnswer::Get(Some(found)));
        let id = CallId { node, incarnation: 1, core: CoreId(0), number: 1 };
        Reply { id, outcome: Ok(Answered { node, shard, term, revision: Revision(2), body }) }
    }

    #[test]
    fn a_long_reply_without_room_becomes_a_short_one_which_has_it() {
        let mut outbox = Outbox::new(64 << 10);
        assert_eq!(outbox.push(2, Parcel::Reply(reply(60 << 10))), Ok(()));
        let Err(Parcel::Reply(mut reply)) = outbox.push(2, Parcel::Reply(reply(60 << 10))) else {
            panic!("the second long reply found room");
        };
        reply.shorten();
        assert_eq!(reply.outcome, Err(Failure::of(FailureKind::Overloaded)));
        assert_eq!(outbox.push(2, Parcel::Reply(reply)), Ok(()));
        assert_eq!(outbox.take(2).len(), 2);
        assert!(outbox.is_empty());
    }
}
