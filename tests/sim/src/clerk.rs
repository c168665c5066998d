//! The product's Clerk in the simulator: its policy, driven over simulated calls.
//!
//! A [`SimClerk`] lives in a group of its own and makes one call at a time. What it sends may be lost before
//! it reaches a node, its answer may be lost on the way back, and the node may go down in between.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use distribkv::client::{
    Action, Answer, AttemptId, CallId, Config, Error, Event, Policy, Reason, Refusal, Request, ShardPlace,
    Spec, Table,
};
use distribkv::env::signal::Signal;
use distribkv::ids::{NodeId, ShardId};
use distribkv::kv::{Command, Query, RequestId, Write};
use distribkv::route::call::{self, Answered, Body, Consistency, Failure, FailureKind};
use distribkv::route::slot;
use futures_lite::future::or;

use crate::cluster::Cluster;
use crate::executor::{Group, WorldHandle};
use crate::random::{Chance, Random};

/// What a call of the simulator asks.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A change.
    Write(Write),
    /// A linearizable read.
    Query(Query),
}

/// A client of the cluster.
pub struct SimClerk {
    world: WorldHandle,
    cluster: Cluster,
    group: Group,
    policy: Policy<Payload, Answered>,
    random: Random,
    events: Rc<Events>,
    loss: Chance,
}

#[derive(Default)]
struct Events {
    queue: RefCell<VecDeque<Event<Answered>>>,
    signal: Signal,
}

impl Events {
    fn push(&self, event: Event<Answered>) {
        self.queue.borrow_mut().push_back(event);
        self.signal.raise();
    }
}

impl SimClerk {
    /// A client in this group, whose sendings and answers are lost this often.
    #[must_use]
    pub fn new(world: &WorldHandle, cluster: &Cluster, group: Group, config: Config, loss: Chance) -> Self {
        let endpoints: Vec<String> = cluster.nodes().into_iter().map(address).collect();
        Self {
            world: world.clone(),
            cluster: cluster.clone(),
            group,
            policy: Policy::new(config, &endpoints),
            random: world.random(0x636c_6572_6b00_0000 | u64::from(group.node.0)),
            events: Rc::default(),
            loss,
        }
    }

    /// Makes one call and sees it to its end.
    pub async fn call(&mut self, spec: Spec<Payload>) -> Result<Answered, Error> {
        let (now, random) = (self.now(), self.random.draw());
        let call = self.policy.start(now, random, spec);
        loop {
            if let Some(result) = self.act(call) {
                return result;
            }
            self.wait().await;
        }
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.world.time().0)
    }

    /// Waits for an event or a timer, and tells the policy.
    async fn wait(&mut self) {
        let due = self.policy.wake_at().map_or(Duration::from_secs(1), |at| at.saturating_sub(self.now()));
        // The world's clock counts whole microseconds: one more, so that what is due is past.
        let due = due + Duration::from_micros(1);
        or(self.events.signal.wait(), self.world.sleep(self.group, due)).await;
        let events = std::mem::take(&mut *self.events.queue.borrow_mut());
        for event in events {
            let (now, random) = (self.now(), self.random.draw());
            self.policy.event(now, random, event);
        }
        let (now, random) = (self.now(), self.random.draw());
        self.policy.tick(now, random);
    }

    /// Carries out what the policy wants; the call's end where it has come.
    fn act(&mut self, waited_for: CallId) -> Option<Result<Answered, Error>> {
        while let Some(action) = self.policy.next_action() {
            match action {
                Action::Send { attempt, target, request, timeout } => {
                    let node = node_of(&self.policy.address(target));
                    self.send(attempt, node, request, timeout);
                }
                Action::Finish { call, result } => {
                    assert_eq!(call, waited_for, "a client makes one call at a time");
                    return Some(result);
                }
            }
        }
        None
    }

    fn send(&mut self, attempt: AttemptId, node: NodeId, request: Request<Payload>, timeout: Duration) {
        if !self.cluster.is_up(node) {
            return self.events.push(Event::Unreached { attempt, detail: "the node is down".into() });
        }
        if let Request::Shards = request {
            let answer = Answer::Table(self.table(node));
            return self.events.push(Event::Answered { attempt, answer });
        }
        let (request_lost, answer_lost) = (self.random.happens(self.loss), self.random.happens(self.loss));
        if request_lost {
            return;
        }
        let (shard, call) = self.to_call(request);
        let core = self.random.index(4);
        let answer = self.cluster.call((node, core), (shard, call), timeout);
        let events = Rc::clone(&self.events);
        self.world.spawn(self.group, async move {
            let event = match answer.await {
                Some(Ok(answered)) => to_answer(attempt, answered),
                Some(Err(failure)) => to_event(attempt, &failure),
                None => Event::Lost { attempt, detail: "the node went down".into() },
            };
            if !answer_lost {
                events.push(event);
            }
        });
    }

    fn to_call(&self, request: Request<Payload>) -> (ShardId, call::Request) {
        let shards = self.cluster.config().shards;
        let shard_of = |key: &[u8]| slot::shard_of_key(key, shards);
        match request {
            Request::Call { payload: Payload::Write(write), stamp } => {
                let shard = shard_of(&key_of_write(&write));
                let id = stamp.map(|stamp| RequestId {
                    session: stamp.session,
                    sequence: stamp.sequence,
                    acknowledged: stamp.acknowledged,
                });
                (shard, call::Request::Command(Command::Write { id, write }))
            }
            Request::Call { payload: Payload::Query(query), .. } => {
                let shard = shard_of(&key_of_query(&query));
                (shard, call::Request::Query { query, consistency: Consistency::Linearizable })
            }
            Request::Open { key, ttl } => {
                let ttl_ms = u64::try_from(ttl.as_millis()).expect("a short time");
                (shard_of(&key), call::Request::Command(Command::OpenSession { ttl_ms }))
            }
            Request::KeepAlive { session, acknowledged } => {
                let shard = distribkv::kv::session_shard(session);
                (shard, call::Request::Command(Command::KeepAlive { session, acknowledged }))
            }
            Request::Close { session } => {
                let shard = distribkv::kv::session_shard(session);
                (shard, call::Request::Command(Command::CloseSession { session }))
            }
            Request::Shards => unreachable!("the table is made without a call"),
        }
    }

    fn table(&self, node: NodeId) -> Table {
        let shards = self.cluster.config().shards;
        let known = self.cluster.directory(node);
        let places = (0..shards).map(ShardId).map(|shard| {
            let slots = slot::slots_of(shard, shards);
            let leader = known.get(shard.0 as usize).and_then(|(_, known)| known.leader);
            ShardPlace {
                shard,
                first_slot: u32::from(slots.start().0),
                last_slot: u32::from(slots.end().0),
                leader,
            }
        });
        let nodes = self.cluster.nodes().into_iter().map(|node| (node, address(node))).collect();
        Table::new(places.collect(), nodes).expect("the shards cover every slot once")
    }
}

fn address(node: NodeId) -> String {
    format!("node-{node}:1")
}

fn node_of(address: &str) -> NodeId {
    let number = address.trim_start_matches("node-").trim_end_matches(":1");
    NodeId(number.parse().expect("an address made by `address`"))
}

fn key_of_write(write: &Write) -> Bytes {
    match write {
        Write::Put { key, .. } | Write::Append { key, .. } | Write::Delete { key, .. } => key.clone(),
        Write::Txn(txn) => {
            txn.conditions.first().expect("a Txn of the simulator has a condition").key.clone()
        }
    }
}

fn key_of_query(query: &Query) -> Bytes {
    match query {
        Query::Get { key } => key.clone(),
        Query::Scan { start, .. } => start.clone(),
        Query::Txn(_) => unreachable!("the simulator sends no read-only Txn"),
    }
}

fn to_answer(attempt: AttemptId, answered: Answered) -> Event<Answered> {
    use distribkv::kv::Answer as Kv;
    let answer = match answered.body {
        Body::Command(Kv::SessionOpened { session, ttl_ms }) => {
            Answer::Opened { session, ttl: Duration::from_millis(ttl_ms), shard: answered.shard }
        }
        Body::Command(Kv::KeptAlive { ttl_ms }) => Answer::KeptAlive { ttl: Duration::from_millis(ttl_ms) },
        Body::Command(Kv::SessionClosed) => Answer::Closed,
        _ => Answer::Call { served_by: Some(answered.node), answer: answered },
    };
    Event::Answered { attempt, answer }
}

/// What a failure says to a client, as the edge would put it into a status.
fn to_event(attempt: AttemptId, failure: &Failure) -> Event<Answered> {
    use distribkv::kv::Refusal as Kv;
    let detail = format!("{:?}", failure.kind);
    let reason = match failure.kind {
        FailureKind::OutcomeUnknown | FailureKind::DeadlineExceeded => {
            return Event::Unknown { attempt, leader: failure.leader, detail };
        }
        FailureKind::NotProposed => Reason::NotLeader,
        FailureKind::NoLeader | FailureKind::TransferFailed => Reason::NoLeader,
        FailureKind::Overloaded => Reason::Overloaded,
        FailureKind::DiskFull { .. } | FailureKind::QuorumDiskFull => Reason::DiskFull,
        FailureKind::ShuttingDown => Reason::ShuttingDown,
        FailureKind::Damaged => Reason::Damaged,
        FailureKind::Refused(Kv::SessionExpired) => Reason::SessionExpired,
        FailureKind::Refused(Kv::SequenceForgotten) => Reason::SequenceForgotten,
        FailureKind::Refused(Kv::SequenceReused) => Reason::SequenceReused,
        FailureKind::Refused(Kv::TooManyUnacknowledged | Kv::TooManyAnswers | Kv::TooManySessions) => {
            Reason::Overloaded
        }
        FailureKind::Refused(Kv::Limit { .. }) => Reason::Limit,
        FailureKind::Refused(Kv::Malformed(_)) => Reason::Invalid,
    };
    Event::Refused { attempt, refusal: Refusal { leader: failure.leader, detail, ..Refusal::of(reason) } }
}
