//! Telling peers the heads at storages that they subscribed to: this server's, and those that peers with
//! a storage of their own acknowledged.

use std::sync::Arc;

use automerge::ChangeHash;
use concord_shared::ids::StorageId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Now;

/// One peer's subscriptions, and what it was told.
#[derive(Debug, Default)]
pub struct Subscriptions {
    to: Arc<FxHashSet<StorageId>>,
    /// What it was last told of each, and as of when.
    told: FxHashMap<StorageId, (Arc<[ChangeHash]>, u64)>,
}

/// Heads to tell a peer.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Whose.
    pub storage: StorageId,
    /// Where they are.
    pub heads: Arc<[ChangeHash]>,
    /// When they came there, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Subscriptions {
    /// Replaces them.
    pub fn replace(&mut self, to: Arc<FxHashSet<StorageId>>) {
        self.told.retain(|storage, _| to.contains(storage));
        self.to = to;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// What the peer has not been told yet, of `heads`; counts as told.
    pub fn news(
        &mut self,
        now: Now,
        heads: &FxHashMap<StorageId, Arc<[ChangeHash]>>,
    ) -> Vec<Moved> {
        let mut news = Vec::new();
        for storage in self.to.iter() {
            let Some(heads) = heads.get(storage).filter(|heads| !heads.is_empty()) else {
                continue;
            };
            let told = self.told.get(storage);
            if told.is_some_and(|(told, _)| told == heads) {
                continue;
            }
            // Clients ignore what is not later than what they know.
            let at_ms = told.map_or(now.unix_ms, |(_, at_ms)| now.unix_ms.max(at_ms + 1));
            let heads = Arc::clone(heads);
            self.told
                .insert(storage.clone(), (Arc::clone(&heads), at_ms));
            news.push(Moved {
                storage: storage.clone(),
                heads,
                at_ms,
            });
        }
        news
    }
}
