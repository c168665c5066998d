//! One replica at work: raft's Ready driven into the log, the outbox and the state machine.
//!
//! [`Replica::drive`] is called whenever something happened to the replica, and loops until raft has nothing
//! more to say. Within one Ready: messages leave first (AppendEntries travel while the leader's own write is
//! under way), then what must be durable joins the lane's forming batch together with the messages that may
//! only follow it, then what is committed is applied.
//!
//! Invariants:
//! - Persists are handed to the lane in raft's order and completed in that order.
//! - A message that rides in a persist leaves after the lane said that the persist is durable.
//! - Entries are applied in order, each once, and only up to raft's commit index.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use bytes::BytesMut;

use crate::env::stages::{Stage, Stages};
use crate::env::{Env, Instant};
use crate::ids::{Index, NodeId, ShardId, Term};
use crate::kv;
use crate::kv::table::{BlockHandle, TableError};
use crate::log::{self, Lane};
use crate::raft::{self, Message, Raft};
use crate::route::call::{Answered, Body, Failure};
use crate::route::parcel::{Call, CallId, Order, Parcel, Reply};
use crate::shard::cache::{Pinned, SharedCache};
use crate::shard::config::Config;
use crate::shard::digests::Digests;
use crate::shard::directory::{Known, News};
use crate::shard::end::RunEnd;
use crate::shard::event::{BlocksFor, ReadPurpose};
use crate::shard::expiry::SessionClock;
use crate::shard::install::Lent;
use crate::shard::repair::{Repair, Spoil};
use crate::shard::snapshot::Changes;
use crate::shard::space::Room;
use crate::shard::spread::Spread;
use crate::shard::streams::{StreamKey, Streams};
use crate::shard::table::{OpenTable, TableFile, TableReadError};
use crate::shard::wanted::TableWaiter;

/// What a replica leaves for its runner to carry on.
#[derive(Default)]
pub(crate) struct Output {
    /// Parcels and the nodes that they are for.
    pub(crate) parcels: Vec<(NodeId, Parcel)>,
    /// Entries that are to be read from the log.
    pub(crate) reads: Vec<LogRead>,
    /// Blocks that are to be read from tables.
    pub(crate) loads: Vec<BlockLoad>,
    /// What is known of leaders now.
    pub(crate) news: Vec<News>,
    /// Tables that leaders offer.
    pub(crate) offers: Vec<(ShardId, raft::SnapshotOffer)>,
    /// Why the process has to end.
    pub(crate) end: Option<RunEnd>,
}

/// Entries that are to be read from the log.
pub(crate) struct LogRead {
    pub(crate) shard: ShardId,
    pub(crate) purpose: ReadPurpose,
    pub(crate) first: Index,
    pub(crate) last: Index,
    pub(crate) bytes_max: usize,
}

/// Blocks that are to be read from a shard's table.
pub(crate) struct BlockLoad {
    pub(crate) shard: ShardId,
    pub(crate) waiter: BlocksFor,
    pub(crate) handles: Vec<BlockHandle>,
}

/// What a turn gives to the replicas that it drives.
pub(crate) struct Turn<'a> {
    pub(crate) config: &'a Config,
    pub(crate) now: Instant,
    pub(crate) random: u64,
    pub(crate) out: &'a mut Output,
    /// By what its stages are measured, where they are.
    pub(crate) watch: Option<Watch<'a>>,
}

/// The stages of a core, and the clock for them: nothing is decided by it.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub(crate) stages: &'a Stages,
    pub(crate) clock: &'a dyn Fn() -> Instant,
}

/// One replica of one shard.
pub(crate) struct Replica<E: Env> {
    pub(crate) shard: ShardId,
    pub(crate) raft: Raft,
    pub(crate) state: kv::State,
    pub(crate) lane: Lane<E>,
    persists: VecDeque<PersistInFlight>,
    /// The entry whose way to a quorum is measured: its index and term, and when it was proposed.
    watched: Option<(Index, Term, Instant)>,
    /// Persists that the lane had no room for yet.
    unwritten: VecDeque<log::Append>,
    pub(crate) committed: Index,
    /// Entries read from the log, to be applied next; the first is the one after the applied index.
    pub(crate) fetched: VecDeque<raft::Entry>,
    pub(crate) is_fetching: bool,
    /// The entry that is applied next, and waits for blocks of the table.
    pub(crate) stuck: Option<Stuck>,
    /// The last entry that was looked at for the blocks that it needs.
    pub(crate) looked_ahead: Index,
    /// Reads that wait for blocks of the table.
    pub(crate) loading: BTreeMap<u64, Reading>,
    pub(crate) last_loading: u64,
    /// The file of the table that lies below the state.
    pub(crate) table: Option<Rc<TableFile<E>>>,
    pub(crate) cache: SharedCache,
    pub(crate) changes: Changes,
    pub(crate) repair: Repair,
    pub(crate) digests: Digests,
    pub(crate) table_waiters: Vec<TableWaiter>,
    /// The last entry of a leader's table that is being made the node's own.
    pub(crate) coming: Option<Index>,
    /// A table that another node is fetching, though it is not this replica's newest any more.
    pub(crate) lent: Option<Lent<E>>,
    pub(crate) waiters: BTreeMap<Index, Waiter>,
    pub(crate) reads: BTreeMap<u64, ReadWaiter>,
    /// Reads whose index is known and not yet applied.
    pub(crate) reads_ready: BTreeMap<(Index, u64), ReadWaiter>,
    /// Reads that wait for the first commit of the term.
    pub(crate) reads_early: VecDeque<ReadWaiter>,
    pub(crate) last_token: u64,
    pub(crate) transfers: Vec<TransferWaiter>,
    pub(crate) streams: Streams,
    pub(crate) sessions: SessionClock,
    pub(crate) spread: Spread,
    /// The room on the disk, as it was at the last look.
    pub(crate) room: Room,
    /// As a leader: whether the nodes of the shard whose disks have room are no quorum.
    pub(crate) lacks_quorum: bool,
    /// What was known to be committed when this replica started.
    pub(crate) committed_at_start: Index,
    /// The last entry of the log when this replica started.
    #[cfg(debug_assertions)]
    pub(crate) recovered_last: Index,
    known: Known,
    led_term: Option<Term>,
}

struct PersistInFlight {
    completion: raft::Completion,
    then_send: Vec<Message>,
}

/// Who waits for a proposed entry.
pub(crate) struct Waiter {
    pub(crate) term: Term,
    pub(crate) caller: Caller,
}

/// Whom an answer goes to.
pub(crate) struct Caller {
    pub(crate) id: CallId,
    pub(crate) stream: Option<(StreamKey, Order)>,
    /// Whether its origin may send it again.
    pub(crate) may_resend: bool,
    pub(crate) deadline: Instant,
}

/// An entry that waits for blocks.
pub(crate) struct Stuck {
    pub(crate) entry: raft::Entry,
    pub(crate) pinned: Pinned,
    pub(crate) is_loading: bool,
}

/// A read whose index is applied, and what was gathered for it so far.
pub(crate) struct Reading {
    pub(crate) waiter: ReadWaiter,
    pub(crate) run: kv::ScanRun,
    pub(crate) pinned: Pinned,
}

/// A read that waits for its index, or for its index to be applied.
pub(crate) struct ReadWaiter {
    pub(crate) caller: Caller,
    pub(crate) query: kv::Query,
}

/// Who waits for a transfer of leadership.
pub(crate) struct TransferWaiter {
    pub(crate) caller: Caller,
    pub(crate) term: Term,
    pub(crate) until: Instant,
}

/// What a replica is started from.
pub struct ReplicaStart<E: Env> {
    /// Its shard.
    pub shard: ShardId,
    /// What its log holds.
    pub recovered: raft::Recovered,
    /// Its table.
    pub table: StartTable<E>,
}

/// The table of a replica that starts.
pub enum StartTable<E: Env> {
    /// The manifest names none.
    None,
    /// It was opened and checked.
    Open(Box<OpenTable<E>>),
    /// The manifest names one that cannot be read: the state comes from a peer.
    Lost {
        /// What the manifest says of it.
        named: log::TableRef,
        /// Why it cannot be read.
        source: TableReadError,
    },
}

/// What log and table of a shard hold makes no sense together: damage that no checksum shows.
#[derive(Clone, Copy, Debug)]
pub struct Unreadable {
    /// The shard.
    pub shard: ShardId,
    /// What makes no sense.
    pub source: StartError,
}

/// Why a replica cannot start.
#[derive(Clone, Copy, Debug)]
pub enum StartError {
    /// What the log holds contradicts itself.
    Log(raft::RecoverError),
    /// The table contradicts itself.
    Table(TableError),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shard = self.shard;
        match &self.source {
            StartError::Log(source) => write!(f, "the log of shard {shard}: {source}"),
            StartError::Table(source) => write!(f, "the table of shard {shard}: {source}"),
        }
    }
}

impl<E: Env> Replica<E> {
    /// A replica as its table and log hold it, with nothing of the log applied yet.
    pub(crate) fn new(
        (config, start): (&Config, ReplicaStart<E>),
        (lane, cache): (Lane<E>, SharedCache),
        (now, random): (Instant, u64),
    ) -> Result<Self, Unreadable> {
        let ReplicaStart { shard, recovered, table } = start;
        let Parts { raft, state, table, lost } = started((config, shard), recovered, table, random)
            .map_err(|source| Unreadable { shard, source })?;
        let (committed_at_start, standing) = (raft.commit(), raft.standing());
        let mut replica = Self {
            shard,
            lane,
            persists: VecDeque::new(),
            watched: None,
            unwritten: VecDeque::new(),
            committed: state.applied(),
            #[cfg(debug_assertions)]
            recovered_last: raft.last_index(),
            raft,
            state,
            table,
            cache,
            fetched: VecDeque::new(),
            is_fetching: false,
            stuck: None,
            looked_ahead: Index(0),
            loading: BTreeMap::new(),
            last_loading: 0,
            changes: Changes::at_start(config, shard, now),
            repair: Repair::new(standing),
            digests: Digests::default(),
            table_waiters: Vec::new(),
            coming: None,
            lent: None,
            waiters: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_ready: BTreeMap::new(),
            reads_early: VecDeque::new(),
            last_token: 0,
            transfers: Vec::new(),
            streams: Streams::new(config.limits.streams_max),
            sessions: SessionClock::default(),
            spread: Spread::new(now),
            room: Room::default(),
            lacks_quorum: false,
            committed_at_start,
            known: Known::default(),
            led_term: None,
        };
        if let Some(source) = lost {
            let mut out = Output::default();
            replica
                .spoil(Spoil::Table(source), &mut Turn { config, now, random, out: &mut out, watch: None });
            assert!(out.end.is_none(), "shard {shard}: a table is lost where nobody has another");
        }
        Ok(replica)
    }

    /// Hands raft a message.
    pub(crate) fn step(&mut self, mut message: Message) {
        if let raft::Body::Append { entries, .. } = &mut message.body {
            own_entries(entries);
        }
        self.raft.step(message);
    }

    /// One tick of raft's clock.
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        self.tell_willingness();
        self.raft.tick(low_word(turn.random));
        self.tick_repair();
        self.tell_digests(turn);
        self.expire_transfers(turn);
        if self.raft.role() == raft::Role::Leader {
            self.expire_sessions(turn);
            self.spread_leadership(turn);
        }
    }

    /// The lane says that the persist of this number is durable.
    pub(crate) fn persisted(&mut self, number: u64, turn: &mut Turn<'_>) {
        let done = self.persists.pop_front().expect("the lane completes only what it was given");
        let waiting = self.unwritten.len();
        assert!(self.persists.len() >= waiting, "{waiting} writes are not given to the lane yet");
        assert_eq!(done.completion.number, number, "shard {}: persists complete in order", self.shard);
        self.send(done.then_send, turn);
        self.raft.persisted(done.completion);
    }

    /// Does everything that can be done without waiting.
    pub(crate) fn drive(&mut self, turn: &mut Turn<'_>) {
        self.write();
        loop {
            while self.raft.has_ready() {
                let ready = self.raft.ready();
                self.handle(ready, turn);
            }
            self.apply(turn);
            self.retry_early_reads(turn);
            self.pump_streams(turn);
            if !self.raft.has_ready() {
                break;
            }
        }
        self.tell_leadership(turn);
    }

    fn handle(&mut self, ready: raft::Ready, turn: &mut Turn<'_>) {
        self.send(ready.messages, turn);
        if let Some(persist) = ready.persist {
            self.watch_proposal(&persist, turn.now);
            self.persist(persist);
        }
        assert!(ready.commit >= self.committed, "commit {} after {}", ready.commit, self.committed);
        self.tell_replicated(ready.commit, turn);
        self.committed = ready.commit;
        let (applied, commit) = (self.state.applied(), self.committed);
        assert!(applied <= commit, "shard {}: applied {applied} of {commit} committed", self.shard);
        self.read_indexes_known(ready.reads, turn);
        for token in ready.reads_lost {
            self.read_lost(token, turn);
        }
        turn.out.offers.extend(ready.offer.map(|offer| (self.shard, offer)));
        for need in ready.snapshots {
            let (shard, raft::SnapshotNeed { to, index }) = (self.shard, need);
            tracing::info!(%shard, %to, %index, "a follower needs the table");
        }
        for fetch in ready.fetch {
            turn.out.reads.push(LogRead {
                shard: self.shard,
                purpose: ReadPurpose::Follower(fetch.to),
                first: fetch.first,
                last: fetch.last,
                bytes_max: fetch.bytes_max,
            });
        }
    }

    /// Notes when the last of some new entries was proposed, where this replica leads and none is noted.
    fn watch_proposal(&mut self, persist: &raft::Persist, now: Instant) {
        if self.raft.role() == raft::Role::Leader && self.watched.is_none() {
            self.watched = persist.entries.last().map(|entry| (entry.index, entry.term, now));
        }
    }

    /// Tells what this leader finds committed, and how long the noted entry took. In another term it may be
    /// another one.
    fn tell_replicated(&mut self, commit: Index, turn: &Turn<'_>) {
        let noted = self.watched.take_if(|(index, _, _)| *index <= commit);
        let Some(watch) = turn.watch.filter(|_| self.raft.role() == raft::Role::Leader) else { return };
        let entries = commit.0 - self.committed.0;
        match noted.filter(|(_, term, _)| self.raft.term() == *term) {
            Some((_, _, since)) => watch.stages.add(Stage::Replicate, turn.now.since(since), entries),
            None if entries > 0 => watch.stages.count(Stage::Replicate, entries),
            None => {}
        }
    }

    fn persist(&mut self, persist: raft::Persist) {
        if let Some(standing) = persist.standing {
            let (shard, term) = (self.shard, self.raft.term());
            tracing::info!(%shard, %term, ?standing, "what this replica knows of its past has changed");
        }
        let completion = persist.completion();
        let before = self.persists.back().map_or(0, |persist| persist.completion.number);
        assert!(completion.number > before, "write {} follows write {before}", completion.number);
        self.persists.push_back(PersistInFlight { completion, then_send: persist.then_send });
        self.unwritten.push_back(log::Append {
            shard: self.shard,
            number: persist.number,
            hard_state: persist.hard_state,
            standing: persist.standing,
            restart: persist.restart,
            entries: persist.entries,
        });
        self.write();
    }

    /// Hands the lane what it has room for. The rest waits here, in order; raft's limits bound it.
    fn write(&mut self) {
        while self.unwritten.front().is_some_and(|append| self.lane.has_room(append)) {
            let Some(append) = self.unwritten.pop_front() else { return };
            let number = append.number;
            let taken = self.lane.append(append);
            assert!(taken.is_ok(), "shard {}: the lane had room for write {number}", self.shard);
        }
    }

    fn send(&self, messages: Vec<Message>, turn: &mut Turn<'_>) {
        let shard = self.shard;
        let parcels = messages.into_iter().map(|message| (message.to, Parcel::Raft { shard, message }));
        turn.out.parcels.extend(parcels);
    }

    /// Tells the node's cores who leads, where that has changed, and what follows from gaining or losing
    /// leadership.
    fn tell_leadership(&mut self, turn: &mut Turn<'_>) {
        let leads = self.raft.role() == raft::Role::Leader;
        let led_term = leads.then(|| self.raft.term());
        if led_term != self.led_term {
            if self.led_term.is_some() {
                self.deposed(turn);
            }
            // The very first leader of a shard may be wherever chance put it.
            if self.raft.last_index() > Index(1) {
                self.spread.moved(turn.now);
            }
            self.sessions.restart();
            self.led_term = led_term;
        }
        let known = Known {
            leader: self.raft.leader(),
            term: self.raft.term(),
            is_serving: self
                .raft
                .contact_ticks()
                .is_some_and(|ticks| ticks <= turn.config.times.election_ticks),
        };
        if known != self.known {
            self.known = known;
            turn.out.news.push(News { shard: self.shard, known });
        }
    }

    /// Sends what became of a call back to where it came from.
    pub(crate) fn reply(&mut self, caller: Caller, outcome: Result<Answered, Failure>, turn: &mut Turn<'_>) {
        if let Some((key, order)) = caller.stream {
            let is_refusal = matches!(&outcome, Err(failure) if !failure.is_decision());
            self.streams.ended(key, order, is_refusal);
        }
        turn.out.parcels.push((caller.id.node, Parcel::Reply(Reply { id: caller.id, outcome })));
    }

    /// An answer of this replica.
    pub(crate) fn answered(&self, revision: crate::ids::Revision, body: Body, turn: &Turn<'_>) -> Answered {
        Answered { node: turn.config.node(), shard: self.shard, term: self.raft.term(), revision, body }
    }

    /// Takes a call in, in its stream's order where it has one.
    pub(crate) fn call(&mut self, call: Call, turn: &mut Turn<'_>) {
        match call.order {
            None => self.serve(call, turn),
            Some(order) => {
                for refused in self.streams.accept(StreamKey::of(&call.id, &order), order, call, turn.now) {
                    self.refuse_unproposed(&refused, turn);
                }
                self.pump_streams(turn);
            }
        }
    }

    fn pump_streams(&mut self, turn: &mut Turn<'_>) {
        while let Some(call) = self.streams.next() {
            self.serve(call, turn);
            for refused in self.streams.take_refused() {
                self.refuse_unproposed(&refused, turn);
            }
        }
        for refused in self.streams.take_refused() {
            self.refuse_unproposed(&refused, turn);
        }
    }
}

/// A replica's parts: consensus, state, the file of its table, and why there is none where one was lost.
struct Parts<E: Env> {
    raft: Raft,
    state: kv::State,
    table: Option<Rc<TableFile<E>>>,
    lost: Option<TableReadError>,
}

/// What log and table come to together.
fn started<E: Env>(
    (config, shard): (&Config, ShardId),
    mut recovered: raft::Recovered,
    table: StartTable<E>,
    random: u64,
) -> Result<Parts<E>, StartError> {
    let has_peers = config.layout.voters().len() > 1;
    let kv_config = kv_config(config, shard);
    let (at, state, table, lost) = match table {
        StartTable::None => (<_>::default(), kv::State::new(kv_config), None, None),
        StartTable::Open(table) => {
            let OpenTable { file, index, sessions } = *table;
            let at = (index.meta().applied, index.meta().applied_term);
            match kv::State::from_table(kv_config, index, &sessions) {
                Ok(state) => (at, state, Some(Rc::new(file)), None),
                Err(source) if has_peers => {
                    (at, kv::State::missing(kv_config, at.0), None, Some(file.damaged(source)))
                }
                Err(source) => return Err(StartError::Table(source)),
            }
        }
        StartTable::Lost { named, source } => {
            ((named.index, named.term), kv::State::missing(kv_config, named.index), None, Some(source))
        }
    };
    recovered.table = at;
    let mut raft = Raft::new(raft_config(config), recovered, low_word(random)).map_err(StartError::Log)?;
    raft.applied(at.0);
    Ok(Parts { raft, state, table, lost })
}

pub(crate) fn kv_config(config: &Config, shard: ShardId) -> kv::Config {
    kv::Config {
        shard,
        limits: config.kv,
        #[cfg(debug_assertions)]
        planted: config.planted_kv,
    }
}

fn raft_config(config: &Config) -> raft::Config {
    raft::Config {
        id: config.node(),
        voters: config.layout.voters(),
        election_ticks: config.times.election_ticks,
        heartbeat_ticks: config.times.heartbeat_ticks,
        append_bytes_max: config.limits.append_bytes_max,
        window_messages_max: config.limits.window_messages_max,
        window_bytes_max: config.limits.window_bytes_max,
        cache_bytes_max: config.limits.cache_bytes_max,
        uncommitted_bytes_max: config.limits.uncommitted_bytes_max,
        reads_pending_max: config.limits.reads_pending_max,
        read_mode: config.read_mode,
        #[cfg(debug_assertions)]
        planted: config.planted_raft,
    }
}

/// Gives entries that came over a link a buffer of their own. Their data are slices of the chunk that the
/// link received, and would hold all of it in memory for as long as one of them is kept. A long one fills its
/// chunk.
fn own_entries(entries: &mut [raft::Entry]) {
    const LONG: usize = 64 << 10;
    let short = || |entry: &&mut raft::Entry| !entry.data.is_empty() && entry.data.len() < LONG;
    let bytes = entries.iter_mut().filter(short()).map(|entry| entry.data.len()).sum();
    let mut buffer = BytesMut::with_capacity(bytes);
    for entry in entries.iter_mut().filter(short()) {
        buffer.extend_from_slice(&entry.data);
        entry.data = buffer.split().freeze();
    }
    assert!(buffer.is_empty(), "{} bytes were copied for no entry", buffer.len());
}

/// The low half of a random number: what raft takes as jitter.
fn low_word(random: u64) -> u32 {
    u32::try_from(random & u64::from(u32::MAX)).expect("masked to 32 bits")
}
