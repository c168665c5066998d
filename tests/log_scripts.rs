//! Golden scripts of a lane's log: what is appended, what is then on disk, and what a start makes of it.
//!
//! Every file of `tests/golden/log` is a directory of its own, on files in memory where every write works at
//! once. `UPDATE_GOLDENFILES=1 cargo test --test log_scripts` writes the outputs anew, for a person to read
//! the difference.
//!
//! | command | does |
//! |---|---|
//! | `open [segment=6] [batch=2]` | starts a process on the files; sizes in blocks |
//! | `append shard first data … [term=1] [commit=0] [vote=1]` | queues an append; `x@5000`: 5000 bytes of x |
//! | `append … [anew=index]` | the log begins anew behind an index of the term before |
//! | `append … [forgot=episode]` | the replica says that it may have forgotten |
//! | `run`, `pass ms` | lets it work, or lets time pass; says what completed |
//! | `release shard index term` | gives entries free |
//! | `close`, `kill` | ends the process, in order or not |
//! | `read shard first last [bytes=…]` | reads durable entries |
//! | `dump`, `status` | shows the files, or the lane |
//! | `zero id block [sectors from]` | makes a block of a segment read as zeros, whole or from a sector on |
//! | `flip name at bit` | turns a bit of a file over |
//! | `remove name` | removes a file |
//! | `keep id`, `land id` | notes a segment as it is, and puts it back: a write that lands late |

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use distribkv::env::Env;
use distribkv::ids::{Index, LaneId, NodeId, ShardId, Term};
use distribkv::log::batch::{Batch, NotABatch, SegmentId};
use distribkv::log::manifest::Manifest;
use distribkv::log::record::Record;
use distribkv::log::segment::{decode_segment_header, segment_name, segment_of_name};
use distribkv::log::{Append, Lane, LaneConfig, Recovery};
use distribkv::raft::{Entry, HardState, Standing};
use goldenscript::{ArgumentConsumer, Command, Context};

#[path = "sim/tests/log_mem/mod.rs"]
mod log_mem;

use log_mem::MemEnv;

type Failure = Box<dyn Error>;

const DIR: &str = "/lane-0";
const BLOCK: usize = 4096;
const SECTOR: usize = 512;

#[derive(Default)]
struct Script {
    env: MemEnv,
    lane: Option<Lane<MemEnv>>,
    number: u64,
    kept: BTreeMap<SegmentId, Vec<u8>>,
}

#[test]
fn golden_scripts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/log");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts lie beside the tests")
        .map(|entry| entry.expect("the directory can be read").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 8, "{} scripts in {dir}", paths.len());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Script::default(), &path).expect("the script runs as it did");
    }
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        let mut args = command.consume_args();
        let lines = self.act(&command.name, &mut args)?;
        args.reject_next()?;
        Ok(lines.into_iter().fold(String::new(), |text, line| text + &line + "\n"))
    }
}

fn next<T: FromStr>(args: &mut ArgumentConsumer<'_>, name: &str) -> Result<T, Failure>
where
    T::Err: Error + 'static,
{
    Ok(args.next_pos().ok_or_else(|| format!("which {name}?"))?.parse()?)
}

fn key<T: FromStr>(args: &mut ArgumentConsumer<'_>, name: &str, usual: T) -> Result<T, Failure>
where
    T::Err: Error + 'static,
{
    args.take_key(name).map_or(Ok(usual), |value| Ok(value.parse()?))
}

impl Script {
    fn act(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Vec<String>, Failure> {
        match name {
            "open" => self.open(args),
            "append" => self.append(args),
            "release" => self.release(args),
            "run" => {
                self.env.settle();
                self.completed()
            }
            "pass" => {
                self.env.pass(next(args, "milliseconds")?);
                self.completed()
            }
            "close" => {
                self.lane()?.close();
                self.env.pass(2);
                let completed = self.completed();
                self.stop();
                completed
            }
            "kill" => {
                self.stop();
                Ok(Vec::new())
            }
            "read" => self.read(args),
            "dump" => Ok(self.dump()),
            "status" => self.status(),
            _ => self.harm(name, args),
        }
    }

    fn lane(&self) -> Result<Lane<MemEnv>, Failure> {
        self.lane.clone().ok_or_else(|| "no process runs".into())
    }

    fn stop(&mut self) {
        self.lane = None;
        self.env.kill();
    }

    fn open(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<String>, Failure> {
        let config = LaneConfig {
            lane: LaneId(0),
            segment_bytes: key(args, "segment", 6)? * BLOCK as u64,
            batch_bytes_max: key(args, "batch", 2)? * BLOCK,
            batch_delay: Duration::from_millis(key(args, "delay", 0)?),
            queue_bytes_max: 64 << 10,
            seal_after: Duration::from_millis(10),
            damage: distribkv::log::OnDamage::Stop,
            #[cfg(debug_assertions)]
            planted: None,
        };
        let env = self.env.clone();
        let (lane, recovery) = self.env.run(async move {
            let (lane, recovery) = Lane::open(env.clone(), Path::new(DIR), config).await?;
            env.spawn(lane.clone().run());
            Ok::<_, Failure>((lane, recovery))
        })?;
        self.lane = Some(lane);
        Ok(describe(&recovery))
    }

    fn append(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<String>, Failure> {
        let shard = ShardId(next(args, "shard")?);
        let first: u64 = next(args, "index")?;
        let term = Term(key(args, "term", 1)?);
        let commit = key(args, "commit", 0)?;
        let vote: u32 = key(args, "vote", 0)?;
        let mut entries = Vec::new();
        while first > 0
            && let Some(data) = args.next_pos()
        {
            entries.push(Entry { index: Index(first + entries.len() as u64), term, data: data_of(data)? });
        }
        let state = HardState { term, vote: (vote > 0).then_some(NodeId(vote)), commit: Index(commit) };
        let hard_state = (commit > 0 || vote > 0).then_some(state);
        self.number += 1;
        let (anew, episode): (u64, u64) = (key(args, "anew", 0)?, key(args, "forgot", 0)?);
        let restart = (anew > 0).then_some((Index(anew), Term(term.0 - 1)));
        let standing = (episode > 0).then_some(Standing::Forgetful { episode, told: None });
        let append = Append { shard, number: self.number, hard_state, standing, restart, entries };
        self.lane()?.append(append)?;
        Ok(vec![format!("append {} queued", self.number)])
    }

    fn release(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<String>, Failure> {
        let (shard, index, term) = (next(args, "shard")?, next(args, "index")?, next(args, "term")?);
        self.lane()?.release(ShardId(shard), Index(index), Term(term))?;
        Ok(Vec::new())
    }

    fn completed(&self) -> Result<Vec<String>, Failure> {
        let lane = self.lane()?;
        let completions = lane.completions().into_iter();
        let mut lines: Vec<String> = completions
            .map(|done| format!("append {} of shard {} is durable", done.number, done.shard))
            .collect();
        lines.extend(lane.failed().map(|failure| failure.to_string()));
        Ok(lines)
    }

    fn read(&self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<String>, Failure> {
        let (shard, first, last) = (next(args, "shard")?, next(args, "first")?, next(args, "last")?);
        let bytes_max = key(args, "bytes", usize::MAX)?;
        let lane = self.lane()?;
        let read = async move { lane.read(ShardId(shard), Index(first), Index(last), bytes_max).await };
        let entries = self.env.run(read)?;
        Ok(entries.iter().map(|entry| entry_text(entry.index, entry.term, &entry.data)).collect())
    }

    fn status(&self) -> Result<Vec<String>, Failure> {
        let status = self.lane()?.status();
        let (segments, blocks, queued) =
            (status.segments, status.log_bytes / BLOCK as u64, status.queued_bytes);
        Ok(vec![format!("{segments} segments of {blocks} blocks, {queued} bytes queued, {:?}", status.space)])
    }

    fn harm(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Vec<String>, Failure> {
        let target: String = next(args, "file or segment")?;
        let path = match target.parse() {
            Ok(id) => Path::new(DIR).join(segment_name(SegmentId(id))),
            Err(_) => Path::new(DIR).join(&target),
        };
        let mut bytes = self.env.files().remove(&path);
        let id = segment_of_name(path.file_name().and_then(|name| name.to_str()).unwrap_or_default());
        match (name, &mut bytes, id) {
            ("zero", Some(bytes), _) => {
                let block: usize = next(args, "block")?;
                let sector: usize = args.next_pos().map_or(Ok(0), str::parse)?;
                bytes[block * BLOCK + sector * SECTOR..(block + 1) * BLOCK].fill(0);
            }
            ("flip", Some(bytes), _) => {
                let at: usize = next(args, "byte")?;
                bytes[at] ^= 1 << next::<u8>(args, "bit")?;
            }
            ("remove", _, _) => bytes = None,
            ("keep", Some(bytes), Some(id)) => {
                self.kept.insert(id, bytes.clone());
            }
            ("land", _, Some(id)) => bytes = self.kept.remove(&id),
            (name, ..) => return Err(format!("nothing to {name}").into()),
        }
        self.env.change(|files| match bytes {
            Some(bytes) => drop(files.insert(path, bytes)),
            None => drop(files.remove(&path)),
        });
        Ok(Vec::new())
    }

    fn dump(&self) -> Vec<String> {
        self.env.files().iter().flat_map(|(path, bytes)| file_text(path, bytes)).collect()
    }
}

fn data_of(word: &str) -> Result<Bytes, Failure> {
    match word.split_once('@') {
        Some((byte, count)) => Ok(Bytes::from(byte.repeat(count.parse()?))),
        None => Ok(Bytes::copy_from_slice(word.as_bytes())),
    }
}

fn describe(recovery: &Recovery) -> Vec<String> {
    let (batches, segments) = (recovery.batches, recovery.segments);
    let mut lines = vec![format!("found {batches} batches in {segments} segments")];
    for (shard, found) in &recovery.shards {
        let mut line = format!("shard {shard}: entries {} to {}", found.first_index, found.last_index);
        for (index, term) in &found.terms {
            let _ = write!(line, ", term {term} from {index}");
        }
        let HardState { term, vote, commit } = found.hard_state;
        let vote = vote.map_or("nobody".to_string(), |node| format!("node {node}"));
        let _ = write!(line, "; term {term}, vote for {vote}, committed {commit}");
        if let Some((index, term)) = found.released {
            let _ = write!(line, "; released to {index} of term {term}");
        }
        if let Some(standing) = found.standing {
            let _ = write!(line, "; {standing:?}");
        }
        lines.push(line);
    }
    lines.extend(recovery.carried.map(|sequence| format!("batch {sequence} was carried over")));
    lines.extend(recovery.cut.as_ref().map(|cut| {
        let (sequence, file, offset) = (cut.sequence, cut.file.display(), cut.offset);
        format!("a torn batch {sequence} was cut: {file} at byte {offset}: {}", cut.found)
    }));
    if !recovery.manifest.agree() {
        lines.push(format!("manifest copies: {:?}", recovery.manifest.copies));
    }
    lines.extend(recovery.kept.iter().map(|path| format!("kept {}", path.display())));
    lines.extend(recovery.removed.iter().map(|path| format!("removed {}", path.display())));
    lines
}

fn entry_text(index: Index, term: Term, data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let data = if data.len() > 20 { format!("{}@{}", &text[..1], data.len()) } else { text.into_owned() };
    format!("{index}/{term} {data}")
}

fn record_text(record: &Record<'_>) -> String {
    match *record {
        Record::Entry { shard, index, term, data } => {
            format!("shard {shard} {}", entry_text(index, term, data))
        }
        Record::HardState { shard, state } => {
            let vote = state.vote.map_or(0, |node| node.0);
            format!("shard {shard} term {} vote {vote} commit {}", state.term, state.commit)
        }
        Record::Released { shard, index, term } => format!("shard {shard} released {index}/{term}"),
        Record::Standing { shard, standing } => format!("shard {shard} is {standing:?}"),
        Record::Restart { shard, index, term } => format!("shard {shard} begins anew behind {index}/{term}"),
        Record::End { shard, index, term } => format!("shard {shard} ends with {index}/{term}"),
    }
}

fn file_text(path: &Path, bytes: &[u8]) -> Vec<String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match segment_of_name(name) {
        Some(id) => segment_text(id, bytes),
        None => vec![format!("{name}: {}", manifest_text(bytes))],
    }
}

fn manifest_text(bytes: &[u8]) -> String {
    let length = u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]) as usize;
    let Some(manifest) = bytes.get(24..24 + length).and_then(Manifest::decode) else {
        return "not whole".to_string();
    };
    let mut text = format!("generation {}, starts after batch {}", bytes[8], manifest.start.sequence);
    for segment in &manifest.segments {
        let end = segment.end.map_or("open".to_string(), |end| format!("ends with batch {}", end.sequence));
        let _ = write!(text, "; segment {} {end}", segment.id);
    }
    text
}

fn segment_text(id: SegmentId, bytes: &[u8]) -> Vec<String> {
    let mut lines = vec![format!("segment {id}: {} blocks", bytes.len() / BLOCK)];
    let Some((place, _)) = decode_segment_header(bytes) else {
        lines.push("  no header".to_string());
        return lines;
    };
    let mut at = BLOCK;
    while at < bytes.len() {
        match Batch::decode(&bytes[at..], &place) {
            Ok(batch) => {
                let mut line = format!("  block {}: batch {}", at / BLOCK, batch.header.sequence);
                let mut records = 0;
                let walked: Result<(), distribkv::log::record::RecordError> = batch.each_record(|record| {
                    let _ = write!(line, "{} {}", if records == 0 { ":" } else { "," }, record_text(&record));
                    records += 1;
                    Ok(())
                });
                assert_eq!(walked, Ok(()), "a batch that the log wrote");
                lines.push(if records == 0 { line + ": seal" } else { line });
                at += batch.bytes();
            }
            Err(error) => {
                let is_bare =
                    matches!(error, NotABatch::Magic) && bytes[at..at + BLOCK].iter().all(|&b| b == 0);
                if !is_bare {
                    lines.push(format!("  block {}: {error}", at / BLOCK));
                }
                at += BLOCK;
            }
        }
    }
    lines
}
