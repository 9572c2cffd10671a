//! HTTP: the WebSocket at `/sync`, what operators ask (`/healthz`, `/readyz`, `/metrics`), documents as JSON below
//! `/v1`, the inspector, and an application's files, if there are any.

pub mod accept;
pub mod authenticate;
pub mod body;
pub mod compress;
pub mod constant;
pub mod cursor;
pub mod documents;
pub mod files;
pub mod headers;
pub mod idempotency;
pub mod inspect;
pub mod limit;
pub mod openapi;
pub mod origins;
pub mod prefer;
pub mod problem;
pub mod proxies;
pub mod refusals;
pub mod surface;
pub mod version;
pub mod waiting;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;

use crate::access::{Identity, Operator};
use crate::connection::socket::{self, Connections};
use crate::http::authenticate::{Gate, SUBPROTOCOL};
use crate::http::documents::Documents;
use crate::http::files::Files;
use crate::http::limit::Guard;
use crate::http::origins::Origins;
use crate::http::problem::{Code, Problem};
use crate::http::proxies::{Client, Proxies};
use crate::limits::account::Account;
use crate::listener::Pass;
use crate::store::Store;
use crate::traffic::Traffic;

/// Read buffer of a WebSocket in bytes. tungstenite's default is 128 KiB, nearly all of what an idle
/// connection takes; 4 KiB measured no slower.
pub const WEBSOCKET_READ_BUFFER_BYTES: usize = 4 << 10;

/// Frames are gathered up to this many bytes before they are written.
pub const WEBSOCKET_WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Where a `WebSocket` is asked for.
const SYNC: &str = "/sync";

/// All of the API's addresses but its root, by which requests get to its own routes.
const BELOW_V1: &str = "/v1/{*path}";

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
    /// Who is believed when they say for whom they ask.
    pub proxies: Proxies,
    /// For how long browsers are to use nothing but HTTPS, where this server speaks TLS.
    pub hsts_seconds: u64,
    /// Who may ask.
    pub gate: Gate,
    /// The application that is served at `/`.
    pub files: Option<Files>,
}

/// All routes.
pub fn router(app: App) -> Router {
    let guard = Guard {
        gate: app.gate.clone(),
        callers: Arc::clone(&app.connections.callers),
    };
    let mut routes = open_to_all();
    for (path, route) in guarded() {
        routes = routes.route(path, guard.of(route));
    }
    routes = routes.layer(DefaultBodyLimit::max(0));
    // What is none of its addresses is no file either.
    let no_route = async || Problem::new(Code::NoRoute, "there is nothing at this address");
    let documents = documents::router().with_state(app.documents.clone());
    let refusals = refusals::router().with_state(app.documents.clone());
    // What describes the addresses is for everybody.
    let v1 = guard.around_described(documents.merge(refusals));
    let v1 = openapi::around(v1).fallback(no_route);
    let v1 = surface::around(v1, &app.origins);
    for path in ["/v1", "/v1/", BELOW_V1] {
        routes = routes.route_service(path, v1.clone());
    }
    let open = from_fn_with_state(Arc::clone(&guard.callers), limit::open);
    let mut routes = routes.layer(open.clone()).layer(from_fn(headers::own));
    if let Some(files) = &app.files {
        let files = files.router().layer(open);
        let files = files.layer(from_fn(headers::of_application));
        routes = routes.fallback_service(files);
    }
    let seconds = app.hsts_seconds;
    let everywhere = from_fn_with_state(headers::strict_transport(seconds), headers::everywhere);
    routes
        .layer(everywhere)
        .layer(from_fn_with_state(app.proxies.clone(), proxies::see))
        .with_state(app)
}

/// Beside the API, what is for those who say who they are.
fn guarded() -> [(&'static str, MethodRouter<App>); 2] {
    [(SYNC, get(sync)), ("/metrics", get(metrics))]
}

/// Beside the API, what is for everybody.
fn open_to_all() -> Router<App> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .merge(inspect::router().with_state(()))
}

async fn sync(
    State(app): State<App>,
    Extension(traffic): Extension<Traffic>,
    Extension(client): Extension<Client>,
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    pass: Option<Extension<Pass>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let pass = pass.map(|Extension(pass)| pass);
    let stays = match limit::stay(&account, pass.as_ref()) {
        Ok(stays) => stays,
        Err(problem) => return problem.into_response(),
    };
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
    upgrade
        // Only who asks for one is given it; the token beside it is never sent back.
        .protocols([SUBPROTOCOL])
        .read_buffer_size(WEBSOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(WEBSOCKET_WRITE_BUFFER_BYTES)
        // A frame that does not fit fails the connection, and a snapshot has no largest size. One frame
        // is buffered at a time, and what pongs add is bounded by the reader.
        .max_write_buffer_size(usize::MAX)
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(async move |socket| {
            let address = client.address;
            traffic.belongs_to(&account.in_flight);
            socket::serve(app.connections, socket, traffic, identity, address, account).await;
            drop((permit, stays));
        })
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

async fn metrics(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Problem> {
    let Operator { .. } = app.documents.operator(&identity)?;
    let store = Arc::clone(&app.store);
    let size = tokio::task::spawn_blocking(move || store.size_on_disk()).await;
    if let Ok(Ok(bytes)) = size {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        app.connections.metrics.store_bytes.set(bytes as f64);
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((content_type, app.metrics.render()).into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a test carries out with the built server, by who asks.
    const TABLE: &str = "<!-- The table of what is not about a document. -->";

    /// Of each address in that table, whether it is for everybody.
    fn documented() -> BTreeSet<(String, bool)> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../ACCESS.md");
        let text = std::fs::read_to_string(page).unwrap();
        let table = text.split(TABLE).nth(1).unwrap();
        let rows = table.lines().skip_while(|line| line.is_empty());
        let rows = rows.take_while(|line| line.starts_with('|'));
        let addresses = rows.filter_map(|row| {
            let address = row.strip_prefix("| `/")?.split('`').next()?;
            Some((format!("/{address}"), row.ends_with("| yes |")))
        });
        addresses.collect()
    }

    #[test]
    fn each_address_beside_the_api_is_in_the_table() {
        let open = openapi::routes(&open_to_all()).into_iter();
        let all = guarded().map(|(path, _)| (path.to_owned(), false));
        let all = all.into_iter();
        let all: BTreeSet<_> = all.chain(open.map(|path| (path, true))).collect();
        assert!(all.len() > 5, "{all:?}");
        assert_eq!(documented(), all);
    }
}
