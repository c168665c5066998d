//! Histories as a correct store makes them, and as one with a mistake does: clients of random delays, of whom
//! some never hear what became of a write, on one shard in memory.

use std::collections::BTreeMap;

use crate::audit::check::{Faults, check};
use crate::audit::event::{Asked, Event, Final, History, NEVER_NS, Piece, Place, Seen, Tail, Told};
use crate::random::Random;

const KEYS: u64 = 3;
const CLIENTS: usize = 4;
const PIECE_BYTES: u32 = 20;
/// Operations of each client.
const TURNS: usize = 25;

/// What the store does wrong, once, at about this operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Acknowledges a write and forgets it.
    Loses,
    /// Carries a write out twice.
    Doubles,
    /// Carries out a write that it refused.
    CarriesOutRefused,
    /// Answers a read from before the last write that was acknowledged when it was sent.
    ReadsStale,
    /// Answers a read with bytes that nobody wrote.
    Garbles,
    /// Swaps the revisions of two writes of a key, of which one was answered before the other was sent.
    Reorders,
}

/// A key as the store has it.
#[derive(Clone, Debug, Default)]
struct Held {
    made: u64,
    created: u64,
    version: u64,
    marks: Vec<u64>,
}

impl Held {
    fn seen(&self) -> Seen {
        let count = self.marks.len() as u32;
        let last = self.marks.last().copied().unwrap_or(0);
        let crc = self.marks.iter().fold(0, |crc: u32, mark| crc.wrapping_mul(31).wrapping_add(*mark as u32));
        let tail = Tail { mark: last, at: (count - 1) * PIECE_BYTES, crc: last as u32 };
        Seen {
            made: self.made,
            created: self.created,
            version: self.version,
            length: count * PIECE_BYTES,
            crc,
            last: Some(tail),
        }
    }
}

/// An operation that is to take effect, if it does, at a moment.
struct Planned {
    client: usize,
    key: u64,
    sent_ns: u64,
    ended_ns: u64,
    effect_ns: Option<u64>,
    is_known: bool,
    choice: u64,
}

#[derive(Default)]
struct Store {
    keys: BTreeMap<u64, Held>,
    revision: u64,
    /// Every state of every key, by the revision that made it.
    states: BTreeMap<(u64, u64), Option<Seen>>,
    /// What each client last saw of each key.
    last_seen: BTreeMap<(usize, u64), u64>,
}

impl Store {
    fn write(&mut self, key: u64, mark: u64, is_append: bool) -> Told {
        self.revision += 1;
        let held = self.keys.entry(key).or_default();
        if held.version == 0 {
            held.created = self.revision;
        }
        (held.made, held.version) = (self.revision, held.version + 1);
        if !is_append {
            held.marks.clear();
        }
        held.marks.push(mark);
        let seen = held.seen();
        self.states.insert((key, self.revision), Some(seen));
        let length = if is_append { seen.length.into() } else { 0 };
        Told::Wrote { at: self.place(), version: seen.version, length }
    }

    fn saw(&self, key: u64) -> Told {
        Told::Saw { at: self.place(), value: self.keys.get(&key).map(Held::seen) }
    }

    fn delete(&mut self, key: u64) -> Told {
        if self.keys.remove(&key).is_none() {
            return self.saw(key);
        }
        self.revision += 1;
        self.states.insert((key, self.revision), None);
        Told::Removed { at: self.place() }
    }

    fn place(&self) -> Place {
        Place { shard: 0, revision: self.revision }
    }

    fn carry_out(&mut self, key: u64, asked: &Asked) -> Told {
        match asked {
            Asked::Get => self.saw(key),
            Asked::Put(piece) => self.write(key, piece.mark, false),
            Asked::Append(piece) => self.write(key, piece.mark, true),
            Asked::Delete => self.delete(key),
            Asked::Swap(piece, expected) => {
                let there = self.keys.get(&key).map_or(0, |held| held.made);
                if there == *expected { self.write(key, piece.mark, false) } else { self.saw(key) }
            }
        }
    }
}

/// A history of a store, of which so many operations in a hundred are never answered; `None` where there was
/// no occasion for the mistake.
pub fn simulate(seed: u64, unheard: u64, mistake: Option<Mistake>) -> Option<History> {
    let mut random = Random::of(seed, 0);
    let planned = plan(&mut random, unheard);
    let end_ns = planned.iter().map(|planned| planned.sent_ns).max().unwrap_or(0) + 100_000;
    let mistake_after = planned.len() / 4 + random.below(planned.len() as u64 / 2) as usize;
    let mut store = Store { revision: 10, ..Store::default() };
    let mut history =
        History { keys: (0..KEYS).map(|key| key.to_be_bytes().into()).collect(), ..History::default() };
    let mut is_made = false;
    for (number, planned) in planned.iter().enumerate() {
        let is_now = mistake.filter(|_| !is_made && number >= mistake_after);
        let asked = asked_of(planned, number, &store);
        let is_in_time = planned.effect_ns.is_some_and(|at| at < end_ns);
        let told = match is_now {
            Some(mistake) if planned.is_known && is_in_time => {
                let (told, made) = mistaken(&mut store, mistake, planned.key, &asked);
                is_made |= made;
                told
            }
            Some(_) | None if is_in_time => store.carry_out(planned.key, &asked),
            Some(_) | None => Told::Unknown,
        };
        record(&mut history, &mut store, planned, (asked, told));
    }
    add_finals(&mut history, &store, end_ns);
    match mistake {
        Some(Mistake::ReadsStale | Mistake::Garbles | Mistake::Reorders) => {
            is_made = spoil(&mut history, &store, mistake?, &mut random);
        }
        Some(Mistake::Loses | Mistake::Doubles | Mistake::CarriesOutRefused) | None => {}
    }
    (is_made || mistake.is_none()).then_some(history)
}

/// What the clients do, in the order in which it takes effect.
fn plan(random: &mut Random, unheard: u64) -> Vec<Planned> {
    let mut all = Vec::new();
    for client in 0..CLIENTS {
        let mut now_ns = random.below(100);
        for _ in 0..TURNS {
            let sent_ns = now_ns;
            let effect = sent_ns + 1 + random.below(50);
            let is_known = random.below(100) >= unheard;
            let ended_ns = effect + 1 + random.below(50);
            // What nobody waits for any more may take effect much later, or never.
            let late = effect + random.below(400);
            let effect_ns = match (is_known, random.below(2)) {
                (true, _) => Some(effect),
                (false, 0) => Some(late),
                (false, _) => None,
            };
            let (key, choice) = (random.below(KEYS), random.below(100));
            all.push(Planned { client, key, sent_ns, ended_ns, effect_ns, is_known, choice });
            now_ns = ended_ns + 1 + random.below(20);
        }
    }
    all.sort_by_key(|planned| planned.effect_ns.unwrap_or(NEVER_NS));
    all
}

fn asked_of(planned: &Planned, number: usize, store: &Store) -> Asked {
    let mark = number as u64 + 1;
    let piece = Piece { mark, size: PIECE_BYTES, crc: mark as u32 };
    match planned.choice {
        0..40 => Asked::Get,
        40..60 => Asked::Put(piece),
        60..80 => Asked::Append(piece),
        80..88 => Asked::Delete,
        _ => Asked::Swap(piece, store.last_seen.get(&(planned.client, planned.key)).copied().unwrap_or(0)),
    }
}

/// Makes a mistake in the store itself, where this operation is one for it.
fn mistaken(store: &mut Store, mistake: Mistake, key: u64, asked: &Asked) -> (Told, bool) {
    let is_write = matches!(asked, Asked::Put(_) | Asked::Append(_));
    match mistake {
        Mistake::Loses if is_write => {
            let (keys, revision, states) = (store.keys.clone(), store.revision, store.states.clone());
            let told = store.carry_out(key, asked);
            (store.keys, store.revision, store.states) = (keys, revision, states);
            (told, true)
        }
        Mistake::Doubles if is_write => {
            store.carry_out(key, asked);
            (store.carry_out(key, asked), true)
        }
        Mistake::CarriesOutRefused if is_write => {
            store.carry_out(key, asked);
            (Told::NotDone, true)
        }
        _ => (store.carry_out(key, asked), false),
    }
}

fn record(history: &mut History, store: &mut Store, planned: &Planned, (asked, told): (Asked, Told)) {
    let told = if planned.is_known { told } else { Told::Unknown };
    match &told {
        Told::Wrote { at, .. } => {
            store.last_seen.insert((planned.client, planned.key), at.revision);
        }
        Told::Saw { value, .. } => {
            let made = value.map_or(0, |seen| seen.made);
            store.last_seen.insert((planned.client, planned.key), made);
        }
        Told::Unknown | Told::NotDone | Told::Removed { .. } => {}
    }
    if asked == Asked::Get && told == Told::Unknown {
        return;
    }
    let ended_ns = if told == Told::Unknown { NEVER_NS } else { planned.ended_ns };
    let (key, sent_ns) = (planned.key as u32, planned.sent_ns);
    history.events.push(Event { key, asked, sent_ns, ended_ns, told });
}

fn add_finals(history: &mut History, store: &Store, end_ns: u64) {
    for key in 0..KEYS {
        let marks = store.keys.get(&key).map(|held| held.marks.clone()).unwrap_or_default();
        history.finals.push(Final { key: key as u32, event: history.events.len(), marks });
        let (told, asked) = (store.saw(key), Asked::Get);
        let (sent_ns, ended_ns) = (end_ns + 1, end_ns + 2);
        history.events.push(Event { key: key as u32, asked, sent_ns, ended_ns, told });
    }
}

/// Spoils what was told, where there is an operation for it.
fn spoil(history: &mut History, store: &Store, mistake: Mistake, random: &mut Random) -> bool {
    let count = history.events.len() - KEYS as usize;
    let from = random.below(count as u64) as usize;
    (0..count).any(|step| {
        let at = (from + step) % count;
        match mistake {
            Mistake::ReadsStale => make_stale(history, store, at),
            Mistake::Garbles => garble(history, at),
            Mistake::Reorders => reorder(history, at),
            Mistake::Loses | Mistake::Doubles | Mistake::CarriesOutRefused => false,
        }
    })
}

fn wrote_at(event: &Event) -> Option<u64> {
    match event.told {
        Told::Wrote { at, .. } => Some(at.revision),
        Told::Saw { .. } | Told::Unknown | Told::NotDone | Told::Removed { .. } => None,
    }
}

fn make_stale(history: &mut History, store: &Store, at: usize) -> bool {
    let (key, sent_ns) = (history.events[at].key, history.events[at].sent_ns);
    if history.events[at].asked != Asked::Get {
        return false;
    }
    let answered = history.events.iter().filter(|event| event.key == key && event.ended_ns < sent_ns);
    let Some(newest) = answered.filter_map(wrote_at).max() else { return false };
    let key = u64::from(key);
    let before = store.states.range((key, 0)..(key, newest)).next_back();
    let value = before.and_then(|(_, value)| *value);
    history.events[at].told = Told::Saw { at: Place { shard: 0, revision: newest - 1 }, value };
    true
}

fn garble(history: &mut History, at: usize) -> bool {
    let Told::Saw { value: Some(Seen { last: Some(tail), .. }), .. } = &mut history.events[at].told else {
        return false;
    };
    tail.crc ^= 1;
    true
}

fn reorder(history: &mut History, at: usize) -> bool {
    let Some(mine) = wrote_at(&history.events[at]) else { return false };
    let (key, ended_ns) = (history.events[at].key, history.events[at].ended_ns);
    let is_later = |event: &Event| event.key == key && event.sent_ns > ended_ns && wrote_at(event).is_some();
    let Some(other) = history.events.iter().position(is_later) else { return false };
    let Some(theirs) = wrote_at(&history.events[other]) else { return false };
    for (event, revision) in [(at, theirs), (other, mine)] {
        if let Told::Wrote { at, .. } = &mut history.events[event].told {
            at.revision = revision;
        }
    }
    true
}

#[test]
fn a_correct_store_is_never_accused() {
    for seed in 0..500 {
        let history = simulate(seed, seed % 30, None).expect("it makes no mistake");
        let faults = check(&history);
        assert_eq!(faults.kept, [], "seed {seed}");
    }
}

#[test]
fn a_correct_store_is_not_accused_where_recording_ends_early() {
    for seed in 0..300 {
        let mut history = simulate(seed, 8, None).expect("it makes no mistake");
        history.cut_ns = Some(200 + 10 * seed);
        crate::audit::check::cut(&mut history);
        assert_eq!(check(&history).kept, [], "seed {seed}");
    }
}

/// Of the histories with this mistake, how many in a hundred are caught.
fn caught_percent(mistake: Mistake, unheard: u64) -> usize {
    let of = |seed| simulate(seed, unheard, Some(mistake)).map(|history| check(&history));
    let checked: Vec<Faults> = (0..400).filter_map(of).collect();
    assert!(checked.len() > 200, "{mistake:?} was made in {} histories", checked.len());
    100 * checked.iter().filter(|faults| faults.count > 0).count() / checked.len()
}

#[test]
fn mistakes_are_caught() {
    // These are wrong in what was told, whatever else happened.
    for mistake in [Mistake::ReadsStale, Mistake::Garbles, Mistake::Reorders] {
        assert_eq!(caught_percent(mistake, 8), 100, "{mistake:?}");
    }
    // A later write makes the revision of the one that was lost, or the last read is of before it; unless
    // that later write is itself one that nobody heard of.
    assert!(caught_percent(Mistake::Loses, 8) >= 95);
    assert_eq!(caught_percent(Mistake::Loses, 0), 100);
    // These show in a read, in the next version or in the last value, but not where a delete comes first, or
    // where nothing is known of the key from before; and a write whose outcome is unknown may excuse them.
    for (mistake, least, least_unheard) in [(Mistake::Doubles, 85, 50), (Mistake::CarriesOutRefused, 85, 50)]
    {
        let (percent, unheard) = (caught_percent(mistake, 0), caught_percent(mistake, 8));
        assert!(percent >= least && unheard >= least_unheard, "{mistake:?}: {percent} %, {unheard} %");
    }
}
