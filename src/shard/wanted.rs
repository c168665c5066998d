//! Tables that are asked for, by an operator or for a backup: who waits for one, and when it is there.
//!
//! ```text
//!   asked ─► applied what is wanted? ── not yet ──► looked at again
//!              │ yes
//!              ▼
//!            held by the durable table? ── no ──► a table is due, whatever has changed ─► looked at again
//!              │ yes                                                                         │ too late
//!              ▼                                                                             ▼
//!            Durable: which table, and where                                     Behind, or Making
//! ```
//!
//! Invariants:
//! - Who hears of a table hears of one that the manifest names and that holds at least what was asked for.
//! - Who asks is answered in the time given, or a little later.
//! - No more wait for one shard than [`WAITING_MAX`].
//!
//! It lives on the core of its shard; questions from other cores come by mesh.

use std::path::PathBuf;
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::{CoreId, Index, Revision, ShardId};
use crate::log::{TableRef, table_name};
use crate::shard::replica::Replica;

/// The most that wait for tables of one shard.
const WAITING_MAX: usize = 64;

/// A question of a core for a table of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAsk {
    /// Who asks.
    pub from: CoreId,
    /// The question's number, counted by that core.
    pub number: u64,
    /// The shard.
    pub shard: ShardId,
    /// What the table has to hold.
    pub wanted: Wanted,
    /// How long the answer may take.
    pub patience: Duration,
}

/// What a table has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What its replica has applied when it is asked.
    Applied,
    /// All changes up to this revision, which the replica may not have yet.
    Revision(Revision),
}

/// What came of a [`SnapshotAsk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// The table is durable. `None`: there is nothing that a table could hold.
    Durable(Option<TablePlace>),
    /// The replica has not got so far in time.
    Behind,
    /// The replica is that far, and its table is not made yet.
    Making,
    /// As many wait already as may.
    Busy,
}

/// Where a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlace {
    /// Which it is.
    pub named: TableRef,
    /// Its file. It may be removed at any time, where another takes its place.
    pub path: PathBuf,
}

/// Who waits for a table.
pub(crate) struct TableWaiter {
    ask: SnapshotAsk,
    target: Target,
    until: Instant,
}

/// What the table must have got to.
#[derive(Clone, Copy)]
enum Target {
    Index(Index),
    Revision(Revision),
}

/// An answer, and the question that it is to.
pub(crate) type Told = (SnapshotAsk, SnapshotAnswer);

impl<E: Env> Replica<E> {
    /// Takes a question in; what is to be said at once.
    pub(crate) fn want_table(&mut self, ask: SnapshotAsk, now: Instant) -> Option<Told> {
        if self.table_waiters.len() >= WAITING_MAX {
            return Some((ask, SnapshotAnswer::Busy));
        }
        let target = match ask.wanted {
            Wanted::Applied => Target::Index(self.state.applied()),
            Wanted::Revision(revision) => Target::Revision(revision),
        };
        self.table_waiters.push(TableWaiter { ask, target, until: now + ask.patience });
        None
    }

    /// Answers those whose table is there or whose time is over; sees to it that the others get theirs.
    pub(crate) fn settle_table_waiters(&mut self, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        for waiter in std::mem::take(&mut self.table_waiters) {
            let has_applied = self.has_applied(waiter.target);
            if self.table_holds(waiter.target) {
                told.push((waiter.ask, SnapshotAnswer::Durable(self.table_place())));
            } else if now >= waiter.until {
                let answer = if has_applied { SnapshotAnswer::Making } else { SnapshotAnswer::Behind };
                told.push((waiter.ask, answer));
            } else {
                if has_applied {
                    self.ask_snapshot();
                }
                self.table_waiters.push(waiter);
            }
        }
        told
    }

    fn has_applied(&self, target: Target) -> bool {
        match target {
            Target::Index(index) => self.state.applied() >= index,
            Target::Revision(revision) => self.state.revision() >= revision,
        }
    }

    fn table_holds(&self, target: Target) -> bool {
        let meta = self.state.table().map(|table| table.meta());
        match target {
            Target::Index(index) => meta.map_or(Index(0), |meta| meta.applied) >= index,
            Target::Revision(revision) => meta.is_some_and(|meta| meta.revision >= revision),
        }
    }

    fn table_place(&self) -> Option<TablePlace> {
        let named = self.table.as_ref()?.named();
        let path = self.lane.dir().join(table_name(self.shard, named.generation));
        Some(TablePlace { named, path })
    }
}
