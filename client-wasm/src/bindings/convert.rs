//! Values across the boundary: `WasmValue` in `wasm.ts`.

use automerge::{ChangeHash, ObjId, ObjType, Prop, ScalarValue, Value};
use js_sys::{Array, Date, Reflect, Uint8Array};
use wasm_bindgen::{JsCast as _, JsValue};

use super::error::Thrown;

/// Integers beyond this are floats in JavaScript.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// A plain object.
pub(super) fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let made = js_sys::Object::new();
    for (name, value) in fields {
        // On an object that was made just now this can't fail.
        let _infallible = Reflect::set(&made, &(*name).into(), value);
    }
    made.into()
}

/// Rounded where it is beyond 2^53, as JavaScript does.
#[expect(clippy::cast_precision_loss, reason = "what JavaScript can hold")]
pub(super) fn number(value: u64) -> JsValue {
    JsValue::from_f64(value as f64)
}

/// A count that came from JavaScript.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates"
)]
pub(super) fn whole(value: f64) -> u64 {
    value as u64
}

/// What an object or scalar is to JavaScript.
pub(super) fn value(value: &Value<'_>, id: &ObjId) -> JsValue {
    match value {
        Value::Object(kind) => object(&[
            ("object", id.to_string().into()),
            ("type", type_name(*kind).into()),
        ]),
        Value::Scalar(scalar) => self::scalar(scalar),
    }
}

#[expect(clippy::cast_precision_loss, reason = "what JavaScript can hold")]
fn scalar(value: &ScalarValue) -> JsValue {
    match value {
        ScalarValue::Bytes(bytes) | ScalarValue::Unknown { bytes, .. } => {
            Uint8Array::from(bytes.as_slice()).into()
        }
        ScalarValue::Str(text) => object(&[("string", text.as_str().into())]),
        ScalarValue::Int(int) => JsValue::from_f64(*int as f64),
        ScalarValue::Uint(int) => number(*int),
        ScalarValue::F64(float) => JsValue::from_f64(*float),
        ScalarValue::Counter(counter) => {
            let now = JsValue::from_f64(i64::from(counter) as f64);
            object(&[("counter", now)])
        }
        ScalarValue::Timestamp(ms) => Date::new(&JsValue::from_f64(*ms as f64)).into(),
        ScalarValue::Boolean(boolean) => (*boolean).into(),
        ScalarValue::Null => JsValue::NULL,
    }
}

/// The scalar that a value of JavaScript's stands for.
pub(super) fn scalar_of(value: &JsValue) -> Result<ScalarValue, Thrown> {
    if value.is_null() {
        return Ok(ScalarValue::Null);
    }
    if let Some(boolean) = value.as_bool() {
        return Ok(ScalarValue::Boolean(boolean));
    }
    if let Some(number) = value.as_f64() {
        return Ok(integer(number).map_or(ScalarValue::F64(number), ScalarValue::Int));
    }
    if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        return Ok(ScalarValue::Bytes(bytes.to_vec()));
    }
    if let Some(date) = value.dyn_ref::<Date>() {
        let ms = integer(date.get_time()).ok_or_else(|| bad_value("an invalid date"))?;
        return Ok(ScalarValue::Timestamp(ms));
    }
    let field = |name: &str| Reflect::get(value, &name.into()).unwrap_or(JsValue::UNDEFINED);
    if let Some(text) = field("string").as_string() {
        return Ok(ScalarValue::Str(text.into()));
    }
    if let Some(float) = field("float").as_f64() {
        return Ok(ScalarValue::F64(float));
    }
    if let Some(count) = field("counter").as_f64() {
        let count = integer(count).ok_or_else(|| bad_value("a counter that is no integer"))?;
        return Ok(ScalarValue::counter(count));
    }
    Err(bad_value("no value that a document can hold"))
}

fn bad_value(message: &str) -> Thrown {
    Thrown::new("bad-value", message)
}

/// A whole number that JavaScript holds exactly.
#[expect(clippy::cast_possible_truncation, reason = "compared before")]
pub(super) fn integer(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER).then_some(number as i64)
}

/// A key or an index.
pub(super) fn prop_of(value: &JsValue) -> Result<Prop, Thrown> {
    if let Some(key) = value.as_string() {
        return Ok(Prop::Map(key));
    }
    let index = value.as_f64().and_then(integer);
    index
        .and_then(|index| usize::try_from(index).ok())
        .map(Prop::Seq)
        .ok_or_else(|| Thrown::new("bad-prop", "no key and no index"))
}

pub(super) fn prop(prop: &Prop) -> JsValue {
    match prop {
        Prop::Map(key) => key.into(),
        Prop::Seq(index) => index_number(*index),
    }
}

/// Documents fit into wasm's memory, so their positions are below 2^32.
pub(super) fn index_number(index: usize) -> JsValue {
    number(index as u64)
}

pub(super) fn type_name(kind: ObjType) -> &'static str {
    match kind {
        ObjType::Map | ObjType::Table => "map",
        ObjType::List => "list",
        ObjType::Text => "text",
    }
}

pub(super) fn type_of(name: &str) -> Result<ObjType, Thrown> {
    match name {
        "map" => Ok(ObjType::Map),
        "list" => Ok(ObjType::List),
        "text" => Ok(ObjType::Text),
        _ => Err(Thrown::new("bad-value", "no type of object")),
    }
}

/// Sorted hex.
pub(super) fn heads(heads: &[ChangeHash]) -> JsValue {
    let mut sorted = heads.to_vec();
    sorted.sort_unstable();
    sorted
        .iter()
        .map(|hash| JsValue::from(hash.to_string()))
        .collect::<Array>()
        .into()
}

pub(super) fn heads_of(heads: &[String]) -> Result<Vec<ChangeHash>, Thrown> {
    heads.iter().map(|hash| hash_of(hash)).collect()
}

pub(super) fn hash_of(text: &str) -> Result<ChangeHash, Thrown> {
    text.parse()
        .map_err(|_| Thrown::new("bad-hash", format!("{text:?} is no change hash")))
}
