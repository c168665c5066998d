//! The command line, and the settings that come of it once everything that can be checked has been.
//!
//! Invariants: nothing is opened before [`Settings::check`] has passed, but the files of `--hgrm`,
//! `--interval-log` and `--html`, which it opens so that a long run does not end with nowhere to write. A
//! refusal exits with 2.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, ValueEnum};

/// The largest value that distribKV takes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Calls in flight in a closed loop, unless told otherwise.
const IN_FLIGHT_CLOSED: usize = 64;
/// The bound of calls outstanding in an open loop, unless told otherwise.
const IN_FLIGHT_OPEN: usize = 1024;
/// Most calls in flight.
const IN_FLIGHT_MAX: usize = 1 << 16;
/// Most connections to a node.
const CONNECTIONS_MAX: usize = 4096;
/// Most threads.
const THREADS_MAX: usize = 64;
/// Most keys: what a key's twelve digits can name.
const KEYS_MAX: u64 = 1_000_000_000_000;
/// Fastest schedule, in calls a second.
const RATE_MAX: u64 = 100_000_000;
/// Longest span that an option may name.
const SPAN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Puts load on a distribKV cluster, or on any gRPC server's health check, and reports throughput and
/// latency.
///
/// Exit status: 0; 1 if no measured operation succeeded, more of them failed than --errors-max-percent
/// allows, or --load left a key unwritten; 2 for a wrong command line; 3 if no endpoint could be reached.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Nodes to start from, host:port, separated by commas. The others are learned from them.
    #[arg(long, required = true, value_delimiter = ',', value_name = "HOST:PORT,...")]
    pub endpoints: Vec<String>,

    /// What is called: the key-value store, by a call for each operation or by Pipeline streams, or the
    /// standard health check (of the endpoints alone).
    #[arg(long, value_enum, default_value_t = Target::Kv)]
    pub target: Target,

    /// put, get, append, or mixed:<percent of reads>, the rest puts.
    ///
    /// A get of a key that was never loaded counts as an operation and is told apart as not found. An append
    /// makes its value grow with every call: once a value is at its limit (1 MiB) the store refuses, which is
    /// an error of its own kind. So choose --keys such that keys * 1 MiB exceeds what the run will append.
    #[arg(long, value_name = "WORKLOAD")]
    pub workload: Option<Workload>,

    /// Write every key once, then end. --workload, --rate, --duration and --warmup do not apply.
    #[arg(long, conflicts_with_all = ["workload", "rate", "duration", "warmup"])]
    pub load: bool,

    /// Connections to each node, shared out over the threads.
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub connections: usize,

    /// Calls in flight over all connections: each is followed by the next (a closed loop, 64 by default).
    /// With --rate the most that may be outstanding (1024 by default).
    #[arg(long, value_name = "N")]
    pub in_flight: Option<usize>,

    /// Calls a second on a fixed schedule (an open loop). Latency counts from the moment that the schedule
    /// names. Calls that left more than 1 ms late, and calls dropped because they waited longer than
    /// --timeout, are reported.
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,

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

    /// How keys are chosen: all alike, or as YCSB's scrambled zipfian with constant 0.99.
    #[arg(long, value_enum, default_value_t = KeyDistribution::Uniform)]
    pub key_distribution: KeyDistribution,

    /// Bytes of a value written or appended.
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub value_size: usize,

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

    /// Seed of keys and values.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// The share of measured calls that may fail, in percent, before the exit status is 1.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    pub errors_max_percent: f64,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The key-value store, a unary call for each operation.
    Kv,
    /// The key-value store, all operations on one Pipeline stream for each connection.
    Pipeline,
    /// `grpc.health.v1.Health/Check`.
    Health,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kv => "kv",
            Self::Pipeline => "pipeline",
            Self::Health => "health",
        })
    }
}

/// What the calls do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Puts alone.
    Put,
    /// Gets alone.
    Get,
    /// Appends alone.
    Append,
    /// So many reads in a hundred calls, the others puts.
    Mixed(u8),
    /// Health checks.
    Check,
    /// A put of every key, once.
    Load,
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "put" => Ok(Self::Put),
            None if text == "get" => Ok(Self::Get),
            None if text == "append" => Ok(Self::Append),
            Some(("mixed", percent)) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Mixed(percent)),
                Ok(_) | Err(_) => Err(format!("'{percent}' is not a percentage of reads, 0 to 100")),
            },
            None | Some(_) => Err("put, get, append or mixed:<percent of reads>".into()),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => f.write_str("put"),
            Self::Get => f.write_str("get"),
            Self::Append => f.write_str("append"),
            Self::Mixed(percent) => write!(f, "mixed:{percent}"),
            Self::Check => f.write_str("check"),
            Self::Load => f.write_str("load"),
        }
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyDistribution {
    /// Every key alike.
    Uniform,
    /// A few keys take most of the calls.
    Zipfian,
}

impl fmt::Display for KeyDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
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

/// A span of time: a number and its unit, `ms`, `s`, `m` or `h`.
fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("'{text}' does not start with a number"))?;
    let unit_s = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{text}' needs a unit: ms, s, m or h")),
    };
    match Duration::try_from_secs_f64(number * unit_s) {
        Ok(span) if span <= SPAN_MAX => Ok(span),
        Ok(_) | Err(_) => Err(format!("'{text}' is longer than a week")),
    }
}

/// What the command line comes to: checked, and with its defaults filled in.
#[derive(Debug)]
pub struct Settings {
    /// Where to start from, `host:port`.
    pub endpoints: Vec<String>,
    /// What is called.
    pub target: Target,
    /// What the calls do.
    pub workload: Workload,
    /// Connections to each node.
    pub connections: usize,
    /// Calls in flight: in a closed loop always so many, in an open loop at most.
    pub in_flight: usize,
    /// Calls a second; `None`: a closed loop.
    pub rate: Option<u64>,
    /// How long is measured.
    pub duration: Duration,
    /// How long before that.
    pub warmup: Duration,
    /// How long a call may take.
    pub timeout: Duration,
    /// Number of keys.
    pub keys: u64,
    /// How they are chosen.
    pub key_distribution: KeyDistribution,
    /// Bytes of a value.
    pub value_size: usize,
    /// Threads.
    pub threads: usize,
    /// What is written at the end.
    pub output: Output,
    /// Where the latency distribution goes: its name, and the file open for writing.
    pub hgrm: Option<(PathBuf, File)>,
    /// Where the histograms of every second go, alike.
    pub interval_log: Option<(PathBuf, File)>,
    /// Where the page goes, alike.
    pub html: Option<(PathBuf, File)>,
    /// Whether a terminal is drawn on.
    pub live: bool,
    /// Seed of keys and values.
    pub seed: u64,
    /// Share of failures that is still a success, in percent.
    pub errors_max_percent: f64,
}

impl Settings {
    /// Checks everything. The error is clap's, which knows how to say it and to exit.
    pub fn check(args: Args) -> Result<Self, clap::Error> {
        check_ranges(&args)?;
        let workload = workload_of(&args)?;
        let endpoints = args.endpoints.iter().map(|text| endpoint_of(text)).collect::<Result<_, _>>()?;
        let in_flight = args.in_flight.unwrap_or(match args.rate {
            None => IN_FLIGHT_CLOSED.max(args.threads),
            Some(_) => IN_FLIGHT_OPEN.max(args.threads),
        });
        Ok(Self {
            endpoints,
            target: args.target,
            workload,
            connections: args.connections,
            in_flight,
            rate: args.rate,
            duration: args.duration,
            warmup: args.warmup,
            timeout: args.timeout,
            keys: args.keys,
            key_distribution: args.key_distribution,
            value_size: args.value_size,
            threads: args.threads,
            output: args.output,
            hgrm: created("--hgrm", args.hgrm)?,
            interval_log: created("--interval-log", args.interval_log)?,
            html: created("--html", args.html)?,
            live: !args.no_live,
            seed: args.seed,
            errors_max_percent: args.errors_max_percent,
        })
    }
}

/// A file to write to, where one is asked for.
fn created(option: &str, path: Option<PathBuf>) -> Result<Option<(PathBuf, File)>, clap::Error> {
    let Some(path) = path else { return Ok(None) };
    match File::create(&path) {
        Ok(file) => Ok(Some((path, file))),
        Err(error) => Err(refuse(&format!("{option} {}: {error}", path.display()))),
    }
}

/// Every number within its bounds.
fn check_ranges(args: &Args) -> Result<(), clap::Error> {
    let in_flight = args.in_flight.unwrap_or(args.threads);
    let ranges = [
        ("--connections", args.connections as u64, 1, CONNECTIONS_MAX as u64),
        ("--in-flight", in_flight as u64, 1, IN_FLIGHT_MAX as u64),
        ("--threads", args.threads as u64, 1, THREADS_MAX as u64),
        ("--keys", args.keys, 1, KEYS_MAX),
        ("--value-size", args.value_size as u64, 0, VALUE_BYTES_MAX as u64),
        ("--rate", args.rate.unwrap_or(1), 1, RATE_MAX),
    ];
    for (name, value, min, max) in ranges {
        if !(min..=max).contains(&value) {
            return Err(refuse(&format!("{name} {value} is outside {min} to {max}")));
        }
    }
    if args.threads > args.connections || args.threads > in_flight {
        return Err(refuse("--threads is more than --connections or --in-flight: a thread would have none"));
    }
    if args.duration.is_zero() || args.timeout < Duration::from_millis(1) {
        return Err(refuse("--duration and --timeout have to be at least 1ms"));
    }
    if !(0.0..=100.0).contains(&args.errors_max_percent) {
        return Err(refuse("--errors-max-percent is outside 0 to 100"));
    }
    Ok(())
}

/// What the calls do, where target and workload go together.
fn workload_of(args: &Args) -> Result<Workload, clap::Error> {
    match args.target {
        Target::Kv | Target::Pipeline if args.load => Ok(Workload::Load),
        Target::Kv | Target::Pipeline => Ok(args.workload.unwrap_or(Workload::Put)),
        Target::Health if args.load || args.workload.is_some() => {
            Err(refuse("--target health has one call: neither --workload nor --load goes with it"))
        }
        Target::Health => Ok(Workload::Check),
    }
}

/// A host and a port, with or without `http://` before them.
fn endpoint_of(text: &str) -> Result<String, clap::Error> {
    let plain = text.strip_prefix("http://").unwrap_or(text);
    match plain.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(plain.to_owned())
        }
        Some(_) | None => Err(refuse(&format!("--endpoints: '{text}' is not host:port"))),
    }
}

/// A refusal in clap's words.
fn refuse(why: &str) -> clap::Error {
    Args::command().error(ErrorKind::ValueValidation, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Settings, clap::Error> {
        let words = ["loadgen", "--endpoints", "a:1,http://b:2"].into_iter().chain(line.split_whitespace());
        Settings::check(Args::try_parse_from(words)?)
    }

    #[test]
    fn defaults() {
        let settings = check("").expect("the defaults pass");
        assert_eq!(settings.endpoints, ["a:1", "b:2"]);
        assert_eq!((settings.target, settings.workload), (Target::Kv, Workload::Put));
        assert_eq!((settings.in_flight, settings.rate), (64, None));
        assert_eq!((settings.duration, settings.warmup), (Duration::from_secs(10), Duration::from_secs(2)));
        assert_eq!(check("--rate 10").expect("an open loop").in_flight, 1024);
    }

    #[test]
    fn workloads() {
        assert_eq!(check("--workload mixed:95").expect("mixed").workload, Workload::Mixed(95));
        assert_eq!(check("--target health").expect("health").workload, Workload::Check);
        assert_eq!(check("--target pipeline").expect("pipeline").workload, Workload::Put);
        assert_eq!(check("--load").expect("load").workload, Workload::Load);
        for text in ["put", "get", "append", "mixed:0", "mixed:100"] {
            assert_eq!(text.parse::<Workload>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn refusals() {
        let lines = [
            "--workload mixed:101",
            "--workload scan",
            "--workload mixed",
            "--target health --workload get",
            "--target health --load",
            "--load --rate 5",
            "--in-flight 0",
            "--in-flight 70000",
            "--threads 8 --connections 4",
            "--threads 3 --in-flight 2",
            "--duration 10",
            "--duration 0s",
            "--duration 1000h",
            "--duration x",
            "--timeout 0ms",
            "--value-size 1048577",
            "--keys 0",
            "--rate 0",
            "--errors-max-percent 101",
            "--hgrm /nowhere/at/all",
            "--interval-log /nowhere/at/all",
            "--html /nowhere/at/all",
            "--endpoints c",
            "--endpoints :1",
            "--endpoints c:0",
        ];
        for line in lines {
            let refused = check(line).expect_err(line);
            assert_eq!(refused.exit_code(), 2, "{line}: {refused}");
        }
    }

    #[test]
    fn spans() {
        assert_eq!(parse_span("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_span("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
    }
}
