//! `kvserver verify` and `kvserver dump`: a look into the data directory of a node that does not run.
//!
//! Invariants: no file is made or opened for writing; a node that runs is left alone, and none can start
//! while this looks.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use distribkv::host::exit::Exit;
use distribkv::ids::ShardId;
use distribkv::inspect::{self, DirFiles, Selection};
use distribkv::log::batch::SegmentId;

use crate::args::{DumpArgs, VerifyArgs};

/// Checks a data directory and says what is found; the exit code.
pub fn verify(args: &VerifyArgs) -> Result<i32, Exit> {
    let _lock = lock(&args.data_dir)?;
    let report =
        inspect::verify(&DirFiles::new(&args.data_dir)).map_err(|source| io_of(&args.data_dir, source))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let said = report.findings.iter().try_for_each(|finding| writeln!(out, "{finding}"));
    said.and_then(|()| writeln!(out, "{report}")).and_then(|()| out.flush()).or_else(ignore_closed)?;
    Ok(report.code())
}

/// Prints what is in a data directory.
pub fn dump(args: &DumpArgs) -> Result<(), Exit> {
    let _lock = lock(&args.data_dir)?;
    let selection = Selection {
        shard: args.shard.map(ShardId),
        segment: args.segment.map(SegmentId),
        values: args.values,
    };
    // What fails is the directory's listing, or what takes the output.
    let files = DirFiles::new(&args.data_dir);
    let mut out = BufWriter::new(io::stdout().lock());
    let told = inspect::dump(&files, selection, &mut |fact| match args.json {
        true => writeln!(out, "{}", fact.json()),
        false => writeln!(out, "{fact}"),
    });
    match told.and_then(|()| out.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(io_of(&args.data_dir, source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Keeps nodes from starting on the directory, where one ever ran there. The lock goes with the file.
fn lock(dir: &Path) -> Result<Option<File>, Exit> {
    let file = match File::open(dir.join("LOCK")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_of(dir, source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Exit::DirectoryInUse(dir.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(io_of(dir, source)),
    }
}

fn io_of(dir: &Path, source: io::Error) -> Exit {
    Exit::Io { what: format!("data directory {}", dir.display()), source }
}

/// Whoever reads the output has seen enough: what was found counts all the same.
fn ignore_closed(source: io::Error) -> Result<(), Exit> {
    match source.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Exit::Io { what: "output".into(), source }),
    }
}
