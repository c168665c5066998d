//! What a node does about its memory at its start: see [`os_heap`].

use std::thread;

use crate::os_heap;
use crate::tune::gather;

/// Of the memory that is available, the part that may be made ready, whatever the setting: the rest is other
/// processes', the page cache's, and what the node comes to need of other kinds.
const AVAILABLE_PART: u64 = 4;

/// Has freed memory stay with the process, and so many bytes be ready soon: in the background, so that no
/// start waits for it.
pub fn make_ready(bytes: u64) {
    os_heap::keep();
    if bytes == 0 {
        return;
    }
    let making = move || {
        let wanted = bytes.min(gather::memory_available() / AVAILABLE_PART);
        match os_heap::make_ready(wanted) {
            Ok(bytes) => tracing::debug!(bytes, "memory is ready"),
            Err(error) => tracing::info!(%error, bytes = wanted, "no memory is made ready ahead"),
        }
    };
    // Where no thread can be had the start itself will say so.
    drop(thread::Builder::new().name("heap-ready".into()).spawn(making));
}
