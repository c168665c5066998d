//! Segments that are used again, with a crash at every await: releasing the old one, its new name, its new
//! header, the manifest that names it, and the first batches over what an earlier use left in it.

// Planted bugs exist only where assertions do.
#![cfg(debug_assertions)]

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use distribkv::env::Env;
use distribkv::ids::{CoreId, Index, LaneId, NodeId, ShardId, Term};
use distribkv::inspect::{Finding, Severity, What};
use distribkv::log::{Append, Lane, LaneConfig, PlantedBug};
use distribkv::raft::{Entry, HardState};
use sim::disk::{Crash, DiskConfig, Latencies};
use sim::env::{Machine, SimEnv};
use sim::executor::{Order, World, WorldConfig};
use sim::inspect::DiskFiles;
use sim::random::{Choices, exhaust};

#[allow(dead_code, reason = "other tests use the rest of it")]
mod log_model;

use log_model::{Op, Run, apply, read_back};

const NODE: NodeId = NodeId(1);
const ROOT: &str = "/data";
const DIR: &str = "/data/lane-0";
const SHARD: ShardId = ShardId(1);
/// Entries of a life: enough for every file of the lane to be used again.
const ENTRIES: u64 = 14;
/// So many entries lie before the released mark: less than a segment holds.
const KEPT: u64 = 1;

fn config(planted: Option<PlantedBug>) -> LaneConfig {
    LaneConfig {
        lane: LaneId(0),
        segment_bytes: 4 * 4096,
        batch_bytes_max: 2 * 4096,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 48 << 10,
        seal_after: Duration::from_millis(10),
        damage: distribkv::log::OnDamage::Stop,
        planted,
    }
}

/// One life: what is there is compared, then entries are appended and let go of, one by one.
async fn live(env: SimEnv, run: Rc<RefCell<Run>>, planted: Option<PlantedBug>) {
    let (lane, recovery) = match Lane::open(env.clone(), Path::new(DIR), config(planted)).await {
        Ok(opened) => opened,
        Err(error) => return run.borrow_mut().error = Some(format!("it does not open: {error}")),
    };
    let found = read_back(&lane, &recovery).await;
    let compared = found.and_then(|found| run.borrow_mut().recovered(found));
    if let Err(error) = compared {
        return run.borrow_mut().error = Some(error);
    }
    env.spawn(lane.clone().run());
    let mut model = run.borrow().base.clone();
    let from = model.entry(SHARD).or_default().last();
    for index in from + 1..=from + ENTRIES {
        let entries = vec![Entry { index: Index(index), term: Term(1), data: Bytes::from(vec![b'a'; 3000]) }];
        let hard_state = Some(HardState { term: Term(1), vote: None, commit: Index(index - 1) });
        let number = run.borrow().issued.len() as u64;
        let append = Append { shard: SHARD, number, hard_state, entries, ..Append::default() };
        issue(&lane, &run, &mut model, Op::Append(append));
        while lane.completions().is_empty() {
            lane.on_progress().wait().await;
            if lane.failed().is_some() {
                return;
            }
        }
        run.borrow_mut().complete(number);
        if index > KEPT {
            issue(&lane, &run, &mut model, Op::Release(SHARD, Index(index - KEPT), Term(1)));
        }
        env.sleep(Duration::from_micros(1500)).await;
    }
    lane.close();
}

fn issue(lane: &Lane<SimEnv>, run: &Rc<RefCell<Run>>, model: &mut log_model::Model, op: Op) {
    let taken = match &op {
        Op::Append(append) => lane.append(append.clone()),
        Op::Release(shard, index, term) => lane.release(*shard, *index, *term),
    };
    assert_eq!(taken, Ok(()), "one append and one mark fit the queue");
    apply(model, &op, None);
    run.borrow_mut().issued.push(op);
}

/// Runs it with a crash at a point, then two lives that end in peace. Returns the points of the first life,
/// or what went wrong.
fn crashed_at(
    point: u64,
    crash: Crash,
    choices: &Choices,
    planted: Option<PlantedBug>,
) -> Result<u64, String> {
    let world = World::new(WorldConfig { order: Order::Fifo, ..WorldConfig::seeded(1) });
    let latencies = Latencies::exactly(100);
    let disk = DiskConfig { tear_sectors: 8, late_us_max: 2000, latencies, ..DiskConfig::default() };
    let machine = Machine::with_choices(&world, NODE, disk, choices.clone());
    machine.disk().prepare_dir(Path::new(ROOT));
    let run = Rc::new(RefCell::new(Run::default()));
    let mut points = 0;
    for life in 0..3 {
        let at = |error: String| format!("life {life}, crash {crash:?} at point {point}: {error}");
        let group = machine.boot();
        machine.disk().crash_at(if life == 0 { point } else { u64::MAX }, crash);
        world.spawn(group, live(machine.env(CoreId(0)), Rc::clone(&run), planted));
        world.run_for(Duration::from_millis(120));
        points = if life == 0 { machine.disk().points() } else { points };
        let error = run.borrow_mut().error.take();
        error.map_or(Ok(()), Err).map_err(at)?;
        machine.crash(crash);
        is_clean(&machine).map_err(at)?;
    }
    let recoveries = run.borrow().recoveries;
    if recoveries < 2 { Err(format!("{recoveries} lives after a crash at {point}")) } else { Ok(points) }
}

/// What a crash leaves is no damage to whoever looks.
fn is_clean(machine: &Machine) -> Result<(), String> {
    let files = DiskFiles::new(machine.disk(), PathBuf::from(ROOT));
    let report = distribkv::inspect::verify(&files).map_err(|error| error.to_string())?;
    // A lane alone is tried here: it has no identity, and lets go of entries that no table holds.
    let is_of_lane = |finding: &Finding| {
        !finding.file.starts_with("identity") && !matches!(finding.what, What::EntriesLost { .. })
    };
    let is_damage = |finding: &&Finding| finding.severity > Severity::Note && is_of_lane(finding);
    let damage: Vec<String> = report.findings.iter().filter(is_damage).map(ToString::to_string).collect();
    if damage.is_empty() { Ok(()) } else { Err(damage.join("\n")) }
}

#[test]
fn a_crash_while_a_segment_is_used_again_loses_nothing() {
    let peace = |planted| crashed_at(u64::MAX, Crash::Process, &Choices::scripted(Vec::new()), planted);
    let points = peace(None).expect("there is no crash");
    assert!(points > 150, "a life has {points} points");
    // Files are used again in it: the mistake to keep the header of the earlier use is found.
    let kept = peace(Some(PlantedBug::HeaderKept)).expect_err("a header of another segment");
    assert!(kept.contains("header is not what the manifest says"), "{kept}");
    for crash in [Crash::Process, Crash::Power] {
        for point in 1..=points {
            exhaust(6, |choices| {
                let ended = crashed_at(point, crash, choices, None);
                assert!(ended.is_ok(), "{ended:?}");
            });
        }
    }
}
