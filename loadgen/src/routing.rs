//! Where a key's calls go: the routing table of the cluster, as `Cluster.Shards` tells it.
//!
//! Invariants: every slot has a shard; a leader that the table does not list as a node is taken for unknown.
//! A table that breaks this is refused, and the one before it is kept.

use std::fmt;

use distribkv::wire::v1::ShardsResponse;

/// Slots of the key space.
pub const SLOTS: usize = 16384;
/// Most shards and nodes that a table may name.
const SHARDS_MAX: usize = SLOTS;
/// Most nodes that a table may name.
const NODES_MAX: usize = 1024;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id; 0 where it is not known, as for a target without routing.
    pub id: u32,
    /// What is dialled.
    pub address: String,
}

/// A routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// By slot: the place of its shard in `leaders`.
    slots: Vec<u16>,
    /// By shard: the place of its leader in `nodes`.
    pub leaders: Vec<Option<usize>>,
}

/// Why a routing table was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingError {
    /// It lists no shard, or too many, or too many nodes.
    Counts,
    /// A shard's slots end before they begin or past the last slot.
    SlotRange,
    /// A slot that no shard holds.
    SlotWithoutShard(usize),
}

impl fmt::Display for RoutingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counts => {
                f.write_str("the routing table lists no shard, or more shards or nodes than there can be")
            }
            Self::SlotRange => f.write_str("the routing table has a shard whose slots are not a range"),
            Self::SlotWithoutShard(slot) => write!(f, "the routing table leaves slot {slot} to no shard"),
        }
    }
}

impl std::error::Error for RoutingError {}

impl Routing {
    /// A table for a target that has none: one shard without a leader, so that every node is as good as
    /// another.
    pub fn any_of(addresses: &[String]) -> Self {
        let nodes = addresses.iter().map(|address| Node { id: 0, address: address.clone() }).collect();
        Self { nodes, slots: vec![0; SLOTS], leaders: vec![None] }
    }

    /// The table that a cluster told.
    pub fn of_response(response: &ShardsResponse) -> Result<Self, RoutingError> {
        if response.shards.is_empty()
            || response.shards.len() > SHARDS_MAX
            || response.nodes.len() > NODES_MAX
        {
            return Err(RoutingError::Counts);
        }
        let nodes: Vec<Node> =
            response.nodes.iter().map(|n| Node { id: n.node_id, address: n.address.clone() }).collect();
        let mut slots = vec![u16::MAX; SLOTS];
        for (place, shard) in response.shards.iter().enumerate() {
            let range = shard.first_slot as usize..=shard.last_slot as usize;
            slots.get_mut(range).ok_or(RoutingError::SlotRange)?.fill(place as u16);
        }
        if let Some(slot) = slots.iter().position(|place| *place == u16::MAX) {
            return Err(RoutingError::SlotWithoutShard(slot));
        }
        let place_of = |id: u32| nodes.iter().position(|node| id != 0 && node.id == id);
        let leaders = response.shards.iter().map(|shard| place_of(shard.leader)).collect();
        Ok(Self { nodes, slots, leaders })
    }

    /// The shard of a key, by its place in `leaders`.
    pub fn shard_of(&self, key: &[u8]) -> usize {
        usize::from(self.slots[slot_of(key)])
    }

    /// Takes a hint: node `id` leads the shard. Unknown nodes are left for the next table to name.
    pub fn hint(&mut self, shard: usize, id: u32) {
        if let Some(place) = self.nodes.iter().position(|node| node.id == id) {
            self.leaders[shard] = Some(place);
        }
    }
}

/// The slot of a key: CRC-32 of its tag (what is between the first `{` and the next `}`, else all of it).
fn slot_of(key: &[u8]) -> usize {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|len| *len > 0).map(|len| &rest[..len])
    });
    crc32fast::hash(tag.unwrap_or(key)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use distribkv::wire::v1::{NodeInfo, ShardInfo};

    use super::*;

    fn shard(shard: u32, first_slot: u32, last_slot: u32, leader: u32) -> ShardInfo {
        ShardInfo { shard, first_slot, last_slot, leader, ..Default::default() }
    }

    fn table(shards: Vec<ShardInfo>) -> ShardsResponse {
        let nodes = [1, 2].map(|node_id| NodeInfo { node_id, address: format!("h:{node_id}") }).to_vec();
        ShardsResponse { shards, nodes }
    }

    #[test]
    fn keys_go_to_their_shards() {
        let response = table(vec![shard(0, 0, 8191, 2), shard(1, 8192, 16383, 9)]);
        let mut routing = Routing::of_response(&response).expect("a good table");
        assert_eq!(routing.leaders, [Some(1), None]);
        // zlib's CRC-32 of "123456789" is CBF43926, which is slot 14630.
        assert_eq!(slot_of(b"123456789"), 0xcbf4_3926 % SLOTS);
        assert_eq!(slot_of(b"a{123456789}b"), slot_of(b"123456789"));
        assert_eq!(routing.shard_of(b"123456789"), 1);
        assert_ne!(slot_of(b"a{}b"), slot_of(b""));
        routing.hint(1, 1);
        routing.hint(0, 7);
        assert_eq!(routing.leaders, [Some(1), Some(0)]);
    }

    #[test]
    fn bad_tables_are_refused() {
        let refused = |shards| Routing::of_response(&table(shards)).expect_err("a bad table");
        assert_eq!(refused(vec![]), RoutingError::Counts);
        assert_eq!(refused(vec![shard(0, 0, 16384, 1)]), RoutingError::SlotRange);
        assert_eq!(refused(vec![shard(0, 9, 3, 1)]), RoutingError::SlotRange);
        assert_eq!(refused(vec![shard(0, 0, 99, 1)]), RoutingError::SlotWithoutShard(100));
    }

    #[test]
    fn any_node_serves_a_target_without_routing() {
        let routing = Routing::any_of(&["a:1".into(), "b:2".into()]);
        assert_eq!((routing.nodes.len(), routing.shard_of(b"key")), (2, 0));
        assert_eq!(routing.leaders, [None]);
    }
}
