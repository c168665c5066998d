//! Numbers, blobs, options and lists as bytes: what the codecs beside this are made of.
//!
//! A [`Sink`] is whatever takes bytes: a buffer, a counter of lengths, a hash. So the length and the hash of
//! a thing cost no buffer, and cannot differ from what is written.
//!
//! Invariants: a [`Reader`] never reads beyond its end, never allocates more than its bytes call for, never
//! panics.

use bytes::{Buf, Bytes};

use super::DecodeError;

/// What a list is given room for ahead at most; a longer one grows as it is read.
const LIST_AHEAD_MAX: usize = 128;

/// Whatever takes bytes.
pub(in crate::kv) trait Sink {
    /// Takes them.
    fn put(&mut self, bytes: &[u8]);

    /// One byte.
    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Four bytes.
    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Eight bytes.
    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// One byte, 0 or 1.
    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// The number of things that follow, or of bytes.
    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("one message, of a few MiB at most, held all of them"));
    }

    /// A length, and that many bytes.
    fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.put(bytes);
    }

    /// A flag, and the thing if there is one.
    fn option<T>(&mut self, thing: Option<&T>, put: impl FnOnce(&mut Self, &T)) {
        self.flag(thing.is_some());
        if let Some(thing) = thing {
            put(self, thing);
        }
    }

    /// A count, and the things.
    fn list<T>(&mut self, things: &[T], put: impl Fn(&mut Self, &T)) {
        self.count(things.len());
        for thing in things {
            put(self, thing);
        }
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts the bytes and lets them go.
pub(in crate::kv) struct Length(pub usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Takes bytes apart from the front.
pub(in crate::kv) struct Reader {
    bytes: Bytes,
}

impl Reader {
    /// All of `bytes`.
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    /// Four bytes.
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_u32_le())
    }

    /// Eight bytes.
    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_u64_le())
    }

    /// One byte, 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Unknown { what: "flag", tag }),
        }
    }

    /// A length and that many bytes, as a slice of the whole.
    pub(super) fn blob(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u32()?;
        self.need(u64::from(length))?;
        Ok(self.bytes.split_to(length as usize))
    }

    /// A flag, and the thing if there is one.
    pub(super) fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        self.flag()?.then(|| take(self)).transpose()
    }

    /// A count and the things, none of which is less than a byte.
    pub(super) fn list<T>(
        &mut self,
        take: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()?;
        self.need(u64::from(count))?;
        let mut things = Vec::with_capacity(LIST_AHEAD_MAX.min(count as usize));
        for _ in 0..count {
            things.push(take(self)?);
        }
        Ok(things)
    }

    /// Nothing more may follow.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.bytes.len() as u64 {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    fn need(&self, wanted: u64) -> Result<(), DecodeError> {
        let left = self.bytes.len() as u64;
        if wanted > left {
            return Err(DecodeError::Truncated { wanted, left });
        }
        Ok(())
    }
}
