//! How connections end at the edge, and which go on.

mod edge_support;
#[path = "edge_support/hpack.rs"]
mod hpack;
#[path = "edge_support/raw.rs"]
mod raw;

use std::time::{Duration, Instant};

use distribkv::edge::EdgeLimits;
use edge_support::TestEdge;
use raw::*;

/// Time for the edge to have done what it does by itself. Where it has not, the test sees less, and no fault.
const PAUSE: Duration = Duration::from_millis(50);

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
