//! One group's consensus alone: three replicas in memory, every message and every completion passed on at
//! once.
//!
//! ```text
//! cargo bench --bench raft
//! ```
//!
//! - `propose`: entries from the proposal until the leader has committed them and all three hold them:
//!   appends, completions of the disks, acknowledgements. The followers apply those of the round before.
//! - `read`: ReadIndex rounds, from the question until it may be answered.
//! - `idle`: one heartbeat of 64 groups that have nothing to do, all their ticks included.
//!
//! A time is that of all three replicas together: a node pays about a third of it, the leader's more.

#[allow(dead_code, reason = "every bench takes of it what it needs")]
#[path = "support/inputs.rs"]
mod inputs;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use distribkv::ids::{Index, NodeId};
use distribkv::raft::{Config, Message, Raft, Recovered, Role};
use inputs::{KEY_BYTES, Numbers, VALUE_BYTES};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Groups of an idle core.
const GROUPS: usize = 64;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// A group whose first replica leads.
struct Group {
    replicas: [Raft; 3],
    /// Messages on their way.
    messages: VecDeque<Message>,
    /// Reads that may be answered.
    reads: usize,
}

impl Group {
    fn new() -> Self {
        let replicas = NODES.map(|node| {
            let config = Config::new(node, NODES.to_vec());
            Raft::new(config, Recovered::default(), node.0).expect("an empty log makes sense")
        });
        let mut group = Self { replicas, messages: VecDeque::new(), reads: 0 };
        group.replicas[0].campaign();
        group.settle();
        assert_eq!(group.replicas[0].role(), Role::Leader, "both others vote for it");
        group
    }

    /// Goes on until nobody has anything to do.
    fn settle(&mut self) {
        loop {
            for replica in &mut self.replicas {
                while replica.has_ready() {
                    let ready = replica.ready();
                    self.messages.extend(ready.messages);
                    self.reads += ready.reads.len();
                    replica.applied(ready.commit);
                    if let Some(persist) = ready.persist {
                        replica.persisted(persist.completion());
                        self.messages.extend(persist.then_send);
                    }
                }
            }
            if self.messages.is_empty() {
                return;
            }
            for message in self.messages.drain(..) {
                self.replicas[message.to.0 as usize - 1].step(message);
            }
        }
    }

    /// Proposes so many entries and sees them committed. The followers hear of it with what comes next.
    fn propose(&mut self, entries: u64, data: &Bytes) {
        let mut last = Index(0);
        for _ in 0..entries {
            last = self.replicas[0].propose(data.clone()).expect("a leader takes proposals").0;
        }
        self.settle();
        assert_eq!(self.replicas[0].commit(), last, "what was proposed is committed");
    }

    /// Asks so many reads and sees them answered.
    fn read(&mut self, reads: u64) {
        self.reads = 0;
        for token in 0..reads {
            self.replicas[0].read(token).expect("a leader takes reads");
        }
        self.settle();
        assert_eq!(self.reads as u64, reads, "every read may be answered");
    }

    /// Lets the time between two heartbeats go by.
    fn idle(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.replicas.iter_mut().for_each(|replica| replica.tick(7));
            self.settle();
        }
        assert_eq!(self.replicas[0].role(), Role::Leader, "nobody else campaigns");
    }
}

fn propose(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("propose");
    let data = Numbers(1).bytes(KEY_BYTES + VALUE_BYTES);
    for entries in [1, 64] {
        let mut group = Group::new();
        bench.throughput(Throughput::Elements(entries));
        bench.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter(|| group.propose(entries, &data));
        });
    }
    bench.finish();
}

fn read(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("read");
    for reads in [1, 64] {
        let mut group = Group::new();
        bench.throughput(Throughput::Elements(reads));
        bench.bench_function(BenchmarkId::from_parameter(reads), |bencher| {
            bencher.iter(|| group.read(reads));
        });
    }
    bench.finish();
}

fn idle(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("idle");
    let ticks = Config::new(NODES[0], NODES.to_vec()).heartbeat_ticks;
    let mut groups: Vec<Group> = (0..GROUPS).map(|_| Group::new()).collect();
    bench.throughput(Throughput::Elements(GROUPS as u64));
    bench.bench_function("heartbeat_of_64", |bencher| {
        bencher.iter(|| groups.iter_mut().for_each(|group| group.idle(ticks)));
    });
    bench.finish();
}

fn config() -> Criterion {
    let times = (Duration::from_secs(1), Duration::from_secs(4));
    Criterion::default().sample_size(50).warm_up_time(times.0).measurement_time(times.1)
}

criterion_group! { name = benches; config = config(); targets = propose, read, idle }
criterion_main!(benches);
