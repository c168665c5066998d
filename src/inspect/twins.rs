//! The two copies of a manifest or an identity, as they lie there.

use std::io;

use crate::log::twin::{self, FORMAT, TWIN_BYTES_MAX, TwinKind};

use super::files::Files;
use super::finding::{Finding, Severity, What};

/// The most bytes of a copy's file that are looked at.
const FILE_BYTES_MAX: usize = TWIN_BYTES_MAX + crate::env::BLOCK_BYTES;

/// What one copy is.
#[derive(Debug)]
pub(super) enum CopyFound {
    /// Whole.
    Whole {
        /// Its generation.
        generation: u64,
        /// What it holds.
        payload: Vec<u8>,
    },
    /// Not there.
    Missing,
    /// There, and not whole.
    Damaged,
    /// Of a version that is not known.
    Format(u16),
    /// It cannot be read.
    Unreadable(io::Error),
}

/// Both copies, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Twins {
    /// Their names in the data directory.
    pub(super) names: [String; 2],
    /// What they are.
    pub(super) copies: [CopyFound; 2],
}

impl Twins {
    /// Reads both copies of a directory.
    pub(super) fn read(files: &impl Files, dir: &str, kind: TwinKind) -> Self {
        let names = kind.names().map(|name| join(dir, name));
        let copies = [0, 1].map(|at: usize| read_copy(files, &names[at], kind));
        Self { names, copies }
    }

    /// Whether neither is there.
    pub(super) fn are_missing(&self) -> bool {
        self.copies.iter().all(|copy| matches!(copy, CopyFound::Missing))
    }

    /// The payload that a start would take.
    pub(super) fn newest(&self) -> Option<&[u8]> {
        let whole = self.copies.iter().filter_map(|copy| match copy {
            CopyFound::Whole { generation, payload } => Some((*generation, payload)),
            CopyFound::Missing | CopyFound::Damaged | CopyFound::Format(_) | CopyFound::Unreadable(_) => None,
        });
        // Of two of one generation the first.
        whole.rev().max_by_key(|(generation, _)| *generation).map(|(_, payload)| &payload[..])
    }

    /// What is wrong with them, where they are not both missing.
    pub(super) fn findings(self, findings: &mut Vec<Finding>) {
        let [name_a, name_b] = self.names;
        let [copy_a, copy_b] = self.copies;
        let of = |severity, file: &String, what| finding(severity, file, what);
        match (copy_a, copy_b) {
            (
                CopyFound::Whole { generation: a, payload: first },
                CopyFound::Whole { generation: b, payload: second },
            ) => {
                let what = |generation: u64, newest: u64| What::CopyOlder { generation, newest };
                if a == b && first != second {
                    findings.push(of(Severity::Fatal, &name_a, What::CopiesDisagree));
                } else if b < a {
                    findings.push(of(Severity::Note, &name_b, what(b, a)));
                } else if a < b {
                    // A change writes this one first: no crash leaves it behind the other.
                    findings.push(of(Severity::Copy, &name_a, what(a, b)));
                }
            }
            (CopyFound::Whole { generation: 1, .. }, CopyFound::Missing) => {
                findings.push(of(Severity::Note, &name_b, What::CopyNotYet));
            }
            (CopyFound::Whole { .. }, lost) => findings.extend(lost.finding(Severity::Copy, &name_b)),
            (lost, CopyFound::Whole { .. }) => findings.extend(lost.finding(Severity::Copy, &name_a)),
            (lost_a, lost_b) => {
                let is_newer =
                    matches!(lost_a, CopyFound::Format(_)) || matches!(lost_b, CopyFound::Format(_));
                findings.extend(lost_a.finding(Severity::Fatal, &name_a));
                findings.extend(lost_b.finding(Severity::Fatal, &name_b));
                if !is_newer {
                    findings.push(of(Severity::Fatal, &name_a, What::CopiesLost));
                }
            }
        }
    }
}

impl CopyFound {
    /// What is wrong with a copy that is not whole, of which the other one is or is not.
    fn finding(self, severity: Severity, name: &str) -> Option<Finding> {
        let (severity, what) = match self {
            Self::Whole { .. } => return None,
            Self::Missing => (severity, What::CopyMissing),
            Self::Damaged => (severity, What::CopyDamaged),
            // A start refuses it whatever the other copy is.
            Self::Format(found) => (Severity::Fatal, What::Format { found, known: FORMAT }),
            Self::Unreadable(error) => (severity, What::Unreadable(error)),
        };
        Some(finding(severity, name, what))
    }
}

fn finding(severity: Severity, file: &str, what: What) -> Finding {
    Finding { severity, file: file.to_owned(), offset: 0, shards: Vec::new(), what }
}

fn read_copy(files: &impl Files, name: &str, kind: TwinKind) -> CopyFound {
    let bytes = match files.read(name, 0, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return CopyFound::Missing,
        Err(error) => return CopyFound::Unreadable(error),
    };
    match twin::decode(&bytes, kind) {
        Some(twin::Copy { format: FORMAT, generation, payload }) => {
            CopyFound::Whole { generation, payload: payload.to_vec() }
        }
        Some(twin::Copy { format, .. }) => CopyFound::Format(format),
        None => CopyFound::Damaged,
    }
}

/// The name of a file in a directory of the data directory.
pub(super) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
