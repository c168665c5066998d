//! A connection without a socket: the bytes of a client come in, and streams that need no store answer them.
//! For tests that try every kind of bytes.
//!
//! What is looked at, whatever comes:
//! - No more streams have a task, and no more waits to be written, than the limits allow.
//! - Frames that go out are whole, and nothing of a stream follows its end.
//! - Nobody sleeps who could go on: a task that was not woken finds nothing to do, and when nothing moves any
//!   more no whole frame is left unread.
//! - Every byte of the connection's window is the client's, unread, or owed to it.
//!
//! The windows of the connection are what the limits say, even where that is less than the protocol gives: so
//! that a few frames fill them.
//! - When all tasks have ended nothing is left of their streams.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use super::answers::Field;
use super::session::{Opened, Session};
use crate::edge::budget::CoreBudget;
use crate::edge::limits::EdgeLimits;
use crate::http2::frame::{self, Head, Kind, WINDOW_BYTES_FIRST};

/// What a stream adds at most to what waits to be written, beside its data: head, trailers, windows, reset.
const STREAM_BYTES_MAX: usize = 300;

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The streams that began.
    pub opened: Vec<u32>,
    /// What was said.
    pub said: Vec<u8>,
    /// Whether the connection has ended.
    pub is_over: bool,
}

/// What a connection makes of bytes that come in these chunks while no stream does anything. It does not
/// depend on how they are cut.
pub fn replay_unanswered<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limits: EdgeLimits) -> Replayed {
    let mut replay = Replay::new(limits);
    for chunk in chunks {
        replay.receive(chunk);
    }
    let opened = replay.tasks.iter().map(|task| task.id).collect();
    Replayed { opened, said: replay.session.out.clone(), is_over: replay.session.is_over() }
}

/// What a connection makes of bytes that come in these chunks while its streams answer, each in its way.
///
/// # Panics
/// Something is wrong with the connection.
pub fn replay_answered<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limits: EdgeLimits) -> Replayed {
    let mut replay = Replay::new(limits);
    let mut replayed = Replayed { opened: Vec::new(), said: Vec::new(), is_over: false };
    for (at, chunk) in chunks.into_iter().enumerate() {
        replay.session.begin_turn();
        replayed.opened.extend(replay.receive(chunk));
        replay.run_tasks();
        replay.check_limits();
        replay.check_sleepers();
        // A socket that does not take everything at once.
        if at % 3 > 0 {
            replay.write(&mut replayed.said);
        }
        if at % 16 == 15 {
            replay.session.ask();
        }
    }
    replay.settle(&mut replayed);
    replayed.is_over = replay.session.is_over();
    replay.session.lose();
    replay.run_tasks();
    assert!(replay.tasks.is_empty() && replay.session.is_at_rest(), "a lost connection leaves something");
    check_frames(&replayed.said);
    replayed
}

struct Replay {
    limits: EdgeLimits,
    session: Session,
    /// What came and was not taken.
    input: Vec<u8>,
    tasks: Vec<Task>,
}

impl Replay {
    fn new(limits: EdgeLimits) -> Self {
        let budget = CoreBudget::new(limits.core_bytes_max).connection(limits.connection_bytes_max);
        let mut session = Session::new(limits, budget);
        if limits.connection_window_bytes < WINDOW_BYTES_FIRST {
            session.narrow();
        }
        Self { limits, session, input: Vec::new(), tasks: Vec::new() }
    }

    /// Takes a chunk; the streams that began.
    fn receive(&mut self, chunk: &[u8]) -> Vec<u32> {
        self.input.extend_from_slice(chunk);
        let mut opened = Vec::new();
        let taken = self.session.receive(&self.input, &mut opened);
        self.input.drain(..taken);
        let ids: Vec<u32> = opened.into_iter().map(|Opened { id, .. }| id).collect();
        self.tasks.extend(ids.iter().map(|id| Task::new(*id)));
        ids
    }

    /// Runs who was woken until nobody is.
    fn run_tasks(&mut self) {
        while let Some(at) = self.tasks.iter().position(Task::take_bell) {
            if self.tasks[at].run(&mut self.session).is_ready() {
                let ended = self.tasks.swap_remove(at);
                self.session.close(ended.id);
            }
        }
    }

    /// Goes on until nothing moves any more: what came was looked at, to its last whole frame.
    fn settle(&mut self, replayed: &mut Replayed) {
        loop {
            let before = (self.input.len(), replayed.said.len());
            self.session.begin_turn();
            replayed.opened.extend(self.receive(&[]));
            self.run_tasks();
            self.check_limits();
            self.check_sleepers();
            self.write(&mut replayed.said);
            if (self.input.len(), replayed.said.len()) == before {
                break;
            }
        }
        let whole = self.input.split_first_chunk().filter(|(head, rest)| Head::read(head).len <= rest.len());
        assert!(
            self.session.is_over() || whole.is_none(),
            "{:?} is left unread",
            whole.map(|(head, _)| head)
        );
    }

    /// All that waits is written.
    fn write(&mut self, said: &mut Vec<u8>) {
        said.extend_from_slice(&self.session.out);
        self.session.written();
    }

    fn check_limits(&self) {
        let limits = &self.limits;
        let streams_max = limits.streams_max as usize;
        assert!(self.tasks.len() <= streams_max, "{} tasks, at most {streams_max}", self.tasks.len());
        // Those that were there, those that begin and those that are refused may end before it is written.
        let ends = 2 * streams_max + limits.pending_reset_streams_max + limits.error_resets_max;
        let out_max = 2 * limits.connection_send_bytes_max + ends * STREAM_BYTES_MAX;
        let inflow = &self.session.inflow;
        assert!(inflow.is_balanced(limits), "{inflow:?}");
        let out = self.session.out.len();
        assert!(out <= out_max, "{out} bytes wait to be written, at most {out_max}");
    }

    fn check_sleepers(&mut self) {
        for task in &mut self.tasks {
            let before = (task.step, self.session.out.len());
            let polled = task.run(&mut self.session);
            let after = (task.step, self.session.out.len());
            assert!(
                polled.is_pending() && before == after,
                "stream {} sleeps: {before:?} {after:?}",
                task.id
            );
        }
    }
}

/// What a stream's task is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// To read; what came until now asks for so many bytes.
    Read(usize),
    /// To send so many bytes, and then the trailers.
    Send(usize),
    /// To wait until nobody is there.
    Wait,
    /// To fail, whatever comes.
    Fail,
    /// Nothing more.
    End,
}

/// The task of one stream, which does as its id says.
struct Task {
    id: u32,
    step: Step,
    bell: Arc<Bell>,
}

struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    fn new(id: u32) -> Self {
        let step = match id / 2 % 8 {
            0 => Step::Fail,
            // It reads nothing.
            4 => Step::Wait,
            _ => Step::Read(0),
        };
        Self { id, step, bell: Arc::new(Bell(AtomicBool::new(true))) }
    }

    fn take_bell(&self) -> bool {
        self.bell.0.swap(false, Ordering::Relaxed)
    }

    /// Does what can be done; ready when the stream is to be closed.
    fn run(&mut self, session: &mut Session) -> Poll<()> {
        let waker = Waker::from(Arc::clone(&self.bell));
        let context = &mut Context::from_waker(&waker);
        while self.step != Step::End {
            self.step = match self.step {
                Step::Read(wanted) => match ready!(session.poll_body(self.id, context)) {
                    Some(Err(_)) => Step::End,
                    Some(Ok(part)) => Step::Read(wanted + 3 * part.len()),
                    None => self.answer(wanted, session),
                },
                Step::Send(0) => {
                    session.send_trailers(self.id, None);
                    Step::End
                }
                Step::Send(wanted) => match ready!(session.poll_room(self.id, wanted, context)) {
                    Err(_) => Step::End,
                    Ok(room) => self.send(room.min(wanted), wanted, session),
                },
                Step::Wait => {
                    ready!(session.poll_gone(self.id, context));
                    Step::End
                }
                Step::Fail => {
                    let failure = [Field { name: "grpc-status", value: "5".to_owned() }];
                    session.send_failure(self.id, &failure);
                    Step::End
                }
                Step::End => Step::End,
            };
        }
        Poll::Ready(())
    }

    /// A request is whole: what follows.
    fn answer(&self, wanted: usize, session: &mut Session) -> Step {
        match self.id / 2 % 8 {
            1 => session.send_http(self.id, 415),
            // It is dropped without an answer.
            2 => {}
            3 => return Step::Wait,
            _ if session.send_head(self.id).is_ok() => return Step::Send(wanted),
            _ => {}
        }
        Step::End
    }

    fn send(&self, bytes: usize, wanted: usize, session: &mut Session) -> Step {
        session.send_data(self.id, &vec![0; bytes]).expect("there is room for it");
        Step::Send(wanted - bytes)
    }
}

/// Holds what was said against the rules that need no knowledge of what the client said.
fn check_frames(said: &[u8]) {
    let (mut ended, mut rest, mut continued) = (BTreeSet::new(), said, None);
    while let Some((head, after)) = rest.split_first_chunk() {
        let Head { len, kind, flags, stream } = Head::read(head);
        assert!(len <= frame::PAYLOAD_BYTES_MAX, "a frame of {len} bytes");
        assert_eq!(continued, (kind == Kind::Continuation).then_some(stream), "a block stays together");
        let has_ended = ended.contains(&stream);
        assert!(
            matches!(kind, Kind::Reset | Kind::Continuation) || !has_ended,
            "{kind:?} of stream {stream}, which has ended"
        );
        let is_block = matches!(kind, Kind::Headers | Kind::Continuation);
        continued = (is_block && flags & frame::END_HEADERS == 0).then_some(stream);
        let is_last = matches!(kind, Kind::Headers | Kind::Data) && flags & frame::END_STREAM != 0;
        if is_last || kind == Kind::Reset {
            ended.insert(stream);
        }
        rest = after.get(len..).expect("a frame is whole");
    }
    assert!(rest.is_empty() && continued.is_none(), "frames are whole");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::frame::PREFACE;

    /// Few of everything.
    const LIMITS: EdgeLimits = EdgeLimits {
        streams_max: 8,
        pending_reset_streams_max: 4,
        reset_streams_max: 8,
        error_resets_max: 50,
        connection_send_bytes_max: 300,
        stream_window_bytes: 1000,
        header_table_bytes_max: 200,
        ..EdgeLimits::DEFAULT
    };

    /// The same, and windows that a few frames fill.
    const NARROW: EdgeLimits =
        EdgeLimits { connection_window_bytes: 1000, connection_unread_bytes_max: 2000, ..LIMITS };

    const REQUEST: &[u8] = b"\x83\x86\x44\x02/a";

    /// Numbers without a pattern (xorshift).
    struct Noise(u64);

    impl Noise {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % limit
        }

        /// A frame that makes sense more often than not; `last` is the last stream.
        fn frame(&mut self, last: &mut u32, out: &mut Vec<u8>) {
            let any = last.saturating_sub(2 * self.below(8) as u32).max(1);
            let number = |number: u64| (number as u32).to_be_bytes().to_vec();
            let ends = self.below(2) as u8;
            let (kind, flags, stream, payload) = match self.below(15) {
                0..=3 => {
                    *last += 2;
                    (Kind::Headers, frame::END_HEADERS, *last, REQUEST.to_vec())
                }
                4..=8 => (Kind::Data, ends, any, vec![7; self.below(400) as usize]),
                9 => (Kind::Reset, 0, any, number(8)),
                10 => (Kind::WindowUpdate, 0, any, number(1 + self.below(500))),
                11 => (Kind::WindowUpdate, 0, 0, number(1 + self.below(500))),
                12 => {
                    let (name, value) = [(4, 5000), (4, 10), (1, 0), (4, 0)][self.below(4) as usize];
                    frame::write_settings(&[(name, value)], out);
                    return;
                }
                13 => (Kind::Ping, 0, 0, vec![7; 8]),
                _ if self.below(8) > 0 => return,
                _ => {
                    (Kind::Priority, 0xff, any, number(self.below(1 << 32)).into_iter().chain([1]).collect())
                }
            };
            Head { len: payload.len(), kind, flags, stream }.write(out);
            out.extend(payload);
        }
    }

    #[test]
    fn noise_breaks_nothing() {
        let (opened, ended) = make_noise(LIMITS);
        assert!(opened > 20_000 && ended > 20, "{opened} streams began, {ended} connections ended");
    }

    #[test]
    fn noise_breaks_nothing_in_narrow_windows() {
        // Noise does not look at windows: it soon overruns one.
        let (opened, ended) = make_noise(NARROW);
        assert!(opened > 20_000 && ended > 100, "{opened} streams began, {ended} connections ended");
    }

    #[test]
    fn padding_that_is_longer_than_its_frame_leaves_nothing() {
        let mut bytes = PREFACE.to_vec();
        frame::write_settings(&[], &mut bytes);
        let flags = frame::END_HEADERS;
        Head { len: REQUEST.len(), kind: Kind::Headers, flags, stream: 1 }.write(&mut bytes);
        bytes.extend(REQUEST);
        Head { len: 1, kind: Kind::Data, flags: frame::PADDED, stream: 1 }.write(&mut bytes);
        bytes.push(5);
        let replayed = replay_answered([&bytes[..]], LIMITS);
        assert!(replayed.is_over && replayed.opened == [1], "{replayed:?}");
    }

    /// The streams that began, and the connections that ended.
    fn make_noise(limits: EdgeLimits) -> (usize, usize) {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let (mut opened, mut ended) = (0, 0);
        for round in 0..2000 {
            let mut bytes = PREFACE.to_vec();
            frame::write_settings(&[(frame::SETTING_WINDOW, 5000)], &mut bytes);
            Head { len: 0, kind: Kind::Settings, flags: frame::ACK, stream: 0 }.write(&mut bytes);
            let (mut last, flags) = (1, frame::END_HEADERS);
            Head { len: REQUEST.len(), kind: Kind::Headers, flags, stream: last }.write(&mut bytes);
            bytes.extend(REQUEST);
            for _ in 0..noise.below(200) {
                noise.frame(&mut last, &mut bytes);
            }
            if round % 4 == 0 {
                let at = noise.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << noise.below(8);
            }
            let size = 1 + noise.below(300) as usize;
            let whole = replay_unanswered([&bytes[..]], limits);
            assert_eq!(replay_unanswered(bytes.chunks(size), limits), whole, "round {round}, cut to {size}");
            let answered = replay_answered(bytes.chunks(size), limits);
            opened += answered.opened.len();
            ended += usize::from(answered.is_over);
        }
        (opened, ended)
    }
}
