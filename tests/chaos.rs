//! Twenty rounds of killing a node under load: what is kept, and how long shards are without a leader.
//!
//! It takes some minutes, so it runs when it is asked for:
//! `cargo test --test chaos -- --ignored --nocapture`. Times are printed, never judged.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use distribkv::client::{Clerk, Error, Options};
use distribkv::ids::ShardId;
use distribkv::route::slot::shard_of_key;
use distribkv::wire::v1::{AppendRequest, GetRequest};
use support::Cluster;

const SHARDS: u32 = 8;
const ROUNDS: usize = 20;
const ELECTION_MS: f64 = 1000.0;

/// What the writer of one shard's key was told: the tokens and when each was acknowledged.
#[derive(Default)]
struct Writer {
    key: String,
    tokens: Vec<(String, bool)>,
    acknowledged: Vec<Instant>,
}

impl Writer {
    fn told(&mut self, token: String, done: bool) {
        self.tokens.push((token, done));
        if done {
            self.acknowledged.push(Instant::now());
        }
    }
}

type Shared = Rc<RefCell<Writer>>;

fn key_of(shard: ShardId) -> String {
    let key = (0..).map(|number| format!("chaos-{number}"));
    key.into_iter().find(|key| shard_of_key(key.as_bytes(), SHARDS) == shard).expect("keys without end")
}

async fn write(clerk: Clerk, writer: Shared, stop: Rc<RefCell<bool>>) {
    while !*stop.borrow() {
        let (key, token) = {
            let writer = writer.borrow();
            (writer.key.clone(), format!("{};", writer.tokens.len()))
        };
        let request =
            AppendRequest { key: key.into(), value: token.clone().into(), ..AppendRequest::default() };
        let done = match clerk.append(request).await {
            Ok(_) => true,
            Err(Error::CheckOutcome { .. }) => false,
            Err(error) => panic!("an exactly-once append ended in {error}"),
        };
        writer.borrow_mut().told(token, done);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The longest time without an acknowledgement that began or lay after `from`, in milliseconds.
fn outage_ms(writer: &Writer, from: Instant) -> f64 {
    let before = writer.acknowledged.iter().rev().find(|at| **at <= from).copied().unwrap_or(from);
    let after = writer.acknowledged.iter().filter(|at| **at > from).copied();
    let times: Vec<Instant> = std::iter::once(before).chain(after).collect();
    let gaps = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64() * 1000.0);
    gaps.fold(0.0, f64::max)
}

#[ignore = "takes some minutes"]
#[test]
fn twenty_rounds_of_kill_and_restart() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, rounds());
}

async fn rounds() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    let stop = Rc::new(RefCell::new(false));
    let mut writers = BTreeMap::new();
    let mut running = Vec::new();
    for shard in (0..SHARDS).map(ShardId) {
        let writer = Rc::new(RefCell::new(Writer { key: key_of(shard), ..Writer::default() }));
        let clerk = Clerk::connect(cluster.endpoints(), Options::default()).expect("well-formed endpoints");
        running.push(tokio::task::spawn_local(write(clerk, Rc::clone(&writer), Rc::clone(&stop))));
        writers.insert(shard, writer);
    }
    let admin = Clerk::connect(cluster.endpoints(), Options::default()).expect("well-formed endpoints");
    let mut outages = Vec::new();
    for round in 0..ROUNDS {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let shards = admin.shards().await.expect("the cluster serves").shards;
        let victim = match shards.get(round % shards.len()).map(|shard| shard.leader as usize) {
            Some(leader) if leader > 0 => leader,
            Some(_) | None => round % 3 + 1,
        };
        let led: Vec<ShardId> = shards
            .iter()
            .filter(|shard| shard.leader as usize == victim)
            .map(|shard| ShardId(shard.shard))
            .collect();
        let killed = Instant::now();
        cluster.kill(victim);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let round_outages: Vec<f64> =
            led.iter().map(|shard| outage_ms(&writers[shard].borrow(), killed)).collect();
        let worst = round_outages.iter().copied().fold(0.0, f64::max);
        println!(
            "round {round}: killed node {victim}, leader of {} shards; all acknowledge after {worst:.0} ms",
            led.len()
        );
        outages.push(worst);
        cluster.start(victim);
        cluster.wait_ready(victim);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    *stop.borrow_mut() = true;
    for task in running {
        task.await.expect("no writer panics");
    }
    report(outages);
    check(&admin, &writers).await;
}

fn report(mut outages: Vec<f64>) {
    outages.sort_by(f64::total_cmp);
    let (median, most) = (outages[outages.len() / 2], outages[outages.len() - 1]);
    println!(
        "until every shard of a killed leader acknowledges again: median {median:.0} ms ({:.2} T), at most \
         {most:.0} ms ({:.2} T)",
        median / ELECTION_MS,
        most / ELECTION_MS
    );
}

/// Every acknowledged token is there once and in its order, no token twice.
async fn check(clerk: &Clerk, writers: &BTreeMap<ShardId, Shared>) {
    let mut appends = 0;
    for writer in writers.values() {
        let (key, tokens) = (writer.borrow().key.clone(), writer.borrow().tokens.clone());
        let got = clerk.get(GetRequest { key: key.clone().into(), ..GetRequest::default() }).await;
        let value = got.expect("the cluster serves").kv.map(|kv| kv.value).unwrap_or_default();
        let value = String::from_utf8(value.to_vec()).expect("tokens are text");
        let mut there = value.split_inclusive(';').peekable();
        for (token, done) in &tokens {
            let is_there = there.next_if(|next| next == token).is_some();
            assert!(is_there || !done, "{key}: token {token} was acknowledged and is lost");
            appends += usize::from(is_there);
        }
        assert_eq!(there.next(), None, "{key}: a token is there twice, or out of order");
    }
    println!("{appends} appends, none lost, none twice");
}
