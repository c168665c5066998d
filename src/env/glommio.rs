//! Production's [`Env`]: one glommio executor, its io_uring and its blocking thread.
//!
//! Files are glommio's `DmaFile`, opened with `O_DIRECT`, and with `O_DSYNC` where the mode is durable, so
//! that a durable write is one submission. Names (list, create, rename, remove, sync of a directory) go to
//! the executor's blocking thread: they are rare, and the kernel has no asynchronous way for most of them.
//!
//! Lives on every core; owned by the executor's thread; nothing here is shared between cores but the clock's
//! origin.
//!
//! Invariants:
//! - `write_at` hands the whole buffer to the kernel in one request; fewer bytes back is
//!   [`io::ErrorKind::WriteZero`].
//! - An error carries the kernel's own number (`raw_os_error`), so that a full disk can be told from a broken
//!   one.
//! - A buffer is zeroed when it is given out.
//!
//! - A sleep that is polled again and again costs one entry, and one that is dropped none.
//!
//! Sleeps are kept here, with one glommio timer for the earliest of them: glommio's own `Timer` adds an entry
//! with every poll that finds it waiting, forgets the ones before, and every turn of its reactor looks at all
//! of them.
//!
//! It deliberately does not retry, does not time out and does not fall back to buffered writes by itself: a
//! file system that refuses `O_DIRECT` is refused with a line that says so. The one exception is tmpfs, which
//! has nothing to bypass: its files are opened without the flag, and nothing on it is durable anyway.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::glommio::GlommioError;
use ::glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use super::signal::Signal;
use super::{BLOCK_BYTES, Env, File, Instant, OpenMode, removal};

/// The largest single request that a read is split into.
const READ_BYTES_MAX: usize = 1 << 20;

/// The point that every core's clock counts from, so that two cores of a process agree.
static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();

/// The environment of one glommio executor. Made and used on the executor's own thread.
#[derive(Clone)]
pub struct GlommioEnv {
    random: Rc<Cell<u64>>,
    sleeps: Rc<Sleeps>,
}

impl GlommioEnv {
    /// The environment of the executor that runs on this thread.
    ///
    /// # Errors
    ///
    /// Where the kernel's random numbers cannot be read.
    pub fn new() -> io::Result<Self> {
        let mut seed = [0; 8];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
        ORIGIN.get_or_init(std::time::Instant::now);
        let sleeps = Rc::new(Sleeps::default());
        ::glommio::spawn_local(wake_sleepers(Rc::clone(&sleeps))).detach();
        Ok(Self { random: Rc::new(Cell::new(u64::from_le_bytes(seed))), sleeps })
    }
}

impl Env for GlommioEnv {
    type Buf = DmaBuffer;
    type File = GlommioFile;

    fn now(&self) -> Instant {
        now()
    }

    /// SplitMix64 over a seed from the kernel: distinct on every core and in every process.
    fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let number = self.sleeps.next_number.get();
        self.sleeps.next_number.set(number + 1);
        Sleep { sleeps: Rc::clone(&self.sleeps), due: now() + duration, number, is_waiting: false }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        ::glommio::spawn_local(task).detach();
    }

    fn buf(&self, len: usize) -> DmaBuffer {
        assert!(len > 0 && len.is_multiple_of(BLOCK_BYTES), "a buffer of {len} bytes is not a row of blocks");
        let mut buffer = ::glommio::allocate_dma_buffer(len);
        buffer.as_bytes_mut().fill(0);
        buffer
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<GlommioFile> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o640);
        match mode {
            OpenMode::Read => {}
            OpenMode::Create | OpenMode::CreateDurable => {
                options.write(true).create_new(true);
            }
            OpenMode::Durable => {
                options.write(true);
            }
        }
        if mode.is_durable() {
            options.custom_flags(libc::O_DSYNC);
        }
        let file = options.dma_open(path).await.map_err(|error| name_direct_io(cause(error), path))?;
        Ok(GlommioFile { file })
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = dir.to_path_buf();
        blocking(move || list_names(&dir)).await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_path_buf();
        blocking(move || std::fs::create_dir_all(dir)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        blocking(move || std::fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        blocking(move || removal::remove(&path)).await
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_path_buf();
        blocking(move || std::fs::File::open(dir)?.sync_all()).await
    }

    async fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let dir = dir.to_path_buf();
        blocking(move || super::os::disk::free_bytes(&dir)).await
    }
}

fn now() -> Instant {
    let micros = ORIGIN.get_or_init(std::time::Instant::now).elapsed().as_micros();
    Instant(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The sleeps of one executor that wait, the earliest first.
#[derive(Default)]
struct Sleeps {
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next_number: Cell<u64>,
    /// There is an earlier one than the timer is set to.
    earliest_changed: Signal,
}

impl Sleeps {
    fn earliest(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((due, _), _)| *due)
    }

    /// Wakes the sleeps that are due.
    fn wake_due(&self) {
        let now = now();
        while self.earliest().is_some_and(|due| due <= now) {
            let first = self.waiting.borrow_mut().pop_first();
            if let Some((_, waker)) = first {
                waker.wake();
            }
        }
    }
}

/// Wakes each sleep when it is due, for as long as the executor runs.
async fn wake_sleepers(sleeps: Rc<Sleeps>) {
    loop {
        let Some(due) = sleeps.earliest() else {
            sleeps.earliest_changed.wait().await;
            continue;
        };
        // Polled once and made anew, whatever woke the task: a second poll would leave an entry behind.
        let mut timer = pin!(::glommio::timer::sleep(due.since(now())));
        let mut changed = pin!(sleeps.earliest_changed.wait());
        let mut is_set = false;
        poll_fn(|context| {
            let is_over = is_set
                || changed.as_mut().poll(context).is_ready()
                || timer.as_mut().poll(context).is_ready();
            is_set = true;
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        sleeps.wake_due();
    }
}

/// One sleep.
struct Sleep {
    sleeps: Rc<Sleeps>,
    due: Instant,
    number: u64,
    is_waiting: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.due <= now() {
            return Poll::Ready(());
        }
        let key = (self.due, self.number);
        let is_earliest = self.sleeps.earliest().is_none_or(|earliest| self.due < earliest);
        let mut waiting = self.sleeps.waiting.borrow_mut();
        match waiting.get_mut(&key) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                waiting.insert(key, context.waker().clone());
            }
        }
        drop(waiting);
        self.is_waiting = true;
        if is_earliest {
            self.sleeps.earliest_changed.raise();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.is_waiting {
            self.sleeps.waiting.borrow_mut().remove(&(self.due, self.number));
        }
    }
}

/// An open file of a [`GlommioEnv`].
pub struct GlommioFile {
    file: DmaFile,
}

impl File for GlommioFile {
    type Buf = DmaBuffer;

    async fn write_at(&self, buf: Rc<DmaBuffer>, pos: u64) -> io::Result<()> {
        let len = buf.len();
        assert!(len > 0 && len.is_multiple_of(BLOCK_BYTES), "a write of {len} bytes is not a row of blocks");
        assert!(pos.is_multiple_of(BLOCK_BYTES as u64), "a write at {pos} does not start on a block");
        let written = self.file.write_rc_at(buf, pos).await.map_err(cause)?;
        if written == len {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("a write of {len} bytes at {pos} took {written}"),
        ))
    }

    /// Reads whole blocks around what is asked for, and again where the kernel gave less than it could have:
    /// glommio's own unaligned read miscounts at the end of a file.
    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let wanted_pos = pos + bytes.len() as u64;
            let skipped = (wanted_pos % BLOCK_BYTES as u64) as usize;
            let wanted = (len - bytes.len()).min(READ_BYTES_MAX - BLOCK_BYTES);
            let span = (skipped + wanted).next_multiple_of(BLOCK_BYTES);
            let read = self.file.read_at_aligned(wanted_pos - skipped as u64, span).await.map_err(cause)?;
            let part = read.get(skipped..).unwrap_or_default();
            let part = &part[..part.len().min(wanted)];
            if part.is_empty() {
                break;
            }
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(cause)
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.pre_allocate(len, false).await.map_err(cause)
    }

    async fn len(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(cause)
    }

    async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(cause)
    }
}

/// The names in a directory, sorted; a name that is not UTF-8 is none of ours and is an error, not skipped.
fn list_names(dir: &PathBuf) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().into_string().map_err(|name| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {name:?} is not UTF-8", dir.display()))
        })?;
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// Runs what blocks on the executor's blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    ::glommio::executor().spawn_blocking(work).await
}

/// The kernel's own error, where there is one: glommio's wrapping keeps the kind but loses the number.
fn cause(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

/// Says what a refused `O_DIRECT` means to whoever chose the directory.
fn name_direct_io(error: io::Error, path: &Path) -> io::Error {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return error;
    }
    let text = format!(
        "{}: this file system refuses direct IO (O_DIRECT); put the data directory on ext4 or xfs",
        path.display()
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::executor::{CorePlacement, ExecutorError, ExecutorOptions, start_executor};

    fn run<T: Send + 'static, F: Future<Output = io::Result<T>> + 'static>(
        test: impl FnOnce(GlommioEnv, tempfile::TempDir) -> F + Send + 'static,
        dir: tempfile::TempDir,
    ) -> T {
        let options = ExecutorOptions::new("env-test", CorePlacement::Anywhere, 1);
        let core = start_executor(options, move || async move { test(GlommioEnv::new()?, dir).await })
            .expect("io_uring works where the tests run");
        core.join().expect("the test did not panic").expect("the test's IO worked")
    }

    async fn write_read_rename(env: GlommioEnv, dir: tempfile::TempDir) -> io::Result<()> {
        let root = dir.path().join("a").join("b");
        env.create_dir(&root).await?;
        env.create_dir(&root).await?;
        let (first, second) = (root.join("first"), root.join("second"));
        let file = env.open(&first, OpenMode::CreateDurable).await?;
        file.allocate(3 * BLOCK_BYTES as u64).await?;
        let mut block = env.buf(2 * BLOCK_BYTES);
        assert!(block.as_ref().iter().all(|byte| *byte == 0), "a new buffer is zeroed");
        block.as_mut()[5] = 7;
        block.as_mut()[2 * BLOCK_BYTES - 1] = 9;
        file.write_at(Rc::new(block), BLOCK_BYTES as u64).await?;
        assert_eq!(file.len().await?, 3 * BLOCK_BYTES as u64);
        assert_eq!(file.read_at(BLOCK_BYTES as u64 + 5, 2).await?, [7, 0]);
        assert_eq!(file.read_at(3 * BLOCK_BYTES as u64 - 1, 100).await?, [9], "the file ends there");
        assert_eq!(file.read_at(1 << 30, 1).await?, [0_u8; 0]);
        file.close().await?;

        let again = env.open(&first, OpenMode::Create).await.err().expect("it exists");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let missing = env.open(&second, OpenMode::Read).await.err().expect("it does not exist");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);

        env.rename(&first, &second).await?;
        env.sync_dir(&root).await?;
        assert_eq!(env.list(&root).await?, ["second"]);
        let file = env.open(&second, OpenMode::Read).await?;
        assert_eq!(file.read_at(0, 3 * BLOCK_BYTES).await?.len(), 3 * BLOCK_BYTES);
        file.close().await?;
        env.remove(&second).await?;
        assert!(env.list(&root).await?.is_empty());
        Ok(())
    }

    #[test]
    fn files_on_a_disk() {
        run(write_read_rename, tempfile::tempdir().expect("a temporary directory"));
    }

    #[test]
    fn files_on_tmpfs() {
        run(write_read_rename, tempfile::tempdir_in("/dev/shm").expect("a directory on tmpfs"));
    }

    #[test]
    fn a_read_larger_than_one_request() {
        let read = |env: GlommioEnv, dir: tempfile::TempDir| async move {
            let file = env.open(&dir.path().join("large"), OpenMode::Create).await?;
            let mut buffer = env.buf(3 * READ_BYTES_MAX);
            for (index, byte) in buffer.as_mut().iter_mut().enumerate() {
                *byte = (index % 251) as u8;
            }
            file.write_at(Rc::new(buffer), 0).await?;
            file.sync().await?;
            let bytes = file.read_at(1, 3 * READ_BYTES_MAX).await?;
            file.close().await?;
            Ok(bytes)
        };
        let bytes = run(read, tempfile::tempdir().expect("a temporary directory"));
        assert_eq!(bytes.len(), 3 * READ_BYTES_MAX - 1);
        let expected = |index: usize| ((index + 1) % 251) as u8;
        assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == expected(index)));
    }

    #[test]
    fn clock_and_chance() {
        let test = |env: GlommioEnv, _dir: tempfile::TempDir| async move {
            let before = env.now();
            env.sleep(Duration::from_millis(2)).await;
            assert!(env.now().since(before) >= Duration::from_millis(2));
            assert_ne!(env.random(), env.random());
            Ok(())
        };
        run(test, tempfile::tempdir().expect("a temporary directory"));
    }

    #[test]
    fn sleeps_end_in_order_and_leave_nothing_behind() {
        let test = |env: GlommioEnv, _dir: tempfile::TempDir| async move {
            let ended = Rc::new(RefCell::new(Vec::new()));
            for millis in [30, 10, 20, 1] {
                let (task_env, ended) = (env.clone(), Rc::clone(&ended));
                env.spawn(async move {
                    task_env.sleep(Duration::from_millis(millis)).await;
                    ended.borrow_mut().push(millis);
                });
            }
            {
                let mut long = pin!(env.sleep(Duration::from_secs(3600)));
                for _ in 0..1000 {
                    assert!(futures_lite::future::poll_once(long.as_mut()).await.is_none());
                }
                assert!(env.sleeps.waiting.borrow().len() <= 5, "one entry each, however often polled");
            }
            env.sleep(Duration::from_millis(60)).await;
            assert_eq!(*ended.borrow(), [1, 10, 20, 30]);
            assert!(env.sleeps.waiting.borrow().is_empty(), "ended or dropped, nothing is left");
            Ok(())
        };
        run(test, tempfile::tempdir().expect("a temporary directory"));
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused() {
        let options = ExecutorOptions::new("env-test", CorePlacement::Pinned(4095), 1);
        let refused = start_executor(options, || async {}).err().expect("there are fewer CPUs");
        assert!(matches!(refused, ExecutorError::Cpu(_)), "{refused}");
    }
}
