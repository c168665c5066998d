//! A disk for a node that fails when it is told to: a file system on a block device of its own, whose blocks
//! lie in a file of another one.
//!
//! ```text
//! disk/        ext4 on a loop device ─► under/blocks      where the node's data is
//! under/       ext4 on a loop device ─► under.img         what is made to fail
//! ```
//!
//! What goes wrong below reaches the node as it does on a real disk: as the error of a block that could not
//! be written, below the file system that the node sees.
//!
//! Invariants:
//! - What was mounted is thawed, unmounted and detached with the value that holds it, panic or not. It is to
//!   outlive the processes that use it.
//! - Where it cannot be had, why is said: without root, or where the kernel has no loop devices.
//!
//! It deliberately damages nothing: what was written before it failed is there when it is mended.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{PATIENCE, new_dir};

/// How large the disk is, and what lies below: both are sparse.
const DISK_BYTES: u64 = 768 << 20;
const UNDER_BYTES: u64 = 1024 << 20;
/// How much is written at once to fill what lies below.
const FILL_BYTES: usize = 1 << 20;

/// A disk that may be made to fail.
pub struct Disk {
    dir: TempDir,
}

/// A file system that takes no writes until this is dropped.
pub struct Frozen<'a> {
    disk: &'a Disk,
}

/// Runs a command to its end; what it complained of where it failed.
pub(super) fn run(program: &str, args: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Makes a file of so many bytes with a file system in it.
pub(super) fn make_file_system(file: &Path, bytes: u64) -> Result<(), String> {
    let made = fs::File::create(file).and_then(|made| made.set_len(bytes));
    made.map_err(|error| format!("{}: {error}", file.display()))?;
    // All of its own blocks are written now, none by the kernel later.
    let flags = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"].map(Path::new);
    run("mkfs.ext4", &[&flags[..], &[file]].concat())
}

pub(super) fn mount(file: &Path, at: &Path) -> Result<(), String> {
    run(
        "mount",
        &["-o", "loop,errors=remount-ro"].map(Path::new).into_iter().chain([file, at]).collect::<Vec<_>>(),
    )
}

impl Disk {
    /// A sound, empty disk; where this machine has none for us, why.
    pub fn new() -> Result<Self, String> {
        let disk = Self { dir: new_dir() };
        for directory in [disk.under(), disk.path()] {
            fs::create_dir(directory).expect("the directory is ours");
        }
        make_file_system(&disk.image(), UNDER_BYTES)?;
        mount(&disk.image(), &disk.under())?;
        make_file_system(&disk.blocks(), DISK_BYTES)?;
        mount(&disk.blocks(), &disk.path())?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn under(&self) -> PathBuf {
        self.dir.path().join("under")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("under.img")
    }

    fn blocks(&self) -> PathBuf {
        self.under().join("blocks")
    }

    fn filler(&self) -> PathBuf {
        self.under().join("filler")
    }

    /// Lets every write fail from now on: the device takes none any more.
    pub fn fails(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("there is a /proc");
        let under = self.under();
        let is_ours = |line: &&str| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == under);
        let device = mounts.lines().find(is_ours).and_then(|line| line.split(' ').next());
        let name = device.and_then(|device| device.strip_prefix("/dev/")).expect("it is on a device");
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        fs::write(&trigger, "a test").unwrap_or_else(|error| panic!("{trigger}: {error}"));
    }

    /// Lets every write of a block that holds zeros fail from now on: a thin disk has no room for it. Nobody
    /// may write to the disk meanwhile.
    pub fn has_no_room_below(&self) {
        run("fallocate", &[Path::new("--dig-holes"), &self.blocks()])
            .expect("it has a file system with holes");
        let mut filler = fs::File::create(self.filler()).expect("there is room yet");
        let zeros = vec![0; FILL_BYTES];
        let full = loop {
            if let Err(error) = filler.write(&zeros) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }

    /// Makes it sound again, with what was written. Nobody may use it meanwhile.
    pub fn is_mended(&self) {
        unmount(&self.path()).expect("nobody uses it");
        // It is there where the disk was full.
        let _ = fs::remove_file(self.filler());
        unmount(&self.under()).expect("nobody uses it");
        mount(&self.image(), &self.under()).expect("it was mounted before");
        mount(&self.blocks(), &self.path()).expect("it was mounted before");
    }

    /// Lets every write wait from now on.
    pub fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &[Path::new("--freeze"), &self.path()]).expect("it is mounted");
        Frozen { disk: self }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &[Path::new("--unfreeze"), &self.disk.path()]).expect("it is frozen");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for mounted in [self.path(), self.under()] {
            if let Err(why) = unmount(&mounted) {
                eprintln!("{} is still used ({why}), and goes when it is not", mounted.display());
                // Nothing is left to be done where even this fails.
                let _ = run("umount", &[Path::new("--lazy"), &mounted]);
            }
        }
    }
}

/// Unmounts what is mounted there: what a process that has ended wrote last may still be under way.
pub(super) fn unmount(at: &Path) -> Result<(), String> {
    let begun = Instant::now();
    let is_mounted = || run("mountpoint", &[Path::new("-q"), at]).is_ok();
    while is_mounted() {
        if let Err(why) = run("umount", &[at])
            && begun.elapsed() > PATIENCE
        {
            return Err(why);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
