//! Twenty rounds of `kill -9` and restart under load, random nodes and leaders in turn: what was acknowledged
//! is kept and nothing is applied twice; and how long each shard does not acknowledge, as seen from outside
//! and as the Clerk's callers see it.
//!
//! It takes some minutes, so it runs when it is asked for:
//! `cargo test --release --test chaos -- --ignored --nocapture`. Times are printed, never judged.

mod processes;

use std::time::{Duration, Instant};

use distribkv::client::Clerk;
use distribkv::wire::v1;
use processes::load::Load;
use processes::{Cluster, PATIENCE, SHARDS, key_of, put, within};
use v1::kv_client::KvClient;

const ROUNDS: u32 = 20;
/// The election timeout of a cluster that sets none.
const ELECTION: Duration = Duration::from_millis(1000);
/// How long one probe waits for its answer.
const PROBE_MAX: Duration = Duration::from_millis(150);
const PROBE_EVERY: Duration = Duration::from_millis(3);

#[ignore = "takes some minutes"]
#[tokio::test]
async fn twenty_rounds_of_killing_anybody_under_load() {
    tokio::task::LocalSet::new().run_until(rounds()).await;
}

async fn rounds() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all().await;
    let load = Load::start(cluster.addresses(), 8);
    let clerk = Clerk::connect(cluster.addresses()).expect("well-formed addresses");
    let mut chance = Chance::new();
    let (mut outages, mut clerk_outages) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        load.goes_on(500).await;
        let leaders = cluster.leaders(chance.below(3) + 1).await;
        let (how, victim) = match round % 2 {
            0 => ("a random node", chance.below(3) + 1),
            _ => ("a leader", leaders[chance.below(SHARDS) as usize]),
        };
        let led: Vec<u32> = (0..SHARDS).filter(|shard| leaders[*shard as usize] == victim).collect();
        let survivor = victim % 3 + 1;
        cluster.kill(victim);
        let killed = Instant::now();
        let through_clerk = (0..SHARDS).map(|shard| put_through(clerk.clone(), shard, killed));
        let through_clerk: Vec<_> = through_clerk.map(tokio::task::spawn_local).collect();
        let kv = cluster.node(survivor).kv();
        let probes = (0..SHARDS).map(|shard| probe(kv.clone(), shard, killed));
        let slowest = slowest_of(probes.map(tokio::task::spawn_local).collect()).await;
        let clerk_slowest = slowest_of(through_clerk).await;
        println!(
            "round {round}: {how}, node {victim}, leader of {}: all acknowledge after {slowest:?}, to the \
             Clerk after {clerk_slowest:?}",
            led.len()
        );
        if !led.is_empty() {
            outages.push(slowest);
            clerk_outages.push(clerk_slowest);
        }
        load.goes_on(500).await;
        cluster.start(victim);
        cluster.ready(victim).await;
    }
    let tally = load.stop_and_check().await;
    cluster.digests_agree().await;
    println!("{tally:?}: none lost, none twice; all replicas hold the same");
    assert_eq!(tally.not_executed, 0, "a Clerk's call ends when it is done");
    clerk.close().await;
    report("probes", outages);
    report("Clerk callers", clerk_outages);
}

async fn slowest_of(shards: Vec<tokio::task::JoinHandle<Duration>>) -> Duration {
    let mut slowest = Duration::ZERO;
    for shard in shards {
        slowest = slowest.max(shard.await.expect("no probe panics"));
    }
    slowest
}

/// How long after the kill the Clerk had a write acknowledged that it was given at the kill.
async fn put_through(clerk: Clerk, shard: u32, killed: Instant) -> Duration {
    clerk.put(key_of(shard, "clerk/"), "c").await.expect("the Clerk asks until it is done");
    killed.elapsed()
}

/// How long after the kill a shard acknowledged a write that was sent after it.
async fn probe(mut kv: KvClient<tonic::transport::Channel>, shard: u32, killed: Instant) -> Duration {
    let key = key_of(shard, "probe/");
    loop {
        match kv.put(within(PROBE_MAX, put(&key, "p"))).await {
            Ok(_) => return killed.elapsed(),
            Err(status) => {
                assert!(killed.elapsed() < PATIENCE, "shard {shard} does not acknowledge: {status}");
                tokio::time::sleep(PROBE_EVERY).await;
            }
        }
    }
}

fn report(seen_by: &str, mut outages: Vec<Duration>) {
    outages.sort();
    let in_elections = |time: Duration| time.as_secs_f64() / ELECTION.as_secs_f64();
    let (median, most) = (outages[outages.len() / 2], outages[outages.len() - 1]);
    println!(
        "{} leaders killed; until {seen_by} see all shards acknowledge: median {median:?} ({:.2} T), \
         at most {most:?} ({:.2} T); aimed at: 1.5 T and 3 T",
        outages.len(),
        in_elections(median),
        in_elections(most)
    );
}

/// Numbers for who is killed: another run is another order.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(now.expect("it is past 1970").as_nanos() as u64 | 1)
    }

    fn below(&mut self, end: u32) -> u32 {
        // Xorshift: Marsaglia's.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % end
    }
}
