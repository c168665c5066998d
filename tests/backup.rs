//! Backup and restore with real processes: a backup is made while writes go on, a new cluster is made of it
//! on empty directories, and what it holds is compared with what was acknowledged.

mod processes;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;

use distribkv::kv::backup::{BackupPart, BackupReader, BackupWriter};
use distribkv::route::slot::shard_of_key;
use distribkv::wire::v1;
use processes::{Cluster, Ended, Process, SHARDS, assert_refused, get, key_of, put};
use tonic::Code;

/// Keys that are there before the backup, some of them changed and removed again.
const KEYS: usize = 200;

/// How far ahead of the backup a restored cluster begins.
const AHEAD: u64 = 1 << 40;

/// The highest revision of each shard that any answer said.
#[derive(Default)]
struct Seen(RefCell<BTreeMap<u32, u64>>);

impl Seen {
    /// Takes note of an answer, and asserts that the shard has not gone back.
    fn note(&self, header: Option<v1::ResponseHeader>) {
        let header = header.expect("every answer has one");
        let mut seen = self.0.borrow_mut();
        let before = seen.entry(header.shard).or_default();
        assert!(header.revision >= *before, "shard {} went back from {before}: {header:?}", header.shard);
        *before = header.revision;
    }
}

/// Writes what the backup has to hold; every key that is there then, as it is.
async fn fill(cluster: &Cluster, seen: &Seen) -> BTreeMap<String, v1::KeyValue> {
    let mut kv = cluster.node(1).kv();
    for number in 0..KEYS {
        let key = format!("key-{number}");
        seen.note(kv.put(put(&key, format!("first {number}"))).await.expect("it serves").into_inner().header);
        if number % 3 == 0 {
            let value = "x".repeat(number * 40);
            seen.note(kv.put(put(&key, value)).await.expect("it serves").into_inner().header);
        }
        if number % 7 == 0 {
            let delete = v1::DeleteRequest { key: key.into(), ..v1::DeleteRequest::default() };
            seen.note(kv.delete(delete).await.expect("it serves").into_inner().header);
        }
    }
    let mut there = BTreeMap::new();
    for number in 0..KEYS {
        let key = format!("key-{number}");
        let answer = kv.get(get(&key)).await.expect("it serves").into_inner();
        assert_eq!(answer.kv.is_some(), number % 7 != 0, "{key}");
        there.extend(answer.kv.map(|kv| (key, kv)));
    }
    there
}

/// A writer that goes on while a backup is made: one key after the other, each acknowledged before the next.
struct Writer {
    acknowledged: Rc<Cell<usize>>,
    stop: Rc<Cell<bool>>,
    task: tokio::task::JoinHandle<()>,
}

fn live_key(number: usize) -> String {
    format!("live-{number}")
}

impl Writer {
    fn start(cluster: &Cluster, seen: &Rc<Seen>) -> Self {
        let (acknowledged, stop): (Rc<Cell<usize>>, Rc<Cell<bool>>) = Default::default();
        let mut kv = cluster.node(2).kv();
        let (counts, stops, seen) = (Rc::clone(&acknowledged), Rc::clone(&stop), Rc::clone(seen));
        let task = tokio::task::spawn_local(async move {
            while !stops.get() {
                let number = counts.get();
                let answer = kv.put(put(&live_key(number), number.to_string())).await;
                seen.note(answer.expect("nothing fails here").into_inner().header);
                counts.set(number + 1);
            }
        });
        Self { acknowledged, stop, task }
    }

    /// Waits until so many more were acknowledged.
    async fn writes(&self, more: usize) {
        let until = self.acknowledged.get() + more;
        while self.acknowledged.get() < until {
            assert!(!self.task.is_finished(), "the writer has failed");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn stop(self) -> usize {
        self.stop.set(true);
        self.task.await.expect("the writer does not fail");
        self.acknowledged.get()
    }
}

/// Runs kvctl beside the test.
async fn kvctl(cluster: &Cluster, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    command.args(args).env("KVCTL_ENDPOINTS", cluster.addresses().join(","));
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("it does not panic").expect("the binary was just built")
}

/// Makes a backup, and returns where it is.
async fn back_up(cluster: &Cluster, name: &str) -> PathBuf {
    let file = cluster.dir().join(name);
    let output = kvctl(cluster, &["backup", &file.to_string_lossy()]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(file.exists() && !cluster.dir().join(format!("{name}.partial")).exists());
    file
}

/// Restores a node into a directory.
async fn restore(cluster: &Cluster, id: u32, from: &Path, dir: &Path, more: &[&str]) -> Ended {
    let node = cluster.bare_command(id);
    let mut command = Command::new(node.get_program());
    command
        .arg("restore")
        .args(node.get_args())
        .arg("--from")
        .arg(from)
        .arg("--data-dir")
        .arg(dir)
        .args(more);
    Process::start(command).ended().await
}

/// Restores every node of a cluster that does not run.
async fn restore_all(cluster: &mut Cluster, from: &Path, name: &str) {
    for id in 1..=3 {
        let dir = cluster.dir().join(format!("{name}-{id}"));
        let ended = restore(cluster, id, from, &dir, &["--cores", &id.to_string()]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert!(ended.said.contains(&format!("node {id} of 3 restored")), "{}", ended.said);
        cluster.nodes[id as usize - 1].data_dir = dir;
    }
}

/// What is left of a session: a write that it made, to be sent again.
async fn write_in_session(cluster: &Cluster) -> v1::PutRequest {
    let open = v1::OpenSessionRequest { ttl_ms: 60_000, key: key_of(2, "once").into() };
    let session = cluster.node(1).sessions().open(open).await.expect("it serves").into_inner().session;
    let id = Some(v1::RequestId { session, sequence: 1, acknowledged: 0 });
    let request = v1::PutRequest { id, ..put(&key_of(2, "once"), "once") };
    let mut kv = cluster.node(1).kv();
    let first = kv.put(request.clone()).await.expect("it serves").into_inner();
    assert_eq!(kv.put(request.clone()).await.expect("it is the same").into_inner(), first);
    request
}

/// The restored cluster holds what the backup had to, and nothing goes back.
async fn compare(cluster: &Cluster, there: &BTreeMap<String, v1::KeyValue>, seen: &Seen) {
    let mut kv = cluster.node(3).kv();
    for number in 0..KEYS {
        let key = format!("key-{number}");
        let answer = kv.get(get(&key)).await.expect("it serves").into_inner();
        seen.note(answer.header);
        assert_eq!(answer.kv.as_ref(), there.get(&key), "{key}");
    }
}

/// Of what was written meanwhile the restored cluster holds all that was acknowledged before the backup, and
/// of each shard's further keys the first ones.
async fn compare_live(cluster: &Cluster, (before, all): (usize, usize), seen: &Seen) -> usize {
    let mut kv = cluster.node(1).kv();
    let (mut ended, mut found) = (BTreeMap::new(), 0);
    for number in 0..all {
        let key = live_key(number);
        let answer = kv.get(get(&key)).await.expect("it serves").into_inner();
        seen.note(answer.header);
        let shard = shard_of_key(key.as_bytes(), SHARDS);
        match answer.kv {
            Some(kv) => {
                assert_eq!(kv.value, number.to_string(), "{key}");
                assert_eq!(ended.get(&shard), None, "{key} is there, and one before it is not");
                found += 1;
            }
            None => {
                assert!(number >= before, "{key} was acknowledged before the backup, and is gone");
                ended.entry(shard).or_insert(number);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_cluster_is_restored_from_a_backup_made_under_load() {
    let local = tokio::task::LocalSet::new();
    local.run_until(restore_from_a_backup_under_load()).await;
}

async fn restore_from_a_backup_under_load() {
    let mut cluster = Cluster::quick(3).await;
    let seen = Rc::new(Seen::default());
    let there = fill(&cluster, &seen).await;
    // Tables that are there already must not be taken for what was written after them.
    assert_eq!(kvctl(&cluster, &["snapshot"]).await.status.code(), Some(0));
    let once = write_in_session(&cluster).await;
    let writer = Writer::start(&cluster, &seen);
    writer.writes(100).await;
    let before = writer.acknowledged.get();
    let file = back_up(&cluster, "one.backup").await;
    writer.writes(100).await;
    let all = writer.stop().await;
    let old_terms = terms(&cluster).await;
    (1..=3).for_each(|id| cluster.kill(id));

    restore_all(&mut cluster, &file, "restored").await;
    cluster.start_all().await;
    compare(&cluster, &there, &seen).await;
    let found = compare_live(&cluster, (before, all), &seen).await;
    assert!(found >= before && found < all, "{found} of {all}, {before} before the backup");
    cluster.digests_agree().await;
    for (shard, term) in terms(&cluster).await {
        assert!(term > old_terms[&shard], "shard {shard} is in term {term} after {}", old_terms[&shard]);
    }
    for shard in 0..SHARDS {
        let answer = cluster.node(1).kv().put(put(&key_of(shard, "new"), "v")).await.expect("it serves");
        let revision = answer.get_ref().header.expect("every answer has one").revision;
        assert!(revision > AHEAD, "shard {shard} goes on at revision {revision}");
        seen.note(answer.into_inner().header);
    }
    let resent = cluster.node(1).kv().put(once).await;
    assert_refused(resent, (Code::FailedPrecondition, v1::Reason::SessionExpired));

    // What is restored is a cluster like any other: it starts again, and can be backed up.
    let second = back_up(&cluster, "two.backup").await;
    for id in 1..=3 {
        assert_eq!(cluster.terminate(id).await.code, Some(0));
    }
    cluster.start_all().await;
    compare(&cluster, &there, &seen).await;
    only_its_own_nodes_are_let_in(&mut cluster, &second).await;
}

/// The term of each shard.
async fn terms(cluster: &Cluster) -> BTreeMap<u32, u64> {
    let status = cluster.node(1).cluster().status(v1::StatusRequest {}).await.expect("it serves");
    status.into_inner().replicas.iter().map(|replica| (replica.shard, replica.term)).collect()
}

/// Neither an empty node nor one that was restored from another backup is taken for the third.
async fn only_its_own_nodes_are_let_in(cluster: &mut Cluster, other_backup: &Path) {
    assert_eq!(cluster.terminate(3).await.code, Some(0));
    let start_in = |cluster: &Cluster, dir: &Path| {
        let mut command = cluster.bare_command(3);
        command.arg("--data-dir").arg(dir);
        Process::start(command)
    };
    let empty = cluster.dir().join("empty");
    start_in(cluster, &empty).ended().await.assert(19, &["belongs to cluster", "restored", "same file"]);
    let other = cluster.dir().join("other");
    assert_eq!(restore(cluster, 3, other_backup, &other, &[]).await.code, Some(0));
    start_in(cluster, &other).ended().await.assert(19, &["belongs to cluster"]);
    cluster.start_all().await;
    cluster.digests_agree().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_is_made_of_it() {
    let mut cluster = Cluster::quick(1).await;
    cluster.node(1).kv().put(put("k", "v")).await.expect("it serves");
    let file = back_up(&cluster, "good.backup").await;
    let used = cluster.node(1).data_dir.clone();
    assert_eq!(cluster.terminate(1).await.code, Some(0));
    let fresh = cluster.dir().join("fresh");
    restore(&cluster, 1, &file, &used, &[]).await.assert(2, &["not empty", "Nothing was changed"]);
    restore(&cluster, 1, &file, &fresh, &["--shards", "4"]).await.assert(2, &["--shards 8"]);
    let nowhere = cluster.dir().join("nowhere");
    restore(&cluster, 1, &nowhere, &fresh, &[]).await.assert(1, &["nowhere"]);

    let bytes = fs::read(&file).expect("it is there");
    let bad = cluster.dir().join("bad.backup");
    let middle = bytes.len() / 2;
    let mut flipped = bytes.clone();
    flipped[middle] ^= 1;
    let longer = [&bytes[..], &[0]].concat();
    for (content, word) in [
        (&flipped[..], "checksum"),
        (&bytes[..middle], "ends at byte"),
        (&bytes[..bytes.len() - 1], "ends at byte"),
        (&longer, "follow the end"),
        (b"--------kvbackup, but no more than its name: as long as a header is, and a bit", "checksum"),
        (&[0; 4096], "no backup"),
        (&[], "ends at byte 0"),
    ] {
        fs::write(&bad, content).expect("the directory is ours");
        restore(&cluster, 1, &bad, &fresh, &[])
            .await
            .assert(17, &["bad.backup", word, "Nothing was restored"]);
        let made: Vec<_> = fs::read_dir(&fresh).expect("it was locked").flatten().collect();
        assert!(made.iter().all(|entry| entry.file_name() == "LOCK"), "{word}: {made:?}");
    }
    for (content, word) in whole_but_wrong(&bytes) {
        fs::write(&bad, content).expect("the directory is ours");
        restore(&cluster, 1, &bad, &fresh, &[])
            .await
            .assert(17, &["bad.backup", word, "Nothing was restored"]);
    }
    // What was refused is in nobody's way.
    assert_eq!(restore(&cluster, 1, &file, &fresh, &[]).await.code, Some(0));
    cluster.nodes[0].data_dir = fresh.clone();
    cluster.start_all().await;
    let answer = cluster.node(1).kv().get(get("k")).await.expect("it serves").into_inner();
    assert_eq!(answer.kv.expect("it is there").value, "v");
    cluster.kill(1);
    a_restore_that_was_cut_off_is_not_started(&mut cluster, &fresh).await;
}

/// Backups whose own checksums and hash are right, and whose tables are not: what is wrong with each.
fn whole_but_wrong(bytes: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let mut reader = BackupReader::default();
    reader.feed(bytes).expect("it was just written");
    let summary = reader.finish().expect("it is whole");
    let table = |(part, at): &(BackupPart, u64)| {
        let at = usize::try_from(*at).expect("small");
        (*part, bytes[at..at + usize::try_from(part.length).expect("small")].to_vec())
    };
    let parts: Vec<(BackupPart, Vec<u8>)> = summary.parts.iter().map(table).collect();
    type Parts = Vec<(BackupPart, Vec<u8>)>;
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        let (mut writer, mut file) = BackupWriter::new(&summary.header);
        for (part, table) in parts {
            file.extend(writer.begin_part(&BackupPart { length: table.len() as u64, ..part }));
            file.extend_from_slice(&table);
            file.extend(writer.pass_table(&table).expect("all of it went by"));
        }
        file.extend(writer.finish());
        file
    };
    assert_eq!(changed(&|_| {}), bytes, "nothing is lost by taking it apart");
    let filled = parts.iter().position(|(part, _)| part.keys > 0).expect("a key was put");
    let pages = parts[filled].1.len() / 4096;
    // The header, the block, sessions, filter, index and footer are a page each.
    assert_eq!(pages, 6, "{:?}", parts[filled].0);
    let flipped = |page: usize| {
        changed(&|parts: &mut Vec<(BackupPart, Vec<u8>)>| parts[filled].1[page * 4096 + 100] ^= 4)
    };
    let mut wrong: Vec<_> = (0..pages).map(|page| (flipped(page), "checksum")).collect();
    let swapped = |parts: &mut Vec<(BackupPart, Vec<u8>)>| {
        let other = parts[1].1.clone();
        parts[1].1 = std::mem::replace(&mut parts[2].1, other);
    };
    wrong.push((changed(&swapped), "another than it says"));
    wrong.push((changed(&|parts| parts[3].0.revision.0 += 1), "another than it says"));
    wrong.push((changed(&|parts| parts[3].1.truncate(4096)), "the table of shard 3"));
    wrong
}

/// The identity comes last: without it, what there is of lanes is neither started nor restored over.
async fn a_restore_that_was_cut_off_is_not_started(cluster: &mut Cluster, dir: &Path) {
    for name in ["identity-a", "identity-b"] {
        fs::remove_file(dir.join(name)).expect("it was made");
    }
    let ended = Process::start(cluster.command(1)).ended().await;
    ended.assert(17, &["identity"]);
    let file = cluster.dir().join("good.backup");
    restore(cluster, 1, &file, dir, &[]).await.assert(2, &["not empty"]);
}

#[tokio::test]
async fn tables_are_made_on_request_by_each_node() {
    let cluster = Cluster::quick(3).await;
    for shard in 0..SHARDS {
        cluster.node(1).kv().put(put(&key_of(shard, "k"), "v")).await.expect("it serves");
    }
    let replicas = async |id: u32| {
        let status = cluster.node(id).cluster().status(v1::StatusRequest {}).await.expect("it serves");
        status.into_inner().replicas
    };
    let before = replicas(2).await;
    assert!(before.iter().all(|replica| replica.snapshot_index == 0), "nobody has asked: {before:?}");
    let only = v1::SnapshotRequest { shards: vec![3] };
    cluster.node(2).maintenance().snapshot(only).await.expect("it is made");
    for (replica, before) in replicas(2).await.iter().zip(&before) {
        let wanted = if replica.shard == 3 { before.applied_index } else { 0 };
        assert!(
            replica.snapshot_index >= wanted && (wanted > 0) == (replica.snapshot_index > 0),
            "{replica:?}"
        );
    }
    let (on_2, on_3) = (replicas(2).await, replicas(3).await);
    cluster.node(2).maintenance().snapshot(v1::SnapshotRequest::default()).await.expect("they are made");
    for (replica, before) in replicas(2).await.iter().zip(&on_2) {
        assert!(replica.snapshot_index >= before.applied_index, "{replica:?} after {before:?}");
    }
    assert!(replicas(3).await.iter().all(|replica| replica.snapshot_index == 0), "node 3 was not asked");

    let output = kvctl(&cluster, &["snapshot"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for (replica, before) in replicas(3).await.iter().zip(&on_3) {
        assert!(replica.snapshot_index >= before.applied_index, "{replica:?} after {before:?}");
    }
}
