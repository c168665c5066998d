//! Every classic mistake that the simulator is to find, it finds: recorded seeds.
//!
//! A seed finds its mistake as long as the run goes the same way; whatever changes the runs may move it. So
//! the search begins at the recorded seed and goes on for some more, and says where it found the mistake.
#![cfg(debug_assertions)]

use sim::run::{Failure, Options, run};

/// Seeds that are tried, the recorded one first.
const TRIES: u64 = 150;

/// The mistakes, and the seed from which on each is found.
const PLANTED: [(&str, u64); 18] = [
    ("ReplyFromDeposedLeader", 1),
    ("ResentWithoutAnswer", 5),
    ("RepeatsAdmitted", 5),
    ("ReadBeforeApplied", 3),
    ("AcknowledgeBeforeWrite", 1),
    ("OwnCopyCountedEarly", 1),
    ("ReadBeforeFirstCommit", 3),
    ("CommitBeyondMatch", 5),
    ("SessionsLostOnRestart", 1),
    ("WipedVotesInForgottenTerm", 1),
    ("AnswerNotStored", 1),
    ("AppendNotIdempotent", 1),
    ("RecoveryActsOnUnsynced", 6),
    ("CutNotRecorded", 1),
    ("CompletedBeforeWrite", 13),
    ("BlockRewritten", 9),
    ("client::NotExecutedAfterLostSending", 1),
    ("client::ResendWithNewSequence", 1),
];

fn find(name: &str, first: u64) -> Option<(u64, Failure)> {
    let mut options = Options::default();
    sim::plant(&mut options, name).expect("a mistake that can be planted");
    (first..first + TRIES).find_map(|seed| run(seed, &options).err().map(|failure| (seed, failure)))
}

fn find_all(of: impl Iterator<Item = &'static (&'static str, u64)>) {
    for (name, first) in of {
        let found = find(name, *first);
        let Some((seed, failure)) = found else { panic!("{name} is not found from seed {first} on") };
        let text = failure.to_string();
        println!("{name}: seed {seed}: {}", text.lines().next().unwrap_or_default());
        let clean = run(seed, &Options::default());
        assert!(clean.is_ok(), "seed {seed} fails without {name} too: {:?}", clean.err());
    }
}

#[test]
fn half_of_the_mistakes_are_found() {
    find_all(PLANTED.iter().step_by(2));
}

#[test]
fn and_the_other_half() {
    find_all(PLANTED.iter().skip(1).step_by(2));
}
