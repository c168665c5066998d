//! The fields of a request, of which few matter: each is read when it is spelt, and known from then on.
//!
//! Invariants:
//! - Of an entry without a meaning here nothing but its bytes is kept.
//! - A block is read to its end, whatever is wrong with what it says: the table counts on it.

use std::rc::Rc;
use std::time::Duration;

use crate::edge::head;
use crate::http2::frame::TABLE_BYTES_FIRST;
use crate::http2::hpack::{DYNAMIC, ENTRY_BYTES, STATIC_NAMES, Table, Unreadable, number, string};

/// What the fields of a request say.
#[derive(Clone, Debug, Default)]
pub(in crate::edge) struct RequestFields {
    /// Whether its method is POST.
    pub(in crate::edge) is_post: Option<bool>,
    /// `:path`.
    pub(in crate::edge) path: Option<Rc<str>>,
    /// Whether its `content-type` is gRPC's.
    pub(in crate::edge) is_grpc: Option<bool>,
    /// `grpc-encoding`, where it is not `identity`.
    pub(in crate::edge) encoding: Option<Rc<str>>,
    /// `grpc-timeout`; what cannot be read, as it was sent.
    pub(in crate::edge) timeout: Option<Result<Duration, Rc<str>>>,
    /// `content-length`, in bytes.
    pub(in crate::edge) content_length: Option<u64>,
    /// What all of them count, as HTTP/2 counts them.
    pub(in crate::edge) list_bytes: usize,
    has_scheme: bool,
    has_authority: bool,
    /// A field without a colon was there: none with one may follow.
    has_regular: bool,
    /// Something that no request may have.
    is_malformed: bool,
}

impl RequestFields {
    /// Whether they are those of a request, and not of a part of one.
    pub(super) fn is_request(&self) -> bool {
        !self.is_malformed && self.has_scheme && self.is_post.is_some() && self.path.is_some()
    }

    /// Whether they may end a request.
    pub(super) fn are_trailers(&self) -> bool {
        let has_pseudo =
            self.has_scheme || self.has_authority || self.is_post.is_some() || self.path.is_some();
        !self.is_malformed && !has_pseudo
    }

    fn take(&mut self, meaning: &Meaning) {
        if meaning.is_pseudo() {
            self.is_malformed |= self.has_regular;
        } else {
            self.has_regular = true;
        }
        match meaning {
            Meaning::Method { is_post } => self.is_malformed |= self.is_post.replace(*is_post).is_some(),
            Meaning::Path(path) => self.is_malformed |= self.path.replace(Rc::clone(path)).is_some(),
            Meaning::Scheme => self.is_malformed |= std::mem::replace(&mut self.has_scheme, true),
            Meaning::Authority => self.is_malformed |= std::mem::replace(&mut self.has_authority, true),
            Meaning::ContentType { is_grpc } => self.is_grpc = Some(*is_grpc),
            Meaning::Encoding(encoding) => self.encoding = Some(Rc::clone(encoding)),
            Meaning::Timeout(timeout) => self.timeout = Some(timeout.clone()),
            Meaning::ContentLength(length) => {
                self.is_malformed |=
                    self.content_length.replace(*length).is_some_and(|other| other != *length);
            }
            Meaning::Malformed => self.is_malformed = true,
            Meaning::Nothing => {}
        }
    }
}

/// Names that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Method,
    Path,
    Scheme,
    Authority,
    ContentType,
    ContentLength,
    Encoding,
    Timeout,
    Te,
    /// One that no request may have: an unknown pseudo field, of the connection, in large letters.
    Forbidden,
    Other,
}

/// What a field says.
#[derive(Clone, Debug)]
enum Meaning {
    Method { is_post: bool },
    Path(Rc<str>),
    Scheme,
    Authority,
    ContentType { is_grpc: bool },
    ContentLength(u64),
    Encoding(Rc<str>),
    Timeout(Result<Duration, Rc<str>>),
    Malformed,
    Nothing,
}

impl Meaning {
    fn is_pseudo(&self) -> bool {
        matches!(self, Self::Method { .. } | Self::Path(_) | Self::Scheme | Self::Authority)
    }
}

/// An entry of the dynamic table.
#[derive(Debug)]
struct Entry {
    name: Name,
    name_bytes: usize,
    value_bytes: usize,
    meaning: Meaning,
}

/// Reads the blocks of one connection, in order. A client has the usual table until it knows of another, and
/// a larger one when it says so.
#[derive(Debug)]
pub(super) struct Decoder {
    table: Table<Entry>,
    /// What is announced to the client.
    table_bytes_max: usize,
    /// The next block has to begin with the table's size.
    owes_size: bool,
}

impl Decoder {
    /// With a table of at most so many bytes, once the client knows of it.
    pub(super) fn new(table_bytes_max: usize) -> Self {
        let mut table = Table::new(TABLE_BYTES_FIRST);
        let owes_size = table.offer(table_bytes_max.max(TABLE_BYTES_FIRST));
        Self { table, table_bytes_max, owes_size }
    }

    /// The client knows how large its table may be.
    pub(super) fn acknowledge(&mut self) {
        self.owes_size = self.table.offer(self.table_bytes_max);
    }

    /// Reads a whole block. After an error the table is worth nothing, and so is the connection.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<RequestFields, Unreadable> {
        let is_sized = block.first().is_some_and(|first| first.leading_zeros() == 2);
        if std::mem::take(&mut self.owes_size) && !is_sized {
            return Err(Unreadable);
        }
        let mut fields = RequestFields::default();
        let mut rest = block;
        while let Some(first) = rest.first() {
            match first.leading_zeros() {
                0 => {
                    let (index, after) = number(rest, 7)?;
                    self.take_indexed(index, &mut fields)?;
                    rest = after;
                }
                1 => {
                    let (entry, after) = self.literal(rest, 6, &mut fields)?;
                    let bytes = entry.name_bytes + entry.value_bytes;
                    self.table.enter(entry, bytes);
                    rest = after;
                }
                2 => {
                    if fields.list_bytes > 0 {
                        return Err(Unreadable);
                    }
                    let (bytes_max, after) = number(rest, 5)?;
                    self.table.resize(bytes_max)?;
                    rest = after;
                }
                3.. => {
                    let (_, after) = self.literal(rest, 4, &mut fields)?;
                    rest = after;
                }
            }
        }
        Ok(fields)
    }

    /// A field that both sides know.
    fn take_indexed(&self, index: usize, fields: &mut RequestFields) -> Result<(), Unreadable> {
        if index >= DYNAMIC {
            let entry = self.table.get(index)?;
            fields.list_bytes += ENTRY_BYTES + entry.name_bytes + entry.value_bytes;
            fields.take(&entry.meaning);
            return Ok(());
        }
        let (meaning, value_bytes) = static_field(index)?;
        fields.list_bytes += ENTRY_BYTES + usize::from(STATIC_NAMES[index - 1]) + value_bytes;
        fields.take(&meaning);
        Ok(())
    }

    /// Reads a field whose value is spelt; the index of its name has `bits` bits.
    fn literal<'a>(
        &self,
        bytes: &'a [u8],
        bits: u32,
        fields: &mut RequestFields,
    ) -> Result<(Entry, &'a [u8]), Unreadable> {
        let (index, rest) = number(bytes, bits)?;
        let (name, name_bytes, rest) = match index {
            0 => {
                let (text, rest) = string(rest)?;
                (name_of(&text), text.len(), rest)
            }
            DYNAMIC.. => {
                let entry = self.table.get(index)?;
                (entry.name, entry.name_bytes, rest)
            }
            _ => (static_name(index), usize::from(STATIC_NAMES[index - 1]), rest),
        };
        let (value, rest) = string(rest)?;
        let meaning = meaning_of(name, &value);
        fields.list_bytes += ENTRY_BYTES + name_bytes + value.len();
        fields.take(&meaning);
        Ok((Entry { name, name_bytes, value_bytes: value.len(), meaning }, rest))
    }
}

/// A field of the static table, and the bytes of its value.
fn static_field(index: usize) -> Result<(Meaning, usize), Unreadable> {
    match index {
        0 => Err(Unreadable),
        2 => Ok((Meaning::Method { is_post: false }, 3)),
        3 => Ok((Meaning::Method { is_post: true }, 4)),
        4 => Ok((Meaning::Path("/".into()), 1)),
        5 => Ok((Meaning::Path("/index.html".into()), 11)),
        6 => Ok((Meaning::Scheme, 4)),
        7 => Ok((Meaning::Scheme, 5)),
        8..=14 => Ok((Meaning::Malformed, 3)),
        16 => Ok((Meaning::Nothing, 13)),
        _ => Ok((meaning_of(static_name(index), b""), 0)),
    }
}

/// A name of the static table.
fn static_name(index: usize) -> Name {
    match index {
        1 => Name::Authority,
        2 | 3 => Name::Method,
        4 | 5 => Name::Path,
        6 | 7 => Name::Scheme,
        // `:status`, which answers have; `transfer-encoding`.
        8..=14 | 57 => Name::Forbidden,
        28 => Name::ContentLength,
        31 => Name::ContentType,
        _ => Name::Other,
    }
}

fn name_of(text: &[u8]) -> Name {
    match text {
        b":method" => Name::Method,
        b":path" => Name::Path,
        b":scheme" => Name::Scheme,
        b":authority" => Name::Authority,
        b"content-type" => Name::ContentType,
        b"content-length" => Name::ContentLength,
        b"grpc-encoding" => Name::Encoding,
        b"grpc-timeout" => Name::Timeout,
        b"te" => Name::Te,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" | b"" => {
            Name::Forbidden
        }
        [b':', ..] => Name::Forbidden,
        _ if text.iter().any(|byte| byte.is_ascii_uppercase() || *byte <= b' ' || *byte >= 0x7f) => {
            Name::Forbidden
        }
        _ => Name::Other,
    }
}

/// What a value means. Values with bytes that no field may have make a request malformed.
fn meaning_of(name: Name, value: &[u8]) -> Meaning {
    if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Meaning::Malformed;
    }
    let text = || String::from_utf8_lossy(value).as_ref().into();
    match name {
        Name::Method => Meaning::Method { is_post: value == b"POST" },
        Name::Path => match std::str::from_utf8(value) {
            Ok(path) if !path.is_empty() => Meaning::Path(path.into()),
            _ => Meaning::Malformed,
        },
        Name::Scheme => Meaning::Scheme,
        Name::Authority => Meaning::Authority,
        Name::ContentType => Meaning::ContentType { is_grpc: head::is_grpc(value) },
        Name::ContentLength => match std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
            Some(length) => Meaning::ContentLength(length),
            None => Meaning::Malformed,
        },
        Name::Encoding if value == b"identity" => Meaning::Nothing,
        Name::Encoding => Meaning::Encoding(text()),
        Name::Timeout => Meaning::Timeout(head::parse_timeout(value).ok_or_else(text)),
        Name::Te if value == b"trailers" => Meaning::Nothing,
        Name::Te | Name::Forbidden => Meaning::Malformed,
        Name::Other => Meaning::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelt(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        [&[first, name.len() as u8], name, &[value.len() as u8], value].concat()
    }

    /// `:method POST`, `:scheme http`, `:path /a`: the last enters the table.
    const REQUEST: &[u8] = b"\x83\x86\x44\x02/a";

    #[test]
    fn a_request_whole_and_by_index() {
        let mut decoder = Decoder::new(4096);
        let block = [
            REQUEST,
            &spelt(0x40, b"te", b"trailers"),
            b"\x5f\x10application/grpc",
            &spelt(0x40, b"grpc-timeout", b"5S"),
        ]
        .concat();
        let first = decoder.decode(&block).expect("it is well-formed");
        let again = decoder.decode(&[0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]).expect("all of it is known");
        for fields in [first, again] {
            assert!(fields.is_request());
            assert_eq!(fields.path.as_deref(), Some("/a"));
            assert_eq!((fields.is_post, fields.is_grpc), (Some(true), Some(true)));
            assert_eq!(fields.timeout, Some(Ok(Duration::from_secs(5))));
            assert_eq!(fields.list_bytes, 6 * 32 + 11 + 11 + 7 + 10 + 28 + 14);
        }
    }

    #[test]
    fn what_no_request_may_have() {
        let cases = [
            ("no path", vec![0x83, 0x86]),
            ("no method", [&[0x86][..], b"\x44\x02/a"].concat()),
            ("no scheme", [&[0x83][..], b"\x44\x02/a"].concat()),
            ("an empty path", vec![0x83, 0x86, 0x04, 0]),
            ("two methods", [&[0x82][..], REQUEST].concat()),
            ("a status", [&[0x88][..], REQUEST].concat()),
            ("an unknown pseudo field", [&spelt(0, b":a", b"b")[..], REQUEST].concat()),
            ("a pseudo field late", [&spelt(0, b"a", b"b")[..], REQUEST].concat()),
            ("large letters", [REQUEST, &spelt(0, b"A", b"b")].concat()),
            ("of the connection", [REQUEST, &spelt(0, b"connection", b"close")].concat()),
            ("te", [REQUEST, &spelt(0, b"te", b"gzip")].concat()),
            ("a line's end", [REQUEST, &spelt(0, b"a", b"b\nc")].concat()),
            ("a length that is none", [REQUEST, &spelt(0, b"content-length", b"x")].concat()),
        ];
        for (name, block) in cases {
            let fields = Decoder::new(4096).decode(&block).expect("it can be read");
            assert!(!fields.is_request(), "{name}");
            assert!(!fields.are_trailers(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read() {
        let blocks: [&[u8]; 7] = [
            &[0x80],
            &[0xbe],
            &[0x7f],
            &[0x40, 5, b'a'],
            &[0x3f, 0xff, 0xff, 0x03],
            // The table's size within a block.
            &[0x83, 0x20],
            &[0x48],
        ];
        for block in blocks {
            assert!(Decoder::new(4096).decode(block).is_err(), "{block:?}");
        }
    }

    #[test]
    fn trailers_and_what_is_told_of_timeouts_and_encodings() {
        let mut decoder = Decoder::new(4096);
        assert!(decoder.decode(&spelt(0, b"x-sum", b"1")).expect("it can be read").are_trailers());
        let block =
            [REQUEST, &spelt(0, b"grpc-timeout", b"soon"), &spelt(0, b"grpc-encoding", b"gzip")].concat();
        let fields = decoder.decode(&block).expect("it can be read");
        assert!(fields.is_request());
        assert_eq!(fields.timeout, Some(Err("soon".into())));
        assert_eq!(fields.encoding.as_deref(), Some("gzip"));
        let block = [REQUEST, &spelt(0, b"grpc-encoding", b"identity")].concat();
        assert_eq!(decoder.decode(&block).expect("it can be read").encoding, None);
    }
}
