//! The blocks of tables that a core keeps in memory, checked when they came in; and what one request holds on
//! to until it is served.
//!
//! Which block goes when there is no more room is decided by the clock algorithm: a block that was used since
//! the hand last passed is passed once more. It costs a flag a use, and one scan does not empty the cache of
//! what is read again and again.
//!
//! A table that takes the place of another would begin without a block in memory, and every change to a key
//! of it would wait for the disk: see `warm`, which brings blocks in while the table is made.
//!
//! Invariants:
//! - The blocks kept count at most `bytes_max` bytes, or are one block.
//! - Every block in it was checked when it came in.
//!
//! One for each core, shared by the replicas of the core. It deliberately does not read files.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::kv::BlockSource;
use crate::kv::table::{Block, BlockHandle};

/// The blocks that a core keeps.
pub(crate) struct BlockCache {
    blocks: BTreeMap<BlockHandle, Kept>,
    /// Every block once, in the order in which the hand passes them; and some that are gone.
    order: VecDeque<BlockHandle>,
    bytes: usize,
    bytes_max: usize,
}

struct Kept {
    block: Block,
    was_used: bool,
}

/// A cache that replicas share.
pub(crate) type SharedCache = Rc<RefCell<BlockCache>>;

impl BlockCache {
    pub(crate) fn new(bytes_max: usize) -> SharedCache {
        let (blocks, order) = (BTreeMap::new(), VecDeque::new());
        Rc::new(RefCell::new(Self { blocks, order, bytes: 0, bytes_max }))
    }

    /// Keeps a block, and lets go of others where there is no room.
    pub(crate) fn insert(&mut self, block: Block) {
        self.keep(block, false);
    }

    /// Keeps a block of a table that is not read yet: it is passed once before it has to go.
    pub(crate) fn insert_ahead(&mut self, block: Block) {
        self.keep(block, true);
    }

    fn keep(&mut self, block: Block, was_used: bool) {
        let (handle, bytes) = (block.handle(), block.memory_bytes());
        if self.blocks.insert(handle, Kept { block, was_used }).is_none() {
            self.order.push_back(handle);
            self.bytes += bytes;
        }
        while self.bytes > self.bytes_max && self.order.len() > 1 {
            self.pass();
        }
        let (order, blocks) = (self.order.len(), self.blocks.len());
        assert!(order >= blocks, "of {blocks} blocks only {order} are passed in a round");
    }

    /// Whether nothing has to go for so many bytes more.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.bytes_max
    }

    /// A block, where it is kept. That it was asked for so is no use that keeps it longer.
    pub(crate) fn peek(&self, handle: &BlockHandle) -> Option<Block> {
        self.blocks.get(handle).map(|kept| kept.block.clone())
    }

    /// Lets go of the blocks of a table that is no more.
    pub(crate) fn forget_table(&mut self, salt: u64) {
        while self.forget_some(salt, usize::MAX) {}
    }

    /// Lets go of some blocks of a table that is no more. Whether there are more of them.
    pub(crate) fn forget_some(&mut self, salt: u64, count: usize) -> bool {
        let (first, last) = (
            BlockHandle { table: salt, offset: 0, length: 0 },
            BlockHandle { table: salt, offset: u64::MAX, length: u32::MAX },
        );
        let of_table = self.blocks.range(first..=last).map(|(handle, _)| *handle);
        let gone: Vec<BlockHandle> = of_table.take(count).collect();
        for handle in &gone {
            self.remove(handle);
        }
        let has_more = gone.len() == count;
        if !has_more {
            self.order.retain(|handle| handle.table != salt);
        }
        has_more
    }

    fn get(&mut self, handle: &BlockHandle) -> Option<Block> {
        let kept = self.blocks.get_mut(handle)?;
        kept.was_used = true;
        Some(kept.block.clone())
    }

    /// Passes one block: it goes, or has one more round.
    fn pass(&mut self) {
        let Some(handle) = self.order.pop_front() else { return };
        let was_used = self.blocks.get_mut(&handle).is_some_and(|kept| std::mem::take(&mut kept.was_used));
        if was_used {
            self.order.push_back(handle);
        } else {
            self.remove(&handle);
        }
    }

    fn remove(&mut self, handle: &BlockHandle) {
        if let Some(kept) = self.blocks.remove(handle) {
            let bytes = kept.block.memory_bytes();
            assert!(self.bytes >= bytes, "{bytes} bytes are let go of {}", self.bytes);
            self.bytes -= bytes;
        }
    }
}

/// The blocks that one request waited for: they are at hand until it is served, whatever the cache does.
#[derive(Default)]
pub(crate) struct Pinned(BTreeMap<BlockHandle, Block>);

impl Pinned {
    pub(crate) fn add(&mut self, blocks: &[Block]) {
        self.0.extend(blocks.iter().map(|block| (block.handle(), block.clone())));
    }
}

/// Where a state finds blocks: first what was loaded for this very request, then the cache.
pub(crate) struct AtHand<'a> {
    pub(crate) cache: &'a SharedCache,
    pub(crate) pinned: &'a Pinned,
}

impl BlockSource for AtHand<'_> {
    fn block(&mut self, handle: &BlockHandle) -> Option<Block> {
        self.pinned.0.get(handle).cloned().or_else(|| self.cache.borrow_mut().get(handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Index, ShardId, Term};
    use crate::kv::table::TableIndex;
    use crate::kv::{Command, Config, Limits, Merge, MergeStep, NoBlocks, Previous, Resolved, State, Write};
    use bytes::Bytes;

    /// The blocks of a table of some keys, each with a block of its own.
    fn blocks(salt: u64, count: u64) -> Vec<Block> {
        let mut state = State::new(Config::new(ShardId(0), Limits::DEFAULT));
        for at in 1..=count {
            let (key, value) = (Bytes::from(format!("{at:04}")), Bytes::from(vec![0; 20_000]));
            let write = Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit };
            let command = Command::Write { id: None, write };
            let Resolved::Done(base) = state.resolve(&command, &mut NoBlocks) else { panic!("no table yet") };
            assert!(state.apply(Index(at), &command, &base).is_ok());
        }
        let mut merge = Merge::new(state.freeze(Term(1), Bytes::new()), None, salt);
        let mut file = Vec::new();
        loop {
            match merge.step(1 << 20).expect("memory alone is merged") {
                MergeStep::Done => break,
                MergeStep::Again | MergeStep::Block(_) => {}
                MergeStep::Output => {
                    while let Some(chunk) = merge.take_output() {
                        file.extend(chunk.bytes);
                    }
                }
            }
        }
        let footer = merge.footer().expect("it is done").clone();
        let part = |offset: u64, len: u64| Bytes::copy_from_slice(&file[offset as usize..][..len as usize]);
        let section = |section: &crate::kv::table::Section| part(section.offset, section.padded_length());
        let index = TableIndex::open(footer.clone(), &section(&footer.index), &section(&footer.filter));
        let index = index.expect("it was just made");
        let handles = (0..index.blocks()).map(|at| index.handle(at));
        handles
            .map(|handle| Block::decode(handle, part(handle.offset, u64::from(handle.length))))
            .collect::<Result<_, _>>()
            .expect("it was just made")
    }

    #[test]
    fn what_is_used_stays_and_the_rest_makes_room() {
        let blocks = blocks(7, 8);
        let bytes = blocks[0].memory_bytes();
        let cache = BlockCache::new(4 * bytes + bytes / 2);
        let pinned = Pinned::default();
        for block in &blocks {
            cache.borrow_mut().insert(block.clone());
            let mut at_hand = AtHand { cache: &cache, pinned: &pinned };
            assert!(at_hand.block(&blocks[0].handle()).is_some(), "the first is used again and again");
            assert!(cache.borrow().bytes <= 4 * bytes + bytes / 2, "{} bytes are kept", cache.borrow().bytes);
        }
        assert_eq!(cache.borrow().blocks.len(), 4);
        cache.borrow_mut().forget_table(7);
        assert!(cache.borrow().blocks.is_empty() && cache.borrow().order.is_empty());
        assert_eq!(cache.borrow().bytes, 0);
    }

    #[test]
    fn what_a_request_waited_for_is_at_hand_without_the_cache() {
        let blocks = blocks(9, 2);
        let cache = BlockCache::new(1);
        let mut pinned = Pinned::default();
        pinned.add(&blocks);
        let mut at_hand = AtHand { cache: &cache, pinned: &pinned };
        assert!(blocks.iter().all(|block| at_hand.block(&block.handle()).is_some()));
    }
}
