//! Streams of calls whose effects on one shard take place in the order sent: the origin's side.
//!
//! The calls of one stream on one shard are numbered within an *epoch*. A receiver takes position 0, 1, 2, …
//! of an epoch and nothing else; as soon as one is refused, or lost on the way, it refuses all that follow.
//! So the origin knows: nothing behind a refused call was executed. It waits until every call of the epoch
//! has come back, opens the next epoch, and sends in the old order what is left.
//!
//! ```text
//!            take_next            refused, or lost               the last came back; a tick, or a new leader
//!   open(e) ───────────► open(e) ──────────────────► closing(e) ───────────────────────────────► open(e + 1)
//! ```
//!
//! Invariant: within one epoch the positions sent are 0, 1, 2, … without a gap.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;

use crate::env::{Env, Instant};
use crate::ids::ShardId;
use crate::route::call::{Failure, FailureKind, Request};
use crate::route::parcel::Order;
use crate::shard::calls::{Outcome, Pending};
use crate::shard::runner::Runner;

/// How many calls of one stream may be on their way to one shard.
const IN_FLIGHT_MAX: usize = 1024;

/// A call's place in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    stream: u64,
    shard: ShardId,
    sequence: u64,
}

/// The streams of one core.
#[derive(Default)]
pub(crate) struct Orders {
    last_stream: u64,
    lines: BTreeMap<(u64, ShardId), Line>,
}

/// One stream on one shard.
#[derive(Default)]
struct Line {
    last_sequence: u64,
    epoch: u64,
    position: u64,
    in_flight: usize,
    is_closing: bool,
    /// A call was refused: nothing is sent before the next tick or the next leader, or two nodes that do not
    /// agree on who leads would send calls to and fro without end.
    is_resting: bool,
    has_ended: bool,
    waiting: VecDeque<(Member, Pending)>,
}

impl Orders {
    pub(crate) fn open(&mut self) -> u64 {
        self.last_stream += 1;
        self.last_stream
    }

    pub(crate) fn end(&mut self, stream: u64) {
        for (_, line) in self.lines.range_mut((stream, ShardId(0))..=(stream, ShardId(u32::MAX))) {
            line.has_ended = true;
        }
        self.lines.retain(|_, line| !line.is_over());
    }

    /// The next place of a stream on a shard.
    pub(crate) fn join(&mut self, stream: u64, shard: ShardId) -> Member {
        let line = self.lines.entry((stream, shard)).or_default();
        line.last_sequence += 1;
        Member { stream, shard, sequence: line.last_sequence }
    }

    /// A call waits to be sent, in its place.
    pub(crate) fn queue(&mut self, member: Member, pending: Pending) {
        let line = self.line(member);
        let at = line.waiting.partition_point(|(other, _)| other.sequence < member.sequence);
        let is_there = line.waiting.get(at).is_some_and(|(other, _)| *other == member);
        assert!(!is_there, "call {} of stream {} waits twice", member.sequence, member.stream);
        assert!(member.sequence <= line.last_sequence, "call {} never joined", member.sequence);
        line.waiting.insert(at, (member, pending));
    }

    /// The call that is to be sent next, where one may be sent now.
    pub(crate) fn peek(&self, member: Member) -> Option<&Pending> {
        let line = self.lines.get(&(member.stream, member.shard))?;
        if line.is_closing || line.is_resting || line.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        line.waiting.front().map(|(_, pending)| pending)
    }

    /// Takes that call, and its order.
    pub(crate) fn take_next(&mut self, member: Member) -> Option<(Pending, Order)> {
        let line = self.line(member);
        assert!(!line.is_closing, "a closing epoch sends nothing: epoch {}", line.epoch);
        let (_, pending) = line.waiting.pop_front()?;
        let order = Order { stream: member.stream, epoch: line.epoch, position: line.position };
        line.position += 1;
        line.in_flight += 1;
        assert!(
            line.in_flight <= IN_FLIGHT_MAX,
            "{} calls in flight in epoch {}",
            line.in_flight,
            line.epoch
        );
        assert!(line.in_flight as u64 <= line.position, "{} of {} calls", line.in_flight, line.position);
        Some((pending, order))
    }

    /// A call came back with its answer.
    pub(crate) fn answered(&mut self, member: Member) {
        self.line(member).came_back();
        self.tidy(member);
    }

    /// A call came back refused, or is lost. `again`: it is to be sent again, in its place.
    pub(crate) fn refused(&mut self, member: Member, again: Option<Pending>) {
        if let Some(pending) = again {
            self.queue(member, pending);
        }
        let line = self.line(member);
        line.is_closing = true;
        line.is_resting = true;
        line.came_back();
        self.tidy(member);
    }

    /// Takes out the calls that wait and whose time is up.
    pub(crate) fn take_expired(&mut self, is_expired: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let mut expired = Vec::new();
        for line in self.lines.values_mut().filter(|line| !line.waiting.is_empty()) {
            let (past, kept): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(&mut line.waiting).into_iter().partition(|(_, pending)| is_expired(pending));
            line.waiting = kept;
            expired.extend(past.into_iter().map(|(_, pending)| pending));
        }
        self.lines.retain(|_, line| !line.is_over());
        expired
    }

    /// What was refused may be sent again, on all shards or on one.
    pub(crate) fn rested(&mut self, only: Option<ShardId>) {
        let lines = self.lines.iter_mut().filter(|((_, shard), _)| only.is_none_or(|only| only == *shard));
        lines.for_each(|(_, line)| line.is_resting = false);
    }

    /// The streams, by a call of each, that have calls to send.
    pub(crate) fn waiting(&self) -> Vec<Member> {
        self.lines.values().filter_map(|line| line.waiting.front().map(|(member, _)| *member)).collect()
    }

    fn line(&mut self, member: Member) -> &mut Line {
        self.lines.entry((member.stream, member.shard)).or_default()
    }

    fn tidy(&mut self, member: Member) {
        let key = (member.stream, member.shard);
        if self.lines.get(&key).is_some_and(Line::is_over) {
            self.lines.remove(&key);
        }
    }
}

impl Line {
    fn came_back(&mut self) {
        assert!(self.in_flight > 0, "more calls came back than were sent in epoch {}", self.epoch);
        self.in_flight -= 1;
        if self.is_closing && self.in_flight == 0 {
            self.epoch += 1;
            self.position = 0;
            self.is_closing = false;
        }
    }

    fn is_over(&self) -> bool {
        self.has_ended && self.in_flight == 0 && self.waiting.is_empty()
    }
}

/// One stream of calls whose effects on each shard take place in the order submitted.
pub struct Pipeline<E: Env> {
    runner: Runner<E>,
    stream: u64,
}

impl<E: Env> Pipeline<E> {
    pub(crate) fn new(runner: Runner<E>, stream: u64) -> Self {
        Self { runner, stream }
    }

    /// Submits a call. It is on its way when this returns; the future is its answer.
    pub fn submit(
        &self,
        shard: ShardId,
        request: Request,
        deadline: Instant,
    ) -> impl Future<Output = Outcome> + 'static + use<E> {
        let answer = self.runner.start(shard, request, deadline, Some(self.stream));
        async move { answer.await.unwrap_or(Err(Failure::of(FailureKind::OutcomeUnknown))) }
    }
}

impl<E: Env> Drop for Pipeline<E> {
    fn drop(&mut self) {
        self.runner.end_stream(self.stream);
    }
}
