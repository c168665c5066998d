//! The form of parcels on a link: version 1, as the last byte of the magic says.
//!
//! ```text
//! link     magic 8 B "DKVLINK1" | hello 64 B  ──►
//!                                             ◄── verdict 68 B
//!          frame | frame | …                  ──►
//! frame    length u32 | crc32 u32 of the payload | payload
//! payload  { length u32 | parcel } …             none: a sign of life
//! ```
//!
//! The checksum is not there for the network, which has its own, but so that a fault of memory or of this
//! code is found where it happens. One frame carries all parcels that waited when the link was free: one
//! wake-up, one write.

use bytes::{Buf, Bytes, BytesMut};

use crate::route::codec::DecodeError;
use crate::route::parcel::Parcel;

/// The first bytes of a link. HTTP/2 begins with `PRI`, so one port serves both.
pub const MAGIC: [u8; 8] = *b"DKVLINK1";

/// The most bytes of one frame's payload. The largest parcel (an answer of 4 MiB and its envelope) fits.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame is closed once it holds so much, so that the first of many parcels are not kept waiting.
const FRAME_BYTES_AIM: usize = 256 << 10;

const HEADER_BYTES: usize = 8;

/// Why what arrived is no frame. The link is closed.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A frame longer than any that is sent.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The payload is not what was sent.
    Checksum,
    /// A parcel's length reaches past its frame.
    Overrun,
    /// A parcel that cannot be read.
    Parcel(DecodeError),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "a frame of {bytes} bytes, at most {FRAME_BYTES_MAX} are allowed")
            }
            Self::Checksum => write!(f, "a frame whose checksum does not match"),
            Self::Overrun => write!(f, "a parcel that reaches past its frame"),
            Self::Parcel(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Writes one frame behind what `out` holds, of as many parcels as make a good size; none: a sign of life.
pub fn encode(parcels: &mut impl Iterator<Item = Parcel>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    while out.len() - start < FRAME_BYTES_AIM {
        let Some(parcel) = parcels.next() else { break };
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        parcel.encode(out);
        let length = out.len() - at - 4;
        set_word(out, at, length);
    }
    let payload = start + HEADER_BYTES;
    let length = out.len() - payload;
    assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes: the limits on parcels do not hold");
    let checksum = crc32fast::hash(&out[payload..]);
    set_word(out, start, length);
    out[start + 4..payload].copy_from_slice(&checksum.to_le_bytes());
}

fn set_word(out: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("frames are far smaller than 4 GiB");
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Takes one whole frame's parcels off the front of `buffer`; `None` where more bytes are needed.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Vec<Parcel>>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = &buffer[..HEADER_BYTES];
    let (length, checksum) = (header.get_u32_le() as usize, header.get_u32_le());
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: length });
    }
    if buffer.len() < HEADER_BYTES + length {
        buffer.reserve(HEADER_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let payload = buffer.split_to(length).freeze();
    if crc32fast::hash(&payload) != checksum {
        return Err(FrameError::Checksum);
    }
    decode_parcels(payload).map(Some)
}

fn decode_parcels(mut payload: Bytes) -> Result<Vec<Parcel>, FrameError> {
    let mut parcels = Vec::new();
    while !payload.is_empty() {
        let length = payload.try_get_u32_le().map_err(|_| FrameError::Overrun)? as usize;
        if length > payload.len() {
            return Err(FrameError::Overrun);
        }
        parcels.push(Parcel::decode(payload.split_to(length)).map_err(FrameError::Parcel)?);
    }
    Ok(parcels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CoreId, NodeId};
    use crate::route::call::{Failure, FailureKind};
    use crate::route::parcel::{CallId, Reply};

    fn parcel(number: u64) -> Parcel {
        let id = CallId { node: NodeId(1), incarnation: 2, core: CoreId(3), number };
        Parcel::Reply(Reply { id, outcome: Err(Failure::of(FailureKind::NoLeader)) })
    }

    fn frames(count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut (0..count).map(parcel), &mut out);
        out
    }

    #[test]
    fn parcels_arrive_as_they_were_sent_however_they_are_cut() {
        let bytes = frames(5);
        let mut buffer = BytesMut::new();
        for byte in &bytes[..bytes.len() - 1] {
            buffer.extend_from_slice(&[*byte]);
            assert_eq!(decode(&mut buffer), Ok(None));
        }
        buffer.extend_from_slice(&bytes[bytes.len() - 1..]);
        assert_eq!(decode(&mut buffer), Ok(Some((0..5).map(parcel).collect())));
        assert!(buffer.is_empty());
    }

    #[test]
    fn every_flipped_bit_is_noticed_or_waits_for_more() {
        let bytes = frames(2);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = BytesMut::from(&bytes[..]);
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&mut flipped), Ok(Some(_))), "bit {bit}");
        }
    }
}
