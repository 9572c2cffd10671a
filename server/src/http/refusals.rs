//! The last refusals: `/v1/refusals`. Nothing of what is in documents is among them.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use concord_shared::ids::DocumentId;
use concord_shared::json;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accept::{JSON, media_type};
use super::documents::Documents;
use super::openapi::parameters;
use super::openapi::problems::Fails;
use super::problem::{Code, Problem};
use crate::access::Identity;
use crate::clock::signed_ms;
use crate::connection::refusals::Refusal;

/// The route, and what it is.
pub fn router() -> OpenApiRouter<Documents> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What was refused, the last first.
#[derive(Debug, Serialize, ToSchema)]
struct RefusalList {
    refusals: Vec<ListedRefusal>,
}

/// Something that was refused.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedRefusal {
    /// As its sender was told.
    code: &'static str,
    /// What is wrong with it.
    reason: String,
    /// How often the same sender sent the same.
    times: u64,
    /// When it was refused first (RFC 3339).
    #[schema(value_type = String, format = DateTime)]
    first_at: Json,
    /// And last.
    #[schema(value_type = String, format = DateTime)]
    last_at: Json,
    /// What it was for, if that could be read.
    document: Option<String>,
    /// The change, if that could be read.
    hash: Option<String>,
    /// What its sender called itself, if it had joined.
    peer: Option<String>,
    /// Who sent it.
    principal: String,
    /// From where.
    address: String,
    /// On which connection.
    connection: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Only those of this document.
    document: Option<String>,
}

/// List refusals
///
/// What the server refused since it was started, of what came by WebSocket or as an import; the last first.
#[utoipa::path(
    get,
    path = "/v1/refusals",
    operation_id = "listRefusals",
    tag = "Operation",
    params(parameters::OfDocument),
    responses((status = 200, description = "What was refused.", body = RefusalList), Fails<400>, Fails<406>),
)]
async fn list(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    media_type(&headers, &[JSON])?;
    let bad_query = |rejection: QueryRejection| Problem::new(Code::BadQuery, rejection.body_text());
    let Query(Parameters { document }) = query.map_err(bad_query)?;
    let document = document.as_deref().map(DocumentId::parse_url).transpose();
    let document = document.map_err(|error| Problem::new(Code::BadId, error.to_string()))?;
    let operator = documents.operator(&identity)?;
    let last = documents.refusals(operator).last(document.as_ref());
    let refusals = last.iter().map(ListedRefusal::of).collect();
    Ok(axum::Json(RefusalList { refusals }).into_response())
}

impl ListedRefusal {
    fn of(refusal: &Refusal) -> Self {
        let time = |ms: u64| json::timestamp(signed_ms(ms));
        let sender = &refusal.sender;
        Self {
            code: refusal.code.as_str(),
            reason: refusal.reason.clone(),
            times: refusal.times,
            first_at: time(refusal.first_ms),
            last_at: time(refusal.last_ms),
            document: refusal.document.as_ref().map(ToString::to_string),
            hash: refusal.hash.map(|hash| hash.to_string()),
            peer: sender.peer.as_ref().map(ToString::to_string),
            principal: sender.principal.to_string(),
            address: sender.address.to_string(),
            connection: sender.connection.0,
        }
    }
}
