//! Values of applications as CBOR and back: what presence sends, in the form of automerge-repo.
//!
//! What is decoded came from another person's browser: its depth is bounded, and nothing is allocated by a length
//! that it claims.

use js_sys::{Array, Object, Uint8Array};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast as _, JsValue};

use super::convert::integer;
use super::error::Thrown;

/// Arrays and maps in each other.
const MAX_DEPTH: u32 = 64;

/// A tag of which the content is bytes, as JavaScript's typed arrays have.
const UINT8_ARRAY_TAG: u64 = 64;

/// A value of plain objects, arrays, `Uint8Array`s and primitives.
#[wasm_bindgen(js_name = encodeCbor)]
pub fn encode_cbor(value: &JsValue) -> Result<Vec<u8>, Thrown> {
    let mut encoder = Encoder::new(Vec::new());
    encode(&mut encoder, value, 0)?;
    Ok(encoder.into_writer())
}

/// The value in bytes from elsewhere.
#[wasm_bindgen(js_name = decodeCbor)]
pub fn decode_cbor(bytes: &[u8]) -> Result<JsValue, Thrown> {
    let mut decoder = Decoder::new(bytes);
    let value = decode(&mut decoder, 0)?;
    if decoder.position() == bytes.len() {
        Ok(value)
    } else {
        Err(bad("bytes after the value"))
    }
}

fn encode(to: &mut Encoder<Vec<u8>>, value: &JsValue, depth: u32) -> Result<(), Thrown> {
    if depth > MAX_DEPTH {
        return Err(bad("arrays and objects too deep in each other"));
    }
    // Writing to memory can't fail.
    let written = if value.is_undefined() {
        to.undefined().map(drop)
    } else if value.is_null() {
        to.null().map(drop)
    } else if let Some(boolean) = value.as_bool() {
        to.bool(boolean).map(drop)
    } else if let Some(number) = value.as_f64() {
        match integer(number) {
            // As JavaScript's encoders write them.
            Some(small) if small.unsigned_abs() < 1 << 32 => to.i64(small).map(drop),
            _ => to.f64(number).map(drop),
        }
    } else if let Some(text) = value.as_string() {
        to.str(&text).map(drop)
    } else if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        to.bytes(&bytes.to_vec()).map(drop)
    } else if let Some(array) = value.dyn_ref::<Array>() {
        let begun = to.array(u64::from(array.length())).map(drop);
        for item in array.iter() {
            encode(to, &item, depth + 1)?;
        }
        begun
    } else if let Some(map) = value.dyn_ref::<Object>().filter(|_| !value.is_function()) {
        let entries = Object::entries(map);
        let begun = to.map(u64::from(entries.length())).map(drop);
        for entry in entries.iter() {
            for part in Array::from(&entry).iter() {
                encode(to, &part, depth + 1)?;
            }
        }
        begun
    } else {
        return Err(bad("a value that can't be sent"));
    };
    written.map_err(|_| bad("not written"))
}

fn decode(from: &mut Decoder<'_>, depth: u32) -> Result<JsValue, Thrown> {
    if depth > MAX_DEPTH {
        return Err(bad("arrays and maps too deep in each other"));
    }
    let value = match from.datatype().map_err(unreadable)? {
        Type::Undefined => from.undefined().map(|()| JsValue::UNDEFINED),
        Type::Null => from.null().map(|()| JsValue::NULL),
        Type::Bool => from.bool().map(JsValue::from),
        Type::F32 => from.f32().map(f64::from).map(JsValue::from_f64),
        Type::F64 => from.f64().map(JsValue::from_f64),
        Type::String => from.str().map(JsValue::from),
        Type::Bytes => from.bytes().map(|bytes| Uint8Array::from(bytes).into()),
        Type::Tag => {
            let tag = from.tag().map_err(unreadable)?;
            if tag.as_u64() == UINT8_ARRAY_TAG {
                from.bytes().map(|bytes| Uint8Array::from(bytes).into())
            } else {
                return decode(from, depth + 1);
            }
        }
        Type::Array => {
            let count = from.array().map_err(unreadable)?;
            let count = count.ok_or_else(|| bad("an array without a length"))?;
            let array = Array::new();
            for _ in 0..count {
                array.push(&decode(from, depth + 1)?);
            }
            Ok(array.into())
        }
        Type::Map => {
            let count = from.map().map_err(unreadable)?;
            let count = count.ok_or_else(|| bad("a map without a length"))?;
            let entries = Array::new();
            for _ in 0..count {
                let key = decode(from, depth + 1)?;
                let value = decode(from, depth + 1)?;
                entries.push(&Array::of2(&key, &value));
            }
            // Makes a property even of the key `__proto__`.
            return Object::from_entries(&entries)
                .map(JsValue::from)
                .map_err(|_| bad("keys that are none"));
        }
        kind if is_integer(kind) => from.int().map(|int| {
            #[expect(clippy::cast_precision_loss, reason = "what JavaScript can hold")]
            JsValue::from_f64(i128::from(int) as f64)
        }),
        _ => return Err(bad("a kind of value that is not taken")),
    };
    value.map_err(unreadable)
}

fn is_integer(kind: Type) -> bool {
    use Type::{I8, I16, I32, I64, Int, U8, U16, U32, U64};
    matches!(kind, U8 | U16 | U32 | U64 | I8 | I16 | I32 | I64 | Int)
}

fn unreadable(error: minicbor::decode::Error) -> Thrown {
    bad(&error.to_string())
}

fn bad(message: &str) -> Thrown {
    Thrown::new("bad-cbor", message)
}
