//! Which slot a key is in, and which slots a shard holds: the rule that every client and node computes alike.
//!
//! ```text
//! tag   = the bytes between the key's first '{' and the next '}', where there are any; else the whole key
//! slot  = CRC-32/ISO-HDLC of the tag, modulo 16384
//! shard = the i whose slots hold it; shard i of n begins at slot floor(i * 16384 / n)
//! ```
//!
//! Invariants:
//! - Part of the client contract: no change to it is compatible.
//! - Every slot is in exactly one shard, and a shard's slots are one range that is not empty.
//!
//! It deliberately does not check a key's length: an empty key has a slot too, and is refused elsewhere.

use std::ops::RangeInclusive;

use crate::ids::{ShardId, Slot};

/// How many slots there are: the most shards that a cluster can have.
pub const SLOTS: u32 = 16384;

/// The slot of a key.
#[must_use]
pub fn slot_of(key: &[u8]) -> Slot {
    let slot = crc32fast::hash(tag_of(key)) % SLOTS;
    Slot(u16::try_from(slot).expect("16384 slots are numbered by 14 bits"))
}

/// The part of a key that decides its slot: keys with the same tag are in the same shard.
#[must_use]
pub fn tag_of(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(length) if length > 0 => &rest[..length],
        _ => key,
    }
}

/// The shard, of so many, that holds a slot.
#[must_use]
pub fn shard_of(slot: Slot, shards: u32) -> ShardId {
    check_shards(shards);
    let slot = u32::from(slot.0);
    assert!(slot < SLOTS, "slot {slot} of {SLOTS}");
    // The largest i with floor(i * SLOTS / shards) <= slot, that is with i * SLOTS < (slot + 1) * shards.
    ShardId(((slot + 1) * shards - 1) / SLOTS)
}

/// The shard, of so many, that holds a key.
#[must_use]
pub fn shard_of_key(key: &[u8], shards: u32) -> ShardId {
    shard_of(slot_of(key), shards)
}

/// The slots that a shard, of so many, holds.
#[must_use]
pub fn slots_of(shard: ShardId, shards: u32) -> RangeInclusive<Slot> {
    check_shards(shards);
    assert!(shard.0 < shards, "shard {shard} of {shards}");
    let begin = |shard: u32| shard * SLOTS / shards;
    let slot = |number: u32| Slot(u16::try_from(number).expect("16384 slots are numbered by 14 bits"));
    slot(begin(shard.0))..=slot(begin(shard.0 + 1) - 1)
}

fn check_shards(shards: u32) {
    assert!((1..=SLOTS).contains(&shards), "a cluster has 1 to {SLOTS} shards, not {shards}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_zlibs() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
        assert_eq!(slot_of(b"123456789"), Slot(0x3926));
        assert_eq!(slot_of(b""), Slot(0));
    }

    #[test]
    fn the_tag_is_between_the_first_brace_and_the_next() {
        let tags: [(&[u8], &[u8]); 9] = [
            (b"user", b"user"),
            (b"{user}:name", b"user"),
            (b"a{user}:{name}", b"user"),
            (b"{}user", b"{}user"),
            (b"{}{user}", b"{}{user}"),
            (b"{user", b"{user"),
            (b"}user{x}", b"x"),
            (b"{{user}}", b"{user"),
            (b"user{", b"user{"),
        ];
        for (key, tag) in tags {
            assert_eq!(tag_of(key), tag, "of {key:?}");
            assert_eq!(slot_of(key), slot_of_tag(tag), "of {key:?}");
        }
    }

    fn slot_of_tag(tag: &[u8]) -> Slot {
        Slot((crc32fast::hash(tag) & 0x3FFF) as u16)
    }

    #[test]
    fn every_slot_is_in_the_shard_whose_range_holds_it() {
        for shards in [1, 2, 3, 5, 7, 16, 100, 1023, 16383, 16384] {
            let mut next = 0;
            for shard in (0..shards).map(ShardId) {
                let slots = slots_of(shard, shards);
                assert_eq!(u32::from(slots.start().0), next, "shard {shard} of {shards}");
                for slot in [*slots.start(), *slots.end()] {
                    assert_eq!(shard_of(slot, shards), shard, "slot {slot} of {shards} shards");
                }
                next = u32::from(slots.end().0) + 1;
            }
            assert_eq!(next, SLOTS, "{shards} shards hold all slots");
        }
    }

    #[test]
    fn known_places_of_three_shards() {
        assert_eq!(slots_of(ShardId(0), 3), Slot(0)..=Slot(5460));
        assert_eq!(slots_of(ShardId(1), 3), Slot(5461)..=Slot(10921));
        assert_eq!(slots_of(ShardId(2), 3), Slot(10922)..=Slot(16383));
        assert_eq!(shard_of_key(b"123456789", 3), ShardId(2));
        assert_eq!(shard_of_key(b"x{123456789}y", 3), ShardId(2));
    }
}
