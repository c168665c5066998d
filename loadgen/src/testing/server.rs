//! A gRPC server for the tests, on h2: answers health checks, keeps keys, tells a routing table, and stalls,
//! refuses or answers wrongly where it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use distribkv::wire::{health, v1};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::testing::etcd;

/// Streams of a connection: as many as a node allows.
const STREAMS_MAX: u32 = 1024;

/// A server on a port of its own, until the test ends.
pub struct TestServer {
    /// Where it listens.
    pub address: String,
    state: Arc<State>,
}

struct State {
    inner: Mutex<Inner>,
    address: String,
}

/// What a server holds.
#[derive(Default)]
pub struct Inner {
    /// By key.
    pub keys: BTreeMap<Bytes, Held>,
    /// The revision of the last change.
    pub revision: u64,
    calls: u64,
    fault: Option<Fault>,
    /// The keys as they were, and the revision, for [`Fault::StaleEvery`].
    older: (BTreeMap<Bytes, Held>, u64),
    /// Nothing is answered before this.
    stalled_to: Option<Instant>,
}

/// What a server holds of a key.
#[derive(Clone)]
pub struct Held {
    /// Its value.
    pub value: Bytes,
    /// The revision of its last change.
    pub revision: u64,
    /// The revision at which it came to be.
    pub created: u64,
    /// Its version.
    pub version: u64,
}

/// What a server does wrong.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Every so many calls one is refused.
    RefuseEvery(u64),
    /// Every so many calls reads are served as it was then, up to the next time.
    StaleEvery(u64),
    /// Every so many calls a put is acknowledged and forgotten.
    LoseEvery(u64),
    /// Every so many calls an append is made twice.
    DoubleEvery(u64),
    /// Call number `at` (counted from 1) and all that come within `span` after it are answered at the end of
    /// it.
    Stall {
        /// Which call begins it.
        at: u64,
        /// How long it lasts.
        span: Duration,
    },
}

/// How a server answers a call: a message, or a status and a reason.
pub type Reply = Result<Vec<u8>, (u16, v1::Reason)>;

impl TestServer {
    /// A server that answers at once.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// A server with a fault.
    pub async fn faulty(fault: Fault) -> Self {
        Self::with(Some(fault)).await
    }

    async fn with(fault: Option<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let inner = Mutex::new(Inner { fault, ..Inner::default() });
        let state = Arc::new(State { inner, address: address.clone() });
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connection(socket, Arc::clone(&served)));
            }
        });
        Self { address, state }
    }

    /// Keys that it holds.
    pub fn keys(&self) -> usize {
        self.state.inner.lock().expect("no test panics with it").keys.len()
    }
}

async fn connection(socket: TcpStream, state: Arc<State>) {
    socket.set_nodelay(true).expect("a socket option");
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(STREAMS_MAX);
    let mut connection = builder.handshake(socket).await.expect("the loadgen speaks h2");
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(stream(request, respond, Arc::clone(&state)));
    }
}

async fn stream(request: Request<RecvStream>, respond: SendResponse<Bytes>, state: Arc<State>) {
    let (head, mut body) = request.into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    if head.uri.path() == "/distribkv.v1.KV/Pipeline" {
        return pipeline(body, respond, state).await;
    }
    let is_of_the_load = head.headers.contains_key("grpc-timeout");
    assert!(is_of_the_load || is_of_the_supervisor(head.uri.path()), "{}", head.uri);
    let mut bytes = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).expect("it was received");
        bytes.extend_from_slice(&data);
    }
    let message = bytes.freeze().split_off(5);
    if head.uri.path() == "/distribkv.v1.KV/Scan" {
        let pages = pages(&message, &state).into_iter().flat_map(framed).collect();
        return answer(Ok(pages), respond);
    }
    let (reply, stalled_to) = reply(head.uri.path(), message, &state);
    if let Some(stalled_to) = stalled_to {
        tokio::time::sleep_until(stalled_to).await;
    }
    answer(reply.map(framed), respond);
}

/// Answers with messages and their prefixes, or with a status.
fn answer(reply: Result<Bytes, (u16, v1::Reason)>, mut respond: SendResponse<Bytes>) {
    let response = Response::builder().header("content-type", "application/grpc");
    match reply {
        Ok(framed) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let response = response.body(()).expect("a response");
            // The loadgen may have gone, which is not this side's failure.
            let Ok(mut out) = respond.send_response(response, false) else { return };
            let _ = out.send_data(framed, false).and_then(|()| out.send_trailers(trailers));
        }
        Err((code, reason)) => {
            use base64::Engine as _;
            let detail = v1::Error { reason: reason as i32, ..Default::default() };
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(detail.encode_to_vec());
            let response = response.header("grpc-status", code).header("distribkv-error-bin", encoded);
            let _ = respond.send_response(response.body(()).expect("a response"), true);
        }
    }
}

/// What is asked once or now and then, beside the load; an audit reads last values.
fn is_of_the_supervisor(path: &str) -> bool {
    [
        "/distribkv.v1.Cluster/Shards",
        "/distribkv.v1.Cluster/Status",
        "/etcdserverpb.Maintenance/Status",
        "/distribkv.v1.KV/Get",
        "/etcdserverpb.KV/Range",
    ]
    .contains(&path)
}

/// Answers operation after operation; a refusal is an answer too.
async fn pipeline(mut body: RecvStream, mut respond: SendResponse<Bytes>, state: Arc<State>) {
    let response = Response::builder().header("content-type", "application/grpc");
    let response = response.body(()).expect("a response");
    // The loadgen may have gone, which is not this side's failure.
    let Ok(mut out) = respond.send_response(response, false) else { return };
    let mut bytes = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).expect("it was received");
        bytes.extend_from_slice(&data);
        while let Some(len) = bytes.get(1..5).map(|len| u32::from_be_bytes([len[0], len[1], len[2], len[3]]))
        {
            if bytes.len() < 5 + len as usize {
                break;
            }
            let message = bytes.split_to(5 + len as usize).freeze().split_off(5);
            let request = v1::PipelineRequest::decode(message).expect("the loadgen spells requests");
            let answer = framed(piped(request, &state).encode_to_vec());
            if out.send_data(answer, false).is_err() {
                return;
            }
        }
    }
}

/// What an operation comes to.
fn piped(request: v1::PipelineRequest, state: &State) -> v1::PipelineResponse {
    use v1::operation::Operation;
    use v1::operation_result::Result as Of;
    use v1::pipeline_response::Outcome;
    let operation = request.operation.and_then(|operation| operation.operation).expect("an operation");
    let (path, message) = match &operation {
        Operation::Get(get) => ("/distribkv.v1.KV/Get", get.encode_to_vec()),
        Operation::Put(put) => ("/distribkv.v1.KV/Put", put.encode_to_vec()),
        Operation::Append(append) => ("/distribkv.v1.KV/Append", append.encode_to_vec()),
        Operation::Delete(delete) => ("/distribkv.v1.KV/Delete", delete.encode_to_vec()),
        Operation::Txn(_) => panic!("the loadgen does not ask for {operation:?}"),
    };
    let outcome = match reply(path, message.into(), state).0 {
        Ok(answer) => {
            let answer = &answer[..];
            let of = match operation {
                Operation::Get(_) => v1::GetResponse::decode(answer).map(Of::Get),
                Operation::Put(_) => v1::PutResponse::decode(answer).map(Of::Put),
                Operation::Delete(_) => v1::DeleteResponse::decode(answer).map(Of::Delete),
                Operation::Append(_) | Operation::Txn(_) => {
                    v1::AppendResponse::decode(answer).map(Of::Append)
                }
            };
            Outcome::Result(v1::OperationResult { result: Some(of.expect("it was just encoded")) })
        }
        Err((code, reason)) => {
            Outcome::Error(v1::Error { code: i32::from(code), reason: reason as i32, ..Default::default() })
        }
    };
    v1::PipelineResponse { tag: request.tag, outcome: Some(outcome) }
}

fn framed(message: Vec<u8>) -> Bytes {
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// The answer to a call, and until when it is held back.
fn reply(path: &str, message: Bytes, state: &State) -> (Reply, Option<Instant>) {
    if path == "/distribkv.v1.Cluster/Shards" {
        return (Ok(shards(&state.address).encode_to_vec()), None);
    }
    if path == "/distribkv.v1.Cluster/Status" {
        let status = v1::StatusResponse { version: "9.8".into(), ..Default::default() };
        return (Ok(status.encode_to_vec()), None);
    }
    let mut inner = state.inner.lock().expect("no test panics with it");
    inner.calls += 1;
    match inner.fault {
        Some(Fault::RefuseEvery(every)) if inner.calls.is_multiple_of(every) => {
            return (Err((14, v1::Reason::NoLeader)), None);
        }
        Some(Fault::Stall { at, span }) if inner.calls == at => {
            inner.stalled_to = Some(Instant::now() + span)
        }
        Some(Fault::StaleEvery(every)) if inner.calls.is_multiple_of(every) => {
            inner.older = (inner.keys.clone(), inner.revision);
        }
        Some(_) | None => {}
    }
    (store(path, message, &mut inner), inner.stalled_to)
}

fn store(path: &str, message: Bytes, inner: &mut Inner) -> Reply {
    let malformed = |_| (3, v1::Reason::Unspecified);
    match path {
        "/grpc.health.v1.Health/Check" => Ok(health::HealthCheckResponse { status: 1 }.encode_to_vec()),
        "/distribkv.v1.KV/Get" => {
            let key = v1::GetRequest::decode(message).map_err(malformed)?.key;
            if let Some(Fault::StaleEvery(_)) = inner.fault {
                let (keys, revision) = &inner.older;
                let kv = keys.get(&key).map(|held| held.kv(&key));
                let header = Some(v1::ResponseHeader { revision: *revision, ..Default::default() });
                return Ok(v1::GetResponse { header, kv }.encode_to_vec());
            }
            let kv = inner.kv(&key);
            Ok(v1::GetResponse { header: inner.header(), kv }.encode_to_vec())
        }
        "/distribkv.v1.KV/Put" => {
            let put = v1::PutRequest::decode(message).map_err(malformed)?;
            let there = inner.keys.get(&put.key).map_or(0, |held| held.revision);
            if put.if_mod_revision.is_some_and(|wanted| wanted != there) {
                let previous = inner.kv(&put.key);
                return Ok(v1::PutResponse { header: inner.header(), previous, ..Default::default() }
                    .encode_to_vec());
            }
            let forgotten = inner.is_now(|fault| matches!(fault, Fault::LoseEvery(_)));
            let before = forgotten.then(|| (inner.keys.clone(), inner.revision));
            let version = inner.put(put.key, put.value);
            let header = inner.header();
            if let Some(before) = before {
                (inner.keys, inner.revision) = before;
            }
            Ok(v1::PutResponse { header, succeeded: true, version, ..Default::default() }.encode_to_vec())
        }
        "/distribkv.v1.KV/Delete" => {
            let key = v1::DeleteRequest::decode(message).map_err(malformed)?.key;
            let existed = inner.delete(&key);
            let header = inner.header();
            Ok(v1::DeleteResponse { header, succeeded: true, existed, previous: None }.encode_to_vec())
        }
        "/distribkv.v1.KV/Append" => {
            let append = v1::AppendRequest::decode(message).map_err(malformed)?;
            let is_doubled = inner.is_now(|fault| matches!(fault, Fault::DoubleEvery(_)));
            let mut value = inner.keys.get(&append.key).map_or_else(Vec::new, |held| held.value.to_vec());
            for _ in 0..1 + usize::from(is_doubled) {
                value.extend_from_slice(&append.value);
            }
            if value.len() > 1 << 20 {
                return Err((9, v1::Reason::Limit));
            }
            let length = value.len() as u64;
            let version = inner.put(append.key, value.into());
            let header = inner.header();
            Ok(v1::AppendResponse { header, succeeded: true, length, version }.encode_to_vec())
        }
        _ => etcd::store(path, message, inner),
    }
}

impl Inner {
    /// Writes a key. Gives its version.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        let before = self.keys.get(&key).map(|held| (held.created, held.version));
        let (created, version) = before.map_or((revision, 1), |(created, version)| (created, version + 1));
        self.keys.insert(key, Held { value, revision, created, version });
        version
    }

    /// Deletes a key. Gives whether it was there.
    pub fn delete(&mut self, key: &Bytes) -> bool {
        let existed = self.keys.remove(key).is_some();
        self.revision += u64::from(existed);
        existed
    }

    /// Whether a fault of that kind is due with this call.
    fn is_now(&self, is_kind: impl Fn(&Fault) -> bool) -> bool {
        match self.fault.filter(is_kind) {
            Some(Fault::LoseEvery(every) | Fault::DoubleEvery(every)) => self.calls.is_multiple_of(every),
            Some(Fault::RefuseEvery(_) | Fault::StaleEvery(_) | Fault::Stall { .. }) | None => false,
        }
    }

    fn kv(&self, key: &Bytes) -> Option<v1::KeyValue> {
        self.keys.get(key).map(|held| held.kv(key))
    }

    fn header(&self) -> Option<v1::ResponseHeader> {
        Some(v1::ResponseHeader { revision: self.revision, ..Default::default() })
    }
}

impl Held {
    fn kv(&self, key: &Bytes) -> v1::KeyValue {
        v1::KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.created,
            mod_revision: self.revision,
            version: self.version,
        }
    }
}

/// The keys of a scan, in pages of at most ten.
fn pages(message: &Bytes, state: &State) -> Vec<Vec<u8>> {
    let request = v1::ScanRequest::decode(message.clone()).expect("the loadgen spells requests");
    let inner = state.inner.lock().expect("no test panics with it");
    let keys = inner.keys.range(request.start..).take(request.limit as usize);
    let kvs: Vec<v1::KeyValue> = keys.filter_map(|(key, _)| inner.kv(key)).collect();
    let page = |kvs: &[v1::KeyValue]| v1::ScanResponse { kvs: kvs.to_vec(), headers: vec![] };
    kvs.chunks(10).map(|kvs| page(kvs).encode_to_vec()).collect()
}

/// Two shards, both led by the one node.
fn shards(address: &str) -> v1::ShardsResponse {
    let shard = |shard, first_slot, last_slot| v1::ShardInfo {
        shard,
        first_slot,
        last_slot,
        leader: 1,
        voters: vec![1],
        learners: vec![],
    };
    let nodes = vec![v1::NodeInfo { node_id: 1, address: address.to_owned() }];
    v1::ShardsResponse { shards: vec![shard(0, 0, 8191), shard(1, 8192, 16383)], nodes }
}
