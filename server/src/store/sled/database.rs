//! What is open of a data directory. A [rewrite](super::rewrite) closes it and opens another in its place, so whoever
//! reads or writes takes it from the store once for all that is done in one call.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use super::{
    SledOptions, Writer,
    blobs::Blobs,
    into_io,
    keys::{FORMAT_KEY, GUARDED_DIRECTORY, PLAIN_DIRECTORY},
    opening::{open_sled, sync_directory},
    read_failed, rewrite,
    tree::{Noted, Tree},
    witness::Witness,
};
use crate::store::{Damage, StoreError};

/// For readers, and for the writer with its [`Files`].
#[derive(Debug)]
pub(super) struct Database {
    pub(super) db: Tree,
    /// Held while sled applies a batch or a sweep. A read that comes upon something wrong takes it and reads again.
    pub(super) changing: RwLock<()>,
}

/// What the writer needs besides, to make it durable.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) db_file: File,
    /// `None` once it could not be kept: its absence is no reason to stop.
    pub(super) witness: Option<Witness>,
    pub(super) blobs: Blobs,
}

impl Files {
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

impl Database {
    /// Opens what is in a data directory that the caller has locked, and goes on with a rewrite before that. Tells the
    /// directory's format, too.
    pub(super) fn open(
        options: &SledOptions,
        noted: &Arc<Noted>,
    ) -> Result<(Self, Files, u8), StoreError> {
        let path = options.path.as_path();
        let failed = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        rewrite::resume(path, &mut |_| Ok(())).map_err(failed)?;
        let db = open_sled(options)?;
        let files = Files {
            db_file: OpenOptions::new()
                .read(true)
                .write(true)
                .open(path.join("db"))
                .map_err(failed)?,
            witness: Some(Witness::open(path).map_err(failed)?),
            blobs: Blobs::new(path.join("blobs")),
        };
        // The names of sled's files are durable from here on, so syncing their contents is enough.
        sync_directory(path).map_err(failed)?;
        let database = Self {
            db: Tree::new(db, Arc::clone(noted)),
            changing: RwLock::new(()),
        };
        let format = match database.check_format(path) {
            // What can't be read can't be raised either.
            Err(StoreError::Damaged { .. }) if options.accept_loss => GUARDED_DIRECTORY,
            format => format?,
        };
        Ok((database, files, format))
    }

    /// The format of this database, if it is ours; marks a new one as such.
    fn check_format(&self, path: &Path) -> Result<u8, StoreError> {
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
            Some(&[format @ PLAIN_DIRECTORY..=GUARDED_DIRECTORY]) => Ok(format),
            Some(&[found]) => Err(StoreError::Format {
                path: path.to_owned(),
                found,
                supported: GUARDED_DIRECTORY,
            }),
            None if self.db.is_empty() => {
                self.db
                    .insert(FORMAT_KEY, &[PLAIN_DIRECTORY])
                    .map_err(failed)?;
                Ok(PLAIN_DIRECTORY)
            }
            _ => Err(StoreError::NotOurs {
                path: path.to_owned(),
            }),
        }
    }

    /// Flushes sled and makes its files durable.
    pub(super) fn sync(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let started = Instant::now();
        let flushed = self.db.flush().map_err(into_io);
        if flushed.is_ok() {
            writer.files.witness(Witness::look);
        }
        let synced = flushed
            .and_then(|_| writer.files.blobs.sync())
            .and_then(|()| writer.files.db_file.sync_data());
        writer.fsync_seconds.record(started.elapsed());
        synced.map_err(|error| {
            writer.poisoned = true;
            StoreError::Sync(error)
        })?;
        writer.files.witness(|witness, _| witness.keep());
        Ok(())
    }

    /// Runs something that writes to sled so that readers can wait until it is done. After a failure
    /// sled refuses all writes until it is opened again.
    pub(super) fn change<T>(
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
    /// also keeps few segments in flight: see "Deadlock" in [`super`].
    pub(super) fn flush(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.db.flush().map(drop).map_err(|error| {
            writer.poisoned = true;
            StoreError::Broken(into_io(error))
        })
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<::sled::IVec>, StoreError> {
        self.db.get(key).map_err(read_failed)
    }
}
