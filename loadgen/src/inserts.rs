//! The keys that a thread inserts: those after the last one that a load writes, shared out over the threads.
//!
//! Invariants: key `loaded + i` is inserted by thread i modulo the threads, so that no two threads insert the
//! same; a key is known once it and all that this thread began before it have ended. One whose insert failed
//! counts as known all the same, since whether it is there cannot be told.

use std::collections::VecDeque;

/// One thread's inserts.
#[derive(Clone, Debug)]
pub struct Inserts {
    /// Keys of a load.
    loaded: u64,
    /// This thread's number, and of how many.
    number: u64,
    threads: u64,
    /// Inserts that are known.
    known: u64,
    /// Of those after them that were begun: whether they have ended. As many at most as calls are in flight.
    ended: VecDeque<bool>,
}

impl Inserts {
    /// Nothing inserted yet beyond the keys of a load, on thread `(number, threads)`.
    pub fn new(loaded: u64, thread: (usize, usize)) -> Self {
        let (number, threads) = (thread.0 as u64, thread.1 as u64);
        Self { loaded, number, threads, known: 0, ended: VecDeque::new() }
    }

    /// Begins the next insert. Gives its key.
    pub fn start(&mut self) -> u64 {
        self.ended.push_back(false);
        self.key_of(self.known + self.ended.len() as u64 - 1)
    }

    /// The insert of a key has ended.
    pub fn end(&mut self, key: u64) {
        let place = (key - self.loaded - self.number) / self.threads;
        assert!(place >= self.known, "the insert of key {key} ended twice");
        self.ended[(place - self.known) as usize] = true;
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.known += 1;
        }
    }

    /// Keys that this thread knows to be there.
    pub fn known(&self) -> u64 {
        self.loaded + self.known
    }

    /// The key that was the so many-th before the newest one that is known.
    pub fn by_age(&self, age: u64) -> u64 {
        assert!(age < self.known(), "age {age} of {} keys", self.known());
        if age < self.known { self.key_of(self.known - 1 - age) } else { self.known() - 1 - age }
    }

    fn key_of(&self, place: u64) -> u64 {
        self.loaded + self.number + place * self.threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_insert_different_keys() {
        let (mut one, mut other) = (Inserts::new(10, (0, 2)), Inserts::new(10, (1, 2)));
        assert_eq!([one.start(), one.start(), one.start()], [10, 12, 14]);
        assert_eq!([other.start(), other.start()], [11, 13]);
    }

    #[test]
    fn a_key_is_known_once_all_before_it_have_ended() {
        let mut inserts = Inserts::new(10, (1, 2));
        let keys = [inserts.start(), inserts.start(), inserts.start()];
        inserts.end(keys[1]);
        assert_eq!((inserts.known(), inserts.by_age(0)), (10, 9));
        inserts.end(keys[0]);
        let by_age: Vec<u64> = (0..inserts.known()).map(|age| inserts.by_age(age)).collect();
        assert_eq!(by_age, [13, 11, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        inserts.end(keys[2]);
        assert_eq!((inserts.known(), inserts.by_age(0)), (13, 15));
        assert_eq!(inserts.start(), 17);
    }
}
