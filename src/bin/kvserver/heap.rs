//! What a node does about its memory at its start: see [`os_heap`].

use std::thread;

use crate::os_heap;
use crate::tune::gather;

/// Of the memory that the process may use, the part that is left alone: for other processes, the page cache,
/// and what the node comes to need of other kinds. Nodes that share memory see what the others have taken.
const LEFT_PART: u64 = 4;

/// Has so many bytes of memory be ready soon: in the background, so that no start waits for it.
pub fn make_ready(bytes: u64) {
    if bytes == 0 {
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
