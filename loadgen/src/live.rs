//! The live view: one frame, redrawn in place while a run goes on.
//!
//! ```text
//! put on kv, closed loop, 64 in flight
//! ████████████████████████▌                   7 s of 12 s  measuring
//! rate     50.2 k/s  ▂▅▆▇▇▇▇▇▇   errors 0  timeouts 0
//! latency  p50 1.23 ms  p99 4.80 ms  p99.9 9.90 ms  max 12.1 ms
//! service  p50 1.21 ms  p99 4.75 ms  p99.9 9.88 ms  max 12.0 ms
//!           ▂▆█▇▅▃▂▁▁ ▁    ▁
//!             p50  p99  p99.9
//!          310 µs       12.1 ms
//! ```
//! Invariants:
//! - No line is wider than the terminal, so that the frame has as many rows as lines and moving up by them
//!   finds its beginning.
//! - The cursor is shown again when the view is dropped.
//! - With NO_COLOR nothing is coloured; a terminal that calls itself dumb gets plain lines instead.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;

use crate::series::{Point, Times};
use crate::units::{clock, count, rate, time};

/// Characters of a line at most, and where the terminal does not say how wide it is.
const WIDTH_MAX: usize = 100;
const WIDTH_DEFAULT: usize = 80;
/// Rates that are kept for the small curve.
const RATES_MAX: usize = 30;
/// Characters before what a line tells.
const LABEL_CHARS: usize = 9;
/// Columns and rows of the histogram.
const BINS_MAX: usize = 60;
const BIN_ROWS: usize = 4;
/// Parts of a row that a block character can fill, from the bottom.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Parts of a column, from the left.
const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// Escape sequences of a terminal.
const CURSOR_HIDE: &str = "\x1b[?25l";
const CURSOR_SHOW: &str = "\x1b[?25h";
const LINE_CLEAR: &str = "\x1b[2K";
const BELOW_CLEAR: &str = "\x1b[J";

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Strong,
    Faint,
    Bars,
    Alarm,
}

impl Style {
    /// The number that the terminal knows it by.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Bars => "36",
            Self::Alarm => "1;31",
        }
    }
}

/// A line in pieces.
type Line = Vec<(Style, String)>;

/// What a frame shows.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Since the start of the run.
    pub elapsed_s: f64,
    /// How long the run will be; `None` where it ends by itself.
    pub whole_s: Option<f64>,
    /// How much of it is done, 0 to 1.
    pub done: f64,
    /// What goes on.
    pub phase: &'a str,
    /// The last interval.
    pub point: &'a Point,
    /// What has to be said in red.
    pub warnings: &'a [String],
}

/// The view of a terminal.
#[derive(Debug)]
pub struct Live {
    title: String,
    is_colored: bool,
    rates: VecDeque<f64>,
    /// Lines of the last frame.
    drawn: usize,
}

impl Live {
    /// A view on standard error, where that is a terminal which can be drawn on.
    pub fn of_terminal(title: String) -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !io::stderr().is_terminal() || is_dumb {
            return None;
        }
        let is_colored = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Some(Self::new(title, is_colored))
    }

    fn new(title: String, is_colored: bool) -> Self {
        Self { title, is_colored, rates: VecDeque::with_capacity(RATES_MAX), drawn: 0 }
    }

    /// Adds the rate of an interval to the small curve.
    pub fn push_rate(&mut self, per_s: f64) {
        if self.rates.len() == RATES_MAX {
            self.rates.pop_front();
        }
        self.rates.push_back(per_s);
    }

    /// Draws a frame over the last one.
    pub fn draw(&mut self, scene: &Scene<'_>) {
        let frame = self.frame(scene, width());
        eprint!("{frame}");
    }

    /// What has to be written to draw a frame over the last one.
    fn frame(&mut self, scene: &Scene<'_>, width: usize) -> String {
        let lines = self.lines(scene, width);
        let mut text = CURSOR_HIDE.to_owned();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        for line in &lines {
            text.push_str(LINE_CLEAR);
            text.push_str(&render(line, width, self.is_colored));
            text.push('\n');
        }
        text.push_str(BELOW_CLEAR);
        self.drawn = lines.len();
        text
    }

    fn lines(&self, scene: &Scene<'_>, width: usize) -> Vec<Line> {
        let point = scene.point;
        let mut lines = vec![vec![(Style::Strong, self.title.clone())], bar(scene, width)];
        let failed = if point.errors > 0 { Style::Alarm } else { Style::Plain };
        let curve: String = sparks(self.rates.iter().copied()).collect();
        lines.push(vec![
            (Style::Faint, label("rate")),
            (Style::Strong, format!("{:<11}", rate(point.rate_per_s()))),
            (Style::Bars, format!("{curve:<RATES_MAX$}")),
            (failed, format!("  errors {}  timeouts {}", count(point.errors), count(point.timeouts))),
        ]);
        lines.push(times("latency", &point.latency));
        lines.push(times("service", &point.service));
        lines.extend(histogram(point, width));
        lines.extend(scene.warnings.iter().map(|why| vec![(Style::Alarm, format!("warning  {why}"))]));
        lines
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        restore();
    }
}

/// Shows the cursor again.
pub fn restore() {
    eprint!("{CURSOR_SHOW}");
}

/// Characters of a line.
fn width() -> usize {
    let told =
        tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col)).ok().filter(|width| *width > 0);
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    // The last column stays free: some terminals wrap as soon as it is written to.
    told.or_else(columns).unwrap_or(WIDTH_DEFAULT).saturating_sub(1).clamp(1, WIDTH_MAX)
}

/// A line as a terminal takes it, cut to so many characters.
fn render(line: &Line, width: usize, is_colored: bool) -> String {
    let (mut text, mut left) = (String::new(), width);
    for (style, piece) in line {
        let piece: String = piece.chars().take(left).collect();
        left -= piece.chars().count();
        if is_colored && *style != Style::Plain && !piece.is_empty() {
            text.push_str(&format!("\x1b[{}m{piece}\x1b[0m", style.code()));
        } else {
            text.push_str(&piece);
        }
    }
    text
}

fn label(name: &str) -> String {
    format!("{name:<LABEL_CHARS$}")
}

/// How far the run is.
fn bar(scene: &Scene<'_>, width: usize) -> Line {
    let elapsed = clock(scene.elapsed_s);
    let told = match scene.whole_s {
        Some(whole_s) => format!("  {elapsed} of {}  {}", clock(whole_s), scene.phase),
        None => format!("  {elapsed}  {:.0} %  {}", scene.done * 100.0, scene.phase),
    };
    let room = width.saturating_sub(told.chars().count()).clamp(1, BINS_MAX);
    let eighths = (scene.done.clamp(0.0, 1.0) * (room * PARTS.len()) as f64) as usize;
    let mut full: String = "█".repeat(eighths / PARTS.len());
    let mut rest = room - eighths / PARTS.len();
    if rest > 0 && !eighths.is_multiple_of(PARTS.len()) {
        full.push(PARTS[eighths % PARTS.len()]);
        rest -= 1;
    }
    vec![(Style::Bars, full), (Style::Faint, "░".repeat(rest)), (Style::Plain, told)]
}

fn times(name: &str, of: &Times) -> Line {
    let mut line = vec![(Style::Faint, label(name))];
    for (name, ns) in [("p50", of.p50), ("p99", of.p99), ("p99.9", of.p99_9), ("max", of.max)] {
        line.push((Style::Faint, format!("{name} ")));
        line.push((Style::Plain, format!("{:<10}", time(ns as f64))));
    }
    line
}

/// A small curve, a character for each value.
fn sparks(values: impl Iterator<Item = f64> + Clone) -> impl Iterator<Item = char> {
    let top = values.clone().fold(0.0, f64::max);
    values.map(move |value| if top > 0.0 { BLOCKS[1 + (value / top * 7.0) as usize] } else { BLOCKS[1] })
}

/// The latencies of an interval: columns over a logarithmic axis, with the percentiles below.
fn histogram(point: &Point, width: usize) -> Vec<Line> {
    let counts = point.latency_counts();
    let (Some((low, _)), Some((high, _))) = (counts.first(), counts.last()) else { return Vec::new() };
    let room = width.saturating_sub(LABEL_CHARS).min(BINS_MAX);
    if room < 20 {
        return Vec::new();
    }
    let (low, high) = (*low as f64, (*high as f64).max(*low as f64 * 1.1));
    let column_of = |ns: u64| {
        let share = (ns as f64 / low).ln() / (high / low).ln();
        ((share * room as f64) as usize).min(room - 1)
    };
    let mut bins = vec![0; room];
    for (ns, count) in counts {
        bins[column_of(*ns)] += count;
    }
    let indent = (Style::Plain, label(""));
    let row = |text: String| vec![indent.clone(), (Style::Bars, text)];
    let mut lines: Vec<Line> = columns(&bins).into_iter().map(row).collect();
    let marks = [("p50", point.latency.p50), ("p99", point.latency.p99), ("p99.9", point.latency.p99_9)];
    let marks = marks.map(|(name, ns)| (name, column_of(ns)));
    lines.push(vec![indent.clone(), (Style::Faint, marked(&marks, room))]);
    let (from, to) = (time(low), time(high));
    let gap = room.saturating_sub(from.chars().count() + to.chars().count());
    lines.push(vec![indent, (Style::Faint, format!("{from}{}{to}", " ".repeat(gap)))]);
    lines
}

/// Rows of columns, the top row first. What there is at all is seen.
fn columns(bins: &[u64]) -> Vec<String> {
    let top = bins.iter().copied().max().unwrap_or(0).max(1) as f64;
    let parts = (BIN_ROWS * 8) as f64;
    let heights: Vec<usize> =
        bins.iter().map(|count| (*count as f64 / top * parts).ceil().min(parts) as usize).collect();
    let rows = (0..BIN_ROWS).rev();
    rows.map(|row| heights.iter().map(|height| BLOCKS[height.saturating_sub(row * 8).min(8)]).collect())
        .collect()
}

/// A line of so many characters with names at columns; a name that would touch the one before is left out.
fn marked(marks: &[(&str, usize)], room: usize) -> String {
    let mut text = String::new();
    for (name, column) in marks {
        let len = text.chars().count();
        let column = (*column).min(room - name.len());
        if column >= len + usize::from(len > 0) {
            text.push_str(&" ".repeat(column - len));
            text.push_str(name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Interval;

    fn point() -> Point {
        let mut interval = Interval::default();
        for i in 1..=1000u64 {
            interval.succeed(i * i * 1000, 900_000);
        }
        interval.errors = 3;
        Point::of(&interval, 1.0, 2.0, false)
    }

    fn frame(live: &mut Live, width: usize) -> String {
        let (point, warnings) = (point(), ["loadgen is the bottleneck".to_owned()]);
        let scene = Scene {
            elapsed_s: 2.0,
            whole_s: Some(8.0),
            done: 0.25,
            phase: "measuring",
            point: &point,
            warnings: &warnings,
        };
        live.frame(&scene, width)
    }

    #[test]
    fn a_frame_tells_everything_and_fits() {
        for width in [10, 40, 80, 100] {
            let mut live = Live::new("put on kv, closed loop, 64 in flight".into(), false);
            [1.0, 4.0, 8.0].iter().for_each(|rate| live.push_rate(*rate));
            let first = frame(&mut live, width);
            let lines: Vec<&str> =
                first.lines().map(|line| line.split(LINE_CLEAR).last().unwrap_or("")).collect();
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
            assert!(!first.contains("\x1b[1m") && first.starts_with(CURSOR_HIDE));
            let again = frame(&mut live, width);
            assert!(again.starts_with(&format!("{CURSOR_HIDE}\x1b[{}A\r", live.drawn)), "{again:?}");
        }
        let mut live = Live::new("put on kv".into(), true);
        [1.0, 4.0, 8.0].iter().for_each(|rate| live.push_rate(*rate));
        let text = frame(&mut live, 80);
        for want in ["\x1b[1mput on kv", "2 s of 8 s  measuring", "1.00 k/s", "▁▄█", "errors 3", "p99.9"]
        {
            assert!(text.contains(want), "{want}: {text}");
        }
        assert!(text.contains("250 ms") && text.contains("\x1b[1;31mwarning  loadgen is"), "{text}");
    }

    #[test]
    fn columns_and_marks() {
        assert_eq!(columns(&[0, 1, 32, 16]), ["  █ ", "  █ ", "  ██", " ▁██"]);
        assert_eq!(marked(&[("p50", 0), ("p99", 2), ("p99.9", 6)], 20), "p50   p99.9");
        assert_eq!(marked(&[("p50", 3), ("p99", 7)], 9), "   p50");
        assert_eq!(marked(&[("p50", 3), ("p99", 9)], 10), "   p50 p99");
    }
}
