//! One connection: its protocol, its timers, and going away. One task, on the core that accepted it.
//!
//! ```text
//! greeting ──► serving ──1──► going away ──2──► lingering ──3──► closed
//!     │            ├────────────4───────────────────▲              ▲
//!     └────────────┴────────────5──────────────────────────────────┘
//!
//!  1  idle too long, or the core drains       4  the client broke the protocol
//!  2  the client has heard of it and no       5  too slow, or silent after a ping; or gone
//!     stream is left, or the drain's deadline
//!  3  the client has closed, or did not in time
//! ```
//!
//! Invariants:
//! - The task's turn ends with one flush of all that its streams said.
//! - A connection ends at the latest at the drain's deadline, and a silent one a ping's timeout after it was
//!   found silent.
//! - Nothing is read while too much of what is to be written does not leave.
//!
//! It deliberately does not read messages: each stream's own task does.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::Budget;
use super::drain::{Drain, DrainBegun};
use super::http2::{Channel, Opened, Session};
use super::linger::linger;
use super::store::Store;
use super::{Edge, stream};
use crate::env::stages::Stage;
use crate::env::{Env, Instant};
use crate::http2::frame::{Code, HEAD_BYTES};

/// What one read may bring, at least.
const READ_BYTES_MIN: usize = 64 << 10;
/// Reads of one turn; the executor's other tasks come before the next ones.
const READS_PER_TURN_MAX: usize = 4;

/// Serves a connection until it ends.
pub(super) async fn serve<IO, E, S>(edge: &Edge<E, S>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    E: Env,
    S: Store,
{
    let mut driver = Driver::new(edge.clone(), io);
    let end = poll_fn(|context| driver.poll(context)).await;
    // Streams and what they hold end here.
    let Wire { io, input, .. } = driver.into_wire();
    match end {
        End::Said => linger(edge, io, input).await,
        End::Lost => {}
    }
}

/// How a connection ends.
enum End {
    /// All was said that there was to say; the client may not have it yet.
    Said,
    /// Nobody is there, or nobody who listens.
    Lost,
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
    /// It was asked; something is to have come by this time.
    Waits(Instant),
}

/// What a read came to.
enum Read {
    Some,
    /// The client sends no more.
    End,
    /// Nothing was read: something else has to be done first.
    Held,
}

/// The connection's socket, and the bytes on their way through it.
struct Wire<IO> {
    io: IO,
    /// Bytes that came, of which the first `received` are here, and begin a frame.
    input: Box<[u8]>,
    received: usize,
    /// How much of what goes out the socket has taken.
    written: usize,
    /// The socket took no more when it was last asked.
    is_full: bool,
    /// A sign of the client's life since this was last asked: something came, or the socket, which was full,
    /// has room again, since the client's host has taken something.
    has_heard: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    /// Reads once.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Read>> {
        assert!(self.received < self.input.len(), "a whole frame was not taken");
        let mut room = ReadBuf::new(&mut self.input[self.received..]);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut room))?;
        let read = room.filled().len();
        self.received += read;
        self.has_heard |= read > 0;
        Poll::Ready(Ok(if read == 0 { Read::End } else { Read::Some }))
    }

    /// Has the session take the frames that have come, and counts what that costs.
    fn receive<E: Env, S: Store>(
        &mut self,
        edge: &Edge<E, S>,
        session: &mut Session,
        opened: &mut Vec<Opened>,
    ) {
        if self.received == 0 {
            return;
        }
        let (began, before) = (edge.env().now(), opened.len());
        let taken = session.receive(&self.input[..self.received], opened);
        self.input.copy_within(taken..self.received, 0);
        self.received -= taken;
        if taken > 0 {
            let took = edge.env().now().since(began);
            edge.store().stages().add(Stage::Frames, took, (opened.len() - before) as u64);
        }
    }

    /// Writes what the session has to say.
    fn poll_flush(&mut self, session: &mut Session, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if session.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < session.out.len() {
            let taken = Pin::new(&mut self.io).poll_write(context, &session.out[self.written..]);
            let was_full = std::mem::replace(&mut self.is_full, taken.is_pending());
            let written = ready!(taken)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_heard |= was_full;
            self.written += written;
            session.wrote(written);
        }
        self.written = 0;
        session.written();
        Pin::new(&mut self.io).poll_flush(context)
    }
}

/// The connection's task.
struct Driver<IO, E: Env, S: Store> {
    edge: Edge<E, S>,
    wire: Wire<IO>,
    channel: Channel,
    /// Requests that have come and have no task yet: empty between turns.
    opened: Vec<Opened>,
    budget: Budget,
    activity: Activity,
    keepalive: Keepalive,
    timer: Pin<Box<dyn Future<Output = ()>>>,
    /// Waits for the core to go away; `None` once it does.
    drain_begun: Option<DrainBegun>,
    /// By when the client has to have said its first words.
    greeting_due: Instant,
    /// By when the client has to have heard that an idle connection goes away.
    farewell_due: Option<Instant>,
    /// The drain's deadline.
    cutoff: Option<Instant>,
}

impl<IO, E, S> Driver<IO, E, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    E: Env,
    S: Store,
{
    fn new(edge: Edge<E, S>, io: IO) -> Self {
        let limits = *edge.limits();
        let now = edge.env().now();
        let drain: &Drain = &edge.inner.drain;
        let budget = edge.inner.budget.connection(limits.connection_bytes_max);
        let input_bytes = READ_BYTES_MIN.max(HEAD_BYTES + limits.frame_bytes_max as usize);
        Self {
            wire: Wire {
                io,
                input: vec![0; input_bytes].into(),
                received: 0,
                written: 0,
                is_full: false,
                has_heard: false,
            },
            channel: Channel::new(Session::new(limits, budget.clone())),
            opened: Vec::new(),
            budget,
            activity: Activity { streams: Rc::default(), last_end: Rc::new(Cell::new(now)) },
            keepalive: Keepalive::Rests(now + limits.keepalive_interval),
            timer: Box::pin(edge.env().sleep(limits.handshake_timeout.min(limits.keepalive_interval))),
            drain_begun: Some(drain.begun()),
            greeting_due: now + limits.handshake_timeout,
            farewell_due: None,
            cutoff: None,
            edge,
        }
    }

    fn into_wire(self) -> Wire<IO> {
        self.wire
    }

    /// One turn: ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.channel.sleep(context.waker());
        self.channel.session().begin_turn();
        self.poll_drain(context);
        let end = match self.poll_io(context) {
            Poll::Ready(end) => end,
            Poll::Pending => ready!(self.poll_timers(context)),
        };
        self.channel.session().lose();
        Poll::Ready(end)
    }

    /// Reads, begins a task for every request, and writes; ready when the connection is over or lost.
    fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<End> {
        for _ in 0..READS_PER_TURN_MAX {
            let read = self.poll_requests(context);
            match self.poll_flush(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Lost),
                Poll::Ready(Ok(())) if self.channel.session().is_over() => return Poll::Ready(End::Said),
                Poll::Ready(Ok(())) => {}
            }
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_) | Ok(Read::End)) => return Poll::Ready(End::Lost),
                // What was not read can be, now that all is written and after the streams' tasks have run.
                Poll::Ready(Ok(Read::Some | Read::Held)) => {}
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what the streams have said, where they said something.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.channel.session();
        let (all, before) = (session.out.len(), self.wire.written);
        if all == before {
            return self.wire.poll_flush(&mut session, context);
        }
        let began = self.edge.env().now();
        let flushed = self.wire.poll_flush(&mut session, context);
        let taken = if session.out.is_empty() { all } else { self.wire.written } - before;
        let took = self.edge.env().now().since(began);
        self.edge.store().stages().add(Stage::Send, took, taken as u64);
        flushed
    }

    /// Reads once, and begins a task for every request that has come.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let mut session = self.channel.session();
        // What was left lying before.
        self.wire.receive(&self.edge, &mut session, &mut self.opened);
        let read = match session.is_readable() {
            true => self.wire.poll_read(context),
            false => Poll::Ready(Ok(Read::Held)),
        };
        self.wire.receive(&self.edge, &mut session, &mut self.opened);
        drop(session);
        for opened in std::mem::take(&mut self.opened) {
            self.start_stream(opened);
        }
        read
    }

    fn start_stream(&mut self, Opened { id, fields }: Opened) {
        self.activity.streams.set(self.activity.streams.get() + 1);
        let active = ActiveStream { activity: self.activity.clone(), env: self.edge.env().clone() };
        let task = stream::serve(self.edge.clone(), self.budget.clone(), fields, self.channel.stream(id));
        self.edge.env().spawn(async move {
            task.await;
            drop(active);
        });
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) {
        let Some(begun) = &mut self.drain_begun else { return };
        let Poll::Ready(deadline) = Pin::new(begun).poll(context) else { return };
        self.drain_begun = None;
        self.cutoff = Some(deadline);
        let mut session = self.channel.session();
        // Streams that are open end by themselves, or at the deadline; before the greeting there are none.
        match session.is_greeted() {
            true => session.go_away(),
            false => session.end(Code::NoError),
        }
        drop(session);
        self.set_timer(self.edge.env().now());
    }

    /// Acts on the times that have come; ready when the connection is to be cut off.
    fn poll_timers(&mut self, context: &mut Context<'_>) -> Poll<End> {
        while self.timer.as_mut().poll(context).is_ready() {
            let now = self.edge.env().now();
            let is_greeted = self.channel.session().is_greeted();
            if self.cutoff.is_some_and(|cutoff| cutoff <= now) {
                let mut session = self.channel.session();
                session.end(Code::NoError);
                let is_said = matches!(self.wire.poll_flush(&mut session, context), Poll::Ready(Ok(())));
                return Poll::Ready(if is_said { End::Said } else { End::Lost });
            }
            if (!is_greeted && self.greeting_due <= now) || !self.keep_alive(now) {
                return Poll::Ready(End::Lost);
            }
            self.end_idleness(now);
            self.set_timer(now);
            // What was just said leaves with the next turn.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Asks whether the client is there, when it has been silent for long; whether the connection may go on.
    /// Whatever comes or goes is a sign of life: the answer itself may be far behind in what the client has
    /// to say, and the question in what it has to take.
    fn keep_alive(&mut self, now: Instant) -> bool {
        let limits = *self.edge.limits();
        let mut session = self.channel.session();
        match self.keepalive {
            Keepalive::Rests(due) | Keepalive::Waits(due) if now < due => return true,
            Keepalive::Rests(_) | Keepalive::Waits(_) => session.shrink(),
        }
        match self.keepalive {
            Keepalive::Rests(_) | Keepalive::Waits(_) if std::mem::take(&mut self.wire.has_heard) => {
                self.keepalive = Keepalive::Rests(now + limits.keepalive_interval);
            }
            Keepalive::Waits(_) => return false,
            Keepalive::Rests(_) if !session.is_greeted() => {}
            Keepalive::Rests(_) => {
                session.ask();
                self.keepalive = Keepalive::Waits(now + limits.keepalive_timeout);
            }
        }
        true
    }

    /// Says farewell to a client that has no stream for long. A call that crosses the farewell has its time
    /// as any other; what begins after the client has heard of it, or has had the time to, is not looked at.
    fn end_idleness(&mut self, now: Instant) {
        let mut session = self.channel.session();
        if self.farewell_due.is_some_and(|due| due <= now) {
            self.farewell_due = None;
            session.part();
        } else if self.idle_due().is_some_and(|due| due <= now) && session.is_greeted() && !session.is_going()
        {
            session.go_away();
            self.farewell_due = Some(now + self.edge.limits().handshake_timeout);
        }
    }

    /// When a connection without a stream has none for too long.
    fn idle_due(&self) -> Option<Instant> {
        let is_idle = self.activity.streams.get() == 0;
        is_idle.then(|| self.activity.last_end.get() + self.edge.limits().idle_timeout)
    }

    /// Sleeps until the next time at which something may have to be done.
    fn set_timer(&mut self, now: Instant) {
        let session = self.channel.session();
        let own_due = match self.keepalive {
            Keepalive::Rests(_) if !session.is_greeted() => self.greeting_due,
            Keepalive::Rests(due) | Keepalive::Waits(due) => due,
        };
        // A connection with streams is looked at again when it may have been idle for long.
        let idle_due = self.idle_due().unwrap_or(now + self.edge.limits().idle_timeout);
        let idle_due = (session.is_greeted() && !session.is_going()).then_some(idle_due);
        let dues = [self.cutoff, self.farewell_due, idle_due];
        let due = dues.into_iter().flatten().fold(own_due, Instant::min);
        drop(session);
        let wait = due.since(now).max(Duration::from_millis(1));
        self.timer = Box::pin(self.edge.env().sleep(wait));
    }
}
