//! The fields of requests at the edge: HPACK, byte by byte (RFC 7541), and what a request has to say
//! (RFC 9113, section 8). A block that cannot be read ends the connection; one that says what it may not
//! ends its stream, and the table goes on.

mod edge_support;
#[path = "edge_support/hpack.rs"]
mod hpack;
#[path = "edge_support/raw.rs"]
mod raw;

use distribkv::edge::EdgeLimits;
use distribkv::wire::v1;
use edge_support::TestEdge;
use hpack::{
    DYNAMIC, entering, huffman, index, literal, never_indexed, pack, plain, spell_number, table_size,
};
use raw::*;

const POST: usize = 3;
const HTTP: usize = 6;
const PATH: usize = 4;
const CONTENT_TYPE: usize = 31;
/// What an entry counts beyond its name and value.
const ENTRY_BYTES: usize = 32;
const TABLE_BYTES: usize = 4096;

/// The pseudo fields of a Get but its path.
fn rest() -> Vec<u8> {
    [index(POST), index(HTTP), literal(":authority", "edge")].concat()
}

fn content_type() -> Vec<u8> {
    literal("content-type", "application/grpc")
}

fn path() -> Vec<u8> {
    literal(":path", GET_PATH)
}

/// A Get whose head is these pieces.
fn get_with(stream: u32, pieces: &[Vec<u8>]) -> Vec<u8> {
    let head = frame(HEADERS, OPEN, stream, pieces.concat());
    [head, frame(DATA, END_STREAM, stream, get_message("any"))].concat()
}

/// A connection, and the streams of its next calls.
struct Client {
    conn: Conn,
    stream: u32,
}

impl Client {
    fn open(edge: &TestEdge) -> Self {
        Self { conn: Conn::open(edge), stream: 1 }
    }

    /// A Get whose head is these pieces is answered as any.
    fn serves(&mut self, pieces: &[Vec<u8>]) {
        self.conn.send(get_with(self.stream, pieces));
        self.conn.answer(self.stream).message::<v1::GetResponse>();
        self.stream += 2;
    }

    fn outcome(&mut self, pieces: &[Vec<u8>]) -> Outcome {
        self.conn.send(get_with(self.stream, pieces));
        self.stream += 2;
        self.conn.outcome(self.stream - 2)
    }

    /// A block with these pieces cannot be read.
    fn loses(mut self, name: &str, pieces: &[Vec<u8>]) {
        let outcome = self.outcome(pieces);
        let Outcome::Closed(code) = outcome else { panic!("{name}: {outcome:?}") };
        assert!(may_give(code, &[COMPRESSION_ERROR]), "{name}: {code:?}");
    }
}

/// An entry that counts so many bytes.
fn entry_of(bytes: usize) -> Vec<u8> {
    entering("x-filler", vec![b'f'; bytes - ENTRY_BYTES - "x-filler".len()])
}

#[test]
fn every_form_of_a_field_is_read() {
    let edge = TestEdge::start();
    let mut client = Client::open(&edge);
    client.serves(&[rest(), path(), content_type()]);
    client.serves(&[
        rest(),
        never_indexed(":path", GET_PATH),
        never_indexed("content-type", "application/grpc"),
    ]);
    let coded = |first: u8, name: &str, value: &str| [vec![first], huffman(name), huffman(value)].concat();
    for first in [0, 0x10, 0x40] {
        let content_type = coded(first, "content-type", "application/grpc");
        client.serves(&[rest(), coded(first, ":path", GET_PATH), content_type]);
    }
    // Names of the static table, in a prefix that holds them and in one that does not.
    for (first, bits) in [(0, 4), (0x10, 4), (0x40, 6)] {
        let path = [spell_number(first, bits, PATH), plain(GET_PATH)].concat();
        let content_type = [spell_number(first, bits, CONTENT_TYPE), huffman("application/grpc")].concat();
        client.serves(&[rest(), path, content_type]);
    }
    // A name spelt plainly, a value in code, and the other way round; numbers longer than they need be.
    client.serves(&[rest(), [vec![0], plain(":path"), huffman(GET_PATH)].concat(), content_type()]);
    client.serves(&[rest(), [vec![0], huffman(":path"), plain(GET_PATH)].concat(), content_type()]);
    let long = [vec![0x0f, 0x80 | 16, 0x80, 0x00], plain("application/grpc")].concat();
    client.serves(&[rest(), path(), long]);
    // Every byte that a value may have, in code.
    let value: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != 0x7f).collect();
    let value = [b"a", value.as_slice(), b"z"].concat();
    let strange = [vec![0x40], huffman("x-strange"), huffman(&value)].concat();
    client.serves(&[rest(), path(), content_type(), strange, index(DYNAMIC)]);
}

#[test]
fn what_was_said_once_is_known() {
    let edge = TestEdge::start();
    let mut client = Client::open(&edge);
    let entries = [entering(":path", GET_PATH), entering("content-type", "application/grpc")];
    client.serves(&[rest(), entries.concat()]);
    let (first, second) = (index(DYNAMIC), index(DYNAMIC + 1));
    client.serves(&[rest(), second.clone(), first.clone()]);
    // An entry's name with another value, which enters before it.
    let again = [spell_number(0x40, 6, DYNAMIC + 1), plain("/no.Service/Method")].concat();
    client.conn.send(get_with(client.stream, &[rest(), again, index(DYNAMIC + 1)]));
    assert!(client.conn.answer(client.stream).is_trailers_only("12"));
    client.stream += 2;
    client.serves(&[rest(), index(DYNAMIC + 2), index(DYNAMIC + 1)]);
    // In one block, too; and what is not indexed does not enter.
    client.serves(&[
        rest(),
        entering(":path", GET_PATH),
        literal("x", "y"),
        never_indexed("x", "z"),
        index(DYNAMIC + 2),
    ]);
    let mut client = Client::open(&edge);
    client.serves(&[rest(), path(), entering("x", "y"), literal("x", "z"), content_type()]);
    client.loses("another connection knows nothing", &[rest(), index(DYNAMIC + 1), content_type()]);
}

#[test]
fn what_the_server_refuses_is_still_learnt() {
    let edge = TestEdge::start_with(EdgeLimits { streams_max: 1, ..EdgeLimits::DEFAULT });
    let enters = || entering("content-type", "application/grpc");
    let begun = || frame(HEADERS, OPEN, 1, post(GET_PATH));
    let body = || frame(DATA, 0, 1, get_message("any"));
    let read = [index(2), index(HTTP), path(), enters()];
    let refused = [
        ("malformed", 1, get_with(1, &[rest(), path(), enters(), literal("Upper", "case")])),
        ("malformed before", 1, get_with(1, &[rest(), path(), literal("Upper", "case"), enters()])),
        ("not gRPC", 1, get_with(1, &read)),
        ("one stream too many", 3, [begun(), get_with(3, &[rest(), path(), enters()])].concat()),
        ("trailers", 1, [begun(), body(), frame(HEADERS, OPEN | END_STREAM, 1, enters())].concat()),
        ("after a reset", 3, [begun(), reset(1), get_with(3, &[rest(), path(), enters()])].concat()),
    ];
    for (name, stream, bytes) in refused {
        let mut client = Client { stream: 101, ..Client::open(&edge) };
        client.conn.send(bytes);
        // It may make an error of the connection of it.
        if let Outcome::Closed(code) = client.conn.outcome(stream) {
            assert!(may_give(code, &[]), "{name}: {code:?}");
            continue;
        }
        client.conn.send(reset(1));
        client.serves(&[rest(), path(), index(DYNAMIC)]);
    }
}

#[test]
fn the_oldest_make_room() {
    let edge = TestEdge::start();
    let path_bytes = ENTRY_BYTES + ":path".len() + GET_PATH.len();
    let path_enters = entering(":path", GET_PATH);
    // The last byte of the table.
    let fills = entry_of(TABLE_BYTES - path_bytes);
    let mut client = Client::open(&edge);
    client.serves(&[rest(), path_enters.clone(), fills, content_type()]);
    client.serves(&[rest(), index(DYNAMIC + 1), content_type()]);
    client.loses("it holds two", &[rest(), path(), index(DYNAMIC + 2), content_type()]);
    // And one more.
    let overfills = entry_of(TABLE_BYTES - path_bytes + 1);
    let mut client = Client::open(&edge);
    client.serves(&[rest(), path_enters.clone(), overfills, content_type()]);
    client.serves(&[rest(), path(), index(DYNAMIC), content_type()]);
    client.loses("the path is out", &[rest(), index(DYNAMIC + 1), content_type()]);
    // What is larger than the table empties it, and is no error.
    let mut client = Client::open(&edge);
    client.serves(&[rest(), path_enters.clone(), entry_of(TABLE_BYTES + 1), content_type()]);
    client.loses("nothing is left", &[rest(), path(), index(DYNAMIC), content_type()]);
    // An entry that takes its name from the one that it puts out.
    let mut client = Client::open(&edge);
    client.serves(&[rest(), path_enters, entry_of(TABLE_BYTES - path_bytes), content_type()]);
    let again = [spell_number(0x40, 6, DYNAMIC + 1), plain(GET_PATH)].concat();
    client.serves(&[rest(), again, content_type()]);
    client.serves(&[rest(), index(DYNAMIC), content_type()]);
    // Many, for longer than the table holds them.
    for round in 0..300 {
        client.serves(&[rest(), entering(":path", GET_PATH), entry_of(100 + round), content_type()]);
        client.serves(&[rest(), index(DYNAMIC + 1), index(DYNAMIC), content_type()]);
    }
}

#[test]
fn the_tables_size_may_change_within_what_was_announced() {
    let edge = TestEdge::start();
    let mut client = Client::open(&edge);
    let enters = entering(":path", GET_PATH);
    client.serves(&[rest(), enters.clone(), content_type()]);
    client.serves(&[table_size(TABLE_BYTES), rest(), index(DYNAMIC), content_type()]);
    client.serves(&[table_size(100), table_size(TABLE_BYTES), rest(), index(DYNAMIC), content_type()]);
    client.serves(&[table_size(0), table_size(TABLE_BYTES), rest(), enters.clone(), content_type()]);
    client.serves(&[rest(), index(DYNAMIC), content_type()]);
    // A table of nothing takes nothing.
    client.serves(&[table_size(0), rest(), enters.clone(), content_type()]);
    client.serves(&[rest(), enters, content_type()]);
    client.loses("an empty table", &[rest(), index(DYNAMIC), content_type()]);

    let mut client = Client::open(&edge);
    let evicted = [table_size(0), table_size(TABLE_BYTES), rest(), index(DYNAMIC), content_type()];
    client.serves(&[rest(), entering(":path", GET_PATH), content_type()]);
    client.loses("a table that was emptied", &evicted);
    let late = [rest(), table_size(100), path(), content_type()];
    Client::open(&edge).loses("a size after a field", &late);
    for bytes in [TABLE_BYTES + 1, 1 << 20] {
        Client::open(&edge).loses("a larger table", &[table_size(bytes), rest(), path(), content_type()]);
    }
}

#[test]
fn the_announced_table_is_the_limit() {
    let edge = TestEdge::start_with(EdgeLimits { header_table_bytes_max: 200, ..EdgeLimits::DEFAULT });
    let mut client = Client::open(&edge);
    assert_eq!(client.conn.settings.get(&HEADER_TABLE_SIZE), Some(&200));
    client.serves(&[table_size(200), rest(), entering(":path", GET_PATH), content_type()]);
    client.serves(&[rest(), index(DYNAMIC), entry_of(200), content_type()]);
    client.loses("it was put out", &[rest(), index(DYNAMIC + 1), content_type()]);
    Client::open(&edge).loses("a larger table", &[table_size(201), rest(), path(), content_type()]);
}

#[test]
fn until_a_client_knows_the_announced_table_it_has_the_usual_one() {
    let edge = TestEdge::start_with(EdgeLimits { header_table_bytes_max: 200, ..EdgeLimits::DEFAULT });
    let greeted = || {
        let mut conn = Conn::connect(&edge);
        conn.send(PREFACE);
        conn.set(&[]);
        let mut client = Client { conn, stream: 1 };
        client.serves(&[rest(), entering(":path", GET_PATH), entry_of(3000), content_type()]);
        client.serves(&[rest(), index(DYNAMIC + 1), index(DYNAMIC), content_type()]);
        client.conn.send(frame(SETTINGS, ACK, 0, []));
        client
    };
    let mut client = greeted();
    let enters = entering(":path", GET_PATH);
    client.serves(&[table_size(0), table_size(200), rest(), enters, content_type()]);
    client.serves(&[rest(), index(DYNAMIC), entry_of(200), content_type()]);
    client.loses("it was put out", &[rest(), index(DYNAMIC + 1), content_type()]);
    greeted().loses("more than it knows of", &[rest(), path(), index(DYNAMIC), content_type()]);
    greeted().loses("still the usual one", &[table_size(TABLE_BYTES), rest(), path(), content_type()]);
    // Who has entered nothing has nothing to say.
    let mut client = Client::open(&edge);
    client.serves(&[rest(), path(), content_type()]);
    client.serves(&[rest(), entering(":path", GET_PATH), content_type()]);
    client.serves(&[rest(), index(DYNAMIC), content_type()]);
}

#[test]
fn a_larger_table_is_taken_when_the_client_says_so() {
    let limits = EdgeLimits { header_table_bytes_max: 10_000, ..EdgeLimits::DEFAULT };
    let edge = TestEdge::start_with(limits);
    let mut client = Client::open(&edge);
    client.serves(&[rest(), entering(":path", GET_PATH), entry_of(TABLE_BYTES), content_type()]);
    client.loses("it was put out", &[rest(), index(DYNAMIC + 1), content_type()]);
    let mut client = Client::open(&edge);
    client.serves(&[table_size(10_000), rest(), entering(":path", GET_PATH), content_type()]);
    client.serves(&[rest(), path(), entry_of(TABLE_BYTES), content_type()]);
    client.serves(&[rest(), index(DYNAMIC + 1), content_type()]);
}

#[test]
fn a_block_that_cannot_be_read_ends_the_connection() {
    let edge = TestEdge::start();
    let cut = |value: Vec<u8>| [vec![0], plain("x-cut"), value].concat();
    let coded = |coded: &[u8]| cut([vec![0x80 | coded.len() as u8], coded.to_vec()].concat());
    let broken = [
        ("index 0", index(0)),
        ("an index beyond the tables", index(DYNAMIC)),
        ("an index far beyond the tables", index(1 << 20)),
        ("a name beyond the tables", [spell_number(0x40, 6, DYNAMIC), plain("v")].concat()),
        ("a name far beyond the tables", [spell_number(0, 4, 4000), plain("v")].concat()),
        ("a number without an end", vec![0xff, 0x80, 0x80]),
        ("a number too large", vec![0xff; 12]),
        ("a number that overflows", [vec![0xff], vec![0x80; 20], vec![1]].concat()),
        ("a string longer than its block", cut(vec![0x7e, b'v'])),
        ("a name longer than its block", vec![0, 0x7e, b'v']),
        ("a length cut off", cut(vec![0x7f])),
        ("a length of 4 GiB", cut([spell_number(0, 7, 0xffff_fff0), vec![b'v']].concat())),
        ("a field without a value", [vec![0], plain("x-cut")].concat()),
        ("a field of one byte", vec![0x40]),
        ("the end in Huffman's code", coded(&[0xff, 0xff, 0xff, 0xff])),
        ("padding of a whole byte", coded(&[pack(b"value"), vec![0xff]].concat())),
        ("padding of zeros", coded(&[0b0001_1000])),
    ];
    for (name, piece) in broken {
        Client::open(&edge).loses(name, &[rest(), path(), content_type(), piece]);
        assert_serves(&edge);
    }
}

/// A block, and what makes it malformed.
fn malformed() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let all = || [rest(), path(), content_type()].concat();
    let with = |name: &str, value: &[u8]| vec![all(), literal(name, value)];
    vec![
        ("no path", vec![rest(), content_type()]),
        ("no method", vec![index(HTTP), path(), content_type()]),
        ("no scheme", vec![index(POST), path(), content_type()]),
        ("a scheme twice", vec![index(HTTP), rest(), path(), content_type()]),
        ("an authority twice", vec![literal(":authority", "other"), rest(), path(), content_type()]),
        ("a path of nothing", vec![rest(), literal(":path", ""), content_type()]),
        ("a path twice", vec![rest(), path(), path(), content_type()]),
        ("a method twice", vec![index(POST), rest(), path(), content_type()]),
        ("a pseudo field too late", vec![rest(), content_type(), path()]),
        ("an unknown pseudo field", vec![literal(":unknown", "x"), all()]),
        ("a status", vec![literal(":status", "200"), all()]),
        ("a name in capitals", with("Content-Length", b"10")),
        ("connection", with("connection", b"keep-alive")),
        ("keep-alive", with("keep-alive", b"5")),
        ("proxy-connection", with("proxy-connection", b"close")),
        ("transfer-encoding", with("transfer-encoding", b"chunked")),
        ("upgrade", with("upgrade", b"h2c")),
        ("te", with("te", b"gzip")),
        ("no name", with("", b"x")),
        ("a space in a name", with("a b", b"x")),
        ("a line in a value", with("x-line", b"a\nb")),
        ("a zero in a value", with("x-zero", b"a\0b")),
        ("a body shorter than it says", with("content-length", b"1000")),
        ("a body longer than it says", with("content-length", b"1")),
    ]
}

#[test]
fn a_request_that_says_what_it_may_not_is_refused() {
    let edge = TestEdge::start();
    let mut wrong = Vec::new();
    for (name, pieces) in malformed() {
        let mut client = Client::open(&edge);
        let outcome = client.outcome(&pieces);
        let is_refused = match outcome {
            Outcome::Reset(code) => code == PROTOCOL_ERROR,
            Outcome::Closed(code) => may_give(code, &[]),
            Outcome::Answered(status) => (400..500).contains(&status),
        };
        if !is_refused {
            wrong.push((name, outcome));
        } else if !matches!(outcome, Outcome::Closed(_)) {
            client.serves(&[rest(), path(), content_type()]);
        }
        assert_serves(&edge);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn fields_that_mean_nothing_are_taken() {
    let edge = TestEdge::start();
    let mut client = Client::open(&edge);
    let all = || [rest(), path(), content_type()].concat();
    let length = get_message("any").len().to_string();
    let fields = [
        ("content-length", length.as_str()),
        ("x-empty", ""),
        ("cookie", "a=b; c=d"),
        ("user-agent", "grpc/1 (a; b) \t c"),
        ("x-bin", "AAECAw"),
        ("te", "trailers"),
        ("grpc-encoding", "identity"),
        ("host", "edge"),
        ("a!#$%&'*+-.^_`|~0", "x"),
    ];
    for (name, value) in fields {
        client.serves(&[all(), literal(name, value)]);
    }
    client.serves(&[all(), literal("twice", "a"), literal("twice", "b"), literal("twice", "a")]);
    // Pseudo fields have no order among themselves, and nobody needs an authority.
    client.serves(&[path(), index(7), index(POST), content_type()]);
}

#[test]
fn the_clients_table_bounds_the_servers() {
    let edge = TestEdge::start();
    for bytes in [0, 50, 100, 4096, 1 << 20] {
        let mut conn = Conn::open_with(&edge, &[(HEADER_TABLE_SIZE, bytes)]);
        for (at, next) in [bytes, 4096, 0, 60, 4096, 100].into_iter().enumerate() {
            conn.set(&[(HEADER_TABLE_SIZE, next)]);
            let stream = 4 * at as u32 + 1;
            conn.serves(stream);
            conn.send(get(stream + 2, "fail:no_leader"));
            assert!(conn.answer(stream + 2).is_trailers_only("14"));
        }
        conn.set(&[(HEADER_TABLE_SIZE, 0)]);
        conn.set(&[(HEADER_TABLE_SIZE, 4096)]);
        conn.serves(101);
        conn.serves(103);
    }
}
