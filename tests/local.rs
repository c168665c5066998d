//! `kvserver local`: the first thing that a newcomer runs. It serves, says what to try, and ends with Ctrl-C.

mod processes;

use std::net::TcpListener;
use std::process::Command;

use distribkv::wire::v1;
use processes::{Process, free_port, get, new_dir, put};
use tonic::transport::Endpoint;
use v1::kv_client::KvClient;

/// The first of three ports in a row that nobody listens on.
fn base_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut ports = std::iter::repeat_with(free_port).take(1000);
    ports.find(|port| is_free(port + 1) && is_free(port + 2)).expect("three ports in a row are free")
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
