//! Values: how large the next one is, and the bytes that it is cut from.

use bytes::Bytes;

use crate::args::{SizeRange, ValueSizes, WeightedSize};
use crate::random::Random;
use crate::zipfian::Zipfian;

/// YCSB's constant, for sizes too.
const THETA: f64 = 0.99;
/// Random bytes that values are cut from, beyond the length of one value.
const POOL_BYTES: usize = 1 << 16;

/// Draws sizes.
#[derive(Clone, Debug)]
pub enum Sizes {
    /// All alike.
    Fixed(u32),
    /// From the first on, so many sizes alike.
    Uniform {
        /// The smallest.
        min: u32,
        /// How many sizes there are.
        count: u64,
    },
    /// From the first on, small ones far more often.
    Zipfian {
        /// The smallest.
        min: u32,
        /// How far beyond that.
        ranks: Zipfian,
    },
    /// Each size with the sum of the weights up to it.
    Weighted(Vec<(u32, u64)>),
}

impl Sizes {
    /// Draws as the settings say.
    pub fn new(sizes: &ValueSizes) -> Self {
        let count = |range: &SizeRange| u64::from(range.max - range.min) + 1;
        match sizes {
            ValueSizes::Fixed(size) => Self::Fixed(*size),
            ValueSizes::Uniform(range) => Self::Uniform { min: range.min, count: count(range) },
            ValueSizes::Zipfian(range) => {
                Self::Zipfian { min: range.min, ranks: Zipfian::new(count(range), THETA) }
            }
            ValueSizes::Weighted(sizes) => {
                let mut sum = 0;
                let up_to = |entry: &WeightedSize| {
                    sum += u64::from(entry.weight);
                    (entry.size, sum)
                };
                Self::Weighted(sizes.iter().map(up_to).collect())
            }
        }
    }

    /// The size of the next value.
    pub fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { min, count } => min + random.below(*count) as u32,
            Self::Zipfian { min, ranks } => min + ranks.rank(random.unit()) as u32,
            Self::Weighted(sizes) => {
                let (last, all) = sizes[sizes.len() - 1];
                let drawn = random.below(all);
                sizes.iter().find(|(_, up_to)| drawn < *up_to).map_or(last, |(size, _)| *size)
            }
        }
    }
}

/// The bytes that values of at most `size_max` are cut from: no two alike in a row, and none that compresses.
pub fn value_pool(size_max: u32, mut random: Random) -> Bytes {
    let len = POOL_BYTES + size_max as usize;
    let mut pool = Vec::with_capacity(len + 8);
    while pool.len() < len {
        pool.extend_from_slice(&random.next().to_le_bytes());
    }
    Bytes::from(pool)
}

/// Where in the pool the next value begins.
pub fn value_at(random: &mut Random) -> usize {
    random.below(POOL_BYTES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(text: &str, draws: usize) -> Vec<u32> {
        let spec: ValueSizes = text.parse().expect(text);
        let (sizes, mut random) = (Sizes::new(&spec), Random::of(1, 0));
        let drawn: Vec<u32> = (0..draws).map(|_| sizes.draw(&mut random)).collect();
        assert!(drawn.iter().all(|size| *size <= spec.max()), "{text}");
        drawn
    }

    #[test]
    fn sizes_have_their_shares() {
        assert_eq!(draw("256", 3), [256, 256, 256]);
        assert_eq!(draw("7..7", 2), [7, 7]);
        assert_eq!(draw("zipfian:7..7", 2), [7, 7]);
        let uniform = draw("10..19", 10_000);
        for size in 10..20 {
            let count = uniform.iter().filter(|drawn| **drawn == size).count();
            assert!((900..1100).contains(&count), "{count} of {size} bytes");
        }
        let zipfian = draw("zipfian:64..1024", 10_000);
        let small = zipfian.iter().filter(|size| **size < 74).count();
        assert!(small > 3_000 && zipfian.iter().all(|size| *size >= 64), "{small} small ones");
        let weighted = draw("64:90,1024:9,16384:1", 100_000);
        for (size, share) in [(64, 90_000), (1024, 9_000), (16384, 1_000)] {
            let count = weighted.iter().filter(|drawn| **drawn == size).count();
            assert!((share * 9 / 10..share * 11 / 10).contains(&count), "{count} of {size} bytes");
        }
    }

    #[test]
    fn values_fit_in_the_pool() {
        let (pool, mut random) = (value_pool(1000, Random::of(1, 0)), Random::of(1, 1));
        for _ in 0..1000 {
            assert!(value_at(&mut random) + 1000 <= pool.len());
        }
    }
}
