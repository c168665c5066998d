//! Everything that goes wrong, drawn from the seed.
//!
//! One thing at a time is drawn, again and again, and most of them end by themselves some time later.
//! Whatever is drawn, a majority of nodes keeps what it has written: power cuts and crashes lose only what
//! was never durable. Of what was durable one node at a time loses some or all; it is recovered, and before
//! it is whole no other one falls. In the end all nodes are to be whole.

use std::time::Duration;

use distribkv::ids::NodeId;

use crate::cluster::{Cluster, DOUBTED, Ending};
use crate::decay::{Decay, decay};
use crate::disk::{Crash, Fault, Kind, Stall};
use crate::executor::WorldHandle;
use crate::network::LinkState;
use crate::random::Random;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Kill,
    PowerCut,
    PowerCutAll,
    Partition,
    OneWay,
    HoldLink,
    Pause,
    StallDisk,
    FailWrite,
    FailRead,
    Jump,
    Drift,
    Wipe,
    Decay,
    DecayAtRest,
    FillDisk,
}

/// Every trouble but [`Trouble::FillDisk`], which is drawn beside them where it is asked for.
const TROUBLES: [Trouble; 15] = [
    Trouble::Kill,
    Trouble::PowerCut,
    Trouble::PowerCutAll,
    Trouble::Partition,
    Trouble::OneWay,
    Trouble::HoldLink,
    Trouble::Pause,
    Trouble::StallDisk,
    Trouble::FailWrite,
    Trouble::FailRead,
    Trouble::Jump,
    Trouble::Drift,
    Trouble::Wipe,
    Trouble::Decay,
    Trouble::DecayAtRest,
];

/// Makes trouble.
pub struct Nemesis {
    world: WorldHandle,
    cluster: Cluster,
    random: Random,
    clocks_may_drift: bool,
    disks_fill: bool,
    /// The node whose disk was wiped or rotted last. One of three or more.
    victim: Option<NodeId>,
    /// Whether that one's disk decays: then it gets another one in the end, if not before.
    decays: bool,
}

/// What a process ends with whose directory others do not know, and one whose directory is damaged.
const UNKNOWN_DIRECTORY: i32 = 20;
const DAMAGED: i32 = 17;

impl Nemesis {
    /// A nemesis of this cluster.
    #[must_use]
    pub fn new(world: &WorldHandle, cluster: &Cluster) -> Self {
        Self {
            world: world.clone(),
            cluster: cluster.clone(),
            random: world.random(0x6e65_6d65_7369_7300),
            // A lease is only as good as the clocks' rates.
            clocks_may_drift: !cluster.config().lease_reads,
            disks_fill: false,
            victim: None,
            decays: false,
        }
    }

    /// The same, which lets disks fill up too, for a while.
    #[must_use]
    pub fn filling_disks(self, disks_fill: bool) -> Self {
        Self { disks_fill, ..self }
    }

    /// The node whose disk was wiped or rotted last.
    #[must_use]
    pub fn victim(&self) -> Option<NodeId> {
        self.victim
    }

    /// How long to wait before the next trouble.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.random.between(50, 1500))
    }

    /// Makes one trouble.
    pub fn strike(&mut self) {
        let trouble = match self.disks_fill && self.random.index(3) == 0 {
            true => Trouble::FillDisk,
            false => TROUBLES[self.random.index(TROUBLES.len())],
        };
        self.world.note("trouble", &[trouble as u64]);
        let node = self.any_node();
        let lasting = Duration::from_millis(self.random.between(20, 3000));
        match trouble {
            Trouble::Kill => self.take_down(node, Crash::Process, lasting),
            Trouble::PowerCut => self.take_down(node, Crash::Power, lasting),
            Trouble::PowerCutAll => {
                for node in self.cluster.nodes() {
                    let lasting = Duration::from_millis(self.random.between(1, 500));
                    self.take_down(node, Crash::Power, lasting);
                }
            }
            Trouble::Partition => self.partition(lasting),
            Trouble::OneWay => self.link_trouble(LinkState::Cut, lasting),
            Trouble::HoldLink => self.link_trouble(LinkState::Held, lasting),
            Trouble::Pause => self.pause_node(node, lasting),
            Trouble::StallDisk => self.stall_disk(node, lasting),
            Trouble::FailWrite => self.fail_disk(node, Kind::Write),
            Trouble::FailRead => self.fail_disk(node, Kind::Read),
            Trouble::Jump => {
                if self.cluster.is_running(node) && self.clocks_may_drift {
                    self.world.jump(node, lasting);
                }
            }
            Trouble::Drift => {
                let ppm = i32::try_from(self.random.below(20_000)).expect("below 20,000") - 10_000;
                if self.cluster.is_running(node) && self.clocks_may_drift {
                    self.world.set_drift(node, ppm);
                }
            }
            Trouble::Wipe => self.wipe(node),
            Trouble::Decay => {
                let what = Decay::ALL[self.random.index(Decay::ALL.len())];
                self.decay(node, what);
            }
            Trouble::DecayAtRest => self.decay_at_rest(node),
            Trouble::FillDisk => self.fill_disk(node, lasting),
        }
    }

    /// Ends all trouble: every node runs, every link is open, every disk works, and whose disk decays gets
    /// another one.
    pub fn heal(&mut self) {
        self.cluster.heal_network();
        if let Some(victim) = self.victim.filter(|_| self.decays) {
            self.cluster.crash(victim, Crash::Process);
            self.replace(victim);
        }
        for node in self.cluster.nodes() {
            let disk = self.cluster.machine(node).disk();
            disk.heal();
            disk.configure(|config| config.capacity_bytes = u64::MAX);
            if self.cluster.is_running(node) {
                self.world.resume(node);
            }
        }
        self.restart_ended();
    }

    /// Starts the nodes that have ended, each as whoever watches it would; those that failed a write among
    /// them.
    pub fn restart_ended(&mut self) {
        for node in self.cluster.nodes() {
            if !self.cluster.is_running(node) {
                match self.cluster.ending(node) {
                    Ending::Exit { code: UNKNOWN_DIRECTORY, .. } => self.cluster.boot_to_recover(node),
                    Ending::Exit { code: DAMAGED | DOUBTED, .. } if self.decays_of(node) => {
                        self.replace(node);
                    }
                    Ending::Exit { code: DAMAGED, .. } | Ending::None => self.cluster.boot(node),
                    Ending::Exit { .. } => {
                        self.cluster.machine(node).disk().heal();
                        self.cluster.boot(node);
                    }
                }
            }
        }
    }

    /// Whether this node may be the one that loses what it had written. A cluster that has not begun to serve
    /// needs all of its directories once.
    fn may_fall(&self, node: NodeId) -> bool {
        let reports = self.cluster.reports();
        let has_begun =
            reports.iter().all(|(_, core)| core.replicas.iter().all(|replica| replica.commit_index.0 > 0));
        let cores = self.cluster.config().nodes * self.cluster.config().cores;
        let all_are_up = reports.len() == cores as usize;
        let all_are_whole = self.cluster.nodes().into_iter().all(|node| self.cluster.is_whole(node));
        !self.decays
            && self.cluster.config().nodes >= 3
            && all_are_up
            && all_are_whole
            && has_begun
            && self.cluster.is_up(node)
    }

    /// Takes a node down and gives it an empty directory. The others know it with another: it is recovered,
    /// at once or after it was refused.
    fn wipe(&mut self, node: NodeId) {
        if self.may_fall(node) && self.random.index(2) == 0 {
            self.victim = Some(node);
            self.cluster.crash(node, Crash::Process);
            self.cluster.replace_data_dir(node);
            if self.random.index(2) == 0 {
                self.cluster.boot_to_recover(node);
            } else {
                self.cluster.boot(node);
            }
        }
    }

    /// Lets the disk of a node decay while it runs.
    fn decay(&mut self, node: NodeId, what: Decay) {
        if self.may_fall(node) && self.random.index(2) == 0 {
            (self.victim, self.decays) = (Some(node), true);
            let doubt = decay(&self.cluster, node, what, &mut self.random);
            self.cluster.doubt(node, doubt);
        }
    }

    /// The same while it is down: it ends at its start where it finds what has become of its files.
    fn decay_at_rest(&mut self, node: NodeId) {
        let what = [Decay::Bit, Decay::Sector, Decay::BadBlock, Decay::File][self.random.index(4)];
        self.decay(node, what);
        if self.decays_of(node) {
            self.cluster.crash(node, Crash::Process);
            self.cluster.boot(node);
        }
    }

    fn decays_of(&self, node: NodeId) -> bool {
        self.decays && self.victim == Some(node)
    }

    /// Gives a node that is down another disk, and has it recovered.
    fn replace(&mut self, node: NodeId) {
        self.decays = false;
        self.cluster.machine(node).disk().heal();
        self.cluster.replace_data_dir(node);
        self.cluster.boot_to_recover(node);
    }

    fn any_node(&mut self) -> NodeId {
        let nodes = self.cluster.nodes();
        nodes[self.random.index(nodes.len())]
    }

    fn take_down(&mut self, node: NodeId, crash: Crash, lasting: Duration) {
        if !self.cluster.is_running(node) && crash == Crash::Process {
            return;
        }
        self.cluster.crash(node, crash);
        let cluster = self.cluster.clone();
        self.world.after(lasting, move || {
            if !cluster.is_running(node) {
                cluster.boot(node);
            }
        });
    }

    fn partition(&mut self, lasting: Duration) {
        let mut nodes = self.cluster.nodes();
        self.random.shuffle(&mut nodes);
        let at = self.random.index(nodes.len());
        self.cluster.partition(&nodes[..at], &nodes[at..]);
        self.heal_network_after(lasting);
    }

    fn link_trouble(&mut self, state: LinkState, lasting: Duration) {
        let (from, to) = (self.any_node(), self.any_node());
        if from != to {
            self.cluster.set_link(from, to, state);
        }
        self.heal_network_after(lasting);
    }

    fn heal_network_after(&self, lasting: Duration) {
        let cluster = self.cluster.clone();
        self.world.after(lasting, move || cluster.heal_network());
    }

    fn pause_node(&self, node: NodeId, lasting: Duration) {
        let Some(group) = self.world.group_of(node) else { return };
        self.world.pause(node);
        let world = self.world.clone();
        self.world.after(lasting, move || {
            if world.is_alive(group) {
                world.resume(node);
            }
        });
    }

    fn stall_disk(&self, node: NodeId, lasting: Duration) {
        let disk = self.cluster.machine(node).disk().clone();
        disk.stall(Stall::Writes);
        self.world.after(lasting, move || disk.stall(Stall::Nothing));
    }

    /// Leaves a disk some blocks, or none, and gives it room again.
    fn fill_disk(&mut self, node: NodeId, lasting: Duration) {
        const LEFT_BYTES_MAX: u64 = 256 << 10;
        let left = self.random.below(LEFT_BYTES_MAX) * self.random.below(2);
        let disk = self.cluster.machine(node).disk().clone();
        let (used, _) = disk.bytes_used_and_cached();
        disk.configure(|config| config.capacity_bytes = used + left);
        self.world.after(lasting, move || disk.configure(|config| config.capacity_bytes = u64::MAX));
    }

    fn fail_disk(&mut self, node: NodeId, kind: Kind) {
        let after = self.random.below(20);
        self.cluster.machine(node).disk().fail(Fault::Once { kind, after });
    }
}
