//! What the next call is: its method, its key, its value; and what is learned from how it ended.

use std::sync::Arc;

use crate::answer::Said;
use crate::args::{Kind, Mix, Settings, Target, TraceSettings, Workload};
use crate::inserts::Inserts;
use crate::keys::{KEY_BYTES, Keys, spell};
use crate::method::Method;
use crate::random::Random;
use crate::revisions::Revisions;
use crate::trace::Trace;
use crate::values::{Sizes, value_at};

/// One operation to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Its method.
    pub method: Method,
    /// The part that it plays.
    pub part: Part,
    /// Bytes of the value that it writes.
    pub size: u32,
    /// The number of its key, or its place in the trace.
    pub key: u64,
    /// The revision that a compare-and-swap expects, the most keys that a scan asks for.
    pub number: u64,
    /// When it was first tried, for a load, which tries again; nanoseconds of the run.
    pub first_ns: u64,
}

/// What part an operation plays in its workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It stands for itself.
    Whole,
    /// The read of a read-modify-write: the write follows in the same place.
    ReadOfTwo,
    /// The write of a key that was not there.
    Insert,
}

impl Op {
    /// An operation on a key that stands for itself.
    pub fn of(method: Method, key: u64, now_ns: u64) -> Self {
        Self { method, part: Part::Whole, size: 0, key, number: 0, first_ns: now_ns }
    }
}

/// Where one thread's operations come from.
#[derive(Debug)]
pub struct Source {
    feed: Feed,
    is_etcd: bool,
    random: Random,
    keys: Keys,
    sizes: Sizes,
    scan_length: u32,
    inserts: Inserts,
    revisions: Revisions,
}

#[derive(Debug)]
enum Feed {
    Mix(Mix),
    Check,
    Load(Load),
    Trace(Replay),
}

/// The keys that a load has left to write on this thread.
#[derive(Debug)]
struct Load {
    next: u64,
    step: u64,
    count: u64,
    again: Vec<Op>,
}

/// The operations that are this thread's of a trace.
#[derive(Debug)]
struct Replay {
    trace: Arc<Trace>,
    first: usize,
    next: usize,
    step: usize,
    once: bool,
}

impl Source {
    /// The source of one thread of so many.
    pub fn new(settings: &Settings, random: Random, thread: (usize, usize)) -> Self {
        let (number, threads) = thread;
        assert!(number < threads, "thread {number} of {threads}");
        let feed = match (settings.workload.mix(), &settings.trace) {
            (Some(mix), _) => Feed::Mix(mix),
            (None, Some(replayed)) => Feed::Trace(Replay::of(replayed, thread)),
            (None, None) if settings.workload == Workload::Check => Feed::Check,
            (None, None) => Feed::Load(Load {
                next: number as u64,
                step: threads as u64,
                count: settings.keys,
                again: Vec::new(),
            }),
        };
        let compares = settings.workload.has(Kind::Cas);
        Self {
            feed,
            is_etcd: settings.target == Target::Etcd,
            random,
            keys: Keys::new(settings.key_distribution, settings.keys, thread),
            sizes: Sizes::new(&settings.value_sizes),
            scan_length: settings.scan_length,
            inserts: Inserts::new(settings.keys, thread),
            revisions: Revisions::of(if compares { settings.keys } else { 0 }),
        }
    }

    /// The next operation; `None` where a load, or a trace that is replayed once, has none left to begin with
    /// now.
    pub fn next(&mut self, now_ns: u64) -> Option<Op> {
        let mut op = match &mut self.feed {
            Feed::Mix(mix) => {
                let mix = *mix;
                self.choose(mix, now_ns)
            }
            Feed::Check => Op::of(Method::Check, 0, now_ns),
            Feed::Load(load) => match load.again.pop() {
                Some(op) => return Some(op),
                None => Op { size: self.sizes.draw(&mut self.random), ..load.next(now_ns)? },
            },
            Feed::Trace(replay) => replay.next(now_ns)?,
        };
        if self.is_etcd {
            op.method = op.method.at_etcd();
        }
        Some(op)
    }

    fn choose(&mut self, mix: Mix, now_ns: u64) -> Op {
        let is_first = mix.first_percent == 100 || self.random.below(100) < u64::from(mix.first_percent);
        let kind = if is_first { mix.first } else { mix.rest };
        if kind == Kind::Insert {
            let (key, size) = (self.inserts.start(), self.sizes.draw(&mut self.random));
            return Op { part: Part::Insert, size, ..Op::of(Method::Put, key, now_ns) };
        }
        let key = self.keys.choose(&mut self.random, &self.inserts);
        let of = |method| Op::of(method, key, now_ns);
        match kind {
            Kind::Get => of(Method::Get),
            Kind::Delete => of(Method::Delete),
            Kind::Scan => {
                Op { number: 1 + self.random.below(u64::from(self.scan_length)), ..of(Method::Scan) }
            }
            Kind::Put | Kind::Insert => Op { size: self.sizes.draw(&mut self.random), ..of(Method::Put) },
            Kind::Append => Op { size: self.sizes.draw(&mut self.random), ..of(Method::Append) },
            Kind::Cas => {
                let (number, size) = (self.revisions.expected(key), self.sizes.draw(&mut self.random));
                Op { number, size, ..of(Method::Cas) }
            }
            Kind::ReadModifyWrite => {
                let size = self.sizes.draw(&mut self.random);
                Op { part: Part::ReadOfTwo, size, ..of(Method::Get) }
            }
        }
    }

    /// An operation has ended. Learns from that, and gives the one that has to follow it in its place before
    /// the whole counts as ended.
    pub fn ended<E>(&mut self, op: &Op, outcome: &Result<Said, E>) -> Option<Op> {
        match (outcome, op.part) {
            (Ok(Said::Swapped(revision) | Said::Conflict(revision)), _) => {
                self.revisions.saw(op.key, *revision);
            }
            (Ok(_), Part::ReadOfTwo) => {
                let method = if self.is_etcd { Method::EtcdPut } else { Method::Put };
                return Some(Op { method, part: Part::Whole, ..*op });
            }
            (_, Part::Insert) => self.inserts.end(op.key),
            (_, Part::Whole | Part::ReadOfTwo) => {}
        }
        None
    }

    /// Whether every operation is tried until it succeeds.
    pub fn is_load(&self) -> bool {
        matches!(self.feed, Feed::Load(_))
    }

    /// Whether nothing is left to begin with. Most workloads never end by themselves.
    pub fn is_exhausted(&self) -> bool {
        match &self.feed {
            Feed::Mix(_) | Feed::Check => false,
            Feed::Load(load) => load.again.is_empty() && load.next >= load.count,
            Feed::Trace(replay) => replay.once && replay.next >= replay.trace.len(),
        }
    }

    /// Takes back an operation of a load that failed.
    pub fn again(&mut self, op: Op) {
        match &mut self.feed {
            Feed::Load(load) => load.again.push(op),
            Feed::Mix(_) | Feed::Check | Feed::Trace(_) => panic!("only a load tries again, not {op:?}"),
        }
    }

    /// The key of an operation, spelt into `room` where it is not at hand.
    pub fn key<'a>(&'a self, op: &Op, room: &'a mut [u8; KEY_BYTES]) -> &'a [u8] {
        match &self.feed {
            Feed::Trace(replay) => replay.trace.key(op.key as usize),
            Feed::Mix(_) | Feed::Check | Feed::Load(_) => {
                *room = spell(op.key);
                room
            }
        }
    }

    /// A value's place in the pool.
    pub fn value_at(&mut self) -> usize {
        value_at(&mut self.random)
    }
}

impl Load {
    fn next(&mut self, now_ns: u64) -> Option<Op> {
        let key = self.next;
        if key >= self.count {
            return None;
        }
        self.next += self.step;
        Some(Op::of(Method::Put, key, now_ns))
    }
}

impl Replay {
    fn of(replayed: &TraceSettings, (number, threads): (usize, usize)) -> Self {
        let TraceSettings { trace, once, .. } = replayed;
        Self { trace: Arc::clone(trace), first: number, next: number, step: threads, once: *once }
    }

    fn next(&mut self, now_ns: u64) -> Option<Op> {
        if self.next >= self.trace.len() {
            if self.once {
                return None;
            }
            self.next = self.first;
        }
        let place = self.next;
        self.next += self.step;
        let (method, size) = self.trace.operation(place);
        Some(Op { size, ..Op::of(method, place as u64, now_ns) })
    }
}

/// The largest value that a run writes.
pub fn size_max(settings: &Settings) -> u32 {
    match &settings.trace {
        Some(replayed) => replayed.trace.size_max(),
        None => settings.value_sizes.max(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    fn settings(line: &str) -> Settings {
        let words = ["loadgen", "--endpoints", "a:1"].into_iter().chain(line.split_whitespace());
        Settings::check(Args::parse_from(words)).expect("good settings")
    }

    fn source(line: &str, thread: (usize, usize)) -> Source {
        Source::new(&settings(line), Random::of(1, thread.0), thread)
    }

    fn draw(source: &mut Source, draws: usize) -> Vec<Op> {
        (0..draws).map(|_| source.next(0).expect("it never ends")).collect()
    }

    const DONE: Result<Said, ()> = Ok(Said::Yes);

    #[test]
    fn workloads_have_their_shares() {
        let cases = [
            ("mixed:90", Method::Get, Part::Whole, 90),
            ("ycsb-a", Method::Get, Part::Whole, 50),
            ("ycsb-a", Method::Put, Part::Whole, 50),
            ("ycsb-b", Method::Put, Part::Whole, 5),
            ("ycsb-c", Method::Get, Part::Whole, 100),
            ("ycsb-d", Method::Get, Part::Whole, 95),
            ("ycsb-d", Method::Put, Part::Insert, 5),
            ("ycsb-e", Method::Scan, Part::Whole, 95),
            ("ycsb-e", Method::Put, Part::Insert, 5),
            ("ycsb-f", Method::Get, Part::Whole, 50),
            ("ycsb-f", Method::Get, Part::ReadOfTwo, 50),
        ];
        for (workload, method, part, percent) in cases {
            let drawn = draw(&mut source(&format!("--workload {workload} --keys 10"), (0, 1)), 10_000);
            let count = drawn.iter().filter(|op| op.method == method && op.part == part).count();
            let want: usize = percent * 100;
            assert!(want.abs_diff(count) < 200, "{workload}: {count} of {method:?} {part:?}");
        }
    }

    #[test]
    fn scans_ask_for_one_to_the_most() {
        let drawn = draw(&mut source("--workload scan --scan-length 3", (0, 1)), 3_000);
        for number in 1..=3 {
            let count = drawn.iter().filter(|op| op.number == number).count();
            assert!((900..1100).contains(&count), "{count} scans of {number}");
        }
    }

    #[test]
    fn a_read_modify_write_is_a_get_and_a_put_of_its_key() {
        let mut source = source("--workload ycsb-f --value-size 9..99", (0, 1));
        let drawn = draw(&mut source, 100);
        let read = *drawn.iter().find(|op| op.part == Part::ReadOfTwo).expect("half are");
        let written = source.ended(&read, &DONE).expect("the write follows");
        assert_eq!((written.method, written.part, written.key), (Method::Put, Part::Whole, read.key));
        assert!((9..=99).contains(&written.size));
        assert_eq!(source.ended(&written, &DONE), None);
        // Where nothing could be read nothing is written.
        assert_eq!(source.ended(&read, &Err(())), None);
        let missing: Result<Said, ()> = Ok(Said::No);
        assert!(source.ended(&read, &missing).is_some());
    }

    #[test]
    fn inserts_are_read_once_they_are_made() {
        let mut source = source("--workload ycsb-d --keys 5", (0, 1));
        let insert = loop {
            let op = source.next(0).expect("it never ends");
            assert!(op.key < 5 || op.part == Part::Insert, "{op:?} before it is there");
            if op.part == Part::Insert {
                break op;
            }
        };
        assert_eq!((insert.key, insert.size), (5, 256));
        assert_eq!(source.ended(&insert, &DONE), None);
        let drawn = draw(&mut source, 100);
        assert!(drawn.iter().any(|op| op.method == Method::Get && op.key == 5));
    }

    #[test]
    fn a_swap_expects_what_was_last_seen() {
        let mut source = source("--workload cas --keys 1", (0, 1));
        let mut expected = Vec::new();
        let outcomes = [Ok(Said::Conflict(7)), Ok(Said::Swapped(8)), Err(()), Ok(Said::Conflict(0))];
        for outcome in outcomes {
            let op = source.next(0).expect("it never ends");
            expected.push(op.number);
            assert_eq!(source.ended(&op, &outcome), None);
        }
        expected.push(source.next(0).expect("it never ends").number);
        assert_eq!(expected, [0, 7, 8, 8, 0]);
    }

    #[test]
    fn a_load_writes_every_key_once_and_the_failed_again() {
        let mut keys: Vec<u64> = Vec::new();
        for thread in 0..3 {
            let mut source = source("--load --keys 10", (thread, 3));
            while let Some(op) = source.next(0) {
                keys.push(op.key);
            }
            assert!(source.is_exhausted());
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..10).collect::<Vec<_>>());

        let mut source = source("--load --keys 1 --target etcd", (0, 1));
        let op = source.next(5).expect("one key");
        assert_eq!((op.method, op.first_ns), (Method::EtcdPut, 5));
        assert_eq!(source.next(6), None);
        source.again(op);
        assert_eq!(source.next(7), Some(op));
    }

    #[test]
    fn threads_share_a_trace() {
        let lines = b"put a 1\nget b\ndelete c\nput d 4\nget e\n";
        let replay = |thread, once| {
            let trace = Arc::new(Trace::read(&lines[..]).expect("a good trace"));
            let mut settings = settings("");
            settings.workload = Workload::Trace;
            settings.trace = Some(TraceSettings { path: "t".into(), trace, once });
            assert_eq!(size_max(&settings), 4);
            Source::new(&settings, Random::of(1, 0), thread)
        };
        let keys = |source: &mut Source, count| -> String {
            let ops: Vec<Op> = (0..count).map_while(|_| source.next(0)).collect();
            let mut room = [0; KEY_BYTES];
            ops.iter().map(|op| String::from_utf8_lossy(source.key(op, &mut room)).into_owned()).collect()
        };
        assert_eq!(keys(&mut replay((0, 2), false), 7), "aceacea");
        assert_eq!(keys(&mut replay((1, 2), false), 5), "bdbdb");
        let mut once = replay((0, 2), true);
        assert!(!once.is_exhausted());
        assert_eq!(keys(&mut once, 7), "ace");
        assert!(once.is_exhausted());
        let put = replay((0, 1), false).next(0).expect("the first");
        assert_eq!((put.method, put.size), (Method::Put, 1));
    }
}
