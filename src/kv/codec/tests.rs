//! Every codec against drawn bytes, its own inverse, cut bytes and garbage.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ids::{Index, Revision, Sequence, SessionId};
use crate::kv::answer::{KeyValue, LimitKind, Malformed, OperationResult};
use crate::kv::command::{Previous, RequestId, Txn, Write};
use crate::kv::query::ReadTxn;
use crate::kv::strategies;

fn kv() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"vw"),
        create_revision: Revision(2),
        mod_revision: Revision(3),
        version: 4,
    }
}

/// Bytes as they are drawn in the docs: numbers of 8 bytes, then what follows them.
fn drawn(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn encoded(encode: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

#[test]
fn a_write_is_as_drawn() {
    let put = Write::Put {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"vw"),
        if_mod_revision: Some(Revision(7)),
        return_previous: Previous::Return,
    };
    let id = RequestId { session: SessionId(5), sequence: Sequence(2), acknowledged: Sequence(1) };
    let command = Command::Write { id: Some(id), write: put };
    let expected = drawn(&[
        &[1, 2, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'k', 2, 0, 0, 0, b'v', b'w'],
    ]);
    assert_eq!(encoded(|out| command.encode(out)), expected);

    let delete = Write::Delete {
        key: Bytes::from_static(b"k"),
        if_mod_revision: None,
        return_previous: Previous::Omit,
    };
    let command = Command::Write { id: None, write: delete };
    assert_eq!(encoded(|out| command.encode(out)), [1, 1, 3, 0, 0, 1, 0, 0, 0, b'k']);
}

#[test]
fn a_txn_and_session_commands_are_as_drawn() {
    let command = Command::Write { id: None, write: Write::Txn(Txn::default()) };
    assert_eq!(encoded(|out| command.encode(out)), [1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let command = Command::Expire { session: SessionId(5), last_active_index: Index(256) };
    let expected = drawn(&[&[1, 6], &[5, 0, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(encoded(|out| command.encode(out)), expected);
}

#[test]
fn answers_and_refusals_are_as_drawn() {
    let applied =
        Applied { revision: Revision(9), answer: Answer::Append { succeeded: true, length: 3, version: 2 } };
    let expected =
        drawn(&[&[1], &[9, 0, 0, 0, 0, 0, 0, 0], &[2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(encoded(|out| applied.encode(out)), expected);

    let answer = Answer::Txn { succeeded: false, results: vec![OperationResult::Get(Some(kv()))] };
    let expected = drawn(&[
        &[1, 4, 0, 1, 0, 0, 0, 1, 1],
        &[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, b'k', 2, 0, 0, 0, b'v', b'w'],
    ]);
    assert_eq!(encoded(|out| answer.encode(out)), expected);

    assert_eq!(encoded(|out| Refusal::SessionExpired.encode(out)), [1, 1]);
    assert_eq!(encoded(|out| Refusal::Malformed(Malformed::KeyWrittenTwice).encode(out)), [1, 8, 3]);
    let refusal = Refusal::Limit { limit: LimitKind::AppendedBytes, value: 9, bound: 8 };
    let expected = drawn(&[&[1, 7, 9], &[9, 0, 0, 0, 0, 0, 0, 0], &[8, 0, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(encoded(|out| refusal.encode(out)), expected);
}

#[test]
fn queries_are_as_drawn() {
    let query = Query::Txn(ReadTxn { then: vec![Bytes::from_static(b"k")], ..ReadTxn::default() });
    let expected = drawn(&[&[1, 3, 0, 0, 0, 0], &[1, 0, 0, 0, 1, 0, 0, 0, b'k'], &[0, 0, 0, 0]]);
    assert_eq!(encoded(|out| query.encode(out)), expected);
    let answer = QueryAnswer::Scan { kvs: Vec::new(), more: Some(Bytes::from_static(b"n")) };
    assert_eq!(encoded(|out| answer.encode(out)), [1, 2, 0, 0, 0, 0, 1, 1, 0, 0, 0, b'n']);
}

#[test]
fn what_is_not_known_is_refused() {
    let truncated = DecodeError::Truncated { wanted: 1, left: 0 };
    assert_eq!(Command::decode(Bytes::new()), Err(truncated));
    assert_eq!(Command::decode(Bytes::from_static(&[2, 1])), Err(DecodeError::Format(2)));
    let unknown = DecodeError::Unknown { what: "command", tag: 9 };
    assert_eq!(Command::decode(Bytes::from_static(&[1, 9])), Err(unknown));
    let unknown = DecodeError::Unknown { what: "flag", tag: 2 };
    assert_eq!(Answer::decode(Bytes::from_static(&[1, 1, 2])), Err(unknown));
    assert_eq!(Refusal::decode(Bytes::from_static(&[1, 1, 0])), Err(DecodeError::Trailing { bytes: 1 }));
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    // A list of 2^32 - 1 operations, a key of 2^32 - 1 bytes: compared with what is left before anything
    // else.
    let left = DecodeError::Truncated { wanted: u64::from(u32::MAX), left: 0 };
    let list = Bytes::from_static(&[1, 1, 4, 255, 255, 255, 255]);
    assert_eq!(Command::decode(list), Err(left));
    assert_eq!(Query::decode(Bytes::from_static(&[1, 1, 255, 255, 255, 255])), Err(left));
}

#[test]
fn decoded_bytes_are_slices() {
    let value = Bytes::from(vec![7; 1000]);
    let write = Write::Append { key: Bytes::from_static(b"k"), value, if_mod_revision: None };
    let bytes = Bytes::from(encoded(|out| Command::Write { id: None, write: write.clone() }.encode(out)));
    let whole = bytes.as_ptr_range();
    let decoded = Command::decode(bytes).expect("it was just encoded");
    let Command::Write { write: Write::Append { value, .. }, .. } = decoded else {
        panic!("it was an append");
    };
    assert!(whole.contains(&value.as_ptr()), "the value was copied");
}

/// The inverse, its length, and every cut of it.
macro_rules! inverse {
    ($name:ident, $type:ty, $strategy:expr) => {
        proptest! {
            #![proptest_config(cases(200))]
            #[test]
            fn $name(thing in $strategy) {
                let bytes = Bytes::from(encoded(|out| thing.encode(out)));
                prop_assert_eq!(bytes.len(), thing.encoded_len());
                prop_assert!(!bytes.is_empty());
                prop_assert_eq!(<$type>::decode(bytes.clone()), Ok(thing));
                for cut in 0..bytes.len() {
                    let is_truncated =
                        matches!(<$type>::decode(bytes.slice(..cut)), Err(DecodeError::Truncated { .. }));
                    prop_assert!(is_truncated, "cut at {}", cut);
                }
                let longer = Bytes::from([&bytes[..], &[0]].concat());
                prop_assert_eq!(<$type>::decode(longer), Err(DecodeError::Trailing { bytes: 1 }));
            }
        }
    };
}

inverse!(commands_come_back, Command, strategies::command());
inverse!(applied_come_back, Applied, strategies::applied());
inverse!(answers_come_back, Answer, strategies::answer());
inverse!(refusals_come_back, Refusal, strategies::refusal());
inverse!(queries_come_back, Query, strategies::query());
inverse!(query_answers_come_back, QueryAnswer, strategies::query_answer());

proptest! {
    #![proptest_config(cases(500))]

    /// Garbage never panics; what does decode is what those very bytes encode.
    #[test]
    fn garbage_is_an_error_or_a_thing(mut bytes in prop::collection::vec(0_u8..12, 0..60)) {
        if let Some(format) = bytes.first_mut() {
            *format = FORMAT;
        }
        let garbage = Bytes::from(bytes.clone());
        if let Ok(command) = Command::decode(garbage.clone()) {
            prop_assert_eq!(&encoded(|out| command.encode(out)), &bytes);
        }
        if let Ok(answer) = Answer::decode(garbage.clone()) {
            prop_assert_eq!(&encoded(|out| answer.encode(out)), &bytes);
        }
        if let Ok(query) = Query::decode(garbage.clone()) {
            prop_assert_eq!(&encoded(|out| query.encode(out)), &bytes);
        }
        if let Ok(answer) = QueryAnswer::decode(garbage.clone()) {
            prop_assert_eq!(&encoded(|out| answer.encode(out)), &bytes);
        }
        if let Ok(refusal) = Refusal::decode(garbage) {
            prop_assert_eq!(&encoded(|out| refusal.encode(out)), &bytes);
        }
    }

    /// One flipped byte of a command is an error or another thing, never a panic and never the same.
    #[test]
    fn a_flipped_byte_is_seen(
        command in strategies::command(),
        at in any::<prop::sample::Index>(),
        by in 1_u8..,
    ) {
        let mut bytes = encoded(|out| command.encode(out));
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert_ne!(Command::decode(Bytes::from(bytes)), Ok(command));
    }
}
