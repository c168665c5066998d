//! A small disk for nodes, which may be filled to the last block, and whose power may fail.
//!
//! It is an ext4 on a loop device over a sparse file. `EXT4_IOC_SHUTDOWN` lets the file system forget, at one
//! moment, all that was not synced, and refuse everything from then on: what a power cut leaves on the device
//! is what the next mount finds.
//!
//! Invariants:
//! - What was mounted is unmounted and detached with the value that holds it, panic or not. It is to outlive
//!   the processes that use it.
//! - Where it cannot be had, why is said: without root, or where the kernel has no loop devices.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::disk::{make_file_system, mount, run, unmount};
use super::new_dir;

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`, called by perl, since a test has no unsafe code.
const SHUTDOWN: &str = "open(my $d, '<', $ARGV[0]) or die $!; my $how = pack('L', $ARGV[1]); \
                        ioctl($d, 0x8004587d, $how) or die $!";

/// What the file system does of what it has not written yet when its power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// All of it is written first.
    AfterAll = 0,
    /// The journal is written first: names and lengths, and nothing of what files hold.
    AfterJournal = 1,
    /// Nothing is.
    AtOnce = 2,
}

/// A small disk.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// A sound, empty disk of so many bytes; where this machine has none for us, why.
    pub fn new(bytes: u64) -> Result<Self, String> {
        run("perl", &["-e", "1"].map(Path::new))?;
        let disk = Self { dir: new_dir() };
        fs::create_dir(disk.path()).expect("the directory is ours");
        make_file_system(&disk.image(), bytes)?;
        mount(&disk.image(), &disk.path())?;
        Ok(disk)
    }

    /// The same, or a line on standard error that says why a test is skipped.
    pub fn or_skip(test: &str, bytes: u64) -> Option<Self> {
        let why = match Self::new(bytes) {
            Ok(disk) => return Some(disk),
            Err(why) => why,
        };
        // Not by a macro: what those print is shown of tests that fail.
        let said =
            format!("{test}: SKIPPED, no disk of its own: {}\n", why.lines().next().unwrap_or_default());
        std::io::stderr().write_all(said.as_bytes()).expect("somebody listens");
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn hog(&self) -> PathBuf {
        self.path().join("hog")
    }

    /// The bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        distribkv::env::os::disk::free_bytes(&self.path()).expect("it is mounted")
    }

    /// Fills it with a file of somebody else, to the last block.
    pub fn fill(&self) {
        let mut hog =
            File::options().create(true).append(true).open(self.hog()).expect("it takes a name yet");
        for bytes in [1 << 20, 4096] {
            let zeros = vec![0; bytes];
            let full = loop {
                if let Err(error) = hog.write_all(&zeros).and_then(|()| hog.sync_data()) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// Removes that file.
    pub fn empty(&self) {
        fs::remove_file(self.hog()).expect("it was filled");
    }

    /// Its power fails now.
    pub fn cut_power(&self, how: PowerCut) {
        let how = (how as u32).to_string();
        let done = Command::new("perl").args(["-e", SHUTDOWN]).arg(self.path()).arg(how).output();
        let done = done.expect("there is a perl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Gives it power again, with what it holds. Nobody may use it meanwhile.
    pub fn power_on(&self) {
        unmount(&self.path()).expect("nobody uses it");
        mount(&self.image(), &self.path()).expect("its journal tells what is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(why) = unmount(&self.path()) {
            eprintln!("{} is still used ({why}), and goes when it is not", self.path().display());
            // Nothing is left to be done where even this fails.
            let _ = run("umount", &[Path::new("--lazy"), &self.path()]);
        }
    }
}
