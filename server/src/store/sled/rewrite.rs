//! Writes the database anew, so that what was purged is in none of its files.
//!
//! sled's log keeps the bytes of what was removed until their segment is used again, which may be never. So all that is
//! there is [copied](copy) into a fresh database beside the old one, made durable, and read back; then it takes the old
//! one's place, and the old files are deleted. They are not written over first: on flash and on file systems that copy
//! when they write that would reach other cells than those that hold the bytes. What the disk does with a deleted
//! file's cells is out of a program's reach, as are copies and snapshots that were made of the directory.
//!
//! All goes on meanwhile but for the last moment, in which nobody reads or writes: what was written last is copied,
//! the copy is made durable, both are closed, and what is in the place then is opened. The moment begins when those
//! have ended who are reading, and those who come then wait.
//!
//! **Room.** While there are two, they take the room of both; the copy takes less than the old one as a rule. A disk that
//! is full stops the server, so it is not begun without the old one's size and [`SPARE_BYTES`], and given up when less
//! than the latter is left.
//!
//! # The swap
//!
//! A database is several files, which no single rename can replace. What the directory holds says how far it came,
//! and [`resume`], which runs before the directory is opened, goes on from there; by itself it changes nothing else.
//! Here it carries the swap out, so there is one way to do it, whoever was interrupted.
//!
//! | in the directory | what it means | what `resume` does |
//! |---|---|---|
//! | `rewrite.copying` | the copy may be incomplete; the old database is whole | removes it |
//! | `rewrite.ready` | the copy is whole and durable; of the old database all, or a part, is there | removes the old files, then renames it `rewrite.moving` |
//! | `rewrite.moving` | nothing of the old database is there; what is not in here any more has its place already | moves the rest, then removes it |
//!
//! Each row begins with one rename, which a file system does wholly or not at all, and which is synced before anything
//! is done that only the new row allows. That the old files go under one name and the new ones come under another is
//! what makes each step right to repeat: `db` in the directory is an old file in the second row and a new one in the third.
//! Two processes can't be at it at once, nor can one open the directory meanwhile: the store holds a lock of its own
//! on the file `lock`, from before `resume` until it is closed.
//!
//! **What was acknowledged is in whichever is found.** In the first row that is the old one, to which all was committed.
//! The second begins while nobody can commit, and after all that was committed is in the copy, synced. Between the two
//! rows nothing is acknowledged: the writer's lock is held from before the last keys are copied until the new one is open.
//!
//! **A step that fails** is as a kill there: what is in the directory is opened as after one, the old or the new. Only if
//! that fails, too, nothing is read or written any more until the server is started anew.
//!
//! A build that knows nothing of this never finds an old database that is whole beside a copy that will replace it, or
//! it would write into what is given up: it refuses directories with tombstones, and without any nothing is purged
//! that would have to be erased. In between it finds a `witness` without a `db`, and refuses that, too: the old
//! witness stays until the new one takes its place, and `db` comes last.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::Path,
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use self::copy::{Copy, Reading};
use super::{
    Database, SledStore, Writer,
    opening::{lock_soon, sync_directory},
    tree::{LAST_KEYS_NOTED, Noting},
};
use crate::store::{Remains, Rewritten, Severity, Store as _, StoreError, Tombstone};

mod copy;

const COPYING: &str = "rewrite.copying";
const READY: &str = "rewrite.ready";
const MOVING: &str = "rewrite.moving";

/// Free disk space that is left to the server in any case.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;

/// For how long those who come to read wait for those who are reading, the first time; then twice as long, and so on. In
/// between they get their turn.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// How often the copy is brought up to date before its turn, while all that is written fits into it: a commit may be
/// larger than what can be noted.
const LAST_ROUNDS: usize = 8;

/// How often it is tried to open what is there after the swap.
const ATTEMPTS_TO_OPEN: usize = 10;

/// Where a rewrite is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Beside what goes on: it can be given up.
    Beside,
    /// In the swap.
    Swap,
}

/// Called before each step: to give up, or, for a test, to look what a kill would leave.
pub(super) type Step<'a> = &'a mut dyn FnMut(At) -> io::Result<()>;

/// Tells how many bytes are free where a directory is.
pub(super) type Room<'a> = &'a dyn Fn(&Path) -> io::Result<u64>;

impl SledStore {
    /// Whether something of a purged document may still be in the directory.
    pub fn has_remains(&self) -> Result<bool, StoreError> {
        let tombstones = self.database()?.list_tombstones(None, usize::MAX)?;
        let remains =
            |tombstone: &Tombstone| tombstone.purged && tombstone.remains != Remains::Nothing;
        Ok(tombstones.iter().any(|(_, tombstone)| remains(tombstone)))
    }

    pub(super) fn rewrite_by(
        &self,
        room: Room<'_>,
        step: Step<'_>,
    ) -> Result<Rewritten, StoreError> {
        let alone = self.rewriting.lock();
        let _alone = alone.unwrap_or_else(PoisonError::into_inner);
        if self.lock().poisoned {
            return Err(StoreError::Poisoned);
        }
        self.lock().sweep.try_again();
        loop {
            match self.tidy() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.severity() == Severity::Fatal => return Err(error),
                // What else is purged is erased all the same.
                Err(error) => tracing::error!(%error, "something stays in the database"),
            }
            step(At::Beside).map_err(|source| self.not_rewritten(source))?;
            // Others commit.
            thread::sleep(Duration::from_millis(1));
        }
        let bytes_before = self.size_on_disk()?;
        self.must_have_room(room, bytes_before.saturating_add(SPARE_BYTES))?;
        let noting = self.noted.begin();
        let copied = self.copied(room, step);
        let rewritten = copied.and_then(|copy| self.swap(copy, noting, step));
        if rewritten.is_err() {
            // The room it takes may be what was missing; what stays is removed when the directory is opened.
            let _ = remove_directory(&self.options.path.join(COPYING));
        }
        let (erased, bytes_after, pause) = rewritten?;
        Ok(Rewritten {
            erased,
            bytes_before,
            bytes_after,
            pause,
        })
    }

    fn not_rewritten(&self, source: io::Error) -> StoreError {
        StoreError::Rewrite {
            path: self.options.path.clone(),
            source,
        }
    }

    fn must_have_room(&self, room: Room<'_>, needed: u64) -> Result<(), StoreError> {
        let path = &self.options.path;
        let free = room(path).map_err(|source| self.not_rewritten(source))?;
        if free < needed {
            return Err(StoreError::NoRoom {
                path: path.clone(),
                needed,
                free,
            });
        }
        Ok(())
    }

    /// A copy that was read back, and is nearly up to date.
    fn copied(&self, room: Room<'_>, step: Step<'_>) -> Result<Copy<'_>, StoreError> {
        let mut go_on = || step(At::Beside).map_err(|source| self.not_rewritten(source));
        go_on()?;
        let mut copy = Copy::begin(self)?;
        for (number, range) in Copy::ranges().into_iter().enumerate() {
            let mut left = Some(range);
            while let Some(range) = left {
                go_on()?;
                self.must_have_room(room, SPARE_BYTES)?;
                left = copy.copy_some(range)?;
                // Not before all tombstones are there: see the copy's docs.
                if number > 0 {
                    copy.catch_up(None)?;
                }
            }
        }
        go_on()?;
        let mut copy = copy.reopened()?;
        let mut reading = Reading::default();
        while copy.read_some(&mut reading)? {
            go_on()?;
            copy.catch_up(Some(&mut reading))?;
        }
        if !copy.is_as(&reading) {
            let source = io::Error::other("what was read back is not what was written");
            return Err(self.not_rewritten(source));
        }
        go_on()?;
        Ok(copy)
    }

    /// Puts the copy into the database's place.
    fn swap(
        &self,
        mut copy: Copy<'_>,
        noting: Noting<'_>,
        step: Step<'_>,
    ) -> Result<(usize, u64, Duration), StoreError> {
        self.noted.hurry();
        let mut wait = FIRST_WAIT;
        let (mut writer, mut place, started) = loop {
            for _ in 0..LAST_ROUNDS {
                if copy.catch_up(None)? <= LAST_KEYS_NOTED {
                    break;
                }
            }
            // So that there is little left to sync.
            copy.sync()?;
            let started = Instant::now();
            let writer = self.lock();
            if writer.poisoned {
                return Err(StoreError::Poisoned);
            }
            if let Some(place) = self.database.try_write_for(wait) {
                break (writer, place, started);
            }
            drop(writer);
            step(At::Beside).map_err(|source| self.not_rewritten(source))?;
            wait *= 2;
        };
        let old = place.take().ok_or(StoreError::Poisoned)?;
        let swapped = self.exchange(old, copy, step);
        match self.reopened(&mut writer) {
            Ok(database) => *place = Some(database),
            Err(error) => {
                writer.poisoned = true;
                return Err(error);
            }
        }
        let pause = started.elapsed();
        drop((place, writer, noting));
        // Only now the last handle of the old file goes, with which the file system frees its room.
        let (_old_file, erased, bytes) = swapped?;
        Ok((erased, bytes, pause))
    }

    /// The swap itself, while nobody reads or writes. Afterwards both are closed, whatever became of it.
    fn exchange(
        &self,
        old: Database,
        mut copy: Copy<'_>,
        step: Step<'_>,
    ) -> Result<(File, usize, u64), StoreError> {
        let directory = &self.options.path;
        let failed = |source| self.not_rewritten(source);
        step(At::Swap).map_err(failed)?;
        copy.catch_up_at_last(&old)?;
        step(At::Swap).map_err(failed)?;
        let (erased, bytes) = copy.close()?;
        // From here on nothing may be written to the old files. sled's own threads may be at it for a moment still:
        // its lock goes with the last of them.
        drop(old);
        let old = wait_until_closed(&directory.join("db")).map_err(failed)?;
        let swapped = step(At::Swap)
            .and_then(|()| fs::rename(directory.join(COPYING), directory.join(READY)))
            .and_then(|()| sync_directory(directory))
            .and_then(|()| resume(directory, step));
        swapped.map_err(failed)?;
        Ok((old, erased, bytes))
    }

    /// Opens what is in the directory.
    fn reopened(&self, writer: &mut Writer) -> Result<Database, StoreError> {
        let mut attempts = 0;
        let (database, files, format) = loop {
            attempts += 1;
            match Database::open(&self.options, &self.noted) {
                // Somebody of sled's has the old one still.
                Err(StoreError::InUse { .. }) if attempts < ATTEMPTS_TO_OPEN => {}
                opened => break opened?,
            }
        };
        writer.files = files;
        writer.format = format;
        // They have tombstones as they were.
        writer.standings.clear();
        Ok(database)
    }
}

/// Goes on with a swap that was interrupted; the caller holds the directory's lock.
pub(super) fn resume(directory: &Path, step: Step<'_>) -> io::Result<()> {
    remove_directory(&directory.join(COPYING))?;
    let (ready, moving) = (directory.join(READY), directory.join(MOVING));
    if is_there(&ready)? {
        for name in names(directory)? {
            if is_old(&name) {
                step(At::Swap)?;
                let path = directory.join(name);
                if path.is_dir() {
                    fs::remove_dir_all(path)?;
                } else {
                    fs::remove_file(path)?;
                }
            }
        }
        sync_directory(directory)?;
        step(At::Swap)?;
        fs::rename(&ready, &moving)?;
        sync_directory(directory)?;
    }
    if is_there(&moving)? {
        let mut names = names(&moving)?;
        names.sort_by_key(|name| (name != "witness", name == "db"));
        for name in names {
            step(At::Swap)?;
            fs::rename(moving.join(&name), directory.join(&name))?;
        }
        sync_directory(&moving)?;
        sync_directory(directory)?;
        step(At::Swap)?;
        fs::remove_dir(&moving)?;
        sync_directory(directory)?;
    }
    Ok(())
}

/// Whether the swap came that far. A database must not be begun, nor one be opened, while that is not known: not by
/// `--accept-loss` either.
fn is_there(directory: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(directory) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => {
            let what = format!("{} is no directory", directory.display());
            Err(io::Error::other(what))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What of sled's goes before the new files come: all but the witness, which is replaced.
fn is_old(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    matches!(&*name, "db" | "conf" | "blobs") || name.starts_with("snap.")
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Syncs all that is below a directory.
fn sync_all(directory: &Path) -> io::Result<()> {
    for name in names(directory)? {
        let path = directory.join(name);
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            // Some systems sync only what may be written.
            File::options().write(true).open(path)?.sync_all()?;
        }
    }
    sync_directory(directory)
}

/// Waits until sled holds its lock on a database file no more, and takes it.
fn wait_until_closed(db: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).open(db)?;
    if lock_soon(&file)? {
        Ok(file)
    } else {
        Err(io::Error::other("the database does not close"))
    }
}
