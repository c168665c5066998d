//! The numbers of a seed, and choices that a small run can enumerate.
//!
//! [`Random`] is xoshiro256\*\* seeded through splitmix64. [`Choices`] asks "which of so many?" and is
//! answered either by a [`Random`] or by a script; [`exhaust`] runs something under every script there is.
//!
//! Invariants:
//! - The same seed and the same questions give the same answers, on every machine.
//! - [`Random::fork`] depends on the parent's seed and the label alone, not on what was drawn in between: a
//!   new drawer of numbers does not shift those of the others.
//! - [`exhaust`] visits every combination of answers once, as long as a run's questions depend on its answers
//!   alone.
//!
//! It deliberately has no floating point and no distribution but the uniform one: latencies are made of two
//! of them.

use std::cell::RefCell;
use std::rc::Rc;

/// Questions that one scripted run may ask: more are a run too large to be enumerated.
const QUESTIONS_MAX: usize = 1 << 16;

/// A deterministic source of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    seed: u64,
    state: [u64; 4],
}

impl Random {
    /// The source of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mixed = seed;
        let state = std::array::from_fn(|_| splitmix(&mut mixed));
        assert!(state != [0; 4], "xoshiro cannot leave the state of zeros, seed {seed}");
        Self { seed, state }
    }

    /// Another source, of this one's seed and a label, whatever this one has drawn.
    #[must_use]
    pub fn fork(&self, label: u64) -> Self {
        let mut mixed = self.seed ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self::new(splitmix(&mut mixed))
    }

    /// 64 uniform bits.
    pub fn draw(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below {bound}");
        // The high half of the product: the bias is below bound / 2^64.
        let product = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half of 128 bits has 64")
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "nothing lies between {low} and {high}");
        match (high - low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.draw(),
        }
    }

    /// An index of a list of `len`, which is at least 1.
    pub fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "an empty list has no index");
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Whether something of this chance happens now.
    pub fn happens(&mut self, chance: Chance) -> bool {
        // Drawn even for what never happens, so that turning a fault off does not shift the numbers of the
        // rest.
        self.below(u64::from(Chance::ALWAYS.0)) < u64::from(chance.0)
    }

    /// One of a list, `None` of an empty one.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.index(list.len())) }
    }

    /// Puts a list into a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.index(last + 1));
        }
    }
}

/// One step of splitmix64: it spreads near seeds far apart.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

/// The finaliser of splitmix64: every bit of the result depends on every bit of the number.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// How often something happens, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// It never happens.
    pub const NEVER: Self = Self(0);
    /// It always happens.
    pub const ALWAYS: Self = Self(1_000_000);

    /// So many times in a million.
    #[must_use]
    pub fn per_million(times: u32) -> Self {
        assert!(times <= Self::ALWAYS.0, "{times} of a million is more than always");
        Self(times)
    }

    /// So many times in a thousand.
    #[must_use]
    pub fn per_mille(times: u32) -> Self {
        assert!(times <= 1000, "{times} of a thousand is more than always");
        Self(times * 1000)
    }
}

/// Who answers "which of so many?". Cloning is cheap: a handle to the same source.
#[derive(Clone, Debug)]
pub struct Choices {
    source: Rc<RefCell<Source>>,
}

/// Where answers come from.
#[derive(Debug)]
enum Source {
    Random(Random),
    Script(Script),
}

/// The answers that were given in advance, and what was asked so far.
#[derive(Debug, Default)]
struct Script {
    given: Vec<usize>,
    /// Each answer, and of how many.
    taken: Vec<(usize, usize)>,
}

impl Choices {
    /// Choices drawn from a source of numbers.
    #[must_use]
    pub fn random(random: Random) -> Self {
        Self { source: Rc::new(RefCell::new(Source::Random(random))) }
    }

    /// Choices read from a list; past its end every answer is 0.
    #[must_use]
    pub fn scripted(given: Vec<usize>) -> Self {
        let script = Script { given, taken: Vec::new() };
        Self { source: Rc::new(RefCell::new(Source::Script(script))) }
    }

    /// One of `count` (0 to `count - 1`). The only one there is is not a question.
    #[must_use]
    pub fn choose(&self, count: usize) -> usize {
        assert!(count > 0, "a choice among nothing");
        if count == 1 {
            return 0;
        }
        match &mut *self.source.borrow_mut() {
            Source::Random(random) => random.index(count),
            Source::Script(script) => script.choose(count),
        }
    }

    /// A number up to `high`; a script knows only the two ends.
    #[must_use]
    pub fn up_to(&self, high: u64) -> u64 {
        match &mut *self.source.borrow_mut() {
            Source::Random(random) => random.between(0, high),
            Source::Script(_) if high == 0 => 0,
            Source::Script(script) => [0, high][script.choose(2)],
        }
    }

    /// Whether the answers are drawn rather than enumerated.
    #[must_use]
    pub fn is_random(&self) -> bool {
        matches!(&*self.source.borrow(), Source::Random(_))
    }

    /// The script after the one that was just run to its end; `None` when it was the last, or choices are
    /// random.
    #[must_use]
    pub fn next_script(&self) -> Option<Vec<usize>> {
        match &*self.source.borrow() {
            Source::Random(_) => None,
            Source::Script(script) => script.next(),
        }
    }
}

impl Script {
    /// The next answer of the script, or 0 past its end.
    fn choose(&mut self, count: usize) -> usize {
        assert!(self.taken.len() < QUESTIONS_MAX, "a scripted run asks more than {QUESTIONS_MAX} questions");
        let answer = self.given.get(self.taken.len()).copied().unwrap_or(0);
        assert!(
            answer < count,
            "question {} has {count} answers, the script says {answer}",
            self.taken.len()
        );
        self.taken.push((answer, count));
        answer
    }

    /// Counts up as an odometer does, the last question turning fastest.
    fn next(&self) -> Option<Vec<usize>> {
        let turned = self.taken.iter().rposition(|&(answer, count)| answer + 1 < count)?;
        let mut answers: Vec<usize> = self.taken[..=turned].iter().map(|&(answer, _)| answer).collect();
        answers[turned] += 1;
        Some(answers)
    }
}

/// How an enumeration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Every combination was run: so many.
    All(usize),
    /// The limit was reached after so many runs; some were not tried.
    Stopped(usize),
}

/// Runs something under every combination of choices, at most `runs_max` times.
pub fn exhaust(runs_max: usize, mut run: impl FnMut(&Choices)) -> Exhausted {
    let mut script = Vec::new();
    for runs in 1..=runs_max {
        let choices = Choices::scripted(script);
        run(&choices);
        match choices.next_script() {
            Some(next) => script = next,
            None => return Exhausted::All(runs),
        }
    }
    Exhausted::Stopped(runs_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn same_seed_same_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.draw()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn a_fork_does_not_depend_on_what_was_drawn() {
        let fresh = Random::new(3);
        let mut used = fresh.clone();
        used.draw();
        assert_eq!(fresh.fork(5).draw(), used.fork(5).draw());
        assert_ne!(fresh.fork(5).draw(), fresh.fork(6).draw());
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut random = Random::new(1);
        let seen: BTreeSet<u64> = (0..200).map(|_| random.between(3, 6)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert!((0..100).all(|_| random.happens(Chance::ALWAYS) && !random.happens(Chance::NEVER)));
        let often = (0..10_000).filter(|_| random.happens(Chance::per_mille(250))).count();
        assert!((2300..2700).contains(&often), "a quarter of 10000 is about {often}");
    }

    #[test]
    fn every_combination_once() {
        let mut seen = BTreeSet::new();
        let ended = exhaust(100, |choices| {
            let first = choices.choose(3);
            // The second question depends on the first answer, as the sectors of a file depend on its length.
            let second = if first == 1 { 9 } else { choices.choose(2) };
            assert!(seen.insert((first, second)), "twice: {first} {second}");
        });
        assert_eq!(ended, Exhausted::All(5));
        assert_eq!(exhaust(3, |choices| assert!(choices.choose(4) < 4)), Exhausted::Stopped(3));
    }
}
