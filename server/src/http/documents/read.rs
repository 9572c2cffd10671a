//! Reading: values, whole documents, and the list of them.

use std::sync::Arc;

use automerge::{Automerge, ChangeHash};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use concord_shared::code::ErrorCode;
use concord_shared::json::{self, Types};
use concord_shared::path::{NoPlace, Path};
use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::Documents;
use super::address::{Address, At, Parameters, address};
use super::fork::part;
use super::found::readable;
use super::past::{immutable, must_have};
use crate::access::Identity;
use crate::audit::event::Event;
use crate::clock::signed_ms;
use crate::http::accept::{AUTOMERGE, JSON, media_type};
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, parameters};
use crate::http::problem::{Code, Problem};
use crate::http::version::{Form, Had, Version};
use crate::limits::account::Account;
use crate::view::Core;

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

/// Pages of the list of documents that are looked for at a time.
pub const CONCURRENT_LISTS: usize = 2;

/// Documents in one page of the list, unless fewer are asked for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DocumentList {
    /// In the order of their ids.
    documents: Vec<ListedDocument>,
    /// The `after` of the next page, for whoever asks; null on the last one.
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
#[serde(untagged)]
enum Summary {
    #[serde(rename_all = "camelCase")]
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
/// In the order of their ids, a page at a time. A page may have fewer than `limit`, and none, and not be the last one.
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
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    media_type(&headers, &[JSON])?;
    let parameters = Parameters::of(query, &["after", "limit"])?;
    let who = identity.principal.clone();
    let cursors = documents.cursors.clone();
    let after = parameters.after.as_deref().map(|text| {
        let bad = || Problem::new(Code::BadQuery, "after is the `next` of a page of one's own");
        cursors.open(&who, text).ok_or_else(bad)
    });
    let after = after.transpose()?;
    let limit = parameters.limit()?;
    let grants = documents.grants.clone();
    if !grants.knows_documents_of(&identity) {
        let detail = "which documents they may read is known to the application that decides it";
        return Err(Problem::new(Code::NotAllowed, detail));
    }
    // Each is hundreds of reads.
    let turn = account.lists.turn(&documents.lists).await;
    let list = move |store: &_| {
        let _turn = turn;
        readable(store, &grants, &identity, after.as_ref(), limit)
    };
    let (found, next) = documents.stored(list).await?;
    let next = next.map(|last| cursors.seal(&who, &last)).transpose();
    let next = next.map_err(|_| Problem::new(Code::Wire(ErrorCode::Internal), ""))?;
    let documents = found.iter().map(|info| ListedDocument {
        id: info.document.to_string(),
        url: info.document.url(),
        summary: match &info.summary {
            Ok(summary) => Summary::Readable {
                created_at: json::timestamp(signed_ms(summary.created_at_ms)),
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
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let form = match media_type(&headers, &[JSON, AUTOMERGE]) {
        Ok(AUTOMERGE) => Form::Automerge,
        Ok(_) => Form::Json,
        Err(problem) => return Err(problem),
    };
    let mut response = documents
        .show((&identity, &account), &headers, &uri, query, form)
        .await?;
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
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    media_type(&headers, &[JSON])?;
    documents
        .show((&identity, &account), &headers, &uri, query, Form::Json)
        .await
}

impl Documents {
    /// Shows what is at an address, now or at a version, unless the reader has that.
    async fn show(
        &self,
        (identity, account): (&Identity, &Account),
        headers: &HeaderMap,
        uri: &Uri,
        query: Result<Query<Parameters>, QueryRejection>,
        form: Form,
    ) -> Result<Response, Problem> {
        let Address { id, path } = address(uri)?;
        let parameters = Parameters::of(query, &["at", "types"])?;
        let (types, at) = (parameters.types()?, parameters.at()?);
        let shown = Asked {
            path,
            types,
            form,
            had: Had::of(headers)?,
        };
        let is_fixed = matches!(at, Some(At::Version(_)));
        let document = self.reader(identity, &id).await?;
        let response = match at {
            None => {
                let now = move |core: &Core| shown.show(core.doc(), Version(core.heads()), None);
                document.see(now).await?
            }
            Some(at) => {
                let at = document.version(at).await?;
                let then = move |doc: &Automerge| {
                    must_have(doc, &at.0)?;
                    let heads = at.0.clone();
                    shown.show(doc, at, Some(&heads))
                };
                document.past(account, then).await?
            }
        };
        if form == Form::Automerge && response.status() == StatusCode::OK {
            let document = &id;
            identity.trail.record(&Event::Exported { document });
        }
        Ok(if is_fixed {
            immutable(response)
        } else {
            response
        })
    }
}

/// What a reader asks for.
struct Asked {
    path: Path,
    types: Types,
    form: Form,
    had: Had,
}

impl Asked {
    /// What is there at a version, `heads` unless that is now; or that who asks has it already.
    fn show(
        &self,
        doc: &Automerge,
        version: Version,
        heads: Option<&[ChangeHash]>,
    ) -> Result<Response, Problem> {
        let Self {
            path,
            types,
            form,
            had,
        } = self;
        // A path that leads nowhere is no value that anybody has.
        if path.value(doc, heads)?.is_none() {
            return Err(NoPlace::Nothing { at: path.clone() }.into());
        }
        if let Some(etag) = had.etag(&version, *form) {
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
        }
        if *form == Form::Json {
            let json = json_at(doc, path, *types, heads)?;
            return Ok(Shown::json(version, json.as_ref()).into_response(StatusCode::OK));
        }
        let bytes = match heads {
            None => doc.save(),
            Some(heads) => part(doc, heads)?.doc.save(),
        };
        let headers = [
            (header::ETAG, version.etag_of(Form::Automerge)),
            (header::CONTENT_TYPE, HeaderValue::from_static(AUTOMERGE)),
        ];
        Ok((headers, bytes).into_response())
    }
}
