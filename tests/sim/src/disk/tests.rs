//! Tests of the disk: what survives which crash, faults, stalls, and the enumeration of both.

use std::collections::BTreeSet;

use std::path::PathBuf;

use distribkv::env::{Env, File, OpenMode};
use distribkv::ids::CoreId;

use super::*;
use crate::env::{Machine, SimEnv, SimFile};
use crate::executor::{Order, Stop, World, WorldConfig};
use crate::random::{Exhausted, exhaust};

const NODE: NodeId = NodeId(1);
const LONG: Duration = Duration::from_secs(10);

/// A machine with a directory `/d`, and its world.
struct Bench {
    world: World,
    machine: Machine,
}

impl Bench {
    fn new(choices: Option<&Choices>, config: DiskConfig) -> Self {
        let world = World::new(WorldConfig { order: Order::Fifo, ..WorldConfig::seeded(5) });
        let machine = match choices {
            Some(choices) => Machine::with_choices(&world, NODE, config, choices.clone()),
            None => Machine::new(&world, NODE, config),
        };
        machine.disk().prepare_dir(Path::new("/d"));
        Self { world, machine }
    }

    /// Few enough choices to enumerate: a block tears as a whole.
    fn scripted(choices: &Choices) -> Self {
        let latencies = Latencies::exactly(100);
        Self::new(Some(choices), DiskConfig { tear_sectors: 8, latencies, ..DiskConfig::default() })
    }

    /// Boots where the node is down, and runs a task to its end.
    fn run<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        task: impl FnOnce(SimEnv) -> F,
    ) -> Result<T, Stop> {
        let group = self.world.group_of(NODE).unwrap_or_else(|| self.machine.boot());
        let env = self.machine.env(CoreId(0));
        self.world.run(group, LONG, task(env))
    }

    /// What each file of the directory begins with, block by block: `a1 b-` is a's blocks 1 and b's of zeros.
    fn files(&self) -> String {
        let files = self.machine.disk().files(Path::new("/d"));
        let mut words = Vec::new();
        for (name, bytes) in files {
            let blocks: String = bytes.chunks(BLOCK_BYTES).map(block_text).collect();
            words.push(name + &blocks);
        }
        words.join(" ")
    }
}

fn block_text(block: &[u8]) -> String {
    let kinds: BTreeSet<u8> = block.iter().copied().collect();
    match kinds.into_iter().collect::<Vec<_>>()[..] {
        [0] => "-".to_string(),
        [byte] => byte.to_string(),
        _ => "?".to_string(),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

/// Writes blocks full of a byte.
async fn fill(env: &SimEnv, file: &SimFile, block: u64, byte: u8) -> io::Result<()> {
    let mut buf = env.buf(BLOCK_BYTES);
    buf.as_mut().fill(byte);
    file.write_at(Rc::new(buf), block * BLOCK_BYTES as u64).await
}

/// A durable file in a durable directory, of two blocks of ones.
async fn begin(env: &SimEnv, name: &str) -> io::Result<SimFile> {
    let file = env.open(&path(name), OpenMode::CreateDurable).await?;
    fill(env, &file, 0, 1).await?;
    fill(env, &file, 1, 1).await?;
    env.sync_dir(Path::new("/d")).await?;
    Ok(file)
}

/// Everything that is left after a task and a crash, over all choices.
fn left<F: Future<Output = io::Result<()>> + 'static>(
    crash: Crash,
    task: impl Fn(SimEnv) -> F,
) -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    let ended = exhaust(100_000, |choices| {
        let bench = Bench::scripted(choices);
        let done = bench.run(&task);
        assert!(matches!(done, Ok(Ok(()))), "{done:?}");
        bench.machine.crash(crash);
        bench.world.run_for(LONG);
        left.insert(bench.files());
    });
    assert!(matches!(ended, Exhausted::All(_)), "{ended:?}");
    left
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_string()).collect()
}

#[test]
fn durable_writes_survive_a_power_cut() {
    let seen = left(Crash::Power, async |env: SimEnv| {
        let file = begin(&env, "a").await?;
        fill(&env, &file, 1, 2).await?;
        fill(&env, &file, 2, 3).await?;
        file.close().await
    });
    assert_eq!(seen, set(&["a123"]));
}

#[test]
fn cached_writes_are_kept_or_lost_block_by_block_and_length_by_length() {
    let task = async |env: SimEnv| {
        let file = env.open(&path("a"), OpenMode::Create).await?;
        fill(&env, &file, 0, 1).await?;
        file.sync().await?;
        env.sync_dir(Path::new("/d")).await?;
        fill(&env, &file, 0, 2).await?;
        fill(&env, &file, 0, 3).await?;
        fill(&env, &file, 1, 4).await
    };
    assert_eq!(left(Crash::Power, task), set(&["a1", "a2", "a3", "a1-", "a2-", "a3-", "a14", "a24", "a34"]));
    assert_eq!(left(Crash::Process, task), set(&["a34"]));
}

#[test]
fn sectors_of_a_block_tear_apart() {
    let mut seen = BTreeSet::new();
    exhaust(1000, |choices| {
        let bench = Bench::new(Some(choices), DiskConfig::default());
        let done = bench.run(async |env: SimEnv| {
            let file = begin(&env, "a").await?;
            drop(file);
            let file = env.open(&path("b"), OpenMode::Create).await?;
            fill(&env, &file, 0, 1).await?;
            file.sync().await?;
            env.sync_dir(Path::new("/d")).await?;
            fill(&env, &file, 0, 2).await
        });
        assert!(matches!(done, Ok(Ok(()))), "{done:?}");
        bench.machine.crash(Crash::Power);
        let files = bench.machine.disk().files(Path::new("/d"));
        let sectors: Vec<u8> = files[1].1.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        assert!(seen.insert(sectors.clone()), "{sectors:?} twice");
    });
    assert_eq!(seen.len(), 256, "eight sectors are each kept or lost");
}

#[test]
fn a_torn_sector_may_be_garbage() {
    let mut seen = BTreeSet::new();
    exhaust(1000, |choices| {
        let config = DiskConfig { tearing: Tearing::Garbage, tear_sectors: 8, ..DiskConfig::default() };
        let bench = Bench::new(Some(choices), config);
        let done = bench.run(async |env: SimEnv| {
            let file = env.open(&path("a"), OpenMode::Create).await?;
            env.sync_dir(Path::new("/d")).await?;
            fill(&env, &file, 0, 2).await
        });
        assert!(matches!(done, Ok(Ok(()))), "{done:?}");
        bench.machine.crash(Crash::Power);
        seen.insert(bench.files());
    });
    assert_eq!(seen, set(&["a", "a-", "a2", "a?"]));
}

#[test]
fn names_are_durable_after_a_sync_of_their_directory_alone() {
    let unsynced = async |env: SimEnv| {
        let file = env.open(&path("a"), OpenMode::CreateDurable).await?;
        fill(&env, &file, 0, 1).await
    };
    assert_eq!(left(Crash::Power, unsynced), set(&["", "a1"]));
    assert_eq!(left(Crash::Process, unsynced), set(&["a1"]));

    let renamed = async |env: SimEnv| {
        drop(begin(&env, "a").await?);
        let file = env.open(&path("t"), OpenMode::CreateDurable).await?;
        fill(&env, &file, 0, 2).await?;
        env.rename(&path("t"), &path("a")).await
    };
    assert_eq!(left(Crash::Power, renamed), set(&["a11", "a11 t2", "a2"]));

    let removed = async |env: SimEnv| {
        drop(begin(&env, "a").await?);
        drop(begin(&env, "b").await?);
        env.remove(&path("a")).await?;
        env.sync_dir(Path::new("/d")).await?;
        env.remove(&path("b")).await
    };
    assert_eq!(left(Crash::Power, removed), set(&["", "b11"]));
}

#[test]
fn a_directory_is_only_as_durable_as_its_own_name() {
    let task = async |env: SimEnv| {
        env.create_dir(Path::new("/d/e")).await?;
        let file = env.open(Path::new("/d/e/a"), OpenMode::CreateDurable).await?;
        fill(&env, &file, 0, 1).await?;
        env.sync_dir(Path::new("/d/e")).await
    };
    let mut seen = BTreeSet::new();
    exhaust(100, |choices| {
        let bench = Bench::scripted(choices);
        let done = bench.run(task);
        assert!(matches!(done, Ok(Ok(()))), "{done:?}");
        bench.machine.crash(Crash::Power);
        let names = bench.run(async |env: SimEnv| env.list(Path::new("/d/e")).await.ok());
        seen.insert(names.ok().flatten());
    });
    assert_eq!(seen, BTreeSet::from([None, Some(vec!["a".to_string()])]));
}

#[test]
fn a_sync_does_not_cover_what_completes_after_it_was_called() {
    let task = async |env: SimEnv| {
        let file = Rc::new(env.open(&path("a"), OpenMode::Create).await?);
        env.sync_dir(Path::new("/d")).await?;
        fill(&env, &file, 0, 1).await?;
        // Submitted at the same time, of the same latency: the write is still in flight when the sync is
        // called.
        let (writer, writing) = (env.clone(), Rc::clone(&file));
        env.spawn(async move {
            let written = fill(&writer, &writing, 1, 2).await;
            assert!(written.is_ok(), "{written:?}");
        });
        env.sleep(Duration::ZERO).await;
        file.sync().await?;
        env.sleep(Duration::from_millis(1)).await;
        Ok(())
    };
    assert_eq!(left(Crash::Power, task), set(&["a1", "a1-", "a12"]));
}

/// Crashes at every point of a task, and collects what is left for each.
fn left_at_points<F: Future<Output = io::Result<()>> + 'static>(
    crash: Crash,
    task: impl Fn(SimEnv) -> F,
) -> Vec<BTreeSet<String>> {
    let mut of_points = Vec::new();
    loop {
        let (mut seen, mut crashed) = (BTreeSet::new(), false);
        let point = of_points.len() as u64 + 1;
        exhaust(100_000, |choices| {
            let bench = Bench::scripted(choices);
            bench.machine.disk().crash_at(point, crash);
            crashed = bench.run(&task).is_err();
            bench.world.run_for(LONG);
            seen.insert(bench.files());
        });
        if !crashed {
            return of_points;
        }
        of_points.push(seen);
    }
}

async fn overwrite(env: SimEnv) -> io::Result<()> {
    let file = begin(&env, "a").await?;
    fill(&env, &file, 1, 2).await
}

#[test]
fn every_await_point_is_a_place_to_crash() {
    let points = left_at_points(Crash::Power, overwrite);
    let expected: [&[&str]; 10] = [
        // The file is created: in flight, then done.
        &["", "a"],
        &["", "a"],
        // The first block, the second.
        &["", "a", "a-", "a1"],
        &["", "a1"],
        &["", "a1", "a1-", "a11"],
        &["", "a11"],
        // The directory is synced.
        &["", "a11"],
        &["a11"],
        // The second block, again.
        &["a11", "a12"],
        &["a12"],
    ];
    assert_eq!(points, expected.map(set));
}

#[test]
fn a_killed_process_leaves_writes_that_land_while_the_next_one_starts() {
    let (mut early, mut late) = (BTreeSet::new(), BTreeSet::new());
    exhaust(100_000, |choices| {
        let bench = Bench::scripted(choices);
        bench.machine.disk().crash_at(9, Crash::Process);
        assert!(bench.run(overwrite).is_err(), "the ninth point is within the last write");
        early.insert(bench.files());
        let next = bench.run(async |env: SimEnv| {
            env.sleep(Duration::from_millis(8)).await;
        });
        assert!(next.is_ok(), "{next:?}");
        late.insert(bench.files());
        bench.machine.crash(Crash::Power);
        // What landed late was nobody's: a power cut may lose it again.
        assert!(set(&["a11", "a12"]).contains(&bench.files()), "{}", bench.files());
    });
    assert_eq!(early, set(&["a11", "a12"]));
    assert_eq!(late, set(&["a11", "a12"]));
}

#[test]
fn what_landed_late_is_not_durable_until_it_is_synced() {
    for synced in [Kind::Sync, Kind::Close] {
        let mut seen = BTreeSet::new();
        exhaust(100_000, |choices| {
            let bench = Bench::scripted(choices);
            bench.machine.disk().crash_at(9, Crash::Process);
            assert!(bench.run(overwrite).is_err(), "the ninth point is within the last write");
            let found = bench.run(async move |env: SimEnv| {
                env.sleep(Duration::from_millis(8)).await;
                let file = env.open(&path("a"), OpenMode::Durable).await?;
                let found = file.read_at(BLOCK_BYTES as u64, 1).await?;
                match synced {
                    Kind::Sync => file.sync().await?,
                    _ => file.close().await?,
                }
                io::Result::Ok(found[0])
            });
            bench.machine.crash(Crash::Power);
            let found = found.map(|found| found.unwrap_or(0)).unwrap_or(0);
            seen.insert((found, bench.files()));
        });
        let kept = BTreeSet::from([(1, "a11".to_string()), (2, "a12".to_string())]);
        match synced {
            Kind::Sync => assert_eq!(seen, kept),
            _ => assert!(seen.contains(&(2, "a11".to_string())), "{seen:?}"),
        }
    }
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn chosen_operations_fail() {
    let bench = Bench::new(None, DiskConfig::default());
    bench.machine.disk().fail(Fault::Once { kind: Kind::Write, after: 2 });
    bench.machine.disk().fail(Fault::Once { kind: Kind::Read, after: 0 });
    let seen = bench.run(async |env: SimEnv| {
        let file = begin(&env, "a").await?;
        let third = errno(fill(&env, &file, 1, 2).await);
        let fourth = errno(fill(&env, &file, 1, 2).await);
        let reads = [errno(file.read_at(0, 8).await), errno(file.read_at(0, 8).await)];
        let names = [
            errno(env.open(&path("a"), OpenMode::Create).await),
            errno(env.open(&path("b"), OpenMode::Read).await),
            errno(env.rename(&path("b"), &path("a")).await),
            errno(env.rename(&path("a"), Path::new("/a")).await),
            errno(env.remove(Path::new("/d")).await),
        ];
        io::Result::Ok((third, fourth, reads, names))
    });
    let seen = seen.map(|seen| seen.map_err(|error| error.kind()));
    let names = [Some(EEXIST), Some(ENOENT), Some(ENOENT), Some(EXDEV), Some(EISDIR)];
    assert_eq!(seen, Ok(Ok((Some(EIO), None, [Some(EIO), None], names))));
}

#[test]
fn a_failed_write_leaves_any_part_of_itself() {
    let mut seen = BTreeSet::new();
    exhaust(100, |choices| {
        let bench = Bench::scripted(choices);
        bench.machine.disk().fail(Fault::Once { kind: Kind::Write, after: 2 });
        assert!(matches!(bench.run(overwrite), Ok(Err(_))), "the third write fails");
        seen.insert(bench.files());
    });
    assert_eq!(seen, set(&["a11", "a12"]));
}

#[test]
fn a_failed_sync_is_never_made_good_by_the_next() {
    for (failed_sync, kept) in [(FailedSync::MarksClean, "a"), (FailedSync::KeepsDirty, "a1")] {
        let mut seen = BTreeSet::new();
        exhaust(100, |choices| {
            let bench = Bench::scripted(choices);
            bench.machine.disk().configure(|config| config.failed_sync = failed_sync);
            bench.machine.disk().fail(Fault::Once { kind: Kind::Sync, after: 0 });
            let done = bench.run(async |env: SimEnv| {
                let file = env.open(&path("a"), OpenMode::Create).await?;
                env.sync_dir(Path::new("/d")).await?;
                fill(&env, &file, 0, 1).await?;
                let first = file.sync().await;
                assert!(first.is_err(), "the first sync fails");
                file.sync().await
            });
            assert!(matches!(done, Ok(Ok(()))), "{done:?}");
            bench.machine.crash(Crash::Power);
            seen.insert(bench.files());
        });
        assert!(seen.iter().all(|files| files.starts_with(kept)), "{failed_sync:?} leaves {seen:?}");
        assert_eq!(seen.contains("a-"), failed_sync == FailedSync::MarksClean, "{seen:?}");
    }
}

#[test]
fn a_full_disk_refuses_what_grows_and_takes_what_does_not() {
    let config = DiskConfig { capacity_bytes: 3 * BLOCK_BYTES as u64, ..DiskConfig::default() };
    let bench = Bench::new(None, config);
    let seen = bench.run(async |env: SimEnv| {
        let file = begin(&env, "a").await?;
        let other = env.open(&path("b"), OpenMode::Create).await?;
        other.allocate(BLOCK_BYTES as u64).await?;
        let full = [errno(fill(&env, &file, 2, 2).await), errno(other.allocate(1 << 20).await)];
        fill(&env, &file, 1, 3).await?;
        fill(&env, &other, 0, 3).await?;
        drop(other);
        env.remove(&path("b")).await?;
        env.sync_dir(Path::new("/d")).await?;
        fill(&env, &file, 2, 4).await?;
        io::Result::Ok(full)
    });
    assert!(matches!(seen, Ok(Ok([Some(ENOSPC), Some(ENOSPC)]))), "{seen:?}");
    assert_eq!(bench.files(), "a134");
}

#[test]
fn a_stalled_disk_hangs_until_it_is_released() {
    let bench = Bench::new(None, DiskConfig::default());
    let disk = bench.machine.disk().clone();
    let began = bench.run(async |env: SimEnv| begin(&env, "a").await.map(drop));
    assert!(matches!(began, Ok(Ok(()))), "{began:?}");
    disk.stall(Stall::Writes);
    let done = Rc::new(RefCell::new(Vec::new()));
    let group = bench.world.group_of(NODE);
    for kind in ["write", "read"] {
        let (env, done) = (bench.machine.env(CoreId(0)), Rc::clone(&done));
        env.clone().spawn(async move {
            let mode = if kind == "read" { OpenMode::Read } else { OpenMode::Durable };
            // Opening only looks up a name, yet it hangs with the rest.
            let Ok(file) = env.open(&path("a"), mode).await else { return };
            let result = match kind {
                "read" => file.read_at(0, 1).await.map(drop),
                _ => fill(&env, &file, 0, 2).await,
            };
            done.borrow_mut().push((kind, result.is_ok()));
        });
    }
    assert_eq!(bench.world.run_for(LONG), Stop::Quiescent);
    assert_eq!(*done.borrow(), []);
    disk.stall(Stall::Nothing);
    bench.world.run_for(LONG);
    assert_eq!(done.borrow().len(), 2, "both ended: {:?}", done.borrow());
    assert_eq!((bench.files().as_str(), bench.world.group_of(NODE)), ("a21", group));
}

#[test]
fn bits_rot_wherever_they_are() {
    let bench = Bench::new(None, DiskConfig::default());
    let began = bench.run(async |env: SimEnv| begin(&env, "a").await.map(drop));
    assert!(matches!(began, Ok(Ok(()))), "{began:?}");
    bench.machine.disk().flip_bit(&path("a"), 4097, 3);
    let files = bench.machine.disk().files(Path::new("/d"));
    assert_eq!(files[0].1[4095..4099], [1, 1, 9, 1]);
    bench.machine.crash(Crash::Power);
    assert_eq!(bench.machine.disk().files(Path::new("/d")), files);
}

/// What a file of two blocks of ones holds after its second is overwritten, and its third written, astray.
fn astray(stray: Stray) -> (String, u64) {
    let bench = Bench::new(None, DiskConfig::default());
    let disk = bench.machine.disk().clone();
    let done = bench.run(async move |env: SimEnv| {
        let file = begin(&env, "a").await?;
        disk.fail(Fault::Astray { stray, after: 1 });
        fill(&env, &file, 2, 2).await?;
        fill(&env, &file, 1, 3).await?;
        fill(&env, &file, 0, 4).await
    });
    assert!(matches!(done, Ok(Ok(()))), "all of them are acknowledged: {done:?}");
    bench.machine.crash(Crash::Power);
    (bench.files(), bench.machine.disk().strays())
}

#[test]
fn a_stray_write_is_acknowledged_and_is_not_where_it_should_be() {
    assert_eq!(astray(Stray::Lost), ("a412".to_string(), 1));
    assert_eq!(astray(Stray::Elsewhere(0)), ("a413".to_string(), 1), "in the next place");
    assert_eq!(
        astray(Stray::Elsewhere(1)),
        ("a412".to_string(), 1),
        "in the one after, and overwritten there"
    );
}

#[test]
fn a_lost_write_leaves_its_file_as_long_as_it_should_be() {
    let bench = Bench::new(None, DiskConfig::default());
    let disk = bench.machine.disk().clone();
    let done = bench.run(async move |env: SimEnv| {
        let file = begin(&env, "a").await?;
        disk.fail(Fault::Astray { stray: Stray::Lost, after: 0 });
        fill(&env, &file, 2, 2).await
    });
    assert!(matches!(done, Ok(Ok(()))), "{done:?}");
    assert_eq!(bench.files(), "a11-");
}

#[test]
fn a_lost_file_is_gone_for_good_but_for_who_has_it_open() {
    let bench = Bench::new(None, DiskConfig::default());
    let disk = bench.machine.disk().clone();
    let read = bench.run(async move |env: SimEnv| {
        let file = begin(&env, "a").await?;
        begin(&env, "b").await?;
        disk.lose_file(&path("a"));
        assert_eq!(errno(env.open(&path("a"), OpenMode::Read).await), Some(ENOENT));
        file.read_at(0, 1).await
    });
    assert_eq!(read.map(Result::ok), Ok(Some(vec![1])));
    bench.machine.crash(Crash::Power);
    assert_eq!(bench.files(), "b11");
}

#[test]
fn a_sector_rots_as_a_whole() {
    let bench = Bench::new(None, DiskConfig::default());
    let done = bench.run(async move |env: SimEnv| begin(&env, "a").await.map(|_| ()));
    assert!(matches!(done, Ok(Ok(()))), "{done:?}");
    bench.machine.disk().garble(&path("a"), 4096 + 700);
    let files = bench.machine.disk().files(Path::new("/d"));
    let rotten: Vec<usize> = (0..8192).filter(|at| files[0].1[*at] != 1).collect();
    assert_eq!(rotten, (4096 + 512..4096 + 1024).collect::<Vec<_>>());
}

#[test]
fn reads_end_where_the_file_ends() {
    let bench = Bench::new(None, DiskConfig::default());
    let read = bench.run(async |env: SimEnv| {
        let file = begin(&env, "a").await?;
        let reads =
            [file.read_at(8190, 10).await?, file.read_at(510, 4).await?, file.read_at(9000, 1).await?];
        io::Result::Ok((reads, file.len().await?))
    });
    assert!(
        matches!(read, Ok(Ok((ref reads, 8192))) if *reads == [vec![1; 2], vec![1; 4], vec![]]),
        "{read:?}"
    );
}

#[test]
#[should_panic(expected = "is in flight")]
fn two_writes_on_the_same_bytes_are_a_fault() {
    let bench = Bench::new(None, DiskConfig::default());
    let done = bench.run(async |env: SimEnv| {
        let file = Rc::new(begin(&env, "a").await?);
        let (writer, writing) = (env.clone(), Rc::clone(&file));
        env.spawn(async move { drop(fill(&writer, &writing, 1, 2).await) });
        fill(&env, &file, 1, 3).await
    });
    assert!(done.is_err(), "{done:?}");
}

#[test]
#[should_panic(expected = "dropped in flight")]
fn a_write_that_is_dropped_is_a_fault() {
    let bench = Bench::new(None, DiskConfig::default());
    let done = bench.run(async |env: SimEnv| {
        let file = begin(&env, "a").await?;
        let mut write = Box::pin(fill(&env, &file, 1, 2));
        let first = std::future::poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await;
        assert!(first.is_pending(), "a write takes time");
        drop(write);
        Ok(())
    });
    let done: Result<io::Result<()>, Stop> = done;
    assert!(done.is_err(), "{done:?}");
}

/// What a run of a seed leaves, and its trace.
fn seeded(seed: u64) -> (String, u64) {
    let world = World::new(WorldConfig::seeded(seed));
    let machine = Machine::new(&world, NODE, DiskConfig::default());
    machine.disk().prepare_dir(Path::new("/d"));
    let bench = Bench { world, machine };
    let group = bench.machine.boot();
    for name in ["a", "b", "c"] {
        let env = bench.machine.env(CoreId(0));
        env.clone().spawn(async move {
            let Ok(file) = env.open(&path(name), OpenMode::Create).await else { return };
            for block in 0..20 {
                let byte = u8::try_from(env.random() % 9 + 1).unwrap_or(0);
                let written = fill(&env, &file, block, byte).await;
                assert!(written.is_ok(), "{written:?}");
                env.sleep(Duration::from_micros(env.random() % 300)).await;
            }
        });
    }
    bench.world.run_for(Duration::from_millis(4));
    assert!(bench.world.is_alive(group), "nothing crashed it");
    bench.machine.crash(Crash::Power);
    (bench.files(), bench.world.trace().hash())
}

#[test]
fn the_same_seed_leaves_the_same_disk_and_trace() {
    let mut hashes = BTreeSet::new();
    for seed in 0..20 {
        let first = seeded(seed);
        assert_eq!(first, seeded(seed), "seed {seed}");
        hashes.insert(first.1);
    }
    assert_eq!(hashes.len(), 20, "seeds differ");
}

#[test]
fn a_bad_block_is_read_when_it_was_written_again_and_not_before() {
    let bench = Bench::new(None, DiskConfig::default());
    let disk = bench.machine.disk().clone();
    let done = bench.run(|env| async move {
        let file = env.open(&path("a"), OpenMode::CreateDurable).await?;
        for block in 0..3 {
            fill(&env, &file, block, 1).await?;
        }
        disk.spoil_block(&path("a"), BLOCK_BYTES as u64 + 7);
        let block = async |number: usize| file.read_at((number * BLOCK_BYTES) as u64, BLOCK_BYTES).await;
        for bad in [block(1).await, block(1).await, file.read_at(0, 3 * BLOCK_BYTES).await] {
            assert_eq!(bad.map_err(|error| error.raw_os_error()), Err(Some(EIO)));
        }
        assert!(block(0).await.is_ok() && block(2).await.is_ok());
        fill(&env, &file, 1, 2).await?;
        assert_eq!(block(1).await?, vec![2; BLOCK_BYTES]);
        io::Result::Ok(())
    });
    assert!(matches!(done, Ok(Ok(()))), "{done:?}");
}

#[test]
fn a_block_stays_bad_where_what_was_written_to_it_is_lost() {
    let kept = exhaust(8, |choices| {
        let bench = Bench::scripted(choices);
        let disk = bench.machine.disk().clone();
        let done = bench.run(|env| async move {
            let file = env.open(&path("a"), OpenMode::Create).await?;
            fill(&env, &file, 0, 1).await?;
            file.sync().await?;
            env.sync_dir(Path::new("/d")).await?;
            disk.spoil_block(&path("a"), 0);
            fill(&env, &file, 0, 2).await?;
            assert_eq!(file.read_at(0, BLOCK_BYTES).await?, vec![2; BLOCK_BYTES]);
            io::Result::Ok(())
        });
        assert!(matches!(done, Ok(Ok(()))), "{done:?}");
        bench.machine.crash(Crash::Power);
        let read = bench.machine.disk().read_now(&path("a"), 0, 1);
        assert!(read.as_ref().map_or_else(|error| error.raw_os_error() == Some(EIO), |byte| *byte == [2]));
    });
    assert_eq!(kept, Exhausted::All(2));
}
