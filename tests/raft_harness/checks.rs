//! What must hold whatever happens, each rule by its name in the Raft paper where it has one.

use std::collections::BTreeMap;

use distribkv::ids::{Index, NodeId, Term};
use distribkv::raft::{AppendOutcome, Ballot, Body, Entry, Message, ReadState, Role};

use super::{Node, describe, place};

/// The rules' memory, and what broke them.
pub struct Checks {
    quorum: usize,
    /// Who led in each term.
    leaders: BTreeMap<Term, NodeId>,
    /// Every committed entry, with the term of the replica that first said so.
    committed: BTreeMap<Index, (Entry, Term)>,
    pub violations: Vec<String>,
}

impl Checks {
    pub fn new(quorum: usize) -> Self {
        Self { quorum, leaders: BTreeMap::new(), committed: BTreeMap::new(), violations: Vec::new() }
    }

    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The highest index that anybody knows to be committed.
    pub fn committed_index(&self) -> Index {
        self.committed.last_key_value().map_or(Index(0), |(&index, _)| index)
    }

    /// A promise must not leave before it is durable.
    pub fn on_send(&mut self, message: &Message, nodes: &BTreeMap<NodeId, Node>) {
        let (from, to) = (&nodes[&message.from], &nodes[&message.to]);
        let durable = from.disk.hard_state;
        let has_term = durable.term >= message.term;
        let last = from.disk.entries.last().map_or(Index(0), |entry| entry.index);
        let is_kept = match message.body {
            Body::VoteReply { ballot: Ballot::Granted } => {
                durable.term > message.term || (has_term && durable.vote == Some(message.to))
            }
            Body::Vote { .. } => has_term,
            Body::AppendReply { outcome: AppendOutcome::Accepted { matched }, .. } => {
                has_term && last >= matched
            }
            Body::HeartbeatReply { durable: matched, .. } => matched.0 == 0 || (has_term && last >= matched),
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::VoteReply { ballot: Ballot::Refused }
            | Body::Append { .. }
            | Body::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. }
            | Body::Heartbeat { .. }
            | Body::Outdated => true,
            Body::TimeoutNow => to.disk.entries.len() >= from.log.len(),
        };
        if !is_kept {
            self.violation(format!("told before it is so: {}", describe::message(message)));
        }
    }

    /// State machine safety, and: what is committed is durable on a quorum.
    pub fn on_commit(&mut self, id: NodeId, term: Term, entry: &Entry, nodes: &BTreeMap<NodeId, Node>) {
        if let Some((before, _)) = self.committed.get(&entry.index) {
            if before != entry {
                let (was, is) = (describe::entry(before), describe::entry(entry));
                self.violation(format!("state machine safety: n{id} applies {is}, another {was}"));
            }
            return;
        }
        let holds = |node: &&Node| node.disk.entries.get(place(entry.index)) == Some(entry);
        let count = nodes.values().filter(holds).count();
        if count < self.quorum {
            let what = describe::entry(entry);
            self.violation(format!("n{id} commits {what}, which {count} disks hold"));
        }
        self.committed.insert(entry.index, (entry.clone(), term));
    }

    /// A read sees all that was committed when it was asked for.
    pub fn on_read(&mut self, id: NodeId, read: ReadState, floor: Option<Index>) {
        match floor {
            Some(floor) if read.index >= floor => {}
            Some(floor) => {
                let index = read.index;
                self.violation(format!(
                    "stale read: n{id} answers at {index}, but {floor} was committed before"
                ));
            }
            None => self.violation(format!("n{id} answers read {}, which nobody asked", read.token)),
        }
    }

    /// Everything that holds of all nodes at any time.
    pub fn on_state(&mut self, nodes: &BTreeMap<NodeId, Node>) {
        for node in nodes.values() {
            self.check_leader(node);
            self.check_persisted(node);
            for other in nodes.range(node.id.next()..).map(|(_, other)| other) {
                self.check_log_matching(node, other);
            }
        }
    }

    /// Election safety and leader completeness.
    fn check_leader(&mut self, node: &Node) {
        let Some(raft) = node.raft.as_ref().filter(|raft| raft.role() == Role::Leader) else { return };
        let (id, term) = (node.id, raft.term());
        let first = *self.leaders.entry(term).or_insert(id);
        if first != id {
            self.violation(format!("election safety: n{first} and n{id} lead in term {term}"));
        }
        for (index, (entry, said_in)) in &self.committed {
            if *said_in <= term && raft.term_at(*index) != Some(entry.term) {
                let what = describe::entry(entry);
                self.violations.push(format!("leader completeness: n{id} leads term {term} without {what}"));
                return;
            }
        }
    }

    /// What a replica takes for durable is on its disk, as its log has it now.
    fn check_persisted(&mut self, node: &Node) {
        let Some(raft) = &node.raft else { return };
        let upto = usize::try_from(raft.persisted_index().0).expect("test logs are short");
        let on_disk = node.disk.entries.iter().take(upto).map(|entry| Some(entry.term));
        let in_log = (1..=raft.persisted_index().0).map(|index| raft.term_at(Index(index)));
        if node.disk.entries.len() < upto || !on_disk.eq(in_log) {
            self.violation(format!("n{} takes {upto} for durable, which its disk does not hold", node.id));
        }
    }

    /// Log matching: where two logs have an entry of the same term, they are equal up to there.
    fn check_log_matching(&mut self, one: &Node, other: &Node) {
        let shared = one.log.len().min(other.log.len());
        let same = (0..shared).rev().find(|&at| one.log[at].term == other.log[at].term);
        if let Some(same) = same
            && one.log[..=same] != other.log[..=same]
        {
            let (one, other) = (one.id, other.id);
            self.violation(format!("log matching: n{one} and n{other} differ below {}", same + 1));
        }
    }
}
