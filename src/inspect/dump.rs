//! What is in a data directory, one fact a line, in the order of the directory.
//!
//! | fact | is |
//! |---|---|
//! | `identity`, `noted` | who the directory is, and which directories of other nodes it has noted |
//! | `copy` | one copy of an identity or a manifest |
//! | `lane`, `segment`, `table` | what a manifest says |
//! | `batch` | a whole batch of a segment, up to the segment's recorded end |
//! | `entry`, `hard-state`, `released`, `standing`, `restart` | a record of the batch before it |
//! | `no-batch` | blocks in which no batch begins, up to the next one or the end |
//! | `footer`, `block`, `key` | what is in a table |
//! | `problem` | what cannot be read; `verify` says more |
//!
//! It deliberately judges nothing: a torn tail and damage look the same here.

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::env::BLOCK_BYTES;
use crate::ids::{LaneId, ShardId};
use crate::kv::table::{EntryRef, Footer, TableIndex};
use crate::kv::{Command, Write};
use crate::log::batch::{Batch, SegmentId};
use crate::log::identity::Identity;
use crate::log::manifest::{Manifest, SegmentMeta, TableRef, table_name};
use crate::log::record::{Record, RecordError};
use crate::log::segment::{SEGMENT_DATA_AT, segment_name};
use crate::log::twin::TwinKind;
use crate::raft::Standing;

use super::files::Files;
use super::segment::SegmentReader;
use super::table::TableReader;
use super::twins::{CopyFound, Twins, join};
use super::verify::{identity_of, lanes, manifest_of};

/// How much of a key or value is shown.
const SHOWN_BYTES_MAX: usize = 64;

/// Which facts are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    /// Only what is of this shard.
    pub shard: Option<ShardId>,
    /// Only the batches of this segment, and no tables.
    pub segment: Option<SegmentId>,
    /// Values, and not only their lengths.
    pub values: bool,
}

/// What a field of a fact holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A number.
    Number(u64),
    /// A number that is read as hexadecimal digits.
    Hex(u64),
    /// A word, or several.
    Text(String),
    /// Bytes as text: what is not ASCII escaped, and no more than the beginning where they are many.
    Bytes(String),
}

/// One fact: what it is about, and what is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub kind: &'static str,
    /// What is so, in order.
    pub fields: Vec<(&'static str, Field)>,
}

impl Fact {
    fn of(kind: &'static str) -> Self {
        Self { kind, fields: Vec::new() }
    }

    fn number(mut self, name: &'static str, value: impl Into<u64>) -> Self {
        self.fields.push((name, Field::Number(value.into())));
        self
    }

    fn hex(mut self, name: &'static str, value: u64) -> Self {
        self.fields.push((name, Field::Hex(value)));
        self
    }

    fn text(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.fields.push((name, Field::Text(value.to_string())));
        self
    }

    fn bytes(mut self, name: &'static str, value: &[u8]) -> Self {
        let shown = &value[..value.len().min(SHOWN_BYTES_MAX)];
        let more = if shown.len() < value.len() { "…" } else { "" };
        self.fields.push((name, Field::Bytes(format!("{}{more}", shown.escape_ascii()))));
        self
    }

    /// The fact as an object of JSON, on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let mut line = format!("{{\"fact\":{}", quoted(self.kind));
        for (name, field) in &self.fields {
            let value = match field {
                Field::Number(number) => number.to_string(),
                Field::Hex(number) => quoted(&format!("{number:016x}")),
                Field::Text(text) | Field::Bytes(text) => quoted(text),
            };
            line.push_str(&format!(",{}:{value}", quoted(name)));
        }
        line.push('}');
        line
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        self.fields.iter().try_for_each(|(name, field)| match field {
            Field::Number(number) => write!(f, " {name}={number}"),
            Field::Hex(number) => write!(f, " {name}={number:016x}"),
            Field::Text(text) if text.contains(' ') => write!(f, " {name}={text:?}"),
            Field::Text(text) => write!(f, " {name}={text}"),
            Field::Bytes(text) => write!(f, " {name}=\"{text}\""),
        })
    }
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Tells every fact of a data directory that is wanted.
///
/// # Errors
/// The directory itself cannot be read, or `tell` fails.
pub fn dump(
    files: &impl Files,
    selection: Selection,
    tell: &mut dyn FnMut(Fact) -> io::Result<()>,
) -> io::Result<()> {
    let names = files.list("")?;
    let mut dump = Dump { files, selection, tell };
    let twins = Twins::read(files, "", TwinKind::Identity);
    dump.copies(&twins)?;
    let identity = identity_of(&twins);
    match &identity {
        Ok(Some(identity)) => dump.identity(identity)?,
        Ok(None) => {}
        Err(what) => dump.problem(&twins.names[0], what)?,
    }
    let known = identity.ok().flatten();
    for (lane, _) in lanes(&names, known.as_ref()).into_iter().filter(|(_, is_there)| *is_there) {
        dump.lane(lane)?;
    }
    Ok(())
}

struct Dump<'a, F: Files> {
    files: &'a F,
    selection: Selection,
    tell: &'a mut dyn FnMut(Fact) -> io::Result<()>,
}

impl<F: Files> Dump<'_, F> {
    fn say(&mut self, fact: Fact) -> io::Result<()> {
        (self.tell)(fact)
    }

    fn problem(&mut self, file: &str, what: impl fmt::Display) -> io::Result<()> {
        self.say(Fact::of("problem").text("file", file).text("what", what))
    }

    fn wants(&self, shard: ShardId) -> bool {
        self.selection.shard.is_none_or(|wanted| wanted == shard)
    }

    fn copies(&mut self, twins: &Twins) -> io::Result<()> {
        for (name, copy) in twins.names.iter().zip(&twins.copies) {
            let fact = Fact::of("copy").text("file", name);
            self.say(match copy {
                CopyFound::Whole { generation, .. } => {
                    fact.text("state", "whole").number("generation", *generation)
                }
                CopyFound::Missing => fact.text("state", "missing"),
                CopyFound::Damaged => fact.text("state", "damaged"),
                CopyFound::Format(format) => fact.text("state", "unknown").number("format", *format),
                CopyFound::Unreadable(error) => fact.text("state", "unreadable").text("error", error),
            })?;
        }
        Ok(())
    }

    fn identity(&mut self, identity: &Identity) -> io::Result<()> {
        let fact = Fact::of("identity")
            .number("node", identity.node.0)
            .number("nodes", identity.nodes)
            .number("shards", identity.shards)
            .number("lanes", identity.lanes)
            .text("entitled", identity.entitled)
            .hex("directory", identity.directory.0)
            .hex("cluster", identity.cluster.0)
            .hex("settings", identity.cluster_hash)
            .number("starts", identity.starts)
            .number("recovered_at", identity.recovered_at.0)
            .hex("origin", identity.origin.0)
            .number("format", identity.format);
        self.say(fact)?;
        for (node, noted) in &identity.noted {
            let fact = Fact::of("noted").number("node", node.0).hex("directory", noted.directory.0);
            self.say(fact.number("recovered_at", noted.recovered_at.0))?;
        }
        Ok(())
    }

    fn lane(&mut self, lane: LaneId) -> io::Result<()> {
        let dir = format!("{}{lane}", crate::log::LANE_DIR_PREFIX);
        let twins = Twins::read(self.files, &dir, TwinKind::Manifest);
        self.copies(&twins)?;
        let manifest = match manifest_of(&twins) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(()),
            Err(what) => return self.problem(&twins.names[0], what),
        };
        let fact = Fact::of("lane")
            .number("lane", manifest.lane.0)
            .number("starts_behind", manifest.start.sequence.0)
            .hex("chain", manifest.start.chain.0.into())
            .number("next_segment", manifest.next_segment.0);
        self.say(fact)?;
        for meta in &manifest.segments {
            self.segment(&dir, &manifest, meta)?;
        }
        for (shard, named) in &manifest.tables {
            self.table(&dir, *shard, named)?;
        }
        Ok(())
    }

    fn segment(&mut self, dir: &str, manifest: &Manifest, meta: &SegmentMeta) -> io::Result<()> {
        let file = join(dir, &segment_name(meta.id));
        let fact = Fact::of("segment").text("file", &file).hex("salt", meta.salt).number("bytes", meta.bytes);
        let fact = match meta.end {
            None => fact.text("end", "open"),
            Some(end) => fact.number("end", end.sequence.0).hex("chain", end.chain.0.into()),
        };
        self.say(fact)?;
        if self.selection.segment.is_some_and(|wanted| wanted != meta.id) {
            return Ok(());
        }
        let bytes = match self.files.len(&file) {
            Ok(found) => found.min(meta.bytes),
            Err(error) => return self.problem(&file, error),
        };
        let mut reader = SegmentReader::new(self.files, &file, manifest.place(meta), bytes);
        let (mut offset, mut nothing_from, mut last) = (SEGMENT_DATA_AT, SEGMENT_DATA_AT, 0);
        while offset < bytes && meta.end.is_none_or(|end| last < end.sequence.0) {
            match reader.batch_at(offset) {
                Ok(Ok((batch, _))) => {
                    self.no_batch(&file, (nothing_from, offset))?;
                    self.batch((&file, offset), &batch)?;
                    last = batch.header.sequence.0;
                    offset += batch.bytes() as u64;
                    nothing_from = offset;
                }
                Ok(Err(_)) => offset += BLOCK_BYTES as u64,
                Err(error) => return self.problem(&file, error),
            }
        }
        self.no_batch(&file, (nothing_from, offset))
    }

    fn no_batch(&mut self, file: &str, (from, to): (u64, u64)) -> io::Result<()> {
        if from == to {
            return Ok(());
        }
        self.say(Fact::of("no-batch").text("file", file).number("from", from).number("to", to))
    }

    fn batch(&mut self, (file, offset): (&str, u64), batch: &Batch<'_>) -> io::Result<()> {
        let fact = Fact::of("batch")
            .text("file", file)
            .number("at", offset)
            .number("bytes", batch.bytes() as u64)
            .number("sequence", batch.header.sequence.0)
            .number("durable_through", batch.header.durable_through.0)
            .hex("before", batch.header.before.0.into())
            .hex("chain", batch.chain.0.into())
            .number("records", batch.count);
        self.say(fact)?;
        let mut failed = None;
        let read = batch.each_record(|record| {
            if failed.is_none() && self.wants(record.shard()) {
                failed = self.say(record_fact(&record, self.selection.values)).err();
            }
            Ok::<(), RecordError>(())
        });
        match (failed, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => self.problem(file, error),
            (None, Ok(())) => Ok(()),
        }
    }

    fn table(&mut self, dir: &str, shard: ShardId, named: &TableRef) -> io::Result<()> {
        if !self.wants(shard) || self.selection.segment.is_some() {
            return Ok(());
        }
        let file = join(dir, &table_name(shard, named.generation));
        let fact = Fact::of("table")
            .text("file", &file)
            .number("shard", shard.0)
            .number("index", named.index.0)
            .number("term", named.term.0)
            .number("bytes", named.bytes)
            .hex("footer_checksum", named.footer_checksum);
        self.say(fact)?;
        let reader = TableReader::new(self.files, &file, named.bytes);
        let index = match reader.footer() {
            Ok(footer) => {
                self.footer(&footer)?;
                reader.index(footer)
            }
            Err(what) => Err(what),
        };
        match index {
            Ok(index) => self.blocks(&file, &reader, &index),
            Err(what) => self.problem(&file, what),
        }
    }

    fn footer(&mut self, footer: &Footer) -> io::Result<()> {
        let meta = &footer.meta;
        let fact = Fact::of("footer")
            .number("shard", footer.header.shard.0)
            .hex("salt", footer.header.salt)
            .number("index", meta.applied.0)
            .number("term", meta.applied_term.0)
            .number("revision", meta.revision.0)
            .number("keys", meta.sums.keys)
            .number("bytes", meta.sums.bytes)
            .hex("digest_of_keys", meta.sums.digest)
            .hex("digest", meta.digest)
            .number("blocks", footer.blocks)
            .number("sessions_bytes", footer.sessions.length)
            .number("filter_bytes", footer.filter.length)
            .number("index_bytes", footer.index.length)
            .bytes("membership", &meta.membership);
        self.say(fact)
    }

    fn blocks(&mut self, file: &str, reader: &TableReader<'_, F>, index: &TableIndex) -> io::Result<()> {
        for at in 0..index.blocks() {
            let handle = index.handle(at);
            let fact = Fact::of("block").number("at", handle.offset).number("bytes", handle.length);
            match reader.block(index, at) {
                Ok(block) => {
                    self.say(fact.number("keys", block.len() as u64))?;
                    for entry in block.iter() {
                        self.say(key_fact(&entry, self.selection.values))?;
                    }
                }
                Err(what) => {
                    self.say(fact)?;
                    self.problem(file, what)?;
                }
            }
        }
        Ok(())
    }
}

fn key_fact(entry: &EntryRef<'_>, values: bool) -> Fact {
    let fact = Fact::of("key")
        .bytes("key", entry.key)
        .number("value_bytes", entry.value.len() as u64)
        .number("create_revision", entry.create_revision.0)
        .number("mod_revision", entry.mod_revision.0)
        .number("version", entry.version);
    if values { fact.bytes("value", entry.value) } else { fact }
}

fn record_fact(record: &Record<'_>, values: bool) -> Fact {
    match *record {
        Record::Entry { shard, index, term, data } => {
            let fact = Fact::of("entry").number("shard", shard.0).number("index", index.0);
            let fact = fact.number("term", term.0).number("bytes", data.len() as u64);
            command_fact(fact, data, values)
        }
        Record::HardState { shard, state } => {
            let fact = Fact::of("hard-state").number("shard", shard.0).number("term", state.term.0);
            fact.number("vote", state.vote.map_or(0, |vote| vote.0)).number("commit", state.commit.0)
        }
        Record::Released { shard, index, term } => {
            Fact::of("released").number("shard", shard.0).number("index", index.0).number("term", term.0)
        }
        Record::Standing { shard, standing } => {
            standing_fact(Fact::of("standing").number("shard", shard.0), standing)
        }
        Record::Restart { shard, index, term } => {
            Fact::of("restart").number("shard", shard.0).number("index", index.0).number("term", term.0)
        }
        Record::End { shard, index, term } => {
            Fact::of("end").number("shard", shard.0).number("index", index.0).number("term", term.0)
        }
    }
}

fn standing_fact(fact: Fact, standing: Standing) -> Fact {
    match standing {
        Standing::Whole => fact.text("standing", "whole"),
        Standing::Damaged { last_index, last_term } => {
            let fact = fact.text("standing", "damaged");
            fact.number("last_index", last_index.0).number("last_term", last_term.0)
        }
        Standing::Forgetful { episode, told } => {
            let fact = fact.text("standing", "forgetful").hex("episode", episode);
            fact.number("told", told.map_or(0, |term| term.0))
        }
    }
}

/// What an entry asks of the state.
fn command_fact(fact: Fact, data: &[u8], values: bool) -> Fact {
    if data.is_empty() {
        return fact.text("command", "none");
    }
    let (fact, write) = match Command::decode(Bytes::copy_from_slice(data)) {
        Err(error) => return fact.text("command", "unknown").text("error", error),
        Ok(Command::Write { id: None, write }) => (fact, write),
        Ok(Command::Write { id: Some(id), write }) => {
            (fact.hex("session", id.session.0).number("sequence", id.sequence.0), write)
        }
        Ok(Command::OpenSession { ttl_ms }) => {
            return fact.text("command", "open-session").number("ttl_ms", ttl_ms);
        }
        Ok(Command::KeepAlive { session, acknowledged }) => {
            let fact = fact.text("command", "keep-alive").hex("session", session.0);
            return fact.number("acknowledged", acknowledged.0);
        }
        Ok(Command::CloseSession { session }) => {
            return fact.text("command", "close-session").hex("session", session.0);
        }
        Ok(Command::Expire { session, last_active_index }) => {
            let fact = fact.text("command", "expire").hex("session", session.0);
            return fact.number("last_active_index", last_active_index.0);
        }
    };
    match write {
        Write::Put { key, value, .. } => {
            value_fact(fact.text("command", "put").bytes("key", &key), &value, values)
        }
        Write::Append { key, value, .. } => {
            value_fact(fact.text("command", "append").bytes("key", &key), &value, values)
        }
        Write::Delete { key, .. } => fact.text("command", "delete").bytes("key", &key),
        Write::Txn(txn) => fact
            .text("command", "txn")
            .number("conditions", txn.conditions.len() as u64)
            .number("then", txn.then.len() as u64)
            .number("otherwise", txn.otherwise.len() as u64),
    }
}

fn value_fact(fact: Fact, value: &[u8], values: bool) -> Fact {
    let fact = fact.number("value_bytes", value.len() as u64);
    if values { fact.bytes("value", value) } else { fact }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_a_line_of_text_or_an_object_of_json() {
        let fact = Fact::of("key")
            .bytes("key", b"a\"\n\xff")
            .number("bytes", u64::MAX)
            .hex("salt", 10)
            .text("what", "one \"word\"\n");
        let text =
            r#"key key="a\"\n\xff" bytes=18446744073709551615 salt=000000000000000a what="one \"word\"\n""#;
        assert_eq!(fact.to_string(), text);
        let json: serde_json::Value = serde_json::from_str(&fact.json()).expect("it is JSON");
        assert_eq!(json["fact"], "key");
        assert_eq!(json["key"], r#"a\"\n\xff"#);
        assert_eq!((json["bytes"].as_u64(), &json["salt"]), (Some(u64::MAX), &"000000000000000a".into()));
        assert_eq!(json["what"], "one \"word\"\n");
        assert!(!fact.json().contains('\n'));
    }
}
