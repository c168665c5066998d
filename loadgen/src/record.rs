//! What came of the calls: histograms and counts, one record for each thread, merged at the end.
//!
//! Two times are kept of every call that succeeded. Its *latency* counts from the moment when it was meant to
//! start, its *service time* from the moment when it was handed to a connection: what lies between them is
//! what a client would have waited, and what a closed loop does not see. Both are in nanoseconds with three
//! significant digits.
//!
//! Invariants:
//! - A call that failed is in neither: its time is that of giving up. It is counted by its kind, and its time
//!   is in a histogram of errors or in one of timeouts.
//! - Recording allocates nothing: every histogram is made before the run.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::audit::Verdict;
use crate::control::About;
use crate::host::Host;
use crate::method::Method;
use crate::series::Series;
use crate::status::ErrorKind;
use crate::told::Told;
use crate::usage::{Usage, busiest};

/// Longest latency that is told from longer ones: ten minutes.
const LATENCY_NS_MAX: u64 = 600 * 1_000_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// What a thread shares with whoever reports. Locked for a batch of calls at a time.
pub type SharedRecord = Arc<Mutex<Record>>;

/// Everything that one thread records.
#[derive(Debug, Default)]
pub struct Record {
    /// What ended since the last interval.
    pub interval: Interval,
    /// What was started in the measured window.
    pub total: Total,
}

/// What a run came to.
#[derive(Debug)]
pub struct Measured {
    /// What was started in the measured window.
    pub total: Total,
    /// How long that was.
    pub duration_s: f64,
    /// The run second by second, the warm-up included.
    pub series: Series,
    /// Why the interval log is not whole, where it was asked for and is not.
    pub log_error: Option<io::Error>,
    /// What the server is, where it tells.
    pub about: Option<About>,
    /// The machine that the load came from.
    pub host: Host,
}

/// What ended within an interval of the run, measured or not.
#[derive(Debug)]
pub struct Interval {
    /// Latencies of what succeeded.
    pub latency_ns: Histogram<u64>,
    /// Service times of what succeeded.
    pub service_ns: Histogram<u64>,
    /// Operations that failed.
    pub errors: u64,
    /// Of these, the ones whose time was over.
    pub timeouts: u64,
    /// Calls of an open loop that left late.
    pub late: u64,
    /// What a thread used lately; of several threads, the one that had the least to spare.
    pub usage: Usage,
}

/// What was started in the measured window.
#[derive(Debug)]
pub struct Total {
    /// What succeeded, by [`Method::index`].
    pub kinds: Vec<Kind>,
    /// Of what succeeded, gets and deletes of a key that is not there.
    pub not_found: u64,
    /// And what else is told apart of these.
    pub told: Told,
    /// Calls of an open loop that left late.
    pub late: u64,
    /// Of these, the ones that every place was taken for when they were due: the server is behind, not the
    /// load generator.
    pub late_no_place: u64,
    /// Of the others, the ones that had a place and found no connection that was up and had a stream left.
    pub late_no_stream: u64,
    /// Connections that could not be made before the run began; of several runs, in the worst of them.
    pub unconnected: u64,
    /// What failed, by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// How long failures took that are no timeouts, from when the call was meant to start.
    pub error_ns: Histogram<u64>,
    /// How long timeouts took; of calls that were never sent, how long they had waited at least.
    pub timeout_ns: Histogram<u64>,
    /// What each thread used.
    pub usage: Vec<Usage>,
    /// What an audit found, once all threads have ended.
    pub audit: Option<Verdict>,
}

/// What succeeded of one kind of operation.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Which one, once there was one.
    pub method: Option<Method>,
    /// Latencies, and thereby how many there were.
    pub latency_ns: Histogram<u64>,
    /// Service times.
    pub service_ns: Histogram<u64>,
}

impl Default for Interval {
    fn default() -> Self {
        Self {
            latency_ns: histogram(),
            service_ns: histogram(),
            errors: 0,
            timeouts: 0,
            late: 0,
            usage: Usage::default(),
        }
    }
}

impl Default for Kind {
    fn default() -> Self {
        Self { method: None, latency_ns: histogram(), service_ns: histogram() }
    }
}

impl Default for Total {
    fn default() -> Self {
        Self {
            kinds: vec![Kind::default(); Method::PATHS.len()],
            not_found: 0,
            told: Told::default(),
            late: 0,
            late_no_place: 0,
            late_no_stream: 0,
            unconnected: 0,
            errors: BTreeMap::new(),
            error_ns: histogram(),
            timeout_ns: histogram(),
            usage: Vec::new(),
            audit: None,
        }
    }
}

/// An empty histogram of latencies.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS)
        .expect("the bounds and digits are constants within range")
}

/// Adds a histogram of this module to another.
pub fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.add(other).expect("both histograms have the same bounds");
}

impl Interval {
    /// Counts a call that succeeded.
    pub fn succeed(&mut self, latency_ns: u64, service_ns: u64) {
        self.latency_ns.saturating_record(latency_ns);
        self.service_ns.saturating_record(service_ns);
    }

    /// Counts failures of one kind.
    pub fn fail(&mut self, kind: ErrorKind, count: u64) {
        self.errors += count;
        if kind.is_timeout() {
            self.timeouts += count;
        }
    }

    /// Adds another interval to this one.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.latency_ns, &other.latency_ns);
        add(&mut self.service_ns, &other.service_ns);
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        self.late += other.late;
        self.usage = busiest(&[self.usage, other.usage]);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.latency_ns.reset();
        self.service_ns.reset();
        (self.errors, self.timeouts, self.late) = (0, 0, 0);
        self.usage = Usage::default();
    }
}

impl Total {
    /// Counts a call that succeeded.
    pub fn succeed(&mut self, method: Method, latency_ns: u64, service_ns: u64) {
        let kind = &mut self.kinds[method.index()];
        kind.method = Some(method);
        kind.latency_ns.saturating_record(latency_ns);
        kind.service_ns.saturating_record(service_ns);
    }

    /// Counts failures of one kind that took so long.
    pub fn fail(&mut self, kind: ErrorKind, count: u64, took_ns: u64) {
        if count == 0 {
            return;
        }
        *self.errors.entry(kind).or_default() += count;
        let times = if kind.is_timeout() { &mut self.timeout_ns } else { &mut self.error_ns };
        times.saturating_record_n(took_ns, count);
    }

    /// Adds what another thread, or another round, recorded.
    pub fn merge(&mut self, other: &Self) {
        for (sum, other) in self.kinds.iter_mut().zip(&other.kinds) {
            sum.method = sum.method.or(other.method);
            add(&mut sum.latency_ns, &other.latency_ns);
            add(&mut sum.service_ns, &other.service_ns);
        }
        self.not_found += other.not_found;
        self.told.merge(&other.told);
        self.late += other.late;
        self.late_no_place += other.late_no_place;
        self.late_no_stream += other.late_no_stream;
        self.unconnected = self.unconnected.max(other.unconnected);
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        add(&mut self.error_ns, &other.error_ns);
        add(&mut self.timeout_ns, &other.timeout_ns);
        self.usage.extend_from_slice(&other.usage);
    }

    /// The kinds that there were, by name.
    pub fn by_operation(&self) -> impl Iterator<Item = (&'static str, &Kind)> {
        self.kinds.iter().filter_map(|kind| Some((kind.method?.name(), kind)))
    }

    /// Latencies of all kinds.
    pub fn latency_ns(&self) -> Histogram<u64> {
        self.sum(|kind| &kind.latency_ns)
    }

    /// Service times of all kinds.
    pub fn service_ns(&self) -> Histogram<u64> {
        self.sum(|kind| &kind.service_ns)
    }

    fn sum(&self, of: impl Fn(&Kind) -> &Histogram<u64>) -> Histogram<u64> {
        let mut sum = histogram();
        for kind in &self.kinds {
            add(&mut sum, of(kind));
        }
        sum
    }

    /// Operations that succeeded.
    pub fn operations(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.latency_ns.len()).sum()
    }

    /// Operations that failed.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Of these, the ones whose time was over.
    pub fn timeouts(&self) -> u64 {
        self.errors.iter().filter(|(kind, _)| kind.is_timeout()).map(|(_, count)| count).sum()
    }

    /// The share of calls that failed, in percent.
    pub fn errors_percent(&self) -> f64 {
        percent(self.failures(), self.failures() + self.operations())
    }

    /// The share of calls that left late, in percent.
    pub fn late_percent(&self) -> f64 {
        percent(self.late, self.failures() + self.operations())
    }
}

impl Measured {
    /// Measured operations that succeeded, a second.
    pub fn throughput_per_s(&self) -> f64 {
        if self.duration_s > 0.0 { self.total.operations() as f64 / self.duration_s } else { 0.0 }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole > 0 { 100.0 * part as f64 / whole as f64 } else { 0.0 }
}

/// Locks a record. A thread that panicked while it held it ends the process anyway.
pub fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_merge() {
        let (mut sum, mut other) = (Total::default(), Total::default());
        sum.succeed(Method::Put, 1_000, 500);
        sum.fail(ErrorKind::Timeout, 2, 5_000_000);
        other.succeed(Method::Put, u64::MAX, 700);
        other.succeed(Method::Get, 2_000, 2_000);
        other.fail(ErrorKind::Timeout, 1, 5_000_000);
        other.fail(ErrorKind::ConnectionLost, 1, 3_000);
        other.fail(ErrorKind::Dropped, 0, 1);
        (other.not_found, other.late, other.late_no_place, other.late_no_stream) = (4, 3, 2, 1);
        sum.merge(&other);
        assert_eq!((sum.operations(), sum.failures(), sum.not_found), (3, 4, 4));
        assert_eq!((sum.timeouts(), sum.timeout_ns.len(), sum.error_ns.len()), (3, 3, 1));
        assert_eq!((sum.late, sum.late_no_place, sum.late_no_stream), (3, 2, 1));
        assert_eq!(sum.errors.len(), 2);
        assert!(sum.latency_ns().max() >= LATENCY_NS_MAX);
        assert!(sum.service_ns().max() < 2_002 && sum.error_ns.max() < 3_002);
        let kinds: Vec<_> = sum.by_operation().map(|(name, kind)| (name, kind.latency_ns.len())).collect();
        assert_eq!(kinds, [("get", 1), ("put", 2)]);
        assert!((sum.errors_percent() - 100.0 * 4.0 / 7.0).abs() < 1e-9);
    }

    #[test]
    fn intervals_merge_and_are_forgotten() {
        let (mut sum, mut other) = (Interval::default(), Interval::default());
        other.succeed(5_000, 4_000);
        other.fail(ErrorKind::Timeout, 2);
        other.fail(ErrorKind::NotServing, 1);
        other.usage = Usage { cpu_ns: 50, waited_ns: 0, wall_ns: 100, operations: 1 };
        sum.merge(&other);
        assert_eq!((sum.latency_ns.len(), sum.service_ns.len(), sum.errors, sum.timeouts), (1, 1, 3, 2));
        assert_eq!(sum.usage.busy_percent(), 50.0);
        sum.clear();
        assert_eq!((sum.latency_ns.len(), sum.errors, sum.usage), (0, 0, Usage::default()));
    }

    #[test]
    fn three_digits_are_kept() {
        let mut histogram = histogram();
        histogram.saturating_record(123_456_789);
        let found = histogram.value_at_quantile(0.5);
        assert!(found.abs_diff(123_456_789) < 123_456, "{found}");
    }
}
