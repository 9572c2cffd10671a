//! A new document with another's history up to a version: the same changes, under their hashes.

use std::sync::Arc;

use std::collections::HashSet;

use automerge::{Automerge, ChangeHash};
use axum::Extension;
use axum::body::{Body, HttpBody as _};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use concord_shared::change::{Change, Chunk, parse_chunks};
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, IdError};
use concord_shared::limits::Limits;
use concord_shared::path::Path;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Type};

use super::Documents;
use super::address::{Address, At, Parameters, address, url_of};
use super::past::{heads, must_have};
use super::unfit;
use crate::access::Identity;
use crate::audit::event::Event;
use crate::http::body;
use crate::http::idempotency::Fingerprint;
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, parameters};
use crate::http::problem::{Code, Problem};
use crate::limits::account::Account;
use crate::materialise;

/// What is to be forked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Fork {
    /// The version, or the time; now, if there is none.
    #[schema(schema_with = optional_version)]
    at: Option<String>,
    /// The id of the new document; a new one, if there is none.
    #[schema(schema_with = optional_id)]
    id: Option<String>,
}

fn optional_version() -> OneOfBuilder {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    parameters::version_or_time().item(null)
}

fn optional_id() -> ObjectBuilder {
    let types = [Type::String, Type::Null];
    parameters::document_id().schema_type(SchemaType::from_iter(types))
}

/// Part of a document's history, and the document that it makes.
pub(super) struct Part {
    pub(super) doc: Automerge,
    pub(super) changes: Vec<Change>,
}

/// The new document.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Forked {
    /// Its id.
    id: String,
    /// Its URL among Automerge clients: `automerge:` and the id.
    url: String,
}

/// Fork a document
///
/// A new document of the same changes, under their hashes, up to a version: it can still be merged with what it came
/// from. Without a body it is of now, under a new id.
#[utoipa::path(
    post,
    path = "/v1/documents/{id}/fork",
    operation_id = "fork",
    tag = "History",
    params(parameters::Document, parameters::Retrying),
    request_body(content((Option<Fork> = "application/json", example = json!({"at": "2026-11-21T00:00:00Z"})))),
    responses(answers::Fork, Fails<400>, Fails<404>, Fails<412>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn fork(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    Parameters::of(query, &[])?;
    let key = documents.keys.of(&headers, &identity.principal)?;
    let (fork, asked) = if body.is_end_stream() {
        (Fork::default(), Fingerprint::of(b""))
    } else {
        let parsed = documents
            .read_json(&account, &headers, body, &Path::root())
            .await?;
        let fork = match &parsed.json {
            serde_json::Value::Null => Fork::default(),
            json => body::object(json)?,
        };
        (fork, parsed.fingerprint)
    };
    let document = documents.reader(&identity, &id).await?;
    let at = fork.at.as_deref().map(At::parse).transpose()?;
    // Nobody else makes a document under that id.
    let is_by_key = key.is_some() && fork.id.is_none();
    let (new, maker) = if let Some(id) = fork.id {
        let bad = |error: IdError| Problem::new(Code::BadId, error.to_string());
        let new = DocumentId::parse_url(&id).map_err(bad)?;
        let maker = documents.maker(&identity, &new).await?;
        (new, maker)
    } else {
        let random = || DocumentId::from_uuid(*uuid::Uuid::new_v4().as_bytes());
        let new = key.as_ref().map_or_else(random, |key| key.fork(&id, asked));
        let maker = documents.maker_of_new(&identity, &new).await?;
        (new, maker)
    };
    let version = match at {
        Some(at) => Some(document.version(at).await?),
        None => None,
    };
    // As an import, of which there are so many at a time: a whole document waits in memory for its view.
    let turn = account.imports.turn(&documents.imports).await;
    let part = document.past(&account, move |doc| match version {
        Some(version) => {
            must_have(doc, &version.0)?;
            part(doc, &version.0)
        }
        None => part(doc, &doc.get_heads()),
    });
    let Part { doc, changes } = part.await?;
    let forked = new.clone();
    let made = maker.make(&account, move |core| {
        let _turn = turn;
        let version = heads(&doc);
        let there = core.heads();
        if there.is_empty() {
            let adopted = core.adopt(identity.principal, doc, changes);
            adopted.map_err(|failure| unfit(core, failure))?;
            identity.trail.record(&Event::Forked {
                document: &forked,
                from: &id,
            });
            return Ok((true, Some(version)));
        }
        // Who was not told that it was forked, and forks it again, has forked it; and both may have gone on since.
        let is_same = there == version.0;
        let mut all = changes.iter();
        if is_same || is_by_key && all.any(|change| core.has(&[change.hash])) {
            return Ok((false, is_same.then_some(version)));
        }
        let detail = "the document is there, and is another";
        Err(Problem::new(Code::Exists, detail))
    });
    let (is_new, version) = made.await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = Forked {
        id: new.to_string(),
        url: new.url(),
    };
    let mut response = (status, axum::Json(body)).into_response();
    // What has gone on since is not known to who asks.
    response
        .headers_mut()
        .extend(version.map(|version| (header::ETAG, version.etag())));
    if is_new && let Ok(location) = HeaderValue::try_from(url_of(&new)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The changes up to a version, which the document must have. Blocks, as long as loading them takes.
pub(super) fn part(doc: &Automerge, heads: &[ChangeHash]) -> Result<Part, Problem> {
    let internal = || Problem::new(Code::Wire(ErrorCode::Internal), "");
    let later = doc.get_changes_meta(heads);
    let later: HashSet<ChangeHash> = later.into_iter().map(|change| change.hash).collect();
    let mut changes = Vec::new();
    for change in doc.get_changes(&[]) {
        if later.contains(&change.hash()) {
            continue;
        }
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        // They were admitted once, whatever the limits are now.
        let mut chunks = parse_chunks(&bytes, &Limits::unbounded()).map_err(|_| internal())?;
        match chunks.pop() {
            Some(Chunk::Change(change)) => changes.push(change),
            _ => return Err(internal()),
        }
    }
    let bytes: Vec<Bytes> = changes.iter().map(|change| change.bytes.clone()).collect();
    let doc = if later.is_empty() {
        doc.clone()
    } else {
        materialise::load(&bytes).map_err(|_| internal())?
    };
    Ok(Part { doc, changes })
}
