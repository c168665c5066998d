//! What was found of a host. What could not be found is `None`: a container or a virtual machine hides much.

/// A host, as a process on it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// Whether this process may use io_uring.
    pub io_uring: IoUring,
    /// Bytes that it may lock in memory; `u64::MAX` where there is no limit.
    pub lockable_bytes: u64,
    /// Files that it may have open at a time.
    pub open_files_max: u64,
    /// Its CPUs.
    pub cpus: Cpus,
    /// Its memory.
    pub memory: Memory,
    /// Where the node's data lies or will lie.
    pub dir: Dir,
    /// The block device below, where there is one.
    pub device: Option<Device>,
    /// What transparent huge pages are set to: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// The governor of the first CPU's clock.
    pub governor: Option<String>,
    /// How many threads ran or wanted to, in the last minute, in thousandths.
    pub load_milli: Option<u64>,
    /// Where the kernel takes the time from.
    pub clock_source: Option<String>,
}

/// Whether io_uring may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoUring {
    /// A ring was made.
    Works,
    /// None could be made.
    Refused {
        /// What the kernel said.
        error: String,
        /// `kernel.io_uring_disabled`, where the kernel has it.
        disabled: Option<u64>,
        /// Whether a seccomp filter is on this process, as in most containers.
        is_filtered: bool,
    },
}

/// The CPUs of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Those of the machine that are online.
    pub online: u64,
    /// Those that this process may run on.
    pub allowed: u64,
    /// How much of CPUs its cgroup may use in all, in thousandths of one.
    pub quota_milli: Option<u64>,
    /// How many executors the node would have with its settings; an error is why none could be placed.
    pub executors: Result<u64, String>,
}

/// The memory of a process, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The machine's.
    pub total: u64,
    /// What is left of it.
    pub available: u64,
    /// What its cgroup may use.
    pub cgroup_max: Option<u64>,
    /// How much swap there is.
    pub swap: u64,
    /// `vm.swappiness`.
    pub swappiness: Option<u64>,
}

impl Memory {
    /// What the process may use, whoever limits it.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.cgroup_max.map_or(self.total, |limit| limit.min(self.total))
    }
}

/// Where a node's data lies or will lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// The directory that was looked at: the data directory, or what there is above it.
    pub path: String,
    /// Its file system.
    pub file_system: FileSystem,
    /// Whether it is mounted with `discard`: the disk is told of the blocks of a removed file as it goes.
    pub discards: bool,
    /// Whether a file in it can be opened with `O_DIRECT`; the text is why not.
    pub direct_io: Result<(), String>,
    /// The bytes that may yet be written there.
    pub free_bytes: u64,
}

/// A kind of file system, by the number that `statfs` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// As people call it.
    pub name: &'static str,
    /// What a durable write on it is worth.
    pub kind: FileSystemKind,
}

/// What a durable write on a file system is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystemKind {
    /// A local one that writes blocks in place.
    InPlace,
    /// A local one that writes every block anew, and what points to it as well.
    Copying,
    /// The upper layer of a container's image.
    Layered,
    /// Another machine's: what it calls durable is its own affair.
    Remote,
    /// Memory: nothing on it outlives the machine.
    Memory,
    /// One that is not known here.
    Unknown,
}

impl FileSystem {
    /// The file system of a number of `statfs`.
    #[must_use]
    pub fn of_magic(magic: u64) -> Self {
        use FileSystemKind::{Copying, InPlace, Layered, Memory, Remote, Unknown};
        let (name, kind) = match magic {
            0xEF53 => ("ext4", InPlace),
            0x5846_5342 => ("xfs", InPlace),
            0xF2F5_2010 => ("f2fs", Copying),
            0x9123_683E => ("btrfs", Copying),
            0x2FC1_2FC1 => ("zfs", Copying),
            0xCA45_1A4E => ("bcachefs", Copying),
            0x794C_7630 => ("overlayfs", Layered),
            0x6969 => ("nfs", Remote),
            0xFE53_4D42 | 0xFF53_4D42 | 0x517B => ("smb", Remote),
            0x0102_1997 => ("9p", Remote),
            0x00C3_6400 => ("ceph", Remote),
            0x0BD0_0BD0 => ("lustre", Remote),
            0x0102_1994 => ("tmpfs", Memory),
            0x8584_58F6 => ("ramfs", Memory),
            0x6573_5546 => ("fuse", Unknown),
            _ => ("unknown", Unknown),
        };
        Self { name, kind }
    }
}

/// A block device, as `/sys/block` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Whether its cache has to be told to write: `write back` or `write through`.
    pub write_cache: Option<String>,
    /// The scheduler of its requests.
    pub scheduler: Option<String>,
    /// Whether it says that it rotates.
    pub is_rotational: Option<bool>,
}
