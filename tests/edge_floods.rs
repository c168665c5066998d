//! Clients that mean harm, or are broken: more than the limits allow, floods of what costs them little,
//! conversations that are cut off, noise. The edge may end such a connection; what it may not is to hold
//! more than its limits say, or to fail others.

mod edge_support;
#[path = "edge_support/hpack.rs"]
mod hpack;
#[path = "edge_support/raw.rs"]
mod raw;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use distribkv::edge::EdgeLimits;
use distribkv::wire::v1;
use edge_support::TestEdge;
use hpack::{DYNAMIC, entering, index, literal};
use raw::*;

/// What the kernel's buffers of both sides, and the edge's limits, hold at most of a client that does not
/// read.
const UNREAD_BYTES_MAX: usize = 64 << 20;
/// When a client takes it that the server has stopped reading.
const STALL: Duration = Duration::from_millis(300);
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

fn few_streams() -> EdgeLimits {
    EdgeLimits { streams_max: 2, ..EdgeLimits::DEFAULT }
}

#[test]
fn streams_have_a_limit() {
    let edge = TestEdge::start_with(few_streams());
    let mut conn = Conn::open(&edge);
    conn.send([get(1, "slow:x"), get(3, "slow:x"), get(5, "any")].concat());
    assert!(matches!(conn.outcome(5), Outcome::Reset(REFUSED_STREAM | PROTOCOL_ERROR) | Outcome::Closed(_)));
    if conn.goaway.is_none() {
        // Room for one is made, again and again.
        for at in 0..20 {
            conn.send(reset(4 * at + 3));
            conn.serves(4 * at + 101);
            conn.send(get(4 * at + 103, "slow:x"));
            conn.send(reset(4 * at + 103));
            conn.fence();
        }
    }
    assert_serves(&edge);
}

#[test]
fn a_stream_counts_until_both_sides_have_ended_it() {
    let edge = TestEdge::start_with(few_streams());
    let mut conn = Conn::open(&edge);
    // One after the other, far more than the limit.
    for at in 0..100 {
        conn.serves(2 * at + 1);
    }
    // Answers that a window holds back are streams, too.
    conn.set(&[(INITIAL_WINDOW_SIZE, 0)]);
    conn.fence();
    conn.send([get(301, "any"), get(303, "any"), get(305, "any")].concat());
    assert!(matches!(conn.outcome(305), Outcome::Reset(REFUSED_STREAM) | Outcome::Closed(_)));
    if conn.goaway.is_none() {
        for stream in [303, 301] {
            conn.grow(stream, 1000);
            conn.answer(stream).message::<v1::GetResponse>();
        }
        conn.set(&[(INITIAL_WINDOW_SIZE, 1000)]);
        conn.serves(307);
    }
    assert_serves(&edge);
}

/// Whether a request that says too much was turned down.
fn is_turned_down(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered(status) => (400..500).contains(status),
        Outcome::Reset(_) | Outcome::Closed(_) => true,
    }
}

#[test]
fn fields_have_a_limit() {
    let edge = TestEdge::start();
    let mut conn = Conn::open(&edge);
    let many: Vec<u8> = (0..12).flat_map(|at| literal(format!("x-{at}"), vec![b'v'; 1000])).collect();
    let head = frame(HEADERS, OPEN, 1, [post(GET_PATH), many].concat());
    conn.send([head, frame(DATA, END_STREAM, 1, get_message("any"))].concat());
    conn.answer(1).message::<v1::GetResponse>();

    let filler = entering("x-filler", vec![b'f'; 4000]);
    let lists = [
        ("one long field", literal("x-long", vec![b'v'; 20_000])),
        ("many fields", literal("x-many", vec![b'v'; 1000]).repeat(20)),
        ("fields of nothing", literal("a", "").repeat(3000)),
        ("a few bytes that stand for many", [filler, index(DYNAMIC).repeat(4000)].concat()),
        ("fields of the static table", index(15).repeat(12_000)),
    ];
    for (name, fields) in lists {
        let mut conn = Conn::open(&edge);
        let block = [post(GET_PATH), fields].concat();
        let (first, rest) = block.split_at(block.len().min(FRAME_BYTES_MAX));
        conn.send(frame(HEADERS, if rest.is_empty() { OPEN } else { 0 }, 1, first));
        if !rest.is_empty() {
            conn.send(frame(CONTINUATION, END_HEADERS, 1, rest));
        }
        conn.send(frame(DATA, END_STREAM, 1, get_message("any")));
        let outcome = conn.outcome(1);
        assert!(is_turned_down(&outcome), "{name}: {outcome:?}");
        if !matches!(outcome, Outcome::Closed(_)) {
            conn.serves(3);
        }
        assert_serves(&edge);
    }
}

/// Writes a piece again and again until the server closes or has taken so many bytes, and reads what comes
/// meanwhile: how many it took, and whether it closed.
fn flood(conn: &mut Conn, mut piece: impl FnMut(usize) -> Vec<u8>, bytes_max: usize) -> (usize, bool) {
    conn.socket.set_read_timeout(Some(Duration::from_millis(1))).expect("it is not zero");
    let (mut taken, mut at) = (0, 0);
    while taken < bytes_max {
        let bytes = piece(at);
        if let Err(error) = conn.socket.write_all(&bytes) {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "it neither reads nor closes");
            return (taken, true);
        }
        taken += bytes.len();
        if at % 64 == 0 && !drain(conn) {
            return (taken, true);
        }
        at += 1;
    }
    (taken, false)
}

/// Reads what is there; whether the server has not closed.
fn drain(conn: &mut Conn) -> bool {
    let mut bytes = [0; 1 << 16];
    loop {
        match conn.socket.read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn fields_without_an_end_are_cut_off() {
    let edge = TestEdge::start();
    let large = literal("x-more", vec![b'v'; 16_000]);
    let small = literal("x", "y");
    let pieces =
        [("large", large), ("small", small), ("nothing", Vec::new()), ("half a field", vec![0x7f; 5])];
    for (name, piece) in pieces {
        let mut conn = Conn::open(&edge);
        conn.send(frame(HEADERS, 0, 1, post(GET_PATH)));
        let (taken, is_closed) =
            flood(&mut conn, |_| frame(CONTINUATION, 0, 1, &piece), UNREAD_BYTES_MAX / 4);
        assert!(is_closed, "{name}: {taken} bytes were taken");
        assert_serves(&edge);
    }
}

/// A flood whose answers are read: the server keeps up with it, or ends it.
fn survives(edge: &TestEdge, name: &str, piece: impl FnMut(usize) -> Vec<u8>) {
    let mut conn = Conn::open(edge);
    let (taken, _) = flood(&mut conn, piece, 1 << 20);
    assert!(taken > 0, "{name}: nothing was taken");
    assert_serves(edge);
}

#[test]
fn streams_that_are_reset_at_once_harm_nobody() {
    let edge = TestEdge::start();
    let stream = |at: usize| 2 * at as u32 + 1;
    let head = |at| frame(HEADERS, OPEN, stream(at), post(GET_PATH));
    survives(&edge, "opened", |at| [head(at), reset(stream(at))].concat());
    survives(&edge, "asked", |at| [get(stream(at), "any"), reset(stream(at))].concat());
    survives(&edge, "waiting", |at| [get(stream(at), "slow:x"), reset(stream(at))].concat());
    // The server is made to reset them itself.
    survives(&edge, "windows", |at| [head(at), window_update(stream(at), 0)].concat());
    let overflow = |at| window_update(stream(at), WINDOW_BYTES_MAX);
    survives(&edge, "overflows", |at| [get(stream(at), "slow:x"), overflow(at)].concat());
    let malformed = [post(GET_PATH), literal("Upper", "case")].concat();
    survives(&edge, "malformed", |at| frame(HEADERS, OPEN, stream(at), &malformed));
    let self_dependent = |at| frame(PRIORITY, 0, stream(at), &stream(at).to_be_bytes().repeat(2)[..5]);
    survives(&edge, "dependent", |at| [head(at), self_dependent(at)].concat());
}

#[test]
fn a_reset_makes_room_for_others() {
    let edge = TestEdge::start_with(EdgeLimits { streams_max: 10, ..EdgeLimits::DEFAULT });
    let mut conn = Conn::open(&edge);
    for at in 0..200 {
        let stream = 4 * at + 1;
        conn.send([get(stream, "slow:x"), get(stream + 2, "any")].concat());
        conn.answer(stream + 2).message::<v1::GetResponse>();
        conn.send(reset(stream));
    }
    assert_serves(&edge);
}

#[test]
fn frames_that_say_nothing_harm_nobody() {
    let edge = TestEdge::start();
    let head = |at: usize| if at == 0 { frame(HEADERS, OPEN, 1, post(GET_PATH)) } else { Vec::new() };
    survives(&edge, "data", |at| [head(at), frame(DATA, 0, 1, []).repeat(1000)].concat());
    survives(&edge, "padding", |at| [head(at), frame(DATA, PADDED, 1, [0]).repeat(60)].concat());
    survives(&edge, "priorities", |_| frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1]).repeat(100));
    survives(&edge, "updates", |_| window_update(0, 1).repeat(100));
    survives(&edge, "the unknown", |_| frame(0xbb, 0, 0, [0; 16_000]));
    survives(&edge, "farewells", |_| frame(GOAWAY, 0, 0, [0; 8]).repeat(100));
    survives(&edge, "settings", |at| settings(&[(INITIAL_WINDOW_SIZE, at as u32 % 7)]).repeat(100));
}

/// What a flood sends at its turns.
type Piece<'a> = &'a dyn Fn(usize) -> Vec<u8>;

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_from() {
    let edge = TestEdge::start();
    let ask = |at: usize| get(2 * at as u32 + 1, "fail:no_leader");
    let refused =
        |at: usize| frame(HEADERS, OPEN | END_STREAM, 2 * at as u32 + 1, post("/no.Service/Method"));
    let floods: [(&str, Piece); 5] = [
        ("pings", &|_| frame(PING, 0, 0, [7; 8]).repeat(100)),
        ("settings", &|_| settings(&[(INITIAL_WINDOW_SIZE, 1)]).repeat(100)),
        ("empty settings", &|_| settings(&[]).repeat(100)),
        ("calls", &ask),
        ("refusals", &refused),
    ];
    for (name, piece) in floods {
        let conn = Conn::open(&edge);
        conn.socket.set_write_timeout(Some(STALL)).expect("it is not zero");
        let mut taken = 0;
        for at in 0.. {
            let bytes = piece(at);
            if taken > UNREAD_BYTES_MAX || (&conn.socket).write_all(&bytes).is_err() {
                break;
            }
            taken += bytes.len();
        }
        assert!(taken <= UNREAD_BYTES_MAX, "{name}: it reads on and on, and keeps the answers");
        assert_serves(&edge);
    }
}

/// A conversation of every kind of frame, all of it allowed.
fn conversation() -> Vec<u8> {
    let block = post(PUT_PATH);
    let put = put_message("k", vec![1; 30]);
    [
        PREFACE.to_vec(),
        settings(&[(INITIAL_WINDOW_SIZE, 100), (HEADER_TABLE_SIZE, 0)]),
        window_update(0, 1000),
        frame(HEADERS, PADDED, 1, padded(&block[..7], 3)),
        frame(CONTINUATION, END_HEADERS, 1, &block[7..]),
        frame(PRIORITY, 0, 3, [0, 0, 0, 1, 7]),
        frame(DATA, PADDED, 1, padded(&put[..9], 2)),
        window_update(1, 1000),
        get(3, "slow:x"),
        frame(DATA, 0, 1, &put[9..]),
        frame(PING, 0, 0, [3; 8]),
        reset(3),
        frame(HEADERS, OPEN | END_STREAM, 1, entering("x-end", "1")),
        frame(0xbb, 0, 0, [1; 5]),
        get(5, "k"),
    ]
    .concat()
}

#[test]
fn a_conversation_may_come_byte_by_byte() {
    let edge = TestEdge::start();
    let mut conn = Conn::connect(&edge);
    conn.expect_acks(1);
    for byte in conversation() {
        conn.send([byte]);
    }
    assert!(conn.answer(1).message::<v1::PutResponse>().succeeded);
    // Where the bytes of both arrive together the calls are concurrent, and either may come first.
    assert!(conn.answer(5).message::<v1::GetResponse>().kv.is_none_or(|kv| kv.value.len() == 30));
    conn.fence();
}

/// An edge that takes few connections: one that is not let go of when it ends is missed soon.
fn few_connections() -> TestEdge {
    TestEdge::start_with(EdgeLimits { connections_max: 32, ..EdgeLimits::DEFAULT })
}

/// Whether the edge serves once it has let go of the connections that have ended.
fn serves_at_last(edge: &TestEdge) {
    let begun = Instant::now();
    loop {
        let mut conn = Conn::connect(edge);
        conn.send([PREFACE, &settings(&[])].concat());
        if conn.socket.read(&mut [0]).is_ok_and(|length| length == 1) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "connections that have ended are still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_serves(edge);
}

#[test]
fn a_conversation_may_end_anywhere() {
    let edge = few_connections();
    let conversation = conversation();
    for length in 0..conversation.len() {
        let mut conn = Conn::connect(&edge);
        conn.send(&conversation[..length]);
        // Some say that they are done and wait, some are gone.
        if length % 2 == 0 {
            conn.socket.shutdown(Shutdown::Write).ok();
            let mut rest = Vec::new();
            match conn.socket.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "{length}: it is not closed"),
            }
        }
    }
    serves_at_last(&edge);
}

#[test]
fn a_conversation_with_a_wrong_byte_harms_nobody() {
    let edge = few_connections();
    let conversation = conversation();
    for at in PREFACE.len()..conversation.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut wrong = conversation.clone();
            wrong[at] ^= flip;
            let mut conn = Conn::connect(&edge);
            conn.send(wrong);
        }
        if at % 16 == 0 {
            serves_at_last(&edge);
        }
    }
    serves_at_last(&edge);
}

/// Numbers without a pattern (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// A frame whose head makes sense more often than not.
    fn frame(&mut self) -> Vec<u8> {
        let kind = self.below(11) as u8;
        let stream = self.below(8) as u32;
        let flags = self.next() as u8;
        let length = match self.below(3) {
            0 => 0,
            1 => [5, 4, 6, 8][self.below(4) as usize],
            _ => self.below(80),
        };
        let payload = if kind == HEADERS && self.below(2) == 0 { post(GET_PATH) } else { self.bytes(length) };
        frame(kind, flags, stream, payload)
    }
}

#[test]
fn noise_harms_nobody() {
    let edge = few_connections();
    let mut noise = Noise(SEED);
    for round in 0..300 {
        let mut conn = Conn::connect(&edge);
        conn.send([PREFACE, &settings(&[])].concat());
        if round % 3 == 0 {
            let length = noise.below(2000);
            conn.send(noise.bytes(length));
        } else {
            let frames: Vec<u8> = (0..40).flat_map(|_| noise.frame()).collect();
            conn.send(frames);
        }
        if round % 16 == 0 {
            serves_at_last(&edge);
        }
    }
    serves_at_last(&edge);
}

#[test]
fn noise_in_a_block_of_fields_harms_nobody() {
    let edge = TestEdge::start();
    let mut noise = Noise(SEED ^ 1);
    for round in 0..300 {
        let mut conn = Conn::open(&edge);
        for at in 0..5 {
            let length = noise.below(60);
            let block = [post(GET_PATH), noise.bytes(length)].concat();
            conn.send(frame(HEADERS, OPEN | END_STREAM, 2 * at + 1, block));
        }
        // A mistake in a block is one of the connection: it ends, or all is answered in some way.
        if matches!(conn.outcome(1), Outcome::Closed(_)) {
            assert!(conn.goaway.is_none_or(|(_, code)| code != NO_ERROR), "{round}");
        }
    }
    serves_at_last(&edge);
}
