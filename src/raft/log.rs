//! A replica's view of its log: the term of every index, the newest entries, and how far they are written.
//!
//! ```text
//!   start ............ persisted ......... handed ......... last
//!   |  durable here       |  being written    |  not yet in    |
//!   |                     |                   |  a persist     |
//!              cache_first ........................ last: in memory
//! ```
//!
//! Invariants:
//! - `start ≤ persisted ≤ handed ≤ last`, and the cache holds a run of entries that ends at `last`.
//! - What lies at `start` and before it is in a durable table, and of it only the term at `start` is known.
//!   Nothing of it is given to a follower as entries; 0 where the log holds everything.
//! - An entry leaves memory only when it is durable here and applied here, or let go with what a table holds.
//! - Terms are kept for all indexes from `start` on, as the first index of each run of equal terms: both
//!   ascend.
//!
//! Deliberately absent: reading entries that are no longer in memory. The driver does that
//! ([`super::Fetch`]).

use std::collections::VecDeque;

use crate::ids::{Index, Term};

use super::message::{APPEND_ENTRIES_MAX, Entry};

/// See the module's docs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log {
    /// The last index that is in the table alone.
    start: Index,
    /// First index and term of each run. Grows by one an election, not by entry.
    runs: Vec<(Index, Term)>,
    last: Index,
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    handed: Index,
    persisted: Index,
    applied: Index,
}

/// What memory has for a follower.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// These entries, after one of this term; none where the log ends before.
    Entries(Term, Vec<Entry>),
    /// Entries up to this index are in the log, but no longer in memory.
    OnDisk(Index),
    /// The log no longer reaches back that far.
    Gone,
}

impl Log {
    /// A log that is durable as it was recovered, none of it in memory: what follows on a table that ends
    /// with this index and term. The runs may begin before that.
    pub(super) fn new((start, term): (Index, Term), runs: Vec<(Index, Term)>, last: Index) -> Self {
        assert!(start <= last, "a log to {last} behind a table to {start}");
        let mut log = Self {
            start: Index(0),
            runs,
            last,
            cache: VecDeque::new(),
            cache_bytes: 0,
            handed: last,
            persisted: last,
            applied: start,
        };
        log.begin_after(start, term);
        log
    }

    /// The last index that is in the table alone; 0 where the log holds everything.
    pub(super) fn start(&self) -> Index {
        self.start
    }

    /// Lets go of everything up to an index that the log holds, with this term there.
    fn begin_after(&mut self, start: Index, term: Term) {
        self.start = start;
        if start.0 == 0 {
            return;
        }
        let gone = self.runs.partition_point(|run| run.0 <= start);
        self.runs.drain(..gone);
        if self.runs.first().is_some_and(|run| run.1 == term) {
            self.runs[0].0 = start;
        } else {
            self.runs.insert(0, (start, term));
        }
        while self.cache.front().is_some_and(|entry| entry.index <= start) {
            self.drop_oldest();
        }
    }

    /// Lets go of everything up to an index, which a durable table holds.
    pub(super) fn compact(&mut self, to: Index) {
        assert!(to <= self.applied, "entry {to} is to be let go, but only {} is applied", self.applied);
        assert!(to <= self.persisted, "entry {to} is to be let go, but only {} is durable", self.persisted);
        if to > self.start {
            let term = self.term_at(to).expect("what is above the start and applied is in the log");
            self.begin_after(to, term);
        }
    }

    /// Takes a table over: all up to an index that the log holds is durable in it and applied. Whether the
    /// log's own writes reach as far; where not, what follows has to be written behind a new beginning.
    pub(super) fn skip_to(&mut self, to: Index) -> bool {
        assert!(
            to > self.start && to <= self.last,
            "{to} is not in the log of {}..{}",
            self.start,
            self.last
        );
        let is_written = to <= self.handed;
        self.handed = self.handed.max(to);
        self.persisted = self.persisted.max(to);
        self.applied = self.applied.max(to);
        self.compact(to);
        is_written
    }

    /// Begins anew behind a table: nothing that was here counts any more.
    pub(super) fn restart(&mut self, start: Index, term: Term) {
        assert!(start.0 > 0 && term.0 > 0, "a table to {start}, of term {term}");
        *self = Self::new((start, term), Vec::new(), start);
    }

    pub(super) fn last_index(&self) -> Index {
        self.last
    }

    pub(super) fn last_term(&self) -> Term {
        self.runs.last().map_or(Term(0), |run| run.1)
    }

    /// How far the log, as it is now, is durable.
    pub(super) fn persisted(&self) -> Index {
        self.persisted
    }

    /// How far the driver has applied.
    pub(super) fn applied(&self) -> Index {
        self.applied
    }

    /// The term of an entry: 0 before the first one, `None` past the end and before the log's beginning.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index.0 == 0 {
            return Some(Term(0));
        }
        if index > self.last {
            return None;
        }
        self.run_of(index).map(|run| run.1)
    }

    /// The run that holds an index of the log.
    fn run_of(&self, index: Index) -> Option<(Index, Term)> {
        let position = self.runs.partition_point(|run| run.0 <= index);
        position.checked_sub(1).map(|position| self.runs[position])
    }

    /// What to say where a leader's log and this one differ at `prev`: the last own index at or before it,
    /// the term there, and the first index of that term.
    pub(super) fn conflict_at(&self, prev: Index) -> (Index, Term, Index) {
        let index = prev.min(self.last);
        let (first, term) = self.run_of(index).unwrap_or((Index(0), Term(0)));
        (index, term, first)
    }

    /// The highest index at which this log may match another that has a run of `term` from `first` to
    /// `index`. Each try so skips a whole term, in one log or the other.
    pub(super) fn match_below(&self, index: Index, term: Term, first: Index) -> Index {
        let mut candidate = index.min(self.last);
        while let Some((run_first, run_term)) = self.run_of(candidate) {
            if run_term <= term {
                break;
            }
            candidate = Index(run_first.0.saturating_sub(1));
        }
        let is_shared = self.term_at(candidate) == Some(term) && candidate >= first;
        if is_shared { candidate } else { candidate.min(Index(first.0.saturating_sub(1))) }
    }

    /// Whether another log's end is at least as good as this one's.
    pub(super) fn is_reached_by(&self, last_index: Index, last_term: Term) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last)
    }

    /// Takes an entry behind the last one.
    pub(super) fn append(&mut self, entry: Entry) {
        assert!(entry.index == self.last.next(), "entry {} behind entry {}", entry.index, self.last);
        assert!(entry.term >= self.last_term(), "term {} behind {}", entry.term, self.last_term());
        assert!(entry.term.0 > 0, "entry {} is of no term", entry.index);
        if entry.term > self.last_term() {
            self.runs.push((entry.index, entry.term));
        }
        self.last = entry.index;
        self.cache_bytes += entry.cost_bytes();
        self.cache.push_back(entry);
    }

    /// Drops every entry from an index on.
    pub(super) fn truncate_from(&mut self, from: Index) {
        assert!(from > self.applied, "entry {from} is to go, but {} is applied", self.applied);
        assert!(from.0 > 0 && from <= self.last, "entry {from} is to go of a log to {}", self.last);
        while self.cache.back().is_some_and(|entry| entry.index >= from) {
            let gone = self.cache.pop_back().map_or(0, |entry| entry.cost_bytes());
            self.cache_bytes -= gone;
        }
        while self.runs.last().is_some_and(|run| run.0 >= from) {
            self.runs.pop();
        }
        self.last = Index(from.0 - 1);
        self.handed = self.handed.min(self.last);
        self.persisted = self.persisted.min(self.last);
    }

    /// Whether there are entries that no persist has taken yet.
    pub(super) fn has_unhanded(&self) -> bool {
        self.handed < self.last
    }

    /// The entries that no persist has taken yet, for one.
    pub(super) fn take_unhanded(&mut self) -> Vec<Entry> {
        let count = usize::try_from(self.last.0 - self.handed.0).unwrap_or(usize::MAX);
        assert!(count <= self.cache.len(), "{count} unwritten entries, {} in memory", self.cache.len());
        self.handed = self.last;
        self.cache.range(self.cache.len() - count..).cloned().collect()
    }

    /// Notes that the log, as it is now, is durable up to an index.
    pub(super) fn mark_persisted(&mut self, index: Index) {
        assert!(index <= self.handed, "entry {index} is durable, but written only to {}", self.handed);
        self.persisted = self.persisted.max(index);
    }

    /// Notes that the driver has applied up to an index.
    pub(super) fn mark_applied(&mut self, index: Index) {
        assert!(index <= self.last, "entry {index} is applied of a log to {}", self.last);
        assert!(index >= self.start, "entry {index} is applied, but a table holds all to {}", self.start);
        self.applied = self.applied.max(index);
    }

    /// Lets go of the oldest entries while the rest is over the limit.
    pub(super) fn evict(&mut self, cache_bytes_max: usize) {
        let idle = self.persisted.min(self.applied);
        while self.cache_bytes > cache_bytes_max
            && self.cache.front().is_some_and(|entry| entry.index <= idle)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let gone = self.cache.pop_front().map_or(0, |entry| entry.cost_bytes());
        self.cache_bytes -= gone;
    }

    /// The first index in memory; one past the end where none is.
    fn cache_first(&self) -> Index {
        self.cache.front().map_or(self.last.next(), |entry| entry.index)
    }

    /// An entry, if it is in memory.
    pub(super) fn cached(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.cache_first().0)?;
        self.cache.get(usize::try_from(offset).ok()?)
    }

    /// What there is for a follower from `next` on, at least one entry where there is any, else up to
    /// `bytes_max`.
    pub(super) fn supply(&self, next: Index, bytes_max: usize) -> Supply {
        let Some(prev_term) = self.term_at(Index(next.0 - 1)).filter(|_| next > self.start) else {
            return Supply::Gone;
        };
        if next > self.last {
            return Supply::Entries(prev_term, Vec::new());
        }
        if next < self.cache_first() {
            return Supply::OnDisk(Index(self.cache_first().0 - 1));
        }
        let skip = usize::try_from(next.0 - self.cache_first().0).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.cost_bytes();
            is_first || bytes <= bytes_max
        };
        let entries =
            self.cache.iter().skip(skip).take(APPEND_ENTRIES_MAX).take_while(fits).cloned().collect();
        Supply::Entries(prev_term, entries)
    }
}
