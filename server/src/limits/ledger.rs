//! What is stored of each principal's documents, and how much there may be.
//!
//! A document is its maker's, whoever writes to it later: the first entry of its access log says who that is. Its bytes are
//! those of its snapshot, of the changes behind it, and of its access log. Where nobody has to say who they are nobody is a
//! principal, there are no lists, and only what holds for each document is kept.
//!
//! **Lists** are refused where there is no room, as changes are, but for the first few of each document
//! ([`LISTS_ALWAYS_BYTES`]): a writer who fills a document, or its maker's quota, must not keep its owners from putting
//! them out.
//!
//! **Nothing of this is stored.** Sums are made anew of what the store has when the server starts ([`Ledger::read`]), before
//! anybody is served, and follow what the documents' tasks write from there on, each of its own document. So they can't part
//! from what is stored in a crash: what was not written is not there to be counted. In between they may be high for a
//! moment, by what is on its way to the disk and what was promised to a message that is then refused.
//!
//! **What is deleted** counts as long as it is kept, by what its tombstone says: who writes and deletes again and again does
//! not get beyond. It counts no longer once it is purged. What is there is never taken away: over a quota that was made
//! smaller nothing can be added, and all can be read and deleted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use concord_shared::access::Role;
use concord_shared::ids::{DocumentId, PrincipalId};
use tracing::{info, warn};

use super::Limit;
use crate::access::grants::Entry;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::{ACCESS_ENTRY_MAX_BYTES, Store, StoreError, Tombstone};

#[cfg(test)]
mod tests;

/// Documents that are read at a time when the server starts.
const DOCUMENTS_PER_READ: usize = 1000;

/// One caller has at most one of so many parts of a document's places.
const LEAST_WHO_FILL_A_DOCUMENT: usize = 10;

/// Bytes of the access log that are read at a time.
const LOG_BYTES_PER_READ: u64 = 1 << 20;

/// Bytes that a document's access log may have though there is no room: a thousand lists of a few names, five of the
/// longest.
const LISTS_ALWAYS_BYTES: u64 = 256 << 10;

/// There would be more than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there would be too many {}", limit.what())]
pub struct OverQuota {
    /// Of what.
    pub limit: Limit,
}

impl OverQuota {
    /// Counts it.
    fn of(limit: Limit) -> Self {
        Metrics::limited(limit);
        Self { limit }
    }
}

/// See the module's docs. One for the server. `u64::MAX` is no limit.
#[derive(Debug)]
pub struct Ledger {
    knows_lists: bool,
    knows_principals: bool,
    most_documents: u64,
    most_bytes: u64,
    most_bytes_per_document: u64,
    most_peers_per_document: usize,
    /// One for each who has made a document that is there, or is asked for by one that is open.
    purses: Mutex<HashMap<PrincipalId, Arc<Purse>>>,
}

/// What one principal has.
#[derive(Debug, Default)]
struct Purse {
    documents: AtomicU64,
    bytes: AtomicU64,
}

/// What a deleted document counts as long as it is kept, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    maker: PrincipalId,
    bytes: u64,
}

/// What a document's access log says of it here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Who made it, where that matters.
    maker: Option<PrincipalId>,
    /// Of all entries.
    bytes: u64,
}

/// What one open document takes, and who answers for it. Changed by the document's task alone.
#[derive(Debug, Default)]
pub struct Bill {
    payer: Option<Payer>,
    /// All of it.
    bytes: u64,
    /// Of these, those of its access log.
    lists: u64,
}

#[derive(Debug)]
struct Payer {
    who: PrincipalId,
    purse: Arc<Purse>,
}

impl Ledger {
    /// By the settings; `is_open`: nobody has to say who they are.
    pub fn new(config: &Config, is_open: bool) -> Self {
        let most = |number: u64| if number == 0 { u64::MAX } else { number };
        let bytes = |mib: u64| most(mib << 20);
        let (most_documents, most_bytes) = (
            most(config.max_documents_per_principal),
            bytes(config.max_mib_per_principal),
        );
        let is_limited = most_documents < u64::MAX || most_bytes < u64::MAX;
        let peers = config.max_peers_per_document;
        Self {
            knows_lists: !is_open,
            knows_principals: !is_open && is_limited,
            most_documents,
            most_bytes,
            most_bytes_per_document: bytes(config.max_document_mib),
            most_peers_per_document: if peers == 0 { usize::MAX } else { peers },
            purses: Mutex::default(),
        }
    }

    /// Sums up what is stored. Blocks, for some seconds where there are a hundred thousand documents.
    pub fn read(&self, store: &dyn Store) -> Result<(), StoreError> {
        if !self.knows_principals {
            return Ok(());
        }
        let started = Instant::now();
        let documents = self.read_documents(store)? + self.read_kept(store)?;
        let millis = started.elapsed().as_millis();
        info!(documents, millis, "counted what each principal has stored");
        Ok(())
    }

    fn read_documents(&self, store: &dyn Store) -> Result<u64, StoreError> {
        let (mut after, mut documents) = (None, 0);
        loop {
            let page = store.documents(after.as_ref(), DOCUMENTS_PER_READ)?;
            let Some(last) = page.last() else {
                return Ok(documents);
            };
            after = Some(last.document.clone());
            for found in page {
                let id = found.document;
                let Ok(summary) = found.summary else {
                    warn!(document = %id, "counts for nobody: it can't be read");
                    continue;
                };
                let said = self.said(store, &id)?;
                let Some(maker) = said.maker else {
                    continue;
                };
                // Where there is nothing but a snapshot nothing more is read.
                let has_tail = summary.changes > summary.base;
                let stored = if has_tail { store.open(&id)? } else { None };
                let bytes = stored.map_or(summary.snapshot_bytes, |stored| stored.bytes());
                documents += 1;
                self.add(&maker, bytes.saturating_add(said.bytes));
            }
        }
    }

    fn read_kept(&self, store: &dyn Store) -> Result<u64, StoreError> {
        let (mut after, mut documents) = (None, 0);
        loop {
            let page = store.tombstones(after.as_ref(), DOCUMENTS_PER_READ)?;
            let Some((last, _)) = page.last() else {
                return Ok(documents);
            };
            after = Some(last.clone());
            for (id, tombstone) in page {
                if let Some(Kept { maker, bytes }) = self.of(store, &id, &tombstone)? {
                    documents += 1;
                    self.add(&maker, bytes);
                }
            }
        }
    }

    /// What a document that was deleted, and is to be purged, counts until then. Blocks.
    pub fn kept(
        &self,
        store: &dyn Store,
        document: &DocumentId,
    ) -> Result<Option<Kept>, StoreError> {
        if !self.knows_principals {
            return Ok(None);
        }
        match store.tombstone(document)? {
            Some(tombstone) => self.of(store, document, &tombstone),
            None => Ok(None),
        }
    }

    fn of(
        &self,
        store: &dyn Store,
        document: &DocumentId,
        tombstone: &Tombstone,
    ) -> Result<Option<Kept>, StoreError> {
        if tombstone.purged {
            return Ok(None);
        }
        let maker = self.maker(&store.access_log(document, 0, 1, LOG_BYTES_PER_READ)?);
        let bytes = tombstone.bytes;
        Ok(maker.map(|maker| Kept { maker, bytes }))
    }

    /// It was purged.
    pub fn purged(&self, kept: &Kept) {
        self.subtract(&kept.maker, kept.bytes);
    }

    /// A document that is somebody's, and has nothing in it, is closed: there is nothing of it to count. Somebody wanted to
    /// make it, and what they sent was refused.
    pub fn never_made(&self, bill: &mut Bill) {
        if let Some(Payer { who, purse }) = bill.payer.take() {
            drop(purse);
            self.subtract(&who, bill.bytes);
        }
    }

    fn subtract(&self, maker: &PrincipalId, bytes: u64) {
        let purse = self.purse(maker);
        for (sum, less) in [(&purse.documents, 1), (&purse.bytes, bytes)] {
            let subtract = |all: u64| Some(all.saturating_sub(less));
            let _subtracted = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        }
        drop(purse);
        self.forget_if_empty(maker);
    }

    /// Who has nothing is as somebody who never made anything.
    fn forget_if_empty(&self, maker: &PrincipalId) {
        let mut purses = self.purses();
        // Nobody else can get hold of it meanwhile.
        let is_empty = |purse: &Arc<Purse>| Arc::strong_count(purse) == 1 && purse.is_empty();
        if purses.get(maker).is_some_and(is_empty) {
            purses.remove(maker);
        }
    }

    fn add(&self, maker: &PrincipalId, bytes: u64) {
        let purse = self.purse(maker);
        purse.documents.fetch_add(1, Ordering::Relaxed);
        purse.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was said of a document so far: it takes room, and the first who said something made it. Blocks.
    pub fn said(&self, store: &dyn Store, document: &DocumentId) -> Result<Said, StoreError> {
        let mut said = Said::default();
        if !self.knows_lists {
            return Ok(said);
        }
        let mut from = 0;
        loop {
            let entries = match store.access_log(document, from, usize::MAX, LOG_BYTES_PER_READ) {
                Err(error @ StoreError::Corrupt { .. }) => {
                    // The document is to be had all the same.
                    warn!(%document, %error, "not all of its lists count: they can't be read");
                    return Ok(said);
                }
                entries => entries?,
            };
            if from == 0 {
                said.maker = self.maker(&entries);
            }
            let lengths = entries.iter().map(|(_, entry)| entry.len() as u64);
            let bytes: u64 = lengths.sum();
            said.bytes += bytes;
            from += entries.len() as u64;
            // One more would have been given, too.
            if bytes + ACCESS_ENTRY_MAX_BYTES as u64 <= LOG_BYTES_PER_READ {
                return Ok(said);
            }
        }
    }

    /// Who made a document, by the beginning of its access log.
    fn maker(&self, entries: &[(u64, Bytes)]) -> Option<PrincipalId> {
        let (_, first) = entries.first().filter(|_| self.knows_principals)?;
        PrincipalId::new(&Entry::decode(first)?.by).ok()
    }

    /// Whether somebody may make one more document, of so many bytes.
    pub fn may_make(&self, maker: &PrincipalId, bytes: u64) -> Result<(), OverQuota> {
        if !self.knows_principals {
            return Ok(());
        }
        // Asking makes nobody remembered.
        let purse = self.purses().get(maker).cloned().unwrap_or_default();
        if purse.documents.load(Ordering::Relaxed) >= self.most_documents {
            return Err(OverQuota::of(Limit::Documents));
        }
        let had = purse.bytes.load(Ordering::Relaxed);
        if had >= self.most_bytes || had.saturating_add(bytes) > self.most_bytes {
            return Err(OverQuota::of(Limit::StoredBytes));
        }
        Ok(())
    }

    /// Whether one more may have a document open that so many have open, of whom some are the same caller: who has many
    /// connections leaves room for others, and those who only read leave as much for those who write.
    pub fn may_enter(
        &self,
        role: Role,
        peers: usize,
        own: impl FnOnce() -> usize,
    ) -> Result<(), OverQuota> {
        let all = self.most_peers_per_document;
        let most = match role {
            Role::Writer | Role::Owner => all,
            Role::None | Role::Reader => all - all / LEAST_WHO_FILL_A_DOCUMENT,
        };
        let most_own = all.div_ceil(LEAST_WHO_FILL_A_DOCUMENT);
        // They are counted only where there may be too many.
        if peers >= most || peers >= most_own && own() >= most_own {
            return Err(OverQuota::of(Limit::Peers));
        }
        Ok(())
    }

    /// Of a document that is stored, and so is in the sums, if somebody made it. One that is somebody's, and has nothing in
    /// it yet, counts from here on, as long as it is open.
    pub fn bill(&self, said: &Said, contents: u64) -> Bill {
        let lists = said.bytes;
        let mut bill = Bill {
            payer: None,
            bytes: contents.saturating_add(lists),
            lists,
        };
        match &said.maker {
            Some(maker) if contents > 0 => bill.payer = Some(self.payer(maker)),
            Some(maker) => self.charge(&mut bill, maker),
            None => {}
        }
        bill
    }

    /// A document that nobody answered for is somebody's from here on.
    pub fn charge(&self, bill: &mut Bill, maker: &PrincipalId) {
        if self.knows_principals && bill.payer.is_none() {
            self.add(maker, bill.bytes);
            bill.payer = Some(self.payer(maker));
        }
    }

    fn payer(&self, who: &PrincipalId) -> Payer {
        let purse = self.purse(who);
        let who = who.clone();
        Payer { who, purse }
    }

    /// Whether something may come into a document that is somebody's already, and has nothing in it. It counts itself.
    pub fn may_begin(&self, bill: &Bill) -> Result<(), OverQuota> {
        let payer = bill.payer.as_ref();
        let documents = payer.map_or(0, |of| of.purse.documents.load(Ordering::Relaxed));
        if documents > self.most_documents {
            return Err(OverQuota::of(Limit::Documents));
        }
        self.room(bill)
    }

    /// Whether a document that takes so much may take more, and whoever answers for it, too.
    pub fn room(&self, bill: &Bill) -> Result<(), OverQuota> {
        if bill.bytes >= self.most_bytes_per_document {
            return Err(OverQuota::of(Limit::DocumentBytes));
        }
        let payer = bill.payer.as_ref();
        if payer.is_some_and(|of| of.purse.bytes.load(Ordering::Relaxed) >= self.most_bytes) {
            return Err(OverQuota::of(Limit::StoredBytes));
        }
        Ok(())
    }

    /// Whether it is to be looked at closely what so many bytes more are.
    pub fn is_near(&self, bill: &Bill, bytes: u64) -> bool {
        let payer = bill.payer.as_ref();
        let all = payer.map_or(0, |of| of.purse.bytes.load(Ordering::Relaxed));
        all.saturating_add(bytes) > self.most_bytes
            || bill.bytes.saturating_add(bytes) > self.most_bytes_per_document
    }

    /// Promises room for so many bytes more, if there is.
    pub fn promise(&self, bill: &mut Bill, bytes: u64) -> Result<(), OverQuota> {
        let all = bill.bytes.saturating_add(bytes);
        if all > self.most_bytes_per_document {
            return Err(OverQuota::of(Limit::DocumentBytes));
        }
        if let Some(Payer { purse, .. }) = &bill.payer {
            // Others of the same principal's documents promise at the same time.
            let add = |had: u64| had.checked_add(bytes).filter(|all| *all <= self.most_bytes);
            let added = purse
                .bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
            added.map_err(|_| OverQuota::of(Limit::StoredBytes))?;
        }
        bill.bytes = all;
        Ok(())
    }

    fn purses(&self) -> MutexGuard<'_, HashMap<PrincipalId, Arc<Purse>>> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a list of so many bytes, if there is room for it.
    pub fn list(&self, bill: &mut Bill, bytes: u64) -> Result<(), OverQuota> {
        let lists = bill.lists.saturating_add(bytes);
        if lists > LISTS_ALWAYS_BYTES {
            self.promise(bill, bytes)?;
            bill.lists = lists;
        } else {
            bill.first_list(bytes);
        }
        Ok(())
    }

    fn purse(&self, of: &PrincipalId) -> Arc<Purse> {
        let mut purses = self.purses();
        match purses.get(of) {
            Some(purse) => Arc::clone(purse),
            None => Arc::clone(purses.entry(of.clone()).or_default()),
        }
    }
}

impl Purse {
    fn is_empty(&self) -> bool {
        let sums = [&self.documents, &self.bytes];
        sums.iter().all(|sum| sum.load(Ordering::Relaxed) == 0)
    }
}

impl Bill {
    /// What the document takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts the list of so many bytes that a document begins with.
    pub fn first_list(&mut self, bytes: u64) {
        let contents = self.bytes.saturating_sub(self.lists);
        self.lists = self.lists.saturating_add(bytes);
        self.is(contents);
    }

    /// Its contents take so much now, whatever was promised.
    pub fn is(&mut self, contents: u64) {
        let bytes = contents.saturating_add(self.lists);
        if let Some(Payer { purse, .. }) = &self.payer {
            let before = self.bytes;
            let replace = |sum: u64| Some(sum.saturating_sub(before).saturating_add(bytes));
            let _replaced = purse
                .bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, replace);
        }
        self.bytes = bytes;
    }

    /// The document is to be deleted: what it takes now counts as long as it is kept, whatever is said of it here.
    pub fn keep(&mut self) {
        self.payer = None;
    }
}
