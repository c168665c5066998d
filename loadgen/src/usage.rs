//! What the load generator itself costs: CPU time for each operation, and whether its threads had enough of
//! it.
//!
//! A thread that runs all the time measures itself instead of the server; so does one that has to wait for a
//! core. Both are told, so that neither goes unnoticed.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// A thread that runs, or waits for a core, so much of the time is short of CPU, in percent.
pub const BUSY_PERCENT_MAX: f64 = 90.0;
/// What the kernel tells of a thread: nanoseconds on a core, nanoseconds waiting for one, turns.
const SCHEDSTAT: &str = "/proc/thread-self/schedstat";

/// What one thread used in the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a core.
    pub cpu_ns: u64,
    /// Time that it could have run, but another thread had the core; 0 where the kernel does not tell.
    pub waited_ns: u64,
    /// Time that passed.
    pub wall_ns: u64,
    /// Operations that ended.
    pub operations: u64,
}

impl Usage {
    /// The share of the time that the thread ran, in percent.
    pub fn busy_percent(&self) -> f64 {
        percent(self.cpu_ns, self.wall_ns)
    }

    /// The share of the time that it waited for a core, in percent.
    pub fn waited_percent(&self) -> f64 {
        percent(self.waited_ns, self.wall_ns)
    }
}

/// CPU time for an operation over all threads, in microseconds.
pub fn cpu_us_per_operation(usage: &[Usage]) -> f64 {
    let operations: u64 = usage.iter().map(|usage| usage.operations).sum();
    let cpu_ns: u64 = usage.iter().map(|usage| usage.cpu_ns).sum();
    if operations > 0 { cpu_ns as f64 / operations as f64 / 1e3 } else { 0.0 }
}

/// The thread that had the least to spare.
pub fn busiest(usage: &[Usage]) -> Usage {
    let spent = |usage: &Usage| usage.busy_percent() + usage.waited_percent();
    usage.iter().copied().max_by(|a, b| spent(a).total_cmp(&spent(b))).unwrap_or_default()
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole > 0 { 100.0 * part as f64 / whole as f64 } else { 0.0 }
}

/// Measures the thread that it is used on.
#[derive(Debug, Default)]
pub struct Meter {
    /// Since when; all sums since the thread began.
    begun: Option<Usage>,
}

impl Meter {
    /// Begins, unless it has begun.
    pub fn begin(&mut self, now_ns: u64, operations: u64) {
        if self.begun.is_none() {
            self.begun = Some(sums(now_ns, operations));
        }
    }

    /// Ends. Gives what was used since the beginning, where there was one.
    pub fn end(&mut self, now_ns: u64, operations: u64) -> Option<Usage> {
        let begun = self.begun.take()?;
        let sums = sums(now_ns, operations);
        Some(Usage {
            cpu_ns: sums.cpu_ns.saturating_sub(begun.cpu_ns),
            waited_ns: sums.waited_ns.saturating_sub(begun.waited_ns),
            wall_ns: sums.wall_ns.saturating_sub(begun.wall_ns),
            operations: sums.operations.saturating_sub(begun.operations),
        })
    }
}

/// All that this thread has used.
fn sums(now_ns: u64, operations: u64) -> Usage {
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    let cpu_ns = cpu.tv_sec.unsigned_abs() * 1_000_000_000 + cpu.tv_nsec.unsigned_abs();
    let waited_ns = fs::read_to_string(SCHEDSTAT).ok().and_then(|text| waited_of(&text)).unwrap_or(0);
    Usage { cpu_ns, waited_ns, wall_ns: now_ns, operations }
}

fn waited_of(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_is_seen_to() {
        let mut meter = Meter::default();
        assert_eq!(meter.end(5, 5), None);
        meter.begin(1_000, 10);
        meter.begin(2_000, 20);
        let spent = (0..10_000_000u64).fold(0u64, |sum, n| std::hint::black_box(sum ^ n));
        assert!(spent < u64::MAX);
        let usage = meter.end(11_000, 110).expect("it has begun");
        assert!(usage.cpu_ns > 100_000, "{usage:?}");
        assert_eq!((usage.wall_ns, usage.operations), (10_000, 100));
        assert_eq!(meter.end(12_000, 120), None);
    }

    #[test]
    fn threads_add_up_and_the_busiest_counts() {
        let usage = |cpu_ns, waited_ns, operations| Usage { cpu_ns, waited_ns, wall_ns: 1000, operations };
        let all = [usage(500, 0, 1), usage(300, 300, 3), usage(400, 0, 0)];
        assert_eq!(cpu_us_per_operation(&all), 0.3);
        assert_eq!(busiest(&all), all[1]);
        assert_eq!((all[1].busy_percent(), all[1].waited_percent()), (30.0, 30.0));
        assert_eq!((cpu_us_per_operation(&[]), busiest(&[]).busy_percent()), (0.0, 0.0));
        assert_eq!((waited_of("12 345 6\n"), waited_of("")), (Some(345), None));
    }
}
