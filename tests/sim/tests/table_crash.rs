//! Tables of whole nodes, with a crash at every await of the disk: while a shard's state becomes a table, and
//! while a follower takes a table over from its leader. After each, nothing that was acknowledged is missing,
//! and the data directory is whole to whoever looks.
#![cfg(debug_assertions)]

use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{NodeId, ShardId};
use distribkv::inspect::{Finding, Severity};
use distribkv::kv::{Command, Query, QueryAnswer, Write};
use distribkv::route::call::{Answered, Body, Consistency, Failure, Request};
use distribkv::shard::ReplicaReport;
use sim::cluster::{Cluster, ClusterConfig};
use sim::disk::{Crash, DiskConfig};
use sim::executor::{World, WorldConfig};
use sim::network::NetworkConfig;
use sim::run::Options;

const SHARD: ShardId = ShardId(0);
const LONG: Duration = Duration::from_secs(20);
/// So short that a node that has crashed is not waited for.
const SHORT: Duration = Duration::from_millis(400);
/// The bytes that every append adds.
const PIECE: usize = 10;

struct Story {
    world: World,
    cluster: Cluster,
    /// The appends that were sent, and whether each was acknowledged.
    sent: Vec<bool>,
}

impl Story {
    /// Nodes of one shard whose state becomes a table every few entries, all up and led.
    fn begin(nodes: u32, seed: u64) -> Self {
        let world = World::new(WorldConfig::seeded(seed));
        let config = ClusterConfig {
            nodes,
            cores: 1,
            shards: 1,
            disk: DiskConfig { late_us_max: 2000, ..DiskConfig::default() },
            network: NetworkConfig::reliable(100, 300),
            election: Duration::from_millis(200),
            lease_reads: false,
            snapshot_bytes_max: 800,
            snapshot_keep_entries: 0,
            block_cache_bytes: 64 << 10,
            snapshots_at_once_max: 4,
            fetches_at_once_max: 1,
            scrub_bytes_per_s: 4 << 20,
            scrub_interval_s: 3600,
            planted: Options::default().planted,
        };
        let cluster = Cluster::new(&world, config);
        let story = Self { world, cluster, sent: Vec::new() };
        story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
        story.wait(|story| story.leader().is_some());
        story
    }

    fn wait(&self, holds: impl Fn(&Self) -> bool) {
        let until = self.world.time() + LONG;
        self.world.run_until(until, || holds(self));
        assert!(holds(self), "what the story waits for does not come about");
    }

    fn pass(&self, time: Duration) {
        self.world.run_until(self.world.time() + time, || false);
    }

    fn leader(&self) -> Option<NodeId> {
        let running = self.cluster.nodes().into_iter().filter(|node| self.cluster.is_up(*node));
        let mut leaders: Vec<_> = running
            .map(|node| self.cluster.directory(node).first().and_then(|(_, known)| known.leader))
            .collect();
        leaders.dedup();
        if leaders.len() == 1 { leaders[0] } else { None }
    }

    fn call(&self, node: NodeId, request: Request, at_most: Duration) -> Option<Result<Answered, Failure>> {
        let answer = self.cluster.call((node, 0), (SHARD, request), at_most);
        let group = self.world.start(NodeId(2000));
        let ended = self.world.run(group, at_most * 2, answer);
        self.world.crash(NodeId(2000));
        ended.ok().flatten()
    }

    /// Appends a piece to the value; whether it was acknowledged.
    fn append(&mut self, node: NodeId, at_most: Duration) -> bool {
        let value = Bytes::from(piece(self.sent.len()));
        let write = Write::Append { key: Bytes::from_static(b"k"), value, if_mod_revision: None };
        let request = Request::Command(Command::Write { id: None, write });
        let is_acknowledged = matches!(self.call(node, request, at_most), Some(Ok(_)));
        self.sent.push(is_acknowledged);
        is_acknowledged
    }

    fn value(&self, node: NodeId) -> Bytes {
        let query = Query::Get { key: Bytes::from_static(b"k") };
        let request = Request::Query { query, consistency: Consistency::Linearizable };
        match self.call(node, request, LONG) {
            Some(Ok(Answered { body: Body::Query(QueryAnswer::Get(found)), .. })) => {
                found.map(|found| found.value).unwrap_or_default()
            }
            other => panic!("a read ended in {other:?}"),
        }
    }

    /// The value is made of what was acknowledged, with or without what was only sent, in order.
    fn has_all(&self, node: NodeId) {
        let value = self.value(node);
        let mut pieces = value.chunks(PIECE).peekable();
        for (number, is_acknowledged) in self.sent.iter().enumerate() {
            let is_there = pieces.next_if(|found| *found == piece(number)).is_some();
            assert!(is_there || !is_acknowledged, "piece {number} of {} is lost", self.sent.len());
        }
        assert_eq!(pieces.count(), 0, "more than was sent, or not in order");
    }

    /// What a crash leaves of a node's directory is no damage to whoever looks.
    fn is_clean(&self, node: NodeId, at: &str) {
        let report = sim::inspect::check(&self.cluster, node).expect("there is a directory");
        let is_damage = |finding: &&Finding| finding.severity > Severity::Note;
        let damage: Vec<String> = report.findings.iter().filter(is_damage).map(ToString::to_string).collect();
        assert!(damage.is_empty(), "{at}: {damage:?}");
    }

    fn replica(&self, node: NodeId) -> Option<ReplicaReport> {
        let reports = self.cluster.reports();
        let (_, report) = reports.into_iter().find(|(of, _)| *of == node)?;
        report.replicas.into_iter().next()
    }
}

fn piece(number: usize) -> Vec<u8> {
    format!("{number:0>PIECE$}").into_bytes()
}

/// A node alone that is written to, with a crash at a point of its disk. Returns the points before and after
/// the writing.
fn snapshot_crashed_at(point: u64, crash: Crash, seed: u64) -> (u64, u64) {
    const NODE: NodeId = NodeId(1);
    let at = format!("crash {crash:?} at point {point}, seed {seed}");
    let mut story = Story::begin(1, seed);
    let disk = story.cluster.machine(NODE).disk().clone();
    let before = disk.points();
    if point > before {
        disk.crash_at(point, crash);
    }
    for _ in 0..60 {
        // It may be refused, where more has changed than tables keep up with.
        story.append(NODE, SHORT);
        if !story.cluster.is_running(NODE) {
            break;
        }
        story.pass(Duration::from_millis(2));
    }
    story.pass(Duration::from_millis(20));
    let after = disk.points();
    let replica = story.replica(NODE);
    let is_through = replica.as_ref().is_some_and(|replica| replica.snapshot_index.0 > 25);
    assert!(is_through || point <= after, "{at}: no second table was made in peace: {replica:?}");
    story.cluster.crash(NODE, crash);
    story.is_clean(NODE, &at);
    for life in 0..2 {
        disk.crash_at(u64::MAX, Crash::Process);
        story.cluster.boot(NODE);
        story.wait(|story| story.leader().is_some());
        story.has_all(NODE);
        assert!(story.append(NODE, LONG), "{at}: life {life} serves");
        story.pass(Duration::from_millis(30));
        story.cluster.crash(NODE, Crash::Power);
        story.is_clean(NODE, &at);
    }
    (before, after)
}

#[test]
fn a_crash_while_a_table_is_made_loses_nothing() {
    for seed in [1, 2] {
        let (before, after) = snapshot_crashed_at(u64::MAX, Crash::Process, seed);
        assert!(after - before > 130, "points {before} to {after}");
        for crash in [Crash::Process, Crash::Power] {
            for point in before + 1..=after {
                snapshot_crashed_at(point, crash, seed);
            }
        }
    }
}

/// A follower that comes back behind the log of its leader, with a crash at a point of its disk. Returns the
/// points of its first life until it has caught up.
fn install_crashed_at(point: u64, crash: Crash) -> (u64, u64) {
    let at = format!("crash {crash:?} at point {point}");
    let mut story = Story::begin(3, 7);
    let leader = story.leader().expect("the story begins with a leader");
    let away = story.cluster.nodes().into_iter().find(|node| *node != leader).expect("there are three");
    assert!(story.append(leader, LONG), "all are there");
    story.pass(Duration::from_millis(20));
    story.cluster.crash(away, Crash::Power);
    for _ in 0..30 {
        assert!(story.append(leader, LONG), "a majority is there");
    }
    story.wait(|story| story.replica(leader).is_some_and(|replica| replica.snapshot_index.0 > 15));
    let disk = story.cluster.machine(away).disk().clone();
    let before = disk.points();
    if point > before {
        disk.crash_at(point, crash);
    }
    let has_caught_up = |story: &Story| {
        let digest = |node| story.replica(node).map(|replica| replica.state_digest);
        story.cluster.is_up(away) && digest(away) == digest(leader)
    };
    story.cluster.boot(away);
    let until = story.world.time() + Duration::from_secs(3);
    story.world.run_until(until, || has_caught_up(&story) || !story.cluster.is_running(away));
    let after = disk.points();
    assert!(has_caught_up(&story) || point <= after, "{at}: it does not catch up in peace");
    if story.cluster.is_running(away) {
        story.pass(Duration::from_millis(20));
    }
    story.cluster.crash(away, crash);
    story.is_clean(away, &at);
    disk.crash_at(u64::MAX, Crash::Process);
    story.cluster.boot(away);
    story.wait(has_caught_up);
    assert!(story.replica(away).is_some_and(|replica| replica.snapshot_index.0 > 15), "{at}: by the table");
    story.cluster.crash(away, Crash::Power);
    story.is_clean(away, &at);
    story.cluster.boot(away);
    story.wait(has_caught_up);
    // What it took over counts: it is one of the two that are left.
    let third = story.cluster.nodes().into_iter().find(|node| ![leader, away].contains(node));
    story.cluster.crash(third.expect("there are three"), Crash::Power);
    assert!(story.append(leader, LONG), "{at}: two of three are there");
    story.has_all(leader);
    (before, after)
}

#[test]
fn a_crash_while_a_table_is_taken_over_loses_nothing() {
    let (before, after) = install_crashed_at(u64::MAX, Crash::Process);
    assert!(after - before > 60, "points {before} to {after}");
    for crash in [Crash::Process, Crash::Power] {
        for point in before + 1..=after {
            install_crashed_at(point, crash);
        }
    }
}
