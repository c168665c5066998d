//! Messages as bytes: every kind there and back, and whatever else may arrive.

use bytes::Bytes;

use crate::ids::{Index, NodeId, Term};

use super::codec::DecodeError;
use super::message::{AppendOutcome, Ballot, Body, Campaign, Entry, Message, Voice, Willingness};

fn entry(index: u64, term: u64, data: &'static str) -> Entry {
    Entry { index: Index(index), term: Term(term), data: Bytes::from_static(data.as_bytes()) }
}

/// One body of each kind and detail.
fn bodies() -> Vec<Body> {
    let (last_index, last_term) = (Index(7), Term(3));
    let (prev_index, prev_term, commit) = (Index(4), Term(2), Index(3));
    let rejected = AppendOutcome::Rejected {
        prev_index,
        conflict_index: Index(3),
        conflict_term: Term(1),
        conflict_first: Index(2),
    };
    let accepted = AppendOutcome::Accepted { matched: Index(9) };
    let entries = vec![entry(5, 2, ""), entry(6, 3, "some data")];
    let (willing, draining) = (Willingness::Willing, Willingness::Draining);
    let (short, full) = (Willingness::Short, Willingness::Full);
    let (verified, durable) = (Index(5), Index(4));
    vec![
        Body::PreVote { last_index, last_term },
        Body::PreVoteReply { asked: Term(3), ballot: Ballot::Granted },
        Body::PreVoteReply { asked: Term(3), ballot: Ballot::Refused },
        Body::Vote { last_index, last_term, cause: Campaign::Timeout },
        Body::Vote { last_index, last_term, cause: Campaign::Transfer },
        Body::VoteReply { ballot: Ballot::Granted },
        Body::VoteReply { ballot: Ballot::Refused },
        Body::Append { prev_index, prev_term, commit, entries },
        Body::Append { prev_index, prev_term, commit, entries: Vec::new() },
        Body::AppendReply { outcome: accepted, willing },
        Body::AppendReply { outcome: accepted, willing: draining },
        Body::AppendReply { outcome: accepted, willing: short },
        Body::AppendReply { outcome: rejected, willing },
        Body::AppendReply { outcome: rejected, willing: draining },
        Body::Heartbeat { commit, commit_term: Term(2), round: 77 },
        Body::HeartbeatReply { round: 77, verified, durable, willing },
        Body::HeartbeatReply { round: 77, verified, durable, willing: draining },
        Body::HeartbeatReply { round: 77, verified, durable, willing: full },
        Body::TimeoutNow,
        Body::Outdated,
        Body::Snapshot { index: Index(9), term: Term(3) },
        Body::TermAsk { request: 88 },
        Body::TermTold { request: 88 },
    ]
}

fn encoded(body: Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    let voice = Voice::Damaged;
    Message { from: NodeId(1), to: NodeId(2), term: Term(5), voice, body }.encode(&mut bytes);
    bytes
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for body in bodies() {
        let bytes = encoded(body.clone());
        let message = Message::decode(Bytes::from(bytes.clone())).expect("what was encoded can be decoded");
        assert_eq!(message.body, body);
        assert_eq!((message.from, message.to, message.term), (NodeId(1), NodeId(2), Term(5)));
        assert_eq!(message.voice, Voice::Damaged);
        assert_eq!(encoded(message.body), bytes, "{body:?} is written in one way only");
    }
}

#[test]
fn what_is_cut_or_too_long_is_refused() {
    for body in bodies() {
        let bytes = encoded(body.clone());
        for len in 0..bytes.len() {
            let cut = Message::decode(Bytes::copy_from_slice(&bytes[..len]));
            assert_eq!(cut, Err(DecodeError::TooShort), "{body:?} of {} bytes, cut to {len}", bytes.len());
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(Message::decode(Bytes::from(long)), Err(DecodeError::TooLong), "{body:?} and a byte");
    }
}

#[test]
fn every_byte_is_either_refused_or_kept() {
    for body in bodies() {
        let bytes = encoded(body);
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let Ok(message) = Message::decode(Bytes::from(changed.clone())) else { continue };
                let mut again = Vec::new();
                message.encode(&mut again);
                assert_eq!(again, changed, "byte {at} is {value}");
            }
        }
    }
}

#[test]
fn the_format_is_as_drawn() {
    let bytes = encoded(Body::Append {
        prev_index: Index(4),
        prev_term: Term(2),
        commit: Index(3),
        entries: vec![entry(5, 3, "ab")],
    });
    let head = [5, 0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes[..20], head);
    assert_eq!(bytes[44..], [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'a', b'b']);
}

#[test]
fn a_count_is_checked_before_it_is_believed() {
    let (prev_index, prev_term, commit) = (Index(4), Term(2), Index(3));
    let mut bytes = encoded(Body::Append { prev_index, prev_term, commit, entries: Vec::new() });
    bytes[44..48].copy_from_slice(&1000u32.to_le_bytes());
    assert_eq!(Message::decode(Bytes::from(bytes.clone())), Err(DecodeError::TooShort));
    bytes[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Message::decode(Bytes::from(bytes)), Err(DecodeError::OverLimit));
}

#[test]
fn indexes_do_not_run_over() {
    let mut bytes = encoded(Body::Append {
        prev_index: Index(4),
        prev_term: Term(2),
        commit: Index(3),
        entries: vec![entry(5, 3, "")],
    });
    bytes[20..28].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(Message::decode(Bytes::from(bytes)), Err(DecodeError::OverLimit));
}

#[test]
fn data_is_not_copied() {
    let body = Body::Append {
        prev_index: Index(4),
        prev_term: Term(2),
        commit: Index(3),
        entries: vec![entry(5, 3, "some data")],
    };
    let bytes = Bytes::from(encoded(body));
    let end = bytes.as_ptr_range().end;
    let message = Message::decode(bytes.clone()).expect("what was encoded can be decoded");
    let Body::Append { entries, .. } = message.body else { panic!("an append was encoded") };
    assert_eq!(entries[0].data.as_ptr_range().end, end);
}
