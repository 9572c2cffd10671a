//! Reading: values, whole documents, and the list of them.

use std::sync::Arc;

use automerge::{Automerge, ChangeHash};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, IdError};
use concord_shared::json::{self, Types};
use concord_shared::path::{NoPlace, Path};
use serde_json::{Value as Json, json};

use super::Documents;
use super::address::{Address, At, Parameters, address};
use super::fork::part;
use super::past::{immutable, must_have};
use crate::http::problem::{Code, Problem};
use crate::http::version::{self, Condition, Version};
use crate::view::Core;

/// Documents in one page of the list, unless fewer are asked for.
const DOCUMENTS_PER_PAGE: usize = 100;
/// Most that can be asked for.
const MOST_DOCUMENTS_PER_PAGE: usize = 1000;

/// A document's own bytes.
const AUTOMERGE: &str = "application/vnd.automerge";

/// A value, and the version that it is of.
pub(super) struct Shown {
    pub(super) version: Version,
    /// JSON, unless there is nothing at the place any more.
    pub(super) json: Option<Vec<u8>>,
}

impl Shown {
    /// What is at a path now.
    pub(super) fn of(core: &Core, path: &Path, types: Types) -> Result<Self, Problem> {
        let json = json_at(core.doc(), path, types, None)?;
        Ok(Self::json(Version(core.heads()), json.as_ref()))
    }

    /// This value.
    pub(super) fn json(version: Version, json: Option<&Json>) -> Self {
        let json = json.map(|json| serde_json::to_vec(json).unwrap_or_default());
        Self { version, json }
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
    doc: &Automerge,
    path: &Path,
    types: Types,
    heads: Option<&[ChangeHash]>,
) -> Result<Option<Json>, Problem> {
    let found = path.value(doc, heads)?;
    let json = found.map(|found| json::read(doc, &found, heads, types));
    let internal = |_| Problem::new(Code::Wire(ErrorCode::Internal), "");
    json.transpose().map_err(internal)
}

pub(super) async fn list(
    State(documents): State<Documents>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
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
    let listed: Vec<Json> = found
        .iter()
        .map(|info| {
            let id = info.document.as_str();
            let url = info.document.url();
            match &info.summary {
                Ok(summary) => json!({
                    "id": id,
                    "url": url,
                    "createdAt": json::timestamp(i64::try_from(summary.created_at_ms).unwrap_or(i64::MAX)),
                    "changes": summary.changes,
                    "snapshotBytes": summary.snapshot_bytes,
                }),
                Err(_) => json!({ "id": id, "url": url, "code": "storage-failed" }),
            }
        })
        .collect();
    let body = json!({ "documents": listed, "next": next });
    Ok(axum::Json(body).into_response())
}

pub(super) async fn whole(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if !accepted.is_some_and(|accepted| accepted.contains(AUTOMERGE)) {
        return read(State(documents), headers, uri, query).await;
    }
    let Address { id, .. } = address(&uri)?;
    let at = Parameters::of(query)?.at()?;
    let is_fixed = matches!(at, Some(At::Version(_)));
    let (bytes, version) = match at {
        None => {
            documents
                .on(&id, |core| Ok((core.doc().save(), Version(core.heads()))))
                .await?
        }
        Some(at) => {
            let version = documents.version(&id, at).await?;
            let saved = documents.past(&id, move |doc| {
                must_have(doc, &version.0)?;
                Ok((part(doc, &version.0)?.doc.save(), version))
            });
            saved.await?
        }
    };
    let content_type = HeaderValue::from_static(AUTOMERGE);
    let headers = [
        (header::ETAG, version.etag()),
        (header::CONTENT_TYPE, content_type),
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    let response = (headers, bytes).into_response();
    Ok(if is_fixed {
        immutable(response)
    } else {
        response
    })
}

pub(super) async fn read(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let parameters = Parameters::of(query)?;
    let (types, at) = (parameters.types()?, parameters.at()?);
    let has = version::if_none_match(&headers)?;
    let is_fixed = matches!(at, Some(At::Version(_)));
    let (shown, is_had) = match at {
        None => {
            let shown = documents.on(&id, move |core| {
                let now = Version(core.heads());
                show(core.doc(), &path, types, now, None, &has)
            });
            shown.await?
        }
        Some(at) => {
            let at = documents.version(&id, at).await?;
            let shown = documents.past(&id, move |doc| {
                must_have(doc, &at.0)?;
                let heads = at.0.clone();
                show(doc, &path, types, at, Some(&heads), &has)
            });
            shown.await?
        }
    };
    let response = if is_had {
        let etag = [(header::ETAG, shown.version.etag())];
        (StatusCode::NOT_MODIFIED, etag).into_response()
    } else {
        shown.into_response(StatusCode::OK)
    };
    Ok(if is_fixed {
        immutable(response)
    } else {
        response
    })
}

/// What is at a path at a version, and whether who asks has it already.
fn show(
    doc: &Automerge,
    path: &Path,
    types: Types,
    version: Version,
    heads: Option<&[ChangeHash]>,
    has: &Condition,
) -> Result<(Shown, bool), Problem> {
    let is_had = match has {
        Condition::OneOf(versions) => versions.contains(&version),
        Condition::Any => true,
        Condition::None => false,
    };
    // A path that leads nowhere is no value that anybody has.
    if path.value(doc, heads)?.is_none() {
        return Err(NoPlace::Nothing { at: path.clone() }.into());
    }
    if is_had {
        return Ok((Shown::json(version, None), true));
    }
    let json = json_at(doc, path, types, heads)?;
    Ok((Shown::json(version, json.as_ref()), false))
}
