//! World time, and the clocks of nodes, which go at their own speeds and jump.

use std::time::Duration;

use distribkv::env::Instant;

/// Millionths: the unit of clock drift.
const MILLION: u128 = 1_000_000;

/// The largest drift of a clock, either way, in millionths: half its speed.
pub(super) const DRIFT_PPM_MAX: i32 = 500_000;

/// A point of world time, in microseconds since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorldTime(pub u64);

impl std::ops::Add<Duration> for WorldTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

/// A node's monotonic clock: a straight line through one point of world time, redrawn with each change.
#[derive(Clone, Copy, Default)]
pub(super) struct Clock {
    pub(super) world_at: WorldTime,
    pub(super) local_at: u64,
    pub(super) drift_ppm: i32,
}

impl Clock {
    /// Local microseconds in a million of world time.
    fn rate(self) -> u128 {
        let rate = 1_000_000 + i64::from(self.drift_ppm);
        u128::try_from(rate).expect("drift is bounded to half the speed")
    }

    /// What the clock shows at a point of world time.
    pub(super) fn local(self, at: WorldTime) -> Instant {
        assert!(at >= self.world_at, "world time went back from {:?} to {at:?}", self.world_at);
        let passed = u128::from(at.0 - self.world_at.0) * self.rate() / MILLION;
        Instant(self.local_at.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// The first point of world time at which the clock shows `local` or more, and not before `from`.
    pub(super) fn world(self, local: Instant, from: WorldTime) -> WorldTime {
        let ahead = u128::from(local.0.saturating_sub(self.local_at));
        let passed = (ahead * MILLION).div_ceil(self.rate());
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        WorldTime(self.world_at.0.saturating_add(passed)).max(from)
    }
}

/// A duration in whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
