//! Patches as JavaScript sees them: `WasmPatch` in `wasm.ts`.

use automerge::{Patch, PatchAction, Prop};
use js_sys::Array;
use wasm_bindgen::JsValue;

use super::convert::{index_number, object, prop, value};

/// All of them, in order.
pub(super) fn patches(patches: &[Patch]) -> JsValue {
    patches.iter().map(patch).collect::<Array>().into()
}

fn patch(patch: &Patch) -> JsValue {
    let path: Array = patch.path.iter().map(|(_, at)| prop(at)).collect();
    let mut fields: Vec<(&str, JsValue)> = Vec::with_capacity(5);
    let at = |fields: &mut Vec<_>, action: &'static str, last: JsValue| {
        path.push(&last);
        fields.push(("action", JsValue::from(action)));
    };
    match &patch.action {
        PatchAction::PutMap {
            key,
            value: (put, id),
            conflict,
        } => {
            at(&mut fields, "put", key.into());
            fields.push(("value", value(put, id)));
            fields.push(("conflict", (*conflict).into()));
        }
        PatchAction::PutSeq {
            index,
            value: (put, id),
            conflict,
        } => {
            at(&mut fields, "put", index_number(*index));
            fields.push(("value", value(put, id)));
            fields.push(("conflict", (*conflict).into()));
        }
        PatchAction::Insert { index, values } => {
            at(&mut fields, "insert", index_number(*index));
            let inserted: Array = values.iter().map(|(put, id, _)| value(put, id)).collect();
            fields.push(("values", inserted.into()));
        }
        PatchAction::SpliceText {
            index, value: text, ..
        } => {
            at(&mut fields, "splice", index_number(*index));
            fields.push(("text", text.make_string().into()));
        }
        PatchAction::Increment { prop: of, value } => {
            at(&mut fields, "inc", prop(of));
            #[expect(clippy::cast_precision_loss, reason = "what JavaScript can hold")]
            fields.push(("by", JsValue::from_f64(*value as f64)));
        }
        PatchAction::Conflict { prop: of } => at(&mut fields, "conflict", prop(of)),
        PatchAction::DeleteMap { key } => {
            at(&mut fields, "del", key.into());
            fields.push(("length", 1.into()));
        }
        PatchAction::DeleteSeq { index, length } => {
            at(&mut fields, "del", prop(&Prop::Seq(*index)));
            fields.push(("length", index_number(*length)));
        }
        PatchAction::Mark { .. } => fields.push(("action", "mark".into())),
    }
    fields.push(("path", path.clone().into()));
    fields.push(("object", patch.obj.to_string().into()));
    object(&fields)
}
