//! The marks of written values.
//!
//! ```text
//! salt (8)  thread (2)  number (6)      little-endian, at the beginning of what is written
//! ```
//! The salt is the run's own, so that values of other runs are told from those of this one, and that marks
//! are found within a value that was made by appends.

/// Bytes of a mark.
pub const MARK_BYTES: usize = 16;
/// Bits of a mark's number, below those of its thread.
const NUMBER_BITS: u32 = 48;

/// The mark of the so many-th write of a thread, without the salt. Never 0.
pub fn mark_of(thread: usize, number: u64) -> u64 {
    assert!(number < 1 << NUMBER_BITS, "write {number} of a thread");
    ((thread as u64 + 1) << NUMBER_BITS) | number
}

/// Spells a mark.
pub fn spell(salt: u64, mark: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&salt.to_le_bytes());
    out.extend_from_slice(&mark.to_le_bytes());
}

/// The last mark in a value, and where it begins.
pub fn last(salt: u64, value: &[u8]) -> Option<(u64, usize)> {
    let salt = salt.to_le_bytes();
    let places = (0..(value.len() + 1).saturating_sub(MARK_BYTES)).rev();
    places.into_iter().find_map(|at| mark_at(&salt, value, at).map(|mark| (mark, at)))
}

/// All marks in a value, in their order.
pub fn all(salt: u64, value: &[u8]) -> Vec<u64> {
    let salt = salt.to_le_bytes();
    let mut marks = Vec::new();
    let mut at = 0;
    while at + MARK_BYTES <= value.len() {
        match mark_at(&salt, value, at) {
            Some(mark) => {
                marks.push(mark);
                at += MARK_BYTES;
            }
            None => at += 1,
        }
    }
    marks
}

fn mark_at(salt: &[u8; 8], value: &[u8], at: usize) -> Option<u64> {
    let (found, rest) = value[at..].split_first_chunk::<8>()?;
    let mark = rest.first_chunk::<8>()?;
    (found == salt).then(|| u64::from_le_bytes(*mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_they_are() {
        let (salt, mut value) = (0x1122_3344_5566_7788, b"before".to_vec());
        spell(salt, mark_of(0, 7), &mut value);
        value.extend_from_slice(b"filler");
        spell(salt, mark_of(3, 0), &mut value);
        spell(salt + 1, mark_of(9, 9), &mut value);
        assert_eq!(all(salt, &value), [mark_of(0, 7), mark_of(3, 0)]);
        assert_eq!(last(salt, &value), Some((mark_of(3, 0), 28)));
        // Half a mark is none.
        assert_eq!(last(salt, &value[..40]), Some((mark_of(0, 7), 6)));
        assert_eq!((last(salt, b""), all(salt, b"short")), (None, vec![]));
    }
}
