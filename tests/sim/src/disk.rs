//! A disk that outlives the process that writes it: page cache, torn writes, and everything that disks do
//! wrong.
//!
//! An operation is submitted, is in flight for as long as [`Latencies`] say, and completes; its effect
//! happens when it completes. What a crash finds in flight is up to [`Choices`]:
//!
//! | | process crash | power cut |
//! |---|---|---|
//! | completed, durable or synced | stays | stays |
//! | completed, not synced | stays, still not synced | sector by sector: lost, any version kept, or torn |
//! | a change of a directory, not synced | stays, still not synced | each kept or lost, those kept in order |
//! | a write in flight | lands later, never, or in part now, cached | sector by sector, as above |
//! | another change in flight | happens or not, cached | happens or not, then as above |
//!
//! Invariants:
//! - What was synced, or written durably and returned, survives everything but what `damage` does.
//! - A sync covers what had completed when it was submitted, nothing later.
//! - An operation of a group that has ended never returns.
//! - Two writes of one life are never in flight on the same bytes, and no write of a living task is dropped
//!   in flight: both are asserted, since no code above may do it.
//!
//! It deliberately has no model of bandwidth or queue depth, and completes operations in any order that their
//! latencies give.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use distribkv::env::BLOCK_BYTES;
use distribkv::ids::NodeId;

use crate::executor::{Group, WorldHandle};
use crate::random::Choices;

mod action;
mod contents;
mod damage;
mod fate;
mod faults;
mod names;
mod open_file;
mod settings;
mod state;

pub use contents::SECTOR_BYTES;
pub use damage::Stray;
pub use fate::Tearing;
pub use faults::{Fault, Stall};
pub(crate) use open_file::OpenFile;
pub use settings::{DiskConfig, FailedSync, Kind, Latencies, Latency};

use action::{Action, Answer, Through};
use fate::Fates;
use faults::Faults;
use state::State;

/// Operations that may be in flight on one disk.
const FLIGHTS_MAX: usize = 1 << 14;

/// No such file or directory.
pub const ENOENT: i32 = 2;
/// Input or output error.
pub const EIO: i32 = 5;
/// The file exists.
pub const EEXIST: i32 = 17;
/// A rename into another directory.
pub const EXDEV: i32 = 18;
/// Not a directory.
pub const ENOTDIR: i32 = 20;
/// A directory.
pub const EISDIR: i32 = 21;
/// No space left on the disk.
pub const ENOSPC: i32 = 28;

/// An error as the operating system numbers it, so that whoever sorts errors by number sees what production
/// sees.
fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// How a node's machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: what is in the page cache stays there.
    Process,
    /// The power fails: what was not synced is lost, kept or torn.
    Power,
}

/// A disk. Cloning is cheap: a handle to the same one.
#[derive(Clone)]
pub struct Disk {
    inner: Rc<Inner>,
}

/// What all handles of a disk share.
struct Inner {
    world: WorldHandle,
    node: NodeId,
    choices: Choices,
    state: RefCell<State>,
}

/// An operation in flight.
struct Flight {
    group: Group,
    action: Action,
    error: Option<i32>,
    stray: Option<Stray>,
    waiter: Weak<Waiter>,
}

/// Where the answer of an operation is left for the task that waits for it.
#[derive(Default)]
struct Waiter {
    result: RefCell<Option<io::Result<Answer>>>,
    waker: RefCell<Option<Waker>>,
}

/// What a harness does with a disk.
impl Disk {
    /// An empty disk of a node. `choices` decide what crashes leave.
    #[must_use]
    pub fn new(world: &WorldHandle, node: NodeId, config: DiskConfig, choices: Choices) -> Self {
        let random = world.random(0x6469_736b_0000_0000 | u64::from(node.0));
        let state = State::new(config, random);
        Self { inner: Rc::new(Inner { world: world.clone(), node, choices, state: RefCell::new(state) }) }
    }

    /// Makes a directory and its parents durable at once, for a run to begin with.
    pub fn prepare_dir(&self, path: &Path) {
        let mut state = self.inner.state.borrow_mut();
        let made = state.tree.create_directories(0, path);
        assert!(made.is_ok(), "{} cannot be made: {made:?}", path.display());
        state.tree.settle_names();
    }

    /// Stops the node in this way: its tasks are dropped, and the disk settles what was in flight.
    pub fn crash(&self, crash: Crash) {
        let group = self.inner.world.group_of(self.inner.node);
        self.inner.world.crash(self.inner.node);
        self.inner.world.note("disk crash", &[u64::from(self.inner.node.0), crash as u64]);
        match (crash, group) {
            (Crash::Process, Some(group)) => self.settle_process_crash(group),
            (Crash::Process, None) => {}
            (Crash::Power, _) => self.settle_power_cut(),
        }
    }

    /// How many points an await of the disk has passed: two for each operation, after it was submitted and
    /// before it returns.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.inner.state.borrow().points
    }

    /// Crashes the node when so many points have been passed, counted from the disk's beginning.
    pub fn crash_at(&self, point: u64, crash: Crash) {
        let mut state = self.inner.state.borrow_mut();
        assert!(point > state.points, "point {point} has passed, {} have", state.points);
        state.crash_at = Some((point, crash));
    }

    /// Changes the settings: latencies, capacity and so on.
    pub fn configure(&self, change: impl FnOnce(&mut DiskConfig)) {
        change(&mut self.inner.state.borrow_mut().config);
    }

    /// Makes operations fail; see [`Fault`].
    pub fn fail(&self, fault: Fault) {
        self.inner.state.borrow_mut().faults.add(fault);
    }

    /// Forgets every fault that was set.
    pub fn heal(&self) {
        self.inner.state.borrow_mut().faults = Faults::default();
        self.stall(Stall::Nothing);
    }

    /// Stalls the disk, or releases it: what was held completes at once.
    pub fn stall(&self, stall: Stall) {
        let released = {
            let mut state = self.inner.state.borrow_mut();
            state.faults.stall = stall;
            std::mem::take(&mut state.held)
        };
        self.inner.world.note("disk stall", &[u64::from(self.inner.node.0), stall as u64]);
        for number in released {
            self.complete(number);
        }
    }

    /// The files of a directory as they are now, whatever is in flight: name and bytes.
    #[must_use]
    pub fn files(&self, dir: &Path) -> Vec<(String, Vec<u8>)> {
        let state = self.inner.state.borrow();
        let names = state.tree.list(dir).unwrap_or_default();
        let files = names.into_iter().filter_map(|name| {
            let inode = state.tree.find_file(&dir.join(&name)).ok()?;
            let contents = state.tree.file(inode);
            let len = usize::try_from(contents.len()).ok()?;
            Some((name, contents.read(0, len)))
        });
        files.collect()
    }

    /// The names in a directory as they are now, whatever is in flight; `None` where there is no such
    /// directory.
    #[must_use]
    pub fn names(&self, dir: &Path) -> Option<Vec<String>> {
        self.inner.state.borrow().tree.list(dir).ok()
    }

    /// The bytes of a file as they are now, whatever is in flight; `None` where there is no such file.
    #[must_use]
    pub fn contents(&self, file: &Path) -> Option<Vec<u8>> {
        let state = self.inner.state.borrow();
        let contents = state.tree.file(state.tree.find_file(file).ok()?);
        Some(contents.read(0, usize::try_from(contents.len()).ok()?))
    }

    /// Bytes that all files take, and bytes that a power cut could lose.
    #[must_use]
    pub fn bytes_used_and_cached(&self) -> (u64, u64) {
        let state = self.inner.state.borrow();
        (state.tree.bytes_used(BLOCK_BYTES as u64), state.tree.cached_bytes())
    }

    /// Bytes that files may yet take.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let (used, _) = self.bytes_used_and_cached();
        self.inner.state.borrow().config.capacity_bytes.saturating_sub(used)
    }

    /// Operations submitted so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.inner.state.borrow().operations
    }
}

/// Crashes.
impl Disk {
    /// What was in flight of a killed process lands or does not, now or some milliseconds later.
    fn settle_process_crash(&self, group: Group) {
        let choices = &self.inner.choices;
        let flights = self.take_flights(|flight| flight.group == group);
        let mut state = self.inner.state.borrow_mut();
        let tear_sectors = state.config.tear_sectors;
        for mut flight in flights.into_values() {
            let Action::Write { inode, pos, data, .. } = flight.action.clone() else {
                if flight.error.is_none() && flight.action.is_change() && choices.choose(2) == 1 {
                    // Whether it would have worked is nobody's business any more.
                    let _ = state.perform(&flight.action);
                }
                continue;
            };
            // Lands whole some time later; never; in part now and the rest later; in part, and never the
            // rest.
            let decided = choices.choose(4);
            if decided >= 2 {
                let mut fates = Fates::new(choices, Tearing::Sectors, tear_sectors);
                state.write_in_part(inode, pos, &data, &mut fates);
            }
            if decided.is_multiple_of(2) && flight.error.is_none() {
                // It was never acknowledged, so nothing says that it went further than a cache.
                flight.action = Action::Write { inode, pos, data, through: Through::Cache };
                flight.stray = None;
                let late = Duration::from_micros(choices.up_to(state.config.late_us_max));
                // Under a number of its own: the timer of its first life still fires, and finds nothing.
                state.operations += 1;
                let number = state.operations;
                state.flights.insert(number, flight);
                self.complete_after(late, number);
            }
        }
        state.open.clear();
        state.collect();
    }

    /// What was cached or in flight is lost, kept or torn.
    fn settle_power_cut(&self) {
        let choices = &self.inner.choices;
        let flights = self.take_flights(|_| true);
        let mut state = self.inner.state.borrow_mut();
        let state = &mut *state;
        let mut fates = Fates::new(choices, state.config.tearing, state.config.tear_sectors);
        for flight in flights.into_values() {
            // Cached first, all of it: the power cut below decides what stays.
            if let Action::Write { inode, pos, data, .. } = &flight.action {
                state.sequence += 1;
                state.tree.file_mut(*inode).write_cached(state.sequence, *pos, data);
            } else if flight.action.is_change() && flight.error.is_none() {
                // Whether it would have worked is nobody's business any more.
                let _ = state.perform(&flight.action);
            }
        }
        state.open.clear();
        state.held.clear();
        state.tree.power_cut(&mut fates);
    }

    /// Takes out the operations in flight that a crash ends.
    fn take_flights(&self, of: impl Fn(&Flight) -> bool) -> BTreeMap<u64, Flight> {
        let mut state = self.inner.state.borrow_mut();
        let (taken, left) =
            std::mem::take(&mut state.flights).into_iter().partition(|(_, flight)| of(flight));
        state.flights = left;
        taken
    }
}

/// Operations.
impl Disk {
    /// Submits an operation and waits for its answer. In a group that has ended it never returns.
    async fn operate(&self, group: Group, action: Action) -> io::Result<Answer> {
        if !self.inner.world.is_alive(group) {
            return pending().await;
        }
        let operation = self.submit(group, action);
        self.pass_point();
        let result = operation.await;
        self.pass_point();
        if !self.inner.world.is_alive(group) {
            return pending().await;
        }
        result
    }

    /// Puts an operation in flight: from here on it may take effect, whatever becomes of whoever waits for
    /// it.
    fn submit(&self, group: Group, action: Action) -> InFlight {
        let kind = action.kind();
        let waiter = Rc::new(Waiter::default());
        let (number, latency) = {
            let mut state = self.inner.state.borrow_mut();
            let state = &mut *state;
            state.assert_alone(group, &action);
            state.operations += 1;
            assert!(state.flights.len() < FLIGHTS_MAX, "more than {FLIGHTS_MAX} operations in flight");
            let error = state.faults.error(kind, &mut state.random);
            let stray = state.faults.stray(kind);
            let latency = state.config.latencies.of(kind).draw(&mut state.random);
            let flight = Flight { group, action, error, stray, waiter: Rc::downgrade(&waiter) };
            let [first, second, third] = flight.action.numbers();
            let node = u64::from(self.inner.node.0);
            self.inner.world.note("disk", &[node, state.operations, kind as u64, first, second, third]);
            state.flights.insert(state.operations, flight);
            (state.operations, latency)
        };
        self.complete_after(latency, number);
        InFlight { disk: self.clone(), group, number, kind, waiter }
    }

    /// Counts a point where a crash may come, and crashes where it is to.
    fn pass_point(&self) {
        let crash = {
            let mut state = self.inner.state.borrow_mut();
            state.points += 1;
            let now = state.crash_at.filter(|&(point, _)| point == state.points);
            now.map(|(_, crash)| crash)
        };
        if let Some(crash) = crash {
            self.crash(crash);
        }
    }

    /// Lets an operation complete after a while, unless a crash has taken it out by then.
    fn complete_after(&self, duration: Duration, number: u64) {
        let disk = self.clone();
        self.inner.world.after(duration, move || disk.complete(number));
    }

    /// The moment of an operation: its effect happens, or its error, and its task is woken.
    fn complete(&self, number: u64) {
        let mut state = self.inner.state.borrow_mut();
        let Some(flight) = state.flights.remove(&number) else {
            return;
        };
        if state.faults.stall.holds(flight.action.kind()) {
            state.held.push(number);
            state.flights.insert(number, flight);
            return;
        }
        let result = match (flight.error, flight.stray) {
            (None, None) => state.perform(&flight.action),
            (None, Some(stray)) => state.go_astray(&flight.action, stray),
            (Some(error), _) => {
                state.fail(&flight.action, &self.inner.choices);
                Err(os_error(error))
            }
        };
        let code = result.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(0);
        drop(state);
        let node = u64::from(self.inner.node.0);
        self.inner.world.note("disk done", &[node, number, u64::from(code.unsigned_abs())]);
        if let Some(waiter) = flight.waiter.upgrade() {
            *waiter.result.borrow_mut() = Some(result);
            if let Some(waker) = waiter.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

/// The future of an operation.
struct InFlight {
    disk: Disk,
    group: Group,
    number: u64,
    kind: Kind,
    waiter: Rc<Waiter>,
}

impl Future for InFlight {
    type Output = io::Result<Answer>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.waiter.result.borrow_mut().take() {
            return Poll::Ready(result);
        }
        *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let in_flight = self.disk.inner.state.borrow().flights.contains_key(&self.number);
        let dropped = in_flight && self.kind == Kind::Write && self.disk.inner.world.is_alive(self.group);
        assert!(!dropped || std::thread::panicking(), "write {} is dropped in flight", self.number);
    }
}

#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;
