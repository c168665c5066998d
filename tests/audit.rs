//! The load generator's audit against real processes: it passes on a good cluster, also while a node dies,
//! and fails where reads are stale.

mod processes;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use processes::{Cluster, Ended, Process};
use serde_json::Value;

/// Few keys, so that reads come right after writes, and from every node.
const LOAD: &str = "--keys 8 --in-flight 32 --route any --warmup 0s --output json --audit";

/// The load generator, built as this test is. It is of another package than this test's, which names none of
/// its binaries; so cargo is asked, who has built it with the tests of its own package or does now.
fn loadgen() -> PathBuf {
    let this = std::env::current_exe().expect("this test runs from a file");
    let built = this.parent().and_then(|deps| deps.parent()).expect("cargo has a directory for a profile");
    let (target, profile) = (built.parent().expect("cargo has a target directory"), built.file_name());
    let profile = match profile.and_then(|name| name.to_str()).expect("a profile has a name") {
        "debug" => "test",
        "release" => "bench",
        name => name,
    };
    let mut build = Command::new(env!("CARGO"));
    build.args(["test", "--no-run", "--offline", "--workspace", "--test", "command_line"]);
    build.args(["--profile", profile]).arg("--target-dir").arg(target);
    let done = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs this test");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    built.join("loadgen")
}

/// Starts load on a cluster.
fn start_load(cluster: &Cluster, more: &str) -> Process {
    let mut command = Command::new(loadgen());
    command.args(["--endpoints", &cluster.addresses().join(",")]);
    command.args(LOAD.split_whitespace()).args(more.split_whitespace());
    Process::start(command)
}

/// What it says of the audit in the end.
fn audit_of(ended: &Ended) -> Value {
    let result = ended.said.lines().find(|line| line.starts_with('{'));
    let result = result.unwrap_or_else(|| panic!("no result: {}", ended.said));
    let result: Value = serde_json::from_str(result).expect("it is JSON");
    result["audit"].clone()
}

#[tokio::test]
async fn a_good_cluster_passes() {
    let cluster = Cluster::quick(3).await;
    for more in ["mixed:50", "cas", "mixed:50 --target pipeline", "append --value-size 20"] {
        let ended = start_load(&cluster, &format!("--duration 1s --workload {more}")).ended().await;
        let audit = audit_of(&ended);
        assert_eq!((ended.code, &audit["passed"]), (Some(0), &Value::Bool(true)), "{more}: {}", ended.said);
        assert!(audit["operations"].as_u64() > Some(100), "{more}: {audit}");
    }
}

#[tokio::test]
async fn a_cluster_passes_while_a_node_dies_and_comes_back() {
    let mut cluster = Cluster::quick(3).await;
    let mut load =
        start_load(&cluster, "--workload mixed:50 --duration 4s --timeout 1s --errors-max-percent 100");
    load.says("op/s").await;
    cluster.kill(2);
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.start(2);
    let ended = load.ended().await;
    let audit = audit_of(&ended);
    assert_eq!((ended.code, &audit["passed"]), (Some(0), &Value::Bool(true)), "{}", ended.said);
    assert_eq!(audit["unread"], 0, "{audit}");
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn a_cluster_that_reads_stale_fails() {
    let mut cluster = Cluster::new(3, &["--planted-bug", "ReadServedByAnyNode"]);
    cluster.start_all().await;
    for target in ["kv", "pipeline"] {
        let load = format!("--workload mixed:50 --duration 2s --target {target}");
        let ended = start_load(&cluster, &load).ended().await;
        let audit = audit_of(&ended);
        assert_eq!((ended.code, &audit["passed"]), (Some(1), &Value::Bool(false)), "{}", ended.said);
        assert_eq!(audit["violations"][0]["kind"], "stale read", "{audit}");
        assert!(ended.said.contains("loadgen: the audit failed"), "{}", ended.said);
    }
}
