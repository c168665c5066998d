//! Stories that chance tells too rarely: each with the product as it is, and with the mistake that it is
//! about.
#![cfg(debug_assertions)]

use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{NodeId, ShardId};
use distribkv::kv::{Command, Query, QueryAnswer, Write};
use distribkv::route::call::{Answered, Body, Consistency, Failure, Request};
use sim::cluster::{Cluster, ClusterConfig, Ending};
use sim::disk::{Crash, DiskConfig};
use sim::executor::{World, WorldConfig, WorldTime};
use sim::network::{LinkState, NetworkConfig};
use sim::run::Options;

const SHARD: ShardId = ShardId(0);
const LONG: Duration = Duration::from_secs(20);
/// So short that the caller has given up long before a held packet arrives.
const GIVEN_UP: Duration = Duration::from_millis(200);

struct Story {
    world: World,
    cluster: Cluster,
}

type Outcome = Option<Result<Answered, Failure>>;

impl Story {
    /// Three nodes with one shard, all up and led.
    fn begin(planted: Option<&str>) -> Self {
        let mut options = Options::default();
        if let Some(name) = planted {
            sim::plant(&mut options, name).expect("a mistake that can be planted");
        }
        let world = World::new(WorldConfig::seeded(7));
        let config = ClusterConfig {
            nodes: 3,
            cores: 1,
            shards: 1,
            disk: DiskConfig::default(),
            network: NetworkConfig::reliable(100, 300),
            election: Duration::from_millis(200),
            lease_reads: false,
            planted: options.planted,
        };
        let cluster = Cluster::new(&world, config);
        cluster.nodes().into_iter().for_each(|node| cluster.boot(node));
        let story = Self { world, cluster };
        story.wait(|story| story.leader().is_some());
        story
    }

    fn wait(&self, holds: impl Fn(&Self) -> bool) {
        let until = self.world.time() + LONG;
        self.world.run_until(until, || holds(self));
        assert!(holds(self), "what the story waits for does not come about");
    }

    fn pass(&self, time: Duration) {
        let until: WorldTime = self.world.time() + time;
        self.world.run_until(until, || false);
    }

    /// The leader, where every running node agrees on one.
    fn leader(&self) -> Option<NodeId> {
        let running = self.cluster.nodes().into_iter().filter(|node| self.cluster.is_up(*node));
        let mut leaders: Vec<_> = running
            .map(|node| self.cluster.directory(node).first().and_then(|(_, known)| known.leader))
            .collect();
        leaders.dedup();
        if leaders.len() == 1 { leaders[0] } else { None }
    }

    fn others(&self, node: NodeId) -> [NodeId; 2] {
        let others: Vec<NodeId> = self.cluster.nodes().into_iter().filter(|other| *other != node).collect();
        [others[0], others[1]]
    }

    /// A call at a node, seen to its end or for `at_most`.
    fn call(&self, node: NodeId, request: Request, at_most: Duration) -> Outcome {
        let answer = self.cluster.call((node, 0), (SHARD, request), at_most);
        let group = self.world.start(NodeId(2000));
        let ended = self.world.run(group, at_most * 2, answer);
        self.world.crash(NodeId(2000));
        ended.ok().flatten()
    }

    fn append(&self, node: NodeId, value: &'static str) -> Outcome {
        self.call(node, append(value), LONG)
    }

    fn value(&self, node: NodeId) -> Option<Bytes> {
        let query = Query::Get { key: Bytes::from_static(b"k") };
        let request = Request::Query { query, consistency: Consistency::Linearizable };
        match self.call(node, request, LONG) {
            Some(Ok(Answered { body: Body::Query(QueryAnswer::Get(found)), .. })) => {
                found.map(|found| found.value)
            }
            other => panic!("a read ended in {other:?}"),
        }
    }
}

fn append(value: &'static str) -> Request {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(value.as_bytes()));
    let write = Write::Append { key, value, if_mod_revision: None };
    Request::Command(Command::Write { id: None, write })
}

/// A follower acknowledges an entry that the third node has not seen, loses its disk, and comes back with an
/// empty one. If it voted, the other two would lead on without the entry.
fn a_wiped_node_comes_back(planted: Option<&str>) -> Option<Bytes> {
    let story = Story::begin(planted);
    let leader = story.leader().expect("the story begins with a leader");
    let [wiped, behind] = story.others(leader);
    story.cluster.partition(&[behind], &[leader, wiped]);
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "a majority is there");
    story.cluster.crash(wiped, Crash::Process);
    story.cluster.replace_data_dir(wiped);
    story.cluster.heal_network();
    story.cluster.partition(&[leader], &[wiped, behind]);
    story.cluster.boot(wiped);
    story.pass(Duration::from_secs(3));
    let refused = matches!(story.cluster.ending(wiped), Ending::Exit { code: 20, .. });
    assert_eq!(refused, planted.is_none(), "the wiped node: {:?}", story.cluster.ending(wiped));
    if refused {
        story.cluster.heal_network();
    }
    story.value(behind)
}

#[test]
fn a_wiped_node_does_not_vote() {
    assert_eq!(a_wiped_node_comes_back(None), Some(Bytes::from_static(b"kept")));
    assert_eq!(
        a_wiped_node_comes_back(Some("WipedNodeVotes")),
        None,
        "the mistake loses what was acknowledged"
    );
}

/// A forwarded change is held back on its way while leadership goes away from its receiver and comes back to
/// it.
fn a_late_call_arrives(planted: Option<&str>) -> Option<Bytes> {
    let story = Story::begin(planted);
    let leader = story.leader().expect("the story begins with a leader");
    let [origin, other] = story.others(leader);
    story.cluster.set_link(origin, leader, LinkState::Held);
    let _outcome = story.cluster.call((origin, 0), (SHARD, append("late")), GIVEN_UP);
    story.pass(Duration::from_millis(20));
    for to in [other, leader] {
        let transfer = || story.call(other, Request::Transfer { to: Some(to) }, Duration::from_secs(2));
        story.wait(|story| {
            let moved =
                story.cluster.directory(other).first().and_then(|(_, known)| known.leader) == Some(to);
            moved || matches!(transfer(), Some(Ok(_)))
        });
        story.pass(Duration::from_millis(300));
    }
    story.cluster.heal_network();
    story.pass(Duration::from_secs(1));
    story.wait(|story| story.leader().is_some());
    story.value(other)
}

#[test]
fn a_forwarded_change_is_not_proposed_in_a_later_term() {
    assert_eq!(a_late_call_arrives(None), None);
    assert_eq!(a_late_call_arrives(Some("ProposedInLaterTerm")), Some(Bytes::from_static(b"late")));
}

/// A first start that is cut short again and again, and whose last node comes late, still ends in a cluster.
#[test]
fn a_staggered_and_aborted_first_start_works() {
    let world = World::new(WorldConfig::seeded(11));
    let config = ClusterConfig {
        nodes: 3,
        cores: 1,
        shards: 2,
        disk: DiskConfig::default(),
        network: NetworkConfig::reliable(100, 300),
        election: Duration::from_millis(200),
        lease_reads: false,
        planted: Options::default().planted,
    };
    let cluster = Cluster::new(&world, config);
    let story = Story { world, cluster };
    for (node, crash) in [(1, Crash::Process), (2, Crash::Power), (1, Crash::Power), (3, Crash::Process)] {
        let node = NodeId(node);
        story.cluster.boot(node);
        story.pass(Duration::from_millis(30 * u64::from(node.0)));
        story.cluster.crash(node, crash);
    }
    story.cluster.boot(NodeId(2));
    story.pass(Duration::from_secs(2));
    story.cluster.boot(NodeId(1));
    story.pass(Duration::from_secs(2));
    assert_eq!(
        story.leader(),
        None,
        "two of three new nodes do not vote: the third may hold what they do not know"
    );
    story.cluster.boot(NodeId(3));
    story.wait(|story| story.leader().is_some());
    assert!(matches!(story.append(NodeId(1), "begun"), Some(Ok(_))));
}
