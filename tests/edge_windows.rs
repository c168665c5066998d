//! Flow control at the edge (RFC 9113, sections 5.2 and 6.9): the server sends what the client's windows
//! have room for and all of that, and gives its own windows back.
//!
//! That no frame goes beyond a window is held by [`raw`], which counts with the server.

mod edge_support;
#[path = "edge_support/hpack.rs"]
mod hpack;
#[path = "edge_support/raw.rs"]
mod raw;

use distribkv::edge::EdgeLimits;
use distribkv::wire::v1;
use edge_support::TestEdge;
use raw::*;

/// Makes a value known by a key.
fn put(edge: &TestEdge, key: &str, length: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let mut conn = Conn::open(edge);
    conn.send(frame(HEADERS, OPEN, 1, post(PUT_PATH)));
    conn.send_data(1, &put_message(key, value.clone()));
    assert!(conn.answer(1).message::<v1::PutResponse>().succeeded);
    value
}

/// Reads until a stream has so many bytes of its answer, and all that was sent has been looked at: it has
/// these and no more.
fn has(conn: &mut Conn, stream: u32, bytes: usize) {
    let received = |conn: &Conn| conn.answers.get(&stream).map_or(0, |answer| answer.data.len());
    conn.until(&format!("{bytes} bytes"), |conn| received(conn) >= bytes);
    conn.fence();
    assert_eq!(received(conn), bytes, "no more than that");
}

/// The value that a Get answered with.
fn value_of(answer: &Answer) -> Vec<u8> {
    answer.message::<v1::GetResponse>().kv.expect("it was put").value.to_vec()
}

#[test]
fn an_answer_comes_byte_by_byte_as_a_streams_window_lets_it() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 1000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 1)]);
    conn.send(get(1, "k"));
    for bytes in 1..30 {
        has(&mut conn, 1, bytes);
        conn.grow(1, 1);
    }
    conn.grow(1, 470);
    has(&mut conn, 1, 500);
    conn.grow(1, 100_000);
    assert_eq!(value_of(&conn.answer(1)), value);
}

#[test]
fn a_window_of_nothing_holds_data_alone() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 1000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 0)]);
    conn.send([get(1, "k"), get(3, "fail:no_leader"), get(5, "k")].concat());
    assert!(conn.answer(3).is_trailers_only("14"));
    has(&mut conn, 1, 0);
    conn.grow(5, 2000);
    assert_eq!(value_of(&conn.answer(5)), value);
    has(&mut conn, 1, 0);
    conn.grow(1, 2000);
    assert_eq!(value_of(&conn.answer(1)), value);
}

#[test]
fn a_window_may_be_grown_before_there_is_anything_to_send() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 1000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 0)]);
    conn.send(frame(HEADERS, OPEN, 1, post(GET_PATH)));
    conn.grow(1, 700);
    conn.grow(1, 700);
    conn.send(frame(DATA, END_STREAM, 1, get_message("k")));
    assert_eq!(value_of(&conn.answer(1)), value);
}

#[test]
fn the_connections_window_is_shared() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 100_000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    conn.send([get(1, "k"), get(3, "k")].concat());
    conn.until("the window is used up", |conn| conn.window == 0);
    conn.send([get(5, "fail:no_leader"), get(7, "any")].concat());
    assert!(conn.answer(5).is_trailers_only("14"), "what is no data goes on");
    conn.fence();
    assert_eq!(conn.window, 0);
    // All of them come, whichever is given the room.
    for _ in 0..20 {
        conn.grow(0, 5000);
        conn.until("the window is used up", |conn| conn.window == 0);
    }
    conn.grow(0, 1 << 20);
    assert_eq!(value_of(&conn.answer(1)), value);
    assert_eq!(value_of(&conn.answer(3)), value);
    conn.answer(7).message::<v1::GetResponse>();
}

#[test]
fn a_stream_that_is_held_does_not_hold_others() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 30_000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 100)]);
    conn.grow(0, 10_000_000);
    conn.send((0..50).map(|at| get(2 * at + 1, "k")).collect::<Vec<_>>().concat());
    for at in (0..50).rev() {
        conn.grow(2 * at + 1, 31_000);
        assert_eq!(value_of(&conn.answer(2 * at + 1)), value, "{at}");
    }
}

#[test]
fn a_reset_gives_the_connections_window_to_others() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 50_000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    conn.send([get(1, "k"), get(3, "k"), get(5, "k")].concat());
    conn.until("the window is used up", |conn| conn.window == 0);
    let unread: Vec<u32> = (1..6).step_by(2).filter(|at| !is_ended(&conn, *at)).collect();
    for stream in &unread {
        conn.send(reset(*stream));
    }
    conn.fence();
    conn.send(get(7, "k"));
    conn.grow(0, 60_000);
    assert_eq!(value_of(&conn.answer(7)), value, "of the new room nothing went to what nobody reads");
}

fn is_ended(conn: &Conn, stream: u32) -> bool {
    conn.answers.get(&stream).is_some_and(|answer| answer.is_ended)
}

#[test]
fn settings_change_the_windows_of_open_streams() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 1000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 100)]);
    conn.send(get(1, "k"));
    has(&mut conn, 1, 100);
    // 50 below nothing.
    conn.set(&[(INITIAL_WINDOW_SIZE, 50)]);
    conn.grow(1, 50);
    has(&mut conn, 1, 100);
    conn.grow(1, 10);
    has(&mut conn, 1, 110);
    conn.set(&[(INITIAL_WINDOW_SIZE, 200)]);
    has(&mut conn, 1, 260);
    // The last of a setting that comes twice holds; the streams in between never see the first.
    conn.set(&[(INITIAL_WINDOW_SIZE, 0)]);
    conn.set(&[(INITIAL_WINDOW_SIZE, 210)]);
    has(&mut conn, 1, 270);
    conn.send(get(3, "k"));
    has(&mut conn, 3, 210);
    conn.set(&[(INITIAL_WINDOW_SIZE, 5000)]);
    assert_eq!(value_of(&conn.answer(1)), value);
    assert_eq!(value_of(&conn.answer(3)), value);
}

#[test]
fn settings_do_not_change_the_connections_window() {
    let edge = TestEdge::start();
    put(&edge, "k", 200_000);
    let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    conn.send(get(1, "k"));
    has(&mut conn, 1, WINDOW_BYTES as usize);
    conn.set(&[(INITIAL_WINDOW_SIZE, 1 << 21)]);
    has(&mut conn, 1, WINDOW_BYTES as usize);
    conn.grow(0, 1000);
    has(&mut conn, 1, WINDOW_BYTES as usize + 1000);
}

#[test]
fn a_window_that_settings_overflow_ends_the_connection() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    conn.send(frame(HEADERS, OPEN, 1, post(GET_PATH)));
    conn.send(window_update(1, 1));
    conn.send([settings(&[(INITIAL_WINDOW_SIZE, WINDOW_BYTES_MAX)]), frame(PING, 0, 0, [0; 8])].concat());
    conn.expect_acks(1);
    let end = conn.end();
    assert!(end.is_some_and(|code| may_give(code, &[FLOW_CONTROL_ERROR])), "{end:?}");
    assert_serves(&edge);
}

/// Windows that a few messages fill.
fn narrow() -> EdgeLimits {
    EdgeLimits { stream_window_bytes: 70_000, connection_window_bytes: 140_000, ..EdgeLimits::DEFAULT }
}

#[test]
fn the_server_gives_its_windows_back() {
    let edge = TestEdge::start_with(narrow());
    let mut conn = Conn::open(&edge);
    for at in 0..60 {
        let stream = 2 * at + 1;
        conn.send(frame(HEADERS, OPEN, stream, post(PUT_PATH)));
        conn.send_data(stream, &put_message("k", vec![at as u8; 64 << 10]));
        assert!(conn.answer(stream).message::<v1::PutResponse>().succeeded);
    }
    // One message that is larger than every window.
    conn.send(frame(HEADERS, OPEN, 201, post(PUT_PATH)));
    conn.send_data(201, &put_message("k", vec![7; 1 << 20]));
    assert!(conn.answer(201).message::<v1::PutResponse>().succeeded);
    conn.fence();
    assert!(conn.send_window() > 70_000, "half of it at least: {}", conn.send_window());
}

#[test]
fn padding_is_given_back() {
    let edge = TestEdge::start_with(narrow());
    let mut conn = Conn::open(&edge);
    let body = put_message("k", vec![5; 3000]);
    conn.send(frame(HEADERS, OPEN, 1, post(PUT_PATH)));
    for byte in body.chunks(1) {
        while conn.send_window() < 300 || conn.stream_send_window(1) < 300 {
            conn.step().expect("the windows are given back");
        }
        conn.send_counted(1, PADDED, &padded(byte, 255));
    }
    conn.send_counted(1, END_STREAM, &[]);
    assert!(conn.answer(1).message::<v1::PutResponse>().succeeded);
}

#[test]
fn what_nobody_reads_is_given_back() {
    let edge = TestEdge::start_with(narrow());
    let mut conn = Conn::open(&edge);
    let piece = vec![0; 10_000];
    for at in 0..100 {
        let stream = 4 * at + 1;
        while conn.send_window() < 20_000 {
            conn.step().expect("the connection's window is given back");
        }
        // Data of a call that was refused, and of one that the client takes back.
        conn.send(frame(HEADERS, OPEN, stream, post("/no.Service/Method")));
        conn.send_counted(stream, END_STREAM, &piece);
        conn.send(frame(HEADERS, OPEN, stream + 2, post(PUT_PATH)));
        conn.send_counted(stream + 2, 0, &piece);
        conn.send(reset(stream + 2));
        assert!(conn.answer(stream).is_trailers_only("12"));
    }
    conn.serves(1001);
}

#[test]
fn data_after_a_reset_of_the_server_is_given_back() {
    let edge = TestEdge::start_with(narrow());
    let mut conn = Conn::open(&edge);
    let piece = vec![0; 10_000];
    for at in 0..50 {
        let stream = 2 * at + 1;
        conn.send(frame(HEADERS, OPEN, stream, post("/no.Service/Method")));
        assert!(conn.answer(stream).is_trailers_only("12"));
        while conn.send_window() < 20_000 {
            conn.step().expect("the connection's window is given back");
        }
        // By now the server has ended the stream and, it may be, forgotten it.
        conn.send_counted(stream, 0, &piece);
        conn.send_counted(stream, END_STREAM, &piece);
    }
    conn.serves(1001);
}

#[test]
fn a_client_that_overruns_a_window_is_stopped() {
    let limits = EdgeLimits { pipeline_operations_max: 1, connection_unread_bytes_max: 140_000, ..narrow() };
    let edge = TestEdge::start_with(limits);
    for count in [1, 4] {
        let mut conn = Conn::open(&edge);
        // Nothing more is read of a Pipeline whose operation waits.
        let slow = v1::PipelineRequest { tag: 1, operation: Some(slow_operation()) };
        let streams: Vec<u32> = (0..count).map(|at| 2 * at + 1).collect();
        for stream in &streams {
            conn.send(frame(HEADERS, OPEN, *stream, post("/distribkv.v1.KV/Pipeline")));
            for _ in 0..4 {
                conn.send_counted(*stream, 0, &message(&slow));
            }
        }
        conn.fence();
        // One window is overrun: of the stream where there is one, of the connection where there are more.
        let each = if count == 1 { 7 } else { 4 };
        for stream in &streams {
            for _ in 0..each {
                conn.send(frame(
                    DATA,
                    0,
                    *stream,
                    message(&slow).repeat(FRAME_BYTES_MAX / message(&slow).len()),
                ));
            }
        }
        let outcome = conn.outcome(*streams.last().expect("there is one"));
        let is_right = match outcome {
            Outcome::Reset(code) => count == 1 && code == FLOW_CONTROL_ERROR,
            Outcome::Closed(code) => may_give(code, &[FLOW_CONTROL_ERROR]),
            Outcome::Answered(_) => false,
        };
        assert!(is_right, "{streams:?}: {outcome:?}");
        assert_serves(&edge);
    }
}

#[test]
fn streams_that_are_not_read_do_not_hold_what_others_have_sent() {
    let default = EdgeLimits::DEFAULT;
    let most_of_it = EdgeLimits { stream_window_bytes: 52_000, ..narrow() };
    for limits in [most_of_it, narrow(), default] {
        let (window, of_connection) = (limits.stream_window_bytes, limits.connection_window_bytes);
        let edge = TestEdge::start_with(EdgeLimits {
            pipeline_operations_max: 1,
            deadline_default: 3 * PATIENCE,
            ..limits
        });
        let mut conn = Conn::open(&edge);
        let streams: Vec<u32> = (0..of_connection / window).map(|at| 2 * at + 1).collect();
        for stream in &streams {
            conn.send(frame(HEADERS, OPEN, *stream, post("/distribkv.v1.KV/Pipeline")));
            for piece in half_a_window(window).chunks(FRAME_BYTES_MAX) {
                conn.send_counted(*stream, 0, piece);
            }
            conn.until("it is given back", |conn| conn.stream_send_window(*stream) == i64::from(window));
        }
        // All that they may send, and nobody takes it.
        for stream in &streams {
            for piece in vec![0; window as usize].chunks(FRAME_BYTES_MAX) {
                conn.send_counted(*stream, 0, piece);
            }
        }
        conn.send(frame(HEADERS, OPEN, 101, post(PUT_PATH)));
        conn.send_data(101, &put_message("k", vec![7; 60_000]));
        assert!(conn.answer(101).message::<v1::PutResponse>().succeeded, "{window} of {of_connection}");
    }
}

/// Operations of a Pipeline of which the last one waits, and which are taken: their last byte has the
/// stream's window given back.
fn half_a_window(window: u32) -> Vec<u8> {
    let slow = message(&v1::PipelineRequest { tag: 2, operation: Some(slow_operation()) });
    let put = |length: usize| {
        let put = v1::PutRequest { key: "k".into(), value: vec![7; length].into(), ..Default::default() };
        let operation = v1::Operation { operation: Some(v1::operation::Operation::Put(put)) };
        message(&v1::PipelineRequest { tag: 1, operation: Some(operation) })
    };
    let length = window as usize / 2 - slow.len();
    let around = put(length).len() - length;
    let half = [put(length - around), slow].concat();
    assert_eq!(half.len(), window as usize / 2);
    half
}

fn slow_operation() -> v1::Operation {
    let key = "slow:x".into();
    let get = v1::GetRequest { key, consistency: 0 };
    v1::Operation { operation: Some(v1::operation::Operation::Get(get)) }
}

#[test]
fn windows_of_every_size_make_whole_answers() {
    let edge = TestEdge::start();
    let value = put(&edge, "k", 40_000);
    for (initial, step) in [(0, 1000), (7, 777), (16_384, 16_384), (16_383, 8000), (65_535, 1)] {
        let mut conn = Conn::open_with(&edge, &[(INITIAL_WINDOW_SIZE, initial)]);
        conn.send(get(1, "k"));
        let mut allowed = initial;
        while allowed < 40_000 {
            has(&mut conn, 1, allowed as usize);
            conn.grow(1, step);
            allowed += step;
        }
        conn.grow(1, 1000);
        assert_eq!(value_of(&conn.answer(1)), value, "{initial}, then {step}");
    }
}
