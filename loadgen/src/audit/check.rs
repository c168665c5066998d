//! The check of a history: each key by itself, then each shard, then what there is in the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::event::{Asked, Event, History, NEVER_NS, Place, Told};
use crate::audit::keycheck;
use crate::audit::order::{Point, broken};

/// Most faults that are kept; the others are counted.
const FAULTS_MAX: usize = 1000;

/// A wrong answer, or two answers that cannot both be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The key that it is about.
    pub key: u32,
    /// The operation that shows it.
    pub shown_by: usize,
    /// The one that it does not go with, where there is one.
    pub against: Option<usize>,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A read is of a time before it was sent.
    StaleRead,
    /// A write is ordered before something that was answered before it was sent.
    WriteOutOfOrder,
    /// An acknowledged write is not there.
    LostWrite,
    /// A write took effect twice.
    ExecutedTwice,
    /// A write that was said not to be executed was.
    ExecutedAgainstWord,
    /// A value that nobody wrote.
    NeverWritten,
    /// A value that was written to another key.
    OfAnotherKey,
    /// A value that is not what its write wrote, or two that should be the same.
    WrongValue,
    /// Two writes made the same revision.
    RevisionTwice,
    /// Versions or lengths tell of more or fewer writes than there can have been.
    WrongCount,
    /// A swap was made or refused against its condition.
    WrongSwap,
    /// Appends are not in the order of their revisions.
    AppendsReordered,
}

/// The faults of a history.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The first ones.
    pub kept: Vec<Fault>,
    /// How many there are: each operation shows one of a kind.
    pub count: u64,
    shown: BTreeSet<(FaultKind, usize)>,
}

impl Faults {
    /// Takes one more.
    pub fn add(&mut self, fault: Fault) {
        if !self.shown.insert((fault.kind, fault.shown_by)) {
            return;
        }
        self.count += 1;
        if self.kept.len() < FAULTS_MAX {
            self.kept.push(fault);
        }
    }
}

/// The parts of a history that the checks look things up in.
pub struct Index<'a> {
    /// All of it, as far as it was recorded.
    pub history: &'a History,
    /// The operations on each key.
    pub by_key: Vec<Vec<usize>>,
    /// The write of each mark.
    pub by_mark: BTreeMap<u64, usize>,
}

/// Checks a history, cut already (see [`cut`]).
pub fn check(history: &History) -> Faults {
    let mut index = Index { history, by_key: vec![Vec::new(); history.keys.len()], by_mark: BTreeMap::new() };
    for (at, event) in history.events.iter().enumerate() {
        index.by_key[event.key as usize].push(at);
        if let Some(piece) = event.asked.piece() {
            index.by_mark.insert(piece.mark, at);
        }
    }
    let mut faults = Faults::default();
    let mut pinned = BTreeMap::new();
    for key in 0..history.keys.len() {
        keycheck::check(&index, key as u32, &mut pinned, &mut faults);
    }
    check_shards(history, &pinned, &mut faults);
    faults
}

/// Ends a history where its recording ended. What was sent by then and answered later is unknown: it may
/// speak of operations that were not recorded.
pub fn cut(history: &mut History) {
    let Some(cut_ns) = history.cut_ns else { return };
    history
        .events
        .retain(|event| event.sent_ns <= cut_ns && (event.ended_ns <= cut_ns || event.asked != Asked::Get));
    for event in history.events.iter_mut().filter(|event| event.ended_ns > cut_ns) {
        (event.ended_ns, event.told) = (NEVER_NS, Told::Unknown);
    }
    history.finals.clear();
}

/// Each shard's revisions go forward with the time, and each is made by one write.
fn check_shards(history: &History, pinned: &BTreeMap<usize, Place>, faults: &mut Faults) {
    let mut shards: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
    let mut makers: BTreeMap<Place, usize> = BTreeMap::new();
    for (at, event) in history.events.iter().enumerate() {
        let Some((place, is_write)) = place_of(event, pinned.get(&at)) else { continue };
        let order = order_of(place.revision, is_write);
        let Event { sent_ns, ended_ns, .. } = *event;
        let point = Point { event: at, sent_ns, ended_ns, low: order, high: order };
        shards.entry(place.shard).or_default().push(point);
        if !is_write {
            continue;
        }
        let other = makers.insert(place, at);
        // Those of one key were told of already.
        if let Some(other) = other.filter(|other| history.events[*other].key != event.key) {
            let kind = FaultKind::RevisionTwice;
            faults.add(Fault { kind, key: event.key, shown_by: at, against: Some(other) });
        }
    }
    for points in shards.values() {
        for (before, after) in broken(points) {
            add_broken(history, (before, after), faults);
        }
    }
}

/// Adds a pair that breaks the order of the real time.
pub fn add_broken(history: &History, (before, after): (usize, usize), faults: &mut Faults) {
    let event = &history.events[after];
    let is_read = matches!(event.told, Told::Saw { .. });
    let kind = if is_read { FaultKind::StaleRead } else { FaultKind::WriteOutOfOrder };
    faults.add(Fault { kind, key: event.key, shown_by: after, against: Some(before) });
}

/// Where an event is in its shard's order, and whether it made that revision.
pub fn place_of(event: &Event, pinned: Option<&Place>) -> Option<(Place, bool)> {
    match &event.told {
        Told::Wrote { at, .. } | Told::Removed { at } => Some((*at, true)),
        Told::Saw { at, .. } => Some((*at, false)),
        Told::Unknown => pinned.map(|at| (*at, true)),
        Told::NotDone => None,
    }
}

/// A place in a shard's order: reads at a revision come after the write that made it.
pub fn order_of(revision: u64, is_write: bool) -> u64 {
    revision.saturating_mul(2).saturating_add(u64::from(!is_write))
}
