//! A lane's handle: what a driver holds of its log, and the state that writer, keeper and readers share.
//!
//! ```text
//!  append ──► queue ──► writer: one batch in flight ──► index, completions ──► driver
//!                          │ rolls          ▲ spare
//!                          ▼                │
//!                       keeper: makes the spare, releases the oldest segment
//! ```
//!
//! Invariants:
//! - Appends complete in the order in which they came.
//! - The first failure is kept and is final: nothing is completed after it.
//! - The index holds only what is durable.
//!
//! It lives on the core of its lane, whose driver owns it. Handles are cheap to clone and never leave the
//! core. It deliberately knows no replica: what an append means is raft's affair.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::env::signal::{AnswerReceiver, AnswerSender, Signal, answer};
use crate::env::stages::Tally;
use crate::env::{BLOCK_BYTES, Env, Instant};
use crate::ids::{Index, LaneId, ShardId, Term};
use crate::raft::{Entry, HardState, Standing};

use super::batch::{BATCH_BYTES_LIMIT, BATCH_HEADER_BYTES, Place, SegmentId};
use super::error::{Damage, Full, LogFailure, OpenError, SettingsError};
use super::index::{LaneIndex, Notes};
use super::manifest::{ManifestFile, Mark, TableRef};
#[cfg(debug_assertions)]
use super::planted::PlantedBug;
use super::queue::{FIXED_BYTES_MAX, Origin, Pending, Queue};
use super::recent::Recent;
use super::record::{RECORD_HEADER_BYTES, entry_bytes};
use super::recovery::{Recovery, recover};
use super::segment::segment_of_name;

/// The most completions that a driver may leave undrained.
pub const COMPLETIONS_MAX: usize = 1 << 16;

/// Settings of one lane.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// The lane.
    pub lane: LaneId,
    /// The size of a segment's file in bytes: whole blocks, at least two batches of `batch_bytes_max`.
    pub segment_bytes: u64,
    /// The longest batch in bytes, header and padding included: whole blocks, at most [`BATCH_BYTES_LIMIT`].
    pub batch_bytes_max: usize,
    /// How long a batch waits for company. Zero: it is written as soon as the one before it is durable.
    pub batch_delay: Duration,
    /// The most bytes that wait or fly, at least `batch_bytes_max`.
    pub queue_bytes_max: usize,
    /// How long a lane is idle before its last batch is sealed.
    pub seal_after: Duration,
    /// What becomes of damage that a start finds.
    pub damage: OnDamage,
    /// A fault put in on purpose.
    #[cfg(debug_assertions)]
    pub planted: Option<PlantedBug>,
}

/// What becomes of damage that a start finds in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// It stops the start, and nothing is changed: there is nobody who has what was lost.
    #[default]
    Stop,
    /// It is gone round: these shards, all that have entries in the lane, lost what it held, or may have, and
    /// know it.
    Lose(Vec<ShardId>),
}

impl LaneConfig {
    /// The longest data of one entry: it fits a batch along with all else that its shard may say.
    #[must_use]
    pub fn entry_bytes_max(&self) -> usize {
        self.batch_bytes_max.saturating_sub(BATCH_HEADER_BYTES + FIXED_BYTES_MAX + RECORD_HEADER_BYTES)
    }

    /// Checks every bound.
    pub fn check(&self) -> Result<(), SettingsError> {
        let block = BLOCK_BYTES as u64;
        let batch = self.batch_bytes_max as u64;
        for (setting, value) in [("segment_bytes", self.segment_bytes), ("batch_bytes_max", batch)] {
            if !value.is_multiple_of(block) {
                return Err(SettingsError::NotWholeBlocks { setting, value });
            }
        }
        let queue = self.queue_bytes_max as u64;
        let least = [
            ("batch_bytes_max", batch, block),
            ("segment_bytes", self.segment_bytes, 2 * batch),
            ("queue_bytes_max", queue, batch),
        ];
        for (setting, value, least) in least {
            if value < least {
                return Err(SettingsError::TooSmall { setting, value, least });
            }
        }
        if self.batch_bytes_max > BATCH_BYTES_LIMIT {
            let most = BATCH_BYTES_LIMIT as u64;
            return Err(SettingsError::TooLarge { setting: "batch_bytes_max", value: batch, most });
        }
        Ok(())
    }

    /// What the batch that begins with this block must say to belong to a place.
    pub(super) fn place(&self, place: Place, block: &[u8]) -> Place {
        #[cfg(debug_assertions)]
        if self.has(PlantedBug::StaleBatchAccepted) {
            return place.as_claimed(block);
        }
        let _ = block;
        place
    }

    /// The salt of a new segment, of a number that was drawn for it.
    pub(super) fn salt(&self, drawn: u64) -> u64 {
        #[cfg(debug_assertions)]
        if self.has(PlantedBug::StaleBatchAccepted) {
            return 0;
        }
        drawn
    }

    #[cfg(debug_assertions)]
    pub(super) fn has(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }
}

/// What a shard wants made durable, as one.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Whose it is.
    pub shard: ShardId,
    /// The number that the completion names.
    pub number: u64,
    /// Term, vote and commit index, where they changed.
    pub hard_state: Option<HardState>,
    /// What the replica knows of its past, where that changed.
    pub standing: Option<Standing>,
    /// The log begins anew behind this index, of this term: every entry held goes, also those behind it.
    pub restart: Option<(Index, Term)>,
    /// Entries without a hole. The first replaces everything of the shard at its index and above.
    pub entries: Vec<Entry>,
}

/// An append is durable, with all that its shard appended before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Whose it was.
    pub shard: ShardId,
    /// The number that it was given.
    pub number: u64,
}

/// Whether there is space for another segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// As far as is known.
    #[default]
    Enough,
    /// The disk is full: what fits the segments that are there is still written.
    Short,
}

/// A lane as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// The bytes of its segments' files.
    pub log_bytes: u64,
    /// How many there are, the spare included.
    pub segments: usize,
    /// The batches written since the start.
    pub batches: u64,
    /// The bytes that wait or fly.
    pub queued_bytes: usize,
    /// How long the last batch write took.
    pub last_write: Duration,
    /// For how long the oldest append has been waiting; zero where none is.
    pub oldest_pending: Duration,
    /// Whether it failed.
    pub poisoned: bool,
    /// Whether the disk is full.
    pub space: Space,
    /// The segments in which damage was found and that are still there.
    pub damaged: usize,
    /// Segments that were found damaged since the start, but for those that a shard lost something by: what
    /// became of that is the shard's to say.
    pub damages_found: u64,
    /// Those of them that were let go of.
    pub damages_ended: u64,
}

/// A handle of a lane.
pub struct Lane<E: Env> {
    pub(super) shared: Rc<Shared<E>>,
}

impl<E: Env> Clone for Lane<E> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

pub(super) struct Shared<E: Env> {
    pub env: E,
    pub dir: PathBuf,
    pub config: LaneConfig,
    pub state: RefCell<State<E>>,
    /// Raised for the writer.
    pub wake: Signal,
    /// Raised for the keeper.
    pub chores: Signal,
}

/// A segment that is written to, or will be.
pub(super) struct Active<E: Env> {
    pub place: Place,
    pub bytes: u64,
    pub path: PathBuf,
    pub file: Rc<E::File>,
}

/// What is known of a segment beside its manifest entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentState {
    pub salt: u64,
    pub bytes: u64,
    pub end: Option<Mark>,
    pub readers: u32,
    pub filled: FilledBy,
}

/// Which process filled a segment. Only the own ones are used again: a write of a dead process may still be
/// on its way to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilledBy {
    ThisProcess,
    Another,
}

/// A table that is to take effect.
pub(super) struct Switch {
    pub shard: ShardId,
    pub table: TableRef,
    pub sender: AnswerSender<()>,
}

/// How far a lane is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Opened,
    Running,
    Closing,
    Written,
    Ended,
}

/// What was appended last of a shard, durable or not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail {
    pub last: Index,
    pub hard_state: HardState,
    pub released: Option<(Index, Term)>,
    pub standing: Option<Standing>,
}

impl Tail {
    /// The log begins behind this index, whatever was in it.
    fn begin_anew(&mut self, restart: Option<(Index, Term)>) {
        if let Some((index, _)) = restart {
            self.last = index;
            self.released = restart;
        }
    }
}

/// What became of word that a segment is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageNews {
    /// It counts from now on, until the segment is let go of.
    New,
    /// It did so before.
    Known,
    /// A start found it, and its shards say what it cost them; or the segment is gone.
    Elsewhere,
}

/// Segments in which damage was found that no shard lost anything by: each counts once, and once more when it
/// is gone.
#[derive(Debug, Default)]
pub(super) struct Found {
    segments: BTreeSet<SegmentId>,
    found: u64,
    ended: u64,
}

impl Found {
    /// With what a start found.
    pub(super) fn new(segments: BTreeSet<SegmentId>) -> Self {
        Self { found: segments.len() as u64, segments, ended: 0 }
    }

    /// Damage was found in a segment.
    fn add(&mut self, segment: SegmentId) {
        self.found += u64::from(self.segments.insert(segment));
    }

    /// Whether damage was found in a segment.
    pub(super) fn contains(&self, segment: SegmentId) -> bool {
        self.segments.contains(&segment)
    }

    /// A segment is gone, damaged or not.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        self.ended += u64::from(self.segments.remove(&segment));
        let (found, ended) = (self.found, self.ended);
        assert!(ended <= found, "{ended} of {found} damaged segments are gone");
    }
}

pub(super) struct State<E: Env> {
    pub index: LaneIndex,
    /// Segments in which damage was found at the start: kept while any shard lacks what it lost.
    pub damaged: BTreeSet<SegmentId>,
    pub found: Found,
    pub tails: BTreeMap<ShardId, Tail>,
    pub queue: Queue,
    pub completions: Vec<Completed>,
    pub progress: Signal,
    pub failure: Option<LogFailure>,
    pub phase: Phase,
    pub segments: BTreeMap<SegmentId, SegmentState>,
    pub current: Active<E>,
    pub position: u64,
    pub spare: Option<Active<E>>,
    pub needs_spare: bool,
    pub manifest: Option<ManifestFile<E>>,
    pub free: Vec<(SegmentId, u64)>,
    pub restated: Option<SegmentId>,
    pub switches: Vec<Switch>,
    /// Shards whose tables are not to be trusted.
    pub doubts: Vec<ShardId>,
    pub last: Mark,
    pub is_sealed: bool,
    pub written_at: Instant,
    pub flight_since: Option<Instant>,
    pub notes: Notes,
    pub flown: Vec<Completed>,
    pub buffers: Buffers<E>,
    pub open_files: Vec<(SegmentId, Rc<E::File>)>,
    pub recent: Recent,
    pub space: Space,
    pub batches: u64,
    pub last_write: Duration,
    pub batch: Tally,
    pub write: Tally,
}

impl<E: Env> Lane<E> {
    /// Opens the lane in a directory, or makes it where the directory is new. When this returns, recovery is
    /// over and all that it found is durable.
    pub async fn open(env: E, dir: &Path, config: LaneConfig) -> Result<(Self, Recovery), OpenError> {
        config.check().map_err(OpenError::Settings)?;
        let (state, recovery) = recover(&env, dir, &config).await?;
        let shared = Shared {
            env,
            dir: dir.to_path_buf(),
            config,
            state: RefCell::new(state),
            wake: Signal::default(),
            chores: Signal::default(),
        };
        Ok((Self { shared: Rc::new(shared) }, recovery))
    }

    /// Joins the batch that is forming. Nothing is taken where the queue is full, or after a failure or
    /// `close`.
    ///
    /// Entries must follow each other, and what the shard appended before, without a hole.
    pub fn append(&self, append: Append) -> Result<(), Full> {
        let Append { shard, number, hard_state, standing, restart, entries } = append;
        self.check_entries(shard, restart, &entries);
        let pending = Pending::of(shard, Origin::Shard { number }, self.shared.env.now());
        self.push(Pending { hard_state, standing, restart, entries, ..pending })
    }

    /// Whether [`Self::append`] would take this append now.
    #[must_use]
    pub fn has_room(&self, append: &Append) -> bool {
        let entries = append.entries.iter().map(|entry| entry_bytes(entry.data.len()));
        self.is_open_for(FIXED_BYTES_MAX + entries.sum::<usize>(), &self.shared.state.borrow())
    }

    /// Gives a shard's entries up to `index` free: they are held elsewhere, durably. The mark travels like an
    /// append; a segment that no shard needs is used again or removed some time after it is durable. An index
    /// past the last entry lets all of them go, and the next append begins after it.
    pub fn release(&self, shard: ShardId, index: Index, term: Term) -> Result<(), Full> {
        let pending = Pending::of(shard, Origin::Lane, self.shared.env.now());
        self.push(Pending { released: Some((index, term)), ..pending })
    }

    /// Has a table stand for all entries of its shard up to the table's index. Its file is durable in the
    /// lane's directory under [`table_name`](super::manifest::table_name). When the answer comes, so is the
    /// switch, and the file of the table before it is removed; then what the table stands for may be
    /// released. No answer: the lane failed or was closed, and the switch may or may not have happened.
    pub fn switch_table(&self, shard: ShardId, table: TableRef) -> AnswerReceiver<()> {
        let (sender, receiver) = answer();
        let mut state = self.shared.state.borrow_mut();
        if state.failure.is_none() && state.phase < Phase::Closing {
            // What was doubted before is the table that this one replaces.
            state.doubts.retain(|doubted| *doubted != shard);
            state.switches.push(Switch { shard, table, sender });
        }
        self.shared.chores.raise();
        receiver
    }

    /// Notes that a shard's table, though whole, is not to be trusted, until another takes its place: also a
    /// start that comes soon answers nobody from it.
    pub fn doubt_table(&self, shard: ShardId) {
        self.shared.state.borrow_mut().doubts.push(shard);
        self.shared.chores.raise();
    }

    /// The shards that need the oldest segment, where there are more segments than these; and those that need
    /// one that is damaged, or an older one, as soon as it is written to no more.
    #[must_use]
    pub fn pinning(&self, segments_max: usize) -> Vec<ShardId> {
        let state = self.shared.state.borrow();
        let is_ended = |id: &&SegmentId| **id < state.current.place.segment;
        let damaged = state.found.segments.iter().rfind(is_ended);
        let oldest = state.segments.keys().next().filter(|_| state.segments.len() > segments_max);
        damaged.max(oldest).map(|segment| state.index.entries_in(*segment)).unwrap_or_default()
    }

    /// Damage was found in a segment while the lane runs. From then on [`Self::pinning`] has those who need
    /// it let go of it.
    pub fn note_damage(&self, damage: &Damage) -> DamageNews {
        let mut state = self.shared.state.borrow_mut();
        let name = damage.file.file_name().and_then(|name| name.to_str());
        let segment = name.and_then(segment_of_name).filter(|id| state.segments.contains_key(id));
        match segment {
            Some(id) if state.found.contains(id) => DamageNews::Known,
            Some(id) if !state.damaged.contains(&id) => {
                state.found.add(id);
                DamageNews::New
            }
            Some(_) | None => DamageNews::Elsewhere,
        }
    }

    /// Whether the log has come to its end for now: the disk has no room for another segment, and what is
    /// left of the last one is kept for what is under way, and for votes. Nothing else should be asked of it.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let state = self.shared.state.borrow();
        state.space == Space::Short && state.spare.is_none() && {
            let waiting = state.position + state.queue.cost() as u64;
            state.current.bytes.saturating_sub(waiting) < self.shared.config.batch_bytes_max as u64
        }
    }

    /// What the log will ask of the disk next, in bytes: nothing, or the segment that it has no spare for.
    #[must_use]
    pub fn wanted_bytes(&self) -> u64 {
        let state = self.shared.state.borrow();
        if state.spare.is_some() { 0 } else { self.shared.config.segment_bytes }
    }

    /// The size of a segment's file.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.shared.config.segment_bytes
    }

    /// Where the lane's files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Takes the appends that became durable, in the order in which they came.
    #[must_use]
    pub fn completions(&self) -> Vec<Completed> {
        std::mem::take(&mut self.shared.state.borrow_mut().completions)
    }

    /// What is raised when appends completed and when the lane failed.
    #[must_use]
    pub fn on_progress(&self) -> Signal {
        self.shared.state.borrow().progress.clone()
    }

    /// Has the driver's own signal raised in the place of the lane's.
    pub fn set_signal(&self, signal: Signal) {
        self.shared.state.borrow_mut().progress = signal;
    }

    /// The first failure. The process says it and ends with its own code.
    #[must_use]
    pub fn failed(&self) -> Option<LogFailure> {
        self.shared.state.borrow().failure.clone()
    }

    /// When the oldest append that is not durable yet came.
    #[must_use]
    pub fn oldest_pending(&self) -> Option<Instant> {
        self.shared.state.borrow().oldest_pending()
    }

    /// The lane as it is now.
    #[must_use]
    pub fn status(&self) -> LaneStatus {
        let state = self.shared.state.borrow();
        let now = self.shared.env.now();
        LaneStatus {
            log_bytes: state.segments.values().map(|segment| segment.bytes).sum(),
            segments: state.segments.len(),
            batches: state.batches,
            queued_bytes: state.queue.cost(),
            last_write: state.last_write,
            oldest_pending: state.oldest_pending().map_or(Duration::ZERO, |since| now.since(since)),
            poisoned: state.failure.is_some(),
            space: state.space,
            damaged: state.damaged.union(&state.found.segments).count(),
            damages_found: state.found.found,
            damages_ended: state.found.ended,
        }
    }

    /// How long the first append of each batch waited for it, and how long batch writes took, with their
    /// bytes.
    #[must_use]
    pub fn tallies(&self) -> (Tally, Tally) {
        let state = self.shared.state.borrow();
        (state.batch, state.write)
    }

    /// Takes no more appends; what is queued is written and sealed, then `run` returns.
    pub fn close(&self) {
        let mut state = self.shared.state.borrow_mut();
        state.phase = state.phase.max(Phase::Closing);
        self.shared.wake.raise();
        self.shared.chores.raise();
    }

    fn push(&self, pending: Pending) -> Result<(), Full> {
        let mut state = self.shared.state.borrow_mut();
        if !self.is_open_for(pending.bytes(), &state) {
            return Err(Full);
        }
        state.enqueue(pending);
        self.shared.wake.raise();
        Ok(())
    }

    fn is_open_for(&self, bytes: usize, state: &State<E>) -> bool {
        let room = state.queue.has_room(bytes, self.shared.config.queue_bytes_max);
        let drained = state.completions.len() < COMPLETIONS_MAX;
        room && drained && state.failure.is_none() && state.phase < Phase::Closing
    }

    fn check_entries(&self, shard: ShardId, restart: Option<(Index, Term)>, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let bytes_max = self.shared.config.entry_bytes_max();
        let state = self.shared.state.borrow();
        let mut tail = state.tails.get(&shard).copied().unwrap_or_default();
        tail.begin_anew(restart);
        let base = tail.released.map_or(Index(0), |(index, _)| index);
        let follows = first.index > base && first.index.0 <= tail.last.0 + 1;
        assert!(follows, "shard {shard}: entry {} after {} released to {base}", first.index, tail.last);
        for (at, entry) in entries.iter().enumerate() {
            let index = first.index.0 + at as u64;
            assert_eq!(entry.index.0, index, "shard {shard}: entries of one append follow each other");
            assert!(entry.term > Term(0), "shard {shard}: entry {index} has no term");
            let bytes = entry.data.len();
            assert!(bytes <= bytes_max, "shard {shard}: entry {index} of {bytes} bytes is above {bytes_max}");
        }
    }
}

impl<E: Env> State<E> {
    /// Takes an append in, and remembers what its shard said last.
    pub fn enqueue(&mut self, pending: Pending) {
        let tail = self.tails.entry(pending.shard).or_default();
        tail.hard_state = pending.hard_state.unwrap_or(tail.hard_state);
        tail.standing = pending.standing.or(tail.standing);
        let standing = tail.standing.filter(|standing| *standing != Standing::Whole);
        let says_state = pending.hard_state.is_some();
        // A hard state without a standing says that nothing is lost: see `index::missing`.
        let pending = Pending { standing: pending.standing.or(standing.filter(|_| says_state)), ..pending };
        tail.begin_anew(pending.restart);
        if let Some(released) = pending.released.filter(|new| tail.released.is_none_or(|old| old.0 < new.0)) {
            tail.released = Some(released);
            tail.last = tail.last.max(released.0);
        }
        tail.last = pending.entries.last().map_or(tail.last, |entry| entry.index);
        self.queue.push(pending);
    }

    /// Keeps the first failure and says so.
    pub fn fail(&mut self, failure: LogFailure) {
        self.failure.get_or_insert(failure);
        self.progress.raise();
    }

    fn oldest_pending(&self) -> Option<Instant> {
        self.flight_since.or_else(|| self.queue.oldest())
    }
}

/// The most bytes of buffers that are kept for later batches.
const BUFFERS_BYTES_MAX: usize = 4 << 20;

/// Buffers of batches that landed, to be used again.
pub(super) struct Buffers<E: Env> {
    by_len: BTreeMap<usize, Vec<E::Buf>>,
    bytes: usize,
}

impl<E: Env> Buffers<E> {
    pub fn new() -> Self {
        Self { by_len: BTreeMap::new(), bytes: 0 }
    }

    /// A buffer of just this length, its contents whatever they were.
    pub fn take(&mut self, env: &E, len: usize) -> E::Buf {
        match self.by_len.get_mut(&len).and_then(Vec::pop) {
            Some(buf) => {
                self.bytes -= len;
                buf
            }
            None => env.buf(len),
        }
    }

    /// Keeps a buffer. Where that would be too much, the others go: their lengths were not asked for.
    pub fn give(&mut self, buf: E::Buf) {
        let len = buf.as_ref().len();
        if len > BUFFERS_BYTES_MAX {
            return;
        }
        if self.bytes + len > BUFFERS_BYTES_MAX {
            self.by_len.clear();
            self.bytes = 0;
        }
        self.bytes += len;
        self.by_len.entry(len).or_default().push(buf);
    }
}
