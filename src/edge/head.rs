//! gRPC's headers and trailers: what a request says of itself, and what an answer says of how it went.
//!
//! ```text
//! request    :path /package.Service/Method, content-type application/grpc[+proto],
//!            grpc-timeout 1 to 8 digits and one of H M S m u n, grpc-encoding identity or absent
//! answer     :status 200, content-type application/grpc, grpc-accept-encoding identity
//! trailers   grpc-status, grpc-message (percent-encoded),
//!            distribkv-error-bin (base64 of an Error, no padding)
//! ```
//!
//! Invariants:
//! - Whatever a status says, the header values made of it are valid: visible ASCII.
//! - A failure before the first message is one HEADERS frame (trailers-only).
//!
//! It deliberately ignores `te`, user agents and custom metadata.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use prost::Message as _;

use super::status::{Code, Status};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ERROR_BIN: HeaderName = HeaderName::from_static("distribkv-error-bin");

const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const STATUS_OK: HeaderValue = HeaderValue::from_static("0");

/// The most bytes of a status message that travel; what is longer is cut.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The headers of an answer that goes well so far.
pub(super) fn answer_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(CONTENT_TYPE, APPLICATION_GRPC);
    headers.insert(GRPC_ACCEPT_ENCODING, IDENTITY);
    headers
}

/// The trailers of an answer that went well.
pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, STATUS_OK);
    trailers
}

/// Adds what a failing status says: to trailers, or to headers that are the whole answer.
pub(super) fn add_status(headers: &mut HeaderMap, status: &Status) {
    headers.insert(GRPC_STATUS, HeaderValue::from_static(status.code().as_str()));
    insert_ascii(headers, GRPC_MESSAGE, percent_encode(&status.error().message));
    insert_ascii(headers, ERROR_BIN, base64(&status.error().encode_to_vec()));
    if status.code() == Code::Unimplemented {
        headers.insert(GRPC_ACCEPT_ENCODING, IDENTITY);
    }
}

fn insert_ascii(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// What the edge needs of a request's headers.
pub(super) struct RequestHead {
    /// The time that the client gives, where it gives one.
    pub(super) timeout: Option<Duration>,
}

/// Why a request is not looked at further.
pub(super) enum Refused {
    /// It is not gRPC: an HTTP status says so.
    Http(StatusCode),
    /// It is, and a gRPC status says why.
    Grpc(Status),
}

impl RequestHead {
    /// Checks the headers that every call has.
    pub(super) fn parse(head: &request::Parts) -> Result<Self, Refused> {
        if head.method != Method::POST {
            return Err(Refused::Http(StatusCode::METHOD_NOT_ALLOWED));
        }
        if !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
            return Err(Refused::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        if let Some(encoding) = head.headers.get(GRPC_ENCODING)
            && encoding != IDENTITY
        {
            let text = format!("messages compressed as {encoding:?}: identity alone is understood");
            return Err(Refused::Grpc(Status::unimplemented(text)));
        }
        let timeout = match head.headers.get(GRPC_TIMEOUT) {
            None => None,
            Some(value) => Some(parse_timeout(value.as_bytes()).ok_or_else(|| {
                Refused::Grpc(Status::invalid(format!("grpc-timeout {value:?}: 1 to 8 digits and a unit")))
            })?),
        };
        Ok(Self { timeout })
    }
}

/// `application/grpc`, alone or as `+proto`, with or without parameters.
fn is_grpc(value: &HeaderValue) -> bool {
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return false };
    let rest = rest.strip_prefix(b"+proto").unwrap_or(rest);
    matches!(rest.first(), None | Some(b';' | b' '))
}

/// The time of a `grpc-timeout`: 1 to 8 digits and a unit.
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// A status message as gRPC wants it: visible ASCII as it is but `%`, every other byte as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes().take(MESSAGE_BYTES_MAX) {
        match byte {
            b'%' | 0..=0x1F | 0x7F..=0xFF => write!(encoded, "%{byte:02X}").expect("a String takes any text"),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

/// Base64 without padding, as gRPC's binary headers have it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().enumerate().fold(0, |n, (at, byte)| n | u32::from(*byte) << (16 - 8 * at));
        for at in 0..=group.len() {
            let index = (number >> (18 - 6 * at)) & 0x3F;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::Reason;

    #[test]
    fn timeouts() {
        let good = [
            ("10S", Duration::from_secs(10)),
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ];
        for (text, time) in good {
            assert_eq!(parse_timeout(text.as_bytes()), Some(time), "{text}");
        }
        for text in ["", "S", "10", "123456789S", "-1S", "1.5S", "10s", "10 S", "10SS"] {
            assert_eq!(parse_timeout(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn content_types() {
        for text in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
            assert!(is_grpc(&HeaderValue::from_static(text)), "{text}");
        }
        for text in ["application/json", "application/grpc+json", "application/grpc-web", "text/plain"] {
            assert!(!is_grpc(&HeaderValue::from_static(text)), "{text}");
        }
    }

    #[test]
    fn encodings() {
        assert_eq!(percent_encode("50 % of\n\u{e9}"), "50 %25 of%0A%C3%A9");
        let vectors = [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn any_message_makes_valid_trailers() {
        let text: String = (0..=255_u8).map(char::from).collect::<String>().repeat(20);
        let mut trailers = HeaderMap::new();
        add_status(&mut trailers, &Status::new(Code::Internal, Reason::Unspecified, text));
        assert_eq!(trailers.len(), 3);
        assert!(trailers["grpc-message"].len() <= 3 * MESSAGE_BYTES_MAX);
    }
}
