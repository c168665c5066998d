//! The parcels that wait to leave a core: one queue for each place they go to, each with a limit.
//!
//! Invariants:
//! - A runner never waits for room: [`Outbox::push`] says at once that there is none and hands the parcel
//!   back. Raft's parcels are then dropped (raft sends again), calls are answered OVERLOADED.
//! - A reply always has room: its place was reserved when the call was taken in, by the limit on calls in
//!   flight.

use std::collections::{BTreeMap, VecDeque};

use crate::route::parcel::Parcel;

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
        let is_reply = matches!(parcel, Parcel::Reply(_));
        if !is_reply && !queue.parcels.is_empty() && queue.bytes + weight > self.bytes_max {
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
