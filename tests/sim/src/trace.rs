//! The running hash of everything that happened, and, where wanted, its text.
//!
//! Every module says its events here: a kind and a few numbers. Two runs of one seed must end in the same
//! hash; where they do not, something read a clock, an address or a random state, and the texts show the
//! first difference.
//!
//! Invariants:
//! - The hash depends on the kinds, the numbers and their order, never on whether text is kept or printed.
//! - The text kept is bounded: the last [`LINES_MAX`] lines.
//!
//! It deliberately has no levels and no filters: a run is short, and a text can be searched afterwards.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;

use crate::random::mix;

/// Lines of text that are kept.
pub const LINES_MAX: usize = 4096;

/// What becomes of the text of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Text {
    /// None is made.
    #[default]
    None,
    /// The last lines are kept for [`Trace::lines`].
    Kept,
    /// Each line goes to the standard error, and the last are kept.
    Printed,
}

/// The trace of one run. Cloning is cheap: a handle.
#[derive(Clone, Debug)]
pub struct Trace {
    inner: Rc<Inner>,
}

/// What all handles of a trace share.
#[derive(Debug)]
struct Inner {
    hash: Cell<u64>,
    events: Cell<u64>,
    text: Text,
    lines: RefCell<VecDeque<String>>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(text: Text) -> Self {
        let inner = Inner {
            hash: Cell::new(0x6469_7374_7269_626b),
            events: Cell::new(0),
            text,
            lines: RefCell::new(VecDeque::new()),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Notes an event: when (world time in microseconds), what, and its numbers.
    pub fn event(&self, at_us: u64, kind: &str, numbers: &[u64]) {
        let mut hash = mix(self.inner.hash.get() ^ at_us);
        hash = mix(hash ^ hash_bytes(kind.as_bytes()));
        for &number in numbers {
            hash = mix(hash.rotate_left(1) ^ number);
        }
        self.inner.hash.set(hash);
        self.inner.events.set(self.inner.events.get() + 1);
        match self.inner.text {
            Text::None => {}
            Text::Kept | Text::Printed => self.keep(line(at_us, kind, numbers)),
        }
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner.hash.get()
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.inner.events.get()
    }

    /// The last lines of text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.inner.lines.borrow().iter().cloned().collect()
    }

    /// Keeps a line, and lets the oldest go where there are too many.
    fn keep(&self, line: String) {
        if self.inner.text == Text::Printed {
            eprintln!("{line}");
        }
        let mut lines = self.inner.lines.borrow_mut();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// A hash of bytes: for events that carry data, and for kinds.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash.rotate_left(5) ^ u64::from_le_bytes(word));
    }
    hash
}

/// An event in words.
fn line(at_us: u64, kind: &str, numbers: &[u64]) -> String {
    let mut line = format!("{at_us:>10} {kind}");
    for number in numbers {
        // Writing to a String cannot fail; its result says nothing.
        let _ = write!(line, " {number}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(text: Text, events: &[(u64, &str, u64)]) -> Trace {
        let trace = Trace::new(text);
        for &(at_us, kind, number) in events {
            trace.event(at_us, kind, &[number]);
        }
        trace
    }

    #[test]
    fn the_hash_tells_order_time_kind_and_number() {
        let base = traced(Text::None, &[(1, "a", 1), (2, "b", 2)]).hash();
        assert_eq!(base, traced(Text::Kept, &[(1, "a", 1), (2, "b", 2)]).hash());
        assert_ne!(base, traced(Text::None, &[(2, "b", 2), (1, "a", 1)]).hash());
        assert_ne!(base, traced(Text::None, &[(1, "a", 1), (3, "b", 2)]).hash());
        assert_ne!(base, traced(Text::None, &[(1, "a", 1), (2, "c", 2)]).hash());
        assert_ne!(base, traced(Text::None, &[(1, "a", 1), (2, "b", 3)]).hash());
    }

    #[test]
    fn the_last_lines_are_kept() {
        let trace = Trace::new(Text::Kept);
        for number in 0..LINES_MAX as u64 + 10 {
            trace.event(number, "step", &[number]);
        }
        let lines = trace.lines();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines.last().map(|line| line.trim()), Some("4105 step 4105"));
        assert_eq!(trace.events(), LINES_MAX as u64 + 10);
    }
}
