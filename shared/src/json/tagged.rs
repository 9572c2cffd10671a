//! [`Types::Tagged`](super::Types::Tagged): what JSON lacks, by name, so that it can be made and told apart.
//!
//! | JSON | value |
//! |---|---|
//! | `{"$counter": 5}` | counter |
//! | `{"$timestamp": "2026-11-22T04:10:28.000Z"}`, or milliseconds | timestamp |
//! | `{"$bytes": "3q2+7w=="}` | bytes, base64 |
//! | `{"$string": "done"}` | string scalar: replaced as a whole, where text merges by letter |
//! | `{"$number": "NaN"}`, `"Infinity"`, `"-Infinity"` | a number that JSON has not |
//! | `{"$map": {"$counter": 5}}` | a map that would be read as one of these |
//!
//! All else is as in plain JSON; an unsigned or floating number that an integer would do for is read as that.

use automerge::ScalarValue;
use serde_json::{Map, Value as Json, json};

use super::{Types, scalars};

const COUNTER: &str = "$counter";
const TIMESTAMP: &str = "$timestamp";
const BYTES: &str = "$bytes";
const STRING: &str = "$string";
const NUMBER: &str = "$number";
pub(super) const MAP: &str = "$map";

/// What a tag says.
#[derive(Debug, PartialEq)]
pub enum Tagged<'a> {
    /// A scalar.
    Scalar(ScalarValue),
    /// A map with these entries.
    Map(&'a Map<String, Json>),
}

/// A scalar with its tag, if it needs one.
pub(super) fn written(scalar: &ScalarValue) -> Option<Json> {
    Some(match scalar {
        ScalarValue::Counter(counter) => json!({ COUNTER: i64::from(counter) }),
        ScalarValue::Timestamp(ms) => json!({ TIMESTAMP: scalars::timestamp(*ms) }),
        ScalarValue::Bytes(bytes) => json!({ BYTES: scalars::base64(bytes) }),
        ScalarValue::Str(text) => json!({ STRING: text.as_str() }),
        ScalarValue::F64(number) if number.is_nan() => json!({ NUMBER: "NaN" }),
        ScalarValue::F64(number) if number.is_infinite() && *number > 0.0 => {
            json!({ NUMBER: "Infinity" })
        }
        ScalarValue::F64(number) if number.is_infinite() => json!({ NUMBER: "-Infinity" }),
        _ => return None,
    })
}

/// A map as it must be written so as not to be read as a tag.
pub(super) fn escaped(object: Map<String, Json>) -> Json {
    let object = Json::Object(object);
    if read(&object).is_some() {
        json!({ MAP: object })
    } else {
        object
    }
}

/// The entries, if a value says a map.
pub(super) fn object(json: &Json, types: Types) -> Option<&Map<String, Json>> {
    match types {
        Types::Plain => json.as_object(),
        Types::Tagged => match read(json) {
            Some(Tagged::Map(object)) => Some(object),
            Some(Tagged::Scalar(_)) => None,
            None => json.as_object(),
        },
    }
}

/// What a value says by its tag. `None` where it has none, or one that its value does not fit.
pub fn read(json: &Json) -> Option<Tagged<'_>> {
    let Json::Object(object) = json else {
        return None;
    };
    let mut entries = object.iter();
    let (Some((tag, value)), None) = (entries.next(), entries.next()) else {
        return None;
    };
    let scalar = match (tag.as_str(), value) {
        (COUNTER, Json::Number(number)) => ScalarValue::counter(scalars::integer(number)?),
        (TIMESTAMP, Json::Number(ms)) => ScalarValue::Timestamp(ms.as_i64()?),
        (TIMESTAMP, Json::String(text)) => ScalarValue::Timestamp(scalars::from_rfc3339(text)?),
        (BYTES, Json::String(text)) => ScalarValue::Bytes(scalars::from_base64(text)?),
        (STRING, Json::String(text)) => ScalarValue::from(text.as_str()),
        (NUMBER, Json::String(text)) => ScalarValue::F64(match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return None,
        }),
        (MAP, Json::Object(object)) => return Some(Tagged::Map(object)),
        _ => return None,
    };
    Some(Tagged::Scalar(scalar))
}
