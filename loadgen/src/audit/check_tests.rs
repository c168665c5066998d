//! Histories made by hand: each mistake that the check is to find, by itself, and what it has to let pass.

use crate::audit::check::{FaultKind, check, cut};
use crate::audit::event::{Asked, Event, Final, History, NEVER_NS, Piece, Place, Seen, Tail, Told};
use crate::audit::verdict::Verdict;

/// Bytes of every piece.
const SIZE: u32 = 20;

fn at(revision: u64) -> Place {
    Place { shard: 2, revision }
}

fn piece(mark: u64) -> Piece {
    Piece { mark, size: SIZE, crc: mark as u32 }
}

/// A value of pieces, the last of them with this mark.
fn value(made: u64, version: u64, mark: u64, pieces: u32) -> Option<Seen> {
    let tail = Tail { mark, at: (pieces - 1) * SIZE, crc: mark as u32 };
    let created = if version == 1 { made } else { 1 };
    Some(Seen { made, created, version, length: pieces * SIZE, crc: 9, last: Some(tail) })
}

/// A value from before the run.
fn strange(made: u64) -> Option<Seen> {
    Some(Seen { made, created: made, version: 1, length: 5, crc: 1, last: None })
}

/// A history, made operation by operation: each is sent at a moment and takes ten.
#[derive(Default)]
struct Story(History);

impl Story {
    fn new() -> Self {
        Self(History { keys: vec![b"a"[..].into(), b"b"[..].into()], ..History::default() })
    }

    fn add(mut self, sent_ns: u64, asked: Asked, told: Told) -> Self {
        let ended_ns = if told == Told::Unknown { NEVER_NS } else { sent_ns + 10 };
        self.0.events.push(Event { key: 0, asked, sent_ns, ended_ns, told });
        self
    }

    fn put(self, sent_ns: u64, mark: u64, made: u64, version: u64) -> Self {
        self.add(sent_ns, Asked::Put(piece(mark)), Told::Wrote { at: at(made), version, length: 0 })
    }

    fn append(self, sent_ns: u64, mark: u64, made: u64, version: u64) -> Self {
        let length = version * u64::from(SIZE);
        self.add(sent_ns, Asked::Append(piece(mark)), Told::Wrote { at: at(made), version, length })
    }

    fn get(self, sent_ns: u64, revision: u64, value: Option<Seen>) -> Self {
        self.add(sent_ns, Asked::Get, Told::Saw { at: at(revision), value })
    }

    fn last(mut self, sent_ns: u64, revision: u64, value: Option<Seen>, marks: &[u64]) -> Self {
        self.0.finals.push(Final { key: 0, event: self.0.events.len(), marks: marks.to_vec() });
        self.get(sent_ns, revision, value)
    }

    fn of_the_other_key(mut self) -> Self {
        self.0.events.last_mut().expect("one was added").key = 1;
        self
    }

    #[track_caller]
    fn has(&self, wanted: &[FaultKind]) {
        let mut kinds: Vec<FaultKind> = check(&self.0).kept.iter().map(|fault| fault.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, wanted);
    }
}

#[test]
fn what_is_right_passes() {
    Story::new()
        .get(0, 4, strange(3))
        .put(20, 1, 5, 2)
        // Both overlap the put: one is ordered before it, one after.
        .get(22, 4, strange(3))
        .get(23, 5, value(5, 2, 1, 1))
        .add(40, Asked::Delete, Told::Removed { at: at(6) })
        .add(60, Asked::Delete, Told::Saw { at: at(8), value: None })
        .append(80, 2, 9, 1)
        .append(100, 3, 10, 2)
        .last(200, 11, value(10, 2, 3, 2), &[2, 3])
        .has(&[]);
}

#[test]
fn a_stale_read() {
    let story = Story::new().put(0, 1, 5, 1).put(20, 2, 6, 2).get(40, 5, value(5, 1, 1, 1));
    story.has(&[FaultKind::StaleRead]);
    let faults = check(&story.0);
    let told = Verdict::of(&story.0, &faults, 3, 0).text();
    let wanted =
        "audit        FAILED: 1 wrong answers among 3 operations on 2 keys (100.0 % of all operations)
  stale read, a
    get, sent at 0.000000 s, answered at 0.000000 s: saw the value of revision 5, version 1, \
                  at revision 5 of shard 2
    although before it was sent: put, sent at 0.000000 s, answered at 0.000000 s: \
                  made revision 6 of shard 2, version 2
";
    assert_eq!(told, wanted);
    // The shard's revision tells it too, where the newer write was to another key.
    let story = Story::new().put(0, 1, 5, 1).put(20, 2, 6, 1).of_the_other_key();
    story.get(40, 5, value(5, 1, 1, 1)).has(&[FaultKind::StaleRead]);
    // A server that says a newer revision than what it shows.
    let story = Story::new().put(0, 1, 5, 1).put(20, 2, 6, 2).get(25, 7, value(5, 1, 1, 1));
    story.has(&[FaultKind::LostWrite]);
}

#[test]
fn reads_that_go_back() {
    let story = Story::new().put(0, 1, 5, 1).add(20, Asked::Put(piece(2)), Told::Unknown);
    let story = story.get(40, 6, value(6, 2, 2, 1)).get(60, 5, value(5, 1, 1, 1));
    story.has(&[FaultKind::StaleRead]);
}

#[test]
fn a_write_that_is_lost() {
    // The next write has its version, or its revision, or the last read lacks it.
    Story::new().put(0, 1, 5, 1).put(20, 2, 6, 2).put(40, 3, 7, 2).has(&[FaultKind::WrongCount]);
    Story::new().put(0, 1, 5, 1).put(20, 2, 5, 1).has(&[FaultKind::RevisionTwice]);
    let story = Story::new().put(0, 1, 5, 1).put(20, 2, 6, 2).last(40, 9, value(5, 1, 1, 1), &[1]);
    story.has(&[FaultKind::LostWrite]);
    Story::new().put(0, 1, 5, 1).last(40, 9, None, &[]).has(&[FaultKind::LostWrite]);
    let story = Story::new().append(0, 1, 5, 1).append(20, 2, 6, 2).append(40, 3, 7, 3);
    story.last(60, 9, value(7, 3, 3, 3), &[1, 3]).has(&[FaultKind::LostWrite]);
}

#[test]
fn an_append_that_is_there_twice() {
    let story = Story::new().append(0, 1, 5, 1).append(20, 2, 7, 3);
    story.last(40, 9, value(7, 3, 2, 3), &[1, 1, 2]).has(&[FaultKind::ExecutedTwice, FaultKind::WrongCount]);
    // Seen at another revision than it was told.
    let story = Story::new().append(0, 1, 5, 1).get(20, 6, value(6, 2, 1, 2));
    story.has(&[FaultKind::ExecutedTwice]);
    // One whose outcome is unknown may be there, once.
    let story = Story::new().append(0, 1, 5, 1).add(20, Asked::Append(piece(2)), Told::Unknown);
    story.last(40, 9, value(6, 2, 2, 2), &[1, 2]).has(&[]);
    let story = Story::new().append(0, 1, 5, 1).add(20, Asked::Append(piece(2)), Told::Unknown);
    story.last(40, 9, value(7, 3, 2, 3), &[1, 2, 2]).has(&[FaultKind::ExecutedTwice, FaultKind::WrongCount]);
}

#[test]
fn values_that_cannot_be() {
    Story::new().put(0, 1, 5, 1).get(20, 6, value(6, 2, 77, 1)).has(&[FaultKind::NeverWritten]);
    Story::new()
        .put(0, 1, 5, 1)
        .get(20, 7, strange(7))
        .has(&[FaultKind::NeverWritten, FaultKind::WrongCount]);
    let story = Story::new().put(0, 1, 5, 1).of_the_other_key().get(20, 6, value(6, 2, 1, 1));
    story.has(&[FaultKind::OfAnotherKey]);
    let story = Story::new().add(0, Asked::Put(piece(1)), Told::NotDone).get(20, 6, value(6, 2, 1, 1));
    story.has(&[FaultKind::ExecutedAgainstWord]);
    let mut torn = value(5, 1, 1, 1);
    torn.as_mut().and_then(|seen| seen.last.as_mut()).expect("it has a mark").crc += 1;
    Story::new().put(0, 1, 5, 1).get(20, 6, torn).has(&[FaultKind::WrongValue]);
    Story::new().put(0, 1, 5, 1).get(20, 6, value(5, 3, 1, 1)).has(&[FaultKind::WrongCount]);
    // A value of the future: read before it was sent.
    Story::new().get(0, 5, value(5, 1, 1, 1)).put(20, 1, 5, 1).has(&[FaultKind::WriteOutOfOrder]);
}

#[test]
fn writes_out_of_order() {
    Story::new().put(0, 1, 6, 2).put(20, 2, 5, 1).has(&[FaultKind::WriteOutOfOrder]);
    // At the same time they may be in either order.
    Story::new().put(0, 1, 6, 2).put(5, 2, 5, 1).has(&[]);
    let story = Story::new().append(0, 1, 5, 1).append(5, 2, 6, 2);
    story.last(40, 9, value(6, 2, 2, 2), &[2, 1]).has(&[FaultKind::AppendsReordered]);
}

#[test]
fn swaps() {
    let swap = |mark, expected| Asked::Swap(piece(mark), expected);
    let wrote = |made, version| Told::Wrote { at: at(made), version, length: 0 };
    let refused = |revision, value| Told::Saw { at: at(revision), value };
    let story = Story::new().add(0, swap(1, 0), wrote(5, 1)).add(20, swap(2, 5), wrote(6, 2));
    story.add(40, swap(3, 5), refused(7, value(6, 2, 2, 1))).has(&[]);
    let story = Story::new().put(0, 1, 5, 1).put(20, 2, 6, 2).add(40, swap(3, 5), wrote(7, 3));
    story.has(&[FaultKind::WrongSwap]);
    let story = Story::new().put(0, 1, 5, 1).add(40, swap(3, 0), wrote(7, 2));
    story.has(&[FaultKind::WrongSwap]);
    let story = Story::new().put(0, 1, 5, 1).add(40, swap(3, 5), refused(7, value(5, 1, 1, 1)));
    story.has(&[FaultKind::WrongSwap]);
}

#[test]
fn what_nobody_heard_of_explains_what_is_missing() {
    let unknown_put = || Story::new().add(0, Asked::Put(piece(9)), Told::Unknown);
    unknown_put().put(20, 1, 5, 1).put(40, 2, 7, 3).has(&[]);
    unknown_put().put(20, 1, 5, 1).put(40, 2, 8, 4).has(&[FaultKind::WrongCount]);
    let story = Story::new().put(20, 1, 5, 1).put(40, 2, 7, 3);
    story.add(60, Asked::Put(piece(9)), Told::Unknown).has(&[FaultKind::WrongCount]);
    let unknown_delete = || Story::new().put(0, 1, 5, 1).add(20, Asked::Delete, Told::Unknown);
    unknown_delete().get(40, 7, None).put(60, 2, 8, 1).has(&[]);
    // What is gone stays gone.
    unknown_delete().get(40, 7, None).get(60, 8, value(5, 1, 1, 1)).has(&[FaultKind::LostWrite]);
    // It was not sent yet.
    let story = Story::new().put(0, 1, 5, 1).get(20, 7, None).add(60, Asked::Delete, Told::Unknown);
    story.has(&[FaultKind::LostWrite]);
}

#[test]
fn writes_of_before_the_run_are_no_fault_of_the_server() {
    let mut story = Story::new().put(0, 1, 5, 1).get(20, 7, strange(7));
    story.0.has_strays = true;
    story.has(&[]);
}

#[test]
fn a_history_that_ends_early_is_checked_as_far_as_it_goes() {
    let mut story = Story::new().put(0, 1, 5, 1).put(20, 2, 6, 2).get(25, 6, value(6, 2, 2, 1));
    // These see what was not recorded.
    story = story.get(40, 9, value(9, 5, 77, 1)).last(60, 9, value(9, 5, 77, 1), &[77]);
    story.0.cut_ns = Some(32);
    cut(&mut story.0);
    assert_eq!((story.0.events.len(), story.0.finals.len()), (2, 0));
    story.has(&[]);
}

#[test]
fn verdicts() {
    let story = Story::new().put(0, 1, 5, 1);
    let passed = Verdict::of(&story.0, &check(&story.0), 1000, 3);
    assert!(passed.verdict().is_ok() && passed.text().contains("passed: 1 operations on 2 keys"));
    assert!(passed.text().contains("last values of 3 keys could not be read"));
    assert_eq!((&passed.json()["passed"], &passed.json()["sampled_percent"]), (&true.into(), &0.1.into()));
    let nothing = Verdict::of(&History::default(), &check(&History::default()), 1000, 0);
    assert!(nothing.verdict().is_err() && nothing.text().contains("nothing to check"));
    let story = Story::new().put(0, 1, 6, 2).put(20, 2, 5, 1);
    let json = Verdict::of(&story.0, &check(&story.0), 2, 0).json();
    assert_eq!((&json["passed"], &json["violations_total"]), (&false.into(), &1.into()));
    assert_eq!(json["violations"][0]["kind"], "write out of order");
    assert_eq!(json["violations"][0]["key"], "a");
}
