//! The settings of a run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::limit::Limits;
use super::versus::{self, PAUSE, Versus};
use super::{Args, Arrivals, KeyDistribution, Kind, Output, RouteTo, Target, ValueSizes, Workload};
use crate::audit::MARK_BYTES;
use crate::method::Method;
use crate::schedule::LATE_NS;
use crate::trace::Trace;

/// Calls in flight in a closed loop, unless told otherwise.
const IN_FLIGHT_CLOSED: usize = 64;
/// The same where the most that a server comes to is looked for.
const IN_FLIGHT_CEILING: usize = 256;
/// The bound of calls outstanding in an open loop, unless told otherwise.
const IN_FLIGHT_OPEN: usize = 1024;
/// Most calls in flight.
const IN_FLIGHT_MAX: usize = 1 << 16;
/// Most connections to a node.
const CONNECTIONS_MAX: usize = 4096;
/// Most threads.
const THREADS_MAX: usize = 64;
/// Most keys. A key's twelve digits can name ten times as many, which leaves room for inserts.
const KEYS_MAX: u64 = 100_000_000_000;
/// Fastest schedule, in calls a second.
const RATE_MAX: u64 = 100_000_000;
/// Longest time that sends are gathered: a call that waits longer has left late.
const GATHER_MAX: Duration = Duration::from_nanos(LATE_NS);
/// Most keys that a scan may ask for.
const SCAN_LENGTH_MAX: u32 = 100_000;

/// What the command line comes to: checked, and with its defaults filled in. A copy shares the files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to start from, `host:port`.
    pub endpoints: Vec<String>,
    /// What is called.
    pub target: Target,
    /// What the calls do.
    pub workload: Workload,
    /// Whether every key is written once before the run.
    pub preload: bool,
    /// Whether answers are recorded and checked.
    pub audit: bool,
    /// Which node calls go to.
    pub route: RouteTo,
    /// What a run of [`Workload::Trace`] replays.
    pub trace: Option<TraceSettings>,
    /// Connections to each node.
    pub connections: usize,
    /// Calls in flight: in a closed loop always so many, in an open loop at most.
    pub in_flight: usize,
    /// Calls a second; `None`: a closed loop.
    pub rate: Option<u64>,
    /// When the calls of an open loop are due.
    pub arrivals: Arrivals,
    /// How long the calls of an open loop that fall due are gathered to leave together.
    pub gather: Duration,
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
    pub value_sizes: ValueSizes,
    /// Most keys that a scan asks for.
    pub scan_length: u32,
    /// Threads.
    pub threads: usize,
    /// What is written at the end.
    pub output: Output,
    /// Where the latency distribution goes: its name, and the file open for writing.
    pub hgrm: Option<(PathBuf, Arc<File>)>,
    /// Where the histograms of every second go, alike.
    pub interval_log: Option<(PathBuf, Arc<File>)>,
    /// Where the page goes, alike.
    pub html: Option<(PathBuf, Arc<File>)>,
    /// Whether a terminal is drawn on.
    pub live: bool,
    /// Whether nothing is told while it runs: one of many runs whose results are told together.
    pub quiet: bool,
    /// What it is compared with.
    pub versus: Option<Versus>,
    /// What the highest rate is looked for with.
    pub find_max: Option<FindMax>,
    /// Seed of keys, values and arrivals.
    pub seed: u64,
    /// Share of failures that is still a success, in percent.
    pub errors_max_percent: f64,
}

/// What the highest rate is looked for with.
#[derive(Clone, Debug)]
pub struct FindMax {
    /// What it has to hold.
    pub limits: Limits,
    /// The most calls that may be outstanding in a trial.
    pub in_flight: usize,
    /// How long nothing is sent between two runs.
    pub pause: Duration,
}

/// A trace to be replayed.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it holds.
    pub trace: Arc<Trace>,
    /// Whether the run ends with it.
    pub once: bool,
}

impl Settings {
    /// Checks everything. The error is clap's, which knows how to say it and to exit.
    pub fn check(args: Args) -> Result<Self, clap::Error> {
        if let Some(against) = &args.compare {
            return versus::checked(&args, against);
        }
        check_ranges(&args)?;
        let workload = workload_of(&args)?;
        let endpoints = args.endpoints.iter().map(|text| endpoint_of(text)).collect::<Result<_, _>>()?;
        let in_flight = args.in_flight.unwrap_or(match (args.rate, &args.find_max) {
            (None, None) => IN_FLIGHT_CLOSED.max(args.threads),
            (None, Some(_)) => IN_FLIGHT_CEILING.max(args.threads),
            (Some(_), _) => IN_FLIGHT_OPEN.max(args.threads),
        });
        let find_max = args.find_max.clone().map(|limits| FindMax {
            limits,
            in_flight: args.in_flight.unwrap_or(IN_FLIGHT_OPEN.max(args.threads)),
            pause: PAUSE,
        });
        let trace = match &args.trace {
            None => None,
            Some(path) => Some(TraceSettings {
                path: path.clone(),
                trace: Arc::new(trace_of(path, &args)?),
                once: args.trace_once,
            }),
        };
        check_audit(&args, workload, trace.as_ref().map(|replayed| &*replayed.trace))?;
        Ok(Self {
            endpoints,
            target: args.target,
            workload,
            preload: args.preload,
            audit: args.audit,
            route: args.route,
            trace,
            connections: args.connections.unwrap_or(args.threads),
            in_flight,
            rate: args.rate,
            arrivals: args.arrivals,
            gather: args.gather,
            duration: args.duration,
            warmup: args.warmup,
            timeout: args.timeout,
            keys: args.keys,
            key_distribution: args.key_distribution.unwrap_or(workload.key_distribution()),
            value_sizes: args.value_size,
            scan_length: args.scan_length,
            threads: args.threads,
            output: args.output,
            hgrm: args.hgrm.map(created).transpose()?,
            interval_log: args.interval_log.map(created).transpose()?,
            html: args.html.map(created).transpose()?,
            live: !args.no_live,
            quiet: false,
            versus: None,
            find_max,
            seed: args.seed,
            errors_max_percent: args.errors_max_percent,
        })
    }

    /// The run that writes every key once: as these settings, but with nothing of it measured or kept.
    pub fn for_preload(&self) -> Self {
        let closed = IN_FLIGHT_CLOSED.max(self.threads).min(self.in_flight);
        let in_flight = if self.rate.is_some() { closed } else { self.in_flight };
        let (preload, audit, rate, workload) = (false, false, None, Workload::Load);
        Self { workload, preload, audit, rate, in_flight, ..self.without_files() }
    }

    /// The same, with nothing written to files.
    pub fn without_files(&self) -> Self {
        Self { hgrm: None, interval_log: None, html: None, ..self.clone() }
    }
}

/// A file to be written, open.
fn created(path: PathBuf) -> Result<(PathBuf, Arc<File>), clap::Error> {
    match File::create(&path) {
        Ok(file) => Ok((path, Arc::new(file))),
        Err(error) => Err(refuse(&format!("{}: {error}", path.display()))),
    }
}

/// Every number within its bounds.
fn check_ranges(args: &Args) -> Result<(), clap::Error> {
    let in_flight = args.in_flight.unwrap_or(args.threads);
    let connections = args.connections.unwrap_or(args.threads);
    let ranges = [
        ("--threads", args.threads as u64, 1, THREADS_MAX as u64),
        ("--connections", connections as u64, 1, CONNECTIONS_MAX as u64),
        ("--in-flight", in_flight as u64, 1, IN_FLIGHT_MAX as u64),
        ("--keys", args.keys, 1, KEYS_MAX),
        ("--scan-length", u64::from(args.scan_length), 1, u64::from(SCAN_LENGTH_MAX)),
        ("--rate", args.rate.unwrap_or(1), 1, RATE_MAX),
    ];
    for (name, value, min, max) in ranges {
        if !(min..=max).contains(&value) {
            return Err(refuse(&format!("{name} {value} is outside {min} to {max}")));
        }
    }
    if args.threads > connections || args.threads > in_flight {
        return Err(refuse("--threads is more than --connections or --in-flight: a thread would have none"));
    }
    if args.duration.is_zero() || args.timeout < Duration::from_millis(1) {
        return Err(refuse("--duration and --timeout have to be at least 1ms"));
    }
    if args.gather > GATHER_MAX {
        return Err(refuse(&format!(
            "--gather {:?} is more than {GATHER_MAX:?}: a call that leaves later is late",
            args.gather
        )));
    }
    if !(0.0..=100.0).contains(&args.errors_max_percent) {
        return Err(refuse("--errors-max-percent is outside 0 to 100"));
    }
    Ok(())
}

/// What the calls do, where target and workload go together.
fn workload_of(args: &Args) -> Result<Workload, clap::Error> {
    if args.target == Target::Health {
        return match (args.load || args.preload, args.workload, &args.trace) {
            (false, None, None) => Ok(Workload::Check),
            (_, _, _) => Err(refuse(
                "--target health has one call: no --workload, --load, --preload or --trace goes with it",
            )),
        };
    }
    if args.load {
        return Ok(Workload::Load);
    }
    if args.trace.is_some() {
        return Ok(Workload::Trace);
    }
    let workload = args.workload.unwrap_or(Workload::Put);
    if args.target == Target::Etcd && workload.has(Kind::Append) {
        return Err(refuse("--workload append does not go with etcd, which has no append"));
    }
    if args.target == Target::Pipeline && workload.has(Kind::Scan) {
        return Err(refuse(&format!(
            "--workload {workload} does not go with pipeline, which carries no scans: use kv"
        )));
    }
    Ok(workload)
}

/// Whether what is asked for can be audited.
fn check_audit(args: &Args, workload: Workload, trace: Option<&Trace>) -> Result<(), clap::Error> {
    if !args.audit {
        return Ok(());
    }
    if [Workload::Check, Workload::Scan].contains(&workload) {
        return Err(refuse(&format!("--audit has nothing to check where the calls are {workload}s")));
    }
    let size_min = trace.map_or(args.value_size.min(), Trace::size_min);
    if (size_min as usize) < MARK_BYTES {
        return Err(refuse(&format!(
            "--audit marks values by their first {MARK_BYTES} bytes, so none can have {size_min}"
        )));
    }
    Ok(())
}

/// The trace of a file, where target and threads can replay it.
fn trace_of(path: &Path, args: &Args) -> Result<Trace, clap::Error> {
    let named = |why: &dyn std::fmt::Display| refuse(&format!("--trace {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| named(&error))?;
    let trace = Trace::read(file).map_err(|error| named(&error))?;
    if trace.len() < args.threads {
        return Err(named(&format!("{} operations are less than --threads", trace.len())));
    }
    if args.target == Target::Etcd && trace.has(Method::Append) {
        return Err(named(&"it appends, and etcd has no append"));
    }
    Ok(trace)
}

fn endpoint_of(text: &str) -> Result<String, clap::Error> {
    host_and_port(text).map_err(|why| refuse(&format!("--endpoints: {why}")))
}

/// A host and a port, with or without `http://` before them.
pub fn host_and_port(text: &str) -> Result<String, String> {
    let plain = text.strip_prefix("http://").unwrap_or(text);
    match plain.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(plain.to_owned())
        }
        Some(_) | None => Err(format!("'{text}' is not host:port")),
    }
}

/// A refusal in clap's words.
pub fn refuse(why: &str) -> clap::Error {
    Args::command().error(ErrorKind::ValueValidation, why)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

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
        assert_eq!((settings.connections, settings.threads), (1, 1));
        assert_eq!(check("--threads 3").expect("threads").connections, 3);
        assert_eq!((settings.duration, settings.warmup), (Duration::from_secs(10), Duration::from_secs(2)));
        assert_eq!(settings.value_sizes, ValueSizes::Fixed(256));
        assert_eq!(check("--rate 10").expect("an open loop").in_flight, 1024);
    }

    #[test]
    fn sends_are_gathered_as_long_as_none_of_them_is_late() {
        let gather = |line: &str| check(line).expect(line).gather;
        assert_eq!(gather("--rate 10"), Duration::from_micros(100));
        assert_eq!(gather("--rate 10 --gather 0"), Duration::ZERO);
        assert_eq!(gather("--rate 10 --gather 1ms --arrivals poisson"), Duration::from_millis(1));
        assert_eq!(gather("--find-max p99<5ms --gather 200us"), Duration::from_micros(200));
        let (one, other) = ("--rate 10 --gather 50us", "--compare b:1");
        let settings = check(&format!("{one} {other}")).expect("a comparison");
        let other = settings.versus.expect("it is compared").settings;
        assert_eq!((settings.gather, other.gather), (gather(one), gather(one)));
    }

    #[test]
    fn a_search_has_places_for_its_trials() {
        let wanted = |line: &str| {
            let settings = check(line).expect(line);
            let wanted = settings.find_max.expect("it is looked for");
            (settings.in_flight, wanted.in_flight, wanted.limits.to_string())
        };
        assert_eq!(wanted("--find-max p99<5ms --arrivals poisson"), (256, 1024, "p99<5ms".into()));
        assert_eq!(wanted("--find-max p99<5ms --in-flight 9"), (9, 9, "p99<5ms".into()));
    }

    #[test]
    fn workloads() {
        let workload = |line: &str| check(line).expect(line).workload;
        assert_eq!(workload("--workload mixed:95"), Workload::Mixed(95));
        assert_eq!(workload("--target health"), Workload::Check);
        assert_eq!(workload("--target pipeline"), Workload::Put);
        assert_eq!(workload("--target etcd --workload cas"), Workload::Cas);
        assert_eq!(workload("--load"), Workload::Load);
    }

    #[test]
    fn a_workload_has_its_own_choice_of_keys_until_told_otherwise() {
        let chosen = |line: &str| check(line).expect(line).key_distribution;
        assert_eq!(chosen("--workload put"), KeyDistribution::Uniform);
        assert_eq!(chosen("--workload ycsb-a"), KeyDistribution::ZIPFIAN);
        assert_eq!(chosen("--workload ycsb-d"), KeyDistribution::LATEST);
        assert_eq!(chosen("--workload ycsb-d --key-distribution uniform"), KeyDistribution::Uniform);
    }

    #[test]
    fn a_preload_is_a_load_that_keeps_nothing() {
        let settings =
            check("--preload --workload ycsb-b --rate 100 --keys 7 --hgrm /dev/null").expect("good");
        let load = settings.for_preload();
        assert_eq!((load.workload, load.preload, load.rate, load.keys), (Workload::Load, false, None, 7));
        assert!(settings.hgrm.is_some() && load.hgrm.is_none());
        assert_eq!(load.in_flight, 64);
        assert_eq!(check("--preload --in-flight 9").expect("good").for_preload().in_flight, 9);
    }

    #[test]
    fn refusals() {
        let lines = [
            "--workload mixed:101",
            "--workload scans",
            "--workload mixed",
            "--target health --workload get",
            "--target health --load",
            "--target health --preload",
            "--target etcd --workload append",
            "--target pipeline --workload scan",
            "--target pipeline --workload ycsb-e",
            "--load --rate 5",
            "--load --preload",
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
            "--value-size 9..8",
            "--key-distribution hotset",
            "--keys 0",
            "--scan-length 0",
            "--rate 0",
            "--arrivals poisson",
            "--gather 50us",
            "--gather 0",
            "--load --gather 50us",
            "--rate 9 --gather 1001us",
            "--rate 9 --gather 1",
            "--rate 9 --gather -1us",
            "--find-max p99<5ms --gather 2ms",
            "--find-max p99",
            "--find-max p99<5",
            "--find-max p99<5ms --rate 9",
            "--find-max p99<5ms --load",
            "--find-max p99<5ms --audit",
            "--find-max p99<5ms --hgrm /dev/null",
            "--find-max p99<5ms --compare b:1",
            "--trace-once",
            "--trace /nowhere/at/all",
            "--trace /dev/null",
            "--trace /dev/null --workload put",
            "--errors-max-percent 101",
            "--audit --target health",
            "--audit --workload scan",
            "--audit --value-size 15..99",
            "--audit --value-size 8:1,256:99",
            "--route follower",
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
}
