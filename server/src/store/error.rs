//! What can go wrong with a store, and how far the trouble reaches.

use std::{io, path::PathBuf};

use concord_shared::ids::DocumentId;

/// How far a failed commit reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The batch broke the contract, or only a read failed: nothing was written, the store is well.
    Rejected,
    /// The batch may or may not have been written. Its documents must be read again before they go on.
    Unknown,
    /// Nothing can be trusted until the process starts anew: a sync failed, or the store itself gave up.
    Fatal,
}

/// Why a store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An append did not start at the document's next index. A bug in the caller.
    #[error("append to {document} starts at {first}, but its next change is {expected}")]
    OutOfOrder {
        /// The document.
        document: DocumentId,
        /// The index that comes next.
        expected: u64,
        /// The index that was given.
        first: u64,
    },
    /// An append without changes, or with more than an index or a length field can hold. A bug in the caller.
    #[error("append to {document} holds {changes} changes of {bytes} bytes")]
    BadAppend {
        /// The document.
        document: DocumentId,
        /// How many changes it held.
        changes: usize,
        /// How many bytes they have.
        bytes: usize,
    },
    /// A snapshot that goes back, or beyond the log, or keeps from above its base. A bug in the caller.
    #[error(
        "snapshot of {document} at {base} keeping from {keep_from}, but the last is at {former_base} and the log ends at {next}"
    )]
    BadSnapshot {
        /// The document.
        document: DocumentId,
        /// The base that was given.
        base: u64,
        /// The `keep_from` that was given.
        keep_from: u64,
        /// The base of the snapshot that is there.
        former_base: u64,
        /// The document's next index.
        next: u64,
    },
    /// An access entry that is not the next one, or too long. A bug in the caller.
    #[error(
        "access entry {number} of {document} has {bytes} bytes, and its next entry is {expected}"
    )]
    BadAccess {
        /// The document.
        document: DocumentId,
        /// The number that comes next.
        expected: u64,
        /// The number that was given.
        number: u64,
        /// Length of the entry.
        bytes: usize,
    },
    /// A meta key or value that is empty or too long. A bug in the caller.
    #[error("meta key of {key_bytes} bytes with a value of {value_bytes} bytes")]
    BadMeta {
        /// Length of the key.
        key_bytes: usize,
        /// Length of the value.
        value_bytes: usize,
    },
    /// The document is deleted: nothing is written to it.
    #[error("document {document} is deleted")]
    Deleted {
        /// The document.
        document: DocumentId,
    },
    /// The document is purged: it can't come back.
    #[error("document {document} is purged")]
    Purged {
        /// The document.
        document: DocumentId,
    },
    /// What only a deleted document can be told came for one that is not.
    #[error("document {document} is not deleted")]
    NotDeleted {
        /// The document.
        document: DocumentId,
    },
    /// There is no such document.
    #[error("there is no document {document}")]
    Unknown {
        /// The document.
        document: DocumentId,
    },
    /// What is stored of a document is damaged.
    #[error("document {document} is damaged: {problem}")]
    Corrupt {
        /// The document.
        document: DocumentId,
        /// What is wrong.
        problem: Problem,
    },
    /// A stored value outside any document is damaged.
    #[error("the store's own record {key} is damaged: {problem}")]
    CorruptMeta {
        /// Its key.
        key: String,
        /// What is wrong.
        problem: Problem,
    },
    /// Reading failed.
    #[error("reading the store failed")]
    Read(#[source] io::Error),
    /// Writing failed; whether the batch is there is not known.
    #[error("writing to the store failed")]
    Write(#[source] io::Error),
    /// Writing failed so that the backend gave up.
    #[error(
        "writing to the store failed: nothing more is written until the server is started anew"
    )]
    Broken(#[source] io::Error),
    /// Making a batch durable failed.
    #[error("syncing the store failed: nothing more is written until the server is started anew")]
    Sync(#[source] io::Error),
    /// An earlier failure makes every later write unsafe.
    #[error("the store refuses writes after an earlier failure")]
    Poisoned,
    /// Another process has the data directory open.
    #[error("data directory {} is in use by a running server", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory could not be opened. It is left as it is, but for what sled's recovery did.
    #[error(
        "data directory {} could not be opened; nothing in it was deleted: copy it aside before trying anything else. Another, empty directory can be filled by `concord import` from earlier exports, and by clients that still hold the documents",
        path.display()
    )]
    Open {
        /// The data directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was durable is damaged, or gone. Nothing was opened, and nothing changed.
    #[error(
        "data directory {} has lost something that was durable: {damage}. Nothing in it was changed; opening it would make the loss final",
        path.display()
    )]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// What is wrong.
        damage: Damage,
    },
    /// The database could not be written anew.
    #[error(
        "the database in {} could not be written anew: nothing of it is lost, and it can be tried again",
        path.display()
    )]
    Rewrite {
        /// The data directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database was not written anew: while there are two of it, the disk might be full.
    #[error(
        "the database in {} can't be written anew: that takes {needed} bytes of free disk space, and there are {free}",
        path.display()
    )]
    NoRoom {
        /// The data directory.
        path: PathBuf,
        /// How many bytes must be free.
        needed: u64,
        /// How many are.
        free: u64,
    },
    /// The data directory holds something else.
    #[error("data directory {} holds a database that is not Concord's", path.display())]
    NotOurs {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory was written by another version of Concord.
    #[error("data directory {} has format {found}, this version reads up to format {supported}", path.display())]
    Format {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u8,
        /// The highest format this build reads and writes.
        supported: u8,
    },
}

impl StoreError {
    /// How far this reaches, when a commit returned it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::OutOfOrder { .. }
            | Self::BadAppend { .. }
            | Self::BadSnapshot { .. }
            | Self::BadAccess { .. }
            | Self::BadMeta { .. }
            | Self::Deleted { .. }
            | Self::Purged { .. }
            | Self::NotDeleted { .. }
            | Self::Unknown { .. }
            | Self::Corrupt { .. }
            | Self::CorruptMeta { .. } => Severity::Rejected,
            Self::Read(_) | Self::Write(_) => Severity::Unknown,
            Self::Broken(_)
            | Self::Sync(_)
            | Self::Poisoned
            | Self::InUse { .. }
            | Self::Open { .. }
            | Self::Damaged { .. }
            | Self::Rewrite { .. }
            | Self::NoRoom { .. }
            | Self::NotOurs { .. }
            | Self::Format { .. } => Severity::Fatal,
        }
    }

    /// The one document this is about, if it is about one: the others in the batch are blameless.
    pub fn document(&self) -> Option<&DocumentId> {
        match self {
            Self::OutOfOrder { document, .. }
            | Self::BadAppend { document, .. }
            | Self::BadSnapshot { document, .. }
            | Self::BadAccess { document, .. }
            | Self::Deleted { document }
            | Self::Purged { document }
            | Self::NotDeleted { document }
            | Self::Unknown { document }
            | Self::Corrupt { document, .. } => Some(document),
            _ => None,
        }
    }
}

/// What became of a part of the database file that was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is not what was written.
    #[error("the database file is damaged at byte {0}")]
    At(u64),
    /// The value that tells the directory's format can't be read.
    #[error("the record of the directory's format can't be read")]
    Format,
    /// It is not there: the file was cut, or is an older one.
    #[error("the end of the database file is missing, or it was replaced by an older one")]
    Missing,
}

/// A part of what is stored of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Part {
    /// The document's own record: when it was created, which snapshot is valid.
    #[error("document record")]
    Document,
    /// A piece of the snapshot.
    #[error("snapshot piece {piece}")]
    Snapshot {
        /// 0-based number of the piece.
        piece: u32,
    },
    /// A piece of what is stored with the snapshot.
    #[error("graph piece {piece}")]
    Graph {
        /// 0-based number of the piece.
        piece: u32,
    },
    /// A piece of what is known of the arrival of the snapshot's changes.
    #[error("arrivals piece {piece}")]
    Arrivals {
        /// 0-based number of the piece.
        piece: u32,
    },
    /// A log record.
    #[error("log record {first}")]
    Log {
        /// Index of the record's first change.
        first: u64,
    },
    /// A piece of the body of a long log record.
    #[error("log record {first}, piece {piece}")]
    Body {
        /// Index of the record's first change.
        first: u64,
        /// 0-based number of the piece.
        piece: u32,
    },
    /// An entry of the access log.
    #[error("access entry {number}")]
    Access {
        /// Number of the entry.
        number: u64,
    },
    /// A piece of a long entry of the access log.
    #[error("access entry {number}, piece {piece}")]
    AccessPiece {
        /// Number of the entry.
        number: u64,
        /// 0-based number of the piece.
        piece: u32,
    },
    /// A label by which the document is found.
    #[error("label")]
    Label,
    /// What a label finds the document by.
    #[error("entry of a label")]
    Labelled,
    /// What a deleted document leaves.
    #[error("tombstone")]
    Tombstone,
    /// One of the server's own values.
    #[error("server value")]
    Meta,
    /// A key that no version of this format writes.
    #[error("unknown key")]
    Stray,
}

/// Something wrong with what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The database file is damaged where some of this lies.
    #[error("the database file is damaged where some of it is stored")]
    Unreadable,
    /// The bytes are not those that were written, or were written under another key.
    #[error("{part}: checksum does not match")]
    Checksum {
        /// Where.
        part: Part,
    },
    /// The value was written by a version this build does not know.
    #[error("{part}: format {found} is not known")]
    Format {
        /// Where.
        part: Part,
        /// The format byte.
        found: u8,
    },
    /// The checksum matches but the contents make no sense.
    #[error("{part}: malformed")]
    Malformed {
        /// Where.
        part: Part,
    },
    /// Something that must be there is not.
    #[error("{part}: missing")]
    Missing {
        /// Where.
        part: Part,
    },
    /// Something is there that nothing refers to.
    #[error("{part}: nothing refers to it")]
    Stray {
        /// Where.
        part: Part,
    },
    /// The log does not go on where it left off.
    #[error("log goes on at {found}, but the next change is {expected}")]
    Gap {
        /// The index that comes next.
        expected: u64,
        /// The index found.
        found: u64,
    },
}
