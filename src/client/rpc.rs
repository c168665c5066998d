//! One sending over tonic: the request goes out, and how it ended comes back as the policy's event.
//!
//! Invariants:
//! - A status is judged by [`status::judge`] alone, but for one case: where the connector itself failed, the
//!   sending never left.
//! - A stream of a scan is read until enough bytes are taken, and then dropped.

use std::error::Error as _;
use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;

use crate::client::message::{Answer, AttemptId, Event, Request};
use crate::client::operation::{Operation, Reply, StreamEnd};
use crate::client::routing::{ShardPlace, Table};
use crate::client::status::{self, Verdict};
use crate::ids::{NodeId, SessionId, ShardId};
use crate::wire::v1;
use crate::wire::v1::cluster_client::ClusterClient;
use crate::wire::v1::kv_client::KvClient;
use crate::wire::v1::maintenance_client::MaintenanceClient;
use crate::wire::v1::session_client::SessionClient;

/// The largest message that is taken in: the contract's 4 MiB, and room for its frame.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024 + 64 * 1024;

/// Sends once, and says how it ended.
pub(super) async fn attempt(
    channel: Channel,
    attempt: AttemptId,
    request: Request<Operation>,
    timeout: Duration,
) -> Event<Reply> {
    match tokio::time::timeout(timeout, send(channel, request, timeout)).await {
        Ok(Ok(answer)) => Event::Answered { attempt, answer },
        Ok(Err(status)) => event_of(attempt, &status),
        Err(_) => Event::Lost { attempt, detail: "no answer in time".to_owned() },
    }
}

/// What a status says of the sending, as an event.
fn event_of(attempt: AttemptId, status: &Status) -> Event<Reply> {
    if never_left(status) {
        return Event::Unreached { attempt, detail: status.message().to_owned() };
    }
    match verdict_of(status) {
        Verdict::Refused(refusal) => Event::Refused { attempt, refusal },
        Verdict::Unknown { leader, detail } => Event::Unknown { attempt, leader, detail },
        Verdict::Lost { detail } => Event::Lost { attempt, detail },
    }
}

/// Judges a status of tonic.
pub(super) fn verdict_of(status: &Status) -> Verdict {
    let trailer = status.metadata().get_bin(status::TRAILER).and_then(|value| value.to_bytes().ok());
    let text = format!("{:?}: {}", status.code(), status.message());
    status::judge(status.code().into(), &text, trailer.as_deref())
}

/// Whether no connection came about, so that nothing was sent.
pub(super) fn never_left(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A request that carries its deadline.
pub(super) fn timed<M>(message: M, timeout: Duration) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Sends whatever it is, and turns the wire's answer into the policy's.
async fn send(
    channel: Channel,
    request: Request<Operation>,
    timeout: Duration,
) -> Result<Answer<Reply>, Status> {
    match request {
        Request::Call { payload, stamp } => {
            let answer = send_call(channel, payload.stamped(stamp), timeout).await?;
            let served_by = answer.served_by();
            Ok(Answer::Call { answer, served_by })
        }
        Request::Open { key, ttl } => {
            let request = v1::OpenSessionRequest { ttl_ms: millis(ttl), key };
            let opened = SessionClient::new(channel).open(timed(request, timeout)).await?.into_inner();
            Ok(Answer::Opened {
                session: SessionId(opened.session),
                ttl: Duration::from_millis(opened.ttl_ms),
                shard: ShardId(opened.shard),
            })
        }
        Request::KeepAlive { session, acknowledged } => {
            let request = v1::KeepAliveRequest { session: session.0, acknowledged: acknowledged.0 };
            let kept = SessionClient::new(channel).keep_alive(timed(request, timeout)).await?.into_inner();
            Ok(Answer::KeptAlive { ttl: Duration::from_millis(kept.ttl_ms) })
        }
        Request::Close { session } => {
            let request = v1::CloseSessionRequest { session: session.0 };
            SessionClient::new(channel).close(timed(request, timeout)).await?;
            Ok(Answer::Closed)
        }
        Request::Shards => Ok(Answer::Table(table_of(shards(channel, timeout).await?)?)),
    }
}

/// Sends a caller's operation.
async fn send_call(channel: Channel, operation: Operation, timeout: Duration) -> Result<Reply, Status> {
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(match operation {
        Operation::Get(request) => Reply::Get(kv.get(timed(request, timeout)).await?.into_inner()),
        Operation::Put(request) => Reply::Put(kv.put(timed(request, timeout)).await?.into_inner()),
        Operation::Append(request) => Reply::Append(kv.append(timed(request, timeout)).await?.into_inner()),
        Operation::Delete(request) => Reply::Delete(kv.delete(timed(request, timeout)).await?.into_inner()),
        Operation::Txn(request) => Reply::Txn(kv.txn(timed(request, timeout)).await?.into_inner()),
        Operation::ScanPart { request, bytes_max } => {
            let pages = kv.scan(timed(request, timeout)).await?.into_inner();
            take_pages(pages, bytes_max).await?
        }
        Operation::Shards => Reply::Shards(shards(channel, timeout).await?),
        Operation::Transfer(request) => {
            let mut maintenance = MaintenanceClient::new(channel);
            Reply::Transfer(maintenance.transfer_leadership(timed(request, timeout)).await?.into_inner())
        }
    })
}

/// Reads pages until the stream ends or enough bytes are taken; at least one page.
async fn take_pages(
    mut pages: tonic::Streaming<v1::ScanResponse>,
    bytes_max: usize,
) -> Result<Reply, Status> {
    let mut kvs: Vec<v1::KeyValue> = Vec::new();
    let mut bytes = 0_usize;
    while let Some(page) = pages.message().await? {
        bytes += page.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
        kvs.extend(page.kvs);
        if bytes >= bytes_max {
            return Ok(Reply::ScanPart { kvs, ended: StreamEnd::Cut });
        }
    }
    Ok(Reply::ScanPart { kvs, ended: StreamEnd::Exhausted })
}

/// Asks a node for its routing table.
async fn shards(channel: Channel, timeout: Duration) -> Result<v1::ShardsResponse, Status> {
    let mut cluster = ClusterClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(cluster.shards(timed(v1::ShardsRequest {}, timeout)).await?.into_inner())
}

/// Checks a routing table. One that cannot be used is made into a status without the trailer: it says
/// nothing.
fn table_of(response: v1::ShardsResponse) -> Result<Table, Status> {
    let shards = response.shards.iter().map(|info| ShardPlace {
        shard: ShardId(info.shard),
        first_slot: info.first_slot,
        last_slot: info.last_slot,
        leader: (info.leader != 0).then_some(NodeId(info.leader)),
    });
    let nodes = response.nodes.into_iter().map(|node| (NodeId(node.node_id), node.address));
    Table::new(shards.collect(), nodes.collect())
        .map_err(|fault| Status::internal(format!("the node's routing table cannot be used: {fault}")))
}

/// Whole milliseconds, as the contract counts.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
