//! A connection to a node: dialled, kept, dialled again; and a writer that gathers what a turn sends into one
//! write.
//!
//! ```text
//!          due                  connected
//!   Down ───────► Connecting ──────────────► Up ──┐
//!    ▲  backoff         │ failed, too slow        │ closed, lost, GOAWAY drained
//!    └──────────────────┴─────────────────────────┘
//! ```
//! h2 flushes before every larger DATA frame, which would be a system call for each request. So what h2
//! writes goes to a buffer, what it flushes stays there, and the buffer is written when h2 has nothing more
//! to say.
//!
//! Invariants: at most `OUT_BYTES_MAX` bytes, and one write of h2's, wait for the socket; a connection that
//! fails is dialled again after a pause that doubles up to `BACKOFF_NS_MAX`.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{Connection, ResponseFuture, SendRequest};
use http::{HeaderValue, Method as HttpMethod, Request, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::workload::Method;

/// Bytes that may wait for the socket before h2 is told to wait.
const OUT_BYTES_MAX: usize = 256 << 10;
/// How long a dial may take.
const DIAL_TIME_MAX: Duration = Duration::from_secs(2);
/// The pause before the second dial.
const BACKOFF_NS_MIN: u64 = 50_000_000;
/// The longest pause between dials.
const BACKOFF_NS_MAX: u64 = 1_000_000_000;
/// How much of an answer the server may send ahead: more than the largest answer.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// How much of all answers the server may send ahead.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// One connection, up or not.
pub struct Link {
    address: Rc<str>,
    waker: Waker,
    templates: [Request<()>; 4],
    state: State,
    backoff_ns: u64,
    /// Whether it has been up, or has failed, at least once.
    settled: bool,
}

enum State {
    /// Dialled at `until_ns`.
    Down { until_ns: u64 },
    /// Being dialled.
    Connecting(Pin<Box<dyn Future<Output = io::Result<Up>>>>),
    /// Usable, or draining.
    Up(Box<Up>),
}

struct Up {
    /// Gone once the server has said that it takes no more.
    sender: Option<SendRequest<Bytes>>,
    driver: Connection<Gathering, Bytes>,
    pipe: Rc<Pipe>,
}

/// What became of a connection when it was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Nothing that matters here.
    Same,
    /// It can take calls.
    CameUp,
    /// It cannot any more; its calls will learn of it by themselves.
    WentDown,
}

impl Link {
    /// A connection that is still to be dialled, woken by `waker`. `timeout` is said to the server with every
    /// call.
    pub fn new(address: &str, timeout: Duration, waker: Waker) -> Result<Self, http::Error> {
        let mut templates = Vec::with_capacity(Method::ALL.len());
        for method in Method::ALL {
            templates.push(template(address, method, timeout)?);
        }
        let templates = templates.try_into().expect("there is one template for each of four methods");
        let state = State::Down { until_ns: 0 };
        Ok(Self {
            address: address.into(),
            waker,
            templates,
            state,
            backoff_ns: BACKOFF_NS_MIN,
            settled: false,
        })
    }

    /// Moves the connection forward: dials, reads, writes.
    pub fn poll(&mut self, now_ns: u64) -> LinkChange {
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        if let State::Down { until_ns } = self.state {
            if now_ns < until_ns {
                return LinkChange::Same;
            }
            self.state = State::Connecting(Box::pin(dial(Rc::clone(&self.address))));
        }
        let mut change = LinkChange::Same;
        if let State::Connecting(dialling) = &mut self.state {
            match dialling.as_mut().poll(&mut context) {
                Poll::Pending => return LinkChange::Same,
                Poll::Ready(Err(_)) => return self.fall(now_ns),
                Poll::Ready(Ok(up)) => {
                    self.state = State::Up(Box::new(up));
                    self.settled = true;
                    change = LinkChange::CameUp;
                }
            }
        }
        match &mut self.state {
            State::Up(up) => match up.poll(&mut context) {
                Poll::Pending => {
                    self.backoff_ns = BACKOFF_NS_MIN;
                    change
                }
                Poll::Ready(()) => self.fall(now_ns),
            },
            State::Down { .. } | State::Connecting(_) => change,
        }
    }

    /// Gives the connection up and sets the time of the next dial.
    fn fall(&mut self, now_ns: u64) -> LinkChange {
        self.state = State::Down { until_ns: now_ns + self.backoff_ns };
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
            State::Up(up) => up.sender.is_some(),
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

    /// Sends a request; `None` where it cannot now: not up, or the server allows no further stream.
    pub fn send(
        &mut self,
        method: Method,
        body: impl FnOnce() -> Bytes,
    ) -> Option<Result<ResponseFuture, h2::Error>> {
        let State::Up(up) = &mut self.state else { return None };
        let sender = up.sender.as_mut()?;
        match sender.poll_ready(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => return None,
            Poll::Ready(Err(_)) => {
                // What is under way is still answered; the driver ends by itself once that is done.
                up.sender = None;
                return None;
            }
            Poll::Ready(Ok(())) => {}
        }
        Some(sender.send_request(self.templates[method.index()].clone(), false).and_then(
            |(response, mut stream)| {
                stream.send_data(body(), true)?;
                Ok(response)
            },
        ))
    }
}

impl Up {
    /// Drives h2, then writes what it gathered. Ready when the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let over = Pin::new(&mut self.driver).poll(context).is_ready();
        let written = self.pipe.poll_drain(context);
        if over || matches!(written, Poll::Ready(Err(_))) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The request of a method, all but its message.
fn template(address: &str, method: Method, timeout: Duration) -> Result<Request<()>, http::Error> {
    let uri = Uri::builder().scheme("http").authority(address).path_and_query(method.path()).build()?;
    Request::builder()
        .method(HttpMethod::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header("grpc-timeout", grpc_timeout(timeout))
        .body(())
}

/// A span as gRPC spells it, in at most eight digits.
fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis @ 0..=99_999_999 => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs()),
    }
}

/// Connects and says h2's first words.
async fn dial(address: Rc<str>) -> io::Result<Up> {
    let dialling = async {
        let stream = TcpStream::connect(&*address).await?;
        stream.set_nodelay(true)?;
        let out = RefCell::new(BytesMut::with_capacity(OUT_BYTES_MAX));
        let pipe = Rc::new(Pipe { stream: RefCell::new(stream), out });
        let (sender, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(Gathering(Rc::clone(&pipe)))
            .await
            .map_err(io::Error::other)?;
        Ok(Up { sender: Some(sender), driver, pipe })
    };
    tokio::time::timeout(DIAL_TIME_MAX, dialling).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// A socket, and what waits to be written to it. Shared by h2 and by who drains it; nobody keeps a borrow.
struct Pipe {
    stream: RefCell<TcpStream>,
    out: RefCell<BytesMut>,
}

impl Pipe {
    /// Writes what was gathered, until it is all written or the socket takes no more.
    fn poll_drain(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut stream, mut out) = (self.stream.borrow_mut(), self.out.borrow_mut());
        while !out.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(context, &out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written == out.len() {
                out.clear();
            } else {
                out.advance(written);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The pipe as h2 sees it: writing and flushing succeed at once while there is room.
struct Gathering(Rc<Pipe>);

impl AsyncRead for Gathering {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(context, buf)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.0.out.borrow().len() >= OUT_BYTES_MAX {
            ready!(self.0.poll_drain(context))?;
        }
        self.0.out.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_drain(context))?;
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_what_grpc_asks_for() {
        let request = template("h:1", Method::Put, Duration::from_millis(1500)).expect("a good address");
        assert_eq!(request.uri(), "http://h:1/distribkv.v1.KV/Put");
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["grpc-timeout"], "1500m");
        assert_eq!(grpc_timeout(Duration::from_secs(100_000)), "100000S");
        assert!(template("not an address", Method::Put, Duration::ZERO).is_err());
        for method in Method::ALL {
            assert_eq!(Method::ALL[method.index()], method);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_dial_that_fails_is_tried_again_later_and_later() {
        let waker = Waker::noop().clone();
        let mut link = Link::new("127.0.0.1:1", Duration::from_secs(1), waker).expect("a good address");
        let mut pauses = Vec::new();
        let mut now_ns = 0;
        for _ in 0..7 {
            while link.poll(now_ns) != LinkChange::WentDown {
                tokio::task::yield_now().await;
            }
            let next_ns = link.dial_ns().expect("it is down");
            pauses.push((next_ns - now_ns) / 1_000_000);
            now_ns = next_ns;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert!(link.is_settled() && !link.is_up());
        assert!(link.send(Method::Put, Bytes::new).is_none());
    }
}
