//! Real `kvserver` processes for tests: on free loopback ports, in a directory that goes with them, ended in
//! any case.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything that should come about may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of processes.
pub struct Cluster {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    flags: Vec<String>,
    nodes: Vec<Option<Process>>,
}

/// One process and what it says.
pub struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    /// A cluster of `nodes` that does not run yet.
    pub fn new(nodes: usize, flags: &[&str]) -> Self {
        let listeners: Vec<TcpListener> =
            (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        Self {
            dir: tempfile::tempdir().expect("a directory for the test"),
            ports: listeners.iter().map(port).collect(),
            flags: flags.iter().map(ToString::to_string).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
        }
    }

    /// A cluster of three that serves, with a short election timeout.
    pub fn three() -> Self {
        let mut cluster = Self::new(3, &["--election-timeout-ms", "300", "--heartbeat-ms", "30"]);
        cluster.start_all();
        cluster
    }

    /// Starts every node and waits until all serve.
    pub fn start_all(&mut self) {
        (1..=self.ports.len()).for_each(|node| self.start(node));
        (1..=self.ports.len()).for_each(|node| self.wait_ready(node));
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, node: usize) {
        assert!(self.nodes[node - 1].is_none(), "node {node} runs");
        self.nodes[node - 1] = Some(Process::start(self.command(node, &[])));
    }

    /// The command that starts a node, with more flags at its end.
    pub fn command(&self, node: usize, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
        command.args(["--profile", "dev", "--id", &node.to_string(), "--peers", &self.endpoints().join(",")]);
        if !more.contains(&"--data-dir") {
            command.arg("--data-dir").arg(self.data_dir(node));
        }
        command.args(&self.flags).args(more);
        command
    }

    /// Waits until a node says that it serves.
    pub fn wait_ready(&self, node: usize) {
        let process = self.nodes[node - 1].as_ref().expect("the node runs");
        process.wait_for(|line| line.starts_with("kvserver ready:"));
    }

    /// Ends a node at once, as `kill -9` does.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node - 1].take().expect("the node runs");
        process.child.kill().expect("it is ours");
        process.child.wait().expect("it is ours");
    }

    /// Asks a node to end and waits for it.
    pub fn terminate(&mut self, node: usize) -> ExitStatus {
        let process = self.nodes[node - 1].take().expect("the node runs");
        distribkv::env::os::process::terminate(process.child.id());
        process.wait().0
    }

    /// Whether a node runs.
    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node - 1].is_some()
    }

    /// The addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("localhost:{port}")).collect()
    }

    /// Where a node keeps its data.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    /// A directory for whatever else a test needs.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.nodes.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

impl Process {
    /// Starts a command and listens to all that it says.
    pub fn start(mut command: Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("the program was built with the test");
        let said = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("it is piped")),
            Box::new(child.stderr.take().expect("it is piped")),
        ];
        for output in outputs {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    said.lock().expect("no holder panics").push(line);
                }
            });
        }
        Self { child, said }
    }

    /// Waits until it has said a line, which is given back.
    pub fn wait_for(&self, is_it: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let said = self.said.lock().expect("no holder panics").clone();
            if let Some(line) = said.iter().find(|line| is_it(line)) {
                return line.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not say it:\n{}", said.join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end; what it said.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                thread::sleep(Duration::from_millis(50));
                return (status, self.said.lock().expect("no holder panics").join("\n"));
            }
            if begun.elapsed() > PATIENCE {
                self.child.kill().expect("it is ours");
                panic!("it does not end:\n{}", self.said.lock().expect("no holder panics").join("\n"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
