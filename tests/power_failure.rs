//! Power failures of real file systems under load: of one node's, and of all nodes' at the same moment. What
//! was acknowledged is there afterwards, once.
//!
//! They need root, loop devices and perl. Where there are none, each says on standard error that it was
//! skipped, and why.

mod processes;

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use processes::load::Load;
use processes::small_disk::{PowerCut, SmallDisk};
use processes::{Cluster, Ended, PATIENCE, Process};

/// How often the power fails in each of the two tests.
const ROUNDS: usize = 25;

/// Three nodes write on it at most.
const DISK_BYTES: u64 = 1 << 30;

const CUTS: [PowerCut; 3] = [PowerCut::AtOnce, PowerCut::AfterJournal, PowerCut::AfterAll];

/// Cuts the power of the disk that all nodes are on, under load, so often.
async fn rounds(test: &str, nodes: u32, rounds: usize) {
    let Some(disk) = SmallDisk::or_skip(test, DISK_BYTES) else { return };
    let mut cluster = Cluster::new_quick(nodes);
    for node in &mut cluster.nodes {
        node.data_dir = disk.path().join(format!("node-{}", node.id));
    }
    cluster.start_all().await;
    let load = Load::start(cluster.addresses(), 6);
    for round in 0..rounds {
        // Another moment each time: right after the start, in the middle, with tables under way.
        load.goes_on(40 + 170 * (round % 5)).await;
        let cut = CUTS[round % CUTS.len()];
        disk.cut_power(cut);
        if round % 2 == 0 {
            find_out(&mut cluster).await;
        }
        for node in &mut cluster.nodes {
            node.process.take();
        }
        disk.power_on();
        cluster.start_all().await;
    }
    load.goes_on(100).await;
    let tally = load.stop_and_check().await;
    println!("{nodes} nodes, {rounds} power cuts: {tally:?}");
    cluster.digests_agree().await;
}

/// Nodes whose file system is gone find out and say so, each by what it writes or reads next. One that is
/// left without a quorum has nothing to write: it asks for votes before it takes part in a term (the
/// dissertation, section 9.6), and goes on asking.
async fn find_out(cluster: &mut Cluster) {
    let begun = Instant::now();
    let quorum = cluster.nodes.len() / 2 + 1;
    let mut running: Vec<Process> =
        cluster.nodes.iter_mut().map(|node| node.process.take().expect("it was started")).collect();
    while running.len() >= quorum {
        assert!(begun.elapsed() < PATIENCE, "{}", running[0].said().join("\n"));
        match running.iter_mut().position(Process::has_ended) {
            Some(ended) => says_why(&running.swap_remove(ended).ended().await),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    for mut process in running {
        if process.has_ended() {
            says_why(&process.ended().await);
        }
    }
}

fn says_why(ended: &Ended) {
    // Most often it is a write of the log that fails first; it may be a read.
    assert!(matches!(ended.code, Some(18 | 1)), "{:?}: {}", ended.code, ended.said);
    assert!(ended.said.contains("kvserver: ") && ended.said.contains("os error 5"), "{}", ended.said);
}

/// What these tests rest on: a power cut takes what was not synced, and nothing else.
#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let Some(disk) = SmallDisk::or_skip("a_power_cut_takes_what_was_not_synced", 64 << 20) else { return };
    let file = |name: &str| disk.path().join(name);
    let content = |name| std::fs::read(file(name)).ok();
    let synced = |name: &str, text: &str| {
        let mut made = File::create(file(name)).expect("there is room");
        made.write_all(text.as_bytes()).and_then(|()| made.sync_all()).expect("there is room");
        File::open(disk.path()).and_then(|dir| dir.sync_all()).expect("it is a directory");
    };
    synced("kept", "synced");
    std::fs::write(file("lost"), "never synced").expect("there is room");
    assert!(content("lost").is_some(), "it is in the page cache");
    disk.cut_power(PowerCut::AtOnce);
    disk.power_on();
    assert_eq!(content("kept").as_deref(), Some(&b"synced"[..]));
    assert_eq!(content("lost"), None);
}

#[tokio::test]
async fn a_node_whose_power_fails_has_what_it_acknowledged() {
    let test = "a_node_whose_power_fails_has_what_it_acknowledged";
    tokio::task::LocalSet::new().run_until(rounds(test, 1, ROUNDS)).await;
}

#[tokio::test]
async fn a_cluster_whose_power_fails_has_what_it_acknowledged() {
    let test = "a_cluster_whose_power_fails_has_what_it_acknowledged";
    tokio::task::LocalSet::new().run_until(rounds(test, 3, ROUNDS)).await;
}
