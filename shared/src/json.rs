//! JSON for documents: reading values as JSON, and bringing a document to a JSON value with as few ops as say
//! what changed.
//!
//! Automerge has types that JSON lacks. A plain JSON user never meets them ([`Types::Plain`]):
//!
//! | in the document | as JSON |
//! |---|---|
//! | text, and string scalars | string |
//! | counter | its number |
//! | timestamp | string by RFC 3339, `2026-11-22T04:10:28.000Z`; beyond the years 0 to 9999 its milliseconds |
//! | bytes | string, base64 |
//! | a number that is none (NaN, ±∞), a scalar of an unknown type | `null` |
//!
//! Writing keeps the type that is there wherever the JSON value is one of that type: a number over a counter
//! increments it by the difference, a string over a text is spliced into it, unless both are tokens like
//! dates, of which no mixture is wanted. So what was read and is written back unchanged is no edit at all. Where there was nothing, a string becomes a text, which merges by letter.
//! [`Types::Tagged`] names the types, in both directions (see [`tagged`]).
//!
//! - [`update()`]: the edit, with `lists` and `texts` for what is in order; [`Edit`] has the edits at a path and patches.
//! - [`Work`]: what a patch may cost.
//! - [`diff()`]: the difference of two values as JSON Patch.
//! - [`changes`]: a value that is watched, its changes as JSON Patch.

use std::collections::BTreeMap;

use automerge::hydrate;
use automerge::{AutomergeError, ChangeHash, ObjId, ReadDoc, ScalarValue, TextEncoding, Value};
use serde_json::{Map, Number, Value as Json};

mod added;
mod canonical;
pub mod changes;
mod diff;
mod lists;
mod names;
mod patch;
mod scalars;
mod search;
pub mod tagged;
mod texts;
mod update;
mod work;

pub use added::Added;
pub use diff::diff;
pub use patch::WriteError;
pub use search::Search;
pub use update::{Edit, EditError, update};
pub use work::{MOST_BYTES, MOST_VALUES, TooMuch, Work};

/// How the types that JSON lacks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Types {
    /// As the nearest that JSON has.
    #[default]
    Plain,
    /// By name.
    Tagged,
}

/// Levels of arrays and objects that a JSON value may have: as many as a document may.
pub const MOST_LEVELS: usize = 250;

/// A value as JSON. It must not have more than [`MOST_LEVELS`] levels, which admission sees to.
pub fn to_json(value: &hydrate::Value, types: Types) -> Json {
    match value {
        hydrate::Value::Scalar(scalar) => scalars::to_json(scalar, types),
        hydrate::Value::Text(text) => Json::String(String::from(text)),
        hydrate::Value::List(list) => {
            let values = list.iter().map(|element| to_json(&element.value, types));
            Json::Array(values.collect())
        }
        hydrate::Value::Map(map) => {
            // In the order of keys, whatever kind of map that goes into.
            let entries: BTreeMap<&String, _> = map.iter().collect();
            let entries = entries.into_iter();
            let entries = entries.map(|(key, at)| (key.clone(), to_json(&at.value, types)));
            let object: Map<String, Json> = entries.collect();
            match types {
                Types::Plain => Json::Object(object),
                Types::Tagged => tagged::escaped(object),
            }
        }
    }
}

/// A value that was found in a document, now or as of `heads`, as JSON.
pub fn read<D: ReadDoc>(
    document: &D,
    (value, id): &(Value<'_>, ObjId),
    heads: Option<&[ChangeHash]>,
    types: Types,
) -> Result<Json, AutomergeError> {
    match value {
        Value::Scalar(scalar) => Ok(scalars::to_json(scalar, types)),
        Value::Object(_) => Ok(to_json(&document.hydrate(id, heads)?, types)),
    }
}

/// A JSON value as one that is new in a document whose text is counted so.
pub fn from_json(json: &Json, types: Types, encoding: TextEncoding) -> hydrate::Value {
    if types == Types::Tagged
        && let Some(tagged) = tagged::read(json)
    {
        return match tagged {
            tagged::Tagged::Scalar(scalar) => hydrate::Value::Scalar(scalar),
            tagged::Tagged::Map(object) => map_from(object, types, encoding),
        };
    }
    match json {
        Json::Null => hydrate::Value::Scalar(ScalarValue::Null),
        Json::Bool(value) => hydrate::Value::Scalar(ScalarValue::Boolean(*value)),
        Json::Number(number) => hydrate::Value::Scalar(scalars::of_number(number)),
        Json::String(text) => hydrate::Value::text(encoding, text),
        Json::Array(values) => {
            let values = values.iter().map(|value| from_json(value, types, encoding));
            hydrate::Value::from(values.collect::<Vec<_>>())
        }
        Json::Object(object) => map_from(object, types, encoding),
    }
}

fn map_from(object: &Map<String, Json>, types: Types, encoding: TextEncoding) -> hydrate::Value {
    let entries = object.iter();
    let entries = entries.map(|(key, value)| (key.clone(), from_json(value, types, encoding)));
    let entries: std::collections::HashMap<String, hydrate::Value> = entries.collect();
    hydrate::Value::Map(hydrate::Map::from(entries))
}

/// Milliseconds since 1970 of a time by RFC 3339, whatever its zone.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    scalars::from_rfc3339(text)
}

/// A time as JSON has it: see the module's docs.
pub fn timestamp(ms: i64) -> Json {
    scalars::timestamp(ms)
}

/// Whether two JSON values are the same; numbers by what they are, however they are written.
pub fn is_same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => is_same_number(one, other),
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| is_same(one, other)))
        }
        _ => one == other,
    }
}

/// Integers are compared as such; any other pair as doubles, which is what one of them is.
fn is_same_number(one: &Number, other: &Number) -> bool {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => one == other,
        _ => one.as_f64() == other.as_f64(),
    }
}

#[cfg(test)]
mod tests;
