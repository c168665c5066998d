//! One thread's recorder: which operations are recorded, and what is kept of them.
//!
//! An operation that is not sampled costs the hash of its key, one that is about a microsecond; a run without
//! an audit has no recorder.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::args::{Settings, Target};
use crate::audit::event::{Asked, Event, NEVER_NS, Piece, Told};
use crate::audit::gather::{hash_of, sampled_of};
use crate::audit::mark::{MARK_BYTES, mark_of, spell};
use crate::audit::{EVENTS_MAX, seen};
use crate::method::Method;
use crate::protobuf::{Field, PREFIX_BYTES, read_field};
use crate::shared::Shared;
use crate::status::Failure;
use crate::workload::Op;

/// Records the operations of a thread. It lives with the thread's engine.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: usize,
    /// Whether operations travel on a Pipeline.
    is_piped: bool,
    /// Keys are sampled whose hash is not above.
    sampled: u64,
    keys: BTreeMap<Box<[u8]>, u32>,
    /// Operations under way, by the place of their call.
    open: Vec<Option<Open>>,
    open_count: usize,
    /// Operations that began, recorded or not; of a read-modify-write both.
    begun: u64,
    /// Writes that were marked.
    marked: u64,
    events: Vec<Event>,
    events_max: usize,
    /// The value that is sent, spelt anew each time.
    value: Vec<u8>,
}

struct Open {
    key: u32,
    method: Method,
    mark: u64,
    size: u32,
    /// The checksum of what was last sent.
    crc: u32,
    expected: u64,
    sent_ns: u64,
}

impl Recorder {
    /// The recorder of thread `(number, threads)`, which has so many places; `None` without an audit.
    pub fn new(
        settings: &Settings,
        thread: (usize, usize),
        places: u32,
        shared: &Arc<Shared>,
    ) -> Option<Self> {
        let sampled = sampled_of(settings)?;
        Some(Self {
            shared: Arc::clone(shared),
            thread: thread.0,
            is_piped: settings.target == Target::Pipeline,
            sampled,
            keys: BTreeMap::new(),
            open: (0..places).map(|_| None).collect(),
            open_count: 0,
            begun: 0,
            marked: 0,
            events: Vec::new(),
            events_max: EVENTS_MAX / thread.1,
            value: Vec::new(),
        })
    }

    /// An operation begins in a place. Gives whether it is recorded: then its answer has to be kept whole.
    pub fn begin(&mut self, place: u32, op: &Op, key: &[u8]) -> bool {
        self.begun += 1;
        let gathering = &self.shared.gathering;
        if !is_audited(op.method) || hash_of(gathering.salt, key) > self.sampled || gathering.is_cut() {
            return false;
        }
        if self.events.len() + self.open_count >= self.events_max {
            gathering.cut(self.shared.now_ns());
            return false;
        }
        let next = self.keys.len() as u32;
        let key = match self.keys.get(key) {
            Some(key) => *key,
            None => *self.keys.entry(key.into()).or_insert(next),
        };
        let mark = mark_of(self.thread, self.marked);
        self.marked += 1;
        let open = Open {
            key,
            method: op.method,
            mark,
            size: op.size,
            crc: 0,
            expected: op.number,
            sent_ns: self.shared.now_ns(),
        };
        let before = self.open[place as usize].replace(open);
        assert!(before.is_none(), "place {place} has two operations");
        self.open_count += 1;
        true
    }

    /// An operation is about to be sent. Gives the value to be written, in place of that one.
    pub fn sending(&mut self, place: u32, value: &[u8]) -> &[u8] {
        self.value.clear();
        let Some(open) = &mut self.open[place as usize] else { return &self.value };
        if !value.is_empty() && writes(open.method) {
            assert!(value.len() >= MARK_BYTES, "the command line refuses values that hold no mark");
            spell(self.shared.gathering.salt, open.mark, &mut self.value);
            self.value.extend_from_slice(&value[MARK_BYTES..]);
            open.crc = crc32fast::hash(&self.value);
        }
        open.sent_ns = self.shared.now_ns();
        &self.value
    }

    /// An operation has ended: with an answer, kept as it came, or without.
    pub fn end(&mut self, place: u32, answer: Result<&[u8], Failure>, ended_ns: u64) {
        let Some(open) = self.open[place as usize].take() else { return };
        self.open_count -= 1;
        let piece = Piece { mark: open.mark, size: open.size, crc: open.crc };
        let asked = match open.method {
            Method::Put | Method::EtcdPut => Asked::Put(piece),
            Method::Append => Asked::Append(piece),
            Method::Delete | Method::EtcdDelete => Asked::Delete,
            Method::Cas | Method::EtcdCas => Asked::Swap(piece, open.expected),
            Method::Get | Method::EtcdGet => Asked::Get,
            Method::Scan | Method::EtcdScan | Method::Check => return,
        };
        let told = match answer {
            Ok(kept) => {
                let message = self.message_in(kept).unwrap_or_default();
                seen::told(self.shared.gathering.salt, open.method, message)
            }
            Err(failure) if seen::is_not_done(open.method, failure) => Told::NotDone,
            Err(_) => Told::Unknown,
        };
        let ended_ns = if told == Told::Unknown { NEVER_NS } else { ended_ns };
        // A read that saw nothing says nothing.
        if asked != Asked::Get || !matches!(told, Told::Unknown | Told::NotDone) {
            self.events.push(Event { key: open.key, asked, sent_ns: open.sent_ns, ended_ns, told });
        }
    }

    /// The message in an answer: after its prefix, or within the result of an operation of a Pipeline.
    fn message_in<'a>(&self, kept: &'a [u8]) -> Option<&'a [u8]> {
        match (self.is_piped, read_field(kept)) {
            (true, Some((Field::Bytes(_, message), _))) => Some(message),
            (true, Some((Field::Number(..), _)) | None) => None,
            (false, _) => kept.get(PREFIX_BYTES..),
        }
    }

    /// Hands over what was recorded.
    pub fn finish(&mut self) {
        let (keys, events) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.events));
        self.shared.gathering.add(keys, events, self.begun);
    }
}

/// Whether the answers to a method are checked.
fn is_audited(method: Method) -> bool {
    match method {
        Method::Get | Method::Put | Method::Append | Method::Delete | Method::Cas => true,
        Method::EtcdGet | Method::EtcdPut | Method::EtcdDelete | Method::EtcdCas => true,
        Method::Scan | Method::EtcdScan | Method::Check => false,
    }
}

/// Whether it writes a value.
fn writes(method: Method) -> bool {
    match method {
        Method::Put | Method::Append | Method::Cas | Method::EtcdPut | Method::EtcdCas => true,
        Method::Get | Method::Delete | Method::EtcdGet | Method::EtcdDelete => false,
        Method::Scan | Method::EtcdScan | Method::Check => false,
    }
}
