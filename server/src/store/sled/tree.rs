//! sled's tree, and which of its keys were written lately.
//!
//! Everything that is written goes through [`Tree`]: a copy that is made of the database meanwhile learns of it, and
//! nothing can be written past it.

use std::{
    collections::HashSet,
    mem,
    ops::RangeBounds,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use ::sled::IVec;

/// Keys that may be noted before whoever writes has to wait: some 10 MB.
const KEYS_NOTED: usize = 64 * 1024;

/// Keys that may be noted while the copy is about to take the database's place: so many it may still have to copy while
/// nobody can write.
pub(super) const LAST_KEYS_NOTED: usize = 1024;

/// Keys that were written since a copy of the database was begun, and that the copy has not seen.
#[derive(Debug, Default)]
pub(super) struct Noted {
    notes: Mutex<Option<Notes>>,
    /// There is room again, or no copy is made any more.
    room: Condvar,
}

#[derive(Debug)]
struct Notes {
    keys: HashSet<IVec>,
    most: usize,
}

/// As long as it is held, keys are noted.
#[derive(Debug)]
pub(super) struct Noting<'n>(&'n Noted);

impl Noted {
    /// From here on keys are noted.
    pub(super) fn begin(&self) -> Noting<'_> {
        *self.lock() = Some(Notes {
            keys: HashSet::new(),
            most: KEYS_NOTED,
        });
        Noting(self)
    }

    /// Before something is written: waits until the copy has taken note of what is. So a copy that is slower than all
    /// that is written comes to an end, too, and what is noted is bounded.
    pub(super) fn wait_for_room(&self) {
        let is_full = |notes: &mut Option<Notes>| matches!(notes, Some(notes) if notes.keys.len() >= notes.most);
        let waited = self.room.wait_while(self.lock(), is_full);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes what was noted.
    pub(super) fn take(&self) -> Vec<IVec> {
        let mut notes = self.lock();
        let keys = notes.as_mut().map(|notes| mem::take(&mut notes.keys));
        self.room.notify_all();
        keys.into_iter().flatten().collect()
    }

    /// The copy is about to take the database's place.
    pub(super) fn hurry(&self) {
        if let Some(notes) = self.lock().as_mut() {
            notes.most = LAST_KEYS_NOTED;
        }
    }

    fn note(&self, key: impl FnOnce() -> IVec) {
        if let Some(notes) = self.lock().as_mut() {
            notes.keys.insert(key());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Notes>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
        self.0.room.notify_all();
    }
}

/// See the module's docs.
#[derive(Debug)]
pub(super) struct Tree {
    db: ::sled::Db,
    noted: Arc<Noted>,
}

impl Tree {
    pub(super) fn new(db: ::sled::Db, noted: Arc<Noted>) -> Self {
        Self { db, noted }
    }

    pub(super) fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>, ::sled::Error> {
        self.db.get(key)
    }

    pub(super) fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool, ::sled::Error> {
        self.db.contains_key(key)
    }

    pub(super) fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> ::sled::Iter {
        self.db.range(range)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.db.is_empty()
    }

    /// Gives what was there. Noted when it is written, and not before: or a copy could read what is there still.
    pub(super) fn insert(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<IVec>,
    ) -> Result<Option<IVec>, ::sled::Error> {
        let former = self.db.insert(key.as_ref(), value);
        self.noted.note(|| key.as_ref().into());
        former
    }

    /// Gives what was there.
    pub(super) fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>, ::sled::Error> {
        let former = self.db.remove(key.as_ref());
        self.noted.note(|| key.as_ref().into());
        former
    }

    /// Sets keys, or removes those without a value, as one.
    pub(super) fn apply(&self, steps: Vec<(IVec, Option<IVec>)>) -> Result<(), ::sled::Error> {
        let keys: Vec<IVec> = steps.iter().map(|(key, _)| key.clone()).collect();
        let mut batch = ::sled::Batch::default();
        for (key, value) in steps {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        let applied = self.db.apply_batch(batch);
        for key in keys {
            self.noted.note(|| key);
        }
        applied
    }

    pub(super) fn flush(&self) -> Result<usize, ::sled::Error> {
        self.db.flush()
    }

    pub(super) fn size_on_disk(&self) -> Result<u64, ::sled::Error> {
        self.db.size_on_disk()
    }

    /// For tests that look below the store, or break what is there.
    #[cfg(test)]
    pub(super) fn sled(&self) -> ::sled::Db {
        self.db.clone()
    }
}
