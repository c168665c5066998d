//! Damage in a log whose shards have peers: the start goes round it, and every shard that may have lost
//! something knows it.
//!
//! Whatever is flipped, cut off, removed or cannot be read, of every shard holds: what is found is all that
//! was there; or it is a beginning of it, and the standing says so, with the very end that the log had where
//! it claims to know it. Then the shard takes up what it lost, and the next start finds it whole, damage
//! still in its place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{Index, LaneId, NodeId, ShardId, Term};
use distribkv::log::{Append, Lane, LaneConfig, OnDamage, OpenError, ReadError, RecoveredShard, Recovery};
use distribkv::raft::{Entry, HardState, Standing};

mod log_mem;

use log_mem::{Bad, Files, MemEnv};

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

/// What a disk gives back: files, less what cannot be read of them.
#[derive(Clone, Default)]
struct Disk {
    files: Files,
    bad: Bad,
}

impl Disk {
    fn of(env: &MemEnv) -> Self {
        Self { files: env.files(), bad: env.bad() }
    }

    fn env(self) -> MemEnv {
        let env = MemEnv::default();
        env.change(|files| *files = self.files);
        env.spoil(self.bad);
        env
    }

    fn file(&mut self, path: &Path) -> &mut Vec<u8> {
        self.files.get_mut(path).expect("it is one of them")
    }

    fn without_blocks(mut self, blocks: &[Block]) -> Self {
        self.bad.blocks.extend(blocks.iter().cloned());
        self
    }
}

/// What was found of each shard, with its entries.
type Contents = Vec<(ShardId, RecoveredShard, Vec<Entry>)>;

struct Start {
    env: MemEnv,
    lane: Lane<MemEnv>,
    recovery: Recovery,
    contents: Contents,
}

fn start(disk: Disk) -> Result<Start, OpenError> {
    start_with(disk, config())
}

fn start_with(disk: Disk, config: LaneConfig) -> Result<Start, OpenError> {
    let env = disk.env();
    let its = env.clone();
    let opened = env.run(async move {
        let (lane, recovery) = Lane::open(its, Path::new(DIR), config).await?;
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

    /// What a clean end leaves.
    fn end(self) -> Disk {
        self.lane.close();
        self.env.pass(2);
        self.env.kill();
        Disk::of(&self.env)
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
fn sealed() -> Disk {
    written(Start::end)
}

/// The same without the last seal: nothing covers the last batch.
fn unsealed() -> Disk {
    written(|start| {
        start.env.kill();
        Disk::of(&start.env)
    })
}

fn written(end: fn(Start) -> Disk) -> Disk {
    let mut disk = Disk::default();
    for life in 0..2 {
        let start = start(disk).expect("nothing is damaged yet");
        let term = 1 + life;
        appended(&start, 0, 1 + 3 * life, &[10, 5], term);
        appended(&start, 1, 1 + 2 * life, &[5000], term);
        if life == 0 {
            appended(&start, 2, 1, &[9, 9], 1);
        }
        appended(&start, 0, 3 + 3 * life, &[3000], term);
        appended(&start, 1, 2 + 2 * life, &[7], term);
        disk = if life == 0 { start.end() } else { end(start) };
    }
    disk
}

/// Whether the first is a beginning of the second.
fn is_beginning(some: &[Entry], whole: &[Entry]) -> bool {
    some.len() <= whole.len() && some.iter().zip(whole).all(|(a, b)| a == b)
}

/// Looks at what a start found on a damaged disk, and what the next ones do. Says whether anything was lost.
fn look(damaged: Disk, whole: &Contents, what: &str) -> bool {
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
    let second = start(Disk::of(&found.env)).unwrap_or_else(|error| panic!("{what}: again: {error}"));
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

fn segments(disk: &Disk) -> Vec<PathBuf> {
    disk.files.keys().filter(|path| path.to_string_lossy().contains("seg-")).cloned().collect()
}

fn whole(disk: &Disk) -> Contents {
    start(disk.clone()).expect("nothing is damaged yet").contents
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_is_gone_round_and_known() {
    let disk = sealed();
    let whole = whole(&disk);
    let mut lost = 0;
    for path in segments(&disk) {
        let bytes = disk.files.get(&path).map_or(0, Vec::len);
        for at in (0..bytes).step_by(37) {
            let mut flipped = disk.clone();
            flipped.file(&path)[at] ^= 1 << (at % 8);
            lost += usize::from(look(flipped, &whole, &format!("byte {at} of {}", path.display())));
        }
    }
    assert!(lost > 100, "only {lost} flipped bits cost anything");
}

#[test]
fn a_segment_that_is_gone_or_cut_off_is_gone_round_and_known() {
    let disk = sealed();
    let whole = whole(&disk);
    for path in segments(&disk) {
        let mut left = disk.clone();
        left.files.remove(&path);
        look(left, &whole, &format!("without {}", path.display()));
        for blocks in 0..4 {
            let mut short = disk.clone();
            short.file(&path).truncate(blocks * BLOCK);
            look(short, &whole, &format!("{} cut to {blocks} blocks", path.display()));
        }
    }
}

#[test]
fn two_damaged_places_are_no_worse_than_both() {
    let disk = sealed();
    let whole = whole(&disk);
    let places: Vec<(PathBuf, usize)> = segments(&disk)
        .into_iter()
        .flat_map(|path| (0..4).map(move |block| (path.clone(), block * BLOCK + 20)))
        .collect();
    // The last batch together with the seal that covers it is the blind spot: it looks like a tear.
    let is_tail = |(path, _): &(PathBuf, usize)| path.ends_with("seg-0000000000000005.log");
    for (first, second) in places.iter().flat_map(|a| places.iter().map(move |b| (a, b))) {
        if is_tail(first) && is_tail(second) {
            continue;
        }
        let mut flipped = disk.clone();
        for (path, at) in [first, second] {
            flipped.file(path)[*at] ^= 1;
        }
        look(flipped, &whole, &format!("{first:?} and {second:?}"));
    }
}

#[test]
fn a_damaged_segment_stays_until_every_shard_is_whole() {
    let disk = sealed();
    let whole = whole(&disk);
    let path = Path::new(DIR).join("seg-0000000000000001.log");
    let mut damaged = disk.clone();
    damaged.file(&path)[BLOCK + 60] ^= 1;
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

/// A block: its file and its number there.
type Block = (PathBuf, usize);

/// All blocks of all segments.
fn blocks(disk: &Disk) -> Vec<Block> {
    segments(disk).into_iter().flat_map(|path| (0..4).map(move |block| (path.clone(), block))).collect()
}

/// Any two of them.
fn pairs(disk: &Disk) -> Vec<(Block, Block)> {
    let all = blocks(disk);
    all.iter().flat_map(|first| all.iter().map(move |second| (first.clone(), second.clone()))).collect()
}

/// Unlike a flipped bit, one that cannot be read is known even in the last batch of a log without a seal.
#[test]
fn a_block_that_cannot_be_read_is_gone_round_and_known() {
    for (disk, log) in [(sealed(), "sealed"), (unsealed(), "unsealed")] {
        let whole = whole(&disk);
        let mut lost = 0;
        for block in blocks(&disk) {
            let what = format!("{log}: {block:?} cannot be read");
            lost += usize::from(look(disk.clone().without_blocks(&[block]), &whole, &what));
        }
        assert!(lost > 5, "{log}: only {lost} blocks cost anything");
        for path in segments(&disk) {
            let mut unopened = disk.clone();
            unopened.bad.files.insert(path.clone());
            look(unopened, &whole, &format!("{log}: {} cannot be opened", path.display()));
        }
    }
}

/// Of two such blocks one may be the proof of what was in the other; so it may of a batch that is damaged in
/// another way.
#[test]
fn two_places_of_which_one_cannot_be_read_are_no_worse_than_both() {
    for disk in [sealed(), unsealed()] {
        let whole = whole(&disk);
        for (first, second) in pairs(&disk) {
            let what = format!("{first:?} and {second:?} cannot be read");
            look(disk.clone().without_blocks(&[first, second]), &whole, &what);
        }
    }
    let disk = sealed();
    let whole = whole(&disk);
    for (unread, (path, block)) in pairs(&disk) {
        let what = format!("{unread:?} cannot be read, and a bit of block {block} of {}", path.display());
        let mut damaged = disk.clone().without_blocks(&[unread]);
        damaged.file(&path)[block * BLOCK + 20] ^= 1;
        look(damaged, &whole, &what);
    }
}

/// Nothing is missing where nothing was ever written. Of the place alone where the log would go on nobody
/// knows whether it did.
#[test]
fn of_the_bad_blocks_past_the_end_of_the_log_the_first_alone_costs_anything() {
    for disk in [sealed(), unsealed()] {
        let whole = whole(&disk);
        let is_unused = |(path, block): &Block| {
            disk.files[path][block * BLOCK..(block + 1) * BLOCK].iter().all(|byte| *byte == 0)
        };
        let unused: Vec<_> = blocks(&disk).into_iter().filter(is_unused).collect();
        assert!(unused.len() > 2, "{unused:?}");
        for block in &unused {
            let is_first = block.1 == 1 || !is_unused(&(block.0.clone(), block.1 - 1));
            let bad = disk.clone().without_blocks(std::slice::from_ref(block));
            let carried = |disk: &Disk| start(disk.clone()).map(|start| start.recovery.carried);
            let before = carried(&disk).expect("nothing is damaged");
            assert_eq!(carried(&bad).ok(), Some(before), "{block:?}: the last batch is carried as ever");
            assert_eq!(look(bad, &whole, &format!("{block:?}")), is_first, "{block:?} of {unused:?}");
        }
    }
}

/// Where there is nobody to ask the start stops at what cannot be read, and says where it is.
#[test]
fn alone_a_block_that_cannot_be_read_stops_the_start() {
    let alone = LaneConfig { damage: OnDamage::Stop, ..config() };
    let disk = unsealed();
    for block in blocks(&disk) {
        let bad = disk.clone().without_blocks(std::slice::from_ref(&block));
        let what = format!("{block:?}");
        let is_known = look(bad.clone(), &whole(&disk), &what);
        match start_with(bad, alone.clone()).map(|start| start.recovery) {
            Ok(recovery) => assert!(!is_known && recovery.damages.is_empty(), "{what}"),
            Err(error) => {
                let at = block.1 * BLOCK;
                let said = error.to_string();
                let begins = format!("{} is damaged at byte {at}: the disk", block.0.display());
                assert!(said.starts_with(&begins) && said.ends_with("; nothing was changed"), "{said}");
                assert!(said.contains("does not give it back: Input/output error (os error 5)"), "{said}");
            }
        }
    }
}

#[test]
fn what_can_be_read_when_it_is_tried_once_more_is_whole() {
    let disk = sealed();
    let whole = whole(&disk);
    let once = Disk { bad: Bad { reads: 1, ..Bad::default() }, ..disk.clone() };
    assert!(!look(once, &whole, "one read fails"));
    let path = Path::new(DIR).join("seg-0000000000000001.log");
    let read = |bad: Bad| {
        let env = disk.clone().env();
        let its = env.clone();
        env.run(async move {
            let (lane, _) = Lane::open(its.clone(), Path::new(DIR), config()).await?;
            its.spoil(bad);
            Ok::<_, OpenError>(lane.read(ShardId(0), Index(1), Index(1), usize::MAX).await)
        })
    };
    let bad = Bad { blocks: [(path.clone(), 1)].into(), ..Bad::default() };
    match read(bad).expect("nothing is damaged yet") {
        Err(ReadError::Damaged(damage)) => assert_eq!((damage.file, damage.offset), (path, BLOCK as u64)),
        other => panic!("{other:?}"),
    }
    let once = read(Bad { reads: 1, ..Bad::default() }).expect("nothing is damaged");
    assert_eq!(once.expect("the second try works"), whole[0].2[..1]);
}
