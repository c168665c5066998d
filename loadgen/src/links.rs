//! The connections of one engine, by node, and the choice among them.
//!
//! A call goes to its shard's leader; where that is unknown or not connected, to any node, which passes it
//! on. Among a node's connections calls go round.
//!
//! Invariants: a node once dialled is dialled to the end of the run, listed or not: nodes come and go rarely,
//! and a connection more costs little.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;

use crate::connection::{Link, LinkChange};
use crate::ready::{ReadyList, Token};
use crate::routing::Routing;
use crate::workload::Method;

/// Connections by node.
pub struct Links {
    links: Vec<Link>,
    nodes: Vec<NodeLinks>,
    routing: Routing,
    /// By place in the routing table: the place in `nodes`, where the address can be dialled.
    routed: Vec<Option<usize>>,
    /// Where the next call without a leader goes.
    next_node: usize,
    options: LinkOptions,
}

/// How connections are made.
#[derive(Clone)]
pub struct LinkOptions {
    /// Connections to each node.
    pub per_node: usize,
    /// The timeout said with every call.
    pub timeout: Duration,
    /// Whom their wakers tell.
    pub ready: Arc<ReadyList>,
}

struct NodeLinks {
    address: String,
    first: usize,
    /// Which of its connections is the next in turn.
    turn: usize,
}

/// What became of a request that was to be sent.
pub enum Sending {
    /// It is on its way.
    Sent(ResponseFuture),
    /// No connection can take it now.
    NoRoom,
    /// The connection failed under it.
    Failed(h2::Error),
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
            let waker = self.options.ready.waker(Token::Link(place as u32));
            match Link::new(address, self.options.timeout, waker) {
                Ok(link) => self.links.push(link),
                Err(error) => {
                    eprintln!("loadgen: node address '{address}' of the routing table is left out: {error}");
                    return None;
                }
            }
        }
        self.nodes.push(NodeLinks { address: address.to_owned(), first, turn: 0 });
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
    pub fn poll(&mut self, place: u32, now_ns: u64) -> LinkChange {
        self.links[place as usize].poll(now_ns)
    }

    /// Dials the connections whose time has come.
    pub fn poll_due(&mut self, now_ns: u64) {
        for link in &mut self.links {
            if link.dial_ns().is_some_and(|dial_ns| dial_ns <= now_ns) {
                link.poll(now_ns);
            }
        }
    }

    /// Whether every connection has been up, or has failed, at least once.
    pub fn are_settled(&self) -> bool {
        self.links.iter().all(Link::is_settled)
    }

    /// Connections that are up.
    pub fn up(&self) -> usize {
        self.links.iter().filter(|link| link.is_up()).count()
    }

    /// Sends a request for a shard to where it goes.
    pub fn send(&mut self, shard: usize, method: Method, body: impl FnOnce() -> Bytes) -> Sending {
        let Some(node) = self.node_for(shard) else { return Sending::NoRoom };
        let mut body = Some(body);
        for _ in 0..self.options.per_node {
            let entry = &mut self.nodes[node];
            entry.turn = (entry.turn + 1) % self.options.per_node;
            let link = &mut self.links[entry.first + entry.turn];
            let spell = || body.take().expect("a connection spells the request only to send it")();
            match link.send(method, spell) {
                Some(Ok(response)) => return Sending::Sent(response),
                Some(Err(error)) => return Sending::Failed(error),
                None => {}
            }
        }
        Sending::NoRoom
    }

    /// The leader's place where it is known and connected, else the next node that is connected.
    fn node_for(&mut self, shard: usize) -> Option<usize> {
        let leader = self.routing.leaders.get(shard).copied().flatten();
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
