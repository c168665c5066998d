//! What a disk is told to do wrong: errors at chosen operations or by chance, writes that go astray, and
//! stalls.

use super::EIO;
use super::damage::Stray;
use super::settings::Kind;
use crate::random::{Chance, Random};

/// Faults that may be set at the same time.
const FAULTS_MAX: usize = 64;

/// Makes operations of a kind fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One operation: the one after `after` others of the kind, counted from when this is set.
    Once {
        /// The kind.
        kind: Kind,
        /// Operations of the kind that still work.
        after: u64,
    },
    /// Every operation, until [`super::Disk::heal`].
    Always {
        /// The kind.
        kind: Kind,
    },
    /// Some operations.
    Sometimes {
        /// The kind.
        kind: Kind,
        /// How often.
        chance: Chance,
    },
    /// One write is acknowledged, and is not where it should be: the one after `after` others.
    Astray {
        /// What becomes of it.
        stray: Stray,
        /// Writes that still land.
        after: u64,
    },
}

/// Which operations hang until the disk is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stall {
    /// None: the disk works.
    #[default]
    Nothing,
    /// What writes: data, lengths, names and syncs. Reads go on, from the cache.
    Writes,
    /// All.
    Everything,
}

impl Stall {
    /// Whether operations of a kind hang.
    pub(super) fn holds(self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Nothing, _) => false,
            (Self::Everything, _) => true,
            (Self::Writes, Kind::Read | Kind::List | Kind::Close) => false,
            (Self::Writes, Kind::Write | Kind::Sync | Kind::Allocate) => true,
            (Self::Writes, Kind::Names | Kind::SyncDir | Kind::Open) => true,
        }
    }
}

/// The faults that are set.
#[derive(Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    pub(super) stall: Stall,
}

impl Faults {
    /// Sets one more fault; each counts its own operations.
    pub(super) fn add(&mut self, fault: Fault) {
        assert!(self.list.len() < FAULTS_MAX, "more than {FAULTS_MAX} faults at once");
        self.list.push(fault);
    }

    /// Whether the operation that is being submitted will fail, and with which error.
    pub(super) fn error(&mut self, kind: Kind, random: &mut Random) -> Option<i32> {
        let mut failed = false;
        self.list.retain_mut(|fault| match fault {
            Fault::Once { kind: of, .. } if *of != kind => true,
            Fault::Astray { .. } => true,
            Fault::Once { after: 0, .. } => {
                failed = true;
                false
            }
            Fault::Once { after, .. } => {
                *after -= 1;
                true
            }
            Fault::Always { kind: of } => {
                failed |= *of == kind;
                true
            }
            Fault::Sometimes { kind: of, chance } => {
                failed |= *of == kind && random.happens(*chance);
                true
            }
        });
        failed.then_some(EIO)
    }

    /// Whether the operation that is being submitted is a write that goes astray.
    pub(super) fn stray(&mut self, kind: Kind) -> Option<Stray> {
        let mut gone = None;
        self.list.retain_mut(|fault| match fault {
            Fault::Astray { stray, after: 0 } if kind == Kind::Write => {
                gone = Some(*stray);
                false
            }
            Fault::Astray { after, .. } if kind == Kind::Write => {
                *after -= 1;
                true
            }
            Fault::Astray { .. } | Fault::Once { .. } | Fault::Always { .. } | Fault::Sometimes { .. } => {
                true
            }
        });
        gone
    }
}
