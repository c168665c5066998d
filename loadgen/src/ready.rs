//! Who is ready to be polled: a list of tokens that wakers put themselves on.
//!
//! A waker is made once for every place of a call and for every connection, and is used for all calls that
//! pass through the place: waking costs no allocation and no task. The lock is never contended in production,
//! since an engine's wakers are woken on its own thread; it is there because a waker has to be sendable.
//!
//! Invariants: a token is on the list at most once; the engine is woken only while it sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A connection, by its place.
    Link(u32),
    /// A call, by its place.
    Call(u32),
}

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
    token: Token,
    rung: AtomicBool,
    list: Arc<ReadyList>,
}

impl ReadyList {
    /// The waker that puts a token on the list.
    pub fn waker(self: &Arc<Self>, token: Token) -> Waker {
        Waker::from(Arc::new(Bell { token, rung: AtomicBool::new(false), list: Arc::clone(self) }))
    }

    /// Moves every token from the list to the ends of `links` and `calls`.
    pub fn take(&self, links: &mut Vec<u32>, calls: &mut Vec<u32>) {
        let mut inner = self.lock();
        for bell in inner.bells.drain(..) {
            bell.rung.store(false, Ordering::Release);
            match bell.token {
                Token::Link(link) => links.push(link),
                Token::Call(call) => calls.push(call),
            }
        }
    }

    /// Asks to be woken by the next token. False, where there already is one.
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

    fn taken(list: &ReadyList) -> (Vec<u32>, Vec<u32>) {
        let (mut links, mut calls) = (Vec::new(), Vec::new());
        list.take(&mut links, &mut calls);
        (links, calls)
    }

    #[test]
    fn a_token_is_listed_once_until_taken() {
        let list = Arc::new(ReadyList::default());
        let (link, call) = (list.waker(Token::Link(3)), list.waker(Token::Call(4)));
        link.wake_by_ref();
        link.wake_by_ref();
        call.wake_by_ref();
        assert_eq!(taken(&list), (vec![3], vec![4]));
        assert_eq!(taken(&list), (vec![], vec![]));
        link.wake_by_ref();
        assert_eq!(taken(&list), (vec![3], vec![]));
    }

    #[test]
    fn nobody_sleeps_over_a_token() {
        let list = Arc::new(ReadyList::default());
        let context = Context::from_waker(Waker::noop());
        assert!(list.sleep(&context));
        list.waker(Token::Call(1)).wake();
        assert!(!list.sleep(&context));
    }
}
