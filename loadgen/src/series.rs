//! A run second by second: points of equal length, bounded in number.
//!
//! Invariants:
//! - There are at most `points_max` points. Where one more would come, every two become one, and from then on
//!   a point lasts twice as long.
//! - A point's percentiles are those of its calls, however often it was joined with others: it keeps its
//!   counts, since percentiles alone cannot be added up.

use hdrhistogram::Histogram;

use crate::record::{Interval, histogram};
use crate::usage::Usage;

/// Most points of a run.
pub const POINTS_MAX: usize = 600;
/// The last point of a run is joined with the one before where it is shorter than this share of it: a rate
/// over a few milliseconds says nothing.
const TAIL_SHARE_MIN: f64 = 0.5;

/// What is told of the times in an interval, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Half of the calls took no longer.
    pub p50: u64,
    /// Nine in ten.
    pub p90: u64,
    /// 99 in a hundred.
    pub p99: u64,
    /// 999 in a thousand.
    pub p99_9: u64,
    /// All of them.
    pub max: u64,
}

/// Counts by time, as a histogram has them: only the times that there were.
type Cells = Box<[(u64, u64)]>;

/// What ended within one interval.
#[derive(Clone, Debug)]
pub struct Point {
    /// When it began, in seconds since the start of the run.
    pub from_s: f64,
    /// When it ended.
    pub to_s: f64,
    /// Whether it began before the measured window.
    pub is_warmup: bool,
    /// Calls that succeeded.
    pub operations: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Of these, the ones whose time was over.
    pub timeouts: u64,
    /// Calls of an open loop that left late.
    pub late: u64,
    /// Latencies.
    pub latency: Times,
    /// Service times.
    pub service: Times,
    /// What the thread used that had the least to spare.
    pub usage: Usage,
    latency_cells: Cells,
    service_cells: Cells,
    /// Seconds' points that were joined to this one.
    parts: u32,
}

/// The points of a run.
#[derive(Clone, Debug)]
pub struct Series {
    points: Vec<Point>,
    points_max: usize,
    /// Parts of a whole point.
    parts: u32,
}

impl Times {
    fn of(times: &Histogram<u64>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: times.max() }
    }
}

impl Point {
    /// What an interval of the run comes to.
    pub fn of(interval: &Interval, from_s: f64, to_s: f64, is_warmup: bool) -> Self {
        Self {
            from_s,
            to_s,
            is_warmup,
            operations: interval.latency_ns.len(),
            errors: interval.errors,
            timeouts: interval.timeouts,
            late: interval.late,
            latency: Times::of(&interval.latency_ns),
            service: Times::of(&interval.service_ns),
            usage: interval.usage,
            latency_cells: cells_of(&interval.latency_ns),
            service_cells: cells_of(&interval.service_ns),
            parts: 1,
        }
    }

    /// How long it lasted.
    pub fn span_s(&self) -> f64 {
        self.to_s - self.from_s
    }

    /// Calls that succeeded, a second.
    pub fn rate_per_s(&self) -> f64 {
        if self.span_s() > 0.0 { self.operations as f64 / self.span_s() } else { 0.0 }
    }

    /// Calls that failed, a second.
    pub fn errors_per_s(&self) -> f64 {
        if self.span_s() > 0.0 { self.errors as f64 / self.span_s() } else { 0.0 }
    }

    /// How many calls took how long, in nanoseconds, rising.
    pub fn latency_counts(&self) -> &[(u64, u64)] {
        &self.latency_cells
    }

    /// This one and the one that follows it.
    fn joined(&self, next: &Self) -> Self {
        let interval = Interval {
            latency_ns: histogram_of([&self.latency_cells, &next.latency_cells]),
            service_ns: histogram_of([&self.service_cells, &next.service_cells]),
            errors: self.errors + next.errors,
            timeouts: self.timeouts + next.timeouts,
            late: self.late + next.late,
            usage: crate::usage::busiest(&[self.usage, next.usage]),
        };
        let joined = Self::of(&interval, self.from_s, next.to_s, self.is_warmup);
        Self { parts: self.parts + next.parts, ..joined }
    }
}

fn cells_of(times: &Histogram<u64>) -> Cells {
    times.iter_recorded().map(|cell| (cell.value_iterated_to(), cell.count_at_value())).collect()
}

fn histogram_of(parts: [&Cells; 2]) -> Histogram<u64> {
    let mut sum = histogram();
    for (value, count) in parts.into_iter().flatten() {
        sum.saturating_record_n(*value, *count);
    }
    sum
}

impl Default for Series {
    fn default() -> Self {
        Self::new(POINTS_MAX)
    }
}

impl Series {
    /// An empty series that will have at most so many points.
    pub fn new(points_max: usize) -> Self {
        assert!(points_max >= 2, "{points_max} points cannot be joined in pairs");
        Self { points: Vec::new(), points_max, parts: 1 }
    }

    /// The points in order.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Takes the point that follows.
    pub fn push(&mut self, point: Point) {
        match self.points.last_mut() {
            Some(last) if last.parts < self.parts => *last = last.joined(&point),
            Some(_) | None => {
                if self.points.len() == self.points_max {
                    self.join_pairs();
                }
                self.points.push(point);
            }
        }
    }

    /// Takes the last point, which may be shorter than the others.
    pub fn end(&mut self, point: Point) {
        match self.points.last_mut() {
            Some(last) if point.span_s() < TAIL_SHARE_MIN * last.span_s() => *last = last.joined(&point),
            Some(_) | None => self.push(point),
        }
    }

    fn join_pairs(&mut self) {
        let pairs = self.points.chunks(2).map(|pair| match pair {
            [one, other] => one.joined(other),
            rest => rest[0].clone(),
        });
        self.points = pairs.collect();
        self.parts *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second in which one call took so many milliseconds.
    fn second(number: u64, ms: u64) -> Point {
        let mut interval = Interval::default();
        interval.succeed(ms * 1_000_000, 1_000_000);
        interval.errors = 1;
        Point::of(&interval, number as f64, number as f64 + 1.0, number < 2)
    }

    #[test]
    fn a_long_run_has_few_points_and_loses_no_call() {
        let mut series = Series::new(8);
        for number in 0..1000 {
            series.push(second(number, number + 1));
            assert!(series.points().len() <= 8, "{} points", series.points().len());
        }
        let points = series.points();
        assert!(points.len() > 4, "{} points", points.len());
        assert_eq!(points.iter().map(|point| point.operations).sum::<u64>(), 1000);
        assert_eq!(points.iter().map(|point| point.errors).sum::<u64>(), 1000);
        assert_eq!((points[0].from_s, points[points.len() - 1].to_s), (0.0, 1000.0));
        for pair in points.windows(2) {
            assert_eq!(pair[0].to_s, pair[1].from_s);
            assert!((pair[0].rate_per_s() - 1.0).abs() < 1e-9 && !pair[1].is_warmup);
        }
        assert!(points[0].is_warmup);
    }

    #[test]
    fn joined_points_have_the_percentiles_of_all_their_calls() {
        let (mut all, mut series) = (Interval::default(), Series::new(2));
        for number in 0..200 {
            all.succeed((number * number + 1) * 1_000_000, 1_000_000);
            series.push(second(number, number * number + 1));
        }
        let [one, other] = series.points() else { panic!("two points") };
        let joined = one.joined(other);
        assert_eq!(
            (joined.latency, joined.service),
            (Times::of(&all.latency_ns), Times::of(&all.service_ns))
        );
        assert!(joined.latency.p50 < joined.latency.p99, "{joined:?}");
    }

    #[test]
    fn a_short_tail_is_joined() {
        let mut series = Series::default();
        series.push(second(0, 1));
        series.end(Point { to_s: 1.2, from_s: 1.0, ..second(1, 1) });
        assert_eq!((series.points().len(), series.points()[0].to_s), (1, 1.2));
        series.end(Point { to_s: 2.0, from_s: 1.2, ..second(1, 1) });
        assert_eq!(series.points().len(), 2);
    }
}
