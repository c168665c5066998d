//! Everything that may befall the files of one node while a cluster serves, one after the other and under
//! load: a full disk; bits that turn over in segments, tables and manifests, running and stopped; files that
//! are gone; a directory that is gone. Each time the cluster is whole again without help, and what was
//! acknowledged is there, once.
//!
//! The disk that fills up needs root, loop devices and perl; without them that part is skipped, and says so.

mod processes;

use std::cmp::Reverse;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use distribkv::wire::v1;
use processes::load::Load;
use processes::small_disk::SmallDisk;
use processes::{Cluster, PATIENCE};

/// The node that all of it befalls. No leader is better off than another: it leads some shards.
const VICTIM: u32 = 3;

/// Tables soon, and a look at all files every second. Of the log there are always segments that are needed
/// and not written to any more: one holds about 800 entries of each shard.
const SETTINGS: &str = "snapshot_bytes_max = 65536
snapshot_keep_entries = 2048
log_segments_max = 6
snapshot_interval_s = 1
block_cache_bytes = 1048576
scrub_bytes_per_s = 1073741824
scrub_interval_s = 1
";

/// How the names of the kinds of files begin and end.
const SEGMENT: (&str, &str) = ("seg-", ".log");
const TABLE: (&str, &str) = ("table-", ".tab");
const MANIFEST: (&str, &str) = ("manifest", "-a");

/// A running node looks at every file within this time, where the machine is not busy.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(3);

/// What is damaged of a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// A bit of its content turns over.
    Bit,
    /// It is gone.
    Gone,
}

/// A cluster under load, and what was seen of its damage so far.
struct Scene {
    cluster: Cluster,
    load: Load,
}

impl Scene {
    /// The files of the victim's lanes whose names begin and end so: of segments the oldest first, of tables,
    /// which another soon takes the place of, the newest.
    fn files(&self, begin: &str, end: &str) -> Vec<PathBuf> {
        let lanes = fs::read_dir(&self.cluster.node(VICTIM).data_dir).expect("it has a directory");
        let lanes = lanes.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("lane-"));
        let files =
            lanes.flat_map(|lane| fs::read_dir(lane.path()).expect("a lane is a directory").flatten());
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        let is_named = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(begin) && name.ends_with(end)
        };
        files.retain(is_named);
        files.sort();
        if (begin, end) == TABLE {
            let made_at = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
            files.sort_by_key(|path| Reverse(made_at(path)));
        }
        files
    }

    /// Harms files of a kind; those that were harmed. They may be let go of first.
    fn harm(kind: (&str, &str), paths: impl IntoIterator<Item = PathBuf>, harm: Harm) -> Vec<PathBuf> {
        let is_done = |path: &PathBuf| match harm {
            // Behind a header of a file there is the first record, key or number.
            Harm::Bit => flip(path, if kind == MANIFEST { 40 } else { 4096 + 60 }).is_ok(),
            Harm::Gone => fs::remove_file(path).is_ok(),
        };
        paths.into_iter().filter(is_done).collect()
    }

    /// What the victim has counted: damages, and those that are whole again.
    async fn counted(&self) -> (u64, u64) {
        let mut client = self.cluster.node(VICTIM).cluster();
        let status = client.status(v1::StatusRequest {}).await.expect("it answers").into_inner();
        let lanes = status.lanes.iter();
        lanes.fold((0, 0), |sum, lane| (sum.0 + lane.damaged_total, sum.1 + lane.repaired_total))
    }

    /// The victim counts: without another node nothing would be acknowledged but for it.
    async fn counts(&mut self) {
        self.cluster.whole(VICTIM).await;
        self.cluster.kill(1);
        self.load.goes_on(60).await;
        self.cluster.start(1);
        self.cluster.ready(1).await;
    }

    /// Harms files of the victim while it runs, and waits until it has found that and is whole again. Where
    /// what was harmed is let go of before anybody looks at it, or is kept for its room alone, it is the next
    /// one's turn; none is harmed twice, which would make it whole again.
    async fn harm_running(&mut self, kind: (&str, &str)) {
        let (before, _) = self.counted().await;
        let begun = Instant::now();
        let (mut harmed, mut names) = (None, Vec::new());
        while self.counted().await.0 == before {
            let said = self.cluster.node(VICTIM).process().said().join("\n");
            assert!(begun.elapsed() < PATIENCE, "node {VICTIM} does not find what was done to it:\n{said}");
            let is_time = harmed.is_none_or(|at: Instant| at.elapsed() > LOOKED_AT_WITHIN);
            let files = self.files(kind.0, kind.1);
            let fresh = files.into_iter().find(|path| !names.contains(&name(path)));
            for path in Self::harm(kind, fresh.filter(|_| is_time), Harm::Bit) {
                println!("running, a bit: {}", name(&path));
                names.push(name(&path));
                harmed = Some(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.counts().await;
    }

    /// The same while it is stopped, and all of a kind: a segment may be kept for its room alone, a table may
    /// not have been finished.
    async fn harm_stopped(&mut self, kind: (&str, &str), harm: Harm) {
        self.cluster.kill(VICTIM);
        let harmed = Self::harm(kind, self.files(kind.0, kind.1), harm);
        let names: Vec<String> = harmed.iter().map(|path| name(path)).collect();
        println!("stopped, {harm:?}: {names:?}");
        assert_eq!(self.cluster.verified(VICTIM).code, Some(3), "peers have what {names:?} held");
        self.load.goes_on(60).await;
        self.cluster.start(VICTIM);
        self.cluster.ready(VICTIM).await;
        self.counts().await;
    }

    /// The disk of the victim is filled by others, and freed again.
    async fn fill_disk(&mut self, disk: &SmallDisk) {
        disk.fill();
        let begun = Instant::now();
        while !self.says_full().await {
            assert!(begun.elapsed() < PATIENCE, "a full disk is not noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Two of three have room.
        self.load.goes_on(100).await;
        disk.empty();
        while self.says_full().await {
            assert!(begun.elapsed() < PATIENCE, "room is not noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("full and free again");
        self.counts().await;
    }

    async fn says_full(&self) -> bool {
        let mut client = self.cluster.node(VICTIM).cluster();
        let status = client.status(v1::StatusRequest {}).await.expect("it answers").into_inner();
        status.lanes.iter().any(|lane| lane.disk_full)
    }

    /// The victim loses its whole directory, and is recovered.
    async fn wipe(&mut self) {
        self.cluster.kill(VICTIM);
        let dir = self.cluster.node(VICTIM).data_dir.clone();
        fs::remove_dir_all(&dir).expect("nobody uses it");
        self.load.goes_on(60).await;
        let mut command = self.cluster.command(VICTIM);
        command.arg("--recover");
        self.cluster.nodes[VICTIM as usize - 1].process = Some(processes::Process::start(command));
        self.cluster.ready(VICTIM).await;
        println!("wiped and recovered");
        self.counts().await;
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Turns a bit over. A file that is being let go of may be gone, or end before it.
fn flip(path: &Path, at: u64) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 4;
    file.write_all_at(&byte, at)?;
    file.sync_all()
}

#[tokio::test]
async fn whatever_befalls_the_files_of_a_node_under_load_is_made_good() {
    tokio::task::LocalSet::new().run_until(mishaps()).await;
}

async fn mishaps() {
    let disk = SmallDisk::or_skip("a full disk under load", 256 << 20);
    let mut cluster = Cluster::with_small_files(3, SETTINGS, &[]);
    if let Some(disk) = &disk {
        cluster.nodes[VICTIM as usize - 1].data_dir = disk.path().join("data");
    }
    cluster.start_all().await;
    let load = Load::start(cluster.addresses(), 4);
    load.goes_on(400).await;
    let mut scene = Scene { cluster, load };
    if let Some(disk) = &disk {
        scene.fill_disk(disk).await;
    }
    scene.harm_running(TABLE).await;
    scene.harm_running(SEGMENT).await;
    // The copies of a manifest are read by a start alone.
    let manifest = scene.files(MANIFEST.0, MANIFEST.1);
    for path in Scene::harm(MANIFEST, manifest, Harm::Bit) {
        println!("running, a bit: {}", name(&path));
    }
    for harm in [Harm::Bit, Harm::Gone] {
        for kind in [TABLE, SEGMENT, MANIFEST] {
            scene.harm_stopped(kind, harm).await;
        }
    }
    scene.wipe().await;
    let Scene { mut cluster, load } = scene;
    println!("{:?}", load.stop_and_check().await);
    cluster.digests_agree().await;
    for id in 1..=3 {
        let ended = cluster.terminate(id).await;
        assert_eq!(ended.code, Some(0), "node {id}, asked to go: {}\n{}", ended.status, ended.said);
        let verified = cluster.verified(id);
        assert_eq!(verified.code, Some(0), "node {id}: {}", verified.said);
    }
}
