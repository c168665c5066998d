//! The sequences of one session: which are given out, which are finished, and up to where all are.
//!
//! ```text
//! 1 … acknowledged │ some finished, some not … │ next …
//!                  └──── at most window_max ───┘
//! ```
//!
//! Invariants:
//! - `acknowledged` is the highest n with every sequence ≤ n finished: its answer came, or its caller was
//!   told that no further sending will be made. It only grows.
//! - No more than `window_max` sequences beyond `acknowledged` are given out: the node would refuse them.

use std::collections::BTreeSet;

use crate::ids::Sequence;

/// The sequences of one session.
#[derive(Clone, Debug, Default)]
pub struct Window {
    acknowledged: u64,
    given: u64,
    /// Finished sequences above `acknowledged`.
    finished: BTreeSet<u64>,
}

impl Window {
    /// The highest sequence up to which all are finished.
    #[must_use]
    pub fn acknowledged(&self) -> Sequence {
        Sequence(self.acknowledged)
    }

    /// The last sequence that was given out, 0 before the first.
    #[must_use]
    pub fn given(&self) -> Sequence {
        Sequence(self.given)
    }

    /// Gives out the next sequence, unless `window_max` lie between it and `acknowledged`.
    pub fn give(&mut self, window_max: u64) -> Option<Sequence> {
        if !self.has_room(window_max) {
            return None;
        }
        self.given += 1;
        Some(Sequence(self.given))
    }

    /// Whether fewer than `window_max` sequences beyond `acknowledged` are given out.
    #[must_use]
    pub fn has_room(&self, window_max: u64) -> bool {
        assert!(self.acknowledged <= self.given, "{} acknowledged of {}", self.acknowledged, self.given);
        self.given - self.acknowledged < window_max
    }

    /// Notes that a sequence is finished.
    pub fn finish(&mut self, sequence: Sequence) {
        let n = sequence.0;
        assert!(n <= self.given, "sequence {n} is finished and {} is the last given out", self.given);
        assert!(
            n > self.acknowledged,
            "sequence {n} is finished twice: {} is acknowledged",
            self.acknowledged
        );
        assert!(self.finished.insert(n), "sequence {n} is finished twice");
        assert!(self.finished.len() as u64 <= self.given - self.acknowledged, "{:?} finished", self.finished);
        while self.finished.first() == Some(&(self.acknowledged + 1)) {
            self.finished.pop_first();
            self.acknowledged += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledges_up_to_the_first_gap() {
        let mut window = Window::default();
        for n in 1..=4 {
            assert_eq!(window.give(10), Some(Sequence(n)));
        }
        window.finish(Sequence(3));
        window.finish(Sequence(2));
        assert_eq!(window.acknowledged(), Sequence(0));
        window.finish(Sequence(1));
        assert_eq!(window.acknowledged(), Sequence(3));
        window.finish(Sequence(4));
        assert_eq!(window.acknowledged(), Sequence(4));
    }

    #[test]
    fn gives_no_more_than_the_window_holds() {
        let mut window = Window::default();
        assert!((0..3).all(|_| window.give(3).is_some()));
        assert_eq!(window.give(3), None);
        window.finish(Sequence(2));
        assert_eq!(window.give(3), None, "2 is finished, 1 is not");
        window.finish(Sequence(1));
        assert_eq!(window.give(3), Some(Sequence(4)));
        assert_eq!(window.give(3), Some(Sequence(5)));
        assert_eq!(window.give(3), None);
    }

    #[test]
    #[should_panic(expected = "finished twice")]
    fn a_sequence_is_finished_once() {
        let mut window = Window::default();
        let first = window.give(1).expect("an empty window has room");
        window.finish(first);
        window.finish(first);
    }
}
