//! Who may do what with a document: `/v1/documents/{id}/access`, and what was said of that before.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use concord_shared::access::{AccessList, Role};
use concord_shared::code::ErrorCode;
use concord_shared::json;
use concord_shared::path::Path;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::address::{Address, Parameters, address};
use super::{Documents, to_its_end};
use crate::access::Identity;
use crate::access::grants::Entry;
use crate::clock::signed_ms;
use crate::document::registry::Replaces;
use crate::http::accept::{JSON, media_type};
use crate::http::body;
use crate::http::openapi::parameters;
use crate::http::openapi::problems::Fails;
use crate::http::problem::{Code, Problem};
use crate::limits::account::Account;
use crate::store::Store;

/// Bytes of lists, as they are stored, with which a page of them ends before it is full.
const PAGE_BYTES: u64 = 1 << 20;

/// Begins the tag of a list; its number follows.
const TAG: &str = "access-";

/// Who has which role. Of entries the most particular decides: a principal's own; else the highest of those of their
/// groups; else that of anyone.
#[derive(Deserialize, ToSchema)]
#[schema(as = AccessList)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what concord-shared has")]
pub(in crate::http) struct DescribedList {
    /// Whoever knows the document's id and may use the server at all; none, if it is not said.
    #[schema(required = false)]
    anyone: DescribedRole,
    /// By the names that tokens have for groups.
    #[schema(required = false)]
    groups: BTreeMap<String, DescribedRole>,
    /// By name. At least one principal or group is an owner; there are at most 256 of both.
    #[schema(required = false)]
    principals: BTreeMap<String, DescribedRole>,
}

/// What somebody may do with a document: nothing, as if it were not there; read it; write to it; and say who may do what.
#[derive(Deserialize, ToSchema)]
#[schema(as = Role)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum DescribedRole {
    None,
    Reader,
    Writer,
    Owner,
}

/// What whoever asks may do with a document; and owners are told who else may what.
#[derive(Serialize, ToSchema)]
struct Access {
    /// Of whoever asks.
    #[schema(value_type = DescribedRole)]
    role: Role,
    /// Everybody's. Only for owners; and none where nobody ever said anything of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = DescribedList, required = false)]
    list: Option<AccessList>,
}

/// What was said of who may do what, in order.
#[derive(Serialize, ToSchema)]
struct AccessHistory {
    entries: Vec<Said>,
    /// The `after` of the next page; null on the last one.
    next: Option<u64>,
}

/// Something that was said.
#[derive(Serialize, ToSchema)]
struct Said {
    /// From 0 on.
    number: u64,
    /// When (RFC 3339).
    #[schema(value_type = String, format = DateTime)]
    at: serde_json::Value,
    /// By whom.
    by: String,
    #[schema(value_type = DescribedList)]
    list: AccessList,
}

/// Read who may do what
///
/// Everybody who may read the document is told their own role, and owners who else has which.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/access",
    operation_id = "getAccess",
    tag = "Access",
    params(parameters::Document),
    responses((status = 200, description = "What whoever asks may do.", body = Access,
        headers(("ETag" = String, description = "Of the list, for owners."))),
        Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn read(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    media_type(&headers, &[JSON])?;
    Parameters::of(query, &[])?;
    let document = documents.reader(&identity, &id).await?;
    let role = document.grant.role();
    let list = document.grant.list().filter(|_| role == Role::Owner);
    Ok(shown(role, list))
}

/// Say who may do what
///
/// In place of what was said before. It holds at once, also for those who have the document open: who may read it no
/// more is told that it is not there, who may not write any more is told to stop, and who may do more need not come back
/// for it.
#[utoipa::path(
    put,
    path = "/v1/documents/{id}/access",
    operation_id = "putAccess",
    tag = "Access",
    params(parameters::Document, parameters::AccessCondition),
    request_body(content((DescribedList = "application/json",
        example = json!({"principals": {"ann": "owner"}, "groups": {"board": "writer"}, "anyone": "reader"})))),
    responses((status = 200, description = "What holds now.", body = Access,
        headers(("ETag" = String, description = "Of the list."))),
        Fails<400>, Fails<404>, Fails<409>, Fails<412>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn put(
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
    let replaces = replaces(&headers)?;
    let document = documents.owner(&identity, &id).await?;
    let parsed = documents
        .read_json(&account, &headers, body, &Path::root())
        .await?;
    let list = body::object::<AccessList>(&parsed.json)?;
    let bad = |error: concord_shared::access::ListError| {
        Problem::new(Code::BadAccessList, error.to_string())
    };
    list.check().map_err(bad)?;
    // Each name is a label, set and taken away where everybody's changes are written: one list of a caller at a time. It
    // waits for no turn that others have: their documents may be slow, and what is taken away has to be taken at once.
    let turn = account.lists.own_turn().await;
    // The turn is over when the list is written, though whoever said it has gone meanwhile.
    to_its_end(async move {
        let _turn = turn;
        let number = document.set_list(list.clone(), replaces).await?;
        // Whoever has just taken it from themselves is told what they have left.
        Ok(shown(document.grant.role(), Some((number, list))))
    })
    .await
}

/// List what was said of who may do what
///
/// For owners, in the order in which it was said.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/access/history",
    operation_id = "listAccess",
    tag = "Access",
    params(parameters::Document, parameters::AccessPage),
    responses((status = 200, description = "A page.", body = AccessHistory), Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn history(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    media_type(&headers, &[JSON])?;
    let parameters = Parameters::of(query, &["after", "limit"])?;
    let after: Option<u32> = parameters.after("a number")?;
    let limit = parameters.limit()?;
    let document = documents.owner(&identity, &id).await?;
    let id = document.id().clone();
    let from = after.map_or(0, |after| u64::from(after) + 1);
    let read = move |store: &dyn Store| {
        let page = store.access_log(&id, from, limit, PAGE_BYTES)?;
        Ok((page, store.access(&id)?))
    };
    let (log, newest) = documents.stored(read).await?;
    let newest = newest.map(|(number, _)| number);
    let last = log.last().map(|(number, _)| *number);
    let next = last.filter(|last| Some(*last) < newest);
    let said = |(number, bytes): (u64, bytes::Bytes)| {
        let Entry { at_ms, by, list } = Entry::decode(&bytes)?;
        let at = json::timestamp(signed_ms(at_ms));
        Some(Said {
            number,
            at,
            by,
            list,
        })
    };
    let entries: Option<Vec<Said>> = log.into_iter().map(said).collect();
    let unreadable = || Problem::new(Code::Wire(ErrorCode::StorageFailed), "");
    let entries = entries.ok_or_else(unreadable)?;
    Ok(axum::Json(AccessHistory { entries, next }).into_response())
}

fn shown(role: Role, list: Option<(u64, AccessList)>) -> Response {
    let (number, list) = list.unzip();
    let tag = number.and_then(|number| HeaderValue::try_from(format!("\"{TAG}{number}\"")).ok());
    let mut response = axum::Json(Access { role, list }).into_response();
    let tag = tag.map(|tag| (header::ETAG, tag));
    response.headers_mut().extend(tag);
    response
}

/// The number of a list, by its tag; who got it compressed has one with a suffix.
fn number_of(tag: &str) -> Option<u64> {
    let number = tag.strip_prefix(TAG)?;
    let (number, _suffix) = number.split_once('-').unwrap_or((number, ""));
    number.parse().ok()
}

/// What is to be replaced, by the headers.
fn replaces(headers: &HeaderMap) -> Result<Option<Replaces>, Problem> {
    let named = |name: HeaderName| headers.get_all(name).into_iter().collect::<Vec<_>>();
    let seen = named(header::IF_MATCH);
    let unseen = named(header::IF_NONE_MATCH);
    let bad = || {
        let detail = "If-Match takes one ETag of a list, or *; If-None-Match takes *";
        Problem::new(Code::UnknownHeads, detail)
    };
    match (seen.as_slice(), unseen.as_slice()) {
        ([], []) => Ok(None),
        ([], [any]) if *any == "*" => Ok(Some(Replaces::Nothing)),
        ([any], []) if *any == "*" => Ok(Some(Replaces::Something)),
        ([one], []) => {
            let number = one.to_str().ok().and_then(|tag| {
                let tag = tag.strip_prefix("W/").unwrap_or(tag);
                let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
                number_of(tag)
            });
            number
                .map(|number| Some(Replaces::Number(number)))
                .ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}
