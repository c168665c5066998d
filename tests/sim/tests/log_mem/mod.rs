//! The smallest environment that there is: files in a map, where everything works at once, and a clock that
//! is set.
//!
//! For tests that look at bytes, and at many starts of a small log. Crashes, latencies and torn writes are
//! the simulator's affair.
//!
//! Invariants: the same calls leave the same bytes; nothing is ever in flight when a run returns.

#![allow(dead_code, reason = "each test that shares the module uses its own part of it")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use distribkv::env::{BLOCK_BYTES, Env, File, Instant, OpenMode};

/// Files by path.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What cannot be read, until it is written or removed.
#[derive(Clone, Debug, Default)]
pub struct Bad {
    /// Blocks, by their file and number.
    pub blocks: BTreeSet<(PathBuf, usize)>,
    /// Files that cannot even be opened.
    pub files: BTreeSet<PathBuf>,
    /// Reads that fail wherever they are, before others work.
    pub reads: usize,
}

/// What the system says of a bad sector.
fn bad_sector() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The environment. Cloning is cheap: a handle.
#[derive(Clone, Default)]
pub struct MemEnv {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    files: RefCell<Files>,
    bad: RefCell<Bad>,
    clock_us: Cell<u64>,
    random: Cell<u64>,
    tasks: RefCell<Vec<Task>>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl MemEnv {
    /// The files as they are.
    pub fn files(&self) -> Files {
        self.inner.files.borrow().clone()
    }

    /// Changes the files.
    pub fn change(&self, change: impl FnOnce(&mut Files)) {
        change(&mut self.inner.files.borrow_mut());
    }

    /// Has reads fail.
    pub fn spoil(&self, bad: Bad) {
        *self.inner.bad.borrow_mut() = bad;
    }

    /// What cannot be read as it is now.
    pub fn bad(&self) -> Bad {
        self.inner.bad.borrow().clone()
    }

    /// Polls all tasks until none has anything to do at this time.
    pub fn settle(&self) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        while woken.0.swap(false, Ordering::Relaxed) {
            let mut tasks = std::mem::take(&mut *self.inner.tasks.borrow_mut());
            tasks.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let mut spawned = self.inner.tasks.borrow_mut();
            if !spawned.is_empty() {
                woken.0.store(true, Ordering::Relaxed);
            }
            tasks.append(&mut spawned);
            *spawned = tasks;
        }
    }

    /// Lets time pass, a millisecond at a time, and the tasks with it.
    pub fn pass(&self, milliseconds: u64) {
        self.settle();
        for _ in 0..milliseconds {
            self.inner.clock_us.set(self.inner.clock_us.get() + 1000);
            self.settle();
        }
    }

    /// Runs one future to its end. It must not wait for time.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let slot = Rc::new(RefCell::new(None));
        let filled = Rc::clone(&slot);
        self.spawn(async move {
            let value = future.await;
            *filled.borrow_mut() = Some(value);
        });
        self.settle();
        let value = slot.borrow_mut().take();
        value.expect("everything works at once here")
    }

    /// Drops every task, as the end of a process does.
    pub fn kill(&self) {
        self.inner.tasks.borrow_mut().clear();
    }
}

impl Env for MemEnv {
    type Buf = Vec<u8>;
    type File = MemFile;

    fn now(&self) -> Instant {
        Instant(self.inner.clock_us.get())
    }

    fn random(&self) -> u64 {
        self.inner.random.set(self.inner.random.get() + 1);
        self.inner.random.get().wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let until = self.now() + duration;
        let env = self.clone();
        poll_fn(move |_| if env.now() >= until { Poll::Ready(()) } else { Poll::Pending })
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.inner.tasks.borrow_mut().push(Box::pin(task));
    }

    fn buf(&self, len: usize) -> Vec<u8> {
        vec![0; len]
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<MemFile> {
        if self.inner.bad.borrow().files.contains(path) {
            return Err(bad_sector());
        }
        let mut files = self.inner.files.borrow_mut();
        let is_there = files.contains_key(path);
        match mode {
            OpenMode::Read | OpenMode::Durable if !is_there => return Err(io::ErrorKind::NotFound.into()),
            OpenMode::Read | OpenMode::Durable => {}
            OpenMode::Create | OpenMode::CreateDurable if is_there => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            OpenMode::Create | OpenMode::CreateDurable => {
                files.insert(path.to_path_buf(), Vec::new());
            }
        }
        Ok(MemFile { env: self.clone(), path: path.to_path_buf() })
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.inner.files.borrow();
        let names = files.keys().filter_map(|path| path.strip_prefix(dir).ok()?.to_str().map(str::to_string));
        Ok(names.collect())
    }

    async fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.inner.files.borrow_mut();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), bytes);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let bad = &mut self.inner.bad.borrow_mut();
        bad.files.remove(path);
        bad.blocks.retain(|(file, _)| file != path);
        self.inner.files.borrow_mut().remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// A file of a [`MemEnv`], by its path when it was opened.
pub struct MemFile {
    env: MemEnv,
    path: PathBuf,
}

impl MemFile {
    /// The blocks of a part of the file.
    fn blocks(at: usize, len: usize) -> std::ops::Range<usize> {
        at / BLOCK_BYTES..(at + len).div_ceil(BLOCK_BYTES)
    }

    /// Whether a read of a part of the file fails.
    fn fails(&self, at: usize, len: usize) -> bool {
        let mut bad = self.env.inner.bad.borrow_mut();
        if bad.reads > 0 {
            bad.reads -= 1;
            return true;
        }
        Self::blocks(at, len).any(|block| bad.blocks.contains(&(self.path.clone(), block)))
    }

    fn with<T>(&self, each: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut files = self.env.inner.files.borrow_mut();
        files.get_mut(&self.path).map(each).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl File for MemFile {
    type Buf = Vec<u8>;

    async fn write_at(&self, buf: Rc<Vec<u8>>, pos: u64) -> io::Result<()> {
        let at = usize::try_from(pos).expect("files are small here");
        let written = Self::blocks(at, buf.len());
        let bad = &mut self.env.inner.bad.borrow_mut().blocks;
        bad.retain(|(path, block)| *path != self.path || !written.contains(block));
        self.with(|bytes| {
            bytes.resize(bytes.len().max(at + buf.len()), 0);
            bytes[at..at + buf.len()].copy_from_slice(&buf);
        })
    }

    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let at = usize::try_from(pos).expect("files are small here");
        if self.fails(at, len) {
            return Err(bad_sector());
        }
        self.with(|bytes| bytes[at.min(bytes.len())..(at + len).min(bytes.len())].to_vec())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).expect("files are small here");
        self.with(|bytes| bytes.resize(bytes.len().max(len), 0))
    }

    async fn len(&self) -> io::Result<u64> {
        self.with(|bytes| bytes.len() as u64)
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}
