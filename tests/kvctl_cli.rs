//! kvctl as a process: its help, its usage errors and its exit codes without a cluster, and every command
//! against a node.

mod processes;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use processes::{Cluster, SHARDS};
use serde_json::{Value, json};

/// Runs kvctl with an endpoint that nobody listens on, and nothing on standard input.
fn kvctl(args: &[&str]) -> Output {
    kvctl_with_input(args, b"")
}

fn kvctl_with_input(args: &[&str], input: &[u8]) -> Output {
    kvctl_at(&dead_endpoint(), args, input)
}

fn kvctl_at(endpoints: &str, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvctl"))
        .args(args)
        .env("KVCTL_ENDPOINTS", endpoints)
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
        "stages",
        "shards",
        "health",
        "transfer",
        "snapshot",
        "backup",
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
    assert_fails(&kvctl(&["snapshot", "x"]), 2, "invalid value");
    assert_fails(&kvctl(&["backup"]), 2, "FILE");
    assert_fails(&kvctl(&["backup", "/no/such/dir/file"]), 2, "cannot be made");
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

/// A node on its own, and kvctl with its address.
struct Served {
    cluster: Cluster,
}

impl Served {
    async fn start() -> Self {
        Self { cluster: Cluster::quick(1).await }
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        kvctl_at(&self.cluster.node(1).address, args, input)
    }

    /// What a command prints that ends with this code.
    fn says(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args, b"");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The objects that a command prints, one a line.
    fn tells(&self, args: &[&str], code: i32) -> Vec<Value> {
        let printed = self.says(&[&["--output", "json"], args].concat(), code);
        printed.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }
}

#[tokio::test]
async fn a_key_is_put_read_appended_to_and_removed() {
    let served = Served::start().await;
    let made = served.says(&["put", "k", "one"], 0);
    assert!(made.starts_with("ok revision=") && made.ends_with(" version=1\n"), "{made:?}");
    assert_eq!(served.says(&["get", "k"], 0), "one");
    let again = served.says(&["put", "k", "two", "--previous"], 0);
    assert!(again.contains(" version=2\nprevious=one\n"), "{again:?}");
    assert!(served.says(&["append", "k", "+3"], 0).ends_with(" version=3 length=5\n"));
    assert_eq!(served.says(&["get", "k", "--stale"], 0), "two+3");
    let piped = served.run(&["put", "piped", "-"], b"from\nthere");
    assert_eq!((piped.status.code(), served.says(&["get", "piped"], 0)), (Some(0), "from\nthere".into()));

    let read = &served.tells(&["get", "k"], 0)[0];
    let revision = read["mod_revision"].as_u64().expect("every key has one").to_string();
    assert_eq!((read["value"].as_str(), read["version"].as_u64()), (Some("two+3"), Some(3)));
    let told = format!("k is at mod revision {revision}");
    assert_fails(&served.run(&["put", "k", "x", "--if-mod-revision", "1"], b""), 1, &told);
    assert_fails(&served.run(&["append", "k", "x", "--if-mod-revision", "1"], b""), 1, "read k for");
    assert_fails(&served.run(&["delete", "no", "--if-mod-revision", "1"], b""), 1, "comparison failed");
    assert_eq!(served.tells(&["put", "k", "x", "--if-mod-revision", "1"], 1)[0]["succeeded"], false);
    assert_eq!(served.tells(&["append", "k", "x", "--if-mod-revision", &revision], 0)[0]["length"], 6);

    assert!(served.says(&["delete", "k", "--previous"], 0).ends_with("\nprevious=two+3x\n"));
    assert_fails(&served.run(&["get", "k"], b""), 1, "no such key: k");
    assert_fails(&served.run(&["delete", "k"], b""), 1, "no such key: k");
    assert_eq!(served.tells(&["delete", "k"], 1)[0]["existed"], false);
    let long = "k".repeat(5000);
    assert_fails(&served.run(&["put", &long, "v"], b""), 2, "over a limit");
}

#[tokio::test]
async fn keys_are_scanned_and_a_transaction_is_applied() {
    let served = Served::start().await;
    for (key, value) in [("a/1", "x"), ("a/2", "tab\there"), ("b", "y")] {
        assert!(served.says(&["put", key, value], 0).starts_with("ok"));
    }
    assert_eq!(served.says(&["scan"], 0), "a/1\tx\na/2\ttab\\there\nb\ty\n");
    assert_eq!(served.says(&["scan", "--prefix", "a/", "--keys-only"], 0), "a/1\na/2\n");
    assert_eq!(served.says(&["scan", "--start", "a/2", "--end", "b"], 0), "a/2\ttab\\there\n");
    assert_eq!(served.says(&["scan", "--limit", "1"], 0), "a/1\tx\n");
    assert_eq!(served.tells(&["scan", "--keys-only"], 0).len(), 3);
    assert_eq!(served.tells(&["scan", "--prefix", "b"], 0)[0]["value"], "y");

    let txn = json!({
        "conditions": [{"key": "{t}a", "version": 0}],
        "then": [{"put": {"key": "{t}a", "value": "1"}}, {"append": {"key": "{t}b", "value": "22"}}],
        "otherwise": [{"get": {"key": "{t}a"}}, {"get": {"key": "{t}c"}}, {"delete": {"key": "{t}b"}}],
    });
    let txn = txn.to_string();
    let apply = |format| served.run(&["--output", format, "txn", "-"], txn.as_bytes());
    let (first, second, third) = (apply("text"), apply("text"), apply("json"));
    let codes = [&first, &second, &third].map(|output| output.status.code());
    assert_eq!(codes, [Some(0), Some(1), Some(1)], "{}", text(&first.stderr));
    let said = text(&first.stdout);
    assert!(said.starts_with("then revision="), "{said:?}");
    assert!(said.ends_with("\nput version=1\nappend version=1 length=2\n"), "{said:?}");
    let said = text(&second.stdout);
    assert!(
        said.contains("get {t}a\t1 mod_revision=") && said.ends_with("no such key\ndelete\n"),
        "{said:?}"
    );
    let told: Value = serde_json::from_slice(&third.stdout).expect("one object");
    assert_eq!(
        (&told["succeeded"], &told["results"][2]["delete"]["existed"]),
        (&json!(false), &json!(false))
    );
    let split = json!({"then": [{"get": {"key": "a"}}, {"get": {"key": "b"}}, {"get": {"key": "c"}}]});
    assert_fails(&served.run(&["txn", "-"], split.to_string().as_bytes()), 2, "keys of several shards");
}

#[tokio::test]
async fn tables_are_made_and_a_backup_is_written() {
    let served = Served::start().await;
    let address = served.cluster.node(1).address.clone();
    assert!(served.says(&["put", "k", "v"], 0).starts_with("ok"));
    assert_eq!(served.says(&["snapshot"], 0), format!("{address}  ok\n"));
    assert_eq!(served.tells(&["snapshot", "0", "7"], 0), [json!({"address": address, "durable": true})]);
    assert_fails(&served.run(&["snapshot", "8"], b""), 2, "there is no shard 8");
    let both = format!("{address},{}", dead_endpoint());
    let partly = kvctl_at(&both, &["--timeout", "2s", "snapshot"], b"");
    assert_eq!(partly.status.code(), Some(1), "{}", text(&partly.stderr));
    assert!(text(&partly.stdout).starts_with(&format!("{address}  ok\n")), "{}", text(&partly.stdout));

    let file = served.cluster.dir().join("a.backup");
    let name = file.to_string_lossy().into_owned();
    let said = served.says(&["backup", &name], 0);
    let written = std::fs::read(&file).expect("it is there");
    assert!(said.starts_with("SHARD  REVISION") && said.lines().count() == SHARDS as usize + 2, "{said}");
    assert!(said.contains(&format!("ok bytes={} hash=", written.len())), "{said}");
    let told = &served.tells(&["backup", &name], 0)[0];
    assert_eq!((&told["file"], &told["node"]), (&json!(name), &json!(1)));
    let keys = told["shards"].as_array().expect("a list").iter().map(|shard| shard["keys"].as_u64());
    assert_eq!(keys.map(|keys| keys.expect("a number")).sum::<u64>(), 1, "{told}");

    // To standard output, by the second endpoint: the first is dead.
    let piped = kvctl_at(&format!("{},{address}", dead_endpoint()), &["backup", "-"], b"");
    assert_eq!(piped.status.code(), Some(0), "{}", text(&piped.stderr));
    assert!(text(&piped.stderr).contains(&format!("ok bytes={} hash=", piped.stdout.len())));
    let mut reader = distribkv::kv::backup::BackupReader::default();
    reader.feed(&piped.stdout).expect("it is a backup");
    assert_eq!(reader.finish().expect("it is whole").parts.len(), SHARDS as usize);
}

#[test]
fn without_a_cluster_there_is_no_backup_and_no_table() {
    let dir = processes::new_dir();
    let file = dir.path().join("a.backup");
    let name = file.to_string_lossy();
    assert_fails(&kvctl(&["--timeout", "300ms", "backup", &name]), 3, "could not be reached");
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("it is ours").collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::write(&file, "an older one").expect("it is ours");
    assert_fails(&kvctl(&["--timeout", "300ms", "backup", &name]), 3, "could not be reached");
    assert_eq!(std::fs::read(&file).expect("it is still there"), b"an older one");
    assert_fails(&kvctl(&["--timeout", "300ms", "backup", "-"]), 3, "could not be reached");
    let output = kvctl(&["--timeout", "300ms", "snapshot"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).contains("  failed  no connection"), "{}", text(&output.stdout));
}

#[tokio::test]
async fn nodes_shards_and_health_are_shown() {
    let served = Served::start().await;
    let address = &served.cluster.node(1).address;
    assert!(served.says(&["status"], 0).contains(address.as_str()));
    let all = served.says(&["status", "--all"], 0);
    assert!(all.lines().count() > SHARDS as usize && all.to_lowercase().contains("leader"), "{all}");
    let told = &served.tells(&["status"], 0)[0];
    assert_eq!((&told["reachable"], told["replicas"].as_array().map(Vec::len)), (&json!(true), Some(8)));
    assert!(served.says(&["shards"], 0).contains("16383"), "the last slot is some shard's");
    assert_eq!(served.tells(&["shards"], 0)[0]["shards"].as_array().map(Vec::len), Some(8));
    assert!(served.says(&["health"], 0).to_lowercase().contains("serving"));
    assert_eq!(served.tells(&["health", "shard/0"], 0).len(), 1);
    assert!(served.says(&["health", "no/such"], 1).to_lowercase().contains("unknown"));
    assert_eq!(served.says(&["transfer", "0", "1"], 0), "ok shard=0 leader=1\n");
    assert_fails(&served.run(&["transfer", "99"], b""), 2, "refused");
}

#[tokio::test]
async fn where_the_time_of_requests_goes_is_shown() {
    let served = Served::start().await;
    let stages = std::thread::scope(|scope| {
        let looking = scope.spawn(|| served.tells(&["stages", "--interval", "2s"], 0));
        // Some of them, at least, lie between the two looks.
        while !looking.is_finished() {
            served.says(&["put", "k", "v"], 0);
        }
        looking.join().expect("it does not panic")
    });
    let of = |name: &str| {
        let stage = stages.iter().find(|stage| stage["stage"] == name);
        stage.unwrap_or_else(|| panic!("there is no {name} in {stages:?}")).clone()
    };
    let work = ["frames", "decode", "route", "turn", "apply", "encode", "send"];
    let waits = ["queue", "batch", "write", "replicate"];
    assert_eq!(stages.len(), work.len() + waits.len(), "a node of one core has each once");
    assert!(work.iter().all(|name| of(name)["is_work"] == true), "{stages:?}");
    assert!(waits.iter().all(|name| of(name)["is_work"] == false), "{stages:?}");
    for name in ["frames", "queue", "turn", "batch", "write", "replicate", "apply", "send"] {
        let (times, items) = (of(name)["times"].as_u64(), of(name)["items"].as_u64());
        assert!(times > Some(0) && items > Some(0), "{name} was gone through: {stages:?}");
        let buckets = of(name)["times_by_log2_us"].as_array().cloned().unwrap_or_default();
        assert_eq!(buckets.iter().filter_map(Value::as_u64).sum::<u64>(), times.unwrap_or_default());
    }
    assert!(of("write")["total_us"].as_u64() > Some(0), "a durable write takes a while: {stages:?}");
    let table = served.says(&["stages", "--interval", "100ms"], 0);
    assert!(table.starts_with("NODE") && table.contains("replicate"), "{table}");
}
