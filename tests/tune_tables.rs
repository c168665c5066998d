//! What `kvserver tune` says of hosts that are made up: tables, summary, advice and profile, as a person
//! reads them. `UPDATE_GOLDENFILES=1 cargo test --test tune_tables` writes them anew; read the difference.

use std::fs;
use std::path::PathBuf;

use distribkv::config::Settings;
use distribkv::tune::disk::{DEPTHS, SIZES};
use distribkv::tune::facts::{Cpus, Device, Dir, FileSystem, Host, IoUring, Memory};
use distribkv::tune::page::{self, COLUMNS, Ink};
use distribkv::tune::{Cell, Disk, Measured, Pace, State, advise, findings, matters_at_start};

/// A host as it should be, with a fast disk.
fn good_host() -> Host {
    Host {
        kernel: "6.8.0-51-generic".into(),
        io_uring: IoUring::Works,
        lockable_bytes: u64::MAX,
        open_files_max: 1_048_576,
        cpus: Cpus { online: 16, allowed: 16, quota_milli: None, executors: Ok(16) },
        memory: Memory {
            total: 64 << 30,
            available: 60 << 30,
            cgroup_max: None,
            swap: 0,
            swappiness: Some(60),
        },
        dir: Dir {
            path: "/var/lib/distribkv".into(),
            file_system: FileSystem::of_magic(0x5846_5342),
            discards: false,
            direct_io: Ok(()),
            free_bytes: 800 << 30,
        },
        device: Some(Device {
            name: "nvme0n1".into(),
            write_cache: Some("write through".into()),
            scheduler: Some("none".into()),
            is_rotational: Some(false),
        }),
        huge_pages: Some("madvise".into()),
        governor: Some("performance".into()),
        load_milli: Some(500),
        clock_source: Some("tsc".into()),
    }
}

/// A disk that takes `us` for a small write, more for large ones, and does `lanes` of them at a time.
fn disk(us: u64, mega_per_s: u64, lanes: u64) -> Disk {
    let mut disk = Disk::default();
    for bytes in SIZES {
        for depth in DEPTHS {
            let one_us = us + u64::from(bytes) / mega_per_s;
            let at_once = u64::from(depth).min(lanes);
            let by_bytes = 1_000_000 * mega_per_s / u64::from(bytes);
            let writes = (1_000_000 * at_once / one_us).min(by_bytes);
            let waits_us = one_us * u64::from(depth) / at_once;
            let (p50_us, p99_us) = (waits_us, waits_us * 3);
            disk.cells.push(Cell { bytes, depth, writes, elapsed_us: 1_000_000, p50_us, p99_us });
        }
    }
    disk
}

/// This disk, and a CPU that runs evenly.
fn with_disk(disk: Disk) -> Measured {
    Measured { pace: Some(Pace { slots: vec![100; 400] }), disk: Some(disk) }
}

/// Everything that is printed, and what a start would say.
fn said(host: &Host, settings: &Settings, measured: &Measured) -> String {
    let found = findings(host, settings, measured);
    let disk = measured.disk.as_ref();
    let choices = advise(host, settings, disk);
    let mut text =
        page::findings_table(&found, Ink::Plain) + "\n" + &page::summary(&found, Ink::Plain) + "\n\n";
    if let Some(disk) = disk {
        text += &page::disk_table(disk, Ink::Plain);
        text += &page::paragraph(&distribkv::tune::advice::disk_words(host, settings, disk).join(" "));
        text.push('\n');
    }
    text += &page::advice_text(&choices, Ink::Plain);
    text += "\nat a start:\n";
    for finding in matters_at_start(host, settings) {
        text += &format!("  {}: {}, wanted {}\n", finding.what, finding.found, finding.wanted);
    }
    text += "\nas a profile:\n";
    text + &page::profile_text(&choices, "a host that is made up")
}

/// Holds what is said against the file of that name, and that it fits the width and loads as a profile.
fn check(name: &str, host: &Host, measured: &Measured) -> Settings {
    let mut settings = Settings::default();
    settings.cluster.peers = vec!["a:1".into(), "b:1".into(), "c:1".into()];
    settings.node.id = 1;
    let text = said(host, &settings, measured);
    for line in text.lines() {
        assert!(line.chars().count() <= COLUMNS, "{} columns: {line}", line.chars().count());
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/tune/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(&path, &text).expect("the golden directory is there");
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text == golden, "{} says otherwise now:\n{text}", path.display());
    let cluster = "[cluster]\npeers = [\"a:1\", \"b:1\", \"c:1\"]\n[node]\nid = 1".to_owned();
    let profile = page::profile_text(&advise(host, &settings, measured.disk.as_ref()), "a test");
    let layers = [("profile".to_owned(), profile), ("cluster".to_owned(), cluster)];
    let settings = Settings::of_layers(&layers).expect("a profile is settings");
    assert_eq!(settings.validate(), Ok(()));
    settings
}

/// The worst that is said of a host.
fn worst(host: &Host) -> State {
    let found = findings(host, &Settings::default(), &Measured::default());
    found.iter().map(|finding| finding.state).max().expect("there are findings")
}

#[test]
fn a_good_host() {
    let host = good_host();
    let settings = check("good_host", &host, &with_disk(disk(30, 2500, 32)));
    assert_eq!(worst(&host), State::Ok);
    assert_eq!(settings.node.segment_bytes, 256 << 20);
    assert!(settings.node.block_cache_bytes > 512 << 20);
}

#[test]
fn a_container_without_io_uring() {
    let refused = |disabled| IoUring::Refused {
        error: "Operation not permitted (os error 1)".into(),
        disabled: Some(disabled),
        is_filtered: true,
    };
    let host = Host {
        io_uring: refused(0),
        lockable_bytes: 64 << 10,
        open_files_max: 1024,
        cpus: Cpus { online: 16, allowed: 16, quota_milli: Some(1500), executors: Ok(2) },
        dir: Dir { file_system: FileSystem::of_magic(0x794C_7630), ..good_host().dir },
        device: None,
        governor: None,
        ..good_host()
    };
    let settings = check("container_without_io_uring", &host, &Measured::default());
    assert_eq!((settings.node.cores.as_str(), settings.node.pin), ("1", false));
    let of_sysctl = findings(&Host { io_uring: refused(2), ..host }, &settings, &Measured::default());
    let finding = of_sysctl.iter().find(|finding| finding.what == "io_uring").expect("it is looked at");
    assert!(finding.change.contains("io_uring_disabled=0"), "{finding:?}");
}

#[test]
fn an_nfs_file_system() {
    let dir = Dir {
        path: "/mnt/nas/distribkv".into(),
        file_system: FileSystem::of_magic(0x6969),
        free_bytes: 3 << 30,
        ..good_host().dir
    };
    let host = Host { dir, device: None, ..good_host() };
    let settings = check("nfs", &host, &with_disk(disk(2500, 80, 8)));
    assert_eq!(worst(&host), State::Needed);
    assert_eq!(settings.node.segment_bytes, 16 << 20, "there is little room");
}

#[test]
fn a_disk_that_rotates() {
    let device = Device {
        name: "sda".into(),
        write_cache: Some("write back".into()),
        scheduler: Some("bfq".into()),
        is_rotational: Some(true),
    };
    let host = Host {
        kernel: "5.10.0-28-amd64".into(),
        cpus: Cpus { online: 4, allowed: 4, quota_milli: None, executors: Ok(4) },
        memory: Memory { total: 8 << 30, available: 7 << 30, swap: 2 << 30, ..good_host().memory },
        dir: Dir { file_system: FileSystem::of_magic(0xEF53), discards: true, ..good_host().dir },
        device: Some(device),
        huge_pages: Some("always".into()),
        governor: Some("powersave".into()),
        load_milli: Some(9250),
        clock_source: Some("hpet".into()),
        ..good_host()
    };
    let settings = check("rotating_disk", &host, &with_disk(disk(9000, 120, 2)));
    assert_eq!(worst(&host), State::Better);
    assert_eq!(settings.node.snapshots_at_once_max, 1);
    let fast = findings(&host, &settings, &with_disk(disk(300, 400, 8)));
    let disk = fast.iter().find(|finding| finding.what == "disk").expect("it is looked at");
    assert_eq!(disk.state, State::Ok, "what it says of itself is overruled");
}

#[test]
fn a_cgroup_of_512_mib() {
    let memory = Memory { cgroup_max: Some(512 << 20), available: 480 << 20, ..good_host().memory };
    let cpus = Cpus { online: 8, allowed: 2, quota_milli: None, executors: Ok(2) };
    let host = Host { memory, cpus, lockable_bytes: 8 << 20, ..good_host() };
    let mut measured = with_disk(disk(400, 300, 4));
    measured.pace = Some(Pace { slots: (0..400).map(|slot| if slot % 50 < 9 { 20 } else { 100 }).collect() });
    let settings = check("cgroup_of_512_mib", &host, &measured);
    assert_eq!(worst(&host), State::Needed, "the defaults may take more than it has");
    let with_profile = findings(&host, &settings, &Measured::default());
    let memory = with_profile.iter().find(|finding| finding.what == "memory").expect("it is looked at");
    assert_eq!(memory.state, State::Ok, "with the profile that was advised it fits: {memory:?}");
}

#[test]
fn colours_are_only_where_they_are_asked_for() {
    let host = Host { io_uring: IoUring::Works, open_files_max: 1024, ..good_host() };
    let found = findings(&host, &Settings::default(), &Measured::default());
    let (plain, coloured) =
        (page::findings_table(&found, Ink::Plain), page::findings_table(&found, Ink::Coloured));
    assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'));
    let mut stripped = String::new();
    let mut parts = coloured.split('\u{1b}');
    stripped += parts.next().unwrap_or_default();
    parts.for_each(|part| stripped += part.split_once('m').expect("a code of colours").1);
    assert_eq!(stripped, plain, "colours move nothing");
}
