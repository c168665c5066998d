//! Stories of nodes with several cores: how many of them make tables, or fetch them, at the same time.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{NodeId, ShardId};
use distribkv::kv::{Command, Previous, Write};
use distribkv::route::call::Request;
use distribkv::shard::ReplicaReport;
use sim::disk::Crash;
use sim::story::{LONG, Story};

const CORES: u32 = 4;
const SHARDS: u32 = 4;

/// Three nodes of as many cores as shards, each of which is led.
fn begin(snapshots_at_once_max: u64, fetches_at_once_max: u64) -> Story {
    let story = Story::prepared_with(3, None, |config| {
        (config.cores, config.shards) = (CORES, SHARDS);
        (config.snapshot_bytes_max, config.snapshot_keep_entries) = (64 << 10, 0);
        config.snapshots_at_once_max = snapshots_at_once_max;
        config.fetches_at_once_max = fetches_at_once_max;
    });
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    let all_led = |story: &Story| {
        let known = story.cluster.directory(NodeId(1));
        known.len() == SHARDS as usize && known.iter().all(|(_, known)| known.leader.is_some())
    };
    story.wait(all_led);
    story
}

/// Writes to every shard at the same time, again and again, while `look` looks.
fn write(story: &Story, rounds: usize, look: impl Fn()) {
    for round in 0..rounds {
        let (key, value) = (Bytes::from(format!("{round:04}")), Bytes::from(vec![b'v'; 6000]));
        let write = Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit };
        let request = Request::Command(Command::Write { id: None, write });
        for shard in (0..SHARDS).map(ShardId) {
            let call = (shard, request.clone());
            drop(story.cluster.call((NodeId(1), 0), call, Duration::from_secs(2)));
        }
        let until = story.world.time() + Duration::from_millis(30);
        story.world.run_until(until, || {
            look();
            false
        });
    }
}

fn replicas(story: &Story, node: NodeId) -> Vec<ReplicaReport> {
    let reports = story.cluster.reports().into_iter().filter(|(of, _)| *of == node);
    reports.flat_map(|(_, report)| report.replicas).collect()
}

/// The most replicas of a node that were at it at the same time, and how many of its shards have a table.
fn tables_made(at_once_max: u64) -> (usize, usize) {
    let story = begin(at_once_max, 1);
    let most = Cell::new(0);
    write(&story, 100, || {
        for node in story.cluster.nodes() {
            let count = replicas(&story, node).iter().filter(|of| of.snapshot_bytes_written > 0).count();
            most.set(most.get().max(count));
        }
    });
    let has_table = |of: &&ReplicaReport| of.snapshot_index.0 > 50;
    (most.get(), replicas(&story, NodeId(1)).iter().filter(has_table).count())
}

#[test]
fn no_more_tables_are_made_at_once_than_a_node_may() {
    assert_eq!(tables_made(1), (1, SHARDS as usize));
    assert_eq!(tables_made(2), (2, SHARDS as usize));
}

/// The most tables that a node fetches at the same time on its way back.
fn tables_fetched(at_once_max: u64) -> usize {
    let story = begin(CORES.into(), at_once_max);
    write(&story, 300, || {});
    let wiped = NodeId(3);
    let all_in_tables =
        |story: &Story, node| replicas(story, node).iter().all(|of| of.snapshot_index.0 > 280);
    story.wait(|story| story.cluster.nodes().into_iter().all(|node| all_in_tables(story, node)));
    story.cluster.crash(wiped, Crash::Power);
    story.cluster.replace_data_dir(wiped);
    story.cluster.boot_to_recover(wiped);
    let most = Cell::new(0);
    let is_whole = || {
        let replicas = replicas(&story, wiped);
        let count = replicas.iter().filter(|of| of.fetch.is_some()).count();
        most.set(most.get().max(count));
        replicas.len() == SHARDS as usize && replicas.iter().all(|of| of.is_whole && of.keys > 0)
    };
    story.world.run_until(story.world.time() + LONG, is_whole);
    assert!(is_whole(), "all of its shards are back");
    most.get()
}

#[test]
fn no_more_tables_are_fetched_at_once_than_a_node_may() {
    assert_eq!(tables_fetched(1), 1);
    assert_eq!(tables_fetched(2), 2);
}
