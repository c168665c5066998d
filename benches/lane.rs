//! How fast a lane's log is alone: durable batches a second, beside what a plain writer of the same blocks
//! reaches.
//!
//! ```text
//! cargo bench --bench lane -- --dir /on/the/disk --bytes 3800 --writers 1
//! ```
//!
//! Each writer appends an entry, waits until it is durable, and appends the next; what arrives while a batch
//! is in flight joins the next one. Entries are released as they become durable, so that segments are used
//! again, as they are in a node that takes snapshots. Compare with a plain writer of the printed batch size:
//! direct, `O_DSYNC`, one write in flight, over blocks that were written before, for example `fio --rw=write
//! --direct=1 --sync=dsync --ioengine=io_uring --iodepth=1 --overwrite=1 --bs=4k --size=64m`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::signal::{AnswerSender, answer};
use distribkv::env::{Env, Instant};
use distribkv::ids::{Index, LaneId, ShardId, Term};
use distribkv::log::{Append, Lane, LaneConfig};
use distribkv::raft::Entry;

/// Measures a lane's log alone.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Where the lane is made; removed afterwards.
    #[arg(long, default_value = "./data/bench-lane")]
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
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

const SHARD: ShardId = ShardId(0);
const TERM: Term = Term(1);

/// After so many entries those that are durable are released.
const RELEASE_EVERY: u64 = 4096;

/// What the writers share.
struct Writers {
    lane: Lane<GlommioEnv>,
    waiting: RefCell<BTreeMap<u64, AnswerSender<()>>>,
    last: RefCell<Index>,
    waits_us: RefCell<Vec<u32>>,
}

fn main() {
    let args = Args::parse();
    let dir = args.dir.clone();
    let options = ExecutorOptions::new("bench-lane", CorePlacement::Anywhere, 1);
    let started = start_executor(options, move || measure(args));
    match started.map(|thread| thread.join()) {
        Ok(Some(line)) => println!("{line}"),
        Ok(None) => eprintln!("the executor ended early"),
        Err(error) => eprintln!("{error}"),
    }
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        eprintln!("{} is left behind: {error}", dir.display());
    }
}

async fn measure(args: Args) -> String {
    let env = GlommioEnv::new().expect("the kernel has random numbers");
    let config = LaneConfig {
        lane: LaneId(0),
        segment_bytes: 64 << 20,
        batch_bytes_max: 8 << 20,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 64 << 20,
        seal_after: Duration::from_millis(10),
        damage: distribkv::log::OnDamage::Stop,
        #[cfg(debug_assertions)]
        planted: None,
    };
    let lane = match Lane::open(env.clone(), &args.dir, config).await {
        Ok((lane, _)) => lane,
        Err(error) => return format!("{}: {error}", args.dir.display()),
    };
    env.spawn(lane.clone().run());
    let writers = Rc::new(Writers {
        lane: lane.clone(),
        waiting: RefCell::default(),
        last: RefCell::new(Index(0)),
        waits_us: RefCell::default(),
    });
    env.spawn(complete(Rc::clone(&writers)));
    let data = Bytes::from(vec![b'v'; args.bytes]);
    for _ in 0..args.writers {
        env.spawn(write(env.clone(), Rc::clone(&writers), data.clone()));
    }
    env.sleep(Duration::from_secs(1)).await;
    writers.waits_us.borrow_mut().clear();
    let (began, before) = (env.now(), lane.status().batches);
    env.sleep(Duration::from_secs(args.seconds)).await;
    report(&args, &writers, env.now().since(began), lane.status().batches - before)
}

fn report(args: &Args, writers: &Writers, elapsed: Duration, batches: u64) -> String {
    let mut waits = writers.waits_us.borrow_mut();
    waits.sort_unstable();
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or(0);
    let rate = |count: f64| count / elapsed.as_secs_f64();
    let entries = waits.len() as f64;
    format!(
        "{} writers of {} bytes: {:.0} entries/s, {:.0} batches/s, {:.1} entries a batch, \
         {:.1} MB/s of entries, p50 {} us, p99 {} us",
        args.writers,
        args.bytes,
        rate(entries),
        rate(batches as f64),
        entries / batches.max(1) as f64,
        rate(entries * args.bytes as f64) / 1e6,
        at(0.5),
        at(0.99),
    )
}

/// Appends one entry after the other.
async fn write(env: GlommioEnv, writers: Rc<Writers>, data: Bytes) {
    loop {
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
            if completed.number.is_multiple_of(RELEASE_EVERY) {
                let released = writers.lane.release(SHARD, Index(completed.number), TERM);
                assert!(released.is_ok(), "the queue has room for a mark");
            }
        }
        progress.wait().await;
    }
}
