//! One stream: what it asks for, in what time, and its answer. One task, that ends when the client gives up.
//!
//! The tasks of unary calls are small, since a task is moved several times before it runs: what the rarer,
//! larger kinds of streams need is boxed.
//!
//! Invariants:
//! - Whatever a client sends, its stream ends in a status, an HTTP error or a reset, never in silence.
//! - A unary call has a deadline, the client's or ours; a stream has the client's alone, and a time for an
//!   answer of which nothing is taken.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use super::Edge;
use super::budget::Budget;
use super::frame::{Messages, ReadError};
use super::head::{self, Refused};
use super::http2::{Body, RequestFields, Sender};
use super::method::{Method, Unary};
use super::reply::{Gone, Reply};
use super::service;
use super::status::Status;
use super::store::Store;
use crate::env::{Env, Instant};

/// Serves one stream.
pub(super) async fn serve<E: Env, S: Store>(
    edge: Edge<E, S>,
    budget: Budget,
    fields: RequestFields,
    (body, sender): (Body, Sender),
) {
    let reply = Reply::new(sender);
    let timeout = match head::check(&fields) {
        Ok(timeout) => timeout,
        Err(Refused::Http(status)) => return reply.http(status),
        Err(Refused::Grpc(status)) => return reply.fail(&status),
    };
    let path = fields.path.as_deref().unwrap_or_default();
    let Some(method) = Method::of_path(path, edge.inner.options.services) else {
        return reply.fail(&Status::unimplemented(format!("there is no method {path}")));
    };
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return reply.fail(&Status::deadline_exceeded());
    }
    let limits = edge.limits();
    let deadline = timeout.map(|timeout| edge.env().now() + timeout.min(limits.deadline_max));
    let messages = Messages::new(body, budget.clone(), limits.message_bytes_max);
    match method {
        Method::Unary(unary) => serve_unary(&edge, &budget, unary, messages, reply, deadline).await,
        Method::Scan => Box::pin(service::scan::serve(&edge, &budget, messages, reply, deadline)).await,
        Method::Pipeline => {
            Box::pin(service::pipeline::serve(&edge, &budget, messages, reply, deadline)).await
        }
        Method::HealthWatch => Box::pin(service::health::watch(&edge, messages, reply, deadline)).await,
        Method::Reflection => Box::pin(service::reflection::serve(&edge, messages, reply, deadline)).await,
        Method::Backup => {
            Box::pin(service::maintenance::backup(&edge, &budget, messages, reply, deadline)).await
        }
    }
}

async fn serve_unary<E: Env, S: Store>(
    edge: &Edge<E, S>,
    budget: &Budget,
    method: Unary,
    mut messages: Messages,
    mut reply: Reply,
    deadline: Option<Instant>,
) {
    let deadline = deadline.unwrap_or_else(|| edge.env().now() + edge.limits().deadline_default);
    let reading = messages.single();
    let message = match guard(edge.env(), Some(deadline), |context| reply.poll_gone(context), reading).await {
        Guarded::Done(Ok(message)) => message,
        Guarded::Done(Err(ReadError::Status(status))) => return reply.fail(&status),
        Guarded::Late => return reply.fail(&Status::deadline_exceeded()),
        Guarded::Done(Err(ReadError::Gone)) | Guarded::Gone => return,
    };
    // The store ends its calls by their deadline itself, which saves them a timer each.
    let limit = match method {
        Unary::Shard(_) => None,
        Unary::ClusterStatus | Unary::ClusterShards | Unary::Snapshot => Some(deadline),
        Unary::HealthCheck | Unary::HealthList => Some(deadline),
    };
    let answering = service::answer_unary(edge, method, message, deadline);
    match guard(edge.env(), limit, |context| reply.poll_gone(context), answering).await {
        Guarded::Done(Ok(frame)) => {
            let _held = budget.hold(frame.len());
            // An answer that the client does not take by then is dropped, and its stream with it.
            guard(edge.env(), Some(deadline), |_| Poll::Pending, reply.finish(frame)).await;
        }
        Guarded::Done(Err(status)) => reply.fail(&status),
        Guarded::Late => reply.fail(&Status::deadline_exceeded()),
        Guarded::Gone => {}
    }
}

/// What became of work whose client may give up and whose time may end.
pub(super) enum Guarded<T> {
    /// It was done.
    Done(T),
    /// Its time ended first.
    Late,
    /// Its client gave up first.
    Gone,
}

/// Does work until it is done, its client gives up, or its deadline passes. What is not done by then is
/// dropped.
pub(super) async fn guard<E: Env, T>(
    env: &E,
    deadline: Option<Instant>,
    mut poll_gone: impl FnMut(&mut Context<'_>) -> Poll<Gone>,
    work: impl Future<Output = T>,
) -> Guarded<T> {
    let mut work = pin!(work);
    let mut timer = pin!(None);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Guarded::Done(done));
        }
        if poll_gone(context).is_ready() {
            return Poll::Ready(Guarded::Gone);
        }
        // Most work is done by its first or second turn: a timer is made when it is known to be needed.
        if let Some(deadline) = deadline
            && timer.is_none()
        {
            timer.set(Some(env.sleep(deadline.since(env.now()))));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| Guarded::Late),
            None => Poll::Pending,
        }
    })
    .await
}
