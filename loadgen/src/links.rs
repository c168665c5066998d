//! The connections of one engine, by node, and the choice among them.
//!
//! A call goes to its shard's leader; where that is unknown or not connected, or where calls are to go to
//! any, to the next node, which passes it on. Among a node's connections calls go round, a few at a time:
//! what a turn of the engine sends to a node shares a write here and a read there, and a burst still reaches
//! all of them.
//!
//! Invariants: a node once dialled is dialled to the end of the run, listed or not: nodes come and go rarely,
//! and a connection more costs little.

use std::sync::Arc;
use std::time::Duration;

use crate::args::RouteTo;
use crate::arrivals::Arrivals;
use crate::call::Route;
use crate::connection::{BadAddress, Carriage, Link, LinkChange, Sending};
use crate::ready::ReadyList;
use crate::routing::Routing;

/// Calls of a turn that a connection takes before the next one has its turn.
const CALLS_IN_A_ROW_MAX: usize = 16;

/// Connections by node.
pub struct Links {
    links: Vec<Link>,
    nodes: Vec<NodeLinks>,
    routing: Routing,
    /// By place in the routing table: the place in `nodes`, where the address can be dialled.
    routed: Vec<Option<usize>>,
    /// Where the next call without a leader goes.
    next_node: usize,
    /// Connections with something to write, perhaps more than once.
    dirty: Vec<u32>,
    options: LinkOptions,
}

/// Connections that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Up {
    /// How many.
    pub up: usize,
    /// Of how many.
    pub all: usize,
}

/// How connections are made.
#[derive(Clone)]
pub struct LinkOptions {
    /// Connections to each node.
    pub per_node: usize,
    /// How operations travel.
    pub carriage: Carriage,
    /// Which node they go to.
    pub route: RouteTo,
    /// The timeout said with every call.
    pub timeout: Duration,
    /// Whom their wakers tell.
    pub ready: Arc<ReadyList>,
}

struct NodeLinks {
    address: String,
    first: usize,
    /// Which of its connections has its turn.
    turn: usize,
    /// Calls that it has taken in this turn.
    taken: usize,
}

impl NodeLinks {
    /// The next of so many connections has its turn.
    fn go_round(&mut self, connections: usize) {
        self.turn = (self.turn + 1) % connections;
        self.taken = 0;
    }
}

impl Links {
    /// Connections to all nodes of a routing table, none of them dialled yet.
    pub fn new(routing: Routing, options: LinkOptions) -> Self {
        let mut links = Self {
            links: Vec::new(),
            nodes: Vec::new(),
            routing: Routing::any_of(&[]),
            routed: Vec::new(),
            next_node: 0,
            dirty: Vec::new(),
            options,
        };
        links.adopt(routing);
        links
    }

    /// Goes by a new routing table. Nodes that are new get connections, dialled by the next
    /// [`Links::poll_due`].
    pub fn adopt(&mut self, routing: Routing) {
        self.routed = routing.nodes.iter().map(|node| self.node_at(&node.address)).collect();
        self.routing = routing;
    }

    /// The place of an address among the nodes, added where it is new; `None` where it is none that can be
    /// dialled.
    fn node_at(&mut self, address: &str) -> Option<usize> {
        if let Some(place) = self.nodes.iter().position(|node| node.address == address) {
            return Some(place);
        }
        let first = self.links.len();
        for place in first..first + self.options.per_node {
            let waker = self.options.ready.waker(place as u32);
            let (carriage, timeout) = (self.options.carriage, self.options.timeout);
            match Link::new(address, place as u32, carriage, timeout, waker) {
                Ok(link) => self.links.push(link),
                Err(BadAddress) => {
                    eprintln!("loadgen: '{address}' of the routing table is left out: it is no address");
                    return None;
                }
            }
        }
        self.nodes.push(NodeLinks { address: address.to_owned(), first, turn: 0, taken: 0 });
        Some(self.nodes.len() - 1)
    }

    /// Takes a hint about a shard's leader.
    pub fn hint(&mut self, shard: usize, leader: u32) {
        self.routing.hint(shard, leader);
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &[u8]) -> usize {
        self.routing.shard_of(key)
    }

    /// Moves one connection forward.
    pub fn poll(&mut self, place: u32, arrivals: &mut Arrivals<'_>) -> LinkChange {
        self.dirty.push(place);
        self.links[place as usize].poll(arrivals)
    }

    /// Dials the connections whose time has come.
    pub fn poll_due(&mut self, arrivals: &mut Arrivals<'_>) {
        for link in &mut self.links {
            if link.dial_ns().is_some_and(|dial_ns| dial_ns <= arrivals.now_ns) {
                link.poll(arrivals);
            }
        }
    }

    /// Writes what was sent since the last time, one write for each connection.
    pub fn flush(&mut self) {
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for place in self.dirty.drain(..) {
            self.links[place as usize].flush();
        }
        for node in self.nodes.iter_mut().filter(|node| node.taken > 0) {
            node.go_round(self.options.per_node);
        }
    }

    /// Whether every connection has been up, or has failed, at least once.
    pub fn are_settled(&self) -> bool {
        self.links.iter().all(Link::is_settled)
    }

    /// Connections that are up, of how many.
    pub fn up(&self) -> Up {
        Up { up: self.links.iter().filter(|link| link.is_up()).count(), all: self.links.len() }
    }

    /// Sends an operation on a shard to where it goes, with the next [`Links::flush`]. `None` where no
    /// connection can take it now.
    pub fn send(&mut self, shard: usize, sending: &Sending<'_>) -> Option<Route> {
        let node = self.node_for(shard)?;
        for _ in 0..self.options.per_node {
            let entry = &mut self.nodes[node];
            if entry.taken == CALLS_IN_A_ROW_MAX {
                entry.go_round(self.options.per_node);
            }
            let place = entry.first + entry.turn;
            if let Some(route) = self.links[place].send(sending) {
                entry.taken += 1;
                self.mark(place as u32);
                return Some(route);
            }
            entry.go_round(self.options.per_node);
        }
        None
    }

    /// Gives up the answer to a call.
    pub fn cancel(&mut self, route: Route) {
        self.links[route.link as usize].cancel(route.stream);
        self.mark(route.link);
    }

    /// A connection has something to write.
    fn mark(&mut self, place: u32) {
        if self.dirty.last() != Some(&place) {
            self.dirty.push(place);
        }
    }

    /// The leader's place where it is known and connected, else the next node that is connected.
    fn node_for(&mut self, shard: usize) -> Option<usize> {
        let leader = match self.options.route {
            RouteTo::Leader => self.routing.leaders.get(shard).copied().flatten(),
            RouteTo::Any => None,
        };
        if let Some(node) = leader.and_then(|place| self.routed[place]).filter(|node| self.is_up(*node)) {
            return Some(node);
        }
        for _ in 0..self.nodes.len() {
            self.next_node = (self.next_node + 1) % self.nodes.len();
            if self.is_up(self.next_node) {
                return Some(self.next_node);
            }
        }
        None
    }

    fn is_up(&self, node: usize) -> bool {
        let first = self.nodes[node].first;
        self.links[first..first + self.options.per_node].iter().any(Link::is_up)
    }
}
