//! Bodies in the document, of requests and of answers: what is JSON of any kind, and what is not JSON.

use serde_json::{Value as Json, json};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{
    ArrayBuilder, ComponentsBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::string;
use crate::http::accept::{AUTOMERGE, JSON};
use crate::http::body::MERGE_PATCH;

/// Anything that JSON can say.
pub(in crate::http) struct Value;

impl PartialSchema for Value {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some(
                "Any JSON, of at most 250 levels and 250,000 values, without the key `__proto__`. Numbers are integers \
                 of 64 bits or floating numbers.",
            ))
            .into()
    }
}

impl ToSchema for Value {}

/// A value that a whole document may be.
pub(in crate::http) struct Document;

impl PartialSchema for Document {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("A document as a value: an object."))
            .into()
    }
}

impl ToSchema for Document {}

/// A document's own bytes.
pub(in crate::http) struct Bytes;

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        string()
            .content_media_type(AUTOMERGE)
            .description(Some(
                "A document's own bytes, as any Automerge library saves and loads them.",
            ))
            .into()
    }
}

impl ToSchema for Bytes {}

/// A JSON Patch.
pub(in crate::http) struct JsonPatch;

impl PartialSchema for JsonPatch {
    fn schema() -> RefOr<Schema> {
        let operation = |ops: &[&str], more: &[(&str, RefOr<Schema>)]| {
            let op = string().enum_values(Some(ops.iter().copied()));
            let object = ObjectBuilder::new().property("op", op).required("op");
            let object = object.property("path", pointer()).required("path");
            more.iter().fold(object, |object, (name, schema)| {
                object.property(*name, schema.clone()).required(*name)
            })
        };
        let value = RefOr::Ref(Ref::from_schema_name(Value::name()));
        let operations = OneOfBuilder::new()
            .item(operation(&["add", "replace", "test"], &[("value", value)]))
            .item(operation(&["remove"], &[]))
            .item(operation(&["move", "copy"], &[("from", pointer())]));
        ArrayBuilder::new()
            .items(operations)
            .description(Some(
                "A JSON Patch (RFC 6902): operations, one after the other. All of them are carried out, or none.",
            ))
            .into()
    }
}

impl ToSchema for JsonPatch {}

/// A JSON Pointer (RFC 6901).
fn pointer() -> RefOr<Schema> {
    string().pattern(Some("^(/([^~/]|~[01])*)*$")).into()
}

/// Adds what operations refer to.
pub(super) fn components(components: ComponentsBuilder) -> ComponentsBuilder {
    components
        .schema(Value::name(), Value::schema())
        .schema(Document::name(), Document::schema())
        .schema(Bytes::name(), Bytes::schema())
        .schema(JsonPatch::name(), JsonPatch::schema())
}

/// What is written at the root is an object.
pub(super) fn make_objects(body: &mut RequestBody) {
    for (kind, content) in &mut body.content {
        if let RefOr::T(content) = content
            && (kind == JSON || kind == MERGE_PATCH)
        {
            content.schema = Some(RefOr::Ref(Ref::from_schema_name(Document::name())));
            content.example = Some(board());
        }
    }
}

/// The example in what writes and reads it.
pub(super) fn board() -> Json {
    json!({ "companies": { "acme": { "name": "Acme", "meetings": {} } } })
}
