//! Random runs: a network that loses, repeats and reorders, disks that take their time, crashes that lose
//! what was not written, cuts, tables in place of logs, disks that lose what they held; and then peace, in
//! which the cluster has to make progress and every replica becomes whole.
//!
//! One seed is one run. The checks of [`super::checks`] hold at every step. What is lost stays within a
//! budget ([`Chaos::may_lose`]): beyond it no cluster could come back.

use distribkv::ids::{Index, NodeId, Term};
use distribkv::raft::{Config, ReadMode, Role, SnapshotOutcome, Standing, Willingness};

use super::{Cluster, Disk, config};

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
    let mut config = config([3, 3, 5, 3, 1, 2, 4, 3][chance.below(8)]);
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
    /// In how many of a thousand steps a disk loses something.
    losses: usize,
}

/// What a disk loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// All, and nobody knows what it was.
    Wiped,
    /// The log's end, of which the last entry is known.
    Tail,
    /// Log and table, but for the last entry's name.
    Table,
}

impl Chaos {
    fn new(seed: u64, config: Config) -> Self {
        let mut cluster = Cluster::new(config);
        cluster.nodes.values_mut().for_each(|node| node.is_manual = true);
        let mut chance = Chance::new(seed);
        let losses = [0, 3, 10][chance.below(3)];
        Self { cluster, chance, seed, count: 0, paused: None, losses }
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
        if self.chance.below(1000) < self.losses {
            self.lose();
        }
        match self.chance.below(105) {
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
            99 | 100 => self.compact(),
            101 | 102 => {
                let id = self.any_node();
                self.cluster.install(id);
            }
            103 => self.report(),
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
        let willing = [Willingness::Willing, Willingness::Short, Willingness::Draining][self.chance.below(3)];
        self.cluster.act(to, |raft| raft.set_willing(willing));
        self.cluster.act(id, |raft| raft.transfer(Some(to)).is_ok());
    }

    fn compact(&mut self) {
        let id = self.any_node();
        let applied = self.cluster.node(id).applied;
        let kept = u64::try_from(self.chance.below(4)).expect("small");
        self.cluster.compact(id, Index(applied.0.saturating_sub(kept)));
    }

    /// A leader hears something of a table that it sent, true or not.
    fn report(&mut self) {
        let (id, to) = (self.likely_leader(), self.any_node());
        let outcome = [SnapshotOutcome::Finished, SnapshotOutcome::Failed][self.chance.below(2)];
        self.cluster.act(id, |raft| raft.snapshot_ended(to, outcome));
    }

    fn lose(&mut self) {
        let id = self.any_node();
        let loss = [Loss::Wiped, Loss::Tail, Loss::Table][self.chance.below(3)];
        if !self.may_lose(id, loss) {
            return;
        }
        let episode = self.chance.next() | 1;
        let length = self.cluster.node(id).disk.entries.len();
        match loss {
            Loss::Wiped => self.cluster.wipe(id, episode),
            Loss::Tail => {
                let keep = self.chance.below(length + 1);
                self.cluster.damage(id, keep, episode);
            }
            Loss::Table => self.cluster.damage_table(id, episode),
        }
        self.cluster.events.push(format!("n{id} has lost: {loss:?}"));
    }

    /// Whether a node may lose something: as long as a quorum stays whole, anything may be lost elsewhere.
    /// Beyond that the nodes that forget are a minority all the same, and somebody whole still holds all that
    /// is committed and would be elected by those who know what they lost.
    fn may_lose(&self, id: NodeId, loss: Loss) -> bool {
        let nodes = &self.cluster.nodes;
        let minority = if nodes.len() == 2 { 1 } else { nodes.len() - self.cluster.config.quorum() };
        let disks = || nodes.values().filter(|node| node.id != id).map(|node| &node.disk);
        let is_forgetful = |disk: &&Disk| matches!(disk.standing, Standing::Forgetful { .. });
        if disks().filter(|disk| disk.standing != Standing::Whole).count() < minority {
            return true;
        }
        if loss == Loss::Wiped || disks().filter(is_forgetful).count() > minority {
            return false;
        }
        let lost = Disk {
            standing: Standing::Damaged { last_index: Index(0), last_term: Term(0) },
            ..nodes[&id].disk.clone()
        };
        let floor = |disk: &Disk| match disk.standing {
            Standing::Damaged { last_index, last_term } => disk.end().max((last_term, last_index)),
            Standing::Whole => disk.end(),
            Standing::Forgetful { .. } => (Term(u64::MAX), Index(0)),
        };
        let others: Vec<_> = disks().cloned().chain([lost]).collect();
        let would_be_elected = |best: &&Disk| {
            let votes = others.iter().filter(|disk| floor(disk) <= best.end()).count();
            let holds_all = self.cluster.checks.committed().all(|entry| best.holds(entry));
            votes >= self.cluster.config.quorum() && holds_all
        };
        let is_quiet = nodes.values().all(|node| node.writing.is_empty()) && self.cluster.wire.is_empty();
        let whole = others.iter().filter(|disk| disk.standing == Standing::Whole);
        is_quiet && whole.into_iter().any(|disk| would_be_elected(&disk))
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
            if !self.cluster.checks.violations.is_empty() {
                return;
            }
            self.tick_all();
            self.cluster.stabilize();
            for id in self.cluster.config.voters.clone() {
                self.cluster.install(id);
            }
            if round == 200 {
                let id = self.likely_leader();
                self.cluster.propose(id.0, &last);
            }
        }
        for id in self.cluster.config.voters.clone() {
            let node = self.cluster.node(id);
            let has_it = node.log.last().is_some_and(|entry| entry.data == last.as_bytes());
            let is_whole = node.disk.standing == Standing::Whole;
            if !has_it || !is_whole || node.applied.0 != u64::try_from(node.log.len()).expect("small") {
                let (applied, length, standing) = (node.applied, node.log.len(), node.disk.standing);
                let what = format!("no progress in peace: n{id} applied {applied} of {length}, {standing:?}");
                self.cluster.checks.violation(what);
            }
        }
    }
}
