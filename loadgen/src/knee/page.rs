//! A search as a page: what was found, latency over the rate, every trial, and the run that it ended with.

use std::collections::BTreeMap;

use super::{CHARTED, Knee, Trial, report};
use crate::html::{self, KneeChart, KneePoint, RunView, Table};
use crate::report::Report;
use crate::{json, units, warnings};

/// The page. A search has made a trial, or there is none.
pub fn of(knee: &Knee) -> String {
    let Some(shown) = &knee.shown else { return String::new() };
    let about = html::Search {
        words: format!("{}.", report::words(knee)),
        chart: chart(knee),
        warnings: report::warnings(knee),
        trials: trials(knee),
        shown: format!(
            "What follows is of {} alone.",
            if knee.found.is_some() { "the trial that confirmed it" } else { "the last trial" }
        ),
    };
    let run = RunView {
        label: shown.settings.target.to_string(),
        facts: json::facts(&Report { settings: &shown.settings, measured: &shown.measured }),
        measured: &shown.measured,
        warmup_s: shown.settings.warmup.as_secs_f64(),
        rate: shown.settings.rate,
        warnings: warnings::of_run(&shown.settings, &shown.measured.total),
    };
    let settings = &knee.settings;
    let title =
        format!("{} on {}: the highest rate with {}", settings.workload, settings.target, knee.limits);
    html::search(&title, &about, &run)
}

fn chart(knee: &Knee) -> KneeChart {
    // Of a rate that was tried again the last trial is the one that was believed.
    let mut last_of_rate: BTreeMap<u64, &Trial> = BTreeMap::new();
    last_of_rate.extend(knee.trials.iter().filter_map(|trial| Some((trial.rate?, trial))));
    let points = last_of_rate.into_values().filter_map(|trial| {
        Some(KneePoint {
            rate_per_s: trial.rate? as f64,
            times_ns: trial.charted_ns.to_vec(),
            text: told(trial),
        })
    });
    KneeChart {
        names: CHARTED.map(|(name, _)| name.to_owned()).to_vec(),
        points: points.collect(),
        limits: knee.limits.iter().map(|limit| (limit.to_string(), limit.most_ns() as f64)).collect(),
        found: knee.found.map(|rate| rate as f64),
    }
}

/// What a trial tells when it is pointed at.
fn told(trial: &Trial) -> String {
    let rate = trial.rate.map_or(String::new(), |rate| format!("{rate} op/s wanted\n"));
    let times =
        CHARTED.iter().zip(trial.charted_ns).map(|((name, _), ns)| format!("{name} {}", units::time(ns)));
    format!("{rate}{}\n{}", times.collect::<Vec<_>>().join("\n"), report::outcome(trial))
}

fn trials(knee: &Knee) -> Table {
    let mut heads: Vec<String> = ["wanted", "reached"].map(str::to_owned).to_vec();
    let Some(first) = knee.trials.first() else { return Table { heads, rows: Vec::new() } };
    heads.extend(first.times_ns.iter().map(|(name, _)| name.clone()));
    heads.extend(["errors", "holds"].map(str::to_owned));
    let row = |trial: &Trial| {
        let wanted = trial.rate.map_or("–".to_owned(), |rate| units::rate(rate as f64));
        let mut cells = vec![wanted, units::rate(trial.reached_per_s)];
        let told = |ns: f64| if ns.is_finite() { units::time(ns) } else { "failed".to_owned() };
        cells.extend(trial.times_ns.iter().map(|(_, ns)| told(*ns)));
        cells.push(format!("{:.3} %", trial.errors_percent));
        cells.push(report::outcome(trial));
        (trial.kind.name().to_owned(), cells)
    };
    Table { heads, rows: report::by_rate(knee).into_iter().map(row).collect() }
}
