//! Where documents are kept: a narrow trait, its backends, and the thread that commits.
//!
//! The store knows nothing of Automerge. A document is a log of opaque changes, indexed by each change's
//! place in the document (0-based, in the order the server admitted them, so every change comes after the
//! changes it depends on), and at most one *snapshot generation* that stands for the changes `0..base`.
//! Log records below `base` may be kept a while (`keep_from`), so that a peer that is nearly up to date
//! can still be sent single changes. Beside its changes it has an *access log* of opaque entries: the newest one says
//! who may do what, the older ones are its history. A document's access log may be there before the document is. With
//! each entry come the [`Label`]s by which the document can be found from there on; what they mean the store does not know.
//!
//! A deleted document leaves a *tombstone*, which hides it until it is taken away. When it is *purged*, nothing but the
//! tombstone stays, for ever: its id is not used again.
//!
//! * [`Store`] is the contract; [`conformance`] holds its tests, which every backend runs.
//! * [`MemoryStore`] is for tests: it can fail on demand and drop what was not synced.
//! * [`SledStore`] is what the server runs on.
//! * [`committer`] turns many documents' writes into few synced batches, on one thread.
//!
//! Every method of `Store` blocks: call it from the committer's thread or a blocking task.

use std::time::Duration;

use bytes::Bytes;
use concord_shared::ids::{DocumentId, PrincipalId};

pub use self::ids::Ids;
pub use committer::{
    Committer, CommitterOptions, CommitterThread, DocumentWriter, Health, Progress, SubmitError,
    Ticket, Tickets, WriteFailed,
};
pub use error::{Damage, Part, Problem, Severity, StoreError};
pub use memory::{Fault, MemoryStore};
pub use sled::{SledOptions, SledStore};

pub mod committer;

mod check;
#[cfg(test)]
mod conformance;
mod error;
mod ids;
mod memory;
mod sled;

/// What [`Store::commit`] promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The batch, and every batch before it, survives loss of power (as far as the disk tells the truth).
    Strict,
    /// The batch, and every batch before it, was handed to the operating system: it survives the death of the
    /// process. Loss of power may drop it, and then drops every batch after it, too.
    Relaxed,
}

/// By which documents are found: fixed bytes that mean something to whoever writes them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub [u8; LABEL_BYTES]);

/// Length of a [`Label`].
pub const LABEL_BYTES: usize = 16;

/// One document's part of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Consecutive changes at the end of a document's log. Creates the document if it is not there.
    Append {
        /// The document.
        document: DocumentId,
        /// Index of the first change; must be exactly the document's next index.
        first: u64,
        /// When the server admitted them, in milliseconds since the Unix epoch.
        received_at_ms: u64,
        /// Who sent them.
        principal: PrincipalId,
        /// The raw changes; at least one.
        changes: Vec<Bytes>,
    },
    /// A new snapshot generation that stands for the changes `0..base`, and replaces the former one.
    ///
    /// Into a document that is not there, any `base` is allowed: a large first upload is stored this way.
    /// Otherwise `base` lies between the former base and the document's next index.
    Snapshot {
        /// The document.
        document: DocumentId,
        /// How many changes, from the document's first on, the snapshot stands for.
        base: u64,
        /// The log below this index is given up; at most `base`. Never moves back.
        keep_from: u64,
        /// When the snapshot was made; the creation time of a document that was not there.
        received_at_ms: u64,
        /// The snapshot, opaque.
        snapshot: Bytes,
        /// What the server needs to know of the changes `0..base`, opaque.
        graph: Bytes,
        /// When the changes `0..base` came, and from whom, opaque; no bytes if that is not known.
        arrivals: Bytes,
    },
    /// An entry at the end of a document's access log. The document need not be there yet, nor is it by this: so
    /// there is never content without an entry.
    Access {
        /// The document.
        document: DocumentId,
        /// Number of the entry, from 0 on; must be exactly the one that comes next.
        number: u64,
        /// The entry, opaque; at most [`ACCESS_ENTRY_MAX_BYTES`].
        entry: Bytes,
        /// By which the document is found from here on, in place of those that it had.
        labels: Vec<Label>,
    },
    /// By which labels a document, or its access log where there is no more of it, is found from here on: where an entry
    /// was written without. It may be deleted, but not purged.
    Label {
        /// The document.
        document: DocumentId,
        /// In place of those that it had.
        labels: Vec<Label>,
    },
    /// The document, or its access log where there is no more of it, is there no longer. All of it is kept.
    Delete {
        /// The document.
        document: DocumentId,
        /// When it was deleted, in milliseconds since the Unix epoch.
        at_ms: u64,
        /// Who deleted it.
        by: PrincipalId,
        /// Bytes that it takes as long as it is kept: [`StoredDocument::bytes`], and those of its access log.
        bytes: u64,
    },
    /// A deleted document that is not purged is there again, as it was.
    Undelete {
        /// The document.
        document: DocumentId,
    },
    /// All that is stored of a deleted document goes, for good, but its tombstone. [`Store::tidy`] removes it bit by
    /// bit, also after a crash.
    Purge {
        /// The document.
        document: DocumentId,
        /// Who wants that, unless its time is over.
        by: Option<PrincipalId>,
    },
}

impl Write {
    /// The document this is about.
    pub fn document(&self) -> &DocumentId {
        match self {
            Self::Append { document, .. }
            | Self::Snapshot { document, .. }
            | Self::Access { document, .. }
            | Self::Label { document, .. }
            | Self::Delete { document, .. }
            | Self::Undelete { document }
            | Self::Purge { document, .. } => document,
        }
    }

    /// How many changes this brings one by one.
    pub fn changes(&self) -> usize {
        match self {
            Self::Append { changes, .. } => changes.len(),
            Self::Snapshot { .. }
            | Self::Access { .. }
            | Self::Label { .. }
            | Self::Delete { .. }
            | Self::Undelete { .. }
            | Self::Purge { .. } => 0,
        }
    }

    /// Bytes of payload: what a queue that is bounded by bytes should count.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Append { changes, .. } => changes.iter().map(Bytes::len).sum(),
            Self::Snapshot {
                snapshot,
                graph,
                arrivals,
                ..
            } => snapshot.len() + graph.len() + arrivals.len(),
            Self::Access { entry, .. } => entry.len(),
            Self::Delete { by, .. } | Self::Purge { by: Some(by), .. } => by.as_str().len(),
            Self::Label { .. } | Self::Undelete { .. } | Self::Purge { by: None, .. } => 0,
        }
    }
}

/// What is known of a deleted document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// When it was deleted, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who deleted it.
    pub by: PrincipalId,
    /// Bytes that it took then, as whoever deleted it counted them.
    pub bytes: u64,
    /// Whether it is gone for good.
    pub purged: bool,
    /// Who wanted that, unless its time was over.
    pub purged_by: Option<PrincipalId>,
    /// What there still is of it.
    pub remains: Remains,
}

/// Where something of a deleted document still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// In the store: all of a document that is not purged, and of one that is what [`Store::tidy`] has not come to.
    Store,
    /// In no record any more. Its bytes may still be in the store's files, where these are written over only when
    /// their place is needed.
    Files,
    /// Nowhere.
    Nothing,
}

/// What became of a database that was written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewritten {
    /// Purged documents of which something was in the old files.
    pub erased: usize,
    /// Size of the old files.
    pub bytes_before: u64,
    /// Size of the new ones.
    pub bytes_after: u64,
    /// For how long nobody could read or write.
    pub pause: Duration,
}

/// Consecutive changes that were admitted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Index of the first change.
    pub first: u64,
    /// When the server admitted them, in milliseconds since the Unix epoch.
    pub received_at_ms: u64,
    /// Who sent them.
    pub principal: PrincipalId,
    /// The raw changes; at least one.
    pub changes: Vec<Bytes>,
}

impl LogRecord {
    /// Index after the last change.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.changes.len() as u64)
    }

    /// Bytes of the changes.
    pub fn bytes(&self) -> u64 {
        self.changes.iter().map(|change| change.len() as u64).sum()
    }

    /// The part of this record that lies in `from..to`, if any.
    pub(crate) fn cut(mut self, from: u64, to: u64) -> Option<Self> {
        let (start, end) = (self.first.max(from), self.end().min(to));
        if start >= end {
            return None;
        }
        self.changes
            .truncate(usize::try_from(end - self.first).ok()?);
        self.changes
            .drain(..usize::try_from(start - self.first).ok()?);
        self.first = start;
        Some(self)
    }
}

/// What a [`Store::log`] or [`Store::access_log`] may still give; shared by the backends, so that they stop at the same
/// record.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: u64,
    started: bool,
}

impl Allowance {
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self {
            left: most_bytes,
            started: false,
        }
    }

    /// Whether a record of so many bytes may be given, too; after the first `false` none may.
    pub(crate) fn admits(&mut self, bytes: u64) -> bool {
        let left = self.left.checked_sub(bytes);
        let admitted = left.is_some() || !self.started;
        self.left = left.unwrap_or(0);
        self.started = true;
        admitted
    }
}

/// The changes of consecutive records, in order.
pub fn changes_of(records: Vec<LogRecord>) -> impl DoubleEndedIterator<Item = Bytes> {
    records.into_iter().flat_map(|record| record.changes)
}

/// All that is needed to go on with a document, without the snapshot's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// When the document's first write was admitted, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// How many changes the snapshot stands for; 0 if there is none.
    pub base: u64,
    /// What was stored with the snapshot; `None` if there is no snapshot.
    pub graph: Option<Bytes>,
    /// Length of the snapshot in bytes; 0 if there is none.
    pub snapshot_bytes: u64,
    /// The log is there from this index on; at most `base`.
    pub retained_from: u64,
    /// The log from `base` on.
    pub tail: Vec<LogRecord>,
}

impl StoredDocument {
    /// Index of the change that comes next: the number of changes in the document.
    pub fn next(&self) -> u64 {
        self.tail.last().map_or(self.base, LogRecord::end)
    }

    /// Length of the snapshot and of the changes behind it, in bytes.
    pub fn bytes(&self) -> u64 {
        self.snapshot_bytes + self.tail.iter().map(LogRecord::bytes).sum::<u64>()
    }
}

/// All of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// How many changes the snapshot stands for; 0 if there is none.
    pub base: u64,
    /// The snapshot.
    pub snapshot: Option<Bytes>,
    /// The log from `base` on.
    pub tail: Vec<LogRecord>,
}

/// One line of [`Store::documents`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentInfo {
    /// The document.
    pub document: DocumentId,
    /// What there is to say of it, or why that can't be read: one damaged document must not hide the others.
    pub summary: Result<DocumentSummary, Problem>,
}

/// A stretch of a listing that can't be read: documents in it may be there, but are not listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlisted {
    /// The last document before it; `None` if there is none.
    pub after: Option<DocumentId>,
    /// The first document behind it; `None` if there is none.
    pub before: Option<DocumentId>,
}

impl std::fmt::Display for Unlisted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("documents ")?;
        match (&self.after, &self.before) {
            (None, None) => f.write_str("of any name")?,
            (Some(after), None) => write!(f, "after {after}")?,
            (None, Some(before)) => write!(f, "before {before}")?,
            (Some(after), Some(before)) => write!(f, "between {after} and {before}")?,
        }
        f.write_str(", if there are any, can't be listed: the database file is damaged there")
    }
}

/// A document in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentSummary {
    /// When its first write was admitted, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// How many changes the snapshot stands for; 0 if there is none.
    pub base: u64,
    /// How many changes the document has.
    pub changes: u64,
    /// Length of the snapshot in bytes; 0 if there is none.
    pub snapshot_bytes: u64,
}

/// A place that keeps documents. All calls block.
///
/// Writing: [`commit`](Self::commit) alone, from one thread at a time (the [`committer`]'s, or an offline
/// command's). Reading: from any thread, at any time; a read never sees half a
/// record, nor a mix of two snapshot generations.
///
/// Backends check what keeps a log a log: an append must start at the next index and a snapshot must not
/// reach beyond the log. A write that breaks this is a bug in the caller: nothing of the batch is written
/// and the error's [`severity`](StoreError::severity) is [`Severity::Rejected`]. So it is with what is written to a
/// deleted document, which whoever writes can't always know.
///
/// A deleted document is not there for any read but those of [`tombstone`](Self::tombstone),
/// [`tombstones`](Self::tombstones) and [`verify`](Self::verify), and, until it is purged, of
/// [`access`](Self::access) and [`access_log`](Self::access_log): they tell who may have it back. Of
/// [`labelled`](Self::labelled) and [`ids`](Self::ids) it is until nothing of it is left.
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Writes all of `writes`, in order, or nothing. Returns when `durability` holds.
    ///
    /// With no writes and [`Durability::Strict`]: syncs what earlier relaxed commits left.
    /// After an error of [`Severity::Unknown`] or worse, whether the batch was written is not known.
    fn commit(&self, writes: &[Write], durability: Durability) -> Result<(), StoreError>;

    /// Reads a document without its snapshot's bytes. `None` if it is not there.
    fn open(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError>;

    /// Whether a document is there: without reading it, where the store can.
    fn holds(&self, document: &DocumentId) -> Result<bool, StoreError> {
        Ok(self.open(document)?.is_some())
    }

    /// Reads a document's snapshot: its base and its bytes. `None` if there is none.
    fn snapshot(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError>;

    /// Reads a document's snapshot, if there is one, and the changes since: together, all of the document at one
    /// moment. `None` if it is not there.
    fn contents(&self, document: &DocumentId) -> Result<Option<Contents>, StoreError>;

    /// Reads what was stored of the arrival of the changes that the snapshot stands for. `None` if the document is not
    /// there, or that is not known.
    fn arrivals(&self, document: &DocumentId) -> Result<Option<Bytes>, StoreError>;

    /// Reads the changes `from..to`, as far as they are in the log and at or above
    /// [`retained_from`](StoredDocument::retained_from): records in order, cut to the range.
    ///
    /// It stops before the record that would take the sum of the changes' bytes above `most_bytes`, so that a
    /// caller can read a long log piece by piece; but the first record is given whatever its size, so that every
    /// call gets on. Where it stopped, the next call goes on: at the last record's [`end`](LogRecord::end).
    fn log(
        &self,
        document: &DocumentId,
        from: u64,
        to: u64,
        most_bytes: u64,
    ) -> Result<Vec<LogRecord>, StoreError>;

    /// Reads the newest entry of a document's access log, and its number. `None` if there is none. The document itself
    /// need not be there.
    fn access(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError>;

    /// Reads up to `limit` entries of a document's access log, from number `from` on, in order. It stops before the one
    /// that would take the sum of their bytes above `most_bytes`, but gives the first whatever its size.
    fn access_log(
        &self,
        document: &DocumentId,
        from: u64,
        limit: usize,
        most_bytes: u64,
    ) -> Result<Vec<(u64, Bytes)>, StoreError>;

    /// Tells whether a document was deleted, by whom, and what there still is of it.
    fn tombstone(&self, document: &DocumentId) -> Result<Option<Tombstone>, StoreError>;

    /// Lists up to `limit` deleted documents that come after `after`, in the order of their ids. Damaged tombstones are
    /// left out and logged; what they are of stays hidden.
    fn tombstones(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Tombstone)>, StoreError>;

    /// Lists up to `limit` of the documents whose ids are among these, in the order of their ids. Nothing is looked at
    /// that is not among them. What can't be read of the listing itself is left out: [`unlisted`](Self::unlisted) tells
    /// of it.
    fn documents_among(&self, ids: &Ids, limit: usize) -> Result<Vec<DocumentInfo>, StoreError>;

    /// Lists up to `limit` documents that come after `after`, in the order of their ids.
    fn documents(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentInfo>, StoreError> {
        let all = Ids::all();
        let ids = after.map_or(all.clone(), |after| all.behind(after));
        self.documents_among(&ids, limit)
    }

    /// Tells of one document what a listing does. `None` if it is not there.
    fn info(&self, document: &DocumentId) -> Result<Option<DocumentInfo>, StoreError>;

    /// Lists up to `limit` ids with a label that come after `after`, in order: also of what is not there yet, or deleted,
    /// as long as anything of it is left. Nothing is looked at that does not have the label.
    fn labelled(
        &self,
        label: &Label,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, StoreError>;

    /// Whether a document has a label.
    fn is_labelled(&self, document: &DocumentId, label: &Label) -> Result<bool, StoreError>;

    /// Lists up to `limit` ids of which anything is stored that come after `after`, in order: also of what is deleted, or
    /// an access log and no more.
    fn ids(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<DocumentId>, StoreError>;

    /// Goes through the whole listing and tells which stretches of it can't be read.
    fn unlisted(&self) -> Result<Vec<Unlisted>, StoreError> {
        Ok(Vec::new())
    }

    /// Goes through all labels and tells which ids are found by one that they do not have.
    fn mislabelled(&self) -> Result<Vec<DocumentId>, StoreError> {
        Ok(Vec::new())
    }

    /// Reads one of the server's own values (its peer id, say). `key` is at most 64 bytes.
    fn meta(&self, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// Writes one of the server's own values, durably. At most 1 KiB.
    fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Reads everything of a document and tells what is wrong with it; empty if nothing is. Of one that is not there
    /// yet it reads the access log, of a deleted one the tombstone, too.
    ///
    /// An error only if reading itself failed, or if there is nothing ([`StoreError::Unknown`]).
    fn verify(&self, document: &DocumentId) -> Result<Vec<Problem>, StoreError>;

    /// Does a little of the housekeeping that commits leave behind, such as removing what a snapshot
    /// replaced or what was purged, and tells whether there is more. Nothing depends on it but the space on disk; call it,
    /// from the thread that commits, at its start and when there is nothing to commit.
    fn tidy(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Sees to it that nothing of what is purged by now is anywhere: see [`Remains`]. Takes as long as reading and writing
    /// all that is there; others read and commit meanwhile, from other threads. Gives up when `_go_on` says so, which is
    /// asked now and then. After an error all is there, as it was or as it was to be, and it can be tried again.
    fn rewrite(&self, _go_on: &dyn Fn() -> bool) -> Result<Rewritten, StoreError> {
        Ok(Rewritten::default())
    }

    /// Bytes on disk (or in memory, for [`MemoryStore`]).
    fn size_on_disk(&self) -> Result<u64, StoreError>;
}

/// Longest entry of an access log.
pub const ACCESS_ENTRY_MAX_BYTES: usize = 48 * 1024;
/// Longest key of [`Store::meta`].
pub const META_KEY_MAX_BYTES: usize = 64;
/// Longest value of [`Store::set_meta`]: small enough for one piece in every backend.
pub const META_VALUE_MAX_BYTES: usize = 1024;
