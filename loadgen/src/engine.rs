//! One thread's engine: a single future that polls its connections, takes answers and starts calls.
//!
//! ```text
//! turn:  read the connections that are ready ─► end calls ─► start calls that are due ─► write
//! ```
//! Turns follow each other until nothing is ready; then it sleeps until a socket or the alarm wakes it. So
//! whatever a turn starts leaves in one write for each connection.
//!
//! Invariants:
//! - A place (see [`Call`]) is on exactly one of: free, resting, under way; the waiting ones are under way
//!   too.
//! - Every call that was begun ends in the record, by its answer, by its failure or by its deadline.
//! - A call that was given up is cancelled at its connection first, so that no news of it reaches the next
//!   one in its place.
//! - The clock is read once for what a read of a socket brings, and once for what a turn starts; a call never
//!   ends before it starts, nor before it is sent.
//! - Once the schedule is over, the engine ends when the last call has; deadlines bound that.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::answer::Said;
use crate::args::{Arrivals as Process, Settings, Target, Workload};
use crate::arrivals::{Arrivals, Ended};
use crate::audit::Recorder;
use crate::call::Call;
use crate::connection::{Carriage, LinkChange, Sending};
use crate::keys::KEY_BYTES;
use crate::links::{LinkOptions, Links, Up};
use crate::message::Message;
use crate::random::Random;
use crate::ready::ReadyList;
use crate::record::{self, Record, SharedRecord};
use crate::routing::Routing;
use crate::schedule::{Due, Gather, LATE_NS, Schedule};
use crate::shared::Shared;
use crate::status::{ErrorKind, Failure};
use crate::timer::Alarm;
use crate::usage::Meter;
use crate::values::value_pool;
use crate::workload::{Op, Source, size_max};

/// Turns without letting the runtime look at its sockets.
const TURNS_MAX: usize = 64;
/// Waiting calls that are tried in vain in a turn.
const REFUSED_MAX: usize = 16;
/// How often deadlines, dials, the routing table and the word to stop are looked at.
const SWEEP_NS: u64 = 50_000_000;
/// How often what the thread uses is looked at.
const LAP_NS: u64 = 500_000_000;
/// How long a server's own answer to a passed deadline is waited for.
const GRACE_NS: u64 = 500_000_000;
/// How long a place of a closed loop rests after a failure, so that a cluster without a leader is not
/// stormed.
const REST_NS: u64 = 10_000_000;
/// How long the first connections are waited for.
const CONNECT_NS_MAX: u64 = 5_000_000_000;
/// How long answers are waited for once the run is interrupted.
const INTERRUPTED_NS_MAX: u64 = 1_000_000_000;
/// How long a key of a load is tried.
const LOAD_KEY_NS_MAX: u64 = 30_000_000_000;

/// One thread's engine. It lives on its thread, which polls it and owns all of it but the record, the routing
/// table and the word to stop.
pub struct Engine {
    shared: Arc<Shared>,
    record: SharedRecord,
    ready: Arc<ReadyList>,
    alarm: Alarm,
    links: Links,
    routing_version: u64,
    calls: Vec<Call>,
    free: Vec<u32>,
    /// Places that failed, with the moment when they are free again, in order.
    resting: VecDeque<(u64, u32)>,
    /// Places whose calls no connection could take yet.
    waiting: VecDeque<u32>,
    source: Source,
    schedule: Schedule,
    gather: Gather,
    values: Bytes,
    timeout_ns: u64,
    sweep_ns: u64,
    /// Calls that left late and are not in the record yet.
    late: Late,
    /// When a place was last given back while all were taken.
    full_ns: u64,
    /// Operations that have ended, measured or not.
    operations: u64,
    /// What the measured window cost.
    meter: Meter,
    /// What the last half second or so cost, and until when that lasts.
    lap: Meter,
    lap_ns: u64,
    /// Records operations for an audit, where there is one.
    recorder: Option<Recorder>,
    /// Reused lists of the connections that are ready and of the calls that have ended.
    ready_links: Vec<u32>,
    ended: Vec<Ended>,
}

/// Calls that left late.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    /// Measured or not.
    all: u64,
    measured: u64,
    /// Measured, and every place was taken when they were due.
    measured_no_place: u64,
    /// Measured, and no connection could take them when they had a place.
    measured_no_stream: u64,
}

/// The part of `whole` that falls to a thread of so many.
fn share(whole: usize, thread: (usize, usize)) -> usize {
    let (number, threads) = thread;
    whole / threads + usize::from(number < whole % threads)
}

impl Engine {
    /// The engine of thread `(number, threads)`. Has to be made inside the runtime that polls it.
    pub fn new(
        settings: &Settings,
        thread: (usize, usize),
        shared: Arc<Shared>,
        record: SharedRecord,
    ) -> io::Result<Self> {
        let ready = Arc::new(ReadyList::default());
        let per_node = share(settings.connections, thread);
        let carriage = match settings.target {
            Target::Kv | Target::Health | Target::Etcd => Carriage::Unary,
            Target::Pipeline => Carriage::Pipeline,
        };
        let (timeout, woken) = (settings.timeout, Arc::clone(&ready));
        let options = LinkOptions { per_node, carriage, route: settings.route, timeout, ready: woken };
        let (routing, routing_version) = match shared.routing_after(0) {
            Some((routing, version)) => (Routing::clone(&routing), version),
            None => (Routing::any_of(&settings.endpoints), 0),
        };
        let places = share(settings.in_flight, thread) as u32;
        assert!(per_node > 0 && places > 0, "a thread with {per_node} connections and {places} places");
        let random = Random::of(settings.seed, thread.0);
        Ok(Self {
            alarm: Alarm::new()?,
            links: Links::new(routing, options),
            routing_version,
            calls: (0..places).map(Call::new).collect(),
            free: (0..places).rev().collect(),
            resting: VecDeque::with_capacity(places as usize),
            waiting: VecDeque::with_capacity(places as usize),
            source: Source::new(settings, random.clone(), thread),
            schedule: Schedule::closed(0, 0),
            gather: Gather::new(nanos(settings.gather)),
            values: value_pool(size_max(settings), random),
            timeout_ns: nanos(settings.timeout),
            sweep_ns: 0,
            late: Late::default(),
            full_ns: 0,
            operations: 0,
            meter: Meter::default(),
            lap: Meter::default(),
            lap_ns: 0,
            recorder: Recorder::new(settings, thread, places, &shared),
            ready_links: Vec::new(),
            ended: Vec::with_capacity(places as usize),
            shared,
            record,
            ready,
        })
    }

    /// Connections that are up, of how many.
    pub fn links_up(&self) -> Up {
        self.links.up()
    }

    /// Connects. Ready when every connection has been up or has failed once.
    pub fn poll_connect(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS_MAX {
            let now_ns = self.shared.now_ns();
            self.dial_due(now_ns);
            self.poll_links(now_ns);
            self.links.flush();
            if self.links.are_settled() || now_ns > CONNECT_NS_MAX {
                return Poll::Ready(Ok(()));
            }
            if self.ready.sleep(context) {
                return self.doze(now_ns + SWEEP_NS, context);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sets the schedule that [`Engine::poll_run`] goes by.
    pub fn begin(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }

    /// Runs the schedule. Ready when it is over and every call has ended.
    pub fn poll_run(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS_MAX {
            let now_ns = self.turn();
            if self.is_over(now_ns) {
                self.sweep(now_ns);
                self.end_meter(now_ns);
                if let Some(recorder) = &mut self.recorder {
                    recorder.finish();
                }
                return Poll::Ready(Ok(()));
            }
            if self.ready.sleep(context) {
                return self.doze(self.wake_ns(now_ns), context);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sets the alarm and sleeps.
    fn doze(&mut self, wake_ns: u64, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.alarm.set(wake_ns, self.shared.now_ns(), context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Everything that can be done now.
    fn turn(&mut self) -> u64 {
        let now_ns = self.shared.now_ns();
        if now_ns >= self.sweep_ns {
            self.sweep(now_ns);
        }
        self.poll_links(now_ns);
        self.retry_waiting(now_ns);
        while self.resting.front().is_some_and(|(until_ns, _)| *until_ns <= now_ns) {
            self.free.extend(self.resting.pop_front().map(|(_, place)| place));
        }
        self.start_due();
        self.links.flush();
        now_ns
    }

    /// Whether nothing is left to start, and nothing is under way.
    fn is_over(&self, now_ns: u64) -> bool {
        let done = self.source.is_exhausted() || self.schedule.due(now_ns) == Due::Over;
        done && self.free.len() + self.resting.len() == self.calls.len()
    }

    /// When there is something to do at the latest.
    fn wake_ns(&self, now_ns: u64) -> u64 {
        let rested_ns = self.resting.front().map_or(u64::MAX, |(until_ns, _)| *until_ns);
        let due_ns = match self.schedule.due(now_ns) {
            Due::At(at_ns) if !self.free.is_empty() => self.gather.wake_ns(at_ns),
            // Without a free place, the end of a call wakes; a closed loop with one has started a call
            // already.
            Due::At(_) | Due::Now(_) | Due::Over => u64::MAX,
        };
        self.sweep_ns.min(rested_ns).min(due_ns)
    }

    /// Takes what has come on the connections that are ready.
    fn poll_links(&mut self, now_ns: u64) {
        self.ready.take(&mut self.ready_links);
        while let Some(place) = self.ready_links.pop() {
            let (calls, ended) = (&mut self.calls[..], &mut self.ended);
            let mut arrivals = Arrivals { calls, ended, shared: &self.shared, now_ns };
            match self.links.poll(place, &mut arrivals) {
                LinkChange::Same | LinkChange::CameUp => {}
                LinkChange::WentDown => self.shared.refresh.notify_one(),
            }
        }
        self.finish_ended();
    }

    /// Dials the connections whose time has come.
    fn dial_due(&mut self, now_ns: u64) {
        let (calls, ended) = (&mut self.calls[..], &mut self.ended);
        self.links.poll_due(&mut Arrivals { calls, ended, shared: &self.shared, now_ns });
    }

    /// Records the calls whose answers have come.
    fn finish_ended(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        let record = Arc::clone(&self.record);
        let mut record = record::lock(&record);
        let mut ended = std::mem::take(&mut self.ended);
        for Ended { place, outcome, at_ns } in ended.drain(..) {
            self.finish(place, outcome, at_ns, &mut record);
        }
        self.ended = ended;
    }

    /// A call has ended: records it, and gives its place back.
    fn finish(&mut self, place: u32, outcome: Result<Said, Failure>, now_ns: u64, record: &mut Record) {
        let call = &mut self.calls[place as usize];
        call.end();
        let op = call.op;
        if let (Some(recorder), Some(kept)) = (&mut self.recorder, call.take_kept()) {
            recorder.end(place, outcome.map(|_| &kept[..]), now_ns);
        }
        if let Some(next) = self.source.ended(&op, &outcome) {
            return self.follow(place, next, now_ns);
        }
        let call = &self.calls[place as usize];
        self.operations += 1;
        let (start_ns, sent_ns) = (call.start_ns, call.sent_ns());
        assert!(now_ns >= sent_ns && sent_ns >= start_ns, "{start_ns}, sent {sent_ns}, ended {now_ns}");
        let (latency_ns, service_ns) = (now_ns - start_ns, now_ns - sent_ns);
        let measured = self.schedule.measures(start_ns);
        if self.free.is_empty() {
            self.full_ns = now_ns;
        }
        match outcome {
            Ok(said) => {
                record.interval.succeed(latency_ns, service_ns);
                if measured {
                    record.total.succeed(call.op.method, latency_ns, service_ns);
                    record.total.not_found += u64::from(said == Said::No);
                    record.total.told.count(said);
                }
                self.free.push(place);
            }
            Err(failure) => {
                record.interval.fail(failure.kind, 1);
                if measured {
                    record.total.fail(failure.kind, 1, latency_ns);
                }
                self.learn(place, failure, now_ns, record);
                if self.schedule.is_open() {
                    self.free.push(place);
                } else {
                    self.resting.push_back((now_ns + REST_NS, place));
                }
            }
        }
    }

    /// Goes on with the next call of an operation of several: in the same place, with a deadline of its own,
    /// and with latency and service time counting on.
    fn follow(&mut self, place: u32, op: Op, now_ns: u64) {
        let call = &mut self.calls[place as usize];
        call.follow(op, now_ns + self.timeout_ns + GRACE_NS);
        self.record(place);
        if !self.send(place, now_ns) {
            self.waiting.push_back(place);
        }
    }

    /// What a failure means for routing, and for a key that a load has to write.
    fn learn(&mut self, place: u32, failure: Failure, now_ns: u64, record: &mut Record) {
        let call = &self.calls[place as usize];
        if failure.leader != 0 {
            self.links.hint(call.shard, failure.leader);
        }
        if failure.asks_for_routing() {
            self.shared.refresh.notify_one();
        }
        if self.source.is_load() {
            if now_ns < call.op.first_ns + LOAD_KEY_NS_MAX {
                self.source.again(call.op);
            } else {
                record.total.fail(ErrorKind::Unwritten, 1, now_ns - call.op.first_ns);
            }
        }
    }

    /// Starts the calls that are due, as far as there are places. One reading of the clock serves them all:
    /// what a later one of them waits for the earlier ones counts as its latency.
    fn start_due(&mut self) {
        if self.free.is_empty() {
            return;
        }
        let now_ns = self.shared.now_ns();
        while !self.free.is_empty() {
            let start_ns = match self.schedule.due(now_ns) {
                Due::Now(start_ns) => start_ns,
                Due::At(_) | Due::Over => return,
            };
            let Some(op) = self.source.next(now_ns) else { return };
            let Some(place) = self.free.pop() else { return };
            self.schedule.advance();
            self.gather.started(now_ns);
            let shard = self.links.shard_of(self.source.key(&op, &mut [0; KEY_BYTES]));
            let deadline_ns = now_ns + self.timeout_ns + GRACE_NS;
            self.calls[place as usize].begin(op, shard, start_ns, deadline_ns);
            self.calls[place as usize].had_no_place = start_ns <= self.full_ns;
            self.record(place);
            if self.send(place, now_ns) {
                self.count_late(place, now_ns, false);
            } else {
                self.waiting.push_back(place);
            }
        }
    }

    /// Counts a call of an open loop that left just now, where it left late: because no place was free for
    /// it, or then no connection, or because this thread came to it late.
    fn count_late(&mut self, place: u32, now_ns: u64, has_waited: bool) {
        let call = &self.calls[place as usize];
        let (start_ns, had_no_place) = (call.start_ns, call.had_no_place);
        if now_ns - start_ns <= LATE_NS || !self.schedule.is_open() {
            return;
        }
        self.late.all += 1;
        if self.schedule.measures(start_ns) {
            self.late.measured += 1;
            self.late.measured_no_place += u64::from(had_no_place);
            self.late.measured_no_stream += u64::from(has_waited && !had_no_place);
        }
    }

    /// Sends waiting calls as far as there is room, before any that begins after them. Those that cannot be
    /// sent go to the end, so that a node without room does not hold up the calls to others; after some of
    /// them it stops, since there is probably no room anywhere.
    fn retry_waiting(&mut self, now_ns: u64) {
        let mut refused = 0;
        for _ in 0..self.waiting.len() {
            let Some(place) = self.waiting.pop_front() else { return };
            let call = &self.calls[place as usize];
            if !call.is_waiting() {
                continue;
            }
            let is_first = !call.was_sent();
            if self.send(place, now_ns) {
                // The later calls of an operation are due when those before them are answered.
                if is_first {
                    self.count_late(place, now_ns, true);
                }
            } else {
                self.waiting.push_back(place);
                refused += 1;
                if refused == REFUSED_MAX {
                    return;
                }
            }
        }
    }

    /// Has a call that has just begun recorded, where there is an audit and its key is in the sample.
    fn record(&mut self, place: u32) {
        let Some(recorder) = &mut self.recorder else { return };
        let (call, mut room) = (&mut self.calls[place as usize], [0; KEY_BYTES]);
        if recorder.begin(place, &call.op, self.source.key(&call.op, &mut room)) {
            call.keep();
        }
    }

    /// Sends a call at `now_ns`. False, where no connection can take it now.
    fn send(&mut self, place: u32, now_ns: u64) -> bool {
        let at = self.source.value_at();
        let call = &mut self.calls[place as usize];
        let (op, mut room) = (call.op, [0; KEY_BYTES]);
        let mut value = &self.values[at..at + op.size as usize];
        if let Some(recorder) = self.recorder.as_mut().filter(|_| call.is_kept()) {
            value = recorder.sending(place, value);
        }
        let key = self.source.key(&op, &mut room);
        let message = Message { method: op.method, key, value, number: op.number };
        match self.links.send(call.shard, &Sending { message, tag: call.tag(), place }) {
            Some(route) => {
                call.sent(route, now_ns);
                true
            }
            None => false,
        }
    }

    /// What has to be looked at now and then.
    fn sweep(&mut self, now_ns: u64) {
        self.sweep_ns = now_ns + SWEEP_NS;
        self.dial_due(now_ns);
        self.finish_ended();
        if self.schedule.measures(now_ns) {
            self.meter.begin(now_ns, self.operations);
        } else {
            self.end_meter(now_ns);
        }
        if let Some((routing, version)) = self.shared.routing_after(self.routing_version) {
            self.links.adopt(Routing::clone(&routing));
            self.routing_version = version;
        }
        let mut give_up = None;
        let mut hopeless_ns = now_ns.saturating_sub(self.timeout_ns);
        if let Some(stop_ns) = self.shared.stopped_ns() {
            self.schedule.end_at(stop_ns);
            if now_ns > stop_ns + INTERRUPTED_NS_MAX {
                give_up = Some(ErrorKind::Unanswered);
                hopeless_ns = now_ns;
            }
        }
        let record = Arc::clone(&self.record);
        let mut record = record::lock(&record);
        let dropped = self.schedule.drop_due_before(hopeless_ns);
        record.total.fail(ErrorKind::Dropped, dropped, now_ns - hopeless_ns);
        record.interval.fail(ErrorKind::Dropped, dropped);
        let late = std::mem::take(&mut self.late);
        record.interval.late += late.all;
        record.total.late += late.measured;
        record.total.late_no_place += late.measured_no_place;
        record.total.late_no_stream += late.measured_no_stream;
        if now_ns >= self.lap_ns {
            self.lap_ns = now_ns + LAP_NS;
            record.interval.usage = self.lap.end(now_ns, self.operations).unwrap_or_default();
            self.lap.begin(now_ns, self.operations);
        }
        self.end_overdue(now_ns, give_up, &mut record);
    }

    /// Ends the calls whose deadline has passed; all of them, where they are given up for a reason.
    fn end_overdue(&mut self, now_ns: u64, give_up: Option<ErrorKind>, record: &mut Record) {
        for place in 0..self.calls.len() {
            let call = &self.calls[place];
            if call.is_idle() || (give_up.is_none() && now_ns < call.deadline_ns) {
                continue;
            }
            let overdue = match call.route() {
                None => ErrorKind::NoConnection,
                Some(route) => {
                    self.links.cancel(route);
                    ErrorKind::Timeout
                }
            };
            let failure = Failure::of(give_up.unwrap_or(overdue));
            self.finish(place as u32, Err(failure), now_ns, record);
        }
        self.waiting.retain(|place| self.calls[*place as usize].is_waiting());
    }

    /// Puts what the measured window cost into the record, where it has just ended.
    fn end_meter(&mut self, now_ns: u64) {
        if let Some(usage) = self.meter.end(now_ns, self.operations) {
            record::lock(&self.record).total.usage.push(usage);
        }
    }
}

/// The schedule of thread `(number, threads)` that the settings ask for, from `start_ns` on.
pub fn schedule_of(settings: &Settings, thread: (usize, usize), start_ns: u64) -> Schedule {
    let measure_from_ns = start_ns + nanos(settings.warmup);
    let end_ns = measure_from_ns + nanos(settings.duration);
    if settings.workload == Workload::Load {
        return Schedule::closed(start_ns, u64::MAX);
    }
    match settings.rate {
        Some(rate) if settings.arrivals == Process::Poisson => {
            Schedule::poisson((rate, settings.seed), thread, start_ns, measure_from_ns, end_ns)
        }
        Some(rate) => Schedule::open(rate, thread, start_ns, measure_from_ns, end_ns),
        None => Schedule::closed(measure_from_ns, end_ns),
    }
}

/// A span in nanoseconds. Spans are bounded by the command line.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
