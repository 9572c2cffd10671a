//! Parameters in the document: each is described once, and operations name the sets that they take.

use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{
    KnownFormat, ObjectBuilder, OneOfBuilder, RefOr, Required, Schema, SchemaFormat, Type,
};

use super::{EXAMPLE_ID, EXAMPLE_VERSION, VERSION, string};

/// As it looks: no server made this one.
const EXAMPLE_CURSOR: &str = "mTg0ZJ1rYyGq5cS0k8uXv3dWb7nEoP2hLfKaQzRiUxMtJsDwBgVeCyN6O9HpA4FIl";

macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident: $($parameter:ident),*;)*) => {$(
        $(#[$doc])*
        pub(in crate::http) struct $name;

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$($parameter()),*]
            }
        }
    )*};
}

sets! {
    /// The address of a document.
    Document: id;
    /// The address of a place in one.
    Place: id, path;
    /// What to read, and what its reader has.
    Reading: at, types, if_none_match;
    /// What a writer saw, and how to answer.
    Writing: types, if_match, if_none_match_of_write, idempotency_key, prefer;
    /// Of what makes a document.
    Making: types, idempotency_key, prefer;
    /// Of what is removed.
    Removing: types, if_match, if_none_match_of_write, idempotency_key;
    /// A page of the list of documents.
    Page: limit, after_document;
    /// What a watcher has seen.
    Watching: since, types, last_event_id;
    /// What a reader has of it.
    Having: if_none_match;
    /// The name of a request.
    Retrying: idempotency_key;
    /// Which versions to compare.
    Comparing: from, to, types, if_none_match;
    /// A page of the list of changes.
    ChangePage: limit, order, after_change;
    /// What whoever says who may do what has seen.
    AccessCondition: if_match_of_access, if_none_match_of_access;
    /// A page of what was said of that.
    AccessPage: limit, after_entry;
    /// Whether to erase what is deleted.
    Erasing: now;
    /// What to leave out of a list.
    OfDocument: document;
    /// The address of a version.
    OnePlace: place;
    /// The address of a change.
    OneChange: hash, types, if_none_match;
}

/// The parameter by which places in documents are addressed.
pub(super) const PATH: &str = "path";

fn path() -> Parameter {
    let description = "A place in the document, as a JSON Pointer (RFC 6901) without its first slash: the steps from the \
         outside in, with slashes between; `~1` is a slash in a key and `~0` a tilde. It may have any number of steps, \
         which OpenAPI can't say of a parameter: a client that writes the slashes between them as `%2F` asks the same.";
    let schema = string().pattern(Some("^([^~]|~[01])*$"));
    required(PATH, description, schema, "companies/acme/name")
}

fn id() -> Parameter {
    required("id", "A document's id.", document_id(), EXAMPLE_ID)
}

/// A document's id.
pub(in crate::http) fn document_id() -> ObjectBuilder {
    let description = "At most 64 bytes of UTF-8, without control characters and `#`.";
    // In letters of one byte, or of at most four.
    let pattern = r"^([ -\x22$-~]{1,64}|[^#\x00-\x1f\x7f-\x9f]{1,16})$";
    string()
        .pattern(Some(pattern))
        .description(Some(description))
}

fn hash() -> Parameter {
    let schema = string().pattern(Some("^[0-9a-fA-F]{64}$"));
    required("hash", "The change's hash.", schema, EXAMPLE_VERSION)
}

fn place() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::Integer);
    let schema = schema.minimum(Some(0)).maximum(Some(u32::MAX - 1));
    required(
        "place",
        "Which change was the last one, in the order of admission, from 0.",
        schema,
        17,
    )
}

fn at() -> Parameter {
    let description =
        "The version to read, or a time: what the server had then. Otherwise it is that of now.";
    query("at", description, version_or_time(), EXAMPLE_VERSION)
}

fn from() -> Parameter {
    let description = "Where to begin: a version, or a time. Otherwise with the empty document.";
    query(
        "from",
        description,
        version_or_time(),
        "2026-11-21T00:00:00Z",
    )
}

fn to() -> Parameter {
    let description = "Where to end: a version, or a time. Otherwise with what is there now.";
    query("to", description, version_or_time(), EXAMPLE_VERSION)
}

fn order() -> Parameter {
    let schema = string().enum_values(Some(["oldest", "newest"]));
    let schema = schema.default(Some("oldest".into()));
    query("order", "Which changes come first.", schema, "newest")
}

fn after_change() -> Parameter {
    after("The last change of the page before: its `next`.")
}

fn after(description: &str) -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::Integer);
    let schema = schema.minimum(Some(0)).maximum(Some(u32::MAX));
    query("after", description, schema, 99)
}

/// A version as an `ETag` has it, without its quotes, or a time by RFC 3339.
pub(in crate::http) fn version_or_time() -> OneOfBuilder {
    let version = string().pattern(Some(VERSION));
    let version = version.description(Some("A version: an `ETag` without its quotes."));
    let time = string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let time = time.description(Some("A time (RFC 3339)."));
    OneOfBuilder::new().item(version).item(time)
}

fn since() -> Parameter {
    let description = "The version that the client has: it is told what happened since. `Last-Event-ID` goes first.";
    query(
        "since",
        description,
        string().pattern(Some(VERSION)),
        EXAMPLE_VERSION,
    )
}

fn types() -> Parameter {
    let description = "How types that JSON lacks are read and written: `plain` as strings and numbers, `tagged` as \
         objects that name them, such as `{\"$counter\": 5}`.";
    let schema = string().enum_values(Some(["plain", "tagged"]));
    query(
        "types",
        description,
        schema.default(Some("plain".into())),
        "plain",
    )
}

fn limit() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::Integer);
    let schema = schema
        .minimum(Some(1))
        .maximum(Some(1000))
        .default(Some(100.into()));
    query("limit", "How many there are to a page.", schema, 20)
}

fn after_document() -> Parameter {
    let description =
        "Where the page before ended: its `next`, as this server gave it to whoever asks.";
    query("after", description, string(), EXAMPLE_CURSOR)
}

fn document() -> Parameter {
    query(
        "document",
        "Only what was for this document.",
        document_id(),
        EXAMPLE_ID,
    )
}

fn if_none_match() -> Parameter {
    let description =
        "Versions that the client has: if what is there is one of them, the answer is 304.";
    header("If-None-Match", description, tags(), &tag())
}

fn if_none_match_of_write() -> Parameter {
    let description = "With `*` only what is not there yet is written; with a version, unless the document has that one. Else 412.";
    header("If-None-Match", description, tags(), "*")
}

fn if_match() -> Parameter {
    let description = "The version that the author saw. The request is carried out on that one and merged with what came \
         since; with `*` only what is there is written, and a version that the document never had is 412.";
    header("If-Match", description, tags(), &tag())
}

fn if_match_of_access() -> Parameter {
    let description =
        "The `ETag` of the list that is to be replaced, or `*` for whichever there is. Else 412.";
    header("If-Match", description, string(), "\"access-3\"")
}

fn if_none_match_of_access() -> Parameter {
    let description = "With `*` only where nobody ever said who may do what. Else 412.";
    let schema = string().enum_values(Some(["*"]));
    header("If-None-Match", description, schema, "*")
}

fn after_entry() -> Parameter {
    after("The last entry of the page before: its `next`.")
}

fn now() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::Boolean);
    let schema = schema.default(Some(false.into()));
    let description = "Whether what is stored of it is erased at once, and can't be brought back.";
    query("now", description, schema, true)
}

fn idempotency_key() -> Parameter {
    let description = "The client's name for the request (draft-ietf-httpapi-idempotency-key-header-07): sent again it \
         is not carried out again.";
    let pattern = r#"^([!#-\[\]-~]{1,255}|"[!#-\[\]-~]{1,255}")$"#;
    let schema = string().pattern(Some(pattern));
    header(
        "Idempotency-Key",
        description,
        schema,
        "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
    )
}

fn prefer() -> Parameter {
    let description = "`return=minimal` for an answer without the value (RFC 7240).";
    header("Prefer", description, string(), "return=minimal")
}

fn last_event_id() -> Parameter {
    let description = "The `id` of the last event that the client saw: it is told what happened since. What is no \
         version of the document is as none.";
    header("Last-Event-ID", description, string(), EXAMPLE_VERSION)
}

/// Entity tags, or any. Lists may have empty elements, and none (RFC 9110, section 5.6.1).
fn tags() -> ObjectBuilder {
    string().pattern(Some(
        r#"^(\*|[ ,]*|[ ,]*(W/)?"[^"]*"( *,[ ,]*(W/)?"[^"]*")*[ ,]*)$"#,
    ))
}

fn tag() -> String {
    format!("\"{EXAMPLE_VERSION}\"")
}

fn required(
    name: &str,
    description: &str,
    schema: impl Into<RefOr<Schema>>,
    example: impl Into<serde_json::Value>,
) -> Parameter {
    parameter(ParameterIn::Path, name, description, schema, example)
}

fn query(
    name: &str,
    description: &str,
    schema: impl Into<RefOr<Schema>>,
    example: impl Into<serde_json::Value>,
) -> Parameter {
    parameter(ParameterIn::Query, name, description, schema, example)
}

fn header(
    name: &str,
    description: &str,
    schema: impl Into<RefOr<Schema>>,
    example: &str,
) -> Parameter {
    parameter(ParameterIn::Header, name, description, schema, example)
}

fn parameter(
    place: ParameterIn,
    name: &str,
    description: &str,
    schema: impl Into<RefOr<Schema>>,
    example: impl Into<serde_json::Value>,
) -> Parameter {
    let is_required = if place == ParameterIn::Path {
        Required::True
    } else {
        Required::False
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(is_required)
        .description(Some(description))
        .schema(Some(schema))
        .example(Some(example.into()))
        .build()
}
