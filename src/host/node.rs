//! Starting one core of a node: identity, lanes, recovery, runner.
//!
//! Core 0 opens the identity, which says how many lanes there are; then each core opens its own lanes,
//! recovers them and starts its replicas. What a lane holds is durable before its replicas see it.
//!
//! It lives on the core that it starts, and deliberately knows nothing of sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::config::{self, Settings};
use crate::env::Env;
use crate::host::exit::Exit;
use crate::host::found::Found;
use crate::ids::{ClusterId, CoreId, Index, LaneId, NodeId, ShardId};
use crate::kv;
use crate::log::{
    self, FreshIdentity, Identity, IdentityStore, LANE_DIR_PREFIX, Lane, LaneConfig, OnDamage, OpenError,
    RecoveredAt,
};
use crate::raft;
use crate::route::place::{Layout, Place};
use crate::shard::{
    Config, Limits, NodePermits, Permits, ReplicaReport, ReplicaStart, RunEnd, Runner, Scrub, Snapshots,
    StartTable, TableReadError, Times, open_table,
};

/// Bytes of appends that wait for a lane's writer: raft's own limits stop a leader far earlier.
const LANE_QUEUE_BYTES_MAX: usize = 256 << 20;

/// An idle lane is sealed after this long, so that its last batch is covered by another.
const SEAL_AFTER: Duration = Duration::from_millis(10);

/// How often it is looked whether replicas have caught up.
const CATCH_UP_LOOK: Duration = Duration::from_millis(10);

/// How often a start that found the disk full tries again.
const ROOM_LOOK: Duration = Duration::from_secs(1);

/// Mistakes made on purpose, to prove that they are found. There are none in a build that serves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    /// One of driving replicas.
    #[cfg(debug_assertions)]
    pub shard: Option<crate::shard::PlantedBug>,
    /// One of raft's.
    #[cfg(debug_assertions)]
    pub raft: Option<raft::PlantedBug>,
    /// One of the state machine's.
    #[cfg(debug_assertions)]
    pub kv: Option<kv::PlantedBug>,
    /// One of the log's.
    #[cfg(debug_assertions)]
    pub log: Option<log::PlantedBug>,
}

impl Planted {
    /// Whether a node with an unknown data directory is to take part.
    #[must_use]
    pub fn lets_wiped_nodes_vote(&self) -> bool {
        #[cfg(debug_assertions)]
        return self.shard == Some(crate::shard::PlantedBug::WipedNodeVotes);
        #[cfg(not(debug_assertions))]
        return false;
    }
}

#[cfg(debug_assertions)]
impl Planted {
    /// The mistake of this name, of whichever module has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let is = |bug: &dyn std::fmt::Debug| format!("{bug:?}") == name;
        let planted = Self {
            shard: crate::shard::PlantedBug::ALL.into_iter().find(|bug| is(bug)),
            raft: raft::PlantedBug::ALL.into_iter().find(|bug| is(bug)),
            kv: kv::PlantedBug::ALL.into_iter().find(|bug| is(bug)),
            log: log::PlantedBug::ALL.into_iter().find(|bug| is(bug)),
        };
        let found = planted.shard.is_some()
            || planted.raft.is_some()
            || planted.kv.is_some()
            || planted.log.is_some();
        found.then_some(planted)
    }
}

/// Opens the identity of a node's data directory, or makes it. `recovery` is the time where whoever starts
/// the node says that its directory is lost.
pub async fn open_identity<E: Env>(
    env: &E,
    settings: &Settings,
    cores: u32,
    recovery: Option<RecoveredAt>,
) -> Result<(IdentityStore<E>, Identity), Exit> {
    let (dir, nodes) = (settings.data_dir(), nodes_of(settings));
    assert!(recovery.is_none() || nodes > 1, "the only node of a cluster has nobody to recover from");
    let fresh = FreshIdentity { recovery, ..fresh_identity(settings, cores) };
    let open = async || IdentityStore::open_or_create(env.clone(), &dir, fresh).await;
    let opened = when_there_is_room(env, open).await;
    opened.map_err(|source| Exit::Open { dir, source })
}

/// Opens something as soon as the disk has room for what that writes. A start that found none has changed
/// nothing, or what the next one goes on with, as after a crash.
async fn when_there_is_room<E: Env, T>(
    env: &E,
    open: impl AsyncFn() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let mut is_said = false;
    loop {
        match open().await {
            Err(OpenError::DiskFull(failure)) if failure.may_pass() => {
                if !std::mem::replace(&mut is_said, true) {
                    tracing::error!(%failure, "the disk is full: the start waits for room");
                }
                env.sleep(ROOM_LOOK).await;
            }
            opened => return opened,
        }
    }
}

/// What the identity of a new directory is made of.
pub(super) fn fresh_identity(settings: &Settings, cores: u32) -> FreshIdentity {
    FreshIdentity {
        node: NodeId(settings.node.id),
        cluster: ClusterId(stable_hash(&settings.cluster.origin())),
        nodes: nodes_of(settings),
        shards: settings.cluster.shards,
        lanes: cores.min(settings.cluster.shards),
        cluster_hash: stable_hash(&settings.cluster.agreement()),
        recovery: None,
    }
}

/// The permits that the cores of a node share, made once for all of them.
#[must_use]
pub fn permits(settings: &Settings, cores: u32) -> NodePermits {
    let of = |max| Permits::new(u32::try_from(max).expect("validated to be few"), cores);
    let config::Node { snapshots_at_once_max, fetches_at_once_max, .. } = settings.node;
    NodePermits { snapshots: of(snapshots_at_once_max), fetches: of(fetches_at_once_max) }
}

/// Opens one core's lanes and starts its replicas.
pub async fn open_core<E: Env>(
    env: &E,
    settings: &Settings,
    identity: &Identity,
    (core, cores): (CoreId, u32),
    permits: &NodePermits,
    planted: &Planted,
) -> Result<(Runner<E>, Found), Exit> {
    let dir = settings.data_dir();
    let layout = Layout::new(identity.nodes, identity.shards, identity.lanes, cores);
    let mut found = Found::default();
    let mut lanes = BTreeMap::new();
    let mut starts = Vec::new();
    for lane in layout.lanes_of(core) {
        let began = env.now();
        let lane_config = lane_config(settings, (&layout, lane), planted);
        let path = dir.join(lane_dir(lane));
        let open = async || Lane::open(env.clone(), &path, lane_config.clone()).await;
        let opened = when_there_is_room(env, open).await;
        let (opened, recovery) = opened.map_err(|source| Exit::Open { dir: dir.clone(), source })?;
        let recovered = env.now();
        found.add_lane(lane, &recovery, recovered.since(began));
        let of_lane = starts_of(env, (identity, &layout, lane), (&opened, recovery)).await?;
        found.add_shards(&of_lane, env.now().since(recovered));
        starts.extend(of_lane);
        lanes.insert(lane, opened);
    }
    let place = Place { node: identity.node, core };
    let config = runner_config(settings, identity, (place, layout), permits, planted);
    let runner = Runner::new(env.clone(), config, lanes, starts);
    let runner = runner.map_err(|source| Exit::Unreadable { dir, source })?;
    Ok((runner, found))
}

/// Waits until a core's replicas have applied what their log knew to be committed when they started.
pub async fn caught_up<E: Env>(env: &E, runner: &Runner<E>, committed: &BTreeMap<ShardId, Index>) {
    let is_behind = |replica: &ReplicaReport| {
        let wanted = committed.get(&replica.shard).copied().unwrap_or_default();
        replica.applied_index < wanted
    };
    while runner.report().replicas.iter().any(is_behind) {
        env.sleep(CATCH_UP_LOOK).await;
    }
}

fn shards_of(layout: &Layout, lane: LaneId) -> impl Iterator<Item = ShardId> {
    (0..layout.shards).map(ShardId).filter(move |shard| layout.lane_of(*shard) == lane)
}

/// What each shard of a lane is started from: what its log and its table hold, or nothing.
async fn starts_of<E: Env>(
    env: &E,
    (identity, layout, lane): (&Identity, &Layout, LaneId),
    (opened, mut recovery): (&Lane<E>, log::Recovery),
) -> Result<Vec<ReplicaStart<E>>, Exit> {
    let mut starts = Vec::new();
    for shard in shards_of(layout, lane) {
        let held = recovery.shards.remove(&shard).unwrap_or_default();
        let is_lane_new = recovery.manifest.is_missing();
        let recovered = raft::Recovered {
            hard_state: held.hard_state,
            standing: held.standing.unwrap_or_else(|| standing_untold(env, identity, is_lane_new)),
            terms: held.terms,
            last_index: held.last_index,
            ..raft::Recovered::default()
        };
        let table = match recovery.tables.get(&shard) {
            None => StartTable::None,
            Some(named) if recovery.doubted.contains(&shard) && layout.nodes > 1 => {
                let path = opened.dir().join(log::table_name(shard, named.generation));
                StartTable::Lost { named: *named, source: TableReadError::Doubted { path } }
            }
            Some(named) => match open_table(env, opened.dir(), shard, named).await {
                Ok(table) => StartTable::Open(Box::new(table)),
                Err(source) if layout.nodes > 1 => StartTable::Lost { named: *named, source },
                Err(source) => return Err(Exit::Table(RunEnd::Table { shard, source })),
            },
        };
        starts.push(ReplicaStart { shard, recovered, table });
    }
    Ok(starts)
}

/// The standing of a replica whose log holds none: it never had to write one. In a recovered directory it has
/// said nothing from there, and may have said anything from the one before, which is lost; so it may where
/// its lane is new and the node is not: the lane is gone.
fn standing_untold<E: Env>(env: &E, identity: &Identity, is_lane_new: bool) -> raft::Standing {
    if identity.is_recovered() || (identity.entitled && is_lane_new) {
        raft::Standing::Forgetful { episode: env.random().max(1), told: None }
    } else {
        raft::Standing::Whole
    }
}

fn runner_config(
    settings: &Settings,
    identity: &Identity,
    (place, layout): (Place, Layout),
    permits: &NodePermits,
    planted: &Planted,
) -> Config {
    #[cfg(not(debug_assertions))]
    let Planted {} = planted;
    let cluster = &settings.cluster;
    Config {
        place,
        incarnation: identity.starts,
        layout,
        times: Times::of(
            Duration::from_millis(cluster.election_timeout_ms),
            Duration::from_millis(cluster.heartbeat_ms),
        ),
        limits: Limits {
            calls_max: usize::try_from(settings.node.calls_max).expect("validated to be small"),
            ..Limits::default()
        },
        read_mode: if cluster.lease_reads { raft::ReadMode::Lease } else { raft::ReadMode::ReadIndex },
        kv: kv::Limits::DEFAULT,
        snapshots: snapshots(&settings.node),
        permits: permits.clone(),
        disk_reserve_bytes: settings.node.disk_reserve_bytes,
        scrub: Scrub {
            bytes_per_s: settings.node.scrub_bytes_per_s,
            round_min: Duration::from_secs(settings.node.scrub_interval_s),
        },
        #[cfg(debug_assertions)]
        planted: planted.shard,
        #[cfg(debug_assertions)]
        planted_raft: planted.raft,
        #[cfg(debug_assertions)]
        planted_kv: planted.kv,
    }
}

fn snapshots(node: &config::Node) -> Snapshots {
    let bytes = |bytes| usize::try_from(bytes).expect("validated to fit memory");
    let defaults = Snapshots::default();
    let changes_bytes_max = bytes(node.snapshot_bytes_max);
    Snapshots {
        changes_bytes_max,
        changes_bytes_min: changes_bytes_max.min(bytes(node.snapshot_bytes_min)),
        every: Duration::from_secs(node.snapshot_interval_s),
        keep_entries: node.snapshot_keep_entries,
        log_segments_max: usize::try_from(node.log_segments_max).expect("validated to be few"),
        cache_bytes_max: bytes(node.block_cache_bytes),
        ..defaults
    }
}

pub(super) fn lane_config(
    settings: &Settings,
    (layout, lane): (&Layout, LaneId),
    planted: &Planted,
) -> LaneConfig {
    #[cfg(not(debug_assertions))]
    let Planted {} = planted;
    // What is lost can be had from peers; alone there are none.
    let has_peers = settings.cluster.peers.len() > 1;
    let damage = if has_peers { OnDamage::Lose(shards_of(layout, lane).collect()) } else { OnDamage::Stop };
    LaneConfig {
        lane,
        segment_bytes: settings.node.segment_bytes,
        batch_bytes_max: usize::try_from(settings.node.batch_bytes_max).expect("validated to be below 1 GiB"),
        batch_delay: Duration::from_micros(settings.node.batch_delay_us),
        queue_bytes_max: LANE_QUEUE_BYTES_MAX,
        seal_after: SEAL_AFTER,
        damage,
        #[cfg(debug_assertions)]
        planted: planted.log,
    }
}

fn nodes_of(settings: &Settings) -> u32 {
    u32::try_from(settings.cluster.peers.len()).expect("validated to be few")
}

pub(super) fn lane_dir(lane: LaneId) -> impl AsRef<Path> {
    format!("{LANE_DIR_PREFIX}{lane}")
}

/// A hash that is the same on every machine and in every version.
#[must_use]
pub fn stable_hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}
