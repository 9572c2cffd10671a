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
use crate::http::accept::{AUTOMERGE, JSON, media_type};
use crate::http::problem::{Code, Problem};
use crate::http::version::{Form, Had, Version};
use crate::view::Core;

/// Documents in one page of the list, unless fewer are asked for.
const DOCUMENTS_PER_PAGE: usize = 100;
/// Most that can be asked for.
const MOST_DOCUMENTS_PER_PAGE: usize = 1000;

/// A value, and the version that it is of.
pub(super) struct Shown {
    pub(super) version: Version,
    /// JSON, unless there is nothing at the place any more.
    pub(super) json: Option<Vec<u8>>,
    /// Whether who is told only of the version knows the value: they wrote it, and nothing came between.
    pub(super) is_known: bool,
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
        let is_fixed = matches!(at, Some(At::Version(_)));
        let wanted = Wanted {
            path,
            types,
            form,
            had: Had::of(headers)?,
        };
        let response = match at {
            None => {
                let now = self.on(&id, move |core| {
                    wanted.of(core.doc(), Version(core.heads()), None)
                });
                now.await?
            }
            Some(at) => {
                let version = self.version(&id, at).await?;
                let then = self.past(&id, move |doc| {
                    must_have(doc, &version.0)?;
                    let heads = version.0.clone();
                    wanted.of(doc, version, Some(&heads))
                });
                then.await?
            }
        };
        Ok(if is_fixed {
            immutable(response)
        } else {
            response
        })
    }
}

/// What is to be shown, unless the reader has it.
struct Wanted {
    path: Path,
    types: Types,
    form: Form,
    had: Had,
}

impl Wanted {
    fn of(
        &self,
        doc: &Automerge,
        version: Version,
        at: Option<&[ChangeHash]>,
    ) -> Result<Response, Problem> {
        // A path that leads nowhere is no value that anybody has.
        if self.path.value(doc, at)?.is_none() {
            let at = self.path.clone();
            return Err(NoPlace::Nothing { at }.into());
        }
        if let Some(etag) = self.had.etag(&version, self.form) {
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
        }
        match self.form {
            Form::Json => {
                let json = json_at(doc, &self.path, self.types, at)?;
                Ok(Shown::json(version, json.as_ref()).into_response(StatusCode::OK))
            }
            Form::Automerge => exported(doc, &version, at),
        }
    }
}

/// The document's own bytes: all of them, or those of the history up to a version.
fn exported(
    doc: &Automerge,
    version: &Version,
    at: Option<&[ChangeHash]>,
) -> Result<Response, Problem> {
    let bytes = match at {
        None => doc.save(),
        Some(heads) => part(doc, heads)?.doc.save(),
    };
    let headers = [
        (header::ETAG, version.etag_of(Form::Automerge)),
        (header::CONTENT_TYPE, HeaderValue::from_static(AUTOMERGE)),
    ];
    Ok((headers, bytes).into_response())
}
