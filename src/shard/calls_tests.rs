//! Calls on their way: what each ending of a sending comes to.

use std::rc::Rc;

use std::future::Future as _;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::ids::{CoreId, Revision, Sequence, SessionId};
use crate::kv::{self, Answer, Query, Refusal, RequestId, Write};
use crate::raft::ReadMode;
use crate::route::call::Body;
use crate::route::place::{Layout, Place};
use crate::shard::config::{Limits, Times};
use crate::shard::directory::{Known, News};
use crate::shard::permits::{NodePermits, Permits};

const SHARD: ShardId = ShardId(0);
const OTHER: NodeId = NodeId(2);

struct Bench {
    calls: Calls,
    directory: Directory,
    now: Instant,
    out: Vec<Sending>,
}

impl Bench {
    fn new(planted: Option<PlantedBug>) -> Self {
        let config = Config {
            place: Place { node: NodeId(1), core: CoreId(0) },
            incarnation: 1,
            layout: Layout::new(3, 1, 1, 1),
            times: Times::of(Duration::from_secs(1), Duration::from_millis(100)),
            limits: Limits { calls_max: 4, ..Limits::default() },
            read_mode: ReadMode::ReadIndex,
            kv: kv::Limits::DEFAULT,
            snapshots: crate::shard::config::Snapshots::default(),
            permits: NodePermits { snapshots: Permits::new(1, 1), fetches: Permits::new(1, 1) },
            disk_reserve_bytes: 0,
            scrub: crate::shard::config::Scrub::default(),
            planted,
            planted_raft: None,
            planted_kv: None,
        };
        let mut bench = Self {
            calls: Calls::new(Rc::new(config)),
            directory: Directory::new(1),
            now: Instant(1_000_000),
            out: Vec::new(),
        };
        bench.leader(Some(OTHER), 1);
        bench
    }

    fn leader(&mut self, leader: Option<NodeId>, term: u64) {
        let known = Known { leader, term: Term(term), is_serving: leader.is_some() };
        self.directory.learn(News { shard: SHARD, known });
        let moment = Moment { now: self.now, directory: &self.directory };
        self.calls.leader_changed(SHARD, &moment, &mut self.out);
    }

    fn start(&mut self, request: Request, stream: Option<u64>) -> AnswerReceiver<Outcome> {
        self.start_within(Duration::from_secs(5), request, stream)
    }

    fn start_within(
        &mut self,
        wait: Duration,
        request: Request,
        stream: Option<u64>,
    ) -> AnswerReceiver<Outcome> {
        let moment = Moment { now: self.now, directory: &self.directory };
        let deadline = self.now + wait;
        self.calls.start((SHARD, request), deadline, stream, &moment, &mut self.out)
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let moment = Moment { now: self.now, directory: &self.directory };
        self.calls.tick(&moment, &mut self.out);
    }

    fn reply(&mut self, call: &Call, outcome: Outcome) {
        let moment = Moment { now: self.now, directory: &self.directory };
        self.calls.reply(Reply { id: call.id, outcome }, &moment, &mut self.out);
    }

    fn link_down(&mut self) {
        let moment = Moment { now: self.now, directory: &self.directory };
        self.calls.link_down(OTHER, &moment, &mut self.out);
    }

    /// The only call that was sent since the last look.
    fn sent(&mut self) -> Call {
        assert_eq!(self.out.len(), 1, "one sending: {:?}", self.out);
        self.out.remove(0).1
    }
}

fn change(session: Option<u64>) -> Request {
    let id = session.map(|session| RequestId {
        session: SessionId(session),
        sequence: Sequence(1),
        acknowledged: Sequence(0),
    });
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    Request::Command(Command::Write { id, write: Write::Append { key, value, if_mod_revision: None } })
}

fn read() -> Request {
    let query = Query::Get { key: Bytes::from_static(b"k") };
    Request::Query { query, consistency: Consistency::Linearizable }
}

fn done(call: &Call) -> Outcome {
    let answer = Answer::Append { succeeded: true, length: 1, version: 1 };
    Ok(Answered {
        node: OTHER,
        shard: call.shard,
        term: Term(1),
        revision: Revision(2),
        body: Body::Command(answer),
    })
}

fn failed(kind: FailureKind) -> Outcome {
    Err(Failure::of(kind))
}

/// What a call has ended in, `None` where it has not.
fn ended(receiver: &mut AnswerReceiver<Outcome>) -> Option<Result<Answered, FailureKind>> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(receiver).poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome.map(|outcome| outcome.map_err(|failure| failure.kind)),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn a_change_without_an_id_is_sent_once_and_its_loss_is_unknown() {
    let mut bench = Bench::new(None);
    let mut answer = bench.start(change(None), None);
    bench.sent();
    bench.link_down();
    assert_eq!(ended(&mut answer), Some(Err(FailureKind::OutcomeUnknown)));
    assert!(bench.out.is_empty(), "it is not sent again");
    assert_eq!(bench.calls.len(), 0);
}

#[test]
fn the_planted_resend_is_seen() {
    let mut bench = Bench::new(Some(PlantedBug::ResentWithoutAnswer));
    let _answer = bench.start(change(None), None);
    bench.sent();
    bench.link_down();
    assert_eq!(bench.out.len(), 1, "the mistake sends it again");
}

/// A change with an id whose first sending was lost, then refused.
fn lost_then_refused(planted: Option<PlantedBug>) -> Option<Result<Answered, FailureKind>> {
    let mut bench = Bench::new(planted);
    let mut answer = bench.start(change(Some(9)), None);
    bench.sent();
    bench.link_down();
    let again = bench.sent();
    bench.reply(&again, failed(FailureKind::Refused(Refusal::SessionExpired)));
    ended(&mut answer)
}

#[test]
fn after_a_lost_sending_nobody_says_not_executed() {
    assert_eq!(lost_then_refused(None), Some(Err(FailureKind::OutcomeUnknown)));
    let mistaken = lost_then_refused(Some(PlantedBug::NotExecutedAfterLostSending));
    assert_eq!(mistaken, Some(Err(FailureKind::Refused(Refusal::SessionExpired))), "the mistake says it");
}

#[test]
fn an_unproposed_change_is_handed_on_to_the_next_leader() {
    let mut bench = Bench::new(None);
    let mut answer = bench.start(change(None), None);
    let first = bench.sent();
    bench.reply(&first, failed(FailureKind::NotProposed));
    assert!(bench.out.is_empty(), "not before something is new");
    bench.leader(Some(NodeId(3)), 2);
    let second = bench.sent();
    assert_eq!(second.term, Some(Term(2)));
    assert!(second.id.number > first.id.number, "each sending has a number of its own");
    bench.reply(&first, done(&first));
    assert_eq!(ended(&mut answer), None, "an answer to the first sending is not the second's");
    bench.reply(&second, done(&second));
    assert!(matches!(ended(&mut answer), Some(Ok(_))));
}

#[test]
fn a_silent_leader_is_asked_again_only_for_what_may_be_sent_again() {
    let mut bench = Bench::new(None);
    let mut plain = bench.start(change(None), None);
    let mut with_id = bench.start(change(Some(9)), None);
    let mut reading = bench.start(read(), None);
    bench.out.clear();
    bench.pass(Duration::from_millis(2100));
    assert_eq!(bench.out.len(), 2, "the read and the change with an id");
    bench.pass(Duration::from_secs(4));
    for answer in [&mut plain, &mut with_id, &mut reading] {
        assert_eq!(ended(answer), Some(Err(FailureKind::DeadlineExceeded)));
    }
    assert_eq!(bench.calls.len(), 0);
}

#[test]
fn without_a_leader_it_is_said_before_the_deadline_that_there_is_none() {
    let mut bench = Bench::new(None);
    bench.leader(None, 2);
    let mut answer = bench.start(change(None), None);
    bench.pass(Duration::from_millis(4700));
    assert_eq!(ended(&mut answer), None);
    bench.pass(Duration::from_millis(150));
    assert_eq!(ended(&mut answer), Some(Err(FailureKind::NoLeader)));
}

/// Between two looks at a call lie up to two ticks, of 20 ms here.
#[test]
fn of_a_short_wait_it_is_said_three_ticks_before_the_deadline() {
    let mut bench = Bench::new(None);
    bench.leader(None, 2);
    let mut answer = bench.start_within(Duration::from_millis(200), change(None), None);
    bench.pass(Duration::from_millis(139));
    assert_eq!(ended(&mut answer), None);
    bench.pass(Duration::from_millis(1));
    assert_eq!(ended(&mut answer), Some(Err(FailureKind::NoLeader)));
    let mut shorter = bench.start_within(Duration::from_millis(10), change(None), None);
    bench.pass(Duration::from_millis(4));
    assert_eq!(ended(&mut shorter), None, "half of it is waited in any case");
}

#[test]
fn no_more_calls_are_held_than_the_limit() {
    let mut bench = Bench::new(None);
    let _held: Vec<_> = (0..4).map(|_| bench.start(read(), None)).collect();
    let mut beyond = bench.start(read(), None);
    assert_eq!(ended(&mut beyond), Some(Err(FailureKind::Overloaded)));
}

#[test]
fn a_refused_call_of_a_stream_holds_back_those_behind_it_until_all_came_back() {
    let mut bench = Bench::new(None);
    let stream = Some(bench.calls.open_stream());
    let _answers: Vec<_> = (0..3).map(|_| bench.start(change(None), stream)).collect();
    let sent: Vec<Call> = bench.out.drain(..).map(|(_, call)| call).collect();
    assert_eq!(
        sent.iter().map(|call| call.order.map(|order| order.position)).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
    bench.reply(&sent[0], failed(FailureKind::NotProposed));
    bench.reply(&sent[1], failed(FailureKind::NotProposed));
    bench.pass(Duration::from_millis(10));
    assert!(bench.out.is_empty(), "the third is still on its way");
    bench.reply(&sent[2], failed(FailureKind::NotProposed));
    bench.pass(Duration::from_millis(10));
    let orders: Vec<_> = bench.out.iter().filter_map(|(_, call)| call.order).collect();
    assert_eq!(
        orders.iter().map(|order| (order.epoch, order.position)).collect::<Vec<_>>(),
        [(1, 0), (1, 1), (1, 2)]
    );
}

#[test]
fn calls_without_a_leader_leave_half_of_the_places_to_others() {
    let mut bench = Bench::new(None);
    bench.leader(None, 1);
    let waiting: Vec<_> = (0..2).map(|_| bench.start(read(), None)).collect();
    let mut refused = bench.start(read(), None);
    assert_eq!(ended(&mut refused), Some(Err(FailureKind::Overloaded)), "half of the places are taken");
    drop(waiting);
    bench.pass(Duration::from_millis(10));
    assert_eq!(bench.calls.len(), 0, "nobody waits for those any more");
    let mut again = bench.start(read(), None);
    bench.leader(Some(OTHER), 2);
    let call = bench.sent();
    bench.reply(&call, done(&call));
    assert!(matches!(ended(&mut again), Some(Ok(_))));
}

#[test]
fn stale_reads_of_a_stream_take_the_way_of_its_changes() {
    let mut bench = Bench::new(None);
    let stream = bench.calls.open_stream();
    let Request::Query { query, .. } = read() else { panic!("a read is a query") };
    let stale = Request::Query { query, consistency: Consistency::Stale };
    let _answers: Vec<_> =
        [change(None), stale, change(None)].map(|request| bench.start(request, Some(stream))).into();
    let orders: Vec<_> = bench.out.iter().map(|(to, call)| (*to, call.order)).collect();
    let order = |position| Some(Order { stream, epoch: 0, position });
    assert_eq!(orders, [(OTHER, order(0)), (OTHER, order(1)), (OTHER, order(2))]);
}
