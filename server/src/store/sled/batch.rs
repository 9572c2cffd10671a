//! Turns writes into steps of sled.
//!
//! What is long (snapshots, graphs, long log records) is *staged*: its pieces are written, in order,
//! under keys that nothing refers to yet. One batch of short values then makes all of it valid at
//! once: document records, log records. What that batch made superfluous is [swept](super::sweep)
//! later. So whatever its writes are, a batch stays small: see "Deadlock" in [`super`].

use std::collections::{HashMap, hash_map::Entry as Slot};

use ::sled::IVec;
use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{
    End, SledStore, UNFLUSHED_MAX_BYTES,
    keys::{DocumentKeys, Place},
    values::{self, DocumentRecord, Entry, INLINE_MAX_BYTES},
};
use crate::store::{StoreError, Write, check::Extent};

/// Sets of keys, to be applied as one.
#[derive(Default)]
pub(super) struct Batch {
    steps: Vec<(IVec, IVec)>,
}

impl Batch {
    pub(super) fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.steps.push((key.into(), value.into()));
    }

    /// A single step is atomic by itself: without the frame that sled puts around a batch it costs
    /// one write to disk instead of two.
    pub(super) fn apply(mut self, db: &::sled::Db) -> Result<(), ::sled::Error> {
        if self.steps.len() == 1 {
            if let Some((key, value)) = self.steps.pop() {
                db.insert(key, value)?;
            }
            return Ok(());
        }
        let mut batch = ::sled::Batch::default();
        for (key, value) in self.steps {
            batch.insert(key, value);
        }
        db.apply_batch(batch)
    }
}

/// Where logs end, before a batch or after it.
pub(super) type Ends = HashMap<DocumentId, End>;

/// One document's part of a batch that is being made.
struct Pending<'w> {
    keys: DocumentKeys,
    end: End,
    /// The document record must be written.
    dirty: bool,
    /// The log record that following appends join: index of its first change, its entries, their bytes.
    open: Option<(u64, Vec<Entry<'w>>, usize)>,
}

/// Something long, to be written before the batch that refers to it.
pub(super) struct Staging<'s> {
    db: &'s ::sled::Db,
    unflushed: usize,
}

impl Staging<'_> {
    fn flush(&mut self) -> Result<(), ::sled::Error> {
        if self.unflushed > 0 {
            self.db.flush()?;
            self.unflushed = 0;
        }
        Ok(())
    }

    fn write(
        &mut self,
        keys: &mut DocumentKeys,
        bytes: &[u8],
        place: impl Fn(u32) -> Place,
    ) -> Result<(), ::sled::Error> {
        for (piece, payload) in values::pieces(bytes) {
            let key = keys.at(place(piece));
            self.db.insert(key, values::seal(key, payload))?;
            self.unflushed += payload.len();
            if self.unflushed >= UNFLUSHED_MAX_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }
}

impl SledStore {
    /// Checks all writes against each other and against what is there; writes nothing.
    ///
    /// Returns where the logs of the documents concerned end before the batch; a document that is not
    /// there yet is missing.
    pub(super) fn check(&self, known: &Ends, writes: &[Write]) -> Result<Ends, StoreError> {
        let mut ends = Ends::new();
        let mut extents: HashMap<&DocumentId, Option<Extent>> = HashMap::new();
        for write in writes {
            let document = write.document();
            let extent = match extents.entry(document) {
                Slot::Occupied(slot) => slot.into_mut(),
                Slot::Vacant(slot) => {
                    let end = match known.get(document) {
                        Some(end) => Some(*end),
                        None => self.read_end(document)?,
                    };
                    if let Some(end) = end {
                        ends.insert(document.clone(), end);
                    }
                    slot.insert(end.map(|end| Extent {
                        base: end.record.base,
                        next: end.next,
                    }))
                }
            };
            *extent = Some(Extent::after(*extent, write)?);
        }
        Ok(ends)
    }

    /// Stages what is long and makes the batch, for writes that were [checked](Self::check).
    ///
    /// Returns the batch, and in `ends` where the logs end once it is applied.
    pub(super) fn stage(&self, ends: &mut Ends, writes: &[Write]) -> Result<Batch, ::sled::Error> {
        let mut batch = Batch::default();
        let mut staging = Staging {
            db: &self.db,
            unflushed: 0,
        };
        let mut documents: HashMap<&DocumentId, Pending<'_>> = HashMap::new();
        for write in writes {
            let document = write.document();
            let pending =
                documents.entry(document).or_insert_with(|| {
                    let (Write::Append { received_at_ms, .. }
                    | Write::Snapshot { received_at_ms, .. }) = write;
                    let end = ends.get(document).copied();
                    let new = End {
                        record: DocumentRecord::new(*received_at_ms),
                        next: 0,
                    };
                    Pending {
                        keys: DocumentKeys::new(document),
                        end: end.unwrap_or(new),
                        dirty: end.is_none(),
                        open: None,
                    }
                });
            match write {
                Write::Append {
                    first,
                    received_at_ms,
                    principal,
                    changes,
                    ..
                } => {
                    let entry = Entry {
                        received_at_ms: *received_at_ms,
                        principal,
                        changes,
                    };
                    pending.append(&mut batch, &mut staging, *first, entry)?;
                    pending.end.next = first.saturating_add(changes.len() as u64);
                }
                Write::Snapshot {
                    base,
                    keep_from,
                    snapshot,
                    graph,
                    arrivals,
                    ..
                } => {
                    pending.close_record(&mut batch);
                    let parts = [snapshot, graph, arrivals];
                    pending.snapshot(&mut staging, *base, *keep_from, parts)?;
                }
            }
        }
        staging.flush()?;
        for (document, mut pending) in documents {
            pending.close_record(&mut batch);
            if pending.dirty {
                let key = pending.keys.at(Place::Record);
                batch.insert(key, values::seal(key, &pending.end.record.encode()));
            }
            ends.insert(document.clone(), pending.end);
        }
        Ok(batch)
    }
}

impl<'w> Pending<'w> {
    /// Appends to one document within a batch share a log record while it is short: a batch with many
    /// small changes is then a few tree inserts.
    fn append(
        &mut self,
        batch: &mut Batch,
        staging: &mut Staging<'_>,
        first: u64,
        entry: Entry<'w>,
    ) -> Result<(), ::sled::Error> {
        let bytes = entry.len();
        if let Some((_, entries, len)) = &mut self.open
            && *len + bytes <= INLINE_MAX_BYTES
        {
            entries.push(entry);
            *len += bytes;
            return Ok(());
        }
        self.close_record(batch);
        if bytes <= INLINE_MAX_BYTES {
            self.open = Some((first, vec![entry], bytes));
            return Ok(());
        }
        let body = values::body(&entry);
        staging.write(&mut self.keys, &body, |piece| Place::Body { first, piece })?;
        let key = self.keys.at(Place::Log { first });
        batch.insert(key, values::log_apart(key, body.len() as u64));
        Ok(())
    }

    /// Writes the log record that was open for more.
    fn close_record(&mut self, batch: &mut Batch) {
        if let Some((first, entries, _)) = self.open.take() {
            let key = self.keys.at(Place::Log { first });
            batch.insert(key, values::log_inline(key, &entries));
        }
    }

    fn snapshot(
        &mut self,
        staging: &mut Staging<'_>,
        base: u64,
        keep_from: u64,
        [snapshot, graph, arrivals]: [&Bytes; 3],
    ) -> Result<(), ::sled::Error> {
        let End { record, next } = &mut self.end;
        record.generation += 1;
        let generation = record.generation;
        staging.write(&mut self.keys, snapshot, |piece| Place::Snapshot {
            generation,
            piece,
        })?;
        staging.write(&mut self.keys, graph, |piece| Place::Graph {
            generation,
            piece,
        })?;
        if !arrivals.is_empty() {
            staging.write(&mut self.keys, arrivals, |piece| Place::Arrivals {
                generation,
                piece,
            })?;
        }
        // A first upload has no log below its base.
        let nothing_below = base > *next;
        record.base = base;
        record.keep_from = if nothing_below {
            base
        } else {
            record.keep_from.max(keep_from)
        };
        record.snapshot_len = snapshot.len() as u64;
        record.graph_len = graph.len() as u64;
        record.arrivals_len = arrivals.len() as u64;
        *next = base.max(*next);
        self.dirty = true;
        Ok(())
    }
}
