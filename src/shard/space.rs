//! Room on the disk: what a node keeps free of it, and what is refused when that is touched.
//!
//! ```text
//!             free < watermark, or no room for a lane's next segment
//!   ┌ Enough ────────────────────────────────────────────► Reserved ┐
//!   │ all is served        ◄──────────────────────────────  Put, Append and Txn with them are refused;
//!   └                        free ≥ watermark + an eighth,   deletes, sessions, reads, elections go on
//!                            for a second                        │ ▲
//!                                 no spare, the last segment     ▼ │ a segment could be made
//!                                 nearly written                Exhausted ┐
//!                                                                  nothing is proposed, nobody campaigns;
//!                                                                  reads go on ┘
//! ```
//!
//! # What the reserve is for
//!
//! The watermark is a sum over the cores of a node, whose lanes lie on one file system:
//!
//! | part | for |
//! |---|---|
//! | the largest table of a core | a merge writes a new table before the old one goes |
//! | the changes of a core that no table holds | they are in tables before the log lets go of them |
//! | two segments a lane | what was under way at the look; elections, sessions, deletes |
//! | a little | manifests, directories |
//!
//! Of changes, as many are counted as there are, and at least twice `changes_bytes_max`: one shard may come
//! to that at any time. The log lets go of a segment only when the tables of all shards in it have what it
//! holds. So what was begun can be finished, and deleting does make room: below the watermark a shard whose
//! table holds much that was deleted is merged without waiting for its time, and the log keeps no more
//! segments than it has to.
//! A merge that cannot fit is not begun, since it would take what the log needs, and fail.
//!
//! # Followers
//!
//! A replica that follows refuses nothing: what its leader sends may be committed already. It writes it, out
//! of its reserve where it must, and says with every reply that its disk is short. So its leader knows when
//! the nodes that have room are no quorum any more, and then refuses what makes the data grow, whatever room
//! its own disk has: what is left of the reserves is for deletes and their merges. As long as they are a
//! quorum it goes on with them. A follower whose reserve is used up then writes nothing more; it acknowledges
//! nothing and counts for no commit, which is safe, and lags as a node does that is down. It answers
//! heartbeats, for they write nothing, and so holds its leader in office: reads go on. When there is room
//! again its writes go on where they stopped, or it fetches a table.
//!
//! A leader whose own disk is short hands leadership to a node with room, where there is one: a quorum of
//! the others can serve what it has to refuse. Where all are short it goes on leading, and they go on
//! campaigning.
//!
//! Invariants:
//! - What is refused here was not proposed.
//! - Nothing is refused for its size alone: a command either makes the data grow or it does not.
//! - A look at the disk only ever refuses or lets pass; what is written is decided by whether it fits.
//!
//! It deliberately does not look at the disk itself: the runner does, several times a second.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::CoreId;
use crate::kv::{Command, Operation, Write};
use crate::raft::Willingness;
use crate::route::call::FailureKind;
use crate::shard::config::Config;
use crate::shard::replica::Replica;

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// For how long there has to be enough before it is said, so that it is not said again and again.
const ENOUGH_FOR: Duration = Duration::from_secs(1);

/// Of each lane, for its manifest, directory and what the file system keeps about files.
const SMALL_FILES_BYTES: u64 = 1 << 20;

/// How long a shard rests, below the watermark, between two tables that make room.
const ROOM_REST: Duration = Duration::from_secs(1);

/// The segments that a lane keeps below the watermark: the current one and the spare.
pub(crate) const SEGMENTS_MIN: usize = 2;

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Everything is served.
    #[default]
    Enough,
    /// What is left is the reserve: what makes the data grow is refused.
    Reserved,
    /// Of a lane at least, even the reserve is used up.
    Exhausted,
}

/// The room on the disk as it was at the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) level: Level,
    /// Bytes that were free.
    pub(crate) free: u64,
    /// Bytes that are kept free.
    pub(crate) watermark: u64,
}

/// What a look found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Bytes that are free; `None` where the file system did not say.
    pub(crate) free: Option<u64>,
    /// Bytes to be kept free.
    pub(crate) watermark: u64,
    /// What the lanes know themselves.
    pub(crate) lanes: Level,
}

/// What a core keeps free for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserve {
    /// Its largest table, less what is written of the one that is being made.
    pub(crate) table: u64,
    /// Changes that no table holds.
    pub(crate) changes: u64,
    /// A segment's size, summed over its lanes.
    pub(crate) segments: u64,
    /// How many lanes it has.
    pub(crate) lanes: u64,
}

impl Reserve {
    pub(crate) fn bytes(&self) -> u64 {
        let lanes = self.segments.saturating_mul(2).saturating_add(self.lanes * SMALL_FILES_BYTES);
        self.table.saturating_add(self.changes).saturating_add(lanes)
    }
}

/// A core's judgement of the disk.
#[derive(Debug)]
pub(crate) struct Gauge {
    room: Room,
    enough_since: Option<Instant>,
    looked_at: Option<Instant>,
    is_looking: bool,
    own: u64,
    others: BTreeMap<CoreId, u64>,
}

impl Gauge {
    pub(crate) fn new() -> Self {
        Self {
            room: Room::default(),
            enough_since: None,
            looked_at: None,
            is_looking: false,
            own: 0,
            others: BTreeMap::new(),
        }
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// Whether it is time for another look, which then is under way.
    pub(crate) fn begin_look(&mut self, now: Instant) -> bool {
        let is_due = self.looked_at.is_none_or(|at| now.since(at) >= LOOK_EVERY);
        if is_due && !self.is_looking {
            (self.is_looking, self.looked_at) = (true, Some(now));
            return true;
        }
        false
    }

    /// What this core keeps free now; whether the others have to hear of it.
    pub(crate) fn set_own(&mut self, bytes: u64) -> bool {
        std::mem::replace(&mut self.own, bytes) != bytes
    }

    /// What another core keeps free.
    pub(crate) fn set_other(&mut self, core: CoreId, bytes: u64) {
        self.others.insert(core, bytes);
    }

    /// What all cores of the node keep free. Of one that was not heard yet, as much as of this one.
    pub(crate) fn watermark(&self, cores: u32, extra: u64) -> u64 {
        let unheard = u64::from(cores).saturating_sub(1 + self.others.len() as u64);
        let heard = self.others.values().fold(extra, |sum, bytes| sum.saturating_add(*bytes));
        heard.saturating_add(self.own.saturating_mul(1 + unheard))
    }

    /// Judges what a look found. The level that was before, where it is another now.
    pub(crate) fn note(&mut self, look: Look, now: Instant) -> Option<Level> {
        self.is_looking = false;
        let before = self.room.level;
        let free = look.free.unwrap_or(self.room.free);
        let is_known = look.free.is_some() || self.room.watermark > 0;
        let watermark = look.watermark;
        let is_low = is_known && free < watermark;
        let is_high = !is_known || free >= watermark.saturating_add(watermark / 8);
        let is_good = is_high && look.lanes == Level::Enough;
        let since = self.enough_since.filter(|_| is_good).unwrap_or(now);
        self.enough_since = is_good.then_some(since);
        let is_over = is_good && now.since(since) >= ENOUGH_FOR;
        let level = match look.lanes {
            Level::Exhausted => Level::Exhausted,
            Level::Reserved => Level::Reserved,
            Level::Enough if is_low || (before != Level::Enough && !is_over) => Level::Reserved,
            Level::Enough => Level::Enough,
        };
        self.room = Room { level, free, watermark };
        (level != before).then_some(before)
    }
}

/// Whether a file that is made found no room: on the disk, in a quota, or within the process' own limit of
/// file sizes; what is written short is short of the same.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | WriteZero)
}

/// Whether a command makes the data grow.
fn grows(command: &Command) -> bool {
    let is_growth =
        |operation: &Operation| matches!(operation, Operation::Put { .. } | Operation::Append { .. });
    match command {
        Command::Write { write: Write::Put { .. } | Write::Append { .. }, .. } => true,
        Command::Write { write: Write::Txn(txn), .. } => txn.then.iter().chain(&txn.otherwise).any(is_growth),
        Command::Write { write: Write::Delete { .. }, .. }
        | Command::OpenSession { .. }
        | Command::KeepAlive { .. }
        | Command::CloseSession { .. }
        | Command::Expire { .. } => false,
    }
}

impl<E: Env> Replica<E> {
    /// Why a command is not proposed now, where it is not.
    pub(crate) fn refusal(&self, command: &Command, config: &Config) -> Option<FailureKind> {
        let Room { level, free, watermark } = self.room;
        let is_short = level != Level::Enough;
        if self.lacks_quorum && grows(command) && !is_short {
            return Some(FailureKind::QuorumDiskFull);
        }
        let no_room = FailureKind::DiskFull { free, watermark };
        if self.lane.is_exhausted() || (is_short && grows(command)) {
            return Some(no_room);
        }
        // Too many because no table can be made of them, or because making it takes its time.
        let has_no_table = is_short || self.changes.found_no_room;
        let too_many = if has_no_table { no_room } else { FailureKind::Overloaded };
        // A delete is small, and is what a full disk needs: it passes for longer.
        let is_over =
            if grows(command) { self.has_too_many_changes(config) } else { self.memory_is_full(config) };
        is_over.then_some(too_many)
    }

    /// Takes the room in that the last look found.
    pub(crate) fn note_room(&mut self, room: Room, config: &Config) {
        self.room = room;
        let voters = config.layout.voters().len();
        let others = self.raft.peers().iter().filter(|peer| !peer.willing.has_room()).count();
        let without = others + usize::from(room.level != Level::Enough);
        self.lacks_quorum = voters - without < voters / 2 + 1;
    }

    /// Whether this node would lead, as far as room goes.
    pub(crate) fn room_willingness(&self) -> Willingness {
        match self.room.level {
            _ if self.lane.is_exhausted() => Willingness::Full,
            Level::Enough => Willingness::Willing,
            Level::Reserved | Level::Exhausted => Willingness::Short,
        }
    }

    /// The length of the shard's table.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.state.table().map_or(0, |table| table.footer().file_length)
    }

    /// By how much less the shard holds than its table.
    pub(crate) fn deleted_bytes(&self) -> u64 {
        let held = self.state.table().map_or(0, |table| table.meta().sums.bytes);
        held.saturating_sub(self.state.bytes())
    }

    /// About how many bytes of changes no table holds.
    pub(crate) fn untabled_bytes(&self) -> u64 {
        (self.state.memtable_bytes() + self.state.frozen_bytes()) as u64
    }

    /// Whether the next table would find room, and leave the log what it wants. Where there is enough, it
    /// does.
    pub(crate) fn next_table_fits(&self) -> bool {
        let sums = self.state.frozen().map(|frozen| frozen.meta().sums);
        let (keys, bytes) = match sums {
            Some(sums) => (sums.keys, sums.bytes),
            None => (self.state.keys(), self.state.bytes()),
        };
        let wanted = table_bytes_of(keys, bytes).saturating_add(self.lane.wanted_bytes());
        self.room.level == Level::Enough || wanted <= self.room.free
    }

    /// Whether the shard's next table is worth its writing for the room that it makes.
    pub(crate) fn is_due_for_room(&self, age: Duration, every: Duration) -> bool {
        let Some(table) = self.state.table().filter(|_| self.room.level != Level::Enough) else {
            return false;
        };
        let (held, gone) = (table.meta().sums.bytes, self.deleted_bytes());
        let is_much = gone >= (held / 8).min(self.room.watermark / 8).max(1);
        (is_much && age >= ROOM_REST) || (gone > 0 && age >= every)
    }
}

/// About how long a table is that holds so much: its blocks, filter and index, and pages that are not filled.
fn table_bytes_of(keys: u64, bytes: u64) -> u64 {
    const OF_KEY: u64 = 64;
    const FIXED: u64 = 64 << 10;
    bytes.saturating_add(bytes / 8).saturating_add(keys.saturating_mul(OF_KEY)).saturating_add(FIXED)
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
