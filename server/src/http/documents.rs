//! Documents as JSON: `/v1/documents`. What the addresses, headers and codes mean to clients is in `HTTP.md`.
//!
//! Each handler reads its request, runs one job on the document's [view](crate::view), and answers from what that gave.
//! An edit is made of the version that its author saw (`If-Match`), as the difference to it, and so merges with what
//! came since.
//!
//! - [`address`]: what a request is about.
//! - [`granted`]: the document, with what whoever asks may do.
//! - [`read`], [`make`], [`delete`], [`write`], [`import`], [`events`]: the handlers of documents and values.
//! - [`access`]: who may do what with a document.
//! - [`deletion`]: what became of a deleted one, and taking that back.
//! - [`changes`], [`places`], [`diff`], [`restore`], [`fork`]: those of the history; [`past`] has what they share:
//!   versions, times, and reading large documents at them beside their views.

use std::sync::Arc;

use concord_shared::code::ErrorCode;
use concord_shared::limits::Limits;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tracing::error;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::cursor::Cursors;
use super::idempotency::Keys;
use super::openapi::at_places;
use super::problem::{Code, Problem};
use crate::access::Grants;
use crate::connection::backoff::Backoff;
use crate::connection::refusals::Refusals;
use crate::document::task::Report;
use crate::erasure::Eraser;
use crate::limits::Callers;
use crate::store::{Store, StoreError};
use crate::view::{Core, Failure, Views};

mod access;
mod address;
mod changes;
mod delete;
mod deletion;
mod diff;
mod events;
mod fork;
mod found;
mod granted;
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
    /// Who may do what with them.
    pub grants: Grants,
    /// Where pages of their list end.
    pub cursors: Cursors,
    /// What tells requests from others.
    pub keys: Keys,
    /// Erases what was deleted.
    pub eraser: Eraser,
    /// Bounds the large bodies that are in memory.
    pub large: Arc<Semaphore>,
    /// Bounds the documents that are being imported.
    pub imports: Arc<Semaphore>,
    /// Who may not import for a while.
    pub backoff: Arc<Backoff>,
    /// The last refusals.
    pub refusals: Arc<Refusals>,
    /// What each caller has had.
    pub callers: Arc<Callers>,
    /// What may be imported: as much as a client may upload.
    pub limits: Limits,
    /// Bounds the large documents that are read at old versions.
    pub past: Arc<Semaphore>,
    /// Bounds the pages of their list that are looked for.
    pub lists: Arc<Semaphore>,
    /// One permit for each connection that stays.
    pub capacity: Arc<Semaphore>,
}

pub(super) use events::EVENTS;
pub(super) use fork::Forked;
pub use past::CONCURRENT_LARGE_PASTS;
pub use read::CONCURRENT_LISTS;

/// The routes, and what they are.
pub fn router() -> OpenApiRouter<Documents> {
    let router = OpenApiRouter::new()
        .routes(routes!(read::list, make::create))
        .routes(routes!(read::whole, make::put_whole, delete::delete));
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
        .routes(routes!(access::read, access::put))
        .routes(routes!(access::history))
        .routes(routes!(deletion::read, deletion::undo))
}

impl Documents {
    /// Reads the store, which blocks.
    async fn stored<R: Send + 'static>(
        &self,
        job: impl FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, Problem> {
        let store = Arc::clone(&self.store);
        let reading = tokio::task::spawn_blocking(move || job(&*store)).await;
        reading
            .map_err(panicked)?
            .map_err(|error| unreadable(&error))
    }
}

/// Ends what it begins, though whoever asked for it has gone meanwhile.
async fn to_its_end<R: Send + 'static>(
    work: impl Future<Output = Result<R, Problem>> + Send + 'static,
) -> Result<R, Problem> {
    tokio::spawn(work).await.map_err(panicked)?
}

fn panicked(_: JoinError) -> Problem {
    Problem::new(Code::Wire(ErrorCode::Internal), "")
}

/// What is stored can't be read: why is for who runs the server.
fn unreadable(error: &dyn std::error::Error) -> Problem {
    error!(error = %Report(error), "the store can't be read");
    Problem::new(Code::Wire(ErrorCode::StorageFailed), "")
}

/// The view can't go on, and nothing is sent of what the job did.
fn unfit(core: &mut Core, failure: Failure) -> Problem {
    let problem = Problem::new(Code::Wire(failure.code()), "");
    core.fail(failure);
    problem
}
