//! Load that knows what it was told: writers that append and put through the Clerk, and the check of what is
//! there in the end against what was acknowledged.
//!
//! Each writer has one append key in every shard; its tokens are unique and each goes there once. Between
//! them it creates keys that nobody else creates, on condition that they do not exist: applied twice, the
//! second answer would say that the key was there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use distribkv::client::{Clerk, Error};

use super::{SHARDS, key_of};

/// How long a writer rests after its two writes: the check has to read all of them.
const REST: Duration = Duration::from_millis(3);

/// How many calls of the check are in flight.
const READERS: usize = 16;

/// What a writer was told of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    NotExecuted,
    Unknown,
}

/// What one writer did: in the order in which it did it.
#[derive(Default)]
struct Record {
    appends: Vec<(String, String, Told)>,
    creations: Vec<(String, Told)>,
}

/// Writers at work.
pub struct Load {
    clerk: Clerk,
    stop: Rc<Cell<bool>>,
    records: Vec<Rc<RefCell<Record>>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

/// How many writes there were, by what was told of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged.
    pub done: usize,
    /// Said not to have been executed.
    pub not_executed: usize,
    /// Of which neither is known.
    pub unknown: usize,
}

impl Load {
    /// Starts so many writers, on the `LocalSet` that this is called in.
    pub fn start(addresses: Vec<String>, writers: usize) -> Self {
        let clerk = Clerk::connect(addresses).expect("well-formed addresses");
        let stop = Rc::new(Cell::new(false));
        let records: Vec<Rc<RefCell<Record>>> = (0..writers).map(|_| Rc::default()).collect();
        let start = |(number, record): (usize, &Rc<RefCell<Record>>)| {
            tokio::task::spawn_local(write(number, clerk.clone(), Rc::clone(record), Rc::clone(&stop)))
        };
        let tasks = records.iter().enumerate().map(start).collect();
        Self { clerk, stop, records, writers: tasks }
    }

    /// How much was written so far.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for record in &self.records {
            let record = record.borrow();
            let appends = record.appends.iter().map(|(_, _, told)| *told);
            for told in appends.chain(record.creations.iter().map(|(_, told)| *told)) {
                match told {
                    Told::Done => tally.done += 1,
                    Told::NotExecuted => tally.not_executed += 1,
                    Told::Unknown => tally.unknown += 1,
                }
            }
        }
        tally
    }

    /// Waits until this many more writes were acknowledged.
    pub async fn goes_on(&self, more: usize) {
        let (before, begun) = (self.tally().done, std::time::Instant::now());
        while self.tally().done < before + more {
            assert!(begun.elapsed() < super::PATIENCE, "no writes any more: {:?}", self.tally());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it, and checks that what is there is what the writers were told.
    pub async fn stop_and_check(self) -> Tally {
        self.stop.set(true);
        let tally_at_least = self.tally();
        for writer in self.writers {
            writer.await.expect("no writer panics");
        }
        let mut tally = Tally::default();
        for record in &self.records {
            let record = record.take();
            check_appends(&self.clerk, &record, &mut tally).await;
            check_creations(&self.clerk, &record, &mut tally).await;
        }
        assert!(tally.done >= tally_at_least.done, "{tally:?} of {tally_at_least:?}");
        self.clerk.close().await;
        tally
    }
}

async fn write(number: usize, clerk: Clerk, record: Rc<RefCell<Record>>, stop: Rc<Cell<bool>>) {
    let keys: Vec<String> = (0..SHARDS).map(|shard| key_of(shard, &format!("append/{number}/"))).collect();
    for at in 0usize.. {
        if stop.get() {
            return;
        }
        let key = keys[at % keys.len()].clone();
        let token = format!("{number}.{at};");
        let told = told(clerk.append(key.clone(), token.clone()).await.map(|response| response.succeeded));
        record.borrow_mut().appends.push((key, token, told));
        let key = format!("create/{number}/{at}");
        let created = clerk.compare_and_swap(key.clone(), 0, key.clone()).await;
        let told = self::told(created.map(|response| response.succeeded));
        record.borrow_mut().creations.push((key, told));
        tokio::time::sleep(REST).await;
    }
}

fn told(outcome: Result<bool, Error>) -> Told {
    match outcome {
        Ok(succeeded) => {
            assert!(succeeded, "a write that nobody made before was taken for the second");
            Told::Done
        }
        Err(Error::CheckOutcome { .. }) => Told::Unknown,
        Err(error) => {
            assert!(error.is_not_executed(), "{error}");
            Told::NotExecuted
        }
    }
}

impl Tally {
    fn count(&mut self, told: Told, is_there: bool, what: &str) {
        match told {
            Told::Done => {
                assert!(is_there, "lost, although it was acknowledged: {what}");
                self.done += 1;
            }
            Told::NotExecuted => {
                assert!(!is_there, "there, although it was said that it was not executed: {what}");
                self.not_executed += 1;
            }
            Told::Unknown => self.unknown += 1,
        }
    }
}

/// Every acknowledged token is there once, every other as it was told, all in their order and nothing else.
async fn check_appends(clerk: &Clerk, record: &Record, tally: &mut Tally) {
    let keys: BTreeSet<&String> = record.appends.iter().map(|(key, _, _)| key).collect();
    for key in keys {
        let got = clerk.get(key.as_str()).await.expect("the cluster serves").kv;
        let value = got.map(|kv| String::from_utf8(kv.value.to_vec()).expect("tokens are text"));
        let value = value.unwrap_or_default();
        let mut there = value.split_inclusive(';').peekable();
        for (_, token, told) in record.appends.iter().filter(|(of, _, _)| of == key) {
            let is_there = there.next_if(|next| next == token).is_some();
            tally.count(*told, is_there, &format!("token {token} of {key}, which holds {value:?}"));
        }
        assert_eq!(there.next(), None, "{key}: more than was appended, or twice, or out of order: {value:?}");
    }
}

/// Every acknowledged key is there, with its value; every other as it was told.
async fn check_creations(clerk: &Clerk, record: &Record, tally: &mut Tally) {
    let mut found = BTreeMap::new();
    for some in record.creations.chunks(READERS) {
        let readers: Vec<_> = some
            .iter()
            .map(|(key, _)| {
                let (clerk, key) = (clerk.clone(), key.clone());
                tokio::task::spawn_local(async move {
                    let got = clerk.get(key.as_str()).await.expect("the cluster serves").kv;
                    (key, got)
                })
            })
            .collect();
        for reader in readers {
            let (key, kv) = reader.await.expect("no reader panics");
            found.insert(key, kv);
        }
    }
    for (key, told) in &record.creations {
        let kv = &found[key];
        tally.count(*told, kv.is_some(), key);
        if let Some(kv) = kv {
            assert_eq!((&kv.key[..], &kv.value[..], kv.version), (key.as_bytes(), key.as_bytes(), 1));
        }
    }
}
