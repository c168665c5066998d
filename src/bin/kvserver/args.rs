//! The command line of `kvserver`, and the settings that it comes to.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use distribkv::config::{LogFormat, PROFILE_NAMES, Settings, built_in_profile};
use distribkv::host::node::Planted;
use distribkv::log::RecoveredAt;

/// A node of a distribKV cluster: a strongly consistent, replicated key-value store.
///
/// A cluster of three on three hosts: the same --peers everywhere, and on each host its own --id. Every flag
/// can also be written with one dash. Without --peers or --config a node is a cluster of its own on
/// localhost:10001.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do other than run one node.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The node to run.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// The profile, where none is named.
const PROFILE_DEFAULT: &str = "balanced";

const AFTER_HELP: &str = "Exit codes:
  0   ended as asked
  1   a file or socket could not be used
  2   wrong usage or settings
  10  data directory in use
  11  address in use
  12  io_uring denied
  13  too little lockable memory
  14  cannot pin to a core
  15  the data directory is of another node or cluster, or not lost although --recover says so
  16  another format
  17  damaged files
  18  a log write failed
  19  refused by other nodes: another cluster, other settings or another id
  20  refused by other nodes: another data directory, or an older copy of it
  21  `kvserver tune` found that this host lacks what a node needs

Settings that must be the same on all nodes (--peers, --shards, --cluster-name, --election-timeout-ms,
--heartbeat-ms, lease_reads) cannot be changed node by node: a node that the majority refuses ends with 19.
Stop all nodes, then start all with the new values. (Peers, shards and name are fixed for good.)";

/// What to do other than run one node.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine, one process a node, until Ctrl-C.
    Local(LocalArgs),
    /// Make the data directory of one node of a new cluster from a backup, and end.
    ///
    /// Run it once for each node, with the very same file and the flags that the node is started with
    /// afterwards. The number of nodes may be another than the backup's, the number of shards may not. The
    /// hash of the file becomes part of the cluster's id: a node that was not restored from it is refused by
    /// the others. Revisions begin ahead of the backup's, and all sessions are ended.
    Restore(Box<RestoreArgs>),
    /// Check the data directory of a node that does not run. Nothing in it is changed.
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Print what is in the data directory of a node that does not run, one fact a line. Nothing in it is
    /// changed.
    Dump(DumpArgs),
    /// Look at this host, measure its disk and a CPU, and say what would be better. Nothing is changed.
    ///
    /// Give it the flags of the node that is to run, or its --config: what is wanted follows from them. The
    /// disk is measured in the data directory, or in what there is above it, with one scratch file of 32 MiB
    /// that is removed afterwards; a running node is not in the way, and is slower meanwhile.
    #[command(after_help = TUNE_HELP)]
    Tune(Box<TuneArgs>),
}

/// The flags of `kvserver restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup, as `kvctl backup` wrote it.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The node to restore: its directory must be empty, or not be there.
    #[command(flatten)]
    pub node: NodeArgs,
}

const VERIFY_HELP: &str =
    "Checked are identity and manifests (both copies), the header of every segment, the \
checksum, order and chain of every batch, the entries of every shard, and of every table each block, key and \
digest. One line for each thing that is found, and a summary.

Exit codes:
  0   clean; what a crash leaves (a torn tail, files that no manifest names), and padding of batches that
      is not zeros, which nothing reads, are told as notes
  1   a file could not be read
  2   wrong usage
  3   damaged, and repairable: from the other copy of a manifest or identity, or from the other nodes
  4   fatal: both copies of a manifest or identity are lost, an unknown format, or a cluster of one node
  10  data directory in use";

/// The flags of `kvserver verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Where the node keeps its data.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// The flags of `kvserver dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// Where the node keeps its data.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Print each fact as an object of JSON.
    #[arg(long)]
    pub json: bool,
    /// Only records and tables of this shard.
    #[arg(long, value_name = "N")]
    pub shard: Option<u32>,
    /// Only batches of this segment, in hexadecimal digits as in its name, and no tables.
    #[arg(long, value_name = "ID", value_parser = segment_id)]
    pub segment: Option<u64>,
    /// Values, and not only their lengths; of long ones the beginning.
    #[arg(long)]
    pub values: bool,
}

const TUNE_HELP: &str = "States:
  ok      as it should be
  better  it works, and could be better
  needed  a node does not start without it, or does not keep its promises
  -       the host does not say

Exit codes:
  0   nothing that is needed is missing
  1   a file could not be used
  2   wrong usage or settings, or the file of --write exists
  21  something that is needed is missing
  130 interrupted

Colours are for terminals; NO_COLOR=1 turns them off.";

/// The flags of `kvserver tune`.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Look only, measure nothing, and print only what is not as it should be.
    #[arg(long)]
    pub check: bool,
    /// About how long the disk is measured, and how long a CPU is then.
    #[arg(long, value_name = "S", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Write the settings that this host asks for as a profile, each with its reason.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Replace the file of --write where it exists.
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Print one object of JSON.
    #[arg(long)]
    pub json: bool,
    /// The node that is to run.
    #[command(flatten)]
    pub node: NodeArgs,
}

fn segment_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|error| format!("{error}: hexadecimal digits, as in seg-ID.log"))
}

/// The flags of `kvserver local`.
#[derive(Debug, Args)]
pub struct LocalArgs {
    /// How many nodes: 1 to 7.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    pub nodes: u16,
    /// The port of the first node; the others take the next ones.
    #[arg(long, default_value_t = 10_001, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: u16,
    /// Where the nodes keep their data, a directory each.
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
    /// Shards of the cluster, fixed when it is made.
    #[arg(long)]
    pub shards: Option<u32>,
    /// A set of defaults for all nodes: dev, balanced, low-latency, throughput, or a file of settings. Nodes
    /// share this machine: of every one but dev each has its part of the cores, and none is pinned.
    #[arg(long, value_name = "NAME|FILE", default_value = "dev")]
    pub profile: String,
    /// What is logged: error, warn, info, debug, trace.
    #[arg(long, default_value = "info")]
    pub log_level: String,
}

/// The flags of one node. Each stands for a key of the configuration file.
#[derive(Debug, Default, Args)]
pub struct NodeArgs {
    /// Which of the peers this node is, from 1.
    #[arg(long, value_name = "N")]
    pub id: Option<u32>,
    /// The addresses of all nodes, host:port, in the order of their ids.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub peers: Option<Vec<String>>,
    /// What tells this cluster from others [default: default].
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Where the node keeps its log [default: ./data/node-ID].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address to listen on [default: its own among the peers].
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Raft groups that the keys are spread over, fixed when the cluster is made [default: 8].
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,
    /// Cores to run on: auto (all CPUs that the process may use), a number of those, or a list of them as
    /// 0,2,4-7 [default: auto].
    #[arg(long, value_name = "auto|N|LIST")]
    pub cores: Option<String>,
    /// Leave it to the kernel where executors run.
    #[arg(long)]
    pub no_pin: bool,
    /// The size of a log segment [default: 67108864].
    #[arg(long, value_name = "BYTES")]
    pub segment_bytes: Option<u64>,
    /// A set of defaults: balanced, low-latency, throughput, dev, or a file of settings [default: balanced].
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// A file of settings (TOML: all of them; see tuning/three-nodes.toml). Flags go before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How log lines look [default: text].
    #[arg(long, value_name = "text|json")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// The election timeout in milliseconds, the same on all nodes [default: 1000].
    #[arg(long, value_name = "MS")]
    pub election_timeout_ms: Option<u64>,
    /// Milliseconds between a leader's heartbeats, the same on all nodes [default: 100].
    #[arg(long, value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// Bring this node back under its id after its data directory was lost for good.
    ///
    /// The node begins with an empty directory and gets everything from the others. It may have forgotten
    /// votes and acknowledged entries, so it neither votes nor acknowledges until a majority's worth of other
    /// nodes (both, of three) have told it their terms, and counts again once it has caught up. The lost
    /// directory must never be used again, and no other process may run under this id. A directory that
    /// is not lost is refused (15). Needed for one start only; later ones need it no more.
    #[arg(long)]
    pub recover: bool,
    /// End when the process with this id, which has started this one, ends.
    #[arg(long, hide = true, require_equals = true, value_name = "PID")]
    pub die_with_parent: Option<u32>,
    /// Make a classic mistake on purpose, to prove that it is found.
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub planted_bug: Option<String>,
}

impl NodeArgs {
    /// The settings that flags, file and profile come to, checked.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut layers = vec![self.profile_layer()?];
        if let Some(file) = &self.config {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("--config {}: {error}", file.display()))?;
            layers.push((format!("--config {}", file.display()), text));
        }
        layers.push(("flags".into(), self.flags_layer()));
        let mut settings = Settings::of_layers(&layers).map_err(|invalid| invalid.to_string())?;
        if settings.cluster.peers.is_empty() && self.config.is_none() {
            settings.cluster.peers = vec!["localhost:10001".into()];
            settings.node.id = settings.node.id.max(1);
        }
        settings.validate().map_err(|invalid| invalid.to_string())?;
        Ok(settings)
    }

    /// Whether this start recovers the node with these settings, and as of when.
    pub fn recovery(&self, settings: &Settings) -> Result<Option<RecoveredAt>, String> {
        if self.recover && settings.cluster.peers.len() == 1 {
            return Err("--recover: a cluster of one node has nobody to get its data from. Put its data \
                        directory back, or start it without --recover: it then begins anew, empty"
                .into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1));
        Ok(self.recover.then_some(RecoveredAt(now)))
    }

    /// The mistake to make on purpose.
    pub fn planted(&self) -> Result<Planted, String> {
        #[cfg(debug_assertions)]
        if let Some(name) = &self.planted_bug {
            return Planted::named(name)
                .ok_or_else(|| format!("--planted-bug {name:?} is none that is known"));
        }
        Ok(Planted::default())
    }

    /// The name of the profile: of a file what it is called, without the directories it lies in.
    pub fn profile_name(&self) -> String {
        let named = self.profile.as_deref().unwrap_or(PROFILE_DEFAULT);
        let file = Path::new(named).file_name();
        file.map_or_else(|| named.to_owned(), |file| file.to_string_lossy().into_owned())
    }

    fn profile_layer(&self) -> Result<(String, String), String> {
        let name = self.profile.as_deref().unwrap_or(PROFILE_DEFAULT);
        let text = match built_in_profile(name) {
            Some(text) => text.to_owned(),
            None => std::fs::read_to_string(name).map_err(|error| {
                format!("--profile {name}: {error}; use {} or a file", PROFILE_NAMES.join(", "))
            })?,
        };
        Ok((format!("--profile {name}"), text))
    }

    /// The flags that were given, as the file that would say the same.
    fn flags_layer(&self) -> String {
        let mut cluster = String::from("[cluster]\n");
        let mut node = String::from("[node]\n");
        let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
        let put = |table: &mut String, key: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing into a String cannot fail.
                let _ = writeln!(table, "{key} = {value}");
            }
        };
        let peers = self
            .peers
            .as_ref()
            .map(|peers| peers.iter().map(|peer| text(peer)).collect::<Vec<_>>().join(", "));
        put(&mut cluster, "peers", peers.map(|peers| format!("[{peers}]")));
        put(&mut cluster, "name", self.cluster_name.as_deref().map(text));
        put(&mut cluster, "shards", self.shards.map(|value| value.to_string()));
        put(&mut cluster, "election_timeout_ms", self.election_timeout_ms.map(|value| value.to_string()));
        put(&mut cluster, "heartbeat_ms", self.heartbeat_ms.map(|value| value.to_string()));
        put(&mut node, "id", self.id.map(|value| value.to_string()));
        put(&mut node, "data_dir", self.data_dir.as_ref().map(|dir| text(&dir.to_string_lossy())));
        put(&mut node, "listen", self.listen.as_deref().map(text));
        put(&mut node, "cores", self.cores.as_deref().map(text));
        put(&mut node, "pin", self.no_pin.then(|| "false".to_owned()));
        put(&mut node, "segment_bytes", self.segment_bytes.map(|value| value.to_string()));
        let format = self.log_format.map(|format| match format {
            LogFormat::Text => text("text"),
            LogFormat::Json => text("json"),
        });
        put(&mut node, "log_format", format);
        put(&mut node, "log_level", self.log_level.as_deref().map(text));
        cluster + &node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let line =
            ["kvserver", "--id", "2", "--peers", "a:1,b:2,c:3", "--no-pin", "--cores", "1", "--shards", "4"];
        let settings = Cli::parse_from(line).node.settings().expect("valid flags");
        assert_eq!(settings.cluster.peers, ["a:1", "b:2", "c:3"]);
        assert_eq!((settings.node.id, settings.node.pin, settings.cluster.shards), (2, false, 4));
    }

    #[test]
    fn every_profile_has_its_name_and_a_file_is_one_too() {
        for (name, spin_us) in [("balanced", 200), ("low-latency", 200), ("throughput", 200), ("dev", 0)] {
            let settings = Cli::parse_from(["kvserver", "--profile", name]).node.settings();
            assert_eq!(settings.expect("a profile of ours").node.spin_us, spin_us, "{name}");
        }
        let error = Cli::parse_from(["kvserver", "--profile", "fast"]).node.settings().expect_err("no file");
        assert!(error.contains("low-latency, throughput"), "{error}");
    }

    #[test]
    fn a_profile_has_a_name() {
        let name = |line: &[&str]| Cli::parse_from([&["kvserver"][..], line].concat()).node.profile_name();
        assert_eq!(name(&[]), "balanced");
        assert_eq!(name(&["--profile", "dev"]), "dev");
        assert_eq!(name(&["--profile", "tuning/three-nodes.toml"]), "three-nodes.toml");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let line = ["kvserver", "--id", "4", "--peers", "a:1,b:2,c:3"];
        let error = Cli::parse_from(line).node.settings().expect_err("there is no node 4");
        assert!(error.contains("--id"), "{error}");
    }

    #[test]
    fn only_a_node_with_others_is_recovered() {
        let alone = Cli::parse_from(["kvserver", "--recover"]).node;
        let settings = alone.settings().expect("valid flags");
        let error = alone.recovery(&settings).expect_err("there is nobody else");
        assert!(error.contains("--recover"), "{error}");
        let of_three = |more: &[&'static str]| {
            let line = ["kvserver", "--id", "2", "--peers", "a:1,b:2,c:3"];
            let node = Cli::parse_from(line.iter().chain(more)).node;
            let settings = node.settings().expect("valid flags");
            node.recovery(&settings).expect("there are others")
        };
        assert_eq!(of_three(&[]), None);
        assert!(of_three(&["--recover"]) > Some(RecoveredAt::NEVER));
    }
}
