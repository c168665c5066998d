//! How evenly a CPU was found to run: the same small work again and again, counted by slots of time.
//!
//! What takes a CPU away from a virtual machine, or from a cgroup by its quota, seldom shows anywhere else:
//! `steal` counts what the hypervisor tells, and most say little. It bounds every answer time of a node:
//! while its CPUs stand still for 90 ms, some requests take 90 ms.

/// The microseconds of a slot.
pub const SLOT_US: u64 = 10_000;

/// A CPU, measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How much of the work was done in each slot, in the order of time.
    pub slots: Vec<u64>,
}

impl Pace {
    /// What is done in a slot in which the CPU was there: the middle one of those that did at least half of
    /// what the best tenth did. A CPU may be away for more than half of the time.
    fn usual(&self) -> u64 {
        let mut slots = self.slots.clone();
        slots.sort_unstable();
        let best = slots.len().checked_sub(1 + slots.len() / 10).map_or(0, |at| slots[at]);
        let there = &slots[slots.partition_point(|&work| work * 2 < best)..];
        there.get(there.len() / 2).copied().unwrap_or(0)
    }

    /// The microseconds of the longest run of slots with less than half of the usual work each.
    #[must_use]
    pub fn slow_us_max(&self) -> u64 {
        let usual = self.usual();
        let runs = self.slots.split(|&work| work * 2 >= usual).map(<[u64]>::len);
        runs.max().unwrap_or(0) as u64 * SLOT_US
    }

    /// How much of the usual work was not done, in thousandths. Slots that did more make nothing good.
    #[must_use]
    pub fn lost_milli(&self) -> u64 {
        let usual = self.usual();
        let lost: u64 = self.slots.iter().map(|&work| usual.saturating_sub(work)).sum();
        lost * 1000 / (usual * self.slots.len() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_pace_has_no_slow_slots() {
        let pace = Pace { slots: vec![100, 98, 103, 100, 97] };
        assert_eq!((pace.slow_us_max(), pace.lost_milli()), (0, 10));
        let none = Pace::default();
        assert_eq!((none.slow_us_max(), none.lost_milli()), (0, 0));
    }

    /// As a quota of two fifths of a CPU does.
    #[test]
    fn a_cpu_that_is_away_most_of_the_time_is_not_even() {
        let pace = Pace { slots: (0..400).map(|slot| if slot % 10 < 4 { 2000 } else { 0 }).collect() };
        assert_eq!((pace.slow_us_max(), pace.lost_milli()), (6 * SLOT_US, 600));
    }

    #[test]
    fn slots_in_a_row_are_one_stretch() {
        let pace = Pace { slots: vec![100, 10, 100, 100, 0, 49, 20, 50, 100, 100, 100] };
        assert_eq!(pace.slow_us_max(), 3 * SLOT_US);
        assert_eq!(pace.lost_milli(), (90 + 100 + 51 + 80 + 50) * 1000 / 1100);
    }
}
