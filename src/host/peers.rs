//! What core 0 knows of the other nodes: what became of the links to them, and what is worth saying of it.
//!
//! Every core keeps its own links and tries again and again; so the same is heard many times, and said once.
//!
//! Invariants:
//! - A refusal is said when it is first heard and when its reason changes; a link that comes up begins anew.
//! - It holds one entry for each node of the cluster, whatever number a hello claims.
//!
//! It deliberately does not decide anything: whether a refusal ends the process is the desk's.

use std::collections::BTreeMap;

use crate::config::Cluster;
use crate::host::exit::{node_name, refusal_text};
use crate::host::link::LinkNews;
use crate::ids::NodeId;
use crate::shard::admission::{Hello, Rejection, Verdict};

/// The other nodes, as core 0 hears of them.
pub struct Peers {
    cluster: Cluster,
    /// What became last of a link to each.
    links: BTreeMap<NodeId, LinkNews>,
    /// What was said last of the links to each.
    said: BTreeMap<NodeId, LinkNews>,
    /// Why each was told last that it is refused. Node 0 stands for those that are none.
    refused: BTreeMap<NodeId, Rejection>,
}

impl Peers {
    /// Nothing was heard of any node yet.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, links: BTreeMap::new(), said: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// Takes in what became of a link to a node; the error to be said, where there is one.
    pub fn heard(&mut self, of: NodeId, news: LinkNews) -> Option<String> {
        let name = node_name(of, &self.cluster);
        let text = match &news {
            LinkNews::Up => {
                self.said.remove(&of);
                None
            }
            LinkNews::Down(_) => None,
            LinkNews::Refused(refusal) => {
                let why = refusal_text(refusal.rejection, (&name, "this node"), &self.cluster);
                Some(format!("refused by {name}: {why}"))
            }
            LinkNews::Refuses(rejection) => {
                let why = refusal_text(*rejection, ("this node", &name), &self.cluster);
                Some(format!("{name} has welcomed this node and is refused: {why}"))
            }
            LinkNews::Stranger(node) => {
                Some(format!("at the address of {name} node {node} answers: check --peers and --id"))
            }
        };
        self.links.insert(of, news.clone());
        let text = text.filter(|_| self.said.get(&of) != Some(&news))?;
        self.said.insert(of, news);
        Some(text)
    }

    /// The other nodes that this one has no link to, each with the reason, where that is known.
    #[must_use]
    pub fn unreached(&self) -> Vec<String> {
        let unreached = self.links.iter().filter_map(|(node, news)| {
            let name = node_name(*node, &self.cluster);
            match news {
                LinkNews::Up => None,
                LinkNews::Down(why) => Some(format!("no link to {name}: {why}")),
                LinkNews::Refused(_) => Some(format!("refused by {name}, as was said")),
                LinkNews::Refuses(_) => Some(format!("{name} is refused, as was said")),
                LinkNews::Stranger(node) => Some(format!("node {node} answers at the address of {name}")),
            }
        });
        unreached.collect()
    }

    /// Takes in what another node was told; the warning to be said, where there is one.
    pub fn judged(&mut self, hello: &Hello, verdict: &Verdict) -> Option<String> {
        let is_known = (1..=self.cluster.peers.len()).contains(&(hello.node.0 as usize));
        let key = if is_known { hello.node } else { NodeId(0) };
        let rejection = match verdict {
            Verdict::Welcome(_) => {
                self.refused.remove(&key);
                return None;
            }
            Verdict::Rejected(refusal) => refusal.rejection,
        };
        if self.refused.insert(key, rejection) == Some(rejection) {
            return None;
        }
        let name = node_name(hello.node, &self.cluster);
        let why = refusal_text(rejection, ("this node", &name), &self.cluster);
        Some(format!("{name} is refused, and told so: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, CoreId, DirectoryId};
    use crate::log::RecoveredAt;
    use crate::shard::admission::{Refusal, Standing};

    fn peers() -> Peers {
        Peers::new(Cluster { peers: vec!["a:1".into(), "b:2".into(), "c:3".into()], ..Cluster::default() })
    }

    fn refusal(theirs: u64) -> Refusal {
        Refusal { rejection: Rejection::Settings { ours: 0xaa, theirs }, standing: Standing::New }
    }

    #[test]
    fn a_refusal_is_said_once_and_again_when_it_changes_or_was_over() {
        let (mut peers, of) = (peers(), NodeId(2));
        let refused = |theirs| LinkNews::Refused(refusal(theirs));
        let said = peers.heard(of, refused(1)).expect("it is new");
        assert!(
            said.starts_with("refused by node 2 (b:2): node 2 (b:2) has cluster settings with"),
            "{said}"
        );
        assert!(said.contains("00000000000000aa, this node with 0000000000000001"), "{said}");
        assert_eq!(peers.heard(of, refused(1)), None);
        assert_eq!(peers.heard(of, LinkNews::Down("closed".into())), None);
        assert_eq!(peers.heard(of, refused(1)), None, "another core has said it");
        assert!(peers.heard(of, refused(2)).is_some());
        assert_eq!(peers.unreached(), ["refused by node 2 (b:2), as was said"]);
        assert_eq!(peers.heard(of, LinkNews::Up), None);
        assert!(peers.unreached().is_empty());
        assert!(peers.heard(of, refused(2)).is_some());
    }

    #[test]
    fn who_is_refused_is_named_with_its_own_values() {
        let mut peers = peers();
        let mut hello = Hello {
            format: 1,
            node: NodeId(3),
            core: CoreId(0),
            nodes: 3,
            cluster: ClusterId(1),
            directory: DirectoryId(1),
            settings: 0xbb,
            incarnation: 1,
            recovered_at: RecoveredAt::NEVER,
            standing: Standing::New,
        };
        let verdict = Verdict::Rejected(refusal(0xbb));
        let said = peers.judged(&hello, &verdict).expect("it is new");
        let told = "node 3 (c:3) is refused, and told so: this node has cluster settings with hash \
                    00000000000000aa, node 3 (c:3) with 00000000000000bb";
        assert!(said.starts_with(told), "{said}");
        assert_eq!(peers.judged(&hello, &verdict), None);
        assert_eq!(peers.judged(&hello, &Verdict::Welcome(hello)), None);
        assert!(peers.judged(&hello, &verdict).is_some());
        for node in 1000..2000 {
            hello.node = NodeId(node);
            assert_eq!(peers.judged(&hello, &verdict).is_some(), node == 1000);
        }
        assert_eq!(peers.refused.len(), 2);
    }
}
