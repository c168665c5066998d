//! A segment: one file of a lane's log, of a fixed size, written over with zeros before its first batch.
//! This is format version 1, of its batches too; later versions read it.
//!
//! ```text
//! block 0: 0       4        6         8      12        16           24     32      40         44
//!          ├ magic ┼ format ┼ zeros 2 ┼ lane ┼ zeros 4 ┼ segment id ┼ salt ┼ bytes ┼ checksum ┼ zeros
//! block 1 …: batches, each on a block of its own
//! ```
//!
//! Why a crash is safe at any point: a segment is made, filled with zeros and synced, its directory too,
//! before the manifest names it; until then it is a file that nobody knows and the next start removes. From
//! then on its header never changes while it has that id, so a header that does not say what the manifest
//! says is damage, never a tear. A file that is used again gets its new name and header before the manifest
//! names it by its new id.
//!
//! Invariants: ids are never used twice in a lane; salt and id are in the header and in the manifest; a block
//! that holds acknowledged bytes is not written again.
//!
//! Pure. It deliberately does not say where a segment ends: that is known from the manifest or from the next
//! segment.

use crate::env::BLOCK_BYTES;
use crate::ids::LaneId;

use super::batch::{FORMAT, Place, SegmentId};
use super::codec::{Source, put_u32, put_u64};

/// Where the first batch of a segment begins.
pub const SEGMENT_DATA_AT: u64 = BLOCK_BYTES as u64;

const MAGIC: u32 = u32::from_le_bytes(*b"dKVs");
const CHECKSUM_AT: usize = 40;
const HEADER_BYTES: usize = 44;

const _: () = assert!(HEADER_BYTES <= BLOCK_BYTES && CHECKSUM_AT + 4 == HEADER_BYTES);

/// The name of a segment's file.
#[must_use]
pub fn segment_name(id: SegmentId) -> String {
    format!("seg-{:016x}.log", id.0)
}

/// The segment that a file is named after; `None` for any other file. No segment has the last number of all.
#[must_use]
pub fn segment_of_name(name: &str) -> Option<SegmentId> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".log")?;
    let id = SegmentId(u64::from_str_radix(digits, 16).ok()?);
    (segment_name(id) == name && id.0 < u64::MAX).then_some(id)
}

/// Writes the header of a segment into its first block.
pub fn encode_segment_header(block: &mut [u8], place: &Place, bytes: u64) {
    assert!(block.len() >= BLOCK_BYTES, "a header block of {} bytes", block.len());
    block[..BLOCK_BYTES].fill(0);
    put_u32(block, 0, MAGIC);
    put_u32(block, 4, u32::from(FORMAT));
    put_u32(block, 8, place.lane.0);
    put_u64(block, 16, place.segment.0);
    put_u64(block, 24, place.salt);
    put_u64(block, 32, bytes);
    let sum = crc32fast::hash(&block[..CHECKSUM_AT]);
    put_u32(block, CHECKSUM_AT, sum);
}

/// Whether the block is the header that the manifest expects.
#[must_use]
pub fn is_segment_header(block: &[u8], place: &Place, bytes: u64) -> bool {
    let mut expected = vec![0; BLOCK_BYTES];
    encode_segment_header(&mut expected, place, bytes);
    block.get(..HEADER_BYTES) == Some(&expected[..HEADER_BYTES])
}

/// The lane and segment that a header names, where its checksum is right. For tools and messages.
#[must_use]
pub fn decode_segment_header(block: &[u8]) -> Option<(Place, u64)> {
    let header = block.get(..HEADER_BYTES)?;
    let mut fields = Source::new(header);
    let magic = fields.u32()?;
    let format = fields.u32()?;
    let lane = LaneId(fields.u32()?);
    let _zeros = fields.u32()?;
    let segment = SegmentId(fields.u64()?);
    let salt = fields.u64()?;
    let bytes = fields.u64()?;
    let right = fields.u32()? == crc32fast::hash(&header[..CHECKSUM_AT]);
    let known = magic == MAGIC && format == u32::from(FORMAT);
    (right && known).then_some((Place { lane, segment, salt }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_one_to_one() {
        assert_eq!(segment_name(SegmentId(255)), "seg-00000000000000ff.log");
        assert_eq!(segment_of_name("seg-00000000000000ff.log"), Some(SegmentId(255)));
        for name in [
            "seg-ff.log",
            "seg-00000000000000FF.log",
            "seg-00000000000000ff",
            "manifest-a",
            "seg-ffffffffffffffff.log",
        ] {
            assert_eq!(segment_of_name(name), None, "{name}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let place = Place { lane: LaneId(1), segment: SegmentId(2), salt: 3 };
        let mut block = vec![0xAA; BLOCK_BYTES];
        encode_segment_header(&mut block, &place, 8192);
        assert_eq!(decode_segment_header(&block), Some((place, 8192)));
        for bit in 0..HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_segment_header(&block, &place, 8192), "bit {bit}");
            assert_eq!(decode_segment_header(&block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
