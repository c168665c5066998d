//! Looks, slowly and all the time, whether the files of a core can still be read: its tables block by block,
//! and the segments of its log that nobody writes to any more.
//!
//! ```text
//!   round: each shard's table (header, footer, blocks, sections) ─► each lane's ended segments ─► said
//!            └─ after every piece: a rest of its bytes / rate         next round when it is due
//! ```
//!
//! A disk that loses a bit tells nobody. Without this, damage to a block that no request needs is found when
//! a second replica is lost, too late for this one's help.
//!
//! Invariants:
//! - No more than `bytes_per_s` are read, and what is read goes through no cache: neither is a block there
//!   taken for one on the disk, nor does a round push out what requests come back to.
//! - A table that another took the place of meanwhile is left alone, damaged or not.
//! - A failure to read is tried once more before it counts: it may have been the moment's. What the disk does
//!   not give back then is damage, as a wrong checksum is.
//!
//! It deliberately repairs nothing: what to do about damage is the runner's to say.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::{Env, Instant};
use crate::ids::{CoreId, LaneId};
use crate::kv::table::{Footer, Header, PAGE_BYTES, SectionCheck, TableIndex};
use crate::log::{Looked, SegmentScrub};
use crate::shard::config::Scrub;
use crate::shard::runner::Runner;
use crate::shard::table::{TableFile, TableReadError};

/// How much of a section is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// How long after a failure to read the same is tried once more.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest sleep: how soon a scrub is over whose runner has stopped.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The first round begins after this part of the time between two.
const FIRST_ROUND: u32 = 60;

/// A table that is looked at.
pub(crate) type Scrubbed<E> = (Rc<TableFile<E>>, Rc<TableIndex>);

/// What a round came to so far.
#[derive(Debug, Default)]
struct Round {
    tables: usize,
    segments: usize,
    bytes: u64,
    /// Pieces that were read only when they were tried again, or not at all.
    read_again: usize,
    damaged: usize,
}

/// The scrub of one core.
struct Scrubber<E: Env> {
    env: E,
    runner: Runner<E>,
    settings: Scrub,
    round: Round,
}

/// The runner has stopped: nobody wants to know any more.
struct Stopped;

/// Why a table was not looked at to its end.
enum Left {
    Stopped,
    Unreadable(TableReadError),
}

impl From<Stopped> for Left {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<TableReadError> for Left {
    fn from(error: TableReadError) -> Self {
        Self::Unreadable(error)
    }
}

/// Scrubs round after round, until the runner stops.
pub(crate) async fn run<E: Env>(env: E, runner: Runner<E>, (core, settings): (CoreId, Scrub)) {
    if settings.bytes_per_s == 0 {
        return;
    }
    let mut due = env.now() + settings.round_min / FIRST_ROUND;
    let mut scrubber = Scrubber { env, runner, settings, round: Round::default() };
    while let Ok(began) = scrubber.sleep_until(due).await {
        due = began + settings.round_min;
        scrubber.round = Round::default();
        if scrubber.go_round().await.is_err() {
            return;
        }
        let Round { tables, segments, bytes, read_again, damaged } = scrubber.round;
        if bytes > 0 {
            let took = scrubber.env.now().since(began);
            tracing::info!(%core, tables, segments, bytes, read_again, damaged, ?took, "scrubbed");
        }
    }
}

impl<E: Env> Scrubber<E> {
    /// Looks at everything once.
    async fn go_round(&mut self) -> Result<(), Stopped> {
        for shard in self.runner.shards() {
            let Some((file, index)) = self.runner.table_to_scrub(shard) else { continue };
            self.round.tables += 1;
            match self.table(&file, &index).await {
                Ok(()) => {}
                Err(Left::Stopped) => return Err(Stopped),
                Err(Left::Unreadable(error)) => {
                    let current = self.runner.table_to_scrub(shard);
                    if current.is_some_and(|(current, _)| current.salt() == file.salt()) {
                        self.round.damaged += 1;
                        self.runner.table_damaged(shard, error);
                    }
                }
            }
        }
        for (lane, scrubs) in self.runner.segments_to_scrub() {
            for scrub in scrubs {
                self.segment(lane, scrub).await?;
            }
        }
        Ok(())
    }

    /// Looks at all parts of a table.
    async fn table(&mut self, file: &TableFile<E>, index: &TableIndex) -> Result<(), Left> {
        let page = self.part(file, 0, PAGE_BYTES).await?;
        let header = Header::decode(&page).map_err(|source| file.damaged(source))?;
        let bytes = index.footer().file_length;
        let page = self.part(file, Footer::offset(bytes), PAGE_BYTES).await?;
        let footer = Footer::decode(&page, bytes).map_err(|source| file.damaged(source))?;
        if header != footer.header || footer != *index.footer() {
            return Err(file.another().into());
        }
        for at in 0..index.blocks() {
            let handle = index.handle(at);
            self.read(async || file.block(handle).await.map(drop)).await?;
            self.pace(u64::from(handle.length)).await?;
        }
        for mut check in SectionCheck::all_of(&footer) {
            while let Some((offset, wanted)) = check.next_piece(PIECE_BYTES) {
                let piece = self.part(file, offset, wanted).await?;
                check.take(wanted, &piece).map_err(|source| file.damaged(source))?;
            }
            check.finish().map_err(|source| file.damaged(source))?;
        }
        Ok(())
    }

    /// Reads a part of a table as it is.
    async fn part(&mut self, file: &TableFile<E>, offset: u64, len: usize) -> Result<Bytes, Left> {
        let bytes = self.read(async || file.part(offset, len).await).await?;
        self.pace(len as u64).await?;
        Ok(bytes)
    }

    /// Reads, and once more where the disk failed to.
    async fn read<T>(
        &mut self,
        read: impl AsyncFn() -> Result<T, TableReadError>,
    ) -> Result<T, TableReadError> {
        match read().await {
            Err(TableReadError::Io { path, source }) => {
                tracing::warn!(path = %path.display(), %source, "the scrub reads once more");
                self.round.read_again += 1;
                self.env.sleep(RETRY_AFTER).await;
                read().await
            }
            Ok(read) => Ok(read),
            Err(error @ (TableReadError::Damaged { .. } | TableReadError::Another { .. })) => Err(error),
        }
    }

    /// Looks at a segment of a lane.
    async fn segment(&mut self, lane: LaneId, mut scrub: SegmentScrub<E>) -> Result<(), Stopped> {
        let mut has_failed = false;
        loop {
            match scrub.look().await {
                Looked::Bytes(bytes) => {
                    has_failed = false;
                    self.pace(bytes).await?;
                }
                Looked::Whole(bytes) => {
                    self.round.segments += 1;
                    return self.pace(bytes).await;
                }
                Looked::Released => return Ok(()),
                Looked::Unread(damage) if !has_failed => {
                    tracing::warn!(%lane, %damage, "the scrub reads once more");
                    self.round.read_again += 1;
                    has_failed = true;
                    self.env.sleep(RETRY_AFTER).await;
                }
                Looked::Damaged(damage) | Looked::Unread(damage) => {
                    self.round.damaged += 1;
                    self.runner.log_damaged(lane, damage);
                    return Ok(());
                }
                Looked::Failed(failure) if has_failed => {
                    // The log may never be read again: a reader or the next start has the say about it.
                    tracing::error!(%lane, %failure, "the scrub cannot read the log");
                    return Ok(());
                }
                Looked::Failed(failure) => {
                    tracing::warn!(%lane, %failure, "the scrub reads once more");
                    self.round.read_again += 1;
                    has_failed = true;
                    self.env.sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Rests after so many bytes, so that the rate is kept.
    async fn pace(&mut self, bytes: u64) -> Result<(), Stopped> {
        self.round.bytes += bytes;
        let us = bytes.saturating_mul(1_000_000) / self.settings.bytes_per_s;
        let until = self.env.now() + Duration::from_micros(us);
        self.sleep_until(until).await.map(drop)
    }

    /// Sleeps until a moment, or for less where the runner has stopped. What time it is.
    async fn sleep_until(&self, until: Instant) -> Result<Instant, Stopped> {
        loop {
            let now = self.env.now();
            if self.runner.has_stopped() {
                return Err(Stopped);
            }
            if now >= until {
                return Ok(now);
            }
            self.env.sleep(until.since(now).min(SLEEP_MAX)).await;
        }
    }
}
