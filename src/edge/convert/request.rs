//! What a client asks, checked, as a request to one shard.
//!
//! Invariants:
//! - What passes here is within the limits that the state machine checks again, and concerns one shard alone.
//! - A key or value is not copied: it stays a slice of the message.

use bytes::Bytes;

use crate::edge::status::{Code, Status};
use crate::ids::{NodeId, Revision, Sequence, SessionId, ShardId};
use crate::kv::{
    Command, Comparison, Condition, Limits, Operation, Previous, Query, Refusal, RequestId, Target, Txn,
    Write, session_shard,
};
use crate::route::call::{Consistency, Request};
use crate::route::slot;
use crate::wire::v1;

/// The most bytes of a key that a status message shows.
const SHOWN_KEY_BYTES_MAX: usize = 64;

/// What requests are checked against.
pub(in crate::edge) struct Bounds<'a> {
    /// Of keys, values and Txns.
    pub(in crate::edge) limits: &'a Limits,
    /// How many shards there are.
    pub(in crate::edge) shards: u32,
}

impl Bounds<'_> {
    fn shard_of(&self, key: &[u8]) -> ShardId {
        slot::shard_of_key(key, self.shards)
    }

    fn ask_query(&self, shard: ShardId, query: Query, consistency: Consistency) -> Result<Asked, Status> {
        query.check(self.limits).map_err(|refusal| Status::of_refusal(&refusal))?;
        Ok(Asked { shard, request: Request::Query { query, consistency } })
    }

    fn ask_command(&self, shard: ShardId, command: Command) -> Result<Asked, Status> {
        command.check(self.limits).map_err(|refusal| Status::of_refusal(&refusal))?;
        Ok(Asked { shard, request: Request::Command(command) })
    }

    /// A command to the shard that a session belongs to; a session of no shard of ours has never been opened.
    fn ask_session(&self, session: SessionId, command: Command) -> Result<Asked, Status> {
        let shard = session_shard(session);
        if shard.0 >= self.shards {
            return Err(Status::of_refusal(&Refusal::SessionExpired));
        }
        self.ask_command(shard, command)
    }
}

/// A request and the shard that it concerns.
pub(in crate::edge) struct Asked {
    /// The shard.
    pub(in crate::edge) shard: ShardId,
    /// The request.
    pub(in crate::edge) request: Request,
}

pub(in crate::edge) fn get(message: v1::GetRequest, bounds: &Bounds<'_>) -> Result<Asked, Status> {
    let consistency = consistency(message.consistency)?;
    let shard = bounds.shard_of(&message.key);
    bounds.ask_query(shard, Query::Get { key: message.key }, consistency)
}

pub(in crate::edge) fn put(message: v1::PutRequest, bounds: &Bounds<'_>) -> Result<Asked, Status> {
    let shard = bounds.shard_of(&message.key);
    let write = Write::Put {
        key: message.key,
        value: message.value,
        if_mod_revision: message.if_mod_revision.map(Revision),
        return_previous: previous(message.return_previous),
    };
    bounds.ask_command(shard, Command::Write { id: message.id.map(request_id), write })
}

pub(in crate::edge) fn append(message: v1::AppendRequest, bounds: &Bounds<'_>) -> Result<Asked, Status> {
    let shard = bounds.shard_of(&message.key);
    let write = Write::Append {
        key: message.key,
        value: message.value,
        if_mod_revision: message.if_mod_revision.map(Revision),
    };
    bounds.ask_command(shard, Command::Write { id: message.id.map(request_id), write })
}

pub(in crate::edge) fn delete(message: v1::DeleteRequest, bounds: &Bounds<'_>) -> Result<Asked, Status> {
    let shard = bounds.shard_of(&message.key);
    let write = Write::Delete {
        key: message.key,
        if_mod_revision: message.if_mod_revision.map(Revision),
        return_previous: previous(message.return_previous),
    };
    bounds.ask_command(shard, Command::Write { id: message.id.map(request_id), write })
}

/// A Txn that only reads, and has no RequestId that asks for more, is a query: it needs no place in the log.
pub(in crate::edge) fn txn(message: v1::TxnRequest, bounds: &Bounds<'_>) -> Result<Asked, Status> {
    let limit = bounds.limits.txn_operations_max;
    let operations = message.then.len().max(message.otherwise.len());
    if operations > limit {
        return Err(Status::limit("a branch", format_args!("{operations} operations"), limit));
    }
    let conditions = message.conditions.into_iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let then = branch(message.then)?;
    let otherwise = branch(message.otherwise)?;
    let txn = Txn { conditions, then, otherwise };
    let shard = shard_of_txn(&txn, bounds)?;
    if message.id.is_some() {
        let command = Command::Write { id: message.id.map(request_id), write: Write::Txn(txn) };
        return bounds.ask_command(shard, command);
    }
    match txn.into_read() {
        Ok(read) => bounds.ask_query(shard, Query::Txn(read), Consistency::Linearizable),
        Err(txn) => bounds.ask_command(shard, Command::Write { id: None, write: Write::Txn(txn) }),
    }
}

/// An operation of a Pipeline.
pub(in crate::edge) fn operation(
    message: Option<v1::Operation>,
    bounds: &Bounds<'_>,
) -> Result<Asked, Status> {
    use v1::operation::Operation as Kind;
    match message.and_then(|message| message.operation) {
        Some(Kind::Get(message)) => get(message, bounds),
        Some(Kind::Put(message)) => put(message, bounds),
        Some(Kind::Append(message)) => append(message, bounds),
        Some(Kind::Delete(message)) => delete(message, bounds),
        Some(Kind::Txn(message)) => txn(message, bounds),
        None => Err(Status::invalid("an operation of a Pipeline that names none")),
    }
}

pub(in crate::edge) fn open(message: v1::OpenSessionRequest, bounds: &Bounds<'_>) -> Result<Asked, Status> {
    // The key says which shard alone, but one that no write could have is a mistake.
    let key_check = Query::Get { key: message.key.clone() }.check(bounds.limits);
    key_check.map_err(|refusal| Status::of_refusal(&refusal))?;
    let shard = bounds.shard_of(&message.key);
    bounds.ask_command(shard, Command::OpenSession { ttl_ms: message.ttl_ms })
}

pub(in crate::edge) fn keep_alive(
    message: v1::KeepAliveRequest,
    bounds: &Bounds<'_>,
) -> Result<Asked, Status> {
    let session = SessionId(message.session);
    let acknowledged = Sequence(message.acknowledged);
    bounds.ask_session(session, Command::KeepAlive { session, acknowledged })
}

pub(in crate::edge) fn close(message: v1::CloseSessionRequest, bounds: &Bounds<'_>) -> Result<Asked, Status> {
    let session = SessionId(message.session);
    bounds.ask_session(session, Command::CloseSession { session })
}

pub(in crate::edge) fn transfer(
    message: v1::TransferLeadershipRequest,
    bounds: &Bounds<'_>,
) -> Result<Asked, Status> {
    if message.shard >= bounds.shards {
        let text = format!("there is no shard {}: the last is {}", message.shard, bounds.shards - 1);
        return Err(Status::invalid(text));
    }
    let to = (message.to != 0).then_some(NodeId(message.to));
    Ok(Asked { shard: ShardId(message.shard), request: Request::Transfer { to } })
}

/// How fresh a read has to be.
pub(in crate::edge) fn consistency(number: i32) -> Result<Consistency, Status> {
    match v1::Consistency::try_from(number) {
        Ok(v1::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(v1::Consistency::Stale) => Ok(Consistency::Stale),
        Err(_) => Err(Status::invalid(format!("there is no consistency {number}"))),
    }
}

fn request_id(message: v1::RequestId) -> RequestId {
    RequestId {
        session: SessionId(message.session),
        sequence: Sequence(message.sequence),
        acknowledged: Sequence(message.acknowledged),
    }
}

fn previous(is_wanted: bool) -> Previous {
    if is_wanted { Previous::Return } else { Previous::Omit }
}

fn condition(message: v1::Condition) -> Result<Condition, Status> {
    use v1::condition::{Comparison as Kind, Target as Of};
    let comparison = match Kind::try_from(message.comparison) {
        Ok(Kind::Equal) => Comparison::Equal,
        Ok(Kind::NotEqual) => Comparison::NotEqual,
        Ok(Kind::Less) => Comparison::Less,
        Ok(Kind::Greater) => Comparison::Greater,
        Err(_) => return Err(Status::invalid(format!("there is no comparison {}", message.comparison))),
    };
    let target = match message.target {
        Some(Of::Version(version)) => Target::Version(version),
        Some(Of::CreateRevision(revision)) => Target::CreateRevision(Revision(revision)),
        Some(Of::ModRevision(revision)) => Target::ModRevision(Revision(revision)),
        Some(Of::Value(value)) => Target::Value(value),
        None => return Err(Status::invalid("a condition without a target")),
    };
    Ok(Condition { key: message.key, comparison, target })
}

fn branch(messages: Vec<v1::Operation>) -> Result<Vec<Operation>, Status> {
    messages.into_iter().map(txn_operation).collect()
}

fn txn_operation(message: v1::Operation) -> Result<Operation, Status> {
    use v1::operation::Operation as Kind;
    match message.operation {
        Some(Kind::Get(get)) if get.consistency == 0 => Ok(Operation::Get { key: get.key }),
        Some(Kind::Put(put)) if put.id.is_none() && put.if_mod_revision.is_none() => {
            let return_previous = previous(put.return_previous);
            Ok(Operation::Put { key: put.key, value: put.value, return_previous })
        }
        Some(Kind::Append(append)) if append.id.is_none() && append.if_mod_revision.is_none() => {
            Ok(Operation::Append { key: append.key, value: append.value })
        }
        Some(Kind::Delete(delete)) if delete.id.is_none() && delete.if_mod_revision.is_none() => {
            Ok(Operation::Delete { key: delete.key, return_previous: previous(delete.return_previous) })
        }
        Some(Kind::Txn(_)) => Err(Status::invalid("a Txn within a Txn")),
        Some(Kind::Get(_) | Kind::Put(_) | Kind::Append(_) | Kind::Delete(_)) => Err(Status::invalid(
            "an operation of a Txn has no id, consistency or if_mod_revision of its own: the Txn has them",
        )),
        None => Err(Status::invalid("an operation of a Txn that names none")),
    }
}

/// The one shard of all keys of a Txn.
fn shard_of_txn(txn: &Txn, bounds: &Bounds<'_>) -> Result<ShardId, Status> {
    let of_conditions = txn.conditions.iter().map(|condition| &condition.key);
    let of_operations = txn.then.iter().chain(&txn.otherwise).map(Operation::key);
    let mut keys = of_conditions.chain(of_operations);
    let Some(first) = keys.next() else {
        return Err(Status::invalid("a Txn names at least one key"));
    };
    let shard = bounds.shard_of(first);
    match keys.find(|key| bounds.shard_of(key) != shard) {
        None => Ok(shard),
        Some(other) => Err(cross_shard(first, shard, other, bounds.shard_of(other))),
    }
}

fn cross_shard(first: &Bytes, first_shard: ShardId, other: &Bytes, other_shard: ShardId) -> Status {
    let text = format!(
        "a Txn is of one shard: key \"{}\" is in shard {first_shard}, key \"{}\" in shard {other_shard}; \
         give keys that belong together the same {{tag}}, as in \"{{user1}}:name\"",
        shown(first),
        shown(other),
    );
    Status::new(Code::InvalidArgument, v1::Reason::CrossShard, text)
}

fn shown(key: &Bytes) -> String {
    let part = &key[..key.len().min(SHOWN_KEY_BYTES_MAX)];
    let dots = if part.len() < key.len() { "…" } else { "" };
    format!("{}{dots}", part.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::condition::{Comparison as Kind, Target as Of};
    use v1::operation::Operation as Op;

    const BOUNDS: Bounds<'static> = Bounds { limits: &Limits::DEFAULT, shards: 8 };

    fn get() -> v1::GetRequest {
        v1::GetRequest { key: "k".into(), ..Default::default() }
    }

    fn put() -> v1::PutRequest {
        v1::PutRequest { key: "k".into(), value: "v".into(), return_previous: true, ..Default::default() }
    }

    fn operations(operations: &[Op]) -> Vec<v1::Operation> {
        operations.iter().map(|one| v1::Operation { operation: Some(one.clone()) }).collect()
    }

    fn asked(message: v1::TxnRequest) -> Result<Request, String> {
        txn(message, &BOUNDS).map(|asked| asked.request).map_err(|status| status.to_string())
    }

    #[test]
    fn a_condition_is_what_the_contract_calls_it() {
        let comparisons = [
            (Kind::Equal, Comparison::Equal),
            (Kind::NotEqual, Comparison::NotEqual),
            (Kind::Less, Comparison::Less),
            (Kind::Greater, Comparison::Greater),
        ];
        let targets = [
            (Of::Version(3), Target::Version(3)),
            (Of::CreateRevision(4), Target::CreateRevision(Revision(4))),
            (Of::ModRevision(5), Target::ModRevision(Revision(5))),
            (Of::Value("v".into()), Target::Value("v".into())),
        ];
        let key = Bytes::from_static(b"k");
        for (sent, comparison) in comparisons {
            for (of, target) in targets.clone() {
                let message = v1::Condition { key: key.clone(), comparison: sent.into(), target: Some(of) };
                let expected = Condition { key: key.clone(), comparison, target };
                assert!(matches!(condition(message), Ok(made) if made == expected), "{expected:?}");
            }
        }
        let unknown = v1::Condition { comparison: 9, target: Some(Of::Version(0)), ..Default::default() };
        let bare = v1::Condition { key, ..Default::default() };
        for (message, said) in [(unknown, "comparison 9"), (bare, "without a target")] {
            let refused = condition(message).err().map(|status| status.to_string()).unwrap_or_default();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn a_txn_with_an_id_or_a_change_goes_through_the_log() {
        let (id, then) = (Some(v1::RequestId { session: 5, sequence: 2, acknowledged: 1 }), Op::Get(get()));
        let read = v1::TxnRequest { then: operations(&[then]), ..Default::default() };
        assert!(matches!(asked(read.clone()), Ok(Request::Query { .. })));
        let Ok(Request::Command(Command::Write { id: stamp, .. })) = asked(v1::TxnRequest { id, ..read })
        else {
            panic!("a stamped Txn is a command")
        };
        let (session, sequence, acknowledged) = (SessionId(5), Sequence(2), Sequence(1));
        assert_eq!(stamp, Some(RequestId { session, sequence, acknowledged }));
        let write = v1::TxnRequest { otherwise: operations(&[Op::Put(put())]), ..Default::default() };
        let Ok(Request::Command(Command::Write { id: None, write: Write::Txn(made) })) = asked(write) else {
            panic!("a Txn that may write is a command")
        };
        let (key, value, return_previous) = ("k".into(), "v".into(), Previous::Return);
        assert_eq!(made.otherwise, [Operation::Put { key, value, return_previous }]);
    }

    #[test]
    fn an_operation_of_a_txn_has_nothing_that_is_the_txns() {
        let id = || Some(v1::RequestId { session: 5, sequence: 2, acknowledged: 1 });
        let (key, if_mod_revision) = (Bytes::from_static(b"k"), Some(1));
        let append = v1::AppendRequest { key: key.clone(), ..Default::default() };
        let delete = v1::DeleteRequest { key, ..Default::default() };
        let bad = [
            Op::Get(v1::GetRequest { consistency: v1::Consistency::Stale.into(), ..get() }),
            Op::Put(v1::PutRequest { id: id(), ..put() }),
            Op::Put(v1::PutRequest { if_mod_revision, ..put() }),
            Op::Append(v1::AppendRequest { id: id(), ..append.clone() }),
            Op::Append(v1::AppendRequest { if_mod_revision, ..append }),
            Op::Delete(v1::DeleteRequest { id: id(), ..delete.clone() }),
            Op::Delete(v1::DeleteRequest { if_mod_revision, ..delete }),
            Op::Txn(v1::TxnRequest::default()),
        ];
        for one in bad {
            let then = operations(&[Op::Get(get()), one.clone()]);
            let refused = asked(v1::TxnRequest { then, ..Default::default() });
            assert!(refused.as_ref().is_err_and(|said| said.contains("Txn")), "{one:?}: {refused:?}");
        }
        let nameless = vec![v1::Operation { operation: None }];
        assert!(asked(v1::TxnRequest { then: nameless, ..Default::default() }).is_err());
        assert!(asked(v1::TxnRequest::default()).is_err(), "no key, so no shard");
    }
}
