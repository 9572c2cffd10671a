//! The description at its own addresses. It is made once, when the server starts.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Described, Page};
use super::page;
use super::parameters::Having;
use super::problems::Fails;
use crate::http::accept::{JSON, media_type};
use crate::http::problem::Problem;
use crate::http::version::{Had, hash_of};

const HTML: &str = "text/html";

/// What describes the rest, as it is sent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reference {
    document: Arc<Text>,
    page: Arc<Text>,
}

#[derive(Debug)]
struct Text {
    bytes: Bytes,
    /// A hash of the bytes, which is their tag.
    hash: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reference {
    pub(super) fn of(document: &OpenApi) -> Self {
        let json = serde_json::to_vec(document).unwrap_or_default();
        let html = page::page(document).into_string();
        let kind = |kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let policy = HeaderValue::try_from(page::content_security_policy());
        let mut of_page = vec![kind("text/html; charset=utf-8")];
        of_page.extend(policy.map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
        Self {
            document: Arc::new(Text::new(json, vec![kind(JSON)])),
            page: Arc::new(Text::new(html.into_bytes(), of_page)),
        }
    }
}

impl Text {
    fn new(bytes: Vec<u8>, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self {
            hash: hash_of(&bytes),
            bytes: bytes.into(),
            headers,
        }
    }

    /// The text, unless its reader has it. It is the same for everybody, until another server starts.
    fn answer(&self, headers: &HeaderMap) -> Result<Response, Problem> {
        let caching = HeaderValue::from_static("public, no-cache");
        let caching = (header::CACHE_CONTROL, caching);
        if let Some(etag) = Had::of(headers)?.tag(&self.hash) {
            let headers = [(header::ETAG, etag), caching];
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        let etag = HeaderValue::try_from(format!("\"{}\"", self.hash));
        let mut response = ([caching], self.bytes.clone()).into_response();
        let own = self.headers.iter().cloned();
        for (name, value) in own.chain(etag.map(|etag| (header::ETAG, etag))) {
            response.headers_mut().insert(name, value);
        }
        Ok(response)
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
