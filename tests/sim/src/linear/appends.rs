//! Whether every append took effect exactly as often as was said: a check in linear time for keys that are
//! only appended to and read.
//!
//! Values are made by [`crate::history::token`], so that each append is found again in what is read. A
//! history that is linearizable passes this too; it is for histories too long for a search, and its faults
//! are easier to read.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Condition, History, Operation, OperationId, Outcome};

/// What is wrong with the appends of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// A read shows something that nobody appended.
    Foreign {
        /// The read.
        read: OperationId,
        /// What it shows.
        token: Vec<u8>,
    },
    /// A read shows an append twice.
    Twice {
        /// The read.
        read: OperationId,
        /// The append.
        append: OperationId,
    },
    /// A read shows an append that was said to be not executed.
    NotExecuted {
        /// The read.
        read: OperationId,
        /// The append.
        append: OperationId,
    },
    /// A read shows an append that was invoked after the read had ended.
    Early {
        /// The read.
        read: OperationId,
        /// The append.
        append: OperationId,
    },
    /// A read lacks an append that was acknowledged before the read was invoked.
    Lost {
        /// The read.
        read: OperationId,
        /// The append.
        append: OperationId,
    },
    /// Neither of two reads begins with the other.
    Diverged {
        /// One read.
        read: OperationId,
        /// The longest read.
        longest: OperationId,
    },
}

/// Checks every key that is only appended to, without conditions, and read. Says how many keys that were.
///
/// # Errors
/// The first fault found.
pub fn check_appends(history: &History) -> Result<usize, AppendFault> {
    let mut checked = 0;
    for operations in history.by_key().into_values() {
        let fits = operations.iter().all(|operation| match &operation.call {
            Call::Get => true,
            Call::Append { value, condition } => *condition == Condition::Always && is_token(value),
            Call::Put { .. } | Call::Delete { .. } => false,
        });
        if fits {
            check_key(&operations)?;
            checked += 1;
        }
    }
    Ok(checked)
}

/// Whether it ends with the only `;` in it.
fn is_token(value: &[u8]) -> bool {
    value.iter().position(|&byte| byte == b';') == Some(value.len().saturating_sub(1))
}

/// A read that was answered.
struct Read<'a> {
    operation: &'a Operation,
    value: &'a [u8],
    ended: u64,
}

/// Checks one key: the longest read first, since every other must be its beginning.
fn check_key(operations: &[&Operation]) -> Result<(), AppendFault> {
    let appends: BTreeMap<&[u8], &Operation> =
        operations.iter().filter_map(|operation| Some((token_of(operation)?, *operation))).collect();
    let mut reads: Vec<Read> = operations.iter().filter_map(|operation| read(operation)).collect();
    reads.sort_by_key(|read| read.operation.invoked);
    let Some(longest) = reads.iter().max_by_key(|read| read.value.len()) else {
        return Ok(());
    };
    let places = check_longest(longest, &appends)?;
    for read in &reads {
        if !longest.value.starts_with(read.value) {
            return Err(AppendFault::Diverged { read: read.operation.id, longest: longest.operation.id });
        }
        if read.value.last().is_some_and(|&byte| byte != b';') {
            let token = read.value.split(|&byte| byte == b';').next_back().unwrap_or_default();
            return Err(AppendFault::Foreign { read: read.operation.id, token: token.to_vec() });
        }
    }
    check_early(&reads, &places, &appends)?;
    check_lost(&reads, operations, &places)
}

/// What an operation appends.
fn token_of(operation: &Operation) -> Option<&[u8]> {
    match &operation.call {
        Call::Append { value, .. } => Some(value),
        Call::Get | Call::Put { .. } | Call::Delete { .. } => None,
    }
}

/// An answered read.
fn read(operation: &Operation) -> Option<Read<'_>> {
    match (&operation.outcome, operation.ended) {
        (Outcome::Answered(Answer::Got(seen)), Some(ended)) => {
            let value = seen.as_ref().map_or(&[][..], |seen| &seen.value);
            Some(Read { operation, value, ended })
        }
        (Outcome::Answered(_) | Outcome::NotExecuted | Outcome::Unknown, _) => None,
    }
}

/// Where each append ends in the longest read.
fn check_longest(
    longest: &Read,
    appends: &BTreeMap<&[u8], &Operation>,
) -> Result<BTreeMap<OperationId, usize>, AppendFault> {
    let read = longest.operation.id;
    let (mut places, mut end) = (BTreeMap::new(), 0);
    for token in longest.value.split_inclusive(|&byte| byte == b';') {
        end += token.len();
        let Some(append) = appends.get(token) else {
            return Err(AppendFault::Foreign { read, token: token.to_vec() });
        };
        if append.outcome == Outcome::NotExecuted {
            return Err(AppendFault::NotExecuted { read, append: append.id });
        }
        if places.insert(append.id, end).is_some() {
            return Err(AppendFault::Twice { read, append: append.id });
        }
    }
    Ok(places)
}

/// No read shows what was appended after it. Reads are taken by length, so that each append is looked at
/// once.
fn check_early(
    reads: &[Read],
    places: &BTreeMap<OperationId, usize>,
    appends: &BTreeMap<&[u8], &Operation>,
) -> Result<(), AppendFault> {
    let in_value = appends.values().filter_map(|append| Some((*places.get(&append.id)?, *append)));
    let by_place: BTreeMap<usize, &Operation> = in_value.collect();
    let mut by_len: Vec<&Read> = reads.iter().collect();
    by_len.sort_by_key(|read| read.value.len());
    let mut shown = by_place.into_iter().peekable();
    // Of the appends shown so far, the one that was invoked last.
    let mut newest: Option<(u64, OperationId)> = None;
    for read in by_len {
        while let Some((_, append)) = shown.next_if(|&(place, _)| place <= read.value.len()) {
            newest = newest.max(Some((append.invoked, append.id)));
        }
        match newest {
            Some((invoked, append)) if invoked > read.ended => {
                return Err(AppendFault::Early { read: read.operation.id, append });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// Every read shows what was acknowledged before it. Both are taken in the order of events.
fn check_lost(
    reads: &[Read],
    operations: &[&Operation],
    places: &BTreeMap<OperationId, usize>,
) -> Result<(), AppendFault> {
    let mut acknowledged: Vec<(u64, &Operation)> =
        operations.iter().filter_map(|operation| Some((acknowledged_at(operation)?, *operation))).collect();
    acknowledged.sort_by_key(|&(ended, _)| ended);
    let mut next = 0;
    // Of the appends acknowledged so far, the one that lies furthest back in the value.
    let mut furthest: Option<(usize, OperationId)> = None;
    for read in reads {
        while let Some(&(_, append)) =
            acknowledged.get(next).filter(|&&(ended, _)| ended < read.operation.invoked)
        {
            let place = places.get(&append.id).copied().unwrap_or(usize::MAX);
            furthest = furthest.max(Some((place, append.id)));
            next += 1;
        }
        match furthest {
            Some((place, append)) if place > read.value.len() => {
                return Err(AppendFault::Lost { read: read.operation.id, append });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// When an append was acknowledged, where it was.
fn acknowledged_at(operation: &Operation) -> Option<u64> {
    match (&operation.outcome, &operation.call) {
        (Outcome::Answered(Answer::Changed { .. }), Call::Append { .. }) => operation.ended,
        (Outcome::Answered(_) | Outcome::NotExecuted | Outcome::Unknown, _) => None,
    }
}
