//! The file of a shard's table: opened once, checked, and read block by block.
//!
//! ```text
//!   manifest: generation, length, footer checksum ─► footer ─► index, filter (kept) ─► sessions (once)
//!                                                                  │
//!                                      a key ─► block ─► checked ──┘─► cache
//! ```
//!
//! # Why nothing is mapped
//!
//! Index and filter are read into memory when the table is opened (2 bytes a key, where values have 256);
//! blocks are read through io_uring when they are needed, into the cache of checked blocks, and those of a
//! table that is being made are put there before it is installed. A mapping would spare the cache, and stop
//! the core with all its Raft timers for every page that is not in memory.
//!
//! `benches/page_faults.rs` measures it: a timer every 100 us beside a reader of random blocks of 16 KiB of a
//! file of 1 GiB, on one executor (2 cores of an AMD EPYC class machine, virtio disk, ext4, Linux 6.18;
//! medians of four runs under `chrt -f 10`, two of them with a thread that writes and syncs meanwhile):
//!
//! | blocks | timer late: p99 | p99.9 | max |
//! |---|---|---|---|
//! | not read | 0.09 ms | 0.4 ms | 0.6 ms |
//! | mapped, not in memory | 1.3 ms | 3.4 ms | 5.8 ms |
//! | read through io_uring | 0.08 ms | 0.25 ms | 1.6 ms |
//! | mapped, in memory | 0.09 ms | 0.25 ms | 1.0 ms |
//!
//! What is mapped and in memory costs nothing, but nobody can promise that it stays there: where data exceed
//! memory, pages go just when there is least time to fetch them. And it would have to be checked at every
//! use, or believed: a cache of blocks knows what it checked. Reads from that cache have 0.58 of the rate of
//! reads from the memtable (`benches/point_reads.rs`).
//!
//! Invariants:
//! - A table that opens is the one that the manifest names: shard, length, index, term and the checksum of
//!   its footer are those recorded there, and the footer's checksums cover salt, index, filter and sessions.
//! - The salt tells what is in a table from what is in any other, on every node; the generation names the
//!   file, on this disk. They are the same where the table was made here, and not where it was fetched: the
//!   same table may come back for one that is damaged, and never bears the name of that.
//! - No block is used whose checksum was not checked after it was read.
//! - The file is never written to. Who reads holds it open, so that it may be removed at any time.
//!
//! It lives on the core of its lane, and is owned by the shard's replica and the tasks that read it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;

use crate::env::{Env, File, OpenMode};
use crate::ids::ShardId;
use crate::kv::table::{
    Block, BlockHandle, Footer, Header, PAGE_BYTES, Section, SectionCheck, TableError, TableIndex,
};
use crate::log::{TableRef, table_name};

/// How long after a failure to read the same is tried once more.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much of a section is looked at at once.
const PIECE_BYTES: usize = 256 << 10;

/// The file of a table, open for reading.
pub struct TableFile<E: Env> {
    file: E::File,
    path: PathBuf,
    named: TableRef,
    salt: u64,
}

/// A table that was opened and checked, but for its blocks.
pub struct OpenTable<E: Env> {
    /// Its file.
    pub file: TableFile<E>,
    /// Where its keys are.
    pub index: TableIndex,
    /// The pages of its sessions.
    pub sessions: Bytes,
}

/// Why a table could not be read.
#[derive(Clone, Debug)]
pub enum TableReadError {
    /// The file could not be opened or read.
    Io {
        /// The file.
        path: PathBuf,
        /// Why. Whoever reads a table of another core says it there as well.
        source: Arc<io::Error>,
    },
    /// What was read is not what has to be there.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: TableError,
    },
    /// It is whole, and not the table that the manifest names.
    Another {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        named: TableRef,
    },
    /// It is whole, but the replicas of a majority held another state than this one.
    Doubted {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for TableReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Damaged { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Another { path, named } => {
                write!(f, "{}: not the table that the manifest names, {named:?}", path.display())
            }
            Self::Doubted { path } => {
                write!(f, "{}: a majority had another state than the one of this table", path.display())
            }
        }
    }
}

impl TableReadError {
    fn failed(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source: Arc::new(source) }
    }

    /// The file that could not be read.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::Damaged { path, .. }
            | Self::Another { path, .. }
            | Self::Doubted { path } => path,
        }
    }
}

impl std::error::Error for TableReadError {}

/// The checksum of a footer's page, which covers all of it.
#[must_use]
pub(crate) fn footer_checksum(page: &[u8]) -> u64 {
    let first = page.first_chunk().expect("a footer is a page");
    u64::from_le_bytes(*first)
}

/// Reads, and once more after a while where the disk failed to: it may have been the moment's. Whether it was
/// read again comes with what was read.
pub(crate) async fn read_twice<E: Env, T>(
    env: &E,
    read: impl AsyncFn() -> Result<T, TableReadError>,
) -> (Result<T, TableReadError>, bool) {
    match read().await {
        Err(TableReadError::Io { path, source }) => {
            tracing::warn!(path = %path.display(), %source, "a table is read once more");
            env.sleep(RETRY_AFTER).await;
            (read().await, true)
        }
        read @ (Ok(_)
        | Err(
            TableReadError::Damaged { .. } | TableReadError::Another { .. } | TableReadError::Doubted { .. },
        )) => (read, false),
    }
}

/// Looks at all of an open table but its blocks, piece by piece, as `read` has them from its file.
///
/// # Errors
/// It is not what it was when it was opened; or what `read` says.
pub(crate) async fn check_frame<E: Env, F: From<TableReadError>>(
    file: &TableFile<E>,
    index: &TableIndex,
    mut read: impl AsyncFnMut(u64, usize) -> Result<Bytes, F>,
) -> Result<(), F> {
    let bytes = index.footer().file_length;
    file.check_header(index, &read(0, PAGE_BYTES).await?)?;
    let page = read(Footer::offset(bytes), PAGE_BYTES).await?;
    let footer = Footer::decode(&page, bytes).map_err(|source| file.damaged(source))?;
    if footer != *index.footer() {
        return Err(file.another().into());
    }
    for mut check in SectionCheck::all_of(&footer) {
        while let Some((offset, wanted)) = check.next_piece(PIECE_BYTES) {
            let piece = read(offset, wanted).await?;
            check.take(wanted, &piece).map_err(|source| file.damaged(source))?;
        }
        check.finish().map_err(|source| file.damaged(source))?;
    }
    Ok(())
}

/// Opens the table that a lane's manifest names.
///
/// # Errors
/// It cannot be read, or is not what the manifest says.
pub async fn open_table<E: Env>(
    env: &E,
    dir: &Path,
    shard: ShardId,
    named: &TableRef,
) -> Result<OpenTable<E>, TableReadError> {
    open_table_at(env, dir.join(table_name(shard, named.generation)), shard, named).await
}

/// Opens a table that bears another name.
pub(crate) async fn open_table_at<E: Env>(
    env: &E,
    path: PathBuf,
    shard: ShardId,
    named: &TableRef,
) -> Result<OpenTable<E>, TableReadError> {
    let opened = env.open(&path, OpenMode::Read).await;
    let file = opened.map_err(|source| TableReadError::failed(&path, source))?;
    let file = TableFile { file, path, named: *named, salt: 0 };
    let page = file.read(Footer::offset(named.bytes), PAGE_BYTES as u64).await?;
    let footer = Footer::decode(&page, named.bytes).map_err(|source| file.damaged(source))?;
    let file = TableFile { salt: footer.header.salt, ..file };
    let meta = &footer.meta;
    let is_it = footer.header.shard == shard
        && (meta.applied, meta.applied_term) == (named.index, named.term)
        && footer_checksum(&page) == named.footer_checksum;
    if !is_it {
        return Err(TableReadError::Another { path: file.path, named: *named });
    }
    let sessions = file.section(&footer.sessions).await?;
    let filter = file.section(&footer.filter).await?;
    let index = file.section(&footer.index).await?;
    let index = TableIndex::open(footer, &index, &filter).map_err(|source| file.damaged(source))?;
    Ok(OpenTable { file, index, sessions })
}

impl<E: Env> TableFile<E> {
    /// What tells this table from any other.
    #[must_use]
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the manifest says of it.
    #[must_use]
    pub fn named(&self) -> TableRef {
        self.named
    }

    /// Reads and checks a block.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub async fn block(&self, handle: BlockHandle) -> Result<Block, TableReadError> {
        assert_eq!(
            handle.table,
            self.salt(),
            "a block of another table is read from {}",
            self.path.display()
        );
        let bytes = self.read(handle.offset, u64::from(handle.length)).await?;
        Block::decode(handle, bytes).map_err(|source| self.damaged(source))
    }

    /// Reads a part of the file as it is, for another node or a backup: all of it, or an error.
    pub(crate) async fn part(&self, offset: u64, len: usize) -> Result<Bytes, TableReadError> {
        let part = self.read(offset, len as u64).await?;
        if part.len() == len {
            return Ok(part);
        }
        Err(TableReadError::failed(&self.path, io::ErrorKind::UnexpectedEof.into()))
    }

    async fn section(&self, section: &Section) -> Result<Bytes, TableReadError> {
        self.read(section.offset, section.padded_length()).await
    }

    async fn read(&self, offset: u64, len: u64) -> Result<Bytes, TableReadError> {
        let len =
            usize::try_from(len).expect("a part of a file that a footer or an index was checked to have");
        let read = self.file.read_at(offset, len).await;
        read.map(Bytes::from).map_err(|source| TableReadError::failed(&self.path, source))
    }

    /// Whether a page is the first one of the table that was opened.
    pub(crate) fn check_header(&self, index: &TableIndex, page: &Bytes) -> Result<(), TableReadError> {
        let header = Header::decode(page).map_err(|source| self.damaged(source))?;
        if header == index.footer().header { Ok(()) } else { Err(self.another()) }
    }

    /// It is whole, and not the table that it was opened as.
    pub(crate) fn another(&self) -> TableReadError {
        TableReadError::Another { path: self.path.clone(), named: self.named }
    }

    pub(crate) fn damaged(&self, source: TableError) -> TableReadError {
        TableReadError::Damaged { path: self.path.clone(), source }
    }
}
