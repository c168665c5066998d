//! One replica's consensus: Raft, pure. Time comes in as ticks, the network as messages, the disk as
//! completions.
//!
//! ```text
//!                 no leader for T .. 1.5 T               a quorum would vote
//!   ┌── Follower ──────────────────────► PreCandidate ────────────────────► Candidate ──┐
//!   │      ▲ ▲ ▲                              │            term + 1, own vote    │      │ a quorum voted,
//!   │      │ │ └───── a quorum would not ─────┘                                  │      │ itself included
//!   │      │ └─────── a newer term, a leader of this one, or a quorum refused ───┘      ▼
//!   │      └────────── a newer term, no quorum heard for T, own disk stuck for T ──── Leader
//!   └─ TimeoutNow: Candidate at once
//! ```
//!
//! The driver feeds [`Raft::tick`], [`Raft::step`], [`Raft::propose`], [`Raft::read`], [`Raft::persisted`]
//! [`Raft::applied`] and what concerns tables, and does what [`Raft::ready`] says; see [`Ready`] for the
//! order of it. The rules
//! are those of the Raft dissertation (Ongaro 2014): §3 the log, §4.2.3 and §9.6 pre-vote, §6.2 and §6.4
//! reads, §3.10 transfer.
//!
//! Invariants:
//! - At most one leader a term: a vote is told only when it is durable, a candidate's own counted only then.
//! - A follower acknowledges what is durable; a leader counts its own copy when its own disk has said so.
//! - Only an entry of the current term commits by counting; a no-op opens every term, so that there is one.
//! - No entry at or below the commit index is ever dropped, and none commits that is not known to match the
//!   leader's.
//! - A read is answered after a round begun after it was asked, once an entry of the leader's term is
//!   committed.
//! - Nothing that a peer says panics; what only this process says is asserted.
//! - Everything held is bounded: what is under way to a follower, proposals, reads and writes by [`Config`]
//!   and the constants beside it, the cache by what the driver has not yet written or applied.
//!
//! Deliberately absent: membership changes, the bytes of tables (`snapshot` says when one is needed), a
//! clock, randomness, and IO of any kind. It lives in the shard's driver, on that shard's core.

mod config;
mod message;
mod planted;
mod ready;
mod standing;

mod election;
mod log;
mod progress;
mod reads;
mod replication;
mod snapshot;
mod recovering;
mod transfer;
mod writes;

mod codec;

#[cfg(test)]
mod codec_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod replica_tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Index, NodeId, Term};

pub use codec::{DecodeError, MESSAGE_BYTES_MAX};
pub use config::{Config, ReadMode, VOTERS_MAX};
pub use message::{
    APPEND_ENTRIES_MAX, AppendOutcome, Ballot, Body, Campaign, ENTRY_BYTES_MAX, ENTRY_OVERHEAD_BYTES, Entry,
    Message, Voice, Willingness,
};
#[cfg(debug_assertions)]
pub use planted::PlantedBug;
pub use ready::{
    Completion, Fetch, HardState, Installed, Persist, ProposeError, ReadError, ReadState, Ready,
    RecoverError, Recovered, SnapshotNeed, SnapshotOffer, SnapshotOutcome, TransferError,
};
pub use standing::{STANDING_BYTES, Standing};

use election::{Timer, Votes};
use log::Log;
use planted::planted;
use progress::Mode;
use recovering::Recovery;
use replication::Leader;
use snapshot::{Offered, recovered_log};
use writes::Writes;

/// Terms from here on are taken for nonsense: no cluster ever gets there, and the next one can always be
/// counted up.
const TERM_MAX: Term = Term(1 << 62);

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it would be voted for.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// How a leader sees one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The follower.
    pub id: NodeId,
    /// How far its log is known to be durable and equal.
    pub matched: Index,
    /// The next entry to be sent to it.
    pub next: Index,
    /// Whether it is still being asked where the logs match.
    pub is_probed: bool,
    /// Appends sent and not yet answered.
    pub in_flight: usize,
    /// Whether it was heard within T.
    pub is_active: bool,
    /// Whether it would lead.
    pub willing: Willingness,
    /// What its last answer was worth.
    pub voice: Voice,
    /// While it is sent a table: the index that the table at least goes to.
    pub snapshot: Option<Index>,
}

/// The role, with what belongs to it alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RoleState {
    Follower { leader: Option<NodeId> },
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Box<Leader>),
}

/// What is to be done and was not yet handed out in a [`Ready`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Outbox {
    /// To be sent at once.
    messages: Vec<Message>,
    /// To be sent when everything written so far is durable.
    after_writes: Vec<Message>,
    reads: Vec<ReadState>,
    reads_lost: Vec<u64>,
    fetch: Vec<Fetch>,
    snapshots: Vec<SnapshotNeed>,
    /// The hard state as last handed out.
    hard_state: HardState,
    /// The standing as last handed out.
    standing: Standing,
    /// The log's new beginning, not yet handed out.
    restart: Option<(Index, Term)>,
    /// The commit index as last handed out.
    commit: Index,
}

/// One replica of one group. See the module's docs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    config: Arc<Config>,
    term: Term,
    vote: Option<NodeId>,
    commit: Index,
    log: Log,
    writes: Writes,
    role: RoleState,
    timer: Timer,
    /// Ticks since the start.
    now_tick: u64,
    /// As a follower, how far the log is known to match this term's leader's, durable or not.
    verified: Index,
    /// The last round begun; never reset, so that no round of this process has the id of another.
    round: u64,
    willingness: Willingness,
    /// The table that this replica was offered and does not have yet.
    offered: Option<Offered>,
    recovery: Recovery,
    out: Outbox,
}

impl Raft {
    /// A replica as its log was found, with nothing applied yet. `jitter` is any number, drawn at random.
    ///
    /// # Errors
    /// What was recovered contradicts itself, so something durable was lost.
    pub fn new(config: Config, recovered: Recovered, jitter: u32) -> Result<Self, RecoverError> {
        config.check();
        check_recovered(&config, &recovered)?;
        let (log, restart) = recovered_log(&recovered)?;
        let Recovered { hard_state, standing, table, .. } = recovered;
        let commit = hard_state.commit.max(table.0).min(log.last_index());
        let recovery = Recovery::new(&config, standing);
        let term = recovery.term_at_least(hard_state.term, &log);
        let timer = Timer::new(&config, term, jitter);
        let mut raft = Self {
            config: Arc::new(config),
            term,
            vote: hard_state.vote.filter(|_| term == hard_state.term),
            commit,
            log,
            writes: Writes::new(hard_state.term, hard_state.vote, recovery.standing_at_start()),
            role: RoleState::Follower { leader: None },
            timer,
            now_tick: 0,
            verified: commit,
            round: 0,
            willingness: Willingness::Willing,
            offered: None,
            recovery,
            out: Outbox { hard_state, restart, ..Outbox::default() },
        };
        raft.ask_terms();
        Ok(raft)
    }

    /// One tick of time went by. `jitter` is any number, drawn at random; the next reset of the timer uses
    /// it.
    pub fn tick(&mut self, jitter: u32) {
        self.now_tick += 1;
        self.timer.jitter = jitter;
        self.tick_recovery();
        match self.role {
            RoleState::Leader(_) => self.tick_leader(),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.tick_waiting()
            }
        }
    }

    /// Takes a message. It may be old, repeated, or nonsense.
    pub fn step(&mut self, message: Message) {
        let is_known = self.config.voters.contains(&message.from) && message.from != self.config.id;
        if !is_known || message.to != self.config.id || message.term >= TERM_MAX {
            return;
        }
        match message.body {
            Body::TermAsk { request } => return self.on_term_ask(message.from, request),
            Body::TermTold { request } => return self.on_term_told(message.from, message.term, request),
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Vote { .. }
            | Body::VoteReply { .. }
            | Body::Append { .. }
            | Body::AppendReply { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::TimeoutNow
            | Body::Outdated
            | Body::Snapshot { .. } => {}
        }
        if !self.takes_part() {
            return;
        }
        if matches!(message.body, Body::PreVote { .. }) && message.term >= self.term {
            return self.on_pre_vote(&message);
        }
        if message.term < self.term {
            return self.on_older_term(&message);
        }
        if message.term > self.term && !self.enter_term_of(&message) {
            return;
        }
        self.dispatch(message);
        self.heal();
    }

    /// Handles a message of the current term, or a pre-vote's answer, which may be of an older one.
    fn dispatch(&mut self, message: Message) {
        let (from, voice) = (message.from, message.voice);
        match message.body {
            Body::PreVote { .. } => self.on_pre_vote(&message),
            Body::PreVoteReply { asked, ballot } => self.on_pre_vote_reply(from, voice, asked, ballot),
            Body::Vote { last_index, last_term, cause } => self.on_vote(from, last_index, last_term, cause),
            Body::VoteReply { ballot } => self.on_vote_reply(from, voice, ballot),
            Body::Append { prev_index, prev_term, commit, entries } => {
                self.on_append(from, prev_index, prev_term, commit, entries);
            }
            Body::AppendReply { outcome, willing } => self.on_append_reply(from, voice, outcome, willing),
            Body::Heartbeat { commit, commit_term, round } => {
                self.on_heartbeat(from, commit, commit_term, round)
            }
            Body::HeartbeatReply { round, verified, durable, willing } => {
                self.on_heartbeat_reply((from, voice), round, (verified, durable), willing);
            }
            Body::TimeoutNow => self.on_timeout_now(from),
            Body::Snapshot { index, term } => self.on_snapshot(from, index, term),
            Body::Outdated | Body::TermAsk { .. } | Body::TermTold { .. } => {}
        }
    }

    /// Proposes an entry; where it is committed and applied at this index **in this term**, it came about.
    /// The data is not empty and at most [`ENTRY_BYTES_MAX`] long.
    ///
    /// # Errors
    /// It was not taken, and is certainly not in the log.
    pub fn propose(&mut self, data: Bytes) -> Result<(Index, Term), ProposeError> {
        assert!(!data.is_empty(), "an entry without data is the no-op that opens a term");
        assert!(data.len() <= ENTRY_BYTES_MAX, "an entry of {} bytes, at most {ENTRY_BYTES_MAX}", data.len());
        let leader = self.leader();
        let RoleState::Leader(own) = &self.role else { return Err(ProposeError::NotLeader { leader }) };
        if own.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        let cost = data.len() + ENTRY_OVERHEAD_BYTES;
        let is_over =
            own.uncommitted_bytes > 0 && own.uncommitted_bytes + cost > self.config.uncommitted_bytes_max;
        if is_over || self.writes.is_full() {
            return Err(ProposeError::Full);
        }
        Ok((self.append_own(data), self.term))
    }

    /// Asks for a linearizable read; answered in [`Ready::reads`] or given up in [`Ready::reads_lost`] under
    /// its token.
    ///
    /// # Errors
    /// It was not taken: no answer will come.
    pub fn read(&mut self, token: u64) -> Result<(), ReadError> {
        self.ask_read(token)
    }

    /// Hands leadership over: to a node, or to the one that is best placed. Ends by itself after T. Answers
    /// whom to; for the leader itself there is nothing to do.
    ///
    /// # Errors
    /// Leadership stays where it is.
    pub fn transfer(&mut self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        self.begin_transfer(to)
    }

    /// Stops leading, where this replica leads: its driver cannot answer for it. A leader that can wait hands
    /// over instead.
    pub fn step_down(&mut self) {
        if self.role() == Role::Leader {
            self.become_follower(None);
        }
    }

    /// Says whether this node would lead; the leader learns it with the next reply.
    pub fn set_willing(&mut self, willingness: Willingness) {
        self.willingness = willingness;
    }

    /// Campaigns, without waiting for the timer; for tests and for an operator. Nothing happens where the
    /// node leads, would not lead, has a stuck disk, or keeps a promise to a leader's lease.
    pub fn campaign(&mut self) {
        let is_promised = self.config.read_mode == ReadMode::Lease && self.is_sticky();
        if self.role() != Role::Leader && !is_promised && self.may_campaign() {
            self.start_pre_vote();
        }
    }

    /// Takes note that a persist, and all before it, is durable.
    pub fn persisted(&mut self, completion: Completion) {
        let durable = self.writes.complete(completion);
        let stale = durable.written.filter(|&(index, term)| self.log.term_at(index) == Some(term));
        let stale = stale.filter(|_| planted!(self.config, StaleCompletionTaken)).map(|(index, _)| index);
        if let Some(index) = stale.max(durable.kept) {
            self.log.mark_persisted(index);
        }
        self.log.evict(self.config.cache_bytes_max);
        self.heal();
        self.count_own_vote();
        self.advance_commit();
    }

    /// Takes note that the driver has applied up to an index.
    pub fn applied(&mut self, index: Index) {
        assert!(index <= self.commit, "entry {index} is applied, but {} is the commit index", self.commit);
        self.log.mark_applied(index);
        self.log.evict(self.config.cache_bytes_max);
    }

    /// Takes entries that a [`Fetch`] asked for; none where they could not be read.
    pub fn fetched(&mut self, to: NodeId, entries: Vec<Entry>) {
        self.send_fetched(to, entries);
    }

    /// Whether [`Raft::ready`] has anything to say.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        let out = &self.out;
        let has_messages = !out.messages.is_empty() || !out.after_writes.is_empty();
        let has_reads = !out.reads.is_empty() || !out.reads_lost.is_empty();
        let has_table = !out.snapshots.is_empty() || self.has_offer();
        let has_persist = self.log.has_unhanded() || self.has_state_unwritten();
        has_messages || has_reads || has_table || has_persist || out.commit != self.commit || self.has_due()
    }

    /// What is to be done now. Everything in it is handed out once.
    #[must_use = "what is not done is lost"]
    pub fn ready(&mut self) -> Ready {
        self.begin_read_round();
        self.send_appends();
        let persist = self.make_persist();
        self.check_invariants();
        self.out.commit = self.commit;
        Ready {
            messages: std::mem::take(&mut self.out.messages),
            persist,
            commit: self.commit,
            reads: std::mem::take(&mut self.out.reads),
            reads_lost: std::mem::take(&mut self.out.reads_lost),
            fetch: std::mem::take(&mut self.out.fetch),
            snapshots: std::mem::take(&mut self.out.snapshots),
            offer: self.take_offer(),
        }
    }

    /// What holds whatever was said to this replica. Looked at whenever something is about to leave it.
    fn check_invariants(&self) {
        let (last, commit, applied) = (self.log.last_index(), self.commit, self.log.applied());
        assert!(commit <= last, "committed to {commit}, but the log ends at {last}");
        assert!(applied <= commit, "applied to {applied}, but {commit} is committed");
        assert!(self.log.start() <= applied, "a table to {}, but applied to {applied}", self.log.start());
        assert!(self.verified <= last, "matched to {}, but the log ends at {last}", self.verified);
        assert!(
            self.log.persisted() <= last,
            "durable to {}, but the log ends at {last}",
            self.log.persisted()
        );
        assert!(self.log.last_term() <= self.term, "an entry of {} in {}", self.log.last_term(), self.term);
        let written = self.out.hard_state;
        assert!(written.term <= self.term, "term {} is written in term {}", written.term, self.term);
        assert!(written.commit <= commit, "commit {} is written, but it is {commit}", written.commit);
        match &self.role {
            RoleState::Follower { leader } => {
                assert!(*leader != Some(self.config.id), "a follower of itself in term {}", self.term);
            }
            RoleState::PreCandidate(_) => {}
            RoleState::Candidate(_) => self.check_own_vote(),
            RoleState::Leader(leader) => {
                self.check_own_vote();
                leader.check(last);
            }
        }
    }

    fn check_own_vote(&self) {
        let (id, vote, term) = (self.config.id, self.vote, self.term);
        assert!(vote == Some(id), "node {id} stands in term {term}, but voted for {vote:?}");
    }

    /// Whether term or vote changed since they were last handed out.
    fn is_ballot_unwritten(&self) -> bool {
        (self.term, self.vote) != (self.out.hard_state.term, self.out.hard_state.vote)
    }

    /// Whether anything but entries has to be written.
    fn has_state_unwritten(&self) -> bool {
        let is_standing_unwritten = self.recovery.standing() != self.out.standing;
        self.is_ballot_unwritten() || is_standing_unwritten || self.out.restart.is_some()
    }

    /// Gathers what has to be written. Messages that wait for writes leave at once where none is under way.
    fn make_persist(&mut self) -> Option<Persist> {
        let has_content = self.has_state_unwritten() || self.log.has_unhanded();
        if !has_content && self.writes.is_idle() {
            self.out.messages.append(&mut self.out.after_writes);
        }
        if !has_content && self.out.after_writes.is_empty() {
            return None;
        }
        let before = std::mem::replace(&mut self.out.standing, self.recovery.standing());
        let standing = Some(self.out.standing).filter(|standing| *standing != before);
        let hard_state = HardState { term: self.term, vote: self.vote, commit: self.commit };
        let is_changed = has_content && hard_state != self.out.hard_state;
        if is_changed {
            self.out.hard_state = hard_state;
        }
        let entries = self.log.take_unhanded();
        let last = entries.last().map(|entry| (entry.index, entry.term));
        let ballot = is_changed.then_some((self.term, self.vote));
        Some(Persist {
            number: self.writes.hand_out(last, ballot, standing, self.now_tick),
            hard_state: is_changed.then_some(hard_state),
            standing,
            restart: self.out.restart.take(),
            entries,
            then_send: std::mem::take(&mut self.out.after_writes),
        })
    }

    /// A message to a peer, in the current term.
    fn message(&self, to: NodeId, body: Body) -> Message {
        Message { from: self.config.id, to, term: self.term, voice: self.voice_in(self.term), body }
    }

    /// Sends at once.
    fn send(&mut self, to: NodeId, body: Body) {
        let message = self.message(to, body);
        self.out.messages.push(message);
    }

    /// Sends when everything written so far, and everything about to be, is durable.
    fn send_after_writes(&mut self, to: NodeId, body: Body) {
        let message = self.message(to, body);
        self.out.after_writes.push(message);
    }
}

/// What may be asked of a replica.
impl Raft {
    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The latest term seen.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower { .. } => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// The leader of the current term, where known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match self.role {
            RoleState::Follower { leader } => leader,
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
            RoleState::Leader(_) => Some(self.config.id),
        }
    }

    /// Whether this replica leads, and in that very term.
    #[must_use]
    pub fn leads_in(&self, term: Term) -> bool {
        self.role() == Role::Leader && self.term == term
    }

    /// How far the log is known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The last index of the log, durable or not.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.log.last_index()
    }

    /// How far the own log, as it is now, is durable.
    #[must_use]
    pub fn persisted_index(&self) -> Index {
        self.log.persisted()
    }

    /// How far the driver said that it has applied.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.log.applied()
    }

    /// The last index that the log has let go of: a table holds it. 0 where the log holds everything.
    #[must_use]
    pub fn log_start(&self) -> Index {
        self.log.start()
    }

    /// What this replica still knows of its past.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.recovery.standing()
    }

    /// The term of an entry: 0 at index 0, that of the table's last entry at the log's start, `None` outside
    /// the log.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// An entry, if it is still in memory; else it is durable, and the log has it.
    #[must_use]
    pub fn cached(&self, index: Index) -> Option<&Entry> {
        self.log.cached(index)
    }

    /// As a leader, how it sees its followers; else nothing.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        let RoleState::Leader(leader) = &self.role else { return Vec::new() };
        let peer = |(&id, progress): (&NodeId, &progress::Progress)| Peer {
            id,
            matched: progress.matched(),
            next: progress.next(),
            is_probed: progress.mode() == Mode::Probe,
            in_flight: progress.in_flight(),
            is_active: progress.contact_ticks < self.config.election_ticks,
            willing: progress.willing,
            voice: progress.voice,
            snapshot: match progress.mode() {
                Mode::Snapshot { pending } => Some(pending),
                Mode::Probe | Mode::Replicate => None,
            },
        };
        leader.peers.iter().map(peer).collect()
    }

    /// Ticks since a follower heard its leader, or a leader a quorum; `None` without a leader.
    #[must_use]
    pub fn contact_ticks(&self) -> Option<u32> {
        match &self.role {
            RoleState::Follower { leader } => leader.map(|_| self.timer.quiet_ticks),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
            RoleState::Leader(leader) => Some(leader.contact_ticks(&self.config)),
        }
    }

    /// Whom leadership is being handed to.
    #[must_use]
    pub fn transferring(&self) -> Option<NodeId> {
        let RoleState::Leader(leader) = &self.role else { return None };
        leader.transfer.map(|transfer| transfer.to)
    }

    /// Whether the oldest write under way is older than T: the disk hangs, and this node must not lead.
    #[must_use]
    pub fn disk_stalled(&self) -> bool {
        self.writes.oldest_age(self.now_tick).is_some_and(|age| age > u64::from(self.config.election_ticks))
    }
}

/// Whether a recovered log can be one that this code wrote.
fn check_recovered(config: &Config, recovered: &Recovered) -> Result<(), RecoverError> {
    let Recovered { hard_state, standing, table, terms, last_index } = recovered;
    let is_whole = *standing == Standing::Whole;
    if !is_whole && config.voters.len() == 1 {
        return Err(RecoverError::Alone);
    }
    let ascends = terms.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    let first_is_valid = terms.first().is_none_or(|first| first.0.0 > 0 && first.1.0 > 0);
    let last_is_valid = terms.last().is_none_or(|last| last.0 <= *last_index);
    let table_is_valid = (table.0.0 == 0) == (table.1.0 == 0);
    if !ascends || !first_is_valid || !last_is_valid || !table_is_valid {
        return Err(RecoverError::TermsDisordered);
    }
    let last_term = terms.last().map_or(table.1, |last| last.1.max(table.1));
    let (term, is_forgetful) = (hard_state.term, matches!(standing, Standing::Forgetful { .. }));
    if (term < last_term && !is_forgetful) || term.max(last_term) >= TERM_MAX {
        return Err(RecoverError::TermBehindLog { term, last_term });
    }
    let last_index = table.0.max(*last_index);
    if hard_state.commit > last_index && is_whole {
        return Err(RecoverError::CommitBeyondLog { commit: hard_state.commit, last_index });
    }
    match hard_state.vote.filter(|vote| !config.voters.contains(vote)) {
        Some(vote) => Err(RecoverError::VoteUnknown(vote)),
        None => Ok(()),
    }
}
