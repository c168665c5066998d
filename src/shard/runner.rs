//! All that one core owns, and its turn.
//!
//! A [`Runner`] is a handle; cloning it is cheap. [`Runner::run`] is its loop: it sleeps until something was
//! delivered, a lane made progress or a tick is due, and takes one turn for all of it. So one wake-up serves
//! many requests.

mod scrub;
mod tables;
mod repairs;
mod space;
mod report;
mod routes;
mod wanted;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::env::signal::{AnswerReceiver, AnswerSender, Signal, answer};
use crate::env::stages::{Stage, Stages};
use crate::env::{Env, Instant};
use crate::ids::{CoreId, LaneId, NodeId, ShardId};
use crate::log::Lane;
use crate::raft;
use crate::route::call::{Failure, FailureKind, Request};
use crate::route::outbox::Outbox;
use crate::route::parcel::{Call, Parcel, TableAsk};
use crate::route::window::Windows;
use crate::shard::cache::BlockCache;
use crate::shard::calls::{Calls, Moment, Outcome, Sending};
use crate::shard::config::{Config, PlantedBug};
use crate::shard::directory::{Directory, Known};
use crate::shard::end::RunEnd;
use crate::shard::event::{Event, MeshItem};
use crate::shard::lend::Lending;
use crate::shard::pipeline::Pipeline;
use crate::shard::replica::{LogRead, Output, Replica, ReplicaStart, Turn, Unreadable, Watch};
use crate::shard::snapshot;
use crate::shard::space::Gauge;
use crate::shard::status::CoreStatus;
use crate::shard::wanted::SnapshotAnswer;
use tables::{Fetching, PartAsked};

/// How long a part of a table may take to arrive.
const PART_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// All that one core owns.
pub struct Runner<E: Env> {
    env: E,
    inner: Rc<RefCell<Inner<E>>>,
    /// Something waits for a turn.
    wake: Signal,
    /// Something waits to leave.
    outgoing: Signal,
    stages: Stages,
}

impl<E: Env> Clone for Runner<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            inner: Rc::clone(&self.inner),
            wake: self.wake.clone(),
            outgoing: self.outgoing.clone(),
            stages: self.stages.clone(),
        }
    }
}

struct Inner<E: Env> {
    config: Rc<Config>,
    lanes: BTreeMap<LaneId, Lane<E>>,
    replicas: BTreeMap<ShardId, Replica<E>>,
    calls: Calls,
    directory: Directory,
    windows: Windows,
    inbox: VecDeque<Event>,
    /// When the first event of the inbox came.
    inbox_since: Option<Instant>,
    stages: Stages,
    links: Outbox<NodeId>,
    mesh: BTreeMap<CoreId, VecDeque<MeshItem>>,
    dirty: Vec<ShardId>,
    ticked_at: Instant,
    swept_at: Instant,
    /// When it is looked at next whether a table is due.
    looks_at: Instant,
    /// How long the merge of a table rests between two steps: shared with the one that runs.
    merge_rest: Rc<Cell<std::time::Duration>>,
    /// The table that is fetched: one at a time.
    fetching: Option<Fetching>,
    fetch_rests_until: Instant,
    /// When a permit to fetch a table was last asked for in vain.
    fetch_claimed_at: Option<Instant>,
    /// The part that was asked for.
    part_asked: Option<PartAsked>,
    /// Parts that others ask for.
    lending: Vec<(TableAsk, Rc<Lending<E>>)>,
    /// The room on the disk.
    gauge: Gauge,
    /// Why the process has to end, as found between two turns.
    end: Option<RunEnd>,
    /// Whether this node may vote and acknowledge: until then raft hears and says nothing.
    is_entitled: bool,
    is_draining: bool,
    is_shutting_down: bool,
    has_stopped: bool,
    questions: BTreeMap<u64, AnswerSender<CoreStatus>>,
    snapshot_questions: BTreeMap<u64, AnswerSender<SnapshotAnswer>>,
    last_question: u64,
}

impl<E: Env> Runner<E> {
    /// A runner of these lanes, each with the signal of its progress set to the runner's, and these replicas.
    pub fn new(
        env: E,
        config: Config,
        lanes: BTreeMap<LaneId, Lane<E>>,
        starts: Vec<ReplicaStart<E>>,
    ) -> Result<Self, Unreadable> {
        let now = env.now();
        let wake = Signal::default();
        let config = Rc::new(config);
        assert!(
            config.place.core.0 < config.layout.cores,
            "core {} of {}",
            config.place.core,
            config.layout.cores
        );
        for lane in lanes.values() {
            lane.set_signal(wake.clone());
        }
        let cache = BlockCache::new(config.snapshots.cache_bytes_max);
        let mut replicas = BTreeMap::new();
        for start in starts {
            let shard = start.shard;
            let lane = lanes.get(&config.layout.lane_of(shard)).expect("a core's shards lie on its lanes");
            assert!(!replicas.contains_key(&shard), "shard {shard} is started twice");
            let shared = (lane.clone(), Rc::clone(&cache));
            let replica = Replica::new((&config, start), shared, (now, env.random()))?;
            replicas.insert(shard, replica);
        }
        let stages = Stages::default();
        let inner = Inner {
            calls: Calls::new(Rc::clone(&config)),
            directory: Directory::new(config.layout.shards),
            windows: Windows::default(),
            inbox: VecDeque::new(),
            inbox_since: None,
            stages: stages.clone(),
            links: Outbox::new(config.limits.outbox_bytes_max),
            mesh: BTreeMap::new(),
            dirty: replicas.keys().copied().collect(),
            ticked_at: now,
            swept_at: now,
            looks_at: now,
            gauge: Gauge::new(),
            end: None,
            merge_rest: Rc::new(Cell::new(config.snapshots.rest)),
            fetching: None,
            fetch_rests_until: now,
            fetch_claimed_at: None,
            part_asked: None,
            lending: Vec::new(),
            is_entitled: config.is_planted(PlantedBug::WipedNodeVotes),
            is_draining: false,
            is_shutting_down: false,
            has_stopped: false,
            questions: BTreeMap::new(),
            snapshot_questions: BTreeMap::new(),
            last_question: 0,
            config,
            lanes,
            replicas,
        };
        Ok(Self { env, inner: Rc::new(RefCell::new(inner)), wake, outgoing: Signal::default(), stages })
    }

    /// The loop, with the writers of its lanes and its clock beside it. Returns when [`Self::stop`] was
    /// called and the lanes are sealed, or with the first failure of the log.
    pub async fn run(self) -> Result<(), RunEnd> {
        let lanes: Vec<Lane<E>> = self.inner.borrow().lanes.values().cloned().collect();
        let running = Rc::new(Cell::new(lanes.len()));
        for lane in &lanes {
            let (lane, wake, running) = (lane.clone(), self.wake.clone(), Rc::clone(&running));
            self.env.spawn(async move {
                lane.run().await;
                running.set(running.get() - 1);
                wake.raise();
            });
        }
        let (clock, tick) = (self.clone(), self.inner.borrow().config.times.tick);
        self.env.spawn(async move {
            while !clock.inner.borrow().has_stopped {
                clock.env.sleep(tick).await;
                clock.wake.raise();
            }
        });
        self.start_scrub();
        loop {
            self.wake.wait().await;
            let end = self.turn();
            let failure = lanes.iter().find_map(Lane::failed);
            if let Some(end) = failure.map(RunEnd::LogWrite).or(end) {
                self.inner.borrow_mut().has_stopped = true;
                return Err(end);
            }
            if self.inner.borrow().has_stopped && running.get() == 0 {
                return Ok(());
            }
        }
    }

    /// Something arrived for a replica or caller of this core.
    pub fn deliver(&self, parcel: Parcel) {
        let mut inner = self.inner.borrow_mut();
        inner.deliver(parcel);
        inner.note_waiting(|| self.env.now());
        drop(inner);
        self.wake.raise();
        self.outgoing.raise();
    }

    /// Another core of this node says something.
    pub fn deliver_mesh(&self, item: MeshItem) {
        match item {
            MeshItem::Parcel(parcel) => self.deliver(parcel),
            MeshItem::News(news) => {
                self.with_sendings(|inner, moment_now| {
                    let mut out = Vec::new();
                    inner.learn(news, moment_now, &mut out);
                    ((), out)
                });
            }
            MeshItem::StatusAsk { from, number } => {
                let mut inner = self.inner.borrow_mut();
                let status = inner.status();
                inner.push_mesh(from, MeshItem::StatusTold { number, status });
                drop(inner);
                self.outgoing.raise();
            }
            MeshItem::Reserve { from, bytes } => self.reserve_told(from, bytes),
            MeshItem::StatusTold { number, status } => {
                if let Some(question) = self.inner.borrow_mut().questions.remove(&number) {
                    question.send(status);
                }
            }
            MeshItem::SnapshotAsk(ask) => self.deliver_snapshot_ask(ask),
            MeshItem::SnapshotTold { number, answer } => self.deliver_snapshot_told(number, answer),
            MeshItem::TableDamaged { shard, source } => self.table_damaged(shard, source),
        }
    }

    /// The link to a node went down.
    pub fn link_down(&self, node: NodeId) {
        self.enter(Event::LinkDown(node));
    }

    /// Makes a call; the answer comes in time or says why not.
    pub async fn call(&self, shard: ShardId, request: Request, deadline: Instant) -> Outcome {
        let answer = self.start(shard, request, deadline, None);
        answer.await.unwrap_or(Err(Failure::of(FailureKind::OutcomeUnknown)))
    }

    /// Opens a stream of ordered calls.
    #[must_use]
    pub fn pipeline(&self) -> Pipeline<E> {
        let stream = self.inner.borrow_mut().calls.open_stream();
        Pipeline::new(self.clone(), stream)
    }

    pub(crate) fn start(
        &self,
        shard: ShardId,
        request: Request,
        deadline: Instant,
        stream: Option<u64>,
    ) -> AnswerReceiver<Outcome> {
        if self.inner.borrow().is_shutting_down {
            let (sender, receiver) = answer();
            sender.send(Err(Failure::of(FailureKind::ShuttingDown)));
            return receiver;
        }
        self.stages.sample(
            Stage::Route,
            || self.env.now(),
            || {
                self.with_sendings(|inner, now| {
                    let mut out = Vec::new();
                    let Inner { calls, directory, .. } = inner;
                    let moment = Moment { now, directory };
                    let answer = calls.start((shard, request), deadline, stream, &moment, &mut out);
                    (answer, out)
                })
            },
        )
    }

    /// Where the time of this core's requests goes: whoever serves them counts here.
    #[must_use]
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    pub(crate) fn end_stream(&self, stream: u64) {
        self.inner.borrow_mut().calls.end_stream(stream);
    }

    /// Raised when something waits to leave for another core or node.
    #[must_use]
    pub fn outgoing(&self) -> Signal {
        self.outgoing.clone()
    }

    /// The nodes that parcels wait for.
    #[must_use]
    pub fn waiting_links(&self) -> Vec<NodeId> {
        self.inner.borrow().links.waiting().collect()
    }

    /// Takes what waits for a node.
    #[must_use]
    pub fn take_link(&self, node: NodeId) -> VecDeque<Parcel> {
        self.inner.borrow_mut().links.take(node)
    }

    /// The other cores of this node that items wait for.
    #[must_use]
    pub fn waiting_mesh(&self) -> Vec<CoreId> {
        let inner = self.inner.borrow();
        inner.mesh.iter().filter(|(_, items)| !items.is_empty()).map(|(core, _)| *core).collect()
    }

    /// Takes what waits for another core of this node.
    #[must_use]
    pub fn take_mesh(&self, core: CoreId) -> VecDeque<MeshItem> {
        self.inner.borrow_mut().mesh.remove(&core).unwrap_or_default()
    }

    /// From now on this node votes and acknowledges: enough others have noted its directory.
    pub fn entitle(&self) {
        self.inner.borrow_mut().is_entitled = true;
        self.wake.raise();
    }

    /// What is known of who leads a shard.
    #[must_use]
    pub fn known(&self, shard: ShardId) -> Known {
        self.inner.borrow().directory.known(shard)
    }

    /// What is known of every shard.
    #[must_use]
    pub fn directory(&self) -> Vec<(ShardId, Known)> {
        self.inner.borrow().directory.iter().collect()
    }

    /// Grows whenever what is known of a shard changes.
    #[must_use]
    pub fn directory_version(&self) -> u64 {
        self.inner.borrow().directory.version()
    }

    /// Waits until the version is past `seen`.
    pub async fn directory_changed(&self, seen: u64) -> u64 {
        let changed = self.inner.borrow_mut().directory.changed(seen);
        changed.await.unwrap_or(seen)
    }

    /// What every core of this node tells of itself, this one's first.
    pub async fn status(&self) -> Vec<CoreStatus> {
        let answers: Vec<AnswerReceiver<CoreStatus>> = {
            let mut inner = self.inner.borrow_mut();
            let place = inner.config.place;
            let others = (0..inner.config.layout.cores).map(CoreId).filter(|core| *core != place.core);
            others.map(|core| inner.ask_status(core)).collect()
        };
        self.outgoing.raise();
        let mut statuses = vec![self.inner.borrow().status()];
        for answer in answers {
            statuses.extend(answer.await);
        }
        statuses
    }

    /// What this core tells of itself.
    #[must_use]
    pub fn report(&self) -> CoreStatus {
        self.inner.borrow().status()
    }

    /// Calls that have no answer yet.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.inner.borrow().calls.len()
    }

    /// The node is going away: it hands leadership over and takes none. Calls are still carried out,
    /// elsewhere.
    pub fn drain(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.is_draining = true;
        inner.directory.touch();
        for replica in inner.replicas.values_mut() {
            replica.drain();
        }
        drop(inner);
        self.wake.raise();
    }

    /// From now on calls are refused, and so are those that were not sent yet.
    pub fn refuse_calls(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.is_shutting_down = true;
        inner.calls.shut_down();
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.borrow().is_draining
    }

    /// Whether no replica of this core leads others any more.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let inner = self.inner.borrow();
        inner.replicas.values().all(Replica::is_drained)
    }

    /// Seals the lanes and ends the loop.
    pub fn stop(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.has_stopped = true;
        for lane in inner.lanes.values() {
            lane.close();
        }
        drop(inner);
        self.wake.raise();
    }

    /// Takes one turn: everything that has arrived, then the clock, then every replica that changed. Says why
    /// the process has to end, where it has to.
    fn turn(&self) -> Option<RunEnd> {
        let (now, random) = (self.env.now(), self.env.random());
        let mut inner = self.inner.borrow_mut();
        let events = inner.inbox.len() as u64;
        if let Some(since) = inner.inbox_since.take() {
            self.stages.add(Stage::Queue, now.since(since), events);
        }
        let watch = Watch { stages: &self.stages, clock: &|| self.env.now() };
        let mut out = inner.turn(now, random, watch);
        let ended = self.env.now();
        self.stages.add(Stage::Turn, ended.since(now), events);
        inner.note_waiting(|| ended);
        let has_more = inner.has_more();
        let job = inner.due_snapshot(now, random);
        let repair = inner.due_repair(now);
        let asks = std::mem::take(&mut inner.lending);
        let end = inner.end.take().or(out.end.take());
        drop(inner);
        for read in out.reads {
            self.read_log(read);
        }
        for load in out.loads {
            self.read_blocks(load);
        }
        for (ask, lending) in asks {
            self.lend_part(ask, lending);
        }
        for (shard, offer) in out.offers {
            self.fetch_table(shard, offer);
        }
        if let Some((repair, permit)) = repair {
            self.start_fetch(repair, permit);
        }
        if let Some((job, permit)) = job {
            self.env.spawn(snapshot::run(self.env.clone(), self.clone(), job, permit));
        }
        self.look_at_disk(now);
        if has_more {
            self.wake.raise();
        }
        self.outgoing.raise();
        end
    }

    /// Reads entries in a task of their own; they come back as an event.
    fn read_log(&self, read: LogRead) {
        let lane = {
            let inner = self.inner.borrow();
            inner.lanes.get(&inner.config.layout.lane_of(read.shard)).cloned()
        };
        let lane = lane.expect("a replica's lane is on its core");
        let runner = self.clone();
        self.env.spawn(async move {
            let result = lane.read(read.shard, read.first, read.last, read.bytes_max).await;
            let event = Event::LogRead { shard: read.shard, purpose: read.purpose, result };
            runner.enter(event);
        });
    }

    /// Something has happened that the next turn is to take.
    fn enter(&self, event: Event) {
        let mut inner = self.inner.borrow_mut();
        inner.inbox.push_back(event);
        inner.note_waiting(|| self.env.now());
        drop(inner);
        self.wake.raise();
    }

    fn with_sendings<T>(&self, act: impl FnOnce(&mut Inner<E>, Instant) -> (T, Vec<Sending>)) -> T {
        let now = self.env.now();
        let mut inner = self.inner.borrow_mut();
        let (result, out) = act(&mut inner, now);
        inner.route_calls(out);
        inner.note_waiting(|| now);
        drop(inner);
        self.wake.raise();
        self.outgoing.raise();
        result
    }
}

impl<E: Env> Inner<E> {
    fn turn(&mut self, now: Instant, random: u64, watch: Watch<'_>) -> Output {
        let mut out = Output::default();
        let config = Rc::clone(&self.config);
        let mut turn = Turn { config: &config, now, random, out: &mut out, watch: Some(watch) };
        self.take_completions(&mut turn);
        if self.config.read_mode == raft::ReadMode::Lease {
            // A lease counts ticks: those that are owed come before any read rests on it.
            self.take_ticks(&mut turn);
        }
        self.take_inbox(&mut turn);
        self.take_ticks(&mut turn);
        self.drive(&mut turn);
        self.route(&mut out, now);
        out
    }

    /// Notes since when the inbox waits, where it does and that is not noted.
    fn note_waiting(&mut self, now: impl Fn() -> Instant) {
        if !self.inbox.is_empty() && self.inbox_since.is_none() {
            self.inbox_since = Some(now());
        }
    }

    fn has_more(&self) -> bool {
        !self.inbox.is_empty() || !self.dirty.is_empty()
    }

    fn take_completions(&mut self, turn: &mut Turn<'_>) {
        for lane in self.lanes.values() {
            for completed in lane.completions() {
                if let Some(replica) = self.replicas.get_mut(&completed.shard) {
                    replica.persisted(completed.number, turn);
                    self.dirty.push(completed.shard);
                }
            }
        }
    }

    fn take_inbox(&mut self, turn: &mut Turn<'_>) {
        for event in std::mem::take(&mut self.inbox) {
            match event {
                Event::Parcel(parcel) => self.take_parcel(parcel, turn),
                Event::LinkDown(node) => {
                    // Dropped, it tells who waits that no answer will come.
                    self.part_asked = self.part_asked.take().filter(|asked| asked.from != node);
                    let mut sendings = Vec::new();
                    let Self { calls, directory, .. } = self;
                    calls.link_down(node, &Moment { now: turn.now, directory }, &mut sendings);
                    self.route_calls(sendings);
                }
                Event::BlocksRead { shard, waiter, result } => {
                    if let Some(replica) = self.replicas.get_mut(&shard) {
                        replica.blocks_read(waiter, result, turn);
                        self.dirty.push(shard);
                    }
                }
                Event::LogRead { shard, purpose, result } => {
                    if let Some(replica) = self.replicas.get_mut(&shard) {
                        replica.log_read(purpose, result, turn);
                        self.dirty.push(shard);
                    }
                }
            }
        }
    }

    fn take_parcel(&mut self, parcel: Parcel, turn: &mut Turn<'_>) {
        match parcel {
            Parcel::Raft { shard, message } => {
                if let Some(replica) = self.replicas.get_mut(&shard).filter(|_| self.is_entitled) {
                    replica.step(message);
                    self.dirty.push(shard);
                }
            }
            Parcel::Call(call) => self.take_call(call, turn),
            Parcel::TableAsk(ask) => self.take_ask(ask, turn),
            Parcel::Digests(told) => self.take_digests(told, turn),
            Parcel::Rebuild(told) => self.take_rebuild(told, turn),
            Parcel::TablePart(part) => {
                if let Some(asked) = self.part_asked.take_if(|asked| asked.number == part.number) {
                    asked.sender.send(part);
                }
            }
            Parcel::Reply(reply) => {
                let mut sendings = Vec::new();
                let Self { calls, directory, .. } = self;
                calls.reply(reply, &Moment { now: turn.now, directory }, &mut sendings);
                self.route_calls(sendings);
            }
        }
    }

    fn take_call(&mut self, call: Call, turn: &mut Turn<'_>) {
        let is_own = call.id.node == self.config.node() && call.id.core == self.config.core();
        let is_first = is_own || self.windows.admit(&call.id);
        if !is_first && !self.config.is_planted(PlantedBug::RepeatsAdmitted) {
            return;
        }
        if let Some(replica) = self.replicas.get_mut(&call.shard) {
            self.dirty.push(call.shard);
            replica.call(call, turn);
        }
    }

    fn take_ticks(&mut self, turn: &mut Turn<'_>) {
        let tick_us = u64::try_from(self.config.times.tick.as_micros()).expect("a tick is short").max(1);
        assert!(
            turn.now >= self.ticked_at,
            "the clock went back from {:?} to {:?}",
            self.ticked_at,
            turn.now
        );
        let ticks = (turn.now.0 - self.ticked_at.0) / tick_us;
        if ticks == 0 {
            return;
        }
        self.ticked_at = Instant(self.ticked_at.0 + ticks * tick_us);
        let ticks = ticks.min(self.ticks_at_once_max());
        if self.is_entitled {
            for replica in self.replicas.values_mut() {
                for _ in 0..ticks {
                    turn.random = turn.random.rotate_left(7).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    replica.tick(turn);
                }
            }
            self.dirty.extend(self.replicas.keys());
        }
        let mut sendings = Vec::new();
        let Self { calls, directory, .. } = self;
        calls.tick(&Moment { now: turn.now, directory }, &mut sendings);
        self.route_calls(sendings);
        self.sweep(turn);
    }

    /// The most ticks that are counted at once. A process that was stopped for a while finds what its peers
    /// said meanwhile in its sockets: it hears them before it takes them for silent, so half an election
    /// timeout is all that a stop counts. A lease must not take a stop for shorter than it was.
    fn ticks_at_once_max(&self) -> u64 {
        let election = u64::from(self.config.times.election_ticks);
        match self.config.read_mode {
            raft::ReadMode::ReadIndex => (election / 2).max(1),
            raft::ReadMode::Lease => election * 4,
        }
    }

    /// Forgets, once a second, what nobody waits for any more.
    fn sweep(&mut self, turn: &Turn<'_>) {
        const EVERY: std::time::Duration = std::time::Duration::from_secs(1);
        if turn.now.since(self.swept_at) < EVERY {
            return;
        }
        self.swept_at = turn.now;
        for replica in self.replicas.values_mut() {
            replica.forget_late_waiters(turn);
            replica.streams.forget_idle(turn.now);
            replica.forget_lent(turn.now);
        }
        // Dropped, it tells who waits that no answer came.
        self.part_asked = self.part_asked.take().filter(|asked| turn.now.since(asked.at) < PART_WAIT_MAX);
    }

    fn drive(&mut self, turn: &mut Turn<'_>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for shard in dirty {
            let Some(replica) = self.replicas.get_mut(&shard) else { continue };
            replica.drive(turn);
            if replica.has_more_to_apply(turn.config) {
                self.dirty.push(shard);
            }
        }
    }
}
