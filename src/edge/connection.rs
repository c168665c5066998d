//! One connection: h2's state machine, its timers, and going away. One task, on the core that accepted it.
//!
//! ```text
//! handshake ──► serving ──► going away ──► closed
//!     │            │  idle too long,          ▲
//!     │            │  or the core drains      │ no stream is left, or the drain's deadline
//!     └────────────┴──────────────────────────┘
//!       too slow, or no answer to a ping
//! ```
//!
//! Invariants:
//! - The task's turn ends with one flush of all that its streams said.
//! - A connection ends at the latest at the drain's deadline, and a silent one a ping's timeout after it fell
//!   silent.
//!
//! It deliberately does not read messages: each stream's own task does.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, Reason};
use tokio::io::{AsyncRead, AsyncWrite};

use super::batch::{Batched, Flusher, batch};
use super::budget::Budget;
use super::drain::{Drain, DrainBegun};
use super::limits::EdgeLimits;
use super::store::Store;
use super::{Edge, stream};
use crate::env::{Env, Instant};

/// Requests that one turn takes; the executor's other tasks come before the next ones.
const REQUESTS_PER_TURN_MAX: usize = 256;

/// Serves a connection until it ends.
pub(super) async fn serve<IO, E, S>(edge: &Edge<E, S>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    E: Env,
    S: Store,
{
    let (batched, flusher) = batch(io);
    let Some(connection) = handshake(edge, batched, &flusher).await else { return };
    let mut driver = Driver::new(edge.clone(), connection, flusher);
    poll_fn(|context| driver.poll(context)).await;
}

type Connection<IO> = h2::server::Connection<Batched<IO>, Bytes>;

/// h2's handshake, where it comes about in time.
async fn handshake<IO, E, S>(
    edge: &Edge<E, S>,
    io: Batched<IO>,
    flusher: &Flusher<IO>,
) -> Option<Connection<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    E: Env,
    S: Store,
{
    let mut handshake = pin!(builder(edge.limits()).handshake(io));
    let mut late = pin!(edge.env().sleep(edge.limits().handshake_timeout));
    let mut begun = pin!(edge.inner.drain.begun());
    poll_fn(|context| {
        if let Poll::Ready(connection) = handshake.as_mut().poll(context) {
            return Poll::Ready(connection.ok());
        }
        let failed = matches!(flusher.poll_flush(context), Poll::Ready(Err(_)));
        if failed || late.as_mut().poll(context).is_ready() || begun.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

fn builder(limits: &EdgeLimits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_list_bytes_max)
        .header_table_size(limits.header_table_bytes_max)
        .max_frame_size(limits.frame_bytes_max)
        .initial_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_send_buffer_size(limits.stream_send_bytes_max)
        .max_concurrent_reset_streams(limits.reset_streams_max)
        .max_pending_accept_reset_streams(limits.pending_reset_streams_max)
        .max_local_error_reset_streams(Some(limits.error_resets_max));
    builder
}

/// What a connection's streams tell its task.
#[derive(Clone)]
struct Activity {
    streams: Rc<Cell<usize>>,
    last_end: Rc<Cell<Instant>>,
}

/// One stream of a connection, for as long as its task lives.
struct ActiveStream<E: Env> {
    activity: Activity,
    env: E,
}

impl<E: Env> Drop for ActiveStream<E> {
    fn drop(&mut self) {
        let streams = self.activity.streams.get();
        assert!(streams > 0, "a stream ended of {streams}");
        self.activity.streams.set(streams - 1);
        if streams == 1 {
            self.activity.last_end.set(self.env.now());
        }
    }
}

/// Whether the connection is asked if it is still there.
enum Keepalive {
    /// To be asked next at this time.
    Rests(Instant),
    /// It was asked; the answer is due at this time.
    Waits(Instant),
}

/// The connection's task.
struct Driver<IO, E: Env, S: Store> {
    edge: Edge<E, S>,
    connection: Connection<IO>,
    flusher: Flusher<IO>,
    budget: Budget,
    activity: Activity,
    ping: Option<PingPong>,
    keepalive: Keepalive,
    timer: Pin<Box<dyn Future<Output = ()>>>,
    /// Waits for the core to go away; `None` once it does.
    drain_begun: Option<DrainBegun>,
    cutoff: Option<Instant>,
}

impl<IO, E, S> Driver<IO, E, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    E: Env,
    S: Store,
{
    fn new(edge: Edge<E, S>, mut connection: Connection<IO>, flusher: Flusher<IO>) -> Self {
        let limits = *edge.limits();
        let now = edge.env().now();
        let drain: &Drain = &edge.inner.drain;
        Self {
            budget: edge.inner.budget.connection(limits.connection_bytes_max),
            activity: Activity { streams: Rc::default(), last_end: Rc::new(Cell::new(now)) },
            ping: connection.ping_pong(),
            keepalive: Keepalive::Rests(now + limits.keepalive_interval),
            timer: Box::pin(edge.env().sleep(limits.keepalive_interval.min(limits.idle_timeout))),
            drain_begun: Some(drain.begun()),
            cutoff: None,
            edge,
            connection,
            flusher,
        }
    }

    /// One turn: whether the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_drain(context);
        let is_over = self.poll_requests(context).is_ready();
        // Once more than needed where the connection is over: h2's last words are worth a try.
        if matches!(self.flusher.poll_flush(context), Poll::Ready(Err(_))) || is_over {
            return Poll::Ready(());
        }
        if self.poll_timers(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Drives h2 and starts a task for every request; ready when the connection is over.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..REQUESTS_PER_TURN_MAX {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => self.start_stream(request, respond),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn start_stream(
        &mut self,
        request: http::Request<h2::RecvStream>,
        respond: h2::server::SendResponse<Bytes>,
    ) {
        self.activity.streams.set(self.activity.streams.get() + 1);
        let active = ActiveStream { activity: self.activity.clone(), env: self.edge.env().clone() };
        let task = stream::serve(self.edge.clone(), self.budget.clone(), request, respond);
        self.edge.env().spawn(async move {
            task.await;
            drop(active);
        });
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) {
        let Some(begun) = &mut self.drain_begun else { return };
        let Poll::Ready(deadline) = Pin::new(begun).poll(context) else { return };
        self.drain_begun = None;
        self.go_away(deadline);
    }

    /// Tells the client to send no more; streams that are open end by themselves, or at the deadline.
    fn go_away(&mut self, deadline: Instant) {
        let cutoff = self.cutoff.map_or(deadline, |earlier| earlier.min(deadline));
        self.connection.graceful_shutdown();
        self.cutoff = Some(cutoff);
        self.set_timer(self.edge.env().now());
    }

    /// Acts on the times that have come; ready when the connection is to be cut off.
    fn poll_timers(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_pong(context);
        while self.timer.as_mut().poll(context).is_ready() {
            let now = self.edge.env().now();
            if self.cutoff.is_some_and(|cutoff| cutoff <= now) {
                self.connection.abrupt_shutdown(Reason::NO_ERROR);
                let _ = self.connection.poll_closed(context);
                let _ = self.flusher.poll_flush(context);
                return Poll::Ready(());
            }
            if !self.keep_alive(now) {
                return Poll::Ready(());
            }
            self.end_idleness(now);
            self.set_timer(now);
            // What was just asked of h2 leaves with its next turn.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_pong(&mut self, context: &mut Context<'_>) {
        if let (Keepalive::Waits(_), Some(ping)) = (&self.keepalive, &mut self.ping)
            && ping.poll_pong(context).is_ready()
        {
            let now = self.edge.env().now();
            self.keepalive = Keepalive::Rests(now + self.edge.limits().keepalive_interval);
        }
    }

    /// Asks whether the client is there, when it is time; whether the connection may go on.
    fn keep_alive(&mut self, now: Instant) -> bool {
        match self.keepalive {
            Keepalive::Waits(due) => now < due,
            Keepalive::Rests(due) => {
                if now < due {
                    return true;
                }
                let limits = self.edge.limits();
                let is_sent = self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
                self.keepalive = match is_sent {
                    true => Keepalive::Waits(now + limits.keepalive_timeout),
                    false => Keepalive::Rests(now + limits.keepalive_interval),
                };
                true
            }
        }
    }

    fn end_idleness(&mut self, now: Instant) {
        let idle_since = self.activity.last_end.get();
        let is_idle =
            self.activity.streams.get() == 0 && now.since(idle_since) >= self.edge.limits().idle_timeout;
        if is_idle && self.cutoff.is_none() {
            self.go_away(now + self.edge.limits().handshake_timeout);
        }
    }

    /// Sleeps until the next time at which something may have to be done.
    fn set_timer(&mut self, now: Instant) {
        let limits = self.edge.limits();
        let keepalive_due = match self.keepalive {
            Keepalive::Rests(due) | Keepalive::Waits(due) => due,
        };
        let idle_due = match self.activity.streams.get() {
            0 => self.activity.last_end.get() + limits.idle_timeout,
            _ => now + limits.idle_timeout,
        };
        let due = keepalive_due.min(self.cutoff.unwrap_or(idle_due));
        let wait = due.since(now).max(Duration::from_millis(1));
        self.timer = Box::pin(self.edge.env().sleep(wait));
    }
}
