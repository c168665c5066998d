//! What people and programs are told of a search: a line a trial, then the result.
//!
//! The object for programs, these fields and no others, times in microseconds:
//! ```text
//! find_max.limit        as on the command line
//! find_max.rate_per_s   the highest rate that was confirmed; null: none
//! find_max.ceiling_per_s  what the closed loop came to
//! find_max.trials       in the order made: [ { kind ("closed loop", "probe", "confirm"), rate_per_s (null
//!                       of the closed loop), throughput_per_s, latency_us { p50, and what is limited;
//!                       null where failed calls lie beyond it }, errors_percent,
//!                       holds (null of the closed loop), why_not, warning (what loadgen lacked) } ]
//! find_max.warnings     [ what makes the result doubtful ]
//! run                   the confirmed trial, or the last one, as a single run
//! ```

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Kind, Knee, Trial};
use crate::json;
use crate::report::Report;
use crate::units;

/// The widths of a rate and of a time.
const RATE_CHARS: usize = 11;
const TIME_CHARS: usize = 16;

/// What stands above the lines of the trials.
pub fn heads() -> String {
    format!("{:>RATE_CHARS$} {:>RATE_CHARS$}   latency", "wanted", "reached")
}

/// The line of a trial.
pub fn line(trial: &Trial) -> String {
    let wanted = trial.rate.map_or("-".to_owned(), |rate| units::rate(rate as f64));
    let mut text = format!("{wanted:>RATE_CHARS$} {:>RATE_CHARS$}  ", units::rate(trial.reached_per_s));
    for (name, ns) in &trial.times_ns {
        let told = if ns.is_finite() { units::time(*ns) } else { "failed".to_owned() };
        // Writing to a string cannot fail.
        let _ = write!(text, " {:<TIME_CHARS$}", format!("{name} {told}"));
    }
    text.push_str(&outcome(trial));
    text
}

/// How a trial went, in words.
pub fn outcome(trial: &Trial) -> String {
    match (&trial.verdict, trial.kind) {
        (_, Kind::Ceiling) => "the ceiling".to_owned(),
        (Ok(()), Kind::Probe) => "holds".to_owned(),
        (Ok(()), Kind::Confirm) => "holds, for twice as long".to_owned(),
        (Err(why), _) if trial.warning.is_some() => format!("no: {why} (*)"),
        (Err(why), _) => format!("no: {why}"),
    }
}

/// What makes the result doubtful: trials that did not hold while loadgen itself lacked something.
pub fn warnings(knee: &Knee) -> Vec<String> {
    let failed = knee.trials.iter().filter(|trial| trial.verdict.is_err());
    let lacking: Vec<&str> = failed.filter_map(|trial| trial.warning.as_deref()).collect();
    let Some(one) = lacking.first() else { return Vec::new() };
    let (count, all) = (lacking.len(), knee.trials.len());
    vec![format!("{count} of {all} trials (*) do not hold, and not the server alone may be why: {one}")]
}

/// The result in a sentence.
pub fn words(knee: &Knee) -> String {
    let limits = &knee.limits;
    let lowest = knee.trials.iter().filter(|trial| trial.verdict.is_err()).filter_map(|trial| trial.rate);
    let not = lowest.filter(|rate| knee.found.is_none_or(|found| *rate > found)).min();
    let not = not.map_or(String::new(), |rate| format!("; {rate} op/s does not"));
    match knee.found {
        Some(rate) => format!("{rate} op/s holds {limits}{not}"),
        None => format!("no rate was found that holds {limits}{not}"),
    }
}

/// The result for people.
pub fn table(knee: &Knee) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", words(knee));
    for why in warnings(knee) {
        let _ = writeln!(text, "warning: {why}");
    }
    text.push('\n');
    let _ = writeln!(text, "{:<12} {}", "trial", heads());
    for trial in by_rate(knee) {
        let _ = writeln!(text, "{:<12} {}", trial.kind.name(), line(trial));
    }
    if let Some(shown) = &knee.shown {
        let report = Report { settings: &shown.settings, measured: &shown.measured };
        let which = if knee.found.is_some() { "the confirmed trial" } else { "the last trial" };
        let _ = write!(text, "\n{which}\n{}", report.table());
    }
    text
}

/// The trials from the lowest rate to the highest; the closed loop is the last.
pub fn by_rate(knee: &Knee) -> Vec<&Trial> {
    let mut trials: Vec<&Trial> = knee.trials.iter().collect();
    trials.sort_by_key(|trial| trial.rate.unwrap_or(u64::MAX));
    trials
}

/// The result for programs.
pub fn json(knee: &Knee) -> Value {
    let ceiling = knee.trials.iter().find(|trial| trial.kind == Kind::Ceiling);
    serde_json::json!({
        "find_max": {
            "limit": knee.limits.to_string(),
            "rate_per_s": knee.found,
            "ceiling_per_s": ceiling.map(|trial| json::rounded(trial.reached_per_s, 1)),
            "trials": knee.trials.iter().map(trial).collect::<Vec<_>>(),
            "warnings": warnings(knee),
        },
        "run": knee.shown.as_ref().map(|shown| {
            json::of(&Report { settings: &shown.settings, measured: &shown.measured })
        }),
    })
}

fn trial(trial: &Trial) -> Value {
    let us = |ns: &f64| if ns.is_finite() { json::rounded(ns / 1e3, 1).into() } else { Value::Null };
    let times: Map<String, Value> =
        trial.times_ns.iter().map(|(name, ns)| (name.replace('.', "_"), us(ns))).collect();
    let is_judged = trial.kind != Kind::Ceiling;
    serde_json::json!({
        "kind": trial.kind.name(),
        "rate_per_s": trial.rate,
        "throughput_per_s": json::rounded(trial.reached_per_s, 1),
        "latency_us": times,
        "errors_percent": json::rounded(trial.errors_percent, 3),
        "holds": is_judged.then_some(trial.verdict.is_ok()),
        "why_not": trial.verdict.as_ref().err(),
        "warning": trial.warning,
    })
}
