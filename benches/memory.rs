//! How much memory keys and values take in a memtable: what the process grows by, beside their own bytes.
//!
//! ```text
//! cargo bench --bench memory -- --keys 1000000 --bytes 256
//! ```
//!
//! The keys are put one by one through the state machine of one shard, in no order, with the allocator of
//! `kvserver`. Each command is decoded from bytes of its own that are let go of afterwards, as entries of the
//! log are; so what the allocator keeps of them counts too, as it does in a node. Then every key is put once
//! more, since a store lives with changes: what they leave behind is measured as well.
//!
//! What is wanted: at most 1.5 times the bytes of keys and values, and 64 MiB.

#[allow(dead_code, reason = "every bench takes of it what it needs")]
#[path = "support/inputs.rs"]
mod inputs;

use bytes::Bytes;
use clap::Parser;
use distribkv::ids::ShardId;
use distribkv::kv::{Base, Command, Config, Limits, State};
use inputs::{KEY_BYTES, Numbers, put_command};

#[path = "../src/env/os/heap.rs"]
#[allow(dead_code, unused_imports, reason = "a node does more with it, and its tests are run there")]
mod heap;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what a memtable of many keys takes.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Keys, of 16 bytes each.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// What the keys and values are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

const MIB: u64 = 1 << 20;

/// What is allowed beside the share.
const FIXED_BYTES: u64 = 64 * MIB;

fn main() {
    heap::keep();
    let args = Args::parse();
    let mut state = State::new(Config::new(ShardId(0), Limits::DEFAULT));
    let before = resident_bytes();
    put_all(&mut state, &args, 0);
    report("put once", &state, before);
    put_all(&mut state, &args, 1);
    report("put twice", &state, before);
    assert_eq!(state.keys(), args.keys, "the keys that were drawn are not all different");
}

/// Puts every key, with a value of this round: a byte shorter than in the one before, as one of the same
/// length would take its room.
fn put_all(state: &mut State, args: &Args, round: u64) {
    let mut keys = Numbers(args.seed);
    let mut values = Numbers(args.seed ^ (round + 1) << 32);
    for _ in 0..args.keys {
        let (key, value) = (keys.bytes(KEY_BYTES), values.bytes(args.bytes.saturating_sub(round as usize)));
        let mut entry = Vec::new();
        put_command(&key, &value).encode(&mut entry);
        let command = Command::decode(Bytes::from(entry)).expect("it was just encoded");
        let applied = state.apply(state.applied().next(), &command, &Base::default());
        assert!(applied.is_ok(), "a Put within the limits: {applied:?}");
    }
}

fn report(what: &str, state: &State, before: u64) {
    let (grown, own) = (resident_bytes().saturating_sub(before), state.bytes());
    let share = |bytes: u64| bytes as f64 / own.max(1) as f64;
    let allowed = own + own / 2 + FIXED_BYTES;
    println!(
        "{what}: {} keys of {own} bytes with their values; the process grew by {grown} bytes, {:.3} times \
         that; the memtable says {} bytes, {:.3} times; {} the {allowed} bytes allowed ({:.2} of them)",
        state.keys(),
        share(grown),
        state.memtable_bytes(),
        share(state.memtable_bytes() as u64),
        if grown <= allowed { "within" } else { "ABOVE" },
        grown as f64 / allowed as f64,
    );
}

/// The memory of this process that is resident, shared pages of its program included.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it of every process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a process that runs has resident memory") * 1024
}
