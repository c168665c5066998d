//! Blocks read from a table's file, many at once.
//!
//! A request, or the entries that are applied next, may need tens of blocks: read one after the other they
//! would cost the disk's latency each. What is asked for at once is bounded by whoever asks
//! (`LOOK_AHEAD_BLOCKS_MAX`, `RUN_AHEAD_MAX`, the keys of one transaction); what is on its way at once, here.
//!
//! Invariant: the blocks come back in the order of their handles, all of them, or the first failure does.

use std::rc::Rc;

use crate::env::Env;
use crate::env::signal::{AnswerReceiver, answer};
use crate::kv::table::{Block, BlockHandle};
use crate::shard::table::{TableFile, TableReadError};

/// How many reads of one request are on their way at a time.
const READS_MAX: usize = 32;

/// Reads blocks of one table.
pub(crate) async fn read_all<E: Env>(
    env: &E,
    file: &Rc<TableFile<E>>,
    handles: &[BlockHandle],
) -> Result<Vec<Block>, TableReadError> {
    if let [handle] = handles {
        return Ok(vec![file.block(*handle).await?]);
    }
    let mut blocks = Vec::with_capacity(handles.len());
    for some in handles.chunks(READS_MAX) {
        let reading: Vec<_> = some.iter().map(|handle| start(env, file, *handle)).collect();
        for read in reading {
            blocks.push(read.await.expect("a task that reads says what came of it")?);
        }
    }
    Ok(blocks)
}

/// Begins to read a block in a task of its own.
fn start<E: Env>(
    env: &E,
    file: &Rc<TableFile<E>>,
    handle: BlockHandle,
) -> AnswerReceiver<Result<Block, TableReadError>> {
    let (sender, receiver) = answer();
    let file = Rc::clone(file);
    env.spawn(async move { sender.send(file.block(handle).await) });
    receiver
}
