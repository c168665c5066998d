//! A session against frames spelt by hand: every rule that a server may keep or break.

use std::rc::Rc;

use crate::http2::{Heads, News, Request, Session, Violation};
use distribkv::http2::frame::{self, HEAD_BYTES, Head, Kind};

/// What happened, as plain data.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Fields(u32, Option<u16>, Option<u16>),
    Data(u32, Vec<u8>),
    End(u32),
    Reset(u32, u32),
    Lost(u32),
}

fn receive(session: &mut Session, bytes: &[u8]) -> Result<Vec<Seen>, Violation> {
    let mut seen = Vec::new();
    let taken = session.receive(bytes, &mut |event| {
        let token = event.token;
        seen.push(match event.news {
            News::Fields(fields) => Seen::Fields(token, fields.http_status, fields.grpc_status),
            News::Data(data) => Seen::Data(token, data.to_vec()),
            News::End => Seen::End(token),
            News::Reset(code) => Seen::Reset(token, code),
            News::Lost => Seen::Lost(token),
        });
    })?;
    assert_eq!(taken, bytes.len(), "the frames of a test are whole");
    Ok(seen)
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Head { len: payload.len(), kind, flags, stream }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_settings(settings, &mut bytes);
    bytes
}

fn number(kind: Kind, stream: u32, number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_number(kind, stream, number, &mut bytes);
    bytes
}

/// The frames that the session wants to send, which are taken from it.
fn sent(session: &mut Session) -> Vec<(Head, Vec<u8>)> {
    session.fill();
    let mut frames = Vec::new();
    let out = std::mem::take(&mut session.out);
    let mut rest = &out[..];
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let head = Head::read(head);
        frames.push((head, after[..head.len].to_vec()));
        rest = &after[head.len..];
    }
    frames
}

fn new() -> Session {
    let mut session = Session::new(Rc::new(Heads::new("h:1", "5S", &["/a/B", "/c/D"])));
    assert!(session.out.starts_with(frame::PREFACE));
    session.out.drain(..frame::PREFACE.len());
    let kinds: Vec<Kind> = sent(&mut session).iter().map(|(head, _)| head.kind).collect();
    assert_eq!(kinds, [Kind::Settings, Kind::WindowUpdate]);
    session
}

/// A session that the server has greeted with these settings.
fn open(with: &[(u16, u32)]) -> Session {
    let mut session = new();
    assert!(!session.is_greeted() && !session.has_room());
    assert_eq!(receive(&mut session, &settings(with)), Ok(vec![]));
    let (ack, _) = sent(&mut session)[0];
    assert_eq!((ack.kind, ack.flags), (Kind::Settings, frame::ACK));
    session
}

fn send(session: &mut Session, token: u32, body: &[u8]) -> u32 {
    session.send(Request { token, path: 0 }, body.len(), |out| out.extend_from_slice(body))
}

/// The bytes of DATA frames in order, and whether the last one ends its stream.
fn data(frames: &[(Head, Vec<u8>)]) -> (usize, bool) {
    let data = || frames.iter().filter(|(head, _)| head.kind == Kind::Data);
    let ends = data().next_back().is_some_and(|(head, _)| head.has(frame::END_STREAM));
    (data().map(|(_, payload)| payload.len()).sum(), ends)
}

#[test]
fn a_call_from_start_to_end() {
    let mut session = open(&[]);
    let stream = send(&mut session, 7, b"ask");
    let frames = sent(&mut session);
    assert_eq!(frames.len(), 2);
    assert_eq!((frames[0].0.kind, frames[0].0.flags, frames[0].0.stream), (Kind::Headers, 4, stream));
    assert_eq!((frames[1].0.kind, frames[1].0.flags, &frames[1].1[..]), (Kind::Data, 1, &b"ask"[..]));
    let answer = [
        frame(Kind::Headers, frame::END_HEADERS, stream, &[0x88]),
        frame(Kind::Data, frame::PADDED, stream, b"\x02answer\0\0"),
        frame(Kind::Headers, frame::END_HEADERS | frame::END_STREAM, stream, b"\x40\x0bgrpc-status\x010"),
    ]
    .concat();
    let want = vec![
        Seen::Fields(7, Some(200), None),
        Seen::Data(7, b"answer".to_vec()),
        Seen::Fields(7, None, Some(0)),
        Seen::End(7),
    ];
    assert_eq!(receive(&mut session, &answer), Ok(want));
    assert_eq!(sent(&mut session), []);
}

#[test]
fn frames_in_pieces_wait_for_their_rest() {
    let mut session = open(&[]);
    let stream = send(&mut session, 7, b"");
    let answer = frame(Kind::Data, frame::END_STREAM, stream, b"x");
    for len in 0..answer.len() {
        let taken = session.receive(&answer[..len], &mut |event| panic!("{event:?} of {len} bytes"));
        assert_eq!(taken, Ok(0));
    }
    assert_eq!(receive(&mut session, &answer), Ok(vec![Seen::Data(7, b"x".to_vec()), Seen::End(7)]));
}

#[test]
fn a_large_body_keeps_to_the_windows() {
    let mut session = open(&[(frame::SETTING_WINDOW, 100_000)]);
    let stream = send(&mut session, 1, &vec![5; 150_000]);
    // The connection's window is the smaller one at first.
    assert_eq!(data(&sent(&mut session)), (65_535, false));
    receive(&mut session, &number(Kind::WindowUpdate, 0, 1 << 20)).expect("a good window");
    let frames = sent(&mut session);
    assert_eq!(data(&frames), (100_000 - 65_535, false));
    assert!(frames.iter().all(|(head, _)| head.len <= frame::PAYLOAD_BYTES_MAX));
    receive(&mut session, &settings(&[(frame::SETTING_WINDOW, 120_000)])).expect("good settings");
    assert_eq!(data(&sent(&mut session)), (20_000, false));
    receive(&mut session, &number(Kind::WindowUpdate, stream, 50_000)).expect("a good window");
    assert_eq!(data(&sent(&mut session)), (30_000, true));
}

#[test]
fn a_body_that_waits_does_not_hold_up_other_streams_for_good() {
    let mut session = open(&[(frame::SETTING_WINDOW, 10)]);
    receive(&mut session, &number(Kind::WindowUpdate, 0, 1 << 20)).expect("a good window");
    let slow = send(&mut session, 1, &[1; 20]);
    let quick = send(&mut session, 2, &[2; 10]);
    let frames = sent(&mut session);
    let of =
        |stream| frames.iter().filter(move |(head, _)| head.stream == stream).cloned().collect::<Vec<_>>();
    assert_eq!((data(&of(slow)), data(&of(quick))), ((10, false), (10, true)));
    session.cancel(slow);
    let frames = sent(&mut session);
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].0.kind, frames[0].0.stream), (Kind::Reset, slow));
    receive(&mut session, &number(Kind::WindowUpdate, slow, 50)).expect("the stream was opened once");
    assert_eq!(sent(&mut session), []);
}

#[test]
fn an_endless_stream_gathers_what_is_written() {
    let mut session = open(&[]);
    let stream = session.open_endless(Request { token: 9, path: 1 });
    session.write(stream, |out| out.extend_from_slice(b"one"));
    session.write(stream, |out| out.extend_from_slice(b"two"));
    let frames = sent(&mut session);
    assert_eq!((frames.len(), data(&frames)), (2, (6, false)));
    let end = frame(Kind::Headers, frame::END_HEADERS | frame::END_STREAM, stream, &[0x88]);
    let want = vec![Seen::Fields(9, Some(200), None), Seen::End(9)];
    assert_eq!(receive(&mut session, &end), Ok(want));
    // This side was not at its end, so the server is told.
    assert_eq!(sent(&mut session)[0].0.kind, Kind::Reset);
}

#[test]
fn an_endless_stream_that_lags_keeps_its_order() {
    let mut session = open(&[(frame::SETTING_WINDOW, 10)]);
    receive(&mut session, &number(Kind::WindowUpdate, 0, 1 << 20)).expect("a good window");
    let stream = session.open_endless(Request { token: 9, path: 1 });
    let mut came = Vec::new();
    for turn in 0..100u8 {
        session.write(stream, |out| out.extend_from_slice(&[turn; 10]));
        let frames = sent(&mut session).into_iter().filter(|(head, _)| head.kind == Kind::Data);
        came.extend(frames.flat_map(|(_, payload)| payload));
        receive(&mut session, &number(Kind::WindowUpdate, stream, 9)).expect("a good window");
    }
    let want: Vec<u8> = (0..100).flat_map(|turn| [turn; 10]).collect();
    assert_eq!(came, want[..10 + 99 * 9]);
    assert!(session.has_room());
}

#[test]
fn windows_are_given_back() {
    let mut session = open(&[]);
    let stream = session.open_endless(Request { token: 9, path: 1 });
    sent(&mut session);
    let part = frame(Kind::Data, 0, stream, &[0; 16_384]);
    let mut given: Vec<(u32, u32)> = Vec::new();
    for _ in 0..2048 {
        receive(&mut session, &part).expect("a good frame");
        given.extend(sent(&mut session).iter().map(|(head, payload)| {
            let bytes: [u8; 4] = payload[..].try_into().expect("four bytes");
            (head.stream, u32::from_be_bytes(bytes))
        }));
    }
    let of =
        |stream| given.iter().filter(|(of, _)| *of == stream).map(|(_, bytes)| *bytes).collect::<Vec<_>>();
    assert_eq!(of(0), [32 << 20]);
    assert_eq!(of(stream), [4 << 20; 8]);
}

#[test]
fn a_block_of_fields_in_pieces() {
    let mut session = open(&[]);
    let stream = send(&mut session, 7, b"");
    let begin =
        frame(Kind::Headers, frame::END_STREAM | frame::PRIORITY, stream, b"\0\0\0\0\0\x88\x40\x0bgrpc");
    let rest = frame(Kind::Continuation, frame::END_HEADERS, stream, b"-status\x0214");
    let want = vec![Seen::Fields(7, Some(200), Some(14)), Seen::End(7)];
    assert_eq!(receive(&mut session, &[begin, rest].concat()), Ok(want));
}

#[test]
fn the_fields_of_a_cancelled_stream_still_count() {
    let mut session = open(&[]);
    let (gone, kept) = (send(&mut session, 1, b""), send(&mut session, 2, b""));
    session.cancel(gone);
    let flags = frame::END_HEADERS | frame::END_STREAM;
    let spelt = frame(Kind::Headers, flags, gone, b"\x88\x40\x0bgrpc-status\x0214");
    assert_eq!(receive(&mut session, &spelt), Ok(vec![]));
    let indexed = frame(Kind::Headers, flags, kept, b"\x88\xbe");
    let want = vec![Seen::Fields(2, Some(200), Some(14)), Seen::End(2)];
    assert_eq!(receive(&mut session, &indexed), Ok(want));
}

#[test]
fn resets_pings_and_what_is_unknown() {
    let mut session = open(&[]);
    let stream = send(&mut session, 7, b"");
    sent(&mut session);
    assert_eq!(receive(&mut session, &number(Kind::Reset, stream, 2)), Ok(vec![Seen::Reset(7, 2)]));
    assert_eq!(receive(&mut session, &number(Kind::Reset, stream, 2)), Ok(vec![]));
    receive(&mut session, &frame(Kind::Ping, 0, 0, b"12345678")).expect("a good ping");
    let frames = sent(&mut session);
    assert_eq!((frames.len(), frames[0].0.flags, &frames[0].1[..]), (1, frame::ACK, &b"12345678"[..]));
    receive(&mut session, &frame(Kind::Ping, frame::ACK, 0, b"12345678")).expect("an answer to a ping");
    receive(&mut session, &[0, 0, 1, 0x77, 0, 0, 0, 0, 0, 9]).expect("unknown frames are ignored");
    receive(&mut session, &settings(&[(0x77, 5)])).expect("unknown settings are ignored");
    assert_eq!(sent(&mut session).len(), 1);
}

#[test]
fn room_ends_with_the_streams_that_are_allowed() {
    let mut session = open(&[(frame::SETTING_STREAMS_MAX, 2)]);
    let stream = send(&mut session, 1, b"");
    assert!(session.has_room());
    send(&mut session, 2, b"");
    assert!(!session.has_room());
    receive(&mut session, &number(Kind::Reset, stream, 0)).expect("a good reset");
    assert!(session.has_room());
}

#[test]
fn a_server_that_goes_away() {
    let mut session = open(&[]);
    let (looked_at, not) = (send(&mut session, 1, b""), send(&mut session, 2, b""));
    assert_eq!((looked_at, not), (1, 3));
    let goaway = frame(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(receive(&mut session, &goaway), Ok(vec![Seen::Lost(2)]));
    assert!(!session.is_open() && !session.has_room() && !session.is_over());
    assert_eq!(receive(&mut session, &number(Kind::Reset, looked_at, 8)), Ok(vec![Seen::Reset(1, 8)]));
    assert!(session.is_over());
}

#[test]
fn a_lost_connection_ends_all() {
    let mut session = open(&[]);
    for token in 0..3 {
        send(&mut session, token, b"");
    }
    let mut lost = Vec::new();
    session.lose(&mut |event| lost.push(event.token));
    assert_eq!(lost, [2, 1, 0]);
    assert!(session.is_over());
}

#[test]
fn breaches() {
    let breach = |bytes: Vec<u8>| {
        let mut session = open(&[]);
        send(&mut session, 1, b"");
        receive(&mut session, &bytes).expect_err("a breach")
    };
    let headers = |payload: &[u8]| frame(Kind::Headers, frame::END_HEADERS, 1, payload);
    assert_eq!(breach(vec![0, 0x40, 1, 0, 0, 0, 0, 0, 1]), Violation::FrameSize);
    assert_eq!(breach(frame(Kind::Ping, 0, 0, b"1")), Violation::FrameSize);
    assert_eq!(breach(frame(Kind::Data, frame::PADDED, 1, &[5, 0])), Violation::FrameSize);
    assert_eq!(breach(frame(Kind::Settings, 0, 0, b"12345")), Violation::FrameSize);
    assert_eq!(breach(frame(Kind::Settings, 0, 1, b"")), Violation::Stream);
    assert_eq!(breach(frame(Kind::Data, 0, 3, b"")), Violation::Stream);
    assert_eq!(breach(frame(Kind::Data, 0, 2, b"")), Violation::Stream);
    assert_eq!(breach(frame(Kind::Headers, frame::END_HEADERS, 0, b"\x88")), Violation::Stream);
    assert_eq!(breach(headers(b"\xbe")), Violation::Fields);
    assert_eq!(breach(frame(Kind::Continuation, 0, 1, b"")), Violation::Block);
    let open_block = frame(Kind::Headers, 0, 1, b"\x88");
    assert_eq!(breach([open_block.clone(), headers(b"\x88")].concat()), Violation::Block);
    let other = frame(Kind::Continuation, frame::END_HEADERS, 3, b"");
    assert_eq!(breach([open_block.clone(), other].concat()), Violation::Block);
    let long = frame(Kind::Continuation, 0, 1, &[0; 16_384]);
    assert_eq!(breach([open_block, long.repeat(5)].concat()), Violation::Fields);
    assert_eq!(breach(number(Kind::WindowUpdate, 0, 0)), Violation::Window);
    assert_eq!(breach(number(Kind::WindowUpdate, 0, 0x7fff_ffff)), Violation::Window);
    assert_eq!(breach(number(Kind::WindowUpdate, 1, 0x7fff_ffff)), Violation::Window);
    assert_eq!(breach(settings(&[(frame::SETTING_WINDOW, 0x8000_0000)])), Violation::Window);
    assert_eq!(breach(settings(&[(frame::SETTING_PAYLOAD_MAX, 100)])), Violation::Setting);
    assert_eq!(breach(frame(Kind::PushPromise, 4, 1, &[0; 4])), Violation::Push);
}

#[test]
fn what_is_no_http2() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n"[..], &frame(Kind::Ping, 0, 0, b"12345678")] {
        assert_eq!(receive(&mut new(), bytes), Err(Violation::Greeting));
    }
}
