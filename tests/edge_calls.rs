//! Every method of the edge, as a stock gRPC client sees it.

mod edge_support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use distribkv::edge::EdgeLimits;
use distribkv::edge::store::Serving;
use distribkv::route::slot::shard_of_key;
use distribkv::wire::v1::cluster_client::ClusterClient;
use distribkv::wire::v1::kv_client::KvClient;
use distribkv::wire::v1::maintenance_client::MaintenanceClient;
use distribkv::wire::v1::session_client::SessionClient;
use distribkv::wire::v1::{self, Reason};
use distribkv::wire::{health, reflection, reflection_alpha};
use edge_support::{Order, SHARD_WITHOUT_TABLE, SHARDS, TestEdge, backup_pieces};
use futures_lite::stream;
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Runs a test's client on a runtime of its own.
fn with_client<F: Future<Output = ()>>(edge: &TestEdge, test: impl FnOnce(Channel) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs little").block_on(async {
        let endpoint = Channel::from_shared(edge.url()).expect("a URL");
        let channel = endpoint.connect().await.expect("the edge listens");
        tokio::time::timeout(Duration::from_secs(20), test(channel)).await.expect("the test hangs");
    });
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> v1::PutRequest {
    v1::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { key: bytes(key), consistency: 0 }
}

fn error_of(status: &Status) -> v1::Error {
    let bin =
        status.metadata().get_bin("distribkv-error-bin").expect("every failure of ours has the trailer");
    let error = v1::Error::decode(bin.to_bytes().expect("it is base64")).expect("it is an Error");
    assert_eq!(error.code, status.code() as i32);
    assert_eq!(error.message, status.message());
    error
}

fn assert_fails<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: Reason) -> v1::Error {
    let status = result.expect_err("it fails");
    let error = error_of(&status);
    assert_eq!((status.code(), error.reason()), (code, reason), "{status}");
    error
}

#[test]
fn one_key() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut kv = KvClient::new(channel);
        let response = kv.put(put("a", "1")).await.expect("it is served").into_inner();
        let header = response.header.expect("every answer has one");
        let shard = shard_of_key(b"a", SHARDS).0;
        let expected = v1::ResponseHeader { cluster_id: 77, node_id: 1, shard, revision: 2, term: 4 };
        assert_eq!((response.succeeded, response.version, header), (true, 1, expected));

        let request = v1::PutRequest { return_previous: true, ..put("a", "2") };
        let response = kv.put(request).await.expect("it is served").into_inner();
        assert_eq!(response.previous.expect("asked for").value, "1");
        let request = v1::PutRequest { if_mod_revision: Some(0), ..put("a", "3") };
        let response = kv.put(request).await.expect("it is served").into_inner();
        assert_eq!((response.succeeded, response.version), (false, 2));

        let request = v1::AppendRequest { key: bytes("a"), value: bytes("!"), ..Default::default() };
        let response = kv.append(request).await.expect("it is served").into_inner();
        assert_eq!((response.succeeded, response.length, response.version), (true, 2, 3));
        let response = kv.get(get("a")).await.expect("it is served").into_inner();
        let pair = response.kv.expect("it is there");
        assert_eq!(
            (&pair.value[..], pair.create_revision, pair.mod_revision, pair.version),
            (&b"2!"[..], 2, 4, 3)
        );

        let request = v1::DeleteRequest { key: bytes("a"), return_previous: true, ..Default::default() };
        let response = kv.delete(request).await.expect("it is served").into_inner();
        assert!(response.succeeded && response.existed && response.previous.is_some());
        assert_eq!(kv.get(get("a")).await.expect("it is served").into_inner().kv, None);

        let large = v1::PutRequest { value: vec![7; 1 << 20].into(), ..put("large", "") };
        kv.put(large).await.expect("the largest value is allowed");
        let pair = kv.get(get("large")).await.expect("it is served").into_inner().kv.expect("it is there");
        assert!(pair.value.len() == 1 << 20 && pair.value.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn failures_have_their_code_and_reason() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut kv = KvClient::new(channel);
        let failures = [
            ("not_proposed", Code::Unavailable, Reason::NotLeader),
            ("no_leader", Code::Unavailable, Reason::NoLeader),
            ("deadline", Code::DeadlineExceeded, Reason::OutcomeUnknown),
            ("unknown", Code::Unknown, Reason::OutcomeUnknown),
            ("overloaded", Code::ResourceExhausted, Reason::Overloaded),
            ("disk_full", Code::ResourceExhausted, Reason::DiskFull),
            ("shutting_down", Code::Unavailable, Reason::ShuttingDown),
            ("damaged", Code::Unavailable, Reason::Damaged),
            ("expired", Code::FailedPrecondition, Reason::SessionExpired),
        ];
        for (name, code, reason) in failures {
            let error = assert_fails(kv.put(put(&format!("fail:{name}"), "")).await, code, reason);
            assert_eq!((error.leader, error.retry_after_ms), (2, 9), "{name}");
        }
    });
}

#[test]
fn limits_are_named() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut kv = KvClient::new(channel.clone());
        let (invalid, limit) = (Code::InvalidArgument, Reason::Limit);
        let error = assert_fails(kv.put(put("", "x")).await, invalid, limit);
        assert!(error.message.contains("at least 1 byte"), "{}", error.message);
        let error = assert_fails(kv.get(get(&"k".repeat(4097))).await, invalid, limit);
        assert!(error.message.contains("4097") && error.message.contains("4096"), "{}", error.message);
        let large = v1::PutRequest { value: vec![0; (1 << 20) + 1].into(), ..put("a", "") };
        let error = assert_fails(kv.put(large).await, invalid, limit);
        assert!(error.message.contains("1048576"), "{}", error.message);
        let larger = v1::PutRequest { value: vec![0; 5 << 20].into(), ..put("a", "") };
        let error = assert_fails(kv.put(larger).await, invalid, limit);
        assert!(error.message.contains("4194304"), "{}", error.message);
        let many = v1::TxnRequest { then: vec![operation(get("a")); 129], ..Default::default() };
        let error = assert_fails(kv.txn(many).await, invalid, limit);
        assert!(error.message.contains("128"), "{}", error.message);
        let mut sessions = SessionClient::new(channel);
        let short = v1::OpenSessionRequest { ttl_ms: 10, key: bytes("a") };
        assert_fails(sessions.open(short).await, invalid, limit);
        let error = assert_fails(
            kv.get(v1::GetRequest { consistency: 9, ..get("a") }).await,
            invalid,
            Reason::Unspecified,
        );
        assert!(error.message.contains('9'), "{}", error.message);
    });
}

fn operation(get: v1::GetRequest) -> v1::Operation {
    v1::Operation { operation: Some(v1::operation::Operation::Get(get)) }
}

fn put_operation(put: v1::PutRequest) -> v1::Operation {
    v1::Operation { operation: Some(v1::operation::Operation::Put(put)) }
}

#[test]
fn transactions() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut kv = KvClient::new(channel);
        let condition = v1::Condition {
            key: bytes("{t}a"),
            comparison: v1::condition::Comparison::Equal as i32,
            target: Some(v1::condition::Target::Version(0)),
        };
        let request = v1::TxnRequest {
            id: None,
            conditions: vec![condition],
            then: vec![put_operation(put("{t}a", "1")), operation(get("{t}a"))],
            otherwise: vec![operation(get("{t}a"))],
        };
        let response = kv.txn(request.clone()).await.expect("it is served").into_inner();
        assert!(response.succeeded && response.results.len() == 2);
        let response = kv.txn(request.clone()).await.expect("it is served").into_inner();
        assert!(!response.succeeded && response.results.len() == 1);
        let read = v1::TxnRequest { then: vec![operation(get("{t}a")); 2], ..Default::default() };
        let response = kv.txn(read).await.expect("it is served").into_inner();
        assert!(response.succeeded && response.results.len() == 2);

        let invalid = Code::InvalidArgument;
        let crossing =
            v1::TxnRequest { then: vec![operation(get("x1")), operation(get("x2"))], ..Default::default() };
        assert_ne!(shard_of_key(b"x1", SHARDS), shard_of_key(b"x2", SHARDS));
        let error = assert_fails(kv.txn(crossing).await, invalid, Reason::CrossShard);
        for part in ["x1", "x2", "{tag}"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        let inner = v1::GetRequest { consistency: 1, ..get("a") };
        let mixed = v1::TxnRequest { then: vec![operation(inner)], ..Default::default() };
        assert_fails(kv.txn(mixed).await, invalid, Reason::Unspecified);
        assert_fails(kv.txn(v1::TxnRequest::default()).await, invalid, Reason::Unspecified);
    });
}

#[test]
fn sessions() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut sessions = SessionClient::new(channel.clone());
        let mut kv = KvClient::new(channel);
        let open = v1::OpenSessionRequest { ttl_ms: 0, key: bytes("s") };
        let opened = sessions.open(open).await.expect("it is served").into_inner();
        assert_eq!((opened.ttl_ms, opened.shard), (60_000, shard_of_key(b"s", SHARDS).0));
        let session = opened.session;
        let id = Some(v1::RequestId { session, sequence: 1, acknowledged: 0 });
        let request = v1::AppendRequest { id, key: bytes("s"), value: bytes("x"), ..Default::default() };
        for _ in 0..3 {
            let response = kv.append(request.clone()).await.expect("it is served").into_inner();
            assert_eq!(response.length, 1, "it is applied once");
        }
        let zero = v1::AppendRequest {
            id: Some(v1::RequestId { session, ..Default::default() }),
            ..request.clone()
        };
        assert_fails(kv.append(zero).await, Code::InvalidArgument, Reason::Unspecified);
        let alive = v1::KeepAliveRequest { session, acknowledged: 1 };
        assert_eq!(sessions.keep_alive(alive).await.expect("it is served").into_inner().ttl_ms, 60_000);
        sessions.close(v1::CloseSessionRequest { session }).await.expect("it is served");
        let again = sessions.close(v1::CloseSessionRequest { session }).await;
        assert_fails(again, Code::FailedPrecondition, Reason::SessionExpired);
        let foreign = sessions.close(v1::CloseSessionRequest { session: u64::MAX }).await;
        assert_fails(foreign, Code::FailedPrecondition, Reason::SessionExpired);
    });
}

#[test]
fn scans_are_in_order_and_paged() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut kv = KvClient::new(channel);
        let value = "v".repeat(20_000);
        for number in 0..200 {
            kv.put(put(&format!("k{number:04}"), &value)).await.expect("it is served");
        }
        let scan = |request: v1::ScanRequest| {
            let mut kv = kv.clone();
            async move {
                let mut pages = kv.scan(request).await.expect("it is served").into_inner();
                let (mut keys, mut count) = (Vec::new(), 0);
                while let Some(page) = pages.message().await.expect("it is served") {
                    assert!(!page.headers.is_empty(), "every page has headers");
                    keys.extend(
                        page.kvs.iter().map(|pair| String::from_utf8(pair.key.to_vec()).expect("ours")),
                    );
                    count += 1;
                }
                (keys, count)
            }
        };
        let all: Vec<_> = (0..200).map(|number| format!("k{number:04}")).collect();
        let (keys, pages) = scan(v1::ScanRequest::default()).await;
        assert_eq!(keys, all);
        assert!(pages >= 4, "4 MB in {pages} pages");
        let request = v1::ScanRequest {
            start: bytes("k0005"),
            end: bytes("k0190"),
            limit: 30,
            keys_only: true,
            consistency: 1,
        };
        assert_eq!(scan(request).await, (all[5..35].to_vec(), 1));
        let nothing = v1::ScanRequest { start: bytes("x"), ..Default::default() };
        assert_eq!(scan(nothing).await, (vec![], 1));
        let backwards = v1::ScanRequest { start: bytes("k2"), end: bytes("k1"), ..Default::default() };
        assert_eq!(scan(backwards).await.0, Vec::<String>::new());
    });
}

#[test]
fn a_pipeline_answers_every_operation() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut kv = KvClient::new(channel);
        let mut requests = Vec::new();
        for tag in 0..5000_u64 {
            let operation = put_operation(put(&format!("p{}", tag % 50), &tag.to_string()));
            requests.push(v1::PipelineRequest { tag, operation: Some(operation) });
        }
        requests.push(v1::PipelineRequest { tag: 9001, operation: Some(put_operation(put("", ""))) });
        requests.push(v1::PipelineRequest { tag: 9002, operation: None });
        requests.push(v1::PipelineRequest {
            tag: 9003,
            operation: Some(put_operation(put("fail:no_leader", ""))),
        });
        requests.push(v1::PipelineRequest { tag: 9004, operation: Some(operation(get("p49"))) });
        let mut answers = kv.pipeline(stream::iter(requests)).await.expect("it is served").into_inner();
        let mut results = std::collections::BTreeMap::new();
        while let Some(answer) = answers.message().await.expect("the stream ends well") {
            assert!(results.insert(answer.tag, answer.outcome).is_none(), "answered twice");
        }
        assert_eq!(results.len(), 5004);
        let reasons = [(9001, Reason::Limit), (9002, Reason::Unspecified), (9003, Reason::NoLeader)];
        for (tag, reason) in reasons {
            let Some(Some(v1::pipeline_response::Outcome::Error(error))) = results.get(&tag) else {
                panic!("{tag}")
            };
            assert_eq!(error.reason(), reason, "{tag}");
        }
        let Some(Some(v1::pipeline_response::Outcome::Result(result))) = results.get(&9004) else {
            panic!("9004")
        };
        let Some(v1::operation_result::Result::Get(response)) = &result.result else { panic!("{result:?}") };
        assert_eq!(response.kv.as_ref().expect("it is there").value, "4999");
    });
}

#[test]
fn deadlines() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut kv = KvClient::new(channel);
        let begun = Instant::now();
        let mut request = tonic::Request::new(get("slow:x"));
        request.metadata_mut().insert("grpc-timeout", "50m".parse().expect("ASCII"));
        let status = kv.get(request).await.expect_err("it is late");
        assert!(begun.elapsed() >= Duration::from_millis(50) && begun.elapsed() < Duration::from_secs(5));
        assert!(
            matches!(status.code(), Code::DeadlineExceeded | Code::Unknown | Code::Cancelled),
            "{status}"
        );
        let mut request = tonic::Request::new(get("a"));
        request.metadata_mut().insert("grpc-timeout", "5x".parse().expect("ASCII"));
        assert_fails(kv.get(request).await, Code::InvalidArgument, Reason::Unspecified);
    });
}

#[test]
fn cluster_and_maintenance() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        let mut cluster = ClusterClient::new(channel.clone());
        let status = cluster.status(v1::StatusRequest {}).await.expect("it is served").into_inner();
        assert_eq!(
            (status.cluster_id, status.node_id, &status.version[..], status.uptime_ms),
            (77, 1, "0.1.0", 3000)
        );
        assert_eq!(status.profile, "dev");
        let frames = &status.stages[0];
        assert_eq!((&frames.name[..], frames.times, frames.items, frames.total_us), ("frames", 1, 7, 5));
        assert_eq!(frames.times_by_log2_us[3], 1, "less than 8 us");
        assert_eq!(
            (status.replicas[0].role(), status.replicas[0].last_index),
            (v1::replica_status::Role::Leader, 12)
        );
        assert_eq!((status.replicas[0].fetch_bytes_done, status.replicas[0].fetch_bytes_total), (3, 4));
        assert_eq!((status.lanes[0].last_write_us, status.lanes[0].disk_full), (130, true));
        let table = cluster.shards(v1::ShardsRequest {}).await.expect("it is served").into_inner();
        assert_eq!(
            (table.shards[0].first_slot, table.shards[4].last_slot, table.shards[4].leader),
            (0, 16383, 0)
        );
        assert_eq!((table.nodes.len(), &table.nodes[2].address[..]), (3, "10.0.0.3:7000"));

        let mut maintenance = MaintenanceClient::new(channel);
        let transfer = v1::TransferLeadershipRequest { shard: 1, to: 2 };
        assert_eq!(
            maintenance.transfer_leadership(transfer).await.expect("it is served").into_inner().leader,
            2
        );
        let beyond = v1::TransferLeadershipRequest { shard: SHARDS, to: 0 };
        assert_fails(
            maintenance.transfer_leadership(beyond).await,
            Code::InvalidArgument,
            Reason::Unspecified,
        );
    });
}

#[test]
fn tables_are_made_and_a_backup_leaves_piece_by_piece() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async move {
        let mut maintenance = MaintenanceClient::new(channel);
        let snapshot = |shards: &[u32]| v1::SnapshotRequest { shards: shards.to_vec() };
        maintenance.snapshot(snapshot(&[3, 0, 3])).await.expect("their tables are there");
        for shards in [&[][..], &[0, SHARD_WITHOUT_TABLE]] {
            let outcome = maintenance.snapshot(snapshot(shards)).await;
            assert_fails(outcome, Code::DeadlineExceeded, Reason::OutcomeUnknown);
        }
        let outcome = maintenance.snapshot(snapshot(&[0, SHARDS])).await;
        assert_fails(outcome, Code::InvalidArgument, Reason::Unspecified);
        let mut backup = maintenance.backup(v1::BackupRequest {}).await.expect("it is served").into_inner();
        for piece in backup_pieces() {
            let response = backup.message().await.expect("it goes on").expect("there is more");
            assert_eq!(response.chunk, piece);
        }
        assert_eq!(backup.message().await.expect("it ends well"), None);
    });
}

#[test]
fn a_core_makes_so_many_backups_at_a_time() {
    let edge = TestEdge::start_with(EdgeLimits { backups_max: 2, ..EdgeLimits::DEFAULT });
    with_client(&edge, |channel| async move {
        let mut maintenance = MaintenanceClient::new(channel);
        // More than the windows hold: nobody reads them, and they wait.
        let first = maintenance.backup(v1::BackupRequest {}).await.expect("it is served");
        let second = maintenance.backup(v1::BackupRequest {}).await.expect("it is served");
        let third = maintenance.backup(v1::BackupRequest {}).await;
        assert_fails(third, Code::ResourceExhausted, Reason::Overloaded);
        drop((first, second));
        while maintenance.backup(v1::BackupRequest {}).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn health_is_checked_listed_and_watched() {
    use health::health_check_response::ServingStatus;
    let edge = TestEdge::start();
    let check = |service: &str| health::HealthCheckRequest { service: service.to_owned() };
    with_client(&edge, |channel| async {
        let mut client = health::health_client::HealthClient::new(channel);
        let response = client.check(check("shard/0")).await.expect("it is served").into_inner();
        assert_eq!(response.status(), ServingStatus::Serving);
        assert_eq!(client.check(check("nobody")).await.expect_err("unknown").code(), Code::NotFound);
        let list = client.list(health::HealthListRequest {}).await.expect("it is served").into_inner();
        assert_eq!(list.statuses.len(), 3);

        let mut known = client.watch(check("")).await.expect("it is served").into_inner();
        let mut unknown = client.watch(check("later")).await.expect("it is served").into_inner();
        let first = known.message().await.expect("it goes on").expect("the first status");
        assert_eq!(first.status(), ServingStatus::Serving);
        let first = unknown.message().await.expect("it goes on").expect("the first status");
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        edge.order(Order::Serve("", Serving::No));
        let next = known.message().await.expect("it goes on").expect("the next status");
        assert_eq!(next.status(), ServingStatus::NotServing);
        edge.order(Order::Drain(Duration::from_secs(5)));
        let end = known.message().await.expect_err("the edge goes away");
        assert_eq!(end.code(), Code::Unavailable);
    });
    edge.join();
}

#[test]
fn reflection_in_both_versions() {
    let edge = TestEdge::start();
    with_client(&edge, |channel| async {
        use reflection::server_reflection_request::MessageRequest;
        use reflection::server_reflection_response::MessageResponse;
        let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let ask = |request| reflection::ServerReflectionRequest {
            host: "h".into(),
            message_request: Some(request),
        };
        let requests = vec![
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("grpc.health.v1.Health".into())),
        ];
        let answers = client.server_reflection_info(stream::iter(requests)).await.expect("it is served");
        let mut answers = answers.into_inner();
        let first = answers.message().await.expect("it goes on").expect("an answer each");
        let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
            panic!("a list")
        };
        assert_eq!(list.service.len(), 7);
        let second = answers.message().await.expect("it goes on").expect("an answer each");
        assert!(matches!(second.message_response, Some(MessageResponse::FileDescriptorResponse(_))));
        assert_eq!(answers.message().await.expect("it ends well"), None);

        use reflection_alpha as alpha;
        let mut client = alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let request = alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = alpha::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let answers = client.server_reflection_info(stream::iter([request])).await.expect("it is served");
        assert!(answers.into_inner().message().await.expect("it goes on").is_some());
    });
}
