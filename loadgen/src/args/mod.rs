//! The command line, and the settings that come of it once everything that can be checked has been.
//!
//! Invariants: nothing is opened before [`Settings::check`] has passed, but the files that are named: those
//! that are read, so that a mistake in them is told before anything is loaded, and those that are written, so
//! that a long run does not end with nowhere to write. A refusal exits with 2.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

mod distribution;
mod limit;
mod settings;
mod sizes;
mod versus;
mod workload;

pub use distribution::KeyDistribution;
pub use limit::Limits;
pub use settings::{FindMax, Settings, TraceSettings};
pub use sizes::{SizeRange, VALUE_BYTES_MAX, ValueSizes, WeightedSize};
pub use versus::{Against, ROUNDS_MAX, Versus};
pub use workload::{Kind, Mix, Target, Workload};

/// Longest span that an option may name.
const SPAN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Puts load on a distribKV cluster, on etcd, or on any gRPC server's health check, and reports throughput
/// and latency.
///
/// Exit status: 0; 1 if no measured operation succeeded, more of them failed than --errors-max-percent
/// allows, --load or --preload left a key unwritten, --audit found a wrong answer or had nothing to check,
/// or no rate holds the limits of --find-max; 2 for a wrong command line; 3 if no endpoint could be reached.
/// With --compare the first run that fails ends it with these, and an interruption before the first whole
/// round with 1.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Nodes to start from, host:port, separated by commas. distribKV tells of the others; an etcd's nodes
    /// have to be named all, and calls go round among them.
    #[arg(long, required = true, value_delimiter = ',', value_name = "HOST:PORT,...")]
    pub endpoints: Vec<String>,

    /// What is called.
    ///
    /// kv: the key-value store, by a call for each operation. pipeline: the same by Pipeline streams, which
    /// have no scans. health: the standard health check, of the endpoints alone. etcd: etcd's version 3 API,
    /// which has no append.
    #[arg(long, value_enum, default_value_t = Target::Kv)]
    pub target: Target,

    /// What the calls do: put, get, append, delete, mixed:<percent of gets>, cas, scan, ycsb-a ... ycsb-f.
    ///
    /// mixed: the rest are puts. cas: a put on the condition that the key is as this thread last saw it; one
    /// that fails is an operation, is told apart as a conflict, and teaches what is there, so that the first
    /// call of every key is one. scan: up to --scan-length keys from the chosen one on.
    ///
    /// YCSB's core workloads, with the distribution of keys that each has unless told otherwise: a: 50 % get,
    /// 50 % put, zipfian. b: 95 % get, 5 % put, zipfian. c: get, zipfian. d: 95 % get, 5 % insert, latest.
    /// e: 95 % scan, 5 % insert, zipfian. f: 50 % get, 50 % read-modify-write, zipfian. A read-modify-write
    /// is a get and then a put of the same key, timed as one operation. An insert writes the key after the
    /// last: the first is number --keys; the next run begins there again.
    ///
    /// A get or delete of a key that is not there counts as an operation and is told apart as not found. An
    /// append makes its value grow with every call: once a value is at its limit (1 MiB) the store refuses,
    /// which is an error of its own kind. So choose --keys such that keys * 1 MiB exceeds what the run will
    /// append.
    #[arg(long, value_name = "WORKLOAD")]
    pub workload: Option<Workload>,

    /// Write every key once, then end. --workload, --rate, --duration and --warmup do not apply.
    #[arg(long, conflicts_with_all = ["workload", "rate", "duration", "warmup", "trace", "preload"])]
    pub load: bool,

    /// Write every key once before the run, by as many calls at a time as --in-flight says, not measured.
    #[arg(long, conflicts_with = "trace")]
    pub preload: bool,

    /// Replay the operations of a text file in place of a workload.
    ///
    /// One a line: get KEY, put KEY SIZE, append KEY SIZE or delete KEY, the size in bytes. Empty lines, and
    /// all from a # at the beginning of a line, are skipped. The file is kept in memory: at most 10000000
    /// operations, and 256 MiB of keys. Thread i of m takes the operations i, i + m, i + 2m and so on; at its
    /// end the trace starts over.
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["workload", "keys", "key_distribution", "value_size"])]
    pub trace: Option<PathBuf>,

    /// End with the trace (or with --duration, if that is over first) rather than start over. What of it
    /// falls into --warmup is not measured.
    #[arg(long, requires = "trace")]
    pub trace_once: bool,

    /// Check what the server answers: a benchmark of wrong answers is worth nothing.
    ///
    /// Of a sample of the keys (all of up to 4096, of more about as many) every operation is recorded, from
    /// the start of the run on and with --load too, and checked at the end: the history has to be
    /// linearizable, every write executed once; the last value of each key is read for it. What was checked,
    /// and what was found, is in the result. At most 524288 operations are kept (64 MiB): then recording
    /// ends, which is told. Scans are not checked. Nobody else may write to the keys meanwhile. Written
    /// values begin with a mark, so they have at least 16 bytes.
    #[arg(long)]
    pub audit: bool,

    /// Measure another target in turn with the first, and print the ratios of the two: [TARGET@]HOST:PORT,...
    ///
    /// As etcd@localhost:2379: a TARGET is one of --target, and the same as there where none is named. All
    /// other settings hold for both; a health check takes the place of whatever the other side does, to tell
    /// what its work costs. Each round runs both sides, each with --warmup and --duration, and every second
    /// round begins with the other, so that what drifts befalls both alike. Both clusters stay up all the
    /// time, so each also bears what the other does while idle. A ratio is the median of the rounds'
    /// ratios. A cluster compared with itself shows how much of a ratio is noise. --preload loads each side
    /// once, before the rounds.
    #[arg(long, value_name = "[TARGET@]HOST:PORT,...")]
    #[arg(conflicts_with_all = ["load", "audit", "trace_once", "hgrm", "interval_log"])]
    pub compare: Option<Against>,

    /// Rounds of --compare, up to 1000. From 6 on, each ratio has an interval that holds its median in at
    /// least 95 of 100 comparisons.
    #[arg(long, default_value_t = 5, requires = "compare", value_name = "N")]
    pub rounds: usize,

    /// Where calls go: to the leader of their key, or to any node in turn, which passes them on. etcd and
    /// health checks have no leader that is told.
    #[arg(long, value_enum, default_value_t = RouteTo::Leader, value_name = "ROUTE")]
    pub route: RouteTo,

    /// Connections to each node, shared out over the threads [default: one for each thread, as gRPC's clients
    /// have]. One core of a node serves a connection, and 1024 calls on it at a time: calls beyond wait here.
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,

    /// Calls in flight over all connections: each is followed by the next (a closed loop, 64 by default).
    /// With --rate the most that may be outstanding (1024 by default).
    #[arg(long, value_name = "N")]
    pub in_flight: Option<usize>,

    /// Calls a second on a schedule of their own (an open loop). Latency counts from the moment that the
    /// schedule names. Calls that left more than 1 ms late, and calls dropped because they waited longer than
    /// --timeout, are reported.
    #[arg(long, value_name = "N", group = "schedule")]
    pub rate: Option<u64>,

    /// Find the highest rate that holds limits on latency: 'p99<5ms', 'p99.9<=10ms,max<1s'.
    ///
    /// First a closed loop (--in-flight, 256 by default) shows what the server comes to. Then trials run in
    /// an open loop, each at a rate of its own for --warmup and --duration, until the highest rate that holds
    /// and the lowest that does not are 3 % apart. A trial holds where its latencies are within the limits (a
    /// call that failed takes longer than any), at most --errors-max-percent of its calls failed, and at
    /// least 98 % of the rate was reached. One that fails is made once more before it is believed; the
    /// highest rate that holds is confirmed by a trial of twice the duration. At most 29 runs.
    ///
    /// Numbers: mean, max, p50, p99, p99.9 and so on, of calls from when they were meant to start.
    #[arg(long, value_name = "LIMIT,...", group = "schedule")]
    #[arg(conflicts_with_all = ["load", "audit", "trace_once", "hgrm", "interval_log", "compare"])]
    pub find_max: Option<Limits>,

    /// The schedule of --rate or --find-max: at even distances, or at random ones, as from many clients that
    /// know nothing of each other.
    #[arg(long, value_enum, default_value_t = Arrivals::Constant, requires = "schedule")]
    #[arg(value_name = "ARRIVALS")]
    pub arrivals: Arrivals,

    /// How long calls of --rate or --find-max are gathered, so that those that fall due meanwhile leave
    /// together: up to 1ms; 0 wakes for each of them. Latency counts the wait, service time does not, and
    /// calls further apart than that do not wait.
    #[arg(long, default_value = "100us", value_parser = parse_gather, requires = "schedule")]
    #[arg(value_name = "SPAN")]
    pub gather: Duration,

    /// How long is measured: 10s, 500ms, 2m.
    #[arg(long, default_value = "10s", value_parser = parse_span, value_name = "SPAN")]
    pub duration: Duration,

    /// How long load runs before measuring starts.
    #[arg(long, default_value = "2s", value_parser = parse_span, value_name = "SPAN")]
    pub warmup: Duration,

    /// How long a call may take. It travels to the server as grpc-timeout, but for the operations of a
    /// Pipeline, which are given up without a word.
    #[arg(long, default_value = "5s", value_parser = parse_span, value_name = "SPAN")]
    pub timeout: Duration,

    /// Number of keys.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub keys: u64,

    /// How keys are chosen [default: uniform, or what the YCSB workload says].
    ///
    /// uniform: all alike. zipfian, or zipfian:<constant>: a few keys, scattered over all, take most calls;
    /// YCSB's constant is 0.99, a smaller one is more even. latest, or latest:<constant>: zipfian, the newest
    /// keys first: what this thread has inserted, then the last of --keys. hotset:<percent of
    /// keys>:<percent of calls>: as hotset:10:90. sequential: one after the other, again and again.
    #[arg(long, value_name = "DISTRIBUTION")]
    pub key_distribution: Option<KeyDistribution>,

    /// Bytes of a value written or appended: 256; 64..1024 (all sizes of the range alike);
    /// zipfian:64..1024 (small ones far more often); or sizes by weight: 64:90,1024:9,16384:1.
    #[arg(long, default_value = "256", value_name = "SIZES")]
    pub value_size: ValueSizes,

    /// Most keys that a scan asks for; each scan asks for 1 to that many, all alike.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub scan_length: u32,

    /// Threads, each with connections of its own.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,

    /// What is written to standard output at the end.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// Also write the whole latency distribution to a file, as HdrHistogram's percentile spectrum
    /// (milliseconds).
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,

    /// Also write the histograms of every second to a file, as HdrHistogram's interval log (.hlog): latency,
    /// and service time with the tag `service`.
    #[arg(long, value_name = "FILE")]
    pub interval_log: Option<PathBuf>,

    /// Also write a report with charts to a file: one page of HTML that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Print a line a second on a terminal too, where there would be a live view.
    #[arg(long)]
    pub no_live: bool,

    /// Seed of keys, values and arrivals.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// The share of measured calls that may fail, in percent, before the exit status is 1.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    pub errors_max_percent: f64,
}

/// When the calls of an open loop are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At even distances.
    Constant,
    /// As a Poisson process.
    Poisson,
}

/// Which node a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RouteTo {
    /// The one that leads its key's shard, where it is known and connected.
    Leader,
    /// One after the other.
    Any,
}

impl fmt::Display for RouteTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Any => "any",
        })
    }
}

/// What is written to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one object, and nothing else.
    Json,
}

/// A span of time: a number and its unit, `us`, `ms`, `s`, `m` or `h`.
fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("'{text}' does not start with a number"))?;
    let unit_s = match &text[digits..] {
        "us" => 1e-6,
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{text}' needs a unit: us, ms, s, m or h")),
    };
    match Duration::try_from_secs_f64(number * unit_s) {
        Ok(span) if span <= SPAN_MAX => Ok(span),
        Ok(_) | Err(_) => Err(format!("'{text}' is longer than a week")),
    }
}

/// A span, or 0, which is the same in every unit.
fn parse_gather(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { parse_span(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(parse_span("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_span("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_gather("50us"), Ok(Duration::from_micros(50)));
        assert_eq!(parse_gather("0"), Ok(Duration::ZERO));
        assert!(parse_span("0").is_err() && parse_gather("1").is_err());
    }
}
