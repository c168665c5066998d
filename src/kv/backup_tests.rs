//! The format of backups: what is written is read however it is cut into pieces, and nothing else is read.

use proptest::prelude::*;

use super::backup::*;
use crate::ids::{ClusterId, Index, NodeId, Revision, ShardId, Term};

fn header(shards: u32) -> BackupHeader {
    BackupHeader {
        cluster: ClusterId(0x0123_4567_89ab_cdef),
        shards,
        nodes: 3,
        node: NodeId(2),
        made_ms: 1_700_000_000_123,
    }
}

fn part(shard: u32, table: &[u8]) -> BackupPart {
    let number = u64::from(shard);
    BackupPart {
        shard: ShardId(shard),
        revision: Revision(number + 10),
        index: Index(number + 20),
        term: Term(number + 1),
        length: table.len() as u64,
        keys: number,
        bytes: number * 7,
    }
}

/// A backup of these tables, whose bytes go by in pieces of this size.
fn written(tables: &[Vec<u8>], piece_bytes: usize) -> Vec<u8> {
    let shards = u32::try_from(tables.len()).expect("a few");
    let (mut writer, mut file) = BackupWriter::new(&header(shards));
    for (shard, table) in (0..).zip(tables) {
        file.extend(writer.begin_part(&part(shard, table)));
        for piece in table.chunks(piece_bytes) {
            file.extend_from_slice(piece);
            file.extend(writer.pass_table(piece).into_iter().flatten());
        }
    }
    file.extend(writer.finish());
    file
}

fn read(file: &[u8], piece_bytes: usize) -> Result<BackupSummary, BackupError> {
    let mut reader = BackupReader::default();
    file.chunks(piece_bytes.max(1)).try_for_each(|piece| reader.feed(piece))?;
    reader.finish()
}

fn small() -> Vec<u8> {
    written(&[vec![7; 40], vec![8], (0..33).collect()], 16)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        tables in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..6),
        (written_in, read_in) in (1..400_usize, 1..400_usize),
    ) {
        let file = written(&tables, written_in);
        let summary = read(&file, read_in).expect("it was just written");
        prop_assert_eq!(summary.header, header(u32::try_from(tables.len()).expect("a few")));
        prop_assert_eq!(summary.length, file.len() as u64);
        prop_assert_eq!(summary.parts.len(), tables.len());
        for ((shard, table), (found, at)) in (0..).zip(&tables).zip(&summary.parts) {
            prop_assert_eq!(*found, part(shard, table));
            let at = usize::try_from(*at).expect("it is in memory");
            prop_assert_eq!(&file[at..at + table.len()], &table[..]);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        (at, piece) in (0..400_usize, 1..100_usize),
    ) {
        let mut file = small();
        let at = at.min(file.len());
        file.splice(at.., bytes);
        let intact = file == small();
        prop_assert_eq!(read(&file, piece).is_ok(), intact);
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let file = small();
    assert!(read(&file, 64).is_ok());
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut other = file.clone();
            other[at] ^= 1 << bit;
            assert!(read(&other, 64).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_file_that_ends_early_or_late_is_refused() {
    let file = small();
    for length in 0..file.len() {
        let error = read(&file[..length], 64).expect_err("it is not whole");
        assert_eq!(error, BackupError { offset: length as u64, kind: BackupErrorKind::Short });
    }
    let longer = [&file[..], &[0]].concat();
    let error = read(&longer, 64).expect_err("a byte follows");
    assert_eq!(error, BackupError { offset: file.len() as u64, kind: BackupErrorKind::Long });
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!(read(&[b'x'; 200], 7).expect_err("text").kind, BackupErrorKind::NotABackup);
    let (one, other) = (small(), written(&[vec![7; 40], vec![9], (0..33).collect()], 16));
    // The second shard's table of another backup, with all that belongs to it: each part is right by itself.
    let (_, at) = read(&one, 64).expect("it is whole").parts[1];
    let (from, to) = (usize::try_from(at).expect("small") - 72, usize::try_from(at).expect("small") + 9);
    let mixed = [&one[..from], &other[from..to], &one[to..]].concat();
    let error = read(&mixed, 64).expect_err("it was put together");
    assert_eq!(error.kind, BackupErrorKind::Checksum);
    assert_eq!(error.offset, one.len() as u64 - 48, "the trailer tells");
    assert_ne!(read(&one, 1).map(|one| one.hash), read(&other, 1).map(|other| other.hash));
}

/// A backup of this version, byte by byte: another build must read it, and a change of the format shows here.
#[test]
fn the_format_is_what_it_was() {
    let file = written(&[vec![0xaa; 3]], 8);
    let (_, first) = BackupWriter::new(&header(1));
    assert_eq!(file.len(), 64 + 72 + 3 + 8 + 48);
    assert_eq!(&file[..64], &first[..]);
    assert_eq!(&file[8..24], b"kvbackup\x01\0\0\0\x01\0\0\0");
    assert_eq!(
        &file[24..48],
        &[
            0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 3, 0, 0, 0, 2, 0, 0, 0, 0x7b, 0x68, 0xe5, 0xcf,
            0x8b, 1, 0, 0,
        ]
    );
    assert_eq!(&file[72..80], b"kvbshard");
    assert_eq!(&file[136..139], &[0xaa; 3]);
    assert_eq!(&file[155..171], b"kvb-end\0\x93\0\0\0\0\0\0\0");
    let summary = read(&file, 8).expect("it is whole");
    assert_eq!(summary.hash.to_string(), "32b474a4d12b1e816b0bc7ad77023bd2");
}
