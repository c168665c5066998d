//! A backup: one file with the table of every shard, each at a revision of its own.
//!
//! This is format version 1. Nothing here reads or writes a file: a [`BackupWriter`] makes what goes between
//! the tables, a [`BackupReader`] is fed the whole and says what is in it.
//!
//! # The file
//!
//! Numbers are little-endian and of fixed width.
//!
//! ```text
//! ┌────────┬──────────────────────────┬──────────────────────────┬─ … ─┬─────────┐
//! │ header │ part │ table │ checksum  │ part │ table │ checksum  │     │ trailer │
//! └────────┴──────────────────────────┴──────────────────────────┴─ … ─┴─────────┘
//!            shard 0                    shard 1                    every shard, in order
//!
//! header, 64 bytes
//!    0  checksum: u64           20  shards: u32       36  node: u32, which made it
//!    8  magic: u64              24  cluster: u64      40  made: u64, milliseconds since 1970
//!   16  format: u32, 1          32  nodes: u32        48  zeros
//!
//! part, 72 bytes
//!    0  checksum: u64           20  zeros             40  term: u64, of that entry
//!    8  magic: u64              24  revision: u64     48  length: u64, of the table, at least 1
//!   16  shard: u32              32  index: u64        56  keys: u64
//!                                                     64  bytes: u64, of keys and values
//!
//! checksum, 8 bytes: of the table
//!
//! trailer, 48 bytes
//!    0  checksum: u64           16  length: u64, of all that comes before the trailer
//!    8  magic: u64              24  shards: u32      28  zeros      32  hash: u128, of all before it
//! ```
//!
//! The checksums of header, part and trailer are of their own bytes from 8 on, that of a table is of the
//! table: XXH3-64, seeded with the place in the file where what is checked begins. The hash is XXH3-128. A
//! table is drawn in [`table`](super::table), and has checksums of its own.
//!
//! # What is refused
//!
//! A file that ends anywhere before its end, one that goes on after it, one with a bit that is another, and
//! one that was put together of parts of others: the hash covers every byte before the trailer, and the
//! trailer itself. The earlier checksums say where, and that a length may be believed.
//!
//! Invariants:
//! - What is read is exactly what a writer makes of the same header and parts.
//! - A reader holds no more than the longest record, whatever lengths it is told.
//!
//! Deliberately absent: what is in a table, and whether it is the one that its part says.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::codec::wire::Sink;
use crate::ids::{ClusterId, Index, NodeId, Revision, ShardId, Term};

/// The only format that is written or read.
pub const BACKUP_FORMAT: u32 = 1;
/// The most shards that a backup may have: there are as many slots.
pub const BACKUP_SHARDS_MAX: u32 = 16_384;

/// "kvbackup" as a number.
const HEADER_MAGIC: u64 = u64::from_le_bytes(*b"kvbackup");
/// "kvbshard" as a number.
const PART_MAGIC: u64 = u64::from_le_bytes(*b"kvbshard");
/// "kvb-end\0" as a number.
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"kvb-end\0");

const HEADER_BYTES: usize = 64;
const PART_BYTES: usize = 72;
const CHECKSUM_BYTES: usize = 8;
const TRAILER_BYTES: usize = 48;

/// What a backup is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupHeader {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its shards: 1 to [`BACKUP_SHARDS_MAX`].
    pub shards: u32,
    /// Its nodes.
    pub nodes: u32,
    /// The node that made it.
    pub node: NodeId,
    /// When it was begun, by that node's clock: milliseconds since 1970.
    pub made_ms: u64,
}

/// One shard of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupPart {
    /// The shard.
    pub shard: ShardId,
    /// The revision that its table is at.
    pub revision: Revision,
    /// The last entry that the table stands for.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The length of the table.
    pub length: u64,
    /// Its keys.
    pub keys: u64,
    /// The bytes of its keys and values.
    pub bytes: u64,
}

/// What tells a backup from every other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupHash(pub u128);

impl fmt::Display for BackupHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A backup that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// What it is of.
    pub header: BackupHeader,
    /// Its shards, in order, each with the place where its table begins.
    pub parts: Vec<(BackupPart, u64)>,
    /// Its hash.
    pub hash: BackupHash,
    /// The length of the file.
    pub length: u64,
}

/// Makes a backup, but for the tables, which are put between what it makes.
pub struct BackupWriter {
    hash: Xxh3,
    position: u64,
    shards: u32,
    next: ShardId,
    table: Option<OpenPart>,
}

/// A table that is going by.
struct OpenPart {
    checksum: Xxh3,
    left: u64,
}

impl BackupWriter {
    /// Begins a backup; its first bytes.
    #[must_use]
    pub fn new(header: &BackupHeader) -> (Self, Vec<u8>) {
        let shards = header.shards;
        assert!((1..=BACKUP_SHARDS_MAX).contains(&shards), "a backup of {shards} shards");
        let mut writer = Self { hash: Xxh3::new(), position: 0, shards, next: ShardId(0), table: None };
        let bytes = header.encode();
        writer.passed(&bytes);
        (writer, bytes)
    }

    /// Begins the next shard; the bytes before its table.
    pub fn begin_part(&mut self, part: &BackupPart) -> Vec<u8> {
        assert!(self.table.is_none(), "shard {} begins within another", part.shard);
        assert!(
            part.shard == self.next && part.shard.0 < self.shards,
            "shard {} of {}",
            part.shard,
            self.next
        );
        assert!(part.length > 0, "shard {} has no table", part.shard);
        let bytes = part.encode(self.position);
        self.passed(&bytes);
        self.next = self.next.next();
        self.table = Some(OpenPart { checksum: Xxh3::with_seed(self.position), left: part.length });
        bytes
    }

    /// Some bytes of the table go by. After its last, the bytes that follow it.
    pub fn pass_table(&mut self, bytes: &[u8]) -> Option<[u8; CHECKSUM_BYTES]> {
        self.passed(bytes);
        let Some(table) = &mut self.table else { panic!("{} bytes are of no table", bytes.len()) };
        let passed = bytes.len() as u64;
        assert!(passed <= table.left, "{passed} bytes are more than the {} that are left", table.left);
        table.checksum.update(bytes);
        table.left -= passed;
        if table.left > 0 {
            return None;
        }
        let checksum = table.checksum.digest().to_le_bytes();
        self.table = None;
        self.passed(&checksum);
        Some(checksum)
    }

    /// Ends the backup; its last bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let (shards, had) = (self.shards, self.next.0);
        assert!(self.table.is_none() && had == shards, "a backup of {shards} shards ends after {had}");
        let hash = BackupHash(self.hash.digest128());
        encode_trailer(self.position, shards, hash)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.position += bytes.len() as u64;
    }
}

/// Reads a backup, piece by piece, and checks every byte of it.
pub struct BackupReader {
    stage: Stage,
    /// What has come of the record that is being read.
    record: Vec<u8>,
    hash: Xxh3,
    position: u64,
    header: Option<BackupHeader>,
    parts: Vec<(BackupPart, u64)>,
    hash_found: BackupHash,
}

/// What comes next.
enum Stage {
    Header,
    Part,
    Table(Box<OpenPart>),
    Checksum(u64),
    Trailer,
    End,
}

impl Default for BackupReader {
    fn default() -> Self {
        Self {
            stage: Stage::Header,
            record: Vec::with_capacity(PART_BYTES),
            hash: Xxh3::new(),
            position: 0,
            header: None,
            parts: Vec::new(),
            hash_found: BackupHash::default(),
        }
    }
}

impl BackupReader {
    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// They are not those of a backup; the reader is of no further use.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            bytes = match &mut self.stage {
                Stage::Table(table) => {
                    let taken = usize::try_from(table.left).unwrap_or(usize::MAX).min(bytes.len());
                    let (of_table, rest) = bytes.split_at(taken);
                    table.checksum.update(of_table);
                    table.left -= taken as u64;
                    self.hash.update(of_table);
                    self.position += taken as u64;
                    if table.left == 0 {
                        self.stage = Stage::Checksum(table.checksum.digest());
                    }
                    rest
                }
                Stage::End => return Err(self.wrong(BackupErrorKind::Long)),
                Stage::Header | Stage::Part | Stage::Checksum(_) | Stage::Trailer => self.gather(bytes)?,
            };
        }
        Ok(())
    }

    /// The file has ended.
    ///
    /// # Errors
    /// It ended before the backup did.
    pub fn finish(self) -> Result<BackupSummary, BackupError> {
        match (&self.stage, self.header) {
            (Stage::End, Some(header)) => {
                let (hash, length) = (self.hash_found, self.position);
                Ok(BackupSummary { header, parts: self.parts, hash, length })
            }
            _ => Err(BackupError {
                offset: self.position + self.record.len() as u64,
                kind: BackupErrorKind::Short,
            }),
        }
    }

    /// Takes bytes of a record, and the record when it is whole; what is left of the bytes.
    fn gather<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], BackupError> {
        let wanted = match self.stage {
            Stage::Header => HEADER_BYTES,
            Stage::Part => PART_BYTES,
            Stage::Checksum(_) => CHECKSUM_BYTES,
            Stage::Trailer => TRAILER_BYTES,
            Stage::Table(_) | Stage::End => panic!("no record is read at {}", self.position),
        };
        let (taken, rest) = bytes.split_at((wanted - self.record.len()).min(bytes.len()));
        self.record.extend_from_slice(taken);
        if self.record.len() == wanted {
            let record = std::mem::take(&mut self.record);
            self.stage = self.take(&record)?;
            self.position += wanted as u64;
            self.record = record;
            self.record.clear();
        }
        Ok(rest)
    }

    /// Takes a whole record; what comes next.
    fn take(&mut self, record: &[u8]) -> Result<Stage, BackupError> {
        let at = self.position;
        let wrong = |kind| BackupError { offset: at, kind };
        match &self.stage {
            Stage::Header => {
                self.header = Some(BackupHeader::decode(record).map_err(wrong)?);
                self.hash.update(record);
                Ok(Stage::Part)
            }
            Stage::Part => {
                let part = BackupPart::decode(record, at).map_err(wrong)?;
                let (wanted, found) = (self.parts.len() as u64, u64::from(part.shard.0));
                if wanted != found {
                    return Err(wrong(BackupErrorKind::Shard { wanted, found }));
                }
                self.hash.update(record);
                let table_at = at + PART_BYTES as u64;
                self.parts.push((part, table_at));
                let table = OpenPart { checksum: Xxh3::with_seed(table_at), left: part.length };
                Ok(Stage::Table(Box::new(table)))
            }
            Stage::Checksum(computed) => {
                if u64_at(record, 0) != *computed {
                    return Err(wrong(BackupErrorKind::Checksum));
                }
                self.hash.update(record);
                let shards = self.header.map_or(0, |header| header.shards as usize);
                Ok(if self.parts.len() < shards { Stage::Part } else { Stage::Trailer })
            }
            Stage::Trailer => {
                let shards = self.header.map_or(0, |header| header.shards);
                let hash = BackupHash(self.hash.digest128());
                if record != encode_trailer(at, shards, hash) {
                    return Err(wrong(BackupErrorKind::Checksum));
                }
                self.hash_found = hash;
                Ok(Stage::End)
            }
            Stage::Table(_) | Stage::End => panic!("no record is read at {at}"),
        }
    }

    fn wrong(&self, kind: BackupErrorKind) -> BackupError {
        BackupError { offset: self.position, kind }
    }
}

impl BackupHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = begun(HEADER_MAGIC);
        out.u32(BACKUP_FORMAT);
        out.u32(self.shards);
        out.u64(self.cluster.0);
        out.u32(self.nodes);
        out.u32(self.node.0);
        out.u64(self.made_ms);
        sealed(out, HEADER_BYTES, 0)
    }

    fn decode(record: &[u8]) -> Result<Self, BackupErrorKind> {
        if u64_at(record, 8) != HEADER_MAGIC {
            return Err(BackupErrorKind::NotABackup);
        }
        let header = Self {
            cluster: ClusterId(u64_at(record, 24)),
            shards: u32_at(record, 20),
            nodes: u32_at(record, 32),
            node: NodeId(u32_at(record, 36)),
            made_ms: u64_at(record, 40),
        };
        if u64_at(record, 0) != checksum(record, 0) {
            return Err(BackupErrorKind::Checksum);
        }
        let format = u32_at(record, 16);
        if format != BACKUP_FORMAT {
            return Err(BackupErrorKind::Format { found: format });
        }
        let is_bounded = (1..=BACKUP_SHARDS_MAX).contains(&header.shards);
        let is_whole = record == header.encode();
        (is_bounded && is_whole).then_some(header).ok_or(BackupErrorKind::Field)
    }
}

impl BackupPart {
    fn encode(&self, at: u64) -> Vec<u8> {
        let mut out = begun(PART_MAGIC);
        out.u32(self.shard.0);
        out.u32(0);
        for field in [self.revision.0, self.index.0, self.term.0, self.length, self.keys, self.bytes] {
            out.u64(field);
        }
        sealed(out, PART_BYTES, at)
    }

    fn decode(record: &[u8], at: u64) -> Result<Self, BackupErrorKind> {
        let part = Self {
            shard: ShardId(u32_at(record, 16)),
            revision: Revision(u64_at(record, 24)),
            index: Index(u64_at(record, 32)),
            term: Term(u64_at(record, 40)),
            length: u64_at(record, 48),
            keys: u64_at(record, 56),
            bytes: u64_at(record, 64),
        };
        if u64_at(record, 0) != checksum(record, at) {
            return Err(BackupErrorKind::Checksum);
        }
        let is_whole = record == part.encode(at);
        (part.length > 0 && is_whole).then_some(part).ok_or(BackupErrorKind::Field)
    }
}

fn encode_trailer(at: u64, shards: u32, hash: BackupHash) -> Vec<u8> {
    let mut out = begun(TRAILER_MAGIC);
    out.u64(at);
    out.u32(shards);
    out.u32(0);
    out.extend_from_slice(&hash.0.to_le_bytes());
    sealed(out, TRAILER_BYTES, at)
}

/// A record with room for its checksum.
fn begun(magic: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(PART_BYTES);
    out.u64(0);
    out.u64(magic);
    out
}

/// The record with zeros to its length, and its checksum, in a file at this place.
fn sealed(mut out: Vec<u8>, length: usize, at: u64) -> Vec<u8> {
    assert!(out.len() <= length, "a record of {length} bytes has {}", out.len());
    out.resize(length, 0);
    let sum = checksum(&out, at);
    out[..CHECKSUM_BYTES].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The checksum of a record, which begins with it.
fn checksum(record: &[u8], at: u64) -> u64 {
    xxh3_64_with_seed(&record[CHECKSUM_BYTES..], at)
}

fn u32_at(record: &[u8], at: usize) -> u32 {
    let four = record[at..at + 4].try_into().expect("the slice has four bytes");
    u32::from_le_bytes(four)
}

fn u64_at(record: &[u8], at: usize) -> u64 {
    let eight = record[at..at + 8].try_into().expect("the slice has eight bytes");
    u64::from_le_bytes(eight)
}

/// Bytes that are no backup: where, and in what way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupError {
    /// Where in the file what is wrong begins.
    pub offset: u64,
    /// What is wrong.
    pub kind: BackupErrorKind,
}

/// In what way bytes are no backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupErrorKind {
    /// The file does not begin as one does.
    NotABackup,
    /// It was made by another version.
    Format {
        /// The format that it has.
        found: u32,
    },
    /// It ends early.
    Short,
    /// Bytes follow its end.
    Long,
    /// Bytes are not those that were written.
    Checksum,
    /// A field holds what none of its meanings is.
    Field,
    /// Its shards are not all of them in order.
    Shard {
        /// Which has to come.
        wanted: u64,
        /// Which comes.
        found: u64,
    },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match self.kind {
            BackupErrorKind::NotABackup => f.write_str("it is no backup"),
            BackupErrorKind::Format { found } => {
                write!(f, "it is a backup of format {found}, this build reads format {BACKUP_FORMAT}")
            }
            BackupErrorKind::Short => write!(f, "it ends at byte {offset}, before the backup does"),
            BackupErrorKind::Long => write!(f, "bytes follow the end of the backup at byte {offset}"),
            BackupErrorKind::Checksum => {
                write!(f, "a checksum does not match at byte {offset}: it is not what was written")
            }
            BackupErrorKind::Field => write!(f, "what is at byte {offset} makes no sense"),
            BackupErrorKind::Shard { wanted, found } => {
                write!(f, "shard {found} is at byte {offset}, where shard {wanted} has to be")
            }
        }
    }
}

impl std::error::Error for BackupError {}
