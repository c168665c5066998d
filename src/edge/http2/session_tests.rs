//! Stories of one connection, told in frames: what the wire's own tests cannot see or would wait long for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

use super::session::{Opened, Session};
use crate::edge::budget::CoreBudget;
use crate::edge::limits::EdgeLimits;
use crate::edge::reply::Gone;
use crate::http2::frame::{self, Code, Head, Kind, PREFACE};

/// `:method POST`, `:scheme http`, `:path /a`.
const REQUEST: &[u8] = b"\x83\x86\x04\x02/a";

fn spelt(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Head { len: payload.len(), kind, flags, stream }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    spelt(Kind::Headers, frame::END_HEADERS | flags, stream, REQUEST)
}

fn data(stream: u32, flags: u8, len: usize) -> Vec<u8> {
    spelt(Kind::Data, flags, stream, &vec![7; len])
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A connection that was greeted, with an empty `out`.
fn session(limits: EdgeLimits, settings: &[(u16, u32)]) -> Session {
    let budget = CoreBudget::new(limits.core_bytes_max).connection(limits.connection_bytes_max);
    let mut session = Session::new(limits, budget);
    let mut hello = PREFACE.to_vec();
    frame::write_settings(settings, &mut hello);
    hello.extend(spelt(Kind::Settings, frame::ACK, 0, &[]));
    assert_eq!(session.receive(&hello, &mut Vec::new()), hello.len());
    assert!(session.is_greeted() && !session.is_over());
    session.written();
    session
}

/// Has the session take frames; the streams that began.
fn take(session: &mut Session, frames: &[Vec<u8>]) -> Vec<u32> {
    let mut opened = Vec::new();
    let bytes = frames.concat();
    session.receive(&bytes, &mut opened);
    opened.into_iter().map(|Opened { id, .. }| id).collect()
}

/// What went out since this was last asked: kind, stream, payload.
fn said(session: &mut Session) -> Vec<(Kind, u32, Vec<u8>)> {
    let (mut frames, mut rest) = (Vec::new(), &session.out[..]);
    while let Some((head, after)) = rest.split_first_chunk() {
        let head = Head::read(head);
        frames.push((head.kind, head.stream, after[..head.len].to_vec()));
        rest = &after[head.len..];
    }
    assert!(rest.is_empty(), "frames are whole");
    session.written();
    frames
}

fn reset(stream: u32, code: Code) -> (Kind, u32, Vec<u8>) {
    (Kind::Reset, stream, (code as u32).to_be_bytes().to_vec())
}

fn body(session: &mut Session, id: u32) -> Poll<Option<Result<Bytes, Gone>>> {
    session.poll_body(id, &mut context())
}

#[test]
fn a_call_and_its_answer() {
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    assert_eq!(take(&mut session, &[request(1, 0)]), [1]);
    assert_eq!(body(&mut session, 1), Poll::Pending);
    take(&mut session, &[data(1, frame::END_STREAM, 5)]);
    assert_eq!(body(&mut session, 1), Poll::Ready(Some(Ok(Bytes::from_static(&[7; 5])))));
    assert_eq!(body(&mut session, 1), Poll::Ready(None));
    session.send_head(1).expect("the client is there");
    session.send_data(1, b"answer").expect("the client is there");
    session.send_trailers(1, None);
    session.close(1);
    let kinds: Vec<Kind> = said(&mut session).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, [Kind::Headers, Kind::Data, Kind::Headers]);
    assert_eq!(body(&mut session, 1), Poll::Ready(Some(Err(Gone))), "it is over");
}

#[test]
fn what_was_not_wanted_of_a_request_is_cancelled() {
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    take(&mut session, &[request(1, 0), request(3, 0)]);
    session.send_failure(1, &[]);
    session.close(1);
    session.close(3);
    let said = said(&mut session);
    assert_eq!(said[0].0, Kind::Headers);
    assert_eq!(said[1..], [reset(1, Code::NoError), reset(3, Code::Cancel)]);
    // What was on its way is ignored, but for what it means to the connection's window.
    take(&mut session, &[data(1, 0, 9), data(3, frame::END_STREAM, 9), request(3, frame::END_STREAM)]);
    assert!(!session.is_over());
}

#[test]
fn windows_are_given_back_when_half_of_them_was_taken() {
    let limits =
        EdgeLimits { stream_window_bytes: 100_000, connection_window_bytes: 150_000, ..EdgeLimits::DEFAULT };
    let mut session = session(limits, &[]);
    take(&mut session, &[request(1, 0), request(3, 0)]);
    for _ in 0..4 {
        take(&mut session, &[data(1, 0, 16_000)]);
    }
    assert_eq!(said(&mut session), [], "nobody has taken anything");
    assert!(matches!(body(&mut session, 1), Poll::Ready(Some(Ok(body))) if body.len() == 64_000));
    assert_eq!(said(&mut session), [(Kind::WindowUpdate, 1, 64_000_u32.to_be_bytes().to_vec())]);
    take(&mut session, &[data(3, 0, 11_000)]);
    session.close(3);
    let window = (Kind::WindowUpdate, 0, 75_000_u32.to_be_bytes().to_vec());
    assert_eq!(said(&mut session), [window, reset(3, Code::Cancel)], "what nobody took counts, too");
}

#[test]
fn padding_is_given_back_as_well() {
    let mut session = session(EdgeLimits { stream_window_bytes: 1000, ..EdgeLimits::DEFAULT }, &[]);
    take(&mut session, &[request(1, 0)]);
    let padded = spelt(Kind::Data, frame::PADDED, 1, &[&[255][..], &[0; 255]].concat());
    take(&mut session, std::slice::from_ref(&padded));
    assert_eq!(said(&mut session), []);
    take(&mut session, &[padded]);
    assert_eq!(said(&mut session), [(Kind::WindowUpdate, 1, 512_u32.to_be_bytes().to_vec())]);
}

#[test]
fn a_client_that_sends_beyond_its_windows() {
    let limits = EdgeLimits {
        stream_window_bytes: 70_000,
        connection_window_bytes: 80_000,
        connection_unread_bytes_max: 80_000,
        ..EdgeLimits::DEFAULT
    };
    let mut session = session(limits, &[]);
    take(&mut session, &[request(1, 0), request(3, 0)]);
    let parts: Vec<Vec<u8>> = (0..5).map(|_| data(1, 0, 15_000)).collect();
    take(&mut session, &parts);
    let back = (Kind::WindowUpdate, 0, 15_000_u32.to_be_bytes().to_vec());
    assert_eq!(said(&mut session), [back, reset(1, Code::FlowControl)], "what came too much is not kept");
    assert!(!session.is_over());
    take(&mut session, &[data(3, 0, 15_000), data(3, 0, 5_000)]);
    assert!(!session.is_over());
    take(&mut session, &[data(3, 0, 1)]);
    assert!(session.is_over());
    assert_eq!(body(&mut session, 3), Poll::Ready(Some(Err(Gone))));
}

#[test]
fn nothing_is_sent_beyond_the_clients_windows() {
    let mut session = session(EdgeLimits::DEFAULT, &[(frame::SETTING_WINDOW, 10)]);
    take(&mut session, &[request(1, frame::END_STREAM)]);
    assert_eq!(session.poll_room(1, 5000, &mut context()), Poll::Ready(Ok(10)));
    session.send_head(1).expect("the client is there");
    session.send_data(1, &[1; 10]).expect("the client is there");
    assert_eq!(session.poll_room(1, 5000, &mut context()), Poll::Pending);
    let mut smaller = Vec::new();
    frame::write_settings(&[(frame::SETTING_WINDOW, 4)], &mut smaller);
    let more = |bytes: u32| spelt(Kind::WindowUpdate, 0, 1, &bytes.to_be_bytes());
    take(&mut session, &[smaller, more(6)]);
    assert_eq!(session.poll_room(1, 5000, &mut context()), Poll::Pending, "it owes as much");
    take(&mut session, &[more(3)]);
    assert_eq!(session.poll_room(1, 5000, &mut context()), Poll::Ready(Ok(3)));
    take(&mut session, &[more(0x7fff_ffff)]);
    assert_eq!(
        session.poll_room(1, 5000, &mut context()),
        Poll::Ready(Err(Gone)),
        "a window beyond all bounds"
    );
    assert_eq!(said(&mut session).last(), Some(&reset(1, Code::FlowControl)));
}

/// Whether a stream's task was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Streams that have so much to send, of a client that takes nothing.
struct Line {
    session: Session,
    bells: BTreeMap<u32, Arc<Bell>>,
}

impl Line {
    fn of(streams: u32) -> Self {
        let mut session = session(EdgeLimits::DEFAULT, &[(frame::SETTING_WINDOW, 1 << 20)]);
        take(&mut session, &[request(1, frame::END_STREAM)]);
        session.send_data(1, &[0; 65_535]).expect("the client is there");
        session.close(1);
        session.written();
        let ids = (1..=streams).map(|at| 2 * at + 1);
        let bells = ids.map(|id| (id, Arc::default())).collect();
        let mut line = Self { session, bells };
        for id in line.bells.keys().copied().collect::<Vec<_>>() {
            take(&mut line.session, &[request(id, frame::END_STREAM)]);
            assert_eq!(line.room(id, 1000), Poll::Pending);
        }
        line
    }

    fn room(&mut self, id: u32, wanted: usize) -> Poll<Result<usize, Gone>> {
        let waker = Waker::from(Arc::clone(&self.bells[&id]));
        self.session.poll_room(id, wanted, &mut Context::from_waker(&waker))
    }

    fn grow(&mut self, bytes: u32) {
        take(&mut self.session, &[spelt(Kind::WindowUpdate, 0, 0, &bytes.to_be_bytes())]);
    }

    /// The streams that were woken since this was last asked.
    fn woken(&self) -> Vec<u32> {
        let woken = self.bells.iter().filter(|(_, bell)| bell.0.swap(false, Ordering::Relaxed));
        woken.map(|(id, _)| *id).collect()
    }
}

#[test]
fn no_more_are_woken_than_a_window_serves() {
    let mut line = Line::of(100);
    assert_eq!(line.woken(), [0; 0]);
    line.grow(1);
    assert_eq!(line.woken(), [3]);
    line.grow(2000);
    assert_eq!(line.woken(), [5, 7], "for 3 one byte is kept");
    // Who comes later, and who wants more, has nothing of what is promised.
    line.bells.insert(999, Arc::default());
    take(&mut line.session, &[request(999, frame::END_STREAM)]);
    assert_eq!(line.room(999, 10), Poll::Pending);
    assert_eq!(line.room(5, 5000), Poll::Ready(Ok(1000)));
    line.session.send_data(5, &[0; 1000]).expect("the client is there");
    assert_eq!(line.room(5, 4000), Poll::Pending, "the next round is not before all have had theirs");
    assert_eq!(line.room(3, 1000), Poll::Ready(Ok(1)));
    line.session.send_data(3, &[0]).expect("the client is there");
    assert_eq!(line.woken(), [0; 0]);
    line.grow(97_010);
    let rest = (4..=100).map(|at| 2 * at + 1).chain([999]);
    assert_eq!(line.woken(), rest.collect::<Vec<_>>());
}

#[test]
fn a_stream_that_ends_passes_its_turn_on() {
    let mut line = Line::of(5);
    line.grow(1500);
    assert_eq!(line.woken(), [3, 5]);
    // It is taken back after it was woken, and closed by its task.
    take(&mut line.session, &[spelt(Kind::Reset, 0, 3, &(Code::Cancel as u32).to_be_bytes())]);
    assert_eq!(line.room(3, 1000), Poll::Ready(Err(Gone)));
    line.session.close(3);
    assert_eq!(line.woken(), [7]);
    // One that waits ends, and the window of the next is closed while it is woken.
    line.session.close(9);
    let mut settings = Vec::new();
    frame::write_settings(&[(frame::SETTING_WINDOW, 0)], &mut settings);
    take(&mut line.session, &[settings.clone()]);
    assert_eq!((line.room(5, 1000), line.room(7, 1000)), (Poll::Pending, Poll::Pending));
    assert_eq!(line.woken(), [0; 0], "nobody may send");
    settings.clear();
    frame::write_settings(&[(frame::SETTING_WINDOW, 700)], &mut settings);
    take(&mut line.session, &[settings]);
    assert_eq!(line.woken(), [5, 7, 11]);
    assert_eq!(line.room(11, 1000), Poll::Ready(Ok(700)));
    assert_eq!(line.room(7, 1000), Poll::Ready(Ok(700)));
    line.session.send_data(11, &[0; 700]).expect("the client is there");
    line.session.send_data(7, &[0; 700]).expect("the client is there");
    assert_eq!(line.room(5, 1000), Poll::Ready(Ok(100)));
}

#[test]
fn a_promise_is_a_turn_and_no_more() {
    let mut line = Line::of(20);
    for id in 1..=20 {
        assert_eq!(line.room(2 * id + 1, 1 << 20), Poll::Pending);
    }
    line.grow(1 << 20);
    let mut woken = line.woken();
    assert_eq!(woken, [3, 5, 7, 9, 11, 13, 15, 17], "two frames each of what leaves at once");
    // The heads of frames were counted: all but the last one have all that they were promised.
    let (last, frames) = (woken.pop().expect("there is one"), 2 * 16_384);
    for id in woken {
        assert_eq!(line.room(id, 1 << 20), Poll::Ready(Ok(frames)), "{id}");
        line.session.send_data(id, &vec![0; frames]).expect("the client is there");
        assert_eq!(line.room(id, (1 << 20) - frames), Poll::Pending);
    }
    assert_eq!(line.room(last, 1 << 20), Poll::Ready(Ok(frames - 16 * 9)));
    line.session.send_data(last, &vec![0; frames - 16 * 9]).expect("the client is there");
    assert_eq!(line.session.out.len(), EdgeLimits::DEFAULT.connection_send_bytes_max);
    line.session.written();
    assert_eq!(line.woken(), [19, 21, 23, 25, 27, 29, 31, 33], "the next ones");
}

#[test]
fn a_stream_that_gets_less_than_its_promise_keeps_its_place() {
    let mut line = Line::of(20);
    for id in 1..=20 {
        assert_eq!(line.room(2 * id + 1, 30_000), Poll::Pending);
    }
    line.grow(1 << 20);
    let woken = line.woken();
    assert_eq!(woken, [3, 5, 7, 9, 11, 13, 15, 17, 19]);
    // What the connection has to say takes of the room that was promised.
    line.session.ask();
    assert_eq!(line.room(3, 30_000), Poll::Ready(Ok(30_000 - 17)));
    line.session.send_data(3, &[0; 30_000 - 17]).expect("the client is there");
    assert_eq!(line.room(3, 17), Poll::Pending);
    for id in &woken[1..] {
        let Poll::Ready(Ok(room)) = line.room(*id, 30_000) else { panic!("{id} was promised something") };
        line.session.send_data(*id, &vec![0; room.min(30_000)]).expect("the client is there");
    }
    line.session.written();
    assert!(line.woken().contains(&3), "before those that had no turn yet");
}

#[test]
fn a_stream_that_uses_less_than_its_promise_leaves_the_rest_to_the_next() {
    let mut line = Line::of(3);
    line.grow(1000);
    assert_eq!(line.woken(), [3]);
    // What the connection has to say itself takes of the room, and not of the window.
    line.session.ask();
    assert_eq!(line.room(3, 10), Poll::Ready(Ok(1000)));
    line.session.send_data(3, &[0; 10]).expect("the client is there");
    line.session.send_trailers(3, None);
    assert_eq!(line.woken(), [5]);
    assert_eq!(line.room(5, 1000), Poll::Ready(Ok(990)));
}

#[test]
fn bodies_are_as_long_as_they_say() {
    let sized = [REQUEST, b"\x0f\x0d\x013"].concat();
    let headers = |stream, flags| spelt(Kind::Headers, frame::END_HEADERS | flags, stream, &sized);
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    let end = frame::END_STREAM;
    assert_eq!(take(&mut session, &[headers(1, 0), data(1, end, 3)]), [1]);
    assert_eq!(said(&mut session), []);
    take(&mut session, &[headers(3, 0), data(3, end, 2), headers(5, 0), data(5, 0, 4), headers(7, end)]);
    let want = [3, 5, 7].map(|stream| reset(stream, Code::Protocol));
    assert_eq!(said(&mut session), want);
}

#[test]
fn going_away_waits_for_the_client_to_hear_of_it() {
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    take(&mut session, &[request(1, frame::END_STREAM)]);
    session.go_away();
    let told = said(&mut session);
    assert_eq!(told[0].2[..4], 0x7fff_ffff_u32.to_be_bytes());
    assert_eq!(take(&mut session, &[request(3, frame::END_STREAM)]), [3], "it has not heard of it");
    take(&mut session, &[spelt(Kind::Ping, frame::ACK, 0, &told[1].2)]);
    assert_eq!(said(&mut session), [(Kind::GoAway, 0, [0, 0, 0, 3, 0, 0, 0, 0].to_vec())]);
    assert_eq!(take(&mut session, &[request(5, frame::END_STREAM)]), [0; 0]);
    session.close(1);
    assert!(!session.is_over());
    session.close(3);
    assert!(session.is_over());
}

#[test]
fn a_client_that_goes_away_learns_what_was_looked_at() {
    let farewell = |session: &mut Session| {
        take(session, &[spelt(Kind::GoAway, 0, 0, &[0; 8]), request(5, frame::END_STREAM)])
    };
    let told = |last: u8| [(Kind::GoAway, 0, [0, 0, 0, last, 0, 0, 0, 0].to_vec())];
    let mut idle = session(EdgeLimits::DEFAULT, &[]);
    assert_eq!(take(&mut idle, &[request(3, frame::END_STREAM)]), [3]);
    idle.send_trailers(3, None);
    idle.close(3);
    idle.written();
    assert_eq!(farewell(&mut idle), [0; 0], "it is told of the end before it is looked at");
    assert_eq!(said(&mut idle), told(3));
    assert!(idle.is_over());
    let mut busy = session(EdgeLimits::DEFAULT, &[]);
    take(&mut busy, &[request(3, frame::END_STREAM)]);
    assert_eq!(farewell(&mut busy), [5]);
    assert_eq!(said(&mut busy), []);
    for id in [3, 5] {
        assert!(!busy.is_over());
        busy.send_trailers(id, None);
        busy.written();
        busy.close(id);
    }
    assert_eq!(said(&mut busy), told(5));
    assert!(busy.is_over());
}

#[test]
fn a_client_that_does_not_answer_the_farewell_has_its_calls() {
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    session.go_away();
    assert_eq!(take(&mut session, &[request(1, frame::END_STREAM)]), [1], "it crossed the farewell");
    said(&mut session);
    session.part();
    assert_eq!(said(&mut session), [(Kind::GoAway, 0, [0, 0, 0, 1, 0, 0, 0, 0].to_vec())]);
    assert_eq!(take(&mut session, &[request(3, frame::END_STREAM)]), [0; 0]);
    assert!(!session.is_over());
    session.close(1);
    assert!(session.is_over());
}

#[test]
fn what_begins_after_the_farewell_is_ignored() {
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    take(&mut session, &[request(1, frame::END_STREAM)]);
    session.go_away();
    let told = said(&mut session);
    take(&mut session, &[spelt(Kind::Ping, frame::ACK, 0, &told[1].2), request(3, 0)]);
    session.written();
    for _ in 0..300 {
        take(&mut session, &[data(3, 0, 10)]);
    }
    take(&mut session, &[request(3, frame::END_STREAM)]);
    assert_eq!(said(&mut session), []);
    session.end(Code::NoError);
    assert_eq!(said(&mut session), [(Kind::GoAway, 0, [0, 0, 0, 1, 0, 0, 0, 0].to_vec())]);
}

#[test]
fn fields_that_fill_no_frame_are_continued() {
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    take(&mut session, &[request(1, frame::END_STREAM)]);
    let long = super::answers::Field { name: "grpc-message", value: "x".repeat(40_000) };
    session.send_failure(1, &[long]);
    let said = said(&mut session);
    let kinds: Vec<Kind> = said.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds, [Kind::Headers, Kind::Continuation, Kind::Continuation]);
    assert!(said.iter().map(|(.., payload)| payload.len()).sum::<usize>() > 40_000);
}

#[test]
fn a_turn_changes_windows_so_often() {
    let mut session = session(EdgeLimits::DEFAULT, &[]);
    take(&mut session, &[request(1, 0)]);
    let change = |window: u32| {
        let mut out = Vec::new();
        frame::write_settings(&[(frame::SETTING_WINDOW, 5), (frame::SETTING_WINDOW, window)], &mut out);
        out
    };
    let flood: Vec<u8> = (0..100).flat_map(|at| change(100 + at)).collect();
    let taken = session.receive(&flood, &mut Vec::new());
    assert_eq!(taken, 64 * (9 + 12), "then the others have their turn");
    session.begin_turn();
    assert_eq!(session.receive(&flood[taken..], &mut Vec::new()), 36 * (9 + 12));
    assert_eq!(session.poll_room(1, 5000, &mut context()), Poll::Ready(Ok(199)));
}

#[test]
fn requests_taken_back_before_anybody_looks_have_a_limit() {
    let limits = EdgeLimits { pending_reset_streams_max: 3, ..EdgeLimits::DEFAULT };
    let mut session = session(limits, &[]);
    let cancel = |stream| spelt(Kind::Reset, 0, stream, &(Code::Cancel as u32).to_be_bytes());
    for stream in [1, 3, 5, 7] {
        take(&mut session, &[request(stream, 0)]);
        assert_eq!(body(&mut session, stream), Poll::Pending);
        take(&mut session, &[cancel(stream)]);
    }
    assert!(!session.is_over(), "somebody has looked at each");
    let flood: Vec<Vec<u8>> =
        [9, 11, 13, 15].into_iter().flat_map(|id| [request(id, 0), cancel(id)]).collect();
    assert_eq!(take(&mut session, &flood), [9, 11, 13], "then nothing more is read");
    assert!(!session.is_readable());
    assert_eq!(body(&mut session, 9), Poll::Ready(Some(Err(Gone))));
    session.close(9);
    assert!(session.is_readable() && !session.is_over());
    assert_eq!(take(&mut session, &flood[6..]), [15]);
    assert!(!session.is_readable());
}

#[test]
fn streams_and_errors_have_limits() {
    let limits = EdgeLimits { streams_max: 2, error_resets_max: 3, ..EdgeLimits::DEFAULT };
    let mut session = session(limits, &[]);
    assert_eq!(take(&mut session, &[request(1, 0), request(3, 0), request(5, 0)]), [1, 3]);
    assert_eq!(said(&mut session), [reset(5, Code::Refused)]);
    session.close(1);
    session.written();
    assert_eq!(take(&mut session, &[request(7, 0)]), [7]);
    take(&mut session, &[request(9, 0), request(11, 0)]);
    assert!(!session.is_over());
    take(&mut session, &[request(13, 0)]);
    assert!(session.is_over(), "it takes no hint");
}

#[test]
fn a_burst_of_answers_leaves_its_room_for_a_while() {
    let mut session = session(EdgeLimits::DEFAULT, &[(frame::SETTING_WINDOW, 1 << 20)]);
    take(&mut session, &[request(1, frame::END_STREAM)]);
    session.send_data(1, &[0; 60_000]).expect("the client is there");
    session.shrink();
    session.written();
    assert!(session.out.capacity() >= 60_000, "the next burst finds it there");
    session.shrink();
    assert!(session.out.capacity() <= 8 << 10, "{} bytes are kept", session.out.capacity());
}

#[test]
fn nothing_is_read_while_the_answers_do_not_leave() {
    let limits = EdgeLimits { connection_send_bytes_max: 100, ..EdgeLimits::DEFAULT };
    let mut session = session(limits, &[]);
    let pings = spelt(Kind::Ping, 0, 0, &[1; 8]).repeat(100);
    let taken = session.receive(&pings, &mut Vec::new());
    assert_eq!(taken, 12 * 17, "until 200 bytes wait");
    assert!(!session.is_readable());
    session.written();
    assert_eq!(session.receive(&pings[taken..], &mut Vec::new()), 12 * 17);
}
