//! How a runner looks at the disk, and what the look leads to; see [`crate::shard::space`].

use crate::env::{Env, Instant};
use crate::ids::CoreId;
use crate::log::Space;
use crate::shard::event::MeshItem;
use crate::shard::space::{Level, Look, Reserve, Room};

use super::{Inner, Runner};

impl<E: Env> Runner<E> {
    /// Looks at the disk in a task of its own, where it is time.
    pub(super) fn look_at_disk(&self, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        let Some(dir) = inner.lanes.values().next().map(|lane| lane.dir().to_path_buf()) else { return };
        if !inner.gauge.begin_look(now) {
            return;
        }
        drop(inner);
        let runner = self.clone();
        self.env.spawn(async move {
            let free = runner.env.free_bytes(&dir).await.inspect_err(|source| {
                tracing::debug!(dir = %dir.display(), %source, "the file system does not say what is free");
            });
            runner.inner.borrow_mut().disk_seen(free.ok(), runner.env.now());
            runner.outgoing.raise();
        });
    }

    /// Another core of this node says what it keeps free.
    pub(super) fn reserve_told(&self, core: CoreId, bytes: u64) {
        self.inner.borrow_mut().gauge.set_other(core, bytes);
    }
}

impl<E: Env> Inner<E> {
    fn disk_seen(&mut self, free: Option<u64>, now: Instant) {
        let (own, cores) = (self.reserve().bytes(), self.config.layout.cores);
        if self.gauge.set_own(own) {
            let from = self.config.core();
            for core in (0..cores).map(CoreId).filter(|core| *core != from) {
                self.push_mesh(core, MeshItem::Reserve { from, bytes: own });
            }
        }
        let watermark = self.gauge.watermark(cores, self.config.disk_reserve_bytes);
        let before = self.gauge.note(Look { free, watermark, lanes: self.level_of_lanes() }, now);
        let room = self.gauge.room();
        self.replicas.values_mut().for_each(|replica| replica.note_room(room, &self.config));
        if before.is_some() {
            self.say_room(room);
        }
    }

    /// What this core keeps free for itself.
    fn reserve(&self) -> Reserve {
        let changes_min = self.config.snapshots.changes_bytes_max.saturating_mul(2) as u64;
        let replicas = self.replicas.values();
        let largest = replicas.clone().map(|replica| replica.table_bytes()).max().unwrap_or(0);
        // What is written of a table is the reserve at its work.
        let written: u64 = replicas.clone().map(|replica| replica.changes.written.get()).sum();
        Reserve {
            table: largest.saturating_sub(written),
            changes: replicas.map(|replica| replica.untabled_bytes()).sum::<u64>().max(changes_min),
            segments: self.lanes.values().map(|lane| lane.segment_bytes()).sum(),
            lanes: self.lanes.len() as u64,
        }
    }

    fn level_of_lanes(&self) -> Level {
        let level = |lane: &crate::log::Lane<E>| match lane.status().space {
            Space::Enough => Level::Enough,
            Space::Short if lane.is_exhausted() => Level::Exhausted,
            Space::Short => Level::Reserved,
        };
        self.lanes.values().map(level).max().unwrap_or_default()
    }

    fn say_room(&self, Room { level, free, watermark }: Room) {
        let (core, dir) = (self.config.core(), self.lanes.values().next().map(|lane| lane.dir().display()));
        let dir = dir.map(|dir| dir.to_string()).unwrap_or_default();
        match level {
            Level::Enough => tracing::info!(%core, dir, free, watermark, "the disk has room again"),
            Level::Reserved => tracing::warn!(
                %core, dir, free, watermark,
                "the disk is full but for the reserve: what makes the data grow is refused"
            ),
            Level::Exhausted => tracing::error!(
                %core, dir, free, watermark,
                "the disk is full: no more is written to the log until there is room"
            ),
        }
    }
}
