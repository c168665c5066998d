//! `grpc.health.v1.Health`: whether the node, a service or a shard is served.
//!
//! The rules are the standard's: Check of an unknown service is NOT_FOUND, Watch of one says SERVICE_UNKNOWN
//! and goes on, since the service may come. A Watch says each status once, and ends when the core goes away.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;

use super::{Edge, encode};
use crate::edge::frame::{Messages, ReadError, Received};
use crate::edge::reply::{Answers, Reply, Unsent};
use crate::edge::status::{Code, Status};
use crate::edge::store::{Serving, Store};
use crate::edge::stream::{Guarded, guard};
use crate::env::{Env, Instant};
use crate::wire::health as wire;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::v1::Reason;

/// `Check`.
pub(in crate::edge) fn check<E: Env, S: Store>(
    edge: &Edge<E, S>,
    message: Received,
) -> Result<Bytes, Status> {
    let (wire::HealthCheckRequest { service }, _held) = message.decode()?;
    match edge.store().health(&service) {
        Some(serving) => encode(edge, &response(known(serving))),
        None => Err(Status::new(Code::NotFound, Reason::Unspecified, format!("unknown service {service:?}"))),
    }
}

/// `List`.
pub(in crate::edge) fn list<E: Env, S: Store>(edge: &Edge<E, S>, message: Received) -> Result<Bytes, Status> {
    let (wire::HealthListRequest {}, _held) = message.decode()?;
    let names = edge.store().health_names().into_iter();
    let statuses = names.filter_map(|name| {
        let serving = edge.store().health(&name)?;
        Some((name, response(known(serving))))
    });
    encode(edge, &wire::HealthListResponse { statuses: statuses.collect() })
}

/// `Watch`.
pub(in crate::edge) async fn watch<E: Env, S: Store>(
    edge: &Edge<E, S>,
    mut messages: Messages,
    mut reply: Reply,
    deadline: Option<Instant>,
) {
    // Without a deadline of the client, the request itself still has to come in time.
    let in_time = deadline.unwrap_or_else(|| edge.env().now() + edge.limits().deadline_default);
    let first = guard(edge.env(), Some(in_time), |context| reply.poll_gone(context), messages.single()).await;
    let request = match first {
        Guarded::Done(Ok(message)) => message.decode::<wire::HealthCheckRequest>(),
        Guarded::Done(Err(ReadError::Status(status))) => Err(status),
        Guarded::Late => Err(Status::deadline_exceeded()),
        Guarded::Done(Err(ReadError::Gone)) | Guarded::Gone => return,
    };
    let service = match request {
        Ok((request, _held)) => request.service,
        Err(status) => return reply.fail(&status),
    };
    let Ok(mut answers) = reply.start(edge, deadline) else { return };
    if let Some(status) = follow(edge, &service, &mut answers, deadline).await {
        answers.finish(Err(status));
    }
}

/// Sends each new status of a service; what the stream ends with, or `None` where its client is gone.
async fn follow<E: Env, S: Store>(
    edge: &Edge<E, S>,
    service: &str,
    answers: &mut Answers<E>,
    deadline: Option<Instant>,
) -> Option<Status> {
    let mut said = None;
    loop {
        // The version first: what changes after it was read ends the wait below.
        let version = edge.store().health_version();
        let status = edge.store().health(service).map_or(ServingStatus::ServiceUnknown, known);
        if said != Some(status) {
            said = Some(status);
            let frame = match encode(edge, &response(status)) {
                Ok(frame) => frame,
                Err(status) => return Some(status),
            };
            match answers.send(frame).await {
                Ok(()) => {}
                Err(Unsent::Late(status)) => return Some(status),
                Err(Unsent::Gone) => return None,
            }
        }
        let changed = changed_or_draining(edge, version);
        match guard(edge.env(), deadline, |context| answers.poll_gone(context), changed).await {
            Guarded::Done(true) => {}
            Guarded::Done(false) => return Some(Status::shutting_down()),
            Guarded::Late => return Some(Status::deadline_exceeded()),
            Guarded::Gone => return None,
        }
    }
}

/// Waits for another version of the store's health: true; or for the core to go away: false.
async fn changed_or_draining<E: Env, S: Store>(edge: &Edge<E, S>, seen: u64) -> bool {
    let mut changed = pin!(edge.store().health_changed(seen));
    let mut begun = pin!(edge.inner.drain.begun());
    poll_fn(|context| {
        // A change that comes with the drain is said before the stream ends.
        if changed.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        begun.as_mut().poll(context).map(|_| false)
    })
    .await
}

fn known(serving: Serving) -> ServingStatus {
    match serving {
        Serving::Yes => ServingStatus::Serving,
        Serving::No => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> wire::HealthCheckResponse {
    wire::HealthCheckResponse { status: status as i32 }
}
