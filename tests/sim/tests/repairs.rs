//! Stories of damage: found at a start or while a node serves, in the log, in a table or in memory. The
//! replica says so, answers nothing wrong, and is whole again without help.
#![cfg(debug_assertions)]

use std::path::PathBuf;
use std::time::Duration;

use distribkv::ids::NodeId;
use sim::cluster::Ending;
use sim::disk::Crash;
use sim::story::{Story, replica, with_small_tables};

/// Three nodes that have made tables and have entries behind them; and what the key holds.
fn written() -> (Story, String) {
    let story = with_small_tables();
    let wanted = append(&story, 60);
    let has_table = |story: &Story, node| replica(story, node).is_some_and(|of| of.snapshot_index.0 > 20);
    story.wait(|story| story.cluster.nodes().into_iter().all(|node| has_table(story, node)));
    story.pass(Duration::from_millis(300));
    (story, wanted)
}

/// Appends to the key so many times; and what it holds then.
fn append(story: &Story, times: usize) -> String {
    let leader = story.leader().expect("the story begins with a leader");
    for _ in 0..times {
        assert!(matches!(story.append(leader, "0123456789"), Some(Ok(_))), "all are there");
    }
    "0123456789".repeat(times)
}

/// The files of a node's lane whose names end so, the oldest first.
fn files(story: &Story, node: NodeId, end: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = story.cluster.data_dir(node).join("lane-0");
    let files = story.cluster.machine(node).disk().files(&dir).into_iter();
    files.filter(|(name, _)| name.ends_with(end)).map(|(name, bytes)| (dir.join(name), bytes)).collect()
}

fn flip(story: &Story, node: NodeId, end: &str, at: u64) {
    let (path, bytes) = files(story, node, end).into_iter().next().expect("the node has such a file");
    assert!(at < bytes.len() as u64, "{} has {} bytes", path.display(), bytes.len());
    story.cluster.note_rot(node);
    story.cluster.machine(node).disk().flip_bit(&path, at, 3);
}

fn take_away(story: &Story, node: NodeId, path: &std::path::Path) {
    story.cluster.note_rot(node);
    story.cluster.machine(node).disk().lose_file(path);
}

fn holds(story: &Story, node: NodeId, wanted: &str) {
    let value = story.value(node).unwrap_or_default();
    assert!(value == wanted.as_bytes(), "asked of node {node}: {} bytes of {}", value.len(), wanted.len());
}

/// Every node is up, whole, and at the same state as the others; and the key holds what it has to.
fn ends_well(story: &Story, wanted: &str) {
    let is_well = |story: &Story| {
        let all = story.cluster.nodes().into_iter().map(|node| replica(story, node)).collect::<Vec<_>>();
        let same = |a: &distribkv::shard::ReplicaReport| {
            all.iter()
                .flatten()
                .all(|b| (a.applied_index, a.state_digest) == (b.applied_index, b.state_digest))
        };
        all.iter().flatten().count() == 3
            && all.iter().flatten().all(|of| !of.is_spoiled && of.is_whole && same(of))
            && story.leader().is_some()
    };
    story.wait(is_well);
    for node in story.cluster.nodes() {
        assert_eq!(story.cluster.ending(node), Ending::None, "node {node}");
        holds(story, node, wanted);
    }
    story.cluster.look().expect("what must hold holds");
}

/// With the third node gone, the one that was repaired counts.
fn counts_again(story: &Story, repaired: NodeId, wanted: &str) {
    let third =
        story.cluster.nodes().into_iter().find(|node| *node != repaired && Some(*node) != story.leader());
    story.cluster.crash(third.expect("there are three"), Crash::Power);
    story.wait(|story| story.leader().is_some());
    assert!(matches!(story.append(repaired, "!"), Some(Ok(_))), "two of three are there");
    holds(story, repaired, &format!("{wanted}!"));
}

#[test]
fn a_damaged_batch_in_the_log_is_made_good_by_the_peers() {
    for role in ["leader", "follower"] {
        let (story, wanted) = written();
        let leader = story.leader().expect("it has one");
        let damaged = if role == "leader" { leader } else { story.others(leader)[0] };
        story.cluster.crash(damaged, Crash::Process);
        // The last segment with entries in it, and a batch that is not the last one there.
        let segments = files(&story, damaged, ".log");
        let (path, _) =
            segments.iter().rfind(|(_, bytes)| bytes[4096..].iter().any(|b| *b != 0)).expect("one");
        story.cluster.note_rot(damaged);
        story.cluster.machine(damaged).disk().flip_bit(path, 4096 + 100, 3);
        story.cluster.boot(damaged);
        ends_well(&story, &wanted);
        counts_again(&story, damaged, &wanted);
    }
}

/// A sector goes bad while the node is down: in the middle of the log, and in its last batch.
#[test]
fn a_bad_block_of_the_log_is_made_good_by_the_peers() {
    for is_last in [false, true] {
        let (story, wanted) = written();
        let damaged = story.others(story.leader().expect("it has one"))[0];
        story.cluster.crash(damaged, Crash::Process);
        let segments = files(&story, damaged, ".log");
        let last_used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let (path, bytes) = segments.iter().rfind(|(_, bytes)| last_used(bytes) >= 4096).expect("one");
        story.cluster.note_rot(damaged);
        let at = if is_last { last_used(bytes) } else { 4096 };
        story.cluster.machine(damaged).disk().spoil_block(path, at as u64);
        story.cluster.boot(damaged);
        ends_well(&story, &wanted);
        counts_again(&story, damaged, &wanted);
    }
}

/// Nobody reads the oldest segment of a node that serves: the scrub finds that one block of it is bad, and
/// the log is let go of.
#[test]
fn a_bad_block_that_nobody_reads_is_found_by_the_scrub() {
    let story = Story::begin(None);
    let wanted = append(&story, 40);
    let damaged = story.others(story.leader().expect("it has one"))[0];
    let mut segments = files(&story, damaged, ".log");
    assert_eq!(segments.len(), 3, "one has ended, one is written to, one is a spare");
    let (path, _) = segments.remove(0);
    story.cluster.note_rot(damaged);
    story.cluster.machine(damaged).disk().spoil_block(&path, 4096);
    let count = |story: &Story| replica(story, damaged).map_or(0, |of| of.damaged_and_repaired.0);
    assert_eq!(count(&story), 0);
    // The first round begins a minute after the start.
    story.pass(Duration::from_secs(65));
    assert!(count(&story) > 0);
    ends_well(&story, &wanted);
}

#[test]
fn a_segment_that_is_gone_is_made_good_by_the_peers() {
    let (story, wanted) = written();
    let damaged = story.others(story.leader().expect("it has one"))[1];
    story.cluster.crash(damaged, Crash::Process);
    for (path, _) in files(&story, damaged, ".log") {
        take_away(&story, damaged, &path);
    }
    story.cluster.boot(damaged);
    ends_well(&story, &wanted);
    counts_again(&story, damaged, &wanted);
}

#[test]
fn a_table_that_cannot_be_read_at_a_start_comes_from_a_peer() {
    for at_end in [false, true] {
        let (story, wanted) = written();
        let damaged = story.others(story.leader().expect("it has one"))[0];
        story.cluster.crash(damaged, Crash::Process);
        let (_, bytes) = files(&story, damaged, ".tab").remove(0);
        let at = if at_end { bytes.len() as u64 - 4000 } else { 4096 + 100 };
        flip(&story, damaged, ".tab", at);
        story.cluster.boot(damaged);
        if at_end {
            ends_well(&story, &wanted);
        } else {
            // A block is checked when it is read: the next change of the key needs it.
            story.wait(|story| replica(story, damaged).is_some() && story.leader().is_some());
            assert!(matches!(story.append(damaged, "?"), Some(Ok(_))), "all are there");
            ends_well(&story, &format!("{wanted}?"));
        }
    }
}

#[test]
fn a_table_that_is_gone_comes_from_a_peer() {
    let (story, wanted) = written();
    let damaged = story.others(story.leader().expect("it has one"))[0];
    story.cluster.crash(damaged, Crash::Process);
    let (path, _) = files(&story, damaged, ".tab").remove(0);
    take_away(&story, damaged, &path);
    story.cluster.boot(damaged);
    ends_well(&story, &wanted);
    counts_again(&story, damaged, &wanted);
}

/// A block of the leader's table goes bad while it serves: the read ends well, at another leader.
#[test]
fn a_leader_whose_table_is_damaged_steps_aside_and_is_repaired() {
    let (story, wanted) = written();
    let leader = story.leader().expect("it has one");
    flip(&story, leader, ".tab", 4096 + 100);
    holds(&story, leader, &wanted);
    ends_well(&story, &wanted);
}

#[test]
fn a_follower_whose_memory_failed_is_rebuilt() {
    let (story, wanted) = written();
    let leader = story.leader().expect("it has one");
    let rotten = story.others(leader)[0];
    story.cluster.rot_memory(rotten);
    story.wait(|story| replica(story, rotten).is_some_and(|of| of.damaged_and_repaired == (1, 1)));
    ends_well(&story, &wanted);
}

/// The majority is right, whoever leads.
#[test]
fn a_leader_whose_memory_failed_steps_aside_and_is_rebuilt() {
    let (story, wanted) = written();
    let leader = story.leader().expect("it has one");
    story.cluster.rot_memory(leader);
    story.wait(|story| replica(story, leader).is_some_and(|of| of.damaged_and_repaired == (1, 1)));
    ends_well(&story, &wanted);
}

#[test]
fn a_leader_whose_digest_counted_would_spread_what_it_holds() {
    let story = Story::begin(Some("DigestOfLeaderCounts"));
    // Leadership goes to where it is preferred first.
    story.wait(|story| story.leader() == Some(NodeId(1)));
    story.pass(Duration::from_secs(3));
    let leader = story.leader().expect("it has one");
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "all are there");
    story.cluster.rot_memory(leader);
    let others = story.others(leader);
    story.wait(|story| {
        let damaged = others.map(|node| replica(story, node).map_or(0, |of| of.damaged_and_repaired.0));
        damaged.iter().all(|count| *count > 0)
    });
    assert_eq!(replica(&story, leader).map(|of| of.damaged_and_repaired), Some((0, 0)));
}

/// No replica has what was lost: nobody answers, and nobody makes something up.
#[test]
fn where_nobody_is_intact_nobody_leads() {
    let (story, _) = written();
    for node in story.cluster.nodes() {
        story.cluster.crash(node, Crash::Process);
        for (path, _) in files(&story, node, ".log") {
            take_away(&story, node, &path);
        }
    }
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.pass(Duration::from_secs(10));
    assert_eq!(story.leader(), None);
}
