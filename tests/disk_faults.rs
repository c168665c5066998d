//! What a cluster of real processes does when the disk of one node fails, runs out below, or hangs.
//!
//! They need root and loop devices. Where there are none, each says on standard error that it was skipped,
//! and why.

mod processes;

use std::io::Write as _;
use std::time::{Duration, Instant};

use distribkv::wire::v1;
use processes::disk::Disk;
use processes::load::Load;
use processes::{Cluster, PATIENCE, QUICK_ELECTION, SHARDS, get, key_of, put, within};
use tonic::{Code, Response, Status};

/// How long a call through a node whose disk hangs may take.
const CALL_MAX: Duration = Duration::from_secs(2);

/// A disk, where this machine has one for us.
fn disk_or_skip(test: &str) -> Option<Disk> {
    let why = match Disk::new() {
        Ok(disk) => return Some(disk),
        Err(why) => why,
    };
    // Not by a macro: what those print is shown of tests that fail.
    let said = format!(
        "{test}: SKIPPED, no disk that can be made to fail: {}\n",
        why.lines().next().unwrap_or_default()
    );
    std::io::stderr().write_all(said.as_bytes()).expect("somebody listens");
    None
}

/// Three nodes that serve, the first of them on this disk.
async fn cluster_on(disk: &Disk) -> Cluster {
    let mut cluster = Cluster::new_quick(3);
    cluster.nodes[0].data_dir = disk.path().join("node-1");
    cluster.start_all().await;
    cluster
}

/// Node 1 is on a disk whose writes begin to fail, under load.
async fn a_disk_breaks(disk: &Disk, breaks: fn(&Disk, &Cluster), cause: &str) {
    let mut cluster = cluster_on(disk).await;
    let load = Load::start(cluster.addresses(), 6);
    load.goes_on(300).await;
    cluster.shard_led_by(1).await;
    breaks(disk, &cluster);
    let mut process = cluster.nodes[0].process.take().expect("it was started");
    let ended = process.ended().await;
    let lane = cluster.node(1).data_dir.join("lane-");
    ended.assert(18, &["writing a batch to", &lane.to_string_lossy(), "seg-", " at byte ", cause]);
    load.goes_on(500).await;
    assert!(cluster.leaders(2).await.iter().all(|leader| *leader != 1), "a node that has ended leads");
    disk.is_mended();
    cluster.start(1);
    cluster.ready(1).await;
    // With another one away, nothing is acknowledged without its disk.
    cluster.kill(2);
    load.goes_on(300).await;
    cluster.start(2);
    cluster.ready(2).await;
    println!("{cause}: {:?}", load.stop_and_check().await);
    cluster.digests_agree().await;
}

#[tokio::test]
async fn a_failed_batch_write_ends_its_node_and_loses_nothing() {
    let Some(disk) = disk_or_skip("a_failed_batch_write_ends_its_node_and_loses_nothing") else { return };
    let tasks = tokio::task::LocalSet::new();
    tasks.run_until(a_disk_breaks(&disk, |disk, _| disk.fails(), "os error 5")).await;
}

/// Its segments are there and written: that a batch has no room is a broken promise, not a full disk.
#[tokio::test]
async fn a_thin_disk_without_room_ends_its_node_and_loses_nothing() {
    let Some(disk) = disk_or_skip("a_thin_disk_without_room_ends_its_node_and_loses_nothing") else { return };
    let runs_out = |disk: &Disk, cluster: &Cluster| {
        let process = cluster.node(1).process();
        process.signal("STOP");
        // A write that is under way ends all the same.
        std::thread::sleep(Duration::from_millis(200));
        disk.has_no_room_below();
        process.signal("CONT");
    };
    tokio::task::LocalSet::new().run_until(a_disk_breaks(&disk, runs_out, "os error 28")).await;
}

#[tokio::test]
async fn a_leader_whose_disk_hangs_hands_over_and_comes_back() {
    let Some(disk) = disk_or_skip("a_leader_whose_disk_hangs_hands_over_and_comes_back") else { return };
    tokio::task::LocalSet::new().run_until(a_disk_hangs(&disk)).await;
}

async fn a_disk_hangs(disk: &Disk) {
    let mut cluster = cluster_on(disk).await;
    let load = Load::start(cluster.addresses(), 6);
    load.goes_on(300).await;
    let shard = cluster.shard_led_by(1).await;
    let keys: Vec<String> = (0..SHARDS).map(|shard| key_of(shard, "hangs/")).collect();
    for key in &keys {
        cluster.node(1).kv().put(put(key, "before")).await.expect("it serves");
    }
    let frozen = disk.freeze();
    let begun = Instant::now();
    let at_once = key_of(shard, "at once/");
    let told = tokio::task::spawn_local({
        let (mut kv, write) = (cluster.node(1).kv(), put(&at_once, "v"));
        async move { kv.put(within(CALL_MAX, write)).await }
    });
    nobody_follows(&cluster, 1).await;
    let elections = begun.elapsed().as_secs_f64() / QUICK_ELECTION.as_secs_f64();
    println!("the others lead every shard {:?} after its disk hung, {elections:.2} T", begun.elapsed());
    for key in &keys {
        let written = cluster.node(2).kv().put(within(PATIENCE, put(key, "after"))).await;
        written.expect("two disks of three are a quorum");
    }
    println!("every shard has acknowledged a write after {:?}", begun.elapsed());
    answers_are_fresh(&cluster, &keys).await;
    load.goes_on(500).await;
    answers_are_fresh(&cluster, &keys).await;
    assert!(!cluster.nodes[0].process.as_mut().is_some_and(|process| process.has_ended()), "it waits");
    drop(frozen);
    // With another one away, nothing is acknowledged without its disk.
    cluster.kill(3);
    load.goes_on(300).await;
    cluster.start(3);
    cluster.ready(3).await;
    println!("{:?}", load.stop_and_check().await);
    cluster.digests_agree().await;
    was_told_the_truth(&cluster, &at_once, told.await.expect("no panic")).await;
}

/// Waits until both other nodes know a leader of each shard, and none is this one.
async fn nobody_follows(cluster: &Cluster, id: u32) {
    let begun = Instant::now();
    for node in cluster.nodes.iter().filter(|node| node.id != id) {
        while cluster.leaders(node.id).await.contains(&id) {
            assert!(begun.elapsed() < PATIENCE, "node {id} is still followed by node {}", node.id);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Through node 1, a linearizable read is answered with what was written last, or not.
async fn answers_are_fresh(cluster: &Cluster, keys: &[String]) {
    let mut answered = 0;
    for key in keys {
        if let Ok(read) = cluster.node(1).kv().get(within(CALL_MAX, get(key))).await {
            let value = read.into_inner().kv.map(|kv| kv.value);
            assert_eq!(value, Some("after".into()), "node 1 answered with an old value of {key}");
            answered += 1;
        }
    }
    println!("{answered} of {} reads through the node whose disk hangs were answered", keys.len());
}

/// Whether what was said of a write is so.
async fn was_told_the_truth(cluster: &Cluster, key: &str, told: Result<Response<v1::PutResponse>, Status>) {
    let read = cluster.node(2).kv().get(get(key)).await.expect("it serves").into_inner().kv;
    match &told {
        Ok(_) => assert!(read.is_some(), "it was acknowledged"),
        Err(status) if status.code() == Code::Unavailable => {
            assert!(read.is_none(), "it was said not to be executed: {status}");
        }
        Err(_) => {}
    }
    println!("a write at once was told {:?}, and is there: {}", told.map(|_| ()), read.is_some());
}
