//! Streams of calls whose effects on one shard take place in the order sent: the receiver's side.
//!
//! A stream's calls come with an epoch and a position. The receiver takes position 0, 1, 2, … of the newest
//! epoch that it has seen. Anything else, and whatever follows a refused call, is refused unproposed, so that
//! the origin may send it again in order under the next epoch.
//!
//! Among the calls taken in, changes are proposed one behind the other without waiting, and reads share their
//! rounds; but a read waits until the changes before it are applied, and a change until the reads before it
//! are answered.
//!
//! Invariants:
//! - At any time either changes or reads of one stream are under way, never both.
//! - No call of an epoch is let through after another of that epoch was refused.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::env::Instant;
use crate::ids::{CoreId, NodeId};
use crate::route::call::Request;
use crate::route::parcel::{Call, CallId, Order};

/// A stream that nothing was heard of for so long is forgotten; a later call of it starts a new epoch.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Calls of one stream that wait their turn.
const WAITING_MAX: usize = 1024;

/// The name of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamKey {
    node: NodeId,
    incarnation: u64,
    core: CoreId,
    stream: u64,
}

impl StreamKey {
    pub(crate) fn of(id: &CallId, order: &Order) -> Self {
        Self { node: id.node, incarnation: id.incarnation, core: id.core, stream: order.stream }
    }
}

/// The streams that call one replica.
pub(crate) struct Streams {
    streams: BTreeMap<StreamKey, Stream>,
    streams_max: usize,
    runnable: VecDeque<StreamKey>,
    refused: Vec<Call>,
}

struct Stream {
    epoch: u64,
    next_position: u64,
    is_closed: bool,
    changes: usize,
    reads: usize,
    waiting: VecDeque<Call>,
    heard_at: Instant,
}

impl Streams {
    pub(crate) fn new(streams_max: usize) -> Self {
        Self { streams: BTreeMap::new(), streams_max, runnable: VecDeque::new(), refused: Vec::new() }
    }

    /// Takes a call in, or gives back what is to be refused.
    pub(crate) fn accept(&mut self, key: StreamKey, order: Order, call: Call, now: Instant) -> Vec<Call> {
        let is_new = !self.streams.contains_key(&key);
        if is_new && (order.position != 0 || !self.makes_room()) {
            return vec![call];
        }
        let stream = self.streams.entry(key).or_insert_with(|| Stream::new(order.epoch, now));
        stream.heard_at = now;
        if order.epoch < stream.epoch {
            return vec![call];
        }
        let mut refused = Vec::new();
        if order.epoch > stream.epoch {
            refused.extend(stream.waiting.drain(..));
            stream.begin(order.epoch);
        }
        if stream.is_closed || order.position != stream.next_position || stream.waiting.len() >= WAITING_MAX {
            // What was taken in before it goes on: it stands before the gap.
            stream.is_closed = true;
            refused.push(call);
            return refused;
        }
        stream.next_position += 1;
        stream.waiting.push_back(call);
        assert!(stream.waiting.len() <= WAITING_MAX, "{} calls wait in one stream", stream.waiting.len());
        assert!(self.streams.len() <= self.streams_max, "{} streams are kept apart", self.streams.len());
        self.runnable.push_back(key);
        refused
    }

    /// Whether one more stream fits. Of those that nothing is under way of, the one last heard of longest ago
    /// makes room: a later call of it begins a new epoch.
    fn makes_room(&mut self) -> bool {
        if self.streams.len() < self.streams_max {
            return true;
        }
        let idle = self.streams.iter().filter(|(_, stream)| !stream.is_busy());
        let oldest = idle.min_by_key(|(_, stream)| stream.heard_at).map(|(key, _)| *key);
        oldest.is_some_and(|key| self.streams.remove(&key).is_some())
    }

    /// The next call whose turn it is.
    pub(crate) fn next(&mut self) -> Option<Call> {
        while let Some(key) = self.runnable.front().copied() {
            let call = self.streams.get_mut(&key).and_then(Stream::take_next);
            if call.is_some() {
                return call;
            }
            self.runnable.pop_front();
        }
        None
    }

    /// A call that was let through has its answer. `is_refusal`: it was not executed, so none behind it may
    /// be.
    pub(crate) fn ended(&mut self, key: StreamKey, order: Order, is_refusal: bool) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if stream.changes > 0 {
            stream.changes -= 1;
        } else {
            assert!(stream.reads > 0, "a call of stream {key:?} ended that was not under way");
            stream.reads -= 1;
        }
        if is_refusal && order.epoch == stream.epoch {
            stream.is_closed = true;
            self.refused.extend(stream.waiting.drain(..));
        }
        self.runnable.push_back(key);
    }

    /// The calls that are to be refused because one before them was.
    pub(crate) fn take_refused(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.refused)
    }

    /// Closes every stream's epoch, and gives back what waited in them.
    pub(crate) fn close_all(&mut self) -> Vec<Call> {
        let mut refused = std::mem::take(&mut self.refused);
        for stream in self.streams.values_mut() {
            stream.is_closed = true;
            refused.extend(stream.waiting.drain(..));
        }
        refused
    }

    /// Forgets the streams that nothing was heard of for long.
    pub(crate) fn forget_idle(&mut self, now: Instant) {
        self.streams.retain(|_, stream| stream.is_busy() || now.since(stream.heard_at) < IDLE_MAX);
    }
}

impl Stream {
    fn new(epoch: u64, now: Instant) -> Self {
        Self {
            epoch,
            next_position: 0,
            is_closed: false,
            changes: 0,
            reads: 0,
            waiting: VecDeque::new(),
            heard_at: now,
        }
    }

    fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.next_position = 0;
        self.is_closed = false;
    }

    fn is_busy(&self) -> bool {
        self.changes > 0 || self.reads > 0 || !self.waiting.is_empty()
    }

    fn take_next(&mut self) -> Option<Call> {
        let is_change = match self.waiting.front()?.request {
            Request::Query { .. } => false,
            Request::Command(_) | Request::Transfer { .. } => true,
        };
        if is_change && self.reads == 0 {
            self.changes += 1;
        } else if !is_change && self.changes == 0 {
            self.reads += 1;
        } else {
            return None;
        }
        let (changes, reads) = (self.changes, self.reads);
        assert!(changes == 0 || reads == 0, "{changes} changes and {reads} reads of one stream at once");
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;
    use crate::kv::{Command, Query};
    use crate::route::call::Consistency;
    use bytes::Bytes;

    fn call(position: u64, epoch: u64, request: Request) -> (StreamKey, Order, Call) {
        let order = Order { stream: 1, epoch, position };
        let id = CallId { node: NodeId(1), incarnation: 1, core: CoreId(0), number: position + 1 };
        let remaining = Duration::from_secs(1);
        let call = Call { id, shard: ShardId(0), term: None, remaining, order: Some(order), request };
        (StreamKey::of(&id, &order), order, call)
    }

    fn read() -> Request {
        let query = Query::Get { key: Bytes::from_static(b"k") };
        Request::Query { query, consistency: Consistency::Linearizable }
    }

    fn change() -> Request {
        Request::Command(Command::OpenSession { ttl_ms: 1 })
    }

    fn accept(streams: &mut Streams, (key, order, call): (StreamKey, Order, Call)) -> usize {
        streams.accept(key, order, call, Instant(0)).len()
    }

    #[test]
    fn reads_and_changes_wait_for_each_other() {
        let mut streams = Streams::new(4);
        let (key, order, _) = call(0, 0, change());
        for (position, request) in [change(), change(), read(), change()].into_iter().enumerate() {
            assert_eq!(accept(&mut streams, call(position as u64, 0, request)), 0);
        }
        assert!(streams.next().is_some() && streams.next().is_some());
        assert!(streams.next().is_none(), "the read waits for two changes");
        streams.ended(key, order, false);
        assert!(streams.next().is_none(), "and for the second of them");
        streams.ended(key, order, false);
        assert!(streams.next().is_some(), "the read");
        assert!(streams.next().is_none(), "the change waits for the read");
        streams.ended(key, order, false);
        assert!(streams.next().is_some());
    }

    #[test]
    fn what_follows_a_refused_call_is_refused_until_the_next_epoch() {
        let mut streams = Streams::new(4);
        let (key, order, _) = call(0, 0, change());
        assert_eq!(accept(&mut streams, call(0, 0, change())), 0);
        assert!(streams.next().is_some());
        streams.ended(key, order, true);
        assert_eq!(accept(&mut streams, call(1, 0, change())), 1);
        assert_eq!(accept(&mut streams, call(0, 1, change())), 0);
        assert_eq!(accept(&mut streams, call(2, 1, change())), 1, "a gap closes the epoch");
        assert_eq!(accept(&mut streams, call(1, 1, change())), 1);
    }
}
