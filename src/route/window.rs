//! Recognises a call that arrives a second time, or too late to tell.
//!
//! A receiver keeps one window for each place that calls it: the highest number seen and a bit for each of
//! the [`WIDTH`] numbers up to it. A number below the window is refused as late: its call may have been seen.
//! A new incarnation of the origin starts a fresh window; a call of an older incarnation is refused, for its
//! caller is gone.
//!
//! Invariant: [`Windows::admit`] is true at most once for one [`CallId`].

use std::collections::BTreeMap;

use crate::ids::{CoreId, NodeId};
use crate::route::parcel::CallId;

/// How many numbers below the highest are remembered. More than one origin core ever has in flight.
pub const WIDTH: u64 = 1 << 16;
const WORDS: usize = (WIDTH / 64) as usize;

/// A window for each place that calls.
#[derive(Debug, Default)]
pub struct Windows {
    origins: BTreeMap<(NodeId, CoreId), Window>,
}

#[derive(Debug)]
struct Window {
    incarnation: u64,
    highest: u64,
    seen: Vec<u64>,
}

impl Windows {
    /// Whether this call is here for the first time. An origin's incarnation is learnt from its calls.
    pub fn admit(&mut self, id: &CallId) -> bool {
        let window = self.origins.entry((id.node, id.core)).or_insert_with(|| Window::new(id.incarnation));
        if id.incarnation < window.incarnation {
            return false;
        }
        if id.incarnation > window.incarnation {
            *window = Window::new(id.incarnation);
        }
        window.admit(id.number)
    }
}

impl Window {
    fn new(incarnation: u64) -> Self {
        Self { incarnation, highest: 0, seen: vec![0; WORDS] }
    }

    fn admit(&mut self, number: u64) -> bool {
        if number > self.highest {
            self.advance(number);
        } else if self.highest - number >= WIDTH {
            return false;
        }
        let (word, bit) = Self::place(number);
        let is_first = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_first
    }

    /// Moves the window up, forgetting the numbers that it leaves.
    fn advance(&mut self, number: u64) {
        if number - self.highest >= WIDTH {
            self.seen.fill(0);
        } else {
            for skipped in self.highest + 1..=number {
                let (word, bit) = Self::place(skipped);
                self.seen[word] &= !bit;
            }
        }
        self.highest = number;
    }

    fn place(number: u64) -> (usize, u64) {
        let at = number % WIDTH;
        (usize::try_from(at / 64).expect("below WORDS"), 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(incarnation: u64, number: u64) -> CallId {
        CallId { node: NodeId(1), incarnation, core: CoreId(0), number }
    }

    #[test]
    fn a_call_is_admitted_once_in_any_order() {
        let mut windows = Windows::default();
        for number in [5, 1, 3, 2, 4, 70_000, 4_465, 69_999] {
            assert!(windows.admit(&id(1, number)), "{number} for the first time");
            assert!(!windows.admit(&id(1, number)), "{number} for the second time");
        }
        assert!(!windows.admit(&id(1, 4_464)), "below the window");
    }

    #[test]
    fn an_older_life_of_the_origin_is_refused() {
        let mut windows = Windows::default();
        assert!(windows.admit(&id(2, 1)));
        assert!(!windows.admit(&id(1, 9)));
        assert!(windows.admit(&id(3, 1)));
        assert!(!windows.admit(&id(2, 2)));
    }
}
