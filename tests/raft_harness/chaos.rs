//! Random runs: a network that loses, repeats and reorders, disks that take their time, crashes that lose
//! what was not written, cuts; and then peace, in which the cluster has to make progress.
//!
//! One seed is one run. The checks of [`super::checks`] hold at every step.

use distribkv::ids::NodeId;
use distribkv::raft::{Config, ReadMode, Role, Willingness};

use super::{Cluster, config};

/// Random numbers of a seed (splitmix64).
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).expect("small")).expect("small")
    }
}

/// The settings that a seed stands for: sizes of clusters, windows and caches vary.
pub fn config_of(seed: u64) -> Config {
    let mut chance = Chance::new(seed ^ 0x00c0_ffee);
    let mut config = config([3, 3, 5, 3, 1][chance.below(5)]);
    config.append_bytes_max = [60, 150, 1 << 20][chance.below(3)];
    config.window_messages_max = [1, 2, 64][chance.below(3)];
    config.cache_bytes_max = [0, 300, 8 << 20][chance.below(3)];
    config.uncommitted_bytes_max = [200, 32 << 20][chance.below(2)];
    config.read_mode = [ReadMode::ReadIndex, ReadMode::Lease][chance.below(2)];
    config
}

/// Runs a seed to its end, or to the first rule that breaks.
///
/// # Errors
/// What broke, and the last things that happened before.
pub fn run(seed: u64, config: Config, steps: usize) -> Result<Chaos, String> {
    let mut chaos = Chaos::new(seed, config);
    for _ in 0..steps {
        chaos.step();
        chaos.check()?;
    }
    chaos.make_peace();
    chaos.check()?;
    Ok(chaos)
}

/// One run.
pub struct Chaos {
    pub cluster: Cluster,
    chance: Chance,
    seed: u64,
    count: u64,
    /// A process that is stopped: it gets no ticks and no messages.
    paused: Option<NodeId>,
}

impl Chaos {
    fn new(seed: u64, config: Config) -> Self {
        let mut cluster = Cluster::new(config);
        cluster.nodes.values_mut().for_each(|node| node.is_manual = true);
        Self { cluster, chance: Chance::new(seed), seed, count: 0, paused: None }
    }

    fn check(&mut self) -> Result<(), String> {
        let events = &mut self.cluster.events;
        if let Some(violation) = self.cluster.checks.violations.first() {
            let last = &events[events.len().saturating_sub(40)..];
            return Err(format!("seed {}: {violation}; before:\n{}", self.seed, last.join("\n")));
        }
        if events.len() > 2000 {
            events.drain(..1000);
        }
        Ok(())
    }

    fn any_node(&mut self) -> NodeId {
        let voters = &self.cluster.config.voters;
        voters[self.chance.below(voters.len())]
    }

    /// A node that leads, if there is one and chance will have it; else any.
    fn likely_leader(&mut self) -> NodeId {
        let any = self.any_node();
        let leads = |id: &&NodeId| {
            let raft = self.cluster.node(**id).raft.as_ref();
            raft.is_some_and(|raft| raft.role() == Role::Leader)
        };
        self.cluster.config.voters.iter().find(leads).copied().unwrap_or(any)
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..45 => self.network(),
            45..70 => {
                let id = self.any_node();
                self.cluster.complete_write(id);
            }
            70..80 => self.time(),
            80..87 => self.propose(),
            87..93 => self.read(),
            93 => self.crash(),
            94 | 95 => self.restart(),
            96 => self.cut(),
            97 => self.heal(),
            98 => self.transfer(),
            _ => {
                let id = self.any_node();
                self.cluster.act(id, distribkv::raft::Raft::campaign);
            }
        }
    }

    fn network(&mut self) {
        let waiting = self.cluster.wire.len();
        if waiting == 0 {
            return;
        }
        let position = if self.chance.below(3) == 0 { self.chance.below(waiting) } else { 0 };
        if Some(self.cluster.wire[position].to) == self.paused {
            return;
        }
        match self.chance.below(20) {
            0 => drop(self.cluster.wire.remove(position)),
            1 => {
                let message = self.cluster.wire[position].clone();
                self.cluster.arrive(message);
            }
            _ => self.cluster.deliver(position),
        }
    }

    /// Time passes: for one node, or where leases rely on clocks that agree, for all.
    fn time(&mut self) {
        if self.cluster.config.read_mode == ReadMode::ReadIndex {
            let id = self.any_node();
            if Some(id) != self.paused {
                self.tick(id);
            }
            return;
        }
        self.tick_all();
    }

    fn tick_all(&mut self) {
        for id in self.cluster.config.voters.clone() {
            self.tick(id);
        }
    }

    fn tick(&mut self, id: NodeId) {
        self.cluster.jitter = u32::try_from(self.chance.next() >> 40).expect("24 bits");
        self.cluster.tick(id);
    }

    fn propose(&mut self) {
        let id = self.likely_leader();
        self.count += 1;
        self.cluster.propose(id.0, &format!("v{}", self.count));
    }

    fn read(&mut self) {
        let id = self.likely_leader();
        self.count += 1;
        self.cluster.read(id.0, self.count);
    }

    fn crash(&mut self) {
        let id = self.any_node();
        let written = self.chance.below(self.cluster.node(id).writing.len() + 1);
        self.cluster.crash(id, written);
    }

    fn restart(&mut self) {
        let id = self.any_node();
        if self.cluster.node(id).raft.is_none() {
            self.cluster.start(id);
        }
    }

    fn cut(&mut self) {
        let (from, to) = (self.any_node(), self.any_node());
        match self.chance.below(3) {
            0 => self.cluster.isolate(from),
            1 => drop(self.cluster.cut.insert((from, to))),
            _ => self.paused = Some(self.likely_leader()),
        }
    }

    fn heal(&mut self) {
        match self.chance.below(2) {
            0 => self.cluster.cut.clear(),
            _ => self.paused = None,
        }
    }

    fn transfer(&mut self) {
        let (id, to) = (self.likely_leader(), self.any_node());
        let willing =
            [Willingness::Willing, Willingness::Willing, Willingness::Draining][self.chance.below(3)];
        self.cluster.act(to, |raft| raft.set_willing(willing));
        self.cluster.act(id, |raft| raft.transfer(Some(to)).is_ok());
    }

    /// Everyone runs, nothing is lost: one more proposal must commit everywhere.
    fn make_peace(&mut self) {
        self.cluster.cut.clear();
        for id in self.cluster.config.voters.clone() {
            if self.cluster.node(id).raft.is_none() {
                self.cluster.start(id);
            }
            self.cluster.node_mut(id).is_manual = false;
            self.cluster.act(id, |raft| raft.set_willing(Willingness::Willing));
        }
        let last = format!("last of {}", self.seed);
        for round in 0..300 {
            self.tick_all();
            self.cluster.stabilize();
            if round == 200 {
                let id = self.likely_leader();
                self.cluster.propose(id.0, &last);
            }
        }
        for id in self.cluster.config.voters.clone() {
            let node = self.cluster.node(id);
            let has_it = node.log.last().is_some_and(|entry| entry.data == last.as_bytes());
            if !has_it || node.applied.0 != u64::try_from(node.log.len()).expect("small") {
                let what =
                    format!("no progress in peace: n{id} applied {} of {}", node.applied, node.log.len());
                self.cluster.checks.violation(what);
            }
        }
    }
}
