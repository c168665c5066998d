//! Runs seeds of the simulator: `cargo run --profile sim -p sim -- --seeds 1000`.

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use sim::run::{Options, run};
use sim::trace::Text;

/// Runs whole clusters under faults, one seed a run.
#[derive(Debug, Parser)]
struct Args {
    /// Run this one seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many fresh seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them; drawn from the time of day where it is not given.
    #[arg(long, requires = "seeds")]
    from: Option<u64>,
    /// Make this classic mistake on purpose.
    #[arg(long)]
    planted_bug: Option<String>,
    /// Let disks fill up too.
    #[arg(long)]
    full_disks: bool,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let text = if args.trace { Text::Printed } else { Text::None };
    let mut options = Options { text, disks_fill: args.full_disks, ..Options::default() };
    if let Some(name) = &args.planted_bug
        && let Err(error) = sim::plant(&mut options, name)
    {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs() * 1_000_003);
    let (first, count) = match (args.seed, args.seeds) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (args.from.unwrap_or_else(fresh), count.unwrap_or(10)),
    };
    let began = Instant::now();
    let mut failed = 0;
    for seed in first..first + count {
        match run(seed, &options) {
            Ok(report) => {
                println!(
                    "seed {seed}: ok, {} operations in {:.1?} of simulated time, trace {:016x}",
                    report.operations, report.elapsed, report.trace_hash
                );
            }
            Err(failure) => {
                failed += 1;
                let bug = args
                    .planted_bug
                    .as_ref()
                    .map_or_else(String::new, |name| format!(" --planted-bug {name}"));
                println!("seed {seed}: {failure}");
                let disks = if args.full_disks { " --full-disks" } else { "" };
                println!("repeat it: cargo run --profile sim -p sim -- --seed {seed}{bug}{disks}");
            }
        }
    }
    println!("{count} seeds, {failed} failed, {:.1?}", began.elapsed());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
