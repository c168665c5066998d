//! A whole cluster: machines, the lives of their nodes, and the packets between them.
//!
//! A node in here is the product's own from the identity down to the log and up to the runner; what is
//! simulated is what carries parcels (packets that are lost, late, repeated and reordered) and what accepts
//! clients (a call handed to a runner in the node's own life, so that a crash takes it along).
//!
//! Invariants:
//! - A node's life is made of tasks in its group alone: a crash ends all of them at once.
//! - What a node learns of another, it learns from packets.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use distribkv::config::{Cluster as ClusterSettings, Node as NodeSettings, Settings};
use distribkv::env::Env;
use distribkv::env::signal::{AnswerReceiver, answer};
use distribkv::host::exit::Exit;
use distribkv::host::node::{self, Planted};
use distribkv::ids::{ClusterId, CoreId, NodeId, ShardId};
use distribkv::log::RecoveredAt;
use distribkv::route::call::{Answered, Failure, Request};
use distribkv::route::parcel::Parcel;
use distribkv::shard::admission::{Admission, Desk, HELLO_BYTES, Hello, LinkPlace, Verdict};
use distribkv::shard::{BackupFacts, CoreStatus, Known, Role, Runner, TableFailure};

use crate::decay::Doubt;
use crate::disk::{Crash, DiskConfig};
use crate::env::{Machine, SimEnv};
use crate::executor::{World, WorldHandle};
use crate::network::{Network, NetworkConfig, Place};
use crate::observer::{Broken, Observer};

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Its nodes: 1 to 7.
    pub nodes: u32,
    /// The cores of each.
    pub cores: u32,
    /// Its shards.
    pub shards: u32,
    /// Disks.
    pub disk: DiskConfig,
    /// The network.
    pub network: NetworkConfig,
    /// The election timeout.
    pub election: Duration,
    /// Whether reads may rest on a lease.
    pub lease_reads: bool,
    /// Bytes of changes to a shard that are made into a table.
    pub snapshot_bytes_max: u64,
    /// Entries that a log keeps before its table's end.
    pub snapshot_keep_entries: u64,
    /// Bytes of tables' blocks that a core keeps.
    pub block_cache_bytes: u64,
    /// Cores of a node that make tables, and that fetch them, at the same time.
    pub snapshots_at_once_max: u64,
    /// See there.
    pub fetches_at_once_max: u64,
    /// Bytes that a core's scrub reads in a second.
    pub scrub_bytes_per_s: u64,
    /// Seconds from one round of it to the next.
    pub scrub_interval_s: u64,
    /// A mistake made on purpose.
    pub planted: Planted,
}

/// What travels between nodes.
#[derive(Clone, Debug)]
enum Packet {
    Parcel(Bytes),
    Hello(Hello),
    /// The verdict on a hello. Over a connection it could only reach the life that said it.
    Verdict(Hello, Verdict),
}

/// Why a node's life ended by itself, or that it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It goes on, or was ended from outside.
    None,
    /// Its process said this and ended.
    Exit {
        /// The exit code.
        code: i32,
        /// What it said.
        text: String,
    },
}

struct Node {
    machine: Machine,
    runners: RefCell<Vec<Runner<SimEnv>>>,
    ending: RefCell<Ending>,
    /// The disks that it had, and the one that it has.
    dirs: Cell<u64>,
    dir: Cell<u64>,
    /// Whether its files were damaged from outside.
    has_rotted: Cell<bool>,
    /// Whether enough others know its directory.
    may_vote: Cell<bool>,
    /// Its setting that all nodes must agree on, where it is another than theirs.
    heartbeat_ms: Cell<Option<u64>>,
    /// Whether its next start says that its directory is lost.
    recovers: Cell<bool>,
    /// How little its disk is trusted.
    doubt: Cell<Doubt>,
}

/// What the life of a node whose disk is doubted ends with.
pub const DOUBTED: i32 = 90;

/// A whole cluster.
#[derive(Clone)]
pub struct Cluster {
    inner: Rc<Inner>,
}

struct Inner {
    world: WorldHandle,
    config: ClusterConfig,
    network: Network<Packet>,
    nodes: BTreeMap<NodeId, Node>,
    observer: RefCell<Observer>,
}

impl Cluster {
    /// A cluster whose nodes are all switched off and have never run.
    #[must_use]
    pub fn new(world: &World, config: ClusterConfig) -> Self {
        let handle = world.handle();
        let nodes = (1..=config.nodes).map(NodeId).map(|id| {
            let machine = Machine::new(&handle, id, config.disk.clone());
            machine.disk().prepare_dir(&data_root());
            let node = Node {
                machine,
                runners: RefCell::default(),
                ending: RefCell::new(Ending::None),
                dirs: Cell::new(1),
                dir: Cell::new(0),
                has_rotted: Cell::new(false),
                may_vote: Cell::new(false),
                heartbeat_ms: Cell::new(None),
                recovers: Cell::new(false),
                doubt: Cell::default(),
            };
            (id, node)
        });
        let nodes = nodes.collect();
        let network = Network::new(&handle, config.network);
        let observer = RefCell::new(Observer::new(config.nodes));
        Self { inner: Rc::new(Inner { world: handle, config, network, nodes, observer }) }
    }

    /// Its nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.inner.nodes.keys().copied().collect()
    }

    /// How it was made.
    #[must_use]
    pub fn config(&self) -> &ClusterConfig {
        &self.inner.config
    }

    /// A node's machine, for faults of its disk.
    #[must_use]
    pub fn machine(&self, node: NodeId) -> &Machine {
        &self.node(node).machine
    }

    /// Takes a node's disk away and gives it an empty one, the next of those it ever had. The node must be
    /// down.
    pub fn replace_data_dir(&self, node: NodeId) {
        let newest = self.node(node).dirs.get();
        self.put_back_data_dir(node, newest);
        self.node(node).dirs.set(newest + 1);
        self.node(node).doubt.set(Doubt::None);
        self.machine(node).disk().prepare_dir(&self.data_dir(node));
    }

    /// Gives a node the disk of this number again, of those that it ever had. The node must be down.
    pub fn put_back_data_dir(&self, node: NodeId, number: u64) {
        assert!(!self.is_running(node), "node {node} runs: its disk cannot be replaced");
        self.node(node).dir.set(number);
    }

    /// Gives a node another value of a setting that must agree (`None`: the others' value), from its next
    /// start on.
    pub fn set_heartbeat_ms(&self, node: NodeId, heartbeat_ms: Option<u64>) {
        self.node(node).heartbeat_ms.set(heartbeat_ms);
    }

    /// Where a node keeps its data: its directory, and those of its lanes.
    #[must_use]
    pub fn data_dirs(&self, node: NodeId) -> Vec<PathBuf> {
        let dir = self.data_dir(node);
        let lanes = (0..self.inner.config.cores).map(|lane| dir.join(format!("lane-{lane}")));
        std::iter::once(dir.clone()).chain(lanes).collect()
    }

    /// From now on a node's disk is trusted no more than this, until it gets another one.
    pub fn doubt(&self, node: NodeId, doubt: Doubt) {
        self.note_rot(node);
        let before = self.node(node).doubt.get();
        self.node(node).doubt.set(before.max(doubt));
    }

    /// From now on damage in this node's files is no surprise.
    pub fn note_rot(&self, node: NodeId) {
        self.node(node).has_rotted.set(true);
    }

    /// Has the memory of a running node fail: the state of each of its replicas is not what it was.
    #[cfg(debug_assertions)]
    pub fn rot_memory(&self, node: NodeId) {
        let runners = self.node(node).runners.borrow();
        for (runner, shard) in runners.iter().flat_map(|runner| {
            runner.report().replicas.into_iter().map(move |replica| (runner, replica.shard))
        }) {
            runner.rot(shard);
        }
    }

    /// Starts a node that is down with the word that its directory is lost.
    pub fn boot_to_recover(&self, node: NodeId) {
        self.node(node).recovers.set(true);
        self.boot(node);
    }

    /// Starts a node that is down.
    pub fn boot(&self, node: NodeId) {
        assert!(!self.is_running(node), "node {node} runs already");
        let entry = self.node(node);
        *entry.ending.borrow_mut() = Ending::None;
        entry.may_vote.set(false);
        let group = entry.machine.boot();
        let (cluster, env) = (self.clone(), entry.machine.env(CoreId(0)));
        self.inner.world.spawn(group, async move { cluster.live(node, env).await });
    }

    /// Ends a node's process, or cuts its power.
    pub fn crash(&self, node: NodeId, crash: Crash) {
        let reports = self.reports();
        let mut observer = self.inner.observer.borrow_mut();
        observer.note_durable(&reports);
        observer.ended(node);
        self.inner.network.detach(node);
        self.close_links(node);
        self.node(node).runners.borrow_mut().clear();
        self.node(node).machine.crash(crash);
    }

    /// The other nodes hear, a little later, that their links to a node that went down are closed.
    fn close_links(&self, down: NodeId) {
        for (at, node) in (1u64..).zip(self.nodes()) {
            let cluster = self.clone();
            self.inner.world.after(Duration::from_micros(700 * at), move || {
                let runners = cluster.node(node).runners.borrow().clone();
                runners.iter().filter(|_| node != down).for_each(|runner| runner.link_down(down));
            });
        }
    }

    /// Whether a node's process runs.
    #[must_use]
    pub fn is_running(&self, node: NodeId) -> bool {
        self.inner.world.group_of(node).is_some()
    }

    /// Whether a node runs and enough others know its directory.
    #[must_use]
    pub fn may_vote(&self, node: NodeId) -> bool {
        self.is_up(node) && self.node(node).may_vote.get()
    }

    /// Whether a node counts with all its replicas: none of them has lost anything, and its disk knows.
    #[must_use]
    pub fn is_whole(&self, node: NodeId) -> bool {
        let runners = self.node(node).runners.borrow();
        let is_whole = |core: CoreStatus| {
            core.replicas.iter().all(|replica| replica.role != Role::Recovering)
                && core.lanes.iter().all(|lane| lane.oldest_pending.is_zero())
        };
        self.may_vote(node) && runners.iter().all(|runner| is_whole(runner.report()))
    }

    /// Whether a node's runners stand.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.is_running(node) && !self.node(node).runners.borrow().is_empty()
    }

    /// How a node's last life ended by itself.
    #[must_use]
    pub fn ending(&self, node: NodeId) -> Ending {
        self.node(node).ending.borrow().clone()
    }

    /// Cuts every link between two groups of nodes, both ways.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        self.inner.network.partition(one, other);
    }

    /// Sets one direction between two nodes.
    pub fn set_link(&self, from: NodeId, to: NodeId, state: crate::network::LinkState) {
        self.inner.network.set_state(from, to, state);
    }

    /// Opens every link again.
    pub fn heal_network(&self) {
        self.inner.network.heal();
    }

    /// Who leads each shard, as a node knows it.
    #[must_use]
    pub fn directory(&self, node: NodeId) -> Vec<(ShardId, Known)> {
        self.node(node).runners.borrow().first().map(Runner::directory).unwrap_or_default()
    }

    /// What every running node's cores say of themselves now.
    #[must_use]
    pub fn reports(&self) -> Vec<(NodeId, CoreStatus)> {
        let mut reports = Vec::new();
        for (id, node) in &self.inner.nodes {
            reports.extend(node.runners.borrow().iter().map(|runner| (*id, runner.report())));
        }
        reports
    }

    /// Checks what must hold of all nodes now.
    ///
    /// # Errors
    /// What does not hold.
    pub fn look(&self) -> Result<(), Broken> {
        let reports = self.reports();
        self.inner.observer.borrow_mut().look(&reports)
    }

    /// A backup of all shards, made by a node as its edge would have it: its bytes, or why there is none.
    #[must_use]
    pub fn backup(&self, (node, core): (NodeId, usize)) -> AnswerReceiver<Result<Vec<u8>, TableFailure>> {
        let (sender, receiver) = answer();
        let Some((runner, _, group)) = self.port(node, core) else { return receiver };
        self.inner.world.spawn(group, async move {
            let mut backup = runner.backup(BackupFacts { cluster: ClusterId(1), made_ms: 1 });
            let mut file = Vec::new();
            loop {
                match backup.next().await {
                    Ok(Some(piece)) => file.extend_from_slice(&piece),
                    Ok(None) => return sender.send(Ok(file)),
                    Err(failure) => return sender.send(Err(failure)),
                }
            }
        });
        receiver
    }

    /// Makes a call at a node, as its edge would. `None` comes back where the node goes down before it
    /// answers.
    #[must_use]
    pub fn call(
        &self,
        (node, core): (NodeId, usize),
        (shard, request): (ShardId, Request),
        timeout: Duration,
    ) -> AnswerReceiver<Result<Answered, Failure>> {
        let (sender, receiver) = answer();
        let Some((runner, env, group)) = self.port(node, core) else { return receiver };
        self.inner.world.spawn(group, async move {
            let deadline = env.now() + timeout;
            sender.send(runner.call(shard, request, deadline).await);
        });
        receiver
    }

    /// Opens a stream of ordered calls at a node and submits these on it, one behind the other.
    #[must_use]
    pub fn pipeline(
        &self,
        (node, core): (NodeId, usize),
        requests: Vec<(ShardId, Request)>,
        timeout: Duration,
    ) -> Vec<AnswerReceiver<Result<Answered, Failure>>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = requests.iter().map(|_| answer()).unzip();
        let Some((runner, env, group)) = self.port(node, core) else { return receivers };
        let world = self.inner.world.clone();
        self.inner.world.spawn(group, async move {
            let pipeline = runner.pipeline();
            let deadline = env.now() + timeout;
            let answers: Vec<_> = requests
                .into_iter()
                .map(|(shard, request)| pipeline.submit(shard, request, deadline))
                .collect();
            for (answer, sender) in answers.into_iter().zip(senders) {
                world.spawn(group, async move { sender.send(answer.await) });
            }
            env.sleep(timeout * 2).await;
        });
        receivers
    }

    fn port(&self, node: NodeId, core: usize) -> Option<(Runner<SimEnv>, SimEnv, crate::executor::Group)> {
        let runners = self.node(node).runners.borrow();
        let at = core % runners.len().max(1);
        let runner = runners.get(at)?.clone();
        let group = self.inner.world.group_of(node)?;
        let core = CoreId(u32::try_from(at).expect("a node has few cores"));
        Some((runner, self.node(node).machine.env(core), group))
    }

    fn node(&self, node: NodeId) -> &Node {
        self.inner.nodes.get(&node).expect("a node of this cluster")
    }

    /// Where a node keeps its data.
    #[must_use]
    pub fn data_dir(&self, node: NodeId) -> PathBuf {
        data_root().join(format!("dir-{}", self.node(node).dir.get()))
    }

    fn settings(&self, node: NodeId) -> Settings {
        let config = &self.inner.config;
        let election_ms = u64::try_from(config.election.as_millis()).expect("a short time");
        Settings {
            cluster: ClusterSettings {
                peers: (1..=config.nodes).map(|id| format!("node-{id}:1")).collect(),
                shards: config.shards,
                election_timeout_ms: election_ms,
                heartbeat_ms: self.node(node).heartbeat_ms.get().unwrap_or(election_ms / 10),
                lease_reads: config.lease_reads,
                ..ClusterSettings::default()
            },
            node: NodeSettings {
                id: node.0,
                data_dir: Some(self.data_dir(node)),
                segment_bytes: 128 << 10,
                batch_bytes_max: 32 << 10,
                snapshot_bytes_max: config.snapshot_bytes_max,
                snapshot_bytes_min: (config.snapshot_bytes_max / 8).max(64 << 10),
                snapshot_interval_s: 1,
                snapshot_keep_entries: config.snapshot_keep_entries,
                log_segments_max: 3,
                block_cache_bytes: config.block_cache_bytes,
                snapshots_at_once_max: config.snapshots_at_once_max,
                fetches_at_once_max: config.fetches_at_once_max,
                scrub_bytes_per_s: config.scrub_bytes_per_s,
                scrub_interval_s: config.scrub_interval_s,
                ..NodeSettings::default()
            },
        }
    }

    /// One life of a node, from its start to its end.
    async fn live(self, node: NodeId, env: SimEnv) {
        let settings = self.settings(node);
        let cores = self.inner.config.cores;
        let now_ms = RecoveredAt(1 + self.inner.world.time().0 / 1000);
        let recovery = self.node(node).recovers.take().then_some(now_ms);
        let opened = node::open_identity(&env, &settings, cores, recovery).await;
        let (store, identity) = match opened {
            Ok(opened) => opened,
            Err(exit) => return self.end(node, exit.code(), &exit),
        };
        let desk = Desk::new(store, Hello::of(&identity));
        let (cluster, failing, agreed) = (self.clone(), desk.clone(), settings.cluster.clone());
        env.spawn(async move {
            let exit = Exit::of_desk(failing.run().await, &agreed);
            cluster.end(node, exit.code(), &exit);
        });
        let permits = node::permits(&settings, cores);
        let mut runners = Vec::new();
        let mut is_cut = false;
        for core in (0..cores).map(CoreId) {
            let env = self.machine(node).env(core);
            let planted = &self.inner.config.planted;
            match node::open_core(&env, &settings, &identity, (core, cores), &permits, planted).await {
                Ok((runner, found)) => {
                    self.judge_damage(node, &found.damages);
                    is_cut |= found.cuts > 0;
                    runners.push(runner);
                }
                Err(exit) => return self.end(node, exit.code(), &exit),
            }
        }
        desk.lanes_are_open();
        match self.node(node).doubt.get() {
            Doubt::Always => return self.end(node, DOUBTED, &"its disk may have lost anything"),
            Doubt::WhereCut if is_cut => return self.end(node, DOUBTED, &"its last batch rotted"),
            Doubt::None | Doubt::WhereCut => {}
        }
        self.node(node).runners.borrow_mut().clone_from(&runners);
        for (core, runner) in (0..cores).map(CoreId).zip(runners.iter()) {
            self.carry(Place { node, core }, runner, &desk, &env);
        }
        self.greet(node, &desk, &env);
        desk.entitled().wait().await;
        self.node(node).may_vote.set(true);
        for runner in runners {
            runner.entitle();
        }
    }

    /// Damage in the log of a disk that does not rot is damage that was written.
    fn judge_damage(&self, node: NodeId, damages: &[String]) {
        if let Some(first) = damages.first().filter(|_| !self.node(node).has_rotted.get()) {
            self.inner.observer.borrow_mut().found_damage(node, first.clone());
        }
    }

    fn end(&self, node: NodeId, code: i32, said: &impl ToString) {
        *self.node(node).ending.borrow_mut() = Ending::Exit { code, text: said.to_string() };
        self.inner.world.note("exit", &[u64::from(node.0), u64::from(code.unsigned_abs())]);
        self.crash(node, Crash::Process);
    }

    /// Runs a core, carries what it leaves, and delivers what arrives for it.
    fn carry(&self, place: Place, runner: &Runner<SimEnv>, desk: &Desk<SimEnv>, env: &SimEnv) {
        let (cluster, running) = (self.clone(), runner.clone());
        env.spawn(async move {
            if let Err(failure) = running.run().await {
                cluster.end(place.node, 18, &failure);
            }
        });
        let (cluster, leaving, outgoing) = (self.clone(), runner.clone(), runner.outgoing());
        env.spawn(async move {
            loop {
                outgoing.wait().await;
                cluster.dispatch(place, &leaving);
            }
        });
        let (cluster, arriving, desk) = (self.clone(), runner.clone(), desk.clone());
        let (inbox, spawner) = (self.inner.network.attach(place), env.clone());
        env.spawn(async move {
            loop {
                let packet = inbox.receive().await;
                cluster.receive((place, packet.from), packet.payload, &arriving, &desk, &spawner);
            }
        });
    }

    fn dispatch(&self, place: Place, runner: &Runner<SimEnv>) {
        for to in runner.waiting_links() {
            for parcel in runner.take_link(to) {
                let mut bytes = Vec::new();
                parcel.encode(&mut bytes);
                let core = CoreId(place.core.0 % self.inner.config.cores);
                self.inner.network.send(place, Place { node: to, core }, Packet::Parcel(bytes.into()));
            }
        }
        for core in runner.waiting_mesh() {
            let items = runner.take_mesh(core);
            let to = self.node(place.node).runners.borrow().get(core.0 as usize).cloned();
            if let Some(to) = to {
                items.into_iter().for_each(|item| to.deliver_mesh(item));
            }
        }
    }

    fn receive(
        &self,
        (place, from): (Place, Place),
        packet: Packet,
        runner: &Runner<SimEnv>,
        desk: &Desk<SimEnv>,
        env: &SimEnv,
    ) {
        match packet {
            Packet::Parcel(bytes) => {
                let parcel = Parcel::decode(bytes).expect("the network changes no bytes");
                runner.deliver(parcel);
            }
            Packet::Hello(hello) => {
                // There is no link here to be closed for another.
                let link = LinkPlace { core: place.core, number: 0 };
                let (admission, network) = (desk.admit(hello, link), self.inner.network.clone());
                env.spawn(async move {
                    if let Some(Admission { verdict, .. }) = admission.await {
                        network.send(place, from, Packet::Verdict(hello, verdict));
                    }
                });
            }
            Packet::Verdict(hello, verdict) if hello == desk.hello(hello.core) => match verdict {
                // What becomes of it is the desk's: there is no link here to be closed.
                Verdict::Welcome(by) => drop(desk.welcomed(by)),
                Verdict::Rejected(_) if self.inner.config.planted.lets_wiped_nodes_vote() => {}
                Verdict::Rejected(refusal) => desk.refused(from.node, refusal),
            },
            Packet::Verdict(..) => {}
        }
    }

    /// Says hello to every other node, again and again: links come and go.
    fn greet(&self, node: NodeId, desk: &Desk<SimEnv>, env: &SimEnv) {
        let (cluster, desk, env) = (self.clone(), desk.clone(), env.clone());
        let place = Place { node, core: CoreId(0) };
        let greeter = env.clone();
        env.spawn(async move {
            loop {
                for to in cluster.nodes().into_iter().filter(|to| *to != node) {
                    let hello = desk.hello(CoreId(0));
                    assert_eq!(Hello::decode(&hello.encode()), hello, "{HELLO_BYTES} bytes hold a hello");
                    cluster.inner.network.send(
                        place,
                        Place { node: to, core: CoreId(0) },
                        Packet::Hello(hello),
                    );
                }
                let pause = if desk.is_entitled() { 1000 } else { 100 };
                greeter.sleep(Duration::from_millis(pause)).await;
            }
        });
    }
}

fn data_root() -> PathBuf {
    PathBuf::from("/data")
}
