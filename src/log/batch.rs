//! A batch: what one durable write carries. Records of any number of the lane's shards under one header. This
//! is format version 1; later versions read it.
//!
//! ```text
//!  0       4        6         8      12      16        24         32
//!  ├ magic ┼ format ┼ zeros 2 ┼ lane ┼ count ┼ segment ┼ sequence ┼
//!  32                40       44       48         52
//!  ├ durable_through ┼ length ┼ before ┼ checksum ┼ records: length ┼ zeros to the end of the block
//! ```
//!
//! - `sequence` counts the lane's batches from 1, without a hole; `count` is the number of records, `length`
//!   their bytes.
//! - `durable_through` is the last sequence that was known to be durable when this batch was formed: the
//!   evidence that tells damage from a torn tail.
//! - `before` is the checksum of the batch before it: a chain, so that neither an old copy of a segment nor a
//!   batch of another history can stand where it does not belong.
//! - `checksum` is the CRC-32 of the segment's salt, the header up to it, and the records. Segment id and
//!   salt are new whenever a file is used again, so what an earlier use left there is never taken for a
//!   batch; and nobody who can only choose values can make a value that reads as one.
//!
//! Invariants:
//! - A batch starts on a block and is padded to one.
//! - Nothing of it is believed before its checksum was right; its length is bounded before anything is read
//!   for it.
//! - A batch without records is a seal: it is there for its `durable_through`.
//!
//! Pure. It deliberately does not know where batches lie or which comes next: that is `recovery`.

use std::fmt;

use crate::env::BLOCK_BYTES;
use crate::ids::LaneId;

use super::codec::{Source, block_padded, put_u32, put_u64};
use super::record::{Record, RecordError};

/// The fixed part of a batch, in bytes.
pub const BATCH_HEADER_BYTES: usize = 52;

/// The longest batch of the format, header and padding included.
pub const BATCH_BYTES_LIMIT: usize = 16 << 20;

/// The version of segments and batches.
pub const FORMAT: u16 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"dKVb");
const CHECKSUM_AT: usize = 48;

const _: () = assert!(BATCH_HEADER_BYTES < BLOCK_BYTES, "a header is in the first block of its batch");
const _: () = assert!(BATCH_BYTES_LIMIT.is_multiple_of(BLOCK_BYTES) && BATCH_BYTES_LIMIT < u32::MAX as usize);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The number of a batch in its lane: 1, 2, 3, … 0 before the first.
    BatchSequence(u64)
);
number!(
    /// The number of a segment in its lane, never used twice.
    SegmentId(u64)
);
number!(
    /// The checksum of a batch, which the next one names. 0 before the first.
    Chain(u32)
);

impl BatchSequence {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("batches are counted up one by one from zero"))
    }
}

/// What a batch must say to belong to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The lane.
    pub lane: LaneId,
    /// The segment.
    pub segment: SegmentId,
    /// The segment's salt, which seeds the checksum.
    pub salt: u64,
}

#[cfg(debug_assertions)]
impl Place {
    /// The same, of whichever segment the batch in this block says that it is: a planted bug.
    #[must_use]
    pub(super) fn as_claimed(self, block: &[u8]) -> Self {
        let id = block.get(16..24).and_then(|id| id.first_chunk());
        Self { segment: id.map_or(self.segment, |id| SegmentId(u64::from_le_bytes(*id))), ..self }
    }
}

/// What the writer says of a batch beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The number of this batch.
    pub sequence: BatchSequence,
    /// The last batch that is known durable.
    pub durable_through: BatchSequence,
    /// The checksum of the batch before.
    pub before: Chain,
}

/// Why there is no batch at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotABatch {
    /// No header of a batch: nothing was written here, or its first sector is gone.
    Magic,
    /// A batch of another lane or segment: left by an earlier use of the file.
    Foreign,
    /// A length that no batch has here.
    Length,
    /// The checksum is wrong.
    Checksum,
    /// A good checksum under a format that this build does not know.
    Format(u16),
}

impl fmt::Display for NotABatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("no batch begins here"),
            Self::Foreign => f.write_str("a batch of another segment"),
            Self::Length => f.write_str("an impossible length"),
            Self::Checksum => f.write_str("the checksum is wrong"),
            Self::Format(format) => write!(f, "the unknown format {format}"),
        }
    }
}

/// A batch that was read, its records still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Its number and links.
    pub header: BatchHeader,
    /// Its own checksum, which the next batch names.
    pub chain: Chain,
    /// How many records it says it holds.
    pub count: u32,
    body: &'a [u8],
}

/// Encodes records into a buffer, then closes it with the header.
#[derive(Debug)]
pub struct BatchBuilder<'a> {
    buf: &'a mut [u8],
    at: usize,
    count: u32,
}

/// The bytes on disk of a batch whose records take `records` bytes.
#[must_use]
pub const fn batch_bytes(records: usize) -> usize {
    block_padded(BATCH_HEADER_BYTES + records)
}

/// The bytes on disk, padding included, of the batch whose first block this is. Only the length is looked at.
pub fn peek_bytes(block: &[u8], place: &Place) -> Result<usize, NotABatch> {
    let header = block.get(..BATCH_HEADER_BYTES).ok_or(NotABatch::Length)?;
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let segment = u64::from(field(16)) | u64::from(field(20)) << 32;
    let length = field(40) as usize;
    if field(0) != MAGIC {
        return Err(NotABatch::Magic);
    }
    if field(8) != place.lane.0 || segment != place.segment.0 {
        return Err(NotABatch::Foreign);
    }
    if length > BATCH_BYTES_LIMIT - BATCH_HEADER_BYTES {
        return Err(NotABatch::Length);
    }
    Ok(batch_bytes(length))
}

impl<'a> Batch<'a> {
    /// Reads the batch at the start of `bytes`, which may go on after it.
    pub fn decode(bytes: &'a [u8], place: &Place) -> Result<Self, NotABatch> {
        let padded = peek_bytes(bytes, place)?;
        if padded > bytes.len() {
            return Err(NotABatch::Length);
        }
        Self::checked(bytes, place).ok_or(NotABatch::Length)?
    }

    /// Checks and reads a batch whose first block is there; `None` where the bytes end before it does.
    fn checked(bytes: &'a [u8], place: &Place) -> Option<Result<Self, NotABatch>> {
        let mut fields = Source::new(bytes);
        let _magic = fields.u32()?;
        let format_and_zeros = fields.u32()?;
        let _lane = fields.u32()?;
        let count = fields.u32()?;
        let _segment = fields.u64()?;
        let sequence = BatchSequence(fields.u64()?);
        let durable_through = BatchSequence(fields.u64()?);
        let length = fields.u32()?;
        let before = Chain(fields.u32()?);
        let stored = fields.u32()?;
        let body = fields.take(length as usize)?;
        if stored != checksum(place.salt, bytes.get(..CHECKSUM_AT)?, body) {
            return Some(Err(NotABatch::Checksum));
        }
        if format_and_zeros != u32::from(FORMAT) {
            let [low, high, ..] = format_and_zeros.to_le_bytes();
            return Some(Err(NotABatch::Format(u16::from_le_bytes([low, high]))));
        }
        let header = BatchHeader { sequence, durable_through, before };
        Some(Ok(Self { header, chain: Chain(stored), count, body }))
    }

    /// The bytes that it takes on disk.
    #[must_use]
    pub fn bytes(&self) -> usize {
        batch_bytes(self.body.len())
    }

    /// The bytes of its header and records: what follows them in its last block is padding, zeros that no
    /// checksum covers.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.body.len()
    }

    /// Hands every record on, in order; the first error of either side ends it.
    pub fn each_record<E: From<RecordError>>(
        &self,
        mut each: impl FnMut(Record<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut source = Source::new(self.body);
        for _ in 0..self.count {
            each(Record::decode(&mut source)?)?;
        }
        if source.is_empty() { Ok(()) } else { Err(RecordError::Length.into()) }
    }
}

impl<'a> BatchBuilder<'a> {
    /// Begins a batch in a buffer of whole blocks.
    pub fn new(buf: &'a mut [u8]) -> Self {
        let len = buf.len();
        assert!(len.is_multiple_of(BLOCK_BYTES) && len <= BATCH_BYTES_LIMIT, "a batch buffer of {len} bytes");
        Self { buf, at: BATCH_HEADER_BYTES, count: 0 }
    }

    /// Adds a record. There must be room for it.
    pub fn put(&mut self, record: &Record<'_>) {
        self.at = record.encode(self.buf, self.at);
        self.count += 1;
    }

    /// Writes the header, zeroes the padding, and returns the checksum. The buffer must be no longer than the
    /// batch.
    pub fn finish(self, place: &Place, header: &BatchHeader) -> Chain {
        let Self { buf, at, count } = self;
        assert_eq!(block_padded(at), buf.len(), "a batch of {at} bytes in a buffer of {}", buf.len());
        assert!(header.durable_through < header.sequence, "a batch that knows itself durable: {header:?}");
        let length =
            u32::try_from(at - BATCH_HEADER_BYTES).expect("a batch is no longer than BATCH_BYTES_LIMIT");
        buf[at..].fill(0);
        put_u32(buf, 0, MAGIC);
        put_u32(buf, 4, u32::from(FORMAT));
        put_u32(buf, 8, place.lane.0);
        put_u32(buf, 12, count);
        put_u64(buf, 16, place.segment.0);
        put_u64(buf, 24, header.sequence.0);
        put_u64(buf, 32, header.durable_through.0);
        put_u32(buf, 40, length);
        put_u32(buf, 44, header.before.0);
        let sum = checksum(place.salt, &buf[..CHECKSUM_AT], &buf[BATCH_HEADER_BYTES..at]);
        put_u32(buf, CHECKSUM_AT, sum);
        Chain(sum)
    }
}

fn checksum(salt: u64, header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Index, ShardId, Term};

    const PLACE: Place = Place { lane: LaneId(2), segment: SegmentId(5), salt: 0x5A17 };
    const HEADER: BatchHeader =
        BatchHeader { sequence: BatchSequence(9), durable_through: BatchSequence(8), before: Chain(77) };

    fn encoded(data: &[u8]) -> (Vec<u8>, Chain) {
        let record = Record::Entry { shard: ShardId(1), index: Index(4), term: Term(3), data };
        let mut buf = vec![0xEE; batch_bytes(record.encoded_bytes())];
        let mut builder = BatchBuilder::new(&mut buf);
        builder.put(&record);
        let chain = builder.finish(&PLACE, &HEADER);
        (buf, chain)
    }

    #[test]
    fn a_batch_comes_back_as_it_was() {
        let data = vec![7; 5000];
        let (buf, chain) = encoded(&data);
        assert_eq!(peek_bytes(&buf[..BLOCK_BYTES], &PLACE), Ok(8192));
        let batch = Batch::decode(&buf, &PLACE).expect("it was just encoded");
        assert_eq!((batch.header, batch.chain, batch.bytes()), (HEADER, chain, buf.len()));
        let mut seen = 0;
        let walked: Result<(), RecordError> = batch.each_record(|record| {
            seen += 1;
            assert_eq!(
                record,
                Record::Entry { shard: ShardId(1), index: Index(4), term: Term(3), data: &data }
            );
            Ok(())
        });
        assert_eq!((walked, seen), (Ok(()), 1));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (buf, _) = encoded(b"some bytes");
        let used = BATCH_HEADER_BYTES + Record::encoded_bytes(&sample(b"some bytes"));
        for bit in 0..used * 8 {
            let mut flipped = buf.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Batch::decode(&flipped, &PLACE).is_err(), "bit {bit}");
        }
    }

    fn sample(data: &[u8]) -> Record<'_> {
        Record::Entry { shard: ShardId(1), index: Index(4), term: Term(3), data }
    }

    #[test]
    fn another_salt_segment_or_lane_does_not_read_it() {
        let (buf, _) = encoded(b"x");
        let salted = Place { salt: PLACE.salt ^ 1, ..PLACE };
        assert_eq!(Batch::decode(&buf, &salted).map(|_| ()), Err(NotABatch::Checksum));
        let moved = Place { segment: SegmentId(6), ..PLACE };
        assert_eq!(Batch::decode(&buf, &moved).map(|_| ()), Err(NotABatch::Foreign));
        let other = Place { lane: LaneId(0), ..PLACE };
        assert_eq!(Batch::decode(&buf, &other).map(|_| ()), Err(NotABatch::Foreign));
    }

    #[test]
    fn a_length_is_bounded_before_it_is_used() {
        let (mut buf, _) = encoded(b"x");
        put_u32(&mut buf, 40, u32::MAX);
        assert_eq!(peek_bytes(&buf, &PLACE), Err(NotABatch::Length));
        put_u32(&mut buf, 40, 8192);
        assert_eq!(Batch::decode(&buf, &PLACE).map(|_| ()), Err(NotABatch::Length));
    }
}
