//! A lane's manifest: which segments there are, with what salt, and where each of them ends; and the table of
//! each shard that has one. This is what a copy of format version 1 holds; later versions read it.
//!
//! ```text
//! payload:  0      4          8                16            20       24
//!           ├ lane ┼ segments ┼ start sequence ┼ start chain ┼ tables ┼ next segment id 8 ┤
//!           then segments × segment, then tables × table
//! table:    0       4          8            16      24     32      40                48
//!           ├ shard ┼ doubted 4┼ generation ┼ index ┼ term ┼ bytes ┼ footer checksum ┤
//! segment:  0    8      16      24       28          32             40
//!           ├ id ┼ salt ┼ bytes ┼ ended 4┼ end chain ┼ end sequence ┤
//! ```
//!
//! - `start` is the last batch before the oldest segment, and its checksum: the first batch there must follow
//!   it.
//! - `ended` is 1 where the end is recorded: the last batch of the segment, and its checksum. What lies past
//!   it in the file is ignored for ever. 0: the segment ends where the next one begins, or where the lane
//!   does.
//!
//! - A table stands for all entries of its shard up to `index`, of term `term`; `generation` names its file.
//!   It is drawn for this disk: the salt within the file, by which nodes tell tables apart, is another where
//!   the table was fetched. What the checksum of the footer covers is what makes it this table.
//!   `doubted` is 1 where the replicas of a majority held another state than the one that it belongs to, else
//!   0: it is whole, and nobody is answered from it. The next one in its place ends that.
//!
//! Invariants: ids ascend and are all below the next one; a segment or table is entered after it was made
//! durable, and its file is removed or used again after it was taken out. The table of a shard is replaced by
//! one of a later index, or by one of the same index where it was damaged.
//!
//! Pure but for [`ManifestFile`], which keeps it in a [`TwinFile`]. It deliberately knows nothing of what is
//! in a table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::env::{BLOCK_BYTES, Env};
use crate::ids::{Index, LaneId, ShardId, Term};

use super::batch::{BatchSequence, Chain, Place, SegmentId};
use super::codec::Source;
use super::error::{Damage, DamageKind, Disagreement, LogFailure, OpenError};
use super::twin::{Copies, TWIN_BYTES_MAX, TwinFile, TwinKind, TwinReport};

/// The most segments that a lane may have at once.
pub const SEGMENTS_MAX: usize = 65_536;

const FIXED_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 40;
const TABLE_BYTES: usize = 48;

/// The most shards that a lane may have, and so the most tables.
pub const TABLES_MAX: usize = 16_384;

const _: () =
    assert!(FIXED_BYTES + SEGMENTS_MAX * SEGMENT_BYTES + TABLES_MAX * TABLE_BYTES <= TWIN_BYTES_MAX);

const TABLE_NAME_START: &str = "table-";
const TABLE_NAME_END: &str = ".tab";

/// The table of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRef {
    /// Names its file among all that the shard ever had on this disk.
    pub generation: u64,
    /// The last entry that it stands for.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The size of its file.
    pub bytes: u64,
    /// The checksum of its footer, and so of all that the footer covers.
    pub footer_checksum: u64,
}

/// The name of the file of a shard's table.
#[must_use]
pub fn table_name(shard: ShardId, generation: u64) -> String {
    format!("{TABLE_NAME_START}{:05}-{generation:016x}{TABLE_NAME_END}", shard.0)
}

/// The shard and generation of a file's name; `None` where it is no table's.
#[must_use]
pub fn table_of_name(name: &str) -> Option<(ShardId, u64)> {
    let rest = name.strip_prefix(TABLE_NAME_START)?.strip_suffix(TABLE_NAME_END)?;
    let (shard, generation) = rest.split_once('-')?;
    let of = (ShardId(shard.parse().ok()?), u64::from_str_radix(generation, 16).ok()?);
    (table_name(of.0, of.1) == name).then_some(of)
}

/// A place in the sequence of batches: the last one before it, and its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last batch.
    pub sequence: BatchSequence,
    /// Its checksum.
    pub chain: Chain,
}

/// What the manifest says of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Its number.
    pub id: SegmentId,
    /// Its salt.
    pub salt: u64,
    /// The size of its file.
    pub bytes: u64,
    /// Its last batch, where that is recorded.
    pub end: Option<Mark>,
}

/// The manifest of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The lane.
    pub lane: LaneId,
    /// What the first batch of the oldest segment follows.
    pub start: Mark,
    /// Above every id that was ever used.
    pub next_segment: SegmentId,
    /// The segments, oldest first.
    pub segments: Vec<SegmentMeta>,
    /// The shards' tables.
    pub tables: BTreeMap<ShardId, TableRef>,
    /// Those whose tables are not to be trusted.
    pub doubted: BTreeSet<ShardId>,
}

impl Manifest {
    /// The manifest of a new lane.
    #[must_use]
    pub fn new(lane: LaneId) -> Self {
        Self {
            lane,
            start: Mark::default(),
            next_segment: SegmentId(1),
            segments: Vec::new(),
            tables: BTreeMap::new(),
            doubted: BTreeSet::new(),
        }
    }

    /// Where batches of a segment belong.
    #[must_use]
    pub fn place(&self, segment: &SegmentMeta) -> Place {
        Place { lane: self.lane, segment: segment.id, salt: segment.salt }
    }

    /// Takes a number for a new segment; it is not given again, whatever becomes of that one.
    pub fn take_segment_id(&mut self) -> SegmentId {
        let id = self.next_segment;
        self.next_segment = SegmentId(id.0.checked_add(1).expect("segments are counted up one by one"));
        id
    }

    /// Never gives a number up to this one.
    pub fn skip_segment_id(&mut self, id: SegmentId) {
        self.next_segment = self.next_segment.max(SegmentId(id.0.saturating_add(1)));
    }

    /// Enters a segment, the newest.
    pub fn enter(&mut self, segment: SegmentMeta) {
        let newest = self.segments.last().map_or(SegmentId(0), |last| last.id);
        assert!(segment.id > newest && segment.id < self.next_segment, "{segment:?} after {newest}");
        self.segments.push(segment);
    }

    /// Records the end of a segment that has none recorded yet.
    pub fn record_end(&mut self, id: SegmentId, end: Mark) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.id == id) {
            assert!(segment.end.is_none_or(|known| known == end), "{segment:?} ends at {end:?} as well");
            segment.end = Some(end);
        }
    }

    /// Takes out the oldest segment; the one after it begins where that one ended.
    pub fn release_oldest(&mut self, id: SegmentId, end: Mark) {
        assert_eq!(
            self.segments.first().map(|first| first.id),
            Some(id),
            "only the oldest segment is released"
        );
        self.segments.remove(0);
        self.start = end;
    }

    /// Enters a table; the one that it replaces, whose file may go, unless it is the same file.
    pub fn switch_table(&mut self, shard: ShardId, table: TableRef) -> Option<TableRef> {
        let before = self.tables.insert(shard, table);
        self.doubted.remove(&shard);
        let is_later = before.is_none_or(|before| before.index <= table.index);
        assert!(is_later, "shard {shard}: {table:?} replaces {before:?}");
        before.filter(|before| before.generation != table.generation)
    }

    /// Notes that a shard's table is not to be trusted, where it has one.
    pub fn doubt_table(&mut self, shard: ShardId) {
        if self.tables.contains_key(&shard) {
            self.doubted.insert(shard);
        }
    }

    /// The payload of the twin file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = self.segments.len();
        assert!(count <= SEGMENTS_MAX, "{count} segments are above {SEGMENTS_MAX}");
        let count = u32::try_from(count).expect("it was compared with SEGMENTS_MAX");
        assert!(self.tables.len() <= TABLES_MAX, "{} tables are above {TABLES_MAX}", self.tables.len());
        let tables = u32::try_from(self.tables.len()).expect("it was compared with TABLES_MAX");
        let of_segments = self.segments.len() * SEGMENT_BYTES;
        let mut out = Vec::with_capacity(FIXED_BYTES + of_segments + self.tables.len() * TABLE_BYTES);
        out.extend_from_slice(&self.lane.0.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.start.sequence.0.to_le_bytes());
        out.extend_from_slice(&self.start.chain.0.to_le_bytes());
        out.extend_from_slice(&tables.to_le_bytes());
        out.extend_from_slice(&self.next_segment.0.to_le_bytes());
        for segment in &self.segments {
            let end = segment.end.unwrap_or_default();
            out.extend_from_slice(&segment.id.0.to_le_bytes());
            out.extend_from_slice(&segment.salt.to_le_bytes());
            out.extend_from_slice(&segment.bytes.to_le_bytes());
            out.extend_from_slice(&u32::from(segment.end.is_some()).to_le_bytes());
            out.extend_from_slice(&end.chain.0.to_le_bytes());
            out.extend_from_slice(&end.sequence.0.to_le_bytes());
        }
        for (shard, table) in &self.tables {
            out.extend_from_slice(&shard.0.to_le_bytes());
            out.extend_from_slice(&u32::from(self.doubted.contains(shard)).to_le_bytes());
            let TableRef { generation, index, term, bytes, footer_checksum } = *table;
            for field in [generation, index.0, term.0, bytes, footer_checksum] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out
    }

    /// Reads a payload; `None` where it makes no sense.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut source = Source::new(payload);
        let lane = LaneId(source.u32()?);
        let count = source.u32()? as usize;
        let sequence = BatchSequence(source.u64()?);
        let chain = Chain(source.u32()?);
        let tables = source.u32()? as usize;
        let next_segment = SegmentId(source.u64()?);
        let can_go_on = sequence.0 < u64::MAX && (1..u64::MAX).contains(&next_segment.0);
        let is_bounded = count <= SEGMENTS_MAX && tables <= TABLES_MAX && can_go_on;
        if !is_bounded || source.remaining() != count * SEGMENT_BYTES + tables * TABLE_BYTES {
            return None;
        }
        let mut segments: Vec<SegmentMeta> = Vec::with_capacity(count);
        for _ in 0..count {
            let segment = decode_segment(&mut source)?;
            let ascends =
                segments.last().is_none_or(|last| last.id < segment.id) && segment.id < next_segment;
            let whole =
                segment.bytes >= 2 * BLOCK_BYTES as u64 && segment.bytes.is_multiple_of(BLOCK_BYTES as u64);
            if !ascends || !whole {
                return None;
            }
            segments.push(segment);
        }
        let (tables, doubted) = decode_tables(&mut source, tables)?;
        Some(Self { lane, start: Mark { sequence, chain }, next_segment, segments, tables, doubted })
    }
}

/// The tables, and which of them are not to be trusted.
type Tables = (BTreeMap<ShardId, TableRef>, BTreeSet<ShardId>);

fn decode_tables(source: &mut Source<'_>, count: usize) -> Option<Tables> {
    let (mut tables, mut doubted) = (BTreeMap::new(), BTreeSet::new());
    for _ in 0..count {
        let shard = ShardId(source.u32()?);
        let is_doubted = source.u32()?;
        let (generation, index) = (source.u64()?, Index(source.u64()?));
        let (term, bytes, footer_checksum) = (Term(source.u64()?), source.u64()?, source.u64()?);
        let ascends = tables.last_key_value().is_none_or(|(last, _)| *last < shard);
        if !ascends || is_doubted > 1 || index == Index(0) || term == Term(0) || bytes == 0 {
            return None;
        }
        if is_doubted == 1 {
            doubted.insert(shard);
        }
        tables.insert(shard, TableRef { generation, index, term, bytes, footer_checksum });
    }
    Some((tables, doubted))
}

fn decode_segment(source: &mut Source<'_>) -> Option<SegmentMeta> {
    let id = Some(SegmentId(source.u64()?)).filter(|id| *id > SegmentId(0))?;
    let salt = source.u64()?;
    let bytes = source.u64()?;
    let ended = source.u32()?;
    let chain = Chain(source.u32()?);
    let sequence = BatchSequence(source.u64()?);
    let end = match ended {
        0 => None,
        1 if sequence.0 < u64::MAX => Some(Mark { sequence, chain }),
        _ => return None,
    };
    Some(SegmentMeta { id, salt, bytes, end })
}

/// The manifest where it is kept.
#[derive(Debug)]
pub struct ManifestFile<E: Env> {
    /// What both copies say, or will say with the next write.
    pub manifest: Manifest,
    twin: TwinFile<E>,
    copies: Copies,
}

impl<E: Env> ManifestFile<E> {
    /// Reads the manifest of a lane. The manifest of a new lane is empty and not written yet.
    pub async fn open(
        env: E,
        dir: &Path,
        lane: LaneId,
        copies: Copies,
    ) -> Result<(Self, TwinReport), OpenError> {
        let (twin, payload, report) = TwinFile::open(env, dir, (TwinKind::Manifest, copies)).await?;
        let manifest = match payload {
            None => Manifest::new(lane),
            Some(payload) => Manifest::decode(&payload).ok_or_else(|| Damage {
                file: dir.join(TwinKind::Manifest.names()[0]),
                offset: 0,
                kind: DamageKind::Content,
            })?,
        };
        if manifest.lane != lane {
            let what = Disagreement::Lane { kept: manifest.lane, asked: lane };
            return Err(OpenError::Disagrees { dir: dir.to_path_buf(), what });
        }
        Ok((Self { manifest, twin, copies }, report))
    }

    /// Makes the changes to `manifest` take effect: both copies are durable when this returns.
    pub async fn write(&mut self) -> Result<(), LogFailure> {
        self.twin.write(&self.manifest.encode(), self.copies).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let mut manifest = Manifest::new(LaneId(3));
        assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Some(&manifest));
        for salt in [5, u64::MAX] {
            let id = manifest.take_segment_id();
            manifest.enter(SegmentMeta { id, salt, bytes: 8192, end: None });
        }
        manifest.record_end(SegmentId(1), Mark { sequence: BatchSequence(9), chain: Chain(4) });
        for (shard, index) in [(5, 7), (2, 9), (5, 8)] {
            let (index, term) = (Index(index), Term(3));
            let table = TableRef { generation: index.0 << 40, index, term, bytes: 8192, footer_checksum: 6 };
            manifest.switch_table(ShardId(shard), table);
        }
        assert_eq!(manifest.tables.len(), 2);
        [5, 2, 9].into_iter().for_each(|shard| manifest.doubt_table(ShardId(shard)));
        let table =
            TableRef { generation: 1, index: Index(9), term: Term(3), bytes: 8192, footer_checksum: 7 };
        manifest.switch_table(ShardId(2), table);
        assert_eq!(manifest.doubted, BTreeSet::from([ShardId(5)]));
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).as_ref(), Some(&manifest));
        for len in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn numbers_that_leave_no_next_one_make_no_sense() {
        let last = u64::MAX;
        let mut manifest = Manifest::new(LaneId(3));
        let end = Some(Mark { sequence: BatchSequence(last), chain: Chain(4) });
        manifest.next_segment = SegmentId(2);
        manifest.enter(SegmentMeta { id: SegmentId(1), salt: 5, bytes: 8192, end });
        assert_eq!(Manifest::decode(&manifest.encode()), None);
        for next in [0, last] {
            let manifest = Manifest { next_segment: SegmentId(next), ..Manifest::new(LaneId(3)) };
            assert_eq!(Manifest::decode(&manifest.encode()), None);
        }
        let start = Mark { sequence: BatchSequence(last), chain: Chain(4) };
        assert_eq!(Manifest::decode(&Manifest { start, ..Manifest::new(LaneId(3)) }.encode()), None);
    }

    #[test]
    fn a_table_is_known_by_its_name() {
        let name = table_name(ShardId(7), 0xabc);
        assert_eq!(name, "table-00007-0000000000000abc.tab");
        assert_eq!(table_of_name(&name), Some((ShardId(7), 0xabc)));
        for other in ["table-7-0000000000000abc.tab", "table-00007-0000000000000ABC.tab", "table-00007.tab"] {
            assert_eq!(table_of_name(other), None, "{other}");
        }
    }

    #[test]
    fn ids_ascend_and_are_not_given_twice() {
        let mut manifest = Manifest::new(LaneId(0));
        assert_eq!(manifest.take_segment_id(), SegmentId(1));
        manifest.skip_segment_id(SegmentId(7));
        assert_eq!(manifest.take_segment_id(), SegmentId(8));
    }
}
