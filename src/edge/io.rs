//! A glommio socket as tokio's IO traits, which connections are written against: tests serve pipes in memory.
//!
//! Invariants:
//! - The bytes that told what a connection is come before what the socket still has.
//! - A read that waits is handed to the kernel once, however often its task is polled meanwhile: glommio
//!   would note one more waker each time, without end on a connection that only sends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf as _, Bytes};
use futures_lite::io::{AsyncBufRead as _, AsyncWrite as _};
use glommio::net::{Preallocated, TcpStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one read may bring.
const READ_BYTES_MAX: usize = 64 << 10;

/// A TCP connection of a glommio executor.
pub struct TcpIo {
    first: Bytes,
    stream: TcpStream<Preallocated>,
    gate: Arc<ReadGate>,
    is_reading: bool,
}

impl TcpIo {
    /// A connection of which `first` was read already.
    #[must_use]
    pub fn new(stream: TcpStream, first: Bytes) -> Self {
        let stream = stream.buffered_with(Preallocated::new(READ_BYTES_MAX));
        let gate = ReadGate { is_woken: AtomicBool::new(false), task: Mutex::new(None) };
        Self { first, stream, gate: Arc::new(gate), is_reading: false }
    }
}

/// Stands between the kernel's read and the task: it tells whether the read has ended since it was last
/// looked at.
struct ReadGate {
    is_woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl ReadGate {
    fn set_task(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }
}

impl Wake for ReadGate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl AsyncRead for TcpIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first.is_empty() {
            let part = this.first.split_to(this.first.len().min(buf.remaining()));
            buf.put_slice(part.chunk());
            return Poll::Ready(Ok(()));
        }
        this.gate.set_task(context.waker());
        if this.is_reading && !this.gate.is_woken.swap(false, Ordering::Acquire) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&this.gate));
        let read = Pin::new(&mut this.stream).poll_fill_buf(&mut Context::from_waker(&waker));
        this.is_reading = read.is_pending();
        let bytes = ready!(read)?;
        let length = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..length]);
        Pin::new(&mut this.stream).consume(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
