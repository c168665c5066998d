//! Group commit: one batch write in flight; while it flies, everything that arrives joins the next.
//!
//! ```text
//!            ┌───────────── nothing to write ─────────────┐
//!            ▼                                            │
//!          wait ──append──► form a batch ──► write ──► durable ──► complete
//!            │                   ▲ spare        │
//!            │ idle, closing     │ wait         └─ error ──► latched, end
//!            └──────► seal ──────┘
//! ```
//!
//! Invariants:
//! - A batch is written to blocks that hold zeros or an earlier use's bytes, never to blocks of this
//!   segment's batches.
//! - Nothing completes before the write that carries it, and all before it, returned.
//! - The first failed write is final: it is latched and said, and nothing is written after it.
//! - No write is inside a select or a timeout: only waits are.
//!
//! It lives on its lane's core and is run by it once. It deliberately makes no segments: it takes the spare
//! that the keeper made, and waits where there is none yet.

use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::env::signal::Signal;
use crate::env::{Env, File, Instant};

use super::batch::{BatchBuilder, BatchHeader, batch_bytes};
use super::error::{Doing, LogFailure};
use super::index::Position;
use super::lane::{Completed, Lane, Phase, Space, State};
use super::manifest::Mark;
#[cfg(debug_assertions)]
use super::planted::PlantedBug;
use super::queue::{Origin, Plan, Taken};
use super::segment::SEGMENT_DATA_AT;

/// What the writer does next.
enum Step {
    Wait,
    WaitFor(Duration),
    Write(Plan),
    End,
}

/// A batch that is formed, and where it goes.
struct Flight<E: Env> {
    file: Rc<E::File>,
    path: PathBuf,
    buf: Rc<E::Buf>,
    at: Position,
    mark: Mark,
    cost: usize,
    is_seal: bool,
    is_chore: bool,
}

/// What became of a batch that was to be formed.
enum Formed<E: Env> {
    Ready(Flight<E>),
    NoSegment,
}

const SEAL: Plan = Plan { whole: 0, part: 0, bytes: 0 };

impl<E: Env> Lane<E> {
    /// The writer. Returns when the lane was closed and all was written and sealed, or after the first
    /// failure; nothing of the lane writes to its directory after a clean return.
    pub async fn run(self) {
        let phase = self.shared.state.borrow().phase;
        assert!(
            matches!(phase, Phase::Opened | Phase::Closing),
            "a lane is run once, and this one is {phase:?}"
        );
        self.enter_phase(Phase::Running);
        self.shared.env.spawn(self.clone().keep());
        loop {
            match self.next_step() {
                Step::Wait => self.shared.wake.wait().await,
                Step::WaitFor(time) => wait_for(&self.shared.env, &self.shared.wake, time).await,
                Step::Write(plan) => match self.form(plan) {
                    Formed::Ready(flight) => self.write(flight).await,
                    Formed::NoSegment => self.shared.wake.wait().await,
                },
                Step::End => break,
            }
        }
        self.enter_phase(Phase::Written);
        self.shared.chores.raise();
        while !self.is_over() {
            self.shared.wake.wait().await;
        }
    }

    /// Enters a later phase; an earlier one than it is in changes nothing.
    pub(super) fn enter_phase(&self, phase: Phase) {
        let mut state = self.shared.state.borrow_mut();
        state.phase = state.phase.max(phase);
    }

    fn is_over(&self) -> bool {
        let state = self.shared.state.borrow();
        state.phase == Phase::Ended || state.failure.is_some()
    }

    fn next_step(&self) -> Step {
        let now = self.shared.env.now();
        let config = &self.shared.config;
        let mut state = self.shared.state.borrow_mut();
        if state.failure.is_some() {
            return Step::End;
        }
        state.complete_empty();
        let is_closing = state.phase >= Phase::Closing;
        if is_closing && state.needs_spare && state.spare.is_none() && state.space == Space::Short {
            return Step::End;
        }
        if let Some(plan) = state.queue.plan(config.batch_bytes_max) {
            let waited = now.since(state.queue.oldest().unwrap_or(now));
            let is_ripe = is_closing
                || waited >= config.batch_delay
                || batch_bytes(state.queue.bytes()) >= config.batch_bytes_max;
            return if is_ripe { Step::Write(plan) } else { Step::WaitFor(config.batch_delay - waited) };
        }
        #[cfg(debug_assertions)]
        if config.has(PlantedBug::NeverSealed) {
            state.is_sealed = true;
        }
        let idle = now.since(state.written_at);
        match (state.is_sealed, is_closing) {
            (true, true) => Step::End,
            (true, false) => Step::Wait,
            (false, false) if idle < config.seal_after => Step::WaitFor(config.seal_after - idle),
            (false, _) => Step::Write(SEAL),
        }
    }

    /// Encodes the batch, in the current segment or the spare where it does not fit.
    fn form(&self, plan: Plan) -> Formed<E> {
        let len = batch_bytes(plan.bytes);
        let state = &mut *self.shared.state.borrow_mut();
        if state.position + len as u64 > state.current.bytes && !self.roll(state) {
            return Formed::NoSegment;
        }
        let place = state.current.place;
        let sequence = state.last.sequence.next();
        let header = BatchHeader { sequence, durable_through: state.last.sequence, before: state.last.chain };
        state.flight_since = state.queue.oldest();
        let mut buf = state.buffers.take(&self.shared.env, len);
        let mut builder = BatchBuilder::new(buf.as_mut());
        let flown = &mut state.flown;
        let mut is_chore = false;
        state.notes.clear();
        let cost = state.queue.take(plan, &mut builder, &mut state.notes, |taken| {
            is_chore |= taken.origin == Origin::Lane;
            flown.extend(completion(taken));
        });
        let chain = builder.finish(&place, &header);
        let bytes = u32::try_from(len).expect("a batch is no longer than BATCH_BYTES_LIMIT");
        Formed::Ready(Flight {
            file: Rc::clone(&state.current.file),
            path: state.current.path.clone(),
            buf: Rc::new(buf),
            at: Position { segment: place.segment, offset: state.position, bytes },
            mark: Mark { sequence, chain },
            cost,
            is_seal: plan == SEAL,
            is_chore,
        })
    }

    /// Goes on in the spare; says whether there was one.
    fn roll(&self, state: &mut State<E>) -> bool {
        state.needs_spare = true;
        self.shared.chores.raise();
        let Some(spare) = state.spare.take() else { return false };
        let ended = state.current.place.segment;
        let segment = state.segments.get_mut(&ended).expect("the current segment is one of the lane's");
        segment.end = Some(state.last);
        state.current = spare;
        state.position = SEGMENT_DATA_AT;
        state.needs_spare = false;
        true
    }

    async fn write(&self, flight: Flight<E>) {
        let began = self.shared.env.now();
        #[cfg(debug_assertions)]
        if self.shared.config.has(PlantedBug::CompletedBeforeWrite) {
            self.shared.state.borrow_mut().complete_flown();
        }
        let result = flight.file.write_at(Rc::clone(&flight.buf), flight.at.offset).await;
        #[cfg(debug_assertions)]
        let result = match result {
            Err(_) if self.shared.config.has(PlantedBug::FailureNotLatched) => Ok(()),
            result => result,
        };
        match result {
            Ok(()) => self.landed(flight, began),
            Err(source) => {
                let failure = LogFailure::at(Doing::WriteBatch, &flight.path, flight.at.offset, source);
                self.shared.state.borrow_mut().fail(failure);
            }
        }
    }

    fn landed(&self, flight: Flight<E>, began: Instant) {
        let now = self.shared.env.now();
        let state = &mut *self.shared.state.borrow_mut();
        let end = flight.at.offset + u64::from(flight.at.bytes);
        assert_eq!(state.position, flight.at.offset, "one batch flies at a time");
        assert!(end <= state.current.bytes, "a batch to byte {end} of {}", state.current.bytes);
        state.position = end;
        #[cfg(debug_assertions)]
        if self.shared.config.has(PlantedBug::BlockRewritten)
            && flight.at.bytes > crate::env::BLOCK_BYTES as u32
        {
            state.position -= crate::env::BLOCK_BYTES as u64;
        }
        state.last = flight.mark;
        state.is_sealed = flight.is_seal;
        state.written_at = now;
        state.last_write = now.since(began);
        state.write.add(state.last_write, u64::from(flight.at.bytes));
        if let Some(first) = state.flight_since {
            state.batch.add(began.since(first), 1);
        }
        state.batches += 1;
        state.index.apply(flight.at, &state.notes);
        state.queue.landed(flight.cost);
        state.flight_since = None;
        if let Ok(buf) = Rc::try_unwrap(flight.buf) {
            state.buffers.give(buf);
        }
        state.complete_flown();
        state.complete_empty();
        if flight.is_chore || !state.damaged.is_empty() {
            self.shared.chores.raise();
        }
    }
}

impl<E: Env> State<E> {
    /// Completes what was in the batch that landed.
    fn complete_flown(&mut self) {
        if !self.flown.is_empty() {
            self.completions.append(&mut self.flown);
            self.progress.raise();
        }
    }

    /// Completes what has nothing to write and waits for nothing. Only while no batch flies.
    fn complete_empty(&mut self) {
        assert!(self.flight_since.is_none(), "a batch is in flight");
        while let Some(taken) = self.queue.pop_empty() {
            self.completions.extend(completion(taken));
            self.progress.raise();
        }
    }
}

fn completion(taken: Taken) -> Option<Completed> {
    match taken.origin {
        Origin::Shard { number } => Some(Completed { shard: taken.shard, number }),
        Origin::Lane => None,
    }
}

/// Waits until the signal is raised or the time is over.
pub(super) async fn wait_for<E: Env>(env: &E, signal: &Signal, time: Duration) {
    let mut raised = pin!(signal.wait());
    let mut over = pin!(env.sleep(time));
    poll_fn(|context| {
        let is_raised = raised.as_mut().poll(context).is_ready();
        if is_raised || over.as_mut().poll(context).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
