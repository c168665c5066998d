//! The two health tools as processes: their log lines, exit codes and signals.

mod processes;

use std::process::Command;

use processes::{Cluster, Process, free_port};

fn server(port: u16) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpc-test-server"));
    command.args(["-port", &port.to_string(), "-id", "7"]);
    Process::start(command)
}

fn client(address: &str, more: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpc-test-client"));
    command.args(["-addr", address]).args(more);
    Process::start(command)
}

/// `[name] 2026/01/22 12:32:49 text`: the text.
fn text_of<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.strip_prefix(&format!("[{name}] ")).unwrap_or_else(|| panic!("no prefix in {line:?}"));
    let (stamp, text) = rest.split_at(19);
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000/00/00 00:00:00", "{line:?}");
    text.strip_prefix(' ').unwrap_or_else(|| panic!("no text in {line:?}"))
}

#[tokio::test]
async fn the_server_says_what_it_does_and_ends_as_asked() {
    for signal in ["INT", "TERM"] {
        let port = free_port();
        let mut server = server(port);
        server.says("listening").await;
        assert_eq!(client(&format!("localhost:{port}"), &[]).ended().await.code, Some(0));
        server.signal(signal);
        let ended = server.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        let texts: Vec<&str> = ended.said.lines().map(|line| text_of(line, "test-server")).collect();
        let first = format!("Health check server listening on port {port}");
        assert_eq!(texts, [first.as_str(), "Shutting down server...", "Server stopped gracefully"]);
    }
}

#[tokio::test]
async fn several_clients_check_at_once_and_report() {
    let port = free_port();
    let server = server(port);
    server.says("listening").await;
    let address = format!("localhost:{port}");
    let names = ["client-1", "client-2", "client-3"];
    let flags = ["-mode", "continuous", "-requests", "10", "-delay", "20ms", "-id"];
    let clients: Vec<Process> =
        names.iter().map(|id| client(&address, &[&flags[..], &[id]].concat())).collect();
    for (mut client, id) in clients.into_iter().zip(names) {
        let ended = client.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        let report = text_of(ended.said.lines().last().expect("it says something"), "test-client");
        let expected = format!("{id}: requests: 10, success rate: 100.0%, average latency: ");
        assert!(report.starts_with(&expected) && report.ends_with("ms"), "{report:?}");
    }
}

#[tokio::test]
async fn a_signal_ends_a_client_that_checks_for_ever_with_its_report() {
    let port = free_port();
    let mut server = server(port);
    server.says("listening").await;
    let mut client =
        client(&format!("localhost:{port}"), &["--mode", "continuous", "--requests", "0", "--delay", "10ms"]);
    client.says("SERVING").await;
    server.signal("INT");
    assert_eq!(server.ended().await.code, Some(0), "a client that stays does not hold it");
    client.says("check failed").await;
    client.signal("INT");
    let ended = client.ended().await;
    assert_eq!(ended.code, Some(1), "some checks failed: {}", ended.said);
    assert!(ended.said.lines().last().is_some_and(|line| line.contains("success rate: ")), "{}", ended.said);
}

#[tokio::test]
async fn a_single_check_fails_where_nobody_serves() {
    let mut nobody = client(&format!("localhost:{}", free_port()), &["--mode", "single"]);
    let ended = nobody.ended().await;
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    let mut wrong = client("localhost:1", &["--mode", "sometimes"]);
    assert_eq!(wrong.ended().await.code, Some(2));
    let port = free_port();
    let first = server(port);
    first.says("listening").await;
    let ended = server(port).ended().await;
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("in use"), "{}", ended.said);
}

#[tokio::test]
async fn the_client_checks_a_node_of_a_cluster_too() {
    let cluster = Cluster::quick(1).await;
    let ended = client(&cluster.node(1).address, &[]).ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(text_of(&ended.said, "test-client").starts_with("client: SERVING in "), "{}", ended.said);
}
