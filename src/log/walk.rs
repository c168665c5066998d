//! Recovery's one pass over the segments: it finds where each of them ends, and tells a tear from damage.
//!
//! ```text
//!  batch at the position ── valid, in its place ──► next position
//!        │ not valid
//!        ├─ a recorded end lies past it ───────────────────────────► damage
//!        ├─ a valid batch in the rest of the lane knew it durable ─► damage
//!        ├─ the next segment begins with the expected batch ───────► the segment ended here
//!        ├─ something cannot be read that may have been either ────► damage
//!        └─ none ────────────────────────────────────────► end of the log: what is there is torn, or nothing
//!
//!  damage ─┬─ nobody has what was lost ─► the start stops
//!          └─ peers have it ────────────► the next valid batch that comes later, as far away as it may be
//! ```
//!
//! Gone round, damage is a hole of which nothing is known but that it is there: the index is told, and makes
//! what it can of what lies behind (`index::missing`).
//!
//! A block that cannot be read is no tear and no proof, but a *doubt*: it may have been the batch that is
//! expected, or one that knew it. What settles it is a proof, or the next segment where it begins with the
//! expected batch; else the log ends in damage. Only where nothing was ever written to the place itself (it
//! is zeros still) does what cannot be read behind it say nothing: no batch is there, so none follows. A bad
//! sector there costs nobody anything. In a segment that is used again an earlier use has left what is no
//! zeros: a bad sector behind the end is a doubt like any other.
//!
//! The last batch is *held*: no later one covers it, so its write may still be in flight, from a process that
//! is gone. It counts for where the log ends, but is not in the index yet; recovery writes it again
//! elsewhere. Where the log ends in doubt the hole begins behind it, and after that.
//!
//! Invariants: it writes nothing but syncs; a whole batch in a place that is not its own is damage, since no
//! tear makes one; nothing is cut that cannot be read; of the data only the held batch is in memory.
//!
//! It deliberately does not change the manifest and makes no choice that a second pass could not make again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::env::{BLOCK_BYTES, Env};

use super::batch::{Batch, BatchSequence, FORMAT, NotABatch, Place, SegmentId};
use super::error::{Damage, DamageKind, OpenError};
use super::index::{LaneIndex, Notes, Position};
use super::lane::{LaneConfig, OnDamage};
use super::manifest::{Manifest, Mark, SegmentMeta};
#[cfg(debug_assertions)]
use super::planted::PlantedBug;
use super::record::RecordError;
use super::recovery::Cut;
use super::scan::{NoBatch, SegmentScan};
use super::segment::{SEGMENT_DATA_AT, segment_name};

/// A position at which the expected batch is not: an end, a tear or damage.
struct Failing {
    segment: SegmentId,
    file: PathBuf,
    offset: u64,
    found: NoBatch,
    /// Whether nothing was ever written where the batch should be.
    is_blank: bool,
    /// The segment of a block that cannot be read and may have been the batch, or one that knew it; and that
    /// block.
    doubt: Option<(SegmentId, Damage)>,
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
    config: &'a LaneConfig,
    pub index: LaneIndex,
    /// The last batch, held or not.
    pub last: Mark,
    /// The last batch of each segment, those that are held left out.
    pub ends: BTreeMap<SegmentId, Mark>,
    pub held: Option<Held>,
    failing: Option<Failing>,
    /// What was gone round.
    pub damages: Vec<Damage>,
    /// The segments that it is in.
    pub damaged: BTreeSet<SegmentId>,
    /// Behind a hole: the next batch may be any later one.
    is_adrift: bool,
    /// The log ends in a hole, which begins behind the held batch.
    ends_in_hole: bool,
    /// The segment before this one, where its end is not recorded.
    without_end: Option<SegmentId>,
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
        let (scan, damage) = SegmentScan::open(env, &path, place, meta).await?;
        let is_length = |damage: &Damage| matches!(damage.kind, DamageKind::SegmentLength { .. });
        let is_short = damage.as_ref().is_some_and(is_length);
        match (scan, damage) {
            (Some(mut scan), damage) => {
                if let Some(damage) = damage {
                    walk.note_damage(meta.id, damage)?;
                }
                walk.segment(&mut scan, meta, place).await?;
                let is_durable = meta.end.is_some();
                #[cfg(debug_assertions)]
                let is_durable = is_durable || config.has(PlantedBug::RecoveryActsOnUnsynced);
                if !is_durable {
                    scan.sync().await?;
                }
                scan.close().await?;
            }
            (None, Some(damage)) => {
                walk.lose(meta.id, damage)?;
                walk.last = meta.end.unwrap_or(walk.last);
            }
            (None, None) => {}
        }
        walk.end_segment(meta, is_short);
    }
    walk.end()?;
    walk.keep_damaged(manifest);
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
            damages: Vec::new(),
            damaged: BTreeSet::new(),
            is_adrift: false,
            ends_in_hole: false,
            without_end: None,
            batches: 0,
            bytes: 0,
            spare: Notes::default(),
        }
    }

    /// The torn tail, where there is one: something of a batch, but not all of it.
    pub fn cut(&self) -> Option<Cut> {
        let Failing { file, offset, found: NoBatch::Not(found), .. } = self.failing.as_ref()? else {
            return None;
        };
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

    /// Takes note of damage that hides no batch, or stops.
    fn note_damage(&mut self, segment: SegmentId, damage: Damage) -> Result<(), OpenError> {
        match &self.config.damage {
            OnDamage::Stop => Err(damage.into()),
            OnDamage::Lose(_) => {
                self.damages.push(damage);
                self.damaged.insert(segment);
                Ok(())
            }
        }
    }

    /// Goes round damage that hides batches, or stops: nothing is known of the log from here to the next
    /// batch that is found.
    fn lose(&mut self, segment: SegmentId, damage: Damage) -> Result<(), OpenError> {
        self.note_damage(segment, damage)?;
        self.begin_hole();
        Ok(())
    }

    fn begin_hole(&mut self) {
        self.settle();
        if let OnDamage::Lose(shards) = &self.config.damage {
            self.index.begin_missing(shards.iter().copied());
        }
        self.is_adrift = true;
        if let Some(Failing { segment, doubt: Some((of, damage)), .. }) = self.failing.take() {
            self.damages.push(damage);
            self.damaged.extend([segment, of]);
        }
    }

    /// Goes round a position at which a batch was once.
    fn lose_failing(&mut self, mut failing: Failing, covered_by: BatchSequence) -> Result<(), OpenError> {
        let sequence = self.last.sequence.next();
        let (segment, file, offset) = (failing.segment, failing.file.clone(), failing.offset);
        let damage = match failing.found {
            NoBatch::Not(found) => {
                Damage { file, offset, kind: DamageKind::Batch { sequence, covered_by, found } }
            }
            NoBatch::Bad(bad) => {
                failing.doubt = None;
                bad.damage(file)
            }
        };
        self.failing = Some(failing);
        self.lose(segment, damage)?;
        self.ends.entry(segment).or_insert(self.last);
        Ok(())
    }

    /// The end of the log: where something cannot be read there, it is damage. The hole begins only when the
    /// held batch is carried.
    fn end(&mut self) -> Result<(), OpenError> {
        let cuts_damage = self.cuts_damage();
        let failing = self.failing.take_if(|failing| failing.doubt.is_some() && !cuts_damage);
        if let Some(Failing { segment, doubt: Some((of, damage)), .. }) = failing {
            self.note_damage(of, damage)?;
            self.damaged.insert(segment);
            self.ends_in_hole = true;
        }
        Ok(())
    }

    /// Begins the hole in which the log ends, where it does. The held batch is carried by then.
    pub fn begin_last_hole(&mut self) {
        if self.ends_in_hole {
            self.begin_hole();
        }
    }

    /// A segment that is shorter than it was made may have held more than was found.
    fn end_segment(&mut self, meta: &SegmentMeta, is_short: bool) {
        if is_short && self.failing.as_ref().is_some_and(|failing| failing.segment == meta.id) {
            self.begin_hole();
        }
        self.without_end = Some(meta.id).filter(|_| meta.end.is_none());
    }

    /// A segment with damage in it stays in the manifest, whatever was found of it: one without a batch ends
    /// where the one before it does.
    fn keep_damaged(&mut self, manifest: &Manifest) {
        let mut last = manifest.start;
        for meta in &manifest.segments {
            if self.damaged.contains(&meta.id) {
                let found = self.ends.get(&meta.id).copied().unwrap_or(last);
                self.ends.insert(meta.id, meta.end.unwrap_or(found));
            }
            last = self.ends.get(&meta.id).copied().unwrap_or(last);
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
            #[cfg(debug_assertions)]
            if self.config.has(PlantedBug::StaleBatchAccepted) {
                scan.claim(offset).await?;
            }
            match scan.batch_at(offset).await? {
                Ok((batch, bytes)) => {
                    self.take(&path, place, offset, &batch, bytes)?;
                    offset += batch.bytes() as u64;
                }
                Err(NoBatch::Not(NotABatch::Format(found))) => {
                    return Err(OpenError::Format { file: path, found, known: FORMAT });
                }
                Err(found) => match self.fails_at(scan, meta, offset, found).await? {
                    Some(next) => offset = next,
                    None => return Ok(()),
                },
            }
        }
        self.settle();
        if meta.end.is_some_and(|end| end != self.last) {
            let kind = DamageKind::Chain { sequence: self.last.sequence };
            self.lose(meta.id, Damage { file: scan.path().to_path_buf(), offset, kind })?;
            self.last = meta.end.unwrap_or(self.last);
        }
        Ok(())
    }

    /// Whether the log goes on in this segment. It always does, unless the one before failed at some
    /// position: then it does where the first batch follows on, and proves damage where it does not and yet
    /// knew that position durable.
    async fn begins_here<E: Env>(
        &mut self,
        scan: &mut SegmentScan<E>,
        meta: &SegmentMeta,
    ) -> Result<bool, OpenError> {
        let Some(mut failing) = self.failing.take() else { return Ok(true) };
        let sequence = self.last.sequence.next();
        let path = scan.path().to_path_buf();
        #[cfg(debug_assertions)]
        if self.config.has(PlantedBug::StaleBatchAccepted) {
            scan.claim(SEGMENT_DATA_AT).await?;
            if scan.batch_at(SEGMENT_DATA_AT).await?.is_ok() {
                return Ok(true);
            }
        }
        let first = scan.batch_at(SEGMENT_DATA_AT).await?.map(|(batch, _)| batch.header);
        match first {
            Ok(header) if header.sequence == sequence => return Ok(true),
            Ok(header) if header.durable_through < sequence => {
                let kind = DamageKind::OutOfOrder { expected: sequence, found: header.sequence };
                self.failing = Some(failing);
                self.lose(meta.id, Damage { file: path, offset: SEGMENT_DATA_AT, kind })?;
                return Ok(true);
            }
            Ok(_) | Err(_) => {}
        }
        if self.cuts_damage() {
            self.failing = Some(failing);
            return Ok(false);
        }
        let evidence = scan.evidence(SEGMENT_DATA_AT, sequence).await?;
        let Some(covered_by) = evidence.covered_by.or(meta.end.map(|end| end.sequence)) else {
            failing.is_blank &= scan.is_blank(SEGMENT_DATA_AT).await?;
            if !failing.is_blank && failing.doubt.is_none() && !self.is_adrift {
                failing.doubt = evidence.bad.map(|bad| (meta.id, bad.damage(path)));
            }
            self.failing = Some(failing);
            return Ok(false);
        };
        if let Err(NoBatch::Bad(bad)) = first
            && failing.is_blank
        {
            // Nothing was ever written there: the batch was here.
            self.lose(meta.id, bad.damage(path))?;
            self.ends.entry(failing.segment).or_insert(self.last);
        } else {
            self.lose_failing(failing, covered_by)?;
        }
        Ok(true)
    }

    /// No batch at this position. Where it goes on, if it does in this segment.
    async fn fails_at<E: Env>(
        &mut self,
        scan: &mut SegmentScan<E>,
        meta: &SegmentMeta,
        offset: u64,
        found: NoBatch,
    ) -> Result<Option<u64>, OpenError> {
        let sequence = self.last.sequence.next();
        let file = scan.path().to_path_buf();
        let evidence = scan.evidence(offset, sequence).await?;
        let damage = match (found, meta.end, evidence.covered_by) {
            _ if self.cuts_damage() => None,
            (_, None, None) => None,
            (NoBatch::Bad(bad), _, _) => Some(bad.damage(file.clone())),
            (NoBatch::Not(found), Some(end), _) => {
                let kind = DamageKind::BeforeEnd { sequence, end: end.sequence, found };
                Some(Damage { file: file.clone(), offset, kind })
            }
            (NoBatch::Not(found), None, Some(covered_by)) => {
                let kind = DamageKind::Batch { sequence, covered_by, found };
                Some(Damage { file: file.clone(), offset, kind })
            }
        };
        let Some(damage) = damage else {
            let is_blank = scan.is_blank(offset).await?;
            let doubt = evidence.bad.filter(|_| !is_blank && !self.is_adrift);
            let doubt = doubt.map(|bad| (meta.id, bad.damage(file.clone())));
            self.failing = Some(Failing { segment: meta.id, file, offset, found, is_blank, doubt });
            return Ok(None);
        };
        if !self.is_adrift {
            self.lose(meta.id, damage)?;
        }
        let next = scan.later(offset + BLOCK_BYTES as u64, self.last.sequence).await?;
        if next.is_none() {
            self.last = meta.end.unwrap_or(self.last);
        }
        Ok(next)
    }

    fn take(
        &mut self,
        path: &Path,
        place: Place,
        offset: u64,
        batch: &Batch<'_>,
        bytes: &[u8],
    ) -> Result<(), OpenError> {
        if !self.is_next(path, place, offset, batch)? {
            return Ok(());
        }
        let mut kept = self.held.as_mut().map(|held| std::mem::take(&mut held.bytes)).unwrap_or_default();
        self.settle();

        let mut notes = std::mem::take(&mut self.spare);
        notes.clear();
        let read = batch.each_record(|record| {
            notes.add(&record);
            Ok::<(), RecordError>(())
        });
        let (before, mark) = (self.last, Mark { sequence: self.last.sequence.next(), chain: batch.chain });
        self.last = mark;
        if let Err(error) = read {
            let kind = DamageKind::Record(error);
            return self.lose(place.segment, Damage { file: path.to_path_buf(), offset, kind });
        }
        kept.clear();
        kept.extend_from_slice(bytes);
        let len = u32::try_from(bytes.len()).expect("a batch is no longer than BATCH_BYTES_LIMIT");
        let at = Position { segment: place.segment, offset, bytes: len };
        let place = self.config.place(place, bytes);
        self.held = Some(Held { before, mark, at, notes, place, bytes: kept, is_seal: batch.count == 0 });
        self.is_adrift = false;
        self.batches += 1;
        self.bytes += u64::from(len);
        Ok(())
    }

    /// Whether a batch follows the last one, or is the first one found behind a hole: then the last one is
    /// the one before it from here on. One that does neither proves a hole before it, or does not belong
    /// there.
    fn is_next(
        &mut self,
        path: &Path,
        place: Place,
        offset: u64,
        batch: &Batch<'_>,
    ) -> Result<bool, OpenError> {
        #[cfg(debug_assertions)]
        if self.config.has(PlantedBug::StaleBatchAccepted) {
            return Ok(true);
        }
        let (expected, sequence) = (self.last.sequence.next(), batch.header.sequence);
        let follows = batch.header.before == self.last.chain || self.ignores_chain();
        if sequence == expected && follows {
            return Ok(true);
        }
        let kind = if sequence == expected {
            DamageKind::Chain { sequence }
        } else {
            DamageKind::OutOfOrder { expected, found: sequence }
        };
        if !self.is_adrift || sequence < expected {
            self.lose(place.segment, Damage { file: path.to_path_buf(), offset, kind })?;
        }
        let is_later = sequence >= expected;
        if let Some(before) = sequence.0.checked_sub(1).filter(|_| is_later) {
            self.last = Mark { sequence: BatchSequence(before), chain: batch.header.before };
            // So that this segment follows on when the one before it is gone.
            if let Some(segment) = self.without_end.filter(|_| offset == SEGMENT_DATA_AT) {
                self.ends.insert(segment, self.last);
            }
        }
        Ok(is_later)
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
