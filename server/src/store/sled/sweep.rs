//! Removes what no document record refers to any more: former generations, the log below `keep_from`.
//!
//! Nothing depends on it: readers go by the document record. A crash in between leaves some of it
//! behind, which goes with the document's next snapshot.

use std::collections::VecDeque;

use ::sled::IVec;
use concord_shared::ids::DocumentId;

use super::{
    DocumentKeys, SledStore, into_io,
    keys::Place,
    read_failed,
    values::{Body, read_log, unseal},
};
use crate::store::StoreError;

/// Keys removed in one go, so that commits need not wait for more than a few milliseconds.
const SWEEP_KEYS: usize = 256;

/// What is to be swept: documents whose snapshot was replaced.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    documents: VecDeque<DocumentId>,
}

impl Sweep {
    pub(super) fn add(&mut self, document: &DocumentId) {
        if !self.documents.contains(document) {
            self.documents.push_back(document.clone());
        }
    }
}

impl SledStore {
    /// Sweeps a little; whether there is more.
    pub(super) fn sweep(&self, sweep: &mut Sweep) -> Result<bool, StoreError> {
        let Some(document) = sweep.documents.pop_front() else {
            return Ok(false);
        };
        // A damaged document keeps what it has: it may help to rescue something.
        let keys = self.superfluous(&document, SWEEP_KEYS)?;
        let broken = |error| StoreError::Broken(into_io(error));
        // In order, and none by batch: each removal is right by itself.
        for key in &keys {
            self.db.remove(key).map_err(broken)?;
        }
        if keys.len() >= SWEEP_KEYS {
            sweep.documents.push_front(document);
        }
        if !keys.is_empty() {
            self.db.flush().map_err(broken)?;
        }
        Ok(!sweep.documents.is_empty())
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
        let mut records = self.db.range(low.as_slice()..high.as_slice());
        let mut record = records.next().transpose().map_err(read_failed)?;
        while let Some((key, value)) = record {
            let following = records.next().transpose().map_err(read_failed)?;
            let end = match &following {
                Some((key, _)) => match keys.parse(key) {
                    Some(Place::Log { first }) => first,
                    _ => break,
                },
                None => next,
            };
            let Some(Place::Log { first }) = keys.parse(&key) else {
                break;
            };
            if end > keep_from {
                break;
            }
            let part = Place::Log { first }.part();
            // Its body goes first, while the record still tells that there is one. A damaged record
            // goes all the same: only its body is left behind.
            if let Ok(Body::Apart { .. }) =
                unseal(&key, &value, part).and_then(|payload| read_log(first, payload))
            {
                let low = keys.at(Place::Body { first, piece: 0 }).to_vec();
                let high = keys.at(Place::Body {
                    first,
                    piece: u32::MAX,
                });
                for key in self.db.range(low.as_slice()..=high).keys() {
                    if found.len() >= limit {
                        return Ok(());
                    }
                    found.push(key.map_err(read_failed)?);
                }
            }
            if found.len() >= limit {
                return Ok(());
            }
            found.push(key);
            record = following;
        }
        Ok(())
    }
}
