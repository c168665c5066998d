//! What a shard answered, as a message of the contract.
//!
//! An answer of another kind than was asked for is a fault of the store, not of the client: what was asked
//! may have been carried out, so the client is told that the outcome is not known.

use crate::edge::status::{Code, Status};
use crate::edge::store::{LaneStatus, ReplicaRole, ReplicaStatus, ShardRoute};
use crate::env::stages::{Stage, Tallies};
use crate::ids::{ClusterId, CoreId};
use crate::kv::{Answer, KeyValue, OperationResult, QueryAnswer};
use crate::route::call::{Answered, Body};
use crate::route::slot;
use crate::wire::v1;

/// Who served it, and at which revision.
pub(in crate::edge) fn header(cluster: ClusterId, answered: &Answered) -> v1::ResponseHeader {
    v1::ResponseHeader {
        cluster_id: cluster.0,
        node_id: answered.node.0,
        shard: answered.shard.0,
        revision: answered.revision.0,
        term: answered.term.0,
    }
}

pub(in crate::edge) fn key_value(kv: KeyValue) -> v1::KeyValue {
    v1::KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
    }
}

pub(in crate::edge) fn get(cluster: ClusterId, answered: Answered) -> Result<v1::GetResponse, Status> {
    let header = Some(header(cluster, &answered));
    let Body::Query(QueryAnswer::Get(kv)) = answered.body else { return Err(another_kind("Get")) };
    Ok(v1::GetResponse { header, kv: kv.map(key_value) })
}

pub(in crate::edge) fn put(cluster: ClusterId, answered: Answered) -> Result<v1::PutResponse, Status> {
    let header = Some(header(cluster, &answered));
    let Body::Command(Answer::Put { succeeded, previous, version }) = answered.body else {
        return Err(another_kind("Put"));
    };
    Ok(v1::PutResponse { header, succeeded, previous: previous.map(key_value), version })
}

pub(in crate::edge) fn append(cluster: ClusterId, answered: Answered) -> Result<v1::AppendResponse, Status> {
    let header = Some(header(cluster, &answered));
    let Body::Command(Answer::Append { succeeded, length, version }) = answered.body else {
        return Err(another_kind("Append"));
    };
    Ok(v1::AppendResponse { header, succeeded, length, version })
}

pub(in crate::edge) fn delete(cluster: ClusterId, answered: Answered) -> Result<v1::DeleteResponse, Status> {
    let header = Some(header(cluster, &answered));
    let Body::Command(Answer::Delete { succeeded, existed, previous }) = answered.body else {
        return Err(another_kind("Delete"));
    };
    Ok(v1::DeleteResponse { header, succeeded, existed, previous: previous.map(key_value) })
}

pub(in crate::edge) fn txn(cluster: ClusterId, answered: Answered) -> Result<v1::TxnResponse, Status> {
    let header = Some(header(cluster, &answered));
    let (succeeded, results) = match answered.body {
        Body::Command(Answer::Txn { succeeded, results }) => {
            (succeeded, results.into_iter().map(txn_result).collect())
        }
        Body::Query(QueryAnswer::Txn { succeeded, results }) => {
            (succeeded, results.into_iter().map(|kv| txn_result(OperationResult::Get(kv))).collect())
        }
        Body::Command(_) | Body::Query(_) | Body::Transferred { .. } => return Err(another_kind("Txn")),
    };
    Ok(v1::TxnResponse { header, succeeded, results })
}

/// The result of an operation of a Pipeline: it is of the kind that was asked for, since the store answers in
/// kind.
pub(in crate::edge) fn operation(
    cluster: ClusterId,
    answered: Answered,
) -> Result<v1::OperationResult, Status> {
    use v1::operation_result::Result as Of;
    let result = match &answered.body {
        Body::Query(QueryAnswer::Get(_)) => Of::Get(get(cluster, answered)?),
        Body::Query(QueryAnswer::Txn { .. }) | Body::Command(Answer::Txn { .. }) => {
            Of::Txn(txn(cluster, answered)?)
        }
        Body::Command(Answer::Put { .. }) => Of::Put(put(cluster, answered)?),
        Body::Command(Answer::Append { .. }) => Of::Append(append(cluster, answered)?),
        Body::Command(Answer::Delete { .. }) => Of::Delete(delete(cluster, answered)?),
        Body::Query(QueryAnswer::Scan { .. }) | Body::Command(_) | Body::Transferred { .. } => {
            return Err(another_kind("Pipeline"));
        }
    };
    Ok(v1::OperationResult { result: Some(result) })
}

/// One result within a Txn: the Txn's answer has the header.
fn txn_result(result: OperationResult) -> v1::OperationResult {
    use v1::operation_result::Result as Of;
    let header = None;
    let of = match result {
        OperationResult::Get(kv) => Of::Get(v1::GetResponse { header, kv: kv.map(key_value) }),
        OperationResult::Put { previous, version } => {
            let previous = previous.map(key_value);
            Of::Put(v1::PutResponse { header, succeeded: true, previous, version })
        }
        OperationResult::Append { length, version } => {
            Of::Append(v1::AppendResponse { header, succeeded: true, length, version })
        }
        OperationResult::Delete { existed, previous } => {
            let previous = previous.map(key_value);
            Of::Delete(v1::DeleteResponse { header, succeeded: true, existed, previous })
        }
    };
    v1::OperationResult { result: Some(of) }
}

pub(in crate::edge) fn opened(_: ClusterId, answered: Answered) -> Result<v1::OpenSessionResponse, Status> {
    let Body::Command(Answer::SessionOpened { session, ttl_ms }) = answered.body else {
        return Err(another_kind("Session.Open"));
    };
    Ok(v1::OpenSessionResponse { session: session.0, ttl_ms, shard: answered.shard.0 })
}

pub(in crate::edge) fn kept_alive(_: ClusterId, answered: Answered) -> Result<v1::KeepAliveResponse, Status> {
    let Body::Command(Answer::KeptAlive { ttl_ms }) = answered.body else {
        return Err(another_kind("Session.KeepAlive"));
    };
    Ok(v1::KeepAliveResponse { ttl_ms })
}

pub(in crate::edge) fn closed(_: ClusterId, answered: Answered) -> Result<v1::CloseSessionResponse, Status> {
    let Body::Command(Answer::SessionClosed) = answered.body else {
        return Err(another_kind("Session.Close"));
    };
    Ok(v1::CloseSessionResponse {})
}

pub(in crate::edge) fn transferred(
    _: ClusterId,
    answered: Answered,
) -> Result<v1::TransferLeadershipResponse, Status> {
    let Body::Transferred { leader } = answered.body else {
        return Err(another_kind("Maintenance.TransferLeadership"));
    };
    Ok(v1::TransferLeadershipResponse { leader: leader.0 })
}

pub(in crate::edge) fn replica_status(replica: &ReplicaStatus) -> v1::ReplicaStatus {
    use v1::replica_status::Role;
    let role = match replica.role {
        ReplicaRole::Follower => Role::Follower,
        ReplicaRole::Candidate => Role::Candidate,
        ReplicaRole::Leader => Role::Leader,
        ReplicaRole::Learner => Role::Learner,
        ReplicaRole::Recovering => Role::Recovering,
    };
    v1::ReplicaStatus {
        shard: replica.shard.0,
        role: role as i32,
        leader: replica.leader.map_or(0, |node| node.0),
        term: replica.term.0,
        last_index: replica.last_index.0,
        commit_index: replica.commit_index.0,
        applied_index: replica.applied_index.0,
        revision: replica.revision.0,
        keys: replica.keys,
        bytes: replica.bytes,
        snapshot_index: replica.snapshot_index.0,
        state_digest: replica.state_digest,
        lane: replica.lane.0,
        fetch_bytes_done: replica.fetch_bytes_done,
        fetch_bytes_total: replica.fetch_bytes_total,
    }
}

pub(in crate::edge) fn lane_status(lane: &LaneStatus) -> v1::LaneStatus {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    v1::LaneStatus {
        lane: lane.lane.0,
        core: lane.core.0,
        log_bytes: lane.log_bytes,
        segments: lane.segments,
        last_write_us: micros(lane.last_write),
        oldest_pending_us: micros(lane.oldest_pending),
        poisoned: lane.poisoned,
        disk_full: lane.disk_full,
        damaged_total: lane.damaged_total,
        repaired_total: lane.repaired_total,
    }
}

/// What the stages of one core came to.
pub(in crate::edge) fn stage_statuses(
    (core, tallies): &(CoreId, Tallies),
) -> impl Iterator<Item = v1::StageStatus> {
    Stage::ALL.into_iter().zip(tallies).map(|(stage, tally)| v1::StageStatus {
        core: core.0,
        name: stage.name().to_owned(),
        is_work: stage.is_work(),
        times: tally.times,
        items: tally.items,
        total_us: u64::try_from(tally.total.as_micros()).unwrap_or(u64::MAX),
        times_by_log2_us: tally.buckets.to_vec(),
    })
}

pub(in crate::edge) fn shard_info(route: &ShardRoute, shards: u32) -> v1::ShardInfo {
    let slots = slot::slots_of(route.shard, shards);
    v1::ShardInfo {
        shard: route.shard.0,
        first_slot: u32::from(slots.start().0),
        last_slot: u32::from(slots.end().0),
        leader: route.leader.map_or(0, |node| node.0),
        voters: route.voters.iter().map(|node| node.0).collect(),
        learners: route.learners.iter().map(|node| node.0).collect(),
    }
}

/// The store answered another question.
pub(in crate::edge) fn another_kind(asked: &str) -> Status {
    let text = format!("{asked} was answered with another kind of answer; it may have been carried out");
    Status::new(Code::Unknown, v1::Reason::OutcomeUnknown, text)
}
