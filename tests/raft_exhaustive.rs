//! Every order in which a small cluster's messages can arrive, writes end, a process crash and a disk lose
//! everything: the consensus core itself under a model checker, not a model of it.
//!
//! Three replicas, two terms, a proposal, a crash, a wipe. Any message may be late, and so lost, for ever;
//! writes end in their order, at any time; a crash loses what was not written. Two things are taken as more
//! hostile than they can be, which keeps time out of the model: pre-votes are granted always, and voters have
//! always just lost patience with their leader. Neither rule is needed for safety.
//!
//! By symmetry of the names, node 1 campaigns first, and the second campaign is of node 1 or 2.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use distribkv::ids::{Index, NodeId, Term};
use distribkv::raft::{
    Ballot, Body, Campaign, Config, Entry, HardState, Message, Persist, Raft, Recovered, Role, Standing,
    Voice,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

const NODES: u32 = 3;
const CAMPAIGNS_MAX: u32 = 2;

/// One replica: its process, its disk, and what is on the way there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    raft: Raft,
    hard_state: HardState,
    standing: Standing,
    disk: Vec<Entry>,
    writing: Vec<Persist>,
    log: Vec<Entry>,
}

/// The whole cluster, and what must not be forgotten of its past.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cluster {
    nodes: Vec<Arc<Node>>,
    wire: BTreeSet<Message>,
    campaigns: u32,
    proposals: u32,
    crashes: u32,
    wiped: Option<NodeId>,
    /// Who led each term.
    leaders: Vec<(Term, NodeId)>,
    /// What was ever committed, and the term of the replica that first knew.
    committed: Vec<(Entry, Term)>,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Campaign(NodeId),
    Propose(NodeId),
    Deliver(Message),
    CompleteWrite(NodeId),
    Crash(NodeId),
    Wipe(NodeId),
}

/// The bounds of a run.
struct Bounds {
    config: Config,
    proposals_max: u32,
    crashes_max: u32,
    /// The nodes of which one may be wiped.
    wipes: &'static [NodeId],
}

fn bounds(proposals_max: u32, crashes_max: u32) -> Bounds {
    let config = Config::new(NodeId(1), (1..=NODES).map(NodeId).collect());
    Bounds { config, proposals_max, crashes_max, wipes: &[] }
}

fn bounds_with_wipe(wipes: &'static [NodeId]) -> Bounds {
    Bounds { wipes, ..bounds(0, 0) }
}

impl Bounds {
    fn start(&self, id: NodeId, (hard_state, standing): (HardState, Standing), disk: Vec<Entry>) -> Node {
        let mut config = self.config.clone();
        config.id = id;
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &disk {
            if terms.last().is_none_or(|last| last.1 != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        let last_index = disk.last().map_or(Index(0), |entry| entry.index);
        let recovered = Recovered { hard_state, standing, terms, last_index, ..Recovered::default() };
        let raft = Raft::new(config, recovered, 0).expect("what was written makes sense");
        Node { raft, hard_state, standing, log: disk.clone(), disk, writing: Vec::new() }
    }
}

fn at(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("ids are small")
}

fn overwrite(log: &mut Vec<Entry>, entries: &[Entry]) {
    if let Some(first) = entries.first() {
        log.truncate(usize::try_from(first.index.0 - 1).expect("logs are short"));
        log.extend_from_slice(entries);
    }
}

impl Cluster {
    /// Does something to one replica, and takes from it what it wants done.
    fn act(&mut self, id: NodeId, action: impl FnOnce(&mut Node)) {
        let mut node = Node::clone(&self.nodes[at(id)]);
        action(&mut node);
        while node.raft.has_ready() {
            let ready = node.raft.ready();
            self.send(ready.messages);
            if let Some(persist) = ready.persist {
                overwrite(&mut node.log, &persist.entries);
                node.writing.push(persist);
            }
            node.raft.applied(ready.commit);
        }
        self.note_leader(&node);
        self.nodes[at(id)] = Arc::new(node);
        self.note_commit(id);
    }

    /// Messages go on the wire. Of a vote's cause and of pre-votes see the head of this file.
    fn send(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            match &mut message.body {
                Body::PreVote { .. } | Body::PreVoteReply { .. } => continue,
                Body::Vote { cause, .. } => *cause = Campaign::Transfer,
                Body::VoteReply { .. }
                | Body::Append { .. }
                | Body::AppendReply { .. }
                | Body::Heartbeat { .. }
                | Body::HeartbeatReply { .. }
                | Body::TimeoutNow
                | Body::Outdated
                | Body::Snapshot { .. }
                | Body::TermAsk { .. }
                | Body::TermTold { .. } => {}
            }
            self.wire.insert(message);
        }
    }

    fn complete_write(&mut self, id: NodeId) {
        let mut messages = Vec::new();
        self.act(id, |node| {
            let persist = node.writing.remove(0);
            node.hard_state = persist.hard_state.unwrap_or(node.hard_state);
            node.standing = persist.standing.unwrap_or(node.standing);
            overwrite(&mut node.disk, &persist.entries);
            let completion = persist.completion();
            messages = persist.then_send;
            node.raft.persisted(completion);
        });
        self.send(messages);
    }

    /// Election safety, and leader completeness where a leader is new.
    fn note_leader(&mut self, node: &Node) {
        let (id, term) = (node.raft.id(), node.raft.term());
        if node.raft.role() != Role::Leader || self.leaders.contains(&(term, id)) {
            return;
        }
        if self.leaders.iter().any(|leader| leader.0 == term) {
            self.broken = Some("election safety");
        }
        let lacks = |(place, (entry, said_in)): (usize, &(Entry, Term))| {
            *said_in <= term && node.log.get(place) != Some(entry)
        };
        if self.committed.iter().enumerate().any(lacks) {
            self.broken = Some("leader completeness");
        }
        self.leaders.push((term, id));
        self.leaders.sort_unstable();
    }

    /// State machine safety; and what commits is on a quorum of disks.
    fn note_commit(&mut self, id: NodeId) {
        let node = Arc::clone(&self.nodes[at(id)]);
        let commit = usize::try_from(node.raft.commit().0).expect("logs are short");
        let shared = commit.min(self.committed.len());
        let differs = |(entry, (committed, _)): (&Entry, &(Entry, Term))| entry != committed;
        if node.log.len() < commit || node.log[..shared].iter().zip(&self.committed).any(differs) {
            self.broken = Some("state machine safety");
            return;
        }
        for index in shared..commit {
            let entry = &node.log[index];
            // What was told before it was lost may be counted after.
            let holds =
                |node: &&Arc<Node>| node.disk.get(index) == Some(entry) || node.standing != Standing::Whole;
            let count = self.nodes.iter().filter(holds).count();
            if count <= self.nodes.len() / 2 {
                self.broken = Some("a quorum holds what is committed");
            }
            self.committed.push((entry.clone(), node.raft.term()));
        }
    }

    /// Takes messages off the wire that are older than the term on their receiver's disk: all that they could
    /// bring about is that their sender learns of that term. The same with questions for terms that have been
    /// answered enough.
    fn forget_what_is_over(&mut self) {
        let nodes = &self.nodes;
        let is_untold = |id| matches!(nodes[at(id)].standing, Standing::Forgetful { told: None, .. });
        self.wire.retain(|message| {
            if matches!(message.body, Body::TermAsk { .. }) {
                return is_untold(message.from);
            }
            let is_told = matches!(message.body, Body::TermTold { .. });
            let is_over = message.term < nodes[at(message.to)].hard_state.term;
            if is_told { is_untold(message.to) } else { !is_over }
        });
    }

    /// Takes everything from a node. It starts again at once.
    fn wipe(&mut self, bounds: &Bounds, id: NodeId) {
        self.wiped = Some(id);
        let standing = Standing::Forgetful { episode: 77, told: None };
        self.nodes[at(id)] = Arc::new(bounds.start(id, (HardState::default(), standing), Vec::new()));
        self.act(id, |_| {});
    }

    fn logs_match(&self) -> bool {
        let pair_matches = |one: &Node, other: &Node| {
            let shared = one.log.len().min(other.log.len());
            let same = (0..shared).rev().find(|&index| one.log[index].term == other.log[index].term);
            same.is_none_or(|same| one.log[..=same] == other.log[..=same])
        };
        let pairs = [(0, 1), (0, 2), (1, 2)];
        pairs.iter().all(|&(one, other)| pair_matches(&self.nodes[one], &self.nodes[other]))
    }
}

impl Model for Bounds {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        let start = |id| Arc::new(self.start(NodeId(id), Default::default(), Vec::new()));
        vec![Cluster {
            nodes: (1..=NODES).map(start).collect(),
            wire: BTreeSet::new(),
            campaigns: 0,
            proposals: 0,
            crashes: 0,
            wiped: None,
            leaders: Vec::new(),
            committed: Vec::new(),
            broken: None,
        }]
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        actions.extend(state.wire.iter().cloned().map(Action::Deliver));
        let candidates = if state.campaigns == 0 { 1..=1 } else { 1..=2 };
        for id in candidates.map(NodeId) {
            let raft = &state.nodes[at(id)].raft;
            let may_campaign = raft.role() != Role::Leader && raft.standing() == Standing::Whole;
            if state.campaigns < CAMPAIGNS_MAX && may_campaign {
                actions.push(Action::Campaign(id));
            }
        }
        for (id, node) in (1..).map(NodeId).zip(&state.nodes) {
            if !node.writing.is_empty() {
                actions.push(Action::CompleteWrite(id));
            }
            if node.raft.role() == Role::Leader && state.proposals < self.proposals_max {
                actions.push(Action::Propose(id));
            }
            if state.crashes < self.crashes_max && state.campaigns > 0 {
                actions.push(Action::Crash(id));
            }
            if self.wipes.contains(&id) && state.wiped.is_none() && state.campaigns > 0 {
                actions.push(Action::Wipe(id));
            }
        }
    }

    fn next_state(&self, last: &Cluster, action: Action) -> Option<Cluster> {
        let mut next = last.clone();
        match action {
            Action::Campaign(id) => {
                next.campaigns += 1;
                next.act(id, |node| {
                    node.raft.campaign();
                    let from = NodeId(id.0 % NODES + 1);
                    let asked = node.raft.term();
                    let body = Body::PreVoteReply { asked, ballot: Ballot::Granted };
                    node.raft.step(Message { from, to: id, term: asked, voice: Voice::Whole, body });
                });
            }
            Action::Propose(id) => {
                next.proposals += 1;
                next.act(id, |node| _ = node.raft.propose(Bytes::from_static(b"x")));
            }
            Action::Deliver(message) => {
                next.wire.remove(&message);
                next.act(message.to, |node| node.raft.step(message));
            }
            Action::CompleteWrite(id) => {
                next.complete_write(id);
                next.forget_what_is_over();
            }
            Action::Crash(id) => {
                next.crashes += 1;
                let node = &last.nodes[at(id)];
                let state = (node.hard_state, node.standing);
                next.nodes[at(id)] = Arc::new(self.start(id, state, node.disk.clone()));
                next.act(id, |_| {});
            }
            Action::Wipe(id) => next.wipe(self, id),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no rule is broken", |_, state: &Cluster| state.broken.is_none()),
            Property::always("log matching", |_, state: &Cluster| state.logs_match()),
            Property::sometimes("a second leader commits", |_, state: &Cluster| {
                state.committed.last().is_some_and(|(entry, _)| entry.term == Term(2))
            }),
            Property::sometimes("an entry is overwritten", |_, state: &Cluster| {
                let overwritten =
                    |node: &Arc<Node>| node.log.iter().zip(&node.disk).any(|(log, disk)| log != disk);
                state.nodes.iter().any(overwritten)
            }),
            Property::sometimes("who was wiped is whole", |_, state: &Cluster| {
                state.wiped.is_some_and(|id| {
                    let node = &state.nodes[at(id)];
                    node.standing == Standing::Whole && node.raft.commit() > Index(0)
                })
            }),
        ]
    }
}

/// Runs to the end of all that can happen, or to the first broken rule; what was seen.
fn check(bounds: Bounds) -> Vec<&'static str> {
    let (proposals, crashes, wipes) = (bounds.proposals_max, bounds.crashes_max, bounds.wipes);
    let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{proposals} proposals, {crashes} crashes, wipes of {wipes:?}: {states} states");
    let mut found: Vec<_> = checker.discoveries().into_keys().collect();
    found.sort_unstable();
    found
}

/// What may be seen, and is in runs that reach far enough: the model is not empty.
const SEEN: [&str; 2] = ["a second leader commits", "an entry is overwritten"];
const SEEN_WITH_WIPE: [&str; 3] =
    ["a second leader commits", "an entry is overwritten", "who was wiped is whole"];

#[test]
fn every_order_of_two_elections_and_a_crash_keeps_every_rule() {
    assert_eq!(check(bounds(0, 1)), SEEN);
}

#[test]
fn every_order_of_two_elections_and_a_proposal_keeps_every_rule() {
    assert_eq!(check(bounds(1, 0)), SEEN);
}

#[test]
#[ignore = "three minutes on two cores, some gigabytes"]
fn every_order_of_two_elections_a_proposal_and_a_crash_keeps_every_rule() {
    assert_eq!(check(bounds(1, 1)), SEEN);
}

#[test]
fn every_order_of_two_elections_and_a_voters_wipe_keeps_every_rule() {
    assert_eq!(check(bounds_with_wipe(&[NodeId(3)])), SEEN_WITH_WIPE);
}

#[test]
#[ignore = "two minutes on two cores, some gigabytes"]
fn every_order_of_two_elections_and_any_wipe_keeps_every_rule() {
    assert_eq!(check(bounds_with_wipe(&[NodeId(1), NodeId(2), NodeId(3)])), SEEN_WITH_WIPE);
}

/// The same runs find faults, so they can fail.
#[cfg(debug_assertions)]
#[test]
fn planted_faults_are_found() {
    use distribkv::raft::PlantedBug;
    for bug in [
        PlantedBug::OwnCopyCountedEarly,
        PlantedBug::AcknowledgeBeforeWrite,
        PlantedBug::VoteNotDurable,
        PlantedBug::VoteIgnoresLog,
    ] {
        let mut bounds = bounds(0, 1);
        bounds.config.planted = Some(bug);
        assert!(check(bounds).contains(&"no rule is broken"), "{bug:?} is not found");
    }
    let mut bounds = bounds_with_wipe(&[NodeId(3)]);
    bounds.config.planted = Some(PlantedBug::WipedVotesInForgottenTerm);
    assert!(check(bounds).contains(&"no rule is broken"), "a second vote in a term is not found");
}
