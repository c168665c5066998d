//! `kvserver local`: the first thing that a newcomer runs. It serves, says what to try, and ends with Ctrl-C.

mod processes;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use distribkv::client::Clerk;
use distribkv::wire::v1;
use processes::{Process, free_port, get, new_dir, put};
use tonic::transport::Endpoint;
use v1::kv_client::KvClient;

/// The first of three ports in a row that nobody listens on, and that no other test is given.
fn base_port() -> u16 {
    let mut ports = [free_port(), free_port(), free_port()];
    for _ in 0..1000 {
        if ports[1] == ports[0] + 1 && ports[2] == ports[1] + 1 {
            return ports[0];
        }
        ports = [ports[1], ports[2], free_port()];
    }
    panic!("no three ports in a row are free");
}

#[tokio::test]
async fn a_local_cluster_serves_and_ends_with_an_interrupt() {
    let (dir, port) = (new_dir(), base_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    command.arg("local").args(["--base-port", &port.to_string()]).arg("--data-dir").arg(dir.path());
    let mut local = Process::start(command);
    let endpoints: Vec<String> = (port..port + 3).map(|port| format!("localhost:{port}")).collect();
    let served = local.says("3 nodes serve on").await;
    assert!(served.contains(&endpoints.join(",")), "{served}");
    local.says("kvctl -- put").await;
    for node in 1..=3 {
        local.says(&format!("[node {node}] kvserver ready: node {node} of 3")).await;
    }
    let channel =
        |port: u16| Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map(|to| to.connect_lazy());
    let mut first = KvClient::new(channel(port).expect("an address"));
    let mut last = KvClient::new(channel(port + 2).expect("an address"));
    first.put(put("greeting", "hello")).await.expect("it serves");
    let found = last.get(get("greeting")).await.expect("it serves").into_inner();
    assert_eq!(found.kv.map(|kv| kv.value), Some(b"hello".as_slice().into()));
    local.signal("INT");
    let ended = local.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("stopping 3 nodes"), "{}", ended.said);
    for node in 1..=3 {
        let is_there = dir.path().join(format!("node-{node}")).join("lane-0").is_dir();
        assert!(is_there, "node {node} kept its data under the directory that was given");
    }
}

/// A command as process 1 of a container; where this machine lets nobody make one, why.
fn in_container(command: &Command) -> Result<Command, String> {
    let container = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare
    };
    let tried = container().arg("true").output().map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        return Err(String::from_utf8_lossy(&tried.stderr).trim_end().to_owned());
    }
    let mut contained = container();
    contained.arg(command.get_program()).args(command.get_args());
    Ok(contained)
}

#[tokio::test]
async fn a_local_cluster_serves_as_process_1_of_a_container() {
    let (dir, port) = (new_dir(), free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    command
        .args(["local", "--nodes", "1", "--base-port", &port.to_string()])
        .arg("--data-dir")
        .arg(dir.path());
    let contained = match in_container(&command) {
        Ok(contained) => contained,
        Err(why) => {
            let said = format!("a_local_cluster_serves_as_process_1: SKIPPED, no container: {why}\n");
            return io::stderr().write_all(said.as_bytes()).expect("somebody listens");
        }
    };
    let local = Process::start(contained);
    local.says("1 nodes serve on").await;
}

/// The process of a node of a cluster in `dir`, by its command line.
fn node_in(dir: &Path, node: u32) -> Option<u32> {
    let data_dir = dir.join(format!("node-{node}"));
    let processes = fs::read_dir("/proc").expect("this is Linux").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runs_there = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == data_dir.as_os_str().as_encoded_bytes())
    };
    ids.into_iter().find(runs_there)
}

/// Ends a process with the value.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_local_cluster_serves_on_when_nobody_reads_what_it_says_and_a_node_dies() {
    let (dir, port) = (new_dir(), base_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    command.arg("local").args(["--base-port", &port.to_string()]).arg("--data-dir").arg(dir.path());
    let started = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut local = KillOnDrop(started.expect("the program was built with the test"));
    let mut said = BufReader::new(local.0.stdout.take().expect("it is piped")).lines();
    let is_last = |line: io::Result<String>| line.expect("it is text").contains("Ctrl-C stops them");
    assert!(said.any(is_last), "it serves");
    drop(said);

    let victim = node_in(dir.path(), 3).expect("it runs");
    processes::send_signal(victim, "KILL");
    let clerk = Clerk::connect([format!("localhost:{port}"), format!("localhost:{}", port + 1)]);
    let clerk = clerk.expect("they are endpoints");
    // The end of the node is heard of in a moment: every shard acknowledges after that, too.
    for number in 0..100 {
        clerk.put(format!("key-{number}"), "v").await.expect("two of three serve");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node_in(dir.path(), 3), None);
    assert!(local.0.try_wait().expect("it is ours").is_none(), "it has ended with the node");
    processes::send_signal(local.0.id(), "TERM");
    assert_eq!(local.0.wait().expect("it is ours").code(), Some(0));
}
