//! Where the time of requests goes: what each stage of their way costs a core, or has them wait.
//!
//! ```text
//!  frames ─► decode ─► route ─► queue ─► turn ─┬─► batch ─► write ─┐
//!                                              └─► replicate ──────┴─► apply ─► encode ─► send
//! ```
//!
//! Work is measured a batch at a time where there is one (a read, a turn, a write), so that a look at the
//! clock serves many requests. What is done for each request alone is measured for one of [`SAMPLED`], and
//! counts for as many. The clock counts whole microseconds: of shorter work the sum is right over many times,
//! and the distribution is not.
//!
//! `kvctl stages` shows them between two looks.
//!
//! Invariants:
//! - Counters only grow; whoever wants a rate takes the difference of two looks.
//!
//! It lives on its core, and is shared by the tasks of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Of how many requests one is measured, where each would be. Kinds of requests that take turns in a rhythm
/// that divides it are not measured alike.
pub const SAMPLED: u64 = 16;

/// Durations are told apart by powers of two: bucket `n` has those of less than 2^n microseconds that are in
/// none before it, the last one all that is longer (2 s and more).
pub const BUCKETS: usize = 23;

/// A stage of the way of a request through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Work: frames and header fields of what a connection was read. For each stream that began.
    Frames,
    /// Work: the message of a call that asks one shard, its limits, its slot and shard. For each unary call;
    /// sampled.
    Decode,
    /// Work: the call's place among those without an answer, and its way to the shard's core or node. For
    /// each call, those of Pipelines and Scans too; sampled.
    Route,
    /// Wait: of the first event that a turn of the core takes, until the turn begins. For each event.
    Queue,
    /// Work: a turn of a core's replicas (proposals, messages, what is applied). For each event.
    Turn,
    /// Wait: of the first append of a batch, until its write begins. For each batch but those that only seal.
    Batch,
    /// Wait: for the disk, until a batch is durable. For each byte.
    Write,
    /// Wait: of a leader's entry, from the turn that proposes it to the one that finds it committed: of one
    /// entry of a shard at a time. For each entry that a leader finds committed, also those not waited with.
    Replicate,
    /// Work: entries applied, a part of a turn. For each entry.
    Apply,
    /// Work: the message of an answer of a shard. For each unary call that has one; sampled.
    Encode,
    /// Work: what a connection's streams said is written to its socket. For each byte that it took.
    Send,
}

impl Stage {
    /// How many there are.
    pub const COUNT: usize = 11;
    /// All of them, in the order in which a put passes them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Frames,
        Self::Decode,
        Self::Route,
        Self::Queue,
        Self::Turn,
        Self::Batch,
        Self::Write,
        Self::Replicate,
        Self::Apply,
        Self::Encode,
        Self::Send,
    ];

    /// Its name, as the contract has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Decode => "decode",
            Self::Route => "route",
            Self::Queue => "queue",
            Self::Turn => "turn",
            Self::Batch => "batch",
            Self::Write => "write",
            Self::Replicate => "replicate",
            Self::Apply => "apply",
            Self::Encode => "encode",
            Self::Send => "send",
        }
    }

    /// Whether the core works meanwhile, and does not only have the request wait.
    #[must_use]
    pub fn is_work(self) -> bool {
        match self {
            Self::Frames
            | Self::Decode
            | Self::Route
            | Self::Turn
            | Self::Apply
            | Self::Encode
            | Self::Send => true,
            Self::Queue | Self::Batch | Self::Write | Self::Replicate => false,
        }
    }
}

/// What a stage came to since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often it was gone through.
    pub times: u64,
    /// For how many of what the stage counts.
    pub items: u64,
    /// How long it took in all.
    pub total: Duration,
    /// How often by how long it took: see [`BUCKETS`].
    pub buckets: [u64; BUCKETS],
}

impl Tally {
    /// It took so long, for so many.
    pub fn add(&mut self, took: Duration, items: u64) {
        self.add_weighted(took, items, 1);
    }

    fn add_weighted(&mut self, took: Duration, items: u64, weight: u64) {
        self.times += weight;
        self.items += items;
        self.total += took * u32::try_from(weight).expect("a sample counts for a few");
        self.buckets[bucket_of(took)] += weight;
    }

    /// Adds what another came to.
    pub fn merge(&mut self, other: &Self) {
        self.times += other.times;
        self.items += other.items;
        self.total += other.total;
        for (own, others) in self.buckets.iter_mut().zip(other.buckets) {
            *own += others;
        }
    }
}

/// The bucket of a duration.
fn bucket_of(took: Duration) -> usize {
    let bits = u128::BITS - took.as_micros().leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

/// What each stage came to, in the order of [`Stage::ALL`].
pub type Tallies = [Tally; Stage::COUNT];

/// The stages of one core. Cloning is cheap: a handle.
#[derive(Clone, Default)]
pub struct Stages {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Default)]
struct Inner {
    tallies: Tallies,
    /// Of each stage, the requests since the last one that was measured.
    unmeasured: [u64; Stage::COUNT],
}

impl Stages {
    /// A stage took so long, for so many.
    pub fn add(&self, stage: Stage, took: Duration, items: u64) {
        self.inner.borrow_mut().tallies[stage as usize].add(took, items);
    }

    /// So many more of what a stage counts went through it, and took no time that is told.
    pub fn count(&self, stage: Stage, items: u64) {
        self.inner.borrow_mut().tallies[stage as usize].items += items;
    }

    /// Does what is done for each request alone, and measures one of [`SAMPLED`] by this clock.
    pub fn sample<T>(&self, stage: Stage, now: impl Fn() -> super::Instant, work: impl FnOnce() -> T) -> T {
        let unmeasured = {
            let unmeasured = &mut self.inner.borrow_mut().unmeasured[stage as usize];
            *unmeasured += 1;
            *unmeasured
        };
        if unmeasured < SAMPLED {
            return work();
        }
        let began = now();
        let outcome = work();
        let mut inner = self.inner.borrow_mut();
        inner.unmeasured[stage as usize] = 0;
        inner.tallies[stage as usize].add_weighted(now().since(began), SAMPLED, SAMPLED);
        outcome
    }

    /// What they came to.
    #[must_use]
    pub fn tallies(&self) -> Tallies {
        self.inner.borrow().tallies
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::Instant;
    use super::*;

    #[test]
    fn durations_fall_into_powers_of_two() {
        for (micros, bucket) in
            [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1000, 10), (1 << 21, 22), (1 << 40, 22)]
        {
            assert_eq!(bucket_of(Duration::from_micros(micros)), bucket, "{micros} us");
        }
    }

    #[test]
    fn one_of_sixteen_is_measured_and_counts_for_all() {
        let (stages, clock) = (Stages::default(), Cell::new(0));
        let now = || Instant(clock.replace(clock.get() + 5));
        for done in 1..=40 {
            assert_eq!(stages.sample(Stage::Route, now, || done), done);
        }
        let tally = stages.tallies()[Stage::Route as usize];
        assert_eq!((tally.times, tally.items, tally.total), (32, 32, Duration::from_micros(32 * 5)));
        assert_eq!(tally.buckets[3], 32);
    }

    #[test]
    fn stages_are_in_order_and_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
        assert_eq!(names.len(), Stage::COUNT);
        assert!(Stage::ALL.iter().enumerate().all(|(at, stage)| *stage as usize == at));
    }
}
