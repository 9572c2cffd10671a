//! What happens before sled has a directory open: it is made, locked, and looked at for damage.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use super::{FLUSH_EVERY_MS, SEGMENT_BYTES, SledOptions, into_io, witness};
use crate::store::StoreError;

/// How long opening waits for a directory that is in use. sled's own threads keep the lock for a moment after the
/// database was closed, and a server that is just stopping will let go of it.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Locked as long as a store is open: sled's own lock is on a file that a [rewrite](super::rewrite) replaces.
pub(super) const LOCK_FILE: &str = "lock";

pub(super) fn lock_directory(path: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(failed)?;
    if !lock_soon(&file).map_err(failed)? {
        return Err(StoreError::InUse {
            path: path.to_owned(),
        });
    }
    Ok(file)
}

/// Takes the lock on a file, unless somebody keeps it.
pub(super) fn lock_soon(file: &File) -> io::Result<bool> {
    let started = Instant::now();
    while !try_lock(file)? {
        if started.elapsed() > LOCK_WAIT {
            return Ok(false);
        }
        std::thread::sleep(LOCK_RETRY);
    }
    Ok(true)
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn open_sled(options: &SledOptions) -> Result<::sled::Db, StoreError> {
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
    if let Some(db) = &db
        && !try_lock(db).map_err(failed)?
    {
        return Err(StoreError::InUse { path: path.clone() });
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
pub(super) fn create_durably(
    path: &Path,
    sync: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
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
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()
    } else {
        Ok(())
    }
}
