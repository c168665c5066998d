//! What bounds a core's gRPC side: connections, streams, bytes, times.
//!
//! Invariants:
//! - What a client is told of them it is held to.
//! - Nothing that a client can make us hold is without a limit here or in [`crate::kv::Limits`].
//!
//! It deliberately says nothing about keys and values: those are the state machine's limits.

use std::time::Duration;

use crate::http2::frame::HEAD_BYTES;

/// What bounds a core's gRPC side. Every field has a default that [`EdgeLimits::DEFAULT`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Connections of one core; one more is closed as soon as it is accepted. 4096.
    pub connections_max: usize,
    /// Connections of one core that have not said yet whether they are a client's; one more is closed. 256.
    pub greetings_max: usize,
    /// Streams of one connection, as our SETTINGS announce it; one more is refused. 1024.
    pub streams_max: u32,
    /// The decoded size of a request's headers, in bytes. 16 KiB.
    pub header_list_bytes_max: u32,
    /// The table that a client may compress its headers with, in bytes. 4 KiB.
    pub header_table_bytes_max: u32,
    /// The largest frame that a client may send, in bytes. 16 KiB, the smallest that HTTP/2 allows.
    pub frame_bytes_max: u32,
    /// One message, in or out, in bytes; checked from its prefix, before it is buffered. 4 MiB.
    pub message_bytes_max: usize,
    /// What a client may send on one stream before it is read, in bytes. 1 MiB.
    pub stream_window_bytes: u32,
    /// What a client may send on one connection before it is read, in bytes. 4 MiB.
    pub connection_window_bytes: u32,
    /// The same where streams that nobody reads hold most of that: the client is lent more, so that its other
    /// calls go on. What is lent counts as bytes in flight, and what a core holds unread is thus at most the
    /// windows of its connections and `core_bytes_max`. 8 MiB.
    pub connection_unread_bytes_max: u32,
    /// What waits to be written to one connection before its streams wait, in bytes; twice as much before
    /// nothing is read from it. 256 KiB.
    pub connection_send_bytes_max: usize,
    /// Messages of one connection, from their prefix until they are answered, and what its client is lent of
    /// windows, in bytes. 16 MiB.
    pub connection_bytes_max: usize,
    /// The same for all connections of a core, in bytes. 256 MiB.
    pub core_bytes_max: usize,
    /// Streams that we reset and still remember, so that what was on its way is no error. 1024.
    pub reset_streams_max: usize,
    /// Streams that a client reset before they were looked at; at so many nothing is read until they are done
    /// with. 64.
    pub pending_reset_streams_max: usize,
    /// Errors of a client that make us reset a stream, less the calls that ended well since; one more closes
    /// the connection. 256.
    pub error_resets_max: usize,
    /// Operations of one Pipeline that wait for their answer; more are not read. 1024.
    pub pipeline_operations_max: usize,
    /// Bytes of one Pipeline's operations and answers that wait; more are not read. 4 MiB.
    pub pipeline_bytes_max: usize,
    /// Keys in one page of a Scan. 4096.
    pub scan_keys_max: u32,
    /// Bytes of keys and values in one page of a Scan; one pair may overshoot it. 1 MiB.
    pub scan_bytes_max: usize,
    /// Shards that one Scan asks at a time. 16.
    pub scan_parallel_max: usize,
    /// Backups that one core makes at a time; one more is refused. Each keeps a table's file. 4.
    pub backups_max: usize,
    /// From the accept to the first bytes that tell a client from a peer, and again to the client's SETTINGS.
    /// 10 s.
    pub handshake_timeout: Duration,
    /// How long a connection without a stream is kept. 15 min.
    pub idle_timeout: Duration,
    /// A connection that was silent for so long, and at most twice as long, is asked whether it is still
    /// there. Silent: nothing came, and nothing went that the socket had no room for before. 30 s.
    pub keepalive_interval: Duration,
    /// How long it may be silent after that. 20 s.
    pub keepalive_timeout: Duration,
    /// How long a connection on which everything was said waits for its client to close. 1 s.
    pub linger_timeout: Duration,
    /// What it reads of the client meanwhile, in bytes: twice what a client may have sent, all windows full.
    /// 8 MiB.
    pub linger_bytes_max: usize,
    /// The time for a unary call, an operation of a Pipeline or a page of a Scan whose client gave none. 10
    /// s.
    pub deadline_default: Duration,
    /// How long a stream's answer is kept of which its client takes nothing, though there is something to
    /// send: about as long as a connection that is silent. 60 s.
    pub stall_timeout: Duration,
    /// The longest deadline that is kept, whatever the client gave. 1 h.
    pub deadline_max: Duration,
}

impl EdgeLimits {
    /// The limits of a node that sets none.
    pub const DEFAULT: Self = Self {
        connections_max: 4096,
        greetings_max: 256,
        streams_max: 1024,
        header_list_bytes_max: 16 << 10,
        header_table_bytes_max: 4 << 10,
        frame_bytes_max: 16 << 10,
        message_bytes_max: 4 << 20,
        stream_window_bytes: 1 << 20,
        connection_window_bytes: 4 << 20,
        connection_unread_bytes_max: 8 << 20,
        connection_send_bytes_max: 256 << 10,
        connection_bytes_max: 16 << 20,
        core_bytes_max: 256 << 20,
        reset_streams_max: 1024,
        pending_reset_streams_max: 64,
        error_resets_max: 256,
        pipeline_operations_max: 1024,
        pipeline_bytes_max: 4 << 20,
        scan_keys_max: 4096,
        scan_bytes_max: 1 << 20,
        scan_parallel_max: 16,
        backups_max: 4,
        handshake_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(15 * 60),
        keepalive_interval: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(20),
        linger_timeout: Duration::from_secs(1),
        linger_bytes_max: 8 << 20,
        deadline_default: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(60),
        deadline_max: Duration::from_secs(3600),
    };

    /// Whether one limit leaves room for what another allows.
    #[must_use]
    pub const fn is_consistent(&self) -> bool {
        let windows = self.stream_window_bytes <= self.connection_window_bytes
            && self.connection_window_bytes <= self.connection_unread_bytes_max
            && self.connection_unread_bytes_max <= i32::MAX as u32;
        let bytes = self.connection_bytes_max >= self.message_bytes_max
            && self.core_bytes_max >= self.connection_bytes_max
            && self.pipeline_bytes_max > 0
            && self.message_bytes_max <= u32::MAX as usize;
        let frames = self.frame_bytes_max >= 16 << 10 && self.frame_bytes_max < 16 << 20;
        let counts = self.connections_max > 0
            && self.connection_send_bytes_max > HEAD_BYTES
            && self.pending_reset_streams_max > 0
            && self.greetings_max > 0
            && self.streams_max > 0
            && self.pipeline_operations_max > 0
            && self.scan_keys_max > 0
            && self.scan_parallel_max > 0;
        windows && bytes && frames && counts && self.scan_bytes_max < self.message_bytes_max / 2
    }
}

const _: () = assert!(EdgeLimits::DEFAULT.is_consistent(), "the defaults leave room for each other");

impl Default for EdgeLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
