//! Whole clusters under trouble: a fixed range of seeds, every seed that ever failed, and one seed twice.

use sim::run::{Options, run};

/// Seeds of the fixed range, run by two tests so that two cores share them.
const SEEDS: u64 = 1400;

/// Seeds that once found a fault, of the product or of the simulator itself.
const ONCE_FAILED: [u64; 10] = [113, 168, 226, 444, 809, 5036, 5042, 5457, 5575, 701_243];

fn run_all(seeds: impl Iterator<Item = u64>) {
    let failed: Vec<String> = seeds.filter_map(failure).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn failure(seed: u64) -> Option<String> {
    let failure = run(seed, &Options::default()).err()?;
    Some(format!("seed {seed}: {failure}\nrepeat it: cargo run --profile sim -p sim -- --seed {seed}"))
}

#[test]
fn even_seeds_pass() {
    run_all((0..SEEDS).step_by(2));
}

#[test]
fn odd_seeds_pass() {
    run_all((1..SEEDS).step_by(2));
}

#[test]
fn seeds_that_once_failed_pass() {
    run_all(ONCE_FAILED.into_iter());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 4, 5] {
        let hash = |()| {
            run(seed, &Options::default()).map(|report| report.trace_hash).map_err(|error| error.to_string())
        };
        let (first, second) = (hash(()), hash(()));
        assert!(first.is_ok(), "seed {seed}: {first:?}");
        assert_eq!(first, second, "seed {seed} ran differently the second time");
    }
}
