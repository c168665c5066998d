//! The check of one key: the writes of it in the order of their revisions, and what each operation says of
//! them.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::check::{Fault, FaultKind, Faults, Index, add_broken, order_of, place_of};
use crate::audit::event::{Asked, Event, Final, NEVER_NS, Place, Seen, Told};
use crate::audit::order::{Point, broken};

/// Checks a key. Writes whose outcome was unknown and that were seen are pinned to their revisions.
pub fn check(index: &Index<'_>, key: u32, pinned: &mut BTreeMap<usize, Place>, faults: &mut Faults) {
    let mut check = KeyCheck { index, key, lines: BTreeMap::new(), pinned, faults };
    let events = &index.by_key[key as usize];
    check.take_writes(events);
    check.take_values(events);
    check.check_strangers();
    check.check_time(events);
    check.check_reads(events);
    check.check_counts(events);
    check.check_swaps(events);
    let last = index.history.finals.iter().filter(|last| last.key == key);
    last.for_each(|last| check.check_final(last, events));
}

/// What is known of a revision of the key.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// The write that made it, or the delete.
    writer: Option<usize>,
    /// The first operation that saw it.
    seen_by: Option<usize>,
    /// Whether the key does not exist at it.
    is_gone: bool,
    /// The key's version; 0: not known.
    version: u64,
    /// Bytes of the value; 0: not known.
    length: u64,
}

impl Line {
    /// An operation that told of it.
    fn witness(&self) -> Option<usize> {
        self.writer.or(self.seen_by)
    }
}

/// What may explain that there were more writes or deletes than were told of, and how much of it is used up.
struct Unexplained {
    /// When the writes were sent that may, in order.
    writes: Vec<u64>,
    /// The deletes.
    deletes: Vec<u64>,
    hidden_writes: u64,
    hidden_deletes: u64,
}

impl Unexplained {
    /// Whether so many more writes can have taken effect by a moment; `None`: a delete has, and perhaps some.
    fn explain(&mut self, missing: Option<u64>, by_ns: u64) -> bool {
        self.hidden_writes += missing.unwrap_or(0);
        self.hidden_deletes += u64::from(missing.is_none());
        let sent = |times: &[u64]| times.partition_point(|sent_ns| *sent_ns < by_ns) as u64;
        let is_explained =
            self.hidden_writes <= sent(&self.writes) && self.hidden_deletes <= sent(&self.deletes);
        if !is_explained {
            // Told once: what follows is not held against this.
            self.hidden_writes = self.hidden_writes.saturating_sub(missing.unwrap_or(0));
            self.hidden_deletes = self.hidden_deletes.saturating_sub(u64::from(missing.is_none()));
        }
        is_explained
    }
}

struct KeyCheck<'a, 'h> {
    index: &'a Index<'h>,
    key: u32,
    lines: BTreeMap<u64, Line>,
    pinned: &'a mut BTreeMap<usize, Place>,
    faults: &'a mut Faults,
}

impl KeyCheck<'_, '_> {
    fn event(&self, at: usize) -> &Event {
        &self.index.history.events[at]
    }

    fn fault(&mut self, kind: FaultKind, shown_by: usize, against: Option<usize>) {
        self.faults.add(Fault { kind, key: self.key, shown_by, against });
    }

    /// The writes that were acknowledged, by the revisions that they made.
    fn take_writes(&mut self, events: &[usize]) {
        for at in events {
            let event = self.event(*at);
            let (revision, line) = match (&event.told, event.asked.piece()) {
                (Told::Wrote { at: place, version, length }, Some(piece)) => {
                    let whole =
                        if matches!(event.asked, Asked::Append(_)) { *length } else { piece.size.into() };
                    let line = Line { version: *version, length: whole, ..Line::default() };
                    (place.revision, line)
                }
                (Told::Removed { at: place }, _) => {
                    (place.revision, Line { is_gone: true, ..Line::default() })
                }
                (Told::Wrote { .. } | Told::Saw { .. } | Told::Unknown | Told::NotDone, _) => continue,
            };
            match self.lines.get(&revision).and_then(|line| line.writer) {
                Some(other) => self.fault(FaultKind::RevisionTwice, *at, Some(other)),
                None => {
                    self.lines.insert(revision, Line { writer: Some(*at), ..line });
                }
            }
        }
    }

    /// The values that were seen, by the revisions of their writes.
    fn take_values(&mut self, events: &[usize]) {
        for at in events {
            if let Told::Saw { at: place, value: Some(seen) } = self.event(*at).told {
                self.take_value(*at, place, &seen);
            }
        }
    }

    fn take_value(&mut self, at: usize, place: Place, seen: &Seen) {
        let writer = match self.writer_of(place, seen) {
            Ok(writer) => writer,
            Err((kind, against)) => return self.fault(kind, at, against),
        };
        let is_new = (seen.version == 1) == (seen.created == seen.made);
        if seen.made > place.revision || seen.created > seen.made || !is_new {
            return self.fault(FaultKind::WrongCount, at, None);
        }
        let line = *self.lines.entry(seen.made).or_default();
        let differs = |known: u64, told: u64| known != 0 && told != 0 && known != told;
        let is_other_writer = line.writer.is_some() && line.writer != writer;
        if is_other_writer || differs(line.length, seen.length.into()) {
            return self.fault(FaultKind::WrongValue, at, line.witness());
        }
        if differs(line.version, seen.version) {
            return self.fault(FaultKind::WrongCount, at, line.witness());
        }
        if let Some(other) = line.seen_by
            && self.seen_at(other).is_some_and(|other| other != *seen)
        {
            return self.fault(FaultKind::WrongValue, at, Some(other));
        }
        let seen_by = line.seen_by.or(Some(at));
        let (version, length) = (seen.version, seen.length.into());
        self.lines.insert(seen.made, Line { writer, seen_by, is_gone: false, version, length });
    }

    /// What an operation saw.
    fn seen_at(&self, at: usize) -> Option<Seen> {
        match self.event(at).told {
            Told::Saw { value, .. } => value,
            Told::Unknown | Told::NotDone | Told::Wrote { .. } | Told::Removed { .. } => None,
        }
    }

    /// The write of this run that a value is of; `None` where it is of none. Pins that write.
    fn writer_of(&mut self, place: Place, seen: &Seen) -> Result<Option<usize>, (FaultKind, Option<usize>)> {
        let Some(tail) = seen.last else { return Ok(None) };
        let writer = self.writer_of_mark(tail.mark)?;
        let made_at = match &self.event(writer).told {
            Told::Wrote { at, .. } => Some(at.revision),
            Told::Unknown => self.pinned.get(&writer).map(|at| at.revision),
            Told::NotDone | Told::Removed { .. } | Told::Saw { .. } => None,
        };
        if made_at.is_some_and(|made_at| made_at != seen.made) {
            return Err((FaultKind::ExecutedTwice, Some(writer)));
        }
        let asked = self.event(writer).asked;
        let Some(piece) = asked.piece() else { return Err((FaultKind::NeverWritten, Some(writer))) };
        let is_at_end = u64::from(tail.at) + u64::from(piece.size) == u64::from(seen.length);
        let is_whole = tail.at == 0 || matches!(asked, Asked::Append(_));
        if !is_at_end || !is_whole || tail.crc != piece.crc {
            return Err((FaultKind::WrongValue, Some(writer)));
        }
        if self.event(writer).told == Told::Unknown {
            self.pinned.insert(writer, Place { shard: place.shard, revision: seen.made });
        }
        Ok(Some(writer))
    }

    /// The write of a mark, where it was to this key and may have been executed.
    fn writer_of_mark(&self, mark: u64) -> Result<usize, (FaultKind, Option<usize>)> {
        let writer = *self.index.by_mark.get(&mark).ok_or((FaultKind::NeverWritten, None))?;
        let event = self.event(writer);
        if event.key != self.key {
            return Err((FaultKind::OfAnotherKey, Some(writer)));
        }
        match event.told {
            // A swap that saw what is there was refused.
            Told::NotDone | Told::Saw { .. } => Err((FaultKind::ExecutedAgainstWord, Some(writer))),
            Told::Unknown | Told::Wrote { .. } | Told::Removed { .. } => Ok(writer),
        }
    }

    /// A value that bears no mark is what was there before the run: one, and older than all that the run
    /// wrote.
    fn check_strangers(&mut self) {
        if self.index.history.has_strays {
            return;
        }
        let mut oldest = true;
        let lines: Vec<Line> = self.lines.values().copied().collect();
        for line in lines {
            if let (None, Some(seen_by), false) = (line.writer, line.seen_by, oldest) {
                self.fault(FaultKind::NeverWritten, seen_by, None);
            }
            oldest = false;
        }
    }

    /// What was answered is not undone by what is sent afterwards.
    fn check_time(&mut self, events: &[usize]) {
        let point = |at: &usize| {
            let event = self.event(*at);
            let (place, is_write) = place_of(event, self.pinned.get(at))?;
            let low = order_of(place.revision, is_write);
            let high = match event.told {
                Told::Saw { value: Some(seen), .. } => order_of(seen.made, true),
                Told::Saw { value: None, .. } => 0,
                Told::Unknown | Told::NotDone | Told::Wrote { .. } | Told::Removed { .. } => low,
            };
            Some(Point { event: *at, sent_ns: event.sent_ns, ended_ns: event.ended_ns, low, high })
        };
        let points: Vec<Point> = events.iter().filter_map(point).collect();
        for pair in broken(&points) {
            add_broken(self.index.history, pair, self.faults);
        }
    }

    /// A read shows the newest write up to the revision that it was served at.
    fn check_reads(&mut self, events: &[usize]) {
        let mut gone_from: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        let mut reads: Vec<(u64, usize, Option<Seen>)> = Vec::new();
        for at in events {
            if let Told::Saw { at: place, value } = self.event(*at).told {
                reads.push((place.revision, *at, value));
            }
        }
        reads.sort_unstable_by_key(|(revision, at, value)| (*revision, value.is_some(), *at));
        for (revision, at, value) in reads {
            let newest = self.lines.range(..=revision).next_back().map(|(made, line)| (*made, *line));
            let Some((made, line)) = newest else { continue };
            match value {
                Some(seen) if seen.made < made => {
                    self.fault(FaultKind::LostWrite, at, line.witness());
                }
                Some(_) => {
                    if let Some((_, gone)) = gone_from.get(&made) {
                        self.fault(FaultKind::LostWrite, *gone, Some(at));
                    }
                }
                None if line.is_gone => {}
                None if self.may_be_deleted(at) => {
                    gone_from.entry(made).or_insert((revision, at));
                }
                None => self.fault(FaultKind::LostWrite, at, line.witness()),
            }
        }
    }

    /// Whether a delete whose outcome is unknown may explain that an operation saw no key.
    fn may_be_deleted(&self, at: usize) -> bool {
        let ended_ns = self.event(at).ended_ns;
        let may_explain = |at: &usize| {
            let event = self.event(*at);
            event.asked == Asked::Delete && event.told == Told::Unknown && event.sent_ns < ended_ns
        };
        self.index.history.has_strays || self.index.by_key[self.key as usize].iter().any(may_explain)
    }

    /// Versions step by one with each write, and begin anew after a delete; lengths by what is appended. What
    /// is missing in between has to be explained by writes whose outcome is unknown, that were not seen, and
    /// that were sent before what shows the gap was answered.
    fn check_counts(&mut self, events: &[usize]) {
        if self.index.history.has_strays {
            return;
        }
        let (writes, deletes) = self.unknown(events);
        let mut unexplained = Unexplained { writes, deletes, hidden_writes: 0, hidden_deletes: 0 };
        // The version that the key was left with, and by what.
        let mut known: Option<(u64, Line)> = None;
        let lines: Vec<Line> = self.lines.values().copied().collect();
        for line in lines {
            let Some(at) = line.witness() else { continue };
            let before = known.replace((line.version, line));
            let Some((version, before)) = before.filter(|_| !line.is_gone) else {
                known = known.filter(|_| line.is_gone || line.version > 0);
                continue;
            };
            if line.version == 0 {
                known = Some((version + 1, line));
                continue;
            }
            let missing = line.version.checked_sub(version + 1);
            let is_explained = unexplained.explain(missing, self.shown_ns(&line));
            // A delete in between, and a write after it, may make the version that is the next one anyway.
            let tells_length = missing == Some(0) && unexplained.deletes.is_empty();
            if !is_explained || (tells_length && self.is_wrong_length(&before, &line)) {
                self.fault(FaultKind::WrongCount, at, before.witness());
            }
        }
    }

    /// By when a revision was made: the first answer that tells of it.
    fn shown_ns(&self, line: &Line) -> u64 {
        let told_by = [line.writer, line.seen_by].into_iter().flatten();
        told_by.map(|at| self.event(at).ended_ns).min().unwrap_or(NEVER_NS)
    }

    /// Whether an append right after that line has not added its piece to it.
    fn is_wrong_length(&self, before: &Line, line: &Line) -> bool {
        let Some(Asked::Append(piece)) = line.writer.map(|at| self.event(at).asked) else { return false };
        let is_known = line.length > 0 && (before.is_gone || before.length > 0);
        is_known && line.length != before.length + u64::from(piece.size)
    }

    /// When the writes and deletes were sent whose outcome is unknown and that have not been seen.
    fn unknown(&self, events: &[usize]) -> (Vec<u64>, Vec<u64>) {
        let (mut writes, mut deletes) = (Vec::new(), Vec::new());
        for at in events.iter().filter(|at| self.event(**at).told == Told::Unknown) {
            let event = self.event(*at);
            match event.asked {
                Asked::Delete => deletes.push(event.sent_ns),
                Asked::Put(_) | Asked::Append(_) | Asked::Swap(..) => {
                    writes.extend((!self.pinned.contains_key(at)).then_some(event.sent_ns));
                }
                Asked::Get => {}
            }
        }
        writes.sort_unstable();
        deletes.sort_unstable();
        (writes, deletes)
    }

    /// A swap is made where the key was as expected, and refused where it was not.
    fn check_swaps(&mut self, events: &[usize]) {
        let may_be_gone = !self.unknown(events).1.is_empty() || self.index.history.has_strays;
        for at in events {
            let Asked::Swap(_, expected) = self.event(*at).asked else { continue };
            let place = self.pinned.get(at).copied();
            let told = self.event(*at).told.clone();
            let made = match (told, place) {
                (Told::Wrote { at, .. }, _) | (Told::Unknown, Some(at)) => at.revision,
                (Told::Saw { value, .. }, _) => {
                    if value.map_or(0, |seen| seen.made) == expected {
                        self.fault(FaultKind::WrongSwap, *at, None);
                    }
                    continue;
                }
                (Told::Unknown | Told::NotDone | Told::Removed { .. }, _) => continue,
            };
            let newest = self.lines.range(..made).next_back().map(|(made, line)| (*made, *line));
            let Some((there, line)) = newest else { continue };
            let is_as_expected = match expected {
                0 => line.is_gone || may_be_gone,
                expected => there <= expected,
            };
            if !is_as_expected {
                self.fault(FaultKind::WrongSwap, *at, line.witness());
            }
        }
    }

    /// The value after the run: every append that was acknowledged since the last put or delete is in it,
    /// once, in the order of the revisions; and nothing else is.
    fn check_final(&mut self, last: &Final, events: &[usize]) {
        let mut found = BTreeSet::new();
        let mut newest: Option<(u64, usize)> = None;
        for mark in &last.marks {
            let writer = match self.writer_of_mark(*mark) {
                Ok(writer) => writer,
                Err((kind, against)) => {
                    self.fault(kind, last.event, against);
                    continue;
                }
            };
            if !found.insert(writer) {
                self.fault(FaultKind::ExecutedTwice, last.event, Some(writer));
            }
            let place = place_of(self.event(writer), self.pinned.get(&writer));
            let Some((place, true)) = place else { continue };
            if let Some((_, other)) = newest.filter(|(revision, _)| *revision > place.revision) {
                self.fault(FaultKind::AppendsReordered, other, Some(writer));
            }
            newest = Some((place.revision, writer));
        }
        self.check_appends_are_there(last, &found, events);
    }

    fn check_appends_are_there(&mut self, last: &Final, found: &BTreeSet<usize>, events: &[usize]) {
        let Some(seen) = self.seen_at(last.event) else { return };
        let may_be_reset = events.iter().any(|at| {
            let event = self.event(*at);
            event.told == Told::Unknown && !matches!(event.asked, Asked::Append(_) | Asked::Get)
        });
        if may_be_reset || self.index.history.has_strays {
            return;
        }
        let writers: Vec<usize> =
            self.lines.range(..=seen.made).filter_map(|(_, line)| line.writer).collect();
        let is_append = |at: &usize| matches!(self.event(*at).asked, Asked::Append(_));
        let since = writers.iter().rposition(|at| !is_append(at)).map_or(0, |base| base + 1);
        for at in &writers[since..] {
            if !found.contains(at) {
                self.fault(FaultKind::LostWrite, last.event, Some(*at));
            }
        }
    }
}
