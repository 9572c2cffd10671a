//! Reading: values, whole documents, and the list of them.

use std::sync::Arc;

use automerge::ChangeHash;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, IdError};
use concord_shared::json::{self, Types};
use concord_shared::path::{NoPlace, Path};
use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::Documents;
use super::address::{Address, Parameters, address};
use crate::http::accept::{AUTOMERGE, JSON, media_type};
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, parameters};
use crate::http::problem::{Code, Problem};
use crate::http::version::{Form, Had, Version};
use crate::view::Core;

/// Documents in one page of the list, unless fewer are asked for.
const DOCUMENTS_PER_PAGE: usize = 100;
/// Most that can be asked for.
const MOST_DOCUMENTS_PER_PAGE: usize = 1000;

/// Of a version that was named: it stays what it is. Only for the browser that asked, and not for caches between, as
/// for all answers.
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// A value, and the version that it is of.
pub(super) struct Shown {
    pub(super) version: Version,
    /// JSON, unless there is nothing at the place any more.
    pub(super) json: Option<Vec<u8>>,
    /// Whether who is told only of the version knows the value: they wrote it, and nothing came between.
    pub(super) is_known: bool,
}

impl Shown {
    /// What is at a path, now or at a version that is part of the document.
    pub(super) fn of(
        core: &Core,
        path: &Path,
        types: Types,
        at: Option<Version>,
    ) -> Result<Self, Problem> {
        let heads = at.as_ref().map(|version| version.0.as_slice());
        let json = json_at(core, path, types, heads)?;
        let version = at.unwrap_or_else(|| Version(core.heads()));
        Ok(Self::json(version, json.as_ref()))
    }

    /// This value.
    pub(super) fn json(version: Version, json: Option<&Json>) -> Self {
        let json = json.map(|json| serde_json::to_vec(json).unwrap_or_default());
        Self {
            version,
            json,
            is_known: true,
        }
    }

    pub(super) fn into_response(self, status: StatusCode) -> Response {
        let etag = (header::ETAG, self.version.etag());
        match self.json {
            Some(json) => {
                let content_type = HeaderValue::from_static("application/json");
                let headers = [etag, (header::CONTENT_TYPE, content_type)];
                (status, headers, json).into_response()
            }
            None => (StatusCode::NO_CONTENT, [etag]).into_response(),
        }
    }
}

/// What is at a path, as JSON, now or at a version that is part of the document.
pub(super) fn json_at(
    core: &Core,
    path: &Path,
    types: Types,
    heads: Option<&[ChangeHash]>,
) -> Result<Option<Json>, Problem> {
    let found = path.value(core.doc(), heads)?;
    let json = found.map(|found| json::read(core.doc(), &found, heads, types));
    let internal = |_| Problem::new(Code::Wire(ErrorCode::Internal), "");
    json.transpose().map_err(internal)
}

/// Documents in one page of the list, unless fewer are asked for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DocumentList {
    /// In the order of their ids.
    documents: Vec<ListedDocument>,
    /// The `after` of the next page; null on the last one.
    next: Option<String>,
}

/// What is known of a document without opening it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedDocument {
    /// Its id.
    id: String,
    /// Its URL among Automerge clients: `automerge:` and the id.
    url: String,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Summary {
    Readable {
        /// When the server got it (RFC 3339).
        #[schema(value_type = String, format = DateTime)]
        created_at: Json,
        /// How many changes it has.
        changes: u64,
        /// Bytes of its snapshot.
        snapshot_bytes: u64,
    },
    Unreadable {
        /// `storage-failed`: what is stored of it can't be read.
        code: &'static str,
    },
}

/// List documents
///
/// In the order of their ids, a page at a time.
#[utoipa::path(
    get,
    path = "/v1/documents",
    operation_id = "listDocuments",
    tag = "Documents",
    params(parameters::Page),
    responses((status = 200, description = "A page.", body = DocumentList), Fails<400>, Fails<406>),
)]
pub(super) async fn list(
    State(documents): State<Documents>,
    headers: HeaderMap,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    media_type(&headers, &[JSON])?;
    let parameters = Parameters::of(query)?;
    let bad_id = |error: IdError| Problem::new(Code::BadId, error.to_string());
    let after = parameters.after.as_deref().map(DocumentId::parse_url);
    let after = after.transpose().map_err(bad_id)?;
    let limit = parameters.limit.unwrap_or(DOCUMENTS_PER_PAGE);
    let limit = limit.clamp(1, MOST_DOCUMENTS_PER_PAGE);
    let store = Arc::clone(&documents.store);
    let found = tokio::task::spawn_blocking(move || store.documents(after.as_ref(), limit)).await;
    let Ok(Ok(found)) = found else {
        return Err(Problem::new(Code::Wire(ErrorCode::StorageFailed), ""));
    };
    let is_last = found.len() < limit;
    let next = found.last().filter(|_| !is_last);
    let next = next.map(|info| info.document.to_string());
    let documents = found.iter().map(|info| ListedDocument {
        id: info.document.to_string(),
        url: info.document.url(),
        summary: match &info.summary {
            Ok(summary) => Summary::Readable {
                created_at: json::timestamp(
                    i64::try_from(summary.created_at_ms).unwrap_or(i64::MAX),
                ),
                changes: summary.changes,
                snapshot_bytes: summary.snapshot_bytes,
            },
            Err(_) => Summary::Unreadable {
                code: ErrorCode::StorageFailed.as_str(),
            },
        },
    });
    let body = DocumentList {
        documents: documents.collect(),
        next,
    };
    Ok(axum::Json(body).into_response())
}

/// Read a document
///
/// As JSON, or with `Accept: application/vnd.automerge` its own bytes; with `at` those of its history up to there.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}",
    operation_id = "getDocument",
    tag = "Documents",
    params(parameters::Document, parameters::Reading),
    responses(answers::Whole, Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn whole(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let form = match media_type(&headers, &[JSON, AUTOMERGE]) {
        Ok(AUTOMERGE) => Form::Automerge,
        Ok(_) => Form::Json,
        Err(problem) => return Err(problem),
    };
    let mut response = documents.show(&headers, &uri, query, form).await?;
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().append(header::VARY, vary);
    Ok(response)
}

/// Read a value
///
/// What is at a place in a document, now or at any version that it ever had.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/value/{path}",
    operation_id = "getValue",
    tag = "Values",
    params(parameters::Place, parameters::Reading),
    responses(answers::Value, Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn read(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    media_type(&headers, &[JSON])?;
    documents.show(&headers, &uri, query, Form::Json).await
}

impl Documents {
    /// Shows what is at an address, now or at a version, unless the reader has that.
    async fn show(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        query: Result<Query<Parameters>, QueryRejection>,
        form: Form,
    ) -> Result<Response, Problem> {
        let Address { id, path } = address(uri)?;
        let parameters = Parameters::of(query)?;
        let (types, at) = (parameters.types()?, parameters.at()?);
        let is_forever = at.is_some();
        let had = Had::of(headers)?;
        let shown = self.on(&id, move |core| {
            if let Some(at) = &at
                && !core.has(&at.0)
            {
                let detail = "the document never had that version";
                return Err(Problem::new(Code::NoVersion, detail));
            }
            let now = at.clone().unwrap_or_else(|| Version(core.heads()));
            // A path that leads nowhere is no value that anybody has.
            if path.value(core.doc(), Some(&now.0))?.is_none() {
                return Err(NoPlace::Nothing { at: path }.into());
            }
            if let Some(etag) = had.etag(&now, form) {
                return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
            }
            match form {
                Form::Json => Ok(Shown::of(core, &path, types, at)?.into_response(StatusCode::OK)),
                Form::Automerge => exported(core, now, at),
            }
        });
        let mut response = shown.await?;
        if is_forever {
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, FOREVER);
        }
        Ok(response)
    }
}

/// The document's own bytes: all of them, or those of the history up to a version.
fn exported(core: &Core, version: Version, at: Option<Version>) -> Result<Response, Problem> {
    let internal = |_| Problem::new(Code::Wire(ErrorCode::Internal), "");
    let bytes = match at {
        None => core.doc().save(),
        Some(at) => core.doc().fork_at(&at.0).map_err(internal)?.save(),
    };
    let headers = [
        (header::ETAG, version.etag_of(Form::Automerge)),
        (header::CONTENT_TYPE, HeaderValue::from_static(AUTOMERGE)),
    ];
    Ok((headers, bytes).into_response())
}
