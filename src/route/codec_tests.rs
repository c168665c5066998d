//! Parcels as bytes: every kind there and back, and whatever else may arrive.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{CoreId, Index, NodeId, Revision, Sequence, SessionId, ShardId, Term};
use crate::kv;
use crate::raft;

use super::call::{Answered, Body, Consistency, Failure, FailureKind, Request};
use super::codec::DecodeError;
use super::parcel::{
    Call, CallId, DIGESTS_MAX, Digest, DigestsTold, Order, PART_BYTES_MAX, Parcel, Rebuild, Reply, TableAsk,
    TableName, TablePart,
};

const ID: CallId = CallId { node: NodeId(3), incarnation: 1 << 40, core: CoreId(7), number: 259 };

/// Where the fields after the kind and the id begin.
const ID_END: usize = 1 + 24;

fn call(request: Request) -> Call {
    let remaining = Duration::from_micros(1_500_000);
    Call { id: ID, shard: ShardId(5), term: Some(Term(9)), remaining, order: None, request }
}

fn put() -> Request {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"vw"));
    let return_previous = kv::Previous::Omit;
    let write = kv::Write::Put { key, value, if_mod_revision: None, return_previous };
    let (session, sequence, acknowledged) = (SessionId(5), Sequence(2), Sequence(1));
    let id = kv::RequestId { session, sequence, acknowledged };
    Request::Command(kv::Command::Write { id: Some(id), write })
}

fn get(consistency: Consistency) -> Request {
    Request::Query { query: kv::Query::Get { key: Bytes::from_static(b"k") }, consistency }
}

fn answered(body: Body) -> Parcel {
    let (node, shard, term, revision) = (NodeId(2), ShardId(5), Term(9), Revision(77));
    Parcel::Reply(Reply { id: ID, outcome: Ok(Answered { node, shard, term, revision, body }) })
}

fn failed(kind: FailureKind) -> Parcel {
    let (leader, retry_after) = (Some(NodeId(2)), Some(Duration::from_millis(5)));
    Parcel::Reply(Reply { id: ID, outcome: Err(Failure { kind, leader, retry_after }) })
}

/// Every way in which a request failed.
fn kinds() -> [FailureKind; 11] {
    [
        FailureKind::NotProposed,
        FailureKind::NoLeader,
        FailureKind::DeadlineExceeded,
        FailureKind::OutcomeUnknown,
        FailureKind::Overloaded,
        FailureKind::ShuttingDown,
        FailureKind::Damaged,
        FailureKind::TransferFailed,
        FailureKind::Refused(kv::Refusal::SessionExpired),
        FailureKind::DiskFull { free: 5, watermark: u64::MAX },
        FailureKind::QuorumDiskFull,
    ]
}

/// One parcel of each kind and detail.
fn parcels() -> Vec<Parcel> {
    let body = raft::Body::Heartbeat { commit: Index(3), commit_term: Term(2), round: 77 };
    let voice = raft::Voice::Whole;
    let message = raft::Message { from: NodeId(1), to: NodeId(2), term: Term(5), voice, body };
    let order = Some(Order { stream: 11, epoch: 2, position: 0 });
    let mut parcels = vec![
        Parcel::Raft { shard: ShardId(6), message },
        Parcel::Call(call(put())),
        Parcel::Call(Call { order, ..call(put()) }),
        Parcel::Call(call(get(Consistency::Linearizable))),
        Parcel::Call(Call { term: None, ..call(get(Consistency::Stale)) }),
        Parcel::Call(call(Request::Transfer { to: Some(NodeId(3)) })),
        Parcel::Call(call(Request::Transfer { to: None })),
        answered(Body::Query(kv::QueryAnswer::Get(None))),
        answered(Body::Command(kv::Answer::SessionClosed)),
        answered(Body::Transferred { leader: NodeId(3) }),
        Parcel::Reply(Reply { id: ID, outcome: Err(Failure::of(FailureKind::NoLeader)) }),
        Parcel::TableAsk(TableAsk {
            shard: ShardId(1),
            node: NodeId(2),
            core: CoreId(3),
            number: 4,
            generation: 5,
            index_min: Index(77),
            offset: 4096,
        }),
        Parcel::Digests(DigestsTold { shard: ShardId(1), node: NodeId(2), digests: Vec::new() }),
        Parcel::Digests(DigestsTold {
            shard: ShardId(1),
            node: NodeId(2),
            digests: vec![Digest { index: Index(3), digest: 4 }; DIGESTS_MAX],
        }),
        Parcel::Rebuild(Rebuild { shard: ShardId(1), from: NodeId(2), index: Index(3), digest: 4 }),
        Parcel::TablePart(TablePart {
            shard: ShardId(1),
            core: CoreId(3),
            number: 4,
            named: TableName {
                generation: 5,
                index: Index(6),
                term: Term(7),
                bytes: 8192,
                footer_checksum: u64::MAX,
            },
            offset: 4096,
            data: Bytes::new(),
        }),
    ];
    parcels.extend(kinds().map(failed));
    parcels
}

fn encoded(parcel: &Parcel) -> Vec<u8> {
    let mut bytes = Vec::new();
    parcel.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Parcel, DecodeError> {
    Parcel::decode(Bytes::copy_from_slice(bytes))
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for parcel in parcels() {
        assert_eq!(decoded(&encoded(&parcel)).as_ref(), Ok(&parcel));
    }
}

#[test]
fn what_is_cut_or_too_long_is_refused() {
    for parcel in parcels() {
        let bytes = encoded(&parcel);
        for len in 0..bytes.len() {
            let cut = decoded(&bytes[..len]);
            assert!(cut.is_err(), "{parcel:?} of {} bytes, cut to {len}: {cut:?}", bytes.len());
        }
        let long = decoded(&[&bytes[..], &[0]].concat());
        assert!(long.as_ref().is_err(), "{parcel:?} and a byte: {long:?}");
        assert!(long.is_err_and(|error| !error.to_string().is_empty()), "every error has its words");
    }
}

#[test]
fn a_part_of_a_table_is_whole_blocks_and_no_longer_than_it_may_be() {
    let Some(Parcel::TablePart(part)) = parcels().into_iter().find(|of| matches!(of, Parcel::TablePart(_)))
    else {
        panic!("there is one of each kind");
    };
    for (bytes, fits) in [(4096, true), (4097, false), (PART_BYTES_MAX, true), (PART_BYTES_MAX + 4096, false)]
    {
        let parcel = Parcel::TablePart(TablePart { data: vec![7; bytes].into(), ..part.clone() });
        assert_eq!(decoded(&encoded(&parcel)).is_ok_and(|back| back == parcel), fits, "{bytes} bytes");
    }
}

#[test]
fn every_byte_is_either_refused_or_kept() {
    for parcel in parcels() {
        let bytes = encoded(&parcel);
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 9, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let Ok(other) = decoded(&changed) else { continue };
                assert_eq!(encoded(&other), changed, "{parcel:?}: byte {at} is {value}");
            }
        }
    }
}

#[test]
fn the_format_is_as_drawn() {
    let id = [3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 7, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0];
    let order = Some(Order { stream: 11, epoch: 2, position: 1 });
    let bytes = encoded(&Parcel::Call(Call { order, ..call(Request::Transfer { to: None }) }));
    assert_eq!((bytes[0], &bytes[1..ID_END]), (2, &id[..]));
    let remaining = [0x60, 0xE3, 0x16, 0, 0, 0, 0, 0];
    let head = [&[5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0][..], &remaining[..], &[1][..]].concat();
    assert_eq!(bytes[ID_END..ID_END + 21], head);
    let order = [11, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes[ID_END + 21..ID_END + 45], order);
    assert_eq!(bytes[ID_END + 45..], [3, 0, 0, 0, 0]);

    let bytes = encoded(&failed(FailureKind::Overloaded));
    assert_eq!((bytes[0], &bytes[1..ID_END]), (3, &id[..]));
    assert_eq!(bytes[ID_END..], [1, 5, 2, 0, 0, 0, 0x88, 0x13, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn what_is_not_known_is_named() {
    let unknown = |field, value| Err(DecodeError::Unknown { field, value });
    assert_eq!(decoded(&[]), Err(DecodeError::Short));
    assert_eq!(decoded(&[8]), unknown("kind", 8));
    let reply = encoded(&failed(FailureKind::NoLeader));
    let query = encoded(&Parcel::Call(call(get(Consistency::Stale))));
    let body = encoded(&answered(Body::Transferred { leader: NodeId(3) }));
    let (outcome_at, order_at, body_at) = (ID_END, ID_END + 20, ID_END + 25);
    let changes = [
        (&reply, outcome_at, "outcome"),
        (&reply, outcome_at + 1, "failure"),
        (&query, order_at, "order"),
        (&query, order_at + 1, "request"),
        (&query, order_at + 2, "consistency"),
        (&body, body_at, "body"),
    ];
    for (bytes, at, field) in changes {
        let mut bytes = bytes.clone();
        bytes[at] = 200;
        assert_eq!(decoded(&bytes), unknown(field, 200));
    }
}

#[test]
fn a_time_beyond_what_fits_is_the_longest_that_does() {
    let whole = Parcel::Call(Call { remaining: Duration::MAX, ..call(get(Consistency::Stale)) });
    let Ok(Parcel::Call(back)) = decoded(&encoded(&whole)) else { panic!("a call was encoded") };
    assert_eq!(back.remaining, Duration::from_micros(u64::MAX));
}

#[test]
fn data_is_not_copied() {
    let bytes = Bytes::from(encoded(&Parcel::Call(call(put()))));
    let whole = bytes.as_ptr_range();
    let Ok(Parcel::Call(Call { request: Request::Command(command), .. })) = Parcel::decode(bytes) else {
        panic!("a command was encoded")
    };
    let kv::Command::Write { write: kv::Write::Put { value, .. }, .. } = command else {
        panic!("it was a put")
    };
    assert!(whole.contains(&value.as_ptr()), "the value was copied");
}
