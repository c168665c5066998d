//! Whether the replicas of a shard hold the same state: their digests after the same entry, compared by the
//! leader.
//!
//! ```text
//!  every replica: the digest after every so many entries, the last few kept; and the one of now
//!  follower ── now and then: those ──► leader ─┬─ one is alone against a majority ──► Rebuild: it is spoiled
//!                                              ├─ the leader is: spoils its own state, and steps aside
//!                                              └─ no majority: said, and nothing else
//! ```
//!
//! The majority is right, whoever leads: a leader that had others follow its own digest would spread what a
//! bad memory did to it.
//!
//! Invariants: a state is given up only for a digest that a majority of the voters, counted by node, has at
//! the very entry; who is told so looks at his own digest there first.
//!
//! It lives with the replica, and costs one comparison every so many entries.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::env::{Env, Instant};
use crate::ids::{Index, NodeId};
use crate::raft::Role;
use crate::route::parcel::{DIGESTS_MAX, Digest, DigestsTold, Parcel, Rebuild};
use crate::shard::config::PlantedBug;
use crate::shard::repair::Spoil;
use crate::shard::replica::{Replica, Turn};

/// Entries from one digest that is kept to the next.
const STRIDE: u64 = 1024;

/// Digests kept. With the one of now they fit a parcel.
const KEPT_MAX: usize = DIGESTS_MAX - 1;

/// How often a follower tells its digests.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// The digests of a replica, and, as a leader, those of the others.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    kept: VecDeque<Digest>,
    told_at: Option<Instant>,
    others: BTreeMap<NodeId, Vec<Digest>>,
    /// The last entry after which no majority was found, so that it is said once.
    disputed: Index,
}

impl<E: Env> Replica<E> {
    /// An entry was applied: its digest may be one of those that are kept.
    pub(crate) fn keep_digest(&mut self) {
        let index = self.state.applied();
        if index.0.is_multiple_of(STRIDE) {
            let kept = &mut self.digests.kept;
            if kept.len() >= KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(Digest { index, digest: self.state.digest() });
        }
    }

    fn own_digests(&self) -> Vec<Digest> {
        let now = Digest { index: self.state.applied(), digest: self.state.digest() };
        self.digests.kept.iter().copied().filter(|kept| kept.index != now.index).chain([now]).collect()
    }

    /// Tells the leader, now and then.
    pub(crate) fn tell_digests(&mut self, turn: &mut Turn<'_>) {
        let is_due = self.digests.told_at.is_none_or(|told| turn.now.since(told) >= TELL_EVERY);
        if !is_due || self.repair.is_spoiled() || self.state.applied() == Index(0) {
            return;
        }
        self.digests.told_at = Some(turn.now);
        let own = turn.config.node();
        if let Some(leader) = self.raft.leader().filter(|leader| *leader != own) {
            self.digests.others.clear();
            let told = DigestsTold { shard: self.shard, node: own, digests: self.own_digests() };
            turn.out.parcels.push((leader, Parcel::Digests(told)));
        }
    }

    /// A follower told its digests.
    pub(crate) fn digests_told(&mut self, told: DigestsTold, turn: &mut Turn<'_>) {
        let is_voter = self.raft.config().voters.contains(&told.node) && told.node != turn.config.node();
        if self.raft.role() != Role::Leader || !is_voter || self.repair.is_spoiled() {
            return;
        }
        let indexes: Vec<Index> = told.digests.iter().map(|digest| digest.index).collect();
        self.digests.others.insert(told.node, told.digests);
        let own = self.own_digests();
        for index in indexes {
            if self.repair.is_spoiled() {
                return;
            }
            self.compare(&own, index, turn);
        }
    }

    fn compare(&mut self, own: &[Digest], index: Index, turn: &mut Turn<'_>) {
        let at = |digests: &[Digest]| digests.iter().find(|digest| digest.index == index).map(|d| d.digest);
        let others = self.digests.others.iter().map(|(node, digests)| (*node, at(digests)));
        let all = others.chain([(turn.config.node(), at(own))]);
        let votes: Vec<(NodeId, u64)> = all.filter_map(|(node, digest)| Some((node, digest?))).collect();
        let voters = self.raft.config().voters.len();
        let count = |digest: u64| votes.iter().filter(|vote| vote.1 == digest).count();
        let mut majority = votes.iter().map(|vote| vote.1).find(|digest| count(*digest) > voters / 2);
        if turn.config.is_planted(PlantedBug::DigestOfLeaderCounts) {
            majority = at(own);
        }
        let Some(majority) = majority else {
            let is_split = votes.len() == voters && votes.iter().any(|vote| vote.1 != votes[0].1);
            if is_split && index > self.digests.disputed {
                self.digests.disputed = index;
                let shard = self.shard;
                tracing::error!(%shard, %index, ?votes, "replicas differ, and no majority agrees");
            }
            return;
        };
        for (node, digest) in votes.into_iter().filter(|vote| vote.1 != majority) {
            if node == turn.config.node() {
                return self.spoil(Spoil::Digest { index, own: digest, majority }, turn);
            }
            let rebuild = Rebuild { shard: self.shard, from: turn.config.node(), index, digest: majority };
            turn.out.parcels.push((node, Parcel::Rebuild(rebuild)));
        }
    }

    /// The leader says that a majority has another digest.
    pub(crate) fn rebuild(&mut self, told: Rebuild, turn: &mut Turn<'_>) {
        if self.raft.leader() != Some(told.from) || self.repair.is_spoiled() {
            return;
        }
        let own = self.own_digests().into_iter().find(|digest| digest.index == told.index);
        if let Some(own) = own.filter(|own| own.digest != told.digest) {
            let (index, own, majority) = (told.index, own.digest, told.digest);
            self.spoil(Spoil::Digest { index, own, majority }, turn);
        }
    }
}
