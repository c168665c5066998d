//! Reads whole answers of operations that are recorded: what they say of a key, and what a failure says.
//!
//! An answer that cannot be read says nothing. etcd's numbers are drawn in [`etcd`](crate::etcd).

use distribkv::wire::v1;
use prost::Message as _;

use crate::audit::event::{Place, Seen, Tail, Told};
use crate::audit::mark;
use crate::method::Method;
use crate::protobuf::{Field, read_field};
use crate::status::{ErrorKind, Failure};

/// gRPC's codes with which distribKV says, in an error of its own, that a sending was not executed:
/// INVALID_ARGUMENT, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNAVAILABLE.
const NOT_DONE: [u16; 4] = [3, 8, 9, 14];

/// Whether a failure says that the operation was not executed and never will be. etcd never says so.
pub fn is_not_done(method: Method, failure: Failure) -> bool {
    match failure.kind {
        ErrorKind::NoConnection | ErrorKind::Dropped => true,
        ErrorKind::Status { code, reason } => reason != 0 && NOT_DONE.contains(&code) && !is_etcd(method),
        ErrorKind::Http(_)
        | ErrorKind::Reset(_)
        | ErrorKind::ConnectionLost
        | ErrorKind::Timeout
        | ErrorKind::Malformed
        | ErrorKind::NotServing
        | ErrorKind::Unanswered
        | ErrorKind::Unwritten => false,
    }
}

fn is_etcd(method: Method) -> bool {
    match method {
        Method::EtcdGet | Method::EtcdPut | Method::EtcdDelete | Method::EtcdCas | Method::EtcdScan => true,
        Method::Get | Method::Put | Method::Append | Method::Delete | Method::Cas => false,
        Method::Scan | Method::Check => false,
    }
}

/// What an answer tells.
pub fn told(salt: u64, method: Method, message: &[u8]) -> Told {
    let told = match method {
        Method::Get => get(salt, message),
        Method::Put | Method::Cas => put(salt, message),
        Method::Append => append(message),
        Method::Delete => delete(message),
        Method::EtcdGet => Etcd::read(salt, message).map(Etcd::of_range),
        Method::EtcdPut => Etcd::read(salt, message).map(Etcd::of_put),
        Method::EtcdDelete => Etcd::read(salt, message).map(Etcd::of_delete),
        Method::EtcdCas => etcd_cas(salt, message),
        Method::Scan | Method::EtcdScan | Method::Check => None,
    };
    told.unwrap_or(Told::Unknown)
}

fn place(header: Option<v1::ResponseHeader>) -> Option<Place> {
    header.map(|header| Place { shard: header.shard, revision: header.revision })
}

fn get(salt: u64, message: &[u8]) -> Option<Told> {
    let response = v1::GetResponse::decode(message).ok()?;
    let value = response.kv.map(|kv| seen(salt, &kv));
    Some(Told::Saw { at: place(response.header)?, value })
}

fn put(salt: u64, message: &[u8]) -> Option<Told> {
    let response = v1::PutResponse::decode(message).ok()?;
    let at = place(response.header)?;
    if response.succeeded {
        return Some(Told::Wrote { at, version: response.version, length: 0 });
    }
    Some(Told::Saw { at, value: response.previous.map(|kv| seen(salt, &kv)) })
}

fn append(message: &[u8]) -> Option<Told> {
    let response = v1::AppendResponse::decode(message).ok()?;
    let (version, length) = (response.version, response.length);
    response.succeeded.then_some(())?;
    Some(Told::Wrote { at: place(response.header)?, version, length })
}

fn delete(message: &[u8]) -> Option<Told> {
    let response = v1::DeleteResponse::decode(message).ok()?;
    let at = place(response.header)?;
    Some(if response.existed { Told::Removed { at } } else { Told::Saw { at, value: None } })
}

fn seen(salt: u64, kv: &v1::KeyValue) -> Seen {
    let of_value = value(salt, &kv.value);
    Seen { made: kv.mod_revision, created: kv.create_revision, version: kv.version, ..of_value }
}

/// What is kept of a value.
fn value(salt: u64, value: &[u8]) -> Seen {
    let tail = |(mark, at): (u64, usize)| Tail { mark, at: at as u32, crc: crc32fast::hash(&value[at..]) };
    let last = mark::last(salt, value).map(tail);
    Seen { length: value.len() as u32, crc: crc32fast::hash(value), last, ..Seen::default() }
}

/// What an answer of etcd's holds.
#[derive(Default)]
struct Etcd {
    at: Option<Place>,
    /// `kvs` of a range.
    value: Option<Seen>,
    /// A field of the answer itself that is a number: `deleted`, `succeeded`.
    number: u64,
}

impl Etcd {
    /// Reads a RangeResponse, a PutResponse or a DeleteRangeResponse; of a TxnResponse the beginning.
    fn read(salt: u64, mut message: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        while !message.is_empty() {
            let (field, rest) = read_field(message)?;
            match field {
                Field::Bytes(1, header) => {
                    found.at = Some(Place { shard: 0, revision: number_in(header, 3)? });
                }
                Field::Bytes(2, kv) => found.value = Some(etcd_seen(salt, kv)?),
                Field::Number(2, number) => found.number = number,
                Field::Bytes(..) | Field::Number(..) => {}
            }
            message = rest;
        }
        found.at.is_some().then_some(found)
    }

    fn place(&self) -> Place {
        self.at.expect("what has no header is not given out")
    }

    fn of_range(self) -> Told {
        Told::Saw { at: self.place(), value: self.value }
    }

    fn of_put(self) -> Told {
        Told::Wrote { at: self.place(), version: 0, length: 0 }
    }

    fn of_delete(self) -> Told {
        let at = self.place();
        if self.number == 0 { Told::Saw { at, value: None } } else { Told::Removed { at } }
    }
}

/// A TxnResponse: of a put, or of the range of a key that was not as expected.
fn etcd_cas(salt: u64, message: &[u8]) -> Option<Told> {
    let told = Etcd::read(salt, message)?;
    let at = told.place();
    if told.number != 0 {
        return Some(told.of_put());
    }
    let range = bytes_in(bytes_in(message, 3)?, 1)?;
    let value = match bytes_in(range, 2) {
        Some(kv) => Some(etcd_seen(salt, kv)?),
        None => None,
    };
    Some(Told::Saw { at, value })
}

/// A KeyValue of etcd's.
fn etcd_seen(salt: u64, kv: &[u8]) -> Option<Seen> {
    let of_value = value(salt, bytes_in(kv, 5).unwrap_or_default());
    let (made, created, version) = (number_in(kv, 3)?, number_in(kv, 2)?, number_in(kv, 4)?);
    Some(Seen { made, created, version, ..of_value })
}

/// A field of a message that is a number; 0 where it is not there, `None` where the message is none.
fn number_in(mut message: &[u8], wanted: u64) -> Option<u64> {
    let mut found = 0;
    while !message.is_empty() {
        let (field, rest) = read_field(message)?;
        if let Field::Number(number, value) = field
            && number == wanted
        {
            found = value;
        }
        message = rest;
    }
    Some(found)
}

/// A field of a message that is bytes.
pub fn bytes_in(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let (field, rest) = read_field(message)?;
        if let Field::Bytes(number, bytes) = field
            && number == wanted
        {
            return Some(bytes);
        }
        message = rest;
    }
    None
}

/// The value in the answer to a read.
pub fn value_in(method: Method, message: &[u8]) -> Option<&[u8]> {
    let value_field = if is_etcd(method) { 5 } else { 2 };
    bytes_in(bytes_in(message, 2)?, value_field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x0102_0304_0506_0708;

    fn header() -> Option<v1::ResponseHeader> {
        Some(v1::ResponseHeader { shard: 3, revision: 9, ..Default::default() })
    }

    fn at(shard: u32, revision: u64) -> Place {
        Place { shard, revision }
    }

    #[test]
    fn what_distribkv_answers() {
        let mut bytes = b"old".to_vec();
        mark::spell(SALT, 77, &mut bytes);
        let kv = v1::KeyValue {
            value: bytes.clone().into(),
            create_revision: 5,
            mod_revision: 8,
            version: 2,
            ..Default::default()
        };
        let last = Some(Tail { mark: 77, at: 3, crc: crc32fast::hash(&bytes[3..]) });
        let crc = crc32fast::hash(&bytes);
        let value = Some(Seen { made: 8, created: 5, version: 2, length: 19, crc, last });
        let told = |method, message: Vec<u8>| told(SALT, method, &message);
        let found = v1::GetResponse { header: header(), kv: Some(kv.clone()) }.encode_to_vec();
        assert_eq!(value_in(Method::Get, &found), Some(&bytes[..]));
        assert_eq!(told(Method::Get, found), Told::Saw { at: at(3, 9), value });
        let missing = v1::GetResponse { header: header(), kv: None };
        assert_eq!(told(Method::Get, missing.encode_to_vec()), Told::Saw { at: at(3, 9), value: None });
        let put = v1::PutResponse { header: header(), succeeded: true, previous: None, version: 4 };
        let wrote = Told::Wrote { at: at(3, 9), version: 4, length: 0 };
        assert_eq!(told(Method::Put, put.encode_to_vec()), wrote);
        let conflict = v1::PutResponse { header: header(), previous: Some(kv), ..Default::default() };
        assert_eq!(told(Method::Cas, conflict.encode_to_vec()), Told::Saw { at: at(3, 9), value });
        let append = v1::AppendResponse { header: header(), succeeded: true, length: 70, version: 5 };
        let wrote = Told::Wrote { at: at(3, 9), version: 5, length: 70 };
        assert_eq!(told(Method::Append, append.encode_to_vec()), wrote);
        let delete =
            |existed| v1::DeleteResponse { header: header(), succeeded: true, existed, previous: None };
        assert_eq!(told(Method::Delete, delete(true).encode_to_vec()), Told::Removed { at: at(3, 9) });
        let nothing = Told::Saw { at: at(3, 9), value: None };
        assert_eq!(told(Method::Delete, delete(false).encode_to_vec()), nothing);
        assert_eq!(told(Method::Get, b"\xff".to_vec()), Told::Unknown);
        assert_eq!(told(Method::Put, vec![]), Told::Unknown);
    }

    #[test]
    fn what_etcd_answers() {
        let header = b"\x0a\x04\x08\x01\x18\x4d";
        let kv = b"\x0a\x01k\x10\x05\x18\xac\x02\x20\x02\x2a\x03abc";
        let len = kv.len() as u8;
        let range = [&header[..], &[0x12, len], kv, b"\x20\x01"].concat();
        let crc = crc32fast::hash(b"abc");
        let value = Some(Seen { made: 300, created: 5, version: 2, length: 3, crc, last: None });
        let told = |method, message: &[u8]| told(SALT, method, message);
        assert_eq!(told(Method::EtcdGet, &range), Told::Saw { at: at(0, 77), value });
        assert_eq!(value_in(Method::EtcdGet, &range), Some(&b"abc"[..]));
        assert_eq!(told(Method::EtcdGet, header), Told::Saw { at: at(0, 77), value: None });
        assert_eq!(told(Method::EtcdPut, header), Told::Wrote { at: at(0, 77), version: 0, length: 0 });
        let deleted = [&header[..], b"\x10\x01"].concat();
        assert_eq!(told(Method::EtcdDelete, &deleted), Told::Removed { at: at(0, 77) });
        assert_eq!(told(Method::EtcdDelete, header), Told::Saw { at: at(0, 77), value: None });
        let swapped = [&header[..], b"\x10\x01\x1a\x02\x12\x00"].concat();
        assert_eq!(told(Method::EtcdCas, &swapped), Told::Wrote { at: at(0, 77), version: 0, length: 0 });
        let conflict = [&header[..], &[0x1a, len + 4, 0x0a, len + 2, 0x12, len], kv].concat();
        assert_eq!(told(Method::EtcdCas, &conflict), Told::Saw { at: at(0, 77), value });
        let missing = [&header[..], b"\x1a\x02\x0a\x00"].concat();
        assert_eq!(told(Method::EtcdCas, &missing), Told::Saw { at: at(0, 77), value: None });
        assert_eq!(told(Method::EtcdPut, b""), Told::Unknown);
    }

    #[test]
    fn only_an_error_of_its_own_says_that_nothing_was_done() {
        let status = |code, reason| Failure::of(ErrorKind::Status { code, reason });
        assert!(is_not_done(Method::Put, status(14, v1::Reason::NoLeader as i32)));
        assert!(is_not_done(Method::Append, status(9, v1::Reason::Limit as i32)));
        assert!(!is_not_done(Method::Put, status(14, 0)));
        assert!(!is_not_done(Method::Put, status(2, v1::Reason::OutcomeUnknown as i32)));
        assert!(!is_not_done(Method::EtcdPut, status(14, 1)));
        assert!(is_not_done(Method::EtcdPut, Failure::of(ErrorKind::NoConnection)));
        assert!(!is_not_done(Method::Put, Failure::of(ErrorKind::Timeout)));
    }
}
