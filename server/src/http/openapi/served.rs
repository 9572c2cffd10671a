//! The description at its own addresses. It is made once, when the server starts.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Described, Page};
use super::page;
use super::parameters::Having;
use super::problems::Fails;
use crate::http::accept::{JSON, media_type};
use crate::http::constant::Constant;
use crate::http::problem::Problem;

const HTML: &str = "text/html";

/// What describes the rest, as it is sent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reference {
    document: Arc<Constant>,
    page: Arc<Constant>,
}

impl Reference {
    pub(super) fn of(document: &OpenApi) -> Self {
        let json = serde_json::to_vec(document).unwrap_or_default();
        let html = page::page(document).into_string();
        let common = |kind| {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
            let caching = HeaderValue::from_static("public, no-cache");
            vec![kind, (header::CACHE_CONTROL, caching)]
        };
        let policy = HeaderValue::try_from(page::content_security_policy());
        let mut of_page = common("text/html; charset=utf-8");
        of_page.extend(policy.map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
        Self {
            document: Arc::new(Constant::new(json, common(JSON))),
            page: Arc::new(Constant::new(html, of_page)),
        }
    }
}

pub(super) fn routes() -> OpenApiRouter<Reference> {
    OpenApiRouter::new()
        .routes(routes!(document))
        .routes(routes!(show))
}

/// This document
///
/// `OpenAPI` 3.1, made by the server of what it answers to.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "getOpenApi", tag = "Reference",
    params(Having), responses(Described, Fails<400>, Fails<406>))]
async fn document(
    State(reference): State<Reference>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    media_type(&headers, &[JSON])?;
    reference.document.answer(&headers)
}

/// This document as a page
///
/// Without scripts.
#[utoipa::path(get, path = "/v1/docs", operation_id = "getDocs", tag = "Reference",
    params(Having), responses(Page, Fails<400>, Fails<406>))]
async fn show(State(reference): State<Reference>, headers: HeaderMap) -> Result<Response, Problem> {
    media_type(&headers, &[HTML])?;
    reference.page.answer(&headers)
}
