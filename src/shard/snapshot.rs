//! How the state of a shard becomes its next table while the shard goes on serving.
//!
//! ```text
//!   due ─► freeze (no copy) ─► merge with the table below, in steps ─► file synced, directory synced
//!       ─► read back ─► manifest, both copies ─► installed: memory and the table before are let go of
//! ```
//!
//! It is due by the rules of [`Snapshots`]. One shard of a core is made into a table at a time, and no more
//! of a node than it has [`permits`](crate::shard::permits) for; between two steps the core's other work has
//! its turn.
//!
//! Why a crash is safe at any point: until the manifest names the new file it is a file that nobody names,
//! removed by the next start; from then on it is whole, and durable with its directory. Frozen changes stay
//! in the log, and in memory, until then.
//!
//! Invariants:
//! - A state is frozen at an index that its own disk holds durable.
//! - What was frozen stays readable until a table has it: what failed begins again with it.
//! - A merge whose outcome does not add up to what was frozen becomes no table.
//!
//! It lives on the core of its shard. A disk that is full, or fails to write the file, is a state: the file
//! is removed, and the next try comes later.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::{Env, File, Instant, OpenMode};
use crate::ids::{Index, NodeId, ShardId};
use crate::kv::table::{Chunk, TableIndex};
use crate::kv::{Frozen, Merge, MergeError, MergeStep, Retired};
use crate::log::{Lane, TableRef, table_name};
use crate::shard::cache::SharedCache;
use crate::shard::config::{Config, PlantedBug, Snapshots};
use crate::shard::fetch::remove_parts;
use crate::shard::permits::Permit;
use crate::shard::repair::Spoil;
use crate::shard::replica::Replica;
use crate::shard::runner::Runner;
use crate::shard::space::is_full;
use crate::shard::table::{OpenTable, TableFile, TableReadError, footer_checksum, open_table};
use crate::shard::warm::Warming;

/// How long a shard rests whose table could not be written.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Keys of a memtable that are let go of at once.
pub(crate) const RETIRED_KEYS: usize = 1024;

/// Blocks of a table that is no more that are let go of at once.
const RETIRED_BLOCKS: usize = 256;

/// How much is merged before it is looked at the clock.
const SLICE_BYTES: usize = 8 << 10;

/// What a snapshot is made of.
pub(crate) struct Job<E: Env> {
    shard: ShardId,
    frozen: Frozen,
    below: Option<(Rc<TableIndex>, Rc<TableFile<E>>)>,
    lane: Lane<E>,
    cache: SharedCache,
    settings: Snapshots,
    salt: u64,
    /// How much of it is written.
    written: Rc<Cell<u64>>,
    /// How long the merge rests between two steps now.
    rest: Rc<Cell<Duration>>,
}

/// What has changed since a shard's state was frozen last, and what becomes of that.
pub(crate) struct Changes {
    /// Bytes of the entries applied since.
    bytes: usize,
    since: Instant,
    /// How much of what makes a table due is enough for this one.
    share: Share,
    /// A table is being made.
    pub(crate) is_running: bool,
    rests_until: Instant,
    /// Somebody asked for a table, whatever has changed.
    is_asked: bool,
    /// Somebody waits for the table that is being made.
    pub(crate) is_awaited: bool,
    /// A table is due, and the own disk does not hold yet what is applied.
    pub(crate) waits_for_disk: bool,
    /// Bytes that are written of the table that is being made.
    pub(crate) written: Rc<Cell<u64>>,
    /// The last try to make a table found no room for it.
    pub(crate) found_no_room: bool,
}

impl Changes {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            bytes: 0,
            since: now,
            share: Share::WHOLE,
            is_running: false,
            rests_until: now,
            is_asked: false,
            is_awaited: false,
            waits_for_disk: false,
            written: Rc::default(),
            found_no_room: false,
        }
    }

    /// The same after a start.
    pub(crate) fn at_start(config: &Config, shard: ShardId, now: Instant) -> Self {
        Self { share: Share::of(config, shard), ..Self::new(now) }
    }

    /// An entry of so many bytes was applied.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

/// How much of what makes a table due is enough for the first one after a start, of 65536.
///
/// Shards that are written to alike would have their tables due at the same moment, on every node, round
/// after round; and calls wait for all of them. So the first tables come one after another, in the second
/// half of their time, and those behind them keep that distance. Multiples of the golden ratio lie evenly
/// however many there are (Knuth, The Art of Computer Programming, volume 3, 6.4, theorem S).
#[derive(Clone, Copy, Debug)]
struct Share(u32);

impl Share {
    const WHOLE: Self = Self(1 << 16);

    /// Of a shard on this node.
    fn of(config: &Config, shard: ShardId) -> Self {
        let (nodes, node) = (config.layout.nodes, config.node());
        Self::of_place(shard.0.wrapping_mul(nodes).wrapping_add(node.0))
    }

    fn of_place(place: u32) -> Self {
        const GOLDEN: u32 = 0x9E37_79B9;
        Self(Self::WHOLE.0 - (place.wrapping_mul(GOLDEN) >> 17))
    }

    fn of_bytes(self, bytes: usize) -> usize {
        usize::try_from((bytes as u128 * u128::from(self.0)) >> 16)
            .expect("a share is no more than the whole")
    }

    fn of_time(self, time: Duration) -> Duration {
        time * self.0 / Self::WHOLE.0
    }
}

impl Snapshots {
    /// Whether so many bytes of changes, the first of them so long ago, are to be made into a table, over one
    /// of `table_bytes`.
    fn is_due(&self, (changes, age): (usize, Duration), table_bytes: usize, share: Share) -> bool {
        let enough = (table_bytes / 2).clamp(self.changes_bytes_min, self.changes_bytes_max);
        let is_large = changes >= share.of_bytes(enough);
        let is_old = age >= share.of_time(self.every) && changes >= table_bytes / 8;
        is_large || is_old || age >= self.every * 16
    }
}

impl<E: Env> Replica<E> {
    /// Whether this shard's changes are to be made into a table now, and how much they are.
    pub(crate) fn snapshot_due(&mut self, config: &Config, now: Instant) -> Option<usize> {
        let applied = self.state.applied();
        let in_table = self.state.table().map_or(0, |table| table.meta().applied.0);
        let changes = &self.changes;
        // A start replays first, but where that fills the memory.
        let is_starting = self.is_replaying() && !self.memory_is_full(config);
        if self.repair.is_spoiled() || changes.is_running || now < changes.rests_until || is_starting {
            return None;
        }
        if !self.next_table_fits() {
            self.changes.waits_for_disk = false;
            return None;
        }
        if self.state.frozen().is_some() {
            return Some(usize::MAX);
        }
        let bytes = changes.bytes.max(self.state.memtable_bytes());
        // What was deleted takes room until the table is written again, however few bytes said so.
        let bytes = bytes.max(usize::try_from(self.deleted_bytes()).unwrap_or(usize::MAX));
        let table = self.state.table().map_or(0, |table| table.footer().file_length);
        let table = usize::try_from(table).unwrap_or(usize::MAX);
        let (age, every) = (now.since(changes.since), config.snapshots.every);
        let is_due =
            config.snapshots.is_due((bytes, age), table, changes.share) || self.is_due_for_room(age, every);
        let has_changes = applied.0 > in_table;
        let is_due = has_changes && (is_due || changes.is_asked);
        let is_urgent = changes.is_asked;
        let is_durable = applied <= self.raft.persisted_index();
        // A disk that lags is given the time to come up: the state waits for it.
        self.changes.waits_for_disk = is_due && !is_durable;
        (is_due && is_durable).then_some(if is_urgent { usize::MAX - 1 } else { bytes })
    }

    /// Whether it has not applied yet what its log knew to be committed when it started.
    pub(crate) fn is_replaying(&self) -> bool {
        self.state.applied() < self.committed_at_start
    }

    /// Whether so much has changed that more is refused until a table has some of it.
    pub(crate) fn has_too_many_changes(&self, config: &Config) -> bool {
        self.state.memtable_bytes() > config.snapshots.changes_bytes_max.saturating_mul(2)
    }

    /// Whether so much has changed that not even what is committed is applied before a table has some of it.
    /// A leader has refused all but deletes long before: most often this is a follower that makes its tables
    /// more slowly than others. What is not applied waits in the log.
    pub(crate) fn memory_is_full(&self, config: &Config) -> bool {
        self.state.memtable_bytes() > config.snapshots.changes_bytes_max.saturating_mul(4)
    }

    /// Whether a table is due, and waits for the own disk to hold what is applied.
    pub(crate) fn waits_for_disk(&self) -> bool {
        self.changes.waits_for_disk && !self.changes.is_running && !self.repair.is_spoiled()
    }

    /// A table is wanted, whatever has changed.
    pub(crate) fn ask_snapshot(&mut self) {
        self.changes.is_asked = true;
    }

    /// Whether this shard cannot wait for long until its core has made a table.
    pub(crate) fn hurries_tables(&self, config: &Config) -> bool {
        let bytes = self.changes.bytes.max(self.state.memtable_bytes());
        self.changes.is_asked
            || self.changes.is_awaited
            || bytes >= config.snapshots.changes_bytes_max / 4 * 3
    }

    /// Freezes the state, or takes up again what was frozen.
    pub(crate) fn begin_snapshot(
        &mut self,
        config: &Config,
        (now, salt): (Instant, u64),
        rest: Rc<Cell<Duration>>,
    ) -> Job<E> {
        assert!(!self.changes.is_running, "shard {}: two tables are made at once", self.shard);
        let applied = self.state.applied();
        let frozen = match self.state.frozen() {
            Some(frozen) => frozen.clone(),
            None => {
                let durable = self.raft.persisted_index();
                assert!(
                    applied <= durable,
                    "shard {}: frozen at {applied}, {durable} is durable",
                    self.shard
                );
                let term = self.raft.term_at(applied).expect("the log knows the term of what was applied");
                let is_awaited = self.changes.is_asked;
                self.changes = Changes { is_awaited, ..Changes::new(now) };
                self.state.freeze(term, membership_of(&config.layout.voters()))
            }
        };
        self.changes.is_running = true;
        let written = Rc::clone(&self.changes.written);
        if config.is_planted(PlantedBug::LogReleasedBeforeTable) {
            self.let_go_up_to(applied);
        }
        let below = self.state.table().cloned().zip(self.table.clone());
        let (shard, lane, settings) = (self.shard, self.lane.clone(), config.snapshots);
        let cache = Rc::clone(&self.cache);
        Job { shard, frozen, below, lane, cache, settings, salt: salt.max(1), written, rest }
    }

    /// The table is there, and the manifest names it. What is let go of.
    pub(crate) fn install_snapshot(&mut self, table: OpenTable<E>, keep_entries: u64) -> Retired {
        self.table = Some(Rc::new(table.file));
        self.looked_ahead = Index(0);
        (self.changes.is_running, self.changes.found_no_room) = (false, false);
        self.changes.is_awaited = false;
        self.changes.written.set(0);
        let retired = self.state.install_table(table.index);
        self.let_go_of_log(keep_entries);
        retired
    }

    /// The table could not be made, for want of room or for another reason.
    pub(crate) fn snapshot_failed(&mut self, found_no_room: bool, now: Instant) {
        (self.changes.is_running, self.changes.found_no_room) = (false, found_no_room);
        self.changes.written.set(0);
        self.changes.rests_until = now + RETRY_AFTER;
    }
}

/// Who votes, as the table says it: the ids, four bytes each.
pub(crate) fn membership_of(voters: &[NodeId]) -> Bytes {
    voters.iter().flat_map(|voter| voter.0.to_le_bytes()).collect()
}

/// Why no table was made.
enum Failure {
    /// The file could not be written.
    Write { path: PathBuf, source: io::Error },
    /// The table below, or what was written, could not be read.
    Read(TableReadError),
    /// What was merged is not what was frozen.
    Merge(MergeError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Read(source) => source.fmt(f),
            Self::Merge(source) => source.fmt(f),
        }
    }
}

/// Makes the table, has the manifest name it, and installs it. The permit is given back with that, or with a
/// failure.
pub(crate) async fn run<E: Env>(env: E, runner: Runner<E>, job: Job<E>, permit: Permit) {
    let (shard, began) = (job.shard, env.now());
    let (lane, settings, cache) = (job.lane.clone(), job.settings, Rc::clone(&job.cache));
    let before = job.below.as_ref().map(|(index, _)| index.salt());
    let made = make(&env, &job).await;
    // Nobody but the state may hold what was frozen when the state lets go of it.
    drop(job);
    match made {
        Ok((named, table)) => {
            if runner.is_spoiled(shard) {
                // It was made of a state that is not to be trusted. A file that stays is named by nobody.
                let path = lane.dir().join(table_name(shard, named.generation));
                if let Err(source) = env.remove(&path).await {
                    tracing::warn!(%shard, %source, "a table that is not wanted could not be removed");
                }
                return runner.snapshot_failed(shard, false);
            }
            if lane.switch_table(shard, named).await.is_none() {
                return;
            }
            let TableRef { index, bytes, .. } = named;
            let ms = env.now().since(began).as_millis();
            tracing::info!(%shard, %index, bytes, ms, "a table was made");
            let mut retired = runner.install_snapshot(shard, table);
            drop(permit);
            // A part file of a table that was fetched once is older than this one.
            if runner.is_fetching(shard) {
                // It is in use.
            } else if let Err(source) = remove_parts(&env, &lane, shard).await {
                tracing::warn!(%shard, %source, "what is left of a fetched table could not be removed");
            }
            while retired.drop_some(RETIRED_KEYS) {
                env.sleep(settings.rest).await;
            }
            while before.is_some_and(|salt| cache.borrow_mut().forget_some(salt, RETIRED_BLOCKS)) {
                env.sleep(settings.rest).await;
            }
        }
        Err(Failure::Write { path, source }) => {
            let is_full = is_full(&source);
            let failure = Failure::Write { path, source };
            tracing::warn!(%shard, %failure, "no table was made; the next try comes in a while");
            runner.snapshot_failed(shard, is_full);
        }
        Err(Failure::Read(source)) => runner.snapshot_spoiled(shard, Spoil::Table(source)),
        Err(Failure::Merge(source)) => runner.snapshot_spoiled(shard, Spoil::Merge(source)),
    }
}

/// Writes the file and reads it back. What was written of it is removed where that fails.
async fn make<E: Env>(env: &E, job: &Job<E>) -> Result<(TableRef, OpenTable<E>), Failure> {
    let path = job.lane.dir().join(table_name(job.shard, job.salt));
    let written = write(env, job, &path).await;
    let made = match written {
        Ok(named) => {
            let opened = open_table(env, job.lane.dir(), job.shard, &named).await;
            opened.map(|table| (named, table)).map_err(Failure::Read)
        }
        Err(failure) => Err(failure),
    };
    if made.is_err() {
        job.cache.borrow_mut().forget_table(job.salt);
        // It may not even have been made, and no manifest names it: the next start removes it.
        let _ = env.remove(&path).await;
    }
    made
}

async fn write<E: Env>(env: &E, job: &Job<E>, path: &Path) -> Result<TableRef, Failure> {
    let failed = |source| Failure::Write { path: path.to_path_buf(), source };
    let file = env.open(path, OpenMode::Create).await.map_err(failed)?;
    let below = job.below.as_ref();
    let index_below = below.map(|(index, _)| Rc::clone(index));
    let warming = Warming::new(Rc::clone(&job.cache), index_below.clone());
    let mut merge = Merge::new(job.frozen.clone(), index_below, job.salt);
    let mut turn = MergeTurn::new(env, job);
    let (mut checksum, mut buf) = (0, None);
    loop {
        match merge.step(SLICE_BYTES).map_err(Failure::Merge)? {
            MergeStep::Again => turn.merged(SLICE_BYTES).await,
            MergeStep::Block(handle) => {
                let (_, file) = below.expect("blocks are asked for of a table below");
                match warming.at_hand(&handle) {
                    Some(block) => merge.feed(block),
                    None => merge.feed(turn.other(file.block(handle)).await.map_err(Failure::Read)?),
                }
            }
            MergeStep::Output => {
                while let Some(chunk) = merge.take_output() {
                    checksum = last_page_checksum(&chunk);
                    job.written.set(job.written.get() + chunk.bytes.len() as u64);
                    warming.take(&chunk);
                    turn.other(write_chunk(env, &file, chunk, &mut buf)).await.map_err(failed)?;
                }
            }
            MergeStep::Done => break,
        }
    }
    file.sync().await.map_err(failed)?;
    file.close().await.map_err(failed)?;
    env.sync_dir(job.lane.dir()).await.map_err(failed)?;
    let footer = merge.footer().expect("a merge that is done has a footer");
    Ok(TableRef {
        generation: job.salt,
        index: footer.meta.applied,
        term: footer.meta.applied_term,
        bytes: footer.file_length,
        footer_checksum: checksum,
    })
}

/// A merge's turn of the core: how long it has gone on, and with how much.
struct MergeTurn<'a, E: Env> {
    env: &'a E,
    job: &'a Job<E>,
    began: Instant,
    bytes: usize,
}

impl<'a, E: Env> MergeTurn<'a, E> {
    fn new(env: &'a E, job: &'a Job<E>) -> Self {
        Self { env, job, began: env.now(), bytes: 0 }
    }

    /// So much more was merged: the others have their turn where this one has used up its time, or its bytes
    /// where the clock stands still.
    async fn merged(&mut self, bytes: usize) {
        self.bytes += bytes;
        let settings = &self.job.settings;
        let is_over =
            self.bytes >= settings.step_bytes || self.env.now().since(self.began) >= settings.step_time;
        if is_over {
            let rest = self.env.sleep(self.job.rest.get());
            self.other(rest).await;
        }
    }

    /// The others have their turn while this is waited for.
    async fn other<T>(&mut self, waited: impl Future<Output = T>) -> T {
        let outcome = waited.await;
        (self.began, self.bytes) = (self.env.now(), 0);
        outcome
    }
}

/// Of the last chunk, the checksum of the footer.
fn last_page_checksum(chunk: &Chunk<'_>) -> u64 {
    let page = chunk.bytes.len().saturating_sub(crate::kv::table::PAGE_BYTES);
    footer_checksum(&chunk.bytes[page..])
}

/// Writes a chunk, from the buffer of the one before where that is as long: new memory costs more, page by
/// page, than what is written from it.
async fn write_chunk<E: Env>(
    env: &E,
    file: &E::File,
    chunk: Chunk<'_>,
    buf: &mut Option<Rc<E::Buf>>,
) -> io::Result<()> {
    let before = buf.take().and_then(Rc::into_inner);
    let before = before.filter(|before| before.as_ref().len() == chunk.bytes.len());
    let mut filled = before.unwrap_or_else(|| env.buf(chunk.bytes.len()));
    filled.as_mut().copy_from_slice(chunk.bytes);
    file.write_at(Rc::clone(buf.insert(Rc::new(filled))), chunk.offset).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_depends_on_changes_table_and_age() {
        let settings = Snapshots::default();
        let (new, old) = (Duration::ZERO, settings.every);
        let mib = 1 << 20;
        for (changes, age, table, is_due) in [
            (mib, new, 0, false),
            (4 * mib, new, 0, true),
            (4 * mib, new, 40 * mib, false),
            (20 * mib, new, 40 * mib, true),
            (32 * mib, new, 4096 * mib, true),
            (mib, old, 4 * mib, true),
            (mib, old, 40 * mib, false),
            (1, old * 16, 40 * mib, true),
        ] {
            let found = settings.is_due((changes, age), table, Share::WHOLE);
            assert_eq!(found, is_due, "{changes} bytes after {age:?} over {table}");
        }
        let half = Share(1 << 15);
        assert!(settings.is_due((2 * mib, new), 0, half) && !settings.is_due((2 * mib - 1, new), 0, half));
        assert!(settings.is_due((mib, old / 2), 4 * mib, half));
    }

    #[test]
    fn the_first_tables_of_shards_and_nodes_are_due_one_after_another() {
        for count in [3, 8, 24, 64 * 3, 512 * 5] {
            let mut shares: Vec<u32> = (0..count).map(|place| Share::of_place(place).0).collect();
            shares.sort_unstable();
            assert!(
                shares[0] > Share::WHOLE.0 / 2 && shares[shares.len() - 1] == Share::WHOLE.0,
                "{shares:?}"
            );
            let even = Share::WHOLE.0 / 2 / count;
            let gaps = shares.windows(2).map(|pair| pair[1] - pair[0]);
            let (least, most) = gaps.fold((u32::MAX, 0), |(l, m), gap| (l.min(gap), m.max(gap)));
            assert!(least >= even / 3 && most <= even * 3, "{count}: {least} to {most}, {even} were even");
        }
    }
}
