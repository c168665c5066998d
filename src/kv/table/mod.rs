//! The table: an immutable, sorted, checksummed file that holds the state of one shard at one index.
//!
//! This is format version 1; later versions read it. Nothing here reads or writes a file: a [`TableWriter`]
//! turns sorted entries into pages for whoever writes them, and [`Header`], [`Footer`], [`TableIndex`] and
//! [`Block`] make sense of bytes that somebody else has read.
//!
//! # The file
//!
//! All of it is pages of 4096 bytes, so that it can be written and read with direct IO. Numbers are
//! little-endian and of fixed width; what a page has no use for is zero, and part of what is checked.
//!
//! ```text
//!  page 0        blocks, in order of keys, each some pages     each from a page on        last page
//! ┌────────┬─────────┬─────────┬───── … ─────┬─────────┬──────────┬────────┬───────┬────────┐
//! │ header │ block 0 │ block 1 │             │ block n │ sessions │ filter │ index │ footer │
//! └────────┴─────────┴─────────┴───── … ─────┴─────────┴──────────┴────────┴───────┴────────┘
//!
//! header, one page
//!   0  checksum: u64, of bytes 8 to 4096     16  format: u32, 1       24  salt: u64, never used before
//!   8  magic: u64                            20  shard: u32           32  zeros
//!
//! block, of as many pages as it needs: 16 KiB of entries, or one larger entry
//!   0  checksum: u64, of all its pages from byte 8 on
//!   8  entries: u32, at least 1
//!  12  used: u32, the bytes from its start to the end of its last entry
//!  16  entry, entry, … , zeros
//!
//! entry
//!   0  key length: u32          8  create revision: u64         24  version: u64      40  key, value
//!   4  value length: u32       16  mod revision: u64            32  digest: u64
//!
//! sessions, drawn at their codec
//!
//! filter: lines of 64 bytes, see `filter`
//!
//! index: for each block
//!   0  offset: u64              8  length: u32, in bytes        12  key length: u32   16  key
//!      the key: the shortest that is above every key of the block before, and not above any of this one;
//!      of the first block it is empty
//!
//! footer, one page
//!   0  checksum: u64, of bytes 8 to 4096     40  applied index: u64     96  number of blocks: u64
//!   8  magic: u64                            48  its term: u64         104  sessions: section
//!  16  format: u32, 1                        56  revision: u64         128  filter: section
//!  20  shard: u32                            64  keys: u64             152  index: section
//!  24  salt: u64                             72  bytes: u64            176  membership length: u32
//!  32  length of the file: u64               80  digest of keys: u64   180  membership, zeros
//!                                            88  digest: u64, of all
//! section
//!   0  offset: u64              8  length: u64, without zeros at its end       16  checksum: u64, with them
//! ```
//!
//! The digest of an entry is the state's own (`kv::digest`), so that a key can be replaced without its value
//! being read and hashed. The membership is opaque here.
//!
//! # Checksums
//!
//! XXH3-64, seeded with the hash of salt, kind of part and offset in the file. So a block that was written to
//! the wrong place, one of an earlier file in recycled space and one of another shard do not verify, however
//! intact they are. Those of sessions, filter and index are in the footer, since a driver reads the footer
//! first; a block has its own, since it is read alone.
//!
//! # Why a crash is safe at any point
//!
//! A table is written under a name that nothing refers to, synced, its directory synced, read back, and only
//! then named in the manifest: a file that was written in part, or not at all, is named by nobody, and
//! nothing of it is believed by its looks. From then on no byte of it changes. What is let go of for it (the
//! table before, the log below its index) is let go of after the manifest names it.
//!
//! Invariants:
//! - Keys are strictly ascending through the whole file, each once; there are no tombstones.
//! - The sections lie one behind the other and fill the file: a [`Footer`] that decodes proves it of the
//!   file's length, so that no length in it makes anybody allocate more than the file has.
//! - Whatever bytes are decoded, the outcome is a value or a [`TableError`], never a panic.
//!
//! Deliberately absent: compression and shared prefixes (values rarely share any; a block is checked and
//! walked as it is), changes in place, and levels: a shard has one table.

mod block;
mod check;
mod error;
mod filter;
mod footer;
mod index;
mod layout;
mod writer;

#[cfg(test)]
mod tests;

pub use block::{Block, BlockHandle, EntryRef};
pub use check::SectionCheck;
pub use error::{Part, TableError, TableErrorKind};
pub use footer::{Footer, Header, MEMBERSHIP_BYTES_MAX, Section, TableMeta};
pub use index::{Place, TableIndex};
pub use layout::{ENTRY_BYTES_MAX, PAGE_BYTES, checksum};
pub use writer::{CHUNK_BYTES, Chunk, TableId, TableWriter};
