//! HTTP: the WebSocket at `/sync`, what operators ask (`/healthz`, `/readyz`, `/metrics`), documents as JSON below
//! `/v1`, the inspector, and an application's files, if there are any.

pub mod accept;
pub mod body;
pub mod compress;
pub mod documents;
pub mod files;
pub mod idempotency;
pub mod inspect;
pub mod openapi;
pub mod origins;
pub mod prefer;
pub mod problem;
pub mod refusals;
pub mod surface;
pub mod version;
pub mod waiting;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use concord_shared::ids::PrincipalId;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;

use crate::connection::socket::{self, Connections};
use crate::http::documents::Documents;
use crate::http::files::Files;
use crate::http::origins::Origins;
use crate::http::problem::{Code, Problem};
use crate::listener::Origin;
use crate::store::Store;
use crate::traffic::Traffic;

/// Read buffer of a WebSocket in bytes. tungstenite's default is 128 KiB, nearly all of what an idle
/// connection takes; 4 KiB measured no slower.
pub const WEBSOCKET_READ_BUFFER_BYTES: usize = 4 << 10;

/// Frames are gathered up to this many bytes before they are written.
pub const WEBSOCKET_WRITE_BUFFER_BYTES: usize = 16 << 10;

/// What handlers share.
#[derive(Clone)]
pub struct App {
    /// Connections and documents.
    pub connections: Arc<Connections>,
    /// One permit per connection.
    pub capacity: Arc<Semaphore>,
    /// The store, for its size.
    pub store: Arc<dyn Store>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Documents as JSON.
    pub documents: Documents,
    /// Whom `/v1` is for.
    pub origins: Origins,
    /// The application that is served at `/`.
    pub files: Option<Files>,
}

/// All routes.
pub fn router(app: App) -> Router {
    let mut routes = Router::new()
        .route("/sync", get(sync))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(inspect::router().with_state(()))
        .layer(DefaultBodyLimit::max(0));
    // What is none of its addresses is no file either.
    let no_route = async || Problem::new(Code::NoRoute, "there is nothing at this address");
    let documents = documents::router().with_state(app.documents.clone());
    let refusals = refusals::router().with_state(Arc::clone(&app.connections.refusals));
    let v1 = openapi::around(documents.merge(refusals)).fallback(no_route);
    let v1 = surface::around(v1, &app.origins);
    for path in ["/v1", "/v1/", "/v1/{*path}"] {
        routes = routes.route_service(path, v1.clone());
    }
    let routes = match &app.files {
        Some(files) => routes.fallback_service(files.router()),
        None => routes,
    };
    routes.with_state(app)
}

async fn sync(
    State(app): State<App>,
    Extension(traffic): Extension<Traffic>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Ok(permit) = Arc::clone(&app.capacity).try_acquire_owned() else {
        // Who is refused must not keep the connection, which others could use.
        let close = [(header::CONNECTION, "close")];
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            close,
            "too many connections\n",
        )
            .into_response();
    };
    if app.connections.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    let limit = app.connections.limits.frame_bytes;
    let principal = PrincipalId::anonymous();
    let address = client_address(origin, &headers);
    upgrade
        .read_buffer_size(WEBSOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(WEBSOCKET_WRITE_BUFFER_BYTES)
        // A frame that does not fit fails the connection, and a snapshot has no largest size. One frame
        // is buffered at a time, and what pongs add is bounded by the reader.
        .max_write_buffer_size(usize::MAX)
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(async move |socket| {
            socket::serve(app.connections, socket, traffic, principal, address).await;
            drop(permit);
        })
}

/// Set by proxies: who asked, and which proxies passed it on, each appended by the next.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Who asks. A proxy on this machine is believed when it names somebody else, or all of its clients
/// would be one; nobody farther away is, or anybody could be anybody. Of several, it is the last who was
/// seen by the proxy itself.
pub(crate) fn client_address(Origin(origin): Origin, headers: &HeaderMap) -> IpAddr {
    if !origin.to_canonical().is_loopback() {
        return origin;
    }
    let last = headers.get_all(FORWARDED_FOR).iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    last.and_then(|text| {
        let text = text.trim();
        let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
        text.parse().ok().or_else(with_port)
    })
    .unwrap_or(origin)
}

/// Ready while documents can be written: not when stopping, not after a failed sync.
async fn ready(State(app): State<App>) -> Response {
    if app.connections.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response()
    } else if app.connections.registry.is_poisoned() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store failed: restart\n",
        )
            .into_response()
    } else {
        "ready\n".into_response()
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let store = Arc::clone(&app.store);
    let size = tokio::task::spawn_blocking(move || store.size_on_disk()).await;
    if let Ok(Ok(bytes)) = size {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        app.connections.metrics.store_bytes.set(bytes as f64);
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, app.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_this_machine_is_believed_and_nobody_else() {
        let address = |origin: &str, forwarded: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().expect("a value"));
            }
            client_address(Origin(origin.parse().expect("an address")), &headers).to_string()
        };
        assert_eq!(address("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(address("127.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(address("::1", &["192.0.2.7:4711"]), "192.0.2.7");
        assert_eq!(address("::ffff:127.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        // What came from outside stands before what the proxy adds.
        assert_eq!(address("127.0.0.1", &["10.0.0.1, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(
            address("127.0.0.1", &["10.0.0.1", "192.0.2.7"]),
            "192.0.2.7"
        );
        assert_eq!(address("127.0.0.1", &["unknown"]), "127.0.0.1");
        assert_eq!(address("192.0.2.1", &["192.0.2.7"]), "192.0.2.1");
    }
}
