//! A backup of every shard, made by one node of its own tables while it serves.
//!
//! ```text
//!   for each shard, in order:
//!     a linearizable read ─► the shard's revision
//!       ─► this node's table at that revision or above, made where it is not there yet
//!       ─► its file, part by part, every block checked
//! ```
//!
//! Why no acknowledged change is missing: the read comes after the call for the backup, so that its revision
//! counts every change that was acknowledged before; the log orders them, and a table at that revision holds
//! them all. Any node can make a backup, since each has a replica of every shard; one that does not get to
//! the revision says so, and another is asked.
//!
//! Invariants:
//! - A shard is at one revision, that of its table; the shards are at revisions of their own.
//! - Nothing of a table is handed out whose checksums were not checked.
//! - The table that is read stays open, whatever becomes of its name.
//! - A table that is found damaged, or twice not to be read, ends the backup and is repaired as any other.
//!
//! It lives on the core whose edge serves it, and reads the files of the other cores' lanes: tables are never
//! written to. It deliberately does not know who takes what it hands out.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::{Env, Instant};
use crate::ids::{ClusterId, Revision, ShardId};
use crate::kv::backup::{BackupHeader, BackupPart, BackupWriter};
use crate::kv::{Query, ReadTxn};
use crate::route::call::{Consistency, Failure, Request};
use crate::shard::lend::Lending;
use crate::shard::runner::Runner;
use crate::shard::table::{OpenTable, TableReadError, open_table_at};
use crate::shard::wanted::{SnapshotAnswer, TablePlace, Wanted};

/// What is read of a table at a time.
const PIECE_BYTES: usize = 256 << 10;
/// How long a read of a shard's revision may take.
const READ_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a table is waited for before a sign of life is given.
const TABLE_WAIT: Duration = Duration::from_secs(2);
/// How often in a row this node's replica may not have got to the revision by then. That its table is being
/// made has no such end: a large one takes its time.
const BEHIND_MAX: u32 = 5;
/// How often in a row a table may be replaced between being named and being opened.
const REPLACED_MAX: u32 = 8;
/// How long the core's other work has its turn between two pieces.
const PIECE_REST: Duration = Duration::from_micros(100);

/// What a backup says of itself beside what its node knows.
#[derive(Clone, Copy, Debug)]
pub struct BackupFacts {
    /// The cluster.
    pub cluster: ClusterId,
    /// The clock on the wall: milliseconds since 1970.
    pub made_ms: u64,
}

/// Why a table, or a backup of it, could not be had of this node.
#[derive(Debug)]
pub enum TableFailure {
    /// The shard did not answer a read: what it said.
    Read {
        /// The shard.
        shard: ShardId,
        /// What it said.
        failure: Failure,
    },
    /// This node's replica has not got as far as the shard's leader in time.
    Behind {
        /// The shard.
        shard: ShardId,
    },
    /// Its table was not made in time.
    Making {
        /// The shard.
        shard: ShardId,
    },
    /// As many wait for tables of the shard as may.
    Busy {
        /// The shard.
        shard: ShardId,
    },
    /// Its table cannot be read.
    Unreadable {
        /// The shard.
        shard: ShardId,
        /// Why.
        source: TableReadError,
    },
}

impl fmt::Display for TableFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { shard, failure } => write!(f, "shard {shard} could not be read: {:?}", failure.kind),
            Self::Behind { shard } => {
                write!(f, "this node's replica of shard {shard} is behind the others: ask another node")
            }
            Self::Making { shard } => write!(f, "the table of shard {shard} was not made in time"),
            Self::Busy { shard } => write!(f, "too many wait for tables of shard {shard}"),
            Self::Unreadable { shard, source } => write!(f, "the table of shard {shard}: {source}"),
        }
    }
}

impl std::error::Error for TableFailure {}

/// A backup that is being made.
pub struct Backup<E: Env> {
    env: E,
    runner: Runner<E>,
    header: BackupHeader,
    stage: Stage<E>,
}

/// What is handed out next.
enum Stage<E: Env> {
    Begin,
    Shard(Box<BackupWriter>, ShardId),
    Waiting(Box<BackupWriter>, Wait),
    Table(Box<BackupWriter>, Box<Reading<E>>),
    End,
}

/// A table that is waited for.
#[derive(Clone, Copy)]
struct Wait {
    shard: ShardId,
    revision: Revision,
    behind: u32,
    replaced: u32,
}

/// A table that is being read.
struct Reading<E: Env> {
    shard: ShardId,
    lending: Lending<E>,
    /// How much of the file was handed out.
    offset: u64,
}

impl<E: Env> Runner<E> {
    /// Begins a backup of all shards.
    #[must_use]
    pub fn backup(&self, facts: BackupFacts) -> Backup<E> {
        let (env, node, layout) = self.whereabouts();
        let header = BackupHeader {
            cluster: facts.cluster,
            shards: layout.shards,
            nodes: layout.nodes,
            node,
            made_ms: facts.made_ms,
        };
        Backup { env, runner: self.clone(), header, stage: Stage::Begin }
    }
}

impl<E: Env> Backup<E> {
    /// The next bytes of the file; none of them where there is only a sign of life to give; `None` after the
    /// last.
    ///
    /// # Errors
    /// It cannot be made of this node at the moment; there is no next piece then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TableFailure> {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Begin => {
                let (writer, bytes) = BackupWriter::new(&self.header);
                self.stage = Stage::Shard(Box::new(writer), ShardId(0));
                Ok(Some(bytes.into()))
            }
            Stage::Shard(writer, shard) if shard.0 == self.header.shards => Ok(Some(writer.finish().into())),
            Stage::Shard(writer, shard) => {
                let revision = self.revision_of(shard).await?;
                self.wait(writer, Wait { shard, revision, behind: 0, replaced: 0 }).await.map(Some)
            }
            Stage::Waiting(writer, wait) => self.wait(writer, wait).await.map(Some),
            Stage::Table(mut writer, mut reading) => {
                let shard = reading.shard;
                self.env.sleep(PIECE_REST).await;
                let piece = match reading.piece(&self.env).await {
                    Ok(piece) => piece,
                    Err(source) => return Err(self.unreadable(shard, source)),
                };
                let Some(checksum) = writer.pass_table(&piece) else {
                    self.stage = Stage::Table(writer, reading);
                    return Ok(Some(piece));
                };
                self.stage = Stage::Shard(writer, shard.next());
                Ok(Some([&piece[..], &checksum].concat().into()))
            }
            Stage::End => Ok(None),
        }
    }

    /// Waits for this node's table of a shard, and begins its part of the backup where it is there.
    async fn wait(&mut self, mut writer: Box<BackupWriter>, mut wait: Wait) -> Result<Bytes, TableFailure> {
        let shard = wait.shard;
        let wanted = Wanted::Revision(wait.revision);
        match self.runner.ask_snapshot(shard, wanted, TABLE_WAIT).await {
            Some(SnapshotAnswer::Durable(Some(TablePlace { named, path }))) => {
                match open_table_at(&self.env, path, shard, &named).await {
                    Ok(table) => {
                        let bytes = writer.begin_part(&part_of(shard, &table));
                        let lending = Lending::new(Rc::new(table.file), Rc::new(table.index));
                        let reading = Reading { shard, lending, offset: 0 };
                        self.stage = Stage::Table(writer, Box::new(reading));
                        return Ok(bytes.into());
                    }
                    // A newer one took its place between being named and being opened.
                    Err(source) if is_missing(&source) && wait.replaced < REPLACED_MAX => wait.replaced += 1,
                    // It may be this process that has no files left to open: the table need not be damaged.
                    Err(source @ TableReadError::Io { .. }) if !is_missing(&source) => {
                        return Err(TableFailure::Unreadable { shard, source });
                    }
                    Err(source) => return Err(self.unreadable(shard, source)),
                }
            }
            Some(SnapshotAnswer::Making) => wait.behind = 0,
            Some(SnapshotAnswer::Durable(None) | SnapshotAnswer::Behind) => wait.behind += 1,
            Some(SnapshotAnswer::Busy) | None => return Err(TableFailure::Busy { shard }),
        }
        if wait.behind >= BEHIND_MAX {
            return Err(TableFailure::Behind { shard });
        }
        self.stage = Stage::Waiting(writer, wait);
        Ok(Bytes::new())
    }

    /// This node's table of a shard is damaged: the backup ends, and the replica is told, whose affair it is.
    fn unreadable(&self, shard: ShardId, source: TableReadError) -> TableFailure {
        self.runner.report_table_damaged(shard, source.clone());
        TableFailure::Unreadable { shard, source }
    }

    /// The revision of the shard, wherever it is led, now or later.
    async fn revision_of(&self, shard: ShardId) -> Result<Revision, TableFailure> {
        let query = Query::Txn(ReadTxn::default());
        let request = Request::Query { query, consistency: Consistency::Linearizable };
        let deadline: Instant = self.env.now() + READ_WAIT_MAX;
        let answered = self.runner.call(shard, request, deadline).await;
        let answered = answered.map_err(|failure| TableFailure::Read { shard, failure })?;
        Ok(answered.revision)
    }
}

fn is_missing(error: &TableReadError) -> bool {
    matches!(error, TableReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn part_of<E: Env>(shard: ShardId, table: &OpenTable<E>) -> BackupPart {
    let (named, meta) = (table.file.named(), table.index.meta());
    BackupPart {
        shard,
        revision: meta.revision,
        index: named.index,
        term: named.term,
        length: named.bytes,
        keys: meta.sums.keys,
        bytes: meta.sums.bytes,
    }
}

impl<E: Env> Reading<E> {
    /// The next part of the file.
    async fn piece(&mut self, env: &E) -> Result<Bytes, TableReadError> {
        let piece = self.lending.part(env, self.offset, PIECE_BYTES).await?;
        let piece = piece.expect("nobody else reads for this backup");
        self.offset += piece.len() as u64;
        Ok(piece)
    }
}
