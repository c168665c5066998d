//! Three real processes: what clients see while nodes are killed, and what is there afterwards.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use distribkv::client::{Clerk, Error, Options};
use distribkv::wire::v1::cluster_client::ClusterClient;
use distribkv::wire::v1::{AppendRequest, GetRequest, PutRequest, ScanRequest, StatusRequest};

use support::{Cluster, PATIENCE};
use tonic::transport::{Channel, Endpoint};

/// What one writer was told of its appends, in order.
struct Written {
    key: String,
    tokens: Vec<(String, Told)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    NotExecuted,
    Unknown,
}

fn clerk(cluster: &Cluster) -> Clerk {
    Clerk::connect(cluster.endpoints(), Options::default()).expect("well-formed endpoints")
}

/// Appends tokens to one key until it is told to stop.
async fn write_until(clerk: Clerk, key: String, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written { key, tokens: Vec::new() };
    while !stop.load(Ordering::Relaxed) {
        let token = format!("{};", written.tokens.len());
        let request = AppendRequest {
            key: written.key.clone().into(),
            value: token.clone().into(),
            ..AppendRequest::default()
        };
        let told = match clerk.append(request).await {
            Ok(_) => Told::Done,
            Err(Error::CheckOutcome { .. }) => Told::Unknown,
            Err(error) => {
                assert!(error.is_not_executed(), "{error}");
                Told::NotExecuted
            }
        };
        written.tokens.push((token, told));
    }
    written
}

/// Every acknowledged token is there once, every other at most once or never, all in their order.
async fn check(clerk: &Clerk, written: &Written) {
    let got = clerk.get(GetRequest { key: written.key.clone().into(), ..GetRequest::default() }).await;
    let value = got.expect("the cluster serves").kv.map(|kv| kv.value).unwrap_or_default();
    let value = String::from_utf8(value.to_vec()).expect("tokens are text");
    let mut there = value.split_inclusive(';').peekable();
    for (token, told) in &written.tokens {
        let is_there = there.next_if(|next| next == token).is_some();
        let may_be = match told {
            Told::Done => is_there,
            Told::NotExecuted => !is_there,
            Told::Unknown => true,
        };
        assert!(may_be, "{}: token {token} is wrong in {value}", written.key);
    }
    assert_eq!(there.next(), None, "{}: more than was appended, or out of order", written.key);
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_acknowledged_is_lost_when_leaders_are_killed_under_load() {
    let mut cluster = Cluster::three();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..6)
        .map(|number| tokio::spawn(write_until(clerk(&cluster), format!("key-{number}"), Arc::clone(&stop))))
        .collect();
    for node in [1, 2, 3] {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.kill(node);
        tokio::time::sleep(Duration::from_millis(900)).await;
        cluster.start(node);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let reader = clerk(&cluster);
    for writer in writers {
        let written = writer.await.expect("no writer panics");
        let done = written.tokens.iter().filter(|(_, told)| *told == Told::Done).count();
        assert!(done > 20, "{}: only {done} appends were acknowledged", written.key);
        check(&reader, &written).await;
    }
    wait_for_equal_digests(&cluster).await;
}

async fn client_of(endpoint: &str) -> Result<ClusterClient<Channel>, tonic::transport::Error> {
    Ok(ClusterClient::new(Endpoint::from_shared(format!("http://{endpoint}"))?.connect().await?))
}

/// Replicas that have applied the same index have the same digest, and all get there.
async fn wait_for_equal_digests(cluster: &Cluster) {
    let begun = tokio::time::Instant::now();
    loop {
        let mut states = Vec::new();
        for endpoint in cluster.endpoints() {
            if let Ok(mut client) = client_of(&endpoint).await
                && let Ok(status) = client.status(StatusRequest {}).await
            {
                let replicas = status.into_inner().replicas;
                states.push(
                    replicas.iter().map(|r| (r.shard, r.applied_index, r.state_digest)).collect::<Vec<_>>(),
                );
            }
        }
        if states.len() == 3 && states.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the replicas do not become equal: {states:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_cluster_that_was_stopped_has_its_data_when_it_is_started_again() {
    let mut cluster = Cluster::three();
    let before = clerk(&cluster);
    for number in 0..100 {
        let (key, value) = (format!("key-{number:03}"), format!("value-{number}"));
        let request = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        before.put(request).await.expect("the cluster serves");
    }
    before.close().await;
    for node in 1..=3 {
        assert_eq!(cluster.terminate(node).code(), Some(0), "node {node} ends as asked");
    }
    cluster.start_all();
    let after = clerk(&cluster);
    let mut scan = after.scan(ScanRequest::default());
    let mut found = Vec::new();
    while let Some(page) = scan.next().await.expect("the cluster serves") {
        found.extend(page.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec())));
    }
    let expected: Vec<_> = (0..100)
        .map(|number| (format!("key-{number:03}").into_bytes(), format!("value-{number}").into_bytes()))
        .collect();
    assert_eq!(found, expected);
}
