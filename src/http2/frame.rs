//! Frames: their heads, and the small ones whole.
//!
//! ```text
//!  0        3    4     5          9
//!  | length | kind | flags | stream | payload ...        all big-endian; the top bit of `stream` is unused
//! ```

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;
/// The largest payload that either side takes unless it said otherwise.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;
/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No more frames of this stream follow (DATA, HEADERS).
pub const END_STREAM: u8 = 0x1;
/// The answer to the other side's frame (SETTINGS, PING).
pub const ACK: u8 = 0x1;
/// The block of fields is whole (HEADERS, CONTINUATION).
pub const END_HEADERS: u8 = 0x4;
/// The payload begins with the length of its padding (DATA, HEADERS).
pub const PADDED: u8 = 0x8;
/// The payload begins with five bytes of priority (HEADERS).
pub const PRIORITY: u8 = 0x20;

/// Settings by their numbers.
pub const SETTING_TABLE_BYTES: u16 = 1;
/// Whether the server may push.
pub const SETTING_PUSH: u16 = 2;
/// Streams that may be open.
pub const SETTING_STREAMS_MAX: u16 = 3;
/// The window that a stream starts with.
pub const SETTING_WINDOW: u16 = 4;
/// The largest payload.
pub const SETTING_PAYLOAD_MAX: u16 = 5;
/// Bytes of the fields of one message.
pub const SETTING_FIELDS_BYTES_MAX: u16 = 6;

/// The window that everything starts with.
pub const WINDOW_BYTES_FIRST: u32 = 65_535;
/// The largest window.
pub const WINDOW_BYTES_MAX: i64 = 0x7fff_ffff;
/// The table of fields that everybody keeps, unless they say otherwise.
pub const TABLE_BYTES_FIRST: usize = 4096;

/// Why a stream or a connection ends (RFC 9113, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Nothing went wrong.
    NoError = 0,
    /// The other side did what the protocol does not allow.
    Protocol = 1,
    /// It sent more than the window that it had, or made one larger than any may be.
    FlowControl = 3,
    /// It sent on a stream that it had ended.
    StreamClosed = 5,
    /// A frame has a size that is not allowed.
    FrameSize = 6,
    /// The stream was not looked at: its request may be sent again.
    Refused = 7,
    /// The stream is no longer wanted.
    Cancel = 8,
    /// Fields that cannot be read: the table is worth nothing any more.
    Compression = 9,
    /// It does too much of what costs it nothing.
    Calm = 11,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a body.
    Data,
    /// Fields, or the first part of them.
    Headers,
    /// Advice, which is ignored.
    Priority,
    /// The end of a stream, by force.
    Reset,
    /// What the other side asks for.
    Settings,
    /// A push, which was refused beforehand.
    PushPromise,
    /// To be answered.
    Ping,
    /// No new stream is taken.
    GoAway,
    /// More may be sent.
    WindowUpdate,
    /// More of the fields.
    Continuation,
    /// Of some extension: ignored.
    Unknown,
}

impl Kind {
    /// By number, in the order of the enum.
    const ALL: [Self; 10] = [
        Self::Data,
        Self::Headers,
        Self::Priority,
        Self::Reset,
        Self::Settings,
        Self::PushPromise,
        Self::Ping,
        Self::GoAway,
        Self::WindowUpdate,
        Self::Continuation,
    ];
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub len: usize,
    /// What it is.
    pub kind: Kind,
    /// Flags, by kind.
    pub flags: u8,
    /// The stream; 0: the connection.
    pub stream: u32,
}

impl Head {
    /// Reads a head.
    #[must_use]
    pub fn read(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [len_2, len_1, len_0, kind, flags, stream @ ..] = *bytes;
        Self {
            len: u32::from_be_bytes([0, len_2, len_1, len_0]) as usize,
            kind: Kind::ALL.get(usize::from(kind)).copied().unwrap_or(Kind::Unknown),
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Spells the head. What follows has to be `len` bytes.
    ///
    /// # Panics
    /// The payload is too large for any frame, or the kind is unknown.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(self.len < 1 << 24, "a payload of {} bytes", self.len);
        assert!(self.kind != Kind::Unknown, "only frames that are known are sent");
        let [_, len_2, len_1, len_0] = (self.len as u32).to_be_bytes();
        let [stream_3, stream_2, stream_1, stream_0] = self.stream.to_be_bytes();
        let kind = self.kind as u8;
        out.extend_from_slice(&[
            len_2, len_1, len_0, kind, self.flags, stream_3, stream_2, stream_1, stream_0,
        ]);
    }
}

/// Spells a frame whose payload is one number: RST_STREAM with its code, WINDOW_UPDATE with its bytes.
pub fn write_number(kind: Kind, stream: u32, number: u32, out: &mut Vec<u8>) {
    Head { len: 4, kind, flags: 0, stream }.write(out);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Spells the end of a stream, by force.
pub fn write_reset(stream: u32, code: Code, out: &mut Vec<u8>) {
    write_number(Kind::Reset, stream, code as u32, out);
}

/// Spells a SETTINGS frame.
pub fn write_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    Head { len: settings.len() * 6, kind: Kind::Settings, flags: 0, stream: 0 }.write(out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// A payload without its padding.
///
/// # Errors
/// There is more padding than payload.
pub fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], BadPadding> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let (padding, rest) = payload.split_first().ok_or(BadPadding)?;
    let len = rest.len().checked_sub(usize::from(*padding)).ok_or(BadPadding)?;
    Ok(&rest[..len])
}

/// A frame with more padding than payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPadding;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_there_and_back() {
        let head = Head { len: 0x01_0203, kind: Kind::Continuation, flags: 5, stream: 0x7fff_fffe };
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        assert_eq!(bytes, [1, 2, 3, 9, 5, 0x7f, 0xff, 0xff, 0xfe]);
        let bytes: [u8; HEAD_BYTES] = bytes.try_into().expect("nine bytes");
        assert_eq!(Head::read(&bytes), head);
        assert!(head.has(END_STREAM) && head.has(END_HEADERS) && !head.has(PADDED));
        assert_eq!(Head::read(&[0, 0, 0, 10, 0, 0x80, 0, 0, 1]).kind, Kind::Unknown);
        assert_eq!(Head::read(&[0, 0, 0, 0, 0, 0x80, 0, 0, 1]).stream, 1);
    }
}
