//! How entries get from the leader to a quorum: appends, their answers, heartbeats, and the commit index.
//!
//! Invariants:
//! - An append leaves in parallel with the leader's own write; each of the two copies counts when it is
//!   durable.
//! - A follower's commit index follows the leader's only as far as its log is known to match.
//! - At most one append a follower and [`super::Ready`], unless limits of bytes split it.
//! - A commit index that no append carried reaches a follower by heartbeat at the next tick.
//! - Answers of one that does not count ([`Voice`]) say where to go on sending, and nothing else.
//!
//! Deliberately absent: followers that need what the log no longer holds; see `snapshot`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{Index, NodeId, Term};

use super::config::Config;
use super::log::Supply;
use super::message::{APPEND_ENTRIES_MAX, AppendOutcome, Body, Entry, Message, Voice, Willingness};
use super::planted::planted;
use super::progress::Progress;
use super::reads::{LeaseClock, Reads, quorum_of};
use super::ready::Fetch;
use super::transfer::Transfer;
use super::{Raft, RoleState};

/// What only a leader has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) peers: BTreeMap<NodeId, Progress>,
    /// The index of the no-op that opened the term.
    pub(super) term_first: Index,
    /// The commit index at the last regular heartbeat.
    pub(super) commit_at_heartbeat: Index,
    /// Ticks since the last round was begun.
    pub(super) heartbeat_elapsed: u32,
    /// Bytes of own entries that are not yet committed.
    pub(super) uncommitted_bytes: usize,
    pub(super) reads: Reads,
    pub(super) lease: LeaseClock,
    /// Whether leadership was offered to another in this term.
    pub(super) is_lease_void: bool,
    pub(super) transfer: Option<Transfer>,
}

impl Leader {
    /// What holds of every follower, with a log that ends at `last`.
    pub(super) fn check(&self, last: Index) {
        assert!(self.term_first <= last, "the term begins at {}, the log ends at {last}", self.term_first);
        for (id, progress) in &self.peers {
            let (matched, next) = (progress.matched(), progress.next());
            assert!(matched <= last, "node {id} matches to {matched}, but the log ends at {last}");
            let counted = progress.counted();
            assert!(counted <= matched, "node {id}: {counted} counted of {matched} matched");
            assert!(
                matched < next && next.0 <= last.0 + 1,
                "node {id}: {matched} matched, {next} next of {last}"
            );
        }
    }

    /// Whether the regular heartbeat is due. Of replicas that are ticked together, as those of a core are,
    /// all leaders send theirs at the same ticks, so that one frame carries them, and one the answers.
    fn heartbeat_is_due(&self, now_tick: u64, heartbeat_ticks: u32) -> bool {
        let is_common = now_tick.is_multiple_of(u64::from(heartbeat_ticks));
        self.heartbeat_elapsed >= if is_common { 1 } else { heartbeat_ticks }
    }

    /// Ticks since a quorum was last heard, of those that count.
    pub(super) fn contact_ticks(&self, config: &Config) -> u32 {
        let silent = self.peers.values().map(|progress| std::cmp::Reverse(progress.counted_ticks));
        quorum_of(config, std::cmp::Reverse(0), silent).0
    }
}

/// The leader's side.
impl Raft {
    /// Leads: opens the term with a no-op, and asks everyone where the logs match.
    pub(super) fn become_leader(&mut self) {
        let last = self.log.last_index();
        let peers = self.config.peers().map(|peer| (peer, Progress::new(last))).collect();
        self.role = RoleState::Leader(Box::new(Leader {
            peers,
            term_first: last.next(),
            commit_at_heartbeat: self.commit,
            heartbeat_elapsed: 0,
            uncommitted_bytes: 0,
            reads: Reads::default(),
            lease: LeaseClock::default(),
            is_lease_void: false,
            transfer: None,
        }));
        self.append_own(Bytes::new());
    }

    /// Takes an entry of the own term into the log.
    pub(super) fn append_own(&mut self, data: Bytes) -> Index {
        let entry = Entry { index: self.log.last_index().next(), term: self.term, data };
        if let RoleState::Leader(own) = &mut self.role {
            own.uncommitted_bytes += entry.cost_bytes();
        }
        let index = entry.index;
        self.log.append(entry);
        index
    }

    /// One tick of a leader.
    pub(super) fn tick_leader(&mut self) {
        let RoleState::Leader(own) = &mut self.role else { return };
        own.heartbeat_elapsed += 1;
        own.peers.values_mut().for_each(Progress::tick);
        let is_heartbeat_due = own.heartbeat_is_due(self.now_tick, self.config.heartbeat_ticks);
        let is_cut_off = own.contact_ticks(&self.config) >= self.config.election_ticks;
        if (is_cut_off && !planted!(self.config, QuorumNeverChecked)) || self.disk_stalled() {
            return self.become_follower(None);
        }
        self.tick_transfer();
        if is_heartbeat_due {
            self.begin_round();
            self.send_heartbeats(|_| true);
            self.repeat_transfer();
            self.repeat_snapshots();
            self.open_term_for_recovering();
        } else {
            let commit = self.commit;
            self.send_heartbeats(|progress| progress.commit_told < commit.min(progress.matched()));
        }
    }

    /// Sends a heartbeat with the latest round to those that are chosen.
    pub(super) fn send_heartbeats(&mut self, is_chosen: impl Fn(&Progress) -> bool) {
        let (from, term, round, commit) = (self.config.id, self.term, self.round, self.commit);
        let voice = self.voice_in(term);
        let RoleState::Leader(own) = &mut self.role else { return };
        for (&to, progress) in own.peers.iter_mut().filter(|(_, progress)| is_chosen(progress)) {
            let is_unbounded = planted!(self.config, CommitBeyondMatch);
            let commit = if is_unbounded { commit } else { commit.min(progress.matched()) };
            progress.commit_told = progress.commit_told.max(commit);
            progress.fetch_again();
            let commit_term = self.log.term_at(commit).unwrap_or(Term(0));
            let body = Body::Heartbeat { commit, commit_term, round };
            self.out.messages.push(Message { from, to, term, voice, body });
        }
    }

    /// Whether a leader has something to send, or a round of reads to begin.
    pub(super) fn has_due(&self) -> bool {
        let RoleState::Leader(own) = &self.role else { return false };
        let last = self.log.last_index();
        own.reads.is_due() || own.peers.values().any(|progress| progress.is_due(&self.config, last))
    }

    /// Sends every follower what it lacks, as far as its window goes.
    pub(super) fn send_appends(&mut self) {
        let peers: Vec<_> = self.config.peers().collect();
        for peer in peers {
            while self.send_append(peer) {}
        }
    }

    /// Sends one append, or asks the log for entries; whether an append left.
    fn send_append(&mut self, to: NodeId) -> bool {
        let last = self.log.last_index();
        let RoleState::Leader(own) = &mut self.role else { return false };
        let Some(progress) = own.peers.get_mut(&to) else { return false };
        if !progress.is_due(&self.config, last) {
            return false;
        }
        let bytes_max = progress.budget_bytes(&self.config);
        match self.log.supply(progress.next(), bytes_max) {
            Supply::Entries(prev_term, entries) => {
                self.push_append(to, prev_term, entries);
                true
            }
            Supply::OnDisk(last) => {
                let first = progress.next();
                progress.fetch_asked();
                self.out.fetch.push(Fetch { to, first, last, bytes_max });
                false
            }
            Supply::Gone => {
                self.begin_snapshot(to);
                false
            }
        }
    }

    /// Sends these entries as what comes next for a follower.
    fn push_append(&mut self, to: NodeId, prev_term: Term, entries: Vec<Entry>) {
        let RoleState::Leader(own) = &mut self.role else { return };
        let Some(progress) = own.peers.get_mut(&to) else { return };
        let prev_index = Index(progress.next().0 - 1);
        let last = entries.last().map_or(prev_index, |entry| entry.index);
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        progress.sent(last, bytes, self.round);
        progress.commit_told = progress.commit_told.max(self.commit.min(last));
        let commit = self.commit;
        self.send(to, Body::Append { prev_index, prev_term, commit, entries });
    }

    /// See [`Raft::fetched`]. What no longer fits is dropped: the log may have moved on since it was asked.
    pub(super) fn send_fetched(&mut self, to: NodeId, entries: Vec<Entry>) {
        let RoleState::Leader(own) = &mut self.role else { return };
        let Some(progress) = own.peers.get_mut(&to) else { return };
        if !progress.fetch_answered(entries.first().map(|entry| entry.index)) {
            return;
        }
        let prev = Index(progress.next().0 - 1);
        let is_ours = |entry: &Entry| self.log.term_at(entry.index) == Some(entry.term);
        let is_run = entries.iter().zip(prev.0 + 1..).all(|(entry, index)| entry.index.0 == index);
        match self.log.term_at(prev) {
            Some(prev_term) if is_run && entries.iter().all(is_ours) => {
                let entries = within(entries, self.config.append_bytes_max);
                self.push_append(to, prev_term, entries);
            }
            Some(_) | None => progress.fetch_failed(),
        }
    }

    /// Takes a follower's answer to an append.
    pub(super) fn on_append_reply(
        &mut self,
        from: NodeId,
        voice: Voice,
        outcome: AppendOutcome,
        willing: Willingness,
    ) {
        let (last, start, round) = (self.log.last_index(), self.log.start(), self.round);
        let counted = self.voice_counted(voice);
        let RoleState::Leader(own) = &mut self.role else { return };
        let Some(progress) = own.peers.get_mut(&from) else { return };
        progress.answered(voice, willing);
        match outcome {
            AppendOutcome::Accepted { matched } if matched <= last => {
                progress.accept(matched, counted, round);
                progress.resume_at(start);
            }
            AppendOutcome::Accepted { .. } => return,
            AppendOutcome::Rejected { prev_index, conflict_index, conflict_term, conflict_first } => {
                let limit = conflict_index.min(Index(prev_index.0.saturating_sub(1)));
                let held = self.log.match_below(limit, conflict_term, conflict_first);
                if progress.is_rejected_at(prev_index) {
                    progress.probe_from(held.max(progress.matched()).next());
                } else if voice != Voice::Whole && prev_index <= progress.matched() && prev_index.0 > 0 {
                    progress.forget_beyond(held);
                }
            }
        }
        self.advance_commit();
        self.push_transfer();
    }

    /// Takes a follower's answer to a heartbeat: it is alive, answers a round, and says how far its log
    /// matches.
    pub(super) fn on_heartbeat_reply(
        &mut self,
        (from, voice): (NodeId, Voice),
        round: u64,
        (verified, durable): (Index, Index),
        willing: Willingness,
    ) {
        let (last, start) = (self.log.last_index(), self.log.start());
        let counted = self.voice_counted(voice);
        let RoleState::Leader(own) = &mut self.role else { return };
        let Some(progress) = own.peers.get_mut(&from) else { return };
        if round > self.round || verified > last || durable > verified {
            return;
        }
        progress.answered(voice, willing);
        progress.accept(durable, counted, self.round);
        let has_lost = voice != Voice::Whole && verified < progress.matched();
        if has_lost || progress.is_behind_itself(round, verified) {
            progress.forget_beyond(verified);
        }
        progress.heard(round, verified);
        progress.resume_at(start);
        if voice.counts() {
            self.note_round(from, round);
        }
        self.advance_commit();
        self.push_transfer();
    }

    /// What a follower's voice is worth here.
    fn voice_counted(&self, voice: Voice) -> Voice {
        if planted!(self.config, RecoveringAckCounted) { Voice::Whole } else { voice }
    }

    /// Commits what a quorum holds, if it is of the current term. The own copy counts as far as it is
    /// durable.
    pub(super) fn advance_commit(&mut self) {
        let RoleState::Leader(own) = &mut self.role else { return };
        let is_early = planted!(self.config, OwnCopyCountedEarly);
        let own_copy = if is_early { self.log.last_index() } else { self.log.persisted() };
        let counted = own.peers.values().map(Progress::counted);
        let reached = quorum_of(&self.config, own_copy, counted);
        let is_current = self.log.term_at(reached) == Some(self.term);
        if reached <= self.commit || !(is_current || planted!(self.config, CommitOlderTermByCounting)) {
            return;
        }
        for index in self.commit.0.max(own.term_first.0 - 1) + 1..=reached.0 {
            let cost = self.log.cached(Index(index)).map_or(0, Entry::cost_bytes);
            own.uncommitted_bytes = own.uncommitted_bytes.saturating_sub(cost);
        }
        self.commit = reached;
    }
}

/// The follower's side.
impl Raft {
    /// A leader of the current term was heard. False where this replica leads itself, so that somebody lies.
    pub(super) fn hear_leader(&mut self, from: NodeId) -> bool {
        if matches!(self.role, RoleState::Leader(_)) || self.leader().is_some_and(|leader| leader != from) {
            return false;
        }
        self.become_follower(Some(from));
        self.timer.heard(&self.config);
        true
    }

    /// Takes entries.
    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        prev_index: Index,
        prev_term: Term,
        commit: Index,
        entries: Vec<Entry>,
    ) {
        if !is_well_formed(self.term, prev_index, prev_term, &entries) || !self.hear_leader(from) {
            return;
        }
        if self.writes.is_full() || self.contradicts_commit(prev_index, prev_term, &entries) {
            return;
        }
        // What is committed is in the log of every later leader, so that there the logs match in any case.
        let is_matching = prev_index <= self.commit || self.log.term_at(prev_index) == Some(prev_term);
        if !is_matching {
            let (conflict_index, conflict_term, conflict_first) = self.log.conflict_at(prev_index);
            let outcome =
                AppendOutcome::Rejected { prev_index, conflict_index, conflict_term, conflict_first };
            return self.send(from, Body::AppendReply { outcome, willing: self.willingness });
        }
        let last = entries.last().map_or(prev_index, |entry| entry.index);
        for entry in entries {
            self.take_entry(entry);
        }
        self.verified = self.verified.max(last.max(self.commit));
        self.follow_commit(commit);
        self.acknowledge(from, self.verified);
    }

    /// Whether an append denies what is committed here. No leader's does.
    fn contradicts_commit(&self, prev_index: Index, prev_term: Term, entries: &[Entry]) -> bool {
        let differs = |index: Index, term: Term| {
            index <= self.commit && self.log.term_at(index).is_some_and(|own_term| own_term != term)
        };
        differs(prev_index, prev_term) || entries.iter().any(|entry| differs(entry.index, entry.term))
    }

    /// Takes an entry that follows on what is known to match. One that contradicts what is here replaces it
    /// and all behind it, but nothing committed.
    fn take_entry(&mut self, entry: Entry) {
        let index = entry.index;
        if index <= self.commit || self.log.term_at(index) == Some(entry.term) {
            return;
        }
        if index <= self.log.last_index() {
            self.writes.overwritten_from(index);
            self.log.truncate_from(index);
            self.verified = self.verified.min(self.log.last_index());
        }
        self.log.append(entry);
    }

    /// Says, once it is true, that the log is durable and equal up to an index. The latest of several in a
    /// row is enough.
    pub(super) fn acknowledge(&mut self, to: NodeId, matched: Index) {
        let body =
            Body::AppendReply { outcome: AppendOutcome::Accepted { matched }, willing: self.willingness };
        if planted!(self.config, AcknowledgeBeforeWrite) {
            return self.send(to, body);
        }
        let message = self.message(to, body);
        if let Some(last) = self.out.after_writes.last_mut()
            && (last.to, last.term) == (to, self.term)
            && let Body::AppendReply { outcome: AppendOutcome::Accepted { matched: before }, .. } = last.body
        {
            if before <= matched {
                *last = message;
            }
            return;
        }
        self.out.after_writes.push(message);
    }

    /// Follows the leader's commit index, as far as the own log is known to match.
    pub(super) fn follow_commit(&mut self, commit: Index) {
        let is_unbounded = planted!(self.config, CommitBeyondMatch);
        let limit = if is_unbounded { self.log.last_index() } else { self.verified };
        self.commit = self.commit.max(commit.min(limit));
        assert!(self.commit <= self.log.last_index(), "commit {} of {}", self.commit, self.log.last_index());
    }

    /// Answers a heartbeat at once: it asks who leads, not what is durable.
    pub(super) fn on_heartbeat(&mut self, from: NodeId, commit: Index, commit_term: Term, round: u64) {
        if !self.hear_leader(from) {
            return;
        }
        if self.log.term_at(commit) == Some(commit_term) {
            self.verified = self.verified.max(commit);
        }
        self.follow_commit(commit);
        let is_term_durable = self.writes.durable_ballot().0 == self.term;
        let durable = if is_term_durable { self.verified.min(self.log.persisted()) } else { Index(0) };
        let (verified, willing) = (self.verified, self.willingness);
        self.send(from, Body::HeartbeatReply { round, verified, durable, willing });
    }
}

/// The first entries, as many as one append may carry.
fn within(mut entries: Vec<Entry>, bytes_max: usize) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let is_first = bytes == 0;
        bytes += entry.cost_bytes();
        is_first || bytes <= bytes_max
    };
    let count = entries.iter().take(APPEND_ENTRIES_MAX).take_while(fits).count();
    entries.truncate(count);
    entries
}

/// Whether an append can be one that a leader of this term made: consecutive indexes, terms that do not
/// descend.
fn is_well_formed(term: Term, prev_index: Index, prev_term: Term, entries: &[Entry]) -> bool {
    let mut before = (prev_index, prev_term);
    (prev_index.0 > 0 || prev_term.0 == 0)
        && prev_term <= term
        && entries.iter().all(|entry| {
            let follows = before.0.0.checked_add(1) == Some(entry.index.0) && entry.term >= before.1;
            before = (entry.index, entry.term);
            follows && entry.term.0 > 0 && entry.term <= term
        })
}
