//! The state against what it must be: a naive model, exactly-once under any delivery, digests and counts from
//! scratch, and what memory is held.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ids::{Index, Revision, Sequence, SessionId, ShardId};

fn state() -> State {
    State::new(Config::new(ShardId(0), Limits::DEFAULT))
}

fn apply(state: &mut State, command: &Command) -> Result<Applied, Refusal> {
    let index = state.applied().next();
    state.apply(index, command, &Base::default())
}

fn get(state: &State, key: &'static str) -> Option<KeyValue> {
    let query = Query::Get { key: Bytes::from_static(key.as_bytes()) };
    match state.query(&query, &Base::default()) {
        Ok((_, QueryAnswer::Get(found))) => found,
        other => panic!("a Get is answered as one: {other:?}"),
    }
}

fn put(key: &'static str, value: Bytes) -> Command {
    let key = Bytes::from_static(key.as_bytes());
    let write = Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit };
    Command::Write { id: None, write }
}

fn append(key: &'static str, value: Bytes) -> Write {
    Write::Append { key: Bytes::from_static(key.as_bytes()), value, if_mod_revision: None }
}

#[test]
fn a_session_routes_itself() {
    for (shard, index) in [(0, 1), (3, 77), (16_383, 1 << 40), (SESSION_SHARDS_MAX - 1, (1 << 48) - 1)] {
        let id = session_id(ShardId(shard), Index(index));
        assert_eq!(session_shard(id), ShardId(shard));
        assert_ne!(id.0, 0);
    }
    let mut state = State::new(Config::new(ShardId(9), Limits::DEFAULT));
    state.apply_noop(Index(1));
    let opened = apply(&mut state, &Command::OpenSession { ttl_ms: 0 });
    let answer = Answer::SessionOpened { session: SessionId(9 << 48 | 2), ttl_ms: 60_000 };
    assert_eq!(opened, Ok(Applied { revision: Revision(1), answer }));
    assert_eq!(state.sessions().collect::<Vec<_>>(), [(SessionId(9 << 48 | 2), 60_000, Index(2))]);
}

#[test]
#[should_panic(expected = "entry 3 is applied after 1")]
fn no_entry_is_left_out() {
    let mut state = state();
    state.apply_noop(Index(1));
    state.apply_noop(Index(3));
}

#[test]
fn nothing_of_a_command_is_held() {
    let mut state = state();
    let mut encoded = Vec::new();
    put("k", Bytes::from(vec![7; 100])).encode(&mut encoded);
    let buffer = Bytes::from(encoded);
    let command = Command::decode(buffer.clone()).expect("it was just encoded");
    let applied = apply(&mut state, &command);
    drop(command);
    assert!(applied.is_ok() && buffer.is_unique(), "the state, or the answer, holds the buffer");
}

#[test]
fn a_value_that_nobody_holds_grows_in_place() {
    let mut state = state();
    let piece = Bytes::from(vec![b'x'; 100]);
    let command = Command::Write { id: None, write: append("k", piece) };
    let mut moves = 0;
    let mut place = std::ptr::null();
    for _ in 0..1000 {
        assert!(apply(&mut state, &command).is_ok());
        let found = get(&state, "k").expect("it was just appended to");
        moves += usize::from(found.value.as_ptr() != place);
        place = found.value.as_ptr();
    }
    assert!(moves <= 20, "100 kB grew by 1000 appends with {moves} moves, more than doubling needs");
    assert_eq!(state.bytes(), 100_001);
}

#[test]
fn a_reader_keeps_what_it_read() {
    let mut state = state();
    assert!(apply(&mut state, &put("k", Bytes::from_static(b"one"))).is_ok());
    let command = Command::Write { id: None, write: append("k", Bytes::from_static(b"two")) };
    let before = get(&state, "k").expect("it was put");
    assert!(apply(&mut state, &command).is_ok());
    assert_eq!(before.value, "one");
    let before = get(&state, "k").expect("it was put");
    for value in ["1 to 6", "onetwo"] {
        let write = Write::Put {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(value.as_bytes()),
            if_mod_revision: None,
            return_previous: Previous::Omit,
        };
        let between = get(&state, "k").expect("it was put");
        let held = between.value.to_vec();
        assert!(state.overwrite(state.applied().next(), &Command::Write { id: None, write }).is_some());
        assert_eq!((&before.value[..], &between.value[..]), (&b"onetwo"[..], &held[..]));
        assert_eq!(get(&state, "k").expect("it was put").value, value);
    }
}

#[test]
fn a_txn_that_reads_alone_is_a_query() {
    let get = |key: &'static str| Operation::Get { key: Bytes::from_static(key.as_bytes()) };
    let txn = Txn { conditions: Vec::new(), then: vec![get("a")], otherwise: vec![get("b")] };
    let read = ReadTxn { conditions: Vec::new(), then: vec!["a".into()], otherwise: vec!["b".into()] };
    assert_eq!(txn.clone().into_read(), Ok(read));
    let delete = Operation::Delete { key: "a".into(), return_previous: Previous::Omit };
    let writes = Txn { otherwise: vec![delete], ..txn };
    assert_eq!(writes.clone().into_read(), Err(writes));
}

/// What keys hold, told as simply as can be: no sharing, no plans, a copy to fall back on.
#[derive(Clone, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, KeyValue>,
    revision: u64,
    is_changed: bool,
}

impl Model {
    fn write(&mut self, write: &Write) -> Answer {
        self.is_changed = false;
        let answer = match write {
            Write::Put { key, value, if_mod_revision, return_previous } => {
                let before = self.keys.get(&key[..]).cloned();
                if !Self::holds(before.as_ref(), *if_mod_revision) {
                    let version = before.as_ref().map_or(0, |kv| kv.version);
                    return Answer::Put { succeeded: false, previous: before, version };
                }
                let version = self.set(key, value.to_vec());
                Answer::Put { succeeded: true, previous: wanted(before, *return_previous), version }
            }
            Write::Append { key, value, if_mod_revision } => {
                let before = self.keys.get(&key[..]).cloned();
                let succeeded = Self::holds(before.as_ref(), *if_mod_revision);
                if succeeded {
                    let value = [before.map_or(Bytes::new(), |kv| kv.value), value.clone()].concat();
                    self.set(key, value);
                }
                let after = self.keys.get(&key[..]);
                let length = after.map_or(0, |kv| kv.value.len() as u64);
                Answer::Append { succeeded, length, version: after.map_or(0, |kv| kv.version) }
            }
            Write::Delete { key, if_mod_revision, return_previous } => {
                let before = self.keys.get(&key[..]).cloned();
                let existed = before.is_some();
                if !Self::holds(before.as_ref(), *if_mod_revision) {
                    return Answer::Delete { succeeded: false, existed, previous: before };
                }
                self.is_changed |= self.keys.remove(&key[..]).is_some();
                Answer::Delete { succeeded: true, existed, previous: wanted(before, *return_previous) }
            }
            Write::Txn(txn) => self.txn(txn),
        };
        self.revision += u64::from(self.is_changed);
        answer
    }

    fn txn(&mut self, txn: &Txn) -> Answer {
        let succeeded = txn.conditions.iter().all(|condition| self.condition_holds(condition));
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        let results = branch.iter().map(|operation| self.operate(operation)).collect();
        Answer::Txn { succeeded, results }
    }

    fn operate(&mut self, operation: &Operation) -> OperationResult {
        let before = self.keys.get(&operation.key()[..]).cloned();
        match operation {
            Operation::Get { .. } => OperationResult::Get(before),
            Operation::Put { key, value, return_previous } => {
                let version = self.set(key, value.to_vec());
                OperationResult::Put { previous: wanted(before, *return_previous), version }
            }
            Operation::Append { key, value } => {
                let value = [before.map_or(Bytes::new(), |kv| kv.value), value.clone()].concat();
                let length = value.len() as u64;
                OperationResult::Append { length, version: self.set(key, value) }
            }
            Operation::Delete { key, return_previous } => {
                self.is_changed |= self.keys.remove(&key[..]).is_some();
                let existed = before.is_some();
                OperationResult::Delete { existed, previous: wanted(before, *return_previous) }
            }
        }
    }

    fn condition_holds(&self, condition: &Condition) -> bool {
        let found = self.keys.get(&condition.key[..]);
        let compare = |left: u64, right: u64| match condition.comparison {
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            Comparison::Less => left < right,
            Comparison::Greater => left > right,
        };
        match &condition.target {
            Target::Version(version) => compare(found.map_or(0, |kv| kv.version), *version),
            Target::CreateRevision(at) => compare(found.map_or(0, |kv| kv.create_revision.0), at.0),
            Target::ModRevision(at) => compare(found.map_or(0, |kv| kv.mod_revision.0), at.0),
            Target::Value(value) => found.is_some_and(|kv| match condition.comparison {
                Comparison::Equal => kv.value == value,
                Comparison::NotEqual => kv.value != value,
                Comparison::Less => kv.value < value,
                Comparison::Greater => kv.value > value,
            }),
        }
    }

    fn set(&mut self, key: &Bytes, value: Vec<u8>) -> u64 {
        self.is_changed = true;
        let at = Revision(self.revision + 1);
        let before = self.keys.get(&key[..]);
        let (create_revision, version) = before.map_or((at, 1), |kv| (kv.create_revision, kv.version + 1));
        let kv =
            KeyValue { key: key.clone(), value: value.into(), create_revision, mod_revision: at, version };
        self.keys.insert(key.to_vec(), kv);
        version
    }

    fn holds(before: Option<&KeyValue>, if_mod_revision: Option<Revision>) -> bool {
        if_mod_revision.is_none_or(|revision| before.map_or(0, |kv| kv.mod_revision.0) == revision.0)
    }
}

fn wanted(previous: Option<KeyValue>, wanted: Previous) -> Option<KeyValue> {
    match wanted {
        Previous::Omit => None,
        Previous::Return => previous,
    }
}

/// The digest of a state that holds these keys, at this revision and without sessions, from scratch.
fn digest_of(keys: &BTreeMap<Vec<u8>, KeyValue>, revision: Revision) -> u64 {
    let of = |kv: &KeyValue| {
        let value_hash = digest::of_value(&kv.value);
        digest::of_entry(&kv.key, value_hash, kv.create_revision, kv.mod_revision, kv.version)
    };
    keys.values().map(of).fold(digest::of_revision(revision), u64::wrapping_add)
}

/// A client's sendings: each names one of a few requests, in any order and as often as you like.
fn deliveries() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((1..8_u64, 0..8_u64), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn writes_do_what_the_model_does(writes in prop::collection::vec(strategies::write(), 0..60)) {
        let mut state = state();
        let mut model = Model { revision: 1, ..Model::default() };
        for write in writes {
            let answer = model.write(&write);
            let applied = apply(&mut state, &Command::Write { id: None, write });
            prop_assert_eq!(applied, Ok(Applied { revision: Revision(model.revision), answer }));
        }
        prop_assert_eq!(state.digest(), digest_of(&model.keys, state.revision()));
        prop_assert_eq!(state.keys(), model.keys.len() as u64);
        let bytes: usize = model.keys.values().map(|kv| kv.key.len() + kv.value.len()).sum();
        prop_assert_eq!(state.bytes(), bytes as u64);
        let scan = Query::Scan {
            start: Bytes::new(),
            end: Bytes::new(),
            limit: 0,
            bytes_max: u32::MAX,
            keys: ScanKeys::Whole,
        };
        let kvs = model.keys.into_values().collect();
        prop_assert_eq!(
            state.query(&scan, &Base::default()),
            Ok((state.revision(), QueryAnswer::Scan { kvs, more: None }))
        );
    }

    /// Two replicas that apply the same entries answer the same and have the same digest after each. Any
    /// command may be in a log, checked or not.
    #[test]
    fn replicas_agree(commands in prop::collection::vec(strategies::command(), 0..80)) {
        let (mut one, mut other) = (state(), state());
        for command in commands {
            let mut encoded = Vec::new();
            command.encode(&mut encoded);
            let copy = Command::decode(encoded.into()).expect("it was just encoded");
            prop_assert_eq!(apply(&mut one, &command), apply(&mut other, &copy));
            prop_assert_eq!(one.digest(), other.digest());
        }
    }

    /// Ended sessions leave nothing: digest and counts are those of the keys alone.
    #[test]
    fn closed_sessions_leave_nothing(commands in prop::collection::vec(strategies::command(), 0..80)) {
        let mut state = state();
        for command in &commands {
            drop(apply(&mut state, command));
        }
        let open: Vec<SessionId> = state.sessions().map(|(id, ..)| id).collect();
        for session in open {
            let closed = apply(&mut state, &Command::CloseSession { session });
            prop_assert!(closed.is_ok());
        }
        let scan = Query::Scan {
            start: Bytes::new(),
            end: Bytes::new(),
            limit: 0,
            bytes_max: u32::MAX,
            keys: ScanKeys::Whole,
        };
        let Ok((revision, QueryAnswer::Scan { kvs, .. })) = state.query(&scan, &Base::default()) else {
            panic!("a Scan is answered as one");
        };
        let keys = kvs.into_iter().map(|kv| (kv.key.to_vec(), kv)).collect();
        prop_assert_eq!(state.digest(), digest_of(&keys, revision));
    }

    /// However a client's requests are repeated and reordered, each is applied at most once, and every answer
    /// that it ever gets is the first one. Acknowledgements are honest: of requests that were answered.
    #[test]
    fn requests_are_applied_at_most_once(deliveries in deliveries()) {
        let mut state = state();
        assert!(apply(&mut state, &Command::OpenSession { ttl_ms: 0 }).is_ok());
        let mut answers: BTreeMap<u64, Applied> = BTreeMap::new();
        let mut acknowledged = 0;
        for (sequence, claimed) in deliveries {
            let answered = (1..=claimed).take_while(|sequence| answers.contains_key(sequence)).count() as u64;
            acknowledged = answered.max(acknowledged);
            let id = RequestId {
                session: SessionId(1),
                sequence: Sequence(sequence),
                acknowledged: Sequence(answered.min(sequence - 1)),
            };
            let piece = Bytes::from(format!("{sequence};"));
            let command = Command::Write { id: Some(id), write: append("log", piece) };
            match apply(&mut state, &command) {
                Ok(applied) => {
                    let first = answers.entry(sequence).or_insert_with(|| applied.clone());
                    prop_assert_eq!(&*first, &applied);
                }
                Err(refusal) => {
                    prop_assert_eq!(refusal, Refusal::SequenceForgotten);
                    prop_assert!(sequence <= acknowledged && answers.contains_key(&sequence));
                }
            }
        }
        let value = get(&state, "log").map_or(Bytes::new(), |kv| kv.value);
        let text = String::from_utf8_lossy(&value).into_owned();
        let mut appended: Vec<&str> = text.split_terminator(';').collect();
        appended.sort_unstable();
        let expected: Vec<String> = answers.keys().map(u64::to_string).collect();
        prop_assert_eq!(appended, expected);
    }
}
