//! Tasks, timers, clocks and process crashes of a whole world of nodes, in one thread and in virtual time.
//!
//! A task belongs to a [`Group`]: one life of one node's process. A step polls one task that can run (picked
//! by the seed, or the oldest), or fires one timer; where no task can run, time leaps to the next timer. A
//! crash drops all tasks of the group at once, from wherever it is called: the task that is being polled is
//! dropped when its poll returns.
//!
//! Invariants:
//! - World time never goes back, nor does the clock of a node within one life.
//! - A task of a dead group is never polled again, and nothing can be spawned into a dead group.
//! - No borrow of the world is held while foreign code runs: a poll, a drop of a task, an event.
//! - A timer never fires before its node's own clock has reached it.
//!
//! It deliberately does not let time pass while a task runs, but by [`WorldConfig::clock_read_us`]: where all
//! cores compute at once on real machines, here each does so in no time.
//!
//! [`World`] owns everything; tasks, disks and networks hold [`WorldHandle`]s, and dropping the world ends
//! them all.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use distribkv::env::Instant;
use distribkv::ids::NodeId;

use crate::random::Random;
use crate::trace::Trace;

mod clock;
mod settings;
mod task;

pub use clock::WorldTime;
pub use settings::{Order, Step, Stop, WorldConfig};

use clock::{Clock, DRIFT_PPM_MAX, micros};
use task::{Ready, Task, TaskFuture, TaskId, TaskWaker, Tasks};

/// Tasks that one world may hold: more are a leak of the code under test.
const TASKS_MAX: usize = 1 << 20;

/// One life of one node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// The node.
    pub node: NodeId,
    /// Which of its lives, counted from 1.
    pub incarnation: u64,
}

/// A world of nodes. It owns all tasks and timers; dropping it drops them.
pub struct World {
    handle: WorldHandle,
}

impl World {
    /// An empty world at time zero.
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        let random = Random::new(config.seed);
        let inner = Inner {
            time: Cell::new(WorldTime(0)),
            steps: Cell::new(0),
            steps_at_once: Cell::new(0),
            tasks: RefCell::new(Tasks::default()),
            ready: Ready::default(),
            timers: RefCell::new(Timers::default()),
            nodes: RefCell::new(BTreeMap::new()),
            order_random: RefCell::new(random.fork(1)),
            clock_random: RefCell::new(random.fork(2)),
            random,
            trace: Trace::new(config.text),
            config,
        };
        Self { handle: WorldHandle { inner: Rc::new(inner) } }
    }

    /// A handle, for whatever lives in the world.
    #[must_use]
    pub fn handle(&self) -> WorldHandle {
        self.handle.clone()
    }
}

impl Deref for World {
    type Target = WorldHandle;

    fn deref(&self) -> &WorldHandle {
        &self.handle
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let nodes: Vec<NodeId> = self.handle.inner.nodes.borrow().keys().copied().collect();
        for node in nodes {
            self.handle.crash(node);
        }
        // Events hold handles to the world: they go, or the world would never be freed.
        let timers = std::mem::take(&mut *self.handle.inner.timers.borrow_mut());
        drop(timers);
    }
}

/// A handle to a [`World`]. Cloning is cheap.
#[derive(Clone)]
pub struct WorldHandle {
    inner: Rc<Inner>,
}

/// What all handles of a world share. Each part has its own cell, so that one can change while another is
/// looked at.
struct Inner {
    config: WorldConfig,
    time: Cell<WorldTime>,
    steps: Cell<u64>,
    steps_at_once: Cell<u64>,
    tasks: RefCell<Tasks>,
    ready: Ready,
    timers: RefCell<Timers>,
    nodes: RefCell<BTreeMap<NodeId, Node>>,
    random: Random,
    order_random: RefCell<Random>,
    clock_random: RefCell<Random>,
    trace: Trace,
}

/// What the world knows of a node.
#[derive(Default)]
struct Node {
    incarnation: u64,
    life: Life,
    motion: Motion,
    clock: Clock,
    /// Woken while the node was paused.
    parked: Vec<TaskId>,
    polls: u64,
}

/// Whether a node has a process.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Ended,
    Running,
}

/// Whether the tasks of a node run.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Motion {
    #[default]
    Moving,
    Paused,
}

/// A timer's place: when, and after which others of the same time.
type TimerKey = (WorldTime, u64);

/// All timers, the next one first; those of the same time in the order of their making.
#[derive(Default)]
struct Timers {
    last: u64,
    by_key: BTreeMap<TimerKey, Timer>,
}

/// What happens when its time comes.
enum Timer {
    Sleep { group: Group, deadline: Instant, state: Rc<SleepState> },
    Event(Box<dyn FnOnce()>),
}

/// What a sleeping task and its timer share.
#[derive(Default)]
struct SleepState {
    fired: Cell<bool>,
    key: Cell<Option<TimerKey>>,
    waker: RefCell<Option<Waker>>,
}

impl WorldHandle {
    /// World time.
    #[must_use]
    pub fn time(&self) -> WorldTime {
        self.inner.time.get()
    }

    /// The trace of this run.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.inner.trace
    }

    /// Notes an event in the trace, at world time.
    pub fn note(&self, kind: &str, numbers: &[u64]) {
        self.inner.trace.event(self.time().0, kind, numbers);
    }

    /// A source of random numbers of the seed and a label. Labels below 16 are the world's own.
    #[must_use]
    pub fn random(&self, label: u64) -> Random {
        self.inner.random.fork(label)
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.inner.steps.get()
    }

    /// Polls of tasks of a node so far: a place to crash it at is a number of polls.
    #[must_use]
    pub fn polls(&self, node: NodeId) -> u64 {
        self.inner.nodes.borrow().get(&node).map_or(0, |node| node.polls)
    }
}

/// Processes of nodes.
impl WorldHandle {
    /// Starts a node's process: a new life, without tasks. Its clock starts anywhere.
    pub fn start(&self, node: NodeId) -> Group {
        let mut nodes = self.inner.nodes.borrow_mut();
        let state = nodes.entry(node).or_default();
        assert!(state.life == Life::Ended, "node {node} is running in life {}", state.incarnation);
        state.incarnation += 1;
        state.life = Life::Running;
        state.motion = Motion::Moving;
        state.clock.local_at = self.inner.clock_random.borrow_mut().below(1 << 32);
        state.clock.world_at = self.time();
        let group = Group { node, incarnation: state.incarnation };
        drop(nodes);
        self.note("start", &[u64::from(node.0), group.incarnation]);
        group
    }

    /// Ends a node's process at once: all its tasks are dropped, its timers are gone. Nothing where it has
    /// ended before.
    pub fn crash(&self, node: NodeId) {
        let group = {
            let mut nodes = self.inner.nodes.borrow_mut();
            match nodes.get_mut(&node) {
                Some(state) if state.life == Life::Running => {
                    state.life = Life::Ended;
                    state.parked.clear();
                    Group { node, incarnation: state.incarnation }
                }
                Some(_) | None => return,
            }
        };
        self.note("crash", &[u64::from(node.0), group.incarnation]);
        let dropped = self.take_tasks(group);
        self.inner.timers.borrow_mut().by_key.retain(|_, timer| match timer {
            Timer::Sleep { group: of, .. } => *of != group,
            Timer::Event(_) => true,
        });
        // What their destructors do finds the group ended and the world unborrowed.
        drop(dropped);
    }

    /// Takes the tasks of a life out of the world, to be dropped where nothing is borrowed.
    fn take_tasks(&self, group: Group) -> Vec<Task> {
        let mut tasks = self.inner.tasks.borrow_mut();
        let ids: Vec<TaskId> =
            tasks.by_id.iter().filter(|(_, task)| task.group == group).map(|(&id, _)| id).collect();
        ids.iter().filter_map(|id| tasks.by_id.remove(id)).collect()
    }

    /// Whether this life of the node goes on.
    #[must_use]
    pub fn is_alive(&self, group: Group) -> bool {
        self.group_of(group.node) == Some(group)
    }

    /// The life that a node is in, `None` where its process has ended.
    #[must_use]
    pub fn group_of(&self, node: NodeId) -> Option<Group> {
        let nodes = self.inner.nodes.borrow();
        let state = nodes.get(&node)?;
        (state.life == Life::Running).then_some(Group { node, incarnation: state.incarnation })
    }

    /// Pauses a node: its tasks do not run, its clock goes on.
    pub fn pause(&self, node: NodeId) {
        self.node_mut(node, |state| state.motion = Motion::Paused);
        self.note("pause", &[u64::from(node.0)]);
    }

    /// Lets a paused node run on. What its timers missed, they do late.
    pub fn resume(&self, node: NodeId) {
        let parked = self.node_mut(node, |state| {
            state.motion = Motion::Moving;
            std::mem::take(&mut state.parked)
        });
        self.inner.ready.lock().extend(parked);
        self.note("resume", &[u64::from(node.0)]);
    }

    /// Changes what is known of a node.
    fn node_mut<T>(&self, node: NodeId, change: impl FnOnce(&mut Node) -> T) -> T {
        let mut nodes = self.inner.nodes.borrow_mut();
        change(nodes.entry(node).or_default())
    }
}

/// Clocks of nodes.
impl WorldHandle {
    /// What a node's clock shows.
    #[must_use]
    pub fn clock(&self, node: NodeId) -> Instant {
        let clock = self.inner.nodes.borrow().get(&node).map(|state| state.clock);
        clock.unwrap_or_default().local(self.time())
    }

    /// What a node's clock shows to a task that reads it, which may take time.
    #[must_use]
    pub fn read_clock(&self, node: NodeId) -> Instant {
        let shown = self.clock(node);
        self.advance(WorldTime(self.time().0 + self.inner.config.clock_read_us));
        shown
    }

    /// Makes a node's clock run faster (or, below zero, slower) by so many millionths, from here on.
    pub fn set_drift(&self, node: NodeId, drift_ppm: i32) {
        assert!(drift_ppm.abs() <= DRIFT_PPM_MAX, "a drift of {drift_ppm} ppm is beyond {DRIFT_PPM_MAX}");
        self.redraw_clock(node, |clock| clock.drift_ppm = drift_ppm);
        self.note("drift", &[u64::from(node.0), u64::from(drift_ppm.unsigned_abs())]);
    }

    /// Makes a node's clock jump forward; timers whose time it jumps over fire at once.
    pub fn jump(&self, node: NodeId, by: Duration) {
        self.redraw_clock(node, |clock| clock.local_at = clock.local_at.saturating_add(micros(by)));
        self.note("jump", &[u64::from(node.0), micros(by)]);
    }

    /// Changes a clock from here on, and moves the timers of its node to where they are due then.
    fn redraw_clock(&self, node: NodeId, change: impl FnOnce(&mut Clock)) {
        let time = self.time();
        let clock = self.node_mut(node, |state| {
            state.clock.local_at = state.clock.local(time).0;
            state.clock.world_at = time;
            change(&mut state.clock);
            state.clock
        });
        let mut timers = self.inner.timers.borrow_mut();
        for (old, timer) in std::mem::take(&mut timers.by_key) {
            let key = match &timer {
                Timer::Sleep { group, deadline, state } if group.node == node => {
                    let key = (clock.world(*deadline, time), old.1);
                    state.key.set(Some(key));
                    key
                }
                Timer::Sleep { .. } | Timer::Event(_) => old,
            };
            timers.by_key.insert(key, timer);
        }
    }
}

/// Tasks and timers.
impl WorldHandle {
    /// Runs a task in a group. In a group that has ended, the task is dropped.
    pub fn spawn(&self, group: Group, task: impl Future<Output = ()> + 'static) {
        if !self.is_alive(group) {
            return;
        }
        let mut tasks = self.inner.tasks.borrow_mut();
        assert!(tasks.by_id.len() < TASKS_MAX, "more than {TASKS_MAX} tasks at {:?}", self.time());
        tasks.last += 1;
        let id = TaskId(tasks.last);
        let waker =
            Arc::new(TaskWaker { id, queued: AtomicBool::new(true), ready: self.inner.ready.clone() });
        tasks.by_id.insert(id, Task { group, future: Some(Box::pin(task)), waker });
        self.inner.ready.lock().push_back(id);
    }

    /// Waits until the group's clock has gone on by `duration`. In a group that has ended it never returns.
    #[must_use]
    pub fn sleep(&self, group: Group, duration: Duration) -> Sleep {
        let state = Rc::new(SleepState::default());
        if self.is_alive(group) {
            let deadline = self.clock(group.node) + duration;
            let clock = self.inner.nodes.borrow().get(&group.node).map(|node| node.clock).unwrap_or_default();
            let late = self.inner.clock_random.borrow_mut().between(0, self.inner.config.timer_late_us_max);
            let at = clock.world(deadline, self.time()) + Duration::from_micros(late);
            let timer = Timer::Sleep { group, deadline, state: Rc::clone(&state) };
            state.key.set(Some(self.add_timer(at, timer)));
        }
        Sleep { world: self.clone(), state }
    }

    /// Makes something happen after a while of world time, whatever becomes of any node.
    pub fn after(&self, duration: Duration, event: impl FnOnce() + 'static) {
        self.add_timer(self.time() + duration, Timer::Event(Box::new(event)));
    }

    /// Adds a timer behind all of the same time.
    fn add_timer(&self, at: WorldTime, timer: Timer) -> TimerKey {
        let mut timers = self.inner.timers.borrow_mut();
        timers.last += 1;
        let key = (at, timers.last);
        timers.by_key.insert(key, timer);
        key
    }
}

/// Running.
impl WorldHandle {
    /// Does one thing: fires a timer that is due, else polls a task that can run, else leaps to the next
    /// timer.
    pub fn step(&self) -> Step {
        self.inner.steps.set(self.inner.steps.get() + 1);
        self.inner.steps_at_once.set(self.inner.steps_at_once.get() + 1);
        let next = self.next_timer();
        if next.is_some_and(|at| at <= self.time()) {
            return self.fire();
        }
        if let Some(id) = self.pick_ready() {
            return self.poll(id);
        }
        match next {
            Some(at) => {
                self.advance(at);
                self.fire()
            }
            None => Step::Quiescent,
        }
    }

    /// Steps until a condition holds, asked after each step, or until the time is up.
    pub fn run_until(&self, deadline: WorldTime, mut holds: impl FnMut() -> bool) -> Stop {
        loop {
            if holds() {
                return Stop::Reached;
            }
            if self.inner.steps_at_once.get() > self.inner.config.steps_at_once_max {
                return Stop::Livelock;
            }
            let idle = self.inner.ready.lock().is_empty();
            let later = self.next_timer().is_none_or(|at| at > deadline);
            if self.time() > deadline || (idle && later && self.next_timer().is_some()) {
                self.advance(deadline.max(self.time()));
                return Stop::TimedOut;
            }
            if self.step() == Step::Quiescent {
                return Stop::Quiescent;
            }
        }
    }

    /// Steps for a while, which passes even where nothing happens any more.
    pub fn run_for(&self, duration: Duration) -> Stop {
        let deadline = self.time() + duration;
        let stop = self.run_until(deadline, || false);
        if stop == Stop::Quiescent {
            self.advance(deadline.max(self.time()));
        }
        stop
    }

    /// Runs a task in a group and steps until it ends, at most for a while.
    ///
    /// # Errors
    /// Why it did not end.
    pub fn run<T: 'static>(
        &self,
        group: Group,
        at_most: Duration,
        task: impl Future<Output = T> + 'static,
    ) -> Result<T, Stop> {
        let slot = Rc::new(RefCell::new(None));
        let filled = Rc::clone(&slot);
        self.spawn(group, async move {
            let value = task.await;
            *filled.borrow_mut() = Some(value);
        });
        let stop = self.run_until(self.time() + at_most, || slot.borrow().is_some() || !self.is_alive(group));
        let value = slot.borrow_mut().take();
        match value {
            Some(value) => Ok(value),
            None if self.is_alive(group) => Err(stop),
            None => Err(Stop::Crashed),
        }
    }

    /// When the next timer is due.
    fn next_timer(&self) -> Option<WorldTime> {
        self.inner.timers.borrow().by_key.keys().next().map(|key| key.0)
    }

    /// Lets world time go on; whatever it passes fires with the next steps.
    fn advance(&self, to: WorldTime) {
        assert!(to >= self.time(), "world time goes back from {:?} to {to:?}", self.time());
        if to > self.time() {
            self.inner.time.set(to);
            self.inner.steps_at_once.set(0);
        }
    }

    /// Fires the first timer.
    fn fire(&self) -> Step {
        let Some((key, timer)) = self.inner.timers.borrow_mut().by_key.pop_first() else {
            return Step::Quiescent;
        };
        assert!(key.0 <= self.time(), "a timer of {:?} fires at {:?}", key.0, self.time());
        match timer {
            Timer::Event(event) => event(),
            Timer::Sleep { group, deadline, state } => {
                let clock = self.clock(group.node);
                assert!(
                    clock >= deadline,
                    "a sleep to {deadline:?} ends at {clock:?} of node {}",
                    group.node
                );
                state.fire();
            }
        }
        Step::Fired
    }

    /// Takes the next task out of those that were woken.
    fn pick_ready(&self) -> Option<TaskId> {
        let mut ready = self.inner.ready.lock();
        match self.inner.config.order {
            Order::Fifo => ready.pop_front(),
            Order::Random if ready.is_empty() => None,
            Order::Random => {
                let picked = self.inner.order_random.borrow_mut().index(ready.len());
                ready.swap_remove_back(picked)
            }
        }
    }

    /// Polls a task, with nothing borrowed, and keeps or drops it.
    fn poll(&self, id: TaskId) -> Step {
        let Some((group, mut future, waker)) = self.take_to_poll(id) else {
            return Step::Skipped;
        };
        self.note("poll", &[id.0, u64::from(group.node.0)]);
        waker.queued.store(false, Ordering::Relaxed);
        let shared = Waker::from(Arc::clone(&waker));
        let result = future.as_mut().poll(&mut Context::from_waker(&shared));
        let ended = {
            let mut tasks = self.inner.tasks.borrow_mut();
            match (result, tasks.by_id.get_mut(&id)) {
                (Poll::Pending, Some(task)) => {
                    task.future = Some(future);
                    None
                }
                // It returned, or its group ended meanwhile.
                (Poll::Ready(()), Some(_)) | (_, None) => Some((tasks.by_id.remove(&id), future)),
            }
        };
        drop(ended);
        Step::Polled(group)
    }

    /// The task's future, unless it has ended or its node is paused.
    fn take_to_poll(&self, id: TaskId) -> Option<(Group, TaskFuture, Arc<TaskWaker>)> {
        let mut tasks = self.inner.tasks.borrow_mut();
        let task = tasks.by_id.get_mut(&id)?;
        let mut nodes = self.inner.nodes.borrow_mut();
        let node = nodes.get_mut(&task.group.node)?;
        if node.motion == Motion::Paused {
            node.parked.push(id);
            return None;
        }
        node.polls += 1;
        let future = task.future.take()?;
        Some((task.group, future, Arc::clone(&task.waker)))
    }
}

impl SleepState {
    /// Lets the sleeper go on.
    fn fire(&self) {
        self.fired.set(true);
        self.key.set(None);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Waits for a node's clock; see [`WorldHandle::sleep`].
pub struct Sleep {
    world: WorldHandle,
    state: Rc<SleepState>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.state.fired.get() {
            return Poll::Ready(());
        }
        *self.state.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.state.key.take() {
            let timer = self.world.inner.timers.borrow_mut().by_key.remove(&key);
            drop(timer);
        }
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
