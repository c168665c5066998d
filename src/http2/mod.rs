//! What both halves of HTTP/2 (RFC 9113) have in common: frames, and the code of fields (HPACK, RFC 7541).
//!
//! The server's half is the edge's, the client's loadgen's. Both are written for gRPC alone: a general
//! library pays for each call with header maps, a stream object behind a lock and wakers, and that was a
//! quarter of what a Put cost a node.
//!
//! Nothing here reads a clock or a socket, and nothing here knows what a field means.

pub mod frame;
pub mod hpack;
pub mod huffman;
