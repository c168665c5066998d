//! Requests spelt by hand, straight into what goes to the socket, and the little of an answer that has to be
//! read.
//!
//! A request is gRPC's prefix (a flag byte, the length in four bytes, big-endian) and a protobuf message:
//! ```text
//! Get     0A len key                                        GetRequest    { key = 1 }
//! Put     12 len key  1A len value                          PutRequest    { key = 2, value = 3 }
//! Append  12 len key  1A len value                          AppendRequest { key = 2, value = 3 }
//! Check   (empty)                                           HealthCheckRequest {}
//! piped   08 tag  12 len ( 0A | 12 | 1A  len request )      PipelineRequest { tag = 1, operation = 2 }
//! ```
//! Invariants: what is spelt here is what prost would spell, which the tests compare.

use crate::keys::KEY_BYTES;
use crate::workload::Method;

/// gRPC's prefix of a message.
pub const PREFIX_BYTES: usize = 5;
/// Bytes of an answer that are kept: enough for the prefix, a response header and the tag after it.
const KEPT_BYTES: usize = 96;

/// A request to be spelt.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its method.
    pub method: Method,
    /// The key, where the method has one.
    pub key: &'a [u8; KEY_BYTES],
    /// The value, where the method has one.
    pub value: &'a [u8],
}

impl Message<'_> {
    /// Bytes of the request, its prefix included.
    pub fn framed_len(&self) -> usize {
        PREFIX_BYTES + self.len()
    }

    /// Spells the request and its prefix.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_prefix(self.len(), out);
        self.write_body(out);
    }

    /// Spells the request as an operation of a Pipeline, with its prefix. There is none for a health check.
    pub fn write_piped(&self, tag: u64, out: &mut Vec<u8>) {
        let operation = match self.method {
            Method::Get => 0x0a,
            Method::Put => 0x12,
            Method::Append => 0x1a,
            Method::Check => 0x00,
        };
        assert!(operation != 0, "a {:?} is no operation of a Pipeline", self.method);
        let request_len = self.len();
        let operation_len = 1 + varint_len(request_len as u64) + request_len;
        write_prefix(2 + varint_len(tag) + varint_len(operation_len as u64) + operation_len, out);
        out.push(0x08);
        write_varint(tag, out);
        out.push(0x12);
        write_varint(operation_len as u64, out);
        out.push(operation);
        write_varint(request_len as u64, out);
        self.write_body(out);
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match self.method {
            Method::Get => write_field(0x0a, self.key, out),
            Method::Put | Method::Append => {
                write_field(0x12, self.key, out);
                if !self.value.is_empty() {
                    write_field(0x1a, self.value, out);
                }
            }
            Method::Check => {}
        }
    }

    /// Bytes of the message.
    fn len(&self) -> usize {
        match self.method {
            Method::Get => field_len(KEY_BYTES),
            Method::Put | Method::Append if self.value.is_empty() => field_len(KEY_BYTES),
            Method::Put | Method::Append => field_len(KEY_BYTES) + field_len(self.value.len()),
            Method::Check => 0,
        }
    }
}

/// Spells gRPC's prefix of a message that is not compressed.
fn write_prefix(len: usize, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&(len as u32).to_be_bytes());
}

/// Spells a field of bytes.
fn write_field(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Spells a number in groups of seven bits, the lowest first.
fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that [`write_varint`] spells.
fn varint_len(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// Length of a field of so many bytes, with its tag and its length.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
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
    fn read_get(&self, message: &[u8]) -> Said {
        match read_get(message) {
            Said::Malformed if self.len > KEPT_BYTES => Said::Yes,
            said @ (Said::Yes | Said::No | Said::Malformed) => said,
        }
    }
}

/// A whole `GetResponse`: whether it holds field 2, `kv`.
pub fn read_get(mut message: &[u8]) -> Said {
    while !message.is_empty() {
        // The key and value are not looked at, so they need not be there.
        if message[0] == 0x12 {
            return Said::Yes;
        }
        let Some((_, rest)) = read_field(message) else { return Said::Malformed };
        message = rest;
    }
    Said::No
}

/// A field of a message: its number, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A number.
    Number(u64, u64),
    /// Bytes, or a message.
    Bytes(u64, &'a [u8]),
}

/// Reads a field; and what follows it. `None` where there is none that is known here.
pub fn read_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (tag, rest) = read_varint(bytes)?;
    let (number, rest) = read_varint(rest)?;
    match tag & 7 {
        0 => Some((Field::Number(tag >> 3, number), rest)),
        2 => {
            let (held, rest) = rest.split_at_checked(usize::try_from(number).ok()?)?;
            Some((Field::Bytes(tag >> 3, held), rest))
        }
        _ => None,
    }
}

/// Reads a number; and what follows it. `None` where it does not end within ten bytes.
fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use distribkv::wire::{health, v1};

    use super::*;
    use crate::keys::spell;

    fn framed(message: &impl prost::Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn spelt(method: Method, key: &[u8; KEY_BYTES], value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let message = Message { method, key, value };
        message.write(&mut out);
        assert_eq!(out.len(), message.framed_len());
        out
    }

    /// What prost spells for an operation on a key.
    fn operation(method: Method, key: &[u8], value: &[u8]) -> v1::operation::Operation {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        match method {
            Method::Put => v1::operation::Operation::Put(v1::PutRequest { key, value, ..Default::default() }),
            Method::Append => {
                v1::operation::Operation::Append(v1::AppendRequest { key, value, ..Default::default() })
            }
            Method::Get | Method::Check => {
                v1::operation::Operation::Get(v1::GetRequest { key, ..Default::default() })
            }
        }
    }

    #[test]
    fn spelt_as_prost_spells() {
        let key = spell(42);
        let key_bytes = Bytes::copy_from_slice(&key);
        let get = v1::GetRequest { key: key_bytes.clone(), ..Default::default() };
        assert_eq!(spelt(Method::Get, &key, b"unused"), framed(&get));
        for len in [0, 1, 127, 128, 256, 16_383, 16_384, 1 << 20] {
            let value = Bytes::from(vec![7; len]);
            let put = v1::PutRequest { key: key_bytes.clone(), value: value.clone(), ..Default::default() };
            assert_eq!(spelt(Method::Put, &key, &value), framed(&put), "put of {len} bytes");
            let append =
                v1::AppendRequest { key: key_bytes.clone(), value: value.clone(), ..Default::default() };
            assert_eq!(spelt(Method::Append, &key, &value), framed(&append), "append of {len} bytes");
        }
        let check = health::HealthCheckRequest::default();
        assert_eq!(spelt(Method::Check, &key, b""), framed(&check));
    }

    #[test]
    fn piped_as_prost_spells() {
        let key = spell(42);
        for (method, len) in [(Method::Get, 0), (Method::Put, 256), (Method::Append, 1 << 20)] {
            let value = vec![7; len];
            for tag in [1, 127, 128, u64::MAX] {
                let operation = v1::Operation { operation: Some(operation(method, &key, &value)) };
                let mut out = Vec::new();
                Message { method, key: &key, value: &value }.write_piped(tag, &mut out);
                let want = framed(&v1::PipelineRequest { tag, operation: Some(operation) });
                assert_eq!(out, want, "{method:?} of {len} bytes");
            }
        }
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
        assert_eq!(read(Method::Get, b"\0\0\0\0\x02\x09\x01"), Said::Malformed);
    }
}
