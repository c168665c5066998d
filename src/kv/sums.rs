//! What the keys of a shard come to: counts, and the sum of their digests, kept up with every change.
//!
//! Invariants:
//! - Adding, replacing and removing entries leaves what the entries that are left come to, in any order.

/// What some entries come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many there are.
    pub keys: u64,
    /// The bytes of all keys and values.
    pub bytes: u64,
    /// The wrapping sum of the digests of all entries.
    pub digest: u64,
}

/// What an entry adds to the sums, beside its key.
#[derive(Clone, Copy)]
pub(super) struct Summand {
    pub(super) value_bytes: u64,
    pub(super) digest: u64,
}

impl Sums {
    /// A key that was not there.
    pub(super) fn add(&mut self, key: &[u8], entry: Summand) {
        self.keys += 1;
        self.bytes += key.len() as u64 + entry.value_bytes;
        self.digest = self.digest.wrapping_add(entry.digest);
    }

    /// A key that was there, and holds something else.
    pub(super) fn replace(&mut self, before: Summand, after: Summand) {
        assert!(self.bytes >= before.value_bytes, "{} bytes go of {}", before.value_bytes, self.bytes);
        self.bytes = self.bytes - before.value_bytes + after.value_bytes;
        self.digest = self.digest.wrapping_sub(before.digest).wrapping_add(after.digest);
    }

    /// A key that was there, and is not any more.
    pub(super) fn remove(&mut self, key: &[u8], entry: Summand) {
        let bytes = key.len() as u64 + entry.value_bytes;
        assert!(self.keys > 0 && self.bytes >= bytes, "{bytes} bytes are removed of {self:?}");
        self.keys -= 1;
        self.bytes -= bytes;
        self.digest = self.digest.wrapping_sub(entry.digest);
        assert!(self.keys > 0 || self.bytes == 0, "no keys have {} bytes", self.bytes);
    }
}
