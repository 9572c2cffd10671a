//! What a document wants made durable, before the store hears of it.

use automerge::ReadDoc as _;
use bytes::Bytes;
use concord_shared::ids::{DocumentId, PrincipalId};

use super::graph::Index;
use crate::materialise;
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
        /// When it came, in milliseconds since 1970.
        received_at_ms: u64,
        /// Who sent it.
        principal: PrincipalId,
        /// Its changes.
        changes: Vec<Bytes>,
        /// Encoded history.
        graph: Bytes,
    },
}

impl Append {
    /// Every change below this index is durable when this append is.
    pub fn end(&self) -> Index {
        match self {
            Self::Changes { first, changes, .. } => first.saturating_add(count(changes)),
            Self::Upload { changes, .. } => count(changes),
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

    /// What the store is to write for it. For an upload this blocks, as long as loading it takes.
    ///
    /// An upload becomes a snapshot, made here from its changes: see [`materialise::rebuilt`].
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
                received_at_ms,
                principal,
                changes,
                graph,
            } => match snapshot(&changes) {
                Some(snapshot) => Write::Snapshot {
                    document,
                    base: changes.len() as u64,
                    keep_from: changes.len() as u64,
                    received_at_ms,
                    snapshot,
                    graph,
                },
                None => Write::Append {
                    document,
                    first: 0,
                    received_at_ms,
                    principal,
                    changes,
                },
            },
        }
    }
}

fn count(changes: &[Bytes]) -> Index {
    Index::try_from(changes.len()).unwrap_or(Index::MAX)
}

/// `None` when Automerge does not take changes that admission did: a fault of ours, or of Automerge's. They
/// are kept as they are.
fn snapshot(changes: &[Bytes]) -> Option<Bytes> {
    let loaded = materialise::load(changes).ok()?;
    let is_whole = loaded.stats().num_changes == changes.len() as u64;
    is_whole.then(|| loaded.save().into())
}
