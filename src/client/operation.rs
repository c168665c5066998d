//! What the Clerk asks of the cluster: the payload and the answer that its policy carries.
//!
//! What it deliberately does not do: look into keys and values beyond what routing needs.

use bytes::Bytes;

use crate::client::message::{Kind, Route, Stamp};
use crate::ids::{NodeId, ShardId};
use crate::wire::v1;

/// The payload of a call.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Get(v1::GetRequest),
    Put(v1::PutRequest),
    Append(v1::AppendRequest),
    Delete(v1::DeleteRequest),
    Txn(v1::TxnRequest),
    /// A scan, of which only so much is taken as is under `bytes_max`, or one page.
    ScanPart {
        request: v1::ScanRequest,
        bytes_max: usize,
    },
    Shards,
    Transfer(v1::TransferLeadershipRequest),
}

/// The answer to an [`Operation`].
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Get(v1::GetResponse),
    Put(v1::PutResponse),
    Append(v1::AppendResponse),
    Delete(v1::DeleteResponse),
    Txn(v1::TxnResponse),
    ScanPart { kvs: Vec<v1::KeyValue>, ended: StreamEnd },
    Shards(v1::ShardsResponse),
    Transfer(v1::TransferLeadershipResponse),
}

/// Why reading a stream stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The node had no more.
    Exhausted,
    /// Enough was taken.
    Cut,
}

/// How a change is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// Under a session, so that it happens exactly once however often it is sent.
    #[default]
    ExactlyOnce,
    /// Without a session: less work for the first write, and more outcomes that are not known.
    Unstamped,
}

impl Operation {
    /// What may be done when a sending of it is lost.
    pub(super) fn kind(&self, writes: Writes) -> Kind {
        let stale = |consistency: i32| consistency == i32::from(v1::Consistency::Stale);
        match self {
            Self::Get(request) if stale(request.consistency) => Kind::ReadAnywhere,
            Self::Get(_) | Self::ScanPart { .. } | Self::Shards => Kind::Read,
            Self::Txn(request) if only_reads(request) => Kind::Read,
            Self::Put(_) | Self::Append(_) | Self::Delete(_) | Self::Txn(_) => match writes {
                Writes::ExactlyOnce => Kind::Write,
                Writes::Unstamped => Kind::WriteOnce,
            },
            // A second transfer to "the best follower" would move the leader again.
            Self::Transfer(_) => Kind::WriteOnce,
        }
    }

    /// Whom it concerns.
    pub(super) fn route(&self) -> Route {
        match self {
            Self::Get(request) => Route::Key(request.key.clone()),
            Self::Put(request) => Route::Key(request.key.clone()),
            Self::Append(request) => Route::Key(request.key.clone()),
            Self::Delete(request) => Route::Key(request.key.clone()),
            Self::Txn(request) => Route::Key(key_of_txn(request)),
            Self::ScanPart { .. } | Self::Shards => Route::Anywhere,
            Self::Transfer(request) => Route::Shard(ShardId(request.shard)),
        }
    }

    /// Puts the request's id into it.
    pub(super) fn stamped(mut self, stamp: Option<Stamp>) -> Self {
        let id = stamp.map(|stamp| v1::RequestId {
            session: stamp.session.0,
            sequence: stamp.sequence.0,
            acknowledged: stamp.acknowledged.0,
        });
        match &mut self {
            Self::Put(request) => request.id = id,
            Self::Append(request) => request.id = id,
            Self::Delete(request) => request.id = id,
            Self::Txn(request) => request.id = id,
            Self::Get(_) | Self::ScanPart { .. } | Self::Shards | Self::Transfer(_) => {}
        }
        self
    }
}

impl Reply {
    /// The node that served it, where the answer says so.
    pub(super) fn served_by(&self) -> Option<NodeId> {
        let header = match self {
            Self::Get(response) => response.header.as_ref(),
            Self::Put(response) => response.header.as_ref(),
            Self::Append(response) => response.header.as_ref(),
            Self::Delete(response) => response.header.as_ref(),
            Self::Txn(response) => response.header.as_ref(),
            Self::ScanPart { .. } | Self::Shards(_) | Self::Transfer(_) => None,
        };
        header.map(|header| NodeId(header.node_id)).filter(|node| node.0 != 0)
    }
}

/// Whether neither branch can change anything.
fn only_reads(request: &v1::TxnRequest) -> bool {
    let is_get =
        |operation: &v1::Operation| matches!(operation.operation, Some(v1::operation::Operation::Get(_)));
    request.then.iter().chain(&request.otherwise).all(is_get)
}

/// The first key that a transaction names: all of them are of one shard, or the node refuses it. Without any,
/// the empty key, whose shard refuses it as well.
fn key_of_txn(request: &v1::TxnRequest) -> Bytes {
    let of_operation = |operation: &v1::Operation| match operation.operation.as_ref()? {
        v1::operation::Operation::Get(get) => Some(get.key.clone()),
        v1::operation::Operation::Put(put) => Some(put.key.clone()),
        v1::operation::Operation::Append(append) => Some(append.key.clone()),
        v1::operation::Operation::Delete(delete) => Some(delete.key.clone()),
        v1::operation::Operation::Txn(_) => None,
    };
    let of_condition = request.conditions.first().map(|condition| condition.key.clone());
    let branches = || request.then.iter().chain(&request.otherwise);
    of_condition.or_else(|| branches().find_map(of_operation)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Sequence, SessionId};

    fn get(key: &'static str) -> v1::Operation {
        let get = v1::GetRequest { key: key.into(), ..v1::GetRequest::default() };
        v1::Operation { operation: Some(v1::operation::Operation::Get(get)) }
    }

    fn delete(key: &'static str) -> v1::Operation {
        let delete = v1::DeleteRequest { key: key.into(), ..v1::DeleteRequest::default() };
        v1::Operation { operation: Some(v1::operation::Operation::Delete(delete)) }
    }

    #[test]
    fn a_txn_is_routed_by_its_first_key_and_reads_need_no_session() {
        let reads = v1::TxnRequest { then: vec![get("a")], otherwise: vec![get("b")], ..Default::default() };
        assert_eq!(Operation::Txn(reads.clone()).kind(Writes::ExactlyOnce), Kind::Read);
        assert_eq!(Operation::Txn(reads).route(), Route::Key("a".into()));
        let writes = v1::TxnRequest { otherwise: vec![get("c"), delete("d")], ..Default::default() };
        assert_eq!(Operation::Txn(writes.clone()).kind(Writes::ExactlyOnce), Kind::Write);
        assert_eq!(Operation::Txn(writes.clone()).kind(Writes::Unstamped), Kind::WriteOnce);
        assert_eq!(Operation::Txn(writes).route(), Route::Key("c".into()));
    }

    #[test]
    fn a_stamp_replaces_whatever_id_the_caller_set() {
        let request = v1::PutRequest { id: Some(v1::RequestId::default()), ..Default::default() };
        let Operation::Put(unstamped) = Operation::Put(request).stamped(None) else { panic!("a put") };
        assert_eq!(unstamped.id, None);
        let stamp = Stamp { session: SessionId(5), sequence: Sequence(2), acknowledged: Sequence(1) };
        let Operation::Put(stamped) = Operation::Put(unstamped).stamped(Some(stamp)) else { panic!("a put") };
        assert_eq!(stamped.id, Some(v1::RequestId { session: 5, sequence: 2, acknowledged: 1 }));
    }

    #[test]
    fn stale_reads_go_anywhere() {
        let mut request = v1::GetRequest::default();
        assert_eq!(Operation::Get(request.clone()).kind(Writes::ExactlyOnce), Kind::Read);
        request.set_consistency(v1::Consistency::Stale);
        assert_eq!(Operation::Get(request).kind(Writes::ExactlyOnce), Kind::ReadAnywhere);
    }
}
