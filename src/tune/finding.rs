//! What is said of a host: one finding a fact, with what would be better and how to get there.

use crate::config::Settings;

use super::checks;
use super::disk::Disk;
use super::facts::Host;
use super::pace::Pace;

/// How a fact stands, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// The host does not say.
    Unknown,
    /// It works, and could be better.
    Better,
    /// A node does not start, or does not keep its promises.
    Needed,
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "-",
            Self::Better => "better",
            Self::Needed => "needed",
        }
    }
}

/// One fact of a host, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub what: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What should be.
    pub wanted: String,
    /// How to change it; empty where nothing has to be.
    pub change: String,
    /// Whether it is worth a line in the log of a node that starts.
    pub at_start: bool,
}

impl Finding {
    /// A finding that is not told at a start.
    pub(super) fn of(what: &'static str, state: State, found: String, wanted: &str) -> Self {
        Self { what, state, found, wanted: wanted.into(), change: String::new(), at_start: false }
    }

    /// The same, with how to change it where it is not as it should be.
    pub(super) fn or_change(mut self, change: &str) -> Self {
        if self.state > State::Unknown {
            self.change = change.into();
        }
        self
    }

    /// The same, told at a start where it is not as it should be.
    pub(super) fn told_at_start(mut self) -> Self {
        self.at_start = self.state > State::Unknown;
        self
    }
}

/// What of a host was measured; `None` where nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How evenly a CPU ran.
    pub pace: Option<Pace>,
    /// What the disk did.
    pub disk: Option<Disk>,
}

/// Everything that is to say of a host on which a node with these settings is to run. What was measured of
/// the disk overrules what it says of itself.
#[must_use]
pub fn findings(host: &Host, settings: &Settings, measured: &Measured) -> Vec<Finding> {
    let mut found = vec![
        checks::kernel(host),
        checks::io_uring(host),
        checks::locked_memory(host),
        checks::open_files(host, settings),
        checks::cpus(host, settings),
        checks::memory(host, settings),
        checks::swap(host),
        checks::file_system(host),
        checks::direct_io(host),
        checks::free_space(host, settings),
    ];
    if let Some(device) = &host.device {
        found.extend(checks::device(device, measured.disk.as_ref()));
    }
    found.extend([checks::huge_pages(host), checks::governor(host), checks::clock_source(host)]);
    found.extend(measured.pace.as_ref().map(checks::pace));
    found
}

/// What of it a node says when it starts: at most one line for each that matters.
pub fn matters_at_start(host: &Host, settings: &Settings) -> impl Iterator<Item = Finding> + use<> {
    findings(host, settings, &Measured::default()).into_iter().filter(|finding| finding.at_start)
}
