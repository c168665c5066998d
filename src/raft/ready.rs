//! What a replica wants done, and how it is told what was done.
//!
//! The driver takes a [`Ready`], and then
//! 1. sends `messages` at once, in parallel with everything else;
//! 2. writes `persist`, in the order of the numbers, and when it is durable sends its `then_send` and reports
//!    a [`Completion`]. Several may be in flight. One with nothing to write ([`Persist::is_empty`]) costs no
//!    write: it is complete when all before it are;
//! 3. applies committed entries up to `commit`, in order, and says so with [`super::Raft::applied`];
//! 4. answers `reads` once their index is applied, and asks again or refuses for `reads_lost`;
//! 5. reads every `fetch` from its log and hands it back, empty where that failed;
//! 6. keeps a table ready for each of `snapshots`, and as a follower fetches the one `offer`ed: outside of
//!    raft, in pieces, for as long as it takes. When it is durable it says so with
//!    [`super::Raft::installed`], or else with [`super::Raft::install_failed`].
//!
//! Invariants:
//! - A message whose truth depends on a write is only ever in the `then_send` of that write or of a later
//!   one.
//! - Entries of a persist overwrite what the log holds from the first one's index on.
//! - The hard state that is durable never names a commit index beyond the entries, or the table, that are
//!   durable with it; and its term is never older than that of a table the replica was offered.

use crate::ids::{Index, NodeId, Term};

use super::message::{Entry, Message};
use super::standing::Standing;

/// What must survive a restart beside the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Whom the replica voted for in it.
    pub vote: Option<NodeId>,
    /// How far the log is known to be committed. Written along with the rest, never for its own sake.
    pub commit: Index,
}

/// What the log held when the replica started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last hard state written. Of one that may have forgotten: the last one found, or none.
    pub hard_state: HardState,
    /// The last standing written, or the one that what was found damaged makes necessary; it then becomes
    /// durable before the replica answers anybody.
    pub standing: Standing,
    /// The last index in the durable table, and the term of the entry there; zeros without a table.
    /// Committed, whatever the hard state says, and the state machine begins with it.
    pub table: (Index, Term),
    /// The first index of each run of entries of one term in the log, and that term. The log may reach back
    /// to before the table's end, but must not begin behind the entry that follows it.
    pub terms: Vec<(Index, Term)>,
    /// The index of the last entry in the log; without any, the last that the log knows to be released, or 0.
    pub last_index: Index,
}

/// Why a recovered log makes no sense. All of it is damage, or lost: the replica may only start with another
/// [`Standing`], which says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// Indexes or terms of the runs do not ascend, or lie outside the log.
    TermsDisordered,
    /// The hard state's term is older than the last entry's, so hard state was lost.
    TermBehindLog {
        /// The hard state's term.
        term: Term,
        /// The last entry's.
        last_term: Term,
    },
    /// The hard state says that more is committed than the log holds, so entries were lost.
    CommitBeyondLog {
        /// The hard state's commit index.
        commit: Index,
        /// The last index.
        last_index: Index,
    },
    /// The vote is for a node that does not vote here.
    VoteUnknown(NodeId),
    /// Between the table and the log, entries are missing.
    Gap {
        /// The table's last index.
        table: Index,
        /// The log's first.
        first: Index,
    },
    /// The log holds another entry at the table's end than the table, and says that it is committed.
    TableContradicted {
        /// The table's last index.
        index: Index,
    },
    /// What was lost can only come from other voters, and there are none.
    Alone,
}

impl std::fmt::Display for RecoverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TermsDisordered => write!(f, "the terms of the log's entries are out of order"),
            Self::TermBehindLog { term, last_term } => {
                write!(f, "the hard state is of term {term}, the last entry of term {last_term}")
            }
            Self::CommitBeyondLog { commit, last_index } => {
                write!(f, "entry {commit} is committed, but the log ends at {last_index}")
            }
            Self::VoteUnknown(node) => write!(f, "the vote is for node {node}, which is no voter"),
            Self::Gap { table, first } => write!(f, "the table ends at {table}, the log begins at {first}"),
            Self::TableContradicted { index } => {
                write!(f, "table and log hold different entries at {index}, which is committed")
            }
            Self::Alone => write!(f, "what was lost could only come from other voters, and there are none"),
        }
    }
}

impl std::error::Error for RecoverError {}

/// Everything that a replica wants done since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To send at once.
    pub messages: Vec<Message>,
    /// To write.
    pub persist: Option<Persist>,
    /// Entries up to here may be applied, whether or not the own disk holds them already.
    pub commit: Index,
    /// Reads that may be answered.
    pub reads: Vec<ReadState>,
    /// Tokens of reads that this replica can no longer answer: it lost leadership.
    pub reads_lost: Vec<u64>,
    /// Entries to be read from the log.
    pub fetch: Vec<Fetch>,
    /// Followers that need a table. Each is told by message; the driver gives them the table when they ask.
    pub snapshots: Vec<SnapshotNeed>,
    /// A table to fetch, in place of any that was offered before.
    pub offer: Option<SnapshotOffer>,
}

/// A follower that needs a table, since the log no longer holds what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotNeed {
    /// The follower.
    pub to: NodeId,
    /// The table has to go to this index at least, and the log to be kept from there on until the follower
    /// has caught up.
    pub index: Index,
}

/// A table that a leader offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotOffer {
    /// Who has it.
    pub from: NodeId,
    /// It goes to this index at least.
    pub index: Index,
    /// The term of the entry there.
    pub term: Term,
}

/// What became of a table that was sent to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotOutcome {
    /// The follower has it.
    Finished,
    /// It did not arrive, or cannot be had any more.
    Failed,
}

/// What a durable table did to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Installed {
    /// The log begins anew behind it: the state machine is what the table holds.
    Restarted,
    /// The log holds its last entry already, and keeps what follows. Where the state machine is behind the
    /// table, it is what the table holds; else it stays as it is.
    Kept,
    /// It says nothing new: state machine and log stay as they are.
    Stale,
}

/// One write. Numbers count up from 1 without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Persist {
    /// Its place in the order.
    pub number: u64,
    /// The hard state, where it changed.
    pub hard_state: Option<HardState>,
    /// The standing, where it changed.
    pub standing: Option<Standing>,
    /// The log begins anew behind this index and term, which the durable table holds: every entry that the
    /// log holds goes, **also those behind the index**. Before the entries of this persist.
    pub restart: Option<(Index, Term)>,
    /// Consecutive entries; they replace everything in the log from the first one's index on.
    pub entries: Vec<Entry>,
    /// To send when it is durable.
    pub then_send: Vec<Message>,
}

impl Persist {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let has_state = self.hard_state.is_some() || self.standing.is_some();
        !has_state && self.restart.is_none() && self.entries.is_empty()
    }

    /// What to report when it is durable.
    #[must_use]
    pub fn completion(&self) -> Completion {
        Completion { number: self.number, last: self.entries.last().map(|entry| (entry.index, entry.term)) }
    }
}

/// Says that a persist is durable, and with it all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Completion {
    /// The persist's number.
    pub number: u64,
    /// Index and term of its last entry, where it had any.
    pub last: Option<(Index, Term)>,
}

/// A read that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadState {
    /// What [`super::Raft::read`] was called with.
    pub token: u64,
    /// The index that has to be applied first.
    pub index: Index,
}

/// Entries that a follower lacks and the memory no longer holds. Answered with [`super::Raft::fetched`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// The follower.
    pub to: NodeId,
    /// The first index wanted.
    pub first: Index,
    /// The last index wanted.
    pub last: Index,
    /// Stop before the entry that would pass this, but never before the first. An entry counts as its
    /// [`Entry::cost_bytes`].
    pub bytes_max: usize,
}

/// Why a proposal was not taken. It is certainly not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Ask the leader.
    NotLeader {
        /// Who that is, where known.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over: ask again in a moment.
    Transferring,
    /// Too much is under way: slow down.
    Full,
}

/// Why a read was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Ask the leader.
    NotLeader {
        /// Who that is, where known.
        leader: Option<NodeId>,
    },
    /// The leader is new and does not know yet what is committed: ask again in a moment.
    NotYet,
    /// Too many reads are under way: slow down.
    Full,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// Ask the leader.
    NotLeader {
        /// Who that is, where known.
        leader: Option<NodeId>,
    },
    /// It is already being handed to this node.
    Transferring {
        /// The one that it goes to.
        to: NodeId,
    },
    /// The node named is no voter, was not heard within T, or would not lead; or there is no other node that
    /// would.
    NoTarget,
}
