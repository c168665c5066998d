//! The checks, one function a fact: what is wanted, why it stands as it does, and how to change it.

use crate::config::Settings;

use super::disk::Disk;
use super::facts::{Device, FileSystemKind, Host, IoUring};
use super::finding::{Finding, State};
use super::memory::memory_bytes_max;
use super::pace::{Pace, SLOT_US};
use super::page::bytes_text;

/// The oldest kernel that executors start on.
const KERNEL_LEAST: (u64, u64) = (5, 8);
/// The oldest one with the rings that executors ask for, see [`crate::env::os::uring`].
const KERNEL_WANTED: (u64, u64) = (6, 0);
/// What each executor needs to lock.
pub const LOCKED_BYTES_PER_CORE: u64 = 512 << 10;
/// What executors register memory for, however many there are.
const LOCKED_BYTES_WANTED: u64 = 8 << 20;
/// Connections that a node has room for: one file each.
const CONNECTIONS_WANTED: u64 = 10_000;
/// With room for fewer a node says so when it starts.
const CONNECTIONS_AT_START: u64 = 1000;
/// A CPU that is slow for less than this at a time is as good as one that never is.
const SLOW_US: u64 = 2 * SLOT_US;
/// Writes that are durable sooner than this are on no disk that rotates.
const ROTATION_US: u64 = 3000;
/// Swappiness up to this leaves a process' memory alone.
const SWAPPINESS_MAX: u64 = 10;

pub(super) fn kernel(host: &Host) -> Finding {
    let version = version_of(&host.kernel);
    let state = match version {
        None => State::Unknown,
        Some(version) if version < KERNEL_LEAST => State::Needed,
        Some(version) if version < KERNEL_WANTED => State::Better,
        Some(_) => State::Ok,
    };
    Finding::of("kernel", state, format!("Linux {}", host.kernel), "6.0 or newer").or_change(
        "install a newer kernel: from 5.12 on rings take no locked memory, from 6.0 on they disturb less",
    )
}

fn version_of(release: &str) -> Option<(u64, u64)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn io_uring(host: &Host) -> Finding {
    let (state, found, change) = match &host.io_uring {
        IoUring::Works => (State::Ok, "works".to_owned(), ""),
        IoUring::Refused { error, disabled: Some(disabled), .. } if *disabled > 0 => (
            State::Needed,
            format!("refused: {error} (kernel.io_uring_disabled is {disabled})"),
            "sysctl -w kernel.io_uring_disabled=0, and for good: tuning/host/99-distribkv.conf",
        ),
        IoUring::Refused { error, is_filtered: true, .. } => (
            State::Needed,
            format!("refused: {error} (a seccomp filter is on)"),
            "start the container with --security-opt seccomp=tuning/host/seccomp.json",
        ),
        IoUring::Refused { error, .. } => (
            State::Needed,
            format!("refused: {error}"),
            "a kernel with CONFIG_IO_URING, and a security policy that permits it",
        ),
    };
    Finding::of("io_uring", state, found, "works").or_change(change)
}

pub(super) fn locked_memory(host: &Host) -> Finding {
    let executors = host.cpus.executors.as_ref().map_or(host.cpus.allowed, |executors| *executors);
    let needed = LOCKED_BYTES_PER_CORE * executors;
    let wanted = needed.max(LOCKED_BYTES_WANTED);
    let state = match host.lockable_bytes {
        bytes if bytes < needed => State::Needed,
        bytes if bytes < wanted => State::Better,
        _ => State::Ok,
    };
    let found =
        if host.lockable_bytes == u64::MAX { "no limit".to_owned() } else { bytes_text(host.lockable_bytes) };
    let wanted = format!("{} ({} a core)", bytes_text(wanted), bytes_text(LOCKED_BYTES_PER_CORE));
    Finding::of("locked memory", state, found, &wanted)
        .or_change("ulimit -l, LimitMEMLOCK=infinity, or limits.d (files of tuning/host)")
        .told_at_start()
}

pub(super) fn open_files(host: &Host, settings: &Settings) -> Finding {
    let cores = host.cpus.executors.as_ref().map_or(host.cpus.allowed, |executors| *executors);
    let of_cores = settings.node.log_segments_max.saturating_add(32).saturating_mul(cores);
    let own = 64 + of_cores + 4 * u64::from(settings.cluster.shards);
    let state = match host.open_files_max {
        files if files < own => State::Needed,
        files if files < own + CONNECTIONS_WANTED => State::Better,
        _ => State::Ok,
    };
    let found = host.open_files_max.to_string();
    let wanted = format!("{} (its own: {own})", own + CONNECTIONS_WANTED);
    let mut finding = Finding::of("open files", state, found, &wanted)
        .or_change("ulimit -n, LimitNOFILE=1048576, or limits.d (files of tuning/host)");
    finding.at_start = host.open_files_max < own + CONNECTIONS_AT_START;
    finding
}

pub(super) fn cpus(host: &Host, settings: &Settings) -> Finding {
    let cpus = &host.cpus;
    let quota = cpus.quota_milli.map(|milli| format!(", with the time of {}", milli_text(milli)));
    let found = format!("{} of {}{}", cpus.allowed, cpus.online, quota.clone().unwrap_or_default());
    let executors = match &cpus.executors {
        Ok(executors) => *executors,
        Err(why) => {
            return Finding::of("CPUs", State::Needed, format!("{found}: {why}"), "those that --cores names")
                .or_change("name other --cores, or give the process more CPUs");
        }
    };
    let pinned = if settings.node.pin { ", pinned" } else { "" };
    let wanted = format!("time for {executors} executor{}{pinned}", if executors == 1 { "" } else { "s" });
    let time = cpus.quota_milli.unwrap_or(u64::MAX).min(cpus.allowed.saturating_mul(1000));
    let state = if time < executors.saturating_mul(1000) { State::Better } else { State::Ok };
    let fewer = (time / 1000).max(1);
    let change = match cpus.quota_milli {
        Some(_) => format!(
            "--cores {fewer}: executors beyond the quota are stopped amid their turns; or a quota of \
             whole CPUs (docker --cpus, CPUQuota=)"
        ),
        None => format!("--cores {fewer}: two executors on one CPU wait for each other"),
    };
    Finding::of("CPUs", state, found, &wanted).or_change(&change).told_at_start()
}

pub(super) fn pace(pace: &Pace) -> Finding {
    const WANTED: &str = "even";
    let (slow_us, slow_milli) = (pace.slow_us_max(), pace.slow_milli());
    if slow_us < SLOW_US {
        return Finding::of("CPU pace", State::Ok, "even".into(), WANTED);
    }
    let share = format!("{}.{} %", slow_milli / 10, slow_milli % 10);
    let found = format!("below half for {} ms in a row, {share} of the time", slow_us / 1000);
    Finding::of("CPU pace", State::Better, found, WANTED).or_change(
        "a CPU that other processes, a quota (docker --cpus, CPUQuota=) or other guests of the machine do \
         not take away: for as long as they do, answers take as much longer",
    )
}

pub(super) fn memory(host: &Host, settings: &Settings) -> Finding {
    let cores = host.cpus.executors.as_ref().map_or(host.cpus.allowed, |executors| *executors);
    let most = memory_bytes_max(settings, cores);
    let memory = &host.memory;
    let (by, limit) = match memory.cgroup_max {
        Some(limit) if limit < memory.total => (" by cgroup", limit),
        Some(_) | None => ("", memory.total),
    };
    let state = if most > limit {
        State::Needed
    } else if most > limit - limit / 8 || most > memory.available {
        State::Better
    } else {
        State::Ok
    };
    let found = format!("{}{by}, {} available", bytes_text(limit), bytes_text(memory.available));
    let wanted = format!("{} for these settings", bytes_text(most));
    Finding::of("memory", state, found, &wanted)
        .or_change(
            "less snapshot_bytes_max and block_cache_bytes, as `kvserver tune --write FILE` has them, or \
             more memory",
        )
        .told_at_start()
}

pub(super) fn swap(host: &Host) -> Finding {
    let Some(swappiness) = host.memory.swappiness else {
        return Finding::of("swap", State::Unknown, "not known".into(), "none");
    };
    if host.memory.swap == 0 {
        return Finding::of("swap", State::Ok, "none".into(), "none, or swappiness to 10");
    }
    let state = if swappiness > SWAPPINESS_MAX { State::Better } else { State::Ok };
    let found = format!("{}, swappiness {swappiness}", bytes_text(host.memory.swap));
    Finding::of("swap", state, found, "none, or swappiness to 10")
        .or_change("sysctl -w vm.swappiness=1: a page that was swapped out stops a whole core")
}

pub(super) fn file_system(host: &Host) -> Finding {
    let dir = &host.dir;
    let (state, change) = match dir.file_system.kind {
        FileSystemKind::InPlace if dir.discards => (
            State::Better,
            "mount it without `discard`, and enable fstrim.timer: many disks stand still for it",
        ),
        FileSystemKind::InPlace => (State::Ok, ""),
        FileSystemKind::Copying => {
            (State::Better, "ext4 or xfs: this one writes each block anew, and what points to it")
        }
        FileSystemKind::Layered => {
            (State::Better, "mount a volume there: this is the image's layer, and goes with the container")
        }
        FileSystemKind::Remote => {
            (State::Needed, "a local disk: what another machine calls durable this one cannot know")
        }
        FileSystemKind::Memory => (State::Needed, "a disk: nothing here outlives the machine"),
        FileSystemKind::Unknown => (State::Better, "ext4 or xfs: of this one nothing is known"),
    };
    let how = if dir.discards { " with discard" } else { "" };
    let found = format!("{}{how} at {}", dir.file_system.name, dir.path);
    let finding = Finding::of("file system", state, found, "ext4 or xfs, local").or_change(change);
    // Nodes remove their files so that little is left of it: no reason to say it with every start.
    if dir.discards && dir.file_system.kind == FileSystemKind::InPlace {
        finding
    } else {
        finding.told_at_start()
    }
}

pub(super) fn direct_io(host: &Host) -> Finding {
    // What lies in memory has no cache to go around: it is opened without.
    let in_memory = host.dir.file_system.kind == FileSystemKind::Memory;
    let (state, found) = match &host.dir.direct_io {
        Ok(()) => (State::Ok, "works".to_owned()),
        Err(_) if in_memory => (State::Ok, "not there, and not needed in memory".to_owned()),
        Err(why) => (State::Needed, format!("refused: {why}")),
    };
    Finding::of("O_DIRECT", state, found, "works").or_change("put the data directory on ext4 or xfs")
}

pub(super) fn free_space(host: &Host, settings: &Settings) -> Finding {
    let node = &settings.node;
    let cores = host.cpus.executors.as_ref().map_or(host.cpus.allowed, |executors| *executors);
    let needed = node.segment_bytes.saturating_mul(2 * cores);
    let segments = node.log_segments_max.saturating_add(2).saturating_mul(cores);
    let wanted = node.segment_bytes.saturating_mul(segments).saturating_add(node.disk_reserve_bytes);
    let state = match host.dir.free_bytes {
        free if free < needed => State::Needed,
        free if free < wanted => State::Better,
        _ => State::Ok,
    };
    let wanted = format!("{}, and twice the data", bytes_text(wanted));
    Finding::of("free space", state, bytes_text(host.dir.free_bytes), &wanted)
        .or_change("a larger disk, or less segment_bytes and log_segments_max")
}

pub(super) fn device(device: &Device, disk: Option<&Disk>) -> Vec<Finding> {
    vec![rotation(device, disk), write_cache(device), scheduler(device)]
}

fn rotation(device: &Device, disk: Option<&Disk>) -> Finding {
    let name = &device.name;
    let measured = disk.and_then(Disk::alone).map(|cell| cell.p50_us);
    let (state, found) = match (device.is_rotational, measured) {
        (None, _) => (State::Unknown, format!("{name}: not known")),
        (Some(false), _) => (State::Ok, format!("{name}: solid state")),
        (Some(true), Some(us)) if us < ROTATION_US => {
            (State::Ok, format!("{name}: said to rotate, too fast for that"))
        }
        (Some(true), _) => (State::Better, format!("{name}: said to rotate")),
    };
    Finding::of("disk", state, found, "solid state")
        .or_change("a solid state disk: a durable write waits for a turn (virtual disks often only say so)")
}

fn write_cache(device: &Device) -> Finding {
    let (state, found) = match device.write_cache.as_deref() {
        None => (State::Unknown, "not known"),
        Some("write through") => (State::Ok, "write through"),
        Some(other) => (State::Better, other),
    };
    Finding::of("write cache", state, found.into(), "write through").or_change(
        "a disk whose cache outlives a power cut: each durable write flushes this one. Do not just \
         declare it write through: then nothing is durable",
    )
}

fn scheduler(device: &Device) -> Finding {
    let (state, found) = match device.scheduler.as_deref() {
        None => (State::Unknown, "not known"),
        Some(name @ ("none" | "mq-deadline" | "noop" | "deadline")) => (State::Ok, name),
        Some(name) => (State::Better, name),
    };
    let change = format!("echo none > /sys/block/{}/queue/scheduler", device.name);
    Finding::of("scheduler", state, found.into(), "none or mq-deadline").or_change(&change)
}

pub(super) fn huge_pages(host: &Host) -> Finding {
    let (state, found) = match host.huge_pages.as_deref() {
        None => (State::Unknown, "not known"),
        Some("madvise") => (State::Ok, "madvise"),
        Some(other) => (State::Better, other),
    };
    Finding::of("huge pages", state, found.into(), "madvise").or_change(
        "echo madvise > enabled, in /sys/kernel/mm/transparent_hugepage: the heap asks for them, and other \
         memory is better without",
    )
}

pub(super) fn governor(host: &Host) -> Finding {
    let (state, found) = match host.governor.as_deref() {
        None => (State::Unknown, "not known (virtual?)"),
        Some("performance") => (State::Ok, "performance"),
        Some(other) => (State::Better, other),
    };
    Finding::of("governor", state, found.into(), "performance")
        .or_change("cpupower frequency-set -g performance: a core that sleeps often is clocked down")
}

pub(super) fn clock_source(host: &Host) -> Finding {
    const FAST: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
    let (state, found) = match host.clock_source.as_deref() {
        None => (State::Unknown, "not known"),
        Some(name) if FAST.contains(&name) => (State::Ok, name),
        Some(name) => (State::Better, name),
    };
    Finding::of("clock", state, found.into(), "tsc or kvm-clock")
        .or_change("find out why the kernel left tsc (dmesg): every look at this one is a system call")
}

/// Thousandths as people write them: `1.5`, `2`.
fn milli_text(milli: u64) -> String {
    match milli % 1000 {
        0 => (milli / 1000).to_string(),
        rest => format!("{}.{}", milli / 1000, format!("{rest:03}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_read() {
        assert_eq!(version_of("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version_of("5.4.0"), Some((5, 4)));
        assert_eq!(version_of("strange"), None);
    }

    #[test]
    fn quotas_are_written_as_people_do() {
        assert_eq!((milli_text(1500), milli_text(2000)), ("1.5".to_owned(), "2".to_owned()));
        assert_eq!(milli_text(250), "0.25");
    }
}
