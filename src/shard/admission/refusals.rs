//! Who refuses this node now, and whether it is this node that is wrong.
//!
//! Two nodes that refuse each other say the same of each other, and neither can know which of them is wrong.
//! So one word is not enough, but for the words of those who know:
//!
//! | this node | is refused by | it |
//! |---|---|---|
//! | any | ⌊n/2⌋ + 1 nodes at once | ends: they can serve without it, it cannot serve without them |
//! | new | one of this cluster that may vote | ends: there is a cluster, and this node does not fit in |
//! | new | one that knows another directory of it, or a newer start | ends: that is not forgotten |
//! | new | one that was recovered and remembers no directory of it | goes on: others may remember |
//! | new | one of another cluster, or of another format | goes on: it may be the one in the wrong place |
//! | any | fewer | says so and asks again: the others may be the ones to be corrected |
//!
//! A process of another cluster is no judge of this one, though it may vote there: a node that was started
//! as a cluster of its own may so from its first moment, and would end every new node that it can be taken
//! for a peer of. Whoever speaks another format may be of another cluster, too.
//!
//! In a cluster of two, and where the nodes differ half and half, there is no majority that could be right:
//! all say so and wait to be corrected. Where all differ from each other, all end.
//!
//! Settings that must agree can therefore not be changed node by node: the first node that is restarted with
//! other ones is refused by the others and ends. Stop all nodes, then start all with the new settings.
//!
//! A refusal counts until that node says something else, or cannot be reached. Pure: no clock, no IO.

use std::collections::BTreeMap;

use crate::ids::NodeId;

use super::hello::{Refusal, Rejection, Standing};

/// That this node is the one that is wrong: its process says so and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who refused it.
    pub by: Vec<NodeId>,
    /// Why, as the last of them said.
    pub rejection: Rejection,
}

/// The refusals that count now.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by: BTreeMap<NodeId, Refusal>,
}

impl Refusals {
    /// A node of `nodes` refuses this one, which stands so; whether this one is wrong.
    pub(super) fn add(
        &mut self,
        (by, refusal): (NodeId, Refusal),
        nodes: u32,
        own: Standing,
    ) -> Option<Refused> {
        self.by.insert(by, refusal);
        let rejection = refusal.rejection;
        let by_majority = self.by.len() >= majority(nodes);
        if by_majority {
            return Some(Refused { by: self.by.keys().copied().collect(), rejection });
        }
        let by_one_that_knows = match own {
            Standing::Entitled => false,
            Standing::New => match grounds(rejection) {
                Grounds::Directory => true,
                Grounds::Peer => refusal.standing == Standing::Entitled,
                Grounds::NoJudge => false,
            },
        };
        by_one_that_knows.then(|| Refused { by: vec![by], rejection })
    }

    /// That node does not refuse this one any more, or cannot be heard.
    pub(super) fn remove(&mut self, by: NodeId) {
        self.by.remove(&by);
    }
}

/// What the word of one that refuses rests on.
enum Grounds {
    /// It knows this very node's data directory: no settings of either node could mend it.
    Directory,
    /// It is of the same cluster.
    Peer,
    /// It may be of another cluster, or remember nothing of this node.
    NoJudge,
}

fn grounds(rejection: Rejection) -> Grounds {
    match rejection {
        Rejection::Directory { .. } | Rejection::Incarnation { .. } | Rejection::Recovery { .. } => {
            Grounds::Directory
        }
        Rejection::Settings { .. } | Rejection::Node { .. } => Grounds::Peer,
        Rejection::Format { .. } | Rejection::Cluster { .. } | Rejection::NoWitness { .. } => {
            Grounds::NoJudge
        }
    }
}

/// So many nodes that those left are fewer.
fn majority(nodes: u32) -> usize {
    (nodes / 2 + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, DirectoryId};
    use crate::log::RecoveredAt;

    const OTHER_SETTINGS: Rejection = Rejection::Settings { ours: 1, theirs: 2 };
    const OTHER_DIRECTORY: Rejection = Rejection::Directory { noted: DirectoryId(1), theirs: DirectoryId(2) };

    fn refusal(rejection: Rejection, standing: Standing) -> Refusal {
        Refusal { rejection, standing }
    }

    /// After how many refusals by nodes of this standing a node ends; `None`: never.
    fn ends_after(nodes: u32, own: Standing, theirs: Standing, rejection: Rejection) -> Option<u32> {
        let mut refusals = Refusals::default();
        (1..nodes)
            .find(|other| refusals.add((NodeId(other + 1), refusal(rejection, theirs)), nodes, own).is_some())
    }

    #[test]
    fn a_majority_decides_and_without_one_nobody_ends() {
        for own in [Standing::New, Standing::Entitled] {
            let after = |nodes| ends_after(nodes, own, Standing::New, OTHER_SETTINGS);
            assert_eq!([2, 3, 4, 5, 6, 7].map(after), [None, Some(2), Some(3), Some(3), Some(4), Some(4)]);
        }
    }

    #[test]
    fn of_two_halves_that_refuse_each_other_none_ends_and_of_two_parts_the_smaller() {
        for nodes in 2..=7 {
            for others in 1..nodes {
                let ends = |refusers| {
                    ends_after(nodes, Standing::Entitled, Standing::Entitled, OTHER_SETTINGS)
                        .is_some_and(|needed| refusers >= needed)
                };
                let (these, those) = (ends(others), ends(nodes - others));
                assert!(!(these && those), "{nodes} nodes, {others} of them differ: all end");
                assert_eq!(these || those, others * 2 != nodes, "{nodes} nodes, {others} of them differ");
            }
        }
    }

    #[test]
    fn a_new_node_believes_one_that_may_vote_or_knows_another_directory() {
        let after = |own, theirs, rejection| ends_after(3, own, theirs, rejection);
        assert_eq!(after(Standing::New, Standing::Entitled, OTHER_SETTINGS), Some(1));
        assert_eq!(after(Standing::New, Standing::New, OTHER_DIRECTORY), Some(1));
        assert_eq!(after(Standing::Entitled, Standing::Entitled, OTHER_SETTINGS), Some(2));
        assert_eq!(after(Standing::Entitled, Standing::Entitled, OTHER_DIRECTORY), Some(2));
    }

    #[test]
    fn one_that_may_be_a_stranger_or_remembers_nothing_is_no_judge_and_a_majority_of_them_is_too_many() {
        let no_judges = [
            Rejection::NoWitness { ours: RecoveredAt(1), theirs: DirectoryId(2) },
            Rejection::Cluster { ours: ClusterId(1), theirs: ClusterId(2) },
            Rejection::Format { ours: 1, theirs: 2 },
        ];
        for rejection in no_judges {
            let after = |nodes| ends_after(nodes, Standing::New, Standing::Entitled, rejection);
            assert_eq!([2, 3, 5, 7].map(after), [None, Some(2), Some(3), Some(4)], "{rejection:?}");
        }
    }

    #[test]
    fn a_refusal_counts_until_its_node_says_something_else() {
        let mut refusals = Refusals::default();
        let settings = refusal(OTHER_SETTINGS, Standing::Entitled);
        assert_eq!(refusals.add((NodeId(2), settings), 3, Standing::Entitled), None);
        refusals.remove(NodeId(2));
        assert_eq!(refusals.add((NodeId(3), settings), 3, Standing::Entitled), None);
        assert_eq!(refusals.add((NodeId(3), settings), 3, Standing::Entitled), None, "one node counts once");
        let refused = refusals.add((NodeId(2), settings), 3, Standing::Entitled);
        assert_eq!(refused, Some(Refused { by: vec![NodeId(2), NodeId(3)], rejection: OTHER_SETTINGS }));
    }
}
