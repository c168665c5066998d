//! Answers that their client does not take: they end by the call's deadline, or when nothing of them was
//! taken for long, and what they held is there for others; an answer that moves, or has nothing to say, goes
//! on.

mod edge_support;
#[path = "edge_support/hpack.rs"]
mod hpack;
#[path = "edge_support/raw.rs"]
mod raw;

use std::time::Duration;

use bytes::Bytes;
use distribkv::edge::EdgeLimits;
use distribkv::edge::store::Serving;
use distribkv::env::Env as _;
use distribkv::wire::{health, v1};
use edge_support::{Order, TestEdge, backup_pieces, through_a_pipe};
use raw::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BACKUP_PATH: &str = "/distribkv.v1.Maintenance/Backup";
const SCAN_PATH: &str = "/distribkv.v1.KV/Scan";
const WATCH_PATH: &str = "/grpc.health.v1.Health/Watch";
const PIPELINE_PATH: &str = "/distribkv.v1.KV/Pipeline";

const STALL: Duration = Duration::from_millis(1500);

/// A step of who is slow: several of them are less than a stall.
const STEP: Duration = Duration::from_millis(100);

fn soon_stalled() -> EdgeLimits {
    EdgeLimits { backups_max: 2, stall_timeout: STALL, ..EdgeLimits::DEFAULT }
}

/// The frames of a call with one message.
fn call(stream: u32, fields: impl AsRef<[u8]>, body: &[u8]) -> Vec<u8> {
    [frame(HEADERS, OPEN, stream, fields), frame(DATA, END_STREAM, stream, body)].concat()
}

fn backup(stream: u32) -> Vec<u8> {
    call(stream, post(BACKUP_PATH), &message(&v1::BackupRequest {}))
}

fn scan(stream: u32) -> Vec<u8> {
    call(stream, post(SCAN_PATH), &message(&v1::ScanRequest::default()))
}

/// A connection whose edge holds a value of 100 kB, which a scan brings.
fn with_a_large_value(edge: &TestEdge) -> Conn {
    let mut conn = Conn::open_with(edge, &[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    conn.send(frame(HEADERS, OPEN, 1, post(PUT_PATH)));
    conn.send_data(1, &put_message("k", vec![7; 100_000]));
    assert!(conn.answer(1).message::<v1::PutResponse>().succeeded);
    conn
}

fn within(path: &str, timeout: &str) -> Vec<u8> {
    [post(path), hpack::literal("grpc-timeout", timeout)].concat()
}

/// Reads until a stream ends: its status.
fn status(conn: &mut Conn, stream: u32) -> String {
    conn.answer(stream).field("grpc-status").expect("it ends in a status").to_owned()
}

#[test]
fn a_deadline_ends_what_a_client_does_not_take() {
    let edge = TestEdge::start_with(EdgeLimits { backups_max: 2, ..EdgeLimits::DEFAULT });
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 0)]);
    let get = v1::GetRequest { key: Bytes::from_static(b"k"), consistency: 0 };
    let operation = v1::Operation { operation: Some(v1::operation::Operation::Get(get)) };
    let pipelined = message(&v1::PipelineRequest { tag: 1, operation: Some(operation) });
    let watched = message(&health::HealthCheckRequest::default());
    let asked = message(&v1::BackupRequest {});
    conn.send(
        [
            call(1, within(BACKUP_PATH, "300m"), &asked),
            call(3, within(BACKUP_PATH, "300m"), &asked),
            call(5, post(BACKUP_PATH), &asked),
            call(7, within(PIPELINE_PATH, "300m"), &pipelined),
            call(9, within(WATCH_PATH, "300m"), &watched),
        ]
        .concat(),
    );
    assert!(conn.answer(5).is_trailers_only("8"), "there is no room for a third backup");
    for stream in [1, 3, 7, 9] {
        assert_eq!(status(&mut conn, stream), "4", "{stream}");
    }
    let mut other = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 64 << 20)]);
    other.grow(0, 64 << 20);
    other.send(backup(1));
    assert_eq!(status(&mut other, 1), "0", "there is room again");
}

#[test]
fn what_nobody_takes_for_long_ends_without_a_deadline() {
    let edge = TestEdge::start_with(soon_stalled());
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 0)]);
    conn.send([backup(1), backup(3), backup(5)].concat());
    assert!(conn.answer(5).is_trailers_only("8"), "there is no room for a third one");
    for stream in [1, 3] {
        assert_eq!(status(&mut conn, stream), "4");
    }
    conn.grow(0, 64 << 20);
    conn.set(&[(INITIAL_WINDOW_SIZE, 64 << 20)]);
    conn.send(backup(7));
    assert_eq!(status(&mut conn, 7), "0", "there is room again");
}

#[test]
fn who_takes_a_little_at_a_time_is_not_cut_off() {
    let edge = TestEdge::start_with(soon_stalled());
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 0)]);
    conn.send(backup(1));
    for _ in 0..30 {
        conn.grow(1, 1);
        std::thread::sleep(STEP);
    }
    conn.grow(0, 64 << 20);
    conn.grow(1, 64 << 20);
    let answer = conn.answer(1);
    assert_eq!(answer.field("grpc-status"), Some("0"));
    assert!(answer.data.len() > backup_pieces().iter().map(Bytes::len).sum());
}

#[test]
fn who_waits_for_its_turn_is_not_cut_off() {
    let edge = TestEdge::start_with(soon_stalled());
    let mut conn = with_a_large_value(&edge);
    let streams: Vec<u32> = (1..=40).map(|at| 2 * at + 1).collect();
    conn.send(streams.iter().flat_map(|stream| scan(*stream)).collect::<Vec<_>>());
    conn.until("the window is used up", |conn| conn.window == 0);
    // A byte for one of them at a time: a round takes longer than a stall.
    for _ in 0..35 {
        conn.grow(0, 1);
        std::thread::sleep(STEP);
    }
    conn.grow(0, 64 << 20);
    for stream in streams {
        assert_eq!(status(&mut conn, stream), "0", "{stream}");
    }
}

#[test]
fn who_says_that_it_is_alive_and_takes_nothing_is_cut_off() {
    let edge = TestEdge::start_with(soon_stalled());
    let mut conn = with_a_large_value(&edge);
    conn.send(scan(3));
    conn.until("the window is used up", |conn| conn.window == 0);
    // Answers to pings are written, and are none to the scan.
    let begun = std::time::Instant::now();
    while begun.elapsed() < 3 * STALL {
        conn.fence();
        std::thread::sleep(STEP);
    }
    assert_eq!(conn.answers.get(&3).and_then(|answer| answer.field("grpc-status")), Some("4"));
}

/// A connection that is asked soon whether it is there.
fn soon_asked() -> EdgeLimits {
    EdgeLimits {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(100),
        ..EdgeLimits::DEFAULT
    }
}

/// What a client says that wants a backup, with room for all of it, and then nothing.
fn wants_all() -> Vec<u8> {
    let settings = settings(&[(INITIAL_WINDOW_SIZE, 64 << 20)]);
    [PREFACE, &settings, &frame(SETTINGS, ACK, 0, []), &window_update(0, 64 << 20), &backup(1)].concat()
}

/// The question whether the client is there lies behind all that it has not taken yet.
#[test]
fn who_takes_what_is_said_and_says_nothing_is_not_taken_for_gone() {
    through_a_pipe(soon_asked(), 1000, async |env, _, mut ours| {
        ours.write_all(&wants_all()).await.expect("it is open");
        let mut taken = 0;
        while taken < 1 << 20 {
            let read = ours.read(&mut [0; 1000]).await.expect("it is open");
            assert!(read > 0, "closed after {taken} bytes");
            taken += read;
            env.sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn who_takes_nothing_and_says_nothing_is_gone() {
    through_a_pipe(soon_asked(), 1000, async |env, edge, mut ours| {
        ours.write_all(&wants_all()).await.expect("it is open");
        // A first piece, so that it is known to be served.
        ours.read_exact(&mut [0; 1000]).await.expect("it is open");
        assert_eq!(edge.connections(), 1);
        let begun = env.now();
        while edge.connections() > 0 {
            assert!(env.now().since(begun) < PATIENCE, "it is kept");
            env.sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_watch_without_news_goes_on() {
    let edge = TestEdge::start_with(soon_stalled());
    let mut conn = Conn::open(&edge);
    let request = health::HealthCheckRequest { service: "shard/0".to_owned() };
    conn.send(call(1, post(WATCH_PATH), &message(&request)));
    let said = |conn: &Conn| conn.answers.get(&1).map_or(0, |answer| answer.data.len());
    conn.until("the first status", |conn| said(conn) > 0);
    let first = said(&conn);
    std::thread::sleep(2 * STALL);
    edge.order(Order::Serve("shard/0", Serving::No));
    conn.until("the next status", |conn| said(conn) > first);
}
