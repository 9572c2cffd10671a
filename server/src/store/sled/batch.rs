//! Turns writes into one sled batch.

use std::collections::{HashMap, hash_map::Entry as Slot};

use ::sled::IVec;
use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{
    DocumentKeys, DocumentRecord, End, SledStore,
    keys::Place,
    read_failed,
    values::{self, Entry, PieceWriter},
};
use crate::store::{StoreError, Write, check::Extent};

/// Appends to one document within a batch share a log record until it has this many bytes: a batch with many small
/// changes is then a few tree inserts, and a reader of a few changes still reads little.
const RECORD_FULL_BYTES: usize = 32 * 1024;

/// Sets and removals of keys, to be applied as one; the last one of a key counts.
#[derive(Default)]
pub(super) struct Batch {
    steps: Vec<(IVec, Option<IVec>)>,
}

impl Batch {
    pub(super) fn insert(&mut self, key: impl Into<IVec>, value: Vec<u8>) {
        self.steps.push((key.into(), Some(value.into())));
    }

    pub(super) fn remove(&mut self, key: impl Into<IVec>) {
        self.steps.push((key.into(), None));
    }

    /// A single step is atomic by itself: without the frame that sled puts around a batch it costs one write
    /// to disk instead of two.
    pub(super) fn apply(mut self, db: &::sled::Db) -> Result<(), ::sled::Error> {
        if self.steps.len() == 1 {
            if let Some((key, value)) = self.steps.pop() {
                match value {
                    Some(value) => db.insert(key, value)?,
                    None => db.remove(key)?,
                };
            }
            return Ok(());
        }
        let mut batch = ::sled::Batch::default();
        for (key, value) in self.steps {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        db.apply_batch(batch)
    }
}

/// A batch, and where the logs end once it is applied.
pub(super) struct Prepared {
    pub(super) batch: Batch,
    pub(super) ends: Vec<(DocumentId, End)>,
}

/// One document's part of a batch that is being made.
struct Pending<'w> {
    keys: DocumentKeys,
    end: Option<End>,
    /// The document record must be written.
    dirty: bool,
    /// The log record that following appends join: index of its first change, its entries, their bytes.
    open: Option<(u64, Vec<Entry<'w>>, usize)>,
    /// Log records that this batch wrote, with their number of pieces: a later snapshot may remove them again.
    written: Vec<(u64, u32)>,
}

impl SledStore {
    /// Checks all writes and makes the batch; writes nothing.
    pub(super) fn prepare(
        &self,
        ends: &HashMap<DocumentId, End>,
        writes: &[Write],
    ) -> Result<Prepared, StoreError> {
        let mut batch = Batch::default();
        let mut documents: HashMap<&DocumentId, Pending<'_>> = HashMap::new();
        for write in writes {
            let document = write.document();
            let pending = match documents.entry(document) {
                Slot::Occupied(slot) => slot.into_mut(),
                Slot::Vacant(slot) => {
                    let keys = DocumentKeys::new(document);
                    let end = match ends.get(document) {
                        Some(end) => Some(*end),
                        None => self.read_end(document)?,
                    };
                    slot.insert(Pending {
                        keys,
                        end,
                        dirty: false,
                        open: None,
                        written: Vec::new(),
                    })
                }
            };
            let before = pending.end.map(|end| Extent {
                base: end.record.base,
                next: end.next,
            });
            let after = Extent::after(before, write)?;
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
                    pending.append(&mut batch, *first, entry, after);
                }
                Write::Snapshot {
                    keep_from,
                    received_at_ms,
                    snapshot,
                    graph,
                    ..
                } => {
                    pending.close_record(&mut batch);
                    self.remove_log(&mut batch, pending, *keep_from)?;
                    pending.snapshot(&mut batch, *received_at_ms, snapshot, graph, after);
                }
            }
        }
        let mut ends = Vec::with_capacity(documents.len());
        for (document, mut pending) in documents {
            pending.close_record(&mut batch);
            let Some(end) = pending.end else { continue };
            if pending.dirty {
                let key = pending.keys.at(Place::Record);
                batch.insert(key, values::single(key, &end.record.encode()));
            }
            ends.push((document.clone(), end));
        }
        Ok(Prepared { batch, ends })
    }

    /// Removes the log records that lie wholly below `keep_from`. Every record ends where the next one starts.
    fn remove_log(
        &self,
        batch: &mut Batch,
        pending: &mut Pending<'_>,
        keep_from: u64,
    ) -> Result<(), StoreError> {
        let next = pending.end.map_or(0, |end| end.next);
        let low = pending.keys.at(Place::Log { first: 0, piece: 0 }).to_vec();
        let mut record = Vec::new();
        let mut record_first = 0;
        for key in self.db.range(low.as_slice()..pending.keys.end()).keys() {
            let key = key.map_err(read_failed)?;
            let Some(Place::Log { first, .. }) = pending.keys.parse(&key) else {
                continue;
            };
            if first != record_first {
                if first > keep_from {
                    break;
                }
                record.drain(..).for_each(|key| batch.remove(key));
                record_first = first;
            }
            record.push(key);
        }
        let stored_end = pending.written.first().map_or(next, |(first, _)| *first);
        if record_first < stored_end && stored_end <= keep_from {
            record.drain(..).for_each(|key| batch.remove(key));
        }

        // What this very batch wrote.
        let ends = pending
            .written
            .iter()
            .skip(1)
            .map(|(first, _)| *first)
            .chain([next]);
        let gone = ends
            .take_while(|end| *end <= keep_from)
            .count()
            .min(pending.written.len());
        for (first, pieces) in pending.written.drain(..gone) {
            for piece in 0..pieces {
                batch.remove(pending.keys.at(Place::Log { first, piece }));
            }
        }
        Ok(())
    }
}

impl<'w> Pending<'w> {
    fn append(&mut self, batch: &mut Batch, first: u64, entry: Entry<'w>, after: Extent) {
        let bytes = entry.len();
        match &mut self.open {
            Some((_, entries, len)) if *len + bytes <= RECORD_FULL_BYTES => {
                entries.push(entry);
                *len += bytes;
            }
            _ => {
                self.close_record(batch);
                self.open = Some((first, vec![entry], bytes));
            }
        }
        let record = self.record_or_new(entry.received_at_ms);
        self.end = Some(End {
            record,
            next: after.next,
        });
    }

    /// Replaces the snapshot generation, if there is one.
    fn snapshot(
        &mut self,
        batch: &mut Batch,
        received_at_ms: u64,
        snapshot: &Bytes,
        graph: &Bytes,
        after: Extent,
    ) {
        let former = self.record_or_new(received_at_ms);
        if former.generation > 0 {
            let generation = former.generation;
            for piece in pieces_of(former.snapshot_len) {
                batch.remove(self.keys.at(Place::Snapshot { generation, piece }));
            }
            for piece in pieces_of(former.graph_len) {
                batch.remove(self.keys.at(Place::Graph { generation, piece }));
            }
        }
        let generation = former.generation + 1;
        self.write_pieces(batch, snapshot, |piece| Place::Snapshot {
            generation,
            piece,
        });
        self.write_pieces(batch, graph, |piece| Place::Graph { generation, piece });
        self.dirty = true;
        let record = DocumentRecord {
            created_at_ms: former.created_at_ms,
            generation,
            base: after.base,
            snapshot_len: snapshot.len() as u64,
            graph_len: graph.len() as u64,
        };
        self.end = Some(End {
            record,
            next: after.next,
        });
    }

    fn record_or_new(&mut self, now_ms: u64) -> DocumentRecord {
        if let Some(end) = self.end {
            return end.record;
        }
        self.dirty = true;
        DocumentRecord {
            created_at_ms: now_ms,
            generation: 0,
            base: 0,
            snapshot_len: 0,
            graph_len: 0,
        }
    }

    fn write_pieces(&mut self, batch: &mut Batch, bytes: &[u8], place: impl Fn(u32) -> Place) {
        let mut writer = PieceWriter::new(bytes.len(), |piece, value| {
            let key = self.keys.at(place(piece));
            batch.insert(key, values::seal(key, value));
        });
        writer.push(bytes);
        writer.finish();
    }

    /// Writes the log record that was open for more.
    fn close_record(&mut self, batch: &mut Batch) {
        let Some((first, entries, _)) = self.open.take() else {
            return;
        };
        let mut pieces = 0;
        values::write_log(&entries, |piece, value| {
            let key = self.keys.at(Place::Log { first, piece });
            batch.insert(key, values::seal(key, value));
            pieces = piece + 1;
        });
        self.written.push((first, pieces));
    }
}

/// Numbers of the pieces that a blob of `len` bytes lies in.
pub(super) fn pieces_of(len: u64) -> std::ops::Range<u32> {
    0..u32::try_from(values::piece_count(len)).unwrap_or(u32::MAX)
}
