//! A state that was frozen to become a table, and what is let go of when it has.
//!
//! Invariants:
//! - A [`Frozen`] never changes, whatever becomes of the state that it was taken from: a merge of it that was
//!   given up can begin again.
//! - Freezing copies no key and no session: memtable and sessions are shared.
//!
//! Deliberately absent: when to freeze. The driver knows what the log holds durable, and freezes at no other
//! index.

use std::rc::Rc;

use super::memtable::{Memtable, Slots};
use super::sessions::FrozenSessions;
use super::table::TableMeta;
use crate::ids::ShardId;

/// The changes since the last table, as they were at one index. A copy is another reference.
#[derive(Clone)]
pub struct Frozen(Rc<Inner>);

struct Inner {
    shard: ShardId,
    meta: TableMeta,
    memtable: Rc<Memtable>,
    sessions: FrozenSessions,
}

impl Frozen {
    pub(super) fn new(
        shard: ShardId,
        meta: TableMeta,
        memtable: Rc<Memtable>,
        sessions: FrozenSessions,
    ) -> Self {
        Self(Rc::new(Inner { shard, meta, memtable, sessions }))
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.0.shard
    }

    /// The state at that index in numbers: what the table's footer will say.
    #[must_use]
    pub fn meta(&self) -> &TableMeta {
        &self.0.meta
    }

    /// About how much memory the frozen memtable holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.memtable.memory_bytes()
    }

    pub(super) fn memtable(&self) -> &Memtable {
        &self.0.memtable
    }

    pub(super) fn sessions(&self) -> &FrozenSessions {
        &self.0.sessions
    }
}

/// Memtables that nobody needs any more. Letting go of a large one takes long: it is done in steps.
#[must_use = "dropped as it is, a large memtable holds the core up"]
#[derive(Default)]
pub struct Retired(Vec<Slots>);

impl Retired {
    /// Of these memtables, those that nobody else refers to: a merge and every copy of its [`Frozen`] have to
    /// be gone before, or the last of them pays for the drop.
    pub(super) fn of(memtables: impl Iterator<Item = Rc<Memtable>>) -> Self {
        let owned = memtables.filter_map(|memtable| Rc::try_unwrap(memtable).ok());
        Self(owned.map(Memtable::into_slots).collect())
    }

    /// Lets go of this many keys. Whether some are left.
    pub fn drop_some(&mut self, keys: usize) -> bool {
        let Some(slots) = self.0.last_mut() else { return false };
        if !slots.drop_some(keys) {
            self.0.pop();
        }
        !self.0.is_empty()
    }
}
