//! Every classic mistake that the simulator is to find, it finds: recorded seeds.
//!
//! A seed finds its mistake as long as the run goes the same way; whatever changes the runs may move it. So
//! the search begins at the recorded seed and goes on for some more, and says where it found the mistake.
#![cfg(debug_assertions)]

use sim::run::{Options, run};

/// Seeds that are tried, the recorded one first.
const TRIES: u64 = 150;

/// The mistakes, and the seed from which on each is found.
const PLANTED: [(&str, u64); 27] = [
    ("ReplyFromDeposedLeader", 1),
    ("ResentWithoutAnswer", 5),
    ("RepeatsAdmitted", 5),
    ("ReadBeforeApplied", 3),
    ("ReadServedByAnyNode", 6),
    ("AcknowledgeBeforeWrite", 1),
    ("OwnCopyCountedEarly", 1),
    ("ReadBeforeFirstCommit", 3),
    ("CommitBeyondMatch", 5),
    ("SessionsLostOnRestart", 1),
    ("WipedVotesInForgottenTerm", 221),
    ("SessionsMissingFromTable", 1),
    ("AppliedIndexApartFromState", 1),
    ("LogReleasedBeforeTable", 1),
    ("HardStateLostWithSegment", 16),
    ("OldCopyWins", 1),
    ("DirectoryNotSynced", 16),
    ("HeaderKept", 1),
    ("StaleBatchAccepted", 1),
    ("AnswerNotStored", 1),
    ("AppendNotIdempotent", 1),
    ("RecoveryActsOnUnsynced", 167),
    ("CutNotRecorded", 1),
    ("CompletedBeforeWrite", 13),
    ("BlockRewritten", 9),
    ("client::NotExecutedAfterLostSending", 1),
    ("client::ResendWithNewSequence", 1),
];

/// The first seed that finds a mistake, and how: by what was checked, or by an assertion of the product.
fn find(name: &str, first: u64) -> Option<(u64, String)> {
    let mut options = Options::default();
    sim::plant(&mut options, name).expect("a mistake that can be planted");
    let found = |seed| match std::panic::catch_unwind(|| run(seed, &options)) {
        Ok(Ok(_)) => None,
        Ok(Err(failure)) => Some(failure.to_string()),
        Err(_) => Some("an assertion failed".to_owned()),
    };
    (first..first + TRIES).find_map(|seed| found(seed).map(|how| (seed, how)))
}

fn find_all(of: impl Iterator<Item = &'static (&'static str, u64)>) {
    for (name, first) in of {
        let found = find(name, *first);
        let Some((seed, how)) = found else { panic!("{name} is not found from seed {first} on") };
        println!("{name}: seed {seed}: {}", how.lines().next().unwrap_or_default());
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
