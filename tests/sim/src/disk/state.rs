//! The state of a disk, and what each operation does to it when it completes.
//!
//! It knows no time: [`super`] says when.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use distribkv::env::{BLOCK_BYTES, OpenMode};

use super::action::{Action, Answer, Through};
use super::contents::SECTOR_BYTES;
use super::fate::{Fates, Tearing};
use super::faults::Faults;
use super::names::{InodeId, Tree};
use super::settings::{DiskConfig, FailedSync};
use super::{Crash, EIO, ENOSPC, Flight, os_error};
use crate::executor::Group;
use crate::random::{Choices, Random};

/// What a disk is and what it is doing.
pub(super) struct State {
    pub(super) config: DiskConfig,
    pub(super) random: Random,
    pub(super) tree: Tree,
    /// Changes that have completed: the order of what is cached.
    pub(super) sequence: u64,
    /// Operations submitted so far, and the number of the last.
    pub(super) operations: u64,
    /// Writes that were acknowledged and are not where they should be.
    pub(super) strays: u64,
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Operations whose time has come while the disk was stalled.
    pub(super) held: Vec<u64>,
    pub(super) open: BTreeMap<InodeId, u32>,
    pub(super) faults: Faults,
    pub(super) points: u64,
    pub(super) crash_at: Option<(u64, Crash)>,
}

impl State {
    /// An empty disk that is doing nothing.
    pub(super) fn new(config: DiskConfig, random: Random) -> Self {
        Self {
            config,
            random,
            tree: Tree::new(),
            sequence: 0,
            operations: 0,
            strays: 0,
            flights: BTreeMap::new(),
            held: Vec::new(),
            open: BTreeMap::new(),
            faults: Faults::default(),
            points: 0,
            crash_at: None,
        }
    }

    /// Asserts that no write in flight of the same life touches the bytes of this one.
    pub(super) fn assert_alone(&self, group: Group, action: &Action) {
        let Action::Write { inode, pos, data, .. } = action else {
            return;
        };
        let end = pos + data.len() as u64;
        for flight in self.flights.values().filter(|flight| flight.group == group) {
            if let Action::Write { inode: other, pos: from, data, .. } = &flight.action {
                let apart = other != inode || end <= *from || from + data.len() as u64 <= *pos;
                assert!(apart, "a write at {pos}..{end} of {inode:?} while one at {from} is in flight");
            }
        }
    }

    /// The effect of an operation, all at once.
    pub(super) fn perform(&mut self, action: &Action) -> io::Result<Answer> {
        let sequence = self.sequence + 1;
        if action.is_change() {
            self.sequence = sequence;
        }
        match action {
            Action::Open { path, mode } => self.open(sequence, path, *mode),
            Action::Read { inode, pos, len } => self.read(*inode, *pos, *len).map(Answer::Bytes),
            Action::Length { inode } => Ok(Answer::Length(self.tree.file(*inode).len())),
            Action::Write { inode, pos, data, through } => self.write(sequence, *inode, *pos, data, *through),
            Action::Sync { inode, through } => {
                self.tree.file_mut(*inode).sync(*through);
                Ok(Answer::Done)
            }
            Action::Allocate { inode, len } => {
                self.reserve(*inode, *len)?;
                self.tree.file_mut(*inode).set_len(sequence, *len);
                Ok(Answer::Done)
            }
            Action::List { path } => self.tree.list(path).map(Answer::Names),
            Action::CreateDir { path } => self.tree.create_directories(sequence, path).map(|()| Answer::Done),
            Action::Rename { from, to } => self.tree.rename(sequence, from, to).map(|()| Answer::Done),
            Action::Remove { path } => self.tree.remove(sequence, path).map(|()| Answer::Done),
            Action::SyncDir { path, through } => {
                self.tree.sync_directory(path, *through)?;
                self.collect();
                Ok(Answer::Done)
            }
            Action::Close => Ok(Answer::Done),
        }
    }

    /// Opens a file, and holds on to it whatever becomes of its name.
    fn open(&mut self, sequence: u64, path: &Path, mode: OpenMode) -> io::Result<Answer> {
        let inode = match mode {
            OpenMode::Read | OpenMode::Durable => self.tree.find_file(path)?,
            OpenMode::Create | OpenMode::CreateDurable => self.tree.create_file(sequence, path)?,
        };
        *self.open.entry(inode).or_default() += 1;
        Ok(Answer::Opened(inode))
    }

    /// Reads, where no block is bad.
    pub(super) fn read(&self, inode: InodeId, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let contents = self.tree.file(inode);
        if contents.is_bad(pos, len) { Err(os_error(EIO)) } else { Ok(contents.read(pos, len)) }
    }

    /// Writes to the cache or through it, where there is space.
    fn write(
        &mut self,
        sequence: u64,
        inode: InodeId,
        pos: u64,
        data: &[u8],
        through: Through,
    ) -> io::Result<Answer> {
        self.reserve(inode, pos + data.len() as u64)?;
        let contents = self.tree.file_mut(inode);
        match through {
            Through::Cache => contents.write_cached(sequence, pos, data),
            Through::Disk => contents.write_durable(pos, data),
        }
        Ok(Answer::Done)
    }

    /// Whether there is space for a file to be so long.
    pub(super) fn reserve(&self, inode: InodeId, len: u64) -> io::Result<()> {
        let block = BLOCK_BYTES as u64;
        let before = self.tree.file(inode).len().next_multiple_of(block);
        let grown = len.next_multiple_of(block).saturating_sub(before);
        let full = grown > 0 && self.tree.bytes_used(block) + grown > self.config.capacity_bytes;
        if full { Err(os_error(ENOSPC)) } else { Ok(()) }
    }

    /// The effect of an operation that fails: a write may have landed in part, a sync may have spoiled the
    /// cache.
    pub(super) fn fail(&mut self, action: &Action, choices: &Choices) {
        match action {
            Action::Write { inode, pos, data, .. } => {
                let mut fates = Fates::new(choices, Tearing::Sectors, self.config.tear_sectors);
                self.write_in_part(*inode, *pos, data, &mut fates);
            }
            Action::Sync { inode, through } => match self.config.failed_sync {
                FailedSync::MarksClean => self.tree.file_mut(*inode).give_up(*through),
                FailedSync::KeepsDirty => {}
            },
            Action::Open { .. } | Action::Read { .. } | Action::Length { .. } | Action::Allocate { .. } => {}
            Action::List { .. } | Action::CreateDir { .. } | Action::Rename { .. } => {}
            Action::Remove { .. } | Action::SyncDir { .. } | Action::Close => {}
        }
    }

    /// Lets some sectors of a write land, in the cache: what a crash or an error may leave of it.
    pub(super) fn write_in_part(&mut self, inode: InodeId, pos: u64, data: &[u8], fates: &mut Fates) {
        if self.reserve(inode, pos + data.len() as u64).is_err() {
            return;
        }
        self.sequence += 1;
        let first = pos / SECTOR_BYTES as u64;
        fates.begin_file();
        let contents = self.tree.file_mut(inode);
        contents.write_cached_sectors(self.sequence, pos, data, |number| fates.lands(first + number as u64));
    }

    /// Lets go of what no name leads to, nobody has open and nothing in flight is for.
    pub(super) fn collect(&mut self) {
        let (open, flights) = (&self.open, &self.flights);
        self.tree.collect(|inode| {
            open.contains_key(&inode) || flights.values().any(|flight| flight.action.inode() == Some(inode))
        });
    }
}
