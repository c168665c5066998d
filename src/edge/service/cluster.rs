//! `Cluster`: what a node knows of itself and of the others.

use bytes::Bytes;

use super::{Edge, encode};
use crate::edge::convert::answer;
use crate::edge::frame::Received;
use crate::edge::status::Status;
use crate::edge::store::Store;
use crate::env::Env;
use crate::wire::v1;

/// `Cluster/Status`.
pub(in crate::edge) async fn status<E: Env, S: Store>(
    edge: &Edge<E, S>,
    message: Received,
) -> Result<Bytes, Status> {
    let (v1::StatusRequest {}, _held) = message.decode()?;
    let identity = edge.store().identity();
    let status = edge.store().status().await;
    let response = v1::StatusResponse {
        cluster_id: identity.cluster.0,
        node_id: identity.node.0,
        version: status.version,
        replicas: status.replicas.iter().map(answer::replica_status).collect(),
        uptime_ms: u64::try_from(status.uptime.as_millis()).unwrap_or(u64::MAX),
        lanes: status.lanes.iter().map(answer::lane_status).collect(),
        profile: status.profile,
        stages: status.stages.iter().flat_map(answer::stage_statuses).collect(),
    };
    encode(edge, &response)
}

/// `Cluster/Shards`.
pub(in crate::edge) fn shards<E: Env, S: Store>(
    edge: &Edge<E, S>,
    message: Received,
) -> Result<Bytes, Status> {
    let (v1::ShardsRequest {}, _held) = message.decode()?;
    let shards = edge.store().identity().shards;
    let routing = edge.store().routing();
    let nodes = routing.nodes.into_iter();
    let response = v1::ShardsResponse {
        shards: routing.shards.iter().map(|route| answer::shard_info(route, shards)).collect(),
        nodes: nodes.map(|node| v1::NodeInfo { node_id: node.node.0, address: node.address }).collect(),
    };
    encode(edge, &response)
}
