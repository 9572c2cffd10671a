//! What browsers are told about every answer: not to guess what it is, not to tell others where it came from, not to show
//! it inside another page.
//!
//! The server's own answers need nothing else, so they are told to refuse all the rest, too, unless a handler has said
//! what its page does. An application's files (`--app`) are somebody else's work. What scripts it runs, whom it asks and
//! which windows it opens are not known here, and a policy on those would break it; a page says that best itself, by a
//! `<meta>` element, as the board app does. Only who may frame it can't be said there.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use super::origins::is_of_this_machine;
use crate::listener::Origin;

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Of the server's own answers, each unless the handler has said something else.
///
/// Without scripts, styles and frames a browser shows text, whatever the text says. A page that opens one of them as a
/// window has no hold of it, and one of another site can't have it in its memory as an image or a script; what
/// `--cors-origin` allows is not touched by that.
const OWN: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        CROSS_ORIGIN_OPENER_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Of an application's files: pages of other sites can't put them into a frame, where who clicks does not see on what. Its
/// own can. Other sites are told by which site they were asked, and not by which address.
const OF_APPLICATION: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("frame-ancestors 'self'"),
    ),
    (
        header::X_FRAME_OPTIONS,
        HeaderValue::from_static("SAMEORIGIN"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("strict-origin-when-cross-origin"),
    ),
];

/// Of all. A token may be in an address, and an address is told to nobody.
const EVERYWHERE: [(HeaderName, HeaderValue); 2] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];

/// Around all routes but the application's.
pub async fn own(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    add(response.headers_mut(), OWN);
    response
}

/// Around the application's files.
pub async fn of_application(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    add(response.headers_mut(), OF_APPLICATION);
    response
}

/// Around all, with what [`strict_transport`] makes.
pub async fn everywhere(
    State(strict): State<Option<HeaderValue>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.extensions().get::<Origin>();
    // A proxy that speaks TLS has its own opinion.
    let is_encrypted = origin.is_some_and(|origin| origin.is_encrypted);
    // A browser keeps it for a name and all its ports, and on a developer's machine others listen at those.
    let strict = strict.filter(|_| is_encrypted && !is_of_this_machine(request.headers()));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    add(headers, EVERYWHERE);
    if let Some(strict) = strict {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, strict);
    }
    response
}

/// That this host is to be asked over HTTPS alone, for so long.
pub fn strict_transport(seconds: u64) -> Option<HeaderValue> {
    if seconds == 0 {
        return None;
    }
    HeaderValue::try_from(format!("max-age={seconds}")).ok()
}

fn add<const N: usize>(headers: &mut HeaderMap, values: [(HeaderName, HeaderValue); N]) {
    for (name, value) in values {
        headers.entry(name).or_insert(value);
    }
}
