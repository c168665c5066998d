//! What a replica is told before it starts: who it is, who votes, and every limit.
//!
//! Invariants: [`Config::check`] holds for every configuration that a [`super::Raft`] runs on. It refuses, it
//! never repairs.
//!
//! Deliberately absent: anything in milliseconds. Time is ticks; the driver says how long one is.

use crate::ids::NodeId;

#[cfg(debug_assertions)]
use super::PlantedBug;

/// The most voters of one group: a quorum of more costs more than it protects.
pub const VOTERS_MAX: usize = 9;

/// How a linearizable read is made sure of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// A round of heartbeats proves that the leader still leads. No assumption about clocks.
    #[default]
    ReadIndex,
    /// Where a quorum acknowledged a heartbeat sent not long ago, nobody else can have been elected since,
    /// and the read is answered at once; else as [`ReadMode::ReadIndex`]. It holds as long as no node's ticks
    /// run more than a tenth faster than the leader's, **and only where the driver makes up the ticks that it
    /// owes before it reads**: a process that was stopped for a while must not trust the count from before.
    /// It must be set on all voters alike: a voter in this mode keeps its promise to the leader over a
    /// restart.
    Lease,
}

/// The settings of one replica. Byte limits count an entry as its data and [`super::ENTRY_OVERHEAD_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Everyone who votes, this node among them, each once.
    pub voters: Vec<NodeId>,
    /// T, in ticks: a follower that hears no leader for T to 1.5 T campaigns. At least 2 heartbeats.
    pub election_ticks: u32,
    /// Ticks between two heartbeats of a leader. At least 1.
    pub heartbeat_ticks: u32,
    /// Entries' bytes in one Append; a single larger entry still goes, alone.
    pub append_bytes_max: usize,
    /// Appends sent to one follower and not yet answered.
    pub window_messages_max: usize,
    /// Bytes of entries sent to one follower and not yet answered; one Append may pass it.
    pub window_bytes_max: usize,
    /// Bytes of entries kept in memory beyond those that are not yet durable or not yet applied.
    pub cache_bytes_max: usize,
    /// Bytes of entries proposed and not yet committed; a single larger one still goes, alone.
    pub uncommitted_bytes_max: usize,
    /// Reads asked for and not yet answered.
    pub reads_pending_max: usize,
    /// How linearizable reads are made sure of.
    pub read_mode: ReadMode,
    /// A fault put in on purpose, to see that the tests find it.
    #[cfg(debug_assertions)]
    pub planted: Option<PlantedBug>,
}

impl Config {
    /// The settings of a node with 10 ms ticks: T of one second, a heartbeat every 100 ms, limits for a busy
    /// shard.
    #[must_use]
    pub fn new(id: NodeId, voters: Vec<NodeId>) -> Self {
        Self {
            id,
            voters,
            election_ticks: 100,
            heartbeat_ticks: 10,
            append_bytes_max: 1 << 20,
            window_messages_max: 64,
            window_bytes_max: 8 << 20,
            cache_bytes_max: 8 << 20,
            uncommitted_bytes_max: 32 << 20,
            reads_pending_max: 8192,
            read_mode: ReadMode::ReadIndex,
            #[cfg(debug_assertions)]
            planted: None,
        }
    }

    /// How many voters decide.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The voters but this node.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.iter().copied().filter(|&voter| voter != self.id)
    }

    /// Panics where the settings contradict each other: a program made them, not a person.
    pub(super) fn check(&self) {
        let voters = &self.voters;
        assert!(voters.contains(&self.id), "node {} is not among the voters {voters:?}", self.id);
        assert!(voters.len() <= VOTERS_MAX, "{} voters, at most {VOTERS_MAX}", voters.len());
        for (position, voter) in voters.iter().enumerate() {
            assert!(voter.0 != 0, "a voter's id is 0: {voters:?}");
            assert!(!voters[..position].contains(voter), "voter {voter} is there twice: {voters:?}");
        }
        let (election, heartbeat) = (self.election_ticks, self.heartbeat_ticks);
        assert!(heartbeat >= 1, "a heartbeat every {heartbeat} ticks");
        assert!(election >= 2 * heartbeat, "election after {election} ticks, heartbeat every {heartbeat}");
        assert!(election <= 1 << 20, "election after {election} ticks");
        let (append, append_max) = (self.append_bytes_max, super::ENTRY_BYTES_MAX);
        assert!(append <= append_max, "appends of {append} bytes, at most {append_max}");
        assert!(self.window_messages_max >= 1, "window of {} messages", self.window_messages_max);
        assert!(self.window_bytes_max >= 1, "window of {} bytes", self.window_bytes_max);
        assert!(self.reads_pending_max >= 1, "room for {} reads", self.reads_pending_max);
    }

    /// For how many ticks after the send of an acknowledged heartbeat a lease holds. Less than T: a tenth for
    /// drift, and two ticks since neither send nor receipt fall on the stroke of one.
    pub(super) fn lease_ticks(&self) -> u64 {
        u64::from(self.election_ticks.saturating_sub(self.election_ticks.div_ceil(10) + 2))
    }
}
