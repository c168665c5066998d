//! The cores of one node, connected: one bounded channel from each core to each other.
//!
//! A core's runner leaves items for other cores; one task for each other core carries them there, many at a
//! time. What concerns the whole node travels the same way: hellos for the desk on core 0, its verdicts,
//! entitlement, draining and the end.
//!
//! Invariants:
//! - Between two cores items arrive in the order in which they were left.
//! - The runner never waits: only the carrying task does, and the runner bounds what waits for it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ::glommio::channels::shared_channel::{self, SharedReceiver, SharedSender};

use crate::env::Env;
use crate::env::signal::{AnswerReceiver, AnswerSender, Signal, answer};
use crate::host::link::LinkNews;
use crate::host::peers::Peers;
use crate::ids::{CoreId, NodeId};
use crate::shard::admission::{Desk, Hello, LinkPlace, Verdict};
use crate::shard::{MeshItem, Runner};

/// Batches of items in one channel; what waits behind them is bounded by the runner.
const BATCHES_MAX: usize = 64;

/// Questions and news of links that wait to be carried to core 0: what finds no room goes unanswered and
/// comes again with the next try.
const ASIDE_MAX: usize = 1024;

/// What one core of a node sends to another.
#[derive(Debug)]
pub enum NodeItem {
    /// The runner's.
    Shard(MeshItem),
    /// To core 0: a question for the desk.
    Ask {
        /// Which core asks.
        from: CoreId,
        /// The number of the question.
        number: u64,
        /// The question.
        question: Question,
    },
    /// From core 0: the desk's answer.
    Judged {
        /// The number of the question.
        number: u64,
        /// The verdict.
        verdict: Verdict,
    },
    /// From core 0: a newer link has taken the place of the incoming one of this number.
    CloseLink(u64),
    /// To core 0: what became of this core's link to a node.
    Heard(NodeId, LinkNews),
    /// To core 0: this core's replicas have applied what their logs knew to be committed at the start.
    CaughtUp,
    /// From core 0: this node may vote and acknowledge.
    Entitled,
    /// From core 0: the node is going away.
    Drain,
    /// To core 0: this core's edge has no more streams and its replicas lead no more.
    Drained,
    /// From core 0: seal the lanes and end.
    Stop,
}

/// What a core asks the desk.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// Whether a node that said this, on the incoming link at this place, is welcome.
    Admit(Hello, LinkPlace),
    /// Whether a node that welcomed this one with this is welcome here, and counts.
    Welcomed(Hello),
}

type Batch = VecDeque<NodeItem>;

/// One core's ends of the mesh, before its executor runs.
pub struct MeshEnds {
    core: CoreId,
    senders: BTreeMap<CoreId, SharedSender<Batch>>,
    receivers: BTreeMap<CoreId, SharedReceiver<Batch>>,
}

/// The mesh of a node of `cores` cores: the ends of each.
#[must_use]
pub fn mesh(cores: u32) -> Vec<MeshEnds> {
    let mut ends: Vec<MeshEnds> = (0..cores)
        .map(|core| MeshEnds { core: CoreId(core), senders: BTreeMap::new(), receivers: BTreeMap::new() })
        .collect();
    for from in 0..cores {
        for to in (0..cores).filter(|to| *to != from) {
            let (sender, receiver) = shared_channel::new_bounded(BATCHES_MAX);
            ends[from as usize].senders.insert(CoreId(to), sender);
            ends[to as usize].receivers.insert(CoreId(from), receiver);
        }
    }
    ends
}

/// One core's side of its node: what it says to the other cores, and what it hears from them.
pub struct Mesh<E: Env> {
    env: E,
    core: CoreId,
    cores: u32,
    runner: Runner<E>,
    /// On core 0 alone.
    reception: Option<Reception<E>>,
    state: Rc<State>,
}

/// Where core 0 hears of other nodes.
pub struct Reception<E: Env> {
    /// Decides about them, and about this one.
    pub desk: Desk<E>,
    /// Knows what was said of them.
    pub peers: Rc<RefCell<Peers>>,
}

impl<E: Env> Clone for Reception<E> {
    fn clone(&self) -> Self {
        Self { desk: self.desk.clone(), peers: Rc::clone(&self.peers) }
    }
}

impl<E: Env> Clone for Mesh<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            core: self.core,
            cores: self.cores,
            runner: self.runner.clone(),
            reception: self.reception.clone(),
            state: Rc::clone(&self.state),
        }
    }
}

#[derive(Default)]
struct State {
    own: RefCell<BTreeMap<CoreId, Batch>>,
    carriers: RefCell<BTreeMap<CoreId, Signal>>,
    links: RefCell<BTreeMap<NodeId, Signal>>,
    questions: RefCell<BTreeMap<u64, AnswerSender<Verdict>>>,
    last_question: Cell<u64>,
    /// Incoming links by their numbers, with what is raised when one is to be closed.
    incoming: RefCell<BTreeMap<u64, Signal>>,
    last_incoming: Cell<u64>,
    is_draining: Cell<bool>,
    drained: Cell<u32>,
    draining: Signal,
    all_drained: Signal,
    has_entitled: Cell<bool>,
    caught_up: Cell<u32>,
}

/// An incoming link of this core, from its first byte to its end.
pub struct Incoming {
    /// Where it is.
    pub place: LinkPlace,
    /// Raised when a newer link has taken its place.
    pub closed: Signal,
    state: Rc<State>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.state.incoming.borrow_mut().remove(&self.place.number);
    }
}

impl<E: Env> Mesh<E> {
    /// Connects a core: from now on what its runner leaves for other cores is carried there.
    pub async fn connect(env: E, ends: MeshEnds, runner: Runner<E>, reception: Option<Reception<E>>) -> Self {
        assert_eq!(reception.is_some(), ends.core == CoreId(0), "the desk is on core 0, and only there");
        let cores = u32::try_from(ends.senders.len()).expect("a node has few cores") + 1;
        let state = Rc::new(State::default());
        let mesh = Self { env, core: ends.core, cores, runner, reception, state };
        for (to, sender) in ends.senders {
            mesh.spawn_carrier(to, sender);
        }
        for (_, receiver) in ends.receivers {
            mesh.spawn_receiver(receiver);
        }
        let (dispatcher, outgoing) = (mesh.clone(), mesh.runner.outgoing());
        mesh.env.spawn(async move {
            loop {
                outgoing.wait().await;
                dispatcher.dispatch();
            }
        });
        mesh
    }

    /// The signal that is raised when parcels wait for a node.
    #[must_use]
    pub fn link_signal(&self, node: NodeId) -> Signal {
        self.state.links.borrow_mut().entry(node).or_default().clone()
    }

    /// Asks the desk. Without an answer where it is gone or too busy.
    #[must_use]
    pub fn ask(&self, question: Question) -> AnswerReceiver<Verdict> {
        let (sender, receiver) = answer();
        if let Some(reception) = &self.reception {
            self.judge(reception, question, |verdict| sender.send(verdict));
            return receiver;
        }
        let number = self.state.last_question.get() + 1;
        self.state.last_question.set(number);
        let mut questions = self.state.questions.borrow_mut();
        questions.retain(|_, question| question.is_awaited());
        questions.insert(number, sender);
        self.offer(NodeItem::Ask { from: self.core, number, question });
        receiver
    }

    /// Core 0: has the desk answer.
    fn judge(&self, reception: &Reception<E>, question: Question, then: impl FnOnce(Verdict) + 'static) {
        let (mesh, peers) = (self.clone(), Rc::clone(&reception.peers));
        match question {
            Question::Admit(hello, place) => {
                let admission = reception.desk.admit(hello, place);
                self.env.spawn(async move {
                    let Some(admission) = admission.await else { return };
                    // Before the verdict: whether or not anybody waits for that, the desk counts on these.
                    admission.closes.into_iter().for_each(|link| mesh.close(link));
                    let text = peers.borrow_mut().judged(&hello, &admission.verdict);
                    text.inspect(|text| tracing::warn!("{text}"));
                    then(admission.verdict);
                });
            }
            Question::Welcomed(by) => {
                let verdict = reception.desk.welcomed(by);
                self.env.spawn(async move {
                    if let Some(verdict) = verdict.await {
                        then(verdict);
                    }
                });
            }
        }
    }

    /// Core 0: tells the core that holds a link to close it.
    fn close(&self, link: LinkPlace) {
        if link.core == self.core {
            self.take(NodeItem::CloseLink(link.number));
        } else {
            self.send(link.core, NodeItem::CloseLink(link.number));
        }
    }

    /// A link has come to this core, and has its number until it ends.
    #[must_use]
    pub fn incoming(&self) -> Incoming {
        let number = self.state.last_incoming.get() + 1;
        self.state.last_incoming.set(number);
        let closed = Signal::default();
        self.state.incoming.borrow_mut().insert(number, closed.clone());
        let place = LinkPlace { core: self.core, number };
        Incoming { place, closed, state: Rc::clone(&self.state) }
    }

    /// Tells the node what became of this core's link to another.
    pub fn heard(&self, of: NodeId, news: LinkNews) {
        let Some(Reception { desk, peers }) = &self.reception else {
            return self.offer(NodeItem::Heard(of, news));
        };
        match &news {
            LinkNews::Refused(refusal) => desk.refused(of, *refusal),
            LinkNews::Down(_) | LinkNews::Stranger(_) => desk.unreachable(of),
            LinkNews::Up | LinkNews::Refuses(_) => {}
        }
        let text = peers.borrow_mut().heard(of, news);
        text.inspect(|text| tracing::error!("{text}"));
    }

    /// Tells core 0 that this core's replicas have applied what their logs knew to be committed.
    pub fn caught_up(&self) {
        if self.core == CoreId(0) {
            self.take(NodeItem::CaughtUp);
        } else {
            self.send(CoreId(0), NodeItem::CaughtUp);
        }
    }

    /// Core 0: how many cores have not said so yet.
    #[must_use]
    pub fn behind(&self) -> u32 {
        self.cores - self.state.caught_up.get()
    }

    /// The cores of the node.
    #[must_use]
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Whether this core knows that its node may vote.
    #[must_use]
    pub fn is_entitled(&self) -> bool {
        self.state.has_entitled.get()
    }

    /// Core 0: tells every core that the node may vote.
    pub fn entitle_all(&self) {
        self.broadcast(|| NodeItem::Entitled);
        self.take(NodeItem::Entitled);
    }

    /// Core 0: tells every core that the node is going away.
    pub fn drain_all(&self) {
        self.broadcast(|| NodeItem::Drain);
        self.take(NodeItem::Drain);
    }

    /// Core 0: tells every core to seal its lanes and end.
    pub fn stop_all(&self) {
        self.broadcast(|| NodeItem::Stop);
        self.take(NodeItem::Stop);
    }

    /// Raised when the node begins to go away.
    #[must_use]
    pub fn draining(&self) -> Signal {
        self.state.draining.clone()
    }

    /// Tells core 0 that this core is done.
    pub fn drained(&self) {
        if self.core == CoreId(0) {
            self.take(NodeItem::Drained);
        } else {
            self.send(CoreId(0), NodeItem::Drained);
        }
    }

    /// Core 0: raised when every core is done.
    #[must_use]
    pub fn all_drained(&self) -> Signal {
        self.state.all_drained.clone()
    }

    fn broadcast(&self, item: impl Fn() -> NodeItem) {
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            self.send(core, item());
        }
    }

    /// Sends core 0 what may be lost, unless too much waits already.
    fn offer(&self, item: NodeItem) {
        let waiting = self.state.own.borrow().get(&CoreId(0)).map_or(0, Batch::len);
        if waiting < ASIDE_MAX {
            self.send(CoreId(0), item);
        }
    }

    fn send(&self, to: CoreId, item: NodeItem) {
        self.state.own.borrow_mut().entry(to).or_default().push_back(item);
        if let Some(carrier) = self.state.carriers.borrow().get(&to) {
            carrier.raise();
        }
    }

    /// The runner has left something: wakes the tasks that carry it.
    fn dispatch(&self) {
        for core in self.runner.waiting_mesh() {
            if let Some(carrier) = self.state.carriers.borrow().get(&core) {
                carrier.raise();
            }
        }
        for node in self.runner.waiting_links() {
            self.link_signal(node).raise();
        }
    }

    fn spawn_carrier(&self, to: CoreId, sender: SharedSender<Batch>) {
        let signal = Signal::default();
        self.state.carriers.borrow_mut().insert(to, signal.clone());
        let mesh = self.clone();
        self.env.spawn(async move {
            let sender = sender.connect().await;
            loop {
                let mut batch = mesh.state.own.borrow_mut().remove(&to).unwrap_or_default();
                batch.extend(mesh.runner.take_mesh(to).into_iter().map(NodeItem::Shard));
                if batch.is_empty() {
                    signal.wait().await;
                } else if sender.send(batch).await.is_err() {
                    // The other core has ended: so does the node.
                    return;
                }
            }
        });
    }

    fn spawn_receiver(&self, receiver: SharedReceiver<Batch>) {
        let mesh = self.clone();
        self.env.spawn(async move {
            let receiver = receiver.connect().await;
            while let Some(batch) = receiver.recv().await {
                for item in batch {
                    mesh.take(item);
                }
            }
        });
    }

    fn take(&self, item: NodeItem) {
        match item {
            NodeItem::Shard(item) => self.runner.deliver_mesh(item),
            NodeItem::Ask { from, number, question } => {
                let Some(reception) = &self.reception else { return };
                let mesh = self.clone();
                self.judge(reception, question, move |verdict| {
                    mesh.send(from, NodeItem::Judged { number, verdict });
                });
            }
            NodeItem::Judged { number, verdict } => {
                if let Some(question) = self.state.questions.borrow_mut().remove(&number) {
                    question.send(verdict);
                }
            }
            NodeItem::CloseLink(number) => {
                if let Some(closed) = self.state.incoming.borrow().get(&number) {
                    closed.raise();
                }
            }
            NodeItem::Heard(of, news) => self.heard(of, news),
            NodeItem::CaughtUp => self.state.caught_up.set(self.state.caught_up.get() + 1),
            NodeItem::Entitled => {
                self.state.has_entitled.set(true);
                self.runner.entitle();
            }
            NodeItem::Drain => {
                if !self.state.is_draining.replace(true) {
                    self.runner.drain();
                    self.state.draining.raise();
                }
            }
            NodeItem::Drained => {
                self.state.drained.set(self.state.drained.get() + 1);
                if self.state.drained.get() == self.cores {
                    self.state.all_drained.raise();
                }
            }
            NodeItem::Stop => self.runner.stop(),
        }
    }
}
