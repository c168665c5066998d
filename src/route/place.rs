//! Where a shard lives: its lane, its core, and the node that it prefers to be led by.
//!
//! Invariants:
//! - A shard's lane is decided when the data directory is made and kept in its identity; lanes never move a
//!   shard.
//! - The core of a lane follows from the number of cores of this start, so that number may change between
//!   starts.
//! - The shards that one node prefers to lead lie on all of its lanes: `shard / nodes` runs through the lanes
//!   while `shard % nodes` names the node.

use crate::ids::{CoreId, LaneId, NodeId, ShardId};

/// One core of one node: where a parcel comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The core of that node.
    pub core: CoreId,
}

/// How the shards of a node lie on its lanes and cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Nodes of the cluster at creation.
    pub nodes: u32,
    /// Shards of the cluster.
    pub shards: u32,
    /// Lanes of this node, `min(cores at creation, shards)`.
    pub lanes: u32,
    /// Cores of this start.
    pub cores: u32,
}

impl Layout {
    /// Checks the counts: each at least one, no more lanes than shards.
    #[must_use]
    pub fn new(nodes: u32, shards: u32, lanes: u32, cores: u32) -> Self {
        assert!(
            nodes > 0 && shards > 0 && cores > 0,
            "a layout of {nodes} nodes, {shards} shards, {cores} cores"
        );
        assert!(lanes > 0 && lanes <= shards, "{lanes} lanes for {shards} shards");
        Self { nodes, shards, lanes, cores }
    }

    /// The lane whose log holds a shard.
    #[must_use]
    pub fn lane_of(&self, shard: ShardId) -> LaneId {
        assert!(shard.0 < self.shards, "shard {shard} of {}", self.shards);
        LaneId((shard.0 / self.nodes) % self.lanes)
    }

    /// The core that owns a lane.
    #[must_use]
    pub fn core_of_lane(&self, lane: LaneId) -> CoreId {
        assert!(lane.0 < self.lanes, "lane {lane} of {}", self.lanes);
        CoreId(lane.0 % self.cores)
    }

    /// The core that a shard's replica lives on.
    #[must_use]
    pub fn core_of(&self, shard: ShardId) -> CoreId {
        self.core_of_lane(self.lane_of(shard))
    }

    /// The lanes that a core owns, in order.
    pub fn lanes_of(&self, core: CoreId) -> impl Iterator<Item = LaneId> + use<> {
        (core.0..self.lanes).step_by(self.cores as usize).map(LaneId)
    }

    /// The shards whose replica lives on a core, in order.
    pub fn shards_of(&self, core: CoreId) -> impl Iterator<Item = ShardId> + use<> {
        let layout = *self;
        (0..self.shards).map(ShardId).filter(move |shard| layout.core_of(*shard) == core)
    }

    /// The node that a shard is best led by, so that leadership is spread evenly.
    #[must_use]
    pub fn preferred(&self, shard: ShardId) -> NodeId {
        NodeId(shard.0 % self.nodes + 1)
    }

    /// Every node of the cluster, which all vote on every shard.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        (1..=self.nodes).map(NodeId).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_lives_on_exactly_one_core() {
        for (nodes, shards, lanes, cores) in [(3, 8, 2, 2), (1, 1, 1, 4), (5, 64, 8, 3), (3, 8, 2, 1)] {
            let layout = Layout::new(nodes, shards, lanes, cores);
            let mut seen = Vec::new();
            for core in 0..cores {
                let lanes: Vec<LaneId> = layout.lanes_of(CoreId(core)).collect();
                for shard in layout.shards_of(CoreId(core)) {
                    assert!(lanes.contains(&layout.lane_of(shard)), "{shard} on core {core}");
                    seen.push(shard);
                }
            }
            seen.sort();
            assert_eq!(seen, (0..shards).map(ShardId).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_shards_that_a_node_prefers_to_lead_lie_on_all_its_lanes() {
        let layout = Layout::new(3, 12, 4, 4);
        for node in layout.voters() {
            let lanes: std::collections::BTreeSet<LaneId> = (0..12)
                .map(ShardId)
                .filter(|shard| layout.preferred(*shard) == node)
                .map(|shard| layout.lane_of(shard))
                .collect();
            assert_eq!(lanes.len(), 4, "node {node}: {lanes:?}");
        }
    }
}
