//! `KV/Pipeline`: many operations on one stream, answered as they complete.
//!
//! ```text
//! stream ─► reader: decode, check, submit in order ─► Store ─► a task for each operation
//!                                                                 │ its answer
//! stream ◄─ writer: whatever has gathered, in one go ◄── gathered ┘
//! ```
//!
//! Invariants:
//! - Operations are submitted in the order in which they came; an operation refused here is answered before
//!   the next one is looked at.
//! - What waits is bounded in number and bytes: at a limit the stream is not read, which closes its window.
//! - The stream ends after every operation that was read has been answered; UNAVAILABLE at its end therefore
//!   says the truth of those that were not read. Where the client does not take the answers it ends before,
//!   with a status that says nothing of any operation.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::Edge;
use crate::edge::budget::{Budget, Held};
use crate::edge::convert::answer;
use crate::edge::convert::request::{self, Asked, Bounds};
use crate::edge::frame::{self, Messages, ReadError, Received};
use crate::edge::reply::{Answers, Gone, Reply, Unsent};
use crate::edge::status::Status;
use crate::edge::store::{PipelineOrder as _, Store};
use crate::edge::stream::{Guarded, guard};
use crate::env::signal::Signal;
use crate::env::{Env, Instant};
use crate::ids::ClusterId;
use crate::route::call::{Answered, Failure};
use crate::wire::v1;
use v1::pipeline_response::Outcome;

/// Serves one Pipeline stream.
pub(in crate::edge) async fn serve<E: Env, S: Store>(
    edge: &Edge<E, S>,
    budget: &Budget,
    messages: Messages,
    reply: Reply,
    deadline: Option<Instant>,
) {
    let Ok(mut answers) = reply.start(edge, deadline) else { return };
    let gathered = Rc::new(Gathered::new(budget.clone()));
    let reader = read(edge, Rc::clone(&gathered), messages, deadline);
    if let Some(outcome) = run(reader, &gathered, &mut answers).await {
        answers.finish(outcome);
    }
    gathered.is_closed.set(true);
}

/// Runs reader and writer to their end; what the stream ends with, or `None` where its client is gone.
async fn run<E: Env>(
    reader: impl Future<Output = Result<(), ReadError>>,
    gathered: &Gathered,
    answers: &mut Answers<E>,
) -> Option<Result<(), Status>> {
    let mut reader = pin!(reader);
    let mut writer = pin!(write(gathered, answers));
    let mut read = None;
    poll_fn(|context| {
        if read.is_none()
            && let Poll::Ready(outcome) = reader.as_mut().poll(context)
        {
            gathered.is_read.set(true);
            gathered.changed.raise();
            read = Some(outcome);
        }
        if matches!(read, Some(Err(ReadError::Gone))) {
            return Poll::Ready(None);
        }
        match writer.as_mut().poll(context) {
            Poll::Ready(Ok(())) => match read.take() {
                Some(Err(ReadError::Status(status))) => Poll::Ready(Some(Err(status))),
                Some(Ok(())) => Poll::Ready(Some(Ok(()))),
                Some(Err(ReadError::Gone)) | None => Poll::Ready(None),
            },
            Poll::Ready(Err(Unsent::Late(status))) => Poll::Ready(Some(Err(status))),
            Poll::Ready(Err(Unsent::Gone)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What the operations in progress share: their answers as they gather, and how much there is of everything.
struct Gathered {
    budget: Budget,
    out: RefCell<BytesMut>,
    operations: Cell<usize>,
    bytes: Cell<usize>,
    /// There are answers, or no more will come.
    changed: Signal,
    /// There is room for another operation.
    room: Signal,
    is_read: Cell<bool>,
    /// The stream is over: answers that still come are dropped.
    is_closed: Cell<bool>,
}

/// An operation that was read and not answered, and the bytes that it holds.
struct Operation {
    tag: u64,
    bytes: usize,
    _held: Held,
}

impl Gathered {
    fn new(budget: Budget) -> Self {
        Self {
            budget,
            out: RefCell::default(),
            operations: Cell::new(0),
            bytes: Cell::new(0),
            changed: Signal::default(),
            room: Signal::default(),
            is_read: Cell::new(false),
            is_closed: Cell::new(false),
        }
    }

    fn begin(&self, tag: u64, bytes: usize, held: Held) -> Operation {
        self.operations.set(self.operations.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        Operation { tag, bytes, _held: held }
    }

    fn has_room(&self, operations_max: usize, bytes_max: usize) -> bool {
        self.operations.get() < operations_max && self.bytes.get() + self.out.borrow().len() < bytes_max
    }

    /// Ends an operation with what came of it.
    fn end(
        &self,
        operation: Operation,
        outcome: Result<v1::OperationResult, Status>,
        message_bytes_max: usize,
    ) {
        assert!(self.operations.get() > 0, "operation {} ended of none", operation.tag);
        self.operations.set(self.operations.get() - 1);
        self.bytes.set(self.bytes.get() - operation.bytes);
        self.room.raise();
        self.changed.raise();
        if self.is_closed.get() {
            return;
        }
        let outcome = match outcome {
            Ok(result) => Outcome::Result(result),
            Err(status) => Outcome::Error(status.into_error()),
        };
        let mut response = v1::PipelineResponse { tag: operation.tag, outcome: Some(outcome) };
        let mut length = response.encoded_len();
        if length > message_bytes_max {
            let status = Status::limit("an answer", format_args!("{length} bytes"), message_bytes_max);
            response.outcome = Some(Outcome::Error(status.into_error()));
            length = response.encoded_len();
        }
        frame::encode_into(&response, length, &mut self.out.borrow_mut());
    }

    /// What has gathered; ready with `None` when nothing is left to come.
    fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if !self.out.borrow().is_empty() {
                self.room.raise();
                return Poll::Ready(Some(self.out.borrow_mut().split().freeze()));
            }
            if self.is_read.get() && self.operations.get() == 0 {
                return Poll::Ready(None);
            }
            if pin!(self.changed.wait()).poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Sends answers as they gather, until none is left to come.
async fn write<E: Env>(gathered: &Gathered, answers: &mut Answers<E>) -> Result<(), Unsent> {
    loop {
        let taken = poll_fn(|context| match answers.poll_gone(context) {
            Poll::Ready(gone) => Poll::Ready(Err(gone)),
            Poll::Pending => gathered.poll_take(context).map(Ok),
        });
        let Some(frames) = taken.await? else { return Ok(()) };
        let _held = gathered.budget.hold(frames.len());
        answers.send(frames).await?;
    }
}

/// Reads operations and submits them, until the client ends the stream, the core goes away or the time is
/// over.
async fn read<E: Env, S: Store>(
    edge: &Edge<E, S>,
    gathered: Rc<Gathered>,
    mut messages: Messages,
    deadline: Option<Instant>,
) -> Result<(), ReadError> {
    let order = edge.store().pipeline();
    let limits = *edge.limits();
    let mut begun = pin!(edge.inner.drain.begun());
    loop {
        while !gathered.has_room(limits.pipeline_operations_max, limits.pipeline_bytes_max) {
            gathered.room.wait().await;
        }
        let next = guard(
            edge.env(),
            deadline,
            |context| begun.as_mut().poll(context).map(|_| Gone),
            messages.next(),
        );
        let message = match next.await {
            Guarded::Done(Ok(Some(message))) => message,
            Guarded::Done(Ok(None)) => return Ok(()),
            Guarded::Done(Err(error)) => return Err(error),
            Guarded::Late => return Err(ReadError::Status(Status::deadline_exceeded())),
            // Of the drain, that is: a client that is gone ends the reading.
            Guarded::Gone => return Err(ReadError::Status(Status::shutting_down())),
        };
        submit(edge, &gathered, &order, message, deadline).map_err(ReadError::Status)?;
    }
}

/// Submits one operation, and starts the task that answers it.
fn submit<E: Env, S: Store>(
    edge: &Edge<E, S>,
    gathered: &Rc<Gathered>,
    order: &S::Pipeline,
    message: Received,
    deadline: Option<Instant>,
) -> Result<(), Status> {
    let bytes = message.bytes.len();
    let (message, held) = message.decode::<v1::PipelineRequest>()?;
    let identity = edge.store().identity();
    let bounds = Bounds { limits: edge.kv_limits(), shards: identity.shards };
    let operation = gathered.begin(message.tag, bytes, held);
    let message_bytes_max = edge.limits().message_bytes_max;
    let Asked { shard, request } = match request::operation(message.operation, &bounds) {
        Ok(asked) => asked,
        Err(status) => {
            gathered.end(operation, Err(status), message_bytes_max);
            return Ok(());
        }
    };
    let deadline = deadline.unwrap_or_else(|| edge.env().now() + edge.limits().deadline_default);
    let answer = order.submit(shard, request, deadline);
    let gathered = Rc::clone(gathered);
    edge.env().spawn(async move {
        let outcome = outcome(identity.cluster, answer.await);
        gathered.end(operation, outcome, message_bytes_max);
    });
    Ok(())
}

fn outcome(cluster: ClusterId, answer: Result<Answered, Failure>) -> Result<v1::OperationResult, Status> {
    match answer {
        Ok(answered) => answer::operation(cluster, answered),
        Err(failure) => Err(Status::of_failure(&failure)),
    }
}
