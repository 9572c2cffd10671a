//! Long answers in JSON, compressed for who takes that.
//!
//! They are compressed as they are sent, piece by piece: a slow reader costs no more, and nobody else waits for a long
//! one ([`waiting`](super::waiting) hands them out in pieces, with a pause after each). Streams of events are left as
//! they are, as each must leave at once; so are a document's own bytes, which are compact already.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, Response as Generic, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::CompressionLevel;
use tower_http::compression::{CompressionLayer, Predicate};

use super::accept::prefers_coding;
use super::body::GZIP;
use super::version;

/// Bytes of an answer from which on it is compressed: what is shorter fits into a few packets anyway.
const LEAST_BYTES: u64 = 4 << 10;

/// Compresses what [`negotiate`] asks for. By the fastest level: it makes a fifth of JSON, and the best one a sixth, in
/// five times the time.
pub fn layer() -> CompressionLayer<Long> {
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(Long)
}

/// JSON of some length.
#[derive(Debug, Clone, Copy)]
pub struct Long;

impl Predicate for Long {
    fn should_compress<B: hyper::body::Body>(&self, response: &Generic<B>) -> bool {
        let headers = response.headers();
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let told = headers.get(header::CONTENT_LENGTH);
        let told = told.and_then(|length| length.to_str().ok()?.parse().ok());
        // A HEAD has no body, and says all the same what the GET says.
        let length = told.or_else(|| response.body().size_hint().exact());
        kind.contains("json") && length.is_some_and(|length| length >= LEAST_BYTES)
    }
}

/// Around [`layer`]: says whether to compress, and gives what was compressed a tag of its own.
///
/// The library would answer 406 to who takes nothing of what it has, though the request is carried out by then.
pub async fn negotiate(mut request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let headers = request.headers_mut();
    if prefers_coding(headers, GZIP) {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(GZIP));
    } else {
        headers.remove(header::ACCEPT_ENCODING);
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(etag) = headers.get(header::ETAG)
    {
        let etag = version::compressed(etag, GZIP);
        headers.insert(header::ETAG, etag);
    }
    let mut varies = headers.get_all(header::VARY).into_iter();
    if is_read && !varies.any(|by| by.as_bytes().eq_ignore_ascii_case(b"accept-encoding")) {
        let by = HeaderValue::from_static("accept-encoding");
        headers.append(header::VARY, by);
    }
    response
}
