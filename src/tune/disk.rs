//! What a disk was measured to do: durable writes as the log makes them, by size and depth.

/// The sizes of writes, in bytes.
pub const SIZES: [u32; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// How many writes are in flight at a time. A lane has one, so this is also how many lanes write at once.
pub const DEPTHS: [u32; 6] = [1, 2, 4, 8, 16, 32];

/// A disk, measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What was measured, in no order; what there was no time for is not in it.
    pub cells: Vec<Cell>,
}

/// Durable writes of one size at one depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Bytes of a write.
    pub bytes: u32,
    /// Writes in flight.
    pub depth: u32,
    /// Writes that became durable.
    pub writes: u64,
    /// The microseconds that they took together.
    pub elapsed_us: u64,
    /// How long half of them took at most, in microseconds.
    pub p50_us: u64,
    /// How long 99 of 100 took at most.
    pub p99_us: u64,
}

impl Cell {
    /// A cell of the durations of its writes, in microseconds.
    #[must_use]
    pub fn of(bytes: u32, depth: u32, elapsed_us: u64, mut writes_us: Vec<u64>) -> Self {
        writes_us.sort_unstable();
        let at = |percent: usize| {
            let rank = (writes_us.len() * percent).div_ceil(100).saturating_sub(1);
            writes_us.get(rank).copied().unwrap_or(0)
        };
        let writes = writes_us.len() as u64;
        Self { bytes, depth, writes, elapsed_us, p50_us: at(50), p99_us: at(99) }
    }

    /// Writes a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.writes * 1_000_000 / self.elapsed_us.max(1)
    }

    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_s(&self) -> u64 {
        self.rate() * u64::from(self.bytes)
    }
}

impl Disk {
    /// The cell of a size and a depth, where it was measured.
    #[must_use]
    pub fn cell(&self, bytes: u32, depth: u32) -> Option<&Cell> {
        self.cells.iter().find(|cell| (cell.bytes, cell.depth) == (bytes, depth) && cell.writes > 0)
    }

    /// The smallest write, alone: what a single client waits for.
    #[must_use]
    pub fn alone(&self) -> Option<&Cell> {
        self.cell(SIZES[0], DEPTHS[0])
    }

    /// The most bytes a second that were measured.
    #[must_use]
    pub fn bytes_per_s_max(&self) -> u64 {
        self.cells.iter().map(Cell::bytes_per_s).max().unwrap_or(0)
    }

    /// The least depth at which small writes reach nine tenths of the most that they reach at any.
    #[must_use]
    pub fn depth_enough(&self) -> Option<u32> {
        let rates = DEPTHS.iter().filter_map(|depth| self.cell(SIZES[0], *depth));
        let most = rates.clone().map(Cell::rate).max()?;
        rates.filter(|cell| cell.rate() * 10 >= most * 9).map(|cell| cell.depth).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_knows_its_rate_and_its_percentiles() {
        let cell = Cell::of(4096, 1, 1_000_000, (1..=200).rev().collect());
        assert_eq!((cell.writes, cell.rate(), cell.bytes_per_s()), (200, 200, 819_200));
        assert_eq!((cell.p50_us, cell.p99_us), (100, 198));
        let none = Cell::of(4096, 1, 0, Vec::new());
        assert_eq!((none.rate(), none.p50_us), (0, 0));
    }

    #[test]
    fn the_depth_that_is_enough_is_the_least_that_comes_near_the_best() {
        let cell =
            |depth, writes| Cell { bytes: 4096, depth, writes, elapsed_us: 1_000_000, p50_us: 1, p99_us: 1 };
        let disk = Disk { cells: vec![cell(1, 500), cell(2, 900), cell(4, 960), cell(8, 1000)] };
        assert_eq!(disk.depth_enough(), Some(2));
        assert_eq!(Disk::default().depth_enough(), None);
    }
}
