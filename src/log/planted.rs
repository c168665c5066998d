//! Faults that are put into the log on purpose, to prove that its tests find them. Never in a release build.
//!
//! Invariants: the enum exists only under `debug_assertions`; nothing but a test, the simulator or the hidden
//! flag of a debug build sets one; with none set every branch here is dead.
//!
//! It deliberately is no cargo feature: a workspace build would unify it into the product.

/// One fault, in the words of what it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A torn tail is taken for damage: a node does not start after a power cut.
    TornTailMisread,
    /// Damage is cut like a torn tail: acknowledged entries vanish.
    DamageCut,
    /// Recovery acts on what it read without making it durable first: no sync, and the last batch is not
    /// carried.
    RecoveryActsOnUnsynced,
    /// Recovery does not record where segments end: a late write brings back what was cut.
    CutNotRecorded,
    /// A segment is released with the last copy of a shard's hard state in it.
    HardStateLostWithSegment,
    /// Appends are said to be complete before their batch is written.
    CompletedBeforeWrite,
    /// The next batch starts on the last block of the one before it, where that one had several.
    BlockRewritten,
    /// Recovery does not look at the chain of checksums.
    ChainIgnored,
    /// No empty batch is written when the lane falls idle: the last batch stays in the blind spot.
    NeverSealed,
    /// A failed batch write is tried again as if nothing had happened.
    FailureNotLatched,
    /// A segment that is used again keeps the header of its earlier use.
    HeaderKept,
    /// A segment that is used again keeps its salt, and of a batch neither the segment nor its number is
    /// looked at: what an earlier use left behind the last batch is taken for the next one.
    StaleBatchAccepted,
    /// A change of the manifest is written to one copy only.
    OneCopyWritten,
    /// A change of the manifest is written to one copy, to each in turns; a start takes the older one, and
    /// removes what that does not name.
    OldCopyWins,
    /// The directory is not synced after the copies of a manifest were renamed.
    DirectoryNotSynced,
}

#[cfg(debug_assertions)]
impl PlantedBug {
    /// Every one of them.
    pub const ALL: [Self; 15] = [
        Self::TornTailMisread,
        Self::DamageCut,
        Self::RecoveryActsOnUnsynced,
        Self::CutNotRecorded,
        Self::HardStateLostWithSegment,
        Self::CompletedBeforeWrite,
        Self::BlockRewritten,
        Self::ChainIgnored,
        Self::NeverSealed,
        Self::FailureNotLatched,
        Self::HeaderKept,
        Self::StaleBatchAccepted,
        Self::OneCopyWritten,
        Self::OldCopyWins,
        Self::DirectoryNotSynced,
    ];
}
