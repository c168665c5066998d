//! What a runner tells of itself and asks of the node's other cores.

use crate::env::Env;
use crate::env::signal::{AnswerReceiver, answer};
use crate::env::stages::Stage;
use crate::ids::{CoreId, LaneId};
use crate::log::Lane;
use crate::shard::event::MeshItem;
use crate::shard::status::{CoreStages, CoreStatus, LaneReport, ReplicaReport};

use super::Inner;

impl<E: Env> Inner<E> {
    pub(super) fn ask_status(&mut self, core: CoreId) -> AnswerReceiver<CoreStatus> {
        let (sender, receiver) = answer();
        self.last_question += 1;
        self.questions.retain(|_, question| question.is_awaited());
        self.questions.insert(self.last_question, sender);
        let ask = MeshItem::StatusAsk { from: self.config.core(), number: self.last_question };
        self.push_mesh(core, ask);
        receiver
    }

    pub(super) fn status(&self) -> CoreStatus {
        let lane_of = |shard| self.config.layout.lane_of(shard);
        let fetch_of = |shard| self.fetching.as_ref().and_then(|fetching| fetching.progress_of(shard));
        CoreStatus {
            replicas: self
                .replicas
                .values()
                .map(|replica| ReplicaReport::of(replica, lane_of(replica.shard), fetch_of(replica.shard)))
                .collect(),
            lanes: self.lanes.iter().map(|(id, lane)| self.lane_report(lane, *id)).collect(),
            stages: self.core_stages(),
        }
    }

    /// What the stages came to, those of the lanes among them.
    fn core_stages(&self) -> CoreStages {
        let mut tallies = Box::new(self.stages.tallies());
        for (batch, write) in self.lanes.values().map(Lane::tallies) {
            tallies[Stage::Batch as usize].merge(&batch);
            tallies[Stage::Write as usize].merge(&write);
        }
        CoreStages { core: self.config.core(), tallies }
    }

    fn lane_report(&self, lane: &Lane<E>, id: LaneId) -> LaneReport {
        let of_lane = || self.replicas.values().filter(|of| self.config.layout.lane_of(of.shard) == id);
        let damaged = of_lane().map(|replica| replica.repair.damaged).sum();
        let repaired = of_lane().map(|replica| replica.repair.repaired).sum();
        LaneReport::of(lane, (id, self.config.core()), self.gauge.room(), (damaged, repaired))
    }
}
