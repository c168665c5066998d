//! What becomes of what a disk holds, and of what it says that it has written: bits and sectors that rot,
//! blocks that cannot be read any more, files that are gone, writes that never land or land elsewhere.
//!
//! | damage | shows |
//! |---|---|
//! | a bit or a sector of a file, at rest or while it is open | when it is read, by a checksum |
//! | a bad block | by the error of every read of it, until it is written |
//! | a file that is gone | when it is opened; who has it open goes on |
//! | a write that is acknowledged and never lands | by what is read in its place, if anything knows better |
//! | one that lands elsewhere in its file | the same, and by what it has overwritten |
//!
//! A write that is in flight when its process is killed is no stray one: it was not acknowledged.

use std::io;
use std::path::Path;

use distribkv::env::BLOCK_BYTES;

use super::action::{Action, Answer};
use super::contents::SECTOR_BYTES;
use super::state::State;
use super::{Disk, os_error};

/// What a disk does with a write that it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// Nothing: what was there before stays. The file is as long as if it had landed.
    Lost,
    /// Puts it somewhere else in the file, drawn by this number; nowhere, where the file has no other place.
    Elsewhere(u64),
}

impl Disk {
    /// Turns a bit of a file over: in the cache and on the disk, as if it had rotted and then been read.
    pub fn flip_bit(&self, path: &Path, at: u64, bit: u8) {
        let mut state = self.inner.state.borrow_mut();
        match state.tree.find_file(path) {
            Ok(inode) => state.tree.file_mut(inode).flip_bit(at, bit),
            Err(error) => panic!("{} cannot rot: {error}", path.display()),
        }
    }

    /// Turns bits of a whole sector over, that of this byte.
    pub fn garble(&self, path: &Path, at: u64) {
        let first = at - at % SECTOR_BYTES as u64;
        let len = self.inner.state.borrow().tree.find_file(path).map(|inode| self.len_of(inode));
        let end = len.unwrap_or_default().min(first + SECTOR_BYTES as u64);
        (first..end).for_each(|byte| self.flip_bit(path, byte, (byte % 7) as u8));
    }

    /// Makes the block of this byte bad: reads of it fail until it is written. What is cached of it can be
    /// read for as long as it is.
    pub fn spoil_block(&self, path: &Path, at: u64) {
        let mut state = self.inner.state.borrow_mut();
        match state.tree.find_file(path) {
            Ok(inode) => state.tree.file_mut(inode).spoil(at - at % BLOCK_BYTES as u64, BLOCK_BYTES),
            Err(error) => panic!("{} cannot go bad: {error}", path.display()),
        }
    }

    /// Reads a part of a file as it is now, whatever is in flight; fewer bytes only where it ends.
    ///
    /// # Errors
    /// There is no such file, or a block is bad.
    pub fn read_now(&self, path: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let state = self.inner.state.borrow();
        state.read(state.tree.find_file(path)?, at, len)
    }

    /// Takes a file away, now and after every crash. Who has it open goes on with it.
    pub fn lose_file(&self, path: &Path) {
        let mut state = self.inner.state.borrow_mut();
        let state = &mut *state;
        state.sequence += 1;
        let lost = state.tree.remove(state.sequence, path).and_then(|()| {
            let dir = path.parent().ok_or_else(|| os_error(super::ENOENT))?;
            state.tree.sync_directory(dir, state.sequence)
        });
        assert!(lost.is_ok(), "{} cannot be lost: {lost:?}", path.display());
        state.collect();
    }

    /// Writes that were acknowledged so far and are not where they should be.
    #[must_use]
    pub fn strays(&self) -> u64 {
        self.inner.state.borrow().strays
    }

    fn len_of(&self, inode: super::names::InodeId) -> u64 {
        self.inner.state.borrow().tree.file(inode).len()
    }
}

impl State {
    /// What a stray write does: it is acknowledged.
    pub(super) fn go_astray(&mut self, action: &Action, stray: Stray) -> io::Result<Answer> {
        let Action::Write { inode, pos, data, through } = action else { return self.perform(action) };
        self.sequence += 1;
        self.strays += 1;
        let (end, sequence) = (pos + data.len() as u64, self.sequence);
        self.reserve(*inode, end)?;
        let contents = self.tree.file_mut(*inode);
        contents.set_len(sequence, end);
        let block = BLOCK_BYTES as u64;
        let (places, here) = ((contents.len() - data.len() as u64) / block + 1, pos / block);
        match stray {
            Stray::Elsewhere(draw) if places > 1 => {
                let there = (here + 1 + draw % (places - 1)) % places;
                let (inode, data, through) = (*inode, data.clone(), *through);
                self.perform(&Action::Write { inode, pos: there * block, data, through })
            }
            Stray::Elsewhere(_) | Stray::Lost => Ok(Answer::Done),
        }
    }
}
