//! The answers of a Pipeline stream: messages cut from its bytes, each matched by its tag.
//!
//! ```text
//! 00  length (4, big-endian)   08 tag  12 len OperationResult | 1A len Error        PipelineResponse
//!                                             0A len GetResponse | 12 .. | 1A ..
//! ```
//! Invariants: at most one message is kept that is not whole, of at most `MESSAGE_BYTES_MAX` bytes.

use distribkv::wire::v1;
use prost::Message as _;

use crate::http2::Fields;
use crate::protobuf::{Field, PREFIX_BYTES, read_field};
use crate::status::{self, ErrorKind, Failure};

/// The largest answer: a value and what is said about it.
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// A Pipeline that is open.
#[derive(Debug)]
pub struct Pipeline {
    /// Its stream.
    pub stream: u32,
    /// What came of a message that is not whole.
    kept: Vec<u8>,
    /// What the server said of the stream as a whole.
    pub status: Option<Result<(), Failure>>,
}

/// The bytes are no answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Pipeline {
    /// A Pipeline on a stream that was just opened.
    pub fn new(stream: u32) -> Self {
        Self { stream, kept: Vec::new(), status: None }
    }

    /// Takes the head or the trailers of the stream.
    pub fn take_fields(&mut self, fields: &Fields) {
        let refused = fields.http_status.filter(|status| *status != 200);
        let refused = refused.map(|status| Err(Failure::of(ErrorKind::Http(status))));
        self.status = status::of_fields(fields).or(refused).or(self.status);
    }

    /// Takes bytes of the stream. Gives the answers that are whole, by tag: an `OperationResult` still to be
    /// read, or what the operation was refused with.
    pub fn take(
        &mut self,
        data: &[u8],
        sink: &mut impl FnMut(u64, Result<&[u8], Failure>),
    ) -> Result<(), Malformed> {
        if self.kept.is_empty() {
            let taken = take_whole(data, sink)?;
            self.kept.extend_from_slice(&data[taken..]);
        } else {
            self.kept.extend_from_slice(data);
            let taken = take_whole(&self.kept, sink)?;
            self.kept.drain(..taken);
        }
        Ok(())
    }
}

/// Takes the answers that are whole. Gives how many bytes those were.
fn take_whole(bytes: &[u8], sink: &mut impl FnMut(u64, Result<&[u8], Failure>)) -> Result<usize, Malformed> {
    let mut taken = 0;
    while let Some((prefix, rest)) = bytes[taken..].split_first_chunk::<PREFIX_BYTES>() {
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 || len > MESSAGE_BYTES_MAX {
            return Err(Malformed);
        }
        let Some(message) = rest.get(..len) else { break };
        let (tag, outcome) = read(message)?;
        sink(tag, outcome);
        taken += PREFIX_BYTES + len;
    }
    Ok(taken)
}

/// Reads an answer. One that says nothing of its operation is malformed in itself; without a tag it is
/// nobody's, and so nothing after it can be trusted.
fn read(mut message: &[u8]) -> Result<(u64, Result<&[u8], Failure>), Malformed> {
    let (mut tag, mut outcome) = (None, Err(Failure::of(ErrorKind::Malformed)));
    while !message.is_empty() {
        let (field, rest) = read_field(message).ok_or(Malformed)?;
        match field {
            Field::Number(1, number) => tag = Some(number),
            Field::Bytes(2, result) => outcome = Ok(result),
            Field::Bytes(3, error) => {
                let error = v1::Error::decode(error).map_err(|_| Malformed)?;
                outcome = Err(status::of_error(&error));
            }
            Field::Number(..) | Field::Bytes(..) => {}
        }
        message = rest;
    }
    Ok((tag.ok_or(Malformed)?, outcome))
}

#[cfg(test)]
mod tests {
    use distribkv::wire::v1::operation_result::Result as Of;
    use distribkv::wire::v1::pipeline_response::Outcome;

    use super::*;

    fn framed(tag: u64, outcome: Outcome) -> Vec<u8> {
        let body = v1::PipelineResponse { tag, outcome: Some(outcome) }.encode_to_vec();
        [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    fn result(of: Of) -> v1::OperationResult {
        v1::OperationResult { result: Some(of) }
    }

    #[test]
    fn answers_in_pieces_of_any_size() {
        let error =
            v1::Error { code: 14, reason: v1::Reason::NotLeader as i32, leader: 3, ..Default::default() };
        let header = Some(v1::ResponseHeader { cluster_id: u64::MAX, ..Default::default() });
        let found = v1::GetResponse { header, kv: Some(v1::KeyValue::default()) };
        let put = result(Of::Put(v1::PutResponse { header, succeeded: true, ..Default::default() }));
        let bytes = [
            framed(1, Outcome::Result(put.clone())),
            framed(1 << 40, Outcome::Result(result(Of::Get(found.clone())))),
            framed(u64::MAX, Outcome::Error(error.clone())),
        ]
        .concat();
        let want = vec![
            (1, Ok(put.encode_to_vec())),
            (1 << 40, Ok(result(Of::Get(found)).encode_to_vec())),
            (u64::MAX, Err(status::of_error(&error))),
        ];
        for size in [1, 5, 7, bytes.len()] {
            let mut pipeline = Pipeline::new(1);
            let mut answers = Vec::new();
            for piece in bytes.chunks(size) {
                let took = pipeline.take(piece, &mut |tag, outcome| {
                    answers.push((tag, outcome.map(<[u8]>::to_vec)));
                });
                assert_eq!(took, Ok(()));
            }
            assert_eq!(answers, want, "in pieces of {size} bytes");
        }
    }

    #[test]
    fn what_is_no_answer() {
        for bytes in [&b"\x01\0\0\0\0"[..], b"\0\x10\0\0\0", b"\0\0\0\0\x02\x12\x00", b"\0\0\0\0\x02\x08\x80"]
        {
            assert_eq!(Pipeline::new(1).take(bytes, &mut |_, _| {}), Err(Malformed), "{bytes:?}");
        }
        // A tag, but nothing about its operation.
        let mut answers = Vec::new();
        let took = Pipeline::new(1).take(b"\0\0\0\0\x02\x08\x05", &mut |tag, outcome| {
            answers.push((tag, outcome.map(<[u8]>::to_vec)));
        });
        assert_eq!((took, answers), (Ok(()), vec![(5, Err(Failure::of(ErrorKind::Malformed)))]));
    }

    #[test]
    fn how_a_stream_ends() {
        let mut pipeline = Pipeline::new(1);
        pipeline.take_fields(&Fields { http_status: Some(200), ..Fields::default() });
        assert_eq!(pipeline.status, None);
        pipeline.take_fields(&Fields { http_status: Some(503), ..Fields::default() });
        assert_eq!(pipeline.status, Some(Err(Failure::of(ErrorKind::Http(503)))));
    }
}
