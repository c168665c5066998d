//! HTTP/2 at the edge, frame by frame (RFC 9113): what a server has to take, what it has to refuse, and how.
//!
//! An error of the connection shows as a GOAWAY and the end, or as the end alone; an error of a stream may
//! be made one of the connection. Whatever a client does, the next one is served.

mod edge_support;
#[path = "edge_support/hpack.rs"]
mod hpack;
#[path = "edge_support/raw.rs"]
mod raw;

use std::time::Duration;

use bytes::Bytes;
use distribkv::edge::EdgeLimits;
use distribkv::wire::{health, v1};
use edge_support::{Order, TestEdge};
use raw::*;

/// What is sent on a connection that is agreed on, and the codes that the server may give for it.
type Mistake = (&'static str, Vec<u8>, &'static [u32]);

/// A request whose body is to come.
fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, OPEN, stream, post(GET_PATH))
}

/// A request whose body has ended, and which waits for its deadline.
fn waiting(stream: u32) -> Vec<u8> {
    get(stream, "slow:x")
}

/// Each mistake on a connection of its own, which ends of it.
fn end_connections(mistakes: &[Mistake]) {
    let edge = TestEdge::start();
    let mut wrong = Vec::new();
    for (name, bytes, codes) in mistakes {
        let mut conn = Conn::open(&edge);
        conn.send([bytes.as_slice(), &frame(PING, 0, 0, [0; 8])].concat());
        let end = conn.end();
        // No stream is named that nobody opened.
        if !end.is_some_and(|code| may_give(code, codes)) || conn.goaway.is_some_and(|(last, _)| last > 5) {
            wrong.push((name, end, conn.goaway));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_serves(&edge);
}

/// Each mistake on stream 1 of a connection of its own: the stream ends, or the connection. Where the
/// stream alone does, the connection serves on.
fn end_streams(mistakes: &[Mistake]) {
    let edge = TestEdge::start();
    let mut wrong = Vec::new();
    for (name, bytes, codes) in mistakes {
        let mut conn = Conn::open(&edge);
        conn.send(bytes);
        let outcome = conn.outcome(1);
        let is_right = match outcome {
            Outcome::Reset(code) => may_give(Some(code), codes),
            Outcome::Closed(code) => may_give(code, codes),
            Outcome::Answered(_) => false,
        };
        if !is_right {
            wrong.push((name, outcome));
        } else if matches!(outcome, Outcome::Reset(_)) {
            conn.serves(101);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_serves(&edge);
}

#[test]
fn the_server_tells_its_settings_first() {
    let limits = EdgeLimits {
        streams_max: 77,
        header_list_bytes_max: 5000,
        stream_window_bytes: 100_000,
        connection_window_bytes: 300_000,
        frame_bytes_max: 20_000,
        ..EdgeLimits::DEFAULT
    };
    let edge = TestEdge::start_with(limits);
    let mut conn = Conn::open(&edge);
    conn.fence();
    assert_eq!(conn.settings.get(&MAX_CONCURRENT_STREAMS), Some(&77));
    assert_eq!(conn.settings.get(&MAX_HEADER_LIST_SIZE), Some(&5000));
    assert_eq!(conn.settings.get(&INITIAL_WINDOW_SIZE), Some(&100_000));
    assert_eq!(conn.settings.get(&MAX_FRAME_SIZE), Some(&20_000));
    assert_eq!(conn.settings.get(&ENABLE_PUSH).unwrap_or(&0), &0, "a server may not push and say so");
    assert_eq!(conn.send_window(), 300_000, "the connection's window is told by an update");
    conn.serves(1);
}

#[test]
fn frames_of_the_announced_size_are_taken() {
    let edge = TestEdge::start_with(EdgeLimits { frame_bytes_max: 40_000, ..EdgeLimits::DEFAULT });
    let mut conn = Conn::open(&edge);
    let put = put_message("large", vec![7; 39_900]);
    conn.send([frame(HEADERS, OPEN, 1, post(PUT_PATH)), frame(DATA, END_STREAM, 1, put)].concat());
    assert!(conn.answer(1).message::<v1::PutResponse>().succeeded);
    conn.send([begun(3), frame(DATA, 0, 3, vec![0; 40_001])].concat());
    assert!(matches!(conn.outcome(3), Outcome::Closed(_) | Outcome::Reset(FRAME_SIZE_ERROR)));
}

#[test]
fn settings_are_acknowledged_in_order() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    for size in 1..=20 {
        conn.set(&[
            (INITIAL_WINDOW_SIZE, size),
            (0x0a0a, size),
            (0xffff, u32::MAX),
            (MAX_FRAME_SIZE, 16_384),
        ]);
    }
    conn.set(&[(INITIAL_WINDOW_SIZE, WINDOW_BYTES_MAX), (MAX_FRAME_SIZE, (1 << 24) - 1), (ENABLE_PUSH, 0)]);
    conn.until("all are acknowledged", |conn| conn.settings_acks == 22);
    conn.serves(1);
}

#[test]
fn settings_out_of_bounds_end_the_connection() {
    let setting = |name, value| settings(&[(name, value)]);
    end_connections(&[
        ("a window too large", setting(INITIAL_WINDOW_SIZE, 1 << 31), &[FLOW_CONTROL_ERROR]),
        ("the largest window", setting(INITIAL_WINDOW_SIZE, u32::MAX), &[FLOW_CONTROL_ERROR]),
        ("frames too small", setting(MAX_FRAME_SIZE, 16_383), &[PROTOCOL_ERROR]),
        ("frames too large", setting(MAX_FRAME_SIZE, 1 << 24), &[PROTOCOL_ERROR]),
        ("push is yes or no", setting(ENABLE_PUSH, 2), &[PROTOCOL_ERROR]),
        ("five bytes", frame(SETTINGS, 0, 0, [0; 5]), &[FRAME_SIZE_ERROR]),
        ("seven bytes", frame(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 1, 0]), &[FRAME_SIZE_ERROR]),
        ("an acknowledgement that says something", frame(SETTINGS, ACK, 0, [0; 6]), &[FRAME_SIZE_ERROR]),
        ("settings of a stream", frame(SETTINGS, 0, 1, []), &[PROTOCOL_ERROR]),
    ]);
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    let edge = TestEdge::start();
    let beginnings = [
        ("another end", [&PREFACE[..18], b"XX\r\n\r\n", &settings(&[])].concat()),
        ("half of it twice", [&PREFACE[..16], PREFACE, &settings(&[])].concat()),
        ("settings that are none", [PREFACE, &frame(SETTINGS, 0, 0, [0; 5])].concat()),
        ("noise", [PREFACE, &[0xff; 100]].concat()),
    ];
    for (name, bytes) in beginnings {
        let mut conn = Conn::connect(&edge);
        conn.send(bytes);
        let end = conn.end();
        assert!(end.is_some_and(|code| may_give(code, &[FRAME_SIZE_ERROR])), "{name}: {end:?}");
    }
    assert_serves(&edge);
}

#[test]
fn a_ping_comes_back() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    conn.send(frame(PING, 0xfe, 0, *b"undefine"));
    conn.send(frame(PING, ACK, 0, *b"answered"));
    conn.send(frame(PING, 0, 0, *b"question"));
    conn.until("both are answered", |conn| conn.pongs.len() == 2);
    conn.fence();
    assert_eq!(conn.pongs[..2], [b"undefine", b"question"]);
    assert_eq!(conn.pongs.len(), 3, "an answer is not answered");
}

#[test]
fn small_frames_have_their_form() {
    let four = [0, 0, 0, 1];
    end_connections(&[
        ("a short ping", frame(PING, 0, 0, [0; 7]), &[FRAME_SIZE_ERROR]),
        ("a long ping", frame(PING, 0, 0, [0; 9]), &[FRAME_SIZE_ERROR]),
        ("a ping of a stream", frame(PING, 0, 1, [0; 8]), &[PROTOCOL_ERROR]),
        ("a reset of the connection", frame(RST_STREAM, 0, 0, four), &[PROTOCOL_ERROR]),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 1, four), &[PROTOCOL_ERROR]),
        ("a short reset", [begun(1), frame(RST_STREAM, 0, 1, [0; 3])].concat(), &[FRAME_SIZE_ERROR]),
        ("a long reset", [begun(1), frame(RST_STREAM, 0, 1, [0; 5])].concat(), &[FRAME_SIZE_ERROR]),
        ("a window grows by nothing", window_update(0, 0), &[PROTOCOL_ERROR]),
        ("a window overflows", window_update(0, WINDOW_BYTES_MAX), &[FLOW_CONTROL_ERROR]),
        ("a short update", frame(WINDOW_UPDATE, 0, 0, [1; 3]), &[FRAME_SIZE_ERROR]),
        ("a long update", frame(WINDOW_UPDATE, 0, 0, [1; 5]), &[FRAME_SIZE_ERROR]),
        ("an update of an idle stream", window_update(1, 1), &[PROTOCOL_ERROR]),
        ("a priority of the connection", frame(PRIORITY, 0, 0, [0; 5]), &[PROTOCOL_ERROR]),
        ("a promise", frame(PUSH_PROMISE, END_HEADERS, 1, four), &[PROTOCOL_ERROR]),
        (
            "a promise on a stream",
            [begun(1), frame(PUSH_PROMISE, END_HEADERS, 1, four)].concat(),
            &[PROTOCOL_ERROR],
        ),
        ("a farewell of a stream", frame(GOAWAY, 0, 1, [0; 8]), &[PROTOCOL_ERROR]),
        ("a short farewell", frame(GOAWAY, 0, 0, [0; 7]), &[FRAME_SIZE_ERROR]),
    ]);
}

#[test]
fn data_belongs_to_an_open_stream() {
    end_connections(&[
        ("on the connection", frame(DATA, 0, 0, b"x"), &[PROTOCOL_ERROR]),
        ("on an idle stream", frame(DATA, 0, 1, b"x"), &[PROTOCOL_ERROR]),
        ("on a later stream", [begun(1), frame(DATA, 0, 3, b"x")].concat(), &[PROTOCOL_ERROR]),
        ("on an even stream", frame(DATA, 0, 2, b"x"), &[PROTOCOL_ERROR]),
        ("padding as long as the frame", [begun(1), frame(DATA, PADDED, 1, [1])].concat(), &[PROTOCOL_ERROR]),
        (
            "padding longer than the frame",
            [begun(1), frame(DATA, PADDED, 1, [9, 0, 0])].concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "padding of no length",
            [begun(1), frame(DATA, PADDED, 1, [])].concat(),
            &[PROTOCOL_ERROR, FRAME_SIZE_ERROR],
        ),
    ]);
}

#[test]
fn streams_have_an_order() {
    end_connections(&[
        ("a request on the connection", begun(0), &[PROTOCOL_ERROR]),
        ("a request on an even stream", begun(2), &[PROTOCOL_ERROR]),
        ("a stream that goes back", [begun(5), begun(3)].concat(), &[PROTOCOL_ERROR, STREAM_CLOSED]),
        ("an even stream in between", [begun(5), begun(6)].concat(), &[PROTOCOL_ERROR]),
    ]);
}

#[test]
fn a_block_of_fields_stays_together() {
    let block = post(GET_PATH);
    let first = frame(HEADERS, 0, 1, &block[..9]);
    let rest = frame(CONTINUATION, END_HEADERS, 1, &block[9..]);
    let between = |bytes: Vec<u8>| [first.clone(), bytes, rest.clone()].concat();
    let other_rest = frame(CONTINUATION, END_HEADERS, 3, &block[9..]);
    let too_long = [5; FRAME_BYTES_MAX + 1];
    end_connections(&[
        ("a rest without a beginning", rest.clone(), &[PROTOCOL_ERROR]),
        ("a rest after the end", [begun(1), rest.clone()].concat(), &[PROTOCOL_ERROR]),
        ("a rest of the connection", between(frame(CONTINUATION, END_HEADERS, 0, b"")), &[PROTOCOL_ERROR]),
        ("a rest of another", [begun(3), first.clone(), other_rest].concat(), &[PROTOCOL_ERROR]),
        ("a ping between", between(frame(PING, 0, 0, [0; 8])), &[PROTOCOL_ERROR]),
        ("data between", between(frame(DATA, 0, 1, b"x")), &[PROTOCOL_ERROR]),
        ("settings between", between(settings(&[])), &[PROTOCOL_ERROR]),
        ("a reset between", between(reset(1)), &[PROTOCOL_ERROR]),
        ("the unknown between", between(frame(0xbb, 0, 1, b"x")), &[PROTOCOL_ERROR]),
        ("a beginning between", between(begun(3)), &[PROTOCOL_ERROR]),
        ("a beginning of too many bytes", frame(HEADERS, OPEN, 1, too_long), &[FRAME_SIZE_ERROR]),
        (
            "a rest of too many bytes",
            [first.clone(), frame(CONTINUATION, END_HEADERS, 1, too_long)].concat(),
            &[FRAME_SIZE_ERROR],
        ),
        ("settings of too many bytes", frame(SETTINGS, 0, 0, [0; 16_386]), &[FRAME_SIZE_ERROR]),
        ("the unknown of too many bytes", frame(0xbb, 0, 0, too_long), &[FRAME_SIZE_ERROR]),
        (
            "padding longer than the block",
            frame(HEADERS, OPEN | PADDED, 1, [&[200], &block[..]].concat()),
            &[PROTOCOL_ERROR],
        ),
        (
            "a priority cut off",
            frame(HEADERS, OPEN | WITH_PRIORITY, 1, [0; 4]),
            &[PROTOCOL_ERROR, FRAME_SIZE_ERROR],
        ),
    ]);
}

#[test]
fn a_streams_mistake_ends_the_stream() {
    let closed = &[STREAM_CLOSED];
    let trailers = |block: Vec<u8>, flags| [begun(1), frame(HEADERS, flags, 1, block)].concat();
    let field = hpack::literal("x-checksum", "5");
    end_streams(&[
        ("data after the end", [waiting(1), frame(DATA, 0, 1, b"x")].concat(), closed),
        ("fields after the end", [waiting(1), begun(1)].concat(), closed),
        ("a window grows by nothing", [begun(1), window_update(1, 0)].concat(), &[PROTOCOL_ERROR]),
        (
            "a window overflows",
            [begun(1), window_update(1, WINDOW_BYTES_MAX)].concat(),
            &[FLOW_CONTROL_ERROR],
        ),
        (
            "a window overflows at last",
            [waiting(1), window_update(1, 1 << 30), window_update(1, 1 << 30)].concat(),
            &[FLOW_CONTROL_ERROR],
        ),
        (
            "data of too many bytes",
            [begun(1), frame(DATA, 0, 1, [0; FRAME_BYTES_MAX + 1])].concat(),
            &[FRAME_SIZE_ERROR],
        ),
        ("trailers that do not end", trailers(field, END_HEADERS), &[PROTOCOL_ERROR]),
    ]);
}

/// What ends a connection by the letter, and what a server may as well overlook: it serves on, or closes.
#[test]
fn some_mistakes_may_be_overlooked() {
    let edge = TestEdge::start();
    let ping = frame(PING, 0, 0, [0; 8]);
    let pseudo = hpack::literal(":path", "/again");
    let mistakes = [
        ("a ping before the settings", [PREFACE, &ping, &settings(&[])].concat()),
        ("a request before the settings", [PREFACE, &get(1, "any"), &settings(&[])].concat()),
        (
            "data on a stream that was passed over",
            [PREFACE, &settings(&[]), &begun(5), &frame(DATA, 0, 3, b"x"), &ping].concat(),
        ),
        (
            "trailers with a path",
            [PREFACE, &settings(&[]), &begun(1), &frame(HEADERS, OPEN | END_STREAM, 1, pseudo), &ping]
                .concat(),
        ),
    ];
    for (name, bytes) in mistakes {
        let mut conn = Conn::connect(&edge);
        conn.expect_acks(1);
        conn.send(bytes);
        match conn.end() {
            None => conn.serves(101),
            Some(code) => {
                assert!(may_give(code, &[STREAM_CLOSED]), "{name}: {code:?}")
            }
        }
        assert_serves(&edge);
    }
}

#[test]
fn what_came_too_late_is_no_error_of_the_connection() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    conn.serves(1);
    // A client cannot know that its stream has ended.
    conn.send([window_update(1, 5), reset(1), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])].concat());
    conn.serves(3);
    conn.send([begun(5), reset(5), window_update(5, 5), reset(5)].concat());
    conn.serves(7);
    // A refusal comes before the body, which the client had sent by then.
    conn.send(frame(HEADERS, OPEN, 9, post("/no.Service/Method")));
    assert!(conn.answer(9).is_trailers_only("12"));
    conn.send(frame(DATA, 0, 9, [0; 100]));
    conn.send(frame(DATA, END_STREAM, 9, [0; 100]));
    conn.serves(11);
}

#[test]
fn what_is_not_known_is_passed_over() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    let strange = [
        frame(0xbb, 0xff, 0, [1; 100]),
        frame(0x0a, 0, 1, []),
        frame(0xff, 0, 99, [1; 10]),
        frame(0x10, 0, 0, [0, 0, 0, 1, b'u']),
        frame(PRIORITY, 0, 1, [0, 0, 0, 3, 9]),
        frame(PRIORITY, 0, 2, [0x80, 0, 0, 0, 9]),
    ];
    conn.send(strange.concat());
    conn.serves(1);
    // Flags and the reserved bit of a stream mean nothing where nothing says so.
    let reserved = 1 << 31;
    let head = frame(HEADERS, OPEN | 0x42, 3 | reserved, post(GET_PATH));
    let update = window_update(3 | reserved, 1 | reserved);
    let data = frame(DATA, END_STREAM | 0xf6, 3 | reserved, get_message("any"));
    conn.send([head, update, data].concat());
    conn.answer(3).message::<v1::GetResponse>();
    // A priority of another length may be an error of its stream.
    conn.send([begun(5), frame(PRIORITY, 0, 5, [0; 4])].concat());
    conn.send(frame(DATA, END_STREAM, 5, get_message("any")));
    assert!(matches!(
        conn.outcome(5),
        Outcome::Answered(200) | Outcome::Reset(FRAME_SIZE_ERROR) | Outcome::Closed(_)
    ));
    assert_serves(&edge);
}

#[test]
fn a_block_of_fields_in_any_pieces_is_the_same_block() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    let block = post("/grpc.health.v1.Health/Check");
    let body = message(&health::HealthCheckRequest { service: String::new() });
    for (at, size) in [25, 33, 50, 1000].into_iter().enumerate() {
        let stream = 2 * at as u32 + 1;
        let mut bytes = frame(HEADERS, 0, stream, []);
        for piece in block.chunks(size) {
            bytes.extend(frame(CONTINUATION, 0, stream, piece));
        }
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, []));
        bytes.extend(frame(DATA, END_STREAM, stream, &body));
        conn.send(bytes);
        let answer = conn.answer(stream).message::<health::HealthCheckResponse>();
        assert_eq!(answer.status, health::health_check_response::ServingStatus::Serving as i32);
    }
}

#[test]
fn padding_priority_and_trailers_change_nothing() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    let block = post(GET_PATH);
    let dependent = [&[0x80, 0, 0, 0, 200], &block[..]].concat();
    let flags = OPEN | PADDED | WITH_PRIORITY;
    let body = get_message("any");
    for (at, padding) in [0, 1, 7, 255].into_iter().enumerate() {
        let stream = 4 * at as u32 + 1;
        let data = frame(DATA, END_STREAM | PADDED, stream, padded(&body, padding));
        conn.send([frame(HEADERS, flags, stream, padded(&dependent, padding)), data].concat());
        conn.answer(stream).message::<v1::GetResponse>();
        // The beginning is padded, its rest is not; the body ends with fields.
        let stream = stream + 2;
        let pieces = [
            frame(HEADERS, PADDED, stream, padded(&block[..5], padding)),
            frame(CONTINUATION, END_HEADERS, stream, &block[5..]),
            frame(DATA, PADDED, stream, padded(&body, padding)),
            frame(DATA, PADDED, stream, padded([], padding)),
            frame(HEADERS, 0x25, stream, [&[0, 0, 0, 0, 1], &hpack::literal("x-checksum", "5")[..]].concat()),
        ];
        conn.send(pieces.concat());
        conn.answer(stream).message::<v1::GetResponse>();
    }
}

#[test]
fn calls_go_on_side_by_side() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    let streams: Vec<u32> = (0..50).map(|at| 2 * at + 1).collect();
    for stream in &streams {
        conn.send(frame(HEADERS, OPEN, *stream, post(PUT_PATH)));
    }
    let body = |stream: u32| put_message("turns", stream.to_string().into_bytes());
    for at in 0..body(1).len() {
        for stream in &streams {
            conn.send(frame(DATA, 0, *stream, &body(*stream)[at..=at]));
        }
    }
    for stream in streams.iter().rev() {
        conn.send(frame(DATA, END_STREAM, *stream, &body(*stream)[body(1).len()..]));
        assert!(conn.answer(*stream).message::<v1::PutResponse>().succeeded);
    }
}

#[test]
fn a_client_that_says_farewell_has_its_answers() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    conn.send([begun(1), begun(3)].concat());
    conn.send(frame(GOAWAY, 0xff, 0, *b"\0\0\0\0\0\0\0\0farewell"));
    for stream in [3, 1] {
        conn.send(frame(DATA, END_STREAM, stream, get_message("any")));
        conn.answer(stream).message::<v1::GetResponse>();
    }
    assert_eq!(conn.close_code(), None);
    assert_eq!(conn.goaway, Some((3, NO_ERROR)), "it learns what was looked at");
}

#[test]
fn a_farewell_names_the_streams_that_are_served() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    conn.send([begun(1), begun(3)].concat());
    conn.fence();
    edge.order(Order::Drain(Duration::from_secs(5)));
    conn.until("a farewell", |conn| conn.goaway.is_some());
    let (last, code) = conn.goaway.expect("it was waited for");
    assert!(last >= 3 && code == NO_ERROR, "{last} {code}");
    for stream in [1, 3] {
        conn.send(frame(DATA, END_STREAM, stream, get_message("any")));
        conn.answer(stream).message::<v1::GetResponse>();
    }
    assert_eq!(conn.close_code(), None);
    assert!(conn.goaway.expect("there was one").0 >= 3);
    edge.join();
}

#[test]
fn a_put_is_what_a_get_reads() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    let value: Vec<u8> = (0..=255).collect();
    conn.send(frame(HEADERS, OPEN, 1, post(PUT_PATH)));
    conn.send_data(1, &put_message("bytes", value.clone()));
    assert!(conn.answer(1).message::<v1::PutResponse>().succeeded);
    conn.send(get(3, "bytes"));
    let answer = conn.answer(3).message::<v1::GetResponse>();
    assert_eq!(answer.kv.expect("it was put").value, Bytes::from(value));
}
