//! Deciding and carrying out one write: comparison, limit, change, answer.
//!
//! Invariants:
//! - What is refused has changed nothing: every check comes before the first change.
//! - [`Effect::Changed`] says exactly whether a key was written or removed: it is what steps the revision.

use bytes::Bytes;

use super::answer::{Answer, LimitKind, Refusal};
use super::check;
use super::command::{Previous, Write};
use super::planted::planted;
use super::state::Config;
use super::store::{Keys, KeysMut};
use super::txn;
use crate::ids::Revision;

/// Whether a write wrote or removed a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It did, at least one.
    Changed,
    /// It did not.
    Nothing,
}

/// Carries out a write that makes the revision `at` if it changes a key.
pub(super) fn write(
    keys: &mut KeysMut<'_>,
    config: &Config,
    at: Revision,
    write: &Write,
) -> Result<(Answer, Effect), Refusal> {
    match write {
        Write::Put { key, value, if_mod_revision, return_previous } => {
            let if_mod_revision = if planted!(config, ComparisonIgnored) { None } else { *if_mod_revision };
            Ok(put(keys, at, key, value, if_mod_revision, *return_previous))
        }
        Write::Append { key, value, if_mod_revision } => {
            append(keys, config, at, key, value, *if_mod_revision)
        }
        Write::Delete { key, if_mod_revision, return_previous } => {
            Ok(delete(keys, key, *if_mod_revision, *return_previous))
        }
        Write::Txn(txn) => txn::run(keys, config, at, txn),
    }
}

fn put(
    keys: &mut KeysMut<'_>,
    at: Revision,
    key: &Bytes,
    value: &Bytes,
    if_mod_revision: Option<Revision>,
    return_previous: Previous,
) -> (Answer, Effect) {
    if !holds(keys.read(), key, if_mod_revision) {
        let (previous, version) = (keys.read().get(key), keys.read().version(key));
        return (Answer::Put { succeeded: false, previous, version }, Effect::Nothing);
    }
    let previous = match return_previous {
        Previous::Omit => None,
        Previous::Return => keys.read().get(key),
    };
    let version = keys.put(key, value, at);
    (Answer::Put { succeeded: true, previous, version }, Effect::Changed)
}

fn append(
    keys: &mut KeysMut<'_>,
    config: &Config,
    at: Revision,
    key: &Bytes,
    piece: &Bytes,
    if_mod_revision: Option<Revision>,
) -> Result<(Answer, Effect), Refusal> {
    let before = keys.read().length(key).unwrap_or(0);
    if !holds(keys.read(), key, if_mod_revision) {
        let (length, version) = (before as u64, keys.read().version(key));
        return Ok((Answer::Append { succeeded: false, length, version }, Effect::Nothing));
    }
    let wanted = before.saturating_add(piece.len());
    check::at_most(LimitKind::AppendedBytes, wanted, config.limits.value_bytes_max)?;
    let (length, version) = keys.append(key, piece, at);
    Ok((Answer::Append { succeeded: true, length, version }, Effect::Changed))
}

fn delete(
    keys: &mut KeysMut<'_>,
    key: &Bytes,
    if_mod_revision: Option<Revision>,
    return_previous: Previous,
) -> (Answer, Effect) {
    if !holds(keys.read(), key, if_mod_revision) {
        let previous = keys.read().get(key);
        let answer = Answer::Delete { succeeded: false, existed: previous.is_some(), previous };
        return (answer, Effect::Nothing);
    }
    let removed = keys.remove(key);
    let existed = removed.is_some();
    let previous = match return_previous {
        Previous::Omit => None,
        Previous::Return => removed,
    };
    let effect = if existed { Effect::Changed } else { Effect::Nothing };
    (Answer::Delete { succeeded: true, existed, previous }, effect)
}

/// Whether a comparison with a key's mod revision holds; a missing key has 0.
fn holds(keys: Keys<'_>, key: &Bytes, if_mod_revision: Option<Revision>) -> bool {
    if_mod_revision.is_none_or(|revision| keys.mod_revision(key) == revision)
}
