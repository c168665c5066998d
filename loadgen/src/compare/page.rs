//! A comparison as a page: what it says, the ratios, every round, and the two sides laid over each other.

use crate::args::Workload;
use crate::compare::report;
use crate::compare::side::{Comparison, METRICS, P50, P99, Side, THROUGHPUT};
use crate::html::{self, RunView, Table};
use crate::json;
use crate::report::Report;
use crate::watch::pace;

/// The page.
pub fn of(comparison: &Comparison) -> String {
    let runs = [0, 1].map(|side| view_of(&comparison.sides[side]));
    let about = html::Comparison {
        words: report::words(comparison).iter().map(|said| said.replace(" x ", " × ")).collect(),
        warnings: comparison.warnings(),
        ratios: ratios(comparison),
        meaning: report::meaning(comparison),
        rounds: rounds(comparison),
        merged: format!(
            "What follows is of all {} rounds of a side together: histograms and counts added up, and the \
             measured seconds of its runs one after the other, without their warm-up.",
            comparison.rounds()
        ),
    };
    html::comparison(&title(comparison), &about, &runs)
}

/// What is compared, in a line.
fn title(comparison: &Comparison) -> String {
    let [one, other] = &comparison.sides;
    let workload = match one.settings.workload {
        Workload::Check => other.settings.workload,
        workload => workload,
    };
    format!("{workload}: {} and {}, {}", one.label, other.label, pace(&one.settings))
}

/// A side as a run of the page.
fn view_of(side: &Side) -> RunView<'_> {
    let report = Report { settings: &side.settings, measured: &side.sum };
    RunView {
        label: side.label.clone(),
        facts: json::facts(&report),
        measured: &side.sum,
        warmup_s: 0.0,
        rate: side.settings.rate,
        // They are told once, for both sides.
        warnings: Vec::new(),
    }
}

fn ratios(comparison: &Comparison) -> Table {
    let [one, other] = comparison.labels();
    let interval = comparison.ratios(THROUGHPUT).and_then(|spread| spread.interval);
    let mut heads = vec![one.to_owned(), other.to_owned(), format!("{one} / {other}")];
    heads.push("least .. greatest".to_owned());
    heads.extend(interval.map(|interval| format!("{:.1} % sure", 100.0 * interval.level)));
    let rows = report::rows(comparison).into_iter().map(|row| {
        let [one, other] = row.sides;
        let mut cells = vec![one, other, row.ratio.replace('x', "×"), row.range];
        cells.extend(interval.map(|_| row.interval));
        (row.name.to_owned(), cells)
    });
    let mut rows: Vec<(String, Vec<String>)> = rows.collect();
    let errors = |side: &Side| format!("{:.3} %", side.sum.total.errors_percent());
    let mut cells: Vec<String> = comparison.sides.iter().map(errors).collect();
    cells.resize(heads.len(), String::new());
    rows.push(("errors".to_owned(), cells));
    Table { heads, rows }
}

/// A row for each round.
fn rounds(comparison: &Comparison) -> Table {
    let told = [THROUGHPUT, P50, P99];
    let mut heads = Vec::new();
    for side in &comparison.sides {
        heads.extend(["rate", "p50", "p99"].map(|name| format!("{} {name}", side.label)));
    }
    heads.push("ratio of rates".to_owned());
    let row = |round: usize| {
        let runs = [0, 1].map(|side| &comparison.sides[side].runs[round]);
        let mut cells: Vec<String> = runs
            .iter()
            .flat_map(|run| told.map(|metric| (METRICS[metric].written)(run.values[metric])))
            .collect();
        let [one, other] = runs.map(|run| run.values[THROUGHPUT]);
        cells.push(if other > 0.0 { format!("{} ×", report::ratio(one / other)) } else { "–".to_owned() });
        ((round + 1).to_string(), cells)
    };
    Table { heads, rows: (0..comparison.rounds()).map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::side::tests::comparison;

    #[test]
    fn the_page_has_the_ratios_and_both_sides() {
        let page = of(&comparison("--rounds 4", &[[800, 100], [900, 100], [700, 100]]));
        for part in [
            "put: kv and etcd, closed loop, 64 in flight",
            "kv is 8.00 × as fast as etcd",
            "<td class=\"better\">8.00 ×</td><td>7.00 .. 9.00</td>",
            "it ended early: 3 of 4 rounds",
            "all 3 rounds of a side together",
            "<th scope=\"row\">3</th><td>700 /s</td>",
            "etcd service",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert!(!page.contains("sure</th>") && !page.contains("NaN") && !page.contains("inf"));
        let page = of(&comparison("--rounds 6", &[[800, 100]; 6]));
        assert!(page.contains("96.9 % sure</th>"), "the interval is missing");
    }
}
