//! What replicas say to each other.
//!
//! Invariants:
//! - A message may be lost, repeated, delayed and reordered; nothing is wrong with any of it.
//! - `term` is always the sender's own term when it made the message, also in a pre-vote: the term asked for
//!   is the one after it.
//! - A request of an older term is answered with [`Body::Outdated`], a reply of an older term is dropped. So
//!   no two replicas answer each other without end, and none waits for ever for one that is ahead of it.
//! - `voice` says what an answer is worth; whoever counts answers to a quorum looks at it first.
//!
//! Deliberately absent: membership changes, which get kinds of their own, and tables: a message only says
//! which one is there to be fetched.

use bytes::Bytes;

use crate::ids::{Index, NodeId, Term};

/// One message from one replica of a group to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// Who says it.
    pub from: NodeId,
    /// Who it is for.
    pub to: NodeId,
    /// The sender's term.
    pub term: Term,
    /// What the sender's answers are worth.
    pub voice: Voice,
    /// What is said.
    pub body: Body,
}

/// What a replica's answers are worth in a term, as it says itself; see [`super::Standing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Voice {
    /// They count.
    #[default]
    Whole,
    /// They count, but entries that it acknowledged before are lost, and it must not lead.
    Damaged,
    /// They do not count: it may have forgotten votes and entries. Once it holds an entry of this term, or of
    /// one not much older, that is committed, they will.
    Healing,
    /// They do not count, and will not in this term: it may have voted and acknowledged in it before.
    Forgetful,
}

impl Voice {
    /// Whether the answer counts towards a quorum.
    #[must_use]
    pub fn counts(self) -> bool {
        match self {
            Self::Whole | Self::Damaged => true,
            Self::Healing | Self::Forgetful => false,
        }
    }
}

/// One entry of the log. Empty data is the no-op that opens a term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Its place in the log, from 1.
    pub index: Index,
    /// The term of the leader that made it.
    pub term: Term,
    /// What the state machine is to do.
    pub data: Bytes,
}

impl Entry {
    /// What the entry counts for against every limit in bytes.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.data.len() + ENTRY_OVERHEAD_BYTES
    }
}

/// What an entry costs in memory and on the way beside its data.
pub const ENTRY_OVERHEAD_BYTES: usize = 48;

/// The largest data of one entry. The driver refuses larger ones before it proposes.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;

/// The most entries of one Append.
pub const APPEND_ENTRIES_MAX: usize = 16 << 10;

/// What a [`Message`] says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Body {
    /// Would you vote for me in the term after mine? Changes nothing at the voter.
    PreVote {
        /// The asker's last index.
        last_index: Index,
        /// The term of it.
        last_term: Term,
    },
    /// Answer to a pre-vote.
    PreVoteReply {
        /// The asker's term when it asked: an answer to an earlier question does not count.
        asked: Term,
        /// Yes or no.
        ballot: Ballot,
    },
    /// Vote for me in my term. Sent once the asker's own vote for itself, and its log, are durable.
    Vote {
        /// The asker's last index.
        last_index: Index,
        /// The term of it.
        last_term: Term,
        /// Why it asks.
        cause: Campaign,
    },
    /// Answer to a vote. Sent once the vote is durable.
    VoteReply {
        /// Yes or no.
        ballot: Ballot,
    },
    /// The leader's entries after `prev_index`; none where it only asks whether the logs match there.
    Append {
        /// The index before the first entry.
        prev_index: Index,
        /// The leader's term there.
        prev_term: Term,
        /// The leader's commit index. It holds for the receiver only as far as its log is known to match.
        commit: Index,
        /// Consecutive entries from `prev_index + 1`.
        entries: Vec<Entry>,
    },
    /// Answer to an append.
    AppendReply {
        /// Whether the logs matched.
        outcome: AppendOutcome,
        /// Whether the sender would lead.
        willing: Willingness,
    },
    /// I lead. Sent to all at fixed times, for every round of reads, and where a follower has not heard of a
    /// commit.
    Heartbeat {
        /// The leader's commit index, but no further than the receiver is known to match.
        commit: Index,
        /// The term of the entry there. A receiver that has the same one knows that it matches so far, also
        /// after a restart; for any other the commit index says nothing.
        commit_term: Term,
        /// The latest round of this leader; a fresh one each time it wants to know whether it still leads.
        round: u64,
    },
    /// Answer to a heartbeat. It waits for no write.
    HeartbeatReply {
        /// The heartbeat's round.
        round: u64,
        /// How far the sender's log is known to match the leader's, durable or not: what was sent before the
        /// round and lies beyond it was lost.
        verified: Index,
        /// How far it is durable, too: as good as an accepted append.
        durable: Index,
        /// Whether the sender would lead.
        willing: Willingness,
    },
    /// Campaign at once, without pre-vote: the leader steps aside for you.
    TimeoutNow,
    /// What you sent is of a term that is over. The current one is in the message's head.
    Outdated,
    /// My log no longer holds what you need next: fetch my table. Said again with every heartbeat until the
    /// follower has it. The answer is that to an append.
    Snapshot {
        /// The table goes to this index at least.
        index: Index,
        /// The term of the entry there.
        term: Term,
    },
    /// Which term are you in? Asked by one that may have forgotten its own. Changes nothing at the other.
    TermAsk {
        /// What the answer has to repeat: the asker's episode ([`super::Standing::Forgetful`]).
        request: u64,
    },
    /// The answer: the term is in the message's head. Only one that remembers its own terms gives it.
    TermTold {
        /// The question's.
        request: u64,
    },
}

/// A voter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ballot {
    /// Yes.
    Granted,
    /// No.
    Refused,
}

/// Why a candidate asks for votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Campaign {
    /// It heard no leader. A voter that hears one does not answer.
    Timeout,
    /// The leader told it to. It is answered in any case.
    Transfer,
}

/// Whether a replica would lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Willingness {
    /// It would.
    #[default]
    Willing,
    /// It is about to leave, or would be of no use: it neither campaigns nor takes leadership over.
    Draining,
    /// What is left of its disk is its reserve: it leads where nobody else would.
    Short,
    /// As [`Self::Draining`], and its disk is short, or takes no more of the log at all.
    Full,
}

impl Willingness {
    /// Whether it leads where it has to.
    #[must_use]
    pub fn may_lead(self) -> bool {
        match self {
            Self::Willing | Self::Short => true,
            Self::Draining | Self::Full => false,
        }
    }

    /// Whether its disk has room for more data.
    #[must_use]
    pub fn has_room(self) -> bool {
        match self {
            Self::Willing | Self::Draining => true,
            Self::Short | Self::Full => false,
        }
    }
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppendOutcome {
    /// The logs match up to here, and the sender's is durable up to here.
    Accepted {
        /// The last index that was appended or found to match.
        matched: Index,
    },
    /// The logs differ at `prev_index`.
    Rejected {
        /// The append's `prev_index`.
        prev_index: Index,
        /// The sender's last index at or before it.
        conflict_index: Index,
        /// The sender's term there.
        conflict_term: Term,
        /// The first index that has this term in the sender's log: none of that term need be tried below it.
        conflict_first: Index,
    },
}
