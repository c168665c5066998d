//! A state that was frozen to become a table, and what is let go of when it has.
//!
//! Invariants:
//! - A [`Frozen`] never changes, whatever becomes of the state that it was taken from: a merge of it that was
//!   given up can begin again.
//! - Freezing copies no key and no session: memtable and sessions are shared.
//!
//! A table of a backup becomes the first one of a new cluster in the same way: as a state without changes,
//! frozen over that table, with its sessions ended.
//!
//! Deliberately absent: when to freeze. The driver knows what the log holds durable, and freezes at no other
//! index.

use std::rc::Rc;

use bytes::Bytes;

use super::memtable::{Memtable, Slots};
use super::sessions::FrozenSessions;
use super::state::digest_of;
use super::table::{TableIndex, TableMeta};
use crate::ids::{Index, Revision, ShardId, Term};

/// The changes since the last table, as they were at one index. A copy is another reference.
#[derive(Clone)]
pub struct Frozen(Rc<Inner>);

struct Inner {
    shard: ShardId,
    meta: TableMeta,
    memtable: Rc<Memtable>,
    sessions: FrozenSessions,
}

/// Where a restored shard goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredAt {
    /// The last entry that its table stands for: ahead of that of the backup's.
    pub applied: Index,
    /// The term of that entry.
    pub term: Term,
    /// Its revision: ahead of the backup's.
    pub revision: Revision,
    /// Who belongs to its group, in the driver's own codec.
    pub membership: Bytes,
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

    /// The keys of a table, without its sessions, as the state at another entry and revision: what a shard
    /// begins with that is restored.
    #[must_use]
    pub fn restored(table: &TableIndex, at: RestoredAt) -> Self {
        let before = table.meta();
        let is_ahead = at.applied > before.applied && at.revision > before.revision;
        assert!(is_ahead, "{at:?} is not ahead of entry {}, revision {}", before.applied, before.revision);
        let meta = TableMeta {
            applied: at.applied,
            applied_term: at.term,
            revision: at.revision,
            sums: before.sums,
            digest: digest_of(at.revision, before.sums.digest, 0),
            membership: at.membership,
        };
        Self::new(table.footer().header.shard, meta, Rc::new(Memtable::default()), Vec::new())
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
