//! The Huffman code of HPACK (RFC 7541, appendix B), read only: what is sent here is spelt without it.
//!
//! The code is canonical: among codes of one length the values rise with the symbols, and every length goes
//! on where the shorter ones ended. So the lengths are the whole table.

/// Length of each symbol's code, in bits.
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
/// The longest code.
const BITS_MAX: usize = 30;
/// Padding is shorter than a byte.
const PADDING_BITS_MAX: usize = 7;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Level {
    /// The first code.
    first: u32,
    /// How many there are.
    count: u32,
    /// The place of the first one's symbol in the sorted symbols.
    at: usize,
}

/// The code by length, and the symbols sorted by length and value.
struct Table {
    levels: [Level; BITS_MAX + 1],
    symbols: [u8; 256],
}

static TABLE: Table = table();

const fn table() -> Table {
    let mut levels = [Level { first: 0, count: 0, at: 0 }; BITS_MAX + 1];
    let mut symbols = [0; 256];
    let (mut bits, mut code, mut at) = (1, 0, 0);
    while bits <= BITS_MAX {
        code <<= 1;
        levels[bits] = Level { first: code, count: 0, at };
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == bits {
                symbols[at] = symbol as u8;
                at += 1;
                code += 1;
                levels[bits].count += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    assert!(at == 256, "every symbol has a code");
    assert!(code == (1 << BITS_MAX) - 1, "the one code left is that of the end, all ones");
    Table { levels, symbols }
}

/// Reads a coded string. `None` where it is none: a code that is not given out, or padding that is not.
#[must_use]
pub fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(coded.len() * 2);
    let (mut code, mut bits) = (0u32, 0usize);
    for byte in coded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            let level = TABLE.levels.get(bits)?;
            if code.wrapping_sub(level.first) < level.count {
                text.push(TABLE.symbols[level.at + (code - level.first) as usize]);
                (code, bits) = (0, 0);
            }
        }
    }
    let is_padding = bits <= PADDING_BITS_MAX && code == (1 << bits) - 1;
    is_padding.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        let cases: [(&[u8], &[u8]); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], b"www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], b"no-cache"),
            (&[0x64, 0x02], b"302"),
            (&[], b""),
        ];
        for (coded, text) in cases {
            assert_eq!(decode(coded).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_code() {
        for coded in [&[0xff, 0xff, 0xff, 0xff][..], &[0xff], &[0x00]] {
            assert_eq!(decode(coded), None, "{coded:?}");
        }
    }
}
