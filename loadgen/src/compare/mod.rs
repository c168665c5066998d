//! Two targets measured in turn, and their ratios: `--compare`.
//!
//! ```text
//! reach both ─► load both (--preload) ─► round 1: A, B ─► round 2: B, A ─► round 3: A, B ─► ...
//! ```
//! A machine drifts: it warms up, a disk fills, a neighbour wakes. So the two are measured in turn, and every
//! second round begins with the other one: what drifts steadily befalls both alike. A ratio is taken within a
//! round, where the two runs are neighbours, and the result is the median of these.
//!
//! Invariants:
//! - A round counts with both its runs or not at all.
//! - The first run that fails ends the comparison: rounds without it would say that it went well.
//! - Nothing is printed while a run goes on, but for one line on a terminal.
//!
//! It lives on the supervisor's thread, as a single run does (see [`run`](crate::run)).

pub mod json;
pub mod page;
mod report;
mod side;
mod statistics;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::watch;

use crate::args::{Output, Settings, Versus};
use crate::record::Measured;
use crate::report::Report;
use crate::run::{self, EXIT_FAILED, Reached, RunError};
use crate::several::{self, Stop};
pub use side::Comparison;

/// Runs to the end.
pub fn run(settings: Settings, versus: Versus) -> ExitCode {
    eprint!("{}", report::header(&settings, &versus));
    let settings = Arc::new(settings);
    let sides = [Arc::clone(&settings), Arc::clone(&versus.settings)];
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("loadgen: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let (comparison, ended) = runtime.block_on(async {
        let stopped = several::stopped();
        compare(sides, &versus, stopped, &mut tell).await
    });
    finish(&comparison, &versus, &ended)
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Both sides answered.
    Reached,
    /// Both are loaded, where that was asked for, and the first round begins.
    Begins,
    /// A side begins its run of a round, counted from 1.
    Runs {
        /// Which side.
        side: usize,
        /// Which round.
        round: usize,
    },
    /// A round was added.
    Added,
}

fn tell(comparison: &Comparison, step: Step) {
    let is_terminal = std::io::stderr().is_terminal();
    match step {
        Step::Reached => eprint!("{}", report::servers(comparison)),
        Step::Begins => eprint!("{}", report::heading(comparison)),
        Step::Runs { side, round } if is_terminal => {
            // The next line is written over it.
            let (wanted, label) = (comparison.rounds_wanted, &comparison.sides[side].label);
            eprint!("\x1b[2K  {:<12} {label} runs\r", format!("{round} of {wanted}"));
        }
        Step::Runs { .. } => {}
        Step::Added if is_terminal => eprint!("\x1b[2K{}", report::round(comparison)),
        Step::Added => eprint!("{}", report::round(comparison)),
    }
}

/// How a comparison ended.
#[derive(Debug)]
pub enum Ended {
    /// With its last round.
    Whole,
    /// Nobody wanted it any longer.
    Interrupted,
    /// With a side that failed.
    Failed(Failed),
}

/// What failed.
#[derive(Debug)]
pub struct Failed {
    /// Which side.
    pub side: usize,
    /// In which round, counted from 1; `None`: before the first.
    pub round: Option<usize>,
    /// How.
    pub why: Why,
}

/// How a side fails.
#[derive(Debug)]
pub enum Why {
    /// There was no run.
    None(RunError),
    /// There was one, and it counts as failed: why, and what came of it.
    Verdict(String, Box<Measured>),
}

/// Measures the sides in turn. Gives the whole rounds.
pub async fn compare(
    sides: [Arc<Settings>; 2],
    versus: &Versus,
    mut stopped: watch::Receiver<bool>,
    tell: &mut dyn FnMut(&Comparison, Step),
) -> (Comparison, Ended) {
    let quiet = sides.clone().map(|settings| Arc::new(Settings { quiet: true, ..(*settings).clone() }));
    let mut comparison = Comparison::new(quiet.clone(), [None, None], versus.rounds);
    let mut abouts = [None, None];
    let mut routings = Vec::new();
    for side in 0..2 {
        match several::reach(&sides[side], &mut stopped).await {
            Ok(Reached { routing, about, .. }) => {
                abouts[side] = about;
                routings.push(routing);
            }
            Err(stop) => return (comparison, ended(stop, side, None)),
        }
    }
    comparison = Comparison::new(quiet, abouts, versus.rounds);
    tell(&comparison, Step::Reached);
    for (side, routing) in routings.into_iter().enumerate() {
        if sides[side].preload
            && let Err(error) = run::preload(&sides[side], routing).await
        {
            return (comparison, ended(Stop::Failed(error), side, None));
        }
    }
    tell(&comparison, Step::Begins);
    let how = rounds(&mut comparison, versus, stopped, tell).await;
    (comparison, how)
}

/// Measures round after round.
async fn rounds(
    comparison: &mut Comparison,
    versus: &Versus,
    mut stopped: watch::Receiver<bool>,
    tell: &mut dyn FnMut(&Comparison, Step),
) -> Ended {
    // A preload is followed by a pause as a run is.
    let mut is_first = !comparison.sides.iter().any(|side| side.settings.preload);
    for round in 1..=versus.rounds {
        let mut measured = [None, None];
        for side in order(round) {
            if !is_first && let Err(stop) = several::pause(versus.pause, &mut stopped).await {
                return ended(stop, side, Some(round));
            }
            is_first = false;
            tell(comparison, Step::Runs { side, round });
            match one_run(&comparison.sides[side].settings, (side, round), &mut stopped).await {
                Ok(run) => measured[side] = Some(run),
                Err(ended) => return ended,
            }
        }
        if let [Some(one), Some(other)] = measured {
            comparison.add(&[one, other]);
            tell(comparison, Step::Added);
        }
    }
    Ended::Whole
}

/// Which side runs first in a round, counted from 1, and which then.
fn order(round: usize) -> [usize; 2] {
    if round.is_multiple_of(2) { [1, 0] } else { [0, 1] }
}

/// How the comparison ends with a run that is none.
fn ended(stop: Stop, side: usize, round: Option<usize>) -> Ended {
    match stop {
        Stop::Interrupted => Ended::Interrupted,
        Stop::Failed(error) => Ended::Failed(Failed { side, round, why: Why::None(error) }),
    }
}

/// One run of a side. It counts if it went well.
async fn one_run(
    settings: &Arc<Settings>,
    (side, round): (usize, usize),
    stopped: &mut watch::Receiver<bool>,
) -> Result<Measured, Ended> {
    let measured = several::measured(settings, stopped).await;
    let measured = measured.map_err(|stop| ended(stop, side, Some(round)))?;
    match (Report { settings, measured: &measured }).verdict() {
        Ok(()) => Ok(measured),
        Err(why) => {
            let why = Why::Verdict(why, Box::new(measured));
            Err(Ended::Failed(Failed { side, round: Some(round), why }))
        }
    }
}

/// Writes the results of the rounds that there are, and says how it ended.
fn finish(comparison: &Comparison, versus: &Versus, ended: &Ended) -> ExitCode {
    let settings = &comparison.sides[0].settings;
    let mut code = match ended {
        Ended::Whole => 0,
        Ended::Interrupted if comparison.rounds() > 0 => 0,
        Ended::Interrupted => EXIT_FAILED,
        Ended::Failed(failed) => failed.exit_code(),
    };
    if matches!(ended, Ended::Interrupted) {
        let (rounds, wanted) = (comparison.rounds(), comparison.rounds_wanted);
        eprintln!("loadgen: interrupted: {rounds} of {wanted} rounds were made");
    }
    if comparison.rounds() > 0 {
        match settings.output {
            Output::Table => {
                // The rounds stand above it on a terminal, but not in a file.
                eprintln!();
                print!("{}", report::table(comparison));
            }
            Output::Json => {
                eprint!("{}", report::notes(comparison));
                println!("{}", json::of(comparison, versus));
            }
        }
        if let Some((path, file)) = &settings.html
            && let Err(error) = (&**file).write_all(page::of(comparison).as_bytes())
        {
            eprintln!("loadgen: {}: {error}", path.display());
            code = EXIT_FAILED;
        }
    }
    if let Ended::Failed(failed) = ended {
        eprint!("{}", failed.told(comparison));
    }
    ExitCode::from(code)
}

impl Failed {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match &self.why {
            Why::None(error) => error.exit_code(),
            Why::Verdict(..) => EXIT_FAILED,
        }
    }

    /// Which side failed, when and how.
    pub fn told(&self, comparison: &Comparison) -> String {
        let side = &comparison.sides[self.side];
        let when = self.round.map(|round| format!(", round {round}")).unwrap_or_default();
        let whose = format!("loadgen: {}{when}", side.label);
        match &self.why {
            Why::None(error) => format!("{whose}: {}\n", error.told(&side.settings)),
            Why::Verdict(why, measured) => {
                let report = Report { settings: &side.settings, measured };
                format!("{whose}: {why}\n{}", report.notes())
            }
        }
    }
}
