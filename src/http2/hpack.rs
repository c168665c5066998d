//! The parts of HPACK (RFC 7541) that do not depend on what a field means.
//!
//! ```text
//!  1iiiiiii                          field i of the tables
//!  01nnnnnn [name] value             enters the dynamic table       n: a name of the tables; 0: spelt
//!  001sssss                          the dynamic table's size
//!  000xnnnn [name] value             does not enter
//!  h lllllll bytes                   a string; h: in Huffman's code
//! ```
//!
//! Invariants:
//! - The dynamic table is kept entry by entry as its peer keeps it, since every later index counts on it;
//!   what is kept of an entry is up to whoever reads, but for its bytes.
//! - Its bytes never exceed what was last agreed on.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::frame::TABLE_BYTES_FIRST;
use super::huffman;

/// What an entry counts beyond its name and value.
pub const ENTRY_BYTES: usize = 32;
/// The first index of the dynamic table.
pub const DYNAMIC: usize = 62;
/// A size of the table: it is empty from now on.
const EMPTY_TABLE: u8 = 0x20;
/// Bytes of a number: enough for any length that fits into a block.
const NUMBER_BYTES_MAX: usize = 4;

/// Lengths of the static table's names, from index 1 on.
#[rustfmt::skip]
pub const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13,
    19, 16, 16, 14, 16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18,
    19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// A block that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The dynamic table: what is kept of each entry, the newest first.
#[derive(Debug)]
pub struct Table<T> {
    /// With what each counts.
    entries: VecDeque<(T, usize)>,
    bytes: usize,
    bytes_max: usize,
    /// What was offered to the peer, which may use less.
    offered: usize,
}

impl<T> Table<T> {
    /// A table of at most so many bytes, all of which the peer may use.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max, offered: bytes_max }
    }

    /// The peer knows that it may use so many bytes at most, from its next block on. Whether it has to say in
    /// that block how many it uses, since its table holds more than that (RFC 9113, section 4.3.1).
    #[must_use]
    pub fn offer(&mut self, bytes_max: usize) -> bool {
        self.offered = bytes_max;
        if self.bytes <= bytes_max {
            self.bytes_max = self.bytes_max.min(bytes_max);
        }
        self.bytes > bytes_max
    }

    /// The entry of an index, which counts from [`DYNAMIC`].
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, index: usize) -> Result<&T, Unreadable> {
        let at = index.checked_sub(DYNAMIC).ok_or(Unreadable)?;
        self.entries.get(at).map(|(entry, _)| entry).ok_or(Unreadable)
    }

    /// Puts an entry of a name and value of so many bytes first, and the oldest out as far as it takes; one
    /// that is larger than the table empties it and stays out itself.
    pub fn enter(&mut self, entry: T, text_bytes: usize) {
        let bytes = ENTRY_BYTES + text_bytes;
        self.evict_to(self.bytes_max.saturating_sub(bytes));
        if bytes <= self.bytes_max {
            self.bytes += bytes;
            self.entries.push_front((entry, bytes));
        }
        assert!(self.bytes <= self.bytes_max, "{} bytes in a table of {}", self.bytes, self.bytes_max);
    }

    /// The peer uses so many bytes from now on.
    ///
    /// # Errors
    /// That is more than it was offered.
    pub fn resize(&mut self, bytes_max: usize) -> Result<(), Unreadable> {
        if bytes_max > self.offered {
            return Err(Unreadable);
        }
        self.bytes_max = bytes_max;
        self.evict_to(bytes_max);
        Ok(())
    }

    /// Entries, and the bytes that they count.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// Puts the oldest entries out until the table has at most so many bytes.
    fn evict_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((_, bytes)) = self.entries.pop_back() else { return };
            self.bytes -= bytes;
        }
    }
}

/// A number that begins in the low `bits` bits of the first byte; and what follows it.
///
/// # Errors
/// It is cut off, or larger than any length.
pub fn number(bytes: &[u8], bits: u32) -> Result<(usize, &[u8]), Unreadable> {
    let (first, mut rest) = bytes.split_first().ok_or(Unreadable)?;
    let full = (1usize << bits) - 1;
    let mut number = usize::from(*first) & full;
    if number < full {
        return Ok((number, rest));
    }
    for place in 0..NUMBER_BYTES_MAX {
        let (byte, after) = rest.split_first().ok_or(Unreadable)?;
        number += usize::from(byte & 0x7f) << (7 * place);
        rest = after;
        if byte & 0x80 == 0 {
            return Ok((number, rest));
        }
    }
    Err(Unreadable)
}

/// A string, and what follows it.
///
/// # Errors
/// It is cut off, or not in Huffman's code where it says so.
pub fn string(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Unreadable> {
    let is_coded = bytes.first().ok_or(Unreadable)? & 0x80 != 0;
    let (len, rest) = number(bytes, 7)?;
    let (text, rest) = rest.split_at_checked(len).ok_or(Unreadable)?;
    if is_coded {
        return Ok((Cow::Owned(huffman::decode(text).ok_or(Unreadable)?), rest));
    }
    Ok((Cow::Borrowed(text), rest))
}

/// A field that is spelt here.
#[derive(Clone, Copy, Debug)]
pub struct Spelling<'a> {
    /// The name's index in the static table; 0: it has none, and is spelt.
    pub index: usize,
    /// The name, in small letters.
    pub name: &'a str,
    /// The value.
    pub value: &'a str,
}

/// The how many-th of its connection a field entered the peer's table; `None`: it has not.
pub type Entered = Option<usize>;

/// How fields are spelt on a connection.
#[derive(Debug, PartialEq, Eq)]
enum Style {
    /// By the peer's table.
    Indexed,
    /// Whole, once the peer was told that its table is empty.
    PlainAfterUpdate,
    /// Whole.
    Plain,
}

/// Spells the fields of one connection: those that come again and again enter the peer's table and are a
/// byte or two from then on.
///
/// Whoever spells sees to it that all of them together fit that table, so that none is ever put out again
/// and an index is known from the order of entry. Where the peer wants a smaller table than is usual its
/// table stays empty.
#[derive(Debug)]
pub struct Speller {
    style: Style,
    entered: usize,
}

impl Speller {
    /// For fields that come again and again and count so many bytes together, [`ENTRY_BYTES`] for each
    /// included.
    #[must_use]
    pub fn new(table_bytes: usize) -> Self {
        let style = if table_bytes <= TABLE_BYTES_FIRST { Style::Indexed } else { Style::Plain };
        Self { style, entered: 0 }
    }

    /// The peer keeps a table of so many bytes.
    pub fn limit_table(&mut self, bytes_max: usize) {
        if bytes_max < TABLE_BYTES_FIRST && self.style == Style::Indexed {
            self.style = Style::PlainAfterUpdate;
        }
    }

    /// A block begins.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if self.style == Style::PlainAfterUpdate {
            out.push(EMPTY_TABLE);
            self.style = Style::Plain;
        }
    }

    /// Spells a field that comes again and again.
    ///
    /// # Panics
    /// `entered` is of another connection.
    pub fn again(&mut self, field: Spelling<'_>, entered: &mut Entered, out: &mut Vec<u8>) {
        if self.style != Style::Indexed {
            return Self::once(field, out);
        }
        if let Some(order) = *entered {
            assert!(order < self.entered, "entry {order} of {}", self.entered);
            return write_number(0x80, 7, DYNAMIC + self.entered - 1 - order, out);
        }
        write_field((0x40, 6), field, out);
        *entered = Some(self.entered);
        self.entered += 1;
    }

    /// Spells a field that stays out of the table.
    pub fn once(field: Spelling<'_>, out: &mut Vec<u8>) {
        write_field((0x00, 4), field, out);
    }
}

/// Spells a field; the index of its name has `bits` bits below `form`.
fn write_field((form, bits): (u8, u32), field: Spelling<'_>, out: &mut Vec<u8>) {
    write_number(form, bits, field.index, out);
    if field.index == 0 {
        write_string(field.name, out);
    }
    write_string(field.value, out);
}

/// Spells a number into the low `bits` bits of a byte, and beyond where they do not hold it.
fn write_number(form: u8, bits: u32, number: usize, out: &mut Vec<u8>) {
    let full = (1usize << bits) - 1;
    if number < full {
        return out.push(form | number as u8);
    }
    out.push(form | full as u8);
    let mut rest = number - full;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    write_number(0, 7, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, C.1.
    #[test]
    fn numbers_there_and_back() {
        for (bits, value, spelt) in
            [(5, 10, &[0x0a][..]), (5, 1337, &[0x1f, 0x9a, 0x0a]), (8, 42, &[0x2a]), (7, 127, &[0x7f, 0])]
        {
            let mut out = Vec::new();
            write_number(0, bits, value, &mut out);
            assert_eq!(out, spelt, "{value}");
            assert_eq!(number(&out, bits), Ok((value, &[][..])), "{value}");
        }
        for cut in [&[0x1f_u8][..], &[0x1f, 0x80], &[0x1f, 0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(number(cut, 5), Err(Unreadable), "{cut:?}");
        }
    }

    #[test]
    fn strings_there_and_back() {
        let mut out = Vec::new();
        write_string("abc", &mut out);
        out.push(9);
        let (text, rest) = string(&out).expect("it is whole");
        assert_eq!((&text[..], rest), (&b"abc"[..], &[9][..]));
        assert_eq!(string(&out[..3]), Err(Unreadable));
        assert_eq!(string(&[]), Err(Unreadable));
    }

    #[test]
    fn the_table_shrinks_and_forgets_the_oldest() {
        let mut table = Table::new(100);
        table.enter('a', 2);
        table.enter('b', 2);
        assert_eq!(table.size(), (2, 68));
        assert_eq!((table.get(62), table.get(63), table.get(64)), (Ok(&'b'), Ok(&'a'), Err(Unreadable)));
        table.resize(50).expect("it is less than was offered");
        assert_eq!((table.size(), table.get(62)), ((1, 34), Ok(&'b')));
        table.enter('c', 60);
        assert_eq!(table.size(), (0, 0), "what is larger than the table empties it");
        assert_eq!(table.resize(101), Err(Unreadable));
        table.resize(100).expect("it is what was offered");
        assert_eq!(table.get(61), Err(Unreadable));
        table.enter('d', 18);
        assert!(!table.offer(50), "it holds no more than that");
        assert!(table.offer(49));
        assert_eq!(table.get(62), Ok(&'d'), "until its peer has said so");
        assert_eq!(table.resize(50), Err(Unreadable));
        table.resize(49).expect("it is what was offered");
        assert_eq!(table.size(), (0, 0));
    }
}
