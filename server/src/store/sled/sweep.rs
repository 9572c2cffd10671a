//! Removes what no document record refers to any more: former generations, the log below `keep_from`; and all of what
//! is purged.
//!
//! Nothing depends on it: readers go by the document record and the tombstone. A crash in between leaves some of it
//! behind, which goes with the document's next snapshot; or, of what is purged, when the store is opened.
//!
//! **A log record goes before its body.** Readers find a body by its record, and of the log's last record also when it
//! lies below `keep_from`, to see where the log ends; so a record that is there has all of its body, whenever the sweep
//! stops. What is left of a body without its record is found by its number alone. (Bodies went first once: of a log
//! whose last record had one of more pieces than are removed in one go the rest could not be read. Readers know such
//! remains: [`Database::read_log_record`].)
//!
//! **What a label finds a document by goes before the label** ([`labels`](super::labels)), since nothing else leads there.

use std::collections::VecDeque;

use ::sled::IVec;
use concord_shared::ids::DocumentId;

use super::{Database, DocumentKeys, into_io, keys, keys::Place, read_failed, tombstones};
use crate::store::{Remains, StoreError, Tombstone};

/// Keys removed in one go, so that commits need not wait for more than a few milliseconds.
const SWEEP_KEYS: usize = 256;

/// What is to be swept.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Documents whose snapshot was replaced.
    documents: VecDeque<DocumentId>,
    /// Documents that are purged.
    purged: VecDeque<DocumentId>,
    /// Those of them that could not be swept. Nobody else waits for them.
    failed: Vec<DocumentId>,
}

impl Sweep {
    pub(super) fn add(&mut self, document: &DocumentId) {
        if !self.documents.contains(document) {
            self.documents.push_back(document.clone());
        }
    }

    pub(super) fn add_purged(&mut self, document: DocumentId) {
        // All of it goes: nobody need look what of it is superfluous.
        self.documents.retain(|other| *other != document);
        self.purged.push_back(document);
    }

    /// What could not be swept is tried again: before the database is written anew, which is once a day while something of
    /// what is purged is there, and not after each commit.
    pub(super) fn try_again(&mut self) {
        self.purged.extend(self.failed.drain(..));
    }

    fn has_more(&self) -> bool {
        !self.documents.is_empty() || !self.purged.is_empty()
    }
}

impl Database {
    /// Sweeps a little; whether there is more.
    pub(super) fn sweep(&self, sweep: &mut Sweep) -> Result<bool, StoreError> {
        let Some(document) = sweep.documents.pop_front() else {
            return self.sweep_purged(sweep);
        };
        // A damaged document keeps what it has: it may help to rescue something.
        let keys = self.superfluous(&document, SWEEP_KEYS)?;
        let broken = |error| StoreError::Broken(into_io(error));
        self.remove_all(&keys).map_err(broken)?;
        if keys.len() >= SWEEP_KEYS {
            sweep.documents.push_front(document);
        }
        Ok(sweep.has_more())
    }

    /// In order, and none by batch: each removal is right by itself.
    fn remove_all(&self, keys: &[IVec]) -> Result<(), ::sled::Error> {
        for key in keys {
            self.db.remove(key)?;
        }
        if !keys.is_empty() {
            self.db.flush()?;
        }
        Ok(())
    }

    fn sweep_purged(&self, sweep: &mut Sweep) -> Result<bool, StoreError> {
        let Some(document) = sweep.purged.pop_front() else {
            return Ok(false);
        };
        match self.remove_some(&document) {
            Ok(true) => sweep.purged.push_front(document),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%document, "what is purged can't be removed: it is tried again later");
                sweep.failed.push(document);
                return Err(error);
            }
        }
        Ok(sweep.has_more())
    }

    /// Removes a little of what is purged; whether there is more. sled's log keeps the order of what is written, so a
    /// tombstone that says that all is swept is not there without all removals.
    fn remove_some(&self, document: &DocumentId) -> Result<bool, StoreError> {
        let broken = |error| StoreError::Broken(into_io(error));
        let mut place = DocumentKeys::new(document);
        let low = place.start().to_vec();
        let range = self.db.range(low.as_slice()..place.end());
        let keys: Result<Vec<IVec>, _> = range.keys().take(SWEEP_KEYS).collect();
        let keys = keys.map_err(read_failed)?;
        let labelled = keys.iter().filter_map(|key| match place.parse(key) {
            Some(Place::Label(label)) => Some(keys::labelled(label, document).into()),
            _ => None,
        });
        let labelled: Vec<IVec> = labelled.collect();
        self.remove_all(&labelled).map_err(broken)?;
        self.remove_all(&keys).map_err(broken)?;
        if keys.len() >= SWEEP_KEYS {
            return Ok(true);
        }
        let tombstone = self.read_tombstone(document);
        let tombstone = tombstone.map_err(|fail| fail.of(document))?;
        if let Some(tombstone) = tombstone {
            let swept = Tombstone {
                remains: Remains::Files,
                ..tombstone
            };
            let key = keys::tombstone(document);
            let value = tombstones::seal(&key, &swept);
            self.db.insert(key, value).map_err(broken)?;
            self.db.flush().map_err(broken)?;
        }
        Ok(false)
    }

    /// Up to `limit` keys of a document that nothing refers to, in the order in which to remove them.
    fn superfluous(&self, document: &DocumentId, limit: usize) -> Result<Vec<IVec>, StoreError> {
        let mut found = Vec::new();
        let Some(end) = self.read_end(document)? else {
            return Ok(found);
        };
        let mut keys = DocumentKeys::new(document);
        let generation = end.record.generation;
        let former: [(Place, Place); 3] = [
            (
                Place::Snapshot {
                    generation: 0,
                    piece: 0,
                },
                Place::Snapshot {
                    generation,
                    piece: 0,
                },
            ),
            (
                Place::Graph {
                    generation: 0,
                    piece: 0,
                },
                Place::Graph {
                    generation,
                    piece: 0,
                },
            ),
            (
                Place::Arrivals {
                    generation: 0,
                    piece: 0,
                },
                Place::Arrivals {
                    generation,
                    piece: 0,
                },
            ),
        ];
        for (low, high) in former {
            let low = keys.at(low).to_vec();
            for key in self.db.range(low.as_slice()..keys.at(high)).keys() {
                if found.len() >= limit {
                    return Ok(found);
                }
                found.push(key.map_err(read_failed)?);
            }
        }
        self.superfluous_log(&mut keys, end.record.keep_from, end.next, limit, &mut found)?;
        Ok(found)
    }

    /// A record lies wholly below `keep_from` if the next one starts at or below it.
    fn superfluous_log(
        &self,
        keys: &mut DocumentKeys,
        keep_from: u64,
        next: u64,
        limit: usize,
        found: &mut Vec<IVec>,
    ) -> Result<(), StoreError> {
        let low = keys.at(Place::Log { first: 0 }).to_vec();
        let high = keys.end_of_log().to_vec();
        let mut records = self.db.range(low.as_slice()..high.as_slice()).keys();
        let mut record = records.next().transpose().map_err(read_failed)?;
        // Below it no record is left that has a body.
        let mut kept = keep_from;
        while let Some(key) = record {
            let following = records.next().transpose().map_err(read_failed)?;
            let first_of = |key: &IVec| match keys.parse(key) {
                Some(Place::Log { first }) => Some(first),
                _ => None,
            };
            let end = following.as_ref().map_or(Some(next), first_of);
            let (Some(first), Some(end)) = (first_of(&key), end) else {
                return Ok(());
            };
            if end > keep_from {
                kept = first.min(keep_from);
                break;
            }
            if found.len() >= limit {
                return Ok(());
            }
            found.push(key);
            record = following;
        }
        let body = |first| Place::Body { first, piece: 0 };
        let low = keys.at(body(0)).to_vec();
        let high = keys.at(body(kept));
        for key in self.db.range(low.as_slice()..high).keys() {
            if found.len() >= limit {
                return Ok(());
            }
            found.push(key.map_err(read_failed)?);
        }
        Ok(())
    }
}
