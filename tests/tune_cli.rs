//! `kvserver tune` as a process: what it writes and what it leaves alone, and that a node that starts says
//! what matters of its host.

mod processes;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use processes::{Process, free_port, send_signal};

/// What a host may be found to be: fit or not, that is the machine's affair.
const JUDGED: [Option<i32>; 2] = [Some(0), Some(21)];

fn tune(dir: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    command.arg("tune").arg("--data-dir").arg(dir.join("data")).args(more);
    command.output().expect("it can be run")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it is there").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_profile_is_written_once_and_a_node_takes_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("profile.toml");
    let file_text = file.to_str().expect("a plain name");
    let ran = tune(dir.path(), &["--seconds", "1", "--write", file_text]);
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(JUDGED.contains(&ran.status.code()), "{ran:?}");
    for part in ["locked memory", "file system", "writes/s at depth", "snapshot_bytes_max", "Written to"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "no colours but on a terminal");
    assert_eq!(names(dir.path()), ["profile.toml"], "the scratch file is gone");

    let profile = fs::read_to_string(&file).expect("it was written");
    let ran = tune(dir.path(), &["--check", "--write", file_text]);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), profile, "not replaced without --force");
    let ran = tune(dir.path(), &["--check", "--profile", file_text, "--write", file_text, "--force"]);
    assert!(JUDGED.contains(&ran.status.code()), "{ran:?}");

    // The same settings as a node would take them: this one ends at once, since its address is none.
    let mut node = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    node.args(["--profile", file_text, "--listen", "host.invalid:1", "--data-dir"])
        .arg(dir.path().join("data"));
    let ran = node.output().expect("it can be run");
    assert_eq!(ran.status.code(), Some(1), "the profile was taken, the address was not: {ran:?}");
}

#[test]
fn programs_get_an_object() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ran = tune(dir.path(), &["--check", "--json"]);
    assert!(JUDGED.contains(&ran.status.code()), "{ran:?}");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("it is JSON");
    assert!(report["disk"].is_null(), "nothing was measured");
    let findings = report["findings"].as_array().expect("a list");
    let kernel = findings.iter().find(|finding| finding["what"] == "kernel").expect("it is looked at");
    assert!(kernel["found"].as_str().is_some_and(|found| found.starts_with("Linux ")), "{kernel}");
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    command.args(["tune", "--seconds", "60", "--data-dir"]).arg(dir.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be run");
    let began = Instant::now();
    while !names(dir.path()).iter().any(|name| name.starts_with("tune-scratch-")) {
        assert!(began.elapsed() < Duration::from_secs(60), "it never began to measure");
        std::thread::sleep(Duration::from_millis(10));
    }
    send_signal(child.id(), "INT");
    assert_eq!(child.wait().expect("it is ours").code(), Some(130));
    assert_eq!(names(dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_start_says_what_matters_of_its_host() {
    // Nothing in memory outlives the machine: wherever the tests run, this is found.
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory on tmpfs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    let address = format!("localhost:{}", free_port());
    command.args(["--profile", "dev", "--id", "1", "--peers", &address, "--data-dir"]).arg(dir.path());
    let mut node = Process::start(command);
    let warned = node.says("see `kvserver tune`").await;
    assert!(warned.contains("WARN") && warned.contains("/dev/shm"), "{warned}");
    node.says("kvserver ready").await;
    node.signal("INT");
    let ended = node.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.said);
}
