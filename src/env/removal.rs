//! Removing files without having the disk stand still.
//!
//! A file system that is mounted with `discard` tells the disk at once which blocks a removed file leaves,
//! and many disks do nothing else meanwhile: the 256 MiB of one log segment had every write of three nodes
//! wait for 15 to 35 ms, some times in a row. So a large file loses its name at once and its blocks a piece
//! at a time, by a thread of its own. (RocksDB deletes in chunks for the same reason:
//! `bytes_max_delete_chunk`.)
//!
//! Where room is short that costs more than it gives: whoever makes a file, finds no room for it, removes
//! what there is of it and tries again would take, each time, the little that was given back since, and wait
//! for room that it has itself. So there all goes at once.
//!
//! Invariants:
//! - A file that has another name, or that somebody else has open, keeps its blocks: it is cut when the last
//!   of them is gone, or not at all. One that is waited for holds up no other.
//! - At most [`FILES_MAX`] files of [`BYTES_MAX`] bytes wait; what is beyond, and what a process leaves that
//!   ends, goes at once.
//! - Nothing waits while less than [`FREE_MIN`] is free.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::BLOCK_BYTES;
use super::os::disk;

/// What is let go of at once: a disk was seen to take 0.3 ms for the first of these, and 1 ms for the other.
const PIECE_BYTES_MIN: u64 = 1 << 20;
const PIECE_BYTES_MAX: u64 = 4 << 20;
/// In how many pieces a file goes that is not larger than they are: a segment of 256 MiB in two thirds of a
/// second.
const PIECES: u64 = 64;
/// How long the disk rests between two pieces.
const REST: Duration = Duration::from_millis(10);
/// How often it is looked at whether others still have a file open, and how often at most. The first time is
/// after as long, so that who has found its name has opened it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS_MAX: u32 = 100;
/// The most files that wait to be cut, and the most bytes: each counts for its part of these at least.
const FILES_MAX: u64 = 64;
const BYTES_MAX: u64 = 1 << 30;
/// With less room than this all goes at once: four times what may wait.
const FREE_MIN: u64 = 4 * BYTES_MAX;

/// The bytes of files that wait.
static BYTES_WAITING: AtomicU64 = AtomicU64::new(0);

/// A file without a name that is to be cut.
struct Waiting {
    file: File,
    /// What it counts for.
    bytes: u64,
    /// When it is looked at next.
    due: Instant,
    looks: u32,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        BYTES_WAITING.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Waiting {
    /// A file that has lost its name; `None`: it is to be gone at once.
    fn new(file: File, free_min: u64) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let free = disk::free_bytes_beside(&file).ok()?;
        if metadata.nlink() > 0 || metadata.len() <= PIECE_BYTES_MIN || free < free_min {
            return None;
        }
        let bytes = metadata.len().max(BYTES_MAX / FILES_MAX);
        let has_room = |waiting: u64| waiting.checked_add(bytes).filter(|sum| *sum <= BYTES_MAX);
        BYTES_WAITING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).ok()?;
        Some(Self { file, bytes, due: Instant::now() + LOOK_EVERY, looks: 0 })
    }
}

/// Removes a file. Its name is gone afterwards; its blocks will be.
///
/// # Errors
///
/// Those of the system's own removal.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path);
    std::fs::remove_file(path)?;
    if let Ok(file) = file
        && let Some(waiting) = Waiting::new(file, FREE_MIN)
        && let Some(cutter) = cutter()
    {
        // Where nobody takes it, it is closed here, and gone.
        let _ = cutter.send(waiting);
    }
    Ok(())
}

/// Whoever cuts files; `None`: there is no thread for it.
fn cutter() -> Option<&'static Sender<Waiting>> {
    static CUTTER: OnceLock<Option<Sender<Waiting>>> = OnceLock::new();
    let start = || {
        let (sender, files) = channel();
        let cutting = thread::Builder::new().name("removal".into()).spawn(move || cut_all(&files));
        cutting.ok().map(|_| sender)
    };
    CUTTER.get_or_init(start).as_ref()
}

fn cut_all(files: &Receiver<Waiting>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        let next = waiting.iter().map(|file| file.due).min();
        let came = match next {
            None => files.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => files.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match came {
            Ok(file) => waiting.push(file),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain_mut(|file| file.due > Instant::now() || stays(file));
    }
}

/// Looks at a file that is due, and cuts it where nobody else has it. Whether it is to be looked at again;
/// else it is closed, and gone with whoever has it.
fn stays(waiting: &mut Waiting) -> bool {
    match disk::is_open_here_alone(&waiting.file) {
        Ok(false) if waiting.looks < LOOKS_MAX => {
            waiting.looks += 1;
            waiting.due = Instant::now() + LOOK_EVERY;
            true
        }
        Ok(true) => {
            let _ = cut(&waiting.file, FREE_MIN);
            false
        }
        Ok(false) | Err(_) => false,
    }
}

/// Cuts a file that nobody else has, from its end, as long as there is room.
fn cut(file: &File, free_min: u64) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    let piece = (left / PIECES).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX).next_multiple_of(BLOCK_BYTES as u64);
    while left > piece && disk::free_bytes_beside(file)? >= free_min {
        // No block is cut in two: what is left of it would be written over.
        left = (left - piece).next_multiple_of(BLOCK_BYTES as u64);
        file.set_len(left)?;
        thread::sleep(REST);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Instant;

    use super::*;

    fn made(path: &Path) -> File {
        let mut file = File::create(path).expect("a file is made");
        file.write_all(&vec![7; 3 * PIECE_BYTES_MIN as usize]).expect("it is written");
        file
    }

    fn len(file: &File) -> u64 {
        file.metadata().expect("it is open").len()
    }

    #[test]
    fn a_file_is_cut_when_nobody_else_has_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("removed");
        drop(made(&path));
        let file = File::options().write(true).open(&path).expect("it is there");
        std::fs::remove_file(&path).expect("it is there");
        cut(&file, u64::MAX).expect("nobody else has it");
        assert_eq!(len(&file), 3 * PIECE_BYTES_MIN, "no room is short of what is free here");
        cut(&file, 0).expect("nobody else has it");
        assert_eq!(len(&file), PIECE_BYTES_MIN);
    }

    #[test]
    fn what_somebody_reads_stays_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("read");
        drop(made(&path));
        let reader = File::open(&path).expect("it is there");
        let file = File::options().write(true).open(&path).expect("it is there");
        assert!(!disk::is_open_here_alone(&file).expect("the file system has leases"));
        drop(reader);
        assert!(disk::is_open_here_alone(&file).expect("the file system has leases"));
        let began = Instant::now();
        let reader = File::open(&path).expect("nobody is kept from opening it");
        assert!(began.elapsed() < Duration::from_secs(1));
        remove(&path).expect("it is there");
        assert!(!path.exists());
        thread::sleep(3 * LOOK_EVERY);
        assert_eq!(len(&reader), 3 * PIECE_BYTES_MIN);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_by_room() {
        let file = |bytes| {
            let file = tempfile::tempfile().expect("a file without a name");
            file.set_len(bytes).expect("a hole");
            file
        };
        assert!(Waiting::new(file(PIECE_BYTES_MIN), 0).is_none(), "it goes in one piece");
        assert!(Waiting::new(file(2 * PIECE_BYTES_MIN), u64::MAX).is_none(), "room is short");
        assert!(Waiting::new(file(BYTES_MAX + 1), 0).is_none(), "it is more than may wait");
        // Other tests remove files meanwhile, of a few megabytes.
        let half = Waiting::new(file(BYTES_MAX / 2), 0).expect("so much may wait");
        assert!(Waiting::new(file(BYTES_MAX / 2 + 1), 0).is_none());
        drop(half);
        assert!(Waiting::new(file(BYTES_MAX / 2 + 1), 0).is_some());
    }

    #[test]
    fn a_file_that_somebody_reads_holds_up_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let waiting = |name: &str| {
            let path = dir.path().join(name);
            drop(made(&path));
            let reader = File::open(&path).expect("it is there");
            let file = File::options().write(true).open(&path).expect("it is there");
            std::fs::remove_file(&path).expect("it is there");
            (reader, Waiting::new(file, 0).expect("there is room"))
        };
        let (sender, files) = channel();
        let ((reader, first), (other, second)) = (waiting("read"), waiting("other"));
        drop(other);
        [first, second].into_iter().for_each(|file| sender.send(file).expect("it is not running yet"));
        let cutting = thread::spawn(move || cut_all(&files));
        let is_open = |name: &str| {
            let name = format!("/{name} (deleted)");
            let open = std::fs::read_dir("/proc/self/fd").expect("this is Linux").flatten();
            let names = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
            names.filter(|path| path.to_string_lossy().ends_with(&name)).count()
        };
        let began = Instant::now();
        while is_open("other") > 0 {
            assert!(began.elapsed() < 20 * LOOK_EVERY, "it waits for a file that is read");
            thread::sleep(REST);
        }
        assert_eq!((is_open("read"), len(&reader)), (2, 3 * PIECE_BYTES_MIN));
        drop((reader, sender));
        cutting.join().expect("it ends with whoever sends");
    }

    #[test]
    fn what_has_another_name_stays_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("one"), dir.path().join("other"));
        drop(made(&path));
        std::fs::hard_link(&path, &other).expect("a second name");
        remove(&path).expect("it is there");
        thread::sleep(2 * LOOK_EVERY);
        assert_eq!(std::fs::metadata(&other).expect("it is there").len(), 3 * PIECE_BYTES_MIN);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = remove(&dir.path().join("none")).expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
