//! What a shard still knows when a part of its lane's log is missing.
//!
//! ```text
//!        before            │ missing │            after
//!  ├ entries … k           │    ?    │  whatever is found of the shard, to the end of the log
//! ```
//!
//! What is missing may have held anything of any shard: entries, a vote, the replacement of entries before
//! it. What lies behind it is newer, so
//! - a hard state found there is the last one, and so is the standing: one that is not whole is written again
//!   with every hard state, so that a hard state without one says that nothing was lost;
//! - the end of the log found there is its end, since an entry replaces all behind it;
//! - a log found there that reaches back to what a table holds, or to a new beginning, is all of it: nothing
//!   is lost.
//!
//! Otherwise the entries before count, which may be older than what replaced them, and are a log that the
//! replica once had: raft's check of index and term finds out. The rest comes from the peers. Where hard
//! state, standing and end are known, the replica knows what it promised ([`Standing::Damaged`]); else it
//! does not ([`Standing::Forgetful`]).
//!
//! What was made of it is written down as an end of the log with the standing, in one batch, before anything
//! rests on it: the next start finds the same hole, and then that record.
//!
//! Invariants: entries from both sides of a hole never make one log; a hole that is written down is closed by
//! the record, and a shard without one is as lost as ever.
//!
//! Pure. It deliberately does not know where the hole is: `walk` says so.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{Index, ShardId, Term};
use crate::raft::{HardState, Standing};

use super::{LaneIndex, ShardIndex, Span};
use crate::log::manifest::TableRef;
use crate::log::record::Record;

/// A hole in the log of a shard, while what lies behind it is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing {
    /// What the index held before it.
    spans: VecDeque<Span>,
    terms: VecDeque<(Index, Term)>,
    /// What was found behind it.
    has_state: bool,
    has_entries: bool,
    has_restart: bool,
    standing: Option<Standing>,
}

impl Missing {
    pub(super) fn see_state(&mut self) {
        self.has_state = true;
        self.standing = Some(Standing::Whole);
    }

    pub(super) fn see_standing(&mut self, standing: Standing) {
        self.standing = Some(standing);
    }

    pub(super) fn see_entries(&mut self) {
        self.has_entries = true;
    }

    pub(super) fn see_restart(&mut self) {
        self.has_restart = true;
    }
}

/// What is left of a shard after a part of its lane's log was lost: to be written before anything rests on
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The shard.
    pub shard: ShardId,
    /// The last hard state that is known.
    pub hard_state: HardState,
    /// What the replica knows of its past now.
    pub standing: Standing,
    /// The last index released, and its term.
    pub released: Option<(Index, Term)>,
    /// The last entry that is left, and its term.
    pub end: (Index, Term),
    /// Whether anything is lost, or may be.
    pub has_lost: bool,
}

impl Survivor {
    /// What is written of it: the end last, which closes the hole.
    pub fn records(&self) -> impl Iterator<Item = Record<'static>> + use<> {
        let Self { shard, hard_state, standing, released, end: (index, term), .. } = *self;
        let released = released.map(|(index, term)| Record::Released { shard, index, term });
        let state = Record::HardState { shard, state: hard_state };
        let standing = Record::Standing { shard, standing };
        [state, standing].into_iter().chain(released).chain([Record::End { shard, index, term }])
    }
}

impl LaneIndex {
    /// What is read from here on lies behind a hole.
    pub fn begin_missing(&mut self, shards: impl IntoIterator<Item = ShardId>) {
        for shard in shards {
            self.shards.entry(shard).or_default().begin_missing();
        }
    }

    /// Forgets the entries of a shard, and that there were any: they do not lead up to what was released.
    pub fn forget(&mut self, shard: ShardId) {
        let index = self.shards.entry(shard).or_default();
        index.spans.clear();
        index.terms.clear();
        index.begin_missing();
    }

    /// What is left of the shards with a hole in their log, once all of it was read. Tables are what the
    /// manifest names; episodes are drawn at random.
    pub fn survivors(
        &mut self,
        tables: &BTreeMap<ShardId, TableRef>,
        mut episode: impl FnMut() -> u64,
    ) -> Vec<Survivor> {
        let open = self.shards.iter_mut().filter(|(_, index)| index.missing.is_some());
        open.map(|(shard, index)| {
            let table = tables.get(shard).map(|table| (table.index, table.term));
            index.survive(*shard, table, episode().max(1))
        })
        .collect()
    }
}

impl ShardIndex {
    fn begin_missing(&mut self) {
        // Between two holes there may be a whole log; else it is given up for what was before both.
        if let Some(before) = self.missing.take() {
            self.join(*before);
        }
        self.replaced += 1;
        let (spans, terms) = (std::mem::take(&mut self.spans), std::mem::take(&mut self.terms));
        self.missing = Some(Box::new(Missing { spans, terms, ..Missing::default() }));
    }

    /// A record says how the hole before it was dealt with.
    pub(super) fn end(&mut self, index: Index) {
        if let Some(missing) = self.missing.take() {
            self.join(*missing);
        }
        if index < self.last() {
            self.truncate_from(index.next());
        }
    }

    fn survive(&mut self, shard: ShardId, table: Option<(Index, Term)>, episode: u64) -> Survivor {
        let missing = self.missing.take().expect("asked of shards with a hole alone");
        let is_end_known = missing.has_entries || missing.has_restart;
        let (last, last_term) = (self.last(), self.last_term());
        if let Some((index, term)) = table {
            let segment = self.mark_segment;
            self.release(index, term, segment);
        }
        let found = missing.standing.filter(|_| missing.has_state);
        let is_complete = self.join(*missing);
        let standing = match found {
            Some(standing) if is_complete => standing,
            Some(standing) if is_end_known => standing.after_damage(last, last_term, episode),
            Some(_) | None => Standing::Forgetful { episode, told: None },
        };
        self.standing = Some(standing);
        Survivor {
            shard,
            hard_state: self.hard_state(),
            standing,
            released: self.released,
            end: (self.last(), self.last_term()),
            has_lost: !(is_complete && found.is_some()),
        }
    }

    /// Ends a hole: what was found behind it counts where it is a whole log, what was before it else. Says
    /// which.
    fn join(&mut self, missing: Missing) -> bool {
        let reaches = |span: &Span| span.first.0 <= self.base().0.saturating_add(1);
        let is_whole = missing.has_entries && self.spans.front().is_none_or(reaches);
        if is_whole || missing.has_restart {
            return true;
        }
        self.replaced += 1;
        self.spans = missing.spans;
        self.terms = missing.terms;
        self.trim();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::log::batch::SegmentId;
    use crate::log::index::{Notes, Position};

    const SHARD: ShardId = ShardId(1);
    const EPISODE: u64 = 77;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Record<'static>> {
        let entry = |at| Record::Entry { shard: SHARD, index: Index(at), term: Term(term), data: b"" };
        range.map(entry).collect()
    }

    fn state(term: u64) -> Record<'static> {
        let state = HardState { term: Term(term), vote: Some(NodeId(2)), commit: Index(3) };
        Record::HardState { shard: SHARD, state }
    }

    fn read(index: &mut LaneIndex, offset: u64, records: &[Record<'_>]) {
        let mut notes = Notes::default();
        records.iter().for_each(|record| notes.add(record));
        index.apply(Position { segment: SegmentId(1), offset, bytes: 4096 }, &notes);
    }

    /// What is left after entries 1 to 9 of term 1, a hole, and these records.
    fn after_hole(records: &[Record<'_>], table: u64) -> (LaneIndex, Survivor) {
        let mut index = LaneIndex::default();
        read(&mut index, 1, &[vec![state(1)], entries(1..=9, 1)].concat());
        index.begin_missing([SHARD]);
        read(&mut index, 2, records);
        let table =
            TableRef { generation: 1, index: Index(table), term: Term(1), bytes: 1, footer_checksum: 1 };
        let tables = (table.index > Index(0)).then_some((SHARD, table)).into_iter().collect();
        let found = index.survivors(&tables, || EPISODE);
        assert_eq!(found.len(), 1, "{found:?}");
        (index, found[0])
    }

    #[test]
    fn a_shard_of_which_nothing_is_found_behind_the_hole_has_forgotten() {
        let (_, found) = after_hole(&[], 0);
        assert_eq!(found.standing, Standing::Forgetful { episode: EPISODE, told: None });
        assert_eq!((found.end, found.hard_state.term), ((Index(9), Term(1)), Term(1)));
    }

    #[test]
    fn hard_state_and_end_behind_the_hole_make_it_damaged() {
        let (_, found) = after_hole(&[vec![state(4)], entries(12..=20, 3)].concat(), 0);
        assert_eq!(found.standing, Standing::Damaged { last_index: Index(20), last_term: Term(3) });
        assert_eq!((found.end, found.hard_state.term), ((Index(9), Term(1)), Term(4)));
        assert!(found.has_lost);
    }

    #[test]
    fn an_end_without_a_hard_state_is_not_enough_and_neither_is_the_reverse() {
        for records in [entries(12..=20, 3), vec![state(4)]] {
            let (_, found) = after_hole(&records, 0);
            assert_eq!(found.standing, Standing::Forgetful { episode: EPISODE, told: None });
        }
    }

    #[test]
    fn a_log_that_reaches_back_to_the_table_has_lost_nothing() {
        let (index, found) = after_hole(&[vec![state(4)], entries(12..=20, 3)].concat(), 11);
        assert_eq!((found.standing, found.has_lost), (Standing::Whole, false));
        assert_eq!((found.released, found.end), (Some((Index(11), Term(1))), (Index(20), Term(3))));
        assert_eq!(index.gap(), None);
        let (_, found) = after_hole(&[vec![state(4)], entries(12..=20, 3)].concat(), 10);
        assert!(found.has_lost, "{found:?}");
    }

    #[test]
    fn a_standing_behind_the_hole_is_kept_with_its_promise() {
        let before = Standing::Damaged { last_index: Index(40), last_term: Term(3) };
        let standing = Record::Standing { shard: SHARD, standing: before };
        let (_, found) = after_hole(&[vec![state(4), standing], entries(12..=20, 3)].concat(), 0);
        assert_eq!(found.standing, before);
        // A hard state alone says that nothing was lost when it was written.
        let later = [vec![state(4), standing], entries(12..=20, 3), vec![state(5)]].concat();
        let (_, found) = after_hole(&later, 0);
        assert_eq!(found.standing, Standing::Damaged { last_index: Index(20), last_term: Term(3) });
    }

    #[test]
    fn what_was_written_down_closes_the_hole_at_the_next_start() {
        let behind = [vec![state(4)], entries(12..=20, 3)].concat();
        let (_, found) = after_hole(&behind, 0);
        let (index, term) = found.end;
        let written = [
            state(4),
            Record::Standing { shard: SHARD, standing: found.standing },
            Record::End { shard: SHARD, index, term },
        ];
        let (at, again) = {
            let mut index = LaneIndex::default();
            read(&mut index, 1, &[vec![state(1)], entries(1..=9, 1)].concat());
            index.begin_missing([SHARD]);
            read(&mut index, 2, &behind);
            read(&mut index, 3, &written);
            read(&mut index, 4, &entries(10..=13, 4));
            (index.clone(), index.survivors(&BTreeMap::new(), || EPISODE))
        };
        assert_eq!(again, []);
        let shard = at.shard(SHARD).expect("it has entries");
        assert_eq!(
            (shard.first(), shard.last(), shard.standing()),
            (Index(1), Index(13), Some(found.standing))
        );
        assert_eq!(shard.terms(), [(Index(1), Term(1)), (Index(10), Term(4))]);
    }

    #[test]
    fn of_two_holes_the_log_before_both_is_left() {
        let mut index = LaneIndex::default();
        read(&mut index, 1, &[vec![state(1)], entries(1..=9, 1)].concat());
        index.begin_missing([SHARD]);
        read(&mut index, 2, &[vec![state(4)], entries(12..=20, 3)].concat());
        index.begin_missing([SHARD]);
        read(&mut index, 3, &[vec![state(5)], entries(25..=30, 3)].concat());
        let found = index.survivors(&BTreeMap::new(), || EPISODE);
        assert_eq!(found[0].standing, Standing::Damaged { last_index: Index(30), last_term: Term(3) });
        assert_eq!(found[0].end, (Index(9), Term(1)));
    }
}
