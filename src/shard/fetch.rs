//! How a follower that is behind its leader's log gets the leader's table: in parts, each asked for when the
//! one before is written.
//!
//! ```text
//!   offer ─► ask (generation, offset) ──────────► leader reads and checks a part of its table
//!        ◄── part: which table, where, bytes ────┘
//!        ─► written to table-….part ─► the next … ─► all of it checked, block by block
//!        ─► named as a table, durable ─► manifest ─► installed, raft goes on behind it
//! ```
//!
//! Asking is what limits the rate: one part is on its way at a time, with a rest after each, one table at a
//! time on a core, and no more on a node than it has [`permits`](crate::shard::permits) for. A part file
//! outlives the process: the next try asks for the same table from where the file ends, for as long as the
//! leader has it.
//!
//! Why a crash is safe at any point: a part file is named by no manifest. It becomes a table after every
//! block of it was checked and its place was reserved, under a name of this node's that is as new as that of
//! a table made here: what comes back for a damaged table may be the very same one, and lies beside it until
//! the manifest names it. It counts from then on, and the damaged one is removed. A log that does not lead up
//! to the table is begun anew by raft then, also at a start after a crash in between.
//!
//! Invariants:
//! - No byte of a table counts before all checksums of all of it were checked.
//! - A table becomes the node's own only where raft wants it.
//! - No file that the manifest names is written over, renamed over or removed here.
//! - What is fetched leaves the log the two segments that it may need, and leaves nothing behind where it
//!   finds no room.
//!
//! It lives on the core of its shard.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use crate::env::{BLOCK_BYTES, Env, File, OpenMode};
use crate::ids::{Index, NodeId, ShardId};
use crate::kv::table::PAGE_BYTES;
use crate::kv::{self, Retired};
use crate::log::{Lane, TableRef, table_name};
use crate::raft::SnapshotOffer;
use crate::route::parcel::{PART_BYTES_MAX, TableName, TablePart};
use crate::shard::config::Snapshots;
use crate::shard::permits::Permit;
use crate::shard::progress::{FetchProgress, Milestones, SharedProgress};
use crate::shard::runner::Runner;
use crate::shard::space::is_full;
use crate::shard::table::{OpenTable, TableFile, TableReadError, open_table, open_table_at};

/// How often in a row a part may stay away before the try is over.
const SILENT_MAX: u32 = 3;

/// How often a node may say that it has no such table before the try is over, and how long it is left alone
/// in between: it may be making one.
const UNREADY_MAX: u32 = 20;
const UNREADY_WAIT: Duration = Duration::from_millis(100);

/// What the name of a table ends with that is not whole yet.
pub(crate) const PART_SUFFIX: &str = ".part";

/// How long an install waits for the shard's own table that is being made.
const OWN_TABLE_LOOK: Duration = Duration::from_millis(20);

/// What is fetched, and for whom.
pub(crate) struct Fetch<E: Env> {
    pub(crate) shard: ShardId,
    pub(crate) offer: SnapshotOffer,
    /// A table that ends before this entry is of no use.
    pub(crate) index_min: Index,
    pub(crate) lane: Lane<E>,
    pub(crate) settings: Snapshots,
    /// How far it is.
    pub(crate) progress: SharedProgress,
}

/// Why no table was fetched.
enum Failure {
    /// The other node does not answer.
    Silent(NodeId),
    /// The other node has no table that goes as far.
    Unready(NodeId),
    /// What it sends makes no sense.
    Nonsense(NodeId),
    /// The disk failed.
    Disk { path: PathBuf, source: io::Error },
    /// So many bytes are left of the table, and with them the log would not have what it needs.
    NoRoom { wanted: u64, free: u64 },
    /// What arrived is not a table.
    Damaged(TableReadError),
    /// It is not wanted any more.
    Unwanted,
    /// The lane has ended.
    Ended,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(node) => write!(f, "node {node} does not answer"),
            Self::Unready(node) => write!(f, "node {node} has no table that goes as far"),
            Self::Nonsense(node) => write!(f, "node {node} sends parts that do not fit"),
            Self::Disk { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NoRoom { wanted, free } => {
                write!(f, "{wanted} bytes of it are to come, and {free} are free on the disk")
            }
            Self::Damaged(source) => source.fmt(f),
            Self::Unwanted => f.write_str("it is not wanted any more"),
            Self::Ended => f.write_str("the lane has ended"),
        }
    }
}

impl Failure {
    /// Whether what was fetched takes room that is wanted for more.
    fn is_full(&self) -> bool {
        match self {
            Self::Disk { source, .. } => is_full(source),
            Self::NoRoom { .. } => true,
            Self::Silent(_)
            | Self::Unready(_)
            | Self::Nonsense(_)
            | Self::Damaged(_)
            | Self::Unwanted
            | Self::Ended => false,
        }
    }
}

/// Fetches a table and installs it, or says that it could not be had. The permit is given back with that.
pub(crate) async fn run<E: Env>(env: E, runner: Runner<E>, fetch: Fetch<E>, permit: Permit) {
    let (shard, from, began) = (fetch.shard, fetch.offer.from, env.now());
    let outcome = match receive(&env, &runner, &fetch).await {
        Ok(arrived) => adopt(&env, &runner, &fetch, arrived).await,
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok((TableRef { index, bytes, .. }, mut retired)) => {
            drop(permit);
            let ms = env.now().since(began).as_millis();
            tracing::info!(%shard, %from, %index, bytes, ms, "a table was fetched and installed");
            while retired.drop_some(crate::shard::snapshot::RETIRED_KEYS) {
                env.sleep(fetch.settings.rest).await;
            }
        }
        Err(failure) => {
            tracing::warn!(%shard, %from, %failure, "no table was fetched");
            if failure.is_full()
                && let Err(source) = remove_parts(&env, &fetch.lane, shard).await
            {
                tracing::warn!(%shard, %source, "what was fetched of a table could not be removed");
            }
            runner.fetch_failed(shard);
        }
    }
}

/// A table that is arriving.
struct Arriving<E: Env> {
    named: TableRef,
    file: E::File,
    path: PathBuf,
    /// How much of it is written.
    bytes: u64,
    milestones: Milestones,
}

/// A table that is whole, in a file that no manifest names. Its generation is its salt.
struct Arrived {
    named: TableRef,
    part: PathBuf,
}

async fn receive<E: Env>(env: &E, runner: &Runner<E>, fetch: &Fetch<E>) -> Result<Arrived, Failure> {
    let mut arriving: Option<Arriving<E>> = None;
    let (mut generation, mut offset) = found_part(env, fetch).await?;
    let (mut silent, mut unready) = (0, 0);
    loop {
        let asked = (generation, fetch.index_min, offset);
        let Some(part) = runner.ask_part(fetch.shard, fetch.offer.from, asked).await else {
            silent += 1;
            if silent >= SILENT_MAX {
                return Err(Failure::Silent(fetch.offer.from));
            }
            continue;
        };
        silent = 0;
        if part.named.generation == 0 || part.named.index < fetch.index_min {
            unready += 1;
            // One whose table is damaged leads no more, and has none until it is repaired.
            if unready >= UNREADY_MAX || runner.is_deposed(fetch.shard, fetch.offer.from) {
                return Err(Failure::Unready(fetch.offer.from));
            }
            env.sleep(UNREADY_WAIT).await;
            continue;
        }
        if runner.is_own_table(fetch.shard, part.named.generation) {
            return Err(Failure::Unwanted);
        }
        if part.named.generation != generation || arriving.is_none() {
            let is_resumed = part.named.generation == generation && part.offset == offset;
            let from = if is_resumed { offset } else { 0 };
            arriving = Some(begin(env, fetch, reference(part.named), from).await?);
            generation = part.named.generation;
        }
        let Some(table) = &mut arriving else { continue };
        take(env, fetch, table, part).await?;
        table.tell(env, fetch);
        offset = table.bytes;
        if table.bytes == table.named.bytes {
            break;
        }
        env.sleep(fetch.settings.part_rest).await;
    }
    let table = arriving.ok_or(Failure::Nonsense(fetch.offer.from))?;
    finish(env, fetch, table).await
}

fn reference(named: TableName) -> TableRef {
    let TableName { generation, index, term, bytes, footer_checksum } = named;
    TableRef { generation, index, term, bytes, footer_checksum }
}

/// A part file of the shard that an earlier try left: which table it is of, and how far it goes.
async fn found_part<E: Env>(env: &E, fetch: &Fetch<E>) -> Result<(u64, u64), Failure> {
    let dir = fetch.lane.dir();
    let failed = |path: &std::path::Path, source| Failure::Disk { path: path.to_path_buf(), source };
    let names = env.list(dir).await.map_err(|source| failed(dir, source))?;
    let mut parts = names.iter().filter_map(|name| Some((name, part_of_name(name, fetch.shard)?)));
    let Some((name, generation)) = parts.next() else { return Ok((0, 0)) };
    let path = dir.join(name);
    let file = env.open(&path, OpenMode::Read).await.map_err(|source| failed(&path, source))?;
    let len = file.len().await.map_err(|source| failed(&path, source))?;
    Ok((generation, len / BLOCK_BYTES as u64 * BLOCK_BYTES as u64))
}

/// The generation of a part file of this shard.
fn part_of_name(name: &str, shard: ShardId) -> Option<u64> {
    let table = name.strip_suffix(PART_SUFFIX)?;
    crate::log::table_of_name(table).filter(|(of, _)| *of == shard).map(|(_, generation)| generation)
}

/// Removes the part files of a shard.
pub(crate) async fn remove_parts<E: Env>(env: &E, lane: &Lane<E>, shard: ShardId) -> io::Result<()> {
    for name in env.list(lane.dir()).await? {
        if part_of_name(&name, shard).is_some() {
            env.remove(&lane.dir().join(name)).await?;
        }
    }
    Ok(())
}

/// Opens the file of a table that begins to arrive, or goes on with it.
async fn begin<E: Env>(
    env: &E,
    fetch: &Fetch<E>,
    named: TableRef,
    from: u64,
) -> Result<Arriving<E>, Failure> {
    let name = format!("{}{PART_SUFFIX}", table_name(fetch.shard, named.generation));
    let path = fetch.lane.dir().join(name);
    let failed = |source| Failure::Disk { path: path.clone(), source };
    // What is left of an earlier try is in the way of another table only.
    if from == 0 {
        remove_parts(env, &fetch.lane, fetch.shard).await.map_err(failed)?;
    }
    let free = env.free_bytes(fetch.lane.dir()).await.map_err(failed)?;
    let wanted = named.bytes.saturating_sub(from);
    if free < wanted.saturating_add(fetch.lane.segment_bytes().saturating_mul(2)) {
        return Err(Failure::NoRoom { wanted, free });
    }
    let file = if from > 0 {
        env.open(&path, OpenMode::Durable).await.map_err(failed)?
    } else {
        env.open(&path, OpenMode::Create).await.map_err(failed)?
    };
    let (shard, index, bytes) = (fetch.shard, named.index, named.bytes);
    tracing::info!(%shard, %index, bytes, from, "a table is fetched");
    let progress = FetchProgress { bytes_done: from, bytes_total: bytes };
    fetch.progress.set(Some(progress));
    let milestones = Milestones::new(progress, env.now());
    Ok(Arriving { named, file, path, bytes: from, milestones })
}

impl<E: Env> Arriving<E> {
    /// Says how far it is.
    fn tell(&mut self, env: &E, fetch: &Fetch<E>) {
        let progress = FetchProgress { bytes_done: self.bytes, bytes_total: self.named.bytes };
        fetch.progress.set(Some(progress));
        if self.milestones.is_due(progress, env.now()) {
            let (shard, from) = (fetch.shard, fetch.offer.from);
            let FetchProgress { bytes_done, bytes_total } = progress;
            tracing::info!(%shard, %from, bytes_done, bytes_total, "a table is on its way");
        }
    }
}

/// Writes a part where it belongs. One that does not follow what is there is left: it came twice.
async fn take<E: Env>(
    env: &E,
    fetch: &Fetch<E>,
    table: &mut Arriving<E>,
    part: TablePart,
) -> Result<(), Failure> {
    let bytes = part.data.len();
    let is_whole = bytes.is_multiple_of(BLOCK_BYTES) && bytes <= PART_BYTES_MAX;
    let fits = part.offset.saturating_add(bytes as u64) <= table.named.bytes;
    if !is_whole || !fits || reference(part.named) != table.named {
        return Err(Failure::Nonsense(fetch.offer.from));
    }
    if part.offset != table.bytes || bytes == 0 {
        return Ok(());
    }
    let mut buf = env.buf(bytes);
    buf.as_mut().copy_from_slice(&part.data);
    let written = table.file.write_at(Rc::new(buf), part.offset).await;
    written.map_err(|source| Failure::Disk { path: table.path.clone(), source })?;
    table.bytes += bytes as u64;
    Ok(())
}

/// Checks all of a table that has arrived. It keeps the name of a part until it is wanted.
async fn finish<E: Env>(env: &E, fetch: &Fetch<E>, table: Arriving<E>) -> Result<Arrived, Failure> {
    let Arriving { named, file, path, .. } = table;
    let failed = |source| Failure::Disk { path: path.clone(), source };
    file.sync().await.map_err(failed)?;
    file.close().await.map_err(failed)?;
    if let Err(source) = check(env, fetch, &path, &named).await {
        // It is begun anew by the next try.
        return Err(discarded(env, path, Failure::Damaged(source)).await);
    }
    Ok(Arrived { named, part: path })
}

async fn check<E: Env>(
    env: &E,
    fetch: &Fetch<E>,
    path: &std::path::Path,
    named: &TableRef,
) -> Result<(), TableReadError> {
    let table = open_table_at(env, path.to_path_buf(), fetch.shard, named).await?;
    // The next try asks for the rest of this one by the salt in its name.
    if table.file.salt() != named.generation {
        return Err(table.file.another());
    }
    table.file.check_header(&table.index, &table.file.part(0, PAGE_BYTES).await?)?;
    for at in 0..table.index.blocks() {
        table.file.block(table.index.handle(at)).await?;
        if at % 16 == 15 {
            env.sleep(fetch.settings.rest).await;
        }
    }
    Ok(())
}

/// Makes a table that has arrived the node's own, under a name that no file of the shard ever had here.
async fn adopt<E: Env>(
    env: &E,
    runner: &Runner<E>,
    fetch: &Fetch<E>,
    arrived: Arrived,
) -> Result<(TableRef, Retired), Failure> {
    let Arrived { named, part } = arrived;
    let is_reserved = loop {
        match runner.reserve_install(fetch.shard, &named) {
            Some(is_reserved) => break is_reserved,
            None => env.sleep(OWN_TABLE_LOOK).await,
        }
    };
    if !is_reserved {
        return Err(discarded(env, part, Failure::Unwanted).await);
    }
    let named = TableRef { generation: env.random().max(1), ..named };
    let path = fetch.lane.dir().join(table_name(fetch.shard, named.generation));
    let failed = |source| Failure::Disk { path: path.clone(), source };
    env.rename(&part, &path).await.map_err(failed)?;
    let opened = match env.sync_dir(fetch.lane.dir()).await {
        Ok(()) => open(env, runner, fetch, &named).await,
        Err(source) => Err(failed(source)),
    };
    let (file, state) = match opened {
        Ok(opened) => opened,
        Err(failure) => return Err(discarded(env, path, failure).await),
    };
    fetch.lane.switch_table(fetch.shard, named).await.ok_or(Failure::Ended)?;
    Ok((named, runner.install_fetched(fetch.shard, file, state)))
}

async fn open<E: Env>(
    env: &E,
    runner: &Runner<E>,
    fetch: &Fetch<E>,
    named: &TableRef,
) -> Result<(TableFile<E>, kv::State), Failure> {
    let opened = open_table(env, fetch.lane.dir(), fetch.shard, named).await;
    let OpenTable { file, index, sessions } = opened.map_err(Failure::Damaged)?;
    let state = kv::State::from_table(runner.kv_config(fetch.shard), index, &sessions);
    let state = state.map_err(|source| Failure::Damaged(file.damaged(source)))?;
    Ok((file, state))
}

/// Removes a file that no manifest names, and says why.
async fn discarded<E: Env>(env: &E, path: PathBuf, why: Failure) -> Failure {
    match env.remove(&path).await {
        Ok(()) => why,
        Err(source) => Failure::Disk { path, source },
    }
}
