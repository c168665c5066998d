//! `KV/Scan`: the keys of all shards, merged, in pages.
//!
//! A key's shard says nothing about its place in the order, so every shard is asked for its next keys and the
//! parts are merged:
//!
//! ```text
//! shard 0   a  d  e │ more from f
//! shard 1   b  g    │ more from k      page: a b c d e, since shard 0's next key may come before g
//! shard 2   c       │ no more
//! ```
//!
//! Invariants:
//! - A key is sent when every shard that has more to give has a part in hand: none can come before it.
//! - A page says of every shard that gave it a part at which revision it was read.
//! - What is in hand is bounded by the limits of a page, shared among the shards, and one pair each.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use prost::Message as _;

use super::{Edge, encode};
use crate::edge::budget::Budget;
use crate::edge::convert::{answer, request};
use crate::edge::frame::{Messages, ReadError};
use crate::edge::reply::{Reply, Unsent};
use crate::edge::status::Status;
use crate::edge::store::Store;
use crate::edge::stream::{Guarded, guard};
use crate::env::{Env, Instant};
use crate::ids::ShardId;
use crate::kv::{KeyValue, Query, QueryAnswer, ScanKeys};
use crate::route::call::{Answered, Body, Consistency, Request};
use crate::wire::v1;

/// The least that a shard is asked for at a time, in bytes.
const PART_BYTES_MIN: usize = 4 << 10;

/// What a page's messages add to keys and values, for each pair and for each header.
const PAIR_OVERHEAD_BYTES: usize = 64;

/// Serves one Scan.
pub(in crate::edge) async fn serve<E: Env, S: Store>(
    edge: &Edge<E, S>,
    budget: &Budget,
    mut messages: Messages,
    mut reply: Reply,
    deadline: Option<Instant>,
) {
    let page_deadline = || deadline.unwrap_or_else(|| edge.env().now() + edge.limits().deadline_default);
    let begin = async {
        let message = messages.single().await?;
        let (message, _held) = message.decode::<v1::ScanRequest>().map_err(ReadError::Status)?;
        let mut scan = Scan::new(edge, message).map_err(ReadError::Status)?;
        let page = scan.page(edge, page_deadline()).await.map_err(ReadError::Status)?;
        Ok((scan, page))
    };
    let due = Some(page_deadline());
    let (mut scan, mut page) = match guard(edge.env(), due, |context| reply.poll_gone(context), begin).await {
        Guarded::Done(Ok(begun)) => begun,
        Guarded::Done(Err(ReadError::Status(status))) => return reply.fail(&status),
        Guarded::Late => return reply.fail(&Status::deadline_exceeded()),
        Guarded::Done(Err(ReadError::Gone)) | Guarded::Gone => return,
    };
    let Ok(mut answers) = reply.start(edge, deadline) else { return };
    let outcome = loop {
        if page.headers.is_empty() {
            break Ok(());
        }
        let frame = match encode(edge, &page) {
            Ok(frame) => frame,
            Err(status) => break Err(status),
        };
        let held = budget.hold(frame.len());
        match answers.send(frame).await {
            Ok(()) => drop(held),
            Err(Unsent::Late(status)) => break Err(status),
            Err(Unsent::Gone) => return,
        }
        let due = page_deadline();
        let next = scan.page(edge, due);
        match guard(edge.env(), Some(due), |context| answers.poll_gone(context), next).await {
            Guarded::Done(Ok(next)) if next.kvs.is_empty() => break Ok(()),
            Guarded::Done(Ok(next)) => page = next,
            Guarded::Done(Err(status)) => break Err(status),
            Guarded::Late => break Err(Status::deadline_exceeded()),
            Guarded::Gone => return,
        }
    };
    answers.finish(outcome);
}

/// A Scan in progress.
struct Scan {
    end: Bytes,
    /// Keys that may still be sent; `None`: no limit.
    left: Option<u64>,
    keys: ScanKeys,
    consistency: Consistency,
    parts: Vec<Part>,
}

/// What is in hand of one shard.
struct Part {
    shard: ShardId,
    kvs: VecDeque<KeyValue>,
    /// Where its next part begins; `None`: it has no more.
    more: Option<Bytes>,
    header: Option<v1::ResponseHeader>,
    /// The header has to be in the page that is being made.
    is_of_page: bool,
}

impl Part {
    fn needs_more(&self) -> bool {
        self.kvs.is_empty() && self.more.is_some()
    }
}

impl Scan {
    fn new<E: Env, S: Store>(edge: &Edge<E, S>, message: v1::ScanRequest) -> Result<Self, Status> {
        let consistency = request::consistency(message.consistency)?;
        let check = Query::Scan {
            start: message.start.clone(),
            end: message.end.clone(),
            limit: 0,
            bytes_max: 0,
            keys: ScanKeys::Whole,
        };
        check.check(edge.kv_limits()).map_err(|refusal| Status::of_refusal(&refusal))?;
        let part = |shard| Part {
            shard: ShardId(shard),
            kvs: VecDeque::new(),
            more: Some(message.start.clone()),
            header: None,
            is_of_page: false,
        };
        let is_empty = !message.end.is_empty() && message.start >= message.end;
        let shards = if is_empty { 0 } else { edge.store().identity().shards };
        Ok(Self {
            end: message.end,
            left: (message.limit > 0).then_some(message.limit),
            keys: if message.keys_only { ScanKeys::KeysOnly } else { ScanKeys::Whole },
            consistency,
            parts: (0..shards).map(part).collect(),
        })
    }

    /// The next page; an empty one when there is no more.
    async fn page<E: Env, S: Store>(
        &mut self,
        edge: &Edge<E, S>,
        deadline: Instant,
    ) -> Result<v1::ScanResponse, Status> {
        let limits = *edge.limits();
        let mut page = v1::ScanResponse::default();
        let mut bytes = 0;
        while self.left != Some(0)
            && page.kvs.len() < limits.scan_keys_max as usize
            && bytes < limits.scan_bytes_max
        {
            self.refill(edge, deadline).await?;
            let Some(kv) = self.take_smallest() else { break };
            bytes += kv.key.len() + kv.value.len() + PAIR_OVERHEAD_BYTES;
            page.kvs.push(answer::key_value(kv));
            self.left = self.left.map(|left| left - 1);
        }
        page.headers = self.take_headers();
        assert!(bytes <= limits.scan_bytes_max + largest_pair(edge), "a page of {bytes} bytes");
        debug_assert!(page.encoded_len() <= bytes + page.headers.len() * PAIR_OVERHEAD_BYTES);
        Ok(page)
    }

    /// Asks every shard that has more to give and nothing in hand, until it has something in hand or no more
    /// to give: a part without a key only says that many deleted ones were passed.
    async fn refill<E: Env, S: Store>(&mut self, edge: &Edge<E, S>, deadline: Instant) -> Result<(), Status> {
        while self.parts.iter().any(Part::needs_more) {
            self.ask(edge, deadline).await?;
        }
        Ok(())
    }

    /// Asks every shard that has more to give and nothing in hand, some at a time.
    async fn ask<E: Env, S: Store>(&mut self, edge: &Edge<E, S>, deadline: Instant) -> Result<(), Status> {
        let cluster = edge.store().identity().cluster;
        let wanted: Vec<usize> = (0..self.parts.len()).filter(|at| self.parts[*at].needs_more()).collect();
        for group in wanted.chunks(edge.limits().scan_parallel_max) {
            let calls = group.iter().map(|at| {
                let part = &self.parts[*at];
                edge.store().call(part.shard, self.request(edge, part), deadline)
            });
            let answers = join_all(calls).await;
            for (at, answered) in group.iter().zip(answers) {
                let answered = answered.map_err(|failure| Status::of_failure(&failure))?;
                self.parts[*at].header = Some(answer::header(cluster, &answered));
                self.parts[*at].take(answered)?;
            }
        }
        Ok(())
    }

    fn request<E: Env, S: Store>(&self, edge: &Edge<E, S>, part: &Part) -> Request {
        let limits = edge.limits();
        let bytes_max = (limits.scan_bytes_max / self.parts.len()).max(PART_BYTES_MIN);
        let left = self.left.map_or(limits.scan_keys_max, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let query = Query::Scan {
            start: part.more.clone().unwrap_or_default(),
            end: self.end.clone(),
            limit: left.min(limits.scan_keys_max),
            bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
            keys: self.keys,
        };
        Request::Query { query, consistency: self.consistency }
    }

    fn take_smallest(&mut self) -> Option<KeyValue> {
        let fronts = self.parts.iter_mut().filter(|part| !part.kvs.is_empty());
        let part = fronts.min_by(|one, other| one.kvs[0].key.cmp(&other.kvs[0].key))?;
        part.is_of_page = true;
        part.kvs.pop_front()
    }

    fn take_headers(&mut self) -> Vec<v1::ResponseHeader> {
        let parts = self.parts.iter_mut();
        parts
            .filter_map(|part| std::mem::take(&mut part.is_of_page).then_some(part.header).flatten())
            .collect()
    }
}

impl Part {
    fn take(&mut self, answered: Answered) -> Result<(), Status> {
        let Body::Query(QueryAnswer::Scan { kvs, more }) = answered.body else {
            return Err(answer::another_kind("Scan"));
        };
        self.is_of_page = true;
        self.kvs = kvs.into();
        self.more = more;
        Ok(())
    }
}

fn largest_pair<E: Env, S: Store>(edge: &Edge<E, S>) -> usize {
    let limits = edge.kv_limits();
    limits.key_bytes_max + limits.value_bytes_max + PAIR_OVERHEAD_BYTES
}

/// Waits for some futures at once; what each came to, in their order.
async fn join_all<T, F: Future<Output = T>>(futures: impl Iterator<Item = F>) -> Vec<T> {
    let mut waiting: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut is_done = true;
        for (future, slot) in waiting.iter_mut().zip(&mut done) {
            if slot.is_none() {
                *slot = match future.as_mut().poll(context) {
                    Poll::Ready(value) => Some(value),
                    Poll::Pending => None,
                };
                is_done &= slot.is_some();
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
