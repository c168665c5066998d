//! Which key a call names, and how a key is spelt.
//!
//! Zipfian follows YCSB: Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994),
//! constant 0.99, ranks scattered over the keys by a hash so that the hot keys lie on all shards. As in YCSB
//! two ranks may fall on one key.

use crate::args::KeyDistribution;
use crate::random::{Random, mix};

/// Bytes of a key: `key-` and twelve digits.
pub const KEY_BYTES: usize = 16;
/// YCSB's constant: the larger, the hotter the hot keys.
const THETA: f64 = 0.99;
/// The sum of a zipfian is added up to here, and approximated by its integral beyond.
const ZETA_EXACT_MAX: u64 = 100_000;

/// Chooses keys by number.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Every key alike, of so many.
    Uniform(u64),
    /// The first ranks far more often than the last.
    Zipfian(Zipfian),
}

impl Keys {
    /// Chooses of `count` keys.
    pub fn new(distribution: KeyDistribution, count: u64) -> Self {
        assert!(count > 0, "a choice of {count} keys");
        match distribution {
            KeyDistribution::Uniform => Self::Uniform(count),
            KeyDistribution::Zipfian => Self::Zipfian(Zipfian::new(count)),
        }
    }

    /// The next key's number.
    pub fn choose(&self, random: &mut Random) -> u64 {
        match self {
            Self::Uniform(count) => random.below(*count),
            Self::Zipfian(zipfian) => mix(zipfian.rank(random.unit())) % zipfian.count,
        }
    }
}

/// The constants of Gray's method.
#[derive(Clone, Debug)]
pub struct Zipfian {
    count: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    fn new(count: u64) -> Self {
        let zeta = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta_exact(2) / zeta);
        Self { count, zeta, alpha: 1.0 / (1.0 - THETA), eta }
    }

    /// The rank that a number in [0, 1) stands for: 0 is the most frequent.
    fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(THETA) {
            1
        } else {
            (self.count as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
        };
        rank.min(self.count - 1)
    }
}

/// The sum of 1 / i^THETA for i from 1 to `count`: the tail by Euler's and Maclaurin's midpoint integral.
fn zeta(count: u64) -> f64 {
    let exact = count.min(ZETA_EXACT_MAX);
    let integral = |x: f64| x.powf(1.0 - THETA) / (1.0 - THETA);
    zeta_exact(exact) + integral(count as f64 + 0.5) - integral(exact as f64 + 0.5)
}

fn zeta_exact(count: u64) -> f64 {
    (1..=count).map(|i| (i as f64).powf(-THETA)).sum()
}

/// The spelling of key number `number`.
pub fn spell(number: u64) -> [u8; KEY_BYTES] {
    assert!(number < 1_000_000_000_000, "key {number} has more than twelve digits");
    let mut key = *b"key-000000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(distribution: KeyDistribution, keys: u64, draws: usize) -> Vec<u64> {
        let chooser = Keys::new(distribution, keys);
        let mut random = Random::of(1, 0);
        let mut counts = vec![0u64; keys as usize];
        for _ in 0..draws {
            counts[chooser.choose(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_is_even() {
        for (key, count) in counts(KeyDistribution::Uniform, 10, 100_000).into_iter().enumerate() {
            assert!((9_500..10_500).contains(&count), "key {key}: {count}");
        }
    }

    #[test]
    fn zipfian_ranks_have_their_shares() {
        let zipfian = Zipfian::new(1000);
        let mut random = Random::of(1, 0);
        let mut counts = vec![0f64; 1000];
        let draws = 200_000;
        for _ in 0..draws {
            counts[zipfian.rank(random.unit()) as usize] += 1.0;
        }
        for rank in [0usize, 1] {
            let share = ((rank + 1) as f64).powf(-THETA) / zeta_exact(1000);
            let found = counts[rank] / f64::from(draws);
            assert!((found / share - 1.0).abs() < 0.05, "rank {rank}: {found} for {share}");
        }
        let head: f64 = counts[..100].iter().sum::<f64>() / f64::from(draws);
        let share = zeta_exact(100) / zeta_exact(1000);
        assert!((head / share - 1.0).abs() < 0.05, "the first hundred: {head} for {share}");
    }

    #[test]
    fn zipfian_is_scattered_and_within_bounds() {
        let counts = counts(KeyDistribution::Zipfian, 1000, 100_000);
        let hottest = counts.iter().enumerate().max_by_key(|(_, count)| **count).map(|(key, _)| key);
        assert_eq!(hottest, Some((mix(0) % 1000) as usize));
        assert_eq!(Keys::new(KeyDistribution::Zipfian, 1).choose(&mut Random::of(1, 0)), 0);
        assert!(Keys::new(KeyDistribution::Zipfian, 2).choose(&mut Random::of(1, 0)) < 2);
    }

    #[test]
    fn zeta_by_integral_is_zeta() {
        let exact = zeta_exact(1_000_000);
        assert!((zeta(1_000_000) / exact - 1.0).abs() < 1e-9, "{} for {exact}", zeta(1_000_000));
    }

    #[test]
    fn spelling() {
        assert_eq!(&spell(0), b"key-000000000000");
        assert_eq!(&spell(1_234), b"key-000000001234");
        assert_eq!(&spell(999_999_999_999), b"key-999999999999");
    }
}
