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
//! A directory that was recovered says so in every hello, and is noted in the place of the lost one by
//! whomever it meets, also by those who were away when it came: the later of two recoveries counts, and no
//! directory but a recovered one takes the place of another. Its replicas know that they may have forgotten
//! what the node said before, and act by it (see `raft`'s recovering); here it is a new node like any other.
//! What it had noted of others is lost, too: it vouches for no new directory of a node of which it knows
//! nothing. (Else one recovery after another could leave nobody who remembers that node's old one.)
//!
//! The lost directory, should it come back, is refused by all who have met the new one, and so ends. It is
//! the promise of whoever orders a recovery that it is not in use: where its process still ran, one that has
//! heard only of the old directory might count it beside the new one.
//!
//! A node that is refused for another reason may be right or wrong; [`refusals`] says when it ends.
//!
//! Invariants:
//! - A welcome is sent after the note is durable.
//! - A noted directory is overwritten by that of a later recovery alone.
//! - Entitlement is durable before the runner hears of it, and is never taken back.
//! - The lanes of a node that is entitled were there before.
//!
//! - Of two links from one core of another node the newer is kept, whichever cores of this node they came to.
//!
//! The desk lives on core 0, which owns the node's identity; other cores ask by mesh.

mod hello;
mod held;
pub mod refusals;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::env::Env;
use crate::env::signal::{AnswerReceiver, AnswerSender, Signal, answer};
use crate::ids::{CoreId, NodeId};
use crate::log::{IdentityStore, LogFailure, NoteError, Noted, RecoveredAt};

pub use held::LinkPlace;
pub use hello::{HELLO_BYTES, Hello, LINK_FORMAT, Refusal, Rejection, Standing, VERDICT_BYTES, Verdict};
pub use refusals::Refused;

use held::HeldLinks;
use refusals::Refusals;

/// How long a full disk is left alone before the next try.
const SPACE_RETRY_AFTER: Duration = Duration::from_millis(200);

/// Hellos that wait for the desk. A node has few peers, each with few cores.
const QUEUE_MAX: usize = 1024;

/// How a desk ended; the process ends with it.
#[derive(Debug)]
pub enum DeskEnd {
    /// The identity's files failed.
    Failed(LogFailure),
    /// Other nodes refuse this one, and they are right.
    Refused(Refused),
}

/// What becomes of a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// What is answered.
    pub verdict: Verdict,
    /// The links that this one takes the place of: their cores are to close them.
    pub closes: Vec<LinkPlace>,
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
    /// Whether every lane of the node is there, durably.
    has_lanes: bool,
    queue: VecDeque<Work>,
    noted_by: BTreeSet<NodeId>,
    needed: usize,
    refusals: Refusals,
    links: HeldLinks,
    /// That this node is wrong, once that is known.
    refused: Option<Refused>,
}

enum Work {
    Admit(Hello, LinkPlace, AnswerSender<Admission>),
    Welcomed(Hello, AnswerSender<Verdict>),
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
                has_lanes: false,
                queue: VecDeque::new(),
                noted_by: BTreeSet::new(),
                needed,
                refusals: Refusals::default(),
                links: HeldLinks::default(),
                refused: None,
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

    /// Every lane of this node is open, and so durably there: it may become one that may vote. A lane that is
    /// not there later was lost.
    pub fn lanes_are_open(&self) {
        self.inner.borrow_mut().has_lanes = true;
        self.wake.raise();
    }

    /// How many other nodes are known, since this start, to have noted this one's directory, and how many
    /// have to before it may vote.
    #[must_use]
    pub fn noted(&self) -> (usize, usize) {
        let inner = self.inner.borrow();
        (inner.noted_by.len(), inner.needed)
    }

    /// What this node says of itself from one of its cores.
    #[must_use]
    pub fn hello(&self, core: CoreId) -> Hello {
        Hello { core, ..self.inner.borrow().own() }
    }

    /// Another node says hello on the link that is at `place`. Without an answer where the desk is gone or
    /// too busy.
    #[must_use]
    pub fn admit(&self, hello: Hello, place: LinkPlace) -> AnswerReceiver<Admission> {
        let (sender, receiver) = answer();
        match self.differs(&hello) {
            Some(verdict) => sender.send(Admission { verdict, closes: Vec::new() }),
            None => self.enqueue(Work::Admit(hello, place, sender)),
        }
        receiver
    }

    /// Another node has welcomed this one: it has noted this one's directory, and its own is to be noted
    /// here. The verdict is this node's: where it is no welcome, that word does not count and there is no
    /// link. Without an answer where the desk is gone or too busy.
    #[must_use]
    pub fn welcomed(&self, by: Hello) -> AnswerReceiver<Verdict> {
        let (sender, receiver) = answer();
        match self.differs(&by) {
            Some(verdict) => sender.send(verdict),
            None => self.enqueue(Work::Welcomed(by, sender)),
        }
        receiver
    }

    /// The refusal of a hello that needs no look at the identity.
    fn differs(&self, hello: &Hello) -> Option<Verdict> {
        let inner = self.inner.borrow();
        inner.own.compare(hello).map(|rejection| inner.rejected(rejection))
    }

    /// What finds no room has no answer.
    fn enqueue(&self, work: Work) {
        let mut inner = self.inner.borrow_mut();
        if inner.queue.len() < QUEUE_MAX {
            inner.queue.push_back(work);
            self.wake.raise();
        }
    }

    /// Another node refuses this one.
    pub fn refused(&self, by: NodeId, refusal: Refusal) {
        let mut inner = self.inner.borrow_mut();
        let (nodes, own) = (inner.own.nodes, inner.standing());
        if let Some(refused) = inner.refusals.add((by, refusal), nodes, own) {
            inner.refused = Some(refused);
            self.wake.raise();
        }
    }

    /// Another node cannot be reached: whether it still refuses this one is not known.
    pub fn unreachable(&self, node: NodeId) {
        self.inner.borrow_mut().refusals.remove(node);
    }

    /// The desk at work, for ever; returns with the first failure of the identity's files that is more than a
    /// lack of room, or where other nodes refuse this one and are right.
    pub async fn run(self) -> DeskEnd {
        loop {
            let refused = self.inner.borrow_mut().refused.take();
            if let Some(refused) = refused {
                return DeskEnd::Refused(refused);
            }
            let work = self.inner.borrow_mut().queue.pop_front();
            let done = match work {
                Some(Work::Admit(hello, place, sender)) => {
                    self.take_in(hello, place).await.map(|admission| sender.send(admission))
                }
                Some(Work::Welcomed(by, sender)) => self.count(by).await.map(|verdict| sender.send(verdict)),
                None if self.is_due() => self.entitle().await,
                None => {
                    self.wake.wait().await;
                    Ok(())
                }
            };
            match done {
                Ok(()) => {}
                // Nobody was welcomed, and nothing is due that was not before: both come again.
                Err(failure) if failure.is_full() => {
                    tracing::warn!(%failure, "the disk is full: who is known cannot be noted");
                    self.rest().await;
                }
                Err(failure) => return DeskEnd::Failed(failure),
            }
        }
    }

    async fn rest(&self) {
        let env = self.store.borrow().as_ref().map(IdentityStore::env).cloned();
        if let Some(env) = env {
            env.sleep(SPACE_RETRY_AFTER).await;
        }
    }

    async fn take_in(&self, hello: Hello, place: LinkPlace) -> Result<Admission, LogFailure> {
        let verdict = self.note(hello).await?;
        let mut inner = self.inner.borrow_mut();
        match (verdict, inner.links.outdated(&hello)) {
            (Verdict::Rejected(_), _) => Ok(Admission { verdict, closes: Vec::new() }),
            (Verdict::Welcome(_), Some(rejection)) => {
                Ok(Admission { verdict: inner.rejected(rejection), closes: Vec::new() })
            }
            (Verdict::Welcome(_), None) => Ok(Admission { verdict, closes: inner.links.hold(&hello, place) }),
        }
    }

    async fn note(&self, hello: Hello) -> Result<Verdict, LogFailure> {
        let own = self.inner.borrow().own();
        let mut store = self.store.borrow_mut().take().expect("the desk does one thing at a time");
        let before = store.identity().noted.get(&hello.node).copied();
        if let Some(rejection) = no_witness(&own, &hello).filter(|_| before.is_none()) {
            *self.store.borrow_mut() = Some(store);
            return Ok(self.inner.borrow().rejected(rejection));
        }
        let noted = store.note(hello.node, hello.noted()).await;
        *self.store.borrow_mut() = Some(store);
        let rejection = match noted {
            Ok(()) => {
                tell_replaced(before, &hello);
                return Ok(Verdict::Welcome(own));
            }
            Err(NoteError::AnotherKnown { known }) => other_known(known, &hello),
            Err(NoteError::NoSuchNode) => Rejection::Node { ours: own.node, theirs: hello.node },
            Err(NoteError::Failed(failure)) => return Err(failure),
        };
        Ok(self.inner.borrow().rejected(rejection))
    }

    async fn count(&self, by: Hello) -> Result<Verdict, LogFailure> {
        let verdict = self.note(by).await?;
        if let Verdict::Welcome(_) = verdict {
            let mut inner = self.inner.borrow_mut();
            inner.noted_by.insert(by.node);
            inner.refusals.remove(by.node);
        }
        Ok(verdict)
    }

    fn is_due(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.is_entitled && inner.has_lanes && inner.noted_by.len() >= inner.needed
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

impl Inner {
    /// What this node says of itself now.
    fn own(&self) -> Hello {
        Hello { standing: self.standing(), ..self.own }
    }

    fn standing(&self) -> Standing {
        if self.is_entitled { Standing::Entitled } else { Standing::New }
    }

    fn rejected(&self, rejection: Rejection) -> Verdict {
        Verdict::Rejected(Refusal { rejection, standing: self.standing() })
    }
}

/// Why a recovered node cannot vouch for a directory, where it knows no other.
fn no_witness(own: &Hello, hello: &Hello) -> Option<Rejection> {
    let is_recovered = |of: &Hello| of.recovered_at != RecoveredAt::NEVER;
    let is_new = hello.standing == Standing::New && !is_recovered(hello);
    let ours = own.recovered_at;
    (is_recovered(own) && is_new).then_some(Rejection::NoWitness { ours, theirs: hello.directory })
}

/// Why a node is refused that is known with another directory.
fn other_known(known: Noted, hello: &Hello) -> Rejection {
    match hello.recovered_at {
        RecoveredAt::NEVER => Rejection::Directory { noted: known.directory, theirs: hello.directory },
        theirs => Rejection::Recovery { newest: known.recovered_at, theirs },
    }
}

/// Says where a node has come with another directory than the one that was noted of it.
fn tell_replaced(before: Option<Noted>, hello: &Hello) {
    if let Some(before) = before.filter(|before| before.directory != hello.directory) {
        let (node, lost, directory) = (hello.node, before.directory.0, hello.directory.0);
        let (lost, directory) = (format!("{lost:016x}"), format!("{directory:016x}"));
        tracing::warn!(%node, lost, directory, "node recovered: its lost directory counts no more");
    }
}

/// How many other nodes must have noted a new directory.
#[must_use]
pub fn others_needed(nodes: u32) -> usize {
    assert!(nodes > 0, "a cluster of no nodes");
    (nodes / 2 + 1).min(nodes - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_sets_of_witnesses_meet() {
        for nodes in 2..=7 {
            let (others, needed) = (nodes as usize - 1, others_needed(nodes));
            assert!(2 * needed > others, "{needed} of {others} others");
        }
        assert_eq!(others_needed(1), 0);
    }
}
