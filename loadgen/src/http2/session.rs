//! One connection's protocol: requests go in and come out as bytes; bytes come in and come out as events.
//!
//! ```text
//!  Greeting ──SETTINGS──► Open ──GOAWAY, ids used up──► Draining ──last stream ends──► over
//! ```
//! Invariants:
//! - Every stream that was opened ends in one `End`, `Reset` or `Lost`, or by [`Session::cancel`]; nothing is
//!   said of it after that.
//! - A DATA frame is never larger than the server's windows and its largest frame allow; what does not fit
//!   yet waits, at most `WAITING_BYTES_MAX` and one body more.
//! - Every block of fields is read, also that of a stream that was cancelled: the table counts on it.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use distribkv::http2::frame::{
    self, BadPadding, Code, Head, Kind, WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX, unpadded,
};

use crate::http2::fields::{Decoder, Fields};
use crate::http2::head::{HeadWriter, Heads, Span};
use crate::http2::streams::{Stream, Streams};

/// Bytes on their way to the socket, before no further stream is opened and nothing that waits is added.
const OUT_BYTES_MAX: usize = 256 << 10;
/// Bytes of bodies that wait for the server's windows, before no further stream is opened.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Bytes of a block of fields.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// The window of each stream: more than the largest answer.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The window of the connection.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// What happened to a stream.
#[derive(Debug)]
pub struct Event<'a> {
    /// Whose stream it is.
    pub token: u32,
    /// What happened.
    pub news: News<'a>,
}

/// What happens to a stream.
#[derive(Debug)]
pub enum News<'a> {
    /// The head of the answer, or its trailers.
    Fields(&'a Fields),
    /// A part of the body.
    Data(&'a [u8]),
    /// The server has said everything.
    End,
    /// The server gave it up, with this code.
    Reset(u32),
    /// The connection is gone, or the server will not look at the stream.
    Lost,
}

/// How a server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frame is larger than allowed, or its size does not fit its kind.
    FrameSize,
    /// A frame of a stream that was never opened, or of none where there has to be one.
    Stream,
    /// Fields that cannot be read, or too many of them.
    Fields,
    /// A block of fields that other frames come between, or that goes on without having begun.
    Block,
    /// The first frame is not SETTINGS.
    Greeting,
    /// A setting outside its bounds.
    Setting,
    /// A window beyond its bounds, or made larger by nothing.
    Window,
    /// A push, which was refused.
    Push,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FrameSize => "a frame of a wrong size",
            Self::Stream => "a frame of a stream that is none",
            Self::Fields => "fields that cannot be read",
            Self::Block => "a block of fields that is not in one piece",
            Self::Greeting => "an answer that is not HTTP/2",
            Self::Setting => "a setting outside its bounds",
            Self::Window => "a window outside its bounds",
            Self::Push => "a push",
        })
    }
}

impl std::error::Error for Violation {}

/// A request to be sent: which path, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Comes back with every event.
    pub token: u32,
    /// Which of the paths of [`Heads`].
    pub path: usize,
}

/// The rest of a body that waits for the server's windows.
#[derive(Debug)]
struct Waiting {
    stream: u32,
    body: Vec<u8>,
    sent: usize,
    then: Then,
}

/// What follows a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The end of the stream.
    End,
    /// Perhaps more.
    More,
}

/// A block of fields whose end has not come.
#[derive(Debug)]
struct Block {
    stream: u32,
    bytes: Vec<u8>,
    ends_stream: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Open,
    Draining,
}

/// One connection. Whoever has its socket takes `out` to it, after [`Session::fill`].
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    heads: HeadWriter,
    decoder: Decoder,
    streams: Streams,
    block: Option<Block>,
    /// What is to be written to the socket.
    pub out: Vec<u8>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// What the server takes: of all streams now, of a new stream, in one frame, in streams.
    send_window: i64,
    stream_window: i64,
    payload_max: usize,
    streams_max: usize,
    /// Bytes that came since the connection's window was last given back.
    received: u32,
}

impl Session {
    /// A connection that has the client's first words to say.
    pub fn new(heads: Rc<Heads>) -> Self {
        let mut out = frame::PREFACE.to_vec();
        let settings = [(frame::SETTING_PUSH, 0), (frame::SETTING_WINDOW, STREAM_WINDOW_BYTES)];
        frame::write_settings(&settings, &mut out);
        frame::write_number(Kind::WindowUpdate, 0, CONNECTION_WINDOW_BYTES - WINDOW_BYTES_FIRST, &mut out);
        Self {
            phase: Phase::Greeting,
            heads: HeadWriter::new(heads),
            decoder: Decoder::default(),
            streams: Streams::default(),
            block: None,
            out,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            send_window: i64::from(WINDOW_BYTES_FIRST),
            stream_window: i64::from(WINDOW_BYTES_FIRST),
            payload_max: frame::PAYLOAD_BYTES_MAX,
            streams_max: usize::MAX,
            received: 0,
        }
    }

    /// Whether the server has said its first words.
    pub fn is_greeted(&self) -> bool {
        self.phase != Phase::Greeting
    }

    /// Whether the server has not said that it takes no more.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open && !self.streams.is_used_up()
    }

    /// Whether nothing is left to be said by either side.
    pub fn is_over(&self) -> bool {
        !self.is_open() && self.is_greeted() && self.streams.open() == 0
    }

    /// Whether a request can be sent now.
    pub fn has_room(&self) -> bool {
        self.is_open()
            && self.out.len() < OUT_BYTES_MAX
            && self.waiting_bytes < WAITING_BYTES_MAX
            && self.streams.open() < self.streams_max
            && self.streams.has_room()
    }

    /// Sends a request whose whole body, of `len` bytes, is spelt by `spell`: straight into the bytes that go
    /// out, where the windows allow it, else into a body that waits. Gives its stream. Asks for
    /// [`Session::has_room`].
    pub fn send(&mut self, request: Request, len: usize, spell: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let fits = self.send_window.min(self.stream_window).min(self.payload_max as i64);
        if self.waiting.is_empty() && len as i64 <= fits {
            let stream = self.open(request, Span::Timed, Then::End);
            Head { len, kind: Kind::Data, flags: frame::END_STREAM, stream }.write(&mut self.out);
            let begin = self.out.len();
            spell(&mut self.out);
            assert_eq!(self.out.len() - begin, len, "a body was spelt in another length than announced");
            self.send_window -= len as i64;
            stream
        } else {
            let stream = self.open(request, Span::Timed, Then::More);
            let mut body = Vec::with_capacity(len);
            spell(&mut body);
            self.waiting_bytes += body.len();
            self.waiting.push_back(Waiting { stream, body, sent: 0, then: Then::End });
            stream
        }
    }

    /// Opens a stream that is written to bit by bit. Gives its id. Asks for [`Session::has_room`].
    pub fn open_endless(&mut self, request: Request) -> u32 {
        self.open(request, Span::Endless, Then::More)
    }

    /// Sends more on a stream of [`Session::open_endless`]; it leaves with [`Session::fill`].
    pub fn write(&mut self, stream: u32, spell: impl FnOnce(&mut Vec<u8>)) {
        let at = self.waiting.iter().position(|waiting| waiting.stream == stream).unwrap_or_else(|| {
            self.waiting.push_back(Waiting { stream, body: Vec::new(), sent: 0, then: Then::More });
            self.waiting.len() - 1
        });
        let waiting = &mut self.waiting[at];
        if waiting.sent > waiting.body.len() / 2 {
            waiting.body.drain(..waiting.sent);
            waiting.sent = 0;
        }
        let begin = waiting.body.len();
        spell(&mut waiting.body);
        self.waiting_bytes += waiting.body.len() - begin;
    }

    /// Opens a stream whose body is sent at once, where its end follows, or later.
    fn open(&mut self, request: Request, span: Span, then: Then) -> u32 {
        assert!(self.has_room(), "a request without room: {:?}, {} open", self.phase, self.streams.open());
        let (token, send_window, is_sent) = (request.token, self.stream_window, then == Then::End);
        let id = self.streams.insert(Stream { token, received: 0, send_window, is_sent });
        let begin = self.out.len();
        Head { len: 0, kind: Kind::Headers, flags: frame::END_HEADERS, stream: id }.write(&mut self.out);
        self.heads.write(request.path, span, &mut self.out);
        let len = self.out.len() - begin - frame::HEAD_BYTES;
        assert!(len <= frame::PAYLOAD_BYTES_MAX, "a request's head of {len} bytes");
        self.out[begin..begin + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        id
    }

    /// Gives a stream up, where it is open. No event tells of it.
    pub fn cancel(&mut self, stream: u32) {
        if self.streams.remove(stream).is_some() {
            self.forget(stream);
            frame::write_reset(stream, Code::Cancel, &mut self.out);
        }
    }

    /// Moves what waits to the bytes that are to be written, as far as windows and room allow.
    pub fn fill(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some(mut waiting) = self.waiting.pop_front() else { return };
            if self.fill_of(&mut waiting) {
                continue;
            }
            self.waiting.push_back(waiting);
            if self.out.len() >= OUT_BYTES_MAX || self.send_window <= 0 {
                // The order among those that still wait does not matter, but that all get their turn.
                return;
            }
        }
    }

    /// Sends of one body what can be sent. Whether that was all.
    fn fill_of(&mut self, waiting: &mut Waiting) -> bool {
        let Some(stream) = self.streams.get_mut(waiting.stream) else { return true };
        loop {
            let left = waiting.body.len() - waiting.sent;
            if left == 0 {
                return true;
            }
            let fits = self.send_window.min(stream.send_window).min(self.payload_max as i64);
            if fits <= 0 || self.out.len() >= OUT_BYTES_MAX {
                return false;
            }
            let len = left.min(fits as usize);
            stream.is_sent = len == left && waiting.then == Then::End;
            let flags = if stream.is_sent { frame::END_STREAM } else { 0 };
            Head { len, kind: Kind::Data, flags, stream: waiting.stream }.write(&mut self.out);
            self.out.extend_from_slice(&waiting.body[waiting.sent..waiting.sent + len]);
            waiting.sent += len;
            self.waiting_bytes -= len;
            self.send_window -= len as i64;
            stream.send_window -= len as i64;
        }
    }

    /// Forgets what waits of a stream that has ended.
    fn forget(&mut self, stream: u32) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.retain(|waiting| waiting.stream != stream);
        self.waiting_bytes = self.waiting.iter().map(|waiting| waiting.body.len() - waiting.sent).sum();
    }

    /// Takes bytes from the socket: all frames that are whole. Gives how many bytes those were.
    pub fn receive(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Violation> {
        let mut taken = 0;
        while let Some((head, rest)) = bytes[taken..].split_first_chunk() {
            let head = Head::read(head);
            if head.len > frame::PAYLOAD_BYTES_MAX {
                return Err(if self.is_greeted() { Violation::FrameSize } else { Violation::Greeting });
            }
            let Some(payload) = rest.get(..head.len) else { break };
            self.receive_frame(head, payload, sink)?;
            taken += frame::HEAD_BYTES + head.len;
        }
        Ok(taken)
    }

    /// Takes one frame. Until the server has greeted, and within a block of fields, only one kind may come.
    fn receive_frame(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if self.phase == Phase::Greeting && head.kind != Kind::Settings {
            return Err(Violation::Greeting);
        }
        if self.block.is_some() != (head.kind == Kind::Continuation) {
            return Err(Violation::Block);
        }
        match head.kind {
            Kind::Data => self.receive_data(head, payload, sink),
            Kind::Headers => self.receive_headers(head, payload, sink),
            Kind::Continuation => self.receive_continuation(head, payload, sink),
            Kind::Reset => self.receive_reset(head, payload, sink),
            Kind::Settings => self.receive_settings(head, payload),
            Kind::Ping => self.receive_ping(head, payload),
            Kind::GoAway => self.receive_goaway(payload, sink),
            Kind::WindowUpdate => self.receive_window(head, payload),
            Kind::PushPromise => Err(Violation::Push),
            Kind::Priority | Kind::Unknown => Ok(()),
        }
    }

    /// DATA: a part of a body. Its padding counts for the windows as well.
    fn receive_data(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.check_stream(head)?;
        self.received += head.len as u32;
        if self.received >= CONNECTION_WINDOW_BYTES / 2 {
            frame::write_number(Kind::WindowUpdate, 0, self.received, &mut self.out);
            self.received = 0;
        }
        let data = unpadded(head, payload)?;
        let Some(stream) = self.streams.get_mut(head.stream) else { return Ok(()) };
        stream.received += head.len as u32;
        if stream.received >= STREAM_WINDOW_BYTES / 2 && !head.has(frame::END_STREAM) {
            frame::write_number(Kind::WindowUpdate, head.stream, stream.received, &mut self.out);
            stream.received = 0;
        }
        if !data.is_empty() {
            sink(Event { token: stream.token, news: News::Data(data) });
        }
        if head.has(frame::END_STREAM) {
            self.end(head.stream, News::End, sink);
        }
        Ok(())
    }

    /// HEADERS: the head of an answer, or its trailers; whole, or to be continued.
    fn receive_headers(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.check_stream(head)?;
        let mut fields = unpadded(head, payload)?;
        if head.has(frame::PRIORITY) {
            fields = fields.get(5..).ok_or(Violation::FrameSize)?;
        }
        let ends_stream = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.take_fields(head.stream, fields, ends_stream, sink);
        }
        self.block = Some(Block { stream: head.stream, bytes: fields.to_vec(), ends_stream });
        Ok(())
    }

    /// CONTINUATION: more of the block that HEADERS began.
    fn receive_continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let mut block = self.block.take().ok_or(Violation::Block)?;
        if block.stream != head.stream {
            return Err(Violation::Block);
        }
        if block.bytes.len() + payload.len() > BLOCK_BYTES_MAX {
            return Err(Violation::Fields);
        }
        block.bytes.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.take_fields(block.stream, &block.bytes, block.ends_stream, sink);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A block of fields is whole. It is read whether or not anybody waits for it.
    fn take_fields(
        &mut self,
        stream: u32,
        block: &[u8],
        ends_stream: bool,
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let fields = self.decoder.decode(block).map_err(|_| Violation::Fields)?;
        let Some(token) = self.streams.get_mut(stream).map(|stream| stream.token) else { return Ok(()) };
        sink(Event { token, news: News::Fields(&fields) });
        if ends_stream {
            self.end(stream, News::End, sink);
        }
        Ok(())
    }

    /// RST_STREAM: the server gives a stream up.
    fn receive_reset(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.check_stream(head)?;
        let code = u32::from_be_bytes(exactly(payload)?);
        self.end(head.stream, News::Reset(code), sink);
        Ok(())
    }

    /// SETTINGS, which are acknowledged at once; or the acknowledgement of this side's.
    fn receive_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(Violation::Stream);
        }
        if head.has(frame::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Violation::FrameSize) };
        }
        let (settings, []) = payload.as_chunks::<6>() else { return Err(Violation::FrameSize) };
        for [name_1, name_0, value @ ..] in settings {
            self.take_setting(u16::from_be_bytes([*name_1, *name_0]), u32::from_be_bytes(*value))?;
        }
        Head { len: 0, kind: Kind::Settings, flags: frame::ACK, stream: 0 }.write(&mut self.out);
        if self.phase == Phase::Greeting {
            self.phase = Phase::Open;
        }
        Ok(())
    }

    /// One setting. A new window for streams changes those that are open by the difference, below zero too.
    fn take_setting(&mut self, name: u16, value: u32) -> Result<(), Violation> {
        match name {
            frame::SETTING_TABLE_BYTES => self.heads.limit_table(value as usize),
            frame::SETTING_STREAMS_MAX => self.streams_max = value as usize,
            frame::SETTING_WINDOW => {
                let window = i64::from(value);
                if window > WINDOW_BYTES_MAX {
                    return Err(Violation::Window);
                }
                let more = window - self.stream_window;
                self.stream_window = window;
                self.streams.iter_mut().for_each(|stream| stream.send_window += more);
            }
            frame::SETTING_PAYLOAD_MAX if value < frame::PAYLOAD_BYTES_MAX as u32 || value >= 1 << 24 => {
                return Err(Violation::Setting);
            }
            // Larger frames than need be would only hold up the others.
            frame::SETTING_PAYLOAD_MAX => {}
            _ => {}
        }
        Ok(())
    }

    /// PING, which comes back with the same eight bytes.
    fn receive_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        let payload: [u8; 8] = exactly(payload)?;
        if !head.has(frame::ACK) {
            Head { len: 8, kind: Kind::Ping, flags: frame::ACK, stream: 0 }.write(&mut self.out);
            self.out.extend_from_slice(&payload);
        }
        Ok(())
    }

    /// GOAWAY: streams above the last one that is named were not looked at, and no further one is opened.
    fn receive_goaway(&mut self, payload: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), Violation> {
        let last = payload.first_chunk().ok_or(Violation::FrameSize)?;
        let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
        self.phase = Phase::Draining;
        self.lose_above(last, sink);
        Ok(())
    }

    /// WINDOW_UPDATE, of a stream or of the connection (0).
    fn receive_window(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        let more = i64::from(u32::from_be_bytes(exactly(payload)?) & 0x7fff_ffff);
        if more == 0 {
            return Err(Violation::Window);
        }
        if head.stream == 0 {
            self.send_window += more;
            return if self.send_window > WINDOW_BYTES_MAX { Err(Violation::Window) } else { Ok(()) };
        }
        self.check_stream(head)?;
        match self.streams.get_mut(head.stream) {
            Some(stream) if stream.send_window + more > WINDOW_BYTES_MAX => Err(Violation::Window),
            Some(stream) => {
                stream.send_window += more;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A frame has to be of a stream that was opened once.
    fn check_stream(&self, head: Head) -> Result<(), Violation> {
        if self.streams.was_opened(head.stream) { Ok(()) } else { Err(Violation::Stream) }
    }

    /// Ends a stream, where it is still open. One that this side has more to say on is
    /// cancelled, since nobody listens.
    fn end(&mut self, stream: u32, news: News<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let Some(ended) = self.streams.remove(stream) else { return };
        self.forget(stream);
        if !ended.is_sent && matches!(news, News::End) {
            frame::write_reset(stream, Code::Cancel, &mut self.out);
        }
        sink(Event { token: ended.token, news });
    }

    /// Everything that is open is lost, since the connection is.
    pub fn lose(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        self.phase = Phase::Draining;
        self.lose_above(0, sink);
    }

    /// The streams above one are lost, the newest first.
    fn lose_above(&mut self, last: u32, sink: &mut impl FnMut(Event<'_>)) {
        while let Some(stream) = self.streams.last_above(last) {
            self.end(stream, News::Lost, sink);
        }
    }
}

impl From<BadPadding> for Violation {
    fn from(_: BadPadding) -> Self {
        Self::FrameSize
    }
}

/// A payload of a fixed size.
fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], Violation> {
    payload.try_into().map_err(|_| Violation::FrameSize)
}
