//! Replays the corpus of the fuzz targets in `tests/fuzz`: what once led somewhere leads there without a
//! fault still.

use std::path::Path;

#[path = "fuzz/src/targets.rs"]
mod targets;

/// The most bytes of all inputs: they are kept in the repository.
const CORPUS_BYTES_MAX: u64 = 200 << 10;

fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "{} inputs of {target}", paths.len());
    for path in paths {
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("it can be read"));
    }
}

#[test]
fn segments_are_replayed() {
    replay("segment", targets::segment);
}

#[test]
fn tables_are_replayed() {
    replay("table", targets::table);
}

#[test]
fn manifests_are_replayed() {
    replay("manifest", targets::manifest);
}

#[test]
fn peer_frames_are_replayed() {
    replay("peer_frame", targets::peer_frame);
}

#[test]
fn grpc_frames_are_replayed() {
    replay("grpc_frame", targets::grpc_frame);
}

#[test]
fn http2_connections_are_replayed() {
    replay("http2", targets::http2);
}

#[test]
fn the_corpus_is_small() {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")];
    let mut bytes = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("it can be read").map(|entry| entry.expect("it is there"))
        {
            let found = entry.metadata().expect("it is there");
            if found.is_dir() { dirs.push(entry.path()) } else { bytes += found.len() }
        }
    }
    assert!(bytes > 0 && bytes <= CORPUS_BYTES_MAX, "{bytes} bytes of inputs: `cargo fuzz cmin` keeps fewer");
}
