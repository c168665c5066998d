//! Recovery: one pass over a lane's segments that finds where the log ends, makes that durable, and only then
//! acts.
//!
//! ```text
//!  manifest ─► each segment, oldest first ─► where does it end? ─► sync what was read
//!           ─► a fresh segment, durable ─► manifest: ends recorded, empty segments out, the fresh one in
//!           ─► both copies durable ─► files that it does not name are removed ─► the lane is open
//! ```
//!
//! Where a segment ends: at its recorded end; else where the first batch of the next segment has the expected
//! sequence and chain; else where nothing valid follows. A failing position n is **damage** where any valid
//! batch in the rest of the lane knew n durable, or a recorded end lies past it; a whole batch in a place
//! that is not its own is damage too, since no tear makes one. Otherwise it is the **torn** tail of a write
//! that nobody was told about, and it is cut, by recording the end before it. The blind spot: damage to the
//! last batch, before a seal or a recorded end covers it, looks like a tear. A block that cannot be read
//! never does: where it may have held the batch n, or one that knew it, the log ends in damage.
//!
//! A process that was killed may leave one write in flight, which lands some milliseconds later. Whether it
//! is the batch after the last one found, or that very one, half of it read from a disk that has not got it
//! for good: no sync covers it, and nothing that can be asked of a file waits for it for certain. So the last
//! batch is **carried**: written again as the first of the fresh segment, under the same sequence, and the
//! old segment's end is recorded before it. Every batch before it is covered: it knew them durable. A seal is
//! not carried, only forgotten.
//!
//! Why a crash is safe at any point: until the one manifest change is durable nothing was acted on, and the
//! next start does it all again, perhaps with an end further on, where a late write has landed by then. From
//! then on what lies past the ends is ignored for ever, so that neither a second crash makes the cut look
//! like damage, nor does a late write bring back what was cut, or spoil what was acted on: it can hit only
//! blocks past an end, or a file that has no name any more. A fresh segment is begun by every start, and
//! files of a dead process are not used again.
//!
//! Damage that is gone round is written down, shard by shard, behind the carried batch, before the manifest
//! changes: a start that crashes before that finds the damage as it was.
//!
//! Invariants: nothing is acted on before it is durable; damage is never cut or removed here; where it stops
//! the start nothing is written; files are removed only where both copies of the manifest were
//! whole and agreed; memory is bounded by a window of a segment, the last batch and the index.
//!
//! It lives on its lane's core. It deliberately prints nothing: it returns facts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::env::signal::Signal;
use crate::env::stages::Tally;
use crate::env::{Env, File};
use crate::ids::{Index, ShardId, Term};
use crate::raft::{HardState, Standing};

use super::batch::{
    Batch, BatchBuilder, BatchHeader, BatchSequence, NotABatch, Place, SegmentId, batch_bytes,
};
use super::error::{Damage, DamageKind, Doing, LogFailure, OpenError};
use super::identity::prepared_dir;
use super::index::{Gap, LaneIndex, Notes, Position, Survivor};
use super::keeper::make_segment;
use super::lane::{
    Active, Buffers, FilledBy, Found, LaneConfig, OnDamage, Phase, SegmentState, Space, State, Tail,
};
use super::manifest::{ManifestFile, Mark, SegmentMeta, TableRef, table_name, table_of_name};
#[cfg(debug_assertions)]
use super::planted::PlantedBug;
use super::queue::Queue;
use super::recent::Recent;
use super::record::{
    END_BYTES, HARD_STATE_BYTES, RELEASED_BYTES, Record, RecordError, STANDING_RECORD_BYTES,
};
use super::segment::{SEGMENT_DATA_AT, segment_name, segment_of_name};
use super::twin::{Copies, TwinKind, TwinReport};
use super::walk::{Held, Walk, walk};

/// How many shards one batch says what is left of.
const SURVIVORS_IN_BATCH: usize = 256;

/// The records of one of them, in bytes.
const SURVIVOR_BYTES: usize = HARD_STATE_BYTES + STANDING_RECORD_BYTES + RELEASED_BYTES + END_BYTES;

const _: () = assert!(batch_bytes(SURVIVORS_IN_BATCH * SURVIVOR_BYTES) <= 64 << 10);

/// What a start found.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The shards that the log holds anything of.
    pub shards: BTreeMap<ShardId, RecoveredShard>,
    /// The shards' tables: what each stands for is not in the log any more, or need not be.
    pub tables: BTreeMap<ShardId, TableRef>,
    /// Those of them whose tables are not to be trusted.
    pub doubted: BTreeSet<ShardId>,
    /// The torn tail that was cut.
    pub cut: Option<Cut>,
    /// The last batch, which no other covered: it was written again.
    pub carried: Option<BatchSequence>,
    /// The segments that hold batches.
    pub segments: usize,
    /// The bytes of those batches on disk.
    pub bytes: u64,
    /// How many there are.
    pub batches: u64,
    /// What was found of the manifest's copies.
    pub manifest: TwinReport,
    /// Damage that was gone round, by this start or an earlier one.
    pub damages: Vec<Damage>,
    /// What is left of the shards whose log may lack something, found by this start.
    pub survivors: Vec<Survivor>,
    /// Files that the manifest does not name, kept since its copies were not whole or did not agree.
    pub kept: Vec<PathBuf>,
    /// Files that the manifest does not name, removed.
    pub removed: Vec<PathBuf>,
}

/// What the log holds of one shard, all of it durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredShard {
    /// Term, vote and commit index; the latter no further than `last_index`.
    pub hard_state: HardState,
    /// The first index of each run of entries of one term, and that term. The first is where the log begins.
    pub terms: Vec<(Index, Term)>,
    /// The last index that was released, and its term.
    pub released: Option<(Index, Term)>,
    /// What the replica knows of its past, where it ever said so.
    pub standing: Option<Standing>,
    /// The first index held; one past the last where none is.
    pub first_index: Index,
    /// The last index held; the last released one where none is.
    pub last_index: Index,
}

/// A torn tail that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment's file.
    pub file: PathBuf,
    /// Where the torn batch began.
    pub offset: u64,
    /// The sequence that it would have had.
    pub sequence: BatchSequence,
    /// What was found of it.
    pub found: NotABatch,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, offset, sequence, found } = self;
        write!(f, "torn tail cut: {} at byte {offset}, batch {}: {found}", file.display(), sequence.0)
    }
}

/// Opens a lane's directory: what writer and readers go on from, and what was found.
pub(super) async fn recover<E: Env>(
    env: &E,
    dir: &Path,
    config: &LaneConfig,
) -> Result<(State<E>, Recovery), OpenError> {
    let names = prepared_dir(env, dir).await?;
    let found: Vec<SegmentId> = names.iter().filter_map(|name| segment_of_name(name)).collect();
    let (mut file, report) = open_manifest(env, dir, config, found.is_empty()).await?;
    let mut walk = walk(env, dir, config, &file.manifest).await?;
    env.sync_dir(dir).await.map_err(|source| LogFailure::new(Doing::Sync, dir, source))?;

    #[cfg(debug_assertions)]
    let old_copy_wins = config.has(PlantedBug::OldCopyWins);
    #[cfg(debug_assertions)]
    let report = if old_copy_wins { TwinReport { copies: [report.copies[0]; 2] } } else { report };
    // First, since a full disk may have ended the start before this one between a segment and its manifest.
    let mut unnamed = unnamed_files(dir, &file, &names);
    if report.agree() {
        remove_all(env, dir, &unnamed).await?;
    }
    found.iter().for_each(|id| file.manifest.skip_segment_id(*id));
    let (segment, salt) = (file.manifest.take_segment_id(), config.salt(env.random()));
    let place = Place { lane: config.lane, segment, salt };
    let cut = walk.cut();
    let (current, position) = begin(env, dir, config, place, &mut walk).await?;
    walk.begin_last_hole();
    let carried = (position > SEGMENT_DATA_AT).then_some(walk.last.sequence);
    let survivors = survivors(env, dir, config, &mut walk, &file.manifest.tables)?;
    let position = write_survivors(env, (&current, position), &mut walk, &survivors).await?;
    record(&mut file, &walk, config);
    file.manifest.enter(SegmentMeta { id: place.segment, salt: place.salt, bytes: current.bytes, end: None });
    file.write().await?;

    let mut recovery = facts(&walk, cut, report);
    recovery.carried = carried;
    recovery.survivors = survivors;
    recovery.tables = file.manifest.tables.clone();
    recovery.doubted = file.manifest.doubted.clone();
    // The spare that nothing was written to is not named any more either.
    let dropped = unnamed_files(dir, &file, &names).into_iter().filter(|path| !unnamed.contains(path));
    let dropped: Vec<PathBuf> = dropped.collect();
    if report.agree() {
        remove_all(env, dir, &dropped).await?;
    }
    unnamed.extend(dropped);
    let files = if report.agree() { &mut recovery.removed } else { &mut recovery.kept };
    *files = unnamed;
    Ok((opened_state(env, walk, file, (current, position)), recovery))
}

/// What writer and readers go on from.
fn opened_state<E: Env>(
    env: &E,
    walk: Walk<'_>,
    file: ManifestFile<E>,
    (current, position): (Active<E>, u64),
) -> State<E> {
    let segments = segment_states(&file, &walk);
    let tails = tails(&walk.index);
    let is_whole = |tail: &Tail| tail.standing.is_none_or(|standing| standing == Standing::Whole);
    let costs_nobody = tails.values().all(is_whole);
    let found = if costs_nobody { walk.damaged.clone() } else { BTreeSet::new() };
    State {
        tails,
        index: walk.index,
        damaged: walk.damaged,
        found: Found::new(found),
        queue: Queue::default(),
        completions: Vec::new(),
        progress: Signal::default(),
        failure: None,
        phase: Phase::Opened,
        segments,
        current,
        position,
        spare: None,
        needs_spare: false,
        manifest: Some(file),
        free: Vec::new(),
        restated: None,
        switches: Vec::new(),
        doubts: Vec::new(),
        last: walk.last,
        is_sealed: position == SEGMENT_DATA_AT,
        written_at: env.now(),
        flight_since: None,
        notes: Notes::default(),
        flown: Vec::new(),
        buffers: Buffers::new(),
        open_files: Vec::new(),
        recent: Recent::default(),
        space: Space::Enough,
        batches: 0,
        last_write: Duration::ZERO,
        batch: Tally::default(),
        write: Tally::default(),
    }
}

/// Opens the manifest, or makes it where the lane is new.
async fn open_manifest<E: Env>(
    env: &E,
    dir: &Path,
    config: &LaneConfig,
    is_empty: bool,
) -> Result<(ManifestFile<E>, TwinReport), OpenError> {
    let (mut file, report) = ManifestFile::open(env.clone(), dir, config.lane, copies(config)).await?;
    if report.is_missing() {
        if !is_empty {
            let file = dir.join(TwinKind::Manifest.names()[0]);
            return Err(Damage { file, offset: 0, kind: DamageKind::CopiesMissing }.into());
        }
        file.write().await?;
    }
    Ok((file, report))
}

fn copies(config: &LaneConfig) -> Copies {
    #[cfg(debug_assertions)]
    match config.planted {
        Some(PlantedBug::OneCopyWritten) => return Copies::One,
        Some(PlantedBug::OldCopyWins) => return Copies::OldWins,
        Some(PlantedBug::DirectoryNotSynced) => return Copies::Unsynced,
        Some(_) | None => {}
    }
    let _ = config;
    Copies::Both
}

/// Begins a fresh segment, with the last batch in it where that one needs to be carried. Returns where it
/// goes on.
async fn begin<E: Env>(
    env: &E,
    dir: &Path,
    config: &LaneConfig,
    place: Place,
    walk: &mut Walk<'_>,
) -> Result<(Active<E>, u64), OpenError> {
    #[cfg(debug_assertions)]
    if config.has(PlantedBug::RecoveryActsOnUnsynced) {
        walk.settle();
    }
    let carried = walk.held.as_ref().map_or(0, |held| u64::from(held.at.bytes));
    let bytes = config.segment_bytes.max(SEGMENT_DATA_AT + carried + survivors_bytes_max(config, walk));
    let Some(held) = walk.held.take() else {
        return Ok((make_segment(env, dir, place, bytes).await?, SEGMENT_DATA_AT));
    };
    let current = make_segment(env, dir, place, bytes).await?;
    walk.last = held.before;
    if held.is_seal {
        return Ok((current, SEGMENT_DATA_AT));
    }
    let mut buf = env.buf(held.bytes.len());
    walk.last = carry(&held, &place, buf.as_mut(), &current.path)?;
    let written = current.file.write_at(Rc::new(buf), SEGMENT_DATA_AT).await;
    written.map_err(|source| LogFailure::at(Doing::WriteBatch, &current.path, SEGMENT_DATA_AT, source))?;
    let at = Position { segment: place.segment, offset: SEGMENT_DATA_AT, bytes: held.at.bytes };
    walk.index.apply(at, &held.notes);
    Ok((current, SEGMENT_DATA_AT + u64::from(at.bytes)))
}

/// The bytes of the batches that say what is left.
fn survivors_bytes_max(config: &LaneConfig, walk: &Walk<'_>) -> u64 {
    let shards = match &config.damage {
        OnDamage::Lose(shards) if !walk.damages.is_empty() => shards.len().max(walk.index.shards().count()),
        OnDamage::Lose(_) | OnDamage::Stop => 0,
    };
    let batches = shards.div_ceil(SURVIVORS_IN_BATCH);
    (batches * batch_bytes(SURVIVORS_IN_BATCH * SURVIVOR_BYTES)) as u64
}

/// What is left of the shards that lost something. A hole in the entries of a shard alone is one, too.
fn survivors<E: Env>(
    env: &E,
    dir: &Path,
    config: &LaneConfig,
    walk: &mut Walk<'_>,
    tables: &BTreeMap<ShardId, TableRef>,
) -> Result<Vec<Survivor>, OpenError> {
    let mut survivors = walk.index.survivors(tables, || env.random());
    while let Some(Gap { shard, after, found }) = walk.index.gap() {
        let kind = DamageKind::Gap { shard, after, found };
        let damage = Damage { file: dir.to_path_buf(), offset: 0, kind };
        if config.damage == OnDamage::Stop {
            return Err(damage.into());
        }
        walk.damages.push(damage);
        walk.index.forget(shard);
        survivors.retain(|survivor| survivor.shard != shard);
        survivors.extend(walk.index.survivors(tables, || env.random()));
    }
    Ok(survivors)
}

/// Writes down what is left, before anything rests on it: one batch, or more where it fits none. Returns
/// where the segment goes on.
async fn write_survivors<E: Env>(
    env: &E,
    (current, mut position): (&Active<E>, u64),
    walk: &mut Walk<'_>,
    survivors: &[Survivor],
) -> Result<u64, OpenError> {
    for some in survivors.chunks(SURVIVORS_IN_BATCH) {
        let records: Vec<Record<'_>> = some.iter().flat_map(Survivor::records).collect();
        let bytes = records.iter().map(Record::encoded_bytes).sum();
        let mut buf = env.buf(batch_bytes(bytes));
        let mut builder = BatchBuilder::new(buf.as_mut());
        let mut notes = Notes::default();
        for record in &records {
            notes.add(record);
            builder.put(record);
        }
        let Mark { sequence, chain: before } = walk.last;
        let header = BatchHeader { sequence: sequence.next(), durable_through: sequence, before };
        let chain = builder.finish(&current.place, &header);
        let len = u32::try_from(buf.as_ref().len()).expect("a batch is no longer than BATCH_BYTES_LIMIT");
        let written = current.file.write_at(Rc::new(buf), position).await;
        written.map_err(|source| LogFailure::at(Doing::WriteBatch, &current.path, position, source))?;
        walk.index.apply(Position { segment: current.place.segment, offset: position, bytes: len }, &notes);
        walk.last = Mark { sequence: header.sequence, chain };
        position += u64::from(len);
    }
    Ok(position)
}

/// Encodes the held batch for another segment.
fn carry(held: &Held, place: &Place, buf: &mut [u8], path: &Path) -> Result<Mark, OpenError> {
    let damage = |kind| Damage { file: path.to_path_buf(), offset: SEGMENT_DATA_AT, kind };
    let batch =
        Batch::decode(&held.bytes, &held.place).map_err(|found| damage(DamageKind::Unreadable { found }))?;
    let mut builder = BatchBuilder::new(buf);
    let copied = batch.each_record(|record| {
        builder.put(&record);
        Ok::<(), RecordError>(())
    });
    copied.map_err(|error| damage(DamageKind::Record(error)))?;
    let Mark { sequence, chain } = held.before;
    let header = BatchHeader { sequence: held.mark.sequence, durable_through: sequence, before: chain };
    let chain = builder.finish(place, &header);
    Ok(Mark { sequence: held.mark.sequence, chain })
}

/// Records where each segment ends, and takes out those that hold no batch.
fn record<E: Env>(file: &mut ManifestFile<E>, walk: &Walk<'_>, config: &LaneConfig) {
    file.manifest.segments.retain(|segment| walk.ends.contains_key(&segment.id));
    #[cfg(debug_assertions)]
    if config.has(PlantedBug::CutNotRecorded) {
        return;
    }
    let _ = config;
    for (id, end) in &walk.ends {
        file.manifest.record_end(*id, *end);
    }
}

/// The files of segments and tables that the manifest does not name.
fn unnamed_files<E: Env>(dir: &Path, file: &ManifestFile<E>, names: &[String]) -> Vec<PathBuf> {
    let manifest = &file.manifest;
    let segments: BTreeSet<String> =
        manifest.segments.iter().map(|segment| segment_name(segment.id)).collect();
    let tables: BTreeSet<String> =
        manifest.tables.iter().map(|(shard, table)| table_name(*shard, table.generation)).collect();
    let is_ours = |name: &str| segment_of_name(name).is_some() || table_of_name(name).is_some();
    let is_named = |name: &str| segments.contains(name) || tables.contains(name);
    names.iter().filter(|name| is_ours(name) && !is_named(name)).map(|name| dir.join(name)).collect()
}

/// Removes the files that the manifest does not name. To be done only where its copies are whole and agree.
async fn remove_all<E: Env>(env: &E, dir: &Path, unnamed: &[PathBuf]) -> Result<(), OpenError> {
    for path in unnamed {
        env.remove(path).await.map_err(|source| LogFailure::new(Doing::RemoveSegment, path, source))?;
    }
    if !unnamed.is_empty() {
        env.sync_dir(dir).await.map_err(|source| LogFailure::new(Doing::RemoveSegment, dir, source))?;
    }
    Ok(())
}

fn facts(walk: &Walk<'_>, cut: Option<Cut>, manifest: TwinReport) -> Recovery {
    let shards = walk.index.shards().map(|(shard, index)| {
        let recovered = RecoveredShard {
            hard_state: index.hard_state(),
            terms: index.terms(),
            released: index.released(),
            standing: index.standing(),
            first_index: index.first(),
            last_index: index.last(),
        };
        (shard, recovered)
    });
    Recovery {
        shards: shards.collect(),
        tables: BTreeMap::new(),
        doubted: BTreeSet::new(),
        cut,
        carried: None,
        segments: walk.ends.len(),
        bytes: walk.bytes,
        batches: walk.batches,
        manifest,
        damages: walk.damages.clone(),
        survivors: Vec::new(),
        kept: Vec::new(),
        removed: Vec::new(),
    }
}

fn segment_states<E: Env>(file: &ManifestFile<E>, walk: &Walk<'_>) -> BTreeMap<SegmentId, SegmentState> {
    let states = file.manifest.segments.iter().map(|meta| {
        let end = walk.ends.get(&meta.id).copied();
        let filled = if end.is_some() { FilledBy::Another } else { FilledBy::ThisProcess };
        (meta.id, SegmentState { salt: meta.salt, bytes: meta.bytes, end, readers: 0, filled })
    });
    states.collect()
}

fn tails(index: &LaneIndex) -> BTreeMap<ShardId, Tail> {
    let tails = index.shards().map(|(shard, index)| {
        let tail = Tail {
            last: index.last(),
            hard_state: index.hard_state(),
            released: index.released(),
            standing: index.standing(),
        };
        (shard, tail)
    });
    tails.collect()
}
