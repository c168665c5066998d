//! The log's marks, its memory, the search for where two logs match, and the writes under way.

use bytes::Bytes;

use crate::ids::{Index, NodeId, Term};

use super::config::Config;
use super::log::{Log, Supply};
use super::message::{ENTRY_OVERHEAD_BYTES, Entry, Voice};
use super::progress::{Mode, Progress};
use super::ready::{Completion, SnapshotOutcome};
use super::writes::Writes;

const NO_TABLE: (Index, Term) = (Index(0), Term(0));

/// A log in memory, one entry a term given.
fn log_of(terms: &[u64]) -> Log {
    let mut log = Log::new(NO_TABLE, Vec::new(), Index(0));
    for (index, &term) in (1..).zip(terms) {
        log.append(Entry { index: Index(index), term: Term(term), data: Bytes::new() });
    }
    log
}

fn indexes(supply: &Supply) -> Vec<u64> {
    match supply {
        Supply::Entries(_, entries) => entries.iter().map(|entry| entry.index.0).collect(),
        Supply::OnDisk(_) | Supply::Gone => panic!("{supply:?} holds no entries"),
    }
}

#[test]
fn terms_are_known_everywhere() {
    let log = log_of(&[1, 1, 4, 4, 6]);
    let terms: Vec<_> = (0..=6).map(|index| log.term_at(Index(index)).map(|term| term.0)).collect();
    assert_eq!(terms, [Some(0), Some(1), Some(1), Some(4), Some(4), Some(6), None]);
    assert_eq!(log.conflict_at(Index(9)), (Index(5), Term(6), Index(5)));
    assert_eq!(log.conflict_at(Index(4)), (Index(4), Term(4), Index(3)));
    assert_eq!(log_of(&[]).conflict_at(Index(4)), (Index(0), Term(0), Index(0)));
}

#[test]
fn each_try_skips_a_term() {
    let leader = log_of(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
    // The follower's run of term 4 goes further than the leader's: they match up to the end of the shorter
    // one.
    assert_eq!(leader.match_below(Index(7), Term(4), Index(4)), Index(5));
    // It has a run of a term that the leader lacks: what lies before it is next.
    assert_eq!(leader.match_below(Index(10), Term(3), Index(7)), Index(3));
    assert_eq!(leader.match_below(Index(9), Term(2), Index(2)), Index(1));
    // Its log is empty, or shorter by whole terms.
    assert_eq!(leader.match_below(Index(0), Term(0), Index(0)), Index(0));
    assert_eq!(leader.match_below(Index(2), Term(1), Index(1)), Index(2));
    assert_eq!(leader.match_below(Index(u64::MAX), Term(u64::MAX), Index(u64::MAX)), Index(10));
}

/// However two logs differ (figure 7 of the Raft paper, and shorter ones), the search ends at the last place
/// where they match, in no more steps than the follower has terms.
#[test]
fn the_search_finds_where_logs_match() {
    let logs: [&[u64]; 9] = [
        &[],
        &[1],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for (leader_terms, follower_terms) in
        logs.iter().flat_map(|one| logs.iter().map(move |other| (one, other)))
    {
        let (leader, follower) = (log_of(leader_terms), log_of(follower_terms));
        let equal =
            leader_terms.iter().zip(follower_terms.iter()).take_while(|(one, other)| one == other).count();
        let mut prev = leader.last_index();
        let mut steps = 0;
        while follower.term_at(prev) != leader.term_at(prev) {
            let (index, term, first) = follower.conflict_at(prev);
            let next = leader.match_below(index.min(prev), term, first);
            assert!(next < prev, "no step from {prev}: {leader_terms:?} and {follower_terms:?}");
            (prev, steps) = (next, steps + 1);
        }
        assert_eq!(usize::try_from(prev.0), Ok(equal), "{leader_terms:?} and {follower_terms:?}");
        let mut runs = follower_terms.to_vec();
        runs.dedup();
        assert!(steps <= runs.len().max(1), "{steps} steps for {leader_terms:?} and {follower_terms:?}");
    }
}

#[test]
fn memory_keeps_what_is_not_written_or_not_applied() {
    let mut log = log_of(&[1, 1, 1, 1]);
    assert_eq!(log.take_unhanded().len(), 4);
    log.evict(0);
    assert!(log.cached(Index(1)).is_some(), "nothing is durable");
    log.mark_persisted(Index(3));
    log.evict(0);
    assert!(log.cached(Index(1)).is_some(), "nothing is applied");
    log.mark_applied(Index(2));
    log.evict(2 * ENTRY_OVERHEAD_BYTES);
    assert_eq!(log.cached(Index(2)), None);
    assert!(log.cached(Index(3)).is_some());
    assert_eq!(log.supply(Index(1), 1000), Supply::OnDisk(Index(2)));
    assert_eq!(indexes(&log.supply(Index(3), 1000)), [3, 4]);
    log.mark_persisted(Index(4));
    log.mark_applied(Index(4));
    log.evict(0);
    assert_eq!(log.supply(Index(4), 1000), Supply::OnDisk(Index(4)));
    assert_eq!(indexes(&log.supply(Index(5), 1000)), [0; 0]);
}

#[test]
fn an_append_has_at_least_an_entry() {
    let log = log_of(&[1, 1, 1, 1]);
    assert_eq!(indexes(&log.supply(Index(1), 0)), [1]);
    assert_eq!(indexes(&log.supply(Index(2), 2 * ENTRY_OVERHEAD_BYTES)), [2, 3]);
}

#[test]
fn a_log_that_begins_late_knows_its_beginning() {
    let table = (Index(7), Term(3));
    let log = Log::new(table, vec![(Index(9), Term(4))], Index(9));
    assert_eq!(log.term_at(Index(6)), None);
    assert_eq!(log.term_at(Index(7)), Some(Term(3)));
    assert_eq!(log.supply(Index(7), 100), Supply::Gone);
    assert_eq!(log.supply(Index(8), 100), Supply::OnDisk(Index(9)));
    assert_eq!(log, Log::new(table, vec![(Index(2), Term(3)), (Index(9), Term(4))], Index(9)));
    // Nothing follows on the table, or something of another term.
    assert_eq!(Log::new(table, Vec::new(), Index(7)).last_term(), Term(3));
    assert_eq!(Log::new(table, vec![(Index(8), Term(4))], Index(8)).term_at(Index(7)), Some(Term(3)));
    // Of the first entry alone, too.
    let log = Log::new((Index(1), Term(1)), vec![(Index(2), Term(1))], Index(4));
    assert_eq!(log.supply(Index(1), 100), Supply::Gone);
    assert_eq!(log.supply(Index(2), 100), Supply::OnDisk(Index(4)));
}

#[test]
fn what_a_table_holds_is_let_go() {
    let mut log = log_of(&[1, 1, 2, 2, 3]);
    drop(log.take_unhanded());
    log.mark_persisted(Index(5));
    log.mark_applied(Index(4));
    log.compact(Index(3));
    log.compact(Index(2));
    assert_eq!(log.start(), Index(3));
    let terms: Vec<_> = (2..=5).map(|index| log.term_at(Index(index)).map(|term| term.0)).collect();
    assert_eq!(terms, [None, Some(2), Some(2), Some(3)]);
    assert_eq!(log.cached(Index(3)), None);
    assert_eq!(log.supply(Index(3), 1000), Supply::Gone);
    assert_eq!(indexes(&log.supply(Index(4), 1000)), [4, 5]);
    assert_eq!(log.conflict_at(Index(4)), (Index(4), Term(2), Index(3)));
    // Another log that ends before the beginning of this one: there is nowhere to match.
    let below = log.match_below(Index(2), Term(1), Index(1));
    assert_eq!(log.supply(below.next(), 1000), Supply::Gone);
}

#[test]
fn a_table_ahead_of_the_writes_is_followed_by_a_new_beginning() {
    let mut log = log_of(&[1, 1, 2]);
    assert_eq!(log.take_unhanded().len(), 3);
    log.append(Entry { index: Index(4), term: Term(2), data: Bytes::new() });
    log.append(Entry { index: Index(5), term: Term(2), data: Bytes::new() });
    assert!(log.skip_to(Index(2)), "all to there was written before");
    assert!(!log.skip_to(Index(4)), "it was not");
    assert_eq!((log.start(), log.persisted(), log.applied()), (Index(4), Index(4), Index(4)));
    assert_eq!(log.take_unhanded().len(), 1);
    log.restart(Index(9), Term(3));
    assert_eq!((log.start(), log.last_index(), log.persisted()), (Index(9), Index(9), Index(9)));
    assert_eq!((log.last_term(), log.term_at(Index(8))), (Term(3), None));
}

#[test]
fn truncation_takes_marks_back() {
    let mut log = log_of(&[1, 1, 2]);
    drop(log.take_unhanded());
    log.mark_persisted(Index(3));
    log.truncate_from(Index(2));
    assert_eq!((log.last_index(), log.last_term(), log.persisted()), (Index(1), Term(1), Index(1)));
    log.append(Entry { index: Index(2), term: Term(3), data: Bytes::new() });
    assert!(log.has_unhanded());
    assert_eq!(log.take_unhanded().len(), 1);
    assert_eq!(log.term_at(Index(2)), Some(Term(3)));
}

#[test]
fn a_write_forgets_what_is_overwritten() {
    let mut writes = Writes::new(Term(1), None, None);
    let last = |index, term| Some((Index(index), Term(term)));
    assert_eq!(writes.hand_out(last(5, 1), None, None, 0), 1);
    writes.overwritten_from(Index(4));
    assert_eq!(writes.hand_out(last(4, 2), Some((Term(2), Some(NodeId(2)))), None, 3), 2);
    writes.overwritten_from(Index(4));
    assert_eq!(writes.hand_out(last(5, 1), None, None, 4), 3);
    assert_eq!(writes.oldest_age(10), Some(10));

    assert_eq!(writes.complete(Completion { number: 1, last: last(5, 1) }).kept, Some(Index(3)));
    assert_eq!(writes.durable_ballot(), (Term(1), None));
    assert_eq!(writes.oldest_age(10), Some(7));
    // One completion covers all before it; one that came before says nothing.
    assert_eq!(writes.complete(Completion { number: 3, last: last(5, 1) }).kept, Some(Index(5)));
    assert_eq!(writes.durable_ballot(), (Term(2), Some(NodeId(2))));
    assert_eq!(writes.complete(Completion { number: 2, last: last(4, 2) }).kept, None);
    assert!(writes.is_idle());
}

fn config() -> Config {
    let mut config = Config::new(NodeId(1), vec![NodeId(1), NodeId(2)]);
    config.window_messages_max = 2;
    config
}

#[test]
fn a_probe_is_one_at_a_time_and_a_window_is_bounded() {
    let (config, last) = (config(), Index(9));
    let mut progress = Progress::new(Index(5));
    assert!(progress.is_due(&config, last));
    progress.sent(Index(7), 100, 0);
    assert!(!progress.is_due(&config, last), "one probe is under way");
    progress.accept(Index(7), Voice::Whole, 0);
    assert_eq!((progress.mode(), progress.next()), (Mode::Replicate, Index(8)));
    progress.sent(Index(8), 50, 0);
    assert!(progress.is_due(&config, last));
    progress.sent(Index(9), 50, 0);
    assert!(!progress.is_due(&config, Index(12)), "the window is full");
    progress.accept(Index(8), Voice::Whole, 0);
    assert!(progress.is_due(&config, Index(12)));
}

#[test]
fn what_left_before_a_round_and_did_not_arrive_is_lost() {
    let mut progress = Progress::new(Index(0));
    progress.sent(Index(1), 10, 0);
    progress.accept(Index(1), Voice::Whole, 0);
    progress.sent(Index(2), 10, 4);
    progress.sent(Index(3), 10, 5);
    progress.heard(4, Index(1));
    assert_eq!(progress.in_flight(), 2, "both left after round 4 had begun");
    progress.heard(5, Index(2));
    assert_eq!(progress.in_flight(), 2, "the first arrived, the second left later");
    progress.heard(6, Index(2));
    assert_eq!((progress.mode(), progress.next(), progress.in_flight()), (Mode::Probe, Index(3), 0));
}

#[test]
fn old_rejections_change_nothing() {
    let mut progress = Progress::new(Index(9));
    assert!(progress.is_rejected_at(Index(9)));
    progress.probe_from(Index(4));
    assert!(!progress.is_rejected_at(Index(9)), "it was asked before");
    progress.accept(Index(3), Voice::Whole, 0);
    assert!(!progress.is_rejected_at(Index(3)), "it is matched");
    assert!(!progress.is_rejected_at(Index(u64::MAX)));
}

#[test]
fn a_table_ends_when_its_follower_has_caught_up() {
    let (config, last) = (config(), Index(20));
    let mut progress = Progress::new(Index(3));
    progress.begin_snapshot(Index(10));
    assert_eq!((progress.mode(), progress.next()), (Mode::Snapshot { pending: Index(10) }, Index(11)));
    assert!(!progress.is_due(&config, last), "no entries while it fetches");
    progress.accept(Index(9), Voice::Whole, 0);
    progress.resume_at(Index(10));
    assert!(matches!(progress.mode(), Mode::Snapshot { .. }), "entry 10 is not in the log");
    progress.accept(Index(12), Voice::Whole, 0);
    progress.resume_at(Index(10));
    assert_eq!((progress.mode(), progress.next()), (Mode::Replicate, Index(13)));

    progress.begin_snapshot(Index(15));
    progress.end_snapshot(SnapshotOutcome::Failed);
    assert_eq!((progress.mode(), progress.next()), (Mode::Probe, Index(13)));
    assert!(!progress.is_due(&config, last), "not before the next heartbeat");
    progress.fetch_again();
    assert!(progress.is_due(&config, last));
    progress.begin_snapshot(Index(15));
    progress.end_snapshot(SnapshotOutcome::Finished);
    assert_eq!((progress.mode(), progress.next()), (Mode::Probe, Index(16)));
}

#[test]
fn what_does_not_count_is_apart() {
    let mut progress = Progress::new(Index(9));
    progress.accept(Index(4), Voice::Whole, 0);
    progress.accept(Index(7), Voice::Healing, 0);
    assert_eq!((progress.matched(), progress.counted()), (Index(7), Index(4)));
    progress.forget_beyond(Index(2));
    assert_eq!((progress.matched(), progress.counted(), progress.next()), (Index(0), Index(0), Index(3)));
    progress.accept(Index(5), Voice::Damaged, 0);
    assert_eq!(progress.counted(), Index(5));
}

#[test]
fn a_fetch_is_answered_once() {
    let config = config();
    let mut progress = Progress::new(Index(3));
    progress.fetch_asked();
    assert!(!progress.is_due(&config, Index(5)));
    assert!(!progress.fetch_answered(Some(Index(2))), "that was another question");
    assert!(progress.fetch_answered(Some(Index(4))));
    assert!(!progress.fetch_answered(Some(Index(4))));
    progress.fetch_asked();
    assert!(!progress.fetch_answered(None));
    assert!(!progress.is_due(&config, Index(5)), "not before the next heartbeat");
    progress.fetch_again();
    assert!(progress.is_due(&config, Index(5)));
}
