//! Requests spelt by hand, straight into what goes to the socket.
//!
//! A request is gRPC's prefix (see [`protobuf`](crate::protobuf)) and a message:
//! ```text
//! Get     0A len key                                        GetRequest    { key = 1 }
//! Put     12 len key  1A len value                          PutRequest    { key = 2, value = 3 }
//! Append  12 len key  1A len value                          AppendRequest { key = 2, value = 3 }
//! Delete  12 len key                                        DeleteRequest { key = 2 }
//! Cas     12 len key  1A len value  20 revision             PutRequest    { .., if_mod_revision = 4 }
//! Scan    0A len key  18 limit                              ScanRequest   { start = 1, limit = 3 }
//! Check   (empty)                                           HealthCheckRequest {}
//! piped   08 tag  12 len ( 0A | 12 | 1A | 22  len request ) PipelineRequest { tag = 1, operation = 2 }
//! ```
//! etcd's are drawn in [`etcd`].
//!
//! Invariants: what is spelt here is what prost would spell, which the tests compare.

use crate::etcd;
use crate::method::Method;
use crate::protobuf::{
    PREFIX_BYTES, field_len, number_len, write_field, write_head, write_number, write_prefix,
};

/// A request to be spelt.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its method.
    pub method: Method,
    /// The key, where the method has one.
    pub key: &'a [u8],
    /// The value, where the method has one.
    pub value: &'a [u8],
    /// The revision that a compare-and-swap expects, the most keys that a scan asks for.
    pub number: u64,
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

    /// Spells the request as an operation of a Pipeline, with its prefix. Not every method is one.
    pub fn write_piped(&self, tag: u64, out: &mut Vec<u8>) {
        let operation = match self.method {
            Method::Get => 0x0a,
            Method::Put | Method::Cas => 0x12,
            Method::Append => 0x1a,
            Method::Delete => 0x22,
            Method::Scan | Method::Check => 0x00,
            Method::EtcdGet | Method::EtcdPut | Method::EtcdDelete | Method::EtcdCas | Method::EtcdScan => {
                0x00
            }
        };
        assert!(operation != 0, "a {:?} is no operation of a Pipeline", self.method);
        let request_len = self.len();
        let operation_len = field_len(request_len);
        write_prefix(number_len(tag) + field_len(operation_len), out);
        write_number(0x08, tag, out);
        write_head(0x12, operation_len, out);
        write_head(operation, request_len, out);
        self.write_body(out);
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match self.method {
            Method::Put | Method::Append => self.write_change(out),
            Method::Get => write_field(0x0a, self.key, out),
            Method::Delete => write_field(0x12, self.key, out),
            Method::Cas => {
                self.write_change(out);
                write_number(0x20, self.number, out);
            }
            Method::Scan => {
                write_field(0x0a, self.key, out);
                write_number(0x18, self.number, out);
            }
            Method::Check => {}
            Method::EtcdGet | Method::EtcdDelete => etcd::write_one(self.key, out),
            Method::EtcdPut => etcd::write_put(self.key, self.value, out),
            Method::EtcdCas => etcd::write_cas(self.key, self.value, self.number, out),
            Method::EtcdScan => etcd::write_scan(self.key, self.number, out),
        }
    }

    /// Key and value of a `PutRequest` or an `AppendRequest`.
    fn write_change(&self, out: &mut Vec<u8>) {
        write_field(0x12, self.key, out);
        if !self.value.is_empty() {
            write_field(0x1a, self.value, out);
        }
    }

    fn change_len(&self) -> usize {
        field_len(self.key.len()) + if self.value.is_empty() { 0 } else { field_len(self.value.len()) }
    }

    /// Bytes of the message.
    fn len(&self) -> usize {
        match self.method {
            Method::Put | Method::Append => self.change_len(),
            Method::Get | Method::Delete => field_len(self.key.len()),
            Method::Cas => self.change_len() + number_len(self.number),
            Method::Scan => field_len(self.key.len()) + number_len(self.number),
            Method::Check => 0,
            Method::EtcdGet | Method::EtcdDelete => etcd::one_len(self.key),
            Method::EtcdPut => etcd::put_len(self.key, self.value),
            Method::EtcdCas => etcd::cas_len(self.key, self.value, self.number),
            Method::EtcdScan => etcd::scan_len(self.key, self.number),
        }
    }
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

    fn spelt(method: Method, key: &[u8], value: &[u8], number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let message = Message { method, key, value, number };
        message.write(&mut out);
        assert_eq!(out.len(), message.framed_len());
        out
    }

    fn put(key: &[u8], value: &[u8], if_mod_revision: Option<u64>) -> v1::PutRequest {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        v1::PutRequest { key, value, if_mod_revision, ..Default::default() }
    }

    /// What prost spells for an operation on a key.
    fn operation(method: Method, key: &[u8], value: &[u8]) -> v1::operation::Operation {
        use v1::operation::Operation;
        let (key_bytes, value_bytes) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        match method {
            Method::Put => Operation::Put(put(key, value, None)),
            Method::Cas => Operation::Put(put(key, value, Some(300))),
            Method::Append => Operation::Append(v1::AppendRequest {
                key: key_bytes,
                value: value_bytes,
                ..Default::default()
            }),
            Method::Delete => Operation::Delete(v1::DeleteRequest { key: key_bytes, ..Default::default() }),
            _ => Operation::Get(v1::GetRequest { key: key_bytes, ..Default::default() }),
        }
    }

    #[test]
    fn spelt_as_prost_spells() {
        let key = spell(42);
        let key_bytes = Bytes::copy_from_slice(&key);
        let get = v1::GetRequest { key: key_bytes.clone(), ..Default::default() };
        assert_eq!(spelt(Method::Get, &key, b"unused", 5), framed(&get));
        let delete = v1::DeleteRequest { key: key_bytes.clone(), ..Default::default() };
        assert_eq!(spelt(Method::Delete, &key, b"unused", 5), framed(&delete));
        for limit in [1, 100, 100_000] {
            let scan = v1::ScanRequest { start: key_bytes.clone(), limit, ..Default::default() };
            assert_eq!(spelt(Method::Scan, &key, b"unused", limit), framed(&scan));
        }
        for len in [0, 1, 127, 128, 256, 16_383, 16_384, 1 << 20] {
            let value = Bytes::from(vec![7; len]);
            assert_eq!(spelt(Method::Put, &key, &value, 5), framed(&put(&key, &value, None)), "{len} bytes");
            for revision in [0, 300, u64::MAX] {
                let cas = put(&key, &value, Some(revision));
                assert_eq!(spelt(Method::Cas, &key, &value, revision), framed(&cas), "{len} bytes");
            }
            let append =
                v1::AppendRequest { key: key_bytes.clone(), value: value.clone(), ..Default::default() };
            assert_eq!(spelt(Method::Append, &key, &value, 5), framed(&append), "append of {len} bytes");
        }
        let check = health::HealthCheckRequest::default();
        assert_eq!(spelt(Method::Check, &key, b"", 0), framed(&check));
    }

    #[test]
    fn keys_of_any_length() {
        for len in [1, 127, 128, 4096] {
            let key = vec![b'k'; len];
            let get = v1::GetRequest { key: Bytes::copy_from_slice(&key), ..Default::default() };
            assert_eq!(spelt(Method::Get, &key, b"", 0), framed(&get), "{len} bytes");
            assert_eq!(spelt(Method::Put, &key, b"v", 0), framed(&put(&key, b"v", None)), "{len} bytes");
        }
    }

    #[test]
    fn etcd_has_the_lengths_that_it_spells() {
        for method in
            [Method::EtcdGet, Method::EtcdPut, Method::EtcdDelete, Method::EtcdCas, Method::EtcdScan]
        {
            let spelt = spelt(method, &spell(42), &[7; 300], 500);
            assert_eq!(spelt[1..5], ((spelt.len() - 5) as u32).to_be_bytes(), "{method:?}");
        }
    }

    #[test]
    fn piped_as_prost_spells() {
        let key = spell(42);
        let methods = [
            (Method::Get, 0),
            (Method::Put, 256),
            (Method::Append, 1 << 20),
            (Method::Delete, 0),
            (Method::Cas, 256),
        ];
        for (method, len) in methods {
            let value = vec![7; len];
            for tag in [1, 127, 128, u64::MAX] {
                let operation = v1::Operation { operation: Some(operation(method, &key, &value)) };
                let mut out = Vec::new();
                Message { method, key: &key, value: &value, number: 300 }.write_piped(tag, &mut out);
                let want = framed(&v1::PipelineRequest { tag, operation: Some(operation) });
                assert_eq!(out, want, "{method:?} of {len} bytes");
            }
        }
    }
}
