//! What several rounds say together: the median, the spread, and how sure the median is. Pure.
//!
//! The interval is that of the sign test: it asks nothing of how the values are distributed, only that the
//! rounds do not depend on each other. Of n values, the true median is below the k-th smallest only where
//! fewer than k of them fell below it; each does so with a chance of a half, as a coin. So the k-th smallest
//! and the k-th largest enclose it but with the chance that n coins show fewer than k heads, or fewer than k
//! tails.

use crate::args::ROUNDS_MAX;

/// What an interval promises at least.
const LEVEL_MIN: f64 = 0.95;

/// What several values come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of them are not above it; of an even number the middle between the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Where the true median lies, where there are values enough to say so.
    pub interval: Option<Interval>,
}

/// An interval around a median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// From this value.
    pub low: f64,
    /// To this one.
    pub high: f64,
    /// The chance that it holds the true median, 0.95 or more.
    pub level: f64,
}

impl Spread {
    /// Of these values; `None` where there are none, or one is no number.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        if !sorted.iter().all(|value| value.is_finite()) {
            return None;
        }
        let interval = rank_and_level(sorted.len()).map(|(rank, level)| Interval {
            low: sorted[rank - 1],
            high: sorted[sorted.len() - rank],
            level,
        });
        Some(Self { median: middle(&sorted), min, max, interval })
    }

    /// How far the values lie apart, as a share of their median; 0 where that is 0.
    pub fn width(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / self.median }
    }

    /// Whether the median could as well be this value: it lies in the interval, or in the range of too few
    /// values for one.
    pub fn could_be(&self, value: f64) -> bool {
        let (low, high) =
            self.interval.map_or((self.min, self.max), |interval| (interval.low, interval.high));
        (low..=high).contains(&value)
    }
}

/// The ratios of two values of each round; those of a round without one are left out.
pub fn ratios(ones: &[f64], others: &[f64]) -> Vec<f64> {
    assert_eq!(ones.len(), others.len(), "a round has both sides");
    let ratio = |(one, other): (&f64, &f64)| (*other > 0.0).then(|| one / other);
    ones.iter().zip(others).filter_map(ratio).collect()
}

/// The median of these values; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(0.0, |spread| spread.median)
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// The greatest k for which the k-th smallest and the k-th largest of so many values enclose the median with
/// a chance of at least [`LEVEL_MIN`], and that chance.
fn rank_and_level(count: usize) -> Option<(usize, f64)> {
    // Half to the power of this is still a number of full precision.
    assert!(count <= ROUNDS_MAX, "{count} rounds");
    let mut exactly = 0.5f64.powi(count as i32);
    let mut found = None;
    let mut fewer = 0.0;
    for rank in 1..=count / 2 {
        // The chance of rank - 1 heads joins those of fewer.
        fewer += exactly;
        let level = 1.0 - 2.0 * fewer;
        if level < LEVEL_MIN {
            break;
        }
        found = Some((rank, level));
        exactly *= (count + 1 - rank) as f64 / rank as f64;
    }
    found
}

/// The powers of a half that the chances begin with have full precision.
const _: () = assert!(ROUNDS_MAX as i32 <= -(f64::MIN_EXP - 1));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of(&[1.0, f64::INFINITY]), None);
        let one = Spread { median: 3.0, min: 3.0, max: 3.0, interval: None };
        assert_eq!(Spread::of(&[3.0]), Some(one));
        let spread = Spread::of(&[8.0, 7.5, 9.0, 8.2, 7.0]).expect("five values");
        assert_eq!((spread.median, spread.min, spread.max, spread.interval), (8.0, 7.0, 9.0, None));
        assert_eq!((median(&[4.0, 1.0, 2.0, 3.0]), median(&[])), (2.5, 0.0));
        assert_eq!(spread.width(), 0.25);
        assert!(spread.could_be(7.0) && spread.could_be(9.0) && !spread.could_be(1.0));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The median of the ratios is not the ratio of the medians.
        let (ones, others) = ([10.0, 30.0, 20.0], [1.0, 10.0, 10.0]);
        assert_eq!(ratios(&ones, &others), [10.0, 3.0, 2.0]);
        assert_eq!(median(&ratios(&ones, &others)), 3.0);
        assert_eq!(median(&ones) / median(&others), 2.0);
        assert_eq!(ratios(&ones, &[0.0, 10.0, 0.0]), [3.0]);
    }

    /// Ranks and levels as the tables of the sign test have them.
    #[test]
    fn intervals_are_those_of_the_sign_test() {
        for count in 0..6 {
            assert_eq!(rank_and_level(count), None, "{count}");
        }
        let known = [(6, 1, 0.96875), (8, 1, 0.9921875), (9, 2, 0.9609375), (10, 2, 0.978515625)];
        for (count, rank, level) in known {
            assert_eq!(rank_and_level(count), Some((rank, level)), "{count}");
        }
        let (rank, level) = rank_and_level(20).expect("there are enough");
        assert!(rank == 6 && (level - 0.958_610_5).abs() < 1e-6, "{rank} {level}");
        let (rank, level) = rank_and_level(100).expect("there are enough");
        assert!(rank == 40 && (level - 0.964_799_8).abs() < 1e-6, "{rank} {level}");
        let (rank, level) = rank_and_level(ROUNDS_MAX).expect("there are enough");
        assert!((469..=470).contains(&rank) && (0.95..0.96).contains(&level), "{rank} {level}");
    }

    #[test]
    fn the_interval_holds_the_values_of_its_ranks() {
        let values: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let spread = Spread::of(&values).expect("ten values");
        assert_eq!((spread.median, spread.min, spread.max), (5.5, 1.0, 10.0));
        assert_eq!(spread.interval, Some(Interval { low: 2.0, high: 9.0, level: 0.978515625 }));
        assert!(spread.could_be(2.0) && !spread.could_be(1.0));
    }
}
