//! Stories: a small cluster that is told step by step what happens to it.

use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{NodeId, ShardId};
use distribkv::kv::{Command, Query, QueryAnswer, Write};
use distribkv::route::call::{Answered, Body, Consistency, Failure, Request};
use distribkv::shard::ReplicaReport;

use crate::cluster::{Cluster, ClusterConfig, Ending};
use crate::disk::DiskConfig;
use crate::executor::{World, WorldConfig, WorldTime};
use crate::network::NetworkConfig;
use crate::run::Options;

/// The shard that stories are about.
pub const SHARD: ShardId = ShardId(0);
/// How long a story waits for something.
pub const LONG: Duration = Duration::from_secs(20);
/// A cluster, and the world that it is in.
pub struct Story {
    /// The world.
    pub world: World,
    /// The cluster.
    pub cluster: Cluster,
}

/// What became of a call.
pub type Outcome = Option<Result<Answered, Failure>>;

impl Story {
    /// Three nodes with one shard, all up and led.
    #[must_use]
    pub fn begin(planted: Option<&str>) -> Self {
        let story = Self::prepared(3, planted);
        story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
        story.wait(|story| story.leader().is_some());
        story
    }

    /// New nodes with one shard that do not run yet.
    #[must_use]
    pub fn prepared(nodes: u32, planted: Option<&str>) -> Self {
        Self::prepared_with(nodes, planted, |_| {})
    }

    /// The same, with another configuration.
    #[must_use]
    pub fn prepared_with(nodes: u32, planted: Option<&str>, change: impl FnOnce(&mut ClusterConfig)) -> Self {
        let mut options = Options::default();
        if let Some(name) = planted {
            crate::plant(&mut options, name).expect("a mistake that can be planted");
        }
        let world = World::new(WorldConfig::seeded(7));
        let mut config = ClusterConfig {
            nodes,
            cores: 1,
            shards: 1,
            disk: DiskConfig::default(),
            network: NetworkConfig::reliable(100, 300),
            election: Duration::from_millis(200),
            lease_reads: false,
            snapshot_bytes_max: 1 << 20,
            snapshot_keep_entries: 1000,
            block_cache_bytes: 64 << 10,
            snapshots_at_once_max: 4,
            fetches_at_once_max: 1,
            scrub_bytes_per_s: 4 << 20,
            scrub_interval_s: 3600,
            planted: options.planted,
        };
        change(&mut config);
        let cluster = Cluster::new(&world, config);
        Self { world, cluster }
    }

    /// Starts a node and gives it time to hear what the others say of it.
    pub fn boot(&self, node: u32) {
        self.cluster.boot(NodeId(node));
        self.pass(Duration::from_secs(3));
    }

    /// The exit code that a node ended with by itself.
    #[must_use]
    pub fn exit_code(&self, node: u32) -> Option<i32> {
        match self.cluster.ending(NodeId(node)) {
            Ending::Exit { code, .. } => Some(code),
            Ending::None => None,
        }
    }

    /// Waits until something holds; it has to come about.
    pub fn wait(&self, holds: impl Fn(&Self) -> bool) {
        let until = self.world.time() + LONG;
        self.world.run_until(until, || holds(self));
        assert!(holds(self), "what the story waits for does not come about");
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let until: WorldTime = self.world.time() + time;
        self.world.run_until(until, || false);
    }

    /// The leader, where every running node agrees on one.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let running = self.cluster.nodes().into_iter().filter(|node| self.cluster.is_up(*node));
        let mut leaders: Vec<_> = running
            .map(|node| self.cluster.directory(node).first().and_then(|(_, known)| known.leader))
            .collect();
        leaders.dedup();
        if leaders.len() == 1 { leaders[0] } else { None }
    }

    /// The two other nodes of three.
    #[must_use]
    pub fn others(&self, node: NodeId) -> [NodeId; 2] {
        let others: Vec<NodeId> = self.cluster.nodes().into_iter().filter(|other| *other != node).collect();
        [others[0], others[1]]
    }

    /// A call at a node, seen to its end or for `at_most`.
    pub fn call(&self, node: NodeId, request: Request, at_most: Duration) -> Outcome {
        let answer = self.cluster.call((node, 0), (SHARD, request), at_most);
        let group = self.world.start(NodeId(2000));
        let ended = self.world.run(group, at_most * 2, answer);
        self.world.crash(NodeId(2000));
        ended.ok().flatten()
    }

    /// An append to the key `k` at a node.
    pub fn append(&self, node: NodeId, value: &'static str) -> Outcome {
        self.call(node, append(value), LONG)
    }

    /// What a linearizable read of `k` at a node finds.
    pub fn value(&self, node: NodeId) -> Option<Bytes> {
        let query = Query::Get { key: Bytes::from_static(b"k") };
        let request = Request::Query { query, consistency: Consistency::Linearizable };
        match self.call(node, request, LONG) {
            Some(Ok(Answered { body: Body::Query(QueryAnswer::Get(found)), .. })) => {
                found.map(|found| found.value)
            }
            other => panic!("a read ended in {other:?}"),
        }
    }
}

/// An append to the one key of a story.
#[must_use]
pub fn append(value: &'static str) -> Request {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(value.as_bytes()));
    let write = Write::Append { key, value, if_mod_revision: None };
    Request::Command(Command::Write { id: None, write })
}

/// What a node says of its replica.
#[must_use]
pub fn replica(story: &Story, node: NodeId) -> Option<ReplicaReport> {
    let reports = story.cluster.reports();
    let (_, report) = reports.into_iter().find(|(of, _)| *of == node)?;
    report.replicas.into_iter().next()
}

/// Three nodes whose shard is made into a table after a few entries, and whose logs keep none before it.
/// Nobody looks at a file that is not needed.
#[must_use]
pub fn with_small_tables() -> Story {
    let story = Story::prepared_with(3, None, |config| {
        config.snapshot_bytes_max = 2000;
        config.snapshot_keep_entries = 0;
        config.scrub_bytes_per_s = 0;
    });
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    story
}
