//! HPACK (RFC 7541) as a client has it, spelt out plainly and apart from what it tests: a decoder that takes
//! nothing but what the RFC allows, and the pieces of blocks.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::VecDeque;

/// A header's name and value.
pub type Field = (Vec<u8>, Vec<u8>);

/// Length of each symbol's Huffman code, in bits (appendix B); the code is canonical. The server's half has
/// it too: what judges that half shares nothing with it.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The static table (appendix A), from index 1 on: `name` or `name=value`, without spaces in values.
const STATIC: &str = ":authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http \
    :scheme=https :status=200 :status=204 :status=206 :status=304 :status=400 :status=404 :status=500 \
    accept-charset accept-encoding=gzip,deflate accept-language accept-ranges accept \
    access-control-allow-origin age allow authorization cache-control content-disposition content-encoding \
    content-language content-length content-location content-range content-type cookie date etag expect \
    expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified \
    link location max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after \
    server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate";

/// The first index of the dynamic table.
pub const DYNAMIC: usize = 62;

/// Reads the blocks of one connection. Whatever the RFC forbids an encoder is a panic.
pub struct Decoder {
    /// The newest first.
    entries: VecDeque<Field>,
    bytes_max: usize,
    /// What we announced, and the server acknowledged.
    bytes_allowed: usize,
    /// The smallest limit since the last block: the next one has to take it up first.
    bytes_due: Option<usize>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes_max: 4096, bytes_allowed: 4096, bytes_due: None }
    }
}

impl Decoder {
    /// Takes up a limit that the server has acknowledged.
    pub fn allow(&mut self, bytes: usize) {
        self.bytes_allowed = bytes;
        if bytes < self.bytes_max {
            self.bytes_due = Some(self.bytes_due.map_or(bytes, |due| due.min(bytes)));
        }
    }

    pub fn decode(&mut self, block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        let mut rest = block;
        while let Some(first) = rest.first() {
            if first & 0xe0 == 0x20 {
                assert!(fields.is_empty(), "a table's size is told before the first field");
                self.resize(number(&mut rest, 5));
                continue;
            }
            assert_eq!(self.bytes_due, None, "a smaller table is taken up before the first field");
            fields.push(match first.leading_zeros() {
                0 => self.at(number(&mut rest, 7)),
                1 => {
                    let field = self.literal(&mut rest, 6);
                    self.entries.push_front(field.clone());
                    self.evict();
                    field
                }
                _ => self.literal(&mut rest, 4),
            });
        }
        fields
    }

    fn resize(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes_allowed, "a table of {bytes}, {} are allowed", self.bytes_allowed);
        self.bytes_due = self.bytes_due.filter(|due| *due < bytes);
        self.bytes_max = bytes;
        self.evict();
    }

    fn evict(&mut self) {
        let bytes = |field: &Field| field.0.len() + field.1.len() + 32;
        while self.entries.iter().map(bytes).sum::<usize>() > self.bytes_max {
            self.entries.pop_back();
        }
    }

    fn at(&self, index: usize) -> Field {
        assert!(index > 0, "there is no field 0");
        if index >= DYNAMIC {
            return self.entries.get(index - DYNAMIC).expect("an index is in the table").clone();
        }
        let entry = STATIC.split_whitespace().nth(index - 1).expect("the static table has 61 entries");
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.into(), value.into())
    }

    fn literal(&self, rest: &mut &[u8], bits: u32) -> Field {
        let name = match number(rest, bits) {
            0 => string(rest),
            index => self.at(index).0,
        };
        (name, string(rest))
    }
}

fn number(rest: &mut &[u8], bits: u32) -> usize {
    let mut next = || {
        let (first, after) = rest.split_first().expect("a number has an end");
        *rest = after;
        usize::from(*first)
    };
    let full = (1 << bits) - 1;
    let mut number = next() & full;
    if number < full {
        return number;
    }
    for shift in [0, 7, 14, 21] {
        let byte = next();
        number += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
    }
    panic!("a number of more than four bytes more");
}

fn string(rest: &mut &[u8]) -> Vec<u8> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = number(rest, 7);
    let (text, after) = rest.split_at_checked(length).expect("a string ends in its block");
    *rest = after;
    if is_coded { unpack(text) } else { text.to_vec() }
}

/// The code of every symbol: its bits and their number.
fn codes() -> Vec<(u32, u8, u8)> {
    let mut symbols: Vec<u8> = (0..=255).collect();
    symbols.sort_by_key(|symbol| (LENGTHS[usize::from(*symbol)], *symbol));
    let (mut code, mut before) = (0_u32, 5);
    let mut codes = Vec::new();
    for symbol in symbols {
        let length = LENGTHS[usize::from(symbol)];
        code <<= length - before;
        codes.push((code, length, symbol));
        code += 1;
        before = length;
    }
    codes
}

fn unpack(coded: &[u8]) -> Vec<u8> {
    let codes = codes();
    let mut text = Vec::new();
    let (mut code, mut length) = (0_u32, 0);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        if let Some((_, _, symbol)) = codes.iter().find(|known| (known.0, known.1) == (code, length)) {
            text.push(*symbol);
            (code, length) = (0, 0);
        }
    }
    assert!(length < 8 && code == (1 << length) - 1, "padding is up to seven ones");
    text
}

/// A text in Huffman's code, padded with ones.
pub fn pack(text: &[u8]) -> Vec<u8> {
    let codes = codes();
    let mut bits = Vec::new();
    for byte in text {
        let (code, length, _) = codes.iter().find(|known| known.2 == *byte).expect("each has a code");
        bits.extend((0..*length).rev().map(|shift| (code >> shift & 1) as u8));
    }
    bits.resize(bits.len().next_multiple_of(8), 1);
    bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

/// A number in the low `bits` bits of a byte that begins with `first`, and what follows.
pub fn spell_number(first: u8, bits: u32, number: usize) -> Vec<u8> {
    let full = (1 << bits) - 1;
    if number < full {
        return vec![first | number as u8];
    }
    let mut bytes = vec![first | full as u8];
    let mut rest = number - full;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// A string as it is.
pub fn plain(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [spell_number(0, 7, text.len()), text.to_vec()].concat()
}

/// A string in Huffman's code.
pub fn huffman(text: impl AsRef<[u8]>) -> Vec<u8> {
    let coded = pack(text.as_ref());
    [spell_number(0x80, 7, coded.len()), coded].concat()
}

/// A field that does not enter the table.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0], plain(name), plain(value)].concat()
}

/// A field that nobody may ever index.
pub fn never_indexed(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x10], plain(name), plain(value)].concat()
}

/// A field that enters the table.
pub fn entering(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x40], plain(name), plain(value)].concat()
}

/// A field that both sides know.
pub fn index(index: usize) -> Vec<u8> {
    spell_number(0x80, 7, index)
}

/// The size of the table from here on.
pub fn table_size(bytes: usize) -> Vec<u8> {
    spell_number(0x20, 5, bytes)
}
