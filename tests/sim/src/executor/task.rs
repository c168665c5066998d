//! Tasks, and the queue of those that were woken.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use super::Group;

/// A task, counted from 1 in the order of spawning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId(pub(super) u64);

/// All tasks that have not ended.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) last: u64,
    pub(super) by_id: BTreeMap<TaskId, Task>,
}

/// What a task runs.
pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A task between two polls, or in one.
pub(super) struct Task {
    pub(super) group: Group,
    /// Absent while it is being polled.
    pub(super) future: Option<TaskFuture>,
    pub(super) waker: Arc<TaskWaker>,
}

/// The tasks that were woken, in the order of waking. Shared with wakers, which must be `Send`; no thread but
/// one ever touches it.
#[derive(Clone, Default)]
pub(super) struct Ready {
    pub(super) queue: Arc<Mutex<VecDeque<TaskId>>>,
}

impl Ready {
    /// The queue. Nobody else ever waits for it, nor has anyone broken it.
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<TaskId>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one task: puts it into the queue, once until it is polled.
pub(super) struct TaskWaker {
    pub(super) id: TaskId,
    pub(super) queued: AtomicBool,
    pub(super) ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push_back(self.id);
        }
    }
}
