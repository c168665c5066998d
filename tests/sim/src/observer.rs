//! What must hold of all nodes at every moment, looked at from outside.
//!
//! Invariants that it checks:
//! - at most one leader a shard and term;
//! - a committed index never has two terms, and the commit index of a node never goes back within its life;
//! - a disk that nobody damaged holds no damage;
//! - what a node says is committed is, or was before a disk was lost, durable on a quorum of disks;
//! - two replicas that have applied the same index have the same digest and revision.

use std::collections::BTreeMap;
use std::fmt;

use distribkv::ids::{Index, NodeId, Revision, ShardId, Term};
use distribkv::shard::{CoreStatus, ReplicaReport, Role};

/// Applied indexes of each shard that are remembered: replicas further apart are compared when they meet
/// again.
const REMEMBERED_MAX: usize = 4096;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Two nodes lead one term.
    TwoLeaders {
        /// The shard.
        shard: ShardId,
        /// The term.
        term: Term,
        /// Both of them.
        nodes: (NodeId, NodeId),
    },
    /// One committed index, two terms.
    CommittedTwice {
        /// The shard.
        shard: ShardId,
        /// The index.
        index: Index,
        /// Both of them.
        terms: (Term, Term),
    },
    /// A commit index went back.
    CommitWentBack {
        /// Whose.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// From where to where.
        from_to: (Index, Index),
    },
    /// Something is committed that too few disks hold.
    NotOnAQuorum {
        /// Who says that it is committed.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// The index.
        index: Index,
        /// How far each node's disk holds the shard's log.
        durable: Vec<(NodeId, Index)>,
    },
    /// A disk that lost nothing holds damage: it was written.
    DamageWritten {
        /// Whose disk.
        node: NodeId,
        /// What the node said.
        text: String,
    },
    /// One applied index, two states.
    StatesDiffer {
        /// The shard.
        shard: ShardId,
        /// The index.
        index: Index,
        /// Digest and revision that were seen first, and those of this node.
        states: [(u64, Revision); 2],
        /// The second node.
        node: NodeId,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Looks at all nodes.
#[derive(Default)]
pub struct Observer {
    quorum: usize,
    leaders: BTreeMap<(ShardId, Term), NodeId>,
    committed: BTreeMap<ShardId, BTreeMap<Index, Term>>,
    commits: BTreeMap<(NodeId, ShardId), Index>,
    durable: BTreeMap<(ShardId, NodeId), Index>,
    states: BTreeMap<ShardId, BTreeMap<Index, (u64, Revision)>>,
    damage: Option<Broken>,
}

impl Observer {
    /// An observer of a cluster of so many nodes.
    #[must_use]
    pub fn new(nodes: u32) -> Self {
        Self { quorum: nodes as usize / 2 + 1, ..Self::default() }
    }

    /// A node found damage that nobody did to its disk.
    pub fn found_damage(&mut self, node: NodeId, text: String) {
        self.damage.get_or_insert(Broken::DamageWritten { node, text });
    }

    /// A node's life has ended: its commit index may begin anew.
    pub fn ended(&mut self, node: NodeId) {
        self.commits.retain(|(of, _), _| *of != node);
    }

    /// Notes what disks hold, without judging: for the moment before a node goes down.
    pub fn note_durable(&mut self, reports: &[(NodeId, CoreStatus)]) {
        for (node, replica) in replicas(reports) {
            let durable = self.durable.entry((replica.shard, node)).or_default();
            *durable = replica.durable_index.max(*durable);
        }
    }

    /// Looks at what every running node says of itself now.
    pub fn look(&mut self, reports: &[(NodeId, CoreStatus)]) -> Result<(), Broken> {
        self.note_durable(reports);
        if let Some(damage) = self.damage.take() {
            return Err(damage);
        }
        for (node, replica) in replicas(reports) {
            self.check_leader(node, replica)?;
            self.check_commit(node, replica)?;
            self.check_state(node, replica)?;
        }
        Ok(())
    }

    fn check_leader(&mut self, node: NodeId, replica: &ReplicaReport) -> Result<(), Broken> {
        if replica.role != Role::Leader {
            return Ok(());
        }
        let (shard, term) = (replica.shard, replica.term);
        let first = *self.leaders.entry((shard, term)).or_insert(node);
        if first != node {
            return Err(Broken::TwoLeaders { shard, term, nodes: (first, node) });
        }
        Ok(())
    }

    fn check_commit(&mut self, node: NodeId, replica: &ReplicaReport) -> Result<(), Broken> {
        let (shard, index) = (replica.shard, replica.commit_index);
        let before = self.commits.insert((node, shard), index).unwrap_or_default();
        if index < before {
            return Err(Broken::CommitWentBack { node, shard, from_to: (before, index) });
        }
        if index == Index(0) || index == before {
            return Ok(());
        }
        if let Some(term) = replica.commit_term {
            let known = self.committed.entry(shard).or_default();
            let first = *known.entry(index).or_insert(term);
            forget_oldest(known);
            if first != term {
                return Err(Broken::CommittedTwice { shard, index, terms: (first, term) });
            }
        }
        let durable: Vec<(NodeId, Index)> = self
            .durable
            .range((shard, NodeId(0))..=(shard, NodeId(u32::MAX)))
            .map(|((_, node), index)| (*node, *index))
            .collect();
        if durable.iter().filter(|(_, held)| *held >= index).count() < self.quorum {
            return Err(Broken::NotOnAQuorum { node, shard, index, durable });
        }
        Ok(())
    }

    fn check_state(&mut self, node: NodeId, replica: &ReplicaReport) -> Result<(), Broken> {
        let (shard, index) = (replica.shard, replica.applied_index);
        if replica.is_spoiled {
            // It knows that its state is wrong, and answers nobody.
            return Ok(());
        }
        let state = (replica.state_digest, replica.revision);
        let known = self.states.entry(shard).or_default();
        let first = *known.entry(index).or_insert(state);
        forget_oldest(known);
        if first != state {
            return Err(Broken::StatesDiffer { shard, index, states: [first, state], node });
        }
        Ok(())
    }
}

fn replicas(reports: &[(NodeId, CoreStatus)]) -> impl Iterator<Item = (NodeId, &ReplicaReport)> {
    reports.iter().flat_map(|(node, core)| core.replicas.iter().map(|replica| (*node, replica)))
}

fn forget_oldest<T>(known: &mut BTreeMap<Index, T>) {
    while known.len() > REMEMBERED_MAX {
        known.pop_first();
    }
}
