//! kvctl as a process, without a cluster: its help, its usage errors and its exit codes.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

/// Runs kvctl with an endpoint that nobody listens on, and nothing on standard input.
fn kvctl(args: &[&str]) -> Output {
    kvctl_with_input(args, b"")
}

fn kvctl_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvctl"))
        .args(args)
        .env("KVCTL_ENDPOINTS", dead_endpoint())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was just built");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A usage error ends the program before it reads anything.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it was started")
}

/// A port that was free a moment ago.
fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    listener.local_addr().expect("it is bound").to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts an exit code, nothing on standard output, and what standard error says.
fn assert_fails(output: &Output, code: i32, says: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(says), "{said:?} does not say {says:?}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let output = kvctl(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in [
        "put",
        "get",
        "append",
        "delete",
        "scan",
        "txn",
        "status",
        "shards",
        "health",
        "transfer",
        "--endpoints",
        "KVCTL_ENDPOINTS",
        "localhost:10001",
        "--output",
        "--timeout",
        "Exit status",
        "value_base64",
        "kvctl put",
    ] {
        assert!(help.contains(word), "{word} is not in the help:\n{help}");
    }
    let txn = text(&kvctl(&["txn", "--help"]).stdout);
    assert!(
        txn.contains("conditions") && txn.contains("mod_revision") && txn.contains("kvctl txn -"),
        "{txn}"
    );
    assert!(text(&kvctl(&["--version"]).stdout).starts_with("kvctl "));
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_dialled() {
    assert_fails(&kvctl(&[]), 2, "Usage");
    assert_fails(&kvctl(&["frobnicate"]), 2, "frobnicate");
    assert_fails(&kvctl(&["put", "k"]), 2, "VALUE");
    assert_fails(&kvctl(&["get"]), 2, "KEY");
    assert_fails(&kvctl(&["put", "-k", "v"]), 2, "--");
    assert_fails(&kvctl(&["put", "k", "v", "--if-mod-revision", "x"]), 2, "if-mod-revision");
    assert_fails(&kvctl(&["scan", "--prefix", "a", "--start", "b"]), 2, "--start");
    assert_fails(&kvctl(&["transfer", "x"]), 2, "invalid value");
    assert_fails(&kvctl(&["transfer", "0", "0"]), 2, "0");
    assert_fails(&kvctl(&["--timeout", "0", "shards"]), 2, "1ms to a day");
    assert_fails(&kvctl(&["--timeout", "5h", "shards"]), 2, "units");
    assert_fails(&kvctl(&["--output", "xml", "shards"]), 2, "json");
}

#[test]
fn endpoints_are_host_and_port_without_a_scheme() {
    for bad in ["localhost", "http://localhost:1", ":1", "localhost:0", ""] {
        assert_fails(&kvctl(&["--endpoints", bad, "get", "k"]), 2, "host:port");
    }
}

#[test]
fn a_transaction_that_is_none_is_refused() {
    assert_fails(&kvctl_with_input(&["txn", "-"], b"{"), 2, "not a transaction");
    assert_fails(&kvctl_with_input(&["txn", "-"], br#"{"if": []}"#), 2, "kvctl txn --help");
    assert_fails(&kvctl(&["txn", "/no/such/file"]), 2, "/no/such/file cannot be read");
}

#[test]
fn input_beyond_every_limit_is_refused() {
    let input = vec![b'x'; 4 * 1024 * 1024 + 1];
    assert_fails(&kvctl_with_input(&["put", "k", "-"], &input), 2, "longer than");
}

#[test]
fn without_a_cluster_nothing_was_executed() {
    for args in [
        &["--timeout", "300ms", "get", "k"][..],
        &["--timeout", "300ms", "put", "k", "v"],
        &["--timeout", "300ms", "append", "k", "-"],
        &["--timeout", "300ms", "delete", "--", "-k"],
        &["--timeout", "300ms", "scan"],
        &["--timeout", "300ms", "shards"],
        &["--timeout", "300ms", "transfer", "0", "2"],
    ] {
        assert_fails(&kvctl(args), 3, "not executed");
    }
    let lines = text(&kvctl(&["--timeout", "300ms", "put", "k", "v"]).stderr);
    assert_eq!(lines.lines().count(), 1, "one line: {lines:?}");
    assert!(lines.contains("127.0.0.1:") && lines.contains("could not be reached"), "{lines}");
}

#[test]
fn status_and_health_say_who_could_not_be_reached() {
    for args in [&["--timeout", "300ms", "status"][..], &["--timeout", "300ms", "health"]] {
        let output = kvctl(args);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        let said = text(&output.stdout).to_lowercase();
        assert!(said.contains("127.0.0.1:") && said.contains("unreachable"), "{said}");
        assert!(text(&output.stderr).contains("KVCTL_ENDPOINTS"), "{}", text(&output.stderr));
    }
    let output = kvctl(&["--output", "json", "--timeout", "300ms", "status"]);
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(line["reachable"], false);
}
