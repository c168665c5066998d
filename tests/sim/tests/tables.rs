//! Tables on a disk of a node of its own: they are in memory when they are installed, and looked at though
//! nobody reads them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use distribkv::env::signal::AnswerReceiver;
use distribkv::host::node::Planted;
use distribkv::ids::{NodeId, ShardId};
use distribkv::kv::{Command, Previous, Query, QueryAnswer, Write};
use distribkv::route::call::{Answered, Body, Consistency, Failure, Request};
use sim::cluster::{Cluster, ClusterConfig, Ending};
use sim::disk::DiskConfig;
use sim::executor::{World, WorldConfig};
use sim::network::NetworkConfig;

const PAGE: u64 = 4096;
const SHARD: ShardId = ShardId(0);
const NODE: NodeId = NodeId(1);
const KEYS: u32 = 100;

fn key(number: u32) -> Bytes {
    Bytes::from(format!("{number:03}"))
}

/// A node of its own whose only shard has a table; the table's file.
fn node_with_table(block_cache_bytes: u64) -> (World, Cluster, PathBuf) {
    let world = World::new(WorldConfig::seeded(3));
    let config = ClusterConfig {
        nodes: 1,
        cores: 1,
        shards: 1,
        disk: DiskConfig::default(),
        network: NetworkConfig::reliable(100, 300),
        election: Duration::from_millis(200),
        lease_reads: false,
        snapshot_bytes_max: 64 << 10,
        snapshot_keep_entries: 10,
        block_cache_bytes,
        snapshots_at_once_max: 4,
        fetches_at_once_max: 1,
        scrub_bytes_per_s: 4 << 20,
        scrub_interval_s: 3600,
        planted: Planted::default(),
    };
    let cluster = Cluster::new(&world, config);
    cluster.boot(NODE);
    world.run_for(Duration::from_secs(1));
    for number in 0..KEYS {
        let (key, value) = (key(number), Bytes::from(vec![b'v'; 1000]));
        let write = Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit };
        let request = Request::Command(Command::Write { id: None, write });
        let answer = cluster.call((NODE, 0), (SHARD, request), Duration::from_secs(1));
        world.run_for(Duration::from_millis(10));
        assert!(answer_of(&world, answer).is_some(), "key {number} is written");
    }
    world.run_for(Duration::from_secs(5));
    let dir = Path::new("/data/dir-0/lane-0");
    let files = cluster.machine(NODE).disk().files(dir);
    let table = files.iter().find(|(name, bytes)| name.starts_with("table-") && bytes.len() > 64 << 10);
    let (name, _) = table.unwrap_or_else(|| panic!("no table of all keys among {:?}", names(&files)));
    let path = dir.join(name);
    (world, cluster, path)
}

/// What came of a call that had its time.
fn answer_of(world: &World, answer: AnswerReceiver<Result<Answered, Failure>>) -> Option<Body> {
    let group = world.start(NodeId(2000));
    let ended = world.run(group, Duration::from_millis(1), answer);
    world.crash(NodeId(2000));
    ended.ok().flatten()?.ok().map(|answered| answered.body)
}

fn names(files: &[(String, Vec<u8>)]) -> Vec<(&str, usize)> {
    files.iter().map(|(name, bytes)| (&name[..], bytes.len())).collect()
}

/// Operations of the disk while every key is read once, beyond those of as long without reads.
fn operations_of_reads(block_cache_bytes: u64) -> u64 {
    let (world, cluster, _) = node_with_table(block_cache_bytes);
    let disk = cluster.machine(NODE).disk().clone();
    let before = disk.operations();
    world.run_for(Duration::from_secs(1));
    let idle = disk.operations() - before;
    for number in 0..KEYS {
        let (query, consistency) = (Query::Get { key: key(number) }, Consistency::Stale);
        let request = Request::Query { query, consistency };
        let answer = cluster.call((NODE, 0), (SHARD, request), Duration::from_secs(1));
        world.run_for(Duration::from_millis(10));
        let body = answer_of(&world, answer);
        assert!(matches!(body, Some(Body::Query(QueryAnswer::Get(Some(_))))), "key {number}: {body:?}");
    }
    disk.operations() - before - 2 * idle
}

#[test]
fn a_table_that_is_installed_has_its_blocks_in_memory() {
    assert_eq!(operations_of_reads(CACHE), 0);
    let without_room = operations_of_reads(1 << 10);
    assert!(without_room >= 5, "{without_room} operations where the cache holds one block");
}

/// Room for all blocks.
const CACHE: u64 = 1 << 20;

/// Longer than until the first round.
const A_ROUND: Duration = Duration::from_secs(70);

#[test]
fn a_table_that_is_whole_troubles_nobody() {
    let (world, cluster, _) = node_with_table(CACHE);
    world.run_for(A_ROUND);
    assert_eq!(cluster.ending(NODE), Ending::None);
}

#[test]
fn damage_to_any_part_of_a_table_is_found_though_nobody_reads_it() {
    let bytes = {
        let (_world, cluster, path) = node_with_table(CACHE);
        let files = cluster.machine(NODE).disk().files(path.parent().expect("it lies in the lane's"));
        files.into_iter().find(|(name, _)| path.ends_with(name)).map_or(0, |(_, bytes)| bytes.len() as u64)
    };
    // Header, first block, sessions, filter, index, footer: the last four are a page each.
    for place in [100, PAGE + 900, bytes - 4 * PAGE + 1, bytes - 3 * PAGE, bytes - 2 * PAGE, bytes - 2000] {
        let (world, cluster, path) = node_with_table(CACHE);
        cluster.machine(NODE).disk().flip_bit(&path, place, 3);
        world.run_for(A_ROUND);
        let ending = cluster.ending(NODE);
        let is_found = matches!(&ending, Ending::Exit { text, .. } if text.contains("the table of shard 0"));
        assert!(is_found, "byte {place} of {bytes}: {ending:?}");
    }
}
