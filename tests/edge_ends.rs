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
