//! How real nodes start and are asked to stop before they serve: signals, settings that differ, and what is
//! said meanwhile.

mod processes;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use processes::{Cluster, PATIENCE, Process};

/// Waits until something holds that no process says.
async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_node_that_is_asked_to_stop_before_it_serves_ends_with_0() {
    let cluster = Cluster::new(3, &[]);
    let node = cluster.node(1);
    // While it waits for its address: the lock is taken after signals are watched and before that.
    let holder = TcpListener::bind(&node.address).expect("the port is free");
    let mut process = Process::start(cluster.command(1));
    wait_until("the data directory is not taken", || node.data_dir.join("LOCK").exists()).await;
    process.signal("TERM");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("stopped before it served"), "{}", ended.said);
    drop(holder);
    // While it waits for the others to know its new directory.
    let mut process = Process::start(cluster.command(1));
    process.says("log recovered").await;
    process.signal("INT");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(!ended.said.contains("kvserver ready"), "{}", ended.said);
}
