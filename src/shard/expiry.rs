//! When a session has been silent for its whole time to live: the leader's clock, outside the state.
//!
//! The state machine reads no clock. The leader notes when it first saw each session's last activity; where
//! that stays the same for a whole time to live it proposes `Expire { session, last_active_index }`, which
//! applies only if nothing has touched the session since. A new leader starts every session's time afresh, so
//! a session may live longer than its time to live, never shorter. A time in which this process did not run
//! counts for nothing: what clients sent meanwhile is still to be heard.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::{Index, SessionId};
use crate::kv::Command;
use crate::shard::replica::{Replica, Turn};

/// How often sessions are looked at, with the next tick: by so much longer may one live.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The leader's clock of its shard's sessions.
#[derive(Default)]
pub(crate) struct SessionClock {
    seen: BTreeMap<SessionId, Seen>,
    looked_at: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Seen {
    last_active: Index,
    since: Instant,
    is_proposed: bool,
}

impl SessionClock {
    /// Starts every session's time afresh.
    pub(crate) fn restart(&mut self) {
        self.seen.clear();
        self.looked_at = None;
    }

    /// The sessions that have been silent for their whole time to live, each named once.
    fn look(
        &mut self,
        sessions: impl Iterator<Item = (SessionId, Duration, Index)>,
        now: Instant,
    ) -> Vec<(SessionId, Index)> {
        let since_look = self.looked_at.map_or(LOOK_EVERY, |at| now.since(at));
        if since_look < LOOK_EVERY {
            return Vec::new();
        }
        self.looked_at = Some(now);
        // Of a time in which this process did not run, clients could not be heard: it is nobody's silence.
        let stopped = since_look.saturating_sub(2 * LOOK_EVERY);
        let mut seen = BTreeMap::new();
        let mut expired = Vec::new();
        for (session, ttl, last_active) in sessions {
            let fresh = Seen { last_active, since: now, is_proposed: false };
            let mut entry = match self.seen.get(&session) {
                Some(entry) if entry.last_active == last_active => {
                    Seen { since: entry.since + stopped, ..*entry }
                }
                Some(_) | None => fresh,
            };
            if now.since(entry.since) >= ttl && !entry.is_proposed {
                entry.is_proposed = true;
                expired.push((session, last_active));
            }
            seen.insert(session, entry);
        }
        self.seen = seen;
        expired
    }
}

impl<E: Env> Replica<E> {
    /// Proposes the end of the sessions that have been silent for too long. Leaders only.
    pub(crate) fn expire_sessions(&mut self, turn: &mut Turn<'_>) {
        if self.lane.is_exhausted() {
            return;
        }
        let sessions = self
            .state
            .sessions()
            .map(|(session, ttl_ms, last)| (session, Duration::from_millis(ttl_ms), last));
        for (session, last_active_index) in self.sessions.look(sessions, turn.now) {
            let mut data = Vec::new();
            Command::Expire { session, last_active_index }.encode(&mut data);
            if self.raft.propose(data.into()).is_err() {
                // Leadership is on its way elsewhere, or the log is full: the next look starts over.
                self.sessions.restart();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    type Named = Vec<(SessionId, Index)>;

    /// Looks four times a second from `from` to just before `until`, in milliseconds.
    fn look(clock: &mut SessionClock, last: u64, from: u64, until: u64) -> Named {
        let session = || std::iter::once((SessionId(1), TTL, Index(last)));
        let times = (from..until).step_by(250);
        times.flat_map(|ms| clock.look(session(), Instant(ms * 1000))).collect()
    }

    #[test]
    fn a_silent_session_is_named_once_after_its_time_to_live() {
        let mut clock = SessionClock::default();
        assert_eq!(look(&mut clock, 1, 0, 1000), []);
        assert_eq!(look(&mut clock, 2, 1000, 2000), [], "it was touched");
        assert_eq!(look(&mut clock, 2, 2000, 2001), [(SessionId(1), Index(2))]);
        assert_eq!(look(&mut clock, 2, 2250, 9000), [], "proposed already");
    }

    #[test]
    fn a_stop_of_the_process_is_not_the_silence_of_a_client() {
        let mut clock = SessionClock::default();
        assert_eq!(look(&mut clock, 1, 0, 500), []);
        assert_eq!(look(&mut clock, 1, 5250, 5500), [], "the process was stopped for 5 s");
        assert_eq!(look(&mut clock, 1, 5500, 5750), [(SessionId(1), Index(1))]);
    }

    #[test]
    fn a_new_leader_starts_afresh() {
        let mut clock = SessionClock::default();
        assert_eq!(look(&mut clock, 1, 0, 1000), []);
        clock.restart();
        assert_eq!(look(&mut clock, 1, 1500, 2500), []);
        assert_eq!(look(&mut clock, 1, 2500, 2501), [(SessionId(1), Index(1))]);
    }
}
