//! What a connection's task and its streams' tasks share, and the two ends of a stream.
//!
//! Invariants:
//! - Whatever is said of a stream wakes the connection's task once, which flushes all that was said.
//! - A stream ends with its [`Sender`]: what it has not sent by then is cancelled.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::answers::Field;
use super::session::Session;
use crate::edge::reply::Gone;

/// A connection's session. Cloning is cheap: a handle.
#[derive(Clone)]
pub(in crate::edge) struct Channel {
    inner: Rc<Inner>,
}

struct Inner {
    session: RefCell<Session>,
    /// The connection's task, while it sleeps.
    task: RefCell<Option<Waker>>,
}

impl Channel {
    pub(in crate::edge) fn new(session: Session) -> Self {
        Self { inner: Rc::new(Inner { session: RefCell::new(session), task: RefCell::default() }) }
    }

    /// The session, for the connection's own task. Nothing may be awaited while it is held.
    pub(in crate::edge) fn session(&self) -> RefMut<'_, Session> {
        self.inner.session.borrow_mut()
    }

    /// The connection's task goes to sleep.
    pub(in crate::edge) fn sleep(&self, waker: &Waker) {
        let mut task = self.inner.task.borrow_mut();
        match &mut *task {
            Some(known) => known.clone_from(waker),
            None => *task = Some(waker.clone()),
        }
    }

    /// Both ends of a stream.
    pub(in crate::edge) fn stream(&self, id: u32) -> (Body, Sender) {
        (Body { channel: self.clone(), id }, Sender { channel: self.clone(), id })
    }

    /// Does something with the session that may make bytes go out.
    fn with<T>(&self, act: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.inner.session.borrow_mut();
        let done = act(&mut session);
        if !session.out.is_empty() || session.is_over() {
            drop(session);
            if let Some(task) = self.inner.task.borrow_mut().take() {
                task.wake();
            }
        }
        done
    }
}

/// What comes of one stream.
pub(in crate::edge) struct Body {
    channel: Channel,
    id: u32,
}

impl Body {
    /// What has come, as it was cut; `None` at the end. The client may send as much again.
    pub(in crate::edge) fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Gone>>> {
        self.channel.with(|session| session.poll_body(self.id, context))
    }
}

/// What goes out on one stream.
pub(in crate::edge) struct Sender {
    channel: Channel,
    id: u32,
}

impl Sender {
    /// Waits for the client to give up.
    pub(in crate::edge) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.channel.inner.session.borrow_mut().poll_gone(self.id, context)
    }

    /// How much may be sent now, at least a byte, of so many; it is to be sent at once.
    pub(in crate::edge) fn poll_room(
        &mut self,
        wanted: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Gone>> {
        self.channel.inner.session.borrow_mut().poll_room(self.id, wanted, context)
    }

    /// Whether it waits for what all streams of its connection share, and not for its own window.
    pub(in crate::edge) fn is_in_line(&self) -> bool {
        self.channel.inner.session.borrow().is_in_line(self.id)
    }

    /// What was sent of all streams of its connection, in bytes.
    pub(in crate::edge) fn sent_of_all(&self) -> u64 {
        self.channel.inner.session.borrow().sent
    }

    /// Sends a whole answer of one message, where it fits; whether it did.
    pub(in crate::edge) fn answer(&mut self, data: &[u8]) -> Result<bool, Gone> {
        self.channel.with(|session| {
            session.send_head(self.id)?;
            if data.len() > session.room(self.id) {
                return Ok(false);
            }
            session.send_data(self.id, data)?;
            session.send_trailers(self.id, None);
            Ok(true)
        })
    }

    /// Begins an answer.
    pub(in crate::edge) fn head(&mut self) -> Result<(), Gone> {
        self.channel.with(|session| session.send_head(self.id))
    }

    /// Sends a part of it, for which there is room.
    pub(in crate::edge) fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.channel.with(|session| session.send_data(self.id, data))
    }

    /// Ends an answer that has begun.
    pub(in crate::edge) fn trailers(self, failure: Option<&[Field]>) {
        self.channel.with(|session| session.send_trailers(self.id, failure));
    }

    /// Fails: the answer is nothing else.
    pub(in crate::edge) fn fail(self, failure: &[Field]) {
        self.channel.with(|session| session.send_failure(self.id, failure));
    }

    /// Says an HTTP status, and nothing else.
    pub(in crate::edge) fn http(self, status: u16) {
        self.channel.with(|session| session.send_http(self.id, status));
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.channel.with(|session| session.close(self.id));
    }
}
