//! What a runner gives its scrub to look at, and what it does about what that finds.

use std::rc::Rc;

use crate::env::Env;
use crate::ids::{LaneId, ShardId};
use crate::log::{Damage, DamageNews, SegmentScrub};
use crate::shard::end::RunEnd;
use crate::shard::scrub::{self, Scrubbed};

use super::{Inner, Runner};

impl<E: Env> Runner<E> {
    /// Begins to look at this core's files, for as long as it runs.
    pub(super) fn start_scrub(&self) {
        let inner = self.inner.borrow();
        let settings = (inner.config.core(), inner.config.scrub);
        self.env.spawn(scrub::run(self.env.clone(), self.clone(), settings));
    }

    /// The shards of this core.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.inner.borrow().replicas.keys().copied().collect()
    }

    /// The table of a shard as it is now.
    pub(crate) fn table_to_scrub(&self, shard: ShardId) -> Option<Scrubbed<E>> {
        let inner = self.inner.borrow();
        let replica = inner.replicas.get(&shard)?;
        replica.table.clone().zip(replica.state.table().map(Rc::clone))
    }

    /// The segments of each lane that nobody writes to any more.
    pub(crate) fn segments_to_scrub(&self) -> Vec<(LaneId, Vec<SegmentScrub<E>>)> {
        self.inner.borrow().lanes.iter().map(|(id, lane)| (*id, lane.scrubs())).collect()
    }

    /// Whether the runner takes no more turns, or is about to.
    pub(crate) fn has_stopped(&self) -> bool {
        self.inner.borrow().has_stopped
    }

    /// A lane's log is not what it has to be. Alone, that is the end. With peers, those shards of the lane
    /// that need what is damaged make tables of what they hold in memory and let go of the log up to there.
    pub(crate) fn log_damaged(&self, lane: LaneId, source: Damage) {
        let mut inner = self.inner.borrow_mut();
        let Inner { config, lanes, end, .. } = &mut *inner;
        if config.layout.voters().len() == 1 {
            end.get_or_insert(RunEnd::LogDamaged { lane, source });
        } else if lanes.get(&lane).map(|lane| lane.note_damage(&source)) == Some(DamageNews::New) {
            tracing::error!(%lane, %source, "the log is damaged: what needs it is made into tables");
        }
        drop(inner);
        self.wake.raise();
    }
}
