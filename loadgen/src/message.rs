//! Requests spelt by hand into one reused buffer, and the little of an answer that has to be read.
//!
//! A request is gRPC's prefix (a flag byte, the length in four bytes, big-endian) and a protobuf message:
//! ```text
//! Get     0A len key                                        GetRequest    { key = 1 }
//! Put     12 len key  1A len value                          PutRequest    { key = 2, value = 3 }
//! Append  12 len key  1A len value                          AppendRequest { key = 2, value = 3 }
//! Check   (empty)                                           HealthCheckRequest {}
//! ```
//! Invariants: what is spelt here is what prost would spell, which the tests compare.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::keys::KEY_BYTES;
use crate::workload::Method;

/// gRPC's prefix of a message.
pub const PREFIX_BYTES: usize = 5;
/// The buffer that requests are cut from is had in chunks of at least so much.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of an answer that are kept: enough for the prefix, a response header and the tag after it.
const KEPT_BYTES: usize = 96;

/// Where requests are spelt: one large allocation serves many of them, and is used again when all are sent.
#[derive(Debug, Default)]
pub struct Encoder {
    chunk: BytesMut,
}

impl Encoder {
    /// The request of a method with a key and a value, ready to be sent.
    pub fn encode(&mut self, method: Method, key: &[u8; KEY_BYTES], value: &[u8]) -> Bytes {
        let len = message_len(method, value.len());
        let whole = PREFIX_BYTES + len;
        if self.chunk.capacity() - self.chunk.len() < whole {
            self.chunk.reserve(whole.max(CHUNK_BYTES));
        }
        self.chunk.put_u8(0);
        self.chunk.put_u32(len as u32);
        match method {
            Method::Get => self.field(0x0a, key),
            Method::Put | Method::Append => {
                self.field(0x12, key);
                if !value.is_empty() {
                    self.field(0x1a, value);
                }
            }
            Method::Check => {}
        }
        assert_eq!(self.chunk.len(), whole, "a {method:?} was spelt in another length than announced");
        self.chunk.split().freeze()
    }

    fn field(&mut self, tag: u8, bytes: &[u8]) {
        self.chunk.put_u8(tag);
        let mut len = bytes.len();
        while len >= 0x80 {
            self.chunk.put_u8((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        self.chunk.put_u8(len as u8);
        self.chunk.put_slice(bytes);
    }
}

/// Length of a method's message.
fn message_len(method: Method, value_len: usize) -> usize {
    match method {
        Method::Get => field_len(KEY_BYTES),
        Method::Put | Method::Append if value_len == 0 => field_len(KEY_BYTES),
        Method::Put | Method::Append => field_len(KEY_BYTES) + field_len(value_len),
        Method::Check => 0,
    }
}

/// Length of a field of so many bytes, with its tag and its length.
fn field_len(len: usize) -> usize {
    let digits = (usize::BITS - (len | 1).leading_zeros()).div_ceil(7) as usize;
    1 + digits + len
}

/// What came of an answer so far: its length, and its first bytes.
#[derive(Clone, Debug)]
pub struct Answer {
    kept: [u8; KEPT_BYTES],
    len: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Self { kept: [0; KEPT_BYTES], len: 0 }
    }
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Done, and there was something: a write was made, a key found, the server serves.
    Yes,
    /// Done, and there was nothing: no such key, the server does not serve.
    No,
    /// Not one whole message.
    Malformed,
}

impl Answer {
    /// Forgets what came.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes more bytes of the answer.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.len < KEPT_BYTES {
            let kept = bytes.len().min(KEPT_BYTES - self.len);
            self.kept[self.len..self.len + kept].copy_from_slice(&bytes[..kept]);
        }
        self.len += bytes.len();
    }

    /// Bytes that came.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reads the whole answer of a method.
    pub fn read(&self, method: Method) -> Said {
        let kept = &self.kept[..self.len.min(KEPT_BYTES)];
        let Some((prefix, message)) = kept.split_first_chunk::<PREFIX_BYTES>() else {
            return Said::Malformed;
        };
        let announced = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 || announced != self.len - PREFIX_BYTES {
            return Said::Malformed;
        }
        match method {
            Method::Put | Method::Append => Said::Yes,
            Method::Get => self.read_get(message),
            Method::Check if message == [0x08, 0x01] => Said::Yes,
            Method::Check => Said::No,
        }
    }

    /// A `GetResponse`: whether it holds field 2, `kv`. What does not fit into the kept bytes can only be
    /// that.
    fn read_get(&self, mut message: &[u8]) -> Said {
        while let Some((tag, rest)) = message.split_first() {
            if *tag == 0x12 {
                return Said::Yes;
            }
            let Some((len, after)) = varint(rest) else { return Said::Malformed };
            if *tag & 7 != 2 || len > after.len() {
                return if self.len > KEPT_BYTES { Said::Yes } else { Said::Malformed };
            }
            message = &after[len..];
        }
        Said::No
    }
}

/// A number of at most four bytes, and what follows it.
fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0usize;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        number |= ((byte & 0x7f) as usize) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use distribkv::wire::{health, v1};
    use prost::Message;

    use super::*;
    use crate::keys::spell;

    fn framed(message: &impl Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn spelt_as_prost_spells() {
        let mut encoder = Encoder::default();
        let key = spell(42);
        let key_bytes = Bytes::copy_from_slice(&key);
        let get = v1::GetRequest { key: key_bytes.clone(), ..Default::default() };
        assert_eq!(encoder.encode(Method::Get, &key, b"unused"), framed(&get));
        for len in [0, 1, 127, 128, 256, 16_383, 16_384, 1 << 20] {
            let value = Bytes::from(vec![7; len]);
            let put = v1::PutRequest { key: key_bytes.clone(), value: value.clone(), ..Default::default() };
            assert_eq!(encoder.encode(Method::Put, &key, &value), framed(&put), "put of {len} bytes");
            let append =
                v1::AppendRequest { key: key_bytes.clone(), value: value.clone(), ..Default::default() };
            assert_eq!(
                encoder.encode(Method::Append, &key, &value),
                framed(&append),
                "append of {len} bytes"
            );
        }
        let check = health::HealthCheckRequest::default();
        assert_eq!(encoder.encode(Method::Check, &key, b""), framed(&check));
    }

    fn read(method: Method, bytes: &[u8]) -> Said {
        let mut answer = Answer::default();
        for part in bytes.chunks(7) {
            answer.push(part);
        }
        answer.read(method)
    }

    #[test]
    fn answers() {
        let header = Some(v1::ResponseHeader {
            cluster_id: u64::MAX,
            node_id: u32::MAX,
            shard: u32::MAX,
            revision: u64::MAX,
            term: u64::MAX,
        });
        let missing = v1::GetResponse { header, kv: None };
        assert_eq!(read(Method::Get, &framed(&missing)), Said::No);
        for len in [0, 10, 100_000] {
            let kv = Some(v1::KeyValue { value: vec![1; len].into(), ..Default::default() });
            assert_eq!(read(Method::Get, &framed(&v1::GetResponse { header, kv })), Said::Yes, "{len} bytes");
        }
        assert_eq!(read(Method::Put, &framed(&v1::PutResponse::default())), Said::Yes);
        assert_eq!(read(Method::Check, &framed(&health::HealthCheckResponse { status: 1 })), Said::Yes);
        assert_eq!(read(Method::Check, &framed(&health::HealthCheckResponse { status: 2 })), Said::No);
    }

    #[test]
    fn malformed_answers() {
        assert_eq!(read(Method::Put, b""), Said::Malformed);
        assert_eq!(read(Method::Put, b"\0\0\0\0\x02a"), Said::Malformed);
        assert_eq!(read(Method::Put, b"\x01\0\0\0\0"), Said::Malformed);
        assert_eq!(read(Method::Get, b"\0\0\0\0\x02\x0a\x09"), Said::Malformed);
        assert_eq!(read(Method::Get, b"\0\0\0\0\x02\x08\x01"), Said::Malformed);
    }
}
