//! The facts of this host, from what the kernel shows in `/proc` and `/sys`, and from a few calls.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use distribkv::config::Settings;
use distribkv::env::os::{cpu, disk, process, uring};
use distribkv::host::exit::Exit;
use distribkv::tune::facts::{Cpus, Device, Dir, FileSystem, Host, IoUring, Memory};

/// Gathers what there is to know for a node with these settings.
pub fn host(settings: &Settings) -> Result<Host, Exit> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| Exit::Io { what, source }
    };
    let groups = Groups::of_this_process();
    Ok(Host {
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "not known".into()),
        io_uring: io_uring(),
        lockable_bytes: process::lockable_bytes().map_err(failed("asking for RLIMIT_MEMLOCK"))?,
        open_files_max: process::open_files_max().map_err(failed("asking for RLIMIT_NOFILE"))?,
        cpus: cpus(settings, &groups).map_err(failed("asking for CPUs"))?,
        memory: memory(&groups),
        dir: dir(&settings.data_dir())?,
        device: device(&nearest(&settings.data_dir())),
        huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled").as_deref().and_then(chosen),
        governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load_milli: line("/proc/loadavg").as_deref().and_then(load_milli),
        clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    })
}

/// The one line of a file, where there is one.
fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    line(path)?.parse().ok()
}

/// The word in brackets of a line as `always [madvise] never`; of one without brackets, all of it.
fn chosen(line: &str) -> Option<String> {
    let inside = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    Some(inside.map_or(line, |(word, _)| word).to_owned()).filter(|word| !word.is_empty())
}

/// The load of the last minute, of a line as `0.75 0.50 …`.
fn load_milli(line: &str) -> Option<u64> {
    let (whole, hundredths) = line.split(' ').next()?.split_once('.')?;
    Some(whole.parse::<u64>().ok()?.checked_mul(1000)? + hundredths.parse::<u64>().ok()?.checked_mul(10)?)
}

fn io_uring() -> IoUring {
    match uring::probe() {
        Ok(_) => IoUring::Works,
        Err(error) => IoUring::Refused {
            error: error.to_string(),
            disabled: number("/proc/sys/kernel/io_uring_disabled"),
            is_filtered: field("/proc/self/status", "Seccomp:").is_some_and(|mode| mode != "0"),
        },
    }
}

/// What stands behind a name in a file of names and values.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

fn cpus(settings: &Settings, groups: &Groups) -> io::Result<Cpus> {
    let allowed = cpu::allowed()?.len() as u64;
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let online = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    Ok(Cpus {
        online: (online as u64).max(allowed),
        allowed,
        quota_milli: groups.quota_milli(),
        executors: super::executors(settings),
    })
}

/// The CPU time that this process may use, in thousandths of a CPU, where its cgroup or one above has a
/// quota.
pub fn cpu_quota_milli() -> Option<u64> {
    Groups::of_this_process().quota_milli()
}

/// The memory of this process as it is now.
pub fn memory_now() -> Memory {
    memory(&Groups::of_this_process())
}

fn memory(groups: &Groups) -> Memory {
    let bytes = |name: &str| {
        let value = field("/proc/meminfo", name)?;
        value.trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = bytes("MemTotal:").unwrap_or(0);
    let (cgroup_max, left) = groups.memory(total);
    let available = bytes("MemAvailable:").unwrap_or(total);
    Memory {
        total,
        available: left.map_or(available, |left| available.min(left)),
        cgroup_max,
        swap: bytes("SwapTotal:").unwrap_or(0),
        swappiness: number("/proc/sys/vm/swappiness"),
    }
}

/// The directories of the cgroups that this process is in, each below the root that is mounted here. A
/// container may see its own as the root, so that the whole path is not there: then the root itself counts.
struct Groups {
    v2: Option<PathBuf>,
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
}

impl Groups {
    fn of_this_process() -> Self {
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self {
            v2: group_dir(&memberships, &mounts, None),
            cpu: group_dir(&memberships, &mounts, Some("cpu")),
            memory: group_dir(&memberships, &mounts, Some("memory")),
        }
    }

    /// The least quota from the process' cgroup up.
    fn quota_milli(&self) -> Option<u64> {
        let of_v2 = |dir: &Path| {
            let line = line(dir.join("cpu.max"))?;
            let (quota, period) = line.split_once(' ')?;
            Some(quota.parse::<u64>().ok()?.checked_mul(1000)? / period.parse::<u64>().ok()?.max(1))
        };
        let of_v1 = |dir: &Path| {
            let quota = number(dir.join("cpu.cfs_quota_us"))?;
            Some(quota.checked_mul(1000)? / number(dir.join("cpu.cfs_period_us"))?.max(1))
        };
        least(self.v2.as_deref(), of_v2).into_iter().chain(least(self.cpu.as_deref(), of_v1)).min()
    }

    /// The least limit of memory from the process' cgroup up, where it is less than the machine has; and the
    /// least that is left of one of those limits.
    fn memory(&self, total: u64) -> (Option<u64>, Option<u64>) {
        let of_v2 = |dir: &Path| number(dir.join("memory.max"));
        let of_v1 = |dir: &Path| number(dir.join("memory.limit_in_bytes"));
        let left_of = |limit: Option<u64>, used: PathBuf| {
            let limit = limit.filter(|limit| *limit < total)?;
            Some(limit.saturating_sub(number(used).unwrap_or(0)))
        };
        let left_of_v2 = |dir: &Path| left_of(of_v2(dir), dir.join("memory.current"));
        let left_of_v1 = |dir: &Path| left_of(of_v1(dir), dir.join("memory.usage_in_bytes"));
        let (v2, v1) = (self.v2.as_deref(), self.memory.as_deref());
        let limit = least(v2, of_v2).into_iter().chain(least(v1, of_v1)).min();
        let left = least(v2, left_of_v2).into_iter().chain(least(v1, left_of_v1)).min();
        (limit.filter(|limit| *limit < total), left)
    }
}

/// The least value from a cgroup's directory up to the root.
fn least(dir: Option<&Path>, value: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    let ups =
        dir?.ancestors().take_while(|dir| dir.starts_with("/sys/fs/cgroup") || dir.join("tasks").exists());
    ups.filter_map(value).min()
}

/// The directory of the cgroup of a controller, or of version 2.
fn group_dir(memberships: &str, mounts: &str, controller: Option<&str>) -> Option<PathBuf> {
    let path = memberships.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match controller {
            None => names.is_empty(),
            Some(controller) => names.split(',').any(|name| name == controller),
        };
        is_it.then_some(path)
    })?;
    let root = mounts.lines().find_map(|line| {
        let parts: Vec<&str> = line.split(' ').collect();
        let (at, kind, options) = (parts.get(1)?, parts.get(2)?, parts.get(3)?);
        let is_it = match controller {
            None => *kind == "cgroup2",
            Some(controller) => *kind == "cgroup" && options.split(',').any(|option| option == controller),
        };
        is_it.then(|| PathBuf::from(at))
    })?;
    let whole = root.join(path.trim_start_matches('/'));
    Some(if whole.is_dir() { whole } else { root })
}

/// The directory itself, or the nearest that there is above it.
fn nearest(dir: &Path) -> PathBuf {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    whole.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

fn dir(data_dir: &Path) -> Result<Dir, Exit> {
    let path = nearest(data_dir);
    let failed = |source| Exit::Io { what: format!("data directory {}", path.display()), source };
    let magic = disk::file_system_magic(&path).map_err(failed)?;
    let free_bytes = disk::free_bytes(&path).map_err(failed)?;
    let direct_io = direct_io(&path).map_err(|error| error.to_string());
    Ok(Dir {
        path: path.display().to_string(),
        file_system: FileSystem::of_magic(magic),
        discards: discards(&path),
        direct_io,
        free_bytes,
    })
}

/// Whether the file system that a directory is on is mounted with `discard`.
fn discards(dir: &Path) -> bool {
    let number = fs::metadata(dir).ok().map(|metadata| metadata.dev());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    number.is_some_and(|number| {
        has_option(&mounts, &format!("{}:{}", libc::major(number), libc::minor(number)), "discard")
    })
}

/// Whether a device is mounted with an option, by lines as `36 35 98:0 / /mnt rw - ext4 /dev/sda rw,discard`.
fn has_option(mounts: &str, device: &str, option: &str) -> bool {
    mounts.lines().filter(|line| line.split(' ').nth(2) == Some(device)).any(|line| {
        let options = line.rsplit(' ').next().unwrap_or_default();
        options.split(',').any(|set| set == option || set.starts_with(&format!("{option}=")))
    })
}

/// Opens a file that has no name; where the file system has none such, one that has a name for a moment.
fn direct_io(dir: &Path) -> io::Result<()> {
    let open = |path: &Path, flags| OpenOptions::new().write(true).custom_flags(flags).mode(0o600).open(path);
    match open(dir, libc::O_TMPFILE | libc::O_DIRECT) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {}
        opened => return opened.map(drop),
    }
    let scratch = dir.join(format!("tune-scratch-{}", std::process::id()));
    let opened = open(&scratch, libc::O_CREAT | libc::O_EXCL | libc::O_DIRECT);
    // A refused flag may leave the file behind that it was refused for.
    let _ = fs::remove_file(&scratch);
    opened.map(drop)
}

/// The disk below a directory; where that is a partition, the disk that it is of.
fn device(dir: &Path) -> Option<Device> {
    let number = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (libc::major(number), libc::minor(number));
    let found = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = found.ancestors().take(2).find(|dir| dir.join("queue").is_dir())?;
    let queue = whole.join("queue");
    Some(Device {
        name: whole.file_name()?.to_string_lossy().into_owned(),
        write_cache: line(queue.join("write_cache")),
        scheduler: line(queue.join("scheduler")).as_deref().and_then(chosen),
        is_rotational: line(queue.join("rotational")).map(|text| text == "1"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_of_several_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("none").as_deref(), Some("none"));
        assert_eq!(load_milli("7.25 3.00 1.50 2/400 77"), Some(7250));
    }

    #[test]
    fn an_option_of_a_mount_is_its_device_s() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,errors=remount-ro\n\
                      23 22 8:1 / /mnt/discard rw shared:2 - btrfs /dev/sda1 rw,discard=async\n\
                      24 22 8:2 / /srv rw - xfs /dev/sda2 rw,nodiscard\n";
        let found = ["254:0", "8:1", "8:2", "8:3"].map(|device| has_option(mounts, device, "discard"));
        assert_eq!(found, [true, true, false, false]);
    }

    #[test]
    fn cgroups_are_found_of_both_versions() {
        let members = "4:memory:/a/b\n2:cpu,cpuacct:/\n0::/user.slice\n";
        let mounts = "cgroup /proc cgroup rw,memory 0 0\ncgroup2 /sys cgroup2 rw 0 0\n";
        let of = |controller| group_dir(members, mounts, controller);
        assert_eq!(of(Some("memory")), Some("/proc".into()), "the path is another namespace's");
        assert_eq!(of(Some("cpu")), None, "it is mounted nowhere");
        assert_eq!(of(None), Some("/sys".into()));
    }

    #[test]
    fn limits_count_from_the_cgroup_up() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let inner = root.path().join("inner");
        fs::create_dir(&inner).expect("it is new");
        for (dir, max, limit) in
            [(root.path(), "150000 100000", "max"), (inner.as_path(), "max 100000", "4096")]
        {
            fs::write(dir.join("tasks"), "").expect("it is ours");
            fs::write(dir.join("cpu.max"), max).expect("it is ours");
            fs::write(dir.join("memory.max"), limit).expect("it is ours");
        }
        let groups = Groups { v2: Some(inner), cpu: None, memory: None };
        assert_eq!(groups.quota_milli(), Some(1500));
        assert_eq!(groups.memory(1 << 20), (Some(4096), Some(4096)));
        assert_eq!(groups.memory(1024).0, None, "the machine has less");
    }

    #[test]
    fn this_host_can_be_looked_at_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut settings = Settings::default();
        settings.node.data_dir = Some(dir.path().join("not").join("there"));
        let host = host(&settings).expect("it can be asked");
        assert_eq!(host.dir.path, dir.path().display().to_string());
        assert!(host.memory.total > 0 && host.cpus.allowed > 0 && host.lockable_bytes > 0);
        assert_eq!(host.io_uring, IoUring::Works, "the tests need it");
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
    }
}
