//! Bit rot in a lane's log and in an identity: every single flipped bit of what is sealed is found, or
//! changes nothing.

// Planted bugs exist only where assertions do.
#![cfg(debug_assertions)]

use std::iter;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use distribkv::ids::{ClusterId, DirectoryId, Index, LaneId, NodeId, ShardId, Term};
use distribkv::log::batch::{Batch, BatchBuilder, BatchSequence};
use distribkv::log::record::Record;
use distribkv::log::segment::decode_segment_header;
use distribkv::log::{
    Append, DamageKind, Disagreement, FreshIdentity, Identity, IdentityStore, Lane, LaneConfig, NoteError,
    Noted, OpenError, PlantedBug, RecoveredAt, RecoveredShard,
};
use distribkv::raft::{Entry, HardState};

mod log_mem;

use log_mem::{Files, MemEnv};

const DIR: &str = "/lane-0";
const BLOCK: usize = 4096;

fn config(planted: Option<PlantedBug>) -> LaneConfig {
    LaneConfig {
        lane: LaneId(0),
        segment_bytes: 4 * BLOCK as u64,
        batch_bytes_max: 2 * BLOCK,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        seal_after: Duration::from_millis(10),
        damage: distribkv::log::OnDamage::Stop,
        planted,
    }
}

fn on_files(these: Files) -> MemEnv {
    let env = MemEnv::default();
    env.change(|files| *files = these);
    env
}

fn opened(env: &MemEnv, config: LaneConfig) -> Result<Lane<MemEnv>, OpenError> {
    let its = env.clone();
    env.run(async move { Lane::open(its, Path::new(DIR), config).await }).map(|(lane, _)| lane)
}

fn appended(env: &MemEnv, lane: &Lane<MemEnv>, shard: u32, first: u64, lens: &[usize]) {
    let entries = lens.iter().zip(first..).map(|(&len, index)| Entry {
        index: Index(index),
        term: Term(1),
        data: Bytes::from(vec![b'a'; len]),
    });
    let hard_state = Some(HardState { term: Term(1), vote: Some(NodeId(3)), commit: Index(first) });
    let (shard, entries) = (ShardId(shard), entries.collect());
    let append = Append { shard, number: first, hard_state, entries, ..Append::default() };
    assert_eq!(lane.append(append), Ok(()));
    env.settle();
    assert_eq!(lane.completions().len(), 1, "all works at once here");
}

/// A log of a few small batches in several segments and of two processes, sealed; its files. One batch has
/// two blocks.
fn sealed(planted: Option<PlantedBug>) -> Files {
    let env = MemEnv::default();
    for life in 0..2 {
        let lane = opened(&env, config(planted)).expect("nothing is damaged yet");
        env.run({
            let (lane, env) = (lane.clone(), env.clone());
            async move { distribkv::env::Env::spawn(&env, lane.run()) }
        });
        let long = if life == 0 { 4200 } else { 300 };
        let each = [(0, 1, &[10, 5][..]), (1, 1, &[long]), (0, 3, &[300]), (1, 2, &[7])];
        for (shard, first, lens) in each {
            appended(&env, &lane, shard, first + life, lens);
        }
        lane.close();
        env.pass(2);
        env.kill();
    }
    env.files()
}

/// What a start finds: all shards, and all their entries.
type Contents = Vec<(ShardId, RecoveredShard, Vec<Entry>)>;

fn contents(files: &Files, planted: Option<PlantedBug>) -> Result<Contents, OpenError> {
    let env = on_files(files.clone());
    let its = env.clone();
    env.run(async move {
        let (lane, recovery) = Lane::open(its, Path::new(DIR), config(planted)).await?;
        let mut contents = Vec::new();
        for (shard, found) in recovery.shards {
            let entries = lane.read(shard, found.first_index, found.last_index, usize::MAX).await;
            contents.push((shard, found, entries.expect("it was just recovered")));
        }
        Ok(contents)
    })
}

/// The bytes of a file that its format uses: the header of a segment and its batches, or a copy.
fn used(path: &Path, bytes: &[u8]) -> Vec<Range<usize>> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    if path.extension().is_none() {
        return iter::once(0..24 + word(16)).collect();
    }
    let blocks = (BLOCK..bytes.len()).step_by(BLOCK);
    let batches = blocks.filter(|at| bytes[*at..].starts_with(b"dKVb"));
    iter::once(0..44).chain(batches.map(|at| at..at + 52 + word(at + 40))).collect()
}

/// The bits that are tried: all of those that are used, and some of the rest.
fn bits(path: &Path, bytes: &[u8]) -> Vec<usize> {
    let of_used = used(path, bytes).into_iter().flat_map(|bytes| bytes.start * 8..bytes.end * 8);
    of_used.chain((0..bytes.len() * 8).step_by(61)).collect()
}

/// The first flipped bit that makes a start find other contents; and how many were damage to it.
fn first_missed(files: &Files, planted: Option<PlantedBug>) -> (Option<(PathBuf, usize)>, usize) {
    let whole = contents(files, planted).expect("nothing is damaged yet");
    let mut found = 0;
    for (path, bytes) in files {
        for bit in bits(path, bytes) {
            let mut flipped = files.clone();
            let target = flipped.get_mut(path).expect("it is a copy of them");
            target[bit / 8] ^= 1 << (bit % 8);
            match contents(&flipped, planted) {
                Ok(contents) if contents == whole => {}
                Ok(_) => return (Some((path.clone(), bit)), found),
                Err(OpenError::Damaged(_)) => found += 1,
                Err(error) => panic!("bit {bit} of {}: {error}", path.display()),
            }
        }
    }
    (None, found)
}

#[test]
fn every_flipped_bit_of_a_sealed_log_is_found_or_changes_nothing() {
    let (missed, found) = first_missed(&sealed(None), None);
    assert_eq!(missed, None);
    assert!(found > 40_000, "only {found} flipped bits were damage");
}

#[test]
fn planted_bugs_let_a_flipped_bit_pass() {
    let damage_cut = first_missed(&sealed(None), Some(PlantedBug::DamageCut));
    assert!(damage_cut.0.is_some(), "cut damage passes for whole");
    let unsealed = sealed(Some(PlantedBug::NeverSealed));
    assert!(first_missed(&unsealed, None).0.is_some(), "an unsealed batch is the blind spot");
}

#[test]
fn a_copy_of_the_manifest_may_be_lost() {
    for planted in [None, Some(PlantedBug::OneCopyWritten)] {
        let files = sealed(planted);
        let whole = contents(&files, None).expect("nothing is damaged yet");
        let mut is_same = true;
        for name in ["manifest-a", "manifest-b"] {
            let mut left = files.clone();
            left.remove(&Path::new(DIR).join(name));
            is_same &= contents(&left, None).is_ok_and(|contents| contents == whole);
        }
        assert_eq!(is_same, planted.is_none(), "{planted:?}");
    }
}

#[test]
fn no_manifest_over_segments_is_damage_and_changes_nothing() {
    let mut files = sealed(None);
    files.retain(|path, _| !path.to_string_lossy().contains("manifest"));
    let env = on_files(files.clone());
    match opened(&env, config(None)).map(|_| ()) {
        Err(OpenError::Damaged(damage)) => assert_eq!(damage.kind, DamageKind::CopiesMissing),
        other => panic!("{other:?}"),
    }
    assert_eq!(env.files(), files);
}

#[test]
fn damage_changes_no_file() {
    let mut files = sealed(None);
    let path = Path::new(DIR).join("seg-0000000000000001.log");
    files.get_mut(&path).expect("the first segment is there")[BLOCK + 60] ^= 1;
    let env = on_files(files.clone());
    let error = opened(&env, config(None)).map(|_| ()).expect_err("an acknowledged batch is damaged");
    let text = error.to_string();
    assert!(text.starts_with("/lane-0/seg-0000000000000001.log is damaged at byte 4096: batch 1"), "{text}");
    assert_eq!(env.files(), files);
}

/// Puts another, valid batch in the place of the first: right salt, right sequence, right checksum.
fn forged() -> Files {
    let mut files = sealed(None);
    let path = Path::new(DIR).join("seg-0000000000000001.log");
    let bytes = files.get_mut(&path).expect("the first segment is there");
    let (place, _) = decode_segment_header(bytes).expect("its header is whole");
    let batch = Batch::decode(&bytes[BLOCK..], &place).expect("its first batch is whole");
    assert_eq!((batch.header.sequence, batch.bytes()), (BatchSequence(1), BLOCK));
    let header = batch.header;
    let mut forged = vec![0; BLOCK];
    let mut builder = BatchBuilder::new(&mut forged);
    builder.put(&Record::Entry { shard: ShardId(0), index: Index(1), term: Term(1), data: b"another" });
    builder.put(&Record::Entry { shard: ShardId(0), index: Index(2), term: Term(1), data: b"another" });
    builder.finish(&place, &header);
    bytes[BLOCK..2 * BLOCK].copy_from_slice(&forged);
    files
}

#[test]
fn a_batch_of_another_history_is_found_by_the_chain() {
    match contents(&forged(), None) {
        Err(OpenError::Damaged(damage)) => {
            assert_eq!(damage.kind, DamageKind::Chain { sequence: BatchSequence(2) });
        }
        other => panic!("{other:?}"),
    }
    assert!(contents(&forged(), Some(PlantedBug::ChainIgnored)).is_ok(), "nothing else finds it");
}

fn fresh() -> FreshIdentity {
    FreshIdentity {
        node: NodeId(1),
        cluster: ClusterId(9),
        nodes: 3,
        shards: 8,
        lanes: 2,
        cluster_hash: 5,
        recovery: None,
    }
}

fn noted(directory: u64) -> Noted {
    Noted { directory: DirectoryId(directory), recovered_at: RecoveredAt::NEVER }
}

fn identified(env: &MemEnv, fresh: FreshIdentity) -> Result<(IdentityStore<MemEnv>, Identity), OpenError> {
    let its = env.clone();
    env.run(async move { IdentityStore::open_or_create(its, Path::new("/"), fresh).await })
}

#[test]
fn an_identity_is_kept_and_noted_ids_are_never_overwritten() {
    let env = MemEnv::default();
    let (mut store, made) = identified(&env, fresh()).expect("the directory is new");
    let found = env.run(async move {
        let first = store.note(NodeId(2), noted(7)).await;
        let again = store.note(NodeId(2), noted(7)).await;
        let other = store.note(NodeId(2), noted(8)).await;
        let stranger = store.note(NodeId(4), noted(8)).await;
        store.entitle().await.expect("the disk works");
        (first.is_ok() && again.is_ok(), other, stranger)
    });
    match found {
        (true, Err(NoteError::AnotherKnown { known }), Err(NoteError::NoSuchNode)) => {
            assert_eq!(known, noted(7));
        }
        other => panic!("{other:?}"),
    }
    let settings = FreshIdentity { cluster_hash: 6, lanes: 1, ..fresh() };
    let (_, kept) = identified(&env, settings).expect("nothing disagrees");
    assert_eq!((kept.directory, kept.lanes, kept.entitled, kept.cluster_hash), (made.directory, 2, true, 6));
    assert_eq!(kept.noted.get(&NodeId(2)), Some(&noted(7)));
}

#[test]
fn an_identity_that_disagrees_is_refused_with_both_values() {
    let env = MemEnv::default();
    identified(&env, fresh()).expect("the directory is new");
    let cases = [
        (
            FreshIdentity { node: NodeId(2), ..fresh() },
            Disagreement::Node { kept: NodeId(1), asked: NodeId(2) },
        ),
        (FreshIdentity { shards: 9, ..fresh() }, Disagreement::Shards { kept: 8, asked: 9 }),
        (FreshIdentity { nodes: 5, ..fresh() }, Disagreement::Nodes { kept: 3, asked: 5 }),
        (
            FreshIdentity { cluster: ClusterId(1), ..fresh() },
            Disagreement::Cluster { kept: ClusterId(9), asked: ClusterId(1) },
        ),
    ];
    for (asked, expected) in cases {
        match identified(&env, asked).map(|_| ()) {
            Err(OpenError::Disagrees { what, .. }) => assert_eq!(what, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_flipped_bit_of_one_copy_of_an_identity_changes_nothing() {
    let env = MemEnv::default();
    let (_, made) = identified(&env, fresh()).expect("the directory is new");
    let files = env.files();
    for (path, bytes) in &files {
        for bit in 0..200 * 8 {
            let mut flipped = files.clone();
            flipped.get_mut(path).expect("it is a copy of them")[bit / 8] ^= 1 << (bit % 8);
            let env = on_files(flipped);
            let (_, found) = identified(&env, fresh()).expect("the other copy is whole");
            let made = Identity { starts: found.starts, ..made.clone() };
            assert_eq!(found, made, "bit {bit} of {}", path.display());
        }
        assert_eq!(bytes.len(), BLOCK);
    }
}

#[test]
fn a_lost_identity_is_not_made_anew() {
    let env = MemEnv::default();
    identified(&env, fresh()).expect("the directory is new");
    env.change(|files| {
        files.clear();
        files.insert(PathBuf::from("/lane-0"), Vec::new());
    });
    match identified(&env, fresh()).map(|_| ()) {
        Err(OpenError::Damaged(damage)) => assert_eq!(damage.kind, DamageKind::CopiesMissing),
        other => panic!("{other:?}"),
    }
}
