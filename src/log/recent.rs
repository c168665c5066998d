//! The batches that were read lately. A batch holds entries of many shards, and when replicas start, all of a
//! lane read the same batches at about the same time: each batch is read from the disk and checked once, and
//! not once a shard.
//!
//! Invariants:
//! - What is here was checked when it was read. A batch that is durable never changes, and a segment's number
//!   is never used again: nothing here is ever out of date.
//! - At most [`RECENT_BYTES_MAX`] bytes are kept, and none of a segment that was released.
//! - Who waits for a batch that another reads hears of it, also where that one gives up.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::env::signal::{AnswerReceiver, AnswerSender, answer};

use super::batch::SegmentId;

/// The most bytes that are kept.
pub(super) const RECENT_BYTES_MAX: usize = 16 << 20;

/// Where a batch is: its segment, and where it begins in it.
pub(super) type BatchAt = (SegmentId, u64);

/// The batches that were read lately.
#[derive(Default)]
pub(super) struct Recent {
    kept: BTreeMap<BatchAt, Rc<Vec<u8>>>,
    /// Those kept, in the order in which they came.
    order: VecDeque<BatchAt>,
    bytes: usize,
    /// Batches that are being read, and who waits for each.
    coming: BTreeMap<BatchAt, Vec<AnswerSender<()>>>,
}

/// What there is to do about a batch that is wanted.
pub(super) enum Asked {
    /// Nothing.
    Here(Rc<Vec<u8>>),
    /// It is being read: after this it is here, or has to be asked for again.
    Coming(AnswerReceiver<()>),
    /// It has to be read, by who asked; then [`Recent::arrived`] is to be called, whatever came of it.
    Yours,
}

impl Recent {
    /// Asks for a batch.
    pub(super) fn ask(&mut self, at: BatchAt) -> Asked {
        if let Some(bytes) = self.kept.get(&at) {
            return Asked::Here(Rc::clone(bytes));
        }
        match self.coming.get_mut(&at) {
            Some(waiting) => {
                let (sender, receiver) = answer();
                waiting.push(sender);
                Asked::Coming(receiver)
            }
            None => {
                self.coming.insert(at, Vec::new());
                Asked::Yours
            }
        }
    }

    /// A batch was read and checked, or was not.
    pub(super) fn arrived(&mut self, at: BatchAt, bytes: Option<&Rc<Vec<u8>>>) {
        // Who waits is woken when its sender goes.
        let waiting = self.coming.remove(&at);
        assert!(waiting.is_some(), "the batch at {at:?} arrives, and nobody was to read it");
        if let Some(bytes) = bytes {
            self.keep(at, bytes);
        }
    }

    /// A batch that nobody has asked for yet was read along with another, and checked.
    pub(super) fn add(&mut self, at: BatchAt, bytes: &[u8]) {
        if !self.kept.contains_key(&at) && !self.coming.contains_key(&at) {
            self.keep(at, &Rc::new(bytes.to_vec()));
        }
    }

    fn keep(&mut self, at: BatchAt, bytes: &Rc<Vec<u8>>) {
        if bytes.len() > RECENT_BYTES_MAX / 2 {
            return;
        }
        self.bytes += bytes.len();
        self.kept.insert(at, Rc::clone(bytes));
        self.order.push_back(at);
        while self.bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.kept.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }

    /// A segment was released.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        self.order.retain(|(of, _)| *of != segment);
        let gone = self.kept.extract_if(.., |(of, _), _| *of == segment);
        let gone: usize = gone.map(|(_, bytes)| bytes.len()).sum();
        self.bytes -= gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: BatchAt = (SegmentId(1), 4096);

    fn batch(len: usize) -> Rc<Vec<u8>> {
        Rc::new(vec![0; len])
    }

    #[test]
    fn one_reads_and_the_others_wait() {
        let mut recent = Recent::default();
        assert!(matches!(recent.ask(AT), Asked::Yours));
        let Asked::Coming(mut first) = recent.ask(AT) else { panic!("it is being read") };
        recent.arrived(AT, None);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let woken = std::pin::Pin::new(&mut first).poll(&mut context);
        assert!(woken.is_ready(), "who waits hears that the other gave up");
        assert!(matches!(recent.ask(AT), Asked::Yours), "and reads it");
        recent.arrived(AT, Some(&batch(10)));
        assert!(matches!(recent.ask(AT), Asked::Here(bytes) if bytes.len() == 10));
    }

    #[test]
    fn what_was_read_along_is_here_and_counts_once() {
        let mut recent = Recent::default();
        recent.add(AT, &[1; 10]);
        recent.add(AT, &[1; 10]);
        assert!(matches!(recent.ask(AT), Asked::Here(bytes) if bytes.len() == 10));
        let other = (AT.0, AT.1 + 4096);
        assert!(matches!(recent.ask(other), Asked::Yours));
        recent.add(other, &[2; 20]);
        recent.arrived(other, Some(&batch(20)));
        assert_eq!((recent.kept.len(), recent.order.len(), recent.bytes), (2, 2, 30));
    }

    #[test]
    fn the_oldest_make_room_and_a_released_segment_is_forgotten() {
        let mut recent = Recent::default();
        let quarter = RECENT_BYTES_MAX / 4;
        for number in 0..6 {
            let at = (SegmentId(number / 3), number * 4096);
            assert!(matches!(recent.ask(at), Asked::Yours));
            recent.arrived(at, Some(&batch(quarter)));
            assert!(recent.bytes <= RECENT_BYTES_MAX);
        }
        assert_eq!(recent.kept.keys().next(), Some(&(SegmentId(0), 2 * 4096)));
        recent.forget(SegmentId(1));
        assert_eq!((recent.kept.len(), recent.order.len(), recent.bytes), (1, 1, quarter));
        assert!(matches!(recent.ask(AT), Asked::Yours));
        recent.arrived(AT, Some(&batch(RECENT_BYTES_MAX)));
        assert_eq!(recent.bytes, quarter, "one that would push out all the others is not kept");
    }
}
