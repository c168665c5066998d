//! What ends a node's process, what it says, and its exit code.
//!
//! Each cause is one clear line: what, where, and what to do. Codes are stable; scripts may rely on them.

use std::fmt;
use std::path::PathBuf;

use crate::config::Cluster;
use crate::env::executor::ExecutorError;
use crate::host::restore::RestoreError;
use crate::ids::NodeId;
use crate::log::{LogFailure, OpenError, ReadError};
use crate::shard::admission::{DeskEnd, Refused, Rejection};
use crate::shard::{RunEnd, TableReadError};

/// Why the process ends.
#[derive(Debug)]
pub enum Exit {
    /// A setting is wrong. Code 2, as clap's.
    Usage(String),
    /// A file or socket could not be used. Code 1.
    Io {
        /// What was tried, and on what.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another process uses the data directory. Code 10.
    DirectoryInUse(PathBuf),
    /// Another process listens on the address. Code 11.
    AddressInUse(String),
    /// io_uring cannot be used, or another need of an executor is not met. Codes 12 (io_uring denied), 13
    /// (too little lockable memory), 14 (cannot pin).
    Executor(ExecutorError),
    /// The data directory is another node's, another cluster's, of another format, or damaged. Codes 15
    /// (identity), 16 (format), 17 (damage), 1 (a file could not be read).
    Open {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        source: OpenError,
    },
    /// What a shard's log holds makes no sense. Code 17.
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// The shard, and what makes no sense.
        source: crate::shard::Unreadable,
    },
    /// A batch could not be made durable: the page cache no longer tells the truth. Code 18.
    LogWrite(LogFailure),
    /// Entries that a log holds cannot be read. Codes 17 (damage), 1 (the disk failed to read).
    LogRead {
        /// The shard.
        shard: crate::ids::ShardId,
        /// Why.
        source: ReadError,
    },
    /// What a log holds is not what was written. Code 17.
    LogDamaged(RunEnd),
    /// A shard's table cannot be read, or is not what it has to be. Codes 17 (damage), 1 (the disk failed to
    /// read).
    Table(RunEnd),
    /// A committed entry is no command of this version. Code 16.
    Command(RunEnd),
    /// A backup was not restored. Codes 1 (a file could not be used), 2 (settings), 16 (format), 17 (damage).
    Restore {
        /// The backup.
        from: PathBuf,
        /// The directory that was to be made of it.
        dir: PathBuf,
        /// Why.
        source: RestoreError,
    },
    /// The host lacks what a node needs, as `kvserver tune` found. Code 21.
    Unfit {
        /// How many of its findings say so.
        needed: usize,
    },
    /// What a part of the node said when it ended, with its code.
    Said {
        /// The code.
        code: i32,
        /// What it said.
        text: String,
    },
    /// Other nodes refuse this one, and they are right. Codes 19 (another cluster, other settings or another
    /// id), 20 (another data directory, or an older copy of it), 16 (another format).
    Refused {
        /// Who refused, and why.
        refused: Refused,
        /// The settings of this node that must agree, for a person to compare.
        cluster: Cluster,
    },
}

impl Exit {
    /// Why the process ends where its desk has ended.
    #[must_use]
    pub fn of_desk(end: DeskEnd, cluster: &Cluster) -> Self {
        match end {
            DeskEnd::Failed(failure) => Self::LogWrite(failure),
            DeskEnd::Refused(refused) => Self::Refused { refused, cluster: cluster.clone() },
        }
    }
}

impl From<RunEnd> for Exit {
    fn from(end: RunEnd) -> Self {
        match end {
            RunEnd::LogWrite(failure) => Self::LogWrite(failure),
            RunEnd::LogRead { shard, source } => Self::LogRead { shard, source },
            RunEnd::LogDamaged { .. } => Self::LogDamaged(end),
            RunEnd::Command { .. } => Self::Command(end),
            RunEnd::Table { .. } | RunEnd::Merge { .. } | RunEnd::Digest { .. } => Self::Table(end),
        }
    }
}

impl Exit {
    /// Whether the way out may be to recover this node: what it voted and acknowledged is in no directory
    /// that it has.
    #[must_use]
    pub fn asks_for_recovery(&self) -> bool {
        let Self::Refused { refused, .. } = self else { return false };
        match refused.rejection {
            Rejection::Directory { .. } | Rejection::Recovery { .. } | Rejection::NoWitness { .. } => true,
            Rejection::Format { .. }
            | Rejection::Cluster { .. }
            | Rejection::Settings { .. }
            | Rejection::Node { .. }
            | Rejection::Incarnation { .. } => false,
        }
    }

    /// The process' exit code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Io { .. } | Self::Executor(ExecutorError::Io(_)) => 1,
            Self::Usage(_) => 2,
            Self::DirectoryInUse(_) => 10,
            Self::AddressInUse(_) => 11,
            Self::Executor(ExecutorError::IoUringDenied(_)) => 12,
            Self::Executor(ExecutorError::LockableMemory { .. }) => 13,
            Self::Executor(ExecutorError::Cpu(_)) => 14,
            Self::Open { source, .. } => open_code(source),
            Self::Unreadable { .. } => 17,
            Self::LogWrite(_) => 18,
            Self::LogRead { source: ReadError::Failed(_), .. } => 1,
            Self::LogRead { .. } => 17,
            Self::Command(_) => 16,
            Self::Table(RunEnd::Table { source: TableReadError::Io { source, .. }, .. })
                if source.kind() != std::io::ErrorKind::NotFound =>
            {
                1
            }
            Self::Table(_) | Self::LogDamaged(_) => 17,
            Self::Restore { source, .. } => source.code(),
            Self::Said { code, .. } => *code,
            Self::Refused { refused, .. } => refused_code(refused.rejection),
            Self::Unfit { .. } => 21,
        }
    }
}

fn refused_code(rejection: Rejection) -> i32 {
    match rejection {
        Rejection::Format { .. } => 16,
        Rejection::Directory { .. }
        | Rejection::Incarnation { .. }
        | Rejection::Recovery { .. }
        | Rejection::NoWitness { .. } => 20,
        Rejection::Cluster { .. } | Rejection::Settings { .. } | Rejection::Node { .. } => 19,
    }
}

fn open_code(error: &OpenError) -> i32 {
    match error {
        OpenError::Disagrees { .. } => 15,
        OpenError::Format { .. } => 16,
        OpenError::Damaged(_) => 17,
        OpenError::Failed(_) | OpenError::DiskFull(_) => 1,
        OpenError::Settings(_) => 2,
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Said { text, .. } => write!(f, "{text}"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::DirectoryInUse(dir) => write!(
                f,
                "data directory {} is in use by another process: stop it, or give this node another \
                 --data-dir",
                dir.display()
            ),
            Self::AddressInUse(address) => write!(
                f,
                "address {address} is in use by another process: stop it, or give this node another --listen \
                 address"
            ),
            Self::Executor(error) => write!(f, "{error}"),
            Self::Unfit { needed: 1 } => write!(f, "this host lacks one thing that a node needs: see above"),
            Self::Unfit { needed } => {
                write!(f, "this host lacks {needed} things that a node needs: see above")
            }
            Self::Open { dir, source } => write!(f, "data directory {}: {source}", dir.display()),
            Self::Unreadable { dir, source } => write!(f, "data directory {}: {source}", dir.display()),
            Self::LogRead { shard, source } => write!(
                f,
                "entries of shard {shard} cannot be read from its log: {source}. Nothing was cut or \
                 removed; the other nodes serve"
            ),
            Self::Command(end) => {
                write!(f, "{end}. Nothing was cut or removed: start the version that the other nodes run")
            }
            Self::Table(end) | Self::LogDamaged(end) => {
                write!(f, "{end}. Nothing was cut or removed; the other nodes serve")
            }
            Self::Restore { from, source, .. } if source.is_of_backup() => {
                write!(f, "backup {}: {source}. Nothing was restored", from.display())
            }
            Self::Restore { dir, source, .. } => write!(
                f,
                "data directory {}: {source}. It is not whole: remove it, and restore again",
                dir.display()
            ),
            Self::LogWrite(failure) => write!(
                f,
                "a log write failed, so what the disk holds is no longer known: {failure}. Check the disk \
                 and start again: what was acknowledged is on a quorum of disks"
            ),
            Self::Refused { refused, cluster } => {
                let by: Vec<String> = refused.by.iter().map(|node| node_name(*node, cluster)).collect();
                let one = if by.len() == 1 { by[0].as_str() } else { "the last of them" };
                let why = refusal_text(refused.rejection, (one, "this node"), cluster);
                write!(f, "refused by {}: {why}", by.join(" and "))
            }
        }
    }
}

impl std::error::Error for Exit {}

/// A node as a person finds it: its id and address.
#[must_use]
pub fn node_name(node: NodeId, cluster: &Cluster) -> String {
    match cluster.peers.get((node.0 as usize).wrapping_sub(1)) {
        Some(address) => format!("node {node} ({address})"),
        None => format!("node {node}"),
    }
}

/// A refusal in words, by the names of who refused and who was refused. Where it is about settings, this
/// node's are said: a hello carries but their hash, and the other end says its own.
#[must_use]
pub fn refusal_text(rejection: Rejection, (refuser, refused): (&str, &str), cluster: &Cluster) -> String {
    let text = rejection.text(refuser, refused);
    match rejection {
        Rejection::Cluster { .. } => format!("{text}. This node was started with {}", cluster.origin()),
        Rejection::Settings { .. } => format!("{text}. This node has {}", cluster.agreement()),
        Rejection::Format { .. }
        | Rejection::Node { .. }
        | Rejection::Directory { .. }
        | Rejection::Incarnation { .. }
        | Rejection::Recovery { .. }
        | Rejection::NoWitness { .. } => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_who_refused_and_what_to_compare() {
        let cluster = Cluster { peers: vec!["a:1".into(), "b:2".into()], ..Cluster::default() };
        let rejection = Rejection::Settings { ours: 1, theirs: 2 };
        let exit = Exit::Refused { refused: Refused { by: vec![NodeId(2)], rejection }, cluster };
        assert_eq!(exit.code(), 19);
        let said = exit.to_string();
        assert!(said.starts_with("refused by node 2 (b:2): node 2 (b:2) has cluster settings"), "{said}");
        assert!(said.contains("this node with 0000000000000002"), "{said}");
        assert!(
            said.ends_with(
                "This node has nodes=2 shards=8 election_timeout_ms=1000 heartbeat_ms=100 \
                                lease_reads=false"
            ),
            "{said}"
        );
    }
}
