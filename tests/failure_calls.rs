//! What clients are told when something goes wrong in a cluster of real processes: the rows of the table of
//! failures that a call can meet, each with its status and the reason in the trailer.
//!
//! What goes wrong at a start is in `start_failures.rs`, and what a failing disk does in `disk_faults.rs`.

mod processes;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use distribkv::client::Clerk;
use distribkv::wire::health::HealthCheckRequest;
use distribkv::wire::health::health_check_response::ServingStatus;
use distribkv::wire::v1::{self, Reason};
use futures_lite::stream;
use processes::{Cluster, PATIENCE, SHARDS, assert_refused, error_of, get, key_of, new_dir, put, within};
use tonic::{Code, Status};
use v1::operation::Operation as Op;
use v1::pipeline_response::Outcome;

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
    leaderless(&cluster, 2).await;
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

/// Waits until a node serves no more, and knows no leader of any shard: what a leader took in before it
/// stepped down may yet be applied.
async fn leaderless(cluster: &Cluster, id: u32) {
    let (mut health, mut client) = (cluster.node(id).health(), cluster.node(id).cluster());
    let begun = Instant::now();
    loop {
        let service = HealthCheckRequest { service: String::new() };
        let serving = health.check(service).await.expect("it answers").into_inner().status();
        let shards = client.shards(v1::ShardsRequest {}).await.expect("it answers").into_inner().shards;
        if serving == ServingStatus::NotServing && shards.iter().all(|shard| shard.leader == 0) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "node {id} follows {shards:?} without a quorum, {serving:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_write_whose_quorum_goes_silent_is_never_said_to_have_failed() {
    let cluster = Cluster::quick(3).await;
    let shard = cluster.shard_led_by(1).await;
    let keys: Vec<String> = (0..20).map(|number| key_of(shard, &format!("silent/{number}/"))).collect();
    let clerk = Clerk::connect([&cluster.node(1).address]).expect("an address");
    clerk.put(keys[0].clone(), "before").await.expect("it serves");
    for other in [2, 3] {
        cluster.node(other).process().signal("STOP");
    }
    let again = tokio::spawn({
        let (clerk, key) = (clerk.clone(), keys[0].clone());
        async move { clerk.append(key, "+").await }
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
    let shard = cluster.shard_led_by(1).await;
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
    let mut kv = cluster.node(1).kv();
    let stale = v1::GetRequest { consistency: v1::Consistency::Stale.into(), ..get("any") };
    kv.get(stale).await.expect("it answers, and the connection is there");
    let calls: Vec<_> = (0..60)
        .map(|number| {
            let (mut kv, write) = (kv.clone(), put(&format!("many/{number}"), "v"));
            tokio::spawn(async move { kv.put(within(Duration::from_secs(2), write)).await })
        })
        .collect();
    // The calls arrive late, as they do where the machine is busy: the node gives them up later than whoever
    // made them, who asks for more in between.
    cluster.node(1).process().signal("STOP");
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.node(1).process().signal("CONT");
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
    let refused = room_again(&cluster).await;
    println!("refused {} times before there was room again", refused.len());
}

/// Puts until there is room: a call keeps its place until the node's own deadline for it, which is later than
/// its caller's by the time that it took to arrive.
async fn room_again(cluster: &Cluster) -> Vec<Status> {
    let begun = Instant::now();
    let mut refused = Vec::new();
    while let Err(status) = cluster.node(1).kv().put(within(PATIENCE, put("many", "v"))).await {
        assert!(begun.elapsed() < PATIENCE, "there is no room again: {status}");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        refused.push(status);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    refused
}
