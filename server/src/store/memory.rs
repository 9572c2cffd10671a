//! A store in memory, for tests: it fails when told to, and a crash drops what was not synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
};

use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{
    Allowance, Contents, DocumentInfo, DocumentSummary, Durability, Ids, Label, LogRecord, Problem,
    Remains, Store, StoreError, StoredDocument, Tombstone, Write,
    check::{self, Extent, Life, Span},
};

/// How the next commit of a [`MemoryStore`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and [`StoreError::Write`] says that this is not known.
    WriteLost,
    /// The batch is written, and [`StoreError::Write`] says that this is not known.
    WriteDone,
    /// The batch is written but not synced: [`StoreError::Sync`], and every later commit is refused.
    Sync,
}

/// A [`Store`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What readers see.
    written: State,
    /// What a crash leaves at least.
    synced: State,
    /// Batches that are in `written` but not in `synced`, oldest first.
    unsynced: Vec<Vec<Write>>,
    fault: Option<Fault>,
    /// The next commit is written, and synced once something comes from here.
    held: Option<mpsc::Receiver<()>>,
    poisoned: bool,
}

#[derive(Debug, Default, Clone)]
struct State {
    documents: BTreeMap<DocumentId, Document>,
    access: BTreeMap<DocumentId, Vec<Bytes>>,
    labels: BTreeMap<DocumentId, Vec<Label>>,
    tombstones: BTreeMap<DocumentId, Tombstone>,
    meta: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone)]
struct Document {
    created_at_ms: u64,
    keep_from: u64,
    generation: Option<Generation>,
    records: Vec<LogRecord>,
}

#[derive(Debug, Clone)]
struct Generation {
    base: u64,
    snapshot: Bytes,
    graph: Bytes,
    arrivals: Bytes,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next commit fail in the given way.
    pub fn fail_next_commit(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// The next commit is written, and waits with its sync until the sender is used or dropped.
    pub fn hold_next_sync(&self) -> mpsc::SyncSender<()> {
        let (release, held) = mpsc::sync_channel(1);
        self.lock().held = Some(held);
        release
    }

    /// How many commits a crash could lose.
    pub fn unsynced_commits(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// What a restart finds after a crash: all that was synced, and the `surviving` oldest of the commits
    /// that were not (a log-structured store loses an end of its log, never its middle).
    #[must_use]
    pub fn crash(&self, surviving: usize) -> Self {
        let inner = self.lock();
        let mut state = inner.synced.clone();
        for write in inner.unsynced.iter().take(surviving).flatten() {
            state.apply(write);
        }
        Self {
            inner: Mutex::new(Inner {
                written: state.clone(),
                synced: state,
                ..Inner::default()
            }),
        }
    }

    /// A panic elsewhere can't leave the state torn: every change to it is made after the last check.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sync(&mut self) {
        for write in self.unsynced.drain(..).flatten() {
            self.synced.apply(&write);
        }
    }
}

impl State {
    /// Applies a write that [`Extent::after`] let pass.
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Append {
                document,
                first,
                received_at_ms,
                principal,
                changes,
            } => {
                self.document(document, *received_at_ms)
                    .records
                    .push(LogRecord {
                        first: *first,
                        received_at_ms: *received_at_ms,
                        principal: principal.clone(),
                        changes: changes.clone(),
                    });
            }
            Write::Snapshot {
                document,
                base,
                keep_from,
                received_at_ms,
                snapshot,
                graph,
                arrivals,
            } => {
                let document = self.document(document, *received_at_ms);
                // A first upload has no log below its base.
                let nothing_below = *base > document.next();
                document.keep_from = if nothing_below {
                    *base
                } else {
                    document.keep_from.max(*keep_from)
                };
                let keep_from = document.keep_from;
                document.records.retain(|record| record.end() > keep_from);
                document.generation = Some(Generation {
                    base: *base,
                    snapshot: snapshot.clone(),
                    graph: graph.clone(),
                    arrivals: arrivals.clone(),
                });
            }
            Write::Access {
                document,
                entry,
                labels,
                ..
            } => {
                let entries = self.access.entry(document.clone()).or_default();
                entries.push(entry.clone());
                self.labels.insert(document.clone(), labels.clone());
            }
            Write::Label { document, labels } => {
                self.labels.insert(document.clone(), labels.clone());
            }
            Write::Delete {
                document,
                at_ms,
                by,
                bytes,
            } => {
                let tombstone = Tombstone {
                    at_ms: *at_ms,
                    by: by.clone(),
                    bytes: *bytes,
                    purged: false,
                    purged_by: None,
                    remains: Remains::Store,
                };
                self.tombstones.insert(document.clone(), tombstone);
            }
            Write::Undelete { document } => {
                self.tombstones.remove(document);
            }
            Write::Purge { document, by } => {
                self.documents.remove(document);
                self.access.remove(document);
                self.labels.remove(document);
                if let Some(tombstone) = self.tombstones.get_mut(document) {
                    tombstone.purged = true;
                    tombstone.purged_by.clone_from(by);
                    tombstone.remains = Remains::Nothing;
                }
            }
        }
    }

    /// A document that is there for readers.
    fn visible(&self, document: &DocumentId) -> Option<&Document> {
        let found = self.documents.get(document);
        found.filter(|_| !self.tombstones.contains_key(document))
    }

    fn info(&self, document: &DocumentId) -> Option<DocumentInfo> {
        self.visible(document).map(|found| DocumentInfo {
            document: document.clone(),
            summary: Ok(DocumentSummary {
                created_at_ms: found.created_at_ms,
                base: found.base(),
                changes: found.next(),
                snapshot_bytes: found.snapshot_bytes(),
            }),
        })
    }

    fn extent(&self, document: &DocumentId) -> Extent {
        Extent {
            changes: self.documents.get(document).map(|document| Span {
                base: document.base(),
                next: document.next(),
            }),
            next_access: self.access_log(document).len() as u64,
            life: Life::of(self.tombstones.get(document)),
            damage: None,
        }
    }

    fn access_log(&self, document: &DocumentId) -> &[Bytes] {
        self.access.get(document).map_or(&[], Vec::as_slice)
    }

    fn document(&mut self, id: &DocumentId, now_ms: u64) -> &mut Document {
        self.documents
            .entry(id.clone())
            .or_insert_with(|| Document {
                created_at_ms: now_ms,
                keep_from: 0,
                generation: None,
                records: Vec::new(),
            })
    }
}

impl Document {
    fn base(&self) -> u64 {
        self.generation
            .as_ref()
            .map_or(0, |generation| generation.base)
    }

    fn snapshot_bytes(&self) -> u64 {
        self.generation
            .as_ref()
            .map_or(0, |generation| generation.snapshot.len() as u64)
    }

    fn next(&self) -> u64 {
        self.records.last().map_or(self.base(), LogRecord::end)
    }

    fn log(&self, from: u64, to: u64, most_bytes: u64) -> Vec<LogRecord> {
        let mut allowance = Allowance::new(most_bytes);
        let from = from.max(self.keep_from);
        let start = self.records.partition_point(|record| record.end() <= from);
        let records = self.records.get(start..).unwrap_or_default();
        records
            .iter()
            .map_while(|record| record.clone().cut(from, to))
            .take_while(|record| allowance.admits(record.bytes()))
            .collect()
    }
}

impl Store for MemoryStore {
    fn commit(&self, writes: &[Write], durability: Durability) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if inner.poisoned {
            return Err(StoreError::Poisoned);
        }
        let mut extents: BTreeMap<&DocumentId, Extent> = BTreeMap::new();
        for write in writes {
            let extent = extents
                .entry(write.document())
                .or_insert_with(|| inner.written.extent(write.document()));
            *extent = std::mem::take(extent).after(write)?;
        }

        let fault = inner.fault.take();
        if fault == Some(Fault::WriteLost) {
            return Err(StoreError::Write(io::Error::other("simulated: lost")));
        }
        for write in writes {
            inner.written.apply(write);
        }
        if !writes.is_empty() {
            inner.unsynced.push(writes.to_vec());
        }
        if let Some(held) = inner.held.take() {
            drop(inner);
            let _told_or_dropped = held.recv();
            inner = self.lock();
        }
        match fault {
            Some(Fault::WriteDone) => {
                return Err(StoreError::Write(io::Error::other("simulated: written")));
            }
            Some(Fault::Sync) => {
                inner.poisoned = true;
                return Err(StoreError::Sync(io::Error::other("simulated: not synced")));
            }
            Some(Fault::WriteLost) | None => {}
        }
        if durability == Durability::Strict {
            inner.sync();
        }
        Ok(())
    }

    fn open(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        Ok(self
            .lock()
            .written
            .visible(document)
            .map(|document| StoredDocument {
                created_at_ms: document.created_at_ms,
                base: document.base(),
                graph: document
                    .generation
                    .as_ref()
                    .map(|generation| generation.graph.clone()),
                snapshot_bytes: document
                    .generation
                    .as_ref()
                    .map_or(0, |generation| generation.snapshot.len() as u64),
                retained_from: document.keep_from,
                tail: document.log(document.base(), u64::MAX, u64::MAX),
            }))
    }

    fn snapshot(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        let inner = self.lock();
        let generation = inner
            .written
            .visible(document)
            .and_then(|document| document.generation.as_ref());
        Ok(generation.map(|generation| (generation.base, generation.snapshot.clone())))
    }

    fn contents(&self, document: &DocumentId) -> Result<Option<Contents>, StoreError> {
        let inner = self.lock();
        Ok(inner.written.visible(document).map(|document| Contents {
            base: document.base(),
            snapshot: document
                .generation
                .as_ref()
                .map(|generation| generation.snapshot.clone()),
            tail: document.log(document.base(), u64::MAX, u64::MAX),
        }))
    }

    fn arrivals(&self, document: &DocumentId) -> Result<Option<Bytes>, StoreError> {
        let inner = self.lock();
        let document = inner.written.visible(document);
        let generation = document.and_then(|document| document.generation.as_ref());
        let arrivals = generation.map(|generation| generation.arrivals.clone());
        Ok(arrivals.filter(|arrivals| !arrivals.is_empty()))
    }

    fn log(
        &self,
        document: &DocumentId,
        from: u64,
        to: u64,
        most_bytes: u64,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let inner = self.lock();
        let document = inner.written.visible(document);
        Ok(document.map_or_else(Vec::new, |document| document.log(from, to, most_bytes)))
    }

    fn access(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        let inner = self.lock();
        let entries = (0..).zip(inner.written.access_log(document));
        Ok(entries
            .last()
            .map(|(number, entry)| (number, entry.clone())))
    }

    fn access_log(
        &self,
        document: &DocumentId,
        from: u64,
        limit: usize,
        most_bytes: u64,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let inner = self.lock();
        let mut allowance = Allowance::new(most_bytes);
        let entries = (0..).zip(inner.written.access_log(document));
        Ok(entries
            .skip_while(|(number, _)| *number < from)
            .take(limit)
            .take_while(|(_, entry)| allowance.admits(entry.len() as u64))
            .map(|(number, entry)| (number, entry.clone()))
            .collect())
    }

    fn tombstone(&self, document: &DocumentId) -> Result<Option<Tombstone>, StoreError> {
        Ok(self.lock().written.tombstones.get(document).cloned())
    }

    fn tombstones(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Tombstone)>, StoreError> {
        let inner = self.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = inner
            .written
            .tombstones
            .range::<DocumentId, _>((start, Bound::Unbounded));
        Ok(found
            .take(limit)
            .map(|(id, tombstone)| (id.clone(), tombstone.clone()))
            .collect())
    }

    fn documents_among(&self, ids: &Ids, limit: usize) -> Result<Vec<DocumentInfo>, StoreError> {
        let inner = self.lock();
        let among = inner.written.documents.keys().filter(|id| ids.contain(id));
        let found = among.filter_map(|id| inner.written.info(id));
        Ok(found.take(limit).collect())
    }

    fn info(&self, document: &DocumentId) -> Result<Option<DocumentInfo>, StoreError> {
        Ok(self.lock().written.info(document))
    }

    fn labelled(
        &self,
        label: &Label,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, StoreError> {
        let inner = self.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = inner
            .written
            .labels
            .range::<DocumentId, _>((start, Bound::Unbounded));
        let found = behind.filter(|(_, labels)| labels.contains(label));
        Ok(found.take(limit).map(|(id, _)| id.clone()).collect())
    }

    fn is_labelled(&self, document: &DocumentId, label: &Label) -> Result<bool, StoreError> {
        let inner = self.lock();
        let labels = inner.written.labels.get(document);
        Ok(labels.is_some_and(|labels| labels.contains(label)))
    }

    fn ids(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<DocumentId>, StoreError> {
        let inner = self.lock();
        let State {
            documents, access, ..
        } = &inner.written;
        let ids: BTreeSet<_> = documents.keys().chain(access.keys()).collect();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = ids.range::<DocumentId, _>((start, Bound::Unbounded));
        Ok(behind.take(limit).map(|id| DocumentId::clone(id)).collect())
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().written.meta.get(key).cloned())
    }

    fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        check::meta(key, value)?;
        let mut inner = self.lock();
        if inner.poisoned {
            return Err(StoreError::Poisoned);
        }
        let value = Bytes::copy_from_slice(value);
        inner.written.meta.insert(key.to_owned(), value.clone());
        // Durable by contract; and with it, since the log is one, all that came before.
        inner.sync();
        inner.synced.meta.insert(key.to_owned(), value);
        Ok(())
    }

    fn verify(&self, document: &DocumentId) -> Result<Vec<Problem>, StoreError> {
        let inner = self.lock();
        let Some(found) = inner.written.documents.get(document) else {
            let State {
                access, tombstones, ..
            } = &inner.written;
            if access.contains_key(document) || tombstones.contains_key(document) {
                return Ok(Vec::new());
            }
            return Err(StoreError::Unknown {
                document: document.clone(),
            });
        };
        let mut problems = Vec::new();
        // The first record may start below what is kept.
        let mut expected = found.keep_from;
        if let Some(record) = found.records.first() {
            expected = expected.min(record.first);
        }
        for record in &found.records {
            if record.first != expected {
                problems.push(Problem::Gap {
                    expected,
                    found: record.first,
                });
            }
            expected = record.end();
        }
        Ok(problems)
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        let inner = self.lock();
        let documents = inner.written.documents.values().map(|document| {
            let log = document.records.iter().flat_map(|record| &record.changes);
            let generation = document.generation.as_ref().map_or(0, |generation| {
                generation.snapshot.len() + generation.graph.len() + generation.arrivals.len()
            });
            log.map(Bytes::len).sum::<usize>() + generation
        });
        let access = inner.written.access.values().flatten().map(Bytes::len);
        Ok((documents.sum::<usize>() + access.sum::<usize>()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{Bench, append, conformance, id};

    struct InMemory;

    impl Bench for InMemory {
        type Store = MemoryStore;

        fn create() -> (Self, MemoryStore) {
            (Self, MemoryStore::new())
        }

        fn reopen(&self, store: MemoryStore) -> MemoryStore {
            store.crash(usize::MAX)
        }
    }

    conformance!(InMemory);

    fn next(store: &MemoryStore) -> Option<u64> {
        store
            .open(&id("a"))
            .unwrap()
            .map(|document| document.next())
    }

    #[test]
    fn a_crash_drops_an_end_of_what_was_not_synced() {
        let store = MemoryStore::new();
        store
            .commit(&[append("a", 0..1)], Durability::Strict)
            .unwrap();
        store
            .commit(&[append("a", 1..2)], Durability::Relaxed)
            .unwrap();
        store
            .commit(&[append("a", 2..3)], Durability::Relaxed)
            .unwrap();
        assert_eq!(store.unsynced_commits(), 2);
        assert_eq!(next(&store), Some(3));
        assert_eq!(next(&store.crash(0)), Some(1));
        assert_eq!(next(&store.crash(1)), Some(2));
        assert_eq!(next(&store.crash(2)), Some(3));
        store.commit(&[], Durability::Strict).unwrap();
        assert_eq!(next(&store.crash(0)), Some(3));
    }

    #[test]
    fn faults() {
        let store = MemoryStore::new();
        store.fail_next_commit(Fault::WriteLost);
        let error = store
            .commit(&[append("a", 0..1)], Durability::Strict)
            .unwrap_err();
        assert!(matches!(error, StoreError::Write(_)));
        assert_eq!(next(&store), None);

        store.fail_next_commit(Fault::WriteDone);
        let error = store
            .commit(&[append("a", 0..1)], Durability::Strict)
            .unwrap_err();
        assert!(matches!(error, StoreError::Write(_)));
        assert_eq!((next(&store), next(&store.crash(0))), (Some(1), None));

        store.fail_next_commit(Fault::Sync);
        let error = store
            .commit(&[append("a", 1..2)], Durability::Strict)
            .unwrap_err();
        assert!(matches!(error, StoreError::Sync(_)));
        let refused = store.commit(&[], Durability::Strict).unwrap_err();
        assert!(matches!(refused, StoreError::Poisoned));
        assert!(matches!(
            store.set_meta("k", b"v").unwrap_err(),
            StoreError::Poisoned
        ));
        assert_eq!(next(&store.crash(0)), None);
    }
}
