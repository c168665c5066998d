//! What `kvserver verify` and `kvserver dump` say of a data directory that is whole, torn or damaged; and
//! that neither changes a byte of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use distribkv::inspect::{BatchFault, Files, Finding, Proof, Report, Severity, What, verify};
use distribkv::log::batch::{BatchSequence, NotABatch};

mod directory;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod kv_tables;
#[path = "sim/tests/log_mem/mod.rs"]
mod log_mem;
mod processes;

use directory::{BLOCK, Directory, made, open_lane};
use processes::{Cluster, put};

const FIRST: &str = "lane-0/seg-0000000000000001.log";
const SECOND: &str = "lane-0/seg-0000000000000002.log";

fn checked(directory: &Directory) -> Report {
    verify(directory).expect("the directory can be read")
}

/// What is found after a change of a directory of three nodes.
fn after(change: impl FnOnce(&mut Directory)) -> Report {
    let mut directory = made(3);
    change(&mut directory);
    checked(&directory)
}

fn only(report: &Report) -> &Finding {
    let [finding] = &report.findings[..] else { panic!("one thing is wrong: {report:?}") };
    finding
}

fn flip(directory: &mut Directory, name: &str, byte: usize) {
    directory.file(name)[byte] ^= 1;
}

#[test]
fn a_whole_directory_is_clean() {
    for nodes in [1, 3, 5] {
        let report = checked(&made(nodes));
        assert!(report.findings.is_empty(), "{report:?}");
        assert_eq!(report.code(), 0);
        let counts = report.counts;
        assert_eq!((counts.lanes, counts.tables, counts.keys), (1, 2, 4));
        assert!(counts.segments >= 4 && counts.batches >= 6 && counts.records > counts.batches, "{counts:?}");
    }
}

#[test]
fn a_lost_batch_is_damage_with_its_place_and_proof() {
    let report = after(|directory| flip(directory, FIRST, BLOCK + 70));
    let finding = &report.findings[0];
    assert_eq!((finding.file.as_str(), finding.offset, finding.shards.len()), (FIRST, BLOCK as u64, 2));
    let What::Batch(BatchFault::Lost { first, last, found, proof }) = finding.what else {
        panic!("{finding}");
    };
    assert_eq!((first, last, found), (BatchSequence(1), BatchSequence(1), NotABatch::Checksum));
    assert_eq!(proof, Proof::Batch(BatchSequence(2)));
    let text = finding.to_string();
    assert_eq!(
        text,
        "damage: lane-0/seg-0000000000000001.log: byte 4096: batch 1 is lost (the checksum is wrong): \
         batch 2 knew it durable; shards 0 1"
    );
    assert_eq!(report.code(), 3);
    // Of the entries in it the first two were released.
    let lost: Vec<String> = report.findings[1..].iter().map(ToString::to_string).collect();
    assert_eq!(lost, ["damage: lane-0: byte 0: entries 3 to 3 are missing in the log; shard 0"]);
}

#[test]
fn what_lies_behind_damage_is_looked_at_too() {
    let report = after(|directory| {
        flip(directory, FIRST, BLOCK + 70);
        let table = directory.table();
        flip(directory, &table, BLOCK + 100);
        flip(directory, "lane-0/manifest-b", 40);
        directory.0.remove(SECOND);
    });
    let has = |part: &str| report.findings.iter().any(|finding| finding.to_string().contains(part));
    for part in
        ["batch 1 is lost", "manifest-b", "table-00000", "seg-0000000000000002.log: byte 0: the file is gone"]
    {
        assert!(has(part), "{part}: {report:?}");
    }
    assert_eq!(report.code(), 3);
}

#[test]
fn a_recorded_end_proves_what_is_lost_before_it() {
    let report = after(|directory| {
        directory.file(FIRST)[BLOCK..].fill(0);
    });
    let What::Batch(BatchFault::Lost { first, proof: Proof::End(end), .. }) = report.findings[0].what else {
        panic!("{report:?}");
    };
    assert!(first == BatchSequence(1) && end > first, "{report:?}");
}

/// No checksum covers the bytes behind the records of a batch, and nothing reads them.
#[test]
fn padding_that_is_not_zeros_is_noted() {
    let directory = made(3);
    let records = u32::from_le_bytes(directory.0[FIRST][BLOCK + 40..][..4].try_into().expect("four bytes"));
    let padding = BLOCK + 52 + records as usize;
    for byte in [padding, padding + 1, 2 * BLOCK - 1] {
        let report = after(|directory| flip(directory, FIRST, byte));
        let finding = only(&report);
        assert_eq!((finding.severity, report.code()), (Severity::Note, 0), "{finding}");
        let said =
            format!("note: {FIRST}: byte {byte}: the padding of batch 1 is not zeros: the batch is whole");
        assert_eq!(finding.to_string(), said);
    }
    let report = after(|directory| flip(directory, FIRST, padding - 1));
    assert_eq!(report.code(), 3, "a record ends there: {report:?}");
}

/// A directory in which one block cannot be read.
struct WithBadBlock<'a> {
    directory: &'a Directory,
    file: &'a str,
    block: usize,
}

impl Files for WithBadBlock<'_> {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.directory.list(dir)
    }

    fn len(&self, file: &str) -> io::Result<u64> {
        self.directory.len(file)
    }

    fn read(&self, file: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let first = (self.block * BLOCK) as u64;
        let is_bad = file == self.file && at < first + BLOCK as u64 && first < at + len as u64;
        if is_bad { Err(io::Error::from_raw_os_error(5)) } else { self.directory.read(file, at, len) }
    }
}

#[test]
fn of_a_bad_block_only_its_batch_is_lost() {
    let directory = made(3);
    let bad = WithBadBlock { directory: &directory, file: FIRST, block: 1 };
    let report = verify(&bad).expect("the directory can be read");
    let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let expected = [
        "damage: lane-0/seg-0000000000000001.log: byte 4096: it cannot be read: Input/output error (os error \
         5); shards 0 1",
        "damage: lane-0/seg-0000000000000001.log: byte 4096: batch 1 is lost (no batch begins here): batch 2 \
         knew it durable; shards 0 1",
        "damage: lane-0: byte 0: entries 3 to 3 are missing in the log; shard 0",
    ];
    assert_eq!(found, expected);
    assert_eq!(report.code(), 3);
}

/// What a block that cannot be read is to a start it is here, wherever it is.
#[test]
fn a_bad_block_is_damage_here_where_it_is_to_a_start() {
    let directory = made(1);
    let mut harmless = 0;
    for (file, bytes) in directory.0.iter().filter(|(name, _)| name.ends_with(".log")) {
        for block in 0..bytes.len() / BLOCK {
            let report = verify(&WithBadBlock { directory: &directory, file, block });
            let report = report.expect("the directory can be read");
            let env = directory.env();
            let blocks = [(Path::new("/").join(file), block)].into();
            env.spoil(log_mem::Bad { blocks, ..log_mem::Bad::default() });
            let starts = open_lane(&env).is_ok();
            assert_eq!(starts, report.code() == 0, "block {block} of {file}: {report:?}");
            harmless += usize::from(starts);
        }
    }
    assert!(harmless > 2, "{harmless} blocks hold nothing");
}

/// The last batch, which no other covers, is torn: a crash does that, and nobody was told of it.
#[test]
fn a_torn_tail_is_clean_and_said() {
    let mut directory = made(3);
    let (name, at) = last_batch(&directory);
    flip(&mut directory, &name, at + 30);
    let report = checked(&directory);
    let finding = only(&report);
    assert_eq!((finding.severity, report.code()), (Severity::Note, 0), "{finding}");
    assert!(finding.to_string().contains("torn tail"), "{finding}");
    assert_eq!((finding.file.as_str(), finding.offset), (name.as_str(), at as u64));
}

/// Where the last batch of all begins.
fn last_batch(directory: &Directory) -> (String, usize) {
    let segments = directory.0.iter().filter(|(name, _)| name.ends_with(".log")).rev();
    let has_batch = |block: &[u8]| block.starts_with(b"dKVb");
    for (name, bytes) in segments {
        if let Some(at) = bytes.chunks(BLOCK).rposition(has_batch) {
            return (name.clone(), at * BLOCK);
        }
    }
    panic!("there is a batch");
}

#[test]
fn one_copy_is_repaired_from_the_other_and_two_are_not() {
    for name in ["identity", "lane-0/manifest"] {
        for copy in ["a", "b"] {
            let name = format!("{name}-{copy}");
            let report = after(|directory| flip(directory, &name, 30));
            assert_eq!((only(&report).severity, report.code()), (Severity::Copy, 3), "{report:?}");
            assert_eq!(only(&report).file, name);
            let report = after(|directory| drop(directory.0.remove(&name)));
            assert_eq!((only(&report).severity, report.code()), (Severity::Copy, 3), "{report:?}");
        }
        let report = after(|directory| {
            ["a", "b"].iter().for_each(|copy| flip(directory, &format!("{name}-{copy}"), 30));
        });
        assert_eq!(report.code(), 4, "{report:?}");
        let report = after(|directory| {
            ["a", "b"].iter().for_each(|copy| drop(directory.0.remove(&format!("{name}-{copy}"))));
        });
        assert!(matches!(only(&report).what, What::CopiesMissing), "{report:?}");
        assert_eq!(report.code(), 4);
    }
}

#[test]
fn a_format_that_is_not_known_is_fatal() {
    let report = after(|directory| {
        let bytes = directory.file("lane-0/manifest-a");
        bytes[4] = 2;
        let length = u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes")) as usize;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..20]);
        hasher.update(&bytes[24..24 + length]);
        bytes[20..24].copy_from_slice(&hasher.finalize().to_le_bytes());
    });
    assert!(matches!(only(&report).what, What::Format { found: 2, known: 1 }), "{report:?}");
    assert_eq!(report.code(), 4);
}

#[test]
fn a_cluster_of_one_has_nobody_to_repair_it() {
    let mut directory = made(1);
    flip(&mut directory, FIRST, BLOCK + 70);
    assert_eq!(checked(&directory).code(), 4);
    let mut directory = made(1);
    flip(&mut directory, "lane-0/manifest-a", 30);
    assert_eq!(checked(&directory).code(), 3, "the other copy has it all");
}

#[test]
fn a_table_is_checked_down_to_its_keys() {
    let table = made(3).table();
    for block in 0..6 {
        let report = after(|directory| flip(directory, &table, block * BLOCK + 20));
        assert_eq!(report.code(), 3, "page {block}: {report:?}");
        let finding = &report.findings[0];
        assert_eq!((finding.file.as_str(), finding.offset), (table.as_str(), (block * BLOCK) as u64));
    }
    let report = after(|directory| drop(directory.0.remove(&table)));
    assert!(matches!(only(&report).what, What::Missing), "{report:?}");
    let report = after(|directory| directory.file(&table).truncate(BLOCK));
    assert!(matches!(only(&report).what, What::Length { .. }), "{report:?}");
}

#[test]
fn files_that_nobody_names_are_noted() {
    let report = after(|directory| {
        for name in ["seg-00000000000000ff.log", "table-00001-00000000000000aa.tab", "manifest-a.new", "x"] {
            directory.0.insert(format!("lane-0/{name}"), vec![0; BLOCK]);
        }
        directory.0.insert("lane-0/table-00001-00000000000000aa.tab.part".into(), vec![0; BLOCK]);
    });
    assert_eq!((report.findings.len(), report.code()), (5, 0), "{report:?}");
    assert!(report.findings.iter().all(|finding| finding.severity == Severity::Note));
}

/// The bits that are tried: all of those that are used, and some of the padding.
fn bits(bytes: &[u8]) -> Vec<usize> {
    let mut bits = Vec::new();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let used = block.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1).min(400);
        bits.extend(
            (0..used * 8).chain((used * 8..BLOCK * 8).step_by(509)).map(|bit| number * BLOCK * 8 + bit),
        );
    }
    bits
}

/// Every flipped bit of what is used is found; one of what nothing is read from changes nothing.
#[test]
fn every_flipped_bit_is_found_or_is_of_no_use() {
    let directory = made(3);
    let mut found = BTreeMap::new();
    for (name, bytes) in &directory.0 {
        for bit in bits(bytes) {
            let mut flipped = directory.clone();
            flipped.file(name)[bit / 8] ^= 1 << (bit % 8);
            let report = checked(&flipped);
            let is_found = report.findings.iter().any(|finding| finding.severity > Severity::Note);
            assert!(is_found || is_of_no_use(name, bytes, bit / 8), "bit {bit} of {name}: {report:?}");
            *found.entry(name.clone()).or_insert(0) += u32::from(is_found);
        }
    }
    assert!(found.values().all(|found| *found > 100), "{found:?}");
}

/// Whether a byte is beyond what its format uses: padding of a batch, a copy or a header, and blocks without
/// a batch.
fn is_of_no_use(name: &str, bytes: &[u8], byte: usize) -> bool {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (block, within) = (byte / BLOCK * BLOCK, byte % BLOCK);
    if name.contains("table-") {
        return false;
    }
    if !name.ends_with(".log") {
        return byte >= 24 + word(16);
    }
    match (block, bytes[block..].starts_with(b"dKVb")) {
        (0, _) => within >= 44,
        // Nothing covers the last batch of all, which seals those before it.
        (_, true) => within >= 52 + word(block + 40) || word(block + 40) == 0,
        (_, false) => true,
    }
}

// ---- the program ----

fn kvserver(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    command.args(args).arg("--data-dir").arg(dir);
    command.output().expect("the program was built with the test")
}

/// All files with their bytes and times, and the directories.
fn state_of(root: &Path) -> (Directory, Vec<SystemTime>) {
    let directory = Directory::read(root);
    let paths =
        directory.0.keys().map(|name| root.join(name)).chain([root.to_path_buf(), root.join("lane-0")]);
    let times = paths.map(|path| path.metadata().and_then(|found| found.modified()).expect("it is there"));
    let times = times.collect();
    (directory, times)
}

#[test]
fn the_program_says_what_it_finds_and_changes_nothing() {
    let temp = processes::new_dir();
    let root = temp.path().join("node-1");
    let mut directory = made(3);
    directory.write(&root);
    let before = state_of(&root);
    let clean = kvserver(&["verify"], &root);
    let said = String::from_utf8_lossy(&clean.stdout).into_owned();
    assert!(
        clean.status.code() == Some(0) && said.starts_with("clean: 0 damaged, 0 noted; 1 lanes"),
        "{said}"
    );
    let dump = String::from_utf8(kvserver(&["dump", "--values"], &root).stdout).expect("it is text");
    assert!(dump.contains("key key=\"b\\n\" value_bytes=0"), "{dump}");
    let json = kvserver(&["dump", "--json", "--shard", "0"], &root);
    for line in String::from_utf8_lossy(&json.stdout).lines() {
        let fact: serde_json::Value = serde_json::from_str(line).expect("every line is an object of JSON");
        assert!(fact["fact"].is_string() && fact["shard"].as_u64().unwrap_or(0) == 0, "{line}");
    }
    assert!(state_of(&root) == before, "nothing was changed");

    flip(&mut directory, FIRST, BLOCK + 70);
    directory.write(&root);
    let before = state_of(&root);
    let damaged = kvserver(&["verify"], &root);
    let said = String::from_utf8_lossy(&damaged.stdout).into_owned();
    assert!(damaged.status.code() == Some(3) && said.contains("byte 4096: batch 1 is lost"), "{said}");
    assert_eq!(kvserver(&["dump"], &root).status.code(), Some(0));
    assert!(state_of(&root) == before, "nothing was changed");

    std::fs::remove_file(root.join("lane-0/manifest-a")).expect("it is there");
    std::fs::remove_file(root.join("lane-0/manifest-b")).expect("it is there");
    assert_eq!(kvserver(&["verify"], &root).status.code(), Some(4));
    for command in ["verify", "dump"] {
        assert_eq!(kvserver(&[command], &temp.path().join("nowhere")).status.code(), Some(1));
        assert_eq!(kvserver(&[command, "--no-such-flag"], &root).status.code(), Some(2));
    }
}

/// A node that runs is left alone; one that has stopped in order is clean.
#[tokio::test]
async fn a_node_that_runs_is_refused_and_a_stopped_one_is_clean() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all().await;
    for key in ["a", "b", "c"] {
        cluster.node(1).kv().put(put(key, "value")).await.expect("it serves");
    }
    let dir = cluster.node(1).data_dir.clone();
    for command in ["verify", "dump"] {
        let refused = kvserver(&[command], &dir);
        assert_eq!(refused.status.code(), Some(10), "{}", String::from_utf8_lossy(&refused.stderr));
    }
    assert_eq!(cluster.terminate(1).await.code, Some(0));
    let before = state_of(&dir);
    let clean = kvserver(&["verify"], &dir);
    let said = String::from_utf8_lossy(&clean.stdout).into_owned();
    assert!(clean.status.code() == Some(0) && said.starts_with("clean: 0 damaged, 0 noted"), "{said}");
    let dump = String::from_utf8_lossy(&kvserver(&["dump"], &dir).stdout).into_owned();
    for key in ["a", "b", "c"] {
        assert!(dump.contains(&format!("command=put key=\"{key}\" value_bytes=5")), "{key}: {dump}");
    }
    assert!(state_of(&dir) == before, "nothing was changed");
    // It is as good as before.
    cluster.start_all().await;
}
