//! A server of the command's own, without a port, over a data directory that no other has open.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use tower::ServiceExt as _;
use tracing_subscriber::filter::LevelFilter;

use super::{Access, Lists};
use crate::access::Rules;
use crate::cli::offline::{DataArgs, Kept};
use crate::config::Config;
use crate::http::authenticate::Gate;
use crate::listener::Origin;
use crate::serve::{Inside, Upkeep};
use crate::store::{Rewritten, SledStore, Store, StoreError};

/// See the module's docs.
pub struct Local {
    store: Arc<dyn Store>,
    inside: Inside,
    router: Router,
    kept: Option<Kept>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Local {
    /// Opens the data directory.
    pub fn open(data: &DataArgs, access: Access, lists: Lists) -> anyhow::Result<Self> {
        log_errors();
        let (store, kept, upkeep) = match access {
            Access::Read => {
                let (store, kept) = data.open_to_read().map_err(hint)?.into_shared();
                (store, Some(kept), Upkeep::None)
            }
            Access::Write => (shared(data.open())?, None, Upkeep::NoErasing),
            Access::Create => (shared(data.open_or_create())?, None, Upkeep::NoErasing),
        };
        let config = Config::default().without_limits();
        let mut gate = Gate::open();
        if lists == Lists::Kept {
            gate.rules = Rules::of_operators();
        }
        let inside = Inside::start(&config, Arc::clone(&store), upkeep, gate)?;
        Ok(Self {
            store,
            router: inside.router(),
            inside,
            kept,
        })
    }

    /// Carries a request out.
    pub async fn send(&self, mut request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
        let host = HeaderValue::from_static("localhost");
        request.headers_mut().insert(header::HOST, host);
        let origin = Origin {
            address: Ipv4Addr::LOCALHOST.into(),
            is_encrypted: false,
        };
        request.extensions_mut().insert(origin);
        let answered = self.router.clone().oneshot(request.map(Body::from)).await;
        let response = answered.unwrap_or_else(|never: Infallible| match never {});
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await;
        Ok(Response::from_parts(head, body.context("the answer")?))
    }

    /// What the requests are about, for what the API does not tell.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Writes the database anew, so that nothing of what is purged is in its files.
    pub async fn erase(&self) -> anyhow::Result<Rewritten> {
        let store = Arc::clone(&self.store);
        let rewriting = tokio::task::spawn_blocking(move || store.rewrite(&|| true));
        Ok(rewriting.await??)
    }

    /// Makes all that was written durable and closes the directory. Whether something of it was lost before.
    pub async fn close(self) -> anyhow::Result<bool> {
        let Self {
            store,
            inside,
            router,
            kept,
        } = self;
        drop(router);
        inside.stop().await?;
        // Before the copy that it is in.
        drop(store);
        Ok(kept.is_some_and(|kept| kept.is_damaged))
    }
}

fn shared(opened: anyhow::Result<SledStore>) -> anyhow::Result<Arc<dyn Store>> {
    Ok(Arc::new(opened.map_err(hint)?))
}

/// A server tells its clients that something failed, and its log why.
fn log_errors() {
    let _is_set_already = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::ERROR)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .try_init();
}

/// Who has a server running wants to ask that.
fn hint(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(StoreError::InUse { .. }) => {
            anyhow::anyhow!("{error:#}: name its address, --url http://HOST:PORT")
        }
        _ => error,
    }
}
