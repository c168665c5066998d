//! The fields of an answer (HPACK, RFC 7541), of which three matter: the HTTP status, gRPC's, and its detail.
//!
//! Of entries without a meaning here nothing but the length is kept.

use std::rc::Rc;

use distribkv::http2::frame::TABLE_BYTES_FIRST;
use distribkv::http2::hpack::{DYNAMIC, STATIC_NAMES, Table, Unreadable, number, string};

/// The index of the static table's first `:status`.
const STATIC_STATUS: usize = 8;
/// The static table's values of `:status`.
const STATIC_STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// What a block of fields says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `:status`, which the head of an answer has and its trailers have not.
    pub http_status: Option<u16>,
    /// `grpc-status`, where it is a number.
    pub grpc_status: Option<u16>,
    /// `distribkv-error-bin` as it was sent.
    pub detail: Option<Rc<[u8]>>,
}

/// Names that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    HttpStatus,
    GrpcStatus,
    Detail,
    Other,
}

/// A field's value, where it has a meaning.
#[derive(Clone, Debug)]
enum Meaning {
    HttpStatus(u16),
    GrpcStatus(u16),
    Detail(Rc<[u8]>),
    Nothing,
}

/// An entry of the dynamic table.
#[derive(Debug)]
struct Entry {
    name: Name,
    name_len: usize,
    value_len: usize,
    meaning: Meaning,
}

/// Reads the blocks of one connection, in order.
#[derive(Debug)]
pub struct Decoder {
    table: Table<Entry>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: Table::new(TABLE_BYTES_FIRST) }
    }
}

impl Decoder {
    /// Reads a whole block: what it says, and what enters the table with it. After an error the table is
    /// worth nothing, and so is the connection.
    pub fn decode(&mut self, block: &[u8]) -> Result<Fields, Unreadable> {
        let mut fields = Fields::default();
        let mut rest = block;
        while let Some(first) = rest.first() {
            match first.leading_zeros() {
                0 => {
                    let (index, after) = number(rest, 7)?;
                    fields.take(&self.indexed(index)?);
                    rest = after;
                }
                1 => {
                    let (entry, after) = self.literal(rest, 6)?;
                    fields.take(&entry.meaning);
                    let bytes = entry.name_len + entry.value_len;
                    self.table.enter(entry, bytes);
                    rest = after;
                }
                2 => {
                    let (bytes_max, after) = number(rest, 5)?;
                    self.table.resize(bytes_max)?;
                    rest = after;
                }
                3.. => {
                    let (entry, after) = self.literal(rest, 4)?;
                    fields.take(&entry.meaning);
                    rest = after;
                }
            }
        }
        Ok(fields)
    }

    /// The meaning of a field that both sides know.
    fn indexed(&self, index: usize) -> Result<Meaning, Unreadable> {
        if index == 0 {
            return Err(Unreadable);
        }
        if index >= DYNAMIC {
            return self.table.get(index).map(|entry| entry.meaning.clone());
        }
        let status = index.checked_sub(STATIC_STATUS).and_then(|at| STATIC_STATUSES.get(at));
        Ok(status.map_or(Meaning::Nothing, |status| Meaning::HttpStatus(*status)))
    }

    /// Reads a field whose value is spelt; the index of its name has `bits` bits.
    fn literal<'a>(&self, bytes: &'a [u8], bits: u32) -> Result<(Entry, &'a [u8]), Unreadable> {
        let (index, rest) = number(bytes, bits)?;
        let (name, name_len, rest) = match index {
            0 => {
                let (text, rest) = string(rest)?;
                (name_of(&text), text.len(), rest)
            }
            _ => {
                let (name, name_len) = self.name_at(index)?;
                (name, name_len, rest)
            }
        };
        let (value, rest) = string(rest)?;
        Ok((Entry { name, name_len, value_len: value.len(), meaning: meaning_of(name, &value) }, rest))
    }

    /// A name that both sides know, and its length.
    fn name_at(&self, index: usize) -> Result<(Name, usize), Unreadable> {
        assert!(index > 0, "a name that is spelt has index {index}");
        if index >= DYNAMIC {
            return self.table.get(index).map(|entry| (entry.name, entry.name_len));
        }
        let is_status = (STATIC_STATUS..STATIC_STATUS + STATIC_STATUSES.len()).contains(&index);
        let name = if is_status { Name::HttpStatus } else { Name::Other };
        Ok((name, usize::from(STATIC_NAMES[index - 1])))
    }
}

impl Fields {
    fn take(&mut self, meaning: &Meaning) {
        match meaning {
            Meaning::HttpStatus(status) => self.http_status = Some(*status),
            Meaning::GrpcStatus(status) => self.grpc_status = Some(*status),
            Meaning::Detail(detail) => self.detail = Some(Rc::clone(detail)),
            Meaning::Nothing => {}
        }
    }
}

/// A name that matters, or any other. Names are in small letters, as the protocol asks.
fn name_of(text: &[u8]) -> Name {
    match text {
        b":status" => Name::HttpStatus,
        b"grpc-status" => Name::GrpcStatus,
        b"distribkv-error-bin" => Name::Detail,
        _ => Name::Other,
    }
}

/// What a value means. A status that is no number means nothing: the answer is then malformed for want of
/// one.
fn meaning_of(name: Name, value: &[u8]) -> Meaning {
    let status = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    match name {
        Name::HttpStatus => status().map_or(Meaning::Nothing, Meaning::HttpStatus),
        Name::GrpcStatus => status().map_or(Meaning::Nothing, Meaning::GrpcStatus),
        Name::Detail => Meaning::Detail(value.into()),
        Name::Other => Meaning::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(http: u16) -> Fields {
        Fields { http_status: Some(http), ..Fields::default() }
    }

    /// RFC 7541, C.6: three answers in Huffman's code, here in a table of 4096 bytes instead of 256.
    #[test]
    fn answers_of_the_rfc() {
        let mut decoder = Decoder::default();
        let first = [
            0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a, 0xbe,
            0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6,
            0x2d, 0x1b, 0xff, 0x6e, 0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8,
            0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
        ];
        assert_eq!(decoder.decode(&first), Ok(status(302)));
        assert_eq!(decoder.table.size(), (4, 222));
        assert_eq!(decoder.decode(&[0x48, 0x83, 0x64, 0x0e, 0xff, 0xc1, 0xc0, 0xbf]), Ok(status(307)));
        assert_eq!(decoder.table.size(), (5, 264));
        assert_eq!(decoder.decode(&[0x88]), Ok(status(200)));
    }

    #[test]
    fn trailers_by_name_and_by_index() {
        let mut decoder = Decoder::default();
        let mut block = vec![0x40, 11];
        block.extend(b"grpc-status\x0214\x40\x13distribkv-error-bin\x03abc");
        let want = Fields { http_status: None, grpc_status: Some(14), detail: Some(b"abc"[..].into()) };
        assert_eq!(decoder.decode(&block), Ok(want.clone()));
        assert_eq!(decoder.decode(&[0xbe, 0xbf]), Ok(want));
        // The name of the first entry with another value, which does not enter.
        let other = Fields { grpc_status: Some(0), ..Fields::default() };
        assert_eq!(decoder.decode(&[0x0f, 63 - 15, 1, b'0']), Ok(other));
        assert_eq!(decoder.table.size().0, 2);
    }

    #[test]
    fn the_table_shrinks_and_forgets_the_oldest() {
        let mut decoder = Decoder::default();
        let field = |value: &[u8]| [&[0x40, 1, b'n', value.len() as u8], value].concat();
        for value in [b"a", b"b"] {
            assert_eq!(decoder.decode(&field(value)), Ok(Fields::default()));
        }
        assert_eq!(decoder.table.size().1, 68);
        assert_eq!(decoder.decode(&[0x3f, 50 - 31]), Ok(Fields::default()));
        assert_eq!(decoder.table.size(), (1, 34));
        // Larger than the table: it empties it.
        assert_eq!(decoder.decode(&field(&[b'x'; 60])), Ok(Fields::default()));
        assert_eq!(decoder.table.size(), (0, 0));
    }

    #[test]
    fn what_cannot_be_read() {
        let blocks: [&[u8]; 8] = [
            &[0x80],
            &[0xbe],
            &[0x7f],
            &[0x40, 5, b'a'],
            &[0x40, 1, b'a', 0x81, 0x00],
            &[0x3f, 0xff, 0xff, 0x03],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x48],
        ];
        for block in blocks {
            assert_eq!(Decoder::default().decode(block), Err(Unreadable), "{block:?}");
        }
    }
}
