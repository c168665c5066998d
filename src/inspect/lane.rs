//! A lane's log as it lies there: which batches are where they belong, which are lost, which are torn.
//!
//! ```text
//!  batch at the position ── in its place ──► next position
//!        │ not
//!        └─► block by block ─┬─ a batch that knew it durable ─► lost; goes on behind that one
//!                            ├─ a recorded end past it ───────► lost; goes on behind that end
//!                            ├─ the next segment begins with it ► the segment ended here
//!                            └─ nothing ──────────────────────► the end of the log, torn or clean
//! ```
//!
//! What cannot be read on the way is damage, unless nothing was ever written where the log would have gone
//! on, or the next segment goes on with it: then it is a note.
//!
//! Invariants: the same positions are damage here that are damage to a start; what follows damage is read all
//! the same.

use std::io;

use crate::env::BLOCK_BYTES;
use crate::ids::{Index, ShardId};
use crate::log::batch::{Batch, BatchSequence, FORMAT, NotABatch};
use crate::log::index::{LaneIndex, Notes, Position};
use crate::log::manifest::{Manifest, Mark, SegmentMeta};
use crate::log::record::RecordError;
use crate::log::segment::{SEGMENT_DATA_AT, is_segment_header, segment_name};

use super::files::Files;
use super::finding::{BatchFault, Finding, Proof, Severity, What};
use super::segment::SegmentReader;
use super::twins::join;

/// What a lane's log holds.
#[derive(Debug, Default)]
pub(super) struct LaneLog {
    /// Where the entries of each shard lie.
    pub(super) index: LaneIndex,
    /// Batches that are where they belong.
    pub(super) batches: u64,
    /// Their records.
    pub(super) records: u64,
}

/// A position at which the expected batch is not.
struct Failing {
    file: String,
    offset: u64,
    found: NotABatch,
    /// Whether nothing was ever written there, nor to the first place of the segments behind it.
    is_blank: bool,
    /// What cannot be read, from there on.
    unread: Vec<Unread>,
}

/// Blocks in a row that cannot be read.
struct Unread {
    file: String,
    offset: u64,
    end: u64,
    error: io::Error,
}

struct Walk<'a, F: Files> {
    files: &'a F,
    /// The shards of the lane: a batch that cannot be read may be any of theirs.
    shards: &'a [ShardId],
    findings: &'a mut Vec<Finding>,
    log: LaneLog,
    last: Mark,
    /// Whether the checksum of the last batch is known: behind lost ones it is not.
    is_chained: bool,
    failing: Option<Failing>,
    notes: Notes,
}

/// Reads all segments of a lane; what is wrong with them is added to the findings.
pub(super) fn read_log<F: Files>(
    files: &F,
    (dir, manifest): (&str, &Manifest),
    shards: &[ShardId],
    findings: &mut Vec<Finding>,
) -> LaneLog {
    let mut walk = Walk {
        files,
        shards,
        findings,
        log: LaneLog::default(),
        last: manifest.start,
        is_chained: true,
        failing: None,
        notes: Notes::default(),
    };
    for meta in &manifest.segments {
        walk.segment(&join(dir, &segment_name(meta.id)), manifest, meta);
    }
    walk.end(dir)
}

impl<F: Files> Walk<'_, F> {
    fn segment(&mut self, file: &str, manifest: &Manifest, meta: &SegmentMeta) {
        let place = manifest.place(meta);
        let bytes = match self.files.len(file) {
            Ok(found) if found != meta.bytes => {
                self.add(file, 0, What::Length { expected: meta.bytes, found });
                found.min(meta.bytes)
            }
            Ok(_) => meta.bytes,
            Err(error) => {
                self.unreadable(file, 0, error);
                0
            }
        };
        let mut reader = SegmentReader::new(self.files, file, place, bytes);
        match reader.block(0) {
            Ok([]) => {}
            Ok(header) if !is_segment_header(header, &place, meta.bytes) => {
                self.add(file, 0, What::SegmentHeader);
            }
            Ok(_) => {}
            // Whoever asked for the length has said so.
            Err(_) if bytes == 0 => {}
            Err(error) => self.unreadable(file, 0, error),
        }
        let at = self.batches(&mut reader, (file, bytes), meta);
        match meta.end {
            Some(end) => self.recorded_end((file, at), end),
            None => self.fail((file, at), NotABatch::Magic, true),
        }
    }

    /// Goes through the blocks of a segment, up to its recorded end. Where it stopped.
    fn batches(
        &mut self,
        reader: &mut SegmentReader<'_, F>,
        (file, bytes): (&str, u64),
        meta: &SegmentMeta,
    ) -> u64 {
        let mut offset = SEGMENT_DATA_AT;
        while meta.end.is_none_or(|end| self.last.sequence < end.sequence) {
            if offset + BLOCK_BYTES as u64 > bytes {
                break;
            }
            match reader.batch_at(offset) {
                Ok(Ok((batch, whole))) => {
                    let (segment, len) = (meta.id, batch.bytes() as u64);
                    let bytes = u32::try_from(len).expect("a batch is no longer than BATCH_BYTES_LIMIT");
                    if self.belongs(file, offset, &batch) {
                        self.take(file, Position { segment, offset, bytes }, &batch);
                        self.look_at_padding((file, offset), &batch, whole);
                    } else if self.failing.is_some() {
                        // It is looked for block by block: what is no proof is no step either.
                        offset += BLOCK_BYTES as u64;
                        continue;
                    }
                    offset += len;
                }
                Ok(Err(NotABatch::Format(found))) => {
                    self.add_as(Severity::Fatal, (file, offset), What::Format { found, known: FORMAT });
                    self.fail((file, offset), NotABatch::Format(found), false);
                    break;
                }
                Ok(Err(found)) => {
                    let is_place = self.failing.is_none() || offset == SEGMENT_DATA_AT;
                    self.fail((file, offset), found, is_place && reader.is_blank(offset));
                    offset += BLOCK_BYTES as u64;
                }
                Err(error) => {
                    self.cannot_read((file, offset), error);
                    offset += BLOCK_BYTES as u64;
                }
            }
        }
        offset
    }

    /// Whether the log goes on with this batch. What it proves, and what is wrong with its place, is said.
    fn belongs(&mut self, file: &str, offset: u64, batch: &Batch<'_>) -> bool {
        let expected = self.expected();
        let found = batch.header.sequence;
        let begins_segment = offset == SEGMENT_DATA_AT;
        let other = What::Batch(BatchFault::Other { expected, found });
        match self.failing.take() {
            None if found == expected => true,
            None => {
                self.add(file, offset, other);
                self.goes_on_behind(found)
            }
            Some(failing) if found == expected && begins_segment => {
                self.add_unread(failing.unread, Severity::Note);
                true
            }
            Some(mut failing) if batch.header.durable_through >= expected => {
                let last = BatchSequence(found.0.saturating_sub(1).max(expected.0));
                self.add_unread(std::mem::take(&mut failing.unread), Severity::Peers);
                self.add_lost(&failing, (expected, last), Proof::Batch(found));
                self.goes_on_behind(found)
            }
            Some(failing) if begins_segment => {
                self.add(file, offset, other);
                self.failing = Some(failing);
                false
            }
            Some(failing) => {
                self.failing = Some(failing);
                false
            }
        }
    }

    /// Skips to a batch; nothing is known of the one before it. Not back to an earlier one.
    fn goes_on_behind(&mut self, found: BatchSequence) -> bool {
        self.is_chained = false;
        found > self.last.sequence
    }

    fn take(&mut self, file: &str, at: Position, batch: &Batch<'_>) {
        let sequence = batch.header.sequence;
        if self.is_chained && batch.header.before != self.last.chain {
            self.add(file, at.offset, What::Batch(BatchFault::Chain { sequence }));
        }
        self.notes.clear();
        let mut records = 0;
        let notes = &mut self.notes;
        let read = batch.each_record(|record| {
            records += 1;
            notes.add(&record);
            Ok::<(), RecordError>(())
        });
        self.log.index.apply(at, &self.notes);
        self.log.batches += 1;
        self.log.records += records;
        self.last = Mark { sequence, chain: batch.chain };
        self.is_chained = true;
        if let Err(error) = read {
            self.add(file, at.offset, What::Batch(BatchFault::Record { sequence, error }));
        }
    }

    /// Nothing reads the padding of a batch; that it is not as it was written may be worth a word.
    fn look_at_padding(&mut self, (file, offset): (&str, u64), batch: &Batch<'_>, whole: &[u8]) {
        let used = batch.used_bytes();
        let padding = whole.get(used..).unwrap_or_default();
        if let Some(at) = padding.iter().position(|byte| *byte != 0) {
            let what = What::Batch(BatchFault::Padding { sequence: batch.header.sequence });
            self.note(file, offset + (used + at) as u64, what);
        }
    }

    /// The manifest says where a segment ends: what is not there up to that is lost.
    fn recorded_end(&mut self, (file, offset): (&str, u64), end: Mark) {
        let expected = self.expected();
        if self.last.sequence < end.sequence {
            self.fail((file, offset), NotABatch::Magic, false);
            if let Some(mut failing) = self.failing.take() {
                self.add_unread(std::mem::take(&mut failing.unread), Severity::Peers);
                self.add_lost(&failing, (expected, end.sequence), Proof::End(end.sequence));
            }
        } else if self.last.sequence == end.sequence && self.last.chain != end.chain {
            self.add(file, offset, What::Batch(BatchFault::Chain { sequence: end.sequence }));
        } else if self.last.sequence > end.sequence {
            // The manifest contradicts itself.
            self.add(file, offset, What::Batch(BatchFault::Other { expected, found: end.sequence }));
        }
        if self.last.sequence <= end.sequence {
            self.last = end;
            self.is_chained = true;
        }
    }

    /// Notes where the expected batch is not, where it was not looked for before, and whether nothing was
    /// ever written there.
    fn fail(&mut self, (file, offset): (&str, u64), found: NotABatch, is_blank: bool) {
        let file = file.to_owned();
        let first = Failing { file, offset, found, is_blank, unread: Vec::new() };
        let failing = self.failing.get_or_insert(first);
        // The log may as well go on at the beginning of a segment.
        failing.is_blank &= is_blank || offset != SEGMENT_DATA_AT;
    }

    /// Notes a block that cannot be read: it may be where the expected batch is, or a proof of it.
    fn cannot_read(&mut self, (file, offset): (&str, u64), error: io::Error) {
        self.fail((file, offset), NotABatch::Magic, false);
        let Some(failing) = &mut self.failing else { return };
        let end = offset + BLOCK_BYTES as u64;
        match failing.unread.last_mut().filter(|last| last.end == offset && last.file == file) {
            Some(last) => last.end = end,
            None => failing.unread.push(Unread { file: file.to_owned(), offset, end, error }),
        }
    }

    /// The end of the log: a torn tail, and the entries that are missing of what is left.
    fn end(mut self, dir: &str) -> LaneLog {
        let sequence = self.expected();
        if let Some(Failing { file, offset, found, is_blank, unread }) = self.failing.take() {
            let is_clean = matches!(found, NotABatch::Magic | NotABatch::Foreign);
            if !is_clean && unread.is_empty() {
                self.note(&file, offset, What::Batch(BatchFault::Torn { sequence, found }));
            }
            self.add_unread(unread, if is_blank { Severity::Note } else { Severity::Peers });
        }
        for (shard, index) in self.log.index.shards() {
            let after = index.released().map_or(Index(0), |(index, _)| index);
            let first = index.first();
            if first.0 > after.0.saturating_add(1) {
                let what = What::Hole { first: Index(after.0 + 1), last: Index(first.0 - 1) };
                let (severity, file, shards) = (Severity::Peers, dir.to_owned(), vec![shard]);
                self.findings.push(Finding { severity, file, offset: 0, shards, what });
            }
        }
        self.log
    }

    /// The number of the next batch. A damaged manifest may leave none.
    fn expected(&self) -> BatchSequence {
        BatchSequence(self.last.sequence.0.saturating_add(1))
    }

    fn unreadable(&mut self, file: &str, offset: u64, error: io::Error) {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        self.add(file, offset, if is_missing { What::Missing } else { What::Unreadable(error) });
    }

    fn add_unread(&mut self, unread: Vec<Unread>, severity: Severity) {
        for Unread { file, offset, error, .. } in unread {
            match severity {
                Severity::Note => self.note(&file, offset, What::Unreadable(error)),
                Severity::Copy | Severity::Peers | Severity::Fatal => self.unreadable(&file, offset, error),
            }
        }
    }

    fn add_lost(&mut self, at: &Failing, (first, last): (BatchSequence, BatchSequence), proof: Proof) {
        let what = What::Batch(BatchFault::Lost { first, last, found: at.found, proof });
        self.add(&at.file, at.offset, what);
    }

    /// Notes what is nobody's loss.
    fn note(&mut self, file: &str, offset: u64, what: What) {
        let (severity, file, shards) = (Severity::Note, file.to_owned(), Vec::new());
        self.findings.push(Finding { severity, file, offset, shards, what });
    }

    fn add(&mut self, file: &str, offset: u64, what: What) {
        self.add_as(Severity::Peers, (file, offset), what);
    }

    fn add_as(&mut self, severity: Severity, (file, offset): (&str, u64), what: What) {
        let (file, shards) = (file.to_owned(), self.shards.to_vec());
        self.findings.push(Finding { severity, file, offset, shards, what });
    }
}
