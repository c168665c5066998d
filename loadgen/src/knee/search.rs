//! Which rate is tried next: the search for the highest one that holds, told how each trial went. Pure.
//!
//! ```text
//!                      holds: × 1.5, until one fails                          holds
//!   half the ceiling ─► probe ─► between the two, until they are 3 % apart ─► confirm ─────► found
//!                      fails twice: ÷ 2, until one holds                        │ fails
//!                                                                               └─► 5 % lower
//! ```
//!
//! A machine that others use makes a good rate look bad more easily than a bad one good. So a rate that
//! failed is tried once more before that is believed, and the highest that held is tried once more, for
//! longer, before it is the result.
//!
//! Invariants:
//! - Between any two trials, what held lies below what failed.
//! - It ends: after [`TRIALS_MAX`] probes at most, and [`CONFIRMATIONS_MAX`] confirmations.

/// Highest and lowest are this close at the end.
const PRECISION: f64 = 1.03;
/// How much higher the next rate is while none has failed.
const STEP_UP: f64 = 1.5;
/// How much lower a rate is than one that could not be confirmed.
const STEP_BACK: f64 = 0.95;
/// Most probes.
pub const TRIALS_MAX: usize = 24;
/// Most confirmations.
pub const CONFIRMATIONS_MAX: usize = 4;
/// Below this share of the ceiling nothing is looked for.
const FLOOR: f64 = 0.01;
/// The highest rate that is tried: no schedule is faster.
const RATE_MAX: f64 = 1e8;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A trial of this rate; `again`: it has failed once.
    Probe {
        /// Calls a second.
        rate: u64,
        /// Whether it failed before.
        again: bool,
    },
    /// A longer trial of a rate that held.
    Confirm {
        /// Calls a second.
        rate: u64,
    },
    /// The search is over: the rate that was confirmed, if any.
    End(Option<u64>),
}

/// The search.
#[derive(Clone, Debug)]
pub struct Search {
    floor: u64,
    held: Option<u64>,
    failed: Option<u64>,
    probes: usize,
    confirmations: usize,
    next: Next,
}

impl Search {
    /// Begins, where a closed loop came to so many calls a second.
    pub fn new(ceiling_per_s: f64) -> Self {
        let floor = whole(ceiling_per_s * FLOOR);
        let next = Next::Probe { rate: whole(ceiling_per_s * 0.5), again: false };
        Self { floor, held: None, failed: None, probes: 0, confirmations: 0, next }
    }

    /// What comes next.
    pub fn next(&self) -> Next {
        self.next
    }

    /// Tells how the trial that came next went.
    pub fn tell(&mut self, holds: bool) {
        self.next = match (self.next, holds) {
            (Next::Probe { rate, .. }, true) => {
                self.probes += 1;
                self.held = Some(rate);
                self.probe()
            }
            (Next::Probe { rate, again: false }, false) => {
                self.probes += 1;
                Next::Probe { rate, again: true }
            }
            (Next::Probe { rate, again: true }, false) => {
                self.probes += 1;
                self.failed = Some(rate);
                self.probe()
            }
            (Next::Confirm { rate }, true) => Next::End(Some(rate)),
            (Next::Confirm { rate }, false) => {
                self.confirmations += 1;
                self.failed = Some(rate);
                let lower = whole(rate as f64 * STEP_BACK);
                let is_over = self.confirmations >= CONFIRMATIONS_MAX || lower < self.floor || lower >= rate;
                if is_over { Next::End(None) } else { Next::Confirm { rate: lower } }
            }
            (Next::End(_), _) => panic!("a trial was made after the end of the search"),
        };
        let is_in_order = self.held.zip(self.failed).is_none_or(|(held, failed)| {
            held < failed || matches!(self.next, Next::Confirm { .. } | Next::End(_))
        });
        assert!(is_in_order, "{:?} held and {:?} failed", self.held, self.failed);
    }

    /// The next probe, where one is of use.
    fn probe(&self) -> Next {
        let rate = match (self.held, self.failed) {
            (Some(held), _) if self.probes >= TRIALS_MAX => return Next::Confirm { rate: held },
            (None, _) if self.probes >= TRIALS_MAX => return Next::End(None),
            (Some(held), Some(failed)) => {
                let is_close = failed as f64 <= held as f64 * PRECISION || failed - held <= 1;
                if is_close {
                    return Next::Confirm { rate: held };
                }
                whole((held as f64 * failed as f64).sqrt()).clamp(held + 1, failed - 1)
            }
            (Some(held), None) => {
                let higher = whole(held as f64 * STEP_UP).max(held + 1);
                if higher as f64 > RATE_MAX {
                    return Next::Confirm { rate: held };
                }
                higher
            }
            (None, failed) => {
                let lower = failed.unwrap_or(1) / 2;
                if lower < self.floor {
                    return Next::End(None);
                }
                lower
            }
        };
        Next::Probe { rate, again: false }
    }
}

/// A rate that a schedule can have.
fn whole(rate: f64) -> u64 {
    rate.clamp(1.0, RATE_MAX) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that holds what `holds` says of a rate and the number of the trial. The result, and
    /// the trials.
    fn search(ceiling_per_s: f64, mut holds: impl FnMut(u64, usize) -> bool) -> (Option<u64>, Vec<Next>) {
        let mut search = Search::new(ceiling_per_s);
        let mut trials = Vec::new();
        loop {
            let next = search.next();
            let rate = match next {
                Next::Probe { rate, .. } | Next::Confirm { rate } => rate,
                Next::End(found) => return (found, trials),
            };
            assert!(trials.len() < TRIALS_MAX + 1 + CONFIRMATIONS_MAX, "no end: {trials:?}");
            trials.push(next);
            search.tell(holds(rate, trials.len()));
        }
    }

    #[test]
    fn it_finds_the_knee_wherever_it_is() {
        for ceiling in [3.0, 100.0, 51_234.0, 2e6] {
            for share in [0.02, 0.1, 0.3, 0.5, 0.77, 0.99, 1.4, 3.0] {
                let knee = (ceiling * share) as u64;
                let (found, trials) = search(ceiling, |rate, _| rate <= knee);
                let Some(found) = found else {
                    assert!(knee < 1, "nothing was found below {knee}: {trials:?}");
                    continue;
                };
                let is_close = found as f64 * PRECISION >= knee as f64 || knee - found <= 1;
                assert!(found <= knee && is_close, "{found} for {knee}");
                assert_eq!(trials.last(), Some(&Next::Confirm { rate: found }));
            }
        }
    }

    #[test]
    fn what_never_holds_is_given_up() {
        let (found, trials) = search(50_000.0, |_, _| false);
        assert_eq!(found, None);
        // Each rate twice, down to a hundredth of the ceiling.
        assert_eq!(trials.len(), 12);
        assert_eq!(trials[11], Next::Probe { rate: 781, again: true });
        assert_eq!(search(0.0, |_, _| false).0, None);
    }

    #[test]
    fn what_always_holds_ends_too() {
        let (found, trials) = search(50_000.0, |_, _| true);
        assert!(found.is_some_and(|found| found as f64 * STEP_UP > RATE_MAX), "{found:?}");
        assert!(trials.len() <= TRIALS_MAX + 1);
        assert!(search(1e-9, |_, _| true).0.is_some());
    }

    #[test]
    fn one_bad_trial_is_not_believed() {
        let (found, trials) = search(1000.0, |rate, trial| rate <= 800 && trial % 4 != 1);
        assert_eq!(
            trials[..2],
            [Next::Probe { rate: 500, again: false }, Next::Probe { rate: 500, again: true }]
        );
        assert!(found.is_some_and(|found| (740..=800).contains(&found)), "{found:?}");
    }

    #[test]
    fn what_is_not_confirmed_is_not_the_result() {
        let mut confirmed = 0;
        let mut trials = Vec::new();
        let mut searching = Search::new(1000.0);
        while !matches!(searching.next(), Next::End(_)) {
            let next = searching.next();
            trials.push(next);
            let holds = match next {
                Next::Probe { rate, .. } => rate <= 800,
                Next::Confirm { rate } => {
                    confirmed += 1;
                    rate <= 750
                }
                Next::End(_) => false,
            };
            searching.tell(holds);
        }
        assert!(matches!(searching.next(), Next::End(Some(711..=750))), "{:?}", searching.next());
        assert!(confirmed > 1, "{trials:?}");
        let probe_or_never = |next| matches!(next, Next::Probe { rate, .. } if rate <= 800);
        let mut searching = Search::new(1000.0);
        while !matches!(searching.next(), Next::End(_)) {
            searching.tell(probe_or_never(searching.next()));
        }
        assert_eq!(searching.next(), Next::End(None));
    }

    /// However the trials go.
    #[test]
    fn it_always_ends() {
        for seed in 0..2000_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            search(10f64.powf(seed as f64 % 80.0 / 10.0), |_, _| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.is_multiple_of(2)
            });
        }
    }
}
