//! `kvserver tune`: looks at the host, measures its disk and a CPU, says what would be better; and the few
//! lines of it that a node says when it starts.
//!
//! Nothing is changed but two files that are its own: the scratch file that the disk is measured with, which
//! is gone afterwards, however the command ends but by SIGKILL; and the profile, where one is asked for.

pub mod gather;
mod json;
mod measure;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use distribkv::config::Settings;
use distribkv::env::os::signal;
use distribkv::host::exit::Exit;
use distribkv::tune::advice::disk_words;
use distribkv::tune::facts::{Host, IoUring};
use distribkv::tune::page::{self, COLUMNS, Ink};
use distribkv::tune::{Choice, Disk, Finding, Measured, State, advise, findings, matters_at_start};

use crate::args::TuneArgs;
use crate::placement::cores_of;

/// What the process ends with where it is interrupted.
const INTERRUPTED: i32 = 130;

/// Looks, measures and says; what the process ends with.
pub fn run(args: &TuneArgs) -> Result<(), Exit> {
    let settings = args.node.settings().map_err(Exit::Usage)?;
    if let Some(file) = args.write.as_deref().filter(|file| file.exists() && !args.force) {
        return Err(Exit::Usage(format!("--write {}: it exists; --force replaces it", file.display())));
    }
    let host = gather::host(&settings)?;
    let measured = if args.check { Measured::default() } else { measure(args, &host)? };
    let found = findings(&host, &settings, &measured);
    let choices = advise(&host, &settings, measured.disk.as_ref());
    let text = if args.json {
        json::report((&host, &measured), &found, &choices)
    } else {
        let ink = ink();
        let mut text = if args.check { check_text(&found, ink) } else { findings_text(&host, &found, ink) };
        if let Some(disk) = &measured.disk {
            text += &disk_text((&host, disk), &settings, ink);
        }
        if !args.check || args.write.is_some() {
            text += &advice_text(&choices, args, ink);
        }
        text
    };
    print(&text)?;
    if let Some(file) = &args.write {
        write_profile(file, &choices, &host, args.force)?;
    }
    let needed = found.iter().filter(|finding| finding.state == State::Needed).count();
    if needed > 0 { Err(Exit::Unfit { needed }) } else { Ok(()) }
}

/// Has a node that starts say what matters, on a thread of its own: a slow file system or a strange host
/// holds nothing up, and what cannot be found out is not said.
pub fn warn_at_start(settings: &Settings) {
    let settings = settings.clone();
    let looking = move || {
        let Ok(host) = gather::host(&settings) else { return };
        for finding in matters_at_start(&host, &settings) {
            let Finding { what, found, wanted, change, .. } = finding;
            tracing::warn!(what, %found, %wanted, %change, "the host could be better: see `kvserver tune`");
        }
    };
    // Where no thread can be had the start itself will say so.
    drop(thread::Builder::new().name("host-check".into()).spawn(looking));
}

/// The disk and then a CPU, each measured where that is possible.
fn measure(args: &TuneArgs, host: &Host) -> Result<Measured, Exit> {
    if host.io_uring != IoUring::Works {
        eprintln!("kvserver tune: nothing is measured: io_uring is refused");
        return Ok(Measured::default());
    }
    let disk = measure_disk(args, host)?;
    if io::stderr().is_terminal() {
        eprintln!("Measuring how evenly a CPU runs for {} s ...", args.seconds);
    }
    let pace = measure::pace(Duration::from_secs(args.seconds))
        .inspect_err(|error| eprintln!("kvserver tune: the CPU is not measured: {error}"))
        .ok();
    Ok(Measured { pace, disk })
}

/// The disk, measured where that is possible.
fn measure_disk(args: &TuneArgs, host: &Host) -> Result<Option<Disk>, Exit> {
    let complain = |why: &str| eprintln!("kvserver tune: the disk is not measured: {why}");
    if host.dir.free_bytes < 4 * measure::SCRATCH_BYTES {
        complain(&format!("only {} are free", page::bytes_text(host.dir.free_bytes)));
        return Ok(None);
    }
    let scratch = Path::new(&host.dir.path).join(format!("tune-scratch-{}", std::process::id()));
    let removed = scratch.clone();
    signal::watch(move |_| {
        // It may not be there yet, or not any more.
        let _ = std::fs::remove_file(&removed);
        std::process::exit(INTERRUPTED);
    })
    .map_err(|source| Exit::Io { what: "watching signals".into(), source })?;
    let (seconds, dir) = (args.seconds, &host.dir.path);
    if io::stderr().is_terminal() {
        eprintln!("Measuring durable writes in {dir} for about {seconds} s ...");
    }
    let measured = measure::disk(&scratch, Duration::from_secs(seconds));
    match std::fs::remove_file(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("kvserver tune: {} is left behind: {error}", scratch.display());
        }
        Ok(()) | Err(_) => {}
    }
    match measured {
        Ok(disk) => Ok(Some(disk)),
        Err(error) => {
            complain(&error.to_string());
            Ok(None)
        }
    }
}

fn ink() -> Ink {
    let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !wants_none { Ink::Coloured } else { Ink::Plain }
}

fn title(text: &str, ink: Ink) -> String {
    let line = "─".repeat(COLUMNS - text.chars().count() - 4);
    ink.bold(&format!("── {text} {line}")) + "\n"
}

fn findings_text(host: &Host, found: &[Finding], ink: Ink) -> String {
    let head = title(&format!("This host, for a node in {}", host.dir.path), ink);
    head + &page::findings_table(found, ink) + "\n" + &page::summary(found, ink) + "\n"
}

/// Only what is not as it should be.
fn check_text(found: &[Finding], ink: Ink) -> String {
    let matters: Vec<Finding> =
        found.iter().filter(|finding| finding.state > State::Unknown).cloned().collect();
    let table = if matters.is_empty() { String::new() } else { page::findings_table(&matters, ink) + "\n" };
    table + &page::summary(found, ink) + "\n"
}

fn disk_text((host, disk): (&Host, &Disk), settings: &Settings, ink: Ink) -> String {
    let words = disk_words(host, settings, disk).join(" ");
    let head = title("Its disk: durable writes, as the log makes them (O_DIRECT, O_DSYNC, io_uring)", ink);
    format!("\n{head}{}\n{}", page::disk_table(disk, ink), page::paragraph(&words))
}

fn advice_text(choices: &[Choice], args: &TuneArgs, ink: Ink) -> String {
    let head = title("What follows for the settings", ink);
    let next = match &args.write {
        Some(file) => format!("Written to {0}: start the node with --profile {0}", file.display()),
        None => "Nothing was changed. --write FILE writes these as a profile, for --profile FILE".into(),
    };
    format!("\n{head}{}\n{next}.\n", page::advice_text(choices, ink))
}

fn print(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| Exit::Io { what: "standard output".into(), source })
}

fn write_profile(file: &Path, choices: &[Choice], host: &Host, force: bool) -> Result<(), Exit> {
    let failed = |source| Exit::Io { what: format!("--write {}", file.display()), source };
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let made_for = format!("a node in {} on Linux {}", host.dir.path, host.kernel);
    let mut out = options.open(file).map_err(failed)?;
    out.write_all(page::profile_text(choices, &made_for).as_bytes()).map_err(failed)
}

/// How many executors a node would have here.
pub fn executors(settings: &Settings) -> Result<u64, String> {
    cores_of(settings).map(u64::from).map_err(|exit| exit.to_string())
}
