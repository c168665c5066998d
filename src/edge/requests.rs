//! From the bytes of a stream to what is asked of a shard, apart from any connection: the way that the bytes
//! of a stranger take through this module, for tests that try every kind of bytes; and from what a shard
//! answered to the bytes of its message. Benches measure both.
//!
//! It deliberately serves nothing: a request that comes out here is asked of nobody.

use bytes::Bytes;
use prost::Message;

use super::budget::CoreBudget;
use super::convert::request::{self, Asked, Bounds};
use super::frame::{Assembly, Received};
use super::method::{Method, Services, Unary};
use super::service::answer_message;
use super::status::Status;
use crate::ids::{ClusterId, ShardId};
use crate::kv::Limits;
use crate::route::call::{Answered, Request};
use crate::wire::v1;

/// The calls of one message that go to one shard.
pub const UNARY_METHODS: [&str; 9] =
    ["Get", "Put", "Append", "Delete", "Txn", "Open", "KeepAlive", "Close", "Pipeline"];

/// What requests are held against.
#[derive(Clone, Copy, Debug)]
pub struct RequestBounds {
    /// Of keys, values and Txns.
    pub limits: Limits,
    /// The shards of the cluster, at least one.
    pub shards: u32,
    /// The most bytes of a message.
    pub message_bytes_max: usize,
    /// The most bytes of all messages that wait.
    pub in_flight_bytes_max: usize,
}

/// Reads a stream that came in these chunks as messages of one of [`UNARY_METHODS`], and what each asks of
/// which shard. The status is what the client would be told.
///
/// # Errors
/// The stream is cut, a message is too long or cannot be decoded, or it asks for what it may not.
pub fn requests_of(
    method: &str,
    chunks: impl IntoIterator<Item = Bytes>,
    bounds: &RequestBounds,
) -> Result<Vec<(ShardId, Request)>, Status> {
    let budget = CoreBudget::new(bounds.in_flight_bytes_max).connection(bounds.in_flight_bytes_max);
    let mut assembly = Assembly::new(budget, bounds.message_bytes_max);
    let mut requests = Vec::new();
    for chunk in chunks {
        assembly.put(chunk);
        while let Some(message) = assembly.take_message()? {
            let Asked { shard, request } = asked(method, message, bounds)?;
            requests.push((shard, request));
        }
    }
    match assembly.is_between_messages() {
        true => Ok(requests),
        false => Err(Status::invalid("the stream ended within a message")),
    }
}

/// What a shard answered to a call of this path, as the bytes of its message behind its prefix.
///
/// # Errors
/// No shard is asked by such a path, the answer is of another kind, or it is too long.
pub fn answer_of(
    path: &str,
    cluster: ClusterId,
    answered: Answered,
    bounds: &RequestBounds,
) -> Result<Bytes, Status> {
    match Method::of_path(path, Services::All) {
        Some(Method::Unary(Unary::Shard(call))) => {
            answer_message(call, cluster, answered, bounds.message_bytes_max)
        }
        Some(
            Method::Unary(_)
            | Method::Scan
            | Method::Pipeline
            | Method::Backup
            | Method::HealthWatch
            | Method::Reflection,
        )
        | None => Err(Status::unimplemented("no call of one message to one shard")),
    }
}

fn asked(method: &str, message: Received, bounds: &RequestBounds) -> Result<Asked, Status> {
    let held = &Bounds { limits: &bounds.limits, shards: bounds.shards };
    match method {
        "Get" => request::get(read(message)?, held),
        "Put" => request::put(read(message)?, held),
        "Append" => request::append(read(message)?, held),
        "Delete" => request::delete(read(message)?, held),
        "Txn" => request::txn(read(message)?, held),
        "Open" => request::open(read(message)?, held),
        "KeepAlive" => request::keep_alive(read(message)?, held),
        "Close" => request::close(read(message)?, held),
        "Pipeline" => {
            let v1::PipelineRequest { operation, .. } = read(message)?;
            request::operation(operation, held)
        }
        _ => Err(Status::unimplemented("no call of one message to one shard")),
    }
}

fn read<M: Message + Default>(message: Received) -> Result<M, Status> {
    message.decode().map(|(message, _held)| message)
}
