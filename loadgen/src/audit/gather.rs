//! What the recorders of all threads share: the salt, which keys are sampled, when recording ends; and where
//! their histories are gathered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::Settings;
use crate::audit::KEYS_WANTED;
use crate::audit::event::{Event, History};
use crate::random::mix;

/// Shared by the recorders of a run.
#[derive(Debug)]
pub struct Gathering {
    /// The beginning of every mark of this run.
    pub salt: u64,
    /// When recording ended early.
    cut_ns: AtomicU64,
    gathered: Mutex<Gathered>,
}

/// What has been gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The history of the threads that have ended.
    pub history: History,
    /// All operations of these, recorded or not.
    pub operations: u64,
    places: BTreeMap<Box<[u8]>, u32>,
}

impl Default for Gathering {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let salt = mix(moment ^ u64::from(std::process::id()).rotate_left(40));
        Self { salt, cut_ns: AtomicU64::new(u64::MAX), gathered: Mutex::default() }
    }
}

impl Gathering {
    /// Ends recording: what is sent from here on is not recorded.
    pub fn cut(&self, now_ns: u64) {
        self.cut_ns.fetch_min(now_ns, Ordering::Relaxed);
    }

    /// Whether recording has ended.
    pub fn is_cut(&self) -> bool {
        self.cut_ns.load(Ordering::Relaxed) != u64::MAX
    }

    /// Takes the history of a thread.
    pub fn add(&self, keys: BTreeMap<Box<[u8]>, u32>, events: Vec<Event>, operations: u64) {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.operations += operations;
        let mut places = vec![0; keys.len()];
        for (key, place) in keys {
            places[place as usize] = gathered.place_of(key);
        }
        let moved = events.into_iter().map(|event| Event { key: places[event.key as usize], ..event });
        gathered.history.events.extend(moved);
    }

    /// Gives what was gathered.
    pub fn take(&self) -> Gathered {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let cut_ns = self.cut_ns.load(Ordering::Relaxed);
        gathered.history.cut_ns = (cut_ns != u64::MAX).then_some(cut_ns);
        std::mem::take(&mut gathered)
    }
}

impl Gathered {
    fn place_of(&mut self, key: Box<[u8]>) -> u32 {
        let keys = &mut self.history.keys;
        *self.places.entry(key).or_insert_with_key(|key| {
            keys.push(key.clone());
            keys.len() as u32 - 1
        })
    }
}

/// Which share of all hashes is sampled, so that the keys of a run give as many as are wanted. `None`: the
/// run has no audit.
pub fn sampled_of(settings: &Settings) -> Option<u64> {
    if !settings.audit {
        return None;
    }
    let keys = settings.trace.as_ref().map_or(settings.keys, |replayed| replayed.trace.distinct_keys());
    Some(if keys <= KEYS_WANTED { u64::MAX } else { u64::MAX / keys * KEYS_WANTED })
}

/// The hash by which keys are sampled.
pub fn hash_of(salt: u64, key: &[u8]) -> u64 {
    mix(u64::from(crc32fast::hash(key)) ^ salt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::{Asked, NEVER_NS, Told};

    #[test]
    fn keys_of_all_threads_come_together() {
        let gathering = Gathering::default();
        let event = |key| Event {
            key,
            asked: Asked::Delete,
            sent_ns: u64::from(key),
            ended_ns: NEVER_NS,
            told: Told::Unknown,
        };
        let keys = |names: [&str; 2]| names.into_iter().map(|name| name.as_bytes().into()).zip(0..).collect();
        gathering.add(keys(["b", "a"]), vec![event(0), event(1)], 10);
        gathering.add(keys(["c", "b"]), vec![event(1), event(0)], 7);
        gathering.cut(9);
        gathering.cut(11);
        let gathered = gathering.take();
        let named = |event: &Event| gathered.history.keys[event.key as usize].to_vec();
        let names: Vec<Vec<u8>> = gathered.history.events.iter().map(named).collect();
        assert_eq!(names, [b"b", b"a", b"b", b"c"]);
        assert_eq!((gathered.operations, gathered.history.cut_ns), (17, Some(9)));
        assert!(gathering.is_cut());
    }

    #[test]
    fn a_sample_has_about_as_many_keys_as_are_wanted() {
        let share = u64::MAX / 1_000_000 * KEYS_WANTED;
        let is_in = |key: &u64| hash_of(5, &crate::keys::spell(*key)) < share;
        let count = (0..1_000_000).filter(is_in).count() as u64;
        assert!(count.abs_diff(KEYS_WANTED) < KEYS_WANTED / 10, "{count} keys");
    }
}
