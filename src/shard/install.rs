//! Tables that travel between nodes, at the replica: what is lent to a follower, what takes the place of this
//! replica's own state, and what the log lets go of for a table.
//!
//! Invariants:
//! - The log lets go of what a durable table of this node holds, and of nothing else; for a follower that is
//!   fetching a table, not of what follows that table.
//! - A table that takes the place of the state is one that raft wants. While it is made the node's own, no
//!   table of the replica's is made, and no entry that it covers is applied: the manifest and the state
//!   agree.
//! - Who waits for an entry that the table covers is told that the outcome is unknown.

use std::rc::Rc;
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::Index;
use crate::kv::{self, Retired};
use crate::log::TableRef;
use crate::raft::Installed;
use crate::route::call::FailureKind;
use crate::route::parcel::TableAsk;
use crate::shard::digests::Digests;
use crate::shard::lend::Lending;
use crate::shard::replica::{Replica, Turn};
use crate::shard::snapshot::Changes;
use crate::shard::table::TableFile;

/// A lent table that nobody asked for in so long is let go of.
const LENT_IDLE_MAX: Duration = Duration::from_secs(10);

/// A table that is lent to a follower.
pub(crate) struct Lent<E: Env> {
    lending: Rc<Lending<E>>,
    asked_at: Instant,
}

impl<E: Env> Replica<E> {
    /// The table to answer a question from: the one that is asked for, where it is still there, else the
    /// newest.
    pub(crate) fn lend(&mut self, ask: &TableAsk, now: Instant) -> Option<Rc<Lending<E>>> {
        if self.repair.is_spoiled() {
            return None;
        }
        let in_table = self.table.as_ref().map_or(Index(0), |table| table.named().index);
        if in_table < ask.index_min {
            // A state that has come so far gets a table.
            if self.state.applied() >= ask.index_min {
                self.ask_snapshot();
            }
            return None;
        }
        let (file, index) = (self.table.clone()?, Rc::clone(self.state.table()?));
        let is_it = |lending: &Lending<E>| {
            let salt = lending.file().salt();
            let is_asked = salt == ask.generation && lending.file().named().index >= ask.index_min;
            is_asked || salt == file.salt()
        };
        let lent = self.lent.take().map(|lent| lent.lending).filter(|lending| is_it(lending));
        let lending = lent.unwrap_or_else(|| Rc::new(Lending::new(file, index)));
        self.lent = Some(Lent { lending: Rc::clone(&lending), asked_at: now });
        Some(lending)
    }

    /// A table that is lent is damaged: it is lent no more.
    pub(crate) fn take_back(&mut self, lending: &Rc<Lending<E>>) {
        self.lent = self.lent.take().filter(|lent| !Rc::ptr_eq(&lent.lending, lending));
    }

    /// Lets go of a lent table that nobody asks for any more.
    pub(crate) fn forget_lent(&mut self, now: Instant) {
        self.lent = self.lent.take().filter(|lent| now.since(lent.asked_at) < LENT_IDLE_MAX);
    }

    /// Lets go of the log before the table's end, but for some entries that followers may yet lack.
    pub(crate) fn let_go_of_log(&mut self, keep_entries: u64) {
        let in_table = self.state.table().map_or(Index(0), |table| table.meta().applied);
        let index = Index(in_table.0.saturating_sub(keep_entries));
        let is_lending = self.raft.peers().iter().any(|peer| peer.is_active && peer.snapshot.is_some());
        if !is_lending {
            self.let_go_up_to(index);
        }
    }

    pub(crate) fn let_go_up_to(&mut self, index: Index) {
        if index <= self.raft.log_start() || index > self.raft.persisted_index() {
            return;
        }
        let Some(term) = self.raft.term_at(index) else { return };
        // Where the lane has no room, the next table lets go of more.
        if self.lane.release(self.shard, index, term).is_ok() {
            self.raft.compact(index);
        }
    }

    /// Lets go of the oldest segment: by what the table holds already, or by asking for a table.
    pub(crate) fn unpin(&mut self) {
        let in_table = self.state.table().map_or(Index(0), |table| table.meta().applied);
        if self.raft.log_start() < in_table {
            self.let_go_up_to(in_table);
        } else {
            self.ask_snapshot();
        }
    }

    /// Whether a table that has arrived may take the place of the state, which is then reserved for it.
    /// `None`: a table of the replica's own is being made.
    pub(crate) fn reserve_install(&mut self, named: &TableRef) -> Option<bool> {
        if self.changes.is_running {
            self.changes.is_awaited = true;
            return None;
        }
        let in_table = self.state.table().map_or(Index(0), |table| table.meta().applied);
        let is_wanted = if self.repair.is_spoiled() {
            self.accepts_repair(named.index, named.term)
        } else {
            self.raft.wants_table(named.index, named.term) && named.index > in_table
        };
        self.changes.is_running = is_wanted;
        self.coming = is_wanted.then_some(named.index);
        Some(is_wanted)
    }

    /// A fetched table is durable, and the manifest names it: the state that it holds takes the place of this
    /// replica's. What is let go of.
    pub(crate) fn install_fetched(
        &mut self,
        file: TableFile<E>,
        state: kv::State,
        turn: &mut Turn<'_>,
    ) -> Retired {
        let TableRef { index: at, term, .. } = file.named();
        let (applied, reserved) = (self.state.applied(), self.coming.take());
        assert!(reserved == Some(at), "shard {}: a table to {at}, {reserved:?} was reserved", self.shard);
        let is_repair = self.repair.is_spoiled();
        let is_later = applied < at || (is_repair && applied == at);
        assert!(is_later, "shard {}: {applied} is applied, the table ends at {at}", self.shard);
        self.changes = Changes::new(turn.now);
        let became = self.raft.installed(at, term);
        let is_taken = became != Installed::Stale || (is_repair && at == self.raft.log_start());
        assert!(is_taken, "shard {}: raft wanted the table to {at}", self.shard);
        let before = std::mem::replace(&mut self.state, state);
        if let Some(table) = self.table.replace(Rc::new(file)) {
            self.cache.borrow_mut().forget_table(table.salt());
        }
        self.stuck = None;
        self.fetched.clear();
        self.committed = self.committed.max(at);
        self.sessions.restart();
        let covered: Vec<Index> = self.waiters.range(..=at).map(|(index, _)| *index).collect();
        for waiter in covered.into_iter().filter_map(|index| self.waiters.remove(&index)).collect::<Vec<_>>()
        {
            self.fail(waiter.caller, FailureKind::OutcomeUnknown, turn);
        }
        self.raft.applied(at);
        self.digests = Digests::default();
        self.state_is_back(turn.now);
        before.retire()
    }

    /// A table of another node could not be had.
    pub(crate) fn fetch_failed(&mut self) {
        if self.coming.take().is_some() {
            self.changes.is_running = false;
        }
        self.raft.install_failed();
    }
}
