//! The state machine of one shard: committed entries in, answers out.
//!
//! It lives on the core of the shard's lane and is owned by the shard's driver, which applies the entries of
//! the log in order and one by one, on every replica the same.
//!
//! Invariants:
//! - Entries are applied in the order of their indexes, none left out: a Raft no-op is applied as one too.
//! - The state after an entry depends on the entries up to it alone: replicas at the same index have the same
//!   digest.
//! - The revision steps by one for each command that wrote or removed a key, and for nothing else.
//! - Every queue and table in it has a limit; what is beyond is refused, and nothing was applied then.
//!
//! Deliberately absent: time, chance, files, and whether a read is fresh enough: those are the driver's.

use bytes::Bytes;

use super::answer::{Applied, Refusal};
use super::command::{Command, RequestId, Write};
use super::digest;
use super::limits::Limits;
use super::planted::planted;
use super::query::{Query, QueryAnswer, ScanKeys};
use super::sessions::{Admission, Sessions};
use super::store::Store;
use super::txn;
use super::write::{self, Effect};
use crate::ids::{Index, Revision, SessionId, ShardId};

/// What a shard's state is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The shard: sessions are named after it.
    pub shard: ShardId,
    /// The limits: the same on every replica.
    pub limits: Limits,
    /// A bug that a test wants to see found.
    #[cfg(debug_assertions)]
    pub planted: Option<super::PlantedBug>,
}

impl Config {
    /// A shard without planted bugs.
    #[must_use]
    pub fn new(shard: ShardId, limits: Limits) -> Self {
        Self {
            shard,
            limits,
            #[cfg(debug_assertions)]
            planted: None,
        }
    }
}

/// Entries of the shard's table that the driver resolved for a command or a query, since the state reads no
/// file. A state that is all in memory has no table, and every `Base` is empty.
#[derive(Clone, Debug, Default)]
pub struct Base {}

impl Base {
    /// None of the keys that [`State::needs`] named is in the table.
    #[must_use]
    pub fn of_absent(_keys: Vec<Bytes>) -> Self {
        Self {}
    }
}

/// The state of one shard.
pub struct State {
    config: Config,
    store: Store,
    sessions: Sessions,
    revision: Revision,
    applied: Index,
}

impl State {
    /// The state of a new shard, before its first entry.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(config.limits.is_consistent(), "limits contradict each other: {:?}", config.limits);
        Self {
            config,
            store: Store::new(config),
            sessions: Sessions::new(config),
            revision: Revision(1),
            applied: Index(0),
        }
    }

    /// The keys whose entries in the table have to be in the [`Base`] of [`State::apply`]: none without a
    /// table.
    #[must_use]
    pub fn needs(&self, _command: &Command) -> Vec<Bytes> {
        Vec::new()
    }

    /// Applies the entry at `index`, the one after the last. A refusal has changed no key; it is as much an
    /// outcome of the entry as an answer, and the same on every replica.
    pub fn apply(&mut self, index: Index, command: &Command, _base: &Base) -> Result<Applied, Refusal> {
        self.advance(index);
        let answer = match command {
            Command::Write { id: None, write } => return self.write(write),
            Command::Write { id: Some(id), write } => return self.write_once(index, *id, write),
            Command::OpenSession { ttl_ms } => self.sessions.open(index, *ttl_ms)?,
            Command::KeepAlive { session, acknowledged } => {
                self.sessions.keep_alive(index, *session, *acknowledged)?
            }
            Command::CloseSession { session } => self.sessions.close(*session)?,
            Command::Expire { session, last_active_index } => {
                self.sessions.expire(*session, *last_active_index)?
            }
        };
        Ok(Applied { revision: self.revision, answer })
    }

    /// Applies an entry that is no command: a new leader's no-op, or one of Raft's own.
    pub fn apply_noop(&mut self, index: Index) {
        self.advance(index);
    }

    /// Reads, at the shard's revision that is returned too.
    pub fn query(&self, query: &Query, _base: &Base) -> Result<(Revision, QueryAnswer), Refusal> {
        let answer = match query {
            Query::Get { key } => QueryAnswer::Get(self.store.get(key)),
            Query::Scan { start, end, limit, bytes_max, keys } => {
                self.scan(start, end, *limit, *bytes_max, *keys)
            }
            Query::Txn(txn) => txn::read(&self.store, &self.config.limits, txn)?,
        };
        Ok((self.revision, answer))
    }

    /// The digest of the live keys, the sessions and the revision: equal on all replicas at the same index.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest::of_revision(self.revision)
            .wrapping_add(self.store.digest())
            .wrapping_add(self.sessions.digest())
    }

    /// The shard's counter of changes.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The last entry that was applied; 0 before the first.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The number of live keys.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.store.keys()
    }

    /// The bytes of all live keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// The live sessions in order: id, ttl in milliseconds, and the entry that touched it last. A leader
    /// whose clock sees that entry stay the same for a ttl proposes to expire the session.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, u64, Index)> + '_ {
        self.sessions.iter()
    }

    /// Where a test plants [`PlantedBug::SessionsLostOnRestart`](super::PlantedBug::SessionsLostOnRestart):
    /// the driver calls it when a replica that started on an existing log has applied what it found there. It
    /// has no effect without that bug.
    #[cfg(debug_assertions)]
    pub fn restarted(&mut self) {
        if planted!(self.config, SessionsLostOnRestart) {
            self.sessions.clear();
        }
    }

    fn advance(&mut self, index: Index) {
        assert!(index == self.applied.next(), "entry {index} is applied after {}", self.applied);
        self.applied = index;
    }

    /// Applies a write, whoever sends it however often.
    fn write(&mut self, write: &Write) -> Result<Applied, Refusal> {
        let at = self.revision.next();
        let (answer, effect) = write::write(&mut self.store, &self.config, at, write)?;
        assert!(at > self.revision, "a write makes revision {at} after {}", self.revision);
        if effect == Effect::Changed || planted!(self.config, RevisionAlwaysSteps) {
            self.revision = at;
        }
        Ok(Applied { revision: self.revision, answer })
    }

    /// Applies a write unless its session has seen it, and keeps what came of it.
    fn write_once(&mut self, index: Index, id: RequestId, write: &Write) -> Result<Applied, Refusal> {
        let request_hash = write.request_hash();
        match self.sessions.admit(index, id, request_hash) {
            Admission::Fresh => {
                let outcome = self.write(write);
                self.sessions.store(id, request_hash, &outcome);
                outcome
            }
            Admission::Stored(outcome) => {
                if planted!(self.config, AppendNotIdempotent) && matches!(write, Write::Append { .. }) {
                    return self.write(write);
                }
                if planted!(self.config, ResendRevisionFresh) {
                    return outcome.map(|applied| Applied { revision: self.revision, ..applied });
                }
                outcome
            }
            Admission::Refused(refusal) => Err(refusal),
        }
    }

    /// One page of keys in order: at least one key where there is one, so that pages always get on.
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, bytes_max: u32, keys: ScanKeys) -> QueryAnswer {
        let limits = &self.config.limits;
        let keys_max = if limit == 0 { limits.scan_keys_max } else { limit.min(limits.scan_keys_max) };
        let bytes_max = limits.answer_bytes_max.min(bytes_max as usize);
        let mut kvs = Vec::new();
        let mut bytes = 0;
        for mut kv in self.store.range(start, end) {
            if keys == ScanKeys::KeysOnly {
                kv.value = Bytes::new();
            }
            bytes += txn::carried(&kv);
            let is_full = kvs.len() >= keys_max as usize || bytes > bytes_max;
            if is_full && !kvs.is_empty() {
                return QueryAnswer::Scan { kvs, more: Some(kv.key) };
            }
            kvs.push(kv);
        }
        QueryAnswer::Scan { kvs, more: None }
    }
}
