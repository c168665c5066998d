//! What waits to be written: appends in the order in which they came, and how they are cut into batches.
//!
//! Invariants:
//! - The order is kept: an append is in no later batch than one that came after it.
//! - Hard state and entries of an append are in one batch wherever they fit one; a longer append begins a
//!   batch of its own, its hard state first, and completes with its last entry.
//! - The cost of what waits and flies is bounded by `queue_bytes_max`, but for a single append that is longer
//!   alone.
//!
//! Pure. It deliberately holds the entries as they came, not encoded: a batch is encoded once, into a buffer
//! of just its size, since a write takes a whole buffer.

use std::collections::VecDeque;

use crate::env::Instant;
use crate::ids::{Index, ShardId, Term};
use crate::raft::{Entry, HardState, Standing};

use super::batch::{BATCH_HEADER_BYTES, BatchBuilder};
use super::index::Notes;
use super::record::{
    HARD_STATE_BYTES, RELEASED_BYTES, RESTART_BYTES, Record, STANDING_RECORD_BYTES, entry_bytes,
};

/// What an append costs beside its bytes, so that empty ones are bounded too.
pub const APPEND_COST_BYTES: usize = 64;

/// The most bytes of what an append says beside its entries.
pub const FIXED_BYTES_MAX: usize = HARD_STATE_BYTES + RELEASED_BYTES + STANDING_RECORD_BYTES + RESTART_BYTES;

/// Who is told when an append is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The shard that gave it this number.
    Shard {
        /// The number.
        number: u64,
    },
    /// The lane itself, which keeps hard states out of segments that are released.
    Lane,
}

/// One append that waits.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Whose it is.
    pub shard: ShardId,
    /// Who waits for it.
    pub origin: Origin,
    /// The hard state, until it is written.
    pub hard_state: Option<HardState>,
    /// The released mark, until it is written.
    pub released: Option<(Index, Term)>,
    /// The standing, until it is written.
    pub standing: Option<Standing>,
    /// Where the log begins anew, until that is written.
    pub restart: Option<(Index, Term)>,
    /// The entries, those before `next` written already.
    pub entries: Vec<Entry>,
    /// The first entry that is not written.
    pub next: usize,
    /// When it came.
    pub since: Instant,
}

impl Pending {
    /// An append of nothing so far.
    #[must_use]
    pub fn of(shard: ShardId, origin: Origin, since: Instant) -> Self {
        let (entries, next) = (Vec::new(), 0);
        Self {
            shard,
            origin,
            hard_state: None,
            released: None,
            standing: None,
            restart: None,
            entries,
            next,
            since,
        }
    }

    /// The bytes of records that are still to be written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries: usize =
            self.entries[self.next..].iter().map(|entry| entry_bytes(entry.data.len())).sum();
        self.fixed_bytes() + entries
    }

    fn fixed_bytes(&self) -> usize {
        let hard_state = if self.hard_state.is_some() { HARD_STATE_BYTES } else { 0 };
        let released = if self.released.is_some() { RELEASED_BYTES } else { 0 };
        let standing = if self.standing.is_some() { STANDING_RECORD_BYTES } else { 0 };
        let restart = if self.restart.is_some() { RESTART_BYTES } else { 0 };
        hard_state + released + standing + restart
    }

    /// How many entries fit into so many bytes along with the rest, and what they take.
    fn fitting(&self, capacity: usize) -> (usize, usize) {
        let mut bytes = self.fixed_bytes();
        let mut count = 0;
        for entry in &self.entries[self.next..] {
            let with = bytes + entry_bytes(entry.data.len());
            if with > capacity {
                break;
            }
            bytes = with;
            count += 1;
        }
        (count, bytes)
    }

    fn encode(&mut self, entries: usize, builder: &mut BatchBuilder<'_>, notes: &mut Notes) {
        let shard = self.shard;
        let mut put = |record: Record<'_>| {
            notes.add(&record);
            builder.put(&record);
        };
        if let Some(state) = self.hard_state.take() {
            put(Record::HardState { shard, state });
        }
        if let Some((index, term)) = self.released.take() {
            put(Record::Released { shard, index, term });
        }
        if let Some(standing) = self.standing.take() {
            put(Record::Standing { shard, standing });
        }
        if let Some((index, term)) = self.restart.take() {
            put(Record::Restart { shard, index, term });
        }
        for entry in &self.entries[self.next..self.next + entries] {
            put(Record::Entry { shard, index: entry.index, term: entry.term, data: &entry.data });
        }
        self.next += entries;
    }
}

/// How the next batch is cut from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The appends that are in it to their end.
    pub whole: usize,
    /// The entries of the one after them that are in it: only of an append that fits no batch.
    pub part: usize,
    /// The bytes of its records.
    pub bytes: usize,
}

/// What was taken from the queue, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whose it was.
    pub shard: ShardId,
    /// Who waits for it.
    pub origin: Origin,
}

struct Queued {
    pending: Pending,
    bytes: usize,
    cost: usize,
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    waiting: VecDeque<Queued>,
    bytes: usize,
    cost: usize,
}

impl Queue {
    /// What waits and flies, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// The bytes of records that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest append that waits came.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|queued| queued.pending.since)
    }

    /// Whether an append of so many bytes may join.
    #[must_use]
    pub fn has_room(&self, bytes: usize, cost_max: usize) -> bool {
        self.cost == 0 || self.cost + bytes + APPEND_COST_BYTES <= cost_max
    }

    /// Joins at the end.
    pub fn push(&mut self, pending: Pending) {
        let bytes = pending.bytes();
        let cost = bytes + APPEND_COST_BYTES;
        self.bytes += bytes;
        self.cost += cost;
        self.waiting.push_back(Queued { pending, bytes, cost });
    }

    /// Takes the first append where it has nothing to write: all before it is durable, so it is too.
    pub fn pop_empty(&mut self) -> Option<Taken> {
        self.waiting.front().filter(|queued| queued.bytes == 0)?;
        let queued = self.waiting.pop_front()?;
        self.cost -= queued.cost;
        Some(Taken { shard: queued.pending.shard, origin: queued.pending.origin })
    }

    /// Cuts the next batch of at most so many bytes on disk, header included. `None` where nothing is to be
    /// written.
    #[must_use]
    pub fn plan(&self, batch_bytes_max: usize) -> Option<Plan> {
        let capacity = batch_bytes_max - BATCH_HEADER_BYTES;
        let mut plan = Plan { whole: 0, part: 0, bytes: 0 };
        for queued in &self.waiting {
            if plan.bytes + queued.bytes <= capacity {
                plan.bytes += queued.bytes;
                plan.whole += 1;
                continue;
            }
            if plan.bytes == 0 {
                let (part, bytes) = queued.pending.fitting(capacity);
                assert!(part > 0, "an entry of shard {} is above {capacity} bytes", queued.pending.shard);
                plan = Plan { part, bytes, ..plan };
            }
            break;
        }
        (plan.bytes > 0).then_some(plan)
    }

    /// Takes what a plan says, encodes it, and hands on what is in it to its end. Returns the cost of that,
    /// which is given back with [`Queue::landed`].
    pub fn take(
        &mut self,
        plan: Plan,
        builder: &mut BatchBuilder<'_>,
        notes: &mut Notes,
        mut ends: impl FnMut(Taken),
    ) -> usize {
        let mut cost = 0;
        for mut queued in self.waiting.drain(..plan.whole) {
            let entries = queued.pending.entries.len() - queued.pending.next;
            queued.pending.encode(entries, builder, notes);
            self.bytes -= queued.bytes;
            cost += queued.cost;
            ends(Taken { shard: queued.pending.shard, origin: queued.pending.origin });
        }
        if plan.part > 0 {
            let queued = self.waiting.front_mut().expect("the plan was made of this queue");
            queued.pending.encode(plan.part, builder, notes);
            let left = queued.pending.bytes();
            self.bytes -= queued.bytes - left;
            queued.bytes = left;
        }
        cost
    }

    /// Gives back the cost of what is durable.
    pub fn landed(&mut self, cost: usize) {
        assert!(cost <= self.cost, "{cost} bytes landed of {}", self.cost);
        self.cost -= cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::BLOCK_BYTES;

    fn pending(shard: u32, sizes: &[usize]) -> Pending {
        let entries = sizes.iter().enumerate().map(|(at, size)| Entry {
            index: Index(at as u64 + 1),
            term: Term(1),
            data: vec![0; *size].into(),
        });
        let pending = Pending::of(ShardId(shard), Origin::Shard { number: 1 }, Instant(0));
        Pending { entries: entries.collect(), ..pending }
    }

    fn taken(queue: &mut Queue, batch_bytes_max: usize) -> (Plan, Vec<u32>) {
        let plan = queue.plan(batch_bytes_max).expect("there is something to write");
        let mut buf = vec![0; super::super::batch::batch_bytes(plan.bytes)];
        let mut ends = Vec::new();
        let mut builder = BatchBuilder::new(&mut buf);
        let cost = queue.take(plan, &mut builder, &mut Notes::default(), |taken| ends.push(taken.shard.0));
        queue.landed(cost);
        (plan, ends)
    }

    #[test]
    fn appends_join_until_the_next_does_not_fit() {
        let mut queue = Queue::default();
        [(1, vec![1000, 1000]), (2, vec![1500]), (3, vec![1500])].iter().for_each(|(shard, sizes)| {
            queue.push(pending(*shard, sizes));
        });
        assert_eq!(taken(&mut queue, BLOCK_BYTES).1, [1, 2]);
        assert_eq!(taken(&mut queue, BLOCK_BYTES).1, [3]);
        assert_eq!((queue.plan(BLOCK_BYTES), queue.cost(), queue.bytes()), (None, 0, 0));
    }

    #[test]
    fn an_append_that_fits_no_batch_spans_several_and_ends_with_its_last_entry() {
        let mut queue = Queue::default();
        queue.push(pending(1, &[100]));
        queue.push(pending(2, &[3000; 3]));
        queue.push(pending(3, &[100]));
        assert_eq!(taken(&mut queue, BLOCK_BYTES).1, [1]);
        assert_eq!(taken(&mut queue, BLOCK_BYTES), (Plan { whole: 0, part: 1, bytes: 3028 }, vec![]));
        assert_eq!(taken(&mut queue, BLOCK_BYTES).1, Vec::<u32>::new());
        assert_eq!(taken(&mut queue, BLOCK_BYTES).1, [2, 3]);
        assert_eq!(queue.cost(), 0);
    }

    #[test]
    fn empty_appends_cost_something_and_need_no_write() {
        let mut queue = Queue::default();
        queue.push(pending(1, &[]));
        assert!(queue.has_room(0, 200) && !queue.has_room(100, 200));
        assert_eq!(queue.plan(BLOCK_BYTES), None);
        assert_eq!(queue.pop_empty().map(|taken| taken.shard), Some(ShardId(1)));
        assert_eq!((queue.pop_empty(), queue.cost()), (None, 0));
    }
}
