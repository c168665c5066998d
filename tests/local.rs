//! `kvserver local`: the first thing that a newcomer runs. It serves, says what to try, and ends with Ctrl-C.

mod processes;

use std::io::{self, Write as _};
use std::process::Command;

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
