//! Answers in the document that are no problems: each is described once, and operations name what they give.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use utoipa::openapi::{
    Content, ContentBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response,
    ResponseBuilder, Type,
};
use utoipa::{IntoResponses, PartialSchema as _, ToSchema as _};

use super::bodies::{self, board};
use super::{ETAG, VERSION, string};
use crate::http::accept::{AUTOMERGE, JSON};
use crate::http::body::JSON_PATCH;
use crate::http::documents::{EVENTS, Forked};

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident: $($status:literal = $answer:expr),*;)*) => {$(
        $(#[$doc])*
        pub(in crate::http) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                let answers: [(u16, Response); _] = [$(($status, $answer.build())),*];
                let answers = answers.into_iter();
                answers.map(|(status, answer)| (status.to_string(), answer.into())).collect()
            }
        }
    )*};
}

answers! {
    /// A document.
    Whole: 200 = versioned("The document: JSON, or its own bytes.")
            .content(JSON, json_content(&board()))
            .content(AUTOMERGE, bytes()),
        304 = unchanged();
    /// What is at a place.
    Value: 200 = versioned("What is at the place.").content(JSON, json_content(&json!("Acme"))),
        304 = unchanged();
    /// What is at a place after it was written.
    Written: 200 = written("What is at the place now, merged."),
        204 = silent("Carried out. There is no value with `Prefer: return=minimal`, or where it was removed meanwhile.");
    /// A value that was put.
    Put: 200 = written("What is at the place now, merged."),
        201 = made("There was nothing before."),
        204 = silent("Carried out. There is no value with `Prefer: return=minimal`, or where it was removed meanwhile.");
    /// A document that was made.
    Made: 201 = made("Made. The document is at `Location`.");
    /// A document that was written as a whole.
    Replaced: 200 = written("The document was there: what it is now, merged."),
        201 = made("Made."),
        204 = silent("Carried out, with `Prefer: return=minimal`.");
    /// What was added.
    Added: 201 = made("Added. What is there now, and at `Location` where that is."),
        204 = silent("What it was to be added to, at an old version, was removed meanwhile.");
    /// What was removed.
    Removed: 204 = silent("Nothing is there any more. A version only for who named the last one.");
    /// This document.
    Described: 200 = tagged("The document.").content(JSON, ContentBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::Object))).build()),
        304 = tagged("The client has it (`If-None-Match`).");
    /// The same as a page.
    Page: 200 = tagged("The page.").content("text/html", ContentBuilder::new().schema(Some(string())).build()),
        304 = tagged("The client has it (`If-None-Match`).");
    /// The reader has it already.
    Unchanged: 304 = unchanged();
    /// What leads from one version to another.
    Difference: 200 = versioned("The difference; the `ETag` is that of the later version.")
            .content(JSON_PATCH, difference()).content(JSON, difference()),
        304 = unchanged();
    /// A document that was forked.
    Fork: 200 = versioned("It was there already: the same request was carried out before.")
            .content(JSON, forked()),
        201 = versioned("Made.").header("Location", place()).content(JSON, forked());
    /// What happens at a place.
    Stream: 200 = ResponseBuilder::new()
            .description("Events without end. Each has the version that it leads to as its `id`.")
            .content(EVENTS, events());
}

fn json_content(example: &Json) -> Content {
    let value = Ref::from_schema_name(bodies::Value::name());
    let content = ContentBuilder::new().schema(Some(value));
    content.example(Some(example.clone())).build()
}

fn bytes() -> Content {
    let bytes = Ref::from_schema_name(bodies::Bytes::name());
    ContentBuilder::new().schema(Some(bytes)).build()
}

fn header(description: &str, schema: ObjectBuilder) -> Header {
    let header = HeaderBuilder::new().schema(Some(schema));
    header.description(Some(description)).build()
}

fn versioned(description: &str) -> ResponseBuilder {
    let schema = || string().pattern(Some(ETAG));
    let caching = "For whoever asked alone; `immutable` where a version was named.";
    ResponseBuilder::new()
        .description(description)
        .header("ETag", header("The version that this is of.", schema()))
        .header("Cache-Control", header(caching, string()))
}

fn tagged(description: &str) -> ResponseBuilder {
    let tag = string().pattern(Some(r#"^"[0-9a-f]+(-[a-z]+)*"$"#));
    ResponseBuilder::new()
        .description(description)
        .header("ETag", header("Changes with the server.", tag))
}

fn unchanged() -> ResponseBuilder {
    versioned("The client has it (`If-None-Match`).")
}

fn silent(description: &str) -> ResponseBuilder {
    versioned(description).header(
        "Preference-Applied",
        header("What was done of `Prefer`.", string()),
    )
}

fn written(description: &str) -> ResponseBuilder {
    let address = header("What the value is of: it is what is there now.", string());
    silent(description)
        .header("Content-Location", address)
        .content(JSON, json_content(&board()))
}

fn made(description: &str) -> ResponseBuilder {
    written(description).header("Location", place())
}

fn place() -> Header {
    header("Where it is.", string().pattern(Some("^/v1/documents/")))
}

fn difference() -> Content {
    let patch = Ref::from_schema_name(bodies::JsonPatch::name());
    let example = json!([{ "op": "replace", "path": "/name", "value": "Acme Ltd" }]);
    let content = ContentBuilder::new().schema(Some(patch));
    content.example(Some(example)).build()
}

/// What one event is: `OpenAPI` 3.1 has no other way to say what a stream consists of.
fn events() -> Content {
    let kinds = ["value", "patch", "gone"];
    let event = ObjectBuilder::new()
        .description(Some("One event of the stream."))
        .property("event", string().enum_values(Some(kinds)))
        .property("id", string().pattern(Some(VERSION)))
        .property("data", string().content_media_type(JSON));
    let event = ["event", "id", "data"]
        .into_iter()
        .fold(event, ObjectBuilder::required);
    let example = "event: value\nid: 9d3f…\ndata: {\"name\": \"Acme\"}\n\n\
                   event: patch\nid: 40c1…\ndata: [{\"op\": \"replace\", \"path\": \"/name\", \"value\": \"Acme Ltd\"}]\n\n";
    let content = ContentBuilder::new().schema(Some(event));
    content.example(Some(json!(example))).build()
}

fn forked() -> Content {
    let forked = Forked::schema();
    ContentBuilder::new().schema(Some(forked)).build()
}
