//! Questions for tables, between the cores of one node: asked here, answered where the shard lives.

use std::time::Duration;

use crate::env::signal::{AnswerReceiver, answer};
use crate::env::{Env, Instant};
use crate::ids::{NodeId, ShardId};
use crate::route::place::Layout;
use crate::shard::event::MeshItem;
use crate::shard::wanted::{SnapshotAnswer, SnapshotAsk, Told, Wanted};

use super::{Inner, Runner};

impl<E: Env> Runner<E> {
    /// What a backup has to know of its node.
    pub(crate) fn whereabouts(&self) -> (E, NodeId, Layout) {
        let inner = self.inner.borrow();
        (self.env.clone(), inner.config.node(), inner.config.layout)
    }

    /// Asks for a durable table of a shard of this node; what comes of it, a little after `patience` at the
    /// latest. Asked as soon as this is called. `None`: the node ends.
    pub fn ask_snapshot(
        &self,
        shard: ShardId,
        wanted: Wanted,
        patience: Duration,
    ) -> AnswerReceiver<SnapshotAnswer> {
        let now = self.env.now();
        let (sender, receiver) = answer();
        let mut inner = self.inner.borrow_mut();
        inner.last_question += 1;
        let (from, number) = (inner.config.core(), inner.last_question);
        inner.snapshot_questions.retain(|_, question| question.is_awaited());
        inner.snapshot_questions.insert(number, sender);
        let ask = SnapshotAsk { from, number, shard, wanted, patience };
        let core = inner.config.layout.core_of(shard);
        if core == from {
            inner.take_snapshot_ask(ask, now);
        } else {
            inner.push_mesh(core, MeshItem::SnapshotAsk(ask));
        }
        drop(inner);
        self.wake.raise();
        self.outgoing.raise();
        receiver
    }

    /// Another core asks.
    pub(super) fn deliver_snapshot_ask(&self, ask: SnapshotAsk) {
        let now = self.env.now();
        self.inner.borrow_mut().take_snapshot_ask(ask, now);
        self.wake.raise();
        self.outgoing.raise();
    }

    /// Another core answers.
    pub(super) fn deliver_snapshot_told(&self, number: u64, answer: SnapshotAnswer) {
        if let Some(question) = self.inner.borrow_mut().snapshot_questions.remove(&number) {
            question.send(answer);
        }
    }
}

impl<E: Env> Inner<E> {
    fn take_snapshot_ask(&mut self, ask: SnapshotAsk, now: Instant) {
        let replica = self.replicas.get_mut(&ask.shard).expect("a shard's core has its replica");
        if let Some(told) = replica.want_table(ask, now) {
            self.tell_snapshot(told);
        }
        // The next turn looks whether its table is due.
        self.looks_at = Instant::default();
    }

    /// Answers those whose tables are there, or whose time is over.
    pub(super) fn settle_table_waiters(&mut self, now: Instant) {
        let told: Vec<Told> =
            self.replicas.values_mut().flat_map(|replica| replica.settle_table_waiters(now)).collect();
        told.into_iter().for_each(|told| self.tell_snapshot(told));
    }

    fn tell_snapshot(&mut self, (ask, answer): Told) {
        let number = ask.number;
        if ask.from != self.config.core() {
            return self.push_mesh(ask.from, MeshItem::SnapshotTold { number, answer });
        }
        if let Some(question) = self.snapshot_questions.remove(&number) {
            question.send(answer);
        }
    }
}
