//! The first page of a table, which says what the file is, and the last, which says what is in it.
//!
//! Invariants: a [`Footer`] that was decoded describes a file whose parts lie one behind the other and fill
//! it, with no length beyond the file's.

use bytes::Bytes;

use super::block::BLOCK_BYTES_MIN;
use super::error::{Part, TableError, TableErrorKind};
use super::filter::LINE_BYTES;
use super::index::INDEX_ENTRY_HEADER_BYTES;
use super::layout::{
    FORMAT, PAGE, PAGE_BYTES, checksum, padded, same, u32_at, u64_at, verify, verify_own, whole,
};
use crate::ids::{Index, Revision, ShardId, Term};
use crate::kv::codec::wire::Sink;
use crate::kv::sums::Sums;

/// The most bytes of a membership.
pub const MEMBERSHIP_BYTES_MAX: usize = 2048;

/// "kvtable\0" as a number.
const HEADER_MAGIC: u64 = u64::from_le_bytes(*b"kvtable\0");
/// "kvtfoot\0" as a number.
const FOOTER_MAGIC: u64 = u64::from_le_bytes(*b"kvtfoot\0");
/// Where the sections are in the footer.
const SECTIONS_AT: usize = 104;
/// Where the membership is in the footer.
const MEMBERSHIP_AT: usize = 176;
const _: () = assert!(MEMBERSHIP_AT + 4 + MEMBERSHIP_BYTES_MAX <= PAGE_BYTES);

/// The first page of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The shard whose state it is.
    pub shard: ShardId,
    /// What seeds the file's checksums. The caller draws it anew for every table, so that it names the table
    /// too.
    pub salt: u64,
}

/// The state that a table holds, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// The last entry of the log that the state has applied.
    pub applied: Index,
    /// Its term.
    pub applied_term: Term,
    /// The shard's revision.
    pub revision: Revision,
    /// What its keys come to.
    pub sums: Sums,
    /// The state's digest: of keys, sessions and revision.
    pub digest: u64,
    /// Who belonged to the shard's group at that index, in the driver's own codec. At most
    /// [`MEMBERSHIP_BYTES_MAX`] bytes.
    pub membership: Bytes,
}

/// A part of the file that is read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes without the zeros that fill its last page.
    pub length: u64,
    /// Of its bytes with those zeros.
    pub checksum: u64,
}

/// The last page of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// What the first page says too.
    pub header: Header,
    /// The length of the whole file.
    pub file_length: u64,
    /// The state that the table holds.
    pub meta: TableMeta,
    /// The number of blocks.
    pub blocks: u64,
    /// Where the sessions are.
    pub sessions: Section,
    /// Where the filter is.
    pub filter: Section,
    /// Where the index is.
    pub index: Section,
}

impl Header {
    /// The page.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.u64(0);
        page.u64(HEADER_MAGIC);
        page.u32(FORMAT);
        page.u32(self.shard.0);
        page.u64(self.salt);
        finish_page(page, self.salt, Part::Header, 0)
    }

    /// Reads the first page of a file.
    pub fn decode(page: &[u8]) -> Result<Self, TableError> {
        whole(Part::Header, 0, PAGE, page)?;
        begins_with(page, HEADER_MAGIC, Part::Header, 0)?;
        let header = Self { shard: ShardId(u32_at(page, 20)), salt: u64_at(page, 24) };
        verify_own(header.salt, Part::Header, 0, page)?;
        Ok(header)
    }
}

impl Section {
    /// Its bytes with the zeros that fill its last page: what has to be read.
    #[must_use]
    pub fn padded_length(&self) -> u64 {
        padded(self.length)
    }

    /// Where the next part begins.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.padded_length())
    }

    fn put(&self, page: &mut Vec<u8>) {
        page.u64(self.offset);
        page.u64(self.length);
        page.u64(self.checksum);
    }

    fn at(page: &[u8], at: usize) -> Self {
        Self { offset: u64_at(page, at), length: u64_at(page, at + 8), checksum: u64_at(page, at + 16) }
    }

    /// Checks what was read of it, all of its pages. Its own bytes.
    pub(super) fn verify(&self, salt: u64, part: Part, padded: &Bytes) -> Result<Bytes, TableError> {
        whole(part, self.offset, self.padded_length(), padded)?;
        verify(part, self.offset, self.checksum, checksum(salt, part, self.offset, padded))?;
        let length = usize::try_from(self.length).expect("no more than the bytes that are here");
        Ok(padded.slice(..length))
    }
}

impl Footer {
    /// Where the footer is in a file of this length: its last page.
    #[must_use]
    pub fn offset(file_length: u64) -> u64 {
        file_length.saturating_sub(PAGE)
    }

    /// The page.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        let meta = &self.meta;
        page.u64(0);
        page.u64(FOOTER_MAGIC);
        page.u32(FORMAT);
        page.u32(self.header.shard.0);
        page.u64(self.header.salt);
        page.u64(self.file_length);
        page.u64(meta.applied.0);
        page.u64(meta.applied_term.0);
        page.u64(meta.revision.0);
        page.u64(meta.sums.keys);
        page.u64(meta.sums.bytes);
        page.u64(meta.sums.digest);
        page.u64(meta.digest);
        page.u64(self.blocks);
        assert!(page.len() == SECTIONS_AT, "the sections are at {}", page.len());
        [self.sessions, self.filter, self.index].iter().for_each(|section| section.put(&mut page));
        assert!(page.len() == MEMBERSHIP_AT, "the membership is at {}", page.len());
        let length = meta.membership.len();
        assert!(length <= MEMBERSHIP_BYTES_MAX, "a membership of {length} bytes has no room");
        page.blob(&meta.membership);
        finish_page(page, self.header.salt, Part::Footer, Self::offset(self.file_length))
    }

    /// Reads the last page of a file of this length.
    pub fn decode(page: &Bytes, file_length: u64) -> Result<Self, TableError> {
        let offset = Self::offset(file_length);
        whole(Part::Footer, offset, PAGE, page)?;
        begins_with(page, FOOTER_MAGIC, Part::Footer, offset)?;
        let header = Header { shard: ShardId(u32_at(page, 20)), salt: u64_at(page, 24) };
        verify_own(header.salt, Part::Footer, offset, page)?;
        let footer = Self {
            header,
            file_length: u64_at(page, 32),
            meta: TableMeta::at(page, offset)?,
            blocks: u64_at(page, 96),
            sessions: Section::at(page, SECTIONS_AT),
            filter: Section::at(page, SECTIONS_AT + 24),
            index: Section::at(page, SECTIONS_AT + 48),
        };
        same(Part::Footer, offset, "the length of the file", footer.file_length, file_length)?;
        footer.fills_the_file(offset)?;
        footer.counts_agree(offset)?;
        Ok(footer)
    }

    /// Whether the parts lie one behind the other, from the header to the footer.
    fn fills_the_file(&self, offset: u64) -> Result<(), TableError> {
        let (sessions, filter, index) = (&self.sessions, &self.filter, &self.index);
        let is_on_page = sessions.offset >= PAGE && sessions.offset.is_multiple_of(PAGE);
        if !is_on_page {
            let kind = TableErrorKind::Mismatch {
                what: "where the blocks end",
                wanted: padded(sessions.offset.max(PAGE)),
                found: sessions.offset,
            };
            return Err(Part::Footer.wrong(offset, kind));
        }
        same(Part::Footer, offset, "where the filter is", sessions.end(), filter.offset)?;
        same(Part::Footer, offset, "where the index is", filter.end(), index.offset)?;
        same(Part::Footer, offset, "where the index ends", offset, index.end())
    }

    /// Whether the numbers of blocks and keys can be true of parts of these lengths.
    fn counts_agree(&self, offset: u64) -> Result<(), TableError> {
        let bounds = [
            ("the number of blocks", self.blocks, (self.sessions.offset - PAGE) / BLOCK_BYTES_MIN),
            ("the number of blocks", self.blocks, self.index.length / INDEX_ENTRY_HEADER_BYTES as u64),
            ("the number of blocks", self.blocks, self.meta.sums.keys),
            ("the bytes of the filter's last line", self.filter.length % LINE_BYTES as u64, 0),
        ];
        for (what, value, bound) in bounds {
            if value > bound {
                return Err(Part::Footer.wrong(offset, TableErrorKind::Bound { what, value, bound }));
            }
        }
        let has_keys = u64::from(self.meta.sums.keys > 0);
        same(Part::Footer, offset, "whether there are blocks", has_keys, u64::from(self.blocks > 0))?;
        same(Part::Footer, offset, "whether there is a filter", 1, u64::from(self.filter.length > 0))
    }
}

impl TableMeta {
    fn at(page: &Bytes, offset: u64) -> Result<Self, TableError> {
        let length = u32_at(page, MEMBERSHIP_AT) as usize;
        if length > MEMBERSHIP_BYTES_MAX {
            let (value, bound) = (length as u64, MEMBERSHIP_BYTES_MAX as u64);
            let kind = TableErrorKind::Bound { what: "the length of the membership", value, bound };
            return Err(Part::Footer.wrong(offset, kind));
        }
        Ok(Self {
            applied: Index(u64_at(page, 40)),
            applied_term: Term(u64_at(page, 48)),
            revision: Revision(u64_at(page, 56)),
            sums: Sums { keys: u64_at(page, 64), bytes: u64_at(page, 72), digest: u64_at(page, 80) },
            digest: u64_at(page, 88),
            membership: Bytes::copy_from_slice(&page[MEMBERSHIP_AT + 4..MEMBERSHIP_AT + 4 + length]),
        })
    }
}

/// Fills a page and writes the checksum of its other bytes to its beginning.
fn finish_page(mut page: Vec<u8>, salt: u64, part: Part, offset: u64) -> Vec<u8> {
    assert!(page.len() <= PAGE_BYTES, "{} bytes are more than a page", page.len());
    page.resize(PAGE_BYTES, 0);
    let own = checksum(salt, part, offset, &page[8..]);
    page[..8].copy_from_slice(&own.to_le_bytes());
    page
}

fn begins_with(page: &[u8], magic: u64, part: Part, offset: u64) -> Result<(), TableError> {
    let (found, format) = (u64_at(page, 8), u32_at(page, 16));
    if found != magic {
        return Err(part.wrong(offset, TableErrorKind::Magic(found)));
    }
    if format != FORMAT {
        return Err(part.wrong(offset, TableErrorKind::Format(format)));
    }
    Ok(())
}
