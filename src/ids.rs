//! The numbers that everything is named by, each a type of its own so that no two can be confused.
//!
//! Pure: no module below or beside this one is used. Every id is `Copy`, ordered and little-endian on disk
//! and wire (its codec writes `.0`). Zero is never a valid node, term of an entry, index of an entry, session
//! or sequence: it is the value before the first one.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The one after this. Panics where the number space ends, which no run reaches.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("ids are counted up one by one from zero"))
            }
        }
    };
}

id!(
    /// One server process of a cluster: 1 to n.
    NodeId(u32)
);
id!(
    /// One core of a node, counted from 0: one executor.
    CoreId(u32)
);
id!(
    /// One Raft group, counted from 0.
    ShardId(u32)
);
id!(
    /// One log on disk, counted from 0 on each node.
    LaneId(u32)
);
id!(
    /// One of the 16384 key slots.
    Slot(u16)
);
id!(
    /// A Raft term. 0 before the first election.
    Term(u64)
);
id!(
    /// A Raft log index. 0 before the first entry.
    Index(u64)
);
id!(
    /// A shard's counter of changes. A new shard is at 1.
    Revision(u64)
);
id!(
    /// A client session: made of its shard and the log index of its Open entry.
    SessionId(u64)
);
id!(
    /// A client's request within its session: 1, 2, 3, …
    Sequence(u64)
);
id!(
    /// What tells one cluster from another; see the identity module.
    ClusterId(u64)
);
id!(
    /// The random name of one data directory, made with it.
    DirectoryId(u64)
);
