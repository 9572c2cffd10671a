//! What the relay knows of a document and no view does: the order in which it admitted the changes, for those who page
//! through the history, and who may do what.
//!
//! The relay's task answers from its graph, a bounded stretch at a time, and does nothing for it but copy.

use std::ops::Range;

use automerge::ChangeHash;
use concord_shared::access::AccessList;
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;

use super::cache::{ViewError, Views};
use crate::access::Grant;
use crate::access::grants::Deletion;
use crate::document::graph::{Index, Stretch};
use crate::document::registry::{DocumentGone, DocumentHandle, NotListed, Replaces};
use crate::limits::ledger::OverQuota;

impl Views {
    /// Which changes are durable at these places: the first of them, as many as a stretch may have.
    pub async fn stretch(
        &self,
        document: &DocumentId,
        places: Range<Index>,
    ) -> Result<Stretch, ViewError> {
        let relay = self.relay(document)?;
        relay.stretch(places).await.map_err(|gone| self.gone(gone))
    }

    /// The place of a durable change.
    pub async fn place(
        &self,
        document: &DocumentId,
        hash: ChangeHash,
    ) -> Result<Option<Index>, ViewError> {
        let relay = self.relay(document)?;
        relay.place(hash).await.map_err(|gone| self.gone(gone))
    }

    /// Waits until it is decided whose a document is that somebody is about to make.
    pub async fn claim(&self, grant: &Grant) -> Result<(), ViewError> {
        let relay = self.relay(grant.document())?;
        let claimed = relay.claim(grant.clone()).await;
        claimed.map_err(|gone| self.gone(gone))
    }

    /// Whether there may be more of a document.
    pub async fn room(&self, document: &DocumentId) -> Result<Result<(), OverQuota>, ViewError> {
        let relay = self.relay(document)?;
        relay.room().await.map_err(|gone| self.gone(gone))
    }

    /// Says who may do what with a document, and waits until that holds. The number of what was said.
    pub async fn set_list(
        &self,
        grant: &Grant,
        list: AccessList,
        replaces: Option<Replaces>,
    ) -> Result<Result<u64, NotListed>, ViewError> {
        let relay = self.relay(grant.document())?;
        let set = relay.set_list(grant.clone(), list, replaces).await;
        set.map_err(|gone| self.gone(gone))
    }

    /// Deletes a document, and waits until that is durable; whether that was allowed.
    pub async fn delete(&self, grant: &Grant) -> Result<bool, ViewError> {
        let relay = self.relay(grant.document())?;
        let deleted = relay.delete(grant.clone()).await;
        deleted.map_err(|gone| self.gone(gone))
    }

    /// Takes back that a document was deleted, and waits until that is durable, and holds; whether it was deleted.
    pub async fn undelete(&self, deletion: Deletion) -> Result<bool, ViewError> {
        let relay = self.relay(deletion.document())?;
        if let Ok(undone) = relay.undelete(deletion.clone()).await {
            return Ok(undone);
        }
        // The one that deleted it may have been about to end.
        relay.closed().await;
        let relay = self.relay(deletion.document())?;
        let undone = relay.undelete(deletion).await;
        undone.map_err(|gone| self.gone(gone))
    }

    fn relay(&self, document: &DocumentId) -> Result<DocumentHandle, ViewError> {
        let opened = self.shared().registry.open(document);
        opened.map_err(|_| ViewError(ErrorCode::TooManyDocuments))
    }

    fn gone(&self, _: DocumentGone) -> ViewError {
        ViewError(if self.shared().stop.is_cancelled() {
            ErrorCode::ShuttingDown
        } else {
            ErrorCode::StorageFailed
        })
    }
}
