//! A side of a comparison: what it is called, what each of its runs came to, and all of them together.
//!
//! Invariants:
//! - A run is kept as a few numbers: its histograms are added to those of the runs before, so that many
//!   rounds take no more memory than few.
//! - The sides have the same number of runs: a round is added whole or not at all.

use std::sync::Arc;

use serde_json::Value;

use crate::args::{Output, Settings};
use crate::compare::statistics::{self, Spread};
use crate::control::About;
use crate::host::Host;
use crate::record::{Measured, Total};
use crate::report::Report;
use crate::series::Series;
use crate::{header, json, units, warnings};

/// One of the numbers that sides are compared by.
#[derive(Debug)]
pub struct Metric {
    /// What people call it.
    pub name: &'static str,
    /// Where a result for programs has it: a field, and the field within that.
    pub path: (&'static str, Option<&'static str>),
    /// How it is written.
    pub written: fn(f64) -> String,
}

/// How many there are.
pub const METRICS_COUNT: usize = 7;
/// The places of those that are spoken of.
pub const THROUGHPUT: usize = 0;
pub const P50: usize = 2;
pub const P99: usize = 4;

/// All of them, in the order of [`values`].
pub const METRICS: [Metric; METRICS_COUNT] = [
    Metric { name: "throughput", path: ("throughput_per_s", None), written: units::rate },
    Metric { name: "mean", path: ("latency_us", Some("mean")), written: units::time },
    Metric { name: "p50", path: ("latency_us", Some("p50")), written: units::time },
    Metric { name: "p90", path: ("latency_us", Some("p90")), written: units::time },
    Metric { name: "p99", path: ("latency_us", Some("p99")), written: units::time },
    Metric { name: "p99.9", path: ("latency_us", Some("p99_9")), written: units::time },
    Metric { name: "service p99", path: ("service_us", Some("p99")), written: units::time },
];

/// The metrics of a run: calls a second, and nanoseconds.
fn values(measured: &Measured) -> [f64; METRICS_COUNT] {
    let (latency, service) = (measured.total.latency_ns(), measured.total.service_ns());
    let at = |quantile| latency.value_at_quantile(quantile) as f64;
    let service_p99 = service.value_at_quantile(0.99) as f64;
    [measured.throughput_per_s(), latency.mean(), at(0.5), at(0.9), at(0.99), at(0.999), service_p99]
}

/// What is kept of one run.
#[derive(Debug)]
pub struct Run {
    /// Its metrics.
    pub values: [f64; METRICS_COUNT],
    /// Calls that failed.
    pub errors: u64,
    /// What makes it doubtful.
    pub warnings: Vec<String>,
    /// All of it for programs, where that is wanted.
    pub json: Option<Value>,
}

/// One of the two.
#[derive(Debug)]
pub struct Side {
    /// Of each of its runs.
    pub settings: Arc<Settings>,
    /// What it is called beside the other.
    pub label: String,
    /// Its runs, by round.
    pub runs: Vec<Run>,
    /// All runs together: histograms and counts added up, the measured time of one after the other.
    pub sum: Measured,
}

/// Two sides.
#[derive(Debug)]
pub struct Comparison {
    /// The one of `--target`, and the one of `--compare`.
    pub sides: [Side; 2],
    /// Rounds that were asked for.
    pub rounds_wanted: usize,
}

impl Side {
    fn new(settings: Arc<Settings>, about: Option<About>, label: String) -> Self {
        let sum = Measured {
            total: Total::default(),
            duration_s: 0.0,
            series: Series::default(),
            log_error: None,
            about,
            host: Host::here(),
        };
        Self { settings, label, runs: Vec::new(), sum }
    }

    /// Its name, where it is, and what answers there.
    pub fn full_label(&self) -> String {
        let server = header::server(self.sum.about.as_ref());
        format!("{} {}: {server}", self.settings.target, self.settings.endpoints[0])
    }

    /// One metric of every run.
    pub fn values(&self, metric: usize) -> Vec<f64> {
        self.runs.iter().map(|run| run.values[metric]).collect()
    }

    fn add(&mut self, measured: &Measured) {
        let report = Report { settings: &self.settings, measured };
        self.runs.push(Run {
            values: values(measured),
            errors: measured.total.failures(),
            warnings: warnings::of_run(&self.settings, &measured.total),
            json: (self.settings.output == Output::Json).then(|| json::of(&report)),
        });
        self.sum.total.merge(&measured.total);
        append_measured(&mut self.sum.series, self.sum.duration_s, &measured.series);
        self.sum.duration_s += measured.duration_s;
    }
}

/// Puts what a run measured after what is there, its first measured interval at `at_s`.
fn append_measured(series: &mut Series, at_s: f64, run: &Series) {
    let measured = run.points().iter().filter(|point| !point.is_warmup);
    let Some(first_s) = measured.clone().next().map(|point| point.from_s) else { return };
    // The last interval of a run may end after the measured time: none begins before it has ended.
    let at_s = series.points().last().map_or(at_s, |last| last.to_s.max(at_s));
    for point in measured {
        let mut point = point.clone();
        point.from_s += at_s - first_s;
        point.to_s += at_s - first_s;
        series.push(point);
    }
}

impl Comparison {
    /// Two sides without a run.
    pub fn new(settings: [Arc<Settings>; 2], abouts: [Option<About>; 2], rounds_wanted: usize) -> Self {
        let labels = labels([0, 1].map(|side| (&*settings[side], abouts[side].as_ref())));
        let ([one, other], [about_one, about_other], [label_one, label_other]) = (settings, abouts, labels);
        let sides = [Side::new(one, about_one, label_one), Side::new(other, about_other, label_other)];
        Self { sides, rounds_wanted }
    }

    /// Adds a round.
    pub fn add(&mut self, round: &[Measured; 2]) {
        for (side, measured) in self.sides.iter_mut().zip(round) {
            side.add(measured);
        }
    }

    /// Rounds that there are.
    pub fn rounds(&self) -> usize {
        self.sides[0].runs.len()
    }

    /// The labels of both.
    pub fn labels(&self) -> [&str; 2] {
        [&self.sides[0].label, &self.sides[1].label]
    }

    /// The first side's value of a metric by the second side's, of every round that has both.
    pub fn ratios(&self, metric: usize) -> Option<Spread> {
        let [one, other] = [0, 1].map(|side| self.sides[side].values(metric));
        Spread::of(&statistics::ratios(&one, &other))
    }

    /// The medians of both sides.
    pub fn medians(&self, metric: usize) -> [f64; 2] {
        [0, 1].map(|side| statistics::median(&self.sides[side].values(metric)))
    }

    /// What makes the comparison doubtful.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (rounds, wanted) = (self.rounds(), self.rounds_wanted);
        if rounds < wanted {
            warnings.push(format!("it ended early: {rounds} of {wanted} rounds were made"));
        }
        let spread = self.ratios(THROUGHPUT).filter(|spread| spread.width() > WIDTH_MAX);
        warnings.extend(spread.map(|spread| {
            format!(
                "the ratio of throughputs is doubtful: the rounds lie {:.0} % of it apart; a quieter \
                 machine, or a longer --duration, brings them together",
                100.0 * spread.width()
            )
        }));
        for side in &self.sides {
            warnings.extend(side.warnings());
        }
        warnings
    }
}

/// Rounds whose ratios lie farther apart than this share of their median are warned of.
const WIDTH_MAX: f64 = 0.3;

impl Side {
    /// Errors, and the warnings of its runs, each kind once.
    fn warnings(&self) -> Vec<String> {
        let (label, rounds) = (&self.label, self.runs.len());
        let mut warnings = Vec::new();
        let with_errors = self.runs.iter().filter(|run| run.errors > 0).count();
        if with_errors > 0 {
            let percent = self.sum.total.errors_percent();
            warnings.push(format!(
                "{label}: {} calls failed ({percent:.3} %), in {with_errors} of {rounds} rounds",
                self.sum.total.failures()
            ));
        }
        let mut kinds: Vec<(String, &str, usize)> = Vec::new();
        for why in self.runs.iter().flat_map(|run| &run.warnings) {
            let kind = kind_of(why);
            match kinds.iter_mut().find(|(known, _, _)| *known == kind) {
                Some((_, _, count)) => *count += 1,
                None => kinds.push((kind, why, 1)),
            }
        }
        let told = kinds.iter().map(|(_, why, count)| format!("{label}, {count} of {rounds} rounds: {why}"));
        warnings.extend(told);
        warnings
    }
}

/// A warning without its numbers, which differ from run to run.
fn kind_of(warning: &str) -> String {
    warning.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect()
}

/// The shortest names that tell two sides apart: by what is called, then by the server's profile, its
/// version, where it is, and at last by their places.
fn labels(sides: [(&Settings, Option<&About>); 2]) -> [String; 2] {
    let target = |side: usize| sides[side].0.target;
    let profile = |side: usize| sides[side].1.and_then(|about| about.profile.clone());
    let version = |side: usize| sides[side].1.map(|about| about.version.clone());
    let endpoint = |side: usize| Some(sides[side].0.endpoints[0].clone());
    let ways: [&dyn Fn(usize) -> Option<String>; 3] = [&profile, &version, &endpoint];
    if target(0) != target(1) {
        return [0, 1].map(|side| target(side).to_string());
    }
    for way in ways {
        if let (Some(one), Some(other)) = (way(0), way(1))
            && one != other
        {
            return [format!("{} {one}", target(0)), format!("{} {other}", target(1))];
        }
    }
    [format!("{} (A)", target(0)), format!("{} (B)", target(1))]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::record::Interval;
    use crate::report::tests::{measured, parsed};
    use crate::series::Point;
    use crate::status::ErrorKind;
    use crate::usage::Usage;

    /// A comparison of kv and etcd whose rounds have so many operations a second each.
    pub fn comparison(line: &str, rates: &[[u64; 2]]) -> Comparison {
        let settings = parsed(&format!("--compare etcd@b:2 {line}"));
        let versus = settings.versus.clone().expect("it is compared");
        let about = |name: &'static str, profile: Option<&str>| {
            Some(About { name, version: "1.2".into(), profile: profile.map(str::to_owned) })
        };
        let abouts = [about("distribKV", Some("dev")), about("etcd", None)];
        let mut comparison = Comparison::new([Arc::new(settings), versus.settings], abouts, versus.rounds);
        for rates in rates {
            comparison.add(&rates.map(|rate| measured(rate, 1.0)));
        }
        comparison
    }

    fn about(version: &str, profile: Option<&str>) -> About {
        About { name: "distribKV", version: version.into(), profile: profile.map(str::to_owned) }
    }

    #[test]
    fn labels_tell_apart_what_differs() {
        let told = |lines: [&str; 2], abouts: [&About; 2]| {
            let [one, other] = lines.map(parsed);
            labels([(&one, Some(abouts[0])), (&other, Some(abouts[1]))])
        };
        let (dev, fast, old) = (about("2", Some("dev")), about("2", Some("fast")), about("1", Some("dev")));
        assert_eq!(told(["", "--target etcd"], [&dev, &fast]), ["kv", "etcd"]);
        assert_eq!(told(["", ""], [&dev, &fast]), ["kv dev", "kv fast"]);
        assert_eq!(told(["", ""], [&dev, &old]), ["kv 2", "kv 1"]);
        assert_eq!(told(["", "--seed 2"], [&dev, &dev]), ["kv (A)", "kv (B)"]);
        let (one, mut other) = (parsed(""), parsed(""));
        other.endpoints = vec!["b:2".into()];
        assert_eq!(labels([(&one, None), (&other, Some(&dev))]), ["kv a:1", "kv b:2"]);
    }

    #[test]
    fn rounds_add_up() {
        let comparison = comparison("", &[[800, 100], [900, 100], [700, 100]]);
        let [one, other] = &comparison.sides;
        assert_eq!(
            (one.values(THROUGHPUT), other.values(THROUGHPUT)),
            (vec![800.0, 900.0, 700.0], vec![100.0; 3])
        );
        assert_eq!((one.sum.total.operations(), one.sum.duration_s), (2400, 3.0));
        assert_eq!(comparison.medians(THROUGHPUT), [800.0, 100.0]);
        let spread = comparison.ratios(THROUGHPUT).expect("three rounds");
        assert_eq!((spread.median, spread.min, spread.max), (8.0, 7.0, 9.0));
        // Latencies of the stand-in run from 0.1 ms to 0.1 ms for each operation.
        let p99 = comparison.ratios(P99).expect("three rounds").median;
        assert!((p99 - 8.0).abs() < 0.1, "{p99}");
        assert_eq!(one.full_label(), "kv a:1: distribKV 1.2, profile dev");
        assert!(one.runs[0].json.is_none());
    }

    #[test]
    fn an_empty_comparison_has_no_ratio() {
        let comparison = comparison("", &[]);
        assert_eq!((comparison.ratios(THROUGHPUT), comparison.medians(P50)), (None, [0.0, 0.0]));
    }

    #[test]
    fn doubts_are_told_once_with_their_side() {
        let mut comparison = comparison("--rounds 4", &[[800, 100], [1200, 100]]);
        for cpu_ns in [950, 970] {
            let mut round = [measured(800, 1.0), measured(100, 1.0)];
            round[0].total.usage.push(Usage { cpu_ns, waited_ns: 0, wall_ns: 1000, operations: 1 });
            round[1].total.fail(ErrorKind::Timeout, 2, 5);
            comparison.add(&round);
        }
        let warnings = comparison.warnings();
        let [apart, own, errors] = &warnings[..] else { panic!("{warnings:#?}") };
        assert!(apart.contains("the rounds lie 50 % of it apart"), "{apart}");
        assert!(
            own.starts_with("kv, 2 of 4 rounds: loadgen is the bottleneck: a thread of it ran 95 %"),
            "{own}"
        );
        assert!(errors.starts_with("etcd: 4 calls failed (0.990 %), in 2 of 4 rounds"), "{errors}");
        let early = super::tests::comparison("--rounds 4", &[[8, 1]]).warnings();
        assert_eq!(early, ["it ended early: 1 of 4 rounds were made"]);
        assert_eq!(super::tests::comparison("--rounds 2", &[[8, 1], [9, 1]]).warnings(), [""; 0]);
    }

    #[test]
    fn measured_seconds_follow_each_other() {
        let mut run = Series::default();
        for second in 0..4 {
            let mut interval = Interval::default();
            interval.succeed(1000, 1000);
            run.push(Point::of(&interval, f64::from(second), f64::from(second) + 1.0, second < 2));
        }
        let mut series = Series::default();
        append_measured(&mut series, 0.0, &run);
        append_measured(&mut series, 2.0, &run);
        append_measured(&mut series, 4.0, &Series::default());
        let spans: Vec<_> = series.points().iter().map(|point| (point.from_s, point.to_s)).collect();
        assert_eq!(spans, [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]);
        assert!(series.points().iter().all(|point| !point.is_warmup));
    }
}
