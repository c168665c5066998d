//! `kvctl backup`: a backup into a file, checked as it comes.
//!
//! Invariants:
//! - Under its own name a file is whole, checked and durable; until then it is called `.partial`. What was
//!   there under the name stays until then.
//! - A backup that one node does not bring to its end is begun anew at the next. On standard output, where
//!   nothing can be taken back, it fails.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};

use distribkv::client::Clerk;
use distribkv::kv::backup::{BackupReader, BackupSummary};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::tables::Table;

/// Writes a backup into a file, or to standard output for `-`.
pub async fn backup(clerk: &Clerk, file: &Path) -> Result<BackupSummary, Failure> {
    if file == Path::new("-") {
        return to_stdout(clerk).await;
    }
    let partial = partial_of(file);
    let mut out = File::create(&partial).map_err(|error| Failure::Create(partial.clone(), error))?;
    let written = match from_any(clerk, &mut out, &partial).await {
        Ok(summary) => put_in_place(out, &partial, file).map(|()| summary),
        Err(failure) => Err(failure),
    };
    if written.is_err() {
        // What is said is why there is no backup; a file that is left says by its name what it is.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// The name of a backup that is not whole yet.
fn partial_of(file: &Path) -> PathBuf {
    let mut name: OsString = file.into();
    name.push(".partial");
    name.into()
}

/// Makes it durable, and gives it its name.
fn put_in_place(out: File, partial: &Path, file: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::Save(file.to_owned(), error);
    out.sync_all().map_err(failed)?;
    fs::rename(partial, file).map_err(failed)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Asks one endpoint after the other.
async fn from_any(clerk: &Clerk, out: &mut File, partial: &Path) -> Result<BackupSummary, Failure> {
    let mut last = Failure::NobodyAnswered;
    for address in clerk.endpoints() {
        let begun = out.set_len(0).and_then(|()| out.rewind());
        begun.map_err(|error| Failure::Save(partial.to_owned(), error))?;
        match from_one(clerk, address, out, |error| Failure::Save(partial.to_owned(), error)).await {
            Err(failure @ (Failure::Client(_) | Failure::Backup(..))) => {
                eprintln!("kvctl: {failure}");
                last = failure;
            }
            ended => return ended,
        }
    }
    Err(last)
}

/// Asks the endpoints until one has begun: from then on it is that one's.
async fn to_stdout(clerk: &Clerk) -> Result<BackupSummary, Failure> {
    let mut out = CountingWriter { inner: io::stdout().lock(), bytes: 0 };
    let mut last = Failure::NobodyAnswered;
    for address in clerk.endpoints() {
        match from_one(clerk, address, &mut out, Failure::Write).await {
            Err(failure @ Failure::Client(_)) if out.bytes == 0 => last = failure,
            Ok(summary) => return out.flush().map_err(Failure::Write).map(|()| summary),
            Err(failure) => return Err(failure),
        }
    }
    Err(last)
}

/// Writes what one node sends, and checks it.
async fn from_one(
    clerk: &Clerk,
    address: &str,
    out: &mut impl Write,
    unwritten: impl Fn(io::Error) -> Failure,
) -> Result<BackupSummary, Failure> {
    let wrong = |error| Failure::Backup(address.to_owned(), error);
    let mut stream = clerk.backup(address).await?;
    let mut reader = BackupReader::default();
    while let Some(bytes) = stream.next().await? {
        reader.feed(&bytes).map_err(wrong)?;
        out.write_all(&bytes).map_err(&unwritten)?;
    }
    reader.finish().map_err(wrong)
}

/// Counts what was written.
struct CountingWriter<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What a backup holds, as a table.
pub fn text_of(summary: &BackupSummary) -> String {
    let mut table = Table::new(&["SHARD", "REVISION", "INDEX", "TERM", "KEYS", "BYTES"]);
    for (part, _) in &summary.parts {
        let numbers =
            [u64::from(part.shard.0), part.revision.0, part.index.0, part.term.0, part.keys, part.bytes];
        table.row(numbers.iter().map(u64::to_string).collect());
    }
    let header = &summary.header;
    format!(
        "{}ok bytes={} hash={} cluster={:016x} node={}\n",
        table.render(),
        summary.length,
        summary.hash,
        header.cluster.0,
        header.node
    )
}

/// What a backup holds, as an object. The hash is text: JSON's numbers hold 53 bits.
pub fn json_of(summary: &BackupSummary, file: &Path) -> Value {
    let header = &summary.header;
    let shards = summary.parts.iter().map(|(part, _)| {
        json!({
            "shard": part.shard.0, "revision": part.revision.0, "index": part.index.0, "term": part.term.0,
            "keys": part.keys, "bytes": part.bytes,
        })
    });
    json!({
        "file": file.display().to_string(), "bytes": summary.length, "hash": summary.hash.to_string(),
        "cluster_id": header.cluster.0, "node": header.node.0, "made_ms": header.made_ms,
        "shards": shards.collect::<Vec<_>>(),
    })
}
