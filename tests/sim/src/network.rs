//! A packet network between the cores of all nodes: what is sent may be lost, late, repeated, reordered or
//! held back.
//!
//! A packet is drawn its fate when it is sent, flies for as long as its link says, and lands in the inbox of
//! its place. Links are directed, from node to node, and each has its own [`LinkConfig`] and [`LinkState`]:
//!
//! ```text
//! open ──── packets fly
//! cut  ──── packets are lost, those that are landing too
//! held ──── packets wait where they would land, and all land when the link is opened again
//! ```
//!
//! Invariants:
//! - What is sent by a node whose process has ended is lost.
//! - On a FIFO link no packet overtakes or repeats another.
//! - Packets in flight and in an inbox are bounded: what is too much is lost, as on any network.
//!
//! It deliberately has no connections: what a link of production does beyond this (its hello, its closing) is
//! made of packets by whoever simulates it. Packets outlive the process that sent them and reach the next
//! life of the one that they were sent to.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use distribkv::env::signal::Signal;
use distribkv::ids::{CoreId, NodeId};

use crate::executor::{WorldHandle, WorldTime};
use crate::random::{Chance, Random};

/// One core of one node: where packets come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreId,
}

/// Whether packets of one link may overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    /// Each packet takes its own time, and may be repeated.
    Free,
    /// Between two places packets land in the order sent, and once, as over one TCP connection.
    Fifo,
}

/// How a link treats its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The shortest flight, in microseconds.
    pub delay_us_min: u64,
    /// The longest usual flight, in microseconds.
    pub delay_us_max: u64,
    /// How often a packet is late.
    pub late: Chance,
    /// The longest late flight, in microseconds.
    pub late_us_max: u64,
    /// How often a packet is lost.
    pub loss: Chance,
    /// How often a packet is sent again, some time later.
    pub replay: Chance,
    /// The longest flight of a repeated packet, in microseconds.
    pub replay_us_max: u64,
    /// Whether packets may overtake each other.
    pub order: LinkOrder,
}

impl LinkConfig {
    /// A link that loses and repeats nothing, within these flights.
    #[must_use]
    pub const fn reliable(delay_us_min: u64, delay_us_max: u64) -> Self {
        Self {
            delay_us_min,
            delay_us_max,
            late: Chance::NEVER,
            late_us_max: delay_us_max,
            loss: Chance::NEVER,
            replay: Chance::NEVER,
            replay_us_max: delay_us_max,
            order: LinkOrder::Free,
        }
    }
}

/// Settings of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Every link that has no settings of its own.
    pub link: LinkConfig,
    /// Between cores of one node.
    pub within_node: LinkConfig,
    /// Packets that may be in flight or held, on all links together.
    pub in_flight_max: usize,
    /// Packets that may wait in an inbox.
    pub inbox_max: usize,
}

impl NetworkConfig {
    /// Links that are reliable within these flights; cores of one node hear each other within 10 µs, in
    /// order.
    #[must_use]
    pub const fn reliable(delay_us_min: u64, delay_us_max: u64) -> Self {
        Self {
            link: LinkConfig::reliable(delay_us_min, delay_us_max),
            within_node: LinkConfig { order: LinkOrder::Fifo, ..LinkConfig::reliable(1, 10) },
            in_flight_max: 1 << 16,
            inbox_max: 1 << 12,
        }
    }
}

/// What a link is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// It carries packets.
    #[default]
    Open,
    /// It loses every packet.
    Cut,
    /// It holds every packet back.
    Held,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the network.
    pub sent: u64,
    /// Landed in an inbox, repeats included.
    pub landed: u64,
    /// Lost by chance or by a cut link.
    pub lost: u64,
    /// Lost since too many were in flight, or the inbox was full or not there.
    pub overflowed: u64,
    /// Repeated.
    pub replayed: u64,
}

/// A network. Cloning is cheap: a handle to the same one.
pub struct Network<T> {
    inner: Rc<Inner<T>>,
}

impl<T> Clone for Network<T> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

/// What all handles of a network share.
struct Inner<T> {
    world: WorldHandle,
    state: RefCell<State<T>>,
}

/// Links, inboxes and counts.
struct State<T> {
    config: NetworkConfig,
    random: Random,
    links: BTreeMap<(NodeId, NodeId), Link<T>>,
    inboxes: BTreeMap<Place, Rc<InboxState<T>>>,
    /// When the last packet of a FIFO link lands.
    last_landing: BTreeMap<(Place, Place), WorldTime>,
    in_flight: usize,
    counts: Counts,
}

/// What is special about a link.
struct Link<T> {
    config: Option<LinkConfig>,
    state: LinkState,
    held: VecDeque<Packet<T>>,
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self { config: None, state: LinkState::Open, held: VecDeque::new() }
    }
}

/// A packet: where from, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<T> {
    /// Who sent it.
    pub from: Place,
    /// Whom it is for.
    pub to: Place,
    /// What it carries.
    pub payload: T,
}

/// How many more times a packet may be drawn to be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    Original,
    Repeat,
}

impl<T: Clone + 'static> Network<T> {
    /// A network without inboxes.
    #[must_use]
    pub fn new(world: &WorldHandle, config: NetworkConfig) -> Self {
        let state = State {
            config,
            random: world.random(0x6e65_7477_6f72_6b00),
            links: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            last_landing: BTreeMap::new(),
            in_flight: 0,
            counts: Counts::default(),
        };
        Self { inner: Rc::new(Inner { world: world.clone(), state: RefCell::new(state) }) }
    }

    /// Gives a place an inbox, in place of the one that an earlier life of its node had.
    pub fn attach(&self, place: Place) -> Inbox<T> {
        let inbox = Rc::new(InboxState { queue: RefCell::new(VecDeque::new()), signal: Signal::default() });
        self.inner.state.borrow_mut().inboxes.insert(place, Rc::clone(&inbox));
        Inbox { state: inbox }
    }

    /// Takes away all inboxes of a node: what lands there is lost. For when its process ends.
    pub fn detach(&self, node: NodeId) {
        self.inner.state.borrow_mut().inboxes.retain(|place, _| place.node != node);
    }

    /// Sends a packet. What becomes of it, the sender never learns.
    pub fn send(&self, from: Place, to: Place, payload: T) {
        if self.inner.world.group_of(from.node).is_none() {
            return;
        }
        self.inner.state.borrow_mut().counts.sent += 1;
        self.launch(Packet { from, to, payload }, Copies::Original);
    }

    /// Draws a packet's fate.
    fn launch(&self, packet: Packet<T>, copies: Copies) {
        let now = self.inner.world.time();
        let (flight, repeated) = {
            let mut state = self.inner.state.borrow_mut();
            let link = state.link_config(packet.from.node, packet.to.node);
            let flight = state.draw_flight(link, copies);
            let repeated = link.order == LinkOrder::Free
                && state.random.happens(link.replay)
                && copies == Copies::Original;
            let lost = state.random.happens(link.loss) && copies == Copies::Original;
            if lost || state.link_state(packet.from.node, packet.to.node) == LinkState::Cut {
                state.counts.lost += 1;
                return;
            }
            if state.in_flight >= state.config.in_flight_max {
                state.counts.overflowed += 1;
                return;
            }
            state.in_flight += 1;
            let places = (packet.from, packet.to);
            let mut landing = now + flight;
            if link.order == LinkOrder::Fifo {
                landing = landing.max(state.last_landing.get(&places).copied().unwrap_or_default());
                state.last_landing.insert(places, landing);
            }
            state.counts.replayed += u64::from(repeated);
            (Duration::from_micros(landing.0 - now.0), repeated)
        };
        let repeat = repeated.then(|| packet.clone());
        let network = self.clone();
        self.inner.world.after(flight, move || network.land(packet));
        if let Some(packet) = repeat {
            self.launch(packet, Copies::Repeat);
        }
    }

    /// The end of a flight: into the inbox, or not.
    fn land(&self, packet: Packet<T>) {
        let nodes = (packet.from.node, packet.to.node);
        let places = [packet.from.node.0, packet.from.core.0, packet.to.node.0, packet.to.core.0];
        let mut state = self.inner.state.borrow_mut();
        match state.link_state(nodes.0, nodes.1) {
            LinkState::Held => return state.links.entry(nodes).or_default().held.push_back(packet),
            LinkState::Cut => {
                state.in_flight -= 1;
                state.counts.lost += 1;
                return;
            }
            LinkState::Open => state.in_flight -= 1,
        }
        let inbox_max = state.config.inbox_max;
        let inbox = state.inboxes.get(&packet.to).filter(|inbox| inbox.queue.borrow().len() < inbox_max);
        let Some(inbox) = inbox.map(Rc::clone) else {
            state.counts.overflowed += 1;
            return;
        };
        state.counts.landed += 1;
        drop(state);
        self.inner.world.note("packet", &places.map(u64::from));
        inbox.queue.borrow_mut().push_back(packet);
        inbox.signal.raise();
    }

    // What follows is for the harness.

    /// Gives the link from one node to another its own settings.
    pub fn set_link(&self, from: NodeId, to: NodeId, config: LinkConfig) {
        self.inner.state.borrow_mut().links.entry((from, to)).or_default().config = Some(config);
    }

    /// Changes the settings of all links that have none of their own.
    pub fn configure(&self, change: impl FnOnce(&mut NetworkConfig)) {
        change(&mut self.inner.state.borrow_mut().config);
    }

    /// Opens, cuts or holds the link from one node to another; what an opened link had held lands at once.
    pub fn set_state(&self, from: NodeId, to: NodeId, link_state: LinkState) {
        let held = {
            let mut state = self.inner.state.borrow_mut();
            let link = state.links.entry((from, to)).or_default();
            link.state = link_state;
            match link_state {
                LinkState::Held => VecDeque::new(),
                LinkState::Open | LinkState::Cut => std::mem::take(&mut link.held),
            }
        };
        self.inner.world.note("link", &[u64::from(from.0), u64::from(to.0), link_state as u64]);
        for packet in held {
            self.land(packet);
        }
    }

    /// Cuts two sets of nodes off from each other, both ways.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        for (&near, &far) in one.iter().flat_map(|near| other.iter().map(move |far| (near, far))) {
            self.set_state(near, far, LinkState::Cut);
            self.set_state(far, near, LinkState::Cut);
        }
    }

    /// Opens every link. Settings of links stay.
    pub fn heal(&self) {
        let links: Vec<_> = self.inner.state.borrow().links.keys().copied().collect();
        for (from, to) in links {
            self.set_state(from, to, LinkState::Open);
        }
    }

    /// What became of packets so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.state.borrow().counts
    }
}

impl<T> State<T> {
    /// The settings that hold between two nodes.
    fn link_config(&self, from: NodeId, to: NodeId) -> LinkConfig {
        let usual = if from == to { self.config.within_node } else { self.config.link };
        self.links.get(&(from, to)).and_then(|link| link.config).unwrap_or(usual)
    }

    /// What the link from one node to another is doing.
    fn link_state(&self, from: NodeId, to: NodeId) -> LinkState {
        self.links.get(&(from, to)).map_or(LinkState::Open, |link| link.state)
    }

    /// How long a packet flies. The same numbers are drawn for each, so that one setting does not shift the
    /// others.
    fn draw_flight(&mut self, link: LinkConfig, copies: Copies) -> Duration {
        let usual = self.random.between(link.delay_us_min, link.delay_us_max);
        let is_late = self.random.happens(link.late);
        let late = self.random.between(link.delay_us_max, link.late_us_max.max(link.delay_us_max));
        let micros = match copies {
            Copies::Repeat => {
                self.random.between(link.delay_us_min, link.replay_us_max.max(link.delay_us_min))
            }
            Copies::Original if is_late => late,
            Copies::Original => usual,
        };
        Duration::from_micros(micros)
    }
}

/// What an inbox and the network share.
struct InboxState<T> {
    queue: RefCell<VecDeque<Packet<T>>>,
    signal: Signal,
}

/// Where the packets of a place land. One task reads it.
pub struct Inbox<T> {
    state: Rc<InboxState<T>>,
}

impl<T> Inbox<T> {
    /// The next packet, when there is one.
    pub async fn receive(&self) -> Packet<T> {
        loop {
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            self.state.signal.wait().await;
        }
    }

    /// The next packet, where there is one.
    #[must_use]
    pub fn try_receive(&self) -> Option<Packet<T>> {
        self.state.queue.borrow_mut().pop_front()
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
