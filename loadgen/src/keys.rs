//! Which key a call names, and how a key is spelt.
//!
//! Zipfian ranks are scattered over the keys by a hash, so that the hot keys lie on all shards. As in YCSB
//! two ranks may fall on one key. What was inserted during the run is chosen by `latest` alone: the others
//! choose among the keys that a load writes.

use crate::args::KeyDistribution;
use crate::inserts::Inserts;
use crate::random::{Random, mix};
use crate::zipfian::Zipfian;

/// Bytes of a key: `key-` and twelve digits.
pub const KEY_BYTES: usize = 16;

/// Chooses keys by number, for one thread.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Every key alike, of so many.
    Uniform(u64),
    /// The first ranks far more often than the last.
    Zipfian(Zipfian),
    /// The newest keys far more often than the oldest.
    Latest(Zipfian),
    /// The first `hot` of `count` keys by a call in so many, the others by the rest.
    HotSet {
        /// Keys of the hot set.
        hot: u64,
        /// Keys in all.
        count: u64,
        /// The share of the calls that goes to the hot set.
        hot_calls: f64,
    },
    /// One after the other; threads share them out.
    Sequential {
        /// The next key, of `count`.
        next: u64,
        /// What the thread goes forward by.
        step: u64,
        /// Keys in all.
        count: u64,
    },
}

impl Keys {
    /// Chooses of `count` keys on thread `(number, threads)`.
    pub fn new(distribution: KeyDistribution, count: u64, thread: (usize, usize)) -> Self {
        assert!(count > 0 && thread.0 < thread.1, "a choice of {count} keys, thread {thread:?}");
        match distribution {
            KeyDistribution::Uniform => Self::Uniform(count),
            KeyDistribution::Zipfian { theta } => Self::Zipfian(Zipfian::new(count, theta)),
            KeyDistribution::Latest { theta } => Self::Latest(Zipfian::new(count, theta)),
            KeyDistribution::HotSet { keys_percent, calls_percent } => Self::HotSet {
                hot: ((count as f64 * keys_percent / 100.0).ceil() as u64).min(count),
                count,
                hot_calls: calls_percent / 100.0,
            },
            KeyDistribution::Sequential => {
                Self::Sequential { next: thread.0 as u64 % count, step: thread.1 as u64, count }
            }
        }
    }

    /// The next key's number.
    pub fn choose(&mut self, random: &mut Random, inserts: &Inserts) -> u64 {
        match self {
            Self::Uniform(count) => random.below(*count),
            Self::Zipfian(zipfian) => mix(zipfian.rank(random.unit())) % zipfian.count(),
            Self::Latest(zipfian) => {
                zipfian.grow_to(inserts.known());
                inserts.by_age(zipfian.rank(random.unit()))
            }
            Self::HotSet { hot, count, hot_calls } => {
                // An empty hot set, or one of all keys, leaves one choice.
                let is_hot = *hot == *count || (*hot > 0 && random.unit() < *hot_calls);
                if is_hot { random.below(*hot) } else { *hot + random.below(*count - *hot) }
            }
            Self::Sequential { next, step, count } => {
                let key = *next;
                *next = (key + *step) % *count;
                key
            }
        }
    }
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

    fn draw(distribution: &str, keys: u64, draws: usize) -> Vec<u64> {
        let distribution = distribution.parse().expect("a distribution");
        let (mut chooser, mut random) = (Keys::new(distribution, keys, (0, 1)), Random::of(1, 0));
        let inserts = Inserts::new(keys, (0, 1));
        (0..draws).map(|_| chooser.choose(&mut random, &inserts)).collect()
    }

    fn counts(distribution: &str, keys: u64, draws: usize) -> Vec<u64> {
        let mut counts = vec![0u64; keys as usize];
        for key in draw(distribution, keys, draws) {
            counts[key as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_is_even() {
        for (key, count) in counts("uniform", 10, 100_000).into_iter().enumerate() {
            assert!((9_500..10_500).contains(&count), "key {key}: {count}");
        }
    }

    #[test]
    fn zipfian_is_scattered_and_within_bounds() {
        let counts = counts("zipfian", 1000, 100_000);
        let hottest = counts.iter().enumerate().max_by_key(|(_, count)| **count).map(|(key, _)| key);
        assert_eq!(hottest, Some((mix(0) % 1000) as usize));
        assert_eq!(draw("zipfian", 1, 1), [0]);
        assert!(draw("zipfian", 2, 1)[0] < 2);
    }

    #[test]
    fn the_hot_set_has_its_share_of_the_calls() {
        let counts = counts("hotset:20:80", 100, 100_000);
        let hot: u64 = counts[..20].iter().sum();
        assert!((79_000..81_000).contains(&hot), "{hot} of 100000");
        // Within it and outside of it all are alike.
        for (key, count) in counts.iter().enumerate() {
            let share = if key < 20 { 4000 } else { 250 };
            assert!((share * 2 / 3..share * 4 / 3).contains(count), "key {key}: {count}");
        }
        for edge in ["hotset:0:80", "hotset:100:80", "hotset:0.001:100", "hotset:50:0"] {
            assert!(draw(edge, 10, 1000).into_iter().all(|key| key < 10), "{edge}");
        }
    }

    #[test]
    fn latest_prefers_the_end_and_what_was_inserted() {
        let counts = counts("latest", 1000, 100_000);
        let hottest = counts.iter().enumerate().max_by_key(|(_, count)| **count).map(|(key, _)| key);
        assert_eq!(hottest, Some(999));
        let (mut chooser, mut random) = (Keys::new(KeyDistribution::LATEST, 1000, (0, 1)), Random::of(1, 0));
        let mut inserts = Inserts::new(1000, (0, 1));
        for _ in 0..50 {
            let key = inserts.start();
            inserts.end(key);
        }
        let drawn: Vec<u64> = (0..10_000).map(|_| chooser.choose(&mut random, &inserts)).collect();
        let (newest, all_new) =
            (drawn.iter().filter(|key| **key == 1049), drawn.iter().filter(|key| **key > 999));
        assert!(newest.count() > 1000 && all_new.count() > 5000);
        assert!(drawn.iter().all(|key| *key < 1050));
    }

    #[test]
    fn sequential_is_shared_out() {
        assert_eq!(draw("sequential", 3, 7), [0, 1, 2, 0, 1, 2, 0]);
        let mut all = Vec::new();
        for thread in 0..3 {
            let mut chooser = Keys::new(KeyDistribution::Sequential, 9, (thread, 3));
            let (mut random, inserts) = (Random::of(1, 0), Inserts::new(9, (thread, 3)));
            all.extend((0..3).map(|_| chooser.choose(&mut random, &inserts)));
        }
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn spelling() {
        assert_eq!(&spell(0), b"key-000000000000");
        assert_eq!(&spell(1_234), b"key-000000001234");
        assert_eq!(&spell(999_999_999_999), b"key-999999999999");
    }
}
