//! What a core's timers pay for a table that is mapped, beside one whose blocks are read by direct IO.
//!
//! ```text
//! cargo bench --bench page_faults -- --dir /on/the/disk
//! cargo bench --bench page_faults -- --dir /on/the/disk --busy-disk
//! ```
//!
//! One executor runs a timer every 100 microseconds, as a core runs its Raft timers, and a reader that wants
//! a random block of a large file now and again. How late the timers are is what the reader costs everybody
//! else. A page fault stops the thread, and with it the timer; a read through io_uring does not.
//! `--busy-disk` has another thread write and sync large pieces meanwhile, as log and merges do.

#[path = "support/place.rs"]
mod place;

use std::cell::{Cell, RefCell};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::os::map::{Mapping, forget_cached};
use distribkv::env::{Env, File, OpenMode};

/// Measures how late timers are beside page faults, and beside direct reads.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Where the file is made, in a directory of its own that is removed afterwards.
    #[arg(long, default_value = "./data")]
    dir: PathBuf,
    /// The size of the file, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Blocks wanted in a second, at most: the next one is asked for so long after the one before is here.
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// How long each way is measured.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Another thread writes and syncs meanwhile.
    #[arg(long)]
    busy_disk: bool,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

const BLOCK_BYTES: u64 = 16 << 10;
const PAGE_BYTES: u64 = 4096;
const TIMER: Duration = Duration::from_micros(100);
const WRITE_BYTES: usize = 1 << 20;

/// How blocks are read.
enum Way {
    /// Not at all.
    Idle,
    /// From a mapping whose pages are not in memory, but where an earlier touch brought them in.
    Mapped(Mapping),
    /// By direct IO.
    Direct(<GlommioEnv as Env>::File),
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    let own = place::own_dir(&args.dir);
    args.dir = own.path().to_path_buf();
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = args.busy_disk.then(|| {
        let (path, is_over) = (args.dir.join("busy"), Arc::clone(&is_over));
        std::thread::spawn(move || keep_busy(&path, &is_over))
    });
    let code = place::on_executor("bench-faults", move || measure(args));
    is_over.store(true, Ordering::SeqCst);
    writer.map(std::thread::JoinHandle::join);
    code
}

/// Writes 4 MiB and syncs them, again and again.
fn keep_busy(path: &Path, is_over: &AtomicBool) {
    let mut file = std::fs::File::create(path).expect("the file can be made");
    let bytes = vec![1; 4 << 20];
    while !is_over.load(Ordering::SeqCst) {
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&bytes)).expect("the disk takes it");
        file.sync_data().expect("the disk syncs it");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn measure(args: Args) {
    let env = GlommioEnv::new().expect("the kernel has random numbers");
    let path = args.dir.join("table");
    make_file(&env, &path, args.mib).await.expect("the file can be made");
    println!("{:<30} {:>8}  {:>30}  {:>30}", "", "blocks/s", "timer late, us", "block, us");
    println!("{:<30} {:>8}  {:>30}  {:>30}", "", "", "p50 / p99 / p99.9 / max", "p50 / p99 / p99.9 / max");
    one_way(&env, &args, "no reader", Way::Idle).await;
    forget_cached(&path).expect("the kernel forgets");
    let mapped = Mapping::open(&path).expect("the file can be mapped");
    one_way(&env, &args, "mapped, not in memory", Way::Mapped(mapped)).await;
    forget_cached(&path).expect("the kernel forgets");
    let file = env.open(&path, OpenMode::Read).await.expect("the file is there");
    one_way(&env, &args, "direct reads", Way::Direct(file)).await;
    let warm = Mapping::open(&path).expect("the file can be mapped");
    touch_pages(&warm, 0..args.mib << 20);
    one_way(&env, &args, "mapped, all in memory", Way::Mapped(warm)).await;
}

async fn make_file(env: &GlommioEnv, path: &Path, mib: u64) -> std::io::Result<()> {
    let file = env.open(path, OpenMode::Create).await?;
    let buf = Rc::new(env.buf(WRITE_BYTES));
    for at in 0..mib {
        file.write_at(Rc::clone(&buf), at * WRITE_BYTES as u64).await?;
    }
    file.sync().await?;
    file.close().await
}

async fn one_way(env: &GlommioEnv, args: &Args, name: &str, way: Way) {
    let lates = Rc::new(RefCell::new(Vec::new()));
    let is_over = Rc::new(Cell::new(false));
    let (timer, late, over) = (env.clone(), Rc::clone(&lates), Rc::clone(&is_over));
    env.spawn(async move {
        while !over.get() {
            let due = timer.now() + TIMER;
            timer.sleep(TIMER).await;
            late.borrow_mut().push(timer.now().since(due));
        }
    });
    let (began, mut waits) = (env.now(), Vec::new());
    let blocks = (args.mib << 20) / BLOCK_BYTES;
    let gap = Duration::from_micros(1_000_000 / args.rate.max(1));
    while env.now().since(began) < Duration::from_secs(args.seconds) {
        // From the end of the read before: a reader that is late has no backlog, and others have their turn.
        env.sleep(gap).await;
        let (at, asked) = (env.random() % blocks * BLOCK_BYTES, env.now());
        match &way {
            Way::Idle => continue,
            Way::Mapped(mapping) => touch_pages(mapping, at..at + BLOCK_BYTES),
            Way::Direct(file) => {
                let read = file.read_at(at, BLOCK_BYTES as usize).await.expect("the file is there");
                assert_eq!(read.len() as u64, BLOCK_BYTES);
            }
        }
        waits.push(env.now().since(asked));
    }
    is_over.set(true);
    env.sleep(TIMER * 10).await;
    let rate = waits.len() as u64 / args.seconds.max(1);
    println!("{name:<30} {rate:>8}  {:>30}  {:>30}", spread(&mut lates.borrow_mut()), spread(&mut waits));
}

/// Reads a byte of every page of a stretch.
fn touch_pages(mapping: &Mapping, stretch: Range<u64>) {
    for at in stretch.step_by(PAGE_BYTES as usize) {
        std::hint::black_box(mapping.touch(at as usize));
    }
}

/// Of some times their median, quantiles and maximum, in microseconds.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).map_or(0, Duration::as_micros)
    };
    format!("{} / {} / {} / {}", at(0.5), at(0.99), at(0.999), at(1.0))
}
