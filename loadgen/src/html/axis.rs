//! Axes: where a value lies on one, and the round numbers that are written beside it. Pure.

use crate::units;

/// Most ticks of an axis, about.
const TICKS_MAX: usize = 9;
/// Steps between ticks of a time axis, in seconds.
const TIME_STEPS_S: [f64; 19] = [
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0,
    21_600.0, 86_400.0,
];

/// A mark on an axis, and what is written there.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Where.
    pub at: f64,
    /// What.
    pub label: String,
}

/// An axis from its low end to its high one.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    /// In rising order.
    pub ticks: Vec<Tick>,
}

impl Axis {
    /// Seconds of a run, from 0.
    pub fn seconds(high: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let fits = |step: &&f64| high / **step <= TICKS_MAX as f64 + 1.0;
        let step = *TIME_STEPS_S.iter().find(fits).unwrap_or(&TIME_STEPS_S[TIME_STEPS_S.len() - 1]);
        let label = |at: f64| if step < 1.0 { trimmed(&format!("{at:.2} s")) } else { units::clock(at) };
        Self { low: 0.0, high, is_log: false, ticks: multiples(step, high, label) }
    }

    /// From 0 to a round number not below `high`.
    pub fn linear(high: f64, label: impl Fn(f64) -> String) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = round_step(high);
        let high = (high / step - 1e-9).ceil().max(1.0) * step;
        Self { low: 0.0, high, is_log: false, ticks: multiples(step, high, |at| trimmed(&label(at))) }
    }

    /// From a round number not above `low` to one not below `high`, by powers of ten.
    pub fn log(low: f64, high: f64, label: impl Fn(f64) -> String) -> Self {
        let low = if low > 0.0 { low } else { 1.0 };
        let high = high.max(low);
        let mut fine = rounds(low, high, &[1.0, 2.0, 5.0]);
        if fine.len() < 2 {
            fine.extend(fine.last().map(|last| last * 2.0));
        }
        let (low, high) = (fine[0], fine[fine.len() - 1]);
        let mut ticks = fine;
        if ticks.len() > TICKS_MAX {
            ticks.retain(|at| is_power_of_ten(*at));
        }
        let tick = |at| Tick { at, label: trimmed(&label(at)) };
        Self { low, high, is_log: true, ticks: ticks.into_iter().map(tick).collect() }
    }

    /// Shares of a distribution by 1 / (1 - share), up to the one that `count` values can tell.
    pub fn shares(count: u64) -> Self {
        let high = (count as f64).max(10.0);
        let powers = (0..).map(|power| 10f64.powi(power)).take_while(|at| *at <= high * 1.001);
        let ticks = powers.map(|at| Tick { at, label: share_name(at) }).collect();
        Self { low: 1.0, high, is_log: true, ticks }
    }

    /// Where a value lies, 0 to 1; `None` where it lies nowhere.
    pub fn place(&self, value: f64) -> Option<f64> {
        let share = if self.is_log {
            (value > 0.0).then(|| (value / self.low).ln() / (self.high / self.low).ln())?
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.is_finite().then(|| share.clamp(0.0, 1.0))
    }

    /// The high end.
    pub fn high(&self) -> f64 {
        self.high
    }
}

/// The share that `at` is 1 / (1 - share) of, as percent: `0 %`, `99.9 %`.
pub fn share_name(at: f64) -> String {
    let nines = at.log10().round() as usize;
    format!("{:.*} %", nines.saturating_sub(2), 100.0 * (1.0 - 1.0 / at))
}

/// 1, 2 or 5 times a power of ten, such that an axis up to `high` has some four to eight of it.
fn round_step(high: f64) -> f64 {
    let raw = high / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let fits = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * 0.999);
    fits.unwrap_or(10.0) * power
}

fn multiples(step: f64, high: f64, label: impl Fn(f64) -> String) -> Vec<Tick> {
    let count = (high / step + 1e-9) as usize;
    (0..=count).map(|n| n as f64 * step).map(|at| Tick { at, label: label(at) }).collect()
}

/// The round numbers around and between two.
fn rounds(low: f64, high: f64, factors: &[f64]) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all: Vec<f64> =
        powers.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power))).collect();
    let first = all.iter().rposition(|at| *at <= low * 1.000_001).unwrap_or(0);
    let last = all.iter().position(|at| *at >= high * 0.999_999).unwrap_or(all.len() - 1);
    all[first..=last.max(first)].to_vec()
}

fn is_power_of_ten(at: f64) -> bool {
    let power = at.log10();
    (power - power.round()).abs() < 1e-6
}

/// `1.00 ms` is `1 ms` on an axis.
fn trimmed(text: &str) -> String {
    let (number, unit) = text.split_once(' ').map_or((text, ""), |(number, unit)| (number, unit));
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        let axis = Axis::linear(50_234.0, units::rate);
        assert_eq!(labels(&axis), ["0 /s", "20 k/s", "40 k/s", "60 k/s"]);
        assert_eq!((axis.place(0.0), axis.place(30_000.0), axis.high()), (Some(0.0), Some(0.5), 60_000.0));
        assert_eq!(labels(&Axis::linear(3_000_000.0, units::time)).last(), Some(&"3 ms"));
        assert_eq!(labels(&Axis::linear(0.0, units::rate)).len(), 6);
    }

    #[test]
    fn log_ticks_are_round() {
        let axis = Axis::log(130_000.0, 9_100_000.0, units::time);
        assert_eq!(labels(&axis), ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms"]);
        assert_eq!((axis.place(100_000.0), axis.place(10_000_000.0)), (Some(0.0), Some(1.0)));
        assert!((axis.place(1_000_000.0).expect("it is on it") - 0.5).abs() < 1e-9);
        assert_eq!((axis.place(0.0), axis.place(1.0)), (None, Some(0.0)));
        let wide = Axis::log(1_000.0, 3e9, units::time);
        assert_eq!(labels(&wide), ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(labels(&Axis::log(1_000_000.0, 1_000_000.0, units::time)), ["1 ms", "2 ms"]);
    }

    #[test]
    fn time_and_share_ticks() {
        assert_eq!(labels(&Axis::seconds(12.03)), ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s", "12 s"]);
        assert_eq!(labels(&Axis::seconds(600.0)).last(), Some(&"10:00"));
        assert_eq!(labels(&Axis::shares(12_345)), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }
}
