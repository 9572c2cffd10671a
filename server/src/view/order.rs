//! What the relay knows of a document and no view does: the order in which it admitted the changes, for those who page
//! through the history, and who may do what.
//!
//! The relay's task answers from its graph, a bounded stretch at a time, and does nothing for it but copy.

use std::ops::Range;

use automerge::ChangeHash;
use concord_shared::access::{AccessList, Role};
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use tokio::sync::oneshot;

use super::cache::{ViewError, Views};
use crate::access::Grant;
use crate::access::grants::Deletion;
use crate::document::graph::{Index, Stretch};
use crate::document::registry::{
    Delivery, DocumentGone, DocumentHandle, Hold, NotListed, Replaces,
};
use crate::limits::ledger::OverQuota;

/// Relays that somebody waits for who asks for a document that is deleted and brought back again and again.
const MOST_RELAYS: usize = 5;

impl Views {
    /// Which changes are durable at these places: the first of them, as many as a stretch may have.
    pub async fn stretch(&self, grant: &Grant, places: Range<Index>) -> Result<Stretch, ViewError> {
        let stretch = |give| Delivery::Stretch(places.clone(), give);
        self.ask(grant.document(), stretch).await
    }

    /// The place of a durable change.
    pub async fn place(&self, grant: &Grant, hash: ChangeHash) -> Result<Option<Index>, ViewError> {
        let place = |give| Delivery::Place(hash, give);
        self.ask(grant.document(), place).await
    }

    /// Waits until it is decided whose a document is that somebody is about to make. It is theirs for as long as they hold
    /// what this gives, and for good once there is something of it.
    pub async fn claim(&self, grant: &Grant) -> Result<Hold, ViewError> {
        let claim = |relay: &_, give| Delivery::Claim(grant.clone(), Hold::of(relay), give);
        self.ask_of(grant.document(), claim).await
    }

    /// Whether there may be more of a document.
    pub async fn room(&self, grant: &Grant) -> Result<Result<(), OverQuota>, ViewError> {
        self.ask(grant.document(), Delivery::Room).await
    }

    /// Says who may do what with a document, and waits until that holds. The number of what was said.
    pub async fn set_list(
        &self,
        grant: &Grant,
        list: AccessList,
        replaces: Option<Replaces>,
    ) -> Result<Result<u64, NotListed>, ViewError> {
        let relay = self.relay(grant.document())?;
        match relay.set_list(grant.clone(), list, replaces).await {
            // It may be deleted by now. Else it is not known what became of it.
            Err(DocumentGone) if grant.role() == Role::None => {
                Ok(Err(NotListed::NotOwner(Role::None)))
            }
            set => set.map_err(|gone| self.gone(gone)),
        }
    }

    /// Deletes a document, and waits until that is durable; whether that was allowed.
    pub async fn delete(&self, grant: &Grant) -> Result<bool, ViewError> {
        let delete = |give| Delivery::Delete(grant.clone(), give);
        self.ask(grant.document(), delete).await
    }

    /// Takes back that a document was deleted, and waits until that is durable, and holds; whether it was deleted.
    pub async fn undelete(&self, deletion: &Deletion) -> Result<bool, ViewError> {
        let undelete = |give| Delivery::Undelete(Box::new(deletion.clone()), give);
        self.ask(deletion.document(), undelete).await
    }

    /// Asks the relay. Where it is about to end, since the document was deleted or is there again, then the one that comes
    /// after it: so it must do no harm to ask twice.
    async fn ask<T>(
        &self,
        document: &DocumentId,
        delivery: impl Fn(oneshot::Sender<T>) -> Delivery,
    ) -> Result<T, ViewError> {
        self.ask_of(document, |_, give| delivery(give)).await
    }

    /// With the relay that is asked.
    async fn ask_of<T>(
        &self,
        document: &DocumentId,
        delivery: impl Fn(&DocumentHandle, oneshot::Sender<T>) -> Delivery,
    ) -> Result<T, ViewError> {
        for _ in 0..MOST_RELAYS {
            let relay = self.relay(document)?;
            if let Ok(answer) = relay.ask(|give| delivery(&relay, give)).await {
                return Ok(answer);
            }
            relay.closed().await;
        }
        Err(self.gone(DocumentGone))
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
