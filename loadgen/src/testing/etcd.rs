//! etcd's part of the server for the tests: as much of its API as the load generator asks for, with its
//! messages as etcd's public `rpc.proto` and `kv.proto` number them.

use bytes::Bytes;
use distribkv::wire::v1;
use prost::Message;

use crate::testing::server::{Inner, Reply};

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
    #[prost(int64, tag = "3")]
    limit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(int64, tag = "2")]
    create_revision: i64,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Also a `DeleteRangeResponse`, whose second field is the number of keys that were deleted.
#[derive(Clone, PartialEq, Message)]
struct ChangeResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(int64, tag = "2")]
    deleted: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Compare {
    #[prost(int32, tag = "1")]
    result: i32,
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    key: Bytes,
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

#[derive(Clone, PartialEq, Message)]
struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    range: Option<RangeResponse>,
    #[prost(message, optional, tag = "2")]
    put: Option<ChangeResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(bool, tag = "2")]
    succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    responses: Vec<ResponseOp>,
}

/// Answers a call.
pub fn store(path: &str, message: Bytes, inner: &mut Inner) -> Reply {
    let malformed = |_| (3, v1::Reason::Unspecified);
    match path {
        "/etcdserverpb.KV/Range" => {
            let request = RangeRequest::decode(message).map_err(malformed)?;
            Ok(range(request, inner).encode_to_vec())
        }
        "/etcdserverpb.KV/Put" => {
            let PutRequest { key, value } = PutRequest::decode(message).map_err(malformed)?;
            inner.put(key, value);
            Ok(ChangeResponse { header: header(inner), deleted: 0 }.encode_to_vec())
        }
        "/etcdserverpb.KV/DeleteRange" => {
            let request = RangeRequest::decode(message).map_err(malformed)?;
            let deleted = i64::from(inner.delete(&request.key));
            Ok(ChangeResponse { header: header(inner), deleted }.encode_to_vec())
        }
        "/etcdserverpb.KV/Txn" => {
            let request = TxnRequest::decode(message).map_err(malformed)?;
            Ok(txn(request, inner).encode_to_vec())
        }
        _ => Err((12, v1::Reason::Unspecified)),
    }
}

fn header(inner: &Inner) -> Option<Header> {
    Some(Header { revision: inner.revision as i64 })
}

fn range(request: RangeRequest, inner: &Inner) -> RangeResponse {
    let (one, limit) = (request.range_end.is_empty(), request.limit as usize);
    let within = inner.keys.range(request.key.clone()..);
    let found = within.filter(|(key, _)| !one || **key == request.key);
    let kvs: Vec<KeyValue> = found
        .take(if one { 1 } else { limit })
        .map(|(key, held)| KeyValue {
            key: key.clone(),
            create_revision: held.created as i64,
            mod_revision: held.revision as i64,
            version: held.version as i64,
            value: held.value.clone(),
        })
        .collect();
    RangeResponse { header: header(inner), count: kvs.len() as i64, kvs }
}

/// Comparisons are of revisions for equality, and nothing else.
fn txn(request: TxnRequest, inner: &mut Inner) -> TxnResponse {
    let holds = |compare: &Compare| {
        assert_eq!((compare.result, compare.target), (0, 2), "{compare:?}");
        let there = inner.keys.get(&compare.key).map_or(0, |held| held.revision as i64);
        compare.mod_revision == Some(there)
    };
    let succeeded = request.compare.iter().all(holds);
    let branch = if succeeded { request.success } else { request.failure };
    let mut responses = Vec::new();
    for operation in branch {
        if let Some(PutRequest { key, value }) = operation.put {
            inner.put(key, value);
            let put = Some(ChangeResponse { header: header(inner), deleted: 0 });
            responses.push(ResponseOp { put, range: None });
        }
        if let Some(request) = operation.range {
            responses.push(ResponseOp { put: None, range: Some(range(request, inner)) });
        }
    }
    TxnResponse { header: header(inner), succeeded, responses }
}
