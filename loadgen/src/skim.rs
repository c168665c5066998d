//! Reads a long answer as it comes, and keeps none of it: counts the rows of a scan, finds the revisions in
//! the answer to a compare-and-swap, which come after a value.
//!
//! ```text
//! prefix ─► message ─► field ─┬─ number: noted by its path
//!    ▲                        ├─ message that is entered: its fields are next
//!    └── all of it read ──────┴─ anything else: skipped
//! ```
//! A path names a field by the numbers of the fields around it: field 4 of what is in field 3 is 03 04.
//!
//! Invariants: nothing grows with the answer; a message ends where the fields of it do, or the answer is
//! malformed, which it stays.

use crate::protobuf::{PREFIX_BYTES, read_varint};

/// Most messages within each other: paths have a byte for each.
const DEPTH_MAX: usize = 5;
/// Most bytes of a tag and the number after it.
const HEAD_BYTES_MAX: usize = 20;
/// Largest message.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;

/// Where an answer has what is looked for, by paths; 0: nowhere.
#[derive(Debug)]
pub struct Shape {
    /// Messages whose fields are looked at.
    pub entered: &'static [u32],
    /// The field that is there once for each row.
    pub row: u32,
    /// Whether the comparison held.
    pub succeeded: u32,
    /// The revision that the command made, or that it was served at.
    pub made: u32,
    /// The revision of the key that is there.
    pub there: u32,
}

/// A `distribkv.v1.PutResponse`.
pub const PUT: Shape = Shape { entered: &[0x01, 0x03], row: 0, succeeded: 0x02, made: 0x0104, there: 0x0304 };
/// `distribkv.v1.ScanResponse`s.
pub const SCAN: Shape = Shape { entered: &[], row: 0x01, succeeded: 0, made: 0, there: 0 };
/// An `etcdserverpb.TxnResponse`: of a put, or of a range of one key.
pub const ETCD_TXN: Shape = Shape {
    entered: &[0x01, 0x03, 0x0301, 0x03_0102],
    row: 0,
    succeeded: 0x02,
    made: 0x0103,
    there: 0x0301_0203,
};
/// An `etcdserverpb.RangeResponse`.
pub const ETCD_RANGE: Shape = Shape { entered: &[], row: 0x02, succeeded: 0, made: 0, there: 0 };

/// What was found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Messages that ended.
    pub messages: u32,
    /// See [`Shape::row`].
    pub rows: u32,
    /// See [`Shape::succeeded`].
    pub succeeded: bool,
    /// See [`Shape::made`].
    pub made: u64,
    /// See [`Shape::there`]; 0: no such key.
    pub there: u64,
}

/// An answer that is being read.
#[derive(Clone, Debug, Default)]
pub struct Skim {
    /// Messages that have begun and not ended, each within the one before it.
    open: [Open; DEPTH_MAX],
    depth: usize,
    /// What came of a prefix, or of a field's head.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    /// Bytes of a field that are not looked at and have not come.
    skip: usize,
    malformed: bool,
    found: Found,
}

#[derive(Clone, Copy, Debug, Default)]
struct Open {
    path: u32,
    left: usize,
}

impl Skim {
    /// Forgets what came.
    pub fn clear(&mut self) {
        (self.depth, self.head_len, self.skip, self.malformed) = (0, 0, 0, false);
        self.found = Found::default();
    }

    /// Takes more bytes of messages with their prefixes.
    pub fn push(&mut self, shape: &Shape, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.malformed {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.head_len] = bytes[0];
            self.head_len += 1;
            bytes = &bytes[1..];
            if self.depth == 0 { self.take_prefix() } else { self.take_head(shape) }
        }
    }

    /// What a whole message without a prefix holds. `None` where it is malformed.
    pub fn of_message(shape: &Shape, message: &[u8]) -> Option<Found> {
        let mut skim = Self::default();
        skim.open(0, message.len());
        skim.push(shape, message);
        skim.found()
    }

    /// What was found, where the answer ended with a message; `None` where it did not, or is malformed.
    pub fn found(&self) -> Option<Found> {
        let is_whole = self.depth == 0 && self.head_len == 0 && self.skip == 0 && !self.malformed;
        is_whole.then_some(self.found)
    }

    /// A message begins once its prefix is whole.
    fn take_prefix(&mut self) {
        if self.head_len < PREFIX_BYTES {
            return;
        }
        let [flag, a, b, c, d, ..] = self.head;
        let len = u32::from_be_bytes([a, b, c, d]);
        self.head_len = 0;
        if flag != 0 || len > MESSAGE_BYTES_MAX {
            self.malformed = true;
            return;
        }
        self.open(0, len as usize);
    }

    /// A field is taken once its tag and the number after that are whole.
    fn take_head(&mut self, shape: &Shape) {
        let head = &self.head[..self.head_len];
        let number = read_varint(head).and_then(|(tag, rest)| Some((tag, read_varint(rest)?.0)));
        let Some((tag, number)) = number else {
            self.malformed = self.head_len == HEAD_BYTES_MAX;
            return;
        };
        let head_len = std::mem::take(&mut self.head_len);
        let held = match tag & 7 {
            0 => Some(0),
            2 => usize::try_from(number).ok(),
            _ => None,
        };
        let outer = &mut self.open[self.depth - 1];
        let left = held.and_then(|held| outer.left.checked_sub(held)?.checked_sub(head_len));
        // A number of a field that has no byte in a path is none that a shape looks for.
        let path = outer.path << 8 | u32::try_from(tag >> 3).unwrap_or(0xff).min(0xff);
        let (Some(held), Some(left)) = (held, left) else {
            self.malformed = true;
            return;
        };
        outer.left = left;
        self.note(shape, path, number);
        if tag & 7 == 2 && self.depth < DEPTH_MAX && shape.entered.contains(&path) {
            self.open(path, held);
        } else {
            self.skip = held;
            self.close();
        }
    }

    fn note(&mut self, shape: &Shape, path: u32, number: u64) {
        if path == shape.row {
            self.found.rows += 1;
        } else if path == shape.succeeded {
            self.found.succeeded = number != 0;
        } else if path == shape.made {
            self.found.made = number;
        } else if path == shape.there {
            self.found.there = number;
        }
    }

    fn open(&mut self, path: u32, left: usize) {
        self.open[self.depth] = Open { path, left };
        self.depth += 1;
        self.close();
    }

    /// Ends the messages that have nothing left.
    fn close(&mut self) {
        while self.depth > 0 && self.open[self.depth - 1].left == 0 {
            self.depth -= 1;
            self.found.messages += u32::from(self.depth == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use distribkv::wire::v1;
    use prost::Message as _;

    use super::*;

    fn framed(messages: &[impl prost::Message]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            let body = message.encode_to_vec();
            bytes.push(0);
            bytes.extend((body.len() as u32).to_be_bytes());
            bytes.extend(body);
        }
        bytes
    }

    fn skim(shape: &Shape, bytes: &[u8], size: usize) -> Option<Found> {
        let mut skim = Skim::default();
        // What came of an answer before is forgotten.
        skim.push(shape, b"\0\0\0");
        skim.clear();
        bytes.chunks(size).for_each(|part| skim.push(shape, part));
        skim.found()
    }

    fn header(revision: u64) -> Option<v1::ResponseHeader> {
        Some(v1::ResponseHeader { cluster_id: u64::MAX, node_id: 1, shard: 7, revision, term: 4 })
    }

    fn kv(len: usize) -> v1::KeyValue {
        v1::KeyValue {
            key: vec![b'k'; 16].into(),
            value: vec![0x18; len].into(),
            create_revision: 5,
            mod_revision: 300,
            version: 2,
        }
    }

    #[test]
    fn rows_of_a_scan_in_pieces_of_any_size() {
        let page =
            |rows| v1::ScanResponse { kvs: vec![kv(300); rows], headers: vec![header(9).expect("one")] };
        let bytes = framed(&[page(3), page(0), v1::ScanResponse::default(), page(97)]);
        for size in [1, 2, 7, 1000, bytes.len()] {
            let found = skim(&SCAN, &bytes, size).expect("whole messages");
            assert_eq!((found.rows, found.messages), (100, 4), "in pieces of {size} bytes");
        }
        assert_eq!(skim(&SCAN, b"", 1).map(|found| found.rows), Some(0));
    }

    #[test]
    fn revisions_of_a_put_that_was_compared() {
        let good = v1::PutResponse { header: header(1 << 40), succeeded: true, previous: None, version: 3 };
        let found = Found { messages: 1, succeeded: true, made: 1 << 40, ..Found::default() };
        assert_eq!(skim(&PUT, &framed(std::slice::from_ref(&good)), 3), Some(found));
        assert_eq!(Skim::of_message(&PUT, &good.encode_to_vec()), Some(found));
        for len in [0, 10, 100_000] {
            let conflict =
                v1::PutResponse { header: header(77), succeeded: false, previous: Some(kv(len)), version: 3 };
            let found = Found { messages: 1, made: 77, there: 300, ..Found::default() };
            assert_eq!(skim(&PUT, &framed(&[conflict]), 1000), Some(found), "{len} bytes");
        }
        let missing = v1::PutResponse { header: header(77), ..Default::default() };
        let found = Found { messages: 1, made: 77, ..Found::default() };
        assert_eq!(skim(&PUT, &framed(&[missing]), 1), Some(found));
    }

    #[test]
    fn what_is_no_answer() {
        let cases: [&[u8]; 8] = [
            b"\x01\0\0\0\0",
            b"\0\x7f\0\0\0",
            b"\0\0\0\0",
            b"\0\0\0\0\x02\x0a",
            b"\0\0\0\0\x02\x0a\x05",
            b"\0\0\0\0\x02\x09\x01",
            b"\0\0\0\0\x07\x0a\x05abcd",
            &[&b"\0\0\0\0\x20"[..], &[0xff; 21]].concat(),
        ];
        for bytes in cases {
            assert_eq!(skim(&PUT, bytes, bytes.len()), None, "{}", bytes.escape_ascii());
        }
        // A field that is entered is not larger than what it is in.
        assert_eq!(skim(&PUT, b"\0\0\0\0\x04\x0a\x02\x20\x80", 9), None);
    }
}
