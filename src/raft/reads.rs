//! Linearizable reads without a write: rounds of heartbeats, and leases.
//!
//! A read must see everything that was acknowledged before it was asked for. The leader's commit index covers
//! that if it still leads; so it begins a round: a heartbeat with a fresh id to all. A quorum of answers to
//! this round, or a later one, says that no other leader was elected before the round began. (An answer is
//! worth the same whether or not the answering node's own disk is quick: its votes are told only when they
//! are durable, and a vote for another means a newer term, in which it would not have answered so.)
//!
//! Invariants:
//! - A round's id is greater than that of every round before; together with the term it is unique.
//! - No read is taken before an entry of the leader's own term is committed: before that, its commit index
//!   may lag.
//! - A lease is counted from the send of a heartbeat that a quorum acknowledged, and never used in a term in
//!   which leadership was offered to another: the offer may arrive late, and overrides the voters' promise.
//!
//! Deliberately absent: reads on followers.

use std::collections::VecDeque;

use crate::ids::{Index, NodeId};

use super::config::{Config, ReadMode};
use super::planted::planted;
use super::ready::{ReadError, ReadState};
use super::{Raft, RoleState};

/// Rounds with reads under way at a time. Reads that come meanwhile share the next one: under load, fewer
/// heartbeats.
const ROUNDS_MAX: usize = 4;

/// Reads of a leader that are not answered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// Tokens of no round yet.
    waiting: Vec<u64>,
    rounds: VecDeque<ReadRound>,
    /// Tokens in all.
    pending: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReadRound {
    id: u64,
    index: Index,
    tokens: Vec<u64>,
}

impl Reads {
    /// Whether a round should begin.
    pub(super) fn is_due(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.len() < ROUNDS_MAX
    }

    fn push(&mut self, token: u64) {
        self.waiting.push(token);
        self.pending += 1;
    }

    /// Gives what waits to a round.
    fn begin(&mut self, id: u64, index: Index) {
        let tokens = std::mem::take(&mut self.waiting);
        assert!(self.rounds.len() < ROUNDS_MAX, "{} rounds of reads", self.rounds.len());
        self.rounds.push_back(ReadRound { id, index, tokens });
    }

    /// Answers what rounds up to this one were asked.
    fn confirm(&mut self, round: u64, answers: &mut Vec<ReadState>) {
        while let Some(first) = self.rounds.front().filter(|first| first.id <= round) {
            let index = first.index;
            self.pending -= first.tokens.len();
            answers.extend(first.tokens.iter().map(|&token| ReadState { token, index }));
            self.rounds.pop_front();
        }
    }

    /// Every token that will not be answered.
    pub(super) fn give_up(self, lost: &mut Vec<u64>) {
        lost.extend(self.rounds.into_iter().flat_map(|round| round.tokens));
        lost.extend(self.waiting);
    }
}

/// When rounds were sent, for leases: the first round of each tick of the last T.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LeaseClock {
    sent: VecDeque<(u64, u64)>,
}

impl LeaseClock {
    /// Notes that a round is sent at this tick.
    fn sent(&mut self, now_tick: u64, round: u64, ticks_max: u64) {
        while self.sent.front().is_some_and(|&(tick, _)| tick + ticks_max < now_tick) {
            self.sent.pop_front();
        }
        if self.sent.back().is_none_or(|&(tick, _)| tick < now_tick) {
            self.sent.push_back((now_tick, round));
        }
    }

    /// The tick at which a round was sent; `None` where that is too long ago to matter.
    pub(super) fn tick_of(&self, round: u64) -> Option<u64> {
        self.sent.iter().rev().find(|&&(_, first)| first <= round).map(|&(tick, _)| tick)
    }
}

impl Raft {
    /// See [`Raft::read`].
    pub(super) fn ask_read(&mut self, token: u64) -> Result<(), ReadError> {
        let leader = self.leader();
        let is_current = self.log.term_at(self.commit) == Some(self.term);
        let is_early = !is_current && !planted!(self.config, ReadBeforeFirstCommit);
        let has_lease = self.has_lease();
        let RoleState::Leader(own) = &mut self.role else { return Err(ReadError::NotLeader { leader }) };
        if is_early {
            return Err(ReadError::NotYet);
        }
        if own.reads.pending >= self.config.reads_pending_max {
            return Err(ReadError::Full);
        }
        if has_lease {
            self.out.reads.push(ReadState { token, index: self.commit });
        } else {
            own.reads.push(token);
        }
        Ok(())
    }

    /// Whether nobody else can lead at this tick.
    fn has_lease(&self) -> bool {
        let RoleState::Leader(own) = &self.role else { return false };
        if self.config.read_mode != ReadMode::Lease || own.is_lease_void {
            return false;
        }
        let ticks = own.peers.values().map(|progress| progress.lease_tick);
        let since = quorum_of(&self.config, Some(self.now_tick), ticks);
        since.is_some_and(|since| self.now_tick - since < self.config.lease_ticks())
    }

    /// Begins a round for the reads that wait, if one may begin. Alone, its own voice is a quorum at once.
    pub(super) fn begin_read_round(&mut self) {
        let RoleState::Leader(own) = &self.role else { return };
        if !own.reads.is_due() {
            return;
        }
        if !planted!(self.config, ReadIdReused) || self.round == 0 {
            self.begin_round();
        }
        let (round, commit) = (self.round, self.commit);
        self.send_heartbeats(|_| true);
        if let RoleState::Leader(own) = &mut self.role {
            own.reads.begin(round, commit);
        }
        self.confirm_reads();
    }

    /// Counts up the rounds. What is sent to all with it is the next regular heartbeat, too.
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
        let RoleState::Leader(own) = &mut self.role else { return };
        own.heartbeat_elapsed = 0;
        if self.config.read_mode == ReadMode::Lease {
            own.lease.sent(self.now_tick, self.round, u64::from(self.config.election_ticks));
        }
    }

    /// Answers the reads of every round that a quorum has answered.
    fn confirm_reads(&mut self) {
        let RoleState::Leader(own) = &mut self.role else { return };
        let rounds = own.peers.values().map(|progress| progress.round_acked);
        let confirmed = quorum_of(&self.config, self.round, rounds);
        own.reads.confirm(confirmed, &mut self.out.reads);
    }

    /// Notes that a follower answered a round.
    pub(super) fn note_round(&mut self, from: NodeId, round: u64) {
        let RoleState::Leader(own) = &mut self.role else { return };
        let sent_tick = own.lease.tick_of(round);
        let is_late = planted!(self.config, LeaseFromReceipt) && sent_tick.is_some();
        let Some(progress) = own.peers.get_mut(&from) else { return };
        progress.round_acked = progress.round_acked.max(round);
        progress.lease_tick = progress.lease_tick.max(if is_late { Some(self.now_tick) } else { sent_tick });
        self.confirm_reads();
    }
}

/// The greatest value that a quorum has reached, this node with its own.
pub(super) fn quorum_of<T: Ord>(config: &Config, own: T, others: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = others.chain(std::iter::once(own)).collect();
    assert!(values.len() == config.voters.len(), "{} values of {} voters", values.len(), config.voters.len());
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.swap_remove(config.quorum() - 1)
}
