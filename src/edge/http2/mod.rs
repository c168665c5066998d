//! The server's half of HTTP/2 (RFC 9113), as much as gRPC takes.
//!
//! ```text
//!  bytes in ─► session ─► fields ─► a request: its stream's task begins       connection's task
//!                │ streams: bodies, windows, wakers                             (reads, flushes)
//!                ▼                                                                  ▲
//!  bytes out ◄─ out ◄─ heads · data · trailers ◄─ channel ◄──────────────── stream's task
//! ```
//!
//! A request's fields are read once, when they enter the table, and known by their index from then on; an
//! answer's head and trailers are a few bytes that are the same for every answer. A stream is an entry of a
//! table that its task and the connection's task share, with the one waker that a stream has.
//!
//! Invariants:
//! - [`Session`] reads no clock and no socket: bytes come in, bytes and requests go out.
//! - What a client sends is checked before it is used. What breaks the protocol of a stream ends the stream,
//!   what breaks that of the connection ends it, each with its reason.
//! - Whatever a client can make grow has a limit in [`EdgeLimits`](super::EdgeLimits): streams, bodies that
//!   nobody has taken, fields, bytes on their way out.
//! - Nothing is sent beyond the client's windows, and nothing of a stream after its end.
//!
//! It deliberately ignores priorities, which nobody sends any more, and trailers of requests, which gRPC does
//! not have; it never pushes, and serves no HTTP/1.

mod answers;
mod channel;
mod fields;
mod inflow;
mod sending;
mod session;
mod streams;
pub(super) mod replay;

pub(super) use answers::Field;
pub(super) use channel::{Body, Channel, Sender};
pub(super) use fields::RequestFields;
pub(super) use session::{Opened, Session};
#[cfg(test)]
mod session_tests;
