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

#[tokio::test]
async fn a_node_alone_says_that_it_listens_and_what_it_waits_for() {
    let mut cluster = Cluster::quick(3).await;
    for id in 1..=3 {
        assert_eq!(cluster.terminate(id).await.code, Some(0));
    }
    cluster.start(1);
    let said = cluster.node(1).process().says("kvserver waiting: ").await;
    let place = format!("node 1 of 3, listening on {}: ", cluster.node(1).address);
    let others = [2, 3].map(|id| format!("no link to node {id} ({}): ", cluster.node(id).address));
    assert!(said.starts_with(&format!("kvserver waiting: {place}no leader of 8 of 8 shards; ")), "{said}");
    assert!(others.iter().all(|other| said.contains(other)), "{said}");
    cluster.start(2);
    cluster.ready(1).await;
    assert!(!cluster.node(2).process().said().iter().any(|line| line.contains("directory is known")));
    cluster.ready(2).await;
}

#[tokio::test]
async fn a_new_node_alone_says_who_has_to_know_its_directory() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start(1);
    let said = cluster.node(1).process().says("kvserver waiting: ").await;
    assert!(said.contains("known to 0 of the 2 other nodes that have to note it"), "{said}");
}
