//! What came of the calls: histograms and counts, one record for each thread, merged at the end.
//!
//! Latencies are kept in nanoseconds with three significant digits. Operations that failed are counted by
//! their kind and are in no histogram: their latency would be that of giving up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::audit::Verdict;
use crate::status::ErrorKind;
use crate::told::Told;
use crate::usage::Usage;

/// Longest latency that is told from longer ones: ten minutes.
const LATENCY_NS_MAX: u64 = 600 * 1_000_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// What a thread shares with whoever reports. Locked for a batch of calls at a time.
pub type SharedRecord = Arc<Mutex<Record>>;

/// Everything that one thread records.
#[derive(Debug, Default)]
pub struct Record {
    /// What was completed since the last line of progress.
    pub interval: Interval,
    /// What was started in the measured window.
    pub total: Total,
}

/// What was completed within an interval of the run, measured or not.
#[derive(Debug)]
pub struct Interval {
    /// Latencies of what succeeded.
    pub latency_ns: Histogram<u64>,
    /// Operations that failed.
    pub errors: u64,
}

/// What was started in the measured window.
#[derive(Debug)]
pub struct Total {
    /// Latencies of what succeeded, and thereby how many did.
    pub latency_ns: Histogram<u64>,
    /// Of these, gets and deletes of a key that is not there.
    pub not_found: u64,
    /// And what else is told apart of these.
    pub told: Told,
    /// Calls of an open loop that left late.
    pub late: u64,
    /// What failed, by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// What each thread used.
    pub usage: Vec<Usage>,
    /// What an audit found, once all threads have ended.
    pub audit: Option<Verdict>,
}

impl Default for Interval {
    fn default() -> Self {
        Self { latency_ns: histogram(), errors: 0 }
    }
}

impl Default for Total {
    fn default() -> Self {
        Self {
            latency_ns: histogram(),
            not_found: 0,
            told: Told::default(),
            late: 0,
            errors: BTreeMap::new(),
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

impl Interval {
    /// Adds another interval to this one.
    pub fn merge(&mut self, other: &Self) {
        self.latency_ns.add(&other.latency_ns).expect("both histograms have the same bounds");
        self.errors += other.errors;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.latency_ns.reset();
        self.errors = 0;
    }
}

impl Total {
    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.latency_ns.add(&other.latency_ns).expect("both histograms have the same bounds");
        self.not_found += other.not_found;
        self.told.merge(&other.told);
        self.late += other.late;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        self.usage.extend_from_slice(&other.usage);
    }

    /// Operations that succeeded.
    pub fn operations(&self) -> u64 {
        self.latency_ns.len()
    }

    /// Operations that failed.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Counts failures of one kind.
    pub fn fail(&mut self, kind: ErrorKind, count: u64) {
        if count > 0 {
            *self.errors.entry(kind).or_default() += count;
        }
    }
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
        sum.latency_ns.saturating_record(1_000);
        sum.fail(ErrorKind::Timeout, 2);
        other.latency_ns.saturating_record(u64::MAX);
        other.fail(ErrorKind::Timeout, 1);
        other.fail(ErrorKind::Dropped, 0);
        other.not_found = 4;
        sum.merge(&other);
        assert_eq!((sum.operations(), sum.failures(), sum.not_found), (2, 3, 4));
        assert_eq!(sum.errors.len(), 1);
        assert!(sum.latency_ns.max() >= LATENCY_NS_MAX);
    }

    #[test]
    fn three_digits_are_kept() {
        let mut histogram = histogram();
        histogram.saturating_record(123_456_789);
        let found = histogram.value_at_quantile(0.5);
        assert!(found.abs_diff(123_456_789) < 123_456, "{found}");
    }
}
