//! Who leads: timers, pre-votes, votes, and what becomes of a replica when the term changes.
//!
//! Invariants:
//! - A replica votes once a term, only for a log at least as good as its own, and says so only when it is
//!   durable.
//! - A voter that heard its leader within T does not help another one to power, unless that leader asked for
//!   it (stickiness): a node that was cut off cannot unseat a living leader, and a leader's lease holds.
//! - A node whose disk hangs or takes no more of the log, that drains, or that lost something of its log,
//!   does not campaign.
//! - Nobody's answer counts who says that it does not ([`Voice`]).
//!
//! Deliberately absent: priorities between nodes. Leadership is moved by transfer.

use std::collections::BTreeMap;

use crate::ids::{Index, NodeId, Term};

use super::config::{Config, ReadMode};
use super::message::{Ballot, Body, Campaign, Message, Voice};
use super::planted::planted;
use super::{Raft, RoleState};

/// The time that a replica waits in, counted in ticks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Timer {
    /// Ticks since the last reset.
    elapsed: u32,
    /// At how many the replica campaigns: T to 1.5 T.
    timeout: u32,
    /// What the next reset draws from.
    pub(super) jitter: u32,
    /// Ticks since a leader was heard.
    pub(super) quiet_ticks: u32,
    /// Where leases are in use: ticks for which the promise to a leader is kept, whatever term came since.
    guard_ticks: u32,
}

impl Timer {
    /// A timer that starts now. Where leases are in use, a replica that was here before may have promised its
    /// leader not to vote for another within T, and no longer knows when.
    pub(super) fn new(config: &Config, term: Term, jitter: u32) -> Self {
        let is_promised = config.read_mode == ReadMode::Lease && term.0 > 0;
        let guard_ticks = if is_promised { config.election_ticks } else { 0 };
        let mut timer = Self { elapsed: 0, timeout: 0, jitter, quiet_ticks: 0, guard_ticks };
        timer.reset(config);
        timer
    }

    /// Notes that a leader was heard.
    pub(super) fn heard(&mut self, config: &Config) {
        self.quiet_ticks = 0;
        if config.read_mode == ReadMode::Lease {
            self.guard_ticks = config.election_ticks;
        }
    }

    fn reset(&mut self, config: &Config) {
        self.elapsed = 0;
        let waits = config.election_ticks + self.jitter % (config.election_ticks / 2).max(1);
        // A voter that is a group of its own has nobody to hear, and nobody to leave the first word to.
        self.timeout = if config.voters.len() == 1 { 1 } else { waits };
    }

    fn tick(&mut self) {
        self.elapsed += 1;
        self.quiet_ticks = self.quiet_ticks.saturating_add(1);
        self.guard_ticks = self.guard_ticks.saturating_sub(1);
    }
}

/// The answers to a candidate, one a voter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Votes {
    ballots: BTreeMap<NodeId, Ballot>,
}

impl Votes {
    /// Takes an answer. A voter's first one stands.
    fn insert(&mut self, voter: NodeId, ballot: Ballot) {
        self.ballots.entry(voter).or_insert(ballot);
    }

    fn count(&self, wanted: Ballot) -> usize {
        self.ballots.values().filter(|&&ballot| ballot == wanted).count()
    }

    /// What a quorum decided, if it did.
    fn decision(&self, config: &Config) -> Option<Ballot> {
        if self.count(Ballot::Granted) >= config.quorum() {
            return Some(Ballot::Granted);
        }
        let is_hopeless = self.count(Ballot::Refused) > config.voters.len() - config.quorum();
        is_hopeless.then_some(Ballot::Refused)
    }
}

impl Raft {
    /// A tick of a replica that does not lead.
    pub(super) fn tick_waiting(&mut self) {
        self.timer.tick();
        if self.timer.elapsed < self.timer.timeout {
            return;
        }
        if self.may_campaign() {
            self.start_pre_vote();
        } else {
            self.become_follower(None);
        }
    }

    /// Whether this node would be of any use as a leader.
    pub(super) fn may_campaign(&self) -> bool {
        let is_willing = self.willingness.may_lead() && self.is_whole();
        is_willing && !self.disk_stalled() && !self.writes.is_full()
    }

    /// Whether a living leader holds this replica's promise not to help another one to power.
    pub(super) fn is_sticky(&self) -> bool {
        if planted!(self.config, StickinessForgotten) {
            return false;
        }
        let is_recent = self.timer.quiet_ticks < self.config.election_ticks;
        match self.role {
            RoleState::Leader(_) => true,
            RoleState::Follower { leader } => self.timer.guard_ticks > 0 || (leader.is_some() && is_recent),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => self.timer.guard_ticks > 0,
        }
    }

    /// Asks whether a campaign would succeed, before it disturbs anybody.
    pub(super) fn start_pre_vote(&mut self) {
        self.timer.reset(&self.config);
        let mut votes = Votes::default();
        votes.insert(self.config.id, Ballot::Granted);
        self.role = RoleState::PreCandidate(votes);
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        self.send_to_all(|_| Body::PreVote { last_index, last_term });
        self.tally_pre_votes();
    }

    /// Campaigns: the next term, the own vote, and requests once both are durable. A candidate that restarts
    /// before that never asked anybody, so it cannot be taken for an earlier self with a longer log.
    pub(super) fn start_vote(&mut self, cause: Campaign) {
        self.set_term(self.term.next());
        self.vote = Some(self.config.id);
        self.role = RoleState::Candidate(Votes::default());
        self.timer.reset(&self.config);
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let peers: Vec<_> = self.config.peers().collect();
        for peer in peers {
            self.send_after_writes(peer, Body::Vote { last_index, last_term, cause });
        }
    }

    /// Sends one message each to all peers at once.
    pub(super) fn send_to_all(&mut self, body: impl Fn(NodeId) -> Body) {
        let (from, term, voice) = (self.config.id, self.term, self.voice_in(self.term));
        let messages = self.config.peers().map(|to| Message { from, to, term, voice, body: body(to) });
        self.out.messages.extend(messages);
    }

    pub(super) fn set_term(&mut self, term: Term) {
        assert!(term > self.term, "term {term} after term {}", self.term);
        self.term = term;
        self.vote = None;
        self.verified = self.commit;
    }

    /// Follows, in the current term. Reads that were asked of this replica as a leader are given up.
    pub(super) fn become_follower(&mut self, leader: Option<NodeId>) {
        let before = std::mem::replace(&mut self.role, RoleState::Follower { leader });
        if let RoleState::Leader(own) = before {
            own.reads.give_up(&mut self.out.reads_lost);
            self.out.fetch.clear();
        }
        self.timer.reset(&self.config);
    }

    /// Enters the newer term of a message, unless stickiness forbids it; whether it did.
    pub(super) fn enter_term_of(&mut self, message: &Message) -> bool {
        let from = message.from;
        let leader = match message.body {
            Body::Vote { cause: Campaign::Timeout, .. } if self.is_sticky() => return false,
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => Some(from),
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Vote { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::HeartbeatReply { .. }
            | Body::TimeoutNow
            | Body::Outdated
            | Body::TermAsk { .. }
            | Body::TermTold { .. } => None,
        };
        self.set_term(message.term);
        self.become_follower(leader);
        true
    }

    /// Tells the sender of an old request that its term is over. A reply is dropped, but for a pre-vote's:
    /// the voter may well be behind the asker.
    pub(super) fn on_older_term(&mut self, message: &Message) {
        match message.body {
            Body::PreVoteReply { asked, ballot } => {
                self.on_pre_vote_reply(message.from, message.voice, asked, ballot)
            }
            Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::HeartbeatReply { .. }
            | Body::TermAsk { .. }
            | Body::TermTold { .. }
            | Body::Outdated => {}
            Body::PreVote { .. }
            | Body::Vote { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::Snapshot { .. }
            | Body::TimeoutNow => self.send(message.from, Body::Outdated),
        }
    }

    /// Says whether the asker would be voted for. Nothing changes here, neither term nor timer.
    pub(super) fn on_pre_vote(&mut self, message: &Message) {
        let Body::PreVote { last_index, last_term } = message.body else { return };
        let is_good = self.is_reached_by(last_index, last_term) || planted!(self.config, PreVoteIgnoresLog);
        let ballot = if is_good && !self.is_sticky() { Ballot::Granted } else { Ballot::Refused };
        let mut reply = self.message(message.from, Body::PreVoteReply { asked: message.term, ballot });
        reply.voice = self.voice_in(message.term.next());
        self.out.messages.push(reply);
    }

    /// Counts a pre-vote that was asked for in the current term.
    pub(super) fn on_pre_vote_reply(&mut self, from: NodeId, voice: Voice, asked: Term, ballot: Ballot) {
        let counts = self.counts_in_elections(voice);
        let RoleState::PreCandidate(votes) = &mut self.role else { return };
        if asked == self.term && counts {
            votes.insert(from, ballot);
            self.tally_pre_votes();
        }
    }

    /// Whether a vote of such a voice counts.
    fn counts_in_elections(&self, voice: Voice) -> bool {
        voice.counts() || planted!(self.config, RecoveringVoteCounted)
    }

    fn tally_pre_votes(&mut self) {
        let RoleState::PreCandidate(votes) = &self.role else { return };
        match votes.decision(&self.config) {
            Some(Ballot::Granted) => self.start_vote(Campaign::Timeout),
            Some(Ballot::Refused) => self.become_follower(None),
            None => {}
        }
    }

    /// Votes, in the current term.
    pub(super) fn on_vote(&mut self, from: NodeId, last_index: Index, last_term: Term, cause: Campaign) {
        if cause == Campaign::Timeout && self.timer.guard_ticks > 0 && self.is_sticky() {
            return;
        }
        let is_good = self.is_reached_by(last_index, last_term) || planted!(self.config, VoteIgnoresLog);
        let is_free = self.vote.is_none() && self.leader().is_none();
        if !is_good || !self.may_vote_in(self.term) || !(is_free || self.vote == Some(from)) {
            return self.send(from, Body::VoteReply { ballot: Ballot::Refused });
        }
        if self.writes.is_full() {
            return;
        }
        self.vote = Some(from);
        self.timer.reset(&self.config);
        let reply = Body::VoteReply { ballot: Ballot::Granted };
        if planted!(self.config, VoteNotDurable) {
            return self.send(from, reply);
        }
        self.send_after_writes(from, reply);
    }

    /// Counts another's vote.
    pub(super) fn on_vote_reply(&mut self, from: NodeId, voice: Voice, ballot: Ballot) {
        let counts = self.counts_in_elections(voice);
        if let RoleState::Candidate(votes) = &mut self.role
            && counts
        {
            votes.insert(from, ballot);
            self.tally_votes();
        }
    }

    /// Counts the own vote, once it is durable.
    pub(super) fn count_own_vote(&mut self) {
        let own = (self.term, Some(self.config.id));
        if let RoleState::Candidate(votes) = &mut self.role
            && self.writes.durable_ballot() == own
        {
            votes.insert(self.config.id, Ballot::Granted);
            self.tally_votes();
        }
    }

    fn tally_votes(&mut self) {
        let RoleState::Candidate(votes) = &self.role else { return };
        match votes.decision(&self.config) {
            Some(Ballot::Granted) => self.become_leader(),
            Some(Ballot::Refused) => self.become_follower(None),
            None => {}
        }
    }

    /// The leader steps aside for this replica: campaigns without pre-vote, past the others' stickiness.
    pub(super) fn on_timeout_now(&mut self, from: NodeId) {
        if self.leader() == Some(from) && self.may_campaign() {
            self.start_vote(Campaign::Transfer);
        }
    }
}
