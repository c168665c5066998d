//! A client that speaks HTTP/2 frame by frame: whatever a test spells goes out as it is, and what comes back
//! is held against the RFC (9113) as it is read: windows, frame sizes, the order of frames, header blocks.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes};
use distribkv::wire::v1;

use crate::edge_support::TestEdge;
use crate::hpack::{self, Decoder, Field};

pub const PATIENCE: Duration = Duration::from_secs(10);
/// A connection of a test has done what it is for by then, whatever still comes.
const LIFE: Duration = Duration::from_secs(60);
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a frame holds at most, where nothing else was agreed on.
pub const FRAME_BYTES_MAX: usize = 16 << 10;
/// A window, where nothing else was agreed on.
pub const WINDOW_BYTES: i64 = (1 << 16) - 1;
pub const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;
/// What a request's only HEADERS frame has, where a body follows.
pub const OPEN: u8 = END_HEADERS;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Whether a server may give this code, or none, for a mistake that the RFC has these for: PROTOCOL_ERROR
/// stands for all that is against the rules.
pub fn may_give(code: Option<u32>, codes: &[u32]) -> bool {
    code.is_none_or(|code| codes.contains(&code) || code == PROTOCOL_ERROR)
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.put_u32(stream);
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.put_u16(*name);
        payload.put_u32(*value);
    }
    frame(SETTINGS, 0, 0, payload)
}

pub fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, bytes.to_be_bytes())
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes())
}

/// A payload behind its padding's length, with the padding.
pub fn padded(payload: impl AsRef<[u8]>, padding: u8) -> Vec<u8> {
    [&[padding], payload.as_ref(), &vec![0; usize::from(padding)]].concat()
}

/// The fields of a gRPC call, spelt out.
pub fn post(path: &str) -> Vec<u8> {
    [
        hpack::index(3),
        hpack::index(6),
        hpack::literal(":path", path),
        hpack::literal(":authority", "edge"),
        hpack::literal("content-type", "application/grpc"),
        hpack::literal("te", "trailers"),
    ]
    .concat()
}

pub const GET_PATH: &str = "/distribkv.v1.KV/Get";
pub const PUT_PATH: &str = "/distribkv.v1.KV/Put";

/// A gRPC message in its frame.
pub fn message(message: &impl prost::Message) -> Vec<u8> {
    let encoded = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.put_u32(encoded.len() as u32);
    bytes.extend_from_slice(&encoded);
    bytes
}

pub fn get_message(key: &str) -> Vec<u8> {
    message(&v1::GetRequest { key: Bytes::copy_from_slice(key.as_bytes()), consistency: 0 })
}

pub fn put_message(key: &str, value: Vec<u8>) -> Vec<u8> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    message(&v1::PutRequest { key, value: value.into(), ..Default::default() })
}

/// The frames of a Get.
pub fn get(stream: u32, key: &str) -> Vec<u8> {
    let head = frame(HEADERS, OPEN, stream, post(GET_PATH));
    [head, frame(DATA, END_STREAM, stream, get_message(key))].concat()
}

/// What the server said on one stream.
#[derive(Debug, Default)]
pub struct Answer {
    /// The blocks of fields, the head first.
    pub blocks: Vec<Vec<Field>>,
    pub data: Vec<u8>,
    pub is_ended: bool,
    pub reset: Option<u32>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.blocks.iter().flatten().find(|field| field.0 == name.as_bytes())?;
        Some(std::str::from_utf8(&found.1).expect("what the edge says is ASCII"))
    }

    /// The one message of a call that went well.
    pub fn message<M: prost::Message + Default>(&self) -> M {
        assert_eq!((self.field(":status"), self.field("grpc-status")), (Some("200"), Some("0")), "{self:?}");
        assert!(self.is_ended && self.blocks.len() == 2, "a head, data, trailers: {self:?}");
        M::decode(&self.data[5..]).expect("it is the answer's message")
    }

    /// A refusal: nothing but one block of fields.
    pub fn is_trailers_only(&self, status: &str) -> bool {
        let is_alone = self.blocks.len() == 1 && self.data.is_empty() && self.is_ended;
        is_alone && self.field("grpc-status") == Some(status)
    }
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, with this HTTP status.
    Answered(u16),
    /// It was reset with this code.
    Reset(u32),
    /// The connection ended, with this code, where one came through.
    Closed(Option<u32>),
}

/// A connection, and all that the server said on it.
pub struct Conn {
    pub socket: TcpStream,
    begun: Instant,
    /// The server's.
    pub settings: BTreeMap<u16, u32>,
    pub answers: BTreeMap<u32, Answer>,
    pub pongs: Vec<Vec<u8>>,
    /// How many of our SETTINGS were acknowledged.
    pub settings_acks: usize,
    /// The last stream and the code.
    pub goaway: Option<(u32, u32)>,
    /// What the server may send, and what its streams may beyond their initial window.
    pub window: i64,
    pub extra_windows: BTreeMap<u32, i64>,
    initial_window: i64,
    unacknowledged: VecDeque<Vec<(u16, u32)>>,
    /// What we may send.
    send_window: i64,
    extra_send_windows: BTreeMap<u32, i64>,
    decoder: Decoder,
    /// A block whose end has not come: its stream, its first frame's flags, its pieces.
    block: Option<(u32, u8, Vec<u8>)>,
}

impl Conn {
    /// A connection on which nothing was said.
    pub fn connect(edge: &TestEdge) -> Self {
        let socket = TcpStream::connect(edge.address).expect("the edge listens");
        socket.set_nodelay(true).expect("it is a TCP socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        socket.set_write_timeout(Some(PATIENCE)).expect("it is not zero");
        Self {
            socket,
            begun: Instant::now(),
            settings: BTreeMap::new(),
            answers: BTreeMap::new(),
            pongs: Vec::new(),
            settings_acks: 0,
            goaway: None,
            window: WINDOW_BYTES,
            extra_windows: BTreeMap::new(),
            initial_window: WINDOW_BYTES,
            unacknowledged: VecDeque::new(),
            send_window: WINDOW_BYTES,
            extra_send_windows: BTreeMap::new(),
            decoder: Decoder::default(),
            block: None,
        }
    }

    /// A connection whose two sides have agreed.
    pub fn open(edge: &TestEdge) -> Self {
        Self::open_with(edge, &[])
    }

    pub fn open_with(edge: &TestEdge, ours: &[(u16, u32)]) -> Self {
        let mut conn = Self::connect(edge);
        conn.send(PREFACE);
        conn.set(ours);
        let first = conn.step().expect("the server speaks first");
        assert_eq!(first, SETTINGS, "the server's first frame");
        conn.send(frame(SETTINGS, ACK, 0, []));
        conn.until("our settings are acknowledged", |conn| conn.settings_acks == 1);
        conn
    }

    /// Sends bytes as they are. A server that has closed shows when its answer is read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).ok();
    }

    /// Has sent empty settings so many times by itself.
    pub fn expect_acks(&mut self, count: usize) {
        self.unacknowledged.extend(vec![Vec::new(); count]);
    }

    /// Sends settings, which bind the server from their acknowledgement on.
    pub fn set(&mut self, ours: &[(u16, u32)]) {
        self.unacknowledged.push_back(ours.to_vec());
        self.send(settings(ours));
    }

    /// Lets the server send more, on a stream or, where it is 0, on the connection.
    pub fn grow(&mut self, stream: u32, bytes: u32) {
        match stream {
            0 => self.window += i64::from(bytes),
            stream => *self.extra_windows.entry(stream).or_default() += i64::from(bytes),
        }
        self.send(window_update(stream, bytes));
    }

    /// Sends the data of a stream as the server's windows let it.
    pub fn send_data(&mut self, stream: u32, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let window = self.send_window.min(self.stream_send_window(stream));
            if window <= 0 {
                self.step().expect("the windows are given back");
                continue;
            }
            let length = rest.len().min(FRAME_BYTES_MAX).min(window as usize);
            let (piece, after) = rest.split_at(length);
            self.send_counted(stream, if after.is_empty() { END_STREAM } else { 0 }, piece);
            rest = after;
        }
    }

    /// Sends one DATA frame; it counts, and nobody asks whether it may.
    pub fn send_counted(&mut self, stream: u32, flags: u8, payload: &[u8]) {
        self.send_window -= payload.len() as i64;
        *self.extra_send_windows.entry(stream).or_default() -= payload.len() as i64;
        self.send(frame(DATA, flags, stream, payload));
    }

    /// What we may send on a stream.
    pub fn stream_send_window(&self, stream: u32) -> i64 {
        let initial = self.settings.get(&INITIAL_WINDOW_SIZE).map_or(WINDOW_BYTES, |size| i64::from(*size));
        initial + self.extra_send_windows.get(&stream).unwrap_or(&0)
    }

    /// What we may send on the connection.
    pub fn send_window(&self) -> i64 {
        self.send_window
    }

    /// Reads one frame and holds it against the rules: its kind. `None` where the server closed.
    pub fn step(&mut self) -> Option<u8> {
        assert!(self.begun.elapsed() < LIFE, "frames come, but not what is waited for");
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        self.take(kind, flags, stream, payload);
        Some(kind)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.socket.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing comes any more"),
            // A reset is a way to close, too.
            Err(_) => None,
        }
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) {
        assert_eq!(self.block.is_some(), kind == CONTINUATION, "a block of fields stays together: {kind}");
        let is_of_stream = [DATA, HEADERS, RST_STREAM, CONTINUATION].contains(&kind);
        assert_eq!(is_of_stream, stream != 0 && kind != WINDOW_UPDATE, "{kind} on stream {stream}");
        match kind {
            DATA => self.take_data(flags, stream, unpad(flags, &payload), payload.len()),
            HEADERS => {
                let skipped = if flags & WITH_PRIORITY == 0 { 0 } else { 5 };
                self.block = Some((stream, flags, unpad(flags, &payload)[skipped..].to_vec()));
                self.take_block(flags);
            }
            CONTINUATION => {
                let block = self.block.as_mut().expect("it was asserted");
                assert_eq!(block.0, stream, "a block is of one stream");
                block.2.extend(payload);
                self.take_block(flags);
            }
            RST_STREAM => {
                self.answers.entry(stream).or_default().reset = Some(number(&payload));
            }
            SETTINGS if flags & ACK == 0 => self.take_settings(&payload),
            SETTINGS => self.take_settings_ack(&payload),
            PING if flags & ACK == 0 => self.send(frame(PING, ACK, 0, payload)),
            PING => self.pongs.push(payload),
            GOAWAY => self.goaway = Some((number(&payload[..4]), number(&payload[4..8]))),
            WINDOW_UPDATE => self.take_window(stream, i64::from(number(&payload))),
            other => panic!("a server has no reason to send frame {other}"),
        }
    }

    fn take_data(&mut self, flags: u8, stream: u32, data: &[u8], counted: usize) {
        self.window -= counted as i64;
        *self.extra_windows.entry(stream).or_default() -= counted as i64;
        // What is under way to the server may count or not.
        let pending = self.unacknowledged.iter().flatten().filter(|(name, _)| *name == INITIAL_WINDOW_SIZE);
        let initial = pending.map(|(_, size)| i64::from(*size)).max().unwrap_or(0).max(self.initial_window);
        // Nothing at all may be sent at any time.
        let is_free = self.window >= 0 && initial + self.extra_windows[&stream] >= 0;
        assert!(is_free || counted == 0, "{counted} bytes on stream {stream} that no window has");
        let answer = self.answers.get_mut(&stream).expect("a head comes first");
        assert!(!answer.is_ended && answer.reset.is_none(), "data after the end of stream {stream}");
        answer.data.extend(data);
        answer.is_ended = flags & END_STREAM != 0;
    }

    /// Takes a block of fields whose end has come.
    fn take_block(&mut self, flags: u8) {
        if flags & END_HEADERS == 0 {
            return;
        }
        let (stream, first_flags, block) = self.block.take().expect("there is a block");
        let fields = self.decoder.decode(&block);
        let answer = self.answers.entry(stream).or_default();
        assert!(!answer.is_ended && answer.reset.is_none(), "a block after the end of stream {stream}");
        let pseudo = fields.iter().filter(|field| field.0.starts_with(b":")).count();
        assert_eq!(pseudo, usize::from(answer.blocks.is_empty()), "a head has a status: {fields:?}");
        assert!(pseudo == 0 || fields[0].0 == b":status", "the status comes first: {fields:?}");
        assert!(!fields.iter().any(|field| field.0.iter().any(u8::is_ascii_uppercase)), "{fields:?}");
        answer.blocks.push(fields);
        answer.is_ended = first_flags & END_STREAM != 0;
    }

    fn take_settings(&mut self, payload: &[u8]) {
        assert_eq!(payload.len() % 6, 0, "settings have six bytes");
        for setting in payload.chunks(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            self.settings.insert(name, number(&setting[2..]));
        }
    }

    fn take_settings_ack(&mut self, payload: &[u8]) {
        assert!(payload.is_empty(), "an acknowledgement is empty");
        self.settings_acks += 1;
        let ours = self.unacknowledged.pop_front().expect("only what was sent is acknowledged");
        for (name, value) in ours {
            match name {
                HEADER_TABLE_SIZE => self.decoder.allow(value as usize),
                INITIAL_WINDOW_SIZE => self.initial_window = i64::from(value),
                _ => {}
            }
        }
    }

    fn take_window(&mut self, stream: u32, bytes: i64) {
        assert!(bytes > 0, "a window grows by something");
        if stream == 0 {
            self.send_window += bytes;
            assert!(self.send_window <= i64::from(WINDOW_BYTES_MAX), "the connection's window overflows");
        } else {
            *self.extra_send_windows.entry(stream).or_default() += bytes;
            let window = self.stream_send_window(stream);
            assert!(window <= i64::from(WINDOW_BYTES_MAX), "the window of stream {stream} overflows");
        }
    }

    /// Reads until something holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            assert!(self.step().is_some(), "closed before {what}: {:?}", self.goaway);
        }
    }

    /// Reads until a stream has its whole answer.
    pub fn answer(&mut self, stream: u32) -> Answer {
        let is_whole = |conn: &Self| conn.answers.get(&stream).is_some_and(|answer| answer.is_ended);
        self.until(&format!("stream {stream} is answered"), |conn| {
            let reset = conn.answers.get(&stream).and_then(|answer| answer.reset);
            assert!(reset.is_none() || is_whole(conn), "stream {stream} is reset: {reset:?}");
            is_whole(conn)
        });
        self.answers.remove(&stream).expect("it was waited for")
    }

    /// Reads until everything that was sent has been looked at.
    pub fn fence(&mut self) {
        let pongs = self.pongs.len();
        self.send(frame(PING, 0, 0, (pongs as u64).to_be_bytes()));
        self.until("a ping is answered", |conn| conn.pongs.len() > pongs);
        assert_eq!(self.pongs[pongs], (pongs as u64).to_be_bytes());
    }

    /// Reads until the server closes: the error that it gave, where one came through.
    pub fn close_code(&mut self) -> Option<u32> {
        while self.step().is_some() {}
        self.goaway.map(|(_, code)| code).filter(|code| *code != NO_ERROR)
    }

    /// Reads until the server closes: the error that it gave, where one came. `None` where it goes on:
    /// it answers a ping or a call.
    pub fn end(&mut self) -> Option<Option<u32>> {
        let pongs = self.pongs.len();
        while self.step().is_some() {
            if self.pongs.len() > pongs || self.answers.values().any(|answer| answer.is_ended) {
                return None;
            }
        }
        Some(self.close_code())
    }

    /// Reads until it is known what became of a stream.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let is_failed = self.goaway.is_some_and(|(_, code)| code != NO_ERROR);
            match self.answers.get(&stream) {
                Some(Answer { reset: Some(code), is_ended: false, .. }) => return Outcome::Reset(*code),
                Some(answer) if answer.is_ended && !is_failed => {
                    let status = answer.field(":status").expect("a head has a status");
                    return Outcome::Answered(status.parse().expect("a status is a number"));
                }
                _ => {}
            }
            if self.step().is_none() {
                return Outcome::Closed(self.close_code());
            }
        }
    }

    /// Makes a Get and has its answer.
    pub fn serves(&mut self, stream: u32) {
        self.send(get(stream, "any"));
        self.answer(stream).message::<v1::GetResponse>();
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().expect("a number has four bytes"))
}

/// A payload without its padding.
fn unpad(flags: u8, payload: &[u8]) -> &[u8] {
    if flags & PADDED == 0 {
        return payload;
    }
    let end = payload.len().checked_sub(usize::from(payload[0])).expect("padding is shorter than its frame");
    &payload[1..end]
}

/// Whether the edge still serves somebody else.
pub fn assert_serves(edge: &TestEdge) {
    Conn::open(edge).serves(1);
}
