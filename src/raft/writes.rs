//! The persists that are under way, in order, and what of each still stands.
//!
//! An entry may be written, overwritten by another leader's entry, and written again: the same index and term
//! twice, with another in between. The completion of the first write must not be taken for that of the second
//! (in etcd: `async_storage_writes_append_aba_race`). So a completion is matched by its number, and a write
//! forgets what later entries overwrite.
//!
//! Invariants:
//! - Numbers ascend without a gap; a completion covers all numbers before it.
//! - `kept` never names an index that was overwritten after the write was handed out.
//!
//! Deliberately absent: the writes' contents; those are the driver's.

use std::collections::VecDeque;

use crate::ids::{Index, NodeId, Term};

use super::ready::Completion;
use super::standing::Standing;

/// The most persists under way. Requests that would add one are dropped beyond it, as the network may drop
/// them.
pub(super) const WRITES_PENDING_MAX: usize = 4096;

/// See the module's docs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Writes {
    pending: VecDeque<Write>,
    /// The last number given out.
    number: u64,
    /// Term and vote that are known to be durable.
    durable: (Term, Option<NodeId>),
    /// The standing that is known to be durable; `None` until one is that is not [`Standing::Whole`].
    standing: Option<Standing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Write {
    number: u64,
    /// Index and term of its last entry, as it was handed out.
    last: Option<(Index, Term)>,
    /// The last of its entries that nothing has overwritten since.
    kept: Option<Index>,
    /// Term and vote, where it carries them.
    ballot: Option<(Term, Option<NodeId>)>,
    /// The standing, where it carries it.
    standing: Option<Standing>,
    /// The tick at which it was handed out.
    since_tick: u64,
}

/// What a completion made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Durable {
    /// The log stands on disk up to here, if this says anything new.
    pub(super) kept: Option<Index>,
    /// The last of the finished writes' entries, overwritten since or not.
    pub(super) written: Option<(Index, Term)>,
}

impl Writes {
    /// Nothing under way, and this durable.
    pub(super) fn new(term: Term, vote: Option<NodeId>, standing: Option<Standing>) -> Self {
        Self { pending: VecDeque::new(), number: 0, durable: (term, vote), standing }
    }

    /// Notes a persist that is handed out now, and numbers it.
    pub(super) fn hand_out(
        &mut self,
        last: Option<(Index, Term)>,
        ballot: Option<(Term, Option<NodeId>)>,
        standing: Option<Standing>,
        since_tick: u64,
    ) -> u64 {
        self.number += 1;
        let kept = last.map(|(index, _)| index);
        self.pending.push_back(Write { number: self.number, last, kept, ballot, standing, since_tick });
        self.number
    }

    /// Notes that everything from an index on is about to be overwritten.
    pub(super) fn overwritten_from(&mut self, from: Index) {
        assert!(from.0 > 0, "nothing can overwrite the place before the first entry");
        for write in &mut self.pending {
            write.kept = write.kept.map(|kept| kept.min(Index(from.0 - 1)));
        }
    }

    /// Takes a completion. One that came before says nothing new.
    pub(super) fn complete(&mut self, completion: Completion) -> Durable {
        let Completion { number, last } = completion;
        assert!(
            number <= self.number,
            "persist {number} is durable, but only {} were handed out",
            self.number
        );
        let mut durable = Durable::default();
        while let Some(write) = self.pending.front().filter(|write| write.number <= number) {
            if write.number == number {
                assert!(write.last == last, "persist {number} ends with {:?}, not {last:?}", write.last);
            }
            durable.kept = write.kept.or(durable.kept);
            durable.written = write.last.or(durable.written);
            self.durable = write.ballot.unwrap_or(self.durable);
            self.standing = write.standing.or(self.standing);
            self.pending.pop_front();
        }
        durable
    }

    /// Term and vote that are known to be durable.
    pub(super) fn durable_ballot(&self) -> (Term, Option<NodeId>) {
        self.durable
    }

    /// The standing that is known to be durable, if one is.
    pub(super) fn durable_standing(&self) -> Option<Standing> {
        self.standing
    }

    /// Whether everything handed out is durable.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether no more should be handed out.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= WRITES_PENDING_MAX
    }

    /// How many ticks ago the oldest one under way was handed out.
    pub(super) fn oldest_age(&self, now_tick: u64) -> Option<u64> {
        self.pending.front().map(|write| now_tick - write.since_tick)
    }
}
