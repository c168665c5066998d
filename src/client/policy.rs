//! What the Clerk does: when a call is sent where, and what every outcome of a sending means. Pure.
//!
//! ```text
//!             no table           no session, or no room in it
//! start ──► Table ─────► Session ──────────┐
//!   │         │             │               ▼
//!   └─────────┴─────────────┴─────────► Flying ──── answer, or a refusal for good ───► Finish
//!                                        ▲   │ refusal, not reached, no answer
//!                                        │   ▼
//!                                        Pause ──── deadline, or nothing more may be sent ───► Finish
//! ```
//!
//! One call has at most one sending under way; a sending is given up at its own timeout, which doubles with
//! every one that is lost, up to what is left of the call's time. A leader hint is followed at once (a few
//! times in a row), everything else waits for a jittered, doubling delay and goes rather to another node.
//!
//! Invariants:
//! - Once a sending of a write ended without an answer, the call ends in its answer or in
//!   [`Error::CheckOutcome`].
//! - A write goes out again under its first stamp, unless its session is gone and no sending was lost.
//! - Every call ends by its deadline, if [`Policy::tick`] is called when [`Policy::wake_at`] says.
//! - At most `calls_max` calls are under way, and `window_max` unacknowledged sequences a session.
//!
//! What it deliberately does not do: read a clock, draw a random number, or know what a payload means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::client::backoff::{Backoff, Chance, Tries};
use crate::client::calls::Call;
use crate::client::error::{Advice, Cause, Error, Reason, Setback};
use crate::client::message::{
    Action, Answer, AttemptId, CallId, Event, Kind, Refusal, Request, Route, Spec, Target,
};
use crate::client::routing::Routing;
use crate::client::sessions::ShardSession;
use crate::client::table_flow::Refresh;
use crate::ids::{NodeId, SessionId, ShardId};

/// How long a node's `retry_after` is obeyed at most.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// How a policy behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a session lives untouched. Default 60 s; the node takes 1 s to 1 h.
    pub session_ttl: Duration,
    /// The most unacknowledged sequences of a session; further writes wait. Default and bound: 1024, the
    /// contract's.
    pub window_max: u64,
    /// The most calls under way; further ones end in [`Error::SlowDown`]. Default 65536.
    pub calls_max: usize,
    /// How long the first sending waits for its answer. Default 2 s.
    pub attempt_timeout: Duration,
    /// The delays between sendings.
    pub backoff: Backoff,
    /// The most leader hints that are followed in a row without a delay. Default 3.
    pub redirects_max: u32,
    /// The shortest time between two requests for the routing table. Default 1 s.
    pub refresh_pause: Duration,
    /// A fault to plant, so that tests prove that they find it.
    #[cfg(debug_assertions)]
    pub planted_bug: Option<PlantedBug>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session_ttl: Duration::from_secs(60),
            window_max: 1024,
            calls_max: 65_536,
            attempt_timeout: Duration::from_secs(2),
            backoff: Backoff { first: Duration::from_millis(10), most: Duration::from_secs(1) },
            redirects_max: 3,
            refresh_pause: Duration::from_secs(1),
            #[cfg(debug_assertions)]
            planted_bug: None,
        }
    }
}

/// Faults that tests plant to prove that they would find them.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Forgets that a sending was lost, so that a later refusal passes for "not executed".
    NotExecutedAfterLostSending,
    /// Sends a write again under a new sequence after a sending was lost.
    ResendWithNewSequence,
    /// Acknowledges every sequence that was given out, answered or not.
    AcknowledgedTooFar,
}

/// The decisions of one client. `P` is the payload of a call, `A` its answer.
pub struct Policy<P, A> {
    pub(super) config: Config,
    pub(super) now: Duration,
    pub(super) chance: Chance,
    pub(super) routing: Routing,
    pub(super) refresh: Refresh,
    pub(super) sessions: BTreeMap<ShardId, ShardSession>,
    pub(super) calls: BTreeMap<CallId, Call<P>>,
    pub(super) attempts: BTreeMap<AttemptId, Attempt>,
    pub(super) timers: BTreeSet<(Duration, Timer)>,
    pub(super) actions: VecDeque<Action<P, A>>,
    calls_made: u64,
    attempts_made: u64,
    pub(super) life: Life,
}

/// Whether new calls are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Serving,
    /// The calls under way are brought to their end, then the sessions are closed.
    Closing,
}

/// One sending under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) errand: Errand,
    pub(super) target: Target,
    pub(super) sent_at: Duration,
}

/// What a sending is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Call(CallId),
    Open(ShardId),
    KeepAlive(ShardId, SessionId),
    Close(SessionId),
    Shards,
}

/// What is to be looked at again at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Call(CallId),
    Session(ShardId),
    Refresh,
    Closing,
}

/// How a sending ended, once the routing has learnt from it.
pub(super) enum Ending<A> {
    Answered(Answer<A>),
    /// Certainly not executed.
    Refused(Refusal, Setback),
    /// It may have been, or may yet be, executed.
    Lost(Setback),
}

impl<P: Clone, A> Policy<P, A> {
    /// A client that knows these addresses (`host:port`) and nothing else.
    ///
    /// # Panics
    /// Without an address, or with limits that make no sense.
    #[must_use]
    pub fn new(config: Config, endpoints: &[String]) -> Self {
        assert!(
            (1..=1024).contains(&config.window_max),
            "window_max is {}, not 1 to 1024",
            config.window_max
        );
        assert!(config.calls_max >= 1, "calls_max is {}", config.calls_max);
        assert!(!config.attempt_timeout.is_zero(), "attempt_timeout is {:?}", config.attempt_timeout);
        assert!(!config.refresh_pause.is_zero(), "refresh_pause is {:?}", config.refresh_pause);
        assert!(!config.session_ttl.is_zero(), "session_ttl is {:?}", config.session_ttl);
        Self {
            config,
            now: Duration::ZERO,
            chance: Chance::default(),
            routing: Routing::new(endpoints),
            refresh: Refresh::default(),
            sessions: BTreeMap::new(),
            calls: BTreeMap::new(),
            attempts: BTreeMap::new(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            calls_made: 0,
            attempts_made: 0,
            life: Life::Serving,
        }
    }

    /// Takes on a call. Its end comes as an [`Action::Finish`], by `now + spec.timeout` at the latest.
    ///
    /// # Panics
    /// Where a [`Kind::Write`] has no key to find its shard by.
    pub fn start(&mut self, now: Duration, random: u64, spec: Spec<P>) -> CallId {
        self.enter(now, random);
        self.calls_made += 1;
        let id = CallId(self.calls_made);
        let keyed = matches!(spec.route, Route::Key(_));
        assert!(
            keyed || spec.kind != Kind::Write,
            "a write that is to be stamped needs a key: {:?}",
            spec.route
        );
        if self.life == Life::Closing {
            self.actions.push_back(Action::Finish { call: id, result: Err(Error::Reconnect) });
            return id;
        }
        if self.calls.len() >= self.config.calls_max {
            self.actions.push_back(Action::Finish { call: id, result: Err(Error::SlowDown { last: None }) });
            return id;
        }
        let deadline = self.now + spec.timeout;
        self.calls.insert(id, Call::new(spec, deadline));
        assert!(self.calls.len() <= self.config.calls_max, "{} calls are under way", self.calls.len());
        self.timers.insert((deadline, Timer::Call(id)));
        self.ask_for_table_once();
        self.advance(id);
        id
    }

    /// Takes in how a sending ended.
    pub fn event(&mut self, now: Duration, random: u64, event: Event<A>) {
        self.enter(now, random);
        let (id, ending) = match event {
            Event::Answered { attempt, answer } => (attempt, Heard::Answer(answer)),
            Event::Refused { attempt, refusal } => (attempt, Heard::Refusal(refusal)),
            Event::Unreached { attempt, detail } => (attempt, Heard::Unreached(detail)),
            Event::Unknown { attempt, leader, detail } => (attempt, Heard::Unknown(leader, detail)),
            Event::Lost { attempt, detail } => (attempt, Heard::Nothing(detail)),
        };
        if let Some(attempt) = self.attempts.remove(&id) {
            let ending = self.learn(&attempt, ending);
            self.dispatch(attempt, ending);
        }
    }

    /// Does what is due. To be called at [`Self::wake_at`], and harmless at any other time.
    pub fn tick(&mut self, now: Duration, random: u64) {
        self.enter(now, random);
        while let Some(&(at, timer)) = self.timers.first()
            && at <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::Call(id) => self.call_due(id),
                Timer::Session(shard) => self.session_due(shard),
                Timer::Refresh => self.refresh_due(),
                Timer::Closing => self.attempts.retain(|_, a| !matches!(a.errand, Errand::Close(_))),
            }
        }
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The next thing to do for whoever drives this; to be asked until there is none after every other call.
    pub fn next_action(&mut self) -> Option<Action<P, A>> {
        self.actions.pop_front()
    }

    /// The address behind a target of an [`Action::Send`].
    #[must_use]
    pub fn address(&self, target: Target) -> Arc<str> {
        self.routing.address(target)
    }

    /// The calls that have not finished.
    #[must_use]
    pub fn calls_under_way(&self) -> usize {
        self.calls.len()
    }

    /// Takes no further calls; closes the sessions when the last call has finished.
    pub fn close(&mut self, now: Duration, random: u64) {
        self.enter(now, random);
        if self.life == Life::Serving {
            self.life = Life::Closing;
            self.close_sessions_if_done();
        }
    }

    /// Whether everything has ended after [`Self::close`]: nothing more will be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let closes = |attempt: &Attempt| matches!(attempt.errand, Errand::Close(_));
        self.life == Life::Closing && self.calls.is_empty() && !self.attempts.values().any(closes)
    }

    /// Gives up on a sending that nobody reported on in time.
    pub(super) fn attempt_timed_out(&mut self, id: AttemptId) {
        assert!(self.attempts.contains_key(&id), "{id:?} has ended and is still waited for");
        if let Some(attempt) = self.attempts.remove(&id) {
            let ending = self.learn(&attempt, Heard::Nothing("no answer in time".to_owned()));
            self.dispatch(attempt, ending);
        }
    }

    /// Every way in passes here: the clock only moves forward, whatever the driver says.
    fn enter(&mut self, now: Duration, random: u64) {
        self.now = self.now.max(now);
        self.chance.stir(random);
    }

    /// What an ending says of nodes and leaders.
    fn learn(&mut self, attempt: &Attempt, heard: Heard<A>) -> Ending<A> {
        let shard = self.shard_of_errand(attempt.errand);
        let address = self.routing.address(attempt.target);
        let setback = |cause, detail: String| Setback { address, cause, detail };
        match heard {
            Heard::Answer(answer) => {
                self.routing.reached(attempt.target);
                Ending::Answered(answer)
            }
            Heard::Refusal(refusal) => {
                self.routing.reached(attempt.target);
                if refusal.reason.advice() == Advice::Elsewhere {
                    self.heard_of_leader(shard, attempt.target, refusal.leader);
                }
                let setback = setback(Cause::Refused(refusal.reason), refusal.detail.clone());
                Ending::Refused(refusal, setback)
            }
            Heard::Unreached(detail) => {
                self.routing.failed(attempt.target, self.now);
                Ending::Refused(Refusal::of(Reason::Unavailable), setback(Cause::Unreached, detail))
            }
            Heard::Unknown(leader, detail) => {
                self.routing.reached(attempt.target);
                self.heard_of_leader(shard, attempt.target, leader);
                Ending::Lost(setback(Cause::Unanswered, detail))
            }
            Heard::Nothing(detail) => {
                self.routing.failed(attempt.target, self.now);
                Ending::Lost(setback(Cause::Unanswered, detail))
            }
        }
    }

    /// The node asked does not lead, or no longer; it may have named who does.
    fn heard_of_leader(&mut self, shard: Option<ShardId>, asked: Target, leader: Option<NodeId>) {
        let Some(shard) = shard else { return };
        self.routing.doubt_leader(shard, asked);
        if let Some(leader) = leader {
            self.believe_leader(shard, leader);
        }
    }

    /// A node that the table does not name calls for a newer table.
    pub(super) fn believe_leader(&mut self, shard: ShardId, leader: NodeId) {
        self.routing.learn_leader(shard, leader);
        if self.routing.target_of(leader).is_none() {
            self.ask_for_table();
        }
    }

    /// The shard that a sending concerns, as far as that is known.
    fn shard_of_errand(&self, errand: Errand) -> Option<ShardId> {
        match errand {
            Errand::Call(id) => self.calls.get(&id).and_then(Call::shard),
            Errand::Open(shard) | Errand::KeepAlive(shard, _) => Some(shard),
            Errand::Close(_) | Errand::Shards => None,
        }
    }

    /// Hands the end of a sending to whoever it was made for.
    fn dispatch(&mut self, attempt: Attempt, ending: Ending<A>) {
        match attempt.errand {
            Errand::Call(id) => self.call_ended(id, &attempt, ending),
            Errand::Open(shard) => self.open_ended(shard, &attempt, ending),
            Errand::KeepAlive(shard, id) => self.keep_alive_ended((shard, id), &attempt, ending),
            // Best effort: a session that is not closed expires.
            Errand::Close(_) => {}
            Errand::Shards => self.table_ended(&attempt, ending),
        }
    }
}

/// What was heard of a sending.
enum Heard<A> {
    Answer(Answer<A>),
    Refusal(Refusal),
    Unreached(String),
    Unknown(Option<NodeId>, String),
    Nothing(String),
}

/// What sessions and the routing table need of the policy.
impl<P: Clone, A> Policy<P, A> {
    /// Makes a sending. Whoever calls sets a timer for it: a driver may never report.
    pub(super) fn send(
        &mut self,
        errand: Errand,
        target: Target,
        request: Request<P>,
        timeout: Duration,
    ) -> AttemptId {
        assert!(!timeout.is_zero(), "{errand:?} is sent without any time for an answer");
        self.attempts_made += 1;
        let attempt = AttemptId(self.attempts_made);
        self.attempts.insert(attempt, Attempt { errand, target, sent_at: self.now });
        self.actions.push_back(Action::Send { attempt, target, request, timeout });
        attempt
    }

    /// Moves a timer from one time to another.
    pub(super) fn set_timer(&mut self, timer: Timer, old: Option<Duration>, new: Option<Duration>) {
        if let Some(old) = old {
            self.timers.remove(&(old, timer));
        }
        if let Some(new) = new {
            self.timers.insert((new, timer));
        }
    }

    /// Closes the sessions once the last call has ended. That goes out once and is waited for once.
    pub(super) fn close_sessions_if_done(&mut self) {
        if self.life == Life::Closing && self.calls.is_empty() {
            self.close_sessions();
            self.timers.clear();
            self.timers.insert((self.now + self.config.attempt_timeout, Timer::Closing));
        }
    }
}

/// How long to wait after a sending that did not help. Zero: a hint names somebody else, who is asked at
/// once.
pub(super) fn delay_after(
    config: &Config,
    routing: &Routing,
    chance: &mut Chance,
    tries: &mut Tries,
    asked: Target,
    refusal: Option<&Refusal>,
) -> Duration {
    let hint = refusal.and_then(|refusal| refusal.leader).and_then(|leader| routing.target_of(leader));
    if hint.is_some_and(|hint| hint != asked) && tries.redirects < config.redirects_max {
        tries.redirects += 1;
        return Duration::ZERO;
    }
    let delay = config.backoff.delay(tries.rounds, chance.draw());
    tries.redirects = 0;
    tries.rounds = tries.rounds.saturating_add(1);
    let asked_for = refusal.and_then(|refusal| refusal.retry_after).unwrap_or_default();
    delay.max(asked_for.min(RETRY_AFTER_MAX))
}
