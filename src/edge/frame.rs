//! gRPC's framing: a message behind a prefix of 5 bytes, in as many DATA frames as it happens to take.
//!
//! ```text
//! ┌────────────┬──────────────────────┬─────────────┐
//! │ compressed │ length, big-endian   │ message     │
//! │ 1 byte: 0  │ 4 bytes              │             │
//! └────────────┴──────────────────────┴─────────────┘
//! ```
//!
//! Invariants:
//! - The length is checked before anything of the message is kept, and counted against the bytes in flight.
//! - A message that came in one DATA frame is decoded in place: its `bytes` fields are slices of the frame.
//! - What has come is given back to the stream's window once it is taken over, and not before.

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

use super::budget::{Budget, Held};
use super::http2::Body;
use super::status::{Code, Status};
use crate::wire::v1::Reason;

const PREFIX_BYTES: usize = 5;

/// A message with its prefix, in one piece of memory.
pub(super) fn encode(message: &impl Message, message_bytes_max: usize) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    if length > message_bytes_max {
        let text = format!("an answer of {length} bytes: at most {message_bytes_max}");
        return Err(Status::new(Code::ResourceExhausted, Reason::Limit, text));
    }
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    encode_into(message, length, &mut frame);
    Ok(frame.freeze())
}

/// Adds a message of `length` bytes, with its prefix, to others.
pub(super) fn encode_into(message: &impl Message, length: usize, out: &mut BytesMut) {
    out.reserve(PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("a message's limit is below 4 GiB"));
    let before = out.len();
    message.encode(out).expect("a BytesMut grows as it must");
    assert_eq!(out.len() - before, length, "a message is as long as it says");
}

/// A message as it came, and what it holds of the bytes in flight.
pub(super) struct Received {
    /// The message, without its prefix.
    pub(super) bytes: Bytes,
    /// Given back when the message is answered.
    pub(super) held: Held,
}

impl Received {
    /// Decodes the message.
    pub(super) fn decode<M: Message + Default>(self) -> Result<(M, Held), Status> {
        let message = M::decode(self.bytes)
            .map_err(|error| Status::invalid(format!("the message cannot be decoded: {error}")))?;
        Ok((message, self.held))
    }
}

/// Why no message came.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The client or the connection is gone: there is nobody to tell.
    Gone,
    /// The client sent what it may not.
    Status(Status),
}

/// The messages of one stream, as they come in.
pub(super) struct Messages {
    body: Body,
    assembly: Assembly,
}

/// Makes messages of the bytes of a stream, however they are cut.
pub(super) struct Assembly {
    budget: Budget,
    message_bytes_max: usize,
    /// What came and was not taken: of a DATA frame that held more than one message, or less.
    pending: Bytes,
    /// A message that takes several frames, once its prefix is known.
    partial: Option<Partial>,
}

struct Partial {
    length: usize,
    bytes: BytesMut,
    held: Held,
}

impl Messages {
    pub(super) fn new(body: Body, budget: Budget, message_bytes_max: usize) -> Self {
        Self { body, assembly: Assembly::new(budget, message_bytes_max) }
    }

    /// The next message; `None` where the client has sent its last one.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, ReadError> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The one message of a call that has one.
    pub(super) async fn single(&mut self) -> Result<Received, ReadError> {
        match self.next().await? {
            Some(message) => Ok(message),
            None => Err(ReadError::Status(Status::unimplemented("a unary call without a message"))),
        }
    }

    /// As [`next`](Self::next).
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, ReadError>> {
        loop {
            if let Some(message) = self.assembly.take_message().map_err(ReadError::Status)? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(self.body.poll_data(context)) {
                Some(Ok(chunk)) => self.assembly.put(chunk),
                Some(Err(_)) => return Poll::Ready(Err(ReadError::Gone)),
                None if self.assembly.is_between_messages() => return Poll::Ready(Ok(None)),
                None => {
                    let status = Status::invalid("the stream ended within a message");
                    return Poll::Ready(Err(ReadError::Status(status)));
                }
            }
        }
    }
}

impl Assembly {
    pub(super) fn new(budget: Budget, message_bytes_max: usize) -> Self {
        Self { budget, message_bytes_max, pending: Bytes::new(), partial: None }
    }

    /// Whether a stream may end here.
    pub(super) fn is_between_messages(&self) -> bool {
        self.pending.is_empty() && self.partial.is_none()
    }

    /// Adds what came.
    pub(super) fn put(&mut self, chunk: Bytes) {
        if self.pending.is_empty() {
            self.pending = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.pending.len() + chunk.len());
            joined.extend_from_slice(&self.pending);
            joined.extend_from_slice(&chunk);
            self.pending = joined.freeze();
        }
    }

    /// The next whole message; `None` where more has to come first.
    pub(super) fn take_message(&mut self) -> Result<Option<Received>, Status> {
        if self.partial.is_none() && !self.take_prefix()? {
            return Ok(None);
        }
        let Some(mut partial) = self.partial.take() else { return Ok(None) };
        if partial.bytes.is_empty() && self.pending.len() >= partial.length {
            let bytes = self.pending.split_to(partial.length);
            return Ok(Some(Received { bytes, held: partial.held }));
        }
        let missing = partial.length - partial.bytes.len();
        let part = self.pending.split_to(missing.min(self.pending.len()));
        partial.bytes.extend_from_slice(&part);
        if partial.bytes.len() == partial.length {
            return Ok(Some(Received { bytes: partial.bytes.freeze(), held: partial.held }));
        }
        self.partial = Some(partial);
        Ok(None)
    }

    /// Takes a prefix off what is pending, where there is a whole one, and checks it.
    fn take_prefix(&mut self) -> Result<bool, Status> {
        if self.pending.len() < PREFIX_BYTES {
            return Ok(false);
        }
        let compressed = self.pending.get_u8();
        let length = self.pending.get_u32() as usize;
        if compressed != 0 {
            return Err(Status::unimplemented("a compressed message: identity alone is understood"));
        }
        if length > self.message_bytes_max {
            return Err(Status::limit("a message", format_args!("{length} bytes"), self.message_bytes_max));
        }
        let held = self.budget.try_hold(length).ok_or_else(|| {
            Status::overloaded("too many bytes in flight on this connection or core; try again later")
        })?;
        self.partial = Some(Partial { length, bytes: BytesMut::new(), held });
        Ok(true)
    }
}
