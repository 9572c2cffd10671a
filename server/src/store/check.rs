//! The rules of a log that every backend checks before it writes.

use bytes::Bytes;

use super::{META_KEY_MAX_BYTES, META_VALUE_MAX_BYTES, StoreError, Write};

/// What of a document a write must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// How many changes the snapshot stands for; 0 if there is none.
    pub(super) base: u64,
    /// How many changes there are.
    pub(super) next: u64,
}

impl Extent {
    /// What `before` (`None`: the document is not there) becomes by `write`, or why `write` is refused.
    pub(super) fn after(before: Option<Self>, write: &Write) -> Result<Self, StoreError> {
        let extent = before.unwrap_or(Self { base: 0, next: 0 });
        match write {
            Write::Append {
                document,
                first,
                changes,
                ..
            } => {
                if *first != extent.next {
                    return Err(StoreError::OutOfOrder {
                        document: document.clone(),
                        expected: extent.next,
                        first: *first,
                    });
                }
                let bytes = changes.iter().map(Bytes::len).sum();
                let count = u32::try_from(changes.len()).ok().filter(|count| *count > 0);
                let next = count.and_then(|count| extent.next.checked_add(count.into()));
                match next {
                    Some(next) if u32::try_from(bytes).is_ok() => Ok(Self { next, ..extent }),
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
                let limit = if before.is_none() {
                    u64::MAX
                } else {
                    extent.next
                };
                if *base < extent.base || *base > limit || keep_from > base {
                    return Err(StoreError::BadSnapshot {
                        document: document.clone(),
                        base: *base,
                        keep_from: *keep_from,
                        former_base: extent.base,
                        next: extent.next,
                    });
                }
                Ok(Self {
                    base: *base,
                    next: extent.next.max(*base),
                })
            }
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
