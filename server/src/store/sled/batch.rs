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
    Database, End, Standing, UNFLUSHED_MAX_BYTES,
    keys::{self, DocumentKeys, FORMAT_KEY, GUARDED_DIRECTORY, PLAIN_DIRECTORY, Place},
    tombstones,
    tree::Tree,
    values::{self, DocumentRecord, Entry, INLINE_MAX_BYTES},
};
use crate::store::{Label, Remains, StoreError, Tombstone, Write, check::Extent};

/// Sets and removals of keys, to be applied as one.
#[derive(Default)]
pub(super) struct Batch {
    /// `None`: the key goes.
    steps: Vec<(IVec, Option<IVec>)>,
}

impl Batch {
    pub(super) fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.steps.push((key.into(), Some(value.into())));
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.steps.push((key.into(), None));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A single step is atomic by itself: without the frame that sled puts around a batch it costs
    /// one write to disk instead of two.
    pub(super) fn apply(mut self, db: &Tree) -> Result<(), ::sled::Error> {
        if self.steps.len() == 1 {
            match self.steps.pop() {
                Some((key, Some(value))) => db.insert(key, value)?,
                Some((key, None)) => db.remove(key)?,
                None => None,
            };
            return Ok(());
        }
        db.apply(self.steps)
    }
}

/// Where documents stand, before a batch or after it.
pub(super) type Standings = HashMap<DocumentId, Standing>;

/// One document's part of a batch that is being made.
struct Pending<'w> {
    keys: DocumentKeys,
    standing: Standing,
    /// The document record must be written.
    dirty: bool,
    /// The tombstone must be written, or removed.
    is_reburied: bool,
    /// The labels that it gets.
    labels: Option<&'w [Label]>,
    /// The log record that following appends join: index of its first change, its entries, their bytes.
    open: Option<(u64, Vec<Entry<'w>>, usize)>,
}

/// Something long, to be written before the batch that refers to it.
pub(super) struct Staging<'s> {
    db: &'s Tree,
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

impl Database {
    /// Checks all writes against each other and against what is there; writes nothing.
    ///
    /// Returns where the documents concerned stand before the batch.
    pub(super) fn check(
        &self,
        known: &Standings,
        writes: &[Write],
    ) -> Result<Standings, StoreError> {
        let mut standings = Standings::new();
        let mut extents: HashMap<&DocumentId, Extent> = HashMap::new();
        for write in writes {
            let document = write.document();
            let extent = match extents.entry(document) {
                Slot::Occupied(slot) => slot.into_mut(),
                Slot::Vacant(slot) => {
                    let standing = match known.get(document) {
                        Some(standing) => standing.clone(),
                        None => self.read_standing(document)?,
                    };
                    let extent = standing.extent();
                    standings.insert(document.clone(), standing);
                    slot.insert(extent)
                }
            };
            *extent = std::mem::take(extent).after(write)?;
        }
        Ok(standings)
    }

    /// Stages what is long and makes the batch, for writes that were [checked](Self::check).
    ///
    /// Returns the batch, and in `standings` where the documents stand once it is applied. The batch raises the
    /// directory's `format` if what it writes asks for that.
    pub(super) fn stage(
        &self,
        standings: &mut Standings,
        format: u8,
        writes: &[Write],
    ) -> Result<Batch, ::sled::Error> {
        let mut batch = Batch::default();
        if format < format_of(writes) {
            batch.insert(FORMAT_KEY, vec![format_of(writes)]);
        }
        let mut staging = Staging {
            db: &self.db,
            unflushed: 0,
        };
        let mut documents: HashMap<&DocumentId, Pending<'_>> = HashMap::new();
        for write in writes {
            let document = write.document();
            let pending = documents.entry(document).or_insert_with(|| Pending {
                keys: DocumentKeys::new(document),
                standing: standings.get(document).cloned().unwrap_or_default(),
                dirty: false,
                is_reburied: false,
                labels: None,
                open: None,
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
                    pending.end(*received_at_ms).next = first.saturating_add(changes.len() as u64);
                }
                Write::Snapshot {
                    base,
                    keep_from,
                    received_at_ms,
                    snapshot,
                    graph,
                    arrivals,
                    ..
                } => {
                    pending.close_record(&mut batch);
                    let mut end = *pending.end(*received_at_ms);
                    let parts = [snapshot, graph, arrivals];
                    pending.snapshot(&mut staging, &mut end, *base, *keep_from, parts)?;
                    pending.standing.end = Some(end);
                }
                Write::Access {
                    number,
                    entry,
                    labels,
                    ..
                } => {
                    pending.access(&mut batch, &mut staging, *number, entry)?;
                    pending.labels = Some(labels);
                }
                Write::Label { labels, .. } => pending.labels = Some(labels),
                Write::Delete {
                    at_ms, by, bytes, ..
                } => pending.bury(Some(Tombstone {
                    at_ms: *at_ms,
                    by: by.clone(),
                    bytes: *bytes,
                    purged: false,
                    purged_by: None,
                    remains: Remains::Store,
                })),
                Write::Undelete { .. } => pending.bury(None),
                Write::Purge { by, .. } => {
                    let tombstone = pending.standing.tombstone.take();
                    pending.bury(tombstone.map(|tombstone| Tombstone {
                        purged: true,
                        purged_by: by.clone(),
                        ..tombstone
                    }));
                }
            }
        }
        staging.flush()?;
        for (document, mut pending) in documents {
            pending.close_record(&mut batch);
            if let Some(end) = pending.standing.end.filter(|_| pending.dirty) {
                let key = pending.keys.at(Place::Record);
                batch.insert(key, values::seal(key, &end.record.encode()));
            }
            if let Some(labels) = pending.labels {
                self.label(&mut batch, document, labels)?;
            }
            if pending.is_reburied {
                let key = keys::tombstone(document);
                match &pending.standing.tombstone {
                    Some(tombstone) => batch.insert(&key, tombstones::seal(&key, tombstone)),
                    None => batch.remove(&key),
                }
            }
            standings.insert(document.clone(), pending.standing);
        }
        Ok(batch)
    }
}

/// The format that a directory must have for these writes.
pub(super) fn format_of(writes: &[Write]) -> u8 {
    let guards = |write: &Write| {
        matches!(
            write,
            Write::Access { .. } | Write::Label { .. } | Write::Delete { .. }
        )
    };
    if writes.iter().any(guards) {
        GUARDED_DIRECTORY
    } else {
        PLAIN_DIRECTORY
    }
}

impl<'w> Pending<'w> {
    /// Where the document's log ends; a document that is not there begins with this.
    fn end(&mut self, now_ms: u64) -> &mut End {
        self.standing.end.get_or_insert_with(|| {
            self.dirty = true;
            End {
                record: DocumentRecord::new(now_ms),
                next: 0,
            }
        })
    }

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
        batch.insert(key, values::apart(key, body.len() as u64));
        Ok(())
    }

    /// Writes the log record that was open for more.
    fn close_record(&mut self, batch: &mut Batch) {
        if let Some((first, entries, _)) = self.open.take() {
            let key = self.keys.at(Place::Log { first });
            batch.insert(key, values::log_inline(key, &entries));
        }
    }

    fn access(
        &mut self,
        batch: &mut Batch,
        staging: &mut Staging<'_>,
        number: u64,
        entry: &[u8],
    ) -> Result<(), ::sled::Error> {
        let place = Place::Access { number };
        if entry.len() <= INLINE_MAX_BYTES {
            let key = self.keys.at(place);
            batch.insert(key, values::inline(key, entry));
        } else {
            staging.write(&mut self.keys, entry, |piece| Place::AccessPiece {
                number,
                piece,
            })?;
            let key = self.keys.at(place);
            batch.insert(key, values::apart(key, entry.len() as u64));
        }
        self.standing.next_access = number.saturating_add(1);
        Ok(())
    }

    fn bury(&mut self, tombstone: Option<Tombstone>) {
        self.standing.tombstone = tombstone;
        self.is_reburied = true;
    }

    fn snapshot(
        &mut self,
        staging: &mut Staging<'_>,
        End { record, next }: &mut End,
        base: u64,
        keep_from: u64,
        [snapshot, graph, arrivals]: [&Bytes; 3],
    ) -> Result<(), ::sled::Error> {
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
