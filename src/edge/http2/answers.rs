//! The fields of answers. All answers that go well have the same head and the same trailers: three fields
//! that are spelt once, enter the client's table, and are one byte each from then on.
//!
//! ```text
//!  head      88 (:status 200)   content-type application/grpc   grpc-accept-encoding identity
//!  trailers  grpc-status 0
//! ```
//!
//! Invariants:
//! - Nothing else ever enters the client's table, so that an index is known from the order of entry.
//! - Where the client wants a smaller table than is usual it is told once that its table is empty, and every
//!   field is spelt from then on.

use crate::http2::hpack::{ENTRY_BYTES, Entered, Speller, Spelling};

/// `:status 200` of the static table.
const STATUS_200: u8 = 0x88;
/// `:status` of the static table.
const STATUS: usize = 8;
/// The fields that enter the table.
const CONTENT_TYPE: Spelling<'static> =
    Spelling { index: 31, name: "content-type", value: "application/grpc" };
const ACCEPT_ENCODING: Spelling<'static> =
    Spelling { index: 0, name: "grpc-accept-encoding", value: "identity" };
const STATUS_OK: Spelling<'static> = Spelling { index: 0, name: "grpc-status", value: "0" };

/// A field of an answer that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::edge) struct Field {
    /// In small letters.
    pub(in crate::edge) name: &'static str,
    /// Visible ASCII.
    pub(in crate::edge) value: String,
}

/// Spells the fields of one connection's answers.
#[derive(Debug)]
pub(super) struct FieldWriter {
    speller: Speller,
    content_type: Entered,
    accept_encoding: Entered,
    status_ok: Entered,
}

impl FieldWriter {
    pub(super) fn new() -> Self {
        let bytes = |field: Spelling<'_>| ENTRY_BYTES + field.name.len() + field.value.len();
        let table_bytes = [CONTENT_TYPE, ACCEPT_ENCODING, STATUS_OK].into_iter().map(bytes).sum();
        let speller = Speller::new(table_bytes);
        Self { speller, content_type: None, accept_encoding: None, status_ok: None }
    }

    /// The client keeps a table of so many bytes.
    pub(super) fn limit_table(&mut self, bytes_max: usize) {
        self.speller.limit_table(bytes_max);
    }

    /// The head of an answer that goes well so far.
    pub(super) fn head(&mut self, out: &mut Vec<u8>) {
        self.speller.begin(out);
        out.push(STATUS_200);
        self.speller.again(CONTENT_TYPE, &mut self.content_type, out);
        self.speller.again(ACCEPT_ENCODING, &mut self.accept_encoding, out);
    }

    /// The trailers of an answer that went well.
    pub(super) fn ok(&mut self, out: &mut Vec<u8>) {
        self.speller.begin(out);
        self.speller.again(STATUS_OK, &mut self.status_ok, out);
    }

    /// Trailers that say something else.
    pub(super) fn trailers(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        self.speller.begin(out);
        spell_all(fields, out);
    }

    /// The head of an answer that fails, and is nothing else.
    pub(super) fn failure(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        self.head(out);
        spell_all(fields, out);
    }

    /// An HTTP status, and nothing else.
    pub(super) fn http(&mut self, status: u16, out: &mut Vec<u8>) {
        self.speller.begin(out);
        Speller::once(Spelling { index: STATUS, name: ":status", value: &status.to_string() }, out);
    }
}

fn spell_all(fields: &[Field], out: &mut Vec<u8>) {
    for Field { name, value } in fields {
        Speller::once(Spelling { index: 0, name, value }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelt(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn what_is_known_is_a_byte() {
        let mut writer = FieldWriter::new();
        let first = spelt(|out| writer.head(out));
        assert_eq!(first, b"\x88\x5f\x10application/grpc\x40\x14grpc-accept-encoding\x08identity");
        assert_eq!(spelt(|out| writer.head(out)), [0x88, 0xbf, 0xbe]);
        assert_eq!(spelt(|out| writer.ok(out)), b"\x40\x0bgrpc-status\x010");
        assert_eq!(spelt(|out| writer.ok(out)), [0xbe]);
        assert_eq!(spelt(|out| writer.head(out)), [0x88, 0xc0, 0xbf]);
        let fields = [Field { name: "grpc-status", value: "5".to_owned() }];
        assert_eq!(spelt(|out| writer.trailers(&fields, out)), b"\x00\x0bgrpc-status\x015");
        assert_eq!(spelt(|out| writer.failure(&fields, out)), b"\x88\xc0\xbf\x00\x0bgrpc-status\x015");
        assert_eq!(spelt(|out| writer.http(415, out)), b"\x08\x03415");
    }

    #[test]
    fn a_smaller_table_stays_empty() {
        let mut writer = FieldWriter::new();
        writer.ok(&mut Vec::new());
        writer.limit_table(4095);
        assert_eq!(spelt(|out| writer.ok(out)), b"\x20\x00\x0bgrpc-status\x010");
        writer.limit_table(0);
        assert_eq!(spelt(|out| writer.ok(out)), b"\x00\x0bgrpc-status\x010");
        writer.limit_table(65_536);
        assert_eq!(spelt(|out| writer.ok(out)), b"\x00\x0bgrpc-status\x010");
    }
}
