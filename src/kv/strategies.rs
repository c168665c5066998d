//! Any command, query, answer and refusal, for property tests. Keys are few, so that they meet each other.

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Answer, Applied, Command, Comparison, Condition, KeyValue, LimitKind, Malformed, Operation,
    OperationResult, Previous, Query, QueryAnswer, ReadTxn, Refusal, RequestId, ScanKeys, Target, Txn, Write,
};
use crate::ids::{Index, Revision, Sequence, SessionId};

pub(super) fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "b", "c", "ab", "longer key"]).prop_map(Bytes::from)
}

pub(super) fn value() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![0..12_u64, any::<u64>()].prop_map(Revision)
}

fn previous() -> impl Strategy<Value = Previous> {
    prop_oneof![Just(Previous::Omit), Just(Previous::Return)]
}

fn condition() -> impl Strategy<Value = Condition> {
    let comparison = prop::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::Greater,
    ]);
    let target = prop_oneof![
        (0..4_u64).prop_map(Target::Version),
        revision().prop_map(Target::CreateRevision),
        revision().prop_map(Target::ModRevision),
        value().prop_map(Target::Value),
    ];
    (key(), comparison, target).prop_map(|(key, comparison, target)| Condition { key, comparison, target })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        key().prop_map(|key| Operation::Get { key }),
        (key(), value(), previous()).prop_map(|(key, value, return_previous)| Operation::Put {
            key,
            value,
            return_previous
        }),
        (key(), value()).prop_map(|(key, value)| Operation::Append { key, value }),
        (key(), previous()).prop_map(|(key, return_previous)| Operation::Delete { key, return_previous }),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let branch = || prop::collection::vec(operation(), 0..4);
    (prop::collection::vec(condition(), 0..3), branch(), branch())
        .prop_map(|(conditions, then, otherwise)| Txn { conditions, then, otherwise })
}

pub(super) fn write() -> impl Strategy<Value = Write> {
    let if_revision = || prop::option::of(revision());
    prop_oneof![
        (key(), value(), if_revision(), previous()).prop_map(
            |(key, value, if_mod_revision, return_previous)| Write::Put {
                key,
                value,
                if_mod_revision,
                return_previous
            }
        ),
        (key(), value(), if_revision()).prop_map(|(key, value, if_mod_revision)| Write::Append {
            key,
            value,
            if_mod_revision
        }),
        (key(), if_revision(), previous()).prop_map(|(key, if_mod_revision, return_previous)| {
            Write::Delete { key, if_mod_revision, return_previous }
        }),
        txn().prop_map(Write::Txn),
    ]
}

fn session() -> impl Strategy<Value = SessionId> {
    prop_oneof![1..6_u64, any::<u64>()].prop_map(SessionId)
}

fn sequence() -> impl Strategy<Value = Sequence> {
    prop_oneof![0..6_u64, any::<u64>()].prop_map(Sequence)
}

fn request_id() -> impl Strategy<Value = RequestId> {
    (session(), sequence(), sequence()).prop_map(|(session, sequence, acknowledged)| RequestId {
        session,
        sequence,
        acknowledged,
    })
}

pub(super) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (prop::option::of(request_id()), write()).prop_map(|(id, write)| Command::Write { id, write }),
        1 => any::<u64>().prop_map(|ttl_ms| Command::OpenSession { ttl_ms }),
        1 => Just(Command::OpenSession { ttl_ms: 0 }),
        1 => (session(), sequence())
            .prop_map(|(session, acknowledged)| Command::KeepAlive { session, acknowledged }),
        1 => session().prop_map(|session| Command::CloseSession { session }),
        1 => (session(), 0..20_u64).prop_map(|(session, index)| Command::Expire {
            session,
            last_active_index: Index(index)
        }),
    ]
}

fn kv() -> impl Strategy<Value = KeyValue> {
    (key(), value(), revision(), revision(), any::<u64>()).prop_map(
        |(key, value, create_revision, mod_revision, version)| KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
        },
    )
}

fn result() -> impl Strategy<Value = OperationResult> {
    let found = || prop::option::of(kv());
    prop_oneof![
        found().prop_map(OperationResult::Get),
        (found(), any::<u64>()).prop_map(|(previous, version)| OperationResult::Put { previous, version }),
        any::<(u64, u64)>().prop_map(|(length, version)| OperationResult::Append { length, version }),
        (found(), any::<bool>())
            .prop_map(|(previous, existed)| OperationResult::Delete { existed, previous }),
    ]
}

pub(super) fn answer() -> impl Strategy<Value = Answer> {
    let found = || prop::option::of(kv());
    prop_oneof![
        (any::<bool>(), found(), any::<u64>()).prop_map(|(succeeded, previous, version)| Answer::Put {
            succeeded,
            previous,
            version
        }),
        any::<(bool, u64, u64)>().prop_map(|(succeeded, length, version)| Answer::Append {
            succeeded,
            length,
            version
        }),
        (any::<bool>(), any::<bool>(), found()).prop_map(|(succeeded, existed, previous)| Answer::Delete {
            succeeded,
            existed,
            previous
        }),
        (any::<bool>(), prop::collection::vec(result(), 0..4))
            .prop_map(|(succeeded, results)| Answer::Txn { succeeded, results }),
        (session(), any::<u64>()).prop_map(|(session, ttl_ms)| Answer::SessionOpened { session, ttl_ms }),
        any::<u64>().prop_map(|ttl_ms| Answer::KeptAlive { ttl_ms }),
        Just(Answer::SessionClosed),
        Just(Answer::Expired),
        Just(Answer::NotExpired),
    ]
}

pub(super) fn applied() -> impl Strategy<Value = Applied> {
    (revision(), answer()).prop_map(|(revision, answer)| Applied { revision, answer })
}

pub(super) fn refusal() -> impl Strategy<Value = Refusal> {
    let limit = prop::sample::select(vec![
        LimitKind::KeyEmpty,
        LimitKind::KeyBytes,
        LimitKind::ValueBytes,
        LimitKind::TxnConditions,
        LimitKind::TxnOperations,
        LimitKind::CommandBytes,
        LimitKind::SessionTtlTooShort,
        LimitKind::SessionTtlTooLong,
        LimitKind::AppendedBytes,
        LimitKind::AnswerBytes,
    ]);
    prop_oneof![
        Just(Refusal::SessionExpired),
        Just(Refusal::SequenceForgotten),
        Just(Refusal::SequenceReused),
        Just(Refusal::TooManyUnacknowledged),
        Just(Refusal::TooManyAnswers),
        Just(Refusal::TooManySessions),
        (limit, any::<u64>(), any::<u64>()).prop_map(|(limit, value, bound)| Refusal::Limit {
            limit,
            value,
            bound
        }),
        Just(Refusal::Malformed(Malformed::SequenceZero)),
        Just(Refusal::Malformed(Malformed::AcknowledgesItself)),
        Just(Refusal::Malformed(Malformed::KeyWrittenTwice)),
    ]
}

pub(super) fn query() -> impl Strategy<Value = Query> {
    let keys = || prop::collection::vec(key(), 0..4);
    let parts = prop_oneof![Just(ScanKeys::KeysOnly), Just(ScanKeys::Whole)];
    prop_oneof![
        key().prop_map(|key| Query::Get { key }),
        (value(), value(), any::<u32>(), any::<u32>(), parts).prop_map(
            |(start, end, limit, bytes_max, keys)| Query::Scan { start, end, limit, bytes_max, keys }
        ),
        (prop::collection::vec(condition(), 0..3), keys(), keys())
            .prop_map(|(conditions, then, otherwise)| Query::Txn(ReadTxn { conditions, then, otherwise })),
    ]
}

pub(super) fn query_answer() -> impl Strategy<Value = QueryAnswer> {
    prop_oneof![
        prop::option::of(kv()).prop_map(QueryAnswer::Get),
        (prop::collection::vec(kv(), 0..4), prop::option::of(key()))
            .prop_map(|(kvs, more)| QueryAnswer::Scan { kvs, more }),
        (any::<bool>(), prop::collection::vec(prop::option::of(kv()), 0..4))
            .prop_map(|(succeeded, results)| QueryAnswer::Txn { succeeded, results }),
    ]
}
