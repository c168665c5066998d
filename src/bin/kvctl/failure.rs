//! Why a command did not succeed: the line that is said, and the exit status.

use std::fmt;
use std::io;
use std::path::PathBuf;

use distribkv::client::{EndpointFault, Error};
use distribkv::kv::backup::BackupError;

use crate::txn_file::TxnFault;

/// The answer is no.
pub const NO: u8 = 1;
/// The command line or the request is at fault.
pub const USAGE: u8 = 2;
/// Nothing was executed.
pub const UNAVAILABLE: u8 = 3;
/// The change may have been made, or may yet be.
pub const UNKNOWN: u8 = 4;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// There is no such key.
    NotFound(Vec<u8>),
    /// The key is not at the revision that was asked for; the one it is at, where that is known.
    Compared(Vec<u8>, Option<u64>),
    /// The answer says so itself: nothing more is to be said.
    No,
    /// No node answered; whatever there was to say has been said.
    NobodyAnswered,
    /// An endpoint cannot be dialled.
    Endpoint(EndpointFault),
    /// The transaction's file cannot be understood.
    Txn(PathBuf, TxnFault),
    /// A file or standard input cannot be read.
    Read(PathBuf, io::Error),
    /// More input than any request may have.
    TooLong(PathBuf, u64),
    /// A file cannot be made.
    Create(PathBuf, io::Error),
    /// A file cannot be written to.
    Save(PathBuf, io::Error),
    /// What this node sent is no whole backup.
    Backup(String, BackupError),
    /// Standard output cannot be written to.
    Write(io::Error),
    /// What the client says.
    Client(Error),
}

impl Failure {
    /// The exit status.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotFound(_) | Self::Compared(..) | Self::No => NO,
            Self::Endpoint(_) | Self::Txn(..) | Self::Read(..) | Self::TooLong(..) => USAGE,
            Self::Create(..) => USAGE,
            Self::Save(..) | Self::Backup(..) => UNAVAILABLE,
            // Whoever read the output has had enough of it.
            Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Write(_) | Self::NobodyAnswered => UNAVAILABLE,
            Self::Client(error) => match error {
                Error::ChangeRequest { .. } => USAGE,
                Error::CheckOutcome { .. } => UNKNOWN,
                Error::TryAgain { .. }
                | Error::SlowDown { .. }
                | Error::FreeSpace { .. }
                | Error::Reconnect => UNAVAILABLE,
            },
        }
    }

    /// What is said on standard error, where anything is left to be said.
    pub fn line(&self) -> Option<String> {
        match self {
            Self::No => None,
            Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            said => Some(said.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(key) => write!(f, "no such key: {}", key.escape_ascii()),
            Self::Compared(key, Some(0)) => {
                write!(f, "comparison failed, nothing was changed: there is no key {}", key.escape_ascii())
            }
            Self::Compared(key, Some(revision)) => write!(
                f,
                "comparison failed, nothing was changed: {} is at mod revision {revision}",
                key.escape_ascii()
            ),
            Self::Compared(key, None) => write!(
                f,
                "comparison failed, nothing was changed: read {} for its mod revision",
                key.escape_ascii()
            ),
            Self::No => f.write_str("the answer is no"),
            Self::NobodyAnswered => f.write_str(
                "no node could be reached; check --endpoints (KVCTL_ENDPOINTS) and that the nodes run",
            ),
            Self::Endpoint(fault) => fault.fmt(f),
            Self::Txn(file, fault) => write!(f, "{}: {fault}; see `kvctl txn --help`", file.display()),
            Self::Read(file, error) => write!(f, "{} cannot be read: {error}", file.display()),
            Self::TooLong(file, most) => write!(f, "{} is longer than {most} bytes", file.display()),
            Self::Create(file, error) => write!(f, "{} cannot be made: {error}", file.display()),
            Self::Save(file, error) => write!(f, "{} cannot be written to: {error}", file.display()),
            Self::Backup(address, error) => write!(f, "what {address} sent is not a whole backup: {error}"),
            Self::Write(error) => write!(f, "standard output cannot be written to: {error}"),
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}
