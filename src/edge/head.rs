//! gRPC's headers and trailers: what a request says of itself, and what an answer says of how it went.
//!
//! ```text
//! request    :path /package.Service/Method, content-type application/grpc[+proto],
//!            grpc-timeout 1 to 8 digits and one of H M S m u n, grpc-encoding identity or absent
//! answer     :status 200, content-type application/grpc, grpc-accept-encoding identity (see `http2`)
//! trailers   grpc-status, grpc-message (percent-encoded),
//!            distribkv-error-bin (base64 of an Error, no padding)
//! ```
//!
//! Invariants:
//! - Whatever a status says, the values made of it are valid: visible ASCII.
//! - A failure before the first message is one HEADERS frame (trailers-only).
//!
//! It deliberately ignores `te`, user agents and custom metadata.

use std::fmt::Write as _;
use std::time::Duration;

use prost::Message as _;

use super::http2::{Field, RequestFields};
use super::status::Status;

const METHOD_NOT_ALLOWED: u16 = 405;
const UNSUPPORTED_MEDIA_TYPE: u16 = 415;

/// What a failing status says: in trailers, or in a head that is the whole answer.
pub(super) fn status_fields(status: &Status) -> [Field; 3] {
    [
        Field { name: "grpc-status", value: status.code().as_str().to_owned() },
        Field { name: "grpc-message", value: percent_encode(&status.error().message) },
        Field { name: "distribkv-error-bin", value: base64(&status.error().encode_to_vec()) },
    ]
}

/// Why a request is not looked at further.
pub(super) enum Refused {
    /// It is not gRPC: an HTTP status says so.
    Http(u16),
    /// It is, and a gRPC status says why.
    Grpc(Status),
}

/// Checks the fields that every call has; the time that the client gives, where it gives one.
pub(super) fn check(fields: &RequestFields) -> Result<Option<Duration>, Refused> {
    if fields.is_post != Some(true) {
        return Err(Refused::Http(METHOD_NOT_ALLOWED));
    }
    if fields.is_grpc != Some(true) {
        return Err(Refused::Http(UNSUPPORTED_MEDIA_TYPE));
    }
    if let Some(encoding) = &fields.encoding {
        let text = format!("messages compressed as {encoding:?}: identity alone is understood");
        return Err(Refused::Grpc(Status::unimplemented(text)));
    }
    match &fields.timeout {
        None => Ok(None),
        Some(Ok(timeout)) => Ok(Some(*timeout)),
        Some(Err(text)) => {
            let text = format!("grpc-timeout {text:?}: 1 to 8 digits and a unit");
            Err(Refused::Grpc(Status::invalid(text)))
        }
    }
}

/// `application/grpc`, alone or as `+proto`, with or without parameters.
pub(super) fn is_grpc(value: &[u8]) -> bool {
    let Some(rest) = value.strip_prefix(b"application/grpc") else { return false };
    let rest = rest.strip_prefix(b"+proto").unwrap_or(rest);
    matches!(rest.first(), None | Some(b';' | b' '))
}

/// The time of a `grpc-timeout`: 1 to 8 digits and a unit.
pub(super) fn parse_timeout(text: &[u8]) -> Option<Duration> {
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
    for byte in text.bytes() {
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
    use crate::edge::status::{Code, MESSAGE_BYTES_MAX};
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
            assert!(is_grpc(text.as_bytes()), "{text}");
        }
        for text in ["application/json", "application/grpc+json", "application/grpc-web", "text/plain"] {
            assert!(!is_grpc(text.as_bytes()), "{text}");
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
    fn any_message_makes_valid_fields() {
        let text: String = (0..=255_u8).map(char::from).collect::<String>().repeat(20);
        let fields = status_fields(&Status::new(Code::Internal, Reason::Unspecified, text));
        assert!(fields.iter().all(|field| field.value.bytes().all(|byte| (b' '..0x7f).contains(&byte))));
        assert!(fields[1].value.len() <= 3 * MESSAGE_BYTES_MAX);
        assert!(fields[2].value.len() <= 2 * MESSAGE_BYTES_MAX);
    }
}
