//! Why a call of the Clerk did not succeed, told by what the caller must do about it.
//!
//! Invariants:
//! - Every variant but [`Error::CheckOutcome`] says of a write that it was certainly not executed and never
//!   will be.
//! - A read changes nothing, so it never ends in [`Error::CheckOutcome`].
//!
//! What this deliberately does not do: carry statuses or error types of a transport; text of a node is kept
//! for people to read and is never matched on.

use std::fmt;
use std::sync::Arc;

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not executed: nobody who could execute it was found in time. Try again later.
    TryAgain {
        /// The last thing that stood in the way, where there was one.
        last: Option<Setback>,
    },
    /// Not executed: the cluster, a session or this Clerk is at a limit of its load. Try again with less.
    SlowDown {
        /// Who said so; `None`: this Clerk's own limit of calls.
        last: Option<Setback>,
    },
    /// Not executed: the disks of the shard's nodes are full. Make room, then try again.
    FreeSpace {
        /// Who said so.
        last: Setback,
    },
    /// Not executed: the request itself is at fault and would fail again. Change it.
    ChangeRequest {
        /// Who said so, and why.
        last: Setback,
    },
    /// It may have been executed, or may yet be. Read the key to find out.
    CheckOutcome {
        /// The last thing that stood in the way, where there was one.
        last: Option<Setback>,
    },
    /// Not executed: this Clerk was closed. Connect a new one.
    Reconnect,
}

impl Error {
    /// Whether a write that ended so certainly was not, and will not be, executed.
    #[must_use]
    pub fn is_not_executed(&self) -> bool {
        match self {
            Self::TryAgain { .. }
            | Self::SlowDown { .. }
            | Self::FreeSpace { .. }
            | Self::ChangeRequest { .. }
            | Self::Reconnect => true,
            Self::CheckOutcome { .. } => false,
        }
    }

    /// The last thing that stood in the way, where one is known.
    #[must_use]
    pub fn last(&self) -> Option<&Setback> {
        match self {
            Self::TryAgain { last } | Self::SlowDown { last } | Self::CheckOutcome { last } => last.as_ref(),
            Self::FreeSpace { last } | Self::ChangeRequest { last } => Some(last),
            Self::Reconnect => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TryAgain { .. } => "not executed, nobody could be found to do it in time; try again later",
            Self::SlowDown { .. } => "not executed, too much load; try again with less at a time",
            Self::FreeSpace { .. } => "not executed, the disk is full; make room and try again",
            Self::ChangeRequest { .. } => "not executed, the request was refused; change it",
            Self::CheckOutcome { .. } => "the outcome is not known; read the key to find out",
            Self::Reconnect => "not executed, the client was closed; connect a new one",
        })?;
        match self.last() {
            Some(last) => write!(f, " ({last})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// One thing that stood in the way of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// The address of the node that was asked.
    pub address: Arc<str>,
    /// What happened.
    pub cause: Cause,
    /// What the node or the transport said, for people; may be empty.
    pub detail: String,
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Refused(reason) => write!(f, "{} refused: {reason}", self.address)?,
            Cause::Unreached => write!(f, "{} could not be reached", self.address)?,
            Cause::Unanswered => write!(f, "{} gave no answer", self.address)?,
        }
        if self.detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.detail)
    }
}

/// What happened to one sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A node said that this sending was not executed.
    Refused(Reason),
    /// It never left: no connection came about.
    Unreached,
    /// It left, and whether it was executed is not known.
    Unanswered,
}

/// Why a node refused a sending: certainly not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The node asked does not lead the shard.
    NotLeader,
    /// No leader of the shard was found in time.
    NoLeader,
    /// Unavailable for a reason that this client does not know.
    Unavailable,
    /// The replica waits for repair.
    Damaged,
    /// The node is going away.
    ShuttingDown,
    /// A queue, a session's window or its stored answers are full.
    Overloaded,
    /// What makes the data grow is refused until there is room.
    DiskFull,
    /// The session ended, or was never opened on this shard.
    SessionExpired,
    /// The sequence is acknowledged and its answer gone.
    SequenceForgotten,
    /// The sequence was used for another request.
    SequenceReused,
    /// A size or a count is beyond its limit.
    Limit,
    /// The keys are of several shards.
    CrossShard,
    /// The request is at fault in another way; the detail says how.
    Invalid,
}

/// What a refusal asks of whoever sent the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Send it again, rather to another node.
    Elsewhere,
    /// Send it again, more slowly.
    Slower,
    /// Tell the caller to make room.
    Room,
    /// Send it again under another session.
    NewSession,
    /// Nothing can be said of the outcome.
    Unknowable,
    /// It would be refused again.
    Never,
}

impl Reason {
    /// What to do about it.
    pub(crate) fn advice(self) -> Advice {
        match self {
            Self::NotLeader | Self::NoLeader | Self::Unavailable | Self::Damaged | Self::ShuttingDown => {
                Advice::Elsewhere
            }
            Self::Overloaded => Advice::Slower,
            Self::DiskFull => Advice::Room,
            Self::SessionExpired => Advice::NewSession,
            // The sequence counts as answered on the node: an earlier sending must have got through somehow.
            Self::SequenceForgotten => Advice::Unknowable,
            Self::SequenceReused | Self::Limit | Self::CrossShard | Self::Invalid => Advice::Never,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLeader => "not the leader",
            Self::NoLeader => "no leader",
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::ShuttingDown => "shutting down",
            Self::Overloaded => "overloaded",
            Self::DiskFull => "disk full",
            Self::SessionExpired => "session expired",
            Self::SequenceForgotten => "sequence forgotten",
            Self::SequenceReused => "sequence reused",
            Self::Limit => "over a limit",
            Self::CrossShard => "keys of several shards",
            Self::Invalid => "invalid",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setback(cause: Cause, detail: &str) -> Setback {
        Setback { address: "n1:1".into(), cause, detail: detail.to_owned() }
    }

    #[test]
    fn only_one_end_leaves_the_outcome_open() {
        let last = || setback(Cause::Refused(Reason::DiskFull), "");
        let ends = [
            (Error::TryAgain { last: None }, true),
            (Error::SlowDown { last: Some(last()) }, true),
            (Error::FreeSpace { last: last() }, true),
            (Error::ChangeRequest { last: last() }, true),
            (Error::Reconnect, true),
            (Error::CheckOutcome { last: Some(last()) }, false),
        ];
        for (error, is_not_executed) in ends {
            assert_eq!(error.is_not_executed(), is_not_executed, "{error}");
            let text = error.to_string();
            assert_eq!(text.starts_with("not executed"), is_not_executed, "{text}");
            let says_last = text.ends_with(" (n1:1 refused: disk full)");
            assert_eq!(says_last, error.last().is_some(), "{text}");
        }
    }

    #[test]
    fn a_setback_says_who_and_what() {
        let said = |cause, detail| setback(cause, detail).to_string();
        assert_eq!(said(Cause::Unreached, "refused"), "n1:1 could not be reached: refused");
        assert_eq!(said(Cause::Unanswered, ""), "n1:1 gave no answer");
        assert_eq!(said(Cause::Refused(Reason::Limit), "a key"), "n1:1 refused: over a limit: a key");
    }
}
