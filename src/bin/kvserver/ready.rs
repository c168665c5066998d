//! The lines on standard output that say that a node serves, or what it waits for.
//!
//! ```text
//! kvserver waiting: node 1 of 3, listening on a:1: no leader of 8 of 8 shards; no link to node 2 (b:1): …
//! kvserver ready: node 1 of 3, listening on a:1
//! ```
//!
//! Ready means: every replica of this node has applied what its log knew to be committed when the node
//! started, and a leader is known for every shard, as health has it. It is said once in a life.
//!
//! Invariant: until then what is awaited is said, after [`FIRST`] and whenever it changes, at most once in
//! [`EVERY`], and again after [`AGAIN`] where it stays the same.

use std::cell::Cell;
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use distribkv::config::Settings;
use distribkv::env::{Env, Instant};
use distribkv::host::mesh::{Mesh, Reception};
use distribkv::shard::Runner;
use futures_lite::future::or;

/// A node that starts as it should is ready before this.
const FIRST: Duration = Duration::from_secs(2);
/// The least time between two lines.
const EVERY: Duration = Duration::from_secs(5);
/// The time after which the same is said again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long nothing may happen before it is looked whether something has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Says what a node waits for, at its pace.
struct Pace {
    due: Instant,
    said: Option<(Instant, String)>,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { due: now + FIRST, said: None }
    }

    /// The text, where it is to be said now.
    fn next(&mut self, now: Instant, text: impl FnOnce() -> String) -> Option<String> {
        if now < self.due {
            return None;
        }
        self.due = now + EVERY;
        let text = text();
        if self.said.as_ref().is_some_and(|(at, said)| *said == text && now.since(*at) < AGAIN) {
            return None;
        }
        self.said = Some((now, text.clone()));
        Some(text)
    }
}

/// Says that core 0 still reads its log, until `is_read` is set.
pub async fn say_reading<E: Env>(env: E, settings: Settings, is_read: Rc<Cell<bool>>) {
    let mut pace = Pace::new(env.now());
    loop {
        env.sleep(LOOK_EVERY).await;
        if is_read.get() {
            return;
        }
        let text = pace.next(env.now(), || waiting_line(&settings, "core 0 reads its log"));
        text.inspect(|text| print_line(text));
    }
}

/// Core 0, once it has read its log: waits until the node is ready and says so, and until then what for.
/// Returns without a word where the node goes away.
pub async fn say_ready<E: Env>(
    env: E,
    (runner, mesh): (Runner<E>, Mesh<E>),
    reception: Reception<E>,
    settings: Settings,
) {
    let mut pace = Pace::new(env.now());
    let mut seen = 0;
    loop {
        if runner.is_draining() {
            return;
        }
        let awaited = awaited(&runner, &mesh, &reception);
        if awaited.is_empty() {
            return print_line(&ready_line(&settings));
        }
        let text = pace.next(env.now(), || {
            let others = reception.peers.borrow().unreached();
            waiting_line(&settings, &[awaited, others].concat().join("; "))
        });
        text.inspect(|text| print_line(text));
        or(async { seen = runner.directory_changed(seen).await }, env.sleep(LOOK_EVERY)).await;
    }
}

/// What the node still waits for.
fn awaited<E: Env>(runner: &Runner<E>, mesh: &Mesh<E>, reception: &Reception<E>) -> Vec<String> {
    let mut awaited = Vec::new();
    let behind = mesh.behind();
    if behind > 0 {
        awaited.push(format!("{behind} of {} cores read and apply what their logs hold", mesh.cores()));
    }
    let (noted, needed) = reception.desk.noted();
    if !reception.desk.is_entitled() {
        awaited.push(format!(
            "its new data directory is known to {noted} of the {needed} other nodes that have to note it \
             before it may vote"
        ));
    }
    let directory = runner.directory();
    let unled = directory.iter().filter(|(_, known)| !known.is_serving).count();
    if unled > 0 {
        awaited.push(format!("no leader of {unled} of {} shards", directory.len()));
    }
    awaited
}

fn waiting_line(settings: &Settings, awaited: &str) -> String {
    format!("kvserver waiting: {}: {awaited}", place(settings))
}

fn ready_line(settings: &Settings) -> String {
    format!("kvserver ready: {}", place(settings))
}

fn place(settings: &Settings) -> String {
    let (id, nodes) = (settings.node.id, settings.cluster.peers.len());
    format!("node {id} of {nodes}, listening on {}", settings.listen())
}

/// Prints a line. Where nobody reads it any more, serving goes on all the same.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_is_said_late_rarely_and_again() {
        let at = |seconds: u64| Instant(seconds * 1_000_000);
        let mut pace = Pace::new(at(0));
        let mut says = |seconds, text: &str| pace.next(at(seconds), || text.to_owned()).is_some();
        assert!(!says(1, "a"), "it may be ready in a moment");
        assert!(says(2, "a"));
        assert!(!says(3, "b"), "so soon after another");
        assert!(says(7, "b"));
        assert!(!says(12, "b"), "it was said");
        assert!(!says(62, "b"));
        assert!(says(67, "b"), "a person may have come meanwhile");
    }

    #[test]
    fn the_ready_line_is_what_scripts_wait_for() {
        let layers = [("test".into(), "[cluster]\npeers = [\"a:1\", \"b:2\"]\n[node]\nid = 2".into())];
        let settings = Settings::of_layers(&layers).expect("well formed");
        assert_eq!(ready_line(&settings), "kvserver ready: node 2 of 2, listening on b:2");
    }
}
