//! `Maintenance/Snapshot` and `Maintenance/Backup`: tables on request, and all of them as one file.
//!
//! Invariants:
//! - A Backup that ends well is whole; one that cannot be made fails, and what was sent of it is no backup.
//! - A Backup leaves as the client takes it: one piece of it is in hand.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Edge, encode};
use crate::edge::budget::Budget;
use crate::edge::frame::{Messages, ReadError, Received};
use crate::edge::reply::{Reply, Unsent};
use crate::edge::status::{Code, Status};
use crate::edge::store::{BackupSource, Store};
use crate::edge::stream::{Guarded, guard};
use crate::env::{Env, Instant};
use crate::ids::ShardId;
use crate::shard::TableFailure;
use crate::wire::v1;
use crate::wire::v1::Reason;

/// `Maintenance/Snapshot`.
pub(in crate::edge) async fn snapshot<E: Env, S: Store>(
    edge: &Edge<E, S>,
    message: Received,
    deadline: Instant,
) -> Result<Bytes, Status> {
    let (v1::SnapshotRequest { shards }, _held) = message.decode()?;
    let count = edge.store().identity().shards;
    let asked: BTreeSet<u32> =
        if shards.is_empty() { (0..count).collect() } else { shards.into_iter().collect() };
    if let Some(unknown) = asked.last().filter(|last| **last >= count) {
        return Err(Status::invalid(format!(
            "there is no shard {unknown}: the cluster has {count}, from 0 on"
        )));
    }
    let asked = asked.into_iter().map(ShardId).collect();
    edge.store().snapshot(asked, deadline).await.map_err(|failure| status_of(&failure))?;
    encode(edge, &v1::SnapshotResponse {})
}

/// Serves one Backup.
pub(in crate::edge) async fn backup<E: Env, S: Store>(
    edge: &Edge<E, S>,
    budget: &Budget,
    mut messages: Messages,
    mut reply: Reply,
    deadline: Option<Instant>,
) {
    let asked = async {
        let message = messages.single().await?;
        let (v1::BackupRequest {}, _held) = message.decode().map_err(ReadError::Status)?;
        Ok(())
    };
    let due = deadline.unwrap_or_else(|| edge.env().now() + edge.limits().deadline_default);
    match guard(edge.env(), Some(due), |context| reply.poll_gone(context), asked).await {
        Guarded::Done(Ok(())) => {}
        Guarded::Done(Err(ReadError::Status(status))) => return reply.fail(&status),
        Guarded::Late => return reply.fail(&Status::deadline_exceeded()),
        Guarded::Done(Err(ReadError::Gone)) | Guarded::Gone => return,
    }
    let Some(_slot) = edge.take_backup_slot() else {
        let text = format!("{} backups are being made here", edge.limits().backups_max);
        return reply.fail(&Status::overloaded(text));
    };
    let Ok(mut answers) = reply.start(edge, deadline) else { return };
    let mut backup = edge.store().backup();
    let outcome = loop {
        let next = backup.next();
        let chunk = match guard(edge.env(), deadline, |context| answers.poll_gone(context), next).await {
            Guarded::Done(Ok(Some(chunk))) => chunk,
            Guarded::Done(Ok(None)) => break Ok(()),
            Guarded::Done(Err(failure)) => break Err(status_of(&failure)),
            Guarded::Late => break Err(Status::deadline_exceeded()),
            Guarded::Gone => return,
        };
        let frame = match encode(edge, &v1::BackupResponse { chunk }) {
            Ok(frame) => frame,
            Err(status) => break Err(status),
        };
        let held = budget.hold(frame.len());
        match answers.send(frame).await {
            Ok(()) => drop(held),
            Err(Unsent::Late(status)) => break Err(status),
            Err(Unsent::Gone) => return,
        }
    };
    answers.finish(outcome);
}

/// How a client sees it. None of them changes a key, so that another node may be asked at once.
fn status_of(failure: &TableFailure) -> Status {
    match failure {
        TableFailure::Read { failure, .. } => Status::of_failure(failure),
        TableFailure::Making { .. } => Status::deadline_exceeded(),
        TableFailure::Behind { .. } => {
            Status::new(Code::Unavailable, Reason::Unspecified, failure.to_string())
        }
        TableFailure::Busy { .. } => Status::overloaded(failure.to_string()),
        TableFailure::Unreadable { .. } => {
            tracing::error!(%failure, "a backup could not be made");
            Status::new(Code::Unavailable, Reason::Damaged, "this node's table is damaged: ask another node")
        }
    }
}
