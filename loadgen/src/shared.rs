//! What the engines share with the thread that supervises them: the clock's zero, the routing table, the word
//! to stop, and what an audit records.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::audit::Gathering;
use crate::routing::Routing;

/// Shared by every thread of the process.
#[derive(Debug)]
pub struct Shared {
    epoch: Instant,
    stop_ns: AtomicU64,
    routing: Mutex<Arc<Routing>>,
    /// Counts the routing tables, so that an engine learns of a new one without the lock.
    routing_version: AtomicU64,
    /// Asks the supervisor for a new routing table.
    pub refresh: Notify,
    /// What an audit records.
    pub gathering: Gathering,
}

impl Shared {
    /// Starts the clock.
    pub fn new(routing: Routing) -> Self {
        Self {
            epoch: Instant::now(),
            stop_ns: AtomicU64::new(u64::MAX),
            routing: Mutex::new(Arc::new(routing)),
            routing_version: AtomicU64::new(1),
            refresh: Notify::new(),
            gathering: Gathering::default(),
        }
    }

    /// Nanoseconds since the clock was started.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Interrupts the run.
    pub fn stop(&self) {
        self.stop_ns.fetch_min(self.now_ns(), Ordering::Relaxed);
    }

    /// When the run was interrupted.
    pub fn stopped_ns(&self) -> Option<u64> {
        match self.stop_ns.load(Ordering::Relaxed) {
            u64::MAX => None,
            stop_ns => Some(stop_ns),
        }
    }

    /// Puts a new routing table in place of the last, where it differs.
    pub fn publish(&self, routing: Routing) {
        let mut current = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
        if **current != routing {
            *current = Arc::new(routing);
            self.routing_version.fetch_add(1, Ordering::Release);
        }
    }

    /// The routing table, where it is not the one of that version; and its version.
    pub fn routing_after(&self, version: u64) -> Option<(Arc<Routing>, u64)> {
        let newest = self.routing_version.load(Ordering::Acquire);
        (newest != version).then(|| {
            let routing = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&routing), newest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_table_is_told() {
        let table = |address: &str| Routing::any_of(&[address.to_owned()]);
        let shared = Shared::new(table("a:1"));
        let (_, version) = shared.routing_after(0).expect("the first table");
        shared.publish(table("a:1"));
        assert!(shared.routing_after(version).is_none());
        shared.publish(table("b:1"));
        assert_eq!(*shared.routing_after(version).expect("the second table").0, table("b:1"));
    }

    #[test]
    fn the_first_stop_counts() {
        let shared = Shared::new(Routing::any_of(&[]));
        assert_eq!(shared.stopped_ns(), None);
        shared.stop();
        let first = shared.stopped_ns();
        shared.stop();
        assert_eq!(shared.stopped_ns(), first);
    }
}
