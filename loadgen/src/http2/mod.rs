//! The client's half of HTTP/2 (RFC 9113), as much as a load of gRPC calls takes.
//!
//! ```text
//!  call ─► head ─► session ─► bytes out            bytes in ─► session ─► fields ─► events
//!                    streams, windows
//! ```
//! A general library pays for each call with a stream object behind a lock, a header map on either side and
//! wakers: two thirds of what a call cost here. In a load all requests are alike, so a request's head is five
//! bytes once the connection has seen it, an answer's fields are two lookups, and a stream is a slot in a
//! ring.
//!
//! Invariants:
//! - Nothing here reads a clock or a socket: bytes come in, bytes and events go out.
//! - What a server sends is checked before it is used; what breaks the protocol ends the connection, with its
//!   reason.
//! - Whatever grows has a limit: the ring of streams, bytes waiting to be sent, a block of fields.
//!
//! What it deliberately does not do: pushes (refused), priorities (ignored), TLS, an answer to a server that
//! sends beyond the windows it was given (it is read all the same).

mod fields;
mod head;
mod session;
mod streams;

pub use fields::Fields;
pub use head::Heads;
pub use session::{Event, News, Request, Session, Violation};

#[cfg(test)]
mod session_tests;
