//! What a document wants made durable, before the store hears of it.

use bytes::Bytes;
use concord_shared::ids::{DocumentId, PrincipalId};

use super::graph::Index;
use crate::store::Write;

/// Something to make durable.
#[derive(Debug)]
pub enum Append {
    /// Consecutive changes of one principal.
    Changes {
        /// Index of the first.
        first: Index,
        /// When they came, in milliseconds since 1970.
        received_at_ms: u64,
        /// Who sent them.
        principal: PrincipalId,
        /// Change chunks.
        changes: Vec<Bytes>,
    },
    /// A whole document, uploaded into an empty one.
    Upload {
        /// Number of changes in it.
        base: Index,
        /// When it came, in milliseconds since 1970.
        received_at_ms: u64,
        /// Document chunk.
        snapshot: Bytes,
        /// Encoded graph.
        graph: Bytes,
    },
}

impl Append {
    /// Every change below this index is durable when this append is.
    pub fn end(&self) -> Index {
        match self {
            Self::Changes { first, changes, .. } => {
                first.saturating_add(Index::try_from(changes.len()).unwrap_or(Index::MAX))
            }
            Self::Upload { base, .. } => *base,
        }
    }

    /// Takes the change in if it comes right behind and is of the same principal.
    pub(super) fn takes(&mut self, index: Index, author: &PrincipalId, change: &Bytes) -> bool {
        let next = self.end();
        match self {
            Self::Changes {
                principal, changes, ..
            } if next == index && principal == author => {
                changes.push(change.clone());
                true
            }
            _ => false,
        }
    }

    /// What the store is to write for it.
    pub fn into_write(self, document: DocumentId) -> Write {
        match self {
            Self::Changes {
                first,
                received_at_ms,
                principal,
                changes,
            } => Write::Append {
                document,
                first: first.into(),
                received_at_ms,
                principal,
                changes,
            },
            Self::Upload {
                base,
                received_at_ms,
                snapshot,
                graph,
            } => Write::Snapshot {
                document,
                base: base.into(),
                keep_from: base.into(),
                received_at_ms,
                snapshot,
                graph,
            },
        }
    }
}
