//! Bugs that a test plants to prove that the tests would find them. They exist in builds with debug
//! assertions alone.

/// A bug to plant in a shard's state.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlantedBug {
    /// A replica that starts again rebuilds the keys from its log but not the sessions: see
    /// [`State::restarted`](super::State::restarted).
    SessionsLostOnRestart,
    /// The answer to a request with an identity is not kept, so that a resend is applied again.
    AnswerNotStored,
    /// A resent Append is answered, and applied once more.
    AppendNotIdempotent,
    /// A refusal decided by the state is not kept, so that a late resend may be applied after all.
    RefusalNotStored,
    /// A resend is answered with the shard's revision instead of that of the first answer.
    ResendRevisionFresh,
    /// A sequence whose answer was acknowledged and forgotten is applied again.
    ForgottenReapplied,
    /// Another request under a sequence in use gets the answer of the first.
    HashIgnored,
    /// Another request under a sequence in use is applied.
    SequenceReusedApplied,
    /// A request that acknowledges less than an earlier one takes the acknowledgement back.
    AcknowledgedShrinks,
    /// A request is applied however far beyond `acknowledged` it is.
    WindowIgnored,
    /// A session ends by its leader's clock, although an entry touched it since.
    ExpiryByClock,
    /// A Put ignores `if_mod_revision`.
    ComparisonIgnored,
    /// The revision steps for a write that changed nothing.
    RevisionAlwaysSteps,
    /// A Txn that is refused in its middle leaves the writes before it.
    TxnNotAtomic,
    /// Deleting a key leaves its part of the digest.
    DigestKeepsDeleted,
    /// A frozen state, and so the table that becomes of it, has no sessions.
    SessionsMissingFromTable,
    /// A table says that it has applied one entry more than it has.
    AppliedIndexApartFromState,
    /// A delete leaves no tombstone over what the layers below have of the key.
    TombstoneDroppedEarly,
}

#[cfg(debug_assertions)]
impl PlantedBug {
    /// Every one of them, for a test that goes through all.
    pub const ALL: [Self; 18] = [
        Self::SessionsLostOnRestart,
        Self::AnswerNotStored,
        Self::AppendNotIdempotent,
        Self::RefusalNotStored,
        Self::ResendRevisionFresh,
        Self::ForgottenReapplied,
        Self::HashIgnored,
        Self::SequenceReusedApplied,
        Self::AcknowledgedShrinks,
        Self::WindowIgnored,
        Self::ExpiryByClock,
        Self::ComparisonIgnored,
        Self::RevisionAlwaysSteps,
        Self::TxnNotAtomic,
        Self::DigestKeepsDeleted,
        Self::SessionsMissingFromTable,
        Self::AppliedIndexApartFromState,
        Self::TombstoneDroppedEarly,
    ];
}

/// Whether `$config` has the bug `$bug` planted: constant `false` in a release build, where there are none.
macro_rules! planted {
    ($config:expr, $bug:ident) => {{
        #[cfg(debug_assertions)]
        let is_planted = $config.planted == Some($crate::kv::PlantedBug::$bug);
        #[cfg(not(debug_assertions))]
        let is_planted = {
            let _ = &$config;
            false
        };
        is_planted
    }};
}
pub(super) use planted;
