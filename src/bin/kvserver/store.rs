//! The runner of a core as what its edge serves from.

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use distribkv::edge::SERVICES;
use distribkv::edge::store::{
    BackupSource, Identity, LaneStatus, NodeAddress, PipelineOrder, ReplicaRole, ReplicaStatus, Routing,
    Serving, ShardRoute, Status, Store,
};
use distribkv::env::stages::Stages;
use distribkv::env::{Env, Instant};
use distribkv::ids::{ClusterId, NodeId, ShardId};
use distribkv::route::call::{Answered, Failure, Request};
use distribkv::shard::{
    self, BackupFacts, LaneReport, ReplicaReport, Runner, SnapshotAnswer, TableFailure, Wanted,
};

/// What a node's store knows beside the runner.
pub struct NodeFacts {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Shards of the cluster.
    pub shards: u32,
    /// The set of defaults that the node was started with, by name.
    pub profile: String,
    /// What clients dial, node by node.
    pub addresses: Vec<String>,
    /// When the process started.
    pub started_at: Instant,
}

/// One core's store.
pub struct NodeStore<E: Env> {
    env: E,
    runner: Runner<E>,
    facts: Rc<NodeFacts>,
}

impl<E: Env> Clone for NodeStore<E> {
    fn clone(&self) -> Self {
        Self { env: self.env.clone(), runner: self.runner.clone(), facts: Rc::clone(&self.facts) }
    }
}

impl<E: Env> NodeStore<E> {
    /// Serves from this runner.
    pub fn new(env: E, runner: Runner<E>, facts: NodeFacts) -> Self {
        Self { env, runner, facts: Rc::new(facts) }
    }

    fn voters(&self) -> Vec<NodeId> {
        (1u32..).take(self.facts.addresses.len()).map(NodeId).collect()
    }

    fn serves(&self, shard: ShardId) -> bool {
        !self.runner.is_draining() && self.runner.known(shard).is_serving
    }

    fn serves_all(&self) -> bool {
        (0..self.facts.shards).map(ShardId).all(|shard| self.serves(shard))
    }
}

/// An ordered stream of the runner.
pub struct Ordered<E: Env>(shard::Pipeline<E>);

impl<E: Env> PipelineOrder for Ordered<E> {
    fn submit(
        &self,
        shard: ShardId,
        request: Request,
        deadline: Instant,
    ) -> impl Future<Output = Result<Answered, Failure>> + 'static {
        self.0.submit(shard, request, deadline)
    }
}

/// A backup of the runner's node.
pub struct NodeBackup<E: Env>(shard::Backup<E>);

impl<E: Env> BackupSource for NodeBackup<E> {
    async fn next(&mut self) -> Result<Option<Bytes>, TableFailure> {
        self.0.next().await
    }
}

impl<E: Env> Store for NodeStore<E> {
    type Pipeline = Ordered<E>;
    type Backup = NodeBackup<E>;

    async fn call(&self, shard: ShardId, request: Request, deadline: Instant) -> Result<Answered, Failure> {
        self.runner.call(shard, request, deadline).await
    }

    fn pipeline(&self) -> Ordered<E> {
        Ordered(self.runner.pipeline())
    }

    fn identity(&self) -> Identity {
        Identity { cluster: self.facts.cluster, node: self.facts.node, shards: self.facts.shards }
    }

    fn routing(&self) -> Routing {
        let route = |(shard, known): (ShardId, shard::Known)| ShardRoute {
            shard,
            leader: known.leader,
            voters: self.voters(),
            learners: Vec::new(),
        };
        let address = |(node, address): (NodeId, &String)| NodeAddress { node, address: address.clone() };
        Routing {
            shards: self.runner.directory().into_iter().map(route).collect(),
            nodes: self.voters().into_iter().zip(&self.facts.addresses).map(address).collect(),
        }
    }

    async fn status(&self) -> Status {
        let cores = self.runner.status().await;
        let mut replicas: Vec<ReplicaStatus> =
            cores.iter().flat_map(|core| &core.replicas).map(replica).collect();
        let mut lanes: Vec<LaneStatus> = cores.iter().flat_map(|core| &core.lanes).map(lane).collect();
        let mut stages: Vec<_> = cores.iter().map(|core| (core.stages.core, *core.stages.tallies)).collect();
        stages.sort_by_key(|(core, _)| *core);
        replicas.sort_by_key(|replica| replica.shard);
        lanes.sort_by_key(|lane| lane.lane);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: self.facts.profile.clone(),
            uptime: self.env.now().since(self.facts.started_at),
            replicas,
            lanes,
            stages,
        }
    }

    fn stages(&self) -> &Stages {
        self.runner.stages()
    }

    fn backup(&self) -> NodeBackup<E> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let made_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        NodeBackup(self.runner.backup(BackupFacts { cluster: self.facts.cluster, made_ms }))
    }

    async fn snapshot(&self, shards: Vec<ShardId>, deadline: Instant) -> Result<(), TableFailure> {
        let patience = deadline.since(self.env.now());
        // All are asked at once, so that the cores make their tables beside each other.
        let asked: Vec<_> = shards
            .into_iter()
            .map(|shard| (shard, self.runner.ask_snapshot(shard, Wanted::Applied, patience)))
            .collect();
        for (shard, answer) in asked {
            match answer.await {
                Some(SnapshotAnswer::Durable(_)) => {}
                Some(SnapshotAnswer::Behind | SnapshotAnswer::Making) => {
                    return Err(TableFailure::Making { shard });
                }
                Some(SnapshotAnswer::Busy) | None => return Err(TableFailure::Busy { shard }),
            }
        }
        Ok(())
    }

    fn health(&self, service: &str) -> Option<Serving> {
        let serves = match service.strip_prefix("shard/") {
            Some(number) => {
                let shard = number.parse().ok().filter(|shard| *shard < self.facts.shards)?;
                self.serves(ShardId(shard))
            }
            None if service.is_empty() || SERVICES.contains(&service) => self.serves_all(),
            None => return None,
        };
        Some(if serves { Serving::Yes } else { Serving::No })
    }

    fn health_names(&self) -> Vec<String> {
        let shards = (0..self.facts.shards).map(|shard| format!("shard/{shard}"));
        let services = SERVICES.iter().map(ToString::to_string);
        std::iter::once(String::new()).chain(services).chain(shards).collect()
    }

    fn health_version(&self) -> u64 {
        self.runner.directory_version()
    }

    async fn health_changed(&self, seen: u64) -> u64 {
        self.runner.directory_changed(seen).await
    }
}

fn replica(report: &ReplicaReport) -> ReplicaStatus {
    ReplicaStatus {
        shard: report.shard,
        role: match report.role {
            shard::Role::Follower => ReplicaRole::Follower,
            shard::Role::Candidate => ReplicaRole::Candidate,
            shard::Role::Leader => ReplicaRole::Leader,
            shard::Role::Recovering => ReplicaRole::Recovering,
        },
        leader: report.leader,
        term: report.term,
        last_index: report.last_index,
        commit_index: report.commit_index,
        applied_index: report.applied_index,
        revision: report.revision,
        keys: report.keys,
        bytes: report.bytes,
        snapshot_index: report.snapshot_index,
        state_digest: report.state_digest,
        lane: report.lane,
        fetch_bytes_done: report.fetch.map_or(0, |fetch| fetch.bytes_done),
        fetch_bytes_total: report.fetch.map_or(0, |fetch| fetch.bytes_total),
    }
}

fn lane(report: &LaneReport) -> LaneStatus {
    LaneStatus {
        lane: report.lane,
        core: report.core,
        log_bytes: report.log_bytes,
        segments: report.segments,
        last_write: report.last_write,
        oldest_pending: report.oldest_pending.max(Duration::ZERO),
        poisoned: report.is_poisoned,
        disk_full: report.is_disk_full,
        damaged_total: report.damaged_and_repaired.0,
        repaired_total: report.damaged_and_repaired.1,
    }
}
