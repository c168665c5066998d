//! etcd's requests, spelt by hand. Numbers are those of etcd's public `rpc.proto` and `kv.proto`.
//!
//! ```text
//! Range        0A len key                                       RangeRequest { key = 1 }
//!              0A len key  12 01 00  18 limit                   { key = 1, range_end = 2, limit = 3 }
//! Put          0A len key  12 len value                         PutRequest { key = 1, value = 2 }
//! DeleteRange  0A len key                                       DeleteRangeRequest { key = 1 }
//! Txn          0A len ( 10 02  1A len key  30 revision )        TxnRequest { compare = 1,
//!              12 len ( 12 len Put )                                         success = 2,
//!              1A len ( 0A len Range )                                       failure = 3 }
//! ```
//! A comparison is `Compare { result = 1: EQUAL (0), target = 2: MOD (2), key = 3, mod_revision = 6 }`, where
//! revision 0 stands for a key that does not exist; an operation is `RequestOp { request_range = 1,
//! request_put = 2 }`. A range that ends with a zero byte goes on to the last key.
//!
//! Answers:
//! ```text
//! ResponseHeader { cluster_id = 1, member_id = 2, revision = 3, raft_term = 4 }
//! RangeResponse { header = 1, kvs = 2, more = 3, count = 4 }
//! KeyValue { key = 1, create_revision = 2, mod_revision = 3, version = 4, value = 5 }
//! DeleteRangeResponse { header = 1, deleted = 2 }
//! TxnResponse { header = 1, succeeded = 2, responses = 3: { response_range = 1, response_put = 2 } }
//! StatusResponse { header = 1, version = 2 }
//! ```

use crate::protobuf::{Field, field_len, number_len, read_field, write_field, write_head, write_number};

/// Where a range ends that has no end.
const TO_THE_LAST_KEY: &[u8] = &[0];
/// Bytes of a `Compare` before its key.
const TARGET: [u8; 2] = [0x10, 0x02];

/// Bytes of a `RangeRequest` or a `DeleteRangeRequest` of one key.
pub fn one_len(key: &[u8]) -> usize {
    field_len(key.len())
}

/// Spells a `RangeRequest` or a `DeleteRangeRequest` of one key.
pub fn write_one(key: &[u8], out: &mut Vec<u8>) {
    write_field(0x0a, key, out);
}

/// Bytes of a `PutRequest`.
pub fn put_len(key: &[u8], value: &[u8]) -> usize {
    field_len(key.len()) + if value.is_empty() { 0 } else { field_len(value.len()) }
}

/// Spells a `PutRequest`.
pub fn write_put(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    write_field(0x0a, key, out);
    if !value.is_empty() {
        write_field(0x12, value, out);
    }
}

/// Bytes of a `RangeRequest` of at most `limit` keys.
pub fn scan_len(key: &[u8], limit: u64) -> usize {
    field_len(key.len()) + field_len(TO_THE_LAST_KEY.len()) + number_len(limit)
}

/// Spells a `RangeRequest` of at most `limit` keys, from `key` on.
pub fn write_scan(key: &[u8], limit: u64, out: &mut Vec<u8>) {
    write_field(0x0a, key, out);
    write_field(0x12, TO_THE_LAST_KEY, out);
    write_number(0x18, limit, out);
}

/// The lengths within a `TxnRequest`.
struct CasLens {
    compare: usize,
    put: usize,
    range: usize,
}

impl CasLens {
    fn of(key: &[u8], value: &[u8], revision: u64) -> Self {
        let compare = TARGET.len() + field_len(key.len()) + number_len(revision);
        Self { compare, put: put_len(key, value), range: one_len(key) }
    }
}

/// Bytes of a `TxnRequest` that puts where the key has that revision.
pub fn cas_len(key: &[u8], value: &[u8], revision: u64) -> usize {
    let lens = CasLens::of(key, value, revision);
    field_len(lens.compare) + field_len(field_len(lens.put)) + field_len(field_len(lens.range))
}

/// Spells a `TxnRequest` that puts where the key has that revision, and else gets it.
pub fn write_cas(key: &[u8], value: &[u8], revision: u64, out: &mut Vec<u8>) {
    let lens = CasLens::of(key, value, revision);
    write_head(0x0a, lens.compare, out);
    out.extend_from_slice(&TARGET);
    write_field(0x1a, key, out);
    write_number(0x30, revision, out);
    write_head(0x12, field_len(lens.put), out);
    write_head(0x12, lens.put, out);
    write_put(key, value, out);
    write_head(0x1a, field_len(lens.range), out);
    write_head(0x0a, lens.range, out);
    write_one(key, out);
}

/// The version that a `StatusResponse` tells.
pub fn version_of(mut status: &[u8]) -> Option<String> {
    while !status.is_empty() {
        let (field, rest) = read_field(status)?;
        if let Field::Bytes(2, version) = field {
            return String::from_utf8(version.to_vec()).ok();
        }
        status = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct RangeRequest {
        #[prost(bytes = "vec", tag = "1")]
        key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        range_end: Vec<u8>,
        #[prost(int64, tag = "3")]
        limit: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct PutRequest {
        #[prost(bytes = "vec", tag = "1")]
        key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Compare {
        #[prost(int32, tag = "1")]
        result: i32,
        #[prost(int32, tag = "2")]
        target: i32,
        #[prost(bytes = "vec", tag = "3")]
        key: Vec<u8>,
        #[prost(int64, optional, tag = "6")]
        mod_revision: Option<i64>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct RequestOp {
        #[prost(message, optional, tag = "1")]
        range: Option<RangeRequest>,
        #[prost(message, optional, tag = "2")]
        put: Option<PutRequest>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct TxnRequest {
        #[prost(message, repeated, tag = "1")]
        compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")]
        success: Vec<RequestOp>,
        #[prost(message, repeated, tag = "3")]
        failure: Vec<RequestOp>,
    }

    fn spelt(len: usize, write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out.len(), len);
        out
    }

    #[test]
    fn spelt_as_prost_spells() {
        let key = b"key-000000000042".to_vec();
        let range = RangeRequest { key: key.clone(), ..Default::default() };
        assert_eq!(spelt(one_len(&key), |out| write_one(&key, out)), range.encode_to_vec());
        for limit in [1, 100, 100_000] {
            let scan = RangeRequest { range_end: vec![0], limit: limit as i64, ..range.clone() };
            assert_eq!(
                spelt(scan_len(&key, limit), |out| write_scan(&key, limit, out)),
                scan.encode_to_vec()
            );
        }
        for len in [0, 1, 127, 256, 1 << 20] {
            let value = vec![7; len];
            let put = PutRequest { key: key.clone(), value: value.clone() };
            assert_eq!(spelt(put_len(&key, &value), |out| write_put(&key, &value, out)), put.encode_to_vec());
            for revision in [0, 5, 1 << 40] {
                let mod_revision = Some(revision as i64);
                let compare = Compare { result: 0, target: 2, key: key.clone(), mod_revision };
                let txn = TxnRequest {
                    compare: vec![compare],
                    success: vec![RequestOp { range: None, put: Some(put.clone()) }],
                    failure: vec![RequestOp { range: Some(range.clone()), put: None }],
                };
                let len = cas_len(&key, &value, revision);
                assert_eq!(
                    spelt(len, |out| write_cas(&key, &value, revision, out)),
                    txn.encode_to_vec(),
                    "{revision}"
                );
            }
        }
    }

    #[test]
    fn versions() {
        let status = b"\x0a\x02\x08\x07\x12\x053.5.1\x18\x80\x02";
        assert_eq!(version_of(status).as_deref(), Some("3.5.1"));
        assert_eq!(version_of(b"\x0a\x02\x08\x07"), None);
        assert_eq!(version_of(b"\x12\x05x"), None);
    }
}
