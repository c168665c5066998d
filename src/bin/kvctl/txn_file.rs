//! The file of a transaction: JSON, described in the help of `kvctl txn`.
//!
//! Invariants: a field that the format does not know is refused, never skipped, since a condition with a
//! misspelt name would otherwise hold.

use std::fmt;

use bytes::Bytes;
use distribkv::wire::v1;
use distribkv::wire::v1::condition::{Comparison, Target};
use distribkv::wire::v1::operation::Operation;
use serde::Deserialize;

use crate::base64;

/// Why a file is not a transaction.
#[derive(Debug)]
pub enum TxnFault {
    /// It is not JSON of this form.
    Json(serde_json::Error),
    /// One of several fields has to be there, and one alone.
    OneOf(&'static str),
    /// The text of this field is not base64.
    Base64(&'static str),
}

impl fmt::Display for TxnFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "not a transaction: {error}"),
            Self::OneOf(fields) => write!(f, "exactly one of {fields} is needed"),
            Self::Base64(field) => write!(f, "{field} is not base64"),
        }
    }
}

impl std::error::Error for TxnFault {}

/// The whole file. Absent branches do nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    conditions: Vec<ConditionText>,
    #[serde(default)]
    then: Vec<OperationText>,
    #[serde(default)]
    otherwise: Vec<OperationText>,
}

/// A condition: of its targets exactly one is there, which is checked after reading.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionText {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default)]
    comparison: ComparisonText,
    version: Option<u64>,
    create_revision: Option<u64>,
    mod_revision: Option<u64>,
    value: Option<String>,
    value_base64: Option<String>,
}

/// How the key is compared with the target.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ComparisonText {
    #[default]
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// An operation, by the name of its only field.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OperationText {
    Get(KeyText),
    Put(WriteText),
    Append(AppendText),
    Delete(DeleteText),
}

/// What a get needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    key: Option<String>,
    key_base64: Option<String>,
}

/// What a put needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteText {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    return_previous: bool,
}

/// What an append needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendText {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

/// What a delete needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteText {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default)]
    return_previous: bool,
}

/// Reads a transaction.
pub fn parse(text: &[u8]) -> Result<v1::TxnRequest, TxnFault> {
    let file: File = serde_json::from_slice(text).map_err(TxnFault::Json)?;
    Ok(v1::TxnRequest {
        id: None,
        conditions: file.conditions.into_iter().map(condition).collect::<Result<_, _>>()?,
        then: file.then.into_iter().map(operation).collect::<Result<_, _>>()?,
        otherwise: file.otherwise.into_iter().map(operation).collect::<Result<_, _>>()?,
    })
}

/// A condition as the contract has it.
fn condition(text: ConditionText) -> Result<v1::Condition, TxnFault> {
    let comparison = match text.comparison {
        ComparisonText::Equal => Comparison::Equal,
        ComparisonText::NotEqual => Comparison::NotEqual,
        ComparisonText::Less => Comparison::Less,
        ComparisonText::Greater => Comparison::Greater,
    };
    let has_value = text.value.is_some() || text.value_base64.is_some();
    let value = if has_value { Some(value(text.value, text.value_base64)?) } else { None };
    let mut targets = [
        text.version.map(Target::Version),
        text.create_revision.map(Target::CreateRevision),
        text.mod_revision.map(Target::ModRevision),
        value.map(Target::Value),
    ]
    .into_iter()
    .flatten();
    let (Some(target), None) = (targets.next(), targets.next()) else {
        return Err(TxnFault::OneOf("version, create_revision, mod_revision and value in a condition"));
    };
    let key = key(text.key, text.key_base64)?;
    Ok(v1::Condition { key, comparison: comparison.into(), target: Some(target) })
}

/// An operation as the contract has it: without id and condition of its own.
fn operation(text: OperationText) -> Result<v1::Operation, TxnFault> {
    let operation = match text {
        OperationText::Get(get) => {
            let key = key(get.key, get.key_base64)?;
            Operation::Get(v1::GetRequest { key, ..v1::GetRequest::default() })
        }
        OperationText::Put(put) => Operation::Put(v1::PutRequest {
            key: key(put.key, put.key_base64)?,
            value: value(put.value, put.value_base64)?,
            return_previous: put.return_previous,
            ..v1::PutRequest::default()
        }),
        OperationText::Append(append) => Operation::Append(v1::AppendRequest {
            key: key(append.key, append.key_base64)?,
            value: value(append.value, append.value_base64)?,
            ..v1::AppendRequest::default()
        }),
        OperationText::Delete(delete) => Operation::Delete(v1::DeleteRequest {
            key: key(delete.key, delete.key_base64)?,
            return_previous: delete.return_previous,
            ..v1::DeleteRequest::default()
        }),
    };
    Ok(v1::Operation { operation: Some(operation) })
}

/// A key of one of its two fields.
fn key(text: Option<String>, base64: Option<String>) -> Result<Bytes, TxnFault> {
    const FIELDS: &str = "key and key_base64";
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => decode(&base64, "key_base64"),
        (None, None) | (Some(_), Some(_)) => Err(TxnFault::OneOf(FIELDS)),
    }
}

/// A value of one of its two fields; an empty one is a value.
fn value(text: Option<String>, base64: Option<String>) -> Result<Bytes, TxnFault> {
    const FIELDS: &str = "value and value_base64";
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => decode(&base64, "value_base64"),
        (None, None) | (Some(_), Some(_)) => Err(TxnFault::OneOf(FIELDS)),
    }
}

/// The bytes of a field in base64.
fn decode(text: &str, field: &'static str) -> Result<Bytes, TxnFault> {
    base64::decode(text).map(Bytes::from).ok_or(TxnFault::Base64(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let txn = parse(
            br#"{"conditions": [{"key": "a", "mod_revision": 7},
                                {"key_base64": "/w==", "comparison": "not_equal", "value": ""}],
                 "then": [{"put": {"key": "a", "value_base64": "AAE=", "return_previous": true}},
                          {"append": {"key": "b", "value": "x"}}],
                 "otherwise": [{"get": {"key": "a"}}, {"delete": {"key": "a"}}]}"#,
        )
        .expect("it is well formed");
        let target = Some(Target::ModRevision(7));
        let first = v1::Condition { key: "a".into(), comparison: Comparison::Equal.into(), target };
        assert_eq!(txn.conditions[0], first);
        let target = Some(Target::Value(Bytes::new()));
        let key = Bytes::from_static(&[0xff]);
        assert_eq!(txn.conditions[1], v1::Condition { key, comparison: Comparison::NotEqual.into(), target });
        let value = Bytes::from_static(&[0, 1]);
        let put = v1::PutRequest { key: "a".into(), value, return_previous: true, ..Default::default() };
        assert_eq!(txn.then[0].operation, Some(Operation::Put(put)));
        assert_eq!((txn.then.len(), txn.otherwise.len()), (2, 2));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (text, says) in [
            ("", "not a transaction"),
            ("7", "not a transaction"),
            (r#"{"conditons": []}"#, "unknown field"),
            (r#"{"then": [{"incr": {"key": "a"}}]}"#, "unknown variant"),
            (r#"{"then": [{"get": {"key": "a", "value": "b"}}]}"#, "unknown field"),
            (r#"{"then": [{"put": {"key": "a"}}]}"#, "one of value and value_base64"),
            (r#"{"then": [{"get": {}}]}"#, "one of key and key_base64"),
            (r#"{"then": [{"get": {"key_base64": "x"}}]}"#, "key_base64 is not base64"),
            (r#"{"conditions": [{"key": "a"}]}"#, "exactly one of version"),
            (r#"{"conditions": [{"key": "a", "version": 1, "mod_revision": 2}]}"#, "exactly one of version"),
            (r#"{"conditions": [{"key": "a", "version": -1}]}"#, "not a transaction"),
        ] {
            let fault = parse(text.as_bytes()).map_err(|fault| fault.to_string());
            assert!(fault.as_ref().is_err_and(|said| said.contains(says)), "{text}: {fault:?}");
        }
    }
}
