//! The load generator as a process: what it ends with.

use std::process::{Command, Output};

fn loadgen(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(line.split_whitespace()).output().expect("it was built with the test")
}

#[test]
fn help_tells_of_the_audit_and_of_exit_codes() {
    let done = loadgen("--help");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains("Exit status: 0; 1 if") && said.contains("--audit"), "{said}");
}

#[test]
fn wrong_usage_and_nobody_there() {
    let ends_with = |line: &str| {
        let done = loadgen(line);
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, said) = ends_with("--endpoints a:1 --target health --audit");
    assert!(code == Some(2) && said.contains("--audit has nothing to check"), "{code:?}: {said}");
    let (code, said) = ends_with("--endpoints a:1 --audit --value-size 8");
    assert!(code == Some(2) && said.contains("first 16 bytes"), "{code:?}: {said}");
    let (code, said) = ends_with("--endpoints a:1 --workload append --compare etcd@b:1");
    assert!(code == Some(2) && said.contains("does not go with etcd"), "{code:?}: {said}");
    let (code, said) = ends_with("--endpoints a:1 --rounds 3");
    assert!(code == Some(2) && said.contains("--compare"), "{code:?}: {said}");
    let (code, said) = ends_with("--endpoints a:1 --compare nats@b:1");
    assert!(code == Some(2) && said.contains("'nats' before the @ is no target"), "{code:?}: {said}");
    let (code, said) = ends_with("--endpoints 127.0.0.1:1 --target health --compare 127.0.0.1:1");
    let whose = "health (A): none of 127.0.0.1:1 could be reached";
    assert!(code == Some(3) && said.contains(whose), "{code:?}: {said}");
    let (code, said) = ends_with("--endpoints 127.0.0.1:1 --duration 10ms");
    assert!(code == Some(3) && said.contains("could be reached"), "{code:?}: {said}");
}
