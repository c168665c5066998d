//! A connection to a node: dialled, kept, dialled again; one read and one write of the socket for all that a
//! turn of the engine takes and sends.
//!
//! ```text
//!          due                  greeted
//!   Down ───────► Connecting ──────────────► Up ──┐
//!    ▲  backoff         │ failed, too slow        │ closed, lost, drained, in breach of the protocol
//!    └──────────────────┴─────────────────────────┘
//! ```
//! Invariants:
//! - A connection that fails is dialled again after a pause that doubles up to `BACKOFF_NS_MAX`.
//! - The calls on it learn of its end before it is dialled again, so that a route (see [`Route`]) always
//!   means the connection that is up now.
//! - Whoever found no room is woken once there is some.
//!
//! What it deliberately does not do: send a call again, or decide where it goes.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::uri::Authority;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::arrivals::{Arrivals, failure_of};
use crate::call::Route;
use crate::http2::{Event, Heads, News, Request, Session, Violation};
use crate::message::Message;
use crate::method::Method;
use crate::pipeline::Pipeline;
use crate::status::{ErrorKind, Failure};

/// Bytes read at once. More than the largest frame, so that there is always room for the rest of one.
const IN_BYTES_MAX: usize = 64 << 10;
/// Reads in a turn, before the other connections have theirs.
const READS_MAX: usize = 16;
/// How long a dial may take, the server's first words included.
const DIAL_TIME_MAX: Duration = Duration::from_secs(2);
/// The pause before the second dial.
const BACKOFF_NS_MIN: u64 = 50_000_000;
/// The longest pause between dials.
const BACKOFF_NS_MAX: u64 = 1_000_000_000;
/// Whose stream a Pipeline is: no place has this number.
const PIPELINE_TOKEN: u32 = u32::MAX;

/// How operations travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// Each on a stream of its own.
    Unary,
    /// All on one stream.
    Pipeline,
}

/// An operation to be sent: its message, the tag and the place of its call.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// What is asked.
    pub message: Message<'a>,
    /// The call's tag.
    pub tag: u64,
    /// The call's place.
    pub place: u32,
}

/// One connection, up or not.
pub struct Link {
    address: Rc<str>,
    /// Its number among the connections of the engine.
    number: u32,
    heads: Rc<Heads>,
    carriage: Carriage,
    waker: Waker,
    state: State,
    backoff_ns: u64,
    /// Whether it has been up, or has failed, at least once.
    settled: bool,
    /// Whether a call found no room since the last flush.
    refused: bool,
}

enum State {
    /// Dialled at `until_ns`.
    Down { until_ns: u64 },
    /// Being dialled.
    Connecting(Pin<Box<dyn Future<Output = io::Result<Up>>>>),
    /// Usable, or draining.
    Up(Box<Up>),
}

/// What became of a connection when it was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Nothing that matters here.
    Same,
    /// It can take calls.
    CameUp,
    /// It cannot any more; its calls have been told.
    WentDown,
}

/// The address cannot be said to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

impl Link {
    /// A connection that is still to be dialled, woken by `waker`. `timeout` is said to the server with every
    /// unary call.
    pub fn new(
        address: &str,
        number: u32,
        carriage: Carriage,
        timeout: Duration,
        waker: Waker,
    ) -> Result<Self, BadAddress> {
        let authority: Authority = address.parse().map_err(|_| BadAddress)?;
        let heads = Heads::new(authority.as_str(), &grpc_timeout(timeout), &Method::PATHS);
        Ok(Self {
            address: address.into(),
            number,
            heads: Rc::new(heads),
            carriage,
            waker,
            state: State::Down { until_ns: 0 },
            backoff_ns: BACKOFF_NS_MIN,
            settled: false,
            refused: false,
        })
    }

    /// Moves the connection forward: dials, reads. What is to be written waits for [`Link::flush`].
    pub fn poll(&mut self, arrivals: &mut Arrivals<'_>) -> LinkChange {
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        if let State::Down { until_ns } = self.state {
            if arrivals.now_ns < until_ns {
                return LinkChange::Same;
            }
            let dialling = dial(Rc::clone(&self.address), Rc::clone(&self.heads));
            self.state = State::Connecting(Box::pin(dialling));
        }
        let mut change = LinkChange::Same;
        if let State::Connecting(dialling) = &mut self.state {
            match dialling.as_mut().poll(&mut context) {
                Poll::Pending => return LinkChange::Same,
                Poll::Ready(Err(_)) => return self.fall(arrivals),
                Poll::Ready(Ok(up)) => {
                    self.state = State::Up(Box::new(up));
                    self.settled = true;
                    change = LinkChange::CameUp;
                }
            }
        }
        let State::Up(up) = &mut self.state else { return change };
        match up.poll(self.number, arrivals, &mut context) {
            Ok(()) => {
                self.backoff_ns = BACKOFF_NS_MIN;
                change
            }
            Err(end) => {
                if let End::Broken(violation) = end {
                    eprintln!("loadgen: {} broke the protocol: {violation}", self.address);
                }
                self.fall(arrivals)
            }
        }
    }

    /// Gives the connection up, tells its calls, and sets the time of the next dial.
    fn fall(&mut self, arrivals: &mut Arrivals<'_>) -> LinkChange {
        if let State::Up(up) = &mut self.state {
            let Up { session, pipeline, .. } = &mut **up;
            session.lose(&mut |event| {
                // A Pipeline that is lost has no stream left to be cancelled.
                take(event, self.number, pipeline, arrivals);
            });
        }
        self.state = State::Down { until_ns: arrivals.now_ns + self.backoff_ns };
        self.backoff_ns = (self.backoff_ns * 2).min(BACKOFF_NS_MAX);
        self.settled = true;
        LinkChange::WentDown
    }

    /// Whether it has been up, or has failed, at least once.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether it is up and the server has not said that it takes no more.
    pub fn is_up(&self) -> bool {
        match &self.state {
            State::Up(up) => up.session.is_open(),
            State::Down { .. } | State::Connecting(_) => false,
        }
    }

    /// When it has to be polled to be dialled again; `None` while it is up or being dialled.
    pub fn dial_ns(&self) -> Option<u64> {
        match self.state {
            State::Down { until_ns } => Some(until_ns),
            State::Up(_) | State::Connecting(_) => None,
        }
    }

    /// Sends an operation; `None` where it cannot now: not up, or no room. It leaves with [`Link::flush`].
    pub fn send(&mut self, sending: &Sending<'_>) -> Option<Route> {
        let State::Up(up) = &mut self.state else { return None };
        if !up.session.has_room() {
            self.refused = true;
            return None;
        }
        let message = &sending.message;
        let stream = match self.carriage {
            Carriage::Unary => {
                let request = Request { token: sending.place, path: message.method.index() };
                up.session.send(request, message.framed_len(), |out| message.write(out))
            }
            Carriage::Pipeline => {
                let session = &mut up.session;
                let pipeline = up.pipeline.get_or_insert_with(|| {
                    let request = Request { token: PIPELINE_TOKEN, path: Method::PIPELINE };
                    Pipeline::new(session.open_endless(request))
                });
                session.write(pipeline.stream, |out| message.write_piped(sending.tag, out));
                pipeline.stream
            }
        };
        Some(Route { link: self.number, stream })
    }

    /// Gives up the answer to a call. An operation of a Pipeline cannot be taken back.
    pub fn cancel(&mut self, stream: u32) {
        match (&mut self.state, self.carriage) {
            (State::Up(up), Carriage::Unary) => up.session.cancel(stream),
            (State::Up(_), Carriage::Pipeline) | (State::Down { .. } | State::Connecting(_), _) => {}
        }
    }

    /// Writes what there is to be written. Where that fails, the next poll learns of it.
    pub fn flush(&mut self) {
        let State::Up(up) = &mut self.state else { return };
        let mut context = Context::from_waker(&self.waker);
        if let Poll::Ready(Err(_)) = up.poll_write(&mut context) {
            up.is_broken = true;
            self.waker.wake_by_ref();
        }
        if self.refused && up.session.has_room() {
            self.refused = false;
            self.waker.wake_by_ref();
        }
    }
}

/// Why a connection is over. The first is everyday life, the second is told.
enum End {
    /// The server closed it, or it was lost.
    Closed,
    /// The server broke the protocol.
    Broken(Violation),
}

/// A connection that is up: the socket, and the protocol that runs over it.
struct Up {
    stream: TcpStream,
    session: Session,
    pipeline: Option<Pipeline>,
    inbox: Box<[u8]>,
    /// Bytes of the inbox that were read and not taken: less than a frame.
    filled: usize,
    /// Bytes of the session's `out` that are written.
    written: usize,
    is_broken: bool,
}

impl Up {
    fn new(stream: TcpStream, heads: Rc<Heads>) -> Self {
        let inbox = vec![0; IN_BYTES_MAX].into_boxed_slice();
        let session = Session::new(heads);
        Self { stream, session, pipeline: None, inbox, filled: 0, written: 0, is_broken: false }
    }

    /// Reads what there is, a bounded number of times, and hands it on. A read that did not fill the inbox
    /// ends it without another system call, since tokio takes that for an empty socket.
    fn poll(
        &mut self,
        number: u32,
        arrivals: &mut Arrivals<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), End> {
        for _ in 0..READS_MAX {
            match self.poll_read(context) {
                Poll::Pending => {
                    let is_over = self.is_broken || self.session.is_over();
                    return if is_over { Err(End::Closed) } else { Ok(()) };
                }
                Poll::Ready(Err(_)) => return Err(End::Closed),
                Poll::Ready(Ok(())) => arrivals.came(),
            }
            self.take(number, arrivals).map_err(End::Broken)?;
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Takes the bytes that are whole frames.
    fn take(&mut self, number: u32, arrivals: &mut Arrivals<'_>) -> Result<(), Violation> {
        let Self { session, pipeline, inbox, filled, .. } = self;
        let mut malformed = None;
        let taken = session.receive(&inbox[..*filled], &mut |event| {
            if let Some(stream) = take(event, number, pipeline, arrivals) {
                malformed = Some(stream);
            }
        })?;
        self.keep_rest(taken);
        if let Some(stream) = malformed {
            self.session.cancel(stream);
        }
        Ok(())
    }

    /// Moves what was not taken to the front: the beginning of a frame, which is short.
    fn keep_rest(&mut self, taken: usize) {
        assert!(taken <= self.filled, "{taken} bytes taken of {}", self.filled);
        self.inbox.copy_within(taken..self.filled, 0);
        self.filled -= taken;
    }

    /// Says the first words and waits for the server's.
    fn poll_greet(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.is_greeted() {
            if let Poll::Ready(written) = self.poll_write(context) {
                written?;
            }
            ready!(self.poll_read(context))?;
            let taken = self.session.receive(&self.inbox[..self.filled], &mut |_| {});
            self.keep_rest(taken.map_err(io::Error::other)?);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once. The end of the stream is an error.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buf = ReadBuf::new(&mut self.inbox[self.filled..]);
        assert!(buf.remaining() > 0, "a frame larger than the inbox was let in");
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buf))?;
        match buf.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            read => {
                self.filled += read;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Writes until everything is written that may be, or the socket takes no more.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.session.fill();
            let out = &mut self.session.out;
            if out.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &out[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            if self.written == out.len() {
                out.clear();
                self.written = 0;
            }
        }
    }
}

/// Hands an event on to whom it concerns. Gives the stream of a Pipeline that cannot be read on.
fn take(
    event: Event<'_>,
    number: u32,
    pipeline: &mut Option<Pipeline>,
    arrivals: &mut Arrivals<'_>,
) -> Option<u32> {
    if event.token != PIPELINE_TOKEN {
        arrivals.take(event);
        return None;
    }
    let open = pipeline.as_mut()?;
    let failure = match event.news {
        News::Fields(fields) => {
            open.take_fields(fields);
            return None;
        }
        News::Data(data) => match open.take(data, &mut |tag, outcome| arrivals.take_piped(tag, outcome)) {
            Ok(()) => return None,
            Err(_) => Failure::of(ErrorKind::Malformed),
        },
        News::End => failure_of(open.status),
        News::Reset(code) => Failure::of(ErrorKind::Reset(code)),
        News::Lost => Failure::of(ErrorKind::ConnectionLost),
    };
    let stream = open.stream;
    *pipeline = None;
    arrivals.fail_piped(Route { link: number, stream }, failure);
    Some(stream)
}

/// A span as gRPC spells it, in at most eight digits.
fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis @ 0..=99_999_999 => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs()),
    }
}

/// Connects and waits for the server's first words.
async fn dial(address: Rc<str>, heads: Rc<Heads>) -> io::Result<Up> {
    let dialling = async {
        let stream = TcpStream::connect(&*address).await?;
        stream.set_nodelay(true)?;
        let mut up = Up::new(stream, heads);
        poll_fn(|context| up.poll_greet(context)).await?;
        Ok(up)
    };
    tokio::time::timeout(DIAL_TIME_MAX, dialling).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::spell;
    use crate::routing::Routing;
    use crate::shared::Shared;

    fn link(address: &str) -> Result<Link, BadAddress> {
        Link::new(address, 0, Carriage::Unary, Duration::from_secs(1), Waker::noop().clone())
    }

    #[test]
    fn spans_and_addresses() {
        assert_eq!(grpc_timeout(Duration::from_millis(1500)), "1500m");
        assert_eq!(grpc_timeout(Duration::from_secs(100_000)), "100000S");
        assert_eq!(link("not an address").err(), Some(BadAddress));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_dial_that_fails_is_tried_again_later_and_later() {
        let mut link = link("127.0.0.1:1").expect("a good address");
        let shared = Shared::new(Routing::any_of(&[]));
        let (mut pauses, mut ended, mut now_ns) = (Vec::new(), Vec::new(), 0);
        for _ in 0..7 {
            let mut arrivals = Arrivals { calls: &mut [], ended: &mut ended, shared: &shared, now_ns };
            while link.poll(&mut arrivals) != LinkChange::WentDown {
                tokio::task::yield_now().await;
            }
            let next_ns = link.dial_ns().expect("it is down");
            pauses.push((next_ns - now_ns) / 1_000_000);
            now_ns = next_ns;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert!(link.is_settled() && !link.is_up());
        let message = Message { method: Method::Put, key: &spell(1), value: b"", number: 0 };
        assert_eq!(link.send(&Sending { message, tag: 0, place: 0 }), None);
    }
}
