//! Tables that travel between nodes, at the replica: what is lent to a follower, what takes the place of this
//! replica's own state, and what the log lets go of for a table.
//!
//! Invariants:
//! - The log lets go of what a durable table of this node holds, and of nothing else; for a follower that is
//!   fetching a table, not of what follows that table.
//! - A table that takes the place of the state is one that raft wants, and no table of the replica's own is
//!   being made meanwhile.
//! - Who waits for an entry that the table covers is told that the outcome is unknown.

use std::rc::Rc;
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::Index;
use crate::kv::{self, Retired};
use crate::log::TableRef;
use crate::raft::{Installed, Role};
use crate::route::call::FailureKind;
use crate::route::parcel::TableAsk;
use crate::shard::replica::{Replica, Turn};
use crate::shard::snapshot::Changes;
use crate::shard::table::{OpenTable, TableFile, TableReadError};

/// A lent table that nobody asked for in so long is let go of.
const LENT_IDLE_MAX: Duration = Duration::from_secs(10);

/// A table that is lent to a follower.
pub(crate) struct Lent<E: Env> {
    file: Rc<TableFile<E>>,
    asked_at: Instant,
}

impl<E: Env> Replica<E> {
    /// The table to answer a question from: the one that is asked for, where it is still there, else the
    /// newest.
    pub(crate) fn lend(&mut self, ask: &TableAsk, now: Instant) -> Option<Rc<TableFile<E>>> {
        let lent = self.lent.take().filter(|lent| lent.file.salt() == ask.generation);
        let file = lent.map(|lent| lent.file).or_else(|| self.table.clone())?;
        self.lent = Some(Lent { file: Rc::clone(&file), asked_at: now });
        Some(file)
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
        let is_behind = index <= self.raft.log_start() || index > self.raft.persisted_index();
        if is_lending || is_behind {
            return;
        }
        let Some(term) = self.raft.term_at(index) else { return };
        // Where the lane has no room, the next table lets go of more.
        if self.lane.release(self.shard, index, term).is_ok() {
            self.raft.compact(index);
        }
    }

    /// Whether a table that has arrived may take the place of the state, which is then reserved for it.
    /// `None`: a table of the replica's own is being made.
    pub(crate) fn reserve_install(&mut self, named: &TableRef) -> Option<bool> {
        if self.changes.is_running {
            return None;
        }
        let in_table = self.state.table().map_or(Index(0), |table| table.meta().applied);
        let is_wanted = self.raft.wants_table(named.index, named.term) && named.index > in_table;
        self.changes.is_running = is_wanted;
        self.is_table_coming = is_wanted;
        Some(is_wanted)
    }

    /// A fetched table is durable, and the manifest names it. What is let go of.
    pub(crate) fn install_fetched(
        &mut self,
        table: OpenTable<E>,
        config: kv::Config,
        turn: &mut Turn<'_>,
    ) -> Result<Retired, TableReadError> {
        let OpenTable { file, index, sessions } = table;
        let (at, term) = (index.meta().applied, index.meta().applied_term);
        self.changes = Changes::new(turn.now);
        self.is_table_coming = false;
        let became = self.raft.installed(at, term);
        let is_ahead = at > self.state.applied();
        match became {
            Installed::Restarted | Installed::Kept if is_ahead => {}
            Installed::Restarted => {
                panic!("shard {}: {} is applied, the table ends at {at}", self.shard, self.state.applied())
            }
            // The state goes on over the table that it has, and is made into one with the next.
            Installed::Kept | Installed::Stale => return Ok(Retired::default()),
        }
        let state = kv::State::from_table(config, index, &sessions).map_err(|source| file.damaged(source))?;
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
        assert!(self.raft.role() != Role::Leader, "shard {}: a leader took a table", self.shard);
        Ok(before.retire())
    }

    /// A leader's table could not be had.
    pub(crate) fn fetch_failed(&mut self) {
        if self.is_table_coming {
            self.changes.is_running = false;
        }
        self.is_table_coming = false;
        self.raft.install_failed();
    }
}
