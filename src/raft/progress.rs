//! What a leader knows of one follower, and what it has under way to it.
//!
//! ```text
//!             accepted
//!   Probe ───────────────► Replicate      one append at a time, to find where the logs match;
//!     ▲                        │          then as many as the window holds
//!     └────────────────────────┘
//!     ▲ rejected, or something sent was lost
//!     │
//!     │ a table was sent, or could not be ──── Snapshot ────► Replicate
//!     │                                          ▲       it holds all before the log's beginning
//!     └──── what comes next is not in the log ───┘
//! ```
//!
//! Invariants:
//! - `counted ≤ matched < next`; both only grow, but where the follower says that it lost entries, or shows
//!   that it was started anew: it has said that its log is durable and equal up to there. Only what it said
//!   as one that counts ([`Voice`]) is in `counted`, and only that decides anything.
//! - While it fetches a table, no entries are sent to it.
//! - What is under way is bounded by messages and bytes ([`super::Config`]).
//! - A lost append is noticed by the next heartbeat's reply: each one under way remembers the last round
//!   begun before it left, and the reply to a later round tells how far the follower's log matches. No timer,
//!   and no resend to a follower that only has a slow disk.
//!
//! Deliberately absent: the table. The driver sends it, and this only waits for what comes of it.

use std::collections::VecDeque;

use crate::ids::Index;

use super::config::Config;
use super::message::{Voice, Willingness};
use super::ready::SnapshotOutcome;

/// See the module's docs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    matched: Index,
    /// The latest round begun when `matched` last grew.
    matched_in: u64,
    /// How far of that counts towards a quorum.
    counted: Index,
    next: Index,
    mode: Mode,
    window: VecDeque<InFlight>,
    window_bytes: usize,
    fetch: FetchState,
    /// The highest commit index that was sent to it.
    pub(super) commit_told: Index,
    /// The latest round that it answered.
    pub(super) round_acked: u64,
    /// The tick at which that round was sent, where leases are in use.
    pub(super) lease_tick: Option<u64>,
    /// Ticks since it answered anything.
    pub(super) contact_ticks: u32,
    /// Ticks since it answered as one that counts.
    pub(super) counted_ticks: u32,
    /// What its last answer was worth.
    pub(super) voice: Voice,
    /// Whether it would lead.
    pub(super) willing: Willingness,
}

/// How entries are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// One append at a time.
    Probe,
    /// A window of them.
    Replicate,
    /// None: it fetches a table.
    Snapshot {
        /// The index that the table at least goes to.
        pending: Index,
    },
}

/// An append that was not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    /// Its last index: of its entries, else the one that it asks about.
    last: Index,
    bytes: usize,
    /// The latest round begun when it left.
    round: u64,
}

/// Whether entries are being read from the log for this follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FetchState {
    Idle,
    /// Entries from here were asked for.
    Asked(Index),
    /// They could not be had; tried again at the next heartbeat.
    Failed,
}

impl Progress {
    /// A follower of which nothing is known, but that it may match up to `last`.
    pub(super) fn new(last: Index) -> Self {
        Self {
            matched: Index(0),
            matched_in: 0,
            counted: Index(0),
            next: last.next(),
            mode: Mode::Probe,
            window: VecDeque::new(),
            window_bytes: 0,
            fetch: FetchState::Idle,
            commit_told: Index(0),
            round_acked: 0,
            lease_tick: None,
            contact_ticks: 0,
            counted_ticks: 0,
            voice: Voice::Whole,
            willing: Willingness::Willing,
        }
    }

    pub(super) fn matched(&self) -> Index {
        self.matched
    }

    /// How far its copies count towards a quorum.
    pub(super) fn counted(&self) -> Index {
        self.counted
    }

    pub(super) fn next(&self) -> Index {
        self.next
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Appends under way.
    pub(super) fn in_flight(&self) -> usize {
        self.window.len()
    }

    /// Whether an append should leave now.
    pub(super) fn is_due(&self, config: &Config, last: Index) -> bool {
        if self.fetch != FetchState::Idle {
            return false;
        }
        match self.mode {
            Mode::Probe => self.window.is_empty() && self.matched < last,
            Mode::Replicate => {
                let has_room = self.window.len() < config.window_messages_max;
                self.next <= last && has_room && self.window_bytes < config.window_bytes_max
            }
            Mode::Snapshot { .. } => false,
        }
    }

    /// How many bytes of entries the next append may carry.
    pub(super) fn budget_bytes(&self, config: &Config) -> usize {
        config.append_bytes_max.min(config.window_bytes_max.saturating_sub(self.window_bytes))
    }

    /// Notes an append that leaves: its last index, its bytes, and the latest round begun.
    pub(super) fn sent(&mut self, last: Index, bytes: usize, round: u64) {
        assert!(last.0 + 1 >= self.next.0, "sent to {last}, but the next is {}", self.next);
        self.window.push_back(InFlight { last, bytes, round });
        self.window_bytes += bytes;
        match self.mode {
            Mode::Probe => {}
            Mode::Replicate => self.next = last.next(),
            Mode::Snapshot { pending } => panic!("entries are sent during a table to {pending}"),
        }
    }

    /// Takes note that the follower answered, and of what its answer is worth.
    pub(super) fn answered(&mut self, voice: Voice, willing: Willingness) {
        self.contact_ticks = 0;
        self.voice = voice;
        self.willing = willing;
        if voice.counts() {
            self.counted_ticks = 0;
        }
    }

    /// One tick without an answer.
    pub(super) fn tick(&mut self) {
        self.contact_ticks = self.contact_ticks.saturating_add(1);
        self.counted_ticks = self.counted_ticks.saturating_add(1);
    }

    /// Takes an accepted append, or the like: the follower is durable and equal up to `matched`. `round` is
    /// the latest that was begun.
    pub(super) fn accept(&mut self, matched: Index, voice: Voice, round: u64) {
        if matched > self.matched {
            (self.matched, self.matched_in) = (matched, round);
        }
        if voice.counts() {
            self.counted = self.counted.max(matched);
        }
        while let Some(first) = self.window.front().filter(|first| first.last <= self.matched) {
            self.window_bytes -= first.bytes;
            self.window.pop_front();
        }
        self.reached(matched);
        self.next = self.next.max(self.matched.next());
        assert!(self.matched < self.next, "matched {} and next {}", self.matched, self.next);
    }

    /// Notes that the follower's log is equal up to an index, durable or not: enough to stop probing.
    fn reached(&mut self, verified: Index) {
        if self.mode == Mode::Probe && verified.next() >= self.next {
            self.mode = Mode::Replicate;
            let sent = self.window.back().map_or(Index(0), |last| last.last);
            self.next = verified.next().max(sent.next());
        }
    }

    /// Whether a rejection at `prev` is about something that still stands.
    pub(super) fn is_rejected_at(&self, prev: Index) -> bool {
        match self.mode {
            Mode::Probe => prev > self.matched && prev.0 == self.next.0 - 1,
            Mode::Replicate => prev > self.matched && prev < self.next,
            Mode::Snapshot { .. } => false,
        }
    }

    /// Goes back to asking, from `next` on.
    pub(super) fn probe_from(&mut self, next: Index) {
        assert!(next > self.matched, "asking at {next}, but {} is matched", self.matched);
        self.mode = Mode::Probe;
        self.next = next;
        self.window.clear();
        self.window_bytes = 0;
        self.fetch = FetchState::Idle;
    }

    /// Whether a reply to a round shows that the follower does not know any more what it acknowledged: the
    /// round was begun after that was heard of, so the follower had said it before it took the round. It was
    /// started anew, and perhaps without its last entries, of which no checksum told.
    pub(super) fn is_behind_itself(&self, round: u64, verified: Index) -> bool {
        verified < self.matched && round > self.matched_in
    }

    /// Forgets how far the follower matched: it may have lost entries, and holds surely only those up to an
    /// index. Asks anew behind it.
    pub(super) fn forget_beyond(&mut self, held: Index) {
        assert!(held < self.matched, "{held} is still held, {} was matched", self.matched);
        (self.matched, self.counted, self.commit_told) = (Index(0), Index(0), Index(0));
        self.probe_from(held.next());
    }

    /// Sends a table in place of entries: it goes to an index at least.
    pub(super) fn begin_snapshot(&mut self, pending: Index) {
        assert!(pending > self.matched, "a table to {pending}, but {} is matched", self.matched);
        self.probe_from(pending.next());
        self.mode = Mode::Snapshot { pending };
    }

    /// Takes note of what became of a table that was sent. What follows is asked with the next heartbeat, so
    /// that a failure that lasts does not make a busy loop.
    pub(super) fn end_snapshot(&mut self, outcome: SnapshotOutcome) {
        let Mode::Snapshot { pending } = self.mode else { return };
        let from = match outcome {
            SnapshotOutcome::Finished => self.matched.max(pending),
            SnapshotOutcome::Failed => self.matched,
        };
        self.probe_from(from.next());
        self.fetch_failed();
    }

    /// Ends a table's time where the follower holds all before the log's beginning.
    pub(super) fn resume_at(&mut self, log_start: Index) {
        if matches!(self.mode, Mode::Snapshot { .. }) && self.matched >= log_start {
            self.probe_from(self.matched.next());
            self.mode = Mode::Replicate;
        }
    }

    /// Takes a heartbeat's reply: up to where the logs are equal, as the follower saw it when it got this
    /// round. What left before the round and has not arrived was lost, and is sent again.
    pub(super) fn heard(&mut self, round: u64, verified: Index) {
        self.reached(verified);
        let is_lost = |sent: &InFlight| sent.round < round && sent.last > verified;
        if !self.window.iter().any(is_lost) {
            return;
        }
        match self.mode {
            Mode::Probe | Mode::Snapshot { .. } => self.probe_from(self.next),
            Mode::Replicate => self.probe_from(self.matched.max(verified).next()),
        }
    }

    /// Notes that entries from `next` on were asked of the log.
    pub(super) fn fetch_asked(&mut self) {
        assert!(self.fetch == FetchState::Idle, "two fetches at once: {:?}", self.fetch);
        self.fetch = FetchState::Asked(self.next);
    }

    /// Notes that what comes next cannot be had for now.
    pub(super) fn fetch_failed(&mut self) {
        self.fetch = FetchState::Failed;
    }

    /// Takes note of an answer from the log that begins at `first`; whether it is what is wanted now. One to
    /// an older question changes nothing.
    pub(super) fn fetch_answered(&mut self, first: Option<Index>) -> bool {
        let FetchState::Asked(asked) = self.fetch else { return false };
        if first.is_some_and(|first| first != asked) {
            return false;
        }
        self.fetch = if first.is_none() { FetchState::Failed } else { FetchState::Idle };
        first.is_some() && asked == self.next
    }

    /// Lets what could not be had be tried again.
    pub(super) fn fetch_again(&mut self) {
        if self.fetch == FetchState::Failed {
            self.fetch = FetchState::Idle;
        }
    }
}
