//! Deleting a document.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

use super::address::{Address, Parameters, address, url_of};
use super::deletion::Shown;
use super::{Documents, to_its_end};
use crate::access::Identity;
use crate::http::openapi::parameters;
use crate::http::openapi::problems::Fails;
use crate::http::problem::Problem;

/// Delete a document
///
/// For everybody, and at once: it is not there any more, for those who have it open, either, and nobody can make one
/// under its id again. What is stored of it is kept for a while, in which the deletion can be taken back, and then
/// erased. With `now` it is erased at once, also if it was deleted before: nothing of it is in the store any more when this is answered, and its
/// bytes leave the store's files soon after. `…/deletion` tells when they have: its state is `erased` then.
#[utoipa::path(
    delete,
    path = "/v1/documents/{id}",
    operation_id = "deleteDocument",
    tag = "Documents",
    params(parameters::Document, parameters::Erasing),
    responses((status = 204, description = "It is not there any more."),
        (status = 202, description = "With `now`: what became of it so far.", body = Shown,
            headers(("Location" = String, description = "Where that is told."))),
        Fails<400>, Fails<404>),
)]
pub(super) async fn delete(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    let now = Parameters::of(query, &["now"])?.now()?;
    // What is begun is ended, and recorded, though whoever asked for it has gone meanwhile.
    if !now {
        let document = documents.owner(&identity, &id).await?;
        return to_its_end(async move {
            document.delete().await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        })
        .await;
    }
    let document = documents.owner_unless_deleted(&identity, &id).await?;
    to_its_end(async move {
        let shown = documents.erase(&identity, &id, document).await?;
        let location = [(header::LOCATION, format!("{}/deletion", url_of(&id)))];
        Ok((StatusCode::ACCEPTED, location, axum::Json(shown)).into_response())
    })
    .await
}
