//! How connections end at the edge, and which go on: what was said last arrives, whatever comes is a sign of
//! life, and a call that crosses a farewell has its time.

mod edge_support;
#[path = "edge_support/hpack.rs"]
mod hpack;
#[path = "edge_support/raw.rs"]
mod raw;

use std::io::Write as _;
use std::time::{Duration, Instant};

use distribkv::edge::EdgeLimits;
use distribkv::wire::v1;
use edge_support::{Order, TestEdge};
use raw::*;

/// Time for the edge to have done what it does by itself. Where it has not, the test sees less, and no fault.
const PAUSE: Duration = Duration::from_millis(50);

/// More than the kernel hands to a client that does not read, and less than it takes for it.
const VALUE_BYTES: usize = 1 << 20;

/// A connection with so large windows that the answer to a Get is written at once, as far as the kernel
/// takes it.
fn asked_for_much(edge: &TestEdge) -> Conn {
    let mut conn = Conn::open_with(edge, &[(INITIAL_WINDOW_SIZE, 8 << 20)]);
    conn.grow(0, 16 << 20);
    conn.send(frame(HEADERS, OPEN, 1, post(PUT_PATH)));
    conn.send_data(1, &put_message("k", vec![7; VALUE_BYTES]));
    assert!(conn.answer(1).message::<v1::PutResponse>().succeeded);
    conn
}

#[test]
fn what_was_said_last_arrives_though_the_client_goes_on_sending() {
    let edge = TestEdge::start();
    let mut conn = asked_for_much(&edge);
    conn.send(get(3, "k"));
    std::thread::sleep(PAUSE);
    // A mistake, which is read when the answer is on its way; and more, which nobody reads any more.
    conn.send(frame(PING, 0, 0, [0; 7]));
    conn.socket.set_nonblocking(true).expect("it is a socket");
    for _ in 0..20 {
        conn.send(frame(0xbb, 0, 0, [0; 1000]));
        std::thread::sleep(PAUSE / 20);
    }
    conn.socket.set_nonblocking(false).expect("it is a socket");
    assert_eq!(conn.close_code(), Some(FRAME_SIZE_ERROR), "{:?}", conn.answers.keys());
}

/// A connection that has ended for the server, which waits for ever for the client to close.
fn left_open(edge: &TestEdge) -> Conn {
    let mut conn = Conn::open(edge);
    conn.send(frame(PING, 0, 0, [0; 7]));
    assert_eq!(conn.close_code(), Some(FRAME_SIZE_ERROR));
    conn
}

fn patient() -> EdgeLimits {
    EdgeLimits { linger_timeout: Duration::from_hours(1), ..EdgeLimits::DEFAULT }
}

/// Whether the server closes while a client goes on sending.
fn is_closed_to(conn: &mut Conn, bytes_max: usize) -> bool {
    (0..bytes_max / 1000).any(|_| conn.socket.write_all(&[0; 1000]).is_err())
}

#[test]
fn who_does_not_close_is_closed_by_bytes_and_by_time() {
    let edge = TestEdge::start_with(EdgeLimits { linger_bytes_max: 100_000, ..patient() });
    assert!(is_closed_to(&mut left_open(&edge), 64 << 20));
    let edge = TestEdge::start_with(EdgeLimits { linger_timeout: PAUSE, ..EdgeLimits::DEFAULT });
    let mut conn = left_open(&edge);
    std::thread::sleep(2 * PAUSE);
    assert!(is_closed_to(&mut conn, EdgeLimits::DEFAULT.linger_bytes_max));
}

#[test]
fn a_drain_does_not_wait_for_who_does_not_close() {
    let edge = TestEdge::start_with(patient());
    let _before = left_open(&edge);
    let mut conn = Conn::open(&edge);
    conn.send(get(1, "slow:x"));
    conn.fence();
    edge.order(Order::Drain(PAUSE));
    // A read is all that this client does.
    assert_eq!(conn.close_code(), None);
    edge.join();
}

#[test]
fn any_bytes_are_a_sign_of_life() {
    let edge = TestEdge::start_with(EdgeLimits {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(500),
        ..EdgeLimits::DEFAULT
    });
    let mut conn = Conn::open(&edge);
    let begun = Instant::now();
    // Nothing is read, and no ping answered.
    while begun.elapsed() < Duration::from_millis(1200) {
        conn.send(window_update(0, 1));
        conn.window += 1;
        std::thread::sleep(PAUSE / 2);
    }
    conn.serves(1);
}

/// A farewell soon after a connection has nothing to do, and a call takes longer than the client has for it.
fn soon_idle() -> EdgeLimits {
    EdgeLimits {
        idle_timeout: Duration::from_millis(50),
        handshake_timeout: Duration::from_millis(300),
        deadline_default: Duration::from_millis(1000),
        ..EdgeLimits::DEFAULT
    }
}

#[test]
fn a_call_that_crosses_a_farewell_has_its_time() {
    let edge = TestEdge::start_with(soon_idle());
    let mut conn = Conn::open(&edge);
    conn.until("a farewell", |conn| conn.goaway.is_some());
    // It was on its way before the client knew; and then the client is long silent.
    conn.send(get(1, "slow:x"));
    std::thread::sleep(8 * PAUSE);
    let answer = conn.answer(1);
    assert!(answer.is_trailers_only("2"), "{answer:?}");
    assert_eq!(conn.close_code(), None);
    assert_eq!(conn.goaway, Some((1, NO_ERROR)));
}
