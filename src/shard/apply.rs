//! How a replica applies what is committed, and answers whoever waits for it.
//!
//! Entries usually are in raft's cache. Where they are not (at start, or far behind) they are read from the
//! log, some at a time, by a task of their own; applying goes on when they are here. Before a command is
//! applied, the entries of the shard's table that it needs are resolved: the state machine never reads a
//! file.
//!
//! Invariant: a waiter is answered from the entry that was applied at its index, and only where that is the
//! very entry (index and term) that was proposed for it.

use std::collections::VecDeque;

use crate::env::Env;
use crate::env::stages::Stage;
use crate::ids::{Index, Term};
use crate::kv::table::{Block, BlockHandle};
use crate::kv::{self, Applied, Command, Refusal, Resolved};
use crate::log;
use crate::raft::Entry;
use crate::route::call::{Body, FailureKind};
use crate::shard::cache::{AtHand, Pinned};
use crate::shard::config::Config;
use crate::shard::end::RunEnd;
use crate::shard::event::{BlocksFor, ReadPurpose};
use crate::shard::repair::Spoil;
use crate::shard::replica::{BlockLoad, LogRead, Replica, Stuck, Turn};
use crate::shard::table::TableReadError;

/// How many entries behind one that waits for blocks are looked at for theirs.
const LOOK_AHEAD_ENTRIES_MAX: u64 = 256;

/// How many entries are decoded before the first of them is applied, so that their keys are fetched from
/// memory together.
const DECODED_AHEAD_MAX: u64 = 64;

/// How many blocks are asked for at once, unless one entry needs more.
const LOOK_AHEAD_BLOCKS_MAX: usize = 64;

/// The command of an entry.
struct Decoded {
    index: Index,
    term: Term,
    command: Command,
}

/// How far the application of an entry came.
enum Applying {
    /// It is applied.
    Done,
    /// It waits for blocks of the table.
    Loading,
}

impl<E: Env> Replica<E> {
    /// Applies what is committed and at hand, up to the limit of one turn.
    pub(crate) fn apply(&mut self, turn: &mut Turn<'_>) {
        let before = self.state.applied();
        let watch = turn.watch.filter(|_| before < self.committed);
        let began = watch.map(|watch| (watch.clock)());
        self.apply_some(turn);
        let applied = self.state.applied();
        if let Some((watch, began)) = watch.zip(began).filter(|_| applied > before) {
            watch.stages.add(Stage::Apply, (watch.clock)().since(began), applied.0 - before.0);
        }
        self.raft.applied(applied);
        self.answer_ready_reads(turn);
    }

    fn apply_some(&mut self, turn: &mut Turn<'_>) {
        let mut ahead = VecDeque::new();
        for _ in 0..turn.config.limits.apply_entries_max {
            let next = self.state.applied().next();
            if next > self.committed || self.is_loading() || self.is_held_back(next, turn.config) {
                break;
            }
            let stuck = self.stuck.as_ref().map(|stuck| stuck.entry.clone());
            let Some(entry) = stuck.or_else(|| self.take_entry(next)) else {
                self.fetch_for_apply(next, turn);
                break;
            };
            if ahead.is_empty() {
                ahead = self.decode_ahead(&entry);
            }
            match self.apply_entry(&entry, ahead.pop_front(), turn) {
                Ok(Applying::Done) => self.keep_digest(),
                Ok(Applying::Loading) => break,
                Err(source) => {
                    let (shard, index) = (self.shard, entry.index);
                    turn.out.end = Some(RunEnd::Command { shard, index, source });
                    break;
                }
            }
            #[cfg(debug_assertions)]
            if entry.index == self.recovered_last {
                self.state.restarted();
            }
        }
        let (applied, committed) = (self.state.applied(), self.committed);
        assert!(applied <= committed, "shard {}: applied {applied} of {committed}", self.shard);
    }

    /// Whether there is more to apply at once, in a later turn.
    pub(crate) fn has_more_to_apply(&self, config: &Config) -> bool {
        let next = self.state.applied().next();
        next <= self.committed && !self.is_fetching && !self.is_loading() && !self.is_held_back(next, config)
    }

    /// Whether an entry has to wait although it is at hand: a table that covers it is about to take the place
    /// of the state, or a table is due and can be made of what the own disk holds alone, or memory holds all
    /// the changes that it may until a table has some.
    fn is_held_back(&self, next: Index, config: &Config) -> bool {
        let is_covered = self.coming.is_some_and(|index| next >= index);
        self.repair.is_spoiled()
            || is_covered
            || (self.changes.waits_for_disk && next > self.raft.persisted_index())
            || self.memory_is_full(config)
    }

    /// Whether the entry that is applied next waits for blocks of the table.
    fn is_loading(&self) -> bool {
        self.stuck.as_ref().is_some_and(|stuck| stuck.is_loading)
    }

    /// Blocks of the table are here.
    pub(crate) fn blocks_read(
        &mut self,
        waiter: BlocksFor,
        result: Result<Vec<Block>, TableReadError>,
        turn: &mut Turn<'_>,
    ) {
        let blocks = match result {
            Ok(blocks) => blocks,
            Err(source) => {
                // A table that was replaced meanwhile may have been damaged: it is none of this state's.
                if self.table.as_ref().is_some_and(|table| table.path() == source.path()) {
                    self.spoil(Spoil::Table(source), turn);
                }
                return;
            }
        };
        let current = self.table.as_ref().map(|table| table.salt());
        for block in blocks.iter().filter(|block| Some(block.handle().table) == current) {
            self.cache.borrow_mut().insert(block.clone());
        }
        match waiter {
            BlocksFor::Apply => {
                // None waits where a leader's table took the place of the state meanwhile.
                if let Some(stuck) = self.stuck.as_mut().filter(|stuck| stuck.is_loading) {
                    stuck.pinned.add(&blocks);
                    stuck.is_loading = false;
                }
                self.apply(turn);
            }
            BlocksFor::Read(number) => {
                if let Some(mut reading) = self.loading.remove(&number) {
                    reading.pinned.add(&blocks);
                    self.read_state(reading, turn);
                }
            }
        }
    }

    /// Entries that were read from the log are here.
    pub(crate) fn log_read(
        &mut self,
        purpose: ReadPurpose,
        result: Result<Vec<Entry>, log::ReadError>,
        turn: &mut Turn<'_>,
    ) {
        let shard = self.shard;
        match (purpose, result) {
            (ReadPurpose::Follower(to), Ok(entries)) => self.raft.fetched(to, entries),
            (ReadPurpose::Apply, Ok(entries)) => {
                assert!(self.is_fetching, "shard {shard}: entries are here that were not asked for");
                self.is_fetching = false;
                self.fetched = entries.into();
                self.apply(turn);
            }
            // A table took the place of the state, and of the entries that were read for it.
            (ReadPurpose::Apply, Err(log::ReadError::Released { first }))
                if first <= self.state.applied().next() =>
            {
                self.is_fetching = false;
                self.apply(turn);
            }
            // It was let go of meanwhile: the follower gets the table.
            (
                ReadPurpose::Follower(to),
                Err(log::ReadError::Released { .. } | log::ReadError::Beyond { .. }),
            ) => {
                self.raft.fetched(to, Vec::new());
            }
            // Nothing that the disk says of the entries, which would be damage: it may work when raft asks
            // again, as soon as the follower is heard of next.
            (ReadPurpose::Follower(to), Err(source @ log::ReadError::Failed(_))) => {
                tracing::warn!(%shard, %to, %source, "entries for a follower could not be read");
                self.raft.fetched(to, Vec::new());
            }
            (ReadPurpose::Follower(to), Err(source @ log::ReadError::Damaged(_))) => {
                self.follower_needs_lost(to, &source);
            }
            (ReadPurpose::Apply, Err(source)) => {
                self.is_fetching = false;
                self.spoil(Spoil::Log(source), turn);
            }
        }
    }

    fn take_entry(&mut self, index: Index) -> Option<Entry> {
        while let Some(entry) = self.fetched.pop_front() {
            if entry.index == index && self.raft.term_at(index) == Some(entry.term) {
                return Some(entry);
            }
        }
        self.raft.cached(index).cloned()
    }

    /// An entry in memory, wherever it is.
    fn at_hand(&self, index: Index) -> Option<&Entry> {
        let first = self.fetched.front().map_or(index.next(), |entry| entry.index);
        let place = index.0.checked_sub(first.0).and_then(|place| usize::try_from(place).ok());
        let fetched = place.and_then(|place| self.fetched.get(place));
        let is_it = |entry: &&Entry| entry.index == index && self.raft.term_at(index) == Some(entry.term);
        fetched.filter(is_it).or_else(|| self.raft.cached(index))
    }

    fn fetch_for_apply(&mut self, first: Index, turn: &mut Turn<'_>) {
        let last = self.committed.min(self.raft.persisted_index());
        assert!(first <= last, "shard {}: entry {first} is neither in memory nor on disk", self.shard);
        if !self.is_fetching {
            self.is_fetching = true;
            turn.out.reads.push(LogRead {
                shard: self.shard,
                purpose: ReadPurpose::Apply,
                first,
                last,
                bytes_max: turn.config.limits.fetch_bytes_max,
            });
        }
    }

    /// The commands that are applied next, as far as they are at hand; their keys are on their way from
    /// memory.
    fn decode_ahead(&self, first: &Entry) -> VecDeque<Decoded> {
        let last = self.committed.0.min(first.index.0 + DECODED_AHEAD_MAX - 1);
        let later = (first.index.0 + 1..=last).map_while(|index| self.at_hand(Index(index)));
        let decoded = std::iter::once(first).chain(later).map_while(|entry| {
            if entry.data.is_empty() {
                return None;
            }
            let command = Command::decode(entry.data.clone()).ok()?;
            Some(Decoded { index: entry.index, term: entry.term, command })
        });
        let decoded: VecDeque<Decoded> = decoded.collect();
        if decoded.len() > 1 {
            self.state.warm(decoded.iter().filter_map(|decoded| decoded.command.key()));
        }
        decoded
    }

    /// Applies the next entry. One that is no command of this version cannot be left out either: the replicas
    /// would differ.
    fn apply_entry(
        &mut self,
        entry: &Entry,
        decoded: Option<Decoded>,
        turn: &mut Turn<'_>,
    ) -> Result<Applying, kv::DecodeError> {
        assert_eq!(entry.index, self.state.applied().next(), "shard {}: entries apply in order", self.shard);
        if entry.data.is_empty() {
            self.state.apply_noop(entry.index);
            self.answer_other(entry.index, entry.term, turn);
            return Ok(Applying::Done);
        }
        let decoded = decoded.filter(|decoded| (decoded.index, decoded.term) == (entry.index, entry.term));
        let command = match decoded {
            Some(decoded) => decoded.command,
            None => Command::decode(entry.data.clone())?,
        };
        let pinned = self.stuck.take().map(|stuck| stuck.pinned).unwrap_or_default();
        if let Some(applied) = self.state.overwrite(entry.index, &command) {
            self.changes.add(entry.cost_bytes());
            self.answer_applied(entry, Ok(applied), turn);
            return Ok(Applying::Done);
        }
        let at_hand = &mut AtHand { cache: &self.cache, pinned: &pinned };
        let base = match self.state.resolve(&command, at_hand) {
            Resolved::Done(base) => base,
            Resolved::Missing(handles) => {
                self.load_for_apply(entry, pinned, handles, turn);
                return Ok(Applying::Loading);
            }
        };
        self.changes.add(entry.cost_bytes());
        let outcome = self.state.apply(entry.index, &command, &base);
        self.answer_applied(entry, outcome, turn);
        Ok(Applying::Done)
    }

    /// Answers whoever waits for an entry, of which this came.
    fn answer_applied(&mut self, entry: &Entry, outcome: Result<Applied, Refusal>, turn: &mut Turn<'_>) {
        match self.waiters.remove(&entry.index) {
            Some(waiter) if waiter.term == entry.term => {
                let outcome = match outcome {
                    Ok(applied) => Ok(self.answered(applied.revision, Body::Command(applied.answer), turn)),
                    Err(refusal) => Err(self.failure(FailureKind::Refused(refusal))),
                };
                self.reply(waiter.caller, outcome, turn);
            }
            Some(waiter) => self.fail(waiter.caller, FailureKind::NotProposed, turn),
            None => {}
        }
    }

    /// Has the blocks loaded that the next entry needs, and those of the entries behind it that are at hand
    /// and were not looked at yet: one wait for many.
    fn load_for_apply(
        &mut self,
        entry: &Entry,
        pinned: Pinned,
        mut handles: Vec<BlockHandle>,
        turn: &mut Turn<'_>,
    ) {
        let first = entry.index.max(self.looked_ahead).0 + 1;
        let behind = first..=self.committed.0.min(entry.index.0 + LOOK_AHEAD_ENTRIES_MAX);
        for index in behind {
            let Some(entry) = self.at_hand(Index(index)).filter(|entry| !entry.data.is_empty()) else {
                break;
            };
            if handles.len() >= LOOK_AHEAD_BLOCKS_MAX {
                break;
            }
            let Ok(command) = Command::decode(entry.data.clone()) else { break };
            self.looked_ahead = Index(index);
            let at_hand = &mut AtHand { cache: &self.cache, pinned: &pinned };
            if let Resolved::Missing(more) = self.state.resolve(&command, at_hand) {
                handles.extend(more);
            }
        }
        handles.sort_unstable();
        handles.dedup();
        self.stuck = Some(Stuck { entry: entry.clone(), pinned, is_loading: true });
        turn.out.loads.push(BlockLoad { shard: self.shard, waiter: BlocksFor::Apply, handles });
    }

    /// Another entry than the one proposed stands at its index: that one will never be applied.
    fn answer_other(&mut self, index: Index, term: Term, turn: &mut Turn<'_>) {
        if let Some(waiter) = self.waiters.remove(&index) {
            assert!(waiter.term != term, "the no-op of term {term} at {index} was proposed by a caller");
            self.fail(waiter.caller, FailureKind::NotProposed, turn);
        }
    }
}
