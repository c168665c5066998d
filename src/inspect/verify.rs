//! Whether a data directory is whole: identity, manifests, segments, batches, entries, tables, keys.
//!
//! What is wrong is sorted by who can repair it. What a crash leaves (a torn tail, a copy that is one change
//! behind, a file that no manifest names) is no damage: the next start takes care of it. Nor are bytes that
//! nothing reads and that are not what was written.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use crate::ids::{Index, LaneId, ShardId};
use crate::log::identity::{self, Identity};
use crate::log::manifest::{Manifest, table_name, table_of_name};
use crate::log::segment::{segment_name, segment_of_name};
use crate::log::twin::TwinKind;
use crate::log::{LANE_DIR_PREFIX, OpenError, TableRef};

use super::files::Files;
use super::finding::{Finding, Severity, What};
use super::lane::{LaneLog, read_log};
use super::table::check_table;
use super::twins::{Twins, join};

/// The suffix of a copy that is being written.
const FRESH_SUFFIX: &str = ".new";
/// The suffix of a table that is on its way from another node.
const PART_SUFFIX: &str = ".part";

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lanes with a manifest.
    pub lanes: u64,
    /// Segments.
    pub segments: u64,
    /// Batches that are where they belong.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Tables.
    pub tables: u64,
    /// Their keys.
    pub keys: u64,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    /// All that was found, in the order of the directory.
    pub findings: Vec<Finding>,
    /// What was looked at.
    pub counts: Counts,
}

impl Report {
    /// The worst of what was found.
    #[must_use]
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
    }

    /// The exit code that says so: 0 clean, 3 damaged and repairable, 4 fatal.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self.worst() {
            Severity::Note => 0,
            Severity::Copy | Severity::Peers => 3,
            Severity::Fatal => 4,
        }
    }

    /// Who may not read a file cannot say that it is damaged.
    fn was_allowed(self) -> io::Result<Self> {
        let denied = io::ErrorKind::PermissionDenied;
        let is_denied =
            |finding: &&Finding| matches!(&finding.what, What::Unreadable(why) if why.kind() == denied);
        match self.findings.iter().find(is_denied) {
            None => Ok(self),
            Some(finding) => Err(io::Error::new(denied, finding.to_string())),
        }
    }

    fn add(&mut self, severity: Severity, file: &str, what: What) {
        let (file, shards) = (file.to_owned(), Vec::new());
        self.findings.push(Finding { severity, file, offset: 0, shards, what });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.worst() {
            Severity::Note => "clean",
            Severity::Copy => "damaged, and the other copy has it all: the next start repairs it",
            Severity::Peers => "damaged; the other nodes can repair it",
            Severity::Fatal => "damaged beyond what the other nodes repair by themselves",
        };
        let damage = self.findings.iter().filter(|finding| finding.severity > Severity::Note).count();
        let notes = self.findings.len() - damage;
        let Counts { lanes, segments, batches, records, tables, keys } = self.counts;
        write!(
            f,
            "{outcome}: {damage} damaged, {notes} noted; {lanes} lanes, {segments} segments, {batches} \
             batches, {records} records, {tables} tables, {keys} keys"
        )
    }
}

/// Checks a data directory.
///
/// # Errors
/// The directory cannot be read, or a file may not be.
pub fn verify(files: &impl Files) -> io::Result<Report> {
    let names = files.list("")?;
    let mut report = Report::default();
    let identity = read_identity(files, &names, &mut report);
    let lanes = lanes(&names, identity.as_ref());
    for (lane, is_there) in lanes {
        let dir = format!("{LANE_DIR_PREFIX}{lane}");
        if is_there {
            let shards = shards_of(identity.as_ref(), lane);
            check_lane(files, (&dir, lane), &shards, &mut report);
        } else {
            missing_lane(&dir, identity.as_ref(), &mut report);
        }
    }
    strangers(&names, "", &mut report, |name| {
        name == "LOCK" || lane_of(name).is_some() || TwinKind::Identity.names().contains(&name)
    });
    if identity.is_some_and(|identity| identity.nodes == 1) {
        // There is nobody else who has it.
        let of_peers = report.findings.iter_mut().filter(|finding| finding.severity == Severity::Peers);
        of_peers.for_each(|finding| finding.severity = Severity::Fatal);
    }
    report.was_allowed()
}

/// The identity as a start would take it.
pub(super) fn identity_of(twins: &Twins) -> Result<Option<Identity>, What> {
    let Some(payload) = twins.newest() else { return Ok(None) };
    match identity::decode(payload, Path::new(&twins.names[0])) {
        Ok(Some(identity)) => Ok(Some(identity)),
        Err(OpenError::Format { found, known, .. }) => Err(What::Format { found, known }),
        Ok(None) | Err(_) => Err(What::Content),
    }
}

/// The manifest of a lane as a start would take it.
pub(super) fn manifest_of(twins: &Twins) -> Result<Option<Manifest>, What> {
    let Some(payload) = twins.newest() else { return Ok(None) };
    Manifest::decode(payload).map(Some).ok_or(What::Content)
}

fn read_identity(files: &impl Files, names: &[String], report: &mut Report) -> Option<Identity> {
    let twins = Twins::read(files, "", TwinKind::Identity);
    if twins.are_missing() {
        let has_lanes = names.iter().any(|name| lane_of(name).is_some());
        let what = if has_lanes { What::CopiesMissing } else { What::IdentityMissing };
        report.add(Severity::Fatal, &twins.names[0], what);
        return None;
    }
    let name = twins.names[0].clone();
    let decoded = identity_of(&twins);
    twins.findings(&mut report.findings);
    decoded.unwrap_or_else(|what| {
        report.add(Severity::Fatal, &name, what);
        None
    })
}

/// The lanes that there are or should be, in order, and whether they are there.
pub(super) fn lanes(names: &[String], identity: Option<&Identity>) -> Vec<(LaneId, bool)> {
    let found: Vec<LaneId> = names.iter().filter_map(|name| lane_of(name)).collect();
    let known = identity.map_or(0, |identity| identity.lanes);
    let missing = (0..known).map(LaneId).filter(|lane| !found.contains(lane));
    let mut lanes: Vec<(LaneId, bool)> = missing.map(|lane| (lane, false)).collect();
    lanes.extend(found.iter().map(|lane| (*lane, true)));
    lanes.sort_unstable();
    lanes
}

fn lane_of(name: &str) -> Option<LaneId> {
    let number = name.strip_prefix(LANE_DIR_PREFIX)?.parse().ok()?;
    (format!("{LANE_DIR_PREFIX}{number}") == name).then_some(LaneId(number))
}

/// The shards whose entries are in a lane; none where that is not known.
fn shards_of(identity: Option<&Identity>, lane: LaneId) -> Vec<ShardId> {
    let Some(identity) = identity else { return Vec::new() };
    let &Identity { nodes, shards, lanes, .. } = identity;
    (0..shards).map(ShardId).filter(|shard| LaneId((shard.0 / nodes) % lanes) == lane).collect()
}

fn missing_lane(dir: &str, identity: Option<&Identity>, report: &mut Report) {
    // A node votes only after its lanes were made.
    if identity.is_some_and(|identity| identity.entitled) {
        report.add(Severity::Fatal, dir, What::LaneMissing);
    } else {
        report.add(Severity::Note, dir, What::LaneEmpty);
    }
}

fn check_lane(files: &impl Files, (dir, lane): (&str, LaneId), shards: &[ShardId], report: &mut Report) {
    let names = match files.list(dir) {
        Ok(names) => names,
        Err(error) => return report.add(Severity::Fatal, dir, What::Unreadable(error)),
    };
    let twins = Twins::read(files, dir, TwinKind::Manifest);
    let first_copy = twins.names[0].clone();
    if twins.are_missing() {
        let has_segments = names.iter().any(|name| segment_of_name(name).is_some());
        return match has_segments {
            true => report.add(Severity::Fatal, &first_copy, What::CopiesMissing),
            false => report.add(Severity::Note, dir, What::LaneEmpty),
        };
    }
    let decoded = manifest_of(&twins);
    twins.findings(&mut report.findings);
    let manifest = match decoded {
        Ok(Some(manifest)) if manifest.lane == lane => manifest,
        Ok(Some(manifest)) => {
            return report.add(Severity::Fatal, &first_copy, What::LaneOther(manifest.lane));
        }
        Ok(None) => return,
        Err(what) => return report.add(Severity::Fatal, &first_copy, what),
    };
    let log = read_log(files, (dir, &manifest), shards, &mut report.findings);
    check_tables(files, dir, &manifest, &log, report);
    unnamed(&names, dir, &manifest, report);
    let counts = &mut report.counts;
    counts.lanes += 1;
    counts.segments += manifest.segments.len() as u64;
    counts.batches += log.batches;
    counts.records += log.records;
    counts.tables += manifest.tables.len() as u64;
}

fn check_tables(files: &impl Files, dir: &str, manifest: &Manifest, log: &LaneLog, report: &mut Report) {
    for (shard, named) in &manifest.tables {
        let file = join(dir, &table_name(*shard, named.generation));
        report.counts.keys += check_table(files, &file, (*shard, named), &mut report.findings);
        let found = behind_table(log, *shard, named);
        report.findings.extend(found.map(|(severity, what)| Finding {
            severity,
            file,
            offset: 0,
            shards: vec![*shard],
            what,
        }));
    }
    for (shard, index) in log.index.shards() {
        let released = index.released().filter(|_| !manifest.tables.contains_key(&shard));
        report.findings.extend(released.map(|(last, _)| Finding {
            severity: Severity::Peers,
            file: dir.to_owned(),
            offset: 0,
            shards: vec![shard],
            what: What::EntriesLost { first: Index(1), last },
        }));
    }
}

/// Whether the log goes on where a table ends.
fn behind_table(log: &LaneLog, shard: ShardId, named: &TableRef) -> Option<(Severity, What)> {
    let index = log.index.shard(shard)?;
    let (first, last) = (index.first(), index.last());
    let released = index.released().map_or(Index(0), |(released, _)| released);
    if released > named.index {
        let (first, last) = (Index(named.index.0 + 1), released);
        return Some((Severity::Peers, What::EntriesLost { first, last }));
    }
    let at_end = index.terms().into_iter().rev().find(|(begins, _)| *begins <= named.index);
    let is_held = first <= named.index && named.index <= last;
    let is_other = is_held && at_end.is_some_and(|(_, term)| term != named.term);
    let is_apart = is_other || last < named.index;
    is_apart.then_some((Severity::Note, What::LogApart { table: (named.index, named.term) }))
}

/// The files of a lane that its manifest does not name.
fn unnamed(names: &[String], dir: &str, manifest: &Manifest, report: &mut Report) {
    let segments = manifest.segments.iter().map(|segment| segment_name(segment.id));
    let tables = manifest.tables.iter().map(|(shard, table)| table_name(*shard, table.generation));
    let named: BTreeSet<String> = segments.chain(tables).collect();
    strangers(names, dir, report, |name| named.contains(name) || TwinKind::Manifest.names().contains(&name));
}

/// Notes the files of a directory that are not known.
fn strangers(names: &[String], dir: &str, report: &mut Report, is_known: impl Fn(&str) -> bool) {
    for name in names.iter().filter(|name| !is_known(name)) {
        let is_ours = segment_of_name(name).is_some() || table_of_name(name).is_some();
        let of_table = name.strip_suffix(PART_SUFFIX).and_then(table_of_name);
        let what = if is_ours || name.ends_with(FRESH_SUFFIX) {
            What::Unnamed
        } else if of_table.is_some() {
            What::Part
        } else {
            What::Strange
        };
        report.add(Severity::Note, &join(dir, name), what);
    }
}
