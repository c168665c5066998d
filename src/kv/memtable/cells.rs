//! Places for what keys hold, each with a number that stays the same until it is given back.
//!
//! They are made a chunk at a time, so that none of them ever moves and room is made in steps of 45 KiB.

/// Places of a chunk.
const CHUNK_CELLS: usize = 512;

/// Places, some of which are free.
pub(super) struct Cells<T> {
    /// All but the last one full.
    chunks: Vec<Vec<T>>,
    /// Places that were given back.
    free: Vec<CellId>,
}

/// The number of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CellId(u32);

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new() }
    }
}

impl<T> Cells<T> {
    /// Puts something into a place of its own.
    pub(super) fn insert(&mut self, cell: T) -> CellId {
        if let Some(id) = self.free.pop() {
            *self.get_mut(id) = cell;
            return id;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK_CELLS) {
            self.chunks.push(Vec::with_capacity(CHUNK_CELLS));
        }
        let before = (self.chunks.len() - 1) * CHUNK_CELLS;
        let last = self.chunks.last_mut().expect("it was just made, if there was none");
        last.push(cell);
        let at = before + last.len() - 1;
        CellId(u32::try_from(at).expect("memory holds fewer than 2^32 keys"))
    }

    /// Takes what is in a place, which is given back.
    pub(super) fn take(&mut self, id: CellId, empty: T) -> T {
        self.free.push(id);
        std::mem::replace(self.get_mut(id), empty)
    }

    pub(super) fn get(&self, id: CellId) -> &T {
        let at = id.0 as usize;
        &self.chunks[at / CHUNK_CELLS][at % CHUNK_CELLS]
    }

    pub(super) fn get_mut(&mut self, id: CellId) -> &mut T {
        let at = id.0 as usize;
        &mut self.chunks[at / CHUNK_CELLS][at % CHUNK_CELLS]
    }

    /// Lets go of this many places, the last ones first. Whether some are left.
    pub(super) fn drop_some(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(last) = self.chunks.last_mut() else { return false };
            last.pop();
            if last.is_empty() {
                self.chunks.pop();
            }
        }
        !self.chunks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stays_what_it_is_until_it_is_given_back() {
        let mut cells = Cells::default();
        let ids: Vec<CellId> = (0..2 * CHUNK_CELLS + 1).map(|number| cells.insert(number)).collect();
        assert!(ids.iter().enumerate().all(|(number, id)| *cells.get(*id) == number));
        for (number, id) in ids.iter().enumerate().filter(|(number, _)| number % 3 == 0) {
            assert_eq!(cells.take(*id, usize::MAX), number);
        }
        let again: Vec<CellId> = (0..10).map(|number| cells.insert(10_000 + number)).collect();
        assert!(again.iter().all(|id| ids.contains(id)), "places are used again");
        assert!(again.iter().enumerate().all(|(number, id)| *cells.get(*id) == 10_000 + number));
        let kept = ids.iter().enumerate().filter(|(number, _)| number % 3 != 0);
        assert!(kept.into_iter().all(|(number, id)| *cells.get(*id) == number));
    }

    #[test]
    fn all_is_let_go_of_in_the_end() {
        let mut cells = Cells::default();
        (0..CHUNK_CELLS + 7).for_each(|number| assert_eq!(cells.insert(number), CellId(number as u32)));
        assert!(cells.drop_some(7), "a whole chunk is left");
        assert!(cells.drop_some(CHUNK_CELLS - 1), "one place is left");
        assert!(!cells.drop_some(1));
        assert!(!cells.drop_some(5), "nothing was left");
    }
}
