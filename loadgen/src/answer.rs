//! The little of an answer that has to be read.
//!
//! Most answers are short, or say what matters at their beginning: of those the first bytes are kept until
//! they are whole. The others are skimmed as they come, see [`Skim`].

use crate::method::Method;
use crate::protobuf::{Field, PREFIX_BYTES, read_field};
use crate::skim::{self, Shape, Skim};

/// Bytes of an answer that are kept: enough for the prefix, a response header and what comes next.
const KEPT_BYTES: usize = 96;

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Done, and there was something: a write was made, a key found or deleted, the server serves.
    Yes,
    /// Done, and there was nothing: no such key, the server does not serve.
    No,
    /// Done: so many rows of a scan.
    Rows(u32),
    /// A comparison held, and the write made this revision.
    Swapped(u64),
    /// A comparison failed: the key has this revision; 0: it does not exist.
    Conflict(u64),
    /// Not what an answer to the method is.
    Malformed,
}

/// What came of an answer so far.
#[derive(Clone, Debug)]
pub struct Answer {
    kept: [u8; KEPT_BYTES],
    len: usize,
    skim: Skim,
}

impl Default for Answer {
    fn default() -> Self {
        Self { kept: [0; KEPT_BYTES], len: 0, skim: Skim::default() }
    }
}

impl Answer {
    /// Forgets what came: the answer to a call of this method is next.
    pub fn clear(&mut self, method: Method) {
        self.len = 0;
        if skimmed(method).is_some() {
            self.skim.clear();
        }
    }

    /// Takes more bytes of the answer.
    pub fn push(&mut self, method: Method, bytes: &[u8]) {
        if let Some(shape) = skimmed(method) {
            return self.skim.push(shape, bytes);
        }
        if self.len < KEPT_BYTES {
            let kept = bytes.len().min(KEPT_BYTES - self.len);
            self.kept[self.len..self.len + kept].copy_from_slice(&bytes[..kept]);
        }
        self.len += bytes.len();
    }

    /// Reads the whole answer.
    pub fn read(&self, method: Method) -> Said {
        if skimmed(method).is_some() {
            return of_found(method, self.skim.found());
        }
        let kept = &self.kept[..self.len.min(KEPT_BYTES)];
        let Some((prefix, message)) = kept.split_first_chunk::<PREFIX_BYTES>() else {
            return Said::Malformed;
        };
        let announced = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 || announced != self.len - PREFIX_BYTES {
            return Said::Malformed;
        }
        of_message(method, message)
    }
}

/// What the result of an operation of a Pipeline says, an `OperationResult`.
pub fn of_result(method: Method, result: &[u8]) -> Said {
    let number = match method {
        Method::Get => 1,
        Method::Put | Method::Cas => 2,
        Method::Append => 3,
        Method::Delete => 4,
        Method::Scan | Method::Check => return Said::Malformed,
        Method::EtcdGet | Method::EtcdPut | Method::EtcdDelete | Method::EtcdCas | Method::EtcdScan => {
            return Said::Malformed;
        }
    };
    let message = match read_field(result) {
        Some((Field::Bytes(found, message), _)) if found == number => message,
        Some(_) | None => return Said::Malformed,
    };
    match skimmed(method) {
        Some(shape) => of_found(method, Skim::of_message(shape, message)),
        None => of_message(method, message),
    }
}

/// How answers are skimmed that are.
fn skimmed(method: Method) -> Option<&'static Shape> {
    match method {
        Method::Cas => Some(&skim::PUT),
        Method::Scan => Some(&skim::SCAN),
        Method::EtcdCas => Some(&skim::ETCD_TXN),
        Method::EtcdScan => Some(&skim::ETCD_RANGE),
        Method::Get | Method::Put | Method::Append | Method::Delete | Method::Check => None,
        Method::EtcdGet | Method::EtcdPut | Method::EtcdDelete => None,
    }
}

/// What was found in an answer that was skimmed.
fn of_found(method: Method, found: Option<skim::Found>) -> Said {
    match (found, method) {
        (Some(found), Method::Scan | Method::EtcdScan) => Said::Rows(found.rows),
        (Some(found), _) if found.messages != 1 => Said::Malformed,
        (Some(found), _) if found.succeeded => Said::Swapped(found.made),
        (Some(found), _) => Said::Conflict(found.there),
        (None, _) => Said::Malformed,
    }
}

/// What a message says that was kept.
fn of_message(method: Method, message: &[u8]) -> Said {
    match method {
        Method::Put | Method::Append | Method::EtcdPut => Said::Yes,
        // `kv` of a `GetResponse`, `kvs` of a `RangeResponse`.
        Method::Get | Method::EtcdGet => holds_bytes(message),
        // `existed` of a `DeleteResponse`, `deleted` of a `DeleteRangeResponse`.
        Method::Delete => holds_number(message, 3),
        Method::EtcdDelete => holds_number(message, 2),
        Method::Check if message == [0x08, 0x01] => Said::Yes,
        Method::Check => Said::No,
        Method::Cas | Method::Scan | Method::EtcdCas | Method::EtcdScan => Said::Malformed,
    }
}

/// Whether a message holds field 2, which is bytes.
fn holds_bytes(mut message: &[u8]) -> Said {
    while !message.is_empty() {
        // What the field holds is not looked at, so it need not be there.
        if message[0] == 0x12 {
            return Said::Yes;
        }
        let Some((_, rest)) = read_field(message) else { return Said::Malformed };
        message = rest;
    }
    Said::No
}

/// Whether a message holds a field with a number that is not 0.
fn holds_number(mut message: &[u8], wanted: u64) -> Said {
    let mut said = Said::No;
    while !message.is_empty() {
        let Some((field, rest)) = read_field(message) else { return Said::Malformed };
        match field {
            Field::Number(number, value) if number == wanted && value != 0 => said = Said::Yes,
            Field::Number(..) | Field::Bytes(..) => {}
        }
        message = rest;
    }
    said
}

#[cfg(test)]
mod tests {
    use distribkv::wire::{health, v1};
    use prost::Message as _;

    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&[0][..], &(body.len() as u32).to_be_bytes(), body].concat()
    }

    fn encoded(message: &impl prost::Message) -> Vec<u8> {
        framed(&message.encode_to_vec())
    }

    fn read(method: Method, bytes: &[u8]) -> Said {
        let mut answer = Answer::default();
        answer.push(method, b"\0\0\0\0\x09what came of another");
        answer.clear(method);
        for part in bytes.chunks(7) {
            answer.push(method, part);
        }
        answer.read(method)
    }

    fn header() -> Option<v1::ResponseHeader> {
        Some(v1::ResponseHeader {
            cluster_id: u64::MAX,
            node_id: u32::MAX,
            shard: u32::MAX,
            revision: u64::MAX,
            term: u64::MAX,
        })
    }

    #[test]
    fn gets_puts_and_checks() {
        let header = header();
        let missing = v1::GetResponse { header, kv: None };
        assert_eq!(read(Method::Get, &encoded(&missing)), Said::No);
        for len in [0, 10, 100_000] {
            let kv = Some(v1::KeyValue { value: vec![1; len].into(), ..Default::default() });
            assert_eq!(
                read(Method::Get, &encoded(&v1::GetResponse { header, kv })),
                Said::Yes,
                "{len} bytes"
            );
        }
        assert_eq!(read(Method::Put, &encoded(&v1::PutResponse::default())), Said::Yes);
        assert_eq!(read(Method::Check, &encoded(&health::HealthCheckResponse { status: 1 })), Said::Yes);
        assert_eq!(read(Method::Check, &encoded(&health::HealthCheckResponse { status: 2 })), Said::No);
    }

    #[test]
    fn deletes_swaps_and_scans() {
        let header = header();
        let delete = |existed| v1::DeleteResponse { header, succeeded: true, existed, previous: None };
        assert_eq!(read(Method::Delete, &encoded(&delete(true))), Said::Yes);
        assert_eq!(read(Method::Delete, &encoded(&delete(false))), Said::No);
        let swapped = v1::PutResponse { header, succeeded: true, ..Default::default() };
        assert_eq!(read(Method::Cas, &encoded(&swapped)), Said::Swapped(u64::MAX));
        let previous =
            Some(v1::KeyValue { value: vec![1; 500].into(), mod_revision: 9, ..Default::default() });
        let conflict = v1::PutResponse { header, previous, ..Default::default() };
        assert_eq!(read(Method::Cas, &encoded(&conflict)), Said::Conflict(9));
        assert_eq!(read(Method::Cas, b""), Said::Malformed);
        let page = v1::ScanResponse { kvs: vec![v1::KeyValue::default(); 3], headers: vec![] };
        assert_eq!(read(Method::Scan, &encoded(&page).repeat(2)), Said::Rows(6));
        assert_eq!(read(Method::Scan, b""), Said::Rows(0));
    }

    #[test]
    fn what_etcd_answers() {
        let header = b"\x0a\x06\x08\x01\x10\x02\x18\x4d";
        let kv = b"\x0a\x01k\x10\x05\x18\xac\x02\x20\x02\x2a\x03abc";
        let (len, range_len) = (kv.len() as u8, kv.len() as u8 + 2);
        let range = [&header[..], &[0x12, len], kv, b"\x20\x01"].concat();
        assert_eq!(read(Method::EtcdGet, &framed(&range)), Said::Yes);
        assert_eq!(read(Method::EtcdGet, &framed(header)), Said::No);
        assert_eq!(read(Method::EtcdScan, &framed(&[&range[..], &[0x12, len], kv].concat())), Said::Rows(2));
        assert_eq!(read(Method::EtcdPut, &framed(header)), Said::Yes);
        assert_eq!(read(Method::EtcdDelete, &framed(&[&header[..], b"\x10\x01"].concat())), Said::Yes);
        assert_eq!(read(Method::EtcdDelete, &framed(header)), Said::No);
        let swapped = [&header[..], b"\x10\x01\x1a\x02\x12\x00"].concat();
        assert_eq!(read(Method::EtcdCas, &framed(&swapped)), Said::Swapped(77));
        let conflict = [&header[..], &[0x1a, range_len + 2, 0x0a, range_len, 0x12, len], kv].concat();
        assert_eq!(read(Method::EtcdCas, &framed(&conflict)), Said::Conflict(300));
        let missing = [&header[..], b"\x1a\x02\x0a\x00"].concat();
        assert_eq!(read(Method::EtcdCas, &framed(&missing)), Said::Conflict(0));
    }

    #[test]
    fn results_of_a_pipeline() {
        use v1::operation_result::Result as Of;
        let result = |of| v1::OperationResult { result: Some(of) }.encode_to_vec();
        let put =
            result(Of::Put(v1::PutResponse { header: header(), succeeded: true, ..Default::default() }));
        assert_eq!(of_result(Method::Put, &put), Said::Yes);
        assert_eq!(of_result(Method::Cas, &put), Said::Swapped(u64::MAX));
        // An answer to something else.
        assert_eq!(of_result(Method::Get, &put), Said::Malformed);
        let conflict = result(Of::Put(v1::PutResponse { header: header(), ..Default::default() }));
        assert_eq!(of_result(Method::Cas, &conflict), Said::Conflict(0));
        let gone = result(Of::Delete(v1::DeleteResponse { existed: false, ..Default::default() }));
        assert_eq!(of_result(Method::Delete, &gone), Said::No);
        assert_eq!(of_result(Method::Put, b""), Said::Malformed);
    }

    #[test]
    fn malformed_answers() {
        assert_eq!(read(Method::Put, b""), Said::Malformed);
        assert_eq!(read(Method::Put, b"\0\0\0\0\x02a"), Said::Malformed);
        assert_eq!(read(Method::Put, b"\x01\0\0\0\0"), Said::Malformed);
        assert_eq!(read(Method::Get, b"\0\0\0\0\x02\x0a\x09"), Said::Malformed);
        assert_eq!(read(Method::Get, b"\0\0\0\0\x02\x09\x01"), Said::Malformed);
        assert_eq!(read(Method::Delete, b"\0\0\0\0\x02\x0a\x09"), Said::Malformed);
    }
}
