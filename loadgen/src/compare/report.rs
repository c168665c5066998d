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
/// The widths of the table: a name, a side's number, a ratio, a range, an interval. Together 80 characters.
const NAME_CHARS: usize = 12;
const CELL_CHARS: usize = 12;
const RATIO_CHARS: usize = 9;
const RANGE_CHARS: usize = 17;
const INTERVAL_CHARS: usize = 16;
/// The width of a side in the line of a round.
const SIDE_CHARS: usize = 24;

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
    let (run, rounds) = (settings.warmup + settings.duration + versus.pause, versus.rounds);
    let all_s = 2.0 * run.as_secs_f64() * rounds as f64;
    let all = if all_s < 120.0 { format!("{all_s:.0} s") } else { format!("{:.0} minutes", all_s / 60.0) };
    text.push_str(&header::row("rounds", &format!("{rounds}, each side once in each: about {all} in all")));
    text
}

/// The servers of both.
pub fn servers(comparison: &Comparison) -> String {
    let [one, other] = [0, 1].map(|side| header::server(comparison.sides[side].sum.about.as_ref()));
    header::row("server", &format!("{one} | {other}"))
}

/// What stands above the lines of the rounds.
pub fn heading(comparison: &Comparison) -> String {
    let [one, other] = comparison.labels().map(|label| format!("{label:>SIDE_CHARS$}"));
    let columns = cells_of_a_side(["rate", "p50", "p99"]);
    let labels = header::row("", &format!("{one}   {other}      ratio"));
    labels + &header::row("round", &format!("{columns}   {columns}   of rates"))
}

/// The line of the last round.
pub fn round(comparison: &Comparison) -> String {
    let (round, wanted) = (comparison.rounds(), comparison.rounds_wanted);
    let told = |side: &Side| {
        let Some(run) = side.runs.last() else { return String::new() };
        let [rate, p50, p99] = [THROUGHPUT, P50, P99].map(|i| (METRICS[i].written)(run.values[i]));
        cells_of_a_side([&rate, &p50, &p99])
    };
    let rates = [0, 1].map(|side| comparison.sides[side].runs.last().map(|run| run.values[THROUGHPUT]));
    let ratio = match rates {
        [Some(one), Some(other)] if other > 0.0 => ratio(one / other),
        _ => "-".to_owned(),
    };
    let [one, other] = [0, 1].map(|side| told(&comparison.sides[side]));
    let line = format!("{one:>SIDE_CHARS$}   {other:>SIDE_CHARS$}   {ratio:>6} x");
    header::row(&format!("{round} of {wanted}"), &line)
}

/// A side's part of such a line.
fn cells_of_a_side([rate, p50, p99]: [&str; 3]) -> String {
    format!("{rate:>8} {p50:>7} {p99:>7}")
}

/// The result: the table, and what is to be said of it.
pub fn table(comparison: &Comparison) -> String {
    let mut text = String::new();
    let [one, other] = &comparison.sides;
    let name_chars = one.label.chars().count().max(other.label.chars().count()).max(NAME_CHARS - 1) + 1;
    for side in [one, other] {
        line(&mut text, &format!("{:<name_chars$}{}", side.label, side.full_label()));
    }
    text.push('\n');
    let chars = [one, other].map(|side| (side.label.chars().count() + 1).max(CELL_CHARS));
    let row = |text: &mut String, name: &str, [one, other, ratio, range, interval]: [&str; 5]| {
        let sides = format!("{one:>first$}{other:>second$}", first = chars[0], second = chars[1]);
        let spread = format!("{ratio:>RATIO_CHARS$} {range:>RANGE_CHARS$} {interval:>INTERVAL_CHARS$}");
        line(text, format!("{name:<NAME_CHARS$}{sides}{spread}").trim_end());
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
    let times = |spread: &Spread| format!("{} x", ratio(spread.median));
    let of_other = |spread: &Spread| format!("{} {other}'s ({})", times(spread), within(spread));
    let (mut said, decisive) = match comparison.sides[0].settings.rate {
        None => {
            let first = format!("{one} is {} as fast as {other} ({}).", times(&rate), within(&rate));
            let second = format!("Its p50 is {}, its p99 {}.", of_other(&p50), of_other(&p99));
            (vec![first, second], rate)
        }
        Some(wanted) => {
            let first = format!("At {wanted} calls a second each, {one}'s p99 is {}.", of_other(&p99));
            let second = format!("Its p50 is {}, its throughput {}.", of_other(&p50), of_other(&rate));
            (vec![first, second], p99)
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
    if rounds == 1 {
        return "One round has no spread: nothing says how much of it is chance.".to_owned();
    }
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
        assert!(text.lines().count() == 1 && text.trim_end().chars().count() <= 80, "{text}");
        assert!(text.contains("2 of 5") && text.contains("850 /s") && text.contains("8.50 x"), "{text}");
    }

    #[test]
    fn a_comparison_in_words() {
        let text = table(&comparison("--rounds 3", &[[800, 100], [900, 100], [700, 100]]));
        for part in [
            "kv is 8.00 x as fast as etcd (7.00 to 9.00).",
            "Its p50 is 8.00 x etcd's",
            "7.00 .. 9.00",
            "median of 3 rounds",
            "closed loop",
            "errors           0.000 %     0.000 %",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("sure") && !text.contains("not shown"), "{text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
    }

    #[test]
    fn six_rounds_have_an_interval() {
        let text = table(&comparison("--rounds 6", &[[800, 1000]; 6]));
        let table = text.lines().skip(3).take(9);
        assert!(table.clone().count() == 9 && table.clone().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("96.9 % sure") && text.contains("96.9 % (sign test)"), "{text}");
        assert!(text.contains("kv is 0.800 x as fast as etcd (0.800 to 0.800)."), "{text}");
    }

    #[test]
    fn no_difference_is_said_to_be_none() {
        let text = notes(&comparison("--rounds 2", &[[100, 101], [101, 100]]));
        assert!(text.contains("Which is faster is not shown"), "{text}");
        let one = notes(&comparison("--rounds 1", &[[100, 50]]));
        assert!(one.contains("One round has no spread"), "{one}");
        let open = notes(&comparison("--rounds 2 --rate 500", &[[100, 50], [100, 50]]));
        assert!(
            open.contains("At 500 calls a second each, kv's p99 is 1.98 x etcd's (1.98 to 1.98)."),
            "{open}"
        );
        assert!(!open.contains("closed loop") && !open.contains("not shown"), "{open}");
    }
}
