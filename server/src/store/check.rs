//! The rules of a document's logs that every backend checks before it writes.

use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{
    ACCESS_ENTRY_MAX_BYTES, META_KEY_MAX_BYTES, META_VALUE_MAX_BYTES, Problem, StoreError,
    Tombstone, Write,
};

/// What of a document a write must agree with. The default: there is nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extent {
    /// How far its changes reach; `None`: the document is not there.
    pub(super) changes: Option<Span>,
    /// Number of the access entry that comes next.
    pub(super) next_access: u64,
    pub(super) life: Life,
    /// Why it can't be told how far its changes reach. Such a document can still be deleted.
    pub(super) damage: Option<Problem>,
}

/// Whether a document is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Life {
    #[default]
    Live,
    Deleted,
    Purged,
}

impl Life {
    pub(super) fn of(tombstone: Option<&Tombstone>) -> Self {
        match tombstone {
            None => Self::Live,
            Some(tombstone) if tombstone.purged => Self::Purged,
            Some(_) => Self::Deleted,
        }
    }
}

/// How far a document's changes reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    /// How many changes the snapshot stands for; 0 if there is none.
    pub(super) base: u64,
    /// How many changes there are.
    pub(super) next: u64,
}

impl Extent {
    fn reaching(self, span: Span) -> Self {
        Self {
            changes: Some(span),
            ..self
        }
    }

    fn is_writable(&self, document: &DocumentId) -> Result<(), StoreError> {
        let document = document.clone();
        match (self.life, &self.damage) {
            (Life::Live, None) => Ok(()),
            (Life::Live, Some(problem)) => Err(StoreError::Corrupt {
                document,
                problem: problem.clone(),
            }),
            _ => Err(StoreError::Deleted { document }),
        }
    }

    /// Whether there is anything of it.
    fn is_there(&self) -> bool {
        self.changes.is_some() || self.next_access > 0 || self.damage.is_some()
    }

    /// From one state to the next, if that is the one it is in.
    fn moved(self, document: &DocumentId, from: Life, to: Life) -> Result<Self, StoreError> {
        let is_there = self.is_there();
        let document = document.clone();
        match self.life {
            Life::Live if !is_there => Err(StoreError::Unknown { document }),
            life if life == from => Ok(Self { life: to, ..self }),
            Life::Live => Err(StoreError::NotDeleted { document }),
            Life::Deleted => Err(StoreError::Deleted { document }),
            Life::Purged => Err(StoreError::Purged { document }),
        }
    }

    /// What this becomes by `write`, or why `write` is refused.
    pub(super) fn after(self, write: &Write) -> Result<Self, StoreError> {
        let span = self.changes.unwrap_or_default();
        match write {
            Write::Append {
                document,
                first,
                changes,
                ..
            } => {
                self.is_writable(document)?;
                if *first != span.next {
                    return Err(StoreError::OutOfOrder {
                        document: document.clone(),
                        expected: span.next,
                        first: *first,
                    });
                }
                let bytes = changes.iter().map(Bytes::len).sum();
                let count = u32::try_from(changes.len()).ok().filter(|count| *count > 0);
                let next = count.and_then(|count| span.next.checked_add(count.into()));
                match next {
                    Some(next) if u32::try_from(bytes).is_ok() => {
                        Ok(self.reaching(Span { next, ..span }))
                    }
                    _ => Err(StoreError::BadAppend {
                        document: document.clone(),
                        changes: changes.len(),
                        bytes,
                    }),
                }
            }
            Write::Snapshot {
                document,
                base,
                keep_from,
                ..
            } => {
                self.is_writable(document)?;
                let limit = if self.changes.is_none() {
                    u64::MAX
                } else {
                    span.next
                };
                if *base < span.base || *base > limit || keep_from > base {
                    return Err(StoreError::BadSnapshot {
                        document: document.clone(),
                        base: *base,
                        keep_from: *keep_from,
                        former_base: span.base,
                        next: span.next,
                    });
                }
                Ok(self.reaching(Span {
                    base: *base,
                    next: span.next.max(*base),
                }))
            }
            Write::Access {
                document,
                number,
                entry,
                labels: _,
            } => {
                self.is_writable(document)?;
                let is_next = *number == self.next_access && entry.len() <= ACCESS_ENTRY_MAX_BYTES;
                match number.checked_add(1).filter(|_| is_next) {
                    Some(next_access) => Ok(Self {
                        next_access,
                        ..self
                    }),
                    None => Err(StoreError::BadAccess {
                        document: document.clone(),
                        expected: self.next_access,
                        number: *number,
                        bytes: entry.len(),
                    }),
                }
            }
            Write::Label { document, .. } => match self.life {
                Life::Purged => Err(StoreError::Purged {
                    document: document.clone(),
                }),
                Life::Live if !self.is_there() => Err(StoreError::Unknown {
                    document: document.clone(),
                }),
                Life::Live | Life::Deleted => Ok(self),
            },
            Write::Delete { document, .. } => self.moved(document, Life::Live, Life::Deleted),
            Write::Undelete { document } => self.moved(document, Life::Deleted, Life::Live),
            Write::Purge { document, .. } => self.moved(document, Life::Deleted, Life::Purged),
        }
    }
}

/// Refuses what [`Store::set_meta`](super::Store::set_meta) may not store.
pub(super) fn meta(key: &str, value: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > META_KEY_MAX_BYTES || value.len() > META_VALUE_MAX_BYTES {
        return Err(StoreError::BadMeta {
            key_bytes: key.len(),
            value_bytes: value.len(),
        });
    }
    Ok(())
}
