//! The sessions of a policy: one for each shard that is written to, opened when the first write asks for it.
//!
//! ```text
//!           a write waits             answer
//! Closed ───────────────► Opening ──────────────► Open ── every ttl/3 untouched: KeepAlive
//!    ▲ nobody waits any more │ ▲ refused, lost      │
//!    └───────────────────────┘ └── after a delay    │
//!    └──────────────── SESSION_EXPIRED, Close ──────┘
//! ```
//!
//! A lost Open may have opened a session that nobody uses: it expires by itself. A write that is answered
//! touches its session, counted from when it was sent, so that the client's idea of the time left is never
//! the longer one.
//!
//! Invariants:
//! - Sequences are given out only by an open session, within its window; writes wait in the order in which
//!   they came.
//! - A write waits only while the session is not open or its window is full.
//!
//! What it deliberately does not do: close an idle session while the client lives.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::client::backoff::Tries;
use crate::client::error::{Advice, Cause, Setback};
use crate::client::message::{Answer, AttemptId, CallId, Request, Stamp};
use crate::client::policy::{Attempt, Ending, Errand, Life, Policy, Timer, delay_after};
use crate::client::window::Window;
use crate::ids::{Sequence, SessionId, ShardId};

/// The shortest ttl of the contract: what a node says below it is not believed.
const TTL_MIN: Duration = Duration::from_secs(1);

/// The session of one shard, and who waits for it.
#[derive(Default)]
pub(super) struct ShardSession {
    state: State,
    waiting: BTreeSet<CallId>,
    tries: Tries,
    wake_at: Option<Duration>,
}

/// Where the session is; the picture is at the head of this file.
#[derive(Default)]
enum State {
    #[default]
    Closed,
    /// `None`: between two sendings.
    Opening(Option<AttemptId>, Bytes),
    Open(Live),
}

/// An open session.
struct Live {
    id: SessionId,
    ttl: Duration,
    touched_at: Duration,
    window: Window,
    keep_alive: Option<AttemptId>,
}

impl ShardSession {
    /// Gives out the next sequence, where the session is open, has room, and nobody came first.
    pub(super) fn give_stamp(&mut self, window_max: u64) -> Option<Stamp> {
        let State::Open(live) = &mut self.state else { return None };
        if !self.waiting.is_empty() {
            return None;
        }
        live.give(window_max)
    }

    /// Notes that the session was alive when something was sent under it that was answered since.
    pub(super) fn touch(&mut self, session: SessionId, sent_at: Duration) {
        if let State::Open(live) = &mut self.state
            && live.id == session
        {
            live.touched_at = live.touched_at.max(sent_at);
        }
    }

    /// What stood in the way of opening it.
    pub(super) fn last(&self) -> Option<Setback> {
        self.tries.last.clone()
    }

    /// Who waited longest, where the session is open and has room.
    fn pop_admissible(&mut self, window_max: u64) -> Option<CallId> {
        let open = self.live().is_some_and(|live| live.window.has_room(window_max));
        if open { self.waiting.pop_first() } else { None }
    }

    /// The session, where it is open.
    fn live(&mut self) -> Option<&mut Live> {
        match &mut self.state {
            State::Open(live) => Some(live),
            State::Closed | State::Opening(..) => None,
        }
    }
}

impl Live {
    /// The stamp of the next request, where the window has room.
    fn give(&mut self, window_max: u64) -> Option<Stamp> {
        let sequence = self.window.give(window_max)?;
        Some(Stamp { session: self.id, sequence, acknowledged: self.window.acknowledged() })
    }

    /// When it is touched for its own sake: early enough for two further attempts within its life.
    fn keep_alive_at(&self) -> Duration {
        self.touched_at + self.ttl / 3
    }
}

impl<P: Clone, A> Policy<P, A> {
    /// Lets a write wait for the session of its shard, and opens it where it is not.
    pub(super) fn queue_for_session(&mut self, shard: ShardId, id: CallId, key: Bytes) {
        let session = self.sessions.entry(shard).or_default();
        assert!(session.waiting.insert(id), "{id:?} waits for the session of shard {shard} twice");
        match session.state {
            State::Closed => {
                session.tries = Tries::default();
                session.state = State::Opening(None, key);
                self.send_open(shard);
            }
            State::Opening(..) | State::Open(_) => {}
        }
    }

    /// A call that waited has ended.
    pub(super) fn leave_queue(&mut self, shard: ShardId, id: CallId) {
        if let Some(session) = self.sessions.get_mut(&shard) {
            session.waiting.remove(&id);
        }
    }

    /// The highest sequence up to which all are finished, of the session of this stamp.
    pub(super) fn acknowledged_of(&mut self, shard: ShardId, stamp: Stamp) -> Sequence {
        #[cfg(debug_assertions)]
        let too_far = self.config.planted_bug == Some(super::PlantedBug::AcknowledgedTooFar);
        let Some(live) = self.sessions.get_mut(&shard).and_then(ShardSession::live) else {
            return stamp.acknowledged;
        };
        if live.id != stamp.session {
            return stamp.acknowledged;
        }
        #[cfg(debug_assertions)]
        if too_far {
            return Sequence(stamp.sequence.0 - 1);
        }
        assert!(live.window.acknowledged() < stamp.sequence, "{stamp:?} is sent, though acknowledged");
        live.window.acknowledged()
    }

    /// No further sending will be made under this stamp: there may be room for those that wait.
    pub(super) fn sequence_finished(&mut self, shard: Option<ShardId>, stamp: Option<Stamp>) {
        let (Some(shard), Some(stamp)) = (shard, stamp) else { return };
        let Some(live) = self.sessions.get_mut(&shard).and_then(ShardSession::live) else { return };
        if live.id == stamp.session {
            live.window.finish(stamp.sequence);
            self.admit(shard);
        }
    }

    /// A node does not know this session: the next write opens another one.
    pub(super) fn session_is_gone(&mut self, shard: ShardId, gone: SessionId) {
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        if session.live().is_none_or(|live| live.id != gone) {
            return;
        }
        session.state = State::Closed;
        let waiting = std::mem::take(&mut session.waiting);
        self.set_session_timer(shard, None);
        for id in waiting {
            self.advance(id);
        }
    }

    /// Sends the writes that wait, as far as there is room.
    fn admit(&mut self, shard: ShardId) {
        let window_max = self.config.window_max;
        while let Some(first) = self.sessions.get_mut(&shard).and_then(|s| s.pop_admissible(window_max)) {
            if self.is_late(first) {
                self.end(first);
            } else if let Some(live) = self.sessions.get_mut(&shard).and_then(ShardSession::live)
                && let Some(stamp) = live.give(window_max)
            {
                self.send_stamped(first, stamp);
            }
        }
    }

    /// Asks for the session. The key is of the first write that wanted it: any of the shard does.
    fn send_open(&mut self, shard: ShardId) {
        let random = self.chance.draw();
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        let State::Opening(_, key) = &session.state else { return };
        let request = Request::Open { key: key.clone(), ttl: self.config.session_ttl };
        let target = self.routing.pick(Some(shard), session.tries.avoid, self.now, random);
        let timeout = self.config.attempt_timeout;
        let attempt = self.send(Errand::Open(shard), target, request, timeout);
        if let Some(session) = self.sessions.get_mut(&shard)
            && let State::Opening(flying, _) = &mut session.state
        {
            *flying = Some(attempt);
        }
        self.set_session_timer(shard, Some(self.now + timeout));
    }

    /// Takes in how an Open ended. A refusal that would be repeated ends the writes that wait; whatever else
    /// happened, it is sent again for as long as a write waits.
    pub(super) fn open_ended(&mut self, shard: ShardId, attempt: &Attempt, ending: Ending<A>) {
        match ending {
            Ending::Answered(Answer::Opened { session, ttl, shard: of }) if of == shard && session.0 > 0 => {
                self.opened(shard, session, ttl, attempt.sent_at);
            }
            Ending::Answered(_) => {
                let address = self.routing.address(attempt.target);
                let detail = "the session opened is of another shard".to_owned();
                self.ask_for_table();
                self.open_failed(shard, attempt, Setback { address, cause: Cause::Unanswered, detail }, None);
            }
            Ending::Refused(refusal, setback) => match refusal.reason.advice() {
                Advice::Elsewhere | Advice::Slower => {
                    self.open_failed(shard, attempt, setback, Some(&refusal));
                }
                Advice::Room | Advice::NewSession | Advice::Unknowable | Advice::Never => {
                    self.open_refused(shard, &setback);
                }
            },
            Ending::Lost(setback) => self.open_failed(shard, attempt, setback, None),
        }
    }

    /// The session is there: the writes that wait go out.
    fn opened(&mut self, shard: ShardId, id: SessionId, ttl: Duration, sent_at: Duration) {
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        assert!(
            matches!(session.state, State::Opening(..)),
            "a session of shard {shard} that nobody asked for"
        );
        let ttl = ttl.max(TTL_MIN);
        let live = Live { id, ttl, touched_at: sent_at, window: Window::default(), keep_alive: None };
        let keep_alive_at = live.keep_alive_at();
        session.tries = Tries::default();
        session.state = State::Open(live);
        self.set_session_timer(shard, Some(keep_alive_at));
        self.admit(shard);
    }

    /// There will be no session: the writes that wait have certainly not been executed.
    fn open_refused(&mut self, shard: ShardId, setback: &Setback) {
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        session.state = State::Closed;
        let waiting = std::mem::take(&mut session.waiting);
        self.set_session_timer(shard, None);
        self.end_queued(waiting, setback);
    }

    /// Another Open will be sent: at once where a leader was named, else after a delay.
    fn open_failed(
        &mut self,
        shard: ShardId,
        attempt: &Attempt,
        setback: Setback,
        refusal: Option<&super::Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        let State::Opening(flying, _) = &mut session.state else { return };
        *flying = None;
        session.tries.last = Some(setback);
        session.tries.avoid = Some(attempt.target);
        let tries = &mut session.tries;
        let delay =
            delay_after(&self.config, &self.routing, &mut self.chance, tries, attempt.target, refusal);
        if delay.is_zero() {
            return self.send_open(shard);
        }
        self.set_session_timer(shard, Some(self.now + delay));
    }

    /// The session's time has come: give up on what flies, send again, or touch it.
    pub(super) fn session_due(&mut self, shard: ShardId) {
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        session.wake_at = None;
        match &session.state {
            State::Closed => {}
            State::Opening(Some(attempt), _) => {
                let attempt = *attempt;
                self.attempt_timed_out(attempt);
            }
            State::Opening(None, _) if session.waiting.is_empty() => session.state = State::Closed,
            State::Opening(None, _) => self.send_open(shard),
            State::Open(live) => match live.keep_alive {
                Some(attempt) => self.attempt_timed_out(attempt),
                None if live.keep_alive_at() > self.now => {
                    let at = live.keep_alive_at();
                    self.set_session_timer(shard, Some(at));
                }
                None => self.send_keep_alive(shard),
            },
        }
    }

    /// Touches the session; what is acknowledged goes along, so that an idle client frees the stored answers.
    fn send_keep_alive(&mut self, shard: ShardId) {
        let random = self.chance.draw();
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        let State::Open(live) = &session.state else { return };
        let request = Request::KeepAlive { session: live.id, acknowledged: live.window.acknowledged() };
        let target = self.routing.pick(Some(shard), session.tries.avoid, self.now, random);
        let timeout = self.config.attempt_timeout;
        let errand = Errand::KeepAlive(shard, live.id);
        let attempt = self.send(errand, target, request, timeout);
        if let Some(live) = self.sessions.get_mut(&shard).and_then(ShardSession::live) {
            live.keep_alive = Some(attempt);
        }
        self.set_session_timer(shard, Some(self.now + timeout));
    }

    /// Takes in how a KeepAlive ended. A session that could not be touched is not given up here: the node
    /// decides that it is gone, by saying so.
    pub(super) fn keep_alive_ended(
        &mut self,
        (shard, id): (ShardId, SessionId),
        attempt: &Attempt,
        ending: Ending<A>,
    ) {
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        let State::Open(live) = &mut session.state else { return };
        // A session that was opened since has nothing to do with this answer.
        if live.id != id {
            return;
        }
        live.keep_alive = None;
        let refusal = match ending {
            Ending::Answered(answer) => {
                if let Answer::KeptAlive { ttl } = answer {
                    live.ttl = ttl.max(TTL_MIN);
                    live.touched_at = live.touched_at.max(attempt.sent_at);
                }
                session.tries = Tries::default();
                let at = live.keep_alive_at().max(self.now + TTL_MIN / 3);
                return self.set_session_timer(shard, Some(at));
            }
            Ending::Refused(refusal, _) => Some(refusal),
            Ending::Lost(_) => None,
        };
        if refusal.as_ref().is_some_and(|refusal| refusal.reason.advice() == Advice::NewSession) {
            return self.session_is_gone(shard, id);
        }
        session.tries.avoid = Some(attempt.target);
        let tries = &mut session.tries;
        let asked = attempt.target;
        let delay =
            delay_after(&self.config, &self.routing, &mut self.chance, tries, asked, refusal.as_ref());
        self.set_session_timer(shard, Some(self.now + delay.max(self.config.backoff.first)));
    }

    /// Closes what is open, once: whatever does not hear of it expires.
    pub(super) fn close_sessions(&mut self) {
        assert!(self.life == Life::Closing && self.calls.is_empty(), "{} calls under way", self.calls.len());
        for (shard, mut session) in std::mem::take(&mut self.sessions) {
            let Some(live) = session.live() else { continue };
            let request = Request::Close { session: live.id };
            let errand = Errand::Close(live.id);
            let random = self.chance.draw();
            let target = self.routing.pick(Some(shard), None, self.now, random);
            self.send(errand, target, request, self.config.attempt_timeout);
        }
    }

    /// Sets when the session is looked at again.
    fn set_session_timer(&mut self, shard: ShardId, at: Option<Duration>) {
        let Some(session) = self.sessions.get_mut(&shard) else { return };
        let old = std::mem::replace(&mut session.wake_at, at);
        self.set_timer(Timer::Session(shard), old, at);
    }
}
