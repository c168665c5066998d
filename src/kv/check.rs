//! What a request must satisfy by itself, whatever the state: sizes, counts, no contradictions.
//!
//! The edge checks before it routes, so that a request that cannot be carried out never reaches a log. What
//! depends on the state (the length after an Append, the size of an answer) is decided when the command is
//! applied.
//!
//! Invariants:
//! - A check depends on the request and the limits alone.
//! - It is not repeated when a command is applied: what the log holds is applied, by every replica alike.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::answer::{LimitKind, Malformed, Refusal};
use super::command::{Command, Condition, Operation, RequestId, Target, Txn, Write};
use super::limits::Limits;
use super::query::{Query, ReadTxn};

impl Command {
    /// Refuses a command that is beyond a limit or contradicts itself.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        match self {
            Self::Write { id, write } => {
                id.map_or(Ok(()), |id| id.check())?;
                check_write(limits, write)?;
                at_most(LimitKind::CommandBytes, self.encoded_len(), limits.command_bytes_max)
            }
            Self::OpenSession { ttl_ms } => check_ttl(limits, *ttl_ms),
            Self::KeepAlive { .. } | Self::CloseSession { .. } | Self::Expire { .. } => Ok(()),
        }
    }
}

impl Query {
    /// Refuses a query that is beyond a limit.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        match self {
            Self::Get { key } => check_key(limits, key),
            Self::Scan { start, end, .. } => {
                at_most(LimitKind::KeyBytes, start.len(), limits.key_bytes_max)?;
                at_most(LimitKind::KeyBytes, end.len(), limits.key_bytes_max)
            }
            Self::Txn(ReadTxn { conditions, then, otherwise }) => {
                check_conditions(limits, conditions)?;
                check_operation_count(limits, then.len())?;
                check_operation_count(limits, otherwise.len())?;
                then.iter().chain(otherwise).try_for_each(|key| check_key(limits, key))
            }
        }
    }
}

impl RequestId {
    /// Refuses an identity that contradicts itself.
    pub(super) fn check(self) -> Result<(), Refusal> {
        if self.sequence.0 == 0 {
            return Err(Refusal::Malformed(Malformed::SequenceZero));
        }
        if self.acknowledged >= self.sequence {
            return Err(Refusal::Malformed(Malformed::AcknowledgesItself));
        }
        Ok(())
    }
}

/// The ttl of an Open: 0 stands for the default.
pub(super) fn check_ttl(limits: &Limits, ttl_ms: u64) -> Result<(), Refusal> {
    if ttl_ms != 0 && ttl_ms < limits.session_ttl_ms_min {
        let (limit, bound) = (LimitKind::SessionTtlTooShort, limits.session_ttl_ms_min);
        return Err(Refusal::Limit { limit, value: ttl_ms, bound });
    }
    if ttl_ms > limits.session_ttl_ms_max {
        let (limit, bound) = (LimitKind::SessionTtlTooLong, limits.session_ttl_ms_max);
        return Err(Refusal::Limit { limit, value: ttl_ms, bound });
    }
    Ok(())
}

/// Refuses a size or a count above its limit.
pub(super) fn at_most(limit: LimitKind, value: usize, bound: usize) -> Result<(), Refusal> {
    if value > bound {
        return Err(Refusal::Limit { limit, value: value as u64, bound: bound as u64 });
    }
    Ok(())
}

fn check_write(limits: &Limits, write: &Write) -> Result<(), Refusal> {
    match write {
        Write::Put { key, value, .. } | Write::Append { key, value, .. } => {
            check_key(limits, key)?;
            check_value(limits, value)
        }
        Write::Delete { key, .. } => check_key(limits, key),
        Write::Txn(Txn { conditions, then, otherwise }) => {
            check_conditions(limits, conditions)?;
            check_branch(limits, then)?;
            check_branch(limits, otherwise)
        }
    }
}

fn check_conditions(limits: &Limits, conditions: &[Condition]) -> Result<(), Refusal> {
    at_most(LimitKind::TxnConditions, conditions.len(), limits.txn_operations_max)?;
    for condition in conditions {
        check_key(limits, &condition.key)?;
        if let Target::Value(value) = &condition.target {
            check_value(limits, value)?;
        }
    }
    Ok(())
}

fn check_branch(limits: &Limits, branch: &[Operation]) -> Result<(), Refusal> {
    check_operation_count(limits, branch.len())?;
    let mut written: BTreeSet<&Bytes> = BTreeSet::new();
    for operation in branch {
        check_key(limits, operation.key())?;
        let is_first_write = match operation {
            Operation::Get { .. } => true,
            Operation::Put { key, value, .. } | Operation::Append { key, value } => {
                check_value(limits, value)?;
                written.insert(key)
            }
            Operation::Delete { key, .. } => written.insert(key),
        };
        if !is_first_write {
            return Err(Refusal::Malformed(Malformed::KeyWrittenTwice));
        }
    }
    Ok(())
}

fn check_operation_count(limits: &Limits, count: usize) -> Result<(), Refusal> {
    at_most(LimitKind::TxnOperations, count, limits.txn_operations_max)
}

fn check_key(limits: &Limits, key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::Limit { limit: LimitKind::KeyEmpty, value: 0, bound: 1 });
    }
    at_most(LimitKind::KeyBytes, key.len(), limits.key_bytes_max)
}

fn check_value(limits: &Limits, value: &Bytes) -> Result<(), Refusal> {
    at_most(LimitKind::ValueBytes, value.len(), limits.value_bytes_max)
}
