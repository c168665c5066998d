//! Starting one executor on a thread of its own, and saying clearly why one could not start.
//!
//! Invariants:
//! - [`start_executor`] returns once the executor stands: an error is known before any part of the node acts.
//! - The memory registered with io_uring, three times over since every executor has three rings, fits the 8
//!   MiB of locked memory that a Linux process has by default.
//!
//! It deliberately does not decide how many executors there are or what runs on them.

use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, io, thread};

use ::glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};

use crate::env::BLOCK_BYTES;
use crate::env::os::{cpu, process, spin, uring};

/// What one process may lock in memory unless told otherwise.
const LOCKED_MEMORY_BYTES: usize = 8 << 20;

/// The rings of one executor: each registers the executor's memory.
const RINGS_PER_EXECUTOR: usize = 3;

/// The most memory that one executor registers.
const IO_MEMORY_BYTES_MAX: usize = 1 << 20;

/// The least: glommio registers no less.
const IO_MEMORY_BYTES_MIN: usize = 64 << 10;

const _: () = assert!(RINGS_PER_EXECUTOR * IO_MEMORY_BYTES_MAX <= LOCKED_MEMORY_BYTES / 2);

/// Where an executor's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorePlacement {
    /// On this CPU alone.
    Pinned(usize),
    /// Wherever the kernel puts it.
    Anywhere,
}

/// How one executor is made.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// The thread's name, 15 bytes at most for tools to show all of it.
    pub name: String,
    /// Where it runs.
    pub placement: CorePlacement,
    /// How many executors the process has in all: they share the lockable memory. At least 1.
    pub executors: usize,
    /// How many requests each ring holds; a power of two, 128 by default.
    pub ring_depth: usize,
    /// How long it looks for something to do before it sleeps, at most and in `kvserver` alone (see
    /// [`super::os::spin`]); zero by default.
    pub spin: Duration,
}

impl ExecutorOptions {
    /// An executor that shares the process with `executors - 1` others.
    #[must_use]
    pub fn new(name: &str, placement: CorePlacement, executors: usize) -> Self {
        assert!(executors > 0, "a process that starts an executor has at least one");
        Self { name: name.to_owned(), placement, executors, ring_depth: 128, spin: Duration::ZERO }
    }

    /// Half of the lockable memory, shared out; the other half is for the rings themselves on older kernels.
    fn io_memory_bytes(&self) -> usize {
        let share = LOCKED_MEMORY_BYTES / 2 / RINGS_PER_EXECUTOR / self.executors;
        share.clamp(IO_MEMORY_BYTES_MIN, IO_MEMORY_BYTES_MAX) & !(BLOCK_BYTES - 1)
    }

    /// Whether the process may lock what its executors need: asked here, since what glommio says is text.
    fn check_lockable(&self) -> Result<(), ExecutorError> {
        let limit = process::lockable_bytes().map_err(ExecutorError::Io)?;
        let executors = u64::try_from(self.executors).expect("a process has few executors");
        if limit / executors < ExecutorError::LOCKABLE_BYTES_MIN {
            return Err(ExecutorError::LockableMemory { limit, needed: ExecutorError::LOCKABLE_BYTES_MIN });
        }
        Ok(())
    }

    fn build(&self) -> Result<LocalExecutor, ExecutorError> {
        self.check_lockable()?;
        let placement = match self.placement {
            CorePlacement::Pinned(cpu) => Placement::Fixed(cpu),
            CorePlacement::Anywhere => Placement::Unbound,
        };
        let builder = LocalExecutorBuilder::new(placement)
            .name(&self.name)
            .io_memory(self.io_memory_bytes())
            .ring_depth(self.ring_depth);
        spin::set_limit(self.spin);
        uring::calmly(|| builder.make()).map_err(|error| ExecutorError::of_placed(error, self.placement))
    }
}

/// Why an executor could not start. Each has its own exit code in `kvserver`.
#[derive(Debug)]
pub enum ExecutorError {
    /// The kernel has no io_uring that serves, or does not permit this process to use it. The text says
    /// which.
    IoUringDenied(String),
    /// The process may lock too little memory.
    LockableMemory {
        /// What it may lock, in bytes; 0 where only the refusal is known.
        limit: u64,
        /// What is needed at least, in bytes.
        needed: u64,
    },
    /// A CPU that was named does not exist or is not ours: which, and what is.
    Cpu(String),
    /// The thread could not be started, or the system refused something else.
    Io(io::Error),
}

impl ExecutorError {
    /// The least that glommio starts with.
    const LOCKABLE_BYTES_MIN: u64 = 512 << 10;

    /// The kernel refuses a CPU that this process is not given as it refuses any other wrong argument. Where
    /// it has taken it, the thread may run there alone, and the refusal is of something else.
    fn of_placed(error: GlommioError<()>, placement: CorePlacement) -> Self {
        match (placement, Self::of(error)) {
            (CorePlacement::Pinned(cpu), Self::Io(error))
                if error.kind() == io::ErrorKind::InvalidInput
                    && !cpu::allowed().is_ok_and(|cpus| cpus == [cpu]) =>
            {
                Self::Cpu(format!("CPU {cpu} is not given to this process"))
            }
            (_, error) => error,
        }
    }

    fn of(error: GlommioError<()>) -> Self {
        match error {
            GlommioError::BuilderError(kind) => Self::Cpu(kind.to_string()),
            GlommioError::IoError(error) => Self::of_io(error),
            GlommioError::EnhancedIoError { source, .. } => Self::of_io(source),
            other => Self::Io(other.into()),
        }
    }

    fn of_io(error: io::Error) -> Self {
        match error.raw_os_error() {
            // What io_uring_setup says where the rings do not fit the locked memory.
            Some(libc::ENOMEM) => Self::LockableMemory { limit: 0, needed: Self::LOCKABLE_BYTES_MIN },
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Self::IoUringDenied(error.to_string()),
            _ if error.kind() == io::ErrorKind::Unsupported => Self::IoUringDenied(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUringDenied(text) => {
                write!(f, "io_uring is denied: {text}; allow it (sysctl kernel.io_uring_disabled=0, seccomp)")
            }
            Self::LockableMemory { limit, needed } => write!(
                f,
                "too little lockable memory: {limit} bytes, {needed} needed for each core; raise `ulimit -l`"
            ),
            Self::Cpu(text) => {
                write!(f, "an executor cannot be pinned: {text}; name other --cores, or start with --no-pin")
            }
            Self::Io(error) => write!(f, "the executor cannot start: {error}"),
        }
    }
}

impl std::error::Error for ExecutorError {}

/// A running executor's thread.
pub struct CoreThread<T> {
    thread: thread::JoinHandle<Option<T>>,
}

impl<T> CoreThread<T> {
    /// Waits for the executor's main task. `None` where its thread panicked.
    #[must_use]
    pub fn join(self) -> Option<T> {
        self.thread.join().ok().flatten()
    }
}

/// Starts an executor on a thread of its own and runs the task that `make_task` makes there, to its end.
///
/// # Errors
///
/// Where the executor cannot be made; then `make_task` was not called.
pub fn start_executor<M, F, T>(options: ExecutorOptions, make_task: M) -> Result<CoreThread<T>, ExecutorError>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (started, standing) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(options.name.clone())
        .spawn(move || match options.build() {
            Ok(executor) => {
                started.send(Ok(())).ok();
                Some(executor.run(async move { make_task().await }))
            }
            Err(error) => {
                started.send(Err(error)).ok();
                None
            }
        })
        .map_err(ExecutorError::Io)?;
    match standing.recv() {
        Ok(Ok(())) => Ok(CoreThread { thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ExecutorError::Io(io::Error::other("the executor's thread ended while it started"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_cpu_is_told_from_another_wrong_argument() {
        let refused = || GlommioError::IoError(io::Error::from(io::ErrorKind::InvalidInput));
        let pinned = ExecutorError::of_placed(refused(), CorePlacement::Pinned(4095));
        assert!(matches!(pinned, ExecutorError::Cpu(_)), "{pinned}");
        let anywhere = ExecutorError::of_placed(refused(), CorePlacement::Anywhere);
        assert!(matches!(anywhere, ExecutorError::Io(_)), "{anywhere}");
    }
}
