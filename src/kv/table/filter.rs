//! The filter of a table: says of most keys that are not in it that they are not, without a block read.
//!
//! A Bloom filter in lines of 64 bytes, so that a question touches one cache line. Ten bits a key and six
//! probes: about one absent key in a hundred is let through.
//!
//! ```text
//! hash   XXH3-64 of the key, seeded with the table's salt
//! line   (upper 32 bits × number of lines) >> 32
//! bits   six times: the upper 9 bits of a 32-bit number, which is at first the hash's lower half and is
//!        multiplied by 0x9e3779b9 after each; bit b is bit b % 8 of the line's byte b / 8
//! ```
//!
//! Invariants:
//! - A key that was inserted is never denied.
//! - A filter has a line, if only one of zeros. One without would deny every key.

use super::layout::key_hash;

/// The bits that a key is given room for.
const KEY_BITS: u64 = 10;
/// The bits of a line that a key sets.
const PROBES: u32 = 6;
/// The bytes of a line.
pub(super) const LINE_BYTES: usize = 64;
/// What spreads the probes of a key: 2^32 divided by the golden ratio.
const SPREAD: u32 = 0x9e37_79b9;
/// The bits of a number above those that name a bit of a line.
const BIT_SHIFT: u32 = u32::BITS - 9;
const _: () = assert!(LINE_BYTES * 8 == 1 << (u32::BITS - BIT_SHIFT));

/// A filter that is being made.
pub(super) struct FilterBuilder {
    salt: u64,
    bits: Vec<u8>,
}

impl FilterBuilder {
    /// A filter for about this many keys. More may be inserted: it lets more absent keys through then.
    pub(super) fn new(salt: u64, keys: u64) -> Self {
        let lines = keys.saturating_mul(KEY_BITS).div_ceil(LINE_BYTES as u64 * 8).max(1);
        let bytes = usize::try_from(lines).ok().and_then(|lines| lines.checked_mul(LINE_BYTES));
        let bytes = bytes.expect("the keys that are counted are in memory or on a disk of this machine");
        Self { salt, bits: vec![0; bytes] }
    }

    pub(super) fn insert(&mut self, key: &[u8]) {
        let (line, probes) = place(key, self.salt, self.bits.len());
        let line = &mut self.bits[line..line + LINE_BYTES];
        probes.for_each(|(byte, bit)| line[byte] |= bit);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bits
    }
}

/// Whether a key may be among those of a filter. Its length is a whole number of lines.
pub(super) fn may_contain(bits: &[u8], salt: u64, key: &[u8]) -> bool {
    if bits.is_empty() {
        return false;
    }
    let (line, mut probes) = place(key, salt, bits.len());
    let line = &bits[line..line + LINE_BYTES];
    probes.all(|(byte, bit)| line[byte] & bit != 0)
}

/// Where the line of a key begins, and the byte and bit of each probe in it.
fn place(key: &[u8], salt: u64, bytes: usize) -> (usize, impl Iterator<Item = (usize, u8)>) {
    let hash = key_hash(salt, key);
    let lines = (bytes / LINE_BYTES) as u128;
    let line = (u128::from(hash >> 32) * lines) >> 32;
    let line = usize::try_from(line).expect("it is below the number of lines");
    let mut number = (hash & u64::from(u32::MAX)) as u32;
    let probes = (0..PROBES).map(move |_| {
        let bit = (number >> BIT_SHIFT) as usize;
        number = number.wrapping_mul(SPREAD);
        (bit / 8, 1 << (bit % 8))
    });
    (line * LINE_BYTES, probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_its_own_through_and_few_others() {
        let mut filter = FilterBuilder::new(7, 10_000);
        (0..10_000_u64).for_each(|key| filter.insert(&key.to_le_bytes()));
        let passes = |key: u64| may_contain(filter.bytes(), 7, &key.to_le_bytes());
        assert!((0..10_000).all(passes));
        let others = (10_000..110_000).filter(|key| passes(*key)).count();
        assert!(others < 1500, "{others} of 100000 absent keys are let through");
        assert!(others > 500, "{others} of 100000: better than a Bloom filter can be");
    }

    #[test]
    fn without_keys_it_denies_all() {
        let filter = FilterBuilder::new(7, 0);
        assert!(!may_contain(filter.bytes(), 7, b"k") && !may_contain(&[], 7, b"k"));
    }
}
