//! The store the server runs on: one sled tree.
//!
//! [`keys`] and [`values`] are the format, [`tombstones`] that of deleted documents, [`labels`] by what documents are
//! found; [`batch`] turns writes into steps
//! of sled and [`sweep`] removes what they made superfluous; [`read`], [`listing`] and [`verify`] read. [`opening`] is
//! what comes before, and [`rewrite`] leaves no byte of what was purged. ARCHITECTURE.md argues, under "Crash safety",
//! what every partial write leaves and what resolves it.
//!
//! # What sled 0.34.7 does that this code answers
//!
//! **Sync.** `flush` ends in `sync_file_range`, which neither empties the disk's own cache nor writes the file's
//! length: [`SledStore`] calls `sync_data` on a handle of its own. The kernel reports a failed write-back once per
//! open file, and sled's own background sync only logs it: on our handle we see it all the same.
//!
//! **Blob files.** A tree node of more than a quarter of a segment becomes a file of its own that sled never syncs:
//! values are cut so small that no leaf grows to that ([`values::PIECE_MAX_BYTES`]), and if one did, [`blobs`] syncs
//! its file.
//!
//! **Deadlock.** sled fills segments in memory and hands each to a pool of seven threads to be written. A thread that
//! has written one takes the lock of the segment table. A writer that needs a new segment holds that lock while it
//! waits for a pending truncation of the file, which is a job for the same pool: seven written segments that wait for
//! the lock, and nobody truncates (spacejam/sled#1269 mends it, after this release). So there may never be that many
//! segments in flight: they are large ([`SEGMENT_BYTES`]), what goes into one batch is bounded, and everything else
//! is written with a flush after each [`UNFLUSHED_MAX_BYTES`].
//!
//! **Errors.** After a failed write sled refuses all others until it is opened again: so does this store.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use concord_shared::ids::DocumentId;
use metrics::Histogram;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use self::{
    batch::{Batch, Standings, format_of},
    database::{Database, Files},
    keys::DocumentKeys,
    opening::{create_durably, lock_directory, sync_directory},
    rewrite::At,
    sweep::Sweep,
    tree::Noted,
    values::DocumentRecord,
};
use super::{
    Contents, DocumentInfo, Durability, Ids, Label, LogRecord, Part, Problem, Rewritten, Store,
    StoreError, StoredDocument, Tombstone, Unlisted, Write,
    check::{self, Extent, Life, Span},
};

mod batch;
mod blobs;
mod database;
mod keys;
mod labels;
mod listing;
mod log;
mod opening;
mod read;
mod rewrite;
mod sweep;
mod tombstones;
mod tree;
mod values;
mod verify;
mod witness;

/// How a [`SledStore`] is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SledOptions {
    /// The data directory; created if it is not there.
    pub path: PathBuf,
    /// Bytes of memory that sled may use for its page cache.
    pub cache_bytes: u64,
    /// Open a directory whose log is damaged where it was durable, and give up for good what sled then drops.
    pub accept_loss: bool,
}

impl SledOptions {
    /// Bytes of page cache unless told otherwise. The server itself keeps what it needs of open documents, so
    /// this mostly serves joiners and restarts.
    pub const DEFAULT_CACHE_BYTES: u64 = 64 * 1024 * 1024;

    /// For a data directory, with the default cache.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: Self::DEFAULT_CACHE_BYTES,
            accept_loss: false,
        }
    }
}

/// How often sled writes and syncs by itself: with relaxed durability, what a loss of power can take.
const FLUSH_EVERY_MS: u64 = 500;

/// Size of sled's segments. Part of the directory's format: sled refuses another.
///
/// With [`UNFLUSHED_MAX_BYTES`] and the committer's bound on a batch (1 MiB) no more than six are ever in flight: sled
/// writes some five times what it is given (small values ten times, where they share a leaf with large ones: it
/// writes a leaf of up to 60 KiB anew after ten changes), and the frame of a batch and the background flush may each
/// close a segment early. Larger ones would cost disk: sled reclaims whole segments only.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// Bytes given to sled after which it is told to write them out.
const UNFLUSHED_MAX_BYTES: usize = 1024 * 1024;

/// Of how many documents it is remembered where they stand, so that an append need not look for it: some 4 MiB.
const CACHED_STANDINGS: usize = 16_384;

/// A [`Store`] in a directory.
///
/// One process at a time: sled locks the directory. Metrics go to the recorder installed when it is opened.
#[derive(Debug)]
pub struct SledStore {
    options: SledOptions,
    /// Whoever reads or writes holds it open. `None`: it was closed to be written anew, and can't be opened again.
    database: RwLock<Option<Database>>,
    /// Taken before the database by who takes both.
    writer: Mutex<Writer>,
    /// Held by who waits for the writer, and by nobody else: so who has waited is next. Without it whoever gives the
    /// writer back and takes it again at once, as the committer of a busy server does, may keep a rewrite waiting at each of
    /// its steps.
    next: Mutex<()>,
    noted: Arc<Noted>,
    /// Held while the database is written anew.
    rewriting: Mutex<()>,
    /// Of the whole directory, from before anything in it is looked at until the database is closed.
    _directory_lock: File,
}

/// What only the writing thread uses.
#[derive(Debug)]
struct Writer {
    files: Files,
    standings: Standings,
    /// The directory's.
    format: u8,
    sweep: Sweep,
    /// A write or a sync failed: nothing is written any more.
    poisoned: bool,
    fsync_seconds: Histogram,
}

/// What of a document a write must agree with, as of the last commit. The default: there is nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Standing {
    /// `None`: the document is not there.
    end: Option<End>,
    /// Number of the access entry that comes next.
    next_access: u64,
    tombstone: Option<Tombstone>,
    /// Why it can't be told where its log ends.
    damage: Option<Problem>,
}

impl Standing {
    fn extent(&self) -> Extent {
        Extent {
            changes: self.end.map(|end| Span {
                base: end.record.base,
                next: end.next,
            }),
            next_access: self.next_access,
            life: Life::of(self.tombstone.as_ref()),
            damage: self.damage.clone(),
        }
    }
}

/// Where a document's log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    record: DocumentRecord,
    next: u64,
}

impl SledStore {
    /// Opens a data directory, or creates it.
    ///
    /// Fails with [`StoreError::InUse`], [`StoreError::Open`], [`StoreError::NotOurs`] or [`StoreError::Format`];
    /// an existing database is not changed then beyond sled's own recovery. With [`StoreError::Damaged`] it is not
    /// changed at all.
    pub fn open(options: &SledOptions) -> Result<Self, StoreError> {
        let path = options.path.as_path();
        let failed = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        create_durably(path, &mut sync_directory).map_err(failed)?;
        let directory_lock = lock_directory(path)?;
        let noted = Arc::default();
        let (database, files, format) = Database::open(options, &noted)?;
        let mut writer = Writer {
            files,
            standings: Standings::new(),
            format,
            sweep: Sweep::default(),
            poisoned: false,
            fsync_seconds: metrics::histogram!("concord_fsync_seconds"),
        };
        for document in database.unswept()? {
            writer.sweep.add_purged(document);
        }
        // What a killed process wrote and did not sync is in the kernel's memory only, and sled read it back from
        // there. Whoever reads it from here on may show it, so it must be as safe as what a commit acknowledged.
        database.sync(&mut writer)?;
        Ok(Self {
            options: options.clone(),
            _directory_lock: directory_lock,
            database: RwLock::new(Some(database)),
            writer: Mutex::new(writer),
            next: Mutex::new(()),
            noted,
            rewriting: Mutex::new(()),
        })
    }

    /// What is open. To be asked for once in a call: who holds it and asks again may wait for a rewrite that waits for
    /// them.
    fn database(&self) -> Result<MappedRwLockReadGuard<'_, Database>, StoreError> {
        let database = self.database.read();
        RwLockReadGuard::try_map(database, Option::as_ref).map_err(|_| StoreError::Poisoned)
    }

    /// After a panic while the lock was held the batch may be half applied in memory: refuse all others.
    fn lock(&self) -> MutexGuard<'_, Writer> {
        let _next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.writer.lock().unwrap_or_else(|error| {
            let mut writer = error.into_inner();
            writer.poisoned = true;
            writer
        })
    }

    /// For tests that look below the store, or break what is there.
    #[cfg(test)]
    fn sled(&self) -> ::sled::Db {
        self.database().unwrap().db.sled()
    }
}

impl Store for SledStore {
    fn commit(&self, writes: &[Write], durability: Durability) -> Result<(), StoreError> {
        self.noted.wait_for_room();
        let mut writer = self.lock();
        if writer.poisoned {
            return Err(StoreError::Poisoned);
        }
        let database = self.database()?;
        if !writes.is_empty() {
            let mut standings = database.check(&writer.standings, writes)?;
            // Readers don't see what is staged.
            let staged = database.stage(&mut standings, writer.format, writes);
            let batch = staged.map_err(|error| {
                writer.poisoned = true;
                StoreError::Broken(into_io(error))
            })?;
            database.change(&mut writer, || batch.apply(&database.db))?;
            writer.format = writer.format.max(format_of(writes));
            if writer.standings.len() + standings.len() > CACHED_STANDINGS {
                writer.standings.clear();
            }
            writer.standings.extend(standings);
        }
        match durability {
            Durability::Strict => database.sync(&mut writer)?,
            Durability::Relaxed => database.flush(&mut writer)?,
        }
        for write in writes {
            match write {
                Write::Snapshot { document, .. } => writer.sweep.add(document),
                Write::Purge { document, .. } => writer.sweep.add_purged(document.clone()),
                _ => {}
            }
        }
        Ok(())
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        let mut writer = self.lock();
        if writer.poisoned {
            return Ok(false);
        }
        let database = self.database()?;
        let _changing = database
            .changing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let swept = database.sweep(&mut writer.sweep);
        if matches!(swept, Err(StoreError::Broken(_))) {
            writer.poisoned = true;
        }
        swept
    }

    fn open(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        let database = self.database()?;
        database.settled(document, |keys, record| {
            record
                .map(|record| database.read_document(keys, &record))
                .transpose()
        })
    }

    fn holds(&self, document: &DocumentId) -> Result<bool, StoreError> {
        let database = self.database()?;
        database.settled(document, |_, record| Ok(record.is_some()))
    }

    fn snapshot(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        let database = self.database()?;
        database.settled(document, |keys, record| match record {
            Some(record) if record.generation > 0 => {
                let bytes = database.read_snapshot(keys, &record)?;
                Ok(Some((record.base, bytes)))
            }
            _ => Ok(None),
        })
    }

    fn contents(&self, document: &DocumentId) -> Result<Option<Contents>, StoreError> {
        let database = self.database()?;
        database.settled(document, |keys, record| {
            let Some(record) = record else {
                return Ok(None);
            };
            let snapshot = (record.generation > 0).then(|| database.read_snapshot(keys, &record));
            Ok(Some(Contents {
                base: record.base,
                snapshot: snapshot.transpose()?,
                tail: database.read_tail(keys, &record)?,
            }))
        })
    }

    fn arrivals(&self, document: &DocumentId) -> Result<Option<Bytes>, StoreError> {
        let database = self.database()?;
        database.settled(document, |keys, record| match record {
            Some(record) => database.read_arrivals(keys, &record),
            None => Ok(None),
        })
    }

    fn log(
        &self,
        document: &DocumentId,
        from: u64,
        to: u64,
        most_bytes: u64,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let database = self.database()?;
        database.settled(document, |keys, record| match record {
            Some(record) => {
                database.read_log(keys, &record, from.max(record.keep_from)..to, most_bytes)
            }
            None => Ok(Vec::new()),
        })
    }

    fn access(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        let database = self.database()?;
        database.settled_access(document, |keys| database.read_newest_access(keys))
    }

    fn access_log(
        &self,
        document: &DocumentId,
        from: u64,
        limit: usize,
        most_bytes: u64,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let database = self.database()?;
        database.settled_access(document, |keys| {
            database.read_access_log(keys, from, limit, most_bytes)
        })
    }

    fn tombstone(&self, document: &DocumentId) -> Result<Option<Tombstone>, StoreError> {
        let tombstone = self.database()?.read_tombstone(document);
        tombstone.map_err(|fail| fail.of(document))
    }

    fn tombstones(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Tombstone)>, StoreError> {
        self.database()?.list_tombstones(after, limit)
    }

    fn documents_among(&self, ids: &Ids, limit: usize) -> Result<Vec<DocumentInfo>, StoreError> {
        self.database()?.list(ids, limit)
    }

    fn info(&self, document: &DocumentId) -> Result<Option<DocumentInfo>, StoreError> {
        self.database()?.read_info(document)
    }

    fn labelled(
        &self,
        label: &Label,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, StoreError> {
        self.database()?.list_labelled(*label, after, limit)
    }

    fn is_labelled(&self, document: &DocumentId, label: &Label) -> Result<bool, StoreError> {
        let entry = keys::labelled(*label, document);
        Ok(self.database()?.get(&entry)?.is_some())
    }

    fn ids(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<DocumentId>, StoreError> {
        Ok(self.database()?.list_ids(after, limit))
    }

    fn unlisted(&self) -> Result<Vec<Unlisted>, StoreError> {
        Ok(self.database()?.find_unlisted())
    }

    fn mislabelled(&self) -> Result<Vec<DocumentId>, StoreError> {
        self.database()?.find_mislabelled()
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let name = keys::meta(key);
        let Some(value) = self.database()?.get(&name)? else {
            return Ok(None);
        };
        values::unseal(&name, &value, Part::Meta)
            .map(|payload| Some(Bytes::copy_from_slice(payload)))
            .map_err(|problem| StoreError::CorruptMeta {
                key: key.to_owned(),
                problem,
            })
    }

    fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        check::meta(key, value)?;
        self.noted.wait_for_room();
        let mut writer = self.lock();
        if writer.poisoned {
            return Err(StoreError::Poisoned);
        }
        let database = self.database()?;
        let key = keys::meta(key);
        let mut batch = Batch::default();
        batch.insert(&key, values::seal(&key, value));
        database.change(&mut writer, || batch.apply(&database.db))?;
        database.sync(&mut writer)
    }

    fn verify(&self, document: &DocumentId) -> Result<Vec<Problem>, StoreError> {
        self.database()?.verify_document(document)
    }

    fn rewrite(&self, go_on: &dyn Fn() -> bool) -> Result<Rewritten, StoreError> {
        self.rewrite_by(&|path| fs4::available_space(path), &mut |at| match at {
            At::Beside if !go_on() => Err(io::ErrorKind::Interrupted.into()),
            _ => Ok(()),
        })
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.database()?.db.size_on_disk().map_err(read_failed)
    }
}

fn into_io(error: ::sled::Error) -> io::Error {
    match error {
        ::sled::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

fn read_failed(error: ::sled::Error) -> StoreError {
    StoreError::Read(into_io(error))
}

#[cfg(test)]
mod tests;
