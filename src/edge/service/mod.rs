//! What each method does: from a message as it came to an answer as it leaves.
//!
//! Methods with one message each way are served here, by [`answer_unary`]; each streaming one has its own
//! module. None of them knows of HTTP/2 but through [`Messages`](super::frame::Messages) and
//! [`Reply`](super::reply::Reply).

use bytes::Bytes;
use prost::Message;

use super::Edge;
use super::budget::Held;
use super::convert::answer;
use super::convert::request::{self, Asked, Bounds};
use super::frame::{self, Received};
use super::method::{ShardCall, Unary};
use super::status::Status;
use super::store::Store;
use crate::env::stages::Stage;
use crate::env::{Env, Instant};
use crate::ids::ClusterId;
use crate::route::call::Answered;

pub(super) mod cluster;
pub(super) mod health;
pub(super) mod maintenance;
pub(super) mod pipeline;
pub(super) mod reflection;
pub(super) mod scan;

/// Answers a call that has one message each way.
pub(super) async fn answer_unary<E: Env, S: Store>(
    edge: &Edge<E, S>,
    method: Unary,
    message: Received,
    deadline: Instant,
) -> Result<Bytes, Status> {
    match method {
        Unary::Shard(call) => ask(edge, call, message, deadline).await,
        Unary::ClusterStatus => Box::pin(cluster::status(edge, message)).await,
        Unary::ClusterShards => cluster::shards(edge, message),
        Unary::Snapshot => Box::pin(maintenance::snapshot(edge, message, deadline)).await,
        Unary::HealthCheck => health::check(edge, message),
        Unary::HealthList => health::list(edge, message),
    }
}

/// Asks one shard: decodes, checks, calls, encodes. Whatever the call, only what asks waits, so that the
/// task of every stream is small.
async fn ask<E: Env, S: Store>(
    edge: &Edge<E, S>,
    call: ShardCall,
    message: Received,
    deadline: Instant,
) -> Result<Bytes, Status> {
    let now = || edge.env().now();
    let stages = edge.store().stages();
    let (Asked { shard, request }, _held) =
        stages.sample(Stage::Decode, now, || asked(edge, call, message))?;
    let answered = edge.store().call(shard, request, deadline).await;
    let answered = answered.map_err(|failure| Status::of_failure(&failure))?;
    stages.sample(Stage::Encode, now, || answer(edge, call, answered))
}

/// What a message asks of which shard.
fn asked<E: Env, S: Store>(
    edge: &Edge<E, S>,
    call: ShardCall,
    message: Received,
) -> Result<(Asked, Held), Status> {
    match call {
        ShardCall::Get => decode(edge, message, request::get),
        ShardCall::Put => decode(edge, message, request::put),
        ShardCall::Append => decode(edge, message, request::append),
        ShardCall::Delete => decode(edge, message, request::delete),
        ShardCall::Txn => decode(edge, message, request::txn),
        ShardCall::SessionOpen => decode(edge, message, request::open),
        ShardCall::SessionKeepAlive => decode(edge, message, request::keep_alive),
        ShardCall::SessionClose => decode(edge, message, request::close),
        ShardCall::TransferLeadership => decode(edge, message, request::transfer),
    }
}

/// What a shard said, as it leaves.
fn answer<E: Env, S: Store>(edge: &Edge<E, S>, call: ShardCall, answered: Answered) -> Result<Bytes, Status> {
    let cluster = edge.store().identity().cluster;
    answer_message(call, cluster, answered, edge.limits().message_bytes_max)
}

/// The same, apart from any edge: the message of an answer behind its prefix.
pub(super) fn answer_message(
    call: ShardCall,
    cluster: ClusterId,
    answered: Answered,
    bytes_max: usize,
) -> Result<Bytes, Status> {
    match call {
        ShardCall::Get => frame::encode(&answer::get(cluster, answered)?, bytes_max),
        ShardCall::Put => frame::encode(&answer::put(cluster, answered)?, bytes_max),
        ShardCall::Append => frame::encode(&answer::append(cluster, answered)?, bytes_max),
        ShardCall::Delete => frame::encode(&answer::delete(cluster, answered)?, bytes_max),
        ShardCall::Txn => frame::encode(&answer::txn(cluster, answered)?, bytes_max),
        ShardCall::SessionOpen => frame::encode(&answer::opened(cluster, answered)?, bytes_max),
        ShardCall::SessionKeepAlive => frame::encode(&answer::kept_alive(cluster, answered)?, bytes_max),
        ShardCall::SessionClose => frame::encode(&answer::closed(cluster, answered)?, bytes_max),
        ShardCall::TransferLeadership => frame::encode(&answer::transferred(cluster, answered)?, bytes_max),
    }
}

/// Decodes a message, and checks what it asks.
fn decode<E: Env, S: Store, M: Message + Default>(
    edge: &Edge<E, S>,
    message: Received,
    to_request: impl FnOnce(M, &Bounds<'_>) -> Result<Asked, Status>,
) -> Result<(Asked, Held), Status> {
    let (message, held) = message.decode::<M>()?;
    let bounds = Bounds { limits: edge.kv_limits(), shards: edge.store().identity().shards };
    Ok((to_request(message, &bounds)?, held))
}

/// A message as it leaves.
fn encode<E: Env, S: Store>(edge: &Edge<E, S>, message: &impl Message) -> Result<Bytes, Status> {
    frame::encode(message, edge.limits().message_bytes_max)
}
