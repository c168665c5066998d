//! The page's numbers: tiles, tables, settings.

use super::{RunView, Table, escape, section};
use crate::record::Kind;
use crate::report::QUANTILES;
use crate::units;
use crate::usage::{busiest, cpu_us_per_operation};

/// A number of a run: its name, the number, how it is written, and whether more of it is better.
struct Figure {
    name: &'static str,
    of: fn(&RunView<'_>) -> f64,
    written: fn(f64) -> String,
    is_more_better: bool,
}

/// What runs are compared by.
const FIGURES: [Figure; 7] = [
    Figure {
        name: "Throughput",
        of: |run| run.measured.throughput_per_s(),
        written: units::rate,
        is_more_better: true,
    },
    Figure {
        name: "Mean",
        of: |run| run.measured.total.latency_ns().mean(),
        written: units::time,
        is_more_better: false,
    },
    Figure { name: "p50", of: |run| latency(run, 0.5), written: units::time, is_more_better: false },
    Figure { name: "p99", of: |run| latency(run, 0.99), written: units::time, is_more_better: false },
    Figure { name: "p99.9", of: |run| latency(run, 0.999), written: units::time, is_more_better: false },
    Figure { name: "Maximum", of: |run| latency(run, 1.0), written: units::time, is_more_better: false },
    Figure { name: "Own CPU a call", of: |run| own_cpu_ns(run), written: units::time, is_more_better: false },
];

fn latency(run: &RunView<'_>, quantile: f64) -> f64 {
    run.measured.total.latency_ns().value_at_quantile(quantile) as f64
}

fn own_cpu_ns(run: &RunView<'_>) -> f64 {
    cpu_us_per_operation(&run.measured.total.usage) * 1e3
}

/// The numbers of one run that are looked at first.
pub fn tiles(run: &RunView<'_>) -> String {
    let total = &run.measured.total;
    let time = |quantile| units::time(latency(run, quantile));
    let busiest = busiest(&total.usage);
    let errors_class = if total.failures() > 0 { " class=\"bad\"" } else { "" };
    let tiles = [
        (
            "",
            "Throughput",
            units::rate(run.measured.throughput_per_s()),
            format!("{} calls", units::count(total.operations())),
        ),
        ("", "p50", time(0.5), "latency".to_owned()),
        ("", "p99", time(0.99), "latency".to_owned()),
        ("", "p99.9", time(0.999), "latency".to_owned()),
        ("", "Maximum", time(1.0), "latency".to_owned()),
        (
            errors_class,
            "Errors",
            units::count(total.failures()),
            format!("{:.2} % of calls", total.errors_percent()),
        ),
        (
            "",
            "Own CPU a call",
            units::time(own_cpu_ns(run)),
            format!("thread {:.0} % busy", busiest.busy_percent()),
        ),
    ];
    let tile = |(class, name, value, more): (&str, &str, String, String)| {
        format!(
            "<div{class}><dt>{name}</dt><dd>{}<small>{}</small></dd></div>\n",
            escape(&value),
            escape(&more)
        )
    };
    format!("<dl class=\"tiles\">\n{}</dl>\n", tiles.map(tile).concat())
}

/// Runs beside each other; of two, also the ratio.
pub fn ratios(runs: &[RunView<'_>]) -> String {
    let mut heads: Vec<String> = runs.iter().map(|run| run.label.clone()).collect();
    if let [one, other] = runs {
        heads.push(format!("{} / {}", one.label, other.label));
    }
    let rows = FIGURES.iter().map(|figure| {
        let values: Vec<f64> = runs.iter().map(figure.of).collect();
        let mut cells: Vec<String> = values.iter().map(|value| (figure.written)(*value)).collect();
        if let [one, other] = values[..] {
            cells.push(ratio(one, other));
        }
        let best = best_of(&values, figure.is_more_better);
        row(figure.name, &cells, best)
    });
    let body: String = rows.collect();
    let mut errors: Vec<String> =
        runs.iter().map(|run| units::count(run.measured.total.failures())).collect();
    errors.resize(heads.len(), String::new());
    table("", &heads, &(body + &row("Errors", &errors, None)))
}

fn ratio(one: f64, other: f64) -> String {
    if other > 0.0 { format!("{} ×", units::digits(one / other)) } else { "–".to_owned() }
}

/// The place of the best value, where one is.
fn best_of(values: &[f64], is_more_better: bool) -> Option<usize> {
    let better = |a: f64, b: f64| if is_more_better { a > b } else { a < b };
    (0..values.len()).find(|i| (0..values.len()).all(|j| j == *i || better(values[*i], values[j])))
}

/// A table that was made elsewhere; one column may be set off.
pub fn shown(of: &Table, set_off: Option<usize>) -> String {
    let body: String = of.rows.iter().map(|(name, cells)| row(name, cells, set_off)).collect();
    table("", &of.heads, &body)
}

/// Latency and service time in numbers.
pub fn times(runs: &[RunView<'_>]) -> String {
    let mut heads = Vec::new();
    let mut all = Vec::new();
    for run in runs {
        let whose = if runs.len() > 1 { format!("{} ", run.label) } else { String::new() };
        heads.extend([format!("{whose}latency"), format!("{whose}service time")]);
        all.extend([run.measured.total.latency_ns(), run.measured.total.service_ns()]);
    }
    let mut body = String::new();
    let mut add = |name: &str, of: &dyn Fn(usize) -> f64| {
        let cells: Vec<String> = (0..all.len()).map(|i| units::time(of(i))).collect();
        body.push_str(&row(name, &cells, None));
    };
    add("min", &|i| all[i].min() as f64);
    add("mean", &|i| all[i].mean());
    for (name, quantile) in QUANTILES {
        add(&name.replace('_', "."), &|i| all[i].value_at_quantile(quantile) as f64);
    }
    add("max", &|i| all[i].max() as f64);
    let about = "Latency counts from when a call was meant to start, service time from when it was sent.";
    let class = if runs.len() > 1 { "" } else { "narrow" };
    section("Latency and service time", about, &table(class, &heads, &body))
}

/// A row for each kind of operation.
pub fn operations(runs: &[RunView<'_>]) -> String {
    let heads = ["calls", "p50", "p99", "p99.9", "max", "service p50", "service p99"].map(str::to_owned);
    let mut body = String::new();
    for run in runs {
        for (name, kind) in run.measured.total.by_operation() {
            let whose = if runs.len() > 1 { format!("{}: ", run.label) } else { String::new() };
            body.push_str(&row(&format!("{whose}{name}"), &cells_of(kind), None));
        }
    }
    section("By operation", "Calls that succeeded, and their latency.", &table("", &heads, &body))
}

fn cells_of(kind: &Kind) -> Vec<String> {
    let latency = |quantile| units::time(kind.latency_ns.value_at_quantile(quantile) as f64);
    let service = |quantile| units::time(kind.service_ns.value_at_quantile(quantile) as f64);
    let count = units::count(kind.latency_ns.len());
    let (p50, p99, p99_9, max) = (latency(0.5), latency(0.99), latency(0.999), latency(1.0));
    vec![count, p50, p99, p99_9, max, service(0.5), service(0.99)]
}

/// Errors by kind, where there are any, and how long they took.
pub fn errors(runs: &[RunView<'_>]) -> String {
    let mut body = String::new();
    for run in runs {
        let total = &run.measured.total;
        let whose = if runs.len() > 1 { format!("{}: ", run.label) } else { String::new() };
        for (kind, count) in &total.errors {
            body.push_str(&row(
                &format!("{whose}{kind}"),
                &[units::count(*count), String::new(), String::new()],
                None,
            ));
        }
        for (name, times) in
            [("all errors but timeouts", &total.error_ns), ("all timeouts", &total.timeout_ns)]
        {
            if !times.is_empty() {
                let at = |quantile| units::time(times.value_at_quantile(quantile) as f64);
                let cells = [units::count(times.len()), at(0.5), at(1.0)];
                body.push_str(&row(&format!("{whose}{name}"), &cells, None));
            }
        }
    }
    if body.is_empty() {
        return String::new();
    }
    let heads = ["calls", "p50 until it failed", "longest"].map(str::to_owned);
    section("Errors", "They are in no latency above.", &table("", &heads, &body))
}

/// All settings.
pub fn facts(runs: &[RunView<'_>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.facts) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let value_of = |run: &RunView<'_>, name: &str| {
        let found = run.facts.iter().find(|(of, _)| of == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let rows = names.iter().map(|name| {
        let cells: Vec<String> = runs.iter().map(|run| value_of(run, name)).collect();
        row(name, &cells, None)
    });
    let body: String = rows.collect();
    let heads: Vec<String> =
        if runs.len() > 1 { runs.iter().map(|run| run.label.clone()).collect() } else { Vec::new() };
    section("Settings", "What was asked for.", &table("facts", &heads, &body))
}

/// A row; the cell at `best` is set off.
fn row(name: &str, cells: &[String], best: Option<usize>) -> String {
    let cell = |(i, cell): (usize, &String)| {
        let class = if best == Some(i) { " class=\"better\"" } else { "" };
        format!("<td{class}>{}</td>", escape(cell))
    };
    let cells: String = cells.iter().enumerate().map(cell).collect();
    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(name))
}

fn table(class: &str, heads: &[String], body: &str) -> String {
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", escape(head))).collect();
    let head =
        if head.is_empty() { String::new() } else { format!("<thead><tr><th></th>{head}</tr></thead>\n") };
    format!(
        "<div class=\"scroll\"><table class=\"{class}\">\n{head}<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}
