//! How long to wait before sending again, and the chance that spreads clients apart.
//!
//! Invariants: a delay lies in [half, whole] of its round's bound; the bound doubles from `first` to `most`.

use std::time::Duration;

use crate::client::error::Setback;
use crate::client::message::Target;

/// The delays between the sendings of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first delay. Default 10 ms, at least 1 ms.
    pub first: Duration,
    /// The bound of every later one at most. Default 1 s.
    pub most: Duration,
}

impl Backoff {
    /// The delay before sending number `round` + 2 (the first delay is that of round 0).
    #[must_use]
    pub fn delay(&self, round: u32, random: u64) -> Duration {
        assert!(self.first >= Duration::from_millis(1), "a backoff from {:?} would spin", self.first);
        assert!(self.most >= self.first, "a backoff from {:?} to {:?}", self.first, self.most);
        let doubled = self.first.saturating_mul(1_u32 << round.min(20));
        let half_us = u64::try_from(doubled.min(self.most).as_micros() / 2).unwrap_or(u64::MAX / 4);
        Duration::from_micros(half_us + random % (half_us + 1))
    }
}

/// Numbers drawn from what the driver passes in: the same seeds, the same numbers (splitmix64).
#[derive(Clone, Debug, Default)]
pub(crate) struct Chance {
    state: u64,
}

impl Chance {
    /// Mixes in a random number of the driver.
    pub(crate) fn stir(&mut self, random: u64) {
        self.state ^= random;
    }

    /// The next number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What is remembered of the sendings of one thing so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tries {
    /// Delays waited since the last success.
    pub(crate) rounds: u32,
    /// Leader hints followed at once since the last delay.
    pub(crate) redirects: u32,
    /// Sendings that ended without an answer.
    pub(crate) lost: u32,
    /// The target that the last sending failed at.
    pub(crate) avoid: Option<Target>,
    /// The last thing that stood in the way.
    pub(crate) last: Option<Setback>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_bound_and_stay_within_it() {
        let backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(100) };
        let mut chance = Chance::default();
        for round in 0..40 {
            let bound = Duration::from_millis((10_u64 << round.min(20)).min(100));
            for _ in 0..50 {
                let delay = backoff.delay(round, chance.draw());
                assert!(delay >= bound / 2 && delay <= bound, "round {round}: {delay:?} of {bound:?}");
            }
        }
    }

    #[test]
    fn the_same_seeds_draw_the_same_numbers() {
        let (mut one, mut other) = (Chance::default(), Chance::default());
        one.stir(7);
        other.stir(7);
        assert_eq!([one.draw(), one.draw()], [other.draw(), other.draw()]);
        other.stir(8);
        assert_ne!(one.draw(), other.draw());
    }
}
