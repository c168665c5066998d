//! Replicas that lost something, on their way back.
//!
//! n voters decide by quorums of q = ⌊n/2⌋ + 1. **Damaged** is the easy case: the replica's terms, votes and
//! last entry are known, entries before that are not. It keeps every promise but one, to hold what it
//! acknowledged. So it votes as if it still had its last entry ([`Raft::is_reached_by`]): a candidate that
//! lacks what this replica helped to commit is refused as before. It does not campaign, since it could not
//! vote for itself. It is whole when its durable log is again as good as the old one was, by the order that
//! votes go by: a log that ends with an entry of some term is a beginning of that term's leader's log, which
//! has all that was committed before.
//!
//! A **Forgetful** replica R may have voted for any node in any term, and acknowledged any entry. Then
//!
//! ```text
//!  untold   asks all: TermAsk; says nothing else
//!     │     n - q + 1 others, each of which remembers its own terms, told theirs; m is the highest
//!   told m  terms ≤ m: follows and takes entries, does not vote, is counted by nobody (Forgetful)
//!     │     terms > m: takes part, is counted by nobody (Healing)
//!     │     holds, durably, a committed entry of a term > m
//!   whole
//! ```
//!
//! Each arrow is durable before anything is said that follows from it. "Counted by nobody" is for the others
//! to do: every message says what it is worth ([`Voice`]), and answers that are not counted are missing from
//! elections, commits, reads, leases and the leader's own check of its quorum.
//!
//! # Why it is safe
//! Say f replicas forgot and are not whole yet, R among them; the n - f others remember. A *decision* is an
//! election or a commit: q voices. Of a decision that was made with voices which are forgotten now, at least
//! q - f are remembered. Whoever decides now has q voices of the n - f, and whoever tells R its terms are
//! n - q + 1 of the n - f.
//! 1. *Every decision made now meets every old one in a voice that is remembered*, since q + (q - f) > n - f.
//!    So while R is not counted there is no second leader of a term, and no leader that lacks what is
//!    committed: that voice would have to be given twice, or against its own log. Nor does it matter that R's
//!    part in the old decision arrives only now: it was given when R could still give it.
//! 2. *Nobody had won an election of a term > m when R asked*, so R had acknowledged nothing in one. The
//!    q - f voices or more that are remembered of such an election meet the n - q + 1 tellers, since
//!    (n - q + 1) + (q - f) > n - f. Who gave one was in that term by then, and told it, or a newer one: also
//!    where it forgot in between, by 4. Answers carry the episode, a number drawn when the loss was found, so
//!    that none from before counts.
//! 3. *What is committed in a term T > m is held by q that remember*: R's forgotten acknowledgements are of
//!    older terms, its later ones were not counted. R holds such an entry e too, and with it the beginning of
//!    the log of T's leader: everything committed in older terms, what R forgot included.
//! 4. *Once e is committed, forgotten votes do no harm.* R may have voted for A in a term t > m, of which
//!    none of the tellers had heard. By 2, A has no entry of a term > m by then, and as a candidate in t it
//!    took none of T < t since; so it lacks e. If t < T, R votes in newer terms only. If t ≥ T, A wins only
//!    with q - f voices or more of those that remember and do not hold e, and those are n - f - q at most,
//!    which is less. Or A had won before: then q cannot have taken e in T < t; for t = T it is e's leader.
//!    No B wins in t besides with a second vote of R, for the same reason: R itself holds e, and refuses it.
//!
//! From e on, R is a replica like all others.
//!
//! # Why it ends
//! It takes q others that remember, live and hear each other, and R; n - q + 1 ≤ q of them tell their terms
//! (n > 2). They elect and commit without R, which takes entries, or a table, from their leader as any
//! follower. If that leader's term is ≤ m, R cannot become whole in it; so a leader whose Forgetful follower
//! has caught up opens a new term by itself ([`Raft::open_term_for_recovering`]): it campaigns again, as if
//! told to by a leader, which it is. That is an election like any other, so its safety needs no proof; it
//! costs a round and a write, and is not repeated, since the new term is > m. A leader in a term < m learns
//! of m from R's answer, as of any newer term.
//!
//! n = 1: there is nobody to ask; refused ([`super::RecoverError::Alone`]). n = 3: both others have to be
//! there. With more, a minority may recover at a time; where a majority forgot, nobody is told enough, and
//! all of them stay silent. n = 2: the other alone is no q, so that by these rules nothing would ever move.
//! But there every decision is both's: the other has all that was committed and knows of every leader. So in
//! terms newer than the one that it told, R counts, as one that is Damaged: it may make the other lead,
//! whatever its own log holds, and commit with it; and it does not campaign before it is whole.
//!
//! Deliberately absent: finding what was lost, and drawing the episode. That is the driver's, with the choice
//! between Damaged and Forgetful: **in doubt it is Forgetful**.

use std::collections::BTreeMap;

use crate::ids::{Index, NodeId, Term};

use super::config::Config;
use super::log::Log;
use super::message::{Body, Campaign, Voice};
use super::planted::planted;
use super::progress::{Mode, Progress};
use super::standing::Standing;
use super::{Raft, RoleState};

/// The way back of a replica that lost something; nothing, for others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    standing: Standing,
    /// Who told its term, and which.
    told: BTreeMap<NodeId, Term>,
    /// Ticks since the others were asked.
    asked_ticks: u32,
}

impl Recovery {
    pub(super) fn new(config: &Config, standing: Standing) -> Self {
        let standing = if planted!(config, WipedVotesInForgottenTerm) { Standing::Whole } else { standing };
        Self { standing, told: BTreeMap::new(), asked_ticks: 0 }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// What is known to be durable when the replica starts. One that lost something writes its standing
    /// again: it may be new.
    pub(super) fn standing_at_start(&self) -> Option<Standing> {
        Some(self.standing).filter(|standing| *standing == Standing::Whole)
    }

    /// The term to start in, where the hard state may be lost.
    pub(super) fn term_at_least(&self, term: Term, log: &Log) -> Term {
        match self.standing {
            Standing::Whole | Standing::Damaged { .. } => term,
            Standing::Forgetful { told, .. } => term.max(log.last_term()).max(told.unwrap_or(term)),
        }
    }
}

/// The one that lost something.
impl Raft {
    /// Whether this replica may say anything but that it asks: it has not lost anything, or what it says of
    /// itself is durable, and, where it forgot its terms, so are the others'.
    pub(super) fn takes_part(&self) -> bool {
        match self.writes.durable_standing() {
            None | Some(Standing::Forgetful { told: None, .. }) => false,
            Some(Standing::Whole | Standing::Damaged { .. } | Standing::Forgetful { told: Some(_), .. }) => {
                true
            }
        }
    }

    /// Whether nothing is lost, and this is durable.
    pub(super) fn is_whole(&self) -> bool {
        self.recovery.standing == Standing::Whole && self.writes.durable_standing() == Some(Standing::Whole)
    }

    /// What this replica's answers in a term are worth.
    pub(super) fn voice_in(&self, term: Term) -> Voice {
        match self.writes.durable_standing() {
            Some(Standing::Whole) => Voice::Whole,
            Some(Standing::Damaged { .. }) => Voice::Damaged,
            Some(Standing::Forgetful { told: Some(told), .. }) if term > told => {
                if self.is_one_of_two() {
                    Voice::Damaged
                } else {
                    Voice::Healing
                }
            }
            None | Some(Standing::Forgetful { .. }) => Voice::Forgetful,
        }
    }

    /// Whether every quorum is this replica and one other, so that the other was part of every decision.
    fn is_one_of_two(&self) -> bool {
        self.config.voters.len() == 2
    }

    /// Whether this replica may vote in a term.
    pub(super) fn may_vote_in(&self, term: Term) -> bool {
        match self.recovery.standing {
            Standing::Whole | Standing::Damaged { .. } => true,
            Standing::Forgetful { told, .. } => told.is_some_and(|told| term > told),
        }
    }

    /// Whether another log's end is at least as good as this replica's, with what it lost. Of two, the other
    /// one holds whatever was committed: nothing that this one has left can say more.
    pub(super) fn is_reached_by(&self, last_index: Index, last_term: Term) -> bool {
        let is_above_lost = match self.recovery.standing {
            Standing::Damaged { .. } | Standing::Forgetful { .. } if self.is_one_of_two() => return true,
            Standing::Damaged { last_index: index, last_term: term } => {
                (last_term, last_index) >= (term, index)
            }
            Standing::Whole | Standing::Forgetful { .. } => true,
        };
        is_above_lost && self.log.is_reached_by(last_index, last_term)
    }

    /// Asks the others for their terms, if this replica lacks them.
    pub(super) fn ask_terms(&mut self) {
        if let Standing::Forgetful { episode: request, told: None } = self.recovery.standing {
            self.recovery.asked_ticks = 0;
            self.send_to_all(|_| Body::TermAsk { request });
        }
    }

    /// One tick: asks again now and then.
    pub(super) fn tick_recovery(&mut self) {
        self.recovery.asked_ticks = self.recovery.asked_ticks.saturating_add(1);
        if self.recovery.asked_ticks >= self.config.heartbeat_ticks {
            self.ask_terms();
        }
    }

    /// Takes another's term, and once they are enough, enters the highest.
    pub(super) fn on_term_told(&mut self, from: NodeId, term: Term, request: u64) {
        let Standing::Forgetful { episode, told: None } = self.recovery.standing else { return };
        if request != episode {
            return;
        }
        let told = &mut self.recovery.told;
        told.entry(from).and_modify(|before| *before = term.max(*before)).or_insert(term);
        let voters = self.config.voters.len();
        if told.len() < voters - self.config.quorum() + 1 {
            return;
        }
        let highest = told.values().copied().fold(self.term, Term::max);
        if highest > self.term {
            self.set_term(highest);
        }
        self.become_follower(None);
        self.recovery.standing = Standing::Forgetful { episode, told: Some(highest) };
    }

    /// Becomes whole, if it is time.
    pub(super) fn heal(&mut self) {
        let standing = self.recovery.standing;
        if standing == Standing::Whole || self.writes.durable_standing() != Some(standing) {
            return;
        }
        let durable = self.log.persisted();
        let durable_term = self.log.term_at(durable).unwrap_or(Term(0));
        let is_healed = match standing {
            Standing::Whole | Standing::Forgetful { told: None, .. } => false,
            Standing::Damaged { last_index, last_term } => (durable_term, durable) >= (last_term, last_index),
            Standing::Forgetful { told: Some(told), .. } => {
                let held = durable.min(self.verified).min(self.commit);
                self.log.term_at(held).is_some_and(|term| term > told)
            }
        };
        if is_healed {
            self.recovery.standing = Standing::Whole;
        }
    }
}

/// The others.
impl Raft {
    /// Tells the own term to one that forgot its own; not where this replica forgot, too.
    pub(super) fn on_term_ask(&mut self, from: NodeId, request: u64) {
        match self.recovery.standing {
            Standing::Whole | Standing::Damaged { .. } => self.send(from, Body::TermTold { request }),
            Standing::Forgetful { .. } => {}
        }
    }

    /// Opens a new term where a follower that cannot count in this one has caught up. To be asked with every
    /// heartbeat: caught up is who holds what was committed at the last one.
    pub(super) fn open_term_for_recovering(&mut self) {
        let commit = self.commit;
        let may_campaign = self.may_campaign();
        let RoleState::Leader(own) = &mut self.role else { return };
        let before = std::mem::replace(&mut own.commit_at_heartbeat, commit);
        let is_heard = own.contact_ticks(&self.config) <= self.config.heartbeat_ticks;
        let is_established = before >= own.term_first && own.transfer.is_none() && is_heard;
        let waits = |progress: &Progress| {
            let is_near = progress.mode() == Mode::Replicate && progress.matched() >= before;
            progress.voice == Voice::Forgetful && is_near
        };
        if is_established && may_campaign && own.peers.values().any(waits) {
            self.become_follower(None);
            self.start_vote(Campaign::Transfer);
        }
    }
}
