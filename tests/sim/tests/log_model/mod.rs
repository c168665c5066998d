//! What a lane's log must hold after a crash: a model that takes the same appends, and compares.
//!
//! Appends of a lane become durable in the order in which they came. So what recovery returns must be what
//! the model holds after some prefix of what was appended, and the prefix must not end before the last append
//! that completed. What one recovery returned is the floor of the next one: recovery acts on it.
//!
//! Invariants: an append that spans batches may be there in part, its hard state first; entries up to the
//! released mark may be there or not; nothing else is left open.

use std::collections::BTreeMap;

use bytes::Bytes;
use distribkv::ids::{Index, NodeId, ShardId, Term};
use distribkv::log::{Append, Lane, LaneConfig, ReadError, Recovery};
use distribkv::raft::{Entry, HardState};
use sim::env::SimEnv;
use sim::random::Random;

/// Shards of the lane.
const SHARDS: u64 = 3;

/// What is asked of the log, one after the other.
#[derive(Clone, Debug)]
pub enum Op {
    /// An append, its number being its place among the operations of a life.
    Append(Append),
    /// A released mark.
    Release(ShardId, Index, Term),
}

/// One shard as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardModel {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// The mark, its index and term.
    pub released: (u64, u64),
    /// Entries above the mark: term and data.
    pub entries: BTreeMap<u64, (u64, Bytes)>,
}

/// All shards as they should be.
pub type Model = BTreeMap<ShardId, ShardModel>;

impl ShardModel {
    /// The last index.
    pub fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(self.released.0)
    }

    fn put(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.entries.split_off(&entry.index.0);
            self.entries.insert(entry.index.0, (entry.term.0, entry.data.clone()));
        }
    }
}

/// Applies an operation, or the first `part` entries of an append.
pub fn apply(model: &mut Model, op: &Op, part: Option<usize>) {
    match op {
        Op::Append(append) => {
            if append.hard_state.is_none() && append.entries.is_empty() {
                return;
            }
            let shard = model.entry(append.shard).or_default();
            shard.hard_state = append.hard_state.unwrap_or(shard.hard_state);
            shard.put(&append.entries[..part.unwrap_or(append.entries.len())]);
        }
        Op::Release(shard, index, term) => {
            let shard = model.entry(*shard).or_default();
            if index.0 > shard.released.0 {
                shard.released = (index.0, term.0);
                shard.entries = shard.entries.split_off(&(index.0 + 1));
            }
        }
    }
}

/// What happened so far.
#[derive(Default)]
pub struct Run {
    /// What the last recovery returned, or nothing.
    pub base: Model,
    /// What was asked since.
    pub issued: Vec<Op>,
    /// So many of it are known durable.
    pub completed: usize,
    /// The first thing that was wrong.
    pub error: Option<String>,
    /// Recoveries that returned.
    pub recoveries: usize,
    /// Tails that were cut.
    pub cuts: usize,
}

impl Run {
    /// Takes in what a recovery returned, or says how it is wrong.
    pub fn recovered(&mut self, found: Model) -> Result<(), String> {
        let mut model = self.base.clone();
        for (number, op) in self.issued.iter().enumerate() {
            if number >= self.completed && same(&model, &found) {
                return self.rebase(found);
            }
            if let Op::Append(append) = op
                && number >= self.completed
                && append.entries.len() > 1
            {
                for part in 1..append.entries.len() {
                    let mut partial = model.clone();
                    apply(&mut partial, op, Some(part));
                    if same(&partial, &found) {
                        return self.rebase(found);
                    }
                }
            }
            apply(&mut model, op, None);
        }
        if same(&model, &found) {
            return self.rebase(found);
        }
        let asked = self.issued.len();
        let (completed, base) = (self.completed, &self.base);
        Err(format!("{completed} of {asked} completed\n base {base:?}\n all {model:?}\n found {found:?}"))
    }

    fn rebase(&mut self, found: Model) -> Result<(), String> {
        self.base = found;
        self.issued.clear();
        self.completed = 0;
        self.recoveries += 1;
        Ok(())
    }

    /// Notes completions, which come in order.
    pub fn complete(&mut self, number: u64) {
        let number = usize::try_from(number).expect("it is a place in a list");
        if number < self.completed && self.error.is_none() {
            self.error = Some(format!("append {number} completed after {}", self.completed));
        }
        self.completed = self.completed.max(number + 1);
    }
}

fn same(model: &Model, found: &Model) -> bool {
    let empty = ShardModel::default();
    let shards = model.keys().chain(found.keys());
    shards.into_iter().all(|shard| model.get(shard).unwrap_or(&empty) == found.get(shard).unwrap_or(&empty))
}

/// Reads everything back that a recovery says is there, and checks it against what the recovery says.
pub async fn read_back(lane: &Lane<SimEnv>, recovery: &Recovery) -> Result<Model, String> {
    let mut model = Model::new();
    for (&shard, found) in &recovery.shards {
        let mut entries = Vec::new();
        let mut next = found.first_index;
        while next <= found.last_index {
            let read = lane.read(shard, next, found.last_index, 5000).await;
            entries.extend(read.map_err(|error| format!("shard {shard} from {next}: {error}"))?);
            next = Index(next.0.max(entries.last().map_or(0, |entry: &Entry| entry.index.0)) + 1);
        }
        check_entries(shard, found, &entries)?;
        let released = found.released.map_or((0, 0), |(index, term)| (index.0, term.0));
        let kept = entries.into_iter().filter(|entry| entry.index.0 > released.0);
        let entries = kept.map(|entry| (entry.index.0, (entry.term.0, entry.data))).collect();
        model.insert(shard, ShardModel { hard_state: found.hard_state, released, entries });
        let beyond = lane.read(shard, found.last_index.next(), found.last_index.next(), 1).await;
        if !matches!(beyond, Err(ReadError::Beyond { last }) if last == found.last_index) {
            return Err(format!("shard {shard}: a read past {} gives {beyond:?}", found.last_index));
        }
    }
    Ok(model)
}

fn check_entries(
    shard: ShardId,
    found: &distribkv::log::RecoveredShard,
    entries: &[Entry],
) -> Result<(), String> {
    let mut terms: Vec<(Index, Term)> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if entry.index.0 != found.first_index.0 + at as u64 {
            return Err(format!("shard {shard}: entry {} at {at} from {}", entry.index, found.first_index));
        }
        if terms.last().is_none_or(|last| last.1 != entry.term) {
            terms.push((entry.index, entry.term));
        }
    }
    if terms == found.terms { Ok(()) } else { Err(format!("shard {shard}: {terms:?} but {found:?}")) }
}

/// Draws the next operation; it fits what the model holds after all that was issued.
pub fn next_op(random: &mut Random, model: &Model, number: u64, config: &LaneConfig) -> Op {
    let shard = ShardId(u32::try_from(random.below(SHARDS)).expect("there are few shards"));
    let known = model.get(&shard).cloned().unwrap_or_default();
    let (released, last) = (known.released.0, known.last());
    let floor = released.max(known.hard_state.commit.0);
    let kind = random.below(100);
    let mut append = Append { shard, number, ..Append::default() };
    let term = known.hard_state.term.0.max(1);
    match kind {
        0..5 => {}
        5..15 => append.hard_state = Some(next_state(random, &known, last)),
        15..24 if last > released => {
            let index = random.between(released + 1, last.min(known.hard_state.commit.0).max(released + 1));
            let term = known.entries.get(&index).map_or(1, |entry| entry.0);
            return Op::Release(shard, Index(index), Term(term));
        }
        24 => return Op::Release(shard, Index(last + random.between(1, 9)), Term(term)),
        25..34 if last > floor => {
            let first = random.between(floor + 1, last);
            append.hard_state = Some(HardState { term: Term(term + 1), ..known.hard_state });
            append.entries = entries(random, first, term + 1, 40);
        }
        34..42 => append.entries = entries(random, last + 1, term, 4000),
        42..45 => append.entries = several(random, last + 1, term, 6, config.batch_bytes_max / 3),
        45..50 => append.entries = several(random, last + 1, term, 1, config.entry_bytes_max()),
        _ => {
            append.entries = entries(random, last + 1, term, 600);
            if random.below(3) == 0 {
                let last = append.entries.last().map_or(last, |entry| entry.index.0);
                append.hard_state = Some(HardState { commit: Index(last), ..known.hard_state });
            }
        }
    }
    Op::Append(append)
}

fn next_state(random: &mut Random, known: &ShardModel, last: u64) -> HardState {
    let term = Term(known.hard_state.term.0 + random.between(1, 2));
    let vote = Some(NodeId(1 + u32::try_from(random.below(3)).expect("there are three nodes")));
    HardState { term, vote, commit: Index(known.hard_state.commit.0.max(last)) }
}

fn entries(random: &mut Random, first: u64, term: u64, len_max: u64) -> Vec<Entry> {
    let count = random.between(1, 3);
    let len = usize::try_from(random.between(0, len_max)).expect("entries are small");
    several(random, first, term, count, len)
}

fn several(random: &mut Random, first: u64, term: u64, count: u64, len: usize) -> Vec<Entry> {
    let each = (first..first + count).map(|index| {
        let byte = random.draw().to_le_bytes()[0];
        let data = Bytes::from(vec![byte; len]);
        Entry { index: Index(index), term: Term(term), data }
    });
    each.collect()
}
