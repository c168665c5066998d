//! The life of a call of a [`Policy`]: parked, sent, sent again, ended. The picture is in [`super::policy`].
//!
//! Invariants:
//! - A call that flies has exactly one attempt; any other call has none.
//! - Every call has exactly one timer, at its deadline at the latest.
//! - `tries.lost` of a call never goes down, and decides what its end may say.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::backoff::Tries;
use crate::client::error::{Advice, Cause, Error, Setback};
use crate::client::message::{
    Action, Answer, AttemptId, CallId, Kind, Refusal, Request, Route, Spec, Stamp, Target,
};
#[cfg(debug_assertions)]
use crate::client::policy::PlantedBug;
use crate::client::policy::{Attempt, Ending, Errand, Policy, Timer, delay_after};
use crate::ids::{NodeId, ShardId};

/// One call under way.
pub(super) struct Call<P> {
    spec: Spec<P>,
    deadline: Duration,
    /// Known as soon as there is a table.
    shard: Option<ShardId>,
    stamp: Option<Stamp>,
    phase: Phase,
    tries: Tries,
    wake_at: Duration,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The routing table.
    Table,
    /// Its shard's session, or room in it.
    Session,
    /// The delay before the next sending.
    Pause,
    /// An answer.
    Flying(AttemptId),
}

impl<P> Call<P> {
    /// A call that was taken on just now, with nothing sent.
    pub(super) fn new(spec: Spec<P>, deadline: Duration) -> Self {
        let (phase, wake_at) = (Phase::Pause, deadline);
        Self { spec, deadline, shard: None, stamp: None, phase, tries: Tries::default(), wake_at }
    }

    /// The shard that it concerns, as far as that is known.
    pub(super) fn shard(&self) -> Option<ShardId> {
        self.shard
    }
}

/// The life of a call.
impl<P: Clone, A> Policy<P, A> {
    /// Sends the call, or parks it where something is missing for that.
    pub(super) fn advance(&mut self, id: CallId) {
        if self.is_late(id) {
            return self.end(id);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.shard.is_none() {
            call.shard = match &call.spec.route {
                Route::Key(key) => self.routing.shard_of(key),
                Route::Shard(shard) => Some(*shard),
                Route::Anywhere => None,
            };
        }
        if call.spec.kind != Kind::Write || call.stamp.is_some() {
            return self.send_call(id);
        }
        match call.shard {
            Some(shard) => self.stamp_or_queue(id, shard),
            None => {
                call.phase = Phase::Table;
                self.set_call_timer(id, None);
                self.ask_for_table();
            }
        }
    }

    /// Takes the next sequence of the session of the shard, or a place among those that wait for one. A call
    /// keeps the sequence that it is given for as long as a sending of it may be under way.
    fn stamp_or_queue(&mut self, id: CallId, shard: ShardId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.stamp = self.sessions.entry(shard).or_default().give_stamp(self.config.window_max);
        if call.stamp.is_some() {
            return self.send_call(id);
        }
        call.phase = Phase::Session;
        let Route::Key(key) = call.spec.route.clone() else { return };
        self.set_call_timer(id, None);
        self.queue_for_session(shard, id, key);
    }

    /// Sends a call that waited for its stamp.
    pub(super) fn send_stamped(&mut self, id: CallId, stamp: Stamp) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        assert!(call.stamp.is_none(), "{id:?} has {:?} and gets {stamp:?}", call.stamp);
        call.stamp = Some(stamp);
        self.send_call(id);
    }

    /// Whether there is no time left for another sending.
    pub(super) fn is_late(&self, id: CallId) -> bool {
        self.calls.get(&id).is_some_and(|call| call.deadline <= self.now)
    }

    /// Sends the call once, with whatever stamp it has. The acknowledged sequence is taken anew for every
    /// sending, so that a resend that is refused for a full window brings the news that makes room.
    fn send_call(&mut self, id: CallId) {
        let random = self.chance.draw();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let shard = if call.spec.kind == Kind::ReadAnywhere { None } else { call.shard };
        let target = self.routing.pick(shard, call.tries.avoid, self.now, random);
        let patience = self.config.attempt_timeout.saturating_mul(1 << call.tries.lost.min(10));
        let timeout = patience.min(call.deadline.saturating_sub(self.now));
        let payload = call.spec.payload.clone();
        let mut stamp = call.stamp;
        if let (Some(stamp), Some(shard)) = (&mut stamp, call.shard) {
            stamp.acknowledged = self.acknowledged_of(shard, *stamp);
        }
        let attempt = self.send(Errand::Call(id), target, Request::Call { payload, stamp }, timeout);
        if let Some(call) = self.calls.get_mut(&id) {
            call.stamp = stamp;
            call.phase = Phase::Flying(attempt);
        }
        self.set_call_timer(id, Some(self.now + timeout));
    }

    /// Takes in how the call's sending ended.
    pub(super) fn call_ended(&mut self, id: CallId, attempt: &Attempt, ending: Ending<A>) {
        match ending {
            Ending::Answered(Answer::Call { answer, served_by }) => {
                self.call_answered(id, attempt, answer, served_by);
            }
            Ending::Answered(
                Answer::Opened { .. } | Answer::KeptAlive { .. } | Answer::Closed | Answer::Table(_),
            ) => {
                let address = self.routing.address(attempt.target);
                let detail = "the answer is to something else".to_owned();
                self.call_lost(id, attempt, Setback { address, cause: Cause::Unanswered, detail });
            }
            Ending::Refused(refusal, setback) => self.call_refused(id, attempt, &refusal, setback),
            Ending::Lost(setback) => self.call_lost(id, attempt, setback),
        }
    }

    /// The answer goes to the caller; who gave it is believed to lead, and the session is known to have been
    /// alive when the request left.
    fn call_answered(&mut self, id: CallId, attempt: &Attempt, answer: A, served_by: Option<NodeId>) {
        let Some(call) = self.calls.get(&id) else { return };
        let (shard, stamp) = (call.shard, call.stamp);
        let led = call.spec.kind != Kind::ReadAnywhere;
        if let (Some(shard), Some(node), true) = (shard, served_by, led) {
            self.believe_leader(shard, node);
        }
        if let (Some(shard), Some(stamp)) = (shard, stamp)
            && let Some(session) = self.sessions.get_mut(&shard)
        {
            session.touch(stamp.session, attempt.sent_at);
        }
        self.finish(id, Ok(answer));
    }

    /// This sending was not executed: what comes next depends on the reason, and on whether an earlier one
    /// was lost.
    fn call_refused(&mut self, id: CallId, attempt: &Attempt, refusal: &Refusal, setback: Setback) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.tries.last = Some(setback);
        let advice = refusal.reason.advice();
        call.tries.avoid = (advice == Advice::Elsewhere).then_some(attempt.target);
        let lost = call.tries.lost > 0;
        match advice {
            Advice::Elsewhere | Advice::Slower => self.pause(id, attempt.target, Some(refusal)),
            // The stored answer may be had once there is room again.
            Advice::Room if lost => self.pause(id, attempt.target, Some(refusal)),
            Advice::Room => self.end(id),
            Advice::NewSession => self.call_without_session(id, attempt.target),
            Advice::Unknowable => {
                call.tries.lost += 1;
                self.end(id);
            }
            Advice::Never => self.end(id),
        }
    }

    /// The node does not know the session: a lost sending may have been executed while it still did.
    fn call_without_session(&mut self, id: CallId, asked: Target) {
        let may_be_executed = self.may_be_executed(id);
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(stamp), Some(shard)) = (call.stamp, call.shard) else { return self.end(id) };
        let first_time = call.tries.rounds == 0;
        call.tries.rounds += 1;
        if !may_be_executed {
            call.stamp = None;
        }
        self.session_is_gone(shard, stamp.session);
        match (may_be_executed, first_time) {
            (true, _) => self.end(id),
            (false, true) => self.advance(id),
            (false, false) => self.pause(id, asked, None),
        }
    }

    /// This sending may have been executed, or may yet be: from here on nothing but an answer tells.
    fn call_lost(&mut self, id: CallId, attempt: &Attempt, setback: Setback) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.tries.last = Some(setback);
        call.tries.avoid = Some(attempt.target);
        call.tries.lost += 1;
        if call.spec.kind == Kind::WriteOnce {
            return self.end(id);
        }
        #[cfg(debug_assertions)]
        if self.config.planted_bug == Some(PlantedBug::ResendWithNewSequence) {
            let (stamp, shard) = (call.stamp.take(), call.shard);
            self.sequence_finished(shard, stamp);
        }
        self.pause(id, attempt.target, None);
    }

    /// Waits before the next sending, or ends where there is no time left for one.
    fn pause(&mut self, id: CallId, asked: Target, refusal: Option<&Refusal>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let delay =
            delay_after(&self.config, &self.routing, &mut self.chance, &mut call.tries, asked, refusal);
        let at = self.now + delay;
        if at >= call.deadline {
            return self.end(id);
        }
        call.phase = Phase::Pause;
        if delay.is_zero() {
            return self.advance(id);
        }
        self.set_call_timer(id, Some(at));
    }

    /// Its time has come: the sending under way is given up, the next one is made, or the deadline has
    /// passed.
    pub(super) fn call_due(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        match call.phase {
            Phase::Flying(attempt) => self.attempt_timed_out(attempt),
            Phase::Pause if self.now < call.deadline => self.advance(id),
            Phase::Pause | Phase::Table | Phase::Session => self.end(id),
        }
    }

    /// Ends a call for good without an answer.
    pub(super) fn end(&mut self, id: CallId) {
        let may_be_executed = self.may_be_executed(id);
        let Some(call) = self.calls.get(&id) else { return };
        let last = call.tries.last.clone().or_else(|| match call.phase {
            Phase::Table => self.refresh.last(),
            Phase::Session => call.shard.and_then(|shard| self.sessions.get(&shard)?.last()),
            Phase::Pause | Phase::Flying(_) => None,
        });
        let result = if may_be_executed { Error::CheckOutcome { last } } else { error_of(last) };
        self.finish(id, Err(result));
    }

    /// Whether a write may have been, or may yet be, executed.
    fn may_be_executed(&self, id: CallId) -> bool {
        #[cfg(debug_assertions)]
        if self.config.planted_bug == Some(PlantedBug::NotExecutedAfterLostSending) {
            return false;
        }
        let changes = |kind| matches!(kind, Kind::Write | Kind::WriteOnce);
        self.calls.get(&id).is_some_and(|call| changes(call.spec.kind) && call.tries.lost > 0)
    }

    /// Tells the caller, and makes room for others. The one way out for every call.
    fn finish(&mut self, id: CallId, result: Result<A, Error>) {
        let Some(call) = self.calls.remove(&id) else { return };
        assert!(
            call.stamp.is_none() || call.spec.kind == Kind::Write,
            "{id:?}: {:?} of no write",
            call.stamp
        );
        self.timers.remove(&(call.wake_at, Timer::Call(id)));
        if let Phase::Flying(attempt) = call.phase {
            self.attempts.remove(&attempt);
        }
        if let (Phase::Session, Some(shard)) = (call.phase, call.shard) {
            self.leave_queue(shard, id);
        }
        self.actions.push_back(Action::Finish { call: id, result });
        self.sequence_finished(call.shard, call.stamp);
        self.close_sessions_if_done();
    }

    /// Sets when the call is looked at again: at its deadline at the latest.
    fn set_call_timer(&mut self, id: CallId, at: Option<Duration>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        self.timers.remove(&(call.wake_at, Timer::Call(id)));
        call.wake_at = at.map_or(call.deadline, |at| at.min(call.deadline));
        assert!(
            call.wake_at > self.now,
            "{id:?} is to be looked at at {:?}, now {:?}",
            call.wake_at,
            self.now
        );
        self.timers.insert((call.wake_at, Timer::Call(id)));
    }

    /// Goes on with the calls that waited for a table.
    pub(super) fn table_came(&mut self) {
        let waiting: Vec<_> =
            self.calls.iter().filter(|(_, call)| call.phase == Phase::Table).map(|(id, _)| *id).collect();
        for id in waiting {
            self.advance(id);
        }
    }

    /// Ends every call that waits for the session of a shard, for the reason that the session could not be
    /// had.
    pub(super) fn end_queued(&mut self, queued: BTreeSet<CallId>, setback: &Setback) {
        for id in queued {
            if let Some(call) = self.calls.get_mut(&id) {
                call.tries.last = Some(setback.clone());
            }
            self.end(id);
        }
    }
}

/// What to tell a caller whose call was certainly not executed.
fn error_of(last: Option<Setback>) -> Error {
    let Some(last) = last else { return Error::TryAgain { last: None } };
    let Cause::Refused(reason) = last.cause else { return Error::TryAgain { last: Some(last) } };
    match reason.advice() {
        Advice::Elsewhere | Advice::NewSession => Error::TryAgain { last: Some(last) },
        Advice::Slower => Error::SlowDown { last: Some(last) },
        Advice::Room => Error::FreeSpace { last },
        Advice::Never | Advice::Unknowable => Error::ChangeRequest { last },
    }
}
