//! Tables without a disk: a file in memory, merged, opened and read as a shard's driver does it with files.
//!
//! Blocks are brought in one question at a time and forgotten after it, so that every path through loading is
//! taken.

use bytes::Bytes;
use distribkv::kv::table::{Block, BlockHandle, Footer, TableError, TableIndex};
use distribkv::kv::{
    Base, BlockSource, Command, Config, Merge, MergeError, MergeStep, Query, Resolved, ScanRun, State,
};

/// What a step of a merge may pass, in bytes: little, so that merges take many.
const STEP_BYTES: usize = 1000;

/// A table's file.
#[derive(Clone)]
pub struct File(Bytes);

/// The blocks that are at hand.
#[derive(Default)]
struct AtHand(Vec<Block>);

impl BlockSource for AtHand {
    fn block(&mut self, handle: &BlockHandle) -> Option<Block> {
        self.0.iter().find(|block| block.handle() == *handle).cloned()
    }
}

impl File {
    /// Makes the next table of a frozen state and puts it in its place.
    pub fn merge(state: &mut State, before: Option<&Self>, salt: u64) -> Result<Self, MergeError> {
        let frozen = state.frozen().expect("the script has frozen the state").clone();
        let mut merge = Merge::new(frozen, state.table().cloned(), salt);
        let mut file = Vec::new();
        loop {
            match merge.step(STEP_BYTES)? {
                MergeStep::Again => {}
                MergeStep::Block(handle) => {
                    merge.feed(before.expect("only a table has blocks").block(handle));
                }
                MergeStep::Output => {
                    while let Some(chunk) = merge.take_output() {
                        assert_eq!(chunk.offset, file.len() as u64);
                        file.extend_from_slice(chunk.bytes);
                    }
                }
                MergeStep::Done => break,
            }
        }
        drop(merge);
        let file = Self(file.into());
        let mut retired = state.install_table(file.index().expect("it was just written"));
        while retired.drop_some(10) {}
        Ok(file)
    }

    /// The state that it holds.
    pub fn state(&self, config: Config) -> Result<State, TableError> {
        let index = self.index()?;
        let sessions = index.footer().sessions;
        State::from_table(config, index, &self.part(sessions.offset, sessions.padded_length()))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    fn index(&self) -> Result<TableIndex, TableError> {
        let length = self.0.len() as u64;
        let footer = Footer::decode(&self.part(Footer::offset(length), 4096), length)?;
        let [index, filter] =
            [footer.index, footer.filter].map(|section| self.part(section.offset, section.padded_length()));
        TableIndex::open(footer, &index, &filter)
    }

    fn block(&self, handle: BlockHandle) -> Block {
        let bytes = self.part(handle.offset, u64::from(handle.length));
        Block::decode(handle, bytes).expect("it was just written")
    }

    fn part(&self, offset: u64, length: u64) -> Bytes {
        self.0.slice(offset as usize..(offset + length) as usize)
    }
}

/// What a command needs of the table.
pub fn base_of(state: &State, file: Option<&File>, command: &Command) -> Base {
    settle(file, |source| state.resolve(command, source))
}

/// What a query needs of the table.
pub fn base_of_query(state: &State, file: Option<&File>, query: &Query) -> Base {
    let mut run = ScanRun::default();
    settle(file, |source| state.resolve_query(query, &mut run, source))
}

fn settle(file: Option<&File>, mut ask: impl FnMut(&mut AtHand) -> Resolved) -> Base {
    let mut source = AtHand::default();
    loop {
        match ask(&mut source) {
            Resolved::Done(base) => return base,
            Resolved::Missing(handles) => {
                let file = file.expect("only a table has blocks");
                assert!(!handles.is_empty(), "nothing is missing, and the question is not answered");
                source.0 = handles.into_iter().map(|handle| file.block(handle)).collect();
            }
        }
    }
}
