//! What became of a deleted document, and taking that back: `/v1/documents/{id}/deletion`.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use concord_shared::access::Role;
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::json;
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use super::address::{Address, Parameters, address};
use super::granted::Owner;
use super::{Documents, to_its_end, unreadable};
use crate::access::grants::Deletion;
use crate::access::{Grant, Identity};
use crate::clock::signed_ms;
use crate::document::task::Report;
use crate::http::accept::{JSON, media_type};
use crate::http::openapi::parameters;
use crate::http::openapi::problems::Fails;
use crate::http::problem::{Code, Problem};
use crate::store::{Remains, Tombstone};

/// What became of a deleted document.
#[derive(Serialize, ToSchema)]
#[schema(as = Deletion)]
pub(super) struct Shown {
    /// When it was deleted (RFC 3339).
    #[schema(value_type = String, format = DateTime)]
    at: serde_json::Value,
    /// By whom.
    by: String,
    state: Stage,
    /// Until when it is kept at least; once it is purged there is no such time, and a command over a data directory knows
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    until: Option<serde_json::Value>,
}

/// What there still is of it: all, and it can be brought back; nothing in the store, but bytes of it may be in the store's files; nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = DeletionStage)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Kept,
    Purged,
    Erased,
}

impl Documents {
    /// For who may know of a deletion, and take it back.
    pub(super) async fn deletion(
        &self,
        who: &Identity,
        id: &DocumentId,
    ) -> Result<Deletion, Problem> {
        let grant = self.grant(who, id).await?;
        let found = self.found(&grant).await;
        let role = if found.is_ok() {
            Role::Owner
        } else {
            Role::None
        };
        grant.record_as(role, Role::Owner);
        found
    }

    pub(super) async fn found(&self, grant: &Grant) -> Result<Deletion, Problem> {
        let deletion = grant.deletion().await;
        let deletion = deletion.map_err(|error| unreadable(&error))?;
        deletion.ok_or_else(|| {
            let detail = format!("there is no deleted document {}", grant.document());
            Problem::new(Code::NoDocument, detail)
        })
    }

    /// Deletes it for who owns it, if it is not deleted, and purges it, if it is not purged; what became of it. Nobody brings
    /// it back in between.
    pub(super) async fn erase(
        &self,
        who: &Identity,
        id: &DocumentId,
        document: Option<Owner>,
    ) -> Result<Shown, Problem> {
        let turn = self.eraser.turn(id).await;
        let document = match document {
            // It may have been brought back before it was our turn.
            None => self.owner_if_there(who, id).await?,
            there => there,
        };
        if let Some(document) = document {
            match document.delete().await {
                // Somebody was faster.
                Err(problem) if problem.is(Code::NoDocument) => {}
                deleted => deleted?,
            }
        }
        let grant = self.grant(who, id).await?;
        let mut tombstone = self.found(&grant).await?.tombstone().clone();
        if !tombstone.purged {
            let by = who.principal.clone();
            let purging = self.eraser.purge_now(&turn, by, &who.trail).await;
            purging.map_err(|error| {
                error!(document = %id, error = %Report(&error), "a deleted document was not erased");
                let detail = "deleted, and not erased";
                Problem::new(Code::Wire(ErrorCode::StorageFailed), detail)
            })?;
            tombstone.purged = true;
        }
        Ok(self.shown(&tombstone))
    }

    fn shown(&self, tombstone: &Tombstone) -> Shown {
        let time = |at_ms| json::timestamp(signed_ms(at_ms));
        let is_kept = !tombstone.purged;
        let until = self.eraser.due_ms(tombstone.at_ms).filter(|_| is_kept);
        Shown {
            at: time(tombstone.at_ms),
            by: tombstone.by.to_string(),
            state: match tombstone.remains {
                _ if is_kept => Stage::Kept,
                Remains::Store | Remains::Files => Stage::Purged,
                Remains::Nothing => Stage::Erased,
            },
            until: until.map(time),
        }
    }
}

/// Read what became of a deleted document
///
/// For who owned it, as long as it is kept, and afterwards for who deleted or erased it; for operators always. For all
/// others, and if it was not deleted, there is no such document.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/deletion",
    operation_id = "getDeletion",
    tag = "Documents",
    params(parameters::Document),
    responses((status = 200, description = "When it was deleted, by whom, and what there still is of it.", body = Shown),
        Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn read(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    media_type(&headers, &[JSON])?;
    Parameters::of(query, &[])?;
    let deletion = documents.deletion(&identity, &id).await?;
    Ok(axum::Json(documents.shown(deletion.tombstone())).into_response())
}

/// Take a deletion back
///
/// As long as the document is kept. It is there again as it was, with its history and with who may do what; who has
/// connected and asked for it gets it.
#[utoipa::path(
    delete,
    path = "/v1/documents/{id}/deletion",
    operation_id = "undeleteDocument",
    tag = "Documents",
    params(parameters::Document),
    responses((status = 204, description = "It is there again."), Fails<400>, Fails<404>, Fails<410>),
)]
pub(super) async fn undo(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let Address { id, .. } = address(&uri)?;
    Parameters::of(query, &[])?;
    // Who may not is told so without waiting for who may.
    documents.deletion(&identity, &id).await?;
    // The turn is held until it is there again, though whoever asked for it has gone meanwhile.
    to_its_end(async move {
        let _turn = documents.eraser.turn(&id).await;
        let grant = documents.grant(&identity, &id).await?;
        match documents.found(&grant).await {
            Ok(deletion) if deletion.tombstone().purged => Err(Problem::new(
                Code::Purged,
                "nothing is kept of this document",
            )),
            Ok(deletion) => {
                documents.views.undelete(&deletion).await?;
                Ok(StatusCode::NO_CONTENT)
            }
            // Somebody else was faster.
            Err(problem) if problem.is(Code::NoDocument) => Ok(StatusCode::NO_CONTENT),
            Err(problem) => Err(problem),
        }
    })
    .await
}
