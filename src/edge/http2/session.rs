//! One connection's protocol: bytes come in and requests come out. What the streams' tasks say is in
//! [`sending`](super::sending).
//!
//! ```text
//!  Preface ─► Greeting ──SETTINGS──► Open ──the core or the client goes away──► … last stream ends ──► over
//! ```
//!
//! Invariants:
//! - The windows that the client has are what `limits` says less what came and was not taken; that of the
//!   connection is more where streams that nobody reads hold most of it ([`inflow`](super::inflow)).
//! - Every block of fields is read, also one of a stream that nobody wants: the table counts on it.
//! - Of a stream that we ended by force, what still comes is ignored for a while; of one that was ended well
//!   nothing may come.

use std::collections::VecDeque;

use super::answers::FieldWriter;
use super::fields::{Decoder, RequestFields};
use super::inflow::Inflow;
use super::sending::Turns;
use super::streams::{Stream, Streams};
use crate::edge::budget::Budget;
use crate::edge::limits::EdgeLimits;
use crate::http2::frame::{
    self, BadPadding, Code, Head, Kind, PREFACE, WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX, unpadded,
};

/// Parts of a block of fields: more are a flood, whatever their size.
const BLOCK_PARTS_MAX: usize = 64;
/// What a block of fields may have of the bytes that its fields may count, before it is cut off: below it, a
/// client that says too much is told so.
const BLOCKS_PER_LIST_MAX: usize = 4;
/// Settings of one turn that change the windows of all streams: each goes through all of them.
const CHANGES_PER_TURN_MAX: usize = 64;
/// The room that is kept for what is to be written while nothing is.
const OUT_BYTES_KEPT: usize = 8 << 10;
/// Where a frame's head has its flags.
const FLAGS_AT: usize = 4;
/// The last stream, where none is excluded.
const LAST_OF_ALL: u32 = 0x7fff_ffff;
/// What the client is asked for a sign of life with.
const KEEPALIVE_PING: [u8; 8] = *b"are you?";
/// What comes back when the client has heard that we go away.
const GOING_PING: [u8; 8] = *b"going...";

/// A request that has come.
#[derive(Debug)]
pub(in crate::edge) struct Opened {
    pub(in crate::edge) id: u32,
    pub(in crate::edge) fields: RequestFields,
}

/// A block of fields whose end has not come.
#[derive(Debug)]
struct Block {
    id: u32,
    bytes: Vec<u8>,
    parts: usize,
    ends_stream: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preface,
    Greeting,
    Open,
    /// The client broke the protocol, or time is over: nothing is read any more.
    Over,
}

/// How far we are in going away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    No,
    /// The client was told; it says when it has heard of it.
    Told,
    /// It has heard, or has had the time to; streams above this one are not looked at.
    Heard {
        last: u32,
    },
}

/// One connection. Whoever has its socket takes `out` to it.
#[derive(Debug)]
pub(in crate::edge) struct Session {
    pub(super) limits: EdgeLimits,
    phase: Phase,
    going: Going,
    /// The client takes no more answers than those under way.
    is_client_going: bool,
    decoder: Decoder,
    fields: FieldWriter,
    pub(super) streams: Streams,
    /// The highest id that a client has opened.
    last: u32,
    block: Option<Block>,
    /// What is to be written to the socket.
    pub(in crate::edge) out: Vec<u8>,
    /// What the client takes: of all streams now, and of a new stream.
    pub(super) send_window: i64,
    stream_window: i64,
    /// What was sent of all streams, and what the socket took while the client's window was not what all wait
    /// for, in bytes: where it stands still, nothing moves.
    pub(super) sent: u64,
    /// What the client may send.
    pub(super) inflow: Inflow,
    pub(super) turns: Turns,
    /// Streams that we ended by force.
    reset: VecDeque<u32>,
    /// Errors of the client that cost a stream.
    pub(super) errors: usize,
    /// The client holds itself to our settings.
    is_acknowledged: bool,
    /// Settings of this turn that changed the windows of all streams.
    changes: usize,
}

impl Session {
    /// A connection that has the server's first words to say.
    pub(in crate::edge) fn new(limits: EdgeLimits, budget: Budget) -> Self {
        let mut out = Vec::new();
        let settings = [
            (frame::SETTING_TABLE_BYTES, limits.header_table_bytes_max),
            (frame::SETTING_STREAMS_MAX, limits.streams_max),
            (frame::SETTING_WINDOW, limits.stream_window_bytes),
            (frame::SETTING_PAYLOAD_MAX, limits.frame_bytes_max),
            (frame::SETTING_FIELDS_BYTES_MAX, limits.header_list_bytes_max),
        ];
        frame::write_settings(&settings, &mut out);
        let more = limits.connection_window_bytes.saturating_sub(WINDOW_BYTES_FIRST);
        if more > 0 {
            frame::write_number(Kind::WindowUpdate, 0, more, &mut out);
        }
        Self {
            phase: Phase::Preface,
            going: Going::No,
            is_client_going: false,
            decoder: Decoder::new(limits.header_table_bytes_max as usize),
            fields: FieldWriter::new(),
            streams: Streams::default(),
            last: 0,
            block: None,
            out,
            send_window: i64::from(WINDOW_BYTES_FIRST),
            stream_window: i64::from(WINDOW_BYTES_FIRST),
            sent: 0,
            inflow: Inflow::new(&limits, budget),
            turns: Turns::default(),
            reset: VecDeque::new(),
            errors: 0,
            is_acknowledged: false,
            changes: 0,
            limits,
        }
    }

    /// Both windows of the connection become what the limits say, even where a connection begins with more:
    /// for tests, in which nothing was said yet.
    pub(super) fn narrow(&mut self) {
        self.inflow.narrow(&self.limits);
        self.send_window = i64::from(self.limits.connection_window_bytes);
    }

    /// Whether the client has said its first words.
    pub(in crate::edge) fn is_greeted(&self) -> bool {
        !matches!(self.phase, Phase::Preface | Phase::Greeting)
    }

    /// Whether more may be read now: what goes out has to have room for the answers, and requests that were
    /// taken back have to be done with, or a client that opens and resets streams made work without end.
    pub(in crate::edge) fn is_readable(&self) -> bool {
        self.phase != Phase::Over
            && self.out.len() < 2 * self.limits.connection_send_bytes_max
            && self.streams.unseen() < self.limits.pending_reset_streams_max
            && self.changes < CHANGES_PER_TURN_MAX
    }

    /// A turn of the connection's task begins.
    pub(in crate::edge) fn begin_turn(&mut self) {
        self.changes = 0;
    }

    /// Whether the connection may be closed once `out` is written.
    pub(in crate::edge) fn is_over(&self) -> bool {
        let is_going = matches!(self.going, Going::Heard { .. });
        self.phase == Phase::Over || (is_going && self.streams.is_empty())
    }

    /// Asks the client for a sign of life.
    pub(in crate::edge) fn ask(&mut self) {
        self.write_ping(0, KEEPALIVE_PING);
    }

    /// Tells the client to begin no more. Streams that it begins before it has heard of it are served.
    pub(in crate::edge) fn go_away(&mut self) {
        if self.going == Going::No && self.phase != Phase::Over {
            self.going = Going::Told;
            self.write_go_away(LAST_OF_ALL, Code::NoError);
            self.write_ping(0, GOING_PING);
        }
    }

    /// Whether the client was told to begin no more.
    pub(in crate::edge) fn is_going(&self) -> bool {
        self.going != Going::No
    }

    /// The client has heard that we go away, or has had the time to: what it begins from now on is ignored.
    pub(in crate::edge) fn part(&mut self) {
        if self.going == Going::Told && self.phase != Phase::Over {
            self.going = Going::Heard { last: self.last };
            self.write_go_away(self.last, Code::NoError);
        }
    }

    /// A client that goes away has all its answers: it is told which of its streams was the last that was
    /// looked at (RFC 9113, section 6.8), since it may have begun others.
    pub(super) fn part_with_client(&mut self) {
        let is_parted = self.phase == Phase::Over || matches!(self.going, Going::Heard { .. });
        if self.is_client_going && self.streams.is_empty() && !is_parted {
            self.going = Going::Heard { last: self.last };
            self.write_go_away(self.last, Code::NoError);
        }
    }

    /// Ends the connection now: all streams are lost.
    pub(in crate::edge) fn end(&mut self, code: Code) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            let last = match self.going {
                Going::Heard { last } => last,
                Going::No | Going::Told => self.last,
            };
            self.write_go_away(last, code);
        }
        self.lose();
    }

    /// The connection is lost, and all streams with it.
    pub(in crate::edge) fn lose(&mut self) {
        self.phase = Phase::Over;
        self.streams.lose();
    }

    /// The socket took so many bytes of `out`. Where the client's window is used up that is no progress of
    /// any stream: pings and their answers go on all the same.
    pub(in crate::edge) fn wrote(&mut self, bytes: usize) {
        if self.send_window > 0 {
            self.sent += bytes as u64;
        }
    }

    /// What was in `out` has been written: who waited for room may go on.
    pub(in crate::edge) fn written(&mut self) {
        self.out.clear();
        // A burst of answers leaves no buffer of its size for good.
        self.out.shrink_to(2 * self.limits.connection_send_bytes_max);
        self.wake_waiting();
    }

    /// Lets go of the room that a burst of answers took. To be called once in a while: who has bursts again
    /// and again makes room for them again and again.
    pub(in crate::edge) fn shrink(&mut self) {
        if self.out.is_empty() {
            self.out.shrink_to(OUT_BYTES_KEPT);
        }
    }

    /// Takes bytes from the socket: all frames that are whole. Gives how many bytes those were. Requests are
    /// added to `opened`.
    pub(in crate::edge) fn receive(&mut self, bytes: &[u8], opened: &mut Vec<Opened>) -> usize {
        match self.receive_frames(bytes, opened) {
            Ok(taken) => taken,
            Err(code) => {
                self.end(code);
                bytes.len()
            }
        }
    }

    fn receive_frames(&mut self, bytes: &[u8], opened: &mut Vec<Opened>) -> Result<usize, Code> {
        let mut taken = 0;
        if self.phase == Phase::Preface {
            let known = bytes.len().min(PREFACE.len());
            if bytes[..known] != PREFACE[..known] {
                return Err(Code::Protocol);
            }
            if known < PREFACE.len() {
                return Ok(0);
            }
            self.phase = Phase::Greeting;
            taken = known;
        }
        while self.is_readable() {
            let Some((head, rest)) = bytes[taken..].split_first_chunk() else { break };
            let head = Head::read(head);
            if head.len > self.limits.frame_bytes_max as usize {
                return Err(Code::FrameSize);
            }
            let Some(payload) = rest.get(..head.len) else { break };
            self.receive_frame(head, payload, opened)?;
            taken += frame::HEAD_BYTES + head.len;
        }
        Ok(taken)
    }

    /// Takes one frame. Until the client has greeted, and within a block of fields, only one kind may come.
    fn receive_frame(&mut self, head: Head, payload: &[u8], opened: &mut Vec<Opened>) -> Result<(), Code> {
        if self.phase == Phase::Greeting && (head.kind != Kind::Settings || head.has(frame::ACK)) {
            return Err(Code::Protocol);
        }
        if self.block.is_some() != (head.kind == Kind::Continuation) {
            return Err(Code::Protocol);
        }
        match head.kind {
            Kind::Data => self.receive_data(head, payload),
            Kind::Headers => self.receive_headers(head, payload, opened),
            Kind::Continuation => self.receive_continuation(head, payload, opened),
            Kind::Reset => self.receive_reset(head, payload),
            Kind::Settings => self.receive_settings(head, payload),
            Kind::Ping => self.receive_ping(head, payload),
            Kind::GoAway => self.receive_go_away(head, payload),
            Kind::WindowUpdate => self.receive_window(head, payload),
            Kind::PushPromise => Err(Code::Protocol),
            Kind::Priority if head.stream == 0 => Err(Code::Protocol),
            Kind::Priority if payload.len() != 5 => Err(Code::FrameSize),
            Kind::Priority | Kind::Unknown => Ok(()),
        }
    }

    /// DATA: a part of a body. Its padding counts for the windows as well.
    fn receive_data(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        self.check_begun(head)?;
        let is_beyond = self.is_beyond(head.stream);
        let len = u32::try_from(head.len).map_err(|_| Code::FrameSize)?;
        let data = unpadded(head, payload)?;
        self.inflow.receive(len)?;
        let (mut unwanted, mut fault) = (len, None);
        match self.streams.get_mut(head.stream).filter(|stream| !stream.is_gone) {
            None if is_beyond || self.reset.contains(&head.stream) => {}
            None => fault = Some(Code::StreamClosed),
            Some(stream) if stream.is_received => fault = Some(Code::StreamClosed),
            Some(stream) if stream.receive_window < len => fault = Some(Code::FlowControl),
            Some(stream) => {
                stream.receive_window -= len;
                unwanted = len - data.len() as u32;
                stream.owed += unwanted;
                stream.body.extend_from_slice(data);
                let left = stream.body_left.map(|left| left.checked_sub(data.len() as u64));
                stream.is_received = head.has(frame::END_STREAM);
                stream.body_left = left.flatten();
                // A body that is longer or shorter than was said.
                if left == Some(None) || (stream.is_received && stream.body_left.is_some_and(|left| left > 0))
                {
                    fault = Some(Code::Protocol);
                } else {
                    stream.wake();
                }
            }
        }
        self.give_back(unwanted);
        self.give_back_of(head.stream);
        match fault {
            Some(code) => self.fail_stream(head.stream, code),
            None => Ok(()),
        }
    }

    /// HEADERS: a request's fields or its trailers; whole, or to be continued.
    fn receive_headers(&mut self, head: Head, payload: &[u8], opened: &mut Vec<Opened>) -> Result<(), Code> {
        if head.stream.is_multiple_of(2) {
            return Err(Code::Protocol);
        }
        let mut fields = unpadded(head, payload)?;
        if head.has(frame::PRIORITY) {
            fields = fields.get(5..).ok_or(Code::FrameSize)?;
        }
        let (id, ends_stream) = (head.stream, head.has(frame::END_STREAM));
        if head.has(frame::END_HEADERS) {
            return self.take_fields(id, fields, ends_stream, opened);
        }
        self.block = Some(Block { id, bytes: fields.to_vec(), parts: 1, ends_stream });
        Ok(())
    }

    /// CONTINUATION: more of the block that HEADERS began.
    fn receive_continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        opened: &mut Vec<Opened>,
    ) -> Result<(), Code> {
        let mut block = self.block.take().ok_or(Code::Protocol)?;
        if block.id != head.stream {
            return Err(Code::Protocol);
        }
        block.parts += 1;
        let bytes_max = BLOCKS_PER_LIST_MAX * self.limits.header_list_bytes_max as usize;
        if block.parts > BLOCK_PARTS_MAX || block.bytes.len() + payload.len() > bytes_max {
            return Err(Code::Calm);
        }
        block.bytes.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.take_fields(block.id, &block.bytes, block.ends_stream, opened);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A block of fields is whole. It is read whether or not anybody wants it.
    fn take_fields(
        &mut self,
        id: u32,
        block: &[u8],
        ends_stream: bool,
        opened: &mut Vec<Opened>,
    ) -> Result<(), Code> {
        let fields = self.decoder.decode(block).map_err(|_| Code::Compression)?;
        if id <= self.last {
            return self.take_trailers(id, &fields, ends_stream);
        }
        self.last = id;
        if self.is_beyond(id) {
            return Ok(());
        }
        if self.streams.open() >= self.limits.streams_max as usize {
            return self.fail_stream(id, Code::Refused);
        }
        if !fields.is_request() {
            return self.fail_stream(id, Code::Protocol);
        }
        if fields.list_bytes > self.limits.header_list_bytes_max as usize {
            self.write_head_frame(id, true, |fields, out| fields.http(431, out));
            return self.fail_stream(id, Code::NoError);
        }
        if ends_stream && fields.content_length.is_some_and(|length| length > 0) {
            return self.fail_stream(id, Code::Protocol);
        }
        // Until it has read our settings a client may send what every stream begins with.
        let least = if self.is_acknowledged { 0 } else { WINDOW_BYTES_FIRST };
        let mut stream = Stream::new(self.stream_window, self.limits.stream_window_bytes.max(least));
        stream.is_received = ends_stream;
        stream.body_left = fields.content_length;
        self.streams.insert(id, stream);
        opened.push(Opened { id, fields });
        Ok(())
    }

    /// Fields of a stream that has begun: gRPC's requests have no trailers, so they say nothing but the end.
    fn take_trailers(&mut self, id: u32, fields: &RequestFields, ends_stream: bool) -> Result<(), Code> {
        let Some(stream) = self.streams.get_mut(id).filter(|stream| !stream.is_gone) else {
            let is_ignored = self.is_beyond(id) || self.reset.contains(&id);
            return if is_ignored { Ok(()) } else { Err(Code::StreamClosed) };
        };
        if stream.is_received {
            return self.fail_stream(id, Code::StreamClosed);
        }
        if !ends_stream || !fields.are_trailers() || stream.body_left.is_some_and(|left| left > 0) {
            return self.fail_stream(id, Code::Protocol);
        }
        stream.is_received = true;
        stream.wake();
        Ok(())
    }

    /// RST_STREAM: the client gives a stream up.
    fn receive_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        self.check_begun(head)?;
        exactly::<4>(payload)?;
        self.streams.give_up(head.stream);
        Ok(())
    }

    /// SETTINGS, which are acknowledged at once; or the acknowledgement of ours.
    fn receive_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        if head.stream != 0 {
            return Err(Code::Protocol);
        }
        if head.has(frame::ACK) {
            self.is_acknowledged = true;
            self.decoder.acknowledge();
            return if payload.is_empty() { Ok(()) } else { Err(Code::FrameSize) };
        }
        let (settings, []) = payload.as_chunks::<6>() else { return Err(Code::FrameSize) };
        let mut window = self.stream_window;
        for [name_1, name_0, value @ ..] in settings {
            match (u16::from_be_bytes([*name_1, *name_0]), u32::from_be_bytes(*value)) {
                (frame::SETTING_WINDOW, value) if i64::from(value) > WINDOW_BYTES_MAX => {
                    return Err(Code::FlowControl);
                }
                // Of several the last one counts.
                (frame::SETTING_WINDOW, value) => window = i64::from(value),
                (name, value) => self.take_setting(name, value)?,
            }
        }
        self.take_window(window)?;
        Head { len: 0, kind: Kind::Settings, flags: frame::ACK, stream: 0 }.write(&mut self.out);
        if self.phase == Phase::Greeting {
            self.phase = Phase::Open;
        }
        Ok(())
    }

    /// One setting but that of the windows.
    fn take_setting(&mut self, name: u16, value: u32) -> Result<(), Code> {
        match name {
            frame::SETTING_TABLE_BYTES => self.fields.limit_table(value as usize),
            frame::SETTING_PUSH if value > 1 => return Err(Code::Protocol),
            frame::SETTING_PAYLOAD_MAX if value < frame::PAYLOAD_BYTES_MAX as u32 || value >= 1 << 24 => {
                return Err(Code::Protocol);
            }
            // Larger frames than need be would only hold up the others.
            _ => {}
        }
        Ok(())
    }

    /// A new window for streams changes those that are open by the difference, below zero too.
    fn take_window(&mut self, window: i64) -> Result<(), Code> {
        let more = window - self.stream_window;
        self.stream_window = window;
        if more == 0 || self.streams.is_empty() {
            return Ok(());
        }
        self.changes += 1;
        let is_within = self.streams.add_to_windows(more, WINDOW_BYTES_MAX);
        if is_within { Ok(()) } else { Err(Code::FlowControl) }
    }

    /// PING, which comes back with the same eight bytes; or one of ours that has come back.
    fn receive_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        if head.stream != 0 {
            return Err(Code::Protocol);
        }
        let payload: [u8; 8] = exactly(payload)?;
        if !head.has(frame::ACK) {
            self.write_ping(frame::ACK, payload);
            return Ok(());
        }
        if payload == GOING_PING {
            self.part();
        }
        Ok(())
    }

    /// GOAWAY: the client wants the answers under way, and no more.
    fn receive_go_away(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        if head.stream != 0 {
            return Err(Code::Protocol);
        }
        if payload.len() < 8 {
            return Err(Code::FrameSize);
        }
        self.is_client_going = true;
        self.part_with_client();
        Ok(())
    }

    /// WINDOW_UPDATE, of a stream or of the connection (0).
    fn receive_window(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        let more = i64::from(u32::from_be_bytes(exactly(payload)?) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += more;
            self.wake_waiting();
            return match (more, self.send_window > WINDOW_BYTES_MAX) {
                (0, _) => Err(Code::Protocol),
                (_, true) => Err(Code::FlowControl),
                (_, false) => Ok(()),
            };
        }
        self.check_begun(head)?;
        let Some(stream) = self.streams.get_mut(head.stream).filter(|stream| !stream.is_gone) else {
            return Ok(());
        };
        stream.send_window += more;
        match (more, stream.send_window > WINDOW_BYTES_MAX) {
            (0, _) => self.fail_stream(head.stream, Code::Protocol),
            (_, true) => self.fail_stream(head.stream, Code::FlowControl),
            (_, false) => {
                stream.wake();
                Ok(())
            }
        }
    }

    /// A frame has to be of a stream that has begun once.
    fn check_begun(&self, head: Head) -> Result<(), Code> {
        let has_begun = head.stream % 2 == 1 && head.stream <= self.last;
        if has_begun { Ok(()) } else { Err(Code::Protocol) }
    }

    /// Whether a stream began after the client had heard that we go away: whatever comes of it is ignored.
    fn is_beyond(&self, id: u32) -> bool {
        matches!(self.going, Going::Heard { last } if id > last)
    }

    /// Ends a stream by force. A client that makes too many errors loses its connection.
    fn fail_stream(&mut self, id: u32, code: Code) -> Result<(), Code> {
        self.errors += usize::from(code != Code::NoError);
        if self.errors > self.limits.error_resets_max {
            return Err(Code::Calm);
        }
        self.streams.give_up(id);
        self.write_reset(id, code);
        Ok(())
    }

    pub(super) fn write_reset(&mut self, id: u32, code: Code) {
        frame::write_reset(id, code, &mut self.out);
        if self.reset.len() >= self.limits.reset_streams_max {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// Spells a block of fields: in as many frames as it takes.
    pub(super) fn write_head_frame(
        &mut self,
        id: u32,
        is_last: bool,
        spell: impl FnOnce(&mut FieldWriter, &mut Vec<u8>),
    ) {
        let mut flags = if is_last { frame::END_STREAM } else { 0 };
        let begin = self.out.len();
        Head { len: 0, kind: Kind::Headers, flags, stream: id }.write(&mut self.out);
        spell(&mut self.fields, &mut self.out);
        let len = self.out.len() - begin - frame::HEAD_BYTES;
        if len <= frame::PAYLOAD_BYTES_MAX {
            self.out[begin..begin + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
            self.out[begin + FLAGS_AT] |= frame::END_HEADERS;
            return;
        }
        let block = self.out.split_off(begin + frame::HEAD_BYTES);
        self.out.truncate(begin);
        let (mut kind, count) = (Kind::Headers, block.len().div_ceil(frame::PAYLOAD_BYTES_MAX));
        for (at, part) in block.chunks(frame::PAYLOAD_BYTES_MAX).enumerate() {
            flags |= if at + 1 == count { frame::END_HEADERS } else { 0 };
            Head { len: part.len(), kind, flags, stream: id }.write(&mut self.out);
            self.out.extend_from_slice(part);
            (kind, flags) = (Kind::Continuation, 0);
        }
    }

    fn write_ping(&mut self, flags: u8, payload: [u8; 8]) {
        Head { len: 8, kind: Kind::Ping, flags, stream: 0 }.write(&mut self.out);
        self.out.extend_from_slice(&payload);
    }

    fn write_go_away(&mut self, last: u32, code: Code) {
        Head { len: 8, kind: Kind::GoAway, flags: 0, stream: 0 }.write(&mut self.out);
        self.out.extend_from_slice(&last.to_be_bytes());
        self.out.extend_from_slice(&(code as u32).to_be_bytes());
    }

    /// Gives bytes that were taken back to the connection's window, when it is time.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.inflow.take(bytes);
        if let Some(more) = self.inflow.grow() {
            frame::write_number(Kind::WindowUpdate, 0, more, &mut self.out);
        }
    }

    /// Gives bytes that were taken back to the window of a stream, once they are half of it, where more may
    /// come of the stream.
    pub(super) fn give_back_of(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let is_wanted = !stream.is_received && !stream.is_gone;
        if is_wanted && stream.owed > 0 && stream.owed >= self.limits.stream_window_bytes / 2 {
            frame::write_number(Kind::WindowUpdate, id, stream.owed, &mut self.out);
            stream.receive_window += stream.owed;
            stream.owed = 0;
        }
    }
}

impl From<BadPadding> for Code {
    fn from(_: BadPadding) -> Self {
        Self::Protocol
    }
}

/// A payload of a fixed size.
fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], Code> {
    payload.try_into().map_err(|_| Code::FrameSize)
}
