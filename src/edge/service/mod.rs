//! What each method does: from a message as it came to an answer as it leaves.
//!
//! Methods with one message each way are served here, by [`answer_unary`]; each streaming one has its own
//! module. None of them knows of h2 but through [`Messages`](super::frame::Messages) and
//! [`Reply`](super::reply::Reply).

use bytes::Bytes;
use prost::Message;

use super::Edge;
use super::convert::answer;
use super::convert::request::{self, Asked, Bounds};
use super::frame::{self, Received};
use super::method::Unary;
use super::status::Status;
use super::store::Store;
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
        Unary::Get => ask(edge, message, deadline, request::get, answer::get).await,
        Unary::Put => ask(edge, message, deadline, request::put, answer::put).await,
        Unary::Append => ask(edge, message, deadline, request::append, answer::append).await,
        Unary::Delete => ask(edge, message, deadline, request::delete, answer::delete).await,
        Unary::Txn => ask(edge, message, deadline, request::txn, answer::txn).await,
        Unary::SessionOpen => ask(edge, message, deadline, request::open, answer::opened).await,
        Unary::SessionKeepAlive => {
            ask(edge, message, deadline, request::keep_alive, answer::kept_alive).await
        }
        Unary::SessionClose => ask(edge, message, deadline, request::close, answer::closed).await,
        Unary::TransferLeadership => {
            ask(edge, message, deadline, request::transfer, answer::transferred).await
        }
        Unary::ClusterStatus => cluster::status(edge, message).await,
        Unary::ClusterShards => cluster::shards(edge, message),
        Unary::Snapshot => maintenance::snapshot(edge, message, deadline).await,
        Unary::HealthCheck => health::check(edge, message),
        Unary::HealthList => health::list(edge, message),
    }
}

/// Asks one shard: decodes, checks, calls, encodes.
async fn ask<E, S, M, R>(
    edge: &Edge<E, S>,
    message: Received,
    deadline: Instant,
    to_request: fn(M, &Bounds<'_>) -> Result<Asked, Status>,
    to_response: fn(ClusterId, Answered) -> Result<R, Status>,
) -> Result<Bytes, Status>
where
    E: Env,
    S: Store,
    M: Message + Default,
    R: Message,
{
    let (message, _held) = message.decode::<M>()?;
    let identity = edge.store().identity();
    let bounds = Bounds { limits: edge.kv_limits(), shards: identity.shards };
    let Asked { shard, request } = to_request(message, &bounds)?;
    let answered = edge.store().call(shard, request, deadline).await;
    let answered = answered.map_err(|failure| Status::of_failure(&failure))?;
    encode(edge, &to_response(identity.cluster, answered)?)
}

/// A message as it leaves.
fn encode<E: Env, S: Store>(edge: &Edge<E, S>, message: &impl Message) -> Result<Bytes, Status> {
    frame::encode(message, edge.limits().message_bytes_max)
}
