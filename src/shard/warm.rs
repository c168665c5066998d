//! What of a table is in the cache on the day that it is installed.
//!
//! ```text
//!   merge ─► chunk of finished blocks ─► written to the file
//!                  └─► those that are worth it: copied, checked, kept under the new table's salt
//!   installed ─► the old table's blocks are let go of, some at a time
//! ```
//!
//! A change to a key that only the table knows reads the key's block: its version goes on, and its bytes and
//! digest leave the state's sums. So a table that is installed without a block in memory has every change
//! wait for the disk, all at once, just when the memtable that knew the keys is gone.
//!
//! A new block is worth keeping where one of the blocks that its keys were in is kept: it takes over from
//! that one, and others make room for it if they have to. All else is kept where there is room for it anyway.
//!
//! Invariants:
//! - Of a table that is not installed yet, nothing is read from the cache.
//! - The cache's limit holds while a table is made too: what comes in counts from then on.
//! - A block is checked before it is kept, as one that was read is.
//!
//! It lives on the core of its shard, and reads no files.

use std::rc::Rc;

use bytes::Bytes;

use crate::kv::table::{Block, BlockHandle, Chunk, TableIndex};
use crate::shard::cache::SharedCache;

/// The bringing in of one table's blocks.
pub(crate) struct Warming {
    cache: SharedCache,
    below: Option<Rc<TableIndex>>,
}

impl Warming {
    /// For a table that is made of one, where there is one.
    pub(crate) fn new(cache: SharedCache, below: Option<Rc<TableIndex>>) -> Self {
        Self { cache, below }
    }

    /// A block of the table below, where it is in memory.
    pub(crate) fn at_hand(&self, handle: &BlockHandle) -> Option<Block> {
        self.cache.borrow().peek(handle)
    }

    /// Keeps those of a chunk's blocks that are worth it.
    pub(crate) fn take(&self, chunk: &Chunk<'_>) {
        for handle in chunk.blocks {
            let bytes = Bytes::copy_from_slice(chunk.block_bytes(handle));
            // One that does not verify is not kept: whoever reads it from the file has the say about it.
            let Ok(block) = Block::decode(*handle, bytes) else { continue };
            let mut cache = self.cache.borrow_mut();
            if cache.has_room(block.memory_bytes())
                || self.takes_over(&block, |old| cache.peek(old).is_some())
            {
                cache.insert_ahead(block);
            }
        }
    }

    /// Whether one of the blocks that a block's keys were in, or lay between, is kept.
    fn takes_over(&self, block: &Block, is_kept: impl Fn(&BlockHandle) -> bool) -> bool {
        let Some(below) = &self.below else { return false };
        let (first, last) = (block.entry(0).key, block.entry(block.len() - 1).key);
        match (below.block_for(first), below.block_for(last)) {
            (Some(first), Some(last)) => (first..=last).any(|at| is_kept(&below.handle(at))),
            (None, _) | (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Index, ShardId, Term};
    use crate::kv::table::Section;
    use crate::kv::{Command, Config, Limits, Merge, MergeStep, NoBlocks, Previous, Resolved, State, Write};
    use crate::shard::cache::BlockCache;

    const KEYS: u64 = 16;

    /// A state of some keys, each of which fills a block.
    fn state() -> State {
        let mut state = State::new(Config::new(ShardId(0), Limits::DEFAULT));
        for at in 1..=KEYS {
            let (key, value) = (Bytes::from(format!("{at:04}")), Bytes::from(vec![0; 16_000]));
            let write = Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit };
            let command = Command::Write { id: None, write };
            let Resolved::Done(base) = state.resolve(&command, &mut NoBlocks) else { panic!("no table yet") };
            assert!(state.apply(Index(at), &command, &base).is_ok());
        }
        state
    }

    /// A table of what was frozen; its index and blocks.
    fn table(state: &mut State, salt: u64, warming: &Warming) -> (Rc<TableIndex>, Vec<Block>) {
        let mut merge = Merge::new(state.freeze(Term(1), Bytes::new()), None, salt);
        let (mut file, mut blocks) = (Vec::new(), Vec::new());
        loop {
            match merge.step(1 << 20).expect("memory alone is merged") {
                MergeStep::Done => break,
                MergeStep::Again | MergeStep::Block(_) => {}
                MergeStep::Output => {
                    while let Some(chunk) = merge.take_output() {
                        warming.take(&chunk);
                        let block = |handle: &BlockHandle| {
                            Block::decode(*handle, Bytes::copy_from_slice(chunk.block_bytes(handle)))
                        };
                        blocks.extend(chunk.blocks.iter().map(|handle| block(handle).expect("just made")));
                        file.extend_from_slice(chunk.bytes);
                    }
                }
            }
        }
        let footer = merge.footer().expect("it is done").clone();
        let section = |section: &Section| {
            Bytes::copy_from_slice(&file[section.offset as usize..][..section.padded_length() as usize])
        };
        let (index, filter) = (section(&footer.index), section(&footer.filter));
        (Rc::new(TableIndex::open(footer, &index, &filter).expect("just made")), blocks)
    }

    fn kept(cache: &SharedCache, blocks: &[Block]) -> Vec<usize> {
        let cache = cache.borrow();
        (0..blocks.len()).filter(|at| cache.peek(&blocks[*at].handle()).is_some()).collect()
    }

    #[test]
    fn where_there_is_room_all_is_kept() {
        let cache = BlockCache::new(1 << 30);
        let (_, blocks) = table(&mut state(), 1, &Warming::new(Rc::clone(&cache), None));
        assert_eq!(kept(&cache, &blocks).len() as u64, KEYS);
    }

    #[test]
    fn where_there_is_none_a_block_takes_over_from_one_that_is_kept() {
        let nowhere = Warming::new(BlockCache::new(0), None);
        let (below, old) = table(&mut state(), 1, &nowhere);
        let bytes = old[0].memory_bytes();
        let cache = BlockCache::new(4 * bytes + bytes / 2);
        for at in [3, 5, 6, 11] {
            cache.borrow_mut().insert(old[at].clone());
        }
        let warming = Warming::new(Rc::clone(&cache), Some(below));
        let (_, new) = table(&mut state(), 2, &warming);
        let now = kept(&cache, &new);
        assert!(now.iter().all(|at| [3, 5, 6, 11].contains(at)), "{now:?} are kept");
        assert!(now.len() >= 2, "{now:?} are kept");
    }
}
