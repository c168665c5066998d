//! Leadership spread over the nodes by one rule, and handed over before a node goes away.
//!
//! The preferred leader of a shard is fixed by its number. Only the leader acts, when the preferred node is
//! caught up, hears it, and is willing (its disk healthy, not draining); never within 30 s of leadership
//! having moved, so that two nodes cannot play ping-pong. A leader whose disk is short prefers any node whose
//! disk is not.

use std::time::Duration;

use crate::env::{Env, Instant};
use crate::raft::{Peer, Role, Willingness};
use crate::shard::replica::{Replica, Turn};
use crate::shard::space::Level;

/// How often a leader looks whether another should lead.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long leadership rests after it moved, before a node whose disk is short hands it on.
const SHORT_REST: Duration = Duration::from_secs(5);

/// How many entries a follower may lack that is given leadership: it gets them while proposals wait.
const BEHIND_MAX: u64 = 1024;

/// When leadership last moved and was last looked at.
pub(crate) struct Spread {
    looked_at: Instant,
    moved_at: Option<Instant>,
    is_draining: bool,
}

impl Spread {
    pub(crate) fn new(now: Instant) -> Self {
        Self { looked_at: now, moved_at: None, is_draining: false }
    }

    /// Leadership has just moved, or was about to.
    pub(crate) fn moved(&mut self, now: Instant) {
        self.moved_at = Some(now);
    }

    fn is_time(&mut self, now: Instant, rest: Duration) -> bool {
        if now.since(self.looked_at) < LOOK_EVERY {
            return false;
        }
        self.looked_at = now;
        self.moved_at.is_none_or(|at| now.since(at) >= rest)
    }
}

impl<E: Env> Replica<E> {
    /// Hands leadership to the preferred node where that is due. Leaders only.
    pub(crate) fn spread_leadership(&mut self, turn: &mut Turn<'_>) {
        if self.spread.is_draining || self.lane.is_exhausted() {
            // Refused while a transfer is under way or nobody is caught up: the next tick asks again.
            let _ = self.raft.transfer(None);
            return;
        }
        let (own, preferred) = (turn.config.node(), turn.config.layout.preferred(self.shard));
        let is_short = self.room.level != Level::Enough;
        let rest = if is_short { SHORT_REST } else { turn.config.times.spread_rest };
        if (preferred == own && !is_short) || !self.spread.is_time(turn.now, rest) {
            return;
        }
        let last = self.raft.last_index();
        let is_ready = |peer: &Peer| {
            let is_close = last.0 - peer.matched.0.min(last.0) <= BEHIND_MAX;
            peer.is_active && peer.willing == Willingness::Willing && is_close
        };
        let ready = self.raft.peers().into_iter().filter(is_ready).map(|peer| peer.id);
        // From a disk that is short to any that is not.
        let wanted = ready.filter(|id| is_short || *id == preferred);
        let Some(to) = wanted.max_by_key(|id| *id == preferred) else { return };
        // One that comes to nothing counts too: proposals wait while it is under way.
        self.spread.moved(turn.now);
        if self.raft.transfer(Some(to)).is_ok() {
            tracing::debug!(shard = %self.shard, %to, is_short, "leadership goes to where it is better off");
        }
    }

    /// The node goes away: from now on this replica hands leadership over and takes none.
    pub(crate) fn drain(&mut self) {
        self.spread.is_draining = true;
        self.tell_willingness();
    }

    /// Says whether this replica would lead. It would not while the node goes away, while its disk hangs or
    /// has no room for the log, before it has applied what it knew to be committed when it started, nor
    /// without a state that it can trust: nobody would be answered before that.
    pub(crate) fn tell_willingness(&mut self) {
        let is_behind = self.state.applied() < self.committed_at_start;
        let is_able = !is_behind && !self.repair.is_spoiled();
        let is_willing = !self.spread.is_draining && !self.raft.disk_stalled() && is_able;
        self.raft.set_willing(match self.room_willingness() {
            willing if is_willing => willing,
            willing if willing.has_room() => Willingness::Draining,
            _ => Willingness::Full,
        });
    }

    /// Whether the node may go as far as this replica is concerned: it does not lead, or nobody would take
    /// over.
    pub(crate) fn is_drained(&self) -> bool {
        let takes_over = |peer: &Peer| peer.is_active && peer.willing.may_lead();
        self.raft.role() != Role::Leader || !self.raft.peers().iter().any(takes_over)
    }
}
