//! The order in which the relay admitted a document's changes, for those who page through its history.
//!
//! The relay's task answers from its graph, a bounded stretch at a time: it is asked for what no view knows, and does
//! nothing for it but copy.

use std::ops::Range;

use automerge::ChangeHash;
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;

use super::cache::{ViewError, Views};
use crate::document::graph::{Index, Stretch};
use crate::document::registry::{DocumentGone, DocumentHandle};

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
