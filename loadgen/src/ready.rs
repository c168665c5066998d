//! Which connections are ready to be polled: a list that their wakers put themselves on.
//!
//! A waker is made once for every connection: waking costs no allocation and no task. The lock is never
//! contended in production, since an engine's wakers are woken on its own thread; it is there because a waker
//! has to be sendable.
//!
//! Invariants: a connection is on the list at most once; the engine is woken only while it sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// The list, shared by an engine and its wakers.
#[derive(Debug, Default)]
pub struct ReadyList {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    bells: Vec<Arc<Bell>>,
    sleeper: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    /// The connection, by its place.
    link: u32,
    rung: AtomicBool,
    list: Arc<ReadyList>,
}

impl ReadyList {
    /// The waker that puts a connection on the list.
    pub fn waker(self: &Arc<Self>, link: u32) -> Waker {
        Waker::from(Arc::new(Bell { link, rung: AtomicBool::new(false), list: Arc::clone(self) }))
    }

    /// Moves the list to the end of `links`.
    pub fn take(&self, links: &mut Vec<u32>) {
        let mut inner = self.lock();
        for bell in inner.bells.drain(..) {
            bell.rung.store(false, Ordering::Release);
            links.push(bell.link);
        }
    }

    /// Asks to be woken by the next connection. False, where there already is one.
    pub fn sleep(&self, context: &Context<'_>) -> bool {
        let mut inner = self.lock();
        if !inner.bells.is_empty() {
            return false;
        }
        inner.sleeper = Some(context.waker().clone());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let sleeper = {
            let mut inner = self.list.lock();
            inner.bells.push(Arc::clone(self));
            inner.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(list: &ReadyList) -> Vec<u32> {
        let mut links = Vec::new();
        list.take(&mut links);
        links
    }

    #[test]
    fn a_connection_is_listed_once_until_taken() {
        let list = Arc::new(ReadyList::default());
        let (one, other) = (list.waker(3), list.waker(4));
        one.wake_by_ref();
        one.wake_by_ref();
        other.wake_by_ref();
        assert_eq!(taken(&list), [3, 4]);
        assert!(taken(&list).is_empty());
        one.wake_by_ref();
        assert_eq!(taken(&list), [3]);
    }

    #[test]
    fn nobody_sleeps_over_a_connection() {
        let list = Arc::new(ReadyList::default());
        let context = Context::from_waker(Waker::noop());
        assert!(list.sleep(&context));
        list.waker(1).wake();
        assert!(!list.sleep(&context));
    }
}
