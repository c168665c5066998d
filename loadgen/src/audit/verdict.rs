//! What an audit comes to, and how it is told.
//!
//! ```text
//! passed            whether there was something to check, and nothing wrong in it
//! operations, keys  that were checked; what was never answered does not count
//! sampled_percent   of all operations of the run, where a read-modify-write is two
//! recorded_s        the part of the run that was recorded, where that is not all of it
//! unread            keys whose last value could not be read
//! violations        the first ones: kind, key, what
//! violations_total  how many there are
//! ```

use std::fmt::Write as _;

use crate::audit::check::{Fault, FaultKind, Faults};
use crate::audit::event::{Asked, Event, History, NEVER_NS, Told};

/// Most violations that are told in full.
const TOLD_MAX: usize = 6;
/// Most of one kind of them.
const TOLD_OF_KIND_MAX: usize = 2;

/// What an audit has found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Operations that were checked.
    operations: u64,
    /// Keys that these were on.
    keys: usize,
    /// Their share of all operations of the run, in percent.
    sampled_percent: f64,
    /// When recording ended, where that was before the run ended.
    recorded_s: Option<f64>,
    /// Keys whose last value could not be read.
    unread: usize,
    violations: Vec<Violation>,
    violations_total: u64,
}

/// Something wrong, in words.
#[derive(Clone, Debug)]
struct Violation {
    kind: &'static str,
    key: String,
    what: String,
}

impl Verdict {
    /// What the faults of a history come to. `operations_all`: those of the run, recorded or not.
    pub fn of(history: &History, faults: &Faults, operations_all: u64, unread: usize) -> Self {
        let answered = history.events.iter().filter(|event| event.told != Told::Unknown).count();
        let operations = (answered - history.finals.len()) as u64;
        let mut first = faults.kept.clone();
        // What shows itself in one key, and early, is easiest to follow.
        first.sort_by_key(|fault| {
            let key_of = |at: usize| history.events[at].key;
            let is_of_two = fault.against.is_some_and(|against| key_of(against) != fault.key);
            (fault.kind, is_of_two, history.events[fault.shown_by].sent_ns)
        });
        let mut told: Vec<&Fault> = Vec::new();
        for fault in &first {
            let alike = told.iter().filter(|other| other.kind == fault.kind).count();
            if told.len() < TOLD_MAX && alike < TOLD_OF_KIND_MAX {
                told.push(fault);
            }
        }
        let violations = told.into_iter().map(|fault| violation(history, fault)).collect();
        Self {
            operations,
            keys: history.keys.len(),
            sampled_percent: 100.0 * operations as f64 / (operations_all.max(1) as f64),
            recorded_s: history.cut_ns.map(|cut_ns| cut_ns as f64 / 1e9),
            unread,
            violations,
            violations_total: faults.count,
        }
    }

    /// Why the run counts as failed, where the audit says so.
    pub fn verdict(&self) -> Result<(), String> {
        match (self.violations_total, self.operations) {
            (0, 0) => Err("the audit had nothing to check: no operation was on a key of its sample".into()),
            (0, _) => Ok(()),
            (count, _) => Err(format!("the audit failed: {count} wrong answers")),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let (operations, keys) = (grouped(self.operations), grouped(self.keys as u64));
        let share = format!("{:.1} % of all operations", self.sampled_percent);
        let mut text = match self.verdict() {
            Ok(()) => {
                format!("audit        passed: {operations} operations on {keys} keys checked ({share})\n")
            }
            Err(_) if self.operations == 0 => "audit        FAILED: there was nothing to check\n".to_owned(),
            Err(_) => {
                let wrong = grouped(self.violations_total);
                let among = format!("among {operations} operations on {keys} keys ({share})");
                format!("audit        FAILED: {wrong} wrong answers {among}\n")
            }
        };
        // Writing to a string cannot fail.
        if let Some(recorded_s) = self.recorded_s {
            let _ =
                writeln!(text, "             recorded until second {recorded_s:.1} alone: no room for more");
        }
        if self.unread > 0 {
            let _ = writeln!(text, "             the last values of {} keys could not be read", self.unread);
        }
        for violation in &self.violations {
            let Violation { kind, key, what } = violation;
            let _ = writeln!(text, "  {kind}, {key}\n{what}");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let told = |violation: &Violation| {
            let lines: Vec<&str> = violation.what.lines().map(str::trim).collect();
            serde_json::json!({ "kind": violation.kind, "key": violation.key, "what": lines.join(" ") })
        };
        serde_json::json!({
            "passed": self.verdict().is_ok(),
            "operations": self.operations,
            "keys": self.keys,
            "sampled_percent": (self.sampled_percent * 100.0).round() / 100.0,
            "recorded_s": self.recorded_s,
            "unread": self.unread,
            "violations": self.violations.iter().map(told).collect::<Vec<_>>(),
            "violations_total": self.violations_total,
        })
    }
}

/// A fault in words: what shows it, and what it does not go with.
fn violation(history: &History, fault: &Fault) -> Violation {
    let (kind, link) = words(fault.kind);
    let mut what = format!("    {}", described(history, fault.shown_by, fault.key));
    if let Some(against) = fault.against {
        // Writing to a string cannot fail.
        let _ = write!(what, "\n    {link} {}", described(history, against, fault.key));
    }
    Violation { kind, key: String::from_utf8_lossy(&history.keys[fault.key as usize]).into_owned(), what }
}

/// What a fault is called, and how it leads over to the second operation.
fn words(kind: FaultKind) -> (&'static str, &'static str) {
    match kind {
        FaultKind::StaleRead => ("stale read", "although before it was sent:"),
        FaultKind::WriteOutOfOrder => ("write out of order", "although before it was sent:"),
        FaultKind::LostWrite => ("acknowledged write lost", "although:"),
        FaultKind::ExecutedTwice => ("write executed twice", "it was also seen elsewhere:"),
        FaultKind::ExecutedAgainstWord => ("write executed that was refused", "what it shows is of:"),
        FaultKind::NeverWritten => ("value that nobody wrote", "what it shows is of:"),
        FaultKind::OfAnotherKey => ("value of another key", "what it shows is of:"),
        FaultKind::WrongValue => ("wrong value", "it differs from:"),
        FaultKind::RevisionTwice => ("two writes of one revision", "and:"),
        FaultKind::WrongCount => ("versions or lengths do not add up", "after:"),
        FaultKind::WrongSwap => ("swap against its condition", "the key was left by:"),
        FaultKind::AppendsReordered => ("appends out of order", "it is before, in the value:"),
    }
}

/// An operation in words; the key is named where it is not the one that is spoken of.
fn described(history: &History, at: usize, key: u32) -> String {
    let event = &history.events[at];
    let name = event.asked.name();
    let on = match event.key {
        same if same == key => String::new(),
        other => format!(" of {}", String::from_utf8_lossy(&history.keys[other as usize])),
    };
    let expecting = match event.asked {
        Asked::Swap(_, expected) => format!(" expecting revision {expected}"),
        Asked::Get | Asked::Put(_) | Asked::Append(_) | Asked::Delete => String::new(),
    };
    format!("{name}{on}{expecting}, sent at {}, {}", second(event.sent_ns), outcome(event))
}

fn outcome(event: &Event) -> String {
    let ended = second(event.ended_ns);
    let version = |version: u64| if version > 0 { format!(", version {version}") } else { String::new() };
    match &event.told {
        Told::Unknown if event.ended_ns == NEVER_NS => "never answered".to_owned(),
        Told::Unknown => format!("outcome unknown at {ended}"),
        Told::NotDone => format!("refused at {ended}"),
        Told::Wrote { at, version: made, .. } => {
            format!(
                "answered at {ended}: made revision {} of shard {}{}",
                at.revision,
                at.shard,
                version(*made)
            )
        }
        Told::Removed { at } => {
            format!("answered at {ended}: deleted it, revision {} of shard {}", at.revision, at.shard)
        }
        Told::Saw { at, value: None } => {
            format!("answered at {ended}: saw no key at revision {} of shard {}", at.revision, at.shard)
        }
        Told::Saw { at, value: Some(seen) } => format!(
            "answered at {ended}: saw the value of revision {}{}, at revision {} of shard {}",
            seen.made,
            version(seen.version),
            at.revision,
            at.shard
        ),
    }
}

fn second(ns: u64) -> String {
    format!("{}.{:06} s", ns / 1_000_000_000, ns / 1000 % 1_000_000)
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
