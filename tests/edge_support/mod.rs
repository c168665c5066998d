//! An edge on a real port, served from a map in memory, for the tests of the edge.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use distribkv::edge::changes::Changes;
use distribkv::edge::store::{
    BackupSource, Identity, LaneStatus, NodeAddress, PipelineOrder, ReplicaRole, ReplicaStatus, Routing,
    Serving, ShardRoute, Status, Store,
};
use distribkv::edge::{Edge, EdgeLimits, EdgeOptions, Services, accept};
use distribkv::env::executor::{CorePlacement, CoreThread, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::stages::{Stage, Stages};
use distribkv::env::{Env, Instant};
use distribkv::ids::{
    ClusterId, CoreId, Index, LaneId, NodeId, Revision, Sequence, SessionId, ShardId, Term,
};
use distribkv::kv::{
    Answer, Command, Comparison, Condition, KeyValue, Limits, Operation, OperationResult, Previous, Query,
    QueryAnswer, ReadTxn, Refusal, ScanKeys, Target, Txn, Write, session_id,
};
use distribkv::route::call::{Answered, Body, Failure, FailureKind, Request};
use distribkv::shard::TableFailure;
use tokio::io::DuplexStream;

/// The shards of every test's store.
pub const SHARDS: u32 = 5;

/// What a test asks of the edge from its own thread.
pub enum Order {
    /// Go away, with this much patience.
    Drain(Duration),
    /// Serve a service, or not.
    Serve(&'static str, Serving),
}

/// An edge that serves on a port of the loopback until it is dropped.
pub struct TestEdge {
    pub address: SocketAddr,
    orders: mpsc::Sender<Order>,
    core: Option<CoreThread<()>>,
    /// The first bytes of what was handed on as a peer's.
    pub peers: mpsc::Receiver<Bytes>,
}

impl TestEdge {
    pub fn start() -> Self {
        Self::start_with(EdgeLimits::DEFAULT)
    }

    pub fn start_with(limits: EdgeLimits) -> Self {
        let mut listeners = accept::bind("127.0.0.1", 0, 1).expect("the loopback has a free port");
        let address = listeners.addresses[0];
        let listener = listeners.cores.remove(0).remove(0);
        let (orders, inbox) = mpsc::channel();
        let (peers_in, peers) = mpsc::channel();
        let options = ExecutorOptions::new("test-edge", CorePlacement::Anywhere, 1);
        let core = start_executor(options, move || async move {
            let env = GlommioEnv::new().expect("the kernel has random numbers");
            let store = MapStore::new(env.clone());
            let edge = edge_of(&env, store.clone(), limits);
            let accepting = edge.clone();
            env.spawn(async move {
                let on_peer = move |_stream, first| {
                    peers_in.send(first).ok();
                };
                accepting.accept(listener, on_peer).await;
            });
            obey(&env, &edge, &store, &inbox).await;
        });
        let core = core.expect("io_uring works where the tests run");
        Self { address, orders, core: Some(core), peers }
    }

    pub fn order(&self, order: Order) {
        self.orders.send(order).ok();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the edge has drained.
    pub fn join(mut self) {
        self.core.take().expect("it is taken once").join().expect("the edge's thread did not panic");
    }
}

/// Plays a client, which is given its end of a pipe in memory that holds so many bytes each way, to an edge
/// that serves the other end.
pub fn through_a_pipe(
    limits: EdgeLimits,
    bytes: usize,
    client: impl AsyncFnOnce(GlommioEnv, Edge<GlommioEnv, MapStore>, DuplexStream) + Send + 'static,
) {
    let options = ExecutorOptions::new("edge-pipe", CorePlacement::Anywhere, 1);
    let core = start_executor(options, move || async move {
        let env = GlommioEnv::new().expect("the kernel has random numbers");
        let edge = edge_of(&env, MapStore::new(env.clone()), limits);
        let (ours, theirs) = tokio::io::duplex(bytes);
        let serving = edge.clone();
        env.spawn(async move { serving.serve_connection(theirs).await });
        client(env, edge, ours).await;
    });
    assert!(core.expect("io_uring works where the tests run").join().is_some(), "the executor panicked");
}

fn edge_of(env: &GlommioEnv, store: MapStore, limits: EdgeLimits) -> Edge<GlommioEnv, MapStore> {
    Edge::new(env.clone(), store, EdgeOptions { limits, kv_limits: Limits::DEFAULT, services: Services::All })
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        self.order(Order::Drain(Duration::ZERO));
        if let Some(core) = self.core.take() {
            assert!(core.join().is_some(), "the edge's thread panicked");
        }
    }
}

async fn obey(
    env: &GlommioEnv,
    edge: &Edge<GlommioEnv, MapStore>,
    store: &MapStore,
    inbox: &mpsc::Receiver<Order>,
) {
    loop {
        match inbox.try_recv() {
            Ok(Order::Drain(patience)) => return edge.drain(patience).await,
            Ok(Order::Serve(name, serving)) => store.serve(name, serving),
            Err(mpsc::TryRecvError::Empty) => env.sleep(Duration::from_millis(2)).await,
            Err(mpsc::TryRecvError::Disconnected) => return edge.drain(Duration::ZERO).await,
        }
    }
}

/// A store that is a map a shard. Keys that begin with `fail:` fail as they say, `slow:` waits for the
/// deadline.
#[derive(Clone)]
pub struct MapStore {
    env: GlommioEnv,
    inner: Rc<Inner>,
    stages: Stages,
}

struct Inner {
    shards: RefCell<Vec<Shard>>,
    health: RefCell<BTreeMap<String, Serving>>,
    changes: Changes,
}

#[derive(Default)]
struct Shard {
    revision: u64,
    kvs: BTreeMap<Bytes, KeyValue>,
    sessions: BTreeMap<SessionId, u64>,
    /// The first answers of exactly-once requests.
    stored: BTreeMap<(SessionId, Sequence), Answer>,
}

impl MapStore {
    pub fn new(env: GlommioEnv) -> Self {
        let shards = (0..SHARDS).map(|_| Shard { revision: 1, ..Shard::default() }).collect();
        let names = ["", "distribkv.v1.KV", "shard/0"];
        let inner = Inner {
            shards: RefCell::new(shards),
            health: RefCell::new(names.map(|name| (name.to_owned(), Serving::Yes)).into()),
            changes: Changes::default(),
        };
        Self { env, inner: Rc::new(inner), stages: Stages::default() }
    }

    fn serve(&self, name: &str, serving: Serving) {
        self.inner.health.borrow_mut().insert(name.to_owned(), serving);
        self.inner.changes.step();
    }

    async fn answer(self, shard: ShardId, request: Request, deadline: Instant) -> Result<Answered, Failure> {
        if let Some(key) = key_of(&request) {
            if let Some(kind) = asked_failure(&key) {
                return Err(Failure {
                    leader: Some(NodeId(2)),
                    retry_after: Some(Duration::from_millis(9)),
                    ..Failure::of(kind)
                });
            }
            if key.starts_with(b"slow:") {
                self.env.sleep(deadline.since(self.env.now())).await;
                return Err(Failure::of(FailureKind::OutcomeUnknown));
            }
        }
        let mut shards = self.inner.shards.borrow_mut();
        let state = &mut shards[shard.0 as usize];
        let body = match request {
            Request::Query { query, .. } => Body::Query(state.read(query)),
            Request::Command(command) => Body::Command(
                state.apply(shard, command).map_err(|refusal| Failure::of(FailureKind::Refused(refusal)))?,
            ),
            Request::Transfer { to } => Body::Transferred { leader: to.unwrap_or(NodeId(3)) },
        };
        Ok(Answered { node: NodeId(1), shard, term: Term(4), revision: Revision(state.revision), body })
    }
}

fn key_of(request: &Request) -> Option<Bytes> {
    match request {
        Request::Query { query: Query::Get { key }, .. } => Some(key.clone()),
        Request::Command(Command::Write {
            write: Write::Put { key, .. } | Write::Append { key, .. },
            ..
        }) => Some(key.clone()),
        _ => None,
    }
}

fn asked_failure(key: &[u8]) -> Option<FailureKind> {
    match key.strip_prefix(b"fail:")? {
        b"not_proposed" => Some(FailureKind::NotProposed),
        b"no_leader" => Some(FailureKind::NoLeader),
        b"deadline" => Some(FailureKind::DeadlineExceeded),
        b"unknown" => Some(FailureKind::OutcomeUnknown),
        b"overloaded" => Some(FailureKind::Overloaded),
        b"disk_full" => Some(FailureKind::DiskFull { free: 1, watermark: 2 }),
        b"shutting_down" => Some(FailureKind::ShuttingDown),
        b"damaged" => Some(FailureKind::Damaged),
        b"expired" => Some(FailureKind::Refused(Refusal::SessionExpired)),
        other => panic!("a test asks for the failure {other:?}"),
    }
}

/// The shard whose table is never made.
pub const SHARD_WITHOUT_TABLE: u32 = 4;

/// The pieces of the store's backup: more than what a client's windows hold.
pub fn backup_pieces() -> Vec<Bytes> {
    (1..=5_u8).map(|number| vec![number; usize::from(number) << 19].into()).collect()
}

/// A backup of what [`backup_pieces`] says.
pub struct MapBackup(std::vec::IntoIter<Bytes>);

impl BackupSource for MapBackup {
    async fn next(&mut self) -> Result<Option<Bytes>, TableFailure> {
        Ok(self.0.next())
    }
}

impl Store for MapStore {
    type Pipeline = MapOrder;
    type Backup = MapBackup;

    async fn call(&self, shard: ShardId, request: Request, deadline: Instant) -> Result<Answered, Failure> {
        self.clone().answer(shard, request, deadline).await
    }

    fn pipeline(&self) -> MapOrder {
        MapOrder { store: self.clone() }
    }

    fn identity(&self) -> Identity {
        Identity { cluster: ClusterId(77), node: NodeId(1), shards: SHARDS }
    }

    fn routing(&self) -> Routing {
        let route = |shard| ShardRoute {
            shard: ShardId(shard),
            leader: (shard != 4).then_some(NodeId(1 + shard % 3)),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: vec![],
        };
        let address = |node| NodeAddress { node: NodeId(node), address: format!("10.0.0.{node}:7000") };
        Routing { shards: (0..SHARDS).map(route).collect(), nodes: (1..=3).map(address).collect() }
    }

    fn stages(&self) -> &Stages {
        &self.stages
    }

    async fn status(&self) -> Status {
        let replica = ReplicaStatus {
            shard: ShardId(2),
            role: ReplicaRole::Leader,
            leader: Some(NodeId(1)),
            term: Term(4),
            last_index: Index(12),
            commit_index: Index(11),
            applied_index: Index(10),
            revision: Revision(9),
            keys: 8,
            bytes: 7,
            snapshot_index: Index(6),
            state_digest: 5,
            lane: LaneId(1),
            fetch_bytes_done: 3,
            fetch_bytes_total: 4,
        };
        let lane = LaneStatus {
            lane: LaneId(1),
            core: CoreId(0),
            log_bytes: 64,
            segments: 2,
            last_write: Duration::from_micros(130),
            oldest_pending: Duration::ZERO,
            poisoned: false,
            disk_full: true,
            damaged_total: 1,
            repaired_total: 1,
        };
        let stages = Stages::default();
        stages.add(Stage::Frames, Duration::from_micros(5), 7);
        Status {
            version: "0.1.0".to_owned(),
            profile: "dev".to_owned(),
            uptime: Duration::from_secs(3),
            replicas: vec![replica],
            lanes: vec![lane],
            stages: vec![(CoreId(0), stages.tallies())],
        }
    }

    fn backup(&self) -> MapBackup {
        MapBackup(backup_pieces().into_iter())
    }

    async fn snapshot(&self, shards: Vec<ShardId>, _: Instant) -> Result<(), TableFailure> {
        match shards.into_iter().find(|shard| shard.0 == SHARD_WITHOUT_TABLE) {
            Some(shard) => Err(TableFailure::Making { shard }),
            None => Ok(()),
        }
    }

    fn health(&self, service: &str) -> Option<Serving> {
        self.inner.health.borrow().get(service).copied()
    }

    fn health_names(&self) -> Vec<String> {
        self.inner.health.borrow().keys().cloned().collect()
    }

    fn health_version(&self) -> u64 {
        self.inner.changes.version()
    }

    async fn health_changed(&self, seen: u64) -> u64 {
        self.inner.changes.changed(seen).await
    }
}

/// The order of a Pipeline: everything is done when it is submitted, but what waits or fails.
pub struct MapOrder {
    store: MapStore,
}

impl PipelineOrder for MapOrder {
    fn submit(
        &self,
        shard: ShardId,
        request: Request,
        deadline: Instant,
    ) -> impl Future<Output = Result<Answered, Failure>> + 'static {
        let mut answer = Box::pin(self.store.clone().answer(shard, request, deadline));
        let now = futures_lite::future::block_on(futures_lite::future::poll_once(&mut answer));
        async move {
            match now {
                Some(answer) => answer,
                None => answer.await,
            }
        }
    }
}

impl Shard {
    fn read(&self, query: Query) -> QueryAnswer {
        match query {
            Query::Get { key } => QueryAnswer::Get(self.kvs.get(&key).cloned()),
            Query::Scan { start, end, limit, bytes_max, keys } => {
                self.scan(&start, &end, limit, bytes_max, keys)
            }
            Query::Txn(ReadTxn { conditions, then, otherwise }) => {
                let succeeded = conditions.iter().all(|condition| self.holds(condition));
                let keys = if succeeded { then } else { otherwise };
                QueryAnswer::Txn {
                    succeeded,
                    results: keys.iter().map(|key| self.kvs.get(key).cloned()).collect(),
                }
            }
        }
    }

    fn scan(&self, start: &Bytes, end: &Bytes, limit: u32, bytes_max: u32, keys: ScanKeys) -> QueryAnswer {
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        for kv in self.kvs.range(start.clone()..).map(|(_, kv)| kv) {
            if !end.is_empty() && kv.key >= end {
                break;
            }
            let size = kv.key.len() + kv.value.len();
            let is_full = limit > 0 && kvs.len() == limit as usize;
            if is_full || (!kvs.is_empty() && bytes + size > bytes_max as usize) {
                return QueryAnswer::Scan { kvs, more: Some(kv.key.clone()) };
            }
            bytes += size;
            let value = match keys {
                ScanKeys::KeysOnly => Bytes::new(),
                ScanKeys::Whole => kv.value.clone(),
            };
            kvs.push(KeyValue { value, ..kv.clone() });
        }
        QueryAnswer::Scan { kvs, more: None }
    }

    fn apply(&mut self, shard: ShardId, command: Command) -> Result<Answer, Refusal> {
        match command {
            Command::Write { id: None, write } => Ok(self.write(write)),
            Command::Write { id: Some(id), write } => {
                if !self.sessions.contains_key(&id.session) {
                    return Err(Refusal::SessionExpired);
                }
                if let Some(answer) = self.stored.get(&(id.session, id.sequence)) {
                    return Ok(answer.clone());
                }
                let answer = self.write(write);
                self.stored.insert((id.session, id.sequence), answer.clone());
                Ok(answer)
            }
            Command::OpenSession { ttl_ms } => {
                let session = session_id(shard, Index(10 + self.sessions.len() as u64));
                let ttl_ms = if ttl_ms == 0 { 60_000 } else { ttl_ms };
                self.sessions.insert(session, ttl_ms);
                Ok(Answer::SessionOpened { session, ttl_ms })
            }
            Command::KeepAlive { session, .. } => {
                let ttl_ms = *self.sessions.get(&session).ok_or(Refusal::SessionExpired)?;
                Ok(Answer::KeptAlive { ttl_ms })
            }
            Command::CloseSession { session } => {
                self.sessions.remove(&session).ok_or(Refusal::SessionExpired)?;
                Ok(Answer::SessionClosed)
            }
            Command::Expire { .. } => panic!("no client expires a session"),
        }
    }

    fn write(&mut self, write: Write) -> Answer {
        match write {
            Write::Put { key, value, if_mod_revision, return_previous } => {
                let previous = self.kvs.get(&key).cloned();
                if !self.has_revision(&key, if_mod_revision) {
                    let version = previous.as_ref().map_or(0, |kv| kv.version);
                    return Answer::Put { succeeded: false, previous, version };
                }
                let version = self.set(key, value);
                let previous = previous.filter(|_| return_previous == Previous::Return);
                Answer::Put { succeeded: true, previous, version }
            }
            Write::Append { key, value, if_mod_revision } => {
                let before = self.kvs.get(&key).cloned();
                if !self.has_revision(&key, if_mod_revision) {
                    let (length, version) = before.map_or((0, 0), |kv| (kv.value.len() as u64, kv.version));
                    return Answer::Append { succeeded: false, length, version };
                }
                let mut whole = BytesMut::from(before.map_or(Bytes::new(), |kv| kv.value));
                whole.extend_from_slice(&value);
                let length = whole.len() as u64;
                Answer::Append { succeeded: true, length, version: self.set(key, whole.freeze()) }
            }
            Write::Delete { key, if_mod_revision, return_previous } => {
                if !self.has_revision(&key, if_mod_revision) {
                    let previous = self.kvs.get(&key).cloned();
                    return Answer::Delete { succeeded: false, existed: previous.is_some(), previous };
                }
                let removed = self.remove(&key);
                let existed = removed.is_some();
                let previous = removed.filter(|_| return_previous == Previous::Return);
                Answer::Delete { succeeded: true, existed, previous }
            }
            Write::Txn(Txn { conditions, then, otherwise }) => {
                let succeeded = conditions.iter().all(|condition| self.holds(condition));
                let branch = if succeeded { then } else { otherwise };
                Answer::Txn { succeeded, results: branch.into_iter().map(|one| self.operate(one)).collect() }
            }
        }
    }

    fn operate(&mut self, operation: Operation) -> OperationResult {
        match operation {
            Operation::Get { key } => OperationResult::Get(self.kvs.get(&key).cloned()),
            Operation::Put { key, value, .. } => {
                OperationResult::Put { previous: None, version: self.set(key, value) }
            }
            Operation::Append { key, value } => {
                let Answer::Append { length, version, .. } =
                    self.write(Write::Append { key, value, if_mod_revision: None })
                else {
                    panic!("an Append is answered with an Append");
                };
                OperationResult::Append { length, version }
            }
            Operation::Delete { key, .. } => {
                OperationResult::Delete { existed: self.remove(&key).is_some(), previous: None }
            }
        }
    }

    fn set(&mut self, key: Bytes, value: Bytes) -> u64 {
        self.revision += 1;
        let at = Revision(self.revision);
        let before = self.kvs.get(&key);
        let (create_revision, version) = before.map_or((at, 1), |kv| (kv.create_revision, kv.version + 1));
        let kv = KeyValue { key: key.clone(), value, create_revision, mod_revision: at, version };
        self.kvs.insert(key, kv);
        version
    }

    fn remove(&mut self, key: &Bytes) -> Option<KeyValue> {
        let removed = self.kvs.remove(key)?;
        self.revision += 1;
        Some(removed)
    }

    fn has_revision(&self, key: &Bytes, wanted: Option<Revision>) -> bool {
        wanted.is_none_or(|wanted| self.kvs.get(key).map_or(Revision(0), |kv| kv.mod_revision) == wanted)
    }

    fn holds(&self, condition: &Condition) -> bool {
        let kv = self.kvs.get(&condition.key);
        let number = |number: Option<u64>, wanted: u64| number.unwrap_or(0).cmp(&wanted);
        let order = match &condition.target {
            Target::Version(version) => number(kv.map(|kv| kv.version), *version),
            Target::CreateRevision(revision) => number(kv.map(|kv| kv.create_revision.0), revision.0),
            Target::ModRevision(revision) => number(kv.map(|kv| kv.mod_revision.0), revision.0),
            Target::Value(value) => match kv {
                Some(kv) => kv.value.cmp(value),
                None => return false,
            },
        };
        match condition.comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::Greater => order.is_gt(),
        }
    }
}
