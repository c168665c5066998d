//! Where the durable entries of each shard lie: in memory, and sparse: one span for each batch of a shard,
//! not one for each entry.
//!
//! Writer and recovery build it from the same [`Note`]s, so that what a lane knows of a batch that it wrote
//! is what a restart knows of it.
//!
//! Invariants:
//! - The spans of a shard follow each other without a hole, and so do their places in the log: a later span
//!   never lies before an earlier one.
//! - Runs of terms begin at ascending indexes, the first at the first index held.
//! - Only durable batches are in it.
//!
//! Pure. It deliberately holds no data and no place of a single entry: a read decodes the batch again.

mod missing;

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{Index, ShardId, Term};
use crate::raft::{HardState, Standing};

use super::batch::SegmentId;
use super::record::Record;
use missing::Missing;

pub use missing::Survivor;

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// In which segment.
    pub segment: SegmentId,
    /// At which byte of it.
    pub offset: u64,
    /// How long it is, padding included.
    pub bytes: u32,
}

/// What a batch holds of one shard, without the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A run of entries of one term.
    Entries {
        /// Whose.
        shard: ShardId,
        /// The first of them.
        first: Index,
        /// The last of them.
        last: Index,
        /// Their term.
        term: Term,
    },
    /// A hard state.
    HardState {
        /// Whose.
        shard: ShardId,
        /// The state.
        state: HardState,
    },
    /// Entries that are not needed from the log.
    Released {
        /// Whose.
        shard: ShardId,
        /// The last of them.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// A standing.
    Standing {
        /// Whose.
        shard: ShardId,
        /// The standing.
        standing: Standing,
    },
    /// A log that begins anew.
    Restart {
        /// Whose.
        shard: ShardId,
        /// The last index before its beginning.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// What is left of a log of which a part was lost.
    End {
        /// Whose.
        shard: ShardId,
        /// The last index that is left.
        index: Index,
    },
}

/// Notes of one batch, in its order; kept and used again.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    notes: Vec<Note>,
}

impl Notes {
    /// Notes a record.
    pub fn add(&mut self, record: &Record<'_>) {
        let note = match *record {
            Record::Entry { shard, index, term, .. } => {
                if self.extend_run(shard, index, term) {
                    return;
                }
                Note::Entries { shard, first: index, last: index, term }
            }
            Record::HardState { shard, state } => Note::HardState { shard, state },
            Record::Released { shard, index, term } => Note::Released { shard, index, term },
            Record::Standing { shard, standing } => Note::Standing { shard, standing },
            Record::Restart { shard, index, term } => Note::Restart { shard, index, term },
            Record::End { shard, index, .. } => Note::End { shard, index },
        };
        self.notes.push(note);
    }

    fn extend_run(&mut self, of: ShardId, index: Index, at: Term) -> bool {
        match self.notes.last_mut() {
            Some(Note::Entries { shard, last, term, .. }) if *shard == of && *term == at => {
                let follows = last.0.checked_add(1) == Some(index.0);
                if follows {
                    *last = index;
                }
                follows
            }
            _ => false,
        }
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.notes.clear();
    }
}

/// A hole in the entries of a shard that no released mark covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose.
    pub shard: ShardId,
    /// The last index before the hole.
    pub after: Index,
    /// The first one after it.
    pub found: Index,
}

/// The entries of one shard in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first of them that counts.
    pub first: Index,
    /// The last of them that counts.
    pub last: Index,
    /// The batch.
    pub at: Position,
}

/// What the log knows of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardIndex {
    spans: VecDeque<Span>,
    terms: VecDeque<(Index, Term)>,
    hard_state: HardState,
    released: Option<(Index, Term)>,
    standing: Option<Standing>,
    standing_segment: SegmentId,
    state_segment: SegmentId,
    mark_segment: SegmentId,
    replaced: u64,
    /// A part of the log that is missing, while it is read.
    missing: Option<Box<Missing>>,
}

impl ShardIndex {
    /// Term, vote and commit index, the latter never past the last entry held.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        HardState { commit: self.hard_state.commit.min(self.last()), ..self.hard_state }
    }

    /// The first index held; one past the last where none is.
    #[must_use]
    pub fn first(&self) -> Index {
        // Of a disk that says that the last number of all was released, the log is over.
        let after_base = || Index(self.base().0.saturating_add(1));
        self.spans.front().map_or_else(after_base, |span| span.first)
    }

    /// The last durable index; the last released one where no entry is held.
    #[must_use]
    pub fn last(&self) -> Index {
        self.spans.back().map_or_else(|| self.base(), |span| span.last)
    }

    /// The last index released and its term.
    #[must_use]
    pub fn released(&self) -> Option<(Index, Term)> {
        self.released
    }

    /// What the replica knows of its past, where it ever said so.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// The first index of each run of equal terms, and the term.
    #[must_use]
    pub fn terms(&self) -> Vec<(Index, Term)> {
        self.terms.iter().copied().collect()
    }

    /// How often entries were replaced or let go: a reader that waited for the disk compares.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// The span that holds an index.
    #[must_use]
    pub fn span_at(&self, index: Index) -> Option<Span> {
        let at = self.spans.partition_point(|span| span.last < index);
        self.spans.get(at).copied().filter(|span| span.first <= index)
    }

    /// The segment that holds what must outlive it: the oldest of the last hard state, mark and standing.
    fn stated_in(&self) -> SegmentId {
        let mark = self.released.map(|_| self.mark_segment);
        let standing = self.standing.map(|_| self.standing_segment);
        [mark, standing].into_iter().flatten().fold(self.state_segment, SegmentId::min)
    }

    fn base(&self) -> Index {
        self.released.map_or(Index(0), |(index, _)| index)
    }

    fn put(&mut self, run: (Index, Index, Term), at: Position) {
        let (first, last, term) = run;
        if let Some(missing) = &mut self.missing {
            missing.see_entries();
        }
        if first.0 > self.last().0.saturating_add(1) {
            // What lies between was in a segment that is gone: a mark further on in the log must say so.
            self.spans.clear();
            self.terms.clear();
        } else if first <= self.last() && !self.spans.is_empty() {
            self.truncate_from(first);
        }
        match self.spans.back_mut() {
            Some(span) if span.at == at => span.last = last,
            Some(_) | None => self.spans.push_back(Span { first, last, at }),
        }
        if self.terms.back().is_none_or(|&(_, newest)| newest != term) {
            self.terms.push_back((first, term));
        }
    }

    fn truncate_from(&mut self, index: Index) {
        self.replaced += 1;
        while self.spans.back().is_some_and(|span| span.first >= index) {
            self.spans.pop_back();
        }
        if let Some(span) = self.spans.back_mut() {
            span.last = span.last.min(Index(index.0 - 1));
        }
        while self.terms.back().is_some_and(|&(first, _)| first >= index) {
            self.terms.pop_back();
        }
    }

    /// Begins anew behind an index, whatever was held.
    fn restart(&mut self, index: Index, term: Term, segment: SegmentId) {
        self.replaced += 1;
        self.spans.clear();
        self.terms.clear();
        self.released = Some((index, term));
        self.mark_segment = segment;
        if let Some(missing) = &mut self.missing {
            missing.see_restart();
        }
    }

    /// The term of the last index; 0 where there is none.
    fn last_term(&self) -> Term {
        let of_base = self.released.map_or(Term(0), |(_, term)| term);
        self.terms.back().map_or(of_base, |&(_, term)| term)
    }

    fn release(&mut self, index: Index, term: Term, segment: SegmentId) {
        if self.base() <= index {
            self.mark_segment = segment;
        }
        if self.released.is_some_and(|(known, _)| known >= index) {
            return;
        }
        self.replaced += 1;
        self.released = Some((index, term));
        self.trim();
    }

    /// Lets go of what the released mark covers.
    fn trim(&mut self) {
        let index = self.base();
        while self.spans.front().is_some_and(|span| span.last <= index) {
            self.spans.pop_front();
        }
        let first = self.first();
        while self.terms.get(1).is_some_and(|&(begins, _)| begins <= first) {
            self.terms.pop_front();
        }
        if self.spans.is_empty() {
            self.terms.clear();
        }
        if let Some(oldest) = self.terms.front_mut() {
            oldest.0 = oldest.0.max(first);
        }
    }
}

/// The index of a lane.
#[derive(Clone, Debug, Default)]
pub struct LaneIndex {
    shards: BTreeMap<ShardId, ShardIndex>,
}

impl LaneIndex {
    /// Takes in what a durable batch holds.
    pub fn apply(&mut self, at: Position, notes: &Notes) {
        for note in &notes.notes {
            match *note {
                Note::Entries { shard, first, last, term } => {
                    self.shards.entry(shard).or_default().put((first, last, term), at);
                }
                Note::HardState { shard, state } => {
                    let known = self.shards.entry(shard).or_default();
                    known.hard_state = state;
                    known.state_segment = at.segment;
                    if let Some(missing) = &mut known.missing {
                        missing.see_state();
                    }
                }
                Note::Released { shard, index, term } => {
                    self.shards.entry(shard).or_default().release(index, term, at.segment);
                }
                Note::Standing { shard, standing } => {
                    let known = self.shards.entry(shard).or_default();
                    known.standing = Some(standing);
                    known.standing_segment = at.segment;
                    if let Some(missing) = &mut known.missing {
                        missing.see_standing(standing);
                    }
                }
                Note::Restart { shard, index, term } => {
                    self.shards.entry(shard).or_default().restart(index, term, at.segment);
                }
                Note::End { shard, index } => self.shards.entry(shard).or_default().end(index),
            }
        }
    }

    /// What is known of a shard; `None` where the log never held anything of it.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&ShardIndex> {
        self.shards.get(&shard)
    }

    /// Every shard, in order.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardIndex)> {
        self.shards.iter().map(|(shard, index)| (*shard, index))
    }

    /// Whether an entry that counts lies in this segment or an older one.
    #[must_use]
    pub fn needs_entries_of(&self, segment: SegmentId) -> bool {
        self.shards.values().any(|shard| shard.spans.front().is_some_and(|span| span.at.segment <= segment))
    }

    /// The shards with an entry that counts in this segment or an older one.
    #[must_use]
    pub fn entries_in(&self, segment: SegmentId) -> Vec<ShardId> {
        let needs = |index: &ShardIndex| index.spans.front().is_some_and(|span| span.at.segment <= segment);
        self.shards().filter(|(_, index)| needs(index)).map(|(shard, _)| shard).collect()
    }

    /// The shards whose hard state, released mark or standing has no copy after this segment.
    #[must_use]
    pub fn states_in(&self, segment: SegmentId) -> Vec<ShardId> {
        self.shards().filter(|(_, index)| index.stated_in() <= segment).map(|(shard, _)| shard).collect()
    }

    /// A hole before the entries that a shard holds: those in it were not released. After the whole log was
    /// read, that is damage; before, the mark may be further on.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        self.shards().find_map(|(shard, index)| {
            let after = index.base();
            let found = index.first();
            (found.0 > after.0.saturating_add(1)).then_some(Gap { shard, after, found })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(1);

    fn position(offset: u64) -> Position {
        Position { segment: SegmentId(1), offset, bytes: 4096 }
    }

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Record<'static>> {
        range
            .map(|at| Record::Entry { shard: SHARD, index: Index(at), term: Term(term), data: b"" })
            .collect()
    }

    fn applied(index: &mut LaneIndex, offset: u64, records: &[Record<'_>]) {
        let mut notes = Notes::default();
        records.iter().for_each(|record| notes.add(record));
        index.apply(position(offset), &notes);
    }

    fn spans(index: &LaneIndex) -> Vec<(u64, u64, u64)> {
        let shard = index.shard(SHARD).expect("the test gave it entries");
        shard.spans.iter().map(|span| (span.first.0, span.last.0, span.at.offset)).collect()
    }

    #[test]
    fn a_run_is_one_note_and_a_batch_one_span() {
        let mut index = LaneIndex::default();
        applied(&mut index, 1, &entries(1..=500, 1));
        applied(&mut index, 2, &entries(501..=600, 2));
        assert_eq!(spans(&index), [(1, 500, 1), (501, 600, 2)]);
        let shard = index.shard(SHARD).expect("it has entries");
        assert_eq!(shard.terms(), [(Index(1), Term(1)), (Index(501), Term(2))]);
        assert_eq!(shard.span_at(Index(501)).map(|span| span.at.offset), Some(2));
        assert_eq!(shard.span_at(Index(601)), None);
    }

    #[test]
    fn an_entry_replaces_what_is_at_and_above_it() {
        let mut index = LaneIndex::default();
        applied(&mut index, 1, &entries(1..=9, 1));
        applied(&mut index, 2, &[entries(10..=12, 1), entries(11..=11, 2), entries(4..=6, 3)].concat());
        assert_eq!(spans(&index), [(1, 3, 1), (4, 6, 2)]);
        let terms = index.shard(SHARD).map(ShardIndex::terms);
        assert_eq!(terms, Some(vec![(Index(1), Term(1)), (Index(4), Term(3))]));
    }

    #[test]
    fn a_hole_must_be_covered_by_a_mark_here_or_further_on() {
        let mut index = LaneIndex::default();
        applied(&mut index, 1, &entries(1..=3, 1));
        applied(&mut index, 2, &entries(5..=6, 1));
        assert_eq!(spans(&index), [(5, 6, 2)]);
        assert_eq!(index.gap(), Some(Gap { shard: SHARD, after: Index(0), found: Index(5) }));
        applied(&mut index, 3, &[Record::Released { shard: SHARD, index: Index(4), term: Term(1) }]);
        assert_eq!((index.gap(), spans(&index)), (None, vec![(5, 6, 2)]));
    }

    #[test]
    fn a_mark_past_the_last_entry_lets_all_go() {
        let mut index = LaneIndex::default();
        applied(&mut index, 1, &entries(1..=3, 1));
        applied(&mut index, 2, &[Record::Released { shard: SHARD, index: Index(8), term: Term(4) }]);
        let shard = index.shard(SHARD).expect("it has a mark");
        assert_eq!((shard.first(), shard.last(), shard.terms()), (Index(9), Index(8), vec![]));
        applied(&mut index, 3, &entries(9..=9, 4));
        assert_eq!((spans(&index), index.gap()), (vec![(9, 9, 3)], None));
    }
}
