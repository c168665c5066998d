//! Settings of a world, and what its steps and runs say.

use super::Group;
use crate::trace::Text;

/// Which of the tasks that can run is polled next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// One drawn from the seed.
    #[default]
    Random,
    /// The one that was woken first.
    Fifo,
}

/// Settings of a world.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// What every random number of the run is made from.
    pub seed: u64,
    /// Which task is polled next.
    pub order: Order,
    /// World time that passes when a task reads its clock, in microseconds. 0 makes clocks stand still within
    /// a poll; at least 1 is needed where a task waits for its clock without sleeping.
    pub clock_read_us: u64,
    /// How late a timer may fire, in microseconds.
    pub timer_late_us_max: u64,
    /// Steps without any time passing after which a run counts as a livelock.
    pub steps_at_once_max: u64,
    /// What becomes of the text of the trace.
    pub text: Text,
}

impl WorldConfig {
    /// The usual settings, with a seed: random order, exact timers, a clock that stands still within a poll.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            order: Order::Random,
            clock_read_us: 0,
            timer_late_us_max: 0,
            steps_at_once_max: 1_000_000,
            text: Text::None,
        }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A task of this group was polled.
    Polled(Group),
    /// A timer fired, or an event happened.
    Fired,
    /// A task was found that cannot run: its node is paused or its group has ended.
    Skipped,
    /// There is no task that can run and no timer: nothing will ever happen again by itself.
    Quiescent,
}

/// Why a run stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The condition held.
    Reached,
    /// The time was up.
    TimedOut,
    /// Nothing can happen any more.
    Quiescent,
    /// The group that was waited for has ended.
    Crashed,
    /// Too many steps without any time passing.
    Livelock,
}
