//! A lane's ended segments are looked at while it runs, and damage to them is found though nobody reads them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{Index, LaneId, ShardId, Term};
use distribkv::log::segment::segment_name;
use distribkv::log::{
    Append, DamageNews, Lane, LaneConfig, Looked, ReadError, SegmentScrub, TableRef, batch::SegmentId,
};
use distribkv::raft::Entry;

mod log_mem;

use log_mem::{Bad, MemEnv};

const DIR: &str = "/lane-0";
const BLOCK: usize = 4096;
const SHARD: ShardId = ShardId(0);

fn config() -> LaneConfig {
    LaneConfig {
        damage: distribkv::log::OnDamage::Stop,
        lane: LaneId(0),
        segment_bytes: 8 * BLOCK as u64,
        batch_bytes_max: 3 * BLOCK,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        seal_after: Duration::from_millis(10),
        #[cfg(debug_assertions)]
        planted: None,
    }
}

/// A running lane with some segments that are full.
fn lane() -> (MemEnv, Lane<MemEnv>) {
    let env = MemEnv::default();
    let its = env.clone();
    let opened = env.run(async move { Lane::open(its, Path::new(DIR), config()).await });
    let (lane, _) = opened.expect("a new lane");
    let running = lane.clone();
    distribkv::env::Env::spawn(&env, async move { running.run().await });
    for index in 1..=20 {
        let data = Bytes::from(vec![b'a'; 5000]);
        let entries = vec![Entry { index: Index(index), term: Term(1), data }];
        let append = Append { shard: SHARD, number: index, entries, ..Append::default() };
        assert_eq!(lane.append(append), Ok(()));
        env.settle();
        assert_eq!(lane.completions().len(), 1, "all works at once here");
    }
    (env, lane)
}

/// Looks at a segment until there is something to say of it.
fn outcome(env: &MemEnv, mut scrub: SegmentScrub<MemEnv>) -> Looked {
    env.run(async move {
        loop {
            match scrub.look().await {
                Looked::Bytes(_) => {}
                looked => return looked,
            }
        }
    })
}

#[test]
fn of_a_log_every_batch_of_an_ended_segment_is_looked_at() {
    let (env, lane) = lane();
    let ended = lane.scrubs().len();
    assert!(ended >= 3, "{ended} segments are full");
    for scrub in lane.scrubs() {
        let looked = outcome(&env, scrub);
        assert!(matches!(looked, Looked::Whole(bytes) if bytes > BLOCK as u64), "{looked:?}");
    }
    let path = Path::new(DIR).join(segment_name(SegmentId(1)));
    let flip = |byte: usize| {
        env.change(|files| files.get_mut(&path).expect("it is there")[byte] ^= 4);
    };
    // In the header of the segment, and in the header and the entry of its first and its third batch.
    let (first, third) = (BLOCK, 5 * BLOCK);
    let flips =
        [(0, 9), (first, first + 25), (first, first + 4500), (third, third + 3), (third, third + 700)];
    for (at, byte) in flips {
        flip(byte);
        let looked = outcome(&env, lane.scrubs().remove(0));
        let Looked::Damaged(damage) = looked else { panic!("byte {byte}: {looked:?}") };
        assert_eq!((damage.file, damage.offset), (path.clone(), at as u64), "byte {byte}");
        flip(byte);
    }
    let before = env.files();
    assert!(matches!(outcome(&env, lane.scrubs().remove(0)), Looked::Whole(_)));
    assert!(env.files() == before, "looking changes nothing");
    env.kill();
}

#[test]
fn of_what_the_disk_does_not_give_back_the_block_is_told() {
    let (env, lane) = lane();
    let path = Path::new(DIR).join(segment_name(SegmentId(1)));
    for block in 0..7 {
        env.spoil(Bad { blocks: [(path.clone(), block)].into(), ..Bad::default() });
        let looked = outcome(&env, lane.scrubs().remove(0));
        let Looked::Unread(damage) = looked else { panic!("block {block}: {looked:?}") };
        assert_eq!((damage.file, damage.offset), (path.clone(), (block * BLOCK) as u64));
    }
    env.spoil(Bad { files: [path.clone()].into(), ..Bad::default() });
    assert!(matches!(outcome(&env, lane.scrubs().remove(0)), Looked::Unread(_)));
    // Behind the last batch, and at the first try alone.
    let harmless = [Bad { blocks: [(path, 7)].into(), ..Bad::default() }, Bad { reads: 1, ..Bad::default() }];
    for bad in harmless {
        env.spoil(bad);
        assert!(matches!(outcome(&env, lane.scrubs().remove(0)), Looked::Whole(_)));
    }
    env.kill();
}

#[test]
fn of_a_segment_that_was_released_nothing_is_told() {
    let (env, lane) = lane();
    let ended = lane.scrubs().len();
    let scrub = lane.scrubs().remove(0);
    assert_eq!(lane.release(SHARD, Index(15), Term(1)), Ok(()));
    env.pass(50);
    assert!(lane.scrubs().len() < ended, "the first segments were released");
    assert!(matches!(outcome(&env, scrub), Looked::Released));
}

/// A damaged segment counts once, whoever finds what of it: until it is let go of, as its shards are asked
/// to.
#[test]
fn damage_counts_once_and_is_over_when_its_segment_is_gone() {
    let (env, lane) = lane();
    let counts = |lane: &Lane<MemEnv>| (lane.status().damages_found, lane.status().damages_ended);
    assert_eq!((counts(&lane), lane.pinning(usize::MAX)), ((0, 0), Vec::new()));
    let path = Path::new(DIR).join(segment_name(SegmentId(1)));
    for byte in [BLOCK + 25, 5 * BLOCK + 700] {
        env.change(|files| files.get_mut(&path).expect("it is there")[byte] ^= 4);
    }
    let Looked::Damaged(first) = outcome(&env, lane.scrubs().remove(0)) else { panic!("its first batch") };
    let reading = lane.clone();
    let read = env.run(async move { reading.read(SHARD, Index(3), Index(3), 1 << 20).await });
    let Err(ReadError::Damaged(third)) = read else { panic!("its third batch: {read:?}") };
    assert_ne!(first.offset, third.offset);
    let scrubs = lane.scrubs().len();
    assert_eq!(
        [&third, &first, &third].map(|damage| lane.note_damage(damage)),
        [DamageNews::New, DamageNews::Known, DamageNews::Known]
    );
    assert_eq!((counts(&lane), lane.status().damaged), ((1, 0), 1));
    assert_eq!((lane.scrubs().len(), lane.pinning(usize::MAX)), (scrubs - 1, vec![SHARD]));
    assert_eq!(lane.release(SHARD, Index(15), Term(1)), Ok(()));
    env.pass(50);
    assert_eq!((counts(&lane), lane.status().damaged), ((1, 1), 0));
    assert_eq!((lane.note_damage(&first), lane.pinning(usize::MAX)), (DamageNews::Elsewhere, Vec::new()));
    env.kill();
}

/// The room of a segment that was let go of is used again, but not where it was damaged: what is bad of it
/// would be found again, at a place where nothing is written yet.
#[test]
fn a_damaged_segment_is_not_used_again() {
    for is_damaged in [false, true] {
        let (env, lane) = lane();
        if is_damaged {
            let path = Path::new(DIR).join(segment_name(SegmentId(1)));
            env.change(|files| files.get_mut(&path).expect("it is there")[5 * BLOCK + 700] ^= 4);
            let Looked::Damaged(damage) = outcome(&env, lane.scrubs().remove(0)) else { panic!("it is") };
            assert_eq!(lane.note_damage(&damage), DamageNews::New);
        }
        // So much that the first segment alone is not needed any more.
        assert_eq!(lane.release(SHARD, Index(3), Term(1)), Ok(()));
        env.pass(50);
        let unnamed = Path::new(DIR).join(segment_name(SegmentId(1)));
        assert_eq!(env.files().contains_key(&unnamed), !is_damaged, "it is kept for its room");
        env.kill();
    }
}

/// A doubt is about the table that was there when it came up, however busy the lane is.
#[test]
fn a_doubt_ends_with_the_table_that_it_was_about() {
    let table = |generation: u64| TableRef {
        generation,
        index: Index(generation),
        term: Term(1),
        bytes: 8192,
        footer_checksum: 7,
    };
    for replaced in [false, true] {
        let (env, lane) = lane();
        let (switching, doubting) = (lane.clone(), lane.clone());
        let switched = env.run(async move { switching.switch_table(SHARD, table(5)).await });
        assert_eq!(switched, Some(()));
        doubting.doubt_table(SHARD);
        if replaced {
            let switching = lane.clone();
            assert_eq!(env.run(async move { switching.switch_table(SHARD, table(6)).await }), Some(()));
        }
        env.pass(50);
        env.kill();
        let its = env.clone();
        let opened = env.run(async move { Lane::open(its, Path::new(DIR), config()).await });
        let (_, recovery) = opened.expect("it is whole");
        assert_eq!(recovery.doubted.contains(&SHARD), !replaced);
    }
}
