//! Measures a disk as the log uses it: durable writes of whole blocks, over blocks that were written before;
//! and how evenly a CPU runs, by the same work again and again.
//!
//! Invariants:
//! - One file is written, new, of [`SCRATCH_BYTES`]; whoever named it removes it.
//! - It takes twice the time that it is given at most, and the writes that are under way then; what there was
//!   no time for is left out.

use std::cell::{Cell as StdCell, RefCell};
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::signal::Signal;
use distribkv::env::{Env, File, Instant, OpenMode};
use distribkv::tune::disk::{Cell, DEPTHS, Disk, SIZES};
use distribkv::tune::pace::{Pace, SLOT_US};

/// The size of the scratch file: a region for each of the most writers, as large as the largest write.
pub const SCRATCH_BYTES: u64 = DEPTHS[DEPTHS.len() - 1] as u64 * LARGEST;
/// Multiplications between two looks at the clock, each of which waits for the one before: some microseconds.
const ROUND_STEPS: u64 = 2000;
const LARGEST: u64 = SIZES[SIZES.len() - 1] as u64;

/// Measures with this scratch file, in about this time.
pub fn disk(scratch: &Path, time: Duration) -> io::Result<Disk> {
    let scratch = scratch.to_path_buf();
    let options = ExecutorOptions::new("tune-disk", CorePlacement::Anywhere, 1);
    let core =
        start_executor(options, move || async move { measure(GlommioEnv::new()?, scratch, time).await });
    let core = core.map_err(|error| io::Error::other(error.to_string()))?;
    core.join().ok_or_else(|| io::Error::other("the measuring ended early"))?
}

/// Works for this time on one CPU, whichever the kernel gives, and counts what is done in each slot of it.
pub fn pace(time: Duration) -> io::Result<Pace> {
    let options = ExecutorOptions::new("tune-pace", CorePlacement::Anywhere, 1);
    let core = start_executor(options, move || async move { Ok(work(&GlommioEnv::new()?, time)) });
    let core = core.map_err(|error| io::Error::other(error.to_string()))?;
    core.join().ok_or_else(|| io::Error::other("the measuring ended early"))?
}

/// The work: rounds of some microseconds each, between looks at the clock.
fn work<E: Env>(env: &E, time: Duration) -> Pace {
    let slots = time.as_micros() / u128::from(SLOT_US);
    let mut pace = Pace { slots: vec![0; usize::try_from(slots).expect("it is a minute at most")] };
    let began = env.now();
    loop {
        let slot = env.now().since(began).as_micros() / u128::from(SLOT_US);
        let Some(done) = usize::try_from(slot).ok().and_then(|slot| pace.slots.get_mut(slot)) else {
            return pace;
        };
        *done += 1;
        let sum = (0..ROUND_STEPS).fold(1_u64, |sum, step| black_box(sum).wrapping_mul(step | 1));
        black_box(sum);
    }
}

async fn measure<E: Env>(env: E, scratch: PathBuf, time: Duration) -> io::Result<Disk> {
    let file = env.open(&scratch, OpenMode::CreateDurable).await?;
    file.allocate(SCRATCH_BYTES).await?;
    let file = Rc::new(file);
    let began = env.now();
    let all = Rc::new(noise(&env, LARGEST as usize));
    for at in 0..SCRATCH_BYTES / LARGEST {
        file.write_at(Rc::clone(&all), at * LARGEST).await?;
    }
    let writing = env.now().since(began);
    // A quarter for what one client waits for; the others share the rest.
    let others = u32::try_from(SIZES.len() * DEPTHS.len() - 1).expect("they are few");
    let limit = env.now() + time.max(writing) * 2;
    let mut disk = Disk::default();
    for depth in DEPTHS {
        for bytes in SIZES {
            let is_alone = (bytes, depth) == (SIZES[0], DEPTHS[0]);
            let share = if is_alone { time / 4 } else { time * 3 / 4 / others };
            if env.now() < limit {
                disk.cells.push(measure_cell(&env, &file, (bytes, depth), share).await?);
            }
        }
    }
    let file = Rc::into_inner(file).ok_or_else(|| io::Error::other("a writer is still at it"))?;
    file.close().await?;
    Ok(disk)
}

/// Bytes that no device makes less of.
fn noise<E: Env>(env: &E, len: usize) -> E::Buf {
    let mut buf = env.buf(len);
    for word in buf.as_mut().chunks_exact_mut(8) {
        word.copy_from_slice(&env.random().to_le_bytes());
    }
    buf
}

/// The writers of one cell.
struct Writers<F> {
    file: Rc<F>,
    until: Instant,
    running: StdCell<u32>,
    writes_us: RefCell<Vec<u64>>,
    failed: RefCell<Option<io::Error>>,
    all_done: Signal,
}

/// Writes of one size, so many at a time, each in a region of its own from its begin to its end and again.
async fn measure_cell<E: Env>(
    env: &E,
    file: &Rc<E::File>,
    (bytes, depth): (u32, u32),
    time: Duration,
) -> io::Result<Cell> {
    let began = env.now();
    let writers = Rc::new(Writers {
        file: Rc::clone(file),
        until: began + time,
        running: StdCell::new(depth),
        writes_us: RefCell::default(),
        failed: RefCell::default(),
        all_done: Signal::default(),
    });
    for writer in 0..u64::from(depth) {
        let region = writer * LARGEST;
        env.spawn(write(env.clone(), Rc::clone(&writers), bytes, region));
    }
    while writers.running.get() > 0 {
        writers.all_done.wait().await;
    }
    let elapsed = env.now().since(began);
    if let Some(error) = writers.failed.take() {
        return Err(error);
    }
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    Ok(Cell::of(bytes, depth, elapsed_us, writers.writes_us.take()))
}

async fn write<E: Env>(env: E, writers: Rc<Writers<E::File>>, bytes: u32, region: u64) {
    let buf = Rc::new(noise(&env, bytes as usize));
    let mut at = 0;
    loop {
        let began = env.now();
        if let Err(error) = writers.file.write_at(Rc::clone(&buf), region + at).await {
            writers.failed.replace(Some(error));
            break;
        }
        let ended = env.now();
        let us = u64::try_from(ended.since(began).as_micros()).unwrap_or(u64::MAX);
        writers.writes_us.borrow_mut().push(us);
        if ended >= writers.until || writers.failed.borrow().is_some() {
            break;
        }
        at = (at + u64::from(bytes)) % LARGEST;
    }
    let file_is_let_go = writers.running.get() - 1;
    writers.running.set(file_is_let_go);
    writers.all_done.raise();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_in_every_slot_that_a_cpu_was_there_for() {
        let pace = pace(Duration::from_millis(100)).expect("an executor can be started");
        assert_eq!(pace.slots.len(), 10);
        assert!(pace.slots.iter().any(|&done| done > 0), "{pace:?}");
    }

    #[test]
    fn every_cell_is_measured_and_only_the_scratch_file_is_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let scratch = dir.path().join("scratch");
        let disk = disk(&scratch, Duration::from_millis(60)).expect("the disk takes it");
        assert!(disk.alone().is_some_and(|cell| cell.p50_us <= cell.p99_us && cell.rate() > 0));
        let names: Vec<_> = std::fs::read_dir(dir.path()).expect("it is there").flatten().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(std::fs::metadata(&scratch).expect("it is there").len(), SCRATCH_BYTES);
    }

    #[test]
    fn a_scratch_file_that_is_there_is_not_touched() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let scratch = dir.path().join("scratch");
        std::fs::write(&scratch, "mine").expect("it is new");
        let error = disk(&scratch, Duration::from_millis(10)).expect_err("it is somebody's");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&scratch).expect("it is there"), "mine");
    }
}
