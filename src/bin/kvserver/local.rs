//! `kvserver local`: a whole cluster on this machine, one process a node.
//!
//! Each node is a process of its own, so that one can be killed and the others go on. Their output is
//! prefixed and passed on. They end with this process, however it ends.
//!
//! Invariants:
//! - A node that has ended is sent nothing: its process id may be another's by then.
//! - That nobody reads what is said is no reason to end: it is not said, and the nodes serve on.

use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::args::LocalArgs;
use distribkv::env::os::process;

/// How long nodes may take to end when they are asked to.
const STOP_MAX: Duration = Duration::from_secs(15);

enum Event {
    Line(u16, String),
    Ready(u16),
    Ended(u16),
    Signal,
}

/// Runs the cluster until Ctrl-C; the exit code of the process.
pub fn run(args: &LocalArgs) -> i32 {
    let (sender, events) = mpsc::channel();
    let watcher = sender.clone();
    thread::spawn(move || watch_signals(&watcher));
    let peers: Vec<String> = (0..args.nodes).map(|at| format!("localhost:{}", args.base_port + at)).collect();
    let mut children = Vec::new();
    for node in 1..=args.nodes {
        match start(args, node, &peers.join(","), &sender) {
            Ok(child) => children.push(child),
            Err(error) => {
                complain(&format!("node {node} cannot be started: {error}"));
                stop(&mut children);
                return 1;
            }
        }
    }
    match watch(args, &peers, &events, &mut children) {
        Some(code) => code,
        None if stop(&mut children) => 0,
        None => 1,
    }
}

/// Says when Ctrl-C or SIGTERM came; a second one ends this process at once, and the nodes with it.
fn watch_signals(events: &mpsc::Sender<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let watched = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
            let mut seen = 0;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                seen += 1;
                if seen > 1 || events.send(Event::Signal).is_err() {
                    std::process::exit(130);
                }
            }
        })
    });
    let _: io::Result<()> =
        watched.inspect_err(|error| complain(&format!("signals cannot be watched: {error}")));
}

fn start(args: &LocalArgs, node: u16, peers: &str, events: &mpsc::Sender<Event>) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--profile", &args.profile, "--id", &node.to_string(), "--peers", peers]);
    if args.profile != "dev" {
        command.args(["--no-pin", "--cores", &cores_of_each(args.nodes).to_string()]);
    }
    command
        .arg(format!("--die-with-parent={}", std::process::id()))
        .args(["--log-level", &args.log_level, "--data-dir"])
        .arg(args.data_dir.join(format!("node-{node}")));
    if let Some(shards) = args.shards {
        command.args(["--shards", &shards.to_string()]);
    }
    // A group of its own, so that Ctrl-C comes here alone and the nodes are asked to end once.
    command.process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let outputs: [Option<Box<dyn io::Read + Send>>; 2] = [
        child.stdout.take().map(|stdout| Box::new(stdout) as _),
        child.stderr.take().map(|stderr| Box::new(stderr) as _),
    ];
    for (at, output) in outputs.into_iter().flatten().enumerate() {
        let events = events.clone();
        thread::spawn(move || pass_on(node, output, at == 0, &events));
    }
    Ok(child)
}

/// The cores of each node: what a profile says of them is for a node that has a machine for itself.
fn cores_of_each(nodes: u16) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (cores / usize::from(nodes).max(1)).max(1)
}

/// Passes a node's lines on; its standard output ends when the node does.
fn pass_on(node: u16, output: Box<dyn io::Read + Send>, is_stdout: bool, events: &mpsc::Sender<Event>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let is_ready = is_stdout && line.starts_with("kvserver ready:");
        if events.send(Event::Line(node, line)).is_err()
            || (is_ready && events.send(Event::Ready(node)).is_err())
        {
            return;
        }
    }
    if is_stdout {
        // Where nobody listens any more the process is about to end anyway.
        let _ = events.send(Event::Ended(node));
    }
}

/// Passes on what the nodes say until all have ended by themselves, or until they are to be stopped. In the
/// first case the exit code of the process.
fn watch(
    args: &LocalArgs,
    peers: &[String],
    events: &mpsc::Receiver<Event>,
    children: &mut [Child],
) -> Option<i32> {
    let mut ready = std::collections::BTreeSet::new();
    let mut running = children.len();
    let mut code = 0;
    for event in events {
        match event {
            Event::Line(node, line) => say(&format!("[node {node}] {line}")),
            Event::Ready(node) => {
                ready.insert(node);
                if ready.len() == usize::from(args.nodes) {
                    say_what_next(peers);
                }
            }
            Event::Ended(node) => {
                let status = children[usize::from(node) - 1].wait();
                let how = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
                say(&format!("[node {node}] ended: {how}"));
                code = code.max(status.ok().and_then(|status| status.code()).unwrap_or(1));
                running -= 1;
                if running == 0 {
                    return Some(code);
                }
            }
            Event::Signal => {
                say(&format!("stopping {running} nodes"));
                return None;
            }
        }
    }
    None
}

/// Says what is wrong, on standard error.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "kvserver local: {what}");
}

/// Prints a line. A closed terminal is no reason to stop serving.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn say_what_next(peers: &[String]) {
    let endpoints = peers.join(",");
    say("");
    say(&format!("{} nodes serve on {endpoints}. In another terminal:", peers.len()));
    say("  cargo run --release --bin kvctl -- put greeting hello");
    say("  cargo run --release --bin kvctl -- get greeting");
    say("  cargo run --release --bin kvctl -- status");
    say(&format!(
        "  cargo run --release -p loadgen -- --endpoints {endpoints} --workload put --duration 10s"
    ));
    say("Ctrl-C stops them.");
    say("");
}

/// Asks every node that runs to end and waits; kills what does not. Whether all ended by themselves.
fn stop(children: &mut [Child]) -> bool {
    running(children).for_each(|child| process::terminate(child.id()));
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(20);
    while running(children).next().is_some() {
        if waited >= STOP_MAX {
            for child in running(children) {
                // It may have ended this very moment.
                let _ = child.kill();
                let _ = child.wait();
            }
            return false;
        }
        thread::sleep(step);
        waited += step;
    }
    true
}

/// The nodes whose process ids are theirs: a process keeps its id until somebody has heard of its end, and
/// that is this one alone.
fn running(children: &mut [Child]) -> impl Iterator<Item = &mut Child> {
    children.iter_mut().filter_map(|child| matches!(child.try_wait(), Ok(None)).then_some(child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_ended_is_asked_nothing_and_who_runs_is_asked_to_end() {
        let start = |program: &str, args: &[&str]| Command::new(program).args(args).spawn();
        let mut ended = start("true", &[]).expect("there is a true");
        assert!(ended.wait().expect("it is ours").success());
        let runs = start("sleep", &["60"]).expect("there is a sleep");
        let id = runs.id();
        let mut children = [ended, runs];
        assert_eq!(running(&mut children).map(|child| child.id()).collect::<Vec<_>>(), [id]);
        assert!(stop(&mut children), "it ends when it is asked to");
        assert_eq!(running(&mut children).count(), 0);
        assert!(stop(&mut children), "nobody is left to ask");
    }
}
