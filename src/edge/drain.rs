//! Going away: one event that every connection and stream of a core learns of.
//!
//! Invariants:
//! - It is said once and holds for ever; whoever asks later learns it at once.
//! - A listener that is dropped leaves nothing behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::env::Instant;

/// Whether the core is going away, and until when. Cloning is cheap: a handle.
#[derive(Clone, Default)]
pub(super) struct Drain {
    inner: Rc<DrainInner>,
}

#[derive(Default)]
struct DrainInner {
    deadline: Cell<Option<Instant>>,
    next_listener: Cell<u64>,
    listeners: RefCell<BTreeMap<u64, Waker>>,
}

impl Drain {
    /// Says it. A second time changes nothing.
    pub(super) fn begin(&self, deadline: Instant) {
        if self.inner.deadline.get().is_some() {
            return;
        }
        self.inner.deadline.set(Some(deadline));
        for (_, waker) in std::mem::take(&mut *self.inner.listeners.borrow_mut()) {
            waker.wake();
        }
    }

    /// When what is left is cut off; `None`: the core is not going away.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.inner.deadline.get()
    }

    /// Waits until it is said.
    pub(super) fn begun(&self) -> DrainBegun {
        let number = self.inner.next_listener.get();
        self.inner.next_listener.set(number + 1);
        DrainBegun { inner: Rc::clone(&self.inner), number }
    }
}

/// The wait for a [`Drain`] to begin.
pub(super) struct DrainBegun {
    inner: Rc<DrainInner>,
    number: u64,
}

impl Future for DrainBegun {
    type Output = Instant;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Instant> {
        if let Some(deadline) = self.inner.deadline.get() {
            return Poll::Ready(deadline);
        }
        self.inner.listeners.borrow_mut().insert(self.number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for DrainBegun {
    fn drop(&mut self) {
        self.inner.listeners.borrow_mut().remove(&self.number);
    }
}
