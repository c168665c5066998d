//! After the run: reads the last value of each key of the sample, and has the history checked.
//!
//! The reads are calls of their own, of a node after the other, not of the load's connections: what is there
//! has to be there for everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::args::{Settings, Target};
use crate::audit::event::{Asked, Event, Final, Told};
use crate::audit::verdict::Verdict;
use crate::audit::{check, mark, seen};
use crate::control::{ControlError, Session, call, dial, limited};
use crate::message::Message;
use crate::method::Method;
use crate::shared::Shared;

/// Most reads at a time.
const READERS: usize = 16;
/// How long the last values are asked for, all of them together.
const TIME_MAX: Duration = Duration::from_secs(20);
/// The pause after a read that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What the audit of a run that has ended finds; `None` where there is none. `has_strays`: writes of before
/// the run may have taken effect in it.
pub async fn audited(settings: &Settings, shared: &Arc<Shared>, has_strays: bool) -> Option<Verdict> {
    if !settings.audit {
        return None;
    }
    let mut gathered = shared.gathering.take();
    let history = &mut gathered.history;
    history.has_strays = has_strays;
    let mut unread = 0;
    if history.cut_ns.is_none() {
        let values = read_all(settings, shared, &history.keys).await;
        unread = history.keys.len() - values.len();
        for LastValue { event, marks } in values {
            history.finals.push(Final { key: event.key, event: history.events.len(), marks });
            history.events.push(event);
        }
    }
    check::cut(history);
    let faults = check::check(history);
    Some(Verdict::of(history, &faults, gathered.operations, unread))
}

/// A read of a last value, and the marks in it.
struct LastValue {
    event: Event,
    marks: Vec<u64>,
}

/// Reads all of the keys that can be read in time.
async fn read_all(settings: &Settings, shared: &Arc<Shared>, keys: &[Box<[u8]>]) -> Vec<LastValue> {
    let method = if settings.target == Target::Etcd { Method::EtcdGet } else { Method::Get };
    let next = Arc::new(AtomicUsize::new(0));
    let keys: Arc<[Box<[u8]>]> = keys.into();
    let mut readers = JoinSet::new();
    for turn in 0..READERS.min(keys.len()) {
        let reader = Reader {
            method,
            shared: Arc::clone(shared),
            endpoints: settings.endpoints.clone(),
            turn,
            session: None,
            until: Instant::now() + TIME_MAX,
        };
        readers.spawn(reader.run(Arc::clone(&keys), Arc::clone(&next)));
    }
    let mut values = Vec::new();
    while let Some(read) = readers.join_next().await {
        values.extend(read.unwrap_or_default());
    }
    values
}

/// One of those that read.
struct Reader {
    method: Method,
    shared: Arc<Shared>,
    endpoints: Vec<String>,
    turn: usize,
    session: Option<Session>,
    until: Instant,
}

impl Reader {
    /// Reads key after key, as long as there are any that nobody reads.
    async fn run(mut self, keys: Arc<[Box<[u8]>]>, next: Arc<AtomicUsize>) -> Vec<LastValue> {
        let mut values = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(key) = keys.get(place) else { return values };
            while Instant::now() < self.until {
                if let Some(value) = self.read(key, place as u32).await {
                    values.push(value);
                    break;
                }
                self.turn += 1;
                sleep(PAUSE).await;
            }
        }
    }

    /// Reads a key, from the node whose turn it is.
    async fn read(&mut self, key: &[u8], place: u32) -> Option<LastValue> {
        let sent_ns = self.shared.now_ns();
        let answer = limited(self.ask(key)).await.ok()?;
        let ended_ns = self.shared.now_ns();
        let salt = self.shared.gathering.salt;
        let told = seen::told(salt, self.method, &answer);
        let marks = seen::value_in(self.method, &answer).map(|value| mark::all(salt, value));
        let event = Event { key: place, asked: Asked::Get, sent_ns, ended_ns, told };
        let is_told = matches!(event.told, Told::Saw { .. });
        is_told.then_some(LastValue { event, marks: marks.unwrap_or_default() })
    }

    async fn ask(&mut self, key: &[u8]) -> Result<Vec<u8>, ControlError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => dial(self.endpoints[self.turn % self.endpoints.len()].clone()).await?,
        };
        let mut message = Vec::new();
        Message { method: self.method, key, value: b"", number: 0 }.write(&mut message);
        let path = Method::PATHS[self.method.index()];
        let answer = call(&mut session, path, Bytes::from(message)).await?;
        self.session = Some(session);
        Ok(answer)
    }
}
