//! What it costs to turn things into bytes and back: the log's batches, a link's frames, the edge's messages,
//! the commands in them.
//!
//! ```text
//! cargo bench --bench codec
//! cargo bench --bench codec -- edge
//! ```
//!
//! - `log`: a batch of entries, its checksum included: formed, and checked and walked.
//! - `link`: a frame of calls, and one of an append of raft's, its checksum included.
//! - `edge`: a Put from its DATA frame to the request to a shard, limits checked; the answers of Get and Put
//!   to the bytes of their DATA frames.
//! - `command`: a Put as an entry's data.
//!
//! Keys have 16 bytes, values 256. Throughput is in bytes as they lie on disk or on the wire, padding left
//! out.

#[allow(dead_code, reason = "every bench takes of it what it needs")]
#[path = "support/inputs.rs"]
mod inputs;

use std::hint::black_box;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use distribkv::edge::{RequestBounds, answer_of, requests_of};
use distribkv::host::frame;
use distribkv::ids::{ClusterId, CoreId, Index, LaneId, NodeId, Revision, ShardId, Term};
use distribkv::kv::{Answer, Command, KeyValue, Limits, QueryAnswer};
use distribkv::log::batch::{
    BATCH_HEADER_BYTES, Batch, BatchBuilder, BatchHeader, BatchSequence, Chain, Place, SegmentId, batch_bytes,
};
use distribkv::log::record::{Record, RecordError, entry_bytes};
use distribkv::raft::{self, Entry, Message, Voice};
use distribkv::route::call::{Answered, Body, Request};
use distribkv::route::parcel::{Call, CallId, Parcel};
use distribkv::wire::v1;
use inputs::{KEY_BYTES, Numbers, VALUE_BYTES, put_command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHARD: ShardId = ShardId(3);
const TERM: Term = Term(7);

/// Entries of a batch, calls and entries of a frame.
const COUNTS: [u64; 2] = [1, 64];

/// The data of so many entries: encoded Puts.
fn entries_data(count: u64) -> Vec<Bytes> {
    let mut numbers = Numbers(1);
    let encoded = (0..count).map(|_| {
        let (key, value) = (numbers.bytes(KEY_BYTES), numbers.bytes(VALUE_BYTES));
        let mut data = Vec::new();
        put_command(&key, &value).encode(&mut data);
        Bytes::from(data)
    });
    encoded.collect()
}

const PLACE: Place = Place { lane: LaneId(1), segment: SegmentId(5), salt: 0x5A17_0B0E };
const HEADER: BatchHeader =
    BatchHeader { sequence: BatchSequence(9), durable_through: BatchSequence(8), before: Chain(77) };

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    for count in COUNTS {
        let data = entries_data(count);
        let records = data.iter().map(|data| entry_bytes(data.len())).sum();
        let mut buf = vec![0; batch_bytes(records)];
        // Without the padding, which costs next to nothing.
        group.throughput(Throughput::Bytes((BATCH_HEADER_BYTES + records) as u64));
        group.bench_function(BenchmarkId::new("encode", count), |bencher| {
            bencher.iter(|| form_batch(&mut buf, &data));
        });
        group.bench_function(BenchmarkId::new("decode", count), |bencher| {
            bencher.iter(|| assert_eq!(walk_batch(black_box(&buf)), count));
        });
    }
    group.finish();
}

fn form_batch(buf: &mut [u8], data: &[Bytes]) -> Chain {
    let mut builder = BatchBuilder::new(buf);
    for (index, data) in (1..).map(Index).zip(data) {
        builder.put(&Record::Entry { shard: SHARD, index, term: TERM, data });
    }
    builder.finish(&PLACE, &HEADER)
}

/// Checks a batch and counts its records.
fn walk_batch(buf: &[u8]) -> u64 {
    let batch = Batch::decode(buf, &PLACE).expect("it was just formed");
    let mut records = 0;
    let walked: Result<(), RecordError> = batch.each_record(|record| {
        black_box(record);
        records += 1;
        Ok(())
    });
    walked.expect("it was just formed");
    records
}

fn link(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("link");
    for count in COUNTS {
        frames(&mut group, "calls", count, &calls(count));
        frames(&mut group, "append", count, &[append(count)]);
    }
    group.finish();
}

fn frames(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, count: u64, parcels: &[Parcel]) {
    let mut encoded = Vec::new();
    frame::encode(&mut parcels.iter().cloned(), &mut encoded);
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    let mut out = Vec::with_capacity(encoded.len());
    group.bench_function(BenchmarkId::new(format!("encode_{name}"), count), |bencher| {
        let encode = |parcels: Vec<Parcel>| {
            out.clear();
            frame::encode(&mut parcels.into_iter(), &mut out);
            black_box(out.len())
        };
        bencher.iter_batched(|| parcels.to_vec(), encode, BatchSize::SmallInput);
    });
    group.bench_function(BenchmarkId::new(format!("decode_{name}"), count), |bencher| {
        let decode = |mut buffer: BytesMut| {
            let decoded = frame::decode(&mut buffer).expect("it was just encoded");
            assert_eq!(decoded.as_ref().map(Vec::len), Some(parcels.len()));
            decoded
        };
        bencher.iter_batched(|| BytesMut::from(&encoded[..]), decode, BatchSize::SmallInput);
    });
}

/// Puts on their way to the leader.
fn calls(count: u64) -> Vec<Parcel> {
    let calls = (0..count).zip(entries_data(count)).map(|(number, data)| {
        let command = Command::decode(data).expect("it was just encoded");
        Parcel::Call(Call {
            id: CallId { node: NodeId(1), incarnation: 2, core: CoreId(0), number },
            shard: SHARD,
            term: Some(TERM),
            remaining: Duration::from_secs(5),
            order: None,
            request: Request::Command(command),
        })
    });
    calls.collect()
}

/// Entries on their way to a follower.
fn append(count: u64) -> Parcel {
    let entries = (101..).zip(entries_data(count));
    let entries = entries.map(|(index, data)| Entry { index: Index(index), term: TERM, data });
    let body = raft::Body::Append {
        prev_index: Index(100),
        prev_term: TERM,
        commit: Index(100),
        entries: entries.collect(),
    };
    let message = Message { from: NodeId(1), to: NodeId(2), term: TERM, voice: Voice::Whole, body };
    Parcel::Raft { shard: SHARD, message }
}

const BOUNDS: RequestBounds = RequestBounds {
    limits: Limits::DEFAULT,
    shards: 64,
    message_bytes_max: 4 << 20,
    in_flight_bytes_max: 64 << 20,
};

fn edge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("edge");
    let mut numbers = Numbers(1);
    let (key, value) = (numbers.bytes(KEY_BYTES), numbers.bytes(VALUE_BYTES));
    let request = v1::PutRequest { key: key.clone(), value: value.clone(), ..v1::PutRequest::default() };
    let framed = framed(&request);
    group.throughput(Throughput::Bytes(framed.len() as u64));
    group.bench_function("decode_put", |bencher| {
        bencher.iter(|| {
            let requests = requests_of("Put", [framed.clone()], &BOUNDS).expect("a Put within the limits");
            assert_eq!(requests.len(), 1);
            requests
        });
    });
    let (create_revision, mod_revision, version) = (Revision(70_000), Revision(90_000), 3);
    let found = KeyValue { key, value, create_revision, mod_revision, version };
    let got = Body::Query(QueryAnswer::Get(Some(found)));
    answers(&mut group, "encode_get", "/distribkv.v1.KV/Get", got);
    let put = Body::Command(Answer::Put { succeeded: true, previous: None, version });
    answers(&mut group, "encode_put", "/distribkv.v1.KV/Put", put);
    group.finish();
}

/// A message as one DATA frame carries it.
fn framed(message: &impl prost::Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
    message.encode(&mut framed).expect("a BytesMut grows as it must");
    framed.freeze()
}

fn answers(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, path: &str, body: Body) {
    let answered = Answered { node: NodeId(1), shard: SHARD, term: TERM, revision: Revision(90_000), body };
    let encode = |answered: Answered| {
        answer_of(path, ClusterId(0x0C1A_5731), answered, &BOUNDS).expect("an answer in kind")
    };
    group.throughput(Throughput::Bytes(encode(answered.clone()).len() as u64));
    group.bench_function(name, |bencher| {
        bencher.iter_batched(|| answered.clone(), encode, BatchSize::SmallInput);
    });
}

fn command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    let data = entries_data(1).remove(0);
    let command = Command::decode(data.clone()).expect("it was just encoded");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("encode_put", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::new();
            black_box(&command).encode(&mut out);
            out
        });
    });
    group.bench_function("decode_put", |bencher| {
        bencher.iter(|| Command::decode(black_box(&data).clone()).expect("it was just encoded"));
    });
    group.finish();
}

fn config() -> Criterion {
    let times = (Duration::from_millis(500), Duration::from_secs(2));
    Criterion::default().sample_size(50).warm_up_time(times.0).measurement_time(times.1)
}

criterion_group! { name = benches; config = config(); targets = log, link, edge, command }
criterion_main!(benches);
