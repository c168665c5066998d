//! What an operation of a disk does, and what it answers, as plain data.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use distribkv::env::OpenMode;

use super::names::InodeId;
use super::settings::Kind;
use crate::trace::hash_bytes;

/// What an operation does, as plain data.
#[derive(Clone)]
pub(super) enum Action {
    Open { path: PathBuf, mode: OpenMode },
    Read { inode: InodeId, pos: u64, len: usize },
    Length { inode: InodeId },
    Write { inode: InodeId, pos: u64, data: Rc<[u8]>, through: Through },
    Sync { inode: InodeId, through: u64 },
    Allocate { inode: InodeId, len: u64 },
    List { path: PathBuf },
    CreateDir { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    SyncDir { path: PathBuf, through: u64 },
    Close,
}

/// How far a write goes before it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    Cache,
    Disk,
}

/// What an operation answers.
pub(super) enum Answer {
    Done,
    Opened(InodeId),
    Bytes(Vec<u8>),
    Length(u64),
    Names(Vec<String>),
}

impl Action {
    /// What it is for faults, stalls and latencies.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Open { .. } => Kind::Open,
            Self::Read { .. } | Self::Length { .. } => Kind::Read,
            Self::Write { .. } => Kind::Write,
            Self::Sync { .. } => Kind::Sync,
            Self::Allocate { .. } => Kind::Allocate,
            Self::List { .. } => Kind::List,
            Self::CreateDir { .. } | Self::Rename { .. } | Self::Remove { .. } => Kind::Names,
            Self::SyncDir { .. } => Kind::SyncDir,
            Self::Close => Kind::Close,
        }
    }

    /// Whether it may have changed the disk although nobody was told.
    pub(super) fn is_change(&self) -> bool {
        match self {
            Self::Open { mode, .. } => matches!(mode, OpenMode::Create | OpenMode::CreateDurable),
            Self::Write { .. } | Self::Allocate { .. } | Self::CreateDir { .. } => true,
            Self::Rename { .. } | Self::Remove { .. } => true,
            Self::Read { .. } | Self::Length { .. } | Self::List { .. } | Self::Close => false,
            // A sync that nobody was told of says nothing: what it covers stays a matter of choice.
            Self::Sync { .. } | Self::SyncDir { .. } => false,
        }
    }

    /// The numbers by which a trace tells it.
    pub(super) fn numbers(&self) -> [u64; 3] {
        let path_hash = |path: &Path| hash_bytes(path.to_string_lossy().as_bytes());
        match self {
            Self::Open { path, mode } => [path_hash(path), u64::from(mode.is_durable()), 0],
            Self::Read { inode, pos, len } => [inode.0, *pos, *len as u64],
            Self::Length { inode } => [inode.0, 0, 0],
            Self::Write { inode, pos, data, .. } => [inode.0, *pos, hash_bytes(data)],
            Self::Sync { inode, through } => [inode.0, *through, 0],
            Self::Allocate { inode, len } => [inode.0, *len, 0],
            Self::List { path } | Self::CreateDir { path } | Self::Remove { path } => [path_hash(path), 0, 0],
            Self::Rename { from, to } => [path_hash(from), path_hash(to), 0],
            Self::SyncDir { path, through } => [path_hash(path), *through, 0],
            Self::Close => [0; 3],
        }
    }

    /// The file that it holds on to while it is in flight.
    pub(super) fn inode(&self) -> Option<InodeId> {
        match self {
            Self::Read { inode, .. } | Self::Length { inode } | Self::Write { inode, .. } => Some(*inode),
            Self::Sync { inode, .. } | Self::Allocate { inode, .. } => Some(*inode),
            Self::Open { .. } | Self::List { .. } | Self::CreateDir { .. } | Self::Rename { .. } => None,
            Self::Remove { .. } | Self::SyncDir { .. } | Self::Close => None,
        }
    }
}
