//! A report as one page of HTML: it needs no network, no script to be read, and nothing beside it.
//!
//! The charts are drawn here, as SVG. What a script adds is a note under the pointer; without it the browser
//! shows the same as a title. The switch between a logarithmic and a linear scale is style alone.
//!
//! One run is shown by its percentiles; several runs are laid over each other, percentile by percentile, and
//! two are set against each other as ratios.
//!
//! Invariants: every text that is not written here is escaped (see [`escape`]).

mod axis;
mod chart;
mod plots;
mod tables;

use crate::record::Measured;
pub use plots::{KneeChart, KneePoint};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A result as the page shows it.
#[derive(Debug)]
pub struct RunView<'a> {
    /// What it is called beside others.
    pub label: String,
    /// Its settings, and where it ran, by name.
    pub facts: Vec<(String, String)>,
    /// What came of it.
    pub measured: &'a Measured,
    /// How long its warm-up was.
    pub warmup_s: f64,
    /// Calls a second that were wanted; `None`: a closed loop.
    pub rate: Option<u64>,
    /// What makes it doubtful.
    pub warnings: Vec<String>,
}

/// What a comparison of two runs adds to them.
#[derive(Debug)]
pub struct Comparison {
    /// What it says, in sentences.
    pub words: Vec<String>,
    /// What makes it doubtful.
    pub warnings: Vec<String>,
    /// The ratios.
    pub ratios: Table,
    /// How they are to be read.
    pub meaning: String,
    /// Every round.
    pub rounds: Table,
    /// What the runs of the page are made of.
    pub merged: String,
}

/// A table as it is shown: the heads of the columns, then rows by name.
#[derive(Debug)]
pub struct Table {
    /// Above each column but the first.
    pub heads: Vec<String>,
    /// A name, and a cell for each head.
    pub rows: Vec<(String, Vec<String>)>,
}

/// The page of runs.
pub fn page(title: &str, runs: &[RunView<'_>]) -> String {
    assert!(!runs.is_empty(), "a page shows a run");
    whole(title, &(summary(runs) + &warnings(runs)), runs)
}

/// The page of a comparison.
pub fn comparison(title: &str, about: &Comparison, runs: &[RunView<'_>; 2]) -> String {
    let words: String = about.words.iter().map(|said| format!("{} ", escape(said))).collect();
    let head = [
        format!("<p class=\"lead\">{}</p>\n", words.trim_end()),
        about.warnings.iter().map(|why| warning(why)).collect(),
        tables::shown(&about.ratios, Some(RATIO_COLUMN)),
        format!("<p class=\"soft\">{}</p>\n", escape(&about.meaning)),
        section("Rounds", "Each side ran once in every round, the other one first in every second.", ""),
        tables::shown(&about.rounds, None),
        format!("<p class=\"note\">{}</p>\n", escape(&about.merged)),
        warnings(runs),
    ];
    whole(title, &head.concat(), runs)
}

/// What a search for the highest rate adds to the run that it ended with.
#[derive(Debug)]
pub struct Search {
    /// What was found.
    pub words: String,
    /// What makes it doubtful.
    pub warnings: Vec<String>,
    /// Latency over the rate.
    pub chart: KneeChart,
    /// Every trial.
    pub trials: Table,
    /// Which run the rest of the page is of.
    pub shown: String,
}

/// The page of a search.
pub fn search(title: &str, about: &Search, run: &RunView<'_>) -> String {
    let runs = std::slice::from_ref(run);
    let trials = "Each had a schedule of its own; latency counts from when a call was meant to start.";
    let head = [
        format!("<p class=\"lead\">{}</p>\n", escape(&about.words)),
        about.warnings.iter().map(|why| warning(why)).collect(),
        section("Latency over the rate", trials, &plots::knee(&about.chart)),
        tables::shown(&about.trials, None),
        format!("<p class=\"note\">{}</p>\n", escape(&about.shown)),
        summary(runs),
        warnings(runs),
    ];
    whole(title, &head.concat(), runs)
}

/// The column of a comparison that is looked at first.
const RATIO_COLUMN: usize = 2;

/// The page with these numbers at its top.
fn whole(title: &str, head: &str, runs: &[RunView<'_>]) -> String {
    let title = escape(title);
    let sections = [
        head.to_owned(),
        latency(runs),
        section(
            "Throughput over time",
            "Calls that succeeded, a second, and those that failed.",
            &plots::throughput(runs),
        ),
        spectrum(runs),
        tables::times(runs),
        tables::operations(runs),
        tables::errors(runs),
        tables::facts(runs),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>{title}</h1><p>distribKV load report</p></header>\n\
         {}<footer>Made by loadgen {}.</footer>\n</main>\n\
         <div id=\"tip\" role=\"status\" hidden></div>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        sections.concat(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// A text that stands for itself wherever it is put.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A part of the page: its heading, what it shows, and what it holds.
fn section(heading: &str, about: &str, inside: &str) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n<p class=\"soft\">{}</p>\n{inside}</section>\n",
        escape(heading),
        escape(about)
    )
}

/// The numbers that are looked at first.
fn summary(runs: &[RunView<'_>]) -> String {
    match runs {
        [run] => tables::tiles(run),
        several => tables::ratios(several),
    }
}

fn warnings(runs: &[RunView<'_>]) -> String {
    let mut text = String::new();
    for run in runs {
        for why in &run.warnings {
            let whose = if runs.len() > 1 { format!("{}: ", run.label) } else { String::new() };
            text.push_str(&warning(&format!("{whose}{why}")));
        }
    }
    if runs.iter().any(|run| run.rate.is_none()) {
        text.push_str(
            "<p class=\"note\">Closed loop: each call is followed by the next, so a stalled server is asked \
             less and its stall hides (coordinated omission). Latency under a given load needs \
             <code>--rate</code>.</p>\n",
        );
    }
    text
}

fn warning(why: &str) -> String {
    format!("<p class=\"warning\" role=\"alert\"><b>Warning</b> {}.</p>\n", escape(why))
}

fn latency(runs: &[RunView<'_>]) -> String {
    let about = "From when a call was meant to start, by the second in which it ended.";
    let switch = "<fieldset class=\"scale\"><legend>Latency scale</legend>\
        <label><input type=\"radio\" name=\"scale\" id=\"scale-log\" checked> logarithmic</label>\
        <label><input type=\"radio\" name=\"scale\" id=\"scale-linear\"> linear</label></fieldset>\n";
    section("Latency over time", about, &format!("{switch}{}", plots::latency(runs)))
}

fn spectrum(runs: &[RunView<'_>]) -> String {
    let about = "Which share of the calls took no longer. Service time counts from when a call was sent: \
                 where it lies below the latency, calls waited before they could be.";
    section("Percentiles", about, &plots::spectrum(runs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Interval;
    use crate::report::tests::measured;
    use crate::series::Point;
    use crate::status::ErrorKind;

    fn run(label: &str, measured: &Measured) -> String {
        page(label, &[view(label, measured)])
    }

    fn view<'a>(label: &str, measured: &'a Measured) -> RunView<'a> {
        RunView {
            label: label.to_owned(),
            facts: vec![("endpoints".into(), "<a>:1".into())],
            measured,
            warmup_s: 1.0,
            rate: None,
            warnings: vec!["a < b".into()],
        }
    }

    fn with_series(operations: u64, seconds: u64) -> Measured {
        let mut measured = measured(operations, 1.0);
        for second in 0..seconds {
            let mut interval = Interval::default();
            (1..100).for_each(|i| interval.succeed(i * 10_000 * (second + 1), i * 9_000));
            interval.errors = second % 2;
            measured.series.push(Point::of(&interval, second as f64, second as f64 + 1.0, second == 0));
        }
        measured
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href='x'>\"&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;");
        let mut measured = with_series(10, 3);
        measured.total.fail(ErrorKind::NoConnection, 1, 5);
        let page = run("<script>alert(1)</script>", &measured);
        assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(page.contains("&lt;a&gt;:1") && page.contains("a &lt; b."), "{page}");
    }

    #[test]
    fn a_page_needs_nothing_else() {
        let page = run("put on kv", &with_series(1000, 12));
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "the page asks for {outside}");
        }
        for part in ["Latency over time", "Throughput over time", "Percentiles", "Settings", "Closed loop"] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"), "a number is none");
    }

    #[test]
    fn two_runs_are_set_against_each_other() {
        let (one, other) = (with_series(1000, 3), with_series(500, 5));
        let page = page("kv and etcd", &[view("kv", &one), view("etcd", &other)]);
        assert!(page.contains("kv / etcd") && page.contains("2.00 ×"), "{page}");
        assert!(page.contains("kv: a &lt; b."), "{page}");
    }

    #[test]
    fn an_empty_run_has_a_page() {
        let page = run("nothing", &measured(0, 0.0));
        assert!(page.contains("<svg") && !page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
