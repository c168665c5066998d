//! Three real processes that are stopped, killed and started again: what was acknowledged is there, once.

mod processes;

use distribkv::client::Clerk;
use distribkv::wire::v1;
use processes::Cluster;
use processes::load::Load;

#[tokio::test]
async fn nothing_is_lost_or_repeated_when_leaders_are_killed_under_load() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut cluster = Cluster::quick(3).await;
            let load = Load::start(cluster.addresses(), 6);
            load.goes_on(200).await;
            for round in 0..3 {
                let victim = cluster.leaders(1).await[round];
                cluster.kill(victim);
                load.goes_on(500).await;
                cluster.start(victim);
                cluster.ready(victim).await;
                load.goes_on(200).await;
            }
            let tally = load.stop_and_check().await;
            println!("{tally:?}");
            cluster.digests_agree().await;
            // The whole cluster loses power, so to speak: what was acknowledged was on disk.
            (1..=3).for_each(|id| cluster.kill(id));
            cluster.start_all().await;
            cluster.digests_agree().await;
        })
        .await;
}

#[tokio::test]
async fn a_node_killed_under_load_starts_again_with_what_is_there() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut cluster = Cluster::quick(3).await;
            let load = Load::start(cluster.addresses(), 6);
            for id in [3, 2, 1] {
                load.goes_on(300).await;
                cluster.kill(id);
                cluster.start(id);
                cluster.ready(id).await;
            }
            println!("{:?}", load.stop_and_check().await);
            cluster.digests_agree().await;
        })
        .await;
}

#[tokio::test]
async fn the_clerk_swaps_a_key_that_is_as_it_was_read_and_makes_one_that_is_not_there() {
    let cluster = Cluster::quick(1).await;
    let clerk = Clerk::connect([cluster.node(1).address.as_str()]).expect("a well-formed address");
    let made = clerk.compare_and_swap("k", 0, "1").await.expect("it serves");
    assert!(made.succeeded, "{made:?}");
    let again = clerk.compare_and_swap("k", 0, "2").await.expect("it serves");
    assert!(!again.succeeded && again.previous.is_some_and(|kv| kv.value == "1"), "it is there");
    let read = clerk.get("k").await.expect("it serves").kv.expect("it was made");
    assert_eq!(made.header.map(|header| header.revision), Some(read.mod_revision));
    let swapped = clerk.compare_and_swap("k", read.mod_revision, "3").await.expect("it serves");
    assert!(swapped.succeeded, "{swapped:?}");
    let late = clerk.compare_and_swap("k", read.mod_revision, "4").await.expect("it serves");
    assert!(!late.succeeded && late.previous.is_some_and(|kv| kv.value == "3"), "it was written since");
    assert!(clerk.append("k", "+").await.expect("it serves").length == 2);
    assert!(clerk.delete("k").await.expect("it serves").existed);
    clerk.close().await;
}

#[tokio::test]
async fn a_cluster_that_was_stopped_has_its_data_when_it_is_started_again() {
    let mut cluster = Cluster::quick(3).await;
    let clerk = |cluster: &Cluster| Clerk::connect(cluster.addresses()).expect("well-formed addresses");
    let before = clerk(&cluster);
    for number in 0..100 {
        let written = before.put(format!("key-{number:03}"), format!("value-{number}")).await;
        written.expect("the cluster serves");
    }
    before.close().await;
    for id in 1..=3 {
        let ended = cluster.terminate(id).await;
        assert_eq!(ended.code, Some(0), "node {id} ends as asked: {}", ended.said);
    }
    cluster.start_all().await;
    let after = clerk(&cluster);
    let mut scan = after.scan(v1::ScanRequest::default());
    let mut found = Vec::new();
    while let Some(page) = scan.next().await.expect("the cluster serves") {
        found.extend(page.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec())));
    }
    let expected: Vec<_> = (0..100)
        .map(|number| (format!("key-{number:03}").into_bytes(), format!("value-{number}").into_bytes()))
        .collect();
    assert_eq!(found, expected);
}
