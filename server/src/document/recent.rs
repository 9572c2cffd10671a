//! The newest changes' bytes, kept in memory so that a live peer is served without the store.

use std::collections::VecDeque;

use bytes::Bytes;

use super::graph::Index;

/// Bytes of visible changes kept per document once every live peer has them.
pub const RECENT_BYTES_PER_DOCUMENT: usize = 64 << 10;

/// A window over the end of the log; see the module's docs.
#[derive(Debug, Default)]
pub struct Recent {
    start: Index,
    changes: VecDeque<Bytes>,
    bytes: usize,
}

impl Recent {
    /// An empty window; the next change has index `start`.
    pub fn starting_at(start: Index) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    /// Lowest index it holds.
    pub fn start(&self) -> Index {
        self.start
    }

    /// Bytes of changes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the next change.
    pub fn push(&mut self, change: Bytes) {
        self.bytes += change.len();
        self.changes.push_back(change);
    }

    /// The change at `index`, if it is in the window.
    pub fn get(&self, index: Index) -> Option<&Bytes> {
        let offset = index.checked_sub(self.start)?;
        self.changes.get(offset as usize)
    }

    /// Forgets the oldest until `most` bytes are left, but nothing at or above `keep_from`.
    pub fn trim(&mut self, keep_from: Index, most: usize) {
        while self.bytes > most && self.start < keep_from {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.start += 1;
        }
        if self.changes.is_empty() {
            self.changes.shrink_to_fit();
        }
    }
}
