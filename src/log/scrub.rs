//! Looking whether what was written to the log can still be read: segments that nobody writes to any more,
//! batch by batch.
//!
//! Damage to a batch that no reader asks for would be found by the next start, which cannot go on then. A
//! scrub finds it while the node's peers can help.
//!
//! Invariants:
//! - A segment is kept from being released only while it is read, not while the scrub rests: the log does not
//!   grow because it is looked at.
//! - What is found in a segment that was released meanwhile is not told: its file may be in use again.
//!
//! It lives on its lane's core, changes nothing, and deliberately decides nothing.

use crate::env::Env;

use super::batch::{BatchSequence, NotABatch};
use super::error::{Damage, DamageKind, LogFailure, OpenError};
use super::lane::Lane;
use super::manifest::{Mark, SegmentMeta};
use super::scan::{NoBatch, SegmentScan};
use super::segment::{SEGMENT_DATA_AT, segment_name};

/// How much is looked at between two rests.
const PIECE_BYTES: u64 = 256 << 10;

/// A segment that is being looked at.
pub struct SegmentScrub<E: Env> {
    lane: Lane<E>,
    meta: SegmentMeta,
    end: BatchSequence,
    scan: Option<SegmentScan<E>>,
    offset: u64,
    last: Option<Mark>,
}

/// What a look came to.
#[derive(Debug)]
pub enum Looked {
    /// So many bytes are whole; there is more to look at.
    Bytes(u64),
    /// All of the segment is whole; these were its last bytes.
    Whole(u64),
    /// It is not needed any more: nobody has to know.
    Released,
    /// It is damaged.
    Damaged(Damage),
    /// The disk does not give it back: where it does so the next time neither, it is damaged.
    Unread(Damage),
    /// It could not be read, for a reason that says nothing of what is stored.
    Failed(LogFailure),
}

impl<E: Env> Lane<E> {
    /// The segments that are written to no more and not known to be damaged, the oldest first, each to be
    /// looked at from its start.
    #[must_use]
    pub fn scrubs(&self) -> Vec<SegmentScrub<E>> {
        let state = self.shared.state.borrow();
        let ended = state.segments.iter().filter_map(|(id, segment)| {
            let is_known = state.damaged.contains(id) || state.found.contains(*id);
            let is_open = *id == state.current.place.segment;
            let end = segment.end.filter(|_| !is_open && !is_known)?;
            Some((SegmentMeta { id: *id, salt: segment.salt, bytes: segment.bytes, end: Some(end) }, end))
        });
        let scrub = |(meta, end): (SegmentMeta, Mark)| SegmentScrub {
            lane: self.clone(),
            meta,
            end: end.sequence,
            scan: None,
            offset: SEGMENT_DATA_AT,
            last: None,
        };
        ended.map(scrub).collect()
    }
}

impl<E: Env> SegmentScrub<E> {
    /// Looks at some more of it.
    pub async fn look(&mut self) -> Looked {
        let SegmentMeta { id, salt, .. } = self.meta;
        let Some(pin) = self.lane.pin_known(id, salt) else { return Looked::Released };
        let looked = self.look_at_piece().await;
        drop(pin);
        match looked {
            Ok(looked) => looked,
            Err(OpenError::Damaged(damage)) if damage.kind.is_of_disk() => Looked::Unread(damage),
            Err(OpenError::Damaged(damage)) => Looked::Damaged(damage),
            Err(OpenError::Failed(failure) | OpenError::DiskFull(failure)) => Looked::Failed(failure),
            Err(OpenError::Format { .. } | OpenError::Settings(_) | OpenError::Disagrees { .. }) => {
                let found = NotABatch::Magic;
                Looked::Damaged(self.damage(DamageKind::Unreadable { found }))
            }
        }
    }

    async fn look_at_piece(&mut self) -> Result<Looked, OpenError> {
        let from = self.offset;
        while self.last.is_none_or(|last| last.sequence < self.end) {
            if self.offset - from >= PIECE_BYTES {
                return Ok(Looked::Bytes(self.offset - from));
            }
            self.look_at_batch().await?;
        }
        Ok(Looked::Whole(self.offset - from))
    }

    async fn look_at_batch(&mut self) -> Result<(), OpenError> {
        let shared = &self.lane.shared;
        let place = self.lane.place(self.meta.id, self.meta.salt);
        let mut scan = match self.scan.take() {
            Some(scan) => scan,
            None => {
                let path = shared.dir.join(segment_name(self.meta.id));
                match SegmentScan::open(&shared.env, &path, place, &self.meta).await? {
                    (_, Some(damage)) => return Err(damage.into()),
                    (Some(scan), None) => scan,
                    (None, None) => return Err(self.damage(DamageKind::SegmentMissing).into()),
                }
            }
        };
        let (header, chain, bytes) = match scan.batch_at(self.offset).await? {
            Ok((batch, bytes)) => (batch.header, batch.chain, bytes.len() as u64),
            Err(NoBatch::Bad(bad)) => return Err(bad.damage(scan.path().to_path_buf()).into()),
            Err(NoBatch::Not(found)) => {
                let sequence = self.last.map_or(self.end, |last| last.sequence.next());
                let kind = DamageKind::BeforeEnd { sequence, end: self.end, found };
                return Err(self.damage(kind).into());
            }
        };
        if let Some(last) = self.last {
            let (expected, found) = (last.sequence.next(), header.sequence);
            if found != expected {
                return Err(self.damage(DamageKind::OutOfOrder { expected, found }).into());
            }
            if header.before != last.chain {
                return Err(self.damage(DamageKind::Chain { sequence: found }).into());
            }
        }
        self.last = Some(Mark { sequence: header.sequence, chain });
        self.offset += bytes;
        self.scan = Some(scan);
        Ok(())
    }

    fn damage(&self, kind: DamageKind) -> Damage {
        let file = self.lane.shared.dir.join(segment_name(self.meta.id));
        Damage { file, offset: self.offset, kind }
    }
}
