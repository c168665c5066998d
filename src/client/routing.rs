//! Which node to ask: slots to shards, shards to leaders, leaders to addresses, and which addresses failed
//! lately.
//!
//! Routing only saves a hop: any node answers any call. So a stale table is harmless, what the answers say of
//! leaders is believed at once, and an address that does not answer is left out for a while (doubling from a
//! quarter of a second to ten seconds) in favour of any other.
//!
//! Invariants:
//! - A [`Table`] covers every slot exactly once, whatever the node sent.
//! - There is always somebody to ask: with every address failing, one of them is tried all the same.
//!
//! What it deliberately does not do: resolve names, or forget an address (they are bounded by
//! [`TARGETS_MAX`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::message::Target;
use crate::ids::{NodeId, ShardId, Slot};

/// The slots of the key space: a constant of the contract.
pub const SLOTS: u32 = 16384;
/// The most addresses that are kept; those of further nodes are not dialled directly.
pub const TARGETS_MAX: usize = 256;
/// The most nodes that a table may name.
pub const TABLE_NODES_MAX: usize = 4096;

const COOLING_FIRST: Duration = Duration::from_millis(250);
const COOLING_MOST: Duration = Duration::from_secs(10);

/// The slot of a key: of its hash tag, where it has one.
#[must_use]
pub fn slot_of(key: &[u8]) -> Slot {
    let slot = crc32fast::hash(tag_of(key)) % SLOTS;
    Slot(u16::try_from(slot).expect("a number below 16384"))
}

/// The bytes between the first `{` and the next `}` when there are any, else the whole key.
fn tag_of(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        Some(0) | None => key,
        Some(close) => &rest[..close],
    }
}

/// One shard's line of the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The shard.
    pub shard: ShardId,
    /// The first of its slots.
    pub first_slot: u32,
    /// The last of its slots.
    pub last_slot: u32,
    /// Its leader, where the answering node knows one.
    pub leader: Option<NodeId>,
}

/// The routing table, as a node sent it and as it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// In the order of their slots.
    shards: Vec<ShardPlace>,
    nodes: Vec<(NodeId, String)>,
}

/// Why a routing table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFault {
    /// Some slot belongs to no shard or to several.
    Slots {
        /// Where the shards before it end: the first slot that is not covered once.
        at: u32,
    },
    /// It names more nodes than a table may.
    Nodes {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slots { at } => write!(f, "slot {at} is not covered exactly once"),
            Self::Nodes { count } => write!(f, "{count} nodes, more than {TABLE_NODES_MAX}"),
        }
    }
}

impl std::error::Error for TableFault {}

impl Table {
    /// Checks what a node sent: shards in any order, and the nodes' addresses.
    ///
    /// # Errors
    /// Where the shards do not cover every slot exactly once, or the nodes are too many.
    pub fn new(mut shards: Vec<ShardPlace>, nodes: Vec<(NodeId, String)>) -> Result<Self, TableFault> {
        if nodes.len() > TABLE_NODES_MAX {
            return Err(TableFault::Nodes { count: nodes.len() });
        }
        shards.sort_by_key(|place| place.first_slot);
        let mut covered = 0;
        for place in &shards {
            let follows = place.first_slot == covered && place.last_slot >= place.first_slot;
            if !follows || place.last_slot >= SLOTS {
                return Err(TableFault::Slots { at: covered });
            }
            covered = place.last_slot + 1;
        }
        if covered == SLOTS { Ok(Self { shards, nodes }) } else { Err(TableFault::Slots { at: covered }) }
    }

    fn shard_of(&self, slot: Slot) -> ShardId {
        let after = self.shards.partition_point(|place| place.first_slot <= u32::from(slot.0));
        assert!(after > 0, "slot {slot} lies before the first of {} shards", self.shards.len());
        self.shards[after - 1].shard
    }
}

/// What is known of one address.
#[derive(Clone, Debug)]
struct Place {
    address: Arc<str>,
    /// Sendings in a row that nobody answered.
    failures: u32,
    /// Until when others are asked instead.
    cooling_until: Duration,
}

/// Whom to ask for what.
#[derive(Clone, Debug)]
pub struct Routing {
    places: Vec<Place>,
    table: Option<Table>,
    nodes: BTreeMap<NodeId, Target>,
    leaders: BTreeMap<ShardId, NodeId>,
}

impl Routing {
    /// Knows the addresses to begin with and nothing else. Repeated addresses count once.
    ///
    /// # Panics
    /// Without any address.
    #[must_use]
    pub fn new(endpoints: &[String]) -> Self {
        let mut routing =
            Self { places: Vec::new(), table: None, nodes: BTreeMap::new(), leaders: BTreeMap::new() };
        for endpoint in endpoints {
            routing.intern(endpoint);
        }
        assert!(!routing.places.is_empty(), "a client needs an endpoint, got {}", endpoints.len());
        routing
    }

    /// Takes over a newer table. What it does not say of leaders is kept.
    pub fn install(&mut self, table: Table) {
        assert!(!table.shards.is_empty(), "a checked table covers every slot: {table:?}");
        self.nodes.clear();
        for (node, address) in &table.nodes {
            if let Some(target) = self.intern(address) {
                self.nodes.insert(*node, target);
            }
        }
        for place in &table.shards {
            if let Some(leader) = place.leader {
                self.leaders.insert(place.shard, leader);
            }
        }
        self.table = Some(table);
    }

    /// Whether a table was taken over yet.
    #[must_use]
    pub fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// The shard of a key, once there is a table.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> Option<ShardId> {
        self.table.as_ref().map(|table| table.shard_of(slot_of(key)))
    }

    /// The address of a target.
    #[must_use]
    pub fn address(&self, target: Target) -> Arc<str> {
        Arc::clone(&self.place(target).address)
    }

    /// The target of a node, where the table names it.
    #[must_use]
    pub fn target_of(&self, node: NodeId) -> Option<Target> {
        self.nodes.get(&node).copied()
    }

    /// Believes that `node` leads `shard`. Only shards of the table are kept.
    pub fn learn_leader(&mut self, shard: ShardId, node: NodeId) {
        if self.leaders.get(&shard) == Some(&node) {
            return;
        }
        if self.table.as_ref().is_some_and(|table| table.shards.iter().any(|place| place.shard == shard)) {
            self.leaders.insert(shard, node);
        }
    }

    /// Believes no longer that the node behind `target` leads `shard`.
    pub fn doubt_leader(&mut self, shard: ShardId, target: Target) {
        let leads = self.leaders.get(&shard).and_then(|leader| self.target_of(*leader)) == Some(target);
        if leads {
            self.leaders.remove(&shard);
        }
    }

    /// Whom to ask: the shard's leader where it is known and answers, else any other that answers.
    pub fn pick(
        &mut self,
        shard: Option<ShardId>,
        avoid: Option<Target>,
        now: Duration,
        random: u64,
    ) -> Target {
        let leader =
            shard.and_then(|shard| self.leaders.get(&shard)).and_then(|leader| self.target_of(*leader));
        let usable = |target: &Target| Some(*target) != avoid && self.place(*target).cooling_until <= now;
        let picked = match leader.filter(usable) {
            Some(leader) => leader,
            None => self.pick_any(avoid, now, random),
        };
        self.probe(picked, now);
        picked
    }

    fn pick_any(&self, avoid: Option<Target>, now: Duration, random: u64) -> Target {
        let all = || (0_u32..).take(self.places.len()).map(Target);
        let cool: Vec<_> =
            all().filter(|t| Some(*t) != avoid && self.place(*t).cooling_until <= now).collect();
        let others: Vec<_> = all().filter(|t| Some(*t) != avoid).collect();
        let among = match (cool.is_empty(), others.is_empty()) {
            (false, _) => cool,
            (true, false) => others,
            (true, true) => all().collect(),
        };
        assert!(!among.is_empty(), "{} addresses and none to ask", self.places.len());
        let at = random % u64::try_from(among.len()).expect("at most TARGETS_MAX");
        among[usize::try_from(at).expect("below a length")]
    }

    /// An address that failed before is tried by one sending; the others wait for how that ends.
    fn probe(&mut self, target: Target, now: Duration) {
        let place = self.place_mut(target);
        if place.failures > 0 {
            place.cooling_until = now + COOLING_FIRST;
        }
    }

    /// Notes that somebody answered at `target`.
    pub fn reached(&mut self, target: Target) {
        let place = self.place_mut(target);
        place.failures = 0;
        place.cooling_until = Duration::ZERO;
    }

    /// Notes that nobody answered at `target`.
    pub fn failed(&mut self, target: Target, now: Duration) {
        let place = self.place_mut(target);
        let cooling = COOLING_FIRST.saturating_mul(1 << place.failures.min(10)).min(COOLING_MOST);
        place.failures = place.failures.saturating_add(1);
        place.cooling_until = now + cooling;
    }

    fn intern(&mut self, address: &str) -> Option<Target> {
        let known = self.places.iter().position(|place| &*place.address == address);
        if known.is_none() && self.places.len() == TARGETS_MAX {
            return None;
        }
        let at = known.unwrap_or_else(|| {
            self.places.push(Place { address: address.into(), failures: 0, cooling_until: Duration::ZERO });
            self.places.len() - 1
        });
        Some(Target(u32::try_from(at).expect("at most TARGETS_MAX")))
    }

    fn place(&self, target: Target) -> &Place {
        &self.places[target.0 as usize]
    }

    fn place_mut(&mut self, target: Target) -> &mut Place {
        &mut self.places[target.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(shard: u32, first_slot: u32, last_slot: u32, leader: Option<NodeId>) -> ShardPlace {
        ShardPlace { shard: ShardId(shard), first_slot, last_slot, leader }
    }

    fn halves() -> Table {
        let shards = vec![place(1, 8192, 16383, Some(NodeId(2))), place(0, 0, 8191, Some(NodeId(1)))];
        let nodes = vec![(NodeId(1), "a:1".to_owned()), (NodeId(2), "b:1".to_owned())];
        Table::new(shards, nodes).expect("two halves")
    }

    #[test]
    fn slots_follow_the_contract() {
        assert_eq!(u32::from(slot_of(b"123456789").0), 0xcbf4_3926 % SLOTS, "CRC-32/ISO-HDLC");
        assert_eq!(slot_of(b"{user}1"), slot_of(b"user"));
        assert_eq!(slot_of(b"x{user}{other}"), slot_of(b"user"));
        assert_eq!(tag_of(b"a{}b"), b"a{}b", "an empty tag counts for nothing");
        assert_eq!(tag_of(b"a{b"), b"a{b");
        assert_eq!(tag_of(b"a}b{c}"), b"c");
        assert_eq!(tag_of(b"{}{a}"), b"{}{a}", "only the first brace opens a tag");
    }

    #[test]
    fn a_table_covers_every_slot_once() {
        let table = halves();
        assert_eq!(table.shard_of(Slot(0)), ShardId(0));
        assert_eq!(table.shard_of(Slot(8191)), ShardId(0));
        assert_eq!(table.shard_of(Slot(8192)), ShardId(1));
        assert_eq!(table.shard_of(Slot(16383)), ShardId(1));
        for (shards, at) in [
            (vec![], 0),
            (vec![place(0, 0, 16382, None)], 16383),
            (vec![place(0, 0, 8191, None), place(1, 8191, 16383, None)], 8192),
            (vec![place(0, 1, 16383, None)], 0),
            (vec![place(0, 0, 16384, None)], 0),
            (vec![place(0, 5, 4, None)], 0),
        ] {
            assert_eq!(Table::new(shards, Vec::new()), Err(TableFault::Slots { at }));
        }
        let many = vec![(NodeId(1), String::new()); TABLE_NODES_MAX + 1];
        let fault = TableFault::Nodes { count: TABLE_NODES_MAX + 1 };
        assert_eq!(Table::new(vec![place(0, 0, 16383, None)], many), Err(fault));
    }

    #[test]
    fn asks_the_leader_unless_it_failed() {
        let mut routing = Routing::new(&["a:1".to_owned(), "a:1".to_owned()]);
        assert_eq!(routing.shard_of(b"k"), None);
        routing.install(halves());
        let (a, b) = (Target(0), Target(1));
        let now = Duration::from_secs(1);
        for random in 0..8 {
            assert_eq!(routing.pick(Some(ShardId(0)), None, now, random), a);
            assert_eq!(routing.pick(Some(ShardId(1)), None, now, random), b);
            assert_eq!(routing.pick(Some(ShardId(1)), Some(b), now, random), a);
        }
        routing.failed(b, now);
        assert_eq!(routing.pick(Some(ShardId(1)), None, now, 0), a);
        let later = now + COOLING_FIRST;
        assert_eq!(routing.pick(Some(ShardId(1)), None, later, 0), b, "one sending probes it");
        assert_eq!(routing.pick(Some(ShardId(1)), None, later, 0), a, "the others wait for the probe");
        routing.reached(b);
        assert_eq!(routing.pick(Some(ShardId(1)), None, later, 0), b);
        routing.doubt_leader(ShardId(1), a);
        assert_eq!(routing.pick(Some(ShardId(1)), None, later, 0), b, "the doubt was about another");
        routing.learn_leader(ShardId(1), NodeId(1));
        assert_eq!(routing.pick(Some(ShardId(1)), None, later, 1), a);
    }

    #[test]
    fn there_is_always_somebody_to_ask() {
        let mut routing = Routing::new(&["a:1".to_owned()]);
        routing.failed(Target(0), Duration::ZERO);
        assert_eq!(routing.pick(None, Some(Target(0)), Duration::ZERO, 5), Target(0));
    }

    #[test]
    fn addresses_are_bounded() {
        let mut routing = Routing::new(&["a:1".to_owned()]);
        let nodes = (1..=300).map(|n| (NodeId(n), format!("n{n}:1"))).collect();
        routing.install(Table::new(vec![place(0, 0, 16383, Some(NodeId(300)))], nodes).expect("one shard"));
        assert_eq!(routing.places.len(), TARGETS_MAX);
        assert_eq!(routing.target_of(NodeId(300)), None);
        let any = routing.pick(Some(ShardId(0)), None, Duration::ZERO, 0);
        assert_eq!(&*routing.address(any), "a:1");
    }
}
