//! The bytes in flight: of one connection, and of all connections of a core.
//!
//! A message counts from its prefix until it is answered, its answer until it is on its way out, and what a
//! client may send beyond its connection's window from the time that it is told until as much is read. A
//! request that would go over a limit is refused; an answer never is, since what it tells has happened: while
//! answers hold the count above the limit, new requests are refused.
//!
//! Invariants:
//! - What is held is given back exactly once, when the [`Held`] is dropped.

use std::cell::Cell;
use std::rc::Rc;

/// A counter with its limit.
#[derive(Debug)]
struct Counter {
    held: Cell<usize>,
    bytes_max: usize,
}

/// What one connection may hold, within what its core may hold. Cloning is cheap: a handle.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    connection: Rc<Counter>,
    core: Rc<Counter>,
}

/// What a core may hold.
#[derive(Clone, Debug)]
pub(super) struct CoreBudget {
    core: Rc<Counter>,
}

impl CoreBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { core: Rc::new(Counter { held: Cell::new(0), bytes_max }) }
    }

    /// The budget of one more connection.
    pub(super) fn connection(&self, bytes_max: usize) -> Budget {
        let connection = Rc::new(Counter { held: Cell::new(0), bytes_max });
        Budget { connection, core: Rc::clone(&self.core) }
    }
}

impl Budget {
    /// Holds so many bytes more, where neither limit is in the way.
    pub(super) fn try_hold(&self, bytes: usize) -> Option<Held> {
        let has_room = |counter: &Counter| bytes <= counter.bytes_max.saturating_sub(counter.held.get());
        (has_room(&self.connection) && has_room(&self.core)).then(|| self.hold(bytes))
    }

    /// Holds so many bytes more, where neither limit is half reached with them: of what requests may need.
    pub(super) fn try_lend(&self, bytes: usize) -> Option<Held> {
        let has_room =
            |counter: &Counter| bytes <= (counter.bytes_max / 2).saturating_sub(counter.held.get());
        (has_room(&self.connection) && has_room(&self.core)).then(|| self.hold(bytes))
    }

    /// Holds so many bytes more, whatever the limits: of an answer.
    pub(super) fn hold(&self, bytes: usize) -> Held {
        for counter in [&self.connection, &self.core] {
            counter.held.set(counter.held.get() + bytes);
        }
        Held { budget: self.clone(), bytes }
    }
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Budget,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        for counter in [&self.budget.connection, &self.budget.core] {
            let held = counter.held.get();
            assert!(held >= self.bytes, "{} bytes given back of {held}", self.bytes);
            counter.held.set(held - self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_and_the_core_have_each_their_limit() {
        let core = CoreBudget::new(10);
        let (one, other) = (core.connection(8), core.connection(8));
        let first = one.try_hold(8).expect("within both limits");
        assert!(one.try_hold(1).is_none(), "the connection is full");
        let second = other.try_hold(2).expect("within both limits");
        assert!(other.try_hold(1).is_none(), "the core is full");
        let answer = other.hold(5);
        drop((first, second));
        assert!(other.try_hold(4).is_none(), "its answer counts");
        drop(answer);
        assert!(other.try_hold(8).is_some());
    }
}
