//! What a thread last saw of each key: its revision, which a compare-and-swap expects.
//!
//! Invariants: at most `SLOTS_MAX` keys are remembered. Where there are more, those that share a slot push
//! each other out, and a key that is not remembered is expected not to exist.

/// Most keys that are remembered.
const SLOTS_MAX: u64 = 1 << 20;

/// Revisions by key.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    slots: Vec<Slot>,
}

/// Nothing is remembered in a slot whose revision is 0, which stands for a key that does not exist.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    revision: u64,
}

impl Revisions {
    /// Room for so many keys.
    pub fn of(keys: u64) -> Self {
        Self { slots: vec![Slot::default(); keys.min(SLOTS_MAX) as usize] }
    }

    /// The revision of a key as it was last seen; 0: never, or it did not exist.
    pub fn expected(&self, key: u64) -> u64 {
        let slot = self.slots[self.place(key)];
        if slot.key == key { slot.revision } else { 0 }
    }

    /// A key was seen at this revision; 0: it does not exist.
    pub fn saw(&mut self, key: u64, revision: u64) {
        let place = self.place(key);
        self.slots[place] = Slot { key, revision };
    }

    fn place(&self, key: u64) -> usize {
        (key % self.slots.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_last_is_expected() {
        let mut revisions = Revisions::of(SLOTS_MAX * 4);
        assert_eq!(revisions.slots.len() as u64, SLOTS_MAX);
        assert_eq!((revisions.expected(0), revisions.expected(3)), (0, 0));
        revisions.saw(3, 7);
        revisions.saw(0, 1);
        assert_eq!((revisions.expected(3), revisions.expected(0)), (7, 1));
        // Another key of the same slot is not taken for it, and pushes it out.
        assert_eq!(revisions.expected(3 + SLOTS_MAX), 0);
        revisions.saw(3 + SLOTS_MAX, 9);
        assert_eq!((revisions.expected(3 + SLOTS_MAX), revisions.expected(3)), (9, 0));
    }
}
