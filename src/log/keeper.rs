//! The keeper: makes the spare segment in the background, and lets the oldest one go when no shard needs it.
//!
//! ```text
//!   no spare ──► make a file (or use a free one again) ──► manifest, both copies ──► spare
//!   oldest segment holds no entry that counts
//!            ──► hard states that are only there: written again ► durable ► manifest ► free, or removed
//! ```
//!
//! Why a crash is safe at any point: a made file is unknown until both copies name it, and a released one
//! unknown from then on; an unknown file is removed by the next start. A segment is named for as long as it
//! holds the last copy of anything.
//!
//! Invariants:
//! - Only one task changes the manifest of a lane that runs: this one.
//! - A file is used again only if this very process filled it: no late write of a dead one can hit it.
//! - A full disk is a state: the file that did not fit is removed and made again later; any other failure is
//!   final.
//! - A damaged segment is kept for as long as any shard lacks what it lost.
//! - A manifest change that failed on a full disk is written again before anything else.
//!
//! It lives on its lane's core, spawned by the writer, and ends before it. It deliberately decides nothing
//! about entries: what is not needed is said by `release`.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::env::signal::AnswerSender;
use crate::env::{BLOCK_BYTES, Env, File, OpenMode};
use crate::ids::ShardId;
use crate::raft::Standing;

use super::batch::{Place, SegmentId};
use super::error::{Doing, LogFailure};
use super::lane::{Active, FilledBy, Lane, Phase, SegmentState, Space, State, Switch, Tail};
use super::manifest::{ManifestFile, Mark, SEGMENTS_MAX, SegmentMeta, table_name};
#[cfg(debug_assertions)]
use super::planted::PlantedBug;
use super::queue::{Origin, Pending};
use super::segment::{SEGMENT_DATA_AT, encode_segment_header, segment_name};

/// How many released files are kept to be used again.
const FREE_MAX: usize = 1;

/// How long a full disk is left alone before the next try.
const SPACE_RETRY_AFTER: Duration = Duration::from_millis(200);

/// How much of a new segment is written at once.
const FILL_BYTES: usize = 1 << 20;

enum Chore {
    Wait,
    WaitForSpace,
    Make,
    Restate(Vec<ShardId>),
    Release(SegmentId, Mark),
    Switch,
    End,
}

struct Keeper<E: Env> {
    lane: Lane<E>,
    file: ManifestFile<E>,
    is_changed: bool,
    made: Option<Active<E>>,
    released: Option<SegmentId>,
    switched: Vec<Switched>,
}

/// A table that the next manifest write makes take effect: who waits for it, and the file of the one before.
struct Switched {
    sender: AnswerSender<()>,
    replaced: Option<PathBuf>,
}

impl<E: Env> Lane<E> {
    /// Keeps the lane's segments until the writer is done or the lane failed.
    pub(super) async fn keep(self) {
        let file = self.shared.state.borrow_mut().manifest.take();
        let file = file.expect("recovery left the manifest here, and a lane is run once");
        let mut keeper = Keeper {
            lane: self.clone(),
            file,
            is_changed: false,
            made: None,
            released: None,
            switched: Vec::new(),
        };
        while let Some(result) = keeper.turn().await {
            match result {
                Ok(()) => {}
                Err(failure) if failure.is_full() => keeper.wait_for_space().await,
                Err(failure) => self.shared.state.borrow_mut().fail(failure),
            }
        }
        self.shared.state.borrow_mut().manifest = Some(keeper.file);
        self.enter_phase(Phase::Ended);
        self.shared.wake.raise();
    }
}

impl<E: Env> Keeper<E> {
    /// Does one chore, or waits for one. `None`: all is over.
    async fn turn(&mut self) -> Option<Result<(), LogFailure>> {
        if self.is_changed && !self.is_over() {
            return Some(self.write_manifest().await);
        }
        match self.next_chore() {
            Chore::Wait => self.lane.shared.chores.wait().await,
            Chore::WaitForSpace => self.wait_for_space().await,
            Chore::Make => return Some(self.make().await),
            Chore::Restate(shards) => self.restate(&shards),
            Chore::Release(id, end) => {
                self.file.manifest.release_oldest(id, end);
                self.released = Some(id);
                self.is_changed = true;
            }
            Chore::Switch => self.switch(),
            Chore::End => return None,
        }
        Some(Ok(()))
    }

    fn is_over(&self) -> bool {
        let state = self.lane.shared.state.borrow();
        state.failure.is_some() || state.phase >= Phase::Written
    }

    fn next_chore(&self) -> Chore {
        let state = self.lane.shared.state.borrow();
        if state.failure.is_some() || state.phase >= Phase::Written {
            return Chore::End;
        }
        let is_closing = state.phase >= Phase::Closing;
        // First: a table takes no room, and what it stands for may free some.
        if !state.switches.is_empty() || !state.doubts.is_empty() {
            return Chore::Switch;
        }
        // On a full disk room is made before room is asked for.
        let makes_room = state.space == Space::Short && state.can_release_at_once();
        if state.spare.is_none() && (state.needs_spare || !is_closing) && !makes_room {
            let is_room = state.segments.len() < SEGMENTS_MAX;
            return if is_room { Chore::Make } else { Chore::WaitForSpace };
        }
        let Some((id, end)) = state.oldest_not_needed().filter(|_| !is_closing) else { return Chore::Wait };
        let lost = state.index.states_in(id);
        #[cfg(debug_assertions)]
        let lost =
            if self.lane.shared.config.has(PlantedBug::HardStateLostWithSegment) { Vec::new() } else { lost };
        if lost.is_empty() {
            Chore::Release(id, end)
        } else if state.restated == Some(id) {
            Chore::Wait
        } else {
            Chore::Restate(lost)
        }
    }

    /// Writes hard states and marks again, so that they outlive the oldest segment.
    fn restate(&self, shards: &[ShardId]) {
        let since = self.lane.shared.env.now();
        let mut state = self.lane.shared.state.borrow_mut();
        state.restated = state.segments.keys().next().copied();
        for &shard in shards {
            // What was appended last, not what is durable: an older state must not follow a newer one.
            let tail = state.tails.get(&shard).copied().unwrap_or_default();
            let hard_state = Some(tail.hard_state);
            let (released, standing) = (tail.released, tail.standing);
            state.enqueue(Pending {
                hard_state,
                released,
                standing,
                ..Pending::of(shard, Origin::Lane, since)
            });
        }
        self.lane.shared.wake.raise();
    }

    /// Enters the tables that are to take effect, and those that are not to be trusted any more.
    fn switch(&mut self) {
        let switches = std::mem::take(&mut self.lane.shared.state.borrow_mut().switches);
        for Switch { shard, table, sender } in switches {
            let before = self.file.manifest.switch_table(shard, table);
            let name = before.map(|before| table_name(shard, before.generation));
            let replaced = name.map(|name| self.lane.shared.dir.join(name));
            self.switched.push(Switched { sender, replaced });
            self.is_changed = true;
        }
        for shard in std::mem::take(&mut self.lane.shared.state.borrow_mut().doubts) {
            self.file.manifest.doubt_table(shard);
            self.is_changed = true;
        }
    }

    /// Makes a segment's file and enters it in the manifest, along with the ends that became known.
    async fn make(&mut self) -> Result<(), LogFailure> {
        let shared = Rc::clone(&self.lane.shared);
        let manifest = &mut self.file.manifest;
        let free = shared.state.borrow_mut().free.pop();
        let id = manifest.take_segment_id();
        let salt = shared.config.salt(shared.env.random());
        let place = Place { lane: manifest.lane, segment: id, salt };
        let made = match free {
            Some((old, bytes)) => self.use_again(old, place, bytes).await?,
            None => make_segment(&shared.env, &shared.dir, place, shared.config.segment_bytes).await?,
        };
        for (id, segment) in &shared.state.borrow().segments {
            // Those of another process were recorded by recovery.
            if let Some(end) = segment.end.filter(|_| segment.filled == FilledBy::ThisProcess) {
                self.file.manifest.record_end(*id, end);
            }
        }
        self.file.manifest.enter(SegmentMeta { id, salt, bytes: made.bytes, end: None });
        self.made = Some(made);
        self.is_changed = true;
        Ok(())
    }

    /// Makes a segment of a file that was one. Where the disk is full, nothing is left of it.
    async fn use_again(&self, old: SegmentId, place: Place, bytes: u64) -> Result<Active<E>, LogFailure> {
        let made = self.take_up(old, place, bytes).await;
        if made.as_ref().err().is_some_and(LogFailure::is_full) {
            let shared = &self.lane.shared;
            for name in [old, place.segment].map(segment_name) {
                // It has one of these names; what counts is the failure that is handed on.
                let _ = shared.env.remove(&shared.dir.join(name)).await;
            }
        }
        made
    }

    async fn take_up(&self, old: SegmentId, place: Place, bytes: u64) -> Result<Active<E>, LogFailure> {
        let shared = &self.lane.shared;
        let path = shared.dir.join(segment_name(place.segment));
        let failed = |source| LogFailure::new(Doing::PrepareSegment, &path, source);
        shared.env.rename(&shared.dir.join(segment_name(old)), &path).await.map_err(failed)?;
        shared.env.sync_dir(&shared.dir).await.map_err(failed)?;
        let file = shared.env.open(&path, OpenMode::Durable).await.map_err(failed)?;
        let mut header = shared.env.buf(BLOCK_BYTES);
        encode_segment_header(header.as_mut(), &place, bytes);
        #[cfg(debug_assertions)]
        if shared.config.has(PlantedBug::HeaderKept) {
            return Ok(Active { place, bytes, path, file: Rc::new(file) });
        }
        file.write_at(Rc::new(header), 0).await.map_err(failed)?;
        Ok(Active { place, bytes, path, file: Rc::new(file) })
    }

    /// Writes the manifest; what it says takes effect only then.
    async fn write_manifest(&mut self) -> Result<(), LogFailure> {
        self.file.write().await?;
        self.is_changed = false;
        if let Some(made) = self.made.take() {
            self.publish(made);
        }
        self.lane.shared.state.borrow_mut().end_shortage();
        let switched = std::mem::take(&mut self.switched);
        let replaced: Vec<PathBuf> = switched
            .into_iter()
            .filter_map(|Switched { sender, replaced }| {
                sender.send(());
                replaced
            })
            .collect();
        for path in replaced {
            self.remove(&path).await?;
        }
        match self.released.take() {
            Some(id) => self.dispose(id).await,
            None => Ok(()),
        }
    }

    fn publish(&self, made: Active<E>) {
        let state = &mut *self.lane.shared.state.borrow_mut();
        let (salt, bytes, filled) = (made.place.salt, made.bytes, FilledBy::ThisProcess);
        let known = SegmentState { salt, bytes, end: None, readers: 0, filled };
        state.segments.insert(made.place.segment, known);
        assert!(state.spare.is_none(), "one spare is made at a time");
        state.spare = Some(made);
        self.lane.shared.wake.raise();
    }

    async fn dispose(&self, id: SegmentId) -> Result<(), LogFailure> {
        let shared = &self.lane.shared;
        let path = shared.dir.join(segment_name(id));
        if shared.state.borrow_mut().forget(id) {
            return Ok(());
        }
        self.remove(&path).await
    }

    async fn remove(&self, path: &Path) -> Result<(), LogFailure> {
        let shared = &self.lane.shared;
        let failed = |source| LogFailure::new(Doing::RemoveSegment, path, source);
        match shared.env.remove(path).await {
            Ok(()) => {}
            // Somebody else has removed it: it was not needed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        shared.env.sync_dir(&shared.dir).await.map_err(failed)
    }

    async fn wait_for_space(&self) {
        let shared = &self.lane.shared;
        shared.state.borrow_mut().space = Space::Short;
        shared.wake.raise();
        shared.env.sleep(SPACE_RETRY_AFTER).await;
    }
}

impl<E: Env> State<E> {
    /// The oldest segment, where it ended, nobody reads it and no entry in it counts; and where it ended.
    fn oldest_not_needed(&self) -> Option<(SegmentId, Mark)> {
        let (&id, segment) = self.segments.first_key_value()?;
        let end = segment.end.filter(|_| id != self.current.place.segment)?;
        if self.damaged.contains(&id) && self.is_repairing() {
            return None;
        }
        (segment.readers == 0 && !self.index.needs_entries_of(id)).then_some((id, end))
    }

    /// Whether a shard still lacks something that it lost: what is damaged is not touched until then.
    fn is_repairing(&self) -> bool {
        let is_whole = |tail: &Tail| tail.standing.is_none_or(|standing| standing == Standing::Whole);
        !self.tails.values().all(is_whole)
    }

    /// Whether the oldest segment can go without anything being written first.
    fn can_release_at_once(&self) -> bool {
        self.oldest_not_needed().is_some_and(|(id, _)| self.index.states_in(id).is_empty())
    }

    /// There was room for a manifest. Where a segment is wanted too, it is what tells.
    fn end_shortage(&mut self) {
        if self.spare.is_some() || self.phase >= Phase::Closing {
            self.space = Space::Enough;
        }
    }

    /// Forgets a segment; says whether its file is kept to be used again. Not where damage was found in it: a
    /// bad block would be there still, where nothing is written yet, and look like more.
    fn forget(&mut self, id: SegmentId) -> bool {
        self.open_files.retain(|(open, _)| *open != id);
        let is_damaged = self.damaged.remove(&id) | self.found.contains(id);
        self.found.forget(id);
        self.recent.forget(id);
        self.restated = None;
        let Some(segment) = self.segments.remove(&id) else { return false };
        let is_ours = segment.filled == FilledBy::ThisProcess;
        let is_kept = is_ours && !is_damaged && self.free.len() < FREE_MAX;
        if is_kept {
            self.free.push((id, segment.bytes));
        }
        is_kept
    }
}

/// Makes a new segment: allocated, written over, synced, and opened for batches. Where the disk is full,
/// nothing is left of it.
pub(super) async fn make_segment<E: Env>(
    env: &E,
    dir: &Path,
    place: Place,
    bytes: u64,
) -> Result<Active<E>, LogFailure> {
    let path = dir.join(segment_name(place.segment));
    let failed = |source| LogFailure::new(Doing::PrepareSegment, &path, source);
    if let Err(source) = fill_segment(env, dir, &path, place, bytes).await {
        let failure = failed(source);
        if failure.is_full() {
            // The file may not even have been made; what counts is the failure that is handed on.
            let _ = env.remove(&path).await;
        }
        return Err(failure);
    }
    let file = env.open(&path, OpenMode::Durable).await.map_err(failed)?;
    Ok(Active { place, bytes, path: path.clone(), file: Rc::new(file) })
}

async fn fill_segment<E: Env>(
    env: &E,
    dir: &Path,
    path: &Path,
    place: Place,
    bytes: u64,
) -> std::io::Result<()> {
    let file = env.open(path, OpenMode::Create).await?;
    file.allocate(bytes).await?;
    let mut header = env.buf(BLOCK_BYTES);
    encode_segment_header(header.as_mut(), &place, bytes);
    file.write_at(Rc::new(header), 0).await?;
    let whole = Rc::new(env.buf(FILL_BYTES));
    let mut at = SEGMENT_DATA_AT;
    while at < bytes {
        let rest = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let zeros = if rest >= FILL_BYTES { Rc::clone(&whole) } else { Rc::new(env.buf(rest)) };
        let len = zeros.as_ref().as_ref().len() as u64;
        file.write_at(zeros, at).await?;
        at += len;
    }
    file.sync().await?;
    file.close().await?;
    env.sync_dir(dir).await
}
