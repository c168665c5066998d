//! A run from start to end: reaches the cluster, starts the engines, tells how it goes, ends and reports.
//!
//! The supervisor has a thread and a runtime of its own: it keeps the routing table fresh and prints, so that
//! an engine does nothing but calls.

use std::future::poll_fn;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::args::{Output, Settings, Workload};
use crate::audit;
use crate::control::{Control, ControlError};
use crate::engine::{Engine, schedule_of};
use crate::header::{self, header};
use crate::hgrm;
use crate::host::Host;
use crate::record::{self, Interval, Record, SharedRecord, Total};
use crate::report::{Report, progress};
use crate::routing::Routing;
use crate::shared::Shared;

/// How often the routing table is asked for without a reason.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// The shortest pause between two questions for it, whatever the reasons.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// How often a line is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The run failed, see [`Report::verdict`].
const EXIT_FAILED: u8 = 1;
/// No endpoint could be reached.
const EXIT_UNREACHABLE: u8 = 3;

/// Runs to the end.
pub fn run(settings: Settings) -> ExitCode {
    let settings = &Arc::new(settings);
    eprint!("{}", header(settings, &Host::here()));
    let outcome = runtime().map_err(RunError::Io).and_then(|runtime| runtime.block_on(supervise(settings)));
    match outcome {
        Ok(Measured { total, duration_s }) => finish(&Report { settings, total: &total, duration_s }),
        Err(RunError::Unreachable(error)) => {
            eprintln!("loadgen: none of {} could be reached: {error}", settings.endpoints.join(","));
            ExitCode::from(EXIT_UNREACHABLE)
        }
        Err(RunError::NoConnection) => {
            eprintln!("loadgen: no connection to a node that the routing table names could be made");
            ExitCode::from(EXIT_UNREACHABLE)
        }
        Err(RunError::Unwritten(missing)) => {
            eprintln!("loadgen: --preload: {missing} keys were not written");
            ExitCode::from(EXIT_FAILED)
        }
        Err(RunError::Io(error)) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Measured {
    /// What was started in the measured window.
    pub total: Total,
    /// How long that was.
    pub duration_s: f64,
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

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Writes the results.
fn finish(report: &Report<'_>) -> ExitCode {
    match report.settings.output {
        Output::Table => print!("{}", report.table()),
        Output::Json => {
            eprint!("{}", report.notes());
            println!("{}", report.json());
        }
    }
    let mut code = ExitCode::SUCCESS;
    if let Err(why) = report.verdict() {
        eprintln!("loadgen: {why}");
        code = ExitCode::from(EXIT_FAILED);
    }
    if let Some((path, file)) = &report.settings.hgrm
        && let Err(error) = hgrm::write(&report.total.latency_ns, io::BufWriter::new(&**file))
    {
        eprintln!("loadgen: {}: {error}", path.display());
        code = ExitCode::from(EXIT_FAILED);
    }
    code
}

/// Runs what the settings say, the preload before it included.
pub async fn supervise(settings: &Arc<Settings>) -> Result<Measured, RunError> {
    let mut control = Control::new(&settings.endpoints);
    let routing = first_routing(settings, &mut control).await?;
    eprint!("{}", header::server(control.about(settings.target).await.as_ref()));
    let mut failed = 0;
    if settings.preload {
        failed = preload(settings, routing.clone()).await?;
    }
    run_engines(settings, control, routing, failed > 0).await
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
async fn preload(settings: &Settings, routing: Routing) -> Result<u64, RunError> {
    let load = Arc::new(settings.for_preload());
    eprintln!("  {:<12} {} keys", "preloading", load.keys);
    let Measured { total, duration_s } =
        run_engines(&load, Control::new(&load.endpoints), routing, false).await?;
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
    let up = engines.connected().await;
    if up == 0 && shared.stopped_ns().is_none() {
        engines.abandon();
        return Err(RunError::NoConnection);
    }
    eprintln!("  {:<12} {up} up", "connected");
    let start_ns = shared.now_ns();
    engines.go.send_replace(Some(start_ns));
    watch_over(settings, &shared, control, &mut engines).await;
    let end_ns = shared.now_ns();
    let mut total = engines.join().map_err(RunError::Io)?;
    total.audit = audit::audited(settings, &shared, has_strays).await;
    Ok(Measured { total, duration_s: duration_s(settings, start_ns, end_ns, shared.stopped_ns()) })
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
async fn watch_over(settings: &Settings, shared: &Arc<Shared>, control: Control, engines: &mut Engines) {
    let refreshing = async {
        if settings.target.has_routing() {
            refresh(control, shared).await;
        }
        std::future::pending().await
    };
    let printing = print_progress(engines.records.clone());
    tokio::select! {
        () = async { while engines.words.recv().await.is_some() {} } => {}
        () = refreshing => {}
        () = printing => {}
        () = interrupt(shared) => {}
    }
}

/// The first Ctrl-C ends the run early, the second one ends it at once.
async fn interrupt(shared: &Shared) {
    if tokio::signal::ctrl_c().await.is_err() {
        return std::future::pending().await;
    }
    eprintln!("loadgen: interrupted, waiting for at most a second for what is under way");
    shared.stop();
    if tokio::signal::ctrl_c().await.is_ok() {
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

/// One line a second.
async fn print_progress(records: Vec<SharedRecord>) {
    let start = Instant::now();
    let mut ticks = interval_at(start + PROGRESS_EVERY, PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut sum, mut spare) = (start, Interval::default(), Interval::default());
    loop {
        let now = ticks.tick().await;
        for record in &records {
            std::mem::swap(&mut record::lock(record).interval, &mut spare);
            sum.merge(&spare);
            spare.clear();
        }
        let (elapsed, interval) = (now - start, now - last);
        eprintln!("{}", progress(elapsed.as_secs_f64(), interval.as_secs_f64(), &sum));
        sum.clear();
        last = now;
    }
}

/// The engines' threads.
struct Engines {
    threads: Vec<JoinHandle<io::Result<()>>>,
    records: Vec<SharedRecord>,
    /// What the engines say: how many connections they have. Closed when the last one has ended.
    words: mpsc::Receiver<usize>,
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
    async fn connected(&mut self) -> usize {
        let mut up = 0;
        for _ in 0..self.threads.len() {
            up += self.words.recv().await.unwrap_or(0);
        }
        up
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
    (say, mut started): (mpsc::Sender<usize>, watch::Receiver<Option<u64>>),
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
