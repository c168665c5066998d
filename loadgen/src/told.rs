//! What is told apart among the operations that succeeded.

use crate::answer::Said;

/// Counts of what answers said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Compare-and-swaps whose comparison failed.
    pub conflicts: u64,
    /// Keys that scans returned.
    pub rows: u64,
}

impl Told {
    /// Counts one answer.
    pub fn count(&mut self, said: Said) {
        match said {
            Said::Conflict(_) => self.conflicts += 1,
            Said::Rows(rows) => self.rows += u64::from(rows),
            Said::Yes | Said::No | Said::Swapped(_) | Said::Malformed => {}
        }
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.conflicts += other.conflicts;
        self.rows += other.rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_what_they_say() {
        let (mut one, mut other) = (Told::default(), Told::default());
        for said in
            [Said::Conflict(0), Said::Conflict(9), Said::Rows(5), Said::Swapped(3), Said::Yes, Said::No]
        {
            one.count(said);
        }
        other.count(Said::Rows(2));
        one.merge(&other);
        assert_eq!(one, Told { conflicts: 2, rows: 7 });
    }
}
