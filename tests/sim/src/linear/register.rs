//! One key as a register: what each operation may do to it, and which answers it may give.
//!
//! A register knows its value, its version and the revision that changed it last. Where that was an operation
//! of unknown outcome, the revision is known only from below, until some answer tells it.
//!
//! Invariants:
//! - Revisions of changes of one key rise strictly.
//! - [`Register::answer`] never refuses an answer that a correct store could give: where it does not know, it
//!   allows.

use std::rc::Rc;

use crate::history::{Answer, Call, Condition, Previous, Seen};
use crate::random::mix;
use crate::trace::hash_bytes;

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Register {
    value: Option<Rc<[u8]>>,
    value_hash: u64,
    version: u64,
    last: Last,
}

/// The revision of a key's last change, a removal included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Exactly(u64),
    AtLeast(u64),
}

impl Last {
    /// The revision, or the lowest that it may be.
    fn low(self) -> u64 {
        match self {
            Self::Exactly(revision) | Self::AtLeast(revision) => revision,
        }
    }

    /// This, once an answer has told the revision; `None` where it cannot be that.
    fn told(self, revision: u64) -> Option<Self> {
        let possible = match self {
            Self::Exactly(known) => known == revision,
            Self::AtLeast(low) => low <= revision,
        };
        possible.then_some(Self::Exactly(revision))
    }
}

impl Register {
    /// A key that was never written.
    pub(super) fn new() -> Self {
        Self { value: None, value_hash: 0, version: 0, last: Last::Exactly(0) }
    }

    /// 128 bits that tell registers apart.
    pub(super) fn hash(&self) -> u128 {
        let last = match self.last {
            Last::Exactly(revision) => mix(revision),
            Last::AtLeast(revision) => !mix(revision),
        };
        let word = |salt: u64| mix(mix(mix(self.value_hash ^ salt) ^ self.version) ^ last);
        u128::from(word(1)) << 64 | u128::from(word(2))
    }

    /// The revision of the last change, or the lowest that it may be.
    pub(super) fn revision_low(&self) -> u64 {
        self.last.low()
    }

    /// Whether a value that is only appended to may become `later` from here.
    pub(super) fn begins(&self, later: &[u8]) -> bool {
        later.starts_with(self.value.as_deref().unwrap_or_default())
    }

    /// The register after an operation that was answered; `None` where that answer is impossible here.
    pub(super) fn answer(&self, call: &Call, answer: &Answer) -> Option<Self> {
        match (call, answer) {
            (Call::Get, Answer::Got(seen)) => self.shown(seen.as_ref()),
            (Call::Put { condition, .. }, Answer::Changed { .. })
            | (Call::Append { condition, .. }, Answer::Changed { .. }) => {
                self.holding(condition)?.changed(call, answer)
            }
            (Call::Delete { condition }, Answer::Deleted { revision, existed, previous }) => {
                let before = self.holding(condition)?.before(previous)?;
                match (existed, before.value.is_some()) {
                    (true, true) if *revision > before.last.low() => {
                        Some(before.removed(Last::Exactly(*revision)))
                    }
                    (false, false) => Some(before),
                    (true | false, true | false) => None,
                }
            }
            (Call::Put { condition, .. }, Answer::Refused { previous })
            | (Call::Append { condition, .. }, Answer::Refused { previous })
            | (Call::Delete { condition }, Answer::Refused { previous }) => {
                let before = self.before(previous)?;
                before.may_refuse(condition).then_some(before)
            }
            (Call::Get | Call::Put { .. } | Call::Append { .. } | Call::Delete { .. }, _) => None,
        }
    }

    /// The register after an operation of unknown outcome took effect; `None` where it would have none.
    pub(super) fn apply(&self, call: &Call) -> Option<Self> {
        match call {
            Call::Get => None,
            Call::Put { condition, value } => {
                let before = self.holding(condition)?;
                Some(before.written(value, Last::AtLeast(before.last.low() + 1)))
            }
            Call::Append { condition, value } => {
                let before = self.holding(condition)?;
                Some(before.written(&before.appended(value), Last::AtLeast(before.last.low() + 1)))
            }
            Call::Delete { condition } => {
                let before = self.holding(condition)?;
                before.value.as_ref()?;
                Some(before.removed(Last::AtLeast(before.last.low() + 1)))
            }
        }
    }

    /// After a Put or an Append that was done.
    fn changed(&self, call: &Call, answer: &Answer) -> Option<Self> {
        let Answer::Changed { revision, version, length, previous } = answer else {
            return None;
        };
        let before = self.before(previous)?;
        let value = match call {
            Call::Put { value, .. } => value.clone(),
            Call::Append { value, .. } => before.appended(value),
            Call::Get | Call::Delete { .. } => return None,
        };
        let possible = *revision > before.last.low()
            && *version == before.version + 1
            && length.is_none_or(|length| length == value.len() as u64);
        possible.then(|| before.written(&value, Last::Exactly(*revision)))
    }

    /// The value with more behind it.
    fn appended(&self, value: &[u8]) -> Vec<u8> {
        let mut whole = self.value.as_deref().unwrap_or_default().to_vec();
        whole.extend_from_slice(value);
        whole
    }

    /// With another value.
    fn written(&self, value: &[u8], last: Last) -> Self {
        // One is added, so that the empty value is not the missing one.
        let value_hash = hash_bytes(value).wrapping_add(1);
        Self { value: Some(Rc::from(value)), value_hash, version: self.version + 1, last }
    }

    /// Without a value. The revision stays known: later ones are higher.
    fn removed(&self, last: Last) -> Self {
        Self { value: None, value_hash: 0, version: 0, last }
    }

    /// This, once an answer has shown the key; `None` where it cannot look so.
    fn shown(&self, seen: Option<&Seen>) -> Option<Self> {
        match (seen, &self.value) {
            (None, None) => Some(self.clone()),
            (Some(seen), Some(value)) if seen.version == self.version && seen.value[..] == value[..] => {
                Some(Self { last: self.last.told(seen.mod_revision)?, ..self.clone() })
            }
            (Some(_), Some(_)) | (None, Some(_)) | (Some(_), None) => None,
        }
    }

    /// The same for what an answer says of the time before it.
    fn before(&self, previous: &Previous) -> Option<Self> {
        match previous {
            Previous::Untold => Some(self.clone()),
            Previous::Missing => self.shown(None),
            Previous::Was(seen) => self.shown(Some(seen)),
        }
    }

    /// This, given that a condition holds; `None` where it cannot.
    fn holding(&self, condition: &Condition) -> Option<Self> {
        match (condition, &self.value) {
            (Condition::Always, _) => Some(self.clone()),
            (Condition::ModRevision(0), value) => value.is_none().then(|| self.clone()),
            (Condition::ModRevision(_), None) => None,
            (Condition::ModRevision(revision), Some(_)) => {
                Some(Self { last: self.last.told(*revision)?, ..self.clone() })
            }
            (Condition::Version(version), _) => (*version == self.version).then(|| self.clone()),
            (Condition::Value(wanted), Some(value)) if wanted[..] == value[..] => Some(self.clone()),
            (Condition::Value(_), _) => None,
        }
    }

    /// Whether a condition may not hold.
    fn may_refuse(&self, condition: &Condition) -> bool {
        match (condition, &self.value, self.last) {
            // The revision may be another than the one that is asked for.
            (Condition::ModRevision(1..), Some(_), Last::AtLeast(_)) => true,
            (
                Condition::Always | Condition::ModRevision(_) | Condition::Version(_) | Condition::Value(_),
                _,
                _,
            ) => self.holding(condition).is_none(),
        }
    }
}
