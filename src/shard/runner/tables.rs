//! What a runner does for its replicas' tables: blocks read, tables made, lent and fetched.
//!
//! All of it takes time, so each is a task of its own; a turn only starts it, and its outcome comes back as
//! an event or as a call between two turns.
//!
//! Invariants:
//! - Of one core, one table is made at a time, and one is fetched at a time; of a node, no more than it has
//!   [`permits`](crate::shard::permits) for. A permit goes with the task that it is for.
//! - A part of a table that is asked for is answered in time, or who asked hears that it was not.
//! - What is lent was checked: see [`lend`](crate::shard::lend). Damage found so is repaired here as any
//!   other.

use std::rc::Rc;

use crate::env::signal::{AnswerSender, answer};
use crate::env::{Env, Instant};
use crate::ids::{Index, NodeId, ShardId};
use crate::kv::{self, Retired};
use crate::log::TableRef;
use crate::raft;
use crate::route::parcel::{PART_BLOCK_BYTES, PART_BYTES_MAX, Parcel, TableAsk, TableName, TablePart};
use crate::shard::config::Snapshots;
use crate::shard::event::Event;
use crate::shard::fetch::{self, Fetch};
use crate::shard::lend::Lending;
use crate::shard::load;
use crate::shard::permits::Permit;
use crate::shard::progress::{FetchProgress, SharedProgress};
use crate::shard::replica::{BlockLoad, Output, Replica, Turn, kv_config};
use crate::shard::snapshot::Job;
use crate::shard::space::{Level, SEGMENTS_MIN};
use crate::shard::table::{OpenTable, TableFile, TableReadError};

use super::{Inner, Runner};

/// How often it is looked at whether a table is due, and how soon again where the node has no permit left.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// How long a core rests after a table that it could not fetch.
const FETCH_REST: std::time::Duration = std::time::Duration::from_secs(1);

/// A part of a table that was asked for: under which number, of whom, and when.
pub(super) struct PartAsked {
    pub(super) number: u64,
    pub(super) from: NodeId,
    pub(super) at: Instant,
    pub(super) sender: AnswerSender<TablePart>,
}

/// A table that is to be fetched: it ends with this entry or a later one.
pub(super) struct Wanted {
    pub(super) shard: ShardId,
    pub(super) offer: raft::SnapshotOffer,
    pub(super) index_min: Index,
}

/// A table that is being fetched.
pub(super) struct Fetching {
    shard: ShardId,
    progress: SharedProgress,
}

impl Fetching {
    /// How far the table of a shard is, where it is that shard's.
    pub(super) fn progress_of(&self, shard: ShardId) -> Option<FetchProgress> {
        self.progress.get().filter(|_| self.shard == shard)
    }
}

impl<E: Env> Runner<E> {
    /// Reads blocks in a task of their own; they come back as an event.
    pub(super) fn read_blocks(&self, load: BlockLoad) {
        let BlockLoad { shard, waiter, handles } = load;
        let file = self.inner.borrow().replicas.get(&shard).and_then(|replica| replica.table.clone());
        let runner = self.clone();
        // A table that took the place of the one that was asked has other blocks: it is asked again.
        let file = file.filter(|file| handles.iter().all(|handle| handle.table == file.salt()));
        self.env.spawn(async move {
            let result = match &file {
                Some(file) => load::read_all(&runner.env, file, &handles).await,
                None => Ok(Vec::new()),
            };
            runner.enter(Event::BlocksRead { shard, waiter, result });
        });
    }

    /// Asks for tables of all shards of this core, whatever has changed since the last ones.
    pub fn ask_snapshots(&self) {
        self.inner.borrow_mut().replicas.values_mut().for_each(Replica::ask_snapshot);
    }

    /// Fetches a leader's table, where none is being fetched by this core.
    pub(super) fn fetch_table(&self, shard: ShardId, offer: raft::SnapshotOffer) {
        let mut inner = self.inner.borrow_mut();
        let now = self.env.now();
        let is_busy = inner.fetching.is_some() || now < inner.fetch_rests_until;
        let permit = if is_busy { None } else { inner.take_fetch_permit(now) };
        let Some(replica) = inner.replicas.get_mut(&shard) else { return };
        let Some(permit) = permit else {
            // The leader offers it again. What is being fetched is none of this offer's business.
            return replica.raft.install_failed();
        };
        drop(inner);
        self.start_fetch(Wanted { shard, offer, index_min: offer.index }, permit);
    }

    /// Fetches a table, where none is being fetched by this core: who waits for one asks again.
    pub(super) fn start_fetch(&self, wanted: Wanted, permit: Permit) {
        let Wanted { shard, offer, index_min } = wanted;
        let mut inner = self.inner.borrow_mut();
        let (settings, progress) = (inner.config.snapshots, SharedProgress::default());
        let Some(replica) = inner.replicas.get(&shard).filter(|_| inner.fetching.is_none()) else { return };
        let lane = replica.lane.clone();
        inner.fetching = Some(Fetching { shard, progress: Rc::clone(&progress) });
        drop(inner);
        let fetch = Fetch { shard, offer, index_min, lane, settings, progress };
        self.env.spawn(fetch::run(self.env.clone(), self.clone(), fetch, permit));
    }

    /// Asks another node for a part of a table. `None`: no answer came in time.
    pub(crate) async fn ask_part(
        &self,
        shard: ShardId,
        from: NodeId,
        (generation, index_min, offset): (u64, Index, u64),
    ) -> Option<TablePart> {
        let (sender, receiver) = answer();
        {
            let mut inner = self.inner.borrow_mut();
            inner.last_question += 1;
            let number = inner.last_question;
            let (node, core) = (inner.config.node(), inner.config.core());
            inner.part_asked = Some(PartAsked { number, from, at: self.env.now(), sender });
            inner.push_link(
                from,
                Parcel::TableAsk(TableAsk { shard, node, core, number, generation, index_min, offset }),
            );
        }
        self.outgoing.raise();
        receiver.await
    }

    /// Answers a question for a part of a table. Where there is damage this replica is repaired, and who asks
    /// hears that there is no such table.
    pub(super) fn lend_part(&self, ask: TableAsk, lending: Rc<Lending<E>>) {
        let runner = self.clone();
        self.env.spawn(async move {
            let TableRef { index, term, bytes, footer_checksum, .. } = lending.file().named();
            let generation = lending.file().salt();
            let offset = if generation == ask.generation { ask.offset.min(bytes) } else { 0 };
            let offset = offset - offset % PART_BLOCK_BYTES as u64;
            let data = match lending.part(&runner.env, offset, PART_BYTES_MAX).await {
                Ok(Some(data)) => data,
                // It is asked for again.
                Ok(None) => return,
                Err(source) => return runner.lent_damaged(&ask, &lending, source),
            };
            let named = TableName { generation, index, term, bytes, footer_checksum };
            let TableAsk { shard, core, number, .. } = ask;
            let part = TablePart { shard, core, number, named, offset, data };
            // What finds no room is asked for again.
            let _ = runner.inner.borrow_mut().links.push(ask.node, Parcel::TablePart(part));
            runner.outgoing.raise();
        });
    }

    fn lent_damaged(&self, ask: &TableAsk, lending: &Rc<Lending<E>>, source: TableReadError) {
        let (shard, to) = (ask.shard, ask.node);
        tracing::error!(%shard, %to, %source, "a table that is lent is damaged");
        let mut inner = self.inner.borrow_mut();
        inner.refuse_part(ask);
        if let Some(replica) = inner.replicas.get_mut(&shard) {
            replica.take_back(lending);
        }
        drop(inner);
        self.table_damaged(shard, source);
    }

    pub(crate) fn reserve_install(&self, shard: ShardId, named: &TableRef) -> Option<bool> {
        let mut inner = self.inner.borrow_mut();
        let replica = inner.replicas.get_mut(&shard).expect("a replica stays where it was started");
        replica.reserve_install(named)
    }

    /// What the state machine of a shard is made with.
    pub(crate) fn kv_config(&self, shard: ShardId) -> kv::Config {
        kv_config(&self.inner.borrow().config, shard)
    }

    /// Whether a table is the shard's own already.
    pub(crate) fn is_own_table(&self, shard: ShardId, salt: u64) -> bool {
        let inner = self.inner.borrow();
        let replica = inner.replicas.get(&shard).filter(|replica| !replica.repair.is_spoiled());
        let table = replica.and_then(|replica| replica.table.as_ref());
        table.is_some_and(|table| table.salt() == salt)
    }

    /// Whether another node leads a shard now than this one that offered its table: the new leader offers its
    /// own. A state that is to be repaired is nobody's offer: whoever has a table will do.
    pub(crate) fn is_deposed(&self, shard: ShardId, offering: NodeId) -> bool {
        let inner = self.inner.borrow();
        let replica = inner.replicas.get(&shard).filter(|replica| !replica.repair.is_spoiled());
        replica.and_then(|replica| replica.raft.leader()).is_some_and(|leader| leader != offering)
    }

    /// Whether the state of a shard is not to be trusted.
    pub(crate) fn is_spoiled(&self, shard: ShardId) -> bool {
        self.inner.borrow().replicas.get(&shard).is_some_and(|replica| replica.repair.is_spoiled())
    }

    /// Whether a table is being fetched for a shard.
    pub(crate) fn is_fetching(&self, shard: ShardId) -> bool {
        self.inner.borrow().fetching.as_ref().is_some_and(|fetching| fetching.shard == shard)
    }

    pub(crate) fn install_fetched(&self, shard: ShardId, file: TableFile<E>, state: kv::State) -> Retired {
        let (now, random) = (self.env.now(), self.env.random());
        let mut inner = self.inner.borrow_mut();
        inner.fetching = None;
        let config = inner.config.clone();
        let mut out = Output::default();
        let mut turn = Turn { config: &config, now, random, out: &mut out, watch: None };
        let replica = inner.replicas.get_mut(&shard).expect("a replica stays where it was started");
        let retired = replica.install_fetched(file, state, &mut turn);
        inner.dirty.push(shard);
        inner.route(&mut out, now);
        drop(inner);
        self.wake.raise();
        self.outgoing.raise();
        retired
    }

    pub(crate) fn fetch_failed(&self, shard: ShardId) {
        let now = self.env.now();
        let mut inner = self.inner.borrow_mut();
        inner.fetching = None;
        inner.fetch_rests_until = now + FETCH_REST;
        if let Some(replica) = inner.replicas.get_mut(&shard) {
            replica.fetch_failed();
        }
    }

    pub(crate) fn install_snapshot(&self, shard: ShardId, table: OpenTable<E>) -> Retired {
        let mut inner = self.inner.borrow_mut();
        let keep_entries = inner.config.snapshots.keep_entries;
        let replica = inner.replicas.get_mut(&shard).expect("a replica stays where it was started");
        let retired = replica.install_snapshot(table, keep_entries);
        inner.dirty.push(shard);
        // Who waits for this table hears of it, and those that need a later one have it made.
        inner.settle_table_waiters(self.env.now());
        drop(inner);
        self.wake.raise();
        self.outgoing.raise();
        retired
    }

    pub(crate) fn snapshot_failed(&self, shard: ShardId, found_no_room: bool) {
        let now = self.env.now();
        if let Some(replica) = self.inner.borrow_mut().replicas.get_mut(&shard) {
            replica.snapshot_failed(found_no_room, now);
        }
    }
}

impl<E: Env> Inner<E> {
    /// A permit to fetch a table, or a place among the cores that wait for one: a leader offers its table
    /// again with every heartbeat, and a repair looks again with every tick.
    pub(super) fn take_fetch_permit(&mut self, now: Instant) -> Option<Permit> {
        let permit = self.config.permits.fetches.take(self.config.core());
        self.fetch_claimed_at = permit.is_none().then_some(now);
        permit
    }

    /// Gives up the place among those that wait where nothing was to be fetched for a while.
    pub(super) fn forget_fetch_claim(&mut self, now: Instant) {
        let times = &self.config.times;
        let is_old = |at: &Instant| now.since(*at) >= FETCH_REST + times.tick * (times.heartbeat_ticks * 2);
        if self.fetch_claimed_at.take_if(|at| is_old(at)).is_some() {
            self.config.permits.fetches.withdraw(self.config.core());
        }
    }

    /// Freezes the shard whose table is due most, where none of this core is being made and the node has a
    /// permit left.
    pub(super) fn due_snapshot(&mut self, now: Instant, random: u64) -> Option<(Job<E>, Permit)> {
        if now < self.looks_at {
            return None;
        }
        self.looks_at = now + LOOK_EVERY;
        self.settle_table_waiters(now);
        self.pace_merge();
        let (snapshots, core) = (self.config.permits.snapshots.clone(), self.config.core());
        let Some(shard) = self.most_due(now) else {
            if !self.waits_for_disk(now) {
                snapshots.withdraw(core);
            }
            return None;
        };
        let Some(permit) = snapshots.take(core) else {
            self.looks_at = now + LOOK_AGAIN;
            return None;
        };
        let Self { config, replicas, .. } = self;
        let replica = replicas.get_mut(&shard).expect("it was just asked whether its table is due");
        let rest = Rc::clone(&self.merge_rest);
        Some((replica.begin_snapshot(config, (now, random), rest), permit))
    }

    /// Has the merge that runs, or the next one, take its time where nobody waits for it: no shard of this
    /// core, no other core for the permit, and no disk that is short for the room that tables make.
    fn pace_merge(&self) {
        let Snapshots { rest, rest_calm, .. } = self.config.snapshots;
        let is_awaited =
            self.config.permits.snapshots.are_awaited() || self.gauge.room().level != Level::Enough;
        let has_hurry =
            is_awaited || self.replicas.values().any(|replica| replica.hurries_tables(&self.config));
        self.merge_rest.set(if has_hurry { rest } else { rest_calm });
    }

    fn most_due(&mut self, now: Instant) -> Option<ShardId> {
        // A start comes first: nobody is served by this core before all of it is replayed. What waits for a
        // state of a peer does not count: that peer may wait for a table of this core. Nor does what waits
        // for its own table.
        let is_busy = |replica: &Replica<E>| {
            let waits = replica.repair.is_spoiled() || replica.memory_is_full(&self.config);
            replica.changes.is_running || (replica.is_replaying() && !waits)
        };
        if self.has_stopped || self.replicas.values().any(is_busy) {
            return None;
        }
        self.unpin();
        let Self { config, replicas, .. } = self;
        let due =
            replicas.values_mut().filter_map(|replica| Some((replica.snapshot_due(config, now)?, replica)));
        due.max_by_key(|(bytes, _)| *bytes).map(|(_, replica)| replica.shard)
    }

    /// Whether a table is due as soon as the own disk has come up, as it will in a moment: that costs no
    /// place among those that wait for a permit.
    fn waits_for_disk(&self, now: Instant) -> bool {
        let election = self.config.times.election();
        let is_slow = |lane: &crate::log::Lane<E>| {
            lane.is_exhausted() || lane.oldest_pending().is_some_and(|since| now.since(since) >= election)
        };
        let waits = self.replicas.values().any(Replica::waits_for_disk);
        waits && !self.has_stopped && !self.lanes.values().any(is_slow)
    }

    /// Where a lane has more segments than it may, those who need the oldest of them let go of it: by a table
    /// that is made first of all, or by what is in one already.
    fn unpin(&mut self) {
        let segments_max = match self.gauge.room().level {
            Level::Enough => self.config.snapshots.log_segments_max,
            Level::Reserved | Level::Exhausted => SEGMENTS_MIN,
        };
        for shard in self.lanes.values().flat_map(|lane| lane.pinning(segments_max)) {
            if let Some(replica) = self.replicas.get_mut(&shard) {
                replica.unpin();
            }
        }
    }
}
