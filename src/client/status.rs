//! What a gRPC status says of one sending, by the rules at the head of `kv.proto`. Pure.
//!
//! Invariants:
//! - Without the contract's trailer nothing is believed: a library or a proxy on the way made the status.
//! - Only UNAVAILABLE, INVALID_ARGUMENT, FAILED_PRECONDITION and RESOURCE_EXHAUSTED say "not executed"; any
//!   other code, and the reason OUTCOME_UNKNOWN under whatever code, says that nothing is known.

use std::time::Duration;

use prost::Message as _;

use crate::client::error::Reason;
use crate::client::message::Refusal;
use crate::ids::NodeId;
use crate::wire::v1;

/// The name of the trailer that carries a [`v1::Error`].
pub const TRAILER: &str = "distribkv-error-bin";

/// The longest text of a node that is kept, in characters.
const DETAIL_MAX: usize = 500;

const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNAVAILABLE: i32 = 14;

/// What a status says of the sending that it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Certainly not executed.
    Refused(Refusal),
    /// A node says that it does not know.
    Unknown {
        /// The node to ask instead, where one was named.
        leader: Option<NodeId>,
        /// What the node said.
        detail: String,
    },
    /// No node said anything.
    Lost {
        /// What the library said.
        detail: String,
    },
}

/// Judges a status by its code, its text and the bytes of its trailer [`TRAILER`].
#[must_use]
pub fn judge(code: i32, text: &str, trailer: Option<&[u8]>) -> Verdict {
    let Some(Ok(error)) = trailer.map(v1::Error::decode) else {
        return Verdict::Lost { detail: detail_of(text) };
    };
    let leader = (error.leader != 0).then_some(NodeId(error.leader));
    let detail = detail_of(if error.message.is_empty() { text } else { &error.message });
    match reason_of(code, error.reason()) {
        Some(reason) => {
            let retry_after = (error.retry_after_ms > 0).then(|| Duration::from_millis(error.retry_after_ms));
            Verdict::Refused(Refusal { reason, leader, retry_after, detail })
        }
        None => Verdict::Unknown { leader, detail },
    }
}

/// Why a sending was certainly not executed; `None`: that is not what the status says.
fn reason_of(code: i32, reason: v1::Reason) -> Option<Reason> {
    if !matches!(code, INVALID_ARGUMENT | RESOURCE_EXHAUSTED | FAILED_PRECONDITION | UNAVAILABLE) {
        return None;
    }
    let unnamed = match code {
        UNAVAILABLE => Reason::Unavailable,
        RESOURCE_EXHAUSTED => Reason::Overloaded,
        INVALID_ARGUMENT | FAILED_PRECONDITION => Reason::Invalid,
        other => unreachable!("code {other} passed the check above"),
    };
    match reason {
        v1::Reason::Unspecified => Some(unnamed),
        v1::Reason::NotLeader => Some(Reason::NotLeader),
        v1::Reason::NoLeader => Some(Reason::NoLeader),
        v1::Reason::SessionExpired => Some(Reason::SessionExpired),
        v1::Reason::SequenceForgotten => Some(Reason::SequenceForgotten),
        v1::Reason::SequenceReused => Some(Reason::SequenceReused),
        v1::Reason::OutcomeUnknown => None,
        v1::Reason::Overloaded => Some(Reason::Overloaded),
        v1::Reason::DiskFull => Some(Reason::DiskFull),
        v1::Reason::Damaged => Some(Reason::Damaged),
        v1::Reason::Limit => Some(Reason::Limit),
        v1::Reason::CrossShard => Some(Reason::CrossShard),
        v1::Reason::ShuttingDown => Some(Reason::ShuttingDown),
    }
}

/// A text of somebody else, cut and on one line.
fn detail_of(text: &str) -> String {
    text.chars().take(DETAIL_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer(reason: v1::Reason, leader: u32) -> Vec<u8> {
        let error =
            v1::Error { code: 0, message: "said".into(), reason: reason.into(), leader, retry_after_ms: 7 };
        error.encode_to_vec()
    }

    #[test]
    fn without_our_trailer_nothing_is_known() {
        for code in 0..=16 {
            assert_eq!(judge(code, "x", None), Verdict::Lost { detail: "x".into() });
            assert_eq!(judge(code, "x", Some(&[0xff])), Verdict::Lost { detail: "x".into() });
        }
    }

    #[test]
    fn only_four_codes_say_not_executed() {
        let bytes = trailer(v1::Reason::NotLeader, 2);
        for code in 0..=17 {
            let refused = matches!(judge(code, "", Some(&bytes)), Verdict::Refused(_));
            assert_eq!(refused, [3, 8, 9, 14].contains(&code), "code {code}");
        }
        let unknown = Verdict::Unknown { leader: None, detail: "said".into() };
        assert_eq!(judge(UNAVAILABLE, "", Some(&trailer(v1::Reason::OutcomeUnknown, 0))), unknown);
    }

    #[test]
    fn every_reason_of_the_contract_is_told_apart() {
        let reasons = [
            (v1::Reason::NotLeader, Reason::NotLeader),
            (v1::Reason::NoLeader, Reason::NoLeader),
            (v1::Reason::SessionExpired, Reason::SessionExpired),
            (v1::Reason::SequenceForgotten, Reason::SequenceForgotten),
            (v1::Reason::SequenceReused, Reason::SequenceReused),
            (v1::Reason::Overloaded, Reason::Overloaded),
            (v1::Reason::DiskFull, Reason::DiskFull),
            (v1::Reason::Damaged, Reason::Damaged),
            (v1::Reason::Limit, Reason::Limit),
            (v1::Reason::CrossShard, Reason::CrossShard),
            (v1::Reason::ShuttingDown, Reason::ShuttingDown),
        ];
        for (said, understood) in reasons {
            let Verdict::Refused(refusal) = judge(UNAVAILABLE, "", Some(&trailer(said, 0))) else {
                panic!("{said:?} with UNAVAILABLE says that nothing was executed")
            };
            assert_eq!(refusal.reason, understood, "{said:?}");
        }
    }

    #[test]
    fn a_refusal_keeps_what_the_node_said() {
        let refusal = Refusal {
            reason: Reason::NotLeader,
            leader: Some(NodeId(2)),
            retry_after: Some(Duration::from_millis(7)),
            detail: "said".into(),
        };
        let bytes = trailer(v1::Reason::NotLeader, 2);
        assert_eq!(judge(UNAVAILABLE, "", Some(&bytes)), Verdict::Refused(refusal));
    }

    #[test]
    fn a_reason_of_a_later_contract_goes_by_its_code() {
        let error = v1::Error { reason: 999, ..v1::Error::default() }.encode_to_vec();
        for (code, reason) in [(14, Reason::Unavailable), (8, Reason::Overloaded), (3, Reason::Invalid)] {
            let verdict = judge(code, "a\nb", Some(&error));
            assert_eq!(verdict, Verdict::Refused(Refusal { detail: "a b".into(), ..Refusal::of(reason) }));
        }
    }
}
