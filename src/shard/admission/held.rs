//! Which links other nodes keep to this one, over all its cores: a newer one ends the older.
//!
//! A node keeps one link from each of its cores, and makes a new one only where the old one is gone; but that
//! it is gone is learnt here late, or never where its machine vanished. With two of them alive, what was left
//! on the older would arrive behind what came by the newer. So the newer hello closes the older link,
//! whichever core of this node holds it:
//!
//! | hello | means |
//! |---|---|
//! | of an older start of that directory | refused: its process has ended, or it is an older copy |
//! | of a newer start | every link of the older one is closed: its process has ended |
//! | of the same start and core | the link of that core is closed: the desk's order counts |
//!
//! The starts of a recovered directory are counted from a moment that is above all starts of the lost one.
//!
//! Invariants:
//! - At most one link of a (node, core) is held, and at most [`LINKS_MAX`] of a node.
//! - The newest start that was heard of a node only grows.
//!
//! Pure. It deliberately does not learn when a link ends by itself: closing one that has ended does nothing.

use std::collections::BTreeMap;

use crate::ids::{CoreId, NodeId};

use super::hello::{Hello, Rejection};

/// The most links of one node: it has no more cores. Beyond, the oldest is closed.
const LINKS_MAX: usize = 256;

/// A link that a core of this node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPlace {
    /// The core.
    pub core: CoreId,
    /// The core's own number for it.
    pub number: u64,
}

/// The links of all nodes.
#[derive(Debug, Default)]
pub(super) struct HeldLinks {
    nodes: BTreeMap<NodeId, OfNode>,
    last_arrival: u64,
}

/// The links of one node.
#[derive(Debug, Default)]
struct OfNode {
    incarnation: u64,
    links: BTreeMap<CoreId, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    place: LinkPlace,
    arrival: u64,
}

impl HeldLinks {
    /// Why a hello comes too late, where it does.
    pub(super) fn outdated(&self, hello: &Hello) -> Option<Rejection> {
        let newest = self.nodes.get(&hello.node)?.incarnation;
        let theirs = hello.incarnation;
        (theirs < newest).then_some(Rejection::Incarnation { newest, theirs })
    }

    /// Holds the link of a hello that is not outdated; the links that are to be closed for it.
    pub(super) fn hold(&mut self, hello: &Hello, place: LinkPlace) -> Vec<LinkPlace> {
        let of = self.nodes.entry(hello.node).or_default();
        let newest = of.incarnation;
        assert!(hello.incarnation >= newest, "start {} is held after {newest}", hello.incarnation);
        let mut closed = Vec::new();
        if hello.incarnation > newest {
            of.incarnation = hello.incarnation;
            closed.extend(std::mem::take(&mut of.links).into_values());
        }
        self.last_arrival += 1;
        closed.extend(of.links.insert(hello.core, Held { place, arrival: self.last_arrival }));
        if of.links.len() > LINKS_MAX {
            let oldest = of.links.iter().min_by_key(|(_, held)| held.arrival).map(|(core, _)| *core);
            closed.extend(oldest.and_then(|core| of.links.remove(&core)));
        }
        assert!(of.links.len() <= LINKS_MAX, "{} links of node {}", of.links.len(), hello.node);
        closed.into_iter().map(|held| held.place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, DirectoryId};
    use crate::log::RecoveredAt;
    use crate::shard::admission::Standing;

    fn hello(core: u32, incarnation: u64) -> Hello {
        Hello {
            format: 1,
            node: NodeId(2),
            core: CoreId(core),
            nodes: 3,
            cluster: ClusterId(1),
            directory: DirectoryId(1),
            settings: 1,
            incarnation,
            recovered_at: RecoveredAt::NEVER,
            standing: Standing::New,
        }
    }

    fn place(core: u32, number: u64) -> LinkPlace {
        LinkPlace { core: CoreId(core), number }
    }

    #[test]
    fn a_newer_link_of_the_same_core_ends_the_older_wherever_it_is_held() {
        let mut links = HeldLinks::default();
        assert_eq!(links.hold(&hello(0, 5), place(0, 1)), []);
        assert_eq!(links.hold(&hello(1, 5), place(0, 2)), [], "another core's is another link");
        assert_eq!(links.hold(&hello(0, 5), place(1, 1)), [place(0, 1)]);
        assert_eq!(links.hold(&hello(0, 5), place(0, 3)), [place(1, 1)]);
    }

    #[test]
    fn a_newer_start_ends_all_links_of_the_older_and_an_older_one_is_refused() {
        let mut links = HeldLinks::default();
        links.hold(&hello(0, 5), place(0, 1));
        links.hold(&hello(1, 5), place(1, 1));
        assert_eq!(links.outdated(&hello(2, 5)), None);
        assert_eq!(links.hold(&hello(1, 6), place(0, 2)), [place(0, 1), place(1, 1)]);
        let outdated = Rejection::Incarnation { newest: 6, theirs: 5 };
        assert_eq!(links.outdated(&hello(0, 5)), Some(outdated));
        assert_eq!(links.outdated(&hello(0, 6)), None);
    }

    #[test]
    fn a_node_that_claims_many_cores_holds_few_links() {
        let mut links = HeldLinks::default();
        let closed: usize = (0..1000).map(|core| links.hold(&hello(core, 1), place(0, 0)).len()).sum();
        assert_eq!(closed, 1000 - LINKS_MAX);
    }
}
