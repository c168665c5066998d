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

use crate::http2::frame::TABLE_BYTES_FIRST;
use crate::http2::hpack::{DYNAMIC, write_number, write_string};

/// `:status 200` of the static table.
const STATUS_200: u8 = 0x88;
/// `:status` of the static table.
const STATUS: usize = 8;
/// The name of `content-type` in the static table.
const CONTENT_TYPE: usize = 31;
/// A field that enters the table, and one that does not.
const ENTERS: (u8, u32) = (0x40, 6);
/// See [`ENTERS`].
const STAYS_OUT: (u8, u32) = (0x00, 4);
/// The table is empty from now on.
const EMPTY_TABLE: u8 = 0x20;

/// The fields that enter the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    ContentType,
    AcceptEncoding,
    StatusOk,
}

/// A field of an answer that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::edge) struct Field {
    /// In small letters.
    pub(in crate::edge) name: &'static str,
    /// Visible ASCII.
    pub(in crate::edge) value: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Style {
    Indexed,
    /// Spelt, once the client was told that its table is empty.
    PlainAfterUpdate,
    Plain,
}

/// Spells the fields of one connection's answers.
#[derive(Debug)]
pub(super) struct FieldWriter {
    style: Style,
    /// By [`Known`]: the how many-th it entered.
    entered: [Option<usize>; 3],
    entered_count: usize,
}

impl FieldWriter {
    pub(super) fn new() -> Self {
        Self { style: Style::Indexed, entered: [None; 3], entered_count: 0 }
    }

    /// The client keeps a table of so many bytes.
    pub(super) fn limit_table(&mut self, bytes_max: usize) {
        if bytes_max < TABLE_BYTES_FIRST && self.style == Style::Indexed {
            self.style = Style::PlainAfterUpdate;
        }
    }

    /// The head of an answer that goes well so far.
    pub(super) fn head(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        out.push(STATUS_200);
        self.known(Known::ContentType, out);
        self.known(Known::AcceptEncoding, out);
    }

    /// The trailers of an answer that went well.
    pub(super) fn ok(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.known(Known::StatusOk, out);
    }

    /// Trailers that say something else.
    pub(super) fn trailers(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        self.begin(out);
        for Field { name, value } in fields {
            spell(STAYS_OUT, 0, name, value, out);
        }
    }

    /// The head of an answer that fails, and is nothing else.
    pub(super) fn failure(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        self.head(out);
        for Field { name, value } in fields {
            spell(STAYS_OUT, 0, name, value, out);
        }
    }

    /// An HTTP status, and nothing else.
    pub(super) fn http(&mut self, status: u16, out: &mut Vec<u8>) {
        self.begin(out);
        spell(STAYS_OUT, STATUS, "", &status.to_string(), out);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.style == Style::PlainAfterUpdate {
            out.push(EMPTY_TABLE);
            self.style = Style::Plain;
        }
    }

    fn known(&mut self, field: Known, out: &mut Vec<u8>) {
        let (index, name, value) = match field {
            Known::ContentType => (CONTENT_TYPE, "content-type", "application/grpc"),
            Known::AcceptEncoding => (0, "grpc-accept-encoding", "identity"),
            Known::StatusOk => (0, "grpc-status", "0"),
        };
        if self.style != Style::Indexed {
            return spell(STAYS_OUT, index, name, value, out);
        }
        match self.entered[field as usize] {
            Some(place) => write_number(0x80, 7, DYNAMIC + self.entered_count - 1 - place, out),
            None => {
                spell(ENTERS, index, name, value, out);
                self.entered[field as usize] = Some(self.entered_count);
                self.entered_count += 1;
            }
        }
    }
}

/// Spells a field; `index` 0: its name as well.
fn spell((first, bits): (u8, u32), index: usize, name: &str, value: &str, out: &mut Vec<u8>) {
    write_number(first, bits, index, out);
    if index == 0 {
        write_string(name.as_bytes(), out);
    }
    write_string(value.as_bytes(), out);
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
