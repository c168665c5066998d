//! The answer to one stream: headers, messages, trailers, in that order, or a failure alone.
//!
//! ```text
//!            ┌── fail ──► HEADERS with the status, end of stream           (trailers-only)
//! Reply ─────┼── finish ► HEADERS · DATA · HEADERS with status 0           (one message)
//!            └── start ─► HEADERS ─► Answers ── send ──► DATA …
//!                                            └─ finish ► HEADERS with the status
//! ```
//!
//! Invariants:
//! - An answer that is larger than what h2 buffers at once leaves as the client's windows open, never faster.
//! - Nothing is sent after trailers; a client that is gone is not an error.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, Response, StatusCode};

use super::head;
use super::status::Status;

/// An answer up to this long is handed to h2 at once: it buffers as much for each stream anyway.
const AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// The headers that every answer has, made once a core.
pub(super) struct Heads {
    answer: HeaderMap,
    ok: HeaderMap,
}

impl Heads {
    pub(super) fn new() -> Self {
        Self { answer: head::answer_headers(), ok: head::ok_trailers() }
    }
}

/// The client or the connection is gone: there is nobody to answer.
#[derive(Debug)]
pub(super) struct Gone;

/// A stream that was not answered yet.
pub(super) struct Reply {
    respond: SendResponse<Bytes>,
}

impl Reply {
    pub(super) fn new(respond: SendResponse<Bytes>) -> Self {
        Self { respond }
    }

    /// Waits for the client to give up.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.respond.poll_reset(context).map(|_| Gone)
    }

    /// Says that the request is not gRPC.
    pub(super) fn http(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        self.respond.send_response(response, true).ok();
    }

    /// Fails the call: headers alone.
    pub(super) fn fail(mut self, status: &Status) {
        let mut headers = head::answer_headers();
        head::add_status(&mut headers, status);
        self.respond.send_response(with_headers(headers), true).ok();
    }

    /// Answers with one message, and well.
    pub(super) async fn finish(self, heads: &Heads, frame: Bytes) {
        let Ok(mut answers) = self.start(heads) else { return };
        let sent = if frame.len() <= AT_ONCE_BYTES_MAX {
            answers.stream.send_data(frame, false).map_err(|_| Gone)
        } else {
            answers.send(frame).await
        };
        if sent.is_ok() {
            answers.finish(heads, Ok(()));
        }
    }

    /// Begins an answer of messages.
    pub(super) fn start(mut self, heads: &Heads) -> Result<Answers, Gone> {
        let response = with_headers(heads.answer.clone());
        let stream = self.respond.send_response(response, false).map_err(|_| Gone)?;
        Ok(Answers { stream })
    }
}

fn with_headers(headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    response
}

/// A stream whose answer has begun.
pub(super) struct Answers {
    stream: SendStream<Bytes>,
}

impl Answers {
    /// Sends messages with their prefixes, as the client takes them.
    pub(super) async fn send(&mut self, mut frames: Bytes) -> Result<(), Gone> {
        while !frames.is_empty() {
            self.stream.reserve_capacity(frames.len());
            let room = poll_fn(|context| self.poll_room(context)).await?;
            let part = frames.split_to(room.min(frames.len()));
            self.stream.send_data(part, false).map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// How much h2 takes for this stream at the moment, at least a byte.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
        if self.poll_gone(context).is_ready() {
            return Poll::Ready(Err(Gone));
        }
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Gone)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits for the client to give up.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.stream.poll_reset(context).map(|_| Gone)
    }

    /// Ends the answer.
    pub(super) fn finish(mut self, heads: &Heads, outcome: Result<(), Status>) {
        let trailers = match outcome {
            Ok(()) => heads.ok.clone(),
            Err(status) => {
                let mut trailers = HeaderMap::with_capacity(4);
                head::add_status(&mut trailers, &status);
                trailers
            }
        };
        self.stream.send_trailers(trailers).ok();
    }
}
