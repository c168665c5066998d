//! The format against a plain map: what is written is read, what is damaged is found, and no bytes make a
//! decoder panic.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::layout::{BLOCK_TARGET_BYTES, ENTRY_HEADER_BYTES};
use super::*;
use crate::ids::{Index, Revision, ShardId, Term};
use crate::kv::digest;

const ID: TableId = TableId { shard: ShardId(3), salt: 0x5a17_0000_0000_0001 };

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

/// An entry whose numbers follow from its key and value, so that they can be compared.
fn entry<'a>(key: &'a [u8], value: &'a [u8]) -> EntryRef<'a> {
    let (create, version) = (key.len() as u64, 1 + value.len() as u64);
    let (create_revision, mod_revision) = (Revision(create), Revision(create + version));
    let value_hash = digest::of_value(value);
    let digest = digest::of_entry(key, value_hash, create_revision, mod_revision, version);
    EntryRef { key, value, create_revision, mod_revision, version, digest }
}

fn write(id: TableId, keys: &Keys, sessions: &[&[u8]]) -> Vec<u8> {
    let mut writer = TableWriter::new(id, keys.len() as u64);
    let mut file = Vec::new();
    let mut blocks = 0;
    let mut take = |writer: &mut TableWriter| {
        while let Some(chunk) = writer.take_output() {
            assert_eq!(chunk.offset, file.len() as u64, "chunks follow each other");
            assert!(chunk.bytes.len().is_multiple_of(PAGE_BYTES) && !chunk.bytes.is_empty());
            for block in chunk.blocks {
                let bytes = Bytes::copy_from_slice(chunk.block_bytes(block));
                assert!(Block::decode(*block, bytes).is_ok(), "{block:?} is not where the chunk says");
                blocks += 1;
            }
            file.extend_from_slice(chunk.bytes);
        }
    };
    for (key, value) in keys {
        writer.push(&entry(key, value));
        take(&mut writer);
    }
    for piece in sessions {
        writer.push_session(piece);
        take(&mut writer);
    }
    let sums = writer.sums();
    writer.finish(TableMeta {
        applied: Index(71),
        applied_term: Term(5),
        revision: Revision(44),
        sums,
        digest: 99,
        membership: Bytes::from_static(b"\x01\x02\x03"),
    });
    assert!(writer.footer().is_none(), "there is output to take");
    take(&mut writer);
    let footer = writer.footer().expect("all was taken").clone();
    assert_eq!(footer.file_length, file.len() as u64);
    assert_eq!(footer.blocks, blocks, "every block is said once to lie in a chunk");
    file
}

fn part(file: &Bytes, offset: u64, length: u64) -> Bytes {
    let (from, length) = (offset as usize, length as usize);
    file.slice(from.min(file.len())..from.saturating_add(length).min(file.len()))
}

/// All of a file, as a driver reads it, with each part checked.
struct Opened {
    index: TableIndex,
    blocks: Vec<Block>,
    sessions: Bytes,
}

fn open(file: &Bytes) -> Result<Opened, TableError> {
    let length = file.len() as u64;
    let header = Header::decode(&part(file, 0, 4096))?;
    let footer = Footer::decode(&part(file, Footer::offset(length), 4096), length)?;
    assert_eq!(header, footer.header);
    let section = |section: Section| part(file, section.offset, section.padded_length());
    let (filter, sessions) = (section(footer.filter), section(footer.sessions));
    let index = TableIndex::open(footer.clone(), &section(footer.index), &filter)?;
    let sessions = index.verify_sessions(&sessions)?;
    let block = |at| {
        let handle = index.handle(at);
        Block::decode(handle, part(file, handle.offset, handle.length.into()))
    };
    let blocks = (0..index.blocks()).map(block).collect::<Result<_, _>>()?;
    Ok(Opened { index, blocks, sessions })
}

fn get<'a>(opened: &'a Opened, key: &[u8]) -> Option<EntryRef<'a>> {
    match opened.index.locate(key) {
        Place::Absent => None,
        Place::Block(handle) => {
            let block = opened.blocks.iter().find(|block| block.handle() == handle);
            block.expect("the index names blocks of the file").get(key)
        }
    }
}

fn small() -> Keys {
    let key = |at: u32| format!("key {at:04}").into_bytes();
    (0..40).map(|at| (key(at), vec![at as u8; at as usize])).collect()
}

fn keys() -> impl Strategy<Value = Keys> {
    let key = prop::collection::vec(0..4_u8, 0..6);
    let length = prop_oneof![8 => 0..300_usize, 1 => Just(20_000), 1 => Just(70_000)];
    let value = (any::<u8>(), length).prop_map(|(byte, length)| vec![byte; length]);
    prop::collection::btree_map(key, value, 0..120)
}

#[test]
fn a_block_is_as_long_as_it_has_to_be() {
    let room = BLOCK_TARGET_BYTES - 16 - ENTRY_HEADER_BYTES - 1;
    for (length, pages) in [(0, 1), (4096, 2), (room, 4), (room + 1, 5), (1 << 20, 257), (5 << 20, 1281)] {
        let keys =
            Keys::from([(b"a".to_vec(), vec![7; length]), (b"b".to_vec(), vec![8; BLOCK_TARGET_BYTES])]);
        let opened = open(&write(ID, &keys, &[]).into()).expect("it was just written");
        assert_eq!(opened.blocks.len(), 2);
        assert_eq!(opened.blocks[0].handle().length, pages * 4096, "a value of {length} bytes");
        assert_eq!(get(&opened, b"a").map(|found| found.value.len()), Some(length));
    }
}

#[test]
fn the_index_holds_what_tells_blocks_apart() {
    let key = |at: u32| format!("{}/{at:08}/{}", "p".repeat(100), "s".repeat(100)).into_bytes();
    let keys: Keys = (0..1000).map(|at| (key(at), Vec::new())).collect();
    let opened = open(&write(ID, &keys, &[]).into()).expect("it was just written");
    assert!(opened.blocks.len() > 10);
    assert!(opened.index.first_key(0).is_empty());
    for at in 1..opened.blocks.len() {
        let separator = opened.index.first_key(at);
        let before = opened.blocks[at - 1].entry(opened.blocks[at - 1].len() - 1).key;
        assert!(before < separator && separator <= opened.blocks[at].entry(0).key);
        assert!(separator.len() <= 109, "{} bytes", separator.len());
    }
    for at in 0..opened.blocks.len() {
        let handle = opened.index.handle(at);
        let last = handle.offset + u64::from(handle.length) - 1;
        assert_eq!([handle.offset, last].map(|byte| opened.index.block_at(byte)), [Some(at); 2]);
    }
    let ends = [0, u64::MAX].map(|byte| opened.index.block_at(byte));
    assert_eq!(ends, [Some(0), Some(opened.blocks.len() - 1)]);
}

#[test]
fn no_keys_make_a_table_too() {
    let opened = open(&write(ID, &Keys::new(), &[]).into()).expect("it was just written");
    assert_eq!((opened.index.blocks(), opened.index.locate(b"k")), (0, Place::Absent));
    assert_eq!(opened.index.block_at(4096), None);
    assert!(opened.sessions.is_empty());
    let file = write(ID, &Keys::from([(Vec::new(), Vec::new())]), &[]);
    let opened = open(&file.into()).expect("it was just written");
    assert!(get(&opened, b"").is_some());
}

#[test]
#[should_panic(expected = "comes after")]
fn entries_come_in_order() {
    let mut writer = TableWriter::new(ID, 2);
    writer.push(&entry(b"b", b""));
    writer.push(&entry(b"b", b""));
}

#[test]
fn every_flipped_bit_is_found() {
    let file = write(ID, &small(), &[b"some", b" sessions"]);
    assert_eq!(file.len(), 6 * PAGE_BYTES, "a page for each part");
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Err(error) = open(&damaged.into()) else { panic!("bit {bit} was flipped, and nobody saw it") };
        let parts = [Part::Header, Part::Block, Part::Sessions, Part::Filter, Part::Index, Part::Footer];
        assert_eq!(error.part, parts[bit / 8 / PAGE_BYTES], "bit {bit}: {error}");
        assert_eq!(error.offset, (bit / 8 / PAGE_BYTES * PAGE_BYTES) as u64, "bit {bit}: {error}");
    }
}

#[test]
fn a_shorter_or_longer_file_is_found() {
    let file = Bytes::from(write(ID, &small(), &[]));
    for length in (0..file.len()).step_by(512) {
        assert!(open(&file.slice(..length)).is_err(), "{length} bytes of {}", file.len());
    }
    let longer = [&file[..], &[0; PAGE_BYTES]].concat();
    assert!(open(&longer.into()).is_err());
    // The footer is intact, but of another file.
    let footer = file.slice(file.len() - PAGE_BYTES..);
    assert!(Footer::decode(&footer, file.len() as u64).is_ok());
    assert!(Footer::decode(&footer, 2 * file.len() as u64).is_err());
}

#[test]
fn a_misplaced_or_stale_block_is_found() {
    let keys: Keys = (0..200_u8).map(|at| (vec![at], vec![at; 400])).collect();
    let file = write(ID, &keys, &[]);
    let opened = open(&file.clone().into()).expect("it was just written");
    let [first, second] = [0, 1].map(|at| opened.index.handle(at));
    assert_eq!(first.length, second.length);
    let places = [first, second].map(|handle| handle.offset as usize..handle.offset as usize + 16384);

    let mut misdirected = file.clone();
    misdirected.copy_within(places[0].clone(), places[1].start);
    let found = open(&misdirected.into()).map(|_| ()).expect_err("the second block is the first's copy");
    assert_eq!((found.part, found.offset), (Part::Block, second.offset));

    let earlier = write(TableId { salt: ID.salt + 1, ..ID }, &keys, &[]);
    let mut stale = file;
    stale[places[0].clone()].copy_from_slice(&earlier[places[0].clone()]);
    let found = open(&stale.into()).map(|_| ()).expect_err("the first block is an earlier table's");
    assert_eq!((found.part, found.offset), (Part::Block, first.offset));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(keys in keys(), others in keys()) {
        let opened = open(&write(ID, &keys, &[b"12", b"345"]).into()).expect("it was just written");
        prop_assert_eq!(&opened.sessions[..], b"12345");
        let meta = opened.index.meta();
        prop_assert_eq!((meta.applied, meta.applied_term, meta.revision), (Index(71), Term(5), Revision(44)));
        prop_assert_eq!((meta.sums.keys, &meta.membership[..]), (keys.len() as u64, &b"\x01\x02\x03"[..]));
        for (key, value) in &keys {
            prop_assert_eq!(get(&opened, key), Some(entry(key, value)));
        }
        for key in others.keys() {
            prop_assert_eq!(get(&opened, key), keys.get(key).map(|value| entry(key, value)));
        }
        let all = opened.blocks.iter().flat_map(Block::iter);
        prop_assert!(all.eq(keys.iter().map(|(key, value)| entry(key, value))));
        let pairs = opened.blocks.iter().flat_map(|block| others.keys().map(move |key| (block, key)));
        for (block, key) in pairs {
            prop_assert!(block.iter_from(key).eq(block.iter().filter(|entry| entry.key >= &key[..])));
            let below = block.iter().filter(|entry| entry.key < &key[..]);
            prop_assert!(block.iter_below(key).rev().eq(below.rev()));
        }
        prop_assert!(opened.blocks.iter().flat_map(Block::iter).all(|entry| entry.has_its_digest()));
    }

    /// Whatever bytes there are, with checksums that are right so that the decoders are gone through.
    #[test]
    fn no_bytes_make_a_decoder_panic(
        mut page in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 4096),
        at in 1..5_u64,
        fields in prop::collection::vec((1..25_usize, 0..5000_u64), 0..20),
        is_like_a_table in any::<bool>(),
    ) {
        for (place, number) in fields {
            page[place * 8..place * 8 + 8].copy_from_slice(&number.to_le_bytes());
        }
        let length = at * 4096;
        for part in [Part::Header, Part::Footer] {
            let magic = if part == Part::Header { b"kvtable\0" } else { b"kvtfoot\0" };
            if is_like_a_table {
                page[8..16].copy_from_slice(magic);
                page[16..20].copy_from_slice(&1_u32.to_le_bytes());
            }
            let offset = if part == Part::Header { 0 } else { length - 4096 };
            let own = layout::checksum(layout::u64_at(&page, 24), part, offset, &page[8..]);
            page[..8].copy_from_slice(&own.to_le_bytes());
            let _ = Header::decode(&page);
            let _ = Footer::decode(&Bytes::from(page.clone()), length);
        }
        let handle = BlockHandle { table: 9, offset: 4096 * at, length: 4096 };
        let own = layout::checksum(9, Part::Block, handle.offset, &page[8..]);
        page[..8].copy_from_slice(&own.to_le_bytes());
        if let Ok(block) = Block::decode(handle, Bytes::from(page.clone())) {
            prop_assert_eq!(block.iter().count(), block.len());
        }
    }

    /// An index of any bytes, named by a footer that takes them for one.
    #[test]
    fn no_index_makes_a_decoder_panic(
        numbers in prop::collection::vec(
            (0..4_u64, prop_oneof![Just(4096_u32), 0..9000_u32], 0..9_u32),
            0..6,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        blocks in 0..7_u64,
    ) {
        let mut index = Vec::new();
        for (page, length, key_length) in numbers {
            index.extend_from_slice(&(page * 4096).to_le_bytes());
            index.extend_from_slice(&length.to_le_bytes());
            index.extend_from_slice(&key_length.to_le_bytes());
        }
        index.extend_from_slice(&tail);
        let opened = open(&write(ID, &small(), &[]).into()).expect("it was just written");
        let mut footer = opened.index.footer().clone();
        footer.blocks = blocks.min(index.len() as u64 / 16);
        footer.index.length = index.len() as u64;
        index.resize(index.len().next_multiple_of(4096), 0);
        footer.index.checksum = layout::checksum(ID.salt, Part::Index, footer.index.offset, &index);
        let checksum = layout::checksum(ID.salt, Part::Filter, 0, b"");
        footer.filter = Section { offset: 0, length: 0, checksum };
        let _ = TableIndex::open(footer, &index.into(), &Bytes::new());
    }
}
