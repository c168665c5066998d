//! A node whose data directory is lost, as whoever runs it sees that: a refusal that names the command, the
//! command, and a node that counts again. Nothing that was acknowledged is lost meanwhile.

mod processes;

use std::fs;
use std::process::Command;

use distribkv::wire::v1;
use processes::load::Load;
use processes::{Cluster, Process, SHARDS, get, put};

/// What stands before the command in the refusal.
const BEFORE_COMMAND: &str = "The command, where the directory is lost for good: ";

/// The table that `kvctl status` prints, as one node answers for all.
fn kvctl_status(cluster: &Cluster, id: u32) -> String {
    let mut kvctl = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    let printed = kvctl.args(["--endpoints", &cluster.node(id).address, "status"]).output();
    String::from_utf8(printed.expect("it was built with the test").stdout).expect("a table is text")
}

/// Starts a node that was wiped as it is used to, and asserts that it is refused; the command that the
/// refusal names.
async fn refused(cluster: &Cluster, id: u32) -> String {
    let ended = Process::start(cluster.command(id)).ended().await;
    ended.assert(20, &["refused by node", "replaced or wiped", "neither votes nor acknowledges"]);
    let (_, command) = ended.said.split_once(BEFORE_COMMAND).expect("the refusal names the command");
    let command = command.lines().next().expect("it is a line").to_owned();
    assert!(command.ends_with(" --recover"), "{command}");
    command
}

/// Starts a node by a command for a shell.
fn start_by(cluster: &mut Cluster, id: u32, command: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command}")]);
    cluster.nodes[id as usize - 1].process = Some(Process::start(shell));
}

#[tokio::test]
async fn a_wiped_node_comes_back_by_the_command_that_the_refusal_names() {
    tokio::task::LocalSet::new().run_until(wipe_and_recover()).await;
}

async fn wipe_and_recover() {
    let mut cluster = Cluster::quick(3).await;
    let load = Load::start(cluster.addresses(), 4);
    load.goes_on(300).await;
    cluster.kill(3);
    fs::remove_dir_all(&cluster.node(3).data_dir).expect("it is stopped");
    load.goes_on(100).await;
    let command = refused(&cluster, 3).await;
    load.goes_on(100).await;

    // Both others have to tell what they know: one that is away is waited for, and nothing is decided.
    cluster.kill(2);
    start_by(&mut cluster, 3, &command);
    let said = cluster.node(3).process().says("kvserver waiting: ").await;
    assert!(said.contains("known to 1 of the 2 other nodes"), "{said}");
    assert_eq!(cluster.recovering(3).await, SHARDS as usize);
    let printed = kvctl_status(&cluster, 3);
    assert!(printed.contains(&format!("{SHARDS} replicas recovering")), "{printed}");
    let stale = v1::GetRequest { consistency: v1::Consistency::Stale.into(), ..get("any") };
    processes::assert_refused(
        cluster.node(3).kv().get(stale).await,
        (tonic::Code::Unavailable, v1::Reason::Damaged),
    );
    cluster.start(2);
    cluster.ready(3).await;
    cluster.whole(3).await;
    load.goes_on(100).await;
    assert!(!kvctl_status(&cluster, 1).contains("recovering"));
    cluster.node(1).process().says("node recovered: its lost directory counts no more").await;

    // It counts: with another node gone, it is one of the two that are needed.
    cluster.kill(1);
    load.goes_on(200).await;
    cluster.start_all().await;
    // Neither its next start needs the word, nor does the word make anybody forget.
    cluster.kill(3);
    cluster.start(3);
    cluster.ready(3).await;
    cluster.whole(3).await;
    let tally = load.stop_and_check().await;
    println!("{tally:?}");
    cluster.digests_agree().await;
}

#[tokio::test]
async fn a_directory_that_is_not_lost_is_not_recovered() {
    let mut cluster = Cluster::quick(3).await;
    cluster.node(1).kv().put(put("k", "v")).await.expect("it serves");
    assert_eq!(cluster.terminate(3).await.code, Some(0));
    let mut recovers = cluster.command(3);
    recovers.arg("--recover");
    let ended = Process::start(recovers).ended().await;
    ended.assert(15, &["is not the directory that was meant", "nothing was changed", "without --recover"]);
    cluster.start(3);
    cluster.ready(3).await;
    assert_eq!(cluster.recovering(3).await, 0);
    cluster.digests_agree().await;
}

#[tokio::test]
async fn the_only_node_of_a_cluster_has_nobody_to_recover_from() {
    let cluster = Cluster::new(1, &[]);
    let mut recovers = cluster.command(1);
    recovers.arg("--recover");
    Process::start(recovers).ended().await.assert(2, &["--recover", "a cluster of one node"]);
    assert!(!cluster.node(1).data_dir.exists(), "nothing was opened");
}
