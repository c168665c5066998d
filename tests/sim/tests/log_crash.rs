//! A lane's log under crashes: at every await of small runs with every choice of what a crash leaves, and at
//! random ones of long runs; and the same runs with planted bugs, each of which they must find.

// Planted bugs exist only where assertions do.
#![cfg(debug_assertions)]

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use distribkv::env::Env;
use distribkv::ids::{CoreId, Index, LaneId, NodeId, ShardId, Term};
use distribkv::log::{Append, Lane, LaneConfig, OpenError, PlantedBug, Space};
use distribkv::raft::{Entry, HardState};
use sim::disk::{Crash, DiskConfig, Fault, Kind, Latencies, Tearing};
use sim::env::{Machine, SimEnv};
use sim::executor::{Order, World, WorldConfig};
use sim::random::{Chance, Choices, Exhausted, Random, exhaust};

mod log_model;

use log_model::{Model, Op, Run, apply, next_op, read_back};

const NODE: NodeId = NodeId(1);
const DIR: &str = "/data/lane-0";

fn config(planted: Option<PlantedBug>) -> LaneConfig {
    LaneConfig {
        lane: LaneId(0),
        segment_bytes: 6 * 4096,
        batch_bytes_max: 2 * 4096,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 48 << 10,
        seal_after: Duration::from_millis(10),
        damage: distribkv::log::OnDamage::Stop,
        planted,
    }
}

/// Opens the lane, compares what it holds, and lets it run. `None`: it did not open, and that was noted.
async fn start(env: &SimEnv, config: LaneConfig, run: &Rc<RefCell<Run>>) -> Option<Lane<SimEnv>> {
    let opened = Lane::open(env.clone(), Path::new(DIR), config).await;
    let (lane, recovery) = match opened {
        Ok(opened) => opened,
        Err(OpenError::Failed(_)) => return None,
        Err(error) => {
            run.borrow_mut().error = Some(format!("it does not open: {error}"));
            return None;
        }
    };
    let found = read_back(&lane, &recovery).await;
    let mut state = run.borrow_mut();
    state.cuts += usize::from(recovery.cut.is_some());
    match found.and_then(|found| state.recovered(found)) {
        Ok(()) => {}
        Err(error) => {
            state.error = Some(error);
            return None;
        }
    }
    drop(state);
    env.spawn(lane.clone().run());
    env.spawn(drain(lane.clone(), Rc::clone(run)));
    Some(lane)
}

async fn drain(lane: Lane<SimEnv>, run: Rc<RefCell<Run>>) {
    let progress = lane.on_progress();
    while lane.failed().is_none() {
        for completed in lane.completions() {
            run.borrow_mut().complete(completed.number);
        }
        progress.wait().await;
    }
}

/// One life: recovery, then operations until it is stopped.
async fn live(env: SimEnv, config: LaneConfig, run: Rc<RefCell<Run>>, mut random: Random, ops: usize) {
    let Some(lane) = start(&env, config.clone(), &run).await else { return };
    let mut model: Model = run.borrow().base.clone();
    for number in 0..ops {
        let op = next_op(&mut random, &model, number as u64, &config);
        while !issue(&lane, &op, &run) {
            if lane.failed().is_some() {
                return;
            }
            env.sleep(Duration::from_micros(100)).await;
        }
        apply(&mut model, &op, None);
        if random.below(3) == 0 {
            env.sleep(Duration::from_micros(random.below(400))).await;
        }
        if random.below(40) == 0 {
            env.sleep(Duration::from_millis(15)).await;
        }
    }
    if random.below(2) == 0 {
        lane.close();
    }
}

fn issue(lane: &Lane<SimEnv>, op: &Op, run: &Rc<RefCell<Run>>) -> bool {
    let taken = match op {
        Op::Append(append) => lane.append(append.clone()),
        Op::Release(shard, index, term) => lane.release(*shard, *index, *term),
    };
    if taken.is_ok() {
        run.borrow_mut().issued.push(op.clone());
    }
    taken.is_ok()
}

fn crash_of(random: &mut Random) -> Crash {
    if random.below(2) == 0 { Crash::Process } else { Crash::Power }
}

/// What a soak saw, to prove that it saw anything.
#[derive(Default)]
struct Seen {
    recoveries: usize,
    cuts: usize,
}

/// Several lives of one lane, each ended by a crash at a random point; then one in peace.
fn soak(seed: u64, planted: Option<PlantedBug>) -> Result<Seen, String> {
    let mut random = Random::new(seed);
    let world = World::new(WorldConfig::seeded(seed));
    let tearing = if random.below(2) == 0 { Tearing::Sectors } else { Tearing::Garbage };
    let late_us_max = [2_000, 40_000][random.index(2)];
    let mut disk = DiskConfig { tearing, late_us_max, ..DiskConfig::default() };
    // Slow writes are in flight for most of the time: more of them are caught by a crash, and land late.
    disk.latencies.write.slow = Chance::per_mille(100);
    disk.latencies.write.slow_us_max = 20_000;
    let machine = Machine::new(&world, NODE, disk);
    machine.disk().prepare_dir(Path::new("/data"));
    let run = Rc::new(RefCell::new(Run::default()));
    // Small segments roll all the time; in larger ones, most crashes hit the write of a batch.
    let segment_bytes = 4096 * [6, 48][random.index(2)];
    let config = move |planted| LaneConfig { segment_bytes, ..config(planted) };
    for _ in 0..8 {
        let group = machine.boot();
        let crash = crash_of(&mut random);
        let points_max = if random.below(3) == 0 { 100 } else { 500 };
        let points = 1 + random.below(points_max);
        machine.disk().crash_at(machine.disk().points() + points, crash);
        if random.below(4) == 0 {
            machine.disk().fail(Fault::Once { kind: Kind::Write, after: random.below(40) });
        }
        let life = live(machine.env(CoreId(0)), config(planted), Rc::clone(&run), random.fork(points), 300);
        world.spawn(group, life);
        let deadline = world.time() + Duration::from_millis(random.between(1, 200));
        world.run_until(deadline, || !world.is_alive(group) || run.borrow().error.is_some());
        machine.crash(crash);
        machine.disk().heal();
        if let Some(error) = run.borrow_mut().error.take() {
            return Err(error);
        }
    }
    machine.disk().crash_at(u64::MAX, Crash::Process);
    let before = run.borrow().recoveries;
    let group = machine.boot();
    let env = machine.env(CoreId(0));
    let ended = world.run(group, Duration::from_secs(10), {
        let run = Rc::clone(&run);
        async move { start(&env, config(planted), &run).await.is_some() }
    });
    let mut state = run.borrow_mut();
    match (state.error.take(), ended) {
        (Some(error), _) => Err(error),
        (None, Ok(true)) if state.recoveries == before + 1 => {
            Ok(Seen { recoveries: state.recoveries, cuts: state.cuts })
        }
        (None, ended) => Err(format!("in peace it does not open: {ended:?}")),
    }
}

#[test]
fn long_runs_with_random_crashes_lose_nothing() {
    let mut all = Seen::default();
    for seed in 0..400 {
        let seen = soak(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        all.recoveries += seen.recoveries;
        all.cuts += seen.cuts;
    }
    assert!(all.recoveries > 1500, "only {} recoveries", all.recoveries);
    assert!(all.cuts > 50, "only {} torn tails", all.cuts);
}

/// Whether one of some soaks finds a planted bug: by what it lost, or by an assertion of the log itself.
fn finds(bug: PlantedBug) -> bool {
    (0..500).any(|seed| {
        let soaked = std::panic::catch_unwind(|| soak(seed, Some(bug)).is_err());
        soaked.unwrap_or(true)
    })
}

#[test]
fn planted_bugs_are_found() {
    let bugs = [
        PlantedBug::TornTailMisread,
        PlantedBug::RecoveryActsOnUnsynced,
        PlantedBug::CutNotRecorded,
        PlantedBug::HardStateLostWithSegment,
        PlantedBug::CompletedBeforeWrite,
        PlantedBug::BlockRewritten,
        PlantedBug::FailureNotLatched,
        PlantedBug::HeaderKept,
        PlantedBug::StaleBatchAccepted,
        PlantedBug::OldCopyWins,
        PlantedBug::DirectoryNotSynced,
    ];
    let missed: Vec<PlantedBug> = bugs.into_iter().filter(|bug| !finds(*bug)).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// What a segment held in its former life is no batch of its next one: where it is taken for one, entries are
/// found that were replaced or let go of long ago, and those that were acknowledged are not.
#[test]
fn a_stale_batch_of_a_segment_that_is_used_again_is_found_out() {
    let is_of_another_state = |error: &String| error.contains("completed\n base");
    let of_seed = |seed| {
        let soaked = std::panic::catch_unwind(|| soak(seed, Some(PlantedBug::StaleBatchAccepted)).err());
        soaked.ok().flatten().filter(is_of_another_state).map(|error| (seed, error))
    };
    let found = (0..100).find_map(of_seed);
    let (seed, error) = found.expect("a start finds a state that never was");
    println!("seed {seed}: {}", error.lines().next().unwrap_or_default());
}

/// The most combinations of what a crash of a small run may leave, and the two crashes after it.
const LEFT_MAX: usize = 100_000;

/// A small run: it appends to two shards, replaces entries, fills a segment, and waits for each append but
/// the last. Its segments are as small as can be, so that all that may become of one that is just being
/// filled can be tried.
async fn small(env: SimEnv, run: Rc<RefCell<Run>>) {
    let config = LaneConfig { segment_bytes: 4 * 4096, ..config(None) };
    let Some(lane) = start(&env, config, &run).await else { return };
    let number = |run: &Rc<RefCell<Run>>| run.borrow().issued.len() as u64;
    let from = run.borrow().base.get(&ShardId(1)).map_or(0, log_model::ShardModel::last);
    for (shard, first, term, len) in [(1, from + 1, 1, 20), (2, 1, 3, 5000), (1, from + 1, 4, 10)] {
        let data = Bytes::from(vec![b'a'; len]);
        let entries = vec![Entry { index: Index(first), term: Term(term), data }];
        let state = HardState { term: Term(term), vote: Some(NodeId(1)), commit: Index(0) };
        let (shard, hard_state) = (ShardId(shard), Some(state));
        let append = Append { shard, number: number(&run), hard_state, entries, ..Append::default() };
        assert!(issue(&lane, &Op::Append(append), &run), "three appends fit the queue");
        env.sleep(Duration::from_micros(250)).await;
    }
    env.sleep(Duration::from_millis(12)).await;
    lane.close();
}

/// Runs it with a crash at a point; then a life that acts on what it finds; then the power fails, and all is
/// compared. Returns the points that a run without a crash passes.
fn crashed_at(point: u64, crash: Crash, choices: &Choices) -> u64 {
    let world = World::new(WorldConfig { order: Order::Fifo, ..WorldConfig::seeded(1) });
    let latencies = Latencies::exactly(100);
    // A process that is killed spoils no sector.
    let tearing = if crash == Crash::Power { Tearing::Garbage } else { Tearing::Sectors };
    let disk = DiskConfig { tearing, tear_sectors: 8, late_us_max: 2000, latencies, ..DiskConfig::default() };
    let machine = Machine::with_choices(&world, NODE, disk, choices.clone());
    machine.disk().prepare_dir(Path::new("/data"));
    let run = Rc::new(RefCell::new(Run::default()));
    let group = machine.boot();
    machine.disk().crash_at(point, crash);
    world.spawn(group, small(machine.env(CoreId(0)), Rc::clone(&run)));
    world.run_for(Duration::from_millis(60));
    let points = machine.disk().points();
    for last in [Crash::Power, Crash::Process] {
        machine.crash(last);
        machine.disk().crash_at(u64::MAX, Crash::Process);
        let group = machine.boot();
        world.spawn(group, small(machine.env(CoreId(0)), Rc::clone(&run)));
        world.run_for(Duration::from_millis(60));
        let state = run.borrow();
        assert_eq!(state.error, None, "crash {crash:?} at point {point}");
        assert_eq!(state.completed, 3, "crash {crash:?} at point {point}: all is appended in peace");
    }
    points
}

/// At every await of the disk, with every choice of what is kept, lost and torn: block by block, since the
/// sectors of a block behind its first one hold zeros before and after, in all batches here but one.
#[test]
fn every_crash_of_a_small_run_is_safe() {
    let points = crashed_at(u64::MAX, Crash::Process, &Choices::scripted(Vec::new()));
    assert!(points > 100, "a small run has {points} points");
    let mut runs = 0;
    for (crash, point) in
        [Crash::Process, Crash::Power].into_iter().flat_map(|crash| (1..=points).map(move |p| (crash, p)))
    {
        let ended = exhaust(LEFT_MAX, |choices| {
            crashed_at(point, crash, choices);
        });
        let Exhausted::All(tried) = ended else {
            panic!("crash {crash:?} at point {point} leaves more than {LEFT_MAX} things");
        };
        runs += tried;
    }
    assert!(runs > 10_000, "only {runs} runs: where are the choices?");
}

/// A batch of a killed process lands whole while the next one, which did not find it, is at work. Says what
/// is wrong then.
fn landed_late(planted: Option<PlantedBug>) -> Option<String> {
    let world = World::new(WorldConfig { order: Order::Fifo, ..WorldConfig::seeded(1) });
    // The one write in flight lands, and as late as can be.
    let choices = Choices::scripted(vec![0, 1]);
    let disk =
        DiskConfig { late_us_max: 30_000, latencies: Latencies::exactly(100), ..DiskConfig::default() };
    let machine = Machine::with_choices(&world, NODE, disk, choices);
    machine.disk().prepare_dir(Path::new("/data"));
    let run = Rc::new(RefCell::new(Run::default()));
    for (ops, at_last_us) in [(3, 50), (40, 60_000), (0, 60_000)] {
        let group = machine.boot();
        let (env, shared) = (machine.env(CoreId(0)), Rc::clone(&run));
        let disk = machine.disk().clone();
        let life = async move {
            let Some(lane) = start(&env, config(planted), &shared).await else { return };
            env.sleep(Duration::from_millis(10)).await;
            for index in 1..=ops {
                let data = Bytes::from(vec![ops; 4000]);
                let entries = vec![Entry { index: Index(u64::from(index)), term: Term(1), data }];
                let (shard, number) = (ShardId(u32::from(ops)), u64::from(index) - 1);
                let append = Append { shard, number, entries, ..Append::default() };
                let is_last = ops == 3 && index == 3;
                disk.configure(|disk| {
                    disk.latencies = Latencies::exactly(if is_last { 30_000 } else { 100 })
                });
                assert!(issue(&lane, &Op::Append(append), &shared), "few appends wait");
                env.sleep(Duration::from_millis(1)).await;
            }
        };
        world.spawn(group, life);
        let wanted = usize::from(ops);
        world.run_until(world.time() + Duration::from_millis(100), || {
            wanted > 0 && run.borrow().recoveries > 0 && run.borrow().issued.len() == wanted
        });
        world.run_for(Duration::from_micros(at_last_us));
        machine.crash(Crash::Process);
        machine.disk().configure(|disk| disk.latencies = Latencies::exactly(100));
    }
    let error = run.borrow_mut().error.take();
    assert!(error.is_some() || run.borrow().recoveries == 3, "three lives");
    error
}

#[test]
fn a_write_that_lands_late_does_not_bring_back_what_was_cut() {
    assert_eq!(landed_late(None), None);
    assert!(landed_late(Some(PlantedBug::CutNotRecorded)).is_some());
}

#[test]
fn a_failed_write_is_final() {
    let world = World::new(WorldConfig::seeded(3));
    let machine = Machine::new(&world, NODE, DiskConfig::default());
    machine.disk().prepare_dir(Path::new("/data"));
    let group = machine.boot();
    let (env, disk) = (machine.env(CoreId(0)), machine.disk().clone());
    let ended = world.run(group, Duration::from_secs(5), async move {
        let opened = Lane::open(env.clone(), Path::new(DIR), config(None)).await;
        let (lane, _) = opened.expect("the directory is new and the disk works");
        env.spawn(lane.clone().run());
        env.sleep(Duration::from_millis(20)).await;
        disk.fail(Fault::Once { kind: Kind::Write, after: 0 });
        let append = Append {
            hard_state: Some(HardState { term: Term(1), ..HardState::default() }),
            ..Append::default()
        };
        assert_eq!(lane.append(append.clone()), Ok(()));
        env.sleep(Duration::from_millis(20)).await;
        let failure = lane.failed().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(failure.contains("seg-0000000000000001.log failed at byte 4096"), "{failure}");
        assert!(lane.append(append).is_err() && lane.completions().is_empty() && lane.status().poisoned);
    });
    assert!(ended.is_ok(), "{ended:?}");
}

#[test]
fn a_full_disk_is_a_state_and_passes() {
    let world = World::new(WorldConfig::seeded(4));
    let capacity_bytes = 4096 * (2 * 6 + 6);
    let machine = Machine::new(&world, NODE, DiskConfig { capacity_bytes, ..DiskConfig::default() });
    machine.disk().prepare_dir(Path::new("/data"));
    let group = machine.boot();
    let (env, disk) = (machine.env(CoreId(0)), machine.disk().clone());
    let ended = world.run(group, Duration::from_secs(60), async move {
        let opened = Lane::open(env.clone(), Path::new(DIR), config(None)).await;
        let (lane, _) = opened.expect("the disk holds two segments");
        env.spawn(lane.clone().run());
        let mut taken = 0;
        for index in 1..60 {
            let data = Bytes::from(vec![1; 3000]);
            let entries = vec![Entry { index: Index(index), term: Term(1), data }];
            if lane.append(Append { number: index, entries, ..Append::default() }).is_err() {
                break;
            }
            taken = index;
            env.sleep(Duration::from_millis(1)).await;
        }
        let status = lane.status();
        assert_eq!((status.space, status.poisoned), (Space::Short, false), "after {taken} appends");
        disk.configure(|config| config.capacity_bytes = u64::MAX);
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(lane.status().space, Space::Enough);
        let last = lane.completions().last().map(|completed| completed.number);
        assert_eq!(last, Some(taken));
        assert_eq!(lane.status().queued_bytes, 0);
    });
    assert!(ended.is_ok(), "{ended:?}");
}

/// A life on a disk where one operation fails, then one in peace. Says what failed the first one, if
/// anything did.
fn one_failure(kind: Kind, after: u64) -> Option<String> {
    let world = World::new(WorldConfig::seeded(5));
    let machine = Machine::new(&world, NODE, DiskConfig::default());
    machine.disk().prepare_dir(Path::new("/data"));
    let run = Rc::new(RefCell::new(Run::default()));
    let said = Rc::new(RefCell::new(None));
    let (env, config) = (|| machine.env(CoreId(0)), config(None));
    let group = machine.boot();
    machine.disk().fail(Fault::Once { kind, after });
    let (shared, noted, first) = (Rc::clone(&run), Rc::clone(&said), env());
    let settings = config.clone();
    world.spawn(group, async move {
        let Some(lane) = start(&first, settings.clone(), &shared).await else {
            let said = shared.borrow_mut().error.take();
            *noted.borrow_mut() = Some(said.unwrap_or_else(|| "the disk failed".to_owned()));
            return;
        };
        let mut model: Model = shared.borrow().base.clone();
        let mut random = Random::new(7);
        for number in 0..150 {
            let op = next_op(&mut random, &model, number, &settings);
            while !issue(&lane, &op, &shared) && lane.failed().is_none() {
                first.sleep(Duration::from_micros(100)).await;
            }
            if let Some(failure) = lane.failed() {
                *noted.borrow_mut() = Some(failure.to_string());
                first.sleep(Duration::from_millis(50)).await;
                for completed in lane.completions() {
                    shared.borrow_mut().complete(completed.number);
                }
                return;
            }
            apply(&mut model, &op, None);
        }
    });
    world.run_for(Duration::from_secs(2));
    machine.crash(Crash::Power);
    machine.disk().heal();
    let group = machine.boot();
    let (peaceful, shared) = (env(), Rc::clone(&run));
    let opened = world.run(group, Duration::from_secs(10), async move {
        start(&peaceful, config, &shared).await.is_some()
    });
    let error = run.borrow_mut().error.take();
    assert_eq!((error, opened), (None, Ok(true)), "{kind:?} number {after} failed: {said:?}");
    said.take()
}

#[test]
fn whatever_one_operation_fails_nothing_that_completed_is_lost() {
    let kinds = [Kind::Open, Kind::Write, Kind::Sync, Kind::Allocate, Kind::List, Kind::Names, Kind::SyncDir];
    for kind in kinds {
        let mut said: Vec<String> = (0..60).filter_map(|after| one_failure(kind, after)).collect();
        said.sort();
        said.dedup();
        assert!(!said.is_empty(), "no {kind:?} failed");
        // The first failure of a lane is final, whichever it is; only what a start does alone has one way.
        let ways = if kind == Kind::List { 1 } else { 2 };
        assert!(said.len() >= ways, "{kind:?}: {said:?}");
    }
}

/// What becomes of the disk between two starts: blocks by their segment and number.
#[derive(Clone, Copy)]
enum Harm {
    /// A bit turns over.
    Flip(u64, u64),
    /// It cannot be read any more.
    Spoil(u64, u64),
}

use Harm::{Flip, Spoil};

/// Five batches in one segment and the others in the next, of which the manifest does not know yet where the
/// first one ends: the disk is full, and the segment after them cannot be made. Then harm comes to the disk,
/// and it is opened again.
fn harmed_at_a_boundary(batches: u64, harms: &[Harm]) -> String {
    let world = World::new(WorldConfig::seeded(4));
    let capacity_bytes = 4096 * (2 * 6 + 6);
    let machine = Machine::new(&world, NODE, DiskConfig { capacity_bytes, ..DiskConfig::default() });
    machine.disk().prepare_dir(Path::new("/data"));
    let (group, env) = (machine.boot(), machine.env(CoreId(0)));
    let written = world.run(group, Duration::from_secs(5), async move {
        let opened = Lane::open(env.clone(), Path::new(DIR), config(None)).await;
        let (lane, _) = opened.expect("the disk holds two segments");
        env.spawn(lane.clone().run());
        for index in 1..=batches {
            let entries = vec![Entry { index: Index(index), term: Term(1), data: vec![1; 3000].into() }];
            assert_eq!(lane.append(Append { number: index, entries, ..Append::default() }), Ok(()));
            env.sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(lane.completions().len() as u64, batches);
        assert_eq!(lane.status().space, if batches > 5 { Space::Short } else { Space::Enough });
    });
    assert!(written.is_ok(), "{written:?}");
    machine.crash(Crash::Process);
    machine.disk().configure(|disk| disk.capacity_bytes = u64::MAX);
    let file = |segment: u64| Path::new(DIR).join(format!("seg-{segment:016x}.log"));
    for harm in harms {
        match *harm {
            Flip(segment, block) => machine.disk().flip_bit(&file(segment), block * 4096 + 100, 0),
            Spoil(segment, block) => machine.disk().spoil_block(&file(segment), block * 4096),
        }
    }
    let (group, env) = (machine.boot(), machine.env(CoreId(0)));
    let opened = world.run(group, Duration::from_secs(5), async move {
        match Lane::open(env, Path::new(DIR), config(None)).await {
            Ok((_, recovery)) => format!("{} batches", recovery.batches),
            Err(error) => error.to_string(),
        }
    });
    opened.expect("opening ends")
}

#[test]
fn damage_on_both_sides_of_a_boundary_is_not_taken_for_a_tear() {
    let file = format!("{DIR}/seg-0000000000000001.log is damaged at byte 20480");
    assert_eq!(harmed_at_a_boundary(8, &[]), "8 batches");
    let first = harmed_at_a_boundary(8, &[Flip(1, 5)]);
    assert!(first.starts_with(&file) && first.contains("batch 6 knew it durable"), "{first}");
    let both = harmed_at_a_boundary(8, &[Flip(1, 5), Flip(2, 1)]);
    assert!(both.starts_with(&file) && both.contains("batch 7 knew it durable"), "{both}");
    // What nothing later knew of is a tear, even if it is one of several in a row.
    assert_eq!(harmed_at_a_boundary(8, &[Flip(2, 3)]), "7 batches");
}

#[test]
fn what_cannot_be_read_at_a_boundary_is_not_taken_for_a_tear() {
    let is_at = |said: &str, segment: u64, block: u64| {
        let at = block * 4096;
        let file = format!("{DIR}/seg-{segment:016x}.log is damaged at byte {at}: the disk does not give it");
        assert!(said.starts_with(&file), "{segment} {block}: {said}");
    };
    // The last batch, wherever it is; a batch before it; and where the next one would be.
    for (batches, segment, block) in [(5, 1, 5), (6, 2, 1), (8, 2, 3), (8, 1, 5), (8, 2, 1), (5, 2, 1)] {
        is_at(&harmed_at_a_boundary(batches, &[Spoil(segment, block)]), segment, block);
    }
    // What a batch that is no more may have been proved by.
    is_at(&harmed_at_a_boundary(6, &[Flip(1, 5), Spoil(2, 1)]), 2, 1);
    is_at(&harmed_at_a_boundary(7, &[Flip(2, 1), Spoil(2, 2)]), 2, 2);
    // Nothing was ever written there.
    assert_eq!(harmed_at_a_boundary(5, &[Spoil(2, 2)]), "5 batches");
    assert_eq!(harmed_at_a_boundary(8, &[Spoil(2, 5)]), "8 batches");
}
