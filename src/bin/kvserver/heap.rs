//! What a node does about its memory at its start: see [`os_heap`].

use std::thread;

use distribkv::config::Settings;
use distribkv::tune::memory_bytes_max;

use crate::os_heap;
use crate::tune::{executors, gather};

/// Of the memory that the process may use, the part that is left alone: for other processes, the page cache,
/// and what the node comes to need of other kinds. Nodes that share memory see what the others have taken.
const LEFT_PART: u64 = 4;

/// Whether the node may come to need no more than seven tenths of what it may use, as `kvserver tune --write`
/// has it. What is kept and ready is a tenth more than a node needs; where memory is scarce that tenth may be
/// what the kernel ends the process for.
fn is_ample(settings: &Settings) -> bool {
    let needed = executors(settings).map(|cores| memory_bytes_max(settings, cores));
    needed.is_ok_and(|needed| needed <= gather::memory_now().limit() / 10 * 7)
}

/// Has freed memory stay with the process, where there is enough. To be called before there is a second
/// thread.
pub fn keep(settings: &Settings) {
    if is_ample(settings) {
        os_heap::keep();
    }
}

/// Has memory be ready soon, where there is enough: in the background, so that no start waits for it.
pub fn make_ready(settings: &Settings) {
    let bytes = settings.node.heap_ready_bytes;
    if bytes == 0 || !is_ample(settings) {
        return;
    }
    let making = move || {
        let has_room = || {
            let memory = gather::memory_now();
            memory.available > memory.limit() / LEFT_PART
        };
        match os_heap::make_ready(bytes, has_room) {
            Ok(ready) if ready == bytes => tracing::debug!(bytes, "memory is ready"),
            Ok(ready) => tracing::info!(ready, wanted = bytes, "less memory is made ready ahead than wanted"),
            Err(error) => tracing::info!(%error, wanted = bytes, "no memory is made ready ahead"),
        }
    };
    // Where no thread can be had the start itself will say so.
    drop(thread::Builder::new().name("heap-ready".into()).spawn(making));
}
