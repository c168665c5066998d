//! When a session has been silent for its whole time to live: the leader's clock, outside the state.
//!
//! The state machine reads no clock. The leader notes when it first saw each session's last activity; where
//! that stays the same for a whole time to live it proposes `Expire { session, last_active_index }`, which
//! applies only if nothing has touched the session since. A new leader starts every session's time afresh, so
//! a session may live longer than its time to live, never shorter.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::{Index, SessionId};
use crate::kv::Command;
use crate::shard::replica::{Replica, Turn};

/// How often sessions are looked at: by so much longer may one live.
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
        if self.looked_at.is_some_and(|at| now.since(at) < LOOK_EVERY) {
            return Vec::new();
        }
        self.looked_at = Some(now);
        let mut seen = BTreeMap::new();
        let mut expired = Vec::new();
        for (session, ttl, last_active) in sessions {
            let fresh = Seen { last_active, since: now, is_proposed: false };
            let mut entry = match self.seen.get(&session) {
                Some(entry) if entry.last_active == last_active => *entry,
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

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn a_silent_session_is_named_once_after_its_time_to_live() {
        let mut clock = SessionClock::default();
        let session = |last| std::iter::once((SessionId(1), TTL, Index(last)));
        assert_eq!(clock.look(session(1), at(0)), []);
        assert_eq!(clock.look(session(1), at(900)), []);
        assert_eq!(clock.look(session(2), at(1300)), [], "it was touched");
        assert_eq!(clock.look(session(2), at(2200)), []);
        assert_eq!(clock.look(session(2), at(2300)), [], "looked at a moment ago");
        assert_eq!(clock.look(session(2), at(2500)), [(SessionId(1), Index(2))]);
        assert_eq!(clock.look(session(2), at(3500)), [], "proposed already");
    }

    #[test]
    fn a_new_leader_starts_afresh() {
        let mut clock = SessionClock::default();
        let session = || std::iter::once((SessionId(1), TTL, Index(1)));
        assert_eq!(clock.look(session(), at(0)), []);
        clock.restart();
        assert_eq!(clock.look(session(), at(1500)), []);
        assert_eq!(clock.look(session(), at(2500)), [(SessionId(1), Index(1))]);
    }
}
