//! A number that steps, and any number of tasks that wait for its next step: what a [`Store`](super::Store)
//! needs to let every Watch learn of a change in health.
//!
//! Invariants:
//! - A step that comes between reading the version and waiting is not missed.
//! - A wait that is dropped leaves nothing behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The number. Cloning is cheap: a handle.
#[derive(Clone, Default)]
pub struct Changes {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    version: Cell<u64>,
    next_waiter: Cell<u64>,
    waiters: RefCell<BTreeMap<u64, Waker>>,
}

impl Changes {
    /// The number at the moment.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.inner.version.get()
    }

    /// Steps the number and wakes every waiter.
    pub fn step(&self) {
        self.inner.version.set(self.inner.version.get() + 1);
        for (_, waker) in std::mem::take(&mut *self.inner.waiters.borrow_mut()) {
            waker.wake();
        }
    }

    /// Waits until the number is another than `seen`, and says it.
    pub fn changed(&self, seen: u64) -> impl Future<Output = u64> + use<> {
        let number = self.inner.next_waiter.get();
        self.inner.next_waiter.set(number + 1);
        Changed { inner: Rc::clone(&self.inner), number, seen }
    }
}

struct Changed {
    inner: Rc<Inner>,
    number: u64,
    seen: u64,
}

impl Future for Changed {
    type Output = u64;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let version = self.inner.version.get();
        if version != self.seen {
            return Poll::Ready(version);
        }
        self.inner.waiters.borrow_mut().insert(self.number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        self.inner.waiters.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[test]
    fn every_waiter_learns_of_a_step() {
        let changes = Changes::default();
        let mut context = Context::from_waker(Waker::noop());
        let (mut one, mut other) = (pin!(changes.changed(0)), pin!(changes.changed(0)));
        assert!(one.as_mut().poll(&mut context).is_pending());
        assert!(other.as_mut().poll(&mut context).is_pending());
        changes.step();
        assert_eq!(one.as_mut().poll(&mut context), Poll::Ready(1));
        assert_eq!(other.as_mut().poll(&mut context), Poll::Ready(1));
        assert!(pin!(changes.changed(1)).poll(&mut context).is_pending());
        assert!(changes.inner.waiters.borrow().is_empty(), "what is dropped leaves nothing behind");
    }
}
