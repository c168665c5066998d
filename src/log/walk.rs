//! Recovery's one pass over the segments: it finds where each of them ends, and tells a tear from damage.
//!
//! ```text
//!  batch at the position ── valid, in its place ──► next position
//!        │ not valid
//!        ├─ a recorded end lies past it ───────────────────────────► damage
//!        ├─ a valid batch in the rest of the lane knew it durable ─► damage
//!        ├─ the next segment begins with the expected batch ───────► the segment ended here
//!        └─ none ────────────────────────────────────────► end of the log: what is there is torn, or nothing
//! ```
//!
//! The last batch is *held*: no later one covers it, so its write may still be in flight, from a process that
//! is gone. It counts for where the log ends, but is not in the index yet; recovery writes it again
//! elsewhere.
//!
//! Invariants: it writes nothing but syncs; a whole batch in a place that is not its own is damage, since no
//! tear makes one; of the data only the held batch is in memory.
//!
//! It deliberately does not change the manifest and makes no choice that a second pass could not make again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::env::Env;

use super::batch::{Batch, FORMAT, NotABatch, Place, SegmentId};
use super::error::{Damage, DamageKind, OpenError};
use super::index::{LaneIndex, Notes, Position};
use super::lane::LaneConfig;
use super::manifest::{Manifest, Mark, SegmentMeta};
#[cfg(debug_assertions)]
use super::planted::PlantedBug;
use super::record::RecordError;
use super::recovery::Cut;
use super::scan::SegmentScan;
use super::segment::{SEGMENT_DATA_AT, segment_name};

/// A position at which the expected batch is not: an end, a tear or damage.
struct Failing {
    file: PathBuf,
    offset: u64,
    found: NotABatch,
}

/// The last batch so far.
pub(super) struct Held {
    /// The batch before it.
    pub before: Mark,
    /// Itself.
    pub mark: Mark,
    /// Where it is.
    pub at: Position,
    /// What it holds.
    pub notes: Notes,
    /// What its checksum is seeded with.
    pub place: Place,
    /// Its bytes, padding included.
    pub bytes: Vec<u8>,
    /// Whether it holds any record.
    pub is_seal: bool,
}

/// What the pass knows so far.
pub(super) struct Walk<'a> {
    #[cfg_attr(not(debug_assertions), allow(dead_code, reason = "only planted mistakes ask it"))]
    config: &'a LaneConfig,
    pub index: LaneIndex,
    /// The last batch, held or not.
    pub last: Mark,
    /// The last batch of each segment, those that are held left out.
    pub ends: BTreeMap<SegmentId, Mark>,
    pub held: Option<Held>,
    failing: Option<Failing>,
    pub batches: u64,
    pub bytes: u64,
    spare: Notes,
}

/// Reads every segment, and makes durable what was read.
pub(super) async fn walk<'a, E: Env>(
    env: &E,
    dir: &Path,
    config: &'a LaneConfig,
    manifest: &Manifest,
) -> Result<Walk<'a>, OpenError> {
    let mut walk = Walk::new(config, manifest.start);
    for meta in &manifest.segments {
        let path = dir.join(segment_name(meta.id));
        let place = manifest.place(meta);
        let mut scan = SegmentScan::open(env, &path, place, meta).await?;
        walk.segment(&mut scan, meta, place).await?;
        let is_durable = meta.end.is_some();
        #[cfg(debug_assertions)]
        let is_durable = is_durable || config.has(PlantedBug::RecoveryActsOnUnsynced);
        if !is_durable {
            scan.sync().await?;
        }
        scan.close().await?;
    }
    #[cfg(debug_assertions)]
    if let Some(cut) = walk.cut().filter(|_| config.has(PlantedBug::TornTailMisread)) {
        let kind = DamageKind::Unreadable { found: cut.found };
        return Err(Damage { file: cut.file, offset: cut.offset, kind }.into());
    }
    Ok(walk)
}

impl<'a> Walk<'a> {
    fn new(config: &'a LaneConfig, start: Mark) -> Self {
        Self {
            config,
            index: LaneIndex::default(),
            last: start,
            ends: BTreeMap::new(),
            held: None,
            failing: None,
            batches: 0,
            bytes: 0,
            spare: Notes::default(),
        }
    }

    /// The torn tail, where there is one: something of a batch, but not all of it.
    pub fn cut(&self) -> Option<Cut> {
        let Failing { file, offset, found } = self.failing.as_ref()?;
        let is_torn = !matches!(found, NotABatch::Magic | NotABatch::Foreign);
        let sequence = self.last.sequence.next();
        is_torn.then(|| Cut { file: file.clone(), offset: *offset, sequence, found: *found })
    }

    /// Puts the held batch where it was found: a later one, or a recorded end, covers it.
    pub fn settle(&mut self) {
        if let Some(held) = self.held.take() {
            self.index.apply(held.at, &held.notes);
            self.ends.insert(held.at.segment, held.mark);
            self.spare = held.notes;
        }
    }

    async fn segment<E: Env>(
        &mut self,
        scan: &mut SegmentScan<E>,
        meta: &SegmentMeta,
        place: Place,
    ) -> Result<(), OpenError> {
        if !self.begins_here(scan, meta).await? {
            return Ok(());
        }
        let mut offset = SEGMENT_DATA_AT;
        while meta.end.is_none_or(|end| self.last.sequence < end.sequence) {
            let path = scan.path().to_path_buf();
            match scan.batch_at(offset).await? {
                Ok((batch, bytes)) => {
                    self.take(&path, place, offset, &batch, bytes)?;
                    offset += batch.bytes() as u64;
                }
                Err(NotABatch::Format(found)) => {
                    return Err(OpenError::Format { file: path, found, known: FORMAT });
                }
                Err(found) => return self.fails_at(scan, meta, offset, found).await,
            }
        }
        self.settle();
        let has_end = meta.end.is_none_or(|end| end == self.last);
        unless(has_end, scan.path(), offset, DamageKind::Chain { sequence: self.last.sequence })
    }

    /// Whether the log goes on in this segment. It always does, unless the one before failed at some
    /// position: then it does where the first batch follows on, and proves damage where it does not and yet
    /// knew that position durable.
    async fn begins_here<E: Env>(
        &mut self,
        scan: &mut SegmentScan<E>,
        meta: &SegmentMeta,
    ) -> Result<bool, OpenError> {
        let Some(failing) = &self.failing else { return Ok(true) };
        let sequence = self.last.sequence.next();
        let damage = |covered_by| {
            let kind = DamageKind::Batch { sequence, covered_by, found: failing.found };
            OpenError::Damaged(Damage { file: failing.file.clone(), offset: failing.offset, kind })
        };
        let path = scan.path().to_path_buf();
        if let Ok((batch, _)) = scan.batch_at(SEGMENT_DATA_AT).await? {
            if batch.header.sequence == sequence {
                self.failing = None;
                return Ok(true);
            }
            let kind = DamageKind::OutOfOrder { expected: sequence, found: batch.header.sequence };
            unless(batch.header.durable_through >= sequence, &path, SEGMENT_DATA_AT, kind)?;
        }
        if self.cuts_damage() {
            return Ok(false);
        }
        if let Some((_, covered_by)) = scan.covering(SEGMENT_DATA_AT, sequence).await? {
            return Err(damage(covered_by));
        }
        match meta.end {
            Some(end) => Err(damage(end.sequence)),
            None => Ok(false),
        }
    }

    async fn fails_at<E: Env>(
        &mut self,
        scan: &mut SegmentScan<E>,
        meta: &SegmentMeta,
        offset: u64,
        found: NotABatch,
    ) -> Result<(), OpenError> {
        let sequence = self.last.sequence.next();
        let file = scan.path().to_path_buf();
        if !self.cuts_damage() {
            let damage = |kind| OpenError::Damaged(Damage { file: file.clone(), offset, kind });
            if let Some(end) = meta.end {
                return Err(damage(DamageKind::BeforeEnd { sequence, end: end.sequence, found }));
            }
            if let Some((_, covered_by)) = scan.covering(offset, sequence).await? {
                return Err(damage(DamageKind::Batch { sequence, covered_by, found }));
            }
        }
        self.failing = Some(Failing { file, offset, found });
        Ok(())
    }

    fn take(
        &mut self,
        path: &Path,
        place: Place,
        offset: u64,
        batch: &Batch<'_>,
        bytes: &[u8],
    ) -> Result<(), OpenError> {
        let expected = self.last.sequence.next();
        let sequence = batch.header.sequence;
        unless(sequence == expected, path, offset, DamageKind::OutOfOrder { expected, found: sequence })?;
        let follows = batch.header.before == self.last.chain || self.ignores_chain();
        unless(follows, path, offset, DamageKind::Chain { sequence })?;
        let mut kept = self.held.as_mut().map(|held| std::mem::take(&mut held.bytes)).unwrap_or_default();
        self.settle();

        let mut notes = std::mem::take(&mut self.spare);
        notes.clear();
        let read = batch.each_record(|record| {
            notes.add(&record);
            Ok::<(), RecordError>(())
        });
        read.map_err(|error| Damage { file: path.to_path_buf(), offset, kind: DamageKind::Record(error) })?;
        kept.clear();
        kept.extend_from_slice(bytes);
        let len = u32::try_from(bytes.len()).expect("a batch is no longer than BATCH_BYTES_LIMIT");
        let (before, mark) = (self.last, Mark { sequence, chain: batch.chain });
        let at = Position { segment: place.segment, offset, bytes: len };
        self.held = Some(Held { before, mark, at, notes, place, bytes: kept, is_seal: batch.count == 0 });
        self.last = mark;
        self.batches += 1;
        self.bytes += u64::from(len);
        Ok(())
    }

    fn cuts_damage(&self) -> bool {
        #[cfg(debug_assertions)]
        return self.config.has(PlantedBug::DamageCut);
        #[cfg(not(debug_assertions))]
        false
    }

    fn ignores_chain(&self) -> bool {
        #[cfg(debug_assertions)]
        return self.config.has(PlantedBug::ChainIgnored);
        #[cfg(not(debug_assertions))]
        false
    }
}

fn unless(is_right: bool, path: &Path, offset: u64, kind: DamageKind) -> Result<(), OpenError> {
    if is_right { Ok(()) } else { Err(Damage { file: path.to_path_buf(), offset, kind }.into()) }
}
