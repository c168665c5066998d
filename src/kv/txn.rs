//! Txns: several operations on one shard as one step.
//!
//! A branch is gone through twice. First on paper: lengths alone, to learn whether every value stays within
//! its limit and the answer can be carried. Then in place, where nothing can fail any more. So a refused Txn
//! needs no undoing, and an Append within a Txn costs as little as one outside.
//!
//! Invariants:
//! - Conditions are decided on the state before the Txn.
//! - Either every operation of the branch is carried out, or none.
//! - All writes of a Txn have one revision.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::answer::{Answer, KeyValue, LimitKind, OperationResult, Refusal};
use super::check;
use super::command::{Comparison, Condition, Operation, Previous, Target, Txn};
use super::limits::{CARRIED_OVERHEAD_BYTES, Limits};
use super::memtable::Held;
use super::planted::planted;
use super::query::{QueryAnswer, ReadTxn};
use super::state::Config;
use super::store::{Keys, KeysMut};
use super::write::Effect;
use crate::ids::Revision;

/// Carries out a Txn that makes the revision `at` if it changes a key.
pub(super) fn run(
    keys: &mut KeysMut<'_>,
    config: &Config,
    at: Revision,
    txn: &Txn,
) -> Result<(Answer, Effect), Refusal> {
    let succeeded = hold(keys.read(), &txn.conditions);
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let mut plan =
        Plan { keys: keys.read(), limits: &config.limits, lengths: BTreeMap::new(), answer_bytes: 0 };
    let planned = branch.iter().try_for_each(|operation| plan.step(operation));
    let answer_bytes = plan.answer_bytes;
    if planted!(config, TxnNotAtomic) && planned.is_err() {
        branch.iter().take(1).for_each(|operation| drop(carry_out(keys, at, operation)));
    }
    planned?;

    let mut effect = Effect::Nothing;
    let mut results = Vec::with_capacity(branch.len());
    for operation in branch {
        let (result, changed) = carry_out(keys, at, operation);
        if changed == Effect::Changed {
            effect = Effect::Changed;
        }
        results.push(result);
    }
    let carried: usize = results.iter().map(carried_by).sum();
    assert!(carried == answer_bytes, "an answer of {carried} bytes was planned as {answer_bytes}");
    Ok((Answer::Txn { succeeded, results }, effect))
}

/// Carries out a Txn that reads alone.
pub(super) fn read(keys: Keys<'_>, limits: &Limits, txn: &ReadTxn) -> Result<QueryAnswer, Refusal> {
    let succeeded = hold(keys, &txn.conditions);
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let mut answer_bytes = 0;
    let mut results = Vec::with_capacity(branch.len());
    for key in branch {
        let found = keys.get(key);
        answer_bytes += found.as_ref().map_or(0, carried);
        check::at_most(LimitKind::AnswerBytes, answer_bytes, limits.answer_bytes_max)?;
        results.push(found);
    }
    Ok(QueryAnswer::Txn { succeeded, results })
}

/// The bytes that a key and its value count in an answer.
pub(super) fn carried(kv: &KeyValue) -> usize {
    CARRIED_OVERHEAD_BYTES + kv.key.len() + kv.value.len()
}

/// One operation in place. It cannot fail: the plan has seen to it.
fn carry_out(keys: &mut KeysMut<'_>, at: Revision, operation: &Operation) -> (OperationResult, Effect) {
    match operation {
        Operation::Get { key } => (OperationResult::Get(keys.read().get(key)), Effect::Nothing),
        Operation::Put { key, value, return_previous } => {
            let previous = match return_previous {
                Previous::Omit => None,
                Previous::Return => keys.read().get(key),
            };
            let version = keys.put(key, value, at);
            (OperationResult::Put { previous, version }, Effect::Changed)
        }
        Operation::Append { key, value } => {
            let (length, version) = keys.append(key, value, at);
            (OperationResult::Append { length, version }, Effect::Changed)
        }
        Operation::Delete { key, return_previous } => {
            let removed = keys.remove(key);
            let existed = removed.is_some();
            let previous = match return_previous {
                Previous::Omit => None,
                Previous::Return => removed,
            };
            let effect = if existed { Effect::Changed } else { Effect::Nothing };
            (OperationResult::Delete { existed, previous }, effect)
        }
    }
}

/// The bytes of keys and values in one result.
fn carried_by(result: &OperationResult) -> usize {
    match result {
        OperationResult::Get(kv)
        | OperationResult::Put { previous: kv, .. }
        | OperationResult::Delete { previous: kv, .. } => kv.as_ref().map_or(0, carried),
        OperationResult::Append { .. } => 0,
    }
}

/// What a branch will come to, in lengths.
struct Plan<'a> {
    keys: Keys<'a>,
    limits: &'a Limits,
    /// Of the values that the branch has written so far; `None`: removed.
    lengths: BTreeMap<&'a [u8], Option<usize>>,
    answer_bytes: usize,
}

impl<'a> Plan<'a> {
    /// Goes one operation on, or says which limit it would break.
    fn step(&mut self, operation: &'a Operation) -> Result<(), Refusal> {
        let key = operation.key();
        let before = self.lengths.get(&key[..]).copied().unwrap_or_else(|| self.keys.length(key));
        match operation {
            Operation::Get { .. } => self.carry(key, before),
            Operation::Put { value, return_previous, .. } => {
                self.lengths.insert(key, Some(value.len()));
                self.carry_previous(key, before, *return_previous)
            }
            Operation::Append { value, .. } => {
                let wanted = before.unwrap_or(0).saturating_add(value.len());
                check::at_most(LimitKind::AppendedBytes, wanted, self.limits.value_bytes_max)?;
                self.lengths.insert(key, Some(wanted));
                Ok(())
            }
            Operation::Delete { return_previous, .. } => {
                self.lengths.insert(key, None);
                self.carry_previous(key, before, *return_previous)
            }
        }
    }

    fn carry_previous(&mut self, key: &[u8], length: Option<usize>, wanted: Previous) -> Result<(), Refusal> {
        match wanted {
            Previous::Omit => Ok(()),
            Previous::Return => self.carry(key, length),
        }
    }

    /// Counts a key and a value of this length into the answer.
    fn carry(&mut self, key: &[u8], length: Option<usize>) -> Result<(), Refusal> {
        self.answer_bytes += length.map_or(0, |length| CARRIED_OVERHEAD_BYTES + key.len() + length);
        check::at_most(LimitKind::AnswerBytes, self.answer_bytes, self.limits.answer_bytes_max)
    }
}

/// Whether every condition holds.
fn hold(keys: Keys<'_>, conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| holds(keys, condition))
}

fn holds(keys: Keys<'_>, condition: &Condition) -> bool {
    let found = keys.find(&condition.key);
    let number = |of: fn(&Held<'_>) -> u64| found.as_ref().map_or(0, of);
    let ordering = match &condition.target {
        Target::Version(version) => number(|held| held.version).cmp(version),
        Target::CreateRevision(revision) => number(|held| held.create_revision.0).cmp(&revision.0),
        Target::ModRevision(revision) => number(|held| held.mod_revision.0).cmp(&revision.0),
        Target::Value(value) => match &found {
            Some(held) => held.value().cmp(value),
            None => return false,
        },
    };
    match condition.comparison {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::NotEqual => ordering != Ordering::Equal,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::Greater => ordering == Ordering::Greater,
    }
}
