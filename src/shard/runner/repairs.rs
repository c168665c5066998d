//! What a runner does for replicas that have to be repaired: has their tables fetched, and hands on what was
//! found to be damaged.

use crate::env::{Env, Instant};
use crate::ids::{Index, ShardId};
use crate::route::parcel::{DigestsTold, Parcel, Rebuild, TableAsk, TableName, TablePart};
use crate::shard::event::MeshItem;
use crate::shard::permits::Permit;
use crate::shard::repair::Spoil;
use crate::shard::replica::{Output, Turn};
use crate::shard::table::TableReadError;

use super::tables::Wanted;
use super::{Inner, Runner};

/// Questions for parts of tables that are answered in one turn; more are asked again.
const LENDING_MAX: usize = 4;

impl<E: Env> Runner<E> {
    /// A block of a shard's table was found to be damaged, by whoever read it.
    pub fn table_damaged(&self, shard: ShardId, source: TableReadError) {
        self.spoil(shard, Spoil::Table(source));
    }

    /// The same, of a table of any core of this node.
    pub(crate) fn report_table_damaged(&self, shard: ShardId, source: TableReadError) {
        let mut inner = self.inner.borrow_mut();
        let core = inner.config.layout.core_of(shard);
        if core == inner.config.core() {
            drop(inner);
            return self.table_damaged(shard, source);
        }
        inner.push_mesh(core, MeshItem::TableDamaged { shard, source });
        drop(inner);
        self.outgoing.raise();
    }

    /// What was to become the next table could not be made of what is there.
    pub(crate) fn snapshot_spoiled(&self, shard: ShardId, why: Spoil) {
        self.snapshot_failed(shard, false);
        self.spoil(shard, why);
    }

    fn spoil(&self, shard: ShardId, why: Spoil) {
        let (now, random) = (self.env.now(), self.env.random());
        let mut inner = self.inner.borrow_mut();
        let config = inner.config.clone();
        let mut out = Output::default();
        let mut turn = Turn { config: &config, now, random, out: &mut out, watch: None };
        let Some(replica) = inner.replicas.get_mut(&shard) else { return };
        let is_current = match &why {
            Spoil::Table(source) => replica.table.as_ref().is_some_and(|table| table.path() == source.path()),
            Spoil::Log(_) | Spoil::Merge(_) | Spoil::Digest { .. } => true,
        };
        if is_current && !replica.repair.is_spoiled() {
            replica.spoil(why, &mut turn);
        }
        inner.dirty.push(shard);
        inner.route(&mut out, now);
        if let Some(end) = out.end.take() {
            inner.end.get_or_insert(end);
        }
        drop(inner);
        self.wake.raise();
        self.outgoing.raise();
    }

    /// Flips something in the memory of a shard's state, as a bad memory would: for tests.
    #[cfg(debug_assertions)]
    pub fn rot(&self, shard: ShardId) {
        if let Some(replica) = self.inner.borrow_mut().replicas.get_mut(&shard) {
            replica.state.rot();
        }
    }
}

impl<E: Env> Inner<E> {
    /// The repair that is to begin now, where this core fetches no table and the node has a permit left. One
    /// that waits looks again with the next tick.
    pub(super) fn due_repair(&mut self, now: Instant) -> Option<(Wanted, Permit)> {
        self.forget_fetch_claim(now);
        if self.fetching.is_some() || self.has_stopped || !self.is_entitled {
            return None;
        }
        if !self.replicas.values().any(|replica| replica.repair.is_due(now)) {
            return None;
        }
        let permit = self.take_fetch_permit(now)?;
        let wanted = self.replicas.iter_mut().find_map(|(shard, replica)| {
            let (offer, index_min) = replica.repair_due(now)?;
            Some(Wanted { shard: *shard, offer, index_min })
        });
        wanted.map(|wanted| (wanted, permit))
    }

    /// A question for a part of a table.
    pub(super) fn take_ask(&mut self, ask: TableAsk, turn: &mut Turn<'_>) {
        let replica = self.replicas.get_mut(&ask.shard).filter(|_| self.lending.len() < LENDING_MAX);
        let Some(replica) = replica else { return };
        match replica.lend(&ask, turn.now) {
            Some(lending) => self.lending.push((ask, lending)),
            None => self.refuse_part(&ask),
        }
    }

    pub(super) fn take_digests(&mut self, told: DigestsTold, turn: &mut Turn<'_>) {
        if let Some(replica) = self.replicas.get_mut(&told.shard) {
            self.dirty.push(told.shard);
            replica.digests_told(told, turn);
        }
    }

    pub(super) fn take_rebuild(&mut self, told: Rebuild, turn: &mut Turn<'_>) {
        if let Some(replica) = self.replicas.get_mut(&told.shard) {
            self.dirty.push(told.shard);
            replica.rebuild(told, turn);
        }
    }

    /// A question for a part of a table that goes as far as is asked for, where there is none yet or the one
    /// that there is is damaged: who asks hears so at once.
    pub(super) fn refuse_part(&mut self, ask: &TableAsk) {
        let named =
            TableName { generation: 0, index: Index(0), term: <_>::default(), bytes: 0, footer_checksum: 0 };
        let TableAsk { shard, core, number, .. } = *ask;
        let part = TablePart { shard, core, number, named, offset: 0, data: <_>::default() };
        let _ = self.links.push(ask.node, Parcel::TablePart(part));
    }
}
