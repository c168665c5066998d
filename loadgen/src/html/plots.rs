//! The charts of the page, made of runs.

use super::axis::{Axis, share_name};
use super::chart::{Chart, Curve, Spot};
use super::{RunView, escape};
use crate::series::{Point, Times};
use crate::units;

/// A wide chart, and one of two beside each other.
const WIDE: (f64, f64) = (1024.0, 330.0);
const HALF: (f64, f64) = (560.0, 260.0);
/// Steps of the percentile chart for every factor of ten of what is left.
const STEPS_PER_TEN: i32 = 24;
/// Colours that there are.
const COLORS: usize = 5;

/// One of an interval's times, by name.
type Percentile = (&'static str, fn(&Times) -> u64);

const PERCENTILES: [Percentile; 4] = [
    ("p50", |times| times.p50),
    ("p99", |times| times.p99),
    ("p99.9", |times| times.p99_9),
    ("max", |times| times.max),
];

/// How the vertical axis is divided; both are on the page, one is seen.
#[derive(Clone, Copy)]
enum Scale {
    Log,
    Linear,
}

impl Scale {
    /// An axis of times for these values.
    fn axis(self, values: impl Iterator<Item = f64> + Clone) -> Axis {
        let high = values.clone().fold(0.0, f64::max);
        match self {
            Self::Linear => Axis::linear(high, units::time),
            Self::Log => Axis::log(values.filter(|ns| *ns > 0.0).fold(high, f64::min), high, units::time),
        }
    }
}

/// A chart in both scales.
fn in_both_scales(caption: &str, chart: impl Fn(Scale) -> Chart) -> String {
    let caption = if caption.is_empty() {
        String::new()
    } else {
        format!("<figcaption>{}</figcaption>\n", escape(caption))
    };
    let (log, linear) = (chart(Scale::Log).svg(), chart(Scale::Linear).svg());
    format!(
        "<figure>\n{caption}<div class=\"log\">\n{log}</div>\n\
         <div class=\"linear\">\n{linear}</div>\n</figure>\n"
    )
}

/// Latency over time: the percentiles of one run, or each percentile of several.
pub fn latency(runs: &[RunView<'_>]) -> String {
    if let [run] = runs {
        return in_both_scales("", |scale| latency_of_one(run, scale));
    }
    let each = PERCENTILES.map(|of| in_both_scales(of.0, |scale| latency_of_all(runs, of, scale)));
    format!("<div class=\"grid-2\">\n{}</div>\n", each.concat())
}

fn latency_of_one(run: &RunView<'_>, scale: Scale) -> Chart {
    let points = run.measured.series.points();
    let looks = ["c0", "c1", "c3", "c4 dotted"];
    let curves: Vec<Curve> = PERCENTILES
        .iter()
        .zip(looks)
        .map(|((name, of), look)| curve(name, look, points, |point| time_of(point, *of)))
        .rev()
        .collect();
    Chart {
        about: "Latency over time: p50, p99, p99.9 and maximum".into(),
        size: WIDE,
        x: Axis::seconds(end_of(run)),
        y: scale.axis(values_of(&curves)),
        warmup: run.warmup_s,
        curves,
        spots: points.iter().map(|point| spot(point, told_times(point))).collect(),
    }
}

fn latency_of_all(runs: &[RunView<'_>], (name, of): Percentile, scale: Scale) -> Chart {
    let told = |run: &RunView<'_>, point: &Point| {
        format!("{} {}", run.label, units::time(of(&point.latency) as f64))
    };
    overlaid(
        runs,
        &format!("Latency over time: {name}"),
        |point| time_of(point, of),
        &told,
        |values| scale.axis(values.into_iter()),
    )
}

/// The same of every run in one chart.
fn overlaid(
    runs: &[RunView<'_>],
    about: &str,
    of: impl Fn(&Point) -> f64,
    told: &dyn Fn(&RunView<'_>, &Point) -> String,
    axis: impl FnOnce(Vec<f64>) -> Axis,
) -> Chart {
    let curves: Vec<Curve> = runs
        .iter()
        .enumerate()
        .map(|(i, run)| curve(&run.label, &color(i), run.measured.series.points(), &of))
        .collect();
    let longest = runs.iter().max_by(|a, b| end_of(a).total_cmp(&end_of(b)));
    let spots = longest.map_or(&[][..], |run| run.measured.series.points());
    let spots = spots.iter().map(|at| {
        let middle_s = (at.from_s + at.to_s) / 2.0;
        let lines = runs.iter().filter_map(|run| Some(told(run, point_at(run, middle_s)?)));
        spot(at, lines.collect::<Vec<_>>().join("\n"))
    });
    Chart {
        about: about.to_owned(),
        size: HALF,
        x: Axis::seconds(longest.map_or(0.0, end_of)),
        y: axis(values_of(&curves).collect()),
        warmup: runs.iter().map(|run| run.warmup_s).fold(0.0, f64::max),
        spots: spots.collect(),
        curves,
    }
}

/// Throughput over time, and errors where there are any.
pub fn throughput(runs: &[RunView<'_>]) -> String {
    let axis = |values: Vec<f64>| Axis::linear(values.into_iter().fold(0.0, f64::max), units::rate);
    let chart = match runs {
        [run] => throughput_of_one(run),
        several => Chart {
            size: WIDE,
            ..overlaid(several, "Throughput over time", Point::rate_per_s, &told_rate, axis)
        },
    };
    format!("<figure>\n{}</figure>\n", chart.svg())
}

fn throughput_of_one(run: &RunView<'_>) -> Chart {
    let points = run.measured.series.points();
    let mut curves = Vec::new();
    if points.iter().any(|point| point.errors > 0) {
        curves.push(curve("errors", "alarm area", points, Point::errors_per_s));
    }
    if let Some(rate) = run.rate {
        let ends = vec![(0.0, rate as f64), (end_of(run), rate as f64)];
        curves.push(Curve { name: "wanted".into(), class: "c4 dashed".into(), points: ends });
    }
    curves.push(curve("calls", "c0 area", points, Point::rate_per_s));
    let high = values_of(&curves).fold(0.0, f64::max);
    Chart {
        about: "Throughput over time".into(),
        size: (WIDE.0, 240.0),
        x: Axis::seconds(end_of(run)),
        y: Axis::linear(high, units::rate),
        warmup: run.warmup_s,
        curves,
        spots: points.iter().map(|point| spot(point, told_rates(point))).collect(),
    }
}

/// A trial of a search for the highest rate.
#[derive(Clone, Debug)]
pub struct KneePoint {
    /// Calls a second that were wanted.
    pub rate_per_s: f64,
    /// Latencies in nanoseconds, a curve each; those that lie nowhere are none.
    pub times_ns: Vec<f64>,
    /// What it tells when it is pointed at.
    pub text: String,
}

/// Latency over the rate.
#[derive(Clone, Debug)]
pub struct KneeChart {
    /// The curves' names.
    pub names: Vec<String>,
    /// By rising rate.
    pub points: Vec<KneePoint>,
    /// What must not be exceeded, by name, in nanoseconds.
    pub limits: Vec<(String, f64)>,
    /// The rate that was found.
    pub found: Option<f64>,
}

/// Latency over the rate, in both scales.
pub fn knee(chart: &KneeChart) -> String {
    in_both_scales("", |scale| knee_in(chart, scale))
}

fn knee_in(of: &KneeChart, scale: Scale) -> Chart {
    let looks = ["c0", "c1", "c3", "c2", "c4"];
    let rate_max = of.points.iter().map(|point| point.rate_per_s).fold(0.0, f64::max);
    let x = Axis::linear(rate_max, units::rate);
    let curve_of = |(i, name): (usize, &String)| Curve {
        name: name.clone(),
        class: looks[i % looks.len()].to_owned(),
        points: of.points.iter().map(|point| (point.rate_per_s, point.times_ns[i])).collect(),
    };
    let mut curves: Vec<Curve> = of.names.iter().enumerate().map(curve_of).rev().collect();
    let limits = of.limits.iter().map(|(name, ns)| Curve {
        name: name.clone(),
        class: "alarm dashed".into(),
        points: vec![(0.0, *ns), (x.high(), *ns)],
    });
    curves.splice(0..0, limits);
    let (low, high) =
        values_of(&curves).fold((f64::MAX, 0.0_f64), |(low, high), y| (low.min(y), high.max(y)));
    if let Some(found) = of.found.filter(|_| high > 0.0) {
        let points = vec![(found, low), (found, high)];
        curves.insert(0, Curve { name: "found".into(), class: "c4 dotted".into(), points });
    }
    Chart {
        about: "Latency over the rate of each trial".into(),
        size: WIDE,
        y: scale.axis(values_of(&curves)),
        warmup: 0.0,
        spots: knee_spots(&of.points, x.high()),
        x,
        curves,
    }
}

/// Each trial can be pointed at up to halfway to its neighbours.
fn knee_spots(points: &[KneePoint], high: f64) -> Vec<Spot> {
    let rate = |i: usize| points[i].rate_per_s;
    let halfway = |i: usize| (rate(i) + rate(i + 1)) / 2.0;
    let spot = |i: usize| {
        let from = if i == 0 { 0.0 } else { halfway(i - 1) };
        let to = if i + 1 == points.len() { high } else { halfway(i) };
        Spot { span: (from, to), text: points[i].text.clone() }
    };
    (0..points.len()).map(spot).collect()
}

/// The percentiles of latency and service time.
pub fn spectrum(runs: &[RunView<'_>]) -> String {
    in_both_scales("", |scale| spectrum_in(runs, scale))
}

fn spectrum_in(runs: &[RunView<'_>], scale: Scale) -> Chart {
    let count = runs.iter().map(|run| run.measured.total.operations()).max().unwrap_or(0);
    let x = Axis::shares(count);
    let mut curves = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let total = &run.measured.total;
        let whose = if runs.len() > 1 { format!("{} ", run.label) } else { String::new() };
        // One run has a colour for each; several have one each, and dashes for the service time.
        let service = if runs.len() > 1 { color(i) } else { "c2".to_owned() };
        let kinds = [
            (format!("{whose}service"), format!("{service} dashed"), total.service_ns()),
            (format!("{whose}latency").replace(" latency", ""), color(i), total.latency_ns()),
        ];
        for (name, class, times) in kinds {
            let at = |at: f64| (at, times.value_at_quantile(1.0 - 1.0 / at) as f64);
            let own = total.operations() as f64;
            let mut points: Vec<_> = shares(own).map(at).collect();
            points.push((own, times.max() as f64));
            points.retain(|_| own > 0.0);
            curves.push(Curve { name, class, points });
        }
    }
    let spots = shares(x.high()).map(|at| {
        let half = 10f64.powf(0.5 / f64::from(STEPS_PER_TEN));
        let lines = curves.iter().rev().filter_map(|curve| {
            let (_, ns) = curve.points.iter().rev().find(|(share, _)| *share <= at * 1.001)?;
            Some(format!("{} {}", curve.name, units::time(*ns)))
        });
        let text = format!("{}\n{}", percent(at), lines.collect::<Vec<_>>().join("\n"));
        Spot { span: ((at / half).max(1.0), at * half), text }
    });
    Chart {
        about: "Latency and service time by percentile".into(),
        size: WIDE,
        y: scale.axis(values_of(&curves)),
        spots: spots.collect(),
        x,
        warmup: 0.0,
        curves,
    }
}

/// 1 / (1 - share), for shares up to those that so many values can tell.
fn shares(count: f64) -> impl Iterator<Item = f64> {
    (0..)
        .map(|step| 10f64.powf(f64::from(step) / f64::from(STEPS_PER_TEN)))
        .take_while(move |at| *at <= count)
}

/// A share in percent, with as many digits as it takes.
fn percent(at: f64) -> String {
    if (at.log10() - at.log10().round()).abs() < 1e-6 {
        return share_name(at);
    }
    let decimals = at.log10().ceil() as usize;
    format!("{:.decimals$} %", 100.0 * (1.0 - 1.0 / at))
}

fn color(number: usize) -> String {
    format!("c{}", number % COLORS)
}

fn end_of(run: &RunView<'_>) -> f64 {
    run.measured.series.points().last().map_or(0.0, |point| point.to_s)
}

fn curve(name: &str, class: &str, points: &[Point], of: impl Fn(&Point) -> f64) -> Curve {
    let places = points.iter().map(|point| ((point.from_s + point.to_s) / 2.0, of(point)));
    Curve { name: name.to_owned(), class: class.to_owned(), points: places.collect() }
}

/// A time of an interval; none where nothing succeeded.
fn time_of(point: &Point, of: fn(&Times) -> u64) -> f64 {
    if point.operations > 0 { of(&point.latency) as f64 } else { f64::NAN }
}

fn values_of(curves: &[Curve]) -> impl Iterator<Item = f64> + Clone {
    curves.iter().flat_map(|curve| curve.points.iter().map(|(_, y)| *y)).filter(|y| y.is_finite())
}

fn point_at<'a>(run: &RunView<'a>, at_s: f64) -> Option<&'a Point> {
    run.measured.series.points().iter().find(|point| (point.from_s..point.to_s).contains(&at_s))
}

fn spot(point: &Point, text: String) -> Spot {
    let (from, to) = (point.from_s, point.to_s);
    let when = if point.is_warmup { ", warm-up" } else { "" };
    Spot { span: (from, to), text: format!("{from:.1} to {to:.1} s{when}\n{text}") }
}

fn told_times(point: &Point) -> String {
    let lines = PERCENTILES.iter().rev().map(|(name, of)| {
        let latency = units::time(of(&point.latency) as f64);
        format!("{name} {latency} (service {})", units::time(of(&point.service) as f64))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn told_rates(point: &Point) -> String {
    let (rate, errors) = (units::rate(point.rate_per_s()), units::count(point.errors));
    format!(
        "{rate}\nerrors {errors}, timeouts {}\nsent late {}",
        units::count(point.timeouts),
        units::count(point.late)
    )
}

fn told_rate(run: &RunView<'_>, point: &Point) -> String {
    format!("{} {}, errors {}", run.label, units::rate(point.rate_per_s()), units::count(point.errors))
}
