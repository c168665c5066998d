//! How many cores of a node may do the same costly thing at a time: write a table, or fetch one.
//!
//! ```text
//!   take ── fewer than `max` are given, and no more wait in front ──► permit ── dropped ──► given back
//!     └──── else ──► none; the core's turn to wait is noted ── tries again with its next look ──┘
//! ```
//!
//! Cores share nothing but messages; this is the exception. The disk that these things wear out is one, and a
//! limit that each core kept for itself would grow with the cores. Kept by messages, a permit would be under
//! way, or in the hands of a core that has ended, while others wait for it. What is shared is a handful of
//! numbers that are touched some times in a second: nobody waits for them, and nothing else is read because
//! of them, so that no order between them and other memory matters. The host makes them for all cores of a
//! node, and so does the simulator.
//!
//! Invariants:
//! - No more permits are out than `max`, whatever the cores do at the same time.
//! - A permit is given back when it is dropped, and by nothing else: whoever holds one cannot lose it.
//! - A core that waits is served before those that came later. It tries again by itself, and withdraws when
//!   it has no use for a permit any more: else those behind it would wait for nothing.
//!
//! It deliberately wakes nobody: a core looks for work of this kind many times in a second anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::ids::CoreId;

/// What the cores of a node may do at the same time.
#[derive(Clone, Debug)]
pub struct NodePermits {
    /// Writing tables of what has changed.
    pub snapshots: Permits,
    /// Fetching tables from other nodes.
    pub fetches: Permits,
}

/// Permits for one kind of work, shared by the cores of a node.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: u32,
    given: AtomicU32,
    /// The last number that a core which waits was given.
    last_number: AtomicU64,
    /// For each core the number under which it waits; 0: it does not.
    waiting: Box<[AtomicU64]>,
}

/// A permit: dropped, it is given back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit(Permits);

impl Drop for Permit {
    fn drop(&mut self) {
        let given = self.0.0.given.fetch_sub(1, Ordering::Relaxed);
        assert!(given > 0, "a permit is given back, and none was given");
    }
}

impl Permits {
    /// So many permits, at least one, for so many cores.
    #[must_use]
    pub fn new(max: u32, cores: u32) -> Self {
        assert!(max > 0, "without a permit nothing would ever be done");
        let waiting = (0..cores).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Shared { max, given: AtomicU32::new(0), last_number: AtomicU64::new(0), waiting }))
    }

    /// A permit for a core, or a place among those that wait.
    pub(crate) fn take(&self, core: CoreId) -> Option<Permit> {
        let own = self.place_of(core);
        let number = own.load(Ordering::Relaxed);
        let is_before = |other: &u64| *other != 0 && (number == 0 || *other < number);
        let others = self.0.waiting.iter().map(|other| other.load(Ordering::Relaxed));
        let before = others.filter(is_before).count();
        let permit = self.take_behind(u32::try_from(before).unwrap_or(u32::MAX));
        if permit.is_some() {
            own.store(0, Ordering::Relaxed);
        } else if number == 0 {
            own.store(self.0.last_number.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        permit
    }

    /// A core that waits needs no permit any more.
    pub(crate) fn withdraw(&self, core: CoreId) {
        self.place_of(core).store(0, Ordering::Relaxed);
    }

    /// Whether a core waits for one.
    pub(crate) fn are_awaited(&self) -> bool {
        self.0.waiting.iter().any(|number| number.load(Ordering::Relaxed) != 0)
    }

    /// A permit, where there is one more than others wait for.
    fn take_behind(&self, others: u32) -> Option<Permit> {
        let Shared { max, given, .. } = &*self.0;
        let one_more = |given: u32| (given.saturating_add(others) < *max).then_some(given + 1);
        let taken = given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Permit(self.clone()))
    }

    fn place_of(&self, core: CoreId) -> &AtomicU64 {
        &self.0.waiting[core.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CoreId = CoreId(0);
    const B: CoreId = CoreId(1);
    const C: CoreId = CoreId(2);

    fn waits(permits: &Permits, core: CoreId) -> bool {
        permits.place_of(core).load(Ordering::Relaxed) != 0
    }

    #[test]
    fn no_more_are_given_than_there_are_and_each_comes_back() {
        let permits = Permits::new(2, 3);
        let (first, second) = (permits.take(A), permits.take(A));
        assert!(first.is_some() && second.is_some() && permits.take(B).is_none());
        drop(first);
        let third = permits.take(B);
        assert!(third.is_some() && permits.take(C).is_none());
        drop((second, third));
        assert_eq!(permits.0.given.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_waits_longer_comes_first() {
        let permits = Permits::new(1, 3);
        let held = permits.take(A);
        assert!(permits.take(B).is_none() && permits.take(C).is_none());
        drop(held);
        // The one that had it is not faster than those that wait, nor is the later of them.
        assert!(permits.take(A).is_none() && permits.take(C).is_none() && permits.are_awaited());
        let held = permits.take(B);
        assert!(held.is_some() && !waits(&permits, B) && waits(&permits, C));
        drop(held);
        assert!(permits.take(B).is_none() && permits.take(A).is_none());
        let held = permits.take(C);
        assert!(held.is_some());
        drop(held);
        // A has waited since before B came again; and it may change its mind.
        assert!(permits.take(B).is_none());
        permits.withdraw(A);
        assert!(permits.take(B).is_some() && !permits.are_awaited());
    }

    #[test]
    fn threads_that_come_at_once_get_no_more() {
        const CORES: u32 = 4;
        let permits = Permits::new(2, CORES);
        let at_work = Arc::new(AtomicU32::new(0));
        let work = |core: u32| {
            let (permits, at_work) = (permits.clone(), Arc::clone(&at_work));
            move || {
                let mut done = 0;
                while done < 2000 {
                    let Some(permit) = permits.take(CoreId(core)) else {
                        std::thread::yield_now();
                        continue;
                    };
                    let others = at_work.fetch_add(1, Ordering::SeqCst);
                    assert!(others < 2, "{others} others are at work");
                    at_work.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                    done += 1;
                }
            }
        };
        let threads: Vec<_> = (0..CORES).map(|core| std::thread::spawn(work(core))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("each of them gets its turns"));
        assert_eq!(permits.0.given.load(Ordering::SeqCst), 0);
    }
}
