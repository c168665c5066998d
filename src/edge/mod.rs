//! gRPC on HTTP/2, inside the executor of one core: the way in for clients.
//!
//! ```text
//! listener ─ accept ─► first bytes ─┬─ HTTP/2's preface ─► connection ─► stream ─► service ─► Store
//!                                   └─ a peer's      ─► whoever carries links
//! ```
//!
//! - [`accept`] binds the address, accepts, and tells clients from peers; [`io`] carries the
//!   bytes.
//! - `connection` is one task for each connection: its protocol (`http2`), its timers, going away; and at the
//!   end `linger`.
//! - `stream` is one task for each stream: headers (`head`, `method`), messages (`frame`), answer
//!   (`reply`).
//! - `service` holds what each method does; `convert` turns messages into the store's types and back.
//! - [`store`] is what all of it is served from ([`changes`] helps it to tell of health), [`status`] how
//!   failures look, [`limits`] what bounds everything.
//!
//! An [`Edge`] lives on one core and is owned by its executor; nothing is shared between cores.
//!
//! Invariants:
//! - An answer that says that something happened follows it; a failure says what is known of the outcome.
//! - A client that goes away takes its waiter with it, never what it had proposed.
//! - Every time, queue and buffer has a limit in [`EdgeLimits`].
//!
//! It deliberately does not terminate TLS, compress, check who asks, or speak HTTP/1.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::env::Env;
use crate::env::signal::Signal;
use crate::kv;

pub mod limits;
pub mod store;
pub mod changes;
pub mod status;
pub mod accept;
pub mod io;
mod budget;
mod drain;
mod http2;
mod connection;
mod linger;
mod stream;
mod head;
mod method;
mod frame;
mod reply;
mod convert;
mod requests;
mod service;

pub use http2::replay::{Replayed, replay_answered, replay_unanswered};
pub use limits::EdgeLimits;
pub use method::{SERVICES, Services};
pub use requests::{RequestBounds, UNARY_METHODS, answer_of, requests_of};
pub use store::Store;

use budget::CoreBudget;
use drain::Drain;
use service::reflection::Reflection;

/// How an [`Edge`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct EdgeOptions {
    /// What bounds it.
    pub limits: EdgeLimits,
    /// What bounds keys, values and Txns: the same on every node.
    pub kv_limits: kv::Limits,
    /// What it answers.
    pub services: Services,
}

/// The gRPC side of one core. Cloning is cheap: a handle.
pub struct Edge<E: Env, S: Store> {
    inner: Rc<EdgeInner<E, S>>,
}

impl<E: Env, S: Store> Clone for Edge<E, S> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

struct EdgeInner<E: Env, S: Store> {
    env: E,
    store: S,
    options: EdgeOptions,
    budget: CoreBudget,
    drain: Drain,
    connections: Cell<usize>,
    connection_ended: Signal,
    /// One reference for each backup that is being made, and its own.
    backups: Rc<()>,
    reflection: Reflection,
}

impl<E: Env, S: Store> Edge<E, S> {
    /// An edge that serves from `store`.
    #[must_use]
    pub fn new(env: E, store: S, options: EdgeOptions) -> Self {
        assert!(options.limits.is_consistent(), "limits that contradict each other: {:?}", options.limits);
        assert!(
            options.kv_limits.is_consistent(),
            "limits that contradict each other: {:?}",
            options.kv_limits
        );
        let inner = EdgeInner {
            env,
            store,
            options,
            budget: CoreBudget::new(options.limits.core_bytes_max),
            drain: Drain::default(),
            connections: Cell::new(0),
            connection_ended: Signal::default(),
            backups: Rc::new(()),
            reflection: Reflection::new(options.services),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Serves one connection until it ends. Closes it at once where the core has as many as it may, or goes
    /// away.
    pub async fn serve_connection<IO: AsyncRead + AsyncWrite + Unpin + 'static>(&self, io: IO) {
        if let Some(slot) = self.take_slot() {
            connection::serve(self, io).await;
            drop(slot);
        }
    }

    /// Goes away: no connection is accepted any more, clients are told (GOAWAY), streams end; what is left
    /// after `patience` is cut off. Returns when no connection is left.
    pub async fn drain(&self, patience: Duration) {
        self.inner.drain.begin(self.inner.env.now() + patience);
        while self.inner.connections.get() > 0 {
            self.inner.connection_ended.wait().await;
        }
    }

    /// The connections open at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.connections.get()
    }

    fn take_slot(&self) -> Option<ConnectionSlot<E, S>> {
        let connections = self.inner.connections.get();
        if connections >= self.limits().connections_max || self.inner.drain.deadline().is_some() {
            return None;
        }
        self.inner.connections.set(connections + 1);
        Some(ConnectionSlot { edge: self.clone() })
    }

    /// One of the backups that a core may make at a time; `None`: it makes as many as it may.
    fn take_backup_slot(&self) -> Option<Rc<()>> {
        let backups = Rc::strong_count(&self.inner.backups) - 1;
        (backups < self.limits().backups_max).then(|| Rc::clone(&self.inner.backups))
    }

    fn env(&self) -> &E {
        &self.inner.env
    }

    fn store(&self) -> &S {
        &self.inner.store
    }

    fn limits(&self) -> &EdgeLimits {
        &self.inner.options.limits
    }

    fn kv_limits(&self) -> &kv::Limits {
        &self.inner.options.kv_limits
    }
}

/// One of the connections that a core may have.
struct ConnectionSlot<E: Env, S: Store> {
    edge: Edge<E, S>,
}

impl<E: Env, S: Store> Drop for ConnectionSlot<E, S> {
    fn drop(&mut self) {
        let connections = self.edge.inner.connections.get();
        assert!(connections > 0, "a connection ended of {connections}");
        self.edge.inner.connections.set(connections - 1);
        self.edge.inner.connection_ended.raise();
    }
}
