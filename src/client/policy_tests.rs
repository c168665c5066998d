//! Every rule of the policy by itself: what is sent after what, and what the caller is told.

use std::time::Duration;

use bytes::Bytes;

use super::error::{Cause, Error, Reason};
use super::message::{
    Action, Answer, AttemptId, CallId, Event, Kind, Refusal, Request, Route, Spec, Stamp, Target,
};
use super::policy::{Config, Policy};
use super::routing::{ShardPlace, Table};
use crate::ids::{NodeId, Sequence, SessionId, ShardId};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Sent {
    attempt: AttemptId,
    target: Target,
    request: Request<u32>,
    timeout: Duration,
}

impl Sent {
    fn stamp(&self) -> Stamp {
        match self.request {
            Request::Call { stamp: Some(stamp), .. } => stamp,
            ref other => panic!("{other:?} has no stamp"),
        }
    }
}

/// A policy, its clock, and what it did.
struct Rig {
    policy: Policy<u32, u32>,
    now: Duration,
    sent: Vec<Sent>,
    ended: Vec<(CallId, Result<u32, Error>)>,
}

/// One shard of three nodes `n1:1` to `n3:1`, led by `leader`.
fn table(leader: u32) -> Table {
    let place =
        ShardPlace { shard: ShardId(0), first_slot: 0, last_slot: 16383, leader: Some(NodeId(leader)) };
    let nodes = (1..=3).map(|node| (NodeId(node), format!("n{node}:1")));
    Table::new(vec![place], nodes.collect()).expect("one shard")
}

impl Rig {
    fn new(config: Config) -> Self {
        let endpoints = ["n1:1", "n2:1", "n3:1"].map(str::to_owned);
        Self {
            policy: Policy::new(config, &endpoints),
            now: Duration::ZERO,
            sent: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// With the table of a cluster that node 1 leads.
    fn routed(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.start(Kind::Read);
        let asked = rig.take(|request| matches!(request, Request::Shards));
        rig.answer(&asked, Answer::Table(table(1)));
        let read = rig.take(|request| matches!(request, Request::Call { .. }));
        rig.answer(&read, Answer::Call { answer: 0, served_by: Some(NodeId(1)) });
        rig.ended.clear();
        rig
    }

    /// With a session whose first write was answered.
    fn opened(config: Config) -> Self {
        let mut rig = Self::routed(config);
        rig.start(Kind::Write);
        rig.open(7);
        let write = rig.one();
        rig.answer_call(&write, 1);
        rig.ended.clear();
        rig
    }

    fn start(&mut self, kind: Kind) -> CallId {
        self.start_for(kind, 10 * SECOND)
    }

    fn start_for(&mut self, kind: Kind, timeout: Duration) -> CallId {
        let spec = Spec { kind, route: Route::Key(Bytes::from_static(b"k")), payload: 1, timeout };
        let id = self.policy.start(self.now, 1, spec);
        self.collect();
        id
    }

    fn collect(&mut self) {
        while let Some(action) = self.policy.next_action() {
            match action {
                Action::Send { attempt, target, request, timeout } => {
                    self.sent.push(Sent { attempt, target, request, timeout });
                }
                Action::Finish { call, result } => self.ended.push((call, result)),
            }
        }
    }

    fn event(&mut self, event: Event<u32>) {
        self.policy.event(self.now, 1, event);
        self.collect();
    }

    fn answer(&mut self, sent: &Sent, answer: Answer<u32>) {
        self.event(Event::Answered { attempt: sent.attempt, answer });
    }

    fn answer_call(&mut self, sent: &Sent, answer: u32) {
        self.answer(sent, Answer::Call { answer, served_by: Some(NodeId(1)) });
    }

    fn refuse(&mut self, sent: &Sent, reason: Reason) {
        self.event(Event::Refused { attempt: sent.attempt, refusal: Refusal::of(reason) });
    }

    fn lose(&mut self, sent: &Sent) {
        self.event(Event::Lost { attempt: sent.attempt, detail: "cut".into() });
    }

    /// Answers the Open that was sent.
    fn open(&mut self, session: u64) {
        let open = self.take(|request| matches!(request, Request::Open { .. }));
        let (session, ttl) = (SessionId(session), 60 * SECOND);
        self.answer(&open, Answer::Opened { session, ttl, shard: ShardId(0) });
    }

    /// Lets time pass, timer by timer, until something is sent or ends, or `most` has passed.
    fn wait(&mut self, most: Duration) {
        let until = self.now + most;
        while self.sent.is_empty() && self.ended.is_empty() {
            let Some(at) = self.policy.wake_at().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            self.policy.tick(self.now, 1);
            self.collect();
        }
    }

    /// The first thing sent that is so.
    fn take(&mut self, is: impl Fn(&Request<u32>) -> bool) -> Sent {
        let at = self.sent.iter().position(|sent| is(&sent.request));
        let at = at.unwrap_or_else(|| panic!("it is not in {:?}", self.sent));
        self.sent.remove(at)
    }

    /// The only thing sent.
    fn one(&mut self) -> Sent {
        assert_eq!(self.sent.len(), 1, "{:?}", self.sent);
        self.sent.remove(0)
    }

    /// The only end.
    fn end(&mut self) -> Result<u32, Error> {
        assert_eq!(self.ended.len(), 1, "{:?}", self.ended);
        self.ended.remove(0).1
    }
}

#[test]
fn a_first_write_asks_for_the_table_then_a_session_then_is_sent_stamped() {
    let mut rig = Rig::new(Config::default());
    rig.start(Kind::Write);
    let asked = rig.one();
    assert_eq!(asked.request, Request::Shards);
    rig.answer(&asked, Answer::Table(table(2)));
    let open = rig.one();
    assert_eq!(open.request, Request::Open { key: "k".into(), ttl: 60 * SECOND });
    assert_eq!(&*rig.policy.address(open.target), "n2:1", "the leader is asked");
    rig.answer(&open, Answer::Opened { session: SessionId(5), ttl: 60 * SECOND, shard: ShardId(0) });
    let write = rig.one();
    let stamp = Stamp { session: SessionId(5), sequence: Sequence(1), acknowledged: Sequence(0) };
    assert_eq!(write.request, Request::Call { payload: 1, stamp: Some(stamp) });
    rig.answer_call(&write, 9);
    assert_eq!(rig.end(), Ok(9));
}

#[test]
fn a_read_does_not_wait_for_the_table() {
    let mut rig = Rig::new(Config::default());
    rig.start(Kind::Read);
    assert_eq!(rig.sent.len(), 2, "the read and the table: {:?}", rig.sent);
    let read = rig.take(|request| matches!(request, Request::Call { stamp: None, .. }));
    rig.answer_call(&read, 3);
    assert_eq!(rig.end(), Ok(3));
}

#[test]
fn one_session_serves_every_write_of_its_shard() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    rig.start(Kind::Write);
    let stamps: Vec<_> = rig.sent.iter().map(Sent::stamp).collect();
    let stamp =
        |sequence| Stamp { session: SessionId(7), sequence: Sequence(sequence), acknowledged: Sequence(1) };
    assert_eq!(stamps, [stamp(2), stamp(3)]);
}

#[test]
fn a_leader_hint_is_followed_at_once_under_the_same_stamp() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let first = rig.one();
    let refusal = Refusal { leader: Some(NodeId(3)), ..Refusal::of(Reason::NotLeader) };
    rig.event(Event::Refused { attempt: first.attempt, refusal });
    let second = rig.one();
    assert_eq!(&*rig.policy.address(second.target), "n3:1");
    assert_eq!(second.stamp(), first.stamp());
    rig.answer(&second, Answer::Call { answer: 2, served_by: Some(NodeId(3)) });
    rig.start(Kind::Write);
    assert_eq!(rig.one().target, second.target, "the answer said who leads");
}

#[test]
fn hints_that_go_in_circles_are_slowed_down() {
    let mut rig = Rig::routed(Config { redirects_max: 2, ..Config::default() });
    rig.start(Kind::Read);
    for round in 0..2 {
        let sent = rig.one();
        let leader = Some(NodeId(2 - round));
        rig.event(Event::Refused {
            attempt: sent.attempt,
            refusal: Refusal { leader, ..Refusal::of(Reason::NotLeader) },
        });
    }
    let sent = rig.one();
    let leader = Some(NodeId(2));
    rig.event(Event::Refused {
        attempt: sent.attempt,
        refusal: Refusal { leader, ..Refusal::of(Reason::NotLeader) },
    });
    assert!(rig.sent.is_empty(), "a third hint in a row waits: {:?}", rig.sent);
    rig.wait(SECOND);
    assert!(rig.now > Duration::ZERO);
    assert_eq!(&*rig.policy.address(rig.sent[0].target), "n2:1");
}

#[test]
fn a_hint_at_an_unknown_node_asks_for_a_newer_table() {
    let mut rig = Rig::routed(Config::default());
    rig.now += 5 * SECOND;
    rig.start(Kind::Read);
    let sent = rig.one();
    let refusal = Refusal { leader: Some(NodeId(9)), ..Refusal::of(Reason::NotLeader) };
    rig.event(Event::Refused { attempt: sent.attempt, refusal });
    assert_eq!(rig.one().request, Request::Shards);
}

#[test]
fn without_a_hint_another_node_is_asked_after_a_delay() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let first = rig.one();
    rig.refuse(&first, Reason::NoLeader);
    assert!(rig.sent.is_empty());
    rig.wait(SECOND);
    let second = rig.one();
    assert_ne!(second.target, first.target);
    assert_eq!(second.stamp(), first.stamp());
}

#[test]
fn a_lost_write_is_sent_again_as_it_was_and_more_patiently() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let first = rig.one();
    rig.lose(&first);
    rig.wait(SECOND);
    let second = rig.one();
    assert_eq!(second.stamp(), first.stamp());
    assert_ne!(second.target, first.target);
    assert_eq!(second.timeout, first.timeout * 2);
    rig.answer_call(&second, 4);
    assert_eq!(rig.end(), Ok(4));
}

#[test]
fn a_sending_that_nobody_reports_on_times_out() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let first = rig.one();
    rig.wait(3 * SECOND);
    assert_eq!(rig.one().stamp(), first.stamp());
    assert!(rig.now >= first.timeout, "{:?} of {:?}", rig.now, first.timeout);
    rig.answer_call(&first, 4);
    assert!(rig.ended.is_empty(), "a late report is ignored");
}

#[test]
fn an_expired_session_is_replaced_where_nothing_was_lost() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let first = rig.one();
    rig.refuse(&first, Reason::SessionExpired);
    rig.open(8);
    let second = rig.one();
    let stamp = Stamp { session: SessionId(8), sequence: Sequence(1), acknowledged: Sequence(0) };
    assert_eq!(second.stamp(), stamp);
    rig.answer_call(&second, 4);
    assert_eq!(rig.end(), Ok(4));
}

#[test]
fn an_expired_session_after_a_lost_sending_leaves_the_outcome_unknown() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let first = rig.one();
    rig.lose(&first);
    rig.wait(SECOND);
    let second = rig.one();
    rig.refuse(&second, Reason::SessionExpired);
    assert!(matches!(rig.end(), Err(Error::CheckOutcome { .. })));
    rig.start(Kind::Write);
    rig.open(9);
    assert_eq!(rig.one().stamp().session, SessionId(9), "the next write has another session");
}

#[test]
fn a_node_that_never_knows_the_session_is_not_asked_in_a_loop() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let mut at = Vec::new();
    for session in 10..15 {
        let write = rig.take(|request| matches!(request, Request::Call { .. }));
        at.push(rig.now);
        rig.refuse(&write, Reason::SessionExpired);
        rig.wait(SECOND);
        rig.open(session);
    }
    assert!(at[1] == at[0] && at[2] > at[1] && at[4] > at[3], "only the first time without a delay: {at:?}");
}

#[test]
fn what_is_refused_for_good_ends_at_once_and_says_so() {
    for reason in [Reason::Limit, Reason::CrossShard, Reason::Invalid, Reason::SequenceReused] {
        let mut rig = Rig::opened(Config::default());
        rig.start(Kind::Write);
        let sent = rig.one();
        rig.refuse(&sent, reason);
        let Err(Error::ChangeRequest { last }) = rig.end() else { panic!("{reason:?}") };
        assert_eq!(last.cause, Cause::Refused(reason));
        assert_eq!(&*last.address, "n1:1");
    }
}

#[test]
fn no_refusal_after_a_lost_sending_says_not_executed() {
    for reason in [Reason::Limit, Reason::SequenceForgotten, Reason::SequenceReused, Reason::Invalid] {
        let mut rig = Rig::opened(Config::default());
        rig.start(Kind::Write);
        let first = rig.one();
        rig.lose(&first);
        rig.wait(SECOND);
        let second = rig.one();
        rig.refuse(&second, reason);
        assert!(matches!(rig.end(), Err(Error::CheckOutcome { .. })), "{reason:?}");
    }
}

#[test]
fn a_forgotten_sequence_is_never_called_not_executed() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let sent = rig.one();
    rig.refuse(&sent, Reason::SequenceForgotten);
    assert!(matches!(rig.end(), Err(Error::CheckOutcome { .. })));
}

#[test]
fn a_node_that_does_not_know_the_outcome_is_asked_again_and_not_shunned() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let first = rig.one();
    rig.event(Event::Unknown { attempt: first.attempt, leader: Some(NodeId(2)), detail: String::new() });
    rig.wait(SECOND);
    let second = rig.one();
    assert_eq!((second.stamp(), &*rig.policy.address(second.target)), (first.stamp(), "n2:1"));
    rig.refuse(&second, Reason::Limit);
    assert!(matches!(rig.end(), Err(Error::CheckOutcome { .. })));
}

#[test]
fn the_deadline_tells_refused_from_lost() {
    let mut refused = Rig::opened(Config::default());
    refused.start_for(Kind::Write, SECOND);
    while refused.ended.is_empty() {
        let sent = refused.one();
        refused.refuse(&sent, Reason::NoLeader);
        refused.wait(2 * SECOND);
    }
    assert!(refused.now <= SECOND, "{:?}", refused.now);
    assert!(matches!(refused.end(), Err(Error::TryAgain { last: Some(_) })));

    let mut silent = Rig::opened(Config::default());
    silent.start_for(Kind::Write, SECOND);
    assert_eq!(silent.one().timeout, SECOND, "no sending outlives its call");
    silent.wait(2 * SECOND);
    assert_eq!(silent.now, SECOND);
    assert!(matches!(silent.end(), Err(Error::CheckOutcome { .. })));
}

#[test]
fn a_write_without_a_stamp_is_sent_again_only_if_it_was_not_executed() {
    let mut rig = Rig::routed(Config::default());
    rig.start(Kind::WriteOnce);
    let first = rig.one();
    assert_eq!(first.request, Request::Call { payload: 1, stamp: None });
    rig.refuse(&first, Reason::NotLeader);
    rig.wait(SECOND);
    let second = rig.one();
    rig.event(Event::Unreached { attempt: second.attempt, detail: String::new() });
    rig.wait(SECOND);
    let third = rig.one();
    rig.lose(&third);
    assert!(matches!(rig.end(), Err(Error::CheckOutcome { .. })));
    assert!(rig.sent.is_empty());
}

#[test]
fn a_read_is_sent_again_freely_and_never_ends_unknown() {
    let mut rig = Rig::routed(Config::default());
    rig.start_for(Kind::Read, SECOND);
    while rig.ended.is_empty() {
        let sent = rig.one();
        rig.lose(&sent);
        rig.wait(2 * SECOND);
    }
    assert!(matches!(rig.end(), Err(Error::TryAgain { last: Some(_) })));
}

#[test]
fn overload_is_waited_out_and_named() {
    let mut rig = Rig::opened(Config::default());
    rig.start_for(Kind::Write, 3 * SECOND);
    let first = rig.one();
    let refusal = Refusal { retry_after: Some(SECOND), ..Refusal::of(Reason::Overloaded) };
    rig.event(Event::Refused { attempt: first.attempt, refusal });
    rig.wait(2 * SECOND);
    assert_eq!(rig.now, SECOND, "what the node asked for");
    let second = rig.one();
    assert_eq!(second.target, first.target, "nobody but the leader can help");
    let refusal = Refusal { retry_after: Some(60 * SECOND), ..Refusal::of(Reason::Overloaded) };
    rig.event(Event::Refused { attempt: second.attempt, refusal });
    assert!(matches!(rig.end(), Err(Error::SlowDown { last: Some(_) })), "no time is left to wait for");
}

#[test]
fn a_full_disk_is_told_at_once_unless_a_sending_was_lost() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let sent = rig.one();
    rig.refuse(&sent, Reason::DiskFull);
    assert!(matches!(rig.end(), Err(Error::FreeSpace { .. })));
    rig.start(Kind::Write);
    let sent = rig.one();
    rig.lose(&sent);
    rig.wait(SECOND);
    let sent = rig.one();
    rig.refuse(&sent, Reason::DiskFull);
    assert!(rig.ended.is_empty());
    rig.wait(SECOND);
    let sent = rig.one();
    rig.answer_call(&sent, 2);
    assert_eq!(rig.end(), Ok(2));
}

#[test]
fn a_full_window_makes_writes_wait_in_order() {
    let mut rig = Rig::opened(Config { window_max: 2, ..Config::default() });
    let ids: Vec<_> = (0..4).map(|_| rig.start(Kind::Write)).collect();
    assert_eq!(rig.sent.len(), 2);
    let (first, second) = (rig.sent.remove(0), rig.sent.remove(0));
    rig.answer_call(&second, 2);
    assert!(rig.sent.is_empty(), "the first is still unanswered");
    rig.answer_call(&first, 1);
    assert_eq!(rig.sent.len(), 2);
    let acknowledged: Vec<_> = rig.sent.iter().map(|sent| sent.stamp().acknowledged.0).collect();
    assert_eq!(acknowledged, [3, 3]);
    for sent in std::mem::take(&mut rig.sent) {
        rig.answer_call(&sent, 0);
    }
    let ended: Vec<_> = rig.ended.iter().map(|(id, _)| *id).collect();
    assert_eq!(ended, [ids[1], ids[0], ids[2], ids[3]]);
}

#[test]
fn a_call_that_was_given_up_makes_room_in_the_window() {
    let mut rig = Rig::opened(Config { window_max: 1, ..Config::default() });
    rig.start_for(Kind::Write, SECOND);
    rig.start(Kind::Write);
    rig.sent.clear();
    rig.wait(2 * SECOND);
    assert!(matches!(rig.end(), Err(Error::CheckOutcome { .. })));
    let next = rig.one().stamp();
    assert_eq!((next.sequence, next.acknowledged), (Sequence(3), Sequence(2)));
}

#[test]
fn more_calls_than_the_limit_are_turned_away() {
    let mut rig = Rig::new(Config { calls_max: 1, ..Config::default() });
    rig.start(Kind::Read);
    rig.start(Kind::Read);
    assert_eq!(rig.end(), Err(Error::SlowDown { last: None }));
}

#[test]
fn an_idle_session_is_kept_alive() {
    let mut rig = Rig::opened(Config::default());
    rig.now = 15 * SECOND;
    rig.start(Kind::Write);
    let write = rig.one();
    rig.answer_call(&write, 2);
    rig.ended.clear();
    rig.wait(60 * SECOND);
    assert_eq!(rig.now, 35 * SECOND, "a third of the ttl after the last write");
    let kept = rig.one();
    assert_eq!(kept.request, Request::KeepAlive { session: SessionId(7), acknowledged: Sequence(2) });
    rig.lose(&kept);
    rig.wait(SECOND);
    let again = rig.one();
    assert_eq!(again.request, kept.request);
    rig.answer(&again, Answer::KeptAlive { ttl: 30 * SECOND });
    let answered_at = rig.now;
    rig.wait(60 * SECOND);
    assert_eq!(rig.now, answered_at + 10 * SECOND, "by the ttl that the node named");
    let kept = rig.one();
    rig.refuse(&kept, Reason::SessionExpired);
    rig.wait(60 * SECOND);
    assert!(rig.sent.is_empty(), "a session that is gone is not kept alive: {:?}", rig.sent);
    rig.start(Kind::Write);
    rig.open(8);
    assert_eq!(rig.one().stamp().session, SessionId(8));
}

#[test]
fn a_session_that_cannot_be_opened_ends_the_writes_that_wait() {
    let mut rig = Rig::routed(Config::default());
    rig.start(Kind::Write);
    let open = rig.one();
    rig.refuse(&open, Reason::Limit);
    assert!(matches!(rig.end(), Err(Error::ChangeRequest { .. })));
    rig.start_for(Kind::Write, SECOND);
    let open = rig.one();
    rig.lose(&open);
    rig.wait(SECOND);
    assert!(matches!(rig.one().request, Request::Open { .. }), "a lost Open is sent again");
    rig.wait(SECOND);
    let Err(Error::TryAgain { last: Some(last) }) = rig.end() else { panic!("nothing was ever sent") };
    assert_eq!(last.cause, Cause::Unanswered);
}

#[test]
fn a_session_of_another_shard_is_not_used() {
    let mut rig = Rig::routed(Config::default());
    rig.start(Kind::Write);
    let open = rig.one();
    rig.answer(&open, Answer::Opened { session: SessionId(5), ttl: SECOND, shard: ShardId(3) });
    assert!(rig.sent.iter().all(|sent| !matches!(sent.request, Request::Call { .. })), "{:?}", rig.sent);
    rig.wait(SECOND);
    rig.open(6);
    assert_eq!(rig.one().stamp().session, SessionId(6));
}

#[test]
fn without_any_node_nothing_was_executed() {
    let mut rig = Rig::new(Config::default());
    rig.start_for(Kind::Write, SECOND);
    while rig.ended.is_empty() {
        let sent = rig.one();
        assert_eq!(sent.request, Request::Shards);
        rig.event(Event::Unreached { attempt: sent.attempt, detail: "refused".into() });
        rig.wait(2 * SECOND);
    }
    let Err(Error::TryAgain { last: Some(last) }) = rig.end() else { panic!("nothing was ever sent") };
    assert_eq!(last.cause, Cause::Unreached);
}

#[test]
fn closing_finishes_the_calls_and_closes_the_sessions() {
    let mut rig = Rig::opened(Config::default());
    rig.start(Kind::Write);
    let write = rig.one();
    rig.policy.close(rig.now, 1);
    rig.collect();
    assert!(rig.sent.is_empty() && !rig.policy.is_closed());
    rig.start(Kind::Read);
    assert_eq!(rig.end(), Err(Error::Reconnect));
    rig.answer_call(&write, 2);
    assert_eq!(rig.end(), Ok(2));
    let close = rig.one();
    assert_eq!(close.request, Request::Close { session: SessionId(7) });
    assert!(!rig.policy.is_closed());
    rig.answer(&close, Answer::Closed);
    assert!(rig.policy.is_closed());
}

#[test]
fn closing_does_not_wait_for_ever() {
    let mut rig = Rig::opened(Config::default());
    rig.policy.close(rig.now, 1);
    rig.collect();
    rig.sent.clear();
    rig.wait(10 * SECOND);
    assert!(rig.policy.is_closed());
    assert_eq!(rig.policy.wake_at(), None);
}
