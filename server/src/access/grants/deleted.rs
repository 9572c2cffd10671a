//! What becomes of a deleted document: who may know, and take the deletion back.
//!
//! For everybody else it is as if there had never been such a document. While it is kept, who owned it may; what is purged
//! has no list of owners any more, so whoever deleted or purged it may ask whether it is erased, and operators.

use std::sync::Arc;
use std::time::Duration;

use concord_shared::access::Role;
use concord_shared::ids::DocumentId;

use super::{Cell, Grant, Grants, Of, Somebody, Standing};
use crate::audit::Trail;
use crate::store::{StoreError, Tombstone, Write};

/// A document that is being deleted is so for everybody before its tombstone is durable: who asks for it meanwhile waits,
/// some milliseconds as a rule.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
const MOST_LOOKS: usize = 400;

/// A document's deletion, for somebody who may take it back, as long as that is possible.
#[derive(Debug, Clone)]
pub struct Deletion {
    document: DocumentId,
    tombstone: Tombstone,
    grants: Grants,
    /// What is known of the document by all who hold a grant of it.
    cell: Arc<Cell>,
    /// Where what becomes of it is recorded.
    trail: Trail,
}

impl Grant {
    /// `None`: the document is not deleted, or whoever asks is not told. All that is read is read in any case, so that it
    /// takes as long.
    pub async fn deletion(&self) -> Result<Option<Deletion>, StoreError> {
        let Of::Somebody(somebody) = &self.of else {
            return Ok(None);
        };
        let Somebody {
            grants,
            identity,
            cell,
            ..
        } = &**somebody;
        let mut found = grants.look(&self.document).await?;
        for _ in 0..MOST_LOOKS {
            let is_deleted = *cell.standing.borrow() == Standing::Deleted;
            if found.tombstone.is_some() || !is_deleted {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            found = grants.look(&self.document).await?;
        }
        let before = found.before();
        Ok(found.tombstone.and_then(|tombstone| {
            let may = if tombstone.purged {
                let me = &identity.principal;
                grants.0.rules.is_operator(identity)
                    || tombstone.by == *me
                    || tombstone.purged_by.as_ref() == Some(me)
            } else {
                somebody.role(&self.document, &before) == Role::Owner
            };
            may.then(|| Deletion {
                document: self.document.clone(),
                tombstone,
                grants: grants.clone(),
                cell: Arc::clone(cell),
                trail: identity.trail.clone(),
            })
        }))
    }
}

impl Deletion {
    /// Of which document.
    pub fn document(&self) -> &DocumentId {
        &self.document
    }

    /// What is known of it.
    pub fn tombstone(&self) -> &Tombstone {
        &self.tombstone
    }

    /// Where what becomes of it is recorded.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// What has to be written to take it back. Once it is durable, [`Self::now_undone`].
    pub fn undo(&self) -> Write {
        Write::Undelete {
            document: self.document.clone(),
        }
    }

    /// The document is there again, for all who could do something with it: by what is stored now, since it may have been
    /// there, and deleted, in between.
    pub async fn now_undone(self) -> Result<(), StoreError> {
        self.grants.read(&self.document, &self.cell).await
    }
}
