//! Tests of the checker: histories known to be good or bad, random ones against a search by brute force, and
//! large ones.

use super::*;
use crate::history::{Client, Seen, token};
use crate::random::Random;

/// A history of one key, told step by step.
#[derive(Default)]
struct Story {
    history: History,
    at_us: u64,
}

impl Story {
    fn invoke(&mut self, call: Call) -> OperationId {
        self.at_us += 10;
        self.history.invoke(Client(1), b"k", call, self.at_us)
    }

    fn end(&mut self, id: OperationId, outcome: Outcome) {
        self.at_us += 10;
        self.history.end(id, outcome, self.at_us);
    }

    fn done(&mut self, id: OperationId, answer: Answer) {
        self.end(id, Outcome::Answered(answer));
    }

    fn whole(&mut self, call: Call, answer: Answer) {
        let id = self.invoke(call);
        self.done(id, answer);
    }

    fn unknown(&mut self, call: Call) {
        let id = self.invoke(call);
        self.end(id, Outcome::Unknown);
    }

    fn verdict(&self) -> Verdict {
        check(&self.history, STATES_MAX)
    }

    #[track_caller]
    fn good(&self) {
        let verdict = self.verdict();
        assert!(matches!(verdict, Verdict::Linearizable { .. }), "{verdict:?}");
    }

    #[track_caller]
    fn bad(&self) {
        let verdict = self.verdict();
        assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
    }
}

fn put(value: &str) -> Call {
    Call::Put { value: value.as_bytes().to_vec(), condition: Condition::Always }
}

fn put_if(value: &str, condition: Condition) -> Call {
    Call::Put { value: value.as_bytes().to_vec(), condition }
}

fn append(value: &str) -> Call {
    Call::Append { value: value.as_bytes().to_vec(), condition: Condition::Always }
}

fn delete() -> Call {
    Call::Delete { condition: Condition::Always }
}

fn seen(value: &str, version: u64, mod_revision: u64) -> Seen {
    Seen { value: value.as_bytes().to_vec(), version, mod_revision }
}

fn got(value: &str, version: u64, mod_revision: u64) -> Answer {
    Answer::Got(Some(seen(value, version, mod_revision)))
}

fn changed(version: u64, revision: u64) -> Answer {
    Answer::Changed { revision, version, length: None, previous: Previous::Untold }
}

fn refused() -> Answer {
    Answer::Refused { previous: Previous::Untold }
}

fn deleted(existed: bool, revision: u64) -> Answer {
    Answer::Deleted { revision, existed, previous: Previous::Untold }
}

#[test]
fn one_after_the_other() {
    let mut story = Story::default();
    story.whole(Call::Get, Answer::Got(None));
    story.whole(delete(), deleted(false, 1));
    story.whole(put("a"), changed(1, 2));
    story.whole(Call::Get, got("a", 1, 2));
    let length = Answer::Changed {
        revision: 5,
        version: 2,
        length: Some(2),
        previous: Previous::Was(seen("a", 1, 2)),
    };
    story.whole(append("b"), length);
    story.whole(
        put_if("x", Condition::ModRevision(2)),
        Answer::Refused { previous: Previous::Was(seen("ab", 2, 5)) },
    );
    story.whole(put_if("c", Condition::ModRevision(5)), changed(3, 6));
    story.whole(put_if("d", Condition::Version(3)), changed(4, 8));
    story.whole(put_if("e", Condition::Value(b"d".to_vec())), changed(5, 9));
    story.whole(delete(), deleted(true, 10));
    story.whole(put_if("x", Condition::Version(1)), refused());
    story.whole(put_if("f", Condition::ModRevision(0)), changed(1, 11));
    story.whole(Call::Get, got("f", 1, 11));
    story.good();
}

/// A write, then one answer that only a broken store gives.
fn after_put(call: Call, answer: Answer) -> Story {
    let mut story = Story::default();
    story.whole(put("a"), changed(1, 2));
    story.whole(put("b"), changed(2, 3));
    story.whole(call, answer);
    story
}

#[test]
fn answers_that_no_register_gives() {
    after_put(Call::Get, got("b", 2, 3)).good();
    let wrong = [
        // A stale read; a lost write; a value of nobody; a wrong version or revision.
        (Call::Get, got("a", 1, 2)),
        (Call::Get, Answer::Got(None)),
        (Call::Get, got("x", 2, 3)),
        (Call::Get, got("b", 1, 3)),
        (Call::Get, got("b", 2, 4)),
        // A version twice, a version left out, a revision that goes back.
        (put("c"), changed(2, 4)),
        (put("c"), changed(4, 4)),
        (put("c"), changed(3, 3)),
        // A comparison that holds and is refused, or fails and is not.
        (put_if("c", Condition::ModRevision(3)), refused()),
        (put_if("c", Condition::ModRevision(2)), changed(3, 4)),
        (put_if("c", Condition::Version(0)), changed(3, 4)),
        (put_if("c", Condition::Value(b"a".to_vec())), changed(3, 4)),
        (put("c"), refused()),
        (
            append("c"),
            Answer::Changed { revision: 4, version: 3, length: Some(3), previous: Previous::Untold },
        ),
        (delete(), deleted(false, 3)),
        (delete(), deleted(true, 3)),
        (put("c"), Answer::Changed { revision: 4, version: 3, length: None, previous: Previous::Missing }),
    ];
    for (call, answer) in wrong {
        after_put(call, answer).bad();
    }
}

#[test]
fn what_is_concurrent_may_come_in_either_order() {
    let mut story = Story::default();
    let first = story.invoke(put("a"));
    let second = story.invoke(put("b"));
    let read = story.invoke(Call::Get);
    story.done(second, changed(1, 2));
    story.done(read, got("b", 1, 2));
    story.done(first, changed(2, 3));
    story.whole(Call::Get, got("a", 2, 3));
    story.good();
    story.whole(Call::Get, got("b", 1, 2));
    story.bad();
}

#[test]
fn reads_that_go_back_in_time() {
    let mut story = Story::default();
    let write = story.invoke(put("a"));
    story.whole(Call::Get, got("a", 1, 2));
    story.good();
    // The write is still not answered, but it has been seen.
    story.whole(Call::Get, Answer::Got(None));
    story.done(write, changed(1, 2));
    story.bad();
}

#[test]
fn two_leaders_that_both_accept() {
    let mut story = Story::default();
    story.whole(put("a"), changed(1, 2));
    let (old, new) = (story.invoke(put("old")), story.invoke(put("new")));
    story.done(old, changed(2, 3));
    story.done(new, changed(2, 3));
    story.bad();

    // Both comparisons saw the same revision.
    let mut story = Story::default();
    story.whole(put("a"), changed(1, 2));
    let condition = Condition::ModRevision(2);
    let (old, new) = (story.invoke(put_if("old", condition.clone())), story.invoke(put_if("new", condition)));
    story.done(old, changed(2, 3));
    story.done(new, changed(2, 4));
    story.bad();
}

#[test]
fn an_unknown_write_takes_effect_once_at_any_time_or_never() {
    let begin = || {
        let mut story = Story::default();
        story.unknown(put("u"));
        story.whole(put("a"), changed(1, 2));
        story
    };
    begin().good();
    let mut late = begin();
    late.whole(Call::Get, got("u", 2, 7));
    late.good();
    late.whole(put("b"), changed(3, 7));
    late.bad();
    let mut gone = begin();
    gone.whole(Call::Get, got("u", 2, 7));
    gone.whole(put("b"), changed(3, 8));
    gone.good();
    gone.whole(Call::Get, got("u", 4, 9));
    gone.bad();
    // A comparison finds the revision of an unknown write out, or is refused by it.
    let mut compared = begin();
    compared.whole(put_if("c", Condition::ModRevision(5)), changed(3, 6));
    compared.good();
    let mut compared = begin();
    compared.whole(put_if("c", Condition::ModRevision(2)), refused());
    compared.good();
    let mut before = Story::default();
    before.whole(Call::Get, got("u", 1, 2));
    before.unknown(put("u"));
    before.bad();
}

#[test]
fn what_was_not_executed_is_never_seen() {
    let mut story = Story::default();
    let id = story.invoke(put("a"));
    story.end(id, Outcome::NotExecuted);
    story.whole(Call::Get, Answer::Got(None));
    story.good();
    story.whole(Call::Get, got("a", 1, 2));
    story.bad();
}

#[test]
fn an_append_that_was_applied_twice() {
    let appended = |length| {
        let mut story = Story::default();
        story.whole(append("1;"), changed(1, 2));
        story.unknown(append("2;"));
        let answer =
            Answer::Changed { revision: 9, version: 3, length: Some(length), previous: Previous::Untold };
        story.whole(append("3;"), answer);
        story
    };
    appended(6).good();
    appended(8).bad();
    let mut story = appended(6);
    story.whole(Call::Get, got("1;2;3;2;", 4, 10));
    story.bad();
    let mut story = appended(6);
    story.whole(Call::Get, got("1;2;3;", 3, 9));
    story.good();
}

#[test]
fn a_violation_tells_its_story() {
    let story = after_put(Call::Get, got("a", 1, 2));
    let Verdict::Violation(violation) = story.verdict() else { panic!("a stale read is found") };
    assert_eq!(violation.explained, [OperationId(0), OperationId(1)]);
    assert_eq!(violation.stuck, [OperationId(2)]);
    assert_eq!(
        violation.to_string(),
        "no order explains the answers of key \"k\"\n\
         the longest that explains some:\n  \
         #0 client 1 [10..20 us] put \"a\" \"k\" -> version 1, revision 2\n  \
         #1 client 1 [30..40 us] put \"b\" \"k\" -> version 2, revision 3\n\
         next should come one of these, and none fits:\n  \
         #2 client 1 [50..60 us] get \"k\" -> \"a\" (version 1, revision 2)\n"
    );
}

/// A store that is right but for its fault, its clients slow: it applies each operation at a moment between
/// its two events.
struct Store {
    random: Random,
    register: Option<Seen>,
    revision: u64,
    /// Changes until it does something wrong, and what.
    fault: Option<(u64, StoreFault)>,
}

/// What a store may do wrong, once.
#[derive(Clone, Copy, Debug)]
enum StoreFault {
    /// It acknowledges a change and forgets it.
    LosesChange,
    /// It applies a change twice, and answers the second time.
    AppliesTwice,
    /// A change is made of what was there before the last one, which is gone.
    TwoLeaders,
}

impl Store {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), register: None, revision: 1, fault: None }
    }

    fn change(&mut self, value: Vec<u8>) -> Answer {
        // Other keys of the shard make revisions too.
        self.revision += 1 + self.random.below(2);
        let version = self.register.as_ref().map_or(0, |seen| seen.version) + 1;
        let length = Some(value.len() as u64);
        self.register = Some(Seen { value, version, mod_revision: self.revision });
        Answer::Changed { revision: self.revision, version, length, previous: Previous::Untold }
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Always => true,
            Condition::ModRevision(wanted) => {
                self.register.as_ref().map_or(0, |seen| seen.mod_revision) == *wanted
            }
            Condition::Version(wanted) => self.register.as_ref().map_or(0, |seen| seen.version) == *wanted,
            Condition::Value(wanted) => self.register.as_ref().is_some_and(|seen| seen.value == *wanted),
        }
    }

    /// Applies an operation, rightly or, when its time has come, wrongly.
    fn answer(&mut self, call: &Call) -> Answer {
        let (before, revision) = (self.register.clone(), self.revision);
        let answer = self.apply(call);
        let left = self.fault.map(|(left, fault)| (left.saturating_sub(1), fault));
        match (self.fault, call) {
            (None, _) | (_, Call::Get) => answer,
            (Some((1.., _)), _) => {
                self.fault = left;
                answer
            }
            (Some((0, StoreFault::LosesChange)), _) => {
                (self.register, self.fault) = (before, None);
                answer
            }
            (Some((0, StoreFault::AppliesTwice)), _) => {
                self.fault = None;
                self.apply(call)
            }
            (Some((0, StoreFault::TwoLeaders)), _) => {
                (self.register, self.revision, self.fault) = (before, revision, None);
                let other = Call::Append { value: b"x".to_vec(), condition: Condition::Always };
                self.apply(&other);
                answer
            }
        }
    }

    fn apply(&mut self, call: &Call) -> Answer {
        match call {
            Call::Get => Answer::Got(self.register.clone()),
            Call::Put { condition, .. } | Call::Append { condition, .. } | Call::Delete { condition }
                if !self.holds(condition) =>
            {
                Answer::Refused { previous: self.register.clone().map_or(Previous::Missing, Previous::Was) }
            }
            Call::Put { value, .. } => self.change(value.clone()),
            Call::Append { value, .. } => {
                let mut whole = self.register.as_ref().map_or(Vec::new(), |seen| seen.value.clone());
                whole.extend_from_slice(value);
                self.change(whole)
            }
            Call::Delete { .. } => {
                let existed = self.register.is_some();
                if existed {
                    self.revision += 1;
                }
                self.register = None;
                Answer::Deleted { revision: self.revision, existed, previous: Previous::Untold }
            }
        }
    }

    fn call(&mut self, number: u64) -> Call {
        let value = token(Client(1), number);
        let shown = self.register.as_ref().map_or((0, 0), |seen| (seen.mod_revision, seen.version));
        match self.random.below(10) {
            0..4 => Call::Get,
            4..6 => Call::Put { value, condition: Condition::Always },
            6 => Call::Put { value, condition: Condition::ModRevision(shown.0 + self.random.below(2)) },
            7 => Call::Append { value, condition: Condition::Version(shown.1) },
            8 => Call::Append { value, condition: Condition::Always },
            _ => Call::Delete { condition: Condition::Always },
        }
    }
}

/// What one client of a random history is doing.
enum Doing {
    Nothing,
    Asking(OperationId, Call),
    Answered(OperationId, Answer),
    /// Nobody waits any more, and it is applied later or never.
    Forgotten(Call),
}

/// A history of a store: so many operations by so many clients, one in `unknown_of` of unknown outcome.
fn history_of(mut store: Store, operations: u64, clients: usize, unknown_of: u64) -> History {
    let mut doing: Vec<Doing> = (0..clients).map(|_| Doing::Nothing).collect();
    let mut story = Story::default();
    let mut asked = 0;
    while asked < operations || doing.iter().any(|doing| !matches!(doing, Doing::Nothing)) {
        let client = store.random.index(clients);
        let unknown = store.random.below(unknown_of) == 0;
        let now = std::mem::replace(&mut doing[client], Doing::Nothing);
        doing[client] = match now {
            Doing::Nothing if asked == operations => Doing::Nothing,
            Doing::Nothing => {
                asked += 1;
                let call = store.call(asked);
                Doing::Asking(story.invoke(call.clone()), call)
            }
            Doing::Asking(id, call) if unknown => {
                story.end(id, Outcome::Unknown);
                Doing::Forgotten(call)
            }
            Doing::Asking(id, call) => Doing::Answered(id, store.answer(&call)),
            Doing::Answered(id, answer) => {
                story.done(id, answer);
                Doing::Nothing
            }
            Doing::Forgotten(call) if store.random.below(2) == 0 => {
                store.apply(&call);
                Doing::Nothing
            }
            Doing::Forgotten(_) => Doing::Nothing,
        };
    }
    story.history
}

#[test]
fn histories_of_a_right_store_are_linearizable() {
    for seed in 0..150 {
        let history = history_of(Store::new(seed), 200, 5, 12);
        let verdict = check(&history, STATES_MAX);
        assert!(matches!(verdict, Verdict::Linearizable { .. }), "seed {seed}: {verdict:?}");
    }
}

#[test]
fn a_large_history_takes_about_as_many_states_as_operations() {
    let history = history_of(Store::new(1), 20_000, 8, 100);
    let verdict = check(&history, STATES_MAX);
    assert!(matches!(verdict, Verdict::Linearizable { states } if states < 60_000), "{verdict:?}");
}

/// Makes one more read, at the end, show what an earlier read did; `None` where a later one shows that this
/// is past.
fn with_stale_read(mut history: History) -> Option<History> {
    let is_read =
        |operation: &&Operation| matches!(operation.outcome, Outcome::Answered(Answer::Got(Some(_))));
    let reads: Vec<&Operation> = history.operations().iter().filter(is_read).collect();
    let last = reads.last()?;
    let is_past = |read: &&&Operation| {
        read.ended.is_some_and(|ended| ended < last.invoked) && read.outcome != last.outcome
    };
    let stale = reads.iter().rev().find(is_past)?.outcome.clone();
    let id = history.invoke(Client(9), b"k", Call::Get, u64::MAX);
    history.end(id, stale, u64::MAX);
    Some(history)
}

#[test]
fn a_stale_read_is_found_in_histories_with_unknown_outcomes() {
    let mut tried = 0;
    for seed in 0..100 {
        let (operations, unknown_of) = if seed < 50 { (60, 12) } else { (400, 25) };
        let history = history_of(Store::new(seed), operations, 4, unknown_of);
        let Some(history) = with_stale_read(history) else { continue };
        tried += 1;
        let verdict = check(&history, STATES_MAX);
        assert!(matches!(verdict, Verdict::Violation(_)), "seed {seed}: {verdict:?}");
    }
    assert!(tried > 90, "{tried} histories have a read that can be repeated");
}

#[test]
fn histories_of_wrong_stores_are_not_linearizable() {
    for fault in [StoreFault::LosesChange, StoreFault::AppliesTwice, StoreFault::TwoLeaders] {
        let mut found = 0;
        for seed in 0..100 {
            let store = Store { fault: Some((50 + seed % 20, fault)), ..Store::new(seed) };
            let history = history_of(store, 120, 4, 20);
            match check(&history, STATES_MAX) {
                Verdict::Violation(_) => found += 1,
                Verdict::Linearizable { .. } => {}
                Verdict::Undecided { .. } => panic!("seed {seed}: {fault:?} is undecided"),
            }
        }
        // The rest lost, repeated or split what nobody could notice: an operation of unknown outcome, a
        // refusal.
        assert!(found >= 50, "{fault:?} was found in {found} of 100 histories");
    }
}

/// Whether any order explains a small history, by trying them all.
fn brute_force(operations: &[Operation]) -> bool {
    fn explained(left: &[&Operation], register: &Register) -> bool {
        if left.iter().all(|operation| !matches!(operation.outcome, Outcome::Answered(_))) {
            return true;
        }
        left.iter().enumerate().any(|(index, operation)| {
            let must_wait = left.iter().any(|other| {
                matches!(other.outcome, Outcome::Answered(_))
                    && other.ended.is_some_and(|ended| ended < operation.invoked)
            });
            let after = match &operation.outcome {
                Outcome::Answered(answer) => register.answer(&operation.call, answer),
                Outcome::Unknown => register.apply(&operation.call),
                Outcome::NotExecuted => None,
            };
            let mut rest = left.to_vec();
            rest.remove(index);
            !must_wait && after.is_some_and(|after| explained(&rest, &after))
        })
    }
    explained(&operations.iter().collect::<Vec<_>>(), &Register::new())
}

/// A small history whose answers are drawn, right or wrong.
fn drawn_history(random: &mut Random) -> History {
    let mut story = Story::default();
    let mut open: Vec<(OperationId, Call)> = Vec::new();
    let mut revision = 1;
    for _ in 0..12 {
        if open.len() < 3 && random.below(2) == 0 {
            let values = ["a", "b"];
            let call = match random.below(5) {
                0 | 1 => Call::Get,
                2 => put(values[random.index(2)]),
                3 => append("c"),
                _ => delete(),
            };
            open.push((story.invoke(call.clone()), call));
        } else if !open.is_empty() {
            let (id, call) = open.swap_remove(random.index(open.len()));
            revision += random.below(2);
            let version = 1 + random.below(3);
            let values = ["a", "b", "ac", "bc", "c"];
            let answer = match call {
                Call::Get if random.below(3) == 0 => Answer::Got(None),
                Call::Get => got(values[random.index(5)], version, revision.saturating_sub(random.below(2))),
                Call::Put { .. } | Call::Append { .. } => changed(version, revision),
                Call::Delete { .. } => deleted(random.below(2) == 0, revision),
            };
            let unknown = random.below(3) == 0;
            story.end(id, if unknown { Outcome::Unknown } else { Outcome::Answered(answer) });
        }
    }
    story.history
}

#[test]
fn the_search_agrees_with_brute_force() {
    let mut random = Random::new(11);
    let mut explained = 0;
    for round in 0..20_000 {
        let history = drawn_history(&mut random);
        let expected = brute_force(history.operations());
        explained += u32::from(expected);
        let verdict = check(&history, STATES_MAX);
        let found = matches!(verdict, Verdict::Linearizable { .. });
        assert_eq!(found, expected, "round {round}: {verdict:?}\n{:#?}", history.operations());
    }
    assert!((1000..19_000).contains(&explained), "{explained} of 20000 have an explanation");
}

#[test]
fn the_limit_of_states_gives_no_guess() {
    // Appends of unknown order; that the key was also put hides that it only grew.
    let mut story = Story::default();
    story.whole(put(""), changed(1, 2));
    let open: Vec<OperationId> = (0..5).map(|number| story.invoke(append(&format!("{number};")))).collect();
    for id in open {
        story.end(id, Outcome::Unknown);
    }
    story.whole(Call::Get, got("0;1;2;3;4;x;", 6, 99));
    assert!(matches!(check(&story.history, 100), Verdict::Undecided { ref key, .. } if key == b"k"));
    story.bad();
}

fn appended(story: &mut Story, number: u64) -> OperationId {
    let value = token(Client(1), number);
    let id = story.invoke(Call::Append { value, condition: Condition::Always });
    story.done(id, changed(number, number + 1));
    id
}

#[test]
fn appends_are_exactly_once() {
    let mut story = Story::default();
    let first = appended(&mut story, 1);
    let unknown = story.invoke(Call::Append { value: token(Client(1), 2), condition: Condition::Always });
    story.end(unknown, Outcome::Unknown);
    let refused = story.invoke(Call::Append { value: token(Client(1), 3), condition: Condition::Always });
    story.end(refused, Outcome::NotExecuted);
    let read_then = |answer: &str| {
        let mut story = Story { history: story.history.clone(), at_us: story.at_us };
        let read = story.invoke(Call::Get);
        story.done(read, got(answer, 1, 2));
        let later = appended(&mut story, 4);
        (read, later, check_appends(&story.history))
    };
    assert_eq!(read_then("1.1;").2, Ok(1));
    assert_eq!(read_then("1.1;1.2;").2, Ok(1));
    assert_eq!(read_then("1.2;1.1;").2, Ok(1));
    let (read, append, fault) = read_then("1.2;");
    assert_eq!(fault, Err(AppendFault::Lost { read, append: first }));
    assert_eq!(read_then("1.1;1.2;1.1;").2, Err(AppendFault::Twice { read, append: first }));
    assert_eq!(read_then("1.1;1.3;").2, Err(AppendFault::NotExecuted { read, append: refused }));
    assert_eq!(read_then("1.1;1.4;").2, Err(AppendFault::Early { read, append }));
    assert_eq!(read_then("1.1;9.9;").2, Err(AppendFault::Foreign { read, token: b"9.9;".to_vec() }));
    assert_eq!(read_then("1.1;1.").2, Err(AppendFault::Foreign { read, token: b"1.".to_vec() }));
}

#[test]
fn reads_of_appends_are_each_others_beginnings() {
    let mut story = Story::default();
    for number in 1..4 {
        let value = token(Client(1), number);
        let id = story.invoke(Call::Append { value, condition: Condition::Always });
        story.end(id, Outcome::Unknown);
    }
    let one = story.invoke(Call::Get);
    story.done(one, got("1.1;1.2;", 2, 3));
    let other = story.invoke(Call::Get);
    story.done(other, got("1.1;1.3;1.2;", 3, 4));
    assert_eq!(check_appends(&story.history), Err(AppendFault::Diverged { read: one, longest: other }));
    story.bad();
}
