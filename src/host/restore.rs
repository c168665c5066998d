//! A backup made into the data directory of a node: one node of a new cluster, all of whose nodes are made of
//! the same file.
//!
//! ```text
//!   backup ─► every checksum in it ─► settings agree? ─► lanes, empty
//!          ─► each shard: its table anew, without sessions, ahead ─► manifest ─► its term into the log
//!          ─► identity, the last of all
//! ```
//!
//! # Why no client sees anything go back
//!
//! A cluster that went on after its backup gave out revisions and entries that the backup does not know. The
//! new one begins [`AHEAD`] entries and as many revisions further, and [`TERMS_AHEAD`] terms: more than any
//! cluster comes to between two backups. The sessions of the old one are ended: their answers may be
//! older than what the backup holds, and a session is named after an entry, so that none of the new cluster
//! has the name of one that the old cluster opened after the backup.
//!
//! # Why its nodes fit together, and no other fits them
//!
//! What a shard begins with follows from the file alone: entry, term, revision, keys, digest. Salts are drawn
//! by each node and are its own business. The cluster's id is made of the settings, as ever, and of the hash
//! of the file: nodes of the same name and addresses that hold something else, or nothing, are of another
//! cluster and are refused.
//!
//! # Why a crash is safe at any point
//!
//! The identity is made when all else is durable. A directory with lanes and without an identity is refused
//! by every start, and one that is not empty by every restore: it is to be removed and restored again.
//!
//! Invariants:
//! - Nothing is written before every checksum of the backup was checked, and every table was taken apart.
//! - A restored directory has not voted, and has to be noted by the others like any new one.
//!
//! It lives on an executor of its own, in a process that does nothing else.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;

use crate::config::Settings;
use crate::env::{Env, File, OpenMode};
use crate::host::node::{Planted, fresh_identity, lane_config, lane_dir, stable_hash};
use crate::ids::{ClusterId, Index, NodeId, Revision, ShardId, Term};
use crate::kv::backup::{BackupError, BackupPart, BackupReader, BackupSummary};
use crate::kv::table::{Block, BlockHandle, Footer, Header, PAGE_BYTES, Section, TableError, TableIndex};
use crate::kv::{self, Frozen, Merge, MergeError, MergeStep, RestoredAt};
use crate::log::{Append, IdentityStore, Lane, LogFailure, OpenError, TableRef, table_name};
use crate::raft::HardState;
use crate::route::place::Layout;
use crate::shard::{footer_checksum, membership_of};

/// How far ahead of the backup entries and revisions begin: at a million a second, twelve days.
pub const AHEAD: u64 = 1 << 40;
/// How far ahead of the backup terms begin.
pub const TERMS_AHEAD: u64 = 1 << 20;

/// Above this an index leaves no room to begin ahead of it: see [`kv::session_id`].
const INDEX_MAX: u64 = 1 << 47;
/// Above this a revision leaves no room to begin ahead of it that every client can read.
const REVISION_MAX: u64 = 1 << 52;
/// Above this a term leaves no room to begin ahead of it.
const TERM_MAX: u64 = 1 << 61;

/// What is read of the backup at a time.
const PIECE_BYTES: usize = 1 << 20;
/// The bytes of entries that are merged before what was made is written.
const STEP_BYTES: usize = 1 << 20;

/// The file of a backup. It is read twice: once to check it, once to take it over.
pub trait BackupFile {
    /// Reads at a place, as much as was asked for; less only where the file ends.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

impl BackupFile for std::fs::File {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut had = 0;
        while had < length {
            match std::os::unix::fs::FileExt::read_at(self, &mut bytes[had..], offset + had as u64) {
                Ok(0) => break,
                Ok(read) => had += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(had);
        Ok(bytes)
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the backup holds.
    pub backup: BackupSummary,
    /// The new cluster.
    pub cluster: ClusterId,
}

/// Why nothing was restored.
#[derive(Debug)]
pub enum RestoreError {
    /// The backup cannot be read.
    Read(io::Error),
    /// It is not what was written, or no backup.
    Backup(BackupError),
    /// A table in it is not what was written.
    Table {
        /// The shard.
        shard: ShardId,
        /// What is wrong with it.
        source: TableError,
    },
    /// A table in it is whole, and not the one that its part speaks of.
    AnotherTable {
        /// The shard.
        shard: ShardId,
    },
    /// The keys of a table are not what its footer says.
    Merge {
        /// The shard.
        shard: ShardId,
        /// What does not agree.
        source: MergeError,
    },
    /// The cluster is to have another number of shards.
    Shards {
        /// In the backup.
        backup: u32,
        /// By the settings.
        settings: u32,
    },
    /// Its numbers are so high that none are left to begin ahead of them.
    NoRoomAhead {
        /// The shard.
        shard: ShardId,
    },
    /// A file could not be written.
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A lane or the identity could not be made.
    Open(OpenError),
    /// The log could not be written.
    Log(LogFailure),
}

impl RestoreError {
    /// The process' exit code: 1, a file could not be used; 2, the settings do not fit; 16, another format;
    /// 17, damage.
    #[must_use]
    pub fn code(&self) -> i32 {
        use crate::kv::backup::BackupErrorKind;
        match self {
            Self::Read(_) | Self::Write { .. } | Self::Log(_) => 1,
            Self::Shards { .. } => 2,
            Self::Backup(BackupError { kind: BackupErrorKind::Format { .. }, .. }) => 16,
            Self::Backup(_) | Self::Table { .. } | Self::AnotherTable { .. } | Self::Merge { .. } => 17,
            Self::NoRoomAhead { .. } => 17,
            Self::Open(_) => 1,
        }
    }

    /// Whether the backup, or what is asked of it, is at fault: nothing was written then.
    #[must_use]
    pub fn is_of_backup(&self) -> bool {
        match self {
            Self::Read(_)
            | Self::Backup(_)
            | Self::Table { .. }
            | Self::AnotherTable { .. }
            | Self::Shards { .. }
            | Self::NoRoomAhead { .. } => true,
            Self::Merge { .. } | Self::Write { .. } | Self::Open(_) | Self::Log(_) => false,
        }
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(source) => source.fmt(f),
            Self::Backup(source) => source.fmt(f),
            Self::Table { shard, source } => write!(f, "the table of shard {shard}: {source}"),
            Self::AnotherTable { shard } => write!(f, "the table of shard {shard} is another than it says"),
            Self::Merge { shard, source } => write!(f, "the table of shard {shard}: {source}"),
            Self::Shards { backup, settings } => write!(
                f,
                "it has {backup} shards, and the cluster is to have {settings}: give --shards {backup}, here \
                 and whenever its nodes are started"
            ),
            Self::NoRoomAhead { shard } => write!(f, "the numbers of shard {shard} are beyond all bounds"),
            Self::Write { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Open(source) => source.fmt(f),
            Self::Log(source) => source.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<OpenError> for RestoreError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// Makes the data directory of a node from a backup. The directory is empty, and the caller's alone.
///
/// # Errors
/// See [`RestoreError`]. What was made of the directory by then is refused by every start.
pub async fn restore<E: Env>(
    env: &E,
    settings: &Settings,
    cores: u32,
    from: &impl BackupFile,
) -> Result<Restored, RestoreError> {
    let backup = check(from)?;
    let fresh = fresh_identity(settings, cores);
    if backup.header.shards != fresh.shards {
        let (backup, settings) = (backup.header.shards, fresh.shards);
        return Err(RestoreError::Shards { backup, settings });
    }
    for (part, at) in &backup.parts {
        check_table(from, part, *at)?;
    }
    let layout = Layout::new(fresh.nodes, fresh.shards, fresh.lanes, cores);
    for lane in (0..fresh.lanes).map(crate::ids::LaneId) {
        let dir = settings.data_dir().join(lane_dir(lane));
        let lane_config = lane_config(settings, (&layout, lane), &Planted::default());
        let (opened, _) = Lane::open(env.clone(), &dir, lane_config).await?;
        let parts = backup.parts.iter().filter(|(part, _)| layout.lane_of(part.shard) == lane);
        let job = LaneJob { env, lane: opened, layout, from };
        job.fill(parts).await?;
    }
    let text = format!("{} restored_from={}", settings.cluster.origin(), backup.hash);
    let cluster = ClusterId(stable_hash(&text));
    IdentityStore::create_restored(env.clone(), &settings.data_dir(), fresh, cluster).await?;
    Ok(Restored { backup, cluster })
}

/// Checks all of a backup but for what is in its tables.
fn check(from: &impl BackupFile) -> Result<BackupSummary, RestoreError> {
    let mut reader = BackupReader::default();
    let mut offset = 0;
    loop {
        let piece = from.read_at(offset, PIECE_BYTES).map_err(RestoreError::Read)?;
        if piece.is_empty() {
            return reader.finish().map_err(RestoreError::Backup);
        }
        reader.feed(&piece).map_err(RestoreError::Backup)?;
        offset += piece.len() as u64;
    }
}

/// A table within a backup.
struct PackedTable<'a, F> {
    from: &'a F,
    part: &'a BackupPart,
    /// Where it begins.
    at: u64,
    index: Rc<TableIndex>,
    sessions: Bytes,
}

/// Checks all that is in a table: every block, the sessions, and that they come to the digest it says.
fn check_table(from: &impl BackupFile, part: &BackupPart, at: u64) -> Result<(), RestoreError> {
    let (shard, table) = (part.shard, open_packed(from, part, at)?);
    for block in 0..table.index.blocks() {
        table.block(table.index.handle(block))?;
    }
    let PackedTable { index, sessions, .. } = table;
    let index = Rc::into_inner(index).expect("nobody else has seen it");
    let config = kv::Config::new(shard, kv::Limits::DEFAULT);
    let state = kv::State::from_table(config, index, &sessions);
    state.map_err(|source| RestoreError::Table { shard, source })?;
    let leaves_room = part.index.0 < INDEX_MAX && part.revision.0 < REVISION_MAX && part.term.0 < TERM_MAX;
    if leaves_room { Ok(()) } else { Err(RestoreError::NoRoomAhead { shard }) }
}

fn open_packed<'a, F: BackupFile>(
    from: &'a F,
    part: &'a BackupPart,
    at: u64,
) -> Result<PackedTable<'a, F>, RestoreError> {
    let shard = part.shard;
    let damaged = |source| RestoreError::Table { shard, source };
    let page = |offset| read(from, at + offset, PAGE_BYTES as u64);
    let footer = Footer::decode(&page(Footer::offset(part.length))?, part.length).map_err(damaged)?;
    let header = Header::decode(&page(0)?).map_err(damaged)?;
    let meta = &footer.meta;
    let is_it = footer.header == header
        && header.shard == shard
        && (meta.applied, meta.applied_term, meta.revision) == (part.index, part.term, part.revision)
        && (meta.sums.keys, meta.sums.bytes) == (part.keys, part.bytes);
    if !is_it {
        return Err(RestoreError::AnotherTable { shard });
    }
    let section = |section: &Section| read(from, at + section.offset, section.padded_length());
    let sessions = section(&footer.sessions)?;
    let (filter, index) = (section(&footer.filter)?, section(&footer.index)?);
    let index = TableIndex::open(footer, &index, &filter).map_err(damaged)?;
    Ok(PackedTable { from, part, at, index: Rc::new(index), sessions })
}

fn read(from: &impl BackupFile, offset: u64, length: u64) -> Result<Bytes, RestoreError> {
    let wanted = usize::try_from(length).expect("a length within a file that was checked");
    let bytes = from.read_at(offset, wanted).map_err(RestoreError::Read)?;
    if bytes.len() < wanted {
        return Err(RestoreError::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes.into())
}

impl<F: BackupFile> PackedTable<'_, F> {
    fn block(&self, handle: BlockHandle) -> Result<Block, RestoreError> {
        let bytes = read(self.from, self.at + handle.offset, u64::from(handle.length))?;
        let shard = self.part.shard;
        Block::decode(handle, bytes).map_err(|source| RestoreError::Table { shard, source })
    }
}

/// A lane that is being filled.
struct LaneJob<'a, E: Env, F> {
    env: &'a E,
    lane: Lane<E>,
    layout: Layout,
    from: &'a F,
}

impl<E: Env, F: BackupFile> LaneJob<'_, E, F> {
    /// Makes the lane's tables take effect, and its log agree with them. All is durable when this returns.
    async fn fill<'b>(&self, parts: impl Iterator<Item = &'b (BackupPart, u64)>) -> Result<(), RestoreError> {
        let ended = crate::env::signal::Signal::default();
        let (running, raised) = (self.lane.clone(), ended.clone());
        self.env.spawn(async move {
            running.run().await;
            raised.raise();
        });
        for (number, (part, at)) in (1..).zip(parts) {
            let table = open_packed(self.from, part, *at)?;
            let named = self.write_table(&table).await?;
            if self.lane.switch_table(part.shard, named).await.is_none() {
                break;
            }
            // The log begins behind the table, in its term, with nobody voted for.
            let hard_state = HardState { term: named.term, vote: None, commit: named.index };
            let append = Append {
                shard: part.shard,
                number,
                hard_state: Some(hard_state),
                restart: Some((named.index, named.term)),
                ..Append::default()
            };
            let taken = self.lane.append(append);
            assert!(taken.is_ok() || self.lane.failed().is_some(), "an idle lane has room for one append");
            // Nobody waits for them: what closing the lane says is said of them all.
            drop(self.lane.completions());
        }
        self.lane.close();
        ended.wait().await;
        self.lane.failed().map_or(Ok(()), |failure| Err(RestoreError::Log(failure)))
    }

    /// Writes the table anew, as the new cluster begins with it.
    async fn write_table(&self, table: &PackedTable<'_, F>) -> Result<TableRef, RestoreError> {
        let (shard, before) = (table.part.shard, table.part);
        let at = RestoredAt {
            applied: Index(before.index.0 + AHEAD),
            term: Term(before.term.0 + TERMS_AHEAD),
            revision: Revision(before.revision.0 + AHEAD),
            membership: membership_of(&self.layout.voters()),
        };
        let salt = self.env.random().max(1);
        let path = self.lane.dir().join(table_name(shard, salt));
        let failed = |source| RestoreError::Write { path: path.clone(), source };
        let frozen = Frozen::restored(&table.index, at);
        let mut merge = Merge::new(frozen, Some(Rc::clone(&table.index)), salt);
        let file = self.env.open(&path, OpenMode::Create).await.map_err(failed)?;
        let mut checksum = 0;
        loop {
            let step = merge.step(STEP_BYTES).map_err(|source| RestoreError::Merge { shard, source })?;
            match step {
                MergeStep::Again => {}
                MergeStep::Block(handle) => merge.feed(table.block(handle)?),
                MergeStep::Output => {
                    while let Some(chunk) = merge.take_output() {
                        checksum = footer_checksum(&chunk.bytes[chunk.bytes.len() - PAGE_BYTES..]);
                        let mut buf = self.env.buf(chunk.bytes.len());
                        buf.as_mut().copy_from_slice(chunk.bytes);
                        file.write_at(Rc::new(buf), chunk.offset).await.map_err(failed)?;
                    }
                }
                MergeStep::Done => break,
            }
        }
        file.sync().await.map_err(failed)?;
        file.close().await.map_err(failed)?;
        self.env.sync_dir(self.lane.dir()).await.map_err(failed)?;
        let footer = merge.footer().expect("a merge that is done has a footer");
        Ok(TableRef {
            generation: salt,
            index: footer.meta.applied,
            term: footer.meta.applied_term,
            bytes: footer.file_length,
            footer_checksum: checksum,
        })
    }
}

/// A restored node, in one line.
#[must_use]
pub fn restored_text(restored: &Restored, node: NodeId, nodes: u32) -> String {
    let Restored { backup, cluster } = restored;
    let keys: u64 = backup.parts.iter().map(|(part, _)| part.keys).sum();
    format!(
        "node {node} of {nodes} restored: cluster {:016x}, {} shards, {keys} keys, of backup {} of cluster \
         {:016x}",
        cluster.0, backup.header.shards, backup.hash, backup.header.cluster.0
    )
}
