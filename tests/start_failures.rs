//! What goes wrong when a node starts: what the process says, in one clear line, and what it ends with; and
//! that a start that was refused changes nothing.
//!
//! Not provoked here: a denied io_uring, which needs another setting of the kernel.

mod processes;

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use distribkv::env::os::cpu;
use processes::{Cluster, Ended, Process, get, put, with_this_process};

const BLOCK: usize = 4096;

/// Runs a node to its end.
async fn run(command: std::process::Command) -> Ended {
    Process::start(command).ended().await
}

/// Runs a node with more flags to its end, and asserts that it has ended so.
async fn ends(cluster: &Cluster, id: u32, more: &[&str], (code, word): (i32, &str)) {
    let mut command = cluster.command(id);
    command.args(more);
    run(command).await.assert(code, &[word]);
}

/// The same with another data directory.
async fn ends_in(cluster: &Cluster, dir: &str, more: &[&str], (code, word): (i32, &str)) {
    let mut command = cluster.bare_command(cluster.nodes.last().expect("it has nodes").id);
    command.arg("--data-dir").arg(cluster.dir().join(dir)).args(more);
    run(command).await.assert(code, &[word]);
}

#[tokio::test]
async fn wrong_settings_are_refused_before_anything_is_opened() {
    let cluster = Cluster::new(3, &[]);
    let node = |more: &[&str]| {
        let mut command = cluster.command(1);
        command.args(more);
        run(command)
    };
    for (more, word) in [
        (&["--shards", "0"][..], "--shards"),
        (&["--cores", "many"], "--cores"),
        (&["--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let ended = node(more).await;
        assert_eq!(ended.code, Some(2), "{more:?}: {}", ended.said);
        assert!(ended.said.contains(word), "{more:?}: {}", ended.said);
    }
    let mut stranger = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    stranger.args(["--id", "9", "--peers", &cluster.addresses().join(","), "--data-dir"]);
    stranger.arg(&cluster.node(1).data_dir);
    let ended = run(stranger).await;
    assert_eq!(ended.code, Some(2), "{}", ended.said);
    assert!(ended.said.contains("--id"), "{}", ended.said);
    assert!(!cluster.node(1).data_dir.exists(), "nothing was opened");
}

#[tokio::test]
async fn too_little_lockable_memory_is_said_with_what_is_needed() {
    let cluster = Cluster::new(1, &[]);
    let node = cluster.command(1);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -l 64; exec \"$@\"", "sh"]).arg(node.get_program()).args(node.get_args());
    run(limited).await.assert(13, &["ulimit -l"]);
}

/// A command on one CPU alone.
fn on_cpu(cpu: usize, command: &Command) -> Command {
    let mut limited = Command::new("taskset");
    limited.args(["-c", &cpu.to_string()]).arg(command.get_program()).args(command.get_args());
    limited
}

/// What each executor of a process may run on, as the kernel writes it.
fn executors_run_on(process: &Process) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", process.id()))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:").is_some_and(|name| name.starts_with("kv-core-")) {
            found.push(field("Cpus_allowed_list:").expect("every thread has it").to_owned());
        }
    }
    Ok(found)
}

#[tokio::test]
async fn executors_are_pinned_to_the_cpus_that_the_process_was_left_and_to_no_others() {
    if let Err(error) = Command::new("taskset").arg("--version").output() {
        let said = format!("executors_are_pinned: SKIPPED, no taskset: {error}\n");
        return io::stderr().write_all(said.as_bytes()).expect("somebody listens");
    }
    let allowed = cpu::allowed().expect("it may be asked");
    let (first, last) = (allowed[0], *allowed.last().expect("this runs somewhere"));
    let cluster = Cluster::new(1, &[]);
    let file = cluster.dir().join("pinned.toml");
    fs::write(&file, "[node]\npin = true\ncores = \"auto\"\n").expect("the directory is ours");
    let pinned = |more: &[&str]| {
        let mut node = cluster.command(1);
        node.arg("--config").arg(&file).args(more);
        on_cpu(last, &node)
    };
    for cores in ["auto", "1", &format!("{last}-{last}")] {
        let node = Process::start(pinned(&["--cores", cores]));
        node.says("kvserver ready:").await;
        let on = executors_run_on(&node).expect("it runs");
        assert!(!on.is_empty() && on.iter().all(|cpu| *cpu == last.to_string()), "--cores {cores}: {on:?}");
    }
    let ours = format!("this process may use 1 ({last})");
    run(pinned(&["--cores", "2"])).await.assert(14, &["2 CPUs", &ours, "--no-pin"]);
    for other in [first, last + 1].into_iter().filter(|other| *other != last) {
        let (list, named) = (format!("{other}-{other},{last}"), format!("CPU {other} "));
        run(pinned(&["--cores", &list])).await.assert(14, &[&named, &ours, "--cores"]);
    }
}

#[tokio::test]
async fn a_node_whose_parent_has_ended_ends_whoever_has_taken_it_in() {
    let cluster = Cluster::new(1, &[]);
    let mut orphan = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    // Its parent is this process, and not the one that is named.
    orphan.arg("--die-with-parent=1").arg("--data-dir").arg(&cluster.node(1).data_dir);
    run(orphan).await.assert(1, &["the process that started this one has ended"]);
    assert!(!cluster.node(1).data_dir.exists(), "nothing was opened");
}

#[tokio::test]
async fn a_directory_and_an_address_belong_to_one_process() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all().await;
    ends(&cluster, 1, &["--listen", "localhost:1"], (10, "in use")).await;
    ends_in(&cluster, "other", &[], (11, "in use")).await;
    cluster.kill(1);
    cluster.start_all().await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_a_wiped_one_too() {
    let mut cluster = Cluster::quick(3).await;
    assert_eq!(cluster.terminate(3).await.code, Some(0));
    ends_in(&cluster, "other", &["--cluster-name", "x"], (19, "belongs to cluster")).await;
    fs::remove_dir_all(&cluster.node(3).data_dir).expect("it is stopped");
    ends(&cluster, 3, &[], (20, "replaced or wiped")).await;
}

#[tokio::test]
async fn a_stranger_at_the_place_of_a_node_ends_no_new_node() {
    let mut cluster = Cluster::new_quick(3);
    // A cluster of one may vote at once, and refuses both others as nodes of another cluster.
    let mut alone = Command::new(env!("CARGO_BIN_EXE_kvserver"));
    alone.args([&with_this_process(), "--profile", "dev", "--id", "1", "--peers", &cluster.node(3).address]);
    alone.arg("--data-dir").arg(cluster.dir().join("stranger"));
    let mut stranger = Process::start(alone);
    stranger.says("kvserver ready: node 1 of 1").await;
    cluster.start(1);
    cluster.start(2);
    for id in [1, 2] {
        let said = cluster.node(id).process().says("refused by node 3").await;
        assert!(said.contains("belongs to cluster") && said.contains("--peers"), "{said}");
        cluster.node(id).process().says("kvserver waiting: ").await;
        assert!(!cluster.nodes[id as usize - 1].process.as_mut().expect("it was started").has_ended());
    }
    stranger.kill();
    cluster.start(3);
    for id in 1..=3 {
        cluster.ready(id).await;
    }
    cluster.node(1).kv().put(put("k", "v")).await.expect("it serves");
}

/// A file of settings that no other node has.
fn other_settings(cluster: &Cluster) -> PathBuf {
    let file = cluster.dir().join("other.toml");
    fs::write(&file, "[cluster]\nlease_reads = true\n").expect("the directory is ours");
    file
}

#[tokio::test]
async fn a_node_that_differs_from_its_peers_is_refused_with_the_difference() {
    let mut cluster = Cluster::quick(3).await;
    assert_eq!(cluster.terminate(3).await.code, Some(0));
    let file = other_settings(&cluster);
    // One that has voted before ends once both others refuse it: they are a majority.
    let mut differs = cluster.command(3);
    differs.arg("--config").arg(&file);
    let ended = run(differs).await;
    ended.assert(19, &["refused by node 1", " and node 2", "--election-timeout-ms", "lease_reads=true"]);
    cluster.node(1).kv().put(put("k", "v")).await.expect("the others serve");
    cluster.node(2).process().says("node 3").await;
    // One that may not vote yet ends.
    let other = cluster.dir().join("other");
    let mut new = cluster.bare_command(3);
    new.arg("--data-dir").arg(&other).arg("--config").arg(&file);
    run(new).await.assert(19, &["settings", "--election-timeout-ms"]);
    fs::remove_dir_all(&other).expect("it was made");
    let mut new = cluster.bare_command(3);
    new.arg("--data-dir").arg(&other).args(["--shards", "16"]);
    run(new).await.assert(19, &["cluster", "--shards"]);
    cluster.start_all().await;
    cluster.digests_agree().await;
}

#[tokio::test]
async fn at_a_first_start_the_one_that_differs_ends_and_says_why() {
    let mut cluster = Cluster::new(3, &["--election-timeout-ms", "300", "--heartbeat-ms", "30"]);
    let file = other_settings(&cluster);
    cluster.start(1);
    cluster.start(2);
    let mut differs = cluster.command(3);
    let differing = Process::start({
        differs.arg("--config").arg(&file);
        differs
    });
    cluster.nodes[2].process = Some(differing);
    // Each of the other two refuses it, and is itself refused by one alone.
    let ended = cluster.nodes[2].process.as_mut().expect("it was started").ended().await;
    ended.assert(19, &["settings", "--election-timeout-ms"]);
    for node in &cluster.nodes {
        let said = node.process().said().join("\n");
        assert!(!said.contains("kvserver ready"), "node {} serves in a cluster that differs", node.id);
    }
    for id in [1, 2] {
        let said = cluster.node(id).process().says("is refused, and told so").await;
        assert!(said.contains("node 3") && said.contains("lease_reads=false"), "its own values: {said}");
        assert!(!cluster.nodes[id as usize - 1].process.as_mut().expect("it runs").has_ended());
    }
    // Once it agrees, what was begun goes on.
    cluster.nodes[2].process = None;
    cluster.start(3);
    for id in 1..=3 {
        cluster.ready(id).await;
    }
    cluster.node(3).kv().put(put("k", "v")).await.expect("it serves");
}

#[tokio::test]
async fn a_directory_of_another_node_or_cluster_is_not_used() {
    let mut cluster = Cluster::quick(3).await;
    let address = cluster.node(2).address.clone();
    assert_eq!(cluster.terminate(1).await.code, Some(0));
    assert_eq!(cluster.terminate(2).await.code, Some(0));
    let mut wrong = cluster.bare_command(2);
    wrong.arg("--data-dir").arg(&cluster.node(1).data_dir);
    run(wrong).await.assert(15, &["node-1", "it belongs to node 1, not to node 2"]);
    let mut wrong = cluster.command(2);
    wrong.args(["--cluster-name", "other"]);
    run(wrong).await.assert(15, &["node-2", "cluster"]);
    let mut wrong = cluster.command(2);
    wrong.args(["--shards", "4"]);
    run(wrong).await.assert(15, &["shards"]);
    cluster.start_all().await;
    assert_eq!(cluster.node(2).address, address);
    cluster.node(2).kv().put(put("k", "v")).await.expect("it serves as before");
}

/// The log files of a node, in their order.
fn segments(cluster: &Cluster, id: u32) -> Vec<PathBuf> {
    let lane = cluster.node(id).data_dir.join("lane-0");
    let entries = fs::read_dir(lane).expect("the lane is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut segments: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    segments.sort();
    segments
}

fn bytes_at(path: &PathBuf, at: u64, length: usize) -> Vec<u8> {
    let mut file = fs::File::open(path).expect("it is there");
    file.seek(SeekFrom::Start(at)).expect("it is a file");
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).expect("it is so long");
    bytes
}

fn overwrite(path: &PathBuf, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
    file.seek(SeekFrom::Start(at)).expect("it is a file");
    file.write_all(bytes).expect("it can be written");
    file.sync_all().expect("it can be synced");
}

#[tokio::test]
async fn every_kind_of_damage_stops_the_start_and_changes_nothing() {
    let mut cluster = Cluster::quick(1).await;
    for number in 0..100 {
        cluster.node(1).kv().put(put(&format!("k{number}"), "v")).await.expect("it serves");
    }
    assert_eq!(cluster.terminate(1).await.code, Some(0));
    let first = segments(&cluster, 1)[0].clone();
    let name = first.file_name().expect("it has one").to_string_lossy().into_owned();
    // A segment's header, a batch's header, its checksum, a record in it, and a later batch.
    for at in [0, BLOCK + 24, BLOCK + 48, BLOCK + 60, 20 * BLOCK + 8] {
        let good = bytes_at(&first, at as u64, 1);
        overwrite(&first, at as u64, &[good[0] ^ 0x10]);
        let before = fs::read(&first).expect("it is there");
        let block = (at / BLOCK * BLOCK).to_string();
        let place = format!("damaged at byte {block}");
        run(cluster.command(1)).await.assert(17, &[&name, &place, "nothing was changed"]);
        assert!(fs::read(&first).expect("it is there") == before, "nothing was changed by byte {at}");
        overwrite(&first, at as u64, &good);
    }
    cluster.start_all().await;
    let read = cluster.node(1).kv().get(get("k99")).await.expect("it serves").into_inner().kv;
    assert_eq!(read.map(|kv| kv.value), Some("v".into()));
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_what_was_acknowledged_is_kept() {
    let mut cluster = Cluster::quick(1).await;
    let mut acknowledged = 0;
    for round in 0..3 {
        for _ in 0..20 {
            cluster.node(1).kv().put(put(&format!("k{acknowledged}"), "v")).await.expect("it serves");
            acknowledged += 1;
        }
        let writes = tokio::spawn({
            let mut kv = cluster.node(1).kv();
            async move { while kv.put(put("more", vec![1; 50_000])).await.is_ok() {} }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.kill(1);
        writes.await.expect("it ends with its node");
        while !tear(&cluster) {
            cluster.start_all().await;
            cluster.node(1).kv().put(put("more", "begins a segment")).await.expect("it serves");
            cluster.kill(1);
        }
        cluster.start_all().await;
        let said = cluster.node(1).process().said().join("\n");
        assert!(said.contains("torn tail cut"), "round {round}:\n{said}");
        for number in 0..acknowledged {
            let read = cluster.node(1).kv().get(get(&format!("k{number}"))).await.expect("it serves");
            assert!(read.into_inner().kv.is_some(), "round {round}: k{number} was acknowledged");
        }
    }
}

/// Leaves a piece of a batch after the last one, as a power cut in a write does: its first block alone.
/// Whether there was room: batches of one length may fill a segment to its last block.
fn tear(cluster: &Cluster) -> bool {
    let used = |path: &PathBuf| bytes_at(path, BLOCK as u64, BLOCK).iter().any(|byte| *byte != 0);
    let last = segments(cluster, 1).into_iter().rfind(used).expect("something was written");
    let bytes = fs::read(&last).expect("it is there");
    let mut blocks = bytes.chunks(BLOCK);
    let end = blocks.rposition(|block| block.iter().any(|byte| *byte != 0)).expect("it has a header") + 1;
    let mut piece = bytes[BLOCK..2 * BLOCK].to_vec();
    // Its number: with another one the checksum is wrong, as it is where the rest did not arrive.
    piece[24] ^= 0xff;
    let has_room = (end + 1) * BLOCK <= bytes.len();
    if has_room {
        overwrite(&last, (end * BLOCK) as u64, &piece);
    }
    has_room
}
