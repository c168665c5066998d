//! Fetching the routing table: with the first call, and when somebody names a node that the table does not.
//!
//! Leaders are learnt from the answers themselves, so a table is asked for rarely: one request at a time, and
//! with a pause between two. Without a table it is asked for until it comes, as long as a call is under way.
//!
//! What it deliberately does not do: refresh on a timer.

use std::time::Duration;

use crate::client::backoff::Tries;
use crate::client::error::{Cause, Setback};
use crate::client::message::{Answer, AttemptId, Request};
use crate::client::policy::{Attempt, Ending, Errand, Policy, Timer, delay_after};

/// The request for the routing table, if there is one.
#[derive(Default)]
pub(super) struct Refresh {
    flying: Option<AttemptId>,
    asked_at: Option<Duration>,
    wake_at: Option<Duration>,
    tries: Tries,
}

impl Refresh {
    /// What stood in the way of the last request.
    pub(super) fn last(&self) -> Option<Setback> {
        self.tries.last.clone()
    }
}

impl<P: Clone, A> Policy<P, A> {
    /// Asks for the table where there is none.
    pub(super) fn ask_for_table_once(&mut self) {
        if !self.routing.has_table() {
            self.ask_for_table();
        }
    }

    /// Asks for the table, unless it is being asked for, at once or after the pause since the last time.
    pub(super) fn ask_for_table(&mut self) {
        if self.refresh.flying.is_some() || self.refresh.wake_at.is_some() {
            return;
        }
        let earliest = self.refresh.asked_at.map_or(Duration::ZERO, |at| at + self.config.refresh_pause);
        if earliest <= self.now || !self.routing.has_table() {
            return self.send_for_table();
        }
        self.set_refresh_timer(Some(earliest));
    }

    /// Asks any node: all of them know the table.
    fn send_for_table(&mut self) {
        let random = self.chance.draw();
        let target = self.routing.pick(None, self.refresh.tries.avoid, self.now, random);
        let timeout = self.config.attempt_timeout;
        let attempt = self.send(Errand::Shards, target, Request::Shards, timeout);
        self.refresh.flying = Some(attempt);
        self.refresh.asked_at = Some(self.now);
        self.set_refresh_timer(Some(self.now + timeout));
    }

    /// Its time has come: give up on what flies, or send again where somebody still needs it.
    pub(super) fn refresh_due(&mut self) {
        self.refresh.wake_at = None;
        match self.refresh.flying {
            Some(attempt) => self.attempt_timed_out(attempt),
            None if self.calls.is_empty() => {}
            None => self.send_for_table(),
        }
    }

    /// Takes in how the request ended. A table that cannot be used counts as no answer.
    pub(super) fn table_ended(&mut self, attempt: &Attempt, ending: Ending<A>) {
        self.refresh.flying = None;
        self.set_refresh_timer(None);
        let (refusal, setback) = match ending {
            Ending::Answered(Answer::Table(table)) => {
                self.refresh.tries = Tries::default();
                self.routing.install(table);
                return self.table_came();
            }
            Ending::Answered(
                Answer::Call { .. } | Answer::Opened { .. } | Answer::KeptAlive { .. } | Answer::Closed,
            ) => {
                let address = self.routing.address(attempt.target);
                let detail = "the answer is to something else".to_owned();
                (None, Setback { address, cause: Cause::Unanswered, detail })
            }
            Ending::Refused(refusal, setback) => (Some(refusal), setback),
            Ending::Lost(setback) => (None, setback),
        };
        let tries = &mut self.refresh.tries;
        tries.last = Some(setback);
        tries.avoid = Some(attempt.target);
        let (asked, refusal) = (attempt.target, refusal.as_ref());
        let delay = delay_after(&self.config, &self.routing, &mut self.chance, tries, asked, refusal);
        self.set_refresh_timer(Some(self.now + delay.max(self.config.backoff.first)));
    }

    /// Sets when the request is looked at again.
    fn set_refresh_timer(&mut self, at: Option<Duration>) {
        let old = std::mem::replace(&mut self.refresh.wake_at, at);
        self.set_timer(Timer::Refresh, old, at);
    }
}
