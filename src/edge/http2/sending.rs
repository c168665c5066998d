//! What a stream's task asks of its connection, and what it says.
//!
//! Invariants:
//! - A DATA frame is never larger than the client's windows and the usual frame allow.
//! - Nothing is sent of a stream after its end, and nothing of one that is gone.
//! - A stream whose task is done with it and that has not ended on both sides is ended by force.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::answers::{Field, FieldWriter};
use super::session::Session;
use crate::edge::reply::Gone;
use crate::http2::frame::{self, Code, Head, Kind};

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

    /// How much may be sent of a stream now, at least a byte.
    pub(super) fn poll_room(&mut self, id: u32, context: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
        let room = self.room(id);
        let Some(stream) = self.streams.get_mut(id).filter(|stream| !stream.is_gone) else {
            return Poll::Ready(Err(Gone));
        };
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        stream.wait(context.waker());
        if stream.send_window > 0 && !self.waiting.contains(&id) {
            self.waiting.push(id);
        }
        Poll::Pending
    }

    /// How much may be sent of a stream now.
    pub(super) fn room(&self, id: u32) -> usize {
        let windows = self.streams.get(id).map_or(0, |stream| stream.send_window.min(self.send_window));
        let out = self.limits.connection_send_bytes_max.saturating_sub(self.out.len());
        usize::try_from(windows).map_or(0, |windows| windows.min(out))
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
        for part in data.chunks(frame::PAYLOAD_BYTES_MAX) {
            Head { len: part.len(), kind: Kind::Data, flags: 0, stream: id }.write(&mut self.out);
            self.out.extend_from_slice(part);
        }
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
        let Some(stream) = self.streams.remove(id) else { return };
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
