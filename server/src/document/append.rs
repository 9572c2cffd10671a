//! What a document wants made durable, before the store hears of it.

use automerge::ReadDoc as _;
use bytes::Bytes;
use concord_shared::ids::{DocumentId, PrincipalId};
use tracing::warn;

use super::arrivals::Arrivals;
use super::graph::Index;
use crate::materialise::{self, LoadError};
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

    /// How many changes.
    pub fn count(&self) -> Index {
        let (Self::Changes { changes, .. } | Self::Upload { changes, .. }) = self;
        count(changes)
    }

    /// Bytes of its changes.
    pub fn bytes(&self) -> usize {
        let (Self::Changes { changes, .. } | Self::Upload { changes, .. }) = self;
        changes.iter().map(Bytes::len).sum()
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
                Ok(snapshot) => {
                    let base = changes.len() as u64;
                    let mut arrivals = Arrivals::default();
                    arrivals.push(base, Some((received_at_ms, &principal)));
                    Write::Snapshot {
                        document,
                        base,
                        keep_from: base,
                        received_at_ms,
                        snapshot,
                        graph,
                        arrivals: arrivals.encode(),
                    }
                }
                // A fault of ours, or of Automerge's, since admission took them. They are kept as they are.
                Err(error) => {
                    warn!(%document, %error, "uploaded document does not load");
                    Write::Append {
                        document,
                        first: 0,
                        received_at_ms,
                        principal,
                        changes,
                    }
                }
            },
        }
    }
}

fn count(changes: &[Bytes]) -> Index {
    Index::try_from(changes.len()).unwrap_or(Index::MAX)
}

fn snapshot(changes: &[Bytes]) -> Result<Bytes, LoadError> {
    let loaded = materialise::load(changes)?;
    let found = usize::try_from(loaded.stats().num_changes).unwrap_or(usize::MAX);
    match changes.len().saturating_sub(found) {
        0 => Ok(loaded.save().into()),
        missing => Err(LoadError::MissingDeps { missing }),
    }
}
