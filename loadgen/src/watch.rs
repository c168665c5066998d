//! What is told while a run goes on: collects what the engines recorded once a second, keeps the series,
//! writes the interval log, and prints a line or draws the live view.
//!
//! It lives on the supervisor's thread. It takes an engine's lock only to swap an interval for an empty one.

use std::fs::File;
use std::io::{self, BufWriter};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::args::{Settings, Workload};
use crate::interval_log::IntervalLog;
use crate::live::{Live, Scene};
use crate::record::{self, Interval, SharedRecord};
use crate::report::progress;
use crate::series::{Point, Series};
use crate::shared::Shared;
use crate::warnings;

/// How long an interval is.
const INTERVAL: Duration = Duration::from_secs(1);
/// Frames of the live view in an interval.
const FRAMES: u32 = 4;

/// Watches one run.
pub struct Watch<'a> {
    settings: &'a Settings,
    shared: &'a Shared,
    records: Vec<SharedRecord>,
    start: Instant,
    /// When the last interval ended, since the start.
    last_s: f64,
    sum: Interval,
    spare: Interval,
    series: Series,
    /// The last interval.
    point: Point,
    operations: u64,
    log: Option<IntervalLog<BufWriter<&'a File>>>,
    log_error: Option<io::Error>,
    live: Option<Live>,
    is_warned: bool,
}

impl<'a> Watch<'a> {
    /// Watches a run that begins now.
    pub fn begin(settings: &'a Settings, shared: &'a Shared, records: Vec<SharedRecord>) -> Self {
        let log = settings.interval_log.as_ref().map(|(_, file)| BufWriter::new(&**file));
        let (log, log_error) = match log.map(|to| IntervalLog::begin(to, SystemTime::now())) {
            None => (None, None),
            Some(Ok(log)) => (Some(log), None),
            Some(Err(error)) => (None, Some(error)),
        };
        Self {
            settings,
            shared,
            records,
            start: Instant::now(),
            last_s: 0.0,
            sum: Interval::default(),
            spare: Interval::default(),
            series: Series::default(),
            point: Point::of(&Interval::default(), 0.0, 0.0, true),
            operations: 0,
            log,
            log_error,
            live: if settings.live && !settings.quiet { Live::of_terminal(title(settings)) } else { None },
            is_warned: false,
        }
    }

    /// Whether the terminal is drawn on, so that nobody else should write to it.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Watches until dropped.
    pub async fn watch(&mut self) {
        let frames = if self.is_live() { FRAMES } else { 1 };
        let every = INTERVAL / frames;
        let mut ticks = interval_at(self.start + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 1u32.. {
            let elapsed_s = (ticks.tick().await - self.start).as_secs_f64();
            if tick.is_multiple_of(frames) {
                self.collect(elapsed_s);
                self.series.push(self.point.clone());
                self.tell(elapsed_s);
            }
            self.draw(elapsed_s);
        }
    }

    /// Takes what is left once the engines have ended. Gives the series, and why the log is not whole.
    pub fn end(mut self) -> (Series, Option<io::Error>) {
        let elapsed_s = self.start.elapsed().as_secs_f64();
        let shown = self.point.clone();
        self.collect(elapsed_s);
        self.series.end(self.point.clone());
        if shown.to_s > 0.0 {
            // The frame keeps the last whole interval: what is left tells less.
            self.point = shown;
        }
        self.draw(elapsed_s);
        (self.series, self.log_error)
    }

    /// Takes what the engines recorded since the last time.
    fn collect(&mut self, to_s: f64) {
        self.sum.clear();
        for record in &self.records {
            std::mem::swap(&mut record::lock(record).interval, &mut self.spare);
            self.sum.merge(&self.spare);
            self.spare.clear();
        }
        let is_warmup =
            self.settings.workload != Workload::Load && self.last_s < self.settings.warmup.as_secs_f64();
        self.point = Point::of(&self.sum, self.last_s, to_s, is_warmup);
        self.operations += self.point.operations;
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(&self.sum, self.last_s, to_s)
        {
            self.log_error = Some(error);
            self.log = None;
        }
        self.last_s = to_s;
    }

    /// Prints a line, where nothing is drawn.
    fn tell(&mut self, elapsed_s: f64) {
        if let Some(live) = &mut self.live {
            live.push_rate(self.point.rate_per_s());
            return;
        }
        if self.settings.quiet {
            return;
        }
        eprintln!("{}", progress(elapsed_s, self.point.span_s(), &self.sum));
        let warnings = warnings::of_point(&self.point);
        if !self.is_warned {
            warnings.iter().for_each(|why| eprintln!("loadgen: warning: {why}"));
        }
        self.is_warned = !warnings.is_empty();
    }

    fn draw(&mut self, elapsed_s: f64) {
        let Some(live) = &mut self.live else { return };
        let (warmup_s, settings) = (self.settings.warmup.as_secs_f64(), self.settings);
        let is_load = settings.workload == Workload::Load;
        let whole_s = (!is_load).then_some(warmup_s + settings.duration.as_secs_f64());
        let done = match whole_s {
            Some(whole_s) => elapsed_s / whole_s,
            None => self.operations as f64 / settings.keys as f64,
        };
        let phase = match whole_s {
            _ if self.shared.stopped_ns().is_some() => "interrupted",
            Some(_) if elapsed_s < warmup_s => "warm-up",
            Some(whole_s) if elapsed_s >= whole_s => "finished",
            Some(_) => "measuring",
            None => "loading",
        };
        let warnings = warnings::of_point(&self.point);
        live.draw(&Scene { elapsed_s, whole_s, done, phase, point: &self.point, warnings: &warnings });
    }
}

/// What is measured, in a line.
pub fn title(settings: &Settings) -> String {
    format!("{} on {}, {}", settings.workload, settings.target, pace(settings))
}

/// How calls follow each other, in a few words.
pub fn pace(settings: &Settings) -> String {
    match settings.rate {
        None => format!("closed loop, {} in flight", settings.in_flight),
        Some(rate) => format!("open loop, {rate}/s"),
    }
}
