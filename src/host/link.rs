//! One link, either end: parcels in one direction over one byte stream.
//!
//! ```text
//!            connected          welcome          closed, silent for 3 T, or a write stuck for 3 T
//!   waiting ──────────► hello ─────────► open ─────────────────────────────────────► waiting (backoff)
//!      ▲                  │ refused by the other node, or refusing it: the desk hears of it
//!      └──────────────────┘
//! ```
//!
//! Invariants:
//! - Parcels leave in the order in which they were put into the outbox, each at most once.
//! - While there is no link, raft's parcels and replies are dropped and calls are answered NOT_PROPOSED: they
//!   never left.
//! - When a link goes down, the runner hears of it: what was sent and not answered is lost.
//! - A connection that is no link yet has a time, from its first byte to the verdict, and a core has at most
//!   [`HANDSHAKES_MAX`] of them: a desk that stands still piles up no sockets.
//!
//! Generic over the byte stream, so that both ends are tested on in-memory pipes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use futures_lite::future::or;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::env::Env;
use crate::env::signal::Signal;
use crate::host::frame::{self, MAGIC};
use crate::ids::NodeId;
use crate::route::call::{Failure, FailureKind};
use crate::route::parcel::{Parcel, Reply};
use crate::shard::Runner;
use crate::shard::admission::{HELLO_BYTES, Hello, Refusal, Rejection, VERDICT_BYTES, Verdict};

/// How long to wait before connecting again, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Connections of one core that wait for their verdict. Beyond, they are closed and come again.
pub const HANDSHAKES_MAX: usize = 256;

/// The least and the most time from the first byte of a link to its verdict: noting a directory is a few
/// durable writes, however short the election timeout is.
const HANDSHAKE_MIN: Duration = Duration::from_secs(1);
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What a link keeps of the memory that a large frame took.
const OUT_BYTES_KEPT: usize = 1 << 20;

/// Why a link ended.
#[derive(Debug)]
pub enum LinkEnd {
    /// The stream failed or was closed.
    Io(io::Error),
    /// The other node refused this one.
    Refused(Refusal),
    /// This node refused the other one.
    Refuses(Rejection),
    /// Another node than expected answered.
    Stranger(NodeId),
}

/// What becomes of a link, for whoever watches the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNews {
    /// It carries parcels.
    Up,
    /// It went down, or cannot be made, for this reason.
    Down(String),
    /// The other node refuses this one.
    Refused(Refusal),
    /// The other node welcomes this one and is refused by it.
    Refuses(Rejection),
    /// At the other node's address this node answers.
    Stranger(NodeId),
}

impl From<LinkEnd> for LinkNews {
    fn from(end: LinkEnd) -> Self {
        match end {
            LinkEnd::Io(error) => Self::Down(error.to_string()),
            LinkEnd::Refused(refusal) => Self::Refused(refusal),
            LinkEnd::Refuses(rejection) => Self::Refuses(rejection),
            LinkEnd::Stranger(node) => Self::Stranger(node),
        }
    }
}

impl From<io::Error> for LinkEnd {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a core's links share.
pub struct Links<E: Env> {
    /// Clock and tasks.
    pub env: E,
    /// Whose parcels they carry.
    pub runner: Runner<E>,
    /// The election timeout: a link that stands still for three of them is closed.
    pub election: Duration,
    /// Incoming connections that are no links yet.
    handshakes: Rc<Cell<usize>>,
}

impl<E: Env> Links<E> {
    /// The links of one core, with no connection yet.
    #[must_use]
    pub fn new(env: E, runner: Runner<E>, election: Duration) -> Self {
        Self { env, runner, election, handshakes: Rc::default() }
    }

    /// How long a handshake may take.
    fn handshake(&self) -> Duration {
        (self.election * 3).clamp(HANDSHAKE_MIN, HANDSHAKE_MAX)
    }

    /// Counts an incoming connection until what is given back is dropped; `None` where there are too many.
    fn begin_handshake(&self) -> Option<Handshake> {
        let begun = self.handshakes.get();
        assert!(begun <= HANDSHAKES_MAX, "{begun} handshakes");
        (begun < HANDSHAKES_MAX).then(|| {
            self.handshakes.set(begun + 1);
            Handshake { count: Rc::clone(&self.handshakes) }
        })
    }
}

/// One of the connections that wait for their verdict.
struct Handshake {
    count: Rc<Cell<usize>>,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
    }
}

impl<E: Env> Clone for Links<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            runner: self.runner.clone(),
            election: self.election,
            handshakes: Rc::clone(&self.handshakes),
        }
    }
}

/// Keeps one link to `to` for ever: connects, says `hello` as it is then, carries parcels, and begins again
/// when it ends.
///
/// `waiting` is raised when parcels wait for `to`. `welcomed` asks the desk whether the node that welcomed
/// this one is welcome here. `news` hears what becomes of the link.
pub async fn keep_outgoing<E: Env, IO: AsyncRead + AsyncWrite + Unpin + 'static>(
    links: Links<E>,
    (to, hello): (NodeId, impl Fn() -> Hello),
    waiting: Signal,
    connect: impl AsyncFn() -> io::Result<IO>,
    welcomed: impl AsyncFn(Hello) -> Option<Verdict>,
    news: impl Fn(LinkNews),
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let opening = open(&links, (to, hello()), &connect, &welcomed);
        match while_dropping(&links, (to, &waiting), opening).await {
            Ok(stream) => {
                tracing::debug!(peer = %to, "link up");
                news(LinkNews::Up);
                backoff = BACKOFF_MIN;
                let end = carry(&links, to, &waiting, stream).await;
                tracing::info!(peer = %to, error = %end, "link down");
                links.runner.link_down(to);
                news(LinkNews::Down(end.to_string()));
            }
            Err(end) => {
                tracing::debug!(peer = %to, ?end, "no link");
                news(end.into());
            }
        }
        let jitter = Duration::from_micros(links.env.random() % 20_000);
        while_dropping(&links, (to, &waiting), links.env.sleep(backoff + jitter)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Does what is to be done while there is no link, and meanwhile drops what cannot leave.
async fn while_dropping<E: Env, T>(
    links: &Links<E>,
    (to, waiting): (NodeId, &Signal),
    work: impl Future<Output = T>,
) -> T {
    or(work, drop_waiting(links, to, waiting)).await
}

/// While there is no link: nothing that waits can leave.
async fn drop_waiting<E: Env, T>(links: &Links<E>, to: NodeId, waiting: &Signal) -> T {
    loop {
        for parcel in links.runner.take_link(to) {
            if let Parcel::Call(call) = parcel {
                let outcome = Err(Failure::of(FailureKind::NotProposed));
                links.runner.deliver(Parcel::Reply(Reply { id: call.id, outcome }));
            }
        }
        waiting.wait().await;
    }
}

/// Connects and exchanges hello and verdict.
async fn open<E: Env, IO: AsyncRead + AsyncWrite + Unpin>(
    links: &Links<E>,
    (to, hello): (NodeId, Hello),
    connect: &impl AsyncFn() -> io::Result<IO>,
    welcomed: &impl AsyncFn(Hello) -> Option<Verdict>,
) -> Result<IO, LinkEnd> {
    let mut stream = within(links, "connecting", connect()).await?;
    let mut opening = MAGIC.to_vec();
    opening.extend_from_slice(&hello.encode());
    in_time(links, links.handshake(), "the hello", async {
        stream.write_all(&opening).await?;
        stream.flush().await?;
        let mut verdict = [0; VERDICT_BYTES];
        stream.read_exact(&mut verdict).await?;
        let by = match Verdict::decode(&verdict) {
            Some(Verdict::Welcome(by)) if by.node == to => by,
            Some(Verdict::Welcome(by)) => return Err(LinkEnd::Stranger(by.node)),
            Some(Verdict::Rejected(refusal)) => return Err(LinkEnd::Refused(refusal)),
            None => return Err(LinkEnd::Io(invalid("a verdict that means nothing"))),
        };
        match welcomed(by).await.ok_or_else(busy)? {
            Verdict::Welcome(_) => Ok(()),
            Verdict::Rejected(refusal) => Err(LinkEnd::Refuses(refusal.rejection)),
        }
    })
    .await?;
    Ok(stream)
}

/// Carries parcels until the stream ends. The other end sends nothing more: its end of file is the link's.
async fn carry<E: Env, IO: AsyncRead + AsyncWrite + Unpin>(
    links: &Links<E>,
    to: NodeId,
    waiting: &Signal,
    stream: IO,
) -> io::Error {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let watch = async {
        let mut byte = [0];
        match reader.read(&mut byte).await {
            Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer"),
            Ok(_) => invalid("the peer sent something after its verdict"),
            Err(error) => error,
        }
    };
    let send = async {
        let mut out = Vec::new();
        loop {
            let mut parcels = links.runner.take_link(to).into_iter().peekable();
            loop {
                // Frame by frame, so that a long backlog on a slow link is progress and not one stuck write.
                frame::encode(&mut parcels, &mut out);
                if let Err(error) = within(links, "a write", write_frames(&mut writer, &out)).await {
                    return error;
                }
                out.clear();
                out.shrink_to(OUT_BYTES_KEPT);
                if parcels.peek().is_none() {
                    break;
                }
            }
            or(waiting.wait(), links.env.sleep(links.election)).await;
        }
    };
    or(watch, send).await
}

async fn write_frames(writer: &mut (impl AsyncWrite + Unpin), frames: &[u8]) -> io::Result<()> {
    writer.write_all(frames).await?;
    writer.flush().await
}

/// The receiving end of a link: judges the hello, then delivers parcels until it ends.
///
/// `judge` asks the desk. `closed` is raised when a newer link of the same core of that node has come: this
/// one then ends.
pub async fn serve_incoming<E: Env, IO: AsyncRead + AsyncWrite + Unpin>(
    links: &Links<E>,
    mut stream: IO,
    judge: impl AsyncFn(Hello) -> Option<Verdict>,
    closed: &Signal,
) -> Result<(), LinkEnd> {
    let handshake = links.begin_handshake().ok_or_else(busy)?;
    let greeted = greet(&mut stream, judge);
    let (hello, verdict) = in_time(links, links.handshake(), "a hello and its verdict", greeted).await?;
    drop(handshake);
    if let Verdict::Rejected(refusal) = verdict {
        return Err(LinkEnd::Refuses(refusal.rejection));
    }
    let ended = or(receive(links, hello.node, &mut stream), async {
        closed.wait().await;
        Ok(())
    })
    .await;
    // Answers of that node were on this link: what was asked of it and not answered is lost.
    links.runner.link_down(hello.node);
    ended
}

/// Reads the hello, and answers it with its verdict.
async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    judge: impl AsyncFn(Hello) -> Option<Verdict>,
) -> Result<(Hello, Verdict), LinkEnd> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(LinkEnd::Io(invalid("neither a client nor a node of a cluster")));
    }
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let hello = Hello::decode(&hello);
    let verdict = judge(hello).await.ok_or_else(busy)?;
    write_frames(stream, &verdict.encode()).await?;
    Ok((hello, verdict))
}

/// Delivers parcels until the stream ends.
async fn receive<E: Env>(
    links: &Links<E>,
    from: NodeId,
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(), LinkEnd> {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    loop {
        let read = within(links, "a frame", stream.read_buf(&mut buffer)).await?;
        if read == 0 {
            return Ok(());
        }
        deliver_frames(links, from, &mut buffer)?;
        if buffer.capacity() - buffer.len() < 16 << 10 {
            buffer.reserve(64 << 10);
        }
    }
}

fn deliver_frames<E: Env>(links: &Links<E>, from: NodeId, buffer: &mut BytesMut) -> io::Result<()> {
    let mut parcels = VecDeque::new();
    while let Some(frame) = frame::decode(buffer).map_err(|error| invalid(&error.to_string()))? {
        parcels.extend(frame);
    }
    if !parcels.iter().all(|parcel| is_of(parcel, from)) {
        return Err(invalid("a parcel in another node's name"));
    }
    for parcel in parcels {
        links.runner.deliver(parcel);
    }
    Ok(())
}

/// Whether a parcel speaks for the node that the link is of.
fn is_of(parcel: &Parcel, from: NodeId) -> bool {
    match parcel {
        Parcel::Raft { message, .. } => message.from == from,
        Parcel::Call(call) => call.id.node == from,
        Parcel::TableAsk(ask) => ask.node == from,
        Parcel::Digests(told) => told.node == from,
        Parcel::Rebuild(told) => told.from == from,
        Parcel::Reply(_) | Parcel::TablePart(_) => true,
    }
}

/// Nothing on a link may take longer than three election timeouts.
async fn within<E: Env, T>(
    links: &Links<E>,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    in_time(links, links.election * 3, what, work).await
}

async fn in_time<E: Env, T, Error: From<io::Error>>(
    links: &Links<E>,
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    or(work, async {
        links.env.sleep(limit).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} took longer than {limit:?}")).into())
    })
    .await
}

fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "too many hellos at once")
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}
