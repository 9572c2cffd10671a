//! The changes of a document: pages of them, and each with what it changed.

use std::sync::Arc;

use automerge::{Automerge, ChangeHash, ChangeMetadata};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::json;
use concord_shared::path::Path;
use serde_json::{Map, Value as Json, json};

use super::Documents;
use super::address::{Address, Parameters, address};
use super::diff::{Between, operations};
use super::past::immutable;
use crate::document::arrivals::{self, Arrival};
use crate::document::graph::Index;
use crate::http::problem::{Code, Problem};
use crate::http::version::{Form, Had, Version};
use crate::replay::made_ms;

/// Changes in a page, unless fewer are asked for.
const CHANGES_PER_PAGE: usize = 100;
/// Most that can be asked for.
const MOST_CHANGES_PER_PAGE: usize = 1000;

/// Bytes of messages and deps, which authors can make long, after which a page ends before it is full.
const PAGE_BYTES: usize = 1 << 20;

pub(super) async fn page(
    State(documents): State<Documents>,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    let parameters = Parameters::of(query)?;
    let newest_first = parameters.newest_first()?;
    let after = parameters.after.as_deref().map(str::parse::<Index>);
    let bad = |_| Problem::new(Code::BadQuery, "after is a place");
    let after = after.transpose().map_err(bad)?;
    let limit = parameters.limit.unwrap_or(CHANGES_PER_PAGE);
    let limit = limit.clamp(1, MOST_CHANGES_PER_PAGE);
    let limit = Index::try_from(limit).unwrap_or(Index::MAX);
    documents.must_be_there(&id).await?;
    let places = if newest_first {
        let count = documents.views.stretch(&id, 0..0).await?.count;
        let end = after.unwrap_or(count).min(count);
        end.saturating_sub(limit)..end
    } else {
        let start = after.map_or(0, |after| after.saturating_add(1));
        start..start.saturating_add(limit)
    };
    let stretch = documents.views.stretch(&id, places).await?;
    let mut wanted: Vec<(Index, ChangeHash)> = stretch
        .changes()
        .map(|(place, hash, _)| (place, hash))
        .collect();
    if newest_first {
        wanted.reverse();
    }
    let mut changes = documents
        .on(&id, move |core| Ok(described(core.doc(), &wanted)))
        .await?;
    let ends = [changes.first(), changes.last()];
    let places = ends.map(|end| end.map_or(0, |(place, _)| *place));
    let first = places.into_iter().min().unwrap_or(0);
    let end = places.into_iter().max().map_or(0, |last| last + 1);
    let known = documents.arrivals(&id, first, end).await?;
    for (place, change) in &mut changes {
        let known = known.get((*place - first) as usize);
        arrived(change, known.and_then(Option::as_ref));
    }
    let next = changes.last().map(|(place, _)| *place).filter(|last| {
        if newest_first {
            *last > 0
        } else {
            last + 1 < stretch.count
        }
    });
    let changes: Vec<Json> = changes.into_iter().map(|(_, json)| json.into()).collect();
    let body = json!({ "changes": changes, "next": next, "count": stretch.count });
    Ok(axum::Json(body).into_response())
}

pub(super) async fn one(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let types = Parameters::of(query)?.types()?;
    let hash = path.steps().first().and_then(|text| Version::parse(text));
    let Some([hash]) = hash.as_ref().map(|version| version.0.as_slice()) else {
        let detail = "a change is named by its hash";
        return Err(Problem::new(Code::BadPath, detail));
    };
    let hash = *hash;
    documents.must_be_there(&id).await?;
    let missing = || Problem::new(Code::NoChange, "the document has no such change");
    let place = documents.views.place(&id, hash).await?;
    let place = place.ok_or_else(missing)?;
    let version = Version(vec![hash]);
    if let Some(etag) = Had::of(&headers)?.etag(&version, Form::Json) {
        let etag = [(header::ETAG, etag)];
        return Ok(immutable((StatusCode::NOT_MODIFIED, etag).into_response()));
    }
    let etag = [(header::ETAG, version.etag())];
    let known = documents.arrivals(&id, place, place + 1).await?;
    let change = documents.past(&id, move |doc| {
        let mut described = described(doc, &[(place, hash)]);
        let meta = doc.get_change_meta_by_hash(&hash);
        let (Some((_, mut change)), Some(meta)) = (described.pop(), meta) else {
            return Err(missing());
        };
        arrived(&mut change, known.first().and_then(Option::as_ref));
        let between = Between {
            from: meta.deps,
            to: vec![hash],
        };
        let patch = operations(doc, &Path::root(), types, &between)?;
        change.insert("patch".to_owned(), json!(patch));
        Ok(change)
    });
    let change = change.await?;
    Ok(immutable((etag, axum::Json(change)).into_response()))
}

impl Documents {
    async fn arrivals(
        &self,
        id: &DocumentId,
        first: Index,
        end: Index,
    ) -> Result<Vec<Option<Arrival>>, Problem> {
        let (store, id) = (Arc::clone(&self.store), id.clone());
        let reading = tokio::task::spawn_blocking(move || {
            arrivals::between(&*store, &id, first.into(), end.into())
        });
        match reading.await {
            Ok(Ok(arrivals)) => Ok(arrivals),
            _ => Err(Problem::new(Code::Wire(ErrorCode::StorageFailed), "")),
        }
    }
}

/// What the document says of its changes, as far as a page goes.
fn described(doc: &Automerge, wanted: &[(Index, ChangeHash)]) -> Vec<(Index, Map<String, Json>)> {
    let mut described = Vec::with_capacity(wanted.len());
    let mut bytes = 0;
    for (place, hash) in wanted {
        let Some(meta) = doc.get_change_meta_by_hash(hash) else {
            break;
        };
        bytes += meta.message.as_deref().map_or(0, str::len) + meta.deps.len() * 2 * 32;
        described.push((*place, describe(*place, &meta)));
        if bytes > PAGE_BYTES {
            break;
        }
    }
    described
}

fn describe(place: Index, meta: &ChangeMetadata<'_>) -> Map<String, Json> {
    let deps: Vec<String> = meta.deps.iter().map(ToString::to_string).collect();
    let described = [
        ("place", json!(place)),
        ("hash", json!(meta.hash.to_string())),
        ("actor", json!(meta.actor.to_hex_string())),
        ("seq", json!(meta.seq)),
        ("startOp", json!(meta.start_op)),
        (
            "ops",
            json!((meta.max_op + 1).saturating_sub(meta.start_op)),
        ),
        ("time", made_ms(meta.timestamp).map_or(Json::Null, time)),
        ("message", json!(meta.message)),
        ("deps", json!(deps)),
    ];
    let described = described.into_iter();
    described
        .map(|(key, json)| (key.to_owned(), json))
        .collect()
}

fn arrived(change: &mut Map<String, Json>, arrival: Option<&Arrival>) {
    let principal = arrival.map(|arrival| arrival.principal.as_str());
    change.insert("principal".to_owned(), json!(principal));
    let at = arrival.and_then(|arrival| i64::try_from(arrival.at_ms).ok());
    change.insert("receivedAt".to_owned(), at.map_or(Json::Null, time));
}

/// By RFC 3339; `null` for what it can't say.
fn time(ms: i64) -> Json {
    let time = json::timestamp(ms);
    if time.is_string() { time } else { Json::Null }
}
