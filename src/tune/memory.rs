//! What a node may come to need of memory, by its settings.

use crate::config::Settings;

/// What the process is before it holds anything.
const PROCESS_BYTES: u64 = 32 << 20;
/// The recent entries that each shard keeps.
const RECENT_BYTES: u64 = 8 << 20;
/// Read batches and appends on their way, of each core.
const UNDER_WAY_BYTES: u64 = 32 << 20;

/// The bytes that a node comes to hold under load, whatever its data: the changes of its shards up to where
/// they are refused, as much again of those that tables are made of, blocks of tables, and what is under way.
/// What is made ready at the start is used for them. A follower that falls behind its leader may come to
/// twice the changes, see [`crate::config::Node`]; and what the allocator keeps apart by size is not in it.
#[must_use]
pub fn memory_bytes_max(settings: &Settings, cores: u64) -> u64 {
    let node = &settings.node;
    let shards = u64::from(settings.cluster.shards);
    let changes = node.snapshot_bytes_max.saturating_mul(2);
    let tables = node.snapshots_at_once_max.min(cores).min(shards);
    let of_shards = (changes + RECENT_BYTES).saturating_mul(shards).saturating_add(changes * tables);
    let of_cores = node.block_cache_bytes.saturating_add(UNDER_WAY_BYTES).saturating_mul(cores);
    PROCESS_BYTES.saturating_add(of_shards).saturating_add(of_cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_shards_and_cores() {
        let settings = Settings::default();
        let mib = |cores| memory_bytes_max(&settings, cores) >> 20;
        assert_eq!(mib(1), 32 + 8 * (64 + 8) + 64 + 160);
        assert_eq!(mib(2), 32 + 8 * (64 + 8) + 2 * (64 + 160));
        assert_eq!(mib(16), 32 + 8 * (64 + 8) + 4 * 64 + 16 * 160, "four make tables at once");
    }
}
