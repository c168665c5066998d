//! The heads of requests. All requests of a connection are alike but for their path, so each field is spelt
//! once, enters the server's table, and is one byte from then on.
//!
//! ```text
//!  83 86                                               :method POST, :scheme http
//!  :authority  :path  content-type  te  [grpc-timeout]   each 41 .. / 44 .. / 5F .. / 40 ..  at first,
//!                                                        then 80 | index
//! ```
//! Invariants:
//! - Names with a colon come first, as the protocol asks.
//! - All fields of a connection fit into the server's table, so that none is ever put out again and an index
//!   is known from the order of entry. Where they do not fit, or the server wants a smaller table than is
//!   usual, every head is spelt whole and the server's table stays empty.

use std::rc::Rc;

use distribkv::http2::hpack::{DYNAMIC, ENTRY_BYTES, Entered, Speller, Spelling};

/// The places of the fields that every head has, before its path and after it.
const BEFORE_PATH: [usize; 1] = [0];
/// See [`BEFORE_PATH`].
const AFTER_PATH: [usize; 2] = [1, 2];
/// The place of `grpc-timeout`; paths follow.
const TIMEOUT: usize = 3;
/// Most fields of a connection, so that every index fits into its byte.
const FIELDS_MAX: usize = 32;

const _: () = assert!(DYNAMIC + FIELDS_MAX < 127, "an index of the table is one byte");

/// Whether a call says how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// It does.
    Timed,
    /// It lasts as long as its connection.
    Endless,
}

#[derive(Debug)]
struct Field {
    /// The name's index in the static table; 0: it has none.
    index: usize,
    name: &'static str,
    value: String,
}

/// The fields of all requests to one address.
#[derive(Debug)]
pub struct Heads {
    fields: Vec<Field>,
}

impl Heads {
    /// Requests to `authority`, with `timeout` as gRPC spells it, for any of `paths`.
    pub fn new(authority: &str, timeout: &str, paths: &[&'static str]) -> Self {
        let mut fields = vec![
            Field { index: 1, name: ":authority", value: authority.to_owned() },
            Field { index: 31, name: "content-type", value: "application/grpc".to_owned() },
            Field { index: 0, name: "te", value: "trailers".to_owned() },
            Field { index: 0, name: "grpc-timeout", value: timeout.to_owned() },
        ];
        assert_eq!(fields[TIMEOUT].name, "grpc-timeout");
        fields.extend(paths.iter().map(|path| Field { index: 4, name: ":path", value: (*path).to_owned() }));
        assert!(fields.len() <= FIELDS_MAX, "{} fields", fields.len());
        Self { fields }
    }

    fn table_bytes(&self) -> usize {
        self.fields.iter().map(|field| ENTRY_BYTES + field.name.len() + field.value.len()).sum()
    }
}

/// Spells the heads of one connection.
#[derive(Debug)]
pub struct HeadWriter {
    heads: Rc<Heads>,
    speller: Speller,
    /// By field.
    entered: Vec<Entered>,
}

impl HeadWriter {
    /// For a new connection.
    pub fn new(heads: Rc<Heads>) -> Self {
        let (speller, entered) = (Speller::new(heads.table_bytes()), vec![None; heads.fields.len()]);
        Self { heads, speller, entered }
    }

    /// The server keeps a table of so many bytes.
    pub fn limit_table(&mut self, bytes_max: usize) {
        self.speller.limit_table(bytes_max);
    }

    /// Spells the head of a request for path number `path`.
    pub fn write(&mut self, path: usize, span: Span, out: &mut Vec<u8>) {
        self.speller.begin(out);
        out.extend_from_slice(&[0x83, 0x86]);
        let timeout = match span {
            Span::Timed => Some(TIMEOUT),
            Span::Endless => None,
        };
        for at in BEFORE_PATH.into_iter().chain([TIMEOUT + 1 + path]).chain(AFTER_PATH).chain(timeout) {
            let Field { index, name, value } = &self.heads.fields[at];
            self.speller.again(Spelling { index: *index, name, value }, &mut self.entered[at], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(authority: &str) -> HeadWriter {
        HeadWriter::new(Rc::new(Heads::new(authority, "5S", &["/a/B", "/c/D"])))
    }

    fn written(writer: &mut HeadWriter, path: usize, span: Span) -> Vec<u8> {
        let mut out = Vec::new();
        writer.write(path, span, &mut out);
        out
    }

    #[test]
    fn a_head_is_spelt_once() {
        let mut writer = writer("h:1");
        let first = written(&mut writer, 0, Span::Timed);
        assert!(first.starts_with(b"\x83\x86\x41\x03h:1\x44\x04/a/B\x5f\x10application/grpc\x40\x02te"));
        assert!(first.ends_with(b"\x08trailers\x40\x0cgrpc-timeout\x025S"));
        assert_eq!(written(&mut writer, 0, Span::Timed), [0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe]);
        let other = written(&mut writer, 1, Span::Endless);
        assert_eq!(other, *b"\x83\x86\xc2\x44\x04/c/D\xc1\xc0");
        assert_eq!(written(&mut writer, 0, Span::Timed), [0x83, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf]);
    }

    #[test]
    fn a_small_table_is_left_empty() {
        let mut writer = writer("h:1");
        written(&mut writer, 0, Span::Timed);
        writer.limit_table(0);
        let whole = written(&mut writer, 0, Span::Timed);
        assert_eq!(&whole[..8], b"\x20\x83\x86\x01\x03h:1");
        assert_eq!(written(&mut writer, 0, Span::Timed), whole[1..]);
    }

    #[test]
    fn long_names_do_not_enter() {
        let mut writer = writer(&"h".repeat(5000));
        let whole = written(&mut writer, 0, Span::Timed);
        assert_eq!(whole[..6], [0x83, 0x86, 0x01, 0x7f, 0x89, 0x26]);
        assert_eq!(written(&mut writer, 0, Span::Timed), whole);
    }
}
