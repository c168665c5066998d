//! The edge on the wire: what a stock client never sends, and what it does not show.

mod edge_support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use distribkv::edge::store::Serving;
use distribkv::edge::{EdgeLimits, accept};
use distribkv::env::Env as _;
use distribkv::wire::{health, v1};
use edge_support::{Order, TestEdge, through_a_pipe};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};
use prost::Message as _;

const PATIENCE: Duration = Duration::from_secs(10);

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs little").block_on(async {
        tokio::time::timeout(PATIENCE, test).await.expect("the test hangs");
    });
}

async fn connect(edge: &TestEdge) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let socket = tokio::net::TcpStream::connect(edge.address).await.expect("the edge listens");
    let (client, connection) = h2::client::handshake(socket).await.expect("it speaks h2");
    (client, tokio::spawn(connection))
}

fn request(path: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::post(format!("http://x{path}"));
    let defaults = [("content-type", "application/grpc"), ("te", "trailers")];
    for (name, value) in defaults.iter().filter(|(name, _)| headers.iter().all(|(other, _)| name != other)) {
        request = request.header(*name, *value);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("it is well-formed")
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

fn get(key: &str) -> Bytes {
    let key = Bytes::copy_from_slice(key.as_bytes());
    frame(&v1::GetRequest { key, consistency: 0 }.encode_to_vec())
}

/// Sends one call whose body is these parts, each a DATA frame of its own.
async fn call(client: &SendRequest<Bytes>, request: Request<()>, parts: &[Bytes]) -> ResponseFuture {
    let mut client = client.clone().ready().await.expect("the connection is open");
    let (response, mut body) = client.send_request(request, parts.is_empty()).expect("a stream is free");
    for (at, part) in parts.iter().enumerate() {
        if body.send_data(part.clone(), at + 1 == parts.len()).is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    response
}

/// The status of an answer that is headers alone.
async fn trailers_only(response: ResponseFuture) -> HeaderMap {
    let (head, body) = response.await.expect("it is answered").into_parts();
    assert_eq!(head.status, 200);
    assert!(body.is_end_stream(), "nothing follows the headers");
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(head.headers["grpc-accept-encoding"], "identity");
    head.headers
}

/// The whole of an answer: its messages and its trailers.
async fn whole(response: Response<h2::RecvStream>) -> (Vec<u8>, HeaderMap) {
    let (head, mut body) = response.into_parts();
    assert_eq!(head.status, 200);
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.expect("it is not reset");
        body.flow_control().release_capacity(chunk.len()).expect("it was received");
        bytes.extend_from_slice(&chunk);
    }
    (bytes, body.trailers().await.expect("it is not reset").expect("gRPC ends with trailers"))
}

#[test]
fn failures_before_the_first_message_are_headers_alone() {
    let edge = TestEdge::start();
    run(async {
        let (client, _connection) = connect(&edge).await;
        let get_path = "/distribkv.v1.KV/Get";
        let big = {
            let mut prefix = BytesMut::from(&[0][..]);
            prefix.put_u32(u32::MAX);
            prefix.freeze()
        };
        let compressed = Bytes::from_static(&[1, 0, 0, 0, 0]);
        let cases = [
            ("unknown method", request("/distribkv.v1.KV/Nothing", &[]), vec![get("a")], "12"),
            ("unknown service", request("/other.KV/Get", &[]), vec![get("a")], "12"),
            ("encoding", request(get_path, &[("grpc-encoding", "gzip")]), vec![get("a")], "12"),
            ("compressed", request(get_path, &[]), vec![compressed], "12"),
            ("no message", request(get_path, &[]), vec![], "12"),
            ("oversized", request(get_path, &[]), vec![big], "3"),
            ("not protobuf", request(get_path, &[]), vec![frame(b"\xFF\xFF\xFF")], "3"),
            ("cut off", request(get_path, &[]), vec![get("a").slice(..6)], "3"),
            ("timeout", request(get_path, &[("grpc-timeout", "1y")]), vec![get("a")], "3"),
            ("no time", request(get_path, &[("grpc-timeout", "0m")]), vec![get("slow:a")], "4"),
            ("failure", request(get_path, &[]), vec![get("fail:no_leader")], "14"),
        ];
        for (name, request, parts, status) in cases {
            let headers = trailers_only(call(&client, request, &parts).await).await;
            assert_eq!(headers["grpc-status"], status, "{name}: {headers:?}");
            assert!(headers.contains_key("distribkv-error-bin"), "{name}");
            assert!(headers.contains_key("grpc-message"), "{name}");
        }
    });
}

/// What an answer quotes, a client chose: the longest that it can say, in the forms that grow when they are
/// quoted.
#[test]
fn an_answer_quotes_little_of_what_it_quotes() {
    let edge = TestEdge::start();
    run(async {
        let (client, _connection) = connect(&edge).await;
        let long: &'static str = "y".repeat(15_000).leak();
        let path = format!("/distribkv.v1.KV/{long}");
        let get_path = "/distribkv.v1.KV/Get";
        let service = frame(&health::HealthCheckRequest { service: "\u{1}".repeat(1 << 20) }.encode_to_vec());
        let service: Vec<Bytes> = service.chunks(16_000).map(Bytes::copy_from_slice).collect();
        let cases = [
            ("path", request(&path, &[]), vec![get("a")], "12"),
            ("encoding", request(get_path, &[("grpc-encoding", long)]), vec![get("a")], "12"),
            ("timeout", request(get_path, &[("grpc-timeout", long)]), vec![get("a")], "3"),
            ("service", request("/grpc.health.v1.Health/Check", &[]), service, "5"),
        ];
        for (name, request, parts, status) in cases {
            let headers = trailers_only(call(&client, request, &parts).await).await;
            assert_eq!(headers["grpc-status"], status, "{name}");
            let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            assert!(bytes < 8 << 10, "{name}: {bytes} bytes of headers, more than clients take");
        }
    });
}

#[test]
fn what_is_not_grpc_gets_an_http_status() {
    let edge = TestEdge::start();
    run(async {
        let (client, _connection) = connect(&edge).await;
        let json = request("/distribkv.v1.KV/Get", &[("content-type", "application/json")]);
        assert_eq!(call(&client, json, &[]).await.await.expect("it is answered").status(), 415);
        let mut read = request("/distribkv.v1.KV/Get", &[]);
        *read.method_mut() = http::Method::GET;
        assert_eq!(call(&client, read, &[]).await.await.expect("it is answered").status(), 405);
    });
}

#[test]
fn a_message_in_any_pieces_is_the_same_message() {
    let edge = TestEdge::start();
    run(async {
        let (client, _connection) = connect(&edge).await;
        let key = Bytes::from_static(b"pieces");
        let put = v1::PutRequest { key, value: vec![5; 300].into(), ..Default::default() };
        let whole_frame = frame(&put.encode_to_vec());
        for size in [1, 3, 5, 6, 100, 1000] {
            let parts: Vec<Bytes> = whole_frame.chunks(size).map(Bytes::copy_from_slice).collect();
            let response = call(&client, request("/distribkv.v1.KV/Put", &[]), &parts).await;
            let (bytes, trailers) = whole(response.await.expect("it is answered")).await;
            assert_eq!(trailers["grpc-status"], "0", "{size}");
            let response = v1::PutResponse::decode(&bytes[5..]).expect("it is an answer");
            assert!(response.succeeded, "{size}");
        }
    });
}

#[test]
fn a_large_answer_waits_for_the_clients_window() {
    let edge = TestEdge::start();
    run(async {
        let socket = tokio::net::TcpStream::connect(edge.address).await.expect("the edge listens");
        let mut builder = h2::client::Builder::new();
        let handshake = builder.initial_window_size(10_000).handshake::<_, Bytes>(socket);
        let (client, connection) = handshake.await.expect("it speaks h2");
        tokio::spawn(connection);
        let value = Bytes::from(vec![9; 1 << 20]);
        let put = v1::PutRequest { key: Bytes::from_static(b"w"), value, ..Default::default() };
        let parts: Vec<Bytes> =
            frame(&put.encode_to_vec()).chunks(16_000).map(Bytes::copy_from_slice).collect();
        let response = call(&client, request("/distribkv.v1.KV/Put", &[]), &parts).await;
        assert_eq!(whole(response.await.expect("it is answered")).await.1["grpc-status"], "0");
        let response = call(&client, request("/distribkv.v1.KV/Get", &[]), &[get("w")]).await;
        let response = response.await.expect("it is answered");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (bytes, trailers) = whole(response).await;
        assert_eq!(trailers["grpc-status"], "0");
        assert!(bytes.len() > 1 << 20);
    });
}

#[test]
fn bytes_in_flight_are_bounded() {
    let limits = EdgeLimits {
        connection_bytes_max: 4 << 20,
        core_bytes_max: 4 << 20,
        connection_window_bytes: 8 << 20,
        stream_window_bytes: 1 << 20,
        ..EdgeLimits::DEFAULT
    };
    let edge = TestEdge::start_with(limits);
    run(async {
        let (client, _connection) = connect(&edge).await;
        let prefix = |length: u32| {
            let mut prefix = BytesMut::from(&[0][..]);
            prefix.put_u32(length);
            prefix.freeze()
        };
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut client = client.clone().ready().await.expect("the connection is open");
            let put = request("/distribkv.v1.KV/Put", &[]);
            let (response, mut body) = client.send_request(put, false).expect("a stream is free");
            body.send_data(prefix(3 << 20), false).expect("it is open");
            open.push((response, body));
        }
        let (refused, _body) = open.pop().expect("there are two");
        let headers = trailers_only(refused).await;
        assert_eq!(headers["grpc-status"], "8");
        drop(open);
        let response = call(&client, request("/distribkv.v1.KV/Get", &[]), &[get("a")]).await;
        assert_eq!(whole(response.await.expect("it is answered")).await.1["grpc-status"], "0");
    });
}

#[test]
fn a_drain_lets_calls_end_and_takes_no_more() {
    let edge = TestEdge::start();
    run(async {
        let (client, connection) = connect(&edge).await;
        let slow = request("/distribkv.v1.KV/Get", &[("grpc-timeout", "300m")]);
        let slow = call(&client, slow, &[get("slow:x")]).await;
        let mut pipeline = client.clone().ready().await.expect("the connection is open");
        let path = request("/distribkv.v1.KV/Pipeline", &[]);
        let (response, body) = pipeline.send_request(path, false).expect("a stream is free");
        let pipeline = response.await.expect("it has begun");
        edge.order(Order::Drain(Duration::from_secs(5)));
        assert_eq!(whole(pipeline).await.1["grpc-status"], "14", "what was not read was not executed");
        assert_eq!(trailers_only(slow).await["grpc-status"], "2", "the call in progress has its answer");
        drop((client, body));
        connection.await.expect("no panic").expect("it is closed well");
        let late = tokio::net::TcpStream::connect(edge.address).await;
        assert!(late.is_err(), "nobody listens");
    });
    edge.join();
}

#[test]
fn a_drain_cuts_off_what_does_not_end() {
    let edge = TestEdge::start();
    run(async {
        let (client, connection) = connect(&edge).await;
        let slow = call(&client, request("/distribkv.v1.KV/Get", &[]), &[get("slow:x")]).await;
        let begun = Instant::now();
        edge.order(Order::Drain(Duration::from_millis(100)));
        slow.await.expect_err("it is cut off");
        assert!(begun.elapsed() < Duration::from_secs(5));
        drop(client);
        connection.await.expect("no panic").ok();
    });
    edge.join();
}

#[test]
fn a_client_that_gives_up_takes_its_waiter_with_it() {
    let edge = TestEdge::start();
    let begun = Instant::now();
    run(async {
        let (client, connection) = connect(&edge).await;
        let slow = call(&client, request("/distribkv.v1.KV/Get", &[]), &[get("slow:x")]).await;
        let answer = call(&client, request("/distribkv.v1.KV/Get", &[]), &[get("a")]).await;
        answer.await.expect("the slow one was taken in before it");
        drop(slow);
        edge.order(Order::Drain(Duration::from_secs(9)));
        drop(client);
        connection.await.expect("no panic").ok();
    });
    edge.join();
    assert!(begun.elapsed() < Duration::from_secs(5), "the drain waited for nobody");
}

#[test]
fn what_does_not_begin_as_a_client_is_handed_on() {
    let edge = TestEdge::start();
    for first in [&b"DKVP\x01rest"[..], b"PRI * HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n"] {
        let mut socket = TcpStream::connect(edge.address).expect("the edge listens");
        socket.write_all(first).expect("it is open");
        let handed = edge.peers.recv_timeout(PATIENCE).expect("it is handed on");
        assert!(!handed.is_empty() && first.starts_with(&handed), "{handed:?}");
    }
}

/// Reads until the other side closes; how long that took.
fn time_to_close(socket: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let mut rest = Vec::new();
    // A reset is a way to close, too.
    if let Err(error) = socket.read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it is not closed");
    }
    begun.elapsed()
}

fn impatient() -> EdgeLimits {
    EdgeLimits {
        handshake_timeout: Duration::from_millis(60),
        idle_timeout: Duration::from_millis(300),
        keepalive_interval: Duration::from_millis(60),
        keepalive_timeout: Duration::from_millis(60),
        ..EdgeLimits::DEFAULT
    }
}

#[test]
fn silence_is_not_kept() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let edge = TestEdge::start_with(impatient());
    let open = || TcpStream::connect(edge.address).expect("the edge listens");
    let mut says_nothing = open();
    let mut says_half = open();
    says_half.write_all(&PREFACE[..20]).expect("it is open");
    let mut answers_no_ping = open();
    answers_no_ping.write_all(&[PREFACE, SETTINGS].concat()).expect("it is open");
    for socket in [&mut says_nothing, &mut says_half, &mut answers_no_ping] {
        assert!(time_to_close(socket) < Duration::from_secs(5));
    }
}

#[test]
fn a_connection_without_a_stream_ends_one_with_a_stream_does_not() {
    let edge = TestEdge::start_with(impatient());
    run(async {
        let (client, connection) = connect(&edge).await;
        let watch = frame(&health::HealthCheckRequest { service: String::new() }.encode_to_vec());
        let watching = call(&client, request("/grpc.health.v1.Health/Watch", &[]), &[watch]).await;
        let mut watching = watching.await.expect("it is answered").into_body();
        let (_idle_client, idle_connection) = connect(&edge).await;
        idle_connection.await.expect("no panic").ok();
        assert!(watching.data().await.expect("a status").is_ok());
        edge.order(Order::Serve("", Serving::No));
        assert!(watching.data().await.expect("the next status").is_ok(), "it outlives the idle one");
        drop((client, watching));
        connection.await.expect("no panic").ok();
    });
}

#[test]
fn connections_have_a_limit() {
    let edge = TestEdge::start_with(EdgeLimits { connections_max: 2, ..EdgeLimits::DEFAULT });
    run(async {
        let (first, _one) = connect(&edge).await;
        let (_second, _two) = connect(&edge).await;
        // Both are served, so both count.
        let answer = call(&first, request("/distribkv.v1.KV/Get", &[]), &[get("a")]).await.await;
        answer.expect("it is served");
        let socket = tokio::net::TcpStream::connect(edge.address).await.expect("the kernel accepts");
        if let Ok((_client, connection)) = h2::client::handshake::<_>(socket).await {
            let _: Result<(), h2::Error> = connection.await;
        }
    });
}

#[test]
fn a_pipe_in_memory_is_a_connection() {
    through_a_pipe(EdgeLimits::DEFAULT, 1000, async |env, edge, ours| {
        let (client, connection) = h2::client::handshake(ours).await.expect("it speaks h2");
        env.spawn(async move {
            connection.await.ok();
        });
        for _ in 0..100 {
            let mut client = client.clone().ready().await.expect("it is open");
            let path = request("/distribkv.v1.KV/Get", &[]);
            let (response, mut body) = client.send_request(path, false).expect("a stream is free");
            body.send_data(get("a"), true).expect("it is open");
            let (_, trailers) = whole(response.await.expect("it is answered")).await;
            assert_eq!(trailers["grpc-status"], "0");
        }
        drop(client);
        edge.drain(Duration::from_secs(5)).await;
        assert_eq!(edge.connections(), 0);
    });
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    // Of a range that is kept for examples: no machine has it.
    let refused = accept::bind("203.0.113.1", 0, 1).expect_err("it is not ours").to_string();
    assert!(refused.starts_with("cannot listen on 203.0.113.1:0: "), "{refused}");
    let first = accept::bind("127.0.0.1", 0, 2).expect("the loopback has a free port");
    let taken = accept::bind("127.0.0.1", first.addresses[0].port(), 1).expect_err("it is taken").to_string();
    assert_eq!(taken, format!("{} is in use by another process; choose another port", first.addresses[0]));
    assert_eq!(first.cores.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
}
