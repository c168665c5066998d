//! When calls start, and which of them are measured. Pure: time is nanoseconds since the process began its
//! run.
//!
//! Coordinated omission: a loop that waits for an answer before it sends again sends nothing while a server
//! stalls, and so hardly counts the stall. The open loop keeps to its schedule instead, and a call that could
//! not leave in time counts from when it should have left (Gil Tene's wrk2).
//!
//! Invariants:
//! - Nothing that happens shifts the schedule of an open loop. With constant arrivals, call n is due
//!   `n / rate` after the start exactly, and thread i of m has the calls whose numbers are i modulo m. With
//!   Poisson arrivals, each thread has a process of its own, of a part of the rate, that its seed decides:
//!   together they are one process of the whole rate.
//! - Every call of the schedule is started or counted as dropped.
//! - Whoever sleeps as [`Gather`] says starts a call at most that time after it was due, and on time where no
//!   other was started within that time before it.

use crate::random::Random;

/// Nanoseconds in a second.
const SECOND_NS: u128 = 1_000_000_000;
/// Makes the arrivals of a seed other numbers than its keys.
const ARRIVALS_SEED: u64 = 0x6172_7269_7661_6c73;
/// A call that leaves so long after it was due has left late.
pub const LATE_NS: u64 = 1_000_000;

/// When the next call starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now; it counts from this moment, which is not later than now.
    Now(u64),
    /// At that moment.
    At(u64),
    /// Never: the run is over.
    Over,
}

/// The calls that one thread starts.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    /// Calls that start from here on are measured.
    measure_from_ns: u64,
    /// No call starts from here on.
    end_ns: u64,
}

#[derive(Clone, Debug)]
enum Pace {
    /// Whenever a place is free.
    Closed,
    /// At even distances.
    Constant { start_ns: u64, rate: u64, next: u64, step: u64 },
    /// At the moments of a Poisson process.
    Poisson(Poisson),
}

/// A Poisson process: the gaps between its moments are independent and exponential.
#[derive(Clone, Debug)]
struct Poisson {
    start_ns: u64,
    /// The next moment, after the start. With its fraction, so that a fast process is not rounded away.
    next_ns: f64,
    gap_mean_ns: f64,
    random: Random,
}

impl Poisson {
    fn advance(&mut self) {
        // The argument is in (0, 1], so that the gap is finite.
        self.next_ns += -(1.0 - self.random.unit()).ln() * self.gap_mean_ns;
    }
}

impl Pace {
    /// When the next call is due; `None`: whenever a place is free.
    fn due_ns(&self) -> Option<u64> {
        match self {
            Self::Closed => None,
            Self::Constant { start_ns, rate, next, .. } => Some(start_ns + span_ns(*rate, *next)),
            Self::Poisson(process) => Some(process.start_ns + process.next_ns as u64),
        }
    }
}

impl Schedule {
    /// Starts a call whenever a place is free.
    pub fn closed(measure_from_ns: u64, end_ns: u64) -> Self {
        Self { pace: Pace::Closed, measure_from_ns, end_ns }
    }

    /// Starts `rate` calls a second over all threads, from `start_ns` on; this is the schedule of one of the
    /// threads, `(number, threads)`.
    pub fn open(rate: u64, thread: (usize, usize), start_ns: u64, measure_from_ns: u64, end_ns: u64) -> Self {
        let (number, threads) = thread;
        assert!(rate > 0 && number < threads, "{rate} calls a second, thread {number} of {threads}");
        let pace = Pace::Constant { start_ns, rate, next: number as u64, step: threads as u64 };
        Self { pace, measure_from_ns, end_ns }
    }

    /// The same as [`Schedule::open`], but at random distances that a seed decides.
    pub fn poisson(
        (rate, seed): (u64, u64),
        thread: (usize, usize),
        start_ns: u64,
        measure_from_ns: u64,
        end_ns: u64,
    ) -> Self {
        let (number, threads) = thread;
        assert!(rate > 0 && number < threads, "{rate} calls a second, thread {number} of {threads}");
        let gap_mean_ns = SECOND_NS as f64 * threads as f64 / rate as f64;
        let random = Random::of(seed ^ ARRIVALS_SEED, number);
        let mut process = Poisson { start_ns, next_ns: 0.0, gap_mean_ns, random };
        process.advance();
        Self { pace: Pace::Poisson(process), measure_from_ns, end_ns }
    }

    /// Ends the run earlier. Calls of the schedule from there on are not counted as dropped.
    pub fn end_at(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.min(end_ns);
    }

    /// When the next call starts.
    pub fn due(&self, now_ns: u64) -> Due {
        let at_ns = self.pace.due_ns().unwrap_or(now_ns);
        if at_ns >= self.end_ns {
            Due::Over
        } else if at_ns > now_ns {
            Due::At(at_ns)
        } else {
            Due::Now(at_ns)
        }
    }

    /// The call that was due has been started or dropped: on to the one after it.
    pub fn advance(&mut self) {
        match &mut self.pace {
            Pace::Closed => {}
            Pace::Constant { next, step, .. } => *next += *step,
            Pace::Poisson(process) => process.advance(),
        }
    }

    /// Drops the calls that were due before `before_ns`: none of them can be answered in time any more. Gives
    /// how many of them would have been measured.
    pub fn drop_due_before(&mut self, before_ns: u64) -> u64 {
        let mut measured = 0;
        while let Some(at_ns) = self.pace.due_ns() {
            if at_ns >= before_ns.min(self.end_ns) {
                break;
            }
            measured += u64::from(self.measures(at_ns));
            self.advance();
        }
        measured
    }

    /// Whether calls keep to moments of their own.
    pub fn is_open(&self) -> bool {
        match self.pace {
            Pace::Closed => false,
            Pace::Constant { .. } | Pace::Poisson(_) => true,
        }
    }

    /// Whether a call that was to start at that moment is measured.
    pub fn measures(&self, start_ns: u64) -> bool {
        (self.measure_from_ns..self.end_ns).contains(&start_ns)
    }
}

/// When the thread that starts calls wakes for them: at most once in a span, so that at a high rate it does
/// not take from the machine that it may share with the server what it is there to measure. Calls that fall
/// due meanwhile leave together.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    span_ns: u64,
    /// When the span is over that began with the calls started last.
    until_ns: u64,
}

impl Gather {
    /// Gathers for so long; for no time: wakes for each call.
    pub fn new(span_ns: u64) -> Self {
        Self { span_ns, until_ns: 0 }
    }

    /// A call was started.
    pub fn started(&mut self, now_ns: u64) {
        self.until_ns = now_ns + self.span_ns;
    }

    /// When to wake for a call that is due at `due_ns`.
    pub fn wake_ns(&self, due_ns: u64) -> u64 {
        due_ns.max(self.until_ns)
    }
}

/// How long after the first call of a rate its call `number` is due.
fn span_ns(rate: u64, number: u64) -> u64 {
    (u128::from(number) * SECOND_NS / u128::from(rate)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Runs a schedule against a server of one place that answers after `service_ns`, but is stalled for the
    /// second from `stall_ns` on. Gives the latencies.
    fn latencies(mut schedule: Schedule, service_ns: u64, stall_ns: u64) -> Vec<u64> {
        let mut now_ns = 0;
        let mut latencies = Vec::new();
        loop {
            match schedule.due(now_ns) {
                Due::Over => return latencies,
                Due::At(at_ns) => now_ns = at_ns,
                Due::Now(start_ns) => {
                    schedule.advance();
                    let stalled = (stall_ns..stall_ns + 1000 * MS).contains(&now_ns);
                    now_ns = service_ns + if stalled { stall_ns + 1000 * MS } else { now_ns };
                    latencies.push(now_ns - start_ns);
                }
            }
        }
    }

    #[test]
    fn a_stall_of_a_second_shows_in_the_open_loop_alone() {
        let slow = |latencies: &[u64]| latencies.iter().filter(|ns| **ns > 100 * MS).count();
        let open = latencies(Schedule::open(100, (0, 1), 0, 0, 10_000 * MS), MS, 3_000 * MS);
        assert_eq!(open.len(), 1000);
        // A hundred calls were due in the stall; those of its last tenth of a second waited less than 100 ms,
        // and some that were due after it waited in the queue behind them.
        assert!((85..=110).contains(&slow(&open)), "{} slow calls", slow(&open));
        let closed = latencies(Schedule::closed(0, 10_000 * MS), 10 * MS, 3_000 * MS);
        assert_eq!(slow(&closed), 1);
    }

    #[test]
    fn threads_share_the_rate() {
        let mut due = Vec::new();
        for thread in 0..3 {
            let mut schedule = Schedule::open(7, (thread, 3), 5, 0, 1000 * MS);
            while let Due::Now(at_ns) = schedule.due(u64::MAX) {
                due.push(at_ns);
                schedule.advance();
            }
        }
        due.sort_unstable();
        assert_eq!(due, (0..7).map(|n| 5 + n * 1_000_000_000 / 7).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_too_late_is_dropped_and_counted_where_it_is_measured() {
        let mut schedule = Schedule::open(1000, (0, 1), 0, 10 * MS, 100 * MS);
        assert_eq!(schedule.drop_due_before(20 * MS), 10);
        assert_eq!(schedule.due(50 * MS), Due::Now(20 * MS));
        assert_eq!(schedule.drop_due_before(1000 * MS), 80);
        assert_eq!(schedule.due(50 * MS), Due::Over);
        assert_eq!(Schedule::closed(0, 100).drop_due_before(50), 0);
    }

    fn moments(mut schedule: Schedule) -> Vec<u64> {
        let mut moments = Vec::new();
        while let Due::Now(at_ns) = schedule.due(u64::MAX) {
            moments.push(at_ns);
            schedule.advance();
        }
        moments
    }

    #[test]
    fn poisson_gaps_are_exponential_and_of_the_seed() {
        let schedule = |seed, thread| Schedule::poisson((1000, seed), (thread, 2), 7, 0, 100_000 * MS);
        let one = moments(schedule(1, 0));
        // 50,000 are expected, and the deviation of their number is 224.
        assert!((49_000..51_000).contains(&one.len()), "{} calls", one.len());
        let gaps: Vec<f64> = one.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 2e6 - 1.0).abs() < 0.02, "a mean gap of {mean} ns");
        // An exponential distribution deviates by its mean; and 1 - 1/e of it is below that.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{} for {mean}", variance.sqrt());
        let short = gaps.iter().filter(|gap| **gap < mean).count() as f64 / gaps.len() as f64;
        assert!((short - 0.632).abs() < 0.01, "{short}");
        assert_eq!(one, moments(schedule(1, 0)));
        assert_ne!(one, moments(schedule(1, 1)));
        assert_ne!(one, moments(schedule(2, 0)));
        assert!(!schedule(1, 0).due(0).eq(&Due::Now(7)) && schedule(1, 0).is_open());
    }

    #[test]
    fn what_is_dropped_of_a_poisson_process_is_counted_too() {
        let new = || Schedule::poisson((100_000, 3), (0, 1), 0, 10 * MS, 100 * MS);
        let all = moments(new());
        let measured = all.iter().filter(|at| **at >= 10 * MS).count() as u64;
        let mut schedule = new();
        let mut dropped = schedule.drop_due_before(50 * MS);
        assert_eq!(dropped, all.iter().filter(|at| (10 * MS..50 * MS).contains(*at)).count() as u64);
        let Due::Now(first) = schedule.due(60 * MS) else { panic!("calls are due") };
        assert!(first >= 50 * MS && all.contains(&first));
        schedule.advance();
        dropped += schedule.drop_due_before(u64::MAX);
        assert_eq!(dropped + 1, measured);
        assert_eq!(schedule.due(60 * MS), Due::Over);
    }

    /// Starts all calls of a schedule, as a thread that only they wake. When it was awake, and when the calls
    /// were due that it started then.
    fn gathered(mut schedule: Schedule, span_ns: u64) -> Vec<(u64, Vec<u64>)> {
        let (mut gather, mut turns, mut now_ns) = (Gather::new(span_ns), Vec::new(), 0);
        loop {
            let mut started = Vec::new();
            while let Due::Now(due_ns) = schedule.due(now_ns) {
                started.push(due_ns);
                schedule.advance();
                gather.started(now_ns);
            }
            turns.push((now_ns, started));
            match schedule.due(now_ns) {
                Due::At(due_ns) => now_ns = gather.wake_ns(due_ns),
                Due::Now(_) | Due::Over => return turns,
            }
        }
    }

    #[test]
    fn sends_are_gathered_and_none_is_late() {
        let constant = || Schedule::open(10_000, (0, 1), 0, 0, 1000 * MS);
        let poisson = || Schedule::poisson((10_000, 9), (0, 1), 0, 0, 1000 * MS);
        for (new, span_ns) in [(&constant as &dyn Fn() -> Schedule, MS), (&poisson, MS), (&poisson, MS / 20)]
        {
            let turns = gathered(new(), span_ns);
            let all: Vec<u64> = turns.iter().flat_map(|(_, started)| started.clone()).collect();
            assert_eq!(all, moments(new()));
            for (now_ns, started) in &turns {
                assert!(started.iter().all(|due_ns| now_ns - due_ns <= span_ns), "{started:?} at {now_ns}");
            }
            for pair in turns[1..].windows(2) {
                assert!(pair[1].0 - pair[0].0 >= span_ns, "{pair:?} within {span_ns} ns");
            }
        }
        // One call is due at once, and those of the last span leave at its end.
        assert_eq!(gathered(constant(), MS).len(), 1001);
        assert_eq!(gathered(constant(), 0).len(), 10_000);
    }

    #[test]
    fn calls_further_apart_leave_on_time() {
        // As far apart as the span is long, and further.
        for (rate, span_ns) in [(20_000, MS / 20), (10_000, MS / 20), (10, MS)] {
            let turns = gathered(Schedule::open(rate, (0, 1), 0, 0, 1000 * MS), span_ns);
            assert_eq!(turns.len() as u64, rate);
            assert!(turns.iter().all(|(now_ns, started)| started == &[*now_ns]), "{rate}/s");
        }
        let mut gather = Gather::new(MS);
        assert_eq!(gather.wake_ns(0), 0);
        gather.started(5 * MS);
        let dues = [5 * MS, 6 * MS - 1, 6 * MS, 7 * MS];
        assert_eq!(dues.map(|due_ns| gather.wake_ns(due_ns)), [6 * MS, 6 * MS, 6 * MS, 7 * MS]);
    }

    #[test]
    fn the_window() {
        let mut schedule = Schedule::closed(10, 20);
        assert_eq!([9, 10, 19, 20].map(|at| schedule.measures(at)), [false, true, true, false]);
        schedule.end_at(15);
        schedule.end_at(18);
        assert_eq!((schedule.due(14), schedule.due(15)), (Due::Now(14), Due::Over));
        assert!(!schedule.is_open());
    }
}
