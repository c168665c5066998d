//! How fast keys are read from a table, beside the same keys in a memtable.
//!
//! ```text
//! cargo bench --bench point_reads -- --dir /on/the/disk --keys 200000
//! cargo bench --bench point_reads -- --dir /on/the/disk --keys 200000 --cache-mib 1
//! ```
//!
//! One replica that is a cluster of its own, driven by a runner as in a node; only edge and network are left
//! out. All keys are written and read from the memtable; then the state is made into a table, and the same
//! reads are answered from it: with the blocks in the core's cache of checked blocks, or, where the cache is
//! too small for them, each block read by direct IO.

#[path = "support/place.rs"]
mod place;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use distribkv::env::Env;
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::signal::answer;
use distribkv::ids::{CoreId, LaneId, NodeId, ShardId};
use distribkv::kv::{self, Command, Previous, Query, QueryAnswer, Write};
use distribkv::log::{Lane, LaneConfig, OnDamage};
use distribkv::raft::{ReadMode, Recovered};
use distribkv::route::call::{Body, Consistency, Request};
use distribkv::route::place::{Layout, Place};
use distribkv::shard::{
    Config, Limits, NodePermits, Permits, ReplicaStart, Runner, Scrub, Snapshots, StartTable, Times,
};

/// Measures reads from a memtable and from a table.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Where the replica's files are made, in a directory of its own that is removed afterwards.
    #[arg(long, default_value = "./data")]
    dir: PathBuf,
    /// Keys.
    #[arg(long, default_value_t = 200_000)]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Reads that wait at a time.
    #[arg(long, default_value_t = 64)]
    readers: u64,
    /// How long each is measured.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The size of the cache of blocks, in MiB.
    #[arg(long, default_value_t = 1024)]
    cache_mib: usize,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

const SHARD: ShardId = ShardId(0);
const PLACE: Place = Place { node: NodeId(1), core: CoreId(0) };

fn main() -> ExitCode {
    let mut args = Args::parse();
    let own = place::own_dir(&args.dir);
    args.dir = own.path().join("lane");
    place::on_executor("bench-reads", move || measure(args))
}

async fn measure(args: Args) {
    let env = GlommioEnv::new().expect("the kernel has random numbers");
    let runner = start(&env, &args).await;
    let (running, loop_env) = (runner.clone(), env.clone());
    loop_env.spawn(async move { assert!(running.run().await.is_ok(), "the log was written") });
    runner.entitle();
    while runner.known(SHARD).leader.is_none() {
        env.sleep(Duration::from_millis(10)).await;
    }
    write_all(&env, &runner, &args).await;
    let memtable = reads(&env, &runner, &args).await;
    println!("memtable: {memtable:.0} reads/s");
    runner.ask_snapshots();
    while runner.report().replicas.iter().any(|replica| replica.snapshot_index < replica.applied_index) {
        env.sleep(Duration::from_millis(10)).await;
    }
    let table = reads(&env, &runner, &args).await;
    println!("table:    {table:.0} reads/s, {:.2} of the memtable's", table / memtable);
    runner.stop();
}

async fn start(env: &GlommioEnv, args: &Args) -> Runner<GlommioEnv> {
    let lane = LaneConfig {
        lane: LaneId(0),
        segment_bytes: 64 << 20,
        batch_bytes_max: 8 << 20,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 64 << 20,
        seal_after: Duration::from_millis(10),
        damage: OnDamage::Stop,
        #[cfg(debug_assertions)]
        planted: None,
    };
    let (lane, _) = Lane::open(env.clone(), &args.dir, lane).await.expect("a new directory");
    let config = Config {
        place: PLACE,
        incarnation: 1,
        layout: Layout::new(1, 1, 1, 1),
        times: Times::of(Duration::from_millis(200), Duration::from_millis(20)),
        limits: Limits::default(),
        read_mode: ReadMode::ReadIndex,
        kv: kv::Limits::DEFAULT,
        // Only when it is asked for. Twice as much has to be free on the disk.
        snapshots: Snapshots {
            changes_bytes_max: 4 << 30,
            changes_bytes_min: 4 << 30,
            every: Duration::from_secs(86_400),
            log_segments_max: 1000,
            cache_bytes_max: args.cache_mib << 20,
            ..Snapshots::default()
        },
        permits: NodePermits { snapshots: Permits::new(1, 1), fetches: Permits::new(1, 1) },
        disk_reserve_bytes: 0,
        scrub: Scrub { bytes_per_s: 0, ..Scrub::default() },
        #[cfg(debug_assertions)]
        planted: None,
        #[cfg(debug_assertions)]
        planted_raft: None,
        #[cfg(debug_assertions)]
        planted_kv: None,
    };
    let start = ReplicaStart { shard: SHARD, recovered: Recovered::default(), table: StartTable::None };
    let lanes = BTreeMap::from([(LaneId(0), lane)]);
    Runner::new(env.clone(), config, lanes, vec![start]).expect("a new replica")
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number:012}"))
}

/// Writes every key once.
async fn write_all(env: &GlommioEnv, runner: &Runner<GlommioEnv>, args: &Args) {
    let value = Bytes::from(vec![b'v'; args.bytes]);
    let (keys, next) = (args.keys, Rc::new(Cell::new(0)));
    side_by_side(env, args.readers, |env: GlommioEnv| {
        let (runner, next, value) = (runner.clone(), Rc::clone(&next), value.clone());
        async move {
            while next.get() < keys {
                let number = next.replace(next.get() + 1);
                let (key, value) = (key(number), value.clone());
                let write = Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit };
                let request = Request::Command(Command::Write { id: None, write });
                let answered = runner.call(SHARD, request, env.now() + Duration::from_secs(10)).await;
                assert!(answered.is_ok(), "key {number}: {answered:?}");
            }
        }
    })
    .await;
}

/// How many keys are read in a second, one random key after the other.
async fn reads(env: &GlommioEnv, runner: &Runner<GlommioEnv>, args: &Args) -> f64 {
    let (keys, until) = (args.keys, env.now() + Duration::from_secs(args.seconds));
    let count = Rc::new(Cell::new(0_u64));
    let counted = Rc::clone(&count);
    side_by_side(env, args.readers, move |env: GlommioEnv| {
        let (runner, count) = (runner.clone(), Rc::clone(&counted));
        async move {
            while env.now() < until {
                let query = Query::Get { key: key(env.random() % keys) };
                let request = Request::Query { query, consistency: Consistency::Linearizable };
                let answered = runner.call(SHARD, request, env.now() + Duration::from_secs(10)).await;
                let body = answered.map(|answered| answered.body);
                assert!(matches!(body, Ok(Body::Query(QueryAnswer::Get(Some(_))))), "{body:?}");
                count.set(count.get() + 1);
            }
        }
    })
    .await;
    count.get() as f64 / args.seconds.max(1) as f64
}

/// Runs so many tasks of a kind to their ends.
async fn side_by_side<F>(env: &GlommioEnv, tasks: u64, make: impl Fn(GlommioEnv) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let ends = (0..tasks).map(|_| {
        let (sender, receiver) = answer();
        let task = make(env.clone());
        env.spawn(async move {
            task.await;
            sender.send(());
        });
        receiver
    });
    for end in ends.collect::<Vec<_>>() {
        assert!(end.await.is_some(), "a task ended early");
    }
}
