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
//! - Nothing is sent after trailers; a client that is gone is not an error.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::head;
use super::http2::Sender;
use super::status::Status;

/// The client or the connection is gone: there is nobody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

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
        if let Ok(false) = self.stream.answer(&frame) {
            let mut answers = Answers { stream: self.stream };
            if answers.send(frame).await.is_ok() {
                answers.finish(Ok(()));
            }
        }
    }

    /// Begins an answer of messages.
    pub(super) fn start(mut self) -> Result<Answers, Gone> {
        self.stream.head()?;
        Ok(Answers { stream: self.stream })
    }
}

/// A stream whose answer has begun.
pub(super) struct Answers {
    stream: Sender,
}

impl Answers {
    /// Sends messages with their prefixes, as the client takes them.
    pub(super) async fn send(&mut self, mut frames: Bytes) -> Result<(), Gone> {
        while !frames.is_empty() {
            let room = poll_fn(|context| self.stream.poll_room(frames.len(), context)).await?;
            self.stream.data(&frames.split_to(room.min(frames.len())))?;
        }
        Ok(())
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
