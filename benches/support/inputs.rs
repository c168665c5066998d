//! What the benches are fed with: the same keys and values in every run, drawn from a seed.

use bytes::Bytes;
use distribkv::kv::{Command, Previous, Write};

/// The bytes of a key.
pub const KEY_BYTES: usize = 16;

/// The bytes of a value.
pub const VALUE_BYTES: usize = 256;

/// Numbers that look random and are the same for the same seed: splitmix64.
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Bytes {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.draw().to_le_bytes());
        words.take(count).collect()
    }
}

/// So many keys, in no order.
pub fn keys(count: u64, seed: u64) -> Vec<Bytes> {
    let mut numbers = Numbers(seed);
    (0..count).map(|_| numbers.bytes(KEY_BYTES)).collect()
}

/// A Put without conditions or identity.
pub fn put(key: &Bytes, value: &Bytes) -> Write {
    let (key, value) = (key.clone(), value.clone());
    Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit }
}

/// The command of it.
pub fn put_command(key: &Bytes, value: &Bytes) -> Command {
    Command::Write { id: None, write: put(key, value) }
}
