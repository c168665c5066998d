//! A replica whose state is not to be trusted any more, on its way back.
//!
//! ```text
//!  table cannot be read ──┐                                ┌─ asks its leader, then the others in turn, for
//!  log cannot be applied ─┼─► spoiled: applies nothing, ───┤  table that ends where its state does or later
//!  digest is alone ───────┘   answers nothing, leads not   └─► fetched, checked, installed ─► whole again
//! ```
//!
//! It is the state that is lost here, not the log: hard state, votes and entries are as good as before, so
//! the replica votes, takes entries and acknowledges them as it always did. What the log lost is raft's
//! affair (`raft::recovering`).
//!
//! What counts as damage, and is counted in the status of the lane, is
//! - a replica whose log lost something, as it is found at a start, until it is whole: also that of a node
//!   that was wiped;
//! - a replica whose state was spoiled, whatever else is found of it meanwhile, until it has another;
//! - a segment of the log in which damage is found and nobody has lost anything by it (at a start, by the
//!   scrub, or by whoever reads it: also where a state is spoiled because of that), until it is let go of. It
//!   counts once, however often it is found.
//!
//! Each is counted when it is found and when it has come to its end, so that the counts agree where nothing
//! is left to be done.
//!
//! Invariants:
//! - While it is spoiled nothing is applied, so that the table that is asked for does not run away, and no
//!   read is answered. The log is not let go of.
//! - What takes the place of the state is a table of a peer that ends no earlier than the state did, of the
//!   very entry that the own log has there.
//! - A state that is spoiled for its digest alone is so after a restart, too: nothing else would show it.
//! - In a cluster of one there is nobody to ask: the process ends, as it does for a failed write.
//!
//! It lives on the core of its shard, and is owned by the replica.

use std::fmt;
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::{Index, NodeId};
use crate::kv::MergeError;
use crate::log;
use crate::raft::{Role, SnapshotOffer, Standing};
use crate::route::call::FailureKind;
use crate::shard::end::RunEnd;
use crate::shard::replica::{Replica, Turn};
use crate::shard::table::TableReadError;

/// How long a replica rests after a peer from which no table could be had.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why a replica's state is not to be trusted.
#[derive(Debug)]
pub enum Spoil {
    /// Its table cannot be read.
    Table(TableReadError),
    /// Entries that are to be applied cannot be read from the log.
    Log(log::ReadError),
    /// Its table and its memory do not come to what was counted.
    Merge(MergeError),
    /// Its digest is not that of the majority.
    Digest {
        /// The entry after which the digests were taken.
        index: Index,
        /// The own one.
        own: u64,
        /// The majority's.
        majority: u64,
    },
}

impl fmt::Display for Spoil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(source) => source.fmt(f),
            Self::Log(source) => source.fmt(f),
            Self::Merge(source) => source.fmt(f),
            Self::Digest { index, own, majority } => {
                write!(f, "the digest at {index} is {own:016x}, that of the majority {majority:016x}")
            }
        }
    }
}

/// What became of a replica's state and of its log, and how often.
#[derive(Debug)]
pub(crate) struct Repair {
    spoiled: Option<Spoiled>,
    /// The standing that was last looked at.
    standing: Standing,
    /// How often something was lost of it since the start.
    pub(crate) damaged: u64,
    /// How often it had it again.
    pub(crate) repaired: u64,
}

/// A state that is not to be trusted.
#[derive(Debug)]
struct Spoiled {
    /// The table that is asked for ends here or later.
    index_min: Index,
    /// When the next peer may be asked.
    asks_at: Instant,
    /// How many were asked.
    asked: usize,
    since: Instant,
    /// Whether it counts here: else it is a damage of the lane's, and counts there.
    counts: bool,
}

impl Repair {
    /// Of a replica that starts with this standing.
    pub(crate) fn new(standing: Standing) -> Self {
        let damaged = u64::from(standing != Standing::Whole);
        Self { spoiled: None, standing, damaged, repaired: 0 }
    }

    /// Whether the state is not to be trusted.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled.is_some()
    }

    /// Whether the next peer may be asked for a state.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.spoiled.as_ref().is_some_and(|spoiled| now >= spoiled.asks_at)
    }
}

impl<E: Env> Replica<E> {
    /// The state is not to be trusted any more. Alone, that is the end.
    pub(crate) fn spoil(&mut self, why: Spoil, turn: &mut Turn<'_>) {
        let shard = self.shard;
        if turn.config.layout.voters().len() == 1 {
            turn.out.end = Some(self.end_of(why));
            return;
        }
        if let Spoil::Digest { .. } = why {
            self.lane.doubt_table(shard);
        }
        // Entries that cannot be read are not applied by anything but a table that has them.
        let index_min = match &why {
            Spoil::Log(_) => self.committed.max(self.state.applied()),
            Spoil::Table(_) | Spoil::Merge(_) | Spoil::Digest { .. } => self.state.applied(),
        };
        tracing::error!(%shard, %index_min, %why, "the state is damaged: it is fetched from a peer");
        let spoiled = match self.repair.spoiled.take() {
            Some(before) => {
                Spoiled { index_min: before.index_min.max(index_min), asks_at: turn.now, ..before }
            }
            None => {
                let counts = !self.is_of_segment(&why);
                self.repair.damaged += u64::from(counts);
                Spoiled { index_min, asks_at: turn.now, asked: 0, since: turn.now, counts }
            }
        };
        self.repair.spoiled = Some(spoiled);
        self.stuck = None;
        self.fetched.clear();
        self.refuse_reads(turn);
        self.step_aside();
    }

    /// Whether a state is spoiled by damage in a segment of the log, which the lane counts.
    fn is_of_segment(&self, why: &Spoil) -> bool {
        match why {
            Spoil::Log(log::ReadError::Damaged(damage)) => {
                self.lane.note_damage(damage) != log::DamageNews::Elsewhere
            }
            Spoil::Log(
                log::ReadError::Failed(_) | log::ReadError::Released { .. } | log::ReadError::Beyond { .. },
            )
            | Spoil::Table(_)
            | Spoil::Merge(_)
            | Spoil::Digest { .. } => false,
        }
    }

    fn end_of(&self, why: Spoil) -> RunEnd {
        let shard = self.shard;
        match why {
            Spoil::Table(source) => RunEnd::Table { shard, source },
            Spoil::Log(source) => RunEnd::LogRead { shard, source },
            Spoil::Merge(source) => RunEnd::Merge { shard, source },
            Spoil::Digest { index, .. } => RunEnd::Digest { shard, index },
        }
    }

    /// Reads that wait are refused: another replica may serve them.
    fn refuse_reads(&mut self, turn: &mut Turn<'_>) {
        let loading = std::mem::take(&mut self.loading).into_values().map(|reading| reading.waiter);
        let ready = std::mem::take(&mut self.reads_ready).into_values();
        let asked = std::mem::take(&mut self.reads).into_values();
        for waiter in loading.chain(ready).chain(asked).collect::<Vec<_>>() {
            self.fail(waiter.caller, FailureKind::NotProposed, turn);
        }
    }

    /// A leader that cannot answer hands over, or steps down where nobody would take over.
    fn step_aside(&mut self) {
        self.tell_willingness();
        let leads = self.raft.role() == Role::Leader;
        if leads && self.raft.transferring().is_none() && self.raft.transfer(None).is_err() {
            self.raft.step_down();
        }
    }

    /// Looks after a repair, with every tick.
    pub(crate) fn tick_repair(&mut self) {
        if self.repair.is_spoiled() {
            self.step_aside();
        }
        let standing = self.raft.standing();
        let before = std::mem::replace(&mut self.repair.standing, standing);
        if before != Standing::Whole && standing == Standing::Whole {
            self.repair.repaired += 1;
            let (shard, index) = (self.shard, self.raft.persisted_index());
            tracing::info!(%shard, %index, "the log is whole again");
        }
    }

    /// Whom to ask for a table now, and from which entry on: the leader, or each of the others in turn.
    pub(crate) fn repair_due(&mut self, now: Instant) -> Option<(SnapshotOffer, Index)> {
        let own = self.raft.id();
        let spoiled = self.repair.spoiled.as_mut().filter(|spoiled| now >= spoiled.asks_at)?;
        let others: Vec<NodeId> =
            self.raft.config().voters.iter().copied().filter(|node| *node != own).collect();
        let leader = self.raft.leader().filter(|leader| *leader != own && spoiled.asked.is_multiple_of(2));
        let from = leader.or_else(|| others.get(spoiled.asked / 2 % others.len().max(1)).copied())?;
        spoiled.asked += 1;
        spoiled.asks_at = now + ASK_AGAIN_AFTER;
        let index = spoiled.index_min;
        let term = self.raft.term_at(index).unwrap_or_default();
        Some((SnapshotOffer { from, index, term }, index))
    }

    /// Whether a table of a peer may take the place of a state that is not to be trusted.
    pub(crate) fn accepts_repair(&self, index: Index, term: crate::ids::Term) -> bool {
        let index_min = self.repair.spoiled.as_ref().map(|spoiled| spoiled.index_min);
        index_min.is_some_and(|min| index >= min) && self.raft.accepts_table(index, term)
    }

    /// A table of a peer took the place of the state.
    pub(crate) fn state_is_back(&mut self, now: Instant) {
        if let Some(spoiled) = self.repair.spoiled.take() {
            self.repair.repaired += u64::from(spoiled.counts);
            let (shard, ms) = (self.shard, now.since(spoiled.since).as_millis());
            let index = self.state.applied();
            tracing::info!(%shard, %index, ms, "the state is whole again");
        }
    }

    /// Entries for a follower cannot be read, though the log has them: the table that has them takes their
    /// place.
    pub(crate) fn follower_needs_lost(&mut self, to: NodeId, source: &log::ReadError) {
        let shard = self.shard;
        let is_news = match source {
            log::ReadError::Damaged(damage) => self.lane.note_damage(damage) == log::DamageNews::New,
            log::ReadError::Failed(_) | log::ReadError::Released { .. } | log::ReadError::Beyond { .. } => {
                false
            }
        };
        if is_news {
            tracing::error!(%shard, %to, %source, "entries for a follower are damaged: it gets the table");
        }
        self.raft.fetched(to, Vec::new());
        self.unpin();
    }
}
