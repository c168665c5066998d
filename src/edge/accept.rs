//! The listening port: binding it, accepting, and telling clients from the cluster's own nodes.
//!
//! Clients and peers share one port. A client begins with HTTP/2's preface, a peer with something else:
//!
//! ```text
//! first bytes   "PRI * HTTP/2.0"       a client ─► Edge
//!               anything else          a peer, or nobody ─► whoever carries links looks at the bytes
//!               nothing in time        closed
//! ```
//!
//! Invariants:
//! - The address is never free between finding out that it is and listening on it.
//! - Connections that have not said what they are have a limit and a time of their own.
//!
//! It deliberately does not know a peer's first bytes: it hands on what does not begin as HTTP/2 does.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use std::{fmt, io, net, thread};

use bytes::Bytes;
use futures_lite::AsyncReadExt as _;
use glommio::net::TcpStream;

use super::Edge;
use super::io::TcpIo;
use super::store::Store;
use crate::env::Env;
use crate::env::os::net::{BoundSocket, Sharing, adopt};

/// What every client says first.
const CLIENT_FIRST_BYTES: &[u8] = b"PRI * HTTP/2.0";

/// Connections that wait to be accepted, for each listener.
const BACKLOG: i32 = 1024;

/// How often an address in use is tried, which makes 2 s: the listener of a killed process outlives it by
/// some milliseconds.
const BIND_TRIES_MAX: u32 = 100;

/// The pause between two tries.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// The pause after a failed accept, which is mostly a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why an address cannot be listened on.
#[derive(Debug)]
pub enum BindError {
    /// The host's name leads to no address.
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Another process listens there.
    InUse(SocketAddr),
    /// The kernel said something else.
    Io {
        /// Where.
        address: SocketAddr,
        /// What.
        source: io::Error,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, source } => write!(f, "cannot resolve {host:?}: {source}"),
            Self::InUse(address) => write!(f, "{address} is in use by another process; choose another port"),
            Self::Io { address, source } => write!(f, "cannot listen on {address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {}

/// The listeners of a node: for each core, one on every address.
#[derive(Debug)]
pub struct Listeners {
    /// One entry for each core.
    pub cores: Vec<Vec<net::TcpListener>>,
    /// The addresses, with the port that the kernel chose where 0 was asked for.
    pub addresses: Vec<SocketAddr>,
}

/// Listens on every address that a host's name leads to, with a listener for each core. Blocks; for start-up
/// alone.
///
/// # Errors
///
/// Where an address cannot be had. One that this machine does not have (IPv6 switched off, say) is passed
/// over as long as another is left.
pub fn bind(host: &str, port: u16, cores: usize) -> Result<Listeners, BindError> {
    assert!(cores > 0, "a node has at least one core");
    let resolved = (host, port).to_socket_addrs();
    let resolved = resolved.map_err(|source| BindError::Resolve { host: host.to_owned(), source })?;
    let mut listeners = Listeners { cores: (0..cores).map(|_| Vec::new()).collect(), addresses: Vec::new() };
    let mut passed_over = None;
    for mut address in resolved {
        if let Some(first) = listeners.addresses.first() {
            address.set_port(first.port());
        }
        if listeners.addresses.contains(&address) {
            continue;
        }
        match bind_address(address, &mut listeners) {
            Err(BindError::Io { source, .. }) if is_not_ours(&source) => {
                passed_over = Some(BindError::Io { address, source });
            }
            bound => bound?,
        }
    }
    match passed_over {
        Some(error) if listeners.addresses.is_empty() => Err(error),
        _ if listeners.addresses.is_empty() => {
            let source = io::Error::new(io::ErrorKind::NotFound, "it has no address");
            Err(BindError::Resolve { host: host.to_owned(), source })
        }
        _ => Ok(listeners),
    }
}

/// Whether this machine has no such address.
fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn bind_address(address: SocketAddr, listeners: &mut Listeners) -> Result<(), BindError> {
    let failed = |source| BindError::Io { address, source };
    let first = bind_alone(address)?.listen(BACKLOG).map_err(failed)?;
    let taken = first.local_addr().map_err(failed)?;
    let mut bound = vec![first];
    while bound.len() < listeners.cores.len() {
        let next = BoundSocket::bind(taken, Sharing::Shared).and_then(|socket| socket.listen(BACKLOG));
        bound.push(next.map_err(failed)?);
    }
    for (core, listener) in listeners.cores.iter_mut().zip(bound) {
        core.push(listener);
    }
    listeners.addresses.push(taken);
    Ok(())
}

/// Binds an address that nobody holds, trying for a while.
fn bind_alone(address: SocketAddr) -> Result<BoundSocket, BindError> {
    for _ in 0..BIND_TRIES_MAX {
        match BoundSocket::bind(address, Sharing::FirstAlone) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(BIND_PAUSE),
            Err(source) => return Err(BindError::Io { address, source }),
        }
    }
    Err(BindError::InUse(address))
}

impl<E: Env, S: Store> Edge<E, S> {
    /// Accepts connections on the executor of this thread until the core goes away. What does not begin as a
    /// client does is handed to `on_peer` with the bytes that were read of it, at least one.
    pub async fn accept(
        &self,
        listener: net::TcpListener,
        on_peer: impl Fn(TcpStream, Bytes) + Clone + 'static,
    ) {
        let listener = adopt(listener);
        let greetings = Rc::new(Cell::new(0));
        let mut begun = pin!(self.inner.drain.begun());
        loop {
            let accepted = poll_fn(|context| {
                if begun.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                listener.poll_accept(context).map(Some)
            });
            match accepted.await {
                None => return,
                Some(Ok(stream)) => self.greet(stream, &greetings, on_peer.clone()),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.env().sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Starts the task of a new connection; one beyond the limit is closed instead.
    fn greet(
        &self,
        mut stream: TcpStream,
        greetings: &Rc<Cell<usize>>,
        on_peer: impl Fn(TcpStream, Bytes) + 'static,
    ) {
        if greetings.get() >= self.limits().greetings_max {
            return;
        }
        greetings.set(greetings.get() + 1);
        let (edge, greetings) = (self.clone(), Rc::clone(greetings));
        self.env().spawn(async move {
            let nodelay = stream.set_nodelay(true);
            let first = match nodelay {
                Ok(()) => edge.first_bytes(&mut stream).await,
                Err(_) => None,
            };
            greetings.set(greetings.get() - 1);
            match first {
                Some(bytes) if bytes.as_ref() == CLIENT_FIRST_BYTES => {
                    edge.serve_connection(TcpIo::new(stream, bytes)).await;
                }
                Some(bytes) => on_peer(stream, bytes),
                None => {}
            }
        });
    }

    /// What a connection says first, up to where it is known to be a client or not; `None` where it says
    /// nothing in time, or the core goes away.
    async fn first_bytes(&self, stream: &mut TcpStream) -> Option<Bytes> {
        let mut reading = pin!(read_first(stream));
        let mut late = pin!(self.env().sleep(self.limits().handshake_timeout));
        let mut begun = pin!(self.inner.drain.begun());
        poll_fn(|context| {
            if let Poll::Ready(read) = reading.as_mut().poll(context) {
                return Poll::Ready(read);
            }
            let is_over = late.as_mut().poll(context).is_ready() || begun.as_mut().poll(context).is_ready();
            if is_over { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

/// Reads until the bytes are a client's or cannot be.
async fn read_first(stream: &mut TcpStream) -> Option<Bytes> {
    let mut buffer = [0; CLIENT_FIRST_BYTES.len()];
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).await.ok()?;
        if read == 0 {
            return None;
        }
        length += read;
        if buffer[..length] != CLIENT_FIRST_BYTES[..length] || length == buffer.len() {
            return Some(Bytes::copy_from_slice(&buffer[..length]));
        }
    }
}
