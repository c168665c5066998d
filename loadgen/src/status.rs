//! How a call failed, by kind: what is counted, and what it says about where to send the next one.

use std::fmt;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use distribkv::wire::v1;
use http::HeaderMap;
use prost::Message as _;

use crate::http2::Fields;

/// Base64 as gRPC has it in `-bin` headers: with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// gRPC's UNAVAILABLE.
const UNAVAILABLE: u16 = 14;
/// gRPC's DEADLINE_EXCEEDED.
const DEADLINE_EXCEEDED: u16 = 4;
/// The names of gRPC's codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// A gRPC status, and distribKV's reason where it gave one (0: none).
    Status {
        /// The status code.
        code: u16,
        /// A `distribkv.v1.Reason`.
        reason: i32,
    },
    /// An HTTP status that is not 200.
    Http(u16),
    /// The server reset the stream, with this HTTP/2 error code.
    Reset(u32),
    /// The connection was lost, or closed by the server.
    ConnectionLost,
    /// No connection could take the call before its time was over: it was never sent.
    NoConnection,
    /// No answer in time, not even the server's own.
    Timeout,
    /// The answer was not one whole message and a status.
    Malformed,
    /// The server said that it does not serve.
    NotServing,
    /// Still outstanding when the run was interrupted.
    Unanswered,
    /// The open loop could not send it before its time was over: it was never sent.
    Dropped,
    /// A key of a load that could not be written in the time that it is given.
    Unwritten,
}

impl ErrorKind {
    /// Whether the call's time was over: at the server, here, or before it could be sent.
    pub fn is_timeout(self) -> bool {
        match self {
            Self::Status { code, .. } => code == DEADLINE_EXCEEDED,
            Self::Timeout | Self::NoConnection | Self::Dropped => true,
            Self::Http(_) | Self::Reset(_) | Self::ConnectionLost | Self::Malformed | Self::NotServing => {
                false
            }
            Self::Unanswered | Self::Unwritten => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { code, reason } => {
                match CODES.get(usize::from(*code)) {
                    Some(name) => f.write_str(name)?,
                    None => write!(f, "status {code}")?,
                }
                match v1::Reason::try_from(*reason) {
                    Ok(v1::Reason::Unspecified) => Ok(()),
                    Ok(reason) => write!(f, " ({})", reason.as_str_name().trim_start_matches("REASON_")),
                    Err(_) => write!(f, " (reason {reason})"),
                }
            }
            Self::Http(status) => write!(f, "HTTP {status}"),
            Self::Reset(code) => write!(f, "stream reset: {}", h2::Reason::from(*code)),
            Self::ConnectionLost => f.write_str("connection lost"),
            Self::NoConnection => f.write_str("no connection (never sent)"),
            Self::Timeout => f.write_str("timeout"),
            Self::Malformed => f.write_str("malformed answer"),
            Self::NotServing => f.write_str("not serving"),
            Self::Unanswered => f.write_str("unanswered when interrupted"),
            Self::Dropped => f.write_str("dropped (never sent)"),
            Self::Unwritten => f.write_str("key left unwritten"),
        }
    }
}

/// A failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How it failed.
    pub kind: ErrorKind,
    /// The node to ask instead; 0: not said.
    pub leader: u32,
}

impl Failure {
    /// A failure that names no other node.
    pub fn of(kind: ErrorKind) -> Self {
        Self { kind, leader: 0 }
    }

    /// Whether it hints that calls are sent to the wrong place.
    pub fn asks_for_routing(&self) -> bool {
        match self.kind {
            ErrorKind::Status { code, reason } => {
                code == UNAVAILABLE || reason == v1::Reason::NotLeader as i32 || self.leader != 0
            }
            ErrorKind::Reset(_)
            | ErrorKind::ConnectionLost
            | ErrorKind::NoConnection
            | ErrorKind::Timeout => true,
            ErrorKind::Http(_) | ErrorKind::Malformed | ErrorKind::NotServing => false,
            ErrorKind::Unanswered | ErrorKind::Dropped | ErrorKind::Unwritten => false,
        }
    }
}

/// The status that fields of an answer carry, where they carry one.
pub fn of_fields(fields: &Fields) -> Option<Result<(), Failure>> {
    match fields.grpc_status? {
        0 => Some(Ok(())),
        code => Some(Err(with_detail(code, fields.detail.as_deref()))),
    }
}

/// What an operation of a Pipeline was refused with.
pub fn of_error(error: &v1::Error) -> Failure {
    let code = u16::try_from(error.code).unwrap_or(u16::MAX);
    Failure { kind: ErrorKind::Status { code, reason: error.reason }, leader: error.leader }
}

/// A status, and its detail as it was sent. A detail that cannot be read is none.
fn with_detail(code: u16, detail: Option<&[u8]>) -> Failure {
    let detail = detail
        .and_then(|encoded| BASE64.decode(encoded).ok())
        .and_then(|bytes| v1::Error::decode(bytes.as_slice()).ok())
        .unwrap_or_default();
    Failure { kind: ErrorKind::Status { code, reason: detail.reason }, leader: detail.leader }
}

/// The status that trailers (or the headers of an answer without a body) carry.
pub fn of_trailers(trailers: &HeaderMap) -> Result<(), Failure> {
    let Some(status) = trailers.get("grpc-status") else {
        return Err(Failure::of(ErrorKind::Malformed));
    };
    if status.as_bytes() == b"0" {
        return Ok(());
    }
    let Some(code) = status.to_str().ok().and_then(|text| text.parse().ok()) else {
        return Err(Failure::of(ErrorKind::Malformed));
    };
    Err(with_detail(code, trailers.get("distribkv-error-bin").map(|encoded| encoded.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (http::HeaderName::from_static(k), v.parse().expect("a header value")))
            .collect()
    }

    #[test]
    fn statuses() {
        assert_eq!(of_trailers(&trailers(&[("grpc-status", "0".into())])), Ok(()));
        assert_eq!(of_trailers(&HeaderMap::new()), Err(Failure::of(ErrorKind::Malformed)));
        assert_eq!(
            of_trailers(&trailers(&[("grpc-status", "x".into())])),
            Err(Failure::of(ErrorKind::Malformed))
        );
        let failure = of_trailers(&trailers(&[("grpc-status", "8".into())])).expect_err("not OK");
        assert_eq!(failure.kind.to_string(), "RESOURCE_EXHAUSTED");
        assert!(!failure.asks_for_routing());
    }

    #[test]
    fn details_with_and_without_padding() {
        let error = v1::Error { reason: v1::Reason::NotLeader as i32, leader: 3, ..Default::default() };
        let encoded = BASE64.encode(error.encode_to_vec());
        for text in [encoded.clone(), encoded.trim_end_matches('=').to_owned()] {
            let failure =
                of_trailers(&trailers(&[("grpc-status", "14".into()), ("distribkv-error-bin", text)]))
                    .expect_err("not OK");
            assert_eq!(failure.leader, 3);
            assert_eq!(failure.kind.to_string(), "UNAVAILABLE (NOT_LEADER)");
            assert!(failure.asks_for_routing());
        }
    }

    #[test]
    fn fields_and_trailers_say_the_same() {
        assert_eq!(of_fields(&Fields::default()), None);
        assert_eq!(of_fields(&Fields { grpc_status: Some(0), ..Fields::default() }), Some(Ok(())));
        let error = v1::Error { reason: v1::Reason::NoLeader as i32, leader: 2, ..Default::default() };
        let detail = BASE64.encode(error.encode_to_vec());
        let fields =
            Fields { grpc_status: Some(14), detail: Some(detail.as_bytes().into()), ..Fields::default() };
        let pairs = [("grpc-status", "14".into()), ("distribkv-error-bin", detail)];
        assert_eq!(of_fields(&fields), Some(of_trailers(&trailers(&pairs))));
        let piped = of_error(&v1::Error { code: 14, ..error });
        assert_eq!(of_fields(&fields), Some(Err(piped)));
    }

    #[test]
    fn timeouts() {
        let status = |code| ErrorKind::Status { code, reason: 0 };
        let late = [status(4), ErrorKind::Timeout, ErrorKind::NoConnection, ErrorKind::Dropped];
        assert!(late.iter().all(|kind| kind.is_timeout()));
        let others = [status(14), ErrorKind::Http(503), ErrorKind::ConnectionLost, ErrorKind::Unwritten];
        assert!(!others.iter().any(|kind| kind.is_timeout()));
    }

    #[test]
    fn strange_numbers_are_still_told() {
        let kind = ErrorKind::Status { code: 99, reason: 77 };
        assert_eq!(kind.to_string(), "status 99 (reason 77)");
    }
}
