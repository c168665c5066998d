//! What clients are told when something goes wrong in a cluster of real processes: the rows of the table of
//! failures that a call can meet, each with its status and the reason in the trailer; and the starts that
//! `failures.rs` leaves out.
//!
//! Not provoked here: a failed batch write and a denied io_uring need a broken disk and another kernel
//! setting; the first is the simulator's.

mod processes;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use distribkv::client::{Clerk, Options};
use distribkv::wire::health::HealthCheckRequest;
use distribkv::wire::health::health_check_response::ServingStatus;
use distribkv::wire::v1::{self, Reason};
use futures_lite::stream;
use processes::load::Load;
use processes::{
    Cluster, Ended, PATIENCE, Process, SHARDS, assert_refused, error_of, get, key_of, new_dir, put, within,
};
use tonic::{Code, Status};
use v1::operation::Operation as Op;
use v1::pipeline_response::Outcome;

const BLOCK: usize = 4096;

fn operation(key: &str) -> v1::Operation {
    v1::Operation { operation: Some(Op::Put(put(key, "v"))) }
}

fn txn(keys: &[String]) -> v1::TxnRequest {
    v1::TxnRequest { then: keys.iter().map(|key| operation(key)).collect(), ..v1::TxnRequest::default() }
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_refused_and_named_through_every_node() {
    let cluster = Cluster::quick(3).await;
    let limit = (Code::InvalidArgument, Reason::Limit);
    for node in &cluster.nodes {
        let mut kv = node.kv();
        assert_refused(kv.put(put("", "v")).await, limit);
        assert_refused(kv.get(get("")).await, limit);
        kv.put(put(&"k".repeat(4096), "v")).await.expect("the longest key");
        let status = assert_refused(kv.put(put(&"k".repeat(4097), "v")).await, limit);
        assert!(status.message().contains("4096"), "the limit is named: {status}");
        kv.put(put("{s}large", vec![7; 1 << 20])).await.expect("the largest value");
        let status = assert_refused(kv.put(put("{s}large", vec![7; (1 << 20) + 1])).await, limit);
        assert!(status.message().contains("1048576"), "the limit is named: {status}");
        let status = assert_refused(kv.put(put("{s}large", vec![7; 5 << 20])).await, limit);
        assert!(status.message().contains("4194304"), "the message's limit is named: {status}");
        let more =
            v1::AppendRequest { key: "{s}large".into(), value: "v".into(), ..v1::AppendRequest::default() };
        assert_refused(kv.append(more).await, (Code::FailedPrecondition, Reason::Limit));
        let keys: Vec<String> = (0..129).map(|number| format!("{{t}}{number}")).collect();
        kv.txn(txn(&keys[..128])).await.expect("as many operations as there may be");
        let status = assert_refused(kv.txn(txn(&keys)).await, limit);
        assert!(status.message().contains("128"), "the limit is named: {status}");
        let keys = [key_of(1, "cross/"), key_of(2, "cross/")];
        let status = assert_refused(kv.txn(txn(&keys)).await, (Code::InvalidArgument, Reason::CrossShard));
        let names = |word: &str| status.message().contains(word);
        assert!(names(&keys[0]) && names(&keys[1]) && names("{"), "keys and the hint: {status}");
        // Nothing of it was executed.
        assert_eq!(kv.get(get(&keys[0])).await.expect("it serves").into_inner().kv, None);
    }
}

#[tokio::test]
async fn no_leader_in_time_is_not_executed_and_said_before_the_deadline() {
    let mut cluster = Cluster::quick(3).await;
    cluster.kill(1);
    cluster.kill(3);
    not_serving(&cluster, 2).await;
    let limit = Duration::from_secs(2);
    let refusal = (Code::Unavailable, Reason::NoLeader);
    for shard in [0, SHARDS - 1] {
        let (mut kv, key) = (cluster.node(2).kv(), key_of(shard, "nobody/"));
        let begun = Instant::now();
        // tonic's client gives up at the deadline by itself: that the node is heard shows that it was before.
        assert_refused(kv.put(within(limit, put(&key, "v"))).await, refusal);
        println!("NO_LEADER was said {:?} before the deadline", limit.saturating_sub(begun.elapsed()));
        assert!(begun.elapsed() > limit / 2, "it kept looking: {:?}", begun.elapsed());
        assert_refused(kv.get(within(limit / 4, get(&key))).await, refusal);
    }
    cluster.start(1);
    let key = key_of(0, "nobody/");
    cluster.node(2).kv().put(within(PATIENCE, put(&key, "v"))).await.expect("a call waits for a quorum");
    let read = cluster.node(1).kv().get(get(&key)).await.expect("it serves").into_inner().kv;
    assert_eq!(read.map(|kv| kv.version), Some(1), "those that were refused were not executed");
}

async fn not_serving(cluster: &Cluster, id: u32) {
    let (mut health, begun) = (cluster.node(id).health(), Instant::now());
    let service = HealthCheckRequest { service: String::new() };
    while health.check(service.clone()).await.expect("it answers").into_inner().status()
        != ServingStatus::NotServing
    {
        assert!(begun.elapsed() < PATIENCE, "node {id} serves without a quorum");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A shard that a node leads.
async fn shard_led_by(cluster: &Cluster, id: u32) -> u32 {
    let begun = Instant::now();
    loop {
        let leaders = cluster.leaders(id).await;
        if let Some(shard) = (0..SHARDS).find(|shard| leaders[*shard as usize] == id) {
            return shard;
        }
        let move_one = v1::TransferLeadershipRequest { shard: 0, to: id };
        let moved = cluster.node(id).maintenance().transfer_leadership(move_one).await;
        assert!(begun.elapsed() < PATIENCE, "node {id} leads nothing: {moved:?}");
    }
}

#[tokio::test]
async fn a_write_whose_quorum_goes_silent_is_never_said_to_have_failed() {
    let cluster = Cluster::quick(3).await;
    let shard = shard_led_by(&cluster, 1).await;
    let keys: Vec<String> = (0..20).map(|number| key_of(shard, &format!("silent/{number}/"))).collect();
    let clerk =
        Clerk::connect(vec![cluster.node(1).address.clone()], Options::default()).expect("an address");
    clerk.put(put(&keys[0], "before")).await.expect("it serves");
    for other in [2, 3] {
        cluster.node(other).process().signal("STOP");
    }
    let again = tokio::spawn({
        let (clerk, key) = (clerk.clone(), keys[0].clone());
        let more = v1::AppendRequest { key: key.into(), value: "+".into(), ..v1::AppendRequest::default() };
        async move { clerk.append(more).await }
    });
    let limit = Duration::from_secs(1);
    let requests: Vec<v1::PipelineRequest> = (1u64..)
        .zip(&keys[1..])
        .map(|(tag, key)| v1::PipelineRequest { tag, operation: Some(operation(key)) })
        .collect();
    // The deadline of a stream's operations is the node's alone to keep: tonic looks at its headers only.
    let answers = cluster.node(1).kv().pipeline(within(limit, stream::iter(requests))).await;
    let mut answers = answers.expect("the stream begins").into_inner();
    let mut told = BTreeMap::new();
    while let Ok(Some(answer)) = answers.message().await {
        told.insert(answer.tag, answer.outcome.expect("each answer has one"));
    }
    println!("silent followers: {:?}", told.values().next());
    for (tag, outcome) in &told {
        let Outcome::Error(error) = outcome else { panic!("operation {tag} without a quorum: {outcome:?}") };
        assert!(may_be_said(error), "operation {tag}: {error:?}");
    }
    let unary = cluster.node(1).kv().put(within(limit, put(&keys[0], "x"))).await;
    println!("one call: {:?}", unary.expect_err("there is no quorum").code());
    for other in [2, 3] {
        cluster.node(other).process().signal("CONT");
    }
    let done = again.await.expect("no panic").expect("the Clerk asks until it knows");
    assert!(done.succeeded);
    cluster.digests_agree().await;
    for (tag, key) in (1u64..).zip(&keys[1..]) {
        let is_there = cluster.node(2).kv().get(get(key)).await.expect("it serves").into_inner().kv.is_some();
        let was_refused = |outcome: &Outcome| matches!(outcome, Outcome::Error(error) if error.code == 14);
        let is_excluded = told.get(&tag).is_some_and(was_refused);
        assert!(!(is_there && is_excluded), "operation {tag} was said not to be executed, and was");
    }
}

/// What may be said of a proposal that has left: the outcome is not known. What has not left is UNAVAILABLE.
fn may_be_said(error: &v1::Error) -> bool {
    let is_open = [Code::Unknown as i32, Code::DeadlineExceeded as i32].contains(&error.code)
        && error.reason() == Reason::OutcomeUnknown;
    let not_sent = [Reason::NoLeader, Reason::NotLeader].contains(&error.reason());
    is_open || (error.code == Code::Unavailable as i32 && not_sent)
}

#[tokio::test]
async fn the_leader_killed_with_a_write_in_flight_leaves_its_outcome_open() {
    let mut cluster = Cluster::quick(3).await;
    let shard = shard_led_by(&cluster, 1).await;
    let key = key_of(shard, "in-flight/");
    // The followers are silent, so that the proposal cannot commit before its leader is gone.
    cluster.node(3).process().signal("STOP");
    cluster.node(2).process().signal("STOP");
    let direct = tokio::spawn({
        let (mut kv, write) = (cluster.node(1).kv(), put(&key, "direct"));
        async move { kv.put(write).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.kill(1);
    let status: Status = direct.await.expect("no panic").expect_err("its node is gone");
    assert_ne!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.metadata().get_bin("distribkv-error-bin").is_none(), "nobody of ours said it: {status}");
    cluster.node(2).process().signal("CONT");
    cluster.node(3).process().signal("CONT");
    // Through another node, while the leader is away: no leader yet, or the new one's answer.
    cluster.node(2).kv().put(within(PATIENCE, put(&key, "after"))).await.expect("two of three are a quorum");
}

#[tokio::test]
async fn more_calls_than_a_node_may_hold_are_refused_at_once() {
    let dir = new_dir();
    let file = dir.path().join("small.toml");
    fs::write(&file, "[node]\ncalls_max = 16\n").expect("the directory is ours");
    let file = file.to_string_lossy().into_owned();
    let mut cluster = Cluster::new(3, &["--config", &file]);
    cluster.start_all().await;
    for other in [2, 3] {
        cluster.node(other).process().signal("STOP");
    }
    let kv = cluster.node(1).kv();
    let calls: Vec<_> = (0..60)
        .map(|number| {
            let (mut kv, write) = (kv.clone(), put(&format!("many/{number}"), "v"));
            tokio::spawn(async move { kv.put(within(Duration::from_secs(2), write)).await })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        let status = call.await.expect("no panic").expect_err("there is no quorum");
        if status.code() == Code::ResourceExhausted {
            assert_eq!(error_of(&status).reason(), Reason::Overloaded, "{status}");
            refused += 1;
        }
    }
    assert_eq!(refused, 60 - 16, "all but those that it may hold");
    for other in [2, 3] {
        cluster.node(other).process().signal("CONT");
    }
    cluster.node(1).kv().put(within(PATIENCE, put("many", "v"))).await.expect("there is room again");
}

/// Runs a node to its end.
async fn run(command: std::process::Command) -> Ended {
    Process::start(command).ended().await
}

fn assert_ends(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.said);
    let last = ended.said.lines().filter(|line| line.starts_with("kvserver: ")).collect::<Vec<_>>();
    let [line] = last[..] else { panic!("one clear line: {}", ended.said) };
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

/// A file of settings that no other node has.
fn other_settings(cluster: &Cluster) -> PathBuf {
    let file = cluster.dir().join("other.toml");
    fs::write(&file, "[cluster]\nlease_reads = true\n").expect("the directory is ours");
    file
}

#[tokio::test]
async fn a_node_that_differs_from_its_peers_is_refused_with_the_difference() {
    let mut cluster = Cluster::quick(3).await;
    assert_eq!(cluster.terminate(3).await.code, Some(0));
    let file = other_settings(&cluster);
    // One that has voted before keeps asking: its peers may be the ones to be corrected.
    let mut differs = cluster.command(3);
    let mut differing = Process::start({
        differs.arg("--config").arg(&file);
        differs
    });
    let refused = differing.says("ERROR").await;
    assert!(refused.contains("refused: ") && refused.contains("--election-timeout-ms"), "{refused}");
    cluster.node(1).kv().put(put("k", "v")).await.expect("the others serve");
    differing.signal("TERM");
    assert_eq!(differing.ended().await.code, Some(0), "it ends as asked all the same");
    // One that may not vote yet ends.
    let other = cluster.dir().join("other");
    let mut new = cluster.bare_command(3);
    new.arg("--data-dir").arg(&other).arg("--config").arg(&file);
    assert_ends(&run(new).await, 19, &["settings", "--election-timeout-ms"]);
    fs::remove_dir_all(&other).expect("it was made");
    let mut new = cluster.bare_command(3);
    new.arg("--data-dir").arg(&other).args(["--shards", "16"]);
    assert_ends(&run(new).await, 19, &["cluster", "--shards"]);
    cluster.start_all().await;
    cluster.digests_agree().await;
}

#[tokio::test]
async fn a_first_start_with_one_that_differs_ends_and_says_why() {
    let mut cluster = Cluster::new(3, &["--election-timeout-ms", "300", "--heartbeat-ms", "30"]);
    let file = other_settings(&cluster);
    cluster.start(1);
    cluster.start(2);
    let mut differs = cluster.command(3);
    let differing = Process::start({
        differs.arg("--config").arg(&file);
        differs
    });
    cluster.nodes[2].process = Some(differing);
    // Who hears of it first is refused first; nobody knows which of them is right.
    let begun = Instant::now();
    let ended = loop {
        let processes = cluster.nodes.iter_mut().filter_map(|node| node.process.as_mut());
        if let Some(process) =
            processes.into_iter().find_map(|process| process.has_ended().then_some(process))
        {
            break process.ended().await;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody is refused");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_ends(&ended, 19, &["settings", "--election-timeout-ms"]);
    for node in &cluster.nodes {
        let said = node.process().said().join("\n");
        assert!(!said.contains("kvserver ready"), "node {} serves in a cluster that differs", node.id);
    }
    // Once all agree, what was begun goes on.
    for node in &mut cluster.nodes {
        node.process = None;
    }
    fs::remove_dir_all(&cluster.node(3).data_dir).expect("it was made");
    cluster.start_all().await;
    cluster.node(3).kv().put(put("k", "v")).await.expect("it serves");
}

#[tokio::test]
async fn a_directory_of_another_node_or_cluster_is_not_used() {
    let mut cluster = Cluster::quick(3).await;
    let address = cluster.node(2).address.clone();
    assert_eq!(cluster.terminate(1).await.code, Some(0));
    assert_eq!(cluster.terminate(2).await.code, Some(0));
    let mut wrong = cluster.bare_command(2);
    wrong.arg("--data-dir").arg(&cluster.node(1).data_dir);
    assert_ends(&run(wrong).await, 15, &["node-1", "it belongs to node 1, not to node 2"]);
    let mut wrong = cluster.command(2);
    wrong.args(["--cluster-name", "other"]);
    assert_ends(&run(wrong).await, 15, &["node-2", "cluster"]);
    let mut wrong = cluster.command(2);
    wrong.args(["--shards", "4"]);
    assert_ends(&run(wrong).await, 15, &["shards"]);
    cluster.start_all().await;
    assert_eq!(cluster.node(2).address, address);
    cluster.node(2).kv().put(put("k", "v")).await.expect("it serves as before");
}

/// The log files of a node, in their order.
fn segments(cluster: &Cluster, id: u32) -> Vec<PathBuf> {
    let lane = cluster.node(id).data_dir.join("lane-0");
    let entries = fs::read_dir(lane).expect("the lane is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut segments: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    segments.sort();
    segments
}

fn bytes_at(path: &PathBuf, at: u64, length: usize) -> Vec<u8> {
    let mut file = fs::File::open(path).expect("it is there");
    file.seek(SeekFrom::Start(at)).expect("it is a file");
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).expect("it is so long");
    bytes
}

fn overwrite(path: &PathBuf, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
    file.seek(SeekFrom::Start(at)).expect("it is a file");
    file.write_all(bytes).expect("it can be written");
    file.sync_all().expect("it can be synced");
}

#[tokio::test]
async fn every_kind_of_damage_stops_the_start_and_changes_nothing() {
    let mut cluster = Cluster::quick(1).await;
    for number in 0..100 {
        cluster.node(1).kv().put(put(&format!("k{number}"), "v")).await.expect("it serves");
    }
    assert_eq!(cluster.terminate(1).await.code, Some(0));
    let first = segments(&cluster, 1)[0].clone();
    let name = first.file_name().expect("it has one").to_string_lossy().into_owned();
    // A segment's header, a batch's header, its checksum, a record in it, and a later batch.
    for at in [0, BLOCK + 24, BLOCK + 48, BLOCK + 60, 20 * BLOCK + 8] {
        let good = bytes_at(&first, at as u64, 1);
        overwrite(&first, at as u64, &[good[0] ^ 0x10]);
        let before = fs::read(&first).expect("it is there");
        let block = (at / BLOCK * BLOCK).to_string();
        let place = format!("damaged at byte {block}");
        assert_ends(&run(cluster.command(1)).await, 17, &[&name, &place, "nothing was changed"]);
        assert!(fs::read(&first).expect("it is there") == before, "nothing was changed by byte {at}");
        overwrite(&first, at as u64, &good);
    }
    cluster.start_all().await;
    let read = cluster.node(1).kv().get(get("k99")).await.expect("it serves").into_inner().kv;
    assert_eq!(read.map(|kv| kv.value), Some("v".into()));
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_what_was_acknowledged_is_kept() {
    let mut cluster = Cluster::quick(1).await;
    let mut acknowledged = 0;
    for round in 0..3 {
        for _ in 0..20 {
            cluster.node(1).kv().put(put(&format!("k{acknowledged}"), "v")).await.expect("it serves");
            acknowledged += 1;
        }
        let writes = tokio::spawn({
            let mut kv = cluster.node(1).kv();
            async move { while kv.put(put("more", vec![1; 50_000])).await.is_ok() {} }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.kill(1);
        writes.await.expect("it ends with its node");
        tear(&cluster);
        cluster.start_all().await;
        let said = cluster.node(1).process().said().join("\n");
        assert!(said.contains("torn tail cut"), "round {round}:\n{said}");
        for number in 0..acknowledged {
            let read = cluster.node(1).kv().get(get(&format!("k{number}"))).await.expect("it serves");
            assert!(read.into_inner().kv.is_some(), "round {round}: k{number} was acknowledged");
        }
    }
}

/// Leaves a piece of a batch after the last one, as a power cut in a write does: its first block alone.
fn tear(cluster: &Cluster) {
    let used = |path: &PathBuf| bytes_at(path, BLOCK as u64, BLOCK).iter().any(|byte| *byte != 0);
    let last = segments(cluster, 1).into_iter().rfind(used).expect("something was written");
    let bytes = fs::read(&last).expect("it is there");
    let mut blocks = bytes.chunks(BLOCK);
    let end = blocks.rposition(|block| block.iter().any(|byte| *byte != 0)).expect("it has a header") + 1;
    let mut piece = bytes[BLOCK..2 * BLOCK].to_vec();
    // Its number: with another one the checksum is wrong, as it is where the rest did not arrive.
    piece[24] ^= 0xff;
    assert!((end + 1) * BLOCK <= bytes.len(), "{} is full", last.display());
    overwrite(&last, (end * BLOCK) as u64, &piece);
}

#[tokio::test]
async fn a_node_killed_under_load_starts_again_with_what_is_there() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut cluster = Cluster::quick(3).await;
            let load = Load::start(cluster.addresses(), 6);
            for id in [3, 2, 1] {
                load.goes_on(300).await;
                cluster.kill(id);
                cluster.start(id);
                cluster.ready(id).await;
            }
            println!("{:?}", load.stop_and_check().await);
            cluster.digests_agree().await;
        })
        .await;
}
