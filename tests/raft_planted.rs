//! Every fault that can be planted in the consensus core is found, by the checks that its sound self passes.
//!
//! Some turn up in random runs within a few seeds. The others need a story of their own; each is told twice,
//! with the fault and without.
#![cfg(debug_assertions)]

mod raft_harness;

use distribkv::ids::{Index, NodeId, Term};
use distribkv::raft::{Body, Entry, HardState, PlantedBug, Raft, ReadMode, Role};

use raft_harness::chaos::{config_of, run};
use raft_harness::{Cluster, Disk, config};

/// Random runs that may be needed.
const SEEDS_MAX: u64 = 400;
/// Steps of a random run.
const STEPS: usize = 2500;

fn is_found_by_chance(bug: PlantedBug) {
    assert!((0..SEEDS_MAX).any(|seed| is_found_at(seed, bug)), "{bug:?} was not found in {SEEDS_MAX} runs");
}

fn is_found_at(seed: u64, bug: PlantedBug) -> bool {
    let mut config = config_of(seed);
    config.planted = Some(bug);
    let found = run(seed, config, STEPS).err();
    if let Some(found) = &found {
        println!("{bug:?}: {}", found.lines().next().unwrap_or_default());
    }
    found.is_some()
}

/// A run of this seed finds a fault, and nothing without one. Where the steps of [`raft_harness::chaos`]
/// change, so may the seed: the next one that finds it takes its place.
fn is_found_by_seed(seed: u64, bug: PlantedBug) {
    assert!(is_found_at(seed, bug), "{bug:?} is no longer found by seed {seed}");
    assert_eq!(run(seed, config_of(seed), STEPS).err(), None, "seed {seed}, with nothing planted");
}

/// Tells a story without and with a fault. It says whether a rule was broken.
fn is_found_by(story: fn(&mut Cluster) -> Option<String>, bug: PlantedBug, nodes: u32, read_mode: ReadMode) {
    for planted in [None, Some(bug)] {
        let mut config = config(nodes);
        config.read_mode = read_mode;
        config.planted = planted;
        // One entry an append, so that each can be told apart.
        config.append_bytes_max = 1;
        let mut cluster = Cluster::new(config);
        let said = story(&mut cluster);
        let broken = cluster.checks.violations.first().cloned().or(said);
        assert_eq!(
            broken.is_some(),
            planted.is_some(),
            "{planted:?}: {broken:?}\n{}",
            cluster.events.join("\n")
        );
    }
}

/// Delivers what is under way of these kinds, and what follows from it, until nothing of them is left.
fn deliver_kinds(cluster: &mut Cluster, kinds: &[&str]) {
    let is_chosen =
        |message: &distribkv::raft::Message| kinds.contains(&raft_harness::describe::kind(&message.body));
    while let Some(position) = cluster.wire.iter().position(is_chosen) {
        cluster.deliver(position);
    }
}

const ELECTION: [&str; 5] = ["PreVote", "PreVoteReply", "Vote", "VoteReply", "Outdated"];

fn tick(cluster: &mut Cluster, ids: &[u32], count: u32) {
    for _ in 0..count {
        ids.iter().for_each(|&id| cluster.tick(NodeId(id)));
    }
}

/// A node stands for election, and nothing but the election is delivered.
fn stand(cluster: &mut Cluster, id: u32) {
    cluster.act(NodeId(id), Raft::campaign);
    deliver_kinds(cluster, &ELECTION);
}

/// Makes node 1 the leader of term 1, and everyone know what is committed.
fn lead(cluster: &mut Cluster) {
    cluster.act(NodeId(1), Raft::campaign);
    cluster.stabilize();
    tick(cluster, &[1], 2);
    cluster.stabilize();
    assert!(cluster.raft(1).leads_in(Term(1)), "the first campaign succeeds");
}

/// A disk that holds one entry a term.
fn disk(term: u64, terms: &[u64]) -> Disk {
    let entry =
        |(index, &term): (u64, &u64)| Entry { index: Index(index), term: Term(term), data: "x".into() };
    let hard_state = HardState { term: Term(term), vote: None, commit: Index(0) };
    Disk { hard_state, entries: (1..).zip(terms).map(entry).collect(), ..Disk::default() }
}

#[test]
fn promises_are_durable_first() {
    is_found_by_chance(PlantedBug::VoteNotDurable);
    is_found_by_chance(PlantedBug::AcknowledgeBeforeWrite);
    is_found_by_chance(PlantedBug::OwnCopyCountedEarly);
}

#[test]
fn commit_is_known_to_match() {
    is_found_by_chance(PlantedBug::CommitBeyondMatch);
}

#[test]
fn reads_are_fresh() {
    is_found_by_chance(PlantedBug::ReadBeforeFirstCommit);
}

/// Node 2 leads and writes, while node 1 does not know, and is asked for a read.
fn node_2_leads_and_node_1_is_asked(cluster: &mut Cluster) {
    cluster.act(NodeId(2), Raft::campaign);
    cluster.stabilize();
    cluster.propose(2, "a");
    cluster.stabilize();
    assert!(cluster.checks.committed_index() > Index(2), "another leads by now");
    cluster.read(1, 1);
}

/// A leader that was replaced, and does not know, is asked for a read.
fn replaced(cluster: &mut Cluster) -> Option<String> {
    lead(cluster);
    cluster.isolate(NodeId(1));
    tick(cluster, &[2, 3], 10);
    cluster.stabilize();
    node_2_leads_and_node_1_is_asked(cluster);
    None
}

#[test]
fn a_round_has_an_id_of_its_own() {
    is_found_by(replaced, PlantedBug::ReadIdReused, 3, ReadMode::ReadIndex);
}

#[test]
fn the_target_has_every_entry() {
    is_found_by_chance(PlantedBug::TransferWithoutCatchUp);
}

/// Figure 8 of the Raft paper: an entry of term 2 reaches a quorum in term 4, and node 5 can still win term
/// 5.
fn figure_8(cluster: &mut Cluster) -> Option<String> {
    for (id, disk) in
        (1..).zip([disk(3, &[1, 2]), disk(2, &[1, 2]), disk(1, &[1]), disk(1, &[1]), disk(3, &[1, 3])])
    {
        cluster.start_with(NodeId(id), disk);
    }
    cluster.isolate(NodeId(4));
    cluster.isolate(NodeId(5));
    stand(cluster, 1);
    assert!(cluster.raft(1).leads_in(Term(4)), "nodes 2 and 3 vote for node 1");
    while !cluster.wire.is_empty() && cluster.raft(3).last_index() < Index(2) {
        cluster.deliver(0);
    }
    deliver_kinds(cluster, &["AppendReply"]);
    cluster.wire.clear();
    cluster.crash(NodeId(1), 0);
    cluster.cut.clear();
    tick(cluster, &[3, 4], 10);
    cluster.wire.clear();
    stand(cluster, 5);
    tick(cluster, &[5], 20);
    deliver_kinds(cluster, &ELECTION);
    assert_eq!(cluster.raft(5).role(), Role::Leader, "nodes 3 and 4 vote for node 5");
    None
}

#[test]
fn only_entries_of_the_own_term_commit_by_counting() {
    is_found_by(figure_8, PlantedBug::CommitOlderTermByCounting, 5, ReadMode::ReadIndex);
}

/// An entry that node 3 writes, overwrites and writes again: the first write's end says nothing of the
/// third's.
fn written_twice(cluster: &mut Cluster) -> Option<String> {
    lead(cluster);
    cluster.node_mut(NodeId(3)).is_manual = true;
    cluster.propose(1, "a");
    cluster.wire.retain(|message| message.to == NodeId(3));
    deliver_kinds(cluster, &["Append"]);
    cluster.crash(NodeId(1), 1);
    tick(cluster, &[2, 4, 5], 10);
    cluster.wire.clear();
    stand(cluster, 2);
    cluster.wire.retain(|message| message.to == NodeId(3));
    while cluster.raft(3).term_at(Index(2)) != Some(Term(2)) {
        cluster.deliver(0);
    }
    cluster.wire.clear();
    cluster.isolate(NodeId(2));
    cluster.start(NodeId(1));
    tick(cluster, &[4, 5], 10);
    cluster.wire.clear();
    stand(cluster, 1);
    tick(cluster, &[1], 20);
    deliver_kinds(cluster, &ELECTION);
    assert_eq!(cluster.raft(1).role(), Role::Leader, "nodes 4 and 5 vote for node 1");
    while cluster.raft(3).term_at(Index(2)) != Some(Term(1)) {
        cluster.deliver(0);
    }
    while cluster.complete_write(NodeId(3)) {}
    None
}

#[test]
fn a_completion_is_of_its_own_write() {
    is_found_by(written_twice, PlantedBug::StaleCompletionTaken, 5, ReadMode::ReadIndex);
}

/// Node 3 lacks an entry that is committed, and asks for a pre-vote.
fn behind_asks_for_pre_votes(cluster: &mut Cluster) -> Option<String> {
    lead(cluster);
    cluster.isolate(NodeId(3));
    cluster.propose(1, "a");
    cluster.stabilize();
    cluster.cut.clear();
    cluster.crash(NodeId(1), 0);
    tick(cluster, &[2], 10);
    cluster.wire.clear();
    cluster.act(NodeId(3), Raft::campaign);
    cluster.stabilize();
    (cluster.raft(3).term() > Term(1)).then(|| "a log too short disturbs the others".to_owned())
}

#[test]
fn a_pre_vote_looks_at_the_log() {
    is_found_by(behind_asks_for_pre_votes, PlantedBug::PreVoteIgnoresLog, 3, ReadMode::ReadIndex);
}

/// Node 3 gets its pre-votes just before an entry that it lacks commits.
fn behind_asks_for_votes(cluster: &mut Cluster) -> Option<String> {
    lead(cluster);
    cluster.isolate(NodeId(1));
    tick(cluster, &[2], 9);
    tick(cluster, &[2], 1);
    cluster.wire.clear();
    cluster.act(NodeId(3), Raft::campaign);
    deliver_kinds(cluster, &["PreVote"]);
    cluster.cut.clear();
    cluster.isolate(NodeId(3));
    cluster.propose(1, "a");
    cluster.wire.retain(|message| message.to != NodeId(3) || message.from == NodeId(2));
    deliver_kinds(cluster, &["Append", "AppendReply"]);
    cluster.cut.clear();
    cluster.isolate(NodeId(1));
    tick(cluster, &[2], 10);
    cluster.wire.retain(|message| message.to == NodeId(3));
    deliver_kinds(cluster, &ELECTION);
    None
}

#[test]
fn a_vote_looks_at_the_log() {
    is_found_by(behind_asks_for_votes, PlantedBug::VoteIgnoresLog, 3, ReadMode::ReadIndex);
}

/// Node 3 was cut off for a while, and comes back to a cluster that has a leader.
fn comes_back(cluster: &mut Cluster) -> Option<String> {
    lead(cluster);
    cluster.isolate(NodeId(3));
    tick(cluster, &[3], 10);
    cluster.stabilize();
    cluster.cut.clear();
    tick(cluster, &[3], 10);
    cluster.stabilize();
    (!cluster.raft(1).leads_in(Term(1))).then(|| "a living leader is unseated".to_owned())
}

#[test]
fn a_living_leader_stays() {
    is_found_by(comes_back, PlantedBug::StickinessForgotten, 3, ReadMode::ReadIndex);
}

/// Answers to a heartbeat that arrive when the promise in them has all but run out.
fn late_answers(cluster: &mut Cluster) -> Option<String> {
    lead(cluster);
    tick(cluster, &[1], 2);
    deliver_kinds(cluster, &["Heartbeat"]);
    let late = std::mem::take(&mut cluster.wire);
    cluster.isolate(NodeId(1));
    tick(cluster, &[1, 2, 3], 7);
    cluster.cut.clear();
    for message in late {
        assert!(
            matches!(message.body, Body::HeartbeatReply { .. }),
            "only answers were under way: {message:?}"
        );
        cluster.arrive(message);
    }
    cluster.isolate(NodeId(1));
    tick(cluster, &[1, 2, 3], 3);
    cluster.stabilize();
    node_2_leads_and_node_1_is_asked(cluster);
    None
}

#[test]
fn a_lease_counts_from_the_send() {
    is_found_by(late_answers, PlantedBug::LeaseFromReceipt, 3, ReadMode::Lease);
}

/// A leader that nobody hears.
fn cut_off(cluster: &mut Cluster) -> Option<String> {
    lead(cluster);
    cluster.isolate(NodeId(1));
    tick(cluster, &[1], 10);
    (cluster.raft(1).role() == Role::Leader).then(|| "a leader leads nobody".to_owned())
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    is_found_by(cut_off, PlantedBug::QuorumNeverChecked, 3, ReadMode::ReadIndex);
}

#[test]
fn a_table_is_acknowledged_when_it_is_durable() {
    is_found_by_seed(0, PlantedBug::SnapshotAckBeforeDurable);
}

#[test]
fn an_older_table_takes_nothing_back() {
    is_found_by_seed(11, PlantedBug::SnapshotOlderThanLogTruncates);
}

#[test]
fn who_forgot_is_not_counted_in_elections() {
    is_found_by_seed(52, PlantedBug::RecoveringVoteCounted);
}

#[test]
fn who_forgot_says_nothing_before_it_was_told() {
    is_found_by_seed(1, PlantedBug::WipedVotesInForgottenTerm);
}

/// Node 3 votes for node 1, is wiped, and is asked by node 2 in the same term. Its first vote arrives late.
fn votes_twice(cluster: &mut Cluster) -> Option<String> {
    cluster.act(NodeId(1), Raft::campaign);
    cluster.act(NodeId(2), Raft::campaign);
    deliver_kinds(cluster, &["PreVote", "PreVoteReply"]);
    let to_other = |message: &distribkv::raft::Message| (message.from, message.to) == (NodeId(2), NodeId(3));
    let second = cluster.wire.iter().position(to_other).map(|at| cluster.wire.remove(at));
    deliver_kinds(cluster, &["Vote"]);
    let late = std::mem::take(&mut cluster.wire);
    cluster.wipe(NodeId(3), 77);
    cluster.start(NodeId(3));
    deliver_kinds(cluster, &["TermAsk", "TermTold"]);
    second.into_iter().chain(late).for_each(|message| cluster.arrive(message));
    cluster.stabilize();
    assert!(cluster.raft(1).leads_in(Term(1)), "the vote was given, and counts");
    None
}

#[test]
fn nobody_votes_twice_in_a_term() {
    is_found_by(votes_twice, PlantedBug::WipedVotesInForgottenTerm, 3, ReadMode::ReadIndex);
}

/// Node 4 votes for node 5 in term 3, and is wiped. Node 1 leads term 2; nodes 1 and 2 hold its entry, and
/// node 4, whose vote of before still makes node 5 a leader with that of node 3.
fn forgotten_vote_elects(cluster: &mut Cluster) -> Option<String> {
    for (id, term) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2)] {
        cluster.start_with(NodeId(id), disk(term, &[1]));
    }
    cluster.act(NodeId(5), Raft::campaign);
    deliver_kinds(cluster, &["PreVote", "PreVoteReply"]);
    let asked = std::mem::take(&mut cluster.wire);
    let asks = |id| asked.iter().find(|message| message.to == NodeId(id)).cloned().expect("all are asked");
    cluster.arrive(asks(4));
    let late = std::mem::take(&mut cluster.wire);
    cluster.wipe(NodeId(4), 77);
    cluster.isolate(NodeId(5));
    cluster.start(NodeId(4));
    deliver_kinds(cluster, &["TermAsk", "TermTold"]);
    cluster.act(NodeId(1), Raft::campaign);
    deliver_kinds(cluster, &ELECTION);
    assert!(cluster.raft(1).leads_in(Term(2)), "nodes 2 and 3 vote for node 1");
    cluster.wire.retain(|message| message.to != NodeId(3));
    deliver_kinds(cluster, &["Append", "AppendReply"]);
    assert_eq!(cluster.raft(4).last_index(), Index(2), "it holds the entry that it may not be counted for");
    cluster.isolate(NodeId(1));
    cluster.isolate(NodeId(2));
    cluster.cut.retain(|way| ![way.0, way.1].contains(&NodeId(5)));
    tick(cluster, &[3], 10);
    cluster.wire.clear();
    cluster.arrive(asks(3));
    late.into_iter().for_each(|message| cluster.arrive(message));
    deliver_kinds(cluster, &["VoteReply"]);
    assert!(cluster.raft(5).leads_in(Term(3)), "nodes 3 and 4 voted for it, and it for itself");
    None
}

#[test]
fn who_forgot_is_not_counted_for_a_commit() {
    is_found_by(forgotten_vote_elects, PlantedBug::RecoveringAckCounted, 5, ReadMode::ReadIndex);
}
