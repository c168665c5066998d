//! What the next call is: its method, its key, its value.

use bytes::Bytes;

use crate::args::Workload;
use crate::keys::Keys;
use crate::random::Random;

/// Random bytes that values are cut from, beyond the length of one value.
const POOL_BYTES: usize = 1 << 16;

/// A method that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `distribkv.v1.KV/Get`
    Get,
    /// `distribkv.v1.KV/Put`
    Put,
    /// `distribkv.v1.KV/Append`
    Append,
    /// `grpc.health.v1.Health/Check`
    Check,
}

impl Method {
    /// Their paths, and at [`Method::PIPELINE`] that of the stream that carries any of them but checks.
    pub const PATHS: [&str; 5] = [
        "/distribkv.v1.KV/Get",
        "/distribkv.v1.KV/Put",
        "/distribkv.v1.KV/Append",
        "/grpc.health.v1.Health/Check",
        "/distribkv.v1.KV/Pipeline",
    ];
    /// The place of the Pipeline among the paths.
    pub const PIPELINE: usize = 4;

    /// Its place among the paths.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One operation to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Its method.
    pub method: Method,
    /// The number of its key.
    pub key: u64,
    /// When it was first tried, for a load, which tries again; nanoseconds of the run.
    pub first_ns: u64,
}

/// Where one thread's operations come from.
#[derive(Debug)]
pub struct Source {
    workload: Workload,
    keys: Keys,
    random: Random,
    load: Load,
}

/// The keys that a load has left to write on this thread.
#[derive(Debug)]
struct Load {
    next: u64,
    step: u64,
    count: u64,
    again: Vec<Op>,
}

impl Source {
    /// The source of one thread of so many.
    pub fn new(
        workload: Workload,
        keys: Keys,
        key_count: u64,
        random: Random,
        thread: (usize, usize),
    ) -> Self {
        let (number, threads) = thread;
        assert!(number < threads, "thread {number} of {threads}");
        let load = Load { next: number as u64, step: threads as u64, count: key_count, again: Vec::new() };
        Self { workload, keys, random, load }
    }

    /// The next operation; `None` where a load has no key left to begin with now.
    pub fn next(&mut self, now_ns: u64) -> Option<Op> {
        let method = match self.workload {
            Workload::Load => return self.load.next(now_ns),
            Workload::Put => Method::Put,
            Workload::Get => Method::Get,
            Workload::Append => Method::Append,
            Workload::Check => return Some(Op { method: Method::Check, key: 0, first_ns: now_ns }),
            Workload::Mixed(percent) if self.random.below(100) < u64::from(percent) => Method::Get,
            Workload::Mixed(_) => Method::Put,
        };
        Some(Op { method, key: self.keys.choose(&mut self.random), first_ns: now_ns })
    }

    /// Whether every operation is tried until it succeeds.
    pub fn is_load(&self) -> bool {
        self.workload == Workload::Load
    }

    /// Whether a load has nothing left to begin with. Other workloads never end by themselves.
    pub fn is_exhausted(&self) -> bool {
        self.is_load() && self.load.again.is_empty() && self.load.next >= self.load.count
    }

    /// Takes back an operation of a load that failed.
    pub fn again(&mut self, op: Op) {
        assert!(self.is_load(), "only a load tries again");
        self.load.again.push(op);
    }

    /// A value's place in the pool.
    pub fn value_at(&mut self) -> usize {
        self.random.below(POOL_BYTES as u64) as usize
    }
}

impl Load {
    fn next(&mut self, now_ns: u64) -> Option<Op> {
        if let Some(op) = self.again.pop() {
            return Some(op);
        }
        let key = self.next;
        if key >= self.count {
            return None;
        }
        self.next += self.step;
        Some(Op { method: Method::Put, key, first_ns: now_ns })
    }
}

/// The bytes that values of `value_size` are cut from: no two alike in a row, and none that compresses.
pub fn value_pool(value_size: usize, mut random: Random) -> Bytes {
    let mut pool = Vec::with_capacity(POOL_BYTES + value_size + 8);
    while pool.len() < POOL_BYTES + value_size {
        pool.extend_from_slice(&random.next().to_le_bytes());
    }
    Bytes::from(pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::KeyDistribution;

    fn source(workload: Workload, keys: u64, thread: (usize, usize)) -> Source {
        Source::new(
            workload,
            Keys::new(KeyDistribution::Uniform, keys),
            keys,
            Random::of(1, thread.0),
            thread,
        )
    }

    #[test]
    fn mixed_has_its_share_of_reads() {
        let mut source = source(Workload::Mixed(90), 10, (0, 1));
        let reads = (0..10_000).filter(|_| source.next(0).is_some_and(|op| op.method == Method::Get)).count();
        assert!((8_800..9_200).contains(&reads), "{reads} reads of 10000");
    }

    #[test]
    fn a_load_writes_every_key_once_and_the_failed_again() {
        let mut keys: Vec<u64> = Vec::new();
        for thread in 0..3 {
            let mut source = source(Workload::Load, 10, (thread, 3));
            while let Some(op) = source.next(0) {
                keys.push(op.key);
            }
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..10).collect::<Vec<_>>());

        let mut source = source(Workload::Load, 1, (0, 1));
        let op = source.next(5).expect("one key");
        assert_eq!(source.next(6), None);
        source.again(op);
        assert_eq!(source.next(7), Some(op));
    }

    #[test]
    fn values_fit_in_the_pool() {
        let pool = value_pool(1000, Random::of(1, 0));
        let mut source = source(Workload::Put, 10, (0, 1));
        for _ in 0..1000 {
            assert!(source.value_at() + 1000 <= pool.len());
        }
    }
}
