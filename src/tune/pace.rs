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
    /// The slots, by whether less than half of the work was done that good ones did: of a hundred slots the
    /// best but one, as one may have had a clock that no other had.
    fn are_slow(&self) -> impl Iterator<Item = bool> {
        let mut slots = self.slots.clone();
        slots.sort_unstable();
        let good = slots.len().checked_sub(1 + slots.len() / 100).map_or(0, |at| slots[at]);
        self.slots.iter().map(move |&work| work * 2 < good)
    }

    /// The microseconds of the longest run of slow slots.
    #[must_use]
    pub fn slow_us_max(&self) -> u64 {
        let are_slow: Vec<bool> = self.are_slow().collect();
        are_slow.split(|is_slow| !is_slow).map(<[bool]>::len).max().unwrap_or(0) as u64 * SLOT_US
    }

    /// How much of the time was slow, in thousandths.
    #[must_use]
    pub fn slow_milli(&self) -> u64 {
        let slow = self.are_slow().filter(|is_slow| *is_slow).count();
        slow as u64 * 1000 / (self.slots.len() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(slots: Vec<u64>) -> (u64, u64) {
        let pace = Pace { slots };
        (pace.slow_us_max(), pace.slow_milli())
    }

    #[test]
    fn an_even_pace_has_no_slow_slots() {
        assert_eq!(found(vec![100, 98, 103, 100, 60]), (0, 0));
        assert_eq!(found(Vec::new()), (0, 0));
    }

    #[test]
    fn slots_in_a_row_are_one_stretch() {
        assert_eq!(found(vec![100, 10, 100, 100, 0, 49, 20, 50]), (3 * SLOT_US, 500));
    }

    /// As a quota of a twentieth of a CPU does.
    #[test]
    fn a_cpu_that_is_seldom_there_is_not_even() {
        let slots = (0..400).map(|slot| if slot % 20 == 0 { 2000 } else { 0 }).collect();
        assert_eq!(found(slots), (19 * SLOT_US, 950));
    }
}
