//! A copy of the database that keeps up with it: a little is copied at a time, and what is written meanwhile is copied
//! again.
//!
//! **What is written to the copy is written while nobody commits,** a few milliseconds at a time. What is copied is then
//! no half of a batch, and only one of the two databases has segments in flight ("Deadlock" in [`super::super`]: the
//! threads that write them are shared).
//!
//! **A key that is written after it was copied is noted** ([`Noted`](super::super::tree::Noted)) once it is written, and
//! copied again. So with nothing noted, and nobody writing, the two are equal.
//!
//! **What of a document was ever in the copy is in its files,** as in any. So the tombstones come first, and before them
//! nothing: a document that is purged and swept by then is not in the database any more, and so not in the copy. That its
//! tombstone says so is true once the copy has taken the database's place. One that is purged later may have been
//! copied; its tombstone is copied as it is, and it takes another rewrite.

use std::{
    fs, io,
    ops::Bound,
    thread,
    time::{Duration, Instant},
};

use ::sled::IVec;
use sha2::{Digest as _, Sha256};

use super::{COPYING, remove_directory, sync_all, wait_until_closed};
use crate::store::sled::{
    Database, SledOptions, SledStore, keys, opening::LOCK_FILE, read_failed, tombstones,
    values::PIECE_MAX_BYTES,
};
use crate::store::{Remains, Store as _, StoreError, Tombstone};

/// Bytes copied while nobody commits.
const BYTES_PER_TURN: usize = 256 * 1024;

/// Keys copied again while nobody commits: no more bytes than that.
const KEYS_PER_TURN: usize = BYTES_PER_TURN / PIECE_MAX_BYTES;

/// Bytes read back in one go.
const BYTES_PER_READ: usize = 1024 * 1024;

/// Page cache of the copy, besides that of the database.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What two databases with the same keys and values have in common, in whatever order these were written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    entries: u64,
    hashes: [u8; 32],
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_add(1);
        self.toggle(key, value);
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_sub(1);
        self.toggle(key, value);
    }

    fn toggle(&mut self, key: &[u8], value: &[u8]) {
        let mut hash = Sha256::new();
        hash.update((key.len() as u64).to_le_bytes());
        hash.update(key);
        hash.update(value);
        for (sum, byte) in self.hashes.iter_mut().zip(hash.finalize()) {
            *sum ^= byte;
        }
    }
}

/// How far a copy was read back.
#[derive(Debug, Default)]
pub(super) struct Reading {
    sum: Sum,
    /// The last key that is in the sum.
    last: Option<IVec>,
}

/// See the module's docs.
pub(super) struct Copy<'s> {
    of: &'s SledStore,
    fresh: SledStore,
    /// What was written to it.
    written: Sum,
    /// Purged documents of which nothing will be left.
    erased: usize,
}

/// Which keys.
pub(super) type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl<'s> Copy<'s> {
    /// An empty one, beside the database.
    pub(super) fn begin(of: &'s SledStore) -> Result<Self, StoreError> {
        let path = of.options.path.join(COPYING);
        remove_directory(&path).map_err(|source| of.not_rewritten(source))?;
        let options = SledOptions {
            path,
            cache_bytes: CACHE_BYTES.min(of.options.cache_bytes),
            ..of.options.clone()
        };
        let mut copy = Self {
            of,
            fresh: SledStore::open(&options)?,
            written: Sum::default(),
            erased: 0,
        };
        // The mark that it is ours.
        let mut reading = Reading::default();
        while copy.read_some(&mut reading)? {}
        copy.written = reading.sum;
        Ok(copy)
    }

    /// All keys, those of tombstones first.
    pub(super) fn ranges() -> [Range; 3] {
        let (low, high) = keys::all_tombstones();
        let (low, high) = (low.to_vec(), high.to_vec());
        [
            (Bound::Included(low.clone()), Bound::Excluded(high.clone())),
            (Bound::Unbounded, Bound::Excluded(low)),
            (Bound::Included(high), Bound::Unbounded),
        ]
    }

    /// Copies the first few keys of a range. What is left of it then; `None` at its end.
    pub(super) fn copy_some(&mut self, (from, to): Range) -> Result<Option<Range>, StoreError> {
        let of = self.of;
        let started = Instant::now();
        let quiet = of.lock();
        if quiet.poisoned {
            return Err(StoreError::Poisoned);
        }
        let database = of.database()?;
        let fresh = self.fresh.database()?;
        let (mut bytes, mut last) = (0, None);
        for entry in database.db.range((from, to.clone())) {
            let (key, mut value) = entry.map_err(read_failed)?;
            if let Some(tombstone) = erased_tombstone(&key, &value) {
                value = tombstone;
                self.erased += 1;
            }
            bytes += key.len() + value.len();
            let former = put(&fresh, &key, Some(&value));
            let former = former.map_err(|error| of.not_rewritten(error))?;
            self.written.replace(&key, former.as_ref(), Some(&value));
            if bytes >= BYTES_PER_TURN {
                last = Some(key);
                break;
            }
        }
        fresh.flush(&mut self.fresh.lock())?;
        drop((database, quiet));
        breathe(started);
        Ok(last.map(|key| (Bound::Excluded(key.to_vec()), to)))
    }

    /// Copies what was written since it was copied; how many keys that were. What was read back stays right.
    pub(super) fn catch_up(
        &mut self,
        mut reading: Option<&mut Reading>,
    ) -> Result<usize, StoreError> {
        let of = self.of;
        let keys = of.noted.take();
        for some in keys.chunks(KEYS_PER_TURN) {
            let started = Instant::now();
            let quiet = of.lock();
            if quiet.poisoned {
                return Err(StoreError::Poisoned);
            }
            let database = of.database()?;
            self.copy_again(&database, some, reading.as_deref_mut())?;
            drop((database, quiet));
            breathe(started);
        }
        Ok(keys.len())
    }

    /// Copies all that was written since it was copied, while nobody can write.
    pub(super) fn catch_up_at_last(&mut self, database: &Database) -> Result<(), StoreError> {
        let keys = self.of.noted.take();
        for some in keys.chunks(KEYS_PER_TURN) {
            self.copy_again(database, some, None)?;
        }
        Ok(())
    }

    fn copy_again(
        &mut self,
        database: &Database,
        keys: &[IVec],
        mut reading: Option<&mut Reading>,
    ) -> Result<(), StoreError> {
        let fresh = self.fresh.database()?;
        for key in keys {
            let value = database.get(key)?;
            let former = put(&fresh, key, value.as_ref());
            let former = former.map_err(|error| self.of.not_rewritten(error))?;
            self.written.replace(key, former.as_ref(), value.as_ref());
            if let Some(reading) = &mut reading
                && reading.last.as_ref().is_some_and(|last| key <= last)
            {
                reading.sum.replace(key, former.as_ref(), value.as_ref());
            }
        }
        fresh.flush(&mut self.fresh.lock())
    }

    /// Makes it durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.fresh.database()?.sync(&mut self.fresh.lock())
    }

    /// Closed and opened again, so that it is read from its files, and not from what its cache holds.
    pub(super) fn reopened(self) -> Result<Self, StoreError> {
        self.sync()?;
        let Self {
            of,
            fresh,
            written,
            erased,
        } = self;
        let options = fresh.options.clone();
        drop(fresh);
        Ok(Self {
            of,
            fresh: SledStore::open(&options)?,
            written,
            erased,
        })
    }

    /// Reads a little of it back; whether there is more.
    pub(super) fn read_some(&mut self, reading: &mut Reading) -> Result<bool, StoreError> {
        let fresh = self.fresh.database()?;
        let from = match reading.last.take() {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let mut bytes = 0;
        for entry in fresh.db.range((from, Bound::Unbounded)) {
            let (key, value) = entry.map_err(read_failed)?;
            reading.sum.add(&key, &value);
            bytes += key.len() + value.len();
            reading.last = Some(key);
            if bytes >= BYTES_PER_READ {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether what was read back, to the end, is what was written.
    pub(super) fn is_as(&self, reading: &Reading) -> bool {
        reading.sum == self.written
    }

    /// Makes it durable and closes it; how many purged documents are gone by it, and its size.
    pub(super) fn close(self) -> Result<(usize, u64), StoreError> {
        self.sync()?;
        let bytes = self.fresh.size_on_disk()?;
        let directory = self.fresh.options.path.clone();
        drop(self.fresh);
        let closed = wait_until_closed(&directory.join("db")).and_then(|_| {
            fs::remove_file(directory.join(LOCK_FILE))?;
            sync_all(&directory)
        });
        closed.map_err(|source| self.of.not_rewritten(source))?;
        Ok((self.erased, bytes))
    }
}

impl Sum {
    fn replace(&mut self, key: &[u8], former: Option<&IVec>, value: Option<&IVec>) {
        if let Some(former) = former {
            self.remove(key, former);
        }
        if let Some(value) = value {
            self.add(key, value);
        }
    }
}

/// Sets a key of the copy, or removes it; what was there.
fn put(fresh: &Database, key: &IVec, value: Option<&IVec>) -> io::Result<Option<IVec>> {
    let former = match value {
        Some(value) => fresh.db.insert(key, value.clone()),
        None => fresh.db.remove(key),
    };
    former.map_err(crate::store::sled::into_io)
}

/// Lets others commit, and have the disk, for half as long as they could not.
fn breathe(started: Instant) {
    thread::sleep((started.elapsed() / 2).max(Duration::from_millis(1)));
}

/// The value of a tombstone whose document is in no file any more, if that is what the copy makes of it.
fn erased_tombstone(key: &[u8], value: &[u8]) -> Option<IVec> {
    keys::tombstone_of(key)?;
    let tombstone = tombstones::unseal(key, value).ok()?;
    (tombstone.purged && tombstone.remains == Remains::Files).then(|| {
        let erased = Tombstone {
            remains: Remains::Nothing,
            ..tombstone
        };
        tombstones::seal(key, &erased).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_goes_by_what_is_there_and_not_by_how_it_came() {
        let mut one = Sum::default();
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        let mut other = Sum::default();
        other.add(b"b", b"3");
        other.replace(b"b", Some(&b"3".into()), Some(&b"2".into()));
        assert_ne!(one, other);
        other.add(b"a", b"1");
        assert_eq!(one, other);
        for (key, value) in [
            (b"a".as_slice(), b"2".as_slice()),
            (b"a1", b""),
            (b"", b"a1"),
        ] {
            let mut wrong = Sum::default();
            wrong.add(key, value);
            wrong.add(b"b", b"2");
            assert_ne!(one, wrong);
        }
        other.remove(b"a", b"1");
        other.remove(b"b", b"2");
        assert_eq!(other, Sum::default());
    }
}
