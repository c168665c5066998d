//! The state machine of a shard alone: what a core pays to apply and to read, layer by layer.
//!
//! ```text
//! cargo bench --bench kv
//! cargo bench --bench kv -- apply
//! ```
//!
//! - `apply`: Puts of keys that are new, in the memtable, in the frozen memtable, in a table; with a session;
//!   from the bytes of the log. A time is that of 20000 of them. `..._resolved`: without the short way of a
//!   Put over what the memtable holds.
//! - `get`, `scan`: a Get, and a page of 100 keys, from the memtable and from a table.
//! - `table`: a frozen memtable merged with the table below it, in steps.
//!
//! Keys have 16 bytes, values 256, in no order. The blocks of a table are at hand, checked, as in a core's
//! cache; no file is read. What a round changes is made anew for the next, outside of what is measured.

#[allow(dead_code, reason = "every bench takes of it what it needs")]
#[path = "support/inputs.rs"]
mod inputs;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use distribkv::ids::{Sequence, SessionId, ShardId, Term};
use distribkv::kv::table::{Block, BlockHandle, Footer, PAGE_BYTES, TableIndex};
use distribkv::kv::{
    Answer, Base, BlockSource, Command, Config, Limits, Merge, MergeStep, Query, QueryAnswer, RequestId,
    Resolved, ScanKeys, ScanRun, State,
};
use inputs::{Numbers, VALUE_BYTES, keys, put, put_command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keys of a state.
const KEYS: u64 = 20_000;

/// Keys of a page.
const PAGE_KEYS: u32 = 100;

/// What a step of a merge passes before others have their turn.
const STEP_BYTES: usize = 64 << 10;

/// A shard's state, with the blocks of its table at hand.
struct Shard {
    state: State,
    blocks: Blocks,
}

/// Blocks by their offset.
#[derive(Clone, Default)]
struct Blocks(BTreeMap<u64, Block>);

impl BlockSource for Blocks {
    fn block(&mut self, handle: &BlockHandle) -> Option<Block> {
        self.0.get(&handle.offset).filter(|block| block.handle() == *handle).cloned()
    }
}

/// Where the keys of a state lie.
#[derive(Clone, Copy)]
enum Layer {
    Nowhere,
    Memtable,
    Frozen,
    Table,
}

impl Shard {
    /// A state with these keys in one layer.
    fn with(keys: &[Bytes], layer: Layer) -> Self {
        let state = State::new(Config::new(ShardId(0), Limits::DEFAULT));
        let mut shard = Self { state, blocks: Blocks::default() };
        match layer {
            Layer::Nowhere => {}
            Layer::Memtable => shard.put_all(keys),
            Layer::Frozen => {
                shard.put_all(keys);
                shard.freeze();
            }
            Layer::Table => {
                shard.put_all(keys);
                shard.freeze();
                shard.merge(1);
            }
        }
        shard
    }

    fn put_all(&mut self, keys: &[Bytes]) {
        let value = Numbers(2).bytes(VALUE_BYTES);
        keys.iter().for_each(|key| {
            self.apply(&put_command(key, &value));
        });
    }

    /// Applies a command as the next entry, as a replica does.
    fn apply(&mut self, command: &Command) -> Answer {
        match self.state.overwrite(self.state.applied().next(), command) {
            Some(applied) => applied.answer,
            None => self.apply_resolved(command),
        }
    }

    /// The same, always by way of what the table has of its keys.
    fn apply_resolved(&mut self, command: &Command) -> Answer {
        let Resolved::Done(base) = self.state.resolve(command, &mut self.blocks) else {
            panic!("every block is at hand");
        };
        let applied = self.state.apply(self.state.applied().next(), command, &base);
        applied.expect("a command within the limits").answer
    }

    fn query(&mut self, query: &Query) -> QueryAnswer {
        let base = self.base_of(query);
        self.state.query(query, &base).expect("a query within the limits").1
    }

    fn base_of(&mut self, query: &Query) -> Base {
        match self.state.resolve_query(query, &mut ScanRun::default(), &mut self.blocks) {
            Resolved::Done(base) => base,
            Resolved::Missing(handles) => panic!("every block is at hand, and {handles:?} are not"),
        }
    }

    fn freeze(&mut self) {
        drop(self.state.freeze(Term(1), Bytes::new()));
    }

    /// Makes a table of the frozen memtable and the table below it, and puts it in their place.
    fn merge(&mut self, salt: u64) {
        let file = self.merged(salt);
        let index = open(&file);
        let handles = (0..index.blocks()).map(|at| index.handle(at));
        let blocks = handles.map(|handle| {
            let bytes = part(&file, handle.offset, u64::from(handle.length));
            (handle.offset, Block::decode(handle, bytes).expect("it was just written"))
        });
        self.blocks = Blocks(blocks.collect());
        let mut retired = self.state.install_table(index);
        while retired.drop_some(1000) {}
    }

    /// The file of the next table.
    fn merged(&mut self, salt: u64) -> Bytes {
        let frozen = self.state.frozen().expect("the state was frozen").clone();
        let mut merge = Merge::new(frozen, self.state.table().cloned(), salt);
        let mut file = Vec::new();
        loop {
            match merge.step(STEP_BYTES).expect("a merge of what was put") {
                MergeStep::Again => {}
                MergeStep::Block(handle) => {
                    merge.feed(self.blocks.block(&handle).expect("every block is at hand"));
                }
                MergeStep::Output => {
                    while let Some(chunk) = merge.take_output() {
                        file.extend_from_slice(chunk.bytes);
                    }
                }
                MergeStep::Done => return file.into(),
            }
        }
    }
}

fn open(file: &Bytes) -> TableIndex {
    let length = file.len() as u64;
    let page = part(file, Footer::offset(length), PAGE_BYTES as u64);
    let footer = Footer::decode(&page, length).expect("it was just written");
    let [index, filter] =
        [footer.index, footer.filter].map(|section| part(file, section.offset, section.padded_length()));
    TableIndex::open(footer, &index, &filter).expect("it was just written")
}

fn part(file: &Bytes, offset: u64, length: u64) -> Bytes {
    file.slice(offset as usize..(offset + length) as usize)
}

/// Puts of every key, over a state that has them in this layer: as a replica applies them, and always by way
/// of the table.
fn puts(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, layer: Layer, commands: &[Command]) {
    let keys = keys(KEYS, 1);
    type Apply = fn(&mut Shard, &Command) -> Answer;
    for (suffix, apply) in [("", Shard::apply as Apply), ("_resolved", Shard::apply_resolved)] {
        group.bench_function(format!("{name}{suffix}"), |bencher| {
            let apply_all = |mut shard: Shard| {
                for command in commands {
                    black_box(apply(&mut shard, command));
                }
                shard
            };
            bencher.iter_batched(|| Shard::with(&keys, layer), apply_all, BatchSize::PerIteration);
        });
    }
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(KEYS)).sampling_mode(SamplingMode::Flat);
    let value = Numbers(3).bytes(VALUE_BYTES);
    let commands: Vec<Command> = keys(KEYS, 1).iter().map(|key| put_command(key, &value)).collect();
    puts(&mut group, "put_new", Layer::Nowhere, &commands);
    puts(&mut group, "put_in_memtable", Layer::Memtable, &commands);
    puts(&mut group, "put_in_frozen", Layer::Frozen, &commands);
    puts(&mut group, "put_in_table", Layer::Table, &commands);
    with_session(&mut group);
    from_log(&mut group, &commands);
    group.finish();
}

/// Puts of one session, each acknowledging the answer before it.
fn with_session(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (keys, value) = (keys(KEYS, 1), Numbers(3).bytes(VALUE_BYTES));
    let setup = || {
        let mut shard = Shard::with(&keys, Layer::Memtable);
        let Answer::SessionOpened { session, .. } = shard.apply(&Command::OpenSession { ttl_ms: 0 }) else {
            panic!("an Open opens a session");
        };
        let commands: Vec<Command> =
            (1..).zip(&keys).map(|(sequence, key)| identified(session, sequence, key, &value)).collect();
        (shard, commands)
    };
    group.bench_function("put_with_session", |bencher| {
        let apply_all = |(mut shard, commands): (Shard, Vec<Command>)| {
            for command in &commands {
                black_box(shard.apply(command));
            }
            (shard, commands)
        };
        bencher.iter_batched(setup, apply_all, BatchSize::PerIteration);
    });
}

fn identified(session: SessionId, sequence: u64, key: &Bytes, value: &Bytes) -> Command {
    let (sequence, acknowledged) = (Sequence(sequence), Sequence(sequence - 1));
    Command::Write { id: Some(RequestId { session, sequence, acknowledged }), write: put(key, value) }
}

/// Puts of keys in the memtable, each decoded from the bytes of its entry.
fn from_log(group: &mut BenchmarkGroup<'_, WallTime>, commands: &[Command]) {
    let keys = keys(KEYS, 1);
    let entries = commands.iter().map(|command| {
        let mut entry = Vec::new();
        command.encode(&mut entry);
        Bytes::from(entry)
    });
    let entries: Vec<Bytes> = entries.collect();
    group.bench_function("decode_and_put", |bencher| {
        let apply_all = |mut shard: Shard| {
            for entry in &entries {
                let command = Command::decode(entry.clone()).expect("it was just encoded");
                black_box(shard.apply(&command));
            }
            shard
        };
        bencher.iter_batched(|| Shard::with(&keys, Layer::Memtable), apply_all, BatchSize::PerIteration);
    });
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let keys = keys(KEYS, 1);
    for (name, layer) in [("memtable", Layer::Memtable), ("table", Layer::Table)] {
        let mut shard = Shard::with(&keys, layer);
        let mut queries = keys.iter().map(|key| Query::Get { key: key.clone() }).cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let answer = queries.next().map(|query| shard.query(&query));
                assert!(matches!(answer, Some(QueryAnswer::Get(Some(_)))), "{answer:?}");
            });
        });
    }
    group.finish();
}

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(u64::from(PAGE_KEYS)));
    let mut keys = keys(KEYS, 1);
    for (name, layer) in [("memtable_100", Layer::Memtable), ("table_100", Layer::Table)] {
        let mut shard = Shard::with(&keys, layer);
        keys.sort_unstable();
        // Pages begin all over the keys, none so late that it is not full.
        let starts = keys[..keys.len() - PAGE_KEYS as usize].iter().step_by(37).cycle();
        let mut queries = starts.map(|start| page(start.clone()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let answer = queries.next().map(|query| shard.query(&query));
                let Some(QueryAnswer::Scan { kvs, .. }) = answer else { panic!("{answer:?}") };
                assert_eq!(kvs.len(), PAGE_KEYS as usize, "a page that is not full");
                kvs
            });
        });
    }
    group.finish();
}

fn page(start: Bytes) -> Query {
    let (end, limit, bytes_max) = (Bytes::new(), PAGE_KEYS, 1 << 20);
    Query::Scan { start, end, limit, bytes_max, keys: ScanKeys::Whole }
}

/// Half of the table's keys changed and as many new ones: frozen, and merged into the next table.
fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(KEYS + KEYS / 2)).sampling_mode(SamplingMode::Flat);
    let all = keys(KEYS + KEYS / 2, 1);
    let (older, changed) = (&all[..KEYS as usize], &all[(KEYS / 2) as usize..]);
    let setup = || {
        let mut shard = Shard::with(older, Layer::Table);
        shard.put_all(changed);
        shard
    };
    group.bench_function("freeze_and_merge", |bencher| {
        let merge = |mut shard: Shard| {
            shard.freeze();
            let file = shard.merged(2);
            (shard, file)
        };
        bencher.iter_batched(setup, merge, BatchSize::PerIteration);
    });
    group.finish();
}

fn config() -> Criterion {
    // A round of the larger benches takes tens of milliseconds, and as long again to prepare.
    let times = (Duration::from_millis(500), Duration::from_secs(3));
    Criterion::default().sample_size(20).warm_up_time(times.0).measurement_time(times.1)
}

criterion_group! { name = benches; config = config(); targets = apply, get, scan, table }
criterion_main!(benches);
