//! The store the server runs on: one sled tree.
//!
//! [`keys`] and [`values`] are the format; [`batch`] turns writes into steps of sled and [`sweep`] removes what
//! they made superfluous; [`read`] and [`verify`] read. ARCHITECTURE.md argues, under "Crash safety", what every
//! partial write leaves and what resolves it.
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
    fs::{File, OpenOptions, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use concord_shared::ids::DocumentId;
use metrics::Histogram;

use self::{
    batch::{Batch, Ends},
    blobs::Blobs,
    keys::{DocumentKeys, FORMAT, FORMAT_KEY},
    sweep::Sweep,
    values::DocumentRecord,
    witness::Witness,
};
use super::{
    Contents, Damage, DocumentInfo, Durability, LogRecord, Part, Problem, Store, StoreError,
    StoredDocument, Unlisted, Write, check,
};

mod batch;
mod blobs;
mod keys;
mod log;
mod read;
mod sweep;
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

/// How many documents' ends are remembered, so that an append need not look for it: some 3 MiB.
const CACHED_ENDS: usize = 16_384;

/// A [`Store`] in a directory.
///
/// One process at a time: sled locks the directory. Metrics go to the recorder installed when it is opened.
#[derive(Debug)]
pub struct SledStore {
    db: ::sled::Db,
    /// Held while sled applies a batch or a sweep. A read that comes upon something wrong takes it and reads again.
    changing: RwLock<()>,
    writer: Mutex<Writer>,
}

/// What only the writing thread uses.
#[derive(Debug)]
struct Writer {
    db_file: File,
    /// `None` once it could not be kept: its absence is no reason to stop.
    witness: Option<Witness>,
    blobs: Blobs,
    ends: Ends,
    sweep: Sweep,
    /// A write or a sync failed: nothing is written any more.
    poisoned: bool,
    fsync_seconds: Histogram,
}

/// Where a document's log ends, as of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    record: DocumentRecord,
    next: u64,
}

impl Writer {
    fn witness(&mut self, step: impl FnOnce(&mut Witness, &File) -> io::Result<()>) {
        if let Some(witness) = &mut self.witness
            && let Err(error) = step(witness, &self.db_file)
        {
            tracing::warn!(
                %error,
                "the witness can't be kept: later damage to the file may go unnoticed"
            );
            self.witness = None;
        }
    }
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
        let db = open_sled(options)?;
        let writer = Writer {
            db_file: OpenOptions::new()
                .read(true)
                .write(true)
                .open(path.join("db"))
                .map_err(failed)?,
            witness: Some(Witness::open(path).map_err(failed)?),
            blobs: Blobs::new(path.join("blobs")),
            ends: Ends::new(),
            sweep: Sweep::default(),
            poisoned: false,
            fsync_seconds: metrics::histogram!("concord_fsync_seconds"),
        };
        // The names of sled's files are durable from here on, so syncing their contents is enough.
        sync_directory(path).map_err(failed)?;
        let store = Self {
            db,
            changing: RwLock::new(()),
            writer: Mutex::new(writer),
        };
        match store.check_format(path) {
            Err(StoreError::Damaged { .. }) if options.accept_loss => {}
            checked => checked?,
        }
        // What a killed process wrote and did not sync is in the kernel's memory only, and sled read it back from
        // there. Whoever reads it from here on may show it, so it must be as safe as what a commit acknowledged.
        store.sync(&mut store.lock())?;
        Ok(store)
    }

    /// Whether this is a database of ours; marks a new one as such.
    fn check_format(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |error| StoreError::Open {
            path: path.to_owned(),
            source: into_io(error),
        };
        let format = match self.db.get(FORMAT_KEY) {
            // The documents may be well, all but those that lie beside it.
            Err(::sled::Error::Corruption { .. }) => {
                return Err(StoreError::Damaged {
                    path: path.to_owned(),
                    damage: Damage::Format,
                });
            }
            format => format.map_err(failed)?,
        };
        match format.as_deref() {
            Some(&[FORMAT]) => Ok(()),
            Some(&[found]) => Err(StoreError::Format {
                path: path.to_owned(),
                found,
                supported: FORMAT,
            }),
            None if self.db.is_empty() => {
                self.db.insert(FORMAT_KEY, &[FORMAT]).map_err(failed)?;
                Ok(())
            }
            _ => Err(StoreError::NotOurs {
                path: path.to_owned(),
            }),
        }
    }

    /// Flushes sled and makes its files durable.
    fn sync(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let started = Instant::now();
        let flushed = self.db.flush().map_err(into_io);
        if flushed.is_ok() {
            writer.witness(Witness::look);
        }
        let synced = flushed
            .and_then(|_| writer.blobs.sync())
            .and_then(|()| writer.db_file.sync_data());
        writer.fsync_seconds.record(started.elapsed());
        synced.map_err(|error| {
            writer.poisoned = true;
            StoreError::Sync(error)
        })?;
        writer.witness(|witness, _| witness.keep());
        Ok(())
    }

    /// Runs something that writes to sled so that readers can wait until it is done. After a failure
    /// sled refuses all writes until it is opened again.
    fn change<T>(
        &self,
        writer: &mut Writer,
        change: impl FnOnce() -> Result<T, ::sled::Error>,
    ) -> Result<T, StoreError> {
        let _changing = self
            .changing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        change().map_err(|error| {
            writer.poisoned = true;
            StoreError::Broken(into_io(error))
        })
    }

    /// Hands all that sled has in memory to the operating system: the death of the process can't take it then. It
    /// also keeps few segments in flight: see "Deadlock" above.
    fn flush(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.db.flush().map(drop).map_err(|error| {
            writer.poisoned = true;
            StoreError::Broken(into_io(error))
        })
    }

    /// After a panic while the lock was held the batch may be half applied in memory: refuse all others.
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(|error| {
            let mut writer = error.into_inner();
            writer.poisoned = true;
            writer
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<::sled::IVec>, StoreError> {
        self.db.get(key).map_err(read_failed)
    }
}

impl Store for SledStore {
    fn commit(&self, writes: &[Write], durability: Durability) -> Result<(), StoreError> {
        let mut writer = self.lock();
        if writer.poisoned {
            return Err(StoreError::Poisoned);
        }
        if !writes.is_empty() {
            let mut ends = self.check(&writer.ends, writes)?;
            // Readers don't see what is staged.
            let batch = self.stage(&mut ends, writes).map_err(|error| {
                writer.poisoned = true;
                StoreError::Broken(into_io(error))
            })?;
            self.change(&mut writer, || batch.apply(&self.db))?;
            if writer.ends.len() + ends.len() > CACHED_ENDS {
                writer.ends.clear();
            }
            writer.ends.extend(ends);
        }
        match durability {
            Durability::Strict => self.sync(&mut writer)?,
            Durability::Relaxed => self.flush(&mut writer)?,
        }
        for write in writes {
            if let Write::Snapshot { document, .. } = write {
                writer.sweep.add(document);
            }
        }
        Ok(())
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        let mut writer = self.lock();
        if writer.poisoned {
            return Ok(false);
        }
        let _changing = self
            .changing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let swept = self.sweep(&mut writer.sweep);
        if matches!(swept, Err(StoreError::Broken(_))) {
            writer.poisoned = true;
        }
        swept
    }

    fn open(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        self.settled(document, |keys, record| {
            record
                .map(|record| self.read_document(keys, &record))
                .transpose()
        })
    }

    fn holds(&self, document: &DocumentId) -> Result<bool, StoreError> {
        self.settled(document, |_, record| Ok(record.is_some()))
    }

    fn snapshot(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.settled(document, |keys, record| match record {
            Some(record) if record.generation > 0 => {
                let bytes = self.read_snapshot(keys, &record)?;
                Ok(Some((record.base, bytes)))
            }
            _ => Ok(None),
        })
    }

    fn contents(&self, document: &DocumentId) -> Result<Option<Contents>, StoreError> {
        self.settled(document, |keys, record| {
            let Some(record) = record else {
                return Ok(None);
            };
            let snapshot = (record.generation > 0).then(|| self.read_snapshot(keys, &record));
            Ok(Some(Contents {
                base: record.base,
                snapshot: snapshot.transpose()?,
                tail: self.read_tail(keys, &record)?,
            }))
        })
    }

    fn arrivals(&self, document: &DocumentId) -> Result<Option<Bytes>, StoreError> {
        self.settled(document, |keys, record| match record {
            Some(record) => self.read_arrivals(keys, &record),
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
        self.settled(document, |keys, record| match record {
            Some(record) => {
                self.read_log(keys, &record, from.max(record.keep_from)..to, most_bytes)
            }
            None => Ok(Vec::new()),
        })
    }

    fn documents(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentInfo>, StoreError> {
        self.list(after, limit)
    }

    fn unlisted(&self) -> Result<Vec<Unlisted>, StoreError> {
        Ok(self.find_unlisted())
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let name = keys::meta(key);
        let Some(value) = self.get(&name)? else {
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
        let mut writer = self.lock();
        if writer.poisoned {
            return Err(StoreError::Poisoned);
        }
        let key = keys::meta(key);
        let mut batch = Batch::default();
        batch.insert(&key, values::seal(&key, value));
        self.change(&mut writer, || batch.apply(&self.db))?;
        self.sync(&mut writer)
    }

    fn verify(&self, document: &DocumentId) -> Result<Vec<Problem>, StoreError> {
        self.verify_document(document)
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(read_failed)
    }
}

/// How long opening waits for a directory that is in use. sled's own threads keep the lock for a moment after the
/// database was closed, and a server that is just stopping will let go of it.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

fn open_sled(options: &SledOptions) -> Result<::sled::Db, StoreError> {
    let started = Instant::now();
    loop {
        match try_open_sled(options) {
            Err(StoreError::InUse { .. }) if started.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_RETRY);
            }
            result => return result,
        }
    }
}

/// sled's recovery overwrites what it does not take: what that would lose must be noticed before.
fn check_log(options: &SledOptions) -> Result<(), StoreError> {
    let path = &options.path;
    let failed = |source| StoreError::Open {
        path: path.clone(),
        source,
    };
    let db = match File::open(path.join("db")) {
        Ok(db) => Some(db),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    // The same lock as sled's: what a server is writing just now would look damaged.
    match db.as_ref().map(File::try_lock) {
        None | Some(Ok(())) => {}
        Some(Err(TryLockError::WouldBlock)) => {
            return Err(StoreError::InUse { path: path.clone() });
        }
        Some(Err(TryLockError::Error(error))) => return Err(failed(error)),
    }
    let damage = match &db {
        Some(db) => witness::check(path, db),
        None => witness::check_missing(path),
    };
    match damage.map_err(failed)? {
        Some(damage) if options.accept_loss => {
            tracing::warn!(%damage, "opening a damaged data directory: what can't be read is given up");
            Ok(())
        }
        Some(damage) => Err(StoreError::Damaged {
            path: path.clone(),
            damage,
        }),
        None => Ok(()),
    }
}

fn try_open_sled(options: &SledOptions) -> Result<::sled::Db, StoreError> {
    check_log(options)?;
    let config = ::sled::Config::new()
        .path(&options.path)
        .cache_capacity(options.cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS));
    // sled has assertions in its recovery: a damaged file must end in a message, not in a backtrace.
    let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
    let path = options.path.clone();
    let source = match opened {
        Ok(Ok(db)) => return Ok(db),
        Ok(Err(error)) => into_io(error),
        Err(_) => io::Error::other("recovery came upon something it did not expect"),
    };
    // Its lock is the only thing that fails so, and it says so only in the error's text.
    if source.to_string().contains("could not acquire lock") {
        return Err(StoreError::InUse { path });
    }
    Err(StoreError::Open { path, source })
}

/// Creates a directory, and those above it that are not there, so that their names survive loss of power: `sync` is
/// called with each directory that got a new entry.
fn create_durably(path: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_durably(parent, sync)?;
    match std::fs::create_dir(path) {
        // Somebody else made it in between.
        Err(_) if path.is_dir() => {}
        made => made?,
    }
    sync(parent)
}

/// Makes the names in a directory durable. Elsewhere than on Unix directories can't be synced.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()
    } else {
        Ok(())
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
