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

use std::ops::Bound;
use std::rc::Rc;

use bytes::Bytes;

use super::answer::{Answer, Applied, Refusal};
use super::command::{Command, Previous, RequestId, Write};
use super::digest;
use super::limits::{CARRIED_OVERHEAD_BYTES, Limits};
use super::memtable::Held;
use super::planted::planted;
use super::query::{Query, QueryAnswer, ScanKeys};
use super::resolve::Base;
use super::sessions::{Admission, Sessions};
use super::snapshot::{Frozen, Retired};
use super::store::{Keys, Store};
use super::table::{Footer, Part, TableError, TableErrorKind, TableIndex, TableMeta};
use super::txn;
use super::write::{self, Effect};
use crate::ids::{Index, Revision, SessionId, ShardId, Term};

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

/// The most keys that one page of a scan passes in memory, deleted ones included: about 1 ms.
const SCAN_PASSED_MAX: usize = 16_384;

/// The state of one shard.
pub struct State {
    config: Config,
    pub(super) store: Store,
    /// The state as it was when its memtable was frozen, until a table has it.
    frozen: Option<Frozen>,
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
            frozen: None,
            sessions: Sessions::new(config),
            revision: Revision(1),
            applied: Index(0),
        }
    }

    /// The place of a state that is lost: nothing is known but where it ended. It is there to be replaced,
    /// not to be asked.
    #[must_use]
    pub fn missing(config: Config, applied: Index) -> Self {
        Self { applied, ..Self::new(config) }
    }

    /// The state that a table holds. `sessions` are the pages that its footer names.
    pub fn from_table(config: Config, table: TableIndex, sessions: &Bytes) -> Result<Self, TableError> {
        let footer = table.footer().clone();
        let section = footer.sessions;
        let own = table.verify_sessions(sessions)?;
        let of_body = |error| Part::Sessions.wrong(section.offset, TableErrorKind::Body(error));
        let sessions = Sessions::decode(config, &own).map_err(of_body)?;
        let mismatch = |what, wanted, found| {
            let offset = Footer::offset(footer.file_length);
            Part::Footer.wrong(offset, TableErrorKind::Mismatch { what, wanted, found })
        };
        if footer.header.shard != config.shard {
            let (wanted, found) = (config.shard.0.into(), footer.header.shard.0.into());
            return Err(mismatch("the shard", wanted, found));
        }
        let (revision, applied) = (footer.meta.revision, footer.meta.applied);
        let state = Self {
            store: Store::of_table(config, Rc::new(table)),
            sessions,
            revision,
            applied,
            ..Self::new(config)
        };
        if state.digest() != footer.meta.digest {
            return Err(mismatch("the digest", state.digest(), footer.meta.digest));
        }
        Ok(state)
    }

    /// Applies the entry at `index`, the one after the last. A refusal has changed no key; it is as much an
    /// outcome of the entry as an answer, and the same on every replica.
    /// What it needs of the table was [resolved](Self::resolve) for this very state.
    pub fn apply(&mut self, index: Index, command: &Command, base: &Base) -> Result<Applied, Refusal> {
        base.assert_is_of(self.store.table().map(|table| &**table), self.applied);
        self.advance(index);
        let answer = match command {
            Command::Write { id: None, write } => return self.write(write, base),
            Command::Write { id: Some(id), write } => return self.write_once(index, *id, write, base),
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

    /// Applies the entry at `index` as [`Self::apply`] does, where that takes nothing of the table and one
    /// search of the memtable: a plain Put over what the memtable holds, as most are. `None`: it is another,
    /// and nothing was done.
    pub fn overwrite(&mut self, index: Index, command: &Command) -> Option<Applied> {
        let Command::Write {
            id: None,
            write: Write::Put { key, value, if_mod_revision: None, return_previous },
        } = command
        else {
            return None;
        };
        let Previous::Omit = return_previous else { return None };
        let at = self.revision.next();
        let version = self.store.overwrite(key, value, at)?;
        self.advance(index);
        self.revision = at;
        Some(Applied { revision: at, answer: Answer::Put { succeeded: true, previous: None, version } })
    }

    /// Has the processor fetch what commands and queries of these keys will need, where they are next: so
    /// their waits for memory overlap. It changes nothing.
    pub fn warm<'a>(&self, keys: impl Iterator<Item = &'a Bytes> + Clone) {
        self.store.warm(keys.map(|key| &key[..]));
    }

    /// Applies an entry that is no command: a new leader's no-op, or one of Raft's own.
    pub fn apply_noop(&mut self, index: Index) {
        self.advance(index);
    }

    /// Reads, at the shard's revision that is returned too. What it needs of the table was
    /// [resolved](Self::resolve_query) for this very state.
    pub fn query(&self, query: &Query, base: &Base) -> Result<(Revision, QueryAnswer), Refusal> {
        base.assert_is_of(self.store.table().map(|table| &**table), self.applied);
        let stored = self.store.reading(base);
        let answer = match query {
            Query::Get { key } => QueryAnswer::Get(stored.get(key)),
            Query::Scan { start, end, limit, bytes_max, keys } => {
                let bounds = self.page_bounds(*limit, *bytes_max);
                scan(stored, base, (start, end), bounds, *keys)
            }
            Query::Txn(txn) => txn::read(stored, &self.config.limits, txn)?,
        };
        Ok((self.revision, answer))
    }

    /// Freezes the state as it is, for a table to be made of it by a [`Merge`](super::Merge), and begins a
    /// new memtable above it. Only where nothing is frozen. The driver says of which term the last applied
    /// entry is, and who belongs to the group at it.
    pub fn freeze(&mut self, applied_term: Term, membership: Bytes) -> Frozen {
        assert!(self.frozen.is_none(), "the state is frozen at {} and was before", self.applied);
        let has_sessions = !planted!(self.config, SessionsMissingFromTable);
        let is_apart = planted!(self.config, AppliedIndexApartFromState);
        let sums = self.store.sums();
        let sessions_digest = if has_sessions { self.sessions.digest() } else { 0 };
        let meta = TableMeta {
            applied: if is_apart { self.applied.next() } else { self.applied },
            applied_term,
            revision: self.revision,
            sums,
            digest: digest_of(self.revision, sums.digest, sessions_digest),
            membership,
        };
        let sessions = if has_sessions { self.sessions.frozen() } else { Vec::new() };
        let frozen = Frozen::new(self.config.shard, meta, self.store.freeze(), sessions);
        self.frozen = Some(frozen.clone());
        frozen
    }

    /// What was frozen and is in no table yet: for a merge that has to begin again.
    #[must_use]
    pub fn frozen(&self) -> Option<&Frozen> {
        self.frozen.as_ref()
    }

    /// Puts the table that the frozen state became in the place of that state and of the table below it. What
    /// is let go of; the merge has to be gone.
    pub fn install_table(&mut self, table: TableIndex) -> Retired {
        let Some(frozen) = self.frozen.take() else { panic!("a table is installed and nothing was frozen") };
        let (wanted, found) = (frozen.meta(), table.meta());
        assert!(wanted == found, "the table holds {found:?}, and {wanted:?} was frozen");
        assert!(table.footer().header.shard == self.config.shard, "{:?} is another's", table.footer().header);
        drop(frozen);
        Retired::of([self.store.install(Rc::new(table))].into_iter())
    }

    /// The table below the memtables.
    #[must_use]
    pub fn table(&self) -> Option<&Rc<TableIndex>> {
        self.store.table()
    }

    /// Ends the state, where another takes its place. What is let go of.
    pub fn retire(self) -> Retired {
        drop(self.frozen);
        Retired::of(self.store.into_memtables())
    }

    /// About how much memory the changes since the last freeze hold.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.store.memtable_bytes()
    }

    /// About how much memory the frozen changes hold.
    #[must_use]
    pub fn frozen_bytes(&self) -> usize {
        self.frozen.as_ref().map_or(0, Frozen::memory_bytes)
    }

    /// The digest of the live keys, the sessions and the revision: equal on all replicas at the same index.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest_of(self.revision, self.store.sums().digest, self.sessions.digest())
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
        self.store.sums().keys
    }

    /// The bytes of all live keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.store.sums().bytes
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

    /// Changes what a bad memory could: for tests that want to see it found.
    #[cfg(debug_assertions)]
    pub fn rot(&mut self) {
        self.revision = self.revision.next();
    }

    fn advance(&mut self, index: Index) {
        assert!(index == self.applied.next(), "entry {index} is applied after {}", self.applied);
        self.applied = index;
    }

    /// Applies a write, whoever sends it however often.
    fn write(&mut self, write: &Write, base: &Base) -> Result<Applied, Refusal> {
        let at = self.revision.next();
        let (answer, effect) = write::write(&mut self.store.writing(base), &self.config, at, write)?;
        assert!(at > self.revision, "a write makes revision {at} after {}", self.revision);
        if effect == Effect::Changed || planted!(self.config, RevisionAlwaysSteps) {
            self.revision = at;
        }
        Ok(Applied { revision: self.revision, answer })
    }

    /// Applies a write unless its session has seen it, and keeps what came of it.
    fn write_once(
        &mut self,
        index: Index,
        id: RequestId,
        write: &Write,
        base: &Base,
    ) -> Result<Applied, Refusal> {
        let request_hash = write.request_hash();
        match self.sessions.admit(index, id, request_hash) {
            Admission::Fresh => {
                let outcome = self.write(write, base);
                self.sessions.store(id, request_hash, &outcome);
                outcome
            }
            Admission::Stored(outcome) => {
                if planted!(self.config, AppendNotIdempotent) && matches!(write, Write::Append { .. }) {
                    return self.write(write, base);
                }
                if planted!(self.config, ResendRevisionFresh) {
                    return outcome.map(|applied| Applied { revision: self.revision, ..applied });
                }
                outcome
            }
            Admission::Refused(refusal) => Err(refusal),
        }
    }

    /// The most keys and bytes of a page of a scan.
    pub(super) fn page_bounds(&self, limit: u32, bytes_max: u32) -> (usize, usize) {
        let limits = &self.config.limits;
        let keys_max = if limit == 0 { limits.scan_keys_max } else { limit.min(limits.scan_keys_max) };
        (keys_max as usize, limits.answer_bytes_max.min(bytes_max as usize))
    }
}

/// The digest of a state with these parts.
pub(super) fn digest_of(revision: Revision, keys: u64, sessions: u64) -> u64 {
    digest::of_revision(revision).wrapping_add(keys).wrapping_add(sessions)
}

/// One page of keys in order. It has a key, or passed many that were deleted; either way the next page begins
/// behind it, so that pages always get on.
fn scan(
    stored: Keys<'_>,
    base: &Base,
    (start, end): (&[u8], &[u8]),
    (keys_max, bytes_max): (usize, usize),
    keys: ScanKeys,
) -> QueryAnswer {
    let asked = (!end.is_empty()).then_some(end);
    // Beyond the run, the table was not looked at.
    let until = base.run_until().map(|until| &until[..]);
    let bound = until.or(asked).map_or(Bound::Unbounded, Bound::Excluded);
    let mut page: Vec<(&[u8], Held<'_>)> = Vec::new();
    let mut more = base.run_until().map(|until| &until[..]);
    let mut bytes = 0;
    for (passed, (key, held)) in stored.walk(Bound::Included(start), bound).enumerate() {
        if passed >= SCAN_PASSED_MAX {
            more = Some(key);
            break;
        }
        let Some(held) = held else { continue };
        let value_bytes = match keys {
            ScanKeys::KeysOnly => 0,
            ScanKeys::Whole => held.value_bytes,
        };
        bytes += CARRIED_OVERHEAD_BYTES + key.len() + value_bytes;
        let is_full = page.len() >= keys_max || bytes > bytes_max;
        if is_full && !page.is_empty() {
            more = Some(key);
            break;
        }
        page.push((key, held));
    }
    // References are counted in a pass of their own: among the walk they would have it wait for memory.
    let answered = page.into_iter().map(|(key, held)| match keys {
        ScanKeys::KeysOnly => held.key_alone(key),
        ScanKeys::Whole => held.key_value(key),
    });
    QueryAnswer::Scan { kvs: answered.collect(), more: more.map(Bytes::copy_from_slice) }
}
