//! The last refusals: `/v1/refusals`. Nothing of what is in documents is among them.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use concord_shared::ids::DocumentId;
use concord_shared::json;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::problem::{Code, Problem};
use crate::connection::refusals::{Refusal, Refusals};

/// The route.
pub fn router(refusals: Arc<Refusals>) -> Router {
    Router::new()
        .route("/v1/refusals", get(list))
        .with_state(refusals)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Only those of this document.
    document: Option<String>,
}

async fn list(
    State(refusals): State<Arc<Refusals>>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let bad_query = |rejection: QueryRejection| Problem::new(Code::BadQuery, rejection.body_text());
    let Query(Parameters { document }) = query.map_err(bad_query)?;
    let document = document.as_deref().map(DocumentId::parse_url).transpose();
    let document = document.map_err(|error| Problem::new(Code::BadId, error.to_string()))?;
    let last = refusals.last(document.as_ref());
    let listed: Vec<Json> = last.iter().map(listed).collect();
    Ok(axum::Json(json!({ "refusals": listed })).into_response())
}

fn listed(refusal: &Refusal) -> Json {
    let time = |ms: u64| json::timestamp(i64::try_from(ms).unwrap_or(i64::MAX));
    let sender = &refusal.sender;
    json!({
        "code": refusal.code.as_str(),
        "reason": refusal.reason,
        "times": refusal.times,
        "firstAt": time(refusal.first_ms),
        "lastAt": time(refusal.last_ms),
        "document": refusal.document.as_ref().map(DocumentId::as_str),
        "hash": refusal.hash.map(|hash| hash.to_string()),
        "peer": sender.peer.as_ref().map(|peer| peer.as_str()),
        "principal": sender.principal.as_str(),
        "address": sender.address.to_string(),
        "connection": sender.connection.0,
    })
}
