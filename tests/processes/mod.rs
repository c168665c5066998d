//! A cluster of real `kvserver` processes on the loopback, for the tests that talk to it as clients do and
//! kill parts of it.
//!
//! Invariants:
//! - Every process ends with the value that holds it, and with the thread that started it.
//! - Ports lie below those that the system hands out, so that a node that was killed finds its own free
//!   again.
//! - One cluster of a test program runs at a time: two cores are not asked to be six nodes.
//! - Every wait has an end, and what is then said holds what the process said.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use distribkv::ids::ShardId;
use distribkv::route::slot::shard_of_key;
use distribkv::wire::health::health_client::HealthClient;
use distribkv::wire::v1;
use prost::Message as _;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use v1::cluster_client::ClusterClient;
use v1::kv_client::KvClient;
use v1::maintenance_client::MaintenanceClient;
use v1::session_client::SessionClient;

pub mod disk;
pub mod load;
pub mod small_disk;

/// How long anything that should come about may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often what is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The shards of every test's cluster.
pub const SHARDS: u32 = 8;
/// The election timeout of a [`Cluster::quick`] one.
pub const QUICK_ELECTION: Duration = Duration::from_millis(300);

/// Settings of a node whose files are small, so that a small disk holds many of them.
const SMALL_FILES: &str = "[node]
cores = \"1\"
pin = false
segment_bytes = 10485760
batch_bytes_max = 5242880
heap_ready_bytes = 0
";

/// And little of it is kept, where a test says nothing else.
const SMALL_LOG: [(&str, u32); 2] = [("log_segments_max", 2), ("snapshot_keep_entries", 0)];

/// Whether a cluster of this test program runs.
static RUNNING: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// The right to run a cluster.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let mut running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *running {
            running = RUNNING.1.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
        RUNNING.1.notify_one();
    }
}

/// A port that nobody listens on, and that no outgoing connection is given.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1500) as u16 * 10;
    for _ in 0..15_000 {
        let port = 15_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 15_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port between 15000 and 30000 is free");
}

/// The flag that has a node end with this process, which starts it.
pub fn with_this_process() -> String {
    format!("--die-with-parent={}", std::process::id())
}

/// A new directory on the disk that the build is on, which takes direct writes.
pub fn new_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written")
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// How it ended, in words that name the signal.
    pub status: ExitStatus,
    /// All that it said on both outputs.
    pub said: String,
}

impl Ended {
    /// Asserts that it ended with this code, and said why in one line with these words.
    pub fn assert(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        let lines = self.said.lines().filter(|line| line.starts_with("kvserver: ")).collect::<Vec<_>>();
        let [line] = lines[..] else { panic!("one clear line: {}", self.said) };
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
    }
}

/// A process and what it says.
pub struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

/// Sends a process a signal by its name, as `TERM`. Every shell can; a program that does is not everywhere.
pub fn send_signal(process: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status();
    assert!(sent.expect("there is a shell").success(), "SIG{name} to process {process}");
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
        let readers = outputs.into_iter().map(|output| listen(output, Arc::clone(&said))).collect();
        Self { child, said, readers }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("no holder panics").clone()
    }

    /// Waits until it has said a line with this in it; the line.
    pub async fn says(&self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.said().into_iter().find(|line| line.contains(part)) {
                return line;
            }
            let is_late = begun.elapsed() > PATIENCE;
            assert!(!is_late, "{part:?} is not said by process {}:\n{}", self.id(), self.said().join("\n"));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends a signal by its name, as `TERM`. After `STOP` it stands still when this returns.
    pub fn signal(&self, name: &str) {
        send_signal(self.id(), name);
        if name == "STOP" {
            self.wait_until_still();
        }
    }

    /// A thread stops when it is scheduled the next time, not when the signal is sent: on a busy machine it
    /// answers a message or two before.
    fn wait_until_still(&self) {
        let begun = Instant::now();
        while !self.stands_still() {
            assert!(begun.elapsed() < PATIENCE, "process {} does not stand still", self.id());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether each of its threads is stopped. The kernel's own, which do io for it, have nothing to say.
    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        let lines = threads.flatten().flat_map(|thread| fs::read_to_string(thread.path().join("stat")));
        lines.filter(|line| !line.contains("(iou-")).all(|line| {
            let state = line.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            state == Some('T')
        })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_some()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Ended {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                for reader in self.readers.drain(..) {
                    reader.join().expect("it reads to the end");
                }
                return Ended { code: status.code(), status, said: self.said().join("\n") };
            }
            let is_late = begun.elapsed() > PATIENCE;
            assert!(!is_late, "process {} does not end:\n{}", self.id(), self.said().join("\n"));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen(output: Box<dyn Read + Send>, said: Arc<Mutex<Vec<String>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            said.lock().expect("no holder panics").push(line);
        }
    })
}

/// One node of a cluster, running or not.
pub struct Node {
    /// Its number, from 1.
    pub id: u32,
    /// Where it listens.
    pub address: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// It, where it runs.
    pub process: Option<Process>,
}

impl Node {
    /// Its process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("node {} runs", self.id))
    }

    /// A connection of its own to it.
    pub fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("host and port");
        endpoint.connect_lazy()
    }

    /// Its `KV` service.
    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel()).max_decoding_message_size(8 << 20)
    }

    /// Its `Session` service.
    pub fn sessions(&self) -> SessionClient<Channel> {
        SessionClient::new(self.channel())
    }

    /// Its `Cluster` service.
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel())
    }

    /// Its `Maintenance` service.
    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel())
    }

    /// Its `grpc.health.v1.Health` service.
    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel())
    }
}

/// A cluster of processes in a directory of its own.
pub struct Cluster {
    /// Its nodes, in the order of their ids.
    pub nodes: Vec<Node>,
    flags: Vec<String>,
    dir: TempDir,
    _turn: Turn,
}

impl Cluster {
    /// A cluster that does not run yet, of the developer's profile and these flags.
    pub fn new(nodes: u32, flags: &[&str]) -> Self {
        let turn = Turn::wait();
        let dir = new_dir();
        let node = |id| Node {
            id,
            address: format!("127.0.0.1:{}", free_port()),
            data_dir: dir.path().join(format!("node-{id}")),
            process: None,
        };
        let nodes = (1..=nodes).map(node).collect();
        let flags = flags.iter().map(ToString::to_string).collect();
        Self { nodes, flags, dir, _turn: turn }
    }

    /// A cluster that does not run yet, quick and of small files: its log has segments as small as they may
    /// be. `settings` are the others of its nodes, as lines of a profile.
    pub fn with_small_files(nodes: u32, settings: &str, flags: &[&str]) -> Self {
        let mut cluster = Self::new_quick(nodes);
        let profile = cluster.dir.path().join("small.toml");
        let unsaid = SMALL_LOG.iter().filter(|(name, _)| !settings.contains(name));
        let unsaid: String = unsaid.map(|(name, value)| format!("{name} = {value}\n")).collect();
        fs::write(&profile, format!("{SMALL_FILES}{unsaid}{settings}")).expect("the directory is ours");
        cluster.flags.extend(["--profile".into(), profile.to_string_lossy().into_owned()]);
        cluster.flags.extend(flags.iter().map(ToString::to_string));
        cluster
    }

    /// A cluster that does not run yet, with a short election timeout.
    pub fn new_quick(nodes: u32) -> Self {
        let election = QUICK_ELECTION.as_millis().to_string();
        Self::new(nodes, &["--election-timeout-ms", &election, "--heartbeat-ms", "30"])
    }

    /// A cluster that serves, with a short election timeout.
    pub async fn quick(nodes: u32) -> Self {
        let mut cluster = Self::new_quick(nodes);
        cluster.start_all().await;
        cluster
    }

    /// Where all of it is kept.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A node by its id.
    pub fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize - 1]
    }

    /// The addresses of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// The command that runs a node, without the flag that names its data directory.
    pub fn bare_command(&self, id: u32) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
        command.args([&with_this_process(), "--id", &id.to_string(), "--peers", &self.addresses().join(",")]);
        if !self.flags.iter().any(|flag| flag == "--profile") {
            command.args(["--profile", "dev"]);
        }
        command.args(&self.flags);
        command
    }

    /// The command that runs a node.
    pub fn command(&self, id: u32) -> Command {
        let mut command = self.bare_command(id);
        command.arg("--data-dir").arg(&self.node(id).data_dir);
        command
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, id: u32) {
        let command = self.command(id);
        let node = &mut self.nodes[id as usize - 1];
        assert!(node.process.is_none(), "node {id} runs");
        node.process = Some(Process::start(command));
    }

    /// Waits until a node says that it serves.
    pub async fn ready(&self, id: u32) {
        let line = self.node(id).process().says("kvserver ready:").await;
        let nodes = self.nodes.len();
        let address = &self.node(id).address;
        assert_eq!(line, format!("kvserver ready: node {id} of {nodes}, listening on {address}"));
    }

    /// Starts every node that does not run, and waits until all serve.
    pub async fn start_all(&mut self) {
        let stopped: Vec<u32> =
            self.nodes.iter().filter(|node| node.process.is_none()).map(|node| node.id).collect();
        stopped.iter().for_each(|id| self.start(*id));
        for id in stopped {
            self.ready(id).await;
        }
    }

    /// Ends a node at once, as `kill -9` does.
    pub fn kill(&mut self, id: u32) {
        let mut process = self.nodes[id as usize - 1].process.take().expect("the node runs");
        process.kill();
    }

    /// Asks a node to end, and waits for it.
    pub async fn terminate(&mut self, id: u32) -> Ended {
        let mut process = self.nodes[id as usize - 1].process.take().expect("the node runs");
        process.signal("TERM");
        process.ended().await
    }

    /// Who leads each shard, as a node knows it, once it knows of all.
    pub async fn leaders(&self, as_known_to: u32) -> Vec<u32> {
        let mut client = self.node(as_known_to).cluster();
        let begun = Instant::now();
        loop {
            let shards = client.shards(v1::ShardsRequest {}).await.expect("it answers").into_inner().shards;
            let leaders: Vec<u32> = shards.iter().map(|shard| shard.leader).collect();
            if leaders.iter().all(|leader| *leader != 0) {
                return leaders;
            }
            assert!(begun.elapsed() < PATIENCE, "no leader of some shard: {shards:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A shard that a node leads, which is given it where it leads none.
    pub async fn shard_led_by(&self, id: u32) -> u32 {
        let begun = Instant::now();
        loop {
            let leaders = self.leaders(id).await;
            if let Some(shard) = (0..SHARDS).find(|shard| leaders[*shard as usize] == id) {
                return shard;
            }
            let move_one = v1::TransferLeadershipRequest { shard: 0, to: id };
            let moved = self.node(id).maintenance().transfer_leadership(move_one).await;
            assert!(begun.elapsed() < PATIENCE, "node {id} leads nothing: {moved:?}");
        }
    }

    /// The replicas of a node that recover, as it says itself.
    pub async fn recovering(&self, id: u32) -> usize {
        let status = self.node(id).cluster().status(v1::StatusRequest {}).await.expect("it answers");
        let replicas = status.into_inner().replicas;
        replicas.iter().filter(|replica| replica.role() == v1::replica_status::Role::Recovering).count()
    }

    /// Waits until a node counts again with all its replicas.
    pub async fn whole(&self, id: u32) {
        let begun = Instant::now();
        while self.recovering(id).await > 0 {
            let said = self.node(id).process().said().join("\n");
            assert!(begun.elapsed() < PATIENCE, "node {id} does not recover:\n{said}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What `kvserver verify` finds of a node that does not run.
    pub fn verified(&self, id: u32) -> Ended {
        let mut verify = Command::new(env!("CARGO_BIN_EXE_kvserver"));
        let done = verify.arg("verify").arg("--data-dir").arg(&self.node(id).data_dir).output();
        let done = done.expect("it was built with the test");
        Ended {
            code: done.status.code(),
            status: done.status,
            said: String::from_utf8_lossy(&done.stdout).into_owned(),
        }
    }

    /// Waits until all replicas of each shard have applied the same and hold the same. Whenever two of a
    /// shard have applied the same, they hold the same.
    pub async fn digests_agree(&self) {
        let begun = Instant::now();
        loop {
            let mut states = BTreeSet::new();
            for node in &self.nodes {
                let status = node.cluster().status(v1::StatusRequest {}).await.expect("it answers");
                let replicas = status.into_inner().replicas;
                assert_eq!(replicas.len(), SHARDS as usize, "node {} has all shards", node.id);
                states.extend(replicas.iter().map(|one| (one.shard, one.applied_index, one.state_digest)));
            }
            let applied: BTreeSet<_> = states.iter().map(|(shard, applied, _)| (*shard, *applied)).collect();
            assert_eq!(applied.len(), states.len(), "other states at the same index: {states:?}");
            if states.len() == SHARDS as usize {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the replicas do not become equal: {states:?}");
            tokio::time::sleep(LOOK_EVERY * 10).await;
        }
    }
}

/// A key of a shard, of as many with this prefix as there are numbers.
pub fn key_of(shard: u32, prefix: &str) -> String {
    let mut keys = (0..).map(|number| format!("{prefix}{number}"));
    keys.find(|key| shard_of_key(key.as_bytes(), SHARDS) == ShardId(shard)).expect("slots are spread")
}

/// A plain put.
pub fn put(key: &str, value: impl AsRef<[u8]>) -> v1::PutRequest {
    let value = value.as_ref().to_vec().into();
    v1::PutRequest { key: key.to_owned().into(), value, ..v1::PutRequest::default() }
}

/// A linearizable get.
pub fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { key: key.to_owned().into(), ..v1::GetRequest::default() }
}

/// A request with a `grpc-timeout`.
pub fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// The error that every status of ours carries; it repeats code and message.
pub fn error_of(status: &Status) -> v1::Error {
    let trailer = status.metadata().get_bin("distribkv-error-bin");
    let trailer = trailer.unwrap_or_else(|| panic!("no trailer of ours with {status:?}"));
    let error = v1::Error::decode(trailer.to_bytes().expect("base64")).expect("an Error");
    assert_eq!((error.code, error.message.as_str()), (status.code() as i32, status.message()));
    error
}

/// Asserts what a call was refused with.
pub fn assert_refused<T: std::fmt::Debug>(
    outcome: Result<tonic::Response<T>, Status>,
    (code, reason): (Code, v1::Reason),
) -> Status {
    let status = outcome.expect_err("it is refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(error_of(&status).reason(), reason, "{status:?}");
    status
}
