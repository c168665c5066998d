//! What a runner is told when it starts.

use std::time::Duration;

use crate::ids::{CoreId, NodeId};
use crate::kv;
use crate::raft;
use crate::route::place::{Layout, Place};
use crate::shard::permits::NodePermits;

/// What a runner is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node and core that it is.
    pub place: Place,
    /// Counts the starts of this data directory: names calls of one life of the process.
    pub incarnation: u64,
    /// Where shards live.
    pub layout: Layout,
    /// Its clockwork.
    pub times: Times,
    /// What it holds at most.
    pub limits: Limits,
    /// Whether linearizable reads may rest on a lease.
    pub read_mode: raft::ReadMode,
    /// The limits of the state machine.
    pub kv: kv::Limits,
    /// When shards are made into tables, and how.
    pub snapshots: Snapshots,
    /// How many of the node's cores may make tables, and fetch them, at the same time: of all of its cores
    /// the same.
    pub permits: NodePermits,
    /// Bytes that are kept free on the disk beyond what is counted: see `space`.
    pub disk_reserve_bytes: u64,
    /// How its files are looked at while nobody asks for them.
    pub scrub: Scrub,
    /// A classic mistake, made on purpose to prove that the tests find it.
    #[cfg(debug_assertions)]
    pub planted: Option<PlantedBug>,
    /// One of raft's.
    #[cfg(debug_assertions)]
    pub planted_raft: Option<raft::PlantedBug>,
    /// One of the state machine's.
    #[cfg(debug_assertions)]
    pub planted_kv: Option<kv::PlantedBug>,
}

/// The clockwork of a runner.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The length of a tick.
    pub tick: Duration,
    /// The election timeout T, in ticks.
    pub election_ticks: u32,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: u32,
    /// After how long without an answer a call that may be sent again is.
    pub resend_after: Duration,
    /// How long a shard's leadership rests after it moved.
    pub spread_rest: Duration,
}

impl Times {
    /// The usual clockwork of an election timeout and a heartbeat: the longest ticks of which a whole number
    /// is a heartbeat, of at most T / 50 and 100 ms, and of at least a millisecond. A heartbeat that is asked
    /// for more often than each T / 200 or 50 ms is sent that often: a process that was stopped makes up its
    /// ticks, each with its heartbeat.
    ///
    /// Most of what an idle core costs is that it wakes for every tick: with 64 shards three quarters of what
    /// it does with T / 100. Candidates still have at least 25 ticks between T and 1.5 T to differ in.
    #[must_use]
    pub fn of(election: Duration, heartbeat: Duration) -> Self {
        let (least, most) = (Duration::from_millis(1), Duration::from_millis(100));
        let longest = (election / 50).clamp(least, most);
        let shortest = (election / 200).clamp(least, most / 2);
        let count = |ticks: u128| u32::try_from(ticks).unwrap_or(u32::MAX).max(1);
        let heartbeat_ticks = count(heartbeat.as_micros().div_ceil(longest.as_micros()));
        let tick = (heartbeat / heartbeat_ticks).max(shortest);
        Self {
            tick,
            election_ticks: count(election.as_micros().div_ceil(tick.as_micros())),
            heartbeat_ticks,
            resend_after: election * 2,
            spread_rest: Duration::from_secs(30),
        }
    }

    /// The election timeout T.
    #[must_use]
    pub fn election(&self) -> Duration {
        self.tick * self.election_ticks
    }
}

/// When the state of a shard is made into its next table, and how.
///
/// Of changes since the table before, where what was deleted of the table counts as well, by whichever comes
/// first: `changes_bytes_max`; half of the table's own
/// size, from `changes_bytes_min` on; an eighth of it after `every`; any at all after sixteen times that, or
/// where the log would keep more than `log_segments_max` segments for it. The first table after a start comes
/// up to twice as soon, so that shards which are written to alike make theirs one after another.
///
/// What is written for it: under a load that fills these bytes before those times are over, a table of T
/// bytes is written again for every C = min(`changes_bytes_max`, max(T / 2, `changes_bytes_min`)) of changes.
/// A change of a byte costs its place in the log and T / C bytes of tables:
///
/// | T | written for a byte of changes |
/// |---|---|
/// | up to 2 `changes_bytes_min` | 1 + T / `changes_bytes_min`, at most 3 |
/// | up to 2 `changes_bytes_max` | 3 |
/// | above | 1 + T / `changes_bytes_max` |
///
/// Changes are counted as memory holds them: with keys of 16 bytes and values of 256 a byte of them counts
/// 1.4. The tables' part is a bound: what changes while a table is made, or waits for its turn, shares the
/// next one. The log's part is more than 1 by headers and by the zeros that fill a batch's last block: 1.4
/// for full batches, a block for a lone small change. A trickle costs T each time.
///
/// Measured with such keys overwritten at random on one node of eight shards, bytes written by the process
/// for a byte of keys and values: 2.4 (1.0 of it tables) with T of 4 MB; 4.8 (3.0) with T of 40 MB; 7.7 (5.8)
/// with T of 40 MB and `changes_bytes_max` of 4 MiB.
///
/// What is on disk for it: T (1.17 bytes for a byte of such keys and values), twice that of a shard whose
/// table is being made, and the log's segments: 1.7 bytes a byte with T of 40 MB.
#[derive(Clone, Copy, Debug)]
pub struct Snapshots {
    /// The most bytes of changes that a shard keeps in memory and in the log's tail before they are made into
    /// a table. Of twice as many and more all are refused but
    /// deletes until the table is there, of four times as many those, too.
    pub changes_bytes_max: usize,
    /// Fewer bytes of changes than these wait for their time.
    pub changes_bytes_min: usize,
    /// After this time fewer changes are enough.
    pub every: Duration,
    /// How long a merge goes on before others have their turn.
    pub step_time: Duration,
    /// The most bytes of entries that are merged meanwhile, by whatever clock.
    pub step_bytes: usize,
    /// How long a merge rests between two steps where there is hurry: a core's shard has three quarters of
    /// `changes_bytes_max` in memory, somebody waits for its table, another core for its permit, or the disk
    /// is short.
    pub rest: Duration,
    /// The same where there is none. A merge then has little of the core; other nodes make tables of the same
    /// changes just then, and calls wait for all of them.
    pub rest_calm: Duration,
    /// How many entries before a table's end the log keeps, so that a follower that was away for a moment
    /// needs no table.
    pub keep_entries: u64,
    /// A lane of more segments than these has those made into tables first that need the oldest one.
    pub log_segments_max: usize,
    /// How long a follower rests between two parts of a table that it fetches.
    pub part_rest: Duration,
    /// The bytes of tables' blocks that a core keeps in memory.
    pub cache_bytes_max: usize,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            changes_bytes_max: 32 << 20,
            changes_bytes_min: 4 << 20,
            every: Duration::from_secs(30),
            step_time: Duration::from_micros(50),
            step_bytes: 64 << 10,
            rest: Duration::from_micros(100),
            rest_calm: Duration::from_micros(500),
            keep_entries: 4096,
            log_segments_max: 8,
            part_rest: Duration::from_millis(2),
            cache_bytes_max: 128 << 20,
        }
    }
}

/// How the files of a core are looked at while nobody asks for what is in them.
#[derive(Clone, Copy, Debug)]
pub struct Scrub {
    /// The most bytes that are read for it in a second. Zero: none.
    pub bytes_per_s: u64,
    /// The least time from the begin of a round to the begin of the next. The first begins after a sixtieth.
    pub round_min: Duration,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { bytes_per_s: 4 << 20, round_min: Duration::from_secs(3600) }
    }
}

/// What a runner holds at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls of this core's edge that have no answer yet. Fewer than half the numbers a receiver remembers.
    pub calls_max: usize,
    /// Events that wait for a turn.
    pub inbox_max: usize,
    /// Bytes that wait to leave for one place.
    pub outbox_bytes_max: usize,
    /// Entries that one replica applies before the others have their turn.
    pub apply_entries_max: usize,
    /// Bytes read from the log at a time, for a slow follower or at start.
    pub fetch_bytes_max: usize,
    /// Streams of ordered calls that one replica keeps apart.
    pub streams_max: usize,
    /// Reads that wait for one replica's read rounds.
    pub reads_pending_max: usize,
    /// Bytes of entries in one raft message.
    pub append_bytes_max: usize,
    /// Raft messages in flight to one follower of a shard.
    pub window_messages_max: usize,
    /// Bytes of entries in flight to one follower of a shard.
    pub window_bytes_max: usize,
    /// Bytes of recent entries that a replica keeps in memory.
    pub cache_bytes_max: usize,
    /// Bytes proposed and not yet committed.
    pub uncommitted_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_max: 16 << 10,
            inbox_max: 64 << 10,
            outbox_bytes_max: 32 << 20,
            apply_entries_max: 4096,
            fetch_bytes_max: 1 << 20,
            streams_max: 4096,
            reads_pending_max: 16 << 10,
            append_bytes_max: 1 << 20,
            window_messages_max: 64,
            window_bytes_max: 8 << 20,
            cache_bytes_max: 8 << 20,
            uncommitted_bytes_max: 64 << 20,
        }
    }
}

const _: () = assert!(crate::route::window::WIDTH >= 4 * (16 << 10));

impl Config {
    /// The node that it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.place.node
    }

    /// The core that it is.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.place.core
    }

    /// Whether this mistake is to be made.
    #[cfg(debug_assertions)]
    pub(crate) fn is_planted(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    /// No mistake is ever made on purpose in a build that serves.
    #[cfg(not(debug_assertions))]
    pub(crate) fn is_planted(&self, _bug: PlantedBug) -> bool {
        false
    }
}

/// Classic mistakes of driving replicas, each found by the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A leader that steps down answers its waiting changes as if they had been applied.
    ReplyFromDeposedLeader,
    /// A change without a request id is sent again when no answer came.
    ResentWithoutAnswer,
    /// A forwarded change is proposed in whatever term its receiver leads.
    ProposedInLaterTerm,
    /// A call whose first sending was lost ends in "not executed".
    NotExecutedAfterLostSending,
    /// A repeated call is taken for a new one.
    RepeatsAdmitted,
    /// A read is answered before the state has caught up with its index.
    ReadBeforeApplied,
    /// A linearizable read is served as a stale one: by whichever node was asked, from what it has applied.
    ReadServedByAnyNode,
    /// A node with an unknown data directory votes at once.
    WipedNodeVotes,
    /// The leader's digest is taken for the right one, whatever the majority's is.
    DigestOfLeaderCounts,
    /// The log is let go of when a table is begun, not when it is durable and named.
    LogReleasedBeforeTable,
}

#[cfg(debug_assertions)]
impl PlantedBug {
    /// Every one of them.
    pub const ALL: [Self; 10] = [
        Self::ReplyFromDeposedLeader,
        Self::ResentWithoutAnswer,
        Self::ProposedInLaterTerm,
        Self::NotExecutedAfterLostSending,
        Self::RepeatsAdmitted,
        Self::ReadBeforeApplied,
        Self::ReadServedByAnyNode,
        Self::WipedNodeVotes,
        Self::DigestOfLeaderCounts,
        Self::LogReleasedBeforeTable,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_a_whole_number_of_ticks() {
        for (election_ms, heartbeat_ms, tick_us, election_ticks, heartbeat_ticks) in [
            (1000, 100, 20_000, 50, 5),
            (200, 20, 4000, 50, 5),
            (1000, 30, 15_000, 67, 2),
            (1000, 5, 5000, 200, 1),
            (1000, 333, 19_588, 52, 17),
            (50, 5, 1000, 50, 5),
            (60_000, 100, 100_000, 600, 1),
            (60_000, 20_000, 100_000, 600, 200),
            (60_000, 5, 50_000, 1200, 1),
        ] {
            let of = Duration::from_millis;
            let times = Times::of(of(election_ms), of(heartbeat_ms));
            let found = (times.tick.as_micros(), times.election_ticks, times.heartbeat_ticks);
            assert_eq!(found, (tick_us, election_ticks, heartbeat_ticks), "T {election_ms}, {heartbeat_ms}");
        }
    }
}
