//! A run from start to end: reaches the cluster, starts the engines, tells how it goes, ends and reports.
//!
//! The supervisor has a thread and a runtime of its own: it keeps the routing table fresh and prints, so that
//! an engine does nothing but calls.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};

use crate::args::{Output, Settings, Workload};
use crate::audit;
use crate::control::{About, Control, ControlError};
use crate::engine::{Engine, schedule_of};
use crate::header::{self, header};
use crate::host::Host;
use crate::html::{self, RunView};
use crate::json;
use crate::links::Up;
use crate::live;
use crate::record::{self, Measured, Record, SharedRecord, Total};
use crate::report::Report;
use crate::routing::Routing;
use crate::shared::Shared;
use crate::watch::{Watch, title};
use crate::{hgrm, warnings};

/// How often the routing table is asked for without a reason.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// The shortest pause between two questions for it, whatever the reasons.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// The run failed, see [`Report::verdict`].
pub const EXIT_FAILED: u8 = 1;
/// No endpoint could be reached.
const EXIT_UNREACHABLE: u8 = 3;

/// Runs to the end.
pub fn run(settings: Settings) -> ExitCode {
    let settings = &Arc::new(settings);
    eprint!("{}", header(settings, &Host::here()));
    let outcome = runtime().map_err(RunError::Io).and_then(|runtime| runtime.block_on(supervise(settings)));
    match outcome {
        Ok(measured) => finish(&Report { settings, measured: &measured }),
        Err(error) => {
            eprintln!("loadgen: {}", error.told(settings));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Why a run came to nothing.
#[derive(Debug)]
pub enum RunError {
    /// No endpoint answered.
    Unreachable(ControlError),
    /// No engine got a connection.
    NoConnection,
    /// So many keys could not be written before the run.
    Unwritten(u64),
    /// The system refused a timer, a thread or a socket.
    Io(io::Error),
}

impl RunError {
    /// What happened, of a run with these settings.
    pub fn told(&self, settings: &Settings) -> String {
        match self {
            Self::Unreachable(error) => {
                format!("none of {} could be reached: {error}", settings.endpoints.join(","))
            }
            Self::NoConnection => {
                "no connection to a node that the routing table names could be made".to_owned()
            }
            Self::Unwritten(missing) => format!("--preload: {missing} keys were not written"),
            Self::Io(error) => error.to_string(),
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable(_) | Self::NoConnection => EXIT_UNREACHABLE,
            Self::Unwritten(_) | Self::Io(_) => EXIT_FAILED,
        }
    }
}

/// The supervisor's.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Writes the results.
fn finish(report: &Report<'_>) -> ExitCode {
    let Report { settings, measured } = *report;
    match settings.output {
        Output::Table => print!("{}", report.table()),
        Output::Json => {
            eprint!("{}", report.notes());
            println!("{}", json::of(report));
        }
    }
    let mut failures = Vec::new();
    failures.extend(report.verdict().err());
    let log = settings.interval_log.as_ref().zip(measured.log_error.as_ref());
    failures.extend(log.map(|((path, _), error)| format!("{}: {error}", path.display())));
    if let Some((path, file)) = &settings.hgrm {
        let written = hgrm::write(&measured.total.latency_ns(), io::BufWriter::new(&**file));
        failures.extend(written.err().map(|error| format!("{}: {error}", path.display())));
    }
    if let Some((path, file)) = &settings.html {
        let page = html::page(&title(settings), &[view_of(report)]);
        let written = (&**file).write_all(page.as_bytes());
        failures.extend(written.err().map(|error| format!("{}: {error}", path.display())));
    }
    failures.iter().for_each(|why| eprintln!("loadgen: {why}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

/// A run as the page shows it.
fn view_of<'a>(report: &Report<'a>) -> RunView<'a> {
    let Report { settings, measured } = *report;
    let mut warnings = warnings::of_run(settings, &measured.total);
    warnings.extend(measured.total.audit.as_ref().and_then(|audit| audit.verdict().err()));
    RunView {
        label: settings.target.to_string(),
        facts: json::facts(report),
        measured,
        warmup_s: settings.warmup.as_secs_f64(),
        rate: settings.rate,
        warnings,
    }
}

/// Runs what the settings say, the preload before it included.
pub async fn supervise(settings: &Arc<Settings>) -> Result<Measured, RunError> {
    let reached = reach(settings).await?;
    eprint!("{}", header::row("server", &header::server(reached.about.as_ref())));
    let mut failed = 0;
    if settings.preload {
        failed = preload(settings, reached.routing.clone()).await?;
    }
    measure(settings, reached, failed > 0).await
}

/// A cluster that answers.
pub struct Reached {
    /// Asks it for its routing table.
    control: Control,
    /// The first one.
    pub routing: Routing,
    /// What it is, where it tells.
    pub about: Option<About>,
}

/// Finds the cluster.
pub async fn reach(settings: &Settings) -> Result<Reached, RunError> {
    let mut control = Control::new(&settings.endpoints);
    let routing = first_routing(settings, &mut control).await?;
    let about = control.about(settings.target).await;
    Ok(Reached { control, routing, about })
}

/// One run, of a cluster that was found. `has_strays`: writes of before it may take effect in it.
pub async fn measure(
    settings: &Arc<Settings>,
    reached: Reached,
    has_strays: bool,
) -> Result<Measured, RunError> {
    let Reached { control, routing, about } = reached;
    let measured = run_engines(settings, control, routing, has_strays).await?;
    Ok(Measured { about, ..measured })
}

/// Where calls go at first.
async fn first_routing(settings: &Settings, control: &mut Control) -> Result<Routing, RunError> {
    if settings.target.has_routing() {
        return control.first_routing().await.map_err(RunError::Unreachable);
    }
    control.reach().await.map_err(RunError::Unreachable)?;
    Ok(Routing::any_of(&settings.endpoints))
}

/// Writes every key once, as a run of its own that is told in a line. Gives how many writes were tried again.
pub async fn preload(settings: &Settings, routing: Routing) -> Result<u64, RunError> {
    let load = Arc::new(settings.for_preload());
    let where_to = format!("{} at {}", load.target, load.endpoints[0]);
    eprintln!("  {:<12} {} keys, to {where_to}", "preloading", load.keys);
    let measured = run_engines(&load, Control::new(&load.endpoints), routing, false).await?;
    let Measured { total, duration_s, .. } = measured;
    let (written, errors) = (total.operations(), total.failures());
    let told = format!("{written} keys in {duration_s:.1} s, {errors} writes tried again");
    eprint!("{}", header::row("preloaded", &told));
    match load.keys - written.min(load.keys) {
        0 => Ok(errors),
        missing => Err(RunError::Unwritten(missing)),
    }
}

/// Runs the engines and everything around them, the audit after them included. `has_strays`: writes of before
/// the run may take effect in it.
async fn run_engines(
    settings: &Arc<Settings>,
    control: Control,
    routing: Routing,
    has_strays: bool,
) -> Result<Measured, RunError> {
    let shared = Arc::new(Shared::new(routing));
    let mut engines = Engines::start(settings, &shared).map_err(RunError::Io)?;
    let connected = engines.connected().await;
    if connected.up == 0 && shared.stopped_ns().is_none() {
        engines.abandon();
        return Err(RunError::NoConnection);
    }
    if !settings.quiet {
        eprint!("{}", header::row("connected", &format!("{} up", connected.up)));
    }
    let start_ns = shared.now_ns();
    engines.go.send_replace(Some(start_ns));
    let mut watch = Watch::begin(settings, &shared, engines.records.clone());
    watch_over(settings, &shared, control, &mut engines, &mut watch).await;
    let end_ns = shared.now_ns();
    let mut total = engines.join().map_err(RunError::Io)?;
    total.unconnected = (connected.all - connected.up) as u64;
    let (series, log_error) = watch.end();
    let duration_s = duration_s(settings, start_ns, end_ns, shared.stopped_ns());
    total.audit = audit::audited(settings, &shared, has_strays).await;
    Ok(Measured { total, duration_s, series, log_error, about: None, host: Host::here() })
}

/// How long was measured: what was asked for, or less where it was interrupted; all of it for a load.
fn duration_s(settings: &Settings, start_ns: u64, end_ns: u64, stopped_ns: Option<u64>) -> f64 {
    let ran = Duration::from_nanos(stopped_ns.unwrap_or(u64::MAX).min(end_ns).saturating_sub(start_ns));
    if settings.workload == Workload::Load {
        return ran.as_secs_f64();
    }
    ran.saturating_sub(settings.warmup).min(settings.duration).as_secs_f64()
}

/// Prints, refreshes the routing table and listens for Ctrl-C until the engines have ended.
async fn watch_over(
    settings: &Settings,
    shared: &Arc<Shared>,
    control: Control,
    engines: &mut Engines,
    watch: &mut Watch<'_>,
) {
    let is_live = watch.is_live();
    let refreshing = async {
        if settings.target.has_routing() {
            refresh(control, shared).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = async { while engines.words.recv().await.is_some() {} } => {}
        () = refreshing => {}
        () = watch.watch() => {}
        () = interrupt(shared, is_live) => {}
    }
}

/// The first Ctrl-C ends the run early, the second one ends it at once. A live view says the first by itself.
async fn interrupt(shared: &Shared, is_live: bool) {
    if tokio::signal::ctrl_c().await.is_err() {
        return std::future::pending().await;
    }
    shared.stop();
    if !is_live {
        eprintln!("loadgen: interrupted, waiting for at most a second for what is under way");
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        if is_live {
            live::restore();
        }
        std::process::exit(130);
    }
    std::future::pending().await
}

/// Asks for the routing table once a second, and sooner where an engine wants it.
async fn refresh(mut control: Control, shared: &Shared) {
    loop {
        let asked = Instant::now();
        // What cannot be told now is asked again; meanwhile the last table serves.
        if let Ok(routing) = control.routing().await {
            shared.publish(routing);
        }
        sleep_until(asked + REFRESH_PAUSE).await;
        tokio::select! {
            () = sleep_until(asked + REFRESH_EVERY) => {}
            () = shared.refresh.notified() => {}
        }
    }
}

/// The engines' threads.
struct Engines {
    threads: Vec<JoinHandle<io::Result<()>>>,
    records: Vec<SharedRecord>,
    /// What the engines say: how many connections they have. Closed when the last one has ended.
    words: mpsc::Receiver<Up>,
    /// When they begin, in nanoseconds of the run.
    go: watch::Sender<Option<u64>>,
}

impl Engines {
    fn start(settings: &Arc<Settings>, shared: &Arc<Shared>) -> io::Result<Self> {
        let (go, started) = watch::channel(None);
        let (say, words) = mpsc::channel(settings.threads);
        let mut engines = Self { threads: Vec::new(), records: Vec::new(), words, go };
        for number in 0..settings.threads {
            let record = Arc::new(Mutex::new(Record::default()));
            engines.records.push(Arc::clone(&record));
            let thread = (number, settings.threads);
            let (settings, shared) = (Arc::clone(settings), Arc::clone(shared));
            let (say, started) = (say.clone(), started.clone());
            let body = move || runtime()?.block_on(drive(settings, thread, shared, record, (say, started)));
            engines.threads.push(std::thread::Builder::new().name(format!("engine-{number}")).spawn(body)?);
        }
        Ok(engines)
    }

    /// Waits until every engine has connected, or failed to. Gives the connections that are up.
    async fn connected(&mut self) -> Up {
        let mut sum = Up::default();
        for _ in 0..self.threads.len() {
            let engine = self.words.recv().await.unwrap_or_default();
            sum = Up { up: sum.up + engine.up, all: sum.all + engine.all };
        }
        sum
    }

    /// Lets the engines end without a run.
    fn abandon(self) {
        drop(self.go);
    }

    /// Waits for the threads and adds up what they recorded.
    fn join(self) -> io::Result<Total> {
        for thread in self.threads {
            match thread.join() {
                Ok(outcome) => outcome?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let mut total = Total::default();
        for record in &self.records {
            total.merge(&record::lock(record).total);
        }
        Ok(total)
    }
}

/// An engine's thread: connects, says so, waits for the start, runs.
async fn drive(
    settings: Arc<Settings>,
    thread: (usize, usize),
    shared: Arc<Shared>,
    record: SharedRecord,
    (say, mut started): (mpsc::Sender<Up>, watch::Receiver<Option<u64>>),
) -> io::Result<()> {
    let mut engine = Engine::new(&settings, thread, shared, record)?;
    // The engine polls its sockets until they have nothing more, so tokio's budget would only make it spin.
    unconstrained(poll_fn(|context| engine.poll_connect(context))).await?;
    // The supervisor listens until this thread has ended; where it does not, there is no run either.
    let _ = say.send(engine.links_up()).await;
    let Ok(start_ns) = started.wait_for(Option::is_some).await.map(|start| *start) else { return Ok(()) };
    if let Some(start_ns) = start_ns {
        engine.begin(schedule_of(&settings, thread, start_ns));
        unconstrained(poll_fn(|context| engine.poll_run(context))).await?;
    }
    Ok(())
}
