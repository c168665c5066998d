//! Removing files without having the disk stand still.
//!
//! A file system that is mounted with `discard` tells the disk at once which blocks a removed file leaves,
//! and many disks do nothing else meanwhile: the 256 MiB of one log segment had every write of three nodes
//! wait for 15 to 35 ms, some times in a row. So a large file loses its name at once and its blocks a piece
//! at a time, by a thread of its own. (RocksDB deletes in chunks for the same reason:
//! `bytes_max_delete_chunk`.)
//!
//! Invariants:
//! - A file that has another name, or that somebody else has open, keeps its blocks: it is cut when the last
//!   of them is gone, or not at all.
//! - At most [`FILES_MAX`] files wait; what is beyond, and what a process leaves that ends, goes at once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::os::disk;

/// What is let go of at once, at least: a disk was seen to take 0.3 ms for it.
const PIECE_BYTES_MIN: u64 = 1 << 20;
/// In how many pieces a large file goes: a segment of 256 MiB in two thirds of a second.
const PIECES_MAX: u64 = 64;
/// How long the disk rests between two pieces.
const REST: Duration = Duration::from_millis(10);
/// How often it is looked at whether others still have a file open, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS_MAX: usize = 100;
/// The most files that wait to be cut.
const FILES_MAX: usize = 64;

/// Removes a file. Its name is gone afterwards; its blocks will be.
///
/// # Errors
///
/// Those of the system's own removal.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path);
    std::fs::remove_file(path)?;
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.len() > PIECE_BYTES_MIN && metadata.nlink() == 0)
        && let Some(cutter) = cutter()
    {
        // Where it has no place, it is closed here, and gone.
        let _ = cutter.try_send(file);
    }
    Ok(())
}

/// Whoever cuts files; `None`: there is no thread for it.
fn cutter() -> Option<&'static SyncSender<File>> {
    static CUTTER: OnceLock<Option<SyncSender<File>>> = OnceLock::new();
    let start = || {
        let (sender, files) = sync_channel(FILES_MAX);
        let cutting = thread::Builder::new().name("removal".into()).spawn(move || cut_all(files));
        cutting.ok().map(|_| sender)
    };
    CUTTER.get_or_init(start).as_ref()
}

fn cut_all(files: Receiver<File>) {
    for file in files {
        // One that cannot be cut is closed, and gone with whoever else has it.
        let _ = cut(&file);
    }
}

/// Cuts a file that has no name, from its end.
fn cut(file: &File) -> io::Result<()> {
    for _ in 0..LOOKS_MAX {
        if disk::is_open_here_alone(file)? {
            break;
        }
        thread::sleep(LOOK_EVERY);
    }
    if !disk::is_open_here_alone(file)? {
        return Ok(());
    }
    let mut left = file.metadata()?.len();
    let piece = PIECE_BYTES_MIN.max(left / PIECES_MAX);
    while left > piece {
        left -= piece;
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
        cut(&file).expect("nobody else has it");
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
