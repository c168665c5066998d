//! Settings: what they mean, their defaults and bounds, and where they come from.
//!
//! Two structs, by who must agree. [`Cluster`] is the same on every node: its hash travels in every hello and
//! a node that differs is refused. [`Node`] is each node's own. Validation refuses, it never repairs.
//!
//! A setting comes from the first of these that has it: a flag, the file of `--config`, the profile of
//! `--profile`, the default. A file of either kind is TOML with the tables `[cluster]` and `[node]`; a key
//! that is none is refused.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// The settings that must agree on every node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// What tells this cluster from others on the same hosts. Part of the cluster id. Default `default`.
    pub name: String,
    /// The address of each node, `host:port`, in the order of their ids. 1 to 7 of them. Part of the cluster
    /// id.
    pub peers: Vec<String>,
    /// How many Raft groups the keys are spread over. 1 to 1024, fixed when the cluster is made. Default 8.
    /// Part of the cluster id.
    pub shards: u32,
    /// The election timeout T in milliseconds: a follower that hears nothing for T to 1.5 T stands for
    /// election. 50 to 60,000. Default 1000.
    pub election_timeout_ms: u64,
    /// Milliseconds between two heartbeats of a leader. At least 5, at most a third of the election timeout;
    /// fewer than a 200th of that timeout, or 50, count as those. Default 100.
    pub heartbeat_ms: u64,
    /// Whether linearizable reads may rest on the leader's lease, instead of a round of heartbeats each:
    /// faster, and only as good as the nodes' clocks run at the same rate. Default false.
    pub lease_reads: bool,
}

/// The settings of one node.
///
/// What a node needs of memory is bounded by them, whatever its data:
/// - changes: twice `snapshot_bytes_max` for each shard (four times where it follows, and makes its tables
///   more slowly than its leader), and as much again for each whose table is being made:
///   `snapshots_at_once_max`, and no more than one a core;
/// - blocks of tables: `block_cache_bytes` for each core;
/// - what finds them: a filter of 10 bits a key, and for each block of 16 KiB its first key and 24 bytes.
///   With keys of 16 bytes and values of 256 that is 2 bytes a key, under a hundredth of the data; of a
///   shard whose table is being made three times that;
/// - what is on its way: 8 MiB of recent entries for each shard, 16 MiB of read batches for each lane, and
///   what `calls_max` and the log's queue let in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Which of the peers this node is, from 1. No default.
    pub id: u32,
    /// Where its log and identity are kept. Default `./data/node-<id>`.
    pub data_dir: Option<PathBuf>,
    /// The address to listen on, `host:port`. Default: its own address among the peers.
    pub listen: Option<String>,
    /// The cores to run on: `auto` (all CPUs that the process may use), a number of those, or a list of them
    /// as `0,2,4-7`. Default `auto`.
    pub cores: String,
    /// Whether each executor is pinned to its core. Default true.
    pub pin: bool,
    /// The size of a log segment in bytes, a multiple of 4096, at least two largest batches. Default 64 MiB.
    pub segment_bytes: u64,
    /// The most bytes that one batch write carries. At least 5 MiB (the largest entry fits), a multiple of
    /// 4096. Default 8 MiB.
    pub batch_bytes_max: u64,
    /// Microseconds that a batch waits for company when no write is in flight. 0 to 10,000. Default 0.
    pub batch_delay_us: u64,
    /// The segments that a lane keeps before shards that need the oldest one are made into tables for it:
    /// what the log takes on disk is about so many segments, and two more. 2 to 65,000. Default 8.
    pub log_segments_max: u64,
    /// The most bytes of changes to one shard that are kept in memory, and replayed from the log by a start,
    /// before they are made into a table; of twice as many and more all are refused but deletes, of four
    /// times as many those, too. Half of its table is enough, from `snapshot_bytes_min` on. What a node needs
    /// of memory grows with three times this for each shard. 64 KiB to 1 GiB. Default 32 MiB.
    pub snapshot_bytes_max: u64,
    /// Fewer bytes of changes to one shard than these wait for their time, or until the log has more than
    /// `log_segments_max` segments, however small the shard's table. Where the same keys are changed again
    /// and again, each is read from the table once for so many bytes, and the table written once; a start
    /// replays them. It counts as `snapshot_bytes_max` where it is more. 64 KiB to 1 GiB. Default 4 MiB.
    pub snapshot_bytes_min: u64,
    /// Seconds after which fewer changes, an eighth of the shard's table, are made into a table. 1 to 86,400.
    /// Default 30.
    pub snapshot_interval_s: u64,
    /// How many of the node's cores may make tables at the same time; each makes one at a time. More are not
    /// done sooner where they share a disk, and each holds in memory what it is made of, and as much of the
    /// disk as its table. One is not enough where many cores are written to: making a table has a third of
    /// its core at most. 1 to 256. Default 4.
    pub snapshots_at_once_max: u64,
    /// How many of the node's cores may fetch tables from other nodes at the same time, to catch up or for a
    /// repair; each fetches one at a time. More are back sooner, and take more from what the node, its peers
    /// and the network do beside it. 1 to 256. Default 1.
    pub fetches_at_once_max: u64,
    /// How many entries of a shard the log keeps before the end of its table, so that a follower that was
    /// away for a moment need not fetch the table. 0 to 1,000,000. Default 4096.
    pub snapshot_keep_entries: u64,
    /// The most bytes of tables' blocks that one core keeps in memory. 1 MiB to 1 TiB. Default 128 MiB.
    pub block_cache_bytes: u64,
    /// Bytes of memory that are made ready at a start, before there is anything to keep in them: nobody waits
    /// then while the kernel clears a page of them. None where these settings may come to need more than
    /// seven tenths of what the process may use, and fewer where a quarter of that would not be left.
    /// 0 (none) to 512 MiB. Default 128 MiB.
    pub heap_ready_bytes: u64,
    /// Bytes of the disk that are kept free beyond what the node needs for its own ends (its largest table
    /// once more, the changes that no table holds yet, and two segments a lane). Below, what makes the data
    /// grow is refused. 0 to 1 TiB. Default 0.
    pub disk_reserve_bytes: u64,
    /// The most bytes of its files that one core reads in a second to see whether they are still whole,
    /// though nobody asks for what is in them. 0 (never) to 1 GiB. Default 4 MiB.
    pub scrub_bytes_per_s: u64,
    /// The least seconds from the begin of one round of that to the begin of the next. 1 to 31,536,000.
    /// Default 3600.
    pub scrub_interval_s: u64,
    /// The most requests of one core's clients that have no answer yet; beyond, RESOURCE_EXHAUSTED. 16 to
    /// 16,384. Default 16,384.
    pub calls_max: u64,
    /// Microseconds that an executor with nothing to do looks for more before it sleeps, while its waits are
    /// shorter than that: answers sooner, for idle time of the core. Without effect where the node finds a
    /// quota of CPU at its start. 0 to 1000. Default 200.
    pub spin_us: u64,
    /// How log lines look: `text` or `json`. Default `text`.
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter as
    /// `info,distribkv::raft=debug`. Default `info`.
    pub log_level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// All settings of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What must agree on every node.
    pub cluster: Cluster,
    /// What is this node's own.
    pub node: Node,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "default".into(),
            peers: Vec::new(),
            shards: 8,
            election_timeout_ms: 1000,
            heartbeat_ms: 100,
            lease_reads: false,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            id: 0,
            data_dir: None,
            listen: None,
            cores: "auto".into(),
            pin: true,
            segment_bytes: 64 << 20,
            batch_bytes_max: 8 << 20,
            batch_delay_us: 0,
            log_segments_max: 8,
            snapshot_bytes_max: 32 << 20,
            snapshot_bytes_min: 4 << 20,
            snapshot_interval_s: 30,
            snapshots_at_once_max: 4,
            fetches_at_once_max: 1,
            snapshot_keep_entries: 4096,
            block_cache_bytes: 128 << 20,
            heap_ready_bytes: 128 << 20,
            disk_reserve_bytes: 0,
            scrub_bytes_per_s: 4 << 20,
            scrub_interval_s: 3600,
            calls_max: 16_384,
            spin_us: 200,
            log_format: LogFormat::Text,
            log_level: "info".into(),
        }
    }
}

/// The profile for production: the defaults, in the open.
pub const PROFILE_BALANCED: &str = include_str!("../tuning/balanced.toml");
/// The profile for answers as soon as they can be: short queues, a leader that is soon replaced.
pub const PROFILE_LOW_LATENCY: &str = include_str!("../tuning/low-latency.toml");
/// The profile for as much as can be: large segments, many changes a table, more memory.
pub const PROFILE_THROUGHPUT: &str = include_str!("../tuning/throughput.toml");
/// The profile for a developer's machine: small files, nothing pinned.
pub const PROFILE_DEV: &str = include_str!("../tuning/dev.toml");

/// The names of the profiles that are built in.
pub const PROFILE_NAMES: [&str; 4] = ["balanced", "low-latency", "throughput", "dev"];

/// The text of a profile that is built in.
#[must_use]
pub fn built_in_profile(name: &str) -> Option<&'static str> {
    match name {
        "balanced" => Some(PROFILE_BALANCED),
        "low-latency" => Some(PROFILE_LOW_LATENCY),
        "throughput" => Some(PROFILE_THROUGHPUT),
        "dev" => Some(PROFILE_DEV),
        _ => None,
    }
}

/// The most nodes of a cluster.
const NODES_MAX: usize = 7;
/// The most shards of a cluster.
const SHARDS_MAX: u32 = 1024;
/// The most of the same that cores of a node do at the same time: as many as they may be.
const AT_ONCE_MAX: u64 = Cores::MAX as u64;
/// The least size of the largest batch: an entry of 4 MiB fits.
const BATCH_BYTES_MIN: u64 = 5 << 20;

/// Why settings are refused: the flag or key, and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The flag or key.
    pub setting: String,
    /// What is wrong with it and what it should be.
    pub reason: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.reason)
    }
}

impl std::error::Error for Invalid {}

fn invalid(setting: &str, reason: impl Into<String>) -> Invalid {
    Invalid { setting: setting.into(), reason: reason.into() }
}

impl Settings {
    /// Settings of several layers of TOML, a later one over an earlier. Each comes with the name that an
    /// error bears.
    pub fn of_layers(layers: &[(String, String)]) -> Result<Self, Invalid> {
        let mut merged = toml::Table::new();
        for (name, text) in layers {
            let table: toml::Table =
                text.parse().map_err(|error: toml::de::Error| invalid(name, error.message()))?;
            // Each layer is checked alone, so that an error names the file that it is in.
            Self::deserialize(table.clone()).map_err(|error| invalid(name, error.message()))?;
            merge(&mut merged, table);
        }
        Self::deserialize(merged).map_err(|error| invalid("settings", error.message()))
    }

    /// Checks every bound and every relation between settings.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.cluster.validate()?;
        self.node.validate()?;
        let nodes = self.cluster.peers.len();
        if self.node.id == 0 || self.node.id as usize > nodes {
            let got = self.node.id;
            return Err(invalid(
                "--id",
                format!("is {got}, and --peers names {nodes} nodes: use 1 to {nodes}"),
            ));
        }
        Ok(())
    }

    /// Where this node keeps its log and identity.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.node.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("./data/node-{}", self.node.id)))
    }

    /// The address that this node listens on.
    #[must_use]
    pub fn listen(&self) -> &str {
        match &self.node.listen {
            Some(listen) => listen,
            None => &self.cluster.peers[self.node.id as usize - 1],
        }
    }
}

impl Cluster {
    fn validate(&self) -> Result<(), Invalid> {
        if self.name.is_empty() || self.name.len() > 64 {
            return Err(invalid("--cluster-name", "has to be 1 to 64 bytes long"));
        }
        if self.peers.is_empty() || self.peers.len() > NODES_MAX {
            let got = self.peers.len();
            return Err(invalid(
                "--peers",
                format!("names {got} nodes: use 1 to {NODES_MAX}, as host:port,host:port"),
            ));
        }
        for (at, peer) in self.peers.iter().enumerate() {
            check_address("--peers", peer)?;
            if self.peers[..at].contains(peer) {
                return Err(invalid("--peers", format!("names {peer} twice")));
            }
        }
        check_range("--shards", u64::from(self.shards), 1, u64::from(SHARDS_MAX))?;
        check_range("--election-timeout-ms", self.election_timeout_ms, 50, 60_000)?;
        check_range("--heartbeat-ms", self.heartbeat_ms, 5, self.election_timeout_ms / 3)
    }

    /// The settings that must agree, as one line: what is hashed, and what a person compares.
    #[must_use]
    pub fn agreement(&self) -> String {
        format!(
            "nodes={} shards={} election_timeout_ms={} heartbeat_ms={} lease_reads={}",
            self.peers.len(),
            self.shards,
            self.election_timeout_ms,
            self.heartbeat_ms,
            self.lease_reads
        )
    }

    /// What the cluster id is a hash of.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("name={} peers={} shards={}", self.name, self.peers.join(","), self.shards)
    }
}

impl Node {
    fn validate(&self) -> Result<(), Invalid> {
        if let Some(listen) = &self.listen {
            check_address("--listen", listen)?;
        }
        self.cores()?;
        check_range("batch_bytes_max", self.batch_bytes_max, BATCH_BYTES_MIN, 1 << 30)?;
        check_range("--segment-bytes", self.segment_bytes, 2 * self.batch_bytes_max, 4 << 30)?;
        check_multiple("batch_bytes_max", self.batch_bytes_max)?;
        check_multiple("--segment-bytes", self.segment_bytes)?;
        check_range("batch_delay_us", self.batch_delay_us, 0, 10_000)?;
        check_range("log_segments_max", self.log_segments_max, 2, 65_000)?;
        check_range("snapshot_bytes_max", self.snapshot_bytes_max, 64 << 10, 1 << 30)?;
        check_range("snapshot_bytes_min", self.snapshot_bytes_min, 64 << 10, 1 << 30)?;
        check_range("snapshot_interval_s", self.snapshot_interval_s, 1, 86_400)?;
        check_range("snapshots_at_once_max", self.snapshots_at_once_max, 1, AT_ONCE_MAX)?;
        check_range("fetches_at_once_max", self.fetches_at_once_max, 1, AT_ONCE_MAX)?;
        check_range("snapshot_keep_entries", self.snapshot_keep_entries, 0, 1_000_000)?;
        check_range("block_cache_bytes", self.block_cache_bytes, 1 << 20, 1 << 40)?;
        check_range("heap_ready_bytes", self.heap_ready_bytes, 0, 512 << 20)?;
        check_range("disk_reserve_bytes", self.disk_reserve_bytes, 0, 1 << 40)?;
        check_range("scrub_bytes_per_s", self.scrub_bytes_per_s, 0, 1 << 30)?;
        check_range("scrub_interval_s", self.scrub_interval_s, 1, 31_536_000)?;
        check_range("calls_max", self.calls_max, 16, 16_384)?;
        check_range("spin_us", self.spin_us, 0, 1000)
    }

    /// The cores asked for.
    pub fn cores(&self) -> Result<Cores, Invalid> {
        Cores::parse(&self.cores)
    }
}

/// Which cores to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// All that the process may use.
    Auto,
    /// That many.
    Count(u32),
    /// These.
    List(Vec<u32>),
}

impl Cores {
    /// The most cores of a node.
    const MAX: u32 = 256;

    /// Reads `auto`, `4` or `0,2,4-7`. One number is a count; a list of one core is written `3-3`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong =
            || invalid("--cores", format!("{text:?} is neither auto, a number nor a list as 0,2,4-7"));
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Ok(count) = text.parse::<u32>() {
            check_range("--cores", u64::from(count), 1, u64::from(Self::MAX))?;
            return Ok(Self::Count(count));
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u32 = first.trim().parse().map_err(|_| wrong())?;
            let last: u32 = last.trim().parse().map_err(|_| wrong())?;
            if first > last || last >= 4096 {
                return Err(wrong());
            }
            cores.extend(first..=last);
        }
        cores.sort_unstable();
        cores.dedup();
        check_range("--cores", cores.len() as u64, 1, u64::from(Self::MAX))?;
        Ok(Self::List(cores))
    }
}

/// Lays `over` over `under`, table by table.
fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn check_range(setting: &str, value: u64, least: u64, most: u64) -> Result<(), Invalid> {
    if value < least || value > most {
        return Err(invalid(setting, format!("is {value}: use {least} to {most}")));
    }
    Ok(())
}

fn check_multiple(setting: &str, value: u64) -> Result<(), Invalid> {
    if !value.is_multiple_of(4096) {
        return Err(invalid(setting, format!("is {value}: use a multiple of 4096")));
    }
    Ok(())
}

fn check_address(setting: &str, address: &str) -> Result<(), Invalid> {
    let well_formed = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    if !well_formed {
        return Err(invalid(setting, format!("{address:?} is not host:port")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Settings {
        let text = "[cluster]\npeers = [\"a:1\", \"b:2\", \"c:3\"]\n[node]\nid = 2";
        Settings::of_layers(&[("test".into(), text.into())]).expect("well formed")
    }

    #[test]
    fn a_later_layer_wins_key_by_key() {
        let layers = [
            ("profile".into(), "[node]\npin = false\nsegment_bytes = 1".into()),
            ("flags".into(), "[node]\nsegment_bytes = 2".into()),
        ];
        let settings = Settings::of_layers(&layers).expect("well formed");
        assert!(!settings.node.pin);
        assert_eq!(settings.node.segment_bytes, 2);
    }

    #[test]
    fn a_key_that_is_none_is_refused_with_its_file() {
        let layers = [("file.toml".into(), "[node]\nshards = 3".into())];
        let error = Settings::of_layers(&layers).expect_err("shards is the cluster's");
        assert_eq!(error.setting, "file.toml");
        assert!(error.reason.contains("shards"), "{error}");
    }

    #[test]
    fn bounds_are_held() {
        assert_eq!(three().validate(), Ok(()));
        assert_eq!(three().listen(), "b:2");
        type Break = fn(&mut Settings);
        let break_it: [(&str, Break); 10] = [
            ("--id", |s| s.node.id = 4),
            ("--peers", |s| s.cluster.peers[1] = "nowhere".into()),
            ("--peers", |s| s.cluster.peers[1] = "a:1".into()),
            ("--shards", |s| s.cluster.shards = 0),
            ("--heartbeat-ms", |s| s.cluster.heartbeat_ms = 500),
            ("--segment-bytes", |s| s.node.segment_bytes = 4096),
            ("snapshots_at_once_max", |s| s.node.snapshots_at_once_max = 0),
            ("fetches_at_once_max", |s| s.node.fetches_at_once_max = 257),
            ("--cores", |s| s.node.cores = "many".into()),
            ("--listen", |s| s.node.listen = Some("x".into())),
        ];
        for (setting, change) in break_it {
            let mut settings = three();
            change(&mut settings);
            assert_eq!(settings.validate().expect_err(setting).setting, setting);
        }
    }

    #[test]
    fn cores_are_read() {
        assert_eq!(Cores::parse("auto"), Ok(Cores::Auto));
        assert_eq!(Cores::parse("3"), Ok(Cores::Count(3)));
        assert_eq!(Cores::parse("0,2,4-6,2"), Ok(Cores::List(vec![0, 2, 4, 5, 6])));
        for wrong in ["", "0", "1,", "5-2", "-1"] {
            assert!(Cores::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_profiles_are_settings() {
        for name in PROFILE_NAMES {
            let profile = built_in_profile(name).expect("it is built in");
            let layers = [("profile".into(), profile.into())];
            let mut settings = Settings::of_layers(&layers).expect("a profile of ours");
            settings.cluster.peers = vec!["localhost:1".into()];
            settings.node.id = 1;
            assert_eq!(settings.validate(), Ok(()), "{name}");
        }
        assert_eq!(built_in_profile("balance"), None);
    }

    #[test]
    fn the_balanced_profile_is_the_defaults() {
        let layers = [("profile".into(), PROFILE_BALANCED.into())];
        assert_eq!(Settings::of_layers(&layers), Ok(Settings::default()));
    }
}
