//! Every method through every node of three real processes, as a client of another make sees them.
//!
//! What is refused is in `failure_calls.rs`; what holds while nodes are killed is in `cluster.rs` and
//! `chaos.rs`.

mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use distribkv::wire::health::health_check_response::ServingStatus;
use distribkv::wire::health::{HealthCheckRequest, HealthListRequest};
use distribkv::wire::{reflection, reflection_alpha, v1};
use futures_lite::stream;
use processes::{Cluster, Node, PATIENCE, SHARDS, error_of, get, key_of, put, within};
use tonic::{Code, Streaming};
use v1::condition::{Comparison, Target};
use v1::operation::Operation as Op;
use v1::operation_result::Result as OpResult;
use v1::pipeline_response::Outcome;

fn append(key: &str, value: &str) -> v1::AppendRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    v1::AppendRequest { key, value, ..v1::AppendRequest::default() }
}

fn delete(key: &str) -> v1::DeleteRequest {
    v1::DeleteRequest { key: key.to_owned().into(), ..v1::DeleteRequest::default() }
}

fn operation(operation: Op) -> v1::Operation {
    v1::Operation { operation: Some(operation) }
}

fn scan(start: &str, end: &str) -> v1::ScanRequest {
    v1::ScanRequest {
        start: start.to_owned().into(),
        end: end.to_owned().into(),
        ..v1::ScanRequest::default()
    }
}

/// All messages of a stream.
async fn all<T>(mut stream: Streaming<T>) -> Vec<T> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.expect("the stream ends well") {
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn keys_are_written_and_read_through_every_node() {
    let cluster = Cluster::quick(3).await;
    for node in &cluster.nodes {
        for shard in 0..SHARDS {
            write_and_read(node, &cluster.nodes, shard).await;
            compare_and_swap(node, shard).await;
            transact(node, shard).await;
        }
    }
}

async fn write_and_read(node: &Node, all: &[Node], shard: u32) {
    let (mut kv, key) = (node.kv(), key_of(shard, &format!("kv/{}/", node.id)));
    let created = kv.put(put(&key, "one")).await.expect("it serves").into_inner();
    let header = created.header.expect("every answer has one");
    assert_eq!((created.succeeded, created.version, header.shard), (true, 1, shard));
    assert!(header.node_id > 0 && header.term > 0 && header.cluster_id != 0, "{header:?}");
    let again = v1::PutRequest { return_previous: true, ..put(&key, "two") };
    let again = kv.put(again).await.expect("it serves").into_inner();
    assert_eq!(again.previous.map(|kv| kv.value), Some("one".into()));
    assert_eq!(again.header.expect("every answer has one").revision, header.revision + 1);
    let longer = kv.append(append(&key, "+three")).await.expect("it serves").into_inner();
    assert_eq!((longer.succeeded, longer.length, longer.version), (true, 9, 3));
    for other in all {
        let read = other.kv().get(get(&key)).await.expect("it serves").into_inner().kv.expect("it is there");
        assert_eq!((&read.value[..], read.version), (&b"two+three"[..], 3), "through node {}", other.id);
        assert_eq!((read.create_revision, read.mod_revision), (header.revision, header.revision + 2));
    }
    let gone = v1::DeleteRequest { return_previous: true, ..delete(&key) };
    let gone = kv.delete(gone).await.expect("it serves").into_inner();
    assert!(gone.succeeded && gone.existed && gone.previous.is_some_and(|kv| kv.version == 3));
    assert_eq!(kv.get(get(&key)).await.expect("it serves").into_inner().kv, None);
    assert!(!kv.delete(delete(&key)).await.expect("it serves").into_inner().existed);
}

async fn compare_and_swap(node: &Node, shard: u32) {
    let (mut kv, key) = (node.kv(), key_of(shard, &format!("cas/{}/", node.id)));
    let swap = |revision, value| v1::PutRequest { if_mod_revision: Some(revision), ..put(&key, value) };
    let made = kv.put(swap(0, "a")).await.expect("it serves").into_inner();
    assert!(made.succeeded, "there was no such key");
    let revision = made.header.expect("every answer has one").revision;
    let late = kv.put(swap(0, "b")).await.expect("it serves").into_inner();
    assert!(!late.succeeded, "there is such a key now");
    assert_eq!(late.previous.map(|kv| kv.value), Some("a".into()), "what stood in the way");
    assert!(kv.put(swap(revision, "c")).await.expect("it serves").into_inner().succeeded);
    assert!(!kv.put(swap(revision, "d")).await.expect("it serves").into_inner().succeeded);
    let stale = v1::AppendRequest { if_mod_revision: Some(revision), ..append(&key, "e") };
    assert!(!kv.append(stale).await.expect("it serves").into_inner().succeeded);
    let stale = v1::DeleteRequest { if_mod_revision: Some(revision), ..delete(&key) };
    assert!(!kv.delete(stale).await.expect("it serves").into_inner().succeeded);
    let now = v1::DeleteRequest { if_mod_revision: Some(revision + 1), ..delete(&key) };
    assert!(kv.delete(now).await.expect("it serves").into_inner().succeeded);
}

async fn transact(node: &Node, shard: u32) {
    let tag = key_of(shard, "t");
    let key = |name: &str| format!("{{{tag}}}/{}/{name}", node.id);
    let is_missing = v1::Condition {
        key: key("a").into(),
        comparison: Comparison::Equal as i32,
        target: Some(Target::Version(0)),
    };
    let txn = v1::TxnRequest {
        conditions: vec![is_missing],
        then: vec![
            operation(Op::Put(put(&key("a"), "1"))),
            operation(Op::Append(append(&key("b"), "2"))),
            operation(Op::Get(get(&key("a")))),
        ],
        otherwise: vec![operation(Op::Get(get(&key("b")))), operation(Op::Delete(delete(&key("b"))))],
        ..v1::TxnRequest::default()
    };
    let mut kv = node.kv();
    let first = kv.txn(txn.clone()).await.expect("it serves").into_inner();
    assert!(first.succeeded && first.results.len() == 3, "{first:?}");
    let Some(OpResult::Get(read)) = &first.results[2].result else { panic!("{first:?}") };
    assert_eq!(read.kv.as_ref().map(|kv| &kv.value[..]), Some(&b"1"[..]), "it sees those before it");
    let second = kv.txn(txn).await.expect("it serves").into_inner();
    assert!(!second.succeeded && second.results.len() == 2, "{second:?}");
    let Some(OpResult::Delete(gone)) = &second.results[1].result else { panic!("{second:?}") };
    assert!(gone.existed);
}

#[tokio::test]
async fn a_scan_is_in_order_over_all_shards_and_in_pages() {
    let cluster = Cluster::quick(3).await;
    let key = |number: u32| format!("scan/{number:03}");
    let value = |number: u32| vec![number as u8; 64 << 10];
    for number in 0..60 {
        let node = &cluster.nodes[number as usize % 3];
        node.kv().put(put(&key(number), value(number))).await.expect("it serves");
    }
    for node in &cluster.nodes {
        let answer = node.kv().scan(scan("scan/", "scan0")).await.expect("it serves");
        let pages = all(answer.into_inner()).await;
        assert!(pages.len() >= 3, "3.75 MB in {} pages", pages.len());
        let shards: BTreeSet<u32> =
            pages.iter().flat_map(|page| &page.headers).map(|one| one.shard).collect();
        assert_eq!(shards.len(), SHARDS as usize, "every shard was read");
        let found: Vec<_> = pages.into_iter().flat_map(|page| page.kvs).collect();
        let expected: Vec<_> = (0..60).map(|number| (key(number), value(number))).collect();
        assert!(
            found
                .iter()
                .map(|kv| (&kv.key[..], &kv.value[..]))
                .eq(expected.iter().map(|(key, value)| (key.as_bytes(), &value[..]))),
            "through node {}: {:?}",
            node.id,
            found.iter().map(|kv| &kv.key).collect::<Vec<_>>()
        );
        let some = v1::ScanRequest { limit: 7, keys_only: true, ..scan("scan/010", "") };
        let pages = all(node.kv().scan(some).await.expect("it serves").into_inner()).await;
        let found: Vec<_> = pages.into_iter().flat_map(|page| page.kvs).collect();
        assert_eq!(found.len(), 7);
        assert!(found.iter().zip(10..).all(|(kv, number)| kv.key == key(number) && kv.value.is_empty()));
        let none = all(node.kv().scan(scan("scan0", "scan1")).await.expect("it serves").into_inner()).await;
        assert_eq!(none.iter().map(|page| page.kvs.len()).sum::<usize>(), 0);
    }
}

#[tokio::test]
async fn a_pipeline_takes_effect_in_the_order_sent() {
    const EACH: u64 = 100;
    let cluster = Cluster::quick(3).await;
    for node in &cluster.nodes {
        let keys: Vec<String> =
            (0..SHARDS).map(|shard| key_of(shard, &format!("pipe/{}/", node.id))).collect();
        // Each shard in turn: an append, and a read that has to see it and none of those after it.
        let steps = (0..EACH).flat_map(|step| keys.iter().enumerate().map(move |(at, key)| (step, at, key)));
        let requests: Vec<v1::PipelineRequest> = steps
            .flat_map(|(step, at, key)| {
                let tag = (step * u64::from(SHARDS) + at as u64) * 2;
                let one = operation(Op::Append(append(key, "x")));
                let two = operation(Op::Get(get(key)));
                let request = |tag, operation| v1::PipelineRequest { tag, operation: Some(operation) };
                [request(tag, one), request(tag + 1, two)]
            })
            .collect();
        let count = requests.len();
        let answers = node.kv().pipeline(stream::iter(requests)).await.expect("it serves").into_inner();
        let answers: BTreeMap<u64, Option<Outcome>> =
            all(answers).await.into_iter().map(|answer| (answer.tag, answer.outcome)).collect();
        assert_eq!(answers.len(), count, "each tag is answered");
        for (tag, outcome) in answers {
            let step = tag / 2 / u64::from(SHARDS);
            let length = match outcome {
                Some(Outcome::Result(v1::OperationResult { result: Some(OpResult::Append(done)) })) => {
                    done.length
                }
                Some(Outcome::Result(v1::OperationResult { result: Some(OpResult::Get(read)) })) => {
                    read.kv.expect("it was appended to").value.len() as u64
                }
                other => panic!("tag {tag}: {other:?}"),
            };
            assert_eq!(length, step + 1, "tag {tag} through node {}", node.id);
        }
    }
}

#[tokio::test]
async fn a_resend_through_another_node_gets_the_first_answer() {
    let cluster = Cluster::quick(3).await;
    for (node, other) in [(1, 2), (2, 3), (3, 1)].map(|(one, two)| (cluster.node(one), cluster.node(two))) {
        let key = key_of(node.id, &format!("session/{}/", node.id));
        let open = v1::OpenSessionRequest { ttl_ms: 30_000, key: key.clone().into() };
        let opened = node.sessions().open(open).await.expect("it serves").into_inner();
        assert_eq!((opened.ttl_ms, opened.shard), (30_000, node.id));
        let session = opened.session;
        let id = |sequence, acknowledged| Some(v1::RequestId { session, sequence, acknowledged });
        let first = v1::AppendRequest { id: id(1, 0), ..append(&key, "once") };
        let answer = node.kv().append(first.clone()).await.expect("it serves").into_inner();
        let again = other.kv().append(first.clone()).await.expect("it serves").into_inner();
        assert_eq!((again.length, again.version), (answer.length, answer.version));
        let revision = |header: Option<v1::ResponseHeader>| header.map(|header| header.revision);
        assert_eq!(revision(again.header), revision(answer.header), "a resend: as the first answer");
        let reused = v1::AppendRequest { id: id(1, 0), ..append(&key, "other") };
        refused(other.kv().append(reused).await, v1::Reason::SequenceReused);
        let next = v1::AppendRequest { id: id(2, 1), ..append(&key, "+") };
        other.kv().append(next).await.expect("it serves");
        refused(node.kv().append(first).await, v1::Reason::SequenceForgotten);
        let alive = v1::KeepAliveRequest { session, acknowledged: 2 };
        assert_eq!(other.sessions().keep_alive(alive).await.expect("it serves").into_inner().ttl_ms, 30_000);
        other.sessions().close(v1::CloseSessionRequest { session }).await.expect("it serves");
        refused(node.sessions().keep_alive(alive).await, v1::Reason::SessionExpired);
        let late = v1::AppendRequest { id: id(3, 2), ..append(&key, "late") };
        refused(node.kv().append(late).await, v1::Reason::SessionExpired);
        let read = other.kv().get(get(&key)).await.expect("it serves").into_inner().kv.expect("it is there");
        assert_eq!(read.value, "once+", "each was applied once");
    }
}

#[tokio::test]
async fn an_idle_session_ends_by_itself() {
    let cluster = Cluster::quick(3).await;
    let mut sessions = cluster.node(2).sessions();
    let open = v1::OpenSessionRequest { ttl_ms: 1000, key: "k".into() };
    let session = sessions.open(open).await.expect("it serves").into_inner().session;
    let begun = std::time::Instant::now();
    let id = |sequence| Some(v1::RequestId { session, sequence, acknowledged: sequence - 1 });
    for sequence in 1.. {
        // Ever longer pauses, so that one is too long at last.
        let write = v1::PutRequest { id: id(sequence), ..put("k", "v") };
        match cluster.node(1).kv().put(write).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(error_of(&status).reason(), v1::Reason::SessionExpired, "{status}");
                break;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "the session does not end");
        tokio::time::sleep(Duration::from_millis(500 * sequence)).await;
    }
    let too_long = v1::OpenSessionRequest { ttl_ms: 3_600_001, key: "k".into() };
    let status = sessions.open(too_long).await.expect_err("an hour at most");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

fn refused<T: std::fmt::Debug>(outcome: Result<tonic::Response<T>, tonic::Status>, reason: v1::Reason) {
    processes::assert_refused(outcome, (Code::FailedPrecondition, reason));
}

#[tokio::test]
async fn leadership_moves_when_asked_and_everyone_hears_of_it() {
    let cluster = Cluster::quick(3).await;
    for node in &cluster.nodes {
        let status = node.cluster().status(v1::StatusRequest {}).await.expect("it serves").into_inner();
        assert_eq!((status.node_id, status.replicas.len()), (node.id, SHARDS as usize));
        assert!(!status.version.is_empty() && !status.lanes.is_empty());
        assert!(status.lanes.iter().all(|lane| !lane.poisoned && !lane.disk_full && lane.segments > 0));
        let table = node.cluster().shards(v1::ShardsRequest {}).await.expect("it serves").into_inner();
        let known: Vec<_> = table.nodes.iter().map(|node| node.address.clone()).collect();
        assert_eq!(known, cluster.addresses());
        let slots: u32 = table.shards.iter().map(|shard| shard.last_slot - shard.first_slot + 1).sum();
        assert_eq!((slots, table.shards.len()), (16_384, SHARDS as usize));
        assert!(table.shards.iter().all(|shard| shard.voters == [1, 2, 3]));
        for shard in 0..SHARDS {
            let to = (node.id + shard) % 3 + 1;
            move_leader(&cluster, node, (shard, to)).await;
        }
    }
    let best = v1::TransferLeadershipRequest { shard: 0, to: 0 };
    let before = cluster.leaders(1).await[0];
    let answer = cluster.node(1).maintenance().transfer_leadership(best).await.expect("it serves");
    assert_ne!(answer.into_inner().leader, before, "the best follower");
    let nowhere = v1::TransferLeadershipRequest { shard: SHARDS, to: 1 };
    let status = cluster.node(1).maintenance().transfer_leadership(nowhere).await.expect_err("no such shard");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

/// Asks through one node until it is so: right after another election a transfer may be refused.
async fn move_leader(cluster: &Cluster, through: &Node, (shard, to): (u32, u32)) {
    let begun = std::time::Instant::now();
    loop {
        let request = v1::TransferLeadershipRequest { shard, to };
        match through.maintenance().transfer_leadership(request).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().leader, to);
                break;
            }
            Err(status) => assert!(begun.elapsed() < PATIENCE, "shard {shard} to node {to}: {status:?}"),
        }
    }
    for node in &cluster.nodes {
        while cluster.leaders(node.id).await[shard as usize] != to {
            assert!(begun.elapsed() < PATIENCE, "node {} does not hear who leads {shard}", node.id);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The new leader serves, whoever is asked.
        let key = key_of(shard, "moved/");
        let answer = node.kv().put(put(&key, "v")).await.expect("it serves").into_inner();
        assert_eq!(answer.header.expect("every answer has one").node_id, to);
    }
}

/// The first status on a Watch that is as wanted.
async fn until(watch: &mut Streaming<distribkv::wire::health::HealthCheckResponse>, wanted: ServingStatus) {
    let wait = async {
        loop {
            let message = watch.message().await.expect("the watch goes on");
            let status = message.expect("the watch does not end").status();
            if status == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{wanted:?} does not come"));
}

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.to_owned() }
}

#[tokio::test]
async fn health_follows_the_quorum() {
    let mut cluster = Cluster::quick(3).await;
    let names = ["", "distribkv.v1.KV", "distribkv.v1.Session", "distribkv.v1.Cluster", "shard/0", "shard/7"];
    for node in &cluster.nodes {
        for name in names {
            let answer = node.health().check(service(name)).await.expect("it is known");
            assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{name:?} of node {}", node.id);
        }
        for name in ["nobody", "shard/8", "shard/x", "distribkv.v1.kv"] {
            let status = node.health().check(service(name)).await.expect_err("it is not known");
            assert_eq!(status.code(), Code::NotFound, "{name:?}");
            let mut watch = node.health().watch(service(name)).await.expect("it may come").into_inner();
            until(&mut watch, ServingStatus::ServiceUnknown).await;
        }
        let list = node.health().list(HealthListRequest {}).await.expect("it serves").into_inner().statuses;
        assert!(names.iter().all(|name| list.contains_key(*name)), "{:?}", list.keys());
        assert!(list.values().all(|one| one.status() == ServingStatus::Serving));
    }
    let mut health = cluster.node(1).health();
    let mut node = health.watch(service("")).await.expect("it is known").into_inner();
    let mut shard = health.watch(service("shard/1")).await.expect("it is known").into_inner();
    until(&mut node, ServingStatus::Serving).await;
    until(&mut shard, ServingStatus::Serving).await;
    cluster.kill(2);
    cluster.kill(3);
    until(&mut node, ServingStatus::NotServing).await;
    until(&mut shard, ServingStatus::NotServing).await;
    let answer = health.check(service("distribkv.v1.KV")).await.expect("it is known").into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    let list = health.list(HealthListRequest {}).await.expect("it answers").into_inner().statuses;
    assert_eq!(list["shard/1"].status(), ServingStatus::NotServing);
    cluster.start(3);
    until(&mut node, ServingStatus::Serving).await;
    until(&mut shard, ServingStatus::Serving).await;
}

#[tokio::test]
async fn a_stale_read_needs_nobody_else() {
    let mut cluster = Cluster::quick(3).await;
    let keys: Vec<String> = (0..SHARDS).map(|shard| key_of(shard, "stale/")).collect();
    for key in &keys {
        cluster.node(1).kv().put(put(key, "v")).await.expect("it serves");
    }
    cluster.digests_agree().await;
    cluster.kill(1);
    cluster.kill(2);
    let mut kv = cluster.node(3).kv();
    for key in &keys {
        let stale = v1::GetRequest { consistency: v1::Consistency::Stale as i32, ..get(key) };
        let read = kv.get(stale).await.expect("it waits for nobody").into_inner();
        assert_eq!(read.kv.map(|kv| kv.value), Some("v".into()));
        assert_eq!(read.header.expect("every answer has one").node_id, 3);
    }
    let stale = v1::ScanRequest { consistency: v1::Consistency::Stale as i32, ..scan("stale/", "stale0") };
    let pages = all(kv.scan(stale).await.expect("it waits for nobody").into_inner()).await;
    assert_eq!(pages.iter().map(|page| page.kvs.len()).sum::<usize>(), keys.len());
    let status = kv.get(within(Duration::from_secs(1), get(&keys[0]))).await.expect_err("there is no quorum");
    assert_ne!(status.code(), Code::Ok, "{status}");
}

#[tokio::test]
async fn a_call_that_is_cancelled_harms_nobody() {
    let mut cluster = Cluster::quick(3).await;
    let key = key_of(3, "cancelled/");
    for other in [2, 3] {
        cluster.node(other).process().signal("STOP");
    }
    let kv = cluster.node(1).kv();
    for number in 0..50 {
        let (mut kv, write) = (kv.clone(), put(&key, number.to_string()));
        let short = Duration::from_millis(5);
        // The future is dropped, and the stream reset.
        assert!(tokio::time::timeout(short, kv.put(write)).await.is_err(), "there is no quorum");
    }
    for other in [2, 3] {
        cluster.node(other).process().signal("CONT");
    }
    let mut kv = kv.clone();
    let begun = std::time::Instant::now();
    while let Err(status) = kv.put(put(&key, "last")).await {
        assert!(begun.elapsed() < PATIENCE, "{status}");
    }
    // Those that were cancelled may be applied or not, and even after it: each replica says the same.
    cluster.digests_agree().await;
    let read = cluster.node(2).kv().get(get(&key)).await.expect("it serves").into_inner().kv;
    let value = String::from_utf8(read.expect("it was written").value.to_vec()).expect("it is text");
    assert!(value == "last" || value.parse::<u32>().is_ok_and(|number| number < 50), "{value:?}");
    assert_eq!(cluster.terminate(1).await.code, Some(0));
}

#[tokio::test]
async fn reflection_lists_services_and_has_their_files() {
    use reflection::server_reflection_request::MessageRequest as Ask;
    use reflection::server_reflection_response::MessageResponse as Answer;
    let cluster = Cluster::quick(1).await;
    let asks = [
        Ask::ListServices(String::new()),
        Ask::FileContainingSymbol("distribkv.v1.KV".into()),
        Ask::FileContainingSymbol("no.Such".into()),
    ];
    let asks = asks.map(|ask| reflection::ServerReflectionRequest {
        message_request: Some(ask),
        ..reflection::ServerReflectionRequest::default()
    });
    let channel = cluster.node(1).channel();
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(stream::iter(asks)).await.expect("it serves");
    let answers = all(answers.into_inner()).await;
    assert_eq!(answers.len(), 3);
    let mut answers = answers.into_iter().map(|answer| answer.message_response.expect("each has one"));
    let Some(Answer::ListServicesResponse(list)) = answers.next() else { panic!("services are listed") };
    let Some(Answer::FileDescriptorResponse(files)) = answers.next() else { panic!("a file is found") };
    let Some(Answer::ErrorResponse(error)) = answers.next() else { panic!("no such symbol") };
    let names: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["distribkv.v1.KV", "distribkv.v1.Session", "distribkv.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(names.contains(name), "{name} of {names:?}");
    }
    assert!(!files.file_descriptor_proto.is_empty());
    assert_eq!(error.error_code, Code::NotFound as i32);
    let ask = reflection_alpha::ServerReflectionRequest {
        message_request: Some(reflection_alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
        ..reflection_alpha::ServerReflectionRequest::default()
    };
    let mut client = reflection_alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(stream::iter([ask])).await.expect("it serves");
    let answers = all(answers.into_inner()).await;
    let Some(reflection_alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        &answers[0].message_response
    else {
        panic!("{answers:?}");
    };
    assert_eq!(list.service.len(), names.len());
}

#[tokio::test]
async fn a_node_that_is_asked_to_end_says_so_first() {
    let mut cluster = Cluster::quick(3).await;
    for shard in 0..SHARDS {
        cluster.node(1).kv().put(put(&key_of(shard, "kept/"), "v")).await.expect("it serves");
    }
    let mut watch = cluster.node(2).health().watch(service("")).await.expect("it is known").into_inner();
    until(&mut watch, ServingStatus::Serving).await;
    cluster.node(2).process().signal("TERM");
    until(&mut watch, ServingStatus::NotServing).await;
    let mut process = cluster.nodes[1].process.take().expect("it was started");
    assert_eq!(process.ended().await.code, Some(0));
    // Its leadership was handed over: the others serve at once, without an election.
    for shard in 0..SHARDS {
        let read = cluster.node(1).kv().get(get(&key_of(shard, "kept/"))).await.expect("it serves");
        assert!(read.into_inner().kv.is_some());
    }
    for id in [1, 3] {
        let ended = cluster.terminate(id).await;
        assert_eq!(ended.code, Some(0), "{}", ended.said);
    }
    cluster.start_all().await;
    for (shard, node) in (0..SHARDS).zip(cluster.nodes.iter().cycle()) {
        let read = node.kv().get(get(&key_of(shard, "kept/"))).await.expect("it serves").into_inner();
        assert_eq!(read.kv.map(|kv| (kv.value, kv.version)), Some(("v".into(), 1)));
    }
    cluster.digests_agree().await;
}

#[tokio::test]
async fn nodes_of_two_cores_serve_whichever_core_a_connection_is_on() {
    let quick = ["--cores", "2", "--election-timeout-ms", "600", "--heartbeat-ms", "60"];
    let mut cluster = Cluster::new(3, &quick);
    cluster.start_all().await;
    for node in &cluster.nodes {
        for shard in 0..SHARDS {
            write_and_read(node, &cluster.nodes, shard).await;
            transact(node, shard).await;
        }
        // Each connection lands on either core, and both know of both.
        let status = node.cluster().status(v1::StatusRequest {}).await.expect("it serves").into_inner();
        let cores: BTreeSet<u32> = status.lanes.iter().map(|lane| lane.core).collect();
        assert_eq!((cores.len(), status.replicas.len()), (2, SHARDS as usize), "node {}", node.id);
    }
    cluster.kill(1);
    for shard in 0..SHARDS {
        let key = key_of(shard, "later/");
        // What was on its way to the node that was killed has an unknown outcome, and says so.
        let begun = Instant::now();
        let mut written = cluster.node(2).kv().put(within(PATIENCE, put(&key, "v"))).await;
        while written.as_ref().is_err_and(|status| status.code() == Code::Unknown) {
            assert!(begun.elapsed() < PATIENCE, "two of three serve shard {shard}: {written:?}");
            written = cluster.node(2).kv().put(within(PATIENCE, put(&key, "v"))).await;
        }
        assert!(written.is_ok(), "two of three serve shard {shard}: {written:?}");
    }
    cluster.start_all().await;
    cluster.digests_agree().await;
    for id in 1..=3 {
        let ended = cluster.terminate(id).await;
        assert_eq!(ended.code, Some(0), "{}", ended.said);
    }
}
