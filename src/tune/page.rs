//! What a person reads: the table of findings, the table of the disk, the advice. Plain text of at most
//! [`COLUMNS`] columns, with colours on request.

use std::fmt::Write as _;

use super::advice::Choice;
use super::disk::{DEPTHS, Disk, SIZES};
use super::finding::{Finding, State};

/// The width of everything.
pub const COLUMNS: usize = 116;

/// How text is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// As it is.
    Plain,
    /// In colours, by the codes of terminals.
    Coloured,
}

impl Ink {
    /// A text that is padded already, in the colour of a state.
    fn of_state(self, state: State, text: &str) -> String {
        let code = match state {
            State::Ok => "32",
            State::Unknown => "2",
            State::Better => "33",
            State::Needed => "1;31",
        };
        self.with(code, text)
    }

    /// A text of weight.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// Bytes as people say them.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = bytes;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        whole /= 1024;
        unit += 1;
    }
    let tenths = (bytes >> (10 * unit.saturating_sub(1))) % 1024 * 10 / 1024;
    if unit > 0 && tenths > 0 && whole < 10 {
        return format!("{whole}.{tenths} {}", UNITS[unit]);
    }
    format!("{whole} {}", UNITS[unit])
}

/// The columns of the table of findings: their heads, and how wide the first four are. The last one takes
/// what is left.
const WIDTHS: [usize; 4] = [6, 13, 27, 26];

/// The table of findings: state, what, found, wanted, how to change it.
#[must_use]
pub fn findings_table(findings: &[Finding], ink: Ink) -> String {
    let heads = ["state", "what", "found", "wanted", "how to change it"];
    let mut out = row(&heads.map(str::to_owned), |_, text| ink.bold(text));
    for finding in findings {
        let cells = [
            finding.state.word().to_owned(),
            finding.what.to_owned(),
            finding.found.clone(),
            finding.wanted.clone(),
            finding.change.clone(),
        ];
        out += &row(&cells, |column, text| match column {
            0 => ink.of_state(finding.state, text),
            2 if finding.state > State::Unknown => ink.of_state(finding.state, text),
            _ => text.to_owned(),
        });
    }
    out
}

/// One row, each cell in lines of its column's width.
fn row(cells: &[String; 5], paint: impl Fn(usize, &str) -> String) -> String {
    let used: usize = WIDTHS.iter().map(|width| width + 1).sum();
    let width_of = |column: usize| WIDTHS.get(column).copied().unwrap_or(COLUMNS - used);
    let wrapped: Vec<Vec<String>> =
        cells.iter().enumerate().map(|(column, cell)| wrap(cell, width_of(column))).collect();
    let lines = wrapped.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = String::new();
    for line in 0..lines {
        let mut text = String::new();
        for (column, cell) in wrapped.iter().enumerate() {
            let part = cell.get(line).map_or("", String::as_str);
            let gap = " ".repeat(width_of(column).saturating_sub(part.chars().count()) + 1);
            text += &if part.is_empty() { String::new() } else { paint(column, part) };
            text += &gap;
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

/// A text in lines of at most `width` characters, broken between words where it can be.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word;
        let taken = line.chars().count();
        if taken > 0 && taken + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        while word.chars().count() > width {
            let at = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
            lines.push(word[..at].to_owned());
            word = &word[at..];
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// The table of the disk: how long the log's writes take alone, how many there are by depth, and how much.
#[must_use]
pub fn disk_table(disk: &Disk, ink: Ink) -> String {
    let mut out = String::new();
    let head =
        format!("{:8} {:17}  {:^41}  {:^41}", "", "ms at depth 1", "writes/s at depth", "MB/s at depth");
    out += &(ink.bold(head.trim_end()) + "\n");
    let depths = |out: &mut String| DEPTHS.iter().for_each(|depth| *out += &format!("{depth:>7}"));
    let mut head = format!("{:8} {:>8} {:>8} ", "write", "p50", "p99");
    depths(&mut head);
    head.push_str("  ");
    depths(&mut head);
    out += &(ink.bold(&head) + "\n");
    for bytes in SIZES {
        let alone = disk.cell(bytes, DEPTHS[0]);
        let ms = |us: Option<u64>| us.map_or("-".into(), |us| format!("{}.{:02}", us / 1000, us % 1000 / 10));
        let (p50, p99) = (ms(alone.map(|cell| cell.p50_us)), ms(alone.map(|cell| cell.p99_us)));
        let mut line = format!("{:8} {p50:>8} {p99:>8} ", bytes_text(u64::from(bytes)));
        for depth in DEPTHS {
            let rate = disk.cell(bytes, depth).map_or("-".into(), |cell| rate_text(cell.rate()));
            line += &format!("{rate:>7}");
        }
        line.push_str("  ");
        for depth in DEPTHS {
            let rate = disk.cell(bytes, depth).map_or("-".into(), |cell| {
                let mega = cell.bytes_per_s() / 100_000;
                if mega < 100 { format!("{}.{}", mega / 10, mega % 10) } else { (mega / 10).to_string() }
            });
            line += &format!("{rate:>7}");
        }
        let _ = writeln!(out, "{line}");
    }
    out
}

/// A rate in few characters.
fn rate_text(rate: u64) -> String {
    match rate {
        0..10_000 => rate.to_string(),
        10_000..100_000 => format!("{}.{}k", rate / 1000, rate % 1000 / 100),
        _ => format!("{}k", rate / 1000),
    }
}

/// What the findings come to, in one line.
#[must_use]
pub fn summary(findings: &[Finding], ink: Ink) -> String {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (needed, better) = (count(State::Needed), count(State::Better));
    let things = |count: usize| if count == 1 { "thing" } else { "things" };
    match (needed, better) {
        (0, 0) => ink.of_state(State::Ok, "This host is as a node wants it."),
        (0, better) => {
            let text = format!("A node runs here; {better} {} could be better.", things(better));
            ink.of_state(State::Better, &text)
        }
        (needed, better) => {
            let text = format!("{needed} {} missing that a node needs", things(needed));
            let also = if better > 0 { format!("; {better} could be better.") } else { ".".into() };
            ink.of_state(State::Needed, &(text + &also))
        }
    }
}

/// Sentences in lines of [`COLUMNS`].
#[must_use]
pub fn paragraph(text: &str) -> String {
    wrap(text, COLUMNS).iter().fold(String::new(), |out, line| out + line + "\n")
}

/// The advice in plain words: each setting, its value and why.
#[must_use]
pub fn advice_text(choices: &[Choice], ink: Ink) -> String {
    let mut out = String::new();
    for choice in choices {
        let setting = format!("{} = {}", choice.key, choice.value);
        let lines = wrap(&choice.reason, COLUMNS - 40);
        let padded = format!("{setting:<37}");
        for (at, line) in lines.iter().enumerate() {
            let before = if at == 0 { ink.bold(&padded) } else { " ".repeat(37) };
            let _ = writeln!(out, "  {before} {line}");
        }
    }
    out
}

/// The profile as a file that `--profile` takes.
#[must_use]
pub fn profile_text(choices: &[Choice], made_for: &str) -> String {
    let mut out = format!("# A profile for {made_for}, as `kvserver tune` found it.\n");
    out +=
        "# What is not here has its default. Settings of the cluster are not: they agree on all nodes.\n\n";
    out += "[node]\n";
    for choice in choices {
        for line in wrap(&choice.reason, 110) {
            let _ = writeln!(out, "# {line}");
        }
        let _ = writeln!(out, "{} = {}", choice.key, choice.value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_as_people_do() {
        let texts = [0, 1023, 1024, 1536, 8 << 20, 77 << 30, 5 << 40, 10 << 40].map(bytes_text);
        assert_eq!(texts, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "8 MiB", "77 GiB", "5 TiB", "10 TiB"]);
    }

    #[test]
    fn long_texts_are_broken_between_words_and_long_words_inside() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("/a/very/long/path x", 8), ["/a/very/", "long/pat", "h x"]);
        assert!(wrap("", 8).is_empty());
    }
}
