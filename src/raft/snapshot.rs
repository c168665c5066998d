//! Tables in place of entries: letting go of the log's beginning, and followers that are behind it.
//!
//! ```text
//!  leader                          follower                           its driver
//!    next entry is not in the log
//!    ├─ Ready::snapshots
//!    ├── Snapshot { index, term } ──► behind that? ── Ready::offer ──► fetches the leader's table,
//!    │   (again with each heartbeat)                                   in pieces, outside of raft
//!    │                                 installed ◄──────────────────── makes it durable
//!    │                                 ├─ Persist::restart
//!    ◄── AppendReply { accepted } ─────┘  then_send
//! ```
//!
//! Invariants:
//! - The log lets go only of what is applied and durable here. The driver says when: it knows the table.
//! - A table never takes anything back: one that ends at or before the commit index changes nothing, and
//!   where the log holds the table's last entry, it keeps what follows. Else nothing behind that entry can be
//!   committed, since the entry is and the log has another one there or none; so all of it may go.
//! - A table is acknowledged when it is durable, and never before. An offer is handed out when this
//!   replica's hard state of the offer's term is durable: after a crash no table is newer than the hard
//!   state.
//! - A crash between the table and the record of the log's new beginning leaves a log that does not lead up
//!   to the table: it is begun anew then ([`recovered_log`]).
//!
//! Deliberately absent: the table's bytes, and how they travel. An offer may be lost, repeated or out of
//! date; a table that is newer than the one offered does as well.

use crate::ids::{Index, NodeId, Term};

use super::log::Log;
use super::planted::planted;
use super::progress::Mode;
use super::ready::{Installed, RecoverError, Recovered, SnapshotNeed, SnapshotOffer, SnapshotOutcome};
use super::standing::Standing;
use super::{Body, Raft, RoleState};

/// Indexes from here on are taken for nonsense: no log ever gets there.
const INDEX_MAX: Index = Index(1 << 62);

/// An offer that this replica took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Offered {
    offer: SnapshotOffer,
    /// Whether the driver has it.
    is_handed: bool,
}

/// The leader's side.
impl Raft {
    /// Lets go of the log up to an index, which a durable table of this node holds. Followers that are
    /// further behind get the table from then on, so that it is worth keeping some entries before its end.
    ///
    /// # Panics
    /// The index is not applied, or not durable in the own log.
    pub fn compact(&mut self, index: Index) {
        self.log.compact(index);
    }

    /// Takes note of what became of the table that a follower was sent.
    pub fn snapshot_ended(&mut self, to: NodeId, outcome: SnapshotOutcome) {
        let RoleState::Leader(own) = &mut self.role else { return };
        if let Some(progress) = own.peers.get_mut(&to) {
            progress.end_snapshot(outcome);
        }
    }

    /// Begins to send a table to a follower that needs entries which are gone. One that was not heard for T
    /// is left alone until it is: it may be gone for long, and would keep the table in use.
    pub(super) fn begin_snapshot(&mut self, to: NodeId) {
        let index = self.log.start();
        let RoleState::Leader(own) = &mut self.role else { return };
        let Some(progress) = own.peers.get_mut(&to) else { return };
        if progress.contact_ticks >= self.config.election_ticks || index <= progress.matched() {
            return progress.fetch_failed();
        }
        progress.begin_snapshot(index);
        self.out.snapshots.push(SnapshotNeed { to, index });
        self.offer_snapshot(to);
    }

    /// Offers the table again to everyone who waits for one: the offer may have been lost, or the follower's
    /// try have failed.
    pub(super) fn repeat_snapshots(&mut self) {
        let RoleState::Leader(own) = &self.role else { return };
        let waits = |mode| matches!(mode, Mode::Snapshot { .. });
        let peers = own.peers.iter().filter(|(_, progress)| waits(progress.mode()));
        let peers: Vec<_> = peers.map(|(&peer, _)| peer).collect();
        for peer in peers {
            self.offer_snapshot(peer);
        }
    }

    fn offer_snapshot(&mut self, to: NodeId) {
        let index = self.log.start();
        if let Some(term) = self.log.term_at(index) {
            self.send(to, Body::Snapshot { index, term });
        }
    }
}

/// The follower's side.
impl Raft {
    /// Takes an offer: answers at once where nothing is missing before it, else has the table fetched.
    pub(super) fn on_snapshot(&mut self, from: NodeId, index: Index, term: Term) {
        let is_valid = index.0 > 0 && index < INDEX_MAX && term.0 > 0 && term <= self.term;
        if !is_valid || !self.hear_leader(from) || self.writes.is_full() {
            return;
        }
        if planted!(self.config, SnapshotAckBeforeDurable) {
            self.acknowledge(from, index);
        }
        let is_older = index <= self.commit && !planted!(self.config, SnapshotOlderThanLogTruncates);
        if is_older || (index > self.commit && self.log.term_at(index) == Some(term)) {
            self.verified = self.verified.max(index.min(self.log.last_index()));
            self.follow_commit(index);
            return self.acknowledge(from, self.verified);
        }
        let offer = SnapshotOffer { from, index, term };
        if self.offered.is_none_or(|before| before.offer != offer) {
            self.offered = Some(Offered { offer, is_handed: false });
        }
    }

    /// The offer to be handed out now, if there is one.
    fn offer_due(&self) -> Option<SnapshotOffer> {
        let offered = self.offered.filter(|offered| !offered.is_handed)?;
        (self.writes.durable_ballot().0 >= offered.offer.term).then_some(offered.offer)
    }

    /// Whether there is an offer to be handed out.
    pub(super) fn has_offer(&self) -> bool {
        self.offer_due().is_some()
    }

    /// The offer to be handed out, once.
    pub(super) fn take_offer(&mut self) -> Option<SnapshotOffer> {
        let offer = self.offer_due()?;
        self.offered = Some(Offered { offer, is_handed: true });
        Some(offer)
    }

    /// Whether a table that ends with an entry of this index and term would bring this replica further, and
    /// may. To be asked before one is made the node's own. A table of a term that the hard state on disk has
    /// not reached has to wait until it has: the leader that gave it will see to that.
    #[must_use]
    pub fn wants_table(&self, index: Index, term: Term) -> bool {
        let is_valid = index.0 > 0 && index < INDEX_MAX && term.0 > 0;
        if !is_valid || term > self.writes.durable_ballot().0 {
            return false;
        }
        let is_ahead = index > self.commit || planted!(self.config, SnapshotOlderThanLogTruncates);
        is_ahead && !matches!(self.role, RoleState::Leader(_))
    }

    /// Whether a table that ends with an entry of this index and term may take the place of a state that the
    /// driver lost: the log goes on behind it, or has this very entry.
    #[must_use]
    pub fn accepts_table(&self, index: Index, term: Term) -> bool {
        let is_own = index >= self.log.start() && self.log.term_at(index) == Some(term);
        let is_durable = term.0 > 0 && term <= self.writes.durable_ballot().0;
        let leads = matches!(self.role, RoleState::Leader(_));
        (is_own && is_durable && index <= self.log.persisted() && !leads) || self.wants_table(index, term)
    }

    /// Takes note that a table fetched from a peer is durable here, up to an entry of this index and term.
    /// [`Installed`] says what the driver does with its state machine; it must not release anything of its
    /// own log before the persist that follows.
    ///
    /// # Panics
    /// Neither [`Raft::wants_table`] nor [`Raft::accepts_table`] ever said yes to it.
    pub fn installed(&mut self, index: Index, term: Term) -> Installed {
        // One that goes further than what was had is offered again, and then it is a new one.
        if self.offered.is_some_and(|offered| offered.offer.index <= index || offered.is_handed) {
            self.offered = None;
        }
        let became = self.take_table(index, term);
        self.heal();
        match (became, self.leader()) {
            (Installed::Restarted | Installed::Kept, Some(leader)) if leader != self.config.id => {
                self.acknowledge(leader, self.verified);
            }
            (Installed::Restarted | Installed::Kept | Installed::Stale, _) => {}
        }
        became
    }

    /// Takes note that the table offered could not be fetched, or was no good. The next offer is a new one.
    pub fn install_failed(&mut self) {
        self.offered = None;
    }

    fn take_table(&mut self, index: Index, term: Term) -> Installed {
        assert!(index.0 > 0 && index < INDEX_MAX, "a table to {index} is durable");
        assert!(term.0 > 0 && term <= self.term, "a table of term {term} is durable in term {}", self.term);
        if planted!(self.config, SnapshotOlderThanLogTruncates) && index > self.log.start() {
            return self.restart_at(index, term);
        }
        let is_held = self.log.term_at(index) == Some(term);
        if is_held && index > self.log.start() {
            if !self.log.skip_to(index) {
                self.out.restart = Some((index, term));
            }
            self.commit = self.commit.max(index);
            self.verified = self.verified.max(self.commit);
            return Installed::Kept;
        }
        if self.wants_table(index, term) { self.restart_at(index, term) } else { Installed::Stale }
    }

    fn restart_at(&mut self, index: Index, term: Term) -> Installed {
        self.writes.overwritten_from(Index(1));
        self.log.restart(index, term);
        self.out.restart = Some((index, term));
        self.out.hard_state.commit = self.out.hard_state.commit.min(index);
        self.commit = index;
        self.verified = index;
        Installed::Restarted
    }
}

/// The log as it was recovered, and the beginning that is to be written where it has to begin anew.
pub(super) fn recovered_log(recovered: &Recovered) -> Result<(Log, Option<(Index, Term)>), RecoverError> {
    let Recovered { hard_state, standing, table, terms, last_index } = recovered;
    let first = terms.first().map_or(last_index.next(), |first| first.0);
    if first > table.0.next() {
        return Err(RecoverError::Gap { table: table.0, first });
    }
    let is_reached = *last_index >= table.0;
    let run = terms.iter().take_while(|run| run.0 <= table.0).last();
    let is_equal = first == table.0.next() || run.is_some_and(|run| run.1 == table.1);
    if is_reached && is_equal {
        return Ok((Log::new(*table, terms.clone(), *last_index), None));
    }
    if is_reached && hard_state.commit >= table.0 && *standing == Standing::Whole {
        return Err(RecoverError::TableContradicted { index: table.0 });
    }
    Ok((Log::new(*table, Vec::new(), table.0), Some(*table)))
}
