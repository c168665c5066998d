//! The memory that the allocator of `kvserver` deals in: what is freed stays, and some is ready ahead.
//!
//! The kernel clears a page when it is touched first, here 2 MiB of it at once where pages are huge, and in a
//! virtual machine the host may have to find it first. Meanwhile the executor stands still with all its
//! shards: with three nodes on two cores at 68,000 puts a second, of the moments in which one went on for
//! more than 4 ms without a look at its disk, 59 % of the time went into clearing pages, and 82 % once freed
//! memory stayed (`perf record`, over the times between `sched_switch` events). mimalloc gives back what is
//! unused for a second; a shard frees its changes with each table, and would fault them in anew.
//!
//! [`keep`] and 512 MiB of [`make_ready`] made p99.9 of puts at that rate 12 ms of 19 (medians of twelve runs
//! of 10 s in fresh clusters, in turn), and the greatest rate 1.13 of that without, with half its p99.
//! TigerBeetle and Seastar take all their memory at the start.
//!
//! It belongs to the program whose allocator it is about, and not to the library.

#![allow(unsafe_code, reason = "it speaks to the allocator and to the kernel about its pages")]

use std::io;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay` of mimalloc.h: after how many milliseconds unused memory is given back.
const PURGE_DELAY: mi_option_t = 15;

/// How much is made ready at once: a huge page. Whoever maps or unmaps memory waits for so much, and where
/// other processes take the CPUs, for as long as they keep this thread from its own.
const STEP_BYTES: usize = 2 << 20;

/// How much is made ready between two looks at what is left.
const LOOK_BYTES: usize = 32 << 20;

/// How low the thread that makes memory ready ranks.
const NICE: i32 = 19;

/// Has memory that is freed stay with the process, for whatever is allocated next, unless the environment
/// says otherwise (`MIMALLOC_PURGE_DELAY`). To be called before there is a second thread.
///
/// What the process takes does not shrink again then. mimalloc keeps apart what it holds small, middling and
/// large things in: a load of one kind after one of another may take as much as both.
pub fn keep() {
    // SAFETY: this option takes any number, and below zero means never. Nobody reads it at the same time,
    // since there is no other thread.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}

/// Has the kernel back so many bytes of the heap with pages, as far as the area goes in which the heap lies
/// (mimalloc reserves a GiB at first) and as long as `has_room` says so. How many bytes were, those that were
/// before included. What is in them stays as it is.
///
/// It takes a third of a second or so for a GiB, and lowers the rank of the calling thread for good: it is to
/// be a thread of its own.
///
/// # Errors
///
/// What the kernel says: `EINVAL` before Linux 5.14. Where memory is short it may have to end a process
/// instead, as for any page: `has_room` is to see to it that it is not.
pub fn make_ready(bytes: u64, has_room: impl Fn() -> bool) -> io::Result<u64> {
    let here = Box::new(0_u8);
    let heap = &raw const *here as usize;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let end = end_of_area(&maps, heap).ok_or(io::ErrorKind::NotFound)?;
    let begin = heap.next_multiple_of(STEP_BYTES);
    let end = end.min(begin.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX)));
    // SAFETY: three numbers; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut at = begin;
    while at < end {
        if (at - begin).is_multiple_of(LOOK_BYTES) && !has_room() {
            break;
        }
        let length = STEP_BYTES.min(end - at);
        // SAFETY: whatever is mapped there, the kernel backs it with pages as a write of what is in it would,
        // and changes none of it; where nothing is, or nothing that may be written to, it says so.
        let done = unsafe { libc::madvise(at as *mut libc::c_void, length, libc::MADV_POPULATE_WRITE) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        at += length;
    }
    Ok(at.saturating_sub(begin) as u64)
}

/// Where the area of an address ends, in the kernel's list of areas (proc_pid_maps(5)).
fn end_of_area(maps: &str, address: usize) -> Option<usize> {
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let mut areas = maps.lines().filter_map(|line| {
        let (begin, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(number(begin)?..number(end)?)
    });
    areas.find(|area| area.contains(&address)).map(|area| area.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: an option of any number may be asked for.
        let asked = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        let is_said = std::env::var_os("MIMALLOC_PURGE_DELAY").is_some();
        let before = asked();
        assert!(is_said || before == 1000, "{before}: mimalloc's own value of it, and of none beside it");
        keep();
        assert_eq!(asked(), if is_said { before } else { -1 });
    }

    #[test]
    fn the_area_of_an_address_is_found() {
        let maps = "00400000-0040b000 r-xp 00000000 fe:00 42  /bin/cat\n\
                    7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n";
        assert_eq!(end_of_area(maps, 0x7f00_0000_0000), Some(0x7f00_4000_0000));
        assert_eq!(end_of_area(maps, 0x7f00_4000_0000), None, "it is behind the end");
        assert_eq!(end_of_area("not of this kind", 0), None);
    }

    #[test]
    fn what_is_ready_is_resident() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has it");
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
            kib << 10
        };
        let (wanted, before) = (64 << 20, resident());
        let ready =
            std::thread::spawn(move || make_ready(wanted, || true)).join().expect("it does not panic");
        assert_eq!(ready.expect("the kernel is new enough"), wanted);
        assert_eq!(make_ready(wanted, || false).expect("it does nothing"), 0, "there is no room");
        let grown = resident().saturating_sub(before);
        assert!(grown >= wanted / 2, "{grown} bytes more are resident");
    }
}
