//! The difference of two versions as JSON Patch.

use std::sync::Arc;

use automerge::{Automerge, ChangeHash};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use concord_shared::json::{self, Search, Types};
use concord_shared::path::{NoPlace, Path};
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use serde_json::Value as Json;

use super::Documents;
use super::address::{Address, At, Parameters, address};
use super::past::{heads, immutable, must_have};
use super::read::json_at;
use super::write::DIFF_TIME;
use crate::access::Identity;
use crate::http::accept::{JSON, media_type};
use crate::http::body::JSON_PATCH;
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, parameters};
use crate::http::problem::{Code, Problem};
use crate::http::version::{Form, Had, Version};
use crate::limits::account::Account;

/// Two versions; no heads are those of an empty document.
pub(super) struct Between {
    pub(super) from: Vec<ChangeHash>,
    pub(super) to: Vec<ChangeHash>,
}

/// Compare two versions
///
/// A JSON Patch that leads from one to the other, by the rules by which writes are merged; texts are replaced as a whole.
/// Where there was nothing at the place it is added at the path `""`, and where there is nothing any more it is removed.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/diff/{path}",
    operation_id = "compare",
    tag = "History",
    params(parameters::Place, parameters::Comparing),
    responses(answers::Difference, Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn diff(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let kind = media_type(&headers, &[JSON_PATCH, JSON])?;
    let parameters = Parameters::of(query, &["from", "to", "types"])?;
    let types = parameters.types()?;
    let (from, to) = (parameters.from()?, parameters.to()?);
    let had = Had::of(&headers)?;
    let is_fixed = matches!(to, Some(At::Version(_))) && !matches!(from, Some(At::Time(_)));
    let document = documents.reader(&identity, &id).await?;
    let from = match from {
        Some(from) => document.version(from).await?.0,
        None => Vec::new(),
    };
    let to = match to {
        Some(to) => Some(document.version(to).await?),
        None => None,
    };
    let made = document.past(&account, move |doc| {
        let to = to.unwrap_or_else(|| heads(doc));
        must_have(doc, &from)?;
        must_have(doc, &to.0)?;
        if let Some(etag) = had.etag(&to, Form::Json) {
            return Ok((etag, None));
        }
        let between = Between { from, to: to.0 };
        let operations = operations(doc, &path, types, &between)?;
        let bytes = serde_json::to_vec(&operations).unwrap_or_default();
        Ok((Version(between.to).etag(), Some(bytes)))
    });
    let (etag, bytes) = made.await?;
    let etag = (header::ETAG, etag);
    let response = match bytes {
        Some(bytes) => {
            let content_type = HeaderValue::from_static(kind);
            ([etag, (header::CONTENT_TYPE, content_type)], bytes).into_response()
        }
        None => (StatusCode::NOT_MODIFIED, [etag]).into_response(),
    };
    Ok(if is_fixed {
        immutable(response)
    } else {
        response
    })
}

/// What leads from what was at a path to what is there. Where there was nothing it is added as a whole, and where there
/// is nothing any more it is removed: both at the path `""`.
pub(super) fn operations(
    doc: &Automerge,
    path: &Path,
    types: Types,
    between: &Between,
) -> Result<Vec<PatchOperation>, Problem> {
    let from = there(doc, path, types, &between.from)?;
    let to = there(doc, path, types, &between.to)?;
    let whole = PointerBuf::new();
    Ok(match (from, to) {
        (Some(from), Some(to)) => json::diff(&from, &to, types, Search::at_most(DIFF_TIME)),
        (None, Some(value)) => {
            vec![PatchOperation::Add(AddOperation { path: whole, value })]
        }
        (Some(_), None) => vec![PatchOperation::Remove(RemoveOperation { path: whole })],
        (None, None) => return Err(NoPlace::Nothing { at: path.clone() }.into()),
    })
}

/// What is at a path at a version; `None` for nothing, and for what is within nothing.
pub(super) fn there(
    doc: &Automerge,
    path: &Path,
    types: Types,
    heads: &[ChangeHash],
) -> Result<Option<Json>, Problem> {
    match json_at(doc, path, types, Some(heads)) {
        Err(problem) if problem.code == Code::NoValue => Ok(None),
        found => found,
    }
}
