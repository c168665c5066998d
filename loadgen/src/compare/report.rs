//! What people are told of a comparison: a line a round, then a table, what it says in words, and what makes
//! it doubtful.

use std::fmt::Write as _;

use crate::args::{Settings, Versus};
use crate::compare::side::{Comparison, METRICS, Metric, P50, P99, Side, THROUGHPUT};
use crate::compare::statistics::Spread;
use crate::header;
use crate::host::Host;
use crate::report::CLOSED;
use crate::units;

/// Rows of a header that are of single runs alone.
const SINGLE: [&str; 3] = ["hgrm", "interval log", "audit"];
/// The width of a name, and of a number in the table.
const NAME_CHARS: usize = 13;
const CELL_CHARS: usize = 11;
const RANGE_CHARS: usize = 18;
/// The width of a side in the line of a round.
const SIDE_CHARS: usize = 26;

/// The settings of both sides: once where they are alike, else the one and the other.
pub fn header(settings: &Settings, versus: &Versus) -> String {
    let mut text = format!("loadgen {}\n", env!("CARGO_PKG_VERSION"));
    let host = Host::here();
    let others = header::rows(&versus.settings, &host);
    for ((name, one), (_, other)) in header::rows(settings, &host).into_iter().zip(others) {
        if !SINGLE.contains(&name) {
            let value = if one == other { one } else { format!("{one} | {other}") };
            text.push_str(&header::row(name, &value));
        }
    }
    let run_s = (settings.warmup + settings.duration + versus.pause).as_secs_f64();
    let all = units::clock(2.0 * run_s * versus.rounds as f64);
    let rounds = versus.rounds;
    text.push_str(&header::row("rounds", &format!("{rounds}, each side once in each: about {all} in all")));
    text
}

/// The servers of both, and what stands above the lines of the rounds.
pub fn heading(comparison: &Comparison) -> String {
    let [one, other] = &comparison.sides;
    let [server, opposed] = [one, other].map(|side| header::server(side.sum.about.as_ref()));
    let mut text = header::row("server", &format!("{server} | {opposed}"));
    let [one, other] = comparison.labels();
    let heads = [one, other].map(|label| format!("{:>SIDE_CHARS$}", format!("{label}: rate p50 p99")));
    text.push_str(&header::row("round", &format!("{}   {}   ratio of rates", heads[0], heads[1])));
    text
}

/// The line of the last round.
pub fn round(comparison: &Comparison) -> String {
    let (round, wanted) = (comparison.rounds(), comparison.rounds_wanted);
    let told = |side: &Side| {
        let Some(run) = side.runs.last() else { return String::new() };
        let [rate, p50, p99] = [THROUGHPUT, P50, P99].map(|i| (METRICS[i].written)(run.values[i]));
        format!("{rate:>9} {p50:>8} {p99:>8}")
    };
    let rates = [0, 1].map(|side| comparison.sides[side].runs.last().map(|run| run.values[THROUGHPUT]));
    let ratio = match rates {
        [Some(one), Some(other)] if other > 0.0 => ratio(one / other),
        _ => "-".to_owned(),
    };
    let [one, other] = [0, 1].map(|side| told(&comparison.sides[side]));
    let line = format!("{one:>SIDE_CHARS$}   {other:>SIDE_CHARS$}   {ratio:>7} x");
    header::row(&format!("{round} of {wanted}"), &line)
}

/// The result: the table, and what is to be said of it.
pub fn table(comparison: &Comparison) -> String {
    let mut text = String::new();
    let [one, other] = &comparison.sides;
    for side in [one, other] {
        line(&mut text, &format!("{:<NAME_CHARS$}{}", side.label, side.full_label()));
    }
    text.push('\n');
    let cells = [one, other].map(|side| side.label.chars().count().max(CELL_CHARS) + 1);
    let row = |text: &mut String, name: &str, row: [&str; 5]| {
        let [one, other, ratio, range, interval] = row;
        let (first, second) = (cells[0], cells[1]);
        let told = format!(
            "{name:<NAME_CHARS$}{one:>first$}{other:>second$}{ratio:>CELL_CHARS$}{range:>RANGE_CHARS$}"
        );
        line(text, format!("{told}{interval:>RANGE_CHARS$}").trim_end());
    };
    let level = comparison.ratios(THROUGHPUT).and_then(|spread| spread.interval);
    let level = level.map_or(String::new(), |interval| format!("{:.1} % sure", 100.0 * interval.level));
    row(&mut text, "median of", [&one.label, &other.label, "ratio", "least .. greatest", &level]);
    for Cells { name, sides, ratio, range, interval } in &rows(comparison) {
        row(&mut text, name, [&sides[0], &sides[1], ratio, range, interval]);
    }
    let errors = [one, other].map(|side| format!("{:.3} %", side.sum.total.errors_percent()));
    row(&mut text, "errors", [&errors[0], &errors[1], "", "", ""]);
    text.push('\n');
    text.push_str(&notes(comparison));
    text
}

/// A row of the ratios, written.
#[derive(Debug)]
pub struct Cells {
    /// What is compared.
    pub name: &'static str,
    /// The medians of both sides.
    pub sides: [String; 2],
    /// The median of the rounds' ratios.
    pub ratio: String,
    /// From the least to the greatest of them.
    pub range: String,
    /// The interval, or nothing.
    pub interval: String,
}

/// A row for every metric.
pub fn rows(comparison: &Comparison) -> Vec<Cells> {
    let row = |(i, metric): (usize, &Metric)| {
        let spread = comparison.ratios(i);
        let told = |of: &dyn Fn(&Spread) -> Option<String>| spread.as_ref().and_then(of).unwrap_or_default();
        Cells {
            name: metric.name,
            sides: comparison.medians(i).map(metric.written),
            ratio: told(&|spread| Some(format!("{} x", ratio(spread.median)))),
            range: told(&|spread| Some(range(spread.min, spread.max, ".."))),
            interval: told(&|spread| spread.interval.map(|within| range(within.low, within.high, ".."))),
        }
    };
    METRICS.iter().enumerate().map(row).collect()
}

/// What it says, how it is to be read, and what makes it doubtful. Beside JSON it goes to standard error.
pub fn notes(comparison: &Comparison) -> String {
    let mut text = String::new();
    for said in words(comparison).into_iter().chain([meaning(comparison)]) {
        line(&mut text, &said);
    }
    if comparison.sides[0].settings.rate.is_none() {
        line(&mut text, CLOSED);
    }
    for why in comparison.warnings() {
        line(&mut text, &format!("warning: {why}"));
    }
    text
}

/// What the ratios say, in sentences.
pub fn words(comparison: &Comparison) -> Vec<String> {
    let [one, other] = comparison.labels();
    let (Some(rate), Some(p50), Some(p99)) =
        (comparison.ratios(THROUGHPUT), comparison.ratios(P50), comparison.ratios(P99))
    else {
        return Vec::new();
    };
    let told = |spread: &Spread| format!("{} x", ratio(spread.median));
    let (told_p50, told_p99) =
        (told(&p50) + " (" + &within(&p50) + ")", told(&p99) + " (" + &within(&p99) + ")");
    let (mut said, decisive) = match comparison.sides[0].settings.rate {
        None => {
            let first = format!("{one} is {} as fast as {other} ({}).", told(&rate), within(&rate));
            (vec![first, format!("Its p50 is {told_p50}, its p99 {told_p99}.")], rate)
        }
        Some(wanted) => {
            let first = format!(
                "At {wanted} calls a second wanted of each, {one}'s p99 is {told_p99} that of {other}."
            );
            (
                vec![
                    first,
                    format!("Its p50 is {told_p50}, its throughput {} ({}).", told(&rate), within(&rate)),
                ],
                p99,
            )
        }
    };
    if decisive.could_be(1.0) {
        said.push("Which is faster is not shown: 1 lies within.".to_owned());
    }
    said
}

/// What the ratios are.
pub fn meaning(comparison: &Comparison) -> String {
    let rounds = comparison.rounds();
    let ratios = format!("A ratio is the median of {rounds} rounds' ratios");
    match comparison.ratios(THROUGHPUT).and_then(|spread| spread.interval) {
        Some(interval) => format!(
            "{ratios}; the last column holds the true one with {:.1} % (sign test), if no round depends on \
             another.",
            100.0 * interval.level
        ),
        None => format!("{ratios}; the range is the least to the greatest (from 6 rounds on: an interval)."),
    }
}

/// The interval where there is one, else the range.
fn within(spread: &Spread) -> String {
    let (low, high) = spread.interval.map_or((spread.min, spread.max), |of| (of.low, of.high));
    range(low, high, "to")
}

fn range(low: f64, high: f64, between: &str) -> String {
    format!("{} {between} {}", ratio(low), ratio(high))
}

/// A ratio with three significant digits, as far as four decimals can tell them.
pub fn ratio(value: f64) -> String {
    if value >= 0.9995 {
        units::digits(value)
    } else if value >= 0.09995 {
        format!("{value:.3}")
    } else {
        format!("{value:.4}")
    }
}

/// Appends a line.
fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::side::tests::comparison;
    use crate::report::tests::parsed;

    #[test]
    fn ratios_have_three_digits() {
        let told = [123.4, 8.123, 1.0, 0.99949, 0.1312, 0.0131, 0.0].map(ratio);
        assert_eq!(told, ["123", "8.12", "1.00", "0.999", "0.131", "0.0131", "0.0000"]);
    }

    #[test]
    fn the_header_tells_both_sides_where_they_differ() {
        let settings = parsed("--compare etcd@b:2 --rounds 3 --duration 5s --warmup 1s --preload");
        let text = header(&settings, &settings.versus.clone().expect("it is compared"));
        for part in
            ["endpoints    a:1 | b:2\n", "target       kv | etcd\n", "workload     put\n", "about 42 s"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("hgrm") && !text.contains("interval log"), "{text}");
    }

    #[test]
    fn a_round_is_a_line() {
        let text = round(&comparison("", &[[800, 100], [850, 100]]));
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("2 of 5") && text.contains("850 /s") && text.contains("8.50 x"), "{text}");
    }

    #[test]
    fn a_comparison_in_words() {
        let text = table(&comparison("--rounds 3", &[[800, 100], [900, 100], [700, 100]]));
        for part in [
            "kv is 8.00 x as fast as etcd (7.00 to 9.00).",
            "7.00 .. 9.00",
            "median of 3 rounds",
            "closed loop",
            "errors            0.000 %     0.000 %",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("sure") && !text.contains("not shown"), "{text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
    }

    #[test]
    fn six_rounds_have_an_interval() {
        let text = table(&comparison("--rounds 6", &[[800, 1000]; 6]));
        assert!(text.contains("96.9 % sure") && text.contains("96.9 % (sign test)"), "{text}");
        assert!(text.contains("kv is 0.800 x as fast as etcd (0.800 to 0.800)."), "{text}");
    }

    #[test]
    fn no_difference_is_said_to_be_none() {
        let text = notes(&comparison("--rounds 2", &[[100, 101], [101, 100]]));
        assert!(text.contains("Which is faster is not shown"), "{text}");
        let open = notes(&comparison("--rounds 2 --rate 500", &[[100, 50], [100, 50]]));
        assert!(open.contains("At 500 calls a second wanted of each, kv's p99 is 1.98 x"), "{open}");
        assert!(!open.contains("closed loop") && !open.contains("not shown"), "{open}");
    }
}
