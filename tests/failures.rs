//! What goes wrong at start, and what the process says and ends with; and what clients are told without a
//! quorum.

mod support;

use std::time::Duration;

use distribkv::wire::v1::kv_client::KvClient;
use distribkv::wire::v1::{Error, GetRequest, Operation, PutRequest, Reason, TxnRequest, operation};
use prost::Message as _;
use support::{Cluster, Process};
use tonic::{Code, Request, Status};

/// Runs a node to its end: its code and what it said.
fn ends(cluster: &Cluster, node: usize, more: &[&str]) -> (Option<i32>, String) {
    let (status, said) = Process::start(cluster.command(node, more)).wait();
    (status.code(), said)
}

fn assert_ends(cluster: &Cluster, node: usize, more: &[&str], (code, word): (i32, &str)) {
    let (got, said) = ends(cluster, node, more);
    assert_eq!(got, Some(code), "{said}");
    assert!(said.contains(word), "{word:?} is not in:\n{said}");
}

#[test]
fn wrong_settings_are_refused_before_anything_is_opened() {
    let cluster = Cluster::new(3, &[]);
    assert_ends(&cluster, 9, &[], (2, "--id"));
    assert_ends(&cluster, 1, &["--shards", "0"], (2, "--shards"));
    assert_ends(&cluster, 1, &["--cores", "many"], (2, "--cores"));
    assert_ends(&cluster, 1, &["--config", "/nowhere.toml"], (2, "/nowhere.toml"));
    assert_ends(&cluster, 1, &["--no-such-flag"], (2, "--no-such-flag"));
    assert!(!cluster.data_dir(1).exists(), "nothing was opened");
}

#[test]
fn too_little_lockable_memory_is_said_with_what_is_needed() {
    let cluster = Cluster::new(1, &[]);
    let node = cluster.command(1, &[]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -l 64; exec \"$@\"", "sh"]).arg(node.get_program()).args(node.get_args());
    let (status, said) = Process::start(limited).wait();
    assert_eq!(status.code(), Some(13), "{said}");
    assert!(said.contains("ulimit -l"), "{said}");
}

#[test]
fn a_directory_an_address_and_an_identity_belong_to_one_node() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all();
    assert_ends(&cluster, 1, &["--listen", "localhost:1"], (10, "in use"));
    let other = cluster.path().join("other").to_string_lossy().into_owned();
    assert_ends(&cluster, 1, &["--data-dir", &other], (11, "in use"));
    cluster.kill(1);
    assert_ends(&cluster, 1, &["--shards", "4"], (15, "shards"));
    assert_ends(&cluster, 1, &["--cluster-name", "another"], (15, "cluster"));
    cluster.start_all();
}

#[test]
fn a_node_of_another_cluster_is_refused_and_a_wiped_one_too() {
    let mut cluster = Cluster::three();
    assert_eq!(cluster.terminate(3).code(), Some(0));
    let other = cluster.path().join("other").to_string_lossy().into_owned();
    assert_ends(&cluster, 3, &["--data-dir", &other, "--cluster-name", "x"], (19, "belongs to cluster"));
    std::fs::remove_dir_all(cluster.data_dir(3)).expect("it is stopped");
    assert_ends(&cluster, 3, &[], (20, "replaced or wiped"));
}

#[test]
fn a_damaged_log_is_named_and_left_as_it_is() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = connect(&cluster, 1).await;
        for number in 0..50 {
            let request = PutRequest { key: format!("k{number}").into(), ..PutRequest::default() };
            client.put(request).await.expect("it serves");
        }
    });
    assert_eq!(cluster.terminate(1).code(), Some(0));
    let lane = cluster.data_dir(1).join("lane-0");
    let mut segments: Vec<_> = std::fs::read_dir(&lane)
        .expect("the lane is there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[0]).expect("the segment is there");
    // In the header of the second batch.
    bytes[2 * 4096 + 8] ^= 1;
    std::fs::write(&segments[0], &bytes).expect("the segment is ours");
    let (code, said) = ends(&cluster, 1, &[]);
    assert_eq!(code, Some(17), "{said}");
    assert!(said.contains("seg-") && said.contains("byte"), "file and offset are named: {said}");
    assert_eq!(std::fs::read(&segments[0]).expect("it is still there"), bytes, "nothing was cut");
}

async fn connect(cluster: &Cluster, node: usize) -> KvClient<tonic::transport::Channel> {
    let endpoint = format!("http://{}", cluster.endpoints()[node - 1]);
    let channel = tonic::transport::Endpoint::from_shared(endpoint).expect("host and port").connect().await;
    KvClient::new(channel.expect("the node listens"))
}

/// The error that a status of ours carries.
fn error_of(status: &Status) -> Error {
    let trailer = status.metadata().get_bin("distribkv-error-bin").expect("a status of ours has the trailer");
    Error::decode(trailer.to_bytes().expect("it is base64")).expect("it is an Error")
}

fn put(key: &str, bytes: usize) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..PutRequest::default() }
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_beyond_a_limit_is_refused_with_the_limit() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all();
    let mut client = connect(&cluster, 1).await;
    let refused = |status: Status, reason: Reason| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(error_of(&status).reason(), reason, "{status}");
    };
    refused(client.put(put("", 1)).await.expect_err("no key"), Reason::Limit);
    refused(client.put(put(&"k".repeat(4097), 1)).await.expect_err("a long key"), Reason::Limit);
    refused(client.put(put("k", (1 << 20) + 1)).await.expect_err("a large value"), Reason::Limit);
    client.put(put("k", 1 << 20)).await.expect("the largest value");
    let operation = |key: String| Operation {
        operation: Some(operation::Operation::Put(PutRequest { key: key.into(), ..PutRequest::default() })),
    };
    let many = TxnRequest {
        then: (0..129).map(|n| operation(format!("{{t}}{n}"))).collect(),
        ..TxnRequest::default()
    };
    refused(client.txn(many).await.expect_err("129 operations"), Reason::Limit);
    let spread =
        TxnRequest { then: (0..20).map(|n| operation(format!("{n}"))).collect(), ..TxnRequest::default() };
    refused(client.txn(spread).await.expect_err("several shards"), Reason::CrossShard);
}

#[tokio::test(flavor = "current_thread")]
async fn without_a_quorum_it_is_said_in_time_that_nothing_was_executed() {
    let mut cluster = Cluster::three();
    cluster.kill(2);
    cluster.kill(3);
    let mut client = connect(&cluster, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut request = Request::new(put("k", 1));
    request.set_timeout(Duration::from_secs(1));
    let status = client.put(request).await.expect_err("there is no leader");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(error_of(&status).reason(), Reason::NoLeader);
    let stale = GetRequest { key: "k".into(), consistency: 1 };
    client.get(stale).await.expect("whatever it has applied");
    cluster.start(2);
    client.put(put("k", 1)).await.expect("a quorum is back");
}
