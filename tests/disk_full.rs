//! What real nodes do on real file systems that are full, or that give their files no more room.
//!
//! Those with disks need root, loop devices and perl. Where there are none, each says on standard error that
//! it was skipped, and why.

mod processes;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::{Env as _, File as _, OpenMode};
use distribkv::wire::v1;
use processes::load::Load;
use processes::small_disk::SmallDisk;
use processes::{Cluster, PATIENCE, assert_refused, error_of, get, put};
use tonic::{Code, Status};
use v1::kv_client::KvClient;

type Kv = KvClient<tonic::transport::Channel>;

const MIB: u64 = 1 << 20;
const VALUE_BYTES: usize = 128 << 10;
/// How long service may take to come back.
const SECONDS: Duration = Duration::from_secs(10);
/// Tables soon, since the disks are small.
const SETTINGS: &str = "snapshot_bytes_max = 1048576
snapshot_bytes_min = 131072
snapshot_interval_s = 5
block_cache_bytes = 8388608
";

fn value(number: usize) -> Vec<u8> {
    number.to_le_bytes().repeat(VALUE_BYTES / 8)
}

fn name(number: usize) -> String {
    format!("key-{number:06}")
}

fn delete(key: &str) -> v1::DeleteRequest {
    v1::DeleteRequest { key: key.to_owned().into(), ..v1::DeleteRequest::default() }
}

/// What is left of a file that found no room is free again as soon as it is removed: who makes the next one
/// would take it bit by bit otherwise, as it comes back, and never have enough.
#[test]
fn a_file_that_found_no_room_gives_it_back_at_once() {
    let Some(disk) = SmallDisk::or_skip("a file without room", 160 * MIB) else { return };
    let (path, before) = (disk.path().join("segment"), disk.free_bytes());
    let options = ExecutorOptions::new("disk-full", CorePlacement::Anywhere, 1);
    let core = start_executor(options, async move || {
        let env = GlommioEnv::new().expect("the kernel has random numbers");
        let file = env.open(&path, OpenMode::Create).await.expect("the disk takes a name");
        let full = file.allocate(before + 64 * MIB).await.expect_err("the disk is small");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        drop(file);
        env.remove(&path).await.expect("it is there");
    });
    core.expect("io_uring works here").join().expect("nothing in it panics");
    let free = disk.free_bytes();
    assert!(free + MIB >= before, "{free} of {before} bytes are free");
}

/// Puts a key, as often as tables have to be made first; whether the disk has room for it.
async fn put_patiently(kv: &mut Kv, number: usize) -> Result<(), Status> {
    let begun = Instant::now();
    loop {
        let Err(status) = kv.put(put(&name(number), value(number))).await else { return Ok(()) };
        match error_of(&status).reason() {
            v1::Reason::Overloaded => assert!(begun.elapsed() < PATIENCE, "key {number}: {status}"),
            v1::Reason::DiskFull => return Err(status),
            other => panic!("key {number} is refused for {other:?}: {status}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Puts keys until one is refused, with the status of the refusal; how many were not.
async fn fill(kv: &mut Kv) -> (usize, Status) {
    for number in 0..5000 {
        if let Err(status) = put_patiently(kv, number).await {
            return (number, status);
        }
    }
    panic!("the disk is small");
}

/// Waits until a put is served again.
async fn serves_again(kv: &mut Kv) {
    let begun = Instant::now();
    while let Err(status) = kv.put(put("again", "v")).await {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(begun.elapsed() < SECONDS, "not served {SECONDS:?} after there was room: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("serves again after {:?}", begun.elapsed());
}

/// Every key up to `end` is there with its value, but for those that are gone.
async fn check(kv: &mut Kv, end: usize, gone: &BTreeSet<usize>) {
    for number in 0..end {
        let found = kv.get(get(&name(number))).await.expect("reads go on").into_inner().kv;
        let expected = (!gone.contains(&number)).then(|| value(number));
        assert!(found.map(|kv| kv.value.to_vec()) == expected, "key {number} is not what was told");
    }
}

async fn disk_full_lanes(cluster: &Cluster, id: u32) -> usize {
    let status = cluster.node(id).cluster().status(v1::StatusRequest {}).await.expect("it answers");
    status.into_inner().lanes.iter().filter(|lane| lane.disk_full).count()
}

#[tokio::test]
async fn a_full_disk_refuses_growth_and_deletes_make_room() {
    let test = "a_full_disk_refuses_growth_and_deletes_make_room";
    let disks: Vec<SmallDisk> = (0..3).map_while(|_| SmallDisk::or_skip(test, 160 * MIB)).collect();
    if disks.len() < 3 {
        return;
    }
    let mut cluster = Cluster::with_small_files(3, SETTINGS, &[]);
    for (node, disk) in cluster.nodes.iter_mut().zip(&disks) {
        node.data_dir = disk.path().join("data");
    }
    cluster.start_all().await;
    let mut kv = cluster.node(1).kv();
    let (end, status) = fill(&mut kv).await;
    println!("{end} values of {VALUE_BYTES} bytes until: {}", status.message());
    assert_eq!(status.code(), Code::ResourceExhausted);
    // By its own disk, or by those of the others, whichever was heard of first.
    let says = ["bytes are free", "no quorum has room"];
    assert!(says.into_iter().any(|part| status.message().contains(part)), "{status}");
    assert!(end as u64 * VALUE_BYTES as u64 > 30 * MIB, "{end} values fill a disk of 160 MiB");
    let mut full = 0;
    for id in 1..=3 {
        full += disk_full_lanes(&cluster, id).await;
    }
    assert!(full > 0, "somebody says that its disk is full");
    check(&mut kv, end, &BTreeSet::new()).await;
    let before = disks.iter().map(SmallDisk::free_bytes).max().unwrap_or_default();
    let gone: BTreeSet<usize> = (0..end).filter(|number| number % 3 != 0).collect();
    for number in &gone {
        kv.delete(delete(&name(*number))).await.expect("deletes go on");
    }
    serves_again(&mut kv).await;
    let begun = Instant::now();
    while disks.iter().any(|disk| disk.free_bytes() < before + 20 * MIB) {
        let free: Vec<u64> = disks.iter().map(SmallDisk::free_bytes).collect();
        assert!(
            begun.elapsed() < PATIENCE,
            "at most {before} bytes were free before the deletes, {free:?} are"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("the data has shrunk on every disk {:?} after the last delete", begun.elapsed());
    check(&mut kv, end, &gone).await;
    (1..=3).for_each(|id| cluster.kill(id));
    cluster.start_all().await;
    check(&mut cluster.node(2).kv(), end, &gone).await;
    cluster.digests_agree().await;
}

#[tokio::test]
async fn a_disk_that_others_fill_to_the_last_block_ends_nothing_and_serves_again() {
    let test = "a_disk_that_others_fill_to_the_last_block_ends_nothing_and_serves_again";
    let Some(disk) = SmallDisk::or_skip(test, 200 * MIB) else { return };
    let mut cluster = Cluster::with_small_files(1, SETTINGS, &[]);
    cluster.nodes[0].data_dir = disk.path().join("data");
    cluster.start_all().await;
    let mut kv = cluster.node(1).kv();
    for number in 0..200 {
        put_patiently(&mut kv, number).await.expect("there is room");
    }
    disk.fill();
    let begun = Instant::now();
    while kv.put(put("last", "v")).await.is_ok() {
        assert!(begun.elapsed() < SECONDS, "puts are served although nothing is free");
    }
    assert_refused(kv.put(put("last", "v")).await, (Code::ResourceExhausted, v1::Reason::DiskFull));
    assert_eq!(disk_full_lanes(&cluster, 1).await, 1);
    // Deletes fill what the log has written ahead; then they are refused as well.
    let mut deletes = 0;
    let refused = loop {
        match kv.delete(delete(&format!("no-key-{deletes}"))).await {
            Ok(_) => deletes += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(error_of(&refused).reason(), v1::Reason::DiskFull, "after {deletes} deletes: {refused}");
    assert!(deletes > 500, "{deletes} deletes were logged");
    cluster.node(1).process().says("no more is written to the log until there is room").await;
    check(&mut kv, 200, &BTreeSet::new()).await;
    disk.empty();
    serves_again(&mut kv).await;
    kv.delete(delete("last")).await.expect("deletes are served too");
    check(&mut kv, 200, &BTreeSet::new()).await;
    let ended = cluster.terminate(1).await;
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("the disk has room again"), "{}", ended.said);
    // A start that finds the disk full waits for room, too.
    disk.fill();
    cluster.start(1);
    cluster.node(1).process().says("the disk is full: the start waits for room").await;
    disk.empty();
    cluster.ready(1).await;
    check(&mut cluster.node(1).kv(), 200, &BTreeSet::new()).await;
}

/// Limits the size of the files that a process may write.
fn limit_files(id: u32, bytes: &str) {
    let limit = format!("--fsize={bytes}:");
    let done = Command::new("prlimit").args(["--pid", &id.to_string(), &limit]).output();
    let done = done.expect("there is a prlimit");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A batch that the process' limit of file sizes cuts short, or refuses, is a failed write like any other.
#[tokio::test]
async fn a_limit_of_file_sizes_under_the_log_ends_its_node_and_loses_nothing() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut cluster = Cluster::quick(3).await;
            let load = Load::start(cluster.addresses(), 6);
            // Not of whole blocks: the write that crosses it is a short one.
            for (id, limit) in [(1, "411000"), (2, "1050000")] {
                load.goes_on(300).await;
                limit_files(cluster.node(id).process().id(), limit);
                let mut process = cluster.nodes[id as usize - 1].process.take().expect("it runs");
                process.ended().await.assert(18, &["a log write failed", "lane-", "seg-", " at byte "]);
                load.goes_on(200).await;
                cluster.start(id);
                cluster.ready(id).await;
            }
            println!("{:?}", load.stop_and_check().await);
            cluster.digests_agree().await;
        })
        .await;
}

/// A table that the limit does not allow is not made, and nothing else is lost by it.
#[tokio::test]
async fn a_limit_of_file_sizes_under_a_table_is_a_state_and_passes() {
    let mut cluster = Cluster::with_small_files(1, SETTINGS, &["--shards", "1"]);
    cluster.start(1);
    cluster.ready(1).await;
    let mut kv = cluster.node(1).kv();
    let process = cluster.node(1).process().id();
    limit_files(process, "11534336");
    let (end, status) = fill(&mut kv).await;
    println!("{end} values until: {}", status.message());
    cluster.node(1).process().says("no table was made").await;
    check(&mut kv, end, &BTreeSet::new()).await;
    limit_files(process, "unlimited");
    serves_again(&mut kv).await;
    check(&mut kv, end, &BTreeSet::new()).await;
    cluster.kill(1);
    cluster.start(1);
    cluster.ready(1).await;
    check(&mut cluster.node(1).kv(), end, &BTreeSet::new()).await;
}

/// A start that is given no room for its log says so.
#[tokio::test]
async fn a_start_without_room_for_a_segment_says_so() {
    let cluster = Cluster::with_small_files(1, SETTINGS, &[]);
    let mut command = Command::new("prlimit");
    command.arg("--fsize=1000000:1000000").arg(cluster.command(1).get_program());
    command.args(cluster.command(1).get_args());
    let ended = processes::Process::start(command).ended().await;
    ended.assert(1, &["seg-", "File too large"]);
}
