//! What must hold whatever happens, each rule by its name in the Raft paper where it has one.

use std::collections::BTreeMap;

use distribkv::ids::{Index, NodeId, Term};
use distribkv::raft::{AppendOutcome, Ballot, Body, Entry, Message, ReadState, Role, Standing, Voice};

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

    /// Every committed entry.
    pub fn committed(&self) -> impl Iterator<Item = &Entry> {
        self.committed.values().map(|(entry, _)| entry)
    }

    /// A promise must not leave before it is durable.
    pub fn on_send(&mut self, message: &Message, nodes: &BTreeMap<NodeId, Node>) {
        let (from, to) = (&nodes[&message.from], &nodes[&message.to]);
        let durable = from.disk.hard_state;
        let has_term = durable.term >= message.term;
        let last = from.disk.last_index();
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
            | Body::TermAsk { .. }
            | Body::TermTold { .. }
            | Body::Outdated => true,
            Body::Snapshot { index, term } => {
                from.disk.table.get(place(index)).is_some_and(|last| last.term == term)
            }
            Body::TimeoutNow => {
                let is_whole = to.disk.standing == Standing::Whole;
                !is_whole || place(to.disk.last_index().next()) >= from.log.len()
            }
        };
        if !is_kept {
            self.violation(format!("told before it is so: {}", describe::message(message)));
        }
        self.check_voice(message, from.disk.standing, nodes.len());
    }

    /// Who lost something says so, and one that was told no terms says nothing at all.
    fn check_voice(&mut self, message: &Message, standing: Standing, voters: usize) {
        let is_ask = matches!(message.body, Body::TermAsk { .. });
        let is_honest = match standing {
            Standing::Whole => true,
            Standing::Damaged { .. } => message.voice != Voice::Whole,
            Standing::Forgetful { told: Some(told), .. } => {
                !message.voice.counts() || (voters == 2 && message.term.next() > told)
            }
            Standing::Forgetful { told: None, .. } => is_ask,
        };
        if !is_honest {
            let what = describe::message(message);
            self.violation(format!("one that is {standing:?} says: {what}"));
        }
    }

    /// A table holds what was committed, and takes nothing back.
    pub fn on_install(&mut self, id: NodeId, applied: Index, table: &[Entry]) {
        let differs = |entry: &&Entry| self.committed.get(&entry.index).map(|known| &known.0) != Some(*entry);
        if let Some(entry) = table.iter().find(differs) {
            let what = describe::entry(entry);
            self.violation(format!("n{id} takes a table with {what}, which is not committed"));
        }
        if place(applied.next()) > table.len() {
            self.violation(format!("n{id} applied {applied}, and takes a table to {}", table.len()));
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
        // An acknowledgement may outlive the disk that it told the truth about.
        let holds = |node: &&Node| node.disk.holds(entry) || node.disk.standing != Standing::Whole;
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
            if *said_in <= term && node.log.get(place(*index)) != Some(entry) {
                let what = describe::entry(entry);
                self.violations.push(format!("leader completeness: n{id} leads term {term} without {what}"));
                return;
            }
        }
    }

    /// What a replica takes for durable is on its disk, as its log has it now.
    fn check_persisted(&mut self, node: &Node) {
        let Some(raft) = &node.raft else { return };
        let upto = place(raft.persisted_index().next());
        let start = place(raft.log_start().next());
        let is_there = node.log.iter().take(upto).all(|entry| node.disk.holds(entry));
        let in_log = (1..).zip(&node.log).skip(start).take(upto.saturating_sub(start));
        let differs = |(index, entry): (u64, &Entry)| raft.term_at(Index(index)) != Some(entry.term);
        if node.log.len() < upto || !is_there || in_log.into_iter().any(differs) {
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
