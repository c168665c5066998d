//! Random numbers of a seed: SplitMix64 (Steele, Lea and Flood, 2014). Small, fast, good enough to choose
//! keys with.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of a seed and of one of its threads; no two are alike.
    pub fn of(seed: u64, thread: usize) -> Self {
        Self { state: mix(seed ^ mix(thread as u64 + 1)) }
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`, which is not zero. Its bias is below 2^-24 for every bound that is used.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below {bound}");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Spreads a number over all 64 bits, one to one.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_by_seed_and_differs_by_thread() {
        let draw = |seed, thread| Random::of(seed, thread).next();
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0), draw(7, 1));
        assert_ne!(draw(7, 0), draw(8, 0));
    }

    #[test]
    fn below_and_unit_keep_their_bounds() {
        let mut random = Random::of(1, 0);
        for _ in 0..10_000 {
            assert!(random.below(10) < 10);
            assert!((0.0..1.0).contains(&random.unit()));
        }
    }
}
