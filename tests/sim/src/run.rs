//! One run of one seed: a cluster under trouble, then healed, then looked at.
//!
//! ```text
//! boot ─► clients work, trouble strikes ─► heal ─► progress is demanded ─► histories are checked
//! ```

use std::fmt;
use std::time::Duration;

use distribkv::host::node::Planted;
use distribkv::ids::ShardId;
use distribkv::inspect::{Finding, Severity};
use distribkv::shard::CoreStatus;

use crate::cluster::{Cluster, ClusterConfig};
use crate::disk::{Crash, DiskConfig};
use crate::executor::{Stop, World, WorldConfig, WorldTime};
use crate::history::{Answer, History, Outcome};
use crate::inspect;
use crate::linear::{self, STATES_MAX, Verdict};
use crate::nemesis::Nemesis;
use crate::network::{LinkConfig, NetworkConfig};
use crate::observer::Broken;
use crate::random::{Chance, Random};
use crate::trace::Text;
use crate::workload::{STREAM_BURST, Workload, WorkloadConfig, is_stream_key};

/// How a run is made, beside its seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A mistake made on purpose in the nodes.
    pub planted: Planted,
    /// A mistake made on purpose in the Clerk.
    #[cfg(debug_assertions)]
    pub planted_client: Option<distribkv::client::PlantedBug>,
    /// Whether disks fill up, beside all else that goes wrong.
    pub disks_fill: bool,
    /// What becomes of the text of the trace.
    pub text: Text,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// Operations of clients.
    pub operations: usize,
    /// Simulated time.
    pub elapsed: Duration,
    /// Steps of the world.
    pub steps: u64,
    /// Lines of the trace, where they were asked for.
    pub lines: Vec<String>,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub enum Failure {
    /// An invariant across nodes.
    Broken(Broken),
    /// The clients' histories.
    History(String),
    /// No progress after everything was healed.
    Stuck(String),
    /// A history that could not be judged within the limits of the search.
    Undecided(String),
    /// A data directory that is damaged, though nothing was done to its disk.
    Damaged(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(broken) => write!(f, "invariant broken: {broken}"),
            Self::History(story) => write!(f, "the clients saw what cannot be:\n{story}"),
            Self::Stuck(what) => write!(f, "no progress after healing: {what}"),
            Self::Undecided(what) => write!(f, "the history could not be judged: {what}"),
            Self::Damaged(what) => write!(f, "a data directory is damaged: {what}"),
        }
    }
}

/// Simulated time between two looks at all nodes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Simulated time under trouble, at most.
const TROUBLE_MAX: Duration = Duration::from_secs(30);
/// Simulated time that a healed cluster may take to serve every shard and finish every client.
const PROGRESS_MAX: Duration = Duration::from_secs(60);

/// Runs one seed.
///
/// # Errors
/// What went wrong. The seed repeats it.
pub fn run(seed: u64, options: &Options) -> Result<Report, Failure> {
    let mut config = WorldConfig::seeded(seed);
    config.text = options.text;
    let world = World::new(config);
    let mut random = world.random(0x7275_6e00);
    let cluster = Cluster::new(&world, draw_cluster(&mut random, options));
    let workload_config = draw_workload(&mut random, options);
    let mut run =
        Run { nemesis: Nemesis::new(&world, &cluster).filling_disks(options.disks_fill), world, cluster };
    run.boot(&mut random);
    let workload = Workload::start(&run.world, &run.cluster, &workload_config);
    run.trouble(&workload)?;
    run.nemesis.heal();
    run.progress(&workload)?;
    judge(&workload)?;
    let report = Report {
        trace_hash: run.world.trace().hash(),
        operations: workload.with_history(|history| history.operations().len()),
        elapsed: Duration::from_micros(run.world.time().0),
        steps: run.world.steps(),
        lines: run.world.trace().lines(),
    };
    run.directories()?;
    Ok(report)
}

fn draw_cluster(random: &mut Random, options: &Options) -> ClusterConfig {
    let nodes = [1, 3, 3, 3, 5][random.index(5)];
    let lossy = random.index(4) > 0;
    let chance = |per_mille| if lossy { Chance::per_mille(per_mille) } else { Chance::NEVER };
    let mut network = NetworkConfig::reliable(100, 800);
    network.link = LinkConfig {
        late: chance(20),
        late_us_max: 40_000,
        loss: chance(10),
        replay: chance(10),
        replay_us_max: 20_000,
        ..network.link
    };
    ClusterConfig {
        nodes,
        cores: 1 + u32::from(random.index(2) == 1),
        shards: [1, 2, 4][random.index(3)],
        disk: DiskConfig::default(),
        network,
        election: Duration::from_millis(200),
        lease_reads: random.index(4) == 0,
        snapshot_bytes_max: [400, 2000, 1 << 20][random.index(3)],
        snapshot_keep_entries: [0, 5, 1000][random.index(3)],
        block_cache_bytes: [1, 64 << 10][random.index(2)],
        snapshots_at_once_max: 4,
        fetches_at_once_max: 1,
        scrub_bytes_per_s: 4 << 20,
        scrub_interval_s: 3600,
        planted: options.planted,
    }
}

fn draw_workload(random: &mut Random, options: &Options) -> WorkloadConfig {
    #[cfg(not(debug_assertions))]
    let _ = options;
    WorkloadConfig {
        clients: 3 + u32::try_from(random.below(3)).expect("small"),
        streams: 1,
        keys: 2 + u32::try_from(random.below(3)).expect("small"),
        operations: 40 + random.below(60),
        loss: Chance::per_mille(if random.index(2) == 0 { 0 } else { 30 }),
        pause_us_max: random.between(1000, 300_000),
        #[cfg(debug_assertions)]
        planted: options.planted_client,
    }
}

struct Run {
    world: World,
    cluster: Cluster,
    nemesis: Nemesis,
}

impl Run {
    /// Starts the nodes, some of them late.
    fn boot(&self, random: &mut Random) {
        for node in self.cluster.nodes() {
            let cluster = self.cluster.clone();
            self.world.after(Duration::from_millis(random.below(300)), move || {
                if !cluster.is_running(node) {
                    cluster.boot(node);
                }
            });
        }
    }

    fn trouble(&mut self, workload: &Workload) -> Result<(), Failure> {
        let mut left = TROUBLE_MAX;
        while !workload.is_done() && !left.is_zero() {
            let pause = self.nemesis.pause().min(left);
            self.watch(pause)?;
            left -= pause;
            self.nemesis.strike();
            if left.as_millis().is_multiple_of(5) {
                self.nemesis.restart_ended();
            }
        }
        Ok(())
    }

    /// A healed cluster serves every shard and finishes every client, and its replicas become whole and
    /// equal.
    fn progress(&mut self, workload: &Workload) -> Result<(), Failure> {
        let mut left = PROGRESS_MAX;
        let step = Duration::from_millis(250);
        while !(workload.is_done() && self.replicas_agree()) {
            if left.is_zero() {
                return Err(Failure::Stuck(self.describe(workload)));
            }
            self.watch(step)?;
            left -= step;
            self.nemesis.restart_ended();
        }
        Ok(())
    }

    /// Lets the world go on for a while, looking at all nodes again and again.
    fn watch(&mut self, lasting: Duration) -> Result<(), Failure> {
        let until = WorldTime(self.world.time().0 + u64::try_from(lasting.as_micros()).expect("short"));
        while self.world.time() < until {
            let next = (self.world.time() + LOOK_EVERY).min(until);
            let stop = self.world.run_until(next, || false);
            assert!(stop != Stop::Livelock, "the world is caught in a livelock at {:?}", self.world.time());
            self.cluster.look().map_err(Failure::Broken)?;
            if stop == Stop::Quiescent {
                break;
            }
        }
        Ok(())
    }

    fn replicas_agree(&self) -> bool {
        let reports = self.cluster.reports();
        let cores = self.cluster.config().nodes * self.cluster.config().cores;
        let of = |shard| {
            let replicas = reports.iter().flat_map(|(_, core): &(_, CoreStatus)| &core.replicas);
            replicas.filter(move |replica| replica.shard == shard)
        };
        reports.len() == cores as usize
            && self.cluster.nodes().into_iter().all(|node| self.cluster.is_whole(node))
            && (0..self.cluster.config().shards).map(ShardId).all(|shard| {
                let states: Vec<_> =
                    of(shard).map(|replica| (replica.applied_index, replica.state_digest)).collect();
                let has_leader = of(shard).all(|replica| replica.leader.is_some());
                has_leader && states.windows(2).all(|pair| pair[0] == pair[1])
            })
    }

    /// The directories of nodes that lose their power are whole, but for the one that was wiped or rotted.
    fn directories(&self) -> Result<(), Failure> {
        let victim = self.nemesis.victim();
        for node in self.cluster.nodes().into_iter().filter(|node| Some(*node) != victim) {
            self.cluster.crash(node, Crash::Power);
            let report = inspect::check(&self.cluster, node);
            let report = report.map_err(|error| Failure::Damaged(format!("node {node}: {error}")))?;
            let is_damage = |finding: &&Finding| finding.severity > Severity::Note;
            if let Some(damage) = report.findings.iter().find(is_damage) {
                return Err(Failure::Damaged(format!("node {node}: {damage}")));
            }
        }
        Ok(())
    }

    fn describe(&self, workload: &Workload) -> String {
        let mut text = format!("clients done: {}\n", workload.is_done());
        for node in self.cluster.nodes() {
            text +=
                &format!("node {node}: up {} {:?}\n", self.cluster.is_up(node), self.cluster.ending(node));
        }
        for (node, core) in self.cluster.reports() {
            for replica in core.replicas {
                text += &format!("node {node}: {replica:?}\n");
            }
        }
        text
    }
}

fn judge(workload: &Workload) -> Result<(), Failure> {
    if let Some(fault) = workload.with_history(stream_fault) {
        return Err(Failure::History(fault));
    }
    workload.with_history(|history| match linear::check(history, STATES_MAX) {
        Verdict::Linearizable { .. } => Ok(()),
        Verdict::Violation(violation) => Err(Failure::History(violation.story)),
        // A key that is only appended to can be judged without a search.
        Verdict::Undecided { key, .. } if is_stream_key(&key) => match linear::check_appends(history) {
            Ok(_) => Ok(()),
            Err(fault) => Err(Failure::History(format!("{fault:?}"))),
        },
        Verdict::Undecided { key, states } => {
            Err(Failure::Undecided(format!("key {} after {states} states", key.escape_ascii())))
        }
    })
}

/// A read that shows an operation twice, or operations of one ordered stream in another order than the one
/// they were submitted in. Each burst of a client is a stream of its own.
fn stream_fault(history: &History) -> Option<String> {
    history.operations().iter().filter(|operation| is_stream_key(&operation.key)).find_map(|operation| {
        let Outcome::Answered(Answer::Got(Some(seen))) = &operation.outcome else { return None };
        let numbers: Vec<u64> = String::from_utf8_lossy(&seen.value)
            .split_terminator(';')
            .filter_map(|token| token.split_once('.')?.1.parse().ok())
            .collect();
        let is_ordered = numbers.iter().enumerate().all(|(at, later)| {
            let earlier = &numbers[..at];
            earlier.iter().all(|number| number / STREAM_BURST != later / STREAM_BURST || number < later)
        });
        (!is_ordered).then(|| format!("a stream's operations are out of order or repeated: {operation}"))
    })
}
