//! Reading durable entries back: for followers that are behind, and to rebuild a replica's state when it
//! starts.
//!
//! Invariants:
//! - What is returned was durable, and of one history: a read that was overtaken by a replacement of entries
//!   ends before it, or begins again.
//! - Every batch is checked again whenever it is read from the disk; damage found so is an answer, never a
//!   guess. So is a batch that the disk does not give back.
//! - A segment that is being read is not released.
//!
//! It lives on its lane's core. It deliberately keeps little of what it reads ([`recent`](super::recent)):
//! entries that are asked for often are still in raft's memory.

use std::rc::Rc;

use bytes::Bytes;

use crate::env::{Env, File, OpenMode};
use crate::ids::{Index, ShardId, Term};
use crate::raft::Entry;

use super::batch::{Batch, NotABatch, Place, SegmentId};
use super::error::{Damage, DamageKind, Doing, LogFailure, ReadError};
use super::index::Span;
use super::lane::{Lane, Shared};
use super::medium::{BadBlock, read_twice};
use super::recent::{Asked, BatchAt};
use super::record::{Record, RecordError};
use super::segment::segment_name;

/// How many segments stay open for reading.
const OPEN_FILES_MAX: usize = 8;

/// Keeps a segment from being released.
pub(super) struct Pin<E: Env> {
    shared: Rc<Shared<E>>,
    segment: SegmentId,
}

impl<E: Env> Drop for Pin<E> {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        if let Some(segment) = state.segments.get_mut(&self.segment) {
            assert!(segment.readers > 0, "segment {} has no reader left to go", self.segment);
            segment.readers -= 1;
        }
        self.shared.chores.raise();
    }
}

/// A batch that is being read: who else waits for it hears of it, whatever comes of this.
struct Coming<E: Env> {
    shared: Rc<Shared<E>>,
    at: BatchAt,
    bytes: Option<Rc<Vec<u8>>>,
}

impl<E: Env> Drop for Coming<E> {
    fn drop(&mut self) {
        self.shared.state.borrow_mut().recent.arrived(self.at, self.bytes.as_ref());
    }
}

/// One round of a read: which batch, and at which state of the shard.
struct Round {
    span: Span,
    salt: u64,
    replaced: u64,
}

impl<E: Env> Lane<E> {
    /// The durable entries from `first` to `last`, or as many of them as fit `bytes_max`, but at least one.
    pub async fn read(
        &self,
        shard: ShardId,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        assert!(first <= last, "shard {shard}: a read from {first} to {last}");
        let mut wanted = Wanted { next: first, last, bytes_left: bytes_max, entries: Vec::new() };
        let mut replaced = None;
        loop {
            let round = self.round(shard, wanted.next)?;
            if *replaced.get_or_insert(round.replaced) != round.replaced {
                // Entries were replaced while this waited for the disk: what was read is of one history, the
                // rest is not.
                if !wanted.entries.is_empty() {
                    return Ok(wanted.entries);
                }
                replaced = Some(round.replaced);
            }
            let bytes = self.read_batch(&round.span, round.salt).await?;
            let is_current = self.round(shard, wanted.next).is_ok_and(|now| now.replaced == round.replaced);
            if !is_current && wanted.entries.is_empty() {
                continue;
            }
            let place = self.place(round.span.at.segment, round.salt);
            let place = self.shared.config.place(place, &bytes);
            if !is_current
                || wanted.take(shard, &bytes, &place, &round.span).map_err(|e| self.damage(&round.span, e))?
            {
                return Ok(wanted.entries);
            }
            if wanted.next > self.last_durable(shard) {
                return Ok(wanted.entries);
            }
        }
    }

    fn last_durable(&self, shard: ShardId) -> Index {
        self.shared.state.borrow().index.shard(shard).map_or(Index(0), super::index::ShardIndex::last)
    }

    pub(super) fn place(&self, segment: SegmentId, salt: u64) -> Place {
        Place { lane: self.shared.config.lane, segment, salt }
    }

    fn round(&self, shard: ShardId, next: Index) -> Result<Round, ReadError> {
        let state = self.shared.state.borrow();
        let Some(index) = state.index.shard(shard) else { return Err(ReadError::Beyond { last: Index(0) }) };
        match index.span_at(next) {
            Some(span) => {
                let salt = state.segments.get(&span.at.segment).map_or(0, |segment| segment.salt);
                Ok(Round { span, salt, replaced: index.replaced() })
            }
            None if next < index.first() => Err(ReadError::Released { first: index.first() }),
            None => Err(ReadError::Beyond { last: index.last() }),
        }
    }

    /// A batch that was checked: of those that were read lately, or from the disk.
    async fn read_batch(&self, span: &Span, salt: u64) -> Result<Rc<Vec<u8>>, ReadError> {
        let at = (span.at.segment, span.at.offset);
        loop {
            let asked = self.shared.state.borrow_mut().recent.ask(at);
            match asked {
                Asked::Here(bytes) => return Ok(bytes),
                Asked::Coming(here) => drop(here.await),
                Asked::Yours => break,
            }
        }
        let mut coming = Coming { shared: Rc::clone(&self.shared), at, bytes: None };
        let bytes = Rc::new(self.read_from_disk(span, salt).await?);
        coming.bytes = Some(Rc::clone(&bytes));
        Ok(bytes)
    }

    async fn read_from_disk(&self, span: &Span, salt: u64) -> Result<Vec<u8>, ReadError> {
        let segment = span.at.segment;
        let _pin = self.pin(segment);
        let path = self.shared.dir.join(segment_name(segment));
        let offset = span.at.offset;
        let failed = |source| ReadError::Failed(LogFailure::at(Doing::Read, &path, offset, source));
        let bad = |error| ReadError::Damaged(BadBlock { offset, error }.damage(path.clone()));
        let known = self.open_file(segment);
        let file = match known {
            Some(file) => file,
            None => {
                let open = async || self.shared.env.open(&path, OpenMode::Read).await;
                let file = Rc::new(read_twice(open).await.map_err(failed)?.map_err(bad)?);
                self.keep_open(segment, Rc::clone(&file));
                file
            }
        };
        let read = async || file.read_at(offset, span.at.bytes as usize).await;
        let bytes = read_twice(read).await.map_err(failed)?.map_err(bad)?;
        let place = self.shared.config.place(self.place(segment, salt), &bytes);
        match Batch::decode(&bytes, &place) {
            Ok(_) => Ok(bytes),
            Err(found) => Err(self.damage(span, Unreadable::Batch(found))),
        }
    }

    fn pin(&self, segment: SegmentId) -> Pin<E> {
        let mut state = self.shared.state.borrow_mut();
        if let Some(known) = state.segments.get_mut(&segment) {
            known.readers += 1;
        }
        Pin { shared: Rc::clone(&self.shared), segment }
    }

    /// The same for a segment that is still the one that it was.
    pub(super) fn pin_known(&self, segment: SegmentId, salt: u64) -> Option<Pin<E>> {
        let known = self.shared.state.borrow().segments.get(&segment).map(|known| known.salt);
        (known == Some(salt)).then(|| self.pin(segment))
    }

    fn open_file(&self, segment: SegmentId) -> Option<Rc<E::File>> {
        let state = self.shared.state.borrow();
        state.open_files.iter().find(|(open, _)| *open == segment).map(|(_, file)| Rc::clone(file))
    }

    fn keep_open(&self, segment: SegmentId, file: Rc<E::File>) {
        let mut state = self.shared.state.borrow_mut();
        if state.open_files.len() == OPEN_FILES_MAX {
            state.open_files.remove(0);
        }
        state.open_files.push((segment, file));
    }

    fn damage(&self, span: &Span, why: Unreadable) -> ReadError {
        let file = self.shared.dir.join(segment_name(span.at.segment));
        let kind = match why {
            Unreadable::Batch(found) => DamageKind::Unreadable { found },
            Unreadable::Record(error) => DamageKind::Record(error),
            Unreadable::Content => DamageKind::Content,
        };
        ReadError::Damaged(Damage { file, offset: span.at.offset, kind })
    }
}

/// Why a batch that was durable does not give the entries that it held.
enum Unreadable {
    Batch(NotABatch),
    Record(RecordError),
    Content,
}

impl From<RecordError> for Unreadable {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// What a read still wants.
struct Wanted {
    next: Index,
    last: Index,
    bytes_left: usize,
    entries: Vec<Entry>,
}

impl Wanted {
    /// Takes the wanted entries of a batch. True: the read is complete.
    fn take(&mut self, shard: ShardId, bytes: &[u8], place: &Place, span: &Span) -> Result<bool, Unreadable> {
        let batch = Batch::decode(bytes, place).map_err(Unreadable::Batch)?;
        let held = entries_of(shard, &batch, self.next, self.last.min(span.last))?;
        if held.first().map(|entry| entry.0) != Some(self.next) {
            return Err(Unreadable::Content);
        }
        for (index, term, data) in held {
            if !self.entries.is_empty() && data.len() > self.bytes_left {
                return Ok(true);
            }
            self.bytes_left = self.bytes_left.saturating_sub(data.len());
            // Copied, so that one small entry does not keep a whole batch in memory.
            self.entries.push(Entry { index, term, data: Bytes::copy_from_slice(data) });
            self.next = index.next();
        }
        Ok(self.next > self.last)
    }
}

/// An entry where it was read.
type Held<'a> = (Index, Term, &'a [u8]);

/// The entries of a shard in a batch from `first` to `last`, a later one in the place of an earlier one and
/// of all above it.
fn entries_of<'a>(
    shard: ShardId,
    batch: &Batch<'a>,
    first: Index,
    last: Index,
) -> Result<Vec<Held<'a>>, Unreadable> {
    let mut held: Vec<Held<'a>> = Vec::new();
    batch.each_record(|record| {
        if let Record::Entry { shard: of, index, term, data } = record
            && of == shard
        {
            while held.last().is_some_and(|known| known.0 >= index) {
                held.pop();
            }
            if first <= index && index <= last {
                held.push((index, term, data));
            }
        }
        Ok::<(), Unreadable>(())
    })?;
    Ok(held)
}
