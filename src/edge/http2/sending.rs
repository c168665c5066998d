//! What a stream's task asks of its connection, and what it says.
//!
//! What all streams share is the client's window for the connection and the room in `out`. Where it does not
//! do for all, they take turns:
//!
//! ```text
//!  poll_room ──► waiting, by ticket ──there is room──► woken, so much promised ──► poll_room ──► send_data
//!      ▲                                                                               │
//!      └───────────────────────── what is left, at the end of the line ────────────────┘
//! ```
//!
//! Invariants:
//! - While a stream waits, all that is shared is promised to others: who comes later has nothing of it, and
//!   of those that wait no more are woken than it serves.
//! - A promise is at most [`TURN_BYTES_MAX`], so that several are served of what leaves at once; the heads of
//!   its frames count. It ends when its stream asks for room or is closed; what it leaves goes to the next.
//! - A stream for which less is there than it was promised keeps its place in the line.
//! - A DATA frame is never larger than the client's windows and the usual frame allow.
//! - Nothing is sent of a stream after its end, and nothing of one that is gone.
//! - A stream whose task is done with it and that has not ended on both sides is ended by force.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::answers::{Field, FieldWriter};
use super::session::Session;
use super::streams::Stream;
use crate::edge::reply::Gone;
use crate::http2::frame::{self, Code, Head, Kind};

/// What a stream that waits is promised at most, in bytes: two of the largest frames.
const TURN_BYTES_MAX: usize = 2 * frame::PAYLOAD_BYTES_MAX;

/// Whose turn it is to use what all streams share.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Streams that wait, by their tickets.
    waiting: BTreeMap<u64, u32>,
    /// The ticket of the next one.
    next: u64,
    /// What is kept for all that were woken, in bytes, and the heads of the frames that it takes.
    promised: usize,
    heads: usize,
}

impl Session {
    /// What has come of the body; `None` at its end.
    pub(super) fn poll_body(
        &mut self,
        id: u32,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Gone>>> {
        let Some(stream) = self.streams.get_mut(id) else { return Poll::Ready(Some(Err(Gone))) };
        if stream.look().is_err() {
            return Poll::Ready(Some(Err(Gone)));
        }
        if stream.body.is_empty() {
            if stream.is_received {
                return Poll::Ready(None);
            }
            stream.wait(context.waker());
            return Poll::Pending;
        }
        let body = std::mem::take(&mut stream.body);
        let len = u32::try_from(body.len()).expect("a window is less than 4 GiB");
        stream.owed += len;
        self.give_back_of(id);
        self.give_back(len);
        Poll::Ready(Some(Ok(Bytes::from(body))))
    }

    /// Waits for the client to give the stream up.
    pub(super) fn poll_gone(&mut self, id: u32, context: &mut Context<'_>) -> Poll<Gone> {
        let Some(stream) = self.streams.get_mut(id) else { return Poll::Ready(Gone) };
        if stream.look().is_err() {
            return Poll::Ready(Gone);
        }
        stream.wait(context.waker());
        Poll::Pending
    }

    /// How much may be sent of a stream now, at least a byte, of the bytes that it wants to send.
    pub(super) fn poll_room(
        &mut self,
        id: u32,
        wanted: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Gone>> {
        assert!(wanted > 0, "stream {id} waits to send nothing");
        let room = self.room(id);
        let Some(stream) = self.streams.get_mut(id).filter(|stream| !stream.is_gone) else {
            return Poll::Ready(Err(Gone));
        };
        let promised = self.turns.end_promise(stream);
        if room > 0 {
            // It is asked for in order to be used at once; what it leaves is promised after that.
            if room >= promised {
                self.turns.leave(stream);
            }
            return Poll::Ready(Ok(room));
        }
        stream.wait(context.waker());
        stream.wanted = wanted;
        if stream.send_window > 0 {
            self.turns.enter(id, stream);
        } else {
            self.turns.leave(stream);
        }
        self.wake_waiting();
        Poll::Pending
    }

    /// Whether a stream waits for what all share, and not for a window of its own.
    pub(super) fn is_in_line(&self, id: u32) -> bool {
        self.streams.get(id).is_some_and(|stream| stream.ticket.is_some())
    }

    /// How much may be sent of a stream now.
    pub(super) fn room(&self, id: u32) -> usize {
        let Some(stream) = self.streams.get(id) else { return 0 };
        let window = usize::try_from(stream.send_window).unwrap_or(0);
        window.min(self.shared_room(stream.promised))
    }

    /// How much is there of what all streams share, less what is promised to all but one who was promised
    /// so much.
    fn shared_room(&self, own: usize) -> usize {
        let promised = self.turns.promised - own;
        let heads = self.turns.heads - head_bytes(own);
        let out = self.limits.connection_send_bytes_max.saturating_sub(self.out.len());
        let window = usize::try_from(self.send_window).unwrap_or(0);
        window.saturating_sub(promised).min(data_in(out.saturating_sub(promised + heads)))
    }

    /// Wakes as many of those that wait as there is room for.
    pub(super) fn wake_waiting(&mut self) {
        loop {
            let shared = self.shared_room(0);
            if shared == 0 {
                return;
            }
            let Some((_, id)) = self.turns.waiting.pop_first() else { return };
            let stream = self.streams.get_mut(id).expect("who waits is there");
            let window = if stream.is_gone { 0 } else { usize::try_from(stream.send_window).unwrap_or(0) };
            self.turns.promise(stream, stream.wanted.min(window).min(TURN_BYTES_MAX).min(shared));
            if stream.promised > 0 {
                stream.wake();
            } else {
                // It waits for a window of its own, or for its end.
                stream.ticket = None;
            }
        }
    }

    /// Whether nobody has a stream, or waits for anything.
    pub(super) fn is_at_rest(&self) -> bool {
        self.streams.is_empty()
            && self.turns.waiting.is_empty()
            && self.turns.promised == 0
            && self.inflow.is_at_rest()
    }

    /// The head of an answer that goes well so far.
    pub(super) fn send_head(&mut self, id: u32) -> Result<(), Gone> {
        self.check_sendable(id)?;
        self.write_head_frame(id, false, FieldWriter::head);
        Ok(())
    }

    /// A part of an answer, at most [`room`](Self::room).
    pub(super) fn send_data(&mut self, id: u32, data: &[u8]) -> Result<(), Gone> {
        self.check_sendable(id)?;
        let room = self.room(id);
        assert!(data.len() <= room, "{} bytes of stream {id} into room for {room}", data.len());
        let stream = self.streams.get_mut(id).ok_or(Gone)?;
        stream.send_window -= data.len() as i64;
        self.send_window -= data.len() as i64;
        self.sent += data.len() as u64;
        for part in data.chunks(frame::PAYLOAD_BYTES_MAX) {
            Head { len: part.len(), kind: Kind::Data, flags: 0, stream: id }.write(&mut self.out);
            self.out.extend_from_slice(part);
        }
        self.wake_waiting();
        Ok(())
    }

    /// The trailers of an answer; `failure`: it did not go well.
    pub(super) fn send_trailers(&mut self, id: u32, failure: Option<&[Field]>) {
        self.send_last(id, |fields, out| match failure {
            None => fields.ok(out),
            Some(failure) => fields.trailers(failure, out),
        });
    }

    /// An answer that is a failure alone.
    pub(super) fn send_failure(&mut self, id: u32, failure: &[Field]) {
        self.send_last(id, |fields, out| fields.failure(failure, out));
    }

    /// An answer that is an HTTP status alone.
    pub(super) fn send_http(&mut self, id: u32, status: u16) {
        self.send_last(id, |fields, out| fields.http(status, out));
    }

    /// The stream's task is done with it. What the client has still to say is not wanted.
    pub(super) fn close(&mut self, id: u32) {
        let Some(mut stream) = self.streams.remove(id) else { return };
        self.turns.end_promise(&mut stream);
        self.turns.leave(&mut stream);
        // What nobody has taken of the body.
        self.give_back(u32::try_from(stream.body.len()).expect("a window is less than 4 GiB"));
        let is_whole = stream.is_received && stream.is_sent;
        if !stream.is_gone && is_whole {
            // Calls that end well make up for errors: a connection may be years old.
            self.errors = self.errors.saturating_sub(1);
        } else if !stream.is_gone {
            let code = if stream.is_sent { Code::NoError } else { Code::Cancel };
            self.write_reset(id, code);
        }
        self.wake_waiting();
        self.part_with_client();
    }

    fn check_sendable(&self, id: u32) -> Result<(), Gone> {
        let stream = self.streams.get(id).filter(|stream| !stream.is_gone).ok_or(Gone)?;
        assert!(!stream.is_sent, "stream {id} has ended");
        Ok(())
    }

    fn send_last(&mut self, id: u32, spell: impl FnOnce(&mut FieldWriter, &mut Vec<u8>)) {
        if self.check_sendable(id).is_err() {
            return;
        }
        self.write_head_frame(id, true, spell);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.is_sent = true;
        }
    }
}

/// The heads of the frames that carry so many bytes.
fn head_bytes(data: usize) -> usize {
    data.div_ceil(frame::PAYLOAD_BYTES_MAX) * frame::HEAD_BYTES
}

/// How many bytes are carried by frames that are so long with their heads.
fn data_in(bytes: usize) -> usize {
    const FRAME_BYTES: usize = frame::HEAD_BYTES + frame::PAYLOAD_BYTES_MAX;
    bytes / FRAME_BYTES * frame::PAYLOAD_BYTES_MAX + (bytes % FRAME_BYTES).saturating_sub(frame::HEAD_BYTES)
}

impl Turns {
    /// So much is kept for a stream.
    fn promise(&mut self, stream: &mut Stream, bytes: usize) {
        stream.promised = bytes;
        self.promised += bytes;
        self.heads += head_bytes(bytes);
    }

    /// Nothing is kept for a stream any more: how much it was.
    fn end_promise(&mut self, stream: &mut Stream) -> usize {
        let bytes = std::mem::take(&mut stream.promised);
        self.promised -= bytes;
        self.heads -= head_bytes(bytes);
        bytes
    }

    /// A stream waits: where it stood before, if what it was promised was not there.
    fn enter(&mut self, id: u32, stream: &mut Stream) {
        let ticket = *stream.ticket.get_or_insert(self.next);
        self.next = self.next.max(ticket + 1);
        self.waiting.insert(ticket, id);
    }

    /// A stream does not wait any more.
    fn leave(&mut self, stream: &mut Stream) {
        if let Some(ticket) = stream.ticket.take() {
            self.waiting.remove(&ticket);
        }
    }
}
