//! What leaves a core and what arrives: replies to callers here at once, the rest by mesh to another core of
//! this node or by link to another node.
//!
//! Invariants:
//! - An answer always has room, if need be a short one: who waits hears. Of what else finds none raft's is
//!   sent again by raft, and of a call its origin is told.
//! - What is for another core of this node is passed on to it, from wherever it came.

use crate::env::{Env, Instant};
use crate::ids::{CoreId, NodeId};
use crate::route::call::{Failure, FailureKind};
use crate::route::parcel::{Call, Parcel, Reply};
use crate::shard::calls::{Moment, Sending};
use crate::shard::directory::News;
use crate::shard::event::{Event, MeshItem};
use crate::shard::replica::Output;

use super::Inner;

/// Items that wait for one other core. What finds no room is dropped or refused, as on a link.
const MESH_ITEMS_MAX: usize = 64 << 10;

impl<E: Env> Inner<E> {
    /// Carries on what the replicas left: replies to callers here at once, the rest to outbox and mesh.
    pub(super) fn route(&mut self, out: &mut Output, now: Instant) {
        let mut sendings = Vec::new();
        for (node, parcel) in std::mem::take(&mut out.parcels) {
            self.route_parcel(node, parcel, now, &mut sendings);
        }
        for news in std::mem::take(&mut out.news) {
            for core in (0..self.config.layout.cores).map(CoreId) {
                if core != self.config.core() {
                    self.push_mesh(core, MeshItem::News(news));
                }
            }
            self.learn(news, now, &mut sendings);
        }
        self.route_calls(sendings);
    }

    fn route_parcel(&mut self, node: NodeId, parcel: Parcel, now: Instant, sendings: &mut Vec<Sending>) {
        if node != self.config.node() {
            self.push_link(node, parcel);
            return;
        }
        match parcel {
            Parcel::Reply(reply) if reply.id.core == self.config.core() => {
                let Self { calls, directory, .. } = self;
                calls.reply(reply, &Moment { now, directory }, sendings);
            }
            parcel => {
                let core = self.core_for(&parcel);
                self.push_mesh(core, MeshItem::Parcel(parcel));
            }
        }
    }

    /// Leaves a parcel for another node. Of what finds no room raft's are sent again by raft, and a long
    /// answer is replaced by a short one, which always has room.
    pub(super) fn push_link(&mut self, node: NodeId, parcel: Parcel) {
        if let Err(Parcel::Reply(mut reply)) = self.links.push(node, parcel) {
            reply.shorten();
            let pushed = self.links.push(node, Parcel::Reply(reply));
            assert!(pushed.is_ok(), "a short reply to node {node} found no room");
        }
    }

    pub(super) fn learn(&mut self, news: News, now: Instant, sendings: &mut Vec<Sending>) {
        if self.directory.learn(news) {
            let Self { calls, directory, .. } = self;
            calls.leader_changed(news.shard, &Moment { now, directory }, sendings);
        }
    }

    /// Sends calls on their way: into the inbox where the replica is here, else to its core or node.
    pub(super) fn route_calls(&mut self, sendings: Vec<Sending>) {
        for (node, call) in sendings {
            let core = self.config.layout.core_of(call.shard);
            if node != self.config.node() {
                if let Err(Parcel::Call(call)) = self.links.push(node, Parcel::Call(call)) {
                    self.refuse_overload(&call);
                }
            } else if core == self.config.core() {
                self.inbox.push_back(Event::Parcel(Parcel::Call(call)));
            } else {
                self.push_mesh(core, MeshItem::Parcel(Parcel::Call(call)));
            }
        }
    }

    /// A call of this node found no room on its way: its core is told.
    fn refuse_overload(&mut self, call: &Call) {
        let outcome = Err(Failure::of(FailureKind::Overloaded));
        let reply = Parcel::Reply(Reply { id: call.id, outcome });
        if call.id.core == self.config.core() {
            self.inbox.push_back(Event::Parcel(reply));
        } else if call.id.core.0 < self.config.layout.cores {
            self.push_mesh(call.id.core, MeshItem::Parcel(reply));
        }
    }

    /// A parcel arrived by link or mesh: for this core, or to be passed on to another core of this node.
    pub(super) fn deliver(&mut self, parcel: Parcel) {
        let core = self.core_for(&parcel);
        if core != self.config.core() {
            return self.push_mesh(core, MeshItem::Parcel(parcel));
        }
        if self.inbox.len() < self.config.limits.inbox_max || matches!(parcel, Parcel::Reply(_)) {
            return self.inbox.push_back(Event::Parcel(parcel));
        }
        if let Parcel::Call(call) = parcel {
            self.answer_overload(&call);
        }
    }

    /// The core of this node that a parcel is for.
    fn core_for(&self, parcel: &Parcel) -> CoreId {
        let layout = &self.config.layout;
        let own = self.config.core();
        match parcel {
            Parcel::Raft { shard, .. } if shard.0 < layout.shards => layout.core_of(*shard),
            Parcel::Call(call) if call.shard.0 < layout.shards => layout.core_of(call.shard),
            Parcel::Reply(reply) if reply.id.core.0 < layout.cores => reply.id.core,
            Parcel::TableAsk(ask) if ask.shard.0 < layout.shards => layout.core_of(ask.shard),
            Parcel::TablePart(part) if part.core.0 < layout.cores => part.core,
            Parcel::Digests(told) if told.shard.0 < layout.shards => layout.core_of(told.shard),
            Parcel::Rebuild(told) if told.shard.0 < layout.shards => layout.core_of(told.shard),
            Parcel::Raft { .. }
            | Parcel::Call(_)
            | Parcel::Reply(_)
            | Parcel::TableAsk(_)
            | Parcel::TablePart(_)
            | Parcel::Digests(_)
            | Parcel::Rebuild(_) => own,
        }
    }

    pub(super) fn push_mesh(&mut self, core: CoreId, item: MeshItem) {
        assert!(core != self.config.core(), "core {core} sends to itself by mesh");
        let queue = self.mesh.entry(core).or_default();
        let always_fits = match &item {
            MeshItem::Parcel(parcel) => matches!(parcel, Parcel::Reply(_)),
            MeshItem::News(_) | MeshItem::Reserve { .. } => true,
            MeshItem::StatusAsk { .. } | MeshItem::StatusTold { .. } => true,
            MeshItem::SnapshotAsk(_) | MeshItem::SnapshotTold { .. } | MeshItem::TableDamaged { .. } => true,
        };
        if always_fits || queue.len() < MESH_ITEMS_MAX {
            queue.push_back(item);
            return;
        }
        if let MeshItem::Parcel(Parcel::Call(call)) = item {
            self.answer_overload(&call);
        }
    }

    /// A call found no room on its way: its origin is told, wherever it is.
    pub(super) fn answer_overload(&mut self, call: &Call) {
        if call.id.node == self.config.node() {
            self.refuse_overload(call);
        } else {
            let outcome = Err(Failure::of(FailureKind::Overloaded));
            let _ = self.links.push(call.id.node, Parcel::Reply(Reply { id: call.id, outcome }));
        }
    }
}
