//! Random clusters of one, three and five replicas under loss, reordering, repetition, slow disks and
//! crashes.
//!
//! A failure names its seed; `RAFT_FUZZ_SEED=N cargo test --test raft_fuzz` runs that one alone,
//! `RAFT_FUZZ_SEEDS=N` sets how many are run.

mod raft_harness;

use raft_harness::chaos::{config_of, run};

const STEPS: usize = 2500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a seed is a number"))
}

#[test]
fn random_runs_keep_every_rule() {
    let seeds = match setting("RAFT_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("RAFT_FUZZ_SEEDS").unwrap_or(150),
    };
    let mut committed = 0;
    for seed in seeds.clone() {
        match run(seed, config_of(seed), STEPS) {
            Ok(chaos) => committed += chaos.cluster.checks.committed_index().0,
            Err(failure) => panic!("{failure}\nrepeat: RAFT_FUZZ_SEED={seed} cargo test --test raft_fuzz"),
        }
    }
    let count = seeds.end - seeds.start;
    assert!(committed >= 10 * count, "only {committed} entries were committed in {count} runs");
}

#[test]
fn one_seed_is_one_run() {
    let events = || run(7, config_of(7), 500).map(|chaos| chaos.cluster.events);
    assert_eq!(events(), events());
}
