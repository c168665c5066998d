//! Waking a task of the same core: a signal, and a slot for one answer.
//!
//! Single-threaded and independent of the executor, so that the same code runs in production and in
//! simulation.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A flag that one task waits for and any may raise. Raised before the wait, it is not lost.
#[derive(Clone, Default)]
pub struct Signal {
    inner: Rc<SignalInner>,
}

#[derive(Default)]
struct SignalInner {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raises the flag and wakes the waiter.
    pub fn raise(&self) {
        if !self.inner.raised.replace(true)
            && let Some(waker) = self.inner.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until the flag is raised, and lowers it. One task waits at a time: a second one would take its
    /// place.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            if self.inner.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.inner.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

/// A slot for one answer: the two ends of it.
#[must_use]
pub fn answer<T>() -> (AnswerSender<T>, AnswerReceiver<T>) {
    let slot =
        Rc::new(AnswerSlot { value: RefCell::new(None), waker: RefCell::new(None), ended: Cell::new(false) });
    (AnswerSender { slot: Rc::clone(&slot) }, AnswerReceiver { slot })
}

struct AnswerSlot<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
    ended: Cell<bool>,
}

impl<T> AnswerSlot<T> {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Where the answer is put.
pub struct AnswerSender<T> {
    slot: Rc<AnswerSlot<T>>,
}

impl<T> AnswerSender<T> {
    /// Gives the answer; it is dropped where nobody waits for it any more.
    pub fn send(self, value: T) {
        *self.slot.value.borrow_mut() = Some(value);
    }

    /// Whether somebody still waits.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        Rc::strong_count(&self.slot) > 1
    }
}

impl<T> Drop for AnswerSender<T> {
    fn drop(&mut self) {
        self.slot.ended.set(true);
        self.slot.wake();
    }
}

/// Where the answer is waited for: `None` where the sender was dropped without one.
pub struct AnswerReceiver<T> {
    slot: Rc<AnswerSlot<T>>,
}

impl<T> Future for AnswerReceiver<T> {
    type Output = Option<T>;

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.slot.value.borrow_mut().take() {
            return Poll::Ready(Some(value));
        }
        if self.slot.ended.get() {
            return Poll::Ready(None);
        }
        *self.slot.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}
