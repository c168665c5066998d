//! How fast a lane's log is alone: durable batches a second, beside what a plain writer of the same blocks
//! reaches.
//!
//! ```text
//! cargo bench --bench lane -- --dir /on/the/disk --bytes 3800 --writers 1
//! cargo bench --bench lane -- --dir /on/the/disk --batch-kib 4,64,256
//! ```
//!
//! Each writer appends an entry, waits until it is durable, and appends the next; what arrives while a batch
//! is in flight joins the next one. Entries are released as they become durable, so that segments are used
//! again, as they are in a node that takes snapshots.
//!
//! With `--batch-kib` there are two writers, whose entries make batches of just these sizes, one each: one
//! write in flight, direct, `O_DSYNC`, over blocks that were written before, and the next one waiting, as
//! there always is one for fio. So an entry waits for two writes. Where fio is on the `PATH` it does the same
//! in the same directory, in rounds that alternate with the lane's, and the ratio of each pair of rounds
//! counts: a disk that is slower for a while is so for both. What it is asked for:
//!
//! ```text
//! fio --name=log --directory=/on/the/disk --rw=write --bs=4k --iodepth=1 --direct=1 --sync=dsync
//!     --ioengine=io_uring --overwrite=1 --size=64m --time_based --runtime=5 --ramp_time=1
//! ```
//!
//! Between the two stands a plain writer: the same file written in the same way through the executor that a
//! lane lives on, and nothing else. What it lacks of fio is the executor's share, what the lane lacks of it
//! is the lane's.
//!
//! The lane does more than either: checksums, marks of what was released, a new segment every 64 MiB. And it
//! sleeps as a node's core does: `--spin-us` has it spin first, as the low-latency profile does.

#[allow(dead_code, reason = "every bench takes of it what it needs")]
#[path = "support/place.rs"]
mod place;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::signal::{AnswerSender, answer};
use distribkv::env::{BLOCK_BYTES, Env, File, Instant, OpenMode};
use distribkv::ids::{Index, LaneId, ShardId, Term};
use distribkv::log::{Append, Lane, LaneConfig};
use distribkv::raft::Entry;

/// Measures a lane's log alone.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Where the lane is made, in a directory of its own that is removed afterwards.
    #[arg(long, default_value = "./data")]
    dir: PathBuf,
    /// Bytes of an entry.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// Entries that wait at a time.
    #[arg(long, default_value_t = 64)]
    writers: u64,
    /// How long it is measured, after one second to warm up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Batches of these sizes instead, in KiB, one at a time, beside fio where there is one.
    #[arg(long, value_delimiter = ',', value_parser = whole_blocks_kib)]
    batch_kib: Vec<u32>,
    /// How often lane and fio take turns, for each size.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Microseconds that the idle executor spins before it sleeps: a node's `spin_us`.
    #[arg(long, default_value_t = 0)]
    spin_us: u64,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn whole_blocks_kib(text: &str) -> Result<u32, String> {
    let kib: u32 = text.parse().map_err(|error| format!("{error}"))?;
    let is_fit = kib.is_multiple_of(BLOCK_BYTES as u32 / 1024) && (4..=4096).contains(&kib);
    if is_fit { Ok(kib) } else { Err("whole blocks of 4 KiB, up to 4096".into()) }
}

const SHARD: ShardId = ShardId(0);
const TERM: Term = Term(1);

/// The size of a segment, and of fio's file.
const SEGMENT_BYTES: u64 = 64 << 20;

/// The longest batch of many writers.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// When so much is durable it is released.
const RELEASE_BYTES: u64 = 16 << 20;

/// What a lane is asked for.
#[derive(Clone, Debug)]
struct Load {
    dir: PathBuf,
    bytes: usize,
    /// The longest batch.
    batch_bytes_max: usize,
    writers: u64,
    seconds: u64,
    spin: Duration,
}

/// What a lane, a plain writer or fio reached.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Entries, which are batches where no two fit one.
    entries_per_s: f64,
    batches_per_s: f64,
    /// From the append until it is durable.
    p50_us: f64,
    p99_us: f64,
}

/// What the writers share.
struct Writers {
    lane: Lane<GlommioEnv>,
    waiting: RefCell<BTreeMap<u64, AnswerSender<()>>>,
    last: RefCell<Index>,
    waits_us: RefCell<Vec<u32>>,
    /// After so many entries those that are durable are released.
    release_every: u64,
    /// Whether the lane is being closed, and takes nothing more.
    is_over: Cell<bool>,
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    let own = place::own_dir(&args.dir);
    args.dir = own.path().to_path_buf();
    let done = match args.batch_kib.is_empty() {
        true => many_writers(&args),
        false => args.batch_kib.iter().try_for_each(|kib| beside_fio(&args, *kib)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn many_writers(args: &Args) -> Result<(), String> {
    let Args { bytes, writers, seconds, spin_us, .. } = *args;
    let spin = Duration::from_micros(spin_us);
    let load =
        Load { dir: args.dir.join("lane"), bytes, batch_bytes_max: BATCH_BYTES_MAX, writers, seconds, spin };
    let Measured { entries_per_s, batches_per_s, p50_us, p99_us } = measure_with(&load, measure)?;
    println!(
        "{writers} writers of {bytes} bytes: {entries_per_s:.0} entries/s, {batches_per_s:.0} batches/s, \
         {:.1} entries a batch, {:.1} MB/s of entries, p50 {p50_us:.0} us, p99 {p99_us:.0} us",
        entries_per_s / batches_per_s.max(1.0),
        entries_per_s * bytes as f64 / 1e6,
    );
    Ok(())
}

/// Batches of one size from a lane and from fio, in turns.
fn beside_fio(args: &Args, kib: u32) -> Result<(), String> {
    let batch_bytes = kib as usize * 1024;
    let (dir, seconds, spin) = (args.dir.join("lane"), args.seconds, Duration::from_micros(args.spin_us));
    // The longest entry: no two fit a batch. With two writers one waits whenever the other's is durable.
    let bytes = config(batch_bytes).entry_bytes_max();
    let load = Load { dir, bytes, batch_bytes_max: batch_bytes, writers: 2, seconds, spin };
    let has_fio = Command::new("fio").arg("--version").output().is_ok();
    let (mut lanes, mut plains, mut fios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds.max(1) {
        // Who begins changes, so that a disk that gets slower or faster favours nobody.
        if has_fio && round % 2 == 1 {
            fios.push(measure_fio(&args.dir, kib, args.seconds)?);
        }
        lanes.push(measure_with(&load, measure)?);
        plains.push(measure_with(&load, move |load| measure_plain(load, batch_bytes))?);
        if has_fio && round % 2 == 0 {
            fios.push(measure_fio(&args.dir, kib, args.seconds)?);
        }
    }
    println!("batches of {kib} KiB, {} rounds of {} s: lane {}", lanes.len(), args.seconds, summary(&lanes));
    println!("    plain writer {}", summary(&plains));
    compare("the lane to the plain writer's", &lanes, &plains);
    if !has_fio {
        println!("    fio is not on the PATH: there is nothing to compare with");
        return Ok(());
    }
    println!("    fio {}", summary(&fios));
    compare("the plain writer to fio's", &plains, &fios);
    compare("the lane to fio's", &lanes, &fios);
    Ok(())
}

/// The ratios of rounds that belong together: the median, and how far they spread.
fn compare(what: &str, ours: &[Measured], theirs: &[Measured]) {
    let rates = ours.iter().zip(theirs).map(|(our, their)| our.entries_per_s / their.entries_per_s);
    let mut ratios: Vec<f64> = rates.collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    println!("    rate of {what}: {:.3} ({least:.3} to {most:.3})", middle(&ratios));
}

/// The medians of some rounds.
fn summary(rounds: &[Measured]) -> String {
    let median = |of: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        middle(&values)
    };
    let rate = median(|round| round.entries_per_s);
    let (p50, p99) = (median(|round| round.p50_us), median(|round| round.p99_us));
    format!("{rate:.0}/s, p50 {p50:.0} us, p99 {p99:.0} us")
}

/// The middle one of values in order.
fn middle(sorted: &[f64]) -> f64 {
    let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    below.midpoint(above)
}

/// What fio reaches with the same blocks, depth and flags.
fn measure_fio(dir: &Path, kib: u32, seconds: u64) -> Result<Measured, String> {
    let (bs, size) = (format!("--bs={kib}k"), format!("--size={SEGMENT_BYTES}"));
    let (dir, runtime) = (format!("--directory={}", dir.display()), format!("--runtime={seconds}"));
    let fixed = "--name=log --rw=write --iodepth=1 --direct=1 --sync=dsync --ioengine=io_uring \
                 --overwrite=1 --time_based --ramp_time=1 --lat_percentiles=1 --output-format=json";
    let run = Command::new("fio").args(fixed.split_whitespace()).args([dir, bs, size, runtime]).output();
    let output = run.map_err(|error| format!("fio: {error}"))?;
    if !output.status.success() {
        return Err(format!("fio: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let told: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("what fio tells: {error}"))?;
    let write = &told["jobs"][0]["write"];
    let number = |value: &serde_json::Value| value.as_f64().ok_or_else(|| format!("fio tells {told}"));
    let percentile = |of: &str| number(&write["lat_ns"]["percentile"][of]).map(|ns| ns / 1e3);
    let per_s = number(&write["iops"])?;
    let (p50_us, p99_us) = (percentile("50.000000")?, percentile("99.000000")?);
    Ok(Measured { entries_per_s: per_s, batches_per_s: per_s, p50_us, p99_us })
}

/// What is reached on an executor of its own, in a directory that is new.
fn measure_with<F>(load: &Load, run: impl FnOnce(Load) -> F + Send + 'static) -> Result<Measured, String>
where
    F: Future<Output = Result<Measured, String>> + 'static,
{
    let options = ExecutorOptions::new("bench-lane", CorePlacement::Anywhere, 1);
    let options = ExecutorOptions { spin: load.spin, ..options };
    let of_executor = load.clone();
    let started = start_executor(options, move || run(of_executor)).map_err(|error| error.to_string())?;
    let measured = started.join().ok_or("the executor ended early")??;
    std::fs::remove_dir_all(&load.dir).map_err(|error| format!("{}: {error}", load.dir.display()))?;
    Ok(measured)
}

/// What one file reaches that is written over from end to end, one write at a time.
async fn measure_plain(load: Load, batch_bytes: usize) -> Result<Measured, String> {
    let env = GlommioEnv::new().expect("the kernel has random numbers");
    let of_dir = |error: std::io::Error| format!("{}: {error}", load.dir.display());
    env.create_dir(&load.dir).await.map_err(of_dir)?;
    let file = env.open(&load.dir.join("plain"), OpenMode::CreateDurable).await.map_err(of_dir)?;
    let zeros = Rc::new(env.buf(1 << 20));
    for at in (0..SEGMENT_BYTES).step_by(1 << 20) {
        file.write_at(Rc::clone(&zeros), at).await.map_err(of_dir)?;
    }
    let mut block = env.buf(batch_bytes);
    block.as_mut().fill(b'v');
    let (block, step, mut at) = (Rc::new(block), batch_bytes as u64, 0);
    let (began, mut waits) = (env.now() + Duration::from_secs(1), Vec::new());
    let until = began + Duration::from_secs(load.seconds);
    while env.now() < until {
        let asked = env.now();
        file.write_at(Rc::clone(&block), at).await.map_err(of_dir)?;
        at = if at + 2 * step <= SEGMENT_BYTES { at + step } else { 0 };
        if asked >= began {
            waits.push(u32::try_from(env.now().since(asked).as_micros()).unwrap_or(u32::MAX));
        }
    }
    let (elapsed, writes) = (env.now().since(began), waits.len() as u64);
    file.close().await.map_err(of_dir)?;
    Ok(Measured::of(waits, writes, elapsed))
}

fn config(batch_bytes_max: usize) -> LaneConfig {
    LaneConfig {
        lane: LaneId(0),
        segment_bytes: SEGMENT_BYTES,
        batch_bytes_max,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 64 << 20,
        seal_after: Duration::from_millis(10),
        damage: distribkv::log::OnDamage::Stop,
        #[cfg(debug_assertions)]
        planted: None,
    }
}

/// What a new lane reaches.
async fn measure(load: Load) -> Result<Measured, String> {
    let env = GlommioEnv::new().expect("the kernel has random numbers");
    let lane = Lane::open(env.clone(), &load.dir, config(load.batch_bytes_max)).await;
    let (lane, _) = lane.map_err(|error| format!("{}: {error}", load.dir.display()))?;
    let (ended, end) = answer();
    let running = lane.clone().run();
    env.spawn(async move {
        running.await;
        ended.send(());
    });
    let writers = Rc::new(Writers {
        lane: lane.clone(),
        waiting: RefCell::default(),
        last: RefCell::new(Index(0)),
        waits_us: RefCell::default(),
        release_every: (RELEASE_BYTES / load.bytes.max(1) as u64).clamp(1, 4096),
        is_over: Cell::new(false),
    });
    env.spawn(complete(Rc::clone(&writers)));
    let data = Bytes::from(vec![b'v'; load.bytes]);
    for _ in 0..load.writers {
        env.spawn(write(env.clone(), Rc::clone(&writers), data.clone()));
    }
    env.sleep(Duration::from_secs(1)).await;
    writers.waits_us.borrow_mut().clear();
    let (began, before) = (env.now(), lane.status().batches);
    env.sleep(Duration::from_secs(load.seconds)).await;
    let (elapsed, batches) = (env.now().since(began), lane.status().batches - before);
    writers.is_over.set(true);
    lane.close();
    end.await.ok_or("the lane ended early")?;
    Ok(Measured::of(writers.waits_us.take(), batches, elapsed))
}

impl Measured {
    /// Of how long each entry waited, in microseconds.
    fn of(mut waits_us: Vec<u32>, batches: u64, elapsed: Duration) -> Self {
        waits_us.sort_unstable();
        let entries = waits_us.len() as f64;
        let at = |share: f64| waits_us.get((entries * share) as usize).copied().map_or(0.0, f64::from);
        let rate = |count: f64| count / elapsed.as_secs_f64();
        Self {
            entries_per_s: rate(entries),
            batches_per_s: rate(batches as f64),
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }
}

/// Appends one entry after the other.
async fn write(env: GlommioEnv, writers: Rc<Writers>, data: Bytes) {
    while !writers.is_over.get() {
        let index = writers.last.borrow().next();
        *writers.last.borrow_mut() = index;
        let (sender, receiver) = answer();
        writers.waiting.borrow_mut().insert(index.0, sender);
        let entries = vec![Entry { index, term: TERM, data: data.clone() }];
        let append = Append { shard: SHARD, number: index.0, entries, ..Append::default() };
        let began: Instant = env.now();
        assert!(writers.lane.append(append).is_ok(), "the queue has room for every writer");
        if receiver.await.is_none() {
            return;
        }
        let us = u32::try_from(env.now().since(began).as_micros()).unwrap_or(u32::MAX);
        writers.waits_us.borrow_mut().push(us);
    }
}

/// Tells the writers what is durable, and lets it go.
async fn complete(writers: Rc<Writers>) {
    let progress = writers.lane.on_progress();
    while writers.lane.failed().is_none() {
        for completed in writers.lane.completions() {
            if let Some(waiter) = writers.waiting.borrow_mut().remove(&completed.number) {
                waiter.send(());
            }
            if completed.number.is_multiple_of(writers.release_every) && !writers.is_over.get() {
                let released = writers.lane.release(SHARD, Index(completed.number), TERM);
                assert!(released.is_ok(), "the queue has room for a mark");
            }
        }
        progress.wait().await;
    }
}
