//! The streams of a connection: a ring, since their ids are odd numbers that only rise.
//!
//! ```text
//!  first                 next
//!    │ slot │ slot │ slot │            the slot of id is (id - first) / 2; ended slots leave at the front
//! ```
//! Invariants: `open` is the number of slots that have not ended; the front slot has not ended.

use std::collections::VecDeque;

/// Slots between the oldest open stream and the newest. A stream that hangs keeps those after it in the ring,
/// until its call's deadline ends it.
const SLOTS_MAX: usize = 1 << 20;
/// The last id that there is.
const ID_MAX: u32 = 0x7fff_ffff;

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    /// Whose it is.
    pub token: u32,
    /// Bytes that came since its window was last given back.
    pub received: u32,
    /// Bytes that may be sent; below zero where the server took some of it back.
    pub send_window: i64,
    /// Whether this side has ended it.
    pub is_sent: bool,
}

/// All streams of a connection.
#[derive(Debug)]
pub struct Streams {
    first: u32,
    ring: VecDeque<Option<Stream>>,
    open: usize,
}

impl Default for Streams {
    fn default() -> Self {
        Self { first: 1, ring: VecDeque::new(), open: 0 }
    }
}

impl Streams {
    /// Streams that are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The id of the stream that is opened next.
    fn next(&self) -> u32 {
        self.first + 2 * self.ring.len() as u32
    }

    /// Whether a further one can be opened now.
    pub fn has_room(&self) -> bool {
        self.ring.len() < SLOTS_MAX && !self.is_used_up()
    }

    /// Whether this connection has no ids left.
    pub fn is_used_up(&self) -> bool {
        self.next() >= ID_MAX
    }

    /// Opens a stream. Gives its id.
    pub fn insert(&mut self, stream: Stream) -> u32 {
        assert!(self.has_room(), "a stream beyond id {}", self.next());
        let id = self.next();
        self.ring.push_back(Some(stream));
        self.open += 1;
        id
    }

    /// Whether a stream of that id was ever opened.
    pub fn was_opened(&self, id: u32) -> bool {
        id % 2 == 1 && id < self.next()
    }

    /// An open stream.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let at = id.checked_sub(self.first)? / 2;
        self.ring.get_mut(at as usize)?.as_mut()
    }

    /// Ends a stream, where it is open.
    pub fn remove(&mut self, id: u32) -> Option<Stream> {
        let at = id.checked_sub(self.first)? / 2;
        let ended = self.ring.get_mut(at as usize)?.take()?;
        self.open -= 1;
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.first += 2;
        }
        Some(ended)
    }

    /// The open stream with the highest id, where that is above `id`.
    pub fn last_above(&self, id: u32) -> Option<u32> {
        let at = self.ring.iter().rposition(Option::is_some)?;
        let last = self.first + 2 * at as u32;
        (last > id).then_some(last)
    }

    /// All open streams.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.ring.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(token: u32) -> Stream {
        Stream { token, received: 0, send_window: 0, is_sent: true }
    }

    #[test]
    fn slots_leave_at_the_front_in_any_order_of_ends() {
        let mut streams = Streams::default();
        let ids: Vec<u32> = (0..4).map(|token| streams.insert(stream(token))).collect();
        assert_eq!(ids, [1, 3, 5, 7]);
        assert_eq!(streams.remove(3).map(|ended| ended.token), Some(1));
        assert_eq!((streams.first, streams.ring.len(), streams.open()), (1, 4, 3));
        assert!(streams.remove(3).is_none());
        assert_eq!(streams.remove(1).map(|ended| ended.token), Some(0));
        assert_eq!((streams.first, streams.ring.len(), streams.open()), (5, 2, 2));
        assert!(streams.get_mut(1).is_none() && streams.get_mut(9).is_none());
        assert_eq!(streams.get_mut(7).map(|stream| stream.token), Some(3));
        assert!(streams.was_opened(1) && !streams.was_opened(9) && !streams.was_opened(6));
        assert_eq!((streams.last_above(5), streams.last_above(7)), (Some(7), None));
        assert_eq!(streams.insert(stream(4)), 9);
    }

    #[test]
    fn ids_end() {
        let mut streams = Streams { first: ID_MAX - 2, ..Streams::default() };
        assert!(streams.has_room());
        streams.insert(stream(0));
        assert!(!streams.has_room() && streams.is_used_up());
    }
}
