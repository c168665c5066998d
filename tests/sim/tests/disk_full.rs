//! Disks that fill up: what is refused then, what goes on, and that service comes back by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{NodeId, ShardId};
use distribkv::kv::{Command, Operation, Previous, Query, QueryAnswer, Txn, Write};
use distribkv::route::call::{Answered, Body, Consistency, Failure, FailureKind, Request};
use sim::cluster::{Cluster, ClusterConfig, Ending};
use sim::disk::{Disk, DiskConfig};
use sim::executor::{World, WorldConfig};
use sim::network::NetworkConfig;
use sim::run::{Options, run};

const SHARD: ShardId = ShardId(0);
const LONG: Duration = Duration::from_secs(20);
const VALUE_BYTES: usize = 4000;
const MIB: u64 = 1 << 20;
/// How long service may take to come back.
const SECONDS: Duration = Duration::from_secs(8);

/// A cluster with one shard on small disks, and what its client was told.
struct Story {
    world: World,
    cluster: Cluster,
    /// Each key with the value that it has; `None` where it was deleted.
    told: BTreeMap<u32, Option<u32>>,
    last: u32,
}

type Outcome = Option<Result<Answered, Failure>>;

impl Story {
    fn begin(nodes: u32, capacity_bytes: u64) -> Self {
        let story = Self::prepared(nodes, capacity_bytes);
        story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
        story.wait(LONG, |story| story.leader().is_some());
        story
    }

    /// New nodes that do not run yet.
    fn prepared(nodes: u32, capacity_bytes: u64) -> Self {
        let world = World::new(WorldConfig::seeded(11));
        let config = ClusterConfig {
            nodes,
            cores: 1,
            shards: 1,
            disk: DiskConfig { capacity_bytes, ..DiskConfig::default() },
            network: NetworkConfig::reliable(100, 300),
            election: Duration::from_millis(200),
            lease_reads: false,
            snapshot_bytes_max: 64 << 10,
            snapshot_keep_entries: 0,
            block_cache_bytes: 64 << 10,
            snapshots_at_once_max: 4,
            fetches_at_once_max: 1,
            scrub_bytes_per_s: 4 << 20,
            scrub_interval_s: 3600,
            planted: Options::default().planted,
        };
        let cluster = Cluster::new(&world, config);
        Self { world, cluster, told: BTreeMap::new(), last: 0 }
    }

    fn disk(&self, node: u32) -> &Disk {
        self.cluster.machine(NodeId(node)).disk()
    }

    /// Lets a disk hold just what is on it and so much more.
    fn leave(&self, node: u32, bytes: u64) {
        let (used, _) = self.disk(node).bytes_used_and_cached();
        self.disk(node).configure(|disk| disk.capacity_bytes = used + bytes);
    }

    fn wait(&self, at_most: Duration, holds: impl Fn(&Self) -> bool) {
        self.world.run_until(self.world.time() + at_most, || holds(self));
        assert!(holds(self), "what the story waits for does not come about within {at_most:?}");
    }

    fn leader(&self) -> Option<NodeId> {
        let known = self.cluster.nodes().into_iter().map(|node| self.cluster.directory(node));
        let mut leaders: Vec<_> =
            known.map(|known| known.first().and_then(|(_, known)| known.leader)).collect();
        leaders.dedup();
        if leaders.len() == 1 { leaders[0] } else { None }
    }

    fn call(&self, request: Request, at_most: Duration) -> Outcome {
        let answer = self.cluster.call((NodeId(1), 0), (SHARD, request), at_most);
        let group = self.world.start(NodeId(2000));
        let ended = self.world.run(group, at_most * 2, answer);
        self.world.crash(NodeId(2000));
        ended.ok().flatten()
    }

    /// Writes, as often as a table has to be made first.
    fn write(&self, write: Write) -> Outcome {
        let request = Request::Command(Command::Write { id: None, write });
        let until = self.world.time() + LONG;
        loop {
            let outcome = self.call(request.clone(), LONG);
            let is_early = matches!(&outcome, Some(Err(Failure { kind: FailureKind::Overloaded, .. })));
            if !is_early || self.world.time() > until {
                return outcome;
            }
            self.world.run_for(Duration::from_millis(20));
        }
    }

    /// Puts a key; whether it was done. What else it may be is that the disk is full.
    fn put(&mut self, key: u32) -> bool {
        self.last += 1;
        let outcome = self.write(put(key, self.last));
        if outcome.as_ref().is_some_and(Result::is_ok) {
            self.told.insert(key, Some(self.last));
            return true;
        }
        assert_full(outcome);
        false
    }

    /// Deletes a key; whether it was done.
    fn delete(&mut self, key: u32) -> bool {
        let write = Write::Delete { key: name(key), if_mod_revision: None, return_previous: Previous::Omit };
        let outcome = self.write(write);
        if outcome.as_ref().is_some_and(Result::is_ok) {
            self.told.insert(key, None);
            return true;
        }
        assert_full(outcome);
        false
    }

    /// Puts keys from `first` on until it is refused; the first that was.
    fn fill(&mut self, first: u32) -> u32 {
        (first..first + 5000).find(|key| !self.put(*key)).expect("the disk is small")
    }

    fn value(&self, key: u32) -> Option<Bytes> {
        let request =
            Request::Query { query: Query::Get { key: name(key) }, consistency: Consistency::Linearizable };
        match self.call(request, LONG) {
            Some(Ok(Answered { body: Body::Query(QueryAnswer::Get(found)), .. })) => {
                found.map(|found| found.value)
            }
            other => panic!("a read of key {key} ended in {other:?}"),
        }
    }

    /// Everything is there as it was told, and nobody has ended.
    fn check(&self) {
        for (&key, told) in &self.told {
            let expected = told.map(value);
            assert!(self.value(key) == expected, "key {key} is not what was told: {told:?}");
        }
        for node in self.cluster.nodes() {
            assert_eq!(self.cluster.ending(node), Ending::None, "node {node}");
        }
        if let Err(broken) = self.cluster.look() {
            panic!("{broken}");
        }
    }

    /// Serves puts again within seconds.
    fn serves_again(&mut self) {
        let until = self.world.time() + SECONDS;
        while !self.put(1_000_000) {
            assert!(self.world.time() < until, "no put is served {SECONDS:?} after there was room");
            self.world.run_for(Duration::from_millis(50));
        }
        assert!(self.cluster.reports().iter().all(|(_, core)| !core.lanes[0].is_disk_full));
    }
}

fn name(key: u32) -> Bytes {
    format!("key-{key:07}").into()
}

fn value(number: u32) -> Bytes {
    number.to_le_bytes().repeat(VALUE_BYTES / 4).into()
}

fn put(key: u32, number: u32) -> Write {
    let (key, value) = (name(key), value(number));
    Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit }
}

fn assert_full(outcome: Outcome) {
    match outcome {
        Some(Err(Failure { kind: FailureKind::DiskFull { watermark, .. }, .. })) => {
            assert!(watermark > MIB, "a watermark of {watermark}");
        }
        Some(Err(Failure { kind: FailureKind::QuorumDiskFull, .. })) => {}
        other => panic!("neither done nor refused for want of room: {other:?}"),
    }
}

#[test]
fn below_the_watermark_growth_is_refused_and_deletes_make_room() {
    for nodes in [1, 3] {
        let mut story = Story::begin(nodes, 6 * MIB);
        let end = story.fill(0);
        assert!(end > 300, "{end} keys filled the disk");
        let refused = story.write(put(end, 0));
        if let Some(Err(Failure { kind: FailureKind::DiskFull { free, watermark }, .. })) = &refused {
            assert!(*free < watermark + watermark / 8, "{free} of {watermark} are free");
        }
        assert_full(refused);
        let grows = Operation::Append { key: name(0), value: name(0) };
        let reads = Operation::Get { key: name(0) };
        let txn = |then| Write::Txn(Txn { then: vec![then], ..Txn::default() });
        assert_full(story.write(txn(grows)));
        assert!(story.write(txn(reads)).is_some_and(|outcome| outcome.is_ok()), "it makes nothing grow");
        let leader = story.leader().expect("it is led");
        assert!(
            story.cluster.reports().iter().any(|(node, core)| *node == leader && core.lanes[0].is_disk_full)
        );
        let session = story.call(Request::Command(Command::OpenSession { ttl_ms: 0 }), LONG);
        assert!(session.is_some_and(|outcome| outcome.is_ok()), "a session can be opened");
        let (before, _) = story.disk(leader.0).bytes_used_and_cached();
        for key in 0..end * 3 / 4 {
            assert!(story.delete(key), "key {key} cannot be deleted");
        }
        story.serves_again();
        let (after, _) = story.disk(leader.0).bytes_used_and_cached();
        assert!(after < before - MIB, "{before} bytes were used before the deletes, {after} after");
        story.check();
    }
}

#[test]
fn a_disk_that_is_full_to_the_last_block_ends_nobody_and_serves_again() {
    for nodes in [1, 3] {
        let mut story = Story::begin(nodes, 16 * MIB);
        (0..200).for_each(|key| assert!(story.put(key), "there is room"));
        (1..=nodes).for_each(|node| story.leave(node, 0));
        story.world.run_for(Duration::from_millis(300));
        assert!(!story.put(200), "there is no room");
        // Deletes go on for as long as the log has room in what is written already.
        let deleted = (0..200).take_while(|key| story.delete(*key)).count();
        assert!((20..200).contains(&deleted), "{deleted} deletes were logged");
        story.world.run_for(Duration::from_secs(5));
        assert!(!story.delete(199), "even the reserve is used up");
        assert!(story.leader().is_some(), "somebody leads, and so reads go on");
        story.check();
        (1..=nodes).for_each(|node| story.disk(node).configure(|disk| disk.capacity_bytes = 16 * MIB));
        story.serves_again();
        assert!(story.delete(199));
        story.check();
    }
}

/// The disk fills at one operation of it after the other, whatever that is in the middle of: a batch, a
/// segment, a table, a manifest.
#[test]
fn it_may_fill_at_any_moment() {
    for moment in 0..80 {
        let mut story = Story::begin(1, 16 * MIB);
        (0..20).for_each(|key| assert!(story.put(key), "there is room"));
        let disk = story.disk(1).clone();
        let moment_at = disk.operations() + 3 * moment;
        for key in 20..100 {
            if disk.operations() >= moment_at && disk.free_bytes() > MIB {
                story.leave(1, 4096 * (moment % 5));
            }
            story.put(key % 70);
        }
        story.world.run_for(Duration::from_secs(2));
        disk.configure(|disk| disk.capacity_bytes = 16 * MIB);
        story.serves_again();
        story.check();
    }
}

#[test]
fn a_follower_without_room_holds_nobody_up_and_comes_back() {
    let mut story = Story::begin(3, 16 * MIB);
    (0..50).for_each(|key| assert!(story.put(key), "there is room"));
    let follower = story.leader().map_or(1, |leader| leader.0 % 3 + 1);
    story.leave(follower, 0);
    (0..400).for_each(|key| assert!(story.put(key % 100), "two of three have room"));
    let applied = |story: &Story, node| {
        let reports = story.cluster.reports();
        let of_node = reports.iter().find(|(id, _)| *id == NodeId(node));
        of_node.map(|(_, core)| core.replicas[0].applied_index)
    };
    let leader = story.leader().expect("it is led").0;
    assert!(applied(&story, follower) < applied(&story, leader), "it lacks what it has no room for");
    story.disk(follower).configure(|disk| disk.capacity_bytes = 16 * MIB);
    story.wait(LONG, |story| applied(story, follower) >= applied(story, leader));
    story.check();
}

/// The others are a quorum: leadership goes to one of them, and nothing is refused for long.
#[test]
fn a_leader_whose_disk_is_short_hands_over_to_one_with_room() {
    let mut story = Story::begin(3, 16 * MIB);
    (0..50).for_each(|key| assert!(story.put(key), "there is room"));
    let leader = story.leader().expect("it is led");
    story.leave(leader.0, MIB);
    story.wait(LONG, |story| story.leader().is_some_and(|now| now != leader));
    (0..100).for_each(|key| assert!(story.put(key), "two of three have room"));
    story.disk(leader.0).configure(|disk| disk.capacity_bytes = 16 * MIB);
    story.check();
}

/// The leader has room, and a quorum has not: nothing more is asked of the reserves of the others.
#[test]
fn followers_that_are_short_are_not_asked_for_more() {
    let mut story = Story::begin(3, 16 * MIB);
    (0..50).for_each(|key| assert!(story.put(key), "there is room"));
    let leader = story.leader().expect("it is led");
    (1..=3).filter(|node| *node != leader.0).for_each(|node| story.leave(node, MIB));
    story.world.run_for(Duration::from_secs(1));
    let refused = story.write(put(0, 0));
    let kind = refused.and_then(Result::err).map(|failure| failure.kind);
    assert_eq!(kind, Some(FailureKind::QuorumDiskFull));
    assert_eq!(story.leader(), Some(leader), "it has room");
    assert!(story.delete(7), "deletes go on");
    (1..=3).for_each(|node| story.disk(node).configure(|disk| disk.capacity_bytes = 16 * MIB));
    story.serves_again();
    story.check();
}

/// Who the others are is noted durably before they count: where there is no room for that, it waits for room.
#[test]
fn a_new_node_without_room_for_a_note_waits_for_it() {
    let mut story = Story::prepared(3, 16 * MIB);
    story.cluster.boot(NodeId(1));
    story.world.run_for(Duration::from_secs(1));
    story.leave(1, 0);
    story.cluster.boot(NodeId(2));
    story.cluster.boot(NodeId(3));
    story.world.run_for(Duration::from_secs(5));
    assert_eq!(story.leader(), None, "the first start needs all three");
    assert_eq!(story.cluster.ending(NodeId(1)), Ending::None);
    story.disk(1).configure(|disk| disk.capacity_bytes = 16 * MIB);
    story.wait(LONG, |story| story.leader().is_some());
    assert!(story.put(1));
    story.check();
}

/// Everything else goes wrong beside it.
#[test]
fn seeds_with_disks_that_fill_pass() {
    let seeds: u64 = std::env::var("SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    for seed in 0..seeds {
        let options = Options { disks_fill: true, ..Options::default() };
        if let Err(failure) = run(seed, &options) {
            panic!("cargo run --profile sim -p sim -- --seed {seed} --full-disks\n{failure}");
        }
    }
}
