//! Whether one register for each key could have given the answers of a history: linearizability.
//!
//! The search is that of Wing and Gong with Lowe's memory of states seen: it puts the operations of a key
//! into an order in which each takes effect between its invocation and its end, and each answer is the
//! register's. Keys are independent (linearizability is local), so each is searched by itself.
//!
//! ```text
//! answered        must take effect, between its two events
//! unknown         may take effect at any time after its invocation, or never
//! not executed    must not take effect: left out, so that an answer that shows its effect has no explanation
//! ```
//!
//! What keeps the search short, without changing its verdict:
//! - an operation that changes nothing and fits is taken at once: nothing is gained by waiting;
//! - of unknown operations that ask the same, the first invoked is tried alone; and those whose values no
//!   answer ever showed count as asking the same, where the lengths agree;
//! - an order is given up as soon as the register is past the revision that some answer still has to show,
//!   or, where a key is only appended to, has a value that a read still to come does not begin with.
//!
//! Invariants:
//! - [`Verdict::Violation`] is certain (up to a collision of 128 bits), and so is [`Verdict::Linearizable`].
//! - The search of each key visits at most `states_max` states; more is [`Verdict::Undecided`], never a
//!   guess.
//!
//! It deliberately does not order operations of different keys, and knows no transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Answer, Call, Condition, History, Operation, OperationId, Outcome, Previous};
use crate::random::mix;

mod appends;
mod register;

pub use appends::{AppendFault, check_appends};

use register::Register;

/// States of one key that are enough for any history of a few thousand operations by a correct store.
pub const STATES_MAX: usize = 1_000_000;

/// States that are visited once more to tell the story of a violation.
const STORY_STATES_MAX: usize = 100_000;

/// Milestones that are looked at for the next read.
const MILESTONES_AHEAD_MAX: usize = 64;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every key has an order that explains all its answers.
    Linearizable {
        /// States that were visited, over all keys.
        states: usize,
    },
    /// A key has none.
    Violation(Violation),
    /// No violation was found, and of some key not every order could be tried.
    Undecided {
        /// The first such key.
        key: Vec<u8>,
        /// States that were visited, over all keys.
        states: usize,
    },
}

/// A key whose answers no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Vec<u8>,
    /// The longest order that explains its answers so far.
    pub explained: Vec<OperationId>,
    /// The answered operations of which one should come next, and none can.
    pub stuck: Vec<OperationId>,
    /// All that in words, one operation a line.
    pub story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.story)
    }
}

/// Searches a history, visiting at most `states_max` states of each key.
#[must_use]
pub fn check(history: &History, states_max: usize) -> Verdict {
    let (mut states, mut undecided) = (0, None);
    for (key, operations) in history.by_key() {
        let mut search = Search::new(&operations, Foresight::Used, states_max);
        let found = search.run();
        states += search.states;
        match found {
            Found::Order => {}
            Found::Limit => undecided = undecided.or(Some(key)),
            Found::Nothing => {
                // Without foresight the search gets stuck where the answer is that does not fit.
                let mut search = Search::new(&operations, Foresight::Unused, STORY_STATES_MAX);
                search.run();
                return Verdict::Violation(search.violation(key, history));
            }
        }
    }
    match undecided {
        None => Verdict::Linearizable { states },
        Some(key) => Verdict::Undecided { key: key.to_vec(), states },
    }
}

/// An operation that must take effect.
struct Answered<'a> {
    id: OperationId,
    call: &'a Call,
    answer: &'a Answer,
    invoked: u64,
    ended: u64,
}

/// An operation that may take effect.
struct Possible {
    id: OperationId,
    call: Call,
    invoked: u64,
    value: Value,
}

/// Whether some answer may have shown the value of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Unseen,
    Seen,
}

/// One of the two, by its place in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Answered(usize),
    Possible(usize),
}

/// A state of the search: the operations up to here are taken.
struct Frame {
    /// What was taken last.
    taken: Option<Place>,
    /// All answered operations before this are taken.
    first: usize,
    /// And all milestones before this.
    milestone: usize,
    moves: Vec<(Place, Register)>,
    next: usize,
}

/// How the search of a key ended.
enum Found {
    Order,
    Nothing,
    Limit,
}

/// Whether orders are given up for what is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foresight {
    Used,
    Unused,
}

/// An answer that the register must not go past: an answered operation, and the highest revision of the last
/// change at which it can still be taken.
struct Milestone<'a> {
    revision_max: u64,
    index: usize,
    /// The value that a read shows, where the key is only appended to.
    shows: Option<&'a [u8]>,
}

/// The search of one key.
struct Search<'a> {
    answered: Vec<Answered<'a>>,
    /// By rising revision; empty where foresight is not used.
    milestones: Vec<Milestone<'a>>,
    possible: Vec<Possible>,
    answered_taken: Vec<bool>,
    possible_taken: Vec<bool>,
    answered_taken_count: usize,
    taken_hash: u128,
    /// What was visited: what is taken, and the register.
    seen: BTreeSet<u128>,
    states: usize,
    states_max: usize,
    longest: Vec<Place>,
    /// Answered operations in it; `None` before the first dead end.
    longest_count: Option<usize>,
    longest_stuck: Vec<usize>,
}

impl<'a> Search<'a> {
    /// A search that has taken nothing yet.
    fn new(operations: &[&'a Operation], foresight: Foresight, states_max: usize) -> Self {
        let answered: Vec<Answered> = operations.iter().filter_map(|operation| answered(operation)).collect();
        let possible = possible(operations);
        let milestones = match foresight {
            Foresight::Used => milestones(&answered, &possible),
            Foresight::Unused => Vec::new(),
        };
        Self {
            milestones,
            answered_taken: vec![false; answered.len()],
            possible_taken: vec![false; possible.len()],
            answered,
            possible,
            answered_taken_count: 0,
            taken_hash: 0,
            seen: BTreeSet::new(),
            states: 0,
            states_max,
            longest: Vec::new(),
            longest_count: None,
            longest_stuck: Vec::new(),
        }
    }

    /// Depth first: takes what can come next, and puts it back where that leads nowhere.
    fn run(&mut self) -> Found {
        let mut frames = vec![self.frame(&Register::new(), None, (0, 0))];
        while let Some(top) = frames.last_mut() {
            if self.answered_taken_count == self.answered.len() {
                return Found::Order;
            }
            let past = (top.first, top.milestone);
            let Some((place, register)) = top.moves.get(top.next).cloned() else {
                self.note_longest(&frames);
                if let Some(place) = frames.pop().and_then(|frame| frame.taken) {
                    self.put_back(place);
                }
                continue;
            };
            top.next += 1;
            self.take(place);
            if self.is_past(past.1, &register) || !self.seen.insert(self.taken_hash ^ register.hash()) {
                self.put_back(place);
                continue;
            }
            if self.states == self.states_max {
                return Found::Limit;
            }
            self.states += 1;
            frames.push(self.frame(&register, Some(place), past));
        }
        Found::Nothing
    }

    /// Takes an operation into the order.
    fn take(&mut self, place: Place) {
        match place {
            Place::Answered(index) => {
                self.answered_taken[index] = true;
                self.answered_taken_count += 1;
            }
            Place::Possible(index) => self.possible_taken[index] = true,
        }
        self.taken_hash ^= hash_of(place);
    }

    /// Undoes [`Search::take`].
    fn put_back(&mut self, place: Place) {
        match place {
            Place::Answered(index) => {
                self.answered_taken[index] = false;
                self.answered_taken_count -= 1;
            }
            Place::Possible(index) => self.possible_taken[index] = false,
        }
        self.taken_hash ^= hash_of(place);
    }

    /// The state after something was taken; `past` are the operations and milestones that were taken before
    /// it.
    fn frame(&self, register: &Register, taken: Option<Place>, past: (usize, usize)) -> Frame {
        let untaken = (past.0..self.answered.len()).find(|&index| !self.answered_taken[index]);
        let first = untaken.unwrap_or(self.answered.len());
        let milestone = self.next_milestone(past.1);
        let (candidates, limit) = self.candidates(first);
        let mut moves = Vec::new();
        for index in candidates {
            let operation = &self.answered[index];
            if let Some(after) = register.answer(operation.call, operation.answer) {
                let place = Place::Answered(index);
                if after == *register {
                    return Frame { taken, first, milestone, moves: vec![(place, after)], next: 0 };
                }
                moves.push((place, after));
            }
        }
        self.add_possible(register, limit, &mut moves);
        Frame { taken, first, milestone, moves, next: 0 }
    }

    /// The first milestone from a place on that is not taken.
    fn next_milestone(&self, from: usize) -> usize {
        let mut rest = from..self.milestones.len();
        rest.find(|&at| !self.answered_taken[self.milestones[at].index]).unwrap_or(self.milestones.len())
    }

    /// Whether the register is past something that is still to come.
    fn is_past(&self, from: usize, register: &Register) -> bool {
        let rest = &self.milestones[self.next_milestone(from)..];
        let past = rest.first().is_some_and(|next| register.revision_low() > next.revision_max);
        let near = rest.iter().take(MILESTONES_AHEAD_MAX);
        let mut untaken = near.filter(|milestone| !self.answered_taken[milestone.index]);
        past || untaken.find_map(|milestone| milestone.shows).is_some_and(|value| !register.begins(value))
    }

    /// The answered operations that may come next, those that ended first first; and the event by which one
    /// of them has ended.
    fn candidates(&self, first: usize) -> (Vec<usize>, u64) {
        let mut limit = u64::MAX;
        let mut candidates = Vec::new();
        for index in first..self.answered.len() {
            let operation = &self.answered[index];
            if operation.invoked > limit {
                break;
            }
            if !self.answered_taken[index] {
                limit = limit.min(operation.ended);
                candidates.push(index);
            }
        }
        candidates.retain(|&index| self.answered[index].invoked < limit);
        candidates.sort_by_key(|&index| self.answered[index].ended);
        (candidates, limit)
    }

    /// Operations of unknown outcome that may take effect next: the first of those that ask the same.
    fn add_possible(&self, register: &Register, limit: u64, moves: &mut Vec<(Place, Register)>) {
        let (mut asked, answered_moves) = (BTreeSet::new(), moves.len());
        for (index, operation) in self.possible.iter().enumerate() {
            if operation.invoked > limit {
                break;
            }
            if !self.possible_taken[index] && asked.insert(&operation.call) {
                let after = register.apply(&operation.call);
                moves.extend(after.map(|after| (Place::Possible(index), after)));
            }
        }
        // What nobody saw first: what was seen is needed where it was seen.
        moves[answered_moves..].sort_by_key(|(place, _)| match place {
            Place::Possible(index) => self.possible[*index].value,
            Place::Answered(_) => Value::Seen,
        });
    }

    /// Keeps the order that explains the most answers, for the story.
    fn note_longest(&mut self, frames: &[Frame]) {
        if self.longest_count.is_none_or(|count| self.answered_taken_count > count) {
            self.longest_count = Some(self.answered_taken_count);
            self.longest = frames.iter().filter_map(|frame| frame.taken).collect();
            let first = frames.last().map_or(0, |frame| frame.first);
            self.longest_stuck = self.candidates(first).0;
        }
    }

    /// What is told where there is no order.
    fn violation(&self, key: &[u8], history: &History) -> Violation {
        let explained: Vec<OperationId> = self.longest.iter().map(|&place| self.id(place)).collect();
        let stuck: Vec<OperationId> =
            self.longest_stuck.iter().map(|&index| self.answered[index].id).collect();
        let mut story = format!("no order explains the answers of key \"{}\"\n", key.escape_ascii());
        story += "the longest that explains some:\n";
        for id in &explained {
            story += &format!("  {}\n", history.operations()[id.0]);
        }
        story += "next should come one of these, and none fits:\n";
        for id in &stuck {
            story += &format!("  {}\n", history.operations()[id.0]);
        }
        Violation { key: key.to_vec(), explained, stuck, story }
    }

    /// Its name in the history.
    fn id(&self, place: Place) -> OperationId {
        match place {
            Place::Answered(index) => self.answered[index].id,
            Place::Possible(index) => self.possible[index].id,
        }
    }
}

/// 128 bits for the fact that an operation is taken.
fn hash_of(place: Place) -> u128 {
    let number = match place {
        Place::Answered(index) => 2 * index as u64,
        Place::Possible(index) => 2 * index as u64 + 1,
    };
    let word = |salt: u64| mix(mix(number ^ salt).wrapping_add(salt));
    u128::from(word(0x5bd1_e995_0000_0000)) << 64 | u128::from(word(0x1b87_3593_0000_0000))
}

/// The answers that tell a revision, in its order.
fn milestones<'a>(answered: &[Answered<'a>], possible: &[Possible]) -> Vec<Milestone<'a>> {
    let appends = |call: &Call| matches!(call, Call::Get | Call::Append { .. });
    let only_appended = answered.iter().all(|operation| appends(operation.call))
        && possible.iter().all(|operation| appends(&operation.call));
    let told = answered.iter().enumerate().filter_map(|(index, operation)| {
        let (revision_max, shows) = match operation.answer {
            Answer::Got(seen) => seen.as_ref().map(|seen| (seen.mod_revision, Some(&seen.value[..])))?,
            Answer::Refused { previous: Previous::Was(seen) } => (seen.mod_revision, None),
            Answer::Changed { revision, .. } | Answer::Deleted { revision, existed: true, .. } => {
                (revision.saturating_sub(1), None)
            }
            Answer::Refused { .. } | Answer::Deleted { existed: false, .. } => return None,
        };
        Some(Milestone { revision_max, index, shows: shows.filter(|_| only_appended) })
    });
    let mut milestones: Vec<Milestone> = told.collect();
    milestones.sort_by_key(|milestone| milestone.revision_max);
    milestones
}

/// An operation that was answered, as the search sees it.
fn answered(operation: &Operation) -> Option<Answered<'_>> {
    match (&operation.outcome, operation.ended) {
        (Outcome::Answered(answer), Some(ended)) => Some(Answered {
            id: operation.id,
            call: &operation.call,
            answer,
            invoked: operation.invoked,
            ended,
        }),
        (Outcome::Answered(_), None) => panic!("{operation} was answered and never ended"),
        (Outcome::NotExecuted | Outcome::Unknown, _) => None,
    }
}

/// The operations of unknown outcome that could change something; values that nobody saw are made alike.
fn possible(operations: &[&Operation]) -> Vec<Possible> {
    let shown = Shown::of(operations);
    let mut alike: BTreeMap<Call, Call> = BTreeMap::new();
    let mut possible = Vec::new();
    for operation in operations {
        let call = &operation.call;
        match (&operation.outcome, call) {
            (Outcome::Answered(_) | Outcome::NotExecuted, _) | (Outcome::Unknown, Call::Get) => {}
            (Outcome::Unknown, Call::Put { .. } | Call::Append { .. } | Call::Delete { .. }) => {
                let (call, value) = match unseen_shape(call, &shown) {
                    Some(shape) => {
                        (alike.entry(shape).or_insert_with(|| call.clone()).clone(), Value::Unseen)
                    }
                    None => (call.clone(), Value::Seen),
                };
                possible.push(Possible { id: operation.id, call, invoked: operation.invoked, value });
            }
        }
    }
    possible
}

/// A call whose value nobody ever saw, with zeros for the value; `None` where somebody may have seen it.
fn unseen_shape(call: &Call, shown: &Shown) -> Option<Call> {
    match call {
        Call::Put { value, condition } if !shown.contains(value) => {
            Some(Call::Put { value: vec![0; value.len()], condition: condition.clone() })
        }
        Call::Append { value, condition } if !shown.contains(value) => {
            Some(Call::Append { value: vec![0; value.len()], condition: condition.clone() })
        }
        Call::Get | Call::Put { .. } | Call::Append { .. } | Call::Delete { .. } => None,
    }
}

/// Every value that an answer or a condition of a key spoke of.
struct Shown<'a> {
    values: Vec<&'a [u8]>,
}

impl<'a> Shown<'a> {
    /// All that the answers and conditions of a key spoke of.
    fn of(operations: &[&'a Operation]) -> Self {
        let mut values = Vec::new();
        for operation in operations {
            if let Outcome::Answered(answer) = &operation.outcome {
                values.extend(answer_value(answer));
            }
            match &operation.call {
                Call::Put { condition: Condition::Value(value), .. }
                | Call::Append { condition: Condition::Value(value), .. }
                | Call::Delete { condition: Condition::Value(value) } => values.push(value),
                Call::Get | Call::Put { .. } | Call::Append { .. } | Call::Delete { .. } => {}
            }
        }
        values.sort_unstable();
        values.dedup();
        Self { values }
    }

    /// Whether a value was spoken of, by itself or as a part.
    fn contains(&self, value: &[u8]) -> bool {
        value.is_empty()
            || self.values.iter().any(|shown| shown.windows(value.len()).any(|part| part == value))
    }
}

/// The value that an answer shows.
fn answer_value(answer: &Answer) -> Option<&[u8]> {
    match answer {
        Answer::Got(seen) => seen.as_ref().map(|seen| &seen.value[..]),
        Answer::Changed { previous, .. }
        | Answer::Deleted { previous, .. }
        | Answer::Refused { previous } => match previous {
            Previous::Was(seen) => Some(&seen.value),
            Previous::Untold | Previous::Missing => None,
        },
    }
}

#[cfg(test)]
#[path = "linear/tests.rs"]
mod tests;
