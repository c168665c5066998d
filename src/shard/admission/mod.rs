//! Who may speak to whom, and when a node may vote.
//!
//! Every link begins with a [`Hello`]. Whoever receives it compares what must agree, notes durably which data
//! directory the other node has, and answers with a hello of its own, or says why not. A node that was just
//! made votes and acknowledges only after ⌊n/2⌋ + 1 other nodes (all others, where there are fewer) have
//! noted its directory:
//!
//! ```text
//!   new ── hello ──► others note (node, directory) ── welcome ──► counted ── enough ──► entitled
//!                    others know another directory of that node ── refused ──► the process ends and says so
//! ```
//!
//! Any two sets of that size meet, so a node whose directory was wiped cannot pass for a new one: somebody in
//! the set that it needs has noted the old directory.
//!
//! Invariants:
//! - A welcome is sent after the note is durable.
//! - A noted directory is never overwritten here.
//! - Entitlement is durable before the runner hears of it, and is never taken back.
//!
//! The desk lives on core 0, which owns the node's identity; other cores ask by mesh.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::env::Env;
use crate::env::signal::{AnswerReceiver, AnswerSender, Signal, answer};
use crate::ids::{ClusterId, CoreId, DirectoryId, NodeId};
use crate::log::{Identity, IdentityStore, LogFailure, NoteError};

/// The version of everything that nodes say to each other.
pub const LINK_FORMAT: u32 = 1;

/// The size of an encoded hello.
pub const HELLO_BYTES: usize = 48;

/// Hellos that wait for the desk. A node has few peers, each with few cores.
const QUEUE_MAX: usize = 1024;

/// What a node says of itself before anything else.
///
/// ```text
/// format u32 | node u32 | core u32 | nodes u32
/// | cluster u64 | directory u64 | settings u64 | incarnation u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of what it says.
    pub format: u32,
    /// Who it is.
    pub node: NodeId,
    /// The core that the link begins at.
    pub core: CoreId,
    /// How many nodes it thinks there are.
    pub nodes: u32,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// The hash of the settings that must agree.
    pub settings: u64,
    /// Which start of its data directory this is.
    pub incarnation: u64,
}

/// Why a hello was refused.
///
/// ```text
/// reason u32 (1 format, 2 cluster, 3 settings, 4 node, 5 directory) | ours u64 | theirs u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Another version of what nodes say to each other.
    Format {
        /// Of who refused.
        ours: u32,
        /// Of who was refused.
        theirs: u32,
    },
    /// Another cluster.
    Cluster {
        /// Of who refused.
        ours: ClusterId,
        /// Of who was refused.
        theirs: ClusterId,
    },
    /// Other values of settings that must agree.
    Settings {
        /// The hash, of who refused.
        ours: u64,
        /// The hash, of who was refused.
        theirs: u64,
    },
    /// No such node, or the very node that was asked.
    Node {
        /// Who refused.
        ours: NodeId,
        /// Who was refused.
        theirs: NodeId,
    },
    /// That node is known with another data directory: this one was wiped, or is not its own.
    Directory {
        /// The one that is noted.
        noted: DirectoryId,
        /// The one that it came with.
        theirs: DirectoryId,
    },
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is noted; this is who noted it.
    Welcome(Hello),
    /// It is not welcome.
    Rejected(Rejection),
}

/// Notes directories, and counts who has noted this node's.
pub struct Desk<E: Env> {
    inner: Rc<RefCell<Inner>>,
    wake: Signal,
    entitled: Signal,
    store: Rc<RefCell<Option<IdentityStore<E>>>>,
}

impl<E: Env> Clone for Desk<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Rc::clone(&self.inner),
            wake: self.wake.clone(),
            entitled: self.entitled.clone(),
            store: Rc::clone(&self.store),
        }
    }
}

struct Inner {
    own: Hello,
    is_entitled: bool,
    queue: VecDeque<Work>,
    noted_by: BTreeSet<NodeId>,
    needed: usize,
}

enum Work {
    Admit(Hello, AnswerSender<Verdict>),
    Welcomed(Hello),
}

impl<E: Env> Desk<E> {
    /// A desk over a node's identity. `own` is what this node says of itself.
    #[must_use]
    pub fn new(store: IdentityStore<E>, own: Hello) -> Self {
        let is_entitled = store.identity().entitled;
        let needed = others_needed(own.nodes);
        let desk = Self {
            inner: Rc::new(RefCell::new(Inner {
                own,
                is_entitled,
                queue: VecDeque::new(),
                noted_by: BTreeSet::new(),
                needed,
            })),
            wake: Signal::default(),
            entitled: Signal::default(),
            store: Rc::new(RefCell::new(Some(store))),
        };
        if is_entitled {
            desk.entitled.raise();
        }
        desk.wake.raise();
        desk
    }

    /// Raised once this node may vote.
    #[must_use]
    pub fn entitled(&self) -> Signal {
        self.entitled.clone()
    }

    /// Whether this node may vote.
    #[must_use]
    pub fn is_entitled(&self) -> bool {
        self.inner.borrow().is_entitled
    }

    /// What this node says of itself from one of its cores.
    #[must_use]
    pub fn hello(&self, core: CoreId) -> Hello {
        Hello { core, ..self.inner.borrow().own }
    }

    /// Another node says hello. Without an answer where the desk is gone or too busy.
    #[must_use]
    pub fn admit(&self, hello: Hello) -> AnswerReceiver<Verdict> {
        let (sender, receiver) = answer();
        let mut inner = self.inner.borrow_mut();
        if let Some(rejection) = inner.own.compare(&hello) {
            sender.send(Verdict::Rejected(rejection));
        } else if inner.queue.len() < QUEUE_MAX {
            inner.queue.push_back(Work::Admit(hello, sender));
            self.wake.raise();
        }
        receiver
    }

    /// Another node has welcomed this one: it is noted there, and is to be noted here.
    pub fn welcomed(&self, by: Hello) -> Result<(), Rejection> {
        let mut inner = self.inner.borrow_mut();
        if let Some(rejection) = inner.own.compare(&by) {
            return Err(rejection);
        }
        if inner.queue.len() < QUEUE_MAX {
            inner.queue.push_back(Work::Welcomed(by));
            self.wake.raise();
        }
        Ok(())
    }

    /// The desk at work, for ever; returns with the first failure of the identity's files.
    pub async fn run(self) -> LogFailure {
        loop {
            let work = self.inner.borrow_mut().queue.pop_front();
            let done = match work {
                Some(Work::Admit(hello, sender)) => {
                    self.note(hello).await.map(|verdict| sender.send(verdict))
                }
                Some(Work::Welcomed(by)) => self.count(by).await,
                None if self.is_due() => self.entitle().await,
                None => {
                    self.wake.wait().await;
                    Ok(())
                }
            };
            if let Err(failure) = done {
                return failure;
            }
        }
    }

    async fn note(&self, hello: Hello) -> Result<Verdict, LogFailure> {
        let own = self.inner.borrow().own;
        let mut store = self.store.borrow_mut().take().expect("the desk does one thing at a time");
        let noted = store.note(hello.node, hello.directory).await;
        *self.store.borrow_mut() = Some(store);
        match noted {
            Ok(()) => Ok(Verdict::Welcome(own)),
            Err(NoteError::AnotherKnown { known }) => {
                Ok(Verdict::Rejected(Rejection::Directory { noted: known, theirs: hello.directory }))
            }
            Err(NoteError::NoSuchNode) => {
                Ok(Verdict::Rejected(Rejection::Node { ours: own.node, theirs: hello.node }))
            }
            Err(NoteError::Failed(failure)) => Err(failure),
        }
    }

    async fn count(&self, by: Hello) -> Result<(), LogFailure> {
        if let Verdict::Welcome(_) = self.note(by).await? {
            self.inner.borrow_mut().noted_by.insert(by.node);
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.is_entitled && inner.noted_by.len() >= inner.needed
    }

    async fn entitle(&self) -> Result<(), LogFailure> {
        let mut store = self.store.borrow_mut().take().expect("the desk does one thing at a time");
        let entitled = store.entitle().await;
        *self.store.borrow_mut() = Some(store);
        entitled?;
        self.inner.borrow_mut().is_entitled = true;
        self.entitled.raise();
        Ok(())
    }
}

/// How many other nodes must have noted a new directory.
#[must_use]
pub fn others_needed(nodes: u32) -> usize {
    assert!(nodes > 0, "a cluster of no nodes");
    (nodes / 2 + 1).min(nodes - 1) as usize
}

impl Hello {
    /// What a node says of itself, from its identity.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self {
            format: LINK_FORMAT,
            node: identity.node,
            core: CoreId(0),
            nodes: identity.nodes,
            cluster: identity.cluster,
            directory: identity.directory,
            settings: identity.cluster_hash,
            incarnation: identity.starts,
        }
    }

    /// Why the other cannot be spoken to, judged by what is known without asking the identity.
    fn compare(&self, other: &Self) -> Option<Rejection> {
        if other.format != self.format {
            Some(Rejection::Format { ours: self.format, theirs: other.format })
        } else if other.cluster != self.cluster {
            Some(Rejection::Cluster { ours: self.cluster, theirs: other.cluster })
        } else if other.settings != self.settings || other.nodes != self.nodes {
            Some(Rejection::Settings { ours: self.settings, theirs: other.settings })
        } else if other.node == self.node || other.node.0 == 0 || other.node.0 > self.nodes {
            Some(Rejection::Node { ours: self.node, theirs: other.node })
        } else {
            None
        }
    }

    /// The hello as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = Vec::with_capacity(HELLO_BYTES);
        for word in [self.format, self.node.0, self.core.0, self.nodes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.cluster.0, self.directory.0, self.settings, self.incarnation] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.try_into().expect("four words of 4 bytes and four of 8")
    }

    /// Reads a hello.
    #[must_use]
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Self {
        let mut bytes = Bytes::copy_from_slice(bytes);
        Self {
            format: bytes.get_u32_le(),
            node: NodeId(bytes.get_u32_le()),
            core: CoreId(bytes.get_u32_le()),
            nodes: bytes.get_u32_le(),
            cluster: ClusterId(bytes.get_u64_le()),
            directory: DirectoryId(bytes.get_u64_le()),
            settings: bytes.get_u64_le(),
            incarnation: bytes.get_u64_le(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format { ours, theirs } => {
                write!(
                    f,
                    "the peer speaks link format {ours}, this node {theirs}: run one version on all nodes"
                )
            }
            Self::Cluster { ours, theirs } => write!(
                f,
                "the peer belongs to cluster {:016x}, this node to {:016x}: --cluster-name, --peers and \
                 --shards must be the same on all nodes when they are first started",
                ours.0, theirs.0
            ),
            Self::Settings { ours, theirs } => write!(
                f,
                "the peer has other cluster settings ({ours:016x}, this node {theirs:016x}): --shards, \
                 --election-timeout-ms, --heartbeat-ms and the number of --peers must be the same everywhere"
            ),
            Self::Node { ours, theirs } => {
                write!(f, "node {ours} was asked by a node that says it is {theirs}: check --id and --peers")
            }
            Self::Directory { noted, theirs } => write!(
                f,
                "the peer knows this node with data directory {:016x}, it came with {:016x}: the \
                 directory was replaced or wiped, and with it what this node has voted and \
                 acknowledged. Put the old directory back. Only on a cluster that never held data: \
                 stop all nodes and delete all data directories",
                noted.0, theirs.0
            ),
        }
    }
}

/// The size of an encoded verdict.
pub const VERDICT_BYTES: usize = 4 + HELLO_BYTES;

impl Verdict {
    /// The verdict as it travels: a word (0 welcome, else the reason of the rejection), then a hello or the
    /// two values of a rejection and zeros.
    #[must_use]
    pub fn encode(&self) -> [u8; VERDICT_BYTES] {
        let mut out = [0; VERDICT_BYTES];
        let (reason, ours, theirs) = match self {
            Self::Welcome(hello) => {
                out[4..].copy_from_slice(&hello.encode());
                return out;
            }
            Self::Rejected(rejection) => rejection.parts(),
        };
        out[..4].copy_from_slice(&reason.to_le_bytes());
        out[4..12].copy_from_slice(&ours.to_le_bytes());
        out[12..20].copy_from_slice(&theirs.to_le_bytes());
        out
    }

    /// Reads a verdict; `None` where its reason is none that is known.
    #[must_use]
    pub fn decode(bytes: &[u8; VERDICT_BYTES]) -> Option<Self> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let reason = rest.get_u32_le();
        if reason == 0 {
            let hello = rest.as_ref().try_into().expect("what is left is as long as a hello");
            return Some(Self::Welcome(Hello::decode(hello)));
        }
        let (ours, theirs) = (rest.get_u64_le(), rest.get_u64_le());
        Rejection::of_parts(reason, ours, theirs).map(Self::Rejected)
    }
}

impl Rejection {
    fn parts(&self) -> (u32, u64, u64) {
        match *self {
            Self::Format { ours, theirs } => (1, u64::from(ours), u64::from(theirs)),
            Self::Cluster { ours, theirs } => (2, ours.0, theirs.0),
            Self::Settings { ours, theirs } => (3, ours, theirs),
            Self::Node { ours, theirs } => (4, u64::from(ours.0), u64::from(theirs.0)),
            Self::Directory { noted, theirs } => (5, noted.0, theirs.0),
        }
    }

    fn of_parts(reason: u32, ours: u64, theirs: u64) -> Option<Self> {
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        match reason {
            1 => Some(Self::Format { ours: narrow(ours), theirs: narrow(theirs) }),
            2 => Some(Self::Cluster { ours: ClusterId(ours), theirs: ClusterId(theirs) }),
            3 => Some(Self::Settings { ours, theirs }),
            4 => Some(Self::Node { ours: NodeId(narrow(ours)), theirs: NodeId(narrow(theirs)) }),
            5 => Some(Self::Directory { noted: DirectoryId(ours), theirs: DirectoryId(theirs) }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_survives_the_way() {
        let hello = Hello {
            format: 1,
            node: NodeId(2),
            core: CoreId(3),
            nodes: 5,
            cluster: ClusterId(4),
            directory: DirectoryId(5),
            settings: 6,
            incarnation: 7,
        };
        let rejection = Rejection::Directory { noted: DirectoryId(8), theirs: DirectoryId(9) };
        for verdict in [Verdict::Welcome(hello), Verdict::Rejected(rejection)] {
            assert_eq!(Verdict::decode(&verdict.encode()), Some(verdict));
        }
    }

    #[test]
    fn any_two_sets_of_witnesses_meet() {
        for nodes in 2..=7 {
            let (others, needed) = (nodes as usize - 1, others_needed(nodes));
            assert!(2 * needed > others, "{needed} of {others} others");
        }
        assert_eq!(others_needed(1), 0);
    }
}
