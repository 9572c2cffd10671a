//! Scalars as JSON, and which scalar a JSON value is in place of another.

use automerge::ScalarValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Number, Value as Json};

use super::{Types, is_same, tagged};

pub(super) fn to_json(scalar: &ScalarValue, types: Types) -> Json {
    if types == Types::Tagged
        && let Some(tagged) = tagged::written(scalar)
    {
        return tagged;
    }
    match scalar {
        ScalarValue::Null | ScalarValue::Unknown { .. } => Json::Null,
        ScalarValue::Boolean(value) => Json::Bool(*value),
        ScalarValue::Int(number) => Json::from(*number),
        ScalarValue::Uint(number) => Json::from(*number),
        ScalarValue::F64(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        ScalarValue::Str(text) => Json::String(text.to_string()),
        ScalarValue::Bytes(bytes) => Json::String(base64(bytes)),
        ScalarValue::Counter(counter) => Json::from(i64::from(counter)),
        ScalarValue::Timestamp(ms) => timestamp(*ms),
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// As RFC 3339, which has four digits for the year; what that can't say is left a number.
pub(super) fn timestamp(ms: i64) -> Json {
    let printable = Timestamp::from_millisecond(ms).ok();
    let printed = printable.map(|at| format!("{at:.3}"));
    match printed.filter(|text| !text.starts_with('-')) {
        Some(text) => Json::String(text),
        None => Json::from(ms),
    }
}

/// Milliseconds since 1970 of a time by RFC 3339.
pub(super) fn from_rfc3339(text: &str) -> Option<i64> {
    let at: Timestamp = text.parse().ok()?;
    Some(at.as_millisecond())
}

pub(super) fn of_number(number: &Number) -> ScalarValue {
    if let Some(number) = number.as_i64() {
        ScalarValue::Int(number)
    } else if let Some(number) = number.as_u64() {
        ScalarValue::Uint(number)
    } else {
        ScalarValue::F64(number.as_f64().unwrap_or(f64::NAN))
    }
}

/// A number as the integer that it is, however it is written: Python and Ruby write what they computed as `6.0`.
pub(super) fn integer(number: &Number) -> Option<i64> {
    /// The first double that is no `i64` any more, and the negative of the last one that is: 2^63.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if let Some(number) = number.as_i64() {
        return Some(number);
    }
    let float = number.as_f64()?;
    let is_integer = float.fract() == 0.0 && (-END..END).contains(&float);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it has no fraction and is within the range"
    )]
    is_integer.then_some(float as i64)
}

/// What becomes of a scalar over which a plain JSON value is written.
#[derive(Debug, PartialEq)]
pub(super) enum Over {
    /// It says the same.
    Unchanged,
    /// Another scalar of its type.
    Scalar(ScalarValue),
    /// The counter moves.
    Increment(i64),
    /// The value is of another type.
    Other,
}

pub(super) fn over(scalar: &ScalarValue, json: &Json) -> Over {
    if is_same(&to_json(scalar, Types::Plain), json) {
        return Over::Unchanged;
    }
    match (scalar, json) {
        (ScalarValue::Counter(counter), Json::Number(number)) => {
            let by = integer(number).map(|to| to.checked_sub(i64::from(counter)));
            by.flatten().map_or(Over::Other, Over::Increment)
        }
        (ScalarValue::Str(_), Json::String(text)) => Over::Scalar(ScalarValue::from(text.as_str())),
        (ScalarValue::Bytes(_), Json::String(text)) => {
            from_base64(text).map_or(Over::Other, |bytes| Over::Scalar(ScalarValue::Bytes(bytes)))
        }
        (ScalarValue::Timestamp(before), Json::String(text)) => match from_rfc3339(text) {
            // The same moment, in another zone or with other digits.
            Some(ms) if ms == *before => Over::Unchanged,
            Some(ms) => Over::Scalar(ScalarValue::Timestamp(ms)),
            None => Over::Other,
        },
        _ => Over::Other,
    }
}
