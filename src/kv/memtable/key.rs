//! A key as a memtable holds it: with its bytes in place where they are few, so that a search follows no
//! pointer to compare them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::rc::Rc;

/// The longest key that lies in place.
const INLINE_BYTES_MAX: usize = 22;

/// A key. A clone shares the bytes that do not lie in place.
#[derive(Clone)]
pub(super) enum Key {
    Inline { length: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared(Rc<[u8]>),
}

impl Key {
    pub(super) fn new(key: &[u8]) -> Self {
        Self::inline(key).unwrap_or_else(|| Self::Shared(key.into()))
    }

    /// A key that lies in place; `None`: it is too long.
    pub(super) fn inline(key: &[u8]) -> Option<Self> {
        let length = u8::try_from(key.len()).ok().filter(|_| key.len() <= INLINE_BYTES_MAX)?;
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Some(Self::Inline { length, bytes })
    }

    /// Its bytes that do not lie in place, with the two counts of whoever shares them.
    pub(super) fn shared_bytes(key: &[u8]) -> usize {
        if key.len() <= INLINE_BYTES_MAX { 0 } else { key.len() + 2 * size_of::<usize>() }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    /// As their bytes. Two inline keys are compared a word at a time: behind their ends both have zeros, and
    /// where those are all that differs, the shorter one comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Inline { length, bytes }, Self::Inline { length: other_length, bytes: other }) => {
                words(bytes).cmp(&words(other)).then(length.cmp(other_length))
            }
            (Self::Inline { .. } | Self::Shared(_), Self::Inline { .. } | Self::Shared(_)) => {
                self.as_slice().cmp(other.as_slice())
            }
        }
    }
}

/// Bytes as numbers of the same order.
fn words(bytes: &[u8; INLINE_BYTES_MAX]) -> [u64; 3] {
    let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
    // The last word has the bytes of the second one's end again, which are the same where it matters.
    [word(0), word(8), word(INLINE_BYTES_MAX - 8)]
}

const _: () = assert!(size_of::<Key>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    /// Around the ends of the words that are compared, with zeros at and behind the end.
    #[test]
    fn keys_are_ordered_as_their_bytes() {
        let mut keys: Vec<Vec<u8>> = vec![Vec::new(), vec![0], vec![0, 0], vec![255; 40]];
        for length in [1, 7, 8, 9, 13, 14, 15, 16, 17, 21, 22, 23, 24, 40] {
            for last in [0, 1, 127, 128, 255] {
                let mut key = vec![b'k'; length];
                key[length - 1] = last;
                keys.push(key.clone());
                key[length / 2] = 0;
                keys.push(key);
            }
        }
        for a in &keys {
            for b in &keys {
                assert_eq!(Key::new(a).cmp(&Key::new(b)), a.cmp(b), "{a:?} and {b:?}");
            }
        }
    }
}
