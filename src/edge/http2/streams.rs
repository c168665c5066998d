//! The streams of a connection that have a task.
//!
//! Invariants:
//! - A stream is here from its request's fields until its task is done with it, whatever its client does.
//! - `open` counts those whose client has not given them up: what the protocol calls concurrent streams.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::task::Waker;

use crate::edge::reply::Gone;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// What came of its body and was not taken.
    pub(super) body: Vec<u8>,
    /// How much of its body is still to come, where the client has said how long it is.
    pub(super) body_left: Option<u64>,
    /// The client has sent everything.
    pub(super) is_received: bool,
    /// We have sent everything.
    pub(super) is_sent: bool,
    /// Nobody is there any more: the client gave it up, we did, or the connection is lost.
    pub(super) is_gone: bool,
    /// Its task has looked at it while its client was there.
    pub(super) is_seen: bool,
    /// What the client takes, in bytes; a setting may make it less than nothing.
    pub(super) send_window: i64,
    /// What the client may send, in bytes.
    pub(super) receive_window: u32,
    /// What was taken of the body and not given back to the window, in bytes.
    pub(super) owed: u32,
    /// What its task waits to send, in bytes, and its place among those that wait for what all share.
    pub(super) wanted: usize,
    pub(super) ticket: Option<u64>,
    /// What is kept for it of what all share, since it was woken to send, in bytes.
    pub(super) promised: usize,
    waker: Option<Waker>,
}

impl Stream {
    pub(super) fn new(send_window: i64, receive_window: u32) -> Self {
        Self {
            body: Vec::new(),
            body_left: None,
            is_received: false,
            is_sent: false,
            is_gone: false,
            is_seen: false,
            send_window,
            receive_window,
            owed: 0,
            wanted: 0,
            ticket: None,
            promised: 0,
            waker: None,
        }
    }

    /// Its task looks at it, where anybody is still there.
    pub(super) fn look(&mut self) -> Result<(), Gone> {
        // What was given up unseen stays unseen: it counts until its task is done with it.
        self.is_seen |= !self.is_gone;
        if self.is_gone { Err(Gone) } else { Ok(()) }
    }

    /// Its task waits.
    pub(super) fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    /// Something happened that its task may wait for.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Hashes an id by one multiplication. A client chooses its ids, and has little of it: a bucket never holds
/// more streams than it may open.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_id: HashMap<u32, Stream, BuildHasherDefault<IdHasher>>,
    open: usize,
    /// Streams given up before their task has looked at them, whose task has still to end.
    unseen: usize,
}

impl Streams {
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Streams that were given up before anybody looked at them.
    pub(super) fn unseen(&self) -> usize {
        self.unseen
    }

    pub(super) fn insert(&mut self, id: u32, stream: Stream) {
        let before = self.by_id.insert(id, stream);
        assert!(before.is_none(), "stream {id} was there already");
        self.open += 1;
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.by_id.get_mut(&id)
    }

    /// Nobody is there any more on the client's side; its task learns of it.
    pub(super) fn give_up(&mut self, id: u32) {
        let Some(stream) = self.by_id.get_mut(&id) else { return };
        if std::mem::replace(&mut stream.is_gone, true) {
            return;
        }
        self.open -= 1;
        self.unseen += usize::from(!stream.is_seen);
        stream.wake();
    }

    /// Its task is done with it.
    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let stream = self.by_id.remove(&id)?;
        self.open -= usize::from(!stream.is_gone);
        self.unseen -= usize::from(stream.is_gone && !stream.is_seen);
        Some(stream)
    }

    /// All are lost.
    pub(super) fn lose(&mut self) {
        let ids: Vec<u32> = self.by_id.keys().copied().collect();
        ids.into_iter().for_each(|id| self.give_up(id));
    }

    /// The client's window for every stream has changed by so much; whether each is still one.
    pub(super) fn add_to_windows(&mut self, more: i64, window_max: i64) -> bool {
        let mut are_within = true;
        for stream in self.by_id.values_mut() {
            stream.send_window += more;
            are_within &= stream.send_window <= window_max;
            if more > 0 {
                stream.wake();
            }
        }
        are_within
    }
}
