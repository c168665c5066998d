//! The command line: the doc comments are the help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

// A paragraph is one line, wrapped where it is shown.
const AFTER_HELP: &str = "\
Keys and values are bytes and are taken as they are given. `-` as a value reads standard input; `--` ends \
the flags, so that a key or a value may begin with a dash: kvctl put -- -k -v

With --output json every answer is one JSON object on a line. Bytes are in a field of their name (`key`, \
`value`) where they are UTF-8, otherwise, as base64, in that name with `_base64` behind it (`value_base64`).

Exit status:
  0  done
  1  no: key not found, comparison failed, `otherwise` applied, a node not serving
  2  the command line or the request is at fault
  3  nothing was executed: cluster not reached, overloaded, or its disks full
  4  the outcome is not known: the change may have been made, or may yet be

Examples:
  kvctl put greeting hello
  kvctl get greeting
  kvctl put --if-mod-revision 0 lock me      (only if there is no such key)
  tar c . | kvctl put backup -
  kvctl scan --prefix user/ --limit 10
  kvctl backup monday.kvbackup
  kvctl --endpoints 10.0.0.1:10001,10.0.0.2:10001 status";

const TXN_HELP: &str = "\
The file is JSON. If every condition holds, `then` is applied, otherwise `otherwise`; all of it in one step. \
All keys must be of one shard: give them one {tag}. Any part may be left out.

A condition names a key, one of `version`, `create_revision`, `mod_revision`, `value`, and a `comparison`: \
`equal` (when it is left out), `not_equal`, `less`, `greater`. A missing key has version and revisions 0. An \
operation is one of `get`, `put`, `append`, `delete`; `put` and `delete` may have \"return_previous\": true. \
`key` and `value` are text; `key_base64` and `value_base64` are for any bytes.

Move 5 from one account to another, if nobody has changed them since they were read:

  {
    \"conditions\": [
      {\"key\": \"{bank}alice\", \"mod_revision\": 17},
      {\"key\": \"{bank}bob\", \"mod_revision\": 12}
    ],
    \"then\": [
      {\"put\": {\"key\": \"{bank}alice\", \"value\": \"95\"}},
      {\"put\": {\"key\": \"{bank}bob\", \"value\": \"105\"}}
    ],
    \"otherwise\": [
      {\"get\": {\"key\": \"{bank}alice\"}},
      {\"get\": {\"key\": \"{bank}bob\"}}
    ]
  }

Take a lock that nobody has, from standard input:

  echo '{\"conditions\": [{\"key\": \"lock\", \"version\": 0}],
         \"then\": [{\"put\": {\"key\": \"lock\", \"value\": \"me\"}}]}' | kvctl txn -

Exit status 0: `then` was applied; 1: `otherwise` was.";

/// Talks to a distribKV cluster.
#[derive(Debug, Parser)]
#[command(name = "kvctl", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Args {
    /// Nodes of the cluster, as host:port; any of them will do, the others are learnt from it
    #[arg(
        long,
        env = "KVCTL_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "localhost:10001,localhost:10002,localhost:10003",
        global = true
    )]
    pub endpoints: Vec<String>,
    /// How answers are printed: text, or json with one object on a line
    #[arg(
        long,
        value_enum,
        default_value_t = Format::Text,
        value_name = "FORMAT",
        hide_possible_values = true,
        global = true
    )]
    pub output: Format,
    /// How long the command may take: 500ms, 5s, 2m, or a number of seconds
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME", global = true)]
    pub timeout: Duration,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people and pipes.
    Text,
    /// One JSON object on a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a key
    Put {
        /// The key
        key: OsString,
        /// The value; - reads it from standard input
        value: OsString,
        /// Only if this is the key's mod revision; 0: only if there is no such key
        #[arg(long, value_name = "REVISION")]
        if_mod_revision: Option<u64>,
        /// Also prints the value that was replaced
        #[arg(long)]
        previous: bool,
    },
    /// Prints the value of a key: exactly its bytes, with a newline behind them only on a terminal
    Get {
        /// The key
        key: OsString,
        /// Takes whatever the node asked has, without asking the others
        #[arg(long)]
        stale: bool,
    },
    /// Appends to the value of a key; a missing key counts as empty
    Append {
        /// The key
        key: OsString,
        /// What is appended; - reads it from standard input
        value: OsString,
        /// Only if this is the key's mod revision; 0: only if there is no such key
        #[arg(long, value_name = "REVISION")]
        if_mod_revision: Option<u64>,
    },
    /// Removes a key
    Delete {
        /// The key
        key: OsString,
        /// Only if this is the key's mod revision
        #[arg(long, value_name = "REVISION")]
        if_mod_revision: Option<u64>,
        /// Also prints the value that was removed
        #[arg(long)]
        previous: bool,
    },
    /// Prints keys and values in order, a tab between the two
    ///
    /// In both, a backslash is printed as \\, a tab as \t, a newline as \n, and what is neither UTF-8 nor
    /// printable as \xNN. The keys are read in parts: the whole is not one snapshot.
    Scan {
        /// The keys that begin with this
        #[arg(long, value_name = "KEY", conflicts_with_all = ["start", "end"])]
        prefix: Option<OsString>,
        /// From this key on
        #[arg(long, value_name = "KEY")]
        start: Option<OsString>,
        /// Up to this key, without it
        #[arg(long, value_name = "KEY")]
        end: Option<OsString>,
        /// At most so many; 0: all
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        limit: u64,
        /// Without the values
        #[arg(long)]
        keys_only: bool,
    },
    /// Applies a transaction
    #[command(after_long_help = TXN_HELP, after_help = "See `kvctl txn --help` for the file and examples.")]
    Txn {
        /// The file that describes it; - reads standard input
        file: PathBuf,
    },
    /// What every node says of itself
    Status {
        /// Also every replica and every lane
        #[arg(long)]
        all: bool,
    },
    /// Where the time of requests goes, stage by stage, on every core
    ///
    /// Looks at every node twice. A stage is work of its core (frames, decode, route, turn with apply in it,
    /// encode, send) or has the requests wait (queue, batch, write, replicate); items are streams, calls,
    /// events, batches, entries or bytes. Percentiles are powers of two that so many stayed below.
    Stages {
        /// The time between the two looks: 500ms, 5s, 2m, or a number of seconds
        #[arg(long, value_parser = duration, default_value = "5s", value_name = "TIME")]
        interval: Duration,
    },
    /// The routing table: slots, leaders, voters
    Shards,
    /// Whether the nodes serve
    Health {
        /// The service asked for, as in shard/0 or distribkv.v1.KV; left out: the node as a whole
        #[arg(default_value = "")]
        service: String,
        /// Goes on and prints every change
        #[arg(long)]
        watch: bool,
    },
    /// Hands the leadership of a shard over
    Transfer {
        /// The shard
        shard: u32,
        /// The node that is to lead; left out: the best follower
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        node: Option<u32>,
    },
    /// Has the nodes make tables of what they hold, and waits until those are durable
    ///
    /// A table takes the place of the log before it, so that a node starts sooner afterwards. Nodes make
    /// tables by themselves; this asks for them at once. Every endpoint is asked, and has a line. Exit status
    /// 1: some did not.
    Snapshot {
        /// The shards; left out: all of them
        shards: Vec<u32>,
    },
    /// Writes a backup of the whole cluster into a file
    ///
    /// Each shard is in it at one revision, with every change that was acknowledged before the command was
    /// given; writes go on meanwhile. The endpoints are asked in turn until one has made all of it. The file
    /// is checked as it comes and has its name when it is whole and durable; `kvserver restore` makes a new
    /// cluster of it. --timeout is how long a node may be silent.
    Backup {
        /// The file; - writes to standard output, and what is said of it to standard error
        file: PathBuf,
    },
}

/// A time as in 500ms, 5s, 2m, or a number of seconds; not zero.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "write it as 500ms, 5s or 2m".to_owned())?;
    let millis = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => return Err("the units are ms, s and m".to_owned()),
    };
    match millis {
        Some(millis) if (1..=86_400_000).contains(&millis) => Ok(Duration::from_millis(millis)),
        Some(_) | None => Err("it must be from 1ms to a day".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in
            ["", "s", "5h", "-1s", "0", "0ms", "1.5s", "99999999999999999999s", "18446744073709551615m"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
