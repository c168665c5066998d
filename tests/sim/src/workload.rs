//! What the clients do while everything goes wrong, and what they note.
//!
//! Each client makes one operation after another on a few keys and notes invocation and outcome in the
//! history. Values appended are tokens that are told apart, so that a second application shows. Some write
//! exactly-once through sessions, some without; some use ordered streams.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use distribkv::client::backoff::Backoff;
use distribkv::client::{Config, Error, Kind, Route, Spec};
use distribkv::ids::{NodeId, Revision};
use distribkv::kv::{self, Command, Query, Write};
use distribkv::route::call::{Answered, Body, Consistency, FailureKind, Request};
use distribkv::route::slot;

use crate::clerk::{Payload, SimClerk};
use crate::cluster::Cluster;
use crate::executor::WorldHandle;
use crate::history::{Answer, Call, Client, Condition, History, Outcome, Previous, Seen, token};
use crate::random::{Chance, Random};

/// What the clients of a run are like.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// Clients that make one operation at a time.
    pub clients: u32,
    /// Clients that use ordered streams.
    pub streams: u32,
    /// Keys of all of them.
    pub keys: u32,
    /// Operations of each client.
    pub operations: u64,
    /// How often a sending, or its answer, is lost between client and node.
    pub loss: Chance,
    /// How long a client waits between operations, at most.
    pub pause_us_max: u64,
    /// A mistake of the Clerk, made on purpose.
    #[cfg(debug_assertions)]
    pub planted: Option<distribkv::client::PlantedBug>,
}

/// The clients at work, and what they have noted.
#[derive(Clone)]
pub struct Workload {
    state: Rc<RefCell<State>>,
}

struct State {
    history: History,
    running: u32,
}

/// The first node id that stands for a client.
const FIRST_CLIENT: u32 = 1000;

/// How long a call may take in all.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What the keys of streams begin with.
const STREAM_KEY: &str = "stream-";

/// Whether a key is one that a single ordered stream appends to.
#[must_use]
pub fn is_stream_key(key: &[u8]) -> bool {
    key.starts_with(STREAM_KEY.as_bytes())
}

/// Operations that a stream submits at once.
pub const STREAM_BURST: u64 = 8;

impl Workload {
    /// Starts the clients.
    #[must_use]
    pub fn start(world: &WorldHandle, cluster: &Cluster, config: &WorkloadConfig) -> Self {
        let running = config.clients + config.streams;
        let state = State { history: History::default(), running };
        let workload = Self { state: Rc::new(RefCell::new(state)) };
        for number in 0..config.clients {
            workload.spawn_client(world, cluster, config, number);
        }
        for number in config.clients..running {
            workload.spawn_stream(world, cluster, config, number);
        }
        workload
    }

    /// Whether every client has made its operations.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state.borrow().running == 0
    }

    /// What was noted so far.
    pub fn with_history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.state.borrow().history)
    }

    fn spawn_client(&self, world: &WorldHandle, cluster: &Cluster, config: &WorkloadConfig, number: u32) {
        let group = world.start(NodeId(FIRST_CLIENT + number));
        let policy = Config {
            session_ttl: Duration::from_secs(2),
            window_max: 16,
            attempt_timeout: Duration::from_millis(700),
            backoff: Backoff { first: Duration::from_millis(5), most: Duration::from_millis(200) },
            #[cfg(debug_assertions)]
            planted_bug: config.planted,
            ..Config::default()
        };
        let mut clerk = SimClerk::new(world, cluster, group, policy, config.loss);
        let mut random = world.random(0x776f_726b_0000_0000 | u64::from(number));
        let (workload, world, config) = (self.clone(), world.clone(), config.clone());
        let kind = if number % 3 == 2 { Kind::WriteOnce } else { Kind::Write };
        world.clone().spawn(group, async move {
            let client = Client(number);
            for step in 0..config.operations {
                let key = format!("key-{}", random.below(u64::from(config.keys)));
                let call = workload.draw_call((client, step), &key, &mut random);
                let id = workload.state.borrow_mut().history.invoke(
                    client,
                    key.as_bytes(),
                    call.clone(),
                    world.time().0,
                );
                let result = clerk.call(spec(kind, &key, &call)).await;
                workload.end(id, &call, result, world.time().0);
                world.sleep(group, Duration::from_micros(random.below(config.pause_us_max.max(1)))).await;
            }
            workload.state.borrow_mut().running -= 1;
        });
    }

    fn end(&self, id: crate::history::OperationId, call: &Call, result: Result<Answered, Error>, at_us: u64) {
        let outcome = match result {
            Ok(answered) => Outcome::Answered(noted(call, answered)),
            Err(Error::CheckOutcome { .. }) => Outcome::Unknown,
            Err(_) => Outcome::NotExecuted,
        };
        self.state.borrow_mut().history.end(id, outcome, at_us);
    }

    /// One operation of a client: mostly reads and appends, some of the rest. A comparison is with the
    /// revision that the key's last answered change made, so that some hold.
    fn draw_call(&self, (client, step): (Client, u64), key: &str, random: &mut Random) -> Call {
        let value = token(client, step);
        let condition = || Condition::ModRevision(self.last_revision(key));
        match random.below(20) {
            0..7 => Call::Get,
            7..14 => Call::Append { value, condition: Condition::Always },
            14 => Call::Append { value, condition: condition() },
            15 | 16 => Call::Put { value, condition: Condition::Always },
            17 | 18 => Call::Put { value, condition: condition() },
            _ => Call::Delete { condition: Condition::Always },
        }
    }

    fn last_revision(&self, key: &str) -> u64 {
        let state = self.state.borrow();
        let of_key =
            state.history.operations().iter().rev().take(200).filter(|made| made.key == key.as_bytes());
        of_key
            .filter_map(|made| match &made.outcome {
                Outcome::Answered(Answer::Changed { revision, .. }) if *revision > 0 => Some(*revision),
                Outcome::Answered(Answer::Got(Some(seen))) => Some(seen.mod_revision),
                Outcome::Answered(_) | Outcome::NotExecuted | Outcome::Unknown => None,
            })
            .next()
            .unwrap_or(0)
    }

    /// A client that submits bursts of appends and reads on an ordered stream, on a key of its own, and sees
    /// its own order in every answer.
    fn spawn_stream(&self, world: &WorldHandle, cluster: &Cluster, config: &WorkloadConfig, number: u32) {
        let group = world.start(NodeId(FIRST_CLIENT + number));
        let mut random = world.random(0x7374_7265_0000_0000 | u64::from(number));
        let (workload, world, cluster, config) =
            (self.clone(), world.clone(), cluster.clone(), config.clone());
        world.clone().spawn(group, async move {
            let client = Client(number);
            let key = format!("{STREAM_KEY}{number}");
            for burst in 0..config.operations / STREAM_BURST {
                workload.burst((client, burst), &key, &cluster, (&world, &mut random)).await;
                world.sleep(group, Duration::from_micros(random.below(config.pause_us_max.max(1)))).await;
            }
            workload.state.borrow_mut().running -= 1;
        });
    }

    async fn burst(
        &self,
        (client, burst): (Client, u64),
        key: &str,
        cluster: &Cluster,
        (world, random): (&WorldHandle, &mut Random),
    ) {
        let shard = slot::shard_of(slot::slot_of(key.as_bytes()), cluster.config().shards);
        let calls: Vec<Call> = (0..STREAM_BURST)
            .map(|at| {
                let value = token(client, burst * STREAM_BURST + at);
                if at % 3 == 2 { Call::Get } else { Call::Append { value, condition: Condition::Always } }
            })
            .collect();
        let nodes = cluster.nodes();
        let node = nodes[random.index(nodes.len())];
        let requests = calls.iter().map(|call| (shard, to_request(key, call))).collect();
        let ids: Vec<_> = calls
            .iter()
            .map(|call| {
                let mut state = self.state.borrow_mut();
                state.history.invoke(client, key.as_bytes(), call.clone(), world.time().0)
            })
            .collect();
        let answers = cluster.pipeline((node, random.index(4)), requests, CALL_TIMEOUT);
        for ((answer, id), call) in answers.into_iter().zip(ids).zip(&calls) {
            let outcome = match answer.await {
                Some(Ok(answered)) => Outcome::Answered(noted(call, answered)),
                Some(Err(failure)) if is_certain(failure.kind) => Outcome::NotExecuted,
                Some(Err(_)) | None => Outcome::Unknown,
            };
            self.state.borrow_mut().history.end(id, outcome, world.time().0);
        }
    }
}

fn is_certain(kind: FailureKind) -> bool {
    !matches!(kind, FailureKind::OutcomeUnknown | FailureKind::DeadlineExceeded)
}

fn to_request(key: &str, call: &Call) -> Request {
    match payload(key, call) {
        Payload::Write(write) => Request::Command(Command::Write { id: None, write }),
        Payload::Query(query) => Request::Query { query, consistency: Consistency::Linearizable },
    }
}

fn spec(kind: Kind, key: &str, call: &Call) -> Spec<Payload> {
    let payload = payload(key, call);
    let kind = match payload {
        Payload::Write(_) => kind,
        Payload::Query(_) => Kind::Read,
    };
    let route = Route::Key(Bytes::copy_from_slice(key.as_bytes()));
    Spec { kind, route, payload, timeout: CALL_TIMEOUT }
}

fn payload(key: &str, call: &Call) -> Payload {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let revision = |condition: &Condition| match condition {
        Condition::ModRevision(revision) => Some(Revision(*revision)),
        Condition::Always | Condition::Version(_) | Condition::Value(_) => None,
    };
    match call {
        Call::Get => Payload::Query(Query::Get { key }),
        Call::Put { value, condition } => Payload::Write(Write::Put {
            key,
            value: Bytes::copy_from_slice(value),
            if_mod_revision: revision(condition),
            return_previous: kv::Previous::Return,
        }),
        Call::Append { value, condition } => Payload::Write(Write::Append {
            key,
            value: Bytes::copy_from_slice(value),
            if_mod_revision: revision(condition),
        }),
        Call::Delete { condition } => Payload::Write(Write::Delete {
            key,
            if_mod_revision: revision(condition),
            return_previous: kv::Previous::Return,
        }),
    }
}

/// An answer as the history knows it.
fn noted(call: &Call, answered: Answered) -> Answer {
    let revision = answered.revision.0;
    match answered.body {
        Body::Query(kv::QueryAnswer::Get(found)) => Answer::Got(found.map(seen)),
        Body::Command(kv::Answer::Put { succeeded: true, previous, version }) => {
            Answer::Changed { revision, version, length: None, previous: before(previous) }
        }
        Body::Command(kv::Answer::Put { succeeded: false, previous, .. }) => {
            Answer::Refused { previous: before(previous) }
        }
        Body::Command(kv::Answer::Append { succeeded: true, length, version }) => {
            Answer::Changed { revision, version, length: Some(length), previous: Previous::Untold }
        }
        Body::Command(kv::Answer::Append { succeeded: false, .. }) => {
            Answer::Refused { previous: Previous::Untold }
        }
        Body::Command(kv::Answer::Delete { succeeded: true, existed, previous }) => {
            Answer::Deleted { revision, existed, previous: before(previous) }
        }
        Body::Command(kv::Answer::Delete { succeeded: false, previous, .. }) => {
            Answer::Refused { previous: before(previous) }
        }
        body => panic!("{call} was answered with {body:?}"),
    }
}

fn before(previous: Option<kv::KeyValue>) -> Previous {
    previous.map_or(Previous::Missing, |found| Previous::Was(seen(found)))
}

fn seen(found: kv::KeyValue) -> Seen {
    Seen { value: found.value.to_vec(), version: found.version, mod_revision: found.mod_revision.0 }
}
