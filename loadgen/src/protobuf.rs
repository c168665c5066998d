//! The parts of protobuf and of gRPC's framing that requests are spelt with and answers are read by.
//!
//! ```text
//! message   00  length (4, big-endian)  field, field, ..        00: not compressed
//! field     tag (number << 3 | type)  number                    type 0
//!           tag                       length  bytes             type 2
//! ```
//! Invariants: tags that are spelt are of one byte, so their numbers are below 16.

/// gRPC's prefix of a message.
pub const PREFIX_BYTES: usize = 5;

/// Spells gRPC's prefix of a message that is not compressed.
pub fn write_prefix(len: usize, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&(len as u32).to_be_bytes());
}

/// Spells the tag and the length of a field of bytes, which follow.
pub fn write_head(tag: u8, len: usize, out: &mut Vec<u8>) {
    out.push(tag);
    write_varint(len as u64, out);
}

/// Spells a field of bytes.
pub fn write_field(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    write_head(tag, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Spells a field that is a number.
pub fn write_number(tag: u8, number: u64, out: &mut Vec<u8>) {
    out.push(tag);
    write_varint(number, out);
}

/// Spells a number in groups of seven bits, the lowest first.
pub fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that [`write_varint`] spells.
pub fn varint_len(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// Length of a field of so many bytes, with its tag and its length.
pub fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Length of a field that is a number, with its tag.
pub fn number_len(number: u64) -> usize {
    1 + varint_len(number)
}

/// A field of a message: its number, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A number.
    Number(u64, u64),
    /// Bytes, or a message.
    Bytes(u64, &'a [u8]),
}

/// Reads a field; and what follows it. `None` where there is none that is known here.
pub fn read_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (tag, rest) = read_varint(bytes)?;
    let (number, rest) = read_varint(rest)?;
    match tag & 7 {
        0 => Some((Field::Number(tag >> 3, number), rest)),
        2 => {
            let (held, rest) = rest.split_at_checked(usize::try_from(number).ok()?)?;
            Some((Field::Bytes(tag >> 3, held), rest))
        }
        _ => None,
    }
}

/// Reads a number; and what follows it. `None` where it does not end within ten bytes.
pub fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(number, &mut out);
            assert_eq!(out.len(), varint_len(number), "{number}");
            assert_eq!(read_varint(&out), Some((number, &[][..])), "{number}");
            assert_eq!(read_varint(&out[..out.len() - 1]), None, "{number}");
        }
    }
}
