//! How a call failed, as a client sees it: gRPC's status and the contract's `Error` beside it.
//!
//! ```text
//! failure                                    code                 reason               executed
//! ──────────────────────────────────────────────────────────────────────────────────────────────────────
//! NotProposed                                UNAVAILABLE          NOT_LEADER           certainly not
//! NoLeader                                   UNAVAILABLE          NO_LEADER            certainly not
//! ShuttingDown                               UNAVAILABLE          SHUTTING_DOWN        certainly not
//! Damaged                                    UNAVAILABLE          DAMAGED              certainly not
//! DeadlineExceeded                           DEADLINE_EXCEEDED    OUTCOME_UNKNOWN      not known
//! OutcomeUnknown                             UNKNOWN              OUTCOME_UNKNOWN      not known
//! Overloaded                                 RESOURCE_EXHAUSTED   OVERLOADED           certainly not
//! DiskFull, QuorumDiskFull                   RESOURCE_EXHAUSTED   DISK_FULL            certainly not
//! TransferFailed                             FAILED_PRECONDITION  (none)               it did not move
//! Refused: SessionExpired                    FAILED_PRECONDITION  SESSION_EXPIRED      not this sending
//! Refused: SequenceForgotten                 FAILED_PRECONDITION  SEQUENCE_FORGOTTEN   not this sending
//! Refused: SequenceReused                    FAILED_PRECONDITION  SEQUENCE_REUSED      not this sending
//! Refused: TooMany…                          RESOURCE_EXHAUSTED   OVERLOADED           not this sending
//! Refused: Limit, of the state               FAILED_PRECONDITION  LIMIT                certainly not
//! Refused: Limit, of the request             INVALID_ARGUMENT     LIMIT                certainly not
//! Refused: Malformed                         INVALID_ARGUMENT     (none)               certainly not
//!
//! made by the edge itself
//! keys of several shards                     INVALID_ARGUMENT     CROSS_SHARD          certainly not
//! message or headers beyond a limit          INVALID_ARGUMENT     LIMIT                certainly not
//! bytes in flight beyond a limit             RESOURCE_EXHAUSTED   OVERLOADED           certainly not
//! unknown method, compression, cardinality   UNIMPLEMENTED        (none)               certainly not
//! a session of a shard that does not exist   FAILED_PRECONDITION  SESSION_EXPIRED      certainly not
//! a backup of a replica that is behind       UNAVAILABLE          (none)               certainly not
//! tables that were not made in time          DEADLINE_EXCEEDED    OUTCOME_UNKNOWN      they may yet be made
//! an answer that the client does not take    DEADLINE_EXCEEDED    OUTCOME_UNKNOWN      not known
//! ```
//!
//! Invariants:
//! - Every failing status made here carries an [`Error`](v1::Error), so that a client can tell it from a
//!   proxy's.
//! - UNAVAILABLE is said of nothing that may have been executed.
//! - A message is never longer than [`MESSAGE_BYTES_MAX`], whatever it quotes.

use std::fmt;
use std::time::Duration;

use crate::kv::Refusal;
use crate::route::call::{Failure, FailureKind};
use crate::wire::v1;
use crate::wire::v1::Reason;

/// The most bytes of a message; what is longer is cut.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024;

/// gRPC's status codes, as far as they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The outcome is not known.
    Unknown = 2,
    /// The request is wrong, whatever the state.
    InvalidArgument = 3,
    /// The time is over; the outcome is not known.
    DeadlineExceeded = 4,
    /// There is no such thing.
    NotFound = 5,
    /// A limit of resources.
    ResourceExhausted = 8,
    /// The request is wrong in this state.
    FailedPrecondition = 9,
    /// There is no such method, or not in this form.
    Unimplemented = 12,
    /// A fault of ours.
    Internal = 13,
    /// Not executed: send it again.
    Unavailable = 14,
}

impl Code {
    /// The number on the wire, in decimal.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "2",
            Self::InvalidArgument => "3",
            Self::DeadlineExceeded => "4",
            Self::NotFound => "5",
            Self::ResourceExhausted => "8",
            Self::FailedPrecondition => "9",
            Self::Unimplemented => "12",
            Self::Internal => "13",
            Self::Unavailable => "14",
        }
    }
}

/// A failing status.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    code: Code,
    error: v1::Error,
}

impl Status {
    /// A status with a reason that a program can act on; [`Reason::Unspecified`] where the code says all.
    #[must_use]
    pub fn new(code: Code, reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        // What it quotes a client chose: the fields of an answer have a size.
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        let error =
            v1::Error { code: code as i32, message, reason: reason as i32, leader: 0, retry_after_ms: 0 };
        Self { code, error }
    }

    /// The request is wrong in itself.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, Reason::Unspecified, message)
    }

    /// Something that the request has is larger than it may be.
    pub(crate) fn limit(what: &str, value: impl fmt::Display, bound: impl fmt::Display) -> Self {
        Self::new(Code::InvalidArgument, Reason::Limit, format!("{what} of {value}: at most {bound}"))
    }

    /// There is no such method, or not in this form.
    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, Reason::Unspecified, message)
    }

    /// The node holds as much as it may.
    pub(crate) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, Reason::Overloaded, message)
    }

    /// The node is going away.
    pub(crate) fn shutting_down() -> Self {
        Self::of_failure(&Failure::of(FailureKind::ShuttingDown))
    }

    /// The deadline passed here, at the edge.
    pub(crate) fn deadline_exceeded() -> Self {
        Self::of_failure(&Failure::of(FailureKind::DeadlineExceeded))
    }

    /// The client has taken nothing of its answer for so long.
    pub(crate) fn stalled(timeout: Duration) -> Self {
        let text = format!("nothing of the answer was taken for {timeout:?}");
        Self::new(Code::DeadlineExceeded, Reason::OutcomeUnknown, text)
    }

    /// How a client sees what the shards said, by the table above.
    #[must_use]
    pub fn of_failure(failure: &Failure) -> Self {
        let mut status = Self::of_kind(failure.kind);
        status.error.leader = failure.leader.map_or(0, |node| node.0);
        let millis = failure.retry_after.map_or(0, |wait| wait.as_millis());
        status.error.retry_after_ms = u64::try_from(millis).unwrap_or(u64::MAX);
        status
    }

    fn of_kind(kind: FailureKind) -> Self {
        let (code, reason, message) = match kind {
            FailureKind::NotProposed => {
                (Code::Unavailable, Reason::NotLeader, "this replica does not lead the shard")
            }
            FailureKind::NoLeader => (Code::Unavailable, Reason::NoLeader, "the shard has no leader"),
            FailureKind::ShuttingDown => (Code::Unavailable, Reason::ShuttingDown, "the node is going away"),
            FailureKind::Damaged => (
                Code::Unavailable,
                Reason::Damaged,
                "this replica lost something and waits until it has it again",
            ),
            FailureKind::DeadlineExceeded => (
                Code::DeadlineExceeded,
                Reason::OutcomeUnknown,
                "the deadline passed; the request may yet be applied",
            ),
            FailureKind::OutcomeUnknown => (
                Code::Unknown,
                Reason::OutcomeUnknown,
                "the way to the answer was lost; the request may yet be applied",
            ),
            FailureKind::Overloaded => {
                (Code::ResourceExhausted, Reason::Overloaded, "the node has as much to do as it can hold")
            }
            FailureKind::TransferFailed => {
                (Code::FailedPrecondition, Reason::Unspecified, "leadership was not transferred")
            }
            FailureKind::QuorumDiskFull => (
                Code::ResourceExhausted,
                Reason::DiskFull,
                "the disks of so many of the shard's nodes are full that no quorum has room; delete keys, or \
                 make room",
            ),
            FailureKind::DiskFull { free, watermark } => return Self::disk_full(free, watermark),
            FailureKind::Refused(refusal) => return Self::of_refusal(&refusal),
        };
        Self::new(code, reason, message)
    }

    fn disk_full(free: u64, watermark: u64) -> Self {
        let message = format!(
            "no room for more data on the disk of the shard's leader: {free} bytes are free, and {watermark} \
             are kept for deletes and what follows from them; delete keys, or make room"
        );
        Self::new(Code::ResourceExhausted, Reason::DiskFull, message)
    }

    /// How a client sees what the state machine refused, by the table above.
    #[must_use]
    pub fn of_refusal(refusal: &Refusal) -> Self {
        let (code, reason) = match refusal {
            Refusal::SessionExpired => (Code::FailedPrecondition, Reason::SessionExpired),
            Refusal::SequenceForgotten => (Code::FailedPrecondition, Reason::SequenceForgotten),
            Refusal::SequenceReused => (Code::FailedPrecondition, Reason::SequenceReused),
            Refusal::TooManyUnacknowledged | Refusal::TooManyAnswers | Refusal::TooManySessions => {
                (Code::ResourceExhausted, Reason::Overloaded)
            }
            Refusal::Limit { limit, .. } if limit.is_of_state() => (Code::FailedPrecondition, Reason::Limit),
            Refusal::Limit { .. } => (Code::InvalidArgument, Reason::Limit),
            Refusal::Malformed(_) => (Code::InvalidArgument, Reason::Unspecified),
        };
        Self::new(code, reason, refusal.to_string())
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// What travels in the trailer, and in a Pipeline as an operation's outcome.
    #[must_use]
    pub fn error(&self) -> &v1::Error {
        &self.error
    }

    /// The same, by value.
    #[must_use]
    pub fn into_error(self) -> v1::Error {
        self.error
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.error.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::kv::{LimitKind, Malformed};
    use std::time::Duration;

    #[test]
    fn the_code_and_its_text_agree() {
        let codes = [
            Code::Unknown,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
        ];
        for code in codes {
            assert_eq!(code.as_str(), (code as i32).to_string());
        }
    }

    #[test]
    fn unavailable_is_said_of_what_was_not_executed_alone() {
        let may_be_applied = [FailureKind::DeadlineExceeded, FailureKind::OutcomeUnknown];
        for kind in may_be_applied {
            let status = Status::of_failure(&Failure::of(kind));
            assert_ne!(status.code(), Code::Unavailable, "{kind:?}");
            assert_eq!(status.error().reason(), Reason::OutcomeUnknown, "{kind:?}");
        }
    }

    #[test]
    fn a_failure_carries_leader_and_wait() {
        let failure = Failure {
            kind: FailureKind::NotProposed,
            leader: Some(NodeId(3)),
            retry_after: Some(Duration::from_millis(70)),
        };
        let error = Status::of_failure(&failure).into_error();
        assert_eq!((error.code, error.leader, error.retry_after_ms), (14, 3, 70));
        assert_eq!(error.reason(), Reason::NotLeader);
    }

    #[test]
    fn a_full_disk_is_said_with_its_figures() {
        let status = Status::of_failure(&Failure::of(FailureKind::DiskFull { free: 70, watermark: 900 }));
        assert_eq!((status.code(), status.error().reason()), (Code::ResourceExhausted, Reason::DiskFull));
        let message = &status.error().message;
        assert!(message.contains("70 bytes are free") && message.contains("900 are kept"), "{message}");
    }

    #[test]
    fn refusals() {
        let limit = |limit| Refusal::Limit { limit, value: 9, bound: 8 };
        let expected = [
            (Refusal::SessionExpired, Code::FailedPrecondition, Reason::SessionExpired),
            (Refusal::TooManySessions, Code::ResourceExhausted, Reason::Overloaded),
            (limit(LimitKind::AppendedBytes), Code::FailedPrecondition, Reason::Limit),
            (limit(LimitKind::KeyBytes), Code::InvalidArgument, Reason::Limit),
            (Refusal::Malformed(Malformed::SequenceZero), Code::InvalidArgument, Reason::Unspecified),
        ];
        for (refusal, code, reason) in expected {
            let status = Status::of_refusal(&refusal);
            assert_eq!((status.code(), status.error().reason()), (code, reason), "{refusal:?}");
        }
    }
}
