//! A shard's table as it lies there, checked down to each key.

use std::io;

use bytes::Bytes;

use crate::ids::ShardId;
use crate::kv::table::{Block, EntryRef, Footer, Header, PAGE_BYTES, Place, Section, TableError, TableIndex};
use crate::kv::{self, Limits, State};
use crate::log::TableRef;

use super::files::Files;
use super::finding::{Finding, Severity, What};

/// Of how many wrong keys of a table each is told; of the rest, their number.
const KEYS_TOLD_MAX: u64 = 10;

/// The file of a table that is being read.
pub(super) struct TableReader<'a, F: Files> {
    files: &'a F,
    file: &'a str,
    bytes: u64,
}

impl<'a, F: Files> TableReader<'a, F> {
    /// Reads a table of this many bytes.
    pub(super) fn new(files: &'a F, file: &'a str, bytes: u64) -> Self {
        Self { files, file, bytes }
    }

    /// Its last page.
    pub(super) fn footer(&self) -> Result<Footer, What> {
        Footer::decode(&self.page(Footer::offset(self.bytes))?, self.bytes).map_err(What::Table)
    }

    /// Its index and filter.
    pub(super) fn index(&self, footer: Footer) -> Result<TableIndex, What> {
        let (index, filter) = (self.section(&footer.index)?, self.section(&footer.filter)?);
        TableIndex::open(footer, &index, &filter).map_err(What::Table)
    }

    /// A block, of those counted from 0.
    pub(super) fn block(&self, index: &TableIndex, at: usize) -> Result<Block, What> {
        let handle = index.handle(at);
        let bytes = self.part(handle.offset, u64::from(handle.length))?;
        Block::decode(handle, bytes).map_err(What::Table)
    }

    /// The state that it holds, without its keys.
    fn state(&self, shard: ShardId, index: TableIndex) -> Result<State, What> {
        let sessions = self.section(&index.footer().sessions)?;
        State::from_table(kv::Config::new(shard, Limits::DEFAULT), index, &sessions).map_err(What::Table)
    }

    fn section(&self, section: &Section) -> Result<Bytes, What> {
        self.part(section.offset, section.padded_length())
    }

    fn page(&self, offset: u64) -> Result<Bytes, What> {
        self.part(offset, PAGE_BYTES as u64)
    }

    fn part(&self, offset: u64, len: u64) -> Result<Bytes, What> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match self.files.read(self.file, offset, len) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(What::Missing),
            Err(error) => Err(What::Unreadable(error)),
        }
    }
}

/// Checks a table that the manifest names; the number of its keys. What is wrong is added to the findings.
pub(super) fn check_table<F: Files>(
    files: &F,
    file: &str,
    (shard, named): (ShardId, &TableRef),
    findings: &mut Vec<Finding>,
) -> u64 {
    let reader = TableReader::new(files, file, named.bytes);
    let mut check = Check { shard, file, findings, keys: 0, wrong_keys: 0 };
    if let Err(what) = check.all(&reader, named) {
        check.add(what);
    }
    if let Some(more) = check.wrong_keys.checked_sub(KEYS_TOLD_MAX + 1) {
        check.add(What::MoreKeys { count: more + 1 });
    }
    check.keys
}

struct Check<'a> {
    shard: ShardId,
    file: &'a str,
    findings: &'a mut Vec<Finding>,
    keys: u64,
    wrong_keys: u64,
}

/// What the keys of a table come to.
#[derive(Default)]
struct Sums {
    bytes: u64,
    digest: u64,
    last_key: Option<Vec<u8>>,
}

impl Check<'_> {
    /// Checks part by part. The error is what the rest cannot be read without.
    fn all<F: Files>(&mut self, reader: &TableReader<'_, F>, named: &TableRef) -> Result<(), What> {
        match reader.files.len(self.file) {
            Ok(found) if found != named.bytes => {
                return Err(What::Length { expected: named.bytes, found });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(What::Missing),
            Err(error) => return Err(What::Unreadable(error)),
        }
        let footer = reader.footer()?;
        self.is_named(&reader.page(Footer::offset(named.bytes))?, &footer, named);
        match reader.page(0).map(|page| Header::decode(&page)) {
            Ok(Ok(header)) if header == footer.header => {}
            Ok(Ok(_)) => self.add(What::TableOther { what: "header than footer" }),
            Ok(Err(error)) => self.add(What::Table(error)),
            Err(what) => self.add(what),
        }
        let index = reader.index(footer.clone())?;
        match reader.index(footer.clone()).and_then(|index| reader.state(self.shard, index)) {
            Ok(_) => {}
            Err(what) => self.add(what),
        }
        self.blocks(reader, &index);
        Ok(())
    }

    fn is_named(&mut self, page: &[u8], footer: &Footer, named: &TableRef) {
        let checksum = page.first_chunk().map(|first| u64::from_le_bytes(*first));
        let meta = &footer.meta;
        let facts = [
            ("shard", footer.header.shard == self.shard),
            ("index", (meta.applied, meta.applied_term) == (named.index, named.term)),
            ("footer checksum", checksum == Some(named.footer_checksum)),
        ];
        for (what, _) in facts.into_iter().filter(|(_, is_same)| !is_same) {
            self.add(What::TableOther { what });
        }
    }

    fn blocks<F: Files>(&mut self, reader: &TableReader<'_, F>, index: &TableIndex) {
        let mut sums = Sums::default();
        let mut is_whole = true;
        for at in 0..index.blocks() {
            match reader.block(index, at) {
                Ok(block) => block.iter().for_each(|entry| self.key(index, &block, &entry, &mut sums)),
                Err(what) => {
                    is_whole = false;
                    self.add(what);
                }
            }
        }
        let footer = index.meta().sums;
        let facts = [
            ("keys:", footer.keys, self.keys),
            ("bytes:", footer.bytes, sums.bytes),
            ("digest of keys:", footer.digest, sums.digest),
        ];
        for (what, wanted, found) in facts {
            if is_whole && wanted != found {
                self.add(What::Sums { what, wanted, found });
            }
        }
    }

    fn key(&mut self, index: &TableIndex, block: &Block, entry: &EntryRef<'_>, sums: &mut Sums) {
        let wrong = if !entry.has_its_digest() {
            Some("its digest is not that of its key and value")
        } else if sums.last_key.as_ref().is_some_and(|last| &last[..] >= entry.key) {
            Some("its key is not above the one before it")
        } else if index.locate(entry.key) != Place::Block(block.handle()) {
            Some("index and filter do not lead to it")
        } else if entry.mod_revision > index.meta().revision {
            Some("its revision is above the shard's")
        } else {
            None
        };
        if let Some(what) = wrong {
            self.wrong_keys += 1;
            if self.wrong_keys <= KEYS_TOLD_MAX {
                self.add(What::Key { number: self.keys, what });
            }
        }
        self.keys += 1;
        sums.bytes += (entry.key.len() + entry.value.len()) as u64;
        sums.digest = sums.digest.wrapping_add(entry.digest);
        let last = sums.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(entry.key);
    }

    fn add(&mut self, what: What) {
        let offset = if let What::Table(TableError { offset, .. }) = &what { *offset } else { 0 };
        let (severity, file, shards) = (Severity::Peers, self.file.to_owned(), vec![self.shard]);
        self.findings.push(Finding { severity, file, offset, shards, what });
    }
}
