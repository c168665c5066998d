//! A table that is handed out part by part, to a follower or into a backup: nothing of it that was not
//! checked.
//!
//! ```text
//!   first part ─► header, footer, sessions, filter, index: all of them, once ─┬─► parts: whole blocks, each
//!                                                                           │   checked as it is read
//!                 damaged, or not to be read twice in a row ◄─────────────────┴─► the sections as they are
//! ```
//!
//! Who takes a table checks all of it at its end, and begins anew where that fails. Were the damage here, it
//! would never come to another end, and nobody else would hear of it: a table that is hardly read is lent for
//! as long as it stands.
//!
//! Invariants:
//! - No block is handed out, nor any byte of one, whose checksum was not checked after it was read; nothing
//!   else before it was found whole since the lending began.
//! - A failure to read is tried once more before it counts.
//! - The table stays open while it is lent, whatever becomes of its name.
//!
//! It lives on the core of whoever reads it. It deliberately does not say what is done about damage.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use crate::env::Env;
use crate::kv::table::{Block, BlockHandle, PAGE_BYTES, TableIndex};
use crate::shard::table::{TableFile, TableReadError, check_frame, read_twice};

const PAGE: u64 = PAGE_BYTES as u64;

/// A table that is handed out.
pub(crate) struct Lending<E: Env> {
    file: Rc<TableFile<E>>,
    index: Rc<TableIndex>,
    frame: Cell<Frame>,
    /// The last block that is longer than a part: its parts are asked for one after the other.
    long_block: RefCell<Option<(BlockHandle, Bytes)>>,
}

/// What is known of all of a table but its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Unchecked,
    Checking,
    Whole,
}

impl<E: Env> Lending<E> {
    pub(crate) fn new(file: Rc<TableFile<E>>, index: Rc<TableIndex>) -> Self {
        assert_eq!(file.salt(), index.salt(), "{} is lent with another's index", file.path().display());
        Self { file, index, frame: Cell::new(Frame::Unchecked), long_block: RefCell::default() }
    }

    /// Its file.
    pub(crate) fn file(&self) -> &Rc<TableFile<E>> {
        &self.file
    }

    /// A part from a page on: as many whole blocks as fit so many bytes, or so much of one that does not, or
    /// of what follows them; nothing at the end. `None`: it is being found out for another asker whether it
    /// is whole.
    ///
    /// # Errors
    /// It is damaged, or the disk failed twice to read it.
    pub(crate) async fn part(
        &self,
        env: &E,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, TableReadError> {
        match self.frame.get() {
            Frame::Whole => {}
            Frame::Checking => return Ok(None),
            Frame::Unchecked => self.check_frame(env).await?,
        }
        let footer = self.index.footer();
        let part = if offset >= footer.sessions.offset {
            let left = usize::try_from(footer.file_length.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.read(env, offset, left.min(bytes_max)).await?
        } else {
            self.blocks(env, offset, bytes_max).await?
        };
        Ok(Some(part))
    }

    async fn check_frame(&self, env: &E) -> Result<(), TableReadError> {
        self.frame.set(Frame::Checking);
        let checked =
            check_frame(&self.file, &self.index, async |offset, len| self.read(env, offset, len).await);
        let checked = checked.await;
        self.frame.set(if checked.is_ok() { Frame::Whole } else { Frame::Unchecked });
        checked
    }

    /// The header, where the part begins with it, and blocks.
    async fn blocks(&self, env: &E, offset: u64, bytes_max: usize) -> Result<Bytes, TableReadError> {
        if let Some(part) = self.part_of_kept(offset, bytes_max) {
            return Ok(part);
        }
        let handles = self.whole_blocks(offset, bytes_max as u64);
        let first = handles.first().map_or(PAGE, |first| first.offset);
        let end = handles.last().map_or(PAGE, |last| last.offset + u64::from(last.length));
        if offset >= end {
            return self.part_of_long_block(env, offset, bytes_max).await;
        }
        let start = if offset < PAGE { 0 } else { first };
        let bytes = self.read(env, start, length(end - start)).await?;
        if offset < PAGE {
            self.file.check_header(&self.index, &bytes.slice(..PAGE_BYTES))?;
        }
        for handle in handles {
            let at = length(handle.offset - start);
            self.check_block(handle, bytes.slice(at..at + handle.length as usize))?;
        }
        Ok(bytes.slice(length(offset - start)..))
    }

    /// The blocks that end within so many bytes of an offset, the first of which may begin before it.
    fn whole_blocks(&self, offset: u64, bytes_max: u64) -> Vec<BlockHandle> {
        let first = self.index.block_at(offset).unwrap_or(0);
        let handles = (first..self.index.blocks()).map(|block| self.index.handle(block));
        handles.take_while(|handle| handle.offset + u64::from(handle.length) - offset <= bytes_max).collect()
    }

    /// So much of the block that does not fit a part. It is kept: the next part is of the same.
    async fn part_of_long_block(
        &self,
        env: &E,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Bytes, TableReadError> {
        let handle = self.index.handle(self.index.block_at(offset).expect("the sessions are behind blocks"));
        let bytes = self.read(env, handle.offset, handle.length as usize).await?;
        self.check_block(handle, bytes.clone())?;
        *self.long_block.borrow_mut() = Some((handle, bytes));
        Ok(self.part_of_kept(offset, bytes_max).expect("the block that is there was just kept"))
    }

    fn part_of_kept(&self, offset: u64, bytes_max: usize) -> Option<Bytes> {
        let mut kept = self.long_block.borrow_mut();
        let is_there = |handle: &BlockHandle| {
            (handle.offset..handle.offset + u64::from(handle.length)).contains(&offset)
        };
        *kept = kept.take().filter(|(handle, _)| is_there(handle));
        let (handle, bytes) = kept.as_ref()?;
        let at = length(offset - handle.offset);
        Some(bytes.slice(at..bytes.len().min(at + bytes_max)))
    }

    fn check_block(&self, handle: BlockHandle, bytes: Bytes) -> Result<(), TableReadError> {
        Block::decode(handle, bytes).map(drop).map_err(|source| self.file.damaged(source))
    }

    async fn read(&self, env: &E, offset: u64, len: usize) -> Result<Bytes, TableReadError> {
        read_twice(env, async || self.file.part(offset, len).await).await.0
    }
}

/// The length of something that lies within a part or a block.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a part, or one block")
}
