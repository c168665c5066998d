//! How the state of a shard becomes its next table while the shard goes on serving.
//!
//! ```text
//!   due ─► freeze (no copy) ─► merge with the table below, in steps ─► file synced, directory synced
//!       ─► read back ─► manifest, both copies ─► installed: memory and the table before are let go of
//! ```
//!
//! It is due by the rules of [`Snapshots`]. One shard of a core is made into a table at a time; between two
//! steps the core's other work has its turn.
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

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::{Env, File, Instant, OpenMode};
use crate::ids::ShardId;
use crate::kv::table::{Chunk, TableIndex};
use crate::kv::{Frozen, Merge, MergeError, MergeStep, Retired};
use crate::log::{Lane, TableRef, table_name};
use crate::shard::config::{Config, PlantedBug, Snapshots};
use crate::shard::end::RunEnd;
use crate::shard::fetch::remove_parts;
use crate::shard::replica::Replica;
use crate::shard::runner::Runner;
use crate::shard::table::{OpenTable, TableFile, TableReadError, footer_checksum, open_table};

/// How long a shard rests whose table could not be written.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Keys of a memtable that are let go of at once.
pub(crate) const RETIRED_KEYS: usize = 1024;

/// What a snapshot is made of.
pub(crate) struct Job<E: Env> {
    shard: ShardId,
    frozen: Frozen,
    below: Option<(Rc<TableIndex>, Rc<TableFile<E>>)>,
    lane: Lane<E>,
    settings: Snapshots,
    salt: u64,
}

/// What has changed since a shard's state was frozen last, and what becomes of that.
pub(crate) struct Changes {
    /// Bytes of the entries applied since.
    bytes: usize,
    since: Instant,
    /// A table is being made.
    pub(crate) is_running: bool,
    rests_until: Instant,
    /// Somebody asked for a table, whatever has changed.
    is_asked: bool,
    /// A table is due, and the own disk does not hold yet what is applied.
    pub(crate) waits_for_disk: bool,
}

impl Changes {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            bytes: 0,
            since: now,
            is_running: false,
            rests_until: now,
            is_asked: false,
            waits_for_disk: false,
        }
    }

    /// An entry of so many bytes was applied.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Snapshots {
    /// Whether so many bytes of changes, the first of them so long ago, are to be made into a table, over one
    /// of `table_bytes`.
    fn is_due(&self, changes: usize, age: Duration, table_bytes: usize) -> bool {
        let is_large = changes >= (table_bytes / 2).clamp(self.changes_bytes_min, self.changes_bytes_max);
        let is_old = age >= self.every && changes >= table_bytes / 8;
        is_large || is_old || age >= self.every * 16
    }
}

impl<E: Env> Replica<E> {
    /// Whether this shard's changes are to be made into a table now, and how much they are.
    pub(crate) fn snapshot_due(&mut self, config: &Config, now: Instant) -> Option<usize> {
        let applied = self.state.applied();
        let in_table = self.state.table().map_or(0, |table| table.meta().applied.0);
        let is_replaying = applied < self.committed_at_start;
        let changes = &self.changes;
        if changes.is_running || now < changes.rests_until || is_replaying {
            return None;
        }
        if self.state.frozen().is_some() {
            return Some(usize::MAX);
        }
        let bytes = changes.bytes.max(self.state.memtable_bytes());
        let table = self.state.table().map_or(0, |table| table.footer().file_length);
        let table = usize::try_from(table).unwrap_or(usize::MAX);
        let is_due = config.snapshots.is_due(bytes, now.since(changes.since), table);
        let has_changes = applied.0 > in_table;
        let is_due = has_changes && (is_due || changes.is_asked);
        let is_urgent = changes.is_asked;
        let is_durable = applied <= self.raft.persisted_index();
        // A disk that lags is given the time to come up: the state waits for it.
        self.changes.waits_for_disk = is_due && !is_durable;
        (is_due && is_durable).then_some(if is_urgent { usize::MAX - 1 } else { bytes })
    }

    /// Whether so much has changed that more is refused until a table has some of it.
    pub(crate) fn has_too_many_changes(&self, config: &Config) -> bool {
        self.state.memtable_bytes() > config.snapshots.changes_bytes_max.saturating_mul(2)
    }

    /// A table is wanted, whatever has changed.
    pub(crate) fn ask_snapshot(&mut self) {
        self.changes.is_asked = true;
    }

    /// Freezes the state, or takes up again what was frozen.
    pub(crate) fn begin_snapshot(&mut self, config: &Config, (now, salt): (Instant, u64)) -> Job<E> {
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
                self.changes = Changes::new(now);
                self.state.freeze(term, membership(config))
            }
        };
        self.changes.is_running = true;
        if config.is_planted(PlantedBug::LogReleasedBeforeTable) {
            self.let_go_up_to(applied);
        }
        let below = self.state.table().cloned().zip(self.table.clone());
        let (shard, lane, settings) = (self.shard, self.lane.clone(), config.snapshots);
        Job { shard, frozen, below, lane, settings, salt: salt.max(1) }
    }

    /// The table is there, and the manifest names it. What is let go of.
    pub(crate) fn install_snapshot(&mut self, table: OpenTable<E>, keep_entries: u64) -> Retired {
        if let Some(before) = self.table.replace(Rc::new(table.file)) {
            self.cache.borrow_mut().forget_table(before.salt());
        }
        self.changes.is_running = false;
        let retired = self.state.install_table(table.index);
        self.let_go_of_log(keep_entries);
        retired
    }

    /// The table could not be made.
    pub(crate) fn snapshot_failed(&mut self, now: Instant) {
        self.changes.is_running = false;
        self.changes.rests_until = now + RETRY_AFTER;
    }
}

/// Who votes, as the table says it: the ids, four bytes each.
fn membership(config: &Config) -> Bytes {
    config.layout.voters().iter().flat_map(|voter| voter.0.to_le_bytes()).collect()
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

/// Makes the table, has the manifest name it, and installs it.
pub(crate) async fn run<E: Env>(env: E, runner: Runner<E>, job: Job<E>) {
    let (shard, began) = (job.shard, env.now());
    let (lane, settings) = (job.lane.clone(), job.settings);
    let made = make(&env, &job).await;
    // Nobody but the state may hold what was frozen when the state lets go of it.
    drop(job);
    match made {
        Ok((named, table)) => {
            if lane.switch_table(shard, named).await.is_none() {
                return;
            }
            let TableRef { index, bytes, .. } = named;
            let ms = env.now().since(began).as_millis();
            tracing::info!(%shard, %index, bytes, ms, "a table was made");
            let mut retired = runner.install_snapshot(shard, table);
            // A part file of a table that was fetched once is older than this one.
            if runner.is_fetching(shard) {
                // It is in use.
            } else if let Err(source) = remove_parts(&env, &lane, shard).await {
                tracing::warn!(%shard, %source, "what is left of a fetched table could not be removed");
            }
            while retired.drop_some(RETIRED_KEYS) {
                env.sleep(settings.rest).await;
            }
        }
        Err(failure @ Failure::Write { .. }) => {
            tracing::warn!(%shard, %failure, "no table was made; the next try comes in a while");
            runner.snapshot_failed(shard);
        }
        Err(Failure::Read(source)) => runner.end(RunEnd::Table { shard, source }),
        Err(Failure::Merge(source)) => runner.end(RunEnd::Merge { shard, source }),
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
        // It may not even have been made, and no manifest names it: the next start removes it.
        let _ = env.remove(&path).await;
    }
    made
}

async fn write<E: Env>(env: &E, job: &Job<E>, path: &Path) -> Result<TableRef, Failure> {
    let failed = |source| Failure::Write { path: path.to_path_buf(), source };
    let file = env.open(path, OpenMode::Create).await.map_err(failed)?;
    let below = job.below.as_ref();
    let mut merge = Merge::new(job.frozen.clone(), below.map(|(index, _)| Rc::clone(index)), job.salt);
    let mut checksum = 0;
    loop {
        match merge.step(job.settings.step_bytes).map_err(Failure::Merge)? {
            MergeStep::Again => env.sleep(job.settings.rest).await,
            MergeStep::Block(handle) => {
                let (_, file) = below.expect("blocks are asked for of a table below");
                merge.feed(file.block(handle).await.map_err(Failure::Read)?);
            }
            MergeStep::Output => {
                while let Some(chunk) = merge.take_output() {
                    checksum = last_page_checksum(&chunk);
                    write_chunk(env, &file, chunk).await.map_err(failed)?;
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

/// Of the last chunk, the checksum of the footer.
fn last_page_checksum(chunk: &Chunk<'_>) -> u64 {
    let page = chunk.bytes.len().saturating_sub(crate::kv::table::PAGE_BYTES);
    footer_checksum(&chunk.bytes[page..])
}

async fn write_chunk<E: Env>(env: &E, file: &E::File, chunk: Chunk<'_>) -> io::Result<()> {
    let mut buf = env.buf(chunk.bytes.len());
    buf.as_mut().copy_from_slice(chunk.bytes);
    file.write_at(Rc::new(buf), chunk.offset).await
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
            let found = settings.is_due(changes, age, table);
            assert_eq!(found, is_due, "{changes} bytes after {age:?} over {table}");
        }
    }
}
