//! The highest rate that holds a limit on latency: `--find-max`.
//!
//! ```text
//! a closed loop: the ceiling ─► trials in an open loop, each with a rate of its own ─► the rate that holds
//! ```
//! Latency says little without a rate, and the rate of a closed loop little without a limit: there every call
//! waits for the one before. So trials run in an open loop, where latency counts from the moment that the
//! schedule names, and [`Search`] says which rate is next.
//!
//! A trial holds where its latencies are within the limits, its errors within `--errors-max-percent`, and the
//! rate was reached: else a backlog grew, and only was not long enough yet to show. What loadgen itself
//! lacked makes a latency longer, never shorter, so a trial holds all the same; but it is told, or loadgen's
//! own limit would pass for the server's.
//!
//! Invariants:
//! - Every trial is told, in a line while it goes on and in the result, the failed ones with their reasons.
//! - The result was held by a trial of twice the duration.
//!
//! It lives on the supervisor's thread, as a single run does (see [`run`](crate::run)).

pub mod page;
pub mod report;
mod search;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::watch;

use crate::args::{FindMax, Limits, Output, Settings};
use crate::control::About;
use crate::header::{self, header};
use crate::host::Host;
use crate::record::Measured;
use crate::run::{self, EXIT_FAILED, Reached, RunError};
use crate::several::{self, Stop};
use crate::{units, warnings};
use search::{Next, Search};

/// The share of the wanted rate that has to be reached.
const REACHED: f64 = 0.98;
/// How much longer the last trial is.
const CONFIRMED_TIMES: u32 = 2;

/// Runs to the end.
pub fn run(settings: Settings, wanted: &FindMax) -> ExitCode {
    eprint!("{}", header(&settings, &Host::here()));
    eprint!("{}", header::row("limit", &wanted.limits.to_string()));
    let settings = Arc::new(settings);
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("loadgen: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let (knee, ended) = runtime.block_on(async {
        let stopped = several::stopped();
        find(&settings, wanted, stopped, &mut tell).await
    });
    finish(&knee, &ended)
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// The cluster answered: what it is, where it tells.
    Reached(Option<&'a About>),
    /// It is loaded, where that was asked for, and the first trial begins.
    Begins,
    /// A trial was made.
    Tried(&'a Trial),
}

fn tell(step: Step<'_>) {
    match step {
        Step::Reached(about) => eprint!("{}", header::row("server", &header::server(about))),
        Step::Begins => eprint!("{}", header::row("trial", &report::heads())),
        Step::Tried(trial) => eprint!("{}", header::row(trial.kind.name(), &report::line(trial))),
    }
}

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A closed loop: what the server comes to without a limit.
    Ceiling,
    /// Whether a rate holds.
    Probe,
    /// Whether it holds for longer.
    Confirm,
}

impl Kind {
    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "closed loop",
            Self::Probe => "probe",
            Self::Confirm => "confirm",
        }
    }
}

/// A trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it was for.
    pub kind: Kind,
    /// Calls a second that were wanted; of the closed loop none.
    pub rate: Option<u64>,
    /// Calls that succeeded, a second.
    pub reached_per_s: f64,
    /// p50 and the numbers that are limited, in nanoseconds, by name.
    pub times_ns: Vec<(String, f64)>,
    /// The percentiles of the chart, in nanoseconds.
    pub charted_ns: [f64; CHARTED.len()],
    /// Of all calls, in percent.
    pub errors_percent: f64,
    /// Why it does not hold. The closed loop is not judged.
    pub verdict: Result<(), String>,
    /// What loadgen itself lacked.
    pub warning: Option<String>,
}

/// The percentiles of the chart.
pub const CHARTED: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// What was found.
#[derive(Debug)]
pub struct Knee {
    /// Of the search.
    pub settings: Arc<Settings>,
    /// What a rate has to hold.
    pub limits: Limits,
    /// In the order made.
    pub trials: Vec<Trial>,
    /// The rate that was confirmed.
    pub found: Option<u64>,
    /// The run that the result shows, and what it was made with: the confirmed one, else the last.
    pub shown: Option<Shown>,
}

/// A run and its settings.
#[derive(Debug)]
pub struct Shown {
    /// Of this run.
    pub settings: Arc<Settings>,
    /// What came of it.
    pub measured: Measured,
}

/// How a search ended.
#[derive(Debug)]
pub enum Ended {
    /// As it does by itself.
    Whole,
    /// Nobody wanted it any longer.
    Interrupted,
    /// A run came to nothing.
    Failed(RunError),
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Interrupted => Self::Interrupted,
            Stop::Failed(error) => Self::Failed(error),
        }
    }
}

/// Searches.
pub async fn find(
    settings: &Arc<Settings>,
    wanted: &FindMax,
    mut stopped: watch::Receiver<bool>,
    tell: &mut dyn FnMut(Step<'_>),
) -> (Knee, Ended) {
    let (settings, limits) = (Arc::clone(settings), wanted.limits.clone());
    let mut knee = Knee { settings, limits, trials: Vec::new(), found: None, shown: None };
    let ended = match search_with(&mut knee, wanted, &mut stopped, tell).await {
        Ok(()) => Ended::Whole,
        Err(stop) => stop.into(),
    };
    (knee, ended)
}

async fn search_with(
    knee: &mut Knee,
    wanted: &FindMax,
    stopped: &mut watch::Receiver<bool>,
    tell: &mut dyn FnMut(Step<'_>),
) -> Result<(), Stop> {
    let Reached { routing, about, .. } = several::reach(&knee.settings, stopped).await?;
    tell(Step::Reached(about.as_ref()));
    if knee.settings.preload {
        run::preload(&knee.settings, routing).await.map_err(Stop::Failed)?;
    }
    tell(Step::Begins);
    let (ceiling_per_s, _) = one(knee, (Kind::Ceiling, None), stopped, tell).await?;
    let mut search = Search::new(ceiling_per_s);
    loop {
        let trial = match search.next() {
            Next::Probe { rate, .. } => (Kind::Probe, Some(rate)),
            Next::Confirm { rate } => (Kind::Confirm, Some(rate)),
            Next::End(found) => {
                knee.found = found;
                return Ok(());
            }
        };
        several::pause(wanted.pause, stopped).await?;
        let (_, holds) = one(knee, trial, stopped, tell).await?;
        search.tell(holds);
    }
}

/// Makes a trial, keeps it and tells of it. What it reached, and whether it holds.
async fn one(
    knee: &mut Knee,
    (kind, rate): (Kind, Option<u64>),
    stopped: &mut watch::Receiver<bool>,
    tell: &mut dyn FnMut(Step<'_>),
) -> Result<(f64, bool), Stop> {
    let settings = Arc::new(settings_of(&knee.settings, (kind, rate)));
    let measured = several::measured(&settings, stopped).await?;
    let trial = judged(&knee.limits, (kind, rate), &settings, &measured);
    let outcome = (trial.reached_per_s, trial.verdict.is_ok());
    tell(Step::Tried(&trial));
    knee.trials.push(trial);
    knee.shown = Some(Shown { settings, measured });
    Ok(outcome)
}

/// The settings of a trial.
fn settings_of(all: &Settings, (kind, rate): (Kind, Option<u64>)) -> Settings {
    let times = if kind == Kind::Confirm { CONFIRMED_TIMES } else { 1 };
    let of_trials = all.find_max.as_ref().map(|wanted| wanted.in_flight);
    Settings {
        rate,
        in_flight: rate.and(of_trials).unwrap_or(all.in_flight),
        duration: all.duration * times,
        preload: false,
        quiet: true,
        find_max: None,
        ..all.without_files()
    }
}

/// What a trial came to.
fn judged(
    limits: &Limits,
    (kind, rate): (Kind, Option<u64>),
    settings: &Settings,
    measured: &Measured,
) -> Trial {
    let (latency_ns, failures) = (measured.total.latency_ns(), measured.total.failures());
    let mut times_ns = vec![("p50".to_owned(), latency_ns.value_at_quantile(0.5) as f64)];
    for limit in limits.iter().filter(|limit| limit.name() != "p50") {
        times_ns.push((limit.name(), limit.of(&latency_ns, failures)));
    }
    let verdict = rate.map_or(Ok(()), |rate| verdict(limits, rate, settings, measured));
    Trial {
        kind,
        rate,
        reached_per_s: measured.throughput_per_s(),
        times_ns,
        charted_ns: CHARTED.map(|(_, quantile)| latency_ns.value_at_quantile(quantile) as f64),
        errors_percent: measured.total.errors_percent(),
        verdict,
        warning: warnings::of_run(settings, &measured.total).into_iter().next(),
    }
}

/// Whether a rate held.
fn verdict(limits: &Limits, rate: u64, settings: &Settings, measured: &Measured) -> Result<(), String> {
    let (total, latency_ns) = (&measured.total, measured.total.latency_ns());
    let percent = total.errors_percent();
    if percent > settings.errors_max_percent {
        return Err(format!("{percent:.1} % of the calls failed"));
    }
    let exceeded = limits.iter().find_map(|limit| {
        let ns = limit.of(&latency_ns, total.failures());
        let told = if ns.is_finite() { units::time(ns) } else { "beyond all (calls failed)".to_owned() };
        (!limit.allows(ns)).then(|| format!("{} is {told}", limit.name()))
    });
    if let Some(why) = exceeded {
        return Err(why);
    }
    let reached = measured.throughput_per_s();
    if reached < rate as f64 * REACHED {
        return Err(format!("{} of {} were reached", units::rate(reached), units::rate(rate as f64)));
    }
    Ok(())
}

/// Writes the result, and says how it ended.
fn finish(knee: &Knee, ended: &Ended) -> ExitCode {
    let mut code = match ended {
        Ended::Failed(error) => error.exit_code(),
        Ended::Whole if knee.found.is_some() => 0,
        Ended::Whole | Ended::Interrupted => EXIT_FAILED,
    };
    if !knee.trials.is_empty() {
        match knee.settings.output {
            Output::Table => print!("{}", report::table(knee)),
            Output::Json => println!("{}", report::json(knee)),
        }
        if let Some((path, file)) = &knee.settings.html
            && let Err(error) = (&**file).write_all(page::of(knee).as_bytes())
        {
            eprintln!("loadgen: {}: {error}", path.display());
            code = EXIT_FAILED;
        }
    }
    match ended {
        Ended::Whole if knee.found.is_some() => {}
        Ended::Whole => eprintln!("loadgen: no rate holds {}", knee.limits),
        Ended::Interrupted => eprintln!("loadgen: interrupted before the search was over"),
        Ended::Failed(error) => eprintln!("loadgen: {}", error.told(&knee.settings)),
    }
    ExitCode::from(code)
}
