//! What a client may send on its connection: its window there, and what is lent beyond it.
//!
//! ```text
//!                        came                taken
//!  free (the client's) ──────► unread ──────────────► owed ──┬─► free: WINDOW_UPDATE
//!    ▲                                                       └─► a loan is paid back
//!    └── lent, a part at a time, where what is unread leaves the client next to nothing
//! ```
//!
//! Streams that nobody reads for a while (a Pipeline at its limit) may hold all of a window: the calls beside
//! them would stand still until one of them is read. So the client is lent more.
//!
//! Invariants:
//! - `free + unread + owed` is the window and what is lent.
//! - What is unread, and what may still come, is never more than `connection_unread_bytes_max`. What it is
//!   more than the window counts as bytes in flight, of the connection and of the core. It takes no more
//!   than half of what may be in flight: requests have the rest.
//! - A loan is paid back before more than the window is the client's again.

use crate::edge::budget::{Budget, Held};
use crate::edge::limits::EdgeLimits;
use crate::http2::frame::{Code, WINDOW_BYTES_FIRST};

/// A part that is lent is the window divided by this: where the client has less, it is lent as much.
const PARTS_PER_WINDOW: u32 = 4;

/// The receiving side of a connection's flow control.
#[derive(Debug)]
pub(super) struct Inflow {
    window: u32,
    part: u32,
    parts_max: usize,
    /// What the client may send, in bytes.
    free: u32,
    /// What came and nobody has taken.
    unread: u32,
    /// What was taken and not given back.
    owed: u32,
    /// What is lent: a part each.
    lent: Vec<Held>,
    budget: Budget,
}

impl Inflow {
    pub(super) fn new(limits: &EdgeLimits, budget: Budget) -> Self {
        Self::of_window(limits.connection_window_bytes.max(WINDOW_BYTES_FIRST), limits, budget)
    }

    /// One of a window that may be less than what every connection begins with.
    fn of_window(window: u32, limits: &EdgeLimits, budget: Budget) -> Self {
        let part = window / PARTS_PER_WINDOW;
        let parts_max = (limits.connection_unread_bytes_max.saturating_sub(window) / part) as usize;
        Self { window, part, parts_max, free: window, unread: 0, owed: 0, lent: Vec::new(), budget }
    }

    /// So many bytes came, which nobody has taken yet.
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Code> {
        self.free = self.free.checked_sub(bytes).ok_or(Code::FlowControl)?;
        self.unread += bytes;
        Ok(())
    }

    /// So many of them are taken.
    pub(super) fn take(&mut self, bytes: u32) {
        assert!(bytes <= self.unread, "{bytes} bytes are taken of {}", self.unread);
        self.unread -= bytes;
        self.owed += bytes;
    }

    /// By how much the client's window grows now: once what it is owed is half of what is not held by streams
    /// that nobody reads, which may be more than half of all; or by what it is lent.
    pub(super) fn grow(&mut self) -> Option<u32> {
        self.pay_back();
        let owed = self.owed.min(self.window - self.free);
        if owed > 0 && owed >= self.free {
            self.owed -= owed;
            self.free += owed;
            return Some(owed);
        }
        if self.free >= self.part || self.lent.len() >= self.parts_max {
            return None;
        }
        self.lent.push(self.budget.try_lend(self.part as usize)?);
        self.free += self.part;
        Some(self.part)
    }

    /// Pays loans back that what is unread does not need any more.
    fn pay_back(&mut self) {
        while let Some(rest) = self.lent.len().checked_sub(1)
            && self.unread as usize <= rest * self.part as usize
        {
            assert!(self.owed >= self.part, "{self:?} owes less than it was lent");
            self.owed -= self.part;
            self.lent.pop();
        }
    }

    /// The window becomes what the limits say, even where a connection begins with more: for tests, in which
    /// nothing has come yet.
    pub(super) fn narrow(&mut self, limits: &EdgeLimits) {
        *self = Self::of_window(limits.connection_window_bytes, limits, self.budget.clone());
    }

    /// Whether every byte is where it has to be, and there are no more of them than may be.
    pub(super) fn is_balanced(&self, limits: &EdgeLimits) -> bool {
        let lent = self.lent.len() as u32 * self.part;
        self.free + self.unread + self.owed == self.window + lent
            && self.free + self.unread <= limits.connection_unread_bytes_max.max(self.window)
    }

    /// Whether nothing is unread, and nothing lent or lost.
    pub(super) fn is_at_rest(&self) -> bool {
        self.unread == 0 && self.lent.is_empty() && self.free + self.owed == self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::budget::CoreBudget;

    const LIMITS: EdgeLimits = EdgeLimits {
        stream_window_bytes: 100_000,
        connection_window_bytes: 100_000,
        connection_unread_bytes_max: 150_000,
        ..EdgeLimits::DEFAULT
    };

    fn core() -> CoreBudget {
        CoreBudget::new(120_000)
    }

    /// Receives until the client may send no more: how much it was.
    fn fill(inflow: &mut Inflow) -> u32 {
        let mut bytes = 0;
        while inflow.receive(1000).is_ok() {
            bytes += 1000;
            inflow.grow();
        }
        bytes
    }

    #[test]
    fn what_is_lent_has_a_limit_and_is_paid_back() {
        let core = core();
        let mut inflow = Inflow::new(&LIMITS, core.connection(120_000));
        assert_eq!(fill(&mut inflow), 150_000);
        assert!(core.connection(120_000).try_hold(70_001).is_none(), "what is lent is in flight");
        inflow.take(50_000);
        assert_eq!(inflow.grow(), Some(50_000), "others have their window while the rest is unread");
        assert_eq!(fill(&mut inflow), 50_000);
        inflow.take(100_000);
        assert_eq!(inflow.grow(), Some(100_000));
        inflow.take(50_000);
        assert_eq!(inflow.grow(), None, "the window is the client's, and the loans are paid back");
        assert!(inflow.is_at_rest() && core.connection(120_000).try_hold(120_000).is_some(), "{inflow:?}");
    }

    #[test]
    fn nothing_is_lent_that_is_not_there() {
        let core = core();
        let budget = core.connection(120_000);
        let in_flight = budget.try_hold(30_000);
        let mut inflow = Inflow::new(&LIMITS, budget);
        assert_eq!(fill(&mut inflow), 125_000);
        drop(in_flight);
        inflow.take(1000);
        assert_eq!(inflow.grow(), Some(1000));
        assert_eq!(fill(&mut inflow), 26_000, "there is more again");
    }

    #[test]
    fn what_is_taken_at_once_takes_no_loan() {
        let mut inflow = Inflow::new(&LIMITS, core().connection(0));
        let mut grown = 0;
        for _ in 0..1000 {
            inflow.receive(16_000).expect("the window is given back");
            grown += u32::from(inflow.grow().is_some());
            inflow.take(16_000);
            grown += u32::from(inflow.grow().is_some());
        }
        assert_eq!(grown, 333, "when half of what is not unread is owed");
    }
}
