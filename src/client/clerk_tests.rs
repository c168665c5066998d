//! The Clerk over real connections, against a node made of h2 and a map: what the policy's tests cannot see.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};

use super::clerk::{Clerk, Options, Writes};
use super::error::{Cause, Error, Reason};
use super::status::TRAILER;
use crate::ids::{NodeId, ShardId};
use crate::wire::health::HealthCheckResponse;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::v1;

/// What the node does with the next request of a method.
#[derive(Clone, Debug)]
enum Twist {
    /// Carries it out and resets the stream.
    ServeAndReset,
    /// A status with the contract's trailer.
    Refuse(i32, v1::Reason),
    /// A status as a proxy makes it.
    Proxy(i32),
}

/// A node: one shard, a map of appended values, and the answers stored for sessions.
#[derive(Default)]
struct Node {
    address: String,
    values: BTreeMap<Bytes, Vec<u8>>,
    answers: BTreeMap<(u64, u64), u64>,
    twists: BTreeMap<&'static str, VecDeque<Twist>>,
    seen: Vec<String>,
    /// The mod revisions that puts were to be compared with.
    compared: Vec<Option<u64>>,
    /// Session and sequence of the transactions that came.
    stamps: Vec<Option<(u64, u64)>>,
}

type Shared = Arc<Mutex<Node>>;

async fn start_node() -> Shared {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let node = Arc::new(Mutex::new(Node { address, ..Node::default() }));
    tokio::spawn(accept(listener, Arc::clone(&node)));
    node
}

async fn accept(listener: TcpListener, node: Shared) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve(socket, Arc::clone(&node)));
    }
}

async fn serve(socket: TcpStream, node: Shared) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, Arc::clone(&node)));
    }
}

async fn answer(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, node: Shared) {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let timed = request.headers().contains_key("grpc-timeout");
    assert_eq!(timed, method != "Watch", "{method}: only a watch has no deadline");
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        message.put(chunk);
    }
    message.advance(5);
    let (twist, answers) = {
        let mut node = node.lock().unwrap_or_else(PoisonError::into_inner);
        node.seen.push(method.clone());
        let twist = node.twists.get_mut(method.as_str()).and_then(VecDeque::pop_front);
        let serves = matches!(twist, None | Some(Twist::ServeAndReset));
        let answers = if serves { node.serve(&method, message.freeze()) } else { Vec::new() };
        (twist, answers)
    };
    let head = Response::builder().header("content-type", "application/grpc");
    match twist {
        None => {
            let head = head.body(()).expect("it is complete");
            let mut stream = respond.send_response(head, false).expect("the client waits");
            answers.into_iter().for_each(|answer| stream.send_data(answer, false).expect("it is open"));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers).expect("it is open");
        }
        Some(Twist::ServeAndReset) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        Some(Twist::Proxy(code)) => {
            let head = head.header("grpc-status", code).body(()).expect("it is complete");
            respond.send_response(head, true).expect("the client waits");
        }
        Some(Twist::Refuse(code, reason)) => {
            let error = v1::Error { code, reason: reason.into(), message: "no".into(), ..Default::default() };
            let value = tonic::metadata::BinaryMetadataValue::from_bytes(&error.encode_to_vec());
            let head = head.header("grpc-status", code).header(TRAILER, value.as_encoded_bytes());
            respond.send_response(head.body(()).expect("it is complete"), true).expect("the client waits");
        }
    }
}

/// A message with its length before it.
fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
    message.encode(&mut frame).expect("it grows");
    frame.freeze()
}

fn decode<M: Message + Default>(bytes: Bytes) -> M {
    M::decode(bytes).expect("tonic made it")
}

impl Node {
    fn serve(&mut self, method: &str, bytes: Bytes) -> Vec<Bytes> {
        let header = Some(v1::ResponseHeader { node_id: 1, ..Default::default() });
        vec![match method {
            "Shards" => frame(&self.shards()),
            "Open" => frame(&v1::OpenSessionResponse { session: 77, ttl_ms: 60_000, shard: 0 }),
            "Close" => frame(&v1::CloseSessionResponse {}),
            "Status" => frame(&v1::StatusResponse { node_id: 1, version: "9".into(), ..Default::default() }),
            "Check" => frame(&HealthCheckResponse { status: ServingStatus::Serving.into() }),
            "Watch" => {
                let told = [ServingStatus::Serving, ServingStatus::Serving, ServingStatus::NotServing];
                return told.map(|status| frame(&HealthCheckResponse { status: status.into() })).into();
            }
            "TransferLeadership" => frame(&v1::TransferLeadershipResponse {
                leader: decode::<v1::TransferLeadershipRequest>(bytes).to,
            }),
            "Get" => {
                let key = decode::<v1::GetRequest>(bytes).key;
                let value = self.values.get(&key).map(|value| Bytes::from(value.clone()));
                let kv = value.map(|value| v1::KeyValue { key, value, ..Default::default() });
                frame(&v1::GetResponse { header, kv })
            }
            "Put" => {
                let request: v1::PutRequest = decode(bytes);
                self.compared.push(request.if_mod_revision);
                self.values.insert(request.key, request.value.into());
                frame(&v1::PutResponse { header, succeeded: true, version: 1, ..Default::default() })
            }
            "Append" => {
                let length = self.append(decode(bytes));
                frame(&v1::AppendResponse { header, succeeded: true, length, version: 1 })
            }
            "Delete" => {
                let removed = self.values.remove(&decode::<v1::DeleteRequest>(bytes).key);
                let existed = removed.is_some();
                let previous =
                    removed.map(|value| v1::KeyValue { value: value.into(), ..Default::default() });
                frame(&v1::DeleteResponse { header, succeeded: true, existed, previous })
            }
            "Txn" => {
                let request: v1::TxnRequest = decode(bytes);
                self.stamps.push(request.id.map(|id| (id.session, id.sequence)));
                let results = vec![v1::OperationResult::default(); request.then.len()];
                frame(&v1::TxnResponse { header, succeeded: true, results })
            }
            "Scan" => return self.scan(&decode(bytes)),
            other => panic!("this node does not know {other}"),
        }]
    }

    fn append(&mut self, request: v1::AppendRequest) -> u64 {
        let stored = request.id.and_then(|id| self.answers.get(&(id.session, id.sequence)));
        if let Some(length) = stored {
            return *length;
        }
        let value = self.values.entry(request.key).or_default();
        value.extend_from_slice(&request.value);
        let length = value.len() as u64;
        if let Some(id) = request.id {
            self.answers.insert((id.session, id.sequence), length);
        }
        length
    }

    /// One page for each key.
    fn scan(&self, request: &v1::ScanRequest) -> Vec<Bytes> {
        let most = if request.limit == 0 { usize::MAX } else { request.limit as usize };
        let found = self.values.range(request.start.clone()..).take(most);
        let page = |(key, value): (&Bytes, &Vec<u8>)| {
            let (key, value) = (key.clone(), value.clone().into());
            let kv = v1::KeyValue { key, value, ..Default::default() };
            frame(&v1::ScanResponse { kvs: vec![kv], headers: Vec::new() })
        };
        found.map(page).collect()
    }

    fn shards(&self) -> v1::ShardsResponse {
        let info = v1::ShardInfo { last_slot: 16383, leader: 1, voters: vec![1], ..Default::default() };
        let node = v1::NodeInfo { node_id: 1, address: self.address.clone() };
        v1::ShardsResponse { shards: vec![info], nodes: vec![node] }
    }
}

fn with<T>(node: &Shared, f: impl FnOnce(&mut Node) -> T) -> T {
    f(&mut node.lock().unwrap_or_else(PoisonError::into_inner))
}

fn twist(node: &Shared, method: &'static str, twist: Twist) {
    with(node, |node| node.twists.entry(method).or_default().push_back(twist));
}

fn seen(node: &Shared, method: &str) -> usize {
    with(node, |node| node.seen.iter().filter(|seen| *seen == method).count())
}

fn connect(endpoints: &[&str]) -> Clerk {
    let options = Options { timeout: Duration::from_secs(20), ..Options::default() };
    Clerk::connect_with(endpoints.iter().copied(), options).expect("they are endpoints")
}

fn address(node: &Shared) -> String {
    with(node, |node| node.address.clone())
}

/// An address that nobody listens on.
async fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
    listener.local_addr().expect("it is bound").to_string()
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(test);
}

#[test]
fn an_append_whose_answer_is_lost_happens_once() {
    block_on(async {
        let node = start_node().await;
        let clerk = connect(&[&address(&node)]);
        for method in ["Append", "Append", "Open", "Shards"] {
            twist(&node, method, Twist::ServeAndReset);
        }
        twist(&node, "Append", Twist::Refuse(14, v1::Reason::NoLeader));
        twist(&node, "Append", Twist::Proxy(14));
        assert_eq!(clerk.append("k", "ab").await.map(|response| response.length), Ok(2));
        assert_eq!(seen(&node, "Append"), 5);
        assert_eq!(clerk.append("k", "c").await.map(|response| response.length), Ok(3));
        let value = clerk.get("k").await;
        assert_eq!(value.map(|response| response.kv.map(|kv| kv.value)), Ok(Some("abc".into())));
        assert_eq!(seen(&node, "Close"), 0);
        clerk.clone().close().await;
        assert_eq!(seen(&node, "Close"), 1);
        assert_eq!(clerk.append("k", "d").await, Err(Error::Reconnect));
    });
}

#[test]
fn a_delete_and_a_txn_are_sent_again_as_what_they_were() {
    block_on(async {
        let node = start_node().await;
        let clerk = connect(&[&address(&node)]);
        assert!(clerk.append("k", "ab").await.is_ok());
        twist(&node, "Delete", Twist::Refuse(14, v1::Reason::NoLeader));
        let deleted = clerk.delete("k").await;
        let previous = deleted.map(|response| response.previous.map(|kv| kv.value));
        assert_eq!((previous, seen(&node, "Delete")), (Ok(Some("ab".into())), 2));
        twist(&node, "Txn", Twist::ServeAndReset);
        let get = v1::GetRequest { key: "k".into(), ..Default::default() };
        let put = v1::PutRequest { key: "k".into(), ..Default::default() };
        let then: Vec<v1::Operation> =
            [v1::operation::Operation::Get(get), v1::operation::Operation::Put(put)]
                .map(|operation| v1::Operation { operation: Some(operation) })
                .into();
        let done = clerk.txn(v1::TxnRequest { then, ..Default::default() }).await;
        assert_eq!(done.map(|response| response.results.len()), Ok(2));
        let stamps = with(&node, |node| node.stamps.clone());
        assert!(stamps.len() == 2 && stamps[0].is_some() && stamps[0] == stamps[1], "{stamps:?}");
    });
}

#[test]
fn keys_and_values_are_text_or_bytes_and_a_swap_is_a_put_that_compares() {
    block_on(async {
        let node = start_node().await;
        let clerk = Clerk::connect([address(&node)]).expect("it is an endpoint");
        assert_eq!(clerk.put("k", vec![0xff]).await.map(|response| response.succeeded), Ok(true));
        let swapped = clerk.compare_and_swap(b"k".to_vec(), 7, "v".to_owned()).await;
        assert_eq!(swapped.map(|response| response.succeeded), Ok(true));
        assert!(clerk.compare_and_swap(&b"k"[..], 0, b"w").await.is_ok());
        assert_eq!(with(&node, |node| node.compared.clone()), [None, Some(7), Some(0)]);
        let value = clerk.get(Bytes::from_static(b"k")).await;
        assert_eq!(value.map(|response| response.kv.map(|kv| kv.value)), Ok(Some("w".into())));
    });
}

#[test]
fn a_client_without_good_endpoints_or_with_a_crowd_is_not_made() {
    let crowd = vec!["n:1"; 1 + super::routing::TARGETS_MAX];
    for endpoints in [Vec::new(), crowd, vec!["n:1", "n"]] {
        let count = endpoints.len();
        assert!(Clerk::connect(endpoints).is_err(), "{count} endpoints");
    }
}

#[test]
fn statuses_are_believed_only_with_the_trailer() {
    block_on(async {
        let node = start_node().await;
        let clerk = connect(&[&address(&node)]);
        twist(&node, "Append", Twist::Refuse(3, v1::Reason::Limit));
        let Err(Error::ChangeRequest { last }) = clerk.append("k", "x").await else {
            panic!("it is refused")
        };
        assert_eq!((last.cause, last.detail.as_str()), (Cause::Refused(Reason::Limit), "no"));
        let unstamped = clerk.with_writes(Writes::Unstamped);
        twist(&node, "Append", Twist::Refuse(14, v1::Reason::NotLeader));
        twist(&node, "Append", Twist::Proxy(3));
        let outcome = unstamped.append("k", "x").await;
        assert!(matches!(outcome, Err(Error::CheckOutcome { .. })), "{outcome:?}");
        assert_eq!(with(&node, |node| node.values.len()), 0);
        assert_eq!(unstamped.append("k", "x").await.map(|response| response.length), Ok(1));
    });
}

#[test]
fn what_never_left_is_sent_elsewhere() {
    block_on(async {
        let node = start_node().await;
        let (dead, live) = (dead_address().await, address(&node));
        let endpoints = [dead.as_str(), dead.as_str(), live.as_str()];
        for _ in 0..4 {
            let unstamped = connect(&endpoints).with_writes(Writes::Unstamped);
            assert!(unstamped.append("k", "x").await.is_ok());
        }
        assert_eq!(seen(&node, "Append"), 4);
    });
}

#[test]
fn a_scan_goes_on_where_it_was_cut() {
    block_on(async {
        let node = start_node().await;
        let big = vec![7; 1024 * 1024];
        with(&node, |node| {
            for key in 0..10 {
                node.values.insert(format!("k{key}").into(), big.clone());
            }
        });
        let clerk = connect(&[&address(&node)]);
        for (limit, expected) in [(0, 10), (7, 7), (3, 3)] {
            let mut scan = clerk.scan(v1::ScanRequest { limit, ..Default::default() });
            let mut keys = Vec::new();
            while let Some(kvs) = scan.next().await.expect("the node serves") {
                assert!(kvs.len() <= 4, "{} keys of a part", kvs.len());
                keys.extend(kvs.into_iter().map(|kv| kv.key));
            }
            let all = (0..expected).map(|key| Bytes::from(format!("k{key}"))).collect::<Vec<_>>();
            assert_eq!(keys, all, "limit {limit}");
        }
    });
}

#[test]
fn nodes_are_asked_one_by_one() {
    block_on(async {
        let node = start_node().await;
        let (dead, live) = (dead_address().await, address(&node));
        let clerk = connect(&[&dead, &live]);
        let nodes = clerk.status().await;
        assert_eq!(nodes.len(), 2);
        let cause = nodes[0].status.as_ref().err().and_then(Error::last).map(|last| last.cause);
        assert_eq!(cause, Some(Cause::Unreached));
        assert_eq!((nodes[1].node, nodes[1].status.is_ok()), (Some(NodeId(1)), true));
        let health = clerk.health("").await;
        assert!(health[0].health.is_err());
        assert_eq!(health[1].health, Ok(ServingStatus::Serving));
        twist(&node, "Check", Twist::Proxy(5));
        assert_eq!(clerk.health("no/such").await[1].health, Ok(ServingStatus::ServiceUnknown));
        assert_eq!(clerk.transfer(ShardId(0), Some(NodeId(1))).await, Ok(Some(NodeId(1))));
        assert_eq!(clerk.shards().await.map(|response| response.shards.len()), Ok(1));
    });
}

#[test]
fn a_watch_tells_changes_alone_and_outlives_its_stream() {
    block_on(async {
        let node = start_node().await;
        let clerk = connect(&[&address(&node)]);
        let mut watch = clerk.health_watch("");
        for expected in [Some(ServingStatus::Serving), Some(ServingStatus::NotServing), None] {
            let told = watch.next().await.map(|change| change.health.ok());
            assert_eq!(told, Some(expected), "the stream ends after the second");
        }
        let again = watch.next().await.map(|change| change.health);
        assert_eq!(again, Some(Ok(ServingStatus::Serving)));
        assert!(seen(&node, "Watch") >= 2);
    });
}
