//! What holds for all of `/v1`, around the handlers: who may ask, what caches may keep, what an address takes.
//!
//! From the outside: [`origins`](super::origins) turns away whom the server is not for; [`compress`](super::compress)
//! makes long answers short; [`waiting`](super::waiting) bounds those that are on their way.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};

use super::body::{JSON_PATCH, MERGE_PATCH};
use super::compress;
use super::origins::{self, Origins};
use super::problem::{Code, Problem};
use super::waiting::{self, Room};
use crate::traffic::Traffic;

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// What changes may be asked for again without being sent again. Caches between here and there are not to keep what
/// somebody may read.
const NOW: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Puts all of it around the routes.
pub fn around(routes: Router, origins: &Origins) -> Router {
    let mut routes = routes
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Room::default(), waiting::hold))
        .layer(compress::layer())
        .layer(from_fn(compress::negotiate));
    if let Some(csrf) = &origins.csrf {
        routes = routes.layer(csrf.clone());
    }
    if let Some(cors) = &origins.cors {
        routes = routes.layer(from_fn_with_state(cors.clone(), origins::share));
    }
    let hosts = origins.hosts.clone();
    // As one service: the router adds `Allow` outside of its layers.
    Router::new()
        .fallback_service(routes)
        .layer(from_fn_with_state(hosts, origins::only_for))
        .layer(from_fn(tidy))
}

/// `OPTIONS` is answered with what there is, any other method that is not taken as a mistake. `Allow` is added by the
/// router.
async fn not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    Problem::new(Code::Method, "this address does not take that method").into_response()
}

async fn tidy(request: Request, next: Next) -> Response {
    let is_patch = request.method() == Method::PATCH;
    let traffic = request.extensions().get::<Traffic>().cloned();
    let mut response = next.run(request).await;
    if let Some(traffic) = traffic {
        // What was sent has been acted on: it is nothing that others must wait for.
        traffic.settle(traffic.read());
    }
    let status = response.status();
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        let is_kept = status.is_success() || status == StatusCode::NOT_MODIFIED;
        let never = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, if is_kept { NOW } else { never });
    }
    // RFC 5789, section 3.1, and section 2.2 for a patch of another type.
    if takes_patches(headers) || is_patch && status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let types = format!("{MERGE_PATCH}, {JSON_PATCH}");
        headers.extend(types.parse().ok().map(|types| (ACCEPT_PATCH, types)));
    }
    response
}

fn takes_patches(headers: &HeaderMap) -> bool {
    let allowed = headers.get(header::ALLOW);
    let allowed = allowed.and_then(|allowed| allowed.to_str().ok());
    allowed.is_some_and(|allowed| allowed.split(',').any(|method| method.trim() == "PATCH"))
}
