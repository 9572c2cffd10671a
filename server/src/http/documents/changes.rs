//! The changes of a document: pages of them, and each with what it changed.

use std::sync::Arc;

use automerge::{Automerge, ChangeHash, ChangeMetadata};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use concord_shared::json;
use concord_shared::path::Path;
use json_patch::PatchOperation;
use serde::Serialize;
use utoipa::ToSchema;

use super::Documents;
use super::address::{Address, Parameters, address};
use super::diff::{Between, operations};
use super::granted::Reader;
use crate::access::Identity;
use crate::document::arrivals::{self, Arrival};
use crate::document::graph::Index;
use crate::http::accept::{JSON, media_type};
use crate::http::openapi::bodies::JsonPatch;
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, parameters};
use crate::http::problem::{Code, Problem};
use crate::http::version::{Form, Had, Version};
use crate::limits::account::Account;
use crate::replay::made_ms;

/// Bytes of messages and deps, which authors can make long, after which a page ends before it is full.
const PAGE_BYTES: usize = 1 << 20;

/// A change, and what is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DescribedChange {
    /// Which one it was that the server admitted, from 0.
    #[schema(value_type = u32)]
    place: Index,
    /// Its hash.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
    /// Whoever made it, as Automerge tells them apart.
    actor: String,
    /// Which one of its actor's changes it is, from 1.
    seq: u64,
    /// The counter of its first op.
    start_op: u64,
    /// How many ops it has.
    ops: u64,
    /// When it was made, as its author says (RFC 3339).
    #[schema(format = DateTime)]
    time: Option<String>,
    /// What its author said of it.
    message: Option<String>,
    /// The hashes of the changes that it builds on.
    deps: Vec<String>,
    /// From whom the server got it.
    principal: Option<String>,
    /// When the server got it (RFC 3339).
    #[schema(format = DateTime)]
    received_at: Option<String>,
}

/// A page of changes.
#[derive(Debug, Serialize, ToSchema)]
struct ChangeList {
    /// Each after all that it builds on, or before it where the newest come first.
    changes: Vec<DescribedChange>,
    /// The `after` of the next page; null on the last one.
    #[schema(value_type = Option<u32>)]
    next: Option<Index>,
    /// How many changes the document has.
    #[schema(value_type = u32)]
    count: Index,
}

/// A change, and what it changed.
#[derive(Debug, Serialize, ToSchema)]
struct PatchedChange {
    #[serde(flatten)]
    change: DescribedChange,
    /// From the document as its author saw it to it with the change.
    #[schema(value_type = JsonPatch)]
    patch: Vec<PatchOperation>,
}

/// List changes
///
/// In the order in which the server admitted them.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/changes",
    operation_id = "listChanges",
    tag = "History",
    params(parameters::Document, parameters::ChangePage),
    responses((status = 200, description = "A page.", body = ChangeList), Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn page(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    media_type(&headers, &[JSON])?;
    let parameters = Parameters::of(query, &["after", "limit", "order"])?;
    let newest_first = parameters.newest_first()?;
    let after: Option<Index> = parameters.after("a place")?;
    let limit = Index::try_from(parameters.limit()?).unwrap_or(Index::MAX);
    let document = documents.reader(&identity, &id).await?;
    let places = if newest_first {
        let count = document.stretch(0..0).await?.count;
        let end = after.unwrap_or(count).min(count);
        end.saturating_sub(limit)..end
    } else {
        let start = after.map_or(0, |after| after.saturating_add(1));
        start..start.saturating_add(limit)
    };
    let stretch = document.stretch(places).await?;
    let mut wanted: Vec<(Index, ChangeHash)> = stretch
        .changes()
        .map(|(place, hash, _)| (place, hash))
        .collect();
    if newest_first {
        wanted.reverse();
    }
    let mut changes = document
        .see(move |core| Ok(described(core.doc(), &wanted)))
        .await?;
    let ends = [changes.first(), changes.last()];
    let places = ends.map(|end| end.map_or(0, |change| change.place));
    let first = places.into_iter().min().unwrap_or(0);
    let end = places.into_iter().max().map_or(0, |last| last + 1);
    let known = document.arrivals(first, end).await?;
    for change in &mut changes {
        let known = known.get((change.place - first) as usize);
        change.arrived(known.and_then(Option::as_ref));
    }
    let next = changes.last().map(|change| change.place).filter(|last| {
        if newest_first {
            *last > 0
        } else {
            last + 1 < stretch.count
        }
    });
    let body = ChangeList {
        changes,
        next,
        count: stretch.count,
    };
    Ok(axum::Json(body).into_response())
}

/// Read a change
///
/// With its patch: from the document as its author saw it, which is the version of its `deps`, to it with the change.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/changes/{hash}",
    operation_id = "getChange",
    tag = "History",
    params(parameters::Document, parameters::OneChange),
    responses((status = 200, description = "The change.", body = PatchedChange,
        headers(("ETag" = String, description = "The version that the change makes of its deps."))),
        answers::Unchanged, Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn one(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    media_type(&headers, &[JSON])?;
    let types = Parameters::of(query, &["types"])?.types()?;
    let hash = path.steps().first().and_then(|text| Version::parse(text));
    let Some([hash]) = hash.as_ref().map(|version| version.0.as_slice()) else {
        let detail = "a change is named by its hash";
        return Err(Problem::new(Code::BadPath, detail));
    };
    let hash = *hash;
    let document = documents.reader(&identity, &id).await?;
    let missing = || Problem::new(Code::NoChange, "the document has no such change");
    let place = document.place(hash).await?;
    let place = place.ok_or_else(missing)?;
    let version = Version(vec![hash]);
    let etag = [(header::ETAG, version.etag())];
    if let Some(etag) = Had::of(&headers)?.etag(&version, Form::Json) {
        let etag = [(header::ETAG, etag)];
        return Ok((StatusCode::NOT_MODIFIED, etag).into_response());
    }
    let known = document.arrivals(place, place + 1).await?;
    let change = document.past(&account, move |doc| {
        let mut described = described(doc, &[(place, hash)]);
        let meta = doc.get_change_meta_by_hash(&hash);
        let (Some(mut change), Some(meta)) = (described.pop(), meta) else {
            return Err(missing());
        };
        change.arrived(known.first().and_then(Option::as_ref));
        let between = Between {
            from: meta.deps,
            to: vec![hash],
        };
        let patch = operations(doc, &Path::root(), types, &between)?;
        Ok(PatchedChange { change, patch })
    });
    let change = change.await?;
    Ok((etag, axum::Json(change)).into_response())
}

impl Reader {
    async fn arrivals(&self, first: Index, end: Index) -> Result<Vec<Option<Arrival>>, Problem> {
        let id = self.id().clone();
        let read = move |store: &_| arrivals::between(store, &id, first.into(), end.into());
        self.documents.stored(read).await
    }
}

/// What the document says of its changes, as far as a page goes.
fn described(doc: &Automerge, wanted: &[(Index, ChangeHash)]) -> Vec<DescribedChange> {
    let mut described = Vec::with_capacity(wanted.len());
    let mut bytes = 0;
    for (place, hash) in wanted {
        let Some(meta) = doc.get_change_meta_by_hash(hash) else {
            break;
        };
        bytes += meta.message.as_deref().map_or(0, str::len) + meta.deps.len() * 2 * 32;
        described.push(DescribedChange::of(*place, &meta));
        if bytes > PAGE_BYTES {
            break;
        }
    }
    described
}

impl DescribedChange {
    fn of(place: Index, meta: &ChangeMetadata<'_>) -> Self {
        Self {
            place,
            hash: meta.hash.to_string(),
            actor: meta.actor.to_hex_string(),
            seq: meta.seq,
            start_op: meta.start_op,
            ops: (meta.max_op + 1).saturating_sub(meta.start_op),
            time: made_ms(meta.timestamp).and_then(time),
            message: meta.message.as_deref().map(str::to_owned),
            deps: meta.deps.iter().map(ToString::to_string).collect(),
            principal: None,
            received_at: None,
        }
    }

    fn arrived(&mut self, arrival: Option<&Arrival>) {
        let principal = arrival.map(|arrival| arrival.principal.to_string());
        self.principal = principal;
        let at = arrival.and_then(|arrival| i64::try_from(arrival.at_ms).ok());
        self.received_at = at.and_then(time);
    }
}

/// By RFC 3339; `None` for what it can't say.
fn time(ms: i64) -> Option<String> {
    let time = json::timestamp(ms);
    time.as_str().map(str::to_owned)
}
