//! The answer to one stream: head, messages, trailers, in that order, or a failure alone.
//!
//! ```text
//!            ┌── fail ──► HEADERS with the status, end of stream           (trailers-only)
//! Reply ─────┼── finish ► HEADERS · DATA · HEADERS with status 0           (one message)
//!            └── start ─► HEADERS ─► Answers ── send ──► DATA …
//!                                            └─ finish ► HEADERS with the status
//! ```
//!
//! Invariants:
//! - An answer that is larger than what fits at once leaves as the client's windows open, never faster.
//! - A stream's answer waits for its client until the call's deadline, and no longer than a stalled one may
//!   without a byte of it being taken: what it holds is not the client's to keep.
//! - Nothing is sent after trailers; a client that is gone is not an error.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::http2::Sender;
use super::status::Status;
use super::store::Store;
use super::stream::{Guarded, guard};
use super::{Edge, head};
use crate::env::{Env, Instant};

/// The client or the connection is gone: there is nobody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Why an answer was not sent to its end.
#[derive(Debug)]
pub(super) enum Unsent {
    /// There is nobody to answer.
    Gone,
    /// The client did not take it in time, and is told this.
    Late(Status),
}

impl From<Gone> for Unsent {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// A stream that was not answered yet.
pub(super) struct Reply {
    stream: Sender,
}

impl Reply {
    pub(super) fn new(stream: Sender) -> Self {
        Self { stream }
    }

    /// Waits for the client to give up.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.stream.poll_gone(context)
    }

    /// Says that the request is not gRPC.
    pub(super) fn http(self, status: u16) {
        self.stream.http(status);
    }

    /// Fails the call: a head alone.
    pub(super) fn fail(self, status: &Status) {
        self.stream.fail(&head::status_fields(status));
    }

    /// Answers with one message, and well.
    pub(super) async fn finish(mut self, frame: Bytes) {
        if let Ok(false) = self.stream.answer(&frame)
            && self.send(frame).await.is_ok()
        {
            self.stream.trailers(None);
        }
    }

    async fn send(&mut self, mut frames: Bytes) -> Result<(), Gone> {
        while !frames.is_empty() {
            let room = poll_fn(|context| self.stream.poll_room(frames.len(), context)).await?;
            self.stream.data(&frames.split_to(room.min(frames.len())))?;
        }
        Ok(())
    }

    /// Begins an answer of messages, which the client takes by its deadline, where it gave one.
    pub(super) fn start<E: Env, S: Store>(
        mut self,
        edge: &Edge<E, S>,
        deadline: Option<Instant>,
    ) -> Result<Answers<E>, Gone> {
        self.stream.head()?;
        let stall_timeout = edge.limits().stall_timeout;
        Ok(Answers { stream: self.stream, env: edge.env().clone(), deadline, stall_timeout })
    }
}

/// A stream whose answer has begun.
pub(super) struct Answers<E: Env> {
    stream: Sender,
    env: E,
    deadline: Option<Instant>,
    stall_timeout: Duration,
}

impl<E: Env> Answers<E> {
    /// Sends messages with their prefixes, as the client takes them.
    pub(super) async fn send(&mut self, mut frames: Bytes) -> Result<(), Unsent> {
        while !frames.is_empty() {
            let room = self.room(frames.len()).await?;
            self.stream.data(&frames.split_to(room.min(frames.len())))?;
        }
        Ok(())
    }

    /// Waits for room. A stream that stands in line behind others has its time again as long as those are
    /// served.
    async fn room(&mut self, wanted: usize) -> Result<usize, Unsent> {
        loop {
            let before = self.stream.sent_of_all();
            let stalled = self.env.now() + self.stall_timeout;
            let due = self.deadline.map_or(stalled, |deadline| deadline.min(stalled));
            let room = poll_fn(|context| self.stream.poll_room(wanted, context));
            match guard(&self.env, Some(due), |_| Poll::Pending, room).await {
                Guarded::Done(Ok(room)) => return Ok(room),
                Guarded::Done(Err(Gone)) | Guarded::Gone => return Err(Unsent::Gone),
                Guarded::Late if due < stalled => return Err(Unsent::Late(Status::deadline_exceeded())),
                Guarded::Late if self.stream.is_in_line() && self.stream.sent_of_all() > before => {}
                Guarded::Late => return Err(Unsent::Late(Status::stalled(self.stall_timeout))),
            }
        }
    }

    /// Waits for the client to give up.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.stream.poll_gone(context)
    }

    /// Ends the answer.
    pub(super) fn finish(self, outcome: Result<(), Status>) {
        match outcome {
            Ok(()) => self.stream.trailers(None),
            Err(status) => self.stream.trailers(Some(&head::status_fields(&status))),
        }
    }
}
