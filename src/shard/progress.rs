//! How far a table is that is fetched from a peer: for whoever asks for the status, and for the log.
//!
//! Invariant: the log has a line for every tenth of a large table, or one every few seconds, and so no more
//! than its size and its time are worth.
//!
//! It lives with the task that fetches, on the core of the shard, and reads no clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::env::Instant;

/// Of a table of so many bytes every tenth is worth a line.
const LARGE_BYTES: u64 = 64 << 20;

/// How long the log may say nothing of one that is on its way.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// How far a table is that is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes of it that are here.
    pub bytes_done: u64,
    /// All of its bytes.
    pub bytes_total: u64,
}

/// The same, written by the task that fetches and read by its runner. `None`: no peer has named a table yet.
pub(crate) type SharedProgress = Rc<Cell<Option<FetchProgress>>>;

impl FetchProgress {
    fn tenths(self) -> u128 {
        u128::from(self.bytes_done) * 10 / u128::from(self.bytes_total.max(1))
    }
}

/// When the log says how far a table is.
pub(crate) struct Milestones {
    tenths: u128,
    said_at: Instant,
}

impl Milestones {
    /// A fetch begins, or goes on, from here.
    pub(crate) fn new(from: FetchProgress, now: Instant) -> Self {
        Self { tenths: from.tenths(), said_at: now }
    }

    /// Whether it is to be said now.
    pub(crate) fn is_due(&mut self, progress: FetchProgress, now: Instant) -> bool {
        let is_further = progress.bytes_total >= LARGE_BYTES && progress.tenths() > self.tenths;
        let is_due = is_further || now.since(self.said_at) >= SAY_EVERY;
        if is_due {
            *self = Self::new(progress, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After which of a thousand steps, each so long, something is said of a table that begins to arrive.
    fn said(bytes_total: u64, step: Duration) -> Vec<u64> {
        let at = |done: u64| FetchProgress { bytes_done: bytes_total * done / 1000, bytes_total };
        let mut now = Instant(7);
        let mut milestones = Milestones::new(at(0), now);
        let is_said = |done: &u64| {
            now = now + step;
            milestones.is_due(at(*done), now)
        };
        (1..=1000).filter(is_said).collect()
    }

    #[test]
    fn a_large_table_is_told_of_by_tenths() {
        let tenths: Vec<u64> = (1..=10).map(|tenth| tenth * 100).collect();
        assert_eq!(said(1000 << 20, Duration::from_millis(1)), tenths);
    }

    #[test]
    fn a_slow_one_is_told_of_now_and_then() {
        let every_200 = [200, 400, 600, 800, 1000];
        assert_eq!(said(1 << 20, Duration::from_millis(25)), every_200);
        assert!(said(1 << 20, Duration::from_millis(1)).is_empty(), "a small one is here in a moment");
        assert_eq!(said(u64::MAX / 1000, Duration::from_secs(5)).len(), 1000);
    }

    #[test]
    fn what_was_here_before_is_no_news() {
        let at = |done: u64| FetchProgress { bytes_done: done << 20, bytes_total: 100 << 20 };
        let mut milestones = Milestones::new(at(35), Instant(0));
        assert!(!milestones.is_due(at(36), Instant(1)));
        assert!(milestones.is_due(at(40), Instant(2)));
    }
}
