//! What settings a host asks for, each with its reason: the bounds of memory first, then what the disk says.
//!
//! The memory of a node is shared out so: of what the process may use, seven tenths at most; changes of the
//! shards get up to half of that, blocks of tables on every core the rest.

use crate::config::{Node, Settings};

use super::checks::LOCKED_BYTES_PER_CORE;
use super::disk::Disk;
use super::facts::Host;
use super::memory::memory_bytes_max;
use super::page::bytes_text;

/// A setting, chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its key in the table `[node]`.
    pub key: &'static str,
    /// Its value, as TOML writes it.
    pub value: String,
    /// Why.
    pub reason: String,
}

/// The least and most of what is chosen, in bytes.
const CHANGES_LEAST: u64 = 1 << 20;
const CACHE_LEAST: u64 = 8 << 20;
const CACHE_MOST: u64 = 4 << 30;
const READY_MOST: u64 = 512 << 20;
const SEGMENT_LEAST: u64 = 16 << 20;
const SEGMENT_MOST: u64 = 256 << 20;
/// A lane that writes to the disk alone should fill a segment in no less than this.
const SEGMENT_MILLIS: u64 = 500;
/// Above this many bytes a second making a few tables at once leaves the log enough of the disk.
const FAST_BYTES_PER_S: u64 = 200_000_000;

/// The settings that this host asks for, given those that its node would have.
#[must_use]
pub fn advise(host: &Host, settings: &Settings, disk: Option<&Disk>) -> Vec<Choice> {
    let (cores, placed) = cores(host);
    let (changes, cache) = memory(host, settings, cores, disk);
    let mut choices = placed;
    choices.extend(log(host, settings, cores, disk));
    choices.extend([changes, tables_at_once(cores, disk), cache, heap_ready(host), spin(host)]);
    choices
}

fn choice(key: &'static str, value: impl ToString, reason: impl Into<String>) -> Choice {
    Choice { key, value: value.to_string(), reason: reason.into() }
}

/// A number of bytes as the profiles write it.
fn grouped(bytes: u64) -> String {
    let digits = bytes.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// How many executors, and whether each has a CPU to itself.
fn cores(host: &Host) -> (u64, Vec<Choice>) {
    let cpus = &host.cpus;
    let lockable = (host.lockable_bytes / LOCKED_BYTES_PER_CORE).max(1);
    let quota = cpus.quota_milli.filter(|milli| *milli < cpus.allowed.saturating_mul(1000));
    if let Some(milli) = quota {
        let count = (milli / 1000).clamp(1, lockable);
        return (
            count,
            vec![
                choice(
                    "cores",
                    format!("\"{count}\""),
                    "As many executors as the cgroup has whole CPUs of time.",
                ),
                choice(
                    "pin",
                    "false",
                    "A quota is no CPU of its own: the kernel moves executors to where there is time.",
                ),
            ],
        );
    }
    if cpus.allowed > lockable {
        let reason = "No more executors than the locked memory is enough for, at 512 KiB each.";
        let pin = choice("pin", "true", "Each executor has a CPU of its own, and its caches.");
        return (lockable, vec![choice("cores", format!("\"{lockable}\""), reason), pin]);
    }
    let reason =
        format!("All {} CPUs that this process may use; name fewer where others need them.", cpus.allowed);
    let pin = choice("pin", "true", "Each executor has a CPU of its own, and its caches.");
    (cpus.allowed, vec![choice("cores", "\"auto\"", reason), pin])
}

fn log(host: &Host, settings: &Settings, cores: u64, disk: Option<&Disk>) -> Vec<Choice> {
    let defaults = Node::default();
    let rate = disk.map_or(0, Disk::bytes_per_s_max);
    let by_rate = (rate / 1000 * SEGMENT_MILLIS).next_power_of_two();
    let wanted = if rate == 0 { defaults.segment_bytes } else { by_rate.clamp(64 << 20, SEGMENT_MOST) };
    // A tenth of what is free, for all segments of all lanes.
    let segments = settings.node.log_segments_max.saturating_add(2).saturating_mul(cores).max(1);
    let room = host.dir.free_bytes / 10 / segments;
    let fitting = if room.is_power_of_two() { room } else { room.next_power_of_two() / 2 };
    let segment = wanted.min(fitting.max(SEGMENT_LEAST));
    let reason = if segment < wanted {
        format!(
            "{} are free: the log of {cores} lanes takes about a tenth of it.",
            bytes_text(host.dir.free_bytes)
        )
    } else if rate == 0 {
        "The default: beginning a segment is rare, and writing one ahead is quick.".into()
    } else {
        format!("The disk takes {} MB/s: even at full speed a segment lasts a while.", rate / 1_000_000)
    };
    let delay = match disk.and_then(Disk::alone) {
        Some(cell) => format!(
            "A durable write takes {}: what comes meanwhile makes the next batch, so that waiting for more \
             company only adds to every answer.",
            micros_text(cell.p50_us)
        ),
        None => {
            "What comes while a batch is written makes the next: waiting for company adds to answers.".into()
        }
    };
    vec![
        choice("segment_bytes", grouped(segment), reason),
        choice(
            "batch_bytes_max",
            grouped(defaults.batch_bytes_max),
            "The default; a segment holds two of them.",
        ),
        choice("batch_delay_us", 0, delay),
    ]
}

/// What the shards' changes and the cores' blocks may take.
fn memory(host: &Host, settings: &Settings, cores: u64, disk: Option<&Disk>) -> (Choice, Choice) {
    let memory = &host.memory;
    let limit = memory.limit();
    let budget = limit / 10 * 7;
    let with = |changes: u64, cache: u64| {
        let mut settings = settings.clone();
        settings.node.snapshot_bytes_max = changes;
        settings.node.block_cache_bytes = cache;
        settings.node.snapshots_at_once_max = at_once(cores, disk);
        memory_bytes_max(&settings, cores)
    };
    let mut changes = Node::default().snapshot_bytes_max;
    while changes > CHANGES_LEAST && with(changes, 0) > budget / 2 {
        changes /= 2;
    }
    let left = budget.saturating_sub(with(changes, 0)) / cores;
    // Reads beyond the memory of the process are the kernel's business, and of other processes.
    let share = left.min(limit / 4 / cores).clamp(CACHE_LEAST, CACHE_MOST);
    let cache = if share >= 32 << 20 { share >> 24 << 24 } else { share >> 20 << 20 };
    let shards = settings.cluster.shards;
    let fits = if with(changes, cache) <= budget {
        format!("with it the node stays within {} of {}", bytes_text(with(changes, cache)), bytes_text(limit))
    } else {
        format!(
            "the least; still a node of {shards} shards may need {} of {}: give it more memory",
            bytes_text(with(changes, cache)),
            bytes_text(limit)
        )
    };
    (
        choice(
            "snapshot_bytes_max",
            grouped(changes),
            format!(
                "Changes of {shards} shards are kept in memory up to twice this each, and as much again of \
                 those that tables are made of: {fits}."
            ),
        ),
        choice(
            "block_cache_bytes",
            grouped(cache),
            "Blocks of tables, a core: what is left of 7/10 of memory, for all a quarter of it at most.",
        ),
    )
}

fn at_once(cores: u64, disk: Option<&Disk>) -> u64 {
    let is_slow = disk.is_some_and(|disk| disk.bytes_per_s_max() < FAST_BYTES_PER_S);
    if is_slow { 1 } else { Node::default().snapshots_at_once_max.min(cores).max(1) }
}

fn tables_at_once(cores: u64, disk: Option<&Disk>) -> Choice {
    let count = at_once(cores, disk);
    let reason = match disk.map(Disk::bytes_per_s_max) {
        Some(rate) if rate < FAST_BYTES_PER_S => {
            format!(
                "The disk takes {} MB/s: tables one after the other leave the log its share.",
                rate / 1_000_000
            )
        }
        _ => format!(
            "{count} of {cores} cores make tables at once: more would not be done sooner on one disk."
        ),
    };
    choice("snapshots_at_once_max", count, reason)
}

/// How much memory is ready before it is needed.
fn heap_ready(host: &Host) -> Choice {
    let bytes = (host.memory.limit() / 16).min(READY_MOST) >> 22 << 22;
    let reason = "Made ready at the start, so that no answer waits while the kernel clears a page: a \
                  sixteenth of memory, 512 MiB at most.";
    choice("heap_ready_bytes", grouped(bytes), reason)
}

/// How long an executor looks for something to do before it sleeps.
fn spin(host: &Host) -> Choice {
    if host.cpus.quota_milli.is_some() {
        return choice("spin_us", 0, "A core that looks for work uses up the quota, and then stands still.");
    }
    let reason = "A busy core looks for more before it sleeps: longer than a message and a durable write of \
                  a fast disk take.";
    choice("spin_us", Node::default().spin_us, reason)
}

/// What the disk says to a person, in a few sentences.
#[must_use]
pub fn disk_words(host: &Host, settings: &Settings, disk: &Disk) -> Vec<String> {
    let Some(alone) = disk.alone() else {
        return vec!["The disk was not measured.".into()];
    };
    let mut words = Vec::new();
    if host.load_milli.is_some_and(|load| load > host.cpus.allowed.saturating_mul(1000)) {
        words.push("The host was busy while it was measured: do it again when it is not.".into());
    }
    words.push(format!(
        "A put waits for a write of 4 KiB on a quorum: half of them take {} or less, 99 of 100 {}.",
        micros_text(alone.p50_us),
        micros_text(alone.p99_us)
    ));
    if let Some(depth) = disk.depth_enough() {
        words.push(match depth {
            1 => "More lanes write no more small batches a second: here only larger ones bring more.".into(),
            depth => format!("{depth} lanes (cores) that write at once get nearly all of the disk."),
        });
    }
    let timeout_us = settings.cluster.election_timeout_ms.saturating_mul(1000);
    if alone.p99_us.saturating_mul(10) > timeout_us {
        words.push(format!(
            "An election timeout of {} ms is short for this disk: ten of its slowest hundredth should \
             fit. Set election_timeout_ms to {} or more on all nodes.",
            settings.cluster.election_timeout_ms,
            (alone.p99_us / 100).next_multiple_of(100)
        ));
    }
    words
}

/// A duration as people say it.
fn micros_text(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        _ => format!("{}.{} ms", us / 1000, us % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_as_in_the_profiles() {
        assert_eq!(grouped(67_108_864), "67_108_864");
        assert_eq!((grouped(0), grouped(999), grouped(1000)), ("0".into(), "999".into(), "1_000".into()));
    }
}
