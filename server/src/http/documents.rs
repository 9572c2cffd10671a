//! Documents as JSON: `/v1/documents`. What the addresses, headers and codes mean to clients is in `HTTP.md`.
//!
//! Each handler reads its request, runs one job on the document's [view](crate::view), and answers from what that gave.
//! An edit is made of the version that its author saw (`If-Match`), as the difference to it, and so merges with what
//! came since.
//!
//! - [`address`]: what a request is about.
//! - [`read`], [`make`], [`write`], [`import`], [`events`]: the handlers of documents and values.
//! - [`changes`], [`places`], [`diff`], [`restore`], [`fork`]: those of the history; [`past`] has what they share:
//!   versions, times, and reading large documents at them beside their views.

use std::sync::Arc;

use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::limits::Limits;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::at_places;
use super::problem::{Code, Problem};
use crate::connection::backoff::Backoff;
use crate::connection::refusals::Refusals;
use crate::store::Store;
use crate::view::{Core, Failure, Views};

mod address;
mod changes;
mod diff;
mod events;
mod fork;
mod import;
mod make;
mod moment;
mod past;
mod places;
mod read;
mod restore;
mod write;

pub(crate) use address::{url_of, url_within};
pub use import::CONCURRENT_IMPORTS;

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Documents {
    /// To read and write them.
    pub views: Views,
    /// To see which there are.
    pub store: Arc<dyn Store>,
    /// Bounds the large bodies that are in memory.
    pub large: Arc<Semaphore>,
    /// Bounds the documents that are being imported.
    pub imports: Arc<Semaphore>,
    /// Who may not import for a while.
    pub backoff: Arc<Backoff>,
    /// The last refusals.
    pub refusals: Arc<Refusals>,
    /// What may be imported: as much as a client may upload.
    pub limits: Limits,
    /// Bounds the large documents that are read at old versions.
    pub past: Arc<Semaphore>,
    /// One permit for each connection that stays.
    pub capacity: Arc<Semaphore>,
}

pub(super) use events::EVENTS;
pub(super) use fork::Forked;
pub use past::CONCURRENT_LARGE_PASTS;

/// The routes, and what they are.
pub fn router() -> OpenApiRouter<Documents> {
    let router = OpenApiRouter::new()
        .routes(routes!(read::list, make::create))
        .routes(routes!(read::whole, make::put_whole));
    let router = at_places(
        router,
        routes!(
            read::read,
            write::put,
            write::patch,
            write::append,
            write::delete
        ),
    );
    let router = at_places(router, routes!(events::events));
    let router = at_places(router, routes!(diff::diff));
    router
        .routes(routes!(changes::page))
        .routes(routes!(changes::one))
        .routes(routes!(places::version))
        .routes(routes!(restore::restore))
        .routes(routes!(fork::fork))
}

impl Documents {
    /// Runs a job on a document that is there.
    async fn on<R: Send + 'static>(
        &self,
        id: &DocumentId,
        job: impl FnOnce(&mut Core) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        self.must_be_there(id).await?;
        let missing = no_document(id);
        let made = self.views.run(id, move |core| {
            if core.heads().is_empty() {
                return Err(missing);
            }
            job(core)
        });
        made.await?
    }

    /// Whoever asks for what is not there must not make the server open it.
    async fn must_be_there(&self, id: &DocumentId) -> Result<(), Problem> {
        if self.views.is_open(id) || self.is_stored(id).await? {
            Ok(())
        } else {
            Err(no_document(id))
        }
    }

    async fn is_stored(&self, id: &DocumentId) -> Result<bool, Problem> {
        let (store, id) = (Arc::clone(&self.store), id.clone());
        let found = tokio::task::spawn_blocking(move || store.holds(&id)).await;
        match found {
            Ok(Ok(is_there)) => Ok(is_there),
            _ => Err(Problem::new(Code::Wire(ErrorCode::StorageFailed), "")),
        }
    }
}

/// The view can't go on, and nothing is sent of what the job did.
fn unfit(core: &mut Core, failure: Failure) -> Problem {
    let problem = Problem::new(Code::Wire(failure.code()), "");
    core.fail(failure);
    problem
}

fn no_document(id: &DocumentId) -> Problem {
    Problem::new(Code::NoDocument, format!("there is no document {id}"))
}
