//! One write for everything that a connection's turn has to say.
//!
//! h2 flushes after every larger DATA frame and whenever it has nothing more to encode. Answers of many
//! streams become ready in the same turn of the executor, so the flush is put off to the end of the
//! connection task's turn: the task owns a [`Flusher`], polls h2, then flushes once.
//!
//! Invariants:
//! - Bytes leave in the order written.
//! - What waits is bounded: at [`WRITE_BYTES_MAX`] a write waits for the socket.
//! - Whoever polls h2's side flushes before it returns to the executor; a shutdown flushes by itself.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What waits at most to be flushed.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// The side that h2 reads and writes.
pub(super) struct Batched<IO> {
    state: Rc<RefCell<State<IO>>>,
}

/// The side that the connection's task flushes.
pub(super) struct Flusher<IO> {
    state: Rc<RefCell<State<IO>>>,
}

struct State<IO> {
    io: IO,
    waiting: Vec<u8>,
    /// How much of `waiting` the socket has taken.
    written: usize,
}

/// Splits an IO into what h2 uses and what flushes.
pub(super) fn batch<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) -> (Batched<IO>, Flusher<IO>) {
    let state = Rc::new(RefCell::new(State { io, waiting: Vec::new(), written: 0 }));
    (Batched { state: Rc::clone(&state) }, Flusher { state })
}

impl<IO: AsyncWrite + Unpin> Flusher<IO> {
    /// Writes what waits.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.borrow_mut().poll_flush(context)
    }
}

impl<IO: AsyncWrite + Unpin> State<IO> {
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let rest = &self.waiting[self.written..];
            let written = ready!(Pin::new(&mut self.io).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.waiting.clear();
        self.written = 0;
        Pin::new(&mut self.io).poll_flush(context)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Batched<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state.borrow_mut().io).poll_read(context, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Batched<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.waiting.len() >= WRITE_BYTES_MAX {
            ready!(state.poll_flush(context))?;
        }
        let taken = buf.len().min(WRITE_BYTES_MAX - state.waiting.len());
        state.waiting.extend_from_slice(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        ready!(state.poll_flush(context))?;
        Pin::new(&mut state.io).poll_shutdown(context)
    }
}
