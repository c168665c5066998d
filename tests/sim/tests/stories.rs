//! Stories that chance tells too rarely: each with the product as it is, and with the mistake that it is
//! about.
#![cfg(debug_assertions)]

use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::NodeId;
use distribkv::route::call::Request;
use sim::cluster::{Cluster, ClusterConfig, Ending};
use sim::disk::{Crash, DiskConfig, Fault, Stray};
use sim::executor::{World, WorldConfig};
use sim::network::{LinkState, NetworkConfig};
use sim::run::Options;
use sim::story::{SHARD, Story, append, replica, with_small_tables};

/// So short that the caller has given up long before a held packet arrives.
const GIVEN_UP: Duration = Duration::from_millis(200);

/// A follower acknowledges an entry that the third node has not seen, loses its disk, and comes back with an
/// empty one. If it voted, the other two would lead on without the entry.
fn a_wiped_node_comes_back(planted: Option<&str>) -> Option<Bytes> {
    let story = Story::begin(planted);
    let leader = story.leader().expect("the story begins with a leader");
    let [wiped, behind] = story.others(leader);
    story.cluster.partition(&[behind], &[leader, wiped]);
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "a majority is there");
    story.cluster.crash(wiped, Crash::Process);
    story.cluster.replace_data_dir(wiped);
    story.cluster.heal_network();
    story.cluster.partition(&[leader], &[wiped, behind]);
    story.cluster.boot(wiped);
    story.pass(Duration::from_secs(3));
    let refused = matches!(story.cluster.ending(wiped), Ending::Exit { code: 20, .. });
    assert_eq!(refused, planted.is_none(), "the wiped node: {:?}", story.cluster.ending(wiped));
    if refused {
        story.cluster.heal_network();
    }
    story.value(behind)
}

#[test]
fn a_wiped_node_does_not_vote() {
    assert_eq!(a_wiped_node_comes_back(None), Some(Bytes::from_static(b"kept")));
    assert_eq!(
        a_wiped_node_comes_back(Some("WipedNodeVotes")),
        None,
        "the mistake loses what was acknowledged"
    );
}

/// A node votes for a leader of a new term and acknowledges its entry, which the third node has not seen; it
/// loses its disk, is recovered, and hears of that leader no more. If it voted as one that never voted, the
/// other two would lead on without the entry, perhaps even in the same term.
fn a_recovered_node_is_asked_for_a_vote(planted: Option<&str>) -> Option<Bytes> {
    let story = Story::begin(planted);
    let behind = story.leader().expect("the story begins with a leader");
    let [one, other] = story.others(behind);
    story.cluster.partition(&[behind], &[one, other]);
    let led_by = |story: &Story, node| story.cluster.directory(node).first().and_then(|(_, of)| of.leader);
    let is_led = |story: &Story| led_by(story, one).is_some_and(|leader| leader != behind);
    story.wait(|story| is_led(story) && led_by(story, one) == led_by(story, other));
    let leader = led_by(&story, one).expect("it was waited for");
    let wiped = if leader == one { other } else { one };
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "a majority is there");
    story.cluster.crash(wiped, Crash::Process);
    story.cluster.replace_data_dir(wiped);
    story.cluster.heal_network();
    story.cluster.partition(&[leader], &[behind]);
    story.cluster.boot_to_recover(wiped);
    story.wait(|story| story.cluster.may_vote(wiped));
    story.cluster.partition(&[leader], &[wiped, behind]);
    story.pass(Duration::from_secs(3));
    if planted.is_none() {
        assert!(!story.cluster.is_whole(wiped), "who knows of its vote is not there");
        story.cluster.heal_network();
        story.wait(|story| story.cluster.is_whole(wiped));
    }
    story.value(behind)
}

#[test]
fn a_recovered_node_does_not_vote_in_a_term_that_it_may_have_forgotten() {
    assert_eq!(a_recovered_node_is_asked_for_a_vote(None), Some(Bytes::from_static(b"kept")));
    assert_eq!(
        a_recovered_node_is_asked_for_a_vote(Some("WipedVotesInForgottenTerm")),
        None,
        "the mistake loses what was acknowledged"
    );
}

/// A node acknowledges an entry that the third node has not seen, and its log rots before that entry. If it
/// took the damage for the end of its log, it would lead on with the third node, without the entry.
fn a_log_rots(planted: Option<&str>) -> Option<Bytes> {
    let story = Story::begin(planted);
    let leader = story.leader().expect("the story begins with a leader");
    let [rots, behind] = story.others(leader);
    story.cluster.partition(&[behind], &[leader, rots]);
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "a majority is there");
    // The lane falls idle, and is sealed.
    story.pass(Duration::from_millis(100));
    story.cluster.crash(rots, Crash::Process);
    let disk = story.cluster.machine(rots).disk();
    let lane = story.cluster.data_dirs(rots).pop().expect("a node has a lane");
    let holds = |bytes: &[u8]| bytes.windows(4).any(|window| window == b"kept");
    let files = disk.files(&lane);
    let (name, bytes) = files.iter().find(|(_, bytes)| holds(bytes)).expect("it is durable");
    let at = bytes.windows(4).position(|window| window == b"kept").expect("it was found before");
    story.cluster.note_rot(rots);
    disk.flip_bit(&lane.join(name), at as u64, 0);
    story.cluster.heal_network();
    story.cluster.partition(&[leader], &[rots, behind]);
    story.boot(rots.0);
    assert_eq!(story.exit_code(rots.0), None);
    if planted.is_none() {
        assert!(!story.cluster.is_whole(rots), "who has what it lost is not there");
        assert_eq!(story.leader(), None, "nor does it lead, or make the other lead, without it");
        story.cluster.heal_network();
        story.wait(|story| story.cluster.is_whole(rots));
    }
    story.value(behind)
}

#[test]
fn damage_is_not_taken_for_a_torn_tail() {
    assert_eq!(a_log_rots(None), Some(Bytes::from_static(b"kept")));
    assert_eq!(a_log_rots(Some("DamageCut")), None, "the mistake loses what was acknowledged");
}

/// A node that may vote finds none of the files of its lane. It was told of no loss, and forgets nothing
/// unnoticed: it is as one that was recovered.
#[test]
fn a_lane_that_is_gone_is_not_taken_for_a_new_one() {
    let story = Story::begin(None);
    let leader = story.leader().expect("the story begins with a leader");
    let [robbed, behind] = story.others(leader);
    story.cluster.partition(&[behind], &[leader, robbed]);
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "a majority is there");
    story.cluster.crash(robbed, Crash::Process);
    let disk = story.cluster.machine(robbed).disk();
    let lane = story.cluster.data_dirs(robbed).pop().expect("a node has a lane");
    disk.files(&lane).into_iter().for_each(|(name, _)| disk.lose_file(&lane.join(name)));
    story.cluster.heal_network();
    story.cluster.partition(&[leader], &[robbed, behind]);
    story.cluster.boot(robbed);
    story.pass(Duration::from_secs(3));
    assert!(!story.cluster.is_whole(robbed), "who knows of its vote is not there");
    story.cluster.heal_network();
    story.wait(|story| story.cluster.is_whole(robbed));
    assert_eq!(story.value(behind), Some(Bytes::from_static(b"kept")));
}

/// A node acknowledges what its disk has acknowledged and never written, and starts again without it. Nothing
/// can show it; nothing is lost as long as the others are all there, and the leader hears of it with the next
/// round.
#[test]
fn a_lost_tail_of_one_node_is_made_good_by_the_others() {
    let story = Story::begin(None);
    let leader = story.leader().expect("the story begins with a leader");
    let [forgets, _] = story.others(leader);
    assert!(matches!(story.append(leader, "a"), Some(Ok(_))), "all are there");
    story.pass(Duration::from_millis(100));
    let disk = story.cluster.machine(forgets).disk();
    disk.fail(Fault::Astray { stray: Stray::Lost, after: 0 });
    assert!(matches!(story.append(leader, "b"), Some(Ok(_))), "all are there");
    story.wait(|_| disk.strays() == 1);
    story.cluster.crash(forgets, Crash::Process);
    story.boot(forgets.0);
    // To this leader it has said that it holds the entry, and nothing new is written.
    let digest = |node| replica(&story, node).map(|replica| (replica.applied_index, replica.state_digest));
    story.wait(|_| digest(forgets).is_some() && digest(forgets) == digest(leader));
    assert_eq!(story.value(forgets), Some(Bytes::from_static(b"ab")));
}

/// Takes a node down with its disk, and starts it with an empty one and the word that the old one is lost.
fn lose_and_recover(story: &Story, node: NodeId) {
    story.cluster.crash(node, Crash::Process);
    story.cluster.replace_data_dir(node);
    story.cluster.boot_to_recover(node);
}

/// A wiped node is refused, then recovered: with the table of a leader whose log is let go of, also where it
/// crashes on its way and is started without the word. It counts from then on.
#[test]
fn a_wiped_node_is_recovered_and_counts() {
    let story = with_small_tables();
    let leader = story.leader().expect("the story begins with a leader");
    let [wiped, third] = story.others(leader);
    for _ in 0..60 {
        assert!(matches!(story.append(leader, "0123456789"), Some(Ok(_))), "all are there");
    }
    story.cluster.crash(wiped, Crash::Power);
    story.cluster.replace_data_dir(wiped);
    story.boot(wiped.0);
    assert_eq!(story.exit_code(wiped.0), Some(20), "{:?}", story.cluster.ending(wiped));
    story.cluster.boot_to_recover(wiped);
    for ms in [30, 1, 10, 100, 300] {
        story.pass(Duration::from_millis(ms));
        story.cluster.crash(wiped, Crash::Power);
        story.cluster.boot(wiped);
    }
    story.wait(|story| story.cluster.is_whole(wiped));
    let digest = |node| replica(&story, node).map(|replica| (replica.applied_index, replica.state_digest));
    story.wait(|_| digest(wiped) == digest(leader));
    story.cluster.crash(third, Crash::Power);
    let asked = story.append(wiped, "!");
    assert!(matches!(asked, Some(Ok(_))), "two of three are there: {asked:?}");
    let wanted = format!("{}!", "0123456789".repeat(60));
    assert_eq!(story.value(wiped).as_deref(), Some(wanted.as_bytes()));
}

/// Of three, both others have to tell what they know. One that is away is waited for.
#[test]
fn a_recovered_node_of_three_waits_for_both_others() {
    let story = Story::begin(None);
    let leader = story.leader().expect("the story begins with a leader");
    let [wiped, away] = story.others(leader);
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "all are there");
    story.cluster.crash(away, Crash::Power);
    lose_and_recover(&story, wiped);
    story.pass(Duration::from_secs(5));
    assert!(!story.cluster.may_vote(wiped) && story.cluster.is_up(wiped), "it waits, and does not end");
    story.cluster.boot(away);
    story.wait(|story| story.cluster.is_whole(wiped));
    assert_eq!(story.value(wiped), Some(Bytes::from_static(b"kept")));
}

/// Of five, one may be away while another is recovered; when it comes back it hears of the new directory.
#[test]
fn who_was_away_learns_of_a_recovered_node() {
    let story = Story::prepared(5, None);
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    let leader = story.leader().expect("it was waited for");
    let others: Vec<NodeId> = story.cluster.nodes().into_iter().filter(|node| *node != leader).collect();
    let (wiped, away) = (others[0], others[1]);
    assert!(matches!(story.append(leader, "kept"), Some(Ok(_))), "all are there");
    story.cluster.crash(away, Crash::Power);
    lose_and_recover(&story, wiped);
    story.wait(|story| story.cluster.is_whole(wiped));
    story.boot(away.0);
    assert_eq!([wiped, away].map(|node| story.exit_code(node.0)), [None, None]);
    story.cluster.crash(others[2], Crash::Power);
    story.cluster.crash(others[3], Crash::Power);
    assert!(matches!(story.append(away, "!"), Some(Ok(_))), "three of five are there, these two among them");
    assert_eq!(story.value(wiped), Some(Bytes::from_static(b"kept!")));
}

/// Of five, three are recovered one after the other while the fourth is away. They have forgotten which
/// directory it had, and must not take an empty one for its first: it could vote a second time.
#[test]
fn who_was_recovered_vouches_for_no_new_directory() {
    let story = Story::prepared(5, None);
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    let [away, last] = [NodeId(4), NodeId(5)];
    story.cluster.crash(away, Crash::Power);
    for recovered in [1, 2, 3].map(NodeId) {
        lose_and_recover(&story, recovered);
        story.wait(|story| story.cluster.is_whole(recovered));
    }
    // The only one that still knows.
    story.cluster.crash(last, Crash::Power);
    story.cluster.replace_data_dir(away);
    story.boot(away.0);
    assert!(!story.cluster.may_vote(away), "nobody who remembers has vouched for it");
    assert_eq!(story.exit_code(away.0), Some(20), "{:?}", story.cluster.ending(away));
    story.cluster.boot(last);
    story.cluster.boot_to_recover(away);
    story.wait(|story| story.cluster.is_whole(away));
    assert!(matches!(story.append(away, "kept"), Some(Ok(_))), "all are there");
}

/// A node is recovered twice. Neither of its lost directories is ever taken for its own again.
#[test]
fn lost_directories_are_refused_for_ever() {
    let story = Story::begin(None);
    let leader = story.leader().expect("the story begins with a leader");
    let [wiped, _] = story.others(leader);
    for value in ["a", "b"] {
        assert!(matches!(story.append(leader, value), Some(Ok(_))), "all are there");
        lose_and_recover(&story, wiped);
        story.wait(|story| story.cluster.is_whole(wiped));
    }
    for lost in [0, 1] {
        story.cluster.crash(wiped, Crash::Process);
        story.cluster.put_back_data_dir(wiped, lost);
        story.boot(wiped.0);
        assert_eq!(story.exit_code(wiped.0), Some(20), "directory {lost}");
        story.cluster.boot_to_recover(wiped);
        story.pass(Duration::from_secs(3));
        let code = if lost == 0 { 15 } else { 20 };
        assert_eq!(story.exit_code(wiped.0), Some(code), "a directory that has voted is not made to forget");
    }
    story.cluster.put_back_data_dir(wiped, 2);
    story.boot(wiped.0);
    story.wait(|story| story.cluster.is_whole(wiped));
    assert_eq!(story.value(wiped), Some(Bytes::from_static(b"ab")));
}

/// Of two, the other one alone knows everything.
#[test]
fn one_of_two_is_recovered() {
    let story = Story::prepared(2, None);
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    for wiped in story.cluster.nodes() {
        assert!(matches!(story.append(wiped, "x"), Some(Ok(_))), "both are there");
        lose_and_recover(&story, wiped);
        story.wait(|story| story.cluster.is_whole(wiped));
    }
    assert_eq!(story.value(NodeId(1)), Some(Bytes::from_static(b"xx")));
}

/// A forwarded change is held back on its way while leadership goes away from its receiver and comes back to
/// it.
fn a_late_call_arrives(planted: Option<&str>) -> Option<Bytes> {
    let story = Story::begin(planted);
    let leader = story.leader().expect("the story begins with a leader");
    let [origin, other] = story.others(leader);
    story.cluster.set_link(origin, leader, LinkState::Held);
    let _outcome = story.cluster.call((origin, 0), (SHARD, append("late")), GIVEN_UP);
    story.pass(Duration::from_millis(20));
    for to in [other, leader] {
        let transfer = || story.call(other, Request::Transfer { to: Some(to) }, Duration::from_secs(2));
        story.wait(|story| {
            let moved =
                story.cluster.directory(other).first().and_then(|(_, known)| known.leader) == Some(to);
            moved || matches!(transfer(), Some(Ok(_)))
        });
        story.pass(Duration::from_millis(300));
    }
    story.cluster.heal_network();
    story.pass(Duration::from_secs(1));
    story.wait(|story| story.leader().is_some());
    story.value(other)
}

#[test]
fn a_forwarded_change_is_not_proposed_in_a_later_term() {
    assert_eq!(a_late_call_arrives(None), None);
    assert_eq!(a_late_call_arrives(Some("ProposedInLaterTerm")), Some(Bytes::from_static(b"late")));
}

/// A first start that is cut short again and again, and whose last node comes late, still ends in a cluster.
#[test]
fn a_staggered_and_aborted_first_start_works() {
    let world = World::new(WorldConfig::seeded(11));
    let config = ClusterConfig {
        nodes: 3,
        cores: 1,
        shards: 2,
        disk: DiskConfig::default(),
        network: NetworkConfig::reliable(100, 300),
        election: Duration::from_millis(200),
        lease_reads: false,
        snapshot_bytes_max: 1 << 20,
        snapshot_keep_entries: 1000,
        block_cache_bytes: 64 << 10,
        snapshots_at_once_max: 4,
        fetches_at_once_max: 1,
        scrub_bytes_per_s: 4 << 20,
        scrub_interval_s: 3600,
        planted: Options::default().planted,
    };
    let cluster = Cluster::new(&world, config);
    let story = Story { world, cluster };
    for (node, crash) in [(1, Crash::Process), (2, Crash::Power), (1, Crash::Power), (3, Crash::Process)] {
        let node = NodeId(node);
        story.cluster.boot(node);
        story.pass(Duration::from_millis(30 * u64::from(node.0)));
        story.cluster.crash(node, crash);
    }
    story.cluster.boot(NodeId(2));
    story.pass(Duration::from_secs(2));
    story.cluster.boot(NodeId(1));
    story.pass(Duration::from_secs(2));
    assert_eq!(
        story.leader(),
        None,
        "two of three new nodes do not vote: the third may hold what they do not know"
    );
    story.cluster.boot(NodeId(3));
    story.wait(|story| story.leader().is_some());
    assert!(matches!(story.append(NodeId(1), "begun"), Some(Ok(_))));
}

/// Another heartbeat than the 20 ms of the others.
const OTHER_HEARTBEAT_MS: Option<u64> = Some(40);

/// At a first start nobody may vote yet, and the node that differs is told by the majority, not by the first
/// that it meets; nor does it end a node that is right.
#[test]
fn of_three_new_nodes_the_one_that_differs_ends() {
    let story = Story::prepared(3, None);
    story.cluster.set_heartbeat_ms(NodeId(3), OTHER_HEARTBEAT_MS);
    story.boot(3);
    story.boot(1);
    assert_eq!([1, 3].map(|node| story.exit_code(node)), [None, None], "nobody knows which of two is wrong");
    story.boot(2);
    assert_eq!([1, 2, 3].map(|node| story.exit_code(node)), [None, None, Some(19)]);
    story.cluster.set_heartbeat_ms(NodeId(3), None);
    story.boot(3);
    story.wait(|story| story.leader().is_some());
    assert!(matches!(story.append(NodeId(3), "begun"), Some(Ok(_))));
}

/// There is no majority of two: both say what differs and wait to be corrected, whichever is.
#[test]
fn of_two_new_nodes_that_differ_none_ends() {
    let story = Story::prepared(2, None);
    story.cluster.set_heartbeat_ms(NodeId(2), OTHER_HEARTBEAT_MS);
    story.boot(1);
    story.boot(2);
    assert_eq!([1, 2].map(|node| story.exit_code(node)), [None, None]);
    assert_eq!(story.leader(), None, "they have not agreed on anything");
    story.cluster.crash(NodeId(2), Crash::Process);
    story.cluster.set_heartbeat_ms(NodeId(2), None);
    story.boot(2);
    assert!(story.leader().is_some());
}

/// A node that has voted and is started with other settings ends once the majority refuses it, not before;
/// the others serve on.
#[test]
fn a_node_restarted_with_other_settings_ends() {
    let story = Story::begin(None);
    story.cluster.crash(NodeId(3), Crash::Process);
    story.cluster.set_heartbeat_ms(NodeId(3), OTHER_HEARTBEAT_MS);
    story.cluster.partition(&[NodeId(3)], &[NodeId(2)]);
    story.boot(3);
    assert_eq!(story.exit_code(3), None, "one of two others may be wrong itself");
    story.cluster.heal_network();
    story.pass(Duration::from_secs(3));
    assert_eq!([1, 2, 3].map(|node| story.exit_code(node)), [None, None, Some(19)]);
    assert!(matches!(story.append(NodeId(1), "kept"), Some(Ok(_))), "two of three serve");
    story.cluster.set_heartbeat_ms(NodeId(3), None);
    story.boot(3);
    assert_eq!(story.exit_code(3), None);
    assert_eq!(story.value(NodeId(3)), Some(Bytes::from_static(b"kept")));
}

/// A new node that one node that may vote refuses is not of that cluster.
#[test]
fn a_new_node_that_differs_from_a_cluster_ends_with_the_first_refusal() {
    let story = Story::begin(None);
    story.cluster.crash(NodeId(3), Crash::Process);
    story.cluster.replace_data_dir(NodeId(3));
    story.cluster.set_heartbeat_ms(NodeId(3), OTHER_HEARTBEAT_MS);
    story.cluster.partition(&[NodeId(3)], &[NodeId(2)]);
    story.boot(3);
    assert_eq!([1, 2, 3].map(|node| story.exit_code(node)), [None, None, Some(19)]);
}

/// A follower is away while the log that it lacks is let go of. It comes back, also after a crash in the
/// middle of its way, and has it all.
#[test]
fn a_follower_behind_the_log_gets_the_table() {
    let story = with_small_tables();
    let leader = story.leader().expect("the story begins with a leader");
    let [away, _] = story.others(leader);
    story.cluster.crash(away, Crash::Power);
    for _ in 0..60 {
        assert!(matches!(story.append(leader, "0123456789"), Some(Ok(_))), "a majority is there");
    }
    let leading = || replica(&story, leader).expect("it runs");
    story.wait(|story| replica(story, leader).is_some_and(|replica| replica.snapshot_index.0 > 20));
    for ms in [1, 10, 40] {
        story.cluster.boot(away);
        story.pass(Duration::from_millis(ms));
        story.cluster.crash(away, Crash::Power);
    }
    story.cluster.boot(away);
    story.wait(|story| replica(story, away).is_some_and(|of| of.state_digest == leading().state_digest));
    let caught_up = replica(&story, away).expect("it runs");
    assert!(caught_up.snapshot_index.0 > 20, "it has the leader's table: {caught_up:?}");
    assert_eq!(caught_up.applied_index, leading().applied_index);
    // What it got counts: with the third node gone, it is one of two.
    let [_, third] = story.others(leader);
    let third = if third == away { story.others(leader)[0] } else { third };
    story.cluster.crash(third, Crash::Power);
    assert!(matches!(story.append(leader, "!"), Some(Ok(_))), "two of three are there");
    let wanted = format!("{}!", "0123456789".repeat(60));
    assert_eq!(story.value(leader).as_deref(), Some(wanted.as_bytes()));
}

/// A cluster whose nodes all lose power begins with its tables, and replays what the logs have beyond them.
#[test]
fn a_start_begins_with_the_tables() {
    let story = with_small_tables();
    let leader = story.leader().expect("the story begins with a leader");
    for _ in 0..60 {
        assert!(matches!(story.append(leader, "0123456789"), Some(Ok(_))), "all are there");
    }
    let has_table = |story: &Story, node| replica(story, node).is_some_and(|of| of.snapshot_index.0 > 20);
    story.wait(|story| story.cluster.nodes().into_iter().all(|node| has_table(story, node)));
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.crash(node, Crash::Power));
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.cluster.nodes().into_iter().all(|node| replica(story, node).is_some()));
    for node in story.cluster.nodes() {
        let began = replica(&story, node).expect("it runs");
        assert!(began.snapshot_index.0 > 20, "node {node} begins with its table: {began:?}");
    }
    story.wait(|story| story.leader().is_some());
    let leader = story.leader().expect("it was waited for");
    assert_eq!(story.value(leader).as_deref(), Some("0123456789".repeat(60).as_bytes()));
}

/// One shard of a lane is written to all the time, the other hardly ever. The quiet one must not keep the log
/// of the busy one.
#[test]
fn a_quiet_shard_does_not_hold_the_log() {
    let story = Story::prepared_with(3, None, |config| {
        config.shards = 2;
        config.snapshot_bytes_max = 20_000;
    });
    story.cluster.nodes().into_iter().for_each(|node| story.cluster.boot(node));
    story.wait(|story| story.leader().is_some());
    let leader = story.leader().expect("it was waited for");
    for _ in 0..400 {
        assert!(matches!(story.append(leader, "0123456789"), Some(Ok(_))), "all are there");
    }
    story.pass(Duration::from_secs(2));
    for (node, report) in story.cluster.reports() {
        let lane = report.lanes.first().expect("a node has a lane");
        assert!(lane.segments <= 6, "node {node} keeps {} segments", lane.segments);
    }
}
