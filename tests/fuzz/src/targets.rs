//! What is done with an input of each fuzz target. Included by the targets and by `tests/fuzz_corpus.rs`,
//! which replays their corpus.
//!
//! Almost every format has checksums, which no fuzzer guesses: so an input is taken twice, as it is, and
//! *sealed*: put where its format wants it, with checksums that are right. What then comes out is decoded,
//! opened or read as the product does it, and what can be compared is: it is encoded and decoded again, a
//! directory that `verify` calls clean opens.
//!
//! ```text
//! segment     batches: length u16 | sequence i8 | durable i8 | count u8 | flags u8 | records
//! table       pages: length u16 | the page's first bytes
//! manifest    a copy, or the payload of one
//! peer_frame  a frame, or the payload of one, or one parcel
//! grpc_frame  method u8 | cuts u8 | a stream, or one message
//! http2       cuts u8 | what a client says, or says after its greeting
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use distribkv::edge::{
    EdgeLimits, RequestBounds, UNARY_METHODS, replay_answered, replay_unanswered, requests_of,
};
use distribkv::host::frame;
use distribkv::http2::frame::{PREFACE, write_settings};
use distribkv::ids::{LaneId, ShardId};
use distribkv::inspect::{Files, Report, Selection, dump, verify};
use distribkv::kv::table::{self, Block, Footer, Header, PAGE_BYTES, Part, TableIndex};
use distribkv::kv::{self, Command, Limits, Query, State};
use distribkv::log::batch::{BATCH_HEADER_BYTES, Batch, FORMAT, Place, SegmentId, batch_bytes};
use distribkv::log::manifest::{Manifest, SegmentMeta, TableRef, table_name};
use distribkv::log::record::{Record, RecordError};
use distribkv::log::segment::{decode_segment_header, encode_segment_header, segment_name};
use distribkv::log::twin::{self, TwinKind};
use distribkv::log::{Lane, LaneConfig, OpenError, identity};
use distribkv::raft;
use distribkv::route::call::Request;
use distribkv::route::parcel::Parcel;
use distribkv::shard::admission::{HELLO_BYTES, Hello, VERDICT_BYTES, Verdict};

#[path = "../../sim/tests/log_mem/mod.rs"]
mod log_mem;

use log_mem::MemEnv;

const BLOCK: usize = 4096;
const LANE: LaneId = LaneId(0);
const SALT: u64 = 0x5a17;
/// What an input may make of itself: enough for several segments.
const INPUT_BYTES_MAX: usize = 32 << 10;

// ---- directories ----

/// The files of a directory, by name.
struct Directory(BTreeMap<String, Vec<u8>>);

impl Files for Directory {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let below = |name: &String| {
            let rest =
                if dir.is_empty() { Some(&name[..]) } else { name.strip_prefix(dir)?.strip_prefix('/') };
            rest.map(|rest| rest.split('/').next().unwrap_or_default().to_owned())
        };
        let mut names: Vec<String> = self.0.keys().filter_map(below).collect();
        names.dedup();
        Ok(names)
    }

    fn len(&self, file: &str) -> io::Result<u64> {
        self.0.get(file).map(|bytes| bytes.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, file: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(file).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[from..from.saturating_add(len).min(bytes.len())].to_vec())
    }
}

impl Directory {
    /// A lane with this manifest and these files.
    fn of_lane(manifest: &Manifest, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let copy = twin_file(TwinKind::Manifest, &manifest.encode());
        let copies = TwinKind::Manifest.names().map(|name| (name.to_owned(), copy.clone()));
        let files = copies.into_iter().chain(files);
        Self(files.map(|(name, bytes)| (format!("lane-0/{name}"), bytes)).collect())
    }

    /// Looks at everything, both ways. Both are to end, whatever there is.
    fn looked_at(&self) -> Report {
        let selection = Selection { values: true, ..Selection::default() };
        let told = dump(self, selection, &mut |fact| {
            assert!(
                !fact.to_string().contains('\n') && fact.json().starts_with('{'),
                "a fact is a line: {fact}"
            );
            Ok(())
        });
        told.expect("the directory can be listed");
        let report = verify(self).expect("the directory can be listed");
        report.findings.iter().for_each(|finding| assert!(!finding.to_string().contains('\n')));
        report
    }

    fn env(self) -> MemEnv {
        let env = MemEnv::default();
        let files = self.0.into_iter().map(|(name, bytes)| (Path::new("/").join(name), bytes)).collect();
        env.change(|there| *there = files);
        env
    }
}

/// A copy with the right checksum.
fn twin_file(kind: TwinKind, payload: &[u8]) -> Vec<u8> {
    let number: u16 = if kind == TwinKind::Manifest { 1 } else { 2 };
    let mut bytes = b"dKVt".to_vec();
    bytes.extend_from_slice(&twin::FORMAT.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&1_u64.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(payload);
    bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The pieces of an input, each behind its length.
fn pieces(mut data: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let (piece, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        pieces.push(piece);
        data = rest;
    }
    pieces
}

// ---- segments ----

/// A segment: its header, batches as they are and as they are sealed, then a start from them.
pub fn segment(data: &[u8]) {
    if data.len() > INPUT_BYTES_MAX {
        return;
    }
    let place = Place { lane: LANE, segment: SegmentId(1), salt: SALT };
    let _ = decode_segment_header(data);
    let mut padded = data.to_vec();
    padded.resize(data.len().next_multiple_of(BLOCK), 0);
    for block in 0..padded.len() / BLOCK {
        let _ = Batch::decode(&padded[block * BLOCK..], &place);
    }
    let (manifest, files) = sealed_lane(data);
    let report = Directory::of_lane(&manifest, files.clone()).looked_at();
    let is_whole = report.findings.iter().all(|finding| finding.file.starts_with("identity"));
    open_lane(Directory::of_lane(&manifest, files), is_whole);
}

/// Segments of the batches of an input. A flag of 1: its segment ends behind it; of 2: the manifest says so.
fn sealed_lane(data: &[u8]) -> (Manifest, Vec<(String, Vec<u8>)>) {
    let mut manifest = Manifest::new(LANE);
    let (mut sequence, mut chain) = (0_u64, 0_u32);
    let mut files = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    let mut place = Place { lane: LANE, segment: manifest.take_segment_id(), salt: SALT };
    let mut end = None;
    for piece in pieces(data) {
        let Some((head, records)) = piece.split_first_chunk::<4>() else { continue };
        let [step, durable, count, flags] = *head;
        sequence = sequence.saturating_add_signed(i64::from(step as i8)).saturating_add(1);
        let known = sequence.saturating_add_signed(i64::from(durable as i8)).saturating_sub(1);
        let before = if flags & 4 == 0 { chain } else { !chain };
        chain = put_batch(&mut body, &place, (sequence, known, before), (count, records));
        if flags & 8 != 0 {
            let last = body.len() - 1;
            body[last - last % BLOCK] ^= 1;
        }
        end = (flags & 2 != 0).then_some((sequence, chain));
        if flags & 1 != 0 {
            files.push(close_segment(&mut manifest, &place, &mut body, end.take()));
            place = Place { segment: manifest.take_segment_id(), salt: place.salt + 1, ..place };
        }
    }
    files.push(close_segment(&mut manifest, &place, &mut body, end));
    (manifest, files)
}

fn put_batch(
    body: &mut Vec<u8>,
    place: &Place,
    (sequence, known, before): (u64, u64, u32),
    (count, records): (u8, &[u8]),
) -> u32 {
    let mut bytes = b"dKVb".to_vec();
    bytes.extend_from_slice(&u32::from(FORMAT).to_le_bytes());
    bytes.extend_from_slice(&place.lane.0.to_le_bytes());
    bytes.extend_from_slice(&u32::from(count).to_le_bytes());
    for field in [place.segment.0, sequence, known] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(&(records.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&before.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place.salt.to_le_bytes());
    hasher.update(&bytes);
    hasher.update(records);
    let chain = hasher.finalize();
    bytes.extend_from_slice(&chain.to_le_bytes());
    assert_eq!(bytes.len(), BATCH_HEADER_BYTES);
    bytes.extend_from_slice(records);
    bytes.resize(batch_bytes(records.len()), 0);
    let batch = Batch::decode(&bytes, place).expect("it was sealed");
    let mut again = vec![0; records.len()];
    let mut at = 0;
    let read = batch.each_record(|record: Record<'_>| {
        at = record.encode(&mut again, at);
        Ok::<(), RecordError>(())
    });
    assert!(read.is_err() || again == records, "what was decoded encodes to the same");
    body.extend_from_slice(&bytes);
    chain
}

fn close_segment(
    manifest: &mut Manifest,
    place: &Place,
    body: &mut Vec<u8>,
    end: Option<(u64, u32)>,
) -> (String, Vec<u8>) {
    use distribkv::log::batch::{BatchSequence, Chain};
    use distribkv::log::manifest::Mark;
    let mut bytes = vec![0; BLOCK];
    let length = (BLOCK + body.len() + BLOCK) as u64;
    encode_segment_header(&mut bytes, place, length);
    bytes.append(body);
    bytes.resize(bytes.len() + BLOCK, 0);
    let end = end.map(|(sequence, chain)| Mark { sequence: BatchSequence(sequence), chain: Chain(chain) });
    manifest.enter(SegmentMeta { id: place.segment, salt: place.salt, bytes: length, end });
    (segment_name(place.segment), bytes)
}

/// Starts from a directory as a node does. One that is whole opens, and opens again to the same.
fn open_lane(directory: Directory, is_whole: bool) {
    let env = directory.env();
    let config = || LaneConfig {
        damage: distribkv::log::OnDamage::Stop,
        lane: LANE,
        segment_bytes: 4 * BLOCK as u64,
        batch_bytes_max: 2 * BLOCK,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        seal_after: Duration::from_millis(10),
        #[cfg(debug_assertions)]
        planted: None,
    };
    let open = || {
        let its = env.clone();
        env.run(async move { Lane::open(its, Path::new("/lane-0"), config()).await })
    };
    let (lane, recovery) = match open() {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!is_whole, "it is whole and does not open: {error}");
            assert!(matches!(error, OpenError::Damaged(_) | OpenError::Format { .. }), "{error}");
            return;
        }
    };
    for (shard, found) in &recovery.shards {
        if found.first_index <= found.last_index {
            let (lane, shard, first, last) = (lane.clone(), *shard, found.first_index, found.last_index);
            let read = env.run(async move { lane.read(shard, first, last, 1 << 20).await });
            let _ = read.map(|entries| assert_eq!(entries.first().map(|entry| entry.index), Some(first)));
        }
    }
    env.kill();
    let (_, again) = open().unwrap_or_else(|error| panic!("it opened once, and then not: {error}"));
    assert_eq!(again.shards, recovery.shards, "what was recovered is recovered again");
}

// ---- tables ----

/// A table: parts as they are, then a file whose every part has its checksum.
pub fn table(data: &[u8]) {
    if data.len() > INPUT_BYTES_MAX {
        return;
    }
    let whole = Bytes::copy_from_slice(data);
    let _ = Header::decode(data);
    let _ = Footer::decode(&whole, data.len() as u64);
    let pages = pieces(data).into_iter().flat_map(|piece| {
        let mut page = piece[..piece.len().min(PAGE_BYTES)].to_vec();
        page.resize(PAGE_BYTES, 0);
        page
    });
    let mut file: Vec<u8> = pages.take(64 * PAGE_BYTES).collect();
    if file.len() < 2 * PAGE_BYTES {
        return;
    }
    seal_table(&mut file);
    read_table(&Bytes::from(file.clone()));
    look_at_table(file);
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Gives a file of pages the magics, lengths and checksums of a table, wherever its numbers lead.
fn seal_table(file: &mut [u8]) {
    let length = file.len();
    let footer_at = length - PAGE_BYTES;
    for (at, magic) in [(0, b"kvtable\0"), (footer_at, b"kvtfoot\0")] {
        file[at + 8..at + 16].copy_from_slice(magic);
        file[at + 16..at + 20].copy_from_slice(&1_u32.to_le_bytes());
        let salt_at = if at == 0 { 24 } else { at + 24 };
        file[salt_at..salt_at + 8].copy_from_slice(&SALT.to_le_bytes());
    }
    file[footer_at + 32..footer_at + 40].copy_from_slice(&(length as u64).to_le_bytes());
    let (index_at, index_length) =
        (word(file, footer_at + 152) as usize, word(file, footer_at + 160) as usize);
    let mut at = index_at;
    while at.saturating_add(16) <= index_at.saturating_add(index_length).min(length) {
        let offset = word(file, at) as usize;
        let sizes = word(file, at + 8);
        let (block, key) = ((sizes & u64::from(u32::MAX)) as usize, (sizes >> 32) as usize);
        seal_own(file, Part::Block, offset, block);
        at = at.saturating_add(16).saturating_add(key);
    }
    for (part, section) in [(Part::Sessions, 104), (Part::Filter, 128), (Part::Index, 152)] {
        let offset = word(file, footer_at + section) as usize;
        let padded = (word(file, footer_at + section + 8) as usize).checked_next_multiple_of(PAGE_BYTES);
        let end = padded.and_then(|padded| offset.checked_add(padded)).filter(|end| *end <= footer_at);
        let Some(bytes) = end.and_then(|end| file.get(offset..end)) else { continue };
        let sum = table::checksum(SALT, part, offset as u64, bytes);
        file[footer_at + section + 16..footer_at + section + 24].copy_from_slice(&sum.to_le_bytes());
    }
    seal_own(file, Part::Header, 0, PAGE_BYTES);
    seal_own(file, Part::Footer, footer_at, PAGE_BYTES);
}

/// Writes the checksum of a part to its beginning.
fn seal_own(file: &mut [u8], part: Part, offset: usize, length: usize) {
    let Some(bytes) = offset.checked_add(length).and_then(|end| file.get_mut(offset..end)) else { return };
    if bytes.len() > 8 {
        let sum = table::checksum(SALT, part, offset as u64, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads a table as its shard does: all of it, and each of its keys.
fn read_table(file: &Bytes) {
    let part = |offset: u64, length: u64| {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        file.slice(from..from.saturating_add(length).min(file.len()))
    };
    let length = file.len() as u64;
    let Ok(footer) = Footer::decode(&part(Footer::offset(length), PAGE_BYTES as u64), length) else { return };
    let [index, filter, sessions] = [footer.index, footer.filter, footer.sessions]
        .map(|section| part(section.offset, section.padded_length()));
    let Ok(index) = TableIndex::open(footer.clone(), &index, &filter) else { return };
    let mut keys = 0;
    for at in 0..index.blocks() {
        let handle = index.handle(at);
        let Ok(block) = Block::decode(handle, part(handle.offset, handle.length.into())) else { continue };
        for entry in block.iter() {
            keys += 1;
            assert_eq!(block.get(entry.key), Some(entry), "a block finds its own keys");
            let _ = (entry.has_its_digest(), index.locate(entry.key));
        }
    }
    assert!(keys <= length / 40, "{keys} keys in {length} bytes");
    let shard = footer.header.shard;
    if shard.0 < kv::SESSION_SHARDS_MAX {
        let _ = State::from_table(kv::Config::new(shard, Limits::DEFAULT), index, &sessions);
    }
}

/// Looks at the file as a table that a manifest names.
fn look_at_table(file: Vec<u8>) {
    let footer_at = file.len() - PAGE_BYTES;
    let shard = ShardId((word(&file, footer_at + 16) >> 32) as u32);
    let [index, term] = [40, 48].map(|at| word(&file, footer_at + at));
    let named = TableRef {
        generation: SALT,
        index: distribkv::ids::Index(index.max(1)),
        term: distribkv::ids::Term(term.max(1)),
        bytes: file.len() as u64,
        footer_checksum: word(&file, footer_at),
    };
    let mut manifest = Manifest::new(LANE);
    manifest.switch_table(shard, named);
    Directory::of_lane(&manifest, [(table_name(shard, SALT), file)]).looked_at();
}

// ---- manifests ----

/// A manifest and an identity: the input as a copy, and as the payload of one.
pub fn manifest(data: &[u8]) {
    for kind in [TwinKind::Manifest, TwinKind::Identity] {
        let payload = twin::decode(data, kind).map(|copy| copy.payload.to_vec());
        for payload in [payload.as_deref(), Some(data)].into_iter().flatten() {
            read_payload(kind, payload);
        }
    }
    let mut directory = Directory(BTreeMap::new());
    for kind in [TwinKind::Manifest, TwinKind::Identity] {
        let dir = if kind == TwinKind::Manifest { "lane-0/" } else { "" };
        let [a, b] = kind.names().map(|name| format!("{dir}{name}"));
        directory.0.insert(a, twin_file(kind, data));
        directory.0.insert(b, data.to_vec());
    }
    directory.looked_at();
    if let Some(manifest) = Manifest::decode(data).filter(|manifest| manifest.lane == LANE) {
        open_lane(Directory::of_lane(&manifest, []), false);
    }
    directory.0.values_mut().for_each(|bytes| *bytes = data.to_vec());
    directory.looked_at();
}

fn read_payload(kind: TwinKind, payload: &[u8]) {
    match kind {
        TwinKind::Manifest => {
            if let Some(read) = Manifest::decode(payload) {
                assert_eq!(Manifest::decode(&read.encode()).as_ref(), Some(&read), "it decodes to the same");
            }
        }
        TwinKind::Identity => drop(identity::decode(payload, Path::new("identity-a"))),
    }
}

// ---- links ----

/// What a peer sends: frames as they come, the input as the payload of one, and as one parcel.
pub fn peer_frame(data: &[u8]) {
    if let Some(hello) = data.first_chunk::<HELLO_BYTES>() {
        let hello = Hello::decode(hello);
        assert_eq!(Hello::decode(&hello.encode()), hello, "it decodes to the same");
    }
    if let Some(verdict) = data.first_chunk::<VERDICT_BYTES>().and_then(Verdict::decode) {
        assert_eq!(Verdict::decode(&verdict.encode()), Some(verdict), "it decodes to the same");
    }
    read_frames(data);
    let one_parcel = [&(data.len() as u32).to_le_bytes(), data].concat();
    for payload in [data, &one_parcel[..]] {
        let mut framed = (payload.len() as u32).to_le_bytes().to_vec();
        framed.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        framed.extend_from_slice(payload);
        read_frames(&framed);
    }
    if let Ok(message) = raft::Message::decode(Bytes::copy_from_slice(data)) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert!(again == data, "a message has one form");
    }
}

fn read_frames(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(parcels)) = frame::decode(&mut buffer) {
        for parcel in parcels {
            let mut bytes = Vec::new();
            parcel.encode(&mut bytes);
            assert_eq!(Parcel::decode(bytes.into()), Ok(parcel), "it decodes to the same");
        }
    }
}

// ---- streams ----

/// What a client sends: a stream in chunks, and the input as one message.
pub fn grpc_frame(data: &[u8]) {
    let [method, cuts, rest @ ..] = data else { return };
    let method = UNARY_METHODS[usize::from(*method) % UNARY_METHODS.len()];
    let bounds = RequestBounds {
        limits: Limits::DEFAULT,
        shards: 8,
        message_bytes_max: 4 << 20,
        in_flight_bytes_max: 16 << 20,
    };
    let message = [&[0], &(rest.len() as u32).to_be_bytes()[..], rest].concat();
    for stream in [rest, &message] {
        let asked = |size: usize| {
            let chunks = stream.chunks(size.max(1)).map(Bytes::copy_from_slice);
            requests_of(method, chunks, &bounds).map_err(|status| status.code())
        };
        let whole = asked(stream.len());
        let cut = asked(usize::from(*cuts));
        assert!(cut == whole, "{cut:?} of chunks of {cuts}, {whole:?} of one");
        for (shard, request) in whole.into_iter().flatten() {
            assert!(shard.0 < bounds.shards, "shard {shard} of {}", bounds.shards);
            carried(&request);
        }
    }
}

/// What is asked passes through log and links as it is.
fn carried(request: &Request) {
    match request {
        Request::Command(command) => {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert!(bytes.len() <= Limits::DEFAULT.command_bytes_max, "{} bytes", bytes.len());
            assert_eq!(Command::decode(bytes.into()).as_ref(), Ok(command));
        }
        Request::Query { query, .. } => {
            let mut bytes = Vec::new();
            query.encode(&mut bytes);
            assert_eq!(Query::decode(bytes.into()).as_ref(), Ok(query));
        }
        Request::Transfer { .. } => {}
    }
}

// ---- connections ----

/// What a client says on a connection: it means the same however it is cut, and breaks nothing.
pub fn http2(data: &[u8]) {
    let Some((cuts, bytes)) = data.split_first().filter(|_| data.len() <= INPUT_BYTES_MAX) else { return };
    // Few of everything.
    let limits = EdgeLimits {
        streams_max: 8,
        pending_reset_streams_max: 4,
        reset_streams_max: 8,
        error_resets_max: 8,
        connection_send_bytes_max: 300,
        stream_window_bytes: 1000,
        header_list_bytes_max: 1000,
        header_table_bytes_max: 200,
        ..EdgeLimits::DEFAULT
    };
    // And windows of the connection that a few frames fill.
    let narrow = EdgeLimits { connection_window_bytes: 1000, connection_unread_bytes_max: 2000, ..limits };
    let mut greeted = PREFACE.to_vec();
    write_settings(&[], &mut greeted);
    greeted.extend_from_slice(bytes);
    for (said, limits) in [(bytes, limits), (&greeted, limits), (&greeted, narrow)] {
        let cut = said.chunks(usize::from(*cuts).max(1));
        let whole = replay_unanswered([said], limits);
        assert!(replay_unanswered(cut.clone(), limits) == whole, "cut to {cuts} bytes it is another");
        let _ = (replay_answered([said], limits), replay_answered(cut, limits));
    }
}
