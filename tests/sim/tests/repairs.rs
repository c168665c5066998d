//! Stories of damage: found at a start or while a node serves, in the log, in a table or in memory. The
//! replica says so, answers nothing wrong, and is whole again without help.
#![cfg(debug_assertions)]

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::NodeId;
use distribkv::inspect::{Finding, Severity};
use distribkv::kv::Query;
use distribkv::route::call::{Consistency, Request};
use sim::cluster::{ClusterConfig, Ending};
use sim::disk::{Crash, Fault, Kind, Stall};
use sim::story::{LONG, Story, replica, with_small_tables};

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
    // What was repaired is counted at the next tick.
    story.pass(Duration::from_millis(100));
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
        story.cluster.machine(damaged).disk().flip_bit(path, 4096 + 30, 3);
        story.cluster.boot(damaged);
        ends_well(&story, &wanted);
        assert_eq!(counts(&story, damaged), (1, 1), "{role}: one replica had lost something");
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
    assert_eq!(counts(&story, damaged), (0, 0));
    // The first round begins a minute after the start.
    story.pass(Duration::from_secs(65));
    assert_eq!(counts(&story, damaged).0, 1);
    ends_well(&story, &wanted);
}

/// Damages that a node counts for its lane, and those of them that are no more.
fn counts(story: &Story, node: NodeId) -> (u64, u64) {
    let reports = story.cluster.reports().into_iter().filter(|(of, _)| *of == node);
    reports.flat_map(|(_, report)| report.lanes).next().map_or((0, 0), |lane| lane.damaged_and_repaired)
}

/// Three nodes whose logs keep all entries, some segments of them.
fn with_long_logs(change: impl FnOnce(&mut ClusterConfig)) -> (Story, String) {
    let story = Story::prepared_with(3, None, change);
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    let leader = story.leader().expect("it was waited for");
    for _ in 0..24 {
        assert!(matches!(story.append(leader, "0123456789"), Some(Ok(_))), "all are there");
        story.pass(Duration::from_millis(20));
    }
    story.pass(Duration::from_secs(2));
    (story, "0123456789".repeat(24))
}

/// Damage that the scrub finds in a segment counts once, however often it comes by, and has come to its end
/// when the segment is gone.
#[test]
fn damage_that_the_scrub_finds_in_the_log_counts_once() {
    let (story, wanted) = with_long_logs(|config| config.scrub_interval_s = 60);
    let node = story.others(story.leader().expect("it has one"))[0];
    flip(&story, node, ".log", 4096 + 30);
    story.world.run_until(story.world.time() + Duration::from_secs(70), || counts(&story, node).0 > 0);
    assert_eq!(counts(&story, node), (1, 0), "it is found");
    story.wait(|story| counts(story, node) == (1, 1));
    story.pass(Duration::from_secs(130));
    assert_eq!(counts(&story, node), (1, 1), "two more rounds have found nothing else");
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
    assert_eq!(counts(&story, damaged), (1, 1), "one replica had lost its log");
    counts_again(&story, damaged, &wanted);
}

/// Damage that costs nobody anything is of a segment: it is over when that is let go of.
#[test]
fn damage_that_costs_nobody_anything_counts_too() {
    let (story, wanted) = with_long_logs(|_| {});
    let damaged = story.others(story.leader().expect("it has one"))[0];
    story.cluster.crash(damaged, Crash::Process);
    // The first batch of the log: the table has what was in it, and what is behind goes on from there.
    flip(&story, damaged, ".log", 4096 + 30);
    story.cluster.boot(damaged);
    ends_well(&story, &wanted);
    story.wait(|story| counts(story, damaged) == (1, 1));
    assert_eq!(replica(&story, damaged).map(|of| of.damaged_and_repaired), Some((0, 0)));
}

/// A wiped node has lost as much as it has replicas, and tells so.
#[test]
fn what_a_wiped_node_lost_counts_until_it_is_back() {
    let (story, wanted) = written();
    let wiped = story.others(story.leader().expect("it has one"))[1];
    wipe(&story, wiped);
    story.wait(|story| counts(story, wiped) == (1, 0));
    ends_well(&story, &wanted);
    assert_eq!(counts(&story, wiped), (1, 1));
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

/// Whether something comes about soon: long before a table is made anew for its age alone.
fn soon(story: &Story, holds: impl Fn(&Story) -> bool) -> bool {
    let until = story.world.time() + Duration::from_secs(10);
    story.world.run_until(until, || holds(story));
    holds(story)
}

fn is_whole(story: &Story, node: NodeId) -> bool {
    replica(story, node).is_some_and(|of| of.is_whole && !of.is_spoiled && of.keys > 0)
}

/// Gives a node an empty disk, and has it come back under its id.
fn wipe(story: &Story, node: NodeId) {
    story.cluster.crash(node, Crash::Process);
    story.cluster.replace_data_dir(node);
    story.cluster.boot_to_recover(node);
}

/// Who lends a table finds out what is wrong with it: the follower gets another's, and so does he.
#[test]
fn a_wiped_node_gets_whole_though_its_leaders_table_is_rotten() {
    let places: [fn(u64) -> u64; 6] = [
        |_| 100,
        |_| 4096 + 100,
        |bytes| bytes - 4 * 4096 + 1,
        |bytes| bytes - 3 * 4096,
        |bytes| bytes - 2 * 4096,
        |bytes| bytes - 2000,
    ];
    for (at, place) in places.into_iter().enumerate() {
        let (story, wanted) = written();
        let leader = story.leader().expect("it has one");
        let (_, bytes) = files(&story, leader, ".tab").remove(0);
        flip(&story, leader, ".tab", place(bytes.len() as u64));
        let [wiped, _] = story.others(leader);
        wipe(&story, wiped);
        assert!(soon(&story, |story| is_whole(story, wiped)), "place {at}: the wiped node stays empty");
        ends_well(&story, &wanted);
        let counts = replica(&story, leader).map(|of| of.damaged_and_repaired);
        assert_eq!(counts, Some((1, 1)), "place {at}: the leader has repaired itself");
        counts_again(&story, wiped, &wanted);
    }
}

/// A table that cannot be read is as good as damaged, unless it can when it is tried once more.
#[test]
fn a_lender_whose_disk_fails_to_read_hands_over() {
    for fault in [Fault::Once { kind: Kind::Read, after: 0 }, Fault::Always { kind: Kind::Read }] {
        let (story, wanted) = written();
        let leader = story.leader().expect("it has one");
        story.cluster.machine(leader).disk().fail(fault);
        let [wiped, _] = story.others(leader);
        wipe(&story, wiped);
        assert!(soon(&story, |story| is_whole(story, wiped)), "{fault:?}: the wiped node stays empty");
        story.cluster.machine(leader).disk().heal();
        ends_well(&story, &wanted);
        let counts = replica(&story, leader).map(|of| of.damaged_and_repaired);
        let is_once = matches!(fault, Fault::Once { .. });
        assert_eq!(counts, Some(if is_once { (0, 0) } else { (1, 1) }), "{fault:?}");
    }
}

/// A value of many parts travels, though its follower begins again and again. It says how far it is, and goes
/// on from there.
#[test]
fn a_block_longer_than_a_part_is_lent_part_by_part() {
    let story = Story::prepared_with(3, None, |config| {
        config.snapshot_bytes_max = 1 << 20;
        config.snapshot_keep_entries = 0;
    });
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    let leader = story.leader().expect("it was waited for");
    let [away, _] = story.others(leader);
    let piece: &'static str = Box::leak("0123456789".repeat(2000).into_boxed_str());
    for _ in 0..45 {
        assert!(matches!(story.append(leader, piece), Some(Ok(_))), "all are there");
    }
    let has_all = |story: &Story, node| replica(story, node).is_some_and(|of| of.snapshot_index.0 > 40);
    story.wait(|story| has_all(story, leader));
    wipe(&story, away);
    let mut last = 0;
    for part in 0..3 {
        let progress = |story: &Story| replica(story, away).and_then(|of| of.fetch);
        let done = |story: &Story| progress(story).map_or(0, |fetch| fetch.bytes_done);
        story.wait(|story| done(story) > last);
        let fetch = progress(&story).expect("it was just looked at");
        assert!(fetch.bytes_total > 800_000 && fetch.bytes_done < fetch.bytes_total, "{part}: {fetch:?}");
        last = fetch.bytes_done;
        story.cluster.crash(away, Crash::Process);
        story.cluster.boot(away);
    }
    let wanted = piece.repeat(45);
    assert!(soon(&story, |story| is_whole(story, away)), "the wiped node stays empty");
    ends_well(&story, &wanted);
    for node in story.cluster.nodes() {
        assert_eq!(
            replica(&story, node).and_then(|of| of.fetch),
            None,
            "nothing is on its way to node {node}"
        );
    }
    assert_eq!(replica(&story, leader).map(|of| of.damaged_and_repaired), Some((0, 0)));
}

/// Three nodes, the first of which leads; and one whose table is the leader's, to the last entry that both
/// have applied.
fn with_travelled_table() -> (Story, NodeId, NodeId, String) {
    let story = Story::prepared_with(3, None, |config| {
        (config.snapshot_bytes_max, config.snapshot_keep_entries) = (2000, 0);
        (config.scrub_bytes_per_s, config.block_cache_bytes) = (0, 1);
    });
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    let leader = NodeId(1);
    story.wait(|story| story.leader() == Some(leader));
    let [other, _] = story.others(leader);
    story.cluster.crash(other, Crash::Process);
    for _ in 0..60 {
        assert!(matches!(story.append(leader, "0123456789"), Some(Ok(_))), "a majority is there");
    }
    let has_all = |story: &Story, node| {
        replica(story, node)
            .is_some_and(|of| of.snapshot_index.0 > 60 && of.snapshot_index == of.applied_index)
    };
    story.wait(|story| has_all(story, leader));
    story.cluster.boot(other);
    story.wait(|story| has_all(story, other));
    story.pass(Duration::from_millis(100));
    assert!(tables(&story, leader) == tables(&story, other), "one table, on two disks");
    assert_eq!(story.leader(), Some(leader));
    (story, leader, other, "0123456789".repeat(60))
}

/// What is in the tables of a node.
fn tables(story: &Story, node: NodeId) -> Vec<Vec<u8>> {
    files(story, node, ".tab").into_iter().map(|(_, bytes)| bytes).collect()
}

/// A leader that gets its own table back while it cannot step aside yet has no use for it. What its manifest
/// names stays there, damaged as it is.
#[test]
fn a_table_that_is_not_wanted_takes_nothing_along() {
    let (story, leader, other, wanted) = with_travelled_table();
    flip(&story, leader, ".tab", 4096 + 100);
    let damaged = files(&story, leader, ".tab");
    // Nobody can be elected for now, but who lends needs no more than to read.
    let [_, third] = story.others(leader);
    for node in [other, third] {
        story.cluster.machine(node).disk().stall(Stall::Writes);
    }
    let query = Query::Get { key: Bytes::from_static(b"k") };
    let request = Request::Query { query, consistency: Consistency::Linearizable };
    let answer = story.call(leader, request, Duration::from_millis(100));
    assert!(!matches!(answer, Some(Ok(_))), "its table is damaged: {answer:?}");
    assert!(replica(&story, leader).is_some_and(|of| of.is_spoiled));
    story.pass(Duration::from_millis(50));
    assert!(files(&story, leader, ".tab") == damaged, "what the manifest names is there");
    story.cluster.crash(leader, Crash::Process);
    for node in [other, third] {
        story.cluster.machine(node).disk().heal();
    }
    story.cluster.boot(leader);
    ends_well(&story, &wanted);
}

/// The table that comes back may be the very one that was lost: it takes another name, and the place of the
/// damaged one with the manifest.
#[test]
fn a_table_that_comes_back_is_not_put_over_the_one_that_is_damaged() {
    let (story, leader, other, wanted) = with_travelled_table();
    story.cluster.crash(other, Crash::Process);
    let (path, bytes) = files(&story, other, ".tab").remove(0);
    flip(&story, other, ".tab", bytes.len() as u64 - 4000);
    let damaged = files(&story, other, ".tab").remove(0).1;
    story.cluster.boot(other);
    let disk = story.cluster.machine(other).disk().clone();
    let is_replaced = || disk.contents(&path).is_some_and(|found| found != damaged);
    let is_back = || !is_replaced() && tables(&story, other) == tables(&story, leader);
    story.world.run_until(story.world.time() + LONG, || is_replaced() || is_back());
    assert!(is_back(), "the damaged file stays until the manifest names the other one");
    for crash in [Crash::Process, Crash::Power] {
        story.cluster.crash(other, crash);
        story.cluster.boot(other);
        ends_well(&story, &wanted);
    }
    assert_eq!(
        replica(&story, other).map(|of| of.damaged_and_repaired),
        Some((0, 0)),
        "it was whole at once"
    );
    let report = sim::inspect::check(&story.cluster, other).expect("there is a directory");
    let is_damage = |finding: &&Finding| finding.severity > Severity::Note;
    assert_eq!(report.findings.iter().find(is_damage).map(ToString::to_string), None);
}

/// What a backup finds damaged is told to the core whose table it is.
#[test]
fn a_table_that_a_backup_cannot_read_is_repaired() {
    let story = Story::prepared_with(3, None, |config| {
        (config.cores, config.shards) = (2, 2);
        config.scrub_bytes_per_s = 0;
    });
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    let leader = story.leader().expect("it was waited for");
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "all are there");
    let node = story.others(leader)[0];
    let backup = |core| {
        let backup = story.cluster.backup((node, core));
        let group = story.world.start(NodeId(2000));
        let ended = story.world.run(group, Duration::from_secs(60), backup);
        story.world.crash(NodeId(2000));
        ended.ok().flatten().expect("the node is up")
    };
    // Shard 0 lies on core 0.
    assert!(backup(1).is_ok_and(|file| file.len() > 4096), "all is whole");
    flip(&story, node, ".tab", 4096 + 100);
    let failed = backup(1).expect_err("the table is damaged").to_string();
    assert!(failed.contains("the table of shard 0"), "{failed}");
    story.wait(|story| replica(story, node).is_some_and(|of| of.damaged_and_repaired == (1, 1)));
    assert!(backup(1).is_ok(), "it has another's table now");
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

/// Nothing but the digests shows what such a table holds: that it is not to be trusted is known after a
/// restart, too, when nobody is there yet to compare with.
#[test]
fn a_state_that_was_alone_with_its_digest_is_not_served_after_a_restart_either() {
    let (story, wanted) = written();
    let rotten = story.others(story.leader().expect("it has one"))[0];
    story.cluster.rot_memory(rotten);
    let is_spoiled = |story: &Story| replica(story, rotten).is_some_and(|of| of.is_spoiled);
    story.wait(is_spoiled);
    let others = story.others(rotten);
    story.cluster.partition(&[rotten], &others);
    story.pass(Duration::from_millis(100));
    assert!(is_spoiled(&story), "nobody was there to fetch a state from");
    story.cluster.crash(rotten, Crash::Power);
    story.cluster.boot(rotten);
    story.wait(|story| replica(story, rotten).is_some());
    assert!(is_spoiled(&story), "it has forgotten that its table is not to be trusted");
    story.pass(Duration::from_secs(3));
    assert!(is_spoiled(&story), "nobody was there to fetch a state from");
    story.cluster.heal_network();
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
