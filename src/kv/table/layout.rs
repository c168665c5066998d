//! What the parts of a table have in common: pages, numbers in place, checksums.

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};
use xxhash_rust::xxh64::xxh64;

use super::error::{Part, TableError, TableErrorKind};

/// The unit of a table: every part begins on a page and ends with one.
pub const PAGE_BYTES: usize = 4096;
/// The same as a number of bytes in a file.
pub(super) const PAGE: u64 = PAGE_BYTES as u64;
/// The only format that is written or read.
pub(super) const FORMAT: u32 = 1;
/// What the bytes of entries in a block come to, unless a single one is larger.
pub(super) const BLOCK_TARGET_BYTES: usize = 16 << 10;
/// The bytes of a block before its first entry.
pub(super) const BLOCK_HEADER_BYTES: usize = 16;
/// The bytes of an entry before its key.
pub(super) const ENTRY_HEADER_BYTES: usize = 40;
/// The most bytes of one entry with its key and value: 64 MiB. Limits that allow more contradict the format.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a block, so that a damaged length makes nobody allocate more.
pub(super) const BLOCK_BYTES_MAX: u64 = (ENTRY_BYTES_MAX + PAGE_BYTES) as u64;

const _: () = assert!(BLOCK_TARGET_BYTES.is_multiple_of(PAGE_BYTES) && BLOCK_TARGET_BYTES < ENTRY_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES_MAX < u32::MAX as u64, "the length of a block is a u32");

/// A number of bytes with the zeros that fill its last page. Saturates far beyond any file.
pub(super) fn padded(length: u64) -> u64 {
    length.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// The seed of the checksum of a part of a table: it belongs to one file and to one place in it.
fn seed(salt: u64, part: Part, offset: u64) -> u64 {
    let mut bytes = [0; 24];
    for (place, number) in bytes.chunks_exact_mut(8).zip([salt, part as u64, offset]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    xxh64(&bytes, 0)
}

/// The checksum of a part of a table that begins at `offset`: of a block, header or footer without its first
/// eight bytes, which hold it.
pub fn checksum(salt: u64, part: Part, offset: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed(salt, part, offset))
}

/// The hash of a key in a table, from which its bits of the filter and its tag in a block are taken.
pub(super) fn key_hash(salt: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, salt)
}

/// The checksum of a part that is made piece by piece: the same as [`checksum`] of the whole.
pub(super) struct Checksum(Xxh3);

impl Checksum {
    pub(super) fn new(salt: u64, part: Part, offset: u64) -> Self {
        Self(Xxh3::with_seed(seed(salt, part, offset)))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.digest()
    }
}

/// A part that begins with the checksum of its other bytes: whether it is the right one.
pub(super) fn verify_own(salt: u64, part: Part, offset: u64, bytes: &[u8]) -> Result<(), TableError> {
    assert!(bytes.len() >= 8, "a part of {} bytes has no checksum", bytes.len());
    verify(part, offset, u64_at(bytes, 0), checksum(salt, part, offset, &bytes[8..]))
}

/// Whether a checksum is the one that is stored.
pub(super) fn verify(part: Part, offset: u64, stored: u64, computed: u64) -> Result<(), TableError> {
    if stored != computed {
        return Err(part.wrong(offset, TableErrorKind::Checksum { stored, computed }));
    }
    Ok(())
}

/// Whether a number is what it has to be.
pub(super) fn same(
    part: Part,
    offset: u64,
    what: &'static str,
    wanted: u64,
    found: u64,
) -> Result<(), TableError> {
    if wanted != found {
        return Err(part.wrong(offset, TableErrorKind::Mismatch { what, wanted, found }));
    }
    Ok(())
}

/// Whether bytes were given whole.
pub(super) fn whole(part: Part, offset: u64, wanted: u64, bytes: &[u8]) -> Result<(), TableError> {
    let found = bytes.len() as u64;
    if wanted != found {
        return Err(part.wrong(offset, TableErrorKind::Length { wanted, found }));
    }
    Ok(())
}

/// The four bytes from `at` on as a number. The caller has seen to it that they are there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes[at..at + 4].try_into().expect("the slice has four bytes");
    u32::from_le_bytes(four)
}

/// The eight bytes from `at` on as a number. The caller has seen to it that they are there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes[at..at + 8].try_into().expect("the slice has eight bytes");
    u64::from_le_bytes(eight)
}
