//! The switch of a lane from one table of a shard to the next, with a crash at every await of it: after each,
//! the manifest names the old table or the new one, its file is whole, and no other file is left.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use distribkv::env::{Env, File, OpenMode};
use distribkv::ids::{CoreId, Index, LaneId, NodeId, ShardId, Term};
use distribkv::log::{Lane, LaneConfig, TableRef, table_name};
use sim::disk::{Crash, DiskConfig, Latencies};
use sim::env::{Machine, SimEnv};
use sim::executor::{Order, World, WorldConfig};
use sim::random::{Choices, exhaust};

const NODE: NodeId = NodeId(1);
const DIR: &str = "/data/lane-0";
const SHARDS: [ShardId; 2] = [ShardId(3), ShardId(8)];
const TABLE_BYTES: usize = 8192;

fn config() -> LaneConfig {
    LaneConfig {
        lane: LaneId(0),
        segment_bytes: 4 * 4096,
        batch_bytes_max: 2 * 4096,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 48 << 10,
        seal_after: Duration::from_millis(10),
        damage: distribkv::log::OnDamage::Stop,
        #[cfg(debug_assertions)]
        planted: None,
    }
}

/// What was told so far.
#[derive(Default)]
struct Told {
    /// The generation of each shard's last switch that was answered, and of the last one that was asked for.
    answered: [Cell<u64>; 2],
    asked: [Cell<u64>; 2],
    error: RefCell<Option<String>>,
    lives: Cell<u32>,
}

/// A whole table file would be the state machine's; to the lane it is bytes.
fn contents(generation: u64) -> u8 {
    u8::try_from(generation % 251).expect("below 251") + 1
}

async fn write_table(env: &SimEnv, shard: ShardId, generation: u64) -> std::io::Result<()> {
    let file = env.open(&Path::new(DIR).join(table_name(shard, generation)), OpenMode::Create).await?;
    let mut buf = env.buf(TABLE_BYTES);
    buf.as_mut().fill(contents(generation));
    file.write_at(Rc::new(buf), 0).await?;
    file.sync().await?;
    file.close().await?;
    env.sync_dir(Path::new(DIR)).await
}

/// Opens the lane and compares what it names with what was told.
async fn open(env: &SimEnv, told: &Told) -> Result<Lane<SimEnv>, String> {
    let opened = Lane::open(env.clone(), Path::new(DIR), config()).await;
    let (lane, recovery) = opened.map_err(|error| format!("it does not open: {error}"))?;
    let mut named = Vec::new();
    for (at, shard) in SHARDS.into_iter().enumerate() {
        let generation = recovery.tables.get(&shard).map_or(0, |table| table.generation);
        let (answered, asked) = (told.answered[at].get(), told.asked[at].get());
        if generation < answered || generation > asked {
            return Err(format!("{shard}: table {generation}, answered {answered}, asked {asked}"));
        }
        if generation > 0 {
            let name = table_name(shard, generation);
            let file = env.open(&Path::new(DIR).join(&name), OpenMode::Read).await;
            let bytes = file.map_err(|error| format!("{name}: {error}"))?.read_at(0, TABLE_BYTES).await;
            let is_whole = bytes.is_ok_and(|bytes| bytes == vec![contents(generation); TABLE_BYTES]);
            is_whole.then_some(()).ok_or_else(|| format!("{name} is not whole"))?;
            named.push(name);
        }
        told.asked[at].set(generation);
        told.answered[at].set(generation);
    }
    let names = env.list(Path::new(DIR)).await.map_err(|error| error.to_string())?;
    let tables: Vec<String> = names.into_iter().filter(|name| name.starts_with("table-")).collect();
    if tables != named && recovery.kept.is_empty() {
        return Err(format!("tables {tables:?} are there, {named:?} are named"));
    }
    Ok(lane)
}

/// One life: what is there is compared, then both shards switch twice.
async fn live(env: SimEnv, told: Rc<Told>) {
    let lane = match open(&env, &told).await {
        Ok(lane) => lane,
        Err(error) => return *told.error.borrow_mut() = Some(error),
    };
    told.lives.set(told.lives.get() + 1);
    env.spawn(lane.clone().run());
    for _ in 0..2 {
        for (at, shard) in SHARDS.into_iter().enumerate() {
            let generation = told.asked[at].get() + 1;
            if write_table(&env, shard, generation).await.is_err() {
                return;
            }
            told.asked[at].set(generation);
            let (index, term) = (Index(generation * 10), Term(1));
            let table =
                TableRef { generation, index, term, bytes: TABLE_BYTES as u64, footer_checksum: generation };
            if lane.switch_table(shard, table).await.is_some() {
                told.answered[at].set(generation);
            }
        }
    }
    lane.close();
}

/// Runs it with a crash at a point, then twice more in peace. Returns the points of the first life.
fn crashed_at(point: u64, crash: Crash, choices: &Choices) -> u64 {
    let world = World::new(WorldConfig { order: Order::Fifo, ..WorldConfig::seeded(1) });
    let latencies = Latencies::exactly(100);
    let disk = DiskConfig { tear_sectors: 8, late_us_max: 2000, latencies, ..DiskConfig::default() };
    let machine = Machine::with_choices(&world, NODE, disk, choices.clone());
    machine.disk().prepare_dir(Path::new("/data"));
    let told = Rc::new(Told::default());
    let mut points = 0;
    for life in 0..3 {
        let group = machine.boot();
        machine.disk().crash_at(if life == 0 { point } else { u64::MAX }, crash);
        world.spawn(group, live(machine.env(CoreId(0)), Rc::clone(&told)));
        world.run_for(Duration::from_millis(80));
        points = if life == 0 { machine.disk().points() } else { points };
        let error = told.error.borrow_mut().take();
        assert_eq!(error, None, "life {life}, crash {crash:?} at point {point}");
        machine.crash(crash);
    }
    assert!(told.lives.get() >= 2, "{} lives after a crash at point {point}", told.lives.get());
    points
}

#[test]
fn a_crash_leaves_the_old_table_or_the_new_one() {
    let points = crashed_at(u64::MAX, Crash::Process, &Choices::scripted(Vec::new()));
    assert!(points > 60, "a life has {points} points");
    for crash in [Crash::Process, Crash::Power] {
        for point in 1..=points {
            exhaust(24, |choices| {
                crashed_at(point, crash, choices);
            });
        }
    }
}
