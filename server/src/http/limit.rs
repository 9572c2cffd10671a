//! Limits by caller and by address, around the handlers: see [`crate::limits`].

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use utoipa_axum::router::OpenApiRouter;

use super::authenticate::{self, Gate};
use super::problem::{Code, Problem};
use super::proxies::Client;
use crate::access::Identity;
use crate::connection::backoff::Who;
use crate::limits::account::Account;
use crate::limits::{Callers, Limit, Limited};
use crate::listener::{Origin, Pass};
use crate::traffic::Traffic;

/// Whoever brings no good token, and asks too often, is told so after this long. A connection has one request at a time, so
/// this is what keeps them from asking in a loop, wherever they are.
const STRANGERS_PAUSE: Duration = Duration::from_secs(1);

/// What keeps a route for those who are known, within their limits.
#[derive(Clone)]
pub struct Guard {
    /// Says who asks.
    pub gate: Gate,
    /// What they have had.
    pub callers: Arc<Callers>,
}

/// Routers of both kinds have the method, and no trait that has it. What is added last is asked first.
macro_rules! guarded {
    ($guard:ident, $routes:ident) => {
        $routes
            .route_layer(from_fn_with_state(Arc::clone(&$guard.callers), request))
            .route_layer(from_fn_with_state(
                $guard.gate.clone(),
                authenticate::authenticate,
            ))
            .route_layer(from_fn_with_state(Arc::clone(&$guard.callers), strangers))
    };
}

impl Guard {
    /// Around routes that are described.
    pub fn around_described<S: Clone + Send + Sync + 'static>(
        &self,
        routes: OpenApiRouter<S>,
    ) -> OpenApiRouter<S> {
        guarded!(self, routes)
    }

    /// Around one route.
    pub fn of<S: Clone + Send + Sync + 'static>(&self, route: MethodRouter<S>) -> MethodRouter<S> {
        guarded!(self, route)
    }
}

/// Tells handlers whose request it is, unless there are too many of them.
async fn request(
    State(callers): State<Arc<Callers>>,
    Extension(identity): Extension<Identity>,
    Extension(client): Extension<Client>,
    mut request: Request,
    next: Next,
) -> Response {
    let account = callers.account(Who::new(&identity.principal, client.address));
    if let Err(limited) = account.request() {
        return counted(Problem::from(limited).into_response());
    }
    let extensions = request.extensions_mut();
    // A connection of a proxy's is many callers'.
    if let (Some(traffic), Some(origin)) = (extensions.get::<Traffic>(), extensions.get::<Origin>())
        && origin.address.to_canonical() == client.address
    {
        traffic.belongs_to(&account.in_flight);
    }
    extensions.insert(account);
    counted(next.run(request).await)
}

/// Counts those who were not let in by where they are: nobody else at the address waits for them.
async fn strangers(
    State(callers): State<Arc<Callers>>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if response.status() != StatusCode::UNAUTHORIZED {
        return response;
    }
    let due = callers.doors(client.address).unauthenticated();
    counted(unless_limited(response, due).await)
}

/// Counts by address what was counted for nobody: what is open to all, and what there is not. Around everything. A proxy
/// that asks on its own account looks whether the server is well.
pub(super) async fn open(
    State(callers): State<Arc<Callers>>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if response.extensions().get::<Counted>().is_some() {
        return response;
    }
    match callers.doors_of_no_proxy(client.address) {
        Some(doors) => unless_limited(response, doors.open_request()).await,
        None => response,
    }
}

/// In an answer's extensions: what was asked is counted.
#[derive(Debug, Clone, Copy)]
struct Counted;

fn counted(mut response: Response) -> Response {
    response.extensions_mut().insert(Counted);
    response
}

async fn unless_limited(response: Response, due: Result<(), Limited>) -> Response {
    let Err(limited) = due else { return response };
    sleep(STRANGERS_PAUSE).await;
    Problem::from(limited).into_response()
}

/// For a connection that stays: it counts for who is on it, no longer for where they are.
pub(super) fn stay(
    account: &Account,
    pass: Option<&Pass>,
) -> Result<OwnedSemaphorePermit, Problem> {
    let permit = account.connection().ok_or_else(|| {
        let detail = format!("too many {}", Limit::Connections.what());
        Problem::new(Code::TooManyConnections, detail)
    })?;
    if let Some(pass) = pass {
        pass.give_back();
    }
    Ok(permit)
}
