//! Tests of the network: order, loss, repeats, partitions, bounds.

use std::collections::BTreeSet;

use super::*;
use crate::executor::{World, WorldConfig};

const ONE: Place = Place { node: NodeId(1), core: CoreId(0) };
const TWO: Place = Place { node: NodeId(2), core: CoreId(0) };

struct Bench {
    world: World,
    network: Network<Vec<u8>>,
    inboxes: [Inbox<Vec<u8>>; 2],
}

impl Bench {
    fn new(seed: u64, config: NetworkConfig) -> Self {
        let world = World::new(WorldConfig::seeded(seed));
        let network = Network::new(&world, config);
        let inboxes = [ONE, TWO].map(|place| {
            world.start(place.node);
            network.attach(place)
        });
        Self { world, network, inboxes }
    }

    fn send(&self, from: Place, to: Place, numbers: std::ops::Range<u8>) {
        for number in numbers {
            self.network.send(from, to, vec![number]);
        }
    }

    /// What lands at a place within some milliseconds.
    fn landed(&self, at: usize, millis: u64) -> Vec<u8> {
        self.world.run_for(Duration::from_millis(millis));
        std::iter::from_fn(|| self.inboxes[at].try_receive()).map(|packet| packet.payload[0]).collect()
    }
}

fn link(config: LinkConfig) -> NetworkConfig {
    NetworkConfig { link: config, ..NetworkConfig::reliable(0, 0) }
}

#[test]
fn packets_overtake_each_other_but_on_a_fifo_link() {
    let bench = Bench::new(1, NetworkConfig::reliable(100, 1000));
    bench.send(ONE, TWO, 0..50);
    let mut landed = bench.landed(1, 2);
    assert_ne!(landed, (0..50).collect::<Vec<_>>());
    landed.sort_unstable();
    assert_eq!(landed, (0..50).collect::<Vec<_>>());

    let fifo =
        LinkConfig { order: LinkOrder::Fifo, replay: Chance::ALWAYS, ..LinkConfig::reliable(100, 1000) };
    let bench = Bench::new(1, link(fifo));
    bench.send(ONE, TWO, 0..50);
    assert_eq!(bench.landed(1, 2), (0..50).collect::<Vec<_>>());
}

#[test]
fn packets_are_lost_repeated_and_late_as_often_as_said() {
    let config = LinkConfig {
        loss: Chance::per_mille(200),
        replay: Chance::per_mille(300),
        replay_us_max: 50_000,
        late: Chance::per_mille(100),
        late_us_max: 100_000,
        ..LinkConfig::reliable(100, 1000)
    };
    let bench = Bench::new(3, link(config));
    for _ in 0..10 {
        bench.send(ONE, TWO, 0..100);
    }
    let early = bench.landed(1, 1).len();
    let all = early + bench.landed(1, 200).len();
    let counts = bench.network.counts();
    assert_eq!((counts.sent, counts.landed), (1000, all as u64));
    assert_eq!(counts.sent + counts.replayed, counts.landed + counts.lost);
    assert!((150..250).contains(&counts.lost), "{counts:?}");
    assert!((180..300).contains(&counts.replayed), "{counts:?}");
    assert!((650..780).contains(&early), "{early} of {all} landed within the usual time");
}

#[test]
fn a_partition_cuts_both_ways_and_a_cut_link_one() {
    let bench = Bench::new(1, NetworkConfig::reliable(100, 100));
    // In flight when the link is cut.
    bench.send(ONE, TWO, 0..1);
    bench.network.partition(&[ONE.node], &[TWO.node]);
    bench.send(ONE, TWO, 1..2);
    bench.send(TWO, ONE, 2..3);
    assert_eq!((bench.landed(0, 1), bench.landed(1, 1)), (vec![], vec![]));
    bench.network.set_state(TWO.node, ONE.node, LinkState::Open);
    bench.send(ONE, TWO, 3..4);
    bench.send(TWO, ONE, 4..5);
    assert_eq!((bench.landed(0, 1), bench.landed(1, 1)), (vec![4], vec![]));
    bench.network.heal();
    bench.send(ONE, TWO, 5..6);
    assert_eq!(bench.landed(1, 1), [5]);
    assert_eq!(bench.network.counts().lost, 4);
}

#[test]
fn a_held_link_delivers_when_it_is_opened() {
    let bench = Bench::new(1, NetworkConfig::reliable(100, 100));
    bench.network.set_state(ONE.node, TWO.node, LinkState::Held);
    bench.send(ONE, TWO, 0..3);
    assert_eq!(bench.landed(1, 50), []);
    bench.network.heal();
    assert_eq!(bench.landed(1, 0), [0, 1, 2]);
}

#[test]
fn everything_is_bounded() {
    let config = NetworkConfig { in_flight_max: 10, inbox_max: 5, ..NetworkConfig::reliable(10, 10) };
    let bench = Bench::new(1, config);
    bench.send(ONE, TWO, 0..20);
    assert_eq!(bench.landed(1, 1), [0, 1, 2, 3, 4]);
    assert_eq!(bench.network.counts().overflowed, 15);
    bench.send(ONE, TWO, 0..2);
    assert_eq!(bench.landed(1, 1), [0, 1], "there is room again");
}

#[test]
fn the_dead_send_nothing_and_receive_in_their_next_life() {
    let bench = Bench::new(1, NetworkConfig::reliable(100, 100));
    bench.send(ONE, TWO, 0..1);
    bench.world.crash(TWO.node);
    bench.network.detach(TWO.node);
    bench.send(TWO, ONE, 1..2);
    assert_eq!((bench.landed(0, 1), bench.landed(1, 1)), (vec![], vec![]));
    bench.send(ONE, TWO, 2..3);
    bench.world.start(TWO.node);
    let inbox = bench.network.attach(TWO);
    bench.world.run_for(Duration::from_millis(1));
    assert_eq!(inbox.try_receive().map(|packet| packet.payload), Some(vec![2]));
}

#[test]
fn a_receiver_is_woken() {
    let bench = Bench::new(1, NetworkConfig::reliable(100, 100));
    let [_, inbox] = bench.inboxes;
    let Some(group) = bench.world.group_of(TWO.node) else { panic!("node 2 is running") };
    bench.network.send(ONE, TWO, vec![7]);
    let received = bench.world.run(group, Duration::from_secs(1), async move { inbox.receive().await });
    assert_eq!(received.map(|packet| (packet.from, packet.payload)), Ok((ONE, vec![7])));
}

#[test]
fn the_seed_decides_it_all() {
    let landed = |seed| {
        let config = LinkConfig {
            loss: Chance::per_mille(200),
            replay: Chance::per_mille(300),
            ..LinkConfig::reliable(1, 900)
        };
        let bench = Bench::new(seed, link(config));
        bench.send(ONE, TWO, 0..50);
        (bench.landed(1, 10), bench.world.trace().hash())
    };
    for seed in 0..10 {
        assert_eq!(landed(seed), landed(seed), "seed {seed}");
    }
    assert_eq!((0..10).map(landed).collect::<BTreeSet<_>>().len(), 10);
}
