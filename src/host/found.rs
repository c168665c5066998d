//! What a core finds when it opens its lanes, and how long each step takes: said once, at the start.
//!
//! ```text
//!   manifest ─► segments walked ─► tables opened ─► replicas ─────────► replayed
//!            └─ log recovered ───┴─ tables opened ─┘ (the core serves) └─ log replayed
//! ```
//!
//! The log's part depends on the tail that no table holds, the tables' on their indexes and filters: none of
//! it on the data.
//!
//! It deliberately decides nothing: it counts and tells.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::env::Env;
use crate::ids::{CoreId, Index, LaneId, ShardId};
use crate::log::{Recovery, Survivor};
use crate::shard::{OpenTable, ReplicaStart, StartTable};

/// What a core found when it opened its lanes.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Lanes of this core.
    pub lanes: usize,
    /// Segments with batches in them.
    pub segments: usize,
    /// Batches in them.
    pub batches: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Torn tails that were cut.
    pub cuts: usize,
    /// What else there is to say of the lanes' files, one line each.
    pub notes: Vec<Note>,
    /// Tables that were opened.
    pub tables: usize,
    /// The bytes of their files.
    pub table_bytes: u64,
    /// The keys in them.
    pub table_keys: u64,
    /// What is kept of them in memory: indexes and filters.
    pub table_memory_bytes: usize,
    /// What is damaged in the log and was gone round, one line each.
    pub damages: Vec<String>,
    /// The shards that lost something by it: their peers have it.
    pub lost: Vec<Survivor>,
    /// Tables that the manifest names and that cannot be read: they come from peers.
    pub tables_lost: usize,
    /// What each shard's log knows to be committed: to be applied before the node is ready.
    pub committed: BTreeMap<ShardId, Index>,
    /// The entries that are to be applied for that, since no table holds them.
    pub entries_to_replay: u64,
    /// How long lanes took: manifests, segments, what was made durable of them.
    pub log_time: Duration,
    /// How long tables took.
    pub tables_time: Duration,
}

/// Something about a lane's files.
#[derive(Clone, Debug)]
pub enum Note {
    /// It was to be expected after a crash.
    Usual(String),
    /// A person should know.
    Strange(String),
}

impl Found {
    /// Counts a lane that was recovered.
    pub fn add_lane(&mut self, lane: LaneId, recovery: &Recovery, took: Duration) {
        self.lanes += 1;
        self.segments += recovery.segments;
        self.batches += recovery.batches;
        self.bytes += recovery.bytes;
        self.cuts += usize::from(recovery.cut.is_some());
        self.log_time += took;
        self.notes.extend(recovery.cut.iter().map(|cut| Note::Strange(cut.to_string())));
        self.damages.extend(recovery.damages.iter().map(ToString::to_string));
        self.lost.extend(recovery.survivors.iter().filter(|survivor| survivor.has_lost));
        let carried = recovery.carried.map(|sequence| {
            format!("lane {lane}: batch {sequence}, the last, was covered by no other and is written again")
        });
        self.notes.extend(carried.map(Note::Usual));
        if !recovery.manifest.agree() && !recovery.manifest.is_missing() {
            let text = format!("lane {lane}: copies of the manifest: {:?}", recovery.manifest.copies);
            let is_strange = recovery.manifest.is_damaged();
            self.notes.push(if is_strange { Note::Strange(text) } else { Note::Usual(text) });
        }
        let removed = recovery.removed.iter().map(|path| format!("not named, removed: {}", path.display()));
        self.notes.extend(removed.map(Note::Usual));
        let kept = recovery.kept.iter().map(|path| {
            format!("not named, kept since the manifest's copies do not agree: {}", path.display())
        });
        self.notes.extend(kept.map(Note::Strange));
    }

    /// Counts the shards of a lane as they are started.
    pub fn add_shards<E: Env>(&mut self, starts: &[ReplicaStart<E>], took: Duration) {
        self.tables_time += took;
        for ReplicaStart { shard, recovered, table } in starts {
            let commit = recovered.hard_state.commit;
            self.committed.insert(*shard, commit);
            let in_table = match table {
                StartTable::None => Index(0),
                StartTable::Open(table) => {
                    self.add_table(table);
                    table.index.meta().applied
                }
                StartTable::Lost { named, .. } => {
                    self.tables_lost += 1;
                    named.index
                }
            };
            self.entries_to_replay += commit.0.saturating_sub(in_table.0);
        }
    }

    fn add_table<E: Env>(&mut self, table: &OpenTable<E>) {
        self.tables += 1;
        self.table_bytes += table.index.footer().file_length;
        self.table_keys += table.index.meta().sums.keys;
        self.table_memory_bytes += table.index.memory_bytes();
    }

    /// Says what was found.
    pub fn tell(&self, core: CoreId) {
        let Self { lanes, segments, batches, bytes, .. } = *self;
        tracing::info!(%core, lanes, segments, batches, bytes, took = ?self.log_time, "log recovered");
        self.damages.iter().for_each(|damage| tracing::error!(%core, "{damage}"));
        for note in &self.notes {
            match note {
                Note::Usual(text) => tracing::info!(%core, "{text}"),
                Note::Strange(text) => tracing::warn!(%core, "{text}"),
            }
        }
        let Self { tables, table_bytes, table_keys, table_memory_bytes, entries_to_replay, .. } = *self;
        tracing::info!(
            %core, tables, bytes = table_bytes, keys = table_keys, memory_bytes = table_memory_bytes,
            took = ?self.tables_time, entries_to_replay, "tables opened"
        );
    }

    /// Says that what was to be applied is.
    pub fn tell_replayed(&self, core: CoreId, took: Duration) {
        tracing::info!(%core, entries = self.entries_to_replay, ?took, "log replayed");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::log::twin::{CopyState, TwinReport};

    fn recovery() -> Recovery {
        let whole = CopyState::Intact { generation: 4 };
        Recovery {
            shards: BTreeMap::new(),
            tables: BTreeMap::new(),
            doubted: BTreeSet::new(),
            cut: None,
            carried: None,
            segments: 2,
            bytes: 8192,
            batches: 2,
            manifest: TwinReport { copies: [whole, whole] },
            damages: Vec::new(),
            survivors: Vec::new(),
            kept: Vec::new(),
            removed: Vec::new(),
        }
    }

    fn notes(recovery: Recovery) -> Vec<(bool, String)> {
        let mut found = Found::default();
        found.add_lane(LaneId(1), &recovery, Duration::ZERO);
        let told = found.notes.into_iter().map(|note| match note {
            Note::Usual(text) => (false, text),
            Note::Strange(text) => (true, text),
        });
        told.collect()
    }

    #[test]
    fn of_a_lane_in_order_there_is_nothing_to_note() {
        assert_eq!(notes(recovery()), []);
        let missing = TwinReport { copies: [CopyState::Missing; 2] };
        assert_eq!(notes(Recovery { manifest: missing, ..recovery() }), [], "a new lane has no manifest");
    }

    #[test]
    fn what_a_crash_leaves_is_usual_and_what_it_never_leaves_is_strange() {
        let removed = vec!["/lane/seg-7".into()];
        assert_eq!(
            notes(Recovery { removed, ..recovery() }),
            [(false, "not named, removed: /lane/seg-7".into())]
        );
        let whole = CopyState::Intact { generation: 4 };
        for (copy, is_strange) in [
            (CopyState::Intact { generation: 3 }, false),
            (CopyState::Missing, false),
            (CopyState::Damaged, true),
        ] {
            let manifest = TwinReport { copies: [whole, copy] };
            let kept = vec!["/lane/table-1".into()];
            let told = notes(Recovery { manifest, kept, ..recovery() });
            assert_eq!(told[0].0, is_strange, "{told:?}");
            assert!(told[1].0 && told[1].1.ends_with("/lane/table-1"), "{told:?}");
        }
    }
}
