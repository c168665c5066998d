//! Damage in a log whose shards have peers: the start goes round it, and every shard that may have lost
//! something knows it.
//!
//! Whatever is flipped, cut off or removed, of every shard holds: what is found is all that was there; or it
//! is a beginning of it, and the standing says so, with the very end that the log had where it claims to know
//! it. Then the shard takes up what it lost, and the next start finds it whole, damage still in its place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{Index, LaneId, NodeId, ShardId, Term};
use distribkv::log::{Append, Lane, LaneConfig, OnDamage, OpenError, RecoveredShard, Recovery};
use distribkv::raft::{Entry, HardState, Standing};

#[allow(dead_code, reason = "each test that shares the module uses its own part of it")]
mod log_mem;

use log_mem::{Files, MemEnv};

const DIR: &str = "/lane-0";
const BLOCK: usize = 4096;
/// The shards of the lane. The last one never had anything in it.
const SHARDS: u32 = 4;

fn config() -> LaneConfig {
    LaneConfig {
        lane: LaneId(0),
        segment_bytes: 4 * BLOCK as u64,
        batch_bytes_max: 2 * BLOCK,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        seal_after: Duration::from_millis(10),
        damage: OnDamage::Lose((0..SHARDS).map(ShardId).collect()),
        #[cfg(debug_assertions)]
        planted: None,
    }
}

fn on_files(these: Files) -> MemEnv {
    let env = MemEnv::default();
    env.change(|files| *files = these);
    env
}

/// What was found of each shard, with its entries.
type Contents = Vec<(ShardId, RecoveredShard, Vec<Entry>)>;

struct Start {
    env: MemEnv,
    lane: Lane<MemEnv>,
    recovery: Recovery,
    contents: Contents,
}

fn start(files: Files) -> Result<Start, OpenError> {
    let env = on_files(files);
    let its = env.clone();
    let opened = env.run(async move {
        let (lane, recovery) = Lane::open(its, Path::new(DIR), config()).await?;
        let mut contents = Vec::new();
        for (shard, found) in &recovery.shards {
            let is_empty = found.first_index > found.last_index;
            let entries = if is_empty {
                Vec::new()
            } else {
                let read = lane.read(*shard, found.first_index, found.last_index, usize::MAX).await;
                read.expect("what is left can be read")
            };
            contents.push((*shard, found.clone(), entries));
        }
        Ok::<_, OpenError>((lane, recovery, contents))
    });
    let (lane, recovery, contents) = opened?;
    let its = env.clone();
    let running = lane.clone();
    env.run(async move { distribkv::env::Env::spawn(&its, running.run()) });
    Ok(Start { env, lane, recovery, contents })
}

impl Start {
    fn append(&self, append: Append) {
        assert_eq!(self.lane.append(append), Ok(()));
        self.env.settle();
        assert_eq!(self.lane.completions().len(), 1, "all works at once here");
    }

    /// The files that a clean end leaves.
    fn end(self) -> Files {
        self.lane.close();
        self.env.pass(2);
        self.env.kill();
        self.env.files()
    }
}

fn entries(first: u64, lens: &[usize], term: u64) -> Vec<Entry> {
    let entry = |(&len, index): (&usize, u64)| Entry {
        index: Index(index),
        term: Term(term),
        data: Bytes::from(vec![b'a' + u8::try_from(index).unwrap_or(0); len]),
    };
    lens.iter().zip(first..).map(entry).collect()
}

fn appended(start: &Start, shard: u32, first: u64, lens: &[usize], term: u64) {
    let hard_state = Some(HardState { term: Term(term), vote: Some(NodeId(3)), commit: Index(first - 1) });
    let entries = entries(first, lens, term);
    start.append(Append { shard: ShardId(shard), number: first, hard_state, entries, ..Append::default() });
}

/// A log of several segments and of two processes, sealed. Shard 2 is quiet after its first entries.
fn sealed() -> Files {
    let mut files = Files::new();
    for life in 0..2 {
        let start = start(files).expect("nothing is damaged yet");
        let term = 1 + life;
        appended(&start, 0, 1 + 3 * life, &[10, 5], term);
        appended(&start, 1, 1 + 2 * life, &[5000], term);
        if life == 0 {
            appended(&start, 2, 1, &[9, 9], 1);
        }
        appended(&start, 0, 3 + 3 * life, &[3000], term);
        appended(&start, 1, 2 + 2 * life, &[7], term);
        files = start.end();
    }
    files
}

/// Whether the first is a beginning of the second.
fn is_beginning(some: &[Entry], whole: &[Entry]) -> bool {
    some.len() <= whole.len() && some.iter().zip(whole).all(|(a, b)| a == b)
}

/// Looks at what a start found in damaged files, and what the next ones do.
fn look(damaged: Files, whole: &Contents, what: &str) -> bool {
    let found = start(damaged).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut has_lost = false;
    for (shard, whole_shard, whole_entries) in whole {
        let seen = found.contents.iter().find(|(id, ..)| id == shard);
        let (recovered, entries) =
            seen.map(|(_, recovered, entries)| (recovered.clone(), &entries[..])).unwrap_or_default();
        let standing = recovered.standing.unwrap_or_default();
        assert!(is_beginning(entries, whole_entries), "{what}: shard {shard}: {entries:?}");
        let is_all = entries.len() == whole_entries.len();
        let knows_votes = recovered.hard_state.term == whole_shard.hard_state.term;
        match standing {
            Standing::Whole => assert!(is_all && knows_votes, "{what}: shard {shard} lost what it knows not"),
            Standing::Damaged { last_index, last_term } => {
                let last = whole_entries.last().map(|last| (last.index, last.term));
                assert_eq!(Some((last_index, last_term)), last, "{what}: shard {shard}");
                assert!(knows_votes, "{what}: shard {shard}");
            }
            Standing::Forgetful { told, .. } => assert_eq!(told, None, "{what}: shard {shard}"),
        }
        has_lost |= standing != Standing::Whole;
    }
    assert!(!has_lost || !found.recovery.damages.is_empty(), "{what}: lost without a word");
    let again = found.env.files();
    let second = start(again).unwrap_or_else(|error| panic!("{what}: again: {error}"));
    assert_eq!(second.recovery.survivors, [], "{what}: what was dealt with is not found again");
    let known = |contents: &Contents| -> Vec<_> {
        let of = |(shard, recovered, entries): &(ShardId, RecoveredShard, Vec<Entry>)| {
            (*shard, recovered.hard_state, recovered.standing, entries.clone())
        };
        contents.iter().map(of).collect()
    };
    assert_eq!(known(&second.contents), known(&found.contents), "{what}: the next start finds the same");
    repaired(second, whole, what);
    has_lost
}

/// The shards take up what they lost; the next start finds everything, the damage still there.
fn repaired(start_: Start, whole: &Contents, what: &str) {
    for (shard, whole_shard, whole_entries) in whole {
        let held = start_.contents.iter().find(|(id, ..)| id == shard).map_or(0, |(.., held)| held.len());
        let append = Append {
            shard: *shard,
            number: 1,
            hard_state: Some(whole_shard.hard_state),
            standing: Some(Standing::Whole),
            entries: whole_entries[held..].to_vec(),
            ..Append::default()
        };
        start_.append(append);
    }
    let third = start(start_.end()).unwrap_or_else(|error| panic!("{what}: repaired: {error}"));
    for (shard, whole_shard, whole_entries) in whole {
        let seen = third.contents.iter().find(|(id, ..)| id == shard);
        let (_, recovered, entries) = seen.unwrap_or_else(|| panic!("{what}: shard {shard} is there"));
        assert_eq!(entries, whole_entries, "{what}: shard {shard}");
        assert_eq!(recovered.hard_state, whole_shard.hard_state, "{what}: shard {shard}");
        assert_eq!(recovered.standing, Some(Standing::Whole), "{what}: shard {shard}");
    }
}

fn segments(files: &Files) -> Vec<PathBuf> {
    files.keys().filter(|path| path.to_string_lossy().contains("seg-")).cloned().collect()
}

fn whole(files: &Files) -> Contents {
    start(files.clone()).expect("nothing is damaged yet").contents
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_is_gone_round_and_known() {
    let files = sealed();
    let whole = whole(&files);
    let mut lost = 0;
    for path in segments(&files) {
        let bytes = files.get(&path).map_or(0, Vec::len);
        for at in (0..bytes).step_by(37) {
            let mut flipped = files.clone();
            flipped.get_mut(&path).expect("it is a copy of them")[at] ^= 1 << (at % 8);
            lost += usize::from(look(flipped, &whole, &format!("byte {at} of {}", path.display())));
        }
    }
    assert!(lost > 100, "only {lost} flipped bits cost anything");
}

#[test]
fn a_segment_that_is_gone_or_cut_off_is_gone_round_and_known() {
    let files = sealed();
    let whole = whole(&files);
    for path in segments(&files) {
        let mut left = files.clone();
        left.remove(&path);
        look(left, &whole, &format!("without {}", path.display()));
        for blocks in 0..4 {
            let mut short = files.clone();
            short.get_mut(&path).expect("it is a copy of them").truncate(blocks * BLOCK);
            look(short, &whole, &format!("{} cut to {blocks} blocks", path.display()));
        }
    }
}

#[test]
fn two_damaged_places_are_no_worse_than_both() {
    let files = sealed();
    let whole = whole(&files);
    let places: Vec<(PathBuf, usize)> = segments(&files)
        .into_iter()
        .flat_map(|path| (0..4).map(move |block| (path.clone(), block * BLOCK + 20)))
        .collect();
    // The last batch together with the seal that covers it is the blind spot: it looks like a tear.
    let is_tail = |(path, _): &(PathBuf, usize)| path.ends_with("seg-0000000000000005.log");
    for (first, second) in places.iter().flat_map(|a| places.iter().map(move |b| (a, b))) {
        if is_tail(first) && is_tail(second) {
            continue;
        }
        let mut flipped = files.clone();
        for (path, at) in [first, second] {
            flipped.get_mut(path).expect("it is a copy of them")[*at] ^= 1;
        }
        look(flipped, &whole, &format!("{first:?} and {second:?}"));
    }
}

#[test]
fn a_damaged_segment_stays_until_every_shard_is_whole() {
    let files = sealed();
    let whole = whole(&files);
    let path = Path::new(DIR).join("seg-0000000000000001.log");
    let mut damaged = files.clone();
    damaged.get_mut(&path).expect("the first segment is there")[BLOCK + 60] ^= 1;
    let start = start(damaged).expect("it is gone round");
    let is_there = |start: &Start| start.env.files().contains_key(&path);
    // Everything is let go of, and the segment still holds what nobody repaired.
    for (shard, recovered, _) in &whole {
        let last = recovered.terms.last().map_or(Term(1), |(_, term)| *term);
        let restart = Some((recovered.last_index, last));
        start.append(Append { shard: *shard, number: 1, restart, ..Append::default() });
    }
    start.env.pass(50);
    assert!(is_there(&start), "removed while shards lack what it held");
    for shard in (0..SHARDS).map(ShardId) {
        let hard_state = Some(HardState { term: Term(9), ..HardState::default() });
        let standing = Some(Standing::Whole);
        start.append(Append { shard, number: 2, hard_state, standing, ..Append::default() });
    }
    start.env.pass(50);
    assert!(!is_there(&start), "kept for nothing");
}
