//! Faults put in on purpose, each of which some test has to find: a test that cannot fail is a defect.
//!
//! Only in builds with debug assertions; in a release build neither the enum nor the branches exist. Nothing
//! but tests and the simulator's hidden option sets one.

/// One fault. Each names the rule that it breaks.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlantedBug {
    /// An entry of an older term commits as soon as a quorum holds it (figure 8 of the Raft paper).
    CommitOlderTermByCounting,
    /// A vote is told before it is durable, so a voter that restarts may vote twice in one term.
    VoteNotDurable,
    /// A follower acknowledges entries that it has not yet written.
    AcknowledgeBeforeWrite,
    /// A leader counts its own copy of an entry before its disk has said so (etcd#14370).
    OwnCopyCountedEarly,
    /// A new leader answers reads before an entry of its term is committed.
    ReadBeforeFirstCommit,
    /// A read's round takes the id of the round before it, so that an old reply counts.
    ReadIdReused,
    /// The completion of an overwritten entry's write is taken for the write of the same entry, written
    /// again.
    StaleCompletionTaken,
    /// A follower takes the leader's commit index for its own log before it knows that the two match.
    CommitBeyondMatch,
    /// Leadership is handed to a follower that lacks entries.
    TransferWithoutCatchUp,
    /// A pre-vote is granted whatever the asker's log lacks.
    PreVoteIgnoresLog,
    /// A vote is granted whatever the asker's log lacks.
    VoteIgnoresLog,
    /// A voter that hears a living leader votes for another one all the same.
    StickinessForgotten,
    /// A lease counts from the receipt of the acknowledgement, not from the send of what it acknowledges.
    LeaseFromReceipt,
    /// A leader that reaches no quorum goes on leading.
    QuorumNeverChecked,
    /// A replica that may have forgotten votes and entries votes and acknowledges as if it had not.
    WipedVotesInForgottenTerm,
    /// A leader counts the acknowledgements of a replica that says it does not count.
    RecoveringAckCounted,
    /// A candidate counts the vote of a replica that says it does not count.
    RecoveringVoteCounted,
    /// A table that is older than what the log has committed is taken all the same, and cuts the log.
    SnapshotOlderThanLogTruncates,
    /// A follower acknowledges a table when it is offered.
    SnapshotAckBeforeDurable,
}

#[cfg(debug_assertions)]
impl PlantedBug {
    /// Every one of them.
    pub const ALL: [Self; 19] = [
        Self::CommitOlderTermByCounting,
        Self::VoteNotDurable,
        Self::AcknowledgeBeforeWrite,
        Self::OwnCopyCountedEarly,
        Self::ReadBeforeFirstCommit,
        Self::ReadIdReused,
        Self::StaleCompletionTaken,
        Self::CommitBeyondMatch,
        Self::TransferWithoutCatchUp,
        Self::PreVoteIgnoresLog,
        Self::VoteIgnoresLog,
        Self::StickinessForgotten,
        Self::LeaseFromReceipt,
        Self::QuorumNeverChecked,
        Self::WipedVotesInForgottenTerm,
        Self::RecoveringAckCounted,
        Self::RecoveringVoteCounted,
        Self::SnapshotOlderThanLogTruncates,
        Self::SnapshotAckBeforeDurable,
    ];
}

/// Whether a fault is planted in a configuration.
#[cfg(debug_assertions)]
macro_rules! planted {
    ($config:expr, $bug:ident) => {
        $config.planted == Some($crate::raft::PlantedBug::$bug)
    };
}

/// Whether a fault is planted in a configuration: never, in a release build.
#[cfg(not(debug_assertions))]
macro_rules! planted {
    ($config:expr, $bug:ident) => {{
        let _ = &$config;
        false
    }};
}

pub(super) use planted;
